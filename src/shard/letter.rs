//! What travels between shards, how it is sent and who reads it. A letter to oneself goes the same way, without the
//! ring.
#![forbid(unsafe_code)]

use super::latency::Begun;
use super::mailbox::{Mailbox, mesh};
use super::platform::{Platform, Time};
use super::sockets::Arrival;
use super::{Shard, home_of_driver, home_of_request};
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::request::{ReplyTo, RequestEvent, ToDriver, TripMove};
use crate::fsm::types::OfferRequest;
use crate::wire::respond::Reply;
use crate::wire::ws::AcceptKey;
use std::collections::VecDeque;

/// How often a shard looks what other threads have and what is due though neither was announced.
const LOOK_EVERY_MS: u64 = 100;

/// A letter. Its receiver is the home shard of what it names first, or the shard that holds the caller's connection.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are the events' own")]
pub(crate) enum Letter {
    /// `POST /v1/dispatch/offer`, to the request's home.
    Offer {
        offer: Box<OfferRequest>,
        reply: ReplyTo,
        /// When it was received, Unix microseconds.
        at_us: u64,
    },
    /// Something happens to a request.
    Request {
        request_id: RequestId,
        event: RequestEvent,
        /// When the sender saw it happen, Unix microseconds.
        at_us: u64,
    },
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
        /// What is measured until the message is written.
        begun: Option<Begun>,
    },
    /// Nobody knows the trip that the driver spoke of.
    NoSuchTrip { driver_id: DriverId },
    /// `GET /v1/drivers/{driver_id}`
    DriverView { driver_id: DriverId, reply: ReplyTo },
    /// Another node has this request and, if it has made one, this trip: to the request's home, from that of a driver here.
    Owned {
        request_id: RequestId,
        trip_id: Option<TripId>,
        peer: u16,
        /// It has decided something of it, so it is its owner.
        decides: bool,
    },
    /// The node that was said to have this request does not answer: to the request's home, from that of a driver here.
    OwnerSilent { request_id: RequestId, peer: u16 },
    /// Another node has this request from now on, which binds a driver: to the driver's home.
    BoundBy {
        driver_id: DriverId,
        request_id: RequestId,
        peer: u16,
    },
    /// The request that binds a driver here, perhaps, was handed over to another node: to the driver's home.
    OwnerIs {
        driver_id: DriverId,
        request_id: RequestId,
        peer: u16,
    },
    /// A driver's answer over HTTP to an offer of which nobody here knows, to the driver's home.
    SeekOffer { driver_id: DriverId, letter: Box<Letter> },
    /// The answer to a call, to the shard that holds its connection.
    Reply { call: u64, reply: Box<Reply> },
    /// The answer to a call of another node, to this shard itself once it may leave.
    FarReply { to: ReplyTo, reply: Box<Reply> },
    /// What belongs to a socket that arrives with `token`, to the driver's home.
    HandOver { token: u64, handshake: Box<Handshake> },
    /// The socket of that token does not come after all.
    HandOverFailed { token: u64 },
}

/// A letter on its way to another shard.
#[derive(Debug)]
pub(super) struct Posted {
    /// When, as [`Time::order`] has it.
    order: u64,
    letter: Box<Letter>,
}

/// What has come from other shards, and whether other threads may have something.
#[derive(Default)]
pub(super) struct Inbox {
    /// In the order in which it was posted.
    letters: VecDeque<Posted>,
    /// So many of them may be read.
    readable: usize,
    /// Another thread has something for this shard, or the journal's write is over, or both may be.
    pub(super) news: bool,
    /// The millisecond of the last look at that and at the timers.
    looked_ms: u64,
    /// When the first timer is due, as was known before the last sleep.
    pub(super) due_ms: u64,
}

impl Inbox {
    /// Whether this turn looks what other threads have and what is due. They wake the ring when they have said something, and when the next
    /// timer is due is known: a turn that began with neither finds nothing, and on a shard that wakes for each message of its drivers that is
    /// most turns. What it would cost is between a driver's message and its answer, which leaves when the turn is over.
    pub(super) fn is_due(&mut self, now_ms: u64) -> bool {
        let is_due =
            std::mem::take(&mut self.news) || now_ms >= self.due_ms || now_ms.abs_diff(self.looked_ms) >= LOOK_EVERY_MS;
        if is_due {
            self.looked_ms = now_ms;
        }
        is_due
    }

    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }
}

