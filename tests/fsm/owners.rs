//! What a fleet may answer to a decision beside "stored", and what a driver hears of a request that comes from another node.

use dispatchd::fsm::driver::{Driver, DriverEffect, DriverEvent, ToSocket};
use dispatchd::fsm::fold::{Outcome, TripPhase};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::request::{
    Answer, ApiAnswer, Asker, Defaults, Durability, Fence, ReplyTo, Request, RequestEffect, RequestEvent, Resumed,
    ToDriver, Unfit,
};
use dispatchd::fsm::types::{DriverState, OfferRequest, Priority, RefuseReason, RevokeReason, Step};

pub const NOW_MS: u64 = 1_700_000_000_000;

pub fn driver(name: &str) -> DriverId {
    DriverId::parse(name).unwrap()
}

pub fn id() -> RequestId {
    RequestId::parse("r").unwrap()
}

pub fn reply(call: u64) -> ReplyTo {
    ReplyTo {
        node: 0,
        shard: 0,
        call,
    }
}

pub fn offer(candidates: &[&str]) -> OfferRequest {
    OfferRequest {
        request_id: id(),
        candidates: candidates.iter().map(|name| driver(name)).collect(),
        priority: Priority::Standard,
        offer_timeout_ms: None,
        deadline_ms: None,
        max_attempts: None,
        parallel: None,
        busy_wait_ms: None,
        trip: "{}".into(),
    }
}

/// A request whose first decision is on its way.
pub fn posted(candidates: &[&str]) -> Request {
    let defaults = Defaults {
        offer_timeout_ms: 8_000,
        deadline_ms: 120_000,
    };
    let mut effects = Vec::new();
    let request = Request::received(offer(candidates), reply(1), defaults, NOW_MS, &mut effects);
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, RequestEffect::Persist { wait: true, .. }))
    );
    request
}

pub fn durable(request: &mut Request, outcome: Durability) -> Vec<RequestEffect> {
    let mut effects = Vec::new();
    request.durable(outcome, NOW_MS, &mut effects);
    effects
}

pub fn replies(effects: &[RequestEffect]) -> Vec<(u64, &ApiAnswer)> {
    let reply = |effect| match effect {
        &RequestEffect::Reply { reply, ref answer } => Some((reply.call, answer)),
        _ => None,
    };
    effects.iter().filter_map(reply).collect()
}

pub fn told<'a>(effects: &'a [RequestEffect], name: &str) -> Vec<&'a ToDriver> {
    let to = |effect: &'a RequestEffect| match effect {
        RequestEffect::Driver { driver_id, message } if driver_id.as_str() == name => Some(message),
        _ => None,
    };
    effects.iter().filter_map(to).collect()
}

/// The first driver accepts what it holds, for this call.
fn accept_held(call: u64) -> RequestEvent {
    RequestEvent::Answered {
        driver_id: driver("d1"),
        attempt: Some(1),
        answer: Answer::AcceptHeld,
        reason: None,
        asker: Asker::Api(reply(call)),
    }
}

/// The winner has another trip: nobody hears of the acceptance, the attempt is revoked, the next driver is offered.
#[test]
fn an_acceptance_that_cannot_be_is_taken_back() {
    let mut request = posted(&["d1", "d2"]);
    durable(&mut request, Durability::Committed);
    request.step(accept_held(2), NOW_MS, &mut Vec::new());
    let effects = durable(&mut request, Durability::DriverBound);
    assert!(
        replies(&effects).is_empty() && told(&effects, "d1").is_empty(),
        "{effects:?}"
    );
    assert!(
        effects.contains(&RequestEffect::Persist {
            from: 2,
            to: 4,
            wait: true
        }),
        "{effects:?}"
    );
    let effects = durable(&mut request, Durability::Committed);
    let revoked = Outcome::Revoked(RevokeReason::Superseded);
    let (outcome, trip_id) = (revoked, None);
    assert_eq!(replies(&effects), [(2, &ApiAnswer::Outcome { outcome, trip_id })]);
    assert!(matches!(told(&effects, "d1")[..], [ToDriver::Outcome { attempt: 1, outcome, .. }] if *outcome == revoked));
    assert!(matches!(told(&effects, "d2")[..], [ToDriver::Offer { attempt: 2, .. }]));
    assert!(
        !request
            .log()
            .iter()
            .any(|entry| matches!(entry.step, Step::Accepted { .. } | Step::TripCreated { .. }))
    );
}

