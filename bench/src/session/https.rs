//! The matching engine's side: POSTs, pipelined over a few keep-alive connections.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;

use super::connect::STALL_NS_MAX;
use super::{CONNECTIONS_PER_ADDRESS, Event, EventKind, Session};
use crate::http;
use crate::ring::Chunk;

/// Token of the request that opens an HTTP connection; its answer is not passed on.
const HELLO: u32 = u32::MAX;

#[derive(Default)]
pub(super) struct HttpConnection {
    pub(super) open: bool,
    pub(super) sending: bool,
    pub(super) pending: Vec<u8>,
    tokens: VecDeque<u32>,
    partial: Vec<u8>,
}

impl Session {
    /// Queues a POST on the next open HTTP connection; everything queued leaves with the next turn. Answers its length on the
    /// wire, 0 when no connection is open and nothing was queued.
    pub fn post(&mut self, token: u32, path: &str, body: &[u8]) -> u32 {
        assert!(token != HELLO && !self.https.is_empty());
        let count = self.https.len();
        let next = (self.http_next..self.http_next + count)
            .map(|index| index % count)
            .find(|index| self.https[*index].open);
        let Some(next) = next else { return 0 };
        self.http_next = (next + 1) % count;
        let connection = &mut self.https[next];
        connection.tokens.push_back(token);
        let before = connection.pending.len();
        http::write_post(&mut connection.pending, &self.host, path, body);
        (connection.pending.len() - before) as u32
    }

    /// Opens an HTTP connection again after its [`EventKind::HttpClosed`].
    ///
    /// # Errors
    /// The ring's.
    pub fn reopen_http(&mut self, connection: u32) -> io::Result<()> {
        let (slot, host) = (self.drivers() + connection, &self.host);
        let local = self.locals.get((slot / CONNECTIONS_PER_ADDRESS) as usize);
        self.ring.connect_from(slot, local, &self.address, |block| {
            http::write_get(block, host, "/healthz");
        })?;
        self.https[connection as usize].tokens.push_back(HELLO);
        Ok(())
    }

    pub(super) fn http_closed(&mut self, connection: u32, at_ns: u64) {
        let state = std::mem::take(&mut self.https[connection as usize]);
        let unanswered = state.tokens.into_iter().filter(|token| *token != HELLO).collect();
        self.events.push(Event {
            at_ns,
            bytes: 0,
            kind: EventKind::HttpClosed { connection, unanswered },
        });
    }

    pub(super) fn open_https(&mut self) -> io::Result<()> {
        for index in 0..self.https.len() as u32 {
            self.reopen_http(index)?;
        }
        let deadline_ns = self.now_ns() + STALL_NS_MAX;
        while self.https.iter().any(|connection| !connection.open) {
            self.turn(deadline_ns)?;
            let events = self.take_events();
            if let Some(event) = events.first() {
                return Err(io::Error::other(format!("HTTP connections: {:?}", event.kind)));
            }
            if self.now_ns() > deadline_ns {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    pub(super) fn http_data(&mut self, slot: u32, chunk: Chunk) {
        let at_ns = self.clock.now_ns();
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        let connection = &mut self.https[(slot - self.drivers.len() as u32) as usize];
        bytes.append(&mut connection.partial);
        self.ring.take_data(chunk, &mut bytes);
        let mut consumed = 0;
        loop {
            match http::next_response(&bytes[consumed..]) {
                Ok(None) => break,
                Ok(Some(response)) => {
                    let first = http::is_first(&bytes[consumed..][response.body.clone()]);
                    let status = response.status;
                    let kind = match connection.tokens.pop_front() {
                        Some(HELLO) => {
                            connection.open = true;
                            None
                        }
                        Some(token) => Some(EventKind::Response { token, status, first }),
                        None => Some(EventKind::Fault(format!("HTTP answer {status} to no request"))),
                    };
                    let length = response.body.end as u32;
                    self.events.extend(kind.map(|kind| Event {
                        at_ns,
                        bytes: length,
                        kind,
                    }));
                    consumed += response.body.end;
                }
                Err(what) => {
                    self.events.push(Event {
                        at_ns,
                        bytes: 0,
                        kind: EventKind::Fault(what),
                    });
                    consumed = bytes.len();
                }
            }
        }
        connection.partial.extend_from_slice(&bytes[consumed..]);
        self.scratch = bytes;
    }

    pub(super) fn flush_https(&mut self) -> io::Result<()> {
        let first = self.drivers();
        for (index, connection) in self.https.iter_mut().enumerate() {
            if !connection.sending && !connection.pending.is_empty() {
                connection.sending = true;
                let pending = &mut connection.pending;
                self.ring
                    .send(first + index as u32, |block| std::mem::swap(block, pending))?;
            }
        }
        Ok(())
    }
}
