//! A node dies, hangs or ends: the others go on with what it had open, and it gives up what it no longer has.

use crate::cluster::{Cluster, Shared, shared, unique};
use crate::proxy::{Mode, Proxy};
use crate::redis::Redis;
use crate::support::disk::SmallDisk;
use crate::support::{Driver, Node, Setup, eventually, json, text};
use std::time::Instant;

/// Two nodes of one fleet, in one Redis and one Cassandra.
pub struct Fleet {
    pub a: Node,
    pub b: Node,
    a_name: String,
    keyspace: String,
    _redis: Redis,
}

impl Fleet {
    async fn start(shared: &Shared) -> Self {
        Self::start_with(shared.cluster, |setup| setup).await
    }

    pub async fn start_with(cluster: &'static Cluster, mut with: impl FnMut(Setup) -> Setup) -> Self {
        let redis = Redis::start();
        let keyspace = cluster.another_keyspace();
        let mut setup = |name: &str| {
            let setup = cluster
                .node(name)
                .set("fleet_cassandra_keyspace", &keyspace)
                .set("fleet_redis_url", redis.url());
            let setup = setup
                .set("fleet_redis_timeout_ms", 5_000)
                .set("fleet_redis_lease_ms", 1_500);
            with(setup)
        };
        let (a_name, b_name) = (unique("a"), unique("b"));
        let fleet = Self {
            a: setup(&a_name).set("offer_timeout_ms", 120_000).start().await,
            b: setup(&b_name).set("offer_timeout_ms", 120_000).start().await,
            a_name,
            keyspace: keyspace.clone(),
            _redis: redis,
        };
        // The survivor has to know itself before it counts on others.
        let both = async || {
            let mut homes = Vec::new();
            for number in 0..16 {
                let home = fleet
                    .b
                    .get(&format!("/v1/fleet/assign?driver_id=x-{number}"))
                    .await
                    .ok(200);
                homes.push(text(&home, "node").to_owned());
            }
            (homes.contains(&fleet.a_name) && homes.contains(&b_name)).then_some(())
        };
        eventually("both nodes to be known", both).await;
        fleet
    }

    /// What B took over.
    pub async fn until_adopted(&self, count: u64) {
        let taken = async || (self.b.metric("dispatchd_requests_adopted_total", "").await >= count).then_some(());
        eventually("the survivor to have taken over", taken).await;
    }
}

/// Everything that was open at a node that is killed goes on at the other: an offer, a trip, a search, and what was about to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_s_requests_go_on_at_the_survivor() {
    let Some(shared) = shared().await else { return };
    let mut fleet = Fleet::start(&shared).await;
    let ids: Vec<String> = (0..4).map(|_| unique("r")).collect();
    let names: Vec<String> = (0..3).map(|_| unique("d")).collect();
    let a = &fleet.a;
    let (mut offered, mut driving) = (a.driver(&names[0]).await, a.driver(&names[1]).await);
    a.offer(&ids[0], &[&names[0]], &json!({})).await;
    let offer = offered.expect("OFFER").await;
    offered.answer("ACK", &offer).await;
    offered.fence().await;
    a.offer(&ids[1], &[&names[1]], &json!({})).await;
    let first = driving.expect("OFFER").await;
    let trip_id = driving.accept(&first).await;
    a.offer(&ids[2], &["nobody"], &json!({})).await;
    a.until_event(&ids[2], "REDISPATCH_REQUESTED").await;
    // Nobody answers this one.
    let mut silent = a.driver(&names[2]).await;
    a.offer(
        &ids[3],
        &[&names[2]],
        &json!({"offer_timeout_ms": 100, "max_attempts": 1, "deadline_ms": 100_000}),
    )
    .await;
    silent.expect("OFFER").await;

    fleet.a.kill_9();
    let killed = Instant::now();
    let b = &fleet.b;
    // One who reconnects at once waits for the takeover, one who comes later finds all at the WELCOME.
    let mut offered = b.driver(&names[0]).await;
    assert_eq!(offered.welcome["state"], "available");
    let again = offered.expect("OFFER").await;
    println!(
        "from kill -9 to the OFFER at the survivor: {:.1?} (lease 1.5 s)",
        killed.elapsed()
    );
    assert_eq!(
        (&again["request_id"], &again["attempt"]),
        (&offer["request_id"], &offer["attempt"])
    );
    assert_eq!(
        (&again["expires_at_ms"], &again["trip"]),
        (&offer["expires_at_ms"], &offer["trip"])
    );
    fleet.until_adopted(3).await;
    let mut driving = b.driver(&names[1]).await;
    hears_of_its_trip(&mut driving, &trip_id).await;
    assert_eq!(b.until_state(&ids[3], "UNFULFILLED").await["attempt"], 1);
    b.until_event(&ids[3], "REQUEST_UNFULFILLED").await;
    // Its last decision may not have been published there.
    b.until_event(&ids[2], "REDISPATCH_REQUESTED").await;

    offered.accept(&again).await;
    driving.trip(&trip_id, "pickup").await;
    driving.expect_state("on_trip").await;
    driving.trip(&trip_id, "complete").await;
    driving.expect_state("available").await;
    b.offer(&unique("next"), &[&names[1]], &json!({})).await;
    driving.expect("OFFER").await;
    let taken = b.post_offer(&ids[2], &["nobody-2"], &json!({})).await.ok(202);
    assert_eq!(taken["attempt"], 2);
    returns_and_agrees(&mut fleet, &ids).await;
    goes_back(&mut fleet, &ids, &names[0]).await;
}

