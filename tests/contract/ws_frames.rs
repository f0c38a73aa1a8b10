//! Frames: what RFC 6455 allows works, and what it forbids closes the connection with the RFC's code.

use crate::support::raw::{client_frame, unmasked_frame};
use crate::support::{Raw, Setup, Value};

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const CONTINUES: u8 = 0x00;
const ENDS: u8 = 0x80;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG_OPCODE: u8 = 0xA;
const FRAME_BYTES_MAX: usize = 16 << 10;

struct Violation {
    name: &'static str,
    bytes: Vec<u8>,
    codes: &'static [u16],
}

fn violation(name: &'static str, frames: &[Vec<u8>], codes: &'static [u16]) -> Violation {
    let bytes = frames.concat();
    Violation { name, bytes, codes }
}

fn violations() -> Vec<Violation> {
    let over = vec![b' '; FRAME_BYTES_MAX + 1];
    let half = vec![b' '; FRAME_BYTES_MAX / 2 + 1];
    let ping = br#"{"type":"PING"}"#;
    vec![
        violation("unmasked text", &[unmasked_frame(TEXT, ping)], &[1002]),
        violation("unmasked ping", &[unmasked_frame(PING, b"")], &[1002]),
        violation("reserved bit 1", &[client_frame(TEXT | 0x40, ping)], &[1002]),
        violation("reserved bit 3", &[client_frame(TEXT | 0x10, ping)], &[1002]),
        violation("reserved opcode 3", &[client_frame(0x83, ping)], &[1002]),
        violation("reserved opcode 11", &[client_frame(0x8b, b"")], &[1002]),
        violation("a long ping", &[client_frame(PING, &[b'p'; 126])], &[1002]),
        violation("a fragmented ping", &[client_frame(PING & 0x0f, b"p")], &[1002]),
        violation("an end without a beginning", &[client_frame(ENDS, b"x")], &[1002]),
        violation(
            "a beginning inside a message",
            &[client_frame(TEXT_BEGINS, b"{"), client_frame(TEXT, ping)],
            &[1002],
        ),
        violation("a close of one byte", &[client_frame(CLOSE, b"x")], &[1002]),
        violation(
            "a close code that is never sent",
            &[client_frame(CLOSE, &1005_u16.to_be_bytes())],
            &[1002],
        ),
        violation(
            "a close code below 1000",
            &[client_frame(CLOSE, &999_u16.to_be_bytes())],
            &[1002],
        ),
        violation(
            "a close reason that is no UTF-8",
            &[client_frame(CLOSE, b"\x03\xe8\xff")],
            &[1007, 1002],
        ),
        violation("binary", &[client_frame(BINARY, ping)], &[1003]),
        violation("empty binary", &[client_frame(BINARY, b"")], &[1003]),
        violation("fragmented binary", &[client_frame(0x02, ping)], &[1003]),
        violation("bad UTF-8", &[client_frame(TEXT, b"\"\xc3\x28\"")], &[1007]),
        violation("UTF-8 cut at the end", &[client_frame(TEXT, b"\"\xc3")], &[1007]),
        violation(
            "a surrogate in UTF-8",
            &[client_frame(TEXT, b"\"\xed\xa0\x80\"")],
            &[1007],
        ),
        violation(
            "bad UTF-8 in fragments",
            &[client_frame(TEXT_BEGINS, b"\"\xc3"), client_frame(ENDS, b"\x28\"")],
            &[1007],
        ),
        violation("a text over 16 KiB", &[client_frame(TEXT, &over)], &[1009]),
        violation(
            "fragments over 16 KiB",
            &[client_frame(TEXT_BEGINS, &half), client_frame(ENDS, &half)],
            &[1009],
        ),
        // The length alone decides: a server that waited for a gigabyte would wait long.
        violation(
            "a length of 1 GiB",
            &[vec![TEXT, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 1, 2, 3, 4]],
            &[1009],
        ),
        violation(
            "a length beyond 63 bits",
            &[vec![TEXT, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4]],
            &[1002, 1009],
        ),
    ]
}

/// W1.6, W1.7, W1.8, W1.9: every violation closes with the RFC's code, and nobody else notices.
#[tokio::test]
async fn violations_close_with_their_code() {
    let node = Setup::shards(2).start().await;
    let mut bystander = node.driver("bystander").await;
    for (number, Violation { name, bytes, codes }) in violations().into_iter().enumerate() {
        let mut raw = Raw::websocket(node.address, &format!("d{number}")).await;
        // The server may close before it has taken everything.
        raw.try_send(&bytes).await;
        let code = raw.close_code().await;
        assert!(codes.contains(&code), "{name}: closed with {code}");
        raw.try_send(client_frame(CLOSE, &code.to_be_bytes())).await;
        raw.expect_end().await;
        bystander.fence().await;
    }
}

