//! Requests that are not this node's after all: a claim came too late or was not sent, a decision was refused, another node has taken
//! over. Whoever waits is answered, the new owner hears what was said, and the journal notes that the request is gone.

use crate::cold::FarRequest;
use crate::cold::claims::{Loss, NotMine};
use crate::fsm::ids::RequestId;
use crate::fsm::request::{Durability, Fence, ReplyTo, RequestEvent};
use crate::fsm::types::{LogEntry, OfferRequest, Record};
use crate::limits;
use crate::shard::commit::After;
use crate::shard::handover::Hand;
use crate::shard::{Letter, Platform, Shard, home_of_driver};
use crate::wire::respond::Problem;
use std::collections::VecDeque;

/// How long a node is sure of a request that was its own when it looked: strays among drivers' words do not make it look at once again.
const SURE_MS: u64 = 1_000;

/// See [`Shard::disown`].
type Disowned = (
    RequestId,
    Option<Box<OfferRequest>>,
    Vec<ReplyTo>,
    VecDeque<RequestEvent>,
);

impl<P: Platform> Shard<P> {
    /// A new request came to nothing before it was sent: whoever waits for it hears so, and may ask again.
    pub(super) fn claim_withdrawn(&mut self, key: u32) {
        let (request_id, _, replies, events) = self.disown(key);
        let problem = Problem::new(
            503,
            "not_durable",
            "more is being stored than Cassandra takes: ask again",
        )
        .with_header("retry-after", limits::RETRY_AFTER_S.to_string());
        for reply in replies {
            self.answer(reply, problem.clone().into_reply());
        }
        for event in events {
            let (request_id, at_us) = (request_id.clone(), self.now_us);
            match event {
                RequestEvent::Reposted { reply, .. } => self.answer(reply, problem.clone().into_reply()),
                // Perhaps of the same request at another node, to which it was posted too.
                event => {
                    let id = request_id.clone();
                    let letter = Letter::Request {
                        request_id,
                        event,
                        at_us,
                    };
                    self.request_letter(id, letter);
                }
            }
        }
    }

    /// A new request is none: it leaves memory. Gives back what began it, who posted it, and what has come for it.
    fn disown(&mut self, key: u32) -> Disowned {
        let offer = self.claims.as_mut().and_then(|claims| claims.offers.remove(&key));
        let mut effects = std::mem::take(&mut self.request_effects);
        let entry = &mut self.requests.slab[key as usize];
        let request_id = entry.request.id().clone();
        let (replies, events) = entry.request.disown(&mut effects);
        self.apply_request(key, effects, self.now_us);
        self.forget_request(key);
        (request_id, offer, replies, events)
    }

    /// A new request was there already: whoever posted it, and what has come for it, is answered from what is there.
    pub(super) fn claim_lost(&mut self, key: u32, far: FarRequest) {
        let (request_id, offer, replies, events) = self.disown(key);
        let at_us = self.now_us;
        let mut letters = VecDeque::new();
        if let Some(offer) = offer {
            let again = |reply| Letter::Offer {
                offer: offer.clone(),
                reply,
                at_us,
            };
            letters.extend(replies.into_iter().map(again));
        }
        let waited = |event| Letter::of_event(&request_id, event, at_us);
        letters.extend(events.into_iter().map(waited));
        self.answer_far(far, letters);
    }

    /// A decision was refused: another node has its request.
    pub(super) fn fenced(&mut self, key: u32, loss: &Loss) {
        if !loss.stood {
            // Else they are with what was stored.
            self.keep_receipts(key);
        }
        if self.requests.slab[key as usize].offered_to.is_some() {
            return self.handed_over(key, self.peer_of(&loss.owner));
        }
        let fence = Fence {
            stood: loss.stood,
            has_heir: self.learn_heir(key, &loss.owner),
        };
        let mut effects = std::mem::take(&mut self.request_effects);
        let entry = &mut self.requests.slab[key as usize];
        match std::mem::take(&mut entry.hand) {
            // Receipts were being stored, and nothing decided.
            Hand::Storing => entry.request.fence(fence, &mut effects),
            Hand::Stays | Hand::Asked(_) => {
                let fenced = Durability::Fenced(fence);
                entry.request.durable(fenced, self.now_ms, &mut effects);
            }
        }
        self.apply_request(key, effects, self.now_us);
        self.settle_contest(key);
        self.give_up_request(key);
    }

    /// Another node speaks as the owner of a request that is this node's, as it believes: one of the two is mistaken, and all nodes' store
    /// says which. What drivers say meanwhile waits.
    pub(in crate::shard) fn contest(&mut self, request_id: &RequestId) {
        let (Some(key), Some(claims)) = (self.requests.find(request_id), &self.claims) else {
            return;
        };
        let entry = &mut self.requests.slab[key as usize];
        let is_own = entry.stored > 0 && !entry.is_dormant && !entry.hand.rests() && !entry.request.is_closed();
        // What is being decided gets its own answer.
        if is_own && !entry.is_contested && !entry.request.is_deciding() {
            (entry.is_contested, entry.is_unsure) = (true, false);
            claims.handle.check(request_id.clone());
        }
    }

