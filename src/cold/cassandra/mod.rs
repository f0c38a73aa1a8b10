//! The fleet's records: dispatch records and ended requests in Cassandra or Scylla, on a thread of its own.
//!
//! Owners of requests ([`super::owner`]) stand on its tables ([`tables`]). Besides it carries the
//! embedded store's outbox away ([`writes`]), answers what this node does not know ([`reads`]), and says
//! whether Cassandra answers at all: while it does not, the node takes no new requests, since they could not be claimed. The
//! tables are made by [`schema`], not by a node that starts.
//!
//! What the outbox holds is written as upserts whose time and time to live follow from the data, so that writing it again, in any
//! order, changes nothing. What decides is written on conditions, and no cell in both ways.
//!
//! One thread with one tokio runtime, which the driver's own tasks share. Must never: be waited for by a shard, or take
//! anything out of the outbox before a quorum has it.

mod beats;
mod claim_statements;
mod place;
mod reads;
pub mod schema;
mod session;
mod statements;
mod tables;
mod writes;

pub use session::CassandraError;
pub use statements::{STEPS_BYTES_MAX, STEPS_FORMAT_VERSION};
pub use writes::{ENTRIES_MAX, Sink};

use super::claims::{Inboxes, ToClaims};
use super::embedded::{FarAsk, OutboxReader, OutboxState, StoreHealth};
use super::owner::{Owner, OwnerConfig, PAUSE_MAX, PAUSE_MIN, Reach};
use super::port::StoreError;
use crate::config::Config;
use crate::ops::metrics::CassandraMetrics;
use place::TokioPlace;
use session::Ready;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};

/// How often the backlog's gauges are set.
const GAUGES_PERIOD: Duration = Duration::from_millis(250);

/// How Cassandra is reached.
#[derive(Clone, Debug)]
pub struct CassandraConfig {
    /// `host:port` each, not empty.
    pub contact_points: Vec<String>,
    /// Keyspace of the tables; needs no quotes.
    pub keyspace: String,
    /// Datacenter whose nodes are asked.
    pub datacenter: Option<String>,
    /// User and password.
    pub login: Option<(String, String)>,
    /// For one read or write, repeats by the driver included.
    pub timeout: Duration,
    /// Writes on their way at once, at least 1.
    pub writes_max: usize,
    /// Dispatch records live so many days, and up to one more.
    pub records_retention_days: u32,
    /// Ended requests live so many days, and up to one more.
    pub ended_retention_days: u32,
    /// This node's name.
    pub node_id: String,
    /// Whether the node is in the registry of a fleet.
    pub has_registry: bool,
}

impl CassandraConfig {
    /// What the settings say; `None`: there is no Cassandra.
    ///
    /// # Errors
    /// The file with the password cannot be read.
    pub fn of(config: &Config) -> Result<Option<Self>, String> {
        if config.fleet_cassandra_contact_points.is_empty() {
            return Ok(None);
        }
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let login = match some(&config.fleet_cassandra_user) {
            Some(user) => Some((user, read_password(&config.fleet_cassandra_password_file)?)),
            None => None,
        };
        let points = config.fleet_cassandra_contact_points.split(',');
        Ok(Some(Self {
            contact_points: points.map(str::to_owned).collect(),
            keyspace: config.fleet_cassandra_keyspace.to_string(),
            datacenter: some(&config.fleet_cassandra_datacenter),
            login,
            timeout: Duration::from_millis(config.fleet_cassandra_timeout_ms),
            writes_max: config.fleet_cassandra_writes_max as usize,
            records_retention_days: config.records_retention_days,
            ended_retention_days: config.records_retention_days.max(config.idempotency_retention_days),
            node_id: config.node_id.to_string(),
            has_registry: !config.fleet_redis_url.is_empty(),
        }))
    }
}

impl CassandraConfig {
    fn of_owner(&self) -> OwnerConfig {
        OwnerConfig {
            node_id: self.node_id.clone(),
            timeout: self.timeout,
            // Of what nobody waits for so much is on its way at once.
            background_max: (self.writes_max / 2).max(1),
            has_registry: self.has_registry,
        }
    }
}

