//! Audits, errors, repeats, records and views: what the node says about itself.

use super::story::{
    CANCELLED, DELIVERED, EVENT, EXPIRES_MS, LEFT_MS, R0, RECORD, SENT, Story, TIMED_OUT, WALL_MS, audit, audit_of,
    shown, taken,
};
use dispatchd_sim::checks::{Check, Counts};
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::codec::messages::{Heard, Say};
use dispatchd_sim::ids::Offer;
use dispatchd_sim::phrases::NO_REASON;
use dispatchd_sim::run::{self, Outcome};
use dispatchd_sim::trips;
use dispatchd_sim::witness::{Ask, Loss};
use dispatchd_sim::words::{Class, DriverState, ErrorCode, Revoke};
use dispatchd_sim::world::Summary;
#[test]
fn audits_that_no_request_can_have() {
    let created = ",\"trip_id\":\"t0\",\"driver_id\":\"d0\"";
    let wrong: [&[(&str, u64, &str)]; 7] = [
        &[TIMED_OUT],
        &[SENT, SENT],
        &[SENT, ("OFFER_TIMED_OUT", 1_008_999, TIMED_OUT.2)],
        &[SENT, TIMED_OUT, TIMED_OUT],
        &[SENT, CANCELLED],
        &[SENT, ("OFFER_ACCEPTED", 1_000_006, TIMED_OUT.2), CANCELLED],
        &[
            SENT,
            ("OFFER_ACCEPTED", EXPIRES_MS, TIMED_OUT.2),
            ("TRIP_CREATED", EXPIRES_MS, created),
        ],
    ];
    for events in wrong {
        let mut story = Story::new();
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
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
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
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
    story.go().node_event(0, NodeEvent::FaultsOver);
    story.hear(0, shown(R0));
    story.say(0, Say::Decline(R0));
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    story.now_us += 60_000_000;
    story.last(
        &audit("CANCELLED", &[SENT, DELIVERED, TIMED_OUT, CANCELLED]),
        RECORD,
        EVENT,
    );
    story.finds(Check::Answered);
}

/// A driver says that it has an offer that was taken back before or is taken back afterwards, and hears no more of it.
fn acknowledges(late: bool) -> Story {
    let mut story = Story::new();
    story.go().node_event(0, NodeEvent::FaultsOver);
    story.hear(0, shown(R0));
    if !late {
        story.say(0, Say::Ack(R0));
    }
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    let reason = Revoke::Cancelled;
    story.hear(0, Heard::Revoked { offer: R0, reason });
    if late {
        story.say(0, Say::Ack(R0));
    }
    story
}

#[test]
fn nobody_answers_a_late_receipt() {
    for (late, answered) in [(false, false), (true, true), (true, false)] {
        let mut story = acknowledges(late);
        if answered {
            let reason = Revoke::Cancelled;
            story.hear(0, Heard::Revoked { offer: R0, reason });
        }
        story.now_us += 20_000_000;
        story.go().check_sockets_answered();
        if late && !answered {
            story.finds(Check::Answered);
        } else {
            story.is_good();
        }
    }
}

#[test]
fn states_that_change_nothing_and_that_nobody_asked_for() {
    let mut story = Story::new();
    let state = DriverState::Available;
    for _ in 0..2 {
        story.say(0, Say::Shift(true));
        story.hear(0, Heard::State { state, trip: None });
        story.is_good();
    }
    story.hear(0, Heard::State { state, trip: None });
    story.finds(Check::Caused);
}

#[test]
fn polls_that_are_too_long_or_too_full() {
    let poll = |wait_ms, limit| Ask::Events {
        node: 0,
        after: Some(0),
        consumer: None,
        wait_ms,
        limit,
    };
    // What is waited for, how many are asked for, whether somebody has read the event before, after how long which check fails.
    for (wait_ms, limit, read, after_us, check) in [
        (20_000, 1, false, 21_000_000, None),
        (20_000, 1, false, 40_000_000, Some(Check::Answered)),
        (20_000, 1, true, 21_000_000, Some(Check::Answered)),
        (0, 0, false, 1_000, Some(Check::Protocol)),
    ] {
        let mut story = Story::new();
        story.go().node_event(0, NodeEvent::FaultsOver);
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
        story.now_us += 10_000_000;
        if read {
            story.asked(poll(0, 1), 200, EVENT);
        }
        let call = story.ask(poll(wait_ms, limit));
        story.now_us += after_us;
        story.answer(call, 200, EVENT);
        match check {
            Some(check) => story.finds(check),
            None => story.is_good(),
        }
    }
}

#[test]
fn half_closed_clients_are_owed_their_answers() {
    for (half_closed, ends) in [(true, false), (true, true), (false, false)] {
        let mut story = Story::new();
        let call = story.ask(Ask::View(0));
        if ends {
            story.restart();
        }
        let loss = if half_closed {
            Loss::HalfClosed(call)
        } else {
            Loss::Excused
        };
        story.go().lost(call, loss);
        if half_closed && !ends {
            story.finds(Check::Answered);
        } else {
            story.is_good();
        }
    }
}

/// A node that closes a connection has answered the calls that it had; one that was on its way then is another matter.
#[test]
fn connections_are_not_closed_before_the_answer() {
    for (after_us, ends, is_good) in [
        (60_000_000, false, false),
        (60_000_000, true, true),
        (1_000, false, true),
    ] {
        let mut story = Story::new();
        let call = story.ask(Ask::View(0));
        if ends {
            story.restart();
        }
        story.now_us += after_us;
        story.go().lost(call, Loss::Closed(call));
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::Answered);
        }
    }
}

