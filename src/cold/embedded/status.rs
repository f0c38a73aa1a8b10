//! What other threads may read of the store at any time: its health and its counters.

use crate::cold::port::StoreError;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

const HEALTHY: u8 = 0;
const STALLED: u8 = 1;
const FATAL: u8 = 2;

/// How the store is. Readable from any thread at any time.
#[derive(Debug, Default)]
pub struct StoreHealth {
    state: AtomicU8,
    last_error: Mutex<Option<String>>,
}

impl StoreHealth {
    /// Whether commits are being stored.
    pub fn is_healthy(&self) -> bool {
        self.state.load(Ordering::Acquire) == HEALTHY
    }

    /// Whether the store has failed for good (a write or an `fsync` failed): the process should end with an error.
    /// Nothing is lost, since the journal keeps what was not reported stored.
    pub fn fatal(&self) -> bool {
        self.state.load(Ordering::Acquire) == FATAL
    }

    /// What went wrong last, for the log and `readyz`; kept after a recovery.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing can be written for now.
    pub(super) fn stall(&self, error: &StoreError) {
        self.turn(STALLED, error);
    }

    /// Nothing can be written any more.
    pub(super) fn fail(&self, error: &StoreError) {
        self.turn(FATAL, error);
    }

    /// Writing works again. A store that failed for good stays so.
    pub(super) fn recover(&self) {
        let _ = self
            .state
            .compare_exchange(STALLED, HEALTHY, Ordering::AcqRel, Ordering::Acquire);
    }

    fn turn(&self, state: u8, error: &StoreError) {
        let before = self.state.fetch_max(state, Ordering::AcqRel);
        if before < state {
            tracing::error!(error = %error, fatal = state == FATAL, "the store cannot write");
        }
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.message.clone());
    }
}

/// Counters since the store was opened (`_total`) and gauges.
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
    /// Partitions that fell out of retention and were dropped whole.
    pub partitions_dropped_total: AtomicU64,
    /// Commits taken by the writer and not yet stored, now.
    pub backlog: AtomicU64,
    /// Long polls parked, now.
    pub polls_parked: AtomicU64,
    /// Events kept, now.
    pub events_kept: AtomicU64,
    /// Bytes of events kept, now.
    pub events_kept_bytes: AtomicU64,
    /// Newest cursor given, now.
    pub events_newest: AtomicU64,
}

/// Adds to a counter that nobody orders anything by.
pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

/// Sets a gauge that nobody orders anything by.
pub(super) fn set(gauge: &AtomicU64, to: u64) {
    gauge.store(to, Ordering::Relaxed);
}
