//! What each event means to a request, one function each.

use super::announce::take_back_shown;
use super::{Answer, ApiAnswer, Asker, Question, ReplyTo, Request, RequestEffect, Resumed, ToDriver, TripMove};
use crate::fsm::fold::{Outcome, Trip, TripPhase};
use crate::fsm::ids::{DriverId, TripId};
use crate::fsm::types::{Channel, OfferRequest, RequestState, RevokeReason, Step, TripOutcome, UnixMs};

/// Why who has gone off shift declined, as the audit says it.
pub(super) const OFF_SHIFT: &str = "off shift";

impl Request {
    pub(super) fn reposted(
        &mut self,
        offer: &OfferRequest,
        reply: ReplyTo,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        if let Some(answer) = self.repeated() {
            return effects.push(RequestEffect::Reply { reply, answer });
        }
        let candidates: Vec<_> = offer
            .candidates
            .iter()
            .filter(|id| self.is_fresh(id))
            .cloned()
            .collect();
        if !candidates.is_empty() {
            let OfferRequest {
                offer_timeout_ms,
                parallel,
                busy_wait_ms,
                ..
            } = *offer;
            self.push(
                now_ms,
                Step::Redispatched {
                    candidates,
                    offer_timeout_ms,
                    parallel,
                    busy_wait_ms,
                },
            );
            self.restart_wait();
            return self.questions.push((Asker::Api(reply), Question::Posted));
        }
        let is_waited_for = |driver_id: &DriverId| self.fold.candidates.contains(driver_id);
        let answer = if offer.candidates.iter().any(is_waited_for) {
            self.duplicate()
        } else {
            ApiAnswer::Excluded {
                state: self.fold.state(),
                excluded: self.fold.excluded().cloned().collect(),
            }
        };
        effects.push(RequestEffect::Reply { reply, answer });
    }

    /// The answer to a re-POST, whatever its body says; none while the request waits for candidates.
    pub(super) fn repeated(&self) -> Option<ApiAnswer> {
        let state = self.fold.state();
        match state {
            RequestState::OfferSent | RequestState::Accepted => Some(self.duplicate()),
            RequestState::Cancelled | RequestState::Unfulfilled => Some(ApiAnswer::Ended { state, trip_id: None }),
            RequestState::PendingMatch => None,
        }
    }

    /// Neither tried nor a candidate.
    pub(super) fn is_fresh(&self, driver_id: &DriverId) -> bool {
        !self.fold.candidates.contains(driver_id) && self.fold.attempt_of(driver_id).is_none()
    }

