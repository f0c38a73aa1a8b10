//! What a crash leaves: offers go on with the time they have left, trips stay with their drivers.

use crate::script::check;

#[test]
fn an_open_offer_goes_on() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 reads
        >> late 3000
        > crash
            r1 -> d1: offer 1 again, it was delivered
            r1 wakes at 8000
        > at 4000
        > d1 connects
            d1 hears WELCOME 2 offered
            d1 hears OFFER r1/1 until 8000
            d1 wakes at 64000
        > d1 reads
        > d1 ACCEPT r1/1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_ACCEPTED 1 websocket, TRIP_CREATED d1
            r1 sleeps
            r1 -> d1: 1 is accepted
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
        ",
    );
}

#[test]
fn an_offer_whose_time_ended_meanwhile() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2
        >> late 9000
        > crash
            r1 -> d1: offer 1 again
            r1 writes OFFER_TIMED_OUT 1, OFFER_SENT 2 d2 until 17000
            r1 wakes at 17000
            r1 -> d1: 1 is timed out
            r1 -> d2: offer 2
            d2 -> r1: refused 2: offline
            r1 writes OFFER_REFUSED 2 d2 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        > d1 connects
            d1 hears WELCOME 3 available
            d1 wakes at 69000
        ",
    );
}

#[test]
fn a_deadline_that_passed_meanwhile() {
    check(
        "d1",
        "
        >> POST r1 d1 deadline=5000
        >> late 9000
        > crash
            r1 -> d1: offer 1 again
            r1 writes OFFER_TIMED_OUT 1, REQUEST_UNFULFILLED by deadline
            r1 -> d1: 1 is timed out
            r1 closes
        ",
    );
}

#[test]
fn a_trip_stays() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        > crash
            r1 -> d1: bound, trip is en route
        > d1 connects
            d1 hears WELCOME 2 en_route_to_pickup with its trip
            d1 wakes at 60000
        >> d1 TRIP r1 pickup
        > crash
            r1 -> d1: bound, trip is on trip
        > d1 connects
            d1 hears WELCOME 3 on_trip with its trip
            d1 wakes at 60000
        > d1 TRIP r1 complete
            d1 -> trip: complete
            r1 writes TRIP_ENDED completed
            r1 -> d1: trip is completed
            r1 closes
            d1 hears STATE available
        ",
    );
}

#[test]
fn a_trip_ends_before_its_driver_is_back() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        >> crash
        > END r1
            r1 writes TRIP_ENDED cancelled
            r1 -> d1: trip is cancelled
            call 2: 200 trip cancelled
            r1 closes
            d1 is forgotten
        > d1 connects
            d1 hears WELCOME 2 available
            d1 wakes at 60000
        ",
    );
}

/// Nobody heard of it. The app says it again.
#[test]
fn an_answer_that_was_not_durable() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 reads
        >> hold commits
        > d1 ACCEPT r1/1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_ACCEPTED 1 websocket, TRIP_CREATED d1
            r1 sleeps
        > crash
            r1 -> d1: offer 1 again, it was delivered
            r1 wakes at 8000
        >> free commits
        > d1 connects
            d1 hears WELCOME 2 offered
            d1 hears OFFER r1/1 until 8000
            d1 wakes at 60000
        > d1 ACCEPT r1/1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_ACCEPTED 1 websocket, TRIP_CREATED d1
            r1 sleeps
            r1 -> d1: 1 is accepted
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
        ",
    );
}

#[test]
fn a_search_that_stood_still_goes_on() {
    check(
        "",
        "
        >> POST r1 d1
        > crash
            r1 wakes at 120000
        > POST r1 d2
            r1 writes REDISPATCHED d2, OFFER_SENT 2 d2 until 8000
            r1 wakes at 8000
            r1 -> d2: offer 2
            call 2: 202 OFFER_SENT 2 d2
            d2 -> r1: refused 2: offline
            r1 writes OFFER_REFUSED 2 d2 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        ",
    );
}

/// The journal has an open offer of a driver who has a trip: no start may fail on that.
#[test]
fn a_trip_and_an_offer_that_was_about_to_be_refused() {
    check(
        "d1",
        "
        >> POST r2 d1
        >> d1 ACCEPT r2/1
        >> hold r1>d1
        >> POST r1 d1
        > crash
            r1 -> d1: offer 1 again
            r2 -> d1: bound, trip is en route
            d1 -> r1: refused 1: en_route_to_pickup
            r1 wakes at 8000
            r1 writes OFFER_REFUSED 1 d1 en_route_to_pickup, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        ",
    );
}

/// The journal has two open offers of one driver: the app has one of them.
#[test]
fn of_two_open_offers_the_delivered_one() {
    check(
        "d1",
        "
        >> POST r2 d1
        >> d1 reads
        >> hold r1>d1
        >> POST r1 d1
        > crash
            r1 -> d1: offer 1 again
            r2 -> d1: offer 1 again, it was delivered
            d1 -> r1: refused 1: offered
            r1 wakes at 8000
            r2 wakes at 8000
            r1 writes OFFER_REFUSED 1 d1 offered, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        > d1 connects
            d1 hears WELCOME 2 offered
            d1 hears OFFER r2/1 until 8000
            d1 wakes at 60000
        ",
    );
}