/// A driver who comes to the survivor after the takeover finds its trip in the `WELCOME`. One who was there before is told then:
/// with `CONFIRMED` before the `STATE`, since the node that died may not have said it.
async fn hears_of_its_trip(driver: &mut Driver, trip_id: &str) {
    if driver.welcome["state"] == "en_route_to_pickup" {
        assert_eq!(driver.welcome["trip_id"], trip_id);
        return;
    }
    assert_eq!(driver.expect("CONFIRMED").await["trip_id"], trip_id);
    driver.expect_state("en_route_to_pickup").await;
}

/// The second node dies too: all of it goes back to the first, whose journal has an older story of it.
async fn goes_back(fleet: &mut Fleet, ids: &[String], name: &str) {
    let trip_id = text(&fleet.b.view(&ids[0]).await, "trip_id").to_owned();
    let views = [fleet.b.view(&ids[0]).await, fleet.b.view(&ids[2]).await];
    fleet.b.kill_9();
    let taken = async || (fleet.a.metric("dispatchd_requests_adopted_total", "").await >= 2).then_some(());
    eventually("the requests to be back", taken).await;
    for _ in 0..2 {
        for (id, view) in [&ids[0], &ids[2]].into_iter().zip(&views) {
            let same =
                async || (fleet.a.get(&format!("/v1/dispatch/request/{id}")).await.json() == *view).then_some(());
            eventually("the request as it was", same).await;
        }
        fleet.a.crash_and_restart().await;
    }
    let mut driver = fleet.a.driver(name).await;
    hears_of_its_trip(&mut driver, &trip_id).await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
    assert_eq!(fleet.a.cancel(&ids[2]).await.ok(200)["state"], "CANCELLED");
}

