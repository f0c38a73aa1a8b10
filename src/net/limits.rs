//! Every bound of the net ring, named, with the relations between them asserted at compile time.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Fixed-file slots that the kernel allows in one ring (`IORING_MAX_FIXED_FILES`, 2^20).
pub const FIXED_FILES_MAX: u32 = 1 << 20;

/// Fewest entries of the completion queue: one burst of accepts and answers of a busy shard, so that the kernel's
/// overflow list (slow, allocates) stays empty.
pub const CQ_ENTRIES_MIN: u32 = 8192;

/// Most entries of the completion queue that the kernel allows (`IORING_MAX_CQ_ENTRIES`).
pub const CQ_ENTRIES_MAX: u32 = 65_536;

/// Most entries of the submission queue that the kernel allows (`IORING_MAX_ENTRIES`).
pub const SQ_ENTRIES_MAX: u32 = 32_768;

/// Fewest entries of the submission queue: a linked pair must always fit.
pub const SQ_ENTRIES_MIN: u32 = 8;

/// Most buffers of one provided-buffer ring (the kernel's limit, 2^15).
pub const RECV_BUFFERS_MAX: u16 = 1 << 15;

/// Bytes of the smallest receive buffer that still makes sense: one small WebSocket frame with its TCP segment.
pub const RECV_BUFFER_BYTES_MIN: u32 = 256;

/// Bytes of the largest receive buffer; the memory of a shard is this times the number of buffers.
pub const RECV_BUFFER_BYTES_MAX: u32 = 1 << 20;

/// Bits of a hand-over token that travel through the kernel; the other 8 of a `user_data` name the operation.
pub const HAND_OVER_TOKEN_BITS: u32 = 56;

/// Largest token of [`Net::hand_over`](super::Net::hand_over).
pub const HAND_OVER_TOKEN_MAX: u64 = (1 << HAND_OVER_TOKEN_BITS) - 1;

/// Bits of a slot number inside a `user_data`.
pub const SLOT_BITS: u32 = 24;

/// Bits of a generation inside a `user_data`.
pub const GENERATION_BITS: u32 = 32;

/// Bytes that one send asks the kernel to write; more is queued behind it. The kernel may write less, which shows that
/// a slow peer reads at all.
pub const SEND_BYTES_MAX: usize = 256 << 10;

/// Bytes of a send to one of a crowd that completes as it is submitted and says nothing when all went well: some messages, which a
/// socket that is read takes whole.
pub const SEND_BYTES_QUIET_MAX: usize = 4 << 10;

/// Bytes that a fresh output buffer starts with: an offer and its neighbours without growing.
pub const OUTPUT_BYTES_INITIAL: usize = 2 << 10;

/// Bytes above which an emptied output buffer is given back to the allocator rather than to the pool.
pub const OUTPUT_BYTES_KEPT: usize = 64 << 10;

/// Bytes that all idle output buffers of a ring may hold together.
pub const OUTPUT_POOL_BYTES_MAX: usize = 4 << 20;

/// Sweeps of [`Net::sweep_output`](super::Net::sweep_output) without a byte taken after which a socket is stalled.
pub const OUTPUT_SWEEPS: u8 = 4;

/// Receive buffers that the kernel has at the beginning of a turn, at least. Those that came back last are offered first: the fewer
/// take turns, the warmer they are.
pub const RECV_BUFFERS_OFFERED_MIN: u16 = 128;

/// Completions copied out of the ring at a time.
pub const CQE_BATCH: usize = 256;

/// Most connections that a multishot accept may take before it is seen to have taken many: a listener's backlog, and as many again that come while
/// it is emptied.
pub const ACCEPT_BURST_MAX: u32 = 2 * LISTEN_BACKLOG as u32;

/// Connections that wait in a listener to be accepted, at most; `net.core.somaxconn` bounds it, too.
pub const LISTEN_BACKLOG: i32 = 4096;

/// Most single accepts in flight.
pub const SINGLE_ACCEPTS_MAX: u32 = 64;

/// One in this many slots is kept from accept, for sockets handed over and for the burst between "stop" and its
/// effect.
pub const ACCEPT_RESERVE_DIVISOR: u32 = 32;

/// Most slots kept from accept.
pub const ACCEPT_RESERVE_MAX: u32 = 512;

const _: () = assert!(SINGLE_ACCEPTS_MAX < ACCEPT_RESERVE_MAX && ACCEPT_RESERVE_MAX < ACCEPT_BURST_MAX);

/// Milliseconds until accept is tried again after the kernel lacked a resource and no slot was freed meanwhile.
pub const ACCEPT_RETRY_MS: u64 = 100;

/// Seconds that one turn sleeps at most; longer waits return early, which the caller cannot tell from a wake-up.
pub const WAIT_SECONDS_MAX: u64 = 3600;

/// How much longer than asked for a sleep may be: a timeout for about the same time that is armed already serves.
pub const SLEEP_TOLERANCE: Duration = Duration::from_micros(100);

const _: () = assert!(FIXED_FILES_MAX <= 1 << SLOT_BITS, "a slot number fits its bits");
const _: () = assert!(
    SLOT_BITS + GENERATION_BITS == HAND_OVER_TOKEN_BITS,
    "a connection and a token share a tag's bits"
);
const _: () = assert!(
    HAND_OVER_TOKEN_BITS + 8 == u64::BITS,
    "an operation and its argument fill a user_data"
);
const _: () = assert!(CQ_ENTRIES_MIN.is_power_of_two() && CQ_ENTRIES_MIN <= CQ_ENTRIES_MAX);
const _: () = assert!(
    SQ_ENTRIES_MIN >= 2 && SQ_ENTRIES_MAX * 2 <= CQ_ENTRIES_MAX,
    "CQ holds two SQs"
);
const _: () = assert!(OUTPUT_BYTES_INITIAL <= OUTPUT_BYTES_KEPT && OUTPUT_BYTES_KEPT <= OUTPUT_POOL_BYTES_MAX);
const _: () = assert!(
    SEND_BYTES_MAX <= u32::MAX as usize,
    "a length fits the submission entry"
);
const _: () = assert!(RECV_BUFFER_BYTES_MIN <= RECV_BUFFER_BYTES_MAX);
