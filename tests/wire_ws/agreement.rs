//! Agreement with tungstenite's own decoder, frames in and frames out.

use super::frames::{ALL, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Seen, TEXT, check, decode, frame, text};
use dispatchd::wire::limits::MESSAGE_LEN_MAX;
use dispatchd::wire::ws::{self, WsPolicy};
use proptest::prelude::*;
use std::io::{self, Cursor, Read, Write};
use tungstenite::Message;
use tungstenite::error::Error;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role, WebSocket, WebSocketConfig};

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
