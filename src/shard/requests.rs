//! Requests at home on this shard: the table, the way in (idempotency check, admission, class queue), and the effects.
#![forbid(unsafe_code)]

mod lookups;

use super::Platform;
use super::answers::view;
use super::handover::Hand;
use super::index::KeyIndex;
use super::latency::{self, Begun};
use super::{Letter, Shard, Timer};
use crate::cold::port::Query;
use crate::fsm::ids::{RequestId, TripId};
use crate::fsm::queue::ClassQueue;
use crate::fsm::request::{Defaults, ReplyTo, Request, RequestEffect, RequestEvent};
use crate::fsm::types::{OfferRequest, Priority};
use crate::fsm::wheel::TimerId;
use crate::journal::Lsn;
use crate::limits;
use crate::pages::Pages;
use crate::wire::respond::Problem;
use lookups::{Parked, Unknown, lookups_max};
use std::collections::{HashMap, VecDeque};

/// A request in memory.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Entry {
    pub(super) request: Request,
    timer: Option<(TimerId, u64)>,
    /// First record of it that recovery needs; the greatest number while nothing is journaled.
    pub(super) first_lsn: Lsn,
    /// When the POST came that the request is at work on, Unix microseconds.
    posted_us: u64,
    /// What the last decision began.
    begun: Option<Begun>,
    /// Waits for a driver who is offered to another request.
    waits: bool,
    /// Steps that the journal has or is getting; what comes after them is on its way to the fleet's store.
    pub(super) journaled: usize,
    /// Steps that the fleet's store has.
    pub(super) stored: u32,
    /// What came of it with its last owner's last decision is in the journal when that has this record; 0: it is. Nothing is decided
    /// before: else, if this node died, who takes it over then would publish that decision alone.
    pub(super) news_lsn: Lsn,
    /// The decision that waits for it begins here.
    pub(super) held_from: Option<usize>,
    /// How often the request changed its owner.
    pub(super) epoch: u32,
    /// Another node had it, as far as was known when it came here.
    pub(super) is_foreign: bool,
    /// Of the last boot: not known yet whose it is.
    pub(super) is_dormant: bool,
    /// Whether it is on its way to another node.
    pub(super) hand: Hand,
    /// The node that was last asked to take it.
    pub(super) offered_to: Option<u16>,
    /// Another node speaks as its owner: it is being asked whose it is.
    pub(super) is_contested: bool,
    /// That takes long.
    pub(super) is_unsure: bool,
    /// So long it is not asked for again, as it was this node's a moment ago.
    pub(super) sure_until_ms: u64,
    /// It was lost and is this node's again, which its next owner here, who waits for it to leave, does not know yet.
    pub(super) comes_back: bool,
}

impl Entry {
    /// Whether other nodes have noted something of the request, or may have: it came from one, or is another's by now.
    fn is_not_all(&self) -> bool {
        self.is_foreign || self.request.is_fenced()
    }

    /// Whether this node alone has ever had the request, so that its log is all that nodes noted of it. The first change of owner may be
    /// one to this node's next boot; of what has changed more often nobody can say where it was meanwhile.
    pub(super) fn is_whole(&self) -> bool {
        !self.is_foreign && self.epoch <= 1
    }
}

/// The table.
pub(super) struct Requests {
    pub(super) slab: Pages<Entry>,
    by_id: KeyIndex,
    pub(super) trips: HashMap<TripId, u32>,
    /// Ids that the store is being asked about or that wait to be taken in, with what has come for them meanwhile.
    parked: HashMap<RequestId, Parked>,
    /// How many of them have no offer: somebody speaks of an id that is not in memory.
    lookups: usize,
    /// Those about which the store is asked again, and when.
    again: VecDeque<(u64, Unknown)>,
    /// Trips that the store is being asked about.
    parked_trips: HashMap<TripId, Parked>,
    /// New requests that the store does not know, waiting to be taken in.
    pub(super) ingress: ClassQueue<RequestId>,
}

impl Requests {
    pub(super) fn new(age_step_ms: u64) -> Self {
        Self {
            slab: Pages::new(),
            by_id: KeyIndex::default(),
            trips: HashMap::new(),
            parked: HashMap::new(),
            lookups: 0,
            again: VecDeque::new(),
            parked_trips: HashMap::new(),
            ingress: ClassQueue::new(age_step_ms),
        }
    }

    pub(super) fn find(&self, id: &RequestId) -> Option<u32> {
        self.by_id
            .find(id.hash64(), |key| self.slab[key as usize].request.id() == id)
    }

