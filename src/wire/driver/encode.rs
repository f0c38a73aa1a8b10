//! Writing the server's messages. Each function appends one JSON text to `out`.

use super::{ErrorCode, MessageError};
use crate::fsm::ids::{DriverId, ID_LEN_MAX, RequestId, TripId};
use crate::fsm::types::{DriverState, Priority, RevokeReason, UnixMs};
use crate::wire::json;

/// What `WELCOME` says.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    /// Who.
    pub driver_id: &'a DriverId,
    /// Grows with every connect; below 2^53.
    pub session: u64,
    /// The driver's state.
    pub state: DriverState,
    /// The trip it has.
    pub trip_id: Option<&'a TripId>,
    /// How often it is to be heard.
    pub heartbeat_ms: u32,
    /// The server's clock.
    pub server_time_ms: UnixMs,
}

/// What `OFFER` says.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Of which request.
    pub request_id: &'a RequestId,
    /// From 1.
    pub attempt: u32,
    /// Class.
    pub priority: Priority,
    /// When it times out.
    pub expires_at_ms: UnixMs,
    /// Time left now.
    pub ttl_ms: u32,
    /// The caller's JSON object, byte for byte.
    pub trip: &'a str,
}

/// `WELCOME`
pub fn welcome(out: &mut Vec<u8>, welcome: &Welcome<'_>) {
    begin(out, "WELCOME");
    json::member_plain(out, "driver_id", welcome.driver_id.as_str());
    json::member_number(out, "session", welcome.session);
    json::member_plain(out, "state", welcome.state.as_str());
    json::member_plain_if(out, "trip_id", welcome.trip_id.map(TripId::as_str));
    json::member_number(out, "heartbeat_ms", welcome.heartbeat_ms.into());
    json::member_number(out, "server_time_ms", welcome.server_time_ms);
    out.push(b'}');
}

/// `OFFER`
pub fn offer(out: &mut Vec<u8>, offer: &Offer<'_>) {
    out.reserve(OFFER_FIXED_LEN + ID_LEN_MAX + offer.trip.len());
    begin_about(out, "OFFER", offer.request_id, offer.attempt);
    json::member_plain(out, "priority", offer.priority.as_str());
    json::member_number(out, "expires_at_ms", offer.expires_at_ms);
    json::member_number(out, "ttl_ms", offer.ttl_ms.into());
    json::name(out, "trip");
    out.extend_from_slice(offer.trip.as_bytes());
    out.push(b'}');
}

/// Length of the longest `OFFER` that this request can lead to, in bytes.
pub fn offer_len_max(request_id: &RequestId, priority: Priority, trip: &str) -> usize {
    OFFER_FIXED_LEN + request_id.as_str().len() + priority.as_str().len() + trip.len()
}

/// `CONFIRMED`
pub fn confirmed(out: &mut Vec<u8>, request_id: &RequestId, attempt: u32, trip_id: &TripId) {
    begin_about(out, "CONFIRMED", request_id, attempt);
    json::member_plain(out, "trip_id", trip_id.as_str());
    out.push(b'}');
}

/// `DECLINED`
pub fn declined(out: &mut Vec<u8>, request_id: &RequestId, attempt: u32) {
    begin_about(out, "DECLINED", request_id, attempt);
    out.push(b'}');
}

/// `REVOKED`
pub fn revoked(out: &mut Vec<u8>, request_id: &RequestId, attempt: u32, reason: RevokeReason) {
    begin_about(out, "REVOKED", request_id, attempt);
    json::member_plain(out, "reason", reason.as_str());
    out.push(b'}');
}

/// `STATE`
pub fn state(out: &mut Vec<u8>, state: DriverState, trip_id: Option<&TripId>) {
    begin(out, "STATE");
    json::member_plain(out, "state", state.as_str());
    json::member_plain_if(out, "trip_id", trip_id.map(TripId::as_str));
    out.push(b'}');
}

/// `TRIP_CANCELLED`; `reason` is the caller's words, at most 256 characters, or the gateway's.
pub fn trip_cancelled(out: &mut Vec<u8>, trip_id: &TripId, request_id: &RequestId, reason: &str) {
    begin(out, "TRIP_CANCELLED");
    json::member_plain(out, "trip_id", trip_id.as_str());
    json::member_plain(out, "request_id", request_id.as_str());
    json::member_text(out, "reason", reason);
    out.push(b'}');
}

/// `PONG`
pub fn pong(out: &mut Vec<u8>, server_time_ms: UnixMs) {
    out.extend_from_slice(b"{\"type\":\"PONG\",\"server_time_ms\":");
    json::number(out, server_time_ms);
    out.push(b'}');
}

/// `ERROR`
pub fn error(out: &mut Vec<u8>, code: ErrorCode, message: &str, request_id: Option<&RequestId>) {
    begin(out, "ERROR");
    json::member_plain(out, "code", code.as_str());
    json::member_text(out, "message", message);
    json::member_plain_if(out, "request_id", request_id.map(RequestId::as_str));
    out.push(b'}');
}

/// `ERROR` for a text that is no message.
pub fn message_error(out: &mut Vec<u8>, cause: &MessageError) {
    error(out, cause.code, &cause.message, cause.request_id.as_ref());
}

/// An `OFFER` without its id, class and trip, every number as long as it can be.
const OFFER_FIXED_LEN: usize =
    br#"{"type":"OFFER","request_id":"","attempt":,"priority":"","expires_at_ms":,"ttl_ms":,"trip":}"#.len()
        + U32_DIGITS_MAX
        + U64_DIGITS_MAX
        + U32_DIGITS_MAX;
const U32_DIGITS_MAX: usize = u32::MAX.ilog10() as usize + 1;
const U64_DIGITS_MAX: usize = u64::MAX.ilog10() as usize + 1;

fn begin(out: &mut Vec<u8>, kind: &str) {
    out.extend_from_slice(b"{\"type\":");
    json::plain(out, kind);
}

fn begin_about(out: &mut Vec<u8>, kind: &str, request_id: &RequestId, attempt: u32) {
    begin(out, kind);
    json::member_plain(out, "request_id", request_id.as_str());
    json::member_number(out, "attempt", attempt.into());
}
