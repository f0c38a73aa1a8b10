//! `parallel`: several drivers hold the offer at once, the first durable `ACCEPT` wins.

use crate::support::{Driver, Setup, Value, json, number, shape, shards_1_and_4, sorted_texts};
use futures_util::future::join_all;

/// H2.9, V.1: each under an attempt of its own, the 202 names the first; the winner is `CONFIRMED`, the others hear
/// `REVOKED` `taken`.
async fn first_accept_wins(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b, mut c) = (node.driver("a").await, node.driver("b").await, node.driver("c").await);
    let posted = node.offer("r1", &["a", "b", "c"], &json!({"parallel": 3})).await;
    assert_eq!((&posted["attempt"], &posted["driver_id"]), (&json!(1), &json!("a")));
    let mut offers = Vec::new();
    for (driver, attempt) in [(&mut a, 1), (&mut b, 2), (&mut c, 3)] {
        let offer = driver.expect("OFFER").await;
        assert_eq!(offer["attempt"], attempt);
        node.until_audit("r1", &format!("OFFER_DELIVERED {attempt}")).await;
        offers.push(offer);
    }
    let trip_id = b.accept(&offers[1]).await;
    a.expect_revoked(&offers[0], "taken").await;
    c.expect_revoked(&offers[2], "taken").await;
    let view = node.view("r1").await;
    assert_eq!((&view["attempt"], &view["driver_id"]), (&json!(2), &json!("b")));
    assert_eq!(view["trip_id"], trip_id.as_str());
    let excluded = sorted_texts(&view, "excluded");
    assert!(
        excluded.contains(&"a".to_owned()) && excluded.contains(&"c".to_owned()),
        "{view}"
    );
    for driver in [&mut a, &mut c] {
        driver.fence().await;
        assert_eq!(node.driver_view(&driver.id).await["state"], "available");
    }
    node.assert_audit(
        "r1",
        &shape(
            "REQUEST_RECEIVED
             { OFFER_SENT 1 a | OFFER_SENT 2 b | OFFER_SENT 3 c | OFFER_DELIVERED 1 | OFFER_DELIVERED 2 | OFFER_DELIVERED 3 }
             OFFER_ACCEPTED 2
             { OFFER_REVOKED 1 | OFFER_REVOKED 3 | TRIP_CREATED }",
        ),
    )
    .await;
}

/// H2.9: a place that becomes free is given to the next candidate: so many hold it at once, as long as there are any.
async fn free_places_are_filled(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    let (mut c, mut d) = (node.driver("c").await, node.driver("d").await);
    node.offer("r1", &["a", "b", "nobody", "c", "d"], &json!({"parallel": 2}))
        .await;
    let of_a = a.expect("OFFER").await;
    let of_b = b.expect("OFFER").await;
    c.fence().await;
    a.decline(&of_a).await;
    let of_c = c.expect("OFFER").await;
    assert!(number(&of_c, "attempt") > number(&of_b, "attempt"));
    d.fence().await;
    b.decline(&of_b).await;
    let of_d = d.expect("OFFER").await;
    c.decline(&of_c).await;
    assert_eq!(node.view("r1").await["state"], "OFFER_SENT");
    d.accept(&of_d).await;
}

/// H2.9: fewer candidates than places are fine; when all of them decline, new ones are asked for once.
async fn all_may_decline(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    node.offer("r1", &["a", "b"], &json!({"parallel": 10})).await;
    let of_a = a.expect("OFFER").await;
    let of_b = b.expect("OFFER").await;
    a.decline(&of_a).await;
    assert_eq!(node.view("r1").await["state"], "OFFER_SENT");
    b.decline(&of_b).await;
    let event = node.until_event("r1", "REDISPATCH_REQUESTED").await;
    assert_eq!(event["attempts"], 2);
    node.assert_events("r1", &["REDISPATCH_REQUESTED"]).await;
}

