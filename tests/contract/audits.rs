//! Audits as snapshots: the canonical scenarios, each with exactly the events it must leave behind. Every answer is given
//! only after the receipt of the offer stands in the audit, so that there is one right order.

use crate::support::{Driver, Node, Setup, Value, json, shape, shards_1_and_4};

/// Posts for these candidates and reads the offer of attempt `attempt`, delivered and acknowledged.
async fn received(node: &Node, driver: &mut Driver, request_id: &str, attempt: u64) -> Value {
    let offer = driver.expect("OFFER").await;
    assert_eq!(offer["attempt"], attempt);
    node.until_audit(request_id, &format!("OFFER_DELIVERED {attempt}"))
        .await;
    driver.answer("ACK", &offer).await;
    node.until_audit(request_id, &format!("OFFER_ACKED {attempt}")).await;
    offer
}

/// Compares an audit before and after a crash, and with the snapshot.
async fn check(node: &mut Node, request_id: &str, state: &str, snapshot: &'static str) {
    node.assert_audit(request_id, &shape(snapshot)).await;
    let before = node.audit_body(request_id).await;
    assert_eq!(before["state"], state);
    node.crash_and_restart().await;
    assert_eq!(node.audit_body(request_id).await, before, "the same after a crash");
}

/// H7.1, H7.2, H7.3, V.7: offered, acknowledged, accepted, driven.
async fn accepted(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("r1", &["d1"], &json!({})).await;
    let offer = received(&node, &mut driver, "r1", 1).await;
    let trip_id = driver.accept(&offer).await;
    driver.trip(&trip_id, "arrived").await;
    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
    let snapshot = "
        REQUEST_RECEIVED
        OFFER_SENT 1 d1
        OFFER_DELIVERED 1
        OFFER_ACKED 1
        OFFER_ACCEPTED 1
        TRIP_CREATED
        TRIP_PICKED_UP
        TRIP_ENDED";
    check(&mut node, "r1", "ACCEPTED", snapshot).await;
}

/// H7.3: declined by the first, timed out with the second, accepted by the third.
async fn declined_timed_out_accepted(setup: Setup) {
    let mut node = setup.start().await;
    let (mut a, mut b, mut c) = (node.driver("a").await, node.driver("b").await, node.driver("c").await);
    node.offer("r1", &["a", "b", "c"], &json!({"offer_timeout_ms": 3000}))
        .await;
    let offer = received(&node, &mut a, "r1", 1).await;
    a.decline(&offer).await;
    let offer = received(&node, &mut b, "r1", 2).await;
    b.expect_revoked(&offer, "timeout").await;
    let offer = received(&node, &mut c, "r1", 3).await;
    c.accept(&offer).await;
    let snapshot = "
        REQUEST_RECEIVED
        OFFER_SENT 1 a
        OFFER_DELIVERED 1
        OFFER_ACKED 1
        OFFER_DECLINED 1
        OFFER_SENT 2 b
        OFFER_DELIVERED 2
        OFFER_ACKED 2
        OFFER_TIMED_OUT 2
        OFFER_SENT 3 c
        OFFER_DELIVERED 3
        OFFER_ACKED 3
        OFFER_ACCEPTED 3
        TRIP_CREATED";
    check(&mut node, "r1", "ACCEPTED", snapshot).await;
}

/// H7.3: nobody left, new candidates, cancelled.
async fn exhausted_redispatched_cancelled(setup: Setup) {
    let mut node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    node.offer("r1", &["nobody", "a"], &json!({})).await;
    let offer = received(&node, &mut a, "r1", 2).await;
    a.decline(&offer).await;
    node.until_event("r1", "REDISPATCH_REQUESTED").await;
    node.offer("r1", &["b"], &json!({})).await;
    let offer = received(&node, &mut b, "r1", 3).await;
    node.cancel("r1").await.ok(200);
    b.expect_revoked(&offer, "cancelled").await;
    let snapshot = "
        REQUEST_RECEIVED
        OFFER_REFUSED 1 nobody
        OFFER_SENT 2 a
        OFFER_DELIVERED 2
        OFFER_ACKED 2
        OFFER_DECLINED 2
        CANDIDATES_EXHAUSTED
        REDISPATCHED
        OFFER_SENT 3 b
        OFFER_DELIVERED 3
        OFFER_ACKED 3
        { OFFER_REVOKED 3 | REQUEST_CANCELLED }";
    check(&mut node, "r1", "CANCELLED", snapshot).await;
}

/// H7.3: attempts used up.
async fn unfulfilled(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("r1", &["d1"], &json!({"max_attempts": 1})).await;
    let offer = received(&node, &mut driver, "r1", 1).await;
    driver.decline(&offer).await;
    let snapshot = "
        REQUEST_RECEIVED
        OFFER_SENT 1 d1
        OFFER_DELIVERED 1
        OFFER_ACKED 1
        OFFER_DECLINED 1
        REQUEST_UNFULFILLED";
    check(&mut node, "r1", "UNFULFILLED", snapshot).await;
}

/// H7.3: a parallel offer with a winner, and its trip cancelled by the caller.
async fn parallel_taken(setup: Setup) {
    let mut node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    node.offer("r1", &["a", "b"], &json!({"parallel": 2})).await;
    let lost = received(&node, &mut a, "r1", 1).await;
    let won = received(&node, &mut b, "r1", 2).await;
    let trip_id = b.accept(&won).await;
    a.expect_revoked(&lost, "taken").await;
    node.cancel_trip(&trip_id).await.ok(200);
    let snapshot = "
        REQUEST_RECEIVED
        { OFFER_SENT 1 a | OFFER_SENT 2 b | OFFER_DELIVERED 1 | OFFER_DELIVERED 2 | OFFER_ACKED 1 | OFFER_ACKED 2 }
        OFFER_ACCEPTED 2
        { OFFER_REVOKED 1 | TRIP_CREATED }
        TRIP_ENDED";
    check(&mut node, "r1", "ACCEPTED", snapshot).await;
}

/// H7.2: an offer that goes out again after a restart keeps its place: the audit before is a prefix of the one after,
/// and is never rewritten.
async fn only_grows(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("r1", &["d1"], &json!({"offer_timeout_ms": 600_000})).await;
    received(&node, &mut driver, "r1", 1).await;
    let mut before = node.audit("r1").await;
    for _ in 0..3 {
        node.crash_and_restart().await;
        let mut driver = node.driver("d1").await;
        driver.expect("OFFER").await;
        let after = node.audit("r1").await;
        assert_eq!(after[..before.len()], before[..]);
        before = after;
    }
    assert_eq!(crate::support::audit::count(&before, "OFFER_SENT"), 1, "{before:#?}");
}

shards_1_and_4!(
    accepted,
    declined_timed_out_accepted,
    exhausted_redispatched_cancelled,
    unfulfilled,
    parallel_taken,
    only_grows,
);
