//! WebSocket connections: the handshake, the handover to the driver's home shard, frames in and out.
#![forbid(unsafe_code)]

use super::connections::{Conn, Leaving, Linger};
use super::letter::Handshake;
use super::throttle::Pace;
use super::{Letter, Shard, home_of_driver};
use super::{Platform, Ring};
use crate::fsm::driver::DriverEvent;
use crate::net::ConnId;
use crate::ops::log::LogKind;
use crate::ops::metrics::{BadInput, CloseCause, ConnectionKind, MessageIn, MessageOut, StatusClass};
use crate::wire::http::Head;
use crate::wire::respond::Problem;
use crate::wire::route::{Route, route};
use crate::wire::ws::{self, WsDecoder, WsInput, WsPolicy, close_code, write_text};
use std::ops::ControlFlow;

/// A driver's socket: an idle one owns nothing else. Its slot is its place in the table.
pub(super) struct Socket {
    pub(super) driver: u32,
    generation: u32,
    pub(super) pace: Pace,
    decoder: WsDecoder,
}

const _: () = assert!(size_of::<Socket>() == 24);

impl Socket {
    /// Whether this is that connection, found at its slot.
    pub(super) fn is(&self, conn: ConnId) -> bool {
        self.generation == conn.generation()
    }
}

/// What became of a request that may be a handshake.
pub(super) enum Opened {
    /// The connection is a socket now, here or on its way to another shard.
    Socket,
    /// It is a handshake, and a bad one.
    Refused(Problem),
    /// It is none.
    NotASocket,
}

/// Which end of a handover is known already.
pub(super) enum Arrival {
    Socket(ConnId),
    Handshake(Box<Handshake>),
}

impl<P: Platform> Shard<P> {
    /// Checks a handshake and takes the connection over, here or on the driver's home shard.
    pub(super) fn open_socket(&mut self, conn: ConnId, head: &Head, idle: bool) -> Opened {
        let Ok(Route::DriverSocket(driver_id)) = route(head.method, &head.target) else {
            return Opened::NotASocket;
        };
        let key = match ws::accept(head) {
            Ok(key) => key,
            Err(problem) => return Opened::Refused(problem),
        };
        if self.draining.is_some() {
            return Opened::Refused(Problem::draining(self.drain_left_s()));
        }
        if !idle {
            return Opened::Refused(Problem::invalid(
                "a handshake cannot follow requests that are not answered yet",
            ));
        }
        let Some(http) = self.connections.http(conn) else {
            return Opened::Socket;
        };
        let bytes = http.take_input();
        let handshake = Box::new(Handshake { driver_id, key, bytes });
        self.connections.cancel_timer(conn, &mut self.wheel);
        let home = home_of_driver(&handshake.driver_id, self.shards);
        if home == self.index {
            self.establish(conn, *handshake);
            return Opened::Socket;
        }
        let Some(ring_fd) = self.mail.ring_fd(home) else {
            return Opened::Refused(Problem::draining(self.drain_left_s()));
        };
        self.handovers += 1;
        let token = (u64::from(self.index) << 40) | self.handovers;
        if self.net.hand_over(conn, ring_fd, token) {
            self.connections
                .set(conn, Conn::Leaving(Box::new(Leaving { home, handshake })));
        }
        Opened::Socket
    }

    /// The socket is about to leave: what belongs to it goes by letter.
    pub(super) fn leave(&mut self, conn: ConnId, token: u64) {
        match self.connections.take(conn) {
            Conn::Leaving(leaving) => {
                self.metrics().connections.of(ConnectionKind::Http).dec();
                self.post(
                    leaving.home,
                    Letter::HandOver {
                        token,
                        handshake: leaving.handshake,
                    },
                );
            }
            other => self.connections.set(conn, other),
        }
    }

    /// The other shard did not take the socket.
    pub(super) fn stayed(&mut self, conn: ConnId, token: u64, errno: i32) {
        self.log(LogKind::Overload, |suppressed| {
            tracing::warn!(errno, suppressed, "a shard has no room for a driver's socket: closed");
        });
        let own = self.index;
        for shard in (0..self.shards).filter(|shard| *shard != own) {
            self.post(shard, Letter::HandOverFailed { token });
        }
        self.net.abort(conn);
    }

    /// One end of a handover has arrived; with both the socket is established.
    pub(super) fn arrived(&mut self, token: u64, arrival: Arrival) {
        match (self.arrivals.remove(&token), arrival) {
            (None, arrival) => {
                self.arrivals.insert(token, arrival);
            }
            (Some(Arrival::Socket(conn)), Arrival::Handshake(handshake))
            | (Some(Arrival::Handshake(handshake)), Arrival::Socket(conn)) => self.establish(conn, *handshake),
            (Some(_), _) => unreachable!("a token is used once"),
        }
    }

    fn establish(&mut self, conn: ConnId, handshake: Handshake) {
        if self.draining.is_some() {
            return self.net.abort(conn);
        }
        if self.net.output(conn).is_none() {
            return;
        }
        if self.connections.http(conn).is_some() {
            self.metrics().connections.of(ConnectionKind::Http).dec();
        }
        self.metrics().connections.of(ConnectionKind::Driver).inc();
        if let Some(handshake) = self.claim(conn, handshake) {
            self.seat(conn, handshake, None);
        }
    }

