//! After the commit: everybody hears.

use super::{ApiAnswer, Asker, Pending, Question, Request, RequestEffect, Resumed, ToDriver};
use crate::fsm::fold::{self, Outcome};
use crate::fsm::ids::TripId;
use crate::fsm::types::{RevokeReason, Step};

impl Request {
    pub(super) fn announce(&mut self, pending: &Pending, effects: &mut Vec<RequestEffect>) {
        for (asker, question) in &pending.replies {
            // The driver needs no answer of its own: it hears the step.
            if let (Asker::Api(reply), Some(answer)) = (asker, self.reply_to(question, pending.from)) {
                effects.push(RequestEffect::Reply { reply: *reply, answer });
            }
        }
        for index in pending.from..self.log.len() {
            self.announce_step(index, effects);
        }
    }

    pub(super) fn reply_to(&self, question: &Question, from: usize) -> Option<ApiAnswer> {
        match question {
            Question::Posted => {
                // The first attempt of this POST, also when that attempt was refused meanwhile.
                let sent = self.log[from..].iter().find_map(|entry| match &entry.step {
                    Step::OfferSent { attempt, driver_id, .. } => Some((*attempt, Some(driver_id.clone()))),
                    _ => None,
                });
                let (attempt, driver_id) = sent.unwrap_or((self.fold.attempts.len() as u32, None));
                Some(ApiAnswer::Offer {
                    state: self.fold.state(),
                    attempt,
                    driver_id,
                    duplicate: false,
                })
            }
            Question::Answered { attempt } => {
                let outcome = self.fold.attempt(*attempt)?.outcome;
                let trip_id = if outcome == Outcome::Accepted {
                    self.trip_id()
                } else {
                    None
                };
                Some(ApiAnswer::Outcome { outcome, trip_id })
            }
            Question::Cancelled => Some(self.cancel_answer(self.fold.state())),
            Question::TripCancelled => Some(ApiAnswer::TripCancelled {
                trip_id: self.trip_id()?,
            }),
        }
    }

    pub(super) fn announce_step(&self, index: usize, effects: &mut Vec<RequestEffect>) {
        match &self.log[index].step {
            Step::OfferSent { attempt, .. } => {
                if self
                    .fold
                    .attempt(*attempt)
                    .is_some_and(|made| made.outcome == Outcome::Open)
                {
                    self.send_offer(*attempt, false, effects);
                }
            }
            Step::Accepted { attempt, .. }
            | Step::Declined { attempt, .. }
            | Step::TimedOut { attempt }
            | Step::Revoked { attempt, .. } => {
                let made = &self.fold.attempts[*attempt as usize - 1];
                let trip_id = if made.outcome == Outcome::Accepted {
                    Some(TripId::for_request(&self.id, self.fold.received_at_ms))
                } else {
                    None
                };
                effects.push(RequestEffect::Driver {
                    driver_id: made.driver_id.clone(),
                    message: ToDriver::Outcome {
                        attempt: *attempt,
                        outcome: made.outcome,
                        trip_id,
                        again: false,
                    },
                });
            }
            Step::Refused { attempt, driver_id, .. } => {
                debug_assert!(
                    self.fold
                        .attempt(*attempt)
                        .is_some_and(|made| made.driver_id == *driver_id)
                );
            }
            Step::PickedUp => self.announce_trip(None, effects),
            Step::TripEnded { reason, .. } => self.announce_trip(reason.clone(), effects),
            Step::Received { .. }
            | Step::Redispatched { .. }
            | Step::Delivered { .. }
            | Step::Acked { .. }
            | Step::Exhausted
            | Step::TripCreated { .. }
            | Step::Cancelled { .. }
            | Step::Unfulfilled { .. } => {}
        }
    }

    pub(super) fn announce_trip(&self, reason: Option<Box<str>>, effects: &mut Vec<RequestEffect>) {
        let Some(trip) = &self.fold.trip else { return };
        let message = ToDriver::Trip {
            trip_id: trip.trip_id.clone(),
            phase: trip.phase,
            reason,
            again: false,
        };
        effects.push(RequestEffect::Driver {
            driver_id: trip.driver_id.clone(),
            message,
        });
    }

    pub(super) fn send_offer(&self, number: u32, resumed: bool, effects: &mut Vec<RequestEffect>) {
        let made = &self.fold.attempts[number as usize - 1];
        let resumed = resumed.then_some(Resumed {
            undelivered: !made.delivered,
            sent_at_ms: made.sent_at_ms,
        });
        let message = ToDriver::Offer {
            attempt: number,
            priority: self.fold.priority,
            expires_at_ms: made.expires_at_ms,
            trip: fold::trip_json(&self.log).into(),
            resumed,
        };
        effects.push(RequestEffect::Driver {
            driver_id: made.driver_id.clone(),
            message,
        });
    }

    /// Another owner has the request: what this one still holds out is void.
    pub(super) fn give_up(&mut self, effects: &mut Vec<RequestEffect>) {
        for number in self.fold.open() {
            let outcome = Outcome::Revoked(RevokeReason::Superseded);
            let message = ToDriver::Outcome {
                attempt: number,
                outcome,
                trip_id: None,
                again: false,
            };
            let driver_id = self.fold.attempts[number as usize - 1].driver_id.clone();
            effects.push(RequestEffect::Driver { driver_id, message });
        }
        self.stop_waiting(effects);
        self.deferred.clear();
        self.closed = true;
        effects.push(RequestEffect::Arm { at_ms: None });
        effects.push(RequestEffect::Closed);
    }
}
