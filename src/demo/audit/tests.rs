//! The auditor on a made-up run: no violation as it stands, and each invariant fails when its evidence is spoilt.

mod run;

use crate::demo::messages::{AuditView, EventLine, RequestView};
use crate::demo::observe::{Allowance, FinalView, OnApi, OnSocket, Outcome, Seen};
use run::{Run, acked, answer, confirmed, event, good, line, offer, outcome, sent_trip, socket, welcome};
use serde_json::json;

/// Spoils the run and expects a violation of `number`, told by an example that has `words` in it.
fn check(number: u8, words: &str, spoil: impl FnOnce(&mut Run)) {
    let mut run = good();
    spoil(&mut run);
    let verdicts = run.verdicts();
    let verdict = &verdicts[usize::from(number) - 1];
    assert_eq!(verdict.number, number);
    assert!(verdict.violations > 0, "{number} holds: {verdicts:#?}");
    assert!(
        verdict.examples.iter().any(|example| example.contains(words)),
        "{words}: {verdict:#?}"
    );
}

#[test]
fn a_good_run_violates_nothing_and_everything_is_checked() {
    for verdict in good().verdicts() {
        assert_eq!((verdict.violations, &verdict.examples), (0, &vec![]), "{verdict:?}");
        assert!(verdict.checks > 0, "{verdict:?}");
    }
}

#[test]
fn what_a_lost_socket_may_have_said_is_not_held_against_the_node() {
    let mut run = good();
    // The confirmation was under way when the node died; the driver learns of its trip from the next WELCOME.
    run.seen.retain(|seen| *seen != confirmed("b", 2, "t"));
    for verdict in run.verdicts() {
        assert_eq!((verdict.violations, &verdict.examples), (0, &vec![]), "{verdict:?}");
    }
}

/// Spoils the run and expects that nothing is violated in a fleet, and `number` for one node.
fn check_allowed(number: u8, spoil: impl Fn(&mut Run)) {
    check(number, "", &spoil);
    let mut run = good();
    run.fleet = Some(Allowance { pause_ms: 4000 });
    spoil(&mut run);
    for verdict in run.verdicts() {
        assert_eq!((verdict.violations, &verdict.examples), (0, &vec![]), "{verdict:?}");
    }
}

/// Spoils a fleet's run and expects a violation of `number`.
fn check_in_fleet(number: u8, words: &str, spoil: impl Fn(&mut Run)) {
    check(number, words, |run| {
        run.fleet = Some(Allowance::default());
        spoil(run);
    });
}

#[test]
fn a_fleet_may_publish_again_and_bring_receipts_late() {
    check_allowed(5, |run| {
        let again = EventLine {
            stream: 1,
            ..line(1, "TRIP_CREATED")
        };
        run.stream.push(again);
    });
    // Read while the node was away that had written the receipts of the first attempt.
    check_allowed(3, |run| {
        run.before.retain(|step| !matches!(step.seq, 3 | 4));
        for (step, seq) in run.before.iter_mut().zip(1..) {
            step.seq = seq;
        }
    });
}

#[test]
fn what_a_fleet_may_not_do_either() {
    check_in_fleet(5, "2 TRIP_CREATED published", |run| {
        let other = EventLine {
            stream: 1,
            trip_id: Some("t2".into()),
            ..line(1, "TRIP_CREATED")
        };
        run.stream.push(other);
    });
    check_in_fleet(3, "steps audited before", |run| {
        run.before[4].event = "OFFER_REVOKED".into();
    });
    check_in_fleet(3, "steps audited before", |run| run.before.swap(3, 4));
    // The same cursor of another stream is not the event that was read.
    check_in_fleet(3, "is gone or changed", |run| run.stream[0].stream = 1);
    check_in_fleet(1, "won by", |run| {
        let other = EventLine {
            stream: 1,
            driver_id: Some("a".into()),
            trip_id: Some("t2".into()),
            ..line(1, "TRIP_CREATED")
        };
        run.stream.push(other);
    });
}

