//! A request has one owner among all nodes, and a driver one trip: what callers and drivers of two nodes see of it.

use crate::cluster::{Shared, alone, shared, unique};
use crate::support::{Answer, Driver, Node, eventually, json, number, text};
use scylla::client::session::Session;
use std::collections::BTreeMap;

async fn pair(shared: &Shared) -> (Node, Node) {
    let setup = |name: &str| shared.cluster.node(&unique(name)).set("offer_timeout_ms", 60_000);
    (setup("a").start().await, setup("b").start().await)
}

fn events_of(audit: &Answer) -> Vec<String> {
    let audit = audit.ok(200);
    let events = audit["events"].as_array().expect("events").clone();
    for (at, event) in events.iter().enumerate() {
        assert_eq!(number(event, "seq"), at as u64 + 1, "{audit}");
    }
    events.iter().map(|event| text(event, "event").to_owned()).collect()
}

async fn audit(node: &Node, id: &str) -> Answer {
    node.get(&format!("/v1/dispatch/audit/{id}")).await
}

/// A repeat at another node is answered from the row, as the owner would: open, accepted, ended.
#[tokio::test(flavor = "multi_thread")]
async fn another_node_answers_for_an_open_request() {
    let Some(shared) = shared().await else { return };
    let (a, b) = pair(&shared).await;
    let (id, driver_id) = (unique("r"), unique("d"));
    let mut driver = a.driver(&driver_id).await;
    a.offer(&id, &[&driver_id], &json!({})).await;
    let offer = driver.expect("OFFER").await;

    let again = b.post_offer(&id, &["somebody-else"], &json!({})).await.ok(200);
    assert_eq!(
        (
            &again["state"],
            &again["attempt"],
            &again["duplicate"],
            &again["driver_id"]
        ),
        (&json!("OFFER_SENT"), &json!(1), &json!(true), &json!(driver_id))
    );
    assert_eq!(b.view(&id).await, a.view(&id).await);
    assert!(events_of(&audit(&b, &id).await).starts_with(&["REQUEST_RECEIVED".into(), "OFFER_SENT".into()]));
    // Only the owner decides. Without a way to it the caller is told where it is.
    let refused = b.cancel(&id).await.problem(503, "not_durable");
    assert!(
        refused["detail"].as_str().expect("a detail").contains("at node a-"),
        "{refused}"
    );
    b.respond(&driver_id, &id, "ACCEPT", Some(1))
        .await
        .problem(503, "not_durable");

    let trip_id = driver.accept(&offer).await;
    let again = b.post_offer(&id, &[&driver_id], &json!({})).await.ok(200);
    assert_eq!(
        (&again["state"], &again["duplicate"]),
        (&json!("ACCEPTED"), &json!(true))
    );
    let answered = b.respond(&driver_id, &id, "ACCEPT", Some(1)).await.ok(200);
    assert_eq!(
        (&answered["outcome"], &answered["trip_id"]),
        (&json!("CONFIRMED"), &json!(trip_id))
    );
    b.cancel(&id).await.problem(409, "ended");
    b.cancel_trip(&trip_id).await.problem(503, "not_durable");

    a.cancel_trip(&trip_id).await.ok(200);
    driver.expect("TRIP_CANCELLED").await;
    let at_b = async || (b.cancel_trip(&trip_id).await.status == 409).then_some(());
    eventually("the end to be known at the other node", at_b).await;
    assert_eq!(audit(&a, &id).await.ok(200), audit(&b, &id).await.ok(200));
    b.cancel_trip("t-0000000000000000-1").await.problem(404, "no_such_trip");
}

