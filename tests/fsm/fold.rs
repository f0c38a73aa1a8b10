//! Logs of random histories, cut everywhere: every prefix folds, and what the steps mean to the store does not depend
//! on where the commits ended or on how much was decided since.

use crate::random::{Act, Post, Run, TRIP, config, histories, played};
use crate::world::{Consequences, step};
use dispatchd::fsm::fold::{Fold, published, rows};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{Channel, LogEntry, Priority, PublishedKind, RequestState, ResponseType, Step};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeSet;

/// What `log[from..]` means, with the fold of the whole log.
fn meaning(id: &RequestId, log: &[LogEntry], from: usize, fold: &Fold) -> Consequences {
    let mut told = Consequences::default();
    published(id, log, from, fold, &mut told.published);
    rows(id, log, from, fold, &mut told.rows);
    told
}

fn extend(all: &mut Consequences, part: Consequences) {
    all.published.extend(part.published);
    all.rows.extend(part.rows);
}

/// `cuts`: a chunk ends after step `i` when bit `i` (modulo 64) is set.
fn check_cuts(id: &RequestId, log: &[LogEntry], cuts: u64) {
    let whole = Fold::of(log).expect("a log that an actor wrote");
    let expect = meaning(id, log, 0, &whole);
    let (mut early, mut late, mut from) = (Consequences::default(), Consequences::default(), 0);
    for to in 1..=log.len() {
        if to < log.len() && cuts >> (to % 64) & 1 == 0 {
            continue;
        }
        let then = Fold::of(&log[..to]).expect("every prefix folds");
        extend(&mut early, meaning(id, &log[..to], from, &then));
        extend(&mut late, meaning(id, &log[..to], from, &whole));
        from = to;
    }
    assert_eq!(early, expect, "{id}: told with the fold of the time, cut at {cuts:b}");
    assert_eq!(late, expect, "{id}: told with a later fold, cut at {cuts:b}");
}

fn check_prefixes(id: &RequestId, log: &[LogEntry]) {
    let mut fold = Fold::begin(&log[0]).expect("a log begins");
    let mut ended = None;
    for (index, entry) in log.iter().enumerate().skip(1) {
        fold.apply(entry)
            .unwrap_or_else(|why| panic!("{id}, step {}: {why}", index + 1));
        assert_eq!(Ok(&fold), Fold::of(&log[..=index]).as_ref(), "{id}, step {}", index + 1);
        assert!(ended.is_none() || ended == fold.end, "{id}: an end ends");
        ended = fold.end;
        let numbers: Vec<u32> = fold.open().collect();
        assert!(numbers.iter().all(|number| fold.attempt(*number).is_some()));
        assert_eq!(
            fold.attempts.len(),
            fold.excluded().count() + numbers.len() + usize::from(accepted(&fold))
        );
    }
}

fn accepted(fold: &Fold) -> bool {
    fold.end == Some(RequestState::Accepted)
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn every_prefix_folds_and_every_cut_means_the_same(history in histories(true), cuts in any::<u64>()) {
        let run = played(&history);
        for (id, log) in run.logs().filter(|(_, log)| !log.is_empty()) {
            check_prefixes(id, log);
            check_cuts(id, log, cuts);
            check_cuts(id, log, u64::MAX);
        }
    }
}

/// The histories are worth something: every step of the vocabulary is in them.
#[test]
fn histories_reach_every_step() {
    const HISTORIES: usize = 600;
    const KINDS: [&str; 17] = [
        "REQUEST_RECEIVED",
        "REDISPATCHED",
        "OFFER_SENT",
        "OFFER_DELIVERED",
        "OFFER_ACKED",
        "OFFER_ACCEPTED",
        "OFFER_DECLINED",
        "OFFER_TIMED_OUT",
        "OFFER_REFUSED",
        "OFFER_REVOKED",
        "CANDIDATES_EXHAUSTED",
        "TRIP_CREATED",
        "TRIP_PICKED_UP",
        "TRIP_ENDED",
        "REQUEST_CANCELLED",
        "REQUEST_UNFULFILLED by deadline",
        "REQUEST_UNFULFILLED by attempts",
    ];
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..HISTORIES {
        let history = histories(true)
            .new_tree(&mut runner)
            .expect("nothing is rejected")
            .current();
        for (_, log) in played(&history).logs() {
            seen.extend(log.iter().map(step));
        }
    }
    for kind in KINDS {
        assert!(seen.iter().any(|text| text.starts_with(kind)), "{kind} never happens");
    }
}

