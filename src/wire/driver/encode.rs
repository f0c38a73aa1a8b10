//! Writing the server's messages. Each function appends one JSON text to `out`.

use super::{ErrorCode, MessageError};
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::{DriverState, Priority, RevokeReason, UnixMs};

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
    todo!("{} {welcome:?}", out.len())
}

/// `OFFER`
pub fn offer(out: &mut Vec<u8>, offer: &Offer<'_>) {
    todo!("{} {offer:?}", out.len())
}

/// Length of the longest `OFFER` that this request can lead to, in bytes.
pub fn offer_len_max(request_id: &RequestId, priority: Priority, trip: &str) -> usize {
    todo!("{request_id} {priority:?} {trip}")
}

/// `CONFIRMED`
pub fn confirmed(out: &mut Vec<u8>, request_id: &RequestId, attempt: u32, trip_id: &TripId) {
    todo!("{} {request_id} {attempt} {trip_id}", out.len())
}

/// `DECLINED`
pub fn declined(out: &mut Vec<u8>, request_id: &RequestId, attempt: u32) {
    todo!("{} {request_id} {attempt}", out.len())
}

/// `REVOKED`
pub fn revoked(out: &mut Vec<u8>, request_id: &RequestId, attempt: u32, reason: RevokeReason) {
    todo!("{} {request_id} {attempt} {reason:?}", out.len())
}

/// `STATE`
pub fn state(out: &mut Vec<u8>, state: DriverState, trip_id: Option<&TripId>) {
    todo!("{} {state:?} {trip_id:?}", out.len())
}

/// `TRIP_CANCELLED`; `reason` is the caller's words, at most 256 characters, or the gateway's.
pub fn trip_cancelled(out: &mut Vec<u8>, trip_id: &TripId, request_id: &RequestId, reason: &str) {
    todo!("{} {trip_id} {request_id} {reason}", out.len())
}

/// `PONG`
pub fn pong(out: &mut Vec<u8>, server_time_ms: UnixMs) {
    todo!("{} {server_time_ms}", out.len())
}

/// `ERROR`
pub fn error(out: &mut Vec<u8>, code: ErrorCode, message: &str, request_id: Option<&RequestId>) {
    todo!("{} {code:?} {message} {request_id:?}", out.len())
}

/// `ERROR` for a text that is no message.
pub fn message_error(out: &mut Vec<u8>, cause: &MessageError) {
    error(out, cause.code, &cause.message, cause.request_id.as_ref());
}
