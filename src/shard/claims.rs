//! Requests that nodes own: what is decided goes to the fleet's store first, and to the journal once it stands there.
//!
//! Receipts, for which nobody waits, go to the journal at once and to the fleet's store with the request's next decision. So an
//! entry knows two lengths beside the log's own: the steps that the fleet's store has, and those that the journal has
//! or is getting. Others are shown the latter. Without a fleet none of this exists, and a request's decision costs one look at
//! an `Option`.
#![forbid(unsafe_code)]

mod lost;
mod views;

use super::commit::After;
use super::handover::Hand;
use super::{Letter, Platform, Shard};
use crate::cold::claims::{Adopted, CLAIMS_WAITING_MAX, Decision, FromClaims, Head};
use crate::cold::{ClaimsHandle, EndedRequest, FarRequest};
use crate::fsm::fold::Fold;
use crate::fsm::ids::{DriverId, TripId};
use crate::fsm::request::{Durability, Request, RequestEffect, RequestEvent, ToDriver};
use crate::fsm::types::{LogEntry, OfferRequest, Record, RequestLog, Step};
use crate::journal::Lsn;
use crate::wire::respond::Problem;
use std::collections::{HashMap, VecDeque};

/// What a shard has of it.
pub(super) struct Claims {
    pub(super) handle: ClaimsHandle,
    /// What began requests whose claim is not decided yet.
    offers: HashMap<u32, Box<OfferRequest>>,
    /// Requests of the last boot that nothing is done with before it is known whose they are.
    pub(super) dormant: Vec<u32>,
    heard: Vec<FromClaims>,
    /// Decisions that wait for what their request brought to be durable: until when callers wait for them, of which request, and for
    /// which record.
    held: VecDeque<(u64, u32, Lsn)>,
    /// What was heard too early: the request is still here as one that another node had.
    early: Vec<FromClaims>,
}

impl Claims {
    pub(super) fn new(handle: ClaimsHandle) -> Self {
        Self {
            handle,
            offers: HashMap::new(),
            dormant: Vec::new(),
            heard: Vec::new(),
            held: VecDeque::new(),
            early: Vec::new(),
        }
    }

    /// Keeps what began a request, until its claim is decided.
    pub(super) fn keep_offer(&mut self, key: u32, offer: Box<OfferRequest>) {
        self.offers.insert(key, offer);
    }
}

impl<P: Platform> Shard<P> {
    /// Stores `log[from..to]` of a request: with the fleet first, when somebody waits and there is one.
    pub(super) fn persist(&mut self, key: u32, from: usize, to: usize, wait: bool) {
        if wait && self.claims.is_some() {
            self.decide_in_fleet(key, from, to);
        } else {
            self.journal_steps(key, from, to, wait);
        }
    }

    /// Appends steps to the journal.
    pub(super) fn journal_steps(&mut self, key: u32, from: usize, to: usize, wait: bool) -> Lsn {
        let request = &self.requests.slab[key as usize].request;
        let record = Record::Steps {
            request_id: request.id().clone(),
            first_seq: from as u32 + 1,
            entries: request.log()[from..to].to_vec(),
        };
        if let Some(trip) = &request.fold().trip
            && request.log()[from..to]
                .iter()
                .any(|entry| matches!(entry.step, Step::TripCreated { .. }))
        {
            self.requests.trips.insert(trip.trip_id.clone(), key);
        }
        let lsn = self.append(&record, After::Steps { key, from, to, wait });
        let entry = &mut self.requests.slab[key as usize];
        entry.first_lsn = entry.first_lsn.min(lsn);
        entry.journaled = to;
        lsn
    }

    /// Appends what a request that came to this node brought of decisions that nobody may have published; see `Entry::news_lsn`.
    fn journal_news(&mut self, key: u32, from: usize, to: usize) {
        let lsn = self.journal_steps(key, from, to, false);
        self.requests.slab[key as usize].news_lsn = lsn;
        self.durable.hurry(lsn);
    }

