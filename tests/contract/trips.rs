//! The life of a trip, and its cancelling by driver and caller.

use crate::support::{Driver, Node, Setup, audit, json, shape, shards_1_and_4, text};

/// A driver with a trip from request `request_id`.
async fn with_trip(node: &Node, driver_id: &str, request_id: &str) -> (Driver, String) {
    let mut driver = node.driver(driver_id).await;
    let trip_id = trip_for(node, &mut driver, request_id).await;
    (driver, trip_id)
}

async fn trip_for(node: &Node, driver: &mut Driver, request_id: &str) -> String {
    node.offer(request_id, &[&driver.id.clone()], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.accept(&offer).await
}

/// W3.7, W2.7, W4.1, H9.7: arrived, pickup, complete: the states, the views and the events of a whole trip.
async fn a_whole_trip(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, trip_id) = with_trip(&node, "d1", "r1").await;
    let view = node.driver_view("d1").await;
    assert_eq!(view["state"], "en_route_to_pickup");
    assert_eq!(view["trip_id"], trip_id.as_str());
    driver.trip(&trip_id, "arrived").await;
    // It stays en route: no change, so no STATE.
    driver.fence().await;
    assert_eq!(node.driver_view("d1").await["state"], "en_route_to_pickup");
    driver.trip(&trip_id, "pickup").await;
    let state = driver.expect_state("on_trip").await;
    assert_eq!(state["trip_id"], trip_id.as_str());
    assert_eq!(node.driver_view("d1").await["state"], "on_trip");
    driver.trip(&trip_id, "complete").await;
    let state = driver.expect_state("available").await;
    assert!(state["trip_id"].is_null(), "{state}");
    let view = node.driver_view("d1").await;
    assert_eq!(view["state"], "available");
    assert!(view["trip_id"].is_null(), "{view}");
    let view = node.view("r1").await;
    assert_eq!(view["state"], "ACCEPTED");
    assert_eq!(view["trip_id"], trip_id.as_str());
    node.assert_events("r1", &["TRIP_CREATED", "TRIP_PICKED_UP", "TRIP_ENDED"])
        .await;
    let ended = node.until_event("r1", "TRIP_ENDED").await;
    assert_eq!(ended["outcome"], "completed");
    assert_eq!(ended["trip_id"], trip_id.as_str());
    // And the driver takes the next one, which is another trip.
    assert_ne!(trip_for(&node, &mut driver, "r2").await, trip_id);
}

/// W3.8, H9.7: a driver may give the trip up; the request stays `ACCEPTED`.
async fn given_up_by_the_driver(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, trip_id) = with_trip(&node, "d1", "r1").await;
    driver.trip(&trip_id, "cancel").await;
    driver.expect_state("available").await;
    driver.fence().await;
    assert_eq!(node.view("r1").await["state"], "ACCEPTED");
    let ended = node.until_event("r1", "TRIP_ENDED").await;
    assert_eq!(ended["outcome"], "cancelled_by_driver");
    // Also with the passenger on board.
    let trip_id = trip_for(&node, &mut driver, "r2").await;
    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    driver.trip(&trip_id, "cancel").await;
    driver.expect_state("available").await;
    assert_eq!(
        node.until_event("r2", "TRIP_ENDED").await["outcome"],
        "cancelled_by_driver"
    );
}

/// W5.2, W3.7: what is said twice changes nothing more.
async fn trip_messages_repeat(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, trip_id) = with_trip(&node, "d1", "r1").await;
    for event in ["arrived", "arrived", "pickup", "pickup", "pickup"] {
        driver.trip(&trip_id, event).await;
    }
    until_state(&mut driver, "on_trip").await;
    driver.trip(&trip_id, "complete").await;
    until_state(&mut driver, "available").await;
    driver.trip(&trip_id, "complete").await;
    driver.trip(&trip_id, "cancel").await;
    // Answered in some way, but it is over: the next trip is offered as if nothing had been said.
    node.offer("r2", &["d1"], &json!({})).await;
    while driver.next().await["type"] != "OFFER" {}
    node.cancel("r2").await.ok(200);
    while driver.next().await["type"] != "REVOKED" {}
    assert_eq!(node.driver_view("d1").await["state"], "available");
    let audit = node.audit("r1").await;
    assert_eq!(audit::count(&audit, "TRIP_PICKED_UP"), 1, "{audit:#?}");
    assert_eq!(audit::count(&audit, "TRIP_ENDED"), 1, "{audit:#?}");
    node.assert_events("r1", &["TRIP_CREATED", "TRIP_PICKED_UP", "TRIP_ENDED"])
        .await;
}

/// The next `STATE` with this state: one before it is an answer that came again.
async fn until_state(driver: &mut Driver, state: &str) {
    while driver.expect("STATE").await["state"] != state {}
}

/// W2.10, W3.7: a trip that is not this driver's: `ERROR` `no_such_trip`.
async fn other_trips_are_no_such_trip(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, trip_id) = with_trip(&node, "d1", "r1").await;
    let mut stranger = node.driver("stranger").await;
    for event in ["arrived", "pickup", "complete", "cancel"] {
        for trip in [trip_id.as_str(), "unknown", "t-0123456789abcdef-17a"] {
            stranger.trip(trip, event).await;
            stranger.expect_error("no_such_trip").await;
        }
        driver.trip("unknown", event).await;
        driver.expect_error("no_such_trip").await;
    }
    driver.fence().await;
    assert_eq!(node.driver_view("d1").await["state"], "en_route_to_pickup");
}

