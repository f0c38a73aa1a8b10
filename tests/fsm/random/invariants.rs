//! What must hold between the steps of a history.

use super::client::without_offer;
use super::witness::{Witness, durable};
use crate::world::{RequestSlot, World};
use dispatchd::fsm::fold::{Attempt, Fold, Outcome, TripPhase};
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::request::{RequestEvent, ToDriver};
use dispatchd::fsm::types::{DriverState, RequestState, Step};
use std::collections::BTreeSet;

/// After every step.
pub fn check(world: &World, witness: &Witness) {
    for (id, slot) in &world.requests {
        log_is_sound(id, slot);
        if slot.port.was_fenced() {
            continue;
        }
        offers_are_held(world, id, slot);
        if is_idle(world, id) {
            timer_is_armed(witness, id, slot);
            waiters_are_queued(witness, id);
        }
    }
    drivers_have_one(world);
}

/// When no letter is under way, everything is durable, and no timer is due.
pub fn check_at_rest(world: &World, witness: &Witness) {
    for (id, slot) in &world.drivers {
        let driver = &slot.actor;
        let reserved_only = driver.state() == DriverState::Offered && driver.offer().is_none();
        assert!(!reserved_only, "{id} is reserved for nobody");
        let waits = witness.queues.get(id).is_some_and(|queue| !queue.is_empty());
        assert!(
            !waits || driver.state() == DriverState::Offered,
            "{id} is {:?} and somebody waits",
            driver.state()
        );
        if driver.session().is_some()
            && let Some((state, trip_id)) = witness.clients.get(id).and_then(|client| client.state.as_ref())
        {
            assert_eq!(
                (*state, trip_id.as_ref()),
                (without_offer(driver.state()), driver.trip_id()),
                "{id} was told"
            );
        }
        let open = witness.clients.get(id).and_then(|client| client.open.as_ref());
        let held = driver
            .offer()
            .map(|(request_id, attempt, _)| (request_id.clone(), attempt));
        assert!(
            driver.session().is_none() || open == held.as_ref(),
            "{id} shows {open:?} and holds {held:?}"
        );
    }
    for (id, slot) in world.requests.iter().filter(|(_, slot)| !slot.port.was_fenced()) {
        let fold = slot.actor.fold();
        let live = fold
            .trip
            .as_ref()
            .filter(|trip| !matches!(trip.phase, TripPhase::Ended(_)));
        if let Some(trip) = live {
            let bound = world
                .drivers
                .get(&trip.driver_id)
                .and_then(|driver| driver.actor.trip_id());
            assert_eq!(bound, Some(&trip.trip_id), "{id}: the driver has the trip");
        }
        assert_eq!(
            slot.actor.is_closed(),
            fold.is_closed(),
            "{id} closes when nothing can change any more"
        );
    }
    for (id, slot) in &world.drivers {
        if let Some(trip_id) = slot.actor.trip_id() {
            let has = |slot: &&RequestSlot| {
                slot.actor
                    .fold()
                    .trip
                    .as_ref()
                    .is_some_and(|trip| trip.trip_id == *trip_id)
            };
            let slot = world.requests.values().find(has).expect("a trip has a request");
            assert!(
                slot.port.was_fenced() || !slot.actor.fold().is_closed(),
                "{id} keeps a trip that is over"
            );
        }
    }
}

fn log_is_sound(id: &RequestId, slot: &RequestSlot) {
    let (log, fold) = (slot.actor.log(), slot.actor.fold());
    let folded = Fold::of(log).unwrap_or_else(|error| panic!("{id}: {error}"));
    assert_eq!(&folded, fold, "{id}: the log is the request");
    assert!(log.is_sorted_by_key(|entry| entry.at_ms), "{id}: at_ms falls");
    let count = |wanted: fn(&Step) -> bool| log.iter().filter(|entry| wanted(&entry.step)).count();
    let accepted = count(|step| matches!(step, Step::Accepted { .. }));
    assert!(accepted <= 1, "{id}: accepted {accepted} times");
    assert_eq!(accepted, count(|step| matches!(step, Step::TripCreated { .. })));
    assert_eq!(accepted == 1, fold.state() == RequestState::Accepted);
    let drivers: BTreeSet<_> = fold.attempts.iter().map(|attempt| &attempt.driver_id).collect();
    assert_eq!(drivers.len(), fold.attempts.len(), "{id}: a driver is tried twice");
    assert!(
        fold.open_count() <= usize::from(fold.parallel),
        "{id}: more offers than places"
    );
    assert!(
        fold.max_attempts.is_none_or(|most| fold.counted() <= most as usize),
        "{id}: too many attempts"
    );
    assert!(
        fold.attempts
            .iter()
            .all(|made| made.expires_at_ms <= fold.deadline_at_ms.max(made.sent_at_ms))
    );
    let snatched = |made: &Attempt| made.delivered && matches!(made.outcome, Outcome::Refused(_));
    assert!(
        !fold.attempts.iter().any(snatched),
        "{id}: an offer that the app has is refused"
    );
    assert!(
        fold.end.is_none() || fold.open_count() == 0,
        "{id}: an offer outlives its request"
    );
    assert!(slot.port.committed() <= slot.actor.persisted_log().len() || slot.port.was_fenced());
}

