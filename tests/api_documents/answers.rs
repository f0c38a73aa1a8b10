//! Bodies: what the codecs write fits the document, and what the document shows the codecs read.

use crate::document::Document;
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{
    Channel, DriverState, LogEntry, Priority, Published, PublishedKind, RecordRow, RefuseReason, RequestLog,
    RequestState, ResponseType, RevokeReason, Step, TripOutcome,
};
use dispatchd::ops::health::Readiness;
use dispatchd::wire::api::{self, DriverView, OfferView, RequestView, ResponseOutcome};
use dispatchd::wire::driver::Location;
use dispatchd::wire::respond::{Problem, Reply};
use serde_json::Value;

const AT_MS: u64 = 1_772_755_200_000;

fn request() -> RequestId {
    RequestId::parse("req-1").unwrap()
}

fn driver() -> DriverId {
    DriverId::parse("driver-7").unwrap()
}

fn trip() -> TripId {
    TripId::for_request(&request(), AT_MS)
}

/// `reply` is one of the answers that the document gives for an operation.
fn check(document: &Document, path: &str, method: &str, reply: &Reply) {
    let response = format!("/paths/{}/{method}/responses/{}", path.replace('/', "~1"), reply.status);
    let shared = document
        .root()
        .pointer(&response)
        .unwrap_or_else(|| panic!("{response} is not described"));
    let shared = shared
        .get("$ref")
        .and_then(Value::as_str)
        .map(|target| target[1..].to_owned());
    let media = format!(
        "{}/content/{}/schema",
        shared.unwrap_or(response),
        reply.content_type.replace('/', "~1")
    );
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    document.check_exactly(&media, &body);
}

#[test]
fn answers_about_requests() {
    let document = Document::openapi();
    let offer = "/v1/dispatch/offer";
    check(
        &document,
        offer,
        "post",
        &api::offer(&request(), RequestState::OfferSent, 1, Some(&driver()), false),
    );
    check(
        &document,
        offer,
        "post",
        &api::offer(&request(), RequestState::PendingMatch, 0, None, true),
    );
    check(
        &document,
        offer,
        "post",
        &Problem::excluded(RequestState::PendingMatch, [&driver()]).into(),
    );
    check(
        &document,
        offer,
        "post",
        &Problem::ended(RequestState::Cancelled, None).into(),
    );
    check(&document, offer, "post", &Problem::invalid("why").into());
    check(&document, offer, "post", &Problem::too_large("why").into());
    check(&document, offer, "post", &Problem::overloaded(1).into());
    check(&document, offer, "post", &Problem::draining(3).into());
    check(&document, offer, "post", &Problem::not_durable().into());
    for outcome in [
        ResponseOutcome::Confirmed,
        ResponseOutcome::Declined,
        ResponseOutcome::TooLate,
    ] {
        check(
            &document,
            "/v1/dispatch/response",
            "post",
            &api::response(&request(), outcome, Some(&trip())),
        );
    }
    check(
        &document,
        "/v1/dispatch/response",
        "post",
        &Problem::no_such_offer().into(),
    );
    check(&document, "/v1/dispatch/cancel", "post", &api::cancelled(&request()));
    check(
        &document,
        "/v1/dispatch/cancel",
        "post",
        &Problem::no_such_request().into(),
    );
    check(
        &document,
        "/v1/dispatch/cancel",
        "post",
        &Problem::ended(RequestState::Accepted, Some(&trip())).into(),
    );
}

#[test]
fn answers_about_trips() {
    let document = Document::openapi();
    let cancel = "/v1/trips/{trip_id}/cancel";
    check(&document, cancel, "post", &api::trip_cancelled(&trip(), &request()));
    check(&document, cancel, "post", &Problem::no_such_trip().into());
    check(
        &document,
        cancel,
        "post",
        &Problem::trip_ended(&trip(), TripOutcome::Completed).into(),
    );
}

#[test]
fn answers_for_operators() {
    let document = Document::openapi();
    let assign = "/v1/fleet/assign";
    check(
        &document,
        assign,
        "get",
        &api::assigned(&driver(), "gw-1", "10.0.0.1:8080"),
    );
    check(&document, assign, "get", &Problem::no_node().into());
    for state in Readiness::ALL.into_iter().filter(|state| *state != Readiness::Ready) {
        check(&document, "/readyz", "get", &Reply::problem(503, state.as_str(), "why"));
    }
    let bad_head = dispatchd::wire::http::parse_head(b"GET / HTTP/3.0\r\n\r\n").unwrap_err();
    for problem in [
        Problem::not_found(),
        Problem::method_not_allowed("POST"),
        bad_head.into(),
    ] {
        let body: Value = serde_json::from_slice(&problem.into_reply().body).unwrap();
        document.check_exactly("/components/schemas/Problem", &body);
    }
}

