//! What callers are answered. Problems are in [`Problem`](crate::wire::respond::Problem).

use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::{
    DriverState, Priority, Published, PublishedKind, RecordRow, RequestState, TripOutcome, UnixMs,
};
use crate::wire::driver::Location;
use crate::wire::json;
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
    let mut body = begin("request_id", request_id.as_str());
    json::member_plain(&mut body, "state", state.as_str());
    json::member_number(&mut body, "attempt", attempt.into());
    json::member_plain_or_null(&mut body, "driver_id", driver_id.map(DriverId::as_str));
    json::member_bool(&mut body, "duplicate", duplicate);
    end(if duplicate { 200 } else { 202 }, body)
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

impl ResponseOutcome {
    /// The name in the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "CONFIRMED",
            Self::Declined => "DECLINED",
            Self::TooLate => "TOO_LATE",
        }
    }
}

/// 200 of `POST /v1/dispatch/response`.
pub fn response(request_id: &RequestId, outcome: ResponseOutcome, trip_id: Option<&TripId>) -> Reply {
    let mut body = begin("request_id", request_id.as_str());
    json::member_plain(&mut body, "outcome", outcome.as_str());
    json::member_plain_if(&mut body, "trip_id", trip_id.map(TripId::as_str));
    end(200, body)
}

/// 200 of `POST /v1/dispatch/cancel`.
pub fn cancelled(request_id: &RequestId) -> Reply {
    let mut body = begin("request_id", request_id.as_str());
    json::member_plain(&mut body, "state", RequestState::Cancelled.as_str());
    end(200, body)
}

/// 200 of `POST /v1/trips/{trip_id}/cancel`.
pub fn trip_cancelled(trip_id: &TripId, request_id: &RequestId) -> Reply {
    let mut body = begin("trip_id", trip_id.as_str());
    json::member_plain(&mut body, "request_id", request_id.as_str());
    json::member_plain(&mut body, "outcome", TripOutcome::Cancelled.as_str());
    end(200, body)
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
    let mut body = begin("request_id", view.request_id.as_str());
    json::member_plain(&mut body, "state", view.state.as_str());
    json::member_number(&mut body, "attempt", view.attempt.into());
    json::member_plain_or_null(&mut body, "driver_id", view.driver_id.map(DriverId::as_str));
    json::name(&mut body, "excluded");
    json::ids(&mut body, view.excluded.iter().copied());
    json::member_plain_if(&mut body, "trip_id", view.trip_id.map(TripId::as_str));
    json::member_plain(&mut body, "priority", view.priority.as_str());
    json::member_number(&mut body, "deadline_at_ms", view.deadline_at_ms);
    end(200, body)
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
    let mut body = begin("driver_id", view.driver_id.as_str());
    json::member_plain(&mut body, "state", view.state.as_str());
    json::member_plain_if(&mut body, "trip_id", view.trip_id.map(TripId::as_str));
    if let Some(offer) = &view.offer {
        body.extend_from_slice(b",\"offer\":{\"request_id\":");
        json::plain(&mut body, offer.request_id.as_str());
        json::member_number(&mut body, "attempt", offer.attempt.into());
        json::member_number(&mut body, "expires_at_ms", offer.expires_at_ms);
        body.push(b'}');
    }
    if let Some(location) = &view.location {
        body.extend_from_slice(b",\"location\":");
        append_location(&mut body, location);
    }
    json::member_number(&mut body, "last_seen_ms", view.last_seen_ms);
    json::member_text(&mut body, "node", view.node);
    end(200, body)
}

