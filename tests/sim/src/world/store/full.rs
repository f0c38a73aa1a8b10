//! Queues of the store that are full: commits of nobody stand in them, through handles that count as the shards' own, so that the
//! real handle refuses what a shard has.

use dispatchd::cold::handle::{HANDLE_COMMITS_MAX, Inbox};
use dispatchd::cold::{Commit, Source, StoreHandle};
use std::sync::Arc;

/// Whose the commits are that only take room.
const NOBODY: Source = Source {
    incarnation: 0,
    shard: u16::MAX,
};

/// Whether these commits only take room. A shard's are never mixed with such.
pub(super) fn are_filler(commits: &[Commit]) -> bool {
    commits.first().is_some_and(|commit| commit.source == NOBODY)
}

/// See the module.
#[derive(Default)]
pub(super) struct Filler {
    handles: Vec<StoreHandle>,
    /// What takes room, and whose.
    taken: Vec<(Arc<Inbox>, usize)>,
    until_us: u64,
}

impl Filler {
    /// A shard has this handle.
    pub(super) fn attach(&mut self, handle: &StoreHandle) {
        self.handles.push(handle.clone());
    }

    /// How many queues there are.
    pub(super) fn shards(&self) -> usize {
        self.handles.len()
    }

    /// Fills the queue of a shard until then. What is put in must be taken out of the channel.
    pub(super) fn fill(&mut self, shard: usize, until_us: u64) {
        let handle = &self.handles[shard];
        let room = HANDLE_COMMITS_MAX.saturating_sub(handle.backlog());
        let refused = handle.try_commit(vec![Commit::empty(NOBODY, 0); room]);
        debug_assert!(refused.is_ok(), "there was room for so many");
        self.until_us = until_us;
    }

    /// What fills a queue has been taken out of the channel.
    pub(super) fn taken(&mut self, inbox: Arc<Inbox>, count: usize) {
        self.taken.push((inbox, count));
    }

    /// Whether there is to be room again.
    pub(super) fn is_over(&self, now_us: u64) -> bool {
        !self.taken.is_empty() && self.until_us <= now_us
    }

    /// There is room again, of which the shards hear.
    pub(super) fn make_room(&mut self) {
        for (inbox, count) in self.taken.drain(..) {
            inbox.release(count);
            inbox.stored(NOBODY, 0);
        }
    }
}
