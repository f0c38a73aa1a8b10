//! What travels between shards. A letter to oneself goes the same way, without the ring.
#![forbid(unsafe_code)]

use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::request::{Answer, ReplyTo, RequestEvent, ToDriver, TripMove};
use crate::fsm::types::OfferRequest;
use crate::wire::respond::Reply;
use crate::wire::ws::AcceptKey;

/// A letter. Its receiver is the home shard of what it names first, or the shard that holds the caller's connection.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are the events' own")]
pub(crate) enum Letter {
    /// `POST /v1/dispatch/offer`, to the request's home.
    Offer { offer: Box<OfferRequest>, reply: ReplyTo },
    /// `POST /v1/dispatch/response`, to the driver's home, whose actor knows what it holds.
    Answer {
        driver_id: DriverId,
        request_id: RequestId,
        attempt: Option<u32>,
        answer: Answer,
        reply: ReplyTo,
    },
    /// Something happens to a request.
    Request { request_id: RequestId, event: RequestEvent },
    /// A driver speaks of a trip, to the home of the trip's request.
    TripMoved {
        trip_id: TripId,
        driver_id: DriverId,
        what: TripMove,
    },
    /// `POST /v1/trips/{trip_id}/cancel`
    TripCancelled {
        trip_id: TripId,
        reason: Option<Box<str>>,
        reply: ReplyTo,
    },
    /// `GET` of a request's state or audit.
    View {
        request_id: RequestId,
        audit: bool,
        reply: ReplyTo,
    },
    /// A request speaks to a driver.
    Driver {
        driver_id: DriverId,
        request_id: RequestId,
        message: ToDriver,
    },
    /// Nobody knows the trip that the driver spoke of.
    NoSuchTrip { driver_id: DriverId },
    /// `GET /v1/drivers/{driver_id}`
    DriverView { driver_id: DriverId, reply: ReplyTo },
    /// The answer to a call, to the shard that holds its connection.
    Reply { call: u64, reply: Box<Reply> },
    /// What belongs to a socket that arrives with `token`, to the driver's home.
    HandOver { token: u64, handshake: Box<Handshake> },
    /// The socket of that token does not come after all.
    HandOverFailed { token: u64 },
}

/// A handshake that was checked on one shard and is completed on the driver's home shard.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// Who connects.
    pub driver_id: DriverId,
    /// For the 101.
    pub key: AcceptKey,
    /// What the client sent after its head.
    pub bytes: Vec<u8>,
}