    /// Somebody speaks of an attempt that this node has not made, or for a driver to whom it has offered nothing: it is a mistake, or
    /// another node has the request and has made it, of which all nodes' store knows.
    pub(in crate::shard) fn doubt_owner(&mut self, key: u32, letter: &Letter) {
        if self.claims.is_none() {
            return;
        }
        let entry = &self.requests.slab[key as usize];
        let fold = entry.request.fold();
        let is_unknown = match letter {
            Letter::Request {
                event:
                    RequestEvent::Answered {
                        driver_id,
                        attempt: None,
                        ..
                    },
                ..
            } => fold.attempt_of(driver_id).is_none(),
            _ => (letter.attempt()).is_some_and(|attempt| attempt > fold.attempts.len() as u32),
        };
        if is_unknown && entry.sure_until_ms <= self.now_ms {
            let request_id = entry.request.id().clone();
            self.contest(&request_id);
        }
    }

    /// Keeps a letter for a request until it is known whose that is, or refuses it; gives it back if that is known.
    pub(in crate::shard) fn hold_until_owned(&mut self, key: u32, letter: Letter) -> Option<Letter> {
        let entry = &self.requests.slab[key as usize];
        if !entry.is_contested && !entry.hand.rests() && !entry.is_dormant {
            return Some(letter);
        }
        let request_id = entry.request.id().clone();
        let waits = entry.is_contested && letter.is_about_driver();
        if waits && entry.is_unsure && letter.is_of_caller() {
            self.refuse_letter(&letter, &Problem::not_durable());
            return None;
        }
        // Whoever has the request in a moment answers; or it is about to be known who that is.
        if entry.hand.rests() || waits {
            self.requests.park(request_id, letter);
            return None;
        }
        if !entry.is_dormant {
            return Some(letter);
        }
        if self.routing.is_some() && letter.is_of_driver() {
            // Links were faster: it waits until it is known whose the request is.
            self.requests.park(request_id, letter);
        } else {
            let why = "the request is being taken over from the last boot of its node";
            self.refuse_letter(&letter, &Problem::new(503, "not_durable", why));
        }
        None
    }

    /// The store does not say whose a request is, for long: callers do not wait for that. What drivers say does.
    pub(super) fn check_delayed(&mut self, request_id: &RequestId) {
        let key = self.requests.find(request_id);
        let Some(key) = key.filter(|key| self.requests.slab[*key as usize].is_contested) else {
            return;
        };
        self.requests.slab[key as usize].is_unsure = true;
        for letter in self.requests.unpark(request_id) {
            if letter.is_of_caller() {
                self.refuse_letter(&letter, &Problem::not_durable());
            } else {
                self.requests.park(request_id.clone(), letter);
            }
        }
    }

    /// The store says that a request is this node's.
    pub(super) fn is_mine(&mut self, request_id: &RequestId) {
        if let Some(key) = self.requests.find(request_id) {
            self.requests.slab[key as usize].sure_until_ms = self.now_ms + SURE_MS;
            self.settle_contest(key);
        }
    }

    /// Whose a request is is known: what drivers said meanwhile goes there.
    fn settle_contest(&mut self, key: u32) {
        let entry = &mut self.requests.slab[key as usize];
        if std::mem::take(&mut entry.is_contested) {
            let request_id = entry.request.id().clone();
            for letter in self.requests.unpark(&request_id) {
                self.request_letter(request_id.clone(), letter);
            }
        }
    }

    /// Another node has a request that this one had, as it turns out while nothing is being decided.
    pub(super) fn not_mine(&mut self, told: &NotMine) {
        let (request_id, owner) = (&told.request_id, told.owner.as_str());
        let Some(key) = self.requests.find(request_id) else {
            return;
        };
        if self.is_stale(key, told) {
            return;
        }
        let entry = &mut self.requests.slab[key as usize];
        // What is being decided or handed over gets its own answer; what is over goes by itself.
        if entry.request.is_deciding() || entry.request.is_closed() || entry.hand.rests() {
            return;
        }
        if entry.offered_to.is_some() {
            self.keep_receipts(key);
            return self.handed_over(key, self.peer_of(owner));
        }
        let was_dormant = std::mem::take(&mut entry.is_dormant);
        entry.is_contested = false;
        let letters = self.requests.unpark(request_id);
        if was_dormant {
            tracing::debug!(shard = self.index, request = %request_id, "another node has taken over this request");
        } else {
            self.keep_receipts(key);
        }
        let fence = Fence {
            stood: false,
            has_heir: self.learn_heir(key, owner),
        };
        let mut effects = std::mem::take(&mut self.request_effects);
        self.requests.slab[key as usize].request.fence(fence, &mut effects);
        self.apply_request(key, effects, self.now_us);
        // What drivers said meanwhile.
        for letter in letters {
            self.request_letter(request_id.clone(), letter);
        }
        self.give_up_request(key);
    }

