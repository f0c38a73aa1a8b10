//! Request heads: the request line and the fields that say how the request is framed (RFC 9112 §2–§6, §9).
//!
//! `httparse` splits the fields; what it is lenient about (bare line ends, the target, every rule on a field's value)
//! is checked here.

use super::target::{host_is_valid, parse_target};
use super::{BodyKind, Head, HttpError, Method, Upgrade, Version};
use crate::wire::limits::{BODY_LEN_MAX, HEAD_LEN_MAX, HEADERS_MAX, LEADING_CRLF_MAX};
use compact_str::CompactString;
use httparse::{Header, Status};
use std::mem::MaybeUninit;

/// Cuts the first request head off `buf`. `Ok(None)`: more bytes are needed, call again with all of them; `usize` is
/// the number of bytes that the head took, empty lines before it included.
///
/// # Errors
/// [`HttpError`], as soon as it is certain.
pub fn parse_head(buf: &[u8]) -> Result<Option<(Head, usize)>, HttpError> {
    let Some(skipped) = skip_empty_lines(buf)? else {
        return Ok(None);
    };
    let rest = &buf[skipped..];
    let Some(len) = find_end(rest)? else {
        fail_fast(rest)?;
        return Ok(None);
    };
    debug_assert!(len <= HEAD_LEN_MAX && rest[..len].ends_with(b"\r\n\r\n"));
    parse_whole(&rest[..len]).map(|head| Some((head, skipped + len)))
}

/// Number of bytes of the empty lines before the request line; `None` when they are all there is so far.
///
/// RFC 9112 §2.2: a server should skip at least one.
fn skip_empty_lines(buf: &[u8]) -> Result<Option<usize>, HttpError> {
    let mut rest = buf;
    for lines in 0.. {
        match rest {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', after @ ..] if lines < LEADING_CRLF_MAX => rest = after,
            [b'\r', b'\n', ..] => return Err(HttpError::invalid("too many empty lines before the request line")),
            [b'\r', ..] => return Err(BARE_CR),
            [b'\n', ..] => return Err(BARE_LF),
            _ => break,
        }
    }
    Ok(Some(buf.len() - rest.len()))
}

const BARE_CR: HttpError = HttpError::invalid("a CR without LF in the head");
const BARE_LF: HttpError = HttpError::invalid("a LF without CR in the head");

/// Length of the head with the empty line that ends it; `None` when it has not come whole.
fn find_end(rest: &[u8]) -> Result<Option<usize>, HttpError> {
    let window = &rest[..rest.len().min(HEAD_LEN_MAX)];
    let mut line = 0;
    while let Some(offset) = memchr::memchr2(b'\r', b'\n', &window[line..]) {
        let at = line + offset;
        match (window[at], window.get(at + 1)) {
            // RFC 9112 §2.2: a recipient MAY take a bare LF; taking it is how requests are smuggled past those that do not.
            (b'\n', _) => return Err(BARE_LF),
            (_, None) => break,
            (_, Some(b'\n')) if at == line => return Ok(Some(at + 2)),
            (_, Some(b'\n')) => line = at + 2,
            // RFC 9112 §2.2: a bare CR is invalid.
            (_, Some(_)) => return Err(BARE_CR),
        }
        // RFC 9112 §5.2: a server must reject line folding; §2.2: also white space before the first field.
        if matches!(window.get(line), Some(b' ' | b'\t')) {
            return Err(HttpError::invalid(
                "a line of the head begins with white space (line folding)",
            ));
        }
    }
    if rest.len() < HEAD_LEN_MAX {
        return Ok(None);
    }
    if line == 0 {
        // RFC 9112 §3: a target longer than any that the server wishes to read.
        return Err(HttpError::new(414, "uri_too_long", "the request line is too long"));
    }
    // RFC 6585 §5.
    Err(HttpError::new(431, "head_too_large", "the head is over 16 KiB"))
}

/// Finds what is wrong already in a head that has not come whole, so that garbage is not waited for.
fn fail_fast(partial: &[u8]) -> Result<(), HttpError> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(partial, &mut headers) {
        // Whether the version is unknown or nonsense can be told at the end of the line.
        Err(httparse::Error::Version) if memchr::memchr(b'\n', partial).is_none() => Ok(()),
        Err(httparse::Error::Version) => match as_http_11(partial) {
            Some(partial) => fail_fast(&partial),
            None => Err(version_error(partial)),
        },
        Err(error) => Err(syntax_error(error, partial)),
        Ok(_) => Ok(()),
    }
}

fn syntax_error(error: httparse::Error, head: &[u8]) -> HttpError {
    match error {
        httparse::Error::HeaderName => HttpError::invalid("a field name has a byte that is no token character"),
        httparse::Error::HeaderValue => HttpError::invalid("a field value has a control character"),
        httparse::Error::NewLine => HttpError::invalid("a line of the head does not end in CRLF"),
        httparse::Error::Token | httparse::Error::Status => HttpError::invalid("the request line is malformed"),
        // RFC 6585 §5.
        httparse::Error::TooManyHeaders => HttpError::new(431, "head_too_large", "the head has over 64 fields"),
        httparse::Error::Version => version_error(head),
    }
}

