//! Paths and methods of the document are those of the router, both ways.

use crate::document::Document;
use dispatchd::wire::http::{Method, Target};
use dispatchd::wire::route::{Route, route};
use serde_json::Value;
use std::collections::BTreeSet;

/// Method and path of every route. A new route does not compile until it stands here, and then fails until the
/// document has it.
fn described_as(route: &Route) -> (&'static str, &'static str) {
    match route {
        Route::DriverSocket(_) => ("get", "/ws/driver/{driver_id}"),
        Route::Offer => ("post", "/v1/dispatch/offer"),
        Route::Response => ("post", "/v1/dispatch/response"),
        Route::Cancel => ("post", "/v1/dispatch/cancel"),
        Route::TripCancel(_) => ("post", "/v1/trips/{trip_id}/cancel"),
        Route::RequestView(_) => ("get", "/v1/dispatch/request/{request_id}"),
        Route::Audit(_) => ("get", "/v1/dispatch/audit/{request_id}"),
        Route::DriverView(_) => ("get", "/v1/drivers/{driver_id}"),
        Route::Records(_) => ("get", "/v1/drivers/{driver_id}/records"),
        Route::Events(_) => ("get", "/v1/events"),
        Route::EventsAck => ("post", "/v1/events/ack"),
        Route::FleetAssign(_) => ("get", "/v1/fleet/assign"),
        Route::Healthz => ("get", "/healthz"),
        Route::Readyz => ("get", "/readyz"),
        Route::Metrics => ("get", "/metrics"),
        Route::OpenApi => ("get", "/openapi.json"),
        Route::AsyncApi => ("get", "/asyncapi.json"),
    }
}

/// How many variants `Route` has: the arms above.
const ROUTES: usize = 17;

fn target(path: &str, operation: &Value) -> Target {
    let parameters = || operation["parameters"].as_array().into_iter().flatten();
    let mut path = path.to_owned();
    for parameter in parameters().filter(|parameter| parameter["in"] == "path") {
        let (name, example) = (
            parameter["name"].as_str().unwrap(),
            parameter["example"].as_str().unwrap(),
        );
        path = path.replace(&format!("{{{name}}}"), example);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs = parameters().filter(|parameter| parameter["in"] == "query" && parameter.get("example").is_some());
    let pairs = pairs.map(|parameter| format!("{}={}", text(&parameter["name"]), text(&parameter["example"])));
    let query = pairs.collect::<Vec<String>>().join("&");
    Target {
        path: path.into(),
        query: (!query.is_empty()).then(|| query.into()),
    }
}

#[test]
fn the_router_knows_what_is_described_and_nothing_else() {
    let document = Document::openapi();
    let mut reached = BTreeSet::new();
    for (path, item) in document.object("/paths") {
        let operations = item.as_object().unwrap();
        assert_eq!(operations.len(), 1, "{path}");
        for (method, operation) in operations {
            let target = target(path, operation);
            let right = if method == "get" { Method::Get } else { Method::Post };
            let found = route(right, &target).unwrap_or_else(|problem| panic!("{method} {path}: {problem:?}"));
            assert_eq!(described_as(&found), (method.as_str(), path.as_str()));
            reached.insert(described_as(&found));
            let wrong = if method == "get" { Method::Post } else { Method::Get };
            for other in [wrong, Method::Other] {
                assert_eq!(route(other, &target).unwrap_err().status, 405, "{other:?} {path}");
            }
        }
    }
    assert_eq!(reached.len(), ROUTES, "a route is not described: {reached:?}");
}

/// A parameter's bounds in the document are the router's.
#[test]
fn queries_have_the_bounds_that_are_described() {
    let document = Document::openapi();
    for path in ["/v1/events", "/v1/drivers/{driver_id}/records"] {
        let operation = &document.root()["paths"][path]["get"];
        for parameter in operation["parameters"].as_array().unwrap() {
            let schema = &parameter["schema"];
            let (Some(min), Some(max)) = (schema["minimum"].as_u64(), schema["maximum"].as_u64()) else {
                continue;
            };
            let with = |value: i128| {
                let mut target = target(path, operation);
                let name = parameter["name"].as_str().unwrap();
                let query = target.query.unwrap_or_default();
                let others = query.split('&').filter(|pair| !pair.starts_with(name));
                let pairs = others.map(str::to_owned).chain([format!("{name}={value}")]);
                target.query = Some(pairs.collect::<Vec<String>>().join("&").into());
                route(Method::Get, &target).map_err(|problem| problem.code)
            };
            let (min, max) = (i128::from(min), i128::from(max));
            assert!(with(min).is_ok() && with(max).is_ok(), "{parameter}");
            assert_eq!(
                (with(min - 1).err(), with(max + 1).err()),
                (Some("invalid"), Some("invalid")),
                "{parameter}"
            );
        }
    }
}
