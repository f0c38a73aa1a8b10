//! `busy_wait_ms`: waiting for a driver who holds an offer of another request.

use crate::support::{Driver, Node, Setup, Value, json, number, shards_1_and_4, sorted_texts};

/// The longest wait allowed: longer than any test takes.
const LONG_MS: u32 = 60_000;

/// A driver that holds the offer of `r0`, which never times out by itself.
async fn offered(node: &Node, id: &str) -> (Driver, Value) {
    let mut driver = node.driver(id).await;
    node.offer("r0", &[id], &json!({"offer_timeout_ms": 600_000})).await;
    let offer = driver.expect("OFFER").await;
    (driver, offer)
}

/// Posts a request that waits for `driver_id`, and sees that it does.
async fn waiting(node: &Node, request_id: &str, candidates: &[&str], priority: &str) {
    let more = json!({"busy_wait_ms": LONG_MS, "priority": priority});
    node.offer(request_id, candidates, &more).await;
    node.until_state(request_id, "PENDING_MATCH").await;
}

/// H2.11, H2.12, S.1: the request waits as `PENDING_MATCH`, is a duplicate meanwhile, and gets the driver when its other
/// offer is declined.
async fn waits_for_a_busy_driver(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, first) = offered(&node, "d1").await;
    waiting(&node, "r1", &["d1"], "standard").await;
    let again = node
        .post_offer("r1", &["d1"], &json!({"busy_wait_ms": LONG_MS}))
        .await
        .ok(200);
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["state"], "PENDING_MATCH");
    driver.fence().await;
    driver.decline(&first).await;
    let second = driver.expect("OFFER").await;
    assert_eq!((&second["request_id"], &second["attempt"]), (&json!("r1"), &json!(1)));
    driver.accept(&second).await;
    assert_eq!(node.view("r1").await["state"], "ACCEPTED");
}

/// H2.11: the other offer's timeout or cancel frees the driver as well.
async fn waits_for_every_end_of_the_other_offer(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("r0", &["d1"], &json!({"offer_timeout_ms": 1000})).await;
    let first = driver.expect("OFFER").await;
    waiting(&node, "r1", &["d1"], "standard").await;
    waiting(&node, "r2", &["d1"], "standard").await;
    driver.expect_revoked(&first, "timeout").await;
    let second = driver.expect("OFFER").await;
    assert_eq!(second["request_id"], "r1");
    node.cancel("r1").await.ok(200);
    driver.expect_revoked(&second, "cancelled").await;
    let third = driver.expect("OFFER").await;
    assert_eq!(third["request_id"], "r2");
    driver.accept(&third).await;
}

/// H2.11: while another candidate is free nobody waits.
async fn free_candidates_first(setup: Setup) {
    let node = setup.start().await;
    let (mut busy, first) = offered(&node, "busy").await;
    let mut free = node.driver("free").await;
    let more = json!({"busy_wait_ms": LONG_MS});
    node.offer("r1", &["busy", "free"], &more).await;
    let offer = free.expect("OFFER").await;
    assert_eq!(offer["request_id"], "r1");
    // Not refused: when the free one declines, the busy one is waited for.
    free.decline(&offer).await;
    node.until_state("r1", "PENDING_MATCH").await;
    assert!(!sorted_texts(&node.view("r1").await, "excluded").contains(&"busy".to_owned()));
    busy.fence().await;
    busy.decline(&first).await;
    let offer = busy.expect("OFFER").await;
    assert_eq!(offer["request_id"], "r1");
    busy.accept(&offer).await;
}

/// H2.13, V.6: a driver's queue: premium before standard before economy, first come first served inside a class.
async fn the_queue_has_an_order(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, mut offer) = offered(&node, "d1").await;
    let posted = [
        ("economy-1", "economy"),
        ("standard-1", "standard"),
        ("premium-1", "premium"),
        ("standard-2", "standard"),
        ("economy-2", "economy"),
        ("premium-2", "premium"),
    ];
    for (request_id, priority) in posted {
        waiting(&node, request_id, &["d1"], priority).await;
    }
    let served = [
        "premium-1",
        "premium-2",
        "standard-1",
        "standard-2",
        "economy-1",
        "economy-2",
    ];
    for request_id in served {
        driver.decline(&offer).await;
        offer = driver.expect("OFFER").await;
        assert_eq!(offer["request_id"], request_id);
    }
    driver.decline(&offer).await;
    driver.fence().await;
}

/// H2.14: a driver waited for that takes the other offer is refused at once, for everyone who waits.
async fn taken_while_waiting_is_refused(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, first) = offered(&node, "d1").await;
    for request_id in ["r1", "r2"] {
        waiting(&node, request_id, &["d1"], "standard").await;
    }
    driver.accept(&first).await;
    // Long before the wait is over.
    for request_id in ["r1", "r2"] {
        node.until_audit(request_id, "OFFER_REFUSED 1 d1").await;
        let event = node.until_event(request_id, "REDISPATCH_REQUESTED").await;
        assert_eq!(sorted_texts(&event, "excluded"), ["d1"]);
    }
    driver.fence().await;
}

