//! A full disk stalls and loses nothing; what cannot be opened says why; queues are bounded.

use crate::support::*;
use dispatchd::cold::embedded::FORMAT_VERSION;
use dispatchd::cold::handle::HANDLE_COMMITS_MAX;
use dispatchd::cold::{Answer, Commit, Query};
use std::sync::atomic::Ordering;

#[test]
fn a_full_disk_stalls_and_loses_nothing() {
    let world = World::new();
    let store = world.open();
    let (mut shard, mut reader) = (Shard::attach(&store), Shard::attach(&store));
    shard.store(vec![event_commit(source(1, 0), 1, 2, START_MS)]);
    world
        .bytes_free
        .store(world.config.disk_reserve_bytes - 1, Ordering::SeqCst);
    shard.commit(vec![event_commit(source(1, 0), 2, 1, START_MS)]);
    let poll = reader.send(events_query(Some(2), 30_000, 9, None));
    // What must be written, or rests on what is not, is refused until the disk has room; what is durable is served.
    for query in [ack_query("engine", 1), records_query(&driver("d"), START_MS, 1, None)] {
        assert!(error_of(shard.ask(query)).retry);
    }
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 9, None))), [1, 2]);
    assert_eq!(shard.ask(Query::Request(request("r"))), Answer::Request(None));
    assert!(!store.health().is_healthy() && !store.health().fatal());
    assert!(store.health().last_error().unwrap().contains("disk is full"));
    assert_eq!((store.watermark(source(1, 0)), shard.handle.backlog()), (1, 1));
    // The queue fills, then hands back.
    let many = |first: u64, count: u64| -> Vec<Commit> {
        (first..first + count)
            .map(|lsn| event_commit(source(1, 0), lsn, 1, START_MS))
            .collect()
    };
    let rest = HANDLE_COMMITS_MAX as u64 - 1;
    shard.commit(many(3, rest));
    let refused = many(3 + rest, 2);
    assert_eq!(shard.handle.try_commit(refused.clone()), Err(refused.clone()));
    assert_eq!(shard.handle.backlog(), HANDLE_COMMITS_MAX);
    assert!(!reader.has_answer(poll));
    world
        .bytes_free
        .store(world.config.disk_reserve_bytes, Ordering::SeqCst);
    shard.wait_stored(source(1, 0), 2 + rest);
    assert!(store.health().is_healthy());
    shard.store(refused);
    assert_eq!(cursors_of(reader.answer(poll))[0], 3);
    assert_eq!(all_events(&mut shard, 0).len(), HANDLE_COMMITS_MAX + 4);
}

#[test]
fn a_shutdown_with_a_full_disk_says_what_is_not_stored() {
    let world = World::new();
    let store = world.open();
    let shard = Shard::attach(&store);
    world.bytes_free.store(0, Ordering::SeqCst);
    shard.commit(vec![event_commit(source(1, 0), 1, 1, START_MS)]);
    let error = store.shutdown().unwrap_err();
    assert!(error.retry && error.message.contains("1 commits"), "{error}");
    assert!(shard.handle.try_commit(vec![Commit::empty(source(1, 0), 2)]).is_err());
    assert!(shard.handle.query(1, Query::Request(request("r"))).is_err());
    world.bytes_free.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(world.open().watermark(source(1, 0)), 0);
}

#[test]
fn a_store_is_open_once() {
    let world = World::new();
    let store = world.open();
    let error = world.try_open().map(|_| ()).unwrap_err();
    assert!(error.retry, "{error}");
    drop(store);
    world.open().shutdown().unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let world = World::new();
    world.open().shutdown().unwrap();
    let put_format = |bytes: Option<u32>| {
        let db = fjall::Database::builder(world.path()).open().unwrap();
        let meta = db.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
        match bytes {
            Some(version) => meta.insert("f", version.to_be_bytes()).unwrap(),
            None => meta.remove("f").unwrap(),
        }
        db.persist(fjall::PersistMode::SyncAll).unwrap();
    };
    put_format(Some(FORMAT_VERSION + 1));
    let error = world.try_open().map(|_| ()).unwrap_err();
    assert!(!error.retry && error.message.contains("newer program"), "{error}");
    put_format(None);
    let error = world.try_open().map(|_| ()).unwrap_err();
    assert!(error.message.contains("no format version"), "{error}");
    put_format(Some(FORMAT_VERSION));
    world.open().shutdown().unwrap();
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let check = |name: &str, change: fn(&mut dispatchd::cold::StoreConfig)| {
        let mut world = World::new();
        change(&mut world.config);
        let error = world.try_open().map(|_| ()).unwrap_err();
        assert!(error.message.starts_with(name), "{error}");
        assert!(!world.path().exists());
    };
    check("records_retention_days", |config| config.records_retention_days = 0);
    check("records_retention_days", |config| config.records_retention_days = 3_651);
    check("idempotency_retention_days", |config| {
        config.idempotency_retention_days = 6;
    });
    check("events_retention_ms", |config| config.events_retention_ms = 0);
    check("events_bytes_max", |config| config.events_bytes_max = 1);
    check("store_cache_bytes", |config| config.cache_bytes = 1);
}

