//! The registry's thread: connects, serves a connection until it is lost, and connects again.

use super::client::{Link, Target, describe};
use super::lease::{Holder, Keys, Sign};
use super::scripts::Scripts;
use super::serve::{Connection, Lost};
use crate::cold::registry::assign::NodeList;
use crate::cold::registry::port::{
    BATCHES_MAX, Batch, CLAIMS_MAX, Claim, FromRegistry, Inbox, LOOKUPS_MAX, Lookup, LookupReply, OnNodes, Presence,
    RegistryHandle, Reply, Waker,
};
use crate::config::Config;
use crate::fsm::types::UnixMs;
use crate::ops::health::{Health, Readiness};
use crate::ops::metrics::{self, RegistryMetrics};
use compact_str::CompactString;
use redis::RedisResult;
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// First pause between two attempts to connect; each further one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// See [`PAUSE_MIN`].
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a loss that lasts is logged.
const LOG_AGAIN: Duration = Duration::from_secs(30);
/// What the first word about the lease may take beyond what it should.
const LEASE_WORD_GRACE: Duration = Duration::from_secs(3);

/// Who this process is, to the fleet.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The node's name.
    pub node_id: CompactString,
    /// Boot of its data directory.
    pub incarnation: u64,
    /// Of the data directory: random, and the same for ever.
    pub data: String,
    /// Where other nodes and apps reach it.
    pub address: CompactString,
    /// Where links of other nodes reach it; empty: it has none.
    pub link_address: CompactString,
}

/// What the registry's thread sees of its node.
pub struct Surroundings {
    /// What is measured.
    pub metrics: Arc<metrics::Registry>,
    /// Whether the node serves.
    pub health: Arc<Health>,
    /// The node's clock, Unix milliseconds.
    pub now_ms: Box<dyn Fn() -> UnixMs + Send>,
    /// Hears who is alive, when that has changed.
    pub on_nodes: Option<OnNodes>,
}

/// What is known of this node's lease before it serves anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseAtStart {
    /// It has it.
    Held,
    /// Redis is away; drivers are served all the same.
    Unknown,
    /// Another process has it and goes on renewing it.
    Refused {
        /// Where that one listens.
        address: String,
        /// Its incarnation.
        incarnation: String,
    },
}

/// The node's end of the registry.
pub struct DriverRegistry {
    presence: Arc<Presence>,
    claims: mpsc::Sender<(Reply, Claim)>,
    batches: mpsc::Sender<Batch>,
    lookups: mpsc::Sender<(LookupReply, Lookup)>,
    inboxes: Arc<Inboxes>,
    lease: Mutex<std_mpsc::Receiver<LeaseAtStart>>,
    lease_word_max: Duration,
    thread: JoinHandle<()>,
}

/// The inboxes of the shards. Locked by whoever attaches a shard and, once in a while, by the thread.
pub(super) struct Inboxes(Mutex<Attached>);

struct Attached {
    /// In the order of shards.
    inboxes: Vec<Option<Arc<Inbox>>>,
    /// Who is alive, as it was said last: a shard may come when the thread has been at work for a while.
    nodes: Arc<NodeList>,
}

impl Inboxes {
    /// Does something with the inboxes of all shards that are attached.
    fn each(&self, act: impl Fn(&Inbox)) {
        for inbox in self.lock().inboxes.iter().flatten() {
            act(inbox);
        }
    }

    /// Says to all shards who is alive, and to those that come later.
    pub(super) fn show(&self, nodes: &Arc<NodeList>) {
        let mut attached = self.lock();
        attached.nodes = Arc::clone(nodes);
        for inbox in attached.inboxes.iter().flatten() {
            inbox.send(FromRegistry::Nodes(Arc::clone(nodes)));
        }
    }