/// The same POST at both nodes at once, many times: one is taken, all others are repeats, and one offer goes out.
#[tokio::test(flavor = "multi_thread")]
async fn racing_posts_at_two_nodes_make_one_dispatch() {
    let Some(shared) = shared().await else { return };
    let (a, b) = pair(&shared).await;
    let driver_id = unique("d");
    let mut drivers = [a.driver(&driver_id).await, b.driver(&driver_id).await];
    for round in 0..10 {
        let id = unique("race");
        let nodes = (0..8).map(|number| if number % 2 == 0 { &a } else { &b });
        let posts = nodes.map(|node| async { node.post_offer(&id, &[&driver_id], &json!({})).await.status });
        let mut answers = futures_util::future::join_all(posts).await;
        answers.sort_unstable();
        assert_eq!(answers, [200, 200, 200, 200, 200, 200, 200, 202], "round {round}");
        let view = a.view(&id).await;
        assert_eq!((&view, view["attempt"].as_u64()), (&b.view(&id).await, Some(1)));
        let mut offers = 0;
        for driver in &mut drivers {
            offers += driver
                .drain()
                .await
                .iter()
                .filter(|message| message["type"] == "OFFER")
                .count();
        }
        assert_eq!(offers, 1, "round {round}");
        let cancelled = [a.cancel(&id).await.status, b.cancel(&id).await.status];
        assert!(cancelled.contains(&200), "{cancelled:?}");
        for driver in &mut drivers {
            driver.drain().await;
        }
    }
}

/// What was open is open after `kill -9`: offers with the time they have left, trips, and searches without a candidate.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_takes_over_its_own_requests() {
    let Some(shared) = shared().await else { return };
    let mut node = shared
        .cluster
        .node(&unique("n"))
        .set("offer_timeout_ms", 60_000)
        .start()
        .await;
    let ids: Vec<String> = (0..3).map(|_| unique("r")).collect();
    let names: Vec<String> = (0..2).map(|_| unique("d")).collect();
    let (mut offered, mut driving) = (node.driver(&names[0]).await, node.driver(&names[1]).await);
    node.offer(&ids[0], &[&names[0]], &json!({})).await;
    let offer = offered.expect("OFFER").await;
    node.offer(&ids[1], &[&names[1]], &json!({})).await;
    let trip_id = {
        let offer = driving.expect("OFFER").await;
        driving.accept(&offer).await
    };
    node.offer(&ids[2], &["nobody"], &json!({})).await;
    node.until_event(&ids[2], "REDISPATCH_REQUESTED").await;
    let before = audit(&node, &ids[1]).await.ok(200);
    for round in 0..3 {
        node.crash_and_restart().await;
        // A start does not wait for a slow Cassandra for long.
        for id in &ids {
            let own = async || (audit(&node, id).await.status == 200).then_some(());
            eventually("its requests to be its own again", own).await;
        }
        assert_eq!(audit(&node, &ids[1]).await.ok(200), before, "round {round}");
        let mut offered = node.driver(&names[0]).await;
        let again = offered.expect("OFFER").await;
        assert_eq!(
            (&again["request_id"], &again["attempt"]),
            (&offer["request_id"], &offer["attempt"])
        );
        assert_eq!(again["expires_at_ms"], offer["expires_at_ms"]);
        let driving = node.driver(&names[1]).await;
        assert_eq!(
            (&driving.welcome["state"], &driving.welcome["trip_id"]),
            (&json!("en_route_to_pickup"), &json!(trip_id))
        );
        assert_eq!(node.view(&ids[2]).await["state"], "PENDING_MATCH");
        assert_eq!(
            node.post_offer(&ids[0], &["x"], &json!({})).await.ok(200)["duplicate"],
            true
        );
    }
    let mut offered = node.driver(&names[0]).await;
    let again = offered.expect("OFFER").await;
    offered.accept(&again).await;
    let mut driving = node.driver(&names[1]).await;
    driving.trip(&trip_id, "pickup").await;
    driving.expect_state("on_trip").await;
    driving.trip(&trip_id, "complete").await;
    driving.expect_state("available").await;
    node.cancel(&ids[2]).await.ok(200);
    node.assert_events(&ids[1], &["TRIP_CREATED", "TRIP_PICKED_UP", "TRIP_ENDED"])
        .await;
}

