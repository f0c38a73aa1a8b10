//! A driver's bytes after the handshake: however they are cut they mean the same, and tungstenite's own decoder hears
//! the same messages and refuses what we refuse, but for what it does not check.
#![no_main]

use arbitrary::Arbitrary;
use dispatchd::given::pieces;
use dispatchd::wire::limits::MESSAGE_LEN_MAX;
use dispatchd::wire::ws::{WsDecoder, WsInput, WsPolicy, WsViolation, close_code};
use libfuzzer_sys::fuzz_target;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{Message, Role, WebSocketConfig};
use tungstenite::{Error, WebSocket};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    accept_binary: bool,
    cuts: [u16; 3],
    stream: &'a [u8],
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

fn ours(policy: WsPolicy, pieces: &[&[u8]]) -> (Vec<Heard>, Result<bool, WsViolation>) {
    let mut decoder = WsDecoder::new();
    let mut heard = Vec::new();
    for piece in pieces {
        let mut closed = false;
        let mut on = |input: WsInput<'_>| {
            heard.push(match input {
                WsInput::Text(text) => Heard::Text(text.to_owned()),
                WsInput::Binary(bytes) => Heard::Binary(bytes.to_vec()),
                WsInput::Ping(bytes) => Heard::Ping(bytes.to_vec()),
                WsInput::Pong(bytes) => Heard::Pong(bytes.to_vec()),
                WsInput::Close(close) => {
                    closed = true;
                    Heard::Close(close.map(|(code, reason)| (code, reason.to_owned())))
                }
            });
            ControlFlow::Continue(())
        };
        match decoder.feed(policy, &mut piece.to_vec(), &mut on) {
            Err(violation) => return (heard, Err(violation)),
            // What follows a close frame does not count.
            Ok(()) if closed => return (heard, Ok(true)),
            Ok(()) => {}
        }
    }
    (heard, Ok(decoder.is_idle()))
}

/// Reads from memory, and takes whatever is written.
struct Peer<'a>(&'a [u8]);

impl Read for Peer<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A code that was registered after tungstenite's list was made (1014, bad gateway) is a violation to it.
fn as_registered(mut ours: Vec<Heard>, theirs: &[Heard]) -> Vec<Heard> {
    if let (Some(Heard::Close(Some((1014, _)))), Some(other @ Heard::Close(Some((1002, _))))) =
        (ours.last(), theirs.last())
    {
        let last = ours.len() - 1;
        ours[last] = other.clone();
    }
    ours
}

/// What tungstenite hears; `None`: until the bytes ended.
fn theirs(stream: &[u8]) -> (Vec<Heard>, Option<Error>) {
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(0)
        .max_message_size(Some(MESSAGE_LEN_MAX))
        .max_frame_size(Some(MESSAGE_LEN_MAX));
    let mut socket = WebSocket::from_raw_socket(Peer(stream), Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        heard.push(match socket.read() {
            Ok(Message::Text(text)) => Heard::Text(text.as_str().to_owned()),
            Ok(Message::Binary(bytes)) => Heard::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Heard::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Heard::Pong(bytes.to_vec()),
            Ok(Message::Close(close)) => {
                let close = close.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()));
                heard.push(Heard::Close(close));
                return (heard, None);
            }
            Ok(Message::Frame(_)) => unreachable!("a read gives no bare frame"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => return (heard, None),
            Err(error) => return (heard, Some(error)),
        });
    }
}

/// Rules that tungstenite leaves to others.
fn is_stricter(violation: &WsViolation) -> bool {
    violation.code == close_code::UNSUPPORTED
        || ["payload length badly encoded", "close code that must not be sent"].contains(&violation.reason)
}

fuzz_target!(|input: Input<'_>| {
    let policy = WsPolicy {
        accept_binary: input.accept_binary,
        ..WsPolicy::DRIVERS
    };
    let whole = ours(policy, &[input.stream]);
    let cut = ours(policy, &pieces(input.stream, &input.cuts));
    assert_eq!(whole, cut, "cuts change what was heard");

    let (heard, end) = whole;
    match end {
        Ok(_) => {
            let (second, error) = theirs(input.stream);
            assert_eq!(
                as_registered(heard, &second),
                second,
                "tungstenite hears something else; it ends with {error:?}"
            );
            assert!(error.is_none(), "tungstenite refuses: {error:?}");
        }
        Err(violation) if is_stricter(&violation) => {
            let (second, _) = theirs(input.stream);
            assert!(
                second.starts_with(&heard),
                "tungstenite hears something else: {second:?}"
            );
        }
        Err(violation) => {
            // It waits for the whole frame, so it gets one.
            let padded = [input.stream, &[0; 4 * MESSAGE_LEN_MAX][..]].concat();
            let (second, error) = theirs(&padded);
            assert_eq!(heard, second, "{violation:?}, and {error:?}");
            let error = error.unwrap_or_else(|| panic!("tungstenite takes {violation:?}"));
            let same = match error {
                Error::Protocol(_) => violation.code == close_code::PROTOCOL,
                Error::Utf8(_) => violation.code == close_code::INVALID_PAYLOAD,
                // It looks at the length before anything else.
                Error::Capacity(_) => [close_code::TOO_BIG, close_code::PROTOCOL].contains(&violation.code),
                _ => false,
            };
            assert!(same, "{violation:?}, and {error:?}");
        }
    }
});
