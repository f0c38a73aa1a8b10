//! HTTP heads and bodies: a torture list, and independence of how the bytes are cut.

use dispatchd::wire::http::{BodyDecoder, BodyKind, Head, HttpError, Method, Version, parse_head, whole_body};
use dispatchd::wire::limits::HEAD_LEN_MAX;
use proptest::prelude::*;

/// What a head comes to: its body's kind, or a status.
type Expect = Result<BodyKind, u16>;
const NONE: Expect = Ok(BodyKind::None);
const CHUNKED: Expect = Ok(BodyKind::Chunked);

fn head(bytes: &[u8]) -> Result<Option<(Head, usize)>, HttpError> {
    parse_head(bytes)
}

/// Checks one whole head, and that every cut of it comes to the same.
fn check(bytes: impl AsRef<[u8]>, expect: Expect) {
    let bytes = bytes.as_ref();
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    let whole = head(bytes);
    match (&whole, expect) {
        (Ok(Some((head, consumed))), Ok(kind)) => {
            assert_eq!(head.body, kind, "{shown:?}");
            assert_eq!(*consumed, bytes.len(), "{shown:?}");
        }
        (Err(error), Err(status)) => {
            assert_eq!(error.status, status, "{shown:?}: {error}");
            assert!(error.close, "{shown:?}");
        }
        _ => panic!("{shown:?}: {whole:?} instead of {expect:?}"),
    }
    for cut in (0..bytes.len()).step_by(1 + bytes.len() / 500) {
        match head(&bytes[..cut]) {
            Ok(None) => {}
            Ok(Some(_)) => panic!("{shown:?}: whole after {cut} bytes"),
            Err(early) => assert_eq!(Err(early), whole, "{shown:?}: another error after {cut} bytes"),
        }
    }
}