/// A driver holds an offer exactly while the attempt is open, but for what is under way.
fn offers_are_held(world: &World, id: &RequestId, slot: &RequestSlot) {
    let Some(fold) = durable(world, id) else { return };
    for number in fold.open() {
        let made = fold.attempt(number).expect("an open attempt");
        let driver = world.drivers.get(&made.driver_id).map(|driver| &driver.actor);
        let held = driver
            .and_then(|driver| driver.offer())
            .is_some_and(|(r, n, _)| r == id && n == number);
        let on_its_way = mail_to(world, id, &made.driver_id, |letter| {
            matches!(letter, ToDriver::Offer { .. })
        });
        let back = mail_from(world, id, |letter| matches!(letter, RequestEvent::Refused { .. }));
        let free = held || on_its_way || back || slot.port.waits() || !is_idle(world, id);
        assert!(free, "{id}/{number} is open and {} does not hold it", made.driver_id);
    }
    for (driver_id, driver) in &world.drivers {
        let Some((_, number, _)) = driver.actor.offer().filter(|(request_id, ..)| *request_id == id) else {
            continue;
        };
        let made = fold
            .attempt(number)
            .unwrap_or_else(|| panic!("{driver_id} holds {id}/{number}, never made"));
        assert_eq!(made.driver_id, *driver_id, "another driver's offer");
        let ends = |letter: &ToDriver| matches!(letter, ToDriver::Outcome { again: false, .. });
        let open = made.outcome == Outcome::Open || mail_to(world, id, driver_id, ends);
        assert!(open, "{driver_id} holds {id}/{number}, which is {:?}", made.outcome);
    }
}

fn timer_is_armed(witness: &Witness, id: &RequestId, slot: &RequestSlot) {
    let fold = slot.actor.fold();
    if fold.end.is_some() {
        assert_eq!(slot.armed, None, "{id} is over and wakes");
        return;
    }
    let expiries = fold
        .open()
        .filter_map(|number| Some(fold.attempt(number)?.expires_at_ms));
    let waits = witness.waits.iter().filter(|((request_id, _), _)| request_id == id);
    let waits = waits.map(|(_, since_ms)| since_ms + u64::from(fold.busy_wait_ms));
    let due = expiries.chain(waits).chain([fold.deadline_at_ms]).min();
    let armed = slot
        .armed
        .unwrap_or_else(|| panic!("{id} is {:?} and never wakes", fold.state()));
    assert!(Some(armed) <= due, "{id} wakes at {armed}, {due:?} is due");
}

fn waiters_are_queued(witness: &Witness, id: &RequestId) {
    for (_, driver_id) in witness.waits.keys().filter(|(request_id, _)| request_id == id) {
        let queued = witness
            .queues
            .get(driver_id)
            .is_some_and(|queue| queue.iter().any(|waiter| waiter.is(id)));
        assert!(queued, "{id} waits for {driver_id} and does not stand in its queue");
    }
}

/// One trip for each driver, over all requests.
fn drivers_have_one(world: &World) {
    let mut bound: BTreeSet<DriverId> = BTreeSet::new();
    for (id, slot) in world.requests.iter().filter(|(_, slot)| !slot.port.was_fenced()) {
        let live = slot
            .actor
            .fold()
            .trip
            .as_ref()
            .filter(|trip| !matches!(trip.phase, TripPhase::Ended(_)));
        if let Some(trip) = live {
            assert!(
                bound.insert(trip.driver_id.clone()),
                "{id}: {} has two trips",
                trip.driver_id
            );
        }
    }
}

/// Whether no letter of this request is under way and nothing of it waits for a commit.
pub fn is_idle(world: &World, id: &RequestId) -> bool {
    let sends = world.to_drivers.keys().any(|(from, _)| from == id);
    let gets = world.to_requests.keys().any(|(_, to)| to == id);
    let waits = world.requests.get(id).is_some_and(|slot| slot.port.waits());
    !sends && !gets && !waits
}

fn mail_to(world: &World, from: &RequestId, to: &DriverId, is_it: fn(&ToDriver) -> bool) -> bool {
    let mail = world.to_drivers.get(&(from.clone(), to.clone()));
    mail.is_some_and(|mail| mail.iter().any(|mail| is_it(&mail.letter)))
}

fn mail_from(world: &World, to: &RequestId, is_it: fn(&RequestEvent) -> bool) -> bool {
    let mut channels = world.to_requests.iter().filter(|((_, request), _)| request == to);
    channels.any(|(_, mail)| mail.iter().any(|mail| is_it(&mail.letter)))
}