#[test]
fn views_of_requests() {
    let document = Document::openapi();
    let (id, by, of) = (request(), driver(), trip());
    for (state, driver_id, trip_id) in [
        (RequestState::PendingMatch, None, None),
        (RequestState::Accepted, Some(&by), Some(&of)),
        (RequestState::Unfulfilled, Some(&by), None),
    ] {
        let excluded = vec![&by];
        let priority = Priority::Premium;
        let view = RequestView {
            request_id: &id,
            state,
            attempt: 1,
            driver_id,
            excluded,
            trip_id,
            priority,
            deadline_at_ms: AT_MS,
        };
        check(
            &document,
            "/v1/dispatch/request/{request_id}",
            "get",
            &api::request_view(&view),
        );
    }
    check(
        &document,
        "/v1/dispatch/request/{request_id}",
        "get",
        &Problem::no_such_request().into(),
    );
}

/// Every step that a request can have.
fn steps() -> Vec<Step> {
    let reason = || Some("words".into());
    vec![
        Step::Received {
            priority: Priority::Economy,
            deadline_at_ms: AT_MS,
            offer_timeout_ms: 8000,
            max_attempts: Some(3),
            parallel: 2,
            busy_wait_ms: 0,
            candidates: vec![driver()],
            trip: "{}".into(),
        },
        Step::Redispatched {
            candidates: vec![driver()],
            offer_timeout_ms: Some(1),
            parallel: Some(1),
            busy_wait_ms: Some(1),
        },
        Step::OfferSent {
            attempt: 1,
            driver_id: driver(),
            expires_at_ms: AT_MS,
        },
        Step::Delivered { attempt: 1 },
        Step::Acked { attempt: 1 },
        Step::Accepted {
            attempt: 1,
            channel: Channel::Http,
        },
        Step::Declined {
            attempt: 1,
            channel: Channel::WebSocket,
            reason: reason(),
        },
        Step::TimedOut { attempt: 1 },
        Step::Refused {
            attempt: 2,
            driver_id: driver(),
            reason: RefuseReason::OnTrip,
        },
        Step::Revoked {
            attempt: 1,
            reason: RevokeReason::Taken,
        },
        Step::Exhausted,
        Step::TripCreated {
            trip_id: trip(),
            driver_id: driver(),
        },
        Step::PickedUp,
        Step::TripEnded {
            outcome: TripOutcome::CancelledByDriver,
            reason: reason(),
        },
        Step::Cancelled { reason: reason() },
        Step::Unfulfilled { by_deadline: true },
    ]
}

#[test]
fn audits() {
    let document = Document::openapi();
    let log = steps()
        .into_iter()
        .map(|step| LogEntry { at_ms: AT_MS, step })
        .collect();
    let reply = api::audit(
        &RequestLog {
            request_id: request(),
            log,
        },
        RequestState::Accepted,
        &[(0, "node-1".into()), (3, "node-2".into())],
    );
    check(&document, "/v1/dispatch/audit/{request_id}", "get", &reply);
    let audit: Value = serde_json::from_slice(&reply.body).unwrap();
    for (index, event) in audit["events"].as_array().unwrap().iter().enumerate() {
        assert_eq!(event["node"], if index < 3 { "node-1" } else { "node-2" });
        document.check_exactly("/components/schemas/AuditEvent", event);
        document.check_exactly(
            "/components/schemas/AuditDetail",
            event.get("detail").unwrap_or(&serde_json::json!({})),
        );
    }
}

#[test]
fn answers_about_drivers() {
    let document = Document::openapi();
    let (id, of, by) = (driver(), trip(), request());
    let location = Location {
        lat: 40.7,
        lon: -73.9,
        heading: Some(90.0),
        speed: Some(8.5),
    };
    let offer = OfferView {
        request_id: &by,
        attempt: 1,
        expires_at_ms: AT_MS,
    };
    for (state, trip_id, offer, location) in [
        (DriverState::Offline, None, None, None),
        (DriverState::Offered, None, Some(offer), Some(location)),
        (
            DriverState::OnTrip,
            Some(&of),
            None,
            Some(Location {
                heading: None,
                speed: None,
                ..location
            }),
        ),
    ] {
        let view = DriverView {
            driver_id: &id,
            state,
            trip_id,
            offer,
            location,
            last_seen_ms: AT_MS,
            node: "node-1",
        };
        check(&document, "/v1/drivers/{driver_id}", "get", &api::driver_view(&view));
    }
    check(
        &document,
        "/v1/drivers/{driver_id}",
        "get",
        &Problem::no_such_driver().into(),
    );
    let all = [
        ResponseType::Accepted,
        ResponseType::Declined,
        ResponseType::Timeout,
        ResponseType::Refused,
        ResponseType::Revoked,
    ];
    let row = |response_type| RecordRow {
        driver_id: driver(),
        offer_sent_at_ms: AT_MS,
        request_id: request(),
        attempt: 1,
        trip_id: (response_type == ResponseType::Accepted).then(trip),
        response_type,
        response_at_ms: AT_MS,
    };
    let date = jiff::civil::date(2026, 3, 6);
    let rows = all.map(row);
    let reply = api::records(&id, date, rows.iter().map(|row| (row, "node-1")), Some("next"));
    check(&document, "/v1/drivers/{driver_id}/records", "get", &reply);
    let records: Value = serde_json::from_slice(&reply.body).unwrap();
    for record in records["records"].as_array().unwrap() {
        document.check_exactly("/components/schemas/DispatchRecord", record);
    }
}

