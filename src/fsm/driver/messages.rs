//! What a driver actor hears and says. Data only.

use crate::fsm::ids::{RequestId, TripId};
use crate::fsm::request::{Answer, RequestEvent, ToDriver, TripMove};
use crate::fsm::types::{DriverState, Priority, RefuseReason, RevokeReason, UnixMs};
use std::sync::Arc;

/// Where a driver is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    /// Degrees north, −90 to 90.
    pub lat: f64,
    /// Degrees east, −180 to 180.
    pub lon: f64,
    /// Degrees from north, 0 to 360.
    pub heading: Option<f32>,
    /// Metres per second, ≥ 0.
    pub speed: Option<f32>,
}

/// What happens to a driver.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum DriverEvent {
    /// A socket completed its handshake.
    Connected { session: u64 },
    /// The socket of that session is gone.
    Disconnected { session: u64 },
    /// Something was heard (a heartbeat at least).
    Heard,
    /// `STATE`
    SetState { available: bool },
    /// `LOCATION`
    At(Location),
    /// `ACK`
    Ack { request_id: RequestId, attempt: u32 },
    /// `ACCEPT` or `DECLINE`
    Answer {
        request_id: RequestId,
        attempt: u32,
        answer: Answer,
        reason: Option<Box<str>>,
    },
    /// `TRIP`
    Trip { trip_id: TripId, what: TripMove },
    /// It spoke of a trip that nobody knows.
    NoSuchTrip,
    /// Everything sent so far was written to the socket.
    Written,
    /// A request speaks, at the node with this number (0: this one). One id may have been posted to several, of which each asks before
    /// it knows whose the request is.
    Request {
        node: u16,
        request_id: RequestId,
        message: ToDriver,
    },
    /// Another node has the driver: its socket here is closed, and what binds it goes there.
    Moved,
    /// Words between the driver and the request that has it may have been lost, or the request's node was away.
    Doubt,
    /// The time of its offer has been over for long, and the request's node cannot be reached.
    Overdue,
    /// The time that was armed has come.
    Timer,
}

/// What the driver's socket is told; the shard encodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum ToSocket {
    /// `WELCOME`
    Welcome {
        session: u64,
        state: DriverState,
        trip_id: Option<TripId>,
    },
    /// `OFFER`
    Offer {
        request_id: RequestId,
        attempt: u32,
        priority: Priority,
        expires_at_ms: UnixMs,
        trip: Arc<str>,
    },
    /// `CONFIRMED`
    Confirmed {
        request_id: RequestId,
        attempt: u32,
        trip_id: TripId,
    },
    /// `DECLINED`
    Declined { request_id: RequestId, attempt: u32 },
    /// `REVOKED`
    Revoked {
        request_id: RequestId,
        attempt: u32,
        reason: RevokeReason,
    },
    /// `STATE`
    State {
        state: DriverState,
        trip_id: Option<TripId>,
    },
    /// `TRIP_CANCELLED`
    TripCancelled {
        trip_id: TripId,
        request_id: RequestId,
        reason: Option<Box<str>>,
    },
    /// `ERROR` `no_such_offer`
    NoSuchOffer { request_id: RequestId },
    /// `ERROR` `no_such_trip`
    NoSuchTrip,
}

/// Why the actor has its socket closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// 4001: the same driver connected again.
    Displaced,
    /// 4004: silence.
    HeartbeatLost,
}

/// What the shard does for the actor, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum DriverEffect {
    /// Send on the socket.
    Send(ToSocket),
    /// Close the socket of this session.
    Close { session: u64, cause: CloseCause },
    /// Tell a request.
    Request { request_id: RequestId, event: RequestEvent },
    /// Answer the node with this number, where the request asked: `Reserved`, `Busy` or `Unavailable`.
    Asked {
        node: u16,
        request_id: RequestId,
        event: RequestEvent,
    },
    /// Remember (without waiting) that the driver was told that this offer is none any more: whoever makes it again, because its request
    /// has not heard so, is refused.
    TakenBack {
        request_id: RequestId,
        attempt: u32,
        reason: RefuseReason,
    },
    /// Ask the request that made this trip.
    TripMoved { trip_id: TripId, what: TripMove },
    /// Wake me with [`DriverEvent::Timer`] at this time instead of any earlier one; `None`: never.
    Arm { at_ms: Option<UnixMs> },
    /// Remember (without waiting) that the driver was seen.
    Seen { at_ms: UnixMs },
    /// Store that the driver went off shift or came back; what it is sent from now on waits for that.
    OffShift { off: bool, at_ms: UnixMs },
    /// Nothing is left to know of this driver but what the store knows.
    Gone,
}
