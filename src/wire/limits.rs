//! Bounds of the codecs, and how they relate.

use crate::fsm::ids::ID_LEN_MAX;

/// Longest request head, in bytes, without empty lines before it.
pub const HEAD_LEN_MAX: usize = 16 * 1024;
/// Most header fields of a request.
pub const HEADERS_MAX: usize = 64;
/// Most empty lines before a request line that are skipped (RFC 9112 §2.2).
pub const LEADING_CRLF_MAX: usize = 2;
/// Longest request body, in bytes, after chunked decoding.
pub const BODY_LEN_MAX: usize = 64 * 1024;
/// Most bytes of chunk extensions in one body; they mean nothing here.
pub const CHUNK_EXTENSIONS_LEN_MAX: usize = 4 * 1024;
/// Most bytes of the trailer section of one body; it means nothing here.
pub const TRAILERS_LEN_MAX: usize = 4 * 1024;
/// Most digits of a chunk size.
pub const CHUNK_SIZE_DIGITS_MAX: u8 = 16;

/// Longest WebSocket message in both directions, in bytes (contract §1).
pub const MESSAGE_LEN_MAX: usize = 16 * 1024;
/// Longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_LEN_MAX: usize = 125;
/// Longest reason in a close frame: a control frame's payload less the code.
pub const CLOSE_REASON_LEN_MAX: usize = CONTROL_LEN_MAX - 2;

/// Most drivers named by one offer.
pub const CANDIDATES_MAX: usize = 64;
/// Longest time a driver has for an answer.
pub const OFFER_TIMEOUT_MS_MAX: u32 = 600_000;
/// Longest search.
pub const DEADLINE_MS_MAX: u32 = 86_400_000;
/// Most drivers that hold an offer at once.
pub const PARALLEL_MAX: u8 = 10;
/// Longest wait for a driver who is offered to another request.
pub const BUSY_WAIT_MS_MAX: u32 = 60_000;
/// Longest `reason` that a driver or caller may give, in characters (Unicode scalar values).
pub const REASON_CHARS_MAX: usize = 256;

/// Longest wait of `GET /v1/events`.
pub const EVENTS_WAIT_MS_MAX: u32 = 60_000;
/// Most events of one page.
pub const EVENTS_LIMIT_MAX: u32 = 1_000;
/// Events of one page when the caller does not say.
pub const EVENTS_LIMIT_DEFAULT: u32 = 100;
/// Most rows of one page of dispatch records.
pub const RECORDS_LIMIT_MAX: u32 = 1_000;
/// Rows of one page of dispatch records when the caller does not say.
pub const RECORDS_LIMIT_DEFAULT: u32 = 100;
/// Longest `before`, in bytes.
pub const RECORDS_BEFORE_LEN_MAX: usize = 256;

const _: () = {
    // A full candidate list with all its quotes and commas leaves room for the trip.
    assert!(CANDIDATES_MAX * (ID_LEN_MAX + 3) + MESSAGE_LEN_MAX < BODY_LEN_MAX);
    // A reason, every character escaped as \uXXXX\uXXXX, fits a frame.
    assert!(REASON_CHARS_MAX * 12 < MESSAGE_LEN_MAX / 2);
    // A server's frame header is 2 or 4 bytes, never 10.
    assert!(MESSAGE_LEN_MAX <= u16::MAX as usize);
    assert!(CLOSE_REASON_LEN_MAX + 2 == CONTROL_LEN_MAX);
    assert!(EVENTS_LIMIT_DEFAULT <= EVENTS_LIMIT_MAX && RECORDS_LIMIT_DEFAULT <= RECORDS_LIMIT_MAX);
};
