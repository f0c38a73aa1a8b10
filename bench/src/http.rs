//! The HTTP/1.1 client: pipelined offers over few keep-alive connections, and one blocking GET for what happens beside the load.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::ops::Range;
use std::time::Duration;

use crate::json::Fields;

/// Header fields that a response may have.
const RESPONSE_HEADERS_MAX: usize = 32;
/// How long the blocking GET may take to connect, and between two bytes.
const GET_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer of the blocking GET, bytes.
const GET_BYTES_MAX: u64 = 8 << 20;

/// A response that lies whole within the bytes that were passed in.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Where the body lies; the response ends with it.
    pub body: Range<usize>,
}

/// Finds the response at the beginning of `bytes`; `None` when it has not arrived whole.
///
/// # Errors
/// Says what is not HTTP, or has no `Content-Length`.
pub fn next_response(bytes: &[u8]) -> Result<Option<Response>, String> {
    let mut headers = [httparse::EMPTY_HEADER; RESPONSE_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let start = match response.parse(bytes) {
        Ok(httparse::Status::Complete(start)) => start,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not an HTTP response: {error}")),
    };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| crate::json::parse_number(header.value.trim_ascii()))
        .ok_or("response without a Content-Length")?;
    let status = response.code.unwrap_or(0);
    let end = start as u64 + length;
    Ok((end <= bytes.len() as u64).then_some(Response {
        status,
        body: start..end as usize,
    }))
}

/// Whether the answer to a POST says that it was the first.
pub fn is_first(body: &[u8]) -> bool {
    Fields::of(body).any(|(key, value)| key == b"duplicate" && value == crate::json::Value::Raw(b"false"))
}

/// Appends a POST with a JSON body.
pub fn write_post(into: &mut Vec<u8>, host: &str, path: &str, body: &[u8]) {
    write!(
        into,
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .expect("writing to memory cannot fail");
    into.extend_from_slice(body);
}

/// Appends a GET.
pub fn write_get(into: &mut Vec<u8>, host: &str, path: &str) {
    write!(into, "GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").expect("writing to memory cannot fail");
}

/// Fetches `path` over a connection of its own; answers status and body (as it came, chunk marks included).
///
/// # Errors
/// A socket's error, or an answer that is not HTTP.
pub fn get(address: SocketAddrV4, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address.into(), GET_TIMEOUT)?;
    stream.set_read_timeout(Some(GET_TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.take(GET_BYTES_MAX).read_to_end(&mut answer)?;
    let mut headers = [httparse::EMPTY_HEADER; RESPONSE_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(&answer) {
        Ok(httparse::Status::Complete(start)) => Ok((
            response.code.unwrap_or(0),
            String::from_utf8_lossy(&answer[start..]).into_owned(),
        )),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipelined_responses_are_found_one_by_one() {
        let bytes = b"HTTP/1.1 202 Accepted\r\ncontent-length: 19\r\n\r\n{\"duplicate\":false}HTTP/1.1 200 OK\r\n";
        let response = next_response(bytes).unwrap().unwrap();
        assert_eq!(response.status, 202);
        assert!(is_first(&bytes[response.body.clone()]));
        assert_eq!(next_response(&bytes[response.body.end..]), Ok(None));
        for cut in 0..response.body.end {
            assert_eq!(next_response(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_a_response_is_an_error() {
        assert!(next_response(b"GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(next_response(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(!is_first(br#"{"duplicate":true}"#));
        assert!(!is_first(br#"{"state":"OFFER_SENT"}"#));
    }

    #[test]
    fn requests_are_whole() {
        let mut bytes = Vec::new();
        write_post(&mut bytes, "127.0.0.1:1", "/v1/dispatch/offer", b"{}");
        let head = bytes.len() - 2;
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        assert_eq!(request.parse(&bytes).unwrap(), httparse::Status::Complete(head));
        assert_eq!(request.path, Some("/v1/dispatch/offer"));
    }
}
