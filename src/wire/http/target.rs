//! Request targets (RFC 9112 §3.2) and authorities (RFC 3986 §3.2).

use super::{HttpError, Target};
use compact_str::CompactString;

/// Checks the target of a request whose method is `method`.
pub(super) fn parse_target(method: &str, raw: &str) -> Result<Target, HttpError> {
    // RFC 9110 §9.3.6: authority-form; the connection would be a tunnel afterwards.
    if method == "CONNECT" {
        return Err(HttpError::new(501, "not_implemented", "this is no proxy"));
    }
    // RFC 9112 §3.2.4: asterisk-form is for OPTIONS alone.
    if raw == "*" && method == "OPTIONS" {
        return Ok(Target {
            path: CompactString::const_new("*"),
            query: None,
        });
    }
    let (path, query) = split(strip_authority(raw)?);
    let path = if path.is_empty() { "/" } else { path };
    if !(chars_are_valid(path, false) && query.is_none_or(|query| chars_are_valid(query, true))) {
        // RFC 9112 §3.2: an invalid request line is answered with 400; a fragment is not part of a target.
        return Err(HttpError::invalid(
            "the request target has a character that must be percent-encoded",
        ));
    }
    Ok(Target {
        path: CompactString::new(path),
        query: query.map(CompactString::new),
    })
}

/// What follows the authority of an absolute-form target; all of an origin-form one.
///
/// RFC 9112 §3.2.2: a server must take the absolute form. Its authority goes before Host; neither matters here.
fn strip_authority(raw: &str) -> Result<&str, HttpError> {
    if raw.starts_with('/') {
        return Ok(raw);
    }
    let scheme_len = ["http://", "https://"]
        .iter()
        .find(|scheme| {
            raw.get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        })
        .ok_or(HttpError::invalid(
            "the request target is neither a path nor an http URL",
        ))?
        .len();
    let rest = &raw[scheme_len..];
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // RFC 9110 §4.2.1: an http URL without a host is invalid; §4.2.4: so is one with userinfo.
    if authority.is_empty() || authority.starts_with(':') || !host_is_valid(authority.as_bytes()) {
        return Err(HttpError::invalid("the request target names no host"));
    }
    Ok(rest)
}

fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// RFC 3986 §3.3, §3.4: `pchar` and `/`, in a query also `?`; every `%` with two hex digits.
fn chars_are_valid(text: &str, query: bool) -> bool {
    let mut bytes = text.as_bytes();
    while let [byte, rest @ ..] = bytes {
        bytes = match (byte, rest) {
            (b'%', [high, low, after @ ..]) if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            (b':' | b'@' | b'/', _) => rest,
            (b'?', _) if query => rest,
            (byte, _) if is_unreserved_or_sub_delim(*byte) => rest,
            _ => return false,
        };
    }
    true
}

/// RFC 3986 §2.2, §2.3.
fn is_unreserved_or_sub_delim(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~')
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
}

/// RFC 9110 §7.2: `uri-host [ ":" port ]`, the host a name, an IPv4 address or an IPv6 literal in brackets.
pub(super) fn host_is_valid(value: &[u8]) -> bool {
    let (host_valid, rest) = if let [b'[', rest @ ..] = value {
        let Some(end) = rest.iter().position(|byte| *byte == b']') else {
            return false;
        };
        // RFC 3986 §3.2.2: IPv6address or IPvFuture.
        let literal = &rest[..end];
        let valid = |byte: &u8| *byte == b':' || is_unreserved_or_sub_delim(*byte);
        (!literal.is_empty() && literal.iter().all(valid), &rest[end + 1..])
    } else {
        let (host, rest) = value.split_at(value.iter().position(|byte| *byte == b':').unwrap_or(value.len()));
        // RFC 3986 §3.2.2: a reg-name may hold percent-encoded bytes.
        let valid = |byte: &u8| *byte == b'%' || is_unreserved_or_sub_delim(*byte);
        (host.iter().all(valid), rest)
    };
    let port_valid = match rest {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    host_valid && port_valid
}
