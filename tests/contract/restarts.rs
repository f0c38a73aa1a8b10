//! `kill -9` and a restart on the same data: what was open goes on.

use crate::support::{Driver, Node, Setup, Value, api, eventually, json, number, shape, shards_1_and_4};

async fn offered(node: &Node, driver: &mut Driver, request_id: &str, more: &Value) -> Value {
    node.offer(request_id, &[&driver.id.clone()], more).await;
    driver.expect("OFFER").await
}

/// V.4, W2.3: an open offer is resumed with the time it has left, right after `WELCOME`, and can be accepted.
async fn open_offers_resume(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let before = offered(
        &node,
        &mut driver,
        "r1",
        &json!({"offer_timeout_ms": 120_000, "trip": {"zone": 7}}),
    )
    .await;
    let view = node.view("r1").await;
    node.crash_and_restart().await;
    assert_eq!(node.view("r1").await, view);
    assert_eq!(node.driver_view("d1").await["state"], "offered");
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "offered");
    let after = driver.expect("OFFER").await;
    for field in ["request_id", "attempt", "priority", "expires_at_ms", "trip"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert!(number(&after, "ttl_ms") <= number(&before, "ttl_ms"), "{after}");
    driver.fence().await;
    driver.accept(&after).await;
    assert_eq!(node.view("r1").await["state"], "ACCEPTED");
}

/// V.4: an offer whose time was up while nobody ran is timed out, and the search goes on without anyone asking.
async fn offers_time_out_across_a_restart(setup: Setup) {
    let mut node = setup.start().await;
    let mut first = node.driver("first").await;
    node.offer("r1", &["first", "second"], &json!({"offer_timeout_ms": 2_000}))
        .await;
    first.expect("OFFER").await;
    node.kill_9();
    node.spawn();
    node.until_ready().await;
    // `second` has not connected since the restart, so it is refused.
    let event = node.until_event("r1", "REDISPATCH_REQUESTED").await;
    assert_eq!(event["attempts"], 2);
    node.assert_audit(
        "r1",
        &shape(
            "REQUEST_RECEIVED
             OFFER_SENT 1 first
             ? OFFER_DELIVERED 1
             OFFER_TIMED_OUT 1
             OFFER_REFUSED 2 second
             CANDIDATES_EXHAUSTED",
        ),
    )
    .await;
}

/// V.4: the deadline passes while nobody runs.
async fn deadline_passes_across_a_restart(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    offered(&node, &mut driver, "open", &json!({"deadline_ms": 400})).await;
    node.offer("pending", &["nobody"], &json!({"deadline_ms": 400})).await;
    node.crash_and_restart().await;
    for request_id in ["open", "pending"] {
        node.until_event(request_id, "REQUEST_UNFULFILLED").await;
        assert_eq!(node.view(request_id).await["state"], "UNFULFILLED");
    }
}

/// V.3, V.4: a search with candidates left goes on where it stood: excluded drivers stay excluded, attempts go on.
async fn searches_go_on(setup: Setup) {
    let mut node = setup.start().await;
    let mut a = node.driver("a").await;
    let mut b = node.driver("b").await;
    node.offer(
        "r1",
        &["a", "b", "c"],
        &json!({"offer_timeout_ms": 60_000, "max_attempts": 3}),
    )
    .await;
    let offer = a.expect("OFFER").await;
    a.decline(&offer).await;
    let offer = b.expect("OFFER").await;
    node.crash_and_restart().await;
    let mut b = node.driver("b").await;
    let mut c = node.driver("c").await;
    let mut a = node.driver("a").await;
    assert_eq!(b.expect("OFFER").await["attempt"], offer["attempt"]);
    b.decline(&offer).await;
    let offer = c.expect("OFFER").await;
    assert_eq!(offer["attempt"], 3);
    c.decline(&offer).await;
    node.until_event("r1", "REQUEST_UNFULFILLED").await;
    a.fence().await;
}

/// H8.1: a driver who is bound to something and not heard yet was last seen when the store says.
async fn a_bound_driver_was_seen_before(setup: Setup) {
    let mut node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    let offer = offered(&node, &mut a, "accepted", &json!({})).await;
    a.accept(&offer).await;
    offered(&node, &mut b, "offered", &json!({"offer_timeout_ms": 600_000})).await;
    let before = [node.driver_view("a").await, node.driver_view("b").await];
    node.settle().await;
    node.crash_and_restart().await;
    for view in before {
        let again = node.driver_view(crate::support::text(&view, "driver_id")).await;
        assert_eq!(again["state"], view["state"]);
        assert!(crate::support::is_unix_ms(number(&again, "last_seen_ms")), "{again}");
    }
    node.driver("a").await.fence().await;
    let view = node.driver_view("a").await;
    assert!(number(&view, "last_seen_ms") >= number(&node.audit("accepted").await[0], "at_ms"));
}

