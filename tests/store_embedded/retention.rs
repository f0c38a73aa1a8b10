//! What is too old goes, what is not stays: records, ended requests, events, consumers.

use crate::support::*;
use dispatchd::cold::embedded::SWEEP_PERIOD_MS;
use dispatchd::cold::{Answer, Commit, Query, Store};
use std::sync::atomic::Ordering;

/// Lets the store sweep at the clock as it stands: a turn of the writer for each partition there could be.
fn sweep(world: &World, shard: &mut Shard) {
    world.advance(SWEEP_PERIOD_MS);
    for _ in 0..100 {
        shard.ask(records_query(&driver("nobody"), START_MS, 1, None));
    }
}

fn dropped(store: &Store) -> u64 {
    store.metrics().partitions_dropped.get()
}

#[test]
fn records_and_audits_go_after_their_days() {
    let mut world = World::new();
    world.config.records_retention_days = 10;
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let who = driver("d");
    let midnight = START_MS - START_MS % DAY_MS;
    // A request on every day, stored on that day.
    let days = 40;
    for day in 0..days {
        world.clock.store(midnight + day * DAY_MS, Ordering::SeqCst);
        let at_ms = midnight + day * DAY_MS;
        shard.store(vec![cycle(source(1, 0), day + 1, &format!("r-{day}"), &who, at_ms)]);
    }
    sweep(&world, &mut shard);
    let today = days - 1;
    for day in 0..days {
        let (rows, _) = rows_of(shard.ask(records_query(&who, midnight + day * DAY_MS, 10, None)));
        assert_eq!(rows.len(), usize::from(day + 10 >= today), "rows of day {day}");
        let found = shard.ask(Query::Request(request(&format!("r-{day}"))));
        let found = matches!(found, Answer::Request(Some(_)));
        // Spans of three days: an audit stays at most that much longer.
        assert!(found || day + 10 < today, "the audit of day {day} went too early");
        assert!(!found || day + 13 >= today, "the audit of day {day} stayed too long");
    }
    let partitions = std::fs::read_dir(world.path().join("keyspaces")).unwrap().count() as u64;
    assert!(partitions < days, "{partitions} partitions for {days} days");
    // The same after a restart, and a request that ended long ago is not stored again.
    drop(shard);
    store.shutdown().unwrap();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    shard.store(vec![cycle(source(2, 0), 1, "r-0", &who, midnight)]);
    assert_eq!(shard.ask(Query::Request(request("r-0"))), Answer::Request(None));
    assert!(matches!(
        shard.ask(Query::Request(request("r-39"))),
        Answer::Request(Some(_))
    ));
}

#[test]
fn ids_are_remembered_for_the_longer_of_the_two_retentions() {
    let mut world = World::new();
    world.config.records_retention_days = 1;
    world.config.idempotency_retention_days = 7;
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let who = driver("d");
    shard.store(vec![cycle(source(1, 0), 1, "r", &who, START_MS)]);
    world.advance(7 * DAY_MS - SWEEP_PERIOD_MS);
    sweep(&world, &mut shard);
    assert_eq!(rows_of(shard.ask(records_query(&who, START_MS, 10, None))).0, []);
    assert!(matches!(
        shard.ask(Query::Request(request("r"))),
        Answer::Request(Some(_))
    ));
    world.advance(4 * DAY_MS);
    sweep(&world, &mut shard);
    assert_eq!(shard.ask(Query::Request(request("r"))), Answer::Request(None));
}

#[test]
fn a_changed_retention_leaves_what_was_stored_reachable() {
    let mut world = World::new();
    let who = driver("d");
    let mut lsn = 0;
    for (days, step) in [(30, 3), (9, 1), (100, 2), (30, 1)] {
        world.config.records_retention_days = days;
        let store = world.open();
        let mut shard = Shard::attach(&store);
        for _ in 0..5 {
            lsn += 1;
            world.advance(step * DAY_MS / 2);
            let now = world.clock.load(Ordering::SeqCst);
            shard.store(vec![cycle(source(1, 0), lsn, &format!("r-{lsn}"), &who, now)]);
        }
        let now = world.clock.load(Ordering::SeqCst);
        for known in (1..=lsn).rev() {
            if let Answer::Request(Some(ended)) = shard.ask(Query::Request(request(&format!("r-{known}")))) {
                assert_eq!(ended.log.request_id.as_str(), format!("r-{known}"));
            } else {
                assert!(days == 9 || now > START_MS + 9 * DAY_MS, "r-{known} is lost");
            }
        }
        store.shutdown().unwrap();
    }
}

#[test]
fn events_go_after_their_time_and_cursors_do_not_start_again() {
    let mut world = World::new();
    world.config.events_retention_ms = 16 * 60_000;
    let store = world.open();
    let mut shard = Shard::attach(&store);
    for minute in 0..60 {
        shard.store(vec![event_commit(source(1, 0), minute + 1, 1, START_MS)]);
        world.advance(60_000);
    }
    sweep(&world, &mut shard);
    let kept = cursors_of(shard.ask(events_query(None, 0, 1_000, None)));
    assert_eq!(kept.last(), Some(&60));
    // Sixteen minutes are kept surely, and up to a sixteenth and one chunk more.
    assert!((15..=19).contains(&kept.len()), "{kept:?}");
    assert!(kept.is_sorted_by(|one, next| one + 1 == *next));
    world.advance(20 * 60_000);
    sweep(&world, &mut shard);
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 10, None))), [0; 0]);
    drop(shard);
    store.shutdown().unwrap();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    shard.store(vec![event_commit(source(2, 0), 1, 1, START_MS)]);
    assert_eq!(cursors_of(shard.ask(events_query(Some(3), 0, 10, None))), [61]);
}