#[test]
fn repeats_that_dispatch() {
    let mut story = Story::new();
    story.asked(Ask::Offer(0), 202, &taken(0));
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
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
        story.asked(
            Ask::Cancel(0, NO_REASON),
            200,
            "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
        );
        story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), records, events);
        story.finds(check);
    }
}

#[test]
fn a_view_that_differs() {
    let mut story = Story::new();
    story.asked(
        Ask::Cancel(0, NO_REASON),
        200,
        "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}",
    );
    let view = "{\"request_id\":\"r0\",\"state\":\"CANCELLED\",\"attempt\":1,\"driver_id\":null,\"excluded\":[],\"priority\":\"standard\",\"deadline_at_ms\":1060005}";
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

    // More time is left than there can be, and a welcome of a time long ago.
    let mut story = Story::new();
    let more = Heard::Offer {
        offer: R0,
        class: Class::Standard,
        expires_at_ms: EXPIRES_MS,
        ttl_ms: EXPIRES_MS - WALL_MS,
        trip_intact: true,
    };
    story.go().heard(0, 0, more);
    story.finds(Check::Protocol);

    let mut story = Story::new();
    story.go().socket_opened(0, 1);
    let welcome = Heard::Welcome {
        driver: 0,
        session: 9,
        state: DriverState::Available,
        trip: None,
        heartbeat_ms: 1_000,
        server_ms: WALL_MS,
    };
    story.go().heard(0, 1, welcome);
    story.finds(Check::Protocol);

    let mut story = Story::new();
    story.go().socket_opened(0, 1);
    let welcome = Heard::Welcome {
        driver: 0,
        session: 9,
        state: DriverState::Available,
        trip: None,
        heartbeat_ms: 1_001,
        server_ms: WALL_MS + 100,
    };
    story.go().heard(0, 1, welcome);
    story.finds(Check::Protocol);

    let mut story = Story::new();
    let (offer, trip_intact) = (R0, trips::is_of(0, "{}"));
    story.hear(
        0,
        Heard::Offer {
            offer,
            class: Class::Standard,
            expires_at_ms: EXPIRES_MS,
            ttl_ms: LEFT_MS,
            trip_intact,
        },
    );
    story.finds(Check::Protocol);

    let mut story = Story::new();
    story.asked(Ask::View(0), 500, "{\"code\":\"teapot\"}");
    story.finds(Check::Protocol);
}

#[test]
fn a_driver_that_is_forgotten() {
    let shown = "{\"driver_id\":\"d0\",\"state\":\"available\",\"last_seen_ms\":1,\"node\":\"gw-0\"}";
    let missing = "{\"code\":\"no_such_driver\"}";
    let mut story = Story::new();
    story.asked(Ask::DriverView(0), 200, shown);
    story.restart();
    story.now_us += 60_000_000;
    story.asked(Ask::DriverView(0), 404, missing);
    story.finds(Check::AnswerKept);

    // A welcome alone promises nothing.
    let mut story = Story::new();
    story.restart();
    story.asked(Ask::DriverView(0), 404, missing);
    story.is_good();
}

