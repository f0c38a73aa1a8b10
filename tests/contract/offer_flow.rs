//! One offer after the other: who is offered, what the offer says, who is refused.

use crate::support::{Node, Setup, Value, is_unix_ms, json, number, shape, shards_1_and_4, sorted_texts, text};
use serde_json::value::RawValue;

/// H2.1, H2.2, W2.3, H6.1, H8.1: the 202, the `OFFER`, the views while it is open, and the acceptance.
async fn offered_and_accepted(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let posted = node.offer("r1", &["d1"], &json!({"priority": "premium"})).await;
    assert_eq!(posted["attempt"], 1);
    assert_eq!(posted["driver_id"], "d1");
    assert_eq!(posted["state"], "OFFER_SENT");
    let offer = driver.expect("OFFER").await;
    assert_eq!(offer["request_id"], "r1");
    assert_eq!(offer["attempt"], 1);
    assert_eq!(offer["priority"], "premium");
    assert!(is_unix_ms(number(&offer, "expires_at_ms")), "{offer}");
    assert!((1..=8000).contains(&number(&offer, "ttl_ms")), "{offer}");
    let view = node.view("r1").await;
    assert_eq!(view["state"], "OFFER_SENT");
    assert_eq!((&view["attempt"], &view["driver_id"]), (&json!(1), &json!("d1")));
    assert_eq!(view["excluded"], json!([]));
    assert_eq!(view["priority"], "premium");
    assert!(is_unix_ms(number(&view, "deadline_at_ms")), "{view}");
    assert!(view["trip_id"].is_null(), "{view}");
    let driver_view = node.driver_view("d1").await;
    assert_eq!(driver_view["state"], "offered");
    assert_eq!(driver_view["offer"]["request_id"], "r1", "{driver_view}");
    driver.fence().await;
    let trip_id = driver.accept(&offer).await;
    let view = node.view("r1").await;
    assert_eq!(view["state"], "ACCEPTED");
    assert_eq!((&view["attempt"], &view["driver_id"]), (&json!(1), &json!("d1")));
    assert_eq!(view["trip_id"], trip_id.as_str());
    let driver_view = node.driver_view("d1").await;
    assert!(driver_view["offer"].is_null(), "{driver_view}");
    assert_eq!(driver_view["trip_id"], trip_id.as_str());
}

/// H2.1: `driver_id` instead of `candidates`.
async fn one_driver_by_name(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let named = json!({"candidates": null, "driver_id": "d1"});
    let posted = node.offer("r1", &[], &named).await;
    assert_eq!(posted["driver_id"], "d1");
    let offer = driver.expect("OFFER").await;
    assert_eq!(offer["priority"], "standard", "the default");
    driver.decline(&offer).await;
    let event = node.until_event("r1", "REDISPATCH_REQUESTED").await;
    assert_eq!(sorted_texts(&event, "excluded"), ["d1"]);
}

/// H2.3, S.1: candidates in the order given: a decline and a timeout go on to the next at once, attempts count from 1.
async fn candidates_in_their_order(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b, mut c) = (node.driver("a").await, node.driver("b").await, node.driver("c").await);
    node.offer("r1", &["c", "a", "b"], &json!({"offer_timeout_ms": 1500}))
        .await;
    let offer = c.expect("OFFER").await;
    assert_eq!(offer["attempt"], 1);
    a.fence().await;
    b.fence().await;
    c.decline(&offer).await;
    let offer = a.expect("OFFER").await;
    assert_eq!(offer["attempt"], 2);
    a.expect_revoked(&offer, "timeout").await;
    let offer = b.expect("OFFER").await;
    assert_eq!(offer["attempt"], 3);
    let view = node.view("r1").await;
    assert_eq!((&view["attempt"], &view["driver_id"]), (&json!(3), &json!("b")));
    assert_eq!(sorted_texts(&view, "excluded"), ["a", "c"]);
    b.accept(&offer).await;
    a.fence().await;
    c.fence().await;
}

