//! The start of a node on this machine.

use super::fleet::{self, Membership};
use super::reception::Reception;
use super::start::{self, Room, Starts};
use super::{STORE_PROBE, ServeError};
use crate::cold::cassandra::ClaimsEnd;
use crate::cold::links::Links;
use crate::cold::registry::DriverRegistry;
use crate::cold::{
    Cassandra, CassandraConfig, Claims, FleetLink, Source, Store, StoreConfig, StoreHandle, Surroundings,
};
use crate::config::Config;
use crate::fsm::ids::DriverId;
use crate::fsm::types::UnixMs;
use crate::journal::{Incarnation, RecoveredShard, recover_dir};
use crate::net::limits::LISTEN_BACKLOG;
use crate::net::{Waker, bind_reuseport};
use crate::node::Host;
use crate::ops::health::{Health, Phase};
use crate::ops::metrics::Registry;
use crate::ops::notify::StartTime;
use crate::shard::{Clock, Inheritance, Shared};
use glommio::ExecutorJoinHandle;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The stage in which requests are written into the new journals.
const RESUMING: &str = "resuming requests";

/// How long a start waits until its requests are its own again; Cassandra may be away, and then they are later.
const OWN_PATIENCE: Duration = Duration::from_secs(3);

/// A start under way.
pub(super) struct Boot {
    config: Arc<Config>,
    health: Arc<Health>,
    reception: Option<Reception>,
    address: SocketAddr,
    room: Room,
    start: StartTime,
    /// What is there since the store was opened.
    opened: Option<Opened>,
    /// Until the registry's thread was started, when there is a fleet.
    membership: Option<Membership>,
    /// The registry, since the shards were started.
    registry: Option<Arc<DriverRegistry>>,
    /// The links, since the shards were started.
    links: Option<Arc<Links>>,
    /// What is there since the shards were started.
    starts: Option<Starts>,
    threads: Vec<ExecutorJoinHandle<()>>,
    wakers: Vec<Waker>,
    /// This boot, since the shards were started.
    incarnation: u64,
    /// Set when the shards are about to serve: whom a drain wakes.
    to_wake: Arc<OnceLock<Vec<Waker>>>,
}

struct Opened {
    clock: Clock,
    store: Arc<Store>,
    cassandra: Option<Cassandra>,
    /// Who owns requests, when there is Cassandra.
    claims: Option<Arc<Claims>>,
    shared: Arc<Shared>,
}

/// A node that serves.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<Store>,
    pub(super) registry: Option<Arc<DriverRegistry>>,
    pub(super) links: Option<Arc<Links>>,
    pub(super) cassandra: Option<Cassandra>,
    pub(super) threads: Vec<ExecutorJoinHandle<()>>,
    /// Of every shard's ring.
    pub(super) wakers: Vec<Waker>,
}

impl Boot {
    /// `to_wake` is set when the shards are about to serve.
    pub(super) fn new(
        config: Arc<Config>,
        health: Arc<Health>,
        reception: Reception,
        address: SocketAddr,
        room: Room,
        to_wake: Arc<OnceLock<Vec<Waker>>>,
    ) -> Self {
        Self {
            config,
            health,
            reception: Some(reception),
            address,
            room,
            start: StartTime::begin("reading the journal"),
            opened: None,
            membership: None,
            registry: None,
            links: None,
            starts: None,
            threads: Vec::new(),
            wakers: Vec::new(),
            incarnation: 0,
            to_wake,
        }
    }

    /// The node is to be one of a fleet.
    pub(super) fn in_fleet(mut self, membership: Option<Membership>) -> Self {
        self.membership = membership;
        self
    }

    /// Starts the links and the registry's thread, when there is a fleet.
    fn start_registry(&mut self, incarnation: Incarnation) -> Result<(), ServeError> {
        let Some(mut membership) = self.membership.take() else {
            return Ok(());
        };
        let Opened { clock, shared, .. } = self.opened();
        let links = membership.start_links(&self.config, incarnation, shared)?;
        let registry = membership.start(
            &self.config,
            links.as_ref(),
            self.address,
            incarnation,
            *clock,
            &self.health,
            shared,
        )?;
        self.registry = Some(Arc::new(registry));
        self.links = links.map(Arc::new);
        Ok(())
    }

