//! Clients beside the drivers and the engine: one that sends what the contract does not allow, and one that reads. Both block,
//! each on a thread of its own; what is answered otherwise than expected is a fault.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{SocketAddrV4, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use dispatchd::demo::observe::Observer;

use crate::http;
use crate::ws::SUBPROTOCOL;

/// Between two pieces of bad input.
const BAD_EVERY: Duration = Duration::from_millis(150);
/// Between two reads.
const READ_EVERY: Duration = Duration::from_millis(40);
/// Longest wait for an answer; the node's own bounds on slow heads are about as long.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// Faults that are kept in words.
const FAULTS_MAX: usize = 20;

/// What both tell.
#[derive(Debug, Default)]
pub struct Notes {
    /// Pieces of bad input sent.
    pub bad_sent: AtomicU64,
    /// Reads made.
    pub reads: AtomicU64,
    faults: Mutex<Vec<String>>,
}

impl Notes {
    /// Notes a fault; beyond the first few they are not kept.
    pub fn fault(&self, what: String) {
        let mut faults = self.faults.lock().expect("nobody panics while noting");
        if faults.len() < FAULTS_MAX {
            faults.push(what);
        }
    }

    /// All faults.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.faults.lock().expect("nobody panics while noting").clone();
        if self.reads.load(Ordering::Relaxed) == 0 {
            faults.push("nothing was read: the drivers were not there in time".to_owned());
        }
        faults
    }
}

/// Bad input: what is sent, and how the answer must begin (an empty one: the connection just ends).
struct Bad {
    sent: Vec<u8>,
    answer: &'static [u8],
}

