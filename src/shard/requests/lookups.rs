//! Ids that are not in memory: what has come for them waits here while the store is asked, and as long as it cannot be asked.
#![forbid(unsafe_code)]

use super::Requests;
use crate::cold::port::{EndedRequest, Query};
use crate::fsm::ids::{RequestId, TripId};
use crate::fsm::request::RequestEvent;
use crate::limits;
use crate::shard::{Ask, Letter, Platform, Shard};
use crate::wire::respond::Problem;
use std::collections::VecDeque;

/// How long what drivers said is kept while the store cannot be asked.
const LOOK_AGAIN_MAX_MS: u64 = 30_000;
/// Time between two such looks.
const LOOK_AGAIN_MS: u64 = 1_000;

/// What has come for an id that is not in memory.
#[derive(Default)]
pub(super) struct Parked {
    letters: VecDeque<Letter>,
    /// One of them begins a request, when the store does not know the id: it was admitted and has its place.
    has_offer: bool,
    /// So many of the letters had come when the store was asked.
    asked: usize,
    looks: Looks,
}

/// Looks at a store that cannot be asked.
#[derive(Clone, Copy, Default)]
struct Looks {
    /// How long they go on; 0: none has failed yet.
    until_ms: u64,
    /// The next one is later.
    rests: bool,
}

impl Looks {
    /// Whether nothing waits for a further one, when so many rest already.
    fn are_over(self, now_ms: u64, resting: usize) -> bool {
        self.until_ms > 0 && (self.until_ms <= now_ms || resting >= limits::LOOKUPS_AGAIN_MAX)
    }

    /// One more has failed: the next one is at once if that was the first.
    fn failed(self, now_ms: u64) -> Self {
        if self.until_ms > 0 {
            return Self { rests: true, ..self };
        }
        Self {
            until_ms: now_ms + LOOK_AGAIN_MAX_MS,
            rests: false,
        }
    }
}

/// An id that is not in memory.
#[derive(Debug)]
pub(super) enum Unknown {
    Request(RequestId),
    Trip(TripId),
}

impl Requests {
    pub(in crate::shard) fn park(&mut self, id: RequestId, letter: Letter) {
        let parked = self.parked.entry(id).or_insert_with(|| {
            self.lookups += 1;
            Parked::default()
        });
        if letter.is_offer() && !parked.has_offer {
            parked.has_offer = true;
            self.lookups -= 1;
        }
        parked.letters.push_back(letter);
    }

    /// The store is being asked for an id.
    pub(super) fn note_asked(&mut self, id: &RequestId) {
        if let Some(parked) = self.parked.get_mut(id) {
            parked.asked = parked.letters.len();
        }
    }

    /// Everything that came for an id.
    pub(in crate::shard) fn unpark(&mut self, id: &RequestId) -> VecDeque<Letter> {
        let parked = self.parked.remove(id);
        self.lookups -= usize::from(parked.as_ref().is_some_and(|parked| !parked.has_offer));
        parked.unwrap_or_default().letters
    }

    /// Keeps a letter for a trip that is not in memory; whether the store is to be asked for it, or there is no room.
    pub(super) fn park_trip(&mut self, trip_id: &TripId, letter: Letter) -> Result<bool, Letter> {
        if let Some(parked) = self.parked_trips.get_mut(trip_id) {
            parked.letters.push_back(letter);
            return Ok(false);
        }
        if self.parked_trips.len() >= limits::LOOKUPS_MAX {
            return Err(letter);
        }
        let parked = self.parked_trips.entry(trip_id.clone()).or_default();
        parked.letters.push_back(letter);
        Ok(true)
    }

    /// Everything that came for a trip.
    pub(in crate::shard) fn unpark_trip(&mut self, trip_id: &TripId) -> VecDeque<Letter> {
        let parked = self.parked_trips.remove(trip_id);
        parked.map(|parked| parked.letters).unwrap_or_default()
    }

    /// The first letter for an id that nobody knows, if it begins no request. What follows it is looked at anew.
    fn next_unknown(&mut self, id: &RequestId) -> Option<Letter> {
        let letters = &mut self.parked.get_mut(id)?.letters;
        if letters.front()?.is_offer() {
            return None;
        }
        let letter = letters.pop_front();
        if letters.is_empty() {
            self.unpark(id);
        }
        letter
    }

    /// Whether something has come for this id, and if so whether a request that it begins has its place already.
    pub(super) fn has_place(&self, id: &RequestId) -> Option<bool> {
        self.parked.get(id).map(|parked| parked.has_offer)
    }

    /// Requests that wait to be taken in, and ids of which nobody knows yet whether they are new.
    pub(super) fn arrivals(&self) -> usize {
        self.parked.len() - self.lookups
    }
}

/// Look-ups that may be under way when this letter asks for one more.
pub(super) fn lookups_max(letter: &Letter) -> usize {
    match letter {
        Letter::Request {
            event: RequestEvent::Misposted { .. },
            ..
        } => limits::MISPOST_LOOKUPS_MAX,
        _ => limits::LOOKUPS_MAX,
    }
}

impl<P: Platform> Shard<P> {
    /// The store's answer about an id that is not in memory.
    pub(in crate::shard) fn request_looked_up(&mut self, request_id: &RequestId, ended: Option<Box<EndedRequest>>) {
        if let Some(ended) = ended {
            let letters = self.requests.unpark(request_id);
            return self.answer_stored(*ended, letters);
        }
        if self.claims.is_none() || !self.look_up_for_late(request_id) {
            self.settle_unknown(request_id);
        }
    }

