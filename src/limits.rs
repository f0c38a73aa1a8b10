//! Every bound, named, with assertions at compile time that relate them. Settings have their ranges in
//! `config/settings.rs`; what stands here is fixed by the contract, by the kernel or by a format.
#![forbid(unsafe_code)]

pub use crate::fsm::ids::ID_LEN_MAX;

// ---- the contract: WebSocket -------------------------------------------------------------------------------------

/// Payload of one WebSocket message, both ways, in bytes; over: close 1009.
pub const FRAME_BYTES_MAX: usize = 16 << 10;
/// Payload of a control frame (RFC 6455 §5.5), in bytes.
pub const CONTROL_BYTES_MAX: usize = 125;
/// Reason of a close frame: a control payload without its code (RFC 6455 §5.5.1), in bytes.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;
/// Longest head of a frame that a client sends: 2 + 8 (length) + 4 (mask), in bytes (RFC 6455 §5.2).
pub const FRAME_HEAD_BYTES_MAX: usize = 14;
/// What an `OFFER` needs beside the caller's `trip`: names, punctuation, an id and five numbers, in bytes.
pub const OFFER_ENVELOPE_BYTES_MAX: usize = 512;
/// The largest `trip` whose `OFFER` fits a frame, in bytes; over: 413.
pub const TRIP_BYTES_MAX: usize = FRAME_BYTES_MAX - OFFER_ENVELOPE_BYTES_MAX;
/// Fragments of one message; more is a violation (1008), so that empty ones cannot go on for ever.
pub const FRAGMENTS_MAX: usize = 256;
/// Missed heartbeats, in intervals, after which a socket is closed (4004).
pub const HEARTBEATS_MISSED_MAX: u64 = 2;

// ---- the contract: HTTP ------------------------------------------------------------------------------------------

/// Request line and headers, in bytes; over: 431.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// Headers of one request; over: 431.
pub const HEADERS_MAX: usize = 64;
/// Request line, in bytes; over: 414.
pub const TARGET_BYTES_MAX: usize = 8 << 10;
/// A request's body, in bytes; over: 413.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// Most that the setting `http_pipeline_max` may be.
pub const HTTP_PIPELINE_MAX: usize = 1024;

/// Candidates of one request.
pub const CANDIDATES_MAX: usize = 64;
/// Drivers that hold an offer at once.
pub const PARALLEL_MAX: usize = 10;
/// Longest `offer_timeout_ms`.
pub const OFFER_TIMEOUT_MS_MAX: u32 = 600_000;
/// Longest `deadline_ms`.
pub const DEADLINE_MS_MAX: u32 = 86_400_000;
/// Longest `busy_wait_ms`.
pub const BUSY_WAIT_MS_MAX: u32 = 60_000;
/// A `reason` given by a driver or a caller, in bytes; over: `invalid`.
pub const REASON_BYTES_MAX: usize = 1024;
/// A consumer's name follows the id rule.
pub const CONSUMER_LEN_MAX: usize = ID_LEN_MAX;
/// Named consumers of events.
pub const CONSUMERS_MAX: usize = 256;

/// `limit` of `GET /v1/events` when none is given.
pub const EVENTS_LIMIT_DEFAULT: usize = 1000;
/// Most `limit` of `GET /v1/events`.
pub const EVENTS_LIMIT_MAX: usize = 10_000;
/// Longest `wait_ms` of `GET /v1/events`.
pub const EVENTS_WAIT_MS_MAX: u32 = 60_000;
/// Body of one answer of `GET /v1/events`, in bytes; ends early with what fits, at least one line.
pub const EVENTS_ANSWER_BYTES_MAX: usize = 1 << 20;
/// `limit` of `GET /v1/drivers/{driver_id}/records` when none is given.
pub const RECORDS_LIMIT_DEFAULT: usize = 100;
/// Most `limit` of `GET /v1/drivers/{driver_id}/records`.
pub const RECORDS_LIMIT_MAX: usize = 1000;

/// Least jittered `retry_after_ms` of a draining close.
pub const RETRY_AFTER_MS_MIN: u32 = 1000;
/// Most jittered `retry_after_ms` of a draining close.
pub const RETRY_AFTER_MS_MAX: u32 = 10_000;
/// `Retry-After` of 429 and 503, in seconds.
pub const RETRY_AFTER_S: u32 = 1;
/// What SIGTERM adds to `drain_ms` at most before the process is gone, in ms.
pub const DRAIN_GRACE_MS: u64 = 10_000;

// ---- shards and mailboxes ----------------------------------------------------------------------------------------

