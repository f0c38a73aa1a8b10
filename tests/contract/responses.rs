//! `POST /v1/dispatch/response`: a driver's answer over HTTP.

use crate::support::{Driver, Node, Setup, Value, json, shards_1_and_4, text};

async fn offered(node: &Node, driver: &mut Driver, request_id: &str, more: &Value) -> Value {
    node.offer(request_id, &[&driver.id.clone()], more).await;
    driver.expect("OFFER").await
}

/// Answers over HTTP, twice with the attempt and once without; gives the last body.
async fn assert_outcome(node: &Node, driver_id: &str, request_id: &str, response: &str, outcome: &str) -> Value {
    let mut last = Value::Null;
    for attempt in [Some(1), Some(1), None] {
        last = node.respond(driver_id, request_id, response, attempt).await.ok(200);
        assert_eq!(last["request_id"], request_id, "{response} {request_id}: {last}");
        assert_eq!(last["outcome"], outcome, "{response} {request_id}: {last}");
        assert_eq!(last["trip_id"].is_string(), outcome == "CONFIRMED", "{last}");
    }
    last
}

/// H3.1, H3.2: `ACCEPT` is `CONFIRMED` with the trip, again the same, and so is a `DECLINE` after it.
async fn accepted_over_http(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let offer = offered(&node, &mut driver, "r1", &json!({})).await;
    let answer = assert_outcome(&node, "d1", "r1", "ACCEPT", "CONFIRMED").await;
    let again = assert_outcome(&node, "d1", "r1", "DECLINE", "CONFIRMED").await;
    assert_eq!(answer["trip_id"], again["trip_id"]);
    assert_eq!(driver.expect_confirmed(&offer).await, text(&answer, "trip_id"));
    assert_eq!(node.view("r1").await["state"], "ACCEPTED");
    let audit = node.audit("r1").await;
    let accepted = audit.iter().find(|event| event["event"] == "OFFER_ACCEPTED");
    assert_eq!(accepted.unwrap()["channel"], "http");
}

/// H3.1, H3.2: `DECLINE` is `DECLINED`, again the same; an `ACCEPT` after it is `TOO_LATE`.
async fn declined_over_http(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let offer = offered(&node, &mut driver, "r1", &json!({})).await;
    assert_outcome(&node, "d1", "r1", "DECLINE", "DECLINED").await;
    driver.expect_declined(&offer).await;
    assert_outcome(&node, "d1", "r1", "ACCEPT", "TOO_LATE").await;
    assert_outcome(&node, "d1", "r1", "DECLINE", "DECLINED").await;
    assert_eq!(node.view("r1").await["state"], "PENDING_MATCH");
}

/// H3.2: after a timeout, a cancel, or another driver's win, whatever is answered is `TOO_LATE`.
async fn too_late_over_http(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let mut winner = node.driver("winner").await;
    let offer = offered(&node, &mut driver, "timed-out", &json!({"offer_timeout_ms": 100})).await;
    driver.expect_revoked(&offer, "timeout").await;
    let offer = offered(&node, &mut driver, "cancelled", &json!({})).await;
    node.cancel("cancelled").await.ok(200);
    driver.expect_revoked(&offer, "cancelled").await;
    node.offer("taken", &["d1", "winner"], &json!({"parallel": 2})).await;
    let offer = driver.expect("OFFER").await;
    let won = winner.expect("OFFER").await;
    winner.accept(&won).await;
    driver.expect_revoked(&offer, "taken").await;
    for request_id in ["timed-out", "cancelled", "taken"] {
        for response in ["ACCEPT", "DECLINE"] {
            assert_outcome(&node, "d1", request_id, response, "TOO_LATE").await;
        }
    }
    assert_eq!(node.driver_view("d1").await["state"], "available");
    assert_eq!(node.view("taken").await["driver_id"], "winner");
}

/// H3.3: an offer never made to this driver is `404 no_such_offer`.
async fn never_made_over_http(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let mut stranger = node.driver("stranger").await;
    let offer = offered(&node, &mut driver, "r1", &json!({})).await;
    for response in ["ACCEPT", "DECLINE"] {
        let check = async |driver_id: &str, request_id: &str, attempt: Option<u64>| {
            let answer = node.respond(driver_id, request_id, response, attempt).await;
            answer.problem(404, "no_such_offer");
        };
        check("d1", "unknown", None).await;
        check("d1", "unknown", Some(1)).await;
        check("d1", "r1", Some(2)).await;
        check("stranger", "r1", None).await;
        check("stranger", "r1", Some(1)).await;
        check("nobody", "r1", None).await;
    }
    stranger.fence().await;
    driver.fence().await;
    driver.accept(&offer).await;
}

/// H3.1, W4.3: a driver whose socket is lost may answer over HTTP; it hears of the outcome when it is back.
async fn answered_without_a_socket(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    offered(&node, &mut driver, "r1", &json!({"offer_timeout_ms": 60_000})).await;
    driver.vanish();
    let answer = node.respond("d1", "r1", "ACCEPT", Some(1)).await.ok(200);
    assert_eq!(answer["outcome"], "CONFIRMED");
    let driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "en_route_to_pickup");
    assert_eq!(driver.welcome["trip_id"], answer["trip_id"]);
}

/// H3.2, V.3: the same outcome after a crash.
async fn outcome_after_a_crash(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    offered(&node, &mut driver, "declined", &json!({})).await;
    assert_outcome(&node, "d1", "declined", "DECLINE", "DECLINED").await;
    driver.expect("DECLINED").await;
    offered(&node, &mut driver, "accepted", &json!({})).await;
    let before = assert_outcome(&node, "d1", "accepted", "ACCEPT", "CONFIRMED").await;
    node.crash_and_restart().await;
    let after = assert_outcome(&node, "d1", "accepted", "ACCEPT", "CONFIRMED").await;
    assert_eq!(before["trip_id"], after["trip_id"]);
    assert_outcome(&node, "d1", "declined", "DECLINE", "DECLINED").await;
    assert_outcome(&node, "d1", "declined", "ACCEPT", "TOO_LATE").await;
}

shards_1_and_4!(
    accepted_over_http,
    declined_over_http,
    too_late_over_http,
    never_made_over_http,
    answered_without_a_socket,
    outcome_after_a_crash,
);
