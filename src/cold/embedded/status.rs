//! What other threads may read of the store at any time: its health. (Its counters are
//! [`StoreMetrics`](crate::ops::metrics::StoreMetrics).)

use crate::cold::port::StoreError;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

const HEALTHY: u8 = 0;
const STALLED: u8 = 1;
const FATAL: u8 = 2;

/// How the store is. Readable from any thread at any time.
#[derive(Debug, Default)]
pub struct StoreHealth {
    state: AtomicU8,
    /// The fleet's store does not answer.
    far_away: AtomicBool,
    /// More waits for the fleet's store than may.
    outbox_full: AtomicBool,
    last_error: Mutex<Option<String>>,
}

impl StoreHealth {
    /// Whether commits are being stored, and new requests may be promised that.
    pub fn is_healthy(&self) -> bool {
        self.state.load(Ordering::Acquire) == HEALTHY
            && !self.far_away.load(Ordering::Acquire)
            && !self.outbox_full.load(Ordering::Acquire)
    }

    /// Whether the fleet's store answers, if there is one.
    pub fn is_reached(&self) -> bool {
        !self.far_away.load(Ordering::Acquire)
    }

    /// The fleet's store went away or came back. Returns whether that is news.
    pub fn set_far_away(&self, away: bool) -> bool {
        self.far_away.swap(away, Ordering::AcqRel) != away
    }

    /// More waits for the fleet's store than may, or no longer. Returns whether that is news.
    pub fn set_outbox_full(&self, full: bool) -> bool {
        self.outbox_full.swap(full, Ordering::AcqRel) != full
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

    /// Nothing can be written until space is free.
    pub fn stall(&self, error: &StoreError) {
        self.turn(STALLED, error);
    }

    /// Nothing can be written any more.
    pub fn fail(&self, error: &StoreError) {
        self.turn(FATAL, error);
    }

    /// Writing works again. A store that failed for good stays so.
    pub fn recover(&self) {
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
