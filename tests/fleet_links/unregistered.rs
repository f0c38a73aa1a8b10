//! Drivers who connect to another node while the registry is away: the nodes ask each other.

use crate::fleet::{Fleet, until_metric};
use crate::moves::displaced;
use crate::support::json;

/// Kills Redis and waits until every node knows.
async fn without_registry(fleet: &Fleet) {
    fleet.redis.kill();
    for node in &fleet.nodes {
        until_metric(node, "dispatchd_registry_connected", |connected| connected == 0).await;
    }
}

/// The offer follows its driver, and no other takes its place.
#[tokio::test]
async fn an_open_offer_follows_its_driver() {
    let fleet = Fleet::start(3).await;
    let mut at = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": 60_000}))
        .await;
    let offer = at.expect("OFFER").await;
    without_registry(&fleet).await;
    for number in [2, 0, 1] {
        // A node that does not know where the driver is, and offers when it does.
        let rival = format!("r-{number}-rival");
        let other = (number + 1) % 3;
        fleet.offer(other, &rival, &["d-1"], &json!({})).await;
        let mut new = fleet.nodes[number].driver("d-1").await;
        assert_eq!(new.welcome["state"], "offered", "{number}: {}", new.welcome);
        assert!(new.session() > at.session());
        displaced(at).await;
        assert_eq!(new.expect("OFFER").await["request_id"], offer["request_id"], "{number}");
        new.fence().await;
        at = new;
    }
    at.accept(&offer).await;
}

/// So does the trip, and that the driver is off shift.
#[tokio::test]
async fn a_trip_and_a_shift_follow_their_driver() {
    let fleet = Fleet::start(3).await;
    let mut riding = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = riding.expect("OFFER").await;
    let trip_id = riding.accept(&offer).await;
    let mut resting = fleet.driver(1, "d-2").await;
    resting.send(&json!({"type": "STATE", "state": "offline"})).await;
    resting.expect_state("offline").await;
    without_registry(&fleet).await;
    for number in [2, 0] {
        let new = fleet.nodes[number].driver("d-1").await;
        assert_eq!(new.welcome["trip_id"], trip_id.as_str(), "{number}: {}", new.welcome);
        let rested = fleet.nodes[number].driver("d-2").await;
        assert_eq!(rested.welcome["state"], "offline", "{number}: {}", rested.welcome);
        riding = new;
        resting = rested;
    }
    riding.trip(&trip_id, "complete").await;
    riding.expect_state("available").await;
    resting.send(&json!({"type": "STATE", "state": "available"})).await;
    resting.expect_state("available").await;
    // Nodes that had the driver before have older news.
    let back = fleet.nodes[1].driver("d-2").await;
    assert_eq!(back.welcome["state"], "available", "{}", back.welcome);
}
