//! The opening handshake of WebSocket.

use dispatchd::wire::http::parse_head;
use dispatchd::wire::ws;

const SAMPLE: [&str; 6] = [
    "Host: a",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: dispatch.v1",
];

/// The status of a handshake where `line` takes the place of the one that begins like it, or goes when it has no value.
fn handshake(request_line: &str, line: &str) -> u16 {
    let name = line.split(':').next().unwrap();
    let mut lines: Vec<&str> = SAMPLE.into_iter().filter(|sample| !sample.starts_with(name)).collect();
    if line.contains(": ") {
        lines.push(line);
    }
    let bytes = format!("{request_line}\r\n{}\r\n\r\n", lines.join("\r\n"));
    let (head, _) = parse_head(bytes.as_bytes()).unwrap().unwrap();
    match ws::accept(&head) {
        Ok(_) => 101,
        Err(problem) => problem.status,
    }
}

#[test]
fn handshakes() {
    const GET: &str = "GET /ws/driver/d1 HTTP/1.1";
    let check = |line: &str, status: u16| assert_eq!(handshake(GET, line), status, "{line}");
    check("X: y", 101);
    check("Upgrade: h2c, WebSocket", 101);
    check("Connection: upgrade", 101);
    check("Sec-WebSocket-Protocol: other, dispatch.v1", 101);
    check(
        "Sec-WebSocket-Protocol: other\r\nSec-WebSocket-Protocol: dispatch.v1",
        101,
    );
    check("Sec-WebSocket-Extensions: permessage-deflate", 101);
    check("Upgrade:", 426);
    check("Upgrade: h2c", 426);
    check("Connection:", 400);
    check("Connection: keep-alive", 400);
    check("Sec-WebSocket-Version:", 426);
    check("Sec-WebSocket-Version: 8", 426);
    check("Sec-WebSocket-Version: 13, 8", 426);
    check("Sec-WebSocket-Key:", 400);
    check("Sec-WebSocket-Key: short", 400);
    check("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=", 400);
    check("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!Q==", 400);
    check("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSEh", 400);
    check(
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        400,
    );
    check("Sec-WebSocket-Protocol:", 400);
    check("Sec-WebSocket-Protocol: other", 400);
    check("Sec-WebSocket-Protocol: Dispatch.v1", 400);
    check("Sec-WebSocket-Protocol: dispatch.v1x", 400);
    assert_eq!(handshake("POST /ws/driver/d1 HTTP/1.1", "X: y"), 405);
    assert_eq!(handshake("GET /ws/driver/d1 HTTP/1.0", "X: y"), 426);
}

#[test]
fn the_answer_to_a_handshake() {
    let bytes = format!("GET /ws/driver/d1 HTTP/1.1\r\n{}\r\n\r\n", SAMPLE.join("\r\n"));
    let (head, _) = parse_head(bytes.as_bytes()).unwrap().unwrap();
    let mut out = Vec::new();
    ws::write_101(&mut out, &ws::accept(&head).unwrap());
    let out = String::from_utf8(out).unwrap();
    assert!(out.starts_with("HTTP/1.1 101 Switching Protocols\r\n") && out.ends_with("\r\n\r\n"));
    // The key and its answer are those of RFC 6455 §1.3.
    assert!(out.contains("\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    assert!(out.contains("\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"));
    assert!(out.contains("\r\nsec-websocket-protocol: dispatch.v1\r\n"));
    assert!(!out.contains("extensions"));
}