fn bad_http(host: SocketAddrV4) -> Vec<Bad> {
    let with = |sent: String, answer: &'static str| Bad {
        sent: sent.into_bytes(),
        answer: answer.as_bytes(),
    };
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let post = |path: &str, body: &str| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let huge = format!("{{\"request_id\":\"x\",\"trip\":{{\"x\":\"{}\"}}}}", "x".repeat(70_000));
    vec![
        with(get("/nowhere"), "HTTP/1.1 404"),
        with(get("/v1/dispatch/request/unknown-request"), "HTTP/1.1 404"),
        with(get("/v1/dispatch/audit/b%20d"), "HTTP/1.1 400"),
        with(get("/v1/events?limit=many"), "HTTP/1.1 400"),
        with(get("/v1/dispatch/offer"), "HTTP/1.1 405"),
        with(post("/v1/dispatch/offer", "{\"request_id\":"), "HTTP/1.1 400"),
        with(
            post("/v1/dispatch/offer", "{\"request_id\":\"r\",\"driver_id\":\"d\"}"),
            "HTTP/1.1 400",
        ),
        with(post("/v1/dispatch/offer", &huge), "HTTP/1.1 413"),
        with(
            post(
                "/v1/dispatch/response",
                "{\"driver_id\":\"d\",\"request_id\":\"none\",\"response_type\":\"ACCEPT\"}",
            ),
            "HTTP/1.1 404",
        ),
        with("BOGUS\r\n\r\n".into(), "HTTP/1.1 400"),
        with(
            format!("POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            "HTTP/1.1 400",
        ),
        // No subprotocol.
        with(
            format!(
                "GET /ws/driver/stranger HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            ),
            "HTTP/1.1 400",
        ),
        // A head that never ends: cut when its time is up.
        with(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nX-"), ""),
    ]
}

/// What is sent on an open WebSocket, and the code of the close frame that must follow (0: an `ERROR`, and the socket lives).
fn bad_frames() -> Vec<(Vec<u8>, u16)> {
    const MASK: [u8; 4] = [1, 2, 3, 4];
    let frame = |first: u8, payload: &[u8]| {
        let mut frame = vec![first];
        match payload.len() {
            short @ 0..=125 => frame.push(0x80 | short as u8),
            long @ 126..=0xffff => {
                frame.push(0x80 | 0x7e);
                frame.extend_from_slice(&(long as u16).to_be_bytes());
            }
            _ => unreachable!("no frame of ours is longer"),
        }
        frame.extend_from_slice(&MASK);
        frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    };
    vec![
        (frame(0x81, b"not json"), 0),
        (frame(0x81, br#"{"type":"SING"}"#), 0),
        (
            frame(0x81, br#"{"type":"ACCEPT","request_id":"nobody-knows","attempt":1}"#),
            0,
        ),
        (frame(0x81, br#"{"type":"LOCATION","lat":1234,"lon":0}"#), 0),
        (frame(0x82, b"binary"), 1003),
        (frame(0x81, &[0xff, 0xfe]), 1007),
        (frame(0x81, &vec![b'x'; 17_000]), 1009),
        (vec![0x81, 0x02, b'{', b'}'], 1002),
        (frame(0xf1, b"{}"), 1002),
    ]
}

/// Sends bad input until `stop`. Every tenth handshake is in the name of `driver`, whose own app is displaced by it.
pub fn misbehave(address: SocketAddrV4, driver: &str, stop: &AtomicBool, notes: &Notes) {
    let (http, frames) = (bad_http(address), bad_frames());
    let mut turn = 0usize;
    while !stop.load(Ordering::Relaxed) {
        let result = if turn.is_multiple_of(2) {
            let bad = &http[turn / 2 % http.len()];
            exchange(address, &bad.sent, bad.answer)
        } else {
            let (sent, close) = &frames[turn / 2 % frames.len()];
            let name = if turn % 20 == 1 { driver } else { "stranger" };
            on_websocket(address, name, sent, *close)
        };
        notes.bad_sent.fetch_add(1, Ordering::Relaxed);
        match result {
            Ok(None) => {}
            Ok(Some(what)) => notes.fault(what),
            Err(error) => notes.fault(format!("bad input {turn}: {error}")),
        }
        turn += 1;
        sleep(BAD_EVERY);
    }
}

/// Sends, and says how the answer differs from what must come.
fn exchange(address: SocketAddrV4, sent: &[u8], expected: &[u8]) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    // The node may cut a body that is too long before it was sent whole.
    let _ = stream.write_all(sent);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && error.kind() != io::ErrorKind::ConnectionReset
    {
        return Err(error);
    }
    let fine = if expected.is_empty() {
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 408")
    } else {
        // A reset may have taken the answer with it; then there is nothing to compare.
        answer.is_empty() || answer.starts_with(expected)
    };
    let said = |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
    Ok((!fine).then(|| format!("to {:?} came {:?}", said(sent), said(&answer))))
}

fn on_websocket(address: SocketAddrV4, driver: &str, sent: &[u8], close: u16) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    write!(
        stream,
        "GET /ws/driver/{driver} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    )?;
    stream.write_all(sent)?;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    let wanted = close_frame_begin(close);
    loop {
        let done = if close == 0 {
            contains(&received, b"\"type\":\"ERROR\"")
        } else {
            contains(&received, &wanted)
        };
        // The driver's own app, connecting again, may have displaced this one in between.
        if done || contains(&received, &close_frame_begin(4001)) {
            return Ok(None);
        }
        match stream.read(&mut buffer)? {
            0 => break,
            count => received.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(Some(format!(
        "{driver}: no answer {close} to a bad frame, but {} bytes",
        received.len()
    )))
}

/// The code of a close frame behind its opcode and length, whose low bits vary with the reason.
fn close_frame_begin(code: u16) -> [u8; 2] {
    code.to_be_bytes()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Reads requests, audits, drivers, records and metrics until `stop`, each over a connection of its own. Only requests whose POST
/// has been answered are asked for.
pub fn read(address: SocketAddrV4, drivers: u32, observer: &Observer, stop: &AtomicBool, notes: &Notes) {
    let mut turn = 0usize;
    // They connect one after the other, this one last.
    let last = format!("/v1/drivers/driver-{:05}", drivers - 1);
    while !stop.load(Ordering::Relaxed) && !http::get(address, &last).is_ok_and(|(status, _)| status == 200) {
        sleep(READ_EVERY);
    }
    while !stop.load(Ordering::Relaxed) {
        sleep(READ_EVERY);
        let Some(request) = observer.one_taken(|count| count - 1 - steps_back(turn, count)) else {
            continue;
        };
        let driver = turn * 31 % drivers as usize;
        let path = match turn % 5 {
            0 => format!("/v1/dispatch/request/{request}"),
            1 => format!("/v1/dispatch/audit/{request}"),
            2 => format!("/v1/drivers/driver-{driver:05}"),
            3 => format!("/v1/drivers/driver-{driver:05}/records?date={}&limit=20", today()),
            _ => "/healthz".to_owned(),
        };
        notes.reads.fetch_add(1, Ordering::Relaxed);
        match http::get(address, &path) {
            Ok((200, _)) => {}
            Ok((status, body)) => notes.fault(format!("{path} is answered {status}: {body}")),
            Err(error) => notes.fault(format!("{path}: {error}")),
        }
        turn += 1;
    }
}

/// Which of `count` requests is read, counted back from the newest: mostly one that is in memory still, sometimes one that only
/// the store has.
fn steps_back(turn: usize, count: usize) -> usize {
    let back = if turn.is_multiple_of(4) {
        turn * 7919
    } else {
        turn % 100
    };
    back % count
}

/// The UTC day, as the records API takes it.
fn today() -> String {
    jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::sync::Arc;

    /// Answers so many GETs, each on a connection of its own: 404 to a request that is none of `known`. Then nobody shall ask on.
    fn serve(listener: &TcpListener, known: &[&str], answers: usize, stop: &AtomicBool) {
        for (answer, stream) in (1..=answers).zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap();
            let request = path
                .strip_prefix("/v1/dispatch/")
                .and_then(|rest| rest.split('/').nth(1));
            let found = request.is_none_or(|request| known.contains(&request));
            let status = if found { "200 OK" } else { "404 Not Found" };
            // Before the last answer: whoever has it may ask at once, and nobody listens to that.
            stop.store(answer == answers, Ordering::Relaxed);
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}").unwrap();
        }
    }

    #[test]
    fn only_requests_that_were_answered_are_read_in_whatever_order_that_was() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            unreachable!("it was bound to one")
        };
        let (stop, notes, observer) = (AtomicBool::new(false), Notes::default(), Observer::counting());
        let known = ["ride-00900", "ride-00002", "ride-00417"];
        for id in known {
            observer.taken(&Arc::from(id));
        }
        std::thread::scope(|threads| {
            threads.spawn(|| serve(&listener, &known, 40, &stop));
            read(address, 10, &observer, &stop, &notes);
        });
        assert!(notes.reads.load(Ordering::Relaxed) > 30);
        assert_eq!(notes.faults(), Vec::<String>::new());
    }
}