#[test]
fn one_winner_can_fail() {
    check(1, "won by", |run| {
        run.insert_before(&Seen::NodeReady, confirmed("a", 1, "t"));
    });
    check(1, "has the trips", |run| {
        run.insert_before(&Seen::NodeReady, confirmed("b", 2, "t2"));
    });
    check(1, "2 OFFER_ACCEPTED", |run| {
        let accepted = run.steps[10].clone();
        run.steps.push(accepted);
    });
    check(1, "2 TRIP_CREATED", |run| {
        let created = run.steps[11].clone();
        run.steps.push(created);
    });
    check(1, "began 2 dispatches", |run| {
        run.seen.push(answer(true, 202, false, 1));
    });
    check(1, "trip t belongs to", |run| {
        let view = RequestView {
            state: "ACCEPTED".into(),
            trip_id: Some("t".into()),
            ..RequestView::default()
        };
        let last = FinalView {
            view: Some(view),
            ..FinalView::default()
        };
        run.other = Some(("r2".into(), last));
    });
}

#[test]
fn one_offer_and_one_trip_can_fail() {
    check(2, "while holding", |run| {
        run.insert_before(&acked("a", 1), offer("a", "r9", 1));
    });
    check(2, "while on trip", |run| {
        run.insert_before(&sent_trip("b", "pickup"), offer("b", "r9", 1));
    });
    check(2, "confirmed for t9", |run| {
        run.insert_before(&sent_trip("b", "complete"), confirmed("b", 2, "t9"));
    });
    // Two requests' audits overlap on one driver.
    let overlapping = |from: usize, to: usize, run: &mut Run| {
        let steps = run.steps[from..=to].iter().cloned();
        let audit = AuditView {
            state: "ACCEPTED".into(),
            events: steps.collect(),
        };
        let last = FinalView {
            audit: Some(audit),
            ..FinalView::default()
        };
        run.other = Some(("r2".into(), last));
    };
    check(2, "offers of r and r2 overlap", |run| overlapping(7, 10, run));
    check(2, "trips of r and r2 overlap", |run| overlapping(11, 13, run));
}

#[test]
fn durability_can_fail() {
    check(3, "is unknown now", |run| {
        run.forget(|step| step.event == "REQUEST_RECEIVED");
    });
    check(3, "attempt 2 of a 202 is gone", |run| {
        run.forget(|step| step.attempt == Some(2));
    });
    check(3, "re-dispatch of a 202 is gone", |run| {
        run.forget(|step| step.event == "REDISPATCHED");
    });
    check(3, "was CONFIRMED for t, which is gone", |run| {
        run.forget(|step| step.event == "OFFER_ACCEPTED");
    });
    check(3, "was CONFIRMED for t, which is gone", |run| run.view.trip_id = None);
    check(3, "TRIP_CREATED published", |run| {
        run.forget(|step| step.event == "TRIP_CREATED");
    });
    check(3, "audited before the kill", |run| run.before[1].at_ms += 1);
    check(3, "audited before the kill", |run| {
        let mut more = run.before.clone();
        more.extend(run.steps[12..].iter().cloned());
        more.push(run.steps[13].clone());
        run.before = more;
    });
    check(3, "event 2 (TRIP_CREATED of r) is gone", |run| {
        run.stream.remove(1);
    });
    check(3, "is gone or changed", |run| {
        run.stream[1].driver_id = Some("z".into());
    });
    check(3, "its cancelling was answered 200", |run| {
        run.seen.push(Seen::Api(OnApi::Cancelled { request: "r".into() }));
    });
    check(3, "trip t9 was cancelled", |run| {
        run.seen.push(Seen::Api(OnApi::TripCancelled { trip: "t9".into() }));
    });
}

