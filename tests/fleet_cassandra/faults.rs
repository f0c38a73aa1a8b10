//! Cassandra stopped, killed and healed, and nodes killed meanwhile: nothing is lost, nothing is doubled, and callers are told.

use crate::cluster::{Alone, alone, unique};
use crate::support::{Node, eventually, json};
use scylla::client::session::Session;

/// A decision whose answer got lost stands once: it was applied when Cassandra went on, and is not made again.
#[tokio::test(flavor = "multi_thread")]
async fn decisions_whose_answers_are_lost_stand_once() {
    let Some(alone) = alone().await else { return };
    let setup = alone.cluster.node(&unique("n")).set("fleet_cassandra_timeout_ms", 500);
    let node = setup.set("offer_timeout_ms", 60_000).start().await;
    let mut drivers = Vec::new();
    for _ in 0..8 {
        let driver = node.driver(&unique("d")).await;
        drivers.push((driver, unique("r")));
    }
    for (driver, id) in &drivers {
        let taken = async || {
            let answer = node.post_offer(id, &[&driver.id], &json!({})).await;
            [200, 202].contains(&answer.status).then_some(())
        };
        eventually("the request to be taken", taken).await;
    }
    let mut offers = Vec::new();
    for (driver, _) in &mut drivers {
        offers.push(driver.expect("OFFER").await);
    }
    for ((driver, _), offer) in drivers.iter_mut().zip(&offers) {
        driver.answer("ACCEPT", offer).await;
    }
    // Somewhere between the acceptance and its answer, again and again.
    for _ in 0..4 {
        alone.pause();
        // Somebody has to ask, for the case that everything was stored already; again, as what is asked at once may still be answered.
        let away = async || {
            node.get(&format!("/v1/dispatch/request/{}", unique("nobody"))).await;
            (node.metric("dispatchd_cassandra_up", "").await == 0).then_some(())
        };
        eventually("the node to see that Cassandra is away", away).await;
        alone.go_on();
        until_ready(&node).await;
    }
    for ((driver, id), offer) in drivers.iter_mut().zip(&offers) {
        let trip_id = driver.expect_confirmed(offer).await;
        driver.answer("ACCEPT", offer).await;
        assert_eq!(driver.expect("CONFIRMED").await["trip_id"], trip_id.as_str());
        let audit = node.get(&format!("/v1/dispatch/audit/{id}")).await.ok(200);
        let events = audit["events"].as_array().expect("events").iter();
        let accepted = events.filter(|event| event["event"] == "OFFER_ACCEPTED").count();
        assert_eq!(accepted, 1, "{audit}");
    }
}

/// Waits until the node says that it cannot store.
async fn until_away(node: &Node) {
    let away = async || (node.metric("dispatchd_cassandra_up", "").await == 0).then_some(());
    eventually("the node to see that Cassandra is away", away).await;
}

async fn until_ready(node: &Node) {
    let ready = async || (node.get("/readyz").await.status == 200).then_some(());
    eventually("the node to take work", ready).await;
}

async fn has_all(alone: &Alone, session: &Session, driver: &str, ids: &[String], node: &str) {
    for id in ids {
        let found = alone.cluster.request(session, id).await;
        assert_eq!(found, Some(("CANCELLED".to_owned(), node.to_owned())), "{id}");
    }
    assert_eq!(alone.cluster.records_of(session, driver).await, ids.len() as i64);
}

