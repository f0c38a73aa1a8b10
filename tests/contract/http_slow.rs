//! Slow and half-open clients: cut after their time, and in nobody's way.

use crate::support::raw::RawAnswer;
use crate::support::{Raw, Setup, json, shards_1_and_4};

/// A connection that was cut may get a farewell.
fn assert_farewell(answer: Option<&RawAnswer>) {
    assert!(answer.is_none_or(|answer| answer.status == 408), "{answer:?}");
}

/// H1.13: a head that is not complete in `head_timeout_ms` is cut, however steadily it trickles.
async fn slow_heads_are_cut(setup: Setup) {
    let setup = setup.set("head_timeout_ms", 400).set("handshake_timeout_ms", 400);
    let node = setup.start().await;
    let mut stuck = Raw::connect(node.address).await;
    stuck.send("GET /healthz HTTP/1.1\r\nHost: no").await;
    let mut trickle = Raw::connect(node.address).await;
    // One more byte for as long as the server takes them: no byte starts the time anew.
    let mut pace = tokio::time::interval(std::time::Duration::from_millis(20));
    let trickling = async {
        while trickle.try_send("x").await {
            pace.tick().await;
        }
    };
    crate::support::within("the trickle to be cut", trickling).await;
    let answer = stuck.answer().await;
    assert_farewell(answer.as_ref());
    stuck.expect_end().await;
}

/// H1.13: also in the second request of a connection.
async fn slow_second_heads_are_cut(setup: Setup) {
    let node = setup.set("head_timeout_ms", 300).start().await;
    let mut raw = Raw::connect(node.address).await;
    raw.send("GET /healthz HTTP/1.1\r\nHost: node\r\n\r\nGET /hea").await;
    assert_eq!(raw.expect_answer().await.status, 200);
    let answer = raw.answer().await;
    assert_farewell(answer.as_ref());
    raw.expect_end().await;
}

/// H1.14: who waits for `100 Continue` behind another call is not slow: its time begins when it is told to go on.
async fn held_back_bodies_have_time(setup: Setup) {
    let node = setup.set("body_timeout_ms", 500).start().await;
    let mut raw = Raw::connect(node.address).await;
    raw.send("GET /v1/events?wait_ms=1500 HTTP/1.1\r\nHost: node\r\n\r\n")
        .await;
    raw.send("POST /v1/dispatch/cancel HTTP/1.1\r\nHost: node\r\nExpect: 100-continue\r\nContent-Length: 21\r\n\r\n")
        .await;
    assert_eq!(raw.expect_answer().await.status, 200);
    let go_on = raw.answer_without_body().await.expect("an interim answer");
    assert_eq!(go_on.status, 100, "{go_on:?}");
    raw.send(r#"{"request_id":"none"}"#).await;
    assert_eq!(raw.expect_answer().await.status, 404);
}

/// H1.14: a body that is not complete in `body_timeout_ms` is cut, and nothing is done.
async fn slow_bodies_are_cut(setup: Setup) {
    let node = setup.set("body_timeout_ms", 300).start().await;
    let whole = r#"{"request_id":"r1","driver_id":"d1","trip":{}}"#;
    let heads = [
        format!("Content-Length: {}\r\n\r\n{}", whole.len(), &whole[..whole.len() - 1]),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{whole}\r\n", whole.len()),
    ];
    for rest in heads {
        let mut raw = Raw::connect(node.address).await;
        raw.send(format!("POST /v1/dispatch/offer HTTP/1.1\r\nHost: node\r\n{rest}"))
            .await;
        let answer = raw.answer().await;
        assert_farewell(answer.as_ref());
        raw.expect_end().await;
    }
    node.get("/v1/dispatch/request/r1")
        .await
        .problem(404, "no_such_request");
}

/// H1.13, H1.14: while hundreds hang half-open, offers go their way.
async fn half_open_floods_disturb_nobody(setup: Setup) {
    const FLOOD: usize = 300;
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let mut flood = Vec::new();
    for number in 0..FLOOD {
        let mut raw = Raw::connect(node.address).await;
        match number % 4 {
            0 => {}
            1 => raw.send("GET /ws/driver/flood HTTP/1.1\r\n").await,
            2 => {
                raw.send("POST /v1/dispatch/offer HTTP/1.1\r\nHost: node\r\nContent-Length: 500\r\n\r\n{")
                    .await;
            }
            _ => raw.send("\r\n").await,
        }
        flood.push(raw);
    }
    for round in 0..10 {
        node.offer(&format!("r{round}"), &["d1"], &json!({})).await;
        let offer = driver.expect("OFFER").await;
        driver.decline(&offer).await;
    }
    drop(flood);
    node.driver("d2").await.fence().await;
}

/// H1.8: a client that goes away before its answer disturbs nobody, and what it asked for is done.
async fn clients_that_go_away(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    for round in 0..20 {
        let request_id = format!("r{round}");
        let body = format!(r#"{{"request_id":"{request_id}","driver_id":"d1","trip":{{}}}}"#);
        let mut raw = Raw::connect(node.address).await;
        let length = body.len();
        raw.send(format!(
            "POST /v1/dispatch/offer HTTP/1.1\r\nHost: node\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        // Half-closed first: a reset could take the request away with it before it is read.
        raw.half_close().await;
        let offer = driver.expect("OFFER").await;
        drop(raw);
        assert_eq!(offer["request_id"], request_id);
        driver.decline(&offer).await;
    }
}

shards_1_and_4!(
    slow_heads_are_cut,
    slow_second_heads_are_cut,
    slow_bodies_are_cut,
    held_back_bodies_have_time,
    half_open_floods_disturb_nobody,
    clients_that_go_away,
);
