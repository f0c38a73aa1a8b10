//! The opening handshake (RFC 6455 §4.2).

use crate::wire::http::Head;
use crate::wire::respond::Problem;

/// The only subprotocol.
pub const SUBPROTOCOL: &str = "dispatch.v1";

/// Value of `Sec-WebSocket-Accept`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptKey(String);

/// Judges a handshake.
///
/// # Errors
/// 405 for another method than `GET`, 426 for a request without upgrade or of another version, else 400.
pub fn accept(head: &Head) -> Result<AcceptKey, Problem> {
    todo!("{head:?}")
}

/// Appends the `101 Switching Protocols` that ends the handshake.
pub fn write_101(out: &mut Vec<u8>, key: &AcceptKey) {
    todo!("{} {}", out.len(), key.0)
}
