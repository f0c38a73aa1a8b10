//! One driver's WebSocket, as an app would hold it: everything that passes is noted.

use super::messages::{Id, ToDriver};
use super::observe::{Observer, OnSocket, Outcome, count};
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

/// Longest time for TCP connect and handshake together.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Buffers of one socket, in bytes: messages are small, drivers are many.
const BUFFER_BYTES: usize = 2048;

/// A connected driver.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    driver: Id,
    observer: Arc<Observer>,
}

/// Why a session is over.
#[derive(Debug)]
pub struct Closed {
    /// How long the node asked to stay away, when it drains.
    pub retry_after: Option<Duration>,
}

impl Socket {
    /// Connects `driver` to the node at `address`.
    ///
    /// # Errors
    /// What TCP or the handshake said.
    pub async fn connect(address: SocketAddr, driver: &Id, observer: &Arc<Observer>) -> Result<Self, Error> {
        let opening = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut request = format!("ws://{address}/ws/driver/{driver}").into_client_request()?;
            let protocol = HeaderValue::from_static("dispatch.v1");
            request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
            let config = WebSocketConfig::default()
                .read_buffer_size(BUFFER_BYTES)
                .write_buffer_size(0);
            client_async_with_config(request, stream, Some(config)).await
        };
        let late = || Error::Io(std::io::ErrorKind::TimedOut.into());
        let (stream, _) = tokio::time::timeout(CONNECT_MAX, opening).await.map_err(|_| late())??;
        Ok(Self {
            stream,
            driver: Id::clone(driver),
            observer: Arc::clone(observer),
        })
    }

    /// The next message of the node. Cancel-safe.
    ///
    /// # Errors
    /// The session is over; whatever the cause, the driver comes back.
    pub async fn next(&mut self) -> Result<ToDriver, Closed> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(message) = serde_json::from_str(&text) {
                        self.note(&message);
                        return Ok(message);
                    }
                    tracing::warn!(driver = %self.driver, %text, "not a message of the contract");
                }
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| frame.reason.to_string()).unwrap_or_default();
                    return Err(self.lost(retry_after(&reason)));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(self.lost(None)),
            }
        }
    }

    fn lost(&self, retry_after: Option<Duration>) -> Closed {
        self.observer.socket(&self.driver, OnSocket::Lost);
        Closed { retry_after }
    }

    /// Drops the connection without a word, as a phone in a tunnel does.
    pub fn vanish(self) {
        self.observer.socket(&self.driver, OnSocket::Lost);
    }

    /// `ACK`
    pub async fn ack(&mut self, request: &Id, attempt: u32) {
        let sent = OnSocket::SentAck {
            request: Id::clone(request),
            attempt,
        };
        self.observer.socket(&self.driver, sent);
        self.send(json!({"type": "ACK", "request_id": &**request, "attempt": attempt}))
            .await;
    }

    /// `ACCEPT` or `DECLINE`
    pub async fn answer(&mut self, request: &Id, attempt: u32, accept: bool) {
        let sent = OnSocket::SentAnswer {
            request: Id::clone(request),
            attempt,
            accept,
        };
        self.observer.socket(&self.driver, sent);
        let kind = if accept { "ACCEPT" } else { "DECLINE" };
        self.send(json!({"type": kind, "request_id": &**request, "attempt": attempt}))
            .await;
    }

    /// `TRIP`
    pub async fn trip(&mut self, trip: &Id, event: &'static str) {
        let sent = OnSocket::SentTrip {
            trip: Id::clone(trip),
            event,
        };
        self.observer.socket(&self.driver, sent);
        self.send(json!({"type": "TRIP", "trip_id": &**trip, "event": event}))
            .await;
    }

    /// `PING`
    pub async fn ping(&mut self) {
        self.send(json!({"type": "PING"})).await;
    }

    /// `LOCATION`
    pub async fn location(&mut self, lat: f64, lon: f64) {
        self.send(json!({"type": "LOCATION", "lat": lat, "lon": lon})).await;
    }

    /// A write that fails means that the socket is gone, which the next read tells.
    async fn send(&mut self, message: serde_json::Value) {
        let _ = self.stream.send(Message::text(message.to_string())).await;
    }

    fn note(&self, message: &ToDriver) {
        let id = |text: &String| Id::from(text.as_str());
        let what = match message {
            ToDriver::Welcome {
                session,
                state,
                trip_id,
                ..
            } => OnSocket::Welcome {
                session: *session,
                state: id(state),
                trip: trip_id.as_ref().map(id),
            },
            ToDriver::Offer {
                request_id,
                attempt,
                expires_at_ms,
                ..
            } => {
                count(&self.observer.counters.offers);
                OnSocket::Offer {
                    request: id(request_id),
                    attempt: *attempt,
                    expires_at_ms: *expires_at_ms,
                }
            }
            ToDriver::Confirmed {
                request_id,
                attempt,
                trip_id,
            } => outcome(request_id, *attempt, Outcome::Confirmed(id(trip_id))),
            ToDriver::Declined { request_id, attempt } => outcome(request_id, *attempt, Outcome::Declined),
            ToDriver::Revoked {
                request_id,
                attempt,
                reason,
            } => outcome(request_id, *attempt, Outcome::Revoked(id(reason))),
            ToDriver::State { state, trip_id } => OnSocket::State {
                state: id(state),
                trip: trip_id.as_ref().map(id),
            },
            ToDriver::TripCancelled { trip_id, .. } => OnSocket::TripCancelled { trip: id(trip_id) },
            ToDriver::Error { code, request_id, .. } => OnSocket::Error {
                code: id(code),
                request: request_id.as_ref().map(id),
            },
            ToDriver::Pong | ToDriver::Unknown => return,
        };
        self.observer.socket(&self.driver, what);
    }
}

fn outcome(request: &str, attempt: u32, outcome: Outcome) -> OnSocket {
    OnSocket::Outcome {
        request: request.into(),
        attempt,
        outcome,
    }
}

/// The `retry_after_ms=N` of a draining node's close reason.
fn retry_after(reason: &str) -> Option<Duration> {
    let digits = reason.split("retry_after_ms=").nth(1)?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draining_node_says_when_to_come_back() {
        let check = |reason, expect: Option<u64>| assert_eq!(retry_after(reason), expect.map(Duration::from_millis));
        check("draining retry_after_ms=1500", Some(1500));
        check("retry_after_ms=20 later", Some(20));
        check("displaced", None);
        check("retry_after_ms=", None);
    }
}
