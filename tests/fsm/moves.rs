//! A driver who goes to another node, and words between the two nodes that are lost or said twice.

use dispatchd::fsm::driver::{Driver, DriverEffect, DriverEvent, DriverLimits, ToSocket};
use dispatchd::fsm::fold::{Outcome, TripPhase};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::request::{Answer, RequestEvent, Resumed, ToDriver, TripMove};
use dispatchd::fsm::types::{DriverState, Priority, RefuseReason, RevokeReason, TripOutcome};

const LIMITS: DriverLimits = DriverLimits {
    heartbeat_ms: 30_000,
    driver_ttl_ms: 60_000,
    off_shift_memory_ms: 100_000,
    age_step_ms: 2_000,
};
pub const NOW_MS: u64 = 1_000_000;

pub fn driver_id() -> DriverId {
    DriverId::parse("d1").unwrap()
}

pub fn request_id(name: &str) -> RequestId {
    RequestId::parse(name).unwrap()
}

pub fn connected(session: u64) -> Driver {
    let mut driver = Driver::new(driver_id(), 0);
    step(&mut driver, DriverEvent::Connected { session });
    driver
}

pub fn step(driver: &mut Driver, event: DriverEvent) -> Vec<DriverEffect> {
    let mut effects = Vec::new();
    driver.step(event, NOW_MS, &LIMITS, &mut effects);
    effects
}

pub fn tell(driver: &mut Driver, request: &str, message: ToDriver) -> Vec<DriverEffect> {
    let request_id = request_id(request);
    step(
        driver,
        DriverEvent::Request {
            node: 0,
            request_id,
            message,
        },
    )
}

pub fn offer(resumed: Resumed) -> ToDriver {
    ToDriver::Offer {
        attempt: 1,
        priority: Priority::Standard,
        expires_at_ms: NOW_MS + 8_000,
        trip: "{}".into(),
        resumed,
    }
}

pub fn reservation() -> ToDriver {
    ToDriver::Ask {
        ask: 1,
        priority: Priority::Standard,
    }
}

pub fn wait(ask: u32) -> ToDriver {
    ToDriver::Wait {
        ask,
        priority: Priority::Premium,
    }
}

pub fn trip_of(request: &str) -> TripId {
    TripId::for_request(&request_id(request), NOW_MS)
}

pub fn bound(request: &str, phase: TripPhase) -> ToDriver {
    ToDriver::Bound {
        attempt: 1,
        trip_id: trip_of(request),
        phase,
    }
}

pub fn to_socket(effects: &[DriverEffect]) -> Vec<ToSocket> {
    let sent = effects.iter().filter_map(|effect| match effect {
        DriverEffect::Send(message) => Some(message.clone()),
        _ => None,
    });
    sent.collect()
}

pub fn to_requests(effects: &[DriverEffect]) -> Vec<(String, RequestEvent)> {
    let said = effects.iter().filter_map(|effect| match effect {
        DriverEffect::Request { request_id, event } | DriverEffect::Asked { request_id, event, .. } => {
            Some((request_id.to_string(), event.clone()))
        }
        _ => None,
    });
    said.collect()
}

fn here(request: &str, held: Option<u32>) -> (String, RequestEvent) {
    let driver_id = driver_id();
    let answer = None;
    let event = RequestEvent::DriverHere {
        driver_id,
        held,
        answer,
    };
    (request.to_owned(), event)
}

