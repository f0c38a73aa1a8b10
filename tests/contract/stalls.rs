//! Clients that stop reading: `output_stall_ms`, and the bound on answers that wait for an HTTP client.

use crate::support::raw::{client_frame, upgrade};
use crate::support::{Node, Raw, Setup, eventually, json};
use std::fmt::Write as _;

/// Beyond what the kernel takes for a socket whose peer does not read (4 MiB where nothing was tuned).
const MORE_THAN_SOCKETS_TAKE: usize = 12 << 20;

/// A connection whose receiving side takes as little as the kernel allows.
async fn narrow(node: &Node) -> Raw {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    Raw::over(socket.connect(node.address).await.unwrap())
}

async fn cut_as_slow(node: &Node) -> usize {
    let metrics = node.get("/metrics").await.body;
    let name = "dispatchd_connections_closed_total{cause=\"slow_consumer\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(name));
    value.expect("the counter of slow consumers").parse().unwrap()
}

/// A driver's socket that takes nothing for `output_stall_ms` is closed, however little of its queue is used.
#[tokio::test]
async fn stalled_driver_is_closed() {
    let setup = Setup::shards(1).set("output_queue_bytes_max", 64 << 20);
    let node = setup.set("output_stall_ms", 300).start().await;
    let mut other = node.driver("other").await;
    let mut raw = narrow(&node).await;
    raw.send(upgrade("stalled")).await;
    let ping = client_frame(0x89, &[7; 120]);
    let pings = ping.repeat(1_000);
    for _ in 0..MORE_THAN_SOCKETS_TAKE / pings.len() {
        // It may be closed before the last of them.
        if !raw.try_send(&pings).await {
            break;
        }
    }
    eventually("the stalled driver to be closed", || async {
        (cut_as_slow(&node).await == 1).then_some(())
    })
    .await;
    other.fence().await;
    assert_eq!(
        node.driver_view("stalled").await["state"],
        "available",
        "within its TTL"
    );
}

/// One that says that it sends no more, and then reads nothing, is not waited for for ever.
#[tokio::test]
async fn stalled_driver_that_half_closed_is_cut() {
    let setup = Setup::shards(1).set("output_queue_bytes_max", 64 << 20);
    let node = setup.set("output_stall_ms", 2_000).start().await;
    let mut raw = narrow(&node).await;
    raw.send(upgrade("stalled")).await;
    let pings = client_frame(0x89, &[7; 120]).repeat(1_000);
    for _ in 0..MORE_THAN_SOCKETS_TAKE / pings.len() {
        raw.send(&pings).await;
    }
    raw.half_close().await;
    raw.expect_reset().await;
}

/// An HTTP client that does not read its answers is cut.
#[tokio::test]
async fn stalled_http_client_is_cut() {
    let node = Setup::shards(1).set("output_stall_ms", 300).start().await;
    let mut raw = narrow(&node).await;
    let asked = "GET /openapi.json HTTP/1.1\r\nHost: node\r\n\r\n".repeat(64);
    // Each answer is tens of kilobytes; reading stops long before all are asked for.
    for _ in 0..8 {
        if !raw.try_send(&asked).await {
            break;
        }
    }
    eventually("the stalled client to be cut", || async {
        (cut_as_slow(&node).await == 1).then_some(())
    })
    .await;
}

/// Pages of events are read one at a time, and the next one when the client has taken most of the last: what waits for a client
/// that does not read is bounded.
#[tokio::test]
async fn pages_wait_for_a_client_that_reads() {
    const ASKED: usize = 64;
    const OTHERS: u64 = 20;
    let node = Setup::shards(1).start().await;
    let note = "x".repeat(15_000);
    for number in 0..60 {
        let more = json!({"trip": {"note": note}});
        node.offer(&format!("r{number}"), &["nobody"], &more).await;
        node.until_event(&format!("r{number}"), "REDISPATCH_REQUESTED").await;
    }
    let before = node.metric("dispatchd_store_pages_total", "").await;
    let mut raw = narrow(&node).await;
    raw.send("GET /v1/events?limit=1000 HTTP/1.1\r\nHost: node\r\n\r\n".repeat(ASKED))
        .await;
    for _ in 0..OTHERS {
        node.events("limit=1").await;
    }
    let pages = node.metric("dispatchd_store_pages_total", "").await - before - OTHERS;
    assert!(
        pages < ASKED as u64 / 2,
        "{pages} pages of almost a megabyte each were read for nobody"
    );
    for _ in 0..ASKED {
        assert_eq!(raw.expect_answer().await.status, 200);
    }
}

/// A client that asks for more than may wait for it gets everything, in order, when it reads.
#[tokio::test]
async fn answers_wait_for_a_client_that_reads_late() {
    const ASKED: usize = 300;
    let setup = Setup::shards(1).set("output_queue_bytes_max", 64 << 10);
    let node = setup.start().await;
    let mut raw = narrow(&node).await;
    let mut asked = String::new();
    for number in 0..ASKED {
        let path = if number % 3 == 0 { "/healthz" } else { "/openapi.json" };
        write!(asked, "GET {path} HTTP/1.1\r\nHost: node\r\n\r\n").unwrap();
    }
    raw.send(&asked).await;
    raw.half_close().await;
    for number in 0..ASKED {
        let answer = raw.expect_answer().await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body.len() < 100, number % 3 == 0, "answer {number}");
    }
    raw.expect_end().await;
}