    /// Whether what was read of a request is older than what this node has: it has taken it over since, and goes on with it.
    fn is_stale(&mut self, key: u32, told: &NotMine) -> bool {
        let entry = &self.requests.slab[key as usize];
        if entry.is_dormant || told.epoch.is_none_or(|epoch| epoch >= entry.epoch) {
            return false;
        }
        if let (true, Some(claims)) = (told.is_reclaimed, &self.claims) {
            // Who took it over holds it on the list.
            claims
                .handle
                .over(told.request_id.clone(), entry.request.fold().received_at_ms);
        }
        self.settle_contest(key);
        true
    }

    /// A request has come to this node, which still has it as it was before others had it: that one is nobody's. What was noted of it is
    /// kept, and what comes for it meanwhile waits.
    pub(super) fn give_up_stale(&mut self, key: u32) {
        let entry = &mut self.requests.slab[key as usize];
        // What is being decided, or claimed, is refused in a moment, and what is over goes by itself.
        if entry.stored == 0 || entry.request.is_deciding() || entry.request.is_closed() || entry.hand.rests() {
            return;
        }
        entry.is_contested = false;
        entry.comes_back = true;
        self.keep_receipts(key);
        let fence = Fence {
            stood: false,
            has_heir: true,
        };
        let mut effects = std::mem::take(&mut self.request_effects);
        self.requests.slab[key as usize].request.fence(fence, &mut effects);
        self.apply_request(key, effects, self.now_us);
        self.give_up_request(key);
    }

    /// Notes who has a request from now on; says whether letters reach that node, at once or later.
    fn learn_heir(&mut self, key: u32, owner: &str) -> bool {
        if owner == self.config.node_id {
            // It has come back while this node did not know that it had lost it.
            self.requests.slab[key as usize].comes_back = true;
            return true;
        }
        let Some(peer) = self.peer_of(owner) else { return false };
        let request = &self.requests.slab[key as usize].request;
        let trip_id = request.fold().trip.as_ref().map(|trip| trip.trip_id.clone());
        self.owned(request.id().clone(), trip_id, peer);
        true
    }

    /// Gives something that is meant for a request to its new owner. What came over a link is not: its sender hears from the new owner.
    pub(in crate::shard) fn pass_on_event(&mut self, key: u32, event: RequestEvent) {
        let at_us = self.now_us;
        let request = &self.requests.slab[key as usize].request;
        let request_id = request.id().clone();
        let is_here = match &event {
            RequestEvent::DriverHere { driver_id, .. } => Some(driver_id.clone()),
            _ => None,
        };
        let owner = self.handed_to(&request_id).or_else(|| self.owner_of(&request_id));
        if let (Some(driver_id), Some(peer)) = (is_here, owner) {
            let (home, request_id) = (home_of_driver(&driver_id, self.shards), request_id.clone());
            self.post(
                home,
                Letter::BoundBy {
                    driver_id,
                    request_id,
                    peer,
                },
            );
        }
        let comes_back = self.requests.slab[key as usize].comes_back;
        let request = &self.requests.slab[key as usize].request;
        let letter = match (event, &request.fold().trip) {
            (RequestEvent::Reposted { offer, reply }, _) => Letter::Offer { offer, reply, at_us },
            (RequestEvent::TripCancelled { reason, reply }, Some(trip)) => Letter::TripCancelled {
                trip_id: trip.trip_id.clone(),
                reason,
                reply,
            },
            (
                RequestEvent::TripMoved {
                    driver_id,
                    trip_id,
                    what,
                },
                _,
            ) => Letter::TripMoved {
                trip_id,
                driver_id,
                what,
            },
            (event, _) => Letter::Request {
                request_id: request_id.clone(),
                event,
                at_us,
            },
        };
        match owner {
            _ if comes_back => self.requests.park(request_id, letter),
            Some(peer) => self.pass_to_owner(peer, letter),
            None => self.refuse_letter(&letter, &Problem::not_durable()),
        }
    }

    /// Steps that this node journaled and nobody stored, of a request that another one has: for its audit.
    pub(in crate::shard) fn keep_receipts(&mut self, key: u32) {
        let entry = &self.requests.slab[key as usize];
        let steps: Vec<LogEntry> = entry.request.log()[entry.stored as usize..entry.journaled].to_vec();
        if let (false, Some(claims)) = (steps.is_empty(), &self.claims) {
            let id = entry.request.id().clone();
            claims.handle.keep_receipts(id, entry.epoch, entry.stored + 1, steps);
        }
    }

    /// Journals that a request is another node's; it leaves memory when that is durable.
    pub(in crate::shard) fn give_up_request(&mut self, key: u32) {
        let request = &self.requests.slab[key as usize].request;
        debug_assert!(request.is_closed());
        let (request_id, received_at_ms) = (request.id().clone(), request.fold().received_at_ms);
        if let Some(claims) = &self.claims {
            claims.handle.over(request_id.clone(), received_at_ms);
        }
        self.append(&Record::GivenUp { request_id }, After::Forget { key });
    }
}
