//! Members of a JSON object that a peer sent, read one by one so that an error names the member.
//!
//! Every function takes the member's name and its text, `None` when it was not given (or `null`), and gives `None` then.
//! An error is a sentence for the peer; it quotes nothing that the peer sent.

use super::limits::REASON_CHARS_MAX;
use crate::fsm::ids::IdError;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// A member's JSON text.
pub(super) type Raw<'a> = Option<&'a RawValue>;

/// Reads an object whose known members are those of `T`; others are skipped, a known one given twice is an error.
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, String> {
    let text = simdutf8::basic::from_utf8(text).map_err(|_| "the JSON text is not UTF-8".to_owned())?;
    // Derived readers take lists as well, member by member.
    if !text.trim_ascii_start().starts_with('{') {
        return Err("a JSON object is expected".to_owned());
    }
    serde_json::from_str(text).map_err(|error| format!("bad JSON: {error}"))
}

/// The error of a member that must be given.
pub(super) fn required<T>(name: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| format!("{name}: is required"))
}

/// A string.
pub(super) fn text<'a>(name: &str, raw: Raw<'a>) -> Result<Option<Cow<'a, str>>, String> {
    let Some(json) = raw.map(RawValue::get) else {
        return Ok(None);
    };
    if let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'))
        && !inner.contains('\\')
    {
        return Ok(Some(Cow::Borrowed(inner)));
    }
    let decoded = serde_json::from_str(json).map_err(|_| format!("{name}: must be a string"))?;
    Ok(Some(Cow::Owned(decoded)))
}

/// An id.
pub(super) fn id<T>(name: &str, raw: Raw<'_>, parse: fn(&str) -> Result<T, IdError>) -> Result<Option<T>, String> {
    match text(name, raw)? {
        Some(text) => parse(&text).map(Some).map_err(|why| format!("{name}: {why}")),
        None => Ok(None),
    }
}

/// Somebody's words: at most 256 characters.
pub(super) fn reason(raw: Raw<'_>) -> Result<Option<Box<str>>, String> {
    let Some(words) = text("reason", raw)? else {
        return Ok(None);
    };
    if words.len() > REASON_CHARS_MAX && words.chars().count() > REASON_CHARS_MAX {
        return Err(format!("reason: must have at most {REASON_CHARS_MAX} characters"));
    }
    Ok(Some(words.into()))
}

/// A whole number, as digits: no fraction, no exponent, no sign.
pub(super) fn integer(name: &str, raw: Raw<'_>, min: u64, max: u64) -> Result<Option<u64>, String> {
    let Some(json) = raw.map(RawValue::get) else {
        return Ok(None);
    };
    match parse_digits(json) {
        Some(value) if (min..=max).contains(&value) => Ok(Some(value)),
        _ => Err(format!("{name}: must be a whole number from {min} to {max}")),
    }
}

/// The same where the bound is one of 32 bits.
pub(super) fn integer_u32(name: &str, raw: Raw<'_>, min: u32, max: u32) -> Result<Option<u32>, String> {
    let value = integer(name, raw, min.into(), max.into())?;
    debug_assert!(value.is_none_or(|value| value <= u64::from(max)));
    Ok(value.map(|value| value as u32))
}

/// Digits and nothing else; `None` also for what is over 64 bits.
pub(super) fn parse_digits(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// A finite number.
pub(super) fn float(name: &str, raw: Raw<'_>, min: f64, max: f64) -> Result<Option<f64>, String> {
    let Some(json) = raw.map(RawValue::get) else {
        return Ok(None);
    };
    // The text is a JSON value; of these only numbers read as such. Too large a number reads as infinite.
    match json.parse::<f64>() {
        Ok(value) if value.is_finite() && (min..=max).contains(&value) => Ok(Some(value)),
        _ if max >= f64::from(f32::MAX) => Err(format!("{name}: must be a number of at least {min}")),
        _ => Err(format!("{name}: must be a number from {min} to {max}")),
    }
}
