//! What the shard asks of a driver actor between its events, and of ids and queues.

use crate::world::DEFAULTS;
use dispatchd::fsm::driver::{Driver, DriverEffect, DriverEvent, DriverLimits, Location};
use dispatchd::fsm::fold::{Outcome, TripPhase};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::queue::ClassQueue;
use dispatchd::fsm::request::{ReplyTo, Request, RequestEvent, Resumed, ToDriver};
use dispatchd::fsm::types::{DriverState, OfferRequest, Priority, RequestState, ResponseType};

const LIMITS: DriverLimits = DriverLimits {
    heartbeat_ms: 30_000,
    driver_ttl_ms: 60_000,
    off_shift_memory_ms: 100_000,
    age_step_ms: 2_000,
};
const NOW_MS: u64 = 1_000_000;
const EXPIRES_AT_MS: u64 = NOW_MS + 8_000;
const SESSION: u64 = 7;

fn request() -> RequestId {
    RequestId::parse("r1").unwrap()
}

fn trip() -> TripId {
    TripId::for_request(&request(), NOW_MS)
}

fn driver() -> Driver {
    Driver::new(DriverId::parse("d1").unwrap(), 0)
}

fn step(driver: &mut Driver, event: DriverEvent) -> Vec<DriverEffect> {
    let mut effects = Vec::new();
    driver.step(event, NOW_MS, &LIMITS, &mut effects);
    effects
}

fn tell(driver: &mut Driver, message: ToDriver) {
    let request_id = request();
    step(
        driver,
        DriverEvent::Request {
            node: 0,
            request_id,
            message,
        },
    );
}

fn connect(driver: &mut Driver) {
    step(driver, DriverEvent::Connected { session: SESSION });
}

fn offer(driver: &mut Driver, resumed: Resumed) {
    let message = ToDriver::Offer {
        attempt: 3,
        priority: Priority::Standard,
        expires_at_ms: EXPIRES_AT_MS,
        trip: "{}".into(),
        resumed,
    };
    tell(driver, message);
}

fn bind(driver: &mut Driver, phase: TripPhase) {
    let trip_id = trip();
    let bound = ToDriver::Bound {
        attempt: 1,
        trip_id,
        phase,
    };
    tell(driver, bound);
}

fn place(lat: f64) -> Location {
    Location {
        lat,
        lon: 13.4,
        heading: None,
        speed: Some(1.5),
    }
}

#[test]
fn of_a_driver_that_nobody_knows() {
    let unknown = driver();
    assert_eq!(unknown.id().as_str(), "d1");
    assert_eq!(unknown.session(), None);
    assert_eq!((unknown.last_heard_ms(), unknown.off_shift_since_ms()), (0, 0));
    assert_eq!(
        (unknown.location(), unknown.trip_id(), unknown.offer()),
        (None, None, None)
    );
    assert_eq!(unknown.state(), DriverState::Offline);
    assert!(unknown.is_unknown() && !unknown.awaits_delivery());
    assert_eq!(unknown.heap_bytes(), 0);
}

#[test]
fn of_a_driver_from_its_connect_to_its_trip() {
    let mut known = driver();
    connect(&mut known);
    assert_eq!((known.session(), known.last_heard_ms()), (Some(SESSION), NOW_MS));
    assert_eq!(known.state(), DriverState::Available);
    assert!(!known.is_unknown() && !known.awaits_delivery());

    let priority = Priority::Standard;
    tell(&mut known, ToDriver::Ask { ask: 1, priority });
    assert_eq!((known.state(), known.offer()), (DriverState::Offered, None));
    assert!(!known.awaits_delivery(), "reserved, not offered");
    offer(&mut known, Resumed::No);
    assert_eq!(known.offer(), Some((&request(), 3, EXPIRES_AT_MS)));
    assert!(known.awaits_delivery());
    step(&mut known, DriverEvent::Written);
    assert!(!known.awaits_delivery());
    step(&mut known, DriverEvent::Disconnected { session: SESSION });
    assert!(!known.awaits_delivery(), "there is no socket");
    assert_eq!((known.session(), known.state()), (None, DriverState::Offered));
    step(&mut known, DriverEvent::Connected { session: SESSION + 1 });
    assert!(known.awaits_delivery(), "the new socket has not got it");

    let outcome = ToDriver::Outcome {
        attempt: 3,
        outcome: Outcome::Accepted,
        trip_id: Some(trip()),
        again: false,
    };
    tell(&mut known, outcome);
    assert_eq!((known.trip_id(), known.offer()), (Some(&trip()), None));
    assert_eq!(known.state(), DriverState::EnRoute);
    assert!(!known.awaits_delivery());
}

#[test]
fn a_driver_is_known_for_any_of_its_ties() {
    let mut present = driver();
    connect(&mut present);
    step(&mut present, DriverEvent::Disconnected { session: SESSION });
    assert!(!present.is_unknown(), "within its TTL");
    step(&mut present, DriverEvent::Timer);
    assert!(present.is_unknown());

    let mut offered = driver();
    offer(&mut offered, Resumed::Delivered);
    assert!(!offered.is_unknown());
    let mut bound = driver();
    bind(&mut bound, TripPhase::EnRoute);
    assert!(!bound.is_unknown());
}

