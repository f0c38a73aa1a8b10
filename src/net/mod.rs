//! The net ring: sockets, sleep, wake-ups and the journal's writes on an `io_uring`. A shard has one, or several
//! (`shard/rings.rs`).
//!
//! Owns: the ring, its private table of direct descriptors, the provided receive buffers, the pool of output buffers, the
//! listener. Must never: know of HTTP, WebSocket, drivers or the journal's format, or call back.
//!
//! The life of a turn: the owner calls [`Net::turn`], which submits what was queued, sleeps, and reaps every completion
//! into [`NetEvent`]s; then the owner acts on the events. Nothing is written between turns.
//!
//! Must hold:
//! - A [`ConnId`] names one occupant of a slot. A stale one does nothing; it never reaches another connection.
//! - Per connection: at most one receive and one send in flight; none when its slot is closed.
//! - After [`NetEvent::Closed`] no event names that connection again.
//! - Memory that the kernel reads or writes stays where it is until the completion came, or is known not to come.
//! - An idle connection owns no buffer and 16 bytes of the slot table.

pub mod limits;

mod alarms;
mod conn;
mod files;
mod hand_over;
mod listen;
mod output;
mod receive;
mod recv_ring;
mod ring;
mod slots;
mod tag;
mod turn;
mod waker;

use std::collections::VecDeque;
use std::io;
use std::iter::Sum;
use std::num::NonZeroU32;
use std::ops::Add;
use std::os::fd::RawFd;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::aligned::AlignedBuffer;
use files::FileWrites;
use hand_over::HandOvers;
use listen::Acceptor;
use output::Outputs;
use recv_ring::RecvRing;
use ring::Ring;
use slots::Slots;
use tag::Op;

pub use listen::bind_reuseport;
pub use waker::Waker;

/// Sizes of one ring. Values out of range are brought into it (see [`limits`]).
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Entries of the submission queue; a full one is submitted early, so this bounds batching, not work.
    pub sq_entries: u32,
    /// Entries of the completion queue, at least [`limits::CQ_ENTRIES_MIN`].
    pub cq_entries: u32,
    /// Slots of the fixed-file table, one per connection; also bounded by `RLIMIT_NOFILE` (soft).
    pub fixed_files: u32,
    /// Receive buffers of the ring, rounded up to a power of two.
    pub recv_buffers: u16,
    /// Bytes of a receive buffer: the most that one [`NetEvent::Received`] carries.
    pub recv_buffer_bytes: u32,
    /// Bytes queued on one connection above which [`Net::output_room`] is 0. The ring does not enforce it.
    pub output_bytes_max: usize,
}

impl NetConfig {
    /// Slots of the table that this process may have for it.
    pub fn slots(&self) -> u32 {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        u64::from(self.fixed_files.clamp(1, limits::FIXED_FILES_MAX)).min(limit) as u32
    }
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            sq_entries: 4096,
            cq_entries: 16_384,
            fixed_files: 1 << 16,
            recv_buffers: 1024,
            recv_buffer_bytes: 4096,
            output_bytes_max: 1 << 20,
        }
    }
}

/// Names a connection of one ring. Never reused by another connection (until a slot had 2^32 occupants).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    /// The slot plus one: tables of a million rows hold an `Option<ConnId>` in eight bytes.
    slot_plus_one: NonZeroU32,
    generation: u32,
}

const _: () = assert!(size_of::<Option<ConnId>>() == 8);

impl ConnId {
    /// For a ring of another kind, or an owner of several rings, which names its own connections.
    pub const fn new(slot: u32, generation: u32) -> Self {
        Self {
            slot_plus_one: NonZeroU32::MIN.saturating_add(slot),
            generation,
        }
    }

    /// The slot, 0 .. [`Net::slots`]: an index for the owner's own table of connections. Two connections never have the
    /// same slot at once.
    pub const fn slot(self) -> u32 {
        self.slot_plus_one.get() - 1
    }

