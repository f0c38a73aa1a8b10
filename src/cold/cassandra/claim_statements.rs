//! Statements with which a fleet decides, and how decisions become values.

use super::session::CassandraError;
use super::statements::{STEPS_FORMAT_VERSION, number, prepare, timestamp, ttl_s};
use super::{CassandraConfig, now_ms};
use crate::cold::claims::Head;
use crate::cold::embedded::Encoder;
use crate::cold::owner::{Before, Ownership, Steps};
use crate::cold::port::StoreError;
use crate::fsm::ids::RequestId;
use crate::fsm::types::UnixMs;
use scylla::client::session::Session;
use scylla::statement::Consistency;
use scylla::statement::prepared::PreparedStatement;
use scylla::value::CqlTimestamp;

/// What claims say to Cassandra.
pub(super) struct ClaimStatements {
    /// Conditional: the request is new.
    pub(super) claim: PreparedStatement,
    /// Conditional: the request is as its owner thinks.
    pub(super) change: PreparedStatement,
    pub(super) insert_steps: PreparedStatement,
    pub(super) insert_receipts: PreparedStatement,
    /// Serial.
    pub(super) select_owner: PreparedStatement,
    /// Serial.
    pub(super) select_whole: PreparedStatement,
    pub(super) bind: PreparedStatement,
    pub(super) rebind: PreparedStatement,
    pub(super) unbind: PreparedStatement,
    /// Serial.
    pub(super) select_binding: PreparedStatement,
    pub(super) insert_trip: PreparedStatement,
    pub(super) insert_open: PreparedStatement,
    pub(super) delete_open: PreparedStatement,
    pub(super) select_open: PreparedStatement,
    pub(super) insert_bucket: PreparedStatement,
    pub(super) delete_bucket: PreparedStatement,
    pub(super) select_buckets: PreparedStatement,
    pub(super) select_owners: PreparedStatement,
}

/// Columns of a request's rows, as [`super::statements::RequestFound`] has them.
pub(super) const REQUEST_COLUMNS: &str =
    "epoch, seq, steps, receipts, node, owner, incarnation, owner_epoch, length, trip_id, ended_at";

/// Values of `claim`.
pub(super) type ClaimValues = (
    String,
    String,
    i64,
    i32,
    i32,
    &'static str,
    i32,
    Option<String>,
    Option<String>,
    Option<CqlTimestamp>,
    i32,
);

/// Values of `change`.
pub(super) type ChangeValues = (
    i32,
    String,
    i64,
    i32,
    i32,
    &'static str,
    i32,
    Option<String>,
    Option<String>,
    Option<CqlTimestamp>,
    String,
    String,
    i64,
    i32,
    i32,
);

/// Values of `insert_steps` and `insert_receipts`.
pub(super) type StepsValues = (String, i32, i32, Vec<u8>, String, i32);

impl ClaimStatements {
    /// Prepares all of them. Every one may be repeated: what became of a conditional one is settled by looking.
    ///
    /// # Errors
    /// Cassandra does not answer, or a table is not as it should be.
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, CassandraError> {
        let prepare = async |text: String| prepare(session, text).await;
        let serial = async |text: String| {
            let mut prepared = prepare(text).await?;
            prepared.set_consistency(Consistency::LocalSerial);
            Ok::<_, CassandraError>(prepared)
        };
        let requests = format!("{keyspace}.requests");
        let bindings = format!("{keyspace}.bindings");
        let (open, buckets) = (format!("{keyspace}.open_requests"), format!("{keyspace}.open_buckets"));
        let heads = "owner, incarnation, owner_epoch, length, state, attempt, driver_id, trip_id, ended_at";
        Ok(Self {
            claim: prepare(format!(
                "INSERT INTO {requests} (request_id, {heads}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS USING TTL ?"
            ))
            .await?,
            change: prepare(format!(
                "UPDATE {requests} USING TTL ? SET owner = ?, incarnation = ?, owner_epoch = ?, length = ?, state = ?, \
                 attempt = ?, driver_id = ?, trip_id = ?, ended_at = ? WHERE request_id = ? \
                 IF owner = ? AND incarnation = ? AND owner_epoch = ? AND length = ?"
            ))
            .await?,
            insert_steps: prepare(format!(
                "INSERT INTO {requests} (request_id, epoch, seq, steps, node) VALUES (?, ?, ?, ?, ?) USING TTL ?"
            ))
            .await?,
            insert_receipts: prepare(format!(
                "INSERT INTO {requests} (request_id, epoch, seq, receipts, node) VALUES (?, ?, ?, ?, ?) USING TTL ?"
            ))
            .await?,
            select_owner: serial(format!(
                "SELECT owner, incarnation, owner_epoch, length, ended_at FROM {requests} WHERE request_id = ? LIMIT 1"
            ))
            .await?,
            select_whole: serial(format!("SELECT {REQUEST_COLUMNS} FROM {requests} WHERE request_id = ?")).await?,
            bind: prepare(format!(
                "INSERT INTO {bindings} (driver_id, request_id, trip_id) VALUES (?, ?, ?) IF NOT EXISTS USING TTL ?"
            ))
            .await?,
            rebind: prepare(format!(
                "UPDATE {bindings} USING TTL ? SET request_id = ?, trip_id = ? WHERE driver_id = ? IF request_id = ?"
            ))
            .await?,
            unbind: prepare(format!("DELETE FROM {bindings} WHERE driver_id = ? IF request_id = ?")).await?,
            select_binding: serial(format!("SELECT request_id FROM {bindings} WHERE driver_id = ?")).await?,
            insert_trip: prepare(format!(
                "INSERT INTO {keyspace}.trips (trip_id, request_id) VALUES (?, ?) USING TTL ?"
            ))
            .await?,
            insert_open: prepare(format!("INSERT INTO {open} (owner, bucket, request_id) VALUES (?, ?, ?) USING TIMESTAMP ?")).await?,
            delete_open: prepare(format!(
                "DELETE FROM {open} USING TIMESTAMP ? WHERE owner = ? AND bucket = ? AND request_id = ?"
            ))
            .await?,
            select_open: prepare(format!("SELECT request_id FROM {open} WHERE owner = ? AND bucket = ?")).await?,
            insert_bucket: prepare(format!("INSERT INTO {buckets} (owner, bucket) VALUES (?, ?) USING TIMESTAMP ?")).await?,
            delete_bucket: prepare(format!(
                "DELETE FROM {buckets} USING TIMESTAMP ? WHERE owner = ? AND bucket = ?"
            ))
            .await?,
            select_buckets: prepare(format!("SELECT bucket FROM {buckets} WHERE owner = ?")).await?,
            select_owners: prepare(format!("SELECT DISTINCT owner FROM {buckets}")).await?,
        })
    }
}

