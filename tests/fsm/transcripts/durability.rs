//! Nothing is said before it is durable, and what comes meanwhile waits its turn.

use crate::script::check;

/// The first POST is answered, its repeats find it open, then the cancel has its turn.
#[test]
fn answers_wait_for_the_commit() {
    check(
        "d1",
        "
        >> hold commits
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
        > POST r1 d1
        > POST r1 d2
        > CANCEL r1
        > commit
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            call 2: 200 OFFER_SENT 1 d1
            call 3: 200 OFFER_SENT 1 d1
            r1 writes OFFER_REVOKED 1 cancelled, REQUEST_CANCELLED
            r1 sleeps
            d1 hears OFFER r1/1 until 8000
        > commit
            r1 -> d1: 1 is revoked: cancelled
            call 4: 200 CANCELLED
            r1 closes
            d1 hears REVOKED r1/1 cancelled
        ",
    );
}

#[test]
fn all_that_comes_meanwhile_waits() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2
        >> d1 reads
        >> hold commits
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, OFFER_SENT 2 d2 until 8000
        > d1 ACK r1/1
            d1 -> r1: acked 1
        > ACCEPT r1 d1
        > d2 ACCEPT r1/2
            d2 -> r1: accept 2
        > END r1
        > at 8000
        > commit
            r1 -> d1: 1 is declined
            r1 -> d2: offer 2
            r1 writes OFFER_TIMED_OUT 2, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            d1 hears DECLINED r1/1
            d2 hears OFFER r1/2 until 8000
        > commit
            r1 -> d2: 2 is timed out
            r1 -> d1: 1 is declined (an answer)
            call 2: 200 revoked: superseded
            r1 -> d2: 2 is timed out (an answer)
            call 3: 404 no_such_trip
            d2 hears REVOKED r1/2 timeout
            d1 hears DECLINED r1/1
            d2 hears REVOKED r1/2 timeout
        ",
    );
}

#[test]
fn a_trip_moves_after_the_commit() {
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
        > d1 TRIP r1 pickup
            d1 -> trip: pickup
        > END r1
        > commit
            r1 -> d1: 1 is accepted
            r1 writes TRIP_PICKED_UP
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
        > commit
            r1 -> d1: trip is on trip
            r1 writes TRIP_ENDED cancelled
            d1 hears STATE on_trip with its trip
        > commit
            r1 -> d1: trip is cancelled
            call 2: 200 trip cancelled
            r1 closes
            d1 hears TRIP_CANCELLED r1
            d1 hears STATE available
        ",
    );
}

#[test]
fn a_refusal_meanwhile() {
    check(
        "d1 d2",
        "
        >> POST r2 d1
        >> hold r1>d1
        >> POST r1 d1,d2 parallel=2
        >> hold commits
        > d2 DECLINE r1/2
            d2 -> r1: delivered 2
            d2 -> r1: decline 2
            r1 writes OFFER_DELIVERED 2 (a note)
            r1 writes OFFER_DECLINED 2 websocket
        > free r1>d1
            d1 -> r1: refused 1: offered
        > commit
        > commit
            r1 -> d2: 2 is declined
            r1 writes OFFER_REFUSED 1 d1 offered, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            d2 hears DECLINED r1/2
        > commit
        ",
    );
}

#[test]
fn notes_wait_for_nobody() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> hold commits
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
        > commit
        > commit
        > commit
            r1 -> d1: 1 is accepted
            d1 hears CONFIRMED r1/1
            d1 hears STATE en_route_to_pickup with its trip
        ",
    );
}

/// The offer of the first commit is over when it may leave: it leaves, and its end after it.
#[test]
fn time_passes_before_the_commit() {
    check(
        "d1 d2",
        "
        >> hold commits
        > POST r1 d1,d2 timeout=1000
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 1000
            r1 wakes at 1000
        > late 1500
        > timers
        > commit
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            r1 writes OFFER_TIMED_OUT 1, OFFER_SENT 2 d2 until 2500
            r1 wakes at 2500
            d1 hears OFFER r1/1 until 1000
        > commit
            r1 -> d1: 1 is timed out
            r1 -> d2: offer 2
            d1 hears REVOKED r1/1 timeout
            d2 hears OFFER r1/2 until 2500
        ",
    );
}

/// Also when all drivers refused meanwhile: only what brings somebody new is more than a repeat.
#[test]
fn twins_of_a_post_are_repeats() {
    check(
        "",
        "
        >> hold commits
        > POST r1 d1 busy=1000
            r1 -> d1: are you free (standard)
            d1 -> r1: unavailable: offline
            r1 writes REQUEST_RECEIVED, OFFER_REFUSED 1 d1 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        > POST r1 d1
        > POST r1 d2
        > commit
            call 1: 202 PENDING_MATCH 1
            call 2: 200 PENDING_MATCH 1
            r1 -> d2: are you free (standard)
            d2 -> r1: unavailable: offline
            r1 writes REDISPATCHED d2, OFFER_REFUSED 2 d2 offline, CANDIDATES_EXHAUSTED
        > commit
            call 3: 202 PENDING_MATCH 2
        ",
    );
}

