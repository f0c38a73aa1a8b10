//! What requests want of a driver: reservations, offers, outcomes, trips.

use super::{Bound, Driver, DriverEffect, DriverLimits, Held, ToSocket, Waiter};
use crate::fsm::fold::{Outcome, TripPhase};
use crate::fsm::ids::{RequestId, TripId};
use crate::fsm::queue::ClassQueue;
use crate::fsm::request::{Answer, Asker, RequestEvent, Resumed, ToDriver};
use crate::fsm::types::{Priority, RefuseReason, RevokeReason, TripOutcome, UnixMs};

impl Driver {
    pub(super) fn request(
        &mut self,
        node: u16,
        request_id: RequestId,
        message: ToDriver,
        now_ms: UnixMs,
        limits: &DriverLimits,
        effects: &mut Vec<DriverEffect>,
    ) {
        match message {
            ToDriver::Ask { ask, priority } => {
                let waiter = Waiter { request_id, node, ask };
                self.reserve(waiter, priority, None, effects);
            }
            ToDriver::Wait { ask, priority } => {
                let waiter = Waiter { request_id, node, ask };
                self.reserve(waiter, priority, Some((now_ms, limits)), effects);
            }
            ToDriver::Release => self.release(node, &request_id, effects),
            ToDriver::Offer {
                attempt,
                priority,
                expires_at_ms,
                trip,
                resumed,
            } => {
                let held = Held {
                    request_id,
                    node,
                    attempt,
                    priority,
                    expires_at_ms,
                    trip: Some(trip),
                    delivered: resumed == Resumed::Delivered,
                    acked: false,
                    answer: None,
                };
                if resumed != Resumed::No && self.session == 0 {
                    self.forget_old_shift(now_ms, limits, effects);
                }
                self.offered(held, resumed, effects);
            }
            // Whatever this driver refused, the request has heard before this answer.
            ToDriver::Accept { attempt, asker } => {
                self.answer(request_id, attempt, Answer::AcceptHeld, None, asker, effects);
            }
            ToDriver::Decline { attempt, reason } => {
                self.answer(request_id, attempt, Answer::DeclineHeld, reason, Asker::Driver, effects);
            }
            ToDriver::Outcome {
                attempt,
                outcome,
                trip_id,
                again,
            } => {
                self.outcome(request_id, attempt, outcome, trip_id, again, effects);
            }
            ToDriver::NoSuchOffer => self.send(ToSocket::NoSuchOffer { request_id }, effects),
            ToDriver::Trip {
                trip_id,
                phase,
                reason,
                again,
            } => {
                self.trip(request_id, trip_id, phase, reason, again, effects);
            }
            ToDriver::NoSuchTrip { .. } => self.no_such_trip(effects),
            ToDriver::Bound {
                attempt,
                trip_id,
                phase,
            } => self.rebound(&request_id, attempt, trip_id, phase, effects),
        }
    }

    /// Reserves a free driver; a driver who holds another offer is busy, or gets the request into its queue.
    pub(super) fn reserve(
        &mut self,
        waiter: Waiter,
        priority: Priority,
        wait: Option<(UnixMs, &DriverLimits)>,
        effects: &mut Vec<DriverEffect>,
    ) {
        let (driver_id, ask) = (self.id.clone(), waiter.ask);
        let event = match self.refusal() {
            None => {
                let expires_at_ms = 0;
                let held = Held {
                    request_id: waiter.request_id.clone(),
                    node: waiter.node,
                    attempt: 0,
                    priority,
                    expires_at_ms,
                    trip: None,
                    delivered: false,
                    acked: false,
                    answer: None,
                };
                self.held = Some(Box::new(held));
                RequestEvent::Reserved { driver_id, ask }
            }
            Some(RefuseReason::Offered) => match wait {
                None => RequestEvent::Busy { driver_id, ask },
                Some((now_ms, limits)) => {
                    let queue = self
                        .queue
                        .get_or_insert_with(|| Box::new(ClassQueue::new(limits.age_step_ms)));
                    return queue.push(priority, now_ms, waiter);
                }
            },
            Some(reason) => RequestEvent::Unavailable { driver_id, ask, reason },
        };
        effects.push(DriverEffect::Asked {
            node: waiter.node,
            request_id: waiter.request_id,
            event,
        });
    }