    fn attach(&self, shard: u16, inbox: Arc<Inbox>) {
        let mut attached = self.lock();
        inbox.send(FromRegistry::Nodes(Arc::clone(&attached.nodes)));
        attached.inboxes[usize::from(shard)] = Some(inbox);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Attached> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something to one shard.
    pub(super) fn send(&self, shard: u16, message: FromRegistry) {
        if let Some(Some(inbox)) = self.lock().inboxes.get(usize::from(shard)) {
            inbox.send(message);
        }
    }
}

impl DriverRegistry {
    /// Starts the thread; it connects by itself.
    ///
    /// # Errors
    /// The system has no thread or no reactor for it.
    pub fn start(target: Target, config: &Config, identity: &Identity, around: Surroundings) -> std::io::Result<Self> {
        let shards = config.shard_count();
        let (claims, claims_taken) = mpsc::channel(CLAIMS_MAX);
        let (batches, batches_taken) = mpsc::channel(BATCHES_MAX);
        let (lookups, lookups_taken) = mpsc::channel(LOOKUPS_MAX);
        let (say_lease, lease) = std_mpsc::channel();
        let presence = Arc::new(Presence::default());
        let inboxes = Arc::new(Inboxes(Mutex::new(Attached {
            inboxes: (0..shards).map(|_| None).collect(),
            nodes: Arc::default(),
        })));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let lease_ms = config.fleet_redis_lease_ms;
        let lease_word_max = Duration::from_millis(2 * lease_ms) + LEASE_WORD_GRACE + 4 * target.timeout();
        let writer = Writer {
            shared: Shared {
                target,
                keys: Keys::new(&config.fleet_redis_prefix),
                sign: sign(identity, (around.now_ms)()),
                ttl_ms: config.fleet_redis_driver_ttl_ms,
                lease_ms,
                shards,
                around,
                presence: Arc::clone(&presence),
                inboxes: Arc::clone(&inboxes),
            },
            claims: claims_taken,
            batches: batches_taken,
            lookups: lookups_taken,
            say_lease: Some(say_lease),
            generation: 0,
            losses: Losses::default(),
            nodes: Arc::default(),
        };
        let thread = std::thread::Builder::new().name("registry".to_owned()).spawn(move || {
            runtime.block_on(writer.run());
            // A name that is being looked up is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self {
            presence,
            claims,
            batches,
            lookups,
            inboxes,
            lease: Mutex::new(lease),
            lease_word_max,
            thread,
        })
    }

    /// A shard's way to the registry; `waker` wakes the shard.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn attach(&self, shard: u16, waker: Waker) -> RegistryHandle {
        let handle = RegistryHandle::new(
            waker,
            self.claims.clone(),
            self.batches.clone(),
            self.lookups.clone(),
            Arc::clone(&self.presence),
        );
        self.inboxes.attach(shard, handle.inbox());
        handle
    }

    /// See [`RegistryHandle::sign_now`].
    pub fn sign_now(&self) {
        self.presence.hurry();
    }

    /// Waits until it is known whether this node's name is free, a few seconds at most.
    pub fn await_lease(&self) -> LeaseAtStart {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        let said = lease.recv_timeout(self.lease_word_max);
        said.unwrap_or(LeaseAtStart::Unknown)
    }

    /// Writes what still waits, gives the lease back and ends the thread. The shards have ended.
    pub fn shutdown(self) {
        let Self {
            claims,
            batches,
            lookups,
            thread,
            ..
        } = self;
        drop((claims, batches, lookups));
        // A panic there has ended the process.
        drop(thread.join());
    }
}

fn sign(identity: &Identity, started_at_ms: UnixMs) -> Sign {
    Sign {
        node_id: identity.node_id.clone(),
        boot: format!("{:016x}", rand::random::<u64>()),
        data: identity.data.clone(),
        incarnation: identity.incarnation,
        address: identity.address.clone(),
        link_address: identity.link_address.clone(),
        started_at_ms,
        readiness: Readiness::Recovering,
        drivers: 0,
        requests_open: 0,
        backlog: 0,
        lag_ms: 0,
    }
}

/// What outlives a connection.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) keys: Keys,
    pub(super) sign: Sign,
    pub(super) ttl_ms: u64,
    pub(super) lease_ms: u64,
    pub(super) shards: u16,
    pub(super) around: Surroundings,
    pub(super) presence: Arc<Presence>,
    pub(super) inboxes: Arc<Inboxes>,
}

