//! The classes of a shard's ingress, while the journal takes nothing: the data directory is on a file system that is
//! frozen for that long, so that what waits and in which order is no matter of luck.

use crate::support::disk::SmallDisk;
use crate::support::{Answer, Driver, Node, Raw, Setup, Value, api, eventually, json};
use tokio::task::JoinHandle;

/// Beyond what the embedded store is told to keep in reserve.
const DISK_BYTES: u64 = 256 << 20;
/// The least that the setting takes.
const BACKLOG_BYTES: u64 = 1 << 20;
/// Far more than the backlog holds.
const PLUGS_MAX: usize = 200;
const QUEUE_MAX: usize = 20;
/// Calls in one go: more than the queue has places.
const PIPELINED: usize = 2 * QUEUE_MAX;

/// A POST that is under way; its answer comes when the journal goes on.
struct Waiting {
    request_id: String,
    answer: JoinHandle<Answer>,
}

fn setup(disk: &SmallDisk) -> Setup {
    Setup::shards(1)
        .data(&disk.path().join("data"))
        .set("disk_reserve_bytes", 0)
        .set("journal_backlog_bytes_max", BACKLOG_BYTES)
}

fn post(node: &Node, request_id: &str, class: &str, note: &str) -> Waiting {
    let more = json!({"priority": class, "trip": {"note": note}});
    let body = api::offer(request_id, &["nobody"], &more);
    let request = node.http.post(node.url("/v1/dispatch/offer")).json(&body);
    let answer = async {
        Answer::read(request.send().await.expect("an answer"))
            .await
            .expect("an answer")
    };
    Waiting {
        request_id: request_id.to_owned(),
        answer: tokio::spawn(answer),
    }
}

async fn queued(node: &Node) -> u64 {
    node.metric("dispatchd_ingress_queue_requests", "").await
}

/// Posts until one has to wait, as the journal has enough to write.
async fn plug(node: &Node) -> Vec<Waiting> {
    let note = "x".repeat(15_000);
    let mut plugs = Vec::new();
    while queued(node).await == 0 {
        assert!(plugs.len() < PLUGS_MAX, "the journal takes everything");
        plugs.push(post(node, &format!("plug-{}", plugs.len()), "premium", &note));
        let all = plugs.len() as u64;
        let seen = || async {
            let known = node.metric("dispatchd_requests_open", "").await + queued(node).await;
            (known == all).then_some(())
        };
        eventually("a POST to be taken in or to wait", seen).await;
    }
    plugs
}

/// Posts one that has to wait, and sees that it does.
async fn queue(node: &Node, request_id: &str, class: &str) -> Waiting {
    let before = queued(node).await;
    let waiting = post(node, request_id, class, "");
    eventually("a POST to wait", || async {
        (queued(node).await > before).then_some(())
    })
    .await;
    waiting
}

async fn all_taken(waiting: Vec<Waiting>) {
    for Waiting { request_id, answer } in waiting {
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.ok(202)["request_id"], request_id);
    }
}

/// The requests in the order in which they were dispatched.
async fn served(node: &Node, count: usize) -> Vec<String> {
    let found = eventually("all requests to be dispatched", || async {
        let events = node.all_events().await;
        let ids = events.iter().map(|event| event["request_id"].as_str().expect("an id"));
        let ids: Vec<String> = ids.filter(|id| !id.starts_with("plug")).map(str::to_owned).collect();
        (ids.len() == count).then_some(ids)
    });
    found.await
}

/// V.6: what waits in a shard is served premium first, then standard, then economy, and in its order inside a class.
#[tokio::test]
async fn classes_are_served_in_their_order() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else {
        return;
    };
    let node = setup(&disk).set("ingress_age_step_ms", 600_000).start().await;
    let Some(frozen) = disk.freeze() else { return };
    let mut waiting = plug(&node).await;
    for round in 1..=3 {
        for class in ["economy", "standard", "premium"] {
            waiting.push(queue(&node, &format!("{class}-{round}"), class).await);
        }
    }
    drop(frozen);
    all_taken(waiting).await;
    let order = ["premium", "standard", "economy"];
    let expected = order
        .iter()
        .flat_map(|class| (1..=3).map(move |round| format!("{class}-{round}")));
    assert_eq!(served(&node, 9).await, expected.collect::<Vec<_>>());
}

