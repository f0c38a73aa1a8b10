//! WebSocket frames: a torture list, agreement with tungstenite's own decoder, and frames out.

use dispatchd::wire::limits::MESSAGE_LEN_MAX;
use dispatchd::wire::ws::{self, WsDecoder, WsInput, WsPolicy};
use proptest::prelude::*;
use std::io::{self, Cursor, Read, Write};
use std::ops::ControlFlow;
use tungstenite::Message;
use tungstenite::error::Error;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};

/// What a decoder hands on, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
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

const ALL: WsPolicy = WsPolicy {
    accept_binary: true,
    message_len_max: MESSAGE_LEN_MAX,
};
const TEXT_ONLY: WsPolicy = WsPolicy::DRIVERS;

/// Feeds the pieces; gives what was seen and the code of the violation, if any.
fn decode(policy: WsPolicy, pieces: &[&[u8]]) -> (Vec<Seen>, Option<u16>) {
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
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
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

const FIN: u8 = 0x80;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = FIN | 8;
const PING: u8 = FIN | 9;
const PONG: u8 = FIN | 0xa;

/// Checks what these frames come to, whole and in pieces of every small size.
fn check(policy: WsPolicy, frames: &[Vec<u8>], expect: (&[Seen], Option<u16>)) {
    let bytes = frames.concat();
    for size in [bytes.len(), 1, 2, 3, 5, 7, 11] {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        let (seen, code) = decode(policy, &pieces);
        let shown: Vec<_> = frames.iter().map(|frame| &frame[..frame.len().min(20)]).collect();
        assert_eq!((seen.as_slice(), code), expect, "{shown:02x?} in pieces of {size}");
    }
}

fn text(text: &str) -> Seen {
    Seen::Text(text.to_owned())
}

#[test]
fn messages_and_control_frames() {
    check(TEXT_ONLY, &[frame(FIN | TEXT, b"hello")], (&[text("hello")], None));
    check(TEXT_ONLY, &[frame(FIN | TEXT, b"")], (&[text("")], None));
    check(
        TEXT_ONLY,
        &[frame(FIN | TEXT, "h\u{e9}\u{1f600}".as_bytes())],
        (&[text("h\u{e9}\u{1f600}")], None),
    );
    check(
        ALL,
        &[frame(FIN | BINARY, &[0, 255])],
        (&[Seen::Binary(vec![0, 255])], None),
    );
    check(
        TEXT_ONLY,
        &[frame(PING, b""), frame(PONG, b"x")],
        (&[Seen::Ping(vec![]), Seen::Pong(b"x".to_vec())], None),
    );
    check(
        TEXT_ONLY,
        &[frame(PING, &[7; 125])],
        (&[Seen::Ping(vec![7; 125])], None),
    );
    for len in [125, 126, 127, 255, 256, 1000, MESSAGE_LEN_MAX] {
        let long = "x".repeat(len);
        check(TEXT_ONLY, &[frame(FIN | TEXT, long.as_bytes())], (&[text(&long)], None));
    }
    // Fragments, with control frames between them and characters cut in two.
    let parts = [
        frame(TEXT, b"h\xc3"),
        frame(PING, b"1"),
        frame(CONTINUATION, b"\xa9"),
        frame(CONTINUATION, b""),
        frame(PONG, b"2"),
        frame(FIN | CONTINUATION, b"!"),
        frame(FIN | TEXT, b"next"),
    ];
    let seen = [
        Seen::Ping(b"1".to_vec()),
        Seen::Pong(b"2".to_vec()),
        text("h\u{e9}!"),
        text("next"),
    ];
    check(TEXT_ONLY, &parts, (&seen, None));
    check(
        TEXT_ONLY,
        &[frame(TEXT, b""), frame(FIN | CONTINUATION, b"")],
        (&[text("")], None),
    );
    let halves = [
        frame(TEXT, &[b'x'; MESSAGE_LEN_MAX / 2]),
        frame(FIN | CONTINUATION, &[b'x'; MESSAGE_LEN_MAX / 2]),
    ];
    check(TEXT_ONLY, &halves, (&[text(&"x".repeat(MESSAGE_LEN_MAX))], None));
}

#[test]
fn closes() {
    let close = |code: u16, reason: &[u8]| frame(CLOSE, &[&code.to_be_bytes(), reason].concat());
    check(
        TEXT_ONLY,
        &[frame(CLOSE, b""), frame(FIN | TEXT, b"after")],
        (&[Seen::Close(None)], None),
    );
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999,
    ] {
        check(
            TEXT_ONLY,
            &[close(code, b"bye")],
            (&[Seen::Close(Some((code, "bye".to_owned())))], None),
        );
    }
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        check(TEXT_ONLY, &[close(code, b"")], (&[], Some(1002)));
    }
    check(TEXT_ONLY, &[frame(CLOSE, b"\x03")], (&[], Some(1002)));
    check(TEXT_ONLY, &[close(1000, b"\xff")], (&[], Some(1007)));
    check(TEXT_ONLY, &[close(1000, &[b'x'; 124])], (&[], Some(1002)));
    check(TEXT_ONLY, &[frame(8, b"")], (&[], Some(1002)));
}