/// 200 of `GET /v1/drivers/{driver_id}/records`. `next_before` is there when more rows follow.
pub fn records(driver_id: &DriverId, date: Date, rows: &[RecordRow], next_before: Option<&str>, node: &str) -> Reply {
    let mut body = begin("driver_id", driver_id.as_str());
    json::member_plain(&mut body, "date", &date.to_string());
    body.extend_from_slice(b",\"records\":[");
    for (index, row) in rows.iter().enumerate() {
        body.extend_from_slice(if index == 0 {
            b"{\"request_id\":"
        } else {
            b",{\"request_id\":"
        });
        json::plain(&mut body, row.request_id.as_str());
        json::member_plain_or_null(&mut body, "trip_id", row.trip_id.as_ref().map(TripId::as_str));
        json::member_number(&mut body, "attempt", row.attempt.into());
        json::member_number(&mut body, "offer_sent_at_ms", row.offer_sent_at_ms);
        json::member_plain(&mut body, "response_type", row.response_type.as_str());
        json::member_number(&mut body, "response_at_ms", row.response_at_ms);
        json::member_text(&mut body, "gateway_node_id", node);
        body.push(b'}');
    }
    body.push(b']');
    if let Some(next_before) = next_before {
        json::member_text(&mut body, "next_before", next_before);
    }
    end(200, body)
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
    out.extend_from_slice(b"{\"cursor\":");
    json::number(out, cursor);
    json::member_plain(out, "type", event_type(&published.kind));
    json::member_plain(out, "request_id", published.request_id.as_str());
    json::member_number(out, "at_ms", published.at_ms);
    match &published.kind {
        PublishedKind::RedispatchRequested {
            excluded,
            attempts,
            trip,
        } => {
            append_tried(out, excluded, *attempts);
            append_trip(out, trip);
        }
        PublishedKind::RequestUnfulfilled {
            excluded,
            attempts,
            by_deadline,
        } => {
            append_tried(out, excluded, *attempts);
            json::member_plain(out, "reason", unfulfilled_reason(*by_deadline));
        }
        PublishedKind::RequestCancelled { reason } => {
            if let Some(reason) = reason {
                json::member_text(out, "reason", reason);
            }
        }
        PublishedKind::TripCreated {
            trip_id,
            driver_id,
            trip,
        } => {
            append_trip_ids(out, trip_id, driver_id);
            append_trip(out, trip);
        }
        PublishedKind::TripPickedUp { trip_id, driver_id } => append_trip_ids(out, trip_id, driver_id),
        PublishedKind::TripEnded {
            trip_id,
            driver_id,
            outcome,
        } => {
            append_trip_ids(out, trip_id, driver_id);
            json::member_plain(out, "outcome", outcome.as_str());
        }
    }
    out.extend_from_slice(b"}\n");
}

/// 200 of `POST /v1/events/ack`, with the acknowledgement as it now stands.
pub fn events_acked(consumer: &str, cursor: u64) -> Reply {
    let mut body = begin("consumer", consumer);
    json::member_number(&mut body, "cursor", cursor);
    end(200, body)
}

/// 200 of `GET /v1/fleet/assign`: the node that a driver's app is to connect to, and where that is.
pub fn assigned(driver_id: &DriverId, node_id: &str, address: &str) -> Reply {
    let mut body = begin("driver_id", driver_id.as_str());
    json::member_plain(&mut body, "node", node_id);
    // Another node said so: it may hold anything.
    json::member_text(&mut body, "address", address);
    json::member_text(&mut body, "url", &format!("ws://{address}/ws/driver/{driver_id}"));
    end(200, body)
}

/// `REQUEST_UNFULFILLED.reason`, also in the audit.
pub(super) const fn unfulfilled_reason(by_deadline: bool) -> &'static str {
    if by_deadline { "deadline" } else { "attempts" }
}

const fn event_type(kind: &PublishedKind) -> &'static str {
    match kind {
        PublishedKind::RedispatchRequested { .. } => "REDISPATCH_REQUESTED",
        PublishedKind::RequestUnfulfilled { .. } => "REQUEST_UNFULFILLED",
        PublishedKind::RequestCancelled { .. } => "REQUEST_CANCELLED",
        PublishedKind::TripCreated { .. } => "TRIP_CREATED",
        PublishedKind::TripPickedUp { .. } => "TRIP_PICKED_UP",
        PublishedKind::TripEnded { .. } => "TRIP_ENDED",
    }
}

fn append_tried(out: &mut Vec<u8>, excluded: &[DriverId], attempts: u32) {
    json::name(out, "excluded");
    json::ids(out, excluded);
    json::member_number(out, "attempts", attempts.into());
}

fn append_trip_ids(out: &mut Vec<u8>, trip_id: &TripId, driver_id: &DriverId) {
    json::member_plain(out, "trip_id", trip_id.as_str());
    json::member_plain(out, "driver_id", driver_id.as_str());
}

/// The caller's JSON without its line ends, as an event is one line. In JSON a line end is only ever between tokens,
/// where nothing needs it (RFC 8259 §2, §7).
fn append_trip(out: &mut Vec<u8>, trip: &str) {
    json::name(out, "trip");
    let mut rest = trip.as_bytes();
    while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
        out.extend_from_slice(&rest[..end]);
        rest = &rest[end + 1..];
    }
    out.extend_from_slice(rest);
}

/// A position as JSON.
pub(crate) fn append_location(out: &mut Vec<u8>, location: &Location) {
    out.extend_from_slice(b"{\"lat\":");
    json::float(out, location.lat);
    json::name(out, "lon");
    json::float(out, location.lon);
    for (name, value) in [("heading", location.heading), ("speed", location.speed)] {
        if let Some(value) = value {
            json::name(out, name);
            json::float_single(out, value);
        }
    }
    out.push(b'}');
}

/// `{"key":"value"`: the first member is always an id.
fn begin(key: &str, id: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    body.extend_from_slice(b"{\"");
    body.extend_from_slice(key.as_bytes());
    body.extend_from_slice(b"\":");
    json::plain(&mut body, id);
    body
}

fn end(status: u16, mut body: Vec<u8>) -> Reply {
    body.push(b'}');
    Reply::json(status, body)
}