/// RFC 9110 §15.6.6 for a version of HTTP that is none of ours (the preface of HTTP/2 among them), else a syntax error.
fn version_error(head: &[u8]) -> HttpError {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut parts = line.split(|byte| *byte == b' ');
    match (parts.nth(2), parts.next()) {
        (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            HttpError::new(
                505,
                "version_not_supported",
                "only HTTP/1.1 and HTTP/1.0 are spoken here",
            )
        }
        _ => HttpError::invalid("the request line is malformed"),
    }
}

/// The same head as one of HTTP/1.1, if its version is HTTP/1.2 to 1.9.
///
/// RFC 9110 §2.5: a higher minor version is taken for the highest that is known.
fn as_http_11(head: &[u8]) -> Option<Vec<u8>> {
    let line_len = memchr::memchr(b'\r', head)?;
    let [.., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] = head[..line_len] else {
        return None;
    };
    let mut known = head.to_vec();
    known[line_len - 1] = b'1';
    Some(known)
}

/// A head that ends where `head` does.
fn parse_whole(head: &[u8]) -> Result<Head, HttpError> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let parsed = request.parse_with_uninit_headers(head, &mut headers);
    if let (Err(httparse::Error::Version), Some(head)) = (&parsed, as_http_11(head)) {
        return parse_whole(&head);
    }
    match parsed.map_err(|error| syntax_error(error, head))? {
        Status::Complete(len) if len == head.len() => {}
        Status::Complete(_) | Status::Partial => return Err(HttpError::invalid("the head is malformed")),
    }
    let (Some(method), Some(path), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(HttpError::invalid("the request line is malformed"));
    };
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let target = parse_target(method, path)?;
    let mut fields = Fields::default();
    for header in request.headers.iter() {
        fields.take(header)?;
    }
    fields.check_host(version)?;
    let body = fields.body(version)?;
    let expect_continue = fields.expect_continue(version)? && body != BodyKind::None;
    let method = parse_method(method);
    // RFC 9110 §7.8: an upgrade in HTTP/1.0 is ignored.
    let upgrade = fields
        .upgrade
        .take()
        .filter(|_| fields.upgrade_given && version == Version::Http11);
    // RFC 6455 §4.1: a handshake is a GET, and frames follow its head. One that announces a body is not waited for.
    let is_handshake = method == Method::Get && upgrade.as_ref().is_some_and(|upgrade| upgrade.websocket);
    if is_handshake && body != BodyKind::None {
        return Err(HttpError::invalid("a WebSocket handshake has no body"));
    }
    Ok(Head {
        method,
        target,
        version,
        keep_alive: fields.keep_alive(version),
        body,
        expect_continue,
        upgrade,
        content_type: fields.content_type,
    })
}

fn parse_method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        _ => Method::Other,
    }
}