#[test]
fn of_two_open_offers_one() {
    check(
        "d1",
        "
        >> POST r2 d1
        >> hold r1>d1
        >> POST r1 d1
        > crash
            r1 -> d1: offer 1 again
            r2 -> d1: offer 1 again
            d1 -> r2: refused 1: offered
            r1 wakes at 8000
            r2 wakes at 8000
            r2 writes OFFER_REFUSED 1 d1 offered, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
        ",
    );
}

/// `offline` declines the offer, also when the decline was lost.
#[test]
fn off_shift_with_an_offer() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 reads
        >> hold commits
        > d1 STATE offline
            d1 is off shift
            d1 -> r1: off shift, holds 1
            r1 writes OFFER_DECLINED 1 websocket (off shift), CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        > crash
            r1 -> d1: offer 1 again, it was delivered
            d1 -> r1: off shift, holds 1
            r1 wakes at 8000
            r1 writes OFFER_DECLINED 1 websocket (off shift), CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        >> free commits
        > d1 connects
            d1 hears WELCOME 2 offline
            d1 wakes at 60000
        > d1 STATE available
            d1 is on shift
            d1 hears STATE available
        ",
    );
}

/// The driver is heard first, the deadline passes before that is durable: it ends the search after it.
#[test]
fn heard_before_it_goes_on() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2 deadline=5000
        >> d1 reads
        >> hold commits
        > d1 STATE offline
            d1 is off shift
            d1 -> r1: off shift, holds 1
            r1 writes OFFER_DECLINED 1 websocket (off shift), OFFER_SENT 2 d2 until 5000
        > crash early 5000
            r1 -> d1: offer 1 again, it was delivered
            d1 -> r1: off shift, holds 1
            r1 writes OFFER_DECLINED 1 websocket (off shift), OFFER_SENT 2 d2 until 5000
            r1 wakes at 5000
        > commit
            r1 -> d1: 1 is declined
            r1 -> d2: offer 2
            r1 writes OFFER_TIMED_OUT 2, REQUEST_UNFULFILLED by deadline
            r1 sleeps
            d1 is forgotten
            d2 -> r1: refused 2: offline
        > commit
            r1 -> d2: 2 is timed out
            r1 closes
        ",
    );
}

#[test]
fn off_shift_before_the_offer() {
    check(
        "d1",
        "
        >> d1 STATE offline
        >> hold r1>d1
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
        > crash
            r1 -> d1: offer 1 again
            d1 -> r1: refused 1: offline
            r1 wakes at 8000
            r1 writes OFFER_REFUSED 1 d1 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        ",
    );
}

#[test]
fn all_parallel_offers_go_on() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2 parallel=2
        > crash
            r1 -> d1: offer 1 again
            r1 -> d2: offer 2 again
            r1 wakes at 8000
        >> d1 connects
        >> d2 connects
        > d2 ACCEPT r1/2
            d2 -> r1: delivered 2
            d2 -> r1: accept of what is held, 2
            r1 writes OFFER_DELIVERED 2 (a note)
            r1 writes OFFER_ACCEPTED 2 websocket, OFFER_REVOKED 1 taken, TRIP_CREATED d2
            r1 sleeps
            r1 -> d2: 2 is accepted
            r1 -> d1: 1 is revoked: taken
            d2 hears CONFIRMED r1/2
            d2 hears STATE en_route_to_pickup with its trip
            d1 hears REVOKED r1/1 taken
        ",
    );
}

#[test]
fn ended_stays_ended() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> CANCEL r1
        > crash
        > POST r1 d1
            call 3: 409 ended CANCELLED
        > CANCEL r1
            call 4: 200 CANCELLED
        > d1 connects
            d1 hears WELCOME 2 available
            d1 wakes at 60000
        > d1 ACK r1/1
            d1 -> r1: acked 1
            r1 -> d1: 1 is revoked: cancelled (an answer)
            d1 hears REVOKED r1/1 cancelled
        ",
    );
}

/// No sound history has two trips of one driver. A directory that holds them is started all the same: the first binds
/// the driver, the other is ended where it is kept.
#[test]
fn of_two_trips_one_binds_the_driver() {
    check(
        "",
        "
        > stray r1>d1 bound
        > stray r2>d1 bound
        > d1 connects
            d1 hears WELCOME 1 en_route_to_pickup with its trip
            d1 wakes at 60000
        > d1 TRIP r1 complete
            d1 -> trip: complete
        ",
    );
}

/// Somebody is on board of one of them.
#[test]
fn of_two_trips_the_one_that_was_picked_up() {
    check(
        "",
        "
        > stray r1>d1 bound
        > stray r2>d1 bound-on-trip
        > stray r3>d1 bound-on-trip
        > stray r4>d1 bound
        > stray r1>d1 own-trip-ended
        > d1 connects
            d1 hears WELCOME 1 on_trip with its trip
            d1 wakes at 60000
        > stray r2>d1 own-trip-ended
            d1 hears TRIP_CANCELLED r2
            d1 hears STATE available
        ",
    );
}
