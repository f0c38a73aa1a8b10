//! A turn: submit what is queued, sleep, reap every completion into events.
#![forbid(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use io_uring::cqueue;

use super::limits::CQE_BATCH;
use super::tag::Op;
use super::{Net, NetEvent};

impl Net {
    /// Submits what is queued, sleeps and reaps everything. `None`: does not sleep (and makes no system call when there is
    /// nothing to do); `Some`: sleeps at most so long and [`SLEEP_TOLERANCE`](super::limits::SLEEP_TOLERANCE), less when
    /// anything happens. It may return early and without an event. Events are appended to `events`, which the owner empties.
    ///
    /// # Errors
    /// Only what the kernel should never answer (`EBADR`: completions were lost for want of memory): the ring is unusable
    /// then.
    pub fn turn(&mut self, wait: Option<Duration>, events: &mut Vec<NetEvent>) -> io::Result<()> {
        self.recv_ring.refill();
        self.flush_departures();
        // What waits behind a quiet send that the turn before did not end goes out with the turn after this one.
        let has_unended = !self.quiet.is_empty();
        self.flush_output();
        // Who starves is served before multishot receives take buffers.
        let still_starved = self.flush_starved();
        self.flush_unarmed();
        self.flush_wakes();
        self.acceptor
            .flush(&mut self.ring, self.slots.slots_max(), self.slots.free());
        let awake = still_starved || has_unended || !self.ready.is_empty();
        let wait = match self.acceptor.retry_after() {
            _ if awake => None,
            Some(retry) => wait.map(|wait| wait.min(retry)),
            None => wait,
        };
        self.ring.enter(wait)?;
        // To be asked before the reap, which queues more.
        let is_submitted = self.ring.is_submitted();
        self.reap(events);
        self.end_quiet_sends(is_submitted, events);
        self.announce_ready(events);
        if std::mem::take(&mut self.woken) {
            events.push(NetEvent::Woken);
        }
        Ok(())
    }

    /// Takes every completion there is.
    pub(super) fn reap(&mut self, events: &mut Vec<NetEvent>) {
        let mut batch = [const { MaybeUninit::uninit() }; CQE_BATCH];
        loop {
            let completions = self.ring.reap(&mut batch);
            if completions.is_empty() {
                return;
            }
            for completion in completions {
                self.complete(completion, events);
            }
        }
    }

    fn complete(&mut self, completion: &cqueue::Entry, events: &mut Vec<NetEvent>) {
        let (result, flags) = (completion.result(), completion.flags());
        let more = cqueue::more(flags);
        let Some(op) = Op::decode(completion.user_data()) else {
            debug_assert!(false, "a completion that no ring of ours asked for");
            return;
        };
        match op {
            Op::Ignored => {}
            Op::Alarm(number) => self.ring.rang(number),
            Op::Accept => self.on_accept(result, more, events),
            Op::Recv(conn) => self.on_recv(conn, result, cqueue::buffer_select(flags), more, events),
            Op::Send(conn) => self.on_send(conn, result, events),
            Op::Shutdown(conn) => self.on_shutdown(conn),
            Op::Close(conn) => {
                debug_assert_eq!(result, 0, "a slot of ours closes");
                self.on_close(conn, events);
            }
            Op::HandOver(conn) => self.on_hand_over(conn, result, events),
            Op::HandedOver(token) => self.on_handed_over(token, result, events),
            Op::WokenByRing => self.woken = true,
            Op::WokenByThread => {
                self.waker.seen();
                self.woken = true;
                if !more {
                    self.ring.poll_eventfd(self.waker.fd(), Op::WokenByThread);
                }
            }
            // Whoever signals has the events.
            Op::Signalled => {
                self.signalled = true;
                if let Some(signals) = self.signals.as_ref().filter(|_| !more) {
                    self.ring.poll_eventfd(signals.fd(), Op::Signalled);
                }
            }
            Op::FileWrite(index) => {
                if let Some(written) = self.files.complete(&mut self.ring, index, result) {
                    let super::files::Written { token, buffer, result } = written;
                    events.push(NetEvent::FileWritten { token, buffer, result });
                }
            }
        }
    }
}
