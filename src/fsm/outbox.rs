//! What steps mean to others: the drivers' dispatch records and the published events. Data only.
#![allow(
    missing_docs,
    reason = "rkyv derives resolvers and leaves their fields without documents; our own types all have them"
)]

use super::ids::{DriverId, RequestId, TripId};
use super::types::{TripOutcome, UnixMs};
use rkyv::{Archive, Deserialize, Serialize};

/// An attempt's outcome in the driver's dispatch records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ResponseType {
    /// `ACCEPTED`
    Accepted,
    /// `DECLINED`
    Declined,
    /// `TIMEOUT`
    Timeout,
    /// `REFUSED`
    Refused,
    /// `REVOKED`
    Revoked,
}

impl ResponseType {
    /// The name in the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Declined => "DECLINED",
            Self::Timeout => "TIMEOUT",
            Self::Refused => "REFUSED",
            Self::Revoked => "REVOKED",
        }
    }
}

/// One row of `GET /v1/drivers/{id}/records`.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct RecordRow {
    /// Partition, with the UTC day of `offer_sent_at_ms`.
    pub driver_id: DriverId,
    /// When the offer was sent (or refused without having been sent).
    pub offer_sent_at_ms: UnixMs,
    /// Which request.
    pub request_id: RequestId,
    /// Which attempt of it.
    pub attempt: u32,
    /// The trip, when this attempt won it.
    pub trip_id: Option<TripId>,
    /// Outcome.
    pub response_type: ResponseType,
    /// When the outcome was decided.
    pub response_at_ms: UnixMs,
}

/// What is published on `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Published {
    /// Whose.
    pub request_id: RequestId,
    /// When it was decided.
    pub at_ms: UnixMs,
    /// What.
    pub kind: PublishedKind,
}

/// The event types of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum PublishedKind {
    /// `REDISPATCH_REQUESTED`: send new candidates.
    RedispatchRequested {
        /// Every driver tried.
        excluded: Vec<DriverId>,
        /// How many attempts were made.
        attempts: u32,
        /// The caller's JSON object.
        trip: Box<str>,
    },
    /// `REQUEST_UNFULFILLED`
    RequestUnfulfilled {
        /// Every driver tried.
        excluded: Vec<DriverId>,
        /// How many attempts were made.
        attempts: u32,
        /// True: the deadline; false: the attempts.
        by_deadline: bool,
    },
    /// `REQUEST_CANCELLED`
    RequestCancelled {
        /// The caller's words, if any.
        reason: Option<Box<str>>,
    },
    /// `TRIP_CREATED`
    TripCreated {
        /// The trip.
        trip_id: TripId,
        /// Its driver.
        driver_id: DriverId,
        /// The caller's JSON object.
        trip: Box<str>,
    },
    /// `TRIP_PICKED_UP`
    TripPickedUp {
        /// The trip.
        trip_id: TripId,
        /// Its driver.
        driver_id: DriverId,
    },
    /// `TRIP_ENDED`
    TripEnded {
        /// The trip.
        trip_id: TripId,
        /// Its driver.
        driver_id: DriverId,
        /// How.
        outcome: TripOutcome,
    },
}
