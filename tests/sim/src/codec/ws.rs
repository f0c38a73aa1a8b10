//! WebSocket (RFC 6455) as a client: the handshake, masked frames out, frames in.

use super::Bad;

/// What the node must answer to [`handshake`]: the example of RFC 6455 §1.3.
const ACCEPT: &str = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// Longest message of the contract, bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 << 10;

/// Appends the opening handshake of a driver.
pub fn handshake(out: &mut Vec<u8>, driver_id: &str) {
    out.extend_from_slice(b"GET /ws/driver/");
    out.extend_from_slice(driver_id.as_bytes());
    out.extend_from_slice(
        b" HTTP/1.1\r\nhost: sim\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
          sec-websocket-version: 13\r\nsec-websocket-protocol: dispatch.v1\r\n\r\n",
    );
}

/// What the node answered to the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Not whole yet.
    More,
    /// 101, and how many bytes that was.
    Open(usize),
    /// Another status.
    Refused(u16),
}

/// Reads the answer to the handshake.
///
/// # Errors
/// When it is a 101 that RFC 6455 does not allow here.
pub fn handshake_answer(input: &[u8]) -> Result<Handshake, Bad> {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(Handshake::More);
    };
    let head = std::str::from_utf8(&input[..end]).map_err(|_| Bad::new("a head that is no text"))?;
    let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    if status != 101 {
        return Ok(Handshake::Refused(status));
    }
    if !head.contains(ACCEPT) || !head.contains("sec-websocket-protocol: dispatch.v1") {
        return Err(Bad::new(format!("a handshake that is none: {head}")));
    }
    Ok(Handshake::Open(end + 4))
}

/// What kind of frame (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Text.
    Text,
    /// Close.
    Close,
    /// Ping.
    Ping,
    /// Pong.
    Pong,
}

/// A frame of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its kind.
    pub opcode: Opcode,
    /// What it carries.
    pub payload: &'a [u8],
}

/// The first frame in `input` and how many bytes it has; `None` when it is not whole.
///
/// # Errors
/// When the node must not send it: masked, in parts, reserved, too long, binary.
pub fn frame(input: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Bad> {
    let [first, second, ..] = *input else { return Ok(None) };
    let opcode = match first {
        0x81 => Opcode::Text,
        0x88 => Opcode::Close,
        0x89 => Opcode::Ping,
        0x8a => Opcode::Pong,
        other => return Err(Bad::new(format!("a frame that begins with {other:#04x}"))),
    };
    let (from, length) = match second {
        0..=125 => (2, usize::from(second)),
        126 => {
            let Some(bytes) = input.get(2..4) else { return Ok(None) };
            (4, usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
        }
        _ => return Err(Bad::new("a frame that is masked or too long")),
    };
    if length > MESSAGE_BYTES_MAX || (opcode != Opcode::Text && length > 125) {
        return Err(Bad::new(format!("a frame of {length} bytes")));
    }
    let Some(payload) = input.get(from..from + length) else {
        return Ok(None);
    };
    Ok(Some((Frame { opcode, payload }, from + length)))
}

/// Appends a text frame.
pub fn text(out: &mut Vec<u8>, payload: &[u8], mask: u32) {
    masked(out, 0x81, payload, mask);
}

/// Appends a ping.
pub fn ping(out: &mut Vec<u8>, mask: u32) {
    masked(out, 0x89, b"sim", mask);
}

/// Appends the answer to a ping.
pub fn pong(out: &mut Vec<u8>, payload: &[u8], mask: u32) {
    masked(out, 0x8a, payload, mask);
}

/// Appends a close with status 1000, or another.
pub fn close(out: &mut Vec<u8>, code: u16, mask: u32) {
    masked(out, 0x88, &code.to_be_bytes(), mask);
}

/// Appends what a server closes with this code for: a frame that is not masked (1002, RFC 6455 §5.1), a binary message
/// (1003), a text that is no UTF-8 (1007, §8.1), a message that is too long (1009).
///
/// # Panics
/// For another code.
pub fn violation(out: &mut Vec<u8>, code: u16, mask: u32) {
    match code {
        1002 => out.extend_from_slice(&[0x81, 2, b'{', b'}']),
        1003 => masked(out, 0x82, b"{}", mask),
        1007 => masked(out, 0x81, &[b'"', 0xff, b'"'], mask),
        1009 => masked(out, 0x81, &b" ".repeat(MESSAGE_BYTES_MAX + 1), mask),
        other => unreachable!("nobody earns {other}"),
    }
}

/// Appends a frame that begins with any byte (RFC 6455 §5.2).
pub fn masked(out: &mut Vec<u8>, first: u8, payload: &[u8], mask: u32) {
    out.push(first);
    if payload.len() < 126 {
        out.push(0x80 | payload.len() as u8);
    } else {
        out.push(0x80 | 0x7e);
        out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    }
    let mask = mask.to_be_bytes();
    out.extend_from_slice(&mask);
    let from = out.len();
    out.extend_from_slice(payload);
    for four in out[from..].chunks_mut(4) {
        for (byte, key) in four.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_anywhere() {
        let mut bytes = vec![0x81, 3, b'a', b'b', b'c', 0x81, 126, 1, 0];
        bytes.extend_from_slice(&[b'x'; 256]);
        for cut in 0..5 {
            assert_eq!(frame(&bytes[..cut]), Ok(None));
        }
        let (first, used) = frame(&bytes).unwrap().unwrap();
        assert_eq!((first.opcode, first.payload, used), (Opcode::Text, &b"abc"[..], 5));
        assert_eq!(frame(&bytes[5..200]), Ok(None));
        let (second, used) = frame(&bytes[5..]).unwrap().unwrap();
        assert_eq!((second.payload.len(), used), (256, 260));
    }

    #[test]
    fn frames_that_a_server_must_not_send() {
        for bad in [
            &[0x82, 0][..],
            &[0x01, 0],
            &[0x81, 0x83],
            &[0x81, 127],
            &[0x89, 126, 0, 200],
            &[0xc1, 0],
        ] {
            assert!(frame(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn masking_as_in_the_rfc() {
        // RFC 6455 §5.7: a single-frame masked text message.
        let mut out = Vec::new();
        text(&mut out, b"Hello", 0x37fa_213d);
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn handshakes() {
        let open = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
            sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nsec-websocket-protocol: dispatch.v1\r\n\r\n";
        assert_eq!(handshake_answer(open), Ok(Handshake::Open(open.len())));
        assert_eq!(handshake_answer(&open[..50]), Ok(Handshake::More));
        assert_eq!(handshake_answer(b"HTTP/1.1 503 x\r\n\r\n"), Ok(Handshake::Refused(503)));
        assert!(handshake_answer(b"HTTP/1.1 101 x\r\n\r\n").is_err());
    }
}
