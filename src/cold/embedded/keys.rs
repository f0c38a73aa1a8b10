//! Keys of the embedded store: byte order is the order of reading. Pure.
//!
//! | keyspace | key | value |
//! |---|---|---|
//! | `meta` | `f` | format version, `u32` |
//! | `meta` | `w` incarnation `u64` shard `u16` | watermark, `u64` |
//! | `meta` | `c` consumer | acknowledged cursor `u64`, time of it `u64` |
//! | `meta` | `e` first cursor `u64` | an event chunk's next cursor, bytes, opened at, touched at, `u64` each |
//! | `drivers` | driver id | `DriverRecord` |
//! | `off_shift` | since `u64`, driver id | nothing |
//! | `rows-DAY` | driver id `0` !sent-at `u64` request id `0` !attempt `u32` | `RowTail` |
//! | `ended-FIRST-LAST` (days) | hash of the request id `u64`, request id | `EndedRequest` |
//! | `meta` | `o` | number of the last outbox entry that the fleet's store has, `u64` |
//! | `outbox-FIRST` (number) | number `u64` | `OutboxEntry` |
//! | `events-FIRST` (cursor) | cursor of the block's first event `u64` | a block of `Published` |
//!
//! A block holds events with successive cursors, each as length `u32` and value: events are most of what is written, and
//! the engine's cost is per entry (measured: 24 us of CPU per commit without blocks, 18 with them).
//!
//! Numbers are big-endian. `!` (all bits turned) makes newer come first. No id contains the byte 0.

use super::codec::RowTail;
use crate::cold::port::{Source, StoreError};
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::types::{RecordRow, UnixMs};

/// Milliseconds of a UTC day.
pub const DAY_MS: u64 = 86_400_000;

/// `meta`: the format version.
pub const FORMAT: &[u8] = b"f";
/// `meta`: prefix of watermarks.
pub const WATERMARK: u8 = b'w';
/// `meta`: prefix of consumers.
pub const CONSUMER: u8 = b'c';
/// `meta`: prefix of event chunks.
pub const CHUNK: u8 = b'e';

/// `meta`: how far the outbox was carried away.
pub const OUTBOX_MARK: &[u8] = b"o";

/// The UTC day of a time, counted from 1970-01-01.
pub const fn day_of(at_ms: UnixMs) -> u64 {
    at_ms / DAY_MS
}

/// The same for a civil date; `None` before 1970.
pub fn day_of_date(date: jiff::civil::Date) -> Option<u64> {
    const EPOCH: jiff::civil::Date = jiff::civil::date(1970, 1, 1);
    let days = EPOCH.until(date).ok()?.get_days();
    u64::try_from(days).ok()
}

/// `meta` key of a source's watermark.
pub fn watermark(source: Source) -> [u8; 11] {
    let mut key = [WATERMARK; 11];
    key[1..9].copy_from_slice(&source.incarnation.to_be_bytes());
    key[9..].copy_from_slice(&source.shard.to_be_bytes());
    key
}

/// The source of a watermark's key.
pub fn watermark_source(key: &[u8]) -> Option<Source> {
    let (incarnation, shard) = key.strip_prefix(&[WATERMARK])?.split_at_checked(8)?;
    Some(Source {
        incarnation: number(incarnation)?,
        shard: u16::from_be_bytes(shard.try_into().ok()?),
    })
}

/// `meta` key of a consumer.
pub fn consumer(name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(CONSUMER);
    key.extend_from_slice(name.as_bytes());
    key
}

/// `meta` key of the event chunk that begins with `first`.
pub fn chunk(first: u64) -> [u8; 9] {
    let mut key = [CHUNK; 9];
    key[1..].copy_from_slice(&first.to_be_bytes());
    key
}

/// `off_shift` key.
pub fn off_shift(since_ms: UnixMs, driver: &DriverId) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + driver.as_str().len());
    key.extend_from_slice(&since_ms.to_be_bytes());
    key.extend_from_slice(driver.as_str().as_bytes());
    key
}

/// What an `off_shift` key says.
pub fn off_shift_parts(key: &[u8]) -> Option<(UnixMs, DriverId)> {
    let (since, driver) = key.split_at_checked(8)?;
    Some((number(since)?, DriverId::parse(std::str::from_utf8(driver).ok()?).ok()?))
}

/// `ended-*` key. The hash comes first because a trip id carries the hash of its request's id: trips need no index.
pub fn ended(key: &mut Vec<u8>, request: &RequestId) {
    key.clear();
    key.extend_from_slice(&request.hash64().to_be_bytes());
    key.extend_from_slice(request.as_str().as_bytes());
}

/// The hash of the request's id in an `ended-*` key.
pub fn ended_hash(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.first_chunk()?))
}

/// Where a row stands in its day, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowPlace {
    /// When the offer was sent.
    pub offer_sent_at_ms: UnixMs,
    /// Which request.
    pub request_id: RequestId,
    /// Which attempt of it.
    pub attempt: u32,
}

impl RowPlace {
    /// The dispatch record of a driver that stands here with this value.
    pub fn record(self, driver_id: DriverId, tail: RowTail) -> RecordRow {
        RecordRow {
            driver_id,
            offer_sent_at_ms: self.offer_sent_at_ms,
            request_id: self.request_id,
            attempt: self.attempt,
            trip_id: tail.trip_id,
            response_type: tail.response_type,
            response_at_ms: tail.response_at_ms,
        }
    }

