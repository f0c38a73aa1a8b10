//! What a session tells its scenario.
#![forbid(unsafe_code)]

use crate::message::Message;

/// Something that a scenario reacts to.
#[derive(Debug)]
pub struct Event {
    /// When its bytes were taken from the ring, ns of the session's clock.
    pub at_ns: u64,
    /// Length of the message on the wire, bytes; 0 where no message is behind the event.
    pub bytes: u32,
    /// What it was.
    pub kind: EventKind,
}

/// Kinds of events.
#[derive(Debug)]
pub enum EventKind {
    /// A driver's socket said something.
    Message {
        /// The driver's number.
        driver: u32,
        /// What it said.
        message: Message,
    },
    /// The answer to a POST.
    Response {
        /// As given to [`Session::post`](super::Session::post).
        token: u32,
        /// HTTP status.
        status: u16,
        /// The body said `"duplicate":false`.
        first: bool,
    },
    /// A driver's connection is over and its slot is free.
    Gone {
        /// The driver's number.
        driver: u32,
        /// How it ended.
        why: Gone,
    },
    /// An HTTP connection is over; [`Session::reopen_http`](super::Session::reopen_http) opens it again.
    HttpClosed {
        /// Its number.
        connection: u32,
        /// Tokens of the requests that were not answered.
        unanswered: Vec<u32>,
    },
    /// An HTTP connection broke (unless losses are tolerated), or the server broke its protocol.
    Fault(String),
}

/// How a driver's connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// We closed, the server agreed.
    Closed,
    /// The handshake was answered otherwise than with 101; 0 for nonsense.
    Refused {
        /// HTTP status.
        status: u16,
    },
    /// The server is restarted (close 1012) and asks to wait this long.
    Draining {
        /// Wait before the next connect, ms.
        retry_after_ms: u64,
    },
    /// Anything else.
    Lost(String),
}
