//! SIGTERM: an orderly end that loses nothing.

use crate::support::{Answer, Driver, Node, Raw, Setup, eventually, json, number, shards_1_and_4};
use futures_util::future::join_all;

/// The status of `/readyz` over a new connection; 0 when nobody listens any more.
async fn readiness(node: &Node) -> u16 {
    let asked = reqwest::Client::new().get(node.url("/readyz")).send().await;
    asked.map_or(0, |answer| answer.status().as_u16())
}

fn retry_after_ms(reason: &str) -> u64 {
    let digits = reason.strip_prefix("retry_after_ms=").expect("retry_after_ms=N");
    digits.parse().expect("milliseconds")
}

/// W1.19, H10.4, H10.5: readiness goes first and new work is `503 draining`, drivers are closed with 1012 and a jittered
/// `retry_after_ms`, the process exits 0.
async fn drains_and_exits_0(setup: Setup) {
    let mut node = setup.set("drain_ms", 3000).start().await;
    // A connection for each request: a draining node may end a kept connection at any time between two requests.
    node.http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let ids: Vec<String> = (0..12).map(|number| format!("d{number}")).collect();
    let mut drivers = join_all(ids.iter().map(|id| node.driver(id))).await;
    node.terminate();
    eventually("readyz to be 503", || async {
        (readiness(&node).await == 503).then_some(())
    })
    .await;
    let answer = node.post_offer("r1", &["d0"], &json!({})).await;
    answer.problem(503, "draining");
    assert_eq!(node.get("/healthz").await.status, 200, "alive until the end");
    let closed = join_all(drivers.iter_mut().map(Driver::closed)).await;
    let mut waits = Vec::new();
    for (code, reason) in closed {
        assert_eq!(code, 1012, "{reason}");
        waits.push(retry_after_ms(&reason));
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 1, "all are told to come back at once: {waits:?}");
    let status = node.exit().await;
    assert_eq!(status.code(), Some(0), "{status}");
}

/// W1.19: also of more drivers than a node closes at once, each is told when to come back.
#[tokio::test(flavor = "multi_thread")]
async fn many_drivers_at_once_are_told_when_to_come_back() {
    let mut node = Setup::shards(1).set("drain_ms", 0).start().await;
    let ids: Vec<String> = (0..1_300).map(|number| format!("d{number}")).collect();
    let mut drivers = join_all(ids.iter().map(|id| node.driver(id))).await;
    node.terminate();
    for (code, reason) in join_all(drivers.iter_mut().map(Driver::closed)).await {
        assert_eq!(code, 1012, "{reason}");
        retry_after_ms(&reason);
    }
    assert!(node.exit().await.success());
}

/// H9.3, H10.5: who waits for events when the drain begins is answered at once with what there is, and told that the connection ends.
async fn waiting_readers_are_answered(setup: Setup) {
    let mut node = setup.set("drain_ms", 500).start().await;
    let mut raw = Raw::connect(node.address).await;
    raw.send("GET /v1/events?wait_ms=60000 HTTP/1.1\r\nHost: node\r\n\r\n")
        .await;
    eventually("the reader to wait", || async {
        (node.metric("dispatchd_store_polls_parked", "").await == 1).then_some(())
    })
    .await;
    node.terminate();
    let answer = raw.expect_answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    raw.expect_end().await;
    assert!(node.exit().await.success());
}

/// H10.5: a signal at any time, also before the node is ready, ends it with status 0.
async fn signals_are_heard_from_the_start(setup: Setup) {
    let mut node = setup.set("drain_ms", 0).prepare();
    for _ in 0..10 {
        node.spawn();
        eventually("somebody to listen", || async {
            tokio::net::TcpStream::connect(node.address).await.ok()
        })
        .await;
        node.terminate();
        assert_eq!(node.exit().await.code(), Some(0));
    }
}

/// H10.5, V.3, V.4: open offers, trips, pending requests and events are all there after a drain and a restart.
async fn nothing_is_lost(setup: Setup) {
    let mut node = setup.set("drain_ms", 1000).start().await;
    let mut driver = node.driver("open").await;
    let mut bound = node.driver("bound").await;
    node.offer("open", &["open"], &json!({"offer_timeout_ms": 600_000}))
        .await;
    let open = driver.expect("OFFER").await;
    node.offer("bound", &["bound"], &json!({})).await;
    let offer = bound.expect("OFFER").await;
    let trip_id = bound.accept(&offer).await;
    node.offer("pending", &["nobody"], &json!({})).await;
    let event = node.until_event("pending", "REDISPATCH_REQUESTED").await;
    node.until_audit("open", "OFFER_DELIVERED 1").await;
    let before = node.audit("open").await;
    let views = join_all(["open", "bound", "pending"].map(|id| node.view(id))).await;
    node.terminate();
    assert!(node.exit().await.success());
    node.spawn();
    node.until_ready().await;
    for view in views {
        let id = view["request_id"].as_str().unwrap();
        assert_eq!(node.view(id).await, view);
    }
    assert_eq!(node.audit("open").await[..before.len()], before[..]);
    assert_eq!(node.until_event("pending", "REDISPATCH_REQUESTED").await, event);
    let mut driver = node.driver("open").await;
    let again = driver.expect("OFFER").await;
    assert_eq!(again["expires_at_ms"], open["expires_at_ms"]);
    assert!(number(&again, "ttl_ms") <= number(&open, "ttl_ms"));
    driver.accept(&again).await;
    assert_eq!(node.driver("bound").await.welcome["trip_id"], trip_id.as_str());
}

