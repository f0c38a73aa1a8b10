//! A shard's end of the store port: a bounded way in and an inbox with a waker, without waiting on either side.
//!
//! Bounds: at most [`HANDLE_COMMITS_MAX`] commits not yet stored and [`HANDLE_QUERIES_MAX`] queries not yet answered per
//! shard. The inbox needs no bound of its own: it holds at most one answer per query and one `Stored` per round that
//! took commits from this shard.

use super::port::{Answer, Commit, FromStore, Query};
use crate::sync::Arc;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::channel::{Receiver, Sender, unbounded};
use crate::wake::WakeFlag;

/// Most commits of one shard that wait in the store.
pub const HANDLE_COMMITS_MAX: usize = 65_536;
/// Most queries of one shard that wait for an answer, long polls included.
pub const HANDLE_QUERIES_MAX: usize = 4_096;

/// Called by the store after it put something into the shard's inbox; must not block.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// Whether the store surely keeps no request whose id has this hash; must not block.
pub type SurelyLacks = std::sync::Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// The queue is full (or the store has shut down): nothing was taken; try again after the next [`FromStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl std::fmt::Display for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the store's queue is full")
    }
}

impl std::error::Error for Full {}

/// What a store's threads receive. Commits and ordered queries share one channel, so that a query sees what the same
/// shard committed before it.
pub enum ToStore {
    /// Commits of one shard, in order.
    Commits(Arc<Inbox>, Vec<Commit>),
    /// A query that must see the commits before it.
    Query(Ask),
    /// Nobody waits any more for the answer to this shard's query of that token: answer it with what there is.
    EndWait(Arc<Inbox>, u64),
    /// Forget watermarks of boots before this one.
    ForgetBefore(u64),
    /// Flush and end.
    Shutdown,
}

/// What the lookup thread receives.
pub enum ToLookup {
    /// A point query.
    Ask(Ask),
    /// End.
    Shutdown,
}

/// A query and where its answer goes.
pub struct Ask {
    /// Where.
    pub inbox: Arc<Inbox>,
    /// Comes back with the answer.
    pub token: u64,
    /// The question.
    pub query: Query,
}

/// The store's end of a shard's inbox.
pub struct Inbox {
    sender: Sender<FromStore>,
    waker: Waker,
    /// Whether the waker has been called since the shard last polled.
    woken: WakeFlag,
    commits_waiting: AtomicUsize,
    queries_waiting: AtomicUsize,
}

impl Inbox {
    /// Puts `message` in and wakes the shard, once between two polls.
    fn send(&self, message: FromStore) {
        // A shard that is gone needs no answers.
        if self.sender.send(message).is_ok() && self.woken.raise() {
            (self.waker)();
        }
    }

    /// Answers a query of this shard.
    ///
    /// # Panics
    /// When the shard waits for no answer: the store's bug.
    pub fn answer(&self, token: u64, answer: Answer) {
        let before = self.queries_waiting.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "an answer without a query");
        self.send(FromStore::Answer { token, answer });
    }

    /// `count` commits of this shard have left the queue.
    ///
    /// # Panics
    /// When there were not so many: the store's bug.
    pub fn release(&self, count: usize) {
        let before = self.commits_waiting.fetch_sub(count, Ordering::AcqRel);
        assert!(before >= count, "more commits released than taken");
    }

    /// Reports durability.
    pub fn stored(&self, source: super::port::Source, through: u64) {
        self.send(FromStore::Stored { source, through });
    }
}

/// One shard's way to the store. Clones share bounds and inbox; only one of them should poll.
#[derive(Clone)]
pub struct StoreHandle {
    inbox: Arc<Inbox>,
    received: Receiver<FromStore>,
    writer: Sender<ToStore>,
    lookup: Sender<ToLookup>,
    /// None: the store is sure of nothing, and every id is asked for.
    surely_lacks: Option<SurelyLacks>,
}

