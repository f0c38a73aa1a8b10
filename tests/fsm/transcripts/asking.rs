//! With `busy_wait_ms` drivers are asked first: what comes meanwhile, and letters that cross.

use crate::script::check;

#[test]
fn attempts_end_the_wait() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        >> POST r2 d2,d1 busy=5000 parallel=2 attempts=1
        >> d2 reads
        > d2 DECLINE r2/1
            d2 -> r2: decline 1
            r2 -> d1: release
            r2 writes OFFER_DECLINED 1 websocket, REQUEST_UNFULFILLED by attempts
            r2 sleeps
            r2 -> d2: 1 is declined
            r2 closes
            d2 hears DECLINED r2/1
        ",
    );
}

/// Both are free and asked, one is offered.
#[test]
fn attempts_used_up_by_another_place() {
    check(
        "d1 d2",
        "
        > POST r1 d1,d2 busy=5000 parallel=2 attempts=1
            r1 -> d1: are you free (standard)
            r1 -> d2: are you free (standard)
            d1 -> r1: reserved
            d2 -> r1: reserved
            r1 -> d2: release
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 8000
        ",
    );
}

/// Also time: the search ends as soon as the driver has answered.
#[test]
fn what_comes_while_drivers_are_asked_waits() {
    check(
        "d1",
        "
        >> hold d1>r1
        > POST r1 d1 busy=5000
            r1 -> d1: are you free (standard)
            d1 -> r1: reserved
        > POST r1 d1
        > CANCEL r1
        > at 200000
            d1 closes session 1: heartbeat lost
            d1 wakes at 120000
        > free d1>r1
            r1 -> d1: release
            r1 writes REQUEST_RECEIVED, REQUEST_UNFULFILLED by deadline
            d1 was seen at 0
            d1 is forgotten
            call 1: 202 UNFULFILLED 0
            r1 closes
            call 2: 409 ended UNFULFILLED
            call 3: 409 ended UNFULFILLED
        ",
    );
}

/// An offer that was never sent leaves no driver reserved.
#[test]
fn the_deadline_passes_while_others_are_asked() {
    check(
        "d1 d2",
        "
        >> hold d2>r1
        > POST r1 d1,d2 busy=5000 parallel=2 deadline=1000
            r1 -> d1: are you free (standard)
            r1 -> d2: are you free (standard)
            d1 -> r1: reserved
            d2 -> r1: reserved
        > late 1000
        > free d2>r1
            r1 -> d2: release
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 1000, OFFER_TIMED_OUT 1, REQUEST_UNFULFILLED by deadline
            r1 -> d1: release
            r1 -> d1: 1 is timed out
            call 1: 202 UNFULFILLED 1 d1
            r1 closes
        > POST r2 d1,d2 parallel=2
            r2 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 9000, OFFER_SENT 2 d2 until 9000
            r2 wakes at 9000
            r2 -> d1: offer 1
            r2 -> d2: offer 2
            call 2: 202 OFFER_SENT 1 d1
            d1 hears OFFER r2/1 until 9000
            d2 hears OFFER r2/2 until 9000
        ",
    );
}

/// Who was waited for is refused, who is asked is let go.
#[test]
fn the_wait_ends_while_others_are_asked() {
    check(
        "d1 d2 d3",
        "
        >> POST r9 d1
        >> hold d2>r1
        >> hold d3>r1
        > POST r1 d1,d2,d3 busy=1000 parallel=2 deadline=1000
            r1 -> d1: are you free (standard)
            r1 -> d2: are you free (standard)
            d1 -> r1: busy
            d2 -> r1: reserved
            r1 -> d1: I wait (standard)
            r1 -> d3: are you free (standard)
            d3 -> r1: reserved
        > late 1000
        > free d3>r1
            r1 -> d3: release
            r1 -> d1: release
            r1 -> d2: release
            r1 writes REQUEST_RECEIVED, OFFER_REFUSED 1 d1 offered, REQUEST_UNFULFILLED by deadline
            call 2: 202 UNFULFILLED 1
            r1 closes
        > free d2>r1
            r1 -> d2: release
        ",
    );
}

#[test]
fn a_place_is_filled_while_others_are_asked() {
    check(
        "d1 d2 d3",
        "
        >> POST r9 d1
        >> d1 reads
        >> hold d2>r1
        >> hold d3>r1
        > POST r1 d1,d2,d3 busy=5000 parallel=2
            r1 -> d1: are you free (standard)
            r1 -> d2: are you free (standard)
            d1 -> r1: busy
            d2 -> r1: reserved
            r1 -> d1: I wait (standard)
            r1 -> d3: are you free (standard)
            d3 -> r1: reserved
        > d1 DECLINE r9/1
            d1 -> r9: decline 1
            r9 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r9 wakes at 120000
            r9 -> d1: 1 is declined
            d1 hears DECLINED r9/1
            d1 -> r1: reserved
        > free d2>r1
            r1 -> d3: release
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000, OFFER_SENT 2 d2 until 8000
            r1 wakes at 8000
            r1 -> d1: offer 1
            r1 -> d2: offer 2
            call 2: 202 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 8000
            d2 hears OFFER r1/2 until 8000
        > free d3>r1
            r1 -> d3: release
        ",
    );
}