/// The first line of the file; no password without one.
fn read_password(path: &str) -> Result<String, String> {
    if path.is_empty() {
        return Ok(String::new());
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read fleet_cassandra_password_file {path}: {error}"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// What shards ask of the thread besides: who owns their requests.
pub struct ClaimsEnd {
    /// What they ask.
    pub asked: UnboundedReceiver<ToClaims>,
    /// Where they are answered.
    pub inboxes: Arc<Inboxes>,
}

/// The thread that speaks with Cassandra.
pub struct Cassandra {
    stop: oneshot::Sender<Duration>,
    thread: JoinHandle<()>,
}

impl Cassandra {
    /// Starts the thread. The node counts as unable to store until Cassandra has answered.
    ///
    /// # Errors
    /// No thread or no runtime can be made.
    pub fn start(
        config: CassandraConfig,
        asks: UnboundedReceiver<FarAsk>,
        claims: ClaimsEnd,
        outbox: OutboxReader,
        health: Arc<StoreHealth>,
        metrics: Arc<CassandraMetrics>,
    ) -> Result<Self, StoreError> {
        let cannot = |error| StoreError::unavailable(format!("no thread for Cassandra: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(cannot)?;
        let core = Arc::new(Core::new(config, health, metrics, outbox.state()));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("cassandra".to_owned())
            .spawn(move || {
                let local = tokio::task::LocalSet::new();
                local.block_on(&runtime, run(core, asks, claims, outbox, stopped));
                // A name that is being looked up is not waited for.
                runtime.shutdown_background();
            })
            .map_err(cannot)?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread, after what waits in the outbox has arrived or `patience` is over. The rest stays there.
    pub fn finish(self, patience: Duration) {
        // Refused only by a thread that has panicked, and then joining it says so.
        let _ = self.stop.send(patience);
        if self.thread.join().is_err() {
            tracing::error!("the thread for Cassandra panicked");
        }
    }
}

/// What the thread's tasks share.
struct Core {
    config: CassandraConfig,
    health: Arc<StoreHealth>,
    metrics: Arc<CassandraMetrics>,
    outbox: Arc<OutboxState>,
    /// Whether Cassandra answers.
    reach: Arc<Reach<TokioPlace>>,
    /// The node is ending.
    ending: watch::Sender<bool>,
    /// When the oldest entry that is being written was committed; 0: nothing waits.
    oldest_ms: AtomicU64,
}

impl Core {
    fn new(
        config: CassandraConfig,
        health: Arc<StoreHealth>,
        metrics: Arc<CassandraMetrics>,
        outbox: Arc<OutboxState>,
    ) -> Self {
        let reach = Reach::new(
            TokioPlace::new(),
            config.writes_max,
            config.timeout,
            Arc::clone(&health),
            Arc::clone(&metrics),
        );
        Self {
            reach: Arc::new(reach),
            config,
            health,
            metrics,
            outbox,
            ending: watch::Sender::new(false),
            oldest_ms: AtomicU64::new(0),
        }
    }

    /// Cassandra answers, or does not because of an error.
    fn set_up(&self, result: Result<(), &CassandraError>) {
        if !self.reach.set_up(result.is_ok()) {
            return;
        }
        match result {
            Ok(()) => tracing::info!(waiting = self.outbox.entries(), "Cassandra answers"),
            Err(error) => tracing::error!(%error, "Cassandra does not answer: no new requests are taken"),
        }
    }

    fn show_backlog(&self) {
        let oldest_ms = self.oldest_ms.load(Ordering::Relaxed);
        let age_s = match oldest_ms {
            0 => 0,
            oldest_ms => now_ms().saturating_sub(oldest_ms) / 1_000,
        };
        self.metrics.backlog.set(self.outbox.entries());
        self.metrics.backlog_bytes.set(self.outbox.bytes());
        self.metrics.backlog_age_seconds.set(age_s);
    }
}

/// The machine's time.
fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

async fn run(
    core: Arc<Core>,
    asks: UnboundedReceiver<FarAsk>,
    claims: ClaimsEnd,
    outbox: OutboxReader,
    stopped: oneshot::Receiver<Duration>,
) {
    let (found, ready) = watch::channel(None);
    let reads = tokio::spawn(reads::serve(Arc::clone(&core), asks, ready.clone()));
    let link = tokio::task::spawn_local(keep_link(Arc::clone(&core), found));
    let gauges = tokio::spawn(keep_gauges(Arc::clone(&core)));
    let owner = Owner::new(core.config.of_owner(), &core.reach, ready.clone(), claims.inboxes);
    let mut owning = tokio::task::spawn_local(Rc::clone(&owner).serve(claims.asked));
    let mut feed = tokio::spawn(writes::feed(Arc::clone(&core), outbox, ready));
    tokio::select! {
        // It ends by itself only when the embedded store cannot be read, and that has ended the process already.
        _ = &mut feed => {}
        patience = stopped => {
            core.ending.send_replace(true);
            let rest = async {
                // It has heard everything when the shards are gone.
                let _ = (&mut owning).await;
                owner.settled().await;
                let _ = (&mut feed).await;
            };
            let _ = tokio::time::timeout(patience.unwrap_or_default(), rest).await;
        }
    }
    for task in [reads, link, gauges, owning, feed] {
        task.abort();
    }
    core.show_backlog();
}

/// Connects, and from then on looks whether Cassandra answers whenever there is doubt.
async fn keep_link(core: Arc<Core>, found: watch::Sender<Option<Arc<Ready>>>) {
    let mut pause = PAUSE_MIN;
    let mut said = String::new();
    let ready = loop {
        match Ready::open(&core.config).await {
            Ok(ready) => break Arc::new(ready),
            Err(error) => {
                // On one line, whatever it is made of.
                let text = error.to_string().replace('\n', "; ");
                if text != said {
                    tracing::error!(error = text, "Cassandra cannot be used yet: no new requests are taken");
                    said = text;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    };
    core.set_up(Ok(()));
    found.send_replace(Some(Arc::clone(&ready)));
    core.reach
        .watch(async || ready.probe().await, |result| core.set_up(result))
        .await;
}

async fn keep_gauges(core: Arc<Core>) {
    let mut pace = tokio::time::interval(GAUGES_PERIOD);
    loop {
        pace.tick().await;
        core.show_backlog();
    }
}

/// Runs `work` on a runtime of its own, for commands that are not a node.
///
/// # Errors
/// No runtime can be made.
pub fn block_on<F: Future>(work: F) -> Result<F::Output, CassandraError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CassandraError::new("no runtime", error))?;
    let output = runtime.block_on(work);
    runtime.shutdown_background();
    Ok(output)
}
