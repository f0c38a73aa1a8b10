//! Drivers who connect to another node in the middle of something.

use crate::fleet::{Fleet, name};
use crate::support::{Driver, json, text, within};

/// The older socket is displaced at once, and what the driver hears at the new node is what it would hear at its own.
pub async fn displaced(mut old: Driver) {
    assert_eq!(within("4001", old.closed()).await.0, 4001);
}

/// With an open offer: to a node that has nothing to do with it, to that of the request, and back.
#[tokio::test]
async fn an_open_offer_follows_its_driver() {
    let fleet = Fleet::start(3).await;
    let mut at = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": 60_000}))
        .await;
    let offer = at.expect("OFFER").await;
    fleet.until_bound("d-1", "r-1").await;
    for number in [2, 0, 1] {
        let mut new = fleet.nodes[number].driver("d-1").await;
        assert_eq!(new.welcome["state"], "offered", "{number}: {}", new.welcome);
        assert!(new.session() > at.session());
        displaced(at).await;
        let again = new.expect("OFFER").await;
        for field in ["request_id", "attempt", "expires_at_ms", "trip"] {
            assert_eq!(again[field], offer[field], "{number}: {field}");
        }
        new.fence().await;
        fleet.until_registered(number, "d-1").await;
        fleet.until_bound("d-1", "r-1").await;
        at = new;
    }
    let trip_id = at.accept(&offer).await;
    assert_eq!(fleet.state(0, "r-1").await, "ACCEPTED");
    at.trip(&trip_id, "complete").await;
    at.expect_state("available").await;
    let audit = fleet.audit(0, "r-1").await;
    assert_eq!(
        audit.iter().filter(|event| *event == "OFFER_SENT").count(),
        1,
        "{audit:?}"
    );
}

/// With a trip.
#[tokio::test]
async fn a_trip_follows_its_driver() {
    let fleet = Fleet::start(3).await;
    let mut at = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = at.expect("OFFER").await;
    let trip_id = at.accept(&offer).await;
    fleet.until_bound("d-1", "r-1").await;
    for (number, state) in [(2, "en_route_to_pickup"), (0, "on_trip"), (1, "on_trip")] {
        let mut new = fleet.nodes[number].driver("d-1").await;
        assert_eq!(new.welcome["trip_id"], trip_id.as_str(), "{number}: {}", new.welcome);
        assert_eq!(new.welcome["state"], state, "{number}: {}", new.welcome);
        displaced(at).await;
        new.fence().await;
        if number == 2 {
            new.trip(&trip_id, "pickup").await;
            new.expect_state("on_trip").await;
        }
        fleet.until_all_say("d-1", "on_trip", number).await;
        at = new;
    }
    at.trip(&trip_id, "complete").await;
    at.expect_state("available").await;
    let audit = fleet.audit(0, "r-1").await;
    assert_eq!(audit.last().map(String::as_str), Some("TRIP_ENDED"), "{audit:?}");
    // Nothing is left of it anywhere: the driver takes the next one at each node.
    for number in 0..3 {
        let mut new = fleet.driver(number, "d-1").await;
        assert_eq!(new.welcome["state"], "available", "{number}");
        let request_id = format!("r-{number}-next");
        fleet.offer(1, &request_id, &["d-1"], &json!({})).await;
        let offer = new.expect("OFFER").await;
        assert_eq!(text(&offer, "request_id"), request_id);
        new.decline(&offer).await;
    }
}

/// An answer said in the last moment before the driver moves counts, whichever way it is known to the driver then.
#[tokio::test]
async fn an_answer_before_a_move_counts() {
    let fleet = Fleet::start(3).await;
    let mut at = fleet.driver(1, "d-1").await;
    for round in 0..12 {
        let request_id = format!("r-{round}");
        fleet.offer(0, &request_id, &["d-1"], &json!({})).await;
        let offer = at.expect("OFFER").await;
        at.answer("ACCEPT", &offer).await;
        let number = (round + 2) % 3;
        let mut new = fleet.nodes[number].driver("d-1").await;
        at.vanish();
        // What it hears depends on the moment; that it has the trip does not.
        new.answer("ACCEPT", &offer).await;
        let trip_id = loop {
            let message = new.next().await;
            match text(&message, "type") {
                "CONFIRMED" => break text(&message, "trip_id").to_owned(),
                "OFFER" | "STATE" => {}
                other => panic!("round {round}: {other}: {message}"),
            }
        };
        assert_eq!(fleet.state(0, &request_id).await, "ACCEPTED");
        fleet.until_all_say("d-1", "en_route_to_pickup", number).await;
        new.trip(&trip_id, "complete").await;
        loop {
            let message = new.next().await;
            match text(&message, "type") {
                "STATE" if message["state"] == "available" => break,
                "STATE" | "CONFIRMED" => {}
                other => panic!("round {round}: {other}: {message}"),
            }
        }
        fleet.until_all_say("d-1", "available", number).await;
        at = new;
    }
}

