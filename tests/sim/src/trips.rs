//! The trip objects of requests: each follows from its request's number, so that whoever sees one can say whether it is
//! whole, byte for byte.

use crate::ids::{Request, write_number};

const BEFORE: &[u8] = b"{\"n\":";
/// Blanks, escapes and letters beyond ASCII must come through as they are.
const MIDDLE: &[u8] = ", \"who\":\"J\\u00fcrgen \\\"J\\\" Grün\",\"pad\":\"".as_bytes();
const AFTER: &[u8] = b"\"}";

/// Length of the padding: mostly none, now and then nearly what a frame holds.
fn padding(request: Request) -> usize {
    let mixed = request.wrapping_mul(0x9E37_79B1) >> 8;
    match mixed % 64 {
        0 => 4_000 + (mixed >> 6) as usize % 11_000,
        1..=6 => (mixed >> 6) as usize % 700,
        _ => 0,
    }
}

/// Appends the trip object of a request.
pub fn write(out: &mut Vec<u8>, request: Request) {
    out.extend_from_slice(BEFORE);
    write_number(out, u64::from(request));
    out.extend_from_slice(MIDDLE);
    out.resize(out.len() + padding(request), b'x');
    out.extend_from_slice(AFTER);
}

/// Whether `text` is the trip object of this request.
pub fn is_of(request: Request, text: &str) -> bool {
    let mut rest = text.as_bytes();
    let mut take = |part: &[u8]| match rest.strip_prefix(part) {
        Some(after) => {
            rest = after;
            true
        }
        None => false,
    };
    let mut number = Vec::with_capacity(10);
    write_number(&mut number, u64::from(request));
    if !(take(BEFORE) && take(&number) && take(MIDDLE)) {
        return false;
    }
    rest.strip_suffix(AFTER)
        .is_some_and(|pad| pad.len() == padding(request) && pad.iter().all(|byte| *byte == b'x'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trips_are_told_apart() {
        for request in 0..500 {
            let mut out = Vec::new();
            write(&mut out, request);
            assert!(out.len() < 15_500);
            let text = String::from_utf8(out).unwrap();
            assert!(is_of(request, &text));
            assert!(!is_of(request + 1, &text));
            assert!(!is_of(request, &text[..text.len() - 1]));
            assert!(!is_of(request, &text.replace(", ", ",")));
        }
    }
}