impl Shared {
    pub(super) fn metrics(&self) -> &RegistryMetrics {
        self.around.metrics.registry()
    }

    /// Lets shards write under this number, or not at all.
    pub(super) fn present(&self, generation: u64) {
        self.presence.set(generation);
        self.metrics().connected.set(u64::from(generation != 0));
        self.inboxes.each(Inbox::wake);
    }
}

/// The thread's state.
pub(super) struct Writer {
    pub(super) shared: Shared,
    pub(super) claims: mpsc::Receiver<(Reply, Claim)>,
    pub(super) batches: mpsc::Receiver<Batch>,
    pub(super) lookups: mpsc::Receiver<(LookupReply, Lookup)>,
    say_lease: Option<std_mpsc::Sender<LeaseAtStart>>,
    pub(super) generation: u64,
    pub(super) losses: Losses,
    /// Who is alive, as it was seen last.
    pub(super) nodes: Arc<NodeList>,
}

impl Writer {
    async fn run(mut self) {
        loop {
            match self.connect().await {
                None => return,
                Some(Ok((link, scripts))) => match Connection::new(&mut self, link, scripts).serve().await {
                    Ok(()) => return self.shared.present(0),
                    Err(Lost(why)) => {
                        self.shared.present(0);
                        self.losses.count(&why, self.shared.metrics());
                    }
                },
                Some(Err(error)) => {
                    // Nobody has to wait longer for a node that can serve without.
                    self.lease_is(LeaseAtStart::Unknown);
                    self.losses.count(&describe(&error), self.shared.metrics());
                }
            }
            let pause = self.losses.pause();
            if self.refuse_while(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Connects and gives Redis the scripts; `None` when the node ends meanwhile.
    async fn connect(&mut self) -> Option<RedisResult<(Link, Scripts)>> {
        let target = self.shared.target.clone();
        self.refuse_while(async move {
            let link = target.connect().await?;
            let scripts = Scripts::load(&link).await?;
            Ok((link, scripts))
        })
        .await
    }

    /// Waits for `future`; meanwhile whoever asks is told that there is no registry. `None`: the node ends.
    async fn refuse_while<F: Future>(&mut self, future: F) -> Option<F::Output> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return Some(output),
                // Dropped: that is the answer.
                claim = self.claims.recv() => drop(claim?),
                batch = self.batches.recv() => drop(batch?),
                lookup = self.lookups.recv() => drop(lookup?),
            }
        }
    }

    /// Says once what is known of the lease.
    pub(super) fn lease_is(&mut self, lease: LeaseAtStart) {
        if let Some(say) = self.say_lease.take() {
            // Nobody may wait any more.
            let _ = say.send(lease);
        }
    }

    /// Says that another process has this node's name, if somebody still waits for that.
    pub(super) fn lease_is_anothers(&mut self, holder: &Holder) {
        self.lease_is(LeaseAtStart::Refused {
            address: holder.address.clone(),
            incarnation: holder.incarnation.clone(),
        });
    }
}

/// Connections lost or not made, in a row.
#[derive(Default)]
pub(super) struct Losses {
    count: u32,
    logged_at: Option<Instant>,
}

impl Losses {
    fn count(&mut self, why: &str, metrics: &RegistryMetrics) {
        self.count += 1;
        metrics.errors.inc();
        let now = Instant::now();
        if self.logged_at.is_none_or(|at| now - at >= LOG_AGAIN) {
            self.logged_at = Some(now);
            tracing::warn!(
                why,
                attempts = self.count,
                "the registry in Redis is away: drivers are served without it"
            );
        }
    }

    pub(super) fn over(&mut self) {
        if self.logged_at.take().is_some() {
            tracing::info!(attempts = self.count, "the registry in Redis is back");
        }
        self.count = 0;
    }

    /// Jittered, so that the nodes of a fleet do not come as one.
    fn pause(&self) -> Duration {
        let doubled = PAUSE_MIN * (1 << self.count.saturating_sub(1).min(8));
        doubled.min(PAUSE_MAX).mul_f64(rand::random_range(0.5..1.0))
    }
}
