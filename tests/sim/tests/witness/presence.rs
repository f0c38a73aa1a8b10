//! Who is there, who may be closed, and whom nobody may refuse.

use super::story::{
    CANCELLED, DELIVERED, EVENT, R0, RECORD, SENT, Story, TIMED_OUT, WALL_MS, audit, audit_of, brief, judge, shown,
};
use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::phrases::NO_REASON;
use dispatchd_sim::witness::{Ask, Expect};
use dispatchd_sim::words::{Class, DriverState, Move};

/// Driver 0 is shown like this.
fn looks(story: &mut Story, state: &str) {
    // Heard just now.
    let seen_ms = WALL_MS + story.now_us / 1_000;
    let body = format!("{{\"driver_id\":\"d0\",\"state\":\"{state}\",\"last_seen_ms\":{seen_ms},\"node\":\"gw-0\"}}");
    story.asked(Ask::DriverView(0), 200, &body);
}

/// Request 0 is cancelled and everything is read.
fn ends(story: &mut Story, events: &[(&str, u64, &str)], records: &str) {
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    story.last(&audit("CANCELLED", events), records, EVENT);
}

fn ends_briefly(story: &mut Story, told: &[(&str, u64, &str)], records: &str, events: &str) {
    let cancelled = "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}";
    story.asked(Ask::Cancel(0, NO_REASON), 200, cancelled);
    story.last(&brief(&audit("CANCELLED", told)), records, events);
}

/// A busy driver is refused before the wait for it is over.
#[test]
fn waits_that_are_too_short() {
    let busy = ",\"attempt\":1,\"driver_id\":\"d0\",\"detail\":{\"reason\":\"offered\"}";
    for (at_ms, check) in [(1_000_404, Check::AuditTrue), (1_000_405, Check::Caused)] {
        let mut story = Story::brief();
        story.now_us = 2_000_000;
        let at = at_ms.to_string();
        let record = RECORD.replace("TIMEOUT", "REFUSED");
        let record = record.replace("1000005", &at).replace("1009000", &at);
        ends_briefly(&mut story, &[("OFFER_REFUSED", at_ms, busy), CANCELLED], &record, EVENT);
        story.finds(check);
    }
}

#[test]
fn displaced_by_nobody() {
    let mut story = Story::new();
    story.go().socket_closing(0, 0, 4001, "");
    story.finds(Check::Caused);

    // The older one is, and the newer one is not.
    let mut story = Story::new();
    story.connect(0, 1, 50, DriverState::Available, None);
    story.go().socket_closing(0, 0, 4001, "");
    story.is_good();
    story.go().socket_closing(0, 1, 4001, "");
    story.finds(Check::Caused);

    // One that was opened earlier and has not been heard of may have come later.
    let mut story = Story::new();
    story.go().socket_opened(0, 1);
    story.connect(0, 2, 50, DriverState::Available, None);
    story.go().socket_closing(0, 2, 4001, "");
    story.is_good();

    // One that was opened earlier, and is gone already, came later if its session says so.
    for (session, is_good) in [(51, true), (49, false)] {
        let mut story = Story::new();
        story.go().socket_opened(0, 1);
        story.connect(0, 2, 50, DriverState::Available, None);
        story.welcome(0, 1, session, DriverState::Available, None);
        story.go().socket_over(0, 1, "vanishes");
        story.go().socket_closing(0, 2, 4001, "");
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Caused);
        }
    }

    // The same of one that was closed before its welcome.
    for (session, is_good) in [(50, true), (0, false)] {
        let mut story = Story::new();
        story.go().socket_opened(0, 1);
        story.go().socket_opened(0, 2);
        if session > 0 {
            story.welcome(0, 1, session, DriverState::Available, None);
        }
        story.go().socket_over(0, 1, "vanishes");
        // An unheard one may have come later for a while.
        story.now_us += 1_000_000;
        story.go().socket_closing(0, 2, 4001, "");
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Caused);
        }
    }
}

#[test]
fn two_sockets_and_none_displaced() {
    for closed in [true, false] {
        let mut story = Story::new();
        story.go().node_event(0, NodeEvent::FaultsOver);
        story.connect(0, 1, 50, DriverState::Available, None);
        if closed {
            story.go().socket_closing(0, 0, 4001, "");
        }
        story.now_us += 10_000_000;
        ends(&mut story, &[SENT, TIMED_OUT, CANCELLED], RECORD);
        if closed {
            story.is_good();
        } else {
            story.finds(Check::Caused);
        }
    }
}

#[test]
fn heartbeats_that_were_not_missed() {
    for (silence_us, is_good) in [(1_900_000, false), (2_100_000, true)] {
        let mut story = Story::new();
        story.now_us = 5_000_000;
        story.say(0, Say::Ping);
        story.now_us += silence_us;
        story.go().socket_closing(0, 0, 4004, "");
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Caused);
        }
    }
}

