//! Every bound has a name. Those of the contract are in [`wire`], those of the kernel's rings in [`net`], those of the
//! store in [`store`], ranges of settings in `config/settings.rs`; what the node adds stands here, with assertions that
//! relate them all.
#![forbid(unsafe_code)]

pub use crate::cold::port as store;
pub use crate::fsm::ids::ID_LEN_MAX;
pub use crate::net::limits as net;
pub use crate::wire::limits as wire;

// ---- the contract's times ----------------------------------------------------------------------------------------

/// Heartbeats missed, in intervals, after which a socket is closed (4004).
pub const HEARTBEATS_MISSED_MAX: u64 = 2;
/// Least jittered `retry_after_ms` of a draining close.
pub const RETRY_AFTER_MS_MIN: u32 = 1000;
/// Most jittered `retry_after_ms` of a draining close.
pub const RETRY_AFTER_MS_MAX: u32 = 10_000;
/// `Retry-After` of 429 and 503, in seconds.
pub const RETRY_AFTER_S: u32 = 1;
/// What SIGTERM adds to `drain_ms` at most before the process is gone, in ms.
pub const DRAIN_GRACE_MS: u64 = 10_000;

// ---- shards ------------------------------------------------------------------------------------------------------

/// Shards of a node.
pub const SHARDS_MAX: usize = 1024;
/// Actor steps of one turn between two looks at the net ring.
pub const TURN_STEPS_MAX: usize = 1024;
/// Committed records that may wait for the store before new requests are refused.
pub const STORE_BACKLOG_MAX: usize = 200_000;
/// Submission queue of a shard's net ring.
pub const NET_SQ_ENTRIES: u32 = 1024;
/// Completion queue of a shard's net ring.
pub const NET_CQ_ENTRIES: u32 = 16_384;
/// Ingress requests admitted from the class queues in one turn.
pub const INGRESS_BATCH_MAX: usize = 256;
/// Most that the setting `http_pipeline_max` may be, in requests.
pub const HTTP_PIPELINE_MAX: usize = 1024;
/// Least that the setting `output_queue_bytes_max` may be: some whole messages, or nobody is fast enough.
pub const OUTPUT_QUEUE_BYTES_MIN: usize = 64 << 10;
/// Descriptors that a process keeps for files, rings and listeners, of `RLIMIT_NOFILE`.
pub const DESCRIPTORS_RESERVED: u64 = 512;

// ---- journal -----------------------------------------------------------------------------------------------------

/// Lengths of segments are multiples of this.
pub const JOURNAL_BLOCK_BYTES: usize = crate::journal::PAGE_BYTES;
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
    assert!(INGRESS_BATCH_MAX <= TURN_STEPS_MAX);
    // Completions of a turn's steps fit the completion queue.
    assert!(TURN_STEPS_MAX <= net::CQ_ENTRIES_MIN as usize);
    assert!(RETRY_AFTER_MS_MIN < RETRY_AFTER_MS_MAX);
    assert!("retry_after_ms=".len() + 10 <= wire::CLOSE_REASON_LEN_MAX);
    assert!(wire::OFFER_TIMEOUT_MS_MAX <= wire::DEADLINE_MS_MAX && wire::BUSY_WAIT_MS_MAX <= wire::DEADLINE_MS_MAX);
    assert!(wire::PARALLEL_MAX as usize <= wire::CANDIDATES_MAX);
    assert!(OUTPUT_QUEUE_BYTES_MIN >= 4 * wire::MESSAGE_LEN_MAX);
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
    assert!(wire::EVENTS_LIMIT_MAX <= store::EVENTS_PAGE_EVENTS_MAX);
    assert!(wire::RECORDS_LIMIT_MAX <= store::RECORDS_PAGE_ROWS_MAX);
    assert!(wire::EVENTS_WAIT_MS_MAX <= store::EVENTS_WAIT_MS_MAX);
    assert!(store::CONSUMER_LEN_MAX == ID_LEN_MAX);
    assert!(store::EVENTS_PAGE_BYTES_MAX > 2 * wire::MESSAGE_LEN_MAX);
};
