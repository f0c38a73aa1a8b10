//! What calls are answered: against what was asked, what is shown beside it, and what becomes of it.

use super::story::{CANCELLED, EVENT, RECORD, SENT, Story, TIMED_OUT, WALL_MS, audit, judge, taken};
use dispatchd_sim::checks::Check;
use dispatchd_sim::client::NodeEvent;
use dispatchd_sim::phrases::NO_REASON;
use dispatchd_sim::witness::{Ask, Expect};
use dispatchd_sim::words::Class;

/// New candidates for a request that waits for some are no repeat; the same ones are.
#[test]
fn new_candidates_that_are_a_repeat() {
    const REPEAT: &str =
        "{\"request_id\":\"r0\",\"state\":\"PENDING_MATCH\",\"attempt\":1,\"driver_id\":null,\"duplicate\":true}";
    for (candidates, is_good) in [(0b1111, true), (1 << 20, false)] {
        let mut story = Story::new();
        let call = story.go().called("caller", Ask::Offer(0), candidates);
        story.answer(call, 200, REPEAT);
        judge(&story, is_good, Check::AsAsked);
    }
}

/// A request that waits is at nobody, and one whose offer is out is at somebody.
#[test]
fn states_without_their_driver() {
    for (state, driver) in [("PENDING_MATCH", "\"d0\""), ("OFFER_SENT", "null")] {
        let mut story = Story::new();
        let body = format!(
            "{{\"request_id\":\"r0\",\"state\":\"{state}\",\"attempt\":1,\"driver_id\":{driver},\"duplicate\":true}}"
        );
        story.asked(Ask::Offer(0), 200, &body);
        story.finds(Check::Protocol);
    }
}

/// What is answered without an attempt's number is what became of the driver's attempt.
#[test]
fn declined_only_in_the_answer() {
    for (driver, outcome, is_good) in [(0, "TOO_LATE", true), (0, "DECLINED", false), (1, "TOO_LATE", false)] {
        let mut story = Story::new();
        let response = Ask::Response {
            request: 0,
            driver,
            attempt: None,
            accept: false,
        };
        let body = format!("{{\"request_id\":\"r0\",\"outcome\":\"{outcome}\"}}");
        story.asked(response, 200, &body);
        story.now_us += 10_000_000;
        let cancelled = "{\"request_id\":\"r0\",\"state\":\"CANCELLED\"}";
        story.asked(Ask::Cancel(0, NO_REASON), 200, cancelled);
        story.last(&audit("CANCELLED", &[SENT, TIMED_OUT, CANCELLED]), RECORD, EVENT);
        judge(&story, is_good, Check::OneOutcome);
    }
}

/// A fleet that nothing ails takes what is posted.
#[test]
fn a_fleet_that_takes_nothing() {
    const REFUSED: &str =
        "{\"type\":\"about:blank\",\"title\":\"\",\"status\":503,\"code\":\"not_durable\",\"detail\":\"\"}";
    for (refused, is_good) in [(19, true), (20, false)] {
        let mut story = Story::of(Expect {
            nodes: 2,
            ..Story::expect()
        });
        let started = NodeEvent::Started {
            incarnation: 1,
            wall_offset_us: WALL_MS * 1_000,
        };
        story.go().node_event(1, started);
        story.go().node_event(0, NodeEvent::FaultsOver);
        story.now_us += 10_000_000;
        for number in 0..20 {
            let call = story.post(Class::Standard, 1);
            if number < refused {
                story.answer(call, 503, REFUSED);
            } else {
                story.answer(call, 202, &taken(number + 1));
            }
        }
        story.go().check_calls_answered();
        judge(&story, is_good, Check::Answered);
    }
}
