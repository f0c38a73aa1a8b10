//! What a driver has said of an offer stands until the offer's request decides, whatever else is found to bind the driver; and an
//! offer that was shown although its request took it for refused has an end all the same.

use crate::moves::{bound, connected, offer, request_id, step, tell, to_requests, to_socket, trip_of};
use crate::owners;
use dispatchd::fsm::driver::{Driver, DriverEvent, ToSocket};
use dispatchd::fsm::fold::{Outcome, TripPhase};
use dispatchd::fsm::request::{Answer, Asker, Durability, Request, RequestEffect, RequestEvent, Resumed, ToDriver};
use dispatchd::fsm::types::{DriverState, RefuseReason, RevokeReason, Step, TripOutcome};

/// A driver who has answered the offer of `r1` and is found to have the trip of `r2`.
fn bound_after(answer: Answer) -> Driver {
    let mut driver = connected(1);
    tell(&mut driver, "r1", offer(Resumed::No));
    let event = DriverEvent::Answer {
        request_id: request_id("r1"),
        attempt: 1,
        answer,
        reason: None,
    };
    step(&mut driver, event);
    let effects = tell(&mut driver, "r2", bound("r2", TripPhase::EnRoute));
    let state = ToSocket::State {
        state: DriverState::EnRoute,
        trip_id: Some(trip_of("r2")),
    };
    assert_eq!(to_socket(&effects).last(), Some(&state), "nothing is revoked");
    assert!(to_requests(&effects).is_empty(), "nor refused: {effects:?}");
    assert_eq!(driver.trip_id(), Some(&trip_of("r2")));
    driver
}

fn outcome(outcome: Outcome) -> ToDriver {
    let trip_id = (outcome == Outcome::Accepted).then(|| trip_of("r1"));
    ToDriver::Outcome {
        attempt: 1,
        outcome,
        trip_id,
        again: false,
    }
}

fn ended(request: &str) -> ToDriver {
    ToDriver::Trip {
        trip_id: trip_of(request),
        phase: TripPhase::Ended(TripOutcome::Completed),
        reason: None,
        again: false,
    }
}

fn revoked(reason: RevokeReason) -> ToSocket {
    ToSocket::Revoked {
        request_id: request_id("r1"),
        attempt: 1,
        reason,
    }
}

#[test]
fn what_was_said_is_decided_by_its_request_alone() {
    let mut driver = bound_after(Answer::Accept);
    let superseded = outcome(Outcome::Revoked(RevokeReason::Superseded));
    let effects = tell(&mut driver, "r1", superseded);
    assert_eq!(to_socket(&effects), [revoked(RevokeReason::Superseded)]);
    assert_eq!(driver.state(), DriverState::EnRoute);

    let mut driver = bound_after(Answer::Decline);
    let effects = tell(&mut driver, "r1", outcome(Outcome::Declined));
    let declined = ToSocket::Declined {
        request_id: request_id("r1"),
        attempt: 1,
    };
    assert_eq!(to_socket(&effects), [declined]);
    assert_eq!(driver.trip_id(), Some(&trip_of("r2")));
}

/// The other trip was over when the request decided: no driver is bound twice. Whose word comes first does not matter.
#[test]
fn an_acceptance_that_stands_binds_whatever_bound_before() {
    let confirmed = ToSocket::Confirmed {
        request_id: request_id("r1"),
        attempt: 1,
        trip_id: trip_of("r1"),
    };
    let state = |trip_id, state| ToSocket::State { state, trip_id };
    let now_r1 = || state(Some(trip_of("r1")), DriverState::EnRoute);

    for message in [outcome(Outcome::Accepted), bound("r1", TripPhase::EnRoute)] {
        let mut driver = bound_after(Answer::Accept);
        let effects = tell(&mut driver, "r1", message);
        let over = state(None, DriverState::Available);
        assert_eq!(to_socket(&effects), [over, confirmed.clone(), now_r1()]);
        assert!(tell(&mut driver, "r2", ended("r2")).is_empty());
        assert_eq!(driver.trip_id(), Some(&trip_of("r1")));
    }

    let mut driver = bound_after(Answer::Accept);
    let effects = tell(&mut driver, "r2", ended("r2"));
    assert_eq!(to_socket(&effects), [state(None, DriverState::Available)]);
    assert_eq!(driver.state(), DriverState::Offered, "it is not free for another");
    assert!(is_said_again(&to_requests(&effects)), "{effects:?}");
    let effects = tell(&mut driver, "r1", outcome(Outcome::Accepted));
    assert_eq!(to_socket(&effects), [confirmed, now_r1()]);
}

/// Whether `r1` hears once more that its offer is accepted.
fn is_said_again(asked: &[(String, RequestEvent)]) -> bool {
    asked.iter().any(|(request, event)| {
        let answer = Some(Answer::AcceptHeld);
        request == "r1"
            && matches!(event, RequestEvent::DriverHere { held: Some(1), answer: said, .. } if *said == answer)
    })
}

/// A new owner has not heard what the old one was told.
#[test]
fn a_new_owner_hears_the_answer_too() {
    let mut driver = bound_after(Answer::Accept);
    let effects = tell(&mut driver, "r1", offer(Resumed::Sent));
    assert!(to_socket(&effects).is_empty());
    assert!(is_said_again(&to_requests(&effects)), "{effects:?}");
}

