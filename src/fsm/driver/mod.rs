//! The driver actor: one session, one state, one reservation.
//!
//! A driver is reserved for at most one (request, attempt) at a time, and the request alone decides how that
//! attempt ends; the actor reports what the driver says and does what the request tells it.
//!
//! Must never: free a reservation on its own account (but a reservation without an offer), decide an offer's
//! outcome, or tell the socket a state before what caused it.
//! An idle driver is this struct: no heap but a long id's, its location's and what it is bound to.

mod life;
mod messages;
mod moves;
mod requests;

pub use messages::{CloseCause, DriverEffect, DriverEvent, Location, ToSocket};

use super::ids::{DriverId, RequestId, TripId};
use super::queue::ClassQueue;
use super::request::{Answer, Asker, RequestEvent, TripMove};
use super::types::{DriverState, Priority, RefuseReason, UnixMs};
use std::sync::Arc;

/// Heartbeats missed, in intervals, after which a socket is closed (4004).
pub const HEARTBEATS_MISSED_MAX: u64 = 2;

/// What the node's configuration gives to every driver.
#[derive(Clone, Copy, Debug)]
pub struct DriverLimits {
    /// `heartbeat_ms`: silence of [`HEARTBEATS_MISSED_MAX`] of them loses the socket.
    pub heartbeat_ms: u32,
    /// `driver_ttl_ms`: how long a driver without a socket keeps its state.
    pub driver_ttl_ms: u64,
    /// `off_shift_memory_ms`: how long "off shift on purpose" outlives the socket.
    pub off_shift_memory_ms: u64,
    /// Ageing step of the driver's queue of waiting requests.
    pub age_step_ms: u64,
}

impl DriverLimits {
    /// Silence that loses the socket.
    const fn silence_ms_max(&self) -> u64 {
        HEARTBEATS_MISSED_MAX * self.heartbeat_ms as u64
    }
}

/// The reservation.
#[derive(Clone, Debug)]
struct Held {
    request_id: RequestId,
    /// Of a reservation: number of the node that has asked.
    node: u16,
    /// 0: reserved only, the offer is still being stored.
    attempt: u32,
    priority: Priority,
    expires_at_ms: UnixMs,
    trip: Option<Arc<str>>,
    delivered: bool,
    /// The driver has said that it has it.
    acked: bool,
    /// What the driver's home said of it to the request: until the request decides, the driver may have it.
    answer: Option<Answer>,
}

/// A request in the queue.
#[derive(Clone, Debug)]
struct Waiter {
    request_id: RequestId,
    /// Number of the node that asks.
    node: u16,
    /// Number of the ask that is answered when its turn comes.
    ask: u32,
}

#[derive(Clone, Debug)]
struct Bound {
    request_id: RequestId,
    trip_id: TripId,
    on_trip: bool,
    /// What the driver said of the trip last that would change it: until its request says that it has, that may be lost.
    said: Option<TripMove>,
}

/// The actor.
#[derive(Debug)]
pub struct Driver {
    id: DriverId,
    /// 0: no socket.
    session: u64,
    last_heard_ms: UnixMs,
    /// 0: on shift.
    off_shift_since_ms: UnixMs,
    held: Option<Box<Held>>,
    bound: Option<Box<Bound>>,
    queue: Option<Box<ClassQueue<Waiter>>>,
    location: Option<Box<Location>>,
    /// Within the TTL after the loss of the socket (or connected).
    present: bool,
    /// The state that the socket last heard.
    told: DriverState,
    /// Words of its sockets about trips that may still be owed an answer: those of an earlier one are answered as well. What the home
    /// says again on its own account, as a word may have been lost between two nodes, is owed none.
    answers_due: u8,
}

impl Driver {
    /// A driver that is not connected. `off_shift_since_ms` is what the store remembers, 0 for nothing.
    pub fn new(id: DriverId, off_shift_since_ms: UnixMs) -> Self {
        Self {
            id,
            session: 0,
            last_heard_ms: 0,
            off_shift_since_ms,
            held: None,
            bound: None,
            queue: None,
            location: None,
            present: false,
            told: DriverState::Offline,
            answers_due: 0,
        }
    }

    /// The id.
    pub fn id(&self) -> &DriverId {
        &self.id
    }

    /// The session of the socket, if there is one.
    pub fn session(&self) -> Option<u64> {
        (self.session != 0).then_some(self.session)
    }

    /// Whether an offer is on its way to the socket and nobody was told yet that it arrived.
    pub fn awaits_delivery(&self) -> bool {
        self.session != 0
            && self
                .held
                .as_ref()
                .is_some_and(|held| held.attempt > 0 && !held.delivered)
    }

