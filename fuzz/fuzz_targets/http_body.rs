//! A chunked body: however it is cut it is the same, and a reader that sees it whole, with `httparse` for the sizes, finds
//! the same content and the same end.
#![no_main]

use arbitrary::Arbitrary;
use dispatchd::given::pieces;
use dispatchd::wire::http::{BodyDecoder, BodyKind, whole_body};
use dispatchd::wire::limits::BODY_LEN_MAX;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    /// 0: chunked; else so many bytes.
    length: u16,
    cuts: [u16; 3],
    stream: &'a [u8],
}

/// What came out, and how many bytes of the stream it took when it was whole; `Err` is the status.
type Decoded = Result<(Vec<u8>, Option<usize>), u16>;

fn ours(kind: BodyKind, pieces: &[&[u8]]) -> Decoded {
    let mut decoder = BodyDecoder::new(kind);
    let (mut body, mut consumed) = (Vec::new(), 0);
    for piece in pieces {
        let progress = decoder.feed(piece, &mut body).map_err(|error| error.status)?;
        consumed += progress.consumed;
        if progress.done {
            return Ok((body, Some(consumed)));
        }
        assert_eq!(progress.consumed, piece.len(), "a body that is not whole takes all");
    }
    Ok((body, None))
}

/// Content and end of a whole chunked body (RFC 9112 §7.1), for a reader that takes extensions and trailers of any kind;
/// and where its trailers begin.
fn reference(stream: &[u8]) -> Option<(Vec<u8>, usize, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        // `httparse` takes a line without a size for a size of 0.
        stream.get(at).filter(|digit| digit.is_ascii_hexdigit())?;
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(&stream[at..]) else {
            return None;
        };
        at += line;
        if size == 0 {
            break;
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        body.extend_from_slice(stream.get(at..end)?);
        if stream.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    let trailers = at;
    loop {
        let line = memchr::memmem::find(&stream[at..], b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some((body, at, trailers));
        }
    }
}

/// Nothing in it that one reader of sizes takes and another does not: control characters, white space, extensions.
fn is_plain(stream: &[u8]) -> bool {
    stream
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b';' || b"\r\n".contains(byte))
}

fuzz_target!(|input: Input<'_>| {
    let kind = match input.length {
        0 => BodyKind::Chunked,
        length => BodyKind::Length(length.into()),
    };
    let whole = ours(kind, &[input.stream]);
    assert_eq!(
        whole,
        ours(kind, &pieces(input.stream, &input.cuts)),
        "cuts change the body"
    );
    if let Ok((body, _)) = &whole {
        assert!(body.len() <= BODY_LEN_MAX);
    }
    if kind != BodyKind::Chunked {
        let length = usize::from(input.length);
        let expected = input.stream.get(..length).map(|body| (body.to_vec(), length));
        let got = whole_body(kind, input.stream).map(|(body, taken)| (body.to_vec(), taken));
        assert_eq!(got, expected);
        assert_eq!(whole.ok().and_then(|(body, end)| Some((body, end?))), expected);
        return;
    }
    match (whole, reference(input.stream)) {
        (Ok((body, Some(end))), second) => {
            assert_eq!(second.map(|(body, end, _)| (body, end)), Some((body, end)));
        }
        (Ok((_, None)), second) => assert_eq!(second, None, "it was whole"),
        // We bound what means nothing, and refuse what is not in the grammar.
        (Err(_), Some((body, end, trailers))) => {
            let small = end - trailers == 2 && body.len() <= BODY_LEN_MAX;
            assert!(!small || !is_plain(&input.stream[..end]), "an honest body is refused");
        }
        (Err(_), None) => {}
    }
});