/// What the fields say, as far as it matters.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    content_length: Option<&'a [u8]>,
    transfer_encoding: Option<&'a [u8]>,
    expect: Option<&'a [u8]>,
    connection_close: bool,
    connection_keep_alive: bool,
    upgrade_given: bool,
    upgrade: Option<Box<Upgrade>>,
    content_type: Option<CompactString>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, header: &Header<'a>) -> Result<(), HttpError> {
        let value = header.value;
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        // The length tells most fields apart without looking at the name.
        match header.name.len() {
            // RFC 9112 §3.2: more than one Host is answered with 400.
            4 if is("host") => once(&mut self.host, value, "more than one Host"),
            6 if is("expect") => once(&mut self.expect, value, "more than one Expect"),
            7 if is("upgrade") => {
                self.upgrade_given = true;
                self.upgrade_mut().websocket |= has_token(value, "websocket");
                Ok(())
            }
            10 if is("connection") => {
                self.connection_close |= has_token(value, "close");
                self.connection_keep_alive |= has_token(value, "keep-alive");
                if has_token(value, "upgrade") {
                    self.upgrade_mut().connection_upgrade = true;
                }
                Ok(())
            }
            12 if is("content-type") => join(&mut self.content_type, value),
            // RFC 9112 §6.3: a repeated or listed length is an unrecoverable error (it may be taken when all are equal;
            // it is not, as nothing honest sends that).
            14 if is("content-length") => once(&mut self.content_length, value, "more than one Content-Length"),
            16 if is("content-encoding") && !value.eq_ignore_ascii_case(b"identity") => {
                // RFC 9110 §8.4.
                Err(HttpError::new(
                    415,
                    "unsupported_encoding",
                    "no content coding is understood here",
                ))
            }
            17 if is("transfer-encoding") => {
                once(&mut self.transfer_encoding, value, "more than one Transfer-Encoding")
            }
            17 if is("sec-websocket-key") => join(&mut self.upgrade_mut().key, value),
            21 if is("sec-websocket-version") => join(&mut self.upgrade_mut().version, value),
            22 if is("sec-websocket-protocol") => join(&mut self.upgrade_mut().protocols, value),
            _ => Ok(()),
        }
    }

    fn upgrade_mut(&mut self) -> &mut Upgrade {
        self.upgrade.get_or_insert_default()
    }

    /// RFC 9112 §3.2: 400 without Host in HTTP/1.1, with more than one, or with an invalid one. It may be empty.
    fn check_host(&self, version: Version) -> Result<(), HttpError> {
        match self.host {
            None if version == Version::Http11 => Err(HttpError::invalid("no Host")),
            Some(host) if !host.is_empty() && !host_is_valid(host) => Err(HttpError::invalid("Host names no host")),
            _ => Ok(()),
        }
    }

    /// RFC 9112 §6.3.
    fn body(&self, version: Version) -> Result<BodyKind, HttpError> {
        match (self.transfer_encoding, self.content_length) {
            // RFC 9112 §6.1: may be an attempt to smuggle a request; to be treated as an error.
            (Some(_), Some(_)) => Err(HttpError::invalid("both Content-Length and Transfer-Encoding")),
            // RFC 9112 §6.1: the framing of such a message is faulty.
            (Some(_), None) if version == Version::Http10 => Err(HttpError::invalid("Transfer-Encoding in HTTP/1.0")),
            (Some(codings), None) => check_codings(codings).map(|()| BodyKind::Chunked),
            (None, Some(length)) => match parse_length(length)? {
                0 => Ok(BodyKind::None),
                length if length <= BODY_LEN_MAX as u64 => Ok(BodyKind::Length(length)),
                _ => Err(BODY_TOO_LARGE),
            },
            (None, None) => Ok(BodyKind::None),
        }
    }

    /// RFC 9110 §10.1.1: 417 for any other expectation; none counts in HTTP/1.0.
    fn expect_continue(&self, version: Version) -> Result<bool, HttpError> {
        match self.expect {
            Some(value) if version == Version::Http11 => {
                if value.eq_ignore_ascii_case(b"100-continue") {
                    Ok(true)
                } else {
                    Err(HttpError::new(
                        417,
                        "expectation_failed",
                        "only 100-continue can be expected",
                    ))
                }
            }
            _ => Ok(false),
        }
    }

    /// RFC 9112 §9.3.
    fn keep_alive(&self, version: Version) -> bool {
        !self.connection_close && (version == Version::Http11 || self.connection_keep_alive)
    }
}

/// The body is over [`BODY_LEN_MAX`] (RFC 9110 §15.5.14).
pub(super) const BODY_TOO_LARGE: HttpError = HttpError::new(413, "too_large", "the body is over 64 KiB");

fn once<'a>(slot: &mut Option<&'a [u8]>, value: &'a [u8], twice: &'static str) -> Result<(), HttpError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(HttpError::invalid(twice)),
    }
}

/// RFC 9110 §5.3: several fields of one name are one, joined by commas.
fn join(slot: &mut Option<CompactString>, value: &[u8]) -> Result<(), HttpError> {
    let value = std::str::from_utf8(value).map_err(|_| HttpError::invalid("a field value is not UTF-8"))?;
    match slot {
        None => *slot = Some(CompactString::new(value)),
        Some(joined) => {
            joined.push_str(", ");
            joined.push_str(value);
        }
    }
    Ok(())
}

/// Whether a comma-separated list holds a token, in any case (RFC 9110 §5.6.1).
fn has_token(list: &[u8], token: &str) -> bool {
    let mut items = list.split(|byte| *byte == b',');
    items.any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// RFC 9112 §6.1: only `chunked`; 501 for another coding before it, 400 when it is not the last (§6.3) or there twice.
/// Empty elements are to be ignored (RFC 9110 §5.6.1.2); here they are refused, as only smugglers send them (§11.2).
fn check_codings(codings: &[u8]) -> Result<(), HttpError> {
    if codings.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut last = true;
    for coding in codings.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if coding.is_empty() || coding.eq_ignore_ascii_case(b"chunked") != last {
            return Err(HttpError::invalid("Transfer-Encoding must be chunked"));
        }
        last = false;
    }
    Err(HttpError::new(
        501,
        "not_implemented",
        "only the transfer coding chunked is understood here",
    ))
}

/// RFC 9110 §8.6: digits and nothing else.
fn parse_length(value: &[u8]) -> Result<u64, HttpError> {
    const INVALID: HttpError = HttpError::invalid("Content-Length is no length");
    if value.is_empty() {
        return Err(INVALID);
    }
    value.iter().try_fold(0_u64, |length, byte| {
        if !byte.is_ascii_digit() {
            return Err(INVALID);
        }
        let length = length
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(byte - b'0')));
        length.ok_or(INVALID)
    })
}
