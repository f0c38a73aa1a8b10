//! A full disk: new work is refused, nothing acknowledged is lost, and the node goes on when there is space again.

use crate::support::disk::SmallDisk;
use crate::support::{Answer, Driver, Node, Setup, Value, eventually, json, text};

/// Beyond what the embedded store keeps in reserve.
const DISK_BYTES: u64 = 1 << 30;
/// Small, so that the node soon needs a new one.
const SEGMENT_BYTES: u64 = 4 << 20;
/// POSTs after which the disk must have made itself felt: far beyond a journal segment.
const POSTS_MAX: usize = 4000;
/// The filler takes again what the node gave back, every so many POSTs.
const REFILL_EVERY: usize = 25;

/// V.3, H10.6: POSTs get `503 not_durable`, `readyz` is 503, no `CONFIRMED` lies; when space is freed the node takes work
/// again, and after a crash everything that was acknowledged is there.
#[tokio::test]
async fn full_disk_loses_nothing() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else {
        return;
    };
    let setup = Setup::shards(1).set("journal_segment_bytes", SEGMENT_BYTES);
    let mut node = setup.data(&disk.path().join("data")).start().await;
    let mut driver = node.driver("d1").await;
    node.offer(
        "open",
        &["d1"],
        &json!({"offer_timeout_ms": 600_000, "deadline_ms": 3_600_000}),
    )
    .await;
    let open = driver.expect("OFFER").await;
    disk.fill();
    let mut taken = vec!["open".to_owned()];
    let refused = post_until_refused(&node, &disk, &mut taken).await;
    refused.problem(503, "not_durable");
    eventually("readyz to be 503", || async {
        (node.get("/readyz").await.status == 503).then_some(())
    })
    .await;
    assert_eq!(node.get("/healthz").await.status, 200, "alive");
    driver.answer("ACCEPT", &open).await;
    for number in 0..20 {
        post_big(&node, &format!("full-{number}"), &mut taken).await;
    }
    assert!(node.is_running(), "a full disk is no reason to die");
    disk.free();
    eventually("readyz to be 200", || async {
        (node.get("/readyz").await.status == 200).then_some(())
    })
    .await;
    node.offer("after", &["nobody"], &json!({})).await;
    taken.push("after".to_owned());
    let trip_id = confirmed(&mut driver, &open).await;
    for _ in 0..2 {
        for request_id in &taken {
            node.audit(request_id).await;
        }
        let view = node.view("open").await;
        assert_eq!(
            (&view["state"], text(&view, "trip_id")),
            (&json!("ACCEPTED"), trip_id.as_str())
        );
        node.crash_and_restart().await;
    }
}

/// Posts until the node has no room left; gives that answer.
async fn post_until_refused(node: &Node, disk: &SmallDisk, taken: &mut Vec<String>) -> Answer {
    for number in 0..POSTS_MAX {
        if number % REFILL_EVERY == 0 {
            disk.fill();
        }
        let answer = post_big(node, &format!("big-{number}"), taken).await;
        if answer.status != 202 {
            return answer;
        }
    }
    panic!("{POSTS_MAX} POSTs went into a full disk");
}

/// One POST that takes room; noted when it was taken.
async fn post_big(node: &Node, request_id: &str, taken: &mut Vec<String>) -> Answer {
    let more = json!({"trip": {"note": "x".repeat(15_000)}, "deadline_ms": 3_600_000});
    let answer = node.post_offer(request_id, &["nobody"], &more).await;
    match answer.status {
        202 => taken.push(request_id.to_owned()),
        status => assert_eq!(status, 503, "{answer:?}"),
    }
    answer
}

/// The trip of an `ACCEPT` that was sent while nothing could be stored: its answer comes late, or when it is repeated.
async fn confirmed(driver: &mut Driver, open: &Value) -> String {
    driver.answer("ACCEPT", open).await;
    loop {
        let message = driver.next().await;
        if message["type"] == "CONFIRMED" {
            return text(&message, "trip_id").to_owned();
        }
        assert_ne!(message["type"], "REVOKED", "{message}");
    }
}
