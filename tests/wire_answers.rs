//! Bodies of the API's answers, read back.

use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{
    Channel, DriverState, LogEntry, Priority, Published, PublishedKind, RecordRow, RefuseReason, RequestLog,
    RequestState, ResponseType, RevokeReason, Step, TripOutcome,
};
use dispatchd::wire::api::{self, DriverView, OfferView, RequestView, ResponseOutcome};
use dispatchd::wire::driver::Location;
use dispatchd::wire::respond::Reply;
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

fn check_reply(reply: &Reply, status: u16, expect: &Value) {
    assert_eq!((reply.status, reply.content_type), (status, "application/json"));
    assert_eq!(&serde_json::from_slice::<Value>(&reply.body).unwrap(), expect);
}

#[test]
fn answers() {
    let (id, request, trip) = (driver("d1"), request(), trip());
    check_reply(
        &api::offer(&request, RequestState::OfferSent, 1, Some(&id), false),
        202,
        &json!({"request_id": "r:1", "state": "OFFER_SENT", "attempt": 1, "driver_id": "d1", "duplicate": false}),
    );
    check_reply(
        &api::offer(&request, RequestState::PendingMatch, 0, None, true),
        200,
        &json!({"request_id": "r:1", "state": "PENDING_MATCH", "attempt": 0, "driver_id": null, "duplicate": true}),
    );
    check_reply(
        &api::response(&request, ResponseOutcome::Confirmed, Some(&trip)),
        200,
        &json!({"request_id": "r:1", "outcome": "CONFIRMED", "trip_id": "t-1"}),
    );
    for (outcome, name) in [
        (ResponseOutcome::Declined, "DECLINED"),
        (ResponseOutcome::TooLate, "TOO_LATE"),
    ] {
        check_reply(
            &api::response(&request, outcome, None),
            200,
            &json!({"request_id": "r:1", "outcome": name}),
        );
    }
    check_reply(
        &api::cancelled(&request),
        200,
        &json!({"request_id": "r:1", "state": "CANCELLED"}),
    );
    check_reply(
        &api::trip_cancelled(&trip, &request),
        200,
        &json!({"trip_id": "t-1", "request_id": "r:1", "outcome": "cancelled"}),
    );
    check_reply(
        &api::events_acked("engine", 7),
        200,
        &json!({"consumer": "engine", "cursor": 7}),
    );
}

#[test]
fn request_views() {
    let (id, other, request, trip) = (driver("d1"), driver("d2"), request(), trip());
    let mut view = RequestView {
        request_id: &request,
        state: RequestState::Accepted,
        attempt: 2,
        driver_id: Some(&id),
        excluded: vec![&other, &id],
        trip_id: Some(&trip),
        priority: Priority::Premium,
        deadline_at_ms: 9,
    };
    check_reply(
        &api::request_view(&view),
        200,
        &json!({
            "request_id": "r:1", "state": "ACCEPTED", "attempt": 2, "driver_id": "d1", "excluded": ["d2", "d1"],
            "trip_id": "t-1", "priority": "premium", "deadline_at_ms": 9,
        }),
    );
    (view.driver_id, view.trip_id, view.excluded, view.attempt) = (None, None, Vec::new(), 0);
    view.state = RequestState::PendingMatch;
    check_reply(
        &api::request_view(&view),
        200,
        &json!({
            "request_id": "r:1", "state": "PENDING_MATCH", "attempt": 0, "driver_id": null, "excluded": [],
            "priority": "premium", "deadline_at_ms": 9,
        }),
    );
}

#[test]
fn driver_views() {
    let (id, request, trip) = (driver("d1"), request(), trip());
    let mut view = DriverView {
        driver_id: &id,
        state: DriverState::Offered,
        trip_id: Some(&trip),
        offer: Some(OfferView {
            request_id: &request,
            attempt: 4,
            expires_at_ms: 5,
        }),
        location: Some(Location {
            lat: 40.7128,
            lon: -74.006,
            heading: Some(0.1),
            speed: Some(13.0),
        }),
        last_seen_ms: 6,
        node: "node \"1\"",
    };
    let reply = api::driver_view(&view);
    check_reply(
        &reply,
        200,
        &json!({
            "driver_id": "d1", "state": "offered", "trip_id": "t-1",
            "offer": {"request_id": "r:1", "attempt": 4, "expires_at_ms": 5},
            "location": {"lat": 40.7128, "lon": -74.006, "heading": 0.1, "speed": 13.0},
            "last_seen_ms": 6, "node": "node \"1\"",
        }),
    );
    view.location = Some(Location {
        lat: 1.0,
        lon: 2.5,
        heading: None,
        speed: None,
    });
    (view.trip_id, view.offer) = (None, None);
    check_reply(
        &api::driver_view(&view),
        200,
        &json!({
            "driver_id": "d1", "state": "offered", "location": {"lat": 1.0, "lon": 2.5}, "last_seen_ms": 6,
            "node": "node \"1\"",
        }),
    );
}

