//! The same `request_id` again: duplicates, new candidates, and what has ended.

use crate::support::{Node, Setup, Value, api, audit, json, merged, shape, shards_1_and_4, sorted_texts};
use futures_util::future::join_all;

/// H2.16: while open or accepted it is a duplicate without side effect, whatever else the body says.
async fn duplicates_change_nothing(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    node.offer("r1", &["a"], &json!({})).await;
    let offer = a.expect("OFFER").await;
    let others = json!({"priority": "premium", "trip": {"other": true}, "parallel": 5, "max_attempts": 1});
    for (candidates, more) in [(["a"], json!({})), (["b"], others.clone())] {
        let again = node.post_offer("r1", &candidates, &more).await.ok(200);
        assert_eq!(again["duplicate"], true);
        assert_eq!(again["state"], "OFFER_SENT");
        assert_eq!((&again["attempt"], &again["driver_id"]), (&json!(1), &json!("a")));
    }
    a.fence().await;
    b.fence().await;
    a.accept(&offer).await;
    let again = node.post_offer("r1", &["b"], &others).await.ok(200);
    assert_eq!(again["duplicate"], true);
    assert_eq!(again["state"], "ACCEPTED");
    assert_eq!((&again["attempt"], &again["driver_id"]), (&json!(1), &json!("a")));
    a.fence().await;
    b.fence().await;
    let events = node.audit("r1").await;
    assert_eq!(audit::count(&events, "OFFER_SENT"), 1, "{events:#?}");
    assert_eq!(audit::count(&events, "REDISPATCHED"), 0, "{events:#?}");
}

/// H2.17, V.1: several at once, racing, from several callers, make one dispatch.
async fn racing_duplicates_make_one_dispatch(setup: Setup) {
    const ROUNDS: usize = 10;
    const CALLERS: usize = 16;
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    for round in 0..ROUNDS {
        let request_id = format!("r{round}");
        let answers = race(&node, &request_id, &["d1"], CALLERS).await;
        assert_one_of(&answers);
        let offer = driver.expect("OFFER").await;
        assert_eq!(
            (&offer["request_id"], &offer["attempt"]),
            (&json!(request_id), &json!(1))
        );
        driver.fence().await;
        driver.decline(&offer).await;
        let events = node.audit(&request_id).await;
        assert_eq!(audit::count(&events, "REQUEST_RECEIVED"), 1, "{events:#?}");
        assert_eq!(audit::count(&events, "OFFER_SENT"), 1, "{events:#?}");
    }
}

/// The statuses of so many POSTs at once, each over a connection of its own.
async fn race(node: &Node, request_id: &str, candidates: &[&str], callers: usize) -> Vec<u16> {
    let body = api::offer(request_id, candidates, &json!({}));
    let posting = (0..callers).map(|_| async {
        let client = reqwest::Client::new();
        let request = client.post(node.url("/v1/dispatch/offer")).json(&body);
        let answer = crate::support::within("an answer", request.send()).await.unwrap();
        let status = answer.status().as_u16();
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["duplicate"], status == 200, "{status}: {body}");
        status
    });
    join_all(posting).await
}

fn assert_one_of(statuses: &[u16]) {
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(202), count(200)), (1, statuses.len() - 1), "{statuses:?}");
}

/// H2.18, H7.3: in `PENDING_MATCH` new candidates are taken: 202, the next attempt, only those not tried yet.
async fn new_candidates_go_on(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b, mut c) = (node.driver("a").await, node.driver("b").await, node.driver("c").await);
    node.offer("r1", &["a"], &json!({"priority": "economy"})).await;
    let offer = a.expect("OFFER").await;
    a.decline(&offer).await;
    node.until_event("r1", "REDISPATCH_REQUESTED").await;
    let deadline = node.view("r1").await["deadline_at_ms"].clone();
    let more = json!({"priority": "premium", "trip": {"other": 1}, "deadline_ms": 1000, "offer_timeout_ms": 50_000});
    let again = node.offer("r1", &["a", "b", "c"], &more).await;
    assert_eq!((&again["attempt"], &again["driver_id"]), (&json!(2), &json!("b")));
    let offer = b.expect("OFFER").await;
    assert_eq!(offer["attempt"], 2);
    // Taken: candidates and `offer_timeout_ms`. Staying: priority, trip, deadline.
    assert!(crate::support::number(&offer, "ttl_ms") > 8000, "{offer}");
    assert_eq!(offer["priority"], "economy");
    assert_eq!(offer["trip"]["pickup"], "Lenox Hill West");
    let view = node.view("r1").await;
    assert_eq!(
        (&view["priority"], &view["deadline_at_ms"]),
        (&json!("economy"), &deadline)
    );
    b.decline(&offer).await;
    let offer = c.expect("OFFER").await;
    assert_eq!(offer["attempt"], 3);
    c.accept(&offer).await;
    a.fence().await;
    node.assert_audit(
        "r1",
        &shape(
            "REQUEST_RECEIVED
             OFFER_SENT 1 a
             ? OFFER_DELIVERED 1
             OFFER_DECLINED 1
             CANDIDATES_EXHAUSTED
             REDISPATCHED
             OFFER_SENT 2 b
             ? OFFER_DELIVERED 2
             OFFER_DECLINED 2
             OFFER_SENT 3 c
             ? OFFER_DELIVERED 3
             OFFER_ACCEPTED 3
             TRIP_CREATED",
        ),
    )
    .await;
}

