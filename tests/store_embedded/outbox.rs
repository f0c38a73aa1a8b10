//! What waits for the fleet's store: in order, over restarts, until it was carried away; and the questions that go there.

use crate::support::{START_MS, Shard, World, cycle, driver, event_commit, records_query, request, row, source};
use dispatchd::cold::embedded::{FarAsk, OutboxReader};
use dispatchd::cold::{Answer, Commit, FleetLink, Query, RecordsPage, StoreError};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A world with a fleet, and the far end of its questions.
fn world(outbox_bytes_max: u64) -> (World, UnboundedReceiver<FarAsk>) {
    let mut world = World::new();
    let (asks, asked) = unbounded_channel();
    world.config.fleet = Some(FleetLink { asks, outbox_bytes_max });
    (world, asked)
}

/// Request ids of everything that waits, read in pages of `page`.
fn read_all(outbox: &mut OutboxReader, page: usize) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let read = outbox.read(page, u64::MAX).unwrap();
        if read.entries.is_empty() {
            return ids;
        }
        assert!(read.entries.len() <= page);
        ids.extend(read.entries.iter().map(|entry| entry.rows[0].request_id.to_string()));
    }
}

fn cycles(lsns: std::ops::RangeInclusive<u64>) -> Vec<Commit> {
    let one = |lsn| cycle(source(1, 0), lsn, &format!("r-{lsn}"), &driver("d"), START_MS);
    lsns.map(one).collect()
}

fn ids(lsns: std::ops::RangeInclusive<u64>) -> Vec<String> {
    lsns.map(|lsn| format!("r-{lsn}")).collect()
}

#[test]
fn entries_wait_in_order_until_they_are_carried_away() {
    let (world, _asked) = world(u64::MAX);
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let mut outbox = store.outbox().unwrap();
    shard.store(cycles(1..=10));
    // Without rows and without an end there is nothing to carry; what comes again is there already.
    shard.store(vec![event_commit(source(1, 0), 11, 3, START_MS)]);
    shard.store(cycles(9..=10).into_iter().chain(cycles(12..=12)).collect());
    let state = outbox.state();
    assert_eq!(state.entries(), 11);
    let page = outbox.read(4, u64::MAX).unwrap();
    let first = &page.entries[0];
    assert_eq!(
        (first.at_ms, first.rows.len(), first.ended.is_some()),
        (START_MS, 1, true)
    );
    outbox.carried(&page);
    assert_eq!((state.entries(), page.entries.len()), (7, 4));
    // Read and not carried away: there again after a crash, here a store that is opened anew.
    let rest: Vec<String> = ids(5..=10).into_iter().chain(ids(12..=12)).collect();
    assert_eq!(read_all(&mut outbox, 3), rest);
    drop((outbox, shard));
    store.shutdown().unwrap();
    let store = world.open();
    let mut outbox = store.outbox().unwrap();
    assert_eq!(outbox.state().entries(), 7);
    assert_eq!(read_all(&mut outbox, 100), rest);
    assert_eq!(outbox.read(100, u64::MAX).unwrap().entries.len(), 0);
}

#[test]
fn numbers_go_on_where_everything_was_carried_away() {
    let (world, _asked) = world(u64::MAX);
    for start in 0..3 {
        let store = world.open();
        let mut shard = Shard::attach(&store);
        let mut outbox = store.outbox().unwrap();
        assert_eq!(outbox.state().entries(), 0);
        let lsns = start * 5 + 1..=start * 5 + 5;
        shard.store(cycles(lsns.clone()));
        let page = outbox.read(100, u64::MAX).unwrap();
        let found: Vec<String> = page
            .entries
            .iter()
            .map(|entry| entry.rows[0].request_id.to_string())
            .collect();
        assert_eq!(found, ids(lsns));
        outbox.carried(&page);
        assert_eq!(outbox.state().bytes(), 0);
        drop((outbox, shard));
        store.shutdown().unwrap();
    }
}

