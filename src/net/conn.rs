//! The life of a connection: sending and closing; receiving is `receive.rs`.
//!
//! Receiving and sending each have at most one operation in flight. Whatever ends a connection marks it `CLOSING`, cancels
//! what is in flight, and closes the slot only when the last completion came: so the kernel cannot give the slot to the next
//! connection while something of the old one is still under way.
#![allow(unsafe_code)]

use super::limits::SEND_BYTES_QUIET_MAX;
use super::receive::disarm_recv;
use super::slots::{Flags, NONE};
use super::tag::Op;
use super::{CloseCause, ConnId, Net, NetEvent};

impl Net {
    /// Where to append output (only append: bytes already there are an earlier message's). It is sent with the next turn,
    /// or, while an earlier send is in flight, after that one. `None` when the connection is gone, closing, shut down
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

    /// [`NetEvent::OutputDrained`] shall come for what is queued now; for one of a crowd ([`Self::join_crowd`]) it comes no other way.
    pub fn tell_drained(&mut self, conn: ConnId) {
        if let Some(slot) = self.slots.get(conn).filter(|slot| slot.output != NONE) {
            self.outputs.tell(slot.output);
        }
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

    /// Sends what was appended since the last turn.
    pub(super) fn flush_output(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            let Some(slot) = self.slots.get_mut(conn) else { continue };
            slot.flags.clear(Flags::DIRTY);
            if !slot.flags.any(Flags::CLOSING) && !self.send_next(conn, true) {
                self.after_output(conn);
            }
        }
        debug_assert!(self.dirty.is_empty(), "sending makes nothing dirty");
        self.dirty = dirty;
    }

    /// Ends the quiet sends that had no completion, as their sockets took all; in a later turn if the kernel has not got all of them
    /// (`is_submitted`) or a completion may be on its way.
    pub(super) fn end_quiet_sends(&mut self, is_submitted: bool, events: &mut Vec<NetEvent>) {
        if self.quiet.is_empty() || !is_submitted || !self.ring.is_reaped() {
            return;
        }
        let mut quiet = std::mem::take(&mut self.quiet);
        for conn in quiet.drain(..) {
            let slot = self.slots.get(conn).filter(|slot| slot.flags.any(Flags::SENDING));
            if let Some(bytes) = slot.and_then(|slot| self.outputs.quiet_bytes(slot.output)) {
                self.on_send(conn, bytes as i32, events);
            }
        }
        self.quiet = quiet;
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
        let is_told = !slot.flags.any(Flags::CROWD) || self.outputs.is_told(slot.output);
        if !self.send_next(conn, false) {
            if is_told {
                events.push(NetEvent::OutputDrained { conn });
            }
            self.after_output(conn);
        }
    }

    /// Sends the next bytes of a connection; when there are none, gives its buffer back and returns false. One of a crowd whose owner
    /// waits for nothing is sent to quietly if `may_be_quiet`: then a message that is answered costs one turn, not a second one to hear
    /// that the answer was written.
    fn send_next(&mut self, conn: ConnId, may_be_quiet: bool) -> bool {
        let slot = self.slots.get_mut(conn).expect("checked by the caller");
        debug_assert!(!slot.flags.any(Flags::SENDING), "one send at a time");
        if let Some(bytes) = self.outputs.next(slot.output) {
            slot.flags.set(Flags::SENDING);
            let is_quiet = may_be_quiet
                && slot.flags.any(Flags::CROWD)
                && !slot.flags.any(Flags::OUTPUT_ENDED)
                && bytes.len() <= SEND_BYTES_QUIET_MAX;
            let bytes: *const [u8] = bytes;
            // SAFETY: the pool leaves these bytes alone until `wrote` or `release`, which are called only once the completion
            // came (`on_send`, `settle`), or the ring said that there is none (`end_quiet_sends`). `Net::drop` cancels the send
            // before the pool goes.
            unsafe {
                if is_quiet && !self.outputs.is_told(slot.output) {
                    self.outputs.hush(slot.output);
                    self.quiet.push(conn);
                    self.ring.send_quietly(conn.slot(), bytes, Op::Send(conn));
                } else {
                    self.ring.send(conn.slot(), bytes, Op::Send(conn));
                }
            }
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
