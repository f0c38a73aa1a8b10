//! Requests out of a connection's bytes. However they are cut they are the same requests; a strict reading of RFC 9112
//! finds in each head the same framing, so nobody between us and the caller sees a request where we see none; and a head
//! that this reading finds nothing wrong with is taken.
#![no_main]

use arbitrary::Arbitrary;
use dispatchd::given::pieces;
use dispatchd::wire::http::{BodyDecoder, BodyKind, Head, Method, Version, parse_head};
use dispatchd::wire::limits::{BODY_LEN_MAX, HEAD_LEN_MAX, HEADERS_MAX};
use dispatchd::wire::route::route;
use dispatchd::wire::ws;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    cuts: [u16; 3],
    stream: &'a [u8],
}

/// Requests in their order, and the status that ended the connection, if one did.
type Requests = (Vec<(Head, Vec<u8>)>, Option<u16>);

/// A connection that gets these pieces, as a shard reads it: what is not yet a whole head is kept and looked at again.
fn requests(pieces: &[&[u8]]) -> Requests {
    let mut found = Vec::new();
    let mut kept: Vec<u8> = Vec::new();
    let mut body: Option<(Head, BodyDecoder, Vec<u8>)> = None;
    for piece in pieces {
        kept.extend_from_slice(piece);
        loop {
            if let Some((head, mut decoder, mut content)) = body.take() {
                let progress = match decoder.feed(&kept, &mut content) {
                    Ok(progress) => progress,
                    Err(error) => return (found, Some(error.status)),
                };
                kept.drain(..progress.consumed);
                if !progress.done {
                    body = Some((head, decoder, content));
                    break;
                }
                found.push((head, content));
            }
            match parse_head(&kept) {
                Err(error) => return (found, Some(error.status)),
                Ok(None) => break,
                Ok(Some((head, len))) => {
                    kept.drain(..len);
                    body = Some((head.clone(), BodyDecoder::new(head.body), Vec::new()));
                }
            }
        }
    }
    (found, None)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A head as RFC 9112 §2.1 writes it, without any of the liberties of §2.2.
struct Strict<'a> {
    method: &'a [u8],
    target: &'a [u8],
    minor: u8,
    fields: Vec<(String, &'a [u8])>,
}

impl<'a> Strict<'a> {
    /// `head` ends with its empty line and begins with its request line.
    fn read(head: &'a [u8]) -> Option<Self> {
        let text = head.strip_suffix(b"\r\n\r\n")?;
        if text.windows(2).any(|pair| (pair[0] == b'\r') != (pair[1] == b'\n')) || text.ends_with(b"\r") {
            return None;
        }
        let mut lines = text
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let mut words = lines.next()?.split(|byte| *byte == b' ');
        let (method, target, version) = (words.next()?, words.next()?, words.next()?);
        let minor = match version {
            b"HTTP/1.0" => 0,
            // RFC 9110 §2.5: a higher minor version means the highest that is known.
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => 1,
            _ => return None,
        };
        let named = !method.is_empty() && method.iter().all(|byte| is_token(*byte));
        let aimed = !target.is_empty() && target.iter().all(u8::is_ascii_graphic);
        if words.next().is_some() || !named || !aimed {
            return None;
        }
        let mut fields = Vec::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) || !value.iter().all(|byte| is_value(*byte))
            {
                return None;
            }
            let name = String::from_utf8(name.to_ascii_lowercase()).ok()?;
            fields.push((name, value.trim_ascii()));
        }
        Some(Self {
            method,
            target,
            minor,
            fields,
        })
    }

    fn all(&self, name: &str) -> Vec<&'a [u8]> {
        let of_name = self.fields.iter().filter(|(given, _)| given == name);
        of_name.map(|(_, value)| *value).collect()
    }

    fn lists(&self, name: &str, token: &str) -> bool {
        let items = self
            .all(name)
            .into_iter()
            .flat_map(|value| value.split(|byte| *byte == b','));
        items
            .map(<[u8]>::trim_ascii)
            .any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// RFC 9112 §6.3; `None` where a careful server refuses.
    fn framing(&self) -> Option<BodyKind> {
        let (codings, lengths) = (self.all("transfer-encoding"), self.all("content-length"));
        match (&codings[..], &lengths[..]) {
            ([], []) => Some(BodyKind::None),
            ([coding], []) if self.minor == 1 && coding.eq_ignore_ascii_case(b"chunked") => Some(BodyKind::Chunked),
            ([], [digits]) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                match std::str::from_utf8(digits).ok()?.parse().ok()? {
                    0 => Some(BodyKind::None),
                    length if length <= BODY_LEN_MAX as u64 => Some(BodyKind::Length(length)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Nothing about it is wrong, or new to a server of this kind.
    fn is_plain(&self, head: &[u8]) -> bool {
        let path = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~:@!$&'()*+,;=".contains(byte);
        let host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.".contains(byte);
        let hosts = self.all("host");
        let rare = ["expect", "content-encoding", "content-type", "upgrade"];
        head.len() <= HEAD_LEN_MAX
            && self.fields.len() <= HEADERS_MAX
            && self.method != b"CONNECT"
            && self.target[0] == b'/'
            && self.target.iter().all(path)
            && hosts.len() == 1
            && hosts[0].iter().all(host)
            && self.framing().is_some()
            && !self
                .fields
                .iter()
                .any(|(name, _)| rare.contains(&&**name) || name.starts_with("sec-"))
    }
}

/// A head that was taken means to us what it means to a strict reader.
fn check_taken(head: &Head, bytes: &[u8]) {
    let begin = bytes.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    assert!(begin <= 4, "two empty lines may come before");
    let strict = Strict::read(&bytes[begin..]).expect("a head that a strict reader refuses was taken");
    assert_eq!(Some(head.body), strict.framing(), "another framing");
    let version = if strict.minor == 1 {
        Version::Http11
    } else {
        Version::Http10
    };
    assert_eq!(head.version, version);
    assert!(strict.all("host").len() <= 1 && (version == Version::Http10 || strict.all("host").len() == 1));
    let method = match strict.method {
        b"GET" => Method::Get,
        b"HEAD" => Method::Head,
        b"POST" => Method::Post,
        _ => Method::Other,
    };
    assert_eq!(head.method, method);
    let closes = strict.lists("connection", "close");
    let keeps = version == Version::Http11 || strict.lists("connection", "keep-alive");
    assert_eq!(head.keep_alive, keeps && !closes);
    assert_eq!(
        head.expect_continue,
        version == Version::Http11 && !strict.all("expect").is_empty() && head.body != BodyKind::None
    );
    let upgrade = head.upgrade.as_deref();
    assert_eq!(
        upgrade.is_some(),
        version == Version::Http11 && !strict.all("upgrade").is_empty()
    );
    if let Some(upgrade) = upgrade {
        assert_eq!(upgrade.websocket, strict.lists("upgrade", "websocket"));
        assert_eq!(upgrade.connection_upgrade, strict.lists("connection", "upgrade"));
    }
    let path = head.target.path.as_bytes();
    assert!(path[0] == b'/' || path == b"*");
    assert!(strict.target.windows(path.len()).any(|part| part == path) || path == b"/");
}

fuzz_target!(|input: Input<'_>| {
    let (found, end) = requests(&[input.stream]);
    let (cut, cut_end) = requests(&pieces(input.stream, &input.cuts));
    assert_eq!(found, cut, "cuts change the requests");
    // Of several faults the one that came first is answered, so the status may be another.
    assert_eq!(
        end.is_some(),
        cut_end.is_some(),
        "cuts change the end: {end:?}, {cut_end:?}"
    );
    for (head, _) in &found {
        let _ = route(head.method, &head.target);
        let _ = ws::accept(head);
    }
    match parse_head(input.stream) {
        Ok(Some((head, len))) => {
            let bytes = &input.stream[..len];
            check_taken(&head, bytes);
            for end in [len - 1, usize::from(input.cuts[0]) % len] {
                assert_eq!(parse_head(&bytes[..end]), Ok(None), "a head is whole at its end");
            }
        }
        taken => {
            let end = memchr::memmem::find(input.stream, b"\r\n\r\n").map(|at| &input.stream[..at + 4]);
            let plain = end.and_then(|head| Some((Strict::read(head)?, head)));
            assert!(
                !plain.is_some_and(|(strict, head)| strict.is_plain(head)),
                "a good head: {taken:?}"
            );
        }
    }
});