/// A Cassandra that hangs: new requests and unknown ids get 503 soon, what is open goes on, and the backlog outlives the node.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_cassandra_stops_new_requests_and_loses_nothing() {
    let Some(alone) = alone().await else { return };
    let name = unique("n");
    let setup = alone.cluster.node(&name).set("fleet_cassandra_timeout_ms", 3_000);
    let mut node = setup.start().await;
    let driver = unique("d");
    let known = unique("r");
    node.ended_request(&known, &driver).await;
    let open: Vec<String> = (0..50).map(|_| unique("r")).collect();
    for id in &open {
        node.offer(id, &[&driver], &json!({})).await;
    }
    alone.cluster.until_there(&driver, std::slice::from_ref(&known)).await;
    node.until_carried().await;
    alone.pause();

    // Asked before the node knows: bounded by the time of one read.
    node.get(&format!("/v1/dispatch/request/{}", unique("nobody")))
        .await
        .problem(503, "not_durable");
    until_away(&node).await;
    eventually("readyz to say so", async || {
        (node.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    node.post_offer(&unique("r"), &[&driver], &json!({}))
        .await
        .problem(503, "not_durable");
    node.records_today(&driver).await.problem(503, "not_durable");
    // What this node knows itself it goes on answering.
    node.get(&format!("/v1/dispatch/audit/{known}")).await.ok(200);

    // A decision waits; its caller does not for long, and what is decided afterwards waits behind it.
    let cancels = open.iter().map(|id| node.cancel(id));
    for answer in futures_util::future::join_all(cancels).await {
        answer.problem(503, "not_durable");
    }
    assert!(node.metric("dispatchd_cassandra_decisions_waiting", "").await >= 50);
    assert_eq!(
        node.view(&open[0]).await["state"],
        "PENDING_MATCH",
        "what is not decided is not shown"
    );

    // The node serves without Cassandra as far as it can, and takes its requests over when it can.
    node.kill_9();
    node.spawn();
    let serves = async || {
        let answer = node.http.get(node.url("/readyz")).send().await.ok()?;
        let code = answer.text().await.ok()?;
        code.contains("not_durable").then_some(())
    };
    eventually("the node to serve without Cassandra", serves).await;
    node.get(&format!("/v1/dispatch/audit/{known}")).await.ok(200);
    node.cancel(&open[0]).await.problem(503, "not_durable");

    alone.go_on();
    until_ready(&node).await;
    for id in &open {
        let cancelled = async || (node.cancel(id).await.status == 200).then_some(());
        eventually("the request to be this node's again", cancelled).await;
    }
    let session = alone.cluster.session().await;
    let mut all = open;
    all.push(known);
    alone.cluster.until_there(&driver, &all).await;
    has_all(&alone, &session, &driver, &all, &name).await;
    assert_eq!(node.records_lately(&driver).await.len(), all.len());
}

/// Requests are taken until one is refused; gives those that were. `at` is told how many there are.
async fn load(node: &Node, driver: &str, at: impl Fn(usize)) -> Vec<String> {
    let mut taken = Vec::new();
    loop {
        let id = unique("r");
        let answer = node.post_offer(&id, &[driver], &json!({})).await;
        if answer.status != 202 {
            answer.problem(503, "not_durable");
            return taken;
        }
        let cancelled = node.cancel(&id).await;
        taken.push(id);
        if cancelled.status != 200 {
            cancelled.problem(503, "not_durable");
            return taken;
        }
        at(taken.len());
    }
}

/// `kill -9` of Cassandra under load, then of the node: what was taken is there when all is well again.
#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_nothing() {
    let Some(alone) = alone().await else { return };
    let name = unique("n");
    let setup = alone.cluster.node(&name);
    let mut node = setup.start().await;
    let driver = unique("d");
    let kill_it = |count| {
        if count == 100 {
            alone.kill();
        }
    };
    let mut taken = load(&node, &driver, kill_it).await;
    assert!(taken.len() >= 100);
    node.kill_9();
    node.spawn();
    alone.restart();
    until_serving(&node).await;
    for id in &taken {
        // The last of them was perhaps never cancelled, and is found open.
        let cancelled = async || (node.cancel(id).await.status == 200).then_some(());
        eventually("a request to be this node's again", cancelled).await;
    }
    for _ in 0..20 {
        let id = unique("r");
        node.ended_request(&id, &driver).await;
        taken.push(id);
    }
    alone.cluster.until_there(&driver, &taken).await;
    let session = alone.cluster.session().await;
    has_all(&alone, &session, &driver, &taken, &name).await;
}

async fn until_serving(node: &Node) {
    let ready = async || {
        let answer = node.http.get(node.url("/readyz")).send().await.ok()?;
        (answer.status() == 200).then_some(())
    };
    eventually("the node to take work again", ready).await;
}
