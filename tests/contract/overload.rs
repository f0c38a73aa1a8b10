//! More than is taken in: `429 overloaded`, the lowest class first, and nothing half done.

use crate::support::raw::RawAnswer;
use crate::support::{Raw, Setup, api, json, shards_1_and_4};
use futures_util::future::join_all;
use std::fmt::Write as _;

const CONNECTIONS: usize = 12;
const PIPELINED: usize = 60;
/// Floods after which one must have been refused.
const FLOODS_MAX: usize = 30;

#[derive(Debug, Default)]
struct Count {
    asked: usize,
    refused: usize,
}

/// H2.21, V.6: beyond what waits in a shard, requests are `429 overloaded` with `Retry-After`, economy before premium;
/// what is refused has left nothing behind, and can be posted again.
async fn beyond_the_queue_is_429(setup: Setup) {
    let node = setup.set("ingress_queue_max", 8).start().await;
    let (mut premium, mut economy) = (Count::default(), Count::default());
    for flood in 0..FLOODS_MAX {
        let flooding = (0..CONNECTIONS).map(|connection| pour(node.address, flood, connection));
        for (request_id, class, answer) in join_all(flooding).await.into_iter().flatten() {
            let count = if class == "premium" { &mut premium } else { &mut economy };
            count.asked += 1;
            if answer.status == 202 {
                continue;
            }
            count.refused += 1;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (429, "overloaded"),
                "{answer:?}"
            );
            let wait = answer.header("retry-after").expect("Retry-After");
            assert!(wait.parse::<u32>().is_ok(), "{answer:?}");
            if count.refused <= 3 {
                let unknown = node.get(&format!("/v1/dispatch/request/{request_id}")).await;
                unknown.problem(404, "no_such_request");
                node.offer(&request_id, &["nobody"], &json!({})).await;
            }
        }
        if economy.refused > 0 {
            break;
        }
    }
    assert!(economy.refused > 0, "{FLOODS_MAX} floods and no 429");
    // Per request asked for, premium is not refused more often.
    assert!(
        premium.refused * economy.asked <= economy.refused * premium.asked,
        "premium {premium:?}, economy {economy:?}"
    );
}

/// H9.3, H2.21: readers who wait for events, however many, keep no new request waiting.
#[tokio::test]
async fn waiting_readers_hold_nobody_up() {
    const READERS: usize = 80;
    const POLLS: usize = 64;
    let node = Setup::shards(1).start().await;
    let poll = "GET /v1/events?wait_ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = Raw::connect(node.address).await;
        reader.send(poll.repeat(POLLS)).await;
        readers.push(reader);
    }
    for number in 0..20 {
        node.offer(&format!("r{number}"), &["nobody"], &json!({})).await;
    }
}

/// Pipelined POSTs of one connection, every fifth of them premium; their answers.
async fn pour(
    address: std::net::SocketAddr,
    flood: usize,
    connection: usize,
) -> Vec<(String, &'static str, RawAnswer)> {
    let mut raw = Raw::connect(address).await;
    let mut requests = String::new();
    let mut asked = Vec::new();
    for number in 0..PIPELINED {
        let class = if number % 5 == 0 { "premium" } else { "economy" };
        let request_id = format!("r{flood}-{connection}-{number}");
        let body = api::offer(&request_id, &["nobody"], &json!({"priority": class})).to_string();
        let length = body.len();
        write!(
            requests,
            "POST /v1/dispatch/offer HTTP/1.1\r\nHost: node\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        asked.push((request_id, class));
    }
    raw.send(&requests).await;
    let mut answered = Vec::new();
    for (request_id, class) in asked {
        answered.push((request_id, class, raw.expect_answer().await));
    }
    answered
}

shards_1_and_4!(beyond_the_queue_is_429);