/// H10.5: while drivers are sent away, callers and drivers are still answered, wherever a request is at home: no part of
/// the node ends because it has no drivers of its own.
async fn serves_while_it_drains(setup: Setup) {
    let mut node = setup.set("drain_ms", 4000).start().await;
    node.http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let mut driver = node.driver("d1").await;
    let ids: Vec<String> = (0..8).map(|number| format!("r{number}")).collect();
    for id in &ids {
        node.offer(id, &["nobody"], &json!({})).await;
    }
    node.offer("open", &["d1"], &json!({"offer_timeout_ms": 60_000})).await;
    let offer = driver.expect("OFFER").await;
    node.terminate();
    eventually("readyz to be 503", || async {
        (readiness(&node).await == 503).then_some(())
    })
    .await;
    // Again and again over the first half of the drain, by the node's own clock.
    let begun_ms = driver.server_time_ms().await;
    while driver.server_time_ms().await < begun_ms + 2_000 {
        for id in &ids {
            node.cancel(id).await.ok(200);
            assert_eq!(node.view(id).await["state"], "CANCELLED");
        }
    }
    driver.accept(&offer).await;
    assert_eq!(driver.closed().await.0, 1012);
    assert!(node.exit().await.success());
}

/// H10.5: a second SIGTERM ends it at once, long before `drain_ms`.
async fn second_signal_ends_it_at_once(setup: Setup) {
    let mut node = setup.set("drain_ms", 600_000).start().await;
    let drivers = join_all((0..8).map(|number| node.driver(["a", "b", "c", "d", "e", "f", "g", "h"][number]))).await;
    node.terminate();
    eventually("readyz to be 503", || async {
        (readiness(&node).await == 503).then_some(())
    })
    .await;
    assert!(node.is_running());
    node.terminate();
    assert_eq!(node.exit().await.code(), Some(0));
    drop(drivers);
}

/// H10.5: without anybody connected there is nothing to wait for.
#[tokio::test]
async fn an_empty_node_exits() {
    let mut node = Setup::shards(2).set("drain_ms", 0).start().await;
    node.terminate();
    assert_eq!(node.exit().await.code(), Some(0));
}

/// H10.5, V.3: SIGTERM in the middle of POSTs: each was either answered 202 and is there after the restart, or it was
/// refused.
async fn under_load(setup: Setup) {
    const POSTS: usize = 200;
    let mut node = setup.set("drain_ms", 200).start().await;
    let answers: Vec<Option<Answer>> = {
        let posting = join_all((0..POSTS).map(|number| post(&node, number)));
        let (answers, ()) = tokio::join!(posting, async {
            // When the first are in.
            eventually("the first request", || async {
                (node.get("/v1/dispatch/request/r0").await.status == 200).then_some(())
            })
            .await;
            node.terminate();
        });
        answers
    };
    assert!(node.exit().await.success());
    node.spawn();
    node.until_ready().await;
    for (number, answer) in answers.iter().enumerate() {
        match answer {
            Some(answer) if answer.status == 202 => {
                node.view(&format!("r{number}")).await;
            }
            Some(answer) => {
                answer.problem(503, "draining");
            }
            // Cut off: it may or may not be there.
            None => {}
        }
    }
}

async fn post(node: &Node, number: usize) -> Option<Answer> {
    let body = crate::support::api::offer(&format!("r{number}"), &["nobody"], &json!({}));
    let request = node.http.post(node.url("/v1/dispatch/offer")).json(&body);
    match request.send().await {
        Ok(response) => Answer::read(response).await.ok(),
        Err(_) => None,
    }
}

shards_1_and_4!(
    drains_and_exits_0,
    waiting_readers_are_answered,
    signals_are_heard_from_the_start,
    nothing_is_lost,
    serves_while_it_drains,
    second_signal_ends_it_at_once,
    under_load
);
