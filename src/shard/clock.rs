//! The node's clock: wall time at start plus monotonic time since, so that it never falls and never jumps.
#![forbid(unsafe_code)]

use std::time::Instant;

/// Copied to every shard; all copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    start_us: u64,
}

impl Clock {
    /// Reads the wall clock once. `not_before_ms`: the newest time in the journals, so that what goes on after a restart
    /// (requests, drivers' shifts) sees no time fall either. Not the newest in the store: a host that started once
    /// with a clock years ahead would be ahead for ever.
    pub fn start(not_before_ms: u64) -> Self {
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        let start_us = u64::try_from(wall.as_micros()).unwrap_or(u64::MAX);
        Self {
            start: Instant::now(),
            start_us: start_us.max(not_before_ms.saturating_mul(1_000)),
        }
    }

    /// Unix microseconds.
    pub fn now_us(&self) -> u64 {
        self.start_us + u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Nanoseconds since the start: `CLOCK_MONOTONIC`, which is one for all cores (`clock_gettime(2)`).
    pub fn elapsed_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Unix milliseconds.
    pub fn now_ms(&self) -> u64 {
        self.now_us() / 1_000
    }
}
