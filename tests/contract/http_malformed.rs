//! Malformed HTTP and the smuggling shapes of RFC 9112: one refusal, then the end of the connection, and nothing of what
//! came after is taken for a request.

use crate::support::{Raw, Setup};

/// What a smuggler wants to have answered: it would start a dispatch.
const SMUGGLED: &str = "POST /v1/dispatch/offer HTTP/1.1\r\nHost: node\r\nContent-Length: 63\r\n\r\n\
                        {\"request_id\":\"smuggled\",\"driver_id\":\"d1\",\"trip\":{\"a\":\"bcdef\"}}";

struct Shape {
    name: &'static str,
    request: &'static str,
    statuses: &'static [u16],
}

const fn shape(name: &'static str, request: &'static str, statuses: &'static [u16]) -> Shape {
    Shape {
        name,
        request,
        statuses,
    }
}

const SHAPES: [Shape; 36] = [
    shape(
        "a length and chunks",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    shape(
        "chunks and a length",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    shape(
        "two lengths",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        &[400],
    ),
    shape(
        "a list of lengths",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nContent-Length: 2, 3\r\n\r\n{} ",
        &[400],
    ),
    shape(
        "a signed length",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nContent-Length: +2\r\n\r\n{}",
        &[400],
    ),
    shape(
        "a negative length",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nContent-Length: -2\r\n\r\n{}",
        &[400],
    ),
    shape(
        "a length in hex",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nContent-Length: 0x2\r\n\r\n{}",
        &[400],
    ),
    shape(
        "an empty length",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nContent-Length: \r\n\r\n{}",
        &[400],
    ),
    shape(
        "a length with a space",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nContent-Length: 1 1\r\n\r\n{}",
        &[400],
    ),
    shape(
        "a length beyond 64 bits",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nContent-Length: 18446744073709551618\r\n\r\n{}",
        &[400, 413],
    ),
    shape(
        "an unknown coding",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    shape(
        "chunked is not last",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    shape(
        "chunked twice",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    shape(
        "chunked hidden by a tab",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        &[400, 501],
    ),
    shape(
        "chunks in HTTP/1.0",
        "POST /v1/dispatch/cancel HTTP/1.0\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    shape("bare LF in the head", "GET /healthz HTTP/1.1\nHost: n\n\n", &[400]),
    shape(
        "bare LF after a field",
        "GET /healthz HTTP/1.1\r\nHost: n\nX: y\r\n\r\n",
        &[400],
    ),
    shape("bare LF at the end", "GET /healthz HTTP/1.1\r\nHost: n\r\n\n", &[400]),
    shape(
        "bare CR in a field",
        "GET /healthz HTTP/1.1\r\nHost: n\r\nX: a\rb\r\n\r\n",
        &[400],
    ),
    shape(
        "NUL in a field",
        "GET /healthz HTTP/1.1\r\nHost: n\r\nX: a\0b\r\n\r\n",
        &[400],
    ),
    shape(
        "obs-fold",
        "GET /healthz HTTP/1.1\r\nHost: n\r\nX: a\r\n b\r\n\r\n",
        &[400],
    ),
    shape(
        "a space before the colon",
        "GET /healthz HTTP/1.1\r\nHost: n\r\nContent-Length : 5\r\n\r\n",
        &[400],
    ),
    shape(
        "a space before the first field",
        "GET /healthz HTTP/1.1\r\n Host: n\r\n\r\n",
        &[400],
    ),
    shape(
        "a field without a colon",
        "GET /healthz HTTP/1.1\r\nHost: n\r\nnonsense\r\n\r\n",
        &[400],
    ),
    shape(
        "a field without a name",
        "GET /healthz HTTP/1.1\r\nHost: n\r\n: x\r\n\r\n",
        &[400],
    ),
    shape("no Host", "GET /healthz HTTP/1.1\r\n\r\n", &[400]),
    shape(
        "two Hosts",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        &[400],
    ),
    shape("no version", "GET /healthz\r\nHost: n\r\n\r\n", &[400]),
    shape(
        "an odd version",
        "GET /healthz HTTP/1.x\r\nHost: n\r\n\r\n",
        &[400, 505],
    ),
    shape("HTTP/2.0", "GET /healthz HTTP/2.0\r\nHost: n\r\n\r\n", &[400, 505]),
    shape("no target", "GET  HTTP/1.1\r\nHost: n\r\n\r\n", &[400]),
    shape(
        "a target with a space",
        "GET /health z HTTP/1.1\r\nHost: n\r\n\r\n",
        &[400],
    ),
    shape(
        "TLS on the plain port",
        "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03 hello \r\n\r\n",
        &[400],
    ),
    shape(
        "a chunk size that is none",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
        &[400],
    ),
    shape(
        "a chunk size beyond 64 bits",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
        &[400, 413],
    ),
    shape(
        "a chunk that is longer than its size",
        "POST /v1/dispatch/cancel HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}{}\r\n0\r\n\r\n",
        &[400],
    ),
];

/// H1.12: each shape gets one refusal and the end; what was smuggled behind it is not done, and nobody else notices.
#[tokio::test]
async fn malformed_requests_are_refused() {
    let node = Setup::shards(2).start().await;
    let mut driver = node.driver("d1").await;
    for Shape {
        name,
        request,
        statuses,
    } in SHAPES
    {
        let mut raw = Raw::connect(node.address).await;
        raw.try_send(format!("{request}{SMUGGLED}")).await;
        let answer = raw.expect_answer().await;
        assert!(statuses.contains(&answer.status), "{name}: {answer:?}");
        assert!(!answer.code().is_empty(), "{name}: {answer:?}");
        let rest = raw.rest().await;
        assert!(
            rest.is_empty(),
            "{name}: a second answer: {}",
            String::from_utf8_lossy(&rest)
        );
        driver.fence().await;
    }
    node.get("/v1/dispatch/request/smuggled")
        .await
        .problem(404, "no_such_request");
    // That the smuggled request is a right one, and would have been seen.
    let mut raw = Raw::connect(node.address).await;
    raw.send(SMUGGLED).await;
    assert_eq!(raw.expect_answer().await.status, 202);
    assert_eq!(driver.expect("OFFER").await["request_id"], "smuggled");
}

/// H1.12: a refusal in a pipeline comes after the answers to what was right before it.
#[tokio::test]
async fn malformed_in_a_pipeline() {
    let node = Setup::shards(1).start().await;
    let mut raw = Raw::connect(node.address).await;
    let right = "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n";
    raw.send(format!("{right}{right}nonsense\r\n\r\n{right}")).await;
    assert_eq!(raw.expect_answer().await.status, 200);
    assert_eq!(raw.expect_answer().await.status, 200);
    assert_eq!(raw.expect_answer().await.status, 400);
    raw.expect_end().await;
}

/// H1.12: heads beyond every bound are refused; the connection ends.
#[tokio::test]
async fn oversize_heads_are_refused() {
    let node = Setup::shards(1).start().await;
    let many = "X-Many: y\r\n".repeat(5000);
    let long_line = "x".repeat(128 << 10);
    let heads = [
        format!("GET /healthz HTTP/1.1\r\nHost: n\r\n{many}\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: n\r\nX: {long_line}\r\n\r\n"),
        format!("GET /{long_line} HTTP/1.1\r\nHost: n\r\n\r\n"),
        format!("GET /healthz HTTP/1.1\r\nHost: n\r\nX: {long_line}"),
        long_line.clone(),
    ];
    for head in heads {
        let mut raw = Raw::connect(node.address).await;
        raw.try_send(&head).await;
        let answer = raw.expect_answer().await;
        assert!([400, 413, 414, 431].contains(&answer.status), "{answer:?}");
        raw.rest().await;
    }
    assert_eq!(node.get("/healthz").await.status, 200);
}
