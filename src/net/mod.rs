//! The net ring: sockets, sleep, wake-ups and the journal's writes on one `io_uring` per shard.
//!
//! Owns: the ring, its private table of direct descriptors, the provided receive buffers, the pool of output buffers, the
//! listener. Knows nothing of HTTP, WebSocket, drivers or the journal's format.
//!
//! The life of a turn: the owner calls [`Net::turn`], which submits what was queued, sleeps, and reaps every completion
//! into [`NetEvent`]s; then the owner acts on the events. Nothing is called back, nothing is written between turns.
//!
//! Must hold:
//! - A [`ConnId`] names one occupant of a slot. A stale one does nothing; it never reaches another connection.
//! - Per connection: at most one receive and one send in flight; none when its slot is closed.
//! - After [`NetEvent::Closed`] no event names that connection again.
//! - Memory that the kernel reads or writes stays where it is until the completion came.
//! - An idle connection owns no buffer and 16 bytes of the slot table.

pub mod limits;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::RawFd;
use std::time::Duration;

use crate::aligned::AlignedBuffer;

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

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            sq_entries: 4096,
            cq_entries: 16_384,
            fixed_files: limits::FIXED_FILES_MAX,
            recv_buffers: 1024,
            recv_buffer_bytes: 4096,
            output_bytes_max: 1 << 20,
        }
    }
}

/// Names a connection of one ring. Never reused by another connection (until a slot had 2^32 occupants).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    /// The slot, 0 .. [`Net::slots`]: an index for the owner's own table of connections. Two connections never have the
    /// same slot at once.
    pub fn slot(self) -> u32 {
        self.slot
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
    len: u32,
}

impl RecvBuffer {
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
    /// All output was written to the socket.
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

/// Wakes a ring from any thread. Cheap to clone; calls that come before the ring looked are one wake-up.
#[derive(Clone, Debug)]
pub struct Waker {}

impl Waker {
    /// Makes the ring's current or next sleep end with [`NetEvent::Woken`]. What was written before this call is seen by
    /// the owner after that event.
    pub fn wake(&self) {
        unimplemented!()
    }
}

/// Binds a listener with `SO_REUSEPORT`, `SO_REUSEADDR` and `TCP_NODELAY` (which accepted sockets inherit).
///
/// # Errors
/// Whatever `socket`, `bind` and `listen` answer.
pub fn bind_reuseport(addr: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let _ = (addr, backlog);
    unimplemented!()
}

/// The ring of one shard. Belongs to the thread that made it.
pub struct Net {}

#[allow(unused_variables, clippy::needless_pass_by_value, clippy::unused_self)]
impl Net {
    /// Makes the ring on this thread.
    ///
    /// # Errors
    /// When the kernel has no `io_uring`, lacks a feature (Linux 6.1 is the oldest that serves), or refuses the sizes.
    pub fn new(config: &NetConfig) -> io::Result<Self> {
        unimplemented!()
    }
    /// For other rings' `hand_over` and `wake_ring`. Valid while this ring lives.
    pub fn ring_fd(&self) -> RawFd {
        unimplemented!()
    }
    /// A handle for other threads that have no ring.
    pub fn waker(&self) -> Waker {
        unimplemented!()
    }
    /// Slots of the table after all bounds: most connections at once.
    pub fn slots(&self) -> u32 {
        unimplemented!()
    }
    /// Slots without a connection.
    pub fn slots_free(&self) -> u32 {
        unimplemented!()
    }
    /// Connections, those being closed included.
    pub fn connections(&self) -> u32 {
        unimplemented!()
    }

    /// Takes a bound listener and accepts from it. One per ring.
    pub fn listen(&mut self, listener: TcpListener) {
        unimplemented!()
    }
    /// Ends accepting for good and closes the listener (its backlog is reset).
    pub fn stop_accepting(&mut self) {
        unimplemented!()
    }
    /// Accepts no more until `resume_accepting`; new connections wait in the listener's backlog.
    pub fn pause_accepting(&mut self) {
        unimplemented!()
    }
    /// Undoes `pause_accepting`.
    pub fn resume_accepting(&mut self) {
        unimplemented!()
    }

    /// Reads from the connection until `pause_recv`, end of stream or an error.
    pub fn start_recv(&mut self, conn: ConnId) {
        unimplemented!()
    }
    /// Back-pressure: reads no more. What the kernel already took from the socket is still delivered.
    pub fn pause_recv(&mut self, conn: ConnId) {
        unimplemented!()
    }
    /// The bytes of a received buffer, to be changed in place.
    pub fn bytes_mut(&mut self, buffer: &RecvBuffer) -> &mut [u8] {
        unimplemented!()
    }
    /// Gives a received buffer back.
    pub fn recycle(&mut self, buffer: RecvBuffer) {
        unimplemented!()
    }

    /// Where to append output; sent with the next turn. `None` when the connection is gone, closing, or leaving.
    pub fn output(&mut self, conn: ConnId) -> Option<&mut Vec<u8>> {
        unimplemented!()
    }
    /// Bytes queued and not yet known to be in the socket, in-flight ones included.
    pub fn output_len(&self, conn: ConnId) -> usize {
        unimplemented!()
    }
    /// Bytes left until `output_bytes_max`.
    pub fn output_room(&self, conn: ConnId) -> usize {
        unimplemented!()
    }
    /// Closes once all output is written. `output` is `None` from now on; `Closed` follows.
    pub fn close_after_output(&mut self, conn: ConnId) {
        unimplemented!()
    }
    /// Sends FIN once all output is written; receiving goes on. `output` is `None` from now on.
    pub fn shutdown_write_after_output(&mut self, conn: ConnId) {
        unimplemented!()
    }
    /// Drops unsent output and resets the connection (RST). `Closed` follows.
    pub fn abort(&mut self, conn: ConnId) {
        unimplemented!()
    }

    /// Hands the socket to another ring, see `HandOverReady`. Output queued so far is written first.
    /// Returns false (nothing is done) when the connection is gone, closing or already leaving.
    pub fn hand_over(&mut self, conn: ConnId, target_ring_fd: RawFd, token: u64) -> bool {
        unimplemented!()
    }
    /// Keeps a connection whose `HandOverReady` was just delivered, or that is not ready yet. False: too late.
    pub fn cancel_hand_over(&mut self, conn: ConnId) -> bool {
        unimplemented!()
    }
    /// Wakes another ring (`NetEvent::Woken` there) with the next turn; calls for the same ring in one turn are one.
    pub fn wake_ring(&mut self, target_ring_fd: RawFd) {
        unimplemented!()
    }

    /// Writes the first `len` bytes of `buffer` at `offset`; `FileWritten` returns the buffer. `file` must stay open until
    /// then. Short writes are continued.
    pub fn write_file(&mut self, token: u64, file: RawFd, offset: u64, buffer: AlignedBuffer, len: usize) {
        unimplemented!()
    }

    /// Submits what is queued, sleeps and reaps everything. `None`: do not sleep; `Some`: at most so long. Events
    /// are appended to `events`.
    ///
    /// # Errors
    /// Only what the kernel should never answer: the ring is unusable then.
    pub fn turn(&mut self, wait: Option<Duration>, events: &mut Vec<NetEvent>) -> io::Result<()> {
        unimplemented!()
    }
}