    /// A record of a request is durable: when it is what the request brought, a decision that waits for that is made.
    pub(super) fn news_stand(&mut self, key: u32, lsn: Lsn) {
        let entry = &mut self.requests.slab[key as usize];
        if entry.news_lsn != lsn {
            return;
        }
        entry.news_lsn = 0;
        let to = entry.request.log().len();
        if let Some(from) = entry.held_from.take() {
            self.decide_in_fleet(key, from, to);
        }
    }

    /// Whether decisions are stored at the pace at which new requests come.
    pub(super) fn claims_keep_up(&self) -> bool {
        let waiting = self.claims.as_ref().map_or(0, |claims| claims.handle.waiting());
        waiting < CLAIMS_WAITING_MAX
    }

    /// Whether every decision is known to stand.
    pub(super) fn claims_are_settled(&self) -> bool {
        self.claims.as_ref().is_none_or(|claims| claims.handle.waiting() == 0)
    }

    /// Hands a decision to the fleet's store: all of the log that it does not have, up to `to`. `from`: where the decision begins.
    pub(super) fn decide_in_fleet(&mut self, key: u32, from: usize, to: usize) {
        let entry = &mut self.requests.slab[key as usize];
        debug_assert!(entry.journaled == from && to == entry.request.log().len());
        if entry.news_lsn > 0 {
            debug_assert!(entry.held_from.is_none(), "one decision at a time");
            entry.held_from = Some(from);
            let news_lsn = entry.news_lsn;
            let until_ms = self.now_ms + self.config.fleet_cassandra_timeout_ms;
            if let Some(claims) = &mut self.claims {
                claims.held.push_back((until_ms, key, news_lsn));
            }
            return self.wake_at(until_ms);
        }
        let entry = &self.requests.slab[key as usize];
        let request = &entry.request;
        let decided = &request.log()[from..];
        let decision = Decision {
            token: key.into(),
            request_id: request.id().clone(),
            epoch: entry.epoch,
            stored: entry.stored,
            steps: request.log()[entry.stored as usize..].to_vec(),
            head: Head::of(request.fold(), request.log()),
            received_at_ms: request.fold().received_at_ms,
            bind: decided.iter().find_map(bound),
            release: released(decided, request.fold()),
        };
        if let Some(claims) = &self.claims {
            claims.handle.decide(Box::new(decision));
        }
    }

    /// Hears what the fleet's store says.
    pub(super) fn hear_claims(&mut self) {
        let Some(claims) = &mut self.claims else { return };
        let mut heard = std::mem::take(&mut claims.heard);
        heard.append(&mut claims.early);
        claims.handle.poll(&mut heard);
        for message in heard.drain(..) {
            self.claims_said(message);
        }
        self.give_up_held();
        if let Some(claims) = &mut self.claims {
            claims.heard = heard;
            if !claims.early.is_empty() {
                // Nobody says it again.
                self.wake_at(self.now_ms);
            }
        }
    }

    fn claims_said(&mut self, message: FromClaims) {
        match message {
            FromClaims::Stored(token) if self.requests.slab[token as usize].hand == Hand::Storing => {
                self.receipts_stand(token as u32);
            }
            FromClaims::Stored(token) => self.decision_stands(token as u32),
            FromClaims::Fenced(token, loss) => self.fenced(token as u32, &loss),
            FromClaims::DriverBound(token) => {
                let key = token as u32;
                let mut effects = std::mem::take(&mut self.request_effects);
                let request = &mut self.requests.slab[key as usize].request;
                request.durable(Durability::DriverBound, self.now_ms, &mut effects);
                self.apply_request(key, effects, self.now_us);
            }
            FromClaims::Delayed(token) => self.delayed(token as u32),
            FromClaims::Withdrawn(token) => self.claim_withdrawn(token as u32),
            FromClaims::Lost(token, far) => self.claim_lost(token as u32, *far),
            FromClaims::Adopted(adopted) => self.adopted_in_fleet(adopted),
            FromClaims::CheckDelayed(request_id) => self.check_delayed(&request_id),
            FromClaims::Mine(request_id) => self.is_mine(&request_id),
            FromClaims::NotMine(told) => self.not_mine(&told),
            FromClaims::HandOver(handed, is_taken) => self.handed(handed, is_taken),
            FromClaims::OwnDone => self.reclaim_dormant(),
        }
    }

