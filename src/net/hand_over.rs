//! Handing a connection to another ring (`MSG_RING` with `SEND_FD`).
//!
//! Source side, in order: receiving is cancelled and queued output written; every byte that was taken from the socket is
//! delivered; [`NetEvent::HandOverReady`]; with the next turn the socket is sent; the source's slot is closed silently. Bytes
//! that arrive meanwhile stay in the socket for the target. Target side: [`NetEvent::HandedOver`].
#![forbid(unsafe_code)]

use std::os::fd::RawFd;

use super::limits::HAND_OVER_TOKEN_MAX;
use super::receive::disarm_recv;
use super::slots::{Flags, NONE};
use super::tag::Op;
use super::{ConnId, Net, NetEvent};

/// Where a connection goes.
#[derive(Clone, Copy, Debug)]
struct HandOver {
    target_ring: RawFd,
    token: u64,
}

/// All hand-overs under way on the source side, by index.
#[derive(Debug, Default)]
pub(super) struct HandOvers {
    entries: Vec<HandOver>,
    vacant: Vec<u32>,
}

impl HandOvers {
    fn add(&mut self, hand_over: HandOver) -> u32 {
        if let Some(index) = self.vacant.pop() {
            self.entries[index as usize] = hand_over;
            return index;
        }
        self.entries.push(hand_over);
        self.entries.len() as u32 - 1
    }

    fn remove(&mut self, index: u32) -> HandOver {
        self.vacant.push(index);
        self.entries[index as usize]
    }
}

impl Net {
    /// Hands the socket to the ring whose [`ring_fd`](Self::ring_fd) is `target_ring_fd`, where it arrives with `token`.
    /// Output queued so far is written first; from now on [`Self::output`] is `None` and [`Self::start_recv`] does nothing.
    /// [`NetEvent::HandOverReady`] follows (or [`NetEvent::Closed`], when the socket fails before that).
    ///
    /// False: nothing is done, because the connection is gone, closing, shut down or already leaving.
    ///
    /// # Panics
    /// When the token is above [`HAND_OVER_TOKEN_MAX`] or the target is this ring.
    pub fn hand_over(&mut self, conn: ConnId, target_ring_fd: RawFd, token: u64) -> bool {
        assert!(token <= HAND_OVER_TOKEN_MAX, "a hand-over token has 56 bits");
        assert!(
            target_ring_fd != self.ring.fd(),
            "a connection is not handed to its own ring"
        );
        let Some(slot) = self
            .slots
            .get_mut(conn)
            .filter(|slot| !slot.flags.any(Flags::OUTPUT_ENDED))
        else {
            return false;
        };
        slot.flags.set(Flags::LEAVING);
        slot.extra = self.hand_overs.add(HandOver {
            target_ring: target_ring_fd,
            token,
        });
        disarm_recv(&mut self.ring, slot, conn);
        self.settle(conn);
        true
    }

    /// Keeps a connection that [`Self::hand_over`] was called for. True until the turn after the one that delivered
    /// [`NetEvent::HandOverReady`]; receiving stays paused. False: too late, or it was not leaving.
    pub fn cancel_hand_over(&mut self, conn: ConnId) -> bool {
        let leaving = |flags: Flags| flags.any(Flags::LEAVING) && !flags.any(Flags::DEPARTED);
        let cancelled = self.slots.get(conn).is_some_and(|slot| leaving(slot.flags));
        self.stay(conn);
        cancelled
    }

    /// Wakes another ring: [`NetEvent::Woken`] there, soon after this ring's next turn. Calls for the same ring before that
    /// turn are one. A ring that is gone is none of our concern.
    pub fn wake_ring(&mut self, target_ring_fd: RawFd) {
        if !self.wakes.contains(&target_ring_fd) {
            self.wakes.push(target_ring_fd);
        }
    }

    /// Gives up a hand-over that has not left.
    pub(super) fn stay(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get_mut(conn) else { return };
        if slot.flags.any(Flags::LEAVING) && !slot.flags.any(Flags::DEPARTED) {
            slot.flags.clear(Flags::LEAVING.and(Flags::READY).and(Flags::ANNOUNCED));
            self.hand_overs.remove(slot.extra);
            slot.extra = NONE;
        }
    }

    /// Announces the connections that became quiet; the next turn sends them.
    pub(super) fn announce_ready(&mut self, events: &mut Vec<NetEvent>) {
        for conn in self.ready.drain(..) {
            let Some(slot) = self.slots.get_mut(conn) else { continue };
            if slot.flags.any(Flags::READY) && !slot.flags.any(Flags::ANNOUNCED) {
                slot.flags.set(Flags::ANNOUNCED);
                let token = self.hand_overs.entries[slot.extra as usize].token;
                events.push(NetEvent::HandOverReady { conn, token });
                self.departures.push(conn);
            }
        }
    }

    /// Sends the sockets that were announced with the last turn.
    pub(super) fn flush_departures(&mut self) {
        for conn in self.departures.drain(..) {
            let Some(slot) = self.slots.get_mut(conn) else { continue };
            if slot.flags.any(Flags::ANNOUNCED) && !slot.flags.any(Flags::DEPARTED) {
                debug_assert!(slot.output == NONE && !slot.flags.any(Flags::IN_FLIGHT.and(Flags::CLOSING)));
                slot.flags.set(Flags::DEPARTED);
                let HandOver { target_ring, token } = self.hand_overs.entries[slot.extra as usize];
                self.ring.hand_over(conn.slot(), target_ring, token, Op::HandOver(conn));
            }
        }
    }

    /// Wakes the rings that were named since the last turn.
    pub(super) fn flush_wakes(&mut self) {
        for target_ring in self.wakes.drain(..) {
            self.ring.wake(target_ring);
        }
    }

    /// Source side: the socket arrived, or did not.
    pub(super) fn on_hand_over(&mut self, conn: ConnId, result: i32, events: &mut Vec<NetEvent>) {
        let slot = self
            .slots
            .get_mut(conn)
            .expect("a slot is not left while its socket is on its way");
        debug_assert!(slot.flags.any(Flags::DEPARTED) && !slot.flags.any(Flags::CLOSING));
        slot.flags.clear(
            Flags::DEPARTED
                .and(Flags::LEAVING)
                .and(Flags::READY)
                .and(Flags::ANNOUNCED),
        );
        let HandOver { token, .. } = self.hand_overs.remove(slot.extra);
        slot.extra = NONE;
        if result >= 0 {
            slot.flags.set(Flags::SILENT);
            self.begin_close(conn, 0);
            return;
        }
        let unwanted = slot.flags.any(Flags::CLOSE_AFTER);
        events.push(NetEvent::HandOverFailed {
            token,
            conn,
            errno: -result,
        });
        if unwanted {
            self.begin_close(conn, 0);
        }
    }

    /// Target side: a socket came to `slot`.
    pub(super) fn on_handed_over(&mut self, token: u64, result: i32, events: &mut Vec<NetEvent>) {
        debug_assert!(result >= 0, "the source hears of failures, not the target");
        if let Ok(slot) = u32::try_from(result) {
            let conn = self.install(slot, events);
            events.push(NetEvent::HandedOver { token, conn });
        }
    }
}
