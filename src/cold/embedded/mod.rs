//! The embedded store.
use super::handle::{StoreHandle, Waker};
use super::port::{Source, StoreError};
use crate::fsm::ids::DriverId;
use crate::fsm::types::UnixMs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The clock and the disk as the store sees them; tests drive both.
#[derive(Clone)]
pub struct Surroundings {
    /// Unix milliseconds; never falls.
    pub now_ms: Arc<dyn Fn() -> UnixMs + Send + Sync>,
    /// Bytes that are free on the store's disk.
    pub bytes_free: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// How to open a [`Store`].
#[derive(Clone)]
pub struct StoreConfig {
    /// Dispatch records and audits are kept this many days at least, and at most one more. 1–3650.
    pub records_retention_days: u32,
    /// Ids of ended requests are remembered this many days at least. 7–3650.
    pub idempotency_retention_days: u32,
    /// Events are kept this long when not every consumer has acknowledged them.
    pub events_retention_ms: u64,
    /// Bytes of events that are kept at most.
    pub events_bytes_max: u64,
    /// Below this many free bytes on the disk nothing is written.
    pub disk_reserve_bytes: u64,
    /// Block cache of the store, bytes.
    pub cache_bytes: u64,
    /// Clock and disk.
    pub surroundings: Surroundings,
}

impl StoreConfig {
    /// The defaults of the contract for a store in `dir`, with the machine's clock and disk.
    pub fn new(dir: &Path) -> Self {
        let _ = dir;
        unimplemented!()
    }
}

/// Counters of the store, since it was opened.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Dispatch records written.
    pub rows_total: AtomicU64,
    /// Events given a cursor.
    pub events_total: AtomicU64,
    /// Ended requests written.
    pub ended_total: AtomicU64,
    /// Commits applied.
    pub commits_total: AtomicU64,
    /// Commits skipped because they were stored already.
    pub commits_repeated_total: AtomicU64,
    /// Atomic batches written, each with one `fdatasync`.
    pub batches_total: AtomicU64,
    /// Point lookups answered.
    pub lookups_total: AtomicU64,
    /// Pages of records and events answered.
    pub pages_total: AtomicU64,
    /// Commits taken and not yet stored, now.
    pub backlog: AtomicU64,
    /// Long polls parked, now.
    pub polls_parked: AtomicU64,
    /// Events kept, now.
    pub events_kept: AtomicU64,
    /// Bytes of events kept, now.
    pub events_kept_bytes: AtomicU64,
    /// Newest cursor given.
    pub events_newest: AtomicU64,
}

/// How the store is. Readable from any thread at any time.
#[derive(Debug, Default)]
pub struct StoreHealth {}

impl StoreHealth {
    /// Whether commits are being stored.
    pub fn is_healthy(&self) -> bool {
        unimplemented!()
    }
    /// Whether the store has failed for good (a write or an `fsync` failed): the process should end with an error;
    /// nothing is lost, since the journal keeps what was not reported stored.
    pub fn fatal(&self) -> bool {
        unimplemented!()
    }
    /// What went wrong last, for the log and `readyz`.
    pub fn last_error(&self) -> Option<String> {
        unimplemented!()
    }
}

/// The embedded store: its threads and its data directory.
pub struct Store {}

impl Store {
    /// Opens or creates the store in `dir` and starts its threads.
    ///
    /// # Errors
    /// The directory is of a newer format, damaged, locked by another process or not writable.
    pub fn open(dir: &Path, config: StoreConfig) -> Result<Self, StoreError> {
        let _ = (dir, config);
        unimplemented!()
    }
    /// A handle for one shard. `waker` is called from the store's threads.
    pub fn attach(&self, shard: u16, waker: Waker) -> StoreHandle {
        let _ = (shard, waker);
        unimplemented!()
    }
    /// The last `lsn` of `source` that is durable in the store; 0 when none is.
    pub fn watermark(&self, source: Source) -> u64 {
        let _ = source;
        unimplemented!()
    }
    /// All watermarks.
    pub fn watermarks(&self) -> Vec<(Source, u64)> {
        unimplemented!()
    }
    /// Forgets the watermarks of boots before `incarnation`; call when their journals are deleted.
    pub fn forget_sources_before(&self, incarnation: u64) {
        let _ = incarnation;
        unimplemented!()
    }
    /// Drivers that went off shift on purpose after `after` and have not come back, and since when. For the boot.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn off_shift_since(&self, after: UnixMs) -> Result<Vec<(DriverId, UnixMs)>, StoreError> {
        let _ = after;
        unimplemented!()
    }
    /// Health, shared.
    pub fn health(&self) -> Arc<StoreHealth> {
        unimplemented!()
    }
    /// Counters, shared.
    pub fn metrics(&self) -> Arc<StoreMetrics> {
        unimplemented!()
    }
    /// Stores what waits, answers what is asked, ends the threads. Handles refuse from then on.
    ///
    /// # Errors
    /// The store had failed, or what waited could not be stored.
    pub fn shutdown(self) -> Result<(), StoreError> {
        unimplemented!()
    }
}
