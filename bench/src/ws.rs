//! WebSocket framing of the client side (RFC 6455): the upgrade, masked text frames out, unmasked frames in.
//! Frame headers are tungstenite's; nothing here owns a connection or a buffer.
#![forbid(unsafe_code)]

use std::io::{Cursor, Write};

use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Subprotocol of the contract.
pub const SUBPROTOCOL: &str = "dispatch.v1";
/// Every handshake's nonce. It guards against caches that answer by mistake, of which there are none on loopback.
const KEY: &str = "ZGlzcGF0Y2hkLWJlbmNoIQ==";
/// Every frame's mask: not zero, so that the server has to unmask for real.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Header fields that a response to the upgrade may have.
const RESPONSE_HEADERS_MAX: usize = 32;

/// Writes the request that opens the driver's WebSocket.
pub fn write_upgrade(into: &mut Vec<u8>, host: &str, driver: u32) {
    into.extend_from_slice(b"GET /ws/driver/");
    crate::message::write_driver_id(into, driver);
    write!(
        into,
        " HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    )
    .expect("writing to memory cannot fail");
}

/// What the answer to an upgrade says.
#[derive(Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// The head has not arrived whole.
    Partial,
    /// It is a WebSocket from this byte on.
    Open {
        /// Length of the response's head.
        consumed: usize,
    },
    /// Another answer than 101, or a 101 that RFC 6455 does not allow.
    Refused {
        /// HTTP status, or 0 when the answer made no sense.
        status: u16,
    },
}

/// The `Sec-WebSocket-Accept` that answers our key; compute it once.
pub fn expected_accept() -> String {
    derive_accept_key(KEY.as_bytes())
}

/// Reads the answer to [`write_upgrade`].
pub fn read_upgrade(bytes: &[u8], expected_accept: &str) -> Upgrade {
    let mut headers = [httparse::EMPTY_HEADER; RESPONSE_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let consumed = match response.parse(bytes) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) => return Upgrade::Partial,
        Err(_) => return Upgrade::Refused { status: 0 },
    };
    let status = response.code.unwrap_or(0);
    if status != 101 {
        return Upgrade::Refused { status };
    }
    let has = |name: &str, value: &str| {
        response
            .headers
            .iter()
            .any(|h| h.name.eq_ignore_ascii_case(name) && h.value == value.as_bytes())
    };
    if has("sec-websocket-accept", expected_accept) && has("sec-websocket-protocol", SUBPROTOCOL) {
        Upgrade::Open { consumed }
    } else {
        Upgrade::Refused { status: 0 }
    }
}

/// What kind of frame arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A text message.
    Text,
    /// The server closes.
    Close,
    /// A ping or pong frame.
    Control,
}

/// A whole frame within the bytes that were passed in.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: Kind,
    /// Where its payload starts.
    pub start: usize,
    /// Where its payload and the frame end.
    pub end: usize,
}

/// Finds the frame at the beginning of `bytes`; `None` when it has not arrived whole.
///
/// # Errors
/// Says what breaks the protocol: masked, fragmented, binary or reserved frames.
pub fn next_frame(bytes: &[u8]) -> Result<Option<Frame>, String> {
    let mut cursor = Cursor::new(bytes);
    let (header, length) = match FrameHeader::parse(&mut cursor) {
        Ok(Some(parsed)) => parsed,
        Ok(None) => return Ok(None),
        Err(error) => return Err(format!("bad frame header: {error}")),
    };
    if header.mask.is_some() || !header.is_final || header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(format!("frame is masked, fragmented or uses reserved bits: {header:?}"));
    }
    let kind = match header.opcode {
        OpCode::Data(Data::Text) => Kind::Text,
        OpCode::Control(Control::Close) => Kind::Close,
        OpCode::Control(Control::Ping | Control::Pong) => Kind::Control,
        other => return Err(format!("unexpected opcode {other:?}")),
    };
    let start = cursor.position() as usize;
    let end = start as u64 + length;
    Ok((end <= bytes.len() as u64).then_some(Frame {
        kind,
        start,
        end: end as usize,
    }))
}