    /// Since when the driver is off shift on purpose, 0 for on shift.
    pub fn off_shift_since_ms(&self) -> UnixMs {
        self.off_shift_since_ms
    }

    /// When the driver was last heard.
    pub fn last_heard_ms(&self) -> UnixMs {
        self.last_heard_ms
    }

    /// Where the driver said it is.
    pub fn location(&self) -> Option<Location> {
        self.location.as_deref().copied()
    }

    /// The trip.
    pub fn trip_id(&self) -> Option<&TripId> {
        self.bound.as_ref().map(|bound| &bound.trip_id)
    }

    /// The offer: request, attempt, expiry. Beside a trip there is none but one that was answered before, which nobody is shown.
    pub fn offer(&self) -> Option<(&RequestId, u32, UnixMs)> {
        let held = self
            .held
            .as_ref()
            .filter(|held| held.attempt > 0 && self.bound.is_none())?;
        Some((&held.request_id, held.attempt, held.expires_at_ms))
    }

    /// The request whose offer the driver holds or whose trip it has.
    pub fn at_hand(&self) -> Option<&RequestId> {
        match (&self.bound, &self.held) {
            (Some(bound), _) => Some(&bound.request_id),
            (None, Some(held)) => Some(&held.request_id),
            (None, None) => None,
        }
    }

    /// Whether the driver is reserved for this request, which has not made its offer.
    pub fn is_reserved_for(&self, request_id: &RequestId) -> bool {
        let is_own = |held: &Held| held.attempt == 0 && held.request_id == *request_id;
        self.held.as_deref().is_some_and(is_own)
    }

    /// Whether the driver has said something of what is at hand that its request may not have heard.
    pub fn has_said(&self) -> bool {
        match (&self.bound, &self.held) {
            (Some(bound), _) => bound.said.is_some(),
            (None, held) => held.as_ref().is_some_and(|held| held.answer.is_some()),
        }
    }

    /// The state.
    pub fn state(&self) -> DriverState {
        match (&self.bound, &self.held) {
            (Some(bound), _) if bound.on_trip => DriverState::OnTrip,
            (Some(_), _) => DriverState::EnRoute,
            (None, Some(_)) => DriverState::Offered,
            (None, None) if self.present && self.off_shift_since_ms == 0 => DriverState::Available,
            (None, None) => DriverState::Offline,
        }
    }

    /// Whether nothing is known of the driver: never heard, bound to nothing, nobody waits.
    pub fn is_unknown(&self) -> bool {
        !self.present && self.session == 0 && self.held.is_none() && self.bound.is_none() && self.queue.is_none()
    }

    /// Heap bytes of the actor, for the memory account.
    pub fn heap_bytes(&self) -> usize {
        let boxed = |there: bool, bytes: usize| if there { bytes } else { 0 };
        boxed(self.held.is_some(), size_of::<Held>())
            + boxed(self.bound.is_some(), size_of::<Bound>())
            + boxed(self.location.is_some(), size_of::<Location>())
    }

    /// One event.
    pub fn step(&mut self, event: DriverEvent, now_ms: UnixMs, limits: &DriverLimits, effects: &mut Vec<DriverEffect>) {
        match event {
            DriverEvent::Connected { session } => self.connected(session, now_ms, limits, effects),
            DriverEvent::Disconnected { session } => self.disconnected(session, now_ms, limits, effects),
            DriverEvent::Heard => self.last_heard_ms = now_ms,
            DriverEvent::SetState { available } => self.set_state(available, now_ms, effects),
            DriverEvent::At(location) => match &mut self.location {
                Some(known) => **known = location,
                None => self.location = Some(Box::new(location)),
            },
            DriverEvent::Ack { request_id, attempt } => {
                self.deliver(&request_id, effects);
                let held = self.holds(&request_id, attempt);
                if let Some(offer) = self.held.as_mut().filter(|_| held) {
                    offer.acked = true;
                }
                let driver_id = self.id.clone();
                let event = RequestEvent::Acked {
                    attempt,
                    driver_id,
                    held,
                };
                effects.push(DriverEffect::Request { request_id, event });
            }
            DriverEvent::Answer {
                request_id,
                attempt,
                answer,
                reason,
            } => {
                self.deliver(&request_id, effects);
                let holds = self.holds(&request_id, attempt);
                let answer = match answer {
                    Answer::Accept if holds => Answer::AcceptHeld,
                    Answer::Decline if holds => Answer::DeclineHeld,
                    other => other,
                };
                self.answer(request_id, attempt, answer, reason, Asker::Driver, effects);
            }
            DriverEvent::Trip { trip_id, what } => {
                if what != TripMove::Arrived || self.trip_id() != Some(&trip_id) {
                    self.answers_due = self.answers_due.saturating_add(1);
                }
                if let Some(bound) = self.bound.as_mut().filter(|bound| bound.trip_id == trip_id)
                    && what != TripMove::Arrived
                {
                    bound.said = Some(what);
                }
                effects.push(DriverEffect::TripMoved { trip_id, what });
            }
            DriverEvent::NoSuchTrip => self.no_such_trip(effects),
            DriverEvent::Written => {
                if let Some(request_id) = self.held.as_ref().map(|held| held.request_id.clone()) {
                    self.deliver(&request_id, effects);
                }
            }
            DriverEvent::Request {
                node,
                request_id,
                message,
            } => {
                self.request(node, request_id, message, now_ms, limits, effects);
            }
            DriverEvent::Moved => self.moved(effects),
            DriverEvent::Doubt => self.doubt(effects),
            DriverEvent::Overdue => self.overdue(effects),
            DriverEvent::Timer => self.timer(now_ms, limits, effects),
        }
    }

