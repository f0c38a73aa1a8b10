//! What systemd is told: readiness, stopping, and that every shard still turns. Without systemd nothing happens.
#![forbid(unsafe_code)]

use super::metrics::Registry;
use sd_notify::NotifyState;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How much more time a start asks for, counted from when it asks.
const START_MORE: Duration = Duration::from_secs(300);
/// How often it asks while a phase goes on.
const START_ASK_EVERY: Duration = Duration::from_secs(5);

/// The node takes work.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The node drains.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// The time that the service manager gives the node to start: asked for anew while recovery goes on, so that a long
/// journal is no reason to start over, and one that stands still is.
#[derive(Debug)]
pub struct StartTime {
    asked_at: Instant,
}

impl StartTime {
    /// The start begins with this phase.
    pub fn begin(phase: &str) -> Self {
        ask_for_time(phase);
        Self {
            asked_at: Instant::now(),
        }
    }

    /// The next phase begins.
    pub fn enters(&mut self, phase: &str) {
        *self = Self::begin(phase);
    }

    /// The phase goes on. Costs nothing when called often.
    pub fn goes_on(&mut self, phase: &str) {
        if self.asked_at.elapsed() >= START_ASK_EVERY {
            self.enters(phase);
        }
    }
}

fn ask_for_time(phase: &str) {
    let more_us = START_MORE.as_micros() as u32;
    tell(&[NotifyState::ExtendTimeoutUsec(more_us), NotifyState::Status(phase)]);
}

fn tell(states: &[NotifyState<'_>]) {
    // The variables stay set: removing them is not safe once there are threads, and no children are started.
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

/// Tells systemd that the process lives for as long as a probe says so.
#[derive(Debug)]
pub struct Watchdog {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    /// Starts, when systemd asked for it (`WatchdogSec=`), a thread that asks `probe` three times per interval. A probe
    /// that says false lets the interval run out, and systemd restarts the service.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(probe: impl FnMut() -> bool + Send + 'static) -> io::Result<Option<Self>> {
        let mut interval_us = 0;
        if !sd_notify::watchdog_enabled(false, &mut interval_us) || interval_us == 0 {
            return Ok(None);
        }
        Self::start_every(Duration::from_micros(interval_us / 3), probe, || {
            tell(&[NotifyState::Watchdog]);
        })
        .map(Some)
    }

    fn start_every(
        period: Duration,
        mut probe: impl FnMut() -> bool + Send + 'static,
        mut alive: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                if probe() {
                    alive();
                } else {
                    tracing::error!("a shard does not turn");
                }
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread. Systemd goes on waiting for signs of life, so this comes last.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread of the watchdog panicked");
        }
    }
}

/// A probe for [`Watchdog::start`]: each call asks whether every shard has turned since the call before, and then
/// wakes them all by `wake_all`, so that a sleeping shard has a reason to.
pub fn turn_probe(registry: Arc<Registry>, shards: u16, wake_all: impl Fn() + Send) -> impl FnMut() -> bool + Send {
    let mut turns_before: Vec<Option<u64>> = vec![None; usize::from(shards)];
    move || {
        let mut alive = true;
        for (shard, before) in (0..shards).zip(&mut turns_before) {
            let now = registry.shard(shard).turns.get();
            alive &= *before != Some(now);
            *before = Some(now);
        }
        wake_all();
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stuck_shard_fails_the_probe() {
        let registry = Arc::new(Registry::new(2, Arc::default()));
        let wakes = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = Arc::clone(&wakes);
        let mut probe = turn_probe(Arc::clone(&registry), 2, move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(probe(), "the first call has nothing to compare with");
        registry.shard(0).turns.inc();
        registry.shard(1).turns.inc();
        assert!(probe());
        registry.shard(0).turns.inc();
        assert!(!probe(), "shard 1 did not turn");
        assert_eq!(wakes.load(std::sync::atomic::Ordering::Relaxed), 3);
    }

    #[test]
    fn the_thread_reports_life_until_it_is_stopped() {
        let (lives, alive) = channel();
        let mut calls = 0;
        let probe = move || {
            calls += 1;
            calls != 2
        };
        let report = move || lives.send(()).unwrap_or_default();
        let watchdog = Watchdog::start_every(Duration::from_millis(1), probe, report).unwrap();
        for _ in 0..2 {
            alive.recv().unwrap();
        }
        watchdog.stop();
        while alive.recv().is_ok() {}
    }
}
