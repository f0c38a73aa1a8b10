//! Remembers what was promised to whom, and checks each effect against it as it is seen.

use super::client::Client;
use crate::world::{Seen, World, reply_of};
use dispatchd::fsm::driver::{DriverEffect, ToSocket};
use dispatchd::fsm::fold::{Fold, Outcome, TripPhase};
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::request::{ApiAnswer, ReplyTo, RequestEffect, RequestEvent, ToDriver};
use dispatchd::fsm::types::{DriverState, LogEntry, Priority, RefuseReason, RequestState, RevokeReason, Step, UnixMs};
use std::collections::{BTreeMap, BTreeSet};

/// What was said that must stay true.
#[derive(Clone, Debug)]
enum Promise {
    /// A 202 or a 200 of a `POST`.
    Known(RequestId),
    /// An attempt's outcome.
    Outcome(RequestId, u32, Outcome),
    /// An end other than `ACCEPTED`.
    End(RequestId, RequestState),
}

/// The letter that a driver was handed in a step.
#[derive(Clone, Debug)]
pub struct Trigger {
    pub from: RequestId,
    pub to: DriverId,
    pub message: ToDriver,
    /// The driver's state when it came.
    pub found: DriverState,
}

/// Someone who waits in a driver's queue.
#[derive(Clone, Debug)]
pub struct Waiter {
    priority: Priority,
    since_ms: UnixMs,
    request_id: RequestId,
}

impl Waiter {
    pub fn is(&self, request_id: &RequestId) -> bool {
        self.request_id == *request_id
    }
}

/// Everything remembered.
#[derive(Default)]
pub struct Witness {
    pub clients: BTreeMap<DriverId, Client>,
    /// Calls that were not answered yet.
    pub calls: BTreeSet<u64>,
    /// Who stands in which queue, as the driver's home sees it.
    pub queues: BTreeMap<DriverId, Vec<Waiter>>,
    /// Who waits for whom since when, as the request sees it.
    pub waits: BTreeMap<(RequestId, DriverId), UnixMs>,
    /// Who was ever waited for.
    waited: BTreeSet<(RequestId, DriverId)>,
    /// Whose wait for all drivers ended when.
    waited_out: BTreeMap<RequestId, UnixMs>,
    promises: Vec<Promise>,
    /// The durable part of each log when it was last looked at.
    logs: BTreeMap<RequestId, Vec<LogEntry>>,
}

impl Witness {
    pub fn called(&mut self, reply: ReplyTo) {
        assert!(self.calls.insert(reply.call));
    }

    pub fn client(&mut self, id: &DriverId) -> &mut Client {
        self.clients.entry(id.clone()).or_default()
    }

    /// The process died: nobody hears anything any more, nobody waits.
    pub fn crashed(&mut self) {
        self.calls.clear();
        self.queues.clear();
        self.waits.clear();
        self.clients.values_mut().for_each(Client::loses_socket);
    }

    /// What one step of the world did. `trigger`: the letter that a driver was handed in this step.
    pub fn look(&mut self, world: &mut World, trigger: Option<&Trigger>) {
        if let Some(trigger) = trigger {
            self.handed(world, trigger);
        }
        for seen in std::mem::take(&mut world.seen) {
            match &seen {
                Seen::Request(id, effect) => self.request(world, id, effect),
                Seen::Driver(id, effect) => self.driver(world, id, effect, trigger),
                Seen::Unknown(_, reply) => self.answered(*reply),
            }
        }
        self.keep_promises(world);
    }

    /// A letter changes a driver's queue before the driver's effects are looked at.
    fn handed(&mut self, world: &World, trigger: &Trigger) {
        let waiters = self.queues.entry(trigger.to.clone()).or_default();
        match trigger.message {
            ToDriver::Wait { priority, .. } if trigger.found == DriverState::Offered => waiters.push(Waiter {
                priority,
                since_ms: world.now_ms,
                request_id: trigger.from.clone(),
            }),
            ToDriver::Release => waiters.retain(|waiter| waiter.request_id != trigger.from),
            _ => {}
        }
    }

    fn answered(&mut self, reply: ReplyTo) {
        assert!(
            self.calls.remove(&reply.call),
            "call {} is answered twice, or was lost",
            reply.call
        );
    }