#[test]
fn a_driver_that_leaves_takes_nothing_with_it_and_asks_for_all() {
    let mut driver = connected(1);
    tell(&mut driver, "r1", offer(Resumed::No));
    assert!(tell(&mut driver, "r2", wait(4)).is_empty());
    step(&mut driver, DriverEvent::Disconnected { session: 1 });
    let effects = step(&mut driver, DriverEvent::Moved);
    let busy = RequestEvent::Busy {
        driver_id: driver_id(),
        ask: 4,
    };
    assert_eq!(to_requests(&effects), [("r2".to_owned(), busy), here("r1", None)]);
    assert!(effects.contains(&DriverEffect::Gone));
    assert_eq!((driver.state(), driver.at_hand()), (DriverState::Offline, None));

    let mut driver = connected(2);
    tell(&mut driver, "r1", bound("r1", TripPhase::OnTrip));
    assert_eq!(driver.state(), DriverState::OnTrip);
    assert_eq!(driver.at_hand(), Some(&request_id("r1")));
    step(&mut driver, DriverEvent::Disconnected { session: 2 });
    assert_eq!(to_requests(&step(&mut driver, DriverEvent::Moved)), [here("r1", None)]);
    assert_eq!(driver.trip_id(), None);
}

#[test]
fn what_is_said_twice_is_heard_once() {
    let mut driver = connected(1);
    assert_eq!(to_socket(&tell(&mut driver, "r1", offer(Resumed::No))).len(), 1);
    for resumed in [Resumed::No, Resumed::Sent, Resumed::Delivered] {
        assert!(tell(&mut driver, "r1", offer(resumed)).is_empty());
    }
    let confirmed = ToSocket::Confirmed {
        request_id: request_id("r1"),
        attempt: 1,
        trip_id: trip_of("r1"),
    };
    let state = |state| ToSocket::State {
        state,
        trip_id: Some(trip_of("r1")),
    };
    let effects = tell(&mut driver, "r1", bound("r1", TripPhase::EnRoute));
    assert_eq!(to_socket(&effects), [confirmed, state(DriverState::EnRoute)]);
    assert!(to_requests(&effects).is_empty());
    assert!(tell(&mut driver, "r1", bound("r1", TripPhase::EnRoute)).is_empty());
    let effects = tell(&mut driver, "r1", bound("r1", TripPhase::OnTrip));
    assert_eq!(to_socket(&effects), [state(DriverState::OnTrip)]);
}

/// Who takes a request over from a node that died knows what that one had stored, which receipts are not.
#[test]
fn a_new_owner_hears_that_the_offer_has_arrived() {
    let mut driver = connected(1);
    tell(&mut driver, "r1", offer(Resumed::No));
    let delivered = RequestEvent::Delivered {
        attempt: 1,
        driver_id: driver_id(),
    };
    let effects = step(&mut driver, DriverEvent::Written);
    assert_eq!(to_requests(&effects), [("r1".to_owned(), delivered.clone())]);
    let effects = tell(&mut driver, "r1", offer(Resumed::Sent));
    assert_eq!(to_requests(&effects), [("r1".to_owned(), delivered)]);
    assert!(to_socket(&effects).is_empty());
}

/// Who reserved the driver has made no attempt yet that could be refused: its offer will be.
#[test]
fn an_offer_of_before_takes_the_place_of_a_reservation() {
    let mut driver = Driver::new(driver_id(), 0);
    step(&mut driver, DriverEvent::Connected { session: 1 });
    step(&mut driver, DriverEvent::Disconnected { session: 1 });
    tell(&mut driver, "r1", reservation());
    let effects = tell(&mut driver, "r2", offer(Resumed::Delivered));
    assert_eq!(to_requests(&effects), []);
    assert_eq!(driver.at_hand(), Some(&request_id("r2")));
    let refused = RequestEvent::Refused {
        attempt: 1,
        driver_id: driver_id(),
        reason: RefuseReason::Offered,
    };
    let effects = tell(&mut driver, "r1", offer(Resumed::No));
    assert_eq!(to_requests(&effects), [("r1".to_owned(), refused)]);
}

