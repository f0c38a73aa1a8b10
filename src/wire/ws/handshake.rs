//! The opening handshake (RFC 6455 §4.2).

use crate::wire::http::{Head, Method};
use crate::wire::respond::Problem;
use tungstenite::handshake::derive_accept_key;

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
    // RFC 6455 §4.2.1 (1).
    if head.method != Method::Get {
        return Err(Problem::method_not_allowed("GET"));
    }
    // RFC 6455 §4.2.1 (3); RFC 9110 §15.5.22. HTTP/1.0 has no upgrade.
    let Some(upgrade) = head.upgrade.as_deref().filter(|upgrade| upgrade.websocket) else {
        return Err(upgrade_required(
            "this endpoint speaks WebSocket: send Upgrade: websocket",
        ));
    };
    // RFC 6455 §4.2.1 (4).
    if !upgrade.connection_upgrade {
        return Err(Problem::invalid("Connection must list Upgrade"));
    }
    // RFC 6455 §4.2.1 (6), §4.2.2 (4): the answer names the version that is spoken.
    if upgrade.version.as_deref() != Some("13") {
        return Err(upgrade_required("Sec-WebSocket-Version must be 13"));
    }
    // RFC 6455 §4.2.1 (5), §11.3.1: exactly one, and 16 bytes in base64.
    let key = upgrade.key.as_deref().filter(|key| key_is_valid(key.as_bytes()));
    let Some(key) = key else {
        return Err(Problem::invalid("Sec-WebSocket-Key must be 16 bytes in base64"));
    };
    // Contract §1; RFC 6455 §4.2.2 (5, subprotocol). Names are compared as they are.
    let protocols = upgrade.protocols.as_deref().unwrap_or_default();
    if !protocols
        .split(',')
        .any(|name| name.trim_matches([' ', '\t']) == SUBPROTOCOL)
    {
        return Err(Problem::invalid("Sec-WebSocket-Protocol must list dispatch.v1"));
    }
    Ok(AcceptKey(derive_accept_key(key.as_bytes())))
}

/// Appends the `101 Switching Protocols` that ends the handshake.
pub fn write_101(out: &mut Vec<u8>, key: &AcceptKey) {
    // RFC 6455 §4.2.2 (5). No Sec-WebSocket-Extensions: none is negotiated.
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: ",
    );
    out.extend_from_slice(key.0.as_bytes());
    out.extend_from_slice(b"\r\nsec-websocket-protocol: dispatch.v1\r\n\r\n");
}

fn upgrade_required(detail: &str) -> Problem {
    Problem::new(426, "upgrade_required", detail)
        .with_header("upgrade", "websocket")
        .with_header("sec-websocket-version", "13")
}

/// 22 characters of base64 and `==` (RFC 4648 §4).
fn key_is_valid(key: &[u8]) -> bool {
    let char_is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    matches!(key, [chars @ .., b'=', b'='] if chars.len() == 22 && chars.iter().all(char_is_valid))
}
