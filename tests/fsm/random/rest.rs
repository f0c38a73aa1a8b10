//! Plays a history, and brings it to rest.

use super::act::{Act, DRIVERS, Post};
use super::invariants;
use super::witness::{Trigger, Witness};
use crate::world::World;
use dispatchd::fsm::driver::{DriverEvent, DriverLimits};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::request::{Answer, Asker, RequestEvent, TripMove};
use dispatchd::fsm::types::{DriverState, LogEntry, OfferRequest, Priority};

/// Short times, so that all of them come in a short history.
const LIMITS: DriverLimits = DriverLimits {
    heartbeat_ms: 3_000,
    driver_ttl_ms: 4_000,
    off_shift_memory_ms: 10_000,
    age_step_ms: 700,
};
/// Steps after which something that should come to rest never will.
const STEPS_MAX: usize = 10_000;
/// Longer than any deadline, wait, heartbeat and memory of these worlds.
const FOR_EVER_MS: u64 = 100_000;

/// The callers' object.
pub const TRIP: &str = "{\"from\":1}";

/// A history under way.
pub struct Run {
    world: World,
    witness: Witness,
}

impl Run {
    pub fn new() -> Self {
        Self {
            world: World::new(LIMITS),
            witness: Witness::default(),
        }
    }

    /// One step, checked.
    pub fn play(&mut self, act: &Act) {
        match act {
            Act::Settle => self.settle(),
            Act::Deliver(which) => self.deliver(*which),
            _ => {
                self.act(act);
                self.look(None);
            }
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Deliver(_) | Act::Settle => unreachable!("play does"),
            Act::Commit(which) => self.commit(*which),
            Act::Pass(ms) => self.world.now_ms += u64::from(*ms),
            Act::Fire(which) => {
                let due = self.world.due();
                if let Some((_, node)) = pick(&due, *which) {
                    self.world.fire(node);
                }
            }
            Act::Post(post) => {
                let reply = self.world.post(offer(post));
                self.witness.called(reply);
            }
            Act::Respond { .. } | Act::Cancel(_) | Act::EndTrip(_) => self.api(act),
            Act::Connect(name) => {
                self.witness.client(&driver(*name)).loses_socket();
                self.world.connect(&driver(*name));
            }
            Act::Disconnect(name) => {
                self.witness.client(&driver(*name)).loses_socket();
                self.world.disconnect(&driver(*name));
            }
            Act::Written(_)
            | Act::Heard(_)
            | Act::Answer { .. }
            | Act::Ack(_)
            | Act::Guess { .. }
            | Act::Shift { .. }
            | Act::Trip { .. } => self.socket(act),
            Act::Fence(name) => {
                let id = request(*name);
                if self.world.requests.get(&id).is_some_and(|slot| slot.port.waits()) {
                    self.world.fence(&id);
                }
            }
            Act::Crash { survivors, order } => self.crash(*survivors, *order),
        }
    }

    fn api(&mut self, act: &Act) {
        let reply = self.world.call();
        self.witness.called(reply);
        let (id, event) = match act {
            Act::Respond {
                request: id,
                driver: name,
                attempt,
                accept,
            } => {
                let event = RequestEvent::Answered {
                    driver_id: driver(*name),
                    attempt: attempt.map(u32::from),
                    answer: answer(*accept),
                    reason: None,
                    asker: Asker::Api(reply),
                };
                if let Some(made) = self.attempt_of(*id, *name) {
                    self.witness.client(&driver(*name)).asks((request(*id), made));
                }
                (id, event)
            }
            Act::Cancel(id) => (id, RequestEvent::Cancelled { reason: None, reply }),
            Act::EndTrip(id) => {
                if !self.world.requests.contains_key(&request(*id)) {
                    self.witness.calls.remove(&reply.call);
                    return;
                }
                (id, RequestEvent::TripCancelled { reason: None, reply })
            }
            _ => unreachable!("the caller chose"),
        };
        self.world.step_request(&request(*id), event);
    }

    fn attempt_of(&self, id: u8, name: u8) -> Option<u32> {
        let fold = self.world.requests.get(&request(id))?.actor.fold();
        fold.attempt_of(&driver(name)).map(|(number, _)| number)
    }

