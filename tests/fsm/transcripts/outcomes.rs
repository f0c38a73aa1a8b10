//! A message about an attempt that is over gets its outcome; trips end once.

use crate::script::check;

#[test]
fn confirmed_stays_confirmed() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            r1 -> d1: 1 is accepted (an answer)
            d1 hears CONFIRMED r1/1
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 -> d1: 1 is accepted (an answer)
            d1 hears CONFIRMED r1/1
        > d1 ACK r1/1
            d1 -> r1: acked 1
            r1 -> d1: 1 is accepted (an answer)
            d1 hears CONFIRMED r1/1
        >> d1 TRIP r1 complete
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            r1 -> d1: 1 is accepted (an answer)
            d1 hears CONFIRMED r1/1
        ",
    );
}

/// But who accepts after that hears `superseded`.
#[test]
fn declined_stays_declined() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 DECLINE r1/1
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 -> d1: 1 is declined (an answer)
            d1 hears DECLINED r1/1
        > d1 ACK r1/1
            d1 -> r1: acked 1
            r1 -> d1: 1 is declined (an answer)
            d1 hears DECLINED r1/1
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            r1 -> d1: 1 is revoked: superseded (an answer)
            d1 hears REVOKED r1/1 superseded
        > ACCEPT r1 d1
            call 2: 200 revoked: superseded
        > DECLINE r1 d1
            call 3: 200 declined
        ",
    );
}

#[test]
fn timed_out_stays_timed_out() {
    check(
        "d1",
        "
        >> POST r1 d1 timeout=1000
        >> at 1000
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            r1 -> d1: 1 is timed out (an answer)
            d1 hears REVOKED r1/1 timeout
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 -> d1: 1 is timed out (an answer)
            d1 hears REVOKED r1/1 timeout
        > d1 ACK r1/1
            d1 -> r1: acked 1
            r1 -> d1: 1 is timed out (an answer)
            d1 hears REVOKED r1/1 timeout
        > ACCEPT r1 d1
            call 2: 200 timed out
        > DECLINE r1 d1
            call 3: 200 timed out
        ",
    );
}

#[test]
fn cancelled_stays_cancelled() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> CANCEL r1
        > ACCEPT r1 d1
            call 3: 200 revoked: cancelled
        > d1 ACK r1/1
            d1 -> r1: acked 1
            r1 -> d1: 1 is revoked: cancelled (an answer)
            d1 hears REVOKED r1/1 cancelled
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 -> d1: 1 is revoked: cancelled (an answer)
            d1 hears REVOKED r1/1 cancelled
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            r1 -> d1: 1 is revoked: cancelled (an answer)
            d1 hears REVOKED r1/1 cancelled
        ",
    );
}

/// Of a request, of an attempt, and of one that was refused.
#[test]
fn never_made() {
    check(
        "d1 d2",
        "
        > d1 ACCEPT r1/1
            d1 -> r1: accept 1
            d1 hears ERROR no_such_offer r1
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            d1 hears ERROR no_such_offer r1
        > d1 ACK r1/1
            d1 -> r1: acked 1
            d1 hears ERROR no_such_offer r1
        > ACCEPT r1 d1
            call 1: 404, r1 is unknown
        > CANCEL r1
            call 2: 404, r1 is unknown
        >> POST r1 d1,d3
        >> d1 reads
        > d2 ACCEPT r1/1
            d2 -> r1: accept 1
            r1 -> d2: no such offer
            d2 hears ERROR no_such_offer r1
        > d1 ACCEPT r1/2
            d1 -> r1: accept 2
            r1 -> d1: no such offer
            d1 hears ERROR no_such_offer r1
        > d1 ACK r1/2
            d1 -> r1: acked 2
            r1 -> d1: no such offer
            d1 hears ERROR no_such_offer r1
        > ACCEPT r1 d1 2
            call 4: 404 no_such_offer
        > ACCEPT r1 d2
            call 5: 404 no_such_offer
        >> d1 DECLINE r1/1
        > ACCEPT r1 d3
            call 6: 404 no_such_offer
        > DECLINE r1 d3
            call 7: 404 no_such_offer
        ",
    );
}

#[test]
fn receipts_are_written_once() {
    check(
        "d1",
        "
        >> POST r1 d1
        > d1 reads
            d1 -> r1: delivered 1
            r1 writes OFFER_DELIVERED 1 (a note)
        > d1 reads
        > d1 ACK r1/1
            d1 -> r1: acked 1
            r1 writes OFFER_ACKED 1 (a note)
        > d1 ACK r1/1
            d1 -> r1: acked 1
        >> d1 drops
        > d1 connects
            d1 hears WELCOME 2 offered
            d1 hears OFFER r1/1 until 8000
        > d1 reads
            d1 -> r1: delivered 1
        ",
    );
}

#[test]
fn an_answer_is_a_receipt() {
    check(
        "d1",
        "
        >> POST r1 d1
        > d1 DECLINE r1/1
            d1 -> r1: delivered 1
            d1 -> r1: decline 1
            r1 writes OFFER_DELIVERED 1 (a note)
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
        ",
    );
}

#[test]
fn trips_end_once() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        > END r1
            call 2: 404 no_such_trip
        >> d1 ACCEPT r1/1
        > d2 TRIP r1 pickup
            d2 -> trip: pickup
            r1 -> d2: no such trip
            d2 hears ERROR no_such_trip
        > d1 TRIP r1 pickup
            d1 -> trip: pickup
            r1 writes TRIP_PICKED_UP
            r1 -> d1: trip is on trip
            d1 hears STATE on_trip with its trip
        > d1 TRIP r1 pickup
            d1 -> trip: pickup
            r1 -> d1: trip is on trip (an answer)
            d1 hears STATE on_trip with its trip
        > END r1 road closed
            r1 writes TRIP_ENDED cancelled (road closed)
            r1 -> d1: trip is cancelled (road closed)
            call 3: 200 trip cancelled
            r1 closes
            d1 hears TRIP_CANCELLED r1 (road closed)
            d1 hears STATE available
        > END r1
            call 4: 409 ended cancelled
        > d1 TRIP r1 complete
            d1 -> trip: complete
            r1 -> d1: trip is cancelled (road closed) (an answer)
            d1 hears STATE available
        > d1 TRIP r1 cancel
            d1 -> trip: cancel
            r1 -> d1: trip is cancelled (road closed) (an answer)
            d1 hears STATE available
        > d1 TRIP r1 arrived
            d1 -> trip: arrived
        ",
    );
}

#[test]
fn given_up_by_the_driver() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        > d1 TRIP r1 cancel
            d1 -> trip: cancel
            r1 writes TRIP_ENDED cancelled_by_driver
            r1 -> d1: trip is cancelled_by_driver
            r1 closes
            d1 hears STATE available
        > CANCEL r1
            call 2: 409 ended ACCEPTED
        > END r1
            call 3: 409 ended cancelled_by_driver
        ",
    );
}

#[test]
fn completed_without_a_pickup() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        > d1 TRIP r1 complete
            d1 -> trip: complete
            r1 writes TRIP_ENDED completed
            r1 -> d1: trip is completed
            r1 closes
            d1 hears STATE available
        > d1 TRIP r1 pickup
            d1 -> trip: pickup
            r1 -> d1: trip is completed (an answer)
            d1 hears STATE available
        ",
    );
}