/// The same behind the deadline: the request ends, and is over once that is stored.
#[test]
fn a_request_whose_winner_was_bound_is_over_when_its_end_is_stored() {
    let mut request = posted(&["d1"]);
    durable(&mut request, Durability::Committed);
    request.step(accept_held(1), NOW_MS, &mut Vec::new());
    let mut effects = Vec::new();
    request.durable(Durability::DriverBound, NOW_MS + 100_000_000, &mut effects);
    let ended = |effects: &[RequestEffect]| effects.contains(&RequestEffect::Closed);
    assert!(request.fold().end.is_some(), "{:?}", request.log());
    assert!(!ended(&effects) && !request.is_closed(), "{effects:?}");
    assert!(ended(&durable(&mut request, Durability::Committed)) && request.is_closed());
}

fn answered(asker: Asker) -> RequestEvent {
    RequestEvent::Answered {
        driver_id: driver("d1"),
        attempt: Some(1),
        answer: Answer::Accept,
        reason: None,
        asker,
    }
}

/// Calls that are passed on between nodes are answered by way of what they carry.
#[test]
fn calls_carry_who_waits_for_the_answer() {
    let check = |event: &RequestEvent, expect: Option<ReplyTo>| {
        assert_eq!(event.reply(), expect, "{event:?}");
        assert_eq!(event.clone().reply_mut().copied(), expect, "{event:?}");
    };
    let (reply, reason) = (reply(7), None);
    let offer = Box::new(offer(&["d1"]));
    let unfit = Unfit {
        too_large: false,
        why: "no candidates".into(),
    };
    check(&RequestEvent::Reposted { offer, reply }, Some(reply));
    check(&RequestEvent::Misposted { unfit, reply }, Some(reply));
    check(
        &RequestEvent::Cancelled {
            reason: reason.clone(),
            reply,
        },
        Some(reply),
    );
    check(&RequestEvent::TripCancelled { reason, reply }, Some(reply));
    check(&answered(Asker::Api(reply)), Some(reply));
    check(&answered(Asker::Driver), None);
    check(&RequestEvent::Timer, None);
    let accept = |asker| ToDriver::Accept { attempt: 1, asker };
    assert_eq!(accept(Asker::Api(reply)).reply_mut().copied(), Some(reply));
    assert_eq!(accept(Asker::Driver).reply_mut(), None);
    assert_eq!(ToDriver::Release.reply_mut(), None);
}

/// Callers are told that it takes long, once; the decision stands all the same when it does.
#[test]
fn a_slow_decision_keeps_nobody_waiting() {
    let mut request = posted(&["d1"]);
    assert!(request.is_deciding());
    let mut effects = Vec::new();
    let cancelled = |call| RequestEvent::Cancelled {
        reason: None,
        reply: reply(call),
    };
    request.step(cancelled(2), NOW_MS, &mut effects);
    assert!(effects.is_empty());
    request.step(answered(Asker::Api(reply(3))), NOW_MS, &mut effects);
    request.delayed(&mut effects);
    let fenced = [1, 2, 3].map(|call| (call, &ApiAnswer::Fenced));
    assert_eq!(replies(&effects), fenced);
    effects.clear();
    request.delayed(&mut effects);
    assert!(effects.is_empty());
    // Nor who comes later; a driver asks again by itself, and what it says waits.
    request.step(cancelled(4), NOW_MS, &mut effects);
    assert_eq!(replies(&effects), [(4, &ApiAnswer::Fenced)]);
    effects.clear();
    request.step(answered(Asker::Driver), NOW_MS, &mut effects);
    assert!(effects.is_empty());
    let effects = durable(&mut request, Durability::Committed);
    assert!(replies(&effects).is_empty() && !request.is_deciding());
    assert!(
        matches!(
            told(&effects, "d1")[..],
            [ToDriver::Offer { .. }, ToDriver::Accept { .. }]
        ),
        "{effects:?}"
    );
}

