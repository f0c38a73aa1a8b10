//! What a request hears and says. Data only; links between nodes carry it as it stands (`wire/link.rs`).
#![allow(
    missing_docs,
    reason = "rkyv derives resolvers and leaves their fields without documents; our own types all have them"
)]

use crate::fsm::fold::{Outcome, TripPhase};
use crate::fsm::ids::{DriverId, TripId};
use crate::fsm::types::{OfferRequest, Priority, RefuseReason, RequestState, TripOutcome, UnixMs};
use rkyv::{Archive, Deserialize, Serialize};
use std::sync::Arc;

/// Where an API answer goes; made and understood by the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct ReplyTo {
    /// Node that holds the caller's connection, as this node numbers the others; 0: this one.
    pub node: u16,
    /// Shard of that node.
    pub shard: u16,
    /// The call, as that shard numbers it.
    pub call: u64,
}

/// Who asked, and so who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Asker {
    /// An API call.
    Api(ReplyTo),
    /// The driver's socket.
    Driver,
}

/// A driver's answer to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Answer {
    /// Takes it. Not known yet: whether the offer has reached the driver, or ever will.
    Accept,
    /// Takes it, and the driver's home says that the driver holds it.
    AcceptHeld,
    /// Does not. Not known yet: whether the offer has reached the driver, or ever will.
    Decline,
    /// Does not, and the driver's home says that the driver holds it.
    DeclineHeld,
    /// The driver holds it and has gone off shift, which declines it. Said by the driver's home on its own account, never in the
    /// driver's words.
    OffShift,
}

/// What a driver says of its trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum TripMove {
    /// At the pickup.
    Arrived,
    /// On board.
    Pickup,
    /// Done.
    Complete,
    /// Given up.
    Cancel,
}

/// Why the body of a `POST` is no offer: what the caller is told where the body matters.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Unfit {
    /// Its offer would not fit a frame (413); else it is not what the contract allows (400).
    pub too_large: bool,
    /// In words.
    pub why: Box<str>,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum RequestEvent {
    /// The same request again.
    Reposted { offer: Box<OfferRequest>, reply: ReplyTo },
    /// The same request again, with a body that is no offer.
    Misposted { unfit: Unfit, reply: ReplyTo },
    /// A driver answers; `attempt` is optional over HTTP.
    Answered {
        driver_id: DriverId,
        attempt: Option<u32>,
        answer: Answer,
        reason: Option<Box<str>>,
        asker: Asker,
    },
    /// The offer was written to the socket.
    Delivered { attempt: u32, driver_id: DriverId },
    /// The app has the offer. `held`: the driver's home says that the driver holds it.
    Acked {
        attempt: u32,
        driver_id: DriverId,
        held: bool,
    },
    /// The driver cannot take the offer of this attempt.
    Refused {
        attempt: u32,
        driver_id: DriverId,
        reason: RefuseReason,
    },
    /// Asked or waited for: the driver is now reserved for this request.
    Reserved { driver_id: DriverId, ask: u32 },
    /// Asked: the driver holds an offer of another request.
    Busy { driver_id: DriverId, ask: u32 },
    /// Asked or waited for: the driver cannot be had.
    Unavailable {
        driver_id: DriverId,
        ask: u32,
        reason: RefuseReason,
    },
    /// The caller takes it back.
    Cancelled { reason: Option<Box<str>>, reply: ReplyTo },
    /// The driver reports.
    TripMoved {
        driver_id: DriverId,
        trip_id: TripId,
        what: TripMove,
    },
    /// The caller ends the trip.
    TripCancelled { reason: Option<Box<str>>, reply: ReplyTo },
    /// The driver's home asks how it stands between the two: the driver has come to it from another node, or words may
    /// have been lost on the way. `held`: the attempt that the driver holds there, if it holds one of this request; `answer`: what
    /// it has said to that, if the attempt is still open. Answered with the trip or the offer, or with the end of what the
    /// driver holds; in any case with something.
    DriverHere {
        driver_id: DriverId,
        held: Option<u32>,
        answer: Option<Answer>,
    },
    /// The time that was armed has come.
    Timer,
}

/// The durability port's answers to [`RequestEffect::Persist`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Stored.
    Committed,
    /// Another owner has the request: forget it.
    Fenced(Fence),
    /// The driver who was to win has another trip: there is no such acceptance. Only of a decision with one.
    DriverBound,
}

/// What is known when another owner turns out to have a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// The decision under way was stored before the request changed its owner, when nobody heard of it: it stands.
    pub stood: bool,
    /// The new owner can be told, and tells the drivers how they stand with it.
    pub has_heir: bool,
}

/// Whether an offer was this driver's before a restart of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Resumed {
    /// It is new.
    No,
    /// It was sent, and was perhaps about to be refused.
    Sent,
    /// It had reached the driver's socket, so the driver held it.
    Delivered,
}

