//! The HTTP API as the matching engine calls it: retries under the same id, duplicates on purpose, everything noted.

use super::messages::{AuditView, EventLine, Id, OfferAnswer, RequestView, ResponseAnswer};
use super::observe::{Observer, OnApi, Outcome, count};
use reqwest::{Client, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a POST is repeated when the connection fails, the node is restarting or turns it away.
const RETRY_MAX: Duration = Duration::from_secs(40);
/// First pause before a repetition; doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(800);

/// A client of one node. Clones share connections.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    base: String,
    observer: Arc<Observer>,
}

/// One POST of an offer.
#[derive(Clone, Debug)]
pub struct Post {
    /// Of which request.
    pub request: Id,
    /// Its first candidates, rather than a re-dispatch.
    pub first: bool,
    /// The body.
    pub body: Value,
}

/// A client whose pool keeps the connections of so many concurrent calls.
///
/// # Errors
/// The HTTP library cannot start.
pub fn http_client() -> Result<Client, String> {
    Client::builder()
        .pool_max_idle_per_host(32)
        .tcp_nodelay(true)
        .no_proxy()
        .timeout(ANSWER_MAX)
        .build()
        .map_err(|error| format!("no HTTP client: {error}"))
}

impl Api {
    /// A client of the node at `address`.
    pub fn new(http: Client, address: SocketAddr, observer: Arc<Observer>) -> Self {
        let base = format!("http://{address}");
        Self { http, base, observer }
    }

    /// POSTs an offer until there is an answer, under the same id however often: a repetition of one that had arrived is
    /// absorbed by the node. `None`: there was no answer for [`RETRY_MAX`].
    pub async fn offer(&self, post: &Post) -> Option<(u16, OfferAnswer)> {
        let since = Instant::now();
        let mut pause = PAUSE;
        loop {
            match self.offer_once(post).await {
                Ok((status @ (429 | 503), _)) => {
                    count(&self.observer.counters.turned_away);
                    tracing::debug!(status, request = %post.request, "turned away");
                }
                Ok(answer) => return Some(answer),
                Err(error) => {
                    count(&self.observer.counters.repeats_after_loss);
                    tracing::debug!(%error, request = %post.request, "no answer");
                }
            }
            if since.elapsed() > RETRY_MAX {
                return None;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// POSTs an offer once.
    ///
    /// # Errors
    /// There was no (whole) answer.
    pub async fn offer_once(&self, post: &Post) -> Result<(u16, OfferAnswer), reqwest::Error> {
        self.observer.api(OnApi::Posted {
            request: Id::clone(&post.request),
            first: post.first,
            patient: post.body.get("busy_wait_ms").is_some(),
        });
        let url = format!("{}/v1/dispatch/offer", self.base);
        let response = self.http.post(url).json(&post.body).send().await?;
        let status = response.status().as_u16();
        let answer: OfferAnswer = response.json().await?;
        let counters = &self.observer.counters;
        match status {
            200 if answer.duplicate => count(&counters.duplicates_absorbed),
            // Ended otherwise than accepted, or all its candidates were tried: refused without effect.
            409 => count(&counters.duplicates_refused),
            _ => {}
        }
        self.observer.api(OnApi::Answered {
            request: Id::clone(&post.request),
            first: post.first,
            status,
            answer: answer.clone(),
        });
        Ok((status, answer))
    }

    /// A driver's answer over HTTP, once. `None`: no answer; the driver goes on as if it had not asked.
    pub async fn respond(&self, driver: &Id, request: &Id, attempt: u32, accept: bool) -> Option<Outcome> {
        let kind = if accept { "ACCEPT" } else { "DECLINE" };
        let body = json!({
            "driver_id": &**driver, "request_id": &**request, "response_type": kind, "attempt": attempt,
        });
        let answer: ResponseAnswer = self.post("/v1/dispatch/response", &body).await?;
        let outcome = match (answer.outcome.as_str(), answer.trip_id) {
            ("CONFIRMED", Some(trip)) => Outcome::Confirmed(trip.into()),
            ("DECLINED", _) => Outcome::Declined,
            _ => Outcome::TooLate,
        };
        self.observer.api(OnApi::Responded {
            request: Id::clone(request),
            driver: Id::clone(driver),
            attempt,
            outcome: outcome.clone(),
        });
        Some(outcome)
    }

    /// Takes a request back, once.
    pub async fn cancel(&self, request: &Id) {
        let body = json!({"request_id": &**request, "reason": "the passenger walked"});
        if self.post::<Value>("/v1/dispatch/cancel", &body).await.is_some() {
            self.observer.api(OnApi::Cancelled {
                request: Id::clone(request),
            });
        }
    }

    /// Ends a trip over the API, once.
    pub async fn cancel_trip(&self, trip: &Id) {
        let path = format!("/v1/trips/{trip}/cancel");
        let body = json!({"reason": "the passenger is not there"});
        if self.post::<Value>(&path, &body).await.is_some() {
            self.observer.api(OnApi::TripCancelled { trip: Id::clone(trip) });
        }
    }

    /// The audit of a request; `None` unless 200.
    pub async fn audit(&self, request: &Id) -> Option<AuditView> {
        self.get(&format!("/v1/dispatch/audit/{request}")).await
    }

    /// A request; `None` unless 200.
    pub async fn request(&self, request: &Id) -> Option<RequestView> {
        self.get(&format!("/v1/dispatch/request/{request}")).await
    }

    /// A driver's state; `None` unless 200.
    pub async fn driver_state(&self, driver: &Id) -> Option<String> {
        let view: Value = self.get(&format!("/v1/drivers/{driver}")).await?;
        view.get("state")?.as_str().map(str::to_owned)
    }

    /// Lines of the event stream after `after`, or after what `consumer` acknowledged.
    ///
    /// # Errors
    /// No answer, not 200, or a line that is no event; worth another try.
    pub async fn events(&self, consumer: &str, after: Option<u64>, wait: Duration) -> Result<Vec<EventLine>, String> {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let url = format!(
            "{}/v1/events?consumer={consumer}&wait_ms={}&limit=1000{after}",
            self.base,
            wait.as_millis()
        );
        let response = self.http.get(url).timeout(ANSWER_MAX + wait).send().await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.text().await.map_err(|error| error.to_string())?;
        if status != 200 {
            return Err(format!("{status}: {body}"));
        }
        let lines = body.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_str(line).map_err(|error| format!("{error} in {line}")))
            .collect()
    }

    /// Acknowledges events up to `cursor`. One that is lost is repeated with the next.
    pub async fn acknowledge(&self, consumer: &str, cursor: u64) {
        let body = json!({"consumer": consumer, "cursor": cursor});
        let _: Option<Value> = self.post("/v1/events/ack", &body).await;
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Option<T> {
        let sent = self.http.post(format!("{}{path}", self.base)).json(body).send();
        read_200(sent.await.ok()?).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let sent = self.http.get(format!("{}{path}", self.base)).send();
        read_200(sent.await.ok()?).await
    }
}

async fn read_200<T: DeserializeOwned>(response: Response) -> Option<T> {
    if response.status() == 200 {
        response.json().await.ok()
    } else {
        None
    }
}