/// The id is another owner's: everybody who asked is given back, and nobody was offered anything.
#[test]
fn a_request_that_was_there_already_gives_back_who_asked() {
    let mut request = posted(&["d1"]);
    let mut effects = Vec::new();
    let again = RequestEvent::Reposted {
        offer: Box::new(offer(&["d2"])),
        reply: reply(2),
    };
    request.step(again.clone(), NOW_MS, &mut effects);
    // Nobody but this request is woken by its timer.
    request.step(RequestEvent::Timer, NOW_MS + 8_000, &mut effects);
    let (askers, events) = request.disown(&mut effects);
    assert_eq!(
        (askers, events.into_iter().collect::<Vec<_>>()),
        (vec![reply(1)], vec![again])
    );
    assert!(replies(&effects).is_empty());
    assert_eq!(told(&effects, "d1"), [&ToDriver::Release]);
    assert!(request.is_closed() && effects.contains(&RequestEffect::Closed));
}

/// A request is another's, which shows while nothing is being decided: its offers are void.
#[test]
fn a_request_that_was_taken_away_revokes_its_offers() {
    let mut request = posted(&["d1"]);
    durable(&mut request, Durability::Committed);
    let mut effects = Vec::new();
    request.fence(Fence::default(), &mut effects);
    let revoked = Outcome::Revoked(RevokeReason::Superseded);
    assert!(matches!(told(&effects, "d1")[..], [ToDriver::Outcome { outcome, .. }] if *outcome == revoked));
    assert!(request.is_closed());
    effects.clear();
    request.fence(Fence::default(), &mut effects);
    assert!(effects.is_empty(), "once");
}

struct Wheel(Driver);

impl Wheel {
    fn connected() -> Self {
        let mut wheel = Self(Driver::new(driver("d"), 0));
        wheel.step(DriverEvent::Connected { session: 1 });
        wheel
    }

    fn step(&mut self, event: DriverEvent) -> Vec<DriverEffect> {
        let mut effects = Vec::new();
        self.0.step(event, NOW_MS, &crate::script::LIMITS, &mut effects);
        effects
    }

    fn hears(&mut self, request: &str, message: ToDriver) -> Vec<DriverEffect> {
        let request_id = RequestId::parse(request).unwrap();
        self.step(DriverEvent::Request {
            node: 0,
            request_id,
            message,
        })
    }
}

fn resumed(attempt: u32) -> ToDriver {
    ToDriver::Offer {
        attempt,
        priority: Priority::Standard,
        expires_at_ms: NOW_MS + 1_000,
        trip: "{}".into(),
        resumed: Resumed::Delivered,
    }
}

/// A driver who reconnected before its request came: it gets the offer, or the request hears that it is taken.
#[test]
fn a_connected_driver_gets_the_offer_of_a_request_that_comes_over() {
    let mut wheel = Wheel::connected();
    let effects = wheel.hears("r", resumed(3));
    assert!(
        matches!(&effects[..], [DriverEffect::Send(ToSocket::Offer { attempt: 3, .. })]),
        "{effects:?}"
    );
    assert!(wheel.hears("r", resumed(3)).is_empty(), "it has it");
    let refused = |effects: Vec<DriverEffect>, why| {
        let [DriverEffect::Request { request_id, event }] = &effects[..] else {
            panic!("{effects:?}")
        };
        let (attempt, driver_id, reason) = (1, driver("d"), why);
        assert_eq!(
            (request_id.as_str(), event),
            (
                "q",
                &RequestEvent::Refused {
                    attempt,
                    driver_id,
                    reason
                }
            )
        );
    };
    refused(wheel.hears("q", resumed(1)), RefuseReason::Offered);
    let trip_id = TripId::for_request(&id(), NOW_MS);
    let phase = TripPhase::EnRoute;
    let mut wheel = Wheel::connected();
    let effects = wheel.hears(
        "r",
        ToDriver::Bound {
            attempt: 1,
            trip_id: trip_id.clone(),
            phase,
        },
    );
    let state = DriverState::EnRoute;
    let expect = ToSocket::State {
        state,
        trip_id: Some(trip_id.clone()),
    };
    let confirmed = ToSocket::Confirmed {
        request_id: id(),
        attempt: 1,
        trip_id,
    };
    assert_eq!(effects, [DriverEffect::Send(confirmed), DriverEffect::Send(expect)]);
    refused(wheel.hears("q", resumed(1)), RefuseReason::EnRoute);
}

