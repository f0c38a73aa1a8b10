//! Statements, and how records and requests become values and come back.

use super::claim_statements::REQUEST_COLUMNS;
use super::session::CassandraError;
use super::{CassandraConfig, now_ms};
use crate::cold::embedded::{Decoder, Encoder};
use crate::cold::owner::{Found, FoundHead, FoundRow};
use crate::cold::port::{EndedRequest, StoreError};
use crate::fsm::fold::Fold;
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::{LogEntry, RecordRow, ResponseType, UnixMs};
use compact_str::CompactString;
use scylla::client::session::Session;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlDate, CqlTimestamp, MaybeUnset};

/// How steps are encoded; the first byte of every `steps`. A change of [`LogEntry`] that is not a new variant at the end of
/// its enum needs a new one.
pub const STEPS_FORMAT_VERSION: u8 = 1;
/// Longest `steps` of a row, if they are more than one step: a longer log takes several rows.
pub const STEPS_BYTES_MAX: usize = 256 << 10;
/// Owners that a request had before the one that wrote it whole: none, since that node was alone.
const EPOCH: i32 = 0;
/// Longest time to live that Cassandra takes, in seconds: 20 years.
const TTL_S_MAX: u64 = 20 * 365 * 86_400;
const DAY_MS: u64 = 86_400_000;
/// `date`'s number of 1970-01-01.
const DATE_EPOCH: u32 = 1 << 31;

/// Everything that is said to Cassandra.
pub(super) struct Statements {
    pub(super) insert_record: PreparedStatement,
    pub(super) insert_request: PreparedStatement,
    pub(super) insert_steps: PreparedStatement,
    pub(super) select_request: PreparedStatement,
    pub(super) select_trip: PreparedStatement,
    pub(super) select_records: PreparedStatement,
}

/// Prepares a statement that may be repeated.
///
/// # Errors
/// Cassandra does not answer, or a table is not as it should be.
pub(super) async fn prepare(session: &Session, text: String) -> Result<PreparedStatement, CassandraError> {
    let prepared = session.prepare(text).await;
    let mut prepared = prepared.map_err(|error| CassandraError::new("cannot prepare a statement", error))?;
    prepared.set_is_idempotent(true);
    Ok(prepared)
}

impl Statements {
    /// Prepares all of them. Every one may be repeated.
    ///
    /// # Errors
    /// Cassandra does not answer, or a table is not as it should be.
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, CassandraError> {
        let prepare = async |text: String| prepare(session, text).await;
        let insert_record = format!(
            "INSERT INTO {keyspace}.dispatch_records (driver_id, date, dispatch_timestamp, request_id, attempt, trip_id, \
             offer_sent_at, response_type, response_at, gateway_node_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             USING TIMESTAMP ? AND TTL ?"
        );
        let insert_request = format!(
            "INSERT INTO {keyspace}.requests (request_id, epoch, seq, steps, state, attempt, driver_id, trip_id, owner, \
             ended_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
        );
        let insert_steps = format!(
            "INSERT INTO {keyspace}.requests (request_id, epoch, seq, steps) VALUES (?, ?, ?, ?) \
             USING TIMESTAMP ? AND TTL ?"
        );
        let select_request = format!("SELECT {REQUEST_COLUMNS} FROM {keyspace}.requests WHERE request_id = ?");
        let select_trip = format!("SELECT request_id FROM {keyspace}.trips WHERE trip_id = ?");
        let select_records = format!(
            "SELECT dispatch_timestamp, request_id, attempt, trip_id, response_type, response_at, gateway_node_id \
             FROM {keyspace}.dispatch_records WHERE driver_id = ? AND date = ? AND dispatch_timestamp <= ? LIMIT ?"
        );
        Ok(Self {
            insert_record: prepare(insert_record).await?,
            insert_request: prepare(insert_request).await?,
            insert_steps: prepare(insert_steps).await?,
            select_request: prepare(select_request).await?,
            select_trip: prepare(select_trip).await?,
            select_records: prepare(select_records).await?,
        })
    }
}

/// Values of `insert_record`.
pub(super) type RecordValues = (
    String,
    CqlDate,
    CqlTimestamp,
    String,
    i32,
    MaybeUnset<String>,
    CqlTimestamp,
    &'static str,
    CqlTimestamp,
    String,
    i64,
    i32,
);

/// Values of `insert_request`.
pub(super) type RequestValues = (
    String,
    i32,
    i32,
    Vec<u8>,
    MaybeUnset<&'static str>,
    MaybeUnset<i32>,
    MaybeUnset<String>,
    MaybeUnset<String>,
    String,
    CqlTimestamp,
    i64,
    i32,
);

