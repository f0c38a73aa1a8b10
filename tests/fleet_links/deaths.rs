//! Nodes that are killed, for good or not.

use crate::fleet::{Fleet, until_metric};
use crate::support::json;
use dispatchd::cold::links::port::PATIENCE;

const LONG: u64 = 120_000;

/// The driver's node dies: the driver finds its offer, and its trip, at another.
#[tokio::test]
async fn the_drivers_of_a_dead_node_find_what_binds_them() {
    let mut fleet = Fleet::start(3).await;
    let mut offered = fleet.driver(1, "d-1").await;
    let mut riding = fleet.driver(1, "d-2").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": LONG}))
        .await;
    offered.expect("OFFER").await;
    fleet.offer(0, "r-2", &["d-2"], &json!({})).await;
    let offer = riding.expect("OFFER").await;
    let trip_id = riding.accept(&offer).await;
    fleet.until_bound("d-1", "r-1").await;
    fleet.until_bound("d-2", "r-2").await;
    fleet.nodes[1].kill_9();
    let mut offered = fleet.nodes[2].driver("d-1").await;
    assert_eq!(offered.welcome["state"], "offered", "{}", offered.welcome);
    let again = offered.expect("OFFER").await;
    offered.accept(&again).await;
    let mut riding = fleet.nodes[0].driver("d-2").await;
    assert_eq!(riding.welcome["trip_id"], trip_id.as_str(), "{}", riding.welcome);
    riding.trip(&trip_id, "complete").await;
    riding.expect_state("available").await;
}

/// The driver's node begins anew: the driver comes back to it and finds its offer.
#[tokio::test]
async fn a_restart_of_the_drivers_node_loses_nothing() {
    let mut fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": LONG}))
        .await;
    driver.expect("OFFER").await;
    fleet.until_bound("d-1", "r-1").await;
    fleet.nodes[1].crash_and_restart().await;
    fleet.until_linked().await;
    let mut driver = fleet.nodes[1].driver("d-1").await;
    assert_eq!(driver.welcome["state"], "offered", "{}", driver.welcome);
    let offer = driver.expect("OFFER").await;
    driver.accept(&offer).await;
}

/// A driver went elsewhere while its node was away, which a third node has not heard: the node that begins anew does not know better.
#[tokio::test]
async fn a_restarted_node_is_not_asked_for_the_drivers_that_it_had() {
    let mut fleet = Fleet::start(3).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.offer(0, "r-1", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.answer("DECLINE", &offer).await;
    driver.expect("DECLINED").await;
    fleet.nodes[1].kill_9();
    fleet.driver(2, "d-1").await;
    // What the other and the registry have to say to the node that is away is lost.
    fleet.nodes[2].crash_and_restart().await;
    let mut driver = fleet.driver(2, "d-1").await;
    fleet.forget_moves(1).await;
    fleet.nodes[1].spawn();
    fleet.nodes[1].until_ready().await;
    fleet.until_linked().await;
    fleet.offer(0, "r-2", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.accept(&offer).await;
}

/// The request's node begins anew: what the driver said meanwhile is not lost.
#[tokio::test]
async fn a_restart_of_the_requests_node_loses_no_answer() {
    let mut fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": LONG}))
        .await;
    let offer = driver.expect("OFFER").await;
    fleet.until_audited(0, "r-1", "OFFER_DELIVERED").await;
    fleet.nodes[0].kill_9();
    driver.answer("ACCEPT", &offer).await;
    driver.fence().await;
    fleet.nodes[0].spawn();
    fleet.nodes[0].until_ready().await;
    let trip_id = driver.expect_confirmed(&offer).await;
    fleet.until_linked().await;
    fleet.nodes[0].crash_and_restart().await;
    // Trips too.
    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
    // And nothing of the driver is left at the request's node.
    let mut driver = fleet.nodes[0].driver("d-1").await;
    assert_eq!(driver.welcome["state"], "available", "{}", driver.welcome);
    fleet.offer(1, "r-2", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.accept(&offer).await;
}

/// The request's node is gone for good: a driver who has not taken the offer is free when that is over for long.
#[tokio::test]
async fn a_dead_node_binds_no_driver_for_ever() {
    let mut fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": 2_000}))
        .await;
    let offer = driver.expect("OFFER").await;
    fleet.nodes[0].kill_9();
    driver.expect_revoked(&offer, "timeout").await;
    fleet.offer(1, "r-2", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.accept(&offer).await;
}

/// The driver's node dies before the registry knows what binds the driver: the request's node looks for it.
#[tokio::test]
async fn a_request_looks_for_the_driver_of_a_dead_node() {
    let mut fleet = Fleet::start(3).await;
    // Sockets that stay: the loss of one would be written to the registry, and with it what binds the driver.
    let mut sockets = Vec::new();
    for id in ["d-1", "d-2"] {
        let mut driver = fleet.driver(1, id).await;
        let request_id = format!("r-{id}");
        fleet
            .offer(0, &request_id, &[id], &json!({"offer_timeout_ms": LONG}))
            .await;
        driver.expect("OFFER").await;
        fleet.until_bound(id, &request_id).await;
        fleet.forget_bound(id).await;
        sockets.push(driver);
    }
    fleet.nodes[1].kill_9();
    // At a third node it comes in a second or so, at the request's own it is there at once.
    let mut far = fleet.nodes[2].driver("d-1").await;
    let mut near = fleet.nodes[0].driver("d-2").await;
    assert_eq!(near.welcome["state"], "offered", "{}", near.welcome);
    let offer = near.expect("OFFER").await;
    near.accept(&offer).await;
    let offer = far.expect("OFFER").await;
    far.accept(&offer).await;
}

/// What was said to a node that was away for so long that it was given up is said again when the node is back.
#[tokio::test]
async fn a_word_given_up_is_said_again() {
    let mut fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": 300_000}))
        .await;
    let offer = driver.expect("OFFER").await;
    fleet.until_audited(0, "r-1", "OFFER_DELIVERED").await;
    fleet.nodes[0].kill_9();
    driver.answer("ACCEPT", &offer).await;
    driver.fence().await;
    // It takes longer than a test waits for one thing.
    until_metric(&fleet.nodes[1], "dispatchd_links_up", |up| up == 0).await;
    let begun = std::time::Instant::now();
    until_metric(&fleet.nodes[1], "process_cpu_seconds_total", |_| {
        begun.elapsed() > PATIENCE / 2
    })
    .await;
    until_metric(&fleet.nodes[1], "dispatchd_links_lost_total", |lost| lost > 0).await;
    fleet.nodes[0].spawn();
    fleet.nodes[0].until_ready().await;
    driver.expect_confirmed(&offer).await;
}
