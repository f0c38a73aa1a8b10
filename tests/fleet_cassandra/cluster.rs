//! The Cassandra under test, and what the tests read of it directly.

use crate::support::{Answer, Node, Setup, eventually, json, number, text};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Where the script has it listen.
const ADDRESS: &str = "127.0.0.1:19042";

/// One Cassandra for all tests of this process.
static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
/// Held shared by who needs Cassandra, alone by who stops it.
static USE: RwLock<()> = RwLock::const_new(());

/// A Cassandra that runs, with a keyspace of this process.
pub struct Cluster {
    address: &'static str,
    pub keyspace: String,
}

/// A test's hold on Cassandra.
pub struct Shared {
    pub cluster: &'static Cluster,
    _guard: RwLockReadGuard<'static, ()>,
}

/// A test's hold on a Cassandra that nobody else uses.
pub struct Alone {
    pub cluster: &'static Cluster,
    _guard: RwLockWriteGuard<'static, ()>,
}

/// Cassandra, shared with other tests. `None`: there is none on this machine, and the test has nothing to show.
pub async fn shared() -> Option<Shared> {
    let cluster = cluster()?;
    Some(Shared {
        cluster,
        _guard: USE.read().await,
    })
}

/// Cassandra for one test alone.
pub async fn alone() -> Option<Alone> {
    let cluster = cluster()?;
    Some(Alone {
        cluster,
        _guard: USE.write().await,
    })
}

fn cluster() -> Option<&'static Cluster> {
    CLUSTER.get_or_init(Cluster::start).as_ref()
}

/// `tests/services/cassandra.sh ACTION`.
fn script(address: &str, action: &str) -> Output {
    let (address, port) = address.split_once(':').expect("an address and a port");
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services/cassandra.sh"))
        .arg(action)
        .env("CASSANDRA_ADDRESS", address)
        .env("CASSANDRA_PORT", port)
        .env_remove("CASSANDRA_STORAGE_PORT")
        .stdin(Stdio::null())
        .output()
        .expect("the script")
}

impl Cluster {
    fn start() -> Option<Self> {
        let has_java = Command::new("java").arg("-version").output().is_ok();
        if !has_java && std::env::var_os("FLEET_CASSANDRA").is_none() {
            eprintln!("skipped: there is no java here (FLEET_CASSANDRA=1 installs it)");
            return None;
        }
        let started = script(ADDRESS, "start");
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
        let keyspace = format!("t{}_{}", std::process::id(), jiff::Timestamp::now().as_millisecond());
        let cluster = Self {
            address: ADDRESS,
            keyspace,
        };
        let made = cluster.command(&["schema", "apply", "--replication", "simple=1"], &cluster.keyspace);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(cluster)
    }

    /// The program with settings for a keyspace.
    pub fn command(&self, arguments: &[&str], keyspace: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_dispatchd"))
            .args(arguments)
            .arg("--set")
            .arg(format!("fleet_cassandra_contact_points={}", self.address))
            .arg("--set")
            .arg(format!("fleet_cassandra_keyspace={keyspace}"))
            .stdin(Stdio::null())
            .output()
            .expect("the program")
    }

    /// A keyspace of a test's own: nodes take over from all that are dead, those of other tests too.
    pub fn another_keyspace(&self) -> String {
        let keyspace = unique("ks").replace('-', "_");
        let made = self.command(&["schema", "apply", "--replication", "simple=1"], &keyspace);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        keyspace
    }

    /// How a node is to be started so that it uses this Cassandra.
    pub fn node(&self, name: &str) -> Setup {
        Setup::shards(2)
            .set("node_id", name)
            .set("fleet_cassandra_contact_points", self.address)
            .set("fleet_cassandra_keyspace", &self.keyspace)
            // A Cassandra that has just started on a busy machine takes seconds for its first answers.
            .set("fleet_cassandra_timeout_ms", 10_000)
    }

    /// A session of the test's own.
    pub async fn session(&self) -> Session {
        let built = SessionBuilder::new().known_node(self.address).build().await;
        built.expect("a session")
    }

    /// How many records a driver has on a day.
    pub async fn records_of(&self, session: &Session, driver_id: &str) -> i64 {
        let text = format!(
            "SELECT COUNT(*) FROM {}.dispatch_records WHERE driver_id = ? ALLOW FILTERING",
            self.keyspace
        );
        let asked = session.query_unpaged(text, (driver_id,)).await.expect("an answer");
        let rows = asked.into_rows_result().expect("rows");
        rows.single_row::<(i64,)>().expect("a count").0
    }