/// Appends a masked text frame.
pub fn write_text(into: &mut Vec<u8>, payload: &[u8]) {
    write_frame(into, OpCode::Data(Data::Text), payload);
}

/// Appends a masked binary frame.
pub fn write_binary(into: &mut Vec<u8>, payload: &[u8]) {
    write_frame(into, OpCode::Data(Data::Binary), payload);
}

/// Appends a masked close frame with code 1000.
pub fn write_close(into: &mut Vec<u8>) {
    write_frame(into, OpCode::Control(Control::Close), &1000u16.to_be_bytes());
}

fn write_frame(into: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    let header = FrameHeader {
        opcode,
        mask: Some(MASK),
        ..FrameHeader::default()
    };
    header
        .format(payload.len() as u64, into)
        .expect("writing to memory cannot fail");
    into.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Bytes that a text message of this length takes on the wire towards the server.
pub fn masked_len(payload: usize) -> u32 {
    header_len(payload) + 4 + payload as u32
}

/// Bytes that a text message of this length takes on the wire towards the driver.
pub fn unmasked_len(payload: usize) -> u32 {
    header_len(payload) + payload as u32
}

fn header_len(payload: usize) -> u32 {
    match payload {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upgrade_is_checked_against_the_key_and_the_subprotocol() {
        let accept = expected_accept();
        let good = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: dispatch.v1\r\n\r\nrest"
        );
        assert_eq!(
            read_upgrade(good.as_bytes(), &accept),
            Upgrade::Open {
                consumed: good.len() - 4
            }
        );
        assert_eq!(read_upgrade(&good.as_bytes()[..40], &accept), Upgrade::Partial);
        assert_eq!(read_upgrade(good.as_bytes(), "other"), Upgrade::Refused { status: 0 });
        let busy = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read_upgrade(busy, &accept), Upgrade::Refused { status: 503 });
        assert_eq!(
            read_upgrade(b"\x00\x01garbage\r\n\r\n", &accept),
            Upgrade::Refused { status: 0 }
        );
    }

    #[test]
    fn the_upgrade_request_is_a_whole_head() {
        let mut request = Vec::new();
        write_upgrade(&mut request, "127.0.0.1:1", 5);
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Request::new(&mut headers);
        assert!(parsed.parse(&request).unwrap().is_complete());
        assert_eq!(parsed.path, Some("/ws/driver/driver-000005"));
    }

    #[test]
    fn frames_out_are_masked_and_as_long_as_announced() {
        for length in [0, 1, 125, 126, 1000, 70_000] {
            let payload = vec![b'x'; length];
            let mut frame = Vec::new();
            write_text(&mut frame, &payload);
            assert_eq!(frame.len(), masked_len(length) as usize);
            let mut cursor = Cursor::new(&frame[..]);
            let (header, parsed_length) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
            assert_eq!((header.mask, parsed_length as usize), (Some(MASK), length));
            let start = cursor.position() as usize;
            let unmasked: Vec<u8> = frame[start..]
                .iter()
                .enumerate()
                .map(|(i, byte)| byte ^ MASK[i % 4])
                .collect();
            assert_eq!(unmasked, payload);
        }
    }

    #[test]
    fn frames_in_are_found_whole_or_not_at_all() {
        let two = b"\x81\x02hi\x88\x02\x03\xe8";
        assert_eq!(
            next_frame(two),
            Ok(Some(Frame {
                kind: Kind::Text,
                start: 2,
                end: 4
            }))
        );
        assert_eq!(
            next_frame(&two[4..]),
            Ok(Some(Frame {
                kind: Kind::Close,
                start: 2,
                end: 4
            }))
        );
        for cut in 0..4 {
            assert_eq!(next_frame(&two[..cut]), Ok(None));
        }
        assert!(next_frame(b"\x81\x82aaaabb").is_err(), "masked");
        assert!(next_frame(b"\x01\x02hi").is_err(), "fragmented");
        assert!(next_frame(b"\x82\x02hi").is_err(), "binary");
    }
}
