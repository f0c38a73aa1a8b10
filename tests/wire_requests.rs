//! Bodies that callers of the API send.

use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::types::{OfferRequest, Priority};
use dispatchd::wire::api;
use dispatchd::wire::driver::{self, Offer};
use dispatchd::wire::limits::MESSAGE_LEN_MAX;
use dispatchd::wire::respond::Problem;
use serde_json::{Value, json};

fn driver(text: &str) -> DriverId {
    DriverId::parse(text).unwrap()
}

fn request() -> RequestId {
    RequestId::parse("r:1").unwrap()
}

fn check_fails<T: std::fmt::Debug>(result: Result<T, Problem>, status: u16, word: &str, shown: &str) {
    let problem = result.expect_err(shown);
    assert_eq!(problem.status, status, "{shown}: {problem:?}");
    assert_eq!(
        problem.code,
        if status == 413 { "too_large" } else { "invalid" },
        "{shown}"
    );
    assert!(
        problem.detail.contains(word),
        "{shown}: {:?} names no {word:?}",
        problem.detail
    );
}

/// An offer's body with these members instead of, or beside, the usual ones; `null` takes one away.
fn offer_body(changes: &Value) -> String {
    let mut body = json!({"request_id": "r:1", "driver_id": "d1", "trip": {}});
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string()
}

#[test]
fn offers() {
    let least = OfferRequest {
        request_id: request(),
        candidates: vec![driver("d1")],
        priority: Priority::Standard,
        offer_timeout_ms: None,
        deadline_ms: None,
        max_attempts: None,
        parallel: None,
        busy_wait_ms: None,
        trip: "{}".into(),
    };
    let check = |changes: Value, expect: &OfferRequest| {
        let body = offer_body(&changes);
        assert_eq!(api::parse_offer(body.as_bytes()).as_ref(), Ok(expect), "{body}");
    };
    check(json!({}), &least);
    check(
        json!({"unknown": [1, {"request_id": 2}], "priority": null, "candidates": null}),
        &least,
    );
    check(json!({"priority": "standard"}), &least);
    check(json!({"driver_id": null, "candidates": ["d1", "d1", "d1"]}), &least);
    let most = OfferRequest {
        candidates: vec![driver("b"), driver("a"), driver("c")],
        priority: Priority::Economy,
        offer_timeout_ms: Some(600_000),
        deadline_ms: Some(86_400_000),
        max_attempts: Some(u32::MAX),
        parallel: Some(10),
        busy_wait_ms: Some(60_000),
        ..least.clone()
    };
    let changes = json!({
        "driver_id": null, "candidates": ["b", "a", "b", "c", "a"], "priority": "economy", "offer_timeout_ms": 600_000,
        "deadline_ms": 86_400_000, "max_attempts": 4_294_967_295_u32, "parallel": 10, "busy_wait_ms": 60_000,
    });
    check(changes, &most);
    let many: Vec<String> = (0..64).map(|index| format!("d{index}")).collect();
    let parsed = api::parse_offer(offer_body(&json!({"driver_id": null, "candidates": many})).as_bytes()).unwrap();
    assert_eq!(parsed.candidates.len(), 64);
}

#[test]
fn offers_out_of_range() {
    let many: Vec<String> = (0..65).map(|index| format!("d{index}")).collect();
    for (changes, word) in [
        (json!({"request_id": null}), "request_id"),
        (json!({"request_id": ""}), "request_id"),
        (json!({"request_id": "a b"}), "request_id"),
        (json!({"request_id": "x".repeat(65)}), "request_id"),
        (json!({"request_id": 7}), "request_id"),
        (json!({"driver_id": null}), "candidates"),
        (json!({"driver_id": "a/b"}), "driver_id"),
        (json!({"driver_id": ["d1"]}), "driver_id"),
        (json!({"candidates": ["d2"]}), "exactly one"),
        (json!({"driver_id": null, "candidates": []}), "candidates"),
        (json!({"driver_id": null, "candidates": "d1"}), "candidates"),
        (json!({"driver_id": null, "candidates": {"0": "d1"}}), "candidates"),
        (json!({"driver_id": null, "candidates": ["ok", ""]}), "candidates[1]"),
        (json!({"driver_id": null, "candidates": ["ok", 1]}), "candidates[1]"),
        (json!({"driver_id": null, "candidates": many}), "candidates"),
        (json!({"priority": "Premium"}), "priority"),
        (json!({"priority": 1}), "priority"),
        (json!({"offer_timeout_ms": 0}), "offer_timeout_ms"),
        (json!({"offer_timeout_ms": 600_001}), "offer_timeout_ms"),
        (json!({"offer_timeout_ms": -1}), "offer_timeout_ms"),
        (json!({"offer_timeout_ms": 1.5}), "offer_timeout_ms"),
        (json!({"offer_timeout_ms": "8000"}), "offer_timeout_ms"),
        (json!({"offer_timeout_ms": true}), "offer_timeout_ms"),
        (json!({"deadline_ms": 0}), "deadline_ms"),
        (json!({"deadline_ms": 86_400_001}), "deadline_ms"),
        (json!({"max_attempts": 0}), "max_attempts"),
        (json!({"max_attempts": 4_294_967_296_u64}), "max_attempts"),
        (json!({"parallel": 0}), "parallel"),
        (json!({"parallel": 11}), "parallel"),
        (json!({"parallel": 257}), "parallel"),
        (json!({"busy_wait_ms": 60_001}), "busy_wait_ms"),
        (json!({"trip": null}), "trip"),
        (json!({"trip": []}), "trip"),
        (json!({"trip": "x"}), "trip"),
        (json!({"trip": 1}), "trip"),
    ] {
        let body = offer_body(&changes);
        check_fails(api::parse_offer(body.as_bytes()), 400, word, &body);
    }
    for body in [
        r#"{"request_id":"r","request_id":"r","driver_id":"d","trip":{}}"#,
        r#"{"request_id":"r","\u0072equest_id":"r","driver_id":"d","trip":{}}"#,
    ] {
        check_fails(api::parse_offer(body.as_bytes()), 400, "request_id", body);
    }
}