    /// Waits until Cassandra has these requests, cancelled, and as many records of the driver. A node stores what it
    /// committed in its own time and its gauges follow later, so that a backlog of 0 says nothing of what came just now.
    pub async fn until_there(&self, driver_id: &str, request_ids: &[String]) {
        let session = self.session().await;
        for id in request_ids {
            let there = async || self.request(&session, id).await;
            let (state, _) = eventually("a request in Cassandra", there).await;
            assert_eq!(state, "CANCELLED", "{id}");
        }
        let all = async || (self.records_of(&session, driver_id).await >= request_ids.len() as i64).then_some(());
        eventually("the records in Cassandra", all).await;
    }

    /// State and owner of a request; `None`: it is not there.
    pub async fn request(&self, session: &Session, request_id: &str) -> Option<(String, String)> {
        let text = format!(
            "SELECT state, owner FROM {}.requests WHERE request_id = ?",
            self.keyspace
        );
        let asked = session.query_unpaged(text, (request_id,)).await.expect("an answer");
        let rows = asked.into_rows_result().expect("rows");
        rows.maybe_first_row::<(String, String)>().expect("a row")
    }
}

impl Cluster {
    /// Its process; `None`: it does not run.
    fn pid(&self) -> Option<rustix::process::Pid> {
        let shown = script(self.address, "status");
        if !shown.status.success() {
            return None;
        }
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let (_, rest) = shown.split_once("pid ")?;
        rustix::process::Pid::from_raw(rest.split_once(',')?.0.parse().ok()?)
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.pid().expect("a Cassandra that runs");
        rustix::process::kill_process(pid, signal).expect("its process");
    }
}

impl Alone {
    /// SIGSTOP: it hangs, with all its connections.
    pub fn pause(&self) {
        self.cluster.signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        self.cluster.signal(rustix::process::Signal::CONT);
    }

    /// `kill -9`.
    pub fn kill(&self) {
        assert!(script(self.cluster.address, "kill").status.success());
    }

    /// Starts it again with its data, and waits until it answers.
    pub fn restart(&self) {
        let started = script(self.cluster.address, "start");
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    }
}

/// Nobody after this test is to find it stopped, whatever became of the test.
impl Drop for Alone {
    fn drop(&mut self) {
        if self.cluster.pid().is_some() {
            self.go_on();
        } else {
            self.restart();
        }
    }
}

/// A name that no other test and no other run uses.
pub fn unique(prefix: &str) -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id())
}

/// A path that nobody else uses.
pub fn scratch(name: &str) -> PathBuf {
    std::env::temp_dir().join(unique(name))
}

impl Node {
    /// A request to a driver whom nobody knows: refused at once, then cancelled. One record, one ended request.
    pub async fn ended_request(&self, request_id: &str, driver_id: &str) {
        self.offer(request_id, &[driver_id], &json!({})).await;
        self.cancel(request_id).await.ok(200);
    }

    /// Waits until nothing that the node's store has waits for Cassandra.
    pub async fn until_carried(&self) {
        let done = async || (self.metric("dispatchd_cassandra_backlog_commits", "").await == 0).then_some(());
        eventually("Cassandra to have everything", done).await;
    }

    /// The records of a driver today, as this node shows them.
    pub async fn records_today(&self, driver_id: &str) -> Answer {
        self.records_of_day(driver_id, jiff::Timestamp::now()).await
    }

    async fn records_of_day(&self, driver_id: &str, day: jiff::Timestamp) -> Answer {
        let date = day.strftime("%F");
        self.get(&format!("/v1/drivers/{driver_id}/records?date={date}&limit=1000"))
            .await
    }

    /// [`shape`] of the records of a driver today and, as midnight may have been a moment ago, yesterday.
    pub async fn records_lately(&self, driver_id: &str) -> Vec<(String, String)> {
        let now = jiff::Timestamp::now();
        let mut rows = Vec::new();
        for day in [now, now - jiff::SignedDuration::from_hours(24)] {
            rows.extend(shape(&self.records_of_day(driver_id, day).await));
        }
        rows
    }
}

/// Request ids and nodes of an answer with records.
pub fn shape(answer: &Answer) -> Vec<(String, String)> {
    let body = answer.ok(200);
    let records = body["records"].as_array().expect("records").clone();
    assert!(
        records
            .windows(2)
            .all(|two| number(&two[0], "offer_sent_at_ms") >= number(&two[1], "offer_sent_at_ms"))
    );
    let one = |record| {
        (
            text(record, "request_id").to_owned(),
            text(record, "gateway_node_id").to_owned(),
        )
    };
    records.iter().map(one).collect()
}
