//! Requests of which all nodes' store knows more than this node: views of an id that is being claimed, and what callers or a driver
//! ask of one that has gone to another node.

use crate::cold::FarRequest;
use crate::cold::port::{Answer, Query};
use crate::fsm::fold::Outcome;
use crate::fsm::ids::RequestId;
use crate::fsm::request::{Request, RequestEvent, ToDriver};
use crate::fsm::types::RevokeReason;
use crate::shard::answers::view;
use crate::shard::calls::problem_of;
use crate::shard::{Ask, Letter, Platform, Shard};
use crate::wire::respond::Problem;
use std::collections::VecDeque;

impl<P: Platform> Shard<P> {
    /// A view of a request of which nothing is in the journal: it may never have been. If nodes share their store, that knows whether
    /// the id is another's, which the claim will find.
    pub(in crate::shard) fn view_unclaimed(&mut self, key: u32, letter: Letter) {
        if self.claims.is_none() {
            // Its drivers are being asked.
            return self.unknown(letter);
        }
        self.look(key, letter);
    }

    /// Whether this is what a caller asks of a request that has gone to a node out of reach: it is here only until that is journaled, and
    /// how it stands the store says meanwhile, as it does later.
    pub(in crate::shard) fn is_told_by_store(&self, key: u32, letter: &Letter) -> bool {
        let request = &self.requests.slab[key as usize].request;
        // An audit is read there anyway, and is put together with what was noted here.
        let is_audit = matches!(letter, Letter::View { audit: true, .. });
        self.claims.is_some() && request.is_out_of_reach() && letter.is_of_caller() && !is_audit
    }

    /// Has a letter answered from what all nodes' store has of a request.
    pub(in crate::shard) fn look(&mut self, key: u32, letter: Letter) {
        let request_id = self.requests.slab[key as usize].request.id().clone();
        let ask = Ask::Look(request_id.clone(), Box::new(letter));
        self.ask(Query::Request(request_id), ask);
    }

    /// The store's answer to that.
    pub(in crate::shard) fn looked_up(&mut self, request_id: &RequestId, letter: Letter, answer: Answer) {
        let letters = VecDeque::from([letter]);
        match answer {
            Answer::RequestElsewhere(far) if far.owner != self.config.node_id => self.answer_far(*far, letters),
            // Its claim stands, or it has come back, and this node is about to hear so.
            Answer::RequestElsewhere(far) => self.answer_far_view(&far, letters),
            Answer::Request(Some(ended)) => self.answer_stored(*ended, letters),
            Answer::Failed(error) => {
                let problem = problem_of(error);
                for letter in letters {
                    self.refuse_letter(&letter, &problem);
                }
            }
            _ => {
                let entry = self
                    .requests
                    .find(request_id)
                    .map(|key| &self.requests.slab[key as usize]);
                let is_claimed = entry.is_some_and(|entry| entry.journaled > 0);
                let is_gone = entry.is_some_and(|entry| entry.request.is_fenced());
                for letter in letters {
                    // A new request is not begun here: what was asked about was known a moment ago.
                    if is_gone || letter.is_offer() {
                        self.refuse_letter(&letter, &Problem::not_durable());
                    } else if is_claimed {
                        self.request_letter(request_id.clone(), letter);
                    } else {
                        self.unknown(letter);
                    }
                }
            }
        }
    }

    /// Answers views from what all nodes' store has of a request.
    fn answer_far_view(&mut self, far: &FarRequest, letters: VecDeque<Letter>) {
        let Some(request) = self.restored(&far.log) else {
            return letters
                .into_iter()
                .for_each(|letter| self.refuse_letter(&letter, &Problem::not_durable()));
        };
        for letter in letters {
            if let Letter::View { audit, reply, .. } = letter {
                let answer = view(&request, far.log.log.len(), audit, &far.nodes);
                self.answer(reply, answer);
            } else {
                self.refuse_letter(&letter, &Problem::not_durable());
            }
        }
    }

    /// Tells a driver how its attempt ended when the node that has the request, number `peer`, cannot: an end that was stored is
    /// everybody's. Says whether it did; an attempt that is open, or won, is for that node to speak of.
    pub(super) fn answer_as_it_ended(&mut self, request: &Request, letter: &Letter, peer: Option<u16>) -> bool {
        let Letter::Request {
            event:
                RequestEvent::DriverHere {
                    driver_id,
                    held: Some(held),
                    ..
                },
            ..
        } = letter
        else {
            return false;
        };
        let made = request
            .fold()
            .attempt_of(driver_id)
            .filter(|(number, _)| number == held);
        let outcome = match made.map(|(_, made)| made.outcome) {
            Some(outcome @ (Outcome::Declined | Outcome::TimedOut | Outcome::Revoked(_))) => outcome,
            // As its request says to a driver who was shown it all the same.
            Some(Outcome::Refused(_)) => Outcome::Revoked(RevokeReason::Superseded),
            Some(Outcome::Open | Outcome::Accepted) | None => return false,
        };
        if peer.is_some_and(|peer| self.is_linked(peer)) {
            return false;
        }
        let message = ToDriver::Outcome {
            attempt: *held,
            outcome,
            trip_id: None,
            again: false,
        };
        self.post_to_driver(driver_id.clone(), request.id().clone(), message, None);
        true
    }
}