/// `kill -9` while many accept: some acceptances stand in Cassandra and not in the journal, some in neither. Afterwards every
/// driver has its trip or its offer, accepts what is left, and each trip has its event.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_amid_acceptances_leaves_nothing_half_done() {
    let Some(shared) = shared().await else { return };
    let setup = shared.cluster.node(&unique("n")).set("offer_timeout_ms", 120_000);
    let mut node = setup.start().await;
    let mut pairs = Vec::new();
    for _ in 0..40 {
        let (name, id) = (unique("d"), unique("r"));
        let mut driver = node.driver(&name).await;
        node.offer(&id, &[&name], &json!({})).await;
        let offer = driver.expect("OFFER").await;
        pairs.push((driver, offer, id));
    }
    for (driver, offer, _) in &mut pairs {
        driver.answer("ACCEPT", offer).await;
    }
    let some = async || {
        let sent = node.metric("dispatchd_cassandra_lwt_total", "\"transition\"").await;
        (sent >= 5).then_some(())
    };
    eventually("some to be on their way", some).await;
    node.kill_9();
    node.spawn();
    node.until_ready().await;
    let mut standing = 0;
    for (driver, _, id) in &pairs {
        let mut driver = node.driver(&driver.id).await;
        let trip_id = if driver.welcome["trip_id"].is_null() {
            let offer = driver.expect("OFFER").await;
            driver.accept(&offer).await
        } else {
            standing += 1;
            text(&driver.welcome, "trip_id").to_owned()
        };
        let view = node.view(id).await;
        assert_eq!(
            (&view["state"], &view["trip_id"]),
            (&json!("ACCEPTED"), &json!(trip_id))
        );
        let events = events_of(&audit(&node, id).await);
        for once in ["OFFER_ACCEPTED", "TRIP_CREATED"] {
            assert_eq!(events.iter().filter(|event| *event == once).count(), 1, "{events:?}");
        }
        node.assert_events(id, &["TRIP_CREATED"]).await;
    }
    println!("{standing} of 40 acceptances stood after kill -9");
}

async fn lwts(node: &Node) -> BTreeMap<&'static str, u64> {
    let mut found = BTreeMap::new();
    for kind in ["claim", "transition", "bind", "release", "takeover", "read"] {
        let count = node
            .metric("dispatchd_cassandra_lwt_total", &format!("\"{kind}\""))
            .await;
        found.insert(kind, count);
    }
    found
}

/// What a step costs: prints the rounds of Paxos of each, and holds them to the least that there is.
#[tokio::test(flavor = "multi_thread")]
async fn steps_cost_one_round_each_and_an_acceptance_two() {
    let Some(alone) = alone().await else { return };
    let node = alone
        .cluster
        .node(&unique("n"))
        .set("offer_timeout_ms", 60_000)
        .start()
        .await;
    let (one, two, id) = (unique("d"), unique("d"), unique("r"));
    let (mut first, mut second) = (node.driver(&one).await, node.driver(&two).await);
    let mut last = lwts(&node).await;
    println!("| step | rounds of Paxos |\n|---|---|");
    let mut cost = async |step: &str, expect: &[(&str, u64)]| {
        let expected = || {
            let mut sum = last.clone();
            for (kind, count) in expect {
                *sum.get_mut(kind).expect("a kind") += count;
            }
            sum
        };
        let there = async || (lwts(&node).await == expected()).then_some(());
        eventually(&format!("the rounds of {step} to be {expect:?} after {last:?}"), there).await;
        last = lwts(&node).await;
        let shown: Vec<String> = expect.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        println!("| {step} | {} |", shown.join(" + "));
    };
    node.offer(&id, &[&one, &two], &json!({})).await;
    let offer = first.expect("OFFER").await;
    cost("POST to OFFER", &[("claim", 1)]).await;
    first.answer("ACK", &offer).await;
    first.fence().await;
    node.post_offer(&id, &[&one], &json!({})).await.ok(200);
    cost("delivery, ACK, a repeat", &[]).await;
    first.decline(&offer).await;
    let offer = second.expect("OFFER").await;
    cost("DECLINE and the next OFFER", &[("transition", 1)]).await;
    let trip_id = second.accept(&offer).await;
    cost("ACCEPT", &[("bind", 1), ("transition", 1)]).await;
    second.trip(&trip_id, "pickup").await;
    second.expect_state("on_trip").await;
    cost("pickup", &[("transition", 1)]).await;
    second.trip(&trip_id, "complete").await;
    second.expect_state("available").await;
    cost("end of the trip", &[("transition", 1), ("release", 1)]).await;
    // The outbox carries records alone: no cell of a request is written without a condition.
    node.until_carried().await;
    assert!(node.metric("dispatchd_cassandra_records_total", "").await >= 2);
    assert_eq!(node.metric("dispatchd_cassandra_requests_total", "").await, 0);
    assert_eq!(
        events_of(&audit(&node, &id).await).last().map(String::as_str),
        Some("TRIP_ENDED")
    );
}