#[test]
fn a_post_later_is_no_twin() {
    check(
        "",
        "
        >> POST r1 d1 busy=1000
        > POST r1 d1
            call 2: 409 excluded PENDING_MATCH d1
        ",
    );
}

#[test]
fn fenced_before_it_began() {
    check(
        "d1",
        "
        >> hold commits
        >> POST r1 d1
        > POST r1 d1
        > ACCEPT r1 d1
        > fence r1
            call 1: 503 not_durable
            r1 -> d1: release
            call 2: 503 not_durable
            call 3: 503 not_durable
            r1 sleeps
            r1 closes
        > POST r1 d1
            call 4: 503 not_durable
        > ACCEPT r1 d1
            call 5: 503 not_durable
        > CANCEL r1
            call 6: 503 not_durable
        > END r1
            call 7: 503 not_durable
        > at 8000
        ",
    );
}

/// The decision that was refused never was: who held an offer hears `superseded`, who asked may ask again.
#[test]
fn fenced_with_an_open_offer() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2 parallel=2
        >> d1 reads
        >> d2 reads
        >> hold commits
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket
        > d2 ACCEPT r1/2
            d2 -> r1: accept of what is held, 2
        > CANCEL r1
        > fence r1
            r1 -> d1: 1 is revoked: superseded
            r1 -> d2: 2 is revoked: superseded
            call 2: 503 not_durable
            r1 sleeps
            r1 closes
            d1 hears REVOKED r1/1 superseded
            d2 hears REVOKED r1/2 superseded
        > d2 ACCEPT r1/2
            d2 -> r1: accept 2
        > d1 ACK r1/1
            d1 -> r1: acked 1
        > d1 TRIP r1 pickup
            d1 -> trip: pickup
        > at 8000
        ",
    );
}

/// Who is waited for is let go.
#[test]
fn fenced_while_waiting() {
    check(
        "d1 d2 d3",
        "
        >> POST r2 d3
        >> POST r1 d1,d2,d3 busy=5000 parallel=3
        >> hold commits
        > d2 DECLINE r1/2
            d2 -> r1: delivered 2
            d2 -> r1: decline 2
            r1 writes OFFER_DELIVERED 2 (a note)
            r1 writes OFFER_DECLINED 2 websocket
        > fence r1
            r1 -> d1: 1 is revoked: superseded
            r1 -> d2: 2 is revoked: superseded
            r1 -> d3: release
            r1 sleeps
            r1 closes
            d1 hears REVOKED r1/1 superseded
            d2 hears REVOKED r1/2 superseded
        > d3 DECLINE r2/1
            d3 -> r2: delivered 1
            d3 -> r2: decline 1
            r2 writes OFFER_DELIVERED 1 (a note)
            r2 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
        ",
    );
}

/// A driver whose offer was not durable yet is free again.
#[test]
fn fenced_before_the_offer_left() {
    check(
        "d1",
        "
        >> hold commits
        > POST r1 d1 busy=1000
            r1 -> d1: are you free (standard)
            d1 -> r1: reserved
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
        > fence r1
            call 1: 503 not_durable
            r1 -> d1: release
            r1 sleeps
            r1 closes
        >> free commits
        > POST r2 d1
            r2 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r2 wakes at 8000
            r2 -> d1: offer 1
            call 2: 202 OFFER_SENT 1 d1
            d1 hears OFFER r2/1 until 8000
        ",
    );
}

#[test]
fn fenced_while_a_reservation_is_on_its_way() {
    check(
        "d1 d2",
        "
        >> POST r2 d2
        >> POST r1 d1,d2 busy=5000 parallel=2
        >> d1 reads
        >> hold d2>r1
        > DECLINE r2 d2
            r2 writes OFFER_DECLINED 1 http, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
            r2 -> d2: 1 is declined
            call 3: 200 declined
            d2 hears DECLINED r2/1
            d2 -> r1: reserved
        >> hold commits
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket
        > fence r1
            r1 -> d1: 1 is revoked: superseded
            r1 -> d2: release
            r1 sleeps
            r1 closes
            d1 hears REVOKED r1/1 superseded
        > free d2>r1
            r1 -> d2: release
        ",
    );
}

#[test]
fn a_crash_before_the_commit() {
    check(
        "d1",
        "
        >> hold commits
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
        > crash
        >> free commits
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 2: 202 OFFER_SENT 1 d1
            d1 -> r1: refused 1: offline
            r1 writes OFFER_REFUSED 1 d1 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        ",
    );
}

/// Written and not known to be durable: the caller heard nothing, the request lives.
#[test]
fn a_crash_after_the_write() {
    check(
        "d1",
        "
        >> hold commits
        > POST r1 d1
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
        > crash 1
            r1 -> d1: offer 1 again
            r1 wakes at 8000
        > d1 connects
            d1 hears WELCOME 2 offered
            d1 hears OFFER r1/1 until 8000
            d1 wakes at 60000
        ",
    );
}
