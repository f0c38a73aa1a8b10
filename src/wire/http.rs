//! HTTP/1.1 requests out of a connection's bytes (RFC 9112), strict where leniency lets requests be smuggled.
//!
//! How to use it, for one connection: [`parse_head`] until it gives a [`Head`]; then the body with [`whole_body`] (no
//! copy) or a [`BodyDecoder`]; then the next head at the byte after it. After any [`HttpError`] nothing that follows on
//! the connection can be trusted: answer and close.

mod body;
mod head;
mod target;

pub use body::{BodyDecoder, BodyProgress, whole_body};
pub use head::parse_head;

use super::respond::{Problem, Reply};
use compact_str::CompactString;

/// A request's method, as far as it matters here. Names are case-sensitive (RFC 9110 §9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`: answered as `GET`, without the body.
    Head,
    /// `POST`
    Post,
    /// Any other; no endpoint takes it.
    Other,
}

/// A version that is understood; others are errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What the request line names, as it was sent (percent-encoded), checked against RFC 3986. The authority of an
/// absolute-form target is checked and dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Begins with `/`, or is `*`.
    pub path: CompactString,
    /// What follows the first `?`, without it.
    pub query: Option<CompactString>,
}

/// How a request's body is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// There is none.
    None,
    /// So many bytes, 1–[`BODY_LEN_MAX`](super::limits::BODY_LEN_MAX).
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// The fields of a WebSocket handshake, not yet judged; [`ws::accept`](super::ws::accept) does that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrade {
    /// `Upgrade` lists `websocket`.
    pub websocket: bool,
    /// `Connection` lists `upgrade`.
    pub connection_upgrade: bool,
    /// `Sec-WebSocket-Version`; several fields are joined by commas.
    pub version: Option<CompactString>,
    /// `Sec-WebSocket-Key`; several fields are joined by commas.
    pub key: Option<CompactString>,
    /// `Sec-WebSocket-Protocol`; several fields are joined by commas.
    pub protocols: Option<CompactString>,
}

/// A request's head. Host, framing and syntax are checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: Target,
    /// The version.
    pub version: Version,
    /// Whether the connection goes on after the answer (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// How the body is delimited.
    pub body: BodyKind,
    /// The client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1); never true without a body.
    pub expect_continue: bool,
    /// There when the request has an `Upgrade` field.
    pub upgrade: Option<Box<Upgrade>>,
    /// `Content-Type`, as sent.
    pub content_type: Option<CompactString>,
}

/// Why a request cannot be taken: always the client's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    /// 400, 413, 414, 415, 417, 431, 501 or 505.
    pub status: u16,
    /// Stable name: `invalid`, `too_large`, `uri_too_long`, `unsupported_encoding`, `expectation_failed`,
    /// `head_too_large`, `not_implemented`, `version_not_supported`.
    pub code: &'static str,
    /// What is wrong.
    pub message: &'static str,
    /// Close after the answer, as where the next request begins is not known.
    pub close: bool,
}

impl HttpError {
    /// 400: the framing or the syntax is wrong.
    pub(crate) const fn invalid(message: &'static str) -> Self {
        Self::new(400, "invalid", message)
    }

    pub(crate) const fn new(status: u16, code: &'static str, message: &'static str) -> Self {
        Self {
            status,
            code,
            message,
            close: true,
        }
    }
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.message)
    }
}

impl std::error::Error for HttpError {}

impl From<HttpError> for Problem {
    fn from(error: HttpError) -> Self {
        Self::new(error.status, error.code, error.message)
    }
}

impl From<HttpError> for Reply {
    fn from(error: HttpError) -> Self {
        Problem::from(error).into_reply()
    }
}
