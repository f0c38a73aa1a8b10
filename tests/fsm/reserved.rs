//! Reservations: the offer that takes their place, or was not shown, and nodes that ask for one id at once.

use crate::moves::{
    connected, driver_id, offer, request_id, reservation, step, tell, to_requests, to_socket, trip_of, wait,
};
use dispatchd::fsm::driver::{Driver, DriverEffect, DriverEvent, ToSocket};
use dispatchd::fsm::fold::Outcome;
use dispatchd::fsm::request::{RequestEvent, Resumed, ToDriver};
use dispatchd::fsm::types::{RefuseReason, RevokeReason};

#[test]
fn an_offer_from_elsewhere_is_shown_and_takes_the_place_of_its_reservation() {
    let mut driver = connected(1);
    tell(&mut driver, "r1", reservation());
    let effects = tell(&mut driver, "r1", offer(Resumed::Sent));
    assert!(
        matches!(to_socket(&effects)[..], [ToSocket::Offer { attempt: 1, .. }]),
        "{effects:?}"
    );
    assert!(driver.awaits_delivery());
}

#[test]
fn an_offer_from_elsewhere_leaves_another_reservation_alone() {
    let mut driver = connected(1);
    tell(&mut driver, "r2", reservation());
    let effects = tell(&mut driver, "r1", offer(Resumed::Sent));
    let refused = RequestEvent::Refused {
        attempt: 1,
        driver_id: driver_id(),
        reason: RefuseReason::Offered,
    };
    assert_eq!(to_requests(&effects), [("r1".to_owned(), refused)]);
    assert!(to_socket(&effects).is_empty());
    assert_eq!(driver.at_hand(), Some(&request_id("r2")));
}

/// An acceptance that is repeated after its trip has ended says what it said, and binds nobody.
/// The offer came over a link when its time was over, and was not shown.
#[test]
fn a_reservation_ends_with_the_offer_that_was_not_shown() {
    let outcome = |outcome, trip_id, again| ToDriver::Outcome {
        attempt: 1,
        outcome,
        trip_id,
        again,
    };
    for ended in [
        Outcome::TimedOut,
        Outcome::Declined,
        Outcome::Revoked(RevokeReason::Cancelled),
    ] {
        let mut driver = connected(1);
        tell(&mut driver, "r1", reservation());
        tell(&mut driver, "r2", wait(2));
        // An answer that is said again, to whom it may concern, ends nothing.
        assert_eq!(to_requests(&tell(&mut driver, "r1", outcome(ended, None, true))), []);
        assert_eq!(driver.at_hand(), Some(&request_id("r1")));
        let effects = tell(&mut driver, "r1", outcome(ended, None, false));
        assert!(to_socket(&effects).is_empty(), "{effects:?}");
        let reserved = RequestEvent::Reserved {
            driver_id: driver_id(),
            ask: 2,
        };
        assert_eq!(to_requests(&effects), [("r2".to_owned(), reserved)]);
    }
    // Accepted by HTTP.
    let mut driver = connected(1);
    tell(&mut driver, "r1", reservation());
    let effects = tell(
        &mut driver,
        "r1",
        outcome(Outcome::Accepted, Some(trip_of("r1")), false),
    );
    assert!(matches!(
        to_socket(&effects)[..],
        [ToSocket::Confirmed { .. }, ToSocket::State { .. }]
    ));
    assert_eq!(driver.trip_id(), Some(&trip_of("r1")));
}

/// Of one id two nodes ask: what one of them gives back is not the other's.
#[test]
fn what_another_node_has_asked_for_stays() {
    let mut driver = connected(1);
    let says = |driver: &mut Driver, node, request: &str, message| {
        let event = DriverEvent::Request {
            node,
            request_id: request_id(request),
            message,
        };
        step(driver, event)
    };
    let asked = |effects: &[DriverEffect]| -> Vec<(u16, RequestEvent)> {
        let asked = effects.iter().filter_map(|effect| match effect {
            DriverEffect::Asked { node, event, .. } => Some((*node, event.clone())),
            _ => None,
        });
        asked.collect()
    };
    let reserved = |ask| RequestEvent::Reserved {
        driver_id: driver_id(),
        ask,
    };
    says(&mut driver, 1, "r0", offer(Resumed::No));
    assert!(says(&mut driver, 1, "r1", wait(1)).is_empty());
    assert!(says(&mut driver, 2, "r1", wait(2)).is_empty());
    says(&mut driver, 2, "r1", ToDriver::Release);
    let over = ToDriver::Outcome {
        attempt: 1,
        outcome: Outcome::TimedOut,
        trip_id: None,
        again: false,
    };
    assert_eq!(asked(&says(&mut driver, 1, "r0", over)), [(1, reserved(1))]);
    assert!(says(&mut driver, 2, "r1", ToDriver::Release).is_empty());
    assert!(driver.is_reserved_for(&request_id("r1")));
    says(&mut driver, 1, "r1", ToDriver::Release);
    assert_eq!(driver.at_hand(), None);
}
