//! What tests ask a node, in the contract's terms.

use super::{Answer, Node, Value, eventually, json, merged, number};

/// The body of a POST to `/v1/dispatch/offer` for these candidates, with `more` merged in.
pub fn offer(request_id: &str, candidates: &[&str], more: &Value) -> Value {
    let base = json!({
        "request_id": request_id,
        "candidates": candidates,
        "trip": {"pickup": "Lenox Hill West", "dropoff": "UN/Turtle Bay South"},
    });
    merged(base, more)
}

impl Node {
    /// `POST /v1/dispatch/offer` that must be taken as new. Gives the 202's body.
    pub async fn offer(&self, request_id: &str, candidates: &[&str], more: &Value) -> Value {
        let answer = self.post_offer(request_id, candidates, more).await;
        let body = answer.ok(202);
        assert_eq!(body["request_id"], request_id, "{body}");
        assert_eq!(body["duplicate"], false, "{body}");
        body
    }

    /// `POST /v1/dispatch/offer`, whatever comes of it.
    pub async fn post_offer(&self, request_id: &str, candidates: &[&str], more: &Value) -> Answer {
        let body = offer(request_id, candidates, more);
        self.post("/v1/dispatch/offer", &body).await
    }

    /// Has promises made on every shard. `WELCOME` and `STATE` promise nothing that a crash must not take back (contract
    /// §4.3); what was journaled before a promise is as durable as the promise.
    pub async fn settle(&self) {
        for number in 0..16 {
            self.offer(&format!("settle-{number}"), &["nobody"], &json!({})).await;
        }
    }

    /// `POST /v1/dispatch/response`.
    pub async fn respond(&self, driver_id: &str, request_id: &str, response: &str, attempt: Option<u64>) -> Answer {
        let body = json!({"driver_id": driver_id, "request_id": request_id, "response_type": response});
        let more = attempt.map_or(json!({}), |attempt| json!({"attempt": attempt}));
        self.post("/v1/dispatch/response", &merged(body, &more)).await
    }

    /// `POST /v1/dispatch/cancel`.
    pub async fn cancel(&self, request_id: &str) -> Answer {
        let body = json!({"request_id": request_id, "reason": "rider left"});
        self.post("/v1/dispatch/cancel", &body).await
    }

    /// `POST /v1/trips/{trip_id}/cancel`.
    pub async fn cancel_trip(&self, trip_id: &str) -> Answer {
        let path = format!("/v1/trips/{trip_id}/cancel");
        self.post(&path, &json!({"reason": "rider left"})).await
    }

    /// `GET /v1/dispatch/request/{request_id}`.
    pub async fn view(&self, request_id: &str) -> Value {
        self.get(&format!("/v1/dispatch/request/{request_id}")).await.ok(200)
    }

    /// The request's view once it is in this state.
    pub async fn until_state(&self, request_id: &str, state: &str) -> Value {
        let what = format!("request {request_id} to be {state}");
        eventually(&what, || async {
            let view = self.view(request_id).await;
            (view["state"] == state).then_some(view)
        })
        .await
    }

    /// `GET /v1/drivers/{driver_id}`.
    pub async fn driver_view(&self, driver_id: &str) -> Value {
        self.get(&format!("/v1/drivers/{driver_id}")).await.ok(200)
    }

    /// The driver's view once it is in this state.
    pub async fn until_driver(&self, driver_id: &str, state: &str) -> Value {
        let what = format!("driver {driver_id} to be {state}");
        eventually(&what, || async {
            let view = self.driver_view(driver_id).await;
            (view["state"] == state).then_some(view)
        })
        .await
    }

    /// `GET /v1/events` with this query: a line each, whatever they are.
    ///
    /// # Panics
    /// When the answer is not 200 with `application/x-ndjson`, or a line is no JSON object.
    pub async fn events(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/events?{query}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let kind = answer.header("content-type");
        assert!(kind.starts_with("application/x-ndjson"), "{answer:?}");
        answer.body.lines().map(event_line).collect()
    }

    /// All events from the oldest kept.
    pub async fn all_events(&self) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let query = all.last().map_or_else(String::new, after);
            let more = self.events(&query).await;
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    }

    /// Waits for an event of this type for this request. Looks from the oldest kept.
    pub async fn until_event(&self, request_id: &str, kind: &str) -> Value {
        let what = format!("event {kind} of {request_id}");
        let wanted = |event: &Value| event["type"] == kind && event["request_id"] == request_id;
        super::within(&what, async {
            let mut query = String::from("wait_ms=1000");
            loop {
                let events = self.events(&query).await;
                if let Some(found) = events.iter().find(|event| wanted(event)) {
                    return found.clone();
                }
                if let Some(last) = events.last() {
                    query = format!("{}&wait_ms=1000", after(last));
                }
            }
        })
        .await
    }

    /// The types of all events of a request, once there are as many as expected; compared in order.
    pub async fn assert_events(&self, request_id: &str, expected: &[&str]) {
        let last = *expected.last().expect("at least one expected event");
        self.until_event(request_id, last).await;
        let all = self.all_events().await;
        let kinds: Vec<&str> = all
            .iter()
            .filter(|event| event["request_id"] == request_id)
            .map(|event| super::text(event, "type"))
            .collect();
        assert_eq!(kinds, expected, "events of {request_id}");
    }

    /// Records of a driver on the day of `at_ms` (UTC), once there are at least `count`; newest first.
    pub async fn until_records(&self, driver_id: &str, at_ms: u64, count: usize) -> Vec<Value> {
        let path = format!("/v1/drivers/{driver_id}/records?date={}", utc_date(at_ms));
        eventually(&format!("{count} records of {driver_id}"), || async {
            let body = self.get(&path).await.ok(200);
            let records = body["records"].as_array().expect("records").clone();
            (records.len() >= count).then_some(records)
        })
        .await
    }

    /// The sum over the samples of a metric in whole numbers, labels aside; `filter` is a part of the sample's labels.
    pub async fn metric(&self, name: &str, filter: &str) -> u64 {
        let body = self.get("/metrics").await.body;
        let of_name = |line: &&str| line.split(['{', ' ']).next() == Some(name) && line.contains(filter);
        let samples: Vec<&str> = body.lines().filter(of_name).collect();
        assert!(!samples.is_empty(), "{name} is not shown");
        let value = |sample: &&str| sample.rsplit_once(' ').expect("a value").1.parse::<u64>();
        samples
            .iter()
            .map(|sample| value(sample).expect("a whole number"))
            .sum()
    }
}

/// One line of the event stream, checked for what all have (clause H9.2).
///
/// # Panics
/// When a field is missing or wrong.
pub fn event_line(line: &str) -> Value {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line:?}"));
    assert!(!event["cursor"].is_null(), "{event}");
    for field in ["type", "request_id"] {
        super::text(&event, field);
    }
    assert!(super::is_unix_ms(number(&event, "at_ms")), "{event}");
    event
}

/// A cursor as it stands in a query.
pub fn cursor_text(event: &Value) -> String {
    let cursor = &event["cursor"];
    cursor.as_str().map_or_else(|| cursor.to_string(), str::to_owned)
}

/// The query for what follows this event.
pub fn after(event: &Value) -> String {
    format!("after={}", cursor_text(event))
}

/// The UTC day of a time, as the records API takes it.
///
/// # Panics
/// When the time is outside what a calendar holds.
pub fn utc_date(at_ms: u64) -> String {
    let at_ms = i64::try_from(at_ms).expect("a time of this age");
    let at = jiff::Timestamp::from_millisecond(at_ms).expect("a time of this age");
    at.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}
