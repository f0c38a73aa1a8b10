//! Measured side by side: what Cassandra takes in single inserts and in the writer's batches, and what its answer costs a new
//! request. Prints, asserts no time.

use crate::cluster::{ADDRESS, alone, unique};
use crate::support::{Node, Setup, json};
use dispatchd::cold::CassandraConfig;
use dispatchd::cold::cassandra::Sink;
use dispatchd::cold::embedded::OutboxEntry;
use dispatchd::config::Config;
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::types::{RecordRow, ResponseType};
use std::time::{Duration, Instant};

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
#[ignore = "a measurement: ./test --long"]
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

/// The time of each of `count` new requests, one at a time, sorted.
async fn post_times(node: &Node, count: usize) -> Vec<Duration> {
    let driver = unique("d");
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let id = unique("l");
        let began = Instant::now();
        node.offer(&id, &[&driver], &json!({})).await;
        times.push(began.elapsed());
        node.cancel(&id).await.ok(200);
    }
    times.sort();
    times
}

/// What asking Cassandra for a new id adds to its POST.
#[tokio::test]
#[ignore = "a measurement: ./test --long"]
async fn posts_with_and_without_cassandra() {
    let Some(alone) = alone().await else { return };
    let with = alone.cluster.node(&unique("n")).start().await;
    let without = Setup::shards(2).start().await;
    post_times(&with, 300).await;
    println!("| run | node | POST → 202, p50 | p99 |");
    println!("|---|---|---|---|");
    for run in 1..=3 {
        for (name, node) in [("without Cassandra", &without), ("with Cassandra", &with)] {
            let times = post_times(node, 500).await;
            println!("| {run} | {name} | {:.1?} | {:.1?} |", times[250], times[494]);
        }
    }
}
