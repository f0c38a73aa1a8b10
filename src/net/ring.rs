//! The submission side of the ring, one safe method per operation, and the copy-out of completions.
//!
//! Only operations whose memory the kernel uses after the call are `unsafe` here; everything else passes numbers, or what the
//! ring itself owns. A full submission queue is submitted early; what the kernel refuses to take waits in a backlog, in order.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, DestinationSlot, Fd, Fixed, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode};
use rustix::time::{ClockId, clock_gettime};

use super::alarms::Alarms;
use super::limits::{CQ_ENTRIES_MAX, CQ_ENTRIES_MIN, CQE_BATCH, SQ_ENTRIES_MAX, SQ_ENTRIES_MIN, WAIT_SECONDS_MAX};
use super::tag::Op;

/// The group id of the one provided-buffer ring.
pub(super) const RECV_GROUP: u16 = 0;

/// `SO_LINGER` of zero seconds: close sends RST and drops what is unsent (RFC 9293 §3.10.5, ABORT).
static RESET_ON_CLOSE: libc::linger = libc::linger {
    l_onoff: 1,
    l_linger: 0,
};

/// One entry, or two that the kernel must run one after the other.
struct Batch(Entry, Option<Entry>);

/// The ring itself.
pub(super) struct Ring {
    uring: IoUring,
    backlog: VecDeque<Batch>,
    enter_flags: EnterFlags,
    alarms: Alarms,
    /// In how long the alarm armed last rings, where the kernel reads it.
    alarm_wait: Box<Timespec>,
}