#[test]
fn a_full_outbox_makes_the_store_unhealthy_and_goes_on() {
    let (world, _asked) = world(4_096);
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let mut outbox = store.outbox().unwrap();
    shard.store(cycles(1..=1));
    assert!(store.health().is_healthy());
    shard.store(cycles(2..=20));
    assert!(!store.health().is_healthy() && !store.health().fatal());
    shard.store(cycles(21..=30));
    let page = outbox.read(1_000, u64::MAX).unwrap();
    assert_eq!(page.entries.len(), 30);
    outbox.carried(&page);
    assert!(store.health().is_healthy());
}

/// Entries of more than a partition: carried away, their files go.
#[test]
fn partitions_that_were_carried_away_are_dropped() {
    let (world, _asked) = world(u64::MAX);
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let mut outbox = store.outbox().unwrap();
    let large = "x".repeat(60 << 10);
    for lsn in 1..=600 {
        let mut commit = cycle(source(1, 0), lsn, &format!("r-{lsn}"), &driver("d"), START_MS);
        if let Some(ended) = &mut commit.ended
            && let dispatchd::fsm::types::Step::Received { trip, .. } = &mut ended.log.log[0].step
        {
            *trip = large.clone().into();
        }
        shard.commit(vec![commit]);
    }
    shard.wait_stored(source(1, 0), 600);
    let kept = || {
        let names = std::fs::read_dir(world.path().join("keyspaces")).unwrap();
        names.count()
    };
    let before = kept();
    loop {
        let page = outbox.read(50, 1 << 20).unwrap();
        if page.entries.is_empty() {
            break;
        }
        outbox.carried(&page);
    }
    world.advance(dispatchd::cold::embedded::SWEEP_PERIOD_MS + 1);
    shard.store(vec![event_commit(source(1, 0), 601, 1, START_MS)]);
    while store.metrics().partitions_dropped.get() < 2 {
        shard.store(vec![event_commit(
            source(1, 0),
            602 + store.metrics().commits.get(),
            1,
            START_MS,
        )]);
        world.advance(dispatchd::cold::embedded::SWEEP_PERIOD_MS + 1);
    }
    assert!(before >= 3);
    drop((outbox, shard));
    store.shutdown().unwrap();
    let store = world.open();
    assert_eq!(store.outbox().unwrap().state().entries(), 0);
}

#[test]
fn what_this_node_does_not_know_is_asked_for() {
    let (world, mut asked) = world(u64::MAX);
    let store = world.open();
    let mut shard = Shard::attach(&store);
    shard.store(cycles(1..=1));
    assert!(matches!(
        shard.ask(Query::Request(request("r-1"))),
        Answer::Request(Some(_))
    ));
    assert!(asked.try_recv().is_err(), "what is known here is not asked for");

    let token = shard.send(Query::Request(request("elsewhere")));
    let Some(FarAsk::Request {
        inbox,
        token: of,
        request_id,
    }) = asked.blocking_recv()
    else {
        panic!("another question")
    };
    assert_eq!((of, request_id), (token, request("elsewhere")));
    inbox.answer(of, Answer::Request(None));
    assert_eq!(shard.answer(token), Answer::Request(None));

    let token = shard.send(records_query(&driver("d"), START_MS, 10, None));
    let Some(FarAsk::Records { ask, own }) = asked.blocking_recv() else {
        panic!("another question")
    };
    assert_eq!(own.rows.len(), 1);
    let page = RecordsPage {
        rows: vec![row(&driver("d"), "far", 1, START_MS)],
        nodes: vec!["b".into()],
        next_before: None,
    };
    ask.inbox.answer(ask.token, Answer::Records(page.clone()));
    assert_eq!(shard.answer(token), Answer::Records(page));

    // Nobody is there any more: told so, not kept waiting.
    drop(asked);
    let token = shard.send(Query::Request(request("elsewhere")));
    assert_eq!(
        shard.answer(token),
        Answer::Failed(StoreError::unavailable("the fleet's store is closed"))
    );
}