/// Values of `insert_steps`.
pub(super) type StepsValues = (String, i32, i32, Vec<u8>, i64, i32);

/// A request's rows: the first carries what stands once per request and is written last, so that whoever reads a
/// request reads the whole of it.
pub(super) struct RequestWrite {
    pub(super) rest: Vec<StepsValues>,
    pub(super) first: RequestValues,
}

/// A row of `dispatch_records`; `None` when its time to live is over.
pub(super) fn record_values(config: &CassandraConfig, row: &RecordRow, node: &str) -> Option<RecordValues> {
    let ttl_s = ttl_s(row.offer_sent_at_ms, config.records_retention_days)?;
    Some((
        row.driver_id.to_string(),
        date_of(row.offer_sent_at_ms),
        timestamp(row.offer_sent_at_ms),
        row.request_id.to_string(),
        number(row.attempt),
        maybe(row.trip_id.as_ref().map(ToString::to_string)),
        timestamp(row.offer_sent_at_ms),
        row.response_type.as_str(),
        timestamp(row.response_at_ms),
        node.to_owned(),
        write_time(row.response_at_ms),
        ttl_s,
    ))
}

/// The rows of an ended request; `None` when its time to live is over.
///
/// # Errors
/// It cannot be encoded.
pub(super) fn request_write(
    config: &CassandraConfig,
    encoder: &mut Encoder,
    ended: &EndedRequest,
    node: &str,
) -> Result<Option<RequestWrite>, StoreError> {
    let Some(ttl_s) = ttl_s(ended.ended_at_ms, config.ended_retention_days) else {
        return Ok(None);
    };
    let request_id = ended.log.request_id.to_string();
    let mut parts = Vec::new();
    split_steps(encoder, &ended.log.log, 1, &mut parts)?;
    let at = write_time(ended.ended_at_ms);
    let mut parts = parts.into_iter();
    let (seq, steps) = parts
        .next()
        .ok_or_else(|| StoreError::broken("a request without steps"))?;
    let rest = parts.map(|(seq, steps)| (request_id.clone(), EPOCH, seq, steps, at, ttl_s));
    // What does not fold is shown to nobody, but kept.
    let fold = Fold::of(&ended.log.log).ok();
    let current = fold.as_ref().map(Fold::current);
    let driver_id = current.and_then(|(_, driver_id)| driver_id);
    Ok(Some(RequestWrite {
        rest: rest.collect(),
        first: (
            request_id.clone(),
            EPOCH,
            seq,
            steps,
            maybe(fold.as_ref().map(|fold| fold.state().as_str())),
            maybe(current.map(|(attempt, _)| number(attempt))),
            maybe(driver_id.map(ToString::to_string)),
            maybe(ended.trip_id.as_ref().map(ToString::to_string)),
            node.to_owned(),
            timestamp(ended.ended_at_ms),
            at,
            ttl_s,
        ),
    }))
}

/// Steps from number `seq` on, encoded, in as many parts as they need.
fn split_steps(
    encoder: &mut Encoder,
    steps: &[LogEntry],
    seq: usize,
    parts: &mut Vec<(i32, Vec<u8>)>,
) -> Result<(), StoreError> {
    let encoded = encoder.encode(&steps.to_vec())?;
    if encoded.len() > STEPS_BYTES_MAX && steps.len() > 1 {
        let (one, two) = steps.split_at(steps.len() / 2);
        split_steps(encoder, one, seq, parts)?;
        return split_steps(encoder, two, seq + one.len(), parts);
    }
    let mut bytes = Vec::with_capacity(encoded.len() + 1);
    bytes.push(STEPS_FORMAT_VERSION);
    bytes.extend_from_slice(encoded);
    parts.push((number(seq as u32), bytes));
    Ok(())
}

/// A row that `select_request` finds: the columns of [`REQUEST_COLUMNS`].
pub(super) type RequestFound = (
    Option<i32>,
    Option<i32>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<String>,
    Option<String>,
    Option<i64>,
    Option<i32>,
    Option<i32>,
    Option<String>,
    Option<CqlTimestamp>,
);

