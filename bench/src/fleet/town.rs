//! The nodes of one act, with a proxy in front of everything that they share: Redis, each of Cassandra's nodes, and the link
//! of each node. Every act has nodes, a keyspace and Redis keys of its own, so that what one leaves does not reach the next.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dispatchd::demo::api::http_client;
use dispatchd::demo::node::Node;
use rustix::process::Signal;

use super::play::AGE_STEP_MS;
use super::proxy::{Flow, Pids, Proxy, Whose};
use super::services::Services;
use crate::server::Install;

/// How long a node that drains takes to send its drivers away, ms.
const DRAIN_MS: u64 = 1000;
/// How long a node may take to end after SIGTERM: `drain_ms` and the contract's 10 s, and a little.
const STOP_MAX: Duration = Duration::from_millis(DRAIN_MS + 12_000);
/// How long a caller waits for an answer before it asks another node.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// The setting by which nodes listen for each other.
const LINK_LISTEN: &str = "fleet_link_listen";

/// What is between the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Nodes and Redis.
    Redis,
    /// Nodes and the second of Cassandra's nodes.
    CassandraNode,
    /// Nodes and all of Cassandra.
    Cassandra,
    /// The first two nodes.
    Link,
    /// The second node, and all but its clients.
    NodeAlone,
    /// The second node and Redis.
    NodeAndRedis,
}

/// What the program can do, as far as acts need it.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// Its nodes speak with each other.
    pub links: bool,
}

impl Abilities {
    /// Asks the program for its settings.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn of(install: &Install) -> io::Result<Self> {
        let shown = std::process::Command::new(&install.program)
            .args(["config", "show"])
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&shown.stdout);
        if !text.contains("fleet_redis_url") {
            let program = install.program.display();
            return Err(io::Error::other(format!(
                "{program} config show names no settings of a fleet"
            )));
        }
        Ok(Self {
            links: text.contains(LINK_LISTEN),
        })
    }
}

/// The nodes and what is between them. Dropped, the nodes are killed.
pub struct Town {
    home: PathBuf,
    nodes: Vec<Node>,
    pids: Pids,
    redis: Proxy,
    cassandra: Vec<Proxy>,
    /// In front of each node, for the others.
    links: Vec<Proxy>,
    http: reqwest::Client,
}

impl Town {
    /// Makes the tables and starts the nodes; returns when they take work.
    ///
    /// # Errors
    /// Something cannot be started; with the end of a node's log when a node is not ready.
    pub async fn start(
        install: &Install,
        services: &Services,
        abilities: Abilities,
        home: &Path,
        name: &str,
        nodes: usize,
    ) -> io::Result<Self> {
        let keyspace = name.replace('-', "_");
        let pids: Pids = Arc::new(Mutex::new(vec![None; nodes]));
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let redis = Proxy::start(any, services.redis(), &pids).await?;
        let mut cassandra = Vec::new();
        for (at, told) in services.cassandra() {
            cassandra.push(Proxy::start(told, at, &pids).await?);
        }
        let points: Vec<String> = cassandra.iter().map(|proxy| proxy.address().to_string()).collect();
        let mut settings = vec![
            "shards=1".to_owned(),
            format!("drain_ms={DRAIN_MS}"),
            format!("ingress_age_step_ms={AGE_STEP_MS}"),
            format!("fleet_redis_url=redis://{}", redis.address()),
            format!("fleet_redis_prefix={name}:"),
            format!("fleet_cassandra_contact_points={}", points.join(",")),
            format!("fleet_cassandra_keyspace={keyspace}"),
        ];
        settings.extend_from_slice(&install.settings);
        apply_schema(install, services, &settings).await?;
        let mut town = Self {
            home: home.join(name),
            nodes: Vec::new(),
            pids,
            redis,
            cassandra,
            links: Vec::new(),
            http: http_client(ANSWER_MAX).map_err(io::Error::other)?,
        };
        for number in 1..=nodes {
            let mut settings = settings.clone();
            settings.push(format!("node_id=gw-{number}"));
            if abilities.links {
                town.add_link(&mut settings).await?;
            }
            let home = town.home.join(format!("gw-{number}"));
            std::fs::create_dir_all(&home)?;
            town.nodes.push(Node::start(&install.program, &home, settings)?);
            town.note_pid(number - 1);
        }
        for index in 0..nodes {
            town.ready(index).await?;
        }
        Ok(town)
    }

