//! Request heads.

use super::{Head, HttpError};

/// Cuts the first request head off `buf`. `Ok(None)`: more bytes are needed, call again with all of them; `usize` is
/// the number of bytes that the head took, empty lines before it included.
///
/// # Errors
/// [`HttpError`], as soon as it is certain.
pub fn parse_head(buf: &[u8]) -> Result<Option<(Head, usize)>, HttpError> {
    todo!("{}", buf.len())
}
