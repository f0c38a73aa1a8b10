//! Another owner has the request: what this one knew of it is told to that one, or is void; and nobody is left waiting.
//!
//! With an heir within reach nobody hears an end from here that is not the end: the heir says how everybody stands, and gets what
//! drivers and callers have said. Without one, drivers hear that the offer is `superseded` here.

use super::events::OFF_SHIFT;
use super::{Answer, ApiAnswer, Asker, Fence, Pending, Request, RequestEffect, RequestEvent, ToDriver, TripMove};
use crate::fsm::fold::{Fold, Outcome, TripPhase};
use crate::fsm::types::{LogEntry, RevokeReason, Step, TripOutcome};

impl Request {
    /// Forgets the decision under way, which never was, unless it `stood`: then the new owner has it and this one says no more of it
    /// than it must.
    pub(super) fn give_up(&mut self, pending: Pending, fence: Fence, effects: &mut Vec<RequestEffect>) {
        if let Some((undone, decided)) = self.take_back(pending, effects) {
            if fence.has_heir {
                self.hand_on(&undone, effects);
            } else {
                self.revoke_all(fence.stood.then_some(&decided), effects);
            }
        }
        self.stop_waiting(effects);
        for event in std::mem::take(&mut self.deferred) {
            turn_away(event, fence, effects);
        }
        self.end_here(fence, effects);
    }

    /// What was being decided never was. Of a new request nothing was; else gives back those steps, and what they made of the request.
    pub(super) fn take_back(
        &mut self,
        pending: Pending,
        effects: &mut Vec<RequestEffect>,
    ) -> Option<(Vec<LogEntry>, Fold)> {
        debug_assert!(self.fenced.is_none() && self.pending.is_none());
        for (asker, _) in pending.replies {
            answer_fenced(asker, effects);
        }
        for entry in &self.log[pending.from..] {
            // Reserved perhaps, but never offered.
            if let Step::OfferSent { driver_id, .. } = &entry.step {
                let (driver_id, message) = (driver_id.clone(), ToDriver::Release);
                effects.push(RequestEffect::Driver { driver_id, message });
            }
        }
        if pending.from == 0 {
            return None;
        }
        let undone = self.log.split_off(pending.from);
        self.persisted = pending.from;
        let before = Fold::of(&self.log).expect("a prefix of a good log is good");
        Some((undone, std::mem::replace(&mut self.fold, before)))
    }

    /// Nothing is decided here any more.
    pub(super) fn end_here(&mut self, fence: Fence, effects: &mut Vec<RequestEffect>) {
        self.fenced = Some(fence);
        self.closed = true;
        effects.push(RequestEffect::Arm { at_ms: None });
        effects.push(RequestEffect::Closed);
    }

    /// Lets the heir know whom it has to tell something, and what drivers had said that led to what was not decided here.
    fn hand_on(&self, undone: &[LogEntry], effects: &mut Vec<RequestEffect>) {
        for number in self.fold.open() {
            let answer = undone.iter().find_map(|entry| match entry.step {
                Step::Accepted { attempt, .. } if attempt == number => Some(Answer::AcceptHeld),
                Step::Declined {
                    attempt, ref reason, ..
                } if attempt == number => Some(match reason.as_deref() {
                    Some(OFF_SHIFT) => Answer::OffShift,
                    _ => Answer::DeclineHeld,
                }),
                _ => None,
            });
            let driver_id = self.fold.attempts[number as usize - 1].driver_id.clone();
            effects.push(RequestEffect::PassOn(RequestEvent::DriverHere {
                driver_id,
                held: Some(number),
                answer,
            }));
        }
        let Some(trip) = &self.fold.trip else { return };
        if matches!(trip.phase, TripPhase::Ended(_)) {
            return;
        }
        let moves = undone.iter().filter_map(|entry| match entry.step {
            Step::PickedUp => Some(TripMove::Pickup),
            Step::TripEnded { outcome, .. } => match outcome {
                TripOutcome::Completed => Some(TripMove::Complete),
                TripOutcome::CancelledByDriver => Some(TripMove::Cancel),
                // Its caller has heard that this is not known.
                TripOutcome::Cancelled => None,
            },
            _ => None,
        });
        effects.extend(moves.map(|what| {
            RequestEffect::PassOn(RequestEvent::TripMoved {
                driver_id: trip.driver_id.clone(),
                trip_id: trip.trip_id.clone(),
                what,
            })
        }));
        effects.push(RequestEffect::PassOn(RequestEvent::DriverHere {
            driver_id: trip.driver_id.clone(),
            held: None,
            answer: None,
        }));
    }

    /// Tells the drivers of open offers that there is nothing of them here any more; or their end, if it was `decided`.
    fn revoke_all(&self, decided: Option<&Fold>, effects: &mut Vec<RequestEffect>) {
        for number in self.fold.open() {
            let ended = decided.and_then(|decided| decided.attempt(number));
            let outcome = match ended.map(|made| made.outcome) {
                Some(known @ (Outcome::Accepted | Outcome::Declined | Outcome::TimedOut | Outcome::Revoked(_))) => {
                    known
                }
                Some(Outcome::Open | Outcome::Refused(_)) | None => Outcome::Revoked(RevokeReason::Superseded),
            };
            let trip = decided.and_then(|decided| decided.trip.as_ref());
            let trip_id = trip.filter(|_| outcome == Outcome::Accepted);
            let driver_id = self.fold.attempts[number as usize - 1].driver_id.clone();
            let message = ToDriver::Outcome {
                attempt: number,
                outcome,
                trip_id: trip_id.map(|trip| trip.trip_id.clone()),
                again: false,
            };
            effects.push(RequestEffect::Driver { driver_id, message });
        }
    }
}

/// An event of a request that another owner has: that one hears of it, if it can.
pub(super) fn turn_away(event: RequestEvent, fence: Fence, effects: &mut Vec<RequestEffect>) {
    match event {
        RequestEvent::Reserved { driver_id, .. } => {
            let message = ToDriver::Release;
            effects.push(RequestEffect::Driver { driver_id, message });
        }
        RequestEvent::Busy { .. } | RequestEvent::Unavailable { .. } | RequestEvent::Timer => {}
        event if fence.has_heir => effects.push(RequestEffect::PassOn(event)),
        RequestEvent::Reposted { reply, .. }
        | RequestEvent::Misposted { reply, .. }
        | RequestEvent::Cancelled { reply, .. }
        | RequestEvent::TripCancelled { reply, .. } => answer_fenced(Asker::Api(reply), effects),
        RequestEvent::Answered { asker, .. } => answer_fenced(asker, effects),
        RequestEvent::Delivered { .. }
        | RequestEvent::Acked { .. }
        | RequestEvent::Refused { .. }
        | RequestEvent::TripMoved { .. }
        | RequestEvent::DriverHere { .. } => {}
    }
}

/// A driver asks again when it hears nothing, and asks the owner then.
pub(super) fn answer_fenced(asker: Asker, effects: &mut Vec<RequestEffect>) {
    if let Asker::Api(reply) = asker {
        let answer = ApiAnswer::Fenced;
        effects.push(RequestEffect::Reply { reply, answer });
    }
}
