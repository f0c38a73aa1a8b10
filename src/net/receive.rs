//! Receiving.
//!
//! One of a crowd ([`Net::allow_busy`]) keeps a multishot receive, which costs least for each message, as long as no more of them do than
//! [`NetConfig::multishots_kept`](super::NetConfig::multishots_kept): one takes three times the kernel memory of a poll (`bench/EXPERIMENTS.md`).
//! Beyond that number a connection waits in a poll, the smallest thing that the kernel can hold for
//! it, and what the poll finds is received by a receive of its own; but a busy one
//! ([`RECEIVES_OF_BUSY`](super::limits::RECEIVES_OF_BUSY) receives in close succession) keeps a multishot receive all the same,
//! until nothing came from one [`Net::trim`] to the next.
//! Any other connection, an HTTP one, is about to say something and waits in a receive of its own.
//!
//! The next receive is armed with the next turn, not as the last one ends: by then the owner has often handed the connection over,
//! closed it, or said what it is.
#![forbid(unsafe_code)]

use super::limits::BUSY_CHECKED_PER_TURN;
use super::ring::Ring;
use super::slots::{Flags, Slot};
use super::tag::Op;
use super::{ConnId, Net, NetEvent, RecvBuffer};

impl Net {
    /// Reads from the connection until [`Self::pause_recv`], end of stream or an error.
    pub fn start_recv(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get_mut(conn) else { return };
        if slot
            .flags
            .any(Flags::CLOSING.and(Flags::LEAVING).and(Flags::PEER_CLOSED))
        {
            return;
        }
        slot.flags.set(Flags::RECV_WANTED);
        arm_recv(&mut self.ring, &mut self.multishots, slot, conn);
    }

    /// Makes the connection one of many that are mostly silent, and lets it keep a multishot receive until it is paused. The kernel
    /// may then have taken up to 32 buffers from the socket before a pause is seen: for what is understood as it comes, and not kept.
    pub fn allow_busy(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get_mut(conn) {
            slot.flags.set(Flags::CROWD.and(Flags::MAY_BE_BUSY));
        }
    }

    /// Back-pressure: reads no more. Bytes that the kernel already took from the socket are still delivered. While paused,
    /// neither the peer's close nor its reset is noticed, unless output fails.
    pub fn pause_recv(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get_mut(conn) {
            slot.flags.clear(Flags::MAY_BE_BUSY);
            disarm_recv(&mut self.ring, slot, conn);
        }
    }

    /// The bytes of a received buffer, to be changed in place (unmasked, for example).
    ///
    /// # Panics
    /// When the buffer is another ring's.
    pub fn bytes_mut(&mut self, buffer: &RecvBuffer) -> &mut [u8] {
        self.recv_ring.bytes_mut(buffer)
    }

    /// Gives a received buffer back. Connections that starved for buffers go on with the next turn.
    ///
    /// # Panics
    /// When the buffer is another ring's.
    pub fn recycle(&mut self, buffer: RecvBuffer) {
        self.recv_ring.recycle(buffer);
    }

    /// Gives back what nobody needed since the last call: output and receive buffers, and the multishot receives of connections
    /// that became idle. Call it about once in a second.
    pub fn trim(&mut self) {
        self.outputs.trim();
        // What the kernel has received and nobody has reaped lies in buffers that look free.
        let all_reaped = self.ring.is_reaped();
        self.recv_ring.trim(all_reaped);
        self.sweep = self.sweep.next();
        self.busy_unchecked = self.busy.len();
    }

    /// Looks at some of the busy connections since the last [`Self::trim`]. Not at all of them at once: when a crowd falls
    /// silent, each costs a cancellation and a poll, which together would hold everybody else up for long.
    pub(super) fn check_busy(&mut self) {
        for _ in 0..self.busy_unchecked.min(BUSY_CHECKED_PER_TURN) {
            self.busy_unchecked -= 1;
            let Some(conn) = self.busy.pop_front() else { return };
            let Some(slot) = self.slots.get_mut(conn) else { continue };
            if slot.flags.heard_lately(self.sweep) {
                self.busy.push_back(conn);
                continue;
            }
            slot.flags.clear(Flags::BUSY);
            if slot.flags.any(Flags::MULTISHOT) && self.multishots.is_over() {
                cancel_recv(&mut self.ring, slot, conn);
            }
        }
    }

    /// A completion of a receive, or of the poll before it. `more`: it is a multishot receive, which goes on.
    pub(super) fn on_recv(
        &mut self,
        conn: ConnId,
        result: i32,
        buffer: Option<u16>,
        more: bool,
        events: &mut Vec<NetEvent>,
    ) {
        let Some(result) = self.poll_ended(conn, result) else {
            return;
        };
        let buffer = buffer.map(|id| self.recv_ring.lend(id, result.max(0) as u32));
        let slot = self
            .slots
            .get_mut(conn)
            .expect("a slot is not left while a receive is in flight");
        if !more {
            if slot.flags.any(Flags::MULTISHOT) {
                self.multishots.armed -= 1;
            }
            slot.flags
                .clear(Flags::RECV_ARMED.and(Flags::RECV_CANCELLED).and(Flags::MULTISHOT));
        }
        if result > 0 {
            slot.flags.hear(self.sweep);
        }
        let closing = slot.flags.any(Flags::CLOSING);
        match (result, buffer) {
            (1.., Some(buffer)) if !closing => events.push(NetEvent::Received { conn, buffer }),
            (_, Some(buffer)) => self.recv_ring.recycle(buffer),
            (1.., None) => unreachable!("bytes come in a buffer"),
            (..=0, None) => {}
        }
        if !closing && result == 0 {
            slot.flags.set(Flags::PEER_CLOSED);
            slot.flags.clear(Flags::RECV_WANTED);
            events.push(NetEvent::PeerClosed { conn });
        }
        if !more {
            self.recv_ended(conn, result);
        }
    }

