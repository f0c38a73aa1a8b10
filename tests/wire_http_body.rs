//! Chunked bodies: a torture list, whole and in pieces.

use dispatchd::wire::http::{BodyDecoder, BodyKind};
use dispatchd::wire::limits::BODY_LEN_MAX;

/// Decodes a chunked body that comes in pieces of `step` bytes.
fn chunked(bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), u16> {
    let (mut decoder, mut body) = (BodyDecoder::new(BodyKind::Chunked), Vec::new());
    let (mut consumed, mut done) = (0, false);
    for piece in bytes.chunks(step) {
        let progress = decoder.feed(piece, &mut body).map_err(|error| error.status)?;
        consumed += progress.consumed;
        done = progress.done;
        if done {
            break;
        }
        assert_eq!(progress.consumed, piece.len());
    }
    Ok((body, consumed, done))
}

/// `expect`: the content and how many bytes are left over, or a status.
fn check_chunked(bytes: impl AsRef<[u8]>, expect: Result<(&[u8], usize), u16>) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    for step in [bytes.len().max(1), 1, 2, 3, 7] {
        match (chunked(bytes, step), expect) {
            (Ok((body, consumed, done)), Ok((content, left))) => {
                assert!(done, "{shown:?}");
                assert_eq!((body.as_slice(), bytes.len() - consumed), (content, left), "{shown:?}");
            }
            (Err(status), Err(expected)) => assert_eq!(status, expected, "{shown:?}"),
            (result, _) => panic!("{shown:?}: {result:?} instead of {expect:?}"),
        }
    }
}

#[test]
fn chunked_bodies() {
    check_chunked("0\r\n\r\n", Ok((b"", 0)));
    check_chunked("5\r\nhello\r\n0\r\n\r\nGET", Ok((b"hello", 3)));
    check_chunked(
        "A\r\n0123456789\r\n00a\r\n0123456789\r\n000\r\n\r\n",
        Ok((b"01234567890123456789", 0)),
    );
    check_chunked("3;name\r\nabc\r\n0;x=\"a;b\"\r\n\r\n", Ok((b"abc", 0)));
    check_chunked("3 ; a = b\r\nabc\r\n0\r\n\r\n", Ok((b"abc", 0)));
    check_chunked("2\r\n\r\n\r\n0\r\n\r\n", Ok((b"\r\n", 0)));
    check_chunked("1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\nrest", Ok((b"a", 4)));
    for bad in [
        "\r\n",
        "g\r\n",
        "0x5\r\nhello\r\n",
        "-5\r\n",
        "+5\r\n",
        " 5\r\nhello\r\n",
        "5 \r\nhello\r\n",
        "5;\r\nhello\r\n",
        "5\nhello\r\n",
        "5\r\rhello",
        "5;a\nhello",
        "5;a\rb",
        "5;a\x01\r\n",
        "5;=b\r\n",
        "5\r\nhello0\r\n",
        "5\r\nhello\n0",
        "5\r\nhello\rx",
        "5\r\nhello!\r\n",
        "00000000000000005\r\n",
        "0\r\n\n",
        "0\r\n\rx",
        "0\r\nX y: z\r\n",
        "0\r\n folded\r\n",
        "0\r\nX: a\n",
        "0\r\nX: a\r\n b\r\n",
        "0\r\nX\r\n",
        "0\r\n: a\r\n",
        "0\r\nX: a\0\r\n",
    ] {
        check_chunked(bad, Err(400));
    }
    check_chunked("10001\r\n", Err(413));
    check_chunked("ffffffffffffffff\r\n", Err(413));
    let full = format!("{BODY_LEN_MAX:x}\r\n{}\r\n", "a".repeat(BODY_LEN_MAX));
    check_chunked(format!("{full}0\r\n\r\n"), Ok((&vec![b'a'; BODY_LEN_MAX], 0)));
    check_chunked(format!("{full}1\r\na\r\n0\r\n\r\n"), Err(413));
    check_chunked(format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(5000)), Err(400));
    check_chunked(format!("{}0\r\n\r\n", "1;xxxxxxxxxx\r\na\r\n".repeat(1000)), Err(400));
    check_chunked(format!("0\r\nX: {}\r\n\r\n", "x".repeat(5000)), Err(431));
    check_chunked(format!("0\r\n{}\r\n", "X: y\r\n".repeat(2000)), Err(431));
}
