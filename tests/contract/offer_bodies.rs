//! What `POST /v1/dispatch/offer` and its neighbours take for a body.

use crate::support::{Node, Setup, Value, api, json};

/// Bodies that must be `400 invalid`: fields merged into a right one.
fn wrong_fields() -> Vec<Value> {
    let too_many: Vec<String> = (0..65).map(|number| format!("d{number}")).collect();
    vec![
        json!({"request_id": null}),
        json!({"request_id": ""}),
        json!({"request_id": "a b"}),
        json!({"request_id": "é"}),
        json!({"request_id": "x".repeat(65)}),
        json!({"request_id": 7}),
        json!({"candidates": null}),
        json!({"driver_id": "d1"}),
        json!({"candidates": []}),
        json!({"candidates": too_many}),
        json!({"candidates": "d1"}),
        json!({"candidates": ["a b"]}),
        json!({"candidates": [""]}),
        json!({"candidates": [7]}),
        json!({"candidates": null, "driver_id": "a/b"}),
        json!({"candidates": null, "driver_id": ["d1"]}),
        json!({"priority": "gold"}),
        json!({"priority": 1}),
        json!({"offer_timeout_ms": 0}),
        json!({"offer_timeout_ms": 600_001}),
        json!({"offer_timeout_ms": -1}),
        json!({"offer_timeout_ms": 1.5}),
        json!({"offer_timeout_ms": "8000"}),
        json!({"offer_timeout_ms": 1e300}),
        json!({"deadline_ms": 0}),
        json!({"deadline_ms": 86_400_001}),
        json!({"max_attempts": 0}),
        json!({"max_attempts": -1}),
        json!({"max_attempts": "3"}),
        json!({"parallel": 0}),
        json!({"parallel": 11}),
        json!({"parallel": 256}),
        json!({"busy_wait_ms": -1}),
        json!({"busy_wait_ms": 60_001}),
        json!({"trip": null}),
        json!({"trip": []}),
        json!({"trip": "text"}),
        json!({"trip": 7}),
    ]
}

