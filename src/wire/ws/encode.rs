//! Frames out: unmasked, never fragmented (RFC 6455 §5.1, §5.4).

use crate::wire::limits::{CLOSE_REASON_LEN_MAX, CONTROL_LEN_MAX, MESSAGE_LEN_MAX};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// Header of a server's frame with a payload up to [`CONTROL_LEN_MAX`] bytes.
const HEADER_LEN_SHORT: usize = 2;
/// Header of a server's frame with a longer payload, up to [`MESSAGE_LEN_MAX`] bytes.
const HEADER_LEN_LONG: usize = 4;

/// Appends a text frame whose payload `write` appends, at most [`MESSAGE_LEN_MAX`] bytes; best when that is mostly shorter
/// than 126 bytes.
pub fn write_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let payload_len = write_data(out, HEADER_LEN_SHORT, Data::Text, write);
    debug_assert!(payload_len <= MESSAGE_LEN_MAX);
}

/// The same, best when the payload is mostly 126 bytes or longer (`OFFER`).
pub fn write_text_long(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let payload_len = write_data(out, HEADER_LEN_LONG, Data::Text, write);
    debug_assert!(payload_len <= MESSAGE_LEN_MAX);
}

/// Appends a text frame of any length; only for servers whose policy is not that of the contract.
pub fn write_text_whole(out: &mut Vec<u8>, text: &str) {
    write_whole(out, Data::Text, text.as_bytes());
}

/// Appends a binary frame of any length; only for servers whose policy takes them.
pub fn write_binary(out: &mut Vec<u8>, payload: &[u8]) {
    write_whole(out, Data::Binary, payload);
}

fn write_whole(out: &mut Vec<u8>, kind: Data, payload: &[u8]) {
    let header_len = header(OpCode::Data(kind)).len(payload.len() as u64);
    write_data(out, header_len, kind, |out| out.extend_from_slice(payload));
}

/// Appends a ping; `payload` has at most 125 bytes.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8]) {
    write_control(out, Control::Ping, payload);
}

/// Appends a pong; `payload` is the ping's, at most 125 bytes.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    write_control(out, Control::Pong, payload);
}

/// Appends a close frame; a `reason` over 123 bytes is cut at a character. Code 1005 means an empty frame: the answer
/// to one without a code (RFC 6455 §7.1.5).
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    if code == super::close_code::NO_STATUS {
        return write_control(out, Control::Close, &[]);
    }
    debug_assert!(super::decode::close_code_is_valid(code));
    let mut fits = (0..=reason.len().min(CLOSE_REASON_LEN_MAX)).rev();
    let end = fits.find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    let reason = &reason[..end];
    let mut payload = [0; CONTROL_LEN_MAX];
    payload[..2].copy_from_slice(&code.to_be_bytes());
    payload[2..2 + reason.len()].copy_from_slice(reason.as_bytes());
    write_control(out, Control::Close, &payload[..2 + reason.len()]);
}

/// Leaves room for a header of `guess` bytes, lets `write` append the payload and then fills the header in; the payload
/// moves only when the guess was wrong. Gives the payload's length.
fn write_data(out: &mut Vec<u8>, guess: usize, kind: Data, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    out.resize(start + guess, 0);
    write(out);
    let payload_len = out.len() - start - guess;
    let header = header(OpCode::Data(kind));
    let header_len = header.len(payload_len as u64);
    if header_len > guess {
        out.resize(out.len() + header_len - guess, 0);
        out.copy_within(start + guess..start + guess + payload_len, start + header_len);
    } else if header_len < guess {
        out.copy_within(start + guess.., start + header_len);
        out.truncate(start + header_len + payload_len);
    }
    let formatted = header.format(payload_len as u64, &mut &mut out[start..start + header_len]);
    debug_assert!(formatted.is_ok(), "the room was measured");
    payload_len
}

fn write_control(out: &mut Vec<u8>, opcode: Control, payload: &[u8]) {
    // RFC 6455 §5.5: at most 125 bytes, so the length fits the second byte.
    debug_assert!(payload.len() <= CONTROL_LEN_MAX);
    let formatted = header(OpCode::Control(opcode)).format(payload.len() as u64, out);
    debug_assert!(formatted.is_ok(), "a Vec takes all");
    out.extend_from_slice(payload);
}

fn header(opcode: OpCode) -> FrameHeader {
    FrameHeader {
        opcode,
        ..FrameHeader::default()
    }
}