/// A `POST` with these further lines, each with its line end.
fn post(lines: &str) -> String {
    format!("POST /v1/dispatch/offer HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn request_lines() {
    check(get("/"), NONE);
    check(get("/a?b=c&d"), NONE);
    check(get("/a?b?/:@!$&'()*+,;="), NONE);
    check(get("/%41%2f"), NONE);
    check("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", NONE);
    check("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", NONE);
    check("\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
    check("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
    check("\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
    check("GET / HTTP/1.0\r\n\r\n", NONE);
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Err(505));
    check("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Err(505));
    check("GET / HTTP/3.0\r\nHost: a\r\n\r\n", Err(505));
    check("GET / HTTP/0.9\r\nHost: a\r\n\r\n", Err(505));
    // RFC 9110 §2.5: taken for HTTP/1.1.
    check("GET / HTTP/1.2\r\nHost: a\r\n\r\n", NONE);
    check(
        "GET / HTTP/1.9\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED,
    );
    check("GET / HTTP/1.2\r\nHost : a\r\n\r\n", Err(400));
    check("GET  / HTTP/1.2\r\nHost: a\r\n\r\n", Err(400));
    check("GET /\r\n\r\n", Err(400));
    check("GET\r\n\r\n", Err(400));
    check("GET / HTTP/1.1x\r\nHost: a\r\n\r\n", Err(400));
    check("GET / HTTP/1.10\r\nHost: a\r\n\r\n", Err(400));
    check("GET / http/1.1\r\nHost: a\r\n\r\n", Err(400));
    check("GET / HTTP/11\r\nHost: a\r\n\r\n", Err(400));
    check("GET / \r\nHost: a\r\n\r\n", Err(400));
    check("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
    check("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
    check("GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
    check(" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
    check("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", Err(400));
    check("\x16\x03\x01\x02\x00\x01\x00\x01\u{fc}\x03\x03", Err(400));
    check("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n", NONE);
    check("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Err(501));
}

#[test]
fn targets() {
    let path_and_query = |bytes: &str| {
        let (head, _) = head(bytes.as_bytes()).unwrap().unwrap();
        (
            head.target.path.to_string(),
            head.target.query.map(|query| query.to_string()),
        )
    };
    let with = |query: &str| Some(query.to_owned());
    assert_eq!(path_and_query(&get("/a/b?c=d?e")), ("/a/b".to_owned(), with("c=d?e")));
    assert_eq!(path_and_query(&get("/a?")), ("/a".to_owned(), with("")));
    assert_eq!(
        path_and_query(&get("http://other:80/a?b")),
        ("/a".to_owned(), with("b"))
    );
    assert_eq!(path_and_query(&get("HTTPS://[::1]:8080")), ("/".to_owned(), None));
    assert_eq!(path_and_query(&get("http://a?b")), ("/".to_owned(), with("b")));
    assert_eq!(
        path_and_query("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("*".to_owned(), None)
    );
    for bad in [
        "*",
        "/a#b",
        "http://a/#b",
        "/%",
        "/%4",
        "/%zz",
        "/a?b=%1",
        "/\u{e9}",
        "/a\"b",
        "/a<b",
        "/a\\b",
        "/{a}",
        "/a|b",
        "/a\x01b",
        "/a\x7fb",
        "a",
        "a/b",
        "ftp://a/",
        "http:///a",
        "http://:80/a",
        "http://user@a/",
        "http://a:b/",
        "http://a b/",
        "//\0",
        "?a",
        "",
    ] {
        check(get(bad), Err(400));
    }
}

#[test]
fn field_syntax() {
    check(post("X-Empty:\r\n"), NONE);
    check(post("X: \t a b \t \r\n"), NONE);
    check(post("X: caf\u{e9}\r\n"), NONE);
    // Bare line ends, line folding, white space where names end.
    check("GET / HTTP/1.1\nHost: a\r\n\r\n", Err(400));
    check("GET / HTTP/1.1\r\nHost: a\n\r\n", Err(400));
    check("GET / HTTP/1.1\r\nHost: a\r\n\n", Err(400));
    check("GET / HTTP/1.1\r\nHost: a\n\n", Err(400));
    check("GET / HTTP/1.1\rHost: a\r\n\r\n", Err(400));
    check("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", Err(400));
    check(post("X: a\rb\r\n"), Err(400));
    check(post("X: a\r\n b\r\n"), Err(400));
    check(post("X: a\r\n\tb\r\n"), Err(400));
    check("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Err(400));
    check("GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", Err(400));
    check("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Err(400));
    check(post("Content-Length : 5\r\n"), Err(400));
    check(post("Content-Length\t: 5\r\n"), Err(400));
    check(post(" X: a\r\n"), Err(400));
    check(post("X\r\n"), Err(400));
    check(post(": a\r\n"), Err(400));
    check(post("X Y: a\r\n"), Err(400));
    check(post("X(: a\r\n"), Err(400));
    check(post("X\u{e9}: a\r\n"), Err(400));
    check(post("X: a\0b\r\n"), Err(400));
    check(post("X: a\x01b\r\n"), Err(400));
    check(post("X: a\x0bb\r\n"), Err(400));
    check(
        post("X: a\x1bb, and enough more text for a vectored search\r\n"),
        Err(400),
    );
    check(post("X: a\x7fb\r\n"), Err(400));
    check(post("X\0: a\r\n"), Err(400));
}

#[test]
fn hosts() {
    let host = |value: &str| format!("GET / HTTP/1.1\r\nHost:{value}\r\n\r\n");
    for good in [
        "",
        " a",
        " a:8080",
        " 127.0.0.1:1",
        " [::1]",
        " [::1]:80",
        " a.b-c_d",
        " a:",
        " x%41",
    ] {
        check(host(good), NONE);
    }
    for bad in [
        " a b", " a/b", " a@b", " a:b", " a:1:2", " [::1", " ::1", " [::1]x", " a?b", " \"a\"", " \u{e9}",
    ] {
        check(host(bad), Err(400));
    }
    check("GET / HTTP/1.1\r\n\r\n", Err(400));
    check("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Err(400));
    check("GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", Err(400));
    check("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", Err(400));
    check("GET / HTTP/1.0\r\nHost: a b\r\n\r\n", Err(400));
    check("GET http://a/ HTTP/1.1\r\n\r\n", Err(400));
}

#[test]
fn framing() {
    check(post("Content-Length: 0\r\n"), NONE);
    check(post("Content-Length: 5\r\n"), Ok(BodyKind::Length(5)));
    check(post("content-length:005\r\n"), Ok(BodyKind::Length(5)));
    check(post("Content-Length: 65536\r\n"), Ok(BodyKind::Length(65536)));
    check(post("Content-Length: 65537\r\n"), Err(413));
    check(post("Content-Length: 18446744073709551615\r\n"), Err(413));
    for bad in [
        "",
        " ",
        "-1",
        "+5",
        "5 5",
        "5,5",
        "5, 5",
        "0x5",
        "5.0",
        "1e1",
        "18446744073709551616",
        "5\t5",
        "\u{665}",
    ] {
        check(post(&format!("Content-Length: {bad}\r\n")), Err(400));
    }
    check(post("Content-Length: 5\r\nContent-Length: 5\r\n"), Err(400));
    check(post("Content-Length: 5\r\nContent-Length: 6\r\n"), Err(400));
    check(post("Content-Length: 5\r\ncontent-length: 0\r\n"), Err(400));

    check(post("Transfer-Encoding: chunked\r\n"), CHUNKED);
    check(post("transfer-encoding:\tChUnKeD \r\n"), CHUNKED);
    check(post("Transfer-Encoding: gzip, chunked\r\n"), Err(501));
    check(post("Transfer-Encoding: identity, chunked\r\n"), Err(501));
    for bad in [
        "",
        "gzip",
        "identity",
        "chunked, gzip",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        ", gzip, chunked",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
    ] {
        check(post(&format!("Transfer-Encoding: {bad}\r\n")), Err(400));
    }
    check(post("Transfer-Encoding: \x0bchunked\r\n"), Err(400));
    check(post("Transfer-Encoding:\r\n chunked\r\n"), Err(400));
    check(
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        Err(400),
    );
    check(
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        Err(400),
    );
    check(post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"), Err(400));
    check(post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"), Err(400));
    check(post("Transfer-Encoding: gzip\r\nContent-Length: 5\r\n"), Err(400));
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Err(400));
    check(post("Content-Encoding: identity\r\n"), NONE);
    check(post("Content-Encoding: gzip\r\nContent-Length: 5\r\n"), Err(415));
    check(post("Expect: 200-ok\r\n"), Err(417));
    check(post("Expect: 100-continue\r\nExpect: 100-continue\r\n"), Err(400));
}

#[test]
fn bounds() {
    let padded = |len: usize| {
        let empty = post("X: \r\n").len();
        post(&format!("X: {}\r\n", "a".repeat(len - empty)))
    };
    check(padded(HEAD_LEN_MAX), NONE);
    check(padded(HEAD_LEN_MAX + 1), Err(431));
    check(padded(4 * HEAD_LEN_MAX), Err(431));
    check(get(&format!("/{}", "a".repeat(HEAD_LEN_MAX))), Err(414));
    check("a".repeat(HEAD_LEN_MAX), Err(400).or(Err(414)));
    check(post(&"X: a\r\n".repeat(63)), NONE);
    check(post(&"X: a\r\n".repeat(64)), Err(431));
}

#[test]
fn persistence_and_expectations() {
    let parse = |version: &str, lines: &str| {
        let bytes = format!("POST / HTTP/{version}\r\nHost: a\r\n{lines}\r\n");
        head(bytes.as_bytes()).unwrap().unwrap().0
    };
    assert!(parse("1.1", "").keep_alive);
    assert!(!parse("1.1", "Connection: close\r\n").keep_alive);
    assert!(!parse("1.1", "Connection: x, CLOSE\r\n").keep_alive);
    assert!(!parse("1.1", "Connection: keep-alive\r\nConnection: close\r\n").keep_alive);
    assert!(parse("1.1", "Connection: closed\r\n").keep_alive);
    assert!(!parse("1.0", "").keep_alive);
    assert!(parse("1.0", "Connection: Keep-Alive\r\n").keep_alive);
    assert!(!parse("1.0", "Connection: keep-alive, close\r\n").keep_alive);
    assert_eq!(parse("1.0", "").version, Version::Http10);

    assert!(parse("1.1", "Content-Length: 1\r\nExpect: 100-Continue\r\n").expect_continue);
    assert!(parse("1.1", "Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n").expect_continue);
    assert!(
        !parse("1.1", "Expect: 100-continue\r\n").expect_continue,
        "there is no body to wait for"
    );
    assert!(!parse("1.0", "Content-Length: 1\r\nExpect: 100-continue\r\n").expect_continue);
    assert!(!parse("1.0", "Content-Length: 1\r\nExpect: teapot\r\n").expect_continue);

    // A handshake has no body; what else may ask for an upgrade may have one.
    let shake = |method: &str, more: &str| {
        format!("{method} /ws/driver/d HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{more}\r\n")
    };
    check(shake("GET", ""), NONE);
    check(shake("GET", "Content-Length: 0\r\n"), NONE);
    check(shake("GET", "Content-Length: 1\r\n"), Err(400));
    check(shake("GET", "Transfer-Encoding: chunked\r\n"), Err(400));
    check(shake("POST", "Content-Length: 1\r\n"), Ok(BodyKind::Length(1)));

    let both = parse(
        "1.1",
        "Upgrade: h2c, WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Key: k\r\n",
    );
    let upgrade = both.upgrade.unwrap();
    assert!(upgrade.websocket && upgrade.connection_upgrade && upgrade.key.as_deref() == Some("k"));
    assert!(
        parse("1.1", "Connection: Upgrade\r\nSec-WebSocket-Key: k\r\n")
            .upgrade
            .is_none()
    );
    assert!(
        parse("1.0", "Upgrade: websocket\r\nConnection: Upgrade\r\n")
            .upgrade
            .is_none()
    );
    assert_eq!(
        parse("1.1", "Content-Type: text/plain\r\n").content_type.as_deref(),
        Some("text/plain")
    );
    assert_eq!(parse("1.1", "").method, Method::Post);
}

/// What a connection's bytes say, cut into requests: heads and bodies in order, or how they end.
fn requests(pieces: &[&[u8]]) -> (Vec<(Head, Vec<u8>)>, Option<HttpError>) {
    let (mut found, mut buffer, mut reading) = (Vec::new(), Vec::new(), None);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let Some((head, mut decoder, mut body)) = reading.take() else {
                match parse_head(&buffer) {
                    Err(error) => return (found, Some(error)),
                    Ok(None) => break,
                    Ok(Some((head, consumed))) => {
                        buffer.drain(..consumed);
                        let decoder = BodyDecoder::new(head.body);
                        reading = Some((head, decoder, Vec::new()));
                        continue;
                    }
                }
            };
            if let (true, Some((whole, consumed))) = (body.is_empty(), whole_body(head.body, &buffer)) {
                found.push((head, whole.to_vec()));
                buffer.drain(..consumed);
                continue;
            }
            match decoder.feed(&buffer, &mut body) {
                Err(error) => return (found, Some(error)),
                Ok(progress) => {
                    buffer.drain(..progress.consumed);
                    if !progress.done {
                        reading = Some((head, decoder, body));
                        break;
                    }
                    found.push((head, body));
                }
            }
        }
    }
    (found, None)
}

const PIPELINE: &[u8] = b"\r\nPOST /v1/dispatch/offer HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{\"a\":\"b\r\n\r\n\"}\
GET /v1/events?after=1 HTTP/1.1\r\nHost: a:80\r\n\r\n\
POST /v1/dispatch/cancel HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\nabcd\r\n1\r\n\r\r\n0\r\nT: u\r\n\r\n\
\r\nHEAD http://a/healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n\
GET /ws/driver/d1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n";

#[test]
fn every_cut_of_a_pipeline_reads_the_same() {
    let whole = requests(&[PIPELINE]);
    assert_eq!(whole.0.len(), 5);
    assert_eq!(whole.1, None);
    assert_eq!(whole.0[2].1, b"abcd\r");
    for first in 0..PIPELINE.len() {
        let (a, rest) = PIPELINE.split_at(first);
        assert_eq!(requests(&[a, rest]), whole, "cut at {first}");
    }
    for size in 1..40 {
        let pieces: Vec<&[u8]> = PIPELINE.chunks(size).collect();
        assert_eq!(requests(&pieces), whole, "pieces of {size}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// No bytes make the decoder panic, and none are read twice.
    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(Some((_, consumed))) = parse_head(&bytes) {
            prop_assert!(consumed <= bytes.len());
        }
        let mut body = Vec::new();
        if let Ok(progress) = BodyDecoder::new(BodyKind::Chunked).feed(&bytes, &mut body) {
            prop_assert!(progress.consumed <= bytes.len() && body.len() <= bytes.len());
        }
    }

    /// A pipeline with a byte changed ends the same, however it is cut.
    #[test]
    fn a_changed_byte_reads_the_same_in_every_cut(
        at in 0..PIPELINE.len(),
        byte in any::<u8>(),
        cuts in proptest::collection::btree_set(0..PIPELINE.len(), 0..6),
    ) {
        let mut bytes = PIPELINE.to_vec();
        bytes[at] = byte;
        let (mut pieces, mut from) = (Vec::new(), 0);
        for cut in cuts.into_iter().chain([bytes.len()]) {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        let (whole, cut) = (requests(&[&bytes]), requests(&pieces));
        prop_assert_eq!(&whole.0, &cut.0);
        // Which of two errors in one head is found first may depend on the cut; that there is one may not.
        prop_assert_eq!(whole.1.is_some(), cut.1.is_some());
    }
}
