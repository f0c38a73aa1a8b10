//! Answers of the HTTP API: a [`Reply`] is status, fields and body; a [`Problem`] becomes one (RFC 9457).

use super::json;
use crate::fsm::ids::{DriverId, TripId};
use crate::fsm::types::{RequestState, TripOutcome};

/// `100 Continue`, for a request that waits for it before its body (RFC 9110 §10.1.1).
pub const CONTINUE_100: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// `Content-Type` of JSON.
pub const JSON: &str = "application/json";
/// `Content-Type` of problems.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// `Content-Type` of `GET /v1/events`.
pub const NDJSON: &str = "application/x-ndjson";
/// `Content-Type` of `GET /metrics` (Prometheus text format).
pub const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
/// `Content-Type` of `GET /healthz` and `GET /readyz`.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The value of `Date` (RFC 9110 §5.6.7). It is formatted once a second at most.
#[derive(Clone, Debug)]
pub struct HttpDate {
    /// Unix seconds.
    second: u64,
    text: String,
}

impl HttpDate {
    /// For a time in Unix milliseconds.
    pub fn at(unix_ms: u64) -> Self {
        let second = unix_ms / 1_000;
        Self {
            second,
            text: imf_fixdate(second),
        }
    }

    /// Brings it to another time, in Unix milliseconds.
    pub fn advance(&mut self, unix_ms: u64) {
        if self.second != unix_ms / 1_000 {
            *self = Self::at(unix_ms);
        }
    }

    /// As it stands in the field.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`; the last day that is known for a time beyond the year 9999.
fn imf_fixdate(unix_second: u64) -> String {
    let second = i64::try_from(unix_second).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
    let printed = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time);
    printed.expect("every time from 1970 on has this form")
}

