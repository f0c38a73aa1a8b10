//! The event log: cursors without gaps over all sources, consumers, long polls.

use crate::support::*;
use dispatchd::cold::Answer;
use std::collections::BTreeMap;

#[test]
fn cursors_have_no_gaps_and_keep_each_sources_order() {
    let world = World::new();
    let store = world.open();
    let feeders: Vec<_> = (0..4)
        .map(|number| {
            let mut shard = Shard::attach(&store);
            std::thread::spawn(move || {
                for lsn in 1..=300 {
                    shard.commit(vec![event_commit(
                        source(1, number),
                        lsn,
                        1 + lsn as usize % 3,
                        START_MS,
                    )]);
                }
                shard.wait_stored(source(1, number), 300);
            })
        })
        .collect();
    for feeder in feeders {
        feeder.join().unwrap();
    }
    let events = all_events(&mut Shard::attach(&store), 0);
    assert!(events.iter().map(|(cursor, _)| *cursor).eq(1..=events.len() as u64));
    let mut per_source: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (_, event) in &events {
        let (of, lsn) = event.request_id.as_str().rsplit_once('-').unwrap();
        per_source.entry(of.to_owned()).or_default().push(lsn.parse().unwrap());
    }
    let expect: Vec<u64> = (1..=300).flat_map(|lsn| vec![lsn; 1 + lsn as usize % 3]).collect();
    assert_eq!(per_source.len(), 4);
    assert!(per_source.values().all(|lsns| *lsns == expect));
}

#[test]
fn cursors_go_on_after_a_restart() {
    let world = World::new();
    for incarnation in 1..=4 {
        let store = world.open();
        let mut shard = Shard::attach(&store);
        shard.store(vec![event_commit(source(incarnation, 0), 1, 5, START_MS)]);
        assert_eq!(all_events(&mut shard, 0).len() as u64, incarnation * 5);
        store.shutdown().unwrap();
    }
}

#[test]
fn a_consumer_goes_on_from_its_acknowledgement() {
    let world = World::new();
    let expect_after_restart = {
        let store = world.open();
        let mut shard = Shard::attach(&store);
        shard.store(vec![event_commit(source(1, 0), 1, 10, START_MS)]);
        let mut read = |consumer| cursors_of(shard.ask(events_query(None, 0, 3, consumer)));
        assert_eq!(read(Some("engine")), [1, 2, 3]);
        assert_eq!(read(Some("engine")), [1, 2, 3], "reading acknowledges nothing");
        assert_eq!(read(Some("billing")), [1, 2, 3]);
        let mut ack = |consumer, cursor| shard.ask(ack_query(consumer, cursor));
        assert_eq!(ack("engine", 4), Answer::EventsAcked { cursor: 4 });
        assert_eq!(
            ack("engine", 2),
            Answer::EventsAcked { cursor: 4 },
            "an older one is ignored"
        );
        assert_eq!(ack("engine", 4), Answer::EventsAcked { cursor: 4 });
        assert_eq!(
            ack("billing", 99),
            Answer::EventsAcked { cursor: 10 },
            "beyond the newest is the newest"
        );
        let mut read = |after, consumer| cursors_of(shard.ask(events_query(after, 0, 3, consumer)));
        assert_eq!(read(None, Some("engine")), [5, 6, 7]);
        assert_eq!(read(None, Some("billing")), [0; 0]);
        assert_eq!(
            read(Some(7), Some("engine")),
            [8, 9, 10],
            "`after` goes before the acknowledgement"
        );
        assert_eq!(
            read(None, None),
            [1, 2, 3],
            "acknowledged events stay readable while they are kept"
        );
        assert_eq!(read(Some(0), Some("engine")), [1, 2, 3]);
        assert_eq!(read(Some(u64::MAX), None), [0; 0]);
        store.shutdown().unwrap();
        [5, 6, 7]
    };
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let read = cursors_of(shard.ask(events_query(None, 0, 3, Some("engine"))));
    assert_eq!(read, expect_after_restart);
    shard.store(vec![event_commit(source(2, 0), 1, 1, START_MS)]);
    let read = cursors_of(shard.ask(events_query(None, 0, 3, Some("billing"))));
    assert_eq!(read, [11], "what was clamped counts as dealt with");
}

#[test]
fn a_new_consumer_keeps_events_from_its_first_read() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    shard.store(vec![event_commit(source(1, 0), 1, 4, START_MS)]);
    assert_eq!(cursors_of(shard.ask(events_query(Some(3), 0, 9, Some("slow")))), [4]);
    shard.ask(ack_query("fast", 4));
    assert_eq!(
        cursors_of(shard.ask(events_query(None, 0, 9, Some("slow")))),
        [1, 2, 3, 4]
    );
}

#[test]
fn consumers_are_checked_and_bounded() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    for bad in ["", &"x".repeat(65)] {
        let error = error_of(shard.ask(events_query(None, 0, 1, Some(bad))));
        assert!(!error.retry, "{bad:?}");
    }
    for number in 0..dispatchd::cold::embedded::CONSUMERS_MAX {
        assert_eq!(
            shard.ask(ack_query(&format!("c{number}"), 0)),
            Answer::EventsAcked { cursor: 0 }
        );
    }
    let error = error_of(shard.ask(ack_query("one-more", 0)));
    assert_eq!(error.fault, dispatchd::cold::Fault::Caller);
    assert_eq!(shard.ask(ack_query("c0", 0)), Answer::EventsAcked { cursor: 0 });
}