#[test]
fn violations() {
    let unmasked = |first: u8, payload: &[u8]| [&[first, payload.len() as u8][..], payload].concat();
    let long = |len_bytes: &[u8], payload: &[u8]| [&[FIN | TEXT], len_bytes, &[0; 4], payload].concat();
    let fails = |frames: &[Vec<u8>], code: u16| check(TEXT_ONLY, frames, (&[], Some(code)));
    // RFC 6455 §5.1, §5.2.
    fails(&[unmasked(FIN | TEXT, b"hello")], 1002);
    fails(&[unmasked(PING, b"")], 1002);
    for reserved_bits in [0x40, 0x20, 0x10, 0x70] {
        fails(&[frame(FIN | TEXT | reserved_bits, b"x")], 1002);
        fails(&[frame(PING | reserved_bits, b"x")], 1002);
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        fails(&[frame(FIN | opcode, b"")], 1002);
        fails(&[frame(FIN | opcode, b"x")], 1002);
    }
    fails(&[long(&[0x80 | 0x7e, 0, 125], &[b'x'; 125])], 1002);
    fails(&[long(&[0x80 | 0x7f, 0, 0, 0, 0, 0, 0, 0, 1], b"x")], 1002);
    fails(
        &[long(&[0x80 | 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff], &vec![b'x'; 65535])],
        1002,
    );
    fails(&[long(&[0x80 | 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 0], b"")], 1002);
    // RFC 6455 §5.4, §5.5.
    fails(&[frame(FIN | CONTINUATION, b"x")], 1002);
    fails(&[frame(CONTINUATION, b"x")], 1002);
    fails(&[frame(TEXT, b"x"), frame(FIN | TEXT, b"y")], 1002);
    fails(&[frame(TEXT, b"x"), frame(TEXT, b"y")], 1002);
    fails(&[frame(9, b"x")], 1002);
    fails(&[frame(10, b"")], 1002);
    fails(&[frame(PING, &[0; 126])], 1002);
    check(
        TEXT_ONLY,
        &[frame(FIN | TEXT, b"ok"), frame(FIN | CONTINUATION, b"x")],
        (&[text("ok")], Some(1002)),
    );
    // RFC 6455 §8.1: as soon as it cannot become UTF-8 any more.
    for bad in [
        &b"\xff"[..],
        b"a\xc3\x28",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
        b"tail\xe2\x82",
        b"\xf0\x9f\x98",
    ] {
        fails(&[frame(FIN | TEXT, bad)], 1007);
    }
    fails(&[frame(TEXT, b"a\xff")], 1007);
    fails(&[frame(TEXT, b"a\xc3"), frame(CONTINUATION, b"x")], 1007);
    fails(&[frame(TEXT, b"a\xc3"), frame(FIN | CONTINUATION, b"")], 1007);
    fails(&[frame(TEXT, b"\xf4"), frame(CONTINUATION, b"\x90")], 1007);
    // Contract §1.
    fails(&[frame(FIN | BINARY, b"x")], 1003);
    fails(&[frame(BINARY, b"x")], 1003);
    fails(&[frame(FIN | TEXT, &vec![b'x'; MESSAGE_LEN_MAX + 1])], 1009);
    fails(
        &[frame(TEXT, &[b'x'; MESSAGE_LEN_MAX]), frame(FIN | CONTINUATION, b"x")],
        1009,
    );
    fails(&[frame(FIN | TEXT, &vec![b'x'; 70_000])], 1009);
    // The length is judged before any payload has come.
    fails(
        &[long(
            &[0x80 | 0x7f, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            b"",
        )],
        1009,
    );
}

#[test]
fn a_frame_that_cannot_become_text_fails_before_it_is_whole() {
    let whole = frame(FIN | TEXT, &[&b"ok\xff"[..], &[b'x'; 500]].concat());
    assert_eq!(decode(TEXT_ONLY, &[&whole[..30]]), (vec![], Some(1007)));
}

#[test]
fn memory_is_held_only_while_something_is_in_part() {
    let mut decoder = WsDecoder::new();
    let mut feed = |bytes: &[u8]| {
        let result = decoder.feed(TEXT_ONLY, &mut bytes.to_vec(), &mut |_| ControlFlow::Continue(()));
        assert_eq!(result, Ok(()));
        decoder.is_idle()
    };
    let hello = frame(FIN | TEXT, b"hello");
    assert!(feed(b""));
    assert!(feed(&hello));
    assert!(!feed(&hello[..1]));
    assert!(feed(&hello[1..]));
    assert!(!feed(&hello[..8]));
    assert!(!feed(&hello[8..9]));
    assert!(feed(&hello[9..]));
    assert!(!feed(&frame(TEXT, b"")));
    assert!(!feed(&frame(PING, b"x")));
    assert!(feed(&frame(FIN | CONTINUATION, b"")));
}

#[test]
fn a_break_stops_at_once() {
    let mut bytes = [frame(FIN | TEXT, b"1"), frame(FIN | TEXT, b"2")].concat();
    let mut count = 0;
    let result = WsDecoder::new().feed(TEXT_ONLY, &mut bytes, &mut |_| {
        count += 1;
        ControlFlow::Break(())
    });
    assert_eq!((result, count), (Ok(()), 1));
}

/// A connection whose other end has sent all it will.
struct Sent(Cursor<Vec<u8>>);

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Sent {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of the same bytes.
fn reference(bytes: &[u8], role: Role) -> (Vec<Seen>, Option<u16>) {
    reference_up_to(MESSAGE_LEN_MAX, bytes, role)
}

/// The same with another bound of a message.
fn reference_up_to(len_max: usize, bytes: &[u8], role: Role) -> (Vec<Seen>, Option<u16>) {
    let config = WebSocketConfig::default()
        .max_message_size(Some(len_max))
        // Else the length of a frame would be judged before what kind it is.
        .max_frame_size(None);
    let mut socket = WebSocket::from_raw_socket(Sent(Cursor::new(bytes.to_vec())), role, Some(config));
    let mut seen = Vec::new();
    loop {
        seen.push(match socket.read() {
            Ok(Message::Text(text)) => Seen::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Seen::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Seen::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Seen::Pong(bytes.to_vec()),
            // It reports a close code that must not be sent as a close with 1002.
            Ok(Message::Close(Some(CloseFrame {
                code: CloseCode::Protocol,
                reason,
            }))) if reason.as_str() == "Protocol violation" => {
                return (seen, Some(1002));
            }
            Ok(Message::Close(close)) => {
                seen.push(Seen::Close(
                    close.map(|frame| (frame.code.into(), frame.reason.to_string())),
                ));
                return (seen, None);
            }
            Ok(Message::Frame(_)) => unreachable!("reading gives no raw frames"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (seen, None),
            Err(Error::Protocol(_)) => return (seen, Some(1002)),
            Err(Error::Utf8(_)) => return (seen, Some(1007)),
            Err(Error::Capacity(_)) => return (seen, Some(1009)),
            Err(error) => panic!("{error}"),
        });
    }
}

/// Payloads: mostly text, sometimes not, sometimes around the bounds of the length encodings and of a message.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "\\PC{0,20}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..8),
        2 => (120_usize..130).prop_map(|len| vec![b'x'; len]),
        1 => (5000_usize..9000).prop_map(|len| vec![b'x'; len]),
        1 => (MESSAGE_LEN_MAX - 2..MESSAGE_LEN_MAX + 3).prop_map(|len| vec![b'x'; len]),
        // The first bytes of a character, and the last ones.
        1 => prop_oneof![Just(vec![0xe2]), Just(vec![0xe2, 0x82]), Just(vec![0xac]), Just(vec![0x82, 0xac])],
    ]
}

/// Whole frames, most of them right, each with one fault at most.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let short = || proptest::collection::vec(any::<u8>(), 0..126);
    let code = prop_oneof![Just(1000_u16), Just(1005), Just(3000), 990_u16..1014, 1015_u16..5005];
    prop_oneof![
        6 => payload().prop_map(|payload| frame(FIN | TEXT, &payload)),
        2 => payload().prop_map(|payload| frame(FIN | BINARY, &payload)),
        5 => payload().prop_map(|payload| frame(TEXT, &payload)),
        8 => payload().prop_map(|payload| frame(CONTINUATION, &payload)),
        8 => payload().prop_map(|payload| frame(FIN | CONTINUATION, &payload)),
        3 => short().prop_map(|payload| frame(PING, &payload)),
        2 => short().prop_map(|payload| frame(PONG, &payload)),
        1 => (code, "\\PC{0,10}").prop_map(|(code, reason)| frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat())),
        1 => proptest::collection::vec(any::<u8>(), 0..2).prop_map(|payload| frame(CLOSE, &payload)),
        1 => (0_u8..16).prop_map(|opcode| frame(FIN | opcode, b"")),
        1 => (1_u8..8).prop_map(|bits| frame(PING | bits << 4, b"x")),
        1 => Just(frame(9, b"in fragments")),
        1 => Just(frame(PING, &[b'x'; 126])),
        1 => Just(vec![FIN | TEXT, 1, b'x']),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The same messages and the same close code as tungstenite, whatever the frames and however they are cut.
    #[test]
    fn agrees_with_tungstenite(
        frames in proptest::collection::vec(any_frame(), 1..12),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..10),
    ) {
        let bytes = frames.concat();
        let expected = reference(&bytes, Role::Server);
        prop_assert_eq!(decode(ALL, &[&bytes]), expected.clone());
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let (mut pieces, mut from) = (Vec::new(), 0);
        for cut in cuts.into_iter().chain([bytes.len()]) {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        prop_assert_eq!(decode(ALL, &pieces), expected);
    }

    /// No bytes make the decoder panic.
    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), size in 1_usize..50) {
        let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
        prop_assert_eq!(decode(ALL, &pieces), decode(ALL, &[&bytes]));
    }

    /// A client reads what was written.
    #[test]
    fn a_client_reads_what_is_written(
        texts in proptest::collection::vec("\\PC{0,200}", 0..6),
        long in 0..MESSAGE_LEN_MAX,
        ping in proptest::collection::vec(any::<u8>(), 0..126),
        reason in "\\PC{0,80}",
    ) {
        let (mut out, mut expected) = (Vec::new(), Vec::new());
        for (index, text) in texts.iter().chain([&"y".repeat(long)]).enumerate() {
            let write = |payload: &mut Vec<u8>| payload.extend_from_slice(text.as_bytes());
            if index % 2 == 0 { ws::write_text(&mut out, write) } else { ws::write_text_long(&mut out, write) }
            expected.push(Seen::Text(text.clone()));
        }
        ws::write_binary(&mut out, &ping);
        ws::write_ping(&mut out, &ping);
        ws::write_pong(&mut out, &ping);
        expected.extend([Seen::Binary(ping.clone()), Seen::Ping(ping.clone()), Seen::Pong(ping)]);
        ws::write_close(&mut out, 4004, &reason);
        let (mut seen, violation) = reference(&out, Role::Client);
        prop_assert_eq!(violation, None);
        let Some(Seen::Close(Some((4004, heard)))) = seen.pop() else { panic!("{seen:?}") };
        prop_assert!(reason.starts_with(&heard) && heard.len() <= 123 && (heard.len() == reason.len() || heard.len() > 119));
        prop_assert_eq!(seen, expected);
    }
}