    async fn add_link(&mut self, settings: &mut Vec<String>) -> io::Result<()> {
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let listens = match TcpListener::bind(any)?.local_addr()? {
            SocketAddr::V4(address) => address,
            SocketAddr::V6(_) => unreachable!("it was bound to IPv4"),
        };
        let proxy = Proxy::start(any, listens, &self.pids).await?;
        settings.push(format!("{LINK_LISTEN}={listens}"));
        settings.push(format!("fleet_link_advertise={}", proxy.address()));
        self.links.push(proxy);
        Ok(())
    }

    fn note_pid(&self, index: usize) {
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        pids[index] = self.nodes[index].pid();
    }

    /// Its directory, with one of each node.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// How many nodes there are.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// The node that faults of one node hit: the second one, where there is one.
    pub fn victim(&self) -> usize {
        1.min(self.nodes.len() - 1)
    }

    /// Where the nodes' clients find them.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Node::address).collect()
    }

    /// The client that everybody uses, with the patience of callers.
    pub fn http(&self) -> reqwest::Client {
        self.http.clone()
    }

    /// Deals so with what is between some of them.
    pub fn set(&self, wire: Wire, flow: Flow) {
        let second = Whose::Node(self.victim());
        match wire {
            Wire::Redis => self.redis.set(Whose::All, flow),
            Wire::NodeAndRedis => self.redis.set(second, flow),
            Wire::Cassandra => self.cassandra.iter().for_each(|proxy| proxy.set(Whose::All, flow)),
            Wire::CassandraNode => {
                for proxy in self.cassandra.iter().skip(1).take(1) {
                    proxy.set(Whose::All, flow);
                }
            }
            Wire::Link => {
                if let [first, other, ..] = self.links.as_slice() {
                    first.set(second, flow);
                    other.set(Whose::Node(0), flow);
                }
            }
            Wire::NodeAlone => {
                let services = self.cassandra.iter().chain([&self.redis]);
                services.chain(&self.links).for_each(|proxy| proxy.set(second, flow));
                if let Some(own) = self.links.get(self.victim()) {
                    own.set(Whose::All, flow);
                }
            }
        }
    }

    /// `kill -9`.
    pub fn kill(&mut self, index: usize) {
        self.nodes[index].kill();
        self.note_pid(index);
    }

    /// Starts a node again that was killed or has ended.
    ///
    /// # Errors
    /// It cannot be started, or is not ready.
    pub async fn start_again(&mut self, index: usize) -> io::Result<()> {
        self.nodes[index].spawn()?;
        self.note_pid(index);
        self.ready(index).await
    }

    async fn ready(&mut self, index: usize) -> io::Result<()> {
        let node = &mut self.nodes[index];
        let ready = node.ready(&self.http).await;
        ready
            .map(drop)
            .map_err(|error| io::Error::other(format!("gw-{}: {error}\n{}", index + 1, node.log_tail())))
    }

    /// SIGSTOP or SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, index: usize, signal: Signal) -> io::Result<()> {
        self.nodes[index].signal(signal)
    }

    /// SIGTERM, until it is gone.
    ///
    /// # Errors
    /// It does not end as it should.
    pub async fn terminate(&mut self, index: usize) -> io::Result<()> {
        let ended = self.nodes[index].terminate(STOP_MAX).await;
        self.note_pid(index);
        ended.map_err(|error| io::Error::other(format!("gw-{}: {error}", index + 1)))
    }

    /// Nodes that have ended by themselves, and the ends of their logs.
    pub fn ended(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        for (node, number) in self.nodes.iter_mut().zip(1..) {
            if let Some(status) = node.ended() {
                found.push(format!("gw-{number} ended by itself: {status}\n{}", node.log_tail()));
            }
        }
        found
    }

    /// What a node shows at `/metrics`; `None`: it does not answer.
    pub async fn metrics(&self, index: usize) -> Option<String> {
        let url = format!("http://{}/metrics", self.nodes[index].address());
        let answer = self.http.get(url).send().await.ok()?;
        answer.text().await.ok()
    }
}

/// `dispatchd schema apply`, with a copy on each of Cassandra's nodes.
async fn apply_schema(install: &Install, services: &Services, settings: &[String]) -> io::Result<()> {
    let copies = services.cassandra_nodes();
    let mut command = tokio::process::Command::new(&install.program);
    command.args(["schema", "apply", "--replication", &format!("simple={copies}")]);
    for setting in settings {
        command.args(["--set", setting]);
    }
    let done = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(io::Error::other(format!("dispatchd schema apply: {said}")))
}
