//! Commits take effect exactly once, whatever is fed again, and what they say can be asked for.

use crate::support::*;
use dispatchd::cold::{Answer, Commit, Query, Source};
use dispatchd::fsm::ids::TripId;

fn seen(source: Source, lsn: u64, who: &str, at_ms: u64) -> Commit {
    Commit {
        driver_seen: Some((driver(who), at_ms)),
        ..Commit::empty(source, lsn)
    }
}

fn shift(source: Source, lsn: u64, who: &str, at_ms: u64, off: bool) -> Commit {
    Commit {
        off_shift: Some((driver(who), at_ms, off)),
        ..Commit::empty(source, lsn)
    }
}

#[test]
fn what_is_fed_again_after_a_restart_changes_nothing() {
    let world = World::new();
    let who = driver("d-1");
    let life = |lsn| cycle(source(1, 0), lsn, &format!("r-{lsn}"), &who, START_MS + lsn);
    {
        let store = world.open();
        let mut shard = Shard::attach(&store);
        shard.store((1..=5).map(life).collect());
        assert_eq!(store.watermark(source(1, 0)), 5);
        store.shutdown().unwrap();
    }
    let store = world.open();
    assert_eq!(store.watermark(source(1, 0)), 5);
    assert_eq!(store.watermark(source(1, 1)), 0);
    let mut shard = Shard::attach(&store);
    // A recovery that starts too early: 3 to 5 are there, 6 and 7 are new. Then nothing but repeats.
    shard.store((3..=7).map(life).collect());
    shard.store((1..=7).map(life).collect());
    assert_eq!(store.metrics().commits_repeated.get(), 3 + 7);
    let events = all_events(&mut shard, 0);
    assert_eq!(
        events.iter().map(|(cursor, _)| *cursor).collect::<Vec<_>>(),
        (1..=21).collect::<Vec<_>>()
    );
    let expect: Vec<_> = (1..=7).flat_map(|lsn| life(lsn).published).collect();
    assert_eq!(events.into_iter().map(|(_, event)| event).collect::<Vec<_>>(), expect);
    let (rows, more) = rows_of(shard.ask(records_query(&who, START_MS, 100, None)));
    assert_eq!(rows, (1..=7).rev().flat_map(|lsn| life(lsn).rows).collect::<Vec<_>>());
    assert_eq!(more, None);
}

#[test]
fn repeats_are_reported_stored_so_that_their_journal_can_go() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    shard.store(vec![event_commit(source(4, 2), 9, 1, START_MS)]);
    let mut other = Shard::attach(&store);
    other.commit(vec![event_commit(source(4, 2), 3, 1, START_MS)]);
    other.wait_stored(source(4, 2), 9);
}

#[test]
fn ended_requests_are_found_by_id_and_by_trip() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let life = |lsn| cycle(source(1, 0), lsn, &format!("r-{lsn}"), &driver("d"), START_MS + lsn);
    shard.store((1..=3).map(life).collect());
    for lsn in 1..=3 {
        let ended = life(lsn).ended.unwrap();
        let trip = ended.trip_id.clone().unwrap();
        let found = Some(Box::new(ended));
        assert_eq!(
            shard.ask(Query::Request(request(&format!("r-{lsn}")))),
            Answer::Request(found.clone())
        );
        assert_eq!(shard.ask(Query::Trip(trip)), Answer::Trip(found));
    }
    assert_eq!(shard.ask(Query::Request(request("r-4"))), Answer::Request(None));
    let of_another_time = TripId::for_request(&request("r-1"), 77);
    assert_eq!(shard.ask(Query::Trip(of_another_time)), Answer::Trip(None));
    let of_somebody_else = TripId::parse("trip-7").unwrap();
    assert_eq!(shard.ask(Query::Trip(of_somebody_else)), Answer::Trip(None));
}

#[test]
fn drivers_remember_first_and_last_sight_and_their_shift() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let one = source(1, 0);
    assert_eq!(shard.ask(Query::Driver(driver("a"))), Answer::Driver(None));
    shard.store(vec![
        seen(one, 1, "a", 100),
        seen(one, 2, "b", 110),
        shift(one, 3, "a", 200, true),
        shift(one, 4, "b", 210, true),
        shift(one, 5, "b", 220, false),
        shift(one, 6, "c", 230, true),
    ]);
    let record = |shard: &mut Shard, who| match shard.ask(Query::Driver(driver(who))) {
        Answer::Driver(Some(record)) => (record.first_seen_ms, record.last_seen_ms, record.off_shift_since),
        other => panic!("{other:?}"),
    };
    assert_eq!(record(&mut shard, "a"), (100, 200, Some(200)));
    assert_eq!(record(&mut shard, "b"), (110, 220, None));
    assert_eq!(
        store.off_shift_since(0).unwrap(),
        vec![(driver("a"), 200), (driver("c"), 230)]
    );
    assert_eq!(store.off_shift_since(200).unwrap(), vec![(driver("c"), 230)]);
    // The last word counts, whatever its time: the host's clock was set back before the next boot.
    let next = source(2, 0);
    shard.store(vec![shift(next, 1, "a", 150, false), shift(next, 2, "c", 300, false)]);
    assert_eq!(record(&mut shard, "a"), (100, 200, None));
    assert_eq!(store.off_shift_since(0).unwrap(), vec![]);
    // Off again: one entry, with the new time, also after a restart. What is fed again does not undo it.
    shard.store(vec![shift(next, 3, "a", 140, true)]);
    shard.store(vec![shift(next, 1, "a", 150, false), shift(next, 3, "a", 140, true)]);
    drop(shard);
    store.shutdown().unwrap();
    assert_eq!(world.open().off_shift_since(0).unwrap(), vec![(driver("a"), 140)]);
}

