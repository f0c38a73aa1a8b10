//! HTTP/1.1 connections: keep-alive, pipelining, half-close, `Expect`, chunked bodies, sizes.

use crate::support::{Node, Raw, Setup, api, json, shards_1_and_4, within};
use std::fmt::Write as _;

const BODY_BYTES_MAX: usize = 64 << 10;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

fn offer(request_id: &str) -> String {
    post(
        "/v1/dispatch/offer",
        &api::offer(request_id, &["nobody"], &json!({})).to_string(),
    )
}

/// H1.6: a connection is kept for the next request, also after an error, until the client asks for its end.
async fn kept_alive(setup: Setup) {
    let node = setup.start().await;
    let mut raw = Raw::connect(node.address).await;
    for (request, status) in [
        (get("/healthz"), 200),
        (get("/nowhere"), 404),
        (post("/v1/dispatch/offer", "{}"), 400),
        (offer("r1"), 202),
        (get("/v1/dispatch/request/r1"), 200),
        (get("/v1/dispatch/request/r2"), 404),
        (post("/healthz", "{}"), 405),
    ] {
        raw.send(&request).await;
        let answer = raw.expect_answer().await;
        assert_eq!(answer.status, status, "{request}: {answer:?}");
        assert_ne!(answer.header("connection"), Some("close"), "{request}: {answer:?}");
    }
    raw.send("GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(raw.expect_answer().await.status, 200);
    raw.expect_end().await;
}

/// H1.6: HTTP/1.0 without `keep-alive` ends the connection after the answer.
#[tokio::test]
async fn http_1_0_ends_the_connection() {
    let node = Setup::shards(1).start().await;
    let mut raw = Raw::connect(node.address).await;
    raw.send("GET /healthz HTTP/1.0\r\nHost: node\r\n\r\n").await;
    assert_eq!(raw.expect_answer().await.status, 200);
    raw.expect_end().await;
}

/// H1.7: requests in one packet are answered in their order, however long each takes; bodies and bad requests between
/// them do not disturb.
async fn pipelined_answers_keep_their_order(setup: Setup) {
    const ROUNDS: usize = 60;
    let node = setup.start().await;
    let mut raw = Raw::connect(node.address).await;
    let mut requests = String::new();
    for round in 0..ROUNDS {
        let path = format!("/v1/dispatch/request/r{round}");
        write!(
            requests,
            "{}{}{}",
            offer(&format!("r{round}")),
            get("/nowhere"),
            get(&path)
        )
        .unwrap();
    }
    raw.send(&requests).await;
    for round in 0..ROUNDS {
        let posted = raw.expect_answer().await;
        assert_eq!(posted.status, 202, "{posted:?}");
        assert!(posted.body.contains(&format!("\"r{round}\"")), "{posted:?}");
        let nowhere = raw.expect_answer().await;
        assert!(nowhere.body.contains("not_found"), "out of order: {nowhere:?}");
        let viewed = raw.expect_answer().await;
        // The POST before it is answered, and so it is there.
        assert_eq!(viewed.status, 200, "{viewed:?}");
        assert!(viewed.body.contains(&format!("\"r{round}\"")), "{viewed:?}");
    }
}

/// H1.7: requests cut anywhere are the same requests.
async fn byte_by_byte(setup: Setup) {
    let node = setup.start().await;
    let mut raw = Raw::connect(node.address).await;
    let requests = format!("{}{}{}", offer("r1"), get("/healthz"), offer("r1"));
    for byte in requests.as_bytes().chunks(1) {
        raw.send(byte).await;
    }
    for status in [202, 200] {
        assert_eq!(raw.expect_answer().await.status, status);
    }
    // A duplicate, unless its only candidate was refused meanwhile: then it is `409 excluded`.
    let again = raw.expect_answer().await;
    assert!(matches!(again.status, 200 | 409), "{again:?}");
}

/// H1.8: a client that half-closes gets its answers, all of them, and then the end.
async fn half_closed_clients_are_answered(setup: Setup) {
    let node = setup.start().await;
    for round in 0..10 {
        let mut raw = Raw::connect(node.address).await;
        raw.send(format!("{}{}", offer(&format!("r{round}")), get("/healthz")))
            .await;
        raw.half_close().await;
        let first = raw.expect_answer().await;
        // It does not say that it is the last: a client would not wait for another (RFC 9112 §9.6).
        assert_ne!(first.header("connection"), Some("close"), "{first:?}");
        assert_eq!((first.status, raw.expect_answer().await.status), (202, 200));
        raw.expect_end().await;
    }
    // A long poll waits for its event although the client has nothing more to say.
    let mut raw = Raw::connect(node.address).await;
    let after = node.all_events().await.last().map_or_else(String::new, api::after);
    raw.send(get(&format!("/v1/events?wait_ms=25000&{after}"))).await;
    raw.half_close().await;
    node.offer("late", &["nobody"], &json!({})).await;
    let answer = raw.expect_answer().await;
    assert_eq!(answer.status, 200);
    // Events of the rounds before may still have been on their way.
    assert!(!answer.body.is_empty(), "{answer:?}");
    raw.expect_end().await;
}

/// Connections that their clients close do not go on to hold a place: a shard with eight of them serves two hundred clients,
/// one after the other, in no time.
#[tokio::test]
async fn closed_by_the_client_is_gone() {
    let node = Setup::shards(1).set("connections_max", 8).start().await;
    let clients = async {
        for _ in 0..200 {
            let mut raw = Raw::connect(node.address).await;
            raw.send(get("/healthz")).await;
            assert_eq!(raw.expect_answer().await.status, 200);
        }
    };
    within("two hundred clients to be served", clients).await;
}

/// H1.8: half-closed inside a request: nothing is done.
#[tokio::test]
async fn half_a_request_is_none() {
    let node = Setup::shards(1).start().await;
    let whole = offer("r1");
    for cut in [whole.len() - 1, whole.len() - 40, 30, 3] {
        let mut raw = Raw::connect(node.address).await;
        raw.send(&whole[..cut]).await;
        raw.half_close().await;
        let answer = raw.answer().await;
        assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{answer:?}");
    }
    node.get("/v1/dispatch/request/r1")
        .await
        .problem(404, "no_such_request");
}

/// H1.9: `Expect: 100-continue` is answered before the body is sent.
async fn expect_continue(setup: Setup) {
    let node = setup.start().await;
    let mut raw = Raw::connect(node.address).await;
    for round in 0..3 {
        let whole = offer(&format!("r{round}"));
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        raw.send(format!("{head}\r\nExpect: 100-continue\r\n\r\n")).await;
        assert_eq!(raw.expect_answer().await.status, 100);
        raw.send(body).await;
        assert_eq!(raw.expect_answer().await.status, 202);
    }
}

/// H1.9: behind requests that are not answered yet the body is asked for when its turn comes, and not at all when it comes
/// unasked.
async fn expect_continue_in_a_pipeline(setup: Setup) {
    let node = setup.start().await;
    let mut raw = Raw::connect(node.address).await;
    for round in 0..10 {
        let (first, second) = (offer(&format!("first-{round}")), offer(&format!("second-{round}")));
        let (head, body) = second.split_once("\r\n\r\n").unwrap();
        let head = format!("{head}\r\nExpect: 100-continue\r\n\r\n");
        raw.send(format!("{first}{head}")).await;
        assert_eq!(raw.expect_answer().await.status, 202);
        assert_eq!(raw.expect_answer().await.status, 100);
        raw.send(body).await;
        assert_eq!(raw.expect_answer().await.status, 202);
        // The same again are duplicates, unless their only candidate was refused meanwhile: then they are 409.
        raw.send(format!("{first}{head}{body}")).await;
        for _ in 0..2 {
            let again = raw.expect_answer().await;
            assert!(matches!(again.status, 200 | 409), "{again:?}");
        }
    }
}

/// H1.9, H1.10: a body that will not be taken is refused instead of asked for.
#[tokio::test]
async fn expect_is_refused_for_big_bodies() {
    let node = Setup::shards(1).start().await;
    let mut raw = Raw::connect(node.address).await;
    raw.send(
        "POST /v1/dispatch/offer HTTP/1.1\r\nHost: node\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
    )
    .await;
    assert_eq!(raw.expect_answer().await.status, 413);
}

/// H1.11: chunked bodies are bodies, in any cut, with extensions.
async fn chunked_bodies(setup: Setup) {
    let node = setup.start().await;
    let mut raw = Raw::connect(node.address).await;
    for (round, size) in [1, 7, 1000].into_iter().enumerate() {
        let request_id = format!("r{round}");
        let body = api::offer(&request_id, &["nobody"], &json!({})).to_string();
        let mut request = String::from(
            "POST /v1/dispatch/offer HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\n\r\n",
        );
        for piece in body.as_bytes().chunks(size) {
            let piece = std::str::from_utf8(piece).unwrap();
            write!(request, "{:X};name=value\r\n{piece}\r\n", piece.len()).unwrap();
        }
        request.push_str("0\r\n\r\n");
        request.push_str(&get("/healthz"));
        raw.send(&request).await;
        let answer = raw.expect_answer().await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert!(answer.body.contains(&request_id));
        assert_eq!(raw.expect_answer().await.status, 200);
    }
}

/// A cancel of an unknown request whose body has exactly so many bytes.
fn padded(bytes: usize) -> String {
    let mut body = String::from(r#"{"request_id":"unknown"}"#);
    body.extend(std::iter::repeat_n(' ', bytes - body.len()));
    body
}

/// H1.10: 64 KiB are taken, more is 413: by its length, before it is sent, and by its chunks.
async fn bodies_up_to_64_kib(setup: Setup) {
    let node = setup.start().await;
    let answer = node.post_text("/v1/dispatch/cancel", padded(BODY_BYTES_MAX)).await;
    answer.problem(404, "no_such_request");
    let mut raw = Raw::connect(node.address).await;
    raw.try_send(post("/v1/dispatch/cancel", &padded(BODY_BYTES_MAX + 1)))
        .await;
    let answer = raw.expect_answer().await;
    assert_eq!(answer.status, 413, "{answer:?}");
    assert!(!answer.code().is_empty());
    let mut raw = Raw::connect(node.address).await;
    raw.send("POST /v1/dispatch/cancel HTTP/1.1\r\nHost: node\r\nContent-Length: 99999999999999\r\n\r\n")
        .await;
    assert_eq!(raw.expect_answer().await.status, 413);
    let mut raw = Raw::connect(node.address).await;
    let mut chunked =
        String::from("POST /v1/dispatch/cancel HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..=16 {
        write!(chunked, "1000\r\n{}\r\n", " ".repeat(0x1000)).unwrap();
    }
    raw.try_send(&chunked).await;
    assert_eq!(raw.expect_answer().await.status, 413);
    healthy(&node).await;
}

async fn healthy(node: &Node) {
    assert_eq!(node.get("/healthz").await.status, 200);
}

shards_1_and_4!(
    kept_alive,
    pipelined_answers_keep_their_order,
    byte_by_byte,
    half_closed_clients_are_answered,
    expect_continue,
    expect_continue_in_a_pipeline,
    chunked_bodies,
    bodies_up_to_64_kib,
);
