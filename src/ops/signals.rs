//! Signals: the first SIGTERM or SIGINT drains, the second ends the process at once. So does the first while the node has not
//! begun to serve: nobody has been promised anything yet, and a start that was cut short begins anew.
//!
//! They are taken by a thread that does nothing else. SIGPIPE stays ignored, as the Rust runtime sets it: a peer that
//! is gone is an error of a write. Ending at once is safe: what was answered is in the journal.
#![forbid(unsafe_code)]

use super::health::{Health, Phase};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

/// Keeps the signals taken; give it to [`SignalWatch::stop`] when the node has drained.
#[derive(Debug)]
pub struct SignalWatch {
    handle: Handle,
    thread: JoinHandle<()>,
}

/// Takes SIGTERM and SIGINT from now on. At the first, `health` moves to [`Phase::Draining`] and `on_drain` is called
/// once, on the thread of signals: it has to wake the shards. At the second, and at any before [`Phase::Serving`], the
/// process exits with status 0.
///
/// # Errors
/// When the handlers or the thread cannot be set up.
pub fn watch(health: Arc<Health>, on_drain: impl FnOnce() + Send + 'static) -> io::Result<SignalWatch> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut on_drain = Some(on_drain);
        for signal in &mut signals {
            if health.phase() < Phase::Serving {
                tracing::info!(signal, "not serving yet: ending at once");
                exit();
            }
            let Some(on_drain) = on_drain.take() else {
                tracing::warn!(signal, "second signal: ending at once");
                exit();
            };
            tracing::info!(signal, "draining");
            health.advance(Phase::Draining);
            on_drain();
        }
    })?;
    Ok(SignalWatch { handle, thread })
}

fn exit() -> ! {
    super::log::end();
    signal_hook::low_level::exit(0)
}

impl SignalWatch {
    /// Ends the thread of signals; from then on they are swallowed.
    pub fn stop(self) {
        self.handle.close();
        if self.thread.join().is_err() {
            tracing::error!("the thread of signals panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_drains() {
        let health = Arc::new(Health::new());
        health.advance(Phase::Serving);
        let (drained, wait) = std::sync::mpsc::channel();
        let watch = watch(Arc::clone(&health), move || drained.send(()).unwrap_or_default()).unwrap();
        assert!(!health.is_draining());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        wait.recv().unwrap();
        assert!(health.is_draining());
        watch.stop();
    }
}
