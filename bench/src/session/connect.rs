//! Connecting and disconnecting everybody, with bounds on how many at once, on time and on patience.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;

use super::{EventKind, Gone, Phase, Session};
use crate::message::{DriverState, Message};

/// Handshakes under way at once.
const CONNECTING_MAX: u32 = 128;
/// How long connecting may make no progress, ns.
pub(super) const STALL_NS_MAX: u64 = 10_000_000_000;
/// A refused handshake (429 or 503) is tried again after this time, ns.
const RETRY_NS: u64 = 50_000_000;
/// Refusals that one driver's share of patience covers.
const REFUSALS_PER_DRIVER_MAX: u64 = 20;

/// What it took to connect everybody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Connected {
    /// Handshakes that the server refused with 429 or 503 and that were repeated.
    pub refusals: u64,
    /// Time from the first connect to the last `WELCOME`, ns.
    pub took_ns: u64,
}

impl Session {
    /// Connects drivers until `count` of this session are open and have heard `WELCOME` `available`.
    ///
    /// # Errors
    /// The server refuses too often, breaks its protocol, or nothing moves for ten seconds.
    pub fn connect_drivers(&mut self, count: u32, mut progress: impl FnMut(u32)) -> io::Result<Connected> {
        assert!(count <= self.drivers());
        let started_ns = self.now_ns();
        let mut result = Connected::default();
        let mut todo: VecDeque<u32> = (0..count)
            .filter(|driver| self.drivers[*driver as usize].phase == Phase::Free)
            .collect();
        let mut retry: VecDeque<(u64, u32)> = VecDeque::new();
        let (mut missing, mut connecting) = (todo.len() as u32, 0);
        let mut moved_ns = started_ns;
        while missing > 0 {
            let now_ns = self.now_ns();
            while retry.front().is_some_and(|(due_ns, _)| *due_ns <= now_ns) {
                todo.extend(retry.pop_front().map(|(_, driver)| driver));
            }
            while connecting < CONNECTING_MAX
                && let Some(driver) = todo.pop_front()
            {
                self.connect(driver)?;
                connecting += 1;
            }
            self.turn(now_ns + RETRY_NS)?;
            let events = self.take_events();
            for event in &events {
                match &event.kind {
                    EventKind::Message {
                        message: Message::Welcome { state, .. },
                        driver,
                    } => {
                        if *state != DriverState::Available {
                            return Err(io::Error::other(format!("driver {driver} is welcomed as {state:?}")));
                        }
                        (missing, connecting, moved_ns) = (missing - 1, connecting - 1, event.at_ns);
                    }
                    EventKind::Gone {
                        driver,
                        why: Gone::Refused { status: 429 | 503 },
                    } => {
                        connecting -= 1;
                        result.refusals += 1;
                        retry.push_back((event.at_ns + RETRY_NS, *driver));
                    }
                    EventKind::Gone { .. } | EventKind::Fault(_) => {
                        return Err(io::Error::other(format!("while connecting: {:?}", event.kind)));
                    }
                    EventKind::Message { .. } | EventKind::Response { .. } | EventKind::HttpClosed { .. } => {}
                }
            }
            self.recycle(events);
            progress(count - missing);
            let patience = REFUSALS_PER_DRIVER_MAX * u64::from(count);
            if self.now_ns() > moved_ns + STALL_NS_MAX || result.refusals > patience {
                let refusals = result.refusals;
                let what = format!(
                    "{missing} of {count} drivers do not get a WELCOME ({refusals} refusals): is `connections_max` large enough?"
                );
                return Err(io::Error::other(what));
            }
        }
        result.took_ns = self.now_ns() - started_ns;
        Ok(result)
    }

    /// Cuts every connection and waits, ten seconds at most, until the kernel has let go of all of them.
    ///
    /// # Errors
    /// The ring's.
    pub fn disconnect(&mut self) -> io::Result<()> {
        for slot in 0..self.drivers() {
            if matches!(
                self.drivers[slot as usize].phase,
                Phase::Open | Phase::Upgrading | Phase::Closing
            ) {
                self.break_off(slot, Gone::Closed)?;
            }
        }
        for index in 0..self.https.len() as u32 {
            if self.https[index as usize].open {
                self.ring.stop_receive(self.drivers() + index)?;
            }
        }
        let deadline_ns = self.now_ns() + STALL_NS_MAX;
        let open = |session: &Self| {
            session.drivers.iter().any(|driver| driver.phase != Phase::Free)
                || session.https.iter().any(|connection| connection.open)
        };
        while open(self) && self.now_ns() < deadline_ns {
            self.turn(deadline_ns)?;
            self.events.clear();
        }
        Ok(())
    }
}