/// What no gateway writes is refused, with the place and the reason.
#[expect(clippy::too_many_lines, reason = "a table")]
#[test]
fn logs_that_do_not_fit_are_refused() {
    let driver = |name: &str| DriverId::parse(name).expect("an id");
    let received = Step::Received {
        priority: Priority::Standard,
        deadline_at_ms: 1_000,
        offer_timeout_ms: 10,
        max_attempts: None,
        parallel: 1,
        busy_wait_ms: 0,
        candidates: vec![driver("d1")],
        trip: "{}".into(),
    };
    let sent = |attempt| Step::OfferSent {
        attempt,
        driver_id: driver("d1"),
        expires_at_ms: 10,
    };
    let check = |steps: &[Step], expect: Result<(), &str>| {
        let log: Vec<_> = steps.iter().cloned().map(|step| LogEntry { at_ms: 0, step }).collect();
        let found = Fold::of(&log).map(|_| ()).map_err(|error| error.to_string());
        assert_eq!(found, expect.map_err(str::to_owned), "{steps:?}");
    };
    let (timed_out, unfulfilled) = (Step::TimedOut { attempt: 1 }, Step::Unfulfilled { by_deadline: true });
    let begin = [received.clone()];
    let with = |steps: &[Step]| [&begin[..], steps].concat();
    check(&[], Err("step 1 does not fit the log: the log is empty"));
    check(
        &[Step::Exhausted],
        Err("step 1 does not fit the log: a log begins with REQUEST_RECEIVED"),
    );
    check(
        &with(&[received]),
        Err("step 2 does not fit the log: a second REQUEST_RECEIVED"),
    );
    check(
        &with(&[sent(2)]),
        Err("step 2 does not fit the log: attempts count without gaps"),
    );
    check(
        &with(&[sent(0)]),
        Err("step 2 does not fit the log: attempts count without gaps"),
    );
    check(
        &with(std::slice::from_ref(&timed_out)),
        Err("step 2 does not fit the log: no such attempt"),
    );
    check(
        &with(&[Step::Acked { attempt: 0 }]),
        Err("step 2 does not fit the log: attempts count from 1"),
    );
    check(&with(&[sent(1), timed_out.clone()]), Ok(()));
    check(
        &with(&[sent(1), timed_out.clone(), timed_out]),
        Err("step 4 does not fit the log: an attempt ends once"),
    );
    check(
        &with(&[unfulfilled.clone(), sent(1)]),
        Err("step 3 does not fit the log: an attempt after the end"),
    );
    check(
        &with(&[unfulfilled.clone(), unfulfilled]),
        Err("step 3 does not fit the log: a request ends once"),
    );
    check(&with(&[Step::PickedUp]), Err("step 2 does not fit the log: no trip"));
    let accepted = Step::Accepted {
        attempt: 1,
        channel: Channel::Http,
    };
    let made = Step::TripCreated {
        trip_id: TripId::for_request(&RequestId::parse("r1").expect("an id"), 0),
        driver_id: driver("d1"),
    };
    let no_trip = "does not fit the log: a trip without an acceptance, or a second one";
    check(&with(std::slice::from_ref(&made)), Err(&format!("step 2 {no_trip}")));
    check(&with(&[sent(1), accepted.clone(), made.clone()]), Ok(()));
    check(
        &with(&[sent(1), accepted, made.clone(), made]),
        Err(&format!("step 5 {no_trip}")),
    );
}

/// Events carry the caller's object as it was given, records name who was asked and what came of it.
#[test]
fn what_the_store_is_told() {
    let mut run = Run::new();
    let post = Post {
        request: 0,
        candidates: 1,
        priority: 1,
        parallel: 1,
        busy_wait_ms: 0,
        max_attempts: None,
        deadline_ms: 5_000,
    };
    // Driver 0 takes it; driver 1 is not there, so that the search for another request is exhausted.
    let nobody = Post {
        request: 1,
        candidates: 2,
        ..post.clone()
    };
    let accept = Act::Answer {
        driver: 0,
        accept: true,
    };
    for act in [
        Act::Connect(0),
        Act::Post(post),
        Act::Settle,
        accept,
        Act::Post(nobody),
        Act::Settle,
    ] {
        run.play(&act);
    }
    let (mut trips, mut rows) = (Vec::new(), Vec::new());
    for (id, log) in run.logs() {
        let told = meaning(id, log, 0, &Fold::of(log).expect("a log that an actor wrote"));
        rows.extend(told.rows);
        trips.extend(told.published.into_iter().filter_map(|published| match published.kind {
            PublishedKind::TripCreated { trip, .. } | PublishedKind::RedispatchRequested { trip, .. } => Some(trip),
            _ => None,
        }));
    }
    assert_eq!(trips.iter().map(|trip| &**trip).collect::<Vec<_>>(), [TRIP, TRIP]);
    let shown = rows.iter().map(|row| {
        let trip = row.trip_id.is_some();
        (
            row.request_id.as_str(),
            row.driver_id.as_str(),
            row.attempt,
            row.response_type,
            trip,
        )
    });
    assert_eq!(
        shown.collect::<Vec<_>>(),
        [
            ("r0", "d0", 1, ResponseType::Accepted, true),
            ("r1", "d1", 1, ResponseType::Refused, false)
        ]
    );
}
