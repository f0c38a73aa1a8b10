//! Log lines are for people; a node goes on when nobody takes them.

use crate::support::{Raw, Setup};
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
