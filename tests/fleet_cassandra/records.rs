//! Any node answers for what ended on another.

use crate::cluster::{shape, shared, unique};
use crate::support::{eventually, json, text};

#[tokio::test(flavor = "multi_thread")]
async fn every_node_answers_for_every_ended_request() {
    let Some(shared) = shared().await else { return };
    let (one, two) = (unique("n"), unique("n"));
    let (a, b) = (
        shared.cluster.node(&one).start().await,
        shared.cluster.node(&two).start().await,
    );
    let (driver, first, second) = (unique("d"), unique("r"), unique("r"));
    a.ended_request(&first, &driver).await;
    b.ended_request(&second, &driver).await;
    let all = [first.clone(), second.clone()];
    shared.cluster.until_there(&driver, &all).await;

    // Records of both, the same from both, newest first.
    let expect = [(second.clone(), two.clone()), (first.clone(), one.clone())];
    assert_eq!(a.records_lately(&driver).await, expect);
    assert_eq!(b.records_lately(&driver).await, expect);

    // The audit and the view of a request of the other node, as that node shows them.
    for path in [
        format!("/v1/dispatch/audit/{first}"),
        format!("/v1/dispatch/request/{first}"),
    ] {
        let (own, other) = (a.get(&path).await.ok(200), b.get(&path).await.ok(200));
        assert_eq!(own, other, "{path}");
    }
    let audit = b.get(&format!("/v1/dispatch/audit/{first}")).await.ok(200);
    assert!(
        audit["events"]
            .as_array()
            .unwrap()
            .iter()
            .all(|event| text(event, "node") == one),
        "{audit}"
    );

    // The id is known: the POST starts nothing, a cancel gets what the node itself would say.
    let again = b.post_offer(&first, &[&driver], &json!({})).await;
    assert_eq!(again.problem(409, "ended")["state"], "CANCELLED");
    assert_eq!(b.cancel(&first).await.ok(200)["state"], "CANCELLED");
    b.get(&format!("/v1/dispatch/request/{}", unique("nobody")))
        .await
        .problem(404, "no_such_request");
    assert_eq!(b.records_lately(&driver).await, expect);
}

/// Pages of both nodes' rows join without gaps or doubles.
#[tokio::test(flavor = "multi_thread")]
async fn pages_join_across_nodes() {
    let Some(shared) = shared().await else { return };
    let (one, two) = (unique("n"), unique("n"));
    let (a, b) = (
        shared.cluster.node(&one).start().await,
        shared.cluster.node(&two).start().await,
    );
    let driver = unique("d");
    let ids: Vec<String> = (0..20).map(|_| unique("p")).collect();
    for (number, id) in ids.iter().enumerate() {
        let node = if number % 3 == 0 { &a } else { &b };
        node.ended_request(id, &driver).await;
    }
    shared.cluster.until_there(&driver, &ids).await;
    let whole = a.records_lately(&driver).await;
    assert_eq!(whole.len(), 20);
    let today = jiff::Timestamp::now().strftime("%F");
    for limit in [1, 3, 7, 19, 20] {
        let (mut pages, mut before) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/drivers/{driver}/records?date={today}&limit={limit}{before}");
            let answer = a.get(&path).await;
            pages.extend(shape(&answer));
            match answer.json()["next_before"].as_str() {
                Some(mark) => before = format!("&before={mark}"),
                None => break,
            }
        }
        assert_eq!(pages, whole, "pages of {limit}");
    }
    a.get(&format!("/v1/drivers/{driver}/records?date={today}&before=nonsense"))
        .await
        .problem(400, "invalid");
}

/// What is written again changes nothing: neither how many rows there are nor what they say.
#[tokio::test(flavor = "multi_thread")]
async fn a_driver_s_trip_is_recorded_once() {
    let Some(shared) = shared().await else { return };
    let mut node = shared.cluster.node(&unique("n")).start().await;
    let (driver_id, request_id) = (unique("d"), unique("r"));
    let mut driver = node.driver(&driver_id).await;
    node.offer(&request_id, &[&driver_id], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    let trip_id = driver.accept(&offer).await;
    node.cancel_trip(&trip_id).await.ok(200);
    let session = shared.cluster.session().await;
    for _ in 0..3 {
        let stored = async || shared.cluster.request(&session, &request_id).await;
        let (state, _) = eventually("the request in Cassandra", stored).await;
        assert_eq!(state, "ACCEPTED");
        // The request's row is written as it is decided, the driver's by the batch after it.
        let recorded = async || (shared.cluster.records_of(&session, &driver_id).await > 0).then_some(());
        eventually("the record in Cassandra", recorded).await;
        assert_eq!(shared.cluster.records_of(&session, &driver_id).await, 1);
        // The mark is written late, so that a node that is killed here writes some again.
        node.crash_and_restart().await;
    }
}
