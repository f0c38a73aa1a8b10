//! The torture list: what is right, what ends a connection and with which code, whole and in pieces of every size.

use super::frames::{
    ALL, BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, Seen, TEXT, TEXT_ONLY, check, decode, frame, text,
};
use dispatchd::wire::limits::MESSAGE_LEN_MAX;
use dispatchd::wire::ws::WsDecoder;
use std::ops::ControlFlow;

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
