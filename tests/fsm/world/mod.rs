//! Actors joined as shards join them: a channel per ordered pair of actors, a durability port per request, a clock
//! that only the test moves. Nothing happens by itself: each delivery, commit and timer is a call.

mod port;
mod show;

pub use port::{Consequences, Port};
pub use show::{Show, step};

use dispatchd::fsm::driver::{Driver, DriverEffect, DriverEvent, DriverLimits, ToSocket};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::request::{
    ApiAnswer, Asker, Defaults, Durability, Fence, ReplyTo, Request, RequestEffect, RequestEvent, ToDriver,
};
use dispatchd::fsm::types::{OfferRequest, RequestLog, UnixMs};
use std::collections::{BTreeMap, VecDeque};

/// Where the clock of every world begins.
pub const BEGIN_MS: UnixMs = 1_000_000;

/// Defaults of every world, the contract's.
pub const DEFAULTS: Defaults = Defaults {
    offer_timeout_ms: 8_000,
    deadline_ms: 120_000,
};

/// An actor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Request(RequestId),
    Driver(DriverId),
}

/// Something that an actor wanted, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum Seen {
    Request(RequestId, RequestEffect),
    Driver(DriverId, DriverEffect),
    /// What the shard answers for a request that nobody knows.
    Unknown(RequestId, ReplyTo),
}

/// A request actor and what its shard keeps for it.
pub struct RequestSlot {
    pub actor: Request,
    pub armed: Option<UnixMs>,
    pub port: Port,
}

/// A driver actor and what its shard keeps for it.
pub struct DriverSlot {
    pub actor: Driver,
    pub armed: Option<UnixMs>,
}

/// A letter on its way; `number` is the order of posting over all channels.
#[derive(Clone, Debug)]
pub struct Mail<T> {
    pub number: u64,
    pub letter: T,
}

type Channels<From, To, T> = BTreeMap<(From, To), VecDeque<Mail<T>>>;

/// Everything.
pub struct World {
    pub now_ms: UnixMs,
    pub limits: DriverLimits,
    pub requests: BTreeMap<RequestId, RequestSlot>,
    pub drivers: BTreeMap<DriverId, DriverSlot>,
    pub to_drivers: Channels<RequestId, DriverId, ToDriver>,
    pub to_requests: Channels<DriverId, RequestId, RequestEvent>,
    pub seen: Vec<Seen>,
    trips: BTreeMap<TripId, RequestId>,
    off_shift: BTreeMap<DriverId, UnixMs>,
    sessions: u64,
    calls: u64,
    posted: u64,
}

impl World {
    pub fn new(limits: DriverLimits) -> Self {
        Self {
            now_ms: BEGIN_MS,
            limits,
            requests: BTreeMap::new(),
            drivers: BTreeMap::new(),
            to_drivers: BTreeMap::new(),
            to_requests: BTreeMap::new(),
            seen: Vec::new(),
            trips: BTreeMap::new(),
            off_shift: BTreeMap::new(),
            sessions: 0,
            calls: 0,
            posted: 0,
        }
    }

    /// The next call over the API.
    pub fn call(&mut self) -> ReplyTo {
        self.calls += 1;
        ReplyTo {
            node: 0,
            shard: 0,
            call: self.calls,
        }
    }

    /// `POST /v1/dispatch/offer`
    pub fn post(&mut self, offer: OfferRequest) -> ReplyTo {
        let reply = self.call();
        let id = offer.request_id.clone();
        if self.requests.contains_key(&id) {
            let offer = Box::new(offer);
            self.step_request(&id, RequestEvent::Reposted { offer, reply });
            return reply;
        }
        let mut effects = Vec::new();
        let actor = Request::received(offer, reply, DEFAULTS, self.now_ms, &mut effects);
        let port = Port::default();
        let slot = RequestSlot {
            actor,
            armed: None,
            port,
        };
        self.requests.insert(id.clone(), slot);
        self.apply_request(&id, effects);
        reply
    }