    /// What runs, after [`crate::node::bring_up`].
    pub(super) fn running(self) -> Running {
        let Opened {
            store,
            cassandra,
            shared,
            ..
        } = self.opened.expect("the store was opened");
        Running {
            shared,
            store,
            registry: self.registry,
            links: self.links,
            cassandra,
            threads: self.threads,
            wakers: self.wakers,
        }
    }

    fn opened(&self) -> &Opened {
        self.opened.as_ref().expect("the store is opened before it is asked")
    }
}

impl Host for Boot {
    fn journals(&mut self) -> Result<Vec<RecoveredShard>, ServeError> {
        recover_dir(&self.config.data_dir).map_err(|error| ServeError::new("the journal cannot be recovered", error))
    }

    fn open_store(&mut self, newest_ms: UnixMs) -> Result<(), ServeError> {
        let clock = Clock::start(newest_ms);
        let fleet = CassandraConfig::of(&self.config);
        let fleet = fleet.map_err(|error| ServeError::new("cannot use Cassandra", error))?;
        let (asks, asked) = tokio::sync::mpsc::unbounded_channel();
        let link = fleet.is_some().then(|| FleetLink {
            asks,
            outbox_bytes_max: self.config.fleet_cassandra_backlog_bytes_max,
        });
        let store = open_store(&self.config, clock, link)?;
        let registry = Registry::new(self.config.shard_count(), store.metrics());
        let (mut cassandra, mut claims) = (None, None);
        if let (Some(fleet), Some(outbox)) = (fleet, store.outbox()) {
            let (ask, asked_claims) = tokio::sync::mpsc::unbounded_channel();
            let ends = Claims::new(ask, self.config.shard_count());
            let claims_end = ClaimsEnd {
                asked: asked_claims,
                inboxes: ends.inboxes(),
            };
            let started = Cassandra::start(fleet, asked, claims_end, outbox, store.health(), registry.cassandra());
            cassandra = Some(started.map_err(|error| ServeError::new("cannot use Cassandra", error))?);
            claims = Some(Arc::new(ends));
        }
        self.opened = Some(Opened {
            clock,
            store: Arc::new(store),
            cassandra,
            claims,
            shared: Arc::new(Shared::new(Arc::clone(&self.health), Arc::new(registry))),
        });
        Ok(())
    }

    fn now_ms(&self) -> UnixMs {
        self.opened().clock.now_ms()
    }

    fn watermarks(&mut self) -> Vec<(Source, u64)> {
        self.opened().store.watermarks()
    }

    fn begin_incarnation(&mut self, above: u64) -> Result<Incarnation, ServeError> {
        Incarnation::next(&self.config.data_dir, above)
            .map_err(|error| ServeError::new("cannot begin a new incarnation of the journal", error))
    }

    fn attach(&mut self, waker: crate::cold::Waker) -> StoreHandle {
        self.opened().store.attach(u16::MAX, waker)
    }

    fn await_store(&mut self, woken: &Receiver<()>) -> Result<(), ServeError> {
        let health = self.opened().store.health();
        if health.fatal() {
            let error = health.last_error().unwrap_or_default();
            return Err(ServeError::new("the store failed", error));
        }
        // Either way there may be something to do.
        let _ = woken.recv_timeout(STORE_PROBE);
        Ok(())
    }

    fn off_shift_since(&mut self, after_ms: UnixMs) -> Result<Vec<(DriverId, UnixMs)>, ServeError> {
        let store = &self.opened().store;
        store
            .off_shift_since(after_ms)
            .map_err(|error| ServeError::new("cannot read the store", error))
    }

    fn start_shards(&mut self, incarnation: Incarnation, heirs: Vec<Inheritance>) -> Result<(), ServeError> {
        self.start_registry(incarnation)?;
        self.incarnation = incarnation.get();
        let Opened {
            clock,
            store,
            claims,
            shared,
            ..
        } = self.opened();
        let common = start::Common {
            incarnation,
            config: &self.config,
            shared,
            clock: *clock,
            store,
            registry: self.registry.as_ref(),
            links: self.links.as_ref(),
            claims: claims.as_ref(),
            room: self.room,
        };
        let (threads, starts) = start::spawn(&common, heirs)?;
        self.threads = threads;
        self.starts = Some(starts);
        Ok(())
    }