    /// What was decided takes long.
    fn delayed(&mut self, key: u32) {
        let mut effects = std::mem::take(&mut self.request_effects);
        self.requests.slab[key as usize].request.delayed(&mut effects);
        self.apply_request(key, effects, self.now_us);
    }

    /// Decisions that wait for a journal that stands still take as long as those for which the store does not answer.
    fn give_up_held(&mut self) {
        let now_ms = self.now_ms;
        while let Some(claims) = &mut self.claims
            && let Some(&(until_ms, key, news_lsn)) = claims.held.front()
            && until_ms <= now_ms
        {
            claims.held.pop_front();
            let entry = self.requests.slab.get(key as usize);
            // Else it stands, or is another request's place by now.
            if entry.is_some_and(|entry| entry.held_from.is_some() && entry.news_lsn == news_lsn) {
                self.delayed(key);
            }
        }
    }

    /// What was decided stands: it goes to the journal, and is announced when that has it.
    fn decision_stands(&mut self, key: u32) {
        if let Some(claims) = &mut self.claims {
            claims.offers.remove(&key);
        }
        let entry = &mut self.requests.slab[key as usize];
        let (from, to) = (entry.journaled, entry.request.persisted_log().len());
        entry.stored = to as u32;
        self.journal_steps(key, from, to, true);
    }

    /// A request has come to this node, from one that died or from its own last boot.
    fn adopted_in_fleet(&mut self, adopted: Box<Adopted>) {
        let key = match self.requests.find(&adopted.log.request_id) {
            None => self.take_in_adopted(&adopted),
            Some(key) if self.requests.slab[key as usize].is_dormant => self.awaken(key, &adopted),
            // Said twice: what was decided since is newer.
            Some(key) if self.requests.slab[key as usize].epoch >= adopted.epoch => return,
            Some(key) => {
                // It was given up a moment ago and has not left yet, or has been another's without this node's knowing.
                if let Some(claims) = &mut self.claims {
                    claims.early.push(FromClaims::Adopted(adopted));
                }
                return self.give_up_stale(key);
            }
        };
        let Some(key) = key else { return };
        self.requests.slab[key as usize].is_dormant = false;
        self.tell_old_owner(&adopted);
        let letters = self.requests.unpark(&adopted.log.request_id);
        // Also of what came ended: its owner may have died before anybody heard.
        self.tell_drivers(key, adopted.last_from);
        if !self.requests.slab[key as usize].request.is_closed() {
            self.resume(key);
        }
        for letter in letters {
            self.request_letter(adopted.log.request_id.clone(), letter);
        }
    }

    /// Puts a request that this node did not have into its table and journal. What its owner decided last is published again, since
    /// that one may not have come to it.
    fn take_in_adopted(&mut self, adopted: &Adopted) -> Option<u32> {
        let request = self.restored(&adopted.log)?;
        let key = self.adopt(request);
        self.note_adopted(key, adopted);
        self.journal_adopted(key, adopted.last_from.min(adopted.log.log.len()));
        Some(key)
    }

