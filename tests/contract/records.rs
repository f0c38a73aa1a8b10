//! `GET /v1/drivers/{driver_id}/records`, and the driver's view beside it.

use crate::support::{Driver, Node, Setup, Value, api, is_unix_ms, json, number, shards_1_and_4, text};

/// Offers to a driver, later by the node's clock than whatever came before: records are ordered by that time.
async fn offered(node: &Node, driver: &mut Driver, request_id: &str, more: &Value) -> Value {
    driver.next_ms().await;
    node.offer(request_id, &[&driver.id.clone()], more).await;
    driver.expect("OFFER").await
}

/// The time of the first `OFFER_SENT` or refusal of a request: the day of its record.
async fn offered_at_ms(node: &Node, request_id: &str) -> u64 {
    let audit = node.audit(request_id).await;
    let begun = |event: &&Value| matches!(event["event"].as_str(), Some("OFFER_SENT" | "OFFER_REFUSED"));
    number(audit.iter().find(begun).expect("an attempt"), "at_ms")
}

/// One attempt of each kind of outcome, in order; a request's id is what became of it. Gives the trip.
async fn one_of_each(node: &Node, driver: &mut Driver) -> String {
    let offer = offered(node, driver, "DECLINED", &json!({})).await;
    driver.decline(&offer).await;
    let offer = offered(node, driver, "TIMEOUT", &json!({"offer_timeout_ms": 100})).await;
    driver.expect_revoked(&offer, "timeout").await;
    let offer = offered(node, driver, "REVOKED", &json!({})).await;
    node.cancel("REVOKED").await.ok(200);
    driver.expect_revoked(&offer, "cancelled").await;
    let offer = offered(node, driver, "ACCEPTED", &json!({})).await;
    let trip_id = driver.accept(&offer).await;
    driver.next_ms().await;
    node.offer("REFUSED", &[&driver.id.clone()], &json!({})).await;
    node.until_audit("REFUSED", &format!("OFFER_REFUSED 1 {}", driver.id))
        .await;
    trip_id
}

const NEWEST_FIRST: [&str; 5] = ["REFUSED", "ACCEPTED", "REVOKED", "TIMEOUT", "DECLINED"];

fn request_ids(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| text(record, "request_id")).collect()
}

/// H8.2, H8.3: every attempt has its record with its outcome, newest first; the same after a crash.
async fn every_outcome_is_recorded(setup: Setup) {
    let mut node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let trip_id = one_of_each(&node, &mut driver).await;
    let first_ms = offered_at_ms(&node, "DECLINED").await;
    let last_ms = offered_at_ms(&node, "REFUSED").await;
    for _ in 0..2 {
        // All on one day, unless midnight came in between: then the later day is read first.
        let mut records = node.until_records("d1", last_ms, 1).await;
        if api::utc_date(first_ms) == api::utc_date(last_ms) {
            records = node.until_records("d1", last_ms, 5).await;
        } else {
            let count = 5 - records.len();
            records.extend(node.until_records("d1", first_ms, count).await);
        }
        assert_eq!(request_ids(&records), NEWEST_FIRST);
        for record in &records {
            check_record(record, &trip_id);
        }
        node.crash_and_restart().await;
    }
}

fn check_record(record: &Value, trip_id: &str) {
    let kind = text(record, "request_id");
    assert_eq!(record["response_type"], kind, "{record}");
    assert_eq!(record["attempt"], 1, "{record}");
    let (sent, answered) = (number(record, "offer_sent_at_ms"), number(record, "response_at_ms"));
    assert!(is_unix_ms(sent) && sent <= answered, "{record}");
    assert!(!text(record, "gateway_node_id").is_empty(), "{record}");
    if kind == "ACCEPTED" {
        assert_eq!(record["trip_id"], trip_id, "{record}");
    } else {
        assert!(record["trip_id"].is_null(), "{record}");
    }
}