    /// Which occupant of the slot this is.
    pub fn generation(self) -> u32 {
        self.generation
    }
}

/// Received bytes, lent by the ring's buffer pool. Read them with [`Net::bytes_mut`]; give them back with
/// [`Net::recycle`], or the pool runs dry.
#[derive(Debug)]
#[must_use = "a receive buffer must be given back with Net::recycle"]
pub struct RecvBuffer {
    id: u16,
    ring: u16,
    len: u32,
}

impl RecvBuffer {
    /// For a ring of another kind, which knows its own buffers by `id`.
    pub const fn new(id: u16, len: u32) -> Self {
        Self { id, ring: 0, len }
    }

    /// The same buffer, as that of the owner's ring of this number, for an owner of several.
    pub const fn of_ring(self, ring: u16) -> Self {
        Self { ring, ..self }
    }

    /// Which of its owner's rings it belongs to; 0 until [`Self::of_ring`].
    pub const fn ring(&self) -> u16 {
        self.ring
    }

    /// Which buffer of its ring.
    pub const fn id(&self) -> u16 {
        self.id
    }

    /// Bytes received, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.len as usize
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloseCause {
    /// The owner asked: [`Net::close_after_output`] or [`Net::abort`].
    Local,
    /// The socket failed with this errno, for example `ECONNRESET`.
    Error(i32),
}

/// What happened on the ring, in the order in which the kernel reported it.
#[derive(Debug)]
pub enum NetEvent {
    /// The listener took a connection. Nothing is read until [`Net::start_recv`].
    Accepted {
        /// The new connection.
        conn: ConnId,
    },
    /// A socket arrived from another ring. Nothing is read until [`Net::start_recv`].
    HandedOver {
        /// The token that the source gave to [`Net::hand_over`].
        token: u64,
        /// The connection as this ring names it.
        conn: ConnId,
    },
    /// Source side: receiving and sending stopped, every byte taken from the socket was delivered before this event. The
    /// socket leaves with the next turn: post now what must travel with it, or call [`Net::cancel_hand_over`].
    /// Afterwards either nothing more is heard of `conn` (it left) or [`NetEvent::HandOverFailed`].
    HandOverReady {
        /// The connection about to leave.
        conn: ConnId,
        /// Its token.
        token: u64,
    },
    /// Source side: the target did not take the socket (`ENFILE`: no free slot; `EBADFD`, `EOWNERDEAD`: no such ring). The
    /// connection is still this ring's, with receiving paused.
    HandOverFailed {
        /// The token of the attempt.
        token: u64,
        /// The connection that stayed.
        conn: ConnId,
        /// Why.
        errno: i32,
    },
    /// Bytes arrived.
    Received {
        /// From this connection.
        conn: ConnId,
        /// To be given back with [`Net::recycle`].
        buffer: RecvBuffer,
    },
    /// The peer sends no more. It may still wait for its answer (half-closed).
    PeerClosed {
        /// The connection, still open for output.
        conn: ConnId,
    },
    /// All output was written to the socket. For one of a crowd ([`Net::join_crowd`]) it comes only if [`Net::tell_drained`] asked for it.
    OutputDrained {
        /// The connection, which owns no buffer now.
        conn: ConnId,
    },
    /// The connection is gone: the last event about `conn`.
    Closed {
        /// What it was.
        conn: ConnId,
        /// Why it ended.
        cause: CloseCause,
    },
    /// A [`Waker`] or another ring's [`Net::wake_ring`] called, once or more since the last turn.
    Woken,
    /// A write of [`Net::write_file`] ended.
    FileWritten {
        /// The caller's token.
        token: u64,
        /// The buffer, unchanged.
        buffer: AlignedBuffer,
        /// Bytes written, always the length asked for, or the error.
        result: io::Result<usize>,
    },
}

/// What was counted since it was last taken.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NetCounts {
    /// Bytes that the kernel took for sockets.
    pub bytes_sent: u64,
    /// Receives that found no buffer while none was kept from the kernel, and are tried again.
    pub recv_buffers_exhausted: u64,
}

