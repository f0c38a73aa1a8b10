//! What drivers are shown to be and owed, what a shift excuses and for how long, and what a clock that was set back does.

use super::story::{CANCELLED, EVENT, EXPIRES_MS, R0, RECORD, SENT, Story, TIMED_OUT, WALL_MS, audit, shown};
use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::ids::Style;
use dispatchd_sim::phrases::NO_REASON;
use dispatchd_sim::witness::{Ask, Expect, Wish};
use dispatchd_sim::words::{Class, DriverState};

/// Driver 0 is shown with these members.
fn looks(story: &mut Story, rest: &str) {
    let body = format!("{{\"driver_id\":\"d0\",\"state\":\"available\",{rest},\"node\":\"gw-0\"}}");
    story.asked(Ask::DriverView(0), 200, &body);
}

#[test]
fn a_drain_that_takes_too_long() {
    for (took_us, is_good) in [(11_900_000, true), (12_100_000, false)] {
        let mut story = Story::of(Expect {
            may_drain: true,
            style: Style::ALL[0],
            ..Story::expect()
        });
        story.go().node_event(0, NodeEvent::Draining);
        story.now_us += took_us;
        story.go().node_event(0, NodeEvent::Drained);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Drains);
        }
    }
}

#[test]
fn ping_frames_are_heartbeats_and_answered() {
    let mut story = Story::new();
    story.now_us = 5_000_000;
    story.say(0, Say::PingFrame);
    story.now_us += 1_900_000;
    story.go().ponged_frame(0, 0);
    story.is_good();
    story.go().socket_closing(0, 0, 4004, "");
    story.finds(Check::Caused);

    let mut story = Story::new();
    story.go().ponged_frame(0, 0);
    story.finds(Check::Protocol);
}

#[test]
fn who_is_offered_is_shown_the_offer() {
    let offer = format!("\"offer\":{{\"request_id\":\"r0\",\"attempt\":1,\"expires_at_ms\":{EXPIRES_MS}}},");
    for (offer, is_good) in [(offer.as_str(), true), ("", false)] {
        let mut story = Story::new();
        // Of request 0, which may reserve drivers before it offers, nothing is left.
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
        let seen_ms = WALL_MS + story.now_us / 1_000;
        let body = format!(
            "{{\"driver_id\":\"d0\",\"state\":\"offered\",{offer}\"last_seen_ms\":{seen_ms},\"node\":\"gw-0\"}}"
        );
        story.asked(Ask::DriverView(0), 200, &body);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::ViewsMatch);
        }
    }
}

#[test]
fn heard_and_placed_as_said() {
    let now = |story: &Story| format!("\"last_seen_ms\":{}", WALL_MS + story.now_us / 1_000);
    let place = "\"location\":{\"lat\":52.5,\"lon\":13.4,\"speed\":8.5}";
    let mut story = Story::new();
    story.say(0, Say::Location(0));
    story.now_us += 200_000;
    let seen = now(&story);
    looks(&mut story, &format!("{seen},{place}"));
    story.is_good();
    looks(&mut story, &seen);
    story.finds(Check::ViewsMatch);

    // Another place, a place of which nobody spoke, a time to come, a time long before it was heard.
    for (speaks, rest) in [
        (
            true,
            "\"last_seen_ms\":1000100,\"location\":{\"lat\":1,\"lon\":2}".to_owned(),
        ),
        (false, format!("\"last_seen_ms\":1000100,{place}")),
        (false, "\"last_seen_ms\":2000000".to_owned()),
        (true, format!("\"last_seen_ms\":1,{place}")),
    ] {
        let mut story = Story::new();
        if speaks {
            story.say(0, Say::Location(0));
        }
        story.now_us += 200_000;
        looks(&mut story, &rest);
        story.finds(Check::ViewsMatch);
    }
}

#[test]
fn ended_without_the_trip() {
    for (trip, is_good) in [
        (",\"trip_id\":\"t-1\"", true),
        ("", false),
        (",\"trip_id\":\"t-2\"", false),
    ] {
        let mut story = Story::new();
        story.win(0, R0, "t-1");
        let body = format!("{{\"code\":\"ended\",\"state\":\"ACCEPTED\"{trip}}}");
        story.asked(Ask::Cancel(0, NO_REASON), 409, &body);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::SameAnswer);
        }
    }
}

