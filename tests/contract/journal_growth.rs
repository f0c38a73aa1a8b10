//! What the journal writes is in proportion to what happens, however long a request lives and however much is alive.

use crate::support::{Node, Setup, api, eventually, json};

/// The least that the setting takes: what is alive soon fills more segments than are kept.
const SEGMENT_BYTES: u64 = 2 << 20;
/// Segments beyond which what is alive in the oldest one is written again.
const SEGMENTS_KEPT: u64 = 3;
/// Written again is at most as much as anew, and something is on its way when it is looked at.
const FACTOR_MAX: u64 = 3;
const PAGE_BYTES: u64 = 4096;

async fn written(node: &Node) -> u64 {
    node.metric("dispatchd_journal_written_bytes_total", "").await
}

/// V.3: more is alive than fits the segments that are kept, and a request is posted again and again with new drivers: what
/// happens is written, and what is alive as often again as that takes; not without end.
#[tokio::test]
async fn more_is_alive_than_segments_hold() {
    const NOTE_BYTES: usize = 15_000;
    const DRIVERS: usize = 64;
    const REPOSTS: u64 = 40;
    let setup = Setup::shards(1).set("journal_segment_bytes", SEGMENT_BYTES);
    let node = setup.start().await;
    let note = "x".repeat(NOTE_BYTES);
    let requests = (SEGMENTS_KEPT + 1) * SEGMENT_BYTES / NOTE_BYTES as u64;
    for number in 0..requests {
        let body = api::offer(&format!("r{number}"), &["nobody"], &json!({"trip": {"note": note}}));
        // A segment of this size is full sooner than the next one is made.
        let taken = || async { (node.post("/v1/dispatch/offer", &body).await.status == 202).then_some(()) };
        eventually("a POST to be taken", taken).await;
    }
    // All drivers are asked at once, and that they are not there is one record.
    let more = json!({"busy_wait_ms": 1});
    for round in 0..REPOSTS {
        let names: Vec<String> = (0..DRIVERS).map(|place| format!("{round:0>60}-{place}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let taken = || async { (node.post_offer("again", &names, &more).await.status == 202).then_some(()) };
        eventually("a re-POST to be taken", taken).await;
    }
    // Each in a few writes of whole pages.
    let fresh_bytes = requests * (NOTE_BYTES as u64 + 3 * PAGE_BYTES) + REPOSTS * 8 * PAGE_BYTES;
    let bytes = written(&node).await;
    let most = FACTOR_MAX * fresh_bytes;
    assert!(bytes <= most, "{bytes} bytes, {most} at most");
    for number in 0..requests {
        node.cancel(&format!("r{number}")).await.ok(200);
    }
    let some_went = || async {
        let kept = node.metric("dispatchd_journal_segments", "").await;
        (kept * SEGMENT_BYTES < bytes).then_some(())
    };
    eventually("segments to go", some_went).await;
}
