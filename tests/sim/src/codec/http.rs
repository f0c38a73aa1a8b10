//! HTTP/1.1 (RFC 9112) as a client: writing requests, cutting answers out of bytes.

use super::Bad;
use std::io::Write as _;

/// A whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Status code.
    pub status: u16,
    /// The connection ends after this answer.
    pub close: bool,
    /// `Retry-After` is there.
    pub retry_after: bool,
    /// The body.
    pub body: &'a str,
}

/// Appends a request. `body` is there for a `POST`.
///
/// # Panics
/// Never: a `Vec` takes all.
pub fn request(out: &mut Vec<u8>, method: &str, target: &str, body: Option<&[u8]>) {
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: sim\r\n");
    if let Some(body) = body {
        write!(out, "content-length: {}\r\n\r\n", body.len()).expect("a Vec takes all");
        out.extend_from_slice(body);
    } else {
        out.extend_from_slice(b"\r\n");
    }
}

/// What the bytes of a connection begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins<'a> {
    /// A whole answer, and how many bytes it has.
    Answer(Answer<'a>, usize),
    /// A part of one; it is not whole with fewer bytes than this.
    Part(usize),
}

/// Reads the first answer in `input`, of which the first `searched` bytes are known to hold no whole head.
///
/// # Errors
/// When this is no answer as the node has to write it.
pub fn answer(input: &[u8], searched: usize) -> Result<Begins<'_>, Bad> {
    let Some(head_len) = head_len(input, searched) else {
        return if input.len() > 16 << 10 {
            Err(Bad::new("an HTTP head without an end"))
        } else {
            Ok(Begins::Part(0))
        };
    };
    let head = std::str::from_utf8(&input[..head_len - 2]).map_err(|_| Bad::new("a head that is no text"))?;
    // A bare LF ends a line that is none.
    let mut lines = head
        .split_inclusive('\n')
        .map(|line| line.strip_suffix("\r\n").unwrap_or("\n"));
    let status_line = lines.next().unwrap_or_default();
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Bad::new(format!("no status line: {status_line}")))?;
    let (mut length, mut close, mut retry_after) = (None, false, false);
    for line in lines {
        let (name, value) = line
            .split_once(':')
            .and_then(|(name, value)| Some((name, value.strip_prefix(' ')?)))
            .ok_or_else(|| Bad::new(format!("no field: {line}")))?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.contains("close");
        } else if name.eq_ignore_ascii_case("retry-after") {
            retry_after = value.parse::<u32>().is_ok();
        }
    }
    let length = match (status, length) {
        (100..=199 | 204, _) => 0,
        (_, Some(length)) => length,
        (_, None) => return Err(Bad::new("an answer without Content-Length")),
    };
    let Some(body) = input.get(head_len..head_len + length) else {
        return Ok(Begins::Part(head_len + length));
    };
    let body = std::str::from_utf8(body).map_err(|_| Bad::new("a body that is no text"))?;
    let answer = Answer {
        status,
        close,
        retry_after,
        body,
    };
    Ok(Begins::Answer(answer, head_len + length))
}

/// Length of the head, empty line included; it does not end within the first `from` bytes.
fn head_len(input: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + input[from..].iter().position(|byte| *byte == b'\n')?;
        if input[..at].ends_with(b"\r\n\r") {
            return Some(at + 1);
        }
        from = at + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 7\r\nconnection: keep-alive\r\n\r\n{\"a\":1}\
        HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\nRetry-After: 1\r\nConnection: close\r\n\r\n{}";

    #[test]
    fn answers_are_cut_anywhere() {
        let whole = |input| match answer(input, 0) {
            Ok(Begins::Answer(answer, used)) => (answer, used),
            other => panic!("{other:?}"),
        };
        let (first, used) = whole(TWO);
        assert_eq!((first.status, first.close, first.body), (202, false, "{\"a\":1}"));
        let mut searched = 0;
        for cut in 0..used {
            let Ok(Begins::Part(least)) = answer(&TWO[..cut], searched) else {
                panic!("an answer of {cut} bytes")
            };
            assert!(least == 0 || least == used, "{cut}");
            assert_eq!(answer(&TWO[..cut], 0), Ok(Begins::Part(least)), "{cut}");
            if least == 0 {
                searched = cut;
            }
        }
        let (second, rest) = whole(&TWO[used..]);
        assert_eq!(
            (second.status, second.close, second.retry_after, second.body),
            (503, true, true, "{}")
        );
        assert_eq!(used + rest, TWO.len());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert!(answer(b"HTTP/1.0 200 OK\r\n\r\n", 0).is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", 0).is_err());
        assert!(answer(b"HTTP/1.1 200 OK\r\nno field\r\n\r\n", 0).is_err());
        assert!(answer(&vec![b'x'; 20_000], 0).is_err());
    }

    #[test]
    fn requests() {
        let mut out = Vec::new();
        request(&mut out, "GET", "/healthz", None);
        request(&mut out, "POST", "/v1/x", Some(b"{}"));
        assert_eq!(
            out,
            b"GET /healthz HTTP/1.1\r\nhost: sim\r\n\r\nPOST /v1/x HTTP/1.1\r\nhost: sim\r\ncontent-length: 2\r\n\r\n{}"
        );
    }
}
