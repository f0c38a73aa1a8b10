//! What a driver says of trips is answered once for each time that it says so, whatever its home says again on its own account.

use crate::moves::{bound, connected, request_id, step, tell, to_socket, trip_of};
use dispatchd::fsm::driver::{Driver, DriverEvent, ToSocket};
use dispatchd::fsm::fold::TripPhase;
use dispatchd::fsm::request::{ToDriver, TripMove};
use dispatchd::fsm::types::{DriverState, TripOutcome};

const ENDED: TripPhase = TripPhase::Ended(TripOutcome::Completed);

/// A driver with the trip of `r1`.
fn driving(phase: TripPhase) -> Driver {
    let mut driver = connected(1);
    tell(&mut driver, "r1", bound("r1", phase));
    driver
}

/// The driver's app says something of the trip of a request.
fn says(driver: &mut Driver, request: &str, what: TripMove) {
    let trip_id = trip_of(request);
    step(driver, DriverEvent::Trip { trip_id, what });
}

/// `r1` says how far its trip is; what the app hears of that.
fn hears(driver: &mut Driver, phase: TripPhase, again: bool) -> Vec<ToSocket> {
    let message = ToDriver::Trip {
        trip_id: trip_of("r1"),
        phase,
        reason: None,
        again,
    };
    to_socket(&tell(driver, "r1", message))
}

fn states(told: &[ToSocket]) -> Vec<DriverState> {
    let state = |said: &ToSocket| match said {
        ToSocket::State { state, .. } => Some(*state),
        _ => None,
    };
    told.iter().filter_map(state).collect()
}

/// A word that the home has said again, as it may have been lost, is answered once; one that the app says again is answered each time.
#[test]
fn what_only_the_home_said_again_is_not_answered_again() {
    let mut driver = driving(TripPhase::EnRoute);
    for (what, phase, state) in [
        (TripMove::Pickup, TripPhase::OnTrip, DriverState::OnTrip),
        (TripMove::Complete, ENDED, DriverState::Available),
    ] {
        says(&mut driver, "r1", what);
        step(&mut driver, DriverEvent::Doubt);
        assert_eq!(states(&hears(&mut driver, phase, false)), [state]);
        assert!(hears(&mut driver, phase, true).is_empty(), "{what:?}");
        // By the app.
        says(&mut driver, "r1", what);
        assert_eq!(states(&hears(&mut driver, phase, true)), [state]);
    }
}

/// The new owner of a trip says how far it is before it comes to the word that was said again.
#[test]
fn a_trip_that_is_told_by_a_new_owner_answers_the_word() {
    let mut driver = driving(TripPhase::EnRoute);
    says(&mut driver, "r1", TripMove::Pickup);
    let told = to_socket(&tell(&mut driver, "r1", bound("r1", TripPhase::OnTrip)));
    assert_eq!(states(&told), [DriverState::OnTrip]);
    assert!(hears(&mut driver, TripPhase::OnTrip, true).is_empty());
}

/// That a trip is still on says nothing of a word that is on its way.
#[test]
fn a_trip_that_is_told_again_answers_nothing() {
    let mut driver = driving(TripPhase::OnTrip);
    says(&mut driver, "r1", TripMove::Pickup);
    assert!(to_socket(&tell(&mut driver, "r1", bound("r1", TripPhase::OnTrip))).is_empty());
    assert_eq!(
        states(&hears(&mut driver, TripPhase::OnTrip, true)),
        [DriverState::OnTrip]
    );
}

/// Words about a trip that is not the driver's are answered, too; those about its own one keep theirs.
#[test]
fn a_foreign_trip_s_answer_is_an_answer() {
    for foreign in [TripMove::Arrived, TripMove::Complete] {
        let mut driver = driving(TripPhase::EnRoute);
        says(&mut driver, "r1", TripMove::Pickup);
        says(&mut driver, "r2", foreign);
        let no_such_trip = ToDriver::NoSuchTrip { trip_id: trip_of("r2") };
        assert_eq!(to_socket(&tell(&mut driver, "r2", no_such_trip)).len(), 1);
        assert_eq!(states(&hears(&mut driver, TripPhase::OnTrip, true)).len(), 1);
        assert!(hears(&mut driver, TripPhase::OnTrip, true).is_empty(), "{foreign:?}");
    }
}

/// Nobody knows the trip: that is an answer as well.
#[test]
fn a_trip_that_nobody_knows_is_an_answer() {
    let mut driver = driving(TripPhase::OnTrip);
    says(&mut driver, "r2", TripMove::Cancel);
    assert_eq!(
        to_socket(&step(&mut driver, DriverEvent::NoSuchTrip)),
        [ToSocket::NoSuchTrip]
    );
    says(&mut driver, "r1", TripMove::Complete);
    assert_eq!(states(&hears(&mut driver, ENDED, false)), [DriverState::Available]);
    assert!(hears(&mut driver, ENDED, true).is_empty());
}

/// What it said on an earlier socket is answered on this one, beside its own words.
#[test]
fn a_word_of_an_earlier_socket_counts() {
    let mut driver = driving(TripPhase::OnTrip);
    says(&mut driver, "r2", TripMove::Cancel);
    step(&mut driver, DriverEvent::Connected { session: 2 });
    for _ in 0..2 {
        says(&mut driver, "r1", TripMove::Complete);
    }
    let no_such_trip = ToDriver::NoSuchTrip { trip_id: trip_of("r2") };
    assert_eq!(to_socket(&tell(&mut driver, "r2", no_such_trip)).len(), 1);
    assert_eq!(states(&hears(&mut driver, ENDED, false)), [DriverState::Available]);
    assert_eq!(states(&hears(&mut driver, ENDED, true)), [DriverState::Available]);
}

#[test]
fn an_arrival_is_owed_no_answer() {
    let mut driver = driving(TripPhase::OnTrip);
    says(&mut driver, "r1", TripMove::Arrived);
    assert!(hears(&mut driver, TripPhase::OnTrip, true).is_empty());
}

/// An end by the caller is no answer to the word that the app says meanwhile.
#[test]
fn a_word_that_crosses_the_caller_s_end_is_answered() {
    let mut driver = driving(TripPhase::OnTrip);
    says(&mut driver, "r1", TripMove::Complete);
    let cancelled = TripPhase::Ended(TripOutcome::Cancelled);
    let told = hears(&mut driver, cancelled, false);
    let heard = ToSocket::TripCancelled {
        trip_id: trip_of("r1"),
        request_id: request_id("r1"),
        reason: None,
    };
    assert_eq!((told.first(), told.len()), (Some(&heard), 2));
    assert_eq!(states(&hears(&mut driver, cancelled, true)), [DriverState::Available]);
}
