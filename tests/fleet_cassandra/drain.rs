//! A node that ends hands over what it has to the nodes that stay, before it is gone: drivers and callers notice nothing but the
//! close of their connections.

use crate::cluster::{Shared, shared, unique};
use crate::redis::Redis;
use crate::support::audit::count;
use crate::support::{Driver, Node, Setup, Value, eventually, json, number, ports, text};
use futures_util::future::join_all;
use scylla::client::session::Session;

/// Nodes with links, one Redis and one keyspace.
struct Fleet {
    nodes: Vec<Node>,
    names: Vec<String>,
    keyspace: String,
    _redis: Redis,
}

impl Fleet {
    async fn start(shared: &Shared, size: usize, with: impl Fn(Setup) -> Setup) -> Self {
        let redis = Redis::start();
        let keyspace = shared.cluster.another_keyspace();
        let names: Vec<String> = (0..size).map(|_| unique("gw")).collect();
        let mut nodes = Vec::new();
        for name in &names {
            let setup = (shared.cluster.node(name))
                .set("fleet_cassandra_keyspace", &keyspace)
                .set("fleet_redis_url", redis.url())
                .set("fleet_redis_timeout_ms", 5_000)
                .set("fleet_link_listen", ports::free_address())
                .set("offer_timeout_ms", 120_000);
            nodes.push(with(setup).start().await);
        }
        let fleet = Self {
            nodes,
            names,
            keyspace,
            _redis: redis,
        };
        fleet.until_linked().await;
        fleet
    }

    /// Until every node has links to all others, and counts on all of them.
    async fn until_linked(&self) {
        for node in &self.nodes {
            let linked = async || {
                let up = node.metric("dispatchd_links_up", "").await;
                (up + 1 == self.nodes.len() as u64).then_some(())
            };
            eventually("links", linked).await;
            for name in &self.names {
                let counted = async || self.assigned(node).await.contains(name).then_some(());
                eventually("a node to be counted on", counted).await;
            }
        }
    }

    /// Nodes to which some drivers are sent by `node`.
    async fn assigned(&self, node: &Node) -> Vec<String> {
        // So many that no node has none by chance: of 16, one fleet of three in two hundred had one.
        let asks = (0..64).map(|number| async move {
            let home = node
                .get(&format!("/v1/fleet/assign?driver_id=x-{number}"))
                .await
                .ok(200);
            text(&home, "node").to_owned()
        });
        join_all(asks).await
    }

    /// Requests that these nodes took over.
    async fn until_adopted(&self, by: &[usize], at_least: u64) {
        let taken = async || {
            let counts = by
                .iter()
                .map(|number| self.nodes[*number].metric("dispatchd_requests_adopted_total", ""));
            (join_all(counts).await.iter().sum::<u64>() >= at_least).then_some(())
        };
        eventually("requests to be taken over", taken).await;
    }

    /// Who owns a request, by Cassandra.
    async fn owner(&self, session: &Session, request_id: &str) -> String {
        let text = format!(
            "SELECT owner FROM {}.requests WHERE request_id = ? LIMIT 1",
            self.keyspace
        );
        let asked = session.query_unpaged(text, (request_id,)).await.expect("an answer");
        let rows = asked.into_rows_result().expect("rows");
        rows.single_row::<(String,)>().expect("a row").0
    }
}

/// An offer, a trip, a search and what is about to time out go on elsewhere while the node still drains; whoever speaks of them
/// to that node is answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_draining_node_hands_over_while_it_lives() {
    let Some(shared) = shared().await else { return };
    let mut fleet = Fleet::start(&shared, 3, |setup| setup.set("drain_ms", 15_000)).await;
    let session = shared.cluster.session().await;
    let ids: Vec<String> = (0..4).map(|_| unique("r")).collect();
    let names: Vec<String> = (0..4).map(|_| unique("d")).collect();
    let [a, b, c] = &fleet.nodes[..] else {
        unreachable!("three")
    };
    let mut offered = b.driver(&names[0]).await;
    let mut driving = a.driver(&names[1]).await;
    let mut silent = c.driver(&names[2]).await;
    let mut next = b.driver(&names[3]).await;
    a.offer(&ids[0], &[&names[0]], &json!({})).await;
    let offer = offered.expect("OFFER").await;
    offered.answer("ACK", &offer).await;
    until_noted(a, &ids[0], "OFFER_ACKED").await;
    a.offer(&ids[1], &[&names[1]], &json!({})).await;
    let trip_offer = driving.expect("OFFER").await;
    let trip_id = driving.accept(&trip_offer).await;
    a.offer(&ids[2], &["nobody"], &json!({})).await;
    a.until_event(&ids[2], "REDISPATCH_REQUESTED").await;
    a.offer(&ids[3], &[&names[2], &names[3]], &json!({"offer_timeout_ms": 4_000}))
        .await;
    let unheard = silent.expect("OFFER").await;
    until_noted(a, &ids[3], "OFFER_DELIVERED").await;

    a.terminate();
    fleet.until_adopted(&[1, 2], 4).await;
    // It is there, takes nothing, and passes on what is for others now.
    assert_eq!(a.get("/readyz").await.status, 503);
    let refused = a.post_offer(&unique("new"), &[&names[3]], &json!({})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (503, &json!("draining")));
    for id in &ids {
        let (here, there) = (a.view(id).await, b.view(id).await);
        assert_eq!(here, there);
        assert_ne!(fleet.owner(&session, id).await, fleet.names[0]);
    }
    let again = a.post_offer(&ids[0], &[&names[0]], &json!({})).await;
    assert!(
        again.status == 503 || again.json()["duplicate"] == true,
        "{}",
        again.status
    );
    let answered = a.respond(&names[0], &ids[0], "ACCEPT", None).await.ok(200);
    assert_eq!(answered["outcome"], "CONFIRMED");
    offered.expect_confirmed(&offer).await;
    assert_eq!(a.cancel(&ids[2]).await.ok(200)["state"], "CANCELLED");
    // Time goes on for what was handed over.
    silent.expect_revoked(&unheard, "timeout").await;
    let second = next.expect("OFFER").await;
    assert_eq!((&second["request_id"], &second["attempt"]), (&json!(ids[3]), &json!(2)));
    next.accept(&second).await;

    // The driver of the node that ends finds its trip at another.
    let (code, reason) = driving.closed().await;
    assert_eq!(code, 1012, "{reason}");
    let mut driving = fleet.nodes[2].driver(&names[1]).await;
    assert_eq!(driving.welcome["trip_id"], trip_id.as_str(), "{}", driving.welcome);
    assert!(fleet.nodes[0].exit().await.success());
    driving.trip(&trip_id, "pickup").await;
    driving.expect_state("on_trip").await;
    driving.trip(&trip_id, "complete").await;
    driving.expect_state("available").await;
    fleet.audits_agree(&ids).await;
}

