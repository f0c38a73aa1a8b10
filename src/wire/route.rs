//! Which endpoint a request is for, with its ids and query checked.

use super::http::{Method, Target};
use super::respond::Problem;
use crate::fsm::ids::{DriverId, RequestId, TripId};
use compact_str::CompactString;
use jiff::civil::Date;

/// An endpoint and what its path and query say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /ws/driver/{driver_id}`
    DriverSocket(DriverId),
    /// `POST /v1/dispatch/offer`
    Offer,
    /// `POST /v1/dispatch/response`
    Response,
    /// `POST /v1/dispatch/cancel`
    Cancel,
    /// `POST /v1/trips/{trip_id}/cancel`
    TripCancel(TripId),
    /// `GET /v1/dispatch/request/{request_id}`
    RequestView(RequestId),
    /// `GET /v1/dispatch/audit/{request_id}`
    Audit(RequestId),
    /// `GET /v1/drivers/{driver_id}`
    DriverView(DriverId),
    /// `GET /v1/drivers/{driver_id}/records`
    Records(RecordsQuery),
    /// `GET /v1/events`
    Events(EventsQuery),
    /// `POST /v1/events/ack`
    EventsAck,
    /// `GET /healthz`
    Healthz,
    /// `GET /readyz`
    Readyz,
    /// `GET /metrics`
    Metrics,
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /asyncapi.json`
    AsyncApi,
}

/// One page of a driver's dispatch records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsQuery {
    /// Whose.
    pub driver_id: DriverId,
    /// UTC day; required.
    pub date: Date,
    /// Most rows, 1–1,000; 100 when not given.
    pub limit: u32,
    /// The `next_before` of an earlier page: 1–256 visible ASCII characters; the store knows what they mean.
    pub before: Option<String>,
}

/// One page of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsQuery {
    /// Only events after this cursor.
    pub after: Option<u64>,
    /// How long to wait when there is none, 0–60,000; 0 when not given.
    pub wait_ms: u32,
    /// Most events, 1–1,000; 100 when not given.
    pub limit: u32,
    /// Who reads; the rule of ids.
    pub consumer: Option<CompactString>,
}

/// Finds the endpoint.
///
/// # Errors
/// `404 not_found`, `405 method_not_allowed` with `Allow`, or `400 invalid` that names the id or parameter, in this
/// order.
pub fn route(method: Method, target: &Target) -> Result<Route, Problem> {
    todo!("{method:?} {target:?}")
}
