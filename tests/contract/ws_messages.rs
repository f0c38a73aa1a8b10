//! Messages of a driver without an offer: `WELCOME`, `PING`, `LOCATION`, and what is wrong with a message.

use crate::support::{Driver, Setup, is_unix_ms, json, number, shards_1_and_4};
use tokio_tungstenite::tungstenite::protocol::Message;

/// W2.1, I.1: the fields of `WELCOME`.
async fn welcome_says_who_and_how(setup: Setup) {
    let node = setup.set("heartbeat_ms", 12_345).start().await;
    let mut driver = node.driver("d1").await;
    let welcome = driver.welcome.clone();
    assert_eq!(welcome["driver_id"], "d1");
    assert_eq!(welcome["state"], "available");
    assert_eq!(welcome["heartbeat_ms"], 12_345);
    assert!(is_unix_ms(number(&welcome, "server_time_ms")), "{welcome}");
    assert!(number(&welcome, "session") > 0, "{welcome}");
    assert!(welcome["trip_id"].is_null(), "{welcome}");
    driver.fence().await;
}

/// W2.2: `session` grows with every connect, also across restarts, graceful or not.
async fn session_grows(setup: Setup) {
    let mut node = setup.set("drain_ms", 0).start().await;
    let mut last = 0;
    let mut grow = |driver: &Driver| {
        let session = driver.session();
        assert!(session > last, "session {session} after {last}");
        assert!(session < 1 << 53, "a JSON number holds it exactly");
        last = session;
    };
    for _ in 0..3 {
        grow(&node.driver("d1").await);
    }
    for _ in 0..3 {
        node.crash_and_restart().await;
        grow(&node.driver("d1").await);
        grow(&node.driver("d1").await);
    }
    node.terminate();
    assert!(node.exit().await.success());
    node.spawn();
    node.until_ready().await;
    grow(&node.driver("d1").await);
}

/// W2.9, I.1: `PING` is answered by `PONG` with the server's time.
#[tokio::test]
async fn ping_is_answered_by_pong() {
    let node = Setup::shards(1).start().await;
    let mut driver = node.driver("d1").await;
    let mut last = number(&driver.welcome, "server_time_ms");
    for _ in 0..3 {
        driver.send(&json!({"type": "PING"})).await;
        let pong = driver.expect("PONG").await;
        let now = number(&pong, "server_time_ms");
        assert!(now >= last, "time does not fall");
        last = now;
    }
}