    /// One event of a request, known or not.
    pub fn step_request(&mut self, id: &RequestId, event: RequestEvent) {
        let now_ms = self.now_ms;
        let Some(slot) = self.requests.get_mut(id) else {
            return self.unknown(id, event);
        };
        let mut effects = Vec::new();
        if slot.actor.is_closed() && !slot.port.was_fenced() {
            // As the shard does it once only the store has the request.
            let mut stored = Request::restored(log_of(&slot.actor)).expect("a log that folds");
            stored.step(event, now_ms, &mut effects);
            let changes =
                |effect: &RequestEffect| matches!(effect, RequestEffect::Persist { .. } | RequestEffect::Closed);
            assert!(
                !effects.iter().any(changes),
                "an ended request does not change: {effects:?}"
            );
        } else {
            slot.actor.step(event, now_ms, &mut effects);
        }
        self.apply_request(id, effects);
    }

    /// One event of a driver, who may be new.
    pub fn step_driver(&mut self, id: &DriverId, event: DriverEvent) {
        let off_shift_since_ms = self.off_shift.get(id).copied().unwrap_or(0);
        let slot = self.drivers.entry(id.clone()).or_insert_with(|| DriverSlot {
            actor: Driver::new(id.clone(), off_shift_since_ms),
            armed: None,
        });
        let mut effects = Vec::new();
        slot.actor.step(event, self.now_ms, &self.limits, &mut effects);
        for effect in effects {
            self.seen.push(Seen::Driver(id.clone(), effect.clone()));
            self.apply_driver(id, effect);
        }
        let idle = |slot: &DriverSlot| slot.armed.is_none() && slot.actor.is_unknown();
        if self.drivers.get(id).is_some_and(idle) {
            self.drivers.remove(id);
        }
    }

    /// A new socket of this driver.
    pub fn connect(&mut self, id: &DriverId) {
        self.sessions += 1;
        let session = self.sessions;
        self.step_driver(id, DriverEvent::Connected { session });
    }

    /// The driver's socket is lost; nothing when there is none.
    pub fn disconnect(&mut self, id: &DriverId) {
        if let Some(session) = self.drivers.get(id).and_then(|slot| slot.actor.session()) {
            self.step_driver(id, DriverEvent::Disconnected { session });
        }
    }

    /// Hands over the oldest letter from a request to a driver.
    pub fn deliver_to_driver(&mut self, from: &RequestId, to: &DriverId) {
        let Some(message) = take(&mut self.to_drivers, &(from.clone(), to.clone())) else {
            return;
        };
        let request_id = from.clone();
        self.step_driver(
            to,
            DriverEvent::Request {
                node: 0,
                request_id,
                message,
            },
        );
    }

    /// Hands over the oldest letter from a driver to a request.
    pub fn deliver_to_request(&mut self, from: &DriverId, to: &RequestId) {
        if let Some(event) = take(&mut self.to_requests, &(from.clone(), to.clone())) {
            self.step_request(to, event);
        }
    }

    /// The oldest record of this request that is not durable becomes so.
    pub fn commit(&mut self, id: &RequestId) {
        let now_ms = self.now_ms;
        let Some(slot) = self.requests.get_mut(id) else { return };
        let Some(waits) = slot.port.commit(&slot.actor) else {
            return;
        };
        let mut effects = Vec::new();
        if waits {
            slot.actor.durable(Durability::Committed, now_ms, &mut effects);
        }
        self.apply_request(id, effects);
    }

    /// Another owner has the request: the port says so when it is asked next.
    pub fn fence(&mut self, id: &RequestId) {
        let now_ms = self.now_ms;
        let Some(slot) = self.requests.get_mut(id) else { return };
        assert!(slot.port.waits(), "a fence answers a Persist that waits");
        slot.port.fence();
        let mut effects = Vec::new();
        slot.actor
            .durable(Durability::Fenced(Fence::default()), now_ms, &mut effects);
        self.apply_request(id, effects);
    }

    /// Actors whose time has come, the earliest first.
    pub fn due(&self) -> Vec<(UnixMs, Node)> {
        let requests = self
            .requests
            .iter()
            .map(|(id, slot)| (slot.armed, Node::Request(id.clone())));
        let drivers = self
            .drivers
            .iter()
            .map(|(id, slot)| (slot.armed, Node::Driver(id.clone())));
        let mut due: Vec<_> = requests
            .chain(drivers)
            .filter_map(|(armed, node)| Some((armed.filter(|at| *at <= self.now_ms)?, node)))
            .collect();
        due.sort();
        due
    }