/// A request that was given to another node goes on there: here nobody hears of it, and what comes later is for that one.
#[test]
fn what_is_handed_over_is_silent() {
    let mut request = posted(&["d1", "d2"]);
    durable(&mut request, Durability::Committed);
    assert!(request.is_quiet());
    let mut effects = Vec::new();
    assert!(request.hand_over(&mut effects).is_empty());
    assert!(
        replies(&effects).is_empty() && told(&effects, "d1").is_empty(),
        "{effects:?}"
    );
    assert!(effects.contains(&RequestEffect::Arm { at_ms: None }) && effects.contains(&RequestEffect::Closed));
    assert!(request.is_closed());
    // Who it is for can still be told to its drivers' homes.
    let mut bound = Vec::new();
    request.rebind(&mut bound);
    assert!(
        matches!(told(&bound, "d1")[..], [ToDriver::Offer { attempt: 1, .. }]),
        "{bound:?}"
    );
    let mut effects = Vec::new();
    let cancelled = RequestEvent::Cancelled {
        reason: None,
        reply: reply(3),
    };
    request.step(cancelled.clone(), NOW_MS, &mut effects);
    assert_eq!(effects, [RequestEffect::PassOn(cancelled)]);
    request.step(RequestEvent::Timer, NOW_MS + 10_000, &mut effects);
    assert_eq!(request.log().len(), 2, "nothing is decided here any more");
}

/// It was given and taken while something was being decided here after all: that never was, its caller hears so, the driver
/// nothing, and what came meanwhile is given back for the new owner.
#[test]
fn what_was_decided_after_a_hand_over_never_was() {
    let mut request = posted(&["d1", "d2"]);
    durable(&mut request, Durability::Committed);
    let answered = |answer, asker| RequestEvent::Answered {
        driver_id: driver("d1"),
        attempt: Some(1),
        answer,
        reason: None,
        asker,
    };
    let mut effects = Vec::new();
    let decline = answered(Answer::DeclineHeld, Asker::Api(reply(2)));
    request.step(decline, NOW_MS, &mut effects);
    assert!(!request.is_quiet());
    let accept = answered(Answer::AcceptHeld, Asker::Driver);
    request.step(accept.clone(), NOW_MS, &mut effects);
    effects.clear();
    assert_eq!(request.hand_over(&mut effects), [accept]);
    assert_eq!(replies(&effects), [(2, &ApiAnswer::Fenced)]);
    assert!(told(&effects, "d1").is_empty(), "{effects:?}");
    assert!(
        matches!(told(&effects, "d2")[..], [ToDriver::Release]),
        "reserved perhaps, never offered"
    );
    assert_eq!(request.log().len(), 2);
}

/// A driver who is being asked is waited for: the answer may hang on words that nobody else knows.
#[test]
fn who_asks_is_not_quiet() {
    let defaults = Defaults {
        offer_timeout_ms: 8_000,
        deadline_ms: 120_000,
    };
    let mut posted = offer(&["d1"]);
    posted.busy_wait_ms = Some(10_000);
    let mut effects = Vec::new();
    let mut request = Request::received(posted, reply(1), defaults, NOW_MS, &mut effects);
    assert!(!request.is_quiet());
    let busy = RequestEvent::Busy {
        driver_id: driver("d1"),
        ask: 1,
    };
    request.step(busy, NOW_MS, &mut effects);
    durable(&mut request, Durability::Committed);
    assert!(request.is_waiting() && request.is_quiet());
    assert!(request.hand_over(&mut effects).is_empty());
    assert!(!request.is_waiting(), "its turn is the new owner's to ask for");
}
