//! `busy_wait_ms`: requests in the queue of a driver who is offered to another one.

use crate::script::check;

#[test]
fn served_when_the_other_offer_ends() {
    check(
        "d1",
        "
        >> POST r1 d1
        > POST r2 d1 busy=5000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 writes REQUEST_RECEIVED
            r2 wakes at 5000
            call 2: 202 PENDING_MATCH 0
        > POST r2 d1
            call 3: 200 PENDING_MATCH 0
        > d1 DECLINE r1/1
            d1 -> r1: delivered 1
            d1 -> r1: decline 1
            r1 writes OFFER_DELIVERED 1 (a note)
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 -> r2: reserved
            r2 writes OFFER_SENT 1 d1 until 8000
            r2 wakes at 8000
            r2 -> d1: offer 1
            d1 hears OFFER r2/1 until 8000
        ",
    );
}

#[test]
fn refused_when_the_driver_takes_the_other_offer() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> POST r2 d1 busy=5000
        > d1 ACCEPT r1/1
            d1 -> r1: delivered 1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_DELIVERED 1 (a note)
            r1 writes OFFER_ACCEPTED 1 websocket, TRIP_CREATED d1
            r1 sleeps
            r1 -> d1: 1 is accepted
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
            d1 -> r2: unavailable: en_route_to_pickup
            r2 writes OFFER_REFUSED 1 d1 en_route_to_pickup, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
        ",
    );
}

#[test]
fn refused_when_the_driver_goes_off_shift() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> POST r2 d1 busy=5000
        > d1 STATE offline
            d1 is off shift
            d1 -> r1: off shift, holds 1
            r1 writes OFFER_DECLINED 1 websocket (off shift), CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 hears STATE offline
            d1 -> r2: unavailable: offline
            r2 writes OFFER_REFUSED 1 d1 offline, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
        ",
    );
}

#[test]
fn refused_when_the_driver_is_lost() {
    check(
        "d1",
        "
        >> POST r1 d1 timeout=90000
        >> d1 drops
        >> late 59000
        >> POST r2 d1 busy=5000
        > at 60000
            d1 -> r2: unavailable: offline
            r2 writes OFFER_REFUSED 1 d1 offline, CANDIDATES_EXHAUSTED
            r2 wakes at 179000
        ",
    );
}

#[test]
fn refused_when_the_wait_ends() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> POST r2 d1 busy=5000
        > at 5000
            r2 -> d1: release
            r2 writes OFFER_REFUSED 1 d1 offered, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
        >> at 8000
        > d1 reads
        ",
    );
}

/// The wait ends when the places are filled, and begins anew when that comes to nothing.
#[test]
fn free_candidates_first() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        > POST r2 d1,d2 busy=5000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 -> d2: are you free (standard)
            d2 -> r2: reserved
            r2 -> d1: release
            r2 writes REQUEST_RECEIVED, OFFER_SENT 1 d2 until 8000
            r2 wakes at 8000
            r2 -> d2: offer 1
            call 2: 202 OFFER_SENT 1 d2
            d2 hears OFFER r2/1 until 8000
        > d2 DECLINE r2/1
            d2 -> r2: delivered 1
            d2 -> r2: decline 1
            r2 writes OFFER_DELIVERED 1 (a note)
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 writes OFFER_DECLINED 1 websocket
            r2 wakes at 5000
            r2 -> d2: 1 is declined
            d2 hears DECLINED r2/1
        >> d1 reads
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 -> r2: reserved
            r2 writes OFFER_SENT 2 d1 until 8000
            r2 wakes at 8000
            r2 -> d1: offer 2
            d1 hears OFFER r2/2 until 8000
        ",
    );
}

#[test]
fn a_place_is_kept_for_the_busy() {
    check(
        "d1 d2 d3",
        "
        >> POST r1 d1
        >> d1 reads
        > POST r2 d1,d2 busy=5000 parallel=2
            r2 -> d1: are you free (standard)
            r2 -> d2: are you free (standard)
            d1 -> r2: busy
            d2 -> r2: reserved
            r2 -> d1: I wait (standard)
            r2 writes REQUEST_RECEIVED, OFFER_SENT 1 d2 until 8000
            r2 wakes at 5000
            r2 -> d2: offer 1
            call 2: 202 OFFER_SENT 1 d2
            d2 hears OFFER r2/1 until 8000
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 -> r2: reserved
            r2 writes OFFER_SENT 2 d1 until 8000
            r2 wakes at 8000
            r2 -> d1: offer 2
            d1 hears OFFER r2/2 until 8000
        ",
    );
}

#[test]
fn only_the_busy_are_waited_for() {
    check(
        "d2 d3",
        "
        >> POST r3 d3
        >> d3 ACCEPT r3/1
        >> d2 STATE offline
        > POST r2 d1,d2,d3 busy=5000
            r2 -> d1: are you free (standard)
            d1 -> r2: unavailable: offline
            r2 -> d2: are you free (standard)
            d2 -> r2: unavailable: offline
            r2 -> d3: are you free (standard)
            d3 -> r2: unavailable: en_route_to_pickup
            r2 writes REQUEST_RECEIVED, OFFER_REFUSED 1 d1 offline, OFFER_REFUSED 2 d2 offline, OFFER_REFUSED 3 d3 en_route_to_pickup, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
            call 2: 202 PENDING_MATCH 3
        ",
    );
}

