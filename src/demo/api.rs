//! The HTTP API as the matching engine calls it: retries under the same id, duplicates on purpose, everything noted.

use super::messages::{AuditView, EventLine, Id, OfferAnswer, RequestView, ResponseAnswer};
use super::observe::{Observer, OnApi, Outcome, Seen, count};
use reqwest::{Client, RequestBuilder, Response};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest wait for one answer of a node on this machine that is not held back by others.
pub const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long a POST is repeated when the connection fails, the node is restarting or turns it away.
const RETRY_MAX: Duration = Duration::from_secs(40);
/// First pause before a repetition; doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(800);

/// A client of one node, or of the nodes of a fleet, any of which answers every call. Clones share connections.
#[derive(Clone, Debug)]
pub struct Api {
    http: Client,
    /// The nodes, and where each stands among all of them.
    nodes: Arc<[(u16, SocketAddr)]>,
    /// Where the next call goes first.
    turn: Arc<AtomicUsize>,
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

/// A client whose pool keeps the connections of so many concurrent calls, and waits so long for an answer.
///
/// # Errors
/// The HTTP library cannot start.
pub fn http_client(answer_max: Duration) -> Result<Client, String> {
    Client::builder()
        .pool_max_idle_per_host(32)
        .tcp_nodelay(true)
        .no_proxy()
        .timeout(answer_max)
        .build()
        .map_err(|error| format!("no HTTP client: {error}"))
}

impl Api {
    /// A client of the node at `address`.
    pub fn new(http: Client, address: SocketAddr, observer: Arc<Observer>) -> Self {
        Self::of_fleet(http, &[address], observer)
    }

    /// A client of the nodes at `addresses`, at least one: calls go to each in turn, and to the next one when a node does
    /// not answer or cannot serve.
    ///
    /// # Panics
    /// When there is none.
    pub fn of_fleet(http: Client, addresses: &[SocketAddr], observer: Arc<Observer>) -> Self {
        assert!(!addresses.is_empty(), "a fleet has nodes");
        Self {
            http,
            nodes: (0..).zip(addresses.iter().copied()).collect(),
            turn: Arc::default(),
            observer,
        }
    }

    /// A client for each node alone.
    pub fn each(&self) -> impl Iterator<Item = Self> + '_ {
        self.nodes.iter().map(|node| Self {
            nodes: [*node].into(),
            ..self.clone()
        })
    }

    /// The nodes, each once, beginning with the one whose turn it is.
    fn rotation(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let nodes = Arc::clone(&self.nodes);
        (0..nodes.len()).map(move |next| nodes[(first + next) % nodes.len()].1)
    }

    /// Where a driver's app connects on its `tries`-th try: in a fleet where some node says, and when that failed to any node.
    /// `None`: no node answers.
    pub async fn place_of(&self, driver: &Id, tries: u32) -> Option<SocketAddr> {
        if self.nodes.len() == 1 || tries % 2 == 1 {
            return self.rotation().next();
        }
        let assigned: Value = self.get(&format!("/v1/fleet/assign?driver_id={driver}")).await?;
        assigned.get("address")?.as_str()?.parse().ok()
    }

    /// POSTs an offer until there is an answer, under the same id however often: a repetition of one that had arrived is
    /// absorbed by the node. `None`: there was no answer for [`RETRY_MAX`].
    pub async fn offer(&self, post: &Post) -> Option<(u16, OfferAnswer)> {
        let since = Instant::now();
        let mut pause = PAUSE;
        loop {
            for address in self.rotation() {
                match self.offer_once(address, post).await {
                    Ok((status @ (429 | 503), answer)) => {
                        count(&self.observer.counters.turned_away);
                        let code = answer.code.unwrap_or_default();
                        tracing::debug!(status, code, request = %post.request, "turned away");
                        self.unserved(&format!("{status} {code}"));
                    }
                    Ok(answer) => return Some(answer),
                    Err(error) => {
                        count(&self.observer.counters.repeats_after_loss);
                        tracing::debug!(%error, request = %post.request, "no answer");
                        self.unserved(kind_of(&error));
                    }
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
    async fn offer_once(&self, address: SocketAddr, post: &Post) -> Result<(u16, OfferAnswer), reqwest::Error> {
        self.observer.api(OnApi::Posted {
            request: Id::clone(&post.request),
            first: post.first,
            patient: post.body.get("busy_wait_ms").is_some(),
        });
        let url = format!("http://{address}/v1/dispatch/offer");
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

    fn unserved(&self, kind: &str) {
        self.observer.note(Seen::Unserved(kind.into()));
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

    /// Lines of the first node's event stream after `after`, or after what `consumer` acknowledged.
    ///
    /// # Errors
    /// No answer, not 200, or a line that is no event; worth another try.
    pub async fn events(&self, consumer: &str, after: Option<u64>, wait: Duration) -> Result<Vec<EventLine>, String> {
        let (stream, address) = self.nodes[0];
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let url = format!(
            "http://{address}/v1/events?consumer={consumer}&wait_ms={}&limit=1000{after}",
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
        let read = |line: &str| serde_json::from_str(line).map_err(|error| format!("{error} in {line}"));
        lines
            .map(|line| read(line).map(|event: EventLine| EventLine { stream, ..event }))
            .collect()
    }

    /// Acknowledges events of the first node up to `cursor`. One that is lost is repeated with the next.
    pub async fn acknowledge(&self, consumer: &str, cursor: u64) {
        let body = json!({"consumer": consumer, "cursor": cursor});
        let _: Option<Value> = self.post("/v1/events/ack", &body).await;
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Option<T> {
        read_200(
            self.call(|base| self.http.post(format!("{base}{path}")).json(body))
                .await?,
        )
        .await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        read_200(self.call(|base| self.http.get(format!("{base}{path}"))).await?).await
    }

    /// Sends a call to one node after the other until one serves it.
    async fn call(&self, of: impl Fn(&str) -> RequestBuilder) -> Option<Response> {
        for address in self.rotation() {
            match of(&format!("http://{address}")).send().await {
                Ok(response) if matches!(response.status().as_u16(), 429 | 503) => {
                    self.unserved(response.status().as_str());
                }
                Ok(response) => return Some(response),
                Err(error) => self.unserved(kind_of(&error)),
            }
        }
        None
    }
}

/// What became of a call that has no answer, in a word or two.
fn kind_of(error: &reqwest::Error) -> &'static str {
    if error.is_connect() {
        "refused"
    } else if error.is_timeout() {
        "no answer in time"
    } else {
        "cut off"
    }
}

async fn read_200<T: DeserializeOwned>(response: Response) -> Option<T> {
    if response.status() == 200 {
        response.json().await.ok()
    } else {
        None
    }
}
