//! A wait for busy drivers (`busy_wait_ms`) goes on after a crash, with the time it has left.

use crate::script::check;

#[test]
fn the_wait_goes_on() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        >> POST r2 d1 busy=5000
        >> late 3000
        > crash
            r1 -> d1: offer 1 again
            r1 wakes at 8000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 wakes at 5000
        > at 5000
            r2 -> d1: release
            r2 writes OFFER_REFUSED 1 d1 offered, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
        ",
    );
}

#[test]
fn a_wait_whose_time_ended_meanwhile() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        >> POST r2 d1 busy=5000
        >> late 6000
        > crash
            r1 -> d1: offer 1 again
            r1 wakes at 8000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 writes OFFER_REFUSED 1 d1 offered, CANDIDATES_EXHAUSTED
            r2 wakes at 120000
        ",
    );
}

/// It counts from the decline that left a place to fill, not from the POST.
#[test]
fn a_later_wait_goes_on() {
    check(
        "d1 d2",
        "
        >> POST r1 d1 timeout=60000
        >> POST r2 d2,d1 busy=5000
        >> late 4000
        >> d2 DECLINE r2/1
        >> late 6000
        > crash
            r1 -> d1: offer 1 again
            r1 wakes at 60000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 wakes at 9000
        ",
    );
}

/// With two places a driver is waited for from the beginning; what becomes of the other offer changes nothing.
#[test]
fn a_wait_beside_an_offer_goes_on() {
    check(
        "d1 d2",
        "
        >> POST r1 d1 timeout=60000
        >> POST r2 d2,d1 busy=5000 parallel=2
        >> late 4000
        >> d2 DECLINE r2/1
        > crash
            r1 -> d1: offer 1 again
            r1 wakes at 60000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 wakes at 5000
        ",
    );
}

/// Nor did a re-POST's new wait begin with the restart.
#[test]
fn a_wait_that_a_repost_began_goes_on() {
    check(
        "d1",
        "
        >> POST r1 d1 timeout=60000
        >> POST r2 d3
        >> late 2000
        >> POST r2 d1 busy=5000
        >> late 4000
        > crash
            r1 -> d1: offer 1 again
            r1 wakes at 60000
            r2 -> d1: are you free (standard)
            d1 -> r2: busy
            r2 -> d1: I wait (standard)
            r2 wakes at 7000
        ",
    );
}
