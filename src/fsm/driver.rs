//! The driver actor: one session, one state, one reservation.
//!
//! A driver is reserved for at most one (request, attempt) at a time, and the request alone decides how that
//! attempt ends; the actor reports what the driver says and does what the request tells it.
//!
//! Must never: free a reservation on its own account (but a reservation without an offer), decide an offer's
//! outcome, or tell the socket a state before what caused it.
//! An idle driver is this struct: no heap but a long id's, its location's and what it is bound to.

use super::fold::{Outcome, TripPhase};
use super::ids::{DriverId, RequestId, TripId};
use super::queue::ClassQueue;
use super::request::{Answer, Asker, RequestEvent, Resumed, ToDriver, TripMove};
use super::types::{DriverState, Priority, RefuseReason, RevokeReason, UnixMs};
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

/// Where a driver is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Location {
    /// Degrees north, −90 to 90.
    pub lat: f64,
    /// Degrees east, −180 to 180.
    pub lon: f64,
    /// Degrees from north, 0 to 360.
    pub heading: Option<f32>,
    /// Metres per second, ≥ 0.
    pub speed: Option<f32>,
}

/// What happens to a driver.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum DriverEvent {
    /// A socket completed its handshake.
    Connected { session: u64 },
    /// The socket of that session is gone.
    Disconnected { session: u64 },
    /// Something was heard (a heartbeat at least).
    Heard,
    /// `STATE`
    SetState { available: bool },
    /// `LOCATION`
    At(Location),
    /// `ACK`
    Ack { request_id: RequestId, attempt: u32 },
    /// `ACCEPT` or `DECLINE`
    Answer {
        request_id: RequestId,
        attempt: u32,
        answer: Answer,
        reason: Option<Box<str>>,
    },
    /// `TRIP`
    Trip { trip_id: TripId, what: TripMove },
    /// Everything sent so far was written to the socket.
    Written,
    /// A request speaks.
    Request { request_id: RequestId, message: ToDriver },
    /// The time that was armed has come.
    Timer,
}

/// What the driver's socket is told; the shard encodes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum ToSocket {
    /// `WELCOME`
    Welcome {
        session: u64,
        state: DriverState,
        trip_id: Option<TripId>,
    },
    /// `OFFER`
    Offer {
        request_id: RequestId,
        attempt: u32,
        priority: Priority,
        expires_at_ms: UnixMs,
        trip: Arc<str>,
    },
    /// `CONFIRMED`
    Confirmed {
        request_id: RequestId,
        attempt: u32,
        trip_id: TripId,
    },
    /// `DECLINED`
    Declined { request_id: RequestId, attempt: u32 },
    /// `REVOKED`
    Revoked {
        request_id: RequestId,
        attempt: u32,
        reason: RevokeReason,
    },
    /// `STATE`
    State {
        state: DriverState,
        trip_id: Option<TripId>,
    },
    /// `TRIP_CANCELLED`
    TripCancelled {
        trip_id: TripId,
        request_id: RequestId,
        reason: Option<Box<str>>,
    },
    /// `ERROR` `no_such_offer`
    NoSuchOffer { request_id: RequestId },
    /// `ERROR` `no_such_trip`
    NoSuchTrip { trip_id: TripId },
}

/// Why the actor has its socket closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// 4001: the same driver connected again.
    Displaced,
    /// 4004: silence.
    HeartbeatLost,
}

/// What the shard does for the actor, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum DriverEffect {
    /// Send on the socket.
    Send(ToSocket),
    /// Close the socket of this session.
    Close { session: u64, cause: CloseCause },
    /// Tell a request.
    Request { request_id: RequestId, event: RequestEvent },
    /// Ask the request that made this trip.
    TripMoved { trip_id: TripId, what: TripMove },
    /// Wake me with [`DriverEvent::Timer`] at this time instead of any earlier one; `None`: never.
    Arm { at_ms: Option<UnixMs> },
    /// Remember (without waiting) that the driver was seen.
    Seen { at_ms: UnixMs },
    /// Remember (without waiting) that the driver went off shift or came back.
    OffShift { off: bool, at_ms: UnixMs },
    /// Nothing is left to know of this driver but what the store knows.
    Gone,
}

/// The reservation.
#[derive(Clone, Debug)]
struct Held {
    request_id: RequestId,
    /// 0: reserved only, the offer is still being stored.
    attempt: u32,
    priority: Priority,
    expires_at_ms: UnixMs,
    trip: Option<Arc<str>>,
    delivered: bool,
}