impl Add for NetCounts {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            bytes_sent: self.bytes_sent + more.bytes_sent,
            recv_buffers_exhausted: self.recv_buffers_exhausted + more.recv_buffers_exhausted,
        }
    }
}

/// Memory of a ring, in bytes; see [`Net::bytes`].
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct NetBytes {
    /// The table of connections.
    pub slots: usize,
    /// Entries of connections with output, and buffers that wait for the next one; those in use are not counted.
    pub output: usize,
    /// Receive buffers: mapped whole, taken from the machine as they are used.
    pub recv: usize,
}

impl Sum for NetBytes {
    fn sum<I: Iterator<Item = Self>>(bytes: I) -> Self {
        bytes.fold(Self::default(), |sum, one| Self {
            slots: sum.slots + one.slots,
            output: sum.output + one.output,
            recv: sum.recv + one.recv,
        })
    }
}

/// A ring of a shard. Belongs to the thread that made it.
///
/// Dropping it waits for file writes in flight, cancels everything else and closes all connections.
pub struct Net {
    // First, so that the ring is gone before the memory it uses.
    ring: Ring,
    recv_ring: RecvRing,
    slots: Slots,
    outputs: Outputs,
    files: FileWrites,
    hand_overs: HandOvers,
    acceptor: Acceptor,
    waker: Waker,
    /// What other rings of the same owner signal.
    signals: Option<Waker>,
    /// One of them did so.
    signalled: bool,
    /// A wake-up came that the owner was not told of.
    woken: bool,
    /// Connections whose receive is over and whose next one is not armed yet.
    unarmed: Vec<ConnId>,
    /// Connections with output that no send is in flight for.
    dirty: Vec<ConnId>,
    /// Connections that were sent to quietly with this turn.
    quiet: Vec<ConnId>,
    /// Connections whose receive found no buffer, in that order.
    starved: VecDeque<ConnId>,
    /// Connections that became quiet and are to be announced.
    ready: Vec<ConnId>,
    /// Connections announced, to be sent with the next turn.
    departures: Vec<ConnId>,
    /// Rings to wake with the next turn.
    wakes: Vec<RawFd>,
    output_bytes_max: usize,
    counts: NetCounts,
}

impl Net {
    /// Makes the ring on this thread.
    ///
    /// # Errors
    /// When the kernel has no `io_uring` (`ENOSYS`; `EPERM`: `kernel.io_uring_disabled`), lacks a feature (Linux 6.1 is
    /// the oldest that serves), or has no memory for the sizes asked for.
    pub fn new(config: &NetConfig) -> io::Result<Self> {
        let slots_max = config.slots();
        let mut ring = Ring::new(config.sq_entries, config.cq_entries)?;
        ring.register_files(slots_max)?;
        let recv_ring = RecvRing::new(&ring, config.recv_buffers, config.recv_buffer_bytes)?;
        let waker = Waker::new()?;
        ring.poll_eventfd(waker.fd(), Op::WokenByThread);
        Ok(Self {
            ring,
            recv_ring,
            slots: Slots::new(slots_max),
            outputs: Outputs::default(),
            files: FileWrites::default(),
            hand_overs: HandOvers::default(),
            acceptor: Acceptor::default(),
            waker,
            signals: None,
            signalled: false,
            woken: false,
            unarmed: Vec::new(),
            dirty: Vec::new(),
            quiet: Vec::new(),
            starved: VecDeque::new(),
            ready: Vec::new(),
            departures: Vec::new(),
            wakes: Vec::new(),
            output_bytes_max: config.output_bytes_max,
            counts: NetCounts::default(),
        })
    }