/// A request of its rows; `None`: there is none.
///
/// # Errors
/// The rows are not what a node writes, or a newer node's.
pub(super) fn request_of(
    request_id: &RequestId,
    rows: impl IntoIterator<Item = RequestFound>,
) -> Result<Option<Found>, StoreError> {
    let damaged = |what: &str| StoreError::broken(format!("request {request_id} in Cassandra {what}"));
    let mut decoder = Decoder::default();
    let mut decode = |bytes: Vec<u8>| {
        let (version, steps) = bytes.split_first().ok_or_else(|| damaged("has empty steps"))?;
        if *version != STEPS_FORMAT_VERSION {
            return Err(damaged("was written by a newer program"));
        }
        decoder.steps(steps)
    };
    let (mut found, mut last) = (Vec::new(), None);
    for (row_epoch, seq, steps, receipts, node, owner, incarnation, epoch, length, trip_id, ended_at) in rows {
        found.push(FoundRow {
            epoch: row_epoch.unwrap_or(0) as u32,
            seq: seq.and_then(|seq| u32::try_from(seq).ok()).unwrap_or(1),
            steps: steps.map(&mut decode).transpose()?,
            receipts: receipts.map(&mut decode).transpose()?,
            node: node.unwrap_or_default().into(),
        });
        // The same in every row.
        last = Some((owner, incarnation, epoch, length, trip_id, ended_at));
    }
    let Some((owner, incarnation, epoch, length, trip_id, ended_at)) = last else {
        return Ok(None);
    };
    let trip_id = trip_id.map(|text| TripId::parse(&text)).transpose();
    let head = FoundHead {
        owner: owner.map(CompactString::from),
        incarnation: incarnation.unwrap_or(0) as u64,
        epoch: epoch.unwrap_or(0) as u32,
        length: length.map(|length| length as u32),
        trip_id: trip_id.map_err(|_| damaged("has a bad trip id"))?,
        ended_at_ms: ended_at.map(|at| at.0 as u64),
    };
    Found::of(request_id, found, head)
}

/// A row that `select_records` finds.
pub(super) type RecordFound = (
    CqlTimestamp,
    String,
    i32,
    Option<String>,
    Option<String>,
    Option<CqlTimestamp>,
    Option<String>,
);

/// A record and the node that it comes from.
///
/// # Errors
/// The row is not what a node writes.
pub(super) fn record_of(driver_id: &DriverId, found: RecordFound) -> Result<(RecordRow, CompactString), StoreError> {
    let (sent_at, request_id, attempt, trip_id, response_type, response_at, node) = found;
    let parse = || {
        let trip_id = trip_id.map(|text| TripId::parse(&text)).transpose().ok()?;
        Some(RecordRow {
            driver_id: driver_id.clone(),
            offer_sent_at_ms: u64::try_from(sent_at.0).ok()?,
            request_id: RequestId::parse(&request_id).ok()?,
            attempt: u32::try_from(attempt).ok()?,
            trip_id,
            response_type: response_type_of(&response_type?)?,
            response_at_ms: u64::try_from(response_at?.0).ok()?,
        })
    };
    let row = parse().ok_or_else(|| StoreError::broken(format!("a record of {driver_id} in Cassandra is none")))?;
    Ok((row, CompactString::from(node.unwrap_or_default())))
}

fn response_type_of(name: &str) -> Option<ResponseType> {
    let all = [
        ResponseType::Accepted,
        ResponseType::Declined,
        ResponseType::Timeout,
        ResponseType::Refused,
        ResponseType::Revoked,
    ];
    all.into_iter().find(|kind| kind.as_str() == name)
}

/// The UTC day of a time.
pub(super) fn date_of(at_ms: UnixMs) -> CqlDate {
    CqlDate(DATE_EPOCH + (at_ms / DAY_MS) as u32)
}

/// The date as Cassandra has it; `None` before 1970, of which there are no records.
pub(super) fn date(date: jiff::civil::Date) -> Option<CqlDate> {
    const EPOCH: jiff::civil::Date = jiff::civil::date(1970, 1, 1);
    let days = EPOCH.until(date).ok()?.get_days();
    Some(CqlDate(DATE_EPOCH + u32::try_from(days).ok()?))
}

pub(super) const fn timestamp(at_ms: UnixMs) -> CqlTimestamp {
    CqlTimestamp(at_ms as i64)
}

/// The write's own time, in microseconds: that of the event, so that a repeat is the same write and a later event wins.
const fn write_time(at_ms: UnixMs) -> i64 {
    at_ms as i64 * 1_000
}

/// Seconds to live for what happened at `from_ms`, 1 at least; `None`: it is over.
pub(super) fn ttl_s(from_ms: UnixMs, days: u32) -> Option<i32> {
    let end_ms = from_ms.saturating_add((u64::from(days) + 1) * DAY_MS);
    let left_ms = end_ms.checked_sub(now_ms())?;
    Some((left_ms / 1_000).clamp(1, TTL_S_MAX) as i32)
}

pub(super) fn number(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Nothing is left unset: a null would be a tombstone.
fn maybe<T>(value: Option<T>) -> MaybeUnset<T> {
    value.map_or(MaybeUnset::Unset, MaybeUnset::Set)
}
