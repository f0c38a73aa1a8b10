//! `POST /v1/dispatch/cancel`.

use crate::support::{Setup, json, shape, shards_1_and_4, text};

/// H4.1, H9.6: an open offer is revoked, the request is `CANCELLED`; again is the same, without side effect.
async fn cancels_an_open_offer(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    node.offer("r1", &["a", "b"], &json!({})).await;
    let offer = a.expect("OFFER").await;
    for _ in 0..3 {
        let answer = node.cancel("r1").await.ok(200);
        assert_eq!(
            (&answer["request_id"], &answer["state"]),
            (&json!("r1"), &json!("CANCELLED"))
        );
    }
    a.expect_revoked(&offer, "cancelled").await;
    a.fence().await;
    b.fence().await;
    assert_eq!(node.driver_view("a").await["state"], "available");
    let view = node.view("r1").await;
    assert_eq!(view["state"], "CANCELLED");
    node.assert_events("r1", &["REQUEST_CANCELLED"]).await;
    node.assert_audit(
        "r1",
        &shape(
            "REQUEST_RECEIVED
             OFFER_SENT 1 a
             ? OFFER_DELIVERED 1
             { OFFER_REVOKED 1 | REQUEST_CANCELLED }",
        ),
    )
    .await;
    // The driver is free for the next.
    node.offer("r2", &["a"], &json!({})).await;
    a.expect("OFFER").await;
}

/// H4.1: a request without an offer, and one without a reason.
async fn cancels_a_pending_request(setup: Setup) {
    let node = setup.start().await;
    node.offer("r1", &["nobody"], &json!({})).await;
    node.until_event("r1", "REDISPATCH_REQUESTED").await;
    let body = json!({"request_id": "r1"});
    let answer = node.post("/v1/dispatch/cancel", &body).await.ok(200);
    assert_eq!(answer["state"], "CANCELLED");
    node.assert_events("r1", &["REDISPATCH_REQUESTED", "REQUEST_CANCELLED"])
        .await;
    assert_eq!(node.view("r1").await["state"], "CANCELLED");
}

/// H4.2, H4.3: `ACCEPTED` and `UNFULFILLED` are `409 ended` with the state (and the trip); unknown is 404. After a
/// crash all is the same, and `CANCELLED` too.
async fn what_has_ended_stays(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("accepted", &["d1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    node.offer("unfulfilled", &["nobody"], &json!({"deadline_ms": 100}))
        .await;
    node.until_state("unfulfilled", "UNFULFILLED").await;
    node.offer("cancelled", &["nobody"], &json!({})).await;
    node.cancel("cancelled").await.ok(200);
    for _ in 0..2 {
        let problem = node.cancel("accepted").await.problem(409, "ended");
        assert_eq!(problem["state"], "ACCEPTED");
        assert_eq!(text(&problem, "trip_id"), trip_id);
        let problem = node.cancel("unfulfilled").await.problem(409, "ended");
        assert_eq!(problem["state"], "UNFULFILLED");
        assert!(problem["trip_id"].is_null(), "{problem}");
        node.cancel("unknown").await.problem(404, "no_such_request");
        assert_eq!(node.cancel("cancelled").await.ok(200)["state"], "CANCELLED");
        assert_eq!(node.driver_view("d1").await["state"], "en_route_to_pickup");
        node.crash_and_restart().await;
    }
}

shards_1_and_4!(cancels_an_open_offer, cancels_a_pending_request, what_has_ended_stays);
