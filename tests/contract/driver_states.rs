//! A driver's state across connections: shifts, the time to live after a lost socket, restarts.

use crate::support::{Setup, eventually, json, shape, shards_1_and_4};

/// W4.1, H8.1: a driver that connects is `available`, and stays so when its socket is lost, however that went.
async fn state_outlives_the_socket(setup: Setup) {
    let node = setup.start().await;
    let driver = node.driver("d1").await;
    assert_eq!(node.driver_view("d1").await["state"], "available");
    driver.vanish();
    assert_eq!(node.driver_view("d1").await["state"], "available");
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "available");
    driver
        .send_frame(tokio_tungstenite::tungstenite::protocol::Message::Close(None))
        .await;
    let (code, _) = driver.closed().await;
    assert!([1000, 1005].contains(&code), "{code}");
    assert_eq!(node.driver_view("d1").await["state"], "available");
}

/// W4.3, W2.3: a driver without a socket may be offered for `driver_ttl_ms`; the offer waits for the reconnect, and
/// comes right after `WELCOME` with the time it has left.
async fn offer_waits_for_the_reconnect(setup: Setup) {
    let node = setup.start().await;
    node.driver("d1").await.vanish();
    let posted = node.offer("r1", &["d1"], &json!({"offer_timeout_ms": 60_000})).await;
    assert_eq!(posted["driver_id"], "d1");
    let state = node.until_state("r1", "OFFER_SENT").await;
    assert_eq!(state["driver_id"], "d1");
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "offered");
    let offer = driver.expect("OFFER").await;
    let ttl_ms = crate::support::number(&offer, "ttl_ms");
    assert!((1..=60_000).contains(&ttl_ms), "{offer}");
    driver.fence().await;
    driver.accept(&offer).await;
    node.assert_audit(
        "r1",
        &shape("REQUEST_RECEIVED \n OFFER_SENT 1 d1 \n OFFER_DELIVERED 1 \n OFFER_ACCEPTED 1 \n TRIP_CREATED"),
    )
    .await;
}

/// W4.3: an offer that nobody was there for times out like any other.
async fn offer_without_a_socket_times_out(setup: Setup) {
    let node = setup.start().await;
    node.driver("d1").await.vanish();
    node.offer("r1", &["d1"], &json!({"offer_timeout_ms": 200})).await;
    node.until_event("r1", "REDISPATCH_REQUESTED").await;
    node.assert_audit(
        "r1",
        &shape(
            "REQUEST_RECEIVED
             OFFER_SENT 1 d1
             ? OFFER_DELIVERED 1
             OFFER_TIMED_OUT 1
             CANDIDATES_EXHAUSTED",
        ),
    )
    .await;
    assert_eq!(node.driver("d1").await.welcome["state"], "available");
}

/// W4.4: after `driver_ttl_ms` it is `offline` and refused at once; when it connects again it is `available`.
async fn lost_driver_goes_offline(setup: Setup) {
    let node = setup.set("driver_ttl_ms", 200).start().await;
    node.driver("d1").await.vanish();
    node.until_driver("d1", "offline").await;
    node.offer("r1", &["d1"], &json!({})).await;
    node.until_audit("r1", "OFFER_REFUSED 1 d1").await;
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "available");
    driver.fence().await;
}

/// W4.4: a driver who is back before its time is up stays; the end of the old socket's time does not touch it.
async fn back_in_time_stays(setup: Setup) {
    let node = setup.set("driver_ttl_ms", 400).start().await;
    node.driver("d1").await.vanish();
    node.driver("clock").await.vanish();
    let mut driver = node.driver("d1").await;
    node.until_driver("clock", "offline").await;
    assert_eq!(node.driver_view("d1").await["state"], "available");
    driver.fence().await;
}