/// H2.4: repeats among the candidates are dropped; each driver is tried once.
async fn repeats_are_dropped(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    node.offer("r1", &["a", "a", "b", "a", "b"], &json!({})).await;
    let offer = a.expect("OFFER").await;
    a.decline(&offer).await;
    let offer = b.expect("OFFER").await;
    assert_eq!(offer["attempt"], 2);
    b.decline(&offer).await;
    let event = node.until_event("r1", "REDISPATCH_REQUESTED").await;
    assert_eq!(sorted_texts(&event, "excluded"), ["a", "b"]);
    assert_eq!(event["attempts"], 2);
    a.fence().await;
    b.fence().await;
}

/// H2.5, S.2, H9.5: offline, en route and on a trip are refused at once; the next candidate gets the offer, under an
/// attempt of its own. With none left the request waits for new candidates.
async fn who_cannot_is_refused(setup: Setup) {
    let node = setup.start().await;
    let mut en_route = node.driver("en-route").await;
    let mut on_trip = node.driver("on-trip").await;
    let mut off_shift = node.driver("off-shift").await;
    let mut free = node.driver("free").await;
    occupy(&node, &mut en_route, false).await;
    occupy(&node, &mut on_trip, true).await;
    off_shift.go("offline").await;
    let candidates = ["unknown", "off-shift", "en-route", "on-trip", "free"];
    node.offer("r1", &candidates, &json!({})).await;
    let offer = free.expect("OFFER").await;
    assert_eq!(offer["attempt"], 5);
    free.decline(&offer).await;
    node.assert_audit(
        "r1",
        &shape(
            "REQUEST_RECEIVED
             OFFER_REFUSED 1 unknown
             OFFER_REFUSED 2 off-shift
             OFFER_REFUSED 3 en-route
             OFFER_REFUSED 4 on-trip
             OFFER_SENT 5 free
             ? OFFER_DELIVERED 5
             OFFER_DECLINED 5
             CANDIDATES_EXHAUSTED",
        ),
    )
    .await;
    let event = node.until_event("r1", "REDISPATCH_REQUESTED").await;
    let mut expected: Vec<&str> = candidates.to_vec();
    expected.sort_unstable();
    assert_eq!(sorted_texts(&event, "excluded"), expected);
    assert_eq!(event["trip"]["pickup"], "Lenox Hill West");
    let view = node.view("r1").await;
    assert_eq!(view["state"], "PENDING_MATCH");
    assert!(view["driver_id"].is_null(), "{view}");
    assert_eq!(sorted_texts(&view, "excluded"), expected);
    for driver in [&mut en_route, &mut on_trip, &mut off_shift] {
        driver.fence().await;
    }
}

async fn occupy(node: &Node, driver: &mut crate::support::Driver, on_board: bool) {
    node.offer(&format!("busy-{}", driver.id), &[&driver.id.clone()], &json!({}))
        .await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    if on_board {
        driver.trip(&trip_id, "pickup").await;
        driver.expect_state("on_trip").await;
    }
}

/// H2.5, V.2: a driver has one open offer: without `busy_wait_ms` another request is refused, and passes on.
async fn one_open_offer_per_driver(setup: Setup) {
    let node = setup.start().await;
    let mut busy = node.driver("busy").await;
    let mut free = node.driver("free").await;
    node.offer("r1", &["busy"], &json!({"offer_timeout_ms": 600_000})).await;
    let first = busy.expect("OFFER").await;
    node.offer("r2", &["busy", "free"], &json!({})).await;
    let second = free.expect("OFFER").await;
    assert_eq!(second["request_id"], "r2");
    node.until_audit("r2", "OFFER_REFUSED 1 busy").await;
    busy.fence().await;
    busy.accept(&first).await;
    free.accept(&second).await;
}

