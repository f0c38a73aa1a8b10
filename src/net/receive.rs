//! Receiving.
//!
//! An idle connection waits in a poll, the smallest thing that the kernel can hold for it, and what the poll finds is received
//! by a receive of its own. A busy one ([`RECEIVES_OF_BUSY`](super::limits::RECEIVES_OF_BUSY) receives in close succession)
//! keeps a multishot receive instead, which costs less for each message and three times the kernel memory while it waits
//! (`bench/EXPERIMENTS.md`); once nothing came from one [`Net::trim`] to the next, it is idle again.
#![forbid(unsafe_code)]

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
        arm_recv(&mut self.ring, slot, conn);
    }

    /// Back-pressure: reads no more. Bytes that the kernel already took from the socket are still delivered. While paused,
    /// neither the peer's close nor its reset is noticed, unless output fails.
    pub fn pause_recv(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get_mut(conn) {
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

    /// Gives back what nobody needed since the last call: output buffers, and the multishot receives of connections that
    /// became idle. Call it about once in a second.
    pub fn trim(&mut self) {
        self.outputs.trim();
        self.sweep = self.sweep.next();
        let mut busy = std::mem::take(&mut self.busy);
        busy.retain(|conn| {
            let Some(slot) = self.slots.get_mut(*conn) else {
                return false;
            };
            if slot.flags.heard_lately(self.sweep) {
                return true;
            }
            slot.flags.clear(Flags::BUSY);
            if !slot.flags.any(Flags::POLLING) {
                cancel_recv(&mut self.ring, slot, *conn);
            }
            false
        });
        self.busy = busy;
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
            slot.flags.clear(Flags::RECV_ARMED.and(Flags::RECV_CANCELLED));
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
        if slot.flags.heard_often(self.sweep) {
            if !slot.flags.any(Flags::BUSY) {
                slot.flags.set(Flags::BUSY);
                self.busy.push(conn);
            }
            self.ring.recv_multishot(conn.slot(), Op::Recv(conn));
        } else {
            self.ring.recv(conn.slot(), Op::Recv(conn));
        }
        None
    }

    /// The receive of a connection is over: arms the next one, or goes on with what waited for its end.
    fn recv_ended(&mut self, conn: ConnId, result: i32) {
        let slot = self.slots.get_mut(conn).expect("checked by the caller");
        let failed = match -result {
            libc::ENOBUFS => {
                self.counts.recv_buffers_exhausted += 1;
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
            arm_recv(&mut self.ring, slot, conn);
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
                arm_recv(&mut self.ring, slot, conn);
            }
        }
        available > 0 && !self.starved.is_empty()
    }
}

/// Submits a receive when one is wanted and none is in flight or waiting for buffers.
fn arm_recv(ring: &mut Ring, slot: &mut Slot, conn: ConnId) {
    let wanted = slot.flags.any(Flags::RECV_WANTED);
    if wanted
        && !slot
            .flags
            .any(Flags::RECV_ARMED.and(Flags::STARVED).and(Flags::CLOSING))
    {
        slot.flags.set(Flags::RECV_ARMED.and(Flags::POLLING));
        ring.poll_readable(conn.slot(), Op::Recv(conn));
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
