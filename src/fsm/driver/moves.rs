//! What a driver is bound to from elsewhere: from before a restart, or from the node that had it before. And what becomes
//! of that when the driver goes to another node, or when its request's node was away.

use super::{Bound, Driver, DriverEffect, Held, ToSocket, without_offer};
use crate::fsm::fold::{Outcome, TripPhase};
use crate::fsm::ids::{RequestId, TripId};
use crate::fsm::request::{Answer, RequestEvent, TripMove};
use crate::fsm::types::{RefuseReason, RevokeReason};

impl Bound {
    /// The request says how far the trip is: a pickup has been heard then, its end not before it is over.
    pub(super) fn heard(&mut self, on_trip: bool) {
        self.on_trip = on_trip;
        if on_trip {
            self.said.take_if(|what| *what == TripMove::Pickup);
        }
    }
}

impl Driver {
    /// The driver has this trip: after a restart, or when it has come from another node. No history of a sound node has two;
    /// should a directory hold them all the same, the one with somebody on board stands, else the one that was heard of
    /// first. The other stays with its request: it can be ended there, by the driver too, and binds nobody.
    ///
    /// An offer that the driver has answered stays, since its request alone decides about that: no driver is bound twice, so an
    /// acceptance that stands is newer than this trip, which is over then.
    pub(super) fn rebound(
        &mut self,
        request_id: &RequestId,
        attempt: u32,
        trip_id: TripId,
        phase: TripPhase,
        effects: &mut Vec<DriverEffect>,
    ) {
        let on_trip = phase == TripPhase::OnTrip;
        if let Some(bound) = self.bound.as_mut().filter(|bound| bound.trip_id == trip_id) {
            let is_answer = on_trip && !bound.on_trip;
            bound.heard(on_trip);
            if is_answer {
                self.answered();
            }
            return self.tell_state(false, effects);
        }
        let is_connected = self.session != 0;
        let is_own_offer = self.held.as_ref().is_some_and(|held| held.request_id == *request_id);
        let is_first = |other: &Bound| other.on_trip || !on_trip || is_connected;
        if !is_own_offer && self.bound.as_deref().is_some_and(is_first) {
            return;
        }
        let offer = self.held.take_if(|held| is_own_offer || held.answer.is_none());
        if is_own_offer {
            self.end_of_other(effects);
        }
        self.bound = Some(Box::new(Bound {
            request_id: request_id.clone(),
            trip_id: trip_id.clone(),
            on_trip,
            said: None,
        }));
        if is_connected {
            let confirmed = ToSocket::Confirmed {
                request_id: request_id.clone(),
                attempt,
                trip_id,
            };
            self.send(confirmed, effects);
            self.tell_state(false, effects);
        } else {
            self.told = self.state();
        }
        // An offer that was about to be refused, when no journal said so yet; or that was made where nobody knew of the trip.
        if let (Some(offer), Some(reason)) = (offer.filter(|offer| offer.request_id != *request_id), self.refusal()) {
            self.take_back(*offer, reason, effects);
        }
        if let Some(reason) = self.refusal() {
            self.refuse_queue(reason, effects);
        }
    }

    /// An acceptance of the driver stands, and no driver is bound twice: the trip that it had here is over, which is on its way.
    pub(super) fn end_of_other(&mut self, effects: &mut Vec<DriverEffect>) {
        if self.bound.take().is_some() {
            self.tell_state(false, effects);
        }
    }

    /// An offer from before the restart waits for the reconnect. Of several, the driver held one: the others were
    /// about to be refused, and no journal says so. It is not one of them that reached the socket. One that comes after a
    /// driver who is connected already is shown, unless there is another.
    pub(super) fn resumed(&mut self, offer: Held, effects: &mut Vec<DriverEffect>) {
        let is_own = |held: &Held| held.request_id == offer.request_id && held.attempt == 0;
        if self.held.as_deref().is_some_and(is_own) {
            self.held = None;
        }
        let is_taken = self.session != 0 || !offer.delivered;
        let refusal = match (&self.bound, &self.held) {
            (Some(_), _) => self.refusal(),
            (None, Some(_)) if is_taken => Some(RefuseReason::Offered),
            (None, None) if !offer.delivered && self.off_shift_since_ms != 0 => Some(RefuseReason::Offline),
            (None, _) => None,
        };
        if let Some(reason) = refusal {
            return self.refuse(offer, reason, effects);
        }
        // A reservation just ends: the offer that it was for is refused when it comes.
        if let Some(other) = self.held.replace(Box::new(offer)).filter(|other| other.attempt != 0) {
            self.refuse(*other, RefuseReason::Offered, effects);
        }
        if let Some(held) = self.held.as_mut().filter(|_| self.session != 0) {
            held.delivered = false;
        }
        self.send_offer(effects);
        // Gone off shift with the offer in hand, when no journal said so yet.
        self.decline_off_shift(effects);
    }