/// H2.18: `parallel` and `busy_wait_ms` of a re-POST are taken, and stay when it does not give them.
async fn settings_of_a_repost(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b, mut c) = (node.driver("a").await, node.driver("b").await, node.driver("c").await);
    node.offer("r1", &["nobody"], &json!({"offer_timeout_ms": 40_000}))
        .await;
    node.until_event("r1", "REDISPATCH_REQUESTED").await;
    node.offer("r1", &["a", "b"], &json!({"parallel": 2})).await;
    let (of_a, of_b) = (a.expect("OFFER").await, b.expect("OFFER").await);
    assert!(crate::support::number(&of_a, "ttl_ms") > 8000, "{of_a}");
    a.decline(&of_a).await;
    b.decline(&of_b).await;
    node.until_state("r1", "PENDING_MATCH").await;
    node.offer("other", &["c"], &json!({"offer_timeout_ms": 600_000})).await;
    let other = c.expect("OFFER").await;
    node.offer("r1", &["c"], &json!({"busy_wait_ms": 60_000})).await;
    node.until_state("r1", "PENDING_MATCH").await;
    c.decline(&other).await;
    let offer = c.expect("OFFER").await;
    assert_eq!(offer["request_id"], "r1");
    c.accept(&offer).await;
}

/// H2.19: with only drivers already tried: `409 excluded`, and the request lives on.
async fn tried_drivers_are_excluded(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    node.offer("r1", &["a", "nobody"], &json!({})).await;
    let offer = a.expect("OFFER").await;
    a.decline(&offer).await;
    node.until_event("r1", "REDISPATCH_REQUESTED").await;
    for candidates in [vec!["a"], vec!["nobody", "a"]] {
        let problem = node.post_offer("r1", &candidates, &json!({})).await;
        let problem = problem.problem(409, "excluded");
        assert_eq!(problem["state"], "PENDING_MATCH");
        assert_eq!(sorted_texts(&problem, "excluded"), ["a", "nobody"]);
    }
    a.fence().await;
    node.offer("r1", &["b"], &json!({})).await;
    let offer = b.expect("OFFER").await;
    b.accept(&offer).await;
}

/// H2.18: of several re-POSTs at once one is 202, the others 200.
async fn racing_reposts_make_one_attempt(setup: Setup) {
    const ROUNDS: usize = 10;
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    for round in 0..ROUNDS {
        let request_id = format!("r{round}");
        node.offer(&request_id, &["nobody"], &json!({})).await;
        node.until_event(&request_id, "REDISPATCH_REQUESTED").await;
        let statuses = race(&node, &request_id, &["d1"], 8).await;
        assert_one_of(&statuses);
        let offer = driver.expect("OFFER").await;
        assert_eq!(offer["attempt"], 2);
        driver.fence().await;
        driver.decline(&offer).await;
        let events = node.audit(&request_id).await;
        assert_eq!(audit::count(&events, "REDISPATCHED"), 1, "{events:#?}");
    }
}