    fn insert(&mut self, request: Request, posted_us: u64) -> u32 {
        let hash = request.id().hash64();
        debug_assert!(self.find(request.id()).is_none());
        let entry = Entry {
            request,
            timer: None,
            first_lsn: Lsn::MAX,
            posted_us,
            begun: None,
            waits: false,
            journaled: 0,
            stored: 0,
            news_lsn: 0,
            held_from: None,
            epoch: 0,
            is_foreign: false,
            is_dormant: false,
            hand: Hand::Stays,
            offered_to: None,
            is_contested: false,
            is_unsure: false,
            sure_until_ms: 0,
            comes_back: false,
        };
        let key = self.slab.insert(entry) as u32;
        let slab = &self.slab;
        self.by_id
            .insert(hash, key, |key| slab[key as usize].request.id().hash64());
        key
    }

    /// Bytes of the table and its index.
    pub(super) fn bytes(&self) -> usize {
        self.slab.bytes() + self.by_id.bytes()
    }
}

/// Share of the ingress queue that a class may fill, in percent: economy is the first to be turned away.
const fn share_percent(class: Priority) -> usize {
    match class {
        Priority::Premium => 100,
        Priority::Standard => 80,
        Priority::Economy => 60,
    }
}

impl<P: Platform> Shard<P> {
    /// A letter for a request, known or not.
    pub(super) fn request_letter(&mut self, request_id: RequestId, letter: Letter) {
        if let Some(peer) = self.handed_to(&request_id) {
            return self.pass_to_owner(peer, letter);
        }
        if let Letter::Request { event, .. } = &letter {
            self.note_answer(&request_id, event);
        }
        if let Some(key) = self.requests.find(&request_id) {
            if let Some(peer) = self.owner_instead(key, &letter) {
                return self.pass_to_owner(peer, letter);
            }
            return self.deliver_to_request(key, letter);
        }
        if let Some(peer) = self.owner_of(&request_id)
            && (self.claims.is_none() || letter.is_of_driver() || letter.is_echo() || self.is_linked(peer))
        {
            // If nodes share a store, that knows who took over from one that cannot be reached.
            return self.pass_to_owner(peer, letter);
        }
        let has_place = self.requests.has_place(&request_id);
        if has_place != Some(true)
            && let Letter::Offer { offer, reply, .. } = &letter
            && let Err(problem) = self.admit(offer.priority)
        {
            return self.answer(*reply, problem.into_reply());
        }
        if has_place.is_some() {
            return self.requests.park(request_id, letter);
        }
        if letter.is_echo() {
            // Of a request that was in memory when the driver was asked: it is over, whatever the store says.
            return self.unknown(letter);
        }
        if !letter.is_offer() && self.requests.lookups >= lookups_max(&letter) {
            return self.refuse_letter(&letter, &Problem::overloaded(limits::RETRY_AFTER_S));
        }
        if letter.is_offer() && self.store.surely_lacks(request_id.hash64()) {
            self.requests.park(request_id.clone(), letter);
            return self.settle_unknown(&request_id);
        }
        self.requests.park(request_id.clone(), letter);
        self.look_up_request(request_id);
    }

    /// Whether a new request of this class may be taken in.
    fn admit(&mut self, class: Priority) -> Result<(), Problem> {
        if self.draining.is_some() {
            return Err(Problem::draining(self.drain_left_s()));
        }
        if !self.is_durable() {
            return Err(Problem::not_durable());
        }
        let room = self.config.ingress_queue_max as usize * share_percent(class) / 100;
        if self.requests.arrivals() >= room.max(1) {
            self.metrics().ingress_shed.of(class).inc();
            self.log(crate::ops::log::LogKind::Overload, |suppressed| {
                tracing::warn!(
                    class = class.as_str(),
                    suppressed,
                    "more requests than can be taken in: 429"
                );
            });
            return Err(Problem::overloaded(limits::RETRY_AFTER_S));
        }
        Ok(())
    }

    /// Takes in what waits, in the order of the classes, as far as the journal keeps up.
    pub(super) fn take_in(&mut self) {
        for _ in 0..limits::INGRESS_BATCH_MAX {
            if self.requests.ingress.is_empty() || !self.journal_keeps_up() {
                return;
            }
            let Some((class, request_id)) = self.requests.ingress.pop() else {
                return;
            };
            self.metrics().ingress_queue.of(class).dec();
            let mut letters = self.requests.unpark(&request_id);
            if let Some(Letter::Offer { offer, reply, at_us }) = letters.pop_front() {
                self.begin(*offer, reply, at_us);
            }
            for letter in letters {
                self.request_letter(request_id.clone(), letter);
            }
        }
    }

