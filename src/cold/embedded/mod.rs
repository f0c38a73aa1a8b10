//! The embedded store: fjall in the node's own data directory, on threads of its own.
//!
//! It owns dispatch records, ended requests (audit and idempotency), known drivers, the event log with its cursors and
//! consumers, and a watermark per source that makes feeding it exactly-once. Keys are in `keys`, partitioning and tuning
//! in `tables`, the life of a commit in `writer`, what happens before the engine opens its files in `mend`.
//!
//! Threads: one *writer*, one *lookup* reader, one *page* reader, one that reads the ids of ended requests once (`warm`), and
//! the engine's two for flushes and compactions.
//!
//! Must never: be called from a shard other than through a [`StoreHandle`](crate::cold::StoreHandle), report `Stored`
//! before `fdatasync`, or write again after a write failed.

mod codec;
mod config;
mod events;
mod export;
mod keys;
mod mend;
mod outbox;
mod polls;
mod queries;
mod readers;
mod retention;
mod round;
mod status;
mod tables;
mod warm;
mod writer;

pub use codec::{Decoder, Encoder};
pub use config::{
    CACHE_BYTES_MIN, EVENTS_BYTES_MIN, FleetLink, IDEMPOTENCY_RETENTION_DAYS_MIN, RETENTION_DAYS_MAX, StoreConfig,
    Surroundings,
};
pub use events::CONSUMERS_MAX;
pub use export::StoreExport;
pub use keys::RowPlace;
pub use outbox::{OutboxEntry, OutboxPage, OutboxReader, OutboxState};
pub use polls::POLLS_PARKED_MAX;
pub use readers::{FarAsk, RecordsAsk};
pub use status::StoreHealth;
pub use tables::FORMAT_VERSION;
pub use writer::SWEEP_PERIOD_MS;

use super::handle::{StoreHandle, ToLookup, ToStore, Waker};
use super::port::{Source, StoreError};
use crate::fsm::ids::DriverId;
use crate::fsm::types::UnixMs;
use crate::ops::metrics::StoreMetrics;
use crate::ops::process;
use crossbeam::channel::{Sender, unbounded};
use events::{Chunk, Consumer, EventLog};
use fjall::PersistMode;
use outbox::Outbox;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tables::{Tables, broken};
use writer::{SharedWatermarks, Writer};

/// The embedded store: its threads and its data directory. Dropping it shuts it down; [`Store::shutdown`] also says how
/// that went.
pub struct Store {
    tables: Arc<Tables>,
    writer: Sender<ToStore>,
    lookup: Sender<ToLookup>,
    threads: Option<Threads>,
    outbox: Option<Arc<OutboxState>>,
    watermarks: SharedWatermarks,
    health: Arc<StoreHealth>,
    metrics: Arc<StoreMetrics>,
}

struct Threads {
    writer: JoinHandle<Result<(), StoreError>>,
    lookup: JoinHandle<()>,
    pages: JoinHandle<()>,
    warm: JoinHandle<()>,
    stop_warming: Arc<AtomicBool>,
}

impl Store {
    /// Opens or creates the store in `dir` and starts its threads.
    ///
    /// # Errors
    /// A setting is out of range; the directory is of a newer format, damaged, open in another process or not writable.
    pub fn open(dir: &Path, config: StoreConfig) -> Result<Self, StoreError> {
        config.check()?;
        let tables = Arc::new(Tables::open(dir, &config)?);
        let watermarks = Arc::new(Mutex::new(load_watermarks(&tables)?));
        let events = load_events(&tables, &config)?;
        let health = Arc::new(StoreHealth::default());
        let metrics = Arc::new(StoreMetrics::default());
        let fleet = config.fleet.clone();
        let outbox = match &fleet {
            Some(fleet) => Some(Outbox::open(&tables, fleet.outbox_bytes_max, &health)?),
            None => None,
        };
        let outbox_state = outbox.as_ref().map(Outbox::state);
        let (to_writer, received) = unbounded();
        let (to_lookup, looked_up) = unbounded();
        let (to_pages, paged) = unbounded();
        let writer = Writer {
            tables: Arc::clone(&tables),
            config,
            received,
            pages: to_pages,
            health: Arc::clone(&health),
            metrics: Arc::clone(&metrics),
            shared_watermarks: Arc::clone(&watermarks),
            events,
            outbox,
        };
        let asks = fleet.map(|fleet| fleet.asks);
        let (lookup_fleet, pages_fleet) = (asks.clone(), asks);
        let (lookup_tables, lookup_metrics) = (Arc::clone(&tables), Arc::clone(&metrics));
        let (pages_tables, pages_metrics) = (Arc::clone(&tables), Arc::clone(&metrics));
        let stop_warming = Arc::new(AtomicBool::new(false));
        let (warm_tables, stop) = (Arc::clone(&tables), Arc::clone(&stop_warming));
        let threads = Threads {
            writer: spawn(writer::THREAD, &health, move || writer.run())?,
            lookup: spawn("store-lookup", &health, move || {
                readers::run_lookups(&lookup_tables, &lookup_metrics, lookup_fleet.as_ref(), &looked_up);
            })?,
            pages: spawn("store-pages", &health, move || {
                readers::run_pages(&pages_tables, &pages_metrics, pages_fleet.as_ref(), &paged);
            })?,
            warm: spawn("store-warm", &health, move || {
                // A start does not wait for it.
                if let Err(error) = process::lower_priority() {
                    tracing::debug!(%error, "a thread of the store keeps its priority");
                }
                warm::run(&warm_tables, &stop);
            })?,
            stop_warming,
        };
        Ok(Self {
            tables,
            writer: to_writer,
            lookup: to_lookup,
            threads: Some(threads),
            outbox: outbox_state,
            watermarks,
            health,
            metrics,
        })
    }

