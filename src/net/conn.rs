//! The life of a connection: receiving, sending, closing.
//!
//! Receiving and sending each have at most one operation in flight. Whatever ends a connection marks it `CLOSING`, cancels
//! what is in flight, and closes the slot only when the last completion came: so the kernel cannot give the slot to the next
//! connection while something of the old one is still under way.
#![allow(unsafe_code)]

use super::ring::Ring;
use super::slots::{Flags, NONE, Slot};
use super::tag::Op;
use super::{CloseCause, ConnId, Net, NetEvent, RecvBuffer};

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

    /// Where to append output (only append: bytes already there are an earlier message's). It is sent with the next turn,
    /// or, while an earlier send is in flight, right after that one. `None` when the connection is gone, closing, shut down
    /// or leaving.
    ///
    /// Takes any amount: the owner bounds it with [`Self::output_room`], since only the owner knows what may be dropped.
    pub fn output(&mut self, conn: ConnId) -> Option<&mut Vec<u8>> {
        let slot = self.slots.get_mut(conn)?;
        if slot.flags.any(Flags::OUTPUT_ENDED) {
            return None;
        }
        if slot.output == NONE {
            slot.output = self.outputs.take(conn);
        }
        if !slot.flags.any(Flags::SENDING.and(Flags::DIRTY)) {
            slot.flags.set(Flags::DIRTY);
            self.dirty.push(conn);
        }
        Some(self.outputs.queued_mut(slot.output))
    }

    /// Bytes queued and not known to be in the socket's buffer, those in flight included; 0 for a stale id.
    pub fn output_len(&self, conn: ConnId) -> usize {
        match self.slots.get(conn) {
            Some(slot) if slot.output != NONE => self.outputs.len(slot.output),
            _ => 0,
        }
    }

    /// Bytes that may be appended before [`NetConfig::output_bytes_max`](super::NetConfig::output_bytes_max) is reached.
    pub fn output_room(&self, conn: ConnId) -> usize {
        self.output_bytes_max.saturating_sub(self.output_len(conn))
    }

    /// Whether some connection has output that is not in its socket's buffer.
    pub fn has_output(&self) -> bool {
        self.outputs.is_waiting()
    }

    /// Gives back output buffers that no connection needed since the last call. Call it about once in a second.
    pub fn trim_output(&mut self) {
        self.outputs.trim();
    }

    /// Adds to `stalled` the connections that took no byte of their output for at least [`OUTPUT_SWEEPS`] times the time
    /// between two calls, and at most once more. Looks at those that have output, no others.
    ///
    /// [`OUTPUT_SWEEPS`]: super::limits::OUTPUT_SWEEPS
    pub fn sweep_output(&mut self, stalled: &mut Vec<ConnId>) {
        self.outputs.sweep(stalled);
    }

    /// Closes once all output is written. [`Self::output`] is `None` from now on; [`NetEvent::Closed`] follows. A hand-over
    /// that has not left is given up.
    pub fn close_after_output(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get_mut(conn) else { return };
        slot.flags.set(Flags::CLOSE_AFTER);
        let (departed, idle) = (slot.flags.any(Flags::DEPARTED), slot.output == NONE);
        if departed {
            return;
        }
        self.stay(conn);
        if idle {
            self.begin_close(conn, 0);
        }
    }

    /// Sends FIN once all output is written; receiving goes on, so that the peer's last bytes do not turn the close into a
    /// reset. [`Self::output`] is `None` from now on.
    pub fn shutdown_write_after_output(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get_mut(conn) else { return };
        if slot.flags.any(Flags::OUTPUT_ENDED) {
            return;
        }
        slot.flags.set(Flags::SHUT_AFTER);
        if slot.output == NONE {
            self.after_output(conn);
        }
    }

    /// Drops unsent output and resets the connection (RST). [`NetEvent::Closed`] follows. A hand-over that has not left is
    /// given up.
    pub fn abort(&mut self, conn: ConnId) {
        let Some(slot) = self.slots.get_mut(conn) else { return };
        slot.flags.set(Flags::RESET.and(Flags::CLOSE_AFTER));
        if !slot.flags.any(Flags::DEPARTED) {
            self.stay(conn);
            self.begin_close(conn, 0);
        }
    }

    /// Puts a socket that the kernel installed in `slot` into the table.
    pub(super) fn install(&mut self, slot: u32, events: &mut Vec<NetEvent>) -> ConnId {
        if let Some(old) = self.slots.occupant(slot) {
            // The kernel reused the slot before this ring saw that it was closed; it was, or it would not be free.
            let closed = self
                .slots
                .get(old)
                .is_some_and(|slot| slot.flags.any(Flags::CLOSE_SENT));
            assert!(closed, "the kernel reuses no slot that was not closed");
            self.on_close(old, events);
        }
        self.slots.occupy(slot)
    }

    /// A completion of a receive, or of the poll before it.
    pub(super) fn on_recv(&mut self, conn: ConnId, result: i32, buffer: Option<u16>, events: &mut Vec<NetEvent>) {
        let Some(result) = self.poll_ended(conn, result) else {
            return;
        };
        let buffer = buffer.map(|id| self.recv_ring.lend(id, result.max(0) as u32));
        let slot = self
            .slots
            .get_mut(conn)
            .expect("a slot is not left while a receive is in flight");
        slot.flags.clear(Flags::RECV_ARMED.and(Flags::RECV_CANCELLED));
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
        self.recv_ended(conn, result);
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
        self.ring.recv(conn.slot(), Op::Recv(conn));
        self.found = true;
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

    /// Sends what was appended since the last turn.
    pub(super) fn flush_output(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            let Some(slot) = self.slots.get_mut(conn) else { continue };
            slot.flags.clear(Flags::DIRTY);
            if !slot.flags.any(Flags::CLOSING) && !self.send_next(conn) {
                self.after_output(conn);
            }
        }
        debug_assert!(self.dirty.is_empty(), "sending makes nothing dirty");
        self.dirty = dirty;
    }

    /// A completion of a send.
    pub(super) fn on_send(&mut self, conn: ConnId, result: i32, events: &mut Vec<NetEvent>) {
        let slot = self
            .slots
            .get_mut(conn)
            .expect("a slot is not left while a send is in flight");
        slot.flags.clear(Flags::SENDING);
        if slot.flags.any(Flags::CLOSING) {
            self.settle(conn);
            return;
        }
        match result {
            1.. => {
                self.counts.bytes_sent += result as u64;
                self.outputs.wrote(slot.output, result as usize);
            }
            _ if matches!(-result, libc::EINTR | libc::EAGAIN) => {}
            // A send of some bytes that writes none is a socket that takes no more.
            _ => {
                let errno = if result == 0 { libc::EPIPE } else { -result };
                self.begin_close(conn, errno);
                return;
            }
        }
        if !self.send_next(conn) {
            events.push(NetEvent::OutputDrained { conn });
            self.after_output(conn);
        }
    }

    /// Sends the next bytes of a connection; when there are none, gives its buffer back and returns false.
    fn send_next(&mut self, conn: ConnId) -> bool {
        let slot = self.slots.get_mut(conn).expect("checked by the caller");
        debug_assert!(!slot.flags.any(Flags::SENDING), "one send at a time");
        if let Some(bytes) = self.outputs.next(slot.output) {
            slot.flags.set(Flags::SENDING);
            // SAFETY: the pool leaves these bytes alone until `wrote` or `release`, which are called only once the completion
            // came (`on_send`, `settle`). `Net::drop` cancels the send before the pool goes.
            unsafe { self.ring.send(conn.slot(), bytes, Op::Send(conn)) };
            return true;
        }
        self.outputs.release(slot.output);
        slot.output = NONE;
        false
    }

    /// All output is written: does what waited for that.
    fn after_output(&mut self, conn: ConnId) {
        let slot = self.slots.get_mut(conn).expect("checked by the caller");
        debug_assert!(slot.output == NONE && !slot.flags.any(Flags::SENDING));
        if slot.flags.any(Flags::CLOSE_AFTER) {
            self.begin_close(conn, 0);
        } else if slot.flags.any(Flags::SHUT_AFTER) {
            if !slot.flags.any(Flags::SHUTTING) {
                slot.flags.set(Flags::SHUTTING);
                self.ring.shutdown_write(conn.slot(), Op::Shutdown(conn));
            }
        } else if slot.flags.any(Flags::LEAVING) {
            self.settle(conn);
        }
    }

    /// A completion of a shutdown. Its failure (`ENOTCONN`) means that the peer reset the connection, which the receive
    /// reports.
    pub(super) fn on_shutdown(&mut self, conn: ConnId) {
        let slot = self
            .slots
            .get_mut(conn)
            .expect("a slot is not left while a shutdown is in flight");
        slot.flags.clear(Flags::SHUTTING);
        self.settle(conn);
    }

    /// Ends a connection because of `errno` (0: the owner asked).
    pub(super) fn begin_close(&mut self, conn: ConnId, errno: i32) {
        self.stay(conn);
        let slot = self.slots.get_mut(conn).expect("checked by the caller");
        if slot.flags.any(Flags::CLOSING) {
            return;
        }
        debug_assert!(
            !slot.flags.any(Flags::DEPARTED),
            "a socket on its way is closed after it came back"
        );
        slot.flags.set(Flags::CLOSING);
        slot.extra = errno as u32;
        disarm_recv(&mut self.ring, slot, conn);
        if slot.flags.any(Flags::SENDING) {
            self.ring.cancel(Op::Send(conn));
        }
        self.settle(conn);
    }

    /// Once nothing of a connection is in flight: closes it, or lets it leave, if that is what waited.
    pub(super) fn settle(&mut self, conn: ConnId) {
        let slot = self.slots.get_mut(conn).expect("checked by the caller");
        if slot.flags.any(Flags::IN_FLIGHT.and(Flags::CLOSE_SENT)) {
            return;
        }
        if slot.flags.any(Flags::CLOSING) {
            if slot.output != NONE {
                self.outputs.release(slot.output);
                slot.output = NONE;
            }
            slot.flags.set(Flags::CLOSE_SENT);
            if slot.flags.any(Flags::RESET) && !slot.flags.any(Flags::SILENT) {
                self.ring.close_with_reset(conn.slot(), Op::Close(conn));
            } else {
                self.ring.close(conn.slot(), Op::Close(conn));
            }
        } else if slot.flags.any(Flags::LEAVING) && slot.output == NONE && !slot.flags.any(Flags::READY) {
            slot.flags.set(Flags::READY);
            self.ready.push(conn);
        }
    }

    /// The kernel closed the slot. A second call for the same occupant does nothing.
    pub(super) fn on_close(&mut self, conn: ConnId, events: &mut Vec<NetEvent>) {
        let Some(slot) = self.slots.get(conn) else { return };
        let (silent, errno) = (slot.flags.any(Flags::SILENT), slot.extra as i32);
        self.slots.vacate(conn);
        self.acceptor.slot_freed();
        if !silent {
            let cause = if errno == 0 {
                CloseCause::Local
            } else {
                CloseCause::Error(errno)
            };
            events.push(NetEvent::Closed { conn, cause });
        }
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
    if slot.flags.any(Flags::RECV_ARMED) && !slot.flags.any(Flags::RECV_CANCELLED) {
        slot.flags.set(Flags::RECV_CANCELLED);
        ring.cancel(Op::Recv(conn));
    }
}