/// H5.1, W2.8, H9.7: the caller cancels a trip: the driver hears `TRIP_CANCELLED` and is `available`.
async fn cancelled_by_the_caller(setup: Setup) {
    let node = setup.start().await;
    let (mut driver, trip_id) = with_trip(&node, "d1", "r1").await;
    node.cancel_trip(&trip_id).await.ok(200);
    let cancelled = driver.expect("TRIP_CANCELLED").await;
    assert_eq!(text(&cancelled, "trip_id"), trip_id);
    assert_eq!(cancelled["request_id"], "r1");
    assert_eq!(cancelled["reason"], "rider left");
    driver.expect_state("available").await;
    driver.fence().await;
    assert_eq!(node.driver_view("d1").await["state"], "available");
    assert_eq!(node.view("r1").await["state"], "ACCEPTED");
    assert_eq!(node.until_event("r1", "TRIP_ENDED").await["outcome"], "cancelled");
    node.until_audit("r1", "TRIP_ENDED").await;
    trip_for(&node, &mut driver, "r2").await;
}

/// H5.1: also when the driver is away: it finds out by its `WELCOME`.
async fn cancelled_while_away(setup: Setup) {
    let node = setup.start().await;
    let (driver, trip_id) = with_trip(&node, "d1", "r1").await;
    driver.vanish();
    node.cancel_trip(&trip_id).await.ok(200);
    node.until_driver("d1", "available").await;
    let driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "available");
    assert!(driver.welcome["trip_id"].is_null(), "{}", driver.welcome);
}

/// H5.2, H5.3, H1.3: ended is `409 ended`, unknown is `404 no_such_trip`, a bad id `400 invalid`; all stays so after
/// a crash.
async fn cancelling_what_is_over(setup: Setup) {
    let mut node = setup.start().await;
    let (mut driver, completed) = with_trip(&node, "d1", "completed").await;
    driver.trip(&completed, "pickup").await;
    driver.expect_state("on_trip").await;
    driver.trip(&completed, "complete").await;
    driver.expect_state("available").await;
    let given_up = trip_for(&node, &mut driver, "given-up").await;
    driver.trip(&given_up, "cancel").await;
    driver.expect_state("available").await;
    let cancelled = trip_for(&node, &mut driver, "cancelled").await;
    node.cancel_trip(&cancelled).await.ok(200);
    for _ in 0..2 {
        for (trip_id, outcome) in [
            (&completed, "completed"),
            (&given_up, "cancelled_by_driver"),
            (&cancelled, "cancelled"),
        ] {
            let problem = node.cancel_trip(trip_id).await.problem(409, "ended");
            assert_eq!(
                problem["outcome"], outcome,
                "who repeats a cancel learns how the trip ended"
            );
        }
        for trip_id in ["unknown", "t-0123456789abcdef-17a", "t-", "t-zz"] {
            node.cancel_trip(trip_id).await.problem(404, "no_such_trip");
        }
        for trip_id in ["a!b", &"x".repeat(65)] {
            node.cancel_trip(trip_id).await.problem(400, "invalid");
        }
        node.crash_and_restart().await;
    }
    node.assert_audit(
        "completed",
        &shape(
            "REQUEST_RECEIVED
             OFFER_SENT 1 d1
             ? OFFER_DELIVERED 1
             OFFER_ACCEPTED 1
             ? OFFER_DELIVERED 1
             TRIP_CREATED
             ? OFFER_DELIVERED 1
             TRIP_PICKED_UP
             TRIP_ENDED",
        ),
    )
    .await;
}

/// W4.6, W2.1: a driver with a trip keeps it across reconnects and a crash, and goes on with it.
async fn trips_survive(setup: Setup) {
    let mut node = setup.set("driver_ttl_ms", 100).start().await;
    let (driver, trip_id) = with_trip(&node, "d1", "r1").await;
    driver.vanish();
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "en_route_to_pickup");
    assert_eq!(driver.welcome["trip_id"], trip_id.as_str());
    driver.fence().await;
    node.crash_and_restart().await;
    let view = node.driver_view("d1").await;
    assert_eq!(view["state"], "en_route_to_pickup");
    assert_eq!(view["trip_id"], trip_id.as_str());
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "en_route_to_pickup");
    assert_eq!(driver.welcome["trip_id"], trip_id.as_str());
    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    node.crash_and_restart().await;
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "on_trip");
    assert_eq!(driver.welcome["trip_id"], trip_id.as_str());
    // Bound to its trip, it is refused for another one.
    node.offer("r2", &["d1"], &json!({})).await;
    node.until_audit("r2", "OFFER_REFUSED 1 d1").await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
}

shards_1_and_4!(
    a_whole_trip,
    given_up_by_the_driver,
    trip_messages_repeat,
    other_trips_are_no_such_trip,
    cancelled_by_the_caller,
    cancelled_while_away,
    cancelling_what_is_over,
    trips_survive,
);