    fn await_heirs(&mut self) -> Result<(), ServeError> {
        let starts = self.starts.as_ref().expect("the shards were started");
        let registry = &self.opened.as_ref().expect("the store was opened").shared.registry;
        let mut turns = 0;
        while self.wakers.len() < starts.go.len() {
            match starts.heirs.recv_timeout(STORE_PROBE) {
                Ok(waker) => {
                    let waker = waker.map_err(|error| ServeError::new("cannot make a net ring", error))?;
                    self.wakers.push(waker);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = registry.turns();
                    if now > turns {
                        self.start.goes_on(RESUMING);
                    }
                    turns = now;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ServeError::new("a shard ended before it began", "see the log"));
                }
            }
        }
        Ok(())
    }

    fn forget_journals_before(&mut self, incarnation: Incarnation) -> Result<(), ServeError> {
        let data_dir = &self.config.data_dir;
        let old = Incarnation::list(data_dir).map_err(|error| ServeError::new("cannot list journals", error))?;
        for old in old.into_iter().filter(|old| *old < incarnation) {
            old.remove(data_dir)
                .map_err(|error| ServeError::new("cannot remove an old journal", error))?;
        }
        Ok(())
    }

    fn forget_sources_before(&mut self, incarnation: Incarnation) {
        self.opened().store.forget_sources_before(incarnation.get());
    }

    fn open_doors(&mut self) -> Result<(), ServeError> {
        if let Some(registry) = &self.registry {
            fleet::hold_lease(registry, &self.config)?;
        }
        if let Some(claims) = &self.opened().claims {
            let done = claims.begin(self.incarnation);
            if done.recv_timeout(OWN_PATIENCE).is_err() {
                tracing::warn!("requests of the last boot are not taken over yet: Cassandra does not answer");
            }
        }
        let wakers = self.wakers.clone();
        self.to_wake.set(wakers).expect("doors are opened once");
        let reception = self.reception.take().expect("doors are opened once");
        let starts = self.starts.take().expect("the shards were started");
        open_doors(reception, self.address, starts.go)?;
        self.health.advance(Phase::Serving);
        if let Some(registry) = &self.registry {
            registry.sign_now();
        }
        Ok(())
    }

    fn enters(&mut self, stage: &str) {
        self.start.enters(stage);
    }

    fn goes_on(&mut self, stage: &str) {
        self.start.goes_on(stage);
    }
}

fn open_store(config: &Config, clock: Clock, fleet: Option<FleetLink>) -> Result<Store, ServeError> {
    let dir = config.data_dir.join("store");
    let surroundings = Surroundings {
        now_ms: Arc::new(move || clock.now_ms()),
        ..Surroundings::of_machine(&config.data_dir)
    };
    let store_config = StoreConfig {
        records_retention_days: config.records_retention_days,
        idempotency_retention_days: config.idempotency_retention_days,
        events_retention_ms: config.events_retention_ms,
        events_bytes_max: config.events_bytes_max,
        disk_reserve_bytes: config.disk_reserve_bytes,
        cache_bytes: config.store_cache_bytes,
        surroundings,
        fleet,
    };
    Store::open(&dir, store_config).map_err(|error| ServeError::new("cannot open the store", error))
}

/// Gives every shard its listener: the first one that of the reception, so that nobody who waits in it is lost.
fn open_doors(reception: Reception, address: SocketAddr, go: Vec<Sender<TcpListener>>) -> Result<(), ServeError> {
    let describe = |error: std::io::Error| ServeError::new("cannot listen", format!("{address}: {error}"));
    let mut listeners = vec![reception.close().map_err(describe)?];
    for _ in 1..go.len() {
        listeners.push(bind_reuseport(address, LISTEN_BACKLOG).map_err(describe)?);
    }
    for (go, listener) in go.into_iter().zip(listeners) {
        go.send(listener)
            .map_err(|_| ServeError::new("a shard ended before it began", "see the log"))?;
    }
    Ok(())
}