    /// When what ended is the poll: receives what it found. Else, how the receive ended; a poll without anything to receive,
    /// or cancelled after it had found something (which stays in the socket), ends as a receive does.
    fn poll_ended(&mut self, conn: ConnId, result: i32) -> Option<i32> {
        let slot = self
            .slots
            .get_mut(conn)
            .expect("a slot is not left while a poll is in flight");
        if !slot.flags.any(Flags::POLLING) || result < 0 {
            slot.flags.clear(Flags::POLLING);
            return Some(result);
        }
        slot.flags.clear(Flags::POLLING);
        if slot.flags.any(Flags::RECV_CANCELLED) {
            return Some(-libc::ECANCELED);
        }
        self.found = true;
        if slot.flags.any(Flags::MAY_BE_BUSY) && slot.flags.heard_often(self.sweep) {
            if !slot.flags.any(Flags::BUSY) {
                slot.flags.set(Flags::BUSY);
                self.busy.push_back(conn);
            }
            self.multishots.arm(&mut self.ring, slot, conn);
        } else {
            self.ring.recv_now(conn.slot(), Op::Recv(conn));
        }
        None
    }

    /// The receive of a connection is over: the next turn arms the next one, or what waited for its end goes on.
    fn recv_ended(&mut self, conn: ConnId, result: i32) {
        let slot = self.slots.get_mut(conn).expect("checked by the caller");
        let failed = match -result {
            libc::ENOBUFS => {
                self.counts.recv_buffers_exhausted += u64::from(!self.recv_ring.offer_all());
                if slot.flags.any(Flags::RECV_WANTED) && !slot.flags.any(Flags::CLOSING) {
                    slot.flags.set(Flags::STARVED);
                    self.starved.push_back(conn);
                }
                false
            }
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => false,
            errno => errno > 0,
        };
        if slot.flags.any(Flags::CLOSING.and(Flags::LEAVING)) && !failed {
            self.settle(conn);
        } else if failed {
            self.begin_close(conn, -result);
            self.settle(conn);
        } else {
            self.unarmed.push(conn);
        }
    }

    /// Arms the receives of connections whose last one is over.
    pub(super) fn flush_unarmed(&mut self) {
        for conn in self.unarmed.drain(..) {
            if let Some(slot) = self.slots.get_mut(conn) {
                arm_recv(&mut self.ring, &mut self.multishots, slot, conn);
            }
        }
    }

    /// Arms the receives of starved connections, as many as there are buffers. Returns whether some could not be served
    /// although buffers are there: then the next turn must not sleep.
    pub(super) fn flush_starved(&mut self) -> bool {
        let available = self.recv_ring.available();
        for _ in 0..available {
            let Some(conn) = self.starved.pop_front() else { break };
            if let Some(slot) = self.slots.get_mut(conn) {
                slot.flags.clear(Flags::STARVED);
                arm_recv(&mut self.ring, &mut self.multishots, slot, conn);
            }
        }
        available > 0 && !self.starved.is_empty()
    }
}

/// The multishot receives of a ring.
#[derive(Debug)]
pub(super) struct Multishots {
    /// In flight.
    armed: u32,
    /// How many may be kept by connections that are not busy.
    kept: u32,
}

impl Multishots {
    pub(super) fn new(kept: u32) -> Self {
        Self { armed: 0, kept }
    }

    pub(super) fn armed(&self) -> u32 {
        self.armed
    }

    /// Whether there are more than may be kept.
    fn is_over(&self) -> bool {
        self.armed > self.kept
    }

    fn arm(&mut self, ring: &mut Ring, slot: &mut Slot, conn: ConnId) {
        self.armed += 1;
        slot.flags.set(Flags::MULTISHOT);
        ring.recv_multishot(conn.slot(), Op::Recv(conn));
    }
}

/// Submits a receive when one is wanted and none is in flight or waiting for buffers.
fn arm_recv(ring: &mut Ring, multishots: &mut Multishots, slot: &mut Slot, conn: ConnId) {
    let wanted = slot.flags.any(Flags::RECV_WANTED);
    if wanted
        && !slot
            .flags
            .any(Flags::RECV_ARMED.and(Flags::STARVED).and(Flags::CLOSING))
    {
        slot.flags.set(Flags::RECV_ARMED);
        if !slot.flags.any(Flags::CROWD) {
            ring.recv(conn.slot(), Op::Recv(conn));
        } else if slot.flags.any(Flags::MAY_BE_BUSY) && multishots.armed < multishots.kept {
            multishots.arm(ring, slot, conn);
        } else {
            slot.flags.set(Flags::POLLING);
            ring.poll_readable(conn.slot(), Op::Recv(conn));
        }
    }
}

/// Wants no more receives and cancels the one in flight.
pub(super) fn disarm_recv(ring: &mut Ring, slot: &mut Slot, conn: ConnId) {
    slot.flags.clear(Flags::RECV_WANTED);
    cancel_recv(ring, slot, conn);
}

/// Cancels the receive in flight, if there is one.
fn cancel_recv(ring: &mut Ring, slot: &mut Slot, conn: ConnId) {
    if slot.flags.any(Flags::RECV_ARMED) && !slot.flags.any(Flags::RECV_CANCELLED) {
        slot.flags.set(Flags::RECV_CANCELLED);
        ring.cancel(Op::Recv(conn));
    }
}
