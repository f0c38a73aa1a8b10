//! What callers send.

use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::types::OfferRequest;
use crate::wire::respond::Problem;
use compact_str::CompactString;

/// `POST /v1/dispatch/response`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseRequest {
    /// Who answers.
    pub driver_id: DriverId,
    /// Which request.
    pub request_id: RequestId,
    /// True: `ACCEPT`; false: `DECLINE`.
    pub accept: bool,
    /// Which attempt, from 1; without it the driver's own.
    pub attempt: Option<u32>,
}

/// `POST /v1/dispatch/cancel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// Which request.
    pub request_id: RequestId,
    /// The caller's words, at most 256 characters.
    pub reason: Option<Box<str>>,
}

/// `POST /v1/events/ack`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsAckRequest {
    /// Who; the rule of ids.
    pub consumer: CompactString,
    /// Last event dealt with.
    pub cursor: u64,
}

/// Reads the body of `POST /v1/dispatch/offer`. Unknown members are ignored, `null` counts as not given.
///
/// # Errors
/// `400 invalid` that names the member; `413 too_large` when the `OFFER` would not fit a frame.
pub fn parse_offer(body: &[u8]) -> Result<OfferRequest, Problem> {
    todo!("{}", body.len())
}

/// Reads the body of `POST /v1/dispatch/response`.
///
/// # Errors
/// `400 invalid` that names the member.
pub fn parse_response(body: &[u8]) -> Result<ResponseRequest, Problem> {
    todo!("{}", body.len())
}

/// Reads the body of `POST /v1/dispatch/cancel`.
///
/// # Errors
/// `400 invalid` that names the member.
pub fn parse_cancel(body: &[u8]) -> Result<CancelRequest, Problem> {
    todo!("{}", body.len())
}

/// Reads the body of `POST /v1/trips/{trip_id}/cancel`, which may be empty: the caller's words, at most 256 characters.
///
/// # Errors
/// `400 invalid` that names the member.
pub fn parse_trip_cancel(body: &[u8]) -> Result<Option<Box<str>>, Problem> {
    todo!("{}", body.len())
}

/// Reads the body of `POST /v1/events/ack`; `cursor` is a number or a string of digits.
///
/// # Errors
/// `400 invalid` that names the member.
pub fn parse_events_ack(body: &[u8]) -> Result<EventsAckRequest, Problem> {
    todo!("{}", body.len())
}
