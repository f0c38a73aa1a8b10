//! One driver: sockets, shifts, and being forgotten.

use crate::script::check;

/// The end of the displaced socket is not the end of the driver's.
#[test]
fn connects_and_is_displaced() {
    check(
        "",
        "
        > d1 connects
            d1 hears WELCOME 1 available
            d1 wakes at 60000
        > d1 connects
            d1 closes session 1: displaced
            d1 hears WELCOME 2 available
        > d1 drops 1
        > d1 STATE available
            d1 hears STATE available
        > d1 drops
        ",
    );
}

#[test]
fn a_heartbeat_keeps_the_socket() {
    check(
        "d1",
        "
        >> at 40000
        > d1 speaks
        > at 60000
            d1 wakes at 100000
        > at 99999
        > at 100000
            d1 closes session 1: heartbeat lost
            d1 wakes at 160000
        > d1 connects
            d1 hears WELCOME 2 available
        ",
    );
}

/// The offer waits for the reconnect, also past the time after which a driver without one is offline.
#[test]
fn a_lost_driver_is_offered_and_comes_back() {
    check(
        "d1",
        "
        > d1 drops
        >> at 59000
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 67000
            r1 wakes at 67000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
        > at 60000
        > d1 connects
            d1 hears WELCOME 2 offered
            d1 hears OFFER r1/1 until 67000
            d1 wakes at 120000
        > d1 ACCEPT r1/1
            d1 -> r1: delivered 1
            d1 -> r1: accept of what is held, 1
            r1 writes OFFER_DELIVERED 1 (a note)
            r1 writes OFFER_ACCEPTED 1 websocket, TRIP_CREATED d1
            r1 sleeps
            r1 -> d1: 1 is accepted
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
        ",
    );
}

#[test]
fn a_lost_driver_goes_offline() {
    check(
        "d1",
        "
        >> d1 drops
        > at 60000
            d1 was seen at 0
            d1 is forgotten
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 68000
            r1 wakes at 68000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 -> r1: refused 1: offline
            r1 writes OFFER_REFUSED 1 d1 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 180000
        ",
    );
}

#[test]
fn a_lost_driver_with_an_offer_goes_offline() {
    check(
        "d1",
        "
        >> d1 drops
        >> late 50000
        >> POST r1 d1 timeout=20000
        > at 70000
            r1 writes OFFER_TIMED_OUT 1, CANDIDATES_EXHAUSTED
            r1 wakes at 170000
            r1 -> d1: 1 is timed out
            d1 was seen at 0
            d1 is forgotten
        ",
    );
}

#[test]
fn a_lost_driver_keeps_its_trip() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        >> d1 drops
        > at 60000
        > d1 connects
            d1 hears WELCOME 2 en_route_to_pickup with its trip
            d1 wakes at 120000
        >> d1 drops
        >> at 200000
        > END r1
            r1 writes TRIP_ENDED cancelled
            r1 -> d1: trip is cancelled
            call 2: 200 trip cancelled
            r1 closes
            d1 was seen at 60000
            d1 is forgotten
        ",
    );
}

#[test]
fn an_offer_does_not_outlive_a_session_twice() {
    check(
        "d1",
        "
        >> POST r1 d1
        > d1 connects
            d1 closes session 1: displaced
            d1 hears WELCOME 2 offered
            d1 hears OFFER r1/1 until 8000
        > d1 reads
            d1 -> r1: delivered 1
            r1 writes OFFER_DELIVERED 1 (a note)
        > d1 drops
        > at 8000
            r1 writes OFFER_TIMED_OUT 1, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is timed out
        > d1 connects
            d1 hears WELCOME 3 available
            d1 wakes at 68000
        ",
    );
}

#[test]
fn off_shift() {
    check(
        "d1",
        "
        > d1 STATE offline
            d1 is off shift
            d1 hears STATE offline
        > d1 STATE offline
            d1 hears STATE offline
        >> d1 drops
        > d1 connects
            d1 hears WELCOME 2 offline
        > d1 STATE available
            d1 is on shift
            d1 hears STATE available
        > d1 STATE available
            d1 hears STATE available
        ",
    );
}

#[test]
fn off_shift_is_remembered_for_twelve_hours() {
    check(
        "d1",
        "
        >> d1 STATE offline
        > d1 drops
        > at 43199999
            d1 was seen at 0
            d1 is forgotten
        > d1 connects
            d1 hears WELCOME 2 offline
            d1 wakes at 43259999
        >> d1 drops
        >> at 43300000
        > d1 connects
            d1 is on shift
            d1 hears WELCOME 3 available
            d1 wakes at 43360000
        ",
    );
}

#[test]
fn off_shift_declines_the_offer() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 reads
        > d1 STATE offline
            d1 is off shift
            d1 -> r1: off shift, holds 1
            r1 writes OFFER_DECLINED 1 websocket (off shift), CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 hears STATE offline
        > d1 STATE offline
            d1 hears STATE offline
        ",
    );
}

#[test]
fn off_shift_and_back_before_the_decline_is_durable() {
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
        > d1 STATE available
            d1 is on shift
            d1 hears STATE available
        > commit
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
        ",
    );
}

#[test]
fn off_shift_on_a_trip_begins_at_its_end() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        > d1 STATE offline
            d1 is off shift
            d1 hears STATE en_route_to_pickup with its trip
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
            d1 hears STATE offline
        ",
    );
}

#[test]
fn available_while_offered() {
    check(
        "d1",
        "
        >> POST r1 d1
        > d1 STATE available
            d1 hears STATE available
        ",
    );
}

/// Without a socket the driver hears nothing, and everything goes on.
#[test]
fn nobody_is_told_nothing() {
    check(
        "",
        "
        > d1 connects
            d1 hears WELCOME 1 available
            d1 wakes at 60000
        > d1 drops
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
        > DECLINE r1 d1
            r1 writes OFFER_DECLINED 1 http, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            call 2: 200 declined
        ",
    );
}