/// A driver who has a trip at one node and is offered another by a node that cannot know: the second acceptance is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_has_one_trip_among_all_nodes() {
    let Some(shared) = shared().await else { return };
    let (a, b) = pair(&shared).await;
    let (driver_id, other_id) = (unique("d"), unique("d"));
    let mut at_a = a.driver(&driver_id).await;
    let (first, second, third) = (unique("r"), unique("r"), unique("r"));
    a.offer(&first, &[&driver_id], &json!({})).await;
    let offer = at_a.expect("OFFER").await;
    let trip_id = at_a.accept(&offer).await;

    let (mut at_b, mut other) = (b.driver(&driver_id).await, b.driver(&other_id).await);
    b.offer(&second, &[&driver_id, &other_id], &json!({})).await;
    let offer = at_b.expect("OFFER").await;
    at_b.answer("ACCEPT", &offer).await;
    at_b.expect_revoked(&offer, "superseded").await;
    // Once more: the same answer. And the search goes on.
    at_b.answer("ACCEPT", &offer).await;
    at_b.expect_revoked(&offer, "superseded").await;
    let offer = other.expect("OFFER").await;
    let view = b.view(&second).await;
    assert_eq!(
        (&view["state"], &view["excluded"]),
        (&json!("OFFER_SENT"), &json!([driver_id]))
    );
    other.accept(&offer).await;
    let audit = events_of(&audit(&b, &second).await);
    assert_eq!(
        audit.iter().filter(|event| *event == "OFFER_ACCEPTED").count(),
        1,
        "{audit:?}"
    );

    // Over at A: free for all.
    at_a.trip(&trip_id, "complete").await;
    at_a.expect_state("available").await;
    b.offer(&third, &[&driver_id], &json!({})).await;
    let offer = at_b.expect("OFFER").await;
    at_b.accept(&offer).await;
}

async fn take_away(shared: &Shared, session: &Session, id: &str) {
    change_owner(shared, session, id, "owner = 'thief', incarnation = 7, owner_epoch = 1").await;
}

async fn change_owner(shared: &Shared, session: &Session, id: &str, to: &str) {
    let table = format!("{}.requests", shared.cluster.keyspace);
    let text = format!("UPDATE {table} SET {to} WHERE request_id = ? IF owner != 'thief'");
    let done = session.query_unpaged(text, (id,)).await.expect("an answer");
    let row = done.into_rows_result().expect("rows");
    let row = row.first_row::<scylla::value::Row>().expect("a row");
    assert_eq!(
        row.columns[0].as_ref().and_then(scylla::value::CqlValue::as_boolean),
        Some(true)
    );
}

/// An owner that lost its request decides nothing any more: its driver hears so, and it answers as the others do, also after a
/// restart. What only it had noted is in the audit.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_lost_a_request_gives_it_up() {
    let Some(shared) = shared().await else { return };
    let session = shared.cluster.session().await;
    let mut node = shared
        .cluster
        .node(&unique("n"))
        .set("offer_timeout_ms", 60_000)
        .start()
        .await;
    let (driver_id, id, kept) = (unique("d"), unique("r"), unique("r"));
    let mut driver = node.driver(&driver_id).await;
    node.offer(&kept, &["nobody"], &json!({})).await;
    node.offer(&id, &[&driver_id], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.answer("ACK", &offer).await;
    driver.fence().await;
    take_away(&shared, &session, &id).await;
    driver.answer("ACCEPT", &offer).await;
    driver.expect_revoked(&offer, "superseded").await;
    let gone = async || (node.metric("dispatchd_requests_fenced_total", "").await == 1).then_some(());
    eventually("the request to be given up", gone).await;
    let elsewhere = async || {
        let refused = node.cancel(&id).await;
        (refused.status == 503 && refused.body.contains("at node thief")).then_some(())
    };
    eventually("the node to say where the request is", elsewhere).await;
    let receipts = async || {
        let events = events_of(&audit(&node, &id).await);
        (events == ["REQUEST_RECEIVED", "OFFER_SENT", "OFFER_DELIVERED", "OFFER_ACKED"]).then_some(())
    };
    eventually("the receipts to be in the audit", receipts).await;

    take_away(&shared, &session, &kept).await;
    node.crash_and_restart().await;
    for id in [&id, &kept] {
        let elsewhere = async || node.cancel(id).await.body.contains("at node thief").then_some(());
        eventually("the node to say where the request is", elsewhere).await;
        let again = node.post_offer(id, &["nobody"], &json!({})).await;
        assert!([200, 409].contains(&again.status), "{again:?}");
    }
    let mut driver = node.driver(&driver_id).await;
    assert_eq!(driver.welcome["state"], "available");
    driver.fence().await;
    node.crash_and_restart().await;
}