#[test]
fn a_long_poll_wakes_when_its_events_are_durable() {
    let world = World::new();
    let store = world.open();
    let (mut reader, mut feeder) = (Shard::attach(&store), Shard::attach(&store));
    let poll = reader.send(events_query(None, 30_000, 10, None));
    let far = reader.send(events_query(Some(5), 30_000, 10, None));
    // Answered after the polls were looked at: they are parked, not lost.
    reader.ask(ack_query("barrier", 0));
    assert!(!reader.has_answer(poll) && !reader.has_answer(far));
    feeder.store(vec![event_commit(source(1, 0), 1, 2, START_MS)]);
    assert_eq!(cursors_of(reader.answer(poll)), [1, 2]);
    feeder.store(vec![event_commit(source(1, 0), 2, 3, START_MS)]);
    reader.ask(ack_query("barrier", 0));
    assert!(!reader.has_answer(far), "1 to 5 are no news to it");
    feeder.store(vec![event_commit(source(1, 0), 3, 1, START_MS)]);
    assert_eq!(cursors_of(reader.answer(far)), [6]);
}

#[test]
fn a_long_poll_ends_when_its_time_is_up() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let long = shard.send(events_query(None, 2_000, 10, None));
    let short = shard.send(events_query(None, 1_000, 10, None));
    // Their time begins when the store has taken them.
    shard.ask(ack_query("barrier", 0));
    world.advance(999);
    shard.ask(ack_query("barrier", 0));
    assert!(!shard.has_answer(short));
    world.advance(1);
    shard.ask(ack_query("barrier", 0));
    assert_eq!(cursors_of(shard.answer(short)), [0; 0]);
    assert!(!shard.has_answer(long));
    world.advance(1_000);
    shard.ask(ack_query("barrier", 0));
    assert_eq!(cursors_of(shard.answer(long)), [0; 0]);
    assert_eq!(
        cursors_of(shard.ask(events_query(None, 0, 10, None))),
        [0; 0],
        "no wait, no parking"
    );
}

#[test]
fn a_wait_that_nobody_waits_for_ends() {
    let world = World::new();
    let store = world.open();
    let (mut gone, mut other) = (Shard::attach(&store), Shard::attach(&store));
    let ended = gone.send(events_query(None, 30_000, 10, None));
    let kept = gone.send(events_query(None, 30_000, 10, None));
    let others = other.send(events_query(None, 30_000, 10, None));
    // In one turn of the store or in several: parked, or on the way there.
    gone.handle.end_wait(ended);
    assert_eq!(cursors_of(gone.answer(ended)), [0; 0]);
    gone.ask(ack_query("barrier", 0));
    assert!(!gone.has_answer(kept) && !other.has_answer(others));
    gone.handle.end_wait(kept);
    assert_eq!(cursors_of(gone.answer(kept)), [0; 0]);
    // Once is enough, and what is unknown is ignored.
    gone.handle.end_wait(kept);
    gone.handle.end_wait(1 << 40);
    other.store(vec![event_commit(source(1, 0), 1, 1, START_MS)]);
    assert_eq!(cursors_of(other.answer(others)), [1]);
}

#[test]
fn long_polls_are_bounded() {
    let world = World::new();
    let store = world.open();
    let per_shard = dispatchd::cold::handle::HANDLE_QUERIES_MAX;
    let mut shard = Shard::attach(&store);
    let polls: Vec<u64> = (0..per_shard)
        .map(|_| shard.send(events_query(None, 30_000, 1, None)))
        .collect();
    assert!(shard.handle.query(0, events_query(None, 30_000, 1, None)).is_err());
    let mut other = Shard::attach(&store);
    // The second answer comes from a later turn than the one that counted the polls.
    other.ask(ack_query("barrier", 0));
    other.ask(ack_query("barrier", 0));
    assert_eq!(store.metrics().polls_parked.get() as usize, per_shard);
    assert_eq!(per_shard, dispatchd::cold::embedded::POLLS_PARKED_MAX);
    let one_more = other.ask(events_query(None, 30_000, 1, None));
    assert_eq!(cursors_of(one_more), [0; 0], "answered at once");
    other.store(vec![event_commit(source(1, 0), 1, 1, START_MS)]);
    for poll in polls {
        assert_eq!(cursors_of(shard.answer(poll)), [1]);
    }
}

#[test]
fn pages_are_cut_by_count_and_by_bytes() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let big = |lsn| {
        let mut commit = cycle(source(1, 0), lsn, &format!("r-{lsn}"), &driver("d"), START_MS);
        commit.published.truncate(1);
        if let dispatchd::fsm::types::PublishedKind::TripCreated { trip, .. } = &mut commit.published[0].kind {
            *trip = format!("{{\"note\":\"{}\"}}", "x".repeat(60_000)).into();
        }
        commit
    };
    shard.store((1..=200).map(big).collect());
    assert_eq!(
        cursors_of(shard.ask(events_query(None, 0, 0, None))),
        [1],
        "no limit is no reason for no answer"
    );
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 7, None))).len(), 7);
    let page = page_of(shard.ask(events_query(None, 0, u32::MAX, None)));
    let bytes = page.len() * 60_000;
    assert!(
        bytes <= dispatchd::cold::port::EVENTS_PAGE_BYTES_MAX + 60_000,
        "{bytes}"
    );
    assert_eq!(all_events(&mut shard, 0).len(), 200);
}