    /// Goes on with a request of the last boot, of which the journal may lack what was decided last, or have receipts that nobody
    /// else has.
    fn awaken(&mut self, key: u32, adopted: &Adopted) -> Option<u32> {
        self.note_adopted(key, adopted);
        let own = self.requests.slab[key as usize].request.persisted_log();
        let stored = &adopted.log.log;
        if own.starts_with(stored) {
            self.journal_shared(key);
            return Some(key);
        }
        let (goes_on, from) = (stored.starts_with(own), own.len());
        let request = self.restored(&adopted.log)?;
        let trip_id = request.fold().trip.as_ref().map(|trip| trip.trip_id.clone());
        if request.is_closed() {
            self.metrics().requests_open.dec();
        }
        self.requests.slab[key as usize].request = request;
        if let Some(trip_id) = trip_id {
            self.requests.trips.insert(trip_id, key);
        }
        if goes_on {
            let to = stored.len();
            self.journal_shared(key);
            self.journal_news(key, from, to);
        } else {
            let request_id = adopted.log.request_id.clone();
            self.append(&Record::GivenUp { request_id }, After::Nothing);
            self.journal_adopted(key, adopted.last_from.min(stored.len()));
        }
        Some(key)
    }

    /// Notes how a request has come.
    fn note_adopted(&mut self, key: u32, adopted: &Adopted) {
        let entry = &mut self.requests.slab[key as usize];
        entry.stored = adopted.log.log.len() as u32;
        entry.epoch = adopted.epoch;
        entry.is_foreign = adopted.is_foreign;
    }

    /// Notes in the journal if this node's log of a request is not the whole.
    fn journal_shared(&mut self, key: u32) {
        let entry = &self.requests.slab[key as usize];
        if entry.is_whole() {
            return;
        }
        let request_id = entry.request.id().clone();
        let lsn = self.append(&Record::Shared { request_id }, After::Nothing);
        let entry = &mut self.requests.slab[key as usize];
        entry.first_lsn = entry.first_lsn.min(lsn);
    }

    /// Writes a request into the journal: its first `from` steps as known, the others as news.
    fn journal_adopted(&mut self, key: u32, from: usize) {
        let entry = &mut self.requests.slab[key as usize];
        entry.journaled = from;
        let to = entry.request.log().len();
        if from > 0 {
            self.image(key);
        } else {
            self.journal_shared(key);
        }
        if from < to {
            self.journal_news(key, from, to);
        }
    }

    pub(in crate::shard) fn restored(&self, log: &RequestLog) -> Option<Request> {
        match Request::restored(log.clone()) {
            Ok(request) => Some(request),
            Err(error) => {
                tracing::error!(shard = self.index, request = %log.request_id, %error, "a request that was taken over does not fold");
                None
            }
        }
    }

    /// Tells the drivers of an adopted request what they have of it: its open offers with the time they have left, its trip. One
    /// who connects later is told by its actor. And whose attempt the last decision ended hears that.
    fn tell_drivers(&mut self, key: u32, last_from: usize) {
        let mut effects = Vec::new();
        let request = &self.requests.slab[key as usize].request;
        let request_id = request.id().clone();
        request.tell_ends(last_from, &mut effects);
        request.rebind(&mut effects);
        for effect in effects {
            let RequestEffect::Driver { driver_id, message } = effect else {
                continue;
            };
            if !is_over(&message, self.now_ms) {
                self.post_to_driver(driver_id, request_id.clone(), message, None);
            }
        }
    }

    /// What the last boot had and nobody has given back is asked for one by one.
    fn reclaim_dormant(&mut self) {
        let Some(claims) = &mut self.claims else { return };
        for key in std::mem::take(&mut claims.dormant) {
            let Some(entry) = self.requests.slab.get(key as usize).filter(|entry| entry.is_dormant) else {
                continue;
            };
            claims.handle.reclaim(RequestLog {
                request_id: entry.request.id().clone(),
                log: entry.request.persisted_log().to_vec(),
            });
        }
    }

    /// This node was perhaps cut off for a while: are its requests still its own?
    pub(super) fn check_ownership(&self) {
        let Some(claims) = &self.claims else { return };
        for (_, entry) in self.requests.slab.iter() {
            let request = &entry.request;
            let rests = entry.is_dormant || entry.hand.rests();
            if entry.stored > 0 && !rests && !request.is_deciding() && !request.is_closed() {
                claims.handle.check(request.id().clone());
            }
        }
    }

