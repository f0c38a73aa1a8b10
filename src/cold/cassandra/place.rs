//! Where owners' tasks run here: the thread's runtime and the machine's clocks.

use crate::cold::owner::Place;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// A runtime of one thread; its time counts from when this was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokioPlace {
    began: Instant,
}

impl TokioPlace {
    pub(super) fn new() -> Self {
        Self { began: Instant::now() }
    }
}

impl Place for TokioPlace {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wall_us(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_micros() as u64)
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> {
        tokio::time::sleep(time)
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }
}