    /// Fires an actor's timer.
    pub fn fire(&mut self, node: &Node) {
        match node {
            Node::Request(id) => {
                if let Some(slot) = self.requests.get_mut(id) {
                    slot.armed = None;
                    self.step_request(id, RequestEvent::Timer);
                }
            }
            Node::Driver(id) => {
                if let Some(slot) = self.drivers.get_mut(id) {
                    slot.armed = None;
                    self.step_driver(id, DriverEvent::Timer);
                }
            }
        }
    }

    /// The process ends and begins again with what the journal kept: everything committed, and of what was only
    /// written as many records as `survivors` says. `order` is the order in which requests bind their drivers; with
    /// `early` requests hear their drivers so many milliseconds before they go on, as they may when their shard starts
    /// later than the drivers'.
    pub fn crash(
        &mut self,
        survivors: impl Fn(&RequestId) -> usize,
        order: impl Fn(&mut Vec<RequestId>),
        early: Option<UnixMs>,
    ) {
        self.to_drivers.clear();
        self.to_requests.clear();
        self.drivers.clear();
        let slots = std::mem::take(&mut self.requests);
        for (id, mut slot) in slots {
            if slot.port.was_fenced() {
                self.requests.insert(id, slot);
                continue;
            }
            let kept = slot.port.crash(&slot.actor, survivors(&id));
            if kept == 0 {
                continue;
            }
            let request_id = id.clone();
            let log = slot.actor.log()[..kept].to_vec();
            slot.actor = Request::restored(RequestLog { request_id, log }).expect("a log that folds");
            slot.armed = None;
            self.requests.insert(id, slot);
        }
        let is_open = |slot: &RequestSlot| !slot.actor.is_closed();
        let mut open: Vec<RequestId> = self
            .requests
            .iter()
            .filter(|(_, slot)| is_open(slot))
            .map(|(id, _)| id.clone())
            .collect();
        order(&mut open);
        for id in &open {
            let mut effects = Vec::new();
            self.requests[id].actor.rebind(&mut effects);
            for effect in effects {
                self.seen.push(Seen::Request(id.clone(), effect.clone()));
                let RequestEffect::Driver { driver_id, message } = effect else {
                    panic!("rebind only speaks to drivers: {effect:?}")
                };
                // As the node does it: an offer whose time ended while nobody ran is shown to nobody again.
                let is_over = matches!(message, ToDriver::Offer { expires_at_ms, .. } if expires_at_ms <= self.now_ms);
                let request_id = id.clone();
                if !is_over {
                    self.step_driver(
                        &driver_id,
                        DriverEvent::Request {
                            node: 0,
                            request_id,
                            message,
                        },
                    );
                }
            }
        }
        let letters: Vec<_> = self.to_requests.keys().filter(|_| early.is_some()).cloned().collect();
        for (from, to) in letters {
            self.deliver_to_request(&from, &to);
        }
        self.now_ms += early.unwrap_or(0);
        for id in &open {
            let mut effects = Vec::new();
            let slot = self.requests.get_mut(id).expect("it was open a line before");
            slot.actor.resume(self.now_ms, &mut effects);
            self.apply_request(id, effects);
        }
    }

    fn apply_request(&mut self, id: &RequestId, effects: Vec<RequestEffect>) {
        for effect in effects {
            self.seen.push(Seen::Request(id.clone(), effect.clone()));
            let slot = self.requests.get_mut(id).expect("an effect has an actor");
            match effect {
                RequestEffect::Persist { from, to, wait } => slot.port.write(from, to, wait),
                RequestEffect::Driver { driver_id, message } => {
                    self.posted += 1;
                    let number = self.posted;
                    let letter = message;
                    self.to_drivers
                        .entry((id.clone(), driver_id))
                        .or_default()
                        .push_back(Mail { number, letter });
                }
                RequestEffect::Arm { at_ms } => slot.armed = at_ms,
                RequestEffect::Reply { .. } | RequestEffect::PassOn(_) => {}
                RequestEffect::Closed => assert!(slot.actor.is_closed()),
            }
            let trip = self.requests[id].actor.fold().trip.as_ref();
            if let Some(trip_id) = trip.map(|trip| trip.trip_id.clone()) {
                self.trips.insert(trip_id, id.clone());
            }
        }
    }