#[test]
fn events_that_are_missing_are_found_at_opening() {
    let world = World::new();
    {
        let store = world.open();
        Shard::attach(&store).store(vec![event_commit(source(1, 0), 1, 3, START_MS)]);
        store.shutdown().unwrap();
    }
    let change = |change: fn(&mut Vec<u8>)| {
        let db = fjall::Database::builder(world.path()).open().unwrap();
        let events = db.keyspace("events-1", fjall::KeyspaceCreateOptions::default).unwrap();
        let mut block = events.get(1_u64.to_be_bytes()).unwrap().unwrap().to_vec();
        change(&mut block);
        events.insert(1_u64.to_be_bytes(), block).unwrap();
        db.persist(fjall::PersistMode::SyncAll).unwrap();
    };
    change(|block| block.truncate(block.len() * 2 / 3));
    let error = world.try_open().map(|_| ()).unwrap_err();
    assert!(error.message.contains("not complete"), "{error}");
    change(|block| block.extend([0, 0, 0]));
    let error = world.try_open().map(|_| ()).unwrap_err();
    assert!(error.message.contains("damaged"), "{error}");
    // A value that is no event is found when it is read, and breaks nothing else.
    change(|block| {
        block.truncate(block.len() - 3);
        block.extend([0, 0, 0, 3, 1, 2, 3]);
    });
    let store = world.open();
    let mut shard = Shard::attach(&store);
    assert_eq!(cursors_of(shard.ask(events_query(None, 0, 2, None))), [1, 2]);
    assert!(!error_of(shard.ask(events_query(Some(2), 0, 2, None))).retry);
    assert!(!store.health().fatal());
}

/// The journal that the engine writes to.
fn journal(world: &World) -> std::path::PathBuf {
    world.path().join("0.jnl")
}

/// Where the batches of the journal end: behind each marker.
fn batch_ends(bytes: &[u8]) -> Vec<usize> {
    let windows = bytes.windows(4).enumerate();
    windows
        .filter(|(_, window)| window == b"FJL\x03")
        .map(|(at, _)| at + 4)
        .collect()
}

#[test]
fn a_batch_torn_by_a_power_loss_is_cut_and_an_older_damage_refused() {
    let world = World::new();
    {
        let store = world.open();
        let mut shard = Shard::attach(&store);
        for lsn in 1..=5 {
            shard.store(vec![cycle(
                source(1, 0),
                lsn,
                &format!("r-{lsn}"),
                &driver("d"),
                START_MS,
            )]);
        }
        store.shutdown().unwrap();
    }
    let whole = std::fs::read(journal(&world)).unwrap();
    let ends = batch_ends(&whole);
    let [.., before, last] = ends[..] else {
        panic!("{} batches", ends.len());
    };
    // A page of the last batch never reached the disk, though its end did.
    let mut torn = whole.clone();
    torn[before + 300..before + 500].fill(0);
    std::fs::write(journal(&world), &torn).unwrap();
    {
        let store = world.open();
        assert_eq!(
            store.watermark(source(1, 0)),
            4,
            "all of the torn batch is gone, and nothing else"
        );
        let mut shard = Shard::attach(&store);
        assert_eq!(all_events(&mut shard, 0).len(), 12);
        shard.store(vec![cycle(source(1, 0), 5, "r-5", &driver("d"), START_MS)]);
        assert_eq!(all_events(&mut shard, 0).len(), 15);
        store.shutdown().unwrap();
    }
    // The same hole one batch earlier: something stored lies behind it.
    let mut damaged = whole.clone();
    damaged[before - 300..before - 200].fill(0);
    assert_eq!(damaged[before..last], whole[before..last]);
    std::fs::write(journal(&world), &damaged).unwrap();
    let error = world.try_open().map(|_| ()).unwrap_err();
    assert!(!error.retry && error.message.contains("damaged"), "{error}");
    assert_eq!(std::fs::read(journal(&world)).unwrap(), damaged, "left as it was");
    std::fs::write(journal(&world), &whole).unwrap();
    assert_eq!(world.open().watermark(source(1, 0)), 5);
}

#[test]
fn a_directory_that_was_never_finished_is_made_again() {
    let world = World::new();
    for version in [None, Some("")] {
        std::fs::create_dir_all(world.path().join("keyspaces")).unwrap();
        std::fs::write(journal(&world), [0; 64]).unwrap();
        if let Some(version) = version {
            std::fs::write(world.path().join("version"), version).unwrap();
        }
        world.open().shutdown().unwrap();
        std::fs::remove_dir_all(world.path()).unwrap();
    }
}
