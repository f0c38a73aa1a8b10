//! The table of this shard's connections, by the net ring's slots, and how they end.
#![forbid(unsafe_code)]

use super::http::Http;
use super::letter::Handshake;
use super::registry::Claiming;
use super::sockets::Socket;
use super::{Platform, Ring};
use super::{Shard, Timer};
use crate::fsm::wheel::{TimerId, Wheel};
use crate::net::{self, ConnId};
use crate::ops::log::LogKind;
use crate::ops::metrics::{CloseCause, ConnectionKind};

/// How long a connection that we closed may take to take its last bytes and close too.
const LINGER_MS: u64 = 5_000;

/// Slots of a page of the table.
const PAGE_LEN: usize = 512;

/// What a slot holds.
#[derive(Default)]
pub(super) enum Conn {
    #[default]
    None,
    Http(Box<Http>),
    Socket(Socket),
    /// On its way to another shard.
    Leaving(Box<Leaving>),
    /// A driver's, once the fleet's registry has said its session.
    Claiming(Box<Claiming>),
    /// Closed on our side; what the peer still sends is dropped.
    Lingering(Box<Lingering>),
}

const _: () = assert!(size_of::<Conn>() == 24, "every connection has one");

pub(super) struct Lingering {
    id: ConnId,
    pub(super) timer: TimerId,
    /// Has as long as it takes output at all: an answer may be long, and is owed.
    patient: bool,
}

pub(super) struct Leaving {
    pub(super) home: u16,
    pub(super) handshake: Box<Handshake>,
}

/// Why we close.
pub(super) type Linger = CloseCause;

/// The table.
#[derive(Default)]
pub(super) struct Connections {
    /// In pages, so that growth neither moves them nor keeps a reserve.
    table: Vec<Box<[Conn]>>,
    /// Connections whose first request has not come yet, oldest first; some of them may be past that.
    pub(super) pending: std::collections::VecDeque<ConnId>,
}

impl Connections {
    pub(super) fn set(&mut self, conn: ConnId, to: Conn) {
        let page = conn.slot() as usize / PAGE_LEN;
        while self.table.len() <= page {
            self.table.push((0..PAGE_LEN).map(|_| Conn::None).collect());
        }
        self.table[page][conn.slot() as usize % PAGE_LEN] = to;
    }

    pub(super) fn take(&mut self, conn: ConnId) -> Conn {
        self.get(conn).map_or(Conn::None, std::mem::take)
    }

    pub(super) fn get(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.at(conn.slot())
    }

    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Conn> {
        let page = self.table.get_mut(slot as usize / PAGE_LEN)?;
        page.get_mut(slot as usize % PAGE_LEN)
    }

    pub(super) fn http(&mut self, conn: ConnId) -> Option<&mut Http> {
        self.get(conn)?.as_http().filter(|http| http.id == conn)
    }

    pub(super) fn socket(&mut self, conn: ConnId) -> Option<&mut Socket> {
        match self.get(conn)? {
            Conn::Socket(socket) if socket.is(conn) => Some(socket),
            _ => None,
        }
    }

    /// Takes a connection out of the table, without its HTTP timer.
    pub(super) fn cut(&mut self, conn: ConnId, wheel: &mut Wheel) -> Conn {
        self.cancel_timer(conn, wheel);
        self.take(conn)
    }

    pub(super) fn cancel_timer(&mut self, conn: ConnId, wheel: &mut Wheel) {
        if let Some(timer) = self.http(conn).and_then(|http| http.timer.take()) {
            wheel.cancel(timer);
        }
    }

    /// Bytes of the table.
    pub(super) fn bytes(&self) -> usize {
        self.table.len() * PAGE_LEN * size_of::<Conn>()
    }

    /// Whether somebody still waits for an answer or for last words to arrive.
    pub(super) fn is_talking(&self) -> bool {
        self.table.iter().flatten().any(|conn| match conn {
            Conn::None => false,
            Conn::Http(http) => !http.is_idle(),
            Conn::Socket(_) | Conn::Leaving(_) | Conn::Claiming(_) | Conn::Lingering(_) => true,
        })
    }
}

impl<P: Platform> Shard<P> {
    /// The listener took a connection.
    pub(super) fn accepted(&mut self, conn: ConnId) {
        self.metrics().connections_accepted.inc();
        self.metrics().connections.of(ConnectionKind::Http).inc();
        let mut http = Box::new(Http::new(conn));
        let timeout_ms = self.config.head_timeout_ms.min(self.config.handshake_timeout_ms);
        http.timer = Some(
            self.wheel
                .arm(self.now_ms + timeout_ms, Timer::Conn(conn.slot()).owner()),
        );
        self.connections.set(conn, Conn::Http(http));
        self.connections.pending.push_back(conn);
        self.net.start_recv(conn);
        self.bound_pending();
    }

    /// A flood of connections that say nothing costs the oldest of them, not those that work.
    fn bound_pending(&mut self) {
        let most = self.config.handshakes_pending_max as usize;
        if self.connections.pending.len() <= 2 * most {
            return; // Looked through only when it may have to be: constant work for each connection.
        }
        let mut pending = std::mem::take(&mut self.connections.pending);
        pending.retain(|conn| self.connections.http(*conn).is_some_and(|http| http.is_silent()));
        while pending.len() > most {
            let Some(oldest) = pending.pop_front() else { break };
            self.log(LogKind::Overload, |suppressed| {
                tracing::warn!(
                    suppressed,
                    "more connections without a request than allowed: the oldest is cut"
                );
            });
            self.connections.cut(oldest, &mut self.wheel);
            self.count_closed(ConnectionKind::Http, CloseCause::Admission);
            self.net.abort(oldest);
        }
        self.connections.pending = pending;
    }