/// V.3: everything that was answered is still there, again and again: views, audits, records, events.
async fn answers_are_kept(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let offer = offered(&node, &mut driver, "declined", &json!({})).await;
    driver.decline(&offer).await;
    let offer = offered(&node, &mut driver, "accepted", &json!({})).await;
    let trip_id = driver.accept(&offer).await;
    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    node.offer("cancelled", &["nobody"], &json!({})).await;
    node.cancel("cancelled").await.ok(200);
    node.offer("pending", &["nobody"], &json!({})).await;
    node.until_event("pending", "REDISPATCH_REQUESTED").await;
    let ids = ["declined", "accepted", "cancelled", "pending"];
    let mut before = Vec::new();
    for id in ids {
        before.push((node.view(id).await, node.audit_body(id).await));
    }
    let events = node.all_events().await;
    let at_ms = number(&node.audit("accepted").await[0], "at_ms");
    let records = node.until_records("d1", at_ms, 1).await;
    for _ in 0..3 {
        node.crash_and_restart().await;
        for (id, (view, audit)) in ids.iter().zip(&before) {
            assert_eq!(node.view(id).await, *view);
            assert_eq!(node.audit_body(id).await, *audit);
        }
        assert_eq!(node.all_events().await, events);
        assert_eq!(node.until_records("d1", at_ms, records.len()).await, records);
    }
}

/// V.3: the number of shards may change between two runs: everything finds its new home.
#[tokio::test]
async fn shards_may_change() {
    const OFFERS: usize = 20;
    let directory = tempfile::TempDir::new().unwrap();
    let data = directory.path().join("data");
    let mut offers: Vec<Value> = Vec::new();
    for (run, shards) in [3, 1, 4, 2].into_iter().enumerate() {
        let node = Setup::shards(shards).data(&data).start().await;
        for number in 0..OFFERS {
            let mut driver = node.driver(&format!("d{number}")).await;
            let request_id = format!("r{number}");
            if run == 0 {
                let offer = offered(&node, &mut driver, &request_id, &json!({"offer_timeout_ms": 600_000})).await;
                offers.push(offer);
            } else if number % 4 >= run {
                let offer = driver.expect("OFFER").await;
                assert_eq!(offer["expires_at_ms"], offers[number]["expires_at_ms"]);
            } else {
                assert_eq!(driver.welcome["state"], "en_route_to_pickup");
            }
            // Every run ends a part of them.
            if number % 4 == run {
                driver.accept(&offers[number]).await;
            }
        }
    }
    let node = Setup::shards(4).data(&data).start().await;
    for number in 0..OFFERS {
        assert_eq!(node.view(&format!("r{number}")).await["state"], "ACCEPTED");
    }
}

/// V.1, V.2, V.4: many requests for one driver at the moment of the crash, some of them posted, offered or accepted, none
/// of them told: afterwards it has one offer or one trip, and the others are refused.
async fn one_offer_or_trip_after_a_crash(setup: Setup) {
    const ROUNDS: usize = 8;
    const REQUESTS: usize = 20;
    let mut node = setup.start().await;
    for round in 0..ROUNDS {
        let id = format!("d{round}");
        let requests: Vec<String> = (0..REQUESTS).map(|number| format!("r{round}-{number}")).collect();
        let mut driver = node.driver(&id).await;
        let trip_id = tokio::select! {
            biased;
            trip_id = offered_or_confirmed(&mut driver, round % 2 == 1) => trip_id,
            () = post_all(&node, &requests, &id) => panic!("the posts go on"),
        };
        node.crash_and_restart().await;
        let mut driver = node.driver(&id).await;
        let said = driver.drain().await;
        let offers = said.iter().filter(|message| message["type"] == "OFFER").count();
        if let Some(trip_id) = trip_id {
            assert_eq!(driver.welcome["trip_id"], trip_id.as_str());
            assert_eq!(offers, 0, "{said:?}");
        }
        assert!(offers <= 1, "{said:?}");
        eventually("the others to be refused", || async {
            let mut held = 0;
            for request_id in &requests {
                let view = node.get(&format!("/v1/dispatch/request/{request_id}")).await;
                // Not answered before the crash: it may not be there.
                held += usize::from(view.status == 200 && view.json()["state"] != "PENDING_MATCH");
            }
            (held <= 1).then_some(())
        })
        .await;
    }
}

/// Waits for the first offer and, if `accept`, for its trip.
async fn offered_or_confirmed(driver: &mut Driver, accept: bool) -> Option<String> {
    let offer = driver.expect("OFFER").await;
    if !accept {
        return None;
    }
    driver.answer("ACCEPT", &offer).await;
    let confirmed = driver.expect("CONFIRMED").await;
    Some(crate::support::text(&confirmed, "trip_id").to_owned())
}

/// Posts all of them at once, whatever comes of it, and never returns.
async fn post_all(node: &Node, requests: &[String], driver_id: &str) {
    let posting = requests.iter().map(|request_id| async {
        let body = api::offer(request_id, &[driver_id], &json!({"offer_timeout_ms": 600_000}));
        let request = node.http.post(node.url("/v1/dispatch/offer")).json(&body);
        // Most of them are cut off by the crash.
        let _ = request.send().await;
    });
    futures_util::future::join_all(posting).await;
    std::future::pending::<()>().await;
}

/// V.3: two processes never share a data directory: the second gives up, the first is unharmed.
#[tokio::test]
async fn a_directory_has_one_owner() {
    let mut node = Setup::shards(1).start().await;
    let mut driver = node.driver("d1").await;
    let mut second = Setup::shards(1).data(node.data()).prepare();
    second.spawn();
    assert!(!second.exit().await.success());
    assert!(node.is_running());
    let offer = offered(&node, &mut driver, "r1", &json!({})).await;
    driver.accept(&offer).await;
}

shards_1_and_4!(
    open_offers_resume,
    offers_time_out_across_a_restart,
    deadline_passes_across_a_restart,
    searches_go_on,
    a_bound_driver_was_seen_before,
    one_offer_or_trip_after_a_crash,
    answers_are_kept,
);