    /// Gives back what this node had asked for. Another one that has the same id keeps what it has.
    pub(super) fn release(&mut self, node: u16, request_id: &RequestId, effects: &mut Vec<DriverEffect>) {
        if let Some(queue) = &mut self.queue {
            queue.remove(|waiting| waiting.request_id == *request_id && waiting.node == node);
        }
        let is_own = |held: &Held| held.request_id == *request_id && held.node == node && held.attempt == 0;
        if self.held.as_deref().is_some_and(is_own) {
            self.held = None;
            self.freed(effects);
        }
    }

    pub(super) fn offered(&mut self, offer: Held, resumed: Resumed, effects: &mut Vec<DriverEffect>) {
        let is_same = |held: &Held| held.request_id == offer.request_id && held.attempt == offer.attempt;
        if let Some(held) = self.held.as_deref().filter(|held| is_same(held)) {
            // Said again, as it may have been lost between two nodes, or by a new owner, who does not know yet that it arrived.
            self.tell_receipt(held, effects);
            if resumed != Resumed::No && held.answer.is_some() {
                self.ask_request(&held.request_id, Some(held.attempt), held.answer, effects);
            }
            return;
        }
        if resumed != Resumed::No {
            return self.resumed(offer, effects);
        }
        let reserved = self
            .held
            .as_ref()
            .is_some_and(|held| held.request_id == offer.request_id && held.attempt == 0);
        let refusal = if reserved {
            // Gone off shift between the reservation and the offer.
            (self.off_shift_since_ms != 0).then_some(RefuseReason::Offline)
        } else {
            self.refusal()
        };
        if let Some(reason) = refusal {
            self.refuse(offer, reason, effects);
            if reserved {
                self.held = None;
                self.freed(effects);
            }
            return;
        }
        self.held = Some(Box::new(offer));
        self.send_offer(effects);
    }

    pub(super) fn refuse(&self, offer: Held, reason: RefuseReason, effects: &mut Vec<DriverEffect>) {
        let event = RequestEvent::Refused {
            attempt: offer.attempt,
            driver_id: self.id.clone(),
            reason,
        };
        effects.push(DriverEffect::Request {
            request_id: offer.request_id,
            event,
        });
    }

    pub(super) fn outcome(
        &mut self,
        request_id: RequestId,
        attempt: u32,
        outcome: Outcome,
        trip_id: Option<TripId>,
        again: bool,
        effects: &mut Vec<DriverEffect>,
    ) {
        let own = self.held.as_ref().filter(|held| held.request_id == request_id);
        let (held_attempt, node) = own.map_or((None, 0), |held| (Some(held.attempt), held.node));
        // Reserved, and its offer was not shown: over a link it came when its time was over, perhaps. It may be accepted all the
        // same, by HTTP.
        let is_reserved = held_attempt == Some(0) && !again;
        if is_reserved && outcome != Outcome::Accepted {
            return self.release(node, &request_id, effects);
        }
        // An answer ends it too: what ended it was lost between two nodes then.
        let ends = is_reserved || held_attempt == Some(attempt);
        if !again && !ends {
            return self.decided_elsewhere(&request_id, attempt, outcome, trip_id, effects);
        }
        if ends {
            self.held = None;
        }
        match (outcome, trip_id) {
            (Outcome::Accepted, Some(trip_id)) => {
                if ends {
                    self.end_of_other(effects);
                    self.bound = Some(Box::new(Bound {
                        request_id: request_id.clone(),
                        trip_id: trip_id.clone(),
                        on_trip: false,
                        said: None,
                    }));
                }
                self.send(
                    ToSocket::Confirmed {
                        request_id,
                        attempt,
                        trip_id,
                    },
                    effects,
                );
            }
            (Outcome::Declined, _) => self.send(ToSocket::Declined { request_id, attempt }, effects),
            (Outcome::TimedOut, _) => {
                self.send(
                    ToSocket::Revoked {
                        request_id,
                        attempt,
                        reason: RevokeReason::Timeout,
                    },
                    effects,
                );
            }
            (Outcome::Revoked(reason), _) => self.send(
                ToSocket::Revoked {
                    request_id,
                    attempt,
                    reason,
                },
                effects,
            ),
            (Outcome::Accepted | Outcome::Open | Outcome::Refused(_), _) => {
                unreachable!("a request tells only outcomes that a driver can hear")
            }
        }
        if ends {
            self.freed(effects);
        }
    }

