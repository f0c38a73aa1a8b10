//! The store's threads go behind the shards once the node serves, and not while its start waits for them. A program of its
//! own, since it looks at the threads of the whole process.

use crossbeam::channel::{Receiver, bounded};
use dispatchd::cold::{Commit, FromStore, Source, Store, StoreConfig, StoreHandle};
use rustix::process::{Pid, getpriority_process};
use std::fs;
use std::time::{Duration, Instant};

/// A store that does not answer in this time hangs.
const HANG: Duration = Duration::from_secs(60);
/// The store's threads, and the engine's.
const NAMES: [&str; 4] = ["store-writer", "fjall:worker", "store-lookup", "store-pages"];

/// How much nicer than this one the thread of each name is.
fn niceness() -> [Option<i32>; 4] {
    let own = getpriority_process(None).expect("a priority");
    let mut found = [None; 4];
    for task in fs::read_dir("/proc/self/task").expect("the threads") {
        let task = task.expect("a thread");
        // One of the test's own may have ended meanwhile.
        let Ok(name) = fs::read_to_string(task.path().join("comm")) else {
            continue;
        };
        if let Some(index) = NAMES.iter().position(|known| *known == name.trim_end()) {
            let id = task.file_name().to_string_lossy().parse().expect("a number");
            found[index] = Some(getpriority_process(Pid::from_raw(id)).expect("a priority") - own);
        }
    }
    found
}

/// Waits until every thread has its name, which it gives itself when it begins.
fn until_named() {
    let began = Instant::now();
    while niceness().contains(&None) {
        assert!(began.elapsed() < HANG, "a thread never began: {:?}", niceness());
        std::thread::yield_now();
    }
}

/// Stores one more commit and waits for it: everything that was sent to the writer before has been looked at.
fn store_one(handle: &StoreHandle, woken: &Receiver<()>, lsn: u64) {
    let source = Source {
        incarnation: 1,
        shard: 0,
    };
    handle
        .try_commit(vec![Commit::empty(source, lsn)])
        .expect("it is taken");
    let mut heard = Vec::new();
    loop {
        handle.poll(&mut heard);
        if heard
            .drain(..)
            .any(|message| matches!(message, FromStore::Stored { through, .. } if through >= lsn))
        {
            return;
        }
        woken.recv_timeout(HANG).expect("the store hangs");
    }
}

#[test]
fn the_store_goes_behind_the_shards_when_the_start_is_over() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&dir.path().join("store"), StoreConfig::new(dir.path())).expect("a store");
    let (wake, woken) = bounded(1);
    let handle = store.attach(0, Box::new(move || wake.try_send(()).unwrap_or_default()));
    store_one(&handle, &woken, 1);
    until_named();
    assert_eq!(niceness(), [Some(0); 4], "a start waits for them");
    store.forget_sources_before(1);
    store_one(&handle, &woken, 2);
    let behind = niceness();
    // `NICE_OF_COLD`; at 19 nobody can be nicer.
    let most = 19 - getpriority_process(None).expect("a priority");
    let expect = Some(most.min(5));
    assert_eq!(behind, [expect, expect, Some(0), Some(0)], "offers wait for lookups");
    store.forget_sources_before(1);
    store_one(&handle, &woken, 3);
    assert_eq!(niceness(), behind, "once");
}