/// A connected driver keeps what it sees, but for what turns out to be void as it has a trip.
#[test]
fn what_comes_late_does_not_take_the_place_of_what_is_shown() {
    let refused = |attempt, reason| RequestEvent::Refused {
        attempt,
        driver_id: driver_id(),
        reason,
    };
    let mut driver = connected(1);
    tell(&mut driver, "r1", offer(Resumed::No));
    let effects = tell(&mut driver, "r2", offer(Resumed::Delivered));
    assert_eq!(
        to_requests(&effects),
        [("r2".to_owned(), refused(1, RefuseReason::Offered))]
    );
    assert_eq!(driver.at_hand(), Some(&request_id("r1")));
    let effects = tell(&mut driver, "r3", bound("r3", TripPhase::EnRoute));
    let revoked = ToSocket::Revoked {
        request_id: request_id("r1"),
        attempt: 1,
        reason: RevokeReason::Superseded,
    };
    assert_eq!(to_socket(&effects).last(), Some(&revoked));
    let taken_back = DriverEffect::TakenBack {
        request_id: request_id("r1"),
        attempt: 1,
        reason: RefuseReason::EnRoute,
    };
    assert!(effects.contains(&taken_back), "{effects:?}");
    assert_eq!(
        to_requests(&effects),
        [("r1".to_owned(), refused(1, RefuseReason::EnRoute))]
    );
    assert!(
        tell(&mut driver, "r4", bound("r4", TripPhase::OnTrip)).is_empty(),
        "one trip"
    );
    assert_eq!(driver.trip_id(), Some(&trip_of("r3")));
}

#[test]
fn an_acceptance_said_again_binds_nobody() {
    let mut driver = connected(1);
    let trip_id = trip_of("r1");
    let again = ToDriver::Outcome {
        attempt: 1,
        outcome: Outcome::Accepted,
        trip_id: Some(trip_id.clone()),
        again: true,
    };
    let confirmed = ToSocket::Confirmed {
        request_id: request_id("r1"),
        attempt: 1,
        trip_id,
    };
    assert_eq!(to_socket(&tell(&mut driver, "r1", again)), [confirmed]);
    assert_eq!((driver.state(), driver.trip_id()), (DriverState::Available, None));
}

fn answer(driver: &mut Driver, answer: Answer) {
    let event = DriverEvent::Answer {
        request_id: request_id("r1"),
        attempt: 1,
        answer,
        reason: None,
    };
    step(driver, event);
}

#[test]
fn in_doubt_a_driver_repeats_what_it_said() {
    let mut driver = connected(1);
    assert!(step(&mut driver, DriverEvent::Doubt).is_empty());
    tell(&mut driver, "r1", reservation());
    assert_eq!(
        to_requests(&step(&mut driver, DriverEvent::Doubt)),
        [here("r1", None)],
        "no attempt yet"
    );
    tell(&mut driver, "r1", offer(Resumed::No));
    assert_eq!(
        to_requests(&step(&mut driver, DriverEvent::Doubt)),
        [here("r1", Some(1))]
    );
    let receipts = |effects: &[DriverEffect]| -> Vec<RequestEvent> {
        let said = to_requests(effects).into_iter().map(|(_, event)| event);
        said.filter(|event| matches!(event, RequestEvent::Delivered { .. } | RequestEvent::Acked { .. }))
            .collect()
    };
    step(&mut driver, DriverEvent::Written);
    let delivered = RequestEvent::Delivered {
        attempt: 1,
        driver_id: driver_id(),
    };
    let acked = RequestEvent::Acked {
        attempt: 1,
        driver_id: driver_id(),
        held: true,
    };
    assert_eq!(
        receipts(&step(&mut driver, DriverEvent::Doubt)),
        std::slice::from_ref(&delivered)
    );
    let ack = DriverEvent::Ack {
        request_id: request_id("r1"),
        attempt: 1,
    };
    assert_eq!(receipts(&step(&mut driver, ack)), std::slice::from_ref(&acked));
    // A new owner, which may know of neither, is told of both; and the receipts come before the answer.
    let both = [delivered, acked];
    assert_eq!(receipts(&tell(&mut driver, "r1", offer(Resumed::Sent))), both);
    answer(&mut driver, Answer::Accept);
    let said = RequestEvent::DriverHere {
        driver_id: driver_id(),
        held: Some(1),
        answer: Some(Answer::AcceptHeld),
    };
    let effects = step(&mut driver, DriverEvent::Doubt);
    let told = both.into_iter().chain([said]).map(|event| ("r1".to_owned(), event));
    assert_eq!(to_requests(&effects), told.collect::<Vec<_>>());
    tell(&mut driver, "r1", bound("r1", TripPhase::EnRoute));
    assert_eq!(to_requests(&step(&mut driver, DriverEvent::Doubt)), [here("r1", None)]);
}

