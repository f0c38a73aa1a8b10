//! Links that are cut, stalled and damaged, and heal.

use crate::fleet::{Fleet, metric, response, until_metric};
use crate::proxy::Mode;
use crate::support::json;

const LONG: u64 = 120_000;

/// What the driver says while the link is away arrives when it is back, once.
async fn an_answer_waits_for_the_link(mode: Mode) {
    let fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": LONG}))
        .await;
    let offer = driver.expect("OFFER").await;
    fleet.until_audited(0, "r-1", "OFFER_DELIVERED").await;
    fleet.set_links_of(1, mode);
    driver.answer("ACK", &offer).await;
    driver.answer("ACCEPT", &offer).await;
    for node in &fleet.nodes {
        until_metric(node, "dispatchd_links_up", |up| up == 0).await;
    }
    driver.fence().await;
    assert_eq!(fleet.state(0, "r-1").await, "OFFER_SENT");
    // Who asks meanwhile hears that it cannot be said.
    fleet.nodes[0].get("/v1/drivers/d-1").await.problem(503, "not_durable");
    let taken = fleet.nodes[1]
        .post("/v1/dispatch/response", &response("d-1", "r-1", "ACCEPT"))
        .await;
    taken.problem(503, "not_durable");
    fleet.set_links_of(1, Mode::Pass);
    let trip_id = driver.expect_confirmed(&offer).await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
    let audit = fleet.audit(0, "r-1").await;
    for event in ["OFFER_ACKED", "OFFER_ACCEPTED", "TRIP_CREATED", "TRIP_ENDED"] {
        assert_eq!(audit.iter().filter(|found| *found == event).count(), 1, "{audit:?}");
    }
}

#[tokio::test]
async fn an_answer_waits_for_a_link_that_is_cut() {
    an_answer_waits_for_the_link(Mode::Cut).await;
}

#[tokio::test]
async fn an_answer_waits_for_a_link_that_is_stalled() {
    an_answer_waits_for_the_link(Mode::Stall).await;
}

/// An offer made while the link is away is not refused: it comes when the link does, with the time it has left.
#[tokio::test]
async fn an_offer_waits_for_the_link() {
    let fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    fleet.set_links_of(1, Mode::Cut);
    until_metric(&fleet.nodes[0], "dispatchd_links_up", |up| up == 0).await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": LONG}))
        .await;
    assert_eq!(fleet.state(0, "r-1").await, "OFFER_SENT");
    driver.fence().await;
    fleet.set_links_of(1, Mode::Pass);
    let offer = driver.expect("OFFER").await;
    driver.accept(&offer).await;
}

/// An offer whose time ends while the link is away ends on both sides.
#[tokio::test]
async fn an_offer_ends_while_the_link_is_away() {
    let fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    let mut other = fleet.driver(0, "d-2").await;
    fleet
        .offer(0, "r-1", &["d-1", "d-2"], &json!({"offer_timeout_ms": 1_500}))
        .await;
    let offer = driver.expect("OFFER").await;
    fleet.set_links_of(1, Mode::Stall);
    let next = other.expect("OFFER").await;
    other.accept(&next).await;
    // The driver's word comes too late, and it hears so.
    driver.answer("ACCEPT", &offer).await;
    driver.fence().await;
    fleet.set_links_of(1, Mode::Pass);
    driver.expect_revoked(&offer, "timeout").await;
    fleet.until_all_say("d-1", "available", 1).await;
    assert_eq!(fleet.state(0, "r-1").await, "ACCEPTED");
}

/// A damaged frame costs the connection and nothing else: what it held is sent again.
#[tokio::test]
async fn damage_is_seen_and_sent_again() {
    let fleet = Fleet::start(2).await;
    let mut driver = fleet.driver(1, "d-1").await;
    for round in 0..5 {
        let request_id = format!("r-{round}");
        fleet.proxies.iter().for_each(crate::proxy::Proxy::harm_once);
        fleet
            .offer(0, &request_id, &["d-1"], &json!({"offer_timeout_ms": LONG}))
            .await;
        let offer = driver.expect("OFFER").await;
        fleet.proxies.iter().for_each(crate::proxy::Proxy::harm_once);
        let trip_id = driver.accept(&offer).await;
        driver.trip(&trip_id, "complete").await;
        driver.expect_state("available").await;
    }
    let mut bad = 0;
    for node in &fleet.nodes {
        bad += metric(node, "dispatchd_links_bad_frames_total").await;
    }
    assert!(
        bad > 0 && fleet.proxies.iter().all(crate::proxy::Proxy::has_harmed),
        "{bad}"
    );
}

/// A driver cut off with its node connects to another: the offer and the answer are one.
#[tokio::test]
async fn a_driver_leaves_a_node_that_is_cut_off() {
    let fleet = Fleet::start(3).await;
    let mut old = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": LONG}))
        .await;
    let offer = old.expect("OFFER").await;
    fleet.until_bound("d-1", "r-1").await;
    fleet.proxies.iter().for_each(|proxy| proxy.set(Mode::Cut));
    for node in &fleet.nodes {
        until_metric(node, "dispatchd_links_up", |up| up == 0).await;
    }
    let mut new = fleet.nodes[2].driver("d-1").await;
    // The registry displaces it when no link does.
    assert_eq!(old.closed().await.0, 4001);
    fleet.proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
    let again = new.expect("OFFER").await;
    assert_eq!(
        (&again["request_id"], &again["attempt"]),
        (&offer["request_id"], &offer["attempt"])
    );
    new.accept(&again).await;
    assert_eq!(fleet.state(0, "r-1").await, "ACCEPTED");
}

/// A driver comes over a cut and speaks at once of what its new node does not know yet: it is not told that there is none.
#[tokio::test]
async fn words_of_a_driver_who_came_over_a_cut_wait() {
    let fleet = Fleet::start(3).await;
    let mut old = fleet.driver(1, "d-1").await;
    fleet
        .offer(0, "r-1", &["d-1"], &json!({"offer_timeout_ms": LONG}))
        .await;
    let offer = old.expect("OFFER").await;
    fleet.until_bound("d-1", "r-1").await;
    fleet.forget_bound("d-1").await;
    fleet.proxies.iter().for_each(|proxy| proxy.set(Mode::Cut));
    for node in &fleet.nodes {
        until_metric(node, "dispatchd_links_up", |up| up == 0).await;
    }
    let mut new = fleet.nodes[2].driver("d-1").await;
    assert_eq!(new.welcome["state"], "available", "{}", new.welcome);
    new.answer("ACCEPT", &offer).await;
    new.fence().await;
    fleet.proxies.iter().for_each(|proxy| proxy.set(Mode::Pass));
    let again = new.expect("OFFER").await;
    assert_eq!(again["attempt"], offer["attempt"]);
    new.expect_confirmed(&again).await;
}

/// A call that is under way when the link stalls is answered all the same.
#[tokio::test]
async fn a_call_under_way_in_a_stall_is_answered() {
    let fleet = Fleet::start(2).await;
    let _driver = fleet.driver(1, "d-1").await;
    fleet.view(0, "d-1").await;
    fleet.set_links_of(1, Mode::Stall);
    fleet.nodes[0].get("/v1/drivers/d-1").await.problem(503, "not_durable");
}
