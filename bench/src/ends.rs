//! The signals that ask a program to end: they end its work and not the process, which has servers, mounts and directories to
//! take away. Work that cannot be ended in between, since it measures, is ended with the process, by a thread that knows what
//! there is to take away: [`end_at_once`].
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::process::{Pid, Signal as Kill, WaitOptions, kill_process, waitpid};
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

/// Something that goes with this process.
#[derive(Debug, PartialEq, Eq)]
enum Thing {
    Child(Pid),
    Directory(PathBuf),
}

static THINGS: Mutex<BTreeMap<u64, Thing>> = Mutex::new(BTreeMap::new());

/// Keeps in mind that there is a child or a directory, until it is dropped.
#[derive(Debug)]
pub(crate) struct Owned(u64);

impl Owned {
    /// A child, by its process id; `None`: there is no such process.
    pub(crate) fn child(pid: u32) -> Option<Self> {
        Pid::from_raw(pid.cast_signed()).map(|pid| Self::new(Thing::Child(pid)))
    }

    /// A directory with all that is in it.
    pub(crate) fn directory(path: PathBuf) -> Self {
        Self::new(Thing::Directory(path))
    }

    fn new(thing: Thing) -> Self {
        let mut things = THINGS.lock().unwrap_or_else(PoisonError::into_inner);
        let number = things.last_key_value().map_or(0, |(last, _)| last + 1);
        things.insert(number, thing);
        Self(number)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        THINGS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0);
    }
}

/// From now on those signals end this process, with exit status 1, and take away what is [`Owned`].
///
/// # Errors
/// The system has no thread for that.
pub(crate) fn end_at_once() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut ends = {
        let _inside = runtime.enter();
        Ends::new()?
    };
    std::thread::Builder::new().name("ends".to_owned()).spawn(move || {
        let Err(ended) = runtime.block_on(ends.or(std::future::pending::<Infallible>()));
        // Kept until the end of the process: nobody gives up or begins anything meanwhile.
        let things = THINGS.lock().unwrap_or_else(PoisonError::into_inner);
        take_away(&things);
        eprintln!("dispatchd-bench: {}", io::Error::from(ended));
        std::process::exit(1)
    })?;
    Ok(())
}

/// First whoever could still write, then where.
fn take_away(things: &BTreeMap<u64, Thing>) {
    for thing in things.values() {
        // Whoever has been reaped meanwhile has given its number away.
        if let Thing::Child(pid) = thing
            && let Ok(None) = waitpid(Some(*pid), WaitOptions::NOHANG)
            && kill_process(*pid, Kill::KILL).is_ok()
        {
            // It ends; a failure would say that it is gone.
            let _ = waitpid(Some(*pid), WaitOptions::empty());
        }
    }
    for thing in things.values() {
        if let Thing::Directory(path) = thing
            && let Err(error) = std::fs::remove_dir_all(path)
        {
            eprintln!("dispatchd-bench: {} stays: {error}", path.display());
        }
    }
}