#[test]
fn record_pages() {
    let row = |attempt, trip_id: Option<TripId>, response_type| RecordRow {
        driver_id: driver("d1"),
        offer_sent_at_ms: 1,
        request_id: request(),
        attempt,
        trip_id,
        response_type,
        response_at_ms: 2,
    };
    let rows = [
        row(2, Some(trip()), ResponseType::Accepted),
        row(1, None, ResponseType::Timeout),
    ];
    let day = jiff::civil::date(2026, 3, 9);
    let expect = json!({
        "driver_id": "d1", "date": "2026-03-09",
        "records": [
            {"request_id": "r:1", "trip_id": "t-1", "attempt": 2, "offer_sent_at_ms": 1, "response_type": "ACCEPTED",
             "response_at_ms": 2, "gateway_node_id": "n1"},
            {"request_id": "r:1", "trip_id": null, "attempt": 1, "offer_sent_at_ms": 1, "response_type": "TIMEOUT",
             "response_at_ms": 2, "gateway_node_id": "n1"},
        ],
        "next_before": "abc",
    });
    check_reply(
        &api::records(&driver("d1"), day, rows.iter().map(|row| (row, "n1")), Some("abc")),
        200,
        &expect,
    );
    check_reply(
        &api::records(&driver("d1"), day, [], None),
        200,
        &json!({"driver_id": "d1", "date": "2026-03-09", "records": []}),
    );
}