/// The killed node comes back: it has nothing any more of what was taken over, and says of it what the other says.
async fn returns_and_agrees(fleet: &mut Fleet, ids: &[String]) {
    fleet.a.spawn();
    fleet.a.until_ready().await;
    let (a, b) = (&fleet.a, &fleet.b);
    for id in ids {
        let path = format!("/v1/dispatch/audit/{id}");
        let same = async || {
            let (one, other) = (a.get(&path).await, b.get(&path).await);
            (one.status == 200 && one.json() == other.json()).then(|| one.json())
        };
        let audit = eventually("both nodes to show one audit", same).await;
        let events = audit["events"].as_array().expect("events");
        let nodes: Vec<&str> = events.iter().map(|event| text(event, "node")).collect();
        assert!(nodes[0] == fleet.a_name && nodes.is_sorted(), "{audit}");
        let times: Vec<u64> = events.iter().filter_map(|event| event["at_ms"].as_u64()).collect();
        assert!(times.len() == events.len() && times.is_sorted(), "{audit}");
    }
    // The ACK was noted at the killed node alone; its next decision was made at the other.
    let audit = b.get(&format!("/v1/dispatch/audit/{}", ids[0])).await.ok(200);
    let events: Vec<&str> = audit["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| text(event, "event"))
        .collect();
    let place = |name: &str| events.iter().position(|event| *event == name);
    assert!(
        place("OFFER_ACKED").is_some() && place("OFFER_ACKED") < place("OFFER_ACCEPTED"),
        "{audit}"
    );
    let again = a.post_offer(&ids[0], &["x"], &json!({})).await.ok(200);
    assert_eq!(
        (&again["state"], &again["duplicate"]),
        (&json!("ACCEPTED"), &json!(true))
    );
}

/// A node that hangs for longer than its lease finds itself without its requests, and lets its drivers know.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hung_gives_up_what_was_taken_over() {
    let Some(shared) = shared().await else { return };
    let fleet = Fleet::start(&shared).await;
    let (id, waiting, driver_id) = (unique("r"), unique("r"), unique("d"));
    let mut at_a = fleet.a.driver(&driver_id).await;
    fleet.a.offer(&id, &[&driver_id], &json!({})).await;
    let offer = at_a.expect("OFFER").await;
    fleet.a.offer(&waiting, &["nobody"], &json!({})).await;
    fleet.a.until_event(&waiting, "REDISPATCH_REQUESTED").await;
    fleet.a.pause();
    fleet.until_adopted(2).await;
    let cancelled = fleet.b.cancel(&waiting).await.ok(200);
    assert_eq!(cancelled["state"], "CANCELLED");
    fleet.a.go_on();
    // It looks after its requests when its lease is its own again, whoever speaks of them.
    at_a.expect_revoked(&offer, "superseded").await;
    let known = async || {
        let view = fleet.a.view(&waiting).await;
        (view["state"] == "CANCELLED").then_some(())
    };
    eventually("the node that hung to know the end", known).await;
    at_a.answer("ACCEPT", &offer).await;
    at_a.fence().await;
    let mut at_b = fleet.b.driver(&driver_id).await;
    let again = match at_b.welcome["state"].as_str() {
        Some("offered" | "available") => at_b.expect("OFFER").await,
        other => panic!("{other:?}"),
    };
    at_b.accept(&again).await;
    assert_eq!(fleet.a.view(&id).await, fleet.b.view(&id).await);
}

/// A node whose disk hangs leaves its requests to the others, and has nothing to say of them when the disk answers again.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_hangs_is_taken_over_from() {
    let Some(shared) = shared().await else { return };
    let Some(disk) = SmallDisk::mount(256 << 20) else {
        return;
    };
    let (data, mut first) = (disk.path().join("data"), true);
    let fleet = Fleet::start_with(shared.cluster, |setup| {
        let setup = setup.set("disk_reserve_bytes", 0);
        if std::mem::take(&mut first) {
            setup.data(&data)
        } else {
            setup
        }
    })
    .await;
    let (id, late) = (unique("r"), unique("r"));
    fleet.a.offer(&id, &["nobody"], &json!({"deadline_ms": 600_000})).await;
    fleet.a.until_event(&id, "REDISPATCH_REQUESTED").await;
    let Some(frozen) = disk.freeze() else { return };
    // Something has to be written for the disk to be found hanging.
    let (http, url) = (fleet.a.http.clone(), fleet.a.url("/v1/dispatch/offer"));
    let body = crate::support::api::offer(&late, &["nobody"], &json!({}));
    let waits = tokio::spawn(async move { http.post(&url).json(&body).send().await });
    let unready = async || (fleet.a.get("/readyz").await.status == 503).then_some(());
    eventually("the node to say that its disk hangs", unready).await;
    let taken = async || (fleet.b.cancel(&id).await.status == 200).then_some(());
    eventually("the survivor to have the request", taken).await;
    drop(frozen);
    let known = async || (fleet.a.view(&id).await["state"] == "CANCELLED").then_some(());
    eventually("the node that hung to know the end", known).await;
    let answer = waits.await.expect("a task").expect("an answer");
    assert!([202, 200, 503].contains(&answer.status().as_u16()), "{answer:?}");
    let ready = async || (fleet.a.get("/readyz").await.status == 200).then_some(());
    eventually("the node to take work again", ready).await;
}

