//! After the commit: everybody hears.

use super::{ApiAnswer, Asker, Pending, Question, Request, RequestEffect, RequestEvent, Resumed, ToDriver};
use crate::fsm::fold::{self, Outcome};
use crate::fsm::ids::{DriverId, TripId};
use crate::fsm::types::{RequestState, RevokeReason, Step};

impl Request {
    pub(super) fn announce(&mut self, pending: &Pending, effects: &mut Vec<RequestEffect>) {
        for index in pending.from..self.log.len() {
            self.announce_step(index, effects);
        }
        // After the drivers' homes: whoever has an answer finds there what it says.
        for (asker, question) in &pending.replies {
            // The driver needs no answer of its own: it hears the step.
            if let (Asker::Api(reply), Some(answer)) = (asker, self.reply_to(question, pending.from)) {
                effects.push(RequestEffect::Reply { reply: *reply, answer });
            }
        }
    }

    /// Of several `POST`s at once one is 202: those that came while it was decided and bring nobody new are repeats
    /// of it, also when all its drivers have refused meanwhile.
    pub(super) fn answer_twins(&mut self, effects: &mut Vec<RequestEffect>) {
        if self.fold.state() != RequestState::PendingMatch {
            return;
        }
        for event in std::mem::take(&mut self.deferred) {
            match event {
                RequestEvent::Reposted { offer, reply } if !offer.candidates.iter().any(|id| self.is_fresh(id)) => {
                    let answer = self.duplicate();
                    effects.push(RequestEffect::Reply { reply, answer });
                }
                other => self.deferred.push_back(other),
            }
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
            Step::OfferSent { attempt, driver_id, .. } => {
                if self.is_open(*attempt, driver_id) {
                    self.send_offer(*attempt, Resumed::No, effects);
                } else {
                    // Its time ended while others were still asked: the driver was reserved and never offered.
                    let (driver_id, message) = (driver_id.clone(), ToDriver::Release);
                    effects.push(RequestEffect::Driver { driver_id, message });
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
                if self.fold.attempt(*attempt).is_some_and(|made| made.delivered) {
                    take_back_shown(*attempt, driver_id, effects);
                }
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

    pub(super) fn send_offer(&self, number: u32, resumed: Resumed, effects: &mut Vec<RequestEffect>) {
        let made = &self.fold.attempts[number as usize - 1];
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
}

/// An attempt counts as refused, and the driver's home may have it all the same: it was refused at the node that the driver left, or
/// before a new owner offered it again. Who does not hold it hears nothing.
pub(super) fn take_back_shown(attempt: u32, driver_id: &DriverId, effects: &mut Vec<RequestEffect>) {
    effects.push(RequestEffect::Driver {
        driver_id: driver_id.clone(),
        message: ToDriver::Outcome {
            attempt,
            outcome: Outcome::Revoked(RevokeReason::Superseded),
            trip_id: None,
            again: false,
        },
    });
}
