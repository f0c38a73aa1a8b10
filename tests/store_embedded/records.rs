//! Dispatch records: by driver and UTC day, newest first, in pages.

use crate::support::*;
use dispatchd::cold::Commit;
use dispatchd::fsm::types::RecordRow;

fn pages(shard: &mut Shard, who: &str, at_ms: u64, limit: u32) -> Vec<Vec<RecordRow>> {
    let (mut pages, mut before) = (Vec::new(), None);
    loop {
        let (rows, next) = rows_of(shard.ask(records_query(&driver(who), at_ms, limit, before)));
        pages.push(rows);
        before = next;
        if before.is_none() {
            return pages;
        }
    }
}

#[test]
fn pages_are_newest_first_and_miss_nothing() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let (one, two) = (driver("d-1"), driver("d-10"));
    // Several in one millisecond, several attempts of one request in it, and a driver whose id begins like another's.
    let mut rows = Vec::new();
    for at in [START_MS, START_MS + 1, START_MS + 2] {
        for request_id in ["a", "b", "b-1"] {
            for attempt in [1, 2] {
                rows.push(row(&one, request_id, attempt, at));
            }
        }
    }
    rows.push(row(&two, "a", 3, START_MS));
    shard.store(vec![Commit {
        rows: rows.clone(),
        ..Commit::empty(source(1, 0), 1)
    }]);
    rows.pop();
    for limit in [1, 2, 5, 6, 17, 18, 19, 1_000] {
        let pages = pages(&mut shard, "d-1", START_MS, limit);
        let (last, full) = pages.split_last().unwrap();
        assert!(
            full.iter().all(|page| page.len() == limit as usize) && !last.is_empty(),
            "limit {limit}"
        );
        let found = pages.concat();
        assert!(found.is_sorted_by(|one, next| one.offer_sent_at_ms >= next.offer_sent_at_ms));
        let sorted = |mut rows: Vec<RecordRow>| {
            rows.sort_by_key(|row| (row.offer_sent_at_ms, row.request_id.clone(), row.attempt));
            rows
        };
        assert_eq!(sorted(found), sorted(rows.clone()), "limit {limit}");
    }
    assert_eq!(pages(&mut shard, "d-10", START_MS, 10).concat().len(), 1);
    assert_eq!(pages(&mut shard, "d", START_MS, 10).concat().len(), 0);
}

#[test]
fn a_page_is_stable_while_newer_rows_come() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let who = driver("d");
    let commit = |lsn: u64| Commit {
        rows: vec![row(&who, &format!("r-{lsn}"), 1, START_MS + lsn)],
        ..Commit::empty(source(1, 0), lsn)
    };
    shard.store((1..=4).map(commit).collect());
    let (first, before) = rows_of(shard.ask(records_query(&who, START_MS, 2, None)));
    shard.store((5..=9).map(commit).collect());
    let (second, end) = rows_of(shard.ask(records_query(&who, START_MS, 2, before)));
    let ids: Vec<_> = first.iter().chain(&second).map(|row| row.request_id.as_str()).collect();
    assert_eq!((ids, end), (vec!["r-4", "r-3", "r-2", "r-1"], None));
}

#[test]
fn days_are_utc_days_of_the_offer() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let who = driver("d");
    let midnight = START_MS - START_MS % DAY_MS;
    let rows = vec![
        row(&who, "before", 1, midnight - 1),
        row(&who, "at", 1, midnight),
        row(&who, "late", 1, midnight + DAY_MS - 1),
        row(&who, "after", 1, midnight + DAY_MS),
    ];
    shard.store(vec![Commit {
        rows,
        ..Commit::empty(source(1, 0), 1)
    }]);
    let mut ids = |at_ms| {
        let (rows, _) = rows_of(shard.ask(records_query(&who, at_ms, 10, None)));
        rows.into_iter()
            .map(|row| row.request_id.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(midnight - 1), ["before"]);
    assert_eq!(ids(midnight + 5), ["late", "at"]);
    assert_eq!(ids(midnight + DAY_MS), ["after"]);
    assert_eq!(ids(midnight + 2 * DAY_MS), [""; 0]);
    assert_eq!(ids(0), [""; 0]);
}

#[test]
fn a_before_that_is_none_is_refused() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let error = error_of(shard.ask(records_query(&driver("d"), START_MS, 10, Some("yesterday".into()))));
    assert_eq!((error.fault, error.retry), (dispatchd::cold::Fault::Caller, false));
}
