//! The figures of `/metrics` follow what happens.

use crate::support::{Node, Setup, eventually, json, shards_1_and_4};

async fn until(node: &Node, name: &str, filter: &str, is: impl Fn(u64) -> bool) {
    let what = format!("{name} {filter}");
    eventually(&what, || async { is(node.metric(name, filter).await).then_some(()) }).await;
}

async fn figures_follow_a_request(setup: Setup) {
    let node = setup.start().await;
    let (mut first, mut second) = (node.driver("first").await, node.driver("second").await);
    node.offer("r1", &["first", "second"], &json!({})).await;
    let offer = first.expect("OFFER").await;
    until(&node, "dispatchd_offer_latency_seconds_count", "", |count| count == 1).await;
    node.post_offer("r1", &["first"], &json!({})).await.ok(200);
    assert_eq!(node.metric("dispatchd_requests_repeated_total", "").await, 1);
    // Another request waits for a driver who is offered to the first.
    node.offer("r2", &["first"], &json!({"busy_wait_ms": 60_000})).await;
    until(&node, "dispatchd_requests_waiting", "", |waiting| waiting == 1).await;
    first.decline(&offer).await;
    let other = first.expect("OFFER").await;
    until(&node, "dispatchd_requests_waiting", "", |waiting| waiting == 0).await;
    first.decline(&other).await;
    let offer = second.expect("OFFER").await;
    until(&node, "dispatchd_redispatch_latency_seconds_count", "", |count| {
        count == 1
    })
    .await;
    second.accept(&offer).await;
    until(&node, "dispatchd_confirm_latency_seconds_count", "", |count| count == 1).await;
    // The one that waited for a driver is in none of them.
    assert_eq!(node.metric("dispatchd_offer_latency_seconds_count", "").await, 1);
    assert!(node.metric("dispatchd_sent_bytes_total", "").await > 1_000);
    for kind in ["drivers", "connections", "timers", "requests", "receive_buffers"] {
        let kind = format!("kind=\"{kind}\"");
        until(&node, "dispatchd_memory_bytes", &kind, |bytes| bytes > 0).await;
    }
    until(&node, "dispatchd_store_commits_total", "", |commits| commits > 0).await;
    assert!(node.metric("dispatchd_store_commit_latency_seconds_count", "").await > 0);
    assert!(node.metric("dispatchd_store_events_kept_bytes", "").await > 0);
    assert!(node.metric("dispatchd_store_disk_bytes", "").await > 0);
    assert_eq!(node.metric("dispatchd_store_failures_total", "").await, 0);
}

/// V.7: receipts, which nobody waits for, become durable without anybody asking.
async fn receipts_are_stored_unasked(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("r1", &["d1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.answer("ACK", &offer).await;
    until(&node, "dispatchd_offers_total", "event=\"delivered\"", |count| {
        count == 1
    })
    .await;
    until(&node, "dispatchd_offers_total", "event=\"acked\"", |count| count == 1).await;
    // The driver seen, the request with its offer, and the two receipts.
    until(&node, "dispatchd_journal_records_total", "", |records| records == 4).await;
}

shards_1_and_4!(figures_follow_a_request, receipts_are_stored_unasked);
