//! A driver's app: a WebSocket client (tokio-tungstenite) that speaks the contract's messages.

use super::{Node, Value, json, number, text, within};
use futures_util::{SinkExt, StreamExt};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request};
use tokio_tungstenite::tungstenite::protocol::Message;

/// The subprotocol of the contract.
pub const SUBPROTOCOL: &str = "dispatch.v1";

/// What came from the server.
#[derive(Debug)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A pong frame.
    Pong(Vec<u8>),
    /// A close frame, with its code and reason (1005 when it had none); the closing handshake is complete.
    Closed(u16, String),
    /// The connection ended without a close frame.
    Broken(String),
}

/// A connected driver whose `WELCOME` is read.
#[derive(Debug)]
pub struct Driver {
    /// Its id.
    pub id: String,
    /// The `WELCOME`.
    pub welcome: Value,
    socket: WebSocketStream<TcpStream>,
}

/// A handshake request with the contract's subprotocol.
pub fn handshake(address: SocketAddr, id: &str) -> Request<()> {
    let mut request = handshake_without_subprotocol(address, id);
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    request
}

/// A handshake request that names no subprotocol.
///
/// # Panics
/// When `id` cannot stand in a URI.
pub fn handshake_without_subprotocol(address: SocketAddr, id: &str) -> Request<()> {
    let uri = format!("ws://{address}/ws/driver/{id}");
    uri.into_client_request().expect("a WebSocket URI")
}

/// The handshake of `request` with the node; gives the server's head too.
///
/// # Errors
/// What tungstenite says: among others `Error::Http` with the server's answer.
pub async fn shake(address: SocketAddr, request: Request<()>) -> Result<(WebSocketStream<TcpStream>, Response), Error> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    tokio_tungstenite::client_async(request, stream).await
}

impl Driver {
    /// Connects and reads the `WELCOME`.
    ///
    /// # Panics
    /// When the node does not let it in.
    pub async fn connect(node: &Node, id: &str) -> Self {
        let connecting = Self::try_connect(node.address, id);
        let connected = within("the handshake and WELCOME", connecting).await;
        connected.unwrap_or_else(|error| panic!("driver {id}: {error}"))
    }

    /// Connects and reads the `WELCOME`.
    ///
    /// # Errors
    /// What stood in the way, in words.
    pub async fn try_connect(address: SocketAddr, id: &str) -> Result<Self, String> {
        let shaken = shake(address, handshake(address, id)).await;
        let (socket, _) = shaken.map_err(|error| format!("handshake: {error}"))?;
        Self::welcomed(socket, id).await
    }

    /// The driver on a socket whose handshake is done.
    ///
    /// # Errors
    /// When anything but a `WELCOME` comes first.
    pub async fn welcomed(socket: WebSocketStream<TcpStream>, id: &str) -> Result<Self, String> {
        let mut driver = Self {
            id: id.to_owned(),
            welcome: Value::Null,
            socket,
        };
        match driver.receive().await {
            Received::Text(first) => {
                driver.welcome = serde_json::from_str(&first).map_err(|error| error.to_string())?;
            }
            other => return Err(format!("no WELCOME: {other:?}")),
        }
        if driver.welcome["type"] == "WELCOME" {
            Ok(driver)
        } else {
            Err(format!("no WELCOME: {}", driver.welcome))
        }
    }

    /// The `session` of its `WELCOME`.
    pub fn session(&self) -> u64 {
        number(&self.welcome, "session")
    }