/// W1.13: unknown fields are ignored.
#[tokio::test]
async fn unknown_fields_are_ignored() {
    let node = Setup::shards(1).start().await;
    let mut driver = node.driver("d1").await;
    driver
        .send(&json!({"type": "PING", "battery": 0.4, "nested": {"a": [1, {"type": "STATE"}]}}))
        .await;
    driver.expect("PONG").await;
    driver
        .send_text(r#"{"nested":{"type":"ACCEPT"},"x":null,"type":"PING"}"#)
        .await;
    driver.expect("PONG").await;
}

/// W1.14, W2.10: an unknown type gets `ERROR` `unknown_type` and the connection lives.
#[tokio::test]
async fn unknown_types_are_errors() {
    let node = Setup::shards(1).start().await;
    let mut driver = node.driver("d1").await;
    for kind in ["HELLO", "ping", "OFFER", "WELCOME", "CONFIRMED", ""] {
        driver.send(&json!({"type": kind})).await;
        driver.expect_error("unknown_type").await;
    }
    driver.fence().await;
}

/// W1.14, W2.10: bad JSON and fields out of range get `ERROR` `invalid` and the connection lives.
#[tokio::test]
async fn invalid_messages_are_errors() {
    let node = Setup::shards(1).start().await;
    let mut driver = node.driver("d1").await;
    let long_id = format!(r#"{{"type":"ACCEPT","request_id":"{}","attempt":1}}"#, "x".repeat(65));
    let deep = "[".repeat(16 << 10);
    let deep_field = format!(r#"{{"type":"PING","x":{}"#, "[".repeat(16_000));
    let table = [
        "",
        " ",
        "PING",
        "null",
        "7",
        r#""PING""#,
        "[]",
        r#"[{"type":"PING"}]"#,
        r#"{"type":"PING""#,
        r#"{"type":"PING"} x"#,
        r#"{"type":"PING"}{"type":"PING"}"#,
        r"{'type':'PING'}",
        r#"{"type":"PING",}"#,
        deep.as_str(),
        deep_field.as_str(),
        r#"{"type":"ACCEPT"}"#,
        r#"{"type":"ACCEPT","request_id":"r1"}"#,
        r#"{"type":"ACCEPT","attempt":1}"#,
        r#"{"type":"ACCEPT","request_id":"","attempt":1}"#,
        r#"{"type":"ACCEPT","request_id":"a b","attempt":1}"#,
        r#"{"type":"ACCEPT","request_id":7,"attempt":1}"#,
        long_id.as_str(),
        r#"{"type":"ACCEPT","request_id":"r1","attempt":"1"}"#,
        r#"{"type":"ACCEPT","request_id":"r1","attempt":-1}"#,
        r#"{"type":"ACCEPT","request_id":"r1","attempt":1.5}"#,
        r#"{"type":"DECLINE","request_id":"r1"}"#,
        r#"{"type":"DECLINE","request_id":"r1","attempt":1,"reason":7}"#,
        r#"{"type":"ACK","request_id":"r1"}"#,
        r#"{"type":"STATE"}"#,
        r#"{"type":"STATE","state":"busy"}"#,
        r#"{"type":"STATE","state":"offered"}"#,
        r#"{"type":"STATE","state":"on_trip"}"#,
        r#"{"type":"STATE","state":7}"#,
        r#"{"type":"TRIP","trip_id":"t1"}"#,
        r#"{"type":"TRIP","event":"pickup"}"#,
        r#"{"type":"TRIP","trip_id":"t1","event":"fly"}"#,
        r#"{"type":"TRIP","trip_id":"a b","event":"pickup"}"#,
        r#"{"type":"LOCATION","lat":40.7}"#,
        r#"{"type":"LOCATION","lon":40.7}"#,
        r#"{"type":"LOCATION","lat":90.1,"lon":0}"#,
        r#"{"type":"LOCATION","lat":-90.1,"lon":0}"#,
        r#"{"type":"LOCATION","lat":0,"lon":180.1}"#,
        r#"{"type":"LOCATION","lat":0,"lon":-180.1}"#,
        r#"{"type":"LOCATION","lat":1e999,"lon":0}"#,
        r#"{"type":"LOCATION","lat":"40.7","lon":"-74"}"#,
        r#"{"type":"LOCATION","lat":40.7,"lon":-74,"speed":"fast"}"#,
    ];
    for message in table {
        driver.send_text(message).await;
        let error = driver.expect("ERROR").await;
        assert_eq!(error["code"], "invalid", "{message:.80} got {error}");
        assert!(error["message"].is_string(), "{error}");
    }
    // Neither of the two codes is wrong here.
    for message in ["{}", r#"{"type":7}"#, r#"{"type":null}"#] {
        driver.send_text(message).await;
        let error = driver.expect("ERROR").await;
        let code = error["code"].as_str().unwrap();
        assert!(["invalid", "unknown_type"].contains(&code), "{message} got {error}");
    }
    assert_eq!(node.driver_view("d1").await["state"], "available");
    driver.fence().await;
}

/// W3.9, H8.1: `LOCATION` is shown by the driver's view, the corners of the world included; nothing is answered.
async fn location_is_kept(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    assert!(node.driver_view("d1").await["location"].is_null());
    for (lat, lon) in [(40.7128, -74.006), (90.0, 180.0), (-90.0, -180.0), (0.0, 0.0)] {
        driver.send(&json!({"type": "LOCATION", "lat": lat, "lon": lon})).await;
        driver.fence().await;
        let view = node.driver_view("d1").await;
        assert_eq!(view["location"]["lat"].as_f64(), Some(lat), "{view}");
        assert_eq!(view["location"]["lon"].as_f64(), Some(lon), "{view}");
    }
    driver
        .send(&json!({"type": "LOCATION", "lat": 1.5, "lon": 2, "heading": 270.0, "speed": 12.5}))
        .await;
    driver.fence().await;
    let view = node.driver_view("d1").await;
    assert_eq!(view["location"]["heading"].as_f64(), Some(270.0), "{view}");
    assert_eq!(view["location"]["speed"].as_f64(), Some(12.5), "{view}");
}

/// W1.15: all that the server says are text frames with one JSON object each, and they come without having been asked
/// for in order: a ping frame in between does not disturb.
#[tokio::test]
async fn ping_frames_and_messages_mix() {
    let node = Setup::shards(1).start().await;
    let mut driver = node.driver("d1").await;
    driver.send_frame(Message::Ping(vec![1, 2, 3].into())).await;
    driver.send_text(r#"{"type":"PING"}"#).await;
    match driver.receive().await {
        crate::support::driver::Received::Pong(payload) => assert_eq!(payload, [1, 2, 3]),
        other => panic!("{other:?}"),
    }
    driver.expect("PONG").await;
}

shards_1_and_4!(welcome_says_who_and_how, session_grows, location_is_kept);
