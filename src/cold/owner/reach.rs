//! Whether the tables can be reached, and waiting until they can.

use super::pace::Pace;
use super::port::Place;
use crate::cold::embedded::StoreHealth;
use crate::ops::metrics::CassandraMetrics;
use futures_util::future::{Either, select};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// First pause before something is tried again; it doubles up to [`PAUSE_MAX`].
pub const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause before something is tried again.
pub const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What all who ask the tables share. While they cannot be reached, the node counts as unable to store.
pub struct Reach<P> {
    place: P,
    pace: Pace<P>,
    is_up: AtomicBool,
    /// Told when that changes. Whoever waits is told in the order of waiting.
    changed: Notify,
    /// Told when something failed that does not fail while the tables are well.
    doubt: Notify,
    health: Arc<StoreHealth>,
    metrics: Arc<CassandraMetrics>,
}

impl<P: Place> Reach<P> {
    /// Not reached yet; at most `calls_max` calls at once, each of which may take `timeout`.
    pub fn new(
        place: P,
        calls_max: usize,
        timeout: Duration,
        health: Arc<StoreHealth>,
        metrics: Arc<CassandraMetrics>,
    ) -> Self {
        health.set_far_away(true);
        Self {
            pace: Pace::new(place.clone(), calls_max, timeout),
            place,
            is_up: AtomicBool::new(false),
            changed: Notify::new(),
            doubt: Notify::new(),
            health,
            metrics,
        }
    }

    pub(super) fn place(&self) -> &P {
        &self.place
    }

    pub(super) fn pace(&self) -> &Pace<P> {
        &self.pace
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<CassandraMetrics> {
        &self.metrics
    }

    /// Whether the tables answer.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// The tables answer, or do not; says whether that is news.
    pub fn set_up(&self, up: bool) -> bool {
        self.metrics.up.set(u64::from(up));
        self.health.set_far_away(!up);
        if self.is_up.swap(up, Ordering::AcqRel) == up {
            return false;
        }
        if !up {
            self.pace.fell();
        }
        self.changed.notify_waiters();
        true
    }

    /// Something failed that does not fail while the tables are well.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Something failed: waits `pause`, or until the tables answer again.
    pub async fn wait_out(&self, pause: Duration) {
        self.doubt();
        let is_away = match select(pin!(self.place.sleep(pause)), pin!(self.becomes(false))).await {
            Either::Left(_) => false,
            Either::Right(_) => true,
        };
        if is_away {
            // There is no use in trying before they are back.
            self.becomes(true).await;
        }
    }

    /// Returns when the tables answer, or do not.
    async fn becomes(&self, up: bool) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            if self.is_up() == up {
                return;
            }
            changed.await;
        }
    }

    /// Looks whether the tables answer whenever there is doubt, for ever. `say` hears what each look found.
    pub async fn watch<E>(&self, probe: impl AsyncFn() -> Result<(), E>, say: impl Fn(Result<(), &E>)) {
        loop {
            self.doubt.notified().await;
            let mut pause = PAUSE_MIN;
            while let Err(error) = probe().await {
                say(Err(&error));
                self.place.sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            say(Ok(()));
        }
    }
}
