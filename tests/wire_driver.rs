//! Messages on a driver's socket, in and out.

use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{DriverState, Priority, RevokeReason};
use dispatchd::wire::driver::{
    self, DriverMessage, ErrorCode, Location, Offer, TripEvent, Welcome, parse_driver_message,
};
use serde_json::{Value, json};

fn driver(text: &str) -> DriverId {
    DriverId::parse(text).unwrap()
}

fn request() -> RequestId {
    RequestId::parse("r:1").unwrap()
}

fn trip() -> TripId {
    TripId::parse("t-1").unwrap()
}

#[test]
fn driver_messages() {
    let check = |text: &str, expect: DriverMessage| assert_eq!(parse_driver_message(text), Ok(expect), "{text}");
    let location = |lat, lon, heading, speed| {
        DriverMessage::Location(Location {
            lat,
            lon,
            heading,
            speed,
        })
    };
    check(r#"{"type":"PING"}"#, DriverMessage::Ping);
    check(r#"{"type": "PING"}"#, DriverMessage::Ping);
    check(
        r#" { "x":1, "type" : "PI\u004eG", "state":5, "lat":"north" } "#,
        DriverMessage::Ping,
    );
    let ack = DriverMessage::Ack {
        request_id: request(),
        attempt: 2,
    };
    check(r#"{"type":"ACK","request_id":"r:1","attempt":2}"#, ack.clone());
    check(r#"{"attempt":2,"reason":7,"request_id":"r\u003a1","type":"ACK"}"#, ack);
    check(
        r#"{"type":"ACCEPT","request_id":"r:1","attempt":4294967295,"reason":null}"#,
        DriverMessage::Accept {
            request_id: request(),
            attempt: u32::MAX,
            reason: None,
        },
    );
    check(
        r#"{"type":"DECLINE","request_id":"r:1","attempt":1,"reason":"too far"}"#,
        DriverMessage::Decline {
            request_id: request(),
            attempt: 1,
            reason: Some("too far".into()),
        },
    );
    check(
        r#"{"type":"STATE","state":"available"}"#,
        DriverMessage::State { available: true },
    );
    check(
        r#"{"type":"STATE","state":"offline"}"#,
        DriverMessage::State { available: false },
    );
    for (name, event) in [
        ("arrived", TripEvent::Arrived),
        ("pickup", TripEvent::Pickup),
        ("complete", TripEvent::Complete),
        ("cancel", TripEvent::Cancel),
    ] {
        let text = format!(r#"{{"type":"TRIP","trip_id":"t-1","event":"{name}"}}"#);
        check(&text, DriverMessage::Trip { trip_id: trip(), event });
    }
    check(
        r#"{"type":"LOCATION","lat":40.7128,"lon":-74}"#,
        location(40.7128, -74.0, None, None),
    );
    check(
        r#"{"type":"LOCATION","lat":-90,"lon":180.0,"heading":360,"speed":1.35e1}"#,
        location(-90.0, 180.0, Some(360.0), Some(13.5)),
    );
    check(
        r#"{"type":"LOCATION","lat":90,"lon":-180,"heading":0,"speed":0}"#,
        location(90.0, -180.0, Some(0.0), Some(0.0)),
    );
}

/// `word`: what the error must name.
fn check_fails(text: &str, code: ErrorCode, word: &str, request_id: Option<&RequestId>) {
    let error = parse_driver_message(text).expect_err(text);
    assert_eq!((error.code, error.request_id.as_ref()), (code, request_id), "{text}");
    assert!(
        error.message.contains(word),
        "{text}: {:?} names no {word:?}",
        error.message
    );
    let mut out = Vec::new();
    driver::message_error(&mut out, &error);
    let out: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!((&out["type"], &out["code"]), (&json!("ERROR"), &json!(code.as_str())));
    assert_eq!(out.get("request_id").is_some(), request_id.is_some());
}

fn invalid(text: &str, word: &str) {
    check_fails(text, ErrorCode::Invalid, word, None);
}

#[test]
fn driver_messages_out_of_range() {
    for text in [
        "",
        "PING",
        "null",
        "[]",
        "[\"PING\"]",
        "{",
        "{}x",
        "\"PING\"",
        "{\"type\":\"PING\"}{}",
    ] {
        invalid(text, "");
    }
    invalid("{}", "type");
    invalid(r#"{"type":7}"#, "type");
    invalid(r#"{"type":null}"#, "type");
    invalid(r#"{"type":"PING","type":"PING"}"#, "type");
    check_fails(r#"{"type":"ping"}"#, ErrorCode::UnknownType, "type", None);
    check_fails(
        r#"{"type":"","request_id":"r:1"}"#,
        ErrorCode::UnknownType,
        "type",
        Some(&request()),
    );
    check_fails(
        r#"{"type":"OFFER","request_id":"a b"}"#,
        ErrorCode::UnknownType,
        "type",
        None,
    );

    invalid(r#"{"type":"ACK","attempt":1}"#, "request_id");
    invalid(r#"{"type":"ACK","request_id":"","attempt":1}"#, "request_id");
    invalid(r#"{"type":"ACK","request_id":5,"attempt":1}"#, "request_id");
    for attempt in ["null", "0", "-1", "1.5", "1e0", "\"1\"", "4294967296", "[]", "true"] {
        let text = format!(r#"{{"type":"ACK","request_id":"r:1","attempt":{attempt}}}"#);
        check_fails(&text, ErrorCode::Invalid, "attempt", Some(&request()));
        let text = format!(r#"{{"type":"ACCEPT","request_id":"r:1","attempt":{attempt}}}"#);
        check_fails(&text, ErrorCode::Invalid, "attempt", Some(&request()));
    }
    for reason in ["5", "[\"x\"]", "\"\\udc00\"", &format!("\"{}\"", "x".repeat(257))] {
        let text = format!(r#"{{"type":"DECLINE","request_id":"r:1","attempt":1,"reason":{reason}}}"#);
        check_fails(&text, ErrorCode::Invalid, "reason", Some(&request()));
    }
}

#[test]
fn driver_messages_about_nothing_that_is() {
    invalid(r#"{"type":"STATE"}"#, "state");
    invalid(r#"{"type":"STATE","state":"offered"}"#, "state");
    invalid(r#"{"type":"STATE","state":true}"#, "state");
    invalid(r#"{"type":"TRIP","event":"pickup"}"#, "trip_id");
    invalid(r#"{"type":"TRIP","trip_id":"a b","event":"pickup"}"#, "trip_id");
    invalid(r#"{"type":"TRIP","trip_id":"t"}"#, "event");
    invalid(r#"{"type":"TRIP","trip_id":"t","event":"Pickup"}"#, "event");
    for (members, word) in [
        (r#""lon":1"#, "lat"),
        (r#""lat":1"#, "lon"),
        (r#""lat":90.0001,"lon":1"#, "lat"),
        (r#""lat":-91,"lon":1"#, "lat"),
        (r#""lat":1e999,"lon":1"#, "lat"),
        (r#""lat":"1","lon":1"#, "lat"),
        (r#""lat":true,"lon":1"#, "lat"),
        (r#""lat":1,"lon":180.1"#, "lon"),
        (r#""lat":1,"lon":-1e9"#, "lon"),
        (r#""lat":1,"lon":1,"heading":-1"#, "heading"),
        (r#""lat":1,"lon":1,"heading":360.5"#, "heading"),
        (r#""lat":1,"lon":1,"speed":-0.1"#, "speed"),
        (r#""lat":1,"lon":1,"speed":1e300"#, "speed"),
        (r#""lat":1,"lon":1,"speed":"fast""#, "speed"),
    ] {
        invalid(&format!(r#"{{"type":"LOCATION",{members}}}"#), word);
    }
}

fn check_written(write: &dyn Fn(&mut Vec<u8>), expect: &Value) {
    let mut out = Vec::new();
    write(&mut out);
    assert_eq!(&serde_json::from_slice::<Value>(&out).unwrap(), expect);
}

#[test]
fn server_messages() {
    let (id, request, trip) = (driver("d1"), request(), trip());
    let mut welcome = Welcome {
        driver_id: &id,
        session: 1 << 52,
        state: DriverState::EnRoute,
        trip_id: Some(&trip),
        heartbeat_ms: 30_000,
        server_time_ms: 1_700_000_000_000,
    };
    let mut expect = json!({
        "type": "WELCOME", "driver_id": "d1", "session": 1_u64 << 52, "state": "en_route_to_pickup", "trip_id": "t-1",
        "heartbeat_ms": 30_000, "server_time_ms": 1_700_000_000_000_u64,
    });
    check_written(&|out| driver::welcome(out, &welcome), &expect);
    welcome.trip_id = None;
    expect.as_object_mut().unwrap().remove("trip_id");
    check_written(&|out| driver::welcome(out, &welcome), &expect);
    let offer = Offer {
        request_id: &request,
        attempt: 2,
        priority: Priority::Economy,
        expires_at_ms: 1_700_000_000_000,
        ttl_ms: 8000,
        trip: r#"{"a":[1,{}]}"#,
    };
    check_written(
        &|out| driver::offer(out, &offer),
        &json!({
            "type": "OFFER", "request_id": "r:1", "attempt": 2, "priority": "economy",
            "expires_at_ms": 1_700_000_000_000_u64, "ttl_ms": 8000, "trip": {"a": [1, {}]},
        }),
    );
}

#[test]
fn server_messages_about_outcomes() {
    let (request, trip) = (request(), trip());
    check_written(
        &|out| driver::confirmed(out, &request, 3, &trip),
        &json!({"type": "CONFIRMED", "request_id": "r:1", "attempt": 3, "trip_id": "t-1"}),
    );
    check_written(
        &|out| driver::declined(out, &request, 3),
        &json!({"type": "DECLINED", "request_id": "r:1", "attempt": 3}),
    );
    for (reason, name) in [
        (RevokeReason::Timeout, "timeout"),
        (RevokeReason::Cancelled, "cancelled"),
        (RevokeReason::Taken, "taken"),
        (RevokeReason::Superseded, "superseded"),
    ] {
        let expect = json!({"type": "REVOKED", "request_id": "r:1", "attempt": 3, "reason": name});
        check_written(&|out| driver::revoked(out, &request, 3, reason), &expect);
    }
    check_written(
        &|out| driver::state(out, DriverState::Offline, None),
        &json!({"type": "STATE", "state": "offline"}),
    );
    check_written(
        &|out| driver::state(out, DriverState::OnTrip, Some(&trip)),
        &json!({"type": "STATE", "state": "on_trip", "trip_id": "t-1"}),
    );
    check_written(
        &|out| driver::trip_cancelled(out, &trip, &request, "\"\\\u{1}\u{e9}\n"),
        &json!({"type": "TRIP_CANCELLED", "trip_id": "t-1", "request_id": "r:1", "reason": "\"\\\u{1}\u{e9}\n"}),
    );
    check_written(
        &|out| driver::pong(out, 0),
        &json!({"type": "PONG", "server_time_ms": 0}),
    );
    check_written(
        &|out| driver::error(out, ErrorCode::NoSuchOffer, "a \"b\"", Some(&request)),
        &json!({"type": "ERROR", "code": "no_such_offer", "message": "a \"b\"", "request_id": "r:1"}),
    );
    check_written(
        &|out| driver::error(out, ErrorCode::NoSuchTrip, "", None),
        &json!({"type": "ERROR", "code": "no_such_trip", "message": ""}),
    );
}
