//! The steps of the schema, and what stands in the tables that they make.
//!
//! - `dispatch_records`: a partition per driver and UTC day, newest first. A day of a driver is at most some thousand rows.
//! - `requests`: a partition per request. What stands once per request is static, the steps are rows in order. The owner adds
//!   rows conditionally (`IF owner = … AND incarnation = … AND length = …` in one batch with them), without reading the log;
//!   `length` counts the steps stored. `epoch` counts owners, since incarnations of two nodes have no order; `owner_epoch` is the
//!   present one. `receipts` are steps that decide nothing and that an owner had not stored when it lost the request: cells that no
//!   condition ever covers.
//! - `open_requests`: ids of a node's open requests, for those who take over from it. A partition holds those that were received
//!   within one minute, so that deletes of ended ones never add up in front of a reader. `open_buckets` lists these minutes.
//! - `bindings`: the driver's trip, or the acceptance under way. One row a driver, conditional writes alone.
//! - `trips`: the request of a trip.
//! - `beats`: a number of each node that holds its lease, another one each second, so that who sees no lease of it does not take it for dead.
//! - `schema_migrations`: which migrations were applied, and when.
//!
//! Rows of records and requests are written once, live for the retention and expire; nothing is deleted. Hence:
//! - **`TimeWindowCompactionStrategy`**, windows of a thirtieth of the retention, a day at least: what is written together expires
//!   together, and a table of files goes as a whole, without being compacted once more.
//! - **`gc_grace_seconds` of a day**: there are no deletes that could come back, so the ten days of the default would only keep
//!   expired data on disk. It bounds hints too, which live three hours.
//! - **A time to live on every row**, counted from the event; the table's default is for rows that somebody writes by hand.
//! - **A small false-positive chance of the filters of `requests`**: most ids that are asked for are new, and each false
//!   positive in one of about thirty windows is a read of the disk in the way of an offer.

use crate::cold::cassandra::CassandraConfig;

/// Windows of the compaction in one retention.
const WINDOWS: u32 = 30;
const DAY_S: u32 = 86_400;
/// How long a delete is remembered: as long as a hint. One that comes back names a request that is over, or a trip that is, and
/// whoever reads it looks there.
const CHANGING_GRACE_S: u32 = 3 * 3_600;

/// A step of the schema.
pub(super) struct Migration {
    pub(super) version: i32,
    pub(super) name: &'static str,
    pub(super) statements: fn(&CassandraConfig) -> Vec<String>,
    /// What it leaves: table, column, type as a statement that adds it has it.
    pub(super) columns: &'static [(&'static str, &'static str, &'static str)],
}

/// All of them, from version 1 on without gaps. What was released is never changed.
pub(super) static MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "records, requests and what owns them",
        statements: tables,
        columns: &[
            ("dispatch_records", "driver_id", "text"),
            ("dispatch_records", "date", "date"),
            ("dispatch_records", "dispatch_timestamp", "timestamp"),
            ("dispatch_records", "request_id", "text"),
            ("dispatch_records", "attempt", "int"),
            ("dispatch_records", "trip_id", "text"),
            ("dispatch_records", "offer_sent_at", "timestamp"),
            ("dispatch_records", "response_type", "text"),
            ("dispatch_records", "response_at", "timestamp"),
            ("dispatch_records", "gateway_node_id", "text"),
            ("requests", "request_id", "text"),
            ("requests", "epoch", "int"),
            ("requests", "seq", "int"),
            ("requests", "steps", "blob"),
            ("requests", "state", "text static"),
            ("requests", "attempt", "int static"),
            ("requests", "driver_id", "text static"),
            ("requests", "trip_id", "text static"),
            ("requests", "owner", "text static"),
            ("requests", "incarnation", "bigint static"),
            ("requests", "ended_at", "timestamp static"),
            ("requests", "owner_epoch", "int static"),
            ("requests", "length", "int static"),
            ("requests", "node", "text"),
            ("requests", "receipts", "blob"),
            ("open_requests", "owner", "text"),
            ("open_requests", "bucket", "bigint"),
            ("open_requests", "request_id", "text"),
            ("open_buckets", "owner", "text"),
            ("open_buckets", "bucket", "bigint"),
            ("bindings", "driver_id", "text"),
            ("bindings", "request_id", "text"),
            ("bindings", "trip_id", "text"),
            ("trips", "trip_id", "text"),
            ("trips", "request_id", "text"),
        ],
    },
    Migration {
        version: 2,
        name: "who lives",
        statements: beats,
        columns: &[("beats", "node", "text"), ("beats", "beat", "bigint")],
    },
];

