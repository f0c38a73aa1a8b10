//! Answers of drivers: heard on the socket, the same again for the same again, and the attempt's outcome once it is over.

use crate::support::{Driver, Node, Setup, Value, json, shards_1_and_4};

/// How many times a repeat is repeated.
const REPEATS: usize = 2;

async fn offered(node: &Node, driver: &mut Driver, request_id: &str, more: &Value) -> Value {
    node.offer(request_id, &[&driver.id.clone()], more).await;
    driver.expect("OFFER").await
}

/// Sends `kind` about an attempt that is over, twice; the answer must be `answer` (and `reason`), and nothing else.
async fn assert_answer(driver: &mut Driver, kind: &str, offer: &Value, answer: &str, reason: Option<&str>) {
    for _ in 0..REPEATS {
        driver.answer(kind, offer).await;
        let message = driver.expect(answer).await;
        assert_eq!(message["request_id"], offer["request_id"], "{kind}: {message}");
        assert_eq!(message["attempt"], offer["attempt"], "{kind}: {message}");
        assert_eq!(message["reason"].as_str(), reason, "{kind}: {message}");
        driver.fence().await;
    }
}

/// W5.2, W5.3, W2.4: after `CONFIRMED` every message about the attempt is answered `CONFIRMED`, with the same trip and
/// no second `STATE`; nothing more changes.
async fn confirmed_stays_confirmed(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let offer = offered(&node, &mut driver, "r1", &json!({})).await;
    let trip_id = driver.accept(&offer).await;
    let before = node.audit("r1").await.len();
    for kind in ["ACCEPT", "ACCEPT", "DECLINE", "ACK"] {
        driver.answer(kind, &offer).await;
        let confirmed = driver.expect("CONFIRMED").await;
        assert_eq!(confirmed["trip_id"], trip_id.as_str(), "{kind}: {confirmed}");
        driver.fence().await;
    }
    assert_eq!(node.view("r1").await["state"], "ACCEPTED");
    let audit = node.audit("r1").await;
    // A receipt (delivered, acknowledged) may come late; a decision does not come twice.
    assert!(audit.len() <= before + 1, "{audit:#?}");
    assert_eq!(node.driver_view("d1").await["state"], "en_route_to_pickup");
}

/// W5.2, W5.3: after the trip has ended the attempt is still `CONFIRMED`.
async fn confirmed_after_the_trip(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let offer = offered(&node, &mut driver, "r1", &json!({})).await;
    let trip_id = driver.accept(&offer).await;
    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
    driver.answer("ACCEPT", &offer).await;
    let confirmed = driver.expect("CONFIRMED").await;
    assert_eq!(confirmed["trip_id"], trip_id.as_str());
    driver.fence().await;
    assert_eq!(node.driver_view("d1").await["state"], "available");
}

/// W5.2, W5.4, W2.5: a `DECLINE` repeated is `DECLINED` again; an `ACCEPT` after it is `REVOKED` `superseded`.
async fn declined_stays_declined(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let offer = offered(&node, &mut driver, "r1", &json!({})).await;
    driver
        .send(&json!({"type": "DECLINE", "request_id": "r1", "attempt": offer["attempt"], "reason": "too far"}))
        .await;
    driver.expect_declined(&offer).await;
    assert_answer(&mut driver, "DECLINE", &offer, "DECLINED", None).await;
    assert_answer(&mut driver, "ACCEPT", &offer, "REVOKED", Some("superseded")).await;
    assert_answer(&mut driver, "DECLINE", &offer, "DECLINED", None).await;
    assert_eq!(node.view("r1").await["state"], "PENDING_MATCH");
}

/// W5.3, W2.6: after a timeout every message about the attempt is answered `REVOKED` `timeout`.
async fn timed_out_stays_timed_out(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let offer = offered(&node, &mut driver, "r1", &json!({"offer_timeout_ms": 100})).await;
    driver.expect_revoked(&offer, "timeout").await;
    for kind in ["ACCEPT", "DECLINE", "ACK"] {
        assert_answer(&mut driver, kind, &offer, "REVOKED", Some("timeout")).await;
    }
    assert_eq!(node.view("r1").await["state"], "PENDING_MATCH");
}

/// W5.3, W2.6: after a cancel every message about the attempt is answered `REVOKED` `cancelled`.
async fn cancelled_stays_cancelled(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let offer = offered(&node, &mut driver, "r1", &json!({})).await;
    node.cancel("r1").await.ok(200);
    driver.expect_revoked(&offer, "cancelled").await;
    for kind in ["ACCEPT", "DECLINE", "ACK"] {
        assert_answer(&mut driver, kind, &offer, "REVOKED", Some("cancelled")).await;
    }
    assert_eq!(node.view("r1").await["state"], "CANCELLED");
}