impl StoreHandle {
    /// One shard's handle, made by the store that receives at the other ends of `writer` and `lookup`.
    pub fn new(writer: Sender<ToStore>, lookup: Sender<ToLookup>, waker: Waker) -> Self {
        let (sender, received) = unbounded();
        let inbox = Inbox {
            sender,
            waker,
            woken: WakeFlag::new(),
            commits_waiting: AtomicUsize::new(0),
            queries_waiting: AtomicUsize::new(0),
        };
        Self {
            inbox: Arc::new(inbox),
            received,
            writer,
            lookup,
            surely_lacks: None,
        }
    }

    /// The same handle, which knows of most new ids that they are new: see [`Self::surely_lacks`].
    #[must_use]
    pub fn with_surely_lacks(mut self, surely_lacks: SurelyLacks) -> Self {
        self.surely_lacks = Some(surely_lacks);
        self
    }

    /// Whether the store surely has no ended request whose id has this hash, so that asking it can be spared. Of an id that is
    /// in no shard's memory; false says nothing.
    pub fn surely_lacks(&self, request_hash: u64) -> bool {
        self.surely_lacks.as_ref().is_some_and(|lacks| lacks(request_hash))
    }

    /// Hands over commits that the shard's journal has durably, in `lsn` order per source.
    ///
    /// # Errors
    /// Gives all of them back when they would take the shard over [`HANDLE_COMMITS_MAX`], or when the store has shut
    /// down. A single call with more than that is taken when nothing else waits.
    pub fn try_commit(&self, commits: Vec<Commit>) -> Result<(), Vec<Commit>> {
        let count = commits.len();
        if count == 0 {
            return Ok(());
        }
        let waiting = &self.inbox.commits_waiting;
        let take = |now: usize| (now == 0 || now + count <= HANDLE_COMMITS_MAX).then_some(now + count);
        if waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_err() {
            return Err(commits);
        }
        match self.writer.send(ToStore::Commits(Arc::clone(&self.inbox), commits)) {
            Ok(()) => Ok(()),
            Err(refused) => {
                self.inbox.release(count);
                match refused.into_inner() {
                    ToStore::Commits(_, commits) => Err(commits),
                    ToStore::Query(_) | ToStore::EndWait(..) | ToStore::ForgetBefore(_) | ToStore::Shutdown => {
                        unreachable!("sent commits")
                    }
                }
            }
        }
    }

    /// Asks; the answer comes with the same `token`.
    ///
    /// # Errors
    /// [`Full`] when [`HANDLE_QUERIES_MAX`] queries of this shard wait already, or when the store has shut down.
    pub fn query(&self, token: u64, query: Query) -> Result<(), Full> {
        let waiting = &self.inbox.queries_waiting;
        let take = |now: usize| (now < HANDLE_QUERIES_MAX).then_some(now + 1);
        if waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_err() {
            return Err(Full);
        }
        let past_the_queue = matches!(query, Query::Request(_) | Query::Trip(_) | Query::Driver(_));
        let inbox = Arc::clone(&self.inbox);
        let ask = Ask { inbox, token, query };
        let sent = if past_the_queue {
            self.lookup.send(ToLookup::Ask(ask)).is_ok()
        } else {
            self.writer.send(ToStore::Query(ask)).is_ok()
        };
        if sent {
            return Ok(());
        }
        self.inbox.queries_waiting.fetch_sub(1, Ordering::AcqRel);
        Err(Full)
    }

    /// Ends the wait of a [`Query::Events`] that was asked with this token: it is answered now, with what there is. Of no
    /// effect on other queries, or when the answer is on its way.
    pub fn end_wait(&self, token: u64) {
        // A store that has shut down has answered everything.
        let _ = self.writer.send(ToStore::EndWait(Arc::clone(&self.inbox), token));
    }

    /// Takes everything out of the inbox, without waiting, and appends it to `out`.
    pub fn poll(&self, out: &mut Vec<FromStore>) {
        // First: whoever sends after this line wakes the shard again, and what was sent before it is seen below.
        self.inbox.woken.lower();
        out.extend(self.received.try_iter());
    }

    /// Commits of this shard that are not yet stored.
    pub fn backlog(&self) -> usize {
        self.inbox.commits_waiting.load(Ordering::Acquire)
    }
}