    fn apply_driver(&mut self, id: &DriverId, effect: DriverEffect) {
        match effect {
            DriverEffect::Send(message) => {
                let connected = self.drivers.get(id).is_some_and(|slot| slot.actor.session().is_some());
                assert!(connected, "{id} has no socket to hear {message:?}");
                assert!(!matches!(message, ToSocket::State { .. }) || self.drivers.contains_key(id));
            }
            DriverEffect::Request { request_id, event } | DriverEffect::Asked { request_id, event, .. } => {
                self.mail_to_request(id, request_id, event);
            }
            DriverEffect::TripMoved { trip_id, what } => {
                let driver_id = id.clone();
                let request_id = self.trips.get(&trip_id).cloned();
                let event = RequestEvent::TripMoved {
                    driver_id,
                    trip_id,
                    what,
                };
                if let Some(request_id) = request_id {
                    self.mail_to_request(id, request_id, event);
                }
            }
            DriverEffect::Arm { at_ms } => {
                if let Some(slot) = self.drivers.get_mut(id) {
                    slot.armed = at_ms;
                }
            }
            DriverEffect::OffShift { off, at_ms } => {
                self.off_shift.remove(id);
                if off {
                    self.off_shift.insert(id.clone(), at_ms);
                }
            }
            DriverEffect::Gone => {
                let gone = self.drivers.remove(id).expect("a driver goes once");
                assert!(gone.actor.is_unknown(), "{id} goes with something left to know");
            }
            // Of one node, whose requests hear what was taken back.
            DriverEffect::Close { .. } | DriverEffect::Seen { .. } | DriverEffect::TakenBack { .. } => {}
        }
    }

    fn mail_to_request(&mut self, from: &DriverId, to: RequestId, letter: RequestEvent) {
        self.posted += 1;
        let number = self.posted;
        self.to_requests
            .entry((from.clone(), to))
            .or_default()
            .push_back(Mail { number, letter });
    }

    /// As the shard answers for a request that neither it nor the store knows.
    fn unknown(&mut self, id: &RequestId, event: RequestEvent) {
        let (driver_id, message) = match event {
            RequestEvent::Answered {
                asker: Asker::Api(reply),
                ..
            }
            | RequestEvent::Cancelled { reply, .. } => {
                return self.seen.push(Seen::Unknown(id.clone(), reply));
            }
            RequestEvent::Answered { driver_id, .. } | RequestEvent::Acked { driver_id, .. } => {
                (driver_id, ToDriver::NoSuchOffer)
            }
            RequestEvent::Reserved { driver_id, .. } => (driver_id, ToDriver::Release),
            _ => return,
        };
        self.posted += 1;
        let (number, letter) = (self.posted, message);
        self.to_drivers
            .entry((id.clone(), driver_id))
            .or_default()
            .push_back(Mail { number, letter });
    }
}

fn take<A: Ord, B: Ord, T>(channels: &mut Channels<A, B, T>, key: &(A, B)) -> Option<T> {
    let mail = channels.get_mut(key)?.pop_front();
    if channels.get(key).is_some_and(VecDeque::is_empty) {
        channels.remove(key);
    }
    mail.map(|mail| mail.letter)
}

/// The log that the store would have of an ended request.
fn log_of(request: &Request) -> RequestLog {
    RequestLog {
        request_id: request.id().clone(),
        log: request.log().to_vec(),
    }
}

/// An answer without the caller.
pub fn reply_of(effect: &RequestEffect) -> Option<(ReplyTo, &ApiAnswer)> {
    match effect {
        RequestEffect::Reply { reply, answer } => Some((*reply, answer)),
        _ => None,
    }
}