#[derive(Clone, Debug)]
struct Bound {
    trip_id: TripId,
    on_trip: bool,
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
    queue: Option<Box<ClassQueue<RequestId>>>,
    location: Option<Box<Location>>,
    /// Within the TTL after the loss of the socket (or connected).
    present: bool,
    /// The state that the socket last heard.
    told: DriverState,
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

    /// The offer: request, attempt, expiry.
    pub fn offer(&self) -> Option<(&RequestId, u32, UnixMs)> {
        let held = self.held.as_ref().filter(|held| held.attempt > 0)?;
        Some((&held.request_id, held.attempt, held.expires_at_ms))
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
                let driver_id = self.id.clone();
                effects.push(DriverEffect::Request {
                    request_id,
                    event: RequestEvent::Acked { attempt, driver_id },
                });
            }
            DriverEvent::Answer {
                request_id,
                attempt,
                answer,
                reason,
            } => {
                self.deliver(&request_id, effects);
                let holds = |held: &Held| held.request_id == request_id && held.attempt == attempt;
                let answer = match answer {
                    Answer::Accept if self.held.as_deref().is_some_and(holds) => Answer::AcceptHeld,
                    other => other,
                };
                self.answer(request_id, attempt, answer, reason, Asker::Driver, effects);
            }
            DriverEvent::Trip { trip_id, what } => effects.push(DriverEffect::TripMoved { trip_id, what }),
            DriverEvent::Written => {
                if let Some(request_id) = self.held.as_ref().map(|held| held.request_id.clone()) {
                    self.deliver(&request_id, effects);
                }
            }
            DriverEvent::Request { request_id, message } => {
                self.request(request_id, message, now_ms, limits, effects);
            }
            DriverEvent::Timer => self.timer(now_ms, limits, effects),
        }
    }

    fn connected(&mut self, session: u64, now_ms: UnixMs, limits: &DriverLimits, effects: &mut Vec<DriverEffect>) {
        assert!(session > self.session, "a session grows with every connect");
        if self.session != 0 {
            effects.push(DriverEffect::Close {
                session: self.session,
                cause: CloseCause::Displaced,
            });
        }
        self.session = session;
        self.present = true;
        self.last_heard_ms = now_ms;
        if self.off_shift_since_ms != 0 && now_ms - self.off_shift_since_ms.min(now_ms) >= limits.off_shift_memory_ms {
            self.off_shift_since_ms = 0;
            effects.push(DriverEffect::OffShift {
                off: false,
                at_ms: now_ms,
            });
        }
        let state = self.state();
        effects.push(DriverEffect::Send(ToSocket::Welcome {
            session,
            state,
            trip_id: self.trip_id().cloned(),
        }));
        self.told = without_offer(state);
        self.send_offer(effects);
        effects.push(DriverEffect::Arm {
            at_ms: Some(now_ms + limits.silence_ms_max()),
        });
    }

    fn disconnected(&mut self, session: u64, now_ms: UnixMs, limits: &DriverLimits, effects: &mut Vec<DriverEffect>) {
        if session != self.session {
            return; // A displaced socket; the driver has a newer one.
        }
        self.session = 0;
        if let Some(held) = &mut self.held {
            held.delivered = false;
        }
        effects.push(DriverEffect::Arm {
            at_ms: Some(now_ms + limits.driver_ttl_ms),
        });
    }

    fn timer(&mut self, now_ms: UnixMs, limits: &DriverLimits, effects: &mut Vec<DriverEffect>) {
        if self.session != 0 {
            let due_ms = self.last_heard_ms + limits.silence_ms_max();
            if now_ms < due_ms {
                return effects.push(DriverEffect::Arm { at_ms: Some(due_ms) });
            }
            let cause = CloseCause::HeartbeatLost;
            effects.push(DriverEffect::Close {
                session: self.session,
                cause,
            });
            return self.disconnected(self.session, now_ms, limits, effects);
        }
        self.present = false;
        self.told = without_offer(self.state());
        self.refuse_queue(RefuseReason::Offline, effects);
        effects.push(DriverEffect::Arm { at_ms: None });
        self.go(effects);
    }

    /// Forgets a driver of whom nothing is left to know.
    fn go(&self, effects: &mut Vec<DriverEffect>) {
        if !self.present && self.held.is_none() && self.bound.is_none() && self.queue.is_none() {
            if self.last_heard_ms != 0 {
                effects.push(DriverEffect::Seen {
                    at_ms: self.last_heard_ms,
                });
            }
            effects.push(DriverEffect::Gone);
        }
    }

    fn set_state(&mut self, available: bool, now_ms: UnixMs, effects: &mut Vec<DriverEffect>) {
        if available != (self.off_shift_since_ms == 0) {
            self.off_shift_since_ms = if available { 0 } else { now_ms.max(1) };
            effects.push(DriverEffect::OffShift {
                off: !available,
                at_ms: now_ms,
            });
        }
        if self.decline_off_shift(effects) {
            return;
        }
        if self.held.is_some() && !available {
            // Reserved, not offered yet: the state follows in a moment, when the offer is refused.
            return;
        }
        self.tell_state(true, effects);
    }

    fn answer(
        &self,
        request_id: RequestId,
        attempt: u32,
        answer: Answer,
        reason: Option<Box<str>>,
        asker: Asker,
        effects: &mut Vec<DriverEffect>,
    ) {
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

    fn request(
        &mut self,
        request_id: RequestId,
        message: ToDriver,
        now_ms: UnixMs,
        limits: &DriverLimits,
        effects: &mut Vec<DriverEffect>,
    ) {
        match message {
            ToDriver::Ask { priority } => self.reserve(request_id, priority, None, effects),
            ToDriver::Wait { priority } => self.reserve(request_id, priority, Some((now_ms, limits)), effects),
            ToDriver::Release => self.release(&request_id, effects),
            ToDriver::Offer {
                attempt,
                priority,
                expires_at_ms,
                trip,
                resumed,
            } => {
                let held = Held {
                    request_id,
                    attempt,
                    priority,
                    expires_at_ms,
                    trip: Some(trip),
                    delivered: resumed == Resumed::Delivered,
                };
                self.offered(held, resumed, effects);
            }
            // Whatever this driver refused, the request has heard before this answer.
            ToDriver::Accept { attempt, asker } => {
                self.answer(request_id, attempt, Answer::AcceptHeld, None, asker, effects);
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
            ToDriver::NoSuchTrip { trip_id } => self.send(ToSocket::NoSuchTrip { trip_id }, effects),
            ToDriver::Bound { trip_id, phase } => {
                assert!(self.bound.is_none(), "one trip for each driver");
                let on_trip = phase == TripPhase::OnTrip;
                self.bound = Some(Box::new(Bound { trip_id, on_trip }));
                self.told = self.state();
                // An offer that was about to be refused, when no journal said so yet.
                if let (Some(offer), Some(reason)) = (self.held.take(), self.refusal()) {
                    self.refuse(*offer, reason, effects);
                }
            }
        }
    }

    /// Reserves a free driver; a driver who holds another offer is busy, or gets the request into its queue.
    fn reserve(
        &mut self,
        request_id: RequestId,
        priority: Priority,
        wait: Option<(UnixMs, &DriverLimits)>,
        effects: &mut Vec<DriverEffect>,
    ) {
        let driver_id = self.id.clone();
        let event = match self.refusal() {
            None => {
                let expires_at_ms = 0;
                let held = Held {
                    request_id: request_id.clone(),
                    attempt: 0,
                    priority,
                    expires_at_ms,
                    trip: None,
                    delivered: false,
                };
                self.held = Some(Box::new(held));
                RequestEvent::Reserved { driver_id }
            }
            Some(RefuseReason::Offered) => match wait {
                None => RequestEvent::Busy { driver_id },
                Some((now_ms, limits)) => {
                    let queue = self
                        .queue
                        .get_or_insert_with(|| Box::new(ClassQueue::new(limits.age_step_ms)));
                    return queue.push(priority, now_ms, request_id);
                }
            },
            Some(reason) => RequestEvent::Unavailable { driver_id, reason },
        };
        effects.push(DriverEffect::Request { request_id, event });
    }

    fn release(&mut self, request_id: &RequestId, effects: &mut Vec<DriverEffect>) {
        if let Some(queue) = &mut self.queue {
            queue.remove(|waiting| waiting == request_id);
        }
        if self
            .held
            .as_ref()
            .is_some_and(|held| held.request_id == *request_id && held.attempt == 0)
        {
            self.held = None;
            self.freed(effects);
        }
    }

    fn offered(&mut self, offer: Held, resumed: Resumed, effects: &mut Vec<DriverEffect>) {
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

    /// An offer from before the restart waits for the reconnect. Of several, the driver held one: the others were
    /// about to be refused, and no journal says so. It is not one of them that reached the socket.
    fn resumed(&mut self, offer: Held, effects: &mut Vec<DriverEffect>) {
        assert!(self.session == 0, "drivers are bound before anybody is served");
        let refusal = match (&self.bound, &self.held) {
            (Some(_), _) => self.refusal(),
            (None, Some(_)) if !offer.delivered => Some(RefuseReason::Offered),
            (None, None) if !offer.delivered && self.off_shift_since_ms != 0 => Some(RefuseReason::Offline),
            (None, _) => None,
        };
        if let Some(reason) = refusal {
            return self.refuse(offer, reason, effects);
        }
        if let Some(other) = self.held.replace(Box::new(offer)) {
            self.refuse(*other, RefuseReason::Offered, effects);
        }
        // Gone off shift with the offer in hand, when no journal said so yet.
        self.decline_off_shift(effects);
    }

    fn refuse(&self, offer: Held, reason: RefuseReason, effects: &mut Vec<DriverEffect>) {
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

    /// Who goes off shift does not take the offer; says whether there is one.
    fn decline_off_shift(&self, effects: &mut Vec<DriverEffect>) -> bool {
        let Some((request_id, attempt, _)) = self.offer().filter(|_| self.off_shift_since_ms != 0) else {
            return false;
        };
        let reason = Some("off shift".into());
        self.answer(
            request_id.clone(),
            attempt,
            Answer::Decline,
            reason,
            Asker::Driver,
            effects,
        );
        true
    }

    fn outcome(
        &mut self,
        request_id: RequestId,
        attempt: u32,
        outcome: Outcome,
        trip_id: Option<TripId>,
        again: bool,
        effects: &mut Vec<DriverEffect>,
    ) {
        let own = |held: &Held| held.request_id == request_id && held.attempt == attempt;
        let ends = !again && self.held.as_deref().is_some_and(own);
        if !again && !ends {
            // The offer was refused, the request decided before it heard so: the app never saw it.
            return;
        }
        if ends {
            self.held = None;
        }
        match (outcome, trip_id) {
            (Outcome::Accepted, Some(trip_id)) => {
                if ends {
                    assert!(self.bound.is_none(), "one trip for each driver");
                    self.bound = Some(Box::new(Bound {
                        trip_id: trip_id.clone(),
                        on_trip: false,
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

    /// After the end of a reservation or a trip: tell the state, and serve who waits.
    fn freed(&mut self, effects: &mut Vec<DriverEffect>) {
        debug_assert!(self.held.is_none());
        self.tell_state(false, effects);
        match self.refusal() {
            None => {
                let Some((priority, request_id)) = self.queue.as_mut().and_then(|queue| queue.pop()) else {
                    self.queue = None;
                    return;
                };
                self.reserve(request_id, priority, None, effects);
            }
            Some(reason) => {
                self.refuse_queue(reason, effects);
                self.go(effects);
            }
        }
    }

    fn refuse_queue(&mut self, reason: RefuseReason, effects: &mut Vec<DriverEffect>) {
        let Some(mut queue) = self.queue.take() else { return };
        while let Some((_, request_id)) = queue.pop() {
            let event = RequestEvent::Unavailable {
                driver_id: self.id.clone(),
                reason,
            };
            effects.push(DriverEffect::Request { request_id, event });
        }
    }

    fn trip(
        &mut self,
        request_id: RequestId,
        trip_id: TripId,
        phase: TripPhase,
        reason: Option<Box<str>>,
        again: bool,
        effects: &mut Vec<DriverEffect>,
    ) {
        if again {
            return self.tell_state(true, effects);
        }
        let Some(bound) = self.bound.as_mut().filter(|bound| bound.trip_id == trip_id) else {
            return;
        };
        match phase {
            TripPhase::EnRoute => bound.on_trip = false,
            TripPhase::OnTrip => bound.on_trip = true,
            TripPhase::Ended(outcome) => {
                self.bound = None;
                if outcome == super::types::TripOutcome::Cancelled {
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
        self.tell_state(false, effects);
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

    fn send_offer(&self, effects: &mut Vec<DriverEffect>) {
        let Some(held) = &self.held else { return };
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
