//! One driver after the other: every way an offer ends, and what comes next.

use crate::script::check;

#[test]
fn offered_and_accepted() {
    check(
        "d1",
        "
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 8000
        > d1 reads
            d1 -> r1: delivered 1
            r1 writes OFFER_DELIVERED 1 (a note)
        > d1 ACK r1/1
            d1 -> r1: acked 1
            r1 writes OFFER_ACKED 1 (a note)
        > d1 ACCEPT r1/1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_ACCEPTED 1 websocket, TRIP_CREATED d1
            r1 sleeps
            r1 -> d1: 1 is accepted
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
        > d1 TRIP r1 arrived
            d1 -> trip: arrived
        > d1 TRIP r1 pickup
            d1 -> trip: pickup
            r1 writes TRIP_PICKED_UP
            r1 -> d1: trip is on trip
            d1 hears STATE on_trip with its trip
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
fn declined_goes_on_at_once() {
    check(
        "d1 d2",
        "
        > POST r1 d1,d2
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 8000
        > d1 DECLINE r1/1 too far
            d1 -> r1: delivered 1
            d1 -> r1: decline 1 (too far)
            r1 writes OFFER_DELIVERED 1 (a note)
            r1 writes OFFER_DECLINED 1 websocket (too far), OFFER_SENT 2 d2 until 8000
            r1 -> d1: 1 is declined
            r1 -> d2: offer 2
            d1 hears DECLINED r1/1
            d2 hears OFFER r1/2 until 8000
        > DECLINE r1 d2 2
            r1 writes OFFER_DECLINED 2 http, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d2: 2 is declined
            call 2: 200 declined
            d2 hears DECLINED r1/2
        ",
    );
}

#[test]
fn timed_out_goes_on_at_once() {
    check(
        "d1 d2",
        "
        > POST r1 d1,d2 timeout=1000
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 1000
            r1 wakes at 1000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 1000
        > at 999
        > at 1000
            r1 writes OFFER_TIMED_OUT 1, OFFER_SENT 2 d2 until 2000
            r1 wakes at 2000
            r1 -> d1: 1 is timed out
            r1 -> d2: offer 2
            d1 hears REVOKED r1/1 timeout
            d2 hears OFFER r1/2 until 2000
        > at 2000
            r1 writes OFFER_TIMED_OUT 2, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d2: 2 is timed out
            d2 hears REVOKED r1/2 timeout
        ",
    );
}

/// The driver may hold another offer: its home is asked before it wins.
#[test]
fn accepted_over_http() {
    check(
        "d1",
        "
        >> POST r1 d1
        > ACCEPT r1 d1
            r1 -> d1: do you accept 1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_ACCEPTED 1 http, TRIP_CREATED d1
            r1 sleeps
            r1 -> d1: 1 is accepted
            call 2: 200 accepted
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
        > ACCEPT r1 d1 1
            call 3: 200 accepted
        > DECLINE r1 d1
            call 4: 200 accepted
        ",
    );
}

/// Neither over the API nor over the socket, however early the answer comes.
#[test]
fn who_holds_another_offer_wins_nothing() {
    check(
        "d1",
        "
        >> POST r2 d1
        > hold r1>d1
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 2: 202 OFFER_SENT 1 d1
        > ACCEPT r1 d1
            r1 -> d1: do you accept 1
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            r1 -> d1: do you accept 1
        > free r1>d1
            d1 -> r1: refused 1: offered
            d1 -> r1: accept of what is held, 1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_REFUSED 1 d1 offered, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            call 3: 404 no_such_offer
            r1 -> d1: no such offer
            d1 hears ERROR no_such_offer r1
        > d1 ACCEPT r2/1
            d1 -> r2: delivered 1
            d1 -> r2: accept of what is held, 1
            r2 writes OFFER_DELIVERED 1 (a note)
            r2 writes OFFER_ACCEPTED 1 websocket, TRIP_CREATED d1
            r2 sleeps
            r2 -> d1: 1 is accepted
            d1 hears CONFIRMED r2/1
            d1 hears STATE en_route_to_pickup with its trip
        ",
    );
}

#[test]
fn an_answer_before_its_offer() {
    check(
        "d1",
        "
        >> hold r1>d1
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            r1 -> d1: do you accept 1
        > free r1>d1
            d1 hears OFFER r1/1 until 8000
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
fn who_cannot_is_refused() {
    check(
        "d1 d2 d3 d4",
        "
        >> d1 STATE offline
        >> POST r2 d2
        >> POST r3 d3
        >> d3 ACCEPT r3/1
        >> POST r4 d4
        >> d4 ACCEPT r4/1
        >> d4 TRIP r4 pickup
        > POST r1 d1,d2,d3,d4,d5
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 4: 202 OFFER_SENT 1 d1
            d1 -> r1: refused 1: offline
            r1 writes OFFER_REFUSED 1 d1 offline, OFFER_SENT 2 d2 until 8000
            r1 -> d2: offer 2
            d2 -> r1: refused 2: offered
            r1 writes OFFER_REFUSED 2 d2 offered, OFFER_SENT 3 d3 until 8000
            r1 -> d3: offer 3
            d3 -> r1: refused 3: en_route_to_pickup
            r1 writes OFFER_REFUSED 3 d3 en_route_to_pickup, OFFER_SENT 4 d4 until 8000
            r1 -> d4: offer 4
            d4 -> r1: refused 4: on_trip
            r1 writes OFFER_REFUSED 4 d4 on_trip, OFFER_SENT 5 d5 until 8000
            r1 -> d5: offer 5
            d5 -> r1: refused 5: offline
            r1 writes OFFER_REFUSED 5 d5 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        ",
    );
}

/// The refusal comes after the cancel: the app hears nothing of an offer that it never saw, until it asks.
#[test]
fn refused_and_ended_at_once() {
    check(
        "d1",
        "
        >> POST r2 d1
        > hold d1>r1
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 2: 202 OFFER_SENT 1 d1
            d1 -> r1: refused 1: offered
        > CANCEL r1
            r1 writes OFFER_REVOKED 1 cancelled, REQUEST_CANCELLED
            r1 sleeps
            r1 -> d1: 1 is revoked: cancelled
            call 3: 200 CANCELLED
            r1 closes
        > free d1>r1
        > d1 ACK r1/1
            d1 -> r1: acked 1
            r1 -> d1: 1 is revoked: cancelled (an answer)
            d1 hears REVOKED r1/1 cancelled
        ",
    );
}

/// Candidates and attempts run out together: that is `UNFULFILLED`.
#[test]
fn refusals_do_not_count() {
    check(
        "d2 d3",
        "
        > POST r1 d1,d2,d3 attempts=2
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 -> r1: refused 1: offline
            r1 writes OFFER_REFUSED 1 d1 offline, OFFER_SENT 2 d2 until 8000
            r1 -> d2: offer 2
            d2 hears OFFER r1/2 until 8000
        >> d2 DECLINE r1/2
        > d3 DECLINE r1/3
            d3 -> r1: delivered 3
            d3 -> r1: decline 3
            r1 writes OFFER_DELIVERED 3 (a note)
            r1 writes OFFER_DECLINED 3 websocket, REQUEST_UNFULFILLED by attempts
            r1 sleeps
            r1 -> d3: 3 is declined
            r1 closes
            d3 hears DECLINED r1/3
        ",
    );
}

#[test]
fn only_refused_is_exhausted() {
    check(
        "",
        "
        > POST r1 d1 attempts=1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 -> r1: refused 1: offline
            r1 writes OFFER_REFUSED 1 d1 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        > POST r1 d2
            r1 writes REDISPATCHED d2, OFFER_SENT 2 d2 until 8000
            r1 wakes at 8000
            r1 -> d2: offer 2
            call 2: 202 OFFER_SENT 2 d2
            d2 -> r1: refused 2: offline
            r1 writes OFFER_REFUSED 2 d2 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        > at 120000
            r1 writes REQUEST_UNFULFILLED by deadline
            r1 closes
        ",
    );
}

#[test]
fn no_offer_outlives_the_deadline() {
    check(
        "d1 d2",
        "
        > POST r1 d1,d2 deadline=1000
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 1000
            r1 wakes at 1000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 1000
        > at 1000
            r1 writes OFFER_TIMED_OUT 1, REQUEST_UNFULFILLED by deadline
            r1 -> d1: 1 is timed out
            r1 closes
            d1 hears REVOKED r1/1 timeout
        > POST r1 d3
            call 2: 409 ended UNFULFILLED
        > CANCEL r1
            call 3: 409 ended UNFULFILLED
        ",
    );
}

/// While it is open a repeat; with nobody new `excluded`; with somebody new the next attempts, by the new times.
#[test]
fn new_candidates() {
    check(
        "d1 d2 d3",
        "
        >> POST r1 d1
        > POST r1 d2
            call 2: 200 OFFER_SENT 1 d1
        >> d1 DECLINE r1/1
        > POST r1 d1
            call 3: 409 excluded PENDING_MATCH d1
        > POST r1 d1,d2,d3 timeout=500 premium deadline=1 attempts=1
            r1 writes REDISPATCHED d2 d3, OFFER_SENT 2 d2 until 500
            r1 wakes at 500
            r1 -> d2: offer 2
            call 4: 202 OFFER_SENT 2 d2
            d2 hears OFFER r1/2 until 500
        > at 500
            r1 writes OFFER_TIMED_OUT 2, OFFER_SENT 3 d3 until 1000
            r1 wakes at 1000
            r1 -> d2: 2 is timed out
            r1 -> d3: offer 3
            d2 hears REVOKED r1/2 timeout
            d3 hears OFFER r1/3 until 1000
        >> d3 ACCEPT r1/3
        > POST r1 d4
            call 5: 200 ACCEPTED 3 d3
        ",
    );
}

#[test]
fn more_places_for_new_candidates() {
    check(
        "d1 d2",
        "
        >> POST r1 d3 busy=5000
        > POST r1 d1,d2 parallel=2 busy=0
            r1 writes REDISPATCHED d1 d2, OFFER_SENT 2 d1 until 8000, OFFER_SENT 3 d2 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 2
            r1 -> d2: offer 3
            call 2: 202 OFFER_SENT 2 d1
            d1 hears OFFER r1/2 until 8000
            d2 hears OFFER r1/3 until 8000
        ",
    );
}

#[test]
fn cancelled() {
    check(
        "d1",
        "
        >> POST r1 d1
        > CANCEL r1 no longer
            r1 writes OFFER_REVOKED 1 cancelled, REQUEST_CANCELLED (no longer)
            r1 sleeps
            r1 -> d1: 1 is revoked: cancelled
            call 2: 200 CANCELLED
            r1 closes
            d1 hears REVOKED r1/1 cancelled
        > CANCEL r1
            call 3: 200 CANCELLED
        > POST r1 d2
            call 4: 409 ended CANCELLED
        ",
    );
}

#[test]
fn cancelled_while_nobody_is_asked() {
    check(
        "",
        "
        >> POST r1 d1
        > CANCEL r1
            r1 writes REQUEST_CANCELLED
            r1 sleeps
            call 2: 200 CANCELLED
            r1 closes
        ",
    );
}

#[test]
fn accepted_is_not_cancelled() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        > CANCEL r1
            call 2: 409 ended ACCEPTED
        > POST r1 d2
            call 3: 200 ACCEPTED 1 d1
        ",
    );
}

/// Whether the timer or the answer comes first: the time of the offer decides.
#[test]
fn a_late_answer_is_too_late() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2 timeout=1000
        >> d1 reads
        > late 1000
        > d1 ACCEPT r1/1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_TIMED_OUT 1, OFFER_SENT 2 d2 until 2000
            r1 wakes at 2000
            r1 -> d1: 1 is timed out
            r1 -> d2: offer 2
            d1 hears REVOKED r1/1 timeout
            d2 hears OFFER r1/2 until 2000
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            r1 -> d1: 1 is timed out (an answer)
            d1 hears REVOKED r1/1 timeout
        > ACCEPT r1 d1
            call 2: 200 timed out
        > late 2500
        > ACCEPT r1 d2
            r1 writes OFFER_TIMED_OUT 2, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d2: 2 is timed out
            call 3: 200 timed out
            d2 hears REVOKED r1/2 timeout
        > timers
        ",
    );
}

#[test]
fn a_late_timer_ends_all_that_is_over() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2 timeout=1000 deadline=5000
        > late 20000
        > timers
            r1 writes OFFER_TIMED_OUT 1, REQUEST_UNFULFILLED by deadline
            r1 -> d1: 1 is timed out
            r1 closes
            d1 hears REVOKED r1/1 timeout
        ",
    );
}