    /// What is to be carried to the fleet's store; `None`: there is no fleet. For one reader.
    pub fn outbox(&self) -> Option<OutboxReader> {
        let state = Arc::clone(self.outbox.as_ref()?);
        Some(OutboxReader::new(Arc::clone(&self.tables), state))
    }

    /// A handle for one shard. `waker` is called from the store's threads after something came into the inbox.
    pub fn attach(&self, shard: u16, waker: Waker) -> StoreHandle {
        tracing::debug!(shard, "attached to the store");
        let handle = StoreHandle::new(self.writer.clone(), self.lookup.clone(), waker);
        // In a fleet too, although the id may be another node's: then the claim says so.
        let ended_ids = Arc::clone(&self.tables.ended_ids);
        handle.with_surely_lacks(Arc::new(move |hash| ended_ids.surely_lacks(hash)))
    }

    /// The last `lsn` of `source` that is durable in the store; 0 when none is.
    pub fn watermark(&self, source: Source) -> u64 {
        self.lock_watermarks().get(&source).copied().unwrap_or(0)
    }

    /// All watermarks.
    pub fn watermarks(&self) -> Vec<(Source, u64)> {
        self.lock_watermarks()
            .iter()
            .map(|(source, lsn)| (*source, *lsn))
            .collect()
    }

    /// Forgets, soon, the watermarks of boots before `incarnation`. To be called when their journals are deleted: fed
    /// again after this, they would be stored again. With the first call the start is over, in which everybody waited for the
    /// store: from then on its writer and the engine go behind the shards, where they share a core.
    pub fn forget_sources_before(&self, incarnation: u64) {
        // Refused only by a store that has shut down; the next boot asks again.
        let _ = self.writer.send(ToStore::ForgetBefore(incarnation));
    }

    /// Drivers that went off shift on purpose after `after` and have not come back, and since when, oldest first. For
    /// the boot.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn off_shift_since(&self, after: UnixMs) -> Result<Vec<(DriverId, UnixMs)>, StoreError> {
        let first = after.saturating_add(1).to_be_bytes();
        let damaged = || StoreError::broken("a key of the drivers off shift is damaged");
        let read = |entry: fjall::Guard| {
            let key = entry.key().map_err(broken)?;
            let (since, driver) = keys::off_shift_parts(&key).ok_or_else(damaged)?;
            Ok((driver, since))
        };
        self.tables.off_shift.range(first..).map(read).collect()
    }

    /// Health, shared.
    pub fn health(&self) -> Arc<StoreHealth> {
        Arc::clone(&self.health)
    }

    /// Counters, shared.
    pub fn metrics(&self) -> Arc<StoreMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Stores what waits, answers what was asked, ends the threads. Handles refuse from then on.
    ///
    /// # Errors
    /// The store had failed, or what waited could not be stored.
    pub fn shutdown(mut self) -> Result<(), StoreError> {
        self.stop()
    }

    fn lock_watermarks(&self) -> std::sync::MutexGuard<'_, BTreeMap<Source, u64>> {
        self.watermarks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&mut self) -> Result<(), StoreError> {
        let Some(threads) = self.threads.take() else {
            return Ok(());
        };
        // A thread that is gone already does not listen; joining it tells why.
        let _ = self.writer.send(ToStore::Shutdown);
        let _ = self.lookup.send(ToLookup::Shutdown);
        threads.stop_warming.store(true, Ordering::Relaxed);
        let panicked = |_| StoreError::broken("a thread of the store panicked");
        let written = threads.writer.join().map_err(panicked).and_then(|result| result);
        let read = threads
            .lookup
            .join()
            .and(threads.pages.join())
            .and(threads.warm.join())
            .map_err(panicked);
        written.and(read)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the store did not shut down cleanly");
        }
    }
}

