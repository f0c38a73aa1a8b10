//! Paths, methods and queries; answers as bytes.

use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{RequestState, TripOutcome};
use dispatchd::wire::http::{Method, Target, parse_head};
use dispatchd::wire::respond::{CONTINUE_100, HttpDate, Problem, Reply};
use dispatchd::wire::route::{EventsQuery, RecordsQuery, Route, route};
use jiff::civil::date;
use serde_json::{Value, json};

fn find(method: &str, target: &str) -> Result<Route, Problem> {
    let bytes = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    let (head, _) = parse_head(bytes.as_bytes()).unwrap().unwrap();
    route(head.method, &head.target)
}

fn check(method: &str, target: &str, expect: Route) {
    assert_eq!(find(method, target), Ok(expect), "{method} {target}");
}

/// `word`: what the detail must name.
fn check_fails(method: &str, target: &str, status: u16, code: &str, word: &str) {
    let problem = find(method, target).unwrap_err();
    assert_eq!((problem.status, problem.code), (status, code), "{method} {target}");
    assert!(
        problem.detail.contains(word),
        "{method} {target}: {:?} names no {word:?}",
        problem.detail
    );
}

fn driver(text: &str) -> DriverId {
    DriverId::parse(text).unwrap()
}

fn request(text: &str) -> RequestId {
    RequestId::parse(text).unwrap()
}

#[test]
fn endpoints() {
    let trip = TripId::parse("t-1").unwrap();
    let gets = [
        ("/ws/driver/d.1_A:b-c", Route::DriverSocket(driver("d.1_A:b-c"))),
        ("/ws/driver/d%3A1", Route::DriverSocket(driver("d:1"))),
        ("/v1/dispatch/request/r1?x=y", Route::RequestView(request("r1"))),
        ("/v1/dispatch/audit/r1", Route::Audit(request("r1"))),
        ("/v1/drivers/records", Route::DriverView(driver("records"))),
        ("/healthz", Route::Healthz),
        ("/readyz?verbose", Route::Readyz),
        ("/metrics", Route::Metrics),
        ("/openapi.json", Route::OpenApi),
        ("/asyncapi.json", Route::AsyncApi),
    ];
    for (target, expect) in gets {
        check("GET", target, expect.clone());
        if matches!(expect, Route::DriverSocket(_)) {
            check_fails("HEAD", target, 405, "method_not_allowed", "GET");
        } else {
            check("HEAD", target, expect);
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "get"] {
            check_fails(method, target, 405, "method_not_allowed", "GET");
        }
    }
    let posts = [
        ("/v1/dispatch/offer", Route::Offer),
        ("/v1/dispatch/response", Route::Response),
        ("/v1/dispatch/cancel", Route::Cancel),
        ("/v1/trips/t-1/cancel", Route::TripCancel(trip)),
        ("/v1/events/ack", Route::EventsAck),
    ];
    for (target, expect) in posts {
        check("POST", target, expect);
        for method in ["GET", "HEAD", "PUT", "OPTIONS"] {
            check_fails(method, target, 405, "method_not_allowed", "POST");
        }
    }
    let allow = |method: &str, target: &str| Reply::from(find(method, target).unwrap_err()).headers;
    assert_eq!(allow("GET", "/v1/dispatch/offer"), [("allow", "POST".to_owned())]);
    assert_eq!(allow("POST", "/metrics"), [("allow", "GET, HEAD".to_owned())]);
}

#[test]
fn paths_of_nothing() {
    for target in [
        "/",
        "/v1",
        "/v1/",
        "/v2/events",
        "/v1/dispatch",
        "/v1/dispatch/offer/",
        "/v1/dispatch/offer/x",
        "//healthz",
        "/healthz/",
        "/Healthz",
        "/v1/dispatch/request",
        "/v1/dispatch/request/a/b",
        "/v1/drivers",
        "/v1/drivers/a/b",
        "/v1/drivers/a/records/b",
        "/v1/trips/a",
        "/v1/trips/a/cancel/b",
        "/v1/events/",
        "/ws/driver",
        "/ws/driver/a/b",
    ] {
        check_fails("GET", target, 404, "not_found", "");
        check_fails("POST", target, 404, "not_found", "");
    }
    // RFC 9112 §3.2.4.
    check_fails("OPTIONS", "*", 405, "method_not_allowed", "");
}