#[test]
fn events_stay_within_their_bytes() {
    let mut world = World::new();
    world.config.events_bytes_max = 1 << 20;
    let store = world.open();
    let mut shard = Shard::attach(&store);
    for lsn in 1..=400 {
        shard.store(
            (0..40)
                .map(|part| event_commit(source(1, 0), lsn * 40 + part, 1, START_MS))
                .collect(),
        );
    }
    sweep(&world, &mut shard);
    let bytes = store.metrics().events_kept_bytes.get();
    assert!(bytes <= 1 << 20, "{bytes}");
    assert!(bytes >= (1 << 20) / 2, "{bytes}");
    let kept = all_events(&mut shard, 0);
    assert_eq!(kept.last().unwrap().0, 400 * 40);
    assert_eq!(kept.len() as u64, store.metrics().events_kept.get());
}

#[test]
fn events_that_every_consumer_acknowledged_go() {
    let mut world = World::new();
    world.config.events_bytes_max = 16 << 20;
    let store = world.open();
    let mut shard = Shard::attach(&store);
    shard.ask(events_query(None, 0, 1, Some("one")));
    shard.ask(events_query(None, 0, 1, Some("two")));
    // More than one chunk, so that there is one to drop.
    let mut lsn = 0;
    while store.metrics().events_kept_bytes.get() < 4 << 20 {
        let commits = (0..2_000)
            .map(|part| event_commit(source(1, 0), lsn + part + 1, 4, START_MS))
            .collect();
        shard.store(commits);
        lsn += 2_000;
    }
    shard.ask(ack_query("one", lsn * 4));
    sweep(&world, &mut shard);
    assert_eq!(dropped(&store), 0, "`two` has not dealt with them");
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 1, None))), [1]);
    shard.ask(ack_query("two", lsn * 4 - 1));
    sweep(&world, &mut shard);
    assert!(dropped(&store) > 0);
    // Whole chunks go; what is left of the last one stays readable.
    let oldest = cursors_of(shard.ask(events_query(None, 0, 1, None)))[0];
    assert!(1 < oldest && oldest <= lsn * 4, "{oldest}");
    assert_eq!(cursors_of(shard.ask(events_query(Some(0), 0, 1, None))), [oldest]);
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 9, Some("two")))), [lsn * 4]);
}

#[test]
fn a_consumer_that_stays_away_keeps_nothing_beyond_the_retention_and_is_forgotten() {
    let mut world = World::new();
    world.config.events_retention_ms = DAY_MS;
    let store = world.open();
    let mut shard = Shard::attach(&store);
    shard.store(vec![event_commit(source(1, 0), 1, 3, START_MS)]);
    shard.ask(ack_query("gone", 1));
    world.advance(DAY_MS + 1);
    sweep(&world, &mut shard);
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 9, Some("gone")))), [0; 0]);
    shard.store(vec![event_commit(source(1, 0), 2, 3, START_MS)]);
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 9, Some("gone")))), [4, 5, 6]);
    shard.ask(ack_query("here", 6));
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 9, None))), [4, 5, 6]);
    // Its last acknowledgement is two retentions old; the event beside it is kept by `here` alone from now on.
    world.advance(DAY_MS - SWEEP_PERIOD_MS);
    shard.store(vec![Commit {
        published: vec![event("late", START_MS)],
        ..Commit::empty(source(1, 0), 3)
    }]);
    sweep(&world, &mut shard);
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 9, None))), [7]);
}

/// Waits until the store has read what it kept: from then on it is sure of ids that never ended.
fn await_sure(shard: &mut Shard) {
    while !shard.handle.surely_lacks(request("never").hash64()) {
        shard.ask(Query::Request(request("never")));
    }
}

#[test]
fn the_store_is_sure_of_new_ids_and_never_of_those_that_it_keeps() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let kept: Vec<String> = (0..2_000).map(|number| format!("r-{number}")).collect();
    let commits = kept.iter().zip(1..);
    shard.store(
        commits
            .map(|(id, lsn)| cycle(source(1, 0), lsn, id, &driver("d"), START_MS))
            .collect(),
    );
    let none_is_lacking = |shard: &Shard| kept.iter().all(|id| !shard.handle.surely_lacks(request(id).hash64()));
    assert!(none_is_lacking(&shard));
    await_sure(&mut shard);
    assert!(none_is_lacking(&shard));
    drop(shard);
    store.shutdown().unwrap();

    let store = world.open();
    let mut shard = Shard::attach(&store);
    assert!(none_is_lacking(&shard), "whether it has read them again or not");
    await_sure(&mut shard);
    assert!(none_is_lacking(&shard));
    world.advance(60 * DAY_MS);
    sweep(&world, &mut shard);
    assert!(kept.iter().all(|id| shard.handle.surely_lacks(request(id).hash64())));
}