/// W3.4, W4.2: off shift on purpose lasts across reconnects, and until the driver says otherwise.
async fn off_shift_is_remembered(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    driver.go("offline").await;
    node.offer("r1", &["d1"], &json!({})).await;
    node.until_audit("r1", "OFFER_REFUSED 1 d1").await;
    driver.fence().await;
    driver.vanish();
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "offline");
    assert_eq!(node.driver_view("d1").await["state"], "offline");
    driver.go("available").await;
    driver.vanish();
    let mut driver = node.driver("d1").await;
    assert_eq!(driver.welcome["state"], "available");
    node.offer("r2", &["d1"], &json!({})).await;
    driver.expect("OFFER").await;
}

/// W4.2: also across a crash.
async fn off_shift_survives_a_crash(setup: Setup) {
    let mut node = setup.start().await;
    let mut off = node.driver("off").await;
    off.go("offline").await;
    let mut back = node.driver("back").await;
    back.go("offline").await;
    back.go("available").await;
    node.settle().await;
    node.crash_and_restart().await;
    assert_eq!(node.driver("off").await.welcome["state"], "offline");
    assert_eq!(node.driver("back").await.welcome["state"], "available");
}

/// W4.2: the memory ends after `off_shift_memory_ms`: who connects later is `available`.
async fn off_shift_memory_ends(setup: Setup) {
    let node = setup.set("off_shift_memory_ms", 100).start().await;
    let mut driver = node.driver("d1").await;
    driver.go("offline").await;
    driver.vanish();
    let back = || async {
        let driver = node.driver("d1").await;
        (driver.welcome["state"] == "available").then_some(())
    };
    eventually("the memory of the shift to end", back).await;
}

/// W3.5: `offline` while offered declines the offer: the next candidate gets it at once.
async fn offline_while_offered_declines(setup: Setup) {
    let node = setup.start().await;
    let mut first = node.driver("first").await;
    let mut next = node.driver("next").await;
    node.offer("r1", &["first", "next"], &json!({})).await;
    let offer = first.expect("OFFER").await;
    first.send(&json!({"type": "STATE", "state": "offline"})).await;
    let passed_on = next.expect("OFFER").await;
    assert_eq!(passed_on["attempt"], 2);
    let (mut declined, mut offline) = (false, false);
    while !(declined && offline) {
        let message = first.next().await;
        match message["type"].as_str() {
            Some("DECLINED") => {
                assert_eq!(message["attempt"], offer["attempt"]);
                declined = true;
            }
            Some("STATE") => {
                assert_eq!(message["state"], "offline", "`offered` comes and goes without a STATE");
                offline = true;
            }
            _ => panic!("{message}"),
        }
    }
    first.fence().await;
    node.until_audit("r1", "OFFER_DECLINED 1").await;
    assert_eq!(node.driver_view("first").await["state"], "offline");
}

/// W3.6: `offline` on a trip takes effect at the trip's end.
async fn offline_on_a_trip_waits_for_its_end(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    node.offer("r1", &["d1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    driver.send(&json!({"type": "STATE", "state": "offline"})).await;
    driver.expect_state("en_route_to_pickup").await;
    assert_eq!(node.driver_view("d1").await["state"], "en_route_to_pickup");
    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("offline").await;
    driver.vanish();
    assert_eq!(node.driver("d1").await.welcome["state"], "offline");
}

/// W4.5: after a restart a driver without an offer or a trip is `offline` until it connects.
async fn offline_after_a_restart(setup: Setup) {
    let mut node = setup.start().await;
    node.driver("d1").await.fence().await;
    node.settle().await;
    node.crash_and_restart().await;
    assert_eq!(node.driver_view("d1").await["state"], "offline");
    node.offer("r1", &["d1"], &json!({})).await;
    node.until_audit("r1", "OFFER_REFUSED 1 d1").await;
    assert_eq!(node.driver("d1").await.welcome["state"], "available");
}

shards_1_and_4!(
    state_outlives_the_socket,
    offer_waits_for_the_reconnect,
    offer_without_a_socket_times_out,
    lost_driver_goes_offline,
    back_in_time_stays,
    off_shift_is_remembered,
    off_shift_survives_a_crash,
    off_shift_memory_ends,
    offline_while_offered_declines,
    offline_on_a_trip_waits_for_its_end,
    offline_after_a_restart,
);
