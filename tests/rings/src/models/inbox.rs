//! Answers of the store's threads to a shard that sleeps.

use super::bell::Bell;
use super::check;
use crate::cold::handle::{Ask, HANDLE_COMMITS_MAX, StoreHandle, ToLookup, ToStore, Waker};
use crate::cold::port::{Answer, Commit, FromStore, Query};
use crate::sync::channel::unbounded;
use crate::wake::WakeFlag;
use loom::thread;
use std::sync::Arc;

/// A shard, as far as it can be woken: `net::Waker`'s flag, and behind that its eventfd.
struct Sleeper {
    pending: WakeFlag,
    bell: Bell,
}

impl Sleeper {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            pending: WakeFlag::new(),
            bell: Bell::new(),
        })
    }

    fn waker(self: &Arc<Self>) -> Waker {
        let shard = Arc::clone(self);
        Box::new(move || {
            if shard.pending.raise() {
                shard.bell.ring();
            }
        })
    }

    /// Turns until `count` messages are there, and sleeps between the looks.
    fn serve(&self, handle: &StoreHandle, count: usize) -> Vec<FromStore> {
        let mut heard = Vec::new();
        handle.poll(&mut heard);
        while heard.len() < count {
            self.bell.sleep();
            self.pending.lower();
            handle.poll(&mut heard);
        }
        heard
    }
}

fn answered(token: u64) -> FromStore {
    FromStore::Answer { token, answer: Answer }
}

/// One thread of the store answers twice.
///
/// # Panics
/// When it does not hold.
pub fn wakes_for_each_answer() {
    check("two answers", None, || {
        let ((writer, _), (lookup, asked)) = (unbounded::<ToStore>(), unbounded::<ToLookup>());
        let shard = Sleeper::new();
        let handle = StoreHandle::new(writer, lookup, shard.waker());
        for (token, query) in [(1, Query::Request(7)), (2, Query::Driver(8))] {
            assert!(handle.query(token, query).is_ok());
        }
        let store = thread::spawn(move || {
            for ask in asked.try_iter() {
                let ToLookup::Ask(Ask { inbox, token, .. }) = ask else {
                    panic!("nobody ends it")
                };
                inbox.answer(token, Answer);
            }
        });
        assert_eq!(shard.serve(&handle, 2), [answered(1), answered(2)]);
        store.join().expect("it ends");
    });
}

/// The store's writer and its lookup thread answer at the same time.
///
/// # Panics
/// When it does not hold.
pub fn wakes_for_each_thread() {
    check("two threads of the store", Some(3), || {
        let ((writer, written), (lookup, asked)) = (unbounded::<ToStore>(), unbounded::<ToLookup>());
        let shard = Sleeper::new();
        let handle = StoreHandle::new(writer, lookup, shard.waker());
        assert!(handle.query(1, Query::Trip(9)).is_ok());
        assert!(handle.query(2, Query::Events).is_ok());
        let lookup = thread::spawn(move || {
            let Some(ToLookup::Ask(ask)) = asked.try_iter().next() else {
                panic!("a query past the queue goes to the lookup thread")
            };
            ask.inbox.answer(ask.token, Answer);
        });
        let writer = thread::spawn(move || {
            let Some(ToStore::Query(ask)) = written.try_iter().next() else {
                panic!("an ordered query goes to the writer")
            };
            ask.inbox.answer(ask.token, Answer);
        });
        let heard = shard.serve(&handle, 2);
        assert!(heard == [answered(1), answered(2)] || heard == [answered(2), answered(1)]);
        lookup.join().expect("it ends");
        writer.join().expect("it ends");
    });
}

/// The store takes commits off the bound while the shard brings more: the bound holds, and at the end nothing waits.
///
/// # Panics
/// When it does not hold.
pub fn counts_what_waits() {
    check("commits and their bound", None, || {
        let ((writer, written), (lookup, _)) = (unbounded::<ToStore>(), unbounded::<ToLookup>());
        let shard = Sleeper::new();
        let handle = StoreHandle::new(writer, lookup, shard.waker());
        let take = move |received: &crate::sync::channel::Receiver<ToStore>| {
            for message in received.try_iter() {
                let ToStore::Commits(inbox, commits) = message else {
                    panic!("only commits were sent")
                };
                inbox.release(commits.len());
            }
        };
        assert!(handle.try_commit(vec![Commit; HANDLE_COMMITS_MAX - 2]).is_ok());
        let received = written.clone();
        let store = thread::spawn(move || take(&received));
        assert!(handle.try_commit(vec![Commit; 2]).is_ok());
        assert!(handle.backlog() <= HANDLE_COMMITS_MAX);
        store.join().expect("it ends");
        take(&written);
        assert_eq!(handle.backlog(), 0);
    });
}