/// A row that nobody can read keeps its own request from being taken over, and no other one, at a start and after a death.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_request_stands_in_no_other_s_way() {
    let Some(shared) = shared().await else { return };
    let mut fleet = Fleet::start(&shared).await;
    let (damaged, kept, whole) = (unique("r"), unique("r"), unique("r"));
    let lasts = json!({"deadline_ms": 600_000});
    for (node, id) in [(&fleet.a, &damaged), (&fleet.a, &kept), (&fleet.b, &whole)] {
        node.offer(id, &["nobody"], &lasts).await;
        node.until_event(id, "REDISPATCH_REQUESTED").await;
    }
    let table = format!("{}.requests", fleet.keyspace);
    let first = "request_id = ? AND epoch = 0 AND seq = 1";
    let damage = format!("UPDATE {table} SET steps = 0xff00 WHERE {first} IF owner != 'nobody'");
    let session = shared.cluster.session().await;
    session.query_unpaged(damage, (&damaged,)).await.expect("a damaged row");
    fleet.a.crash_and_restart().await;
    fleet.b.kill_9();
    for id in [&kept, &whole] {
        let cancelled = async || (fleet.a.cancel(id).await.status == 200).then_some(());
        eventually("another request to be this node's", cancelled).await;
    }
    fleet.a.cancel(&damaged).await.problem(503, "not_durable");
}

