//! What is said, by which way and in which words, is what is noted and told.

use super::story::{CANCELLED, DELIVERED, EVENT, R0, RECORD, SENT, Story, TIMED_OUT, WALL_MS, audit, judge, shown};
use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::phrases::{self, NO_REASON};
use dispatchd_sim::witness::Ask;
use dispatchd_sim::words::DriverState;

/// Why the callers here cancel, and another reason.
const WHY: u8 = 1;
const OTHER: u8 = 3;

/// Request 0 is cancelled for this reason.
fn cancels(story: &mut Story, why: u8) {
    let body = "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}";
    story.asked(Ask::Cancel(0, why), 200, body);
}

/// The detail of an event that has a reason.
fn because(why: u8) -> String {
    match phrases::reason(why) {
        Some(text) => format!(",\"detail\":{{\"reason\":\"{text}\"}}"),
        None => String::new(),
    }
}

/// A driver declines by one way, and by the other one, and the audit says which; and it said before that it has the offer, or not.
#[test]
fn the_channel_of_an_answer() {
    for (by_socket, by_http, noted, is_good) in [
        (true, false, "websocket", true),
        (true, false, "http", false),
        (false, true, "http", true),
        (false, true, "websocket", false),
        (true, true, "http", true),
        (true, true, "websocket", true),
    ] {
        let mut story = Story::new();
        story.hear(0, shown(R0));
        if by_socket {
            story.say(0, Say::Decline(R0));
            story.hear(0, Heard::Declined { offer: R0 });
        }
        if by_http {
            let ask = Ask::Response {
                request: 0,
                driver: 0,
                attempt: Some(1),
                accept: false,
            };
            story.asked(ask, 200, "{\"request_id\":\"r0\",\"outcome\":\"DECLINED\"}");
        }
        cancels(&mut story, NO_REASON);
        let rest = format!("{},\"channel\":\"{noted}\"", TIMED_OUT.2);
        let declined = ("OFFER_DECLINED", 1_009_000, rest.as_str());
        let told = audit("CANCELLED", &[SENT, DELIVERED, declined, CANCELLED]);
        story.last(&told, &RECORD.replace("TIMEOUT", "DECLINED"), EVENT);
        judge(&story, is_good, Check::Caused);
    }
}

/// A driver acknowledges and declines, on one socket: in this order, or another one, or the caller answers for it as well.
#[test]
fn a_receipt_before_an_answer() {
    let acked = ("OFFER_ACKED", 1_000_030, TIMED_OUT.2);
    for (says, by_http, is_noted, is_good) in [
        ([Say::Ack(R0), Say::Decline(R0)], false, true, true),
        ([Say::Ack(R0), Say::Decline(R0)], false, false, false),
        ([Say::Ack(R0), Say::Decline(R0)], true, false, true),
        ([Say::Decline(R0), Say::Ack(R0)], false, false, true),
    ] {
        let mut story = Story::new();
        story.hear(0, shown(R0));
        for say in says {
            story.say(0, say);
        }
        if by_http {
            let ask = Ask::Response {
                request: 0,
                driver: 0,
                attempt: None,
                accept: false,
            };
            story.asked(ask, 200, "{\"request_id\":\"r0\",\"outcome\":\"DECLINED\"}");
        }
        story.hear(0, Heard::Declined { offer: R0 });
        cancels(&mut story, NO_REASON);
        let rest = format!("{},\"channel\":\"websocket\"", TIMED_OUT.2);
        let declined = ("OFFER_DECLINED", 1_009_000, rest.as_str());
        let events: &[_] = if is_noted {
            &[SENT, DELIVERED, acked, declined, CANCELLED]
        } else {
            &[SENT, DELIVERED, declined, CANCELLED]
        };
        let told = audit("CANCELLED", events);
        story.last(&told, &RECORD.replace("TIMEOUT", "DECLINED"), EVENT);
        judge(&story, is_good, Check::AuditComplete);
    }
}