#[test]
fn dispatched_as_nobody_asked() {
    for (right, wrong) in [
        ("\"parallel\":1", "\"parallel\":2"),
        ("\"busy_wait_ms\":20000", "\"busy_wait_ms\":4000"),
        ("\"offer_timeout_ms\":8995", "\"offer_timeout_ms\":8000"),
        ("\"deadline_at_ms\":1060005", "\"deadline_at_ms\":1060006"),
        ("\"parallel\":1", "\"parallel\":1,\"max_attempts\":3"),
        ("\"priority\":\"standard\"", "\"priority\":\"premium\""),
        ("\"d2\",\"d3\"", "\"d2\""),
        ("\"d2\",\"d3\"", "\"d3\",\"d2\""),
    ] {
        let good = audit("PENDING_MATCH", &[]);
        let mut story = Story::new();
        story.asked(Ask::Audit(0), 200, &good);
        story.is_good();

        let mut story = Story::new();
        assert!(good.contains(right), "{right}");
        story.asked(Ask::Audit(0), 200, &good.replace(right, wrong));
        story.finds(Check::AsAsked);
    }
}

/// Candidates are left whom nobody asks.
#[test]
fn a_search_that_stands_still() {
    let idle = audit("PENDING_MATCH", &[]).replace("\"busy_wait_ms\":20000", "\"busy_wait_ms\":0");
    let mut story = Story::new();
    story.asked(Ask::Audit(0), 200, &idle);
    story.finds(Check::AuditTrue);
}

#[test]
fn new_candidates_that_nobody_sent() {
    let exhausted = ("CANDIDATES_EXHAUSTED", 1_009_000, "");
    let detail = ",\"detail\":{\"candidates\":[\"d1\"],\"parallel\":2}";
    for (parallel, is_good) in [(Some(2), true), (None, false), (Some(3), false)] {
        let mut story = Story::new();
        let call = story.post(Class::Standard, 1);
        story.answer(call, 202, &taken(1));
        let mut wish = story.witness.request(1).wish;
        (wish.offer_timeout_ms, wish.parallel, wish.busy_wait_ms) = (None, parallel, None);
        story.go().posted("caller", 1, wish, &[0, 1]);
        let again = ("REDISPATCHED", 1_009_001, detail);
        let told = audit_of(
            1,
            1_000_005,
            "\"d0\"",
            "PENDING_MATCH",
            &[SENT, TIMED_OUT, exhausted, again],
        );
        story.asked(Ask::Audit(1), 200, &told);
        if is_good {
            story.is_good();
        } else {
            story.finds(Check::AsAsked);
        }
    }
}

#[test]
fn callers_that_are_turned_away_for_no_reason() {
    let not_durable = "{\"code\":\"not_durable\"}";
    let mut story = Story::new();
    story.asked(Ask::View(0), 503, not_durable);
    story.go().node_event(0, NodeEvent::FaultsOver);
    story.asked(Ask::View(0), 503, not_durable);
    story.is_good();
    story.now_us += 10_000_000;
    story.asked(Ask::View(0), 503, not_durable);
    story.finds(Check::Caused);

    let mut story = Story::new();
    story.go().node_event(0, NodeEvent::FaultsOver);
    story.now_us += 10_000_000;
    story.asked(Ask::Offer(0), 429, "{\"code\":\"overloaded\"}");
    story.finds(Check::Caused);

    let mut story = Story::new();
    story.go().node_event(0, NodeEvent::FaultsOver);
    story.now_us += 10_000_000;
    story.go().socket_opened(0, 1);
    story.go().handshake_refused(0, 1, 503);
    story.finds(Check::Caused);
}

#[test]
fn a_seed_that_does_not_repeat_itself() {
    let outcome = |digest, calls| Outcome {
        violation: None,
        counts: Counts::default(),
        requests: 1,
        calls,
        messages: 0,
        shifts_over: 0,
        summary: Summary {
            digest,
            ..Summary::default()
        },
        lines: Vec::new(),
    };
    assert_eq!(run::compare(outcome(1, 1), &outcome(1, 1)).violation, None);
    for other in [outcome(2, 1), outcome(1, 2)] {
        let found = run::compare(outcome(1, 1), &other).violation.map(|found| found.check);
        assert_eq!(found, Some(Check::Repeats));
    }
}

#[test]
fn a_node_that_does_not_start() {
    let mut story = Story::new();
    story.go().node_event(0, NodeEvent::RefusedToStart("damage"));
    story.finds(Check::NodeLives);
}