/// A whole answer, not yet on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status code, 200–599.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// The body, at most as long as the endpoint's page bound allows.
    pub body: Vec<u8>,
    /// Further fields; names and values hold no CR, LF or NUL.
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    /// An answer with any content.
    pub fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        debug_assert!((200..600).contains(&status));
        Self {
            status,
            content_type,
            body,
            headers: Vec::new(),
        }
    }

    /// An answer whose body is one JSON text.
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Self::new(status, JSON, body)
    }

    /// 200 with JSON lines, each ended by LF.
    pub fn ndjson(body: Vec<u8>) -> Self {
        debug_assert!(body.is_empty() || body.ends_with(b"\n"));
        Self::new(200, NDJSON, body)
    }

    /// A problem without further members; [`Problem`] has them.
    pub fn problem(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        Problem::new(status, code, detail).into_reply()
    }

    /// Adds a field.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        let value = value.into();
        debug_assert!(!value.bytes().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        self.headers.push((name, value));
        self
    }

    /// Appends the answer to `out` as HTTP/1.1 (RFC 9112 §4). `Date` (RFC 9110 §6.6.1) and `Content-Length` (RFC 9110 §8.6)
    /// are always there; `keep_alive` false announces that the connection closes after it (RFC 9112 §9.6); `head_only` leaves the body
    /// out, for an answer to `HEAD` (RFC 9110 §9.3.2).
    pub fn write(&self, out: &mut Vec<u8>, date: &HttpDate, keep_alive: bool, head_only: bool) {
        out.reserve(200 + self.body.len());
        out.extend_from_slice(b"HTTP/1.1 ");
        json::number(out, u64::from(self.status));
        out.push(b' ');
        out.extend_from_slice(reason_phrase(self.status).as_bytes());
        field(out, "date", date.as_str());
        field(out, "content-type", self.content_type);
        out.extend_from_slice(b"\r\ncontent-length: ");
        json::number(out, self.body.len() as u64);
        for (name, value) in &self.headers {
            field(out, name, value);
        }
        // Said in both cases: an HTTP/1.0 client keeps the connection only when told so (RFC 9112 §9.3). An answer that
        // asks for an upgrade lists that too (RFC 9110 §7.8).
        let connection = match (self.status, keep_alive) {
            (426, true) => "upgrade, keep-alive",
            (426, false) => "upgrade, close",
            (_, true) => "keep-alive",
            (_, false) => "close",
        };
        field(out, "connection", connection);
        out.extend_from_slice(b"\r\n\r\n");
        if !head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

impl From<Problem> for Reply {
    fn from(problem: Problem) -> Self {
        problem.into_reply()
    }
}

/// An error as the API's callers see it (RFC 9457): `type`, `title`, `status`, `detail`, a stable `code`, and members
/// that some codes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Status code, 400–599.
    pub status: u16,
    /// Stable name of the error, for programs.
    pub code: &'static str,
    /// What is wrong with this request, for people.
    pub detail: String,
    /// Further members, each a name and a JSON text.
    members: Vec<(&'static str, Vec<u8>)>,
    /// Further fields of the answer.
    headers: Vec<(&'static str, String)>,
}

impl Problem {
    /// A problem without further members.
    pub fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        debug_assert!((400..600).contains(&status));
        Self {
            status,
            code,
            detail: detail.into(),
            members: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// `400 invalid`: the caller's fault; repeating it will not help.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(400, "invalid", detail)
    }

    /// `404 not_found`: no endpoint has this path.
    pub fn not_found() -> Self {
        Self::new(404, "not_found", "no endpoint has this path")
    }

    /// `405 method_not_allowed` with `Allow` (RFC 9110 §15.5.6).
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self::new(405, "method_not_allowed", format!("this endpoint takes {allow}")).with_header("allow", allow)
    }

    /// `404 no_such_offer`.
    pub fn no_such_offer() -> Self {
        Self::new(404, "no_such_offer", "no such offer was made to this driver")
    }

    /// `404 no_such_request`.
    pub fn no_such_request() -> Self {
        Self::new(404, "no_such_request", "no request has this id")
    }

    /// `404 no_such_trip`.
    pub fn no_such_trip() -> Self {
        Self::new(404, "no_such_trip", "no trip has this id")
    }

    /// `404 no_such_driver`.
    pub fn no_such_driver() -> Self {
        Self::new(404, "no_such_driver", "no driver with this id was ever seen")
    }

    /// `409 excluded`: only drivers that were tried already; the request lives on.
    pub fn excluded<'a>(state: RequestState, excluded: impl IntoIterator<Item = &'a DriverId>) -> Self {
        Self::new(409, "excluded", "every candidate was tried already; send others")
            .with_text("state", state.as_str())
            .with_ids("excluded", excluded)
    }

    /// `409 ended`: the request has its end state.
    pub fn ended(state: RequestState, trip_id: Option<&TripId>) -> Self {
        debug_assert!(state.is_end());
        let problem = Self::new(409, "ended", format!("the request is {}", state.as_str()));
        let problem = problem.with_text("state", state.as_str());
        match trip_id {
            Some(trip_id) => problem.with_text("trip_id", trip_id.as_str()),
            None => problem,
        }
    }

    /// `409 ended`: the trip is over; `outcome` says how, so that a caller whose answer was lost learns whether its cancel was it.
    pub fn trip_ended(trip_id: &TripId, outcome: TripOutcome) -> Self {
        let word = outcome.as_str();
        Self::new(409, "ended", format!("the trip is over: {word}"))
            .with_text("trip_id", trip_id.as_str())
            .with_text("outcome", word)
    }

    /// `413 too_large` (RFC 9110 §15.5.14).
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(413, "too_large", detail)
    }

    /// `429 overloaded` with `Retry-After` in seconds (RFC 6585 §4).
    pub fn overloaded(retry_after_s: u32) -> Self {
        Self::new(429, "overloaded", "more is asked than can be taken; try again later")
            .with_header("retry-after", retry_after_s.to_string())
    }

    /// `503 no_node` with `Retry-After`: no node of the fleet takes drivers at present.
    pub fn no_node() -> Self {
        Self::new(503, "no_node", "no node of the fleet takes drivers at present").with_header("retry-after", "1")
    }

    /// `503 draining` with `Retry-After` in seconds: this node stops; another takes the work, or the next start does.
    pub fn draining(retry_after_s: u64) -> Self {
        Self::new(503, "draining", "this node is stopping and takes no new work")
            .with_header("retry-after", retry_after_s.to_string())
    }

    /// `503 recovering` with `Retry-After` in seconds: this node has just started and takes work soon.
    pub fn recovering(retry_after_s: u32) -> Self {
        Self::new(
            503,
            "recovering",
            "this node reads its journal and takes work when it is done",
        )
        .with_header("retry-after", retry_after_s.to_string())
    }

    /// `503 not_durable`: the journal or store cannot take it now.
    pub fn not_durable() -> Self {
        Self::new(503, "not_durable", "this cannot be stored durably now")
    }

    /// Adds a member whose value is a string.
    #[must_use]
    pub fn with_text(mut self, name: &'static str, value: &str) -> Self {
        let mut text = Vec::with_capacity(value.len() + 2);
        json::text(&mut text, value);
        self.members.push((name, text));
        self
    }

    /// Adds a member whose value is a list of ids.
    #[must_use]
    pub fn with_ids<'a>(mut self, name: &'static str, ids: impl IntoIterator<Item = &'a DriverId>) -> Self {
        let mut text = Vec::new();
        json::ids(&mut text, ids);
        self.members.push((name, text));
        self
    }

    /// Adds a field to the answer.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer.
    pub fn into_reply(self) -> Reply {
        let mut body = Vec::with_capacity(128 + self.detail.len());
        // RFC 9457 §4.2.1: with `about:blank` the title is the status phrase; `code` tells errors apart.
        body.extend_from_slice(b"{\"type\":\"about:blank\",\"title\":");
        json::text(&mut body, reason_phrase(self.status));
        body.extend_from_slice(b",\"status\":");
        json::number(&mut body, u64::from(self.status));
        json::member_text(&mut body, "code", self.code);
        json::member_text(&mut body, "detail", &self.detail);
        for (name, value) in &self.members {
            json::name(&mut body, name);
            body.extend_from_slice(value);
        }
        body.push(b'}');
        let mut reply = Reply::new(self.status, PROBLEM_JSON, body);
        reply.headers = self.headers;
        reply
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
}

/// The status phrases of RFC 9110 §15 that this program uses.
pub(super) const fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}
