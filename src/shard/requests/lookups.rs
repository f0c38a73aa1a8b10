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
    /// How long the store is asked again that cannot be asked; 0: it has not failed yet.
    until_ms: u64,
    /// It is asked again later.
    rests: bool,
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

    /// Everything that came for an id.
    pub(in crate::shard) fn unpark(&mut self, id: &RequestId) -> VecDeque<Letter> {
        let parked = self.parked.remove(id);
        self.lookups -= usize::from(parked.as_ref().is_some_and(|parked| !parked.has_offer));
        parked.unwrap_or_default().letters
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
        self.settle_unknown(request_id);
    }

    /// The store could not be asked: nothing is known, so nothing is taken in. What drivers said is tried again for a while, since they
    /// get no answer that says so: at once, then every second.
    pub(in crate::shard) fn request_lookup_failed(&mut self, request_id: &RequestId, problem: &Problem) {
        let now_ms = self.now_ms;
        let until_ms = self.requests.parked.get(request_id).map_or(0, |parked| parked.until_ms);
        let is_over = until_ms > 0 && (until_ms <= now_ms || self.requests.again.len() >= limits::LOOKUPS_AGAIN_MAX);
        for letter in self.requests.unpark(request_id) {
            if is_over || !letter.is_of_driver() {
                self.refuse_letter(&letter, problem);
            } else {
                self.requests.park(request_id.clone(), letter);
            }
        }
        let Some(parked) = self.requests.parked.get_mut(request_id) else {
            return;
        };
        if until_ms == 0 {
            parked.until_ms = now_ms + LOOK_AGAIN_MAX_MS;
            let ask = Ask::Request(request_id.clone());
            return self.ask(Query::Request(request_id.clone()), ask);
        }
        (parked.until_ms, parked.rests) = (until_ms, true);
        let at_ms = now_ms + LOOK_AGAIN_MS;
        self.requests.again.push_back((at_ms, request_id.clone()));
        self.wake_at(at_ms);
    }

    /// Asks the store again that could not be asked.
    pub(in crate::shard) fn look_up_again(&mut self) {
        let now_ms = self.now_ms;
        let is_due = |again: &VecDeque<(u64, RequestId)>| again.front().is_some_and(|(at_ms, _)| *at_ms <= now_ms);
        while is_due(&self.requests.again)
            && let Some((_, request_id)) = self.requests.again.pop_front()
        {
            let parked = self.requests.parked.get_mut(&request_id);
            // Perhaps it is here by now, or has come anew.
            if parked.is_some_and(|parked| std::mem::take(&mut parked.rests)) {
                self.ask(Query::Request(request_id.clone()), Ask::Request(request_id));
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
        let letters = self.requests.parked_trips.remove(trip_id).unwrap_or_default();
        match ended {
            Ok(Some(ended)) => self.answer_stored(*ended, letters),
            Ok(None) => letters.into_iter().for_each(|letter| self.unknown(letter)),
            Err(problem) => letters
                .into_iter()
                .for_each(|letter| self.refuse_letter(&letter, &problem)),
        }
    }
}