    /// What needs a socket; nothing without one.
    fn socket(&mut self, act: &Act) {
        let (Act::Written(name)
        | Act::Heard(name)
        | Act::Ack(name)
        | Act::Answer { driver: name, .. }
        | Act::Guess { driver: name, .. }
        | Act::Shift { driver: name, .. }
        | Act::Trip { driver: name, .. }) = act
        else {
            unreachable!("the caller chose")
        };
        let id = driver(*name);
        let connected = self
            .world
            .drivers
            .get(&id)
            .is_some_and(|slot| slot.actor.session().is_some());
        let Some(event) = self.said(&id, act).filter(|_| connected) else {
            return;
        };
        if let DriverEvent::Ack { request_id, attempt }
        | DriverEvent::Answer {
            request_id, attempt, ..
        } = &event
        {
            self.witness.client(&id).asks((request_id.clone(), *attempt));
        }
        self.world.step_driver(&id, event);
    }

    fn said(&mut self, id: &DriverId, act: &Act) -> Option<DriverEvent> {
        let open = self.witness.client(id).open.clone();
        let ack = |(request_id, attempt)| DriverEvent::Ack { request_id, attempt };
        let answers = |(request_id, attempt), accept| DriverEvent::Answer {
            request_id,
            attempt,
            answer: answer(accept),
            reason: None,
        };
        Some(match act {
            Act::Written(_) => {
                let awaits = self
                    .world
                    .drivers
                    .get(id)
                    .is_some_and(|slot| slot.actor.awaits_delivery());
                return awaits.then_some(DriverEvent::Written);
            }
            Act::Heard(_) => DriverEvent::Heard,
            Act::Ack(_) => ack(open?),
            Act::Answer { accept, .. } => answers(open?, *accept),
            Act::Guess {
                request: of,
                attempt,
                what: 0,
                ..
            } => ack((request(*of), u32::from(*attempt))),
            Act::Guess {
                request: of,
                attempt,
                what,
                ..
            } => answers((request(*of), u32::from(*attempt)), *what == 1),
            Act::Shift { available, .. } => DriverEvent::SetState { available: *available },
            Act::Trip { request: of, what, .. } => {
                let received_at_ms = self.world.requests.get(&request(*of))?.actor.fold().received_at_ms;
                let what = [
                    TripMove::Arrived,
                    TripMove::Pickup,
                    TripMove::Complete,
                    TripMove::Cancel,
                ][usize::from(*what)];
                let trip_id = TripId::for_request(&request(*of), received_at_ms);
                DriverEvent::Trip { trip_id, what }
            }
            _ => unreachable!("the caller chose"),
        })
    }

    fn crash(&mut self, survivors: u8, order: u8) {
        let early = (order % 2 == 1).then_some(u64::from(order) * 10);
        let survivors = |id: &RequestId| usize::from(survivors >> (id.hash64() % 3)) & 3;
        let order = |ids: &mut Vec<RequestId>| {
            let first = usize::from(order) % ids.len().max(1);
            ids.rotate_left(first);
            if order >= 128 {
                ids.reverse();
            }
        };
        self.witness.crashed();
        self.world.crash(survivors, order, early);
    }

    fn deliver(&mut self, which: u8) {
        let to_drivers: Vec<_> = self.world.to_drivers.keys().cloned().collect();
        let to_requests: Vec<_> = self.world.to_requests.keys().cloned().collect();
        let channels = to_drivers.len() + to_requests.len();
        if channels == 0 {
            return;
        }
        let index = usize::from(which) % channels;
        if let Some((from, to)) = to_drivers.get(index) {
            self.hand_to_driver(from, to);
        } else {
            let (from, to) = &to_requests[index - to_drivers.len()];
            self.world.deliver_to_request(from, to);
            self.look(None);
        }
    }

    fn hand_to_driver(&mut self, from: &RequestId, to: &DriverId) {
        let message = self.world.to_drivers[&(from.clone(), to.clone())][0].letter.clone();
        let found = self
            .world
            .drivers
            .get(to)
            .map_or(DriverState::Offline, |slot| slot.actor.state());
        self.world.deliver_to_driver(from, to);
        let (from, to) = (from.clone(), to.clone());
        self.look(Some(&Trigger {
            from,
            to,
            message,
            found,
        }));
    }