/// V.6: a class that has waited a step longer than the next one goes before it, economy two steps before premium: it
/// does not wait for ever, however much premium comes.
#[tokio::test]
async fn who_has_waited_longer_goes_first() {
    const STEP_MS: u64 = 100;
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else {
        return;
    };
    let node = setup(&disk).set("ingress_age_step_ms", STEP_MS).start().await;
    let mut clock = node.driver("clock").await;
    let Some(frozen) = disk.freeze() else { return };
    let mut waiting = plug(&node).await;
    waiting.push(queue(&node, "economy-old", "economy").await);
    pass(&mut clock, 2 * STEP_MS).await;
    waiting.push(queue(&node, "standard", "standard").await);
    waiting.push(queue(&node, "premium", "premium").await);
    waiting.push(queue(&node, "economy-new", "economy").await);
    drop(frozen);
    all_taken(waiting).await;
    let order = served(&node, 4).await;
    assert_eq!(order[0], "economy-old", "{order:?}");
    assert_eq!(order[3], "economy-new", "{order:?}");
}

/// Until so much time has passed on the node's clock.
async fn pass(clock: &mut Driver, ms: u64) {
    let begin_ms = clock.server_time_ms().await;
    while clock.server_time_ms().await <= begin_ms + ms {}
}

/// V.6, H2.21: as the queue fills, economy is the first to be turned away, then standard, and premium last.
#[tokio::test]
async fn economy_is_turned_away_first() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else {
        return;
    };
    let node = setup(&disk).set("ingress_queue_max", QUEUE_MAX).start().await;
    let Some(frozen) = disk.freeze() else { return };
    let mut waiting = plug(&node).await;
    // Shares of the queue that a class may fill, with the one that waits already.
    for (class, share) in [("economy", 60), ("standard", 80), ("premium", 100)] {
        while queued(&node).await < (QUEUE_MAX * share / 100) as u64 {
            waiting.push(queue(&node, &format!("{class}-{}", waiting.len()), class).await);
        }
        for lower in ["economy", "standard", "premium"] {
            let refused = post(&node, &format!("refused-{class}-{lower}"), lower, "").answer;
            refused.await.expect("an answer").problem(429, "overloaded");
            if lower == class {
                break;
            }
        }
    }
    drop(frozen);
    all_taken(waiting).await;
    node.offer("refused-economy-economy", &["nobody"], &json!({"priority": "economy"}))
        .await;
}

fn pipelined(path: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: node\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Posts so many that have to wait that no class has a place left.
async fn fill(node: &Node) -> Vec<Waiting> {
    let mut waiting = plug(node).await;
    while queued(node).await < QUEUE_MAX as u64 {
        waiting.push(queue(node, &format!("premium-{}", waiting.len()), "premium").await);
    }
    waiting
}

/// H2.21: somebody who speaks of an id first opens no way around admission: its POST, behind the look-up of its own id, is
/// refused like any other.
#[tokio::test]
async fn a_spoken_of_id_is_no_way_in() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else {
        return;
    };
    let node = setup(&disk).set("ingress_queue_max", QUEUE_MAX).start().await;
    let Some(frozen) = disk.freeze() else { return };
    let waiting = fill(&node).await;
    let mut raw = Raw::connect(node.address).await;
    let ids: Vec<String> = (0..PIPELINED).map(|number| format!("spoken-of-{number}")).collect();
    let calls = ids.iter().map(|id| {
        let cancel = pipelined("/v1/dispatch/cancel", &json!({"request_id": id}));
        let offer = api::offer(id, &["nobody"], &json!({"priority": "premium"}));
        cancel + &pipelined("/v1/dispatch/offer", &offer)
    });
    raw.send(calls.collect::<String>()).await;
    for id in &ids {
        let cancelled = raw.expect_answer().await;
        assert_eq!((cancelled.status, cancelled.code().as_str()), (404, "no_such_request"));
        let posted = raw.expect_answer().await;
        assert_eq!(
            (posted.status, posted.code().as_str()),
            (429, "overloaded"),
            "{id}: {posted:?}"
        );
    }
    assert_eq!(queued(&node).await, QUEUE_MAX as u64);
    drop(frozen);
    all_taken(waiting).await;
}

/// H2.21: ids that are only spoken of take no places of new requests, however many they are.
#[tokio::test]
async fn unknown_ids_take_no_places() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else {
        return;
    };
    let node = setup(&disk).set("ingress_queue_max", QUEUE_MAX).start().await;
    let Some(frozen) = disk.freeze() else { return };
    let plugs = plug(&node).await;
    let mut raw = Raw::connect(node.address).await;
    let unknown = (0..PIPELINED).map(|number| {
        let id = format!("unknown-{number}");
        pipelined("/v1/dispatch/cancel", &json!({"request_id": id}))
    });
    let offer = api::offer("new", &["nobody"], &json!({"priority": "economy"}));
    let calls = unknown.collect::<String>() + &pipelined("/v1/dispatch/offer", &offer);
    raw.send(calls).await;
    for _ in 0..PIPELINED {
        assert_eq!(raw.expect_answer().await.status, 404);
    }
    drop(frozen);
    assert_eq!(raw.expect_answer().await.status, 202);
    all_taken(plugs).await;
}
