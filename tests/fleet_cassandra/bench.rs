//! Measured side by side: what Cassandra's answer costs a new request. Prints, asserts no time.

use crate::cluster::{alone, unique};
use crate::support::{Node, Setup, json};
use std::time::{Duration, Instant};

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
