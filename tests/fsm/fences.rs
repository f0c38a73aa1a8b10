//! Another owner has a request: with links to it nobody hears an end from the old one that is not the end.

use crate::owners::{NOW_MS, driver, durable, id, offer, posted, replies, reply, told};
use crate::world::DEFAULTS;
use dispatchd::fsm::fold::{Outcome, TripPhase};
use dispatchd::fsm::request::{
    Answer, ApiAnswer, Asker, Durability, Fence, Request, RequestEffect, RequestEvent, ToDriver, TripMove,
};
use dispatchd::fsm::types::{RefuseReason, RevokeReason, Step, TripOutcome};

const HEIR: Fence = Fence {
    stood: false,
    has_heir: true,
};

fn step(request: &mut Request, event: RequestEvent) -> Vec<RequestEffect> {
    let mut effects = Vec::new();
    request.step(event, NOW_MS, &mut effects);
    effects
}

fn says(answer: Answer, asker: Asker) -> RequestEvent {
    RequestEvent::Answered {
        driver_id: driver("d1"),
        attempt: Some(1),
        answer,
        reason: None,
        asker,
    }
}

fn passed_on(effects: &[RequestEffect]) -> Vec<RequestEvent> {
    let passed = |effect: &RequestEffect| match effect {
        RequestEffect::PassOn(event) => Some(event.clone()),
        _ => None,
    };
    effects.iter().filter_map(passed).collect()
}

fn here(held: Option<u32>, answer: Option<Answer>) -> RequestEvent {
    let driver_id = driver("d1");
    RequestEvent::DriverHere {
        driver_id,
        held,
        answer,
    }
}

/// A request with an open offer.
fn offered() -> Request {
    let mut request = posted(&["d1", "d2"]);
    durable(&mut request, Durability::Committed);
    request
}

/// Found out while nothing is decided: the heir says how it stands with the drivers, and what comes later is passed on.
#[test]
fn the_heir_speaks_to_the_drivers() {
    let mut request = offered();
    let mut effects = Vec::new();
    request.fence(HEIR, &mut effects);
    assert!(told(&effects, "d1").is_empty(), "{effects:?}");
    assert_eq!(passed_on(&effects), [here(Some(1), None)]);
    assert!(request.is_closed() && effects.contains(&RequestEffect::Closed));
    for event in [
        says(Answer::AcceptHeld, Asker::Driver),
        says(Answer::Accept, Asker::Api(reply(7))),
        RequestEvent::Reposted {
            offer: Box::new(offer(&["d3"])),
            reply: reply(8),
        },
    ] {
        assert_eq!(step(&mut request, event.clone()), [RequestEffect::PassOn(event)]);
    }
    let (driver_id, ask) = (driver("d1"), 1);
    let effects = step(&mut request, RequestEvent::Reserved { driver_id, ask });
    assert_eq!(told(&effects, "d1"), [&ToDriver::Release]);
    assert!(step(&mut request, RequestEvent::Timer).is_empty());
}

/// A driver's answer that was being stored, and what came after it, goes to the heir; callers ask again.
#[test]
fn an_answer_that_was_not_stored_goes_to_the_heir() {
    for (said, expect) in [
        (Answer::AcceptHeld, Answer::AcceptHeld),
        (Answer::DeclineHeld, Answer::DeclineHeld),
    ] {
        let mut request = offered();
        step(&mut request, says(said, Asker::Api(reply(2))));
        let later = RequestEvent::Cancelled {
            reason: None,
            reply: reply(3),
        };
        assert!(step(&mut request, later.clone()).is_empty());
        step(&mut request, RequestEvent::Timer);
        let effects = durable(&mut request, Durability::Fenced(HEIR));
        assert_eq!(passed_on(&effects), [here(Some(1), Some(expect)), later]);
        assert_eq!(replies(&effects), [(2, &ApiAnswer::Fenced)]);
        assert!(told(&effects, "d1").is_empty(), "{effects:?}");
        assert_eq!(request.log().len(), 2, "what was not stored never was");
    }
}

/// Going off shift with the offer in hand declines it, at the heir too; in its own words.
#[test]
fn a_driver_who_goes_off_shift_does_so_at_the_heir() {
    let mut request = offered();
    step(&mut request, here(Some(1), Some(Answer::OffShift)));
    let effects = durable(&mut request, Durability::Fenced(HEIR));
    assert_eq!(passed_on(&effects), [here(Some(1), Some(Answer::OffShift))]);
}

/// Of several drivers with an offer only the one who answered has said something.
#[test]
fn the_heir_hears_whose_answer_it_was() {
    for said in [Answer::AcceptHeld, Answer::DeclineHeld] {
        let mut posted = offer(&["d1", "d2"]);
        posted.parallel = Some(2);
        let mut effects = Vec::new();
        let mut request = Request::received(posted, reply(1), DEFAULTS, NOW_MS, &mut effects);
        durable(&mut request, Durability::Committed);
        step(&mut request, says(said, Asker::Driver));
        let effects = durable(&mut request, Durability::Fenced(HEIR));
        let other = RequestEvent::DriverHere {
            driver_id: driver("d2"),
            held: Some(2),
            answer: None,
        };
        assert_eq!(passed_on(&effects), [here(Some(1), Some(said)), other]);
    }
}