/// Waits for nobody, so that a driver who is offered holds the offer.
const AT_ONCE: Wish = Wish {
    class: Class::Standard,
    offer_timeout_ms: None,
    deadline_ms: None,
    max_attempts: None,
    parallel: None,
    busy_wait_ms: None,
};

#[test]
fn welcomed_as_offered_without_the_offer() {
    for is_shown in [true, false] {
        let mut story = Story::new();
        // Of request 0, which may reserve drivers before it offers, nothing is left.
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
        let request = story.go().new_request(0, AT_ONCE);
        story.go().posted("caller", request, AT_ONCE, &[0]);
        story.connect(0, 1, 50, DriverState::Offered, None);
        if is_shown {
            let offer = dispatchd_sim::ids::Offer { request, attempt: 1 };
            story.hear_on(0, 1, shown(offer));
            story.is_good();
        } else {
            let server_ms = WALL_MS + story.now_us / 1_000;
            story.hear_on(0, 1, Heard::Pong { server_ms });
            story.finds(Check::ConfirmedKept);
        }
    }
}

/// Who went off shift long ago, and was on shift since, is excused for nothing.
#[test]
fn an_offline_that_is_over() {
    for is_over in [false, true] {
        let mut story = Story::new();
        story.say(0, Say::Shift(false));
        if is_over {
            story.connect(0, 1, 50, DriverState::Available, None);
        }
        let available = if is_over { 2 } else { 1 };
        story.connect(0, available, 60, DriverState::Offline, None);
        if is_over {
            story.finds(Check::Caused);
        } else {
            story.is_good();
        }
    }
    // A decline by going off shift, before the offer was made.
    let by_socket = ",\"attempt\":1,\"driver_id\":\"d0\",\"channel\":\"websocket\"";
    let declined = ("OFFER_DECLINED", EXPIRES_MS - 1, by_socket);
    let record = RECORD.replace("TIMEOUT", "DECLINED").replace("1009000", "1008999");
    for early in [true, false] {
        let mut story = Story::new();
        let sent = ("OFFER_SENT", 1_000_005, SENT.2);
        story.now_us += if early { 0 } else { 3_000_000 };
        story.say(u32::from(early), Say::Shift(false));
        story.now_us += 10_000_000;
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
        story.last(&audit("CANCELLED", &[sent, declined, CANCELLED]), &record, EVENT);
        if early {
            story.finds(Check::Caused);
        } else {
            story.is_good();
        }
    }
}

/// By the audit nobody has a trip, and a driver is shown with one.
#[test]
fn a_last_look_that_differs() {
    for state in ["offline", "offered"] {
        let mut story = Story::new();
        story.hear(0, shown(R0));
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
        story.go().socket_over(0, 0, "cut");
        story.go().node_event(0, NodeEvent::FaultsOver);
        story.now_us += 30_000_000;
        let body = format!("{{\"driver_id\":\"d0\",\"state\":\"{state}\",\"last_seen_ms\":1000100,\"node\":\"gw-0\"}}");
        story.asked(Ask::DriverView(0), 200, &body);
        story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
        if state == "offline" {
            story.is_good();
        } else {
            story.finds(Check::ViewsMatch);
        }
    }
}

/// What a driver had after a clock was set back is judged as before; only the time that came twice is not.
#[test]
fn a_clock_that_was_set_back() {
    for (back_us, is_good) in [(0, false), (1_000, false), (60_000_000, true)] {
        let mut story = Story::new();
        story.go().node_event(0, NodeEvent::Killed);
        story.now_us += 30_000_000;
        let started = NodeEvent::Started {
            incarnation: 2,
            wall_offset_us: WALL_MS * 1_000 - back_us,
        };
        story.go().node_event(0, started);
        story.connect(0, 1, 50, DriverState::Available, None);
        story.now_us += 1_000_000;
        let body = "{\"driver_id\":\"d0\",\"state\":\"offline\",\"last_seen_ms\":1000100,\"node\":\"gw-0\"}";
        story.asked(Ask::DriverView(0), 200, body);
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
        story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::ViewsMatch);
        }
    }
}
