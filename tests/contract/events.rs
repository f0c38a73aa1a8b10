//! `GET /v1/events` and `POST /v1/events/ack`.

use crate::support::{Node, Raw, Setup, Value, api, eventually, json, number, shards_1_and_4, sorted_texts, text};

/// So many requests, each exhausted at once: an event each. Gives the events.
async fn published(node: &Node, prefix: &str, count: usize) -> Vec<Value> {
    let mut events = Vec::new();
    for number in 0..count {
        let request_id = format!("{prefix}{number}");
        node.offer(&request_id, &["nobody"], &json!({})).await;
        events.push(node.until_event(&request_id, "REDISPATCH_REQUESTED").await);
    }
    events
}

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| text(event, "request_id")).collect()
}

async fn ack(node: &Node, consumer: &str, event: &Value) {
    let body = json!({"consumer": consumer, "cursor": event["cursor"]});
    let answer = node.post("/v1/events/ack", &body).await;
    assert!((200..300).contains(&answer.status), "{answer:?}");
}

/// H9.1, H9.2: the line of a trip's creation.
async fn trip_created_says_all(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("r1", &["d1"], &json!({"trip": {"zone": 7}})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    let event = node.until_event("r1", "TRIP_CREATED").await;
    assert_eq!(event["trip_id"], trip_id.as_str());
    assert_eq!(event["driver_id"], "d1");
    assert_eq!(event["trip"], json!({"zone": 7}));
    driver.trip(&trip_id, "pickup").await;
    let event = node.until_event("r1", "TRIP_PICKED_UP").await;
    assert!(
        event["trip_id"].is_null() || event["trip_id"] == trip_id.as_str(),
        "{event}"
    );
}

/// H9.2, H9.3: cursors grow; `after` gives what follows, and nothing twice; `limit` bounds an answer.
async fn cursors_page(setup: Setup) {
    const COUNT: usize = 7;
    let node = setup.start().await;
    published(&node, "r", COUNT).await;
    let all = node.all_events().await;
    assert_eq!(all.len(), COUNT);
    if all[0]["cursor"].is_u64() {
        assert!(
            all.windows(2)
                .all(|pair| number(&pair[0], "cursor") < number(&pair[1], "cursor"))
        );
    }
    for (index, event) in all.iter().enumerate() {
        let rest = node.events(&api::after(event)).await;
        assert_eq!(rest, all[index + 1..]);
        let some = node.events(&format!("{}&limit=2", api::after(event))).await;
        assert_eq!(some, all[index + 1..COUNT.min(index + 3)]);
    }
    assert_eq!(node.events("limit=1").await, all[..1]);
    assert_eq!(node.events("limit=1000").await, all);
}

/// H9.3: with `wait_ms` an answer waits for an event, and comes at once when there is one; without events it ends
/// empty.
async fn waits_for_an_event(setup: Setup) {
    let node = setup.start().await;
    let plain = json!({});
    assert!(node.events("wait_ms=50").await.is_empty());
    assert!(node.events("").await.is_empty());
    for round in 0..5 {
        let query = node.all_events().await.last().map_or_else(String::new, api::after);
        let query = format!("{query}&wait_ms=25000");
        let waiting = node.events(query.trim_start_matches('&'));
        let request_id = format!("r{round}");
        let posting = node.offer(&request_id, &["nobody"], &plain);
        // Polled in this order: the wait is on its way before the POST.
        let (events, _) = tokio::join!(biased; waiting, posting);
        assert_eq!(ids(&events), [request_id.as_str()]);
    }
}

/// H9.3: several may wait at once, and all hear.
async fn several_wait(setup: Setup) {
    let node = setup.start().await;
    let waiting = (0..5).map(|_| node.events("wait_ms=25000"));
    let waiting = futures_util::future::join_all(waiting);
    let plain = json!({});
    let (heard, _) = tokio::join!(biased; waiting, node.offer("r1", &["nobody"], &plain));
    for events in heard {
        assert_eq!(ids(&events), ["r1"]);
    }
}

/// H9.3, H1.8: the wait of a client whose connection is gone is over and holds no place; one that half-closed goes on
/// waiting for its event.
async fn nobody_waits_for_the_gone(setup: Setup) {
    let node = setup.start().await;
    let poll = "GET /v1/events?wait_ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n";
    let parked = |count: u64| {
        let node = &node;
        eventually("waiting readers", move || async move {
            (node.metric("dispatchd_store_polls_parked", "").await == count).then_some(())
        })
    };
    let (mut half, mut whole) = (Raw::connect(node.address).await, Raw::connect(node.address).await);
    half.send(poll).await;
    whole.send(poll).await;
    parked(2).await;
    half.half_close().await;
    whole.reset();
    parked(1).await;
    published(&node, "late", 1).await;
    let answer = half.expect_answer().await;
    assert_eq!((answer.status, answer.body.is_empty()), (200, false));
    half.expect_end().await;
    parked(0).await;
}

/// H9.4: a consumer goes on from its acknowledgement; an older one is ignored; without `consumer` from the oldest kept.
async fn consumers_acknowledge(setup: Setup) {
    let node = setup.start().await;
    let events = published(&node, "r", 6).await;
    let all = node.all_events().await;
    assert_eq!(ids(&all), ids(&events));
    assert_eq!(node.events("consumer=engine").await, all, "nothing acknowledged yet");
    // What this one has not acknowledged is kept for it, whatever the other does.
    ack(&node, "billing", &events[0]).await;
    ack(&node, "engine", &events[2]).await;
    assert_eq!(node.events("consumer=engine").await, all[3..]);
    ack(&node, "engine", &events[0]).await;
    assert_eq!(
        node.events("consumer=engine").await,
        all[3..],
        "an older one is ignored"
    );
    assert_eq!(node.events("consumer=billing").await, all[1..], "each for itself");
    // `after` is stronger than the acknowledgement.
    assert_eq!(
        node.events(&format!("consumer=engine&{}", api::after(&all[0]))).await,
        all[1..]
    );
    ack(&node, "engine", &events[5]).await;
    assert!(node.events("consumer=engine").await.is_empty());
    assert_eq!(node.events("consumer=billing").await, all[1..]);
    published(&node, "more", 1).await;
    assert_eq!(ids(&node.events("consumer=engine").await), ["more0"]);
}

/// H9.8, V.3: events, cursors and acknowledgements survive crashes; new events follow the old ones. Each engine has
/// acknowledged; the one consumer that has not keeps all of them.
async fn events_survive_crashes(setup: Setup) {
    let mut node = setup.start().await;
    let zeroth = published(&node, "zeroth", 1).await.remove(0);
    ack(&node, "keeper", &zeroth).await;
    let since = format!("limit=1000&{}", api::after(&zeroth));
    let mut before: Vec<Value> = Vec::new();
    for round in 0..4 {
        published(&node, &format!("r{round}-"), 5).await;
        let all = node.events(&since).await;
        assert_eq!(all[..before.len()], before[..], "nothing is lost or changed");
        assert_eq!(all.len(), 5 * (round + 1));
        ack(&node, "engine", &all[all.len() - 2]).await;
        before = all;
        node.crash_and_restart().await;
        assert_eq!(node.events(&since).await, before);
        assert_eq!(node.events("consumer=keeper&limit=1000").await, before);
        assert_eq!(
            node.events("consumer=engine&limit=1000").await,
            before[before.len() - 1..]
        );
    }
}

/// H9.5, H9.6: what the matching engine is told.
async fn engine_is_told(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("r1", &["nobody", "d1"], &json!({"trip": {"zone": 7}})).await;
    let offer = driver.expect("OFFER").await;
    driver.decline(&offer).await;
    let event = node.until_event("r1", "REDISPATCH_REQUESTED").await;
    assert_eq!(sorted_texts(&event, "excluded"), ["d1", "nobody"]);
    assert_eq!(number(&event, "attempts"), 2);
    assert_eq!(event["trip"], json!({"zone": 7}));
    node.cancel("r1").await.ok(200);
    node.until_event("r1", "REQUEST_CANCELLED").await;
    node.offer("r2", &["nobody"], &json!({"deadline_ms": 100})).await;
    node.until_event("r2", "REQUEST_UNFULFILLED").await;
    node.assert_events("r1", &["REDISPATCH_REQUESTED", "REQUEST_CANCELLED"])
        .await;
}

/// H9.9: a bad query is `400 invalid`.
#[tokio::test]
async fn bad_queries_are_invalid() {
    let node = Setup::shards(1).start().await;
    let wrong = [
        "after=!!!",
        "after=%FF",
        "limit=0",
        "limit=-1",
        "limit=x",
        "wait_ms=-1",
        "wait_ms=x",
        "wait_ms=1.5",
        "consumer=",
        "consumer=a%20b",
        "consumer=a!b",
    ];
    for query in wrong {
        let answer = node.get(&format!("/v1/events?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        answer.problem(400, "invalid");
    }
    let long = "x".repeat(65);
    node.get(&format!("/v1/events?consumer={long}"))
        .await
        .problem(400, "invalid");
}

shards_1_and_4!(
    trip_created_says_all,
    cursors_page,
    waits_for_an_event,
    several_wait,
    nobody_waits_for_the_gone,
    consumers_acknowledge,
    events_survive_crashes,
    engine_is_told,
);