#[test]
fn reaching_an_end_can_fail() {
    check(4, "has not ended", |run| run.view.state = "PENDING_MATCH".into());
    check(4, "has not ended", |run| {
        let taken = answer(true, 202, false, 0);
        let Seen::Api(OnApi::Answered { answer, .. }) = taken else {
            unreachable!()
        };
        run.seen.push(Seen::Api(OnApi::Answered {
            request: "lost".into(),
            first: true,
            status: 202,
            answer,
        }));
    });
}

#[test]
fn one_outcome_for_everyone_can_fail() {
    let timeout = || Outcome::Revoked("timeout".into());
    check(5, "a heard Revoked", |run| {
        run.insert_before(&Seen::NodeKilled, outcome("a", 1, timeout()));
    });
    check(5, "b heard Declined", |run| {
        run.seen.push(Seen::Api(OnApi::Responded {
            request: "r".into(),
            driver: "b".into(),
            attempt: 2,
            outcome: Outcome::Declined,
        }));
    });
    check(5, "ended 2 times", |run| {
        let declined = run.steps[4].clone();
        run.steps.push(declined);
    });
    check(5, "for one reader", |run| run.audit_state = "OFFER_SENT".into());
    check(5, "with 0 TRIP_CREATED published", |run| {
        run.seen.retain(|seen| *seen != event(2, "TRIP_CREATED"));
        run.stream.remove(1);
    });
    check(5, "with 2 TRIP_CREATED published", |run| {
        run.stream.push(line(9, "TRIP_CREATED"));
    });
    check(5, "1 TRIP_ENDED in the audit, 2", |run| {
        run.stream.push(line(9, "TRIP_ENDED"));
    });
    check(5, "the trip ended as", |run| {
        run.steps[13].detail = Some(json!({"outcome": "cancelled"}));
    });
    check(5, "never heard the end", |run| run.seen.push(offer("a", "r", 1)));
    check(5, "for an offer that it got", |run| {
        let error = OnSocket::Error {
            code: "no_such_offer".into(),
            request: Some("r".into()),
        };
        run.insert_before(&Seen::NodeKilled, socket("a", error));
    });
    check(5, "welcomed with trip t of", |run| {
        run.seen.push(welcome("a", 9, Some("t")));
    });
}

#[test]
fn the_order_of_classes_can_fail() {
    check(6, "(class 1)", |run| run.round.served.swap(1, 2));
    check(6, "p1's (class 0)", |run| run.round.served.swap(0, 1));
    check(6, "e's (class 2), None was served", |run| {
        run.round.served.pop();
    });
}

#[test]
fn the_audits_completeness_can_fail() {
    check(7, "seq has gaps", |run| {
        run.steps.remove(3);
    });
    check(7, "at_ms falls", |run| run.steps[5].at_ms = 1);
    check(7, "begins with", |run| {
        run.forget(|step| step.event == "REQUEST_RECEIVED");
    });
    check(7, "changed between two readings", |run| run.steps_again[13].at_ms += 1);
    check(7, "no OFFER_SENT of attempt 3", |run| {
        run.insert_before(&acked("a", 1), offer("a", "r", 3));
    });
    check(7, "after 0 attempts", |run| {
        run.forget(|step| step.event == "OFFER_SENT" && step.attempt == Some(1));
    });
    check(7, "attempts are [2]", |run| run.forget(|step| step.attempt == Some(1)));
    check(7, "OFFER_ACKED of attempt 1", |run| run.steps.swap(3, 4));
    check(7, "no OFFER_DELIVERED", |run| {
        run.forget(|step| step.event == "OFFER_DELIVERED");
    });
    check(7, "no OFFER_ACKED of a", |run| {
        run.forget(|step| step.event == "OFFER_ACKED");
    });
    check(7, "0 REDISPATCHED of 1", |run| {
        run.forget(|step| step.event == "REDISPATCHED");
    });
    check(7, "no TRIP_PICKED_UP", |run| {
        run.forget(|step| step.event == "TRIP_PICKED_UP");
    });
    check(7, "no TRIP_ENDED", |run| run.forget(|step| step.event == "TRIP_ENDED"));
}
