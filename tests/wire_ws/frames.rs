//! Frames as a client sends them, and what a decoder makes of them.

use dispatchd::wire::limits::MESSAGE_LEN_MAX;
use dispatchd::wire::ws::{WsDecoder, WsInput, WsPolicy};
use std::ops::ControlFlow;

/// What a decoder hands on, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<WsInput<'_>> for Seen {
    fn from(input: WsInput<'_>) -> Self {
        match input {
            WsInput::Text(text) => Self::Text(text.to_owned()),
            WsInput::Binary(bytes) => Self::Binary(bytes.to_vec()),
            WsInput::Ping(bytes) => Self::Ping(bytes.to_vec()),
            WsInput::Pong(bytes) => Self::Pong(bytes.to_vec()),
            WsInput::Close(close) => Self::Close(close.map(|(code, reason)| (code, reason.to_owned()))),
        }
    }
}

pub const ALL: WsPolicy = WsPolicy {
    accept_binary: true,
    message_len_max: MESSAGE_LEN_MAX,
};
pub const TEXT_ONLY: WsPolicy = WsPolicy::DRIVERS;

/// Feeds the pieces; gives what was seen and the code of the violation, if any.
pub fn decode(policy: WsPolicy, pieces: &[&[u8]]) -> (Vec<Seen>, Option<u16>) {
    let (mut decoder, mut seen) = (WsDecoder::new(), Vec::new());
    for piece in pieces {
        let mut bytes = piece.to_vec();
        let result = decoder.feed(policy, &mut bytes, &mut |input| {
            seen.push(Seen::from(input));
            ControlFlow::Continue(())
        });
        if let Err(violation) = result {
            assert!(violation.reason.len() <= 123);
            return (seen, Some(violation.code));
        }
        if matches!(seen.last(), Some(Seen::Close(_))) {
            break;
        }
    }
    (seen, None)
}

/// A client's frame. `first` is its first byte; the length is encoded as shortly as it can be.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        len @ ..126 => bytes.push(0x80 | len as u8),
        len @ ..65536 => {
            bytes.push(0x80 | 0x7e);
            bytes.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            bytes.push(0x80 | 0x7f);
            bytes.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    bytes
}

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = FIN | 8;
pub const PING: u8 = FIN | 9;
pub const PONG: u8 = FIN | 0xa;

/// Checks what these frames come to, whole and in pieces of every small size.
pub fn check(policy: WsPolicy, frames: &[Vec<u8>], expect: (&[Seen], Option<u16>)) {
    let bytes = frames.concat();
    for size in [bytes.len(), 1, 2, 3, 5, 7, 11] {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        let (seen, code) = decode(policy, &pieces);
        let shown: Vec<_> = frames.iter().map(|frame| &frame[..frame.len().min(20)]).collect();
        assert_eq!((seen.as_slice(), code), expect, "{shown:02x?} in pieces of {size}");
    }
}

pub fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}