    /// Answers letters for a request that is not here, from what all nodes' store has of it.
    pub(super) fn answer_far(&mut self, far: FarRequest, letters: VecDeque<Letter>) {
        let FarRequest {
            log,
            nodes,
            owner,
            trip_id,
            ended_at_ms,
        } = far;
        let Some(request) = self.restored(&log) else {
            return letters
                .into_iter()
                .for_each(|letter| self.refuse_letter(&letter, &Problem::not_durable()));
        };
        if let Some(ended_at_ms) = ended_at_ms.filter(|_| request.is_closed()) {
            let ended = EndedRequest {
                log,
                trip_id,
                ended_at_ms,
            };
            return self.answer_from_store(ended, letters, &nodes);
        }
        for letter in letters {
            // What drivers say is kept for it, if it cannot be reached now.
            let peer = if letter.is_of_driver() && !self.is_from_link() {
                self.peer_of(&owner)
            } else {
                self.reachable(&owner)
            };
            if self.answer_as_it_ended(&request, &letter, peer) {
                continue;
            }
            if let Some(peer) = peer {
                // It knows more than what was decided last.
                self.pass_to_owner(peer, letter);
            } else if let Letter::View { audit, reply, .. } = letter {
                let answer = super::answers::view(&request, log.log.len(), audit, &nodes);
                self.answer(reply, answer);
            } else if !self.answer_as_it_stands(&request, &letter) {
                self.elsewhere(&owner, &letter);
            }
        }
    }

    /// Answers what changes nothing, as the request stood when it was decided last; says whether it did.
    fn answer_as_it_stands(&mut self, request: &Request, letter: &Letter) -> bool {
        let event = match letter {
            Letter::Offer { offer, reply, .. } => RequestEvent::Reposted {
                offer: offer.clone(),
                reply: *reply,
            },
            Letter::Request { event, .. } => event.clone(),
            _ => return false,
        };
        let at_ms = request.log().last().map_or(0, |last| last.at_ms);
        let mut effects = Vec::new();
        let mut copy = request.clone();
        copy.step(event, at_ms, &mut effects);
        let (mut replies, mut others) = (Vec::new(), 0);
        for effect in effects {
            match effect {
                RequestEffect::Reply { reply, answer } => replies.push((reply, answer)),
                RequestEffect::Arm { .. } => {}
                RequestEffect::Persist { .. }
                | RequestEffect::Driver { .. }
                | RequestEffect::PassOn(_)
                | RequestEffect::Closed => others += 1,
            }
        }
        if others > 0 || replies.is_empty() {
            return false;
        }
        for (reply, answer) in replies {
            self.answer_call(request.id(), reply, answer);
        }
        true
    }

    /// A letter that only the request's owner can deal with, which is the node of this name.
    fn elsewhere(&mut self, owner: &str, letter: &Letter) {
        let why = format!("the request is at node {owner}: ask there, or again in a moment");
        self.refuse_letter(letter, &Problem::new(503, "not_durable", why));
    }
}

/// Whether a message offers what time has ended: it is shown to nobody, its request times it out.
pub(crate) fn is_over(message: &ToDriver, now_ms: u64) -> bool {
    matches!(message, ToDriver::Offer { expires_at_ms, .. } if *expires_at_ms <= now_ms)
}

/// The driver whom a step gives a trip.
fn bound(entry: &LogEntry) -> Option<(DriverId, TripId)> {
    match &entry.step {
        Step::TripCreated { trip_id, driver_id } => Some((driver_id.clone(), trip_id.clone())),
        _ => None,
    }
}

/// The driver whose trip these steps end.
fn released(decided: &[LogEntry], fold: &Fold) -> Option<DriverId> {
    let ends = |entry: &LogEntry| matches!(entry.step, Step::TripEnded { .. });
    let trip = fold.trip.as_ref().filter(|_| decided.iter().any(ends))?;
    Some(trip.driver_id.clone())
}