    /// Answers the handshake; the connection is the driver's from now on. `session`: what the fleet's registry gave.
    pub(super) fn seat(&mut self, conn: ConnId, handshake: Handshake, session: Option<u64>) {
        let Handshake {
            driver_id,
            key,
            mut bytes,
        } = handshake;
        let Some(out) = self.net.output(conn) else {
            return self.count_closed(ConnectionKind::Driver, CloseCause::Peer);
        };
        ws::write_101(out, &key);
        self.metrics().http_requests.of(StatusClass::Switching).inc();
        self.connections.set(
            conn,
            Conn::Socket(Socket {
                driver: u32::MAX,
                generation: conn.generation(),
                pace: Pace::begun(self.now_ms),
                decoder: WsDecoder::new(),
            }),
        );
        let Some(driver) = self.driver_connected(&driver_id, conn, session) else {
            return self.close_socket(conn, close_code::DISPLACED, "displaced");
        };
        if let Some(socket) = self.connections.socket(conn) {
            socket.driver = driver;
        }
        // What a driver says is understood as it comes; what an HTTP caller sends may have to be kept, so it has no such right.
        self.net.join_crowd(conn);
        self.net.start_recv(conn);
        if !bytes.is_empty() {
            self.socket_received(conn, &mut bytes);
        }
    }

    /// Bytes on a driver's socket. They are the shard's scratch copy and unmasked in place.
    pub(super) fn socket_received(&mut self, conn: ConnId, bytes: &mut [u8]) {
        let Some(socket) = self.connections.socket(conn) else {
            return;
        };
        let key = socket.driver;
        let mut decoder = std::mem::take(&mut socket.decoder);
        let result = decoder.feed(WsPolicy::DRIVERS, bytes, &mut |input| {
            self.socket_input(conn, key, input);
            match self.connections.socket(conn) {
                Some(_) => ControlFlow::Continue(()),
                None => ControlFlow::Break(()),
            }
        });
        if let Some(socket) = self.connections.socket(conn) {
            socket.decoder = decoder;
            if let Err(violation) = result {
                self.metrics().bad_input.of(BadInput::Frame).inc();
                self.log(LogKind::BadFrame, |suppressed| {
                    tracing::info!(
                        code = violation.code,
                        reason = violation.reason,
                        suppressed,
                        "bad frame"
                    );
                });
                self.close_driver_socket(conn, violation.code, violation.reason, Linger::Protocol);
            }
        }
    }

    fn socket_input(&mut self, conn: ConnId, key: u32, input: WsInput<'_>) {
        self.step_driver(key, DriverEvent::Heard);
        match input {
            WsInput::Text(text) => self.message(conn, key, text),
            WsInput::Ping(payload) => {
                let metrics = self.metrics();
                metrics.heartbeats.inc();
                metrics.messages_received.of(MessageIn::Ping).inc();
                metrics.messages_sent.of(MessageOut::Pong).inc();
                if let Some(out) = self.net.output(conn) {
                    ws::write_pong(out, payload);
                }
                self.check_room(conn);
            }
            WsInput::Pong(_) => {}
            WsInput::Close(close) => {
                let code = close.map_or(close_code::NORMAL, |(code, _)| code);
                self.close_driver_socket(conn, code, "", Linger::Peer);
            }
            WsInput::Binary(_) => unreachable!("the policy takes no binary messages"),
        }
    }

    /// Appends one text message to the socket's output.
    pub(super) fn send_text(&mut self, conn: ConnId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(out) = self.net.output(conn) {
            write_text(out, write);
        }
        self.check_room(conn);
    }

    /// A driver that does not read is let go before it costs the others anything.
    pub(super) fn check_room(&mut self, conn: ConnId) {
        if self.net.output_len(conn) > self.config.output_queue_bytes_max as usize {
            self.log(LogKind::SlowConsumer, |suppressed| {
                tracing::warn!(suppressed, "a driver does not read its socket: 4008");
            });
            self.close_driver_socket(conn, close_code::SLOW_CONSUMER, "slow consumer", Linger::SlowConsumer);
        }
    }

    /// Everything sent to this connection was written.
    pub(super) fn drained(&mut self, conn: ConnId) {
        let key = match self.connections.get(conn) {
            Some(Conn::Socket(socket)) if socket.is(conn) => socket.driver,
            Some(Conn::Http(_)) => return self.http_drained(conn),
            _ => return,
        };
        if self.drivers.changing.contains_key(&key) {
            return; // What it is to hear next is held; this was something else.
        }
        if self.net.output_len(conn) > 0 {
            // A letter of this turn has added to it, an offer perhaps, which has not left.
            return self.net.tell_drained(conn);
        }
        self.stop_watch(key);
        if self
            .drivers
            .slab
            .get(key as usize)
            .is_some_and(|entry| entry.driver.awaits_delivery())
        {
            self.step_driver(key, DriverEvent::Written);
        }
    }

    /// Closes a socket whose driver has been told (or has another one).
    pub(super) fn close_socket(&mut self, conn: ConnId, code: u16, reason: &str) {
        let cause = match code {
            close_code::DISPLACED => Linger::Displaced,
            close_code::HEARTBEAT_LOST => Linger::HeartbeatLost,
            close_code::SERVICE_RESTART => Linger::Draining,
            _ => Linger::Protocol,
        };
        self.close_driver_socket(conn, code, reason, cause);
    }

    pub(super) fn close_driver_socket(&mut self, conn: ConnId, code: u16, reason: &str, cause: Linger) {
        let Some(key) = self.connections.socket(conn).map(|socket| socket.driver) else {
            return;
        };
        if let Some(out) = self.net.output(conn) {
            ws::write_close(out, code, reason);
        }
        self.linger(conn, cause);
        self.driver_disconnected(key, conn);
    }
}