/// Marks the store as failed when its thread panics.
struct PanicGuard(Arc<StoreHealth>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&StoreError::broken("a thread of the store panicked"));
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    health: &Arc<StoreHealth>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StoreError> {
    let guard = PanicGuard(Arc::clone(health));
    let guarded = move || {
        let _guard = guard;
        run()
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(guarded)
        .map_err(|error| StoreError::unavailable(format!("no thread for the store: {error}")))
}

fn load_watermarks(tables: &Tables) -> Result<BTreeMap<Source, u64>, StoreError> {
    let damaged = || StoreError::broken("a watermark is damaged");
    let read = |entry: fjall::Guard| {
        let (key, value) = entry.into_inner().map_err(broken)?;
        let source = keys::watermark_source(&key).ok_or_else(damaged)?;
        Ok((source, keys::number(&value).ok_or_else(damaged)?))
    };
    tables.meta.prefix([keys::WATERMARK]).map(read).collect()
}

/// The event log as it was stored, with its partitions checked against it.
fn load_events(tables: &Tables, config: &StoreConfig) -> Result<EventLog, StoreError> {
    let now = (config.surroundings.now_ms)();
    let mut chunks = Vec::new();
    for entry in tables.meta.prefix([keys::CHUNK]) {
        let (key, value) = entry.into_inner().map_err(broken)?;
        chunks.push(Chunk::decode(&key, &value).ok_or_else(|| StoreError::broken("an event chunk is damaged"))?);
    }
    let mut consumers = BTreeMap::new();
    for entry in tables.meta.prefix([keys::CONSUMER]) {
        let (key, value) = entry.into_inner().map_err(broken)?;
        let damaged = || StoreError::broken("a consumer of events is damaged");
        let (name, consumer) = Consumer::decode(&key, &value).ok_or_else(damaged)?;
        consumers.insert(name, consumer);
    }
    // A partition whose chunk is not stored was made, or dropped, in the last moment of a process that died.
    for partition in tables.events.all().iter() {
        if !chunks.iter().any(|chunk| chunk.first == partition.first) {
            tables.events.remove(&tables.db, partition.first)?;
        }
    }
    let is_new = chunks.is_empty();
    for (at, chunk) in chunks.iter().enumerate() {
        check_chunk(tables, chunk, chunks.get(at + 1))?;
    }
    let log = EventLog::new(
        config.events_retention_ms,
        config.events_bytes_max,
        chunks,
        consumers,
        now,
    );
    if is_new {
        let last = log.last();
        tables.events.create(&tables.db, last.first, u64::MAX)?;
        let mut batch = tables.db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&tables.meta, keys::chunk(last.first), last.encode());
        batch.commit().map_err(broken)?;
    }
    Ok(log)
}

/// A chunk ends where the next one begins, and its partition ends where the chunk does.
fn check_chunk(tables: &Tables, chunk: &Chunk, after: Option<&Chunk>) -> Result<(), StoreError> {
    let damaged = |what: &str| StoreError::broken(format!("the events from cursor {} {what}", chunk.first));
    if after.is_some_and(|after| after.first != chunk.next) {
        return Err(damaged("do not join the next ones"));
    }
    let partition = tables
        .events
        .covering(chunk.first)
        .ok_or_else(|| damaged("are missing"))?;
    let end = match partition.last_key_value() {
        Some(entry) => {
            let (key, block) = entry.into_inner().map_err(broken)?;
            let events = codec::events_of(&block).try_fold(0, |events, event| event.map(|_| events + 1))?;
            keys::number(&key).map(|first| first + events)
        }
        None => Some(chunk.first),
    };
    if end != Some(chunk.next) {
        return Err(damaged("are not complete"));
    }
    Ok(())
}
