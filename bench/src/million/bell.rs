//! Where a load thread that has several rings sleeps: an eventfd that all of them signal.
#![forbid(unsafe_code)]

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{Errno, read, retry_on_intr};
use rustix::thread::set_current_timer_slack;

/// How much later than asked for a sleep may end, ns; the kernel's own 50 µs would make each heartbeat late.
const TIMER_SLACK_NS: NonZeroU64 = NonZeroU64::new(1_000).unwrap();

/// See the module. A signal that comes while nobody sleeps ends the next sleep.
pub struct Bell(OwnedFd);

impl Bell {
    /// For this thread.
    ///
    /// # Errors
    /// What the kernel says: `EMFILE`.
    pub fn new() -> io::Result<Self> {
        set_current_timer_slack(Some(TIMER_SLACK_NS))?;
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// What is to be signalled.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Forgets the signals so far; false: there were none. Whatever they were for can be seen now.
    ///
    /// # Errors
    /// None that the kernel documents for an eventfd of ours.
    pub fn hush(&self) -> io::Result<bool> {
        match read(&self.0, &mut [0_u8; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sleeps until a signal, or for `rest_ns` at most; whether there was a signal.
    ///
    /// # Errors
    /// None that the kernel documents for an eventfd of ours.
    pub fn sleep(&self, rest_ns: u64) -> io::Result<bool> {
        let rest = Timespec {
            tv_sec: (rest_ns / 1_000_000_000) as i64,
            tv_nsec: (rest_ns % 1_000_000_000) as i64,
        };
        let mut bells = [PollFd::new(&self.0, PollFlags::IN)];
        Ok(retry_on_intr(|| poll(&mut bells, Some(&rest)))? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_before_a_sleep_ends_it_and_is_forgotten_when_asked() {
        const LONG_NS: u64 = 3_600_000_000_000;
        let bell = Bell::new().expect("an eventfd");
        for _ in 0..2 {
            rustix::io::write(bell.fd(), &1_u64.to_ne_bytes()).expect("a signal");
            assert!(bell.sleep(LONG_NS).expect("it does not sleep"));
            assert!(bell.sleep(LONG_NS).expect("nor does it forget by itself"));
            assert!(bell.hush().expect("it forgets"));
            assert!(!bell.hush().expect("there is nothing to forget"));
            assert!(!bell.sleep(1).expect("it sleeps until its time is over"));
        }
    }
}