    /// An offer ends that is not held here. It was refused, the request decided before it heard so, and the app never saw it. Or the driver
    /// took it at another node, which is gone: then it has a trip.
    fn decided_elsewhere(
        &mut self,
        request_id: &RequestId,
        attempt: u32,
        outcome: Outcome,
        trip_id: Option<TripId>,
        effects: &mut Vec<DriverEffect>,
    ) {
        if let (Outcome::Accepted, Some(trip_id)) = (outcome, trip_id)
            && self.trip_id() != Some(&trip_id)
        {
            self.rebound(request_id, attempt, trip_id, TripPhase::EnRoute, effects);
        }
    }

    /// After the end of a reservation or a trip: tell the state, and serve who waits.
    pub(super) fn freed(&mut self, effects: &mut Vec<DriverEffect>) {
        self.tell_state(false, effects);
        if let Some(held) = &self.held {
            // The trip is over; of an offer that was answered before that was known, its request says what came of it. Perhaps it
            // has: whom a driver with a trip waits for is not watched.
            debug_assert!(held.answer.is_some());
            return self.ask_request(&held.request_id, Some(held.attempt), held.answer, effects);
        }
        match self.refusal() {
            None => {
                let Some((priority, waiter)) = self.queue.as_mut().and_then(|queue| queue.pop()) else {
                    self.queue = None;
                    return;
                };
                self.reserve(waiter, priority, None, effects);
            }
            Some(reason) => {
                self.refuse_queue(reason, effects);
                self.go(effects);
            }
        }
    }

    pub(super) fn refuse_queue(&mut self, reason: RefuseReason, effects: &mut Vec<DriverEffect>) {
        let Some(mut queue) = self.queue.take() else { return };
        while let Some((_, waiter)) = queue.pop() {
            let Waiter { request_id, node, ask } = waiter;
            let event = RequestEvent::Unavailable {
                driver_id: self.id.clone(),
                ask,
                reason,
            };
            effects.push(DriverEffect::Asked {
                node,
                request_id,
                event,
            });
        }
    }

    /// A word about a trip has its answer: that is not the driver's.
    pub(super) fn no_such_trip(&mut self, effects: &mut Vec<DriverEffect>) {
        self.answered();
        self.send(ToSocket::NoSuchTrip, effects);
    }

    /// A word of the socket about a trip has its answer.
    pub(super) fn answered(&mut self) {
        self.answers_due = self.answers_due.saturating_sub(1);
    }

    pub(super) fn trip(
        &mut self,
        request_id: RequestId,
        trip_id: TripId,
        phase: TripPhase,
        reason: Option<Box<str>>,
        again: bool,
        effects: &mut Vec<DriverEffect>,
    ) {
        let is_own_word = match phase {
            TripPhase::EnRoute => false,
            TripPhase::OnTrip => true,
            TripPhase::Ended(outcome) => outcome != TripOutcome::Cancelled,
        };
        // Said again it is the truth as well: what was said first may have been lost between two nodes.
        let mut bound = self.bound.as_mut().filter(|bound| bound.trip_id == trip_id);
        let is_answer = again || is_own_word;
        let is_owed = is_answer && self.answers_due > 0 && (again || bound.is_none());
        if is_answer {
            self.answers_due = self.answers_due.saturating_sub(1);
        }
        let Some(bound) = &mut bound else {
            return self.tell_state(is_owed, effects);
        };
        match phase {
            TripPhase::EnRoute => bound.heard(false),
            TripPhase::OnTrip => bound.heard(true),
            TripPhase::Ended(outcome) => {
                self.bound = None;
                if outcome == TripOutcome::Cancelled {
                    self.send(
                        ToSocket::TripCancelled {
                            trip_id,
                            request_id,
                            reason,
                        },
                        effects,
                    );
                }
                return self.freed(effects);
            }
        }
        self.tell_state(is_owed, effects);
    }
}