    fn commit(&mut self, which: u8) {
        let written: Vec<_> = self
            .world
            .requests
            .iter()
            .filter(|(_, slot)| slot.port.written() > 0)
            .collect();
        if let Some((id, _)) = pick(&written, which) {
            let id = (*id).clone();
            self.world.commit(&id);
        }
    }

    fn look(&mut self, trigger: Option<&Trigger>) {
        self.witness.look(&mut self.world, trigger);
        invariants::check(&self.world, &self.witness);
    }

    /// Letters, commits and timers that are due, until nothing moves.
    fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            let writes = self.world.requests.values().any(|slot| slot.port.written() > 0);
            let letters = !self.world.to_drivers.is_empty() || !self.world.to_requests.is_empty();
            if letters {
                self.deliver(0);
            } else if writes {
                self.commit(0);
                self.look(None);
            } else if let Some((_, node)) = self.world.due().first() {
                self.world.fire(node);
                self.look(None);
            } else {
                return invariants::check_at_rest(&self.world, &self.witness);
            }
        }
        panic!("something never comes to rest");
    }

    /// Nobody does anything any more, but time goes on: every search ends.
    pub fn come_to_rest(&mut self) {
        self.settle();
        let end_ms = self.world.now_ms + FOR_EVER_MS;
        for _ in 0..STEPS_MAX {
            let requests = self.world.requests.values().filter_map(|slot| slot.armed);
            let drivers = self.world.drivers.values().filter_map(|slot| slot.armed);
            let Some(next_ms) = requests.chain(drivers).min().filter(|at| *at <= end_ms) else {
                break;
            };
            self.world.now_ms = self.world.now_ms.max(next_ms);
            self.settle();
        }
        for (id, slot) in self.world.requests.iter().filter(|(_, slot)| !slot.port.was_fenced()) {
            assert!(slot.actor.fold().end.is_some(), "{id} never ends");
        }
        for name in 0..DRIVERS {
            let Some(slot) = self.world.drivers.get(&driver(name)) else {
                continue;
            };
            assert!(slot.actor.offer().is_none(), "{name} holds an offer for ever");
            let bound = slot.actor.trip_id().is_some();
            assert!(bound, "driver {name} is gone for longer than anything is remembered");
        }
    }

    /// Calls without an answer.
    pub fn unanswered(&self) -> usize {
        self.witness.calls.len()
    }

    /// The logs and where their commits ended.
    pub fn logs(&self) -> impl Iterator<Item = (&RequestId, &[LogEntry])> {
        self.world
            .requests
            .iter()
            .map(|(id, slot)| (id, &slot.actor.log()[..slot.port.committed()]))
    }
}

fn pick<T>(from: &[T], which: u8) -> Option<&T> {
    from.get(usize::from(which).checked_rem(from.len())?)
}

fn request(number: u8) -> RequestId {
    RequestId::parse(&format!("r{number}")).expect("an id")
}

fn driver(number: u8) -> DriverId {
    DriverId::parse(&format!("d{number}")).expect("an id")
}

fn answer(accept: bool) -> Answer {
    if accept { Answer::Accept } else { Answer::Decline }
}

fn offer(post: &Post) -> OfferRequest {
    let mut candidates: Vec<_> = (0..DRIVERS)
        .filter(|name| post.candidates >> name & 1 == 1)
        .map(driver)
        .collect();
    if candidates.is_empty() {
        candidates.push(driver(0));
    }
    let first = usize::from(post.candidates >> 4) % candidates.len();
    candidates.rotate_left(first);
    OfferRequest {
        request_id: request(post.request),
        candidates,
        priority: Priority::ALL[usize::from(post.priority)],
        offer_timeout_ms: Some(1_000),
        deadline_ms: Some(u32::from(post.deadline_ms)),
        max_attempts: post.max_attempts.map(u32::from),
        parallel: Some(post.parallel),
        busy_wait_ms: Some(u32::from(post.busy_wait_ms)),
        trip: TRIP.into(),
    }
}
