//! Several drivers hold the offer at once, under an attempt each.

use crate::script::check;

#[test]
fn the_first_accept_wins() {
    check(
        "d1 d2 d3",
        "
        > POST r1 d1,d2,d3 parallel=2
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000, OFFER_SENT 2 d2 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            r1 -> d2: offer 2
            call 1: 202 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 8000
            d2 hears OFFER r1/2 until 8000
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
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            r1 -> d1: 1 is revoked: taken (an answer)
            d1 hears REVOKED r1/1 taken
        ",
    );
}

#[test]
fn places_are_filled() {
    check(
        "d1 d2 d3",
        "
        >> POST r1 d1,d2,d3 parallel=2
        > d1 DECLINE r1/1
            d1 -> r1: delivered 1
            d1 -> r1: decline 1
            r1 writes OFFER_DELIVERED 1 (a note)
            r1 writes OFFER_DECLINED 1 websocket, OFFER_SENT 3 d3 until 8000
            r1 -> d1: 1 is declined
            r1 -> d3: offer 3
            d1 hears DECLINED r1/1
            d3 hears OFFER r1/3 until 8000
        > d2 DECLINE r1/2
            d2 -> r1: delivered 2
            d2 -> r1: decline 2
            r1 writes OFFER_DELIVERED 2 (a note)
            r1 writes OFFER_DECLINED 2 websocket
            r1 -> d2: 2 is declined
            d2 hears DECLINED r1/2
        > d3 DECLINE r1/3
            d3 -> r1: delivered 3
            d3 -> r1: decline 3
            r1 writes OFFER_DELIVERED 3 (a note)
            r1 writes OFFER_DECLINED 3 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d3: 3 is declined
            d3 hears DECLINED r1/3
        ",
    );
}

#[test]
fn refused_places_are_filled() {
    check(
        "d2 d3",
        "
        > POST r1 d1,d2,d3 parallel=2
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000, OFFER_SENT 2 d2 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            r1 -> d2: offer 2
            call 1: 202 OFFER_SENT 1 d1
            d1 -> r1: refused 1: offline
            d2 hears OFFER r1/2 until 8000
            r1 writes OFFER_REFUSED 1 d1 offline, OFFER_SENT 3 d3 until 8000
            r1 -> d3: offer 3
            d3 hears OFFER r1/3 until 8000
        ",
    );
}

#[test]
fn attempts_bound_the_places() {
    check(
        "d1 d2 d3",
        "
        > POST r1 d1,d2,d3 parallel=3 attempts=2
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000, OFFER_SENT 2 d2 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            r1 -> d2: offer 2
            call 1: 202 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 8000
            d2 hears OFFER r1/2 until 8000
        >> d1 DECLINE r1/1
        > d2 DECLINE r1/2
            d2 -> r1: delivered 2
            d2 -> r1: decline 2
            r1 writes OFFER_DELIVERED 2 (a note)
            r1 writes OFFER_DECLINED 2 websocket, REQUEST_UNFULFILLED by attempts
            r1 sleeps
            r1 -> d2: 2 is declined
            r1 closes
            d2 hears DECLINED r1/2
        ",
    );
}

#[test]
fn all_time_out_together() {
    check(
        "d1 d2 d3",
        "
        >> POST r1 d1,d2,d3 parallel=2 timeout=1000
        > at 1000
            r1 writes OFFER_TIMED_OUT 1, OFFER_TIMED_OUT 2, OFFER_SENT 3 d3 until 2000
            r1 wakes at 2000
            r1 -> d1: 1 is timed out
            r1 -> d2: 2 is timed out
            r1 -> d3: offer 3
            d1 hears REVOKED r1/1 timeout
            d2 hears REVOKED r1/2 timeout
            d3 hears OFFER r1/3 until 2000
        > at 2000
            r1 writes OFFER_TIMED_OUT 3, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d3: 3 is timed out
            d3 hears REVOKED r1/3 timeout
        ",
    );
}

#[test]
fn cancelled_everywhere() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2 parallel=2
        > CANCEL r1
            r1 writes OFFER_REVOKED 1 cancelled, OFFER_REVOKED 2 cancelled, REQUEST_CANCELLED
            r1 sleeps
            r1 -> d1: 1 is revoked: cancelled
            r1 -> d2: 2 is revoked: cancelled
            call 2: 200 CANCELLED
            r1 closes
            d1 hears REVOKED r1/1 cancelled
            d2 hears REVOKED r1/2 cancelled
        ",
    );
}

/// The second answer waits for the first and hears how that ended.
#[test]
fn two_accepts_while_nothing_is_durable() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2 parallel=2
        >> hold commits
        > d1 ACCEPT r1/1
            d1 -> r1: delivered 1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_DELIVERED 1 (a note)
            r1 writes OFFER_ACCEPTED 1 websocket, OFFER_REVOKED 2 taken, TRIP_CREATED d1
            r1 sleeps
        > ACCEPT r1 d2
        >> commit
        > commit
            r1 -> d1: 1 is accepted
            r1 -> d2: 2 is revoked: taken
            call 2: 200 revoked: taken
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
            d2 hears REVOKED r1/2 taken
        ",
    );
}

#[test]
fn one_driver_holds_one_offer() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        > POST r2 d1,d2 parallel=2
            r2 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000, OFFER_SENT 2 d2 until 8000
            r2 wakes at 8000
            r2 -> d1: offer 1
            r2 -> d2: offer 2
            call 2: 202 OFFER_SENT 1 d1
            d1 -> r2: refused 1: offered
            d2 hears OFFER r2/2 until 8000
            r2 writes OFFER_REFUSED 1 d1 offered
        > d1 ACCEPT r1/1
            d1 -> r1: delivered 1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_DELIVERED 1 (a note)
            r1 writes OFFER_ACCEPTED 1 websocket, TRIP_CREATED d1
            r1 sleeps
            r1 -> d1: 1 is accepted
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
        > d1 ACCEPT r2/1
            d1 -> r2: accept 1
            r2 -> d1: no such offer
            d1 hears ERROR no_such_offer r2
        ",
    );
}

/// Another's offer ends with the answer's arrival; the answer still counts.
#[test]
fn an_answer_while_another_offer_times_out() {
    check(
        "d1 d2 d3",
        "
        >> POST r1 d1,d2,d3 parallel=2 timeout=1000
        >> d1 reads
        >> late 500
        >> d2 DECLINE r1/2
        >> d3 reads
        > late 1000
        > d3 ACCEPT r1/3
            d3 -> r1: accept of what is held, 3
            r1 writes OFFER_TIMED_OUT 1
            r1 wakes at 1500
            r1 -> d1: 1 is timed out
            r1 writes OFFER_ACCEPTED 3 websocket, TRIP_CREATED d3
            r1 sleeps
            d1 hears REVOKED r1/1 timeout
            r1 -> d3: 3 is accepted
            d3 hears CONFIRMED r1/3
            d3 hears STATE en_route_to_pickup with its trip
        ",
    );
}
