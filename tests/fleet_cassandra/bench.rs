//! What Cassandra takes, side by side on the same node: single inserts, and the writer's batches. Prints, asserts no time.

use crate::cluster::{alone, unique};
use dispatchd::cold::CassandraConfig;
use dispatchd::cold::cassandra::Sink;
use dispatchd::cold::embedded::OutboxEntry;
use dispatchd::config::Config;
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::types::{RecordRow, ResponseType};
use std::time::Instant;

const ADDRESS: &str = "127.0.0.1:19042";

fn row(driver: &str, request: &str, at_ms: u64) -> RecordRow {
    RecordRow {
        driver_id: DriverId::parse(driver).unwrap(),
        offer_sent_at_ms: at_ms,
        request_id: RequestId::parse(request).unwrap(),
        attempt: 1,
        trip_id: None,
        response_type: ResponseType::Declined,
        response_at_ms: at_ms + 1,
    }
}

/// Rows per second of `entries`, written as `writes` at once.
async fn rows_per_s(keyspace: &str, writes: usize, entries: &[OutboxEntry], one_by_one: bool) -> f64 {
    let config = Config {
        fleet_cassandra_contact_points: ADDRESS.into(),
        fleet_cassandra_keyspace: keyspace.into(),
        fleet_cassandra_writes_max: writes as u32,
        fleet_cassandra_timeout_ms: 30_000,
        ..Config::default()
    };
    let config = CassandraConfig::of(&config).unwrap().unwrap();
    let sink = Sink::open(&config).await.unwrap();
    let began = Instant::now();
    if one_by_one {
        for entry in entries {
            sink.store(std::slice::from_ref(entry), "bench").await.unwrap();
        }
    } else {
        sink.store(entries, "bench").await.unwrap();
    }
    let rows: usize = entries.iter().map(|entry| entry.rows.len()).sum();
    rows as f64 / began.elapsed().as_secs_f64()
}

/// `partitions` drivers with `rows` rows each.
fn entries(partitions: usize, rows: usize) -> Vec<OutboxEntry> {
    let now = jiff::Timestamp::now().as_millisecond() as u64;
    let run = unique("b");
    let one = |number: usize| OutboxEntry {
        at_ms: now,
        rows: vec![row(
            &format!("{run}-{}", number % partitions),
            &format!("{run}-{number}"),
            now - number as u64,
        )],
        ended: None,
    };
    (0..partitions * rows).map(one).collect()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn rows_per_second_single_and_batched() {
    let Some(alone) = alone().await else { return };
    let keyspace = &alone.cluster.keyspace;
    // Both warm first.
    rows_per_s(keyspace, 64, &entries(20_000, 1), false).await;
    rows_per_s(keyspace, 8, &entries(400, 100), false).await;
    println!("| run | single, one at a time | single, 64 at once | batches of 100, 8 at once |");
    println!("|---|---|---|---|");
    for run in 1..=3 {
        let one = rows_per_s(keyspace, 1, &entries(3_000, 1), true).await;
        let many = rows_per_s(keyspace, 64, &entries(20_000, 1), false).await;
        let batched = rows_per_s(keyspace, 8, &entries(1_000, 100), false).await;
        println!("| {run} | {one:.0} rows/s | {many:.0} rows/s | {batched:.0} rows/s |");
    }
}
