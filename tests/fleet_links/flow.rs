//! The life of offers and trips whose request is on one node and whose driver is on another.

use crate::fleet::{Fleet, name};
use crate::support::{json, text};

/// Offer, receipt, answer, trip: the driver notices nothing, and the audit at the owner has all of it.
#[tokio::test]
async fn an_offer_reaches_a_driver_of_another_node_and_becomes_a_trip() {
    let fleet = Fleet::start(3).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    assert_eq!((text(&offer, "request_id"), &offer["attempt"]), ("r-1", &json!(1)));
    fleet.until_audited(0, "r-1", "OFFER_DELIVERED").await;
    fleet.until_all_say("d-1", "offered", 1).await;
    driver.answer("ACK", &offer).await;
    fleet.until_audited(0, "r-1", "OFFER_ACKED").await;
    let trip_id = driver.accept(&offer).await;
    assert_eq!(fleet.state(0, "r-1").await, "ACCEPTED");
    fleet.until_all_say("d-1", "en_route_to_pickup", 1).await;
    // Repeats get the same answer.
    driver.answer("ACCEPT", &offer).await;
    let again = driver.expect("CONFIRMED").await;
    assert_eq!(text(&again, "trip_id"), trip_id);
    driver.trip(&trip_id, "arrived").await;
    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
    let audit = fleet.audit(0, "r-1").await;
    let expect = [
        "REQUEST_RECEIVED",
        "OFFER_SENT",
        "OFFER_DELIVERED",
        "OFFER_ACKED",
        "OFFER_ACCEPTED",
        "TRIP_CREATED",
        "TRIP_PICKED_UP",
        "TRIP_ENDED",
    ];
    assert_eq!(audit, expect);
    // A trip that is over, and one that never was.
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
    driver.trip("t-0000000000000000-1", "complete").await;
    driver.expect_error("no_such_trip").await;
    fleet.until_all_say("d-1", "available", 1).await;
}

/// A driver that declines, one that is silent, one that is not there: the next one is on a third node.
#[tokio::test]
async fn the_search_goes_on_over_all_nodes() {
    let fleet = Fleet::start(3).await;
    let mut first = fleet.driver(1, "d-1").await;
    let mut silent = fleet.driver(2, "d-2").await;
    let mut last = fleet.driver(0, "d-3").await;
    let candidates = ["nobody", "d-1", "d-2", "d-3"];
    fleet
        .offer(0, "r-1", &candidates, &json!({"offer_timeout_ms": 400}))
        .await;
    let offer = first.expect("OFFER").await;
    assert_eq!(offer["attempt"], 2);
    first.decline(&offer).await;
    let offer = silent.expect("OFFER").await;
    silent.expect_revoked(&offer, "timeout").await;
    let offer = last.expect("OFFER").await;
    last.accept(&offer).await;
    let audit = fleet.audit(0, "r-1").await;
    for event in ["OFFER_REFUSED", "OFFER_DECLINED", "OFFER_TIMED_OUT", "OFFER_ACCEPTED"] {
        assert_eq!(
            audit.iter().filter(|found| *found == event).count(),
            1,
            "{event}: {audit:?}"
        );
    }
    // An answer that comes too late hears the attempt's end, over the link too.
    silent.answer("ACCEPT", &offer_of("r-1", 3)).await;
    silent.expect_revoked(&offer_of("r-1", 3), "timeout").await;
    silent.answer("ACCEPT", &offer_of("r-9", 1)).await;
    silent.expect_error("no_such_offer").await;
    for id in ["d-1", "d-2"] {
        let at = if id == "d-1" { 1 } else { 2 };
        fleet.until_all_say(id, "available", at).await;
    }
}

fn offer_of(request_id: &str, attempt: u32) -> crate::support::Value {
    json!({"request_id": request_id, "attempt": attempt})
}

#[tokio::test]
async fn a_cancel_and_the_end_of_a_trip_reach_the_driver() {
    let fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let cancel = fleet.nodes[0]
        .post("/v1/dispatch/cancel", &json!({"request_id": "r-1"}))
        .await;
    cancel.ok(200);
    driver.expect_revoked(&offer, "cancelled").await;
    fleet.offer(0, "r-2", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    let path = format!("/v1/trips/{trip_id}/cancel");
    fleet.nodes[0].post(&path, &json!({"reason": "rain"})).await.ok(200);
    let cancelled = driver.expect("TRIP_CANCELLED").await;
    assert_eq!(
        (text(&cancelled, "trip_id"), text(&cancelled, "reason")),
        (trip_id.as_str(), "rain")
    );
    driver.expect_state("available").await;
}

/// Drivers of parallel offers on several nodes: one wins, all others hear so.
#[tokio::test]
async fn one_of_parallel_offers_wins() {
    let fleet = Fleet::start(3).await;
    let mut drivers = Vec::new();
    for number in 0..3 {
        drivers.push(fleet.driver(number, &format!("d-{number}")).await);
    }
    fleet
        .offer(0, "r-1", &["d-0", "d-1", "d-2"], &json!({"parallel": 3}))
        .await;
    let mut offers = Vec::new();
    for driver in &mut drivers {
        offers.push(driver.expect("OFFER").await);
    }
    drivers[2].accept(&offers[2]).await;
    for number in 0..2 {
        drivers[number].expect_revoked(&offers[number], "taken").await;
    }
    for number in 0..2 {
        fleet.until_all_say(&format!("d-{number}"), "available", number).await;
    }
}

/// A request waits in the queue of a driver of another node, and gets it.
#[tokio::test]
async fn a_busy_driver_of_another_node_is_waited_for() {
    let fleet = Fleet::start(3).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let first = driver.expect("OFFER").await;
    fleet.offer(2, "r-2", &["d-1"], &json!({"busy_wait_ms": 30_000})).await;
    fleet.until_state(2, "r-2", "PENDING_MATCH").await;
    driver.decline(&first).await;
    let second = driver.expect("OFFER").await;
    assert_eq!(text(&second, "request_id"), "r-2");
    let trip_id = driver.accept(&second).await;
    // On a trip the driver is refused at once.
    fleet.offer(0, "r-3", &["d-1"], &json!({"busy_wait_ms": 30_000})).await;
    fleet.until_audited(0, "r-3", "OFFER_REFUSED").await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
    assert_eq!(fleet.view(0, "d-1").await["node"], name(1).as_str());
}