    /// Bytes arrived.
    pub(super) fn received(&mut self, conn: ConnId, buffer: net::RecvBuffer) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(self.net.bytes_mut(&buffer));
        self.net.recycle(buffer);
        self.metrics().bytes_received.add(scratch.len() as u64);
        match self.connections.get(conn) {
            Some(Conn::Http(_)) => self.http_received(conn, &scratch),
            Some(Conn::Socket(_)) => self.socket_received(conn, &mut scratch),
            Some(Conn::Leaving(leaving)) => leaving.handshake.bytes.extend_from_slice(&scratch),
            Some(Conn::Claiming(claiming)) => claiming.handshake.bytes.extend_from_slice(&scratch),
            Some(Conn::Lingering(_) | Conn::None) | None => {}
        }
        self.scratch = scratch;
    }

    /// The peer sends no more.
    pub(super) fn peer_closed(&mut self, conn: ConnId) {
        match self.connections.get(conn) {
            Some(Conn::Http(_)) => self.http_peer_closed(conn),
            Some(Conn::Socket(socket)) => {
                let key = socket.driver;
                self.end(conn, CloseCause::Peer);
                self.driver_disconnected(key, conn);
            }
            Some(Conn::Claiming(_)) => self.end(conn, CloseCause::Peer),
            Some(Conn::Lingering(_)) => self.end(conn, CloseCause::Finished),
            Some(Conn::Leaving(_) | Conn::None) | None => {}
        }
    }

    /// The connection is gone.
    pub(super) fn closed(&mut self, conn: ConnId, why: net::CloseCause) {
        if let net::CloseCause::Error(errno) = why
            && tracing::enabled!(tracing::Level::DEBUG)
        {
            self.log(LogKind::Socket, |suppressed| {
                let error = std::io::Error::from_raw_os_error(errno);
                tracing::debug!(%error, suppressed, "a socket failed");
            });
        }
        match self.connections.take(conn) {
            Conn::None => {}
            Conn::Http(http) => {
                if let Some(timer) = http.timer {
                    self.wheel.cancel(timer);
                }
                self.count_closed(ConnectionKind::Http, CloseCause::Peer);
                self.end_waits(&http.calls_under_way());
            }
            Conn::Socket(socket) => {
                self.count_closed(ConnectionKind::Driver, CloseCause::Peer);
                self.driver_disconnected(socket.driver, conn);
            }
            Conn::Leaving(_) => self.count_closed(ConnectionKind::Http, CloseCause::Peer),
            Conn::Claiming(_) => self.count_closed(ConnectionKind::Driver, CloseCause::Peer),
            Conn::Lingering(lingering) => self.wheel.cancel(lingering.timer),
        }
    }

    /// Says our last words and waits for the peer to close, so that a reset does not destroy them (RFC 9112 §9.6).
    pub(super) fn linger(&mut self, conn: ConnId, cause: CloseCause) {
        let (kind, is_last) = match self.connections.get(conn) {
            Some(Conn::Http(http)) => (ConnectionKind::Http, http.peer_closed),
            // Whoever has sent a close frame sends nothing more (RFC 6455 §5.5.1), and the server ends the connection (§7.1.1).
            Some(Conn::Socket(_)) => (ConnectionKind::Driver, cause == Linger::Peer),
            _ => return,
        };
        self.connections.cancel_timer(conn, &mut self.wheel);
        self.count_closed(kind, cause);
        let timer = self
            .wheel
            .arm(self.now_ms + LINGER_MS, Timer::Conn(conn.slot()).owner());
        let lingering = Lingering {
            id: conn,
            timer,
            patient: kind == ConnectionKind::Http,
        };
        self.connections.set(conn, Conn::Lingering(Box::new(lingering)));
        if is_last {
            // Nothing more can come, and after the end of a stream nobody would tell us so: the slot is free once our words are out.
            self.net.pause_recv(conn);
            self.net.close_after_output(conn);
        } else {
            self.net.shutdown_write_after_output(conn);
            self.net.start_recv(conn);
        }
    }

    /// Both sides are done.
    fn end(&mut self, conn: ConnId, cause: CloseCause) {
        match self.connections.take(conn) {
            Conn::Lingering(lingering) => self.wheel.cancel(lingering.timer),
            Conn::Socket(_) | Conn::Claiming(_) => self.count_closed(ConnectionKind::Driver, cause),
            _ => {}
        }
        self.net.close_after_output(conn);
    }

    /// The time of a connection has come.
    pub(super) fn conn_timer(&mut self, slot: u32) {
        match self.connections.at(slot) {
            Some(Conn::Http(http)) => {
                let conn = http.id;
                self.http_timed_out(conn);
            }
            Some(Conn::Lingering(lingering)) => {
                let conn = lingering.id;
                if lingering.patient && self.net.output_len(conn) > 0 {
                    // A socket that takes nothing is found by the sweep.
                    let again = self.wheel.arm(self.now_ms + LINGER_MS, Timer::Conn(slot).owner());
                    lingering.timer = again;
                    return;
                }
                self.connections.set(conn, Conn::None);
                self.net.abort(conn);
            }
            _ => debug_assert!(false, "a timer of a connection that has none"),
        }
    }

    pub(super) fn count_closed(&self, kind: ConnectionKind, cause: CloseCause) {
        self.metrics().connections.of(kind).dec();
        self.metrics().connections_closed.of(cause).inc();
    }
}
