//! The signals that ask a program to end: they end its work and not the process, which has servers, mounts and directories to
//! take away.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Those signals.
pub(crate) struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

/// Work that was ended by a signal of this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended(pub(crate) &'static str);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ended by {}", self.0)
    }
}

impl From<Ended> for io::Error {
    fn from(ended: Ended) -> Self {
        Self::other(format!("{ended}, without a verdict"))
    }
}

impl Ends {
    /// Catches them from now on; within a runtime.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Does some work, unless one of them comes first; one that came earlier counts.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        tokio::select! {
            done = work => Ok(done),
            _ = self.interrupt.recv() => Err(Ended("SIGINT")),
            _ = self.terminate.recv() => Err(Ended("SIGTERM")),
            _ = self.hang_up.recv() => Err(Ended("SIGHUP")),
        }
    }
}
