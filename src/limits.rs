//! Every bound has a name. Those of the contract are in [`wire`], those of the kernel's rings in [`net`], those of the
//! store in [`store`], ranges of settings in `config/settings.rs`; what the node adds stands here, with assertions that
//! relate them all.
#![forbid(unsafe_code)]

pub use crate::cold::port as store;
pub use crate::fsm::driver::HEARTBEATS_MISSED_MAX;
pub use crate::fsm::ids::ID_LEN_MAX;
pub use crate::net::limits as net;
pub use crate::wire::limits as wire;

// ---- the contract's times ----------------------------------------------------------------------------------------

/// Least jittered `retry_after_ms` of a draining close.
pub const RETRY_AFTER_MS_MIN: u64 = 1_000;
/// Most jittered `retry_after_ms` of a draining close.
pub const RETRY_AFTER_MS_MAX: u64 = 10_000;
/// The same while other nodes serve: they are ready at once.
pub const RETRY_ELSEWHERE_MS_MIN: u64 = 20;
/// Most jittered `retry_after_ms` then, unless more drivers than [`RECONNECTS_PER_MS`] would come to the other nodes.
pub const RETRY_ELSEWHERE_MS_MAX: u64 = 200;
/// Drivers that a draining node sends to others in a millisecond, on the whole.
pub const RECONNECTS_PER_MS: u64 = 10;
/// `Retry-After` of 429 and 503, in seconds.
pub const RETRY_AFTER_S: u32 = 1;
/// What SIGTERM adds to `drain_ms` at most before the process is gone, in ms.
pub const DRAIN_GRACE_MS: u64 = 10_000;
/// How long after `drain_ms` drivers are still sent away when there are more than could be in it; then the rest is cut.
pub const DRAIN_LATE_MS: u64 = 5_000;
/// How long the last drivers are written to after they were sent away, however late that was.
pub const DRAIN_LAST_MS: u64 = 500;
/// How long answers and close handshakes may take after the last driver was sent away; who was late with that counts from the end of
/// `drain_ms`. What follows is counted in the same way.
pub const DRAIN_ANSWERS_MS: u64 = 2_000;
/// How long other nodes may take for what a draining node still has, after its last driver was sent away; then its lease is given
/// back, and they take it all the same.
pub const DRAIN_HAND_OVER_MS: u64 = 4_000;
/// How long the store may take to confirm what it was fed; the journal keeps the rest for the next start.
pub const DRAIN_STORE_MS: u64 = 5_000;
/// How long the journal may take; what it could not take (a full disk) was promised to nobody.
pub const DRAIN_JOURNAL_MS: u64 = 7_000;

// ---- shards ------------------------------------------------------------------------------------------------------

/// Shards of a node.
pub const SHARDS_MAX: usize = 1024;
/// Committed records that may wait for the store before new requests are refused.
pub const STORE_BACKLOG_MAX: usize = 200_000;
/// Polls of `GET /v1/events` that wait in a shard; further ones are answered at once with what there is. The store's queue
/// of questions has room for others beside them: a new request must not wait for a reader.
pub const EVENT_POLLS_MAX: usize = 1_024;
/// Ids of requests (and as many of trips) that a shard looks up in the store at once for those who only speak of them.
/// Drivers have no other bound: what they say of ids that nobody knows beyond it is dropped.
pub const LOOKUPS_MAX: usize = 65_536;
/// Most of them, of one shard, that rest until a store that cannot be asked is asked again: so nobody's are crowded out.
pub const LOOKUPS_AGAIN_MAX: usize = LOOKUPS_MAX / 8;
/// Look-ups beyond which one more is not begun for a `POST` whose body is no offer: it is right only for a request that has
/// ended, and whoever sends many of them is to cost nobody else a wait.
pub const MISPOST_LOOKUPS_MAX: usize = 64;
/// Answers, receipts, shifts and trips that a driver may send per second before its socket is read more slowly; a driver
/// at work needs a few per offer.
pub const DRIVER_COMMANDS_PER_S: u32 = 200;
/// How many of them it may send at once.
pub const DRIVER_COMMANDS_BURST: u32 = 1_000;
/// How long a socket is not read before it is looked at again.
pub const DRIVER_PAUSE_MS: u64 = 50;
/// What had arrived when a socket was paused is taken all the same, and costs at most so long a pause.
pub const DRIVER_DEBT_MS_MAX: u32 = 10_000;
/// Submission queue of a shard's net ring.
pub const NET_SQ_ENTRIES: u32 = 1024;
/// Completion queue of a shard's net ring.
pub const NET_CQ_ENTRIES: u32 = 16_384;
/// Most connections in one ring. The kernel looks for what it shall cancel in one of at most 256 chains of a ring, so each close
/// of a driver whose receive waits walks a 256th of the ring's connections: computed, not measured.
pub const RING_CONNECTIONS_MAX: u32 = 1 << 17;
/// Ingress requests admitted from the class queues in one turn.
pub const INGRESS_BATCH_MAX: usize = 256;
/// Most that the setting `http_pipeline_max` may be, in requests.
pub const HTTP_PIPELINE_MAX: usize = 1024;
/// Least that the setting `output_queue_bytes_max` may be: some whole messages, or nobody is fast enough.
pub const OUTPUT_QUEUE_BYTES_MIN: usize = 64 << 10;
/// Descriptors that a process keeps for files, rings and listeners, of `RLIMIT_NOFILE`.
pub const DESCRIPTORS_RESERVED: u64 = 512;
/// Descriptors of each further ring of a shard: the ring's own, and its eventfd.
pub const DESCRIPTORS_OF_A_RING: u64 = 2;