#[test]
fn event_lines() {
    let published = |kind| Published {
        request_id: request(),
        at_ms: 5,
        kind,
    };
    let excluded = vec![driver("a"), driver("b")];
    let events = [
        published(PublishedKind::RedispatchRequested {
            excluded: excluded.clone(),
            attempts: 2,
            trip: "{\r\n \"a\":\n\"\\n\"\r}".into(),
        }),
        published(PublishedKind::RequestUnfulfilled {
            excluded,
            attempts: 2,
            by_deadline: true,
        }),
        published(PublishedKind::RequestCancelled {
            reason: Some("x\ny".into()),
        }),
        published(PublishedKind::RequestCancelled { reason: None }),
        published(PublishedKind::TripCreated {
            trip_id: trip(),
            driver_id: driver("a"),
            trip: "{}".into(),
        }),
        published(PublishedKind::TripPickedUp {
            trip_id: trip(),
            driver_id: driver("a"),
        }),
        published(PublishedKind::TripEnded {
            trip_id: trip(),
            driver_id: driver("a"),
            outcome: TripOutcome::CancelledByDriver,
        }),
    ];
    let reply = api::events((10_u64..).zip(&events));
    assert_eq!((reply.status, reply.content_type), (200, "application/x-ndjson"));
    assert!(reply.body.ends_with(b"}\n"));
    let lines: Vec<Value> = reply.body[..reply.body.len() - 1]
        .split(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let expect = json!([
        {"cursor": 10, "type": "REDISPATCH_REQUESTED", "request_id": "r:1", "at_ms": 5, "excluded": ["a", "b"],
         "attempts": 2, "trip": {"a": "\n"}},
        {"cursor": 11, "type": "REQUEST_UNFULFILLED", "request_id": "r:1", "at_ms": 5, "excluded": ["a", "b"],
         "attempts": 2, "reason": "deadline"},
        {"cursor": 12, "type": "REQUEST_CANCELLED", "request_id": "r:1", "at_ms": 5, "reason": "x\ny"},
        {"cursor": 13, "type": "REQUEST_CANCELLED", "request_id": "r:1", "at_ms": 5},
        {"cursor": 14, "type": "TRIP_CREATED", "request_id": "r:1", "at_ms": 5, "trip_id": "t-1", "driver_id": "a",
         "trip": {}},
        {"cursor": 15, "type": "TRIP_PICKED_UP", "request_id": "r:1", "at_ms": 5, "trip_id": "t-1", "driver_id": "a"},
        {"cursor": 16, "type": "TRIP_ENDED", "request_id": "r:1", "at_ms": 5, "trip_id": "t-1", "driver_id": "a",
         "outcome": "cancelled_by_driver"},
    ]);
    assert_eq!(Value::Array(lines), expect);
    assert!(api::events([]).body.is_empty());
}

/// A log with every step there is.
fn full_log() -> RequestLog {
    let steps = first_steps().into_iter().chain(last_steps());
    let log = steps.enumerate().map(|(index, step)| LogEntry {
        at_ms: index as u64,
        step,
    });
    RequestLog {
        request_id: request(),
        log: log.collect(),
    }
}

fn first_steps() -> Vec<Step> {
    vec![
        Step::Received {
            priority: Priority::Premium,
            deadline_at_ms: 99,
            offer_timeout_ms: 8000,
            max_attempts: Some(5),
            parallel: 2,
            busy_wait_ms: 0,
            candidates: vec![driver("a"), driver("b"), driver("c")],
            trip: "{}".into(),
        },
        Step::OfferSent {
            attempt: 1,
            driver_id: driver("a"),
            expires_at_ms: 50,
        },
        Step::OfferSent {
            attempt: 2,
            driver_id: driver("b"),
            expires_at_ms: 50,
        },
        Step::Delivered { attempt: 1 },
        Step::Acked { attempt: 1 },
        Step::Declined {
            attempt: 1,
            channel: Channel::Http,
            reason: Some("far \"away\"".into()),
        },
        Step::TimedOut { attempt: 2 },
        Step::Refused {
            attempt: 3,
            driver_id: driver("c"),
            reason: RefuseReason::OnTrip,
        },
        Step::Exhausted,
    ]
}

fn last_steps() -> Vec<Step> {
    vec![
        Step::Redispatched {
            candidates: vec![driver("d"), driver("e")],
            offer_timeout_ms: None,
            parallel: Some(1),
            busy_wait_ms: None,
        },
        Step::OfferSent {
            attempt: 4,
            driver_id: driver("d"),
            expires_at_ms: 60,
        },
        Step::OfferSent {
            attempt: 5,
            driver_id: driver("e"),
            expires_at_ms: 60,
        },
        Step::Accepted {
            attempt: 4,
            channel: Channel::WebSocket,
        },
        Step::Revoked {
            attempt: 5,
            reason: RevokeReason::Taken,
        },
        Step::TripCreated {
            trip_id: trip(),
            driver_id: driver("d"),
        },
        Step::PickedUp,
        Step::TripEnded {
            outcome: TripOutcome::Cancelled,
            reason: Some("why".into()),
        },
        Step::Cancelled { reason: None },
        Step::Unfulfilled { by_deadline: false },
    ]
}

#[test]
fn audits() {
    let reply = api::audit(&full_log(), RequestState::Accepted, &[(0, "n\"1".into())]);
    let asked = json!({
        "priority": "premium", "deadline_at_ms": 99, "max_attempts": 5, "candidates": ["a", "b", "c"],
        "offer_timeout_ms": 8000, "parallel": 2, "busy_wait_ms": 0,
    });
    let redispatched = json!({"candidates": ["d", "e"], "parallel": 1});
    let mut events = json!([
        {"event": "REQUEST_RECEIVED", "detail": asked},
        {"event": "OFFER_SENT", "attempt": 1, "driver_id": "a", "channel": "websocket", "detail": {"expires_at_ms": 50}},
        {"event": "OFFER_SENT", "attempt": 2, "driver_id": "b", "channel": "websocket", "detail": {"expires_at_ms": 50}},
        {"event": "OFFER_DELIVERED", "attempt": 1, "driver_id": "a", "channel": "websocket"},
        {"event": "OFFER_ACKED", "attempt": 1, "driver_id": "a", "channel": "websocket"},
        {"event": "OFFER_DECLINED", "attempt": 1, "driver_id": "a", "channel": "http",
         "detail": {"reason": "far \"away\""}},
        {"event": "OFFER_TIMED_OUT", "attempt": 2, "driver_id": "b"},
        {"event": "OFFER_REFUSED", "attempt": 3, "driver_id": "c", "detail": {"reason": "on_trip"}},
        {"event": "CANDIDATES_EXHAUSTED"},
        {"event": "REDISPATCHED", "detail": redispatched},
        {"event": "OFFER_SENT", "attempt": 4, "driver_id": "d", "channel": "websocket", "detail": {"expires_at_ms": 60}},
        {"event": "OFFER_SENT", "attempt": 5, "driver_id": "e", "channel": "websocket", "detail": {"expires_at_ms": 60}},
        {"event": "OFFER_ACCEPTED", "attempt": 4, "driver_id": "d", "channel": "websocket"},
        {"event": "OFFER_REVOKED", "attempt": 5, "driver_id": "e", "detail": {"reason": "taken"}},
        {"event": "TRIP_CREATED", "attempt": 4, "driver_id": "d", "detail": {"trip_id": "t-1"}},
        {"event": "TRIP_PICKED_UP", "attempt": 4, "driver_id": "d", "detail": {"trip_id": "t-1"}},
        {"event": "TRIP_ENDED", "attempt": 4, "driver_id": "d",
         "detail": {"trip_id": "t-1", "outcome": "cancelled", "reason": "why"}},
        {"event": "REQUEST_CANCELLED"},
        {"event": "REQUEST_UNFULFILLED", "detail": {"reason": "attempts"}},
    ]);
    for (index, event) in events.as_array_mut().unwrap().iter_mut().enumerate() {
        event["seq"] = json!(index + 1);
        event["at_ms"] = json!(index);
        event["node"] = json!("n\"1");
    }
    check_reply(
        &reply,
        200,
        &json!({"request_id": "r:1", "state": "ACCEPTED", "events": events}),
    );
}
