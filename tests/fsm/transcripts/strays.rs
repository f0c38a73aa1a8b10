//! Letters that fit no longer change nothing.

use crate::script::check;

#[test]
fn at_a_request_that_waits_for_candidates() {
    check(
        "d1",
        "
        >> POST r1 d2
        > stray d1>r1 busy
        > stray d1>r1 unavailable
        > stray d1>r1 refused
        > stray d1>r1 delivered
        > stray d1>r1 reserved
            r1 -> d1: release
        > stray d2>r1 refused
        > stray d1>r1 timer
        ",
    );
}

#[test]
fn at_a_request_with_an_open_offer() {
    check(
        "d1 d2",
        "
        >> POST r1 d1
        >> d1 reads
        > stray d2>r1 busy
        > stray d2>r1 unavailable
        > stray d2>r1 refused
        > stray d2>r1 delivered
        > stray d2>r1 reserved
            r1 -> d2: release
        > stray d1>r1 busy
        > stray d1>r1 unavailable
        > stray d1>r1 reserved
            r1 -> d1: release
        > stray d1>r1 timer
        ",
    );
}

#[test]
fn at_an_accepted_request() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        > stray d1>r1 busy
        > stray d1>r1 unavailable
        > stray d1>r1 refused
        > stray d1>r1 delivered
        > stray d1>r1 reserved
            r1 -> d1: release
        > stray d1>r1 timer
        ",
    );
}

#[test]
fn at_a_cancelled_request() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> CANCEL r1
        > stray d1>r1 busy
        > stray d1>r1 unavailable
        > stray d1>r1 refused
        > stray d1>r1 delivered
        > stray d1>r1 reserved
            r1 -> d1: release
        > stray d1>r1 timer
        ",
    );
}

#[test]
fn at_a_request_that_nobody_knows() {
    check(
        "d1",
        "
        > stray d1>r1 busy
        > stray d1>r1 unavailable
        > stray d1>r1 refused
        > stray d1>r1 delivered
        > stray d1>r1 reserved
        ",
    );
}

#[test]
fn at_an_available_driver() {
    check(
        "d1",
        "
        > stray r9>d1 release
        > stray r9>d1 timed-out
        > stray r9>d1 trip-ended
        ",
    );
}

#[test]
fn at_an_offered_driver() {
    check(
        "d1",
        "
        >> POST r1 d1
        > stray r9>d1 release
        > stray r9>d1 timed-out
        > stray r9>d1 trip-ended
        > stray r1>d1 release
        > d1 connects
            d1 closes session 1: displaced
            d1 hears WELCOME 2 offered
            d1 hears OFFER r1/1 until 8000
        ",
    );
}

#[test]
fn at_a_driver_on_a_trip() {
    check(
        "d1",
        "
        >> POST r1 d1
        >> d1 ACCEPT r1/1
        > stray r9>d1 release
        > stray r9>d1 timed-out
        > stray r9>d1 trip-ended
        > stray r1>d1 timed-out
        ",
    );
}

#[test]
fn at_a_driver_that_nobody_knows() {
    check(
        "",
        "
        > stray r9>d1 release
        > stray r9>d1 timed-out
        > stray r9>d1 trip-ended
        ",
    );
}
