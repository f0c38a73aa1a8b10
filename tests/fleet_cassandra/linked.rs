//! A node that hung while others took over from it, with links between them: its drivers hear nothing from it that is not so.

use crate::cluster::{Cluster, alone, shared, unique};
use crate::proxy::{Mode, Proxy};
use crate::support::{Driver, eventually, json, number, ports, text};
use crate::takeover::Fleet;
use serde_json::Value;

async fn linked(cluster: &'static Cluster) -> Fleet {
    let fleet = Fleet::start_with(cluster, |setup| setup.set("fleet_link_listen", ports::free_address())).await;
    until_links_up(&fleet, 1).await;
    fleet
}

/// Each node sees so many links.
async fn until_links_up(fleet: &Fleet, up: u64) {
    for node in [&fleet.a, &fleet.b] {
        let seen = async || (node.metric("dispatchd_links_up", "").await == up).then_some(());
        eventually(&format!("{up} links to be up"), seen).await;
    }
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
    let fleet = linked(shared.cluster).await;
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
    let fleet = linked(shared.cluster).await;
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
    let mut fleet = linked(shared.cluster).await;
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

/// The node that has a trip stores its end, dies before anybody hears of that, and does not come back: the driver, who is at another
/// node, is free.
#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_trip_that_a_dead_node_stored_reaches_its_driver() {
    let Some(alone) = alone().await else { return };
    let mut fleet = linked(alone.cluster).await;
    let (driver_id, request_id) = (unique("d"), unique("r"));
    let mut driver = fleet.b.driver(&driver_id).await;
    fleet.a.offer(&request_id, &[&driver_id], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    alone.pause();
    driver.trip(&trip_id, "complete").await;
    let a = &fleet.a;
    let deciding = async || (a.metric("dispatchd_cassandra_decisions_waiting", "").await == 1).then_some(());
    eventually("the end to be on its way to Cassandra", deciding).await;
    // What was sent has left the process.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    fleet.a.kill_9();
    alone.go_on();
    fleet.until_adopted(1).await;
    let audit = format!("/v1/dispatch/audit/{request_id}");
    let ended = async || {
        let audit = fleet.b.get(&audit).await;
        (audit.status == 200 && audit.json()["events"].to_string().contains("TRIP_ENDED")).then_some(())
    };
    eventually("the end of the trip in the audit", ended).await;
    driver.expect_state("available").await;
}

/// A node's data directory is lost, and it begins anew under its name: what it had open ends all the same.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_node_that_lost_its_directory_end() {
    let Some(shared) = shared().await else { return };
    let redis = crate::redis::Redis::start();
    let keyspace = shared.cluster.another_keyspace();
    let setup = shared
        .cluster
        .node(&unique("n"))
        .set("fleet_cassandra_keyspace", keyspace);
    let setup = setup
        .set("fleet_redis_url", redis.url())
        .set("fleet_redis_lease_ms", 1_500);
    let mut node = setup.set("fleet_redis_timeout_ms", 5_000).start().await;
    let request_id = unique("r");
    node.offer(&request_id, &["nobody"], &json!({"deadline_ms": 5_000}))
        .await;
    node.kill_9();
    std::fs::remove_dir_all(node.data()).expect("its directory");
    node.spawn();
    node.until_ready().await;
    node.until_state(&request_id, "UNFULFILLED").await;
}

/// What the new owner of a request notes stands in the audit, as what its owner before noted did, and not only after the next decision.
#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_a_new_owner_notes_is_in_the_audit() {
    let Some(shared) = shared().await else { return };
    let mut fleet = linked(shared.cluster).await;
    let (driver_id, request_id) = (unique("d"), unique("r"));
    let mut driver = fleet.a.driver(&driver_id).await;
    fleet.a.offer(&request_id, &[&driver_id], &json!({})).await;
    driver.expect("OFFER").await;
    fleet.a.kill_9();
    let mut driver = fleet.b.driver(&driver_id).await;
    let offer = driver.expect("OFFER").await;
    driver.answer("ACK", &offer).await;
    driver.fence().await;
    let acked = async || {
        let audit = fleet.b.get(&format!("/v1/dispatch/audit/{request_id}")).await;
        (audit.status == 200 && audit.json()["events"].to_string().contains("OFFER_ACKED")).then_some(())
    };
    eventually("the receipt in the audit", acked).await;
}