    fn begin(&mut self, offer: OfferRequest, reply: ReplyTo, posted_us: u64) {
        let defaults = Defaults {
            offer_timeout_ms: self.config.offer_timeout_ms,
            deadline_ms: self.config.deadline_ms,
        };
        let mut effects = std::mem::take(&mut self.request_effects);
        let kept = self.claims.is_some().then(|| Box::new(offer.clone()));
        let request = Request::received(offer, reply, defaults, self.now_ms, &mut effects);
        let key = self.requests.insert(request, posted_us);
        if let (Some(claims), Some(kept)) = (&mut self.claims, kept) {
            claims.keep_offer(key, kept);
        }
        self.metrics().requests_open.inc();
        self.apply_request(key, effects, self.now_us);
    }

    /// A request that was open when the node stopped. Its drivers know already.
    pub(super) fn adopt(&mut self, request: Request) -> u32 {
        let trip_id = request.fold().trip.as_ref().map(|trip| trip.trip_id.clone());
        let (journaled, is_open) = (request.log().len(), !request.is_closed());
        let key = self.requests.insert(request, self.now_us);
        self.requests.slab[key as usize].journaled = journaled;
        if let Some(trip_id) = trip_id {
            self.requests.trips.insert(trip_id, key);
        }
        if is_open {
            self.metrics().requests_open.inc();
        }
        key
    }

    /// Goes on with an adopted request.
    pub(super) fn resume(&mut self, key: u32) {
        let mut effects = std::mem::take(&mut self.request_effects);
        self.requests.slab[key as usize]
            .request
            .resume(self.now_ms, &mut effects);
        self.apply_request(key, effects, self.now_us);
    }

    /// The time of a request has come.
    pub(super) fn request_timer(&mut self, key: u32) {
        self.requests.slab[key as usize].timer = None;
        self.step_request(key, RequestEvent::Timer, self.now_us);
    }

    /// A letter for a trip: to its request, wherever that is kept.
    pub(super) fn trip_letter(&mut self, trip_id: TripId, letter: Letter) {
        if let Some(peer) = self.trip_handed_to(&trip_id) {
            return self.pass_to_owner(peer, letter);
        }
        if self.requests.trips.contains_key(&trip_id) || self.owner_of_trip(&trip_id).is_some() {
            // What came before that was known goes first.
            for earlier in self.requests.unpark_trip(&trip_id) {
                self.trip_letter(trip_id.clone(), earlier);
            }
        }
        if let Some(key) = self.requests.trips.get(&trip_id) {
            return self.deliver_to_request(*key, letter);
        }
        if let Some(peer) = self.owner_of_trip(&trip_id) {
            return self.pass_to_owner(peer, letter);
        }
        match self.requests.park_trip(&trip_id, letter) {
            Ok(true) => self.ask(Query::Trip(trip_id.clone()), super::Ask::Trip(trip_id)),
            Ok(false) => {}
            Err(letter) => self.refuse_letter(&letter, &Problem::overloaded(limits::RETRY_AFTER_S)),
        }
    }

    fn deliver_to_request(&mut self, key: u32, letter: Letter) {
        self.doubt_owner(key, &letter);
        let Some(letter) = self.hold_until_owned(key, letter) else {
            return;
        };
        if self.is_told_by_store(key, &letter) {
            return self.look(key, letter);
        }
        match letter {
            Letter::Offer { offer, reply, at_us } => {
                let entry = &mut self.requests.slab[key as usize];
                if entry.request.fold().exhausted {
                    // What it waits for; further ones before that is decided change nothing.
                    entry.posted_us = at_us;
                }
                self.step_request(key, RequestEvent::Reposted { offer, reply }, at_us);
            }
            Letter::Request { event, at_us, .. } => self.step_request(key, event, at_us),
            Letter::TripMoved {
                trip_id,
                driver_id,
                what,
            } => {
                self.step_request(
                    key,
                    RequestEvent::TripMoved {
                        driver_id,
                        trip_id,
                        what,
                    },
                    self.now_us,
                );
            }
            Letter::TripCancelled { reason, reply, .. } => {
                self.step_request(key, RequestEvent::TripCancelled { reason, reply }, self.now_us);
            }
            Letter::View { .. } if self.requests.slab[key as usize].journaled == 0 => {
                self.view_unclaimed(key, letter);
            }
            Letter::View {
                request_id,
                audit: true,
                reply,
            } if self.requests.slab[key as usize].is_not_all() => {
                self.ask(Query::Request(request_id), super::Ask::Audit(reply));
            }
            Letter::View { audit, reply, .. } => {
                let entry = &self.requests.slab[key as usize];
                let nodes = [(0, self.config.node_id.clone())];
                let answer = view(&entry.request, entry.journaled, audit, &nodes);
                self.answer_durably(reply, answer);
            }
            Letter::Driver { .. }
            | Letter::NoSuchTrip { .. }
            | Letter::DriverView { .. }
            | Letter::Owned { .. }
            | Letter::OwnerSilent { .. }
            | Letter::OwnerIs { .. }
            | Letter::BoundBy { .. }
            | Letter::SeekOffer { .. }
            | Letter::Reply { .. }
            | Letter::FarReply { .. }
            | Letter::HandOver { .. }
            | Letter::HandOverFailed { .. } => unreachable!("not a request's letter"),
        }
    }