/// W1.9: a message of exactly 16 KiB is taken.
#[tokio::test]
async fn sixteen_kib_are_taken() {
    let node = Setup::shards(1).start().await;
    let mut raw = Raw::websocket(node.address, "d1").await;
    welcomed(&mut raw).await;
    let mut message = br#"{"type":"PING"}"#.to_vec();
    message.resize(FRAME_BYTES_MAX, b' ');
    raw.send(client_frame(TEXT, &message)).await;
    assert_eq!(next_text(&mut raw).await["type"], "PONG");
}

/// W1.10: fragments make one message, also with control frames between them, and empty ones.
#[tokio::test]
async fn fragments_make_a_message() {
    let node = Setup::shards(1).start().await;
    let mut raw = Raw::websocket(node.address, "d1").await;
    welcomed(&mut raw).await;
    raw.send(client_frame(TEXT_BEGINS, br#"{"type":"#)).await;
    raw.send(client_frame(CONTINUES, b"")).await;
    raw.send(client_frame(PING, b"between")).await;
    raw.send(client_frame(CONTINUES, br#""PI"#)).await;
    raw.send(client_frame(ENDS, br#"NG"}"#)).await;
    assert_eq!(raw.frame().await, Some((PONG_OPCODE, b"between".to_vec())));
    assert_eq!(next_text(&mut raw).await["type"], "PONG");
}

/// W1.10: a character of several bytes may be cut by a fragment.
#[tokio::test]
async fn fragments_may_cut_a_character() {
    let node = Setup::shards(1).start().await;
    let mut raw = Raw::websocket(node.address, "d1").await;
    welcomed(&mut raw).await;
    let message = r#"{"type":"PING","note":"€"}"#.as_bytes();
    let cut = message.iter().position(|byte| *byte == 0xe2).unwrap() + 1;
    raw.send(client_frame(TEXT_BEGINS, &message[..cut])).await;
    raw.send(client_frame(ENDS, &message[cut..])).await;
    assert_eq!(next_text(&mut raw).await["type"], "PONG");
}

/// W1.11: a ping frame is answered by a pong frame with its payload, an empty and the longest one too.
#[tokio::test]
async fn pings_are_answered() {
    let node = Setup::shards(1).start().await;
    let mut raw = Raw::websocket(node.address, "d1").await;
    welcomed(&mut raw).await;
    for payload in [b"".as_slice(), b"hello", &[0; 125]] {
        raw.send(client_frame(PING, payload)).await;
        assert_eq!(raw.frame().await, Some((PONG_OPCODE, payload.to_vec())));
    }
    // An unasked pong is allowed (§5.5.3) and has no answer.
    raw.send(client_frame(0x8a, b"unasked")).await;
    raw.send(client_frame(TEXT, br#"{"type":"PING"}"#)).await;
    assert_eq!(next_text(&mut raw).await["type"], "PONG");
}

/// W1.12: the closing handshake: the server echoes the close and ends the connection.
#[tokio::test]
async fn closing_is_a_handshake() {
    let node = Setup::shards(1).start().await;
    for (number, payload) in [b"\x03\xe8bye".as_slice(), b"\x03\xe9", b"\x0f\xa1app"]
        .into_iter()
        .enumerate()
    {
        let mut raw = Raw::websocket(node.address, &format!("d{number}")).await;
        welcomed(&mut raw).await;
        raw.send(client_frame(CLOSE, payload)).await;
        let code = raw.close_code().await;
        assert_eq!(code.to_be_bytes(), payload[..2]);
        raw.expect_end().await;
    }
    let mut raw = Raw::websocket(node.address, "without-a-code").await;
    welcomed(&mut raw).await;
    raw.send(client_frame(CLOSE, b"")).await;
    let code = raw.close_code().await;
    assert!([1000, 1005].contains(&code), "{code}");
    raw.expect_end().await;
}

/// W1.10: frames in one packet are answered one by one; a frame in many packets is one frame.
#[tokio::test]
async fn packets_are_not_frames() {
    let node = Setup::shards(1).start().await;
    let mut raw = Raw::websocket(node.address, "d1").await;
    welcomed(&mut raw).await;
    let ping = client_frame(TEXT, br#"{"type":"PING"}"#);
    raw.send(ping.repeat(50)).await;
    for byte in ping.chunks(1) {
        raw.send(byte).await;
    }
    for _ in 0..51 {
        assert_eq!(next_text(&mut raw).await["type"], "PONG");
    }
}

async fn welcomed(raw: &mut Raw) {
    assert_eq!(next_text(raw).await["type"], "WELCOME");
}

async fn next_text(raw: &mut Raw) -> Value {
    let (opcode, payload) = raw.frame().await.expect("a frame");
    assert_eq!(opcode, 1, "{payload:?}");
    serde_json::from_slice(&payload).expect("JSON")
}