/// H2.14: also one that goes off shift.
async fn off_shift_while_waiting_is_refused(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, _) = offered(&node, "d1").await;
    waiting(&node, "r1", &["d1"], "standard").await;
    driver.send(&json!({"type": "STATE", "state": "offline"})).await;
    node.until_audit("r1", "OFFER_REFUSED 1 d1").await;
    node.until_event("r1", "REDISPATCH_REQUESTED").await;
    assert!(driver.drain().await.iter().all(|message| message["type"] != "OFFER"));
}

/// H2.11: it waits at most `busy_wait_ms`, then the driver counts as refused.
async fn the_wait_ends(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, first) = offered(&node, "d1").await;
    node.offer("r1", &["d1"], &json!({"busy_wait_ms": 200})).await;
    node.until_audit("r1", "OFFER_REFUSED 1 d1").await;
    let event = node.until_event("r1", "REDISPATCH_REQUESTED").await;
    assert_eq!(sorted_texts(&event, "excluded"), ["d1"]);
    driver.decline(&first).await;
    driver.fence().await;
}

/// H2.15: who is offline, en route or on a trip is not waited for.
async fn only_the_offered_are_waited_for(setup: Setup) {
    let node = setup.start().await;
    let mut en_route = node.driver("en-route").await;
    node.offer("r0", &["en-route"], &json!({})).await;
    let offer = en_route.expect("OFFER").await;
    en_route.accept(&offer).await;
    node.offer("r1", &["nobody", "en-route"], &json!({"busy_wait_ms": LONG_MS}))
        .await;
    let event = node.until_event("r1", "REDISPATCH_REQUESTED").await;
    assert_eq!(sorted_texts(&event, "excluded"), ["en-route", "nobody"]);
    assert_eq!(number(&event, "attempts"), 2);
}

/// H2.11, H4.1: a request that is cancelled while it waits does not get the driver.
async fn cancelled_while_waiting(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, first) = offered(&node, "d1").await;
    waiting(&node, "r1", &["d1"], "premium").await;
    waiting(&node, "r2", &["d1"], "economy").await;
    node.cancel("r1").await.ok(200);
    driver.decline(&first).await;
    let offer = driver.expect("OFFER").await;
    assert_eq!(offer["request_id"], "r2");
    driver.accept(&offer).await;
    driver.fence().await;
}

/// H2.11, S.4: the deadline ends a request that waits.
async fn deadline_ends_the_wait(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, first) = offered(&node, "d1").await;
    let more = json!({"busy_wait_ms": LONG_MS, "deadline_ms": 300});
    node.offer("r1", &["d1"], &more).await;
    node.until_event("r1", "REQUEST_UNFULFILLED").await;
    driver.decline(&first).await;
    driver.fence().await;
}

/// H2.16, H2.12: new candidates of a re-POST while it waits are taken: a free one gets the offer.
async fn new_candidates_while_waiting(setup: Setup) {
    let node = setup.start().await;
    let (_busy, _) = offered(&node, "busy").await;
    let mut free = node.driver("free").await;
    waiting(&node, "r1", &["busy"], "standard").await;
    let answer = node.post_offer("r1", &["busy", "free"], &json!({})).await;
    assert_eq!(answer.ok(202)["duplicate"], false);
    let offer = free.expect("OFFER").await;
    assert_eq!(offer["request_id"], "r1");
    free.accept(&offer).await;
}

/// H2.11, V.4: a request that waited at a crash is not forgotten: it gets the driver, or asks for others.
async fn the_wait_survives_a_crash(setup: Setup) {
    let mut node = setup.start().await;
    let (_, first) = offered(&node, "d1").await;
    waiting(&node, "r1", &["d1"], "standard").await;
    node.crash_and_restart().await;
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.expect("OFFER").await["request_id"], "r0");
    driver.answer("DECLINE", &first).await;
    driver.expect_declined(&first).await;
    let event = crate::support::eventually("an end of the wait", || async {
        let view = node.view("r1").await;
        let tried = sorted_texts(&view, "excluded") == ["d1"];
        (tried || view["state"] == "OFFER_SENT").then_some(view)
    })
    .await;
    if event["state"] == "OFFER_SENT" {
        assert_eq!(driver.expect("OFFER").await["request_id"], "r1");
    }
}

shards_1_and_4!(
    waits_for_a_busy_driver,
    waits_for_every_end_of_the_other_offer,
    free_candidates_first,
    the_queue_has_an_order,
    taken_while_waiting_is_refused,
    off_shift_while_waiting_is_refused,
    the_wait_ends,
    only_the_offered_are_waited_for,
    cancelled_while_waiting,
    deadline_ends_the_wait,
    new_candidates_while_waiting,
    the_wait_survives_a_crash,
);