/// W5.3, W2.6: after another driver of a parallel offer won, every message is answered `REVOKED` `taken`.
async fn taken_stays_taken(setup: Setup) {
    let node = setup.start().await;
    let mut winner = node.driver("winner").await;
    let mut loser = node.driver("loser").await;
    node.offer("r1", &["winner", "loser"], &json!({"parallel": 2})).await;
    let won = winner.expect("OFFER").await;
    let lost = loser.expect("OFFER").await;
    winner.accept(&won).await;
    loser.expect_revoked(&lost, "taken").await;
    for kind in ["ACCEPT", "DECLINE", "ACK"] {
        assert_answer(&mut loser, kind, &lost, "REVOKED", Some("taken")).await;
    }
    assert_eq!(node.driver_view("loser").await["state"], "available");
}

/// W5.3: outcomes are the same after a crash.
async fn outcomes_survive_a_crash(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let declined = offered(&node, &mut driver, "declined", &json!({})).await;
    driver.decline(&declined).await;
    let timed_out = offered(&node, &mut driver, "timed-out", &json!({"offer_timeout_ms": 100})).await;
    driver.expect_revoked(&timed_out, "timeout").await;
    let cancelled = offered(&node, &mut driver, "cancelled", &json!({})).await;
    node.cancel("cancelled").await.ok(200);
    driver.expect_revoked(&cancelled, "cancelled").await;
    let confirmed = offered(&node, &mut driver, "confirmed", &json!({})).await;
    let trip_id = driver.accept(&confirmed).await;
    node.crash_and_restart().await;
    let mut driver = node.driver("d1").await;
    assert_answer(&mut driver, "DECLINE", &declined, "DECLINED", None).await;
    assert_answer(&mut driver, "ACCEPT", &declined, "REVOKED", Some("superseded")).await;
    assert_answer(&mut driver, "ACCEPT", &timed_out, "REVOKED", Some("timeout")).await;
    assert_answer(&mut driver, "ACCEPT", &cancelled, "REVOKED", Some("cancelled")).await;
    driver.answer("ACCEPT", &confirmed).await;
    assert_eq!(driver.expect("CONFIRMED").await["trip_id"], trip_id.as_str());
    driver.fence().await;
}

/// W5.5, W2.10: an offer never made to this driver: `ERROR` `no_such_offer`, whatever is said about it.
async fn never_made_is_no_such_offer(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let mut stranger = node.driver("stranger").await;
    let offer = offered(&node, &mut driver, "r1", &json!({"offer_timeout_ms": 600_000})).await;
    for kind in ["ACCEPT", "DECLINE", "ACK"] {
        for (request_id, attempt) in [("unknown", 1), ("r1", 2), ("r1", 4_000_000_000_u64)] {
            driver
                .send(&json!({"type": kind, "request_id": request_id, "attempt": attempt}))
                .await;
            let error = driver.expect_error("no_such_offer").await;
            assert_eq!(error["request_id"], request_id, "{error}");
        }
        stranger.answer(kind, &offer).await;
        stranger.expect_error("no_such_offer").await;
        stranger.fence().await;
    }
    assert_eq!(node.view("r1").await["state"], "OFFER_SENT");
    driver.fence().await;
    driver.accept(&offer).await;
}

/// W5.1: the socket hears an outcome that came by the HTTP API.
async fn socket_hears_http_answers(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let first = offered(&node, &mut driver, "r1", &json!({})).await;
    let answer = node.respond("d1", "r1", "DECLINE", None).await.ok(200);
    assert_eq!(answer["outcome"], "DECLINED");
    driver.expect_declined(&first).await;
    driver.fence().await;
    let second = offered(&node, &mut driver, "r2", &json!({})).await;
    let answer = node.respond("d1", "r2", "ACCEPT", None).await.ok(200);
    let trip_id = driver.expect_confirmed(&second).await;
    assert_eq!(answer["trip_id"], trip_id.as_str());
    driver.fence().await;
}

/// W3.1, H7.3: `ACK` is a receipt: it stands in the audit once, has no answer, and changes nothing.
async fn ack_is_a_receipt(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let offer = offered(&node, &mut driver, "r1", &json!({"offer_timeout_ms": 600_000})).await;
    node.until_audit("r1", "OFFER_DELIVERED 1").await;
    for _ in 0..3 {
        driver.answer("ACK", &offer).await;
        driver.fence().await;
    }
    node.until_audit("r1", "OFFER_ACKED 1").await;
    driver.accept(&offer).await;
    let audit = node.audit("r1").await;
    assert_eq!(crate::support::audit::count(&audit, "OFFER_ACKED"), 1, "{audit:#?}");
    assert_eq!(crate::support::audit::count(&audit, "OFFER_DELIVERED"), 1, "{audit:#?}");
}

shards_1_and_4!(
    confirmed_stays_confirmed,
    confirmed_after_the_trip,
    declined_stays_declined,
    timed_out_stays_timed_out,
    cancelled_stays_cancelled,
    taken_stays_taken,
    outcomes_survive_a_crash,
    never_made_is_no_such_offer,
    socket_hears_http_answers,
    ack_is_a_receipt,
);
