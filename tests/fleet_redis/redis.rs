//! Redis servers of tests: each test has its own, on ports of its own.

use crate::support::{Setup, eventually, ports};
use redis::aio::MultiplexedConnection;
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// A server, started by `tests/services/redis.sh`. Ended when dropped.
pub struct Redis {
    pub port: u16,
    dir: TempDir,
}

impl Redis {
    pub fn start() -> Self {
        let redis = Self {
            port: ports::free_address().port(),
            dir: TempDir::with_prefix("dispatchd-redis-").expect("a temporary directory"),
        };
        redis.script("start");
        redis
    }

    fn script(&self, command: &str) {
        let ports = self.port.to_string();
        run("redis.sh", &[command], &[("REDIS_PORT", &ports)], self.dir.path());
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// `kill -9`: what it held is lost.
    pub fn kill(&self) {
        self.script("kill");
    }

    pub fn start_again(&self) {
        self.script("start");
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let file = self.dir.path().join(format!("redis-{}", self.port)).join("pid");
        let pid = std::fs::read_to_string(file).expect("the pid of Redis");
        let pid = rustix::process::Pid::from_raw(pid.trim().parse().expect("a pid")).expect("a pid above 0");
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    pub async fn client(&self) -> Client {
        let client = redis::Client::open(self.url()).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await;
        Client(connection.expect("a connection to Redis"))
    }

    /// A node of a fleet whose registry this is.
    pub fn setup(&self, node_id: &str, shards: u16) -> Setup {
        Setup::shards(shards)
            .set("node_id", node_id)
            .set("fleet_redis_url", self.url())
            // On a busy machine too Redis is there: what is shown is not how fast it answers.
            .set("fleet_redis_timeout_ms", 5_000)
    }

    /// The same for drivers who say nothing for as long as a test takes, and for a Redis that is soon given up.
    pub fn setup_of_silent(&self, node_id: &str, shards: u16) -> Setup {
        let setup = self.setup(node_id, shards).set("heartbeat_ms", 600_000);
        setup
            .set("fleet_redis_driver_ttl_ms", 1_200_000)
            .set("fleet_redis_timeout_ms", 500)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.script("wipe");
    }
}

/// Runs a script of `tests/services`.
pub fn run(script: &str, arguments: &[&str], variables: &[(&str, &str)], data: &Path) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/services")
        .join(script);
    let mut command = Command::new(path);
    command.args(arguments).env("SERVICES_DATA", data);
    for (name, value) in variables {
        command.env(name, value);
    }
    let done = command.output().expect("a script");
    assert!(
        done.status.success(),
        "{script} {arguments:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

/// A client that looks at keys.
#[derive(Clone)]
pub struct Client(pub MultiplexedConnection);

impl Client {
    pub async fn hash(&mut self, key: &str) -> HashMap<String, String> {
        let read = redis::cmd("HGETALL").arg(key).query_async(&mut self.0).await;
        read.expect("a hash")
    }

    pub async fn ttl_ms(&mut self, key: &str) -> i64 {
        let read = redis::cmd("PTTL").arg(key).query_async(&mut self.0).await;
        read.expect("a time to live")
    }

    /// The hash once it fits.
    pub async fn until(
        &self,
        key: &str,
        what: &str,
        fits: impl Fn(&HashMap<String, String>) -> bool,
    ) -> HashMap<String, String> {
        let what = format!("{key} to be {what}");
        eventually(&what, || async {
            let hash = self.clone().hash(key).await;
            fits(&hash).then_some(hash)
        })
        .await
    }

    /// How many drivers there are of this node.
    pub async fn drivers_of(&self, node_id: &str, ids: &[String]) -> usize {
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.cmd("HGET").arg(format!("driver:{id}")).arg("node");
        }
        // A busy machine may take its time; whoever asks asks again.
        let nodes: Vec<Option<String>> = pipe.query_async(&mut self.0.clone()).await.unwrap_or_default();
        nodes.iter().filter(|node| node.as_deref() == Some(node_id)).count()
    }
}