/// The bound of a message is the policy's, and what is written may be as long.
#[test]
fn messages_as_long_as_the_policy_allows() {
    const LEN: usize = 70_000;
    let policy = WsPolicy {
        accept_binary: true,
        message_len_max: LEN,
    };
    let long = "x".repeat(LEN);
    let halves = [frame(TEXT, &long.as_bytes()[1..]), frame(FIN | CONTINUATION, b"x")];
    check(policy, &halves, (&[text(&long)], None));
    let bytes = Seen::Binary(long.clone().into_bytes());
    check(
        policy,
        &[frame(FIN | BINARY, long.as_bytes())],
        (std::slice::from_ref(&bytes), None),
    );
    check(
        policy,
        &[frame(TEXT, long.as_bytes()), frame(CONTINUATION, b"x")],
        (&[], Some(1009)),
    );
    check(policy, &[frame(FIN | TEXT, &vec![b'x'; LEN + 1])], (&[], Some(1009)));
    let mut out = Vec::new();
    for len in [0, 125, 126, 65_535, 65_536, LEN] {
        out.clear();
        ws::write_text_whole(&mut out, &long[..len]);
        assert_eq!(
            reference_up_to(LEN, &out, Role::Client),
            (vec![text(&long[..len])], None)
        );
    }
    out.clear();
    ws::write_binary(&mut out, long.as_bytes());
    assert_eq!(reference_up_to(LEN, &out, Role::Client), (vec![bytes], None));
}

#[test]
fn headers_are_as_short_as_they_can_be() {
    let write: [fn(&mut Vec<u8>, &str); 2] = [
        |out, text| ws::write_text(out, |payload| payload.extend_from_slice(text.as_bytes())),
        |out, text| ws::write_text_long(out, |payload| payload.extend_from_slice(text.as_bytes())),
    ];
    for write in write {
        let mut out = b"before".to_vec();
        write(&mut out, "hi");
        assert_eq!(out, b"before\x81\x02hi");
        out.clear();
        write(&mut out, &"x".repeat(125));
        assert_eq!((&out[..2], out.len()), (&b"\x81\x7d"[..], 127));
        out.clear();
        write(&mut out, &"x".repeat(126));
        assert_eq!((&out[..4], out.len()), (&b"\x81\x7e\x00\x7e"[..], 130));
        assert!(out[4..].iter().all(|byte| *byte == b'x'));
    }
    let mut out = Vec::new();
    ws::write_close(&mut out, ws::close_code::NO_STATUS, "");
    assert_eq!(out, b"\x88\x00");
}