/// A node that lost a request and got it back, with as many steps, is its owner of another time: what it decides as the owner
/// that it was is refused.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_an_earlier_time_decides_nothing() {
    let Some(shared) = shared().await else { return };
    let session = shared.cluster.session().await;
    let setup = shared.cluster.node(&unique("n")).set("offer_timeout_ms", 60_000);
    let node = setup.start().await;
    let (driver_id, id) = (unique("d"), unique("r"));
    let mut driver = node.driver(&driver_id).await;
    node.offer(&id, &[&driver_id], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    driver.answer("ACK", &offer).await;
    driver.fence().await;
    change_owner(&shared, &session, &id, "owner_epoch = 9").await;
    driver.answer("ACCEPT", &offer).await;
    let fenced = async || (node.metric("dispatchd_requests_fenced_total", "").await == 1).then_some(());
    eventually("the decision to be refused", fenced).await;
    let text = format!(
        "SELECT state FROM {}.requests WHERE request_id = ? LIMIT 1",
        shared.cluster.keyspace
    );
    let rows = session.query_unpaged(text, (&id,)).await.expect("an answer");
    let rows = rows.into_rows_result().expect("rows");
    assert_eq!(rows.first_row::<(&str,)>().expect("a row"), ("OFFER_SENT",));
}

/// Drivers of a node that lost its requests and of one that has them are never told the same trip: one of two accepts wins.
#[tokio::test(flavor = "multi_thread")]
async fn parallel_offers_have_one_winner() {
    let Some(shared) = shared().await else { return };
    let node = shared
        .cluster
        .node(&unique("n"))
        .set("offer_timeout_ms", 60_000)
        .start()
        .await;
    for _ in 0..5 {
        let (names, id): (Vec<String>, String) = ((0..3).map(|_| unique("d")).collect(), unique("r"));
        let mut drivers: Vec<Driver> = Vec::new();
        for name in &names {
            drivers.push(node.driver(name).await);
        }
        let candidates: Vec<&str> = names.iter().map(String::as_str).collect();
        node.offer(&id, &candidates, &json!({"parallel": 3})).await;
        let mut offers = Vec::new();
        for driver in &mut drivers {
            offers.push(driver.expect("OFFER").await);
        }
        for (driver, offer) in drivers.iter_mut().zip(&offers) {
            driver.answer("ACCEPT", offer).await;
        }
        assert_eq!(next_of(&mut drivers).await, ["CONFIRMED", "REVOKED", "REVOKED"]);
    }
}

/// What each hears next, sorted.
async fn next_of(drivers: &mut [Driver]) -> Vec<String> {
    let mut kinds = Vec::new();
    for driver in drivers {
        kinds.push(text(&driver.next().await, "type").to_owned());
    }
    kinds.sort_unstable();
    kinds
}

/// A driver who accepts at two nodes at the same moment: whoever finds the driver bound to a request that is just being
/// accepted waits for what becomes of it.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_acceptances_at_once_one_is_a_trip() {
    let Some(shared) = shared().await else { return };
    let (a, b) = pair(&shared).await;
    for round in 0..20 {
        let driver_id = unique("d");
        let mut sessions = [a.driver(&driver_id).await, b.driver(&driver_id).await];
        let mut offers = Vec::new();
        for (node, session) in [&a, &b].into_iter().zip(&mut sessions) {
            node.offer(&unique("r"), &[&driver_id], &json!({})).await;
            offers.push(session.expect("OFFER").await);
        }
        let [at_a, at_b] = &mut sessions;
        tokio::join!(at_a.answer("ACCEPT", &offers[0]), at_b.answer("ACCEPT", &offers[1]));
        assert_eq!(next_of(&mut sessions).await, ["CONFIRMED", "REVOKED"], "round {round}");
    }
}
