//! Wake-ups from threads that have no ring.
#![forbid(unsafe_code)]

use crate::wake::WakeFlag;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};

#[derive(Debug)]
struct Shared {
    eventfd: OwnedFd,
    /// A wake-up is on its way that the ring has not seen.
    pending: WakeFlag,
}

/// Wakes a ring from any thread. Cheap to clone; calls that come before the ring looked are one wake-up (and one system
/// call).
#[derive(Clone, Debug)]
pub struct Waker(Arc<Shared>);

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Shared {
            eventfd,
            pending: WakeFlag::new(),
        })))
    }

    /// Makes the ring's current or next sleep end with [`NetEvent::Woken`](super::NetEvent::Woken). What was written
    /// before this call is seen by the owner after that event.
    pub fn wake(&self) {
        if !self.0.pending.raise() {
            return;
        }
        // The counter is never read: the ring's poll reports each write. It would be full after 2^64 of them.
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&self.0.eventfd, &1_u64.to_ne_bytes()));
        debug_assert_eq!(written, Ok(8), "an eventfd takes eight bytes");
    }

    /// The ring saw the wake-up: later calls need another. Whatever was written before the calls seen so far is visible
    /// now.
    pub(super) fn seen(&self) {
        self.0.pending.lower();
    }

    pub(super) fn fd(&self) -> RawFd {
        self.0.eventfd.as_raw_fd()
    }
}
