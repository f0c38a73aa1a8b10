//! Messages on a driver's socket: JSON objects, one per text message (contract §1).

mod encode;
mod parse;

pub use encode::*;
pub use parse::parse_driver_message;

use crate::fsm::ids::{RequestId, TripId};

/// What a driver says.
#[derive(Clone, Debug, PartialEq)]
pub enum DriverMessage {
    /// `ACK`: the app has the offer.
    Ack {
        /// Of which request.
        request_id: RequestId,
        /// From 1.
        attempt: u32,
    },
    /// `ACCEPT`
    Accept {
        /// Of which request.
        request_id: RequestId,
        /// From 1.
        attempt: u32,
        /// The driver's words, at most 256 characters.
        reason: Option<Box<str>>,
    },
    /// `DECLINE`
    Decline {
        /// Of which request.
        request_id: RequestId,
        /// From 1.
        attempt: u32,
        /// The driver's words, at most 256 characters.
        reason: Option<Box<str>>,
    },
    /// `STATE`: on shift (`available`) or off shift (`offline`).
    State {
        /// True: `available`; false: `offline`.
        available: bool,
    },
    /// `TRIP`
    Trip {
        /// Which.
        trip_id: TripId,
        /// What happened.
        event: TripEvent,
    },
    /// `LOCATION`
    Location(Location),
    /// `PING`
    Ping,
}

/// What a driver says of its trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TripEvent {
    /// At the pickup.
    Arrived,
    /// On board.
    Pickup,
    /// Done.
    Complete,
    /// Given up.
    Cancel,
}

/// Where a driver is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    /// Latitude in degrees, −90 to 90.
    pub lat: f64,
    /// Longitude in degrees, −180 to 180.
    pub lon: f64,
    /// Degrees clockwise from north, 0 to 360.
    pub heading: Option<f32>,
    /// Speed as the app measures it, 0 or more.
    pub speed: Option<f32>,
}

/// `ERROR.code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// Bad JSON, or a field that is missing or out of range.
    Invalid,
    /// No message has this `type`.
    UnknownType,
    /// The offer was never made to this driver.
    NoSuchOffer,
    /// The trip is not this driver's.
    NoSuchTrip,
}

impl ErrorCode {
    /// The name in the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::UnknownType => "unknown_type",
            Self::NoSuchOffer => "no_such_offer",
            Self::NoSuchTrip => "no_such_trip",
        }
    }
}

/// Why a text is no message: the driver's fault, answered with `ERROR`; the connection lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageError {
    /// [`ErrorCode::Invalid`] or [`ErrorCode::UnknownType`].
    pub code: ErrorCode,
    /// Names the field; quotes nothing of the peer's.
    pub message: String,
    /// The request the message spoke of, when that much could be read.
    pub request_id: Option<RequestId>,
}