/// Nobody can have decided for a driver who has said nothing.
#[test]
fn an_offer_of_a_dead_node_ends_unless_it_was_answered() {
    let mut driver = connected(1);
    tell(&mut driver, "r1", offer(Resumed::No));
    let revoked = ToSocket::Revoked {
        request_id: request_id("r1"),
        attempt: 1,
        reason: RevokeReason::Timeout,
    };
    assert_eq!(to_socket(&step(&mut driver, DriverEvent::Overdue)), [revoked]);
    assert_eq!(driver.state(), DriverState::Available);
    tell(&mut driver, "r1", offer(Resumed::No));
    answer(&mut driver, Answer::Accept);
    assert!(step(&mut driver, DriverEvent::Overdue).is_empty());
    assert_eq!(driver.state(), DriverState::Offered);
    let declined = ToDriver::Outcome {
        attempt: 1,
        outcome: Outcome::Declined,
        trip_id: None,
        again: false,
    };
    assert_eq!(to_socket(&tell(&mut driver, "r1", declined)).len(), 1);
    tell(&mut driver, "r1", offer(Resumed::No));
    answer(&mut driver, Answer::Decline);
    assert!(
        step(&mut driver, DriverEvent::Overdue).is_empty(),
        "it may count as declined"
    );
    // The end that comes as an answer is one, too.
    let over = ToDriver::Outcome {
        attempt: 1,
        outcome: Outcome::TimedOut,
        trip_id: None,
        again: true,
    };
    assert_eq!(to_socket(&tell(&mut driver, "r1", over)).len(), 1);
    assert_eq!(driver.state(), DriverState::Available);
}

/// What the driver said of its trip may be lost with the trip's node: it is said again until it was heard.
#[test]
fn a_word_about_the_trip_is_said_again() {
    let said = |driver: &mut Driver| -> Vec<TripMove> {
        let effects = step(driver, DriverEvent::Doubt);
        let moved = |effect: &DriverEffect| match effect {
            DriverEffect::TripMoved { what, .. } => Some(*what),
            _ => None,
        };
        effects.iter().filter_map(moved).collect()
    };
    let mut driver = connected(1);
    tell(&mut driver, "r1", bound("r1", TripPhase::EnRoute));
    let says = |driver: &mut Driver, request, what| {
        let trip_id = trip_of(request);
        let effects = step(
            driver,
            DriverEvent::Trip {
                trip_id: trip_id.clone(),
                what,
            },
        );
        assert_eq!(effects, [DriverEffect::TripMoved { trip_id, what }]);
    };
    says(&mut driver, "r1", TripMove::Arrived);
    says(&mut driver, "r2", TripMove::Complete);
    assert!(said(&mut driver).is_empty(), "it changes nothing, or is another's");
    says(&mut driver, "r1", TripMove::Pickup);
    assert_eq!(said(&mut driver), [TripMove::Pickup]);
    // Its new owner has not heard of it.
    tell(&mut driver, "r1", bound("r1", TripPhase::EnRoute));
    assert_eq!(said(&mut driver), [TripMove::Pickup]);
    tell(&mut driver, "r1", bound("r1", TripPhase::OnTrip));
    assert!(said(&mut driver).is_empty());
    says(&mut driver, "r1", TripMove::Complete);
    tell(&mut driver, "r1", bound("r1", TripPhase::OnTrip));
    assert_eq!(said(&mut driver), [TripMove::Complete]);
    let (trip_id, phase) = (trip_of("r1"), TripPhase::Ended(TripOutcome::Completed));
    let (reason, again) = (None, false);
    tell(
        &mut driver,
        "r1",
        ToDriver::Trip {
            trip_id,
            phase,
            reason,
            again,
        },
    );
    assert!(said(&mut driver).is_empty());
}

