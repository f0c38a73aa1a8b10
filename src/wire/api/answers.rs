//! What callers are answered. Problems are in [`Problem`](crate::wire::respond::Problem).

use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::{DriverState, Priority, Published, RecordRow, RequestState, UnixMs};
use crate::wire::driver::Location;
use crate::wire::respond::Reply;
use jiff::civil::Date;

/// 202 (`duplicate` false) or 200 (true) of `POST /v1/dispatch/offer`. `attempt` 0 and no driver: none was tried yet.
pub fn offer(
    request_id: &RequestId,
    state: RequestState,
    attempt: u32,
    driver_id: Option<&DriverId>,
    duplicate: bool,
) -> Reply {
    todo!("{request_id} {state:?} {attempt} {driver_id:?} {duplicate}")
}

/// An attempt's outcome in the answer to `POST /v1/dispatch/response`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseOutcome {
    /// The driver has the trip.
    Confirmed,
    /// The driver declined.
    Declined,
    /// The attempt ended otherwise.
    TooLate,
}

/// 200 of `POST /v1/dispatch/response`.
pub fn response(request_id: &RequestId, outcome: ResponseOutcome, trip_id: Option<&TripId>) -> Reply {
    todo!("{request_id} {outcome:?} {trip_id:?}")
}

/// 200 of `POST /v1/dispatch/cancel`.
pub fn cancelled(request_id: &RequestId) -> Reply {
    todo!("{request_id}")
}

/// 200 of `POST /v1/trips/{trip_id}/cancel`.
pub fn trip_cancelled(trip_id: &TripId, request_id: &RequestId) -> Reply {
    todo!("{trip_id} {request_id}")
}

/// What `GET /v1/dispatch/request/{request_id}` shows.
#[derive(Clone, Debug)]
pub struct RequestView<'a> {
    /// Which.
    pub request_id: &'a RequestId,
    /// Its state.
    pub state: RequestState,
    /// Latest attempt, 0 when there was none.
    pub attempt: u32,
    /// Driver of that attempt.
    pub driver_id: Option<&'a DriverId>,
    /// Every driver tried.
    pub excluded: Vec<&'a DriverId>,
    /// The trip, once there is one.
    pub trip_id: Option<&'a TripId>,
    /// Class.
    pub priority: Priority,
    /// End of the search.
    pub deadline_at_ms: UnixMs,
}

/// 200 of `GET /v1/dispatch/request/{request_id}`.
pub fn request_view(view: &RequestView<'_>) -> Reply {
    todo!("{view:?}")
}

/// The offer that a driver holds.
#[derive(Clone, Copy, Debug)]
pub struct OfferView<'a> {
    /// Of which request.
    pub request_id: &'a RequestId,
    /// Which attempt.
    pub attempt: u32,
    /// When it times out.
    pub expires_at_ms: UnixMs,
}

/// What `GET /v1/drivers/{driver_id}` shows.
#[derive(Clone, Debug)]
pub struct DriverView<'a> {
    /// Who.
    pub driver_id: &'a DriverId,
    /// State.
    pub state: DriverState,
    /// The trip, when the driver has one.
    pub trip_id: Option<&'a TripId>,
    /// The open offer, when the driver holds one.
    pub offer: Option<OfferView<'a>>,
    /// Where it last said it was.
    pub location: Option<Location>,
    /// When it was last heard.
    pub last_seen_ms: UnixMs,
    /// The node that has it.
    pub node: &'a str,
}

/// 200 of `GET /v1/drivers/{driver_id}`.
pub fn driver_view(view: &DriverView<'_>) -> Reply {
    todo!("{view:?}")
}

/// 200 of `GET /v1/drivers/{driver_id}/records`. `next_before` is there when more rows follow.
pub fn records(driver_id: &DriverId, date: Date, rows: &[RecordRow], next_before: Option<&str>, node: &str) -> Reply {
    todo!("{driver_id} {date} {rows:?} {next_before:?} {node}")
}

/// 200 of `GET /v1/events`: a line for each event with its cursor, ascending.
pub fn events<'a>(events: impl IntoIterator<Item = (u64, &'a Published)>) -> Reply {
    let mut body = Vec::new();
    for (cursor, published) in events {
        event_line(&mut body, cursor, published);
    }
    Reply::ndjson(body)
}

/// Appends one event as one line, LF included.
pub fn event_line(out: &mut Vec<u8>, cursor: u64, published: &Published) {
    todo!("{} {cursor} {published:?}", out.len())
}

/// 200 of `POST /v1/events/ack`, with the acknowledgement as it now stands.
pub fn events_acked(consumer: &str, cursor: u64) -> Reply {
    todo!("{consumer} {cursor}")
}