    fn holds(&self, request_id: &RequestId, attempt: u32) -> bool {
        let own = |held: &Held| held.request_id == *request_id && held.attempt == attempt;
        self.held.as_deref().is_some_and(own)
    }

    fn answer(
        &mut self,
        request_id: RequestId,
        attempt: u32,
        answer: Answer,
        reason: Option<Box<str>>,
        asker: Asker,
        effects: &mut Vec<DriverEffect>,
    ) {
        if matches!(answer, Answer::AcceptHeld | Answer::DeclineHeld)
            && let Some(held) = self.held.as_mut().filter(|held| held.request_id == request_id)
        {
            held.answer = held.answer.or(Some(answer));
        }
        let (driver_id, attempt) = (self.id.clone(), Some(attempt));
        let event = RequestEvent::Answered {
            driver_id,
            attempt,
            answer,
            reason,
            asker,
        };
        effects.push(DriverEffect::Request { request_id, event });
    }

    /// Tells the request once that its offer reached the socket.
    fn deliver(&mut self, request_id: &RequestId, effects: &mut Vec<DriverEffect>) {
        let driver_id = self.id.clone();
        let Some(held) = self.held.as_mut().filter(|held| held.request_id == *request_id) else {
            return;
        };
        if held.delivered || held.attempt == 0 || self.session == 0 {
            return;
        }
        held.delivered = true;
        let event = RequestEvent::Delivered {
            attempt: held.attempt,
            driver_id,
        };
        effects.push(DriverEffect::Request {
            request_id: held.request_id.clone(),
            event,
        });
    }

    /// Why the driver cannot be reserved now.
    fn refusal(&self) -> Option<RefuseReason> {
        match self.state() {
            DriverState::Available => None,
            DriverState::Offline => Some(RefuseReason::Offline),
            DriverState::Offered => Some(RefuseReason::Offered),
            DriverState::EnRoute => Some(RefuseReason::EnRoute),
            DriverState::OnTrip => Some(RefuseReason::OnTrip),
        }
    }

    /// Shows the offer; not beside a trip: then it was answered before.
    fn send_offer(&self, effects: &mut Vec<DriverEffect>) {
        let Some(held) = self.held.as_ref().filter(|_| self.bound.is_none()) else {
            return;
        };
        let Some(trip) = &held.trip else { return };
        let offer = ToSocket::Offer {
            request_id: held.request_id.clone(),
            attempt: held.attempt,
            priority: held.priority,
            expires_at_ms: held.expires_at_ms,
            trip: trip.clone(),
        };
        self.send(offer, effects);
    }

    fn send(&self, message: ToSocket, effects: &mut Vec<DriverEffect>) {
        if self.session != 0 {
            effects.push(DriverEffect::Send(message));
        }
    }

    /// Tells the state when it changed, or in any case as an answer. An offer comes and goes without.
    fn tell_state(&mut self, answer: bool, effects: &mut Vec<DriverEffect>) {
        let state = without_offer(self.state());
        if answer || state != self.told {
            self.told = state;
            let trip_id = self.trip_id().cloned();
            self.send(ToSocket::State { state, trip_id }, effects);
        }
    }
}

/// The state as `STATE` tells it: `offered` comes and goes with OFFER and its end.
fn without_offer(state: DriverState) -> DriverState {
    if state == DriverState::Offered {
        DriverState::Available
    } else {
        state
    }
}