/// A node was killed when it had put a request on its list and had not claimed it; the same POST came again in a later minute, and so the
/// request stands on the list twice. It is taken over once, and ends once.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_listed_twice_is_taken_over_once() {
    let Some(shared) = shared().await else { return };
    let (name, keyspace, request_id) = (unique("n"), shared.cluster.another_keyspace(), unique("r"));
    let setup = shared.cluster.node(&name).set("fleet_cassandra_keyspace", &keyspace);
    let mut node = setup.start().await;
    node.offer(&request_id, &["nobody"], &json!({"deadline_ms": 1_500}))
        .await;
    let session = shared.cluster.session().await;
    let earlier = jiff::Timestamp::now().as_millisecond() / 60_000 - 1;
    let listed = format!("INSERT INTO {keyspace}.open_requests (owner, bucket, request_id) VALUES (?, ?, ?)");
    let minute = format!("INSERT INTO {keyspace}.open_buckets (owner, bucket) VALUES (?, ?)");
    let done = session.query_unpaged(listed, (&name, earlier, &request_id)).await;
    done.expect("a row");
    session.query_unpaged(minute, (&name, earlier)).await.expect("a row");
    let deadline_at_ms = number(&node.view(&request_id).await, "deadline_at_ms");
    node.kill_9();
    let is_over = async || (jiff::Timestamp::now().as_millisecond() as u64 > deadline_at_ms).then_some(());
    eventually("its deadline to be over when it is taken over", is_over).await;
    node.spawn();
    node.until_ready().await;
    node.until_state(&request_id, "UNFULFILLED").await;
    let ended = unique("r");
    node.ended_request(&ended, "nobody").await;
    node.until_event(&ended, "REQUEST_CANCELLED").await;
    let events = node
        .http
        .get(node.url("/v1/events?limit=1000"))
        .send()
        .await
        .expect("events");
    let events = events.text().await.expect("lines");
    let ends = events
        .lines()
        .filter(|line| line.contains("REQUEST_UNFULFILLED") && line.contains(&request_id));
    let count = ends.count();
    // What it journaled is one story.
    node.crash_and_restart().await;
    assert_eq!(count, 1, "{events}");
}

/// The link breaks before a driver can hear that another took the offer that both had. Its node says nothing of its own: it reads in all
/// nodes' store how the offer ended, long before the link is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_behind_a_broken_link_hears_the_end_that_was_stored() {
    let Some(shared) = shared().await else { return };
    let mut proxies = Vec::new();
    let fleet = Fleet::start_with(shared.cluster, |setup| {
        let listens = ports::free_address();
        let proxy = Proxy::start(listens);
        let setup = setup
            .set("fleet_link_listen", listens)
            .set("fleet_link_advertise", proxy.address);
        proxies.push(proxy);
        setup
    })
    .await;
    until_links_up(&fleet, 1).await;
    let (far_id, near_id, request_id) = (unique("d"), unique("d"), unique("r"));
    let (mut far, mut near) = (fleet.b.driver(&far_id).await, fleet.a.driver(&near_id).await);
    let both = json!({"parallel": 2, "offer_timeout_ms": 4_000});
    fleet.a.offer(&request_id, &[&far_id, &near_id], &both).await;
    let (shown, taken) = (far.expect("OFFER").await, near.expect("OFFER").await);
    for proxy in &proxies {
        proxy.set(Mode::Cut);
    }
    until_links_up(&fleet, 0).await;
    near.answer("ACK", &taken).await;
    near.accept(&taken).await;
    far.expect_revoked(&shown, "taken").await;
    for proxy in &proxies {
        proxy.set(Mode::Pass);
    }
    until_links_up(&fleet, 1).await;
    agree(&fleet, &request_id).await;
    far.fence().await;
}
