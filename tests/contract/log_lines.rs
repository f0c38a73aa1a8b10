//! Log lines are for people; a node goes on when nobody takes them.

use crate::support::raw::{client_frame, unmasked_frame};
use crate::support::{Node, Raw, Setup, Value, json, raw};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Causes more lines than a pipe holds, and shows that the node still answers and ends in good order.
async fn serves_whoever_reads(log: &Path) {
    let setup = Setup::shards(1).set("log_repeat_per_s", 1_000_000).set("drain_ms", 0);
    let mut node = setup.logs_to(log).start().await;
    for _ in 0..1_000 {
        let mut raw = Raw::connect(node.address).await;
        raw.send("GARBAGE\r\n\r\n").await;
        assert_eq!(raw.expect_answer().await.status, 400);
    }
    node.terminate();
    assert_eq!(node.exit().await.code(), Some(0));
}

/// The log's disk is full.
#[tokio::test]
async fn nobody_can_write_it() {
    serves_whoever_reads(Path::new("/dev/full")).await;
}

/// Whoever reads the log stands still.
#[tokio::test]
async fn nobody_reads_it() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let fifo = scratch.path().join("log");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(made.success());
    serves_whoever_reads(&fifo).await;
}

/// How often each thing is done that a line tells of: more than the limit lets through at once.
const REPEATED: u64 = 20;

/// Everything that anybody can do wrong at once, and a driver who connects again.
async fn do_wrong(node: &Node) {
    for round in 0..REPEATED {
        let mut broken = Raw::connect(node.address).await;
        broken.send("GARBAGE\r\n\r\n").await;
        assert_eq!(broken.expect_answer().await.status, 400);
        node.post("/v1/dispatch/offer", &json!({"request_id": "r1", "candidates": []}))
            .await
            .problem(400, "invalid");
        let mut refused = Raw::connect(node.address).await;
        refused
            .send(raw::upgrade("d0").replace("dispatch.v1", "dispatch.v9"))
            .await;
        assert_eq!(refused.expect_answer().await.status, 400);
        let mut masked = Raw::websocket(node.address, &format!("unmasked-{round}")).await;
        masked.send(unmasked_frame(0x81, b"{}")).await;
        assert_eq!(masked.close_code().await, 1002);
        let id = format!("d{round}");
        let mut driver = Raw::websocket(node.address, &id).await;
        driver.send(client_frame(0x81, b"{}")).await;
        while !text(&mut driver).await.contains("\"ERROR\"") {}
        let _again = node.driver(&id).await;
        assert_eq!(driver.close_code().await, 4001);
    }
}

async fn text(raw: &mut Raw) -> String {
    let (_, payload) = raw.frame().await.expect("a frame");
    String::from_utf8(payload).expect("UTF-8")
}

/// Of what a peer causes a line is written now and then; each says how many were left out since the one before, and the
/// last ones how many were left out after that. So none is lost from the account.
#[tokio::test]
async fn lines_left_out_are_counted() {
    let scratch = tempfile::tempdir().expect("a temporary directory");
    let log = scratch.path().join("log");
    std::fs::write(&log, "").expect("a log file");
    let setup = Setup::shards(1).set("log_repeat_per_s", 1).set("log_format", "json");
    let mut node = setup.set("drain_ms", 0).logs_to(&log).start().await;
    do_wrong(&node).await;
    node.terminate();
    assert_eq!(node.exit().await.code(), Some(0));
    let log = std::fs::read_to_string(&log).expect("the log");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let left_out = |line: &Value| line["suppressed"].as_u64();
    let mut told = BTreeMap::new();
    for line in &lines {
        let message = crate::support::text(line, "message");
        // Both kinds of bad HTTP share a limit.
        let kind = match message {
            "bad HTTP" | "bad request" => "BadHttp",
            "bad handshake" => "BadHandshake",
            "bad frame" => "BadFrame",
            "bad message" => "BadMessage",
            "a driver connected again: 4001 to its older socket" => "Displaced",
            "more lines of this kind were left out" => {
                *told.entry(crate::support::text(line, "kind")).or_insert(0) += left_out(line).expect("a count");
                continue;
            }
            _ => continue,
        };
        // Nothing left out is not said.
        assert_ne!(left_out(line), Some(0), "{line}");
        *told.entry(kind).or_insert(0) += 1 + left_out(line).unwrap_or(0);
    }
    let expected = [
        ("BadFrame", REPEATED),
        ("BadHandshake", REPEATED),
        ("BadHttp", 2 * REPEATED),
        ("BadMessage", REPEATED),
        ("Displaced", REPEATED),
    ];
    assert_eq!(told, BTreeMap::from(expected), "{log}");
    assert!(
        lines.len() < usize::try_from(REPEATED).expect("a number") * 6,
        "nothing was left out"
    );
    for field in ["detail", "path", "reason", "error", "code"] {
        assert!(
            lines.iter().any(|line| !line[field].is_null()),
            "no line has a {field}: {log}"
        );
    }
}