    /// The `next_before` that stands for this place: `{time}.{attempt}.{request id}`.
    pub fn to_token(&self) -> String {
        format!("{}.{}.{}", self.offer_sent_at_ms, self.attempt, self.request_id)
    }

    /// The place that a `next_before` stands for.
    ///
    /// # Errors
    /// The text is none; the caller's fault.
    pub fn from_token(token: &str) -> Result<Self, StoreError> {
        let parse = || {
            let mut parts = token.splitn(3, '.');
            let offer_sent_at_ms = parts.next()?.parse().ok()?;
            let attempt = parts.next()?.parse().ok()?;
            let request_id = RequestId::parse(parts.next()?).ok()?;
            Some(Self {
                offer_sent_at_ms,
                request_id,
                attempt,
            })
        };
        parse().ok_or_else(|| StoreError::invalid("`before` is not a `next_before` of this API"))
    }
}

/// First bytes of all keys of a driver in `rows-*`.
pub fn row_prefix(key: &mut Vec<u8>, driver: &DriverId) {
    key.clear();
    key.extend_from_slice(driver.as_str().as_bytes());
    key.push(0);
}

/// `rows-*` key.
pub fn row(key: &mut Vec<u8>, driver: &DriverId, place: &RowPlace) {
    row_prefix(key, driver);
    key.extend_from_slice(&(!place.offer_sent_at_ms).to_be_bytes());
    key.extend_from_slice(place.request_id.as_str().as_bytes());
    key.push(0);
    key.extend_from_slice(&(!place.attempt).to_be_bytes());
}

/// What follows the driver's prefix in a `rows-*` key.
pub fn row_place(rest: &[u8]) -> Option<RowPlace> {
    let (sent, rest) = rest.split_at_checked(8)?;
    let (request, attempt) = rest.split_at_checked(rest.len().checked_sub(4)?)?;
    let request = std::str::from_utf8(request.strip_suffix(&[0])?).ok()?;
    Some(RowPlace {
        offer_sent_at_ms: !number(sent)?,
        request_id: RequestId::parse(request).ok()?,
        attempt: !u32::from_be_bytes(attempt.try_into().ok()?),
    })
}

/// A big-endian `u64` that fills `bytes`.
pub fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Big-endian `u64`s that fill `bytes`.
pub fn numbers<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (parts, rest) = bytes.as_chunks::<8>();
    let parts: &[[u8; 8]; N] = parts.try_into().ok()?;
    rest.is_empty().then(|| parts.map(u64::from_be_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver(text: &str) -> DriverId {
        DriverId::parse(text).unwrap()
    }

    fn place(offer_sent_at_ms: UnixMs, request: &str, attempt: u32) -> RowPlace {
        RowPlace {
            offer_sent_at_ms,
            request_id: RequestId::parse(request).unwrap(),
            attempt,
        }
    }

    #[test]
    fn days_begin_at_midnight_utc() {
        let check = |date: jiff::civil::Date, expect| assert_eq!(day_of_date(date), expect, "{date}");
        check(jiff::civil::date(1970, 1, 1), Some(0));
        check(jiff::civil::date(1969, 12, 31), None);
        check(jiff::civil::date(2024, 2, 29), Some(19_782));
        assert_eq!(day_of(19_782 * DAY_MS), 19_782);
        assert_eq!(day_of(19_783 * DAY_MS - 1), 19_782);
    }

    #[test]
    fn rows_sort_newest_first_within_a_driver() {
        let mut keys = Vec::new();
        let expect = [
            ("d", place(9, "r", 1)),
            ("d", place(8, "q", 2)),
            ("d", place(8, "q", 1)),
            ("d", place(8, "r", 1)),
            ("d", place(0, "r", 7)),
            ("d1", place(10, "r", 1)),
        ];
        for (name, place) in &expect {
            let mut key = Vec::new();
            row(&mut key, &driver(name), place);
            let mut prefix = Vec::new();
            row_prefix(&mut prefix, &driver(name));
            assert_eq!(row_place(key.strip_prefix(&*prefix).unwrap()).as_ref(), Some(place));
            keys.push(key);
        }
        assert!(keys.is_sorted());
    }

    #[test]
    fn tokens_come_back_and_nonsense_is_refused() {
        let there = place(1_700_000_000_000, "a.b:c", 3);
        assert_eq!(RowPlace::from_token(&there.to_token()), Ok(there));
        for bad in ["", "1", "1.2", "1.2.", "x.2.r", "1.-2.r", "1.2.a b", "1.4294967296.r"] {
            assert!(!RowPlace::from_token(bad).unwrap_err().retry, "{bad:?}");
        }
    }

    #[test]
    fn meta_keys_come_back() {
        let source = Source {
            incarnation: 258,
            shard: 772,
        };
        assert_eq!(watermark_source(&watermark(source)), Some(source));
        assert_eq!(watermark_source(b"w123"), None);
        assert_eq!(
            off_shift_parts(&off_shift(77, &driver("d-1"))),
            Some((77, driver("d-1")))
        );
        assert_eq!(numbers::<2>(&[0; 16]), Some([0, 0]));
        assert_eq!(numbers::<2>(&[0; 17]), None);
        assert_eq!(numbers::<2>(&[0; 24]), None);
    }
}
