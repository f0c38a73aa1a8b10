//! Drivers that say more than a driver can mean: their sockets are not read for a while.
//!
//! What a driver says to its own actor (heartbeats, positions, bad messages) costs nobody else anything and is bounded
//! by its answers: who does not read them is a slow consumer. An answer, a receipt, a shift or a trip goes to a request
//! or into the journal, and waits there while the disk is slow; so each socket has an account of those
//! ([`Pace`], a leaky bucket: GCRA as in ITU-T I.371), and one that is overdrawn is not read until it is settled. The
//! peer feels that as a full TCP window: nothing that it said is lost or answered otherwise, and nothing else is touched.
#![forbid(unsafe_code)]

use super::{Platform, Ring, Shard};
use crate::fsm::driver::DriverEvent;
use crate::limits::{DRIVER_COMMANDS_BURST, DRIVER_COMMANDS_PER_S, DRIVER_DEBT_MS_MAX, DRIVER_PAUSE_MS};
use crate::net::ConnId;
use crate::ops::log::LogKind;
use std::collections::VecDeque;

/// What one command takes of the account, in milliseconds of time to come.
const COMMAND_MS: u32 = 1_000 / DRIVER_COMMANDS_PER_S;
/// How far ahead of the clock an account may be before the socket is not read.
const AHEAD_MS_MAX: u32 = COMMAND_MS * DRIVER_COMMANDS_BURST;

// Times here are the clock's lowest 32 bits, in ms; no account runs further ahead than these could tell from the past.
const _: () = assert!(AHEAD_MS_MAX + DRIVER_DEBT_MS_MAX < u32::MAX / 4);

/// A socket's account: when it will be empty, if nothing more is said, and whether the socket is being read.
///
/// 32 bits tell times up to 49 days apart: an account that nothing was taken of for a multiple of that may look as full as
/// it then was, for as long as that would have lasted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    empty_at_ms: u32,
    /// A flag of its own: a table of connections needs a value that it cannot have.
    is_paused: bool,
}

impl Pace {
    /// An empty account.
    pub(super) fn begun(now_ms: u64) -> Self {
        Self {
            empty_at_ms: now_ms as u32,
            is_paused: false,
        }
    }

    /// One command more; says whether the socket is to be paused now.
    fn charge(&mut self, now_ms: u64) -> bool {
        let ahead_ms = (self.ahead_ms(now_ms) + COMMAND_MS).min(AHEAD_MS_MAX + DRIVER_DEBT_MS_MAX);
        let pauses = !self.is_paused && ahead_ms > AHEAD_MS_MAX;
        self.is_paused |= pauses;
        self.empty_at_ms = (now_ms as u32).wrapping_add(ahead_ms);
        pauses
    }

    /// Says whether a paused socket may be read again.
    fn settle(&mut self, now_ms: u64) -> bool {
        debug_assert!(self.is_paused, "only a paused socket waits to be read");
        let settled = self.ahead_ms(now_ms) <= AHEAD_MS_MAX;
        self.is_paused = !settled;
        settled
    }

    /// How far the account is ahead of the clock, 0 when it is empty.
    fn ahead_ms(self, now_ms: u64) -> u32 {
        let ahead_ms = self.empty_at_ms.wrapping_sub(now_ms as u32);
        // Further ahead than an account can be: it was empty long ago.
        if ahead_ms > AHEAD_MS_MAX + DRIVER_DEBT_MS_MAX {
            0
        } else {
            ahead_ms
        }
    }
}

/// Sockets that are not read at present, in the order in which they are looked at again.
pub(super) type Paused = VecDeque<(u64, ConnId)>;

impl<P: Platform> Shard<P> {
    /// A driver said something that others have to deal with.
    pub(super) fn charge_driver(&mut self, conn: ConnId) {
        let now_ms = self.now_ms;
        let Some(socket) = self.connections.socket(conn) else {
            return;
        };
        if !socket.pace.charge(now_ms) {
            return;
        }
        self.net.pause_recv(conn);
        self.metrics().drivers_throttled.inc();
        self.log(LogKind::Flood, |suppressed| {
            tracing::warn!(
                per_s = DRIVER_COMMANDS_PER_S,
                suppressed,
                "a driver says more than it may: its socket is read more slowly"
            );
        });
        self.look_again(conn);
    }

    /// Paused sockets whose time has come are read again, or looked at later.
    pub(super) fn resume_drivers(&mut self) {
        let now_ms = self.now_ms;
        while let Some((_, conn)) = self.paused.front().copied().filter(|(at_ms, _)| *at_ms <= now_ms) {
            self.paused.pop_front();
            let Some(socket) = self.connections.socket(conn) else {
                continue; // It is gone, or closing.
            };
            let (key, settled) = (socket.driver, socket.pace.settle(now_ms));
            // It may well have sent a heartbeat: it is we who do not read.
            self.step_driver(key, DriverEvent::Heard);
            if settled {
                self.net.start_recv(conn);
            } else {
                self.look_again(conn);
            }
        }
    }

    fn look_again(&mut self, conn: ConnId) {
        let at_ms = self.now_ms + DRIVER_PAUSE_MS;
        self.paused.push_back((at_ms, conn));
        self.wake_at(at_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any time whose lowest bits are about to wrap.
    const NOW_MS: u64 = (1 << 40) + (u32::MAX as u64) - 100;

    /// Commands that are taken at one instant before the socket is paused.
    fn taken_at(pace: &mut Pace, now_ms: u64) -> u32 {
        (1..=2 * DRIVER_COMMANDS_BURST)
            .find(|_| pace.charge(now_ms))
            .unwrap_or(0)
    }

    #[test]
    fn a_burst_is_taken_and_what_follows_waits_for_the_pace() {
        let mut pace = Pace::begun(NOW_MS);
        assert_eq!(taken_at(&mut pace, NOW_MS), DRIVER_COMMANDS_BURST + 1);
        assert!(!pace.settle(NOW_MS));
        assert!(pace.settle(NOW_MS + u64::from(COMMAND_MS)));
        assert_eq!(taken_at(&mut pace, NOW_MS + u64::from(COMMAND_MS)), 1);
        let second = NOW_MS + u64::from(COMMAND_MS) + 1_000;
        assert!(pace.settle(second));
        assert_eq!(taken_at(&mut pace, second), DRIVER_COMMANDS_PER_S);
    }

    #[test]
    fn what_arrives_while_paused_is_charged_up_to_a_bound() {
        let mut pace = Pace::begun(NOW_MS);
        taken_at(&mut pace, NOW_MS);
        for _ in 0..1_000_000 {
            assert!(!pace.charge(NOW_MS), "it is paused already");
        }
        let settled_at = NOW_MS + u64::from(DRIVER_DEBT_MS_MAX);
        assert!(!pace.settle(settled_at - 1));
        assert!(pace.settle(settled_at));
    }

    #[test]
    fn an_account_of_long_ago_is_empty() {
        let mut pace = Pace::begun(NOW_MS);
        pace.charge(NOW_MS);
        for later in [u64::from(COMMAND_MS), 1 << 20, 1 << 30] {
            let mut pace = pace;
            assert_eq!(
                taken_at(&mut pace, NOW_MS + later),
                DRIVER_COMMANDS_BURST + 1,
                "{later}"
            );
        }
    }
}