/// Shards of a node.
pub const SHARDS_MAX: usize = 1024;
/// Bits of the mask that says which inbound rings hold something, per word.
pub const MAILBOX_MASK_BITS: usize = 64;
/// Letters in the ring of one ordered pair of shards while there are few shards.
pub const MAILBOX_LETTERS_MAX: usize = 1024;
/// Letters in a ring at [`SHARDS_MAX`]; rings shrink with the square of the shards, so that all fit in memory.
pub const MAILBOX_LETTERS_MIN: usize = 16;
/// Letters that a turn takes from one inbound ring before it looks at the next.
pub const MAILBOX_BATCH_MAX: usize = 256;
/// Actor steps of one turn between two looks at the net ring.
pub const TURN_STEPS_MAX: usize = 1024;
/// Ingress requests admitted from the class queues in one turn.
pub const INGRESS_BATCH_MAX: usize = 256;

// ---- net ring ----------------------------------------------------------------------------------------------------

/// Submission entries of a net ring.
pub const NET_SQ_ENTRIES: u32 = 1024;
/// Completion entries of a net ring; an overflow costs a system call, never a completion.
pub const NET_CQ_ENTRIES: u32 = 8192;
/// Completions handled before the turn goes on.
pub const NET_REAP_MAX: usize = NET_CQ_ENTRIES as usize;
/// Buffers of one provided-buffer ring: the kernel's own bound.
pub const RECV_BUFFERS_MAX: usize = 32_768;
/// Descriptors that a process keeps for files, rings and listeners, of `RLIMIT_NOFILE`.
pub const DESCRIPTORS_RESERVED: usize = 512;

// ---- journal and store -------------------------------------------------------------------------------------------

/// Unit of direct I/O; segments and commits are multiples of it, in bytes.
pub const JOURNAL_BLOCK_BYTES: usize = 4096;
/// One record with its head, in bytes. A whole request (`Image`) fits: see the assertions.
pub const JOURNAL_RECORD_BYTES_MAX: usize = 1 << 20;
/// What one group commit takes, in bytes.
pub const JOURNAL_COMMIT_BYTES_MAX: usize = 1 << 20;
/// Least that the setting `journal_segment_bytes` may be.
pub const JOURNAL_SEGMENT_BYTES_MIN: usize = 1 << 20;
/// Commits in the batch that a shard hands to the store.
pub const STORE_BATCH_MAX: usize = 4096;

// ---- how they relate ---------------------------------------------------------------------------------------------

const _: () = {
    // Everything that the API lets in fits where it goes next.
    assert!(TRIP_BYTES_MAX + OFFER_ENVELOPE_BYTES_MAX <= FRAME_BYTES_MAX);
    assert!(OFFER_ENVELOPE_BYTES_MAX >= 4 * ID_LEN_MAX);
    assert!(CANDIDATES_MAX * (ID_LEN_MAX + 3) + TRIP_BYTES_MAX < BODY_BYTES_MAX);
    assert!(BODY_BYTES_MAX < JOURNAL_RECORD_BYTES_MAX);
    assert!(EVENTS_ANSWER_BYTES_MAX > 2 * FRAME_BYTES_MAX);
    assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX);
    assert!(CLOSE_REASON_BYTES_MAX >= "retry_after_ms=".len() + 10);
    assert!(PARALLEL_MAX <= CANDIDATES_MAX);
    assert!(OFFER_TIMEOUT_MS_MAX <= DEADLINE_MS_MAX);
    assert!(BUSY_WAIT_MS_MAX <= DEADLINE_MS_MAX);
    assert!(RETRY_AFTER_MS_MIN < RETRY_AFTER_MS_MAX);
    assert!(EVENTS_LIMIT_DEFAULT <= EVENTS_LIMIT_MAX);
    assert!(RECORDS_LIMIT_DEFAULT <= RECORDS_LIMIT_MAX);
    // A shard's number is a u16, and the home of a hash never needs more.
    assert!(SHARDS_MAX <= u16::MAX as usize);
    assert!(SHARDS_MAX.is_multiple_of(MAILBOX_MASK_BITS));
    assert!(MAILBOX_LETTERS_MAX.is_power_of_two() && MAILBOX_LETTERS_MIN.is_power_of_two());
    assert!(MAILBOX_BATCH_MAX <= MAILBOX_LETTERS_MAX);
    assert!(INGRESS_BATCH_MAX <= TURN_STEPS_MAX);
    // Completions of everything that was submitted in a turn fit without an overflow.
    assert!(NET_CQ_ENTRIES >= 2 * NET_SQ_ENTRIES);
    assert!(NET_SQ_ENTRIES.is_power_of_two() && NET_CQ_ENTRIES.is_power_of_two());
    assert!(RECV_BUFFERS_MAX.is_power_of_two());
    // A record and a commit fit a segment, and segments are whole blocks.
    assert!(JOURNAL_BLOCK_BYTES.is_power_of_two());
    assert!(JOURNAL_COMMIT_BYTES_MAX.is_multiple_of(JOURNAL_BLOCK_BYTES));
    assert!(JOURNAL_RECORD_BYTES_MAX <= JOURNAL_COMMIT_BYTES_MAX);
    assert!(JOURNAL_COMMIT_BYTES_MAX <= JOURNAL_SEGMENT_BYTES_MIN);
};