    /// What came after the store was asked may speak of what another node has begun meanwhile: the store is asked for that once more.
    fn look_up_for_late(&mut self, request_id: &RequestId) -> bool {
        let asked = self.requests.parked.get(request_id).map_or(0, |parked| parked.asked);
        for _ in 0..asked {
            match self.requests.next_unknown(request_id) {
                Some(letter) => self.unknown(letter),
                None => return false,
            }
        }
        let late = self.requests.parked.get(request_id);
        let is_late = late.is_some_and(|parked| parked.letters.front().is_some_and(|letter| !letter.is_offer()));
        if is_late {
            self.look_up_request(request_id.clone());
        }
        is_late
    }

    /// Asks the store for an id for which something waits.
    pub(super) fn look_up_request(&mut self, request_id: RequestId) {
        self.requests.note_asked(&request_id);
        self.ask(Query::Request(request_id.clone()), Ask::Request(request_id));
    }

    /// The store could not be asked: nothing is known, so nothing is taken in. What drivers said is tried again for a while, since they
    /// get no answer that says so: at once, then every second.
    pub(in crate::shard) fn request_lookup_failed(&mut self, request_id: &RequestId, problem: &Problem) {
        let looks = self.requests.parked.get(request_id).map(|parked| parked.looks);
        let looks = looks.unwrap_or_default();
        let is_over = looks.are_over(self.now_ms, self.requests.again.len());
        for letter in self.requests.unpark(request_id) {
            if is_over || !letter.is_of_driver() {
                self.refuse_letter(&letter, problem);
            } else {
                self.requests.park(request_id.clone(), letter);
            }
        }
        let looks = looks.failed(self.now_ms);
        if let Some(parked) = self.requests.parked.get_mut(request_id) {
            parked.looks = looks;
            self.look_up_once_more(looks, Unknown::Request(request_id.clone()));
        }
    }

    /// The same of a trip.
    fn trip_lookup_failed(&mut self, trip_id: &TripId, problem: &Problem) {
        let Some(mut parked) = self.requests.parked_trips.remove(trip_id) else {
            return;
        };
        let is_over = parked.looks.are_over(self.now_ms, self.requests.again.len());
        for letter in std::mem::take(&mut parked.letters) {
            if is_over || !letter.is_of_driver() {
                self.refuse_letter(&letter, problem);
            } else {
                parked.letters.push_back(letter);
            }
        }
        if !parked.letters.is_empty() {
            parked.looks = parked.looks.failed(self.now_ms);
            let looks = parked.looks;
            self.requests.parked_trips.insert(trip_id.clone(), parked);
            self.look_up_once_more(looks, Unknown::Trip(trip_id.clone()));
        }
    }

    /// Asks the store once more, at once or when it has rested.
    fn look_up_once_more(&mut self, looks: Looks, unknown: Unknown) {
        if looks.rests {
            let at_ms = self.now_ms + LOOK_AGAIN_MS;
            self.requests.again.push_back((at_ms, unknown));
            return self.wake_at(at_ms);
        }
        match unknown {
            Unknown::Request(id) => self.look_up_request(id),
            Unknown::Trip(id) => self.ask(Query::Trip(id.clone()), Ask::Trip(id)),
        }
    }

    /// Asks the store again that could not be asked.
    pub(in crate::shard) fn look_up_again(&mut self) {
        let now_ms = self.now_ms;
        let is_due = |again: &VecDeque<(u64, Unknown)>| again.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms);
        while is_due(&self.requests.again)
            && let Some((_, unknown)) = self.requests.again.pop_front()
        {
            let parked = match &unknown {
                Unknown::Request(id) => self.requests.parked.get_mut(id),
                Unknown::Trip(id) => self.requests.parked_trips.get_mut(id),
            };
            // Perhaps it is here by now, or has come anew.
            if let Some(looks) = parked.map(|parked| &mut parked.looks)
                && std::mem::take(&mut looks.rests)
            {
                let looks = *looks;
                self.look_up_once_more(looks, unknown);
            }
        }
    }

    /// Answers letters for an id that nobody knows, up to the first one that begins a request; that one queues.
    pub(super) fn settle_unknown(&mut self, request_id: &RequestId) {
        while let Some(letter) = self.requests.next_unknown(request_id) {
            self.unknown(letter);
        }
        let parked = self.requests.parked.get(request_id);
        let Some(Letter::Offer { offer, .. }) = parked.and_then(|parked| parked.letters.front()) else {
            return;
        };
        let class = offer.priority;
        self.requests.ingress.push(class, self.now_ms, request_id.clone());
        self.metrics().ingress_queue.of(class).inc();
    }

    /// The store's answer about a trip that is not in memory; `Err`: it could not be asked.
    pub(in crate::shard) fn trip_looked_up(
        &mut self,
        trip_id: &TripId,
        ended: Result<Option<Box<EndedRequest>>, Problem>,
    ) {
        let ended = match ended {
            Ok(ended) => ended,
            Err(problem) => return self.trip_lookup_failed(trip_id, &problem),
        };
        let letters = self.requests.unpark_trip(trip_id);
        match ended {
            Some(ended) => self.answer_stored(*ended, letters),
            None => letters.into_iter().for_each(|letter| self.unknown(letter)),
        }
    }
}