    fn request(&mut self, world: &World, id: &RequestId, effect: &RequestEffect) {
        if let Some((reply, answer)) = reply_of(effect) {
            self.answered(reply);
            return self.replied(world, id, answer);
        }
        match effect {
            RequestEffect::Persist { from, to, .. } => self.persisted(world, id, *from, *to),
            RequestEffect::Driver { driver_id, message } => self.told(world, id, driver_id, message),
            RequestEffect::Arm { .. }
            | RequestEffect::Closed
            | RequestEffect::Reply { .. }
            | RequestEffect::PassOn(_) => {}
        }
    }

    /// An answer says only what is durable.
    fn replied(&mut self, world: &World, id: &RequestId, answer: &ApiAnswer) {
        if world.requests[id].port.was_fenced() {
            return;
        }
        let fold = durable(world, id).unwrap_or_else(|| panic!("{id} answers {answer:?} before its first commit"));
        match answer {
            ApiAnswer::Offer {
                state,
                attempt,
                driver_id,
                ..
            } => {
                assert_eq!(*state, fold.state(), "{id}: {answer:?}");
                assert!(*attempt as usize <= fold.attempts.len(), "{id}: {answer:?}");
                if let Some(driver_id) = driver_id {
                    assert_eq!(
                        fold.attempt(*attempt).map(|made| &made.driver_id),
                        Some(driver_id),
                        "{id}: {answer:?}"
                    );
                }
                self.promises.push(Promise::Known(id.clone()));
            }
            ApiAnswer::Excluded { state, excluded } => {
                assert_eq!(
                    (*state, fold.state()),
                    (RequestState::PendingMatch, RequestState::PendingMatch)
                );
                assert_eq!(excluded.iter().collect::<Vec<_>>(), fold.excluded().collect::<Vec<_>>());
            }
            ApiAnswer::Ended { state, trip_id } => {
                assert_eq!(*state, fold.state(), "{id}: {answer:?}");
                assert_eq!(trip_id.as_ref(), fold.trip.as_ref().map(|trip| &trip.trip_id));
            }
            ApiAnswer::Outcome { outcome, trip_id } => {
                assert_ne!(*outcome, Outcome::Open, "{id}: an open attempt is no outcome");
                assert_eq!(trip_id.is_some(), *outcome == Outcome::Accepted, "{id}: {answer:?}");
                let same = |made: Outcome| made == *outcome || superseded(*outcome, made);
                assert!(fold.attempts.iter().any(|made| same(made.outcome)), "{id}: {answer:?}");
                if *outcome == Outcome::Accepted {
                    let winner = fold.attempts.iter().position(|made| made.outcome == Outcome::Accepted);
                    let winner = winner.expect("an accepted attempt") as u32 + 1;
                    self.promises.push(Promise::Outcome(id.clone(), winner, *outcome));
                }
            }
            ApiAnswer::Cancelled => {
                assert_eq!(fold.state(), RequestState::Cancelled);
                self.promises.push(Promise::End(id.clone(), RequestState::Cancelled));
            }
            ApiAnswer::TripCancelled { trip_id } => {
                assert_eq!(Some(trip_id), fold.trip.as_ref().map(|trip| &trip.trip_id));
                assert!(fold.is_closed());
            }
            ApiAnswer::TripEnded { trip_id, outcome } => {
                let trip = fold.trip.as_ref().expect("a trip");
                assert_eq!((trip_id, TripPhase::Ended(*outcome)), (&trip.trip_id, trip.phase));
            }
            ApiAnswer::NoSuchOffer | ApiAnswer::NoSuchTrip | ApiAnswer::Fenced | ApiAnswer::Unfit { .. } => {}
        }
    }