#[test]
fn texts_that_are_no_object() {
    for body in [
        &b""[..],
        b" ",
        b"null",
        b"[]",
        b"\"x\"",
        b"1",
        b"{",
        b"{}x",
        b"{} {}",
        b"{'a':1}",
        b"{\"a\":}",
        b"{\"a\":1,}",
        b"{\"a\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"[\"r\",\"d\",null,null,null,null,null,null,null,{}]",
        b"{\"a\":\"\n\"}",
        b"{\"a\":01}",
        b"{\"a\":NaN}",
        b"{\"trip\":{\"a\":\"\xc3\x28\"}}",
    ] {
        let shown = String::from_utf8_lossy(body);
        check_fails(api::parse_offer(body), 400, "", &shown);
        check_fails(api::parse_response(body), 400, "", &shown);
        check_fails(api::parse_cancel(body), 400, "", &shown);
        check_fails(api::parse_events_ack(body), 400, "", &shown);
        if !body.trim_ascii().is_empty() {
            check_fails(api::parse_trip_cancel(body), 400, "", &shown);
        }
    }
    let deep = format!(
        r#"{{"request_id":"r","driver_id":"d","trip":{{"a":{}{}}}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    assert!(api::parse_offer(deep.as_bytes()).is_ok(), "depth costs no stack");
}

#[test]
fn a_trip_stays_as_it_was_written() {
    let odd =
        "{ \"a\" : 1.10e+1,\t\"b\":\"\\u00e9\\/\u{e9}\\ud83d\", \"b\":[ ],\n \"n\":123456789012345678901234567890 }";
    let body = format!("{{\"driver_id\":\"d1\",\"trip\": {odd} ,\"request_id\":\"r:1\"}}");
    let parsed = api::parse_offer(body.as_bytes()).unwrap();
    assert_eq!(&*parsed.trip, odd);
    let mut out = Vec::new();
    let offer = Offer {
        request_id: &parsed.request_id,
        attempt: 1,
        priority: Priority::Premium,
        expires_at_ms: 2,
        ttl_ms: 3,
        trip: &parsed.trip,
    };
    driver::offer(&mut out, &offer);
    assert!(String::from_utf8(out).unwrap().ends_with(&format!("\"trip\":{odd}}}")));
}

#[test]
fn the_largest_trip_fits_a_frame() {
    let body = |pad: usize| {
        format!(
            r#"{{"request_id":"r:1","driver_id":"d","trip":{{"p":"{}"}}}}"#,
            "x".repeat(pad)
        )
    };
    let room = MESSAGE_LEN_MAX - driver::offer_len_max(&request(), Priority::Standard, r#"{"p":""}"#);
    let parsed = api::parse_offer(body(room).as_bytes()).unwrap();
    check_fails(
        api::parse_offer(body(room + 1).as_bytes()),
        413,
        "trip",
        "one byte more",
    );
    let mut out = Vec::new();
    let offer = Offer {
        request_id: &parsed.request_id,
        attempt: u32::MAX,
        priority: parsed.priority,
        expires_at_ms: u64::MAX,
        ttl_ms: u32::MAX,
        trip: &parsed.trip,
    };
    driver::offer(&mut out, &offer);
    assert_eq!(out.len(), MESSAGE_LEN_MAX);
}

#[test]
fn responses() {
    let response = |text: &str| api::parse_response(text.as_bytes());
    let parsed =
        response(r#"{"driver_id":"d1","request_id":"r:1","response_type":"ACCEPT","attempt":3,"x":null}"#).unwrap();
    assert_eq!((parsed.driver_id, parsed.request_id), (driver("d1"), request()));
    assert_eq!((parsed.accept, parsed.attempt), (true, Some(3)));
    let parsed = response(r#"{"driver_id":"d1","request_id":"r:1","response_type":"DECLINE"}"#).unwrap();
    assert_eq!((parsed.accept, parsed.attempt), (false, None));
    for (body, word) in [
        (r#"{"request_id":"r","response_type":"ACCEPT"}"#, "driver_id"),
        (r#"{"driver_id":"d","response_type":"ACCEPT"}"#, "request_id"),
        (r#"{"driver_id":"d","request_id":"r"}"#, "response_type"),
        (
            r#"{"driver_id":"d","request_id":"r","response_type":"accept"}"#,
            "response_type",
        ),
        (
            r#"{"driver_id":"d","request_id":"r","response_type":1}"#,
            "response_type",
        ),
        (
            r#"{"driver_id":"d","request_id":"r","response_type":"ACCEPT","attempt":0}"#,
            "attempt",
        ),
        (
            r#"{"driver_id":"d","request_id":"r","response_type":"ACCEPT","attempt":"1"}"#,
            "attempt",
        ),
    ] {
        check_fails(response(body), 400, word, body);
    }
}

#[test]
fn cancels() {
    let cancel = |text: &str| api::parse_cancel(text.as_bytes());
    assert_eq!(cancel(r#"{"request_id":"r:1"}"#).unwrap().reason, None);
    assert_eq!(
        cancel(r#"{"request_id":"r:1","reason":"a\n\"b\""}"#)
            .unwrap()
            .reason
            .as_deref(),
        Some("a\n\"b\"")
    );
    check_fails(cancel(r#"{"reason":"x"}"#), 400, "request_id", "cancel");
    check_fails(cancel(r#"{"request_id":"r","reason":5}"#), 400, "reason", "cancel");
    check_fails(
        cancel(r#"{"request_id":"r","reason":"\ud800"}"#),
        400,
        "reason",
        "cancel",
    );
    let long = |chars: usize| format!(r#"{{"request_id":"r","reason":"{}"}}"#, "\u{e9}".repeat(chars));
    assert!(cancel(&long(256)).is_ok());
    check_fails(cancel(&long(257)), 400, "reason", "cancel");

    let trip_cancel = |text: &str| api::parse_trip_cancel(text.as_bytes());
    assert_eq!(trip_cancel(""), Ok(None));
    assert_eq!(trip_cancel(" \r\n"), Ok(None));
    assert_eq!(trip_cancel("{}"), Ok(None));
    assert_eq!(trip_cancel(r#"{"reason":null}"#), Ok(None));
    assert_eq!(trip_cancel(r#"{"reason":"x"}"#), Ok(Some("x".into())));
}

#[test]
fn acknowledgements() {
    let ack = |text: &str| api::parse_events_ack(text.as_bytes()).map(|ack| (ack.consumer.to_string(), ack.cursor));
    assert_eq!(
        ack(r#"{"consumer":"a:b","cursor":18446744073709551615}"#),
        Ok(("a:b".to_owned(), u64::MAX))
    );
    assert_eq!(ack(r#"{"cursor":"007","consumer":"a"}"#), Ok(("a".to_owned(), 7)));
    for (body, word) in [
        (r#"{"cursor":1}"#, "consumer"),
        (r#"{"consumer":"","cursor":1}"#, "consumer"),
        (r#"{"consumer":"a b","cursor":1}"#, "consumer"),
        (r#"{"consumer":"a"}"#, "cursor"),
        (r#"{"consumer":"a","cursor":-1}"#, "cursor"),
        (r#"{"consumer":"a","cursor":1.0}"#, "cursor"),
        (r#"{"consumer":"a","cursor":"x"}"#, "cursor"),
        (r#"{"consumer":"a","cursor":""}"#, "cursor"),
        (r#"{"consumer":"a","cursor":18446744073709551616}"#, "cursor"),
    ] {
        check_fails(api::parse_events_ack(body.as_bytes()), 400, word, body);
    }
}

/// Of a body that is no offer, whatever else it says.
#[test]
fn the_id_of_a_bad_offer() {
    let r1 = RequestId::parse("r1").ok();
    for (body, id) in [
        (r#"{"request_id":"r1"}"#, &r1),
        (
            r#" {"trip":7,"candidates":{},"request_id":"r\u0031","priority":[]} "#,
            &r1,
        ),
        (r#"{"request_id":"r1","priority":"gold","priority":"gold"}"#, &r1),
        (r#"{"request_id":"r1","request_id":"r1"}"#, &None),
        (r#"{"request_id":"r 1"}"#, &None),
        (r#"{"request_id":1}"#, &None),
        (r#"{"request_id":null}"#, &None),
        (r#"{"id":"r1"}"#, &None),
        (r#"{"request_id":"r1""#, &None),
        (r#"["r1"]"#, &None),
        ("r1", &None),
        ("", &None),
    ] {
        assert!(api::parse_offer(body.as_bytes()).is_err());
        assert_eq!(&api::offer_id(body.as_bytes()), id, "{body}");
    }
    assert_eq!(api::offer_id(b"{\"request_id\":\"r1\xff\"}"), None);
}
