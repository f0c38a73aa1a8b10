//! Request bodies.

use super::{BodyKind, HttpError};

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
    kind: BodyKind,
}

impl BodyDecoder {
    /// For the body of a head that says `kind`.
    pub fn new(kind: BodyKind) -> Self {
        Self { kind }
    }

    /// Takes what belongs to the body from `bytes` and appends its content to `body`, which is empty at the first call.
    ///
    /// # Errors
    /// 400 for bad chunks, 413 for a body over the bound, 431 for trailers over theirs.
    pub fn feed(&mut self, bytes: &[u8], body: &mut Vec<u8>) -> Result<BodyProgress, HttpError> {
        todo!("{:?} {} {}", self.kind, bytes.len(), body.len())
    }
}