impl Ring {
    /// Makes a ring that belongs to this thread.
    pub(super) fn new(sq_entries: u32, cq_entries: u32) -> io::Result<Self> {
        let sq_entries = sq_entries.clamp(SQ_ENTRIES_MIN, SQ_ENTRIES_MAX);
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(cq_entries.max(2 * sq_entries).clamp(CQ_ENTRIES_MIN, CQ_ENTRIES_MAX))
            .build(sq_entries)?;
        let has = uring.params();
        if !(has.is_feature_nodrop() && has.is_feature_ext_arg() && has.is_feature_skip_cqe_on_success()) {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "io_uring of this kernel is older than Linux 6.1",
            ));
        }
        // A shard asleep in its ring is idle, not waiting for a disk.
        let enter_flags = if has.is_feature_no_iowait() {
            EnterFlags::NO_IOWAIT
        } else {
            EnterFlags::empty()
        };
        Ok(Self {
            uring,
            backlog: VecDeque::new(),
            enter_flags,
            alarms: Alarms::default(),
            alarm_wait: Box::new(Timespec::new()),
        })
    }

    /// The ring's own descriptor.
    pub(super) fn fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }

    /// Makes the table of direct descriptors.
    pub(super) fn register_files(&self, slots: u32) -> io::Result<()> {
        self.uring.submitter().register_files_sparse(slots)
    }

    /// Registers the provided-buffer ring.
    ///
    /// # Safety
    /// `address` is page-aligned and holds `entries` (a power of two) ring entries until this ring is gone.
    pub(super) unsafe fn register_buffers(&self, address: u64, entries: u16) -> io::Result<()> {
        // SAFETY: forwarded to the caller.
        unsafe {
            self.uring
                .submitter()
                .register_buf_ring_with_flags(address, entries, RECV_GROUP, 0)
        }
    }

    /// Accepts connections into free slots until cancelled.
    pub(super) fn accept_multishot(&mut self, listener: RawFd) {
        self.push(
            opcode::AcceptMulti::new(Fd(listener)).allocate_file_index(true).build(),
            Op::Accept,
        );
    }

    /// Accepts one connection into a free slot.
    pub(super) fn accept(&mut self, listener: RawFd) {
        let accept = opcode::Accept::new(Fd(listener), ptr::null_mut(), ptr::null_mut());
        let auto = DestinationSlot::auto_target();
        self.push(accept.file_index(Some(auto)).build(), Op::Accept);
    }

    /// Receives what comes next into a provided buffer.
    pub(super) fn recv(&mut self, slot: u32, op: Op) {
        // Length 0 is that of the buffer.
        let recv = opcode::Recv::new(Fixed(slot), ptr::null_mut(), 0).buf_group(RECV_GROUP);
        self.push(recv.build().flags(Flags::BUFFER_SELECT), op);
    }

    /// Receives into provided buffers, what is there and what comes, until cancelled, end of stream or error.
    pub(super) fn recv_multishot(&mut self, slot: u32, op: Op) {
        self.push(opcode::RecvMulti::new(Fixed(slot), RECV_GROUP).build(), op);
    }

    /// Writes `bytes` to the socket, as many as it takes.
    ///
    /// # Safety
    /// `bytes` stay where they are, unchanged, until the completion came.
    pub(super) unsafe fn send(&mut self, slot: u32, bytes: *const [u8], op: Op) {
        let send = opcode::Send::new(Fixed(slot), bytes.cast(), bytes.len() as u32);
        self.push(send.flags(libc::MSG_NOSIGNAL).build(), op);
    }

    /// Writes `bytes` to the socket now. It is done when [`Self::enter`] has submitted it ([`Self::is_submitted`]), and has a completion
    /// by then only if the socket did not take all: the bytes that it took, or `EAGAIN` for none, or what went wrong.
    ///
    /// # Safety
    /// `bytes` stay where they are, unchanged, until then.
    pub(super) unsafe fn send_quietly(&mut self, slot: u32, bytes: *const [u8], op: Op) {
        let send = opcode::Send::new(Fixed(slot), bytes.cast(), bytes.len() as u32);
        // `MSG_WAITALL` makes less than all a failure, which is not skipped, and `MSG_DONTWAIT` makes it one at once.
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL;
        self.push(send.flags(flags).build().flags(Flags::SKIP_SUCCESS), op);
    }

    /// Ends the write side.
    pub(super) fn shutdown_write(&mut self, slot: u32, op: Op) {
        self.push(opcode::Shutdown::new(Fixed(slot), libc::SHUT_WR).build(), op);
    }

    /// Takes the socket out of the table.
    pub(super) fn close(&mut self, slot: u32, op: Op) {
        self.push(opcode::Close::new(Fixed(slot)).build(), op);
    }

    /// Takes the socket out of the table and resets the connection.
    pub(super) fn close_with_reset(&mut self, slot: u32, op: Op) {
        let value = ptr::from_ref(&RESET_ON_CLOSE);
        let (level, name) = (libc::SOL_SOCKET as u32, libc::SO_LINGER as u32);
        let option = opcode::SetSockOpt::new(
            Fixed(slot),
            level,
            name,
            value.cast(),
            size_of_val(&RESET_ON_CLOSE) as u32,
        );
        let option = option
            .build()
            .flags(Flags::IO_HARDLINK | Flags::SKIP_SUCCESS)
            .user_data(Op::Ignored.encode());
        let close = opcode::Close::new(Fixed(slot)).build().user_data(op.encode());
        self.push_batch(Batch(option, Some(close)));
    }

    /// Cancels the operation submitted as `op`.
    pub(super) fn cancel(&mut self, op: Op) {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(op.encode())).build();
        self.push(cancel.flags(Flags::SKIP_SUCCESS), Op::Ignored);
    }

    /// Cancels every operation submitted as `op`.
    pub(super) fn cancel_every(&mut self, op: Op) {
        let cancel = opcode::AsyncCancel2::new(CancelBuilder::user_data(op.encode()).all()).build();
        self.push(cancel.flags(Flags::SKIP_SUCCESS), Op::Ignored);
    }

    /// Sends the socket to a free slot of another ring, where it arrives with `token`.
    pub(super) fn hand_over(&mut self, slot: u32, target_ring: RawFd, token: u64, op: Op) {
        let target_data = Op::HandedOver(token).encode();
        let auto = DestinationSlot::auto_target();
        self.push(
            opcode::MsgRingSendFd::new(Fd(target_ring), Fixed(slot), auto, target_data).build(),
            op,
        );
    }

    /// Wakes another ring.
    pub(super) fn wake(&mut self, target_ring: RawFd) {
        let wake = opcode::MsgRingData::new(Fd(target_ring), 0, Op::WokenByRing.encode(), None).build();
        self.push(wake.flags(Flags::SKIP_SUCCESS), Op::Ignored);
    }

    /// Reports every signal of an eventfd, until the kernel says that it does no longer.
    pub(super) fn poll_eventfd(&mut self, eventfd: RawFd, op: Op) {
        self.push(
            opcode::PollAdd::new(Fd(eventfd), libc::POLLIN as u32)
                .multi(true)
                .build(),
            op,
        );
    }

    /// Writes `bytes` to a file.
    ///
    /// # Safety
    /// `bytes` stay where they are, unchanged, until the completion came.
    pub(super) unsafe fn write_file(&mut self, file: RawFd, bytes: *const [u8], offset: u64, op: Op) {
        self.push(
            opcode::Write::new(Fd(file), bytes.cast(), bytes.len() as u32)
                .offset(offset)
                .build(),
            op,
        );
    }

    /// Signals this eventfd whenever the kernel has a completion, posted or yet to be posted.
    pub(super) fn register_eventfd(&self, eventfd: RawFd) -> io::Result<()> {
        self.uring.submitter().register_eventfd(eventfd)
    }

    /// Whether no completion waits to be taken.
    pub(super) fn is_reaped(&mut self) -> bool {
        let overflow = self.uring.submission().cq_overflow();
        !overflow && self.uring.completion().is_empty()
    }

    /// Whether the kernel has everything that was queued.
    pub(super) fn is_submitted(&mut self) -> bool {
        self.backlog.is_empty() && self.uring.submission().is_empty()
    }

    /// Whether [`Self::enter`] or [`Self::reap`] would do something.
    pub(super) fn has_work(&mut self) -> bool {
        let queue = self.uring.submission();
        let enters = !queue.is_empty() || queue.taskrun() || queue.cq_overflow();
        drop(queue);
        enters || !self.backlog.is_empty() || !self.uring.completion().is_empty()
    }

    /// Submits everything, lets the kernel post its completions and waits for one, at most `wait` and
    /// `SLEEP_TOLERANCE`; `None`: no wait, and no system call when there is nothing to do.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<()> {
        self.drain_backlog();
        if let Some(wait) = wait.filter(|_| self.backlog.is_empty()) {
            self.arm(wait.min(Duration::from_secs(WAIT_SECONDS_MAX)));
        }
        let queue = self.uring.submission();
        let queued = queue.len() as u32;
        let idle = queued == 0 && !queue.taskrun() && !queue.cq_overflow();
        drop(queue);
        // The flag makes the kernel post what it deferred even when nothing is waited for.
        let (wanted, flags) = match wait {
            Some(_) if self.backlog.is_empty() => (1, EnterFlags::GETEVENTS | self.enter_flags),
            _ if idle => return Ok(()),
            _ => (0, EnterFlags::GETEVENTS),
        };
        // SAFETY: no argument is passed.
        let entered = unsafe {
            let submitter = self.uring.submitter();
            submitter.enter::<libc::sigset_t>(queued, wanted, flags.bits(), None)
        };
        match entered {
            Ok(_) => Ok(()),
            // A signal came, or the kernel wants its completions reaped or its memory back first.
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Sees to it that a sleep ends within `wait` and `SLEEP_TOLERANCE`.
    fn arm(&mut self, wait: Duration) {
        if let Some(number) = self.alarms.arm(monotonic(), wait) {
            // One that the kernel has not read yet gets the new time with it: it is shorter, or the old one has passed.
            *self.alarm_wait = Timespec::from(wait);
            let timeout = opcode::Timeout::new(&raw const *self.alarm_wait);
            self.push(timeout.build(), Op::Alarm(number));
        }
    }

    /// This alarm rang, or could not be armed.
    pub(super) fn rang(&mut self, number: u32) {
        self.alarms.rang(number);
    }

    /// Copies completions out of the ring; an empty slice when there are none.
    pub(super) fn reap<'a>(
        &mut self,
        batch: &'a mut [MaybeUninit<cqueue::Entry>; CQE_BATCH],
    ) -> &'a mut [cqueue::Entry] {
        self.uring.completion().fill(batch)
    }

    /// Cancels everything in flight and returns when the kernel let go of it.
    pub(super) fn cancel_all(&mut self) -> io::Result<()> {
        self.uring.submitter().register_sync_cancel(None, CancelBuilder::any())
    }

    fn push(&mut self, entry: Entry, op: Op) {
        self.push_batch(Batch(entry.user_data(op.encode()), None));
    }

    fn push_batch(&mut self, batch: Batch) {
        if !self.backlog.is_empty() || !self.try_push(&batch) {
            self.backlog.push_back(batch);
        }
    }

    fn drain_backlog(&mut self) {
        while let Some(batch) = self.backlog.pop_front() {
            if !self.try_push(&batch) {
                self.backlog.push_front(batch);
                break;
            }
        }
    }

    /// Queues a batch, submitting once when there is no room. Linked entries go into one submission, else the kernel would
    /// break the link.
    fn try_push(&mut self, batch: &Batch) -> bool {
        let needed = 1 + usize::from(batch.1.is_some());
        let room = |uring: &mut IoUring| {
            let queue = uring.submission();
            queue.capacity() - queue.len()
        };
        if room(&mut self.uring) < needed {
            // An error shows as "still no room": the next turn meets it again and reports it.
            let _ = self.uring.submit();
            if room(&mut self.uring) < needed {
                return false;
            }
        }
        let mut queue = self.uring.submission();
        for entry in [Some(&batch.0), batch.1.as_ref()].into_iter().flatten() {
            // SAFETY: what an entry points to is static, this ring's own (`arm`), or its caller promised that it stays (`send`,
            // `send_quietly`, `write_file`, the only operations with a pointer into memory that could go away).
            unsafe { queue.push(entry) }.expect("room was checked");
        }
        true
    }
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}
