//! Redis and Cassandra on loopback: started, hurt and healed by the scripts of `tests/services`, which know their processes
//! by pid. Everything is ended and deleted when this is dropped.
#![forbid(unsafe_code)]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::server::free_port;

/// Where the scripts are: in the tree that this program was built from.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/services");
/// CQL's port, on addresses of our own.
const CQL_PORT: u16 = 9042;
/// The port between Cassandra's nodes.
const STORAGE_PORT: u16 = 7000;
/// The first node's number in its network, and the number that clients are told instead, where a proxy listens.
const FIRST: u8 = 1;
const FIRST_TOLD: u8 = 11;
/// Longest wait for a service to answer, s: on a busy machine three nodes take a minute.
const READY_SECONDS: &str = "240";

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The one Redis.
    Redis,
    /// The second of Cassandra's nodes.
    CassandraNode,
    /// All of Cassandra.
    Cassandra,
}

/// What the services are wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To be killed: Cassandra acknowledges what is on its disk, and has little memory, so that it starts soon.
    Faults,
    /// To be timed: Cassandra acknowledges as it does by default, before that, and its collector has room.
    Speed,
}

impl Purpose {
    const fn commit_log(self) -> &'static str {
        match self {
            Self::Faults => "batch",
            Self::Speed => "periodic",
        }
    }

    const fn heap(self, nodes: u8) -> &'static str {
        match (self, nodes) {
            (Self::Faults, 1) => "512m",
            (Self::Faults, _) => "320m",
            (Self::Speed, _) => "1g",
        }
    }
}

/// The services of one stage.
#[derive(Debug)]
pub struct Services {
    data: PathBuf,
    cassandra_nodes: u8,
    purpose: Purpose,
    /// The network of Cassandra's addresses, 127.x.y: one for each stage, so that several find free ports.
    network: [u8; 2],
    redis_port: u16,
}

impl Services {
    /// Starts Redis and so many nodes of Cassandra (1 or 3), with their data under `home`.
    ///
    /// # Errors
    /// Says what a script said.
    pub async fn start(home: &Path, cassandra_nodes: u8, purpose: Purpose) -> io::Result<Self> {
        let pid = std::process::id();
        let redis_port = free_port()?.port();
        let services = Self {
            data: home.join("services"),
            cassandra_nodes,
            purpose,
            network: [64 + (pid >> 8) as u8 % 128, pid as u8],
            redis_port,
        };
        std::fs::create_dir_all(&services.data)?;
        services.start_again(Service::Redis).await?;
        services.start_again(Service::Cassandra).await?;
        Ok(services)
    }

    /// How many nodes Cassandra has.
    pub fn cassandra_nodes(&self) -> u8 {
        self.cassandra_nodes
    }

    /// Where Redis listens.
    pub fn redis(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.redis_port)
    }

    /// Where Cassandra's nodes listen, and beside each the address that clients are told.
    pub fn cassandra(&self) -> Vec<(SocketAddrV4, SocketAddrV4)> {
        let at = |number| SocketAddrV4::new(self.address(number), CQL_PORT);
        let node = |index| (at(FIRST + index), at(FIRST_TOLD + index));
        (0..self.cassandra_nodes).map(node).collect()
    }

    fn address(&self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, self.network[0], self.network[1], number)
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// Says what the script said.
    pub async fn kill(&self, service: Service) -> io::Result<()> {
        match service {
            Service::Redis => self.script("redis.sh", &["kill"]).await,
            Service::CassandraNode => self.script("cassandra.sh", &["kill", "2"]).await,
            Service::Cassandra => self.script("cassandra.sh", &["kill"]).await,
        }
    }

    /// Starts what does not run; returns when it answers.
    ///
    /// # Errors
    /// Says what the script said.
    pub async fn start_again(&self, service: Service) -> io::Result<()> {
        match service {
            Service::Redis => self.script("redis.sh", &["start"]).await,
            Service::CassandraNode | Service::Cassandra => self.script("cassandra.sh", &["start"]).await,
        }
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self, service: Service) -> io::Result<()> {
        self.signal(service, Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn go_on(&self, service: Service) -> io::Result<()> {
        self.signal(service, Signal::CONT)
    }

    fn signal(&self, service: Service, signal: Signal) -> io::Result<()> {
        let numbers = match service {
            Service::Redis => return kill_process_of(&self.data.join(format!("redis-{}", self.redis_port)), signal),
            Service::CassandraNode => FIRST + 1..FIRST + 2,
            Service::Cassandra => FIRST..FIRST + self.cassandra_nodes,
        };
        for number in numbers {
            let (nodes, address) = (self.cassandra_nodes, self.address(number));
            let directory = self.data.join(format!("cassandra-{nodes}-{address}-{CQL_PORT}"));
            kill_process_of(&directory, signal)?;
        }
        Ok(())
    }

    fn command(&self, script: &str) -> std::process::Command {
        let mut command = std::process::Command::new(Path::new(SCRIPTS).join(script));
        command
            .env("SERVICES_DATA", &self.data)
            .env("SERVICES_READY_SECONDS", READY_SECONDS)
            .env("REDIS_PORT", self.redis_port.to_string())
            .env("CASSANDRA_NODES", self.cassandra_nodes.to_string())
            .env("CASSANDRA_ADDRESS", self.address(FIRST).to_string())
            .env("CASSANDRA_TOLD", self.address(FIRST_TOLD).to_string())
            .env("CASSANDRA_PORT", CQL_PORT.to_string())
            .env("CASSANDRA_STORAGE_PORT", STORAGE_PORT.to_string())
            .env("CASSANDRA_HEAP", self.purpose.heap(self.cassandra_nodes))
            .env("CASSANDRA_COMMITLOG", self.purpose.commit_log())
            // All of the compiler: what is measured here runs for longer than a test.
            .env("CASSANDRA_JAVA", "")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    async fn script(&self, script: &str, arguments: &[&str]) -> io::Result<()> {
        let mut command = self.command(script);
        command.args(arguments).stderr(Stdio::piped());
        let done = tokio::process::Command::from(command).output().await?;
        if done.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&done.stderr);
        Err(io::Error::other(format!("{script} {}: {said}", arguments.join(" "))))
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for script in ["redis.sh", "cassandra.sh"] {
            let wiped = self.command(script).arg("wipe").status();
            if !wiped.is_ok_and(|status| status.success()) {
                eprintln!(
                    "dispatchd-bench: {script} wipe failed; look into {}",
                    self.data.display()
                );
            }
        }
    }
}

/// Sends a signal to the process of a service's directory.
fn kill_process_of(directory: &Path, signal: Signal) -> io::Result<()> {
    let file = directory.join("pid");
    let text = std::fs::read_to_string(&file)?;
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other(format!("no pid in {}", file.display())))?;
    Ok(kill_process(pid, signal)?)
}
