//! Appending JSON to a byte buffer. Keys are ours and hold nothing to escape.

use crate::fsm::ids::DriverId;

/// A number.
pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A number with a fraction, the shortest text that reads back as the same value; `null` when it is not finite.
pub(super) fn float(out: &mut Vec<u8>, value: f64) {
    write_value(out, &value);
}

/// The same in single precision, so that 0.1 stays 0.1.
pub(super) fn float_single(out: &mut Vec<u8>, value: f32) {
    write_value(out, &value);
}

/// A string that may hold anything.
pub(super) fn text(out: &mut Vec<u8>, value: &str) {
    write_value(out, value);
}

fn write_value<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    let done = serde_json::to_writer(out, value);
    assert!(done.is_ok(), "a Vec takes all");
}

/// `,"name":`
pub(super) fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A string that needs no escape: an id, or a name of the contract.
pub(super) fn plain(out: &mut Vec<u8>, value: &str) {
    debug_assert!(
        value
            .bytes()
            .all(|byte| (b' '..0x7f).contains(&byte) && byte != b'"' && byte != b'\\')
    );
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

/// `,"name":"value"` for a value that may hold anything.
pub(super) fn member_text(out: &mut Vec<u8>, key: &str, value: &str) {
    name(out, key);
    text(out, value);
}

/// `,"name":"value"` for a value that needs no escape.
pub(super) fn member_plain(out: &mut Vec<u8>, key: &str, value: &str) {
    name(out, key);
    plain(out, value);
}

/// `,"name":"value"` or `,"name":null`
pub(super) fn member_plain_or_null(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    name(out, key);
    match value {
        Some(value) => plain(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// `,"name":"value"` or nothing.
pub(super) fn member_plain_if(out: &mut Vec<u8>, key: &str, value: Option<&str>) {
    if let Some(value) = value {
        member_plain(out, key, value);
    }
}

/// `,"name":true` or `,"name":false`
pub(super) fn member_bool(out: &mut Vec<u8>, key: &str, value: bool) {
    name(out, key);
    out.extend_from_slice(if value { b"true" } else { b"false" });
}

/// `,"name":value`
pub(super) fn member_number(out: &mut Vec<u8>, key: &str, value: u64) {
    name(out, key);
    number(out, value);
}

/// `["id",…]`
pub(super) fn ids<'a>(out: &mut Vec<u8>, ids: impl IntoIterator<Item = &'a DriverId>) {
    out.push(b'[');
    for (index, id) in ids.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        plain(out, id.as_str());
    }
    out.push(b']');
}