    /// `at_us`: when the event happened.
    fn step_request(&mut self, key: u32, event: RequestEvent, at_us: u64) {
        let mut effects = std::mem::take(&mut self.request_effects);
        self.requests.slab[key as usize]
            .request
            .step(event, self.now_ms, &mut effects);
        self.apply_request(key, effects, at_us);
    }

    /// Does what the actor wants, in order. `effects` is the shard's buffer and goes back to it; `event_us` is when
    /// that happened which it is about.
    pub(super) fn apply_request(&mut self, key: u32, mut effects: Vec<RequestEffect>, event_us: u64) {
        for effect in effects.drain(..) {
            match effect {
                RequestEffect::Persist { from, to, wait } => {
                    if wait {
                        self.begin_measuring(key, from, to, event_us);
                    }
                    self.persist(key, from, to, wait);
                }
                RequestEffect::Driver { driver_id, message } => {
                    let entry = &self.requests.slab[key as usize];
                    let begun = entry.begun.filter(|begun| latency::ends(&message, begun.span));
                    let request_id = entry.request.id().clone();
                    self.post_to_driver(driver_id, request_id, message, begun);
                }
                RequestEffect::Reply { reply, answer } => {
                    let request_id = self.requests.slab[key as usize].request.id().clone();
                    self.answer_call(&request_id, reply, answer);
                }
                RequestEffect::PassOn(event) => self.pass_on_event(key, event),
                RequestEffect::Arm { at_ms } => self.arm_request(key, at_ms),
                RequestEffect::Closed => self.metrics().requests_open.dec(),
            }
        }
        self.request_effects = effects;
        let entry = &mut self.requests.slab[key as usize];
        let waits = entry.request.is_waiting();
        if waits != entry.waits {
            entry.waits = waits;
            let waiting = &self.metrics().requests_waiting;
            if waits { waiting.inc() } else { waiting.dec() }
        }
    }

    fn begin_measuring(&mut self, key: u32, from: usize, to: usize, event_us: u64) {
        let entry = &mut self.requests.slab[key as usize];
        let decided = &entry.request.log()[from..to];
        entry.begun = latency::begun(decided, entry.posted_us, event_us, entry.begun);
    }

    pub(super) fn arm_request(&mut self, key: u32, at_ms: Option<u64>) {
        let entry = &mut self.requests.slab[key as usize];
        if entry.timer.map(|(_, armed_ms)| armed_ms) == at_ms {
            return;
        }
        if let Some((timer, _)) = entry.timer.take() {
            self.wheel.cancel(timer);
        }
        entry.timer = at_ms.map(|at_ms| (self.wheel.arm(at_ms, Timer::Request(key).owner()), at_ms));
    }

    /// The store has an ended request: memory need not.
    pub(super) fn forget_request(&mut self, key: u32) {
        let entry = self.requests.slab.remove(key as usize);
        debug_assert!(entry.request.is_closed());
        if let Some((timer, _)) = entry.timer {
            self.wheel.cancel(timer);
        }
        let id = entry.request.id();
        self.requests.by_id.remove(id.hash64(), key);
        if let Some(trip) = &entry.request.fold().trip {
            self.requests.trips.remove(&trip.trip_id);
        }
        if entry.is_contested {
            // It ended before it was known whose it is: what waited for that finds it in the store.
            for letter in self.requests.unpark(id) {
                self.request_letter(id.clone(), letter);
            }
        }
    }
}
