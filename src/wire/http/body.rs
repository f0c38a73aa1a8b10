//! Request bodies: by length, or chunked (RFC 9112 §6.2, §7.1).

use super::head::BODY_TOO_LARGE;
use super::{BodyKind, HttpError};
use crate::wire::limits::{BODY_LEN_MAX, CHUNK_EXTENSIONS_LEN_MAX, CHUNK_SIZE_DIGITS_MAX, TRAILERS_LEN_MAX};

/// How far a call of [`BodyDecoder::feed`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyProgress {
    /// Bytes of the input that belong to this body; what follows is the next request's.
    pub consumed: usize,
    /// The body is whole.
    pub done: bool,
}

/// The body when all of it is in `buf` and needs no decoding, and the number of bytes it takes. `None`: use a
/// [`BodyDecoder`].
pub fn whole_body(kind: BodyKind, buf: &[u8]) -> Option<(&[u8], usize)> {
    match kind {
        BodyKind::None => Some((&[], 0)),
        BodyKind::Length(length) => {
            let length = usize::try_from(length).ok()?;
            Some((buf.get(..length)?, length))
        }
        BodyKind::Chunked => None,
    }
}

/// Decodes one body, piece by piece.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of extensions, or of trailers, so far.
    ignored_len: usize,
}

/// What the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// One of so many that a `Content-Length` promised.
    Content(u64),
    /// A hex digit of a chunk's size, or what follows the last.
    Size { size: u64, digits: u8 },
    /// White space before an extension's `;`.
    ExtensionSpace { size: u64 },
    /// The first byte of an extension's name, or white space before it.
    ExtensionName { size: u64 },
    /// Anything of an extension.
    Extension { size: u64 },
    /// The LF that ends a chunk's first line.
    SizeLf { size: u64 },
    /// One of so many bytes of a chunk.
    Data(u64),
    /// The CR after a chunk's data.
    DataCr,
    /// The LF after that.
    DataLf,
    /// The first byte of a trailer line.
    TrailerStart,
    /// A trailer's name.
    TrailerName,
    /// A trailer's value.
    TrailerValue,
    /// The LF that ends a trailer line.
    TrailerLf,
    /// The LF that ends the body.
    EndLf,
    /// Nothing: the body is whole.
    Done,
}

impl BodyDecoder {
    /// For the body of a head that says `kind`.
    pub fn new(kind: BodyKind) -> Self {
        let state = match kind {
            BodyKind::None | BodyKind::Length(0) => State::Done,
            BodyKind::Length(length) => State::Content(length),
            BodyKind::Chunked => State::Size { size: 0, digits: 0 },
        };
        Self { state, ignored_len: 0 }
    }

    /// Takes what belongs to the body from `bytes` and appends its content to `body`, which is empty at the first call.
    ///
    /// # Errors
    /// 400 for bad chunks, 413 for a body over the bound, 431 for trailers over theirs.
    pub fn feed(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<BodyProgress, HttpError> {
        let mut rest = bytes;
        while self.state != State::Done && !rest.is_empty() {
            let taken = match self.state {
                State::Content(left) | State::Data(left) => self.take_content(left, rest, body)?,
                _ => {
                    self.state = self.step(rest[0], body.len())?;
                    1
                }
            };
            rest = &rest[taken..];
        }
        debug_assert!(body.len() <= BODY_LEN_MAX);
        Ok(BodyProgress {
            consumed: bytes.len() - rest.len(),
            done: self.state == State::Done,
        })
    }

    /// Takes up to `left` bytes of content and says how many.
    fn take_content(&mut self, left: u64, bytes: &[u8], body: &mut Vec<u8>) -> Result<usize, HttpError> {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        if body.len() + take > BODY_LEN_MAX {
            return Err(BODY_TOO_LARGE);
        }
        body.extend_from_slice(&bytes[..take]);
        let left = left - take as u64;
        self.state = match self.state {
            State::Content(_) if left == 0 => State::Done,
            State::Content(_) => State::Content(left),
            _ if left == 0 => State::DataCr,
            _ => State::Data(left),
        };
        Ok(take)
    }

    /// The state after one byte that is no content. RFC 9112 §7.1, without any of the liberties that parsers take.
    fn step(&mut self, byte: u8, body_len: usize) -> Result<State, HttpError> {
        const CHUNK: HttpError = HttpError::invalid("a chunk is malformed");
        const TRAILER: HttpError = HttpError::invalid("a trailer field is malformed");
        Ok(match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == CHUNK_SIZE_DIGITS_MAX {
                    return Err(CHUNK);
                }
                State::Size {
                    size: size << 4 | hex_value(byte),
                    digits: digits + 1,
                }
            }
            (State::Size { digits: 0, .. }, _) => return Err(CHUNK),
            (State::Size { size, .. } | State::Extension { size }, b'\r') => State::SizeLf { size },
            // RFC 9112 §7.1.1: extensions are ignored, and bounded; white space around `;` must be taken.
            (State::Size { size, .. } | State::ExtensionSpace { size }, b' ' | b'\t') => {
                self.ignore(CHUNK_EXTENSIONS_LEN_MAX, CHUNK)?;
                State::ExtensionSpace { size }
            }
            (State::Size { size, .. } | State::ExtensionSpace { size }, b';') => State::ExtensionName { size },
            (State::ExtensionName { size }, b' ' | b'\t') => {
                self.ignore(CHUNK_EXTENSIONS_LEN_MAX, CHUNK)?;
                State::ExtensionName { size }
            }
            (State::ExtensionName { size }, _) if is_token(byte) => {
                self.ignore(CHUNK_EXTENSIONS_LEN_MAX, CHUNK)?;
                State::Extension { size }
            }
            (State::Extension { size }, _) if is_text(byte) => {
                self.ignore(CHUNK_EXTENSIONS_LEN_MAX, CHUNK)?;
                State::Extension { size }
            }
            (State::SizeLf { size: 0 }, b'\n') => {
                self.ignored_len = 0;
                State::TrailerStart
            }
            (State::SizeLf { size }, b'\n') if size > (BODY_LEN_MAX - body_len) as u64 => return Err(BODY_TOO_LARGE),
            (State::SizeLf { size }, b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => self.trailer(State::TrailerName)?,
            (State::TrailerName, b':') => self.trailer(State::TrailerValue)?,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text(byte) => self.trailer(State::TrailerValue)?,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            (State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf | State::EndLf, _) => {
                return Err(TRAILER);
            }
            _ => return Err(CHUNK),
        })
    }

    /// RFC 9112 §7.1.2: trailers may be dropped; they are, and bounded.
    fn trailer(&mut self, next: State) -> Result<State, HttpError> {
        const TOO_LARGE: HttpError = HttpError::new(431, "head_too_large", "the trailer section is too large");
        self.ignore(TRAILERS_LEN_MAX, TOO_LARGE).map(|()| next)
    }

    fn ignore(&mut self, bound: usize, over: HttpError) -> Result<(), HttpError> {
        self.ignored_len += 1;
        if self.ignored_len > bound { Err(over) } else { Ok(()) }
    }
}

fn hex_value(byte: u8) -> u64 {
    (byte as char).to_digit(16).map_or(0, u64::from)
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9110 §5.5: what a field value may hold.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}