/// The same of a trip.
#[test]
fn a_word_about_a_trip_that_was_not_stored_goes_to_the_heir() {
    for (what, is_last) in [
        (TripMove::Pickup, false),
        (TripMove::Complete, true),
        (TripMove::Cancel, true),
    ] {
        let mut request = offered();
        step(&mut request, says(Answer::AcceptHeld, Asker::Driver));
        durable(&mut request, Durability::Committed);
        let trip_id = request.fold().trip.as_ref().expect("a trip").trip_id.clone();
        let moved = RequestEvent::TripMoved {
            driver_id: driver("d1"),
            trip_id,
            what,
        };
        step(&mut request, moved.clone());
        let effects = durable(&mut request, Durability::Fenced(HEIR));
        assert_eq!(passed_on(&effects), [moved, here(None, None)], "{is_last}");
        assert!(told(&effects, "d1").is_empty());
    }
}

/// Without an heir within reach, a decision that was stored before the owner changed is told as it was decided.
#[test]
fn a_decision_that_stood_is_told() {
    let check = |answer, stood, expect: Outcome| {
        let mut request = offered();
        step(&mut request, says(answer, Asker::Driver));
        let has_heir = false;
        let effects = durable(&mut request, Durability::Fenced(Fence { stood, has_heir }));
        let [ToDriver::Outcome { outcome, trip_id, .. }] = told(&effects, "d1")[..] else {
            panic!("{effects:?}")
        };
        assert_eq!((*outcome, trip_id.is_some()), (expect, expect == Outcome::Accepted));
        assert!(
            !request
                .log()
                .iter()
                .any(|entry| matches!(entry.step, Step::Accepted { .. }))
        );
    };
    let superseded = Outcome::Revoked(RevokeReason::Superseded);
    check(Answer::AcceptHeld, true, Outcome::Accepted);
    check(Answer::AcceptHeld, false, superseded);
    check(Answer::DeclineHeld, true, Outcome::Declined);
    check(Answer::DeclineHeld, false, superseded);
}

/// The owner that died may not have come to say what it decided last: its heir does.
#[test]
fn what_was_decided_last_is_told_by_the_heir() {
    let mut request = offered();
    step(&mut request, says(Answer::DeclineHeld, Asker::Driver));
    let mut effects = Vec::new();
    request.tell_ends(2, &mut effects);
    assert!(
        matches!(
            told(&effects, "d1")[..],
            [ToDriver::Outcome {
                attempt: 1,
                outcome: Outcome::Declined,
                again: false,
                ..
            }]
        ),
        "{effects:?}"
    );
    assert!(told(&effects, "d2").is_empty(), "its offer is made again by `rebind`");
    effects.clear();
    request.tell_ends(4, &mut effects);
    assert!(effects.is_empty());
    assert_eq!(*request.id(), id());
}

/// Who posted new candidates, and waits while those are asked, hears that it is not known what becomes of that.
#[test]
fn who_posted_while_drivers_were_asked_is_answered() {
    for is_given in [false, true] {
        let mut request = offered();
        step(&mut request, says(Answer::DeclineHeld, Asker::Driver));
        durable(&mut request, Durability::Committed);
        let refuse = |driver_id, attempt| RequestEvent::Refused {
            attempt,
            driver_id,
            reason: RefuseReason::Offline,
        };
        step(&mut request, refuse(driver("d2"), 2));
        durable(&mut request, Durability::Committed);
        let mut more = offer(&["d3"]);
        more.busy_wait_ms = Some(1_000);
        let offer = Box::new(more);
        let asked = step(&mut request, RequestEvent::Reposted { offer, reply: reply(9) });
        assert!(matches!(told(&asked, "d3")[..], [ToDriver::Ask { .. }]), "{asked:?}");
        let mut effects = Vec::new();
        if is_given {
            request.hand_over(&mut effects);
        } else {
            request.fence(HEIR, &mut effects);
        }
        assert_eq!(replies(&effects), [(9, &ApiAnswer::Fenced)]);
    }
}

/// The driver did not hear that it won, nor that the trip was ended meanwhile: it hears of both, and is free.
#[test]
fn a_driver_that_missed_a_whole_trip_hears_of_it() {
    let mut request = offered();
    step(&mut request, says(Answer::AcceptHeld, Asker::Driver));
    durable(&mut request, Durability::Committed);
    let reason = None;
    step(
        &mut request,
        RequestEvent::TripCancelled {
            reason,
            reply: reply(2),
        },
    );
    durable(&mut request, Durability::Committed);
    let effects = step(&mut request, here(Some(1), Some(Answer::AcceptHeld)));
    let [
        ToDriver::Outcome {
            attempt: 1,
            outcome: Outcome::Accepted,
            trip_id: Some(won),
            again: false,
        },
        ToDriver::Trip {
            trip_id,
            phase: TripPhase::Ended(TripOutcome::Cancelled),
            again: false,
            ..
        },
    ] = told(&effects, "d1")[..]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(won, trip_id);
    // One that has nothing of it any more hears the end alone.
    let effects = step(&mut request, here(None, None));
    assert!(
        matches!(told(&effects, "d1")[..], [ToDriver::Trip { .. }]),
        "{effects:?}"
    );
}