#[test]
fn a_reservation_crosses_its_release() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        >> d1 reads
        >> hold d2>r2
        > POST r2 d1,d2 busy=5000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 -> d2: are you free (standard)
            d2 -> r2: reserved
        >> hold d1>r2
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 -> r2: reserved
        > free d2>r2
            r2 -> d1: release
            r2 writes REQUEST_RECEIVED, OFFER_SENT 1 d2 until 8000
            r2 wakes at 8000
            r2 -> d2: offer 1
            call 2: 202 OFFER_SENT 1 d2
            d2 hears OFFER r2/1 until 8000
        > free d1>r2
            r2 -> d1: release
        > POST r3 d1
            r3 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r3 wakes at 8000
            r3 -> d1: offer 1
            call 3: 202 OFFER_SENT 1 d1
            d1 hears OFFER r3/1 until 8000
        ",
    );
}

/// The answer to `STATE` is the state after the offer that never came.
#[test]
fn off_shift_between_reservation_and_offer() {
    check(
        "d1",
        "
        >> hold commits
        > POST r1 d1 busy=5000
            r1 -> d1: are you free (standard)
            d1 -> r1: reserved
            r1 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r1 wakes at 8000
        > d1 STATE offline
            d1 is off shift
        > commit
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 -> r1: refused 1: offline
            d1 hears STATE offline
            r1 writes OFFER_REFUSED 1 d1 offline, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
        > commit
        ",
    );
}

#[test]
fn reserved_drivers_are_busy() {
    check(
        "d1",
        "
        >> hold commits
        >> POST r1 d1 busy=5000
        > POST r2 d1 busy=5000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 writes REQUEST_RECEIVED
            r2 wakes at 5000
        > CANCEL r1
        > commit
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            r1 writes OFFER_REVOKED 1 cancelled, REQUEST_CANCELLED
            r1 sleeps
            d1 hears OFFER r1/1 until 8000
        ",
    );
}

/// The driver was released and is asked again, and only then its first answer arrives: it says nothing about now.
/// Taken for the second one's, it would cost the driver a refusal.
#[test]
fn a_reservation_crosses_its_release_and_the_next_ask() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        >> d1 reads
        >> hold d2>r2
        > POST r2 d1,d2 busy=5000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 -> d2: are you free (standard)
            d2 -> r2: reserved
        >> hold d1>r2
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
            d1 -> r2: reserved
        > free d2>r2
            r2 -> d1: release
            r2 writes REQUEST_RECEIVED, OFFER_SENT 1 d2 until 8000
            r2 wakes at 8000
            r2 -> d2: offer 1
            call 2: 202 OFFER_SENT 1 d2
            d2 hears OFFER r2/1 until 8000
        >> POST r3 d1
        >> d2 reads
        > d2 DECLINE r2/1
            d2 -> r2: decline 1
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
        > pass d1>r2
        > stray d1>r2 busy
        > stray d1>r2 unavailable
        > free d1>r2
            r2 -> d1: I wait (standard)
            r2 writes OFFER_DECLINED 1 websocket
            r2 wakes at 5000
            r2 -> d2: 1 is declined
            d2 hears DECLINED r2/1
        > d1 DECLINE r3/1
            d1 -> r3: delivered 1
            d1 -> r3: decline 1
            r3 writes OFFER_DELIVERED 1 (a note)
            r3 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r3 wakes at 120000
            r3 -> d1: 1 is declined
            d1 hears DECLINED r3/1
            d1 -> r2: reserved
            r2 writes OFFER_SENT 2 d1 until 8000
            r2 wakes at 8000
            r2 -> d1: offer 2
            d1 hears OFFER r2/2 until 8000
        ",
    );
}

/// A reservation is one request's: the offer of another is refused.
#[test]
fn reserved_drivers_refuse_other_offers() {
    check(
        "d1",
        "
        >> hold commits
        >> POST r1 d1 busy=5000
        > POST r0 d1
            r0 writes REQUEST_RECEIVED, OFFER_SENT 1 d1 until 8000
            r0 wakes at 8000
        > commit
            r0 -> d1: offer 1
            call 2: 202 OFFER_SENT 1 d1
            d1 -> r0: refused 1: offered
            r0 writes OFFER_REFUSED 1 d1 offered, CANDIDATES_EXHAUSTED
            r0 wakes at 120000
        > commit
        > commit
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 8000
        ",
    );
}