// ---- journal -----------------------------------------------------------------------------------------------------

/// Lengths of segments are multiples of this.
pub const JOURNAL_BLOCK_BYTES: usize = crate::journal::PAGE_BYTES;
/// How long a record that nobody waits for (a receipt of an offer, a driver seen) may wait for one that somebody waits for,
/// in ms, so that both are one write: six writes for each offer of a shard that is not busy become four.
pub const JOURNAL_PATIENCE_MS: u64 = 25;
/// A write of the journal that takes longer, in ms, is a disk that hangs: a node that is in a fleet leaves its requests to the others. A
/// busy disk takes milliseconds, and one whose controller or file server restarts takes many seconds.
pub const JOURNAL_STALL_MS: u64 = 2_000;
/// Longest group commit.
pub const JOURNAL_COMMIT_BYTES_MAX: usize = crate::journal::COMMIT_BYTES_MAX;
/// Least that the setting `journal_segment_bytes` may be: room for a longest commit and a header.
pub const JOURNAL_SEGMENT_BYTES_MIN: usize = 2 << 20;
/// Most that the setting `journal_segment_bytes` may be: recovery holds a segment in memory.
pub const JOURNAL_SEGMENT_BYTES_MAX: usize = crate::journal::SEGMENT_BYTES_MAX as usize;

// ---- how they relate ---------------------------------------------------------------------------------------------

const _: () = {
    // A shard's number is a u16; health keeps a bit for each in whole words.
    assert!(SHARDS_MAX <= u16::MAX as usize && SHARDS_MAX.is_multiple_of(u64::BITS as usize));
    // What one turn's new requests send fits the completion queue.
    assert!(INGRESS_BATCH_MAX * (wire::PARALLEL_MAX as usize + 1) <= net::CQ_ENTRIES_MIN as usize);
    assert!(RETRY_AFTER_MS_MIN < RETRY_AFTER_MS_MAX);
    assert!(RETRY_ELSEWHERE_MS_MIN < RETRY_ELSEWHERE_MS_MAX && RETRY_ELSEWHERE_MS_MAX < RETRY_AFTER_MS_MIN);
    // Each of these counts from the last driver's close, or from the end of `drain_ms`; the store's own end takes the rest.
    assert!(DRAIN_ANSWERS_MS < DRAIN_STORE_MS && DRAIN_STORE_MS < DRAIN_JOURNAL_MS);
    assert!(DRAIN_HAND_OVER_MS < DRAIN_STORE_MS);
    assert!(DRAIN_LATE_MS + DRAIN_LAST_MS < DRAIN_JOURNAL_MS && DRAIN_JOURNAL_MS + 2_000 < DRAIN_GRACE_MS);
    assert!("retry_after_ms=".len() + 10 <= wire::CLOSE_REASON_LEN_MAX);
    assert!(wire::OFFER_TIMEOUT_MS_MAX <= wire::DEADLINE_MS_MAX && wire::BUSY_WAIT_MS_MAX <= wire::DEADLINE_MS_MAX);
    assert!(wire::PARALLEL_MAX as usize <= wire::CANDIDATES_MAX);
    assert!(OUTPUT_QUEUE_BYTES_MIN >= 4 * wire::MESSAGE_LEN_MAX);
    assert!(MISPOST_LOOKUPS_MAX < LOOKUPS_MAX);
    assert!(LOOKUPS_AGAIN_MAX < LOOKUPS_MAX);
    // Whole milliseconds for each, and pauses short beside what they are to stop.
    assert!(1_000 % DRIVER_COMMANDS_PER_S == 0 && DRIVER_COMMANDS_BURST >= DRIVER_COMMANDS_PER_S);
    assert!(DRIVER_PAUSE_MS < DRIVER_DEBT_MS_MAX as u64);
    // The head and the body of a request fit what is read at once into a carry-over buffer.
    assert!(wire::HEAD_LEN_MAX <= wire::BODY_LEN_MAX);
    assert!(JOURNAL_BLOCK_BYTES.is_power_of_two() && JOURNAL_BLOCK_BYTES <= crate::aligned::ALIGNMENT);
    assert!(JOURNAL_COMMIT_BYTES_MAX + JOURNAL_BLOCK_BYTES <= JOURNAL_SEGMENT_BYTES_MIN);
    // A request of any size fits a commit, whatever its archived form adds.
    assert!(JOURNAL_COMMIT_BYTES_MAX >= 8 * wire::BODY_LEN_MAX);
    assert!(JOURNAL_SEGMENT_BYTES_MIN.is_multiple_of(JOURNAL_BLOCK_BYTES));
    assert!(JOURNAL_SEGMENT_BYTES_MAX.is_multiple_of(JOURNAL_BLOCK_BYTES));
    assert!(JOURNAL_SEGMENT_BYTES_MIN < JOURNAL_SEGMENT_BYTES_MAX);
    // What the API lets in, the store takes without cutting it.
    assert!(2 * EVENT_POLLS_MAX <= crate::cold::handle::HANDLE_QUERIES_MAX);
    assert!(wire::EVENTS_LIMIT_MAX <= store::EVENTS_PAGE_EVENTS_MAX);
    assert!(wire::RECORDS_LIMIT_MAX <= store::RECORDS_PAGE_ROWS_MAX);
    assert!(wire::EVENTS_WAIT_MS_MAX <= store::EVENTS_WAIT_MS_MAX);
    assert!(store::CONSUMER_LEN_MAX == ID_LEN_MAX);
    assert!(store::EVENTS_PAGE_BYTES_MAX > 2 * wire::MESSAGE_LEN_MAX);
};