    /// Gives an offer back that the driver may have seen.
    fn take_back(&mut self, offer: Held, reason: RefuseReason, effects: &mut Vec<DriverEffect>) {
        if offer.attempt == 0 {
            return;
        }
        let revoked = ToSocket::Revoked {
            request_id: offer.request_id.clone(),
            attempt: offer.attempt,
            reason: RevokeReason::Superseded,
        };
        self.send(revoked, effects);
        effects.push(DriverEffect::TakenBack {
            request_id: offer.request_id.clone(),
            attempt: offer.attempt,
            reason,
        });
        self.refuse(offer, reason, effects);
    }

    /// Another node has the driver. What binds it stays with its request, which tells the other node; who waits for the
    /// driver asks there.
    pub(super) fn moved(&mut self, effects: &mut Vec<DriverEffect>) {
        self.session = 0;
        self.present = false;
        let mut queue = self.queue.take();
        while let Some((_, waiter)) = queue.as_mut().and_then(|queue| queue.pop()) {
            let event = RequestEvent::Busy {
                driver_id: self.id.clone(),
                ask: waiter.ask,
            };
            effects.push(DriverEffect::Asked {
                node: waiter.node,
                request_id: waiter.request_id,
                event,
            });
        }
        match (&self.bound, &self.held) {
            (Some(bound), held) => {
                self.ask_request(&bound.request_id, None, None, effects);
                if let Some(held) = held {
                    self.ask_request(&held.request_id, Some(held.attempt), held.answer, effects);
                }
            }
            (None, Some(held)) => self.ask_request(&held.request_id, None, None, effects),
            (None, None) => {}
        }
        self.held = None;
        self.bound = None;
        self.told = without_offer(self.state());
        effects.push(DriverEffect::Arm { at_ms: None });
        self.go(effects);
    }

    /// Words may have been lost: the request is asked how it stands, and told what the driver has said of its offer, or of its trip.
    pub(super) fn doubt(&self, effects: &mut Vec<DriverEffect>) {
        if let Some(held) = &self.held {
            // Before the answer, which ends the offer.
            self.tell_receipt(held, effects);
            let attempt = Some(held.attempt).filter(|attempt| *attempt > 0);
            self.ask_request(&held.request_id, attempt, held.answer, effects);
        }
        let Some(bound) = &self.bound else { return };
        self.ask_request(&bound.request_id, None, None, effects);
        if let Some(what) = bound.said {
            let trip_id = bound.trip_id.clone();
            effects.push(DriverEffect::TripMoved { trip_id, what });
        }
    }

    /// Says again, as it may have been lost, that an offer has arrived.
    pub(super) fn tell_receipt(&self, held: &Held, effects: &mut Vec<DriverEffect>) {
        let (attempt, driver_id) = (held.attempt, self.id.clone());
        let delivered = RequestEvent::Delivered {
            attempt,
            driver_id: driver_id.clone(),
        };
        let acked = RequestEvent::Acked {
            attempt,
            driver_id,
            held: true,
        };
        let is_delivered = held.delivered || held.acked;
        let said = is_delivered.then_some(delivered).into_iter();
        effects.extend(said.chain(held.acked.then_some(acked)).map(|event| {
            let request_id = held.request_id.clone();
            DriverEffect::Request { request_id, event }
        }));
    }

    /// The time of the offer has been over for long and nobody can be asked. Without a word of the driver, it can only have ended by
    /// that: the driver is free. With one, the request alone knows what came of it.
    pub(super) fn overdue(&mut self, effects: &mut Vec<DriverEffect>) {
        let Some(held) = self.held.as_ref().filter(|held| held.answer.is_none()) else {
            return;
        };
        let (request_id, attempt) = (held.request_id.clone(), held.attempt);
        if attempt == 0 {
            let node = held.node;
            self.release(node, &request_id, effects);
        } else {
            self.outcome(request_id, attempt, Outcome::TimedOut, None, false, effects);
        }
    }

    pub(super) fn ask_request(
        &self,
        request_id: &RequestId,
        held: Option<u32>,
        answer: Option<Answer>,
        effects: &mut Vec<DriverEffect>,
    ) {
        let (request_id, driver_id) = (request_id.clone(), self.id.clone());
        let event = RequestEvent::DriverHere {
            driver_id,
            held,
            answer,
        };
        effects.push(DriverEffect::Request { request_id, event });
    }
}
