//! A request target: what the route says of it is what an independent reading of path and query says.
#![no_main]

use dispatchd::wire::http::{Method, parse_head};
use dispatchd::wire::route::{EventsQuery, RecordsQuery, Route, route};
use libfuzzer_sys::fuzz_target;

/// RFC 3986 §2.1, for text whose escapes are whole.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'%' {
            let hex = std::str::from_utf8(&rest[..2]).expect("hex digits");
            bytes.push(u8::from_str_radix(hex, 16).expect("hex digits"));
            rest = &rest[2..];
        } else {
            bytes.push(*first);
        }
    }
    bytes
}

/// The values of a parameter, decoded.
fn values(query: Option<&str>, name: &str) -> Vec<String> {
    let pairs = query.unwrap_or_default().split('&');
    let of_name = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .filter(|(given, _)| decode(given) == name.as_bytes());
    of_name
        .map(|(_, value)| String::from_utf8(decode(value)).expect("UTF-8 was checked"))
        .collect()
}

/// A parameter that is given at most once.
fn value(query: Option<&str>, name: &str) -> Option<String> {
    let mut values = values(query, name);
    assert!(values.len() <= 1, "{name} twice");
    values.pop()
}

fn number<T: std::str::FromStr>(query: Option<&str>, name: &str) -> Option<T>
where
    T::Err: std::fmt::Debug,
{
    value(query, name).map(|text| text.parse().expect("a number was checked"))
}

fn canonical(route: &Route, query: Option<&str>) -> (Method, String) {
    let (method, path) = match route {
        Route::DriverSocket(id) => (Method::Get, format!("/ws/driver/{id}")),
        Route::Offer => (Method::Post, "/v1/dispatch/offer".to_owned()),
        Route::Response => (Method::Post, "/v1/dispatch/response".to_owned()),
        Route::Cancel => (Method::Post, "/v1/dispatch/cancel".to_owned()),
        Route::TripCancel(id) => (Method::Post, format!("/v1/trips/{id}/cancel")),
        Route::RequestView(id) => (Method::Get, format!("/v1/dispatch/request/{id}")),
        Route::Audit(id) => (Method::Get, format!("/v1/dispatch/audit/{id}")),
        Route::DriverView(id) => (Method::Get, format!("/v1/drivers/{id}")),
        Route::Records(records) => (Method::Get, format!("/v1/drivers/{}/records", records.driver_id)),
        Route::Events(_) => (Method::Get, "/v1/events".to_owned()),
        Route::EventsAck => (Method::Post, "/v1/events/ack".to_owned()),
        Route::FleetAssign(_) => (Method::Get, "/v1/fleet/assign".to_owned()),
        Route::Healthz => (Method::Get, "/healthz".to_owned()),
        Route::Readyz => (Method::Get, "/readyz".to_owned()),
        Route::Metrics => (Method::Get, "/metrics".to_owned()),
        Route::OpenApi => (Method::Get, "/openapi.json".to_owned()),
        Route::AsyncApi => (Method::Get, "/asyncapi.json".to_owned()),
    };
    let query = query.map_or(String::new(), |query| format!("?{query}"));
    (method, path + &query)
}

fn head_of(method: Method, target: &str) -> Option<dispatchd::wire::http::Head> {
    let name = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Other => "PATCH",
    };
    let head = format!("{name} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    parse_head(head.as_bytes()).ok().flatten().map(|(head, len)| {
        assert_eq!(len, name.len() + target.len() + "  HTTP/1.1\r\nHost: a\r\n\r\n".len());
        head
    })
}

fuzz_target!(|input: (u8, &str)| {
    let method = [Method::Get, Method::Post, Method::Head, Method::Other][usize::from(input.0 % 4)];
    if input.1.contains(['\r', '\n', ' ']) {
        return;
    }
    let Some(head) = head_of(method, input.1) else { return };
    assert_eq!(head.method, method);
    let query = head.target.query.as_deref();
    let Ok(found) = route(method, &head.target) else { return };
    match &found {
        Route::Records(RecordsQuery {
            date, limit, before, ..
        }) => {
            assert_eq!(Some(date.to_string()), value(query, "date"));
            assert_eq!(*limit, number(query, "limit").unwrap_or(100));
            assert!((1..=1_000).contains(limit));
            assert_eq!(*before, value(query, "before"));
        }
        Route::Events(EventsQuery {
            after,
            wait_ms,
            limit,
            consumer,
        }) => {
            assert_eq!(*after, number(query, "after"));
            assert_eq!(*wait_ms, number(query, "wait_ms").unwrap_or(0));
            assert_eq!(*limit, number(query, "limit").unwrap_or(100));
            assert!((1..=1_000).contains(limit) && *wait_ms <= 60_000);
            assert_eq!(consumer.as_deref(), value(query, "consumer").as_deref());
        }
        _ => {}
    }
    // The same endpoint by its plain name, and by no other way.
    let (plain_method, plain) = canonical(&found, query);
    let plain = head_of(plain_method, &plain).expect("the plain name is a target");
    assert_eq!(route(plain_method, &plain.target).as_ref(), Ok(&found));
    assert_eq!(decode(&head.target.path), plain.target.path.as_bytes());
});
