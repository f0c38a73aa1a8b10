//! What operators and tools ask: health, readiness, metrics, the shipped documents.

use crate::support::{Node, Setup, json, shards_1_and_4};

/// H10.1: alive and taking work.
async fn alive_and_ready(setup: Setup) {
    let node = setup.start().await;
    for path in ["/healthz", "/readyz"] {
        let answer = node.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

/// H10.2: Prometheus text: every sample has a name, labels and a number; what is counted ends in `_total`, units are
/// base units, and no id stands in a label.
async fn metrics_are_prometheus_text(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("driver-17-in-no-label").await;
    node.offer("request-17-in-no-label", &["driver-17-in-no-label"], &json!({}))
        .await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    let answer = node.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain"), "{answer:?}");
    for id in ["driver-17-in-no-label", "request-17-in-no-label", trip_id.as_str()] {
        assert!(!answer.body.contains(id), "an id in the metrics");
    }
    let mut counters = Vec::new();
    let mut samples = 0;
    for line in answer.body.lines().filter(|line| !line.is_empty()) {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect("a name and a type");
            assert!(
                ["counter", "gauge", "histogram", "summary", "untyped"].contains(&kind),
                "{line}"
            );
            for unit in ["_ms", "_us", "_ns", "_milliseconds", "_kb", "_kib", "_percent"] {
                assert!(!name.trim_end_matches("_total").ends_with(unit), "base units: {line}");
            }
            if kind == "counter" {
                assert!(name.ends_with("_total"), "{line}");
                counters.push(name.to_owned());
            }
        } else if !line.starts_with('#') {
            sample(line);
            samples += 1;
        }
    }
    assert!(!counters.is_empty() && samples > 0, "{}", answer.body);
}

/// Checks the form `name{label="value",…} number`.
fn sample(line: &str) {
    let (name, value) = line.rsplit_once(' ').expect("a name and a number");
    assert!(value.parse::<f64>().is_ok() || value == "+Inf", "{line}");
    let bare = name.split('{').next().unwrap();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    assert!(!bare.is_empty() && bare.bytes().all(allowed), "{line}");
    assert_eq!(name.contains('{'), name.ends_with('}'), "{line}");
}

/// H10.3: `OpenAPI` 3.1 and `AsyncAPI` 3 are served, and name every path and message of the contract.
#[tokio::test]
async fn documents_are_served() {
    let node = Setup::shards(1).start().await;
    let openapi = node.get("/openapi.json").await.ok(200);
    assert!(
        crate::support::text(&openapi, "openapi").starts_with("3.1"),
        "{}",
        openapi["openapi"]
    );
    for (path, method) in PATHS {
        let described = openapi["paths"].get(path).and_then(|item| item.get(method));
        assert!(described.is_some(), "{method} {path} is not described");
    }
    let asyncapi = node.get("/asyncapi.json").await.ok(200);
    assert!(
        crate::support::text(&asyncapi, "asyncapi").starts_with("3."),
        "{}",
        asyncapi["asyncapi"]
    );
    let all = asyncapi.to_string();
    for message in MESSAGES {
        assert!(all.contains(&format!("\"{message}\"")), "{message} is not described");
    }
}

const PATHS: [(&str, &str); 13] = [
    ("/v1/dispatch/offer", "post"),
    ("/v1/dispatch/response", "post"),
    ("/v1/dispatch/cancel", "post"),
    ("/v1/trips/{trip_id}/cancel", "post"),
    ("/v1/dispatch/request/{request_id}", "get"),
    ("/v1/dispatch/audit/{request_id}", "get"),
    ("/v1/drivers/{driver_id}", "get"),
    ("/v1/drivers/{driver_id}/records", "get"),
    ("/v1/events", "get"),
    ("/v1/events/ack", "post"),
    ("/healthz", "get"),
    ("/readyz", "get"),
    ("/metrics", "get"),
];

const MESSAGES: [&str; 15] = [
    "WELCOME",
    "OFFER",
    "CONFIRMED",
    "DECLINED",
    "REVOKED",
    "STATE",
    "TRIP_CANCELLED",
    "PONG",
    "ERROR",
    "ACK",
    "ACCEPT",
    "DECLINE",
    "TRIP",
    "LOCATION",
    "PING",
];

/// H1.4, H1.5: every path knows its method: another is 405 with `Allow`; a path that is none is 404.
async fn methods_and_paths(setup: Setup) {
    let node = setup.start().await;
    for (path, method) in PATHS {
        let path = path
            .replace("{trip_id}", "t1")
            .replace("{request_id}", "r1")
            .replace("{driver_id}", "d1");
        let allowed = method.to_uppercase();
        for other in ["GET", "POST", "PUT", "DELETE", "PATCH"]
            .into_iter()
            .filter(|other| *other != allowed)
        {
            wrong_method(&node, other, &path, &allowed).await;
        }
    }
    for path in [
        "/",
        "/v1",
        "/v1/dispatch",
        "/v1/dispatch/offers",
        "/v2/dispatch/offer",
        "/v1/drivers/d1/x",
        "/ws",
    ] {
        let answer = node.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        answer.any_problem(404);
    }
}

async fn wrong_method(node: &Node, method: &str, path: &str, allowed: &str) {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let answer = node.call(method.clone(), path).await;
    assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
    answer.any_problem(405);
    let named = answer.header("allow").split(',').any(|name| name.trim() == allowed);
    assert!(named, "{method} {path}: Allow says {:?}", answer.header("allow"));
}

shards_1_and_4!(alive_and_ready, metrics_are_prometheus_text, methods_and_paths);