    /// A driver is told only what is durable.
    fn told(&mut self, world: &World, id: &RequestId, driver_id: &DriverId, message: &ToDriver) {
        let fenced = world.requests[id].port.was_fenced();
        let made = |attempt: u32| durable(world, id).and_then(|fold| fold.attempt(attempt).cloned());
        match message {
            ToDriver::Wait { .. } => {
                self.waits.insert((id.clone(), driver_id.clone()), world.now_ms);
                self.waited.insert((id.clone(), driver_id.clone()));
            }
            ToDriver::Release => {
                let busy_wait_ms = u64::from(world.requests[id].actor.fold().busy_wait_ms);
                let since_ms = self.waits.remove(&(id.clone(), driver_id.clone()));
                if since_ms.is_some_and(|since_ms| since_ms + busy_wait_ms <= world.now_ms) {
                    self.waited_out.insert(id.clone(), world.now_ms);
                }
            }
            ToDriver::Offer {
                attempt, expires_at_ms, ..
            } => {
                let made = made(*attempt).unwrap_or_else(|| panic!("{id}/{attempt} is offered before it is durable"));
                assert_eq!((&made.driver_id, made.expires_at_ms), (driver_id, *expires_at_ms));
            }
            ToDriver::Outcome {
                attempt,
                outcome,
                trip_id,
                ..
            } if !fenced => {
                let made = made(*attempt).unwrap_or_else(|| panic!("{id}/{attempt} is over before it is durable"));
                assert_eq!(made.driver_id, *driver_id);
                assert!(
                    made.outcome == *outcome || superseded(*outcome, made.outcome),
                    "{id}/{attempt}: {message:?}"
                );
                assert_eq!(
                    trip_id.is_some(),
                    *outcome == Outcome::Accepted,
                    "{id}/{attempt}: {message:?}"
                );
                self.promises.push(Promise::Outcome(id.clone(), *attempt, made.outcome));
            }
            ToDriver::Trip { phase, again, .. } => {
                let trip = durable(world, id)
                    .and_then(|fold| fold.trip)
                    .expect("a trip that is durable");
                assert!(
                    trip.phase == *phase && (*again || trip.driver_id == *driver_id),
                    "{id}: {message:?}"
                );
            }
            ToDriver::Bound { trip_id, .. } => {
                let trip = durable(world, id)
                    .and_then(|fold| fold.trip)
                    .expect("a trip that is durable");
                assert_eq!(trip.trip_id, *trip_id);
            }
            _ => {}
        }
    }

    fn persisted(&mut self, world: &World, id: &RequestId, from: usize, to: usize) {
        let log = world.requests[id].actor.log();
        let busy_wait_ms = u64::from(world.requests[id].actor.fold().busy_wait_ms);
        for (index, entry) in log.iter().enumerate().take(to).skip(from) {
            match &entry.step {
                Step::Redispatched { .. } => {
                    for ((request_id, _), since_ms) in &mut self.waits {
                        if request_id == id {
                            *since_ms = entry.at_ms.max(*since_ms);
                        }
                    }
                }
                Step::Refused {
                    attempt,
                    driver_id,
                    reason,
                } => {
                    let sent = |entry: &LogEntry| matches!(&entry.step, Step::OfferSent { attempt: sent, .. } if sent == attempt);
                    let pair = (id.clone(), driver_id.clone());
                    self.waits.remove(&pair);
                    let waited = self.waited.contains(&pair);
                    let due = |since_ms: &UnixMs| since_ms + busy_wait_ms <= world.now_ms;
                    let waits = self
                        .waits
                        .iter()
                        .any(|((request_id, _), since_ms)| request_id == id && due(since_ms));
                    // It may have taken that long until the driver could be asked.
                    let late = searching_since_ms(&log[..index]) + busy_wait_ms <= entry.at_ms;
                    let over = waits || late || self.waited_out.get(id) == Some(&world.now_ms);
                    if *reason == RefuseReason::Offered && busy_wait_ms > 0 && !log.iter().any(sent) {
                        assert!(waited || over, "{id} refuses {driver_id} without waiting");
                    }
                }
                Step::OfferSent { driver_id, .. } => {
                    self.waits.remove(&(id.clone(), driver_id.clone()));
                }
                _ => {}
            }
        }
    }