#[test]
fn ids_in_paths() {
    let long = "x".repeat(65);
    for bad in [
        "", "%20", "a%2Fb", "a+b", "%C3%A9", "%FF", "%00", "a,b", "a@b", "~", &long,
    ] {
        check_fails("GET", &format!("/ws/driver/{bad}"), 400, "invalid", "driver_id");
        check_fails(
            "GET",
            &format!("/v1/drivers/{bad}/records?date=2026-01-01"),
            400,
            "invalid",
            "driver_id",
        );
        check_fails(
            "GET",
            &format!("/v1/dispatch/request/{bad}"),
            400,
            "invalid",
            "request_id",
        );
        check_fails(
            "GET",
            &format!("/v1/dispatch/audit/{bad}"),
            400,
            "invalid",
            "request_id",
        );
        check_fails("POST", &format!("/v1/trips/{bad}/cancel"), 400, "invalid", "trip_id");
    }
    check(
        "GET",
        &format!("/v1/drivers/{}", "x".repeat(64)),
        Route::DriverView(driver(&"x".repeat(64))),
    );
    // Targets are checked before; whatever gets here must not panic.
    let target = Target {
        path: "/ws/driver/%".into(),
        query: None,
    };
    assert_eq!(route(Method::Get, &target).unwrap_err().status, 400);
}

#[test]
fn event_queries() {
    let events = |after, wait_ms, limit, consumer: Option<&str>| {
        Route::Events(EventsQuery {
            after,
            wait_ms,
            limit,
            consumer: consumer.map(Into::into),
        })
    };
    check("GET", "/v1/events", events(None, 0, 100, None));
    check("GET", "/v1/events?", events(None, 0, 100, None));
    check(
        "GET",
        "/v1/events?&&unknown=1&unknown=2&x=%20",
        events(None, 0, 100, None),
    );
    check(
        "GET",
        "/v1/events?after=18446744073709551615&wait_ms=60000&limit=1000&consumer=a:b",
        events(Some(u64::MAX), 60_000, 1000, Some("a:b")),
    );
    check("GET", "/v1/events?%61fter=%31&limit=001", events(Some(1), 0, 1, None));
    for (query, name) in [
        ("after=-1", "after"),
        ("after=", "after"),
        ("after", "after"),
        ("after=1.0", "after"),
        ("after=+1", "after"),
        ("after=18446744073709551616", "after"),
        ("after=1&after=1", "after"),
        ("after=1&%61fter=2", "after"),
        ("wait_ms=60001", "wait_ms"),
        ("wait_ms=x", "wait_ms"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=1%30%30%30%30", "limit"),
        ("consumer=", "consumer"),
        ("consumer=a%20b", "consumer"),
        ("consumer=%ff", "consumer"),
        ("consumer=a&consumer=a", "consumer"),
    ] {
        check_fails("GET", &format!("/v1/events?{query}"), 400, "invalid", name);
    }
}

#[test]
fn record_queries() {
    let records = |date, limit, before: Option<&str>| {
        Route::Records(RecordsQuery {
            driver_id: driver("d"),
            date,
            limit,
            before: before.map(str::to_owned),
        })
    };
    check(
        "GET",
        "/v1/drivers/d/records?date=2026-02-28",
        records(date(2026, 2, 28), 100, None),
    );
    check(
        "GET",
        "/v1/drivers/d/records?date=2024-02-29&limit=1000",
        records(date(2024, 2, 29), 1000, None),
    );
    check(
        "GET",
        "/v1/drivers/d/records?before=1-r:2&date=2024-02-29",
        records(date(2024, 2, 29), 100, Some("1-r:2")),
    );
    for (query, name) in [
        ("", "date"),
        ("date=", "date"),
        ("date=2026-02-29", "date"),
        ("date=2026-13-01", "date"),
        ("date=2026-00-10", "date"),
        ("date=2026-01-32", "date"),
        ("date=2026-1-1", "date"),
        ("date=20260101", "date"),
        ("date=2026-01-01T00", "date"),
        ("date=%2B026-01-01", "date"),
        ("date=2026-01-01&date=2026-01-01", "date"),
        ("date=2026-01-01&limit=0", "limit"),
        ("date=2026-01-01&limit=1001", "limit"),
        ("date=2026-01-01&before=", "before"),
        ("date=2026-01-01&before=a%20b", "before"),
    ] {
        check_fails("GET", &format!("/v1/drivers/d/records?{query}"), 400, "invalid", name);
    }
}

/// Status, fields and body of an answer.
fn read(bytes: &[u8]) -> (u16, Vec<(String, String)>, Vec<u8>) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let len = response.parse(bytes).unwrap().unwrap();
    let fields = response
        .headers
        .iter()
        .map(|field| (field.name.to_owned(), String::from_utf8(field.value.to_vec()).unwrap()))
        .collect();
    (response.code.unwrap(), fields, bytes[len..].to_vec())
}