/// What the request's driver is told; the shard carries it to the driver's home.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ToDriver {
    /// Are you free? Be reserved, if so. Answered with `Reserved`, `Busy` or `Unavailable`, which carry the number of the
    /// `ask`: an answer to an earlier one, released meanwhile, says nothing about this one.
    Ask { ask: u32, priority: Priority },
    /// Be reserved for me when your present offer ends without a trip. Answered with `Reserved` or `Unavailable`.
    Wait { ask: u32, priority: Priority },
    /// I wait no longer, and a reservation without an offer is void.
    Release,
    /// The offer. Answered with `Refused` when the driver is not free.
    Offer {
        attempt: u32,
        priority: Priority,
        expires_at_ms: UnixMs,
        trip: Arc<str>,
        resumed: Resumed,
    },
    /// Somebody says that the driver takes the offer. Answered with [`Answer::AcceptHeld`], after the `Refused` of an
    /// offer that the driver could not be given: so a driver who has another offer or a trip wins nothing.
    Accept { attempt: u32, asker: Asker },
    /// The driver declines an offer that it does not hold. Answered with [`Answer::DeclineHeld`] in the same order, so that
    /// one whose offer was refused at that instant hears so.
    Decline { attempt: u32, reason: Option<Box<str>> },
    /// How the attempt stands now: `Accepted`, `Declined`, `TimedOut` or `Revoked`. `again`: only an answer.
    Outcome {
        attempt: u32,
        outcome: Outcome,
        trip_id: Option<TripId>,
        again: bool,
    },
    /// The driver asked about an offer that was never made to it.
    NoSuchOffer,
    /// The trip moved on (or the driver repeated itself, `again`).
    Trip {
        trip_id: TripId,
        phase: TripPhase,
        reason: Option<Box<str>>,
        again: bool,
    },
    /// The driver spoke of a trip that is not its own.
    NoSuchTrip { trip_id: TripId },
    /// The driver has this trip, by this attempt: after a restart of the node, or when the driver came to another one.
    Bound {
        attempt: u32,
        trip_id: TripId,
        phase: TripPhase,
    },
}

impl ToDriver {
    /// Whether this says what a driver is bound to already: it is so too while the driver is nowhere, and a `WELCOME` shows it.
    pub fn binds(&self) -> bool {
        match self {
            Self::Bound { .. } => true,
            Self::Offer { resumed, .. } => *resumed != Resumed::No,
            Self::Ask { .. }
            | Self::Wait { .. }
            | Self::Release
            | Self::Accept { .. }
            | Self::Decline { .. }
            | Self::Outcome { .. }
            | Self::NoSuchOffer
            | Self::Trip { .. }
            | Self::NoSuchTrip { .. } => false,
        }
    }
}

/// What an API caller is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAnswer {
    /// 202 (`duplicate` false) or 200.
    Offer {
        state: RequestState,
        attempt: u32,
        driver_id: Option<DriverId>,
        duplicate: bool,
    },
    /// 409 `excluded`.
    Excluded {
        state: RequestState,
        excluded: Vec<DriverId>,
    },
    /// 409 `ended`.
    Ended {
        state: RequestState,
        trip_id: Option<TripId>,
    },
    /// 400 or 413: the request waits for candidates, and the body has none.
    Unfit { unfit: Unfit },
    /// 200 of `POST /v1/dispatch/response`.
    Outcome { outcome: Outcome, trip_id: Option<TripId> },
    /// 404 `no_such_offer`.
    NoSuchOffer,
    /// 200 of a cancel.
    Cancelled,
    /// 200 of a trip cancel.
    TripCancelled { trip_id: TripId },
    /// 409 `ended` of a trip cancel.
    TripEnded { trip_id: TripId, outcome: TripOutcome },
    /// 404 `no_such_trip`.
    NoSuchTrip,
    /// 503 `not_durable`: another owner has the request; whoever asks again finds it.
    Fenced,
}

/// What the shard does for the actor, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestEffect {
    /// Store `log[from..to]`; answer with [`Durability`] when `wait`.
    Persist { from: usize, to: usize, wait: bool },
    /// Tell a driver.
    Driver { driver_id: DriverId, message: ToDriver },
    /// Answer a call.
    Reply { reply: ReplyTo, answer: ApiAnswer },
    /// Tell the request's new owner, after a [`Fence`] that has one: what a driver or a caller wants of the request.
    PassOn(RequestEvent),
    /// Wake me with [`RequestEvent::Timer`] at this time instead of any earlier one; `None`: never.
    Arm { at_ms: Option<UnixMs> },
    /// Nothing can change any more and all of it is stored.
    Closed,
}

impl RequestEvent {
    /// Where the caller is who waits for an answer, if one does.
    pub fn reply(&self) -> Option<ReplyTo> {
        match self {
            Self::Reposted { reply, .. }
            | Self::Misposted { reply, .. }
            | Self::Cancelled { reply, .. }
            | Self::TripCancelled { reply, .. } => Some(*reply),
            Self::Answered { asker, .. } => asker.reply(),
            _ => None,
        }
    }

    /// The same, to be changed.
    pub fn reply_mut(&mut self) -> Option<&mut ReplyTo> {
        match self {
            Self::Reposted { reply, .. }
            | Self::Misposted { reply, .. }
            | Self::Cancelled { reply, .. }
            | Self::TripCancelled { reply, .. }
            | Self::Answered {
                asker: Asker::Api(reply),
                ..
            } => Some(reply),
            _ => None,
        }
    }
}

impl ToDriver {
    /// Where the caller is whose answer is being asked for, to be changed.
    pub fn reply_mut(&mut self) -> Option<&mut ReplyTo> {
        match self {
            Self::Accept {
                asker: Asker::Api(reply),
                ..
            } => Some(reply),
            _ => None,
        }
    }
}

impl Asker {
    fn reply(self) -> Option<ReplyTo> {
        match self {
            Self::Api(reply) => Some(reply),
            Self::Driver => None,
        }
    }
}