    /// This ring's descriptor, for other rings' [`Self::hand_over`] and [`Self::wake_ring`]. Valid while this ring lives.
    pub fn ring_fd(&self) -> RawFd {
        self.ring.fd()
    }

    /// A handle that wakes this ring, for threads that have no ring.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Ends the sleep of `sleeper`, another ring of the same owner, whenever something happens on this one, and whenever this
    /// one reaps. There is no event of it.
    ///
    /// # Errors
    /// When this ring already signals somebody (`EBUSY`), or there is no descriptor left.
    pub fn signal(&self, sleeper: &mut Net) -> io::Result<()> {
        let signals = if let Some(signals) = &sleeper.signals {
            signals.clone()
        } else {
            let signals = Waker::new()?;
            sleeper.ring.poll_eventfd(signals.fd(), Op::Signalled);
            sleeper.signals.insert(signals).clone()
        };
        self.ring.register_eventfd(signals.fd())
    }

    /// Whether another ring signalled ([`Self::signal`]) since the last call.
    pub fn take_signalled(&mut self) -> bool {
        std::mem::take(&mut self.signalled)
    }

    /// Whether the kernel has something for this ring, or is to take something of it.
    #[inline]
    pub fn has_work(&mut self) -> bool {
        self.ring.has_work()
    }

    /// How much of `wait` the owner may sleep in another ring without a turn of this one; `None`: not at all.
    pub fn may_sleep(&mut self, wait: Option<Duration>) -> Option<Duration> {
        let has_work = !self.dirty.is_empty()
            || !self.quiet.is_empty()
            || !self.unarmed.is_empty()
            || !self.ready.is_empty()
            || !self.departures.is_empty()
            || !self.wakes.is_empty()
            || (!self.starved.is_empty() && self.recv_ring.available() > 0)
            || self.acceptor.is_due()
            || self.ring.has_work();
        let wait = wait.filter(|_| !has_work)?;
        Some(self.acceptor.retry_after().map_or(wait, |retry| retry.min(wait)))
    }

    /// Slots of the table after all bounds: most connections at once.
    pub fn slots(&self) -> u32 {
        self.slots.slots_max()
    }

    /// Slots without a connection.
    pub fn slots_free(&self) -> u32 {
        self.slots.free()
    }

    /// Connections, those being closed included.
    pub fn connections(&self) -> u32 {
        self.slots.occupied()
    }

    /// What was counted since the call before.
    pub fn take_counts(&mut self) -> NetCounts {
        std::mem::take(&mut self.counts)
    }

    /// Bytes that the table of connections takes, as far as it was used, and those of output and receive buffers.
    pub fn bytes(&self) -> NetBytes {
        NetBytes {
            slots: self.slots.bytes(),
            output: self.outputs.bytes(),
            recv: self.recv_ring.bytes(),
        }
    }

    /// Writes the first `len` bytes of `buffer` to `file` at `offset`; [`NetEvent::FileWritten`] returns the buffer. Short
    /// writes are continued. `file` must stay open until then. For `O_DIRECT`, `len` and `offset` are multiples of the
    /// block size (the buffer is aligned by its type); the order of several writes in flight is the kernel's choice.
    ///
    /// # Panics
    /// When `len` is 0 or more than the buffer holds.
    pub fn write_file(&mut self, token: u64, file: RawFd, offset: u64, buffer: AlignedBuffer, len: usize) {
        self.files.start(&mut self.ring, token, file, offset, buffer, len);
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // What the journal gave to the kernel must reach the file as it is, so its buffers stay until then.
        let mut events = Vec::new();
        while !self.files.is_empty() && self.ring.enter(Some(Duration::from_secs(1))).is_ok() {
            self.reap(&mut events);
        }
        self.files.forget();
        // `ENOENT` says that nothing was in flight; on any other error the ring's own end cancels.
        let _ = self.ring.cancel_all();
        let _ = self.ring.enter(None);
    }
}