/// Who comes again is not asked for an answer that was given; and both requests hear where the driver is.
#[test]
fn an_answered_offer_is_not_shown_beside_a_trip() {
    let mut driver = bound_after(Answer::Accept);
    step(&mut driver, DriverEvent::Disconnected { session: 1 });
    let effects = step(&mut driver, DriverEvent::Connected { session: 2 });
    assert!(
        matches!(to_socket(&effects)[..], [ToSocket::Welcome { .. }]),
        "{effects:?}"
    );
    for event in [DriverEvent::Doubt, DriverEvent::Moved] {
        let effects = step(&mut driver, event);
        let asked = to_requests(&effects);
        assert!(is_said_again(&asked), "{asked:?}");
        assert!(asked.iter().any(|(request, _)| request == "r2"), "{asked:?}");
    }
}

/// A refusal of the node that the driver has left, or of before an owner took over who has offered again.
fn refused(request: &mut Request) -> Vec<RequestEffect> {
    let event = RequestEvent::Refused {
        attempt: 1,
        driver_id: owners::driver("d1"),
        reason: RefuseReason::Offline,
    };
    let mut effects = Vec::new();
    request.step(event, owners::NOW_MS, &mut effects);
    effects
}

fn delivered(request: &mut Request) -> Vec<RequestEffect> {
    let event = RequestEvent::Delivered {
        attempt: 1,
        driver_id: owners::driver("d1"),
    };
    let mut effects = Vec::new();
    request.step(event, owners::NOW_MS, &mut effects);
    effects
}

#[test]
fn an_offer_that_was_shown_and_refused_is_taken_back() {
    let is_end = |told: &[&ToDriver]| {
        let superseded = Outcome::Revoked(RevokeReason::Superseded);
        matches!(told, [ToDriver::Outcome { attempt: 1, outcome, again: false, .. }] if *outcome == superseded)
    };
    for delivered_first in [true, false] {
        let mut request = owners::posted(&["d1"]);
        owners::durable(&mut request, Durability::Committed);
        if delivered_first {
            delivered(&mut request);
        }
        refused(&mut request);
        let mut effects = owners::durable(&mut request, Durability::Committed);
        if !delivered_first {
            assert!(owners::told(&effects, "d1").is_empty(), "it was not shown: {effects:?}");
            effects = delivered(&mut request);
        }
        assert!(is_end(&owners::told(&effects, "d1")), "{delivered_first}: {effects:?}");
    }
    let mut driver = connected(1);
    tell(&mut driver, "r1", offer(Resumed::Sent));
    let effects = tell(&mut driver, "r1", outcome(Outcome::Revoked(RevokeReason::Superseded)));
    assert_eq!(to_socket(&effects), [revoked(RevokeReason::Superseded)]);
    assert_eq!(driver.state(), DriverState::Available);
}

#[test]
fn who_answers_an_offer_that_was_refused_hears_what_it_was_shown() {
    for (was_shown, answer) in [(true, Answer::Accept), (true, Answer::Decline), (false, Answer::Accept)] {
        let mut request = owners::posted(&["d1"]);
        owners::durable(&mut request, Durability::Committed);
        if was_shown {
            delivered(&mut request);
        }
        refused(&mut request);
        owners::durable(&mut request, Durability::Committed);
        let event = RequestEvent::Answered {
            driver_id: owners::driver("d1"),
            attempt: Some(1),
            answer,
            reason: None,
            asker: Asker::Driver,
        };
        let mut effects = Vec::new();
        request.step(event, owners::NOW_MS, &mut effects);
        let told = owners::told(&effects, "d1");
        let superseded = Outcome::Revoked(RevokeReason::Superseded);
        let is_end = matches!(told[..], [ToDriver::Outcome { attempt: 1, outcome, .. }] if *outcome == superseded);
        assert_eq!(is_end, was_shown, "{answer:?}: {told:?}");
        assert_eq!(told.len(), 1, "{answer:?} is answered: {told:?}");
    }
}

/// Going off shift declines what is open. It is no message about the attempt: who hears the end of one that is over already hears it
/// as that, and is not answered besides.
#[test]
fn off_shift_declines_what_is_open_and_asks_after_what_is_over() {
    let off_shift = |held| RequestEvent::DriverHere {
        driver_id: owners::driver("d1"),
        held: Some(held),
        answer: Some(Answer::OffShift),
    };
    let mut driver = connected(1);
    tell(&mut driver, "r1", offer(Resumed::No));
    let effects = step(&mut driver, DriverEvent::SetState { available: false });
    assert_eq!(to_requests(&effects), [("r1".to_owned(), off_shift(1))]);
    assert!(
        to_socket(&effects).is_empty(),
        "the offer's end comes first: {effects:?}"
    );
    let effects = step(&mut driver, DriverEvent::Doubt);
    let repeated = ("r1".to_owned(), off_shift(1));
    assert!(
        to_requests(&effects).contains(&repeated),
        "with its reason: {effects:?}"
    );

    let mut request = owners::posted(&["d1"]);
    owners::durable(&mut request, Durability::Committed);
    let mut effects = Vec::new();
    request.step(off_shift(1), owners::NOW_MS, &mut effects);
    let why = request.log().iter().find_map(|entry| match &entry.step {
        Step::Declined { attempt: 1, reason, .. } => reason.as_deref(),
        _ => None,
    });
    assert_eq!(why, Some("off shift"));
    effects.clear();
    request.step(off_shift(1), owners::NOW_MS, &mut effects);
    effects.extend(owners::durable(&mut request, Durability::Committed));
    let told = owners::told(&effects, "d1");
    let is_declined = |message: &&&ToDriver| {
        matches!(
            message,
            ToDriver::Outcome {
                outcome: Outcome::Declined,
                again: false,
                ..
            }
        )
    };
    assert_eq!(told.iter().filter(is_declined).count(), told.len(), "{told:?}");
    assert!(!told.is_empty());
}