#[test]
fn answers_as_bytes() {
    let fields = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    };
    // The example of RFC 9110 §5.6.7.
    let date = HttpDate::at(784_111_777_999);
    let mut out = b"before".to_vec();
    Reply::json(202, b"{}".to_vec())
        .with_header("x-a", "b")
        .write(&mut out, &date, true, false);
    let expect = fields(&[
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("content-type", "application/json"),
        ("content-length", "2"),
        ("x-a", "b"),
        ("connection", "keep-alive"),
    ]);
    assert_eq!(
        read(out.strip_prefix(b"before").unwrap()),
        (202, expect, b"{}".to_vec())
    );

    out.clear();
    Reply::ndjson(b"{}\n".to_vec()).write(&mut out, &date, false, true);
    let expect = fields(&[
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("content-type", "application/x-ndjson"),
        ("content-length", "3"),
        ("connection", "close"),
    ]);
    assert_eq!(read(&out), (200, expect, Vec::new()));
    assert_eq!(read(CONTINUE_100).0, 100);

    out.clear();
    let upgrade = Problem::new(426, "upgrade_required", "").with_header("upgrade", "websocket");
    upgrade.into_reply().write(&mut out, &date, true, false);
    assert!(
        read(&out)
            .1
            .contains(&("connection".to_owned(), "upgrade, keep-alive".to_owned()))
    );
}

#[test]
fn dates() {
    let mut date = HttpDate::at(0);
    assert_eq!(date.as_str(), "Thu, 01 Jan 1970 00:00:00 GMT");
    date.advance(951_782_399_999);
    assert_eq!(date.as_str(), "Mon, 28 Feb 2000 23:59:59 GMT");
    date.advance(951_782_400_000);
    assert_eq!(date.as_str(), "Tue, 29 Feb 2000 00:00:00 GMT");
    date.advance(u64::MAX);
    assert_eq!(date.as_str().len(), "Tue, 29 Feb 2000 00:00:00 GMT".len());
}

type Headers = Vec<(&'static str, String)>;

fn check_problem(problem: Problem, status: u16, title: &str, code: &str, more: &Value) -> Headers {
    let reply = problem.into_reply();
    assert_eq!((reply.status, reply.content_type), (status, "application/problem+json"));
    let mut body: Value = serde_json::from_slice(&reply.body).unwrap();
    let members = body.as_object_mut().unwrap();
    assert_eq!(members.remove("type"), Some(json!("about:blank")));
    assert_eq!(members.remove("title"), Some(json!(title)));
    assert_eq!(members.remove("status"), Some(json!(status)));
    assert_eq!(members.remove("code"), Some(json!(code)));
    assert!(members.remove("detail").unwrap().is_string());
    assert_eq!(&body, more);
    reply.headers
}

#[test]
fn problems() {
    check_problem(
        Problem::invalid("a \"quoted\"\n\u{1}\u{e9} detail"),
        400,
        "Bad Request",
        "invalid",
        &json!({}),
    );
    check_problem(Problem::not_found(), 404, "Not Found", "not_found", &json!({}));
    check_problem(Problem::no_such_offer(), 404, "Not Found", "no_such_offer", &json!({}));
    check_problem(
        Problem::no_such_request(),
        404,
        "Not Found",
        "no_such_request",
        &json!({}),
    );
    check_problem(Problem::no_such_trip(), 404, "Not Found", "no_such_trip", &json!({}));
    check_problem(
        Problem::no_such_driver(),
        404,
        "Not Found",
        "no_such_driver",
        &json!({}),
    );
}

#[test]
fn problems_with_members() {
    let trip = TripId::parse("t-1").unwrap();
    check_problem(
        Problem::excluded(RequestState::PendingMatch, [&driver("a"), &driver("b")]),
        409,
        "Conflict",
        "excluded",
        &json!({"state": "PENDING_MATCH", "excluded": ["a", "b"]}),
    );
    check_problem(
        Problem::ended(RequestState::Accepted, Some(&trip)),
        409,
        "Conflict",
        "ended",
        &json!({"state": "ACCEPTED", "trip_id": "t-1"}),
    );
    check_problem(
        Problem::ended(RequestState::Unfulfilled, None),
        409,
        "Conflict",
        "ended",
        &json!({"state": "UNFULFILLED"}),
    );
    check_problem(
        Problem::trip_ended(&trip, TripOutcome::CancelledByDriver),
        409,
        "Conflict",
        "ended",
        &json!({"trip_id": "t-1", "outcome": "cancelled_by_driver"}),
    );
    check_problem(
        Problem::too_large("x"),
        413,
        "Content Too Large",
        "too_large",
        &json!({}),
    );
    let headers = check_problem(
        Problem::overloaded(2),
        429,
        "Too Many Requests",
        "overloaded",
        &json!({}),
    );
    assert_eq!(headers, [("retry-after", "2".to_owned())]);
    check_problem(Problem::draining(3), 503, "Service Unavailable", "draining", &json!({}));
    check_problem(
        Problem::not_durable(),
        503,
        "Service Unavailable",
        "not_durable",
        &json!({}),
    );
}
