//! What sockets are owed: an answer for each thing said, and no other than its own.

use super::story::{
    CANCELLED, DELIVERED, EVENT, EXPIRES_MS, R0, RECORD, SENT, Story, TIMED_OUT, WALL_MS, audit, shown,
};
use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::ids::Offer;
use dispatchd_sim::phrases::NO_REASON;
use dispatchd_sim::witness::Ask;
use dispatchd_sim::words::{DriverState, ErrorCode, Move, Revoke};

/// Long after that, driver by driver, everybody is to have been answered.
fn is_answered(mut story: Story, is_good: bool) {
    story.go().node_event(0, NodeEvent::FaultsOver);
    story.now_us += 20_000_000;
    story.go().check_sockets_answered();
    if is_good {
        story.is_good();
    } else {
        story.finds(Check::Answered);
    }
}

#[test]
fn pings_and_what_is_no_message() {
    for is_good in [true, false] {
        let mut story = Story::new();
        for _ in 0..2 {
            story.say(0, Say::Ping);
        }
        for _ in 0..if is_good { 2 } else { 1 } {
            let server_ms = WALL_MS + story.now_us / 1_000;
            story.hear(0, Heard::Pong { server_ms });
        }
        is_answered(story, is_good);

        let mut story = Story::new();
        story.say(0, Say::Garbage(0));
        if is_good {
            let (code, request) = (ErrorCode::UnknownType, None);
            story.hear(0, Heard::Error { code, request });
        }
        is_answered(story, is_good);
    }
}

#[test]
fn trips_of_others() {
    for is_good in [true, false] {
        let mut story = Story::new();
        let trip = story.win(0, R0, "t-1");
        story.hear(
            0,
            Heard::State {
                state: DriverState::EnRoute,
                trip: Some(trip),
            },
        );
        story.say(1, Say::Trip(trip, Move::Arrived));
        if is_good {
            let (code, request) = (ErrorCode::NoSuchTrip, None);
            story.hear(1, Heard::Error { code, request });
        }
        is_answered(story, is_good);
    }
}

/// The same word twice is answered twice.
#[test]
fn words_of_an_own_trip() {
    for answers in [2, 1] {
        let mut story = Story::new();
        let own = story.win(0, R0, "t-1");
        let trip = Some(own);
        let state = DriverState::EnRoute;
        story.hear(0, Heard::State { state, trip });
        // Which changes nothing.
        story.say(0, Say::Trip(own, Move::Arrived));
        for _ in 0..2 {
            story.say(0, Say::Trip(own, Move::Pickup));
        }
        for _ in 0..answers {
            let state = DriverState::OnTrip;
            story.hear(0, Heard::State { state, trip });
        }
        is_answered(story, answers == 2);
    }
}

/// A word about a trip that has ended is looked up, and answered behind what was said of the shift after it.
#[test]
fn words_of_an_old_trip() {
    for is_good in [true, false] {
        let mut story = Story::new();
        let own = story.win(0, R0, "t-1");
        let told = |state, trip| Heard::State { state, trip };
        story.hear(0, told(DriverState::EnRoute, Some(own)));
        story.say(0, Say::Trip(own, Move::Cancel));
        story.hear(0, told(DriverState::Available, None));
        story.say(0, Say::Trip(own, Move::Cancel));
        story.say(0, Say::Shift(true));
        if is_good {
            story.hear(0, told(DriverState::Available, None));
        }
        story.say(0, Say::Shift(false));
        for _ in 0..2 {
            story.hear(0, told(DriverState::Offline, None));
        }
        is_answered(story, is_good);
    }
}

/// Who sends more than one connection has answered in time waits for those before.
#[test]
fn calls_behind_others() {
    for is_good in [true, false] {
        let mut story = Story::new();
        let call = story.go().called("caller", Ask::Alive, 0);
        story.go().sent_behind(call);
        story.go().node_event(0, NodeEvent::FaultsOver);
        story.now_us += 60_000_000;
        story.go().came_to_front(call);
        if !is_good {
            story.now_us += 60_000_000;
        }
        story.go().check_calls_answered();
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Answered);
        }
    }
}

#[test]
fn on_shift_while_it_is() {
    // That it is offline answers something else.
    for (state, is_good) in [
        (Some(DriverState::Available), true),
        (Some(DriverState::Offline), false),
        (None, false),
    ] {
        let mut story = Story::new();
        story.say(0, Say::Shift(true));
        if let Some(state) = state {
            story.say(0, Say::Shift(false));
            story.hear(0, Heard::State { state, trip: None });
        }
        is_answered(story, is_good);
    }
}

/// An `ACCEPT` after the own `DECLINE` is answered otherwise than a second `DECLINE`.
#[test]
fn an_accept_after_a_decline() {
    let (declined, superseded) = (
        Heard::Declined { offer: R0 },
        Heard::Revoked {
            offer: R0,
            reason: Revoke::Superseded,
        },
    );
    for (say, answer, is_good) in [
        (Say::Decline(R0), declined, true),
        (Say::Ack(R0), declined, true),
        (Say::Accept(R0), superseded, true),
        (Say::Accept(R0), declined, false),
    ] {
        let mut story = Story::new();
        story.hear(0, shown(R0));
        story.say(0, Say::Decline(R0));
        story.hear(0, declined);
        story.say(0, say);
        story.hear(0, answer);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::SameAnswer);
        }
    }
}

#[test]
fn shown_with_the_attempt_of_another() {
    for (attempt, is_good) in [(1, true), (2, false)] {
        let mut story = Story::new();
        story.hear(1, shown(Offer { request: 0, attempt: 2 }));
        let seen_ms = WALL_MS + story.now_us / 1_000;
        let offer = format!("{{\"request_id\":\"r0\",\"attempt\":{attempt},\"expires_at_ms\":{EXPIRES_MS}}}");
        let body = format!(
            "{{\"driver_id\":\"d0\",\"state\":\"offered\",\"offer\":{offer},\"last_seen_ms\":{seen_ms},\"node\":\"gw-0\"}}"
        );
        story.asked(Ask::DriverView(0), 200, &body);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::OneOutcome);
        }
    }
}

/// An offer is noted as written to a driver whose socket was over by then, or was open.
#[test]
fn written_to_no_socket() {
    for is_good in [true, false] {
        let mut story = Story::new();
        if !is_good {
            story.go().socket_over(0, 0, "cut");
        }
        story.now_us += 4_000_000;
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
        story.now_us += 6_000_000;
        let rest = SENT.2.replace("1009000", "1009995");
        let sent = ("OFFER_SENT", 1_001_000, rest.as_str());
        let delivered = ("OFFER_DELIVERED", 1_001_015, DELIVERED.2);
        let timed_out = ("OFFER_TIMED_OUT", 1_009_995, TIMED_OUT.2);
        let cancelled = ("REQUEST_CANCELLED", 1_009_996, CANCELLED.2);
        let record = RECORD.replace("1000005", "1001000").replace("1009000", "1009995");
        let event = EVENT.replace("1009001", "1009996");
        story.last(
            &audit("CANCELLED", &[sent, delivered, timed_out, cancelled]),
            &record,
            &event,
        );
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Caused);
        }
    }
}
