//! Messages of the store's port without their contents.

/// One shard's journal.
pub type Source = u16;

/// A commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit;

/// A question; what is asked decides its way.
#[derive(Clone, Copy, Debug)]
pub enum Query {
    /// Past the queue.
    Request(u32),
    /// Past the queue.
    Trip(u32),
    /// Past the queue.
    Driver(u32),
    /// After the commits before it.
    Events,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer;

/// What a shard finds in its inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FromStore {
    /// To a query.
    Answer {
        /// The query's.
        token: u64,
        /// The answer.
        answer: Answer,
    },
    /// Commits are stored.
    Stored {
        /// Whose.
        source: Source,
        /// Up to this one.
        through: u64,
    },
}
