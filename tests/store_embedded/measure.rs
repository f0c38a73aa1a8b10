//! Figures, not checks: `cargo test --release --test store_embedded measure -- --ignored --nocapture --test-threads=1`.

use crate::support::*;
use dispatchd::cold::{Answer, Commit, FromStore, Query, Store};
use std::time::{Duration, Instant};

fn seconds_of(clock: rustix::time::ClockId) -> f64 {
    let time = rustix::time::clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// CPU seconds of this process so far: the store's threads, and this one's feeding.
fn cpu() -> f64 {
    seconds_of(rustix::time::ClockId::ProcessCPUTime)
}

fn cpu_of_this_thread() -> f64 {
    seconds_of(rustix::time::ClockId::ThreadCPUTime)
}

fn life(lsn: u64) -> Commit {
    // Ids without an order, as callers make them.
    let id = format!("{:016x}-{lsn:08x}", lsn.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    cycle(
        source(1, 0),
        lsn,
        &id,
        &driver(&format!("driver-{}", lsn % 10_000)),
        START_MS + lsn / 10,
    )
}

struct Fed {
    wall: Duration,
    /// CPU seconds, without building the commits.
    cpu: f64,
}

/// Feeds commits `first..=last`; at most `ahead` of them not yet stored; `per_second` at most.
fn feed(shard: &mut Shard, first: u64, last: u64, ahead: u64, per_second: Option<u64>) -> Fed {
    let (start, cpu_before, mut building) = (Instant::now(), cpu(), 0.0);
    let (mut next, mut stored) = (first, first - 1);
    while stored < last {
        while next <= last && next - stored <= ahead {
            if let Some(rate) = per_second {
                let due = Duration::from_nanos((next - first) * 1_000_000_000 / rate);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
            }
            let before = cpu_of_this_thread();
            let commits = (next..=last.min(next + if per_second.is_some() { 9 } else { 99 }))
                .map(life)
                .collect::<Vec<_>>();
            building += cpu_of_this_thread() - before;
            next += commits.len() as u64;
            shard.commit(commits);
            while let Some(FromStore::Stored { through, .. }) = shard.try_next() {
                stored = through;
            }
        }
        let must_wait = stored < last && (next > last || next - stored > ahead);
        if must_wait && let FromStore::Stored { through, .. } = shard.next() {
            stored = through;
        }
    }
    Fed {
        wall: start.elapsed(),
        cpu: cpu() - cpu_before - building,
    }
}

fn report(what: &str, store: &Store, commits: u64, batches_before: u64, fed: &Fed) {
    let batches = store.metrics().batches.get() - batches_before;
    let seconds = fed.wall.as_secs_f64();
    println!(
        "{what}: {:.0} commits/s, {:.1} us CPU per commit, {:.0} batches/s of {:.0} commits",
        commits as f64 / seconds,
        fed.cpu * 1e6 / commits as f64,
        batches as f64 / seconds,
        commits as f64 / batches as f64,
    );
}

fn lookups(shard: &mut Shard, what: &str, in_flight: u64, key: impl Fn(u64) -> String, found: bool) {
    let total = 300_000;
    let (start, cpu_before) = (Instant::now(), cpu());
    let (mut asked, mut answered) = (0, 0);
    while answered < total {
        while asked < total && asked - answered < in_flight {
            shard.send(Query::Request(request(&key(asked))));
            asked += 1;
        }
        if let FromStore::Answer { answer, .. } = shard.next() {
            assert_eq!(matches!(answer, Answer::Request(Some(_))), found);
            answered += 1;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let cpu = cpu() - cpu_before;
    println!(
        "{what}, {in_flight} in flight: {:.0} lookups/s, {:.1} us CPU each",
        total as f64 / seconds,
        cpu * 1e6 / total as f64
    );
}

#[test]
#[ignore = "a measurement: ./test --long"]
fn writer_and_lookups_with_a_million_ended_requests() {
    let mut world = World::new();
    world.config.events_bytes_max = 4 << 30;
    let store = world.open();
    let mut shard = Shard::attach(&store);
    let batches = |store: &Store| store.metrics().batches.get();
    for (rate, commits) in [(2_000, 20_000), (10_000, 200_000)] {
        let before = batches(&store);
        let first = store.watermark(source(1, 0)) + 1;
        let fed = feed(&mut shard, first, first + commits - 1, 20_000, Some(rate));
        report(&format!("at {rate}/s"), &store, commits, before, &fed);
        threads();
    }
    let (first, before) = (store.watermark(source(1, 0)) + 1, batches(&store));
    let fed = feed(&mut shard, first, 1_000_000, 20_000, None);
    report("saturated", &store, 1_000_001 - first, before, &fed);
    threads();
    for in_flight in [1, 64, 1_000] {
        lookups(
            &mut shard,
            "missing id",
            in_flight,
            |at| format!("{at:08x}-missing"),
            false,
        );
    }
    let known = |at: u64| life(1 + at * 3).ended.unwrap().log.request_id.to_string();
    lookups(&mut shard, "known id", 64, known, true);
    let disk: u64 = walk(&world.path());
    println!("on disk: {} MB, {} files", disk >> 20, count_files(&world.path()));
    let start = Instant::now();
    drop(shard);
    store.shutdown().unwrap();
    println!("shutdown: {:?}", start.elapsed());
    let start = Instant::now();
    let store = world.open();
    println!("open: {:?}", start.elapsed());
    let mut shard = Shard::attach(&store);
    lookups(
        &mut shard,
        "missing id after reopening",
        64,
        |at| format!("{at:08x}-missing"),
        false,
    );
}

/// The cost of more spans: an id that never ended is looked for in each.
#[test]
#[ignore = "a measurement: ./test --long"]
fn missing_ids_with_a_million_ended_requests_in_five_spans() {
    let world = World::new();
    let store = world.open();
    let mut shard = Shard::attach(&store);
    for span in 0..5_u64 {
        let commits = 200_000;
        for first in (0..commits).step_by(1_000) {
            let life = |at: u64| {
                let lsn = span * commits + first + at + 1;
                let mut commit = life(lsn);
                commit.rows.clear();
                commit.published.clear();
                commit.ended.as_mut().unwrap().ended_at_ms = START_MS - 29 * DAY_MS + span * 7 * DAY_MS;
                commit
            };
            shard.store((0..1_000).map(life).collect());
        }
    }
    for in_flight in [1, 64, 1_000] {
        lookups(
            &mut shard,
            "missing id in five spans",
            in_flight,
            |at| format!("{at:08x}-missing"),
            false,
        );
    }
}

fn walk(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                walk(&entry.path())
            } else {
                std::os::unix::fs::MetadataExt::blocks(&meta) * 512
            }
        })
        .sum()
}

fn count_files(dir: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            if entry.path().is_dir() {
                count_files(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

/// CPU of each thread so far, in clock ticks of 10 ms: user, system.
fn threads() {
    for task in std::fs::read_dir("/proc/self/task").unwrap().map(Result::unwrap) {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
        let (name, rest) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = rest.split_whitespace().collect();
        println!(
            "    {:20} {:>6} {:>6}",
            name.split_once('(').unwrap().1,
            fields[11],
            fields[12]
        );
    }
}