impl Fleet {
    /// The first node returns: all nodes show the same audits, each step once.
    async fn audits_agree(&mut self, ids: &[String]) {
        self.nodes[0].spawn();
        self.nodes[0].until_ready().await;
        for id in ids {
            let path = format!("/v1/dispatch/audit/{id}");
            let same = async || {
                let all = join_all(self.nodes.iter().map(|node| node.get(&path))).await;
                let is_same = |answer: &&crate::support::Answer| answer.status == 200 && answer.json() == all[0].json();
                (all.iter().filter(is_same).count() == all.len()).then(|| all[0].json())
            };
            let audit = eventually("all nodes to show one audit", same).await;
            let events = audit["events"].as_array().expect("events");
            crate::support::audit::assert_sound(id, events);
            for attempt in 1..=2 {
                let of: Vec<Value> = events
                    .iter()
                    .filter(|event| event["attempt"] == attempt)
                    .cloned()
                    .collect();
                for name in ["OFFER_SENT", "OFFER_DELIVERED", "OFFER_ACKED"] {
                    assert!(count(&of, name) <= 1, "{name} twice: {audit}");
                }
            }
        }
        let events = self.nodes[1].audit(&ids[0]).await;
        assert_eq!(count(&events, "OFFER_ACKED"), 1, "{events:?}");
        assert_eq!(text(&events[0], "node"), self.names[0]);
        assert_ne!(text(events.last().expect("events"), "node"), self.names[0]);
    }
}

/// Without time to send drivers away: still nothing is left at the node when it is gone, and nobody has to wait for that to show.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_at_a_node_that_ended_at_once() {
    let Some(shared) = shared().await else { return };
    let mut fleet = Fleet::start(&shared, 2, |setup| setup.set("drain_ms", 0)).await;
    let session = shared.cluster.session().await;
    let (id, driver_id) = (unique("r"), unique("d"));
    let searching: Vec<String> = (0..50).map(|_| unique("r")).collect();
    let mut driver = fleet.nodes[0].driver(&driver_id).await;
    fleet.nodes[0].offer(&id, &[&driver_id], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    for id in &searching {
        fleet.nodes[0].offer(id, &["nobody"], &json!({})).await;
    }
    fleet.nodes[0].terminate();
    let (code, reason) = driver.closed().await;
    assert_eq!(code, 1012);
    // Somebody else is there for it: it need not wait.
    let retry_ms: u64 = reason.rsplit_once('=').expect("a time").1.parse().expect("ms");
    assert!(retry_ms < 1_000, "{reason}");
    assert!(fleet.nodes[0].exit().await.success());
    for id in searching.iter().chain([&id]) {
        assert_eq!(fleet.owner(&session, id).await, fleet.names[1], "{id}");
    }
    let mut driver = fleet.nodes[1].driver(&driver_id).await;
    assert_eq!(driver.welcome["state"], "offered", "{}", driver.welcome);
    let again = driver.expect("OFFER").await;
    assert_eq!(
        (&again["request_id"], &again["attempt"], &again["expires_at_ms"]),
        (&offer["request_id"], &offer["attempt"], &offer["expires_at_ms"])
    );
    driver.accept(&again).await;
    // Nobody is left: the last one keeps what it has, and goes on with it.
    let (kept, kept_driver) = (unique("r"), unique("d"));
    let mut driver = fleet.nodes[1].driver(&kept_driver).await;
    fleet.nodes[1].offer(&kept, &[&kept_driver], &json!({})).await;
    driver.expect("OFFER").await;
    fleet.nodes[1].terminate();
    assert_eq!(driver.closed().await.0, 1012);
    assert!(fleet.nodes[1].exit().await.success());
    fleet.nodes[1].spawn();
    fleet.nodes[1].until_ready().await;
    assert_eq!(fleet.nodes[1].view(&kept).await["state"], "OFFER_SENT");
    let mut driver = fleet.nodes[1].driver(&kept_driver).await;
    let again = driver.expect("OFFER").await;
    driver.accept(&again).await;
}

