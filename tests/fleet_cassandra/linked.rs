//! A node that hung while others took over from it, with links between them: its drivers hear nothing from it that is not so.

use crate::cluster::{Shared, shared, unique};
use crate::support::{Driver, eventually, json, ports, text};
use crate::takeover::Fleet;
use serde_json::Value;

async fn linked(shared: &Shared) -> Fleet {
    let fleet = Fleet::start_with(shared, |setup| setup.set("fleet_link_listen", ports::free_address())).await;
    for node in [&fleet.a, &fleet.b] {
        let up = async || (node.metric("dispatchd_links_up", "").await == 1).then_some(());
        eventually("the link to be up", up).await;
    }
    fleet
}

/// A driver of the first node who holds an offer of it.
async fn offered(fleet: &Fleet) -> (Driver, Value) {
    let (driver_id, request_id) = (unique("d"), unique("r"));
    let mut driver = fleet.a.driver(&driver_id).await;
    fleet.a.offer(&request_id, &[&driver_id], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.answer("ACK", &offer).await;
    driver.fence().await;
    (driver, offer)
}

/// Both nodes show one audit of it, in which nothing stands twice.
async fn agree(fleet: &Fleet, request_id: &str) {
    let path = format!("/v1/dispatch/audit/{request_id}");
    let same = async || {
        let (one, other) = (fleet.a.get(&path).await, fleet.b.get(&path).await);
        (one.status == 200 && one.json() == other.json()).then(|| one.json())
    };
    let audit = eventually("both nodes to show one audit", same).await;
    let events = audit["events"].as_array().expect("events");
    for name in ["OFFER_ACKED", "OFFER_ACCEPTED", "TRIP_CREATED"] {
        let count = events.iter().filter(|event| event["event"] == name).count();
        assert_eq!(count, 1, "{name} in {audit}");
    }
}

/// The node hangs until its requests are another's. What drivers said meanwhile, of an offer and of a trip, goes to that one; who
/// said nothing keeps the offer.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_a_node_that_hangs_reaches_the_new_owner() {
    let Some(shared) = shared().await else { return };
    let fleet = linked(&shared).await;
    let (mut silent, kept) = offered(&fleet).await;
    let (mut quick, taken) = offered(&fleet).await;
    let (mut driving, driven) = offered(&fleet).await;
    let trip_id = driving.accept(&driven).await;
    fleet.a.pause();
    quick.answer("ACCEPT", &taken).await;
    driving.trip(&trip_id, "pickup").await;
    fleet.until_adopted(3).await;
    fleet.a.go_on();
    quick.expect_confirmed(&taken).await;
    driving.expect_state("on_trip").await;
    silent.accept(&kept).await;
    driving.trip(&trip_id, "complete").await;
    driving.expect_state("available").await;
    for offer in [kept, taken, driven] {
        agree(&fleet, text(&offer, "request_id")).await;
    }
}

/// The node hangs in the middle of decisions. Whichever were stored when nobody heard of it, and whichever were not, come about.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_that_a_hang_cut_short_come_about() {
    let Some(shared) = shared().await else { return };
    let fleet = linked(&shared).await;
    let mut all = Vec::new();
    for _ in 0..24 {
        all.push(offered(&fleet).await);
    }
    for (driver, offer) in &mut all {
        driver.answer("ACCEPT", offer).await;
    }
    fleet.a.pause();
    fleet.until_adopted(24).await;
    fleet.a.go_on();
    for (driver, offer) in &mut all {
        driver.expect_confirmed(offer).await;
    }
    for (_, offer) in &all {
        agree(&fleet, text(offer, "request_id")).await;
    }
}

/// The node dies for which a busy driver of the other one is to be reserved next: that driver is not lost to everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn whom_a_dead_node_would_have_reserved_is_offered_again() {
    let Some(shared) = shared().await else { return };
    let mut fleet = linked(&shared).await;
    let (driver_id, waits, later) = (unique("d"), unique("r"), unique("r"));
    let mut driver = fleet.b.driver(&driver_id).await;
    fleet.b.offer(&unique("r"), &[&driver_id], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let wait = json!({"busy_wait_ms": 30_000, "deadline_ms": 1_000});
    fleet.a.offer(&waits, &[&driver_id], &wait).await;
    // It is asked by way of the other node after the request was.
    let path = format!("/v1/drivers/{driver_id}");
    assert_eq!(fleet.a.get(&path).await.ok(200)["state"], "offered");
    // That the driver is reserved now is said to a node that does not read it any more.
    fleet.a.pause();
    driver.answer("DECLINE", &offer).await;
    driver.expect("DECLINED").await;
    fleet.a.kill_9();
    // Adopted when its deadline is over: it asks nobody again.
    fleet.b.until_state(&waits, "UNFULFILLED").await;
    fleet
        .b
        .offer(&later, &[&driver_id], &json!({"busy_wait_ms": 30_000}))
        .await;
    let offer = driver.expect("OFFER").await;
    assert_eq!(text(&offer, "request_id"), later);
    driver.accept(&offer).await;
}