    /// The next thing from the server, however long it takes. Pings are answered by the client library.
    pub async fn receive(&mut self) -> Received {
        loop {
            return match self.socket.next().await {
                Some(Ok(Message::Text(text))) => Received::Text(text.as_str().to_owned()),
                Some(Ok(Message::Pong(payload))) => Received::Pong(payload.to_vec()),
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Binary(bytes))) => Received::Broken(format!("a binary frame: {bytes:?}")),
                Some(Ok(Message::Close(frame))) => {
                    // Reading on sends the answering close frame and sees the end of the stream.
                    while let Some(Ok(_)) = self.socket.next().await {}
                    frame.map_or(Received::Closed(1005, String::new()), |frame| {
                        Received::Closed(frame.code.into(), frame.reason.as_str().to_owned())
                    })
                }
                Some(Err(error)) => Received::Broken(error.to_string()),
                None => Received::Broken("end of the stream".to_owned()),
            };
        }
    }

    /// The text of the next message.
    ///
    /// # Panics
    /// When something else comes, or nothing.
    pub async fn next_text(&mut self) -> String {
        match within("a message from the server", self.receive()).await {
            Received::Text(text) => text,
            other => panic!("driver {}: expected a message, got {other:?}", self.id),
        }
    }

    /// The next message.
    ///
    /// # Panics
    /// When something else comes, or nothing.
    pub async fn next(&mut self) -> Value {
        let text = self.next_text().await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"))
    }

    /// The next message, which must be of this type.
    ///
    /// # Panics
    /// When it is of another.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let message = self.next().await;
        assert_eq!(message["type"], kind, "driver {}: {message}", self.id);
        message
    }

    /// The next message, which must be `STATE` with this state.
    ///
    /// # Panics
    /// When it is another.
    pub async fn expect_state(&mut self, state: &str) -> Value {
        let message = self.expect("STATE").await;
        assert_eq!(message["state"], state, "driver {}: {message}", self.id);
        message
    }

    /// The next message, which must be `REVOKED` with this reason, for the attempt of `offer`.
    ///
    /// # Panics
    /// When it is another.
    pub async fn expect_revoked(&mut self, offer: &Value, reason: &str) {
        let message = self.expect("REVOKED").await;
        self.assert_about(&message, offer);
        assert_eq!(message["reason"], reason, "driver {}: {message}", self.id);
    }

    /// The next message, which must be `ERROR` with this code.
    ///
    /// # Panics
    /// When it is another.
    pub async fn expect_error(&mut self, code: &str) -> Value {
        let message = self.expect("ERROR").await;
        assert_eq!(message["code"], code, "driver {}: {message}", self.id);
        assert!(message["message"].is_string(), "{message}");
        message
    }

    /// The next two messages, which must be `CONFIRMED` for the attempt of `offer` and then the `STATE` it causes
    /// (clause W2.4). Gives the trip.
    ///
    /// # Panics
    /// When they are others.
    pub async fn expect_confirmed(&mut self, offer: &Value) -> String {
        let confirmed = self.expect("CONFIRMED").await;
        self.assert_about(&confirmed, offer);
        let trip_id = text(&confirmed, "trip_id").to_owned();
        let state = self.expect_state("en_route_to_pickup").await;
        assert_eq!(state["trip_id"], trip_id.as_str(), "{state}");
        trip_id
    }

    /// The next message, which must be `DECLINED` for the attempt of `offer`.
    ///
    /// # Panics
    /// When it is another.
    pub async fn expect_declined(&mut self, offer: &Value) {
        let declined = self.expect("DECLINED").await;
        self.assert_about(&declined, offer);
    }

    fn assert_about(&self, message: &Value, offer: &Value) {
        for field in ["request_id", "attempt"] {
            assert_eq!(message[field], offer[field], "driver {}: {field} of {message}", self.id);
        }
    }

    /// Sends a message.
    ///
    /// # Panics
    /// When the connection is broken.
    pub async fn send(&mut self, message: &Value) {
        self.send_frame(Message::text(message.to_string())).await;
    }

    /// Sends a text as it stands.
    ///
    /// # Panics
    /// When the connection is broken.
    pub async fn send_text(&mut self, text: &str) {
        self.send_frame(Message::text(text)).await;
    }

    /// Sends any frame.
    ///
    /// # Panics
    /// When the connection is broken.
    pub async fn send_frame(&mut self, frame: Message) {
        let sent = within("room for a frame", self.socket.send(frame)).await;
        sent.unwrap_or_else(|error| panic!("driver {}: sending: {error}", self.id));
    }

    /// Sends a message to a server that may be gone.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn try_send(&mut self, message: &Value) -> Result<(), Error> {
        self.socket.send(Message::text(message.to_string())).await
    }

    /// `ACK`, `ACCEPT` or `DECLINE` of an offer (or of an attempt that is over).
    pub async fn answer(&mut self, kind: &str, offer: &Value) {
        self.send(&answer(kind, offer)).await;
    }

    /// `ACCEPT`s the offer and reads the answer. Gives the trip.
    pub async fn accept(&mut self, offer: &Value) -> String {
        self.answer("ACCEPT", offer).await;
        self.expect_confirmed(offer).await
    }

    /// `DECLINE`s the offer and reads the answer.
    pub async fn decline(&mut self, offer: &Value) {
        self.answer("DECLINE", offer).await;
        self.expect_declined(offer).await;
    }

    /// `TRIP` with this event.
    pub async fn trip(&mut self, trip_id: &str, event: &str) {
        self.send(&json!({"type": "TRIP", "trip_id": trip_id, "event": event}))
            .await;
    }

    /// Says `STATE` and reads the answer.
    pub async fn go(&mut self, state: &str) {
        self.send(&json!({"type": "STATE", "state": state})).await;
        self.expect_state(state).await;
    }

    /// Shows that the server had nothing else to say: the next message is the answer to a `PING` sent now.
    ///
    /// # Panics
    /// When another message comes first.
    pub async fn fence(&mut self) {
        self.send(&json!({"type": "PING"})).await;
        self.expect("PONG").await;
    }

    /// The node's time, as a `PONG` tells it.
    ///
    /// # Panics
    /// When another message comes first.
    pub async fn server_time_ms(&mut self) -> u64 {
        self.send(&json!({"type": "PING"})).await;
        number(&self.expect("PONG").await, "server_time_ms")
    }

    /// Waits until the node's clock shows a later millisecond than now: what comes next is newer by its time, too.
    ///
    /// # Panics
    /// When another message comes first.
    pub async fn next_ms(&mut self) {
        let begun_ms = self.server_time_ms().await;
        while self.server_time_ms().await == begun_ms {}
    }

    /// Everything before the answer to a `PING` sent now.
    pub async fn drain(&mut self) -> Vec<Value> {
        self.send(&json!({"type": "PING"})).await;
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            if message["type"] == "PONG" {
                return messages;
            }
            messages.push(message);
        }
    }

    /// The close frame that the server sends next, text messages before it skipped.
    ///
    /// # Panics
    /// When the connection ends without one.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match within("a close frame", self.receive()).await {
                Received::Closed(code, reason) => return (code, reason),
                Received::Text(_) | Received::Pong(_) => {}
                Received::Broken(error) => panic!("driver {}: no close frame but {error}", self.id),
            }
        }
    }

    /// Cuts the connection without a closing handshake, as a lost network does.
    pub fn vanish(self) {
        drop(self.socket);
    }
}

/// `ACK`, `ACCEPT` or `DECLINE` of an offer.
pub fn answer(kind: &str, offer: &Value) -> Value {
    json!({"type": kind, "request_id": offer["request_id"], "attempt": offer["attempt"]})
}

impl Node {
    /// Connects a driver.
    pub async fn driver(&self, id: &str) -> Driver {
        Driver::connect(self, id).await
    }
}
