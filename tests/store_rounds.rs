//! The store's writer sleeps between its rounds, whatever comes meanwhile. A program of its own, since it looks at a thread of the whole
//! process.

use crossbeam::channel::bounded;
use dispatchd::cold::{Commit, FromStore, Source, Store, StoreConfig};
use std::fs;
use std::time::{Duration, Instant};

/// A store that does not answer in this time hangs.
const HANG: Duration = Duration::from_secs(60);
/// Commits, one by one.
const COMMITS: u64 = 4_000;
/// Time between two of them: far less than between two rounds.
const PAUSE: Duration = Duration::from_micros(20);
/// Sleeps that a round may take: until it is due, and for the disk.
const SLEEPS_PER_ROUND: u64 = 8;
/// Sleeps that a slow disk may add.
const SLEEPS_MIN: u64 = COMMITS / 4;
/// Least time between the starts of two rounds (`ROUND_SPACING_MIN`).
const SPACING: Duration = Duration::from_millis(4);

/// How often the writer's thread has gone to sleep.
fn sleeps_of_writer() -> u64 {
    let writer = fs::read_dir("/proc/self/task").expect("the threads").find_map(|task| {
        let path = task.expect("a thread").path();
        let name = fs::read_to_string(path.join("comm")).ok()?;
        (name.trim_end() == "store-writer").then_some(path)
    });
    let status = fs::read_to_string(writer.expect("a writer").join("status")).expect("its status");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("a count").trim().parse().expect("a number")
}

#[test]
fn commits_that_wait_for_a_round_do_not_wake_the_writer() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&dir.path().join("store"), StoreConfig::new(dir.path())).expect("a store");
    let (wake, woken) = bounded(1);
    let handle = store.attach(0, Box::new(move || wake.try_send(()).unwrap_or_default()));
    let source = Source {
        incarnation: 1,
        shard: 0,
    };
    let (mut heard, mut rounds, mut stored) = (Vec::new(), 0, 0);
    let mut hear = |stored: &mut u64| {
        handle.poll(&mut heard);
        for message in heard.drain(..) {
            if let FromStore::Stored { through, .. } = message {
                rounds += 1;
                *stored = through;
            }
        }
    };
    let began = Instant::now();
    for lsn in 1..=COMMITS {
        let mut commits = vec![Commit::empty(source, lsn)];
        while let Err(refused) = handle.try_commit(commits) {
            commits = refused;
            woken.recv_timeout(HANG).expect("the store hangs");
            hear(&mut stored);
        }
        hear(&mut stored);
        std::thread::sleep(PAUSE);
    }
    while stored < COMMITS {
        woken.recv_timeout(HANG).expect("the store hangs");
        hear(&mut stored);
    }
    let most = u64::try_from(began.elapsed().as_micros() / SPACING.as_micros()).expect("a test that ends") + 1;
    assert!(
        rounds <= most,
        "{rounds} rounds, {most} of them are due in that time at most"
    );
    let sleeps = sleeps_of_writer();
    assert!(
        sleeps <= SLEEPS_MIN.max(SLEEPS_PER_ROUND * (rounds + 1)),
        "{sleeps} sleeps in {rounds} rounds of {COMMITS} commits"
    );
}