/// H2.8, I.2: fields that are missing or out of range are `400 invalid`, and start nothing.
#[tokio::test]
async fn wrong_offers_are_invalid() {
    let node = Setup::shards(2).start().await;
    let mut driver = node.driver("d1").await;
    for more in wrong_fields() {
        let answer = node.post_offer("r1", &["d1"], &more).await;
        assert_eq!(answer.status, 400, "{more}: {answer:?}");
        answer.problem(400, "invalid");
    }
    // `null` above takes a field away; here it stands there.
    let right = api::offer("r1", &["d1"], &json!({})).to_string();
    let null_trip = right.replace(r#""trip":{"#, r#""trip":null,"unused":{"#);
    for text in [
        "",
        "null",
        "[]",
        "7",
        "{",
        "{}",
        r#""text""#,
        &right[1..],
        &format!("{right} x"),
        &null_trip,
    ] {
        let answer = node.post_text("/v1/dispatch/offer", text).await;
        assert_eq!(answer.status, 400, "{text}: {answer:?}");
        answer.problem(400, "invalid");
    }
    let bad_utf8 = [right.as_bytes(), b"\xff"].concat();
    let request = node.http.post(node.url("/v1/dispatch/offer")).body(bad_utf8);
    assert_eq!(request.send().await.unwrap().status(), 400);
    driver.fence().await;
    node.get("/v1/dispatch/request/r1")
        .await
        .problem(404, "no_such_request");
}

/// H2.8, I.2: the ends of every range are taken.
#[tokio::test]
async fn ends_of_ranges_are_taken() {
    let node = Setup::shards(2).start().await;
    let most: Vec<String> = (0..64).map(|number| format!("{number:0>64}")).collect();
    let table = [
        json!({"request_id": "x".repeat(64)}),
        json!({"request_id": "Az09._:-"}),
        json!({"request_id": "r"}),
        json!({"candidates": most}),
        json!({"offer_timeout_ms": 1}),
        json!({"offer_timeout_ms": 600_000}),
        json!({"deadline_ms": 1}),
        json!({"deadline_ms": 86_400_000}),
        json!({"max_attempts": 1}),
        json!({"max_attempts": 1_000_000}),
        json!({"parallel": 1}),
        json!({"parallel": 10}),
        json!({"busy_wait_ms": 0}),
        json!({"busy_wait_ms": 60_000}),
        json!({"priority": "premium"}),
        json!({"priority": "standard"}),
        json!({"priority": "economy"}),
    ];
    for (number, more) in table.iter().enumerate() {
        let answer = node.post_offer(&format!("r{number}"), &["nobody"], more).await;
        assert_eq!(answer.status, 202, "{more}: {answer:?}");
        assert_eq!(answer.ok(202)["duplicate"], false);
    }
}

/// H3.4, H4.4, H9.4, H1.3: the other bodies: what is missing or wrong is `400 invalid`.
#[tokio::test]
async fn other_wrong_bodies_are_invalid() {
    let node = Setup::shards(1).start().await;
    let table = [
        ("/v1/dispatch/response", r#"{"driver_id":"d1","request_id":"r1"}"#),
        (
            "/v1/dispatch/response",
            r#"{"driver_id":"d1","response_type":"ACCEPT"}"#,
        ),
        (
            "/v1/dispatch/response",
            r#"{"request_id":"r1","response_type":"ACCEPT"}"#,
        ),
        (
            "/v1/dispatch/response",
            r#"{"driver_id":"d1","request_id":"r1","response_type":"accept"}"#,
        ),
        (
            "/v1/dispatch/response",
            r#"{"driver_id":"d1","request_id":"r1","response_type":"MAYBE"}"#,
        ),
        (
            "/v1/dispatch/response",
            r#"{"driver_id":"a b","request_id":"r1","response_type":"ACCEPT"}"#,
        ),
        (
            "/v1/dispatch/response",
            r#"{"driver_id":"d1","request_id":"","response_type":"ACCEPT"}"#,
        ),
        (
            "/v1/dispatch/response",
            r#"{"driver_id":"d1","request_id":"r1","response_type":"ACCEPT","attempt":"1"}"#,
        ),
        (
            "/v1/dispatch/response",
            r#"{"driver_id":"d1","request_id":"r1","response_type":"ACCEPT","attempt":-1}"#,
        ),
        ("/v1/dispatch/response", "[]"),
        ("/v1/dispatch/response", "not JSON"),
        ("/v1/dispatch/cancel", "{}"),
        ("/v1/dispatch/cancel", r#"{"request_id":"a b"}"#),
        ("/v1/dispatch/cancel", r#"{"request_id":"r1","reason":7}"#),
        ("/v1/dispatch/cancel", r#"{"request_id":"r1""#),
        ("/v1/trips/t1/cancel", r#"{"reason":7}"#),
        ("/v1/trips/t1/cancel", "not JSON"),
        ("/v1/events/ack", "{}"),
        ("/v1/events/ack", r#"{"consumer":"c"}"#),
        ("/v1/events/ack", r#"{"cursor":1}"#),
        ("/v1/events/ack", r#"{"consumer":"","cursor":1}"#),
        ("/v1/events/ack", r#"{"consumer":"a b","cursor":1}"#),
        ("/v1/events/ack", r#"{"consumer":"c","cursor":{"no":"cursor"}}"#),
        ("/v1/events/ack", "not JSON"),
    ];
    for (path, body) in table {
        let answer = node.post_text(path, body).await;
        assert_eq!(answer.status, 400, "{path} {body}: {answer:?}");
        answer.problem(400, "invalid");
    }
}

/// H1.3, I.2: a bad id in a path is `400 invalid`.
#[tokio::test]
async fn bad_ids_in_paths_are_invalid() {
    let node = Setup::shards(1).start().await;
    let too_long = "x".repeat(65);
    for id in ["a!b", "a%20b", "a%2Fb", "%C3%A9", too_long.as_str()] {
        for path in [
            "/v1/dispatch/request/{}",
            "/v1/dispatch/audit/{}",
            "/v1/drivers/{}",
            "/v1/drivers/{}/records",
        ] {
            let path = path.replace("{}", id);
            let answer = node.get(&path).await;
            assert_eq!(answer.status, 400, "{path}: {answer:?}");
            answer.problem(400, "invalid");
        }
        let cancel = format!("/v1/trips/{id}/cancel");
        node.post(&cancel, &json!({})).await.problem(400, "invalid");
    }
    unknown_ids(&node).await;
}

/// Well-formed ids that nobody has used are 404, each with its own code.
async fn unknown_ids(node: &Node) {
    let longest = "x".repeat(64);
    for id in ["unknown", "Az09._:-", longest.as_str()] {
        let check = async |path: &str, code: &str| {
            node.get(&path.replace("{}", id)).await.problem(404, code);
        };
        check("/v1/dispatch/request/{}", "no_such_request").await;
        check("/v1/dispatch/audit/{}", "no_such_request").await;
        check("/v1/drivers/{}", "no_such_driver").await;
    }
}