#[test]
fn classes_are_served_in_order() {
    check(
        "d1",
        "
        >> POST r1 d1
        > POST r2 d1 economy busy=5000
            r2 -> d1: are you free (economy)
            d1 -> r2: busy
            r2 -> d1: I wait (economy)
            r2 writes REQUEST_RECEIVED
            r2 wakes at 5000
            call 2: 202 PENDING_MATCH 0
        > POST r3 d1 busy=5000
            r3 -> d1: are you free (standard)
            d1 -> r3: busy
            r3 -> d1: I wait (standard)
            r3 writes REQUEST_RECEIVED
            r3 wakes at 5000
            call 3: 202 PENDING_MATCH 0
        > POST r4 d1 premium busy=5000
            r4 -> d1: are you free (premium)
            d1 -> r4: busy
            r4 -> d1: I wait (premium)
            r4 writes REQUEST_RECEIVED
            r4 wakes at 5000
            call 4: 202 PENDING_MATCH 0
        > POST r5 d1 premium busy=5000
            r5 -> d1: are you free (premium)
            d1 -> r5: busy
            r5 -> d1: I wait (premium)
            r5 writes REQUEST_RECEIVED
            r5 wakes at 5000
            call 5: 202 PENDING_MATCH 0
        >> d1 reads
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 -> r4: reserved
            r4 writes OFFER_SENT 1 d1 until 8000
            r4 wakes at 8000
            r4 -> d1: offer 1
            d1 hears OFFER r4/1 until 8000
        >> CANCEL r4
        >> CANCEL r5
        > CANCEL r3
            r3 writes OFFER_REVOKED 1 cancelled, REQUEST_CANCELLED
            r3 sleeps
            r3 -> d1: 1 is revoked: cancelled
            call 8: 200 CANCELLED
            r3 closes
            d1 hears REVOKED r3/1 cancelled
            d1 -> r2: reserved
            r2 writes OFFER_SENT 1 d1 until 8000
            r2 wakes at 8000
            r2 -> d1: offer 1
            d1 hears OFFER r2/1 until 8000
        ",
    );
}

#[test]
fn a_class_goes_before_one_that_came_earlier() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> POST r2 d1 economy busy=50000
        >> at 1000
        >> POST r3 d1 busy=50000
        >> at 2000
        >> POST r4 d1 premium busy=50000
        >> d1 reads
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 -> r4: reserved
            r4 writes OFFER_SENT 1 d1 until 10000
            r4 wakes at 10000
            r4 -> d1: offer 1
            d1 hears OFFER r4/1 until 10000
        >> d1 reads
        > d1 DECLINE r4/1
            d1 -> r4: decline 1
            r4 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r4 wakes at 122000
            r4 -> d1: 1 is declined
            d1 hears DECLINED r4/1
            d1 -> r3: reserved
            r3 writes OFFER_SENT 1 d1 until 10000
            r3 wakes at 10000
            r3 -> d1: offer 1
            d1 hears OFFER r3/1 until 10000
        ",
    );
}

#[test]
fn no_class_waits_for_ever() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> POST r2 d1 economy busy=50000
        >> at 4001
        >> POST r3 d1 premium busy=50000
        >> d1 reads
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 -> r2: reserved
            r2 writes OFFER_SENT 1 d1 until 12001
            r2 wakes at 12001
            r2 -> d1: offer 1
            d1 hears OFFER r2/1 until 12001
        ",
    );
}

#[test]
fn cancelled_while_waiting() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> POST r2 d1 busy=5000
        > CANCEL r2
            r2 -> d1: release
            r2 writes REQUEST_CANCELLED
            r2 sleeps
            call 3: 200 CANCELLED
            r2 closes
        >> d1 reads
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
        ",
    );
}

#[test]
fn the_deadline_ends_the_wait() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> POST r2 d1 busy=5000 deadline=1000
        > at 1000
            r2 -> d1: release
            r2 writes REQUEST_UNFULFILLED by deadline
            r2 closes
        ",
    );
}

/// Who is still waited for gets the new wait.
#[test]
fn new_candidates_while_waiting() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        >> POST r2 d1 busy=5000
        >> at 4000
        > POST r2 d2 busy=500
            r2 -> d2: are you free (standard)
            d2 -> r2: reserved
            r2 -> d1: release
            r2 writes REDISPATCHED d2, OFFER_SENT 1 d2 until 12000
            r2 wakes at 12000
            r2 -> d2: offer 1
            call 3: 202 OFFER_SENT 1 d2
            d2 hears OFFER r2/1 until 12000
        ",
    );
}

/// The wait of those who are waited for ends with the old settings.
#[test]
fn new_candidates_and_no_wait() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> POST r2 d1 busy=5000
        > POST r2 d2 busy=0
            r2 writes REDISPATCHED d2, OFFER_SENT 1 d2 until 8000
            r2 wakes at 0
            r2 -> d2: offer 1
            call 3: 202 OFFER_SENT 1 d2
            d2 -> r2: refused 1: offline
            r2 -> d1: release
            r2 writes OFFER_REFUSED 2 d1 offered
            r2 wakes at 8000
            r2 writes OFFER_REFUSED 1 d2 offline, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
        > at 1
        ",
    );
}