/// H8.3: losing a parallel offer is `REVOKED`, for the attempt that lost.
async fn losing_is_recorded(setup: Setup) {
    let node = setup.start().await;
    let (mut a, mut b) = (node.driver("a").await, node.driver("b").await);
    node.offer("r1", &["a", "b"], &json!({"parallel": 2})).await;
    let lost = a.expect("OFFER").await;
    let won = b.expect("OFFER").await;
    let trip_id = b.accept(&won).await;
    a.expect_revoked(&lost, "taken").await;
    let at_ms = offered_at_ms(&node, "r1").await;
    let of_a = node.until_records("a", at_ms, 1).await;
    assert_eq!(
        (&of_a[0]["response_type"], &of_a[0]["attempt"]),
        (&json!("REVOKED"), &json!(1))
    );
    let of_b = node.until_records("b", at_ms, 1).await;
    assert_eq!(
        (&of_b[0]["response_type"], &of_b[0]["attempt"]),
        (&json!("ACCEPTED"), &json!(2))
    );
    assert_eq!(of_b[0]["trip_id"], trip_id.as_str());
}

/// H8.4: pages by `limit` and `before`: all records once, newest first, the last page without `next_before`.
async fn records_come_in_pages(setup: Setup) {
    const COUNT: usize = 11;
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let mut at_ms = Vec::new();
    for number in 0..COUNT {
        let request_id = format!("r{number}");
        let offer = offered(&node, &mut driver, &request_id, &json!({})).await;
        driver.decline(&offer).await;
        at_ms.push(offered_at_ms(&node, &request_id).await);
    }
    let date = api::utc_date(at_ms[COUNT - 1]);
    let on_that_day = at_ms.iter().filter(|at_ms| api::utc_date(**at_ms) == date).count();
    let all = node.until_records("d1", at_ms[COUNT - 1], on_that_day).await;
    for limit in [1, 3, COUNT + 1] {
        let mut paged: Vec<Value> = Vec::new();
        let mut query = format!("date={date}&limit={limit}");
        loop {
            let body = node.get(&format!("/v1/drivers/d1/records?{query}")).await.ok(200);
            assert_eq!((&body["driver_id"], &body["date"]), (&json!("d1"), &json!(date)));
            let page = body["records"].as_array().unwrap();
            assert!(page.len() <= limit, "{body}");
            paged.extend(page.iter().cloned());
            if body["next_before"].is_null() {
                break;
            }
            assert_eq!(page.len(), limit, "only a full page has a next one: {body}");
            let next = &body["next_before"];
            let next = next.as_str().map_or_else(|| next.to_string(), str::to_owned);
            query = format!("date={date}&limit={limit}&before={next}");
            assert!(paged.len() <= on_that_day, "pages go on for ever");
        }
        assert_eq!(paged, all, "in pages of {limit}");
    }
}

/// H8.4, H1.3: a day without records is empty; a bad day, limit or driver is `400 invalid`; an unknown driver 404.
#[tokio::test]
async fn queries_are_checked() {
    let node = Setup::shards(1).start().await;
    node.driver("d1").await.fence().await;
    let body = node.get("/v1/drivers/d1/records?date=2019-03-13").await.ok(200);
    assert_eq!((&body["records"], &body["date"]), (&json!([]), &json!("2019-03-13")));
    assert!(body["next_before"].is_null(), "{body}");
    let wrong = [
        "date=2019-3-13",
        "date=2019-02-30",
        "date=2019-13-01",
        "date=yesterday",
        "date=",
        "date=2019-03-13&limit=0",
        "date=2019-03-13&limit=-1",
        "date=2019-03-13&limit=x",
        "date=2019-03-13&before=%FF",
        "date=2019-03-13&before=x!y",
    ];
    for query in wrong {
        let answer = node.get(&format!("/v1/drivers/d1/records?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {answer:?}");
        answer.problem(400, "invalid");
    }
}

/// H8.1: the driver's view: when it was last seen, and by which node.
async fn view_of_a_driver(setup: Setup) {
    let node = setup.start().await;
    let mut driver = node.driver("d1").await;
    let view = node.driver_view("d1").await;
    assert_eq!(
        (&view["driver_id"], &view["state"]),
        (&json!("d1"), &json!("available"))
    );
    assert!(
        view["trip_id"].is_null() && view["offer"].is_null() && view["location"].is_null(),
        "{view}"
    );
    assert!(!text(&view, "node").is_empty(), "{view}");
    let seen = number(&view, "last_seen_ms");
    driver.fence().await;
    let again = number(&node.driver_view("d1").await, "last_seen_ms");
    // The contract leaves open whether it is a time or the duration since: a time does not fall.
    assert!(!is_unix_ms(seen) || again >= seen, "{view}");
}

shards_1_and_4!(
    every_outcome_is_recorded,
    losing_is_recorded,
    records_come_in_pages,
    view_of_a_driver
);
