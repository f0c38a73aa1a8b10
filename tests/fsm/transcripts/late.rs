//! Messages that are late, early, or of an offer that its driver does not hold; and bodies that are no offer.

use crate::script::check;

/// The app hears once for each message that it is too late.
#[test]
fn a_late_decline_or_receipt_is_answered_once() {
    check(
        "d1 d2",
        "
        >> POST r1 d1,d2 timeout=1000
        >> d1 reads
        > late 1000
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_TIMED_OUT 1, OFFER_SENT 2 d2 until 2000
            r1 wakes at 2000
            r1 -> d1: 1 is timed out
            r1 -> d2: offer 2
            d1 hears REVOKED r1/1 timeout
            d2 hears OFFER r1/2 until 2000
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 -> d1: 1 is timed out (an answer)
            d1 hears REVOKED r1/1 timeout
        >> d2 reads
        > late 2500
        > d2 ACK r1/2
            d2 -> r1: acked 2
            r1 writes OFFER_TIMED_OUT 2, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d2: 2 is timed out
            d2 hears REVOKED r1/2 timeout
        ",
    );
}

/// Whoever speaks of an offer that it does not hold hears of it all the same.
#[test]
fn a_late_guess_is_answered() {
    check(
        "d1",
        "
        >> POST r2 d1
        >> d1 reads
        >> hold r1>d1
        >> POST r1 d1 timeout=1000
        >> late 1500
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 writes OFFER_TIMED_OUT 1, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is timed out
            r1 -> d1: 1 is timed out (an answer)
        > free r1>d1
            d1 -> r1: refused 1: offered
            d1 hears REVOKED r1/1 timeout
        ",
    );
}

/// Its driver refuses the offer at that instant: the guess is of an offer that was never made.
#[test]
fn a_decline_of_what_is_refused_is_answered() {
    check(
        "d1",
        "
        >> POST r2 d1
        >> d1 reads
        >> hold r1>d1
        >> POST r1 d1
        > d1 DECLINE r1/1 too far
            d1 -> r1: decline 1 (too far)
            r1 -> d1: do you decline 1
        > free r1>d1
            d1 -> r1: refused 1: offered
            d1 -> r1: decline 1 (too far)
            r1 writes OFFER_REFUSED 1 d1 offered, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: no such offer
            d1 hears ERROR no_such_offer r1
        ",
    );
}

/// A decline that is ahead of its offer is one.
#[test]
fn a_decline_before_its_offer() {
    check(
        "d1",
        "
        >> hold r1>d1
        >> POST r1 d1
        > d1 DECLINE r1/1
            d1 -> r1: decline 1
            r1 -> d1: do you decline 1
        > free r1>d1
            d1 hears OFFER r1/1 until 8000
            d1 -> r1: decline 1
            r1 writes OFFER_DECLINED 1 websocket, CANDIDATES_EXHAUSTED
            r1 wakes at 120000
            r1 -> d1: 1 is declined
            d1 hears DECLINED r1/1
        ",
    );
}

/// A body that is no offer: where the request is at work or over it does not matter, where it waits for candidates it does.
#[test]
fn posted_again_with_a_bad_body() {
    check(
        "d1",
        "
        >> hold commits
        >> POST r1 d1
        > MISPOST r1
        > commit
            r1 -> d1: offer 1
            call 1: 202 OFFER_SENT 1 d1
            call 2: 200 OFFER_SENT 1 d1
            d1 hears OFFER r1/1 until 8000
        >> free commits
        >> d1 DECLINE r1/1
        > MISPOST r1
            call 3: 400 no offer
        >> POST r1 d2
        >> d2 connects
        >> CANCEL r1
        > MISPOST r1
            call 6: 409 ended CANCELLED
        >> POST r2 d1
        >> d1 ACCEPT r2/1
        > MISPOST r2
            call 8: 200 ACCEPTED 1 d1
        >> d1 TRIP r2 complete
        > MISPOST r2
            call 9: 200 ACCEPTED 1 d1
        ",
    );
}