#[test]
fn a_silence_that_nobody_noticed() {
    for (silence_us, is_good) in [(6_900_000, true), (7_100_000, false)] {
        let mut story = Story::new();
        story.say(0, Say::Ping);
        story.now_us += silence_us;
        story.say(0, Say::Ping);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Caused);
        }
    }
    // Whose socket a restart ended has nobody to notice it.
    let mut story = Story::new();
    story.say(0, Say::Ping);
    story.now_us += 7_100_000;
    story.restart();
    story.say(0, Say::Ping);
    story.is_good();
}

#[test]
fn the_same_message_twice_is_answered_once() {
    let by_socket = TIMED_OUT.2.to_owned() + ",\"channel\":\"websocket\"";
    let declined = ("OFFER_DECLINED", 1_009_000, by_socket.as_str());
    for (answers, is_good) in [(2, true), (1, false)] {
        let mut story = Story::new();
        story.go().node_event(0, NodeEvent::FaultsOver);
        story.hear(0, shown(R0));
        story.say(0, Say::Decline(R0));
        story.say(0, Say::Decline(R0));
        for _ in 0..answers {
            story.hear(0, Heard::Declined { offer: R0 });
        }
        story.now_us += 10_000_000;
        ends(
            &mut story,
            &[SENT, DELIVERED, declined, CANCELLED],
            &RECORD.replace("TIMEOUT", "DECLINED"),
        );
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Answered);
        }
    }
}

#[test]
fn a_free_driver_is_refused() {
    let record = RECORD
        .replace("TIMEOUT", "REFUSED")
        .replace("1000005", "1000500")
        .replace("1009000", "1000500");
    for reason in ["offline", "offered", "en_route_to_pickup", "on_trip"] {
        let detail = format!(",\"attempt\":1,\"driver_id\":\"d0\",\"detail\":{{\"reason\":\"{reason}\"}}");
        let refused = ("OFFER_REFUSED", 1_000_500, detail.as_str());
        let mut story = Story::brief();
        story.now_us = 2_000_000;
        ends_briefly(&mut story, &[refused, CANCELLED], &record, EVENT);
        story.finds(Check::Caused);
    }

    // One that goes off shift, or whose socket has been lost for long enough, is not free.
    let detail = ",\"attempt\":1,\"driver_id\":\"d0\",\"detail\":{\"reason\":\"offline\"}";
    let refused = ("OFFER_REFUSED", 1_000_500, detail);
    let mut story = Story::new();
    story.say(0, Say::Shift(false));
    story.now_us = 2_000_000;
    ends(&mut story, &[refused, CANCELLED], &record);
    story.is_good();

    for (lost_us, is_good) in [(100_000, true), (600_000, false)] {
        let mut story = Story::new();
        story.now_us = lost_us;
        story.go().socket_over(0, 0, "cut");
        story.now_us = 9_000_000;
        let (at_ms, rest) = (1_003_400, refused.2);
        let record = record.replace("1000500", "1003400");
        ends(&mut story, &[("OFFER_REFUSED", at_ms, rest), CANCELLED], &record);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Caused);
        }
    }
}

#[test]
fn refused_as_offered_beside_another_request() {
    // Request 1 wants the same driver, waits for busy ones, and does something at this time: until then it may have reserved
    // the driver, and let go of it.
    for (at_ms, is_good) in [(1_000_490, true), (1_000_530, false), (1_000_200, false)] {
        let mut story = Story::brief();
        let call = story.post(Class::Standard, 0b1);
        story.answer(
            call,
            202,
            "{\"request_id\":\"r1\",\"state\":\"PENDING_MATCH\",\"attempt\":0,\"driver_id\":null,\"duplicate\":false}",
        );
        story.asked(
            Ask::Cancel(1, NO_REASON),
            200,
            "{\"request_id\":\"r1\",\"state\":\"CANCELLED\"}",
        );
        story.now_us = 2_000_000;
        let other = audit_of(1, 1_000_006, "\"d0\"", "CANCELLED", &[("REQUEST_CANCELLED", at_ms, "")]);
        story.asked(Ask::Audit(1), 200, &brief(&other));
        let detail = ",\"attempt\":1,\"driver_id\":\"d0\",\"detail\":{\"reason\":\"offered\"}";
        let record = RECORD
            .replace("TIMEOUT", "REFUSED")
            .replace("1000005", "1000500")
            .replace("1009000", "1000500");
        let event = EVENT
            .replace("r0", "r1")
            .replace("\"cursor\":1", "\"cursor\":2")
            .replace("1009001", &at_ms.to_string());
        let refused = ("OFFER_REFUSED", 1_000_500, detail);
        ends_briefly(&mut story, &[refused, CANCELLED], &record, &(EVENT.to_owned() + &event));
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Caused);
        }
    }
}