    pub(super) fn duplicate(&self) -> ApiAnswer {
        let (attempt, driver_id) = self.fold.current();
        ApiAnswer::Offer {
            state: self.fold.state(),
            attempt,
            driver_id: driver_id.cloned(),
            duplicate: true,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    pub(super) fn answered(
        &mut self,
        driver_id: &DriverId,
        attempt: Option<u32>,
        answer: Answer,
        reason: Option<Box<str>>,
        asker: Asker,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        let found = self
            .fold
            .attempt_of(driver_id)
            .filter(|(number, _)| attempt.is_none_or(|asked| asked == *number));
        let Some((number, made)) = found else {
            return no_such_offer(driver_id, asker, effects);
        };
        let (outcome, was_shown) = (made.outcome, made.delivered);
        let channel = match asker {
            Asker::Api(_) => Channel::Http,
            Asker::Driver => Channel::WebSocket,
        };
        match (outcome, answer) {
            (Outcome::Open, Answer::Accept) => {
                let attempt = number;
                effects.push(RequestEffect::Driver {
                    driver_id: driver_id.clone(),
                    message: ToDriver::Accept { attempt, asker },
                });
            }
            (Outcome::Open, Answer::Decline) if asker == Asker::Driver => {
                let attempt = number;
                effects.push(RequestEffect::Driver {
                    driver_id: driver_id.clone(),
                    message: ToDriver::Decline { attempt, reason },
                });
            }
            (Outcome::Open, Answer::AcceptHeld) => {
                self.accepted(number, driver_id, channel, now_ms);
                self.questions.push((asker, Question::Answered { attempt: number }));
            }
            (Outcome::Open, Answer::Decline | Answer::DeclineHeld | Answer::OffShift) => {
                let reason = match answer {
                    Answer::OffShift => Some(OFF_SHIFT.into()),
                    _ => reason,
                };
                self.push(
                    now_ms,
                    Step::Declined {
                        attempt: number,
                        channel,
                        reason,
                    },
                );
                self.questions.push((asker, Question::Answered { attempt: number }));
            }
            // It was shown, and taken back since.
            (Outcome::Refused(_), _) if was_shown => {
                let superseded = Outcome::Revoked(RevokeReason::Superseded);
                self.outcome(number, driver_id, superseded, asker, effects);
            }
            (Outcome::Refused(_), _) => no_such_offer(driver_id, asker, effects),
            (Outcome::Declined, Answer::Accept | Answer::AcceptHeld) => {
                self.outcome(
                    number,
                    driver_id,
                    Outcome::Revoked(RevokeReason::Superseded),
                    asker,
                    effects,
                );
            }
            (over, answer) => {
                self.outcome(number, driver_id, over, asker, effects);
                let is_held = matches!(answer, Answer::AcceptHeld | Answer::DeclineHeld | Answer::OffShift);
                let trip = self.fold.trip.as_ref().filter(|trip| trip.driver_id == *driver_id);
                // Its home heard neither of the trip nor of how far that is.
                if is_held && trip.is_some_and(|trip| trip.phase != TripPhase::EnRoute) {
                    self.driver_here(driver_id.clone(), None, effects);
                }
            }
        }
    }

    /// The driver of this attempt wins: the others lose, and there is a trip.
    fn accepted(&mut self, attempt: u32, driver_id: &DriverId, channel: Channel, now_ms: UnixMs) {
        let rivals: Vec<_> = self.fold.open().filter(|rival| *rival != attempt).collect();
        self.push(now_ms, Step::Accepted { attempt, channel });
        for attempt in rivals {
            let reason = RevokeReason::Taken;
            self.push(now_ms, Step::Revoked { attempt, reason });
        }
        let trip_id = TripId::for_request(&self.id, self.fold.received_at_ms);
        let driver_id = driver_id.clone();
        self.push(now_ms, Step::TripCreated { trip_id, driver_id });
    }

    pub(super) fn outcome(
        &self,
        attempt: u32,
        driver_id: &DriverId,
        outcome: Outcome,
        asker: Asker,
        effects: &mut Vec<RequestEffect>,
    ) {
        let trip_id = if outcome == Outcome::Accepted {
            self.trip_id()
        } else {
            None
        };
        effects.push(match asker {
            Asker::Api(reply) => RequestEffect::Reply {
                reply,
                answer: ApiAnswer::Outcome { outcome, trip_id },
            },
            Asker::Driver => RequestEffect::Driver {
                driver_id: driver_id.clone(),
                message: ToDriver::Outcome {
                    attempt,
                    outcome,
                    trip_id,
                    again: true,
                },
            },
        });
    }

    pub(super) fn noted(
        &mut self,
        attempt: u32,
        driver_id: &DriverId,
        acked: bool,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        let Some(made) = self.fold.attempt(attempt).filter(|made| made.driver_id == *driver_id) else {
            // The app is told, since it believes in an offer that does not exist.
            if acked {
                no_such_offer(driver_id, Asker::Driver, effects);
            }
            return;
        };
        let outcome = made.outcome;
        if outcome != Outcome::Open {
            if matches!(outcome, Outcome::Refused(_)) {
                take_back_shown(attempt, driver_id, effects);
            }
            if acked {
                self.answered(
                    driver_id,
                    Some(attempt),
                    Answer::Decline,
                    None,
                    Asker::Driver,
                    now_ms,
                    effects,
                );
            }
            return;
        }
        if if acked { made.acked } else { made.delivered } {
            return;
        }
        self.push(
            now_ms,
            if acked {
                Step::Acked { attempt }
            } else {
                Step::Delivered { attempt }
            },
        );
        let from = self.persisted;
        self.persisted = self.log.len();
        effects.push(RequestEffect::Persist {
            from,
            to: self.log.len(),
            wait: false,
        });
    }

    pub(super) fn cancelled(
        &mut self,
        reason: Option<Box<str>>,
        reply: ReplyTo,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        match self.fold.end {
            None => {
                for attempt in self.fold.open().collect::<Vec<_>>() {
                    self.push(
                        now_ms,
                        Step::Revoked {
                            attempt,
                            reason: RevokeReason::Cancelled,
                        },
                    );
                }
                self.push(now_ms, Step::Cancelled { reason });
                self.questions.push((Asker::Api(reply), Question::Cancelled));
            }
            Some(end) => effects.push(RequestEffect::Reply {
                reply,
                answer: self.cancel_answer(end),
            }),
        }
    }

    pub(super) fn cancel_answer(&self, state: RequestState) -> ApiAnswer {
        match state {
            RequestState::Cancelled => ApiAnswer::Cancelled,
            _ => ApiAnswer::Ended {
                state,
                trip_id: self.trip_id(),
            },
        }
    }

    pub(super) fn trip_moved(
        &mut self,
        driver_id: DriverId,
        trip_id: TripId,
        what: TripMove,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        let own = |trip: &&Trip| trip.trip_id == trip_id && trip.driver_id == driver_id;
        let Some(phase) = self.fold.trip.as_ref().filter(own).map(|trip| trip.phase) else {
            return effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::NoSuchTrip { trip_id },
            });
        };
        let ended = |outcome| Some(Step::TripEnded { outcome, reason: None });
        let step = match (phase, what) {
            (TripPhase::EnRoute, TripMove::Pickup) => Some(Step::PickedUp),
            (TripPhase::EnRoute | TripPhase::OnTrip, TripMove::Complete) => ended(TripOutcome::Completed),
            (TripPhase::EnRoute | TripPhase::OnTrip, TripMove::Cancel) => ended(TripOutcome::CancelledByDriver),
            // Changes no state, so there is nothing to tell.
            (TripPhase::EnRoute | TripPhase::OnTrip | TripPhase::Ended(_), TripMove::Arrived) => return,
            (TripPhase::OnTrip | TripPhase::Ended(_), TripMove::Pickup)
            | (TripPhase::Ended(_), TripMove::Complete | TripMove::Cancel) => None,
        };
        match step {
            Some(step) => self.push(now_ms, step),
            None => effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::Trip {
                    trip_id,
                    phase,
                    reason: self.trip_reason(),
                    again: true,
                },
            }),
        }
    }

    /// A driver's home asks how it stands, and says what the driver has said of the offer: that may have been lost.
    pub(super) fn driver_is_here(
        &mut self,
        driver_id: DriverId,
        held: Option<u32>,
        answer: Option<Answer>,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        match (held, answer) {
            (Some(attempt), Some(answer)) if self.is_open(attempt, &driver_id) => {
                let attempt = Some(attempt);
                self.answered(&driver_id, attempt, answer, None, Asker::Driver, now_ms, effects);
            }
            _ => self.driver_here(driver_id, held, effects),
        }
    }

    /// Tells a driver's home how it stands between the two: the trip, the offer, or that what the driver holds there is
    /// over. With nothing of it, that a reservation is void.
    fn driver_here(&self, driver_id: DriverId, held: Option<u32>, effects: &mut Vec<RequestEffect>) {
        let trip = self.fold.trip.as_ref().filter(|trip| trip.driver_id == driver_id);
        let made = self.fold.attempt_of(&driver_id);
        let message = match (trip, made) {
            (Some(trip), _) => match trip.phase {
                TripPhase::EnRoute | TripPhase::OnTrip => ToDriver::Bound {
                    attempt: self.attempt_number(&driver_id),
                    trip_id: trip.trip_id.clone(),
                    phase: trip.phase,
                },
                TripPhase::Ended(_) if held.is_some() => return self.tell_whole_trip(trip, effects),
                TripPhase::Ended(_) => ToDriver::Trip {
                    trip_id: trip.trip_id.clone(),
                    phase: trip.phase,
                    reason: self.trip_reason(),
                    again: false,
                },
            },
            (None, Some((number, attempt))) if attempt.outcome == Outcome::Open => {
                let resumed = if attempt.delivered {
                    Resumed::Delivered
                } else {
                    Resumed::Sent
                };
                return self.send_offer(number, resumed, effects);
            }
            (None, made) => match held {
                Some(attempt) => {
                    let own = made.filter(|(number, _)| *number == attempt);
                    let outcome = match own.map(|(_, made)| made.outcome) {
                        Some(outcome @ (Outcome::Declined | Outcome::TimedOut | Outcome::Revoked(_))) => outcome,
                        Some(Outcome::Open | Outcome::Accepted | Outcome::Refused(_)) | None => {
                            Outcome::Revoked(RevokeReason::Superseded)
                        }
                    };
                    ToDriver::Outcome {
                        attempt,
                        outcome,
                        trip_id: None,
                        again: false,
                    }
                }
                None => ToDriver::Release,
            },
        };
        effects.push(RequestEffect::Driver { driver_id, message });
    }

    /// The driver holds the offer still and has not heard that it has won, and the trip is over since: it hears of both.
    /// Why the trip was cancelled, if it was and somebody said why.
    fn trip_reason(&self) -> Option<Box<str>> {
        self.log.iter().rev().find_map(|entry| match &entry.step {
            Step::TripEnded { reason, .. } => reason.clone(),
            _ => None,
        })
    }

    fn tell_whole_trip(&self, trip: &Trip, effects: &mut Vec<RequestEffect>) {
        let message = ToDriver::Outcome {
            attempt: self.attempt_number(&trip.driver_id),
            outcome: Outcome::Accepted,
            trip_id: Some(trip.trip_id.clone()),
            again: false,
        };
        let driver_id = trip.driver_id.clone();
        effects.push(RequestEffect::Driver { driver_id, message });
        self.driver_here(trip.driver_id.clone(), None, effects);
    }

    pub(super) fn trip_cancelled(
        &mut self,
        reason: Option<Box<str>>,
        reply: ReplyTo,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        let answer = match self.fold.trip.as_ref().map(|trip| (trip.phase, &trip.trip_id)) {
            None => ApiAnswer::NoSuchTrip,
            Some((TripPhase::Ended(outcome), trip_id)) => ApiAnswer::TripEnded {
                trip_id: trip_id.clone(),
                outcome,
            },
            Some((TripPhase::EnRoute | TripPhase::OnTrip, _)) => {
                self.push(
                    now_ms,
                    Step::TripEnded {
                        outcome: TripOutcome::Cancelled,
                        reason,
                    },
                );
                return self.questions.push((Asker::Api(reply), Question::TripCancelled));
            }
        };
        effects.push(RequestEffect::Reply { reply, answer });
    }
}

fn no_such_offer(driver_id: &DriverId, asker: Asker, effects: &mut Vec<RequestEffect>) {
    effects.push(match asker {
        Asker::Api(reply) => RequestEffect::Reply {
            reply,
            answer: ApiAnswer::NoSuchOffer,
        },
        Asker::Driver => RequestEffect::Driver {
            driver_id: driver_id.clone(),
            message: ToDriver::NoSuchOffer,
        },
    });
}
