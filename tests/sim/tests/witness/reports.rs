//! Audits, errors, repeats, records and views: what the node says about itself.

use super::story::{CANCELLED, EVENT, EXPIRES_MS, R0, RECORD, SENT, Story, TIMED_OUT, audit, shown, taken};
use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::ids::Offer;
use dispatchd_sim::trips;
use dispatchd_sim::witness::Ask;
use dispatchd_sim::words::{Class, DriverState, ErrorCode};
#[test]
fn audits_that_no_request_can_have() {
    let wrong: [&[(&str, u64, &str)]; 6] = [
        &[TIMED_OUT],
        &[SENT, SENT],
        &[SENT, ("OFFER_TIMED_OUT", 1_008_999, TIMED_OUT.2)],
        &[SENT, TIMED_OUT, TIMED_OUT],
        &[SENT, CANCELLED],
        &[SENT, ("OFFER_ACCEPTED", 1_000_006, TIMED_OUT.2), CANCELLED],
    ];
    for events in wrong {
        let mut story = Story::new();
        story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
        story.asked(Ask::Audit(0), 200, &audit("CANCELLED", events));
        story.finds(Check::AuditTrue);
    }
}

#[test]
fn audits_that_are_rewritten() {
    let mut story = Story::new();
    story.asked(Ask::Audit(0), 200, &audit("OFFER_SENT", &[SENT]));
    story.is_good();
    story.asked(Ask::Audit(0), 200, &audit("PENDING_MATCH", &[]));
    story.finds(Check::AuditGrows);
}

#[test]
fn audits_that_lack_what_was_seen() {
    let mut story = Story::new();
    story.hear(1, shown(Offer { request: 0, attempt: 2 }));
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.finds(Check::AuditComplete);
}

#[test]
fn errors_without_a_reason() {
    for error in [
        (ErrorCode::NoSuchOffer, Some(0)),
        (ErrorCode::NoSuchTrip, None),
        (ErrorCode::Invalid, None),
    ] {
        let mut story = Story::new();
        let (code, request) = error;
        story.hear(0, Heard::Error { code, request });
        story.finds(Check::SameAnswer);
    }
}

#[test]
fn nobody_answers() {
    let mut story = Story::new();
    story.go().node_event(NodeEvent::FaultsOver);
    story.hear(0, shown(R0));
    story.say(0, Say::Decline(R0));
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    story.now_us += 60_000_000;
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.finds(Check::Answered);
}

#[test]
fn repeats_that_dispatch() {
    let mut story = Story::new();
    story.asked(Ask::Offer(0), 202, &taken(0));
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.finds(Check::OneDispatch);

    let mut story = Story::new();
    let call = story.post(Class::Standard, 1);
    let duplicate = taken(1).replace("false", "true");
    story.answer(call, 200, &duplicate);
    story.finds(Check::OneDispatch);
}

#[test]
fn a_session_that_falls() {
    let mut story = Story::new();
    story.connect(0, 1, 50, DriverState::Available, None);
    story.is_good();
    story.connect(0, 2, 49, DriverState::Available, None);
    story.finds(Check::SessionGrows);
}

#[test]
fn records_and_events_that_are_missing() {
    for (records, events, check) in [("", EVENT, Check::RecordsMatch), (RECORD, "", Check::EventsInOrder)] {
        let mut story = Story::new();
        story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
        story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), records, events);
        story.finds(check);
    }
}

#[test]
fn a_view_that_differs() {
    let mut story = Story::new();
    story.asked(Ask::Cancel(0), 200, "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}");
    let view = "{\"request_id\":\"r0\",\"state\":\"CANCELLED\",\"attempt\":1,\"driver_id\":null,\"excluded\":[],\"priority\":\"standard\",\"deadline_at_ms\":1060000}";
    story.asked(Ask::View(0), 200, view);
    story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
    story.finds(Check::ViewsMatch);
}

#[test]
fn messages_and_bodies_that_are_wrong() {
    let mut story = Story::new();
    story.go().socket_opened(0, 1);
    story.go().heard(0, 1, shown(R0));
    story.finds(Check::Protocol);

    let mut story = Story::new();
    let (offer, trip_intact) = (R0, trips::is_of(0, "{}"));
    story.hear(
        0,
        Heard::Offer {
            offer,
            class: Class::Standard,
            expires_at_ms: EXPIRES_MS,
            ttl_ms: 9_000,
            trip_intact,
        },
    );
    story.finds(Check::Protocol);

    let mut story = Story::new();
    story.asked(Ask::View(0), 500, "{\"code\":\"teapot\"}");
    story.finds(Check::Protocol);
}

#[test]
fn a_node_that_does_not_start() {
    let mut story = Story::new();
    story.go().node_event(NodeEvent::RefusedToStart("damage"));
    story.finds(Check::NodeLives);
}
