//! What ends a search: the deadline and `max_attempts`.

use crate::support::{Setup, json, shape, shards_1_and_4, sorted_texts};

/// S.3, S.4: at the deadline an open offer ends as `timeout`, and the request as `UNFULFILLED`.
async fn deadline_ends_an_open_offer(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    let more = json!({"deadline_ms": 500, "offer_timeout_ms": 600_000});
    node.offer("r1", &["a", "b"], &more).await;
    let offer = a.expect("OFFER").await;
    let view = node.view("r1").await;
    assert_eq!(offer["expires_at_ms"], view["deadline_at_ms"]);
    a.expect_revoked(&offer, "timeout").await;
    node.until_event("r1", "REQUEST_UNFULFILLED").await;
    assert_eq!(node.view("r1").await["state"], "UNFULFILLED");
    node.assert_audit(
        "r1",
        &shape("REQUEST_RECEIVED \n OFFER_SENT 1 a \n ? OFFER_DELIVERED 1 \n OFFER_TIMED_OUT 1 \n REQUEST_UNFULFILLED"),
    )
    .await;
    node.assert_events("r1", &["REQUEST_UNFULFILLED"]).await;
    a.fence().await;
    b.fence().await;
}

/// S.4, V.4: the deadline ends a request that has no candidates left, without anyone asking.
async fn deadline_ends_a_pending_request(setup: Setup) {
    let node = setup.start().await;
    node.offer("r1", &["nobody"], &json!({"deadline_ms": 500})).await;
    node.assert_events("r1", &["REDISPATCH_REQUESTED", "REQUEST_UNFULFILLED"])
        .await;
    let view = node.view("r1").await;
    assert_eq!(view["state"], "UNFULFILLED");
    node.post_offer("r1", &["new"], &json!({})).await.problem(409, "ended");
}

/// S.3, H2.10: attempts used up end the request, and win over candidates that run out at the same time.
async fn attempts_end_a_request(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b, mut c) = (node.driver("a").await, node.driver("b").await, node.driver("c").await);
    node.offer("r1", &["a", "b", "c"], &json!({"max_attempts": 2})).await;
    let offer = a.expect("OFFER").await;
    a.decline(&offer).await;
    let offer = b.expect("OFFER").await;
    b.decline(&offer).await;
    node.until_event("r1", "REQUEST_UNFULFILLED").await;
    c.fence().await;
    node.assert_audit(
        "r1",
        &shape(
            "REQUEST_RECEIVED
             OFFER_SENT 1 a
             ? OFFER_DELIVERED 1
             OFFER_DECLINED 1
             OFFER_SENT 2 b
             ? OFFER_DELIVERED 2
             OFFER_DECLINED 2
             REQUEST_UNFULFILLED",
        ),
    )
    .await;
    node.offer("r2", &["a"], &json!({"max_attempts": 1})).await;
    let offer = a.expect("OFFER").await;
    a.decline(&offer).await;
    node.until_event("r2", "REQUEST_UNFULFILLED").await;
    node.assert_events("r2", &["REQUEST_UNFULFILLED"]).await;
    assert_eq!(sorted_texts(&node.view("r2").await, "excluded"), ["a"]);
}

/// H2.10: refusals are not counted by `max_attempts`; timeouts are.
async fn refusals_do_not_count(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    let more = json!({"max_attempts": 1, "offer_timeout_ms": 300});
    node.offer("r1", &["nobody", "no-one", "a", "b"], &more).await;
    let offer = a.expect("OFFER").await;
    assert_eq!(offer["attempt"], 3);
    a.expect_revoked(&offer, "timeout").await;
    node.until_event("r1", "REQUEST_UNFULFILLED").await;
    b.fence().await;
}

/// H2.10, H2.3: attempts are counted across re-POSTs, and so is `max_attempts`, which stays as first given.
async fn attempts_count_across_reposts(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    node.offer("r1", &["a"], &json!({"max_attempts": 2})).await;
    let offer = a.expect("OFFER").await;
    a.decline(&offer).await;
    node.until_event("r1", "REDISPATCH_REQUESTED").await;
    node.offer("r1", &["b", "c"], &json!({"max_attempts": 50})).await;
    let offer = b.expect("OFFER").await;
    assert_eq!(offer["attempt"], 2);
    b.decline(&offer).await;
    node.until_event("r1", "REQUEST_UNFULFILLED").await;
    assert_eq!(node.view("r1").await["state"], "UNFULFILLED");
}

shards_1_and_4!(
    deadline_ends_an_open_offer,
    deadline_ends_a_pending_request,
    attempts_end_a_request,
    refusals_do_not_count,
    attempts_count_across_reposts,
);