/// Drivers answer while the node hands their offers over: each answer counts, once, and nobody hears anything else.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_lost_while_requests_change_hands() {
    let Some(shared) = shared().await else { return };
    let fleet = Fleet::start(&shared, 3, |setup| setup.set("drain_ms", 3_000)).await;
    let mut offers: Vec<(Driver, Value)> = Vec::new();
    for number in 0..24 {
        let driver_id = unique("d");
        let mut driver = fleet.nodes[1 + number % 2].driver(&driver_id).await;
        fleet.nodes[0].offer(&unique("r"), &[&driver_id], &json!({})).await;
        let offer = driver.expect("OFFER").await;
        offers.push((driver, offer));
    }
    let accepts = offers.into_iter().enumerate().map(|(number, (mut driver, offer))| {
        let node = &fleet.nodes[0];
        async move {
            if number == 8 {
                node.terminate();
            }
            driver.answer("ACCEPT", &offer).await;
            let first = driver.next().await;
            assert_eq!(
                (text(&first, "type"), &first["attempt"]),
                ("CONFIRMED", &offer["attempt"])
            );
            (driver, text(&first, "trip_id").to_owned())
        }
    });
    let mut trips = join_all(accepts).await;
    for (driver, trip_id) in &mut trips {
        until_told(driver, "en_route_to_pickup").await;
        driver.trip(trip_id, "complete").await;
        until_told(driver, "available").await;
    }
}

/// A `STATE`, after answers that were given by both owners.
async fn until_told(driver: &mut Driver, state: &str) {
    loop {
        let message = driver.next().await;
        match text(&message, "type") {
            "CONFIRMED" => {}
            "STATE" => return assert_eq!(message["state"], state),
            other => panic!("{other}: {message}"),
        }
    }
}

async fn until_noted(node: &Node, request_id: &str, event: &str) {
    let noted = async || (count(&node.audit(request_id).await, event) > 0).then_some(());
    eventually(event, noted).await;
}

/// Two of three nodes end at once: all is at the third. One that hangs gets nothing for long.
#[tokio::test(flavor = "multi_thread")]
async fn who_ends_too_or_hangs_is_passed_over() {
    let Some(shared) = shared().await else { return };
    let mut fleet = Fleet::start(&shared, 3, |setup| setup.set("drain_ms", 1_000)).await;
    let session = shared.cluster.session().await;
    let mut ids = Vec::new();
    for number in 0..24 {
        let id = unique("r");
        fleet.nodes[number % 2].offer(&id, &["nobody"], &json!({})).await;
        ids.push(id);
    }
    fleet.nodes[0].terminate();
    fleet.nodes[1].terminate();
    for number in 0..2 {
        assert!(fleet.nodes[number].exit().await.success());
    }
    for id in &ids {
        assert_eq!(fleet.owner(&session, id).await, fleet.names[2], "{id}");
    }
    for number in 0..2 {
        fleet.nodes[number].spawn();
        fleet.nodes[number].until_ready().await;
    }
    fleet.until_linked().await;
    fleet.nodes[0].pause();
    fleet.nodes[2].terminate();
    fleet.until_adopted(&[1], 24).await;
    assert!(fleet.nodes[2].exit().await.success());
    fleet.nodes[0].go_on();
    for id in &ids {
        assert_eq!(fleet.nodes[1].cancel(id).await.ok(200)["state"], "CANCELLED");
        let known = async || (fleet.nodes[0].view(id).await["state"] == "CANCELLED").then_some(());
        eventually("the node that hung to know the end", known).await;
    }
}

/// Where a driver is to connect: not at a node that ends, from the moment on at which its drivers are sent away.
#[tokio::test(flavor = "multi_thread")]
async fn drivers_are_not_sent_to_a_node_that_ends() {
    let Some(shared) = shared().await else { return };
    let mut fleet = Fleet::start(&shared, 3, |setup| setup.set("drain_ms", 500)).await;
    let mut driver = fleet.nodes[0].driver(&unique("d")).await;
    fleet.nodes[0].terminate();
    assert_eq!(driver.closed().await.0, 1012);
    for node in &fleet.nodes[1..] {
        assert!(!fleet.assigned(node).await.contains(&fleet.names[0]));
    }
    assert!(fleet.nodes[0].exit().await.success());
    fleet.nodes[0].spawn();
    fleet.nodes[0].until_ready().await;
    fleet.until_linked().await;
    assert!(number(&fleet.nodes[0].driver(&unique("d")).await.welcome, "session") > 0);
}
