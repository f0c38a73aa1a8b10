//! Receiving.
//!
//! One of a crowd ([`Net::join_crowd`]) keeps a multishot receive, which costs least for each message (`bench/EXPERIMENTS.md`), until it is
//! paused. Any other connection waits in a receive of its own.
//!
//! The next receive is armed with the next turn, not as the last one ends: by then the owner has often handed the connection over,
//! closed it, or said what it is.
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

    /// Makes the connection one of many that say little and are told little: its output goes out quietly ([`Self::tell_drained`]), and
    /// it keeps a multishot receive until it is paused, and single ones from then on. The kernel may have taken dozens of buffers from the
    /// socket before a pause is seen: for what is understood as it comes, and not kept.
    pub fn join_crowd(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get_mut(conn) {
            slot.flags.set(Flags::CROWD.and(Flags::MAY_MULTISHOT));
        }
    }

    /// Back-pressure: reads no more. Bytes that the kernel already took from the socket are still delivered. While paused,
    /// neither the peer's close nor its reset is noticed, unless output fails.
    pub fn pause_recv(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get_mut(conn) {
            slot.flags.clear(Flags::MAY_MULTISHOT);
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

    /// Gives back the output and receive buffers that nobody needed since the last call. Call it about once in a second.
    pub fn trim(&mut self) {
        self.outputs.trim();
        // What the kernel has received and nobody has reaped lies in buffers that look free.
        let all_reaped = self.ring.is_reaped();
        self.recv_ring.trim(all_reaped);
    }

    /// A completion of a receive. `more`: it is a multishot one, which goes on.
    pub(super) fn on_recv(
        &mut self,
        conn: ConnId,
        result: i32,
        buffer: Option<u16>,
        more: bool,
        events: &mut Vec<NetEvent>,
    ) {
        let buffer = buffer.map(|id| self.recv_ring.lend(id, result.max(0) as u32));
        let slot = self
            .slots
            .get_mut(conn)
            .expect("a slot is not left while a receive is in flight");
        if !more {
            slot.flags.clear(Flags::RECV_ARMED.and(Flags::RECV_CANCELLED));
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
                arm_recv(&mut self.ring, slot, conn);
            }
        }
    }

    /// Receives for starved connections, as many as there are buffers. Returns whether some could not be served
    /// although buffers are there: then the next turn must not sleep.
    ///
    /// A receive takes one buffer, whoever it is for: a multishot one of a socket that is always full would take those that the
    /// others wait for, again and again.
    pub(super) fn flush_starved(&mut self) -> bool {
        let available = self.recv_ring.available();
        for _ in 0..available {
            let Some(conn) = self.starved.pop_front() else { break };
            let Some(slot) = self.slots.get_mut(conn) else { continue };
            slot.flags.clear(Flags::STARVED);
            if may_arm(slot) {
                slot.flags.set(Flags::RECV_ARMED);
                self.ring.recv(conn.slot(), Op::Recv(conn));
            }
        }
        available > 0 && !self.starved.is_empty()
    }
}

/// Whether a receive is wanted, and none is in flight or waiting for buffers.
fn may_arm(slot: &Slot) -> bool {
    let hindered = Flags::RECV_ARMED.and(Flags::STARVED).and(Flags::CLOSING);
    slot.flags.any(Flags::RECV_WANTED) && !slot.flags.any(hindered)
}

/// Submits a receive if [`may_arm`].
fn arm_recv(ring: &mut Ring, slot: &mut Slot, conn: ConnId) {
    if !may_arm(slot) {
        return;
    }
    slot.flags.set(Flags::RECV_ARMED);
    if slot.flags.any(Flags::MAY_MULTISHOT) {
        ring.recv_multishot(conn.slot(), Op::Recv(conn));
    } else {
        ring.recv(conn.slot(), Op::Recv(conn));
    }
}

/// Wants no more receives and cancels the one in flight.
pub(super) fn disarm_recv(ring: &mut Ring, slot: &mut Slot, conn: ConnId) {
    slot.flags.clear(Flags::RECV_WANTED);
    if slot.flags.any(Flags::RECV_ARMED) && !slot.flags.any(Flags::RECV_CANCELLED) {
        slot.flags.set(Flags::RECV_CANCELLED);
        ring.cancel(Op::Recv(conn));
    }
}