/// The node answers a ping behind a receipt; long before the offer ends or the node does, or just before.
#[test]
fn a_receipt_that_was_read() {
    for (lasts_us, restarts, is_good) in [(5_000_000, false, false), (1_000, true, true), (5_000_000, true, false)] {
        let mut story = Story::new();
        story.hear(0, shown(R0));
        story.say(0, Say::Ack(R0));
        story.say(0, Say::Ping);
        let server_ms = WALL_MS + story.now_us / 1_000;
        story.hear(0, Heard::Pong { server_ms });
        story.go().socket_over(0, 0, "cut");
        story.now_us += lasts_us;
        if restarts {
            story.restart();
        }
        cancels(&mut story, NO_REASON);
        let told = audit("CANCELLED", &[SENT, DELIVERED, TIMED_OUT, CANCELLED]);
        story.last(&told, RECORD, EVENT);
        judge(&story, is_good, Check::AuditComplete);
    }
}

/// A request is cancelled for a reason; its audit and its event say which.
#[test]
fn why_a_request_was_cancelled() {
    for (said, noted, published, check) in [
        (WHY, WHY, WHY, None),
        (NO_REASON, NO_REASON, NO_REASON, None),
        (WHY, OTHER, OTHER, Some(Check::Caused)),
        (WHY, NO_REASON, NO_REASON, Some(Check::Caused)),
        (WHY, WHY, OTHER, Some(Check::EventsInOrder)),
    ] {
        let mut story = Story::new();
        cancels(&mut story, said);
        let detail = because(noted);
        let cancelled = ("REQUEST_CANCELLED", CANCELLED.1, detail.as_str());
        let event = match phrases::reason(published) {
            Some(text) => EVENT.replace('}', &format!(",\"reason\":\"{text}\"}}")),
            None => EVENT.to_owned(),
        };
        story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, cancelled]), RECORD, &event);
        judge(&story, check.is_none(), check.unwrap_or(Check::Caused));
    }
}

/// A trip is cancelled for a reason, and its driver is told another one.
#[test]
fn why_a_trip_was_cancelled() {
    for (said, told, is_good) in [(WHY, WHY, true), (WHY, OTHER, false), (WHY, NO_REASON, false)] {
        let mut story = Story::new();
        let trip = story.win(0, R0, "t-1");
        story.asked(Ask::TripCancel(trip, said), 200, "{\"trip_id\":\"t-1\"}");
        let heard = Heard::TripCancelled {
            trip,
            request: 0,
            reason: told,
        };
        story.hear(0, heard);
        judge(&story, is_good, Check::Caused);
    }
}

/// A driver is where it said last that it is.
#[test]
fn a_driver_that_moved() {
    for (place, is_good) in [(2, true), (1, false), (3, false)] {
        let mut story = Story::new();
        story.say(0, Say::Location(1));
        story.now_us += 100_000;
        story.say(0, Say::Location(2));
        story.now_us += 200_000;
        let (seen_ms, place) = (WALL_MS + story.now_us / 1_000, phrases::place(place));
        let body = format!(
            "{{\"driver_id\":\"d0\",\"state\":\"available\",\"location\":{{{place}}},\"last_seen_ms\":{seen_ms},\"node\":\"gw-0\"}}"
        );
        story.asked(Ask::DriverView(0), 200, &body);
        judge(&story, is_good, Check::ViewsMatch);
    }
}

/// Who was told that it is off shift is not shown as available, unless it said otherwise.
#[test]
fn shown_as_available_and_off_shift() {
    for (says, is_good) in [(true, true), (false, false)] {
        let mut story = Story::new();
        story.say(0, Say::Shift(false));
        let (state, trip) = (DriverState::Offline, None);
        story.hear(0, Heard::State { state, trip });
        if says {
            story.say(0, Say::Shift(true));
        }
        let seen_ms = WALL_MS + story.now_us / 1_000;
        let body =
            format!("{{\"driver_id\":\"d0\",\"state\":\"available\",\"last_seen_ms\":{seen_ms},\"node\":\"gw-0\"}}");
        story.asked(Ask::DriverView(0), 200, &body);
        judge(&story, is_good, Check::ViewsMatch);
    }
}

/// Four drivers are sent away over two seconds: one in each half.
#[test]
fn all_are_sent_away_at_once() {
    for (step_us, is_good) in [(500_000, true), (300_000, false), (0, false)] {
        let mut story = Story::new();
        story.now_us += 100_000;
        story.go().node_event(0, NodeEvent::Draining);
        for driver in 0..4 {
            story.now_us += step_us;
            story.go().socket_closing(driver, 0, 1012, "retry_after_ms=500");
        }
        judge(&story, is_good, Check::Drains);
    }
}