#[test]
fn events() {
    let document = Document::openapi();
    let (excluded, attempts, trip_id, driver_id) = (vec![driver()], 2, trip(), driver());
    let kinds = [
        PublishedKind::RedispatchRequested {
            excluded: excluded.clone(),
            attempts,
            trip: "{\"a\": 1}".into(),
        },
        PublishedKind::RequestUnfulfilled {
            excluded,
            attempts,
            by_deadline: false,
        },
        PublishedKind::RequestCancelled {
            reason: Some("words".into()),
        },
        PublishedKind::RequestCancelled { reason: None },
        PublishedKind::TripCreated {
            trip_id: trip_id.clone(),
            driver_id: driver_id.clone(),
            trip: "{}".into(),
        },
        PublishedKind::TripPickedUp {
            trip_id: trip_id.clone(),
            driver_id: driver_id.clone(),
        },
        PublishedKind::TripEnded {
            trip_id,
            driver_id,
            outcome: TripOutcome::Completed,
        },
    ];
    let published = kinds.map(|kind| Published {
        request_id: request(),
        at_ms: AT_MS,
        kind,
    });
    let reply = api::events((1..).zip(&published));
    let lines = String::from_utf8(reply.body).unwrap();
    let example = &document.root()["paths"]["/v1/events"]["get"]["responses"]["200"]["content"][reply.content_type];
    let example = example["examples"]["lines"]["value"].as_str().unwrap();
    assert_eq!((lines.lines().count(), example.lines().count()), (7, 6));
    for line in lines.lines().chain(example.lines()) {
        document.check_exactly("/components/schemas/Event", &serde_json::from_str(line).unwrap());
    }
    check(&document, "/v1/events/ack", "post", &api::events_acked("matching", 6));
}

/// What the document shows as a body is read; what it forbids is refused.
#[test]
fn requests_are_read() {
    let document = Document::openapi();
    let reads = |path: &str, body: &[u8]| match path {
        "/v1/dispatch/offer" => api::parse_offer(body).map(drop),
        "/v1/dispatch/response" => api::parse_response(body).map(drop),
        "/v1/dispatch/cancel" => api::parse_cancel(body).map(drop),
        "/v1/trips/{trip_id}/cancel" => api::parse_trip_cancel(body).map(drop),
        "/v1/events/ack" => api::parse_events_ack(body).map(drop),
        other => panic!("{other} has a body that nothing reads"),
    };
    for (path, item) in document.object("/paths") {
        let Some(body) = item.pointer("/post/requestBody/content/application~1json") else {
            continue;
        };
        let schema = format!(
            "/paths/{}/post/requestBody/content/application~1json/schema",
            path.replace('/', "~1")
        );
        for example in body["examples"].as_object().unwrap().values() {
            let example = &example["value"];
            reads(path, example.to_string().as_bytes())
                .unwrap_or_else(|problem| panic!("{path}: {problem:?} {example}"));
            // Without any one of its members, and with each member broken, code and document still agree.
            for member in example.as_object().unwrap().keys() {
                for other in [
                    None,
                    Some(serde_json::json!(-1)),
                    Some(serde_json::json!("")),
                    Some(serde_json::json!([])),
                ] {
                    let mut broken = example.clone();
                    match other {
                        None => drop(broken.as_object_mut().unwrap().remove(member)),
                        Some(other) => broken[member] = other,
                    }
                    let read = reads(path, broken.to_string().as_bytes()).is_ok();
                    assert_eq!(document.validate(&schema, &broken).is_ok(), read, "{path} {broken}");
                }
            }
        }
    }
}

/// The ranges that the document gives for an offer's numbers are the ones that are read.
#[test]
fn ranges_of_an_offer() {
    let document = Document::openapi();
    let mut checked = 0;
    for (member, schema) in document.object("/components/schemas/OfferRequest/properties") {
        let (Some(min), Some(max)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) else {
            continue;
        };
        let reads = |value: i128| {
            let body = format!("{{\"request_id\":\"r\",\"driver_id\":\"d\",\"trip\":{{}},\"{member}\":{value}}}");
            api::parse_offer(body.as_bytes()).is_ok()
        };
        let (min, max) = (i128::from(min), i128::from(max));
        assert_eq!(
            [min - 1, min, max, max + 1].map(reads),
            [false, true, true, false],
            "{member}"
        );
        checked += 1;
    }
    assert_eq!(checked, 5);
    let candidates = &document.object("/components/schemas/OfferRequest/properties")["candidates"];
    assert_eq!(candidates["maxItems"], dispatchd::limits::wire::CANDIDATES_MAX);
    assert_eq!(
        document.root()["components"]["schemas"]["Reason"]["maxLength"],
        dispatchd::limits::wire::REASON_CHARS_MAX
    );
    assert_eq!(
        document.root()["components"]["schemas"]["Id"]["maxLength"],
        dispatchd::limits::ID_LEN_MAX
    );
}
