//! Frames out: unmasked, never fragmented (RFC 6455 §5.1, §5.4).

/// Appends a text frame whose payload `write` appends; best when that is mostly shorter than 126 bytes.
pub fn write_text(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    write(out);
    todo!()
}

/// The same, best when the payload is mostly 126 bytes or longer (`OFFER`).
pub fn write_text_long(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    write(out);
    todo!()
}

/// Appends a ping; `payload` has at most 125 bytes.
pub fn write_ping(out: &mut Vec<u8>, payload: &[u8]) {
    todo!("{} {payload:?}", out.len())
}

/// Appends a pong; `payload` is the ping's, at most 125 bytes.
pub fn write_pong(out: &mut Vec<u8>, payload: &[u8]) {
    todo!("{} {payload:?}", out.len())
}

/// Appends a close frame; a `reason` over 123 bytes is cut at a character.
pub fn write_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    todo!("{} {code} {reason}", out.len())
}