/// H2.9, V.1, V.5: `ACCEPT`s of all at the same moment have one winner, and the others hear so.
async fn accepts_at_once_have_one_winner(setup: Setup) {
    const ROUNDS: usize = 15;
    let node = setup.start().await;
    let ids = ["a", "b", "c", "d", "e"];
    let mut drivers = join_all(ids.iter().map(|id| node.driver(id))).await;
    for round in 0..ROUNDS {
        let request_id = format!("r{round}");
        node.offer(&request_id, &ids, &json!({"parallel": ids.len()})).await;
        let offers = join_all(drivers.iter_mut().map(|driver| next_offer(driver, &request_id))).await;
        let answering = drivers.iter_mut().zip(&offers);
        join_all(answering.map(|(driver, offer)| driver.answer("ACCEPT", offer))).await;
        let mut winner = None;
        for (driver, offer) in drivers.iter_mut().zip(&offers) {
            if let Some(trip_id) = outcome(driver, offer).await {
                assert!(winner.is_none(), "two winners of {request_id}");
                winner = Some((driver, trip_id));
            }
        }
        let (driver, trip_id) = winner.expect("a winner");
        let view = node.view(&request_id).await;
        assert_eq!(
            (&view["driver_id"], &view["trip_id"]),
            (&json!(driver.id), &json!(trip_id))
        );
        driver.trip(&trip_id, "cancel").await;
        driver.expect_state("available").await;
        // Checked for one winner.
        node.audit(&request_id).await;
    }
}

/// The trip of a winner; `None` for one who hears `taken`.
async fn outcome(driver: &mut Driver, offer: &Value) -> Option<String> {
    let first = driver.next().await;
    assert_eq!(first["attempt"], offer["attempt"], "{first}");
    if first["type"] == "CONFIRMED" {
        driver.expect_state("en_route_to_pickup").await;
        return Some(crate::support::text(&first, "trip_id").to_owned());
    }
    assert_eq!(
        (&first["type"], &first["reason"]),
        (&json!("REVOKED"), &json!("taken")),
        "{first}"
    );
    None
}

/// The offer of this request. An `ACCEPT` that came too late hears the outcome of its attempt, beside the `REVOKED` that
/// was already on its way: what is left of earlier rounds may come before the offer.
async fn next_offer(driver: &mut Driver, request_id: &str) -> Value {
    loop {
        let message = driver.next().await;
        if message["type"] == "OFFER" {
            assert_eq!(message["request_id"], request_id);
            return message;
        }
        assert_eq!(
            (&message["type"], &message["reason"]),
            (&json!("REVOKED"), &json!("taken")),
            "{message}"
        );
        assert_ne!(message["request_id"], request_id);
    }
}

/// H2.9, H4.1: a cancel revokes the offer of everyone who holds it.
async fn cancel_revokes_all(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b, mut c) = (node.driver("a").await, node.driver("b").await, node.driver("c").await);
    node.offer("r1", &["a", "b", "c"], &json!({"parallel": 2})).await;
    let of_a = a.expect("OFFER").await;
    let of_b = b.expect("OFFER").await;
    node.cancel("r1").await.ok(200);
    a.expect_revoked(&of_a, "cancelled").await;
    b.expect_revoked(&of_b, "cancelled").await;
    for driver in [&mut a, &mut b, &mut c] {
        driver.fence().await;
    }
}

/// H2.10: no more offers than `max_attempts` are open at once either.
async fn parallel_within_max_attempts(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b, mut c) = (node.driver("a").await, node.driver("b").await, node.driver("c").await);
    let more = json!({"parallel": 3, "max_attempts": 2});
    node.offer("r1", &["a", "b", "c"], &more).await;
    let of_a = a.expect("OFFER").await;
    let of_b = b.expect("OFFER").await;
    a.decline(&of_a).await;
    b.decline(&of_b).await;
    node.until_event("r1", "REQUEST_UNFULFILLED").await;
    assert_eq!(node.view("r1").await["state"], "UNFULFILLED");
    c.fence().await;
}

/// H2.9: everyone's offer times out for itself, and all of them resume after a crash.
async fn all_resume_after_a_crash(setup: Setup) {
    let mut node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    let more = json!({"parallel": 2, "offer_timeout_ms": 60_000});
    node.offer("r1", &["a", "b"], &more).await;
    let (of_a, of_b) = (a.expect("OFFER").await, b.expect("OFFER").await);
    node.crash_and_restart().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    for (driver, before) in [(&mut a, &of_a), (&mut b, &of_b)] {
        let after = driver.expect("OFFER").await;
        assert_eq!(after["attempt"], before["attempt"]);
        assert_eq!(after["expires_at_ms"], before["expires_at_ms"]);
    }
    a.accept(&of_a).await;
    b.expect_revoked(&of_b, "taken").await;
}

shards_1_and_4!(
    first_accept_wins,
    free_places_are_filled,
    all_may_decline,
    accepts_at_once_have_one_winner,
    cancel_revokes_all,
    parallel_within_max_attempts,
    all_resume_after_a_crash,
);