#[test]
fn heap_of_a_driver_is_what_it_has() {
    let mut placed = driver();
    step(&mut placed, DriverEvent::At(place(52.5)));
    let location_bytes = placed.heap_bytes();
    assert_eq!(location_bytes, size_of::<Location>());
    step(&mut placed, DriverEvent::At(place(52.6)));
    assert_eq!(
        (placed.location(), placed.heap_bytes()),
        (Some(place(52.6)), location_bytes)
    );

    let mut offered = driver();
    offer(&mut offered, Resumed::Delivered);
    let offer_bytes = offered.heap_bytes();
    let mut bound = driver();
    bind(&mut bound, TripPhase::OnTrip);
    assert_eq!(bound.state(), DriverState::OnTrip);
    let trip_bytes = bound.heap_bytes();
    assert!(offer_bytes > 0 && trip_bytes > 0);

    offer(&mut placed, Resumed::Delivered);
    assert_eq!(placed.heap_bytes(), location_bytes + offer_bytes);
    step(&mut bound, DriverEvent::At(place(52.5)));
    assert_eq!(bound.heap_bytes(), location_bytes + trip_bytes);
}

#[test]
fn off_shift_is_what_the_store_remembers() {
    let since_ms = NOW_MS - 5_000;
    let mut off = Driver::new(DriverId::parse("d1").unwrap(), since_ms);
    assert_eq!(off.off_shift_since_ms(), since_ms);
    connect(&mut off);
    assert_eq!(off.state(), DriverState::Offline);
    let mut forgotten = Driver::new(DriverId::parse("d1").unwrap(), NOW_MS - LIMITS.off_shift_memory_ms);
    connect(&mut forgotten);
    assert_eq!(
        (forgotten.off_shift_since_ms(), forgotten.state()),
        (0, DriverState::Available)
    );
}

#[test]
fn what_is_no_id_is_said() {
    let said = |text: &str| DriverId::parse(text).map_err(|error| error.to_string());
    assert_eq!(said(""), Err("an id must not be empty".to_owned()));
    assert_eq!(said(&"x".repeat(65)), Err("an id has at most 64 bytes".to_owned()));
    let bad_byte = "an id has only A-Z a-z 0-9 . _ : - (byte 2 is none of them)".to_owned();
    assert_eq!(said("ab c"), Err(bad_byte));
}

#[test]
fn a_queue_knows_how_many_wait() {
    let mut queue = ClassQueue::new(LIMITS.age_step_ms);
    assert!(queue.is_empty());
    for (class, count) in [(Priority::Premium, 1), (Priority::Economy, 2)] {
        for waiter in 0..count {
            queue.push(class, NOW_MS, waiter);
        }
        assert_eq!(queue.len_of(class), count);
    }
    assert_eq!((queue.len(), queue.len_of(Priority::Standard)), (3, 0));
    assert!(!queue.is_empty());
    while queue.pop().is_some() {}
    assert_eq!(queue.len(), 0);
}

#[test]
fn a_request_waits_once_its_driver_is_busy() {
    let driver_id = DriverId::parse("d1").unwrap();
    let offer = OfferRequest {
        request_id: request(),
        candidates: vec![driver_id.clone()],
        priority: Priority::Standard,
        offer_timeout_ms: None,
        deadline_ms: None,
        max_attempts: None,
        parallel: None,
        busy_wait_ms: Some(1_000),
        trip: "{}".into(),
    };
    let reply = ReplyTo {
        node: 0,
        shard: 0,
        call: 1,
    };
    let mut effects = Vec::new();
    let mut waiting = Request::received(offer, reply, DEFAULTS, NOW_MS, &mut effects);
    assert!(!waiting.is_waiting(), "asked, not in the queue");
    waiting.step(RequestEvent::Busy { driver_id, ask: 1 }, NOW_MS, &mut effects);
    assert!(waiting.is_waiting());
}

/// Contract, sections 2 and 3.
#[test]
fn names_and_ends_are_the_contracts() {
    let states = [
        (RequestState::PendingMatch, "PENDING_MATCH", false),
        (RequestState::OfferSent, "OFFER_SENT", false),
        (RequestState::Accepted, "ACCEPTED", true),
        (RequestState::Cancelled, "CANCELLED", true),
        (RequestState::Unfulfilled, "UNFULFILLED", true),
    ];
    for (state, name, is_end) in states {
        assert_eq!((state.as_str(), state.is_end()), (name, is_end));
    }
    let responses = [
        (ResponseType::Accepted, "ACCEPTED"),
        (ResponseType::Declined, "DECLINED"),
        (ResponseType::Timeout, "TIMEOUT"),
        (ResponseType::Refused, "REFUSED"),
        (ResponseType::Revoked, "REVOKED"),
    ];
    for (response, name) in responses {
        assert_eq!(response.as_str(), name);
    }
}