/// A request may be open for so long and is remembered for its retention after its end all the same.
const OPEN_DAYS: u64 = 7;
const DAY_MS: u64 = 86_400_000;

/// Seconds that what is written of a request lives from now on. All of it expires at one time, which follows from when the
/// request was received: what is left of a request would be one that nobody can read and nobody can claim. One that is
/// open for longer lives a day from its last decision.
pub(super) fn request_ttl_s(config: &CassandraConfig, received_at_ms: UnixMs) -> i32 {
    let now_ms = now_ms();
    let ends_from_ms = (received_at_ms + OPEN_DAYS * DAY_MS).max(now_ms.saturating_sub(kept_ms(config)));
    ttl_s(ends_from_ms, config.ended_retention_days).unwrap_or((DAY_MS / 1_000) as i32)
}

fn kept_ms(config: &CassandraConfig) -> u64 {
    u64::from(config.ended_retention_days) * DAY_MS
}

pub(super) fn claim_values(config: &CassandraConfig, own: &Ownership<'_>) -> ClaimValues {
    let (driver_id, trip_id, ended_at) = head_values(own.head);
    (
        own.request_id.to_string(),
        config.node_id.clone(),
        own.incarnation as i64,
        number(own.epoch),
        number(own.length),
        own.head.state.as_str(),
        number(own.head.attempt),
        driver_id,
        trip_id,
        ended_at,
        request_ttl_s(config, own.received_at_ms),
    )
}

/// The head as it becomes, and the owner as it must be.
pub(super) fn change_values(config: &CassandraConfig, own: &Ownership<'_>, before: Before<'_>) -> ChangeValues {
    let (driver_id, trip_id, ended_at) = head_values(own.head);
    (
        request_ttl_s(config, own.received_at_ms),
        config.node_id.clone(),
        own.incarnation as i64,
        number(own.epoch),
        number(own.length),
        own.head.state.as_str(),
        number(own.head.attempt),
        driver_id,
        trip_id,
        ended_at,
        own.request_id.to_string(),
        before.owner.to_owned(),
        before.incarnation as i64,
        number(before.epoch),
        number(before.length),
    )
}

fn head_values(head: &Head) -> (Option<String>, Option<String>, Option<CqlTimestamp>) {
    (
        head.driver_id.as_ref().map(ToString::to_string),
        head.trip_id.as_ref().map(ToString::to_string),
        head.ended_at_ms.map(timestamp),
    )
}

/// Steps as a row.
///
/// # Errors
/// Out of memory only.
pub(super) fn steps_values(
    config: &CassandraConfig,
    request_id: &RequestId,
    epoch: u32,
    Steps { seq, entries }: Steps<'_>,
    received_at_ms: UnixMs,
) -> Result<StepsValues, StoreError> {
    let mut encoder = Encoder::default();
    let encoded = encoder.encode(&entries.to_vec())?;
    let mut bytes = Vec::with_capacity(encoded.len() + 1);
    bytes.push(STEPS_FORMAT_VERSION);
    bytes.extend_from_slice(encoded);
    Ok((
        request_id.to_string(),
        number(epoch),
        number(seq),
        bytes,
        config.node_id.clone(),
        request_ttl_s(config, received_at_ms),
    ))
}
