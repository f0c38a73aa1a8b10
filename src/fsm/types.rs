//! The vocabulary that actors, journal, store and codecs share. Data only.
#![allow(
    missing_docs,
    reason = "rkyv derives resolvers and leaves their fields without documents; our own types all have them"
)]

pub use super::outbox::{Published, PublishedKind, RecordRow, ResponseType};

use super::ids::{DriverId, RequestId, TripId};
use rkyv::{Archive, Deserialize, Serialize};

/// Unix time in milliseconds.
pub type UnixMs = u64;

/// Priority class of a request; the order is the order of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub enum Priority {
    /// Served first.
    Premium,
    /// The default.
    Standard,
    /// Served last, and the first to be turned away; never starved.
    Economy,
}

impl Priority {
    /// All classes, in the order of service.
    pub const ALL: [Self; 3] = [Self::Premium, Self::Standard, Self::Economy];
    /// The name in the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Premium => "premium",
            Self::Standard => "standard",
            Self::Economy => "economy",
        }
    }
}

/// What a request is doing, as the contract's `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// Nobody holds the offer: waiting for a busy driver or for new candidates.
    PendingMatch,
    /// At least one driver holds the offer.
    OfferSent,
    /// End: a driver has the trip.
    Accepted,
    /// End: the caller took it back.
    Cancelled,
    /// End: deadline or attempts used up.
    Unfulfilled,
}

impl RequestState {
    /// The name in the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PendingMatch => "PENDING_MATCH",
            Self::OfferSent => "OFFER_SENT",
            Self::Accepted => "ACCEPTED",
            Self::Cancelled => "CANCELLED",
            Self::Unfulfilled => "UNFULFILLED",
        }
    }
    /// Whether the search for a driver is over.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Accepted | Self::Cancelled | Self::Unfulfilled)
    }
}

/// The way a message went or came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Channel {
    /// The driver's WebSocket.
    WebSocket,
    /// The HTTP API.
    Http,
}

impl Channel {
    /// The name in audit events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Http => "http",
        }
    }
}

/// Why an offer was taken back from a driver; the contract's `REVOKED.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum RevokeReason {
    /// Nobody answered in time.
    Timeout,
    /// The request was cancelled.
    Cancelled,
    /// Another driver of a parallel offer won.
    Taken,
    /// The attempt is over for another cause (an `ACCEPT` after one's own `DECLINE`, a fenced request).
    Superseded,
}

impl RevokeReason {
    /// The name in the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Taken => "taken",
            Self::Superseded => "superseded",
        }
    }
}

/// Why a driver could not be given an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum RefuseReason {
    /// Not connected for longer than the driver TTL, off shift, or never seen.
    Offline,
    /// Holds an offer of another request.
    Offered,
    /// On the way to a pickup.
    EnRoute,
    /// On a trip.
    OnTrip,
}

impl RefuseReason {
    /// The name in audit details.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Offered => "offered",
            Self::EnRoute => "en_route_to_pickup",
            Self::OnTrip => "on_trip",
        }
    }
}

/// How a trip ended; the contract's `TRIP_ENDED.outcome`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum TripOutcome {
    /// The driver completed it.
    Completed,
    /// The driver gave it up.
    CancelledByDriver,
    /// Cancelled over the API.
    Cancelled,
}

impl TripOutcome {
    /// The name in the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::CancelledByDriver => "cancelled_by_driver",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A driver's state, as the contract's `state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum DriverState {
    /// Gets no offers.
    Offline,
    /// May be offered a trip.
    Available,
    /// Holds an open offer.
    Offered,
    /// Has a trip, on the way to the pickup.
    EnRoute,
    /// Has a trip, passenger or parcel on board.
    OnTrip,
}

impl DriverState {
    /// The name in the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Available => "available",
            Self::Offered => "offered",
            Self::EnRoute => "en_route_to_pickup",
            Self::OnTrip => "on_trip",
        }
    }
}

/// What a caller asks for with `POST /v1/dispatch/offer`, checked and with defaults filled in.
/// `Option`s stay where a re-POST must tell "not given" from "given".
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct OfferRequest {
    /// Idempotency key.
    pub request_id: RequestId,
    /// Best first, 1–64, repeats dropped.
    pub candidates: Vec<DriverId>,
    /// Class; standard when not given.
    pub priority: Priority,
    /// Time a driver has for an answer, 1–600,000; node default when not given.
    pub offer_timeout_ms: Option<u32>,
    /// Time for the whole search, 1–86,400,000; node default when not given.
    pub deadline_ms: Option<u32>,
    /// Most attempts (≥ 1); no bound when not given.
    pub max_attempts: Option<u32>,
    /// Drivers that hold the offer at once, 1–10.
    pub parallel: Option<u8>,
    /// Longest wait for a driver who is offered to another request, 0–60,000.
    pub busy_wait_ms: Option<u32>,
    /// The caller's JSON object, byte for byte.
    pub trip: Box<str>,
}