/// One shard's end of the post between the shards of a node.
pub struct Mail(Mailbox<Posted>);

/// The post of a node: the ends of `shards` shards, in their order; `ring_len` places from each to each, as
/// [`mail_ring_len`] says or, to have full ones, fewer.
///
/// # Panics
/// When `ring_len` is no power of two.
pub fn mail(shards: u16, ring_len: usize) -> Vec<Mail> {
    mesh(shards, ring_len).into_iter().map(Mail).collect()
}

impl Mail {
    /// Whose end this is.
    pub fn index(&self) -> u16 {
        self.0.index()
    }

    pub(super) fn into_mailbox(self) -> Mailbox<Posted> {
        self.0
    }
}

impl Letter {
    /// What waited in a request, as the letter with which it came.
    pub(super) fn of_event(request_id: &RequestId, event: RequestEvent, at_us: u64) -> Self {
        match event {
            RequestEvent::Reposted { offer, reply } => Self::Offer { offer, reply, at_us },
            event => Self::Request {
                request_id: request_id.clone(),
                event,
                at_us,
            },
        }
    }

    /// Whether this may begin a request.
    pub(super) fn is_offer(&self) -> bool {
        matches!(self, Self::Offer { .. })
    }

    /// The attempt of a request that this speaks of, as a driver had it.
    pub(super) fn attempt(&self) -> Option<u32> {
        match self {
            Self::Request { event, .. } => match event {
                RequestEvent::Answered { attempt, .. } => *attempt,
                RequestEvent::Delivered { attempt, .. } | RequestEvent::Acked { attempt, .. } => Some(*attempt),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether this says what a driver does, or its home, whichever way it came.
    pub(super) fn is_about_driver(&self) -> bool {
        let is_response = matches!(
            self,
            Self::Request {
                event: RequestEvent::Answered { .. },
                ..
            }
        );
        is_response || self.is_of_driver() || self.is_echo()
    }

    /// Whether a driver says this to a request, which waits for no answer of its own.
    pub(super) fn is_of_driver(&self) -> bool {
        match self {
            Self::Request { event, .. } => event.reply().is_none() && !self.is_echo(),
            Self::TripMoved { .. } => true,
            _ => false,
        }
    }

    /// Whether a caller waits for an answer to this.
    pub(super) fn is_of_caller(&self) -> bool {
        !self.is_of_driver() && !self.is_echo()
    }

    /// Whether this is a driver's home's answer to what a request told it: nobody waits for an answer to that.
    pub(super) fn is_echo(&self) -> bool {
        match self {
            Self::Request { event, .. } => matches!(
                event,
                RequestEvent::Delivered { .. }
                    | RequestEvent::Refused { .. }
                    | RequestEvent::Reserved { .. }
                    | RequestEvent::Busy { .. }
                    | RequestEvent::Unavailable { .. }
            ),
            _ => false,
        }
    }
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

impl<P: Platform> Shard<P> {
    /// Takes what has arrived from other shards, in the order in which it was posted; what is posted from now on is for the next turn.
    /// Rings are emptied one after another, so of two letters in two rings the later one may be seen first, or alone; nobody who was answered
    /// because of the earlier one is to be served before it is read.
    pub(super) fn collect_letters(&mut self) {
        let Inbox { letters, readable, .. } = &mut self.inbox;
        if letters.is_empty() && !self.mail.has_letters() {
            return;
        }
        let now = self.clock.order();
        self.mail.collect(letters);
        letters.make_contiguous().sort_by_key(|posted| posted.order);
        *readable = letters.partition_point(|posted| posted.order < now);
    }

    /// Reads them. Not before this shard is an heir: a request that decided now could tell a driver's home that an offer is over before
    /// that home has bound its driver to it, which would then hold it for ever.
    pub(super) fn read_letters(&mut self) {
        if self.bindings.is_some() || self.inbox.readable == 0 {
            return;
        }
        let readable = std::mem::take(&mut self.inbox.readable);
        let mut letters = std::mem::take(&mut self.inbox.letters);
        for posted in letters.drain(..readable) {
            self.open_letter(*posted.letter);
        }
        self.inbox.letters = letters;
    }

    pub(super) fn read_own_letters(&mut self) {
        while let Some(letter) = self.local.pop_front() {
            self.open_letter(letter);
        }
    }

    /// Sends a letter to a shard, this one included.
    pub(super) fn post(&mut self, to: u16, letter: Letter) {
        if to == self.index {
            self.local.push_back(letter);
        } else {
            let (order, letter) = (self.clock.order(), Box::new(letter));
            let fits = self.mail.post(to, Posted { order, letter });
            let metrics = self.metrics();
            metrics.mailbox_letters.inc();
            if !fits {
                metrics.mailbox_overflows.inc();
            }
        }
    }

    /// Something happens to a request, wherever it is.
    pub(super) fn post_to_request(&mut self, request_id: RequestId, event: RequestEvent) {
        let home = home_of_request(&request_id, self.shards);
        let letter = Letter::Request {
            request_id,
            event,
            at_us: self.now_us,
        };
        self.post(home, letter);
    }

    /// A request speaks to a driver, wherever it is.
    pub(super) fn post_to_driver(
        &mut self,
        driver_id: DriverId,
        request_id: RequestId,
        mut message: ToDriver,
        begun: Option<Begun>,
    ) {
        self.note_ask(&driver_id, &request_id, &message);
        if !self.pass_asker(&mut message) {
            return;
        }
        let home = home_of_driver(&driver_id, self.shards);
        let letter = Letter::Driver {
            driver_id,
            request_id,
            message,
            begun,
        };
        self.post(home, letter);
    }

    pub(super) fn open_letter(&mut self, letter: Letter) {
        match letter {
            Letter::Offer { ref offer, .. } => {
                let request_id = offer.request_id.clone();
                self.request_letter(request_id, letter);
            }
            Letter::Request { ref request_id, .. } | Letter::View { ref request_id, .. } => {
                let request_id = request_id.clone();
                self.request_letter(request_id, letter);
            }
            Letter::TripMoved { ref trip_id, .. } | Letter::TripCancelled { ref trip_id, .. } => {
                let trip_id = trip_id.clone();
                self.trip_letter(trip_id, letter);
            }
            Letter::Driver {
                driver_id,
                request_id,
                message,
                begun,
            } => self.route_to_driver(driver_id, request_id, message, begun),
            Letter::NoSuchTrip { driver_id } => self.no_such_trip_anywhere(driver_id),
            Letter::Owned {
                request_id,
                trip_id,
                peer,
                decides,
            } => {
                if decides {
                    self.contest(&request_id);
                }
                // Several nodes may ask a driver for one id, of which one becomes the owner.
                if decides || trip_id.is_some() || self.owner_of(&request_id).is_none() {
                    self.owned(request_id, trip_id, peer);
                }
            }
            Letter::OwnerSilent { request_id, peer } => self.owner_is_silent(&request_id, peer),
            Letter::BoundBy {
                driver_id,
                request_id,
                peer,
            } => self.bound_by(&driver_id, &request_id, peer),
            Letter::OwnerIs {
                driver_id,
                request_id,
                peer,
            } => self.note_owner(&driver_id, &request_id, peer),
            Letter::SeekOffer { driver_id, letter } => self.seek_offer_of(driver_id, letter),
            Letter::FarReply { to, reply } => self.reply_far(to, *reply),
            Letter::DriverView { driver_id, reply } => self.driver_view(driver_id, reply),
            Letter::Reply { call, reply } => self.reply_arrived(call, reply),
            Letter::HandOver { token, handshake } => self.arrived(token, Arrival::Handshake(handshake)),
            Letter::HandOverFailed { token } => {
                self.arrivals.remove(&token);
            }
        }
    }
}