/// Kills under load, one after the other: whoever was promised a request finds it at the survivor, once.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_promised_is_lost_by_a_kill() {
    let Some(shared) = shared().await else { return };
    let mut fleet = Fleet::start(&shared).await;
    let posts = |node: &Node, ids: Vec<String>| {
        let (http, url) = (node.http.clone(), node.url("/v1/dispatch/offer"));
        tokio::spawn(async move {
            let mut taken = Vec::new();
            for id in ids {
                let body = crate::support::api::offer(&id, &["nobody"], &json!({}));
                match http.post(&url).json(&body).send().await {
                    Ok(answer) if answer.status() == 202 => taken.push(id),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            taken
        })
    };
    let callers: Vec<_> = (0..4)
        .map(|_| posts(&fleet.a, (0..2_000).map(|_| unique("load")).collect()))
        .collect();
    let some = async || (fleet.a.metric("dispatchd_requests_received_total", "").await >= 200).then_some(());
    eventually("some requests", some).await;
    fleet.a.kill_9();
    let mut taken = Vec::new();
    for caller in callers {
        taken.extend(caller.await.expect("a caller"));
    }
    assert!(taken.len() >= 190, "{}", taken.len());
    println!("{} requests were promised before kill -9", taken.len());
    for id in &taken {
        let there = async || (fleet.b.cancel(id).await.status == 200).then_some(());
        eventually(&format!("request {id} at the survivor"), there).await;
    }
    fleet.a.spawn();
    fleet.a.until_ready().await;
    for id in taken.iter().step_by(17) {
        let known = async || (fleet.a.cancel(id).await.status == 200).then_some(());
        eventually("the end of a request that was taken over", known).await;
    }
}

/// A node that ends gives its lease back, and what it had goes on at the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ends_hands_its_requests_over() {
    let Some(shared) = shared().await else { return };
    let mut fleet = Fleet::start(&shared).await;
    let (id, driver_id) = (unique("r"), unique("d"));
    let mut driver = fleet.a.driver(&driver_id).await;
    fleet.a.offer(&id, &[&driver_id], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    fleet.a.terminate();
    assert_eq!(driver.closed().await.0, 1012);
    let mut driver = fleet.b.driver(&driver_id).await;
    assert!(fleet.a.exit().await.success());
    let again = driver.expect("OFFER").await;
    assert_eq!(again["request_id"], offer["request_id"]);
    driver.accept(&again).await;
}

/// A node that looks into another registry, or the only one that looks into any, sees no leases of the others: it takes nothing from
/// them while they live, and says so; when they are dead, everything goes on there all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_another_registry_takes_nothing_from_those_that_live() {
    let Some(shared) = shared().await else { return };
    let (redis, keyspace) = (Redis::start(), shared.cluster.another_keyspace());
    let alone = |name: &str| {
        let setup = shared.cluster.node(name).set("fleet_cassandra_keyspace", &keyspace);
        setup.set("offer_timeout_ms", 120_000)
    };
    let registered = |name: &str, prefix: &str| {
        let setup = alone(name).set("fleet_redis_url", redis.url());
        setup
            .set("fleet_redis_timeout_ms", 5_000)
            .set("fleet_redis_prefix", prefix)
    };
    let names = [unique("a"), unique("c")];
    let mut others = [
        registered(&names[0], "one:").start().await,
        alone(&names[1]).start().await,
    ];
    let ids = [unique("r"), unique("r")];
    let mut drivers = Vec::new();
    for (node, id) in others.iter().zip(&ids) {
        let mut driver = node.driver(&unique("d")).await;
        node.offer(id, &[&driver.id], &json!({})).await;
        let offer = driver.expect("OFFER").await;
        drivers.push((driver, offer));
    }
    let searching = unique("r");
    others[0].offer(&searching, &["nobody"], &json!({})).await;

    let b = registered(&unique("b"), "other:").start().await;
    for name in &names {
        let said = async || {
            assert_eq!(b.metric("dispatchd_requests_adopted_total", "").await, 0);
            let log = b.logged();
            let is_it = |line: &&str| line.contains("nothing is taken over from it") && line.contains(name.as_str());
            log.lines().find(is_it).map(str::to_owned)
        };
        let line = eventually("the node to say that the other one lives", said).await;
        assert!(line.contains("WARN") && line.contains("fleet_redis_prefix"), "{line}");
    }
    for (driver, offer) in &mut drivers {
        driver.accept(offer).await;
    }
    for other in &mut others {
        assert_eq!(other.metric("dispatchd_requests_fenced_total", "").await, 0);
        other.kill_9();
    }
    let taken = async || (b.metric("dispatchd_requests_adopted_total", "").await >= 3).then_some(());
    eventually("the dead nodes' requests to be taken over", taken).await;
    for id in &ids {
        assert_eq!(b.view(id).await["state"], "ACCEPTED");
    }
    assert_eq!(b.cancel(&searching).await.ok(200)["state"], "CANCELLED");
}

/// A node that has lost its lease says no more that it lives: it is taken over from, although its process and Cassandra are well.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_its_lease_is_taken_over_from_where_it_was_never_seen() {
    let Some(shared) = shared().await else { return };
    let (redis, keyspace) = (Redis::start(), shared.cluster.another_keyspace());
    let proxy = Proxy::start(([127, 0, 0, 1], redis.port).into());
    let setup = |name: &str, port: u16, prefix: &str| {
        let setup = shared.cluster.node(name).set("fleet_cassandra_keyspace", &keyspace);
        let setup = setup.set("fleet_redis_url", format!("redis://127.0.0.1:{port}"));
        setup.set("fleet_redis_prefix", prefix)
    };
    let a = setup(&unique("a"), proxy.address.port(), "one:").start().await;
    let searching = unique("r");
    a.offer(&searching, &["nobody"], &json!({})).await;
    let b = setup(&unique("b"), redis.port, "other:").start().await;
    let said = async || b.logged().contains("nothing is taken over from it").then_some(());
    eventually("the node to say that the other one lives", said).await;
    proxy.set(Mode::Cut);
    let taken = async || (b.metric("dispatchd_requests_adopted_total", "").await == 1).then_some(());
    eventually("the request to be taken over", taken).await;
    assert_eq!(a.get("/readyz").await.status, 200);
    let known = async || (a.cancel(&searching).await.status == 503).then_some(());
    eventually("the node to know that the request is another's", known).await;
    assert_eq!(b.cancel(&searching).await.ok(200)["state"], "CANCELLED");
}
