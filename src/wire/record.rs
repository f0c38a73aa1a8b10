//! Journal records as bytes: rkyv, little endian, 32-bit relative pointers, 8-byte alignment.
//!
//! The bytes hold no absolute position: a record may be moved to any place that is a multiple of [`RECORD_ALIGN`].
//! Only bytes whose checksum was found right come here; [`decode`] validates them all the same, so that damage which
//! a checksum missed, or a record of another layout, is an error and never undefined behaviour.
#![forbid(unsafe_code)]

use crate::aligned::AlignedBuffer;
use crate::fsm::types::{ArchivedRecord, LogEntry, Record, Step};
use rkyv::rancor::Error;
use rkyv::util::AlignedVec;

/// Where a record may begin, in bytes: a multiple of this.
pub const RECORD_ALIGN: usize = 8;

const _: () = assert!(align_of::<ArchivedRecord>() <= RECORD_ALIGN);

/// Most bytes that one text adds beside its own: reference, length and alignment.
const TEXT_OVERHEAD: usize = 8 + RECORD_ALIGN;

/// Most bytes that an entry has in place, without its texts and lists.
const ENTRY_LEN: usize = size_of::<rkyv::Archived<LogEntry>>() + RECORD_ALIGN;

/// Bytes are no record, or a record could not be turned into bytes. Ours or the disk's fault; repeating does not help.
#[derive(Debug)]
pub struct RecordError(Error);

impl std::fmt::Display for RecordError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whole = self.0.to_string();
        write!(f, "not a record: {}", whole.lines().next().unwrap_or_default())
    }
}

impl std::error::Error for RecordError {}

/// Adds `record` at the end of `out`; returns how many bytes it took. On an error `out` is as it was.
///
/// # Errors
/// When the record is too large for 32-bit references (2 GiB).
///
/// # Panics
/// When the length of `out` is no multiple of [`RECORD_ALIGN`].
pub fn encode(record: &Record, out: &mut AlignedBuffer) -> Result<usize, RecordError> {
    let start = out.len();
    assert_eq!(start % RECORD_ALIGN, 0, "a record begins aligned");
    if let Err(error) = rkyv::api::high::to_bytes_in::<_, Error>(record, &mut *out) {
        out.truncate(start);
        return Err(RecordError(error));
    }
    debug_assert!(out.len() > start, "a record has bytes");
    Ok(out.len() - start)
}

/// The record that `bytes` are, from its first to its last byte.
///
/// # Errors
/// When the bytes are not exactly one record of this program's layout.
pub fn decode(bytes: &[u8]) -> Result<Record, RecordError> {
    if bytes.as_ptr().addr().is_multiple_of(RECORD_ALIGN) {
        return rkyv::from_bytes::<Record, Error>(bytes).map_err(RecordError);
    }
    let mut aligned = AlignedVec::<RECORD_ALIGN>::with_capacity(bytes.len());
    aligned.extend_from_slice(bytes);
    rkyv::from_bytes::<Record, Error>(&aligned).map_err(RecordError)
}

/// An upper bound of the bytes that `entry` adds to a record.
pub fn entry_len_max(entry: &LogEntry) -> usize {
    let text = |len: usize| len + TEXT_OVERHEAD;
    let option = |words: &Option<Box<str>>| words.as_ref().map_or(0, |words| text(words.len()));
    let drivers = |list: &[crate::fsm::ids::DriverId]| -> usize { list.iter().map(|id| text(id.as_str().len())).sum() };
    ENTRY_LEN
        + match &entry.step {
            Step::Received { candidates, trip, .. } => drivers(candidates) + text(trip.len()) + TEXT_OVERHEAD,
            Step::Redispatched { candidates, .. } => drivers(candidates) + TEXT_OVERHEAD,
            Step::OfferSent { driver_id, .. } | Step::Refused { driver_id, .. } => text(driver_id.as_str().len()),
            Step::TripCreated { trip_id, driver_id } => text(trip_id.as_str().len()) + text(driver_id.as_str().len()),
            Step::Declined { reason, .. } | Step::TripEnded { reason, .. } | Step::Cancelled { reason } => {
                option(reason)
            }
            Step::Delivered { .. }
            | Step::Acked { .. }
            | Step::Accepted { .. }
            | Step::TimedOut { .. }
            | Step::Revoked { .. }
            | Step::Exhausted
            | Step::PickedUp
            | Step::Unfulfilled { .. } => 0,
        }
}

/// An upper bound of what a record has beside its entries: the root, its id and alignment.
pub const RECORD_OVERHEAD_MAX: usize = size_of::<ArchivedRecord>() + crate::fsm::ids::ID_LEN_MAX + 2 * TEXT_OVERHEAD;