/// H2.6: defaults: 8 s for an answer, 120 s for the search, both overridden by the request. By the server's own times.
async fn times_are_as_asked(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let cases = [
        ("defaults", json!({}), 8000, 120_000),
        (
            "given",
            json!({"offer_timeout_ms": 2500, "deadline_ms": 77_000}),
            2500,
            77_000,
        ),
        (
            "longest",
            json!({"offer_timeout_ms": 600_000, "deadline_ms": 86_400_000}),
            600_000,
            86_400_000,
        ),
        // `expires_at_ms` is never past the deadline.
        (
            "short",
            json!({"offer_timeout_ms": 600_000, "deadline_ms": 60_000}),
            60_000,
            60_000,
        ),
    ];
    for (request_id, more, offer_ms, search_ms) in cases {
        node.offer(request_id, &["d1"], &more).await;
        let offer = driver.expect("OFFER").await;
        let audit = node.audit(request_id).await;
        let at_ms = |name: &str| {
            let event = audit.iter().find(|event| event["event"] == name);
            number(event.expect("the event"), "at_ms")
        };
        let deadline_at_ms = number(&node.view(request_id).await, "deadline_at_ms");
        let search = deadline_at_ms - at_ms("REQUEST_RECEIVED");
        assert_eq!(search, search_ms, "{request_id}");
        let expires_at_ms = number(&offer, "expires_at_ms");
        assert!(expires_at_ms <= deadline_at_ms, "{offer}");
        let answer = expires_at_ms - at_ms("OFFER_SENT");
        assert!(
            answer <= offer_ms && answer + 1000 > offer_ms,
            "{request_id}: {answer} of {offer_ms}"
        );
        assert!(number(&offer, "ttl_ms") <= offer_ms, "{offer}");
        driver.decline(&offer).await;
    }
}

#[derive(serde::Deserialize)]
struct OfferText {
    trip: Box<RawValue>,
}

/// W2.3: `trip` is the caller's JSON text, byte for byte; the event stream stays one line an event whatever it holds.
async fn trip_is_kept_byte_for_byte(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let trips = [
        "{}",
        r#"{ "a" : 1.0e+2 , "a":2,"z": [ ] }"#,
        "{\n  \"pretty\": true,\r\n\t\"lines\": [1,\n2]\n}",
        r#"{"u":"\u00e9\ud83d\ude95","raw":"é🚕","slash":"\/","n":-0.0,"big":12345678901234567890123}"#,
        r#"{"request_id":"other","attempt":99,"type":"STATE"}"#,
    ];
    for (number, trip) in trips.into_iter().enumerate() {
        let request_id = format!("r{number}");
        let body = format!(r#"{{"trip":{trip},"request_id":"{request_id}","driver_id":"d1"}}"#);
        node.post_text("/v1/dispatch/offer", body).await.ok(202);
        let text = driver.next_text().await;
        let parsed: OfferText = serde_json::from_str(&text).unwrap();
        assert_eq!(parsed.trip.get(), trip);
        let offer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(offer["type"], "OFFER");
        driver.decline(&offer).await;
        let event = node.until_event(&request_id, "REDISPATCH_REQUESTED").await;
        assert_eq!(event["trip"], serde_json::from_str::<Value>(trip).unwrap());
    }
}

/// W2.3, H2.7: a trip that fits a frame arrives; one whose `OFFER` would not is 413, and starts nothing.
async fn big_trips_fit_or_are_413(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let fits = json!({"trip": {"note": "x".repeat(15_000)}});
    node.offer("fits", &["d1"], &fits).await;
    let offer = driver.expect("OFFER").await;
    assert_eq!(text(&offer["trip"], "note").len(), 15_000);
    driver.decline(&offer).await;
    let over = json!({"trip": {"note": "x".repeat(16 << 10)}});
    node.post_offer("over", &["d1"], &over).await.any_problem(413);
    driver.fence().await;
    node.get("/v1/dispatch/request/over")
        .await
        .problem(404, "no_such_request");
}

shards_1_and_4!(
    offered_and_accepted,
    one_driver_by_name,
    candidates_in_their_order,
    repeats_are_dropped,
    who_cannot_is_refused,
    one_open_offer_per_driver,
    times_are_as_asked,
    trip_is_kept_byte_for_byte,
    big_trips_fit_or_are_413,
);
