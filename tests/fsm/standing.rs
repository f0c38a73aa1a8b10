//! What a request tells a driver who asks how it stands between the two.

use crate::moves::{NOW_MS, driver_id, request_id};
use crate::world::DEFAULTS;
use dispatchd::fsm::fold::{Outcome, TripPhase};
use dispatchd::fsm::ids::DriverId;
use dispatchd::fsm::request::{
    Answer, Asker, Durability, ReplyTo, Request, RequestEffect, RequestEvent, Resumed, ToDriver, TripMove,
};
use dispatchd::fsm::types::{OfferRequest, Priority, TripOutcome};

struct Asked {
    request: Request,
    effects: Vec<RequestEffect>,
}

impl Asked {
    /// A request whose offer to `d1` is durable.
    fn new() -> Self {
        let offer = OfferRequest {
            request_id: request_id("r1"),
            candidates: vec![driver_id(), DriverId::parse("d2").unwrap()],
            priority: Priority::Standard,
            offer_timeout_ms: None,
            deadline_ms: None,
            max_attempts: None,
            parallel: None,
            busy_wait_ms: None,
            trip: "{}".into(),
        };
        let reply = ReplyTo {
            node: 0,
            shard: 0,
            call: 1,
        };
        let mut effects = Vec::new();
        let request = Request::received(offer, reply, DEFAULTS, NOW_MS, &mut effects);
        let mut asked = Self { request, effects };
        asked.commit();
        asked
    }

    fn commit(&mut self) {
        self.request.durable(Durability::Committed, NOW_MS, &mut self.effects);
    }

    fn step(&mut self, event: RequestEvent) {
        self.request.step(event, NOW_MS, &mut self.effects);
    }

    /// What a driver is told who is here.
    fn tells(&mut self, held: Option<u32>) -> Vec<ToDriver> {
        self.effects.clear();
        let driver_id = driver_id();
        let answer = None;
        self.step(RequestEvent::DriverHere {
            driver_id,
            held,
            answer,
        });
        self.told()
    }

    fn told(&mut self) -> Vec<ToDriver> {
        let told = self.effects.drain(..).filter_map(|effect| match effect {
            RequestEffect::Driver { driver_id: to, message } if to == driver_id() => Some(message),
            _ => None,
        });
        told.collect()
    }

    fn answered(&mut self, answer: Answer) {
        self.answered_by(driver_id(), 1, answer);
    }

    fn answered_by(&mut self, driver_id: DriverId, attempt: u32, answer: Answer) {
        self.step(RequestEvent::Answered {
            driver_id,
            attempt: Some(attempt),
            answer,
            reason: None,
            asker: Asker::Driver,
        });
    }
}

#[test]
fn a_request_says_how_it_stands() {
    let outcome = |outcome| ToDriver::Outcome {
        attempt: 1,
        outcome,
        trip_id: None,
        again: false,
    };
    let mut asked = Asked::new();
    assert!(matches!(
        asked.tells(None)[..],
        [ToDriver::Offer {
            attempt: 1,
            resumed: Resumed::Sent,
            ..
        }]
    ));
    asked.step(RequestEvent::Delivered {
        attempt: 1,
        driver_id: driver_id(),
    });
    let told = asked.tells(Some(1));
    assert!(
        matches!(
            told[..],
            [ToDriver::Offer {
                resumed: Resumed::Delivered,
                ..
            }]
        ),
        "{told:?}"
    );
    // While it decides, the answer waits for that.
    asked.answered(Answer::DeclineHeld);
    assert!(asked.tells(Some(1)).is_empty());
    asked.commit();
    assert_eq!(asked.told(), [outcome(Outcome::Declined), outcome(Outcome::Declined)]);
    assert_eq!(asked.tells(None), [ToDriver::Release]);
    // An attempt that never was.
    assert_eq!(asked.tells(Some(7)).len(), 1);
}

/// An answer that was lost comes with the question, and decides once.
#[test]
fn an_answer_that_was_lost_counts_once() {
    let mut asked = Asked::new();
    asked.effects.clear();
    for _ in 0..2 {
        asked.step(RequestEvent::DriverHere {
            driver_id: driver_id(),
            held: Some(1),
            answer: Some(Answer::AcceptHeld),
        });
    }
    asked.commit();
    let told = asked.told();
    assert!(
        matches!(
            told[..],
            [
                ToDriver::Outcome {
                    outcome: Outcome::Accepted,
                    again: false,
                    ..
                },
                ToDriver::Bound { .. }
            ]
        ),
        "{told:?}"
    );
    assert_eq!(asked.request.log().len(), 4);
}

#[test]
fn a_request_says_how_its_trip_stands() {
    let mut asked = Asked::new();
    asked.answered(Answer::AcceptHeld);
    asked.commit();
    let trip_id = asked.request.fold().trip.clone().unwrap().trip_id;
    let bound = |phase| ToDriver::Bound {
        attempt: 1,
        trip_id: trip_id.clone(),
        phase,
    };
    assert_eq!(asked.tells(Some(1)), [bound(TripPhase::EnRoute)]);
    for (what, expect) in [
        (TripMove::Pickup, bound(TripPhase::OnTrip)),
        (
            TripMove::Complete,
            ToDriver::Trip {
                trip_id: trip_id.clone(),
                phase: TripPhase::Ended(TripOutcome::Completed),
                reason: None,
                again: false,
            },
        ),
    ] {
        asked.step(RequestEvent::TripMoved {
            driver_id: driver_id(),
            trip_id: trip_id.clone(),
            what,
        });
        asked.commit();
        assert_eq!(asked.tells(None), [expect]);
    }
}

#[test]
fn a_request_says_why_its_trip_has_ended() {
    let mut asked = Asked::new();
    asked.answered(Answer::AcceptHeld);
    asked.commit();
    let reply = ReplyTo {
        node: 0,
        shard: 0,
        call: 2,
    };
    let why: Box<str> = "the rider left".into();
    let reason = Some(why.clone());
    asked.step(RequestEvent::TripCancelled { reason, reply });
    asked.commit();
    let told = asked.tells(None);
    assert!(
        matches!(&told[..], [ToDriver::Trip { reason, .. }] if *reason == Some(why)),
        "{told:?}"
    );
}

#[test]
fn a_winner_hears_the_number_of_its_own_attempt() {
    let mut asked = Asked::new();
    asked.answered(Answer::DeclineHeld);
    asked.commit();
    let second = DriverId::parse("d2").unwrap();
    asked.answered_by(second.clone(), 2, Answer::AcceptHeld);
    asked.commit();
    asked.effects.clear();
    asked.step(RequestEvent::DriverHere {
        driver_id: second,
        held: Some(2),
        answer: None,
    });
    let told = asked.effects.iter().find_map(|effect| match effect {
        RequestEffect::Driver { message, .. } => Some(message),
        _ => None,
    });
    assert!(matches!(told, Some(ToDriver::Bound { attempt: 2, .. })), "{told:?}");
}
