//! `kill -9` at any instant: what was reported `Stored`, or shown as an event, is there afterwards, exactly once.
//!
//! The test runs itself again as the process to be killed. What a commit says follows from its source and number, so
//! that everything can be checked from the watermarks alone.

use crate::support::*;
use dispatchd::cold::{Answer, Commit, FromStore, Query, Source, Store, StoreConfig};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const DIR: &str = "DISPATCHD_TEST_STORE_KILL_DIR";
/// Commits per turn and shard at most.
const COMMITS: &str = "DISPATCHD_TEST_STORE_KILL_COMMITS";
const SHARDS: u16 = 3;

fn commit(source: Source, lsn: u64) -> Commit {
    let id = format!("r-{}-{}-{lsn}", source.incarnation, source.shard);
    cycle(source, lsn, &id, &driver(&format!("d-{}", lsn % 7)), START_MS + lsn)
}

/// Settings that make partitions come and go within a run.
fn config(dir: &Path) -> StoreConfig {
    let mut config = StoreConfig::new(dir);
    config.surroundings.now_ms = std::sync::Arc::new(|| START_MS);
    config.disk_reserve_bytes = 0;
    config
}

/// The process to be killed; does nothing in an ordinary run.
#[test]
fn victim() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let store = Store::open(dir, config(dir)).unwrap();
    let mut shard = Shard::attach(&store);
    let sources: Vec<Source> = (0..SHARDS).map(|number| source(1, number)).collect();
    // As after a recovery: from somewhat before what is stored.
    let mut next: BTreeMap<Source, u64> = sources
        .iter()
        .map(|source| (*source, store.watermark(*source).saturating_sub(5) + 1))
        .collect();
    let most: u64 = std::env::var(COMMITS).unwrap().parse().unwrap();
    let mut out = std::io::stdout().lock();
    let mut events = shard.send(events_query(Some(0), 30_000, 100, None));
    for turn in 0_u64.. {
        // What is stored is all that the check sees: no use in feeding far ahead of it.
        let has_room = shard.handle.backlog() < 20_000;
        for source in sources.iter().filter(|_| has_room) {
            let lsn = next.get_mut(source).unwrap();
            let count = 1 + (turn * 7 + u64::from(source.shard)) % most;
            let commits: Vec<Commit> = (*lsn..*lsn + count).map(|lsn| commit(*source, lsn)).collect();
            *lsn += count;
            shard.commit(commits);
        }
        match shard.next() {
            FromStore::Stored { source, through } => writeln!(out, "\nstored {} {through}", source.shard).unwrap(),
            FromStore::Answer { token, answer } => {
                assert_eq!(token, events);
                let page = page_of(answer);
                for (cursor, event) in &page {
                    writeln!(out, "\nevent {cursor} {}", event.request_id).unwrap();
                }
                let after = page.last().map(|(cursor, _)| *cursor);
                events = shard.send(events_query(after, 30_000, 100, None));
            }
        }
        out.flush().unwrap();
    }
}

/// What the victim said before it died.
#[derive(Default)]
struct Said {
    stored: BTreeMap<u16, u64>,
    events: BTreeMap<u64, String>,
}

fn run_and_kill(dir: &Path, commits: u64, lines_max: usize) -> Said {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::victim", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(COMMITS, commits.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = Said::default();
    let mut lines = 0;
    for line in BufReader::new(victim.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["stored", shard, through] => {
                said.stored.insert(shard.parse().unwrap(), through.parse().unwrap());
            }
            ["event", cursor, request_id] => {
                said.events.insert(cursor.parse().unwrap(), request_id.to_owned());
            }
            _ => continue,
        }
        lines += 1;
        if lines == lines_max {
            // SIGKILL; what is left in the pipe was said before and counts.
            victim.kill().unwrap();
        }
    }
    victim.wait().unwrap();
    assert!(lines >= lines_max, "the victim ended by itself");
    said
}

fn check(dir: &Path, said: &Said) {
    let store = Store::open(dir, config(dir)).unwrap();
    let mut shard = Shard::attach(&store);
    let events = all_events(&mut shard, 0);
    assert!(events.iter().map(|(cursor, _)| *cursor).eq(1..=events.len() as u64));
    for (cursor, request_id) in &said.events {
        let (_, event) = &events[*cursor as usize - 1];
        assert_eq!(
            event.request_id.as_str(),
            request_id,
            "the event at {cursor} was shown and has changed"
        );
    }
    for number in 0..SHARDS {
        let source = source(1, number);
        let watermark = store.watermark(source);
        assert!(
            watermark >= said.stored.get(&number).copied().unwrap_or(0),
            "stored is lost"
        );
        let prefix = format!("r-1-{number}-");
        let of_source = events
            .iter()
            .filter(|(_, event)| event.request_id.as_str().starts_with(&prefix));
        let expect: Vec<_> = (1..=watermark).flat_map(|lsn| commit(source, lsn).published).collect();
        assert!(
            of_source.map(|(_, event)| event).eq(&expect),
            "each event once, in order"
        );
        for lsn in (1..=watermark + 1).rev().take(300) {
            let ended = commit(source, lsn).ended.filter(|_| lsn <= watermark);
            let found = shard.ask(Query::Request(request(&format!("{prefix}{lsn}"))));
            assert_eq!(found, Answer::Request(ended.map(Box::new)), "{prefix}{lsn}");
        }
    }
    check_rows(&store, &mut shard);
}

fn check_rows(store: &Store, shard: &mut Shard) {
    let mut found = BTreeMap::new();
    for number in 0..7 {
        let who = driver(&format!("d-{number}"));
        let mut before = None;
        loop {
            let (rows, next) = rows_of(shard.ask(records_query(&who, START_MS, 1_000, before)));
            for row in rows {
                let of = row.request_id.as_str().rsplit_once('-').unwrap().0.to_owned();
                *found.entry(of).or_insert(0_u64) += 1;
            }
            before = next;
            if before.is_none() {
                break;
            }
        }
    }
    for (source, watermark) in store.watermarks() {
        assert_eq!(found[&format!("r-1-{}", source.shard)], watermark, "one row per commit");
    }
}

#[test]
fn nothing_that_was_reported_is_lost_by_kill_9() {
    let world = World::new();
    for kill in 0..12 {
        let said = run_and_kill(&world.path(), 20, 1 + kill * 90);
        check(&world.path(), &said);
    }
}

/// The same with so much data that the engine flushes, compacts and changes its journals all the time.
#[test]
#[ignore = "takes a minute: ./test --long"]
fn nothing_that_was_reported_is_lost_by_kill_9_under_load() {
    let world = World::new();
    for kill in 0..8 {
        let said = run_and_kill(&world.path(), 3_000, 1_500 + kill * 500);
        check(&world.path(), &said);
        println!(
            "kill {kill}: {} events shown, {:?} stored",
            said.events.len(),
            said.stored
        );
    }
}