/// One step of a request's life: one audit event, one part of a journal record. The log of steps *is*
/// the request: every actor is rebuilt by folding it, alive or after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Step {
    /// `REQUEST_RECEIVED`. Durations are final here (defaults filled in).
    Received {
        /// Class of the request.
        priority: Priority,
        /// End of the search.
        deadline_at_ms: UnixMs,
        /// Time a driver has for an answer.
        offer_timeout_ms: u32,
        /// Most attempts that count.
        max_attempts: Option<u32>,
        /// Drivers that hold the offer at once.
        parallel: u8,
        /// Longest wait for busy drivers.
        busy_wait_ms: u32,
        /// Best first.
        candidates: Vec<DriverId>,
        /// The caller's JSON object.
        trip: Box<str>,
    },
    /// `REDISPATCHED`: a re-POST brought new candidates.
    Redispatched {
        /// Drivers not tried before, best first.
        candidates: Vec<DriverId>,
        /// Replaces the earlier value when given.
        offer_timeout_ms: Option<u32>,
        /// Replaces the earlier value when given.
        parallel: Option<u8>,
        /// Replaces the earlier value when given.
        busy_wait_ms: Option<u32>,
    },
    /// `OFFER_SENT`.
    OfferSent {
        /// From 1, without gaps.
        attempt: u32,
        /// Who gets the offer.
        driver_id: DriverId,
        /// When it times out.
        expires_at_ms: UnixMs,
    },
    /// `OFFER_DELIVERED`: written to the socket.
    Delivered {
        /// The attempt.
        attempt: u32,
    },
    /// `OFFER_ACKED`: the app has it.
    Acked {
        /// The attempt.
        attempt: u32,
    },
    /// `OFFER_ACCEPTED`.
    Accepted {
        /// The attempt that won.
        attempt: u32,
        /// The way the answer came.
        channel: Channel,
    },
    /// `OFFER_DECLINED`.
    Declined {
        /// The attempt.
        attempt: u32,
        /// The way the answer came.
        channel: Channel,
        /// The driver's words, if any.
        reason: Option<Box<str>>,
    },
    /// `OFFER_TIMED_OUT`.
    TimedOut {
        /// The attempt.
        attempt: u32,
    },
    /// `OFFER_REFUSED`: the driver could not be offered. With or without an `OfferSent` of the same attempt before it.
    Refused {
        /// The attempt.
        attempt: u32,
        /// Who refused.
        driver_id: DriverId,
        /// Why.
        reason: RefuseReason,
    },
    /// `OFFER_REVOKED`.
    Revoked {
        /// The attempt.
        attempt: u32,
        /// Why.
        reason: RevokeReason,
    },
    /// `CANDIDATES_EXHAUSTED`; publishes `REDISPATCH_REQUESTED`.
    Exhausted,
    /// `TRIP_CREATED`; publishes an event of that name.
    TripCreated {
        /// The trip.
        trip_id: TripId,
        /// Its driver.
        driver_id: DriverId,
    },
    /// `TRIP_PICKED_UP`; publishes an event of that name.
    PickedUp,
    /// `TRIP_ENDED`; publishes an event of that name.
    TripEnded {
        /// How.
        outcome: TripOutcome,
        /// The caller's or driver's words, if any.
        reason: Option<Box<str>>,
    },
    /// `REQUEST_CANCELLED`; publishes an event of that name.
    Cancelled {
        /// The caller's words, if any.
        reason: Option<Box<str>>,
    },
    /// `REQUEST_UNFULFILLED`; publishes an event of that name.
    Unfulfilled {
        /// True: the deadline; false: the attempts.
        by_deadline: bool,
    },
}

/// A step and the time it was decided; `at_ms` never falls inside one request.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LogEntry {
    /// Unix milliseconds.
    pub at_ms: UnixMs,
    /// What happened.
    pub step: Step,
}

/// A request's whole life so far. `log[i]` is the audit event with `seq` i + 1.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RequestLog {
    /// Whose.
    pub request_id: RequestId,
    /// Oldest first, never empty, begins with [`Step::Received`].
    pub log: Vec<LogEntry>,
}

/// What the journal holds. Each append is one record; a group commit holds many. New kinds go to the end: journals hold
/// the old ones.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Record {
    /// Steps that follow the first `first_seq - 1` ones of this request.
    Steps {
        /// Whose.
        request_id: RequestId,
        /// `seq` of the first of them, from 1.
        first_seq: u32,
        /// In order, not empty.
        entries: Vec<LogEntry>,
    },
    /// The whole log again, so that older segments can go; its beginning when it is too long for one record.
    Image(RequestLog),
    /// A driver was seen for the first time since this node's data began.
    DriverSeen {
        /// Who.
        driver_id: DriverId,
        /// When.
        at_ms: UnixMs,
    },
    /// A driver went off shift on purpose (`off` true) or came back.
    OffShift {
        /// Who.
        driver_id: DriverId,
        /// When.
        at_ms: UnixMs,
        /// Off or on.
        off: bool,
    },
    /// What an image has after its first `first_seq - 1` steps; follows the [`Self::Image`] that begins it. Like that
    /// one it says nothing new.
    ImageRest {
        /// Whose.
        request_id: RequestId,
        /// `seq` of the first of them, above 1.
        first_seq: u32,
        /// In order, not empty.
        entries: Vec<LogEntry>,
    },
    /// Another node owns this request from here on: what was recorded of it is void, and an image begins it anew should it come
    /// back.
    GivenUp {
        /// Whose.
        request_id: RequestId,
    },
    /// Another node has had this request too, or may have: the whole of it is with all nodes' store, so this node's own is not told of its
    /// end. Stands before the image, or the steps, that follow it.
    Shared {
        /// Which.
        request_id: RequestId,
    },
}