/// What the driver has said of what it has at hand its request may not have heard.
#[test]
fn a_driver_has_said_what_its_request_may_not_have_heard() {
    let mut driver = connected(1);
    assert!(!driver.has_said());
    tell(&mut driver, "r1", offer(Resumed::No));
    assert!(!driver.has_said());
    answer(&mut driver, Answer::Accept);
    assert!(driver.has_said());
    tell(&mut driver, "r1", bound("r1", TripPhase::EnRoute));
    assert!(!driver.has_said());
    let (trip_id, what) = (trip_of("r1"), TripMove::Complete);
    step(&mut driver, DriverEvent::Trip { trip_id, what });
    assert!(driver.has_said());
}

/// The word that the trip is over was lost, and the driver speaks of it: the answer frees it.
#[test]
fn a_trip_that_was_over_ends_when_its_driver_speaks_of_it() {
    let mut driver = connected(1);
    tell(&mut driver, "r1", bound("r1", TripPhase::EnRoute));
    let trip_id = trip_of("r1");
    let what = TripMove::Complete;
    step(&mut driver, DriverEvent::Trip { trip_id, what });
    let ended = ToDriver::Trip {
        trip_id: trip_of("r1"),
        phase: TripPhase::Ended(TripOutcome::Completed),
        reason: None,
        again: true,
    };
    let state = ToSocket::State {
        state: DriverState::Available,
        trip_id: None,
    };
    assert_eq!(to_socket(&tell(&mut driver, "r1", ended.clone())), [state]);
    assert_eq!(driver.trip_id(), None);
    assert!(to_socket(&tell(&mut driver, "r1", ended)).is_empty());
}

/// The driver took the offer at a node that died, and the request decided when the driver was here.
#[test]
fn what_was_taken_at_another_node_binds_here() {
    let mut driver = connected(1);
    let accepted = ToDriver::Outcome {
        attempt: 1,
        outcome: Outcome::Accepted,
        trip_id: Some(trip_of("r1")),
        again: false,
    };
    let heard = to_socket(&tell(&mut driver, "r1", accepted.clone()));
    assert!(
        matches!(heard[..], [ToSocket::Confirmed { .. }, ToSocket::State { .. }]),
        "{heard:?}"
    );
    assert_eq!(
        (driver.state(), driver.trip_id()),
        (DriverState::EnRoute, Some(&trip_of("r1")))
    );
    tell(&mut driver, "r1", bound("r1", TripPhase::OnTrip));
    assert!(tell(&mut driver, "r1", accepted).is_empty());
    assert_eq!(driver.state(), DriverState::OnTrip);
}

/// An end of a shift that is too old to count is kept for a while, but does not speak for a driver who was taken as available.
#[test]
fn an_offer_of_before_is_not_refused_for_a_shift_that_ended_long_ago() {
    let struck = DriverEffect::OffShift {
        off: false,
        at_ms: NOW_MS,
    };
    let too_old_ms = NOW_MS - LIMITS.off_shift_memory_ms;
    for resumed in [Resumed::Sent, Resumed::Delivered] {
        let mut driver = Driver::new(driver_id(), too_old_ms);
        let effects = tell(&mut driver, "r1", offer(resumed));
        assert_eq!(
            (to_requests(&effects), driver.at_hand()),
            (vec![], Some(&request_id("r1")))
        );
        assert!(effects.contains(&struck), "{effects:?}");
        let mut driver = Driver::new(driver_id(), too_old_ms + 1);
        let effects = tell(&mut driver, "r1", offer(resumed));
        assert_eq!(to_requests(&effects).len(), 1, "refused or declined");
        assert!(!effects.contains(&struck), "{effects:?}");
    }
    // Whoever is asked now is as far away as before.
    let mut driver = Driver::new(driver_id(), too_old_ms);
    assert_eq!(to_requests(&tell(&mut driver, "r1", offer(Resumed::No))).len(), 1);
}