#[test]
fn an_offer_to_one_that_is_off_shift() {
    let state = DriverState::Offline;
    let told = Heard::State { state, trip: None };
    let mut story = Story::new();
    story.say(0, Say::Shift(false));
    story.hear(0, told);
    story.say(0, Say::Shift(true));
    story.hear(0, shown(R0));
    story.is_good();

    let mut story = Story::new();
    story.say(0, Say::Shift(false));
    story.hear(0, told);
    story.hear(0, shown(R0));
    story.finds(Check::Caused);

    // When the memory of it has ended: for one that has come again since, not for one that has stayed.
    for comes_again in [true, false] {
        let mut story = Story::of(Expect {
            off_shift_memory_ms: 1_000,
            ..Story::expect()
        });
        story.say(0, Say::Shift(false));
        let (state, trip) = (DriverState::Offline, None);
        story.hear(0, Heard::State { state, trip });
        story.now_us += 1_200_000;
        if comes_again {
            story.go().socket_over(0, 0, "dropped");
            story.connect(0, 1, 9, DriverState::Offered, None);
            story.hear_on(0, 1, shown(R0));
            story.is_good();
        } else {
            story.hear(0, shown(R0));
            story.finds(Check::Caused);
        }
    }
}

#[test]
fn shown_as_available_and_gone() {
    // Beyond what it keeps its state for.
    for (gone_us, is_good) in [(2_900_000, true), (3_200_000, false)] {
        let mut story = Story::new();
        story.go().socket_over(0, 0, "cut");
        story.now_us += gone_us;
        looks(&mut story, "available");
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::ViewsMatch);
        }
    }

    // Offline, and then available without having come.
    let mut story = Story::new();
    story.go().socket_over(0, 0, "cut");
    story.now_us += 100_000;
    looks(&mut story, "offline");
    looks(&mut story, "available");
    story.finds(Check::ViewsMatch);

    let mut story = Story::new();
    story.go().socket_over(0, 0, "cut");
    story.now_us += 100_000;
    looks(&mut story, "offline");
    story.connect(0, 1, 50, DriverState::Available, None);
    looks(&mut story, "available");
    story.is_good();

    // Not heard of since the node started.
    let mut story = Story::new();
    story.go().socket_over(0, 0, "cut");
    story.restart();
    story.now_us += 100_000;
    looks(&mut story, "available");
    story.finds(Check::ViewsMatch);
}

#[test]
fn shown_as_offline_and_there() {
    for off in [false, true] {
        let mut story = Story::new();
        if off {
            story.say(0, Say::Shift(false));
        }
        story.now_us += 100_000;
        looks(&mut story, "offline");
        ends(&mut story, &[SENT, TIMED_OUT, CANCELLED], RECORD);
        if off {
            story.is_good();
        } else {
            story.finds(Check::ViewsMatch);
        }
    }
}

/// An offer from before a restart is refused by a driver that holds nothing: in the start, or long after it.
#[test]
fn an_offer_that_a_start_resumes_is_refused() {
    for (late_ms, is_good) in [(20, true), (500, false)] {
        let mut story = Story::new();
        story.now_us = 1_000_000;
        story.restart();
        let at_ms = WALL_MS + story.now_us / 1_000 + late_ms;
        story.now_us += 2_000_000;
        let detail = ",\"attempt\":1,\"driver_id\":\"d0\",\"detail\":{\"reason\":\"offered\"}";
        let record = RECORD
            .replace("TIMEOUT", "REFUSED")
            .replace("1009000", &at_ms.to_string());
        ends(
            &mut story,
            &[SENT, ("OFFER_REFUSED", at_ms, detail), CANCELLED],
            &record,
        );
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Caused);
        }
    }
}

/// Who was told that its trip has begun is not on its way to the pickup any more: not when it comes again, nor when it is shown.
#[test]
fn a_pickup_that_is_forgotten() {
    let on_trip = || {
        let mut story = Story::new();
        let trip = story.win(0, R0, "t-1");
        let told = |state| Heard::State {
            state,
            trip: Some(trip),
        };
        story.hear(0, told(DriverState::EnRoute));
        story.say(0, Say::Trip(trip, Move::Pickup));
        story.hear(0, told(DriverState::OnTrip));
        (story, trip)
    };
    for state in [DriverState::OnTrip, DriverState::EnRoute] {
        let (mut story, trip) = on_trip();
        story.restart();
        story.connect(0, 1, 9, state, Some(trip));
        judge(&story, state == DriverState::OnTrip, Check::ConfirmedKept);
    }
    for state in ["on_trip", "en_route_to_pickup"] {
        let (mut story, _) = on_trip();
        let body = format!(
            "{{\"driver_id\":\"d0\",\"state\":\"{state}\",\"trip_id\":\"t-1\",\"last_seen_ms\":1000005,\"node\":\"gw-0\"}}"
        );
        story.asked(Ask::DriverView(0), 200, &body);
        judge(&story, state == "on_trip", Check::ViewsMatch);
    }
}