    fn driver(&mut self, world: &World, id: &DriverId, effect: &DriverEffect, trigger: Option<&Trigger>) {
        match effect {
            DriverEffect::Send(message) => {
                if let ToSocket::Confirmed {
                    request_id, attempt, ..
                } = message
                {
                    let fold = durable(world, request_id).expect("CONFIRMED of a request that is durable");
                    assert_eq!(fold.attempt(*attempt).map(|made| made.outcome), Some(Outcome::Accepted));
                }
                self.client(id).hears(message);
            }
            DriverEffect::Asked {
                request_id,
                event: RequestEvent::Reserved { .. },
                ..
            } => {
                let asked = trigger.is_some_and(|trigger| {
                    let asks = matches!(trigger.message, ToDriver::Ask { .. } | ToDriver::Wait { .. });
                    asks && trigger.from == *request_id && trigger.to == *id
                });
                if !asked {
                    self.served(world, id, request_id);
                }
            }
            DriverEffect::Asked {
                request_id,
                event: RequestEvent::Unavailable { .. },
                ..
            } => {
                let waiters = self.queues.entry(id.clone()).or_default();
                waiters.retain(|waiter| waiter.request_id != *request_id);
            }
            _ => {}
        }
    }

    /// A request was taken out of a driver's queue: it was its turn.
    fn served(&mut self, world: &World, driver_id: &DriverId, request_id: &RequestId) {
        let step_ms = world.limits.age_step_ms;
        let waiters = self.queues.entry(driver_id.clone()).or_default();
        let turn = |waiter: &Waiter| waiter.since_ms + waiter.priority as u64 * step_ms;
        let first = (0..waiters.len()).min_by_key(|at| (turn(&waiters[*at]), waiters[*at].priority, *at));
        let first = waiters.remove(first.unwrap_or_else(|| panic!("{request_id} is served and does not wait")));
        assert_eq!(
            first.request_id, *request_id,
            "another one's turn in the queue of {driver_id}"
        );
    }

    /// What was said is still so, and logs only grow.
    fn keep_promises(&mut self, world: &World) {
        for (id, slot) in &world.requests {
            let log = &slot.actor.log()[..slot.port.committed()];
            let known = self.logs.entry(id.clone()).or_default();
            assert!(log.starts_with(known), "{id}: what was durable has changed");
            *known = log.to_vec();
        }
        for promise in &self.promises {
            match promise {
                Promise::Known(id) => assert!(durable(world, id).is_some(), "{id} is forgotten"),
                Promise::Outcome(id, attempt, outcome) => {
                    let made = durable(world, id).and_then(|fold| fold.attempt(*attempt).map(|made| made.outcome));
                    assert_eq!(made, Some(*outcome), "{id}/{attempt}");
                }
                Promise::End(id, end) => assert_eq!(durable(world, id).and_then(|fold| fold.end), Some(*end), "{id}"),
            }
        }
        for (driver_id, client) in &self.clients {
            for ((request_id, attempt), trip_id) in client.confirmed() {
                let fold = durable(world, request_id).expect("CONFIRMED is never lost");
                let made = fold.attempt(*attempt).expect("CONFIRMED is never lost");
                assert_eq!((&made.driver_id, made.outcome), (driver_id, Outcome::Accepted));
                assert_eq!(fold.trip.map(|trip| trip.trip_id).as_ref(), Some(trip_id));
            }
        }
    }
}

/// An `ACCEPT` after one's own `DECLINE` is told so, and a driver whose home may hold what was refused elsewhere.
fn superseded(said: Outcome, made: Outcome) -> bool {
    said == Outcome::Revoked(RevokeReason::Superseded) && matches!(made, Outcome::Declined | Outcome::Refused(_))
}

/// What the durable part of a request's log says.
pub fn durable(world: &World, id: &RequestId) -> Option<Fold> {
    let slot = world.requests.get(id)?;
    let log = &slot.actor.log()[..slot.port.committed()];
    (!log.is_empty()).then(|| Fold::of(log).expect("a durable log folds"))
}

/// When there was a place to fill for the last time: from then on a request waits for busy drivers.
fn searching_since_ms(log: &[LogEntry]) -> UnixMs {
    let sent = |attempt: u32| {
        log.iter()
            .any(|entry| matches!(entry.step, Step::OfferSent { attempt: sent, .. } if sent == attempt))
    };
    let begins = |entry: &&LogEntry| match &entry.step {
        Step::Received { .. }
        | Step::Redispatched { .. }
        | Step::Declined { .. }
        | Step::TimedOut { .. }
        | Step::Revoked { .. } => true,
        Step::Refused { attempt, .. } => sent(*attempt),
        _ => false,
    };
    log.iter().rev().find(begins).map_or(0, |entry| entry.at_ms)
}