/// H2.20: ended: `409 ended` with `state`; also after a crash.
async fn ended_is_remembered(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("cancelled", &["nobody"], &json!({})).await;
    node.cancel("cancelled").await.ok(200);
    node.offer("unfulfilled", &["d1"], &json!({"max_attempts": 1})).await;
    let offer = driver.expect("OFFER").await;
    driver.decline(&offer).await;
    node.until_state("unfulfilled", "UNFULFILLED").await;
    node.offer("accepted", &["d1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    driver.trip(&trip_id, "cancel").await;
    driver.expect_state("available").await;
    for _ in 0..2 {
        for (request_id, state) in [("cancelled", "CANCELLED"), ("unfulfilled", "UNFULFILLED")] {
            let problem = node.post_offer(request_id, &["d1", "new"], &json!({})).await;
            assert_eq!(problem.problem(409, "ended")["state"], state);
        }
        let again = node.post_offer("accepted", &["d1", "new"], &json!({})).await.ok(200);
        assert_eq!(
            (&again["duplicate"], &again["state"]),
            (&json!(true), &json!("ACCEPTED"))
        );
        node.crash_and_restart().await;
        driver = node.driver("d1").await;
        driver.fence().await;
    }
}

/// H2.16, V.3: a 202 is remembered after a crash: the same POST again is a duplicate.
async fn duplicates_after_a_crash(setup: Setup) {
    let mut node = setup.start().await;
    let driver = node.driver("d1").await;
    let ids: Vec<String> = (0..20).map(|number| format!("r{number}")).collect();
    for id in &ids {
        node.offer(
            id,
            &["d1"],
            &json!({"offer_timeout_ms": 600_000, "busy_wait_ms": 60_000}),
        )
        .await;
    }
    driver.vanish();
    node.crash_and_restart().await;
    for id in &ids {
        let again = node.post_offer(id, &["d1"], &json!({})).await;
        // Some wait for the driver, others were refused meanwhile: no 202, and not forgotten.
        if again.status == 409 {
            again.problem(409, "excluded");
        } else {
            assert_eq!(again.ok(200)["duplicate"], true);
        }
    }
}

/// Bodies that are no offer but name a request: what is 400 for a new one, and one whose offer fits no frame.
fn bad_bodies(request_id: &str) -> Vec<(u16, Value)> {
    let right = api::offer(request_id, &["b"], &json!({}));
    let with = |more: Value| merged(right.clone(), &more);
    vec![
        (400, json!({"request_id": request_id})),
        (400, with(json!({"candidates": []}))),
        (400, with(json!({"driver_id": "b"}))),
        (400, with(json!({"priority": "gold"}))),
        (400, with(json!({"offer_timeout_ms": "8000"}))),
        (400, with(json!({"trip": 7}))),
        (413, with(json!({"trip": {"note": "x".repeat(20_000)}}))),
    ]
}

/// Posts each of them; all are answered with this status, or with that of a new request.
async fn post_badly(node: &Node, request_id: &str, status: Option<u16>) -> Vec<Value> {
    let mut answers = Vec::new();
    for (new, body) in bad_bodies(request_id) {
        let answer = node.post("/v1/dispatch/offer", &body).await;
        assert_eq!(answer.status, status.unwrap_or(new), "{body}: {answer:?}");
        answers.push(serde_json::from_str(&answer.body).expect("JSON"));
    }
    answers
}

/// H2.16, H2.20, H2.8: whatever else the body says: of a request that is open, accepted or over a bad one is a repeat, also
/// when only the store knows it. One that waits for candidates needs good ones, and a new one is refused.
async fn bad_bodies_of_known_requests(setup: Setup) {
    let mut node = setup.start().await;
    let mut a = node.driver("a").await;
    node.offer("r1", &["a"], &json!({})).await;
    let offer = a.expect("OFFER").await;
    for again in post_badly(&node, "r1", Some(200)).await {
        assert_eq!(
            (&again["duplicate"], &again["state"]),
            (&json!(true), &json!("OFFER_SENT"))
        );
        assert_eq!((&again["attempt"], &again["driver_id"]), (&json!(1), &json!("a")));
    }
    let trip_id = a.accept(&offer).await;
    for again in post_badly(&node, "r1", Some(200)).await {
        assert_eq!(again["state"], "ACCEPTED");
    }
    a.trip(&trip_id, "complete").await;
    a.expect_state("available").await;
    node.offer("pending", &["nobody"], &json!({})).await;
    node.until_event("pending", "REDISPATCH_REQUESTED").await;
    node.offer("cancelled", &["nobody"], &json!({})).await;
    node.cancel("cancelled").await.ok(200);
    for _ in 0..2 {
        for again in post_badly(&node, "r1", Some(200)).await {
            assert_eq!(
                (&again["duplicate"], &again["state"]),
                (&json!(true), &json!("ACCEPTED"))
            );
        }
        for problem in post_badly(&node, "cancelled", Some(409)).await {
            assert_eq!(
                (&problem["code"], &problem["state"]),
                (&json!("ended"), &json!("CANCELLED"))
            );
        }
        post_badly(&node, "pending", None).await;
        post_badly(&node, "new", None).await;
        node.get("/v1/dispatch/request/new")
            .await
            .problem(404, "no_such_request");
        node.crash_and_restart().await;
    }
    let events = node.audit("r1").await;
    assert_eq!(audit::count(&events, "REDISPATCHED"), 0, "{events:#?}");
    assert_eq!(
        audit::count(&node.audit("pending").await, "REDISPATCHED"),
        0,
        "{events:#?}"
    );
}

shards_1_and_4!(
    bad_bodies_of_known_requests,
    duplicates_change_nothing,
    racing_duplicates_make_one_dispatch,
    new_candidates_go_on,
    settings_of_a_repost,
    tried_drivers_are_excluded,
    racing_reposts_make_one_attempt,
    ended_is_remembered,
    duplicates_after_a_crash,
);