/// Whoever waits for a busy driver goes on waiting at its new node.
#[tokio::test]
async fn a_queue_follows_its_driver() {
    let fleet = Fleet::start(3).await;
    let at = {
        let mut at = fleet.driver(1, "d-1").await;
        fleet
            .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": 60_000}))
            .await;
        at.expect("OFFER").await;
        at
    };
    fleet
        .offer(
            2,
            "r-2",
            &["d-1"],
            &json!({"busy_wait_ms": 60_000, "offer_timeout_ms": 60_000}),
        )
        .await;
    fleet.until_state(2, "r-2", "PENDING_MATCH").await;
    fleet.until_bound("d-1", "r-1").await;
    let mut new = fleet.nodes[2].driver("d-1").await;
    displaced(at).await;
    let first = new.expect("OFFER").await;
    assert_eq!(text(&first, "request_id"), "r-1");
    new.decline(&first).await;
    let second = new.expect("OFFER").await;
    assert_eq!(text(&second, "request_id"), "r-2");
    new.accept(&second).await;
}

/// The offer that is posted at the moment of the move reaches the driver where it is.
#[tokio::test]
async fn offers_during_moves_reach_the_driver() {
    let fleet = Fleet::start(3).await;
    let mut at = fleet.driver(0, "d-1").await;
    for round in 1..10 {
        let number = round % 3;
        let request_id = format!("r-{round}");
        let more = json!({"offer_timeout_ms": 60_000});
        let (mut new, ()) = tokio::join!(
            fleet.nodes[number].driver("d-1"),
            fleet.offer((round / 3) % 3, &request_id, &["d-1"], &more),
        );
        let offer = new.expect("OFFER").await;
        assert_eq!(text(&offer, "request_id"), request_id, "round {round}");
        new.decline(&offer).await;
        at.vanish();
        at = new;
    }
    assert_eq!(fleet.view(1, "d-1").await["node"], name(0).as_str());
}

/// The registry is a moment late, always: what it does not know yet the last node says.
#[tokio::test]
async fn what_the_registry_does_not_know_the_last_node_says() {
    let fleet = Fleet::start(3).await;
    let mut at = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": 60_000}))
        .await;
    let offer = at.expect("OFFER").await;
    for number in [2, 0, 1] {
        fleet.until_bound("d-1", "r-1").await;
        fleet.forget_bound("d-1").await;
        let mut new = fleet.nodes[number].driver("d-1").await;
        assert_eq!(new.welcome["state"], "offered", "{number}: {}", new.welcome);
        displaced(at).await;
        new.expect("OFFER").await;
        fleet.until_registered(number, "d-1").await;
        at = new;
    }
    at.send(&json!({"type": "STATE", "state": "offline"})).await;
    at.expect_declined(&offer).await;
    at.expect_state("offline").await;
    let new = fleet.nodes[0].driver("d-1").await;
    assert_eq!(
        new.welcome["state"], "offline",
        "who is off shift stays so: {}",
        new.welcome
    );
}

/// What another node said of a driver's shift outlives a restart of the node that was told.
#[tokio::test]
async fn a_restarted_node_knows_the_shifts_it_was_told_of() {
    let mut fleet = Fleet::start(2).await;
    let mut back = fleet.driver(0, "d-1").await;
    back.go("offline").await;
    let mut back = fleet.driver(1, "d-1").await;
    assert_eq!(back.welcome["state"], "offline");
    back.go("available").await;
    let mut away = fleet.driver(1, "d-2").await;
    away.go("offline").await;
    for (name, state) in [("d-1", "available"), ("d-2", "offline")] {
        let here = fleet.driver(0, name).await;
        assert_eq!(here.welcome["state"], state, "{name}");
    }
    fleet.nodes[0].crash_and_restart().await;
    for (name, state) in [("d-1", "available"), ("d-2", "offline")] {
        let here = fleet.nodes[0].driver(name).await;
        assert_eq!(here.welcome["state"], state, "{name}");
    }
}