/// The version that this program needs.
pub(super) const VERSION: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

fn tables(config: &CassandraConfig) -> Vec<String> {
    let keyspace = &config.keyspace;
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.dispatch_records (
                driver_id text, date date, dispatch_timestamp timestamp, request_id text, attempt int, trip_id text,
                offer_sent_at timestamp, response_type text, response_at timestamp, gateway_node_id text,
                PRIMARY KEY ((driver_id, date), dispatch_timestamp, request_id, attempt)
            ) WITH CLUSTERING ORDER BY (dispatch_timestamp DESC, request_id ASC, attempt DESC) AND {}",
            expiring(config.records_retention_days)
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.requests (
                request_id text, epoch int, seq int, steps blob, receipts blob, node text,
                state text static, attempt int static, driver_id text static, trip_id text static,
                owner text static, incarnation bigint static, owner_epoch int static, length int static,
                ended_at timestamp static,
                PRIMARY KEY ((request_id), epoch, seq)
            ) WITH CLUSTERING ORDER BY (epoch ASC, seq ASC) AND bloom_filter_fp_chance = 0.001 AND {}",
            expiring(config.ended_retention_days)
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.trips (trip_id text PRIMARY KEY, request_id text) WITH {}",
            expiring(config.ended_retention_days)
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.open_requests (
                owner text, bucket bigint, request_id text, PRIMARY KEY ((owner, bucket), request_id)
            ) WITH {}",
            changing(config.ended_retention_days)
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.open_buckets (
                owner text, bucket bigint, PRIMARY KEY ((owner), bucket)
            ) WITH {}",
            changing(config.ended_retention_days)
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.bindings (
                driver_id text PRIMARY KEY, request_id text, trip_id text
            ) WITH {}",
            changing(config.ended_retention_days)
        ),
    ]
}

/// Options of a table whose rows expire after so many days.
fn expiring(days: u32) -> String {
    let (window, ttl_s) = (days.div_ceil(WINDOWS).max(1), u64::from(days + 1) * u64::from(DAY_S));
    format!(
        "compaction = {{'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', \
         'compaction_window_size': {window}}} AND gc_grace_seconds = {DAY_S} AND default_time_to_live = {ttl_s}"
    )
}

/// Options of a table whose rows are deleted: they live for hours, and a tombstone no longer than a hint.
fn changing(days: u32) -> String {
    let ttl_s = u64::from(days + 1) * u64::from(DAY_S);
    format!("gc_grace_seconds = {CHANGING_GRACE_S} AND default_time_to_live = {ttl_s}")
}

fn beats(config: &CassandraConfig) -> Vec<String> {
    vec![format!(
        "CREATE TABLE IF NOT EXISTS {}.beats (node text PRIMARY KEY, beat bigint) \
         WITH gc_grace_seconds = {CHANGING_GRACE_S} AND default_time_to_live = {DAY_S}",
        config.keyspace
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_no_gaps() {
        for (at, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version, at as i32 + 1);
        }
    }

    #[test]
    fn windows_follow_the_retention() {
        assert!(expiring(7).contains("'compaction_window_size': 1}"));
        assert!(expiring(30).contains("'compaction_window_size': 1}") && expiring(30).ends_with(" = 2678400"));
        assert!(expiring(365).contains("'compaction_window_size': 13}"));
    }
}