/// An id may be used again when its retention is over; recovery feeds what the journal still has of both lives.
#[test]
fn of_an_id_that_is_used_again_the_last_life_is_found() {
    let world = World::new();
    let one = source(1, 0);
    let lives = [
        cycle(one, 1, "again", &driver("d"), START_MS),
        cycle(one, 2, "again", &driver("d"), START_MS + 40 * DAY_MS),
    ];
    let check = |shard: &mut Shard| {
        let ended = lives[1].ended.clone().unwrap();
        let trips = lives.clone().map(|life| life.ended.unwrap().trip_id.unwrap());
        let found = Some(Box::new(ended));
        assert_eq!(
            shard.ask(Query::Request(request("again"))),
            Answer::Request(found.clone())
        );
        assert_eq!(shard.ask(Query::Trip(trips[1].clone())), Answer::Trip(found));
        assert_eq!(shard.ask(Query::Trip(trips[0].clone())), Answer::Trip(None));
        let rows = |shard: &mut Shard, at_ms| rows_of(shard.ask(records_query(&driver("d"), at_ms, 10, None))).0;
        assert_eq!(rows(shard, START_MS), vec![]);
        assert_eq!(rows(shard, START_MS + 40 * DAY_MS), lives[1].rows);
    };
    // As the node lives through them.
    let store = world.open();
    let mut shard = Shard::attach(&store);
    shard.store(vec![lives[0].clone()]);
    world.advance(40 * DAY_MS);
    drop(shard);
    store.shutdown().unwrap();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    while shard.ask(Query::Request(request("again"))) != Answer::Request(None) {
        shard.ask(ack_query("the writer's turn", 0));
    }
    shard.store(vec![lives[1].clone()]);
    check(&mut shard);
    // Both from a journal, into a store that has the first, and into one that has none.
    shard.store(lives.to_vec());
    check(&mut shard);
    let empty = World::new();
    empty.advance(40 * DAY_MS);
    let store = empty.open();
    let mut shard = Shard::attach(&store);
    shard.store(lives.to_vec());
    check(&mut shard);
}

#[test]
fn a_shard_reads_its_own_writes() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let who = driver("d");
    for lsn in 1..=200 {
        // Not waited for: the query alone must see it.
        shard.commit(vec![cycle(
            source(1, 0),
            lsn,
            &format!("r-{lsn}"),
            &who,
            START_MS + lsn,
        )]);
        let records = shard.send(records_query(&who, START_MS, 1, None));
        let events = shard.send(events_query(Some(lsn * 3 - 1), 0, 10, None));
        let ack = shard.send(ack_query("engine", lsn * 3));
        let (rows, _) = rows_of(shard.answer(records));
        assert_eq!(rows[0].request_id, request(&format!("r-{lsn}")));
        assert_eq!(cursors_of(shard.answer(events)), vec![lsn * 3]);
        assert_eq!(shard.answer(ack), Answer::EventsAcked { cursor: lsn * 3 });
    }
}

#[test]
fn old_boots_are_forgotten_when_told() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    for incarnation in 1..=3 {
        shard.store(vec![
            event_commit(source(incarnation, 0), 7, 1, START_MS),
            event_commit(source(incarnation, 1), 8, 1, START_MS),
        ]);
    }
    store.forget_sources_before(3);
    shard.ask(ack_query("barrier", 0));
    let expect = vec![(source(3, 0), 7), (source(3, 1), 8)];
    assert_eq!(store.watermarks(), expect);
    store.shutdown().unwrap();
    assert_eq!(world.open().watermarks(), expect);
}

#[test]
fn a_clean_shutdown_stores_what_waits() {
    let world = World::new();
    let store = world.open();
    let shard = Shard::attach(&store);
    for lsn in 1..=500 {
        shard.commit(vec![event_commit(source(1, 0), lsn, 1, START_MS)]);
    }
    store.shutdown().unwrap();
    assert_eq!(shard.handle.backlog(), 0);
    let store = world.open();
    assert_eq!(store.watermark(source(1, 0)), 500);
    assert_eq!(all_events(&mut Shard::attach(&store), 0).len(), 500);
}
