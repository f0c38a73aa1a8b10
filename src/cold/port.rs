//! The store port: what shards and a store say to each other. Data only.
//!
//! Invariants worth naming:
//! - A shard sends a [`Commit`] only after its own journal has it durably, and in `lsn` order per [`Source`]. A store
//!   remembers, atomically with the data, the highest `lsn` of every source: a commit that comes again changes nothing.
//! - [`FromStore::Stored`] is sent when everything up to that `lsn` is durable in the store (after its `fsync`), never
//!   before: journal segments and finished actors may go then.
//! - Cursors of events are given by the store, from 1, without gaps, over all sources, in the order in which one shard
//!   sent them. An event is shown to a reader only when it is durable.

use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::{Published, PublishedKind, RecordRow, RequestLog, Step, UnixMs};
use compact_str::CompactString;
use rkyv::{Archive, Deserialize, Serialize};

/// Longest name of an event consumer, in bytes. Its alphabet is that of ids.
pub const CONSUMER_LEN_MAX: usize = 64;
/// Most rows in one [`RecordsPage`]; a greater `limit` is cut to this.
pub const RECORDS_PAGE_ROWS_MAX: u32 = 1_000;
/// Most events in one [`EventsPage`]; a greater `limit` is cut to this.
pub const EVENTS_PAGE_EVENTS_MAX: u32 = 10_000;
/// A page of events ends after the event that takes it over this many stored bytes.
pub const EVENTS_PAGE_BYTES_MAX: usize = 1 << 20;
/// Longest wait of an [`Query::Events`]; a greater `wait_ms` is cut to this.
pub const EVENTS_WAIT_MS_MAX: u32 = 60_000;

/// Whose numbers `lsn` are: one shard's journal within one boot of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Boot number of the node, from 1.
    pub incarnation: u64,
    /// Shard within that boot.
    pub shard: u16,
}

/// What one journal record changes in the store. `lsn` grows per source; records without consequences need no commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Whose journal.
    pub source: Source,
    /// The record's number in that journal, from 1.
    pub lsn: u64,
    /// Events for `GET /v1/events`, in order.
    pub published: Vec<Published>,
    /// Outcomes of attempts for the drivers' dispatch records.
    pub rows: Vec<RecordRow>,
    /// A request that nothing can change any more.
    pub ended: Option<EndedRequest>,
    /// A driver that was seen, and when.
    pub driver_seen: Option<(DriverId, UnixMs)>,
    /// A driver that went off shift on purpose (`true`) or came back (`false`), and when. The last one fed wins,
    /// whatever its time: clocks are set back, feeds come in order.
    pub off_shift: Option<(DriverId, UnixMs, bool)>,
}

impl Commit {
    /// A commit without consequences, to be filled in.
    pub const fn empty(source: Source, lsn: u64) -> Self {
        Self {
            source,
            lsn,
            published: Vec::new(),
            rows: Vec::new(),
            ended: None,
            driver_seen: None,
            off_shift: None,
        }
    }

    /// Whether it has no consequences: nobody tells the store of it.
    pub fn is_empty(&self) -> bool {
        *self == Self::empty(self.source, self.lsn)
    }

    /// About how many bytes of callers' text are in it: what makes one commit a hundred times larger than another.
    pub(crate) fn bulk_bytes(&self) -> usize {
        let published = self.published.iter().map(|published| match &published.kind {
            PublishedKind::RedispatchRequested { trip, .. } | PublishedKind::TripCreated { trip, .. } => trip.len(),
            PublishedKind::RequestCancelled { reason } => reason.as_ref().map_or(0, |reason| reason.len()),
            PublishedKind::RequestUnfulfilled { .. }
            | PublishedKind::TripPickedUp { .. }
            | PublishedKind::TripEnded { .. } => 0,
        });
        let steps = self
            .ended
            .iter()
            .flat_map(|ended| &ended.log.log)
            .map(|entry| match &entry.step {
                Step::Received { trip, .. } => trip.len(),
                Step::Declined { reason, .. } | Step::TripEnded { reason, .. } | Step::Cancelled { reason } => {
                    reason.as_ref().map_or(0, |reason| reason.len())
                }
                _ => 0,
            });
        published.chain(steps).sum()
    }
}

/// The whole life of a request that nothing can change any more.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(attr(allow(missing_docs)))]
pub struct EndedRequest {
    /// Every step, oldest first.
    pub log: RequestLog,
    /// Its trip, when it was accepted.
    pub trip_id: Option<TripId>,
    /// When its last step was decided.
    pub ended_at_ms: UnixMs,
}

/// A request as the fleet's store has it, open or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarRequest {
    /// Every step that was decided, and the receipts that were kept, oldest first.
    pub log: RequestLog,
    /// Which node made them: the first of its steps, counted from 0, and its name; the first begins at 0.
    pub nodes: Vec<(usize, CompactString)>,
    /// Its owner: the node that decides, or that decided last.
    pub owner: CompactString,
    /// Its trip, when it was accepted.
    pub trip_id: Option<TripId>,
    /// Since when nothing can change any more; `None`: it is open.
    pub ended_at_ms: Option<UnixMs>,
}

/// A question to the store. Its answer comes as [`FromStore::Answer`] with the same token.
///
/// `Records`, `Events` and `AckEvents` see everything that the same shard committed before asking. `Request`, `Trip`
/// and `Driver` go past the write queue, so that the check of a new request id is cheap: they surely see what was
/// reported [`FromStore::Stored`], and until then the shard still has it in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// An ended request: audit, state, idempotency. Most ids asked for are missing.
    Request(RequestId),
    /// The ended request that has this trip.
    Trip(TripId),
    /// What is known of a driver across restarts.
    Driver(DriverId),
    /// A driver's dispatch records of one UTC day, newest first.
    Records {
        /// Whose.
        driver_id: DriverId,
        /// UTC day of `offer_sent_at_ms`.
        date: jiff::civil::Date,
        /// Most rows, 1–[`RECORDS_PAGE_ROWS_MAX`].
        limit: u32,
        /// `next_before` of the page before.
        before: Option<String>,
    },
    /// Events in cursor order.
    Events {
        /// Only events with a greater cursor. Without it: from the consumer's acknowledgement, and without a consumer
        /// from the oldest kept.
        after: Option<u64>,
        /// How long to wait when there is none yet, 0–[`EVENTS_WAIT_MS_MAX`].
        wait_ms: u32,
        /// Most events, 1–[`EVENTS_PAGE_EVENTS_MAX`].
        limit: u32,
        /// Who reads; a name that is new is remembered, and events are kept for it from then on.
        consumer: Option<CompactString>,
    },
    /// Everything up to `cursor` has been dealt with by `consumer`. An older cursor than the last is ignored, one
    /// beyond the newest event counts as the newest. Durable before the answer.
    AckEvents {
        /// Who.
        consumer: CompactString,
        /// Last event dealt with.
        cursor: u64,
    },
}

/// The answer to a [`Query`], in the order of its variants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Request`]; `None`: never ended here, or older than the retention.
    Request(Option<Box<EndedRequest>>),
    /// To [`Query::Request`], in a fleet: what all nodes' store has of it.
    RequestElsewhere(Box<FarRequest>),
    /// To [`Query::Trip`].
    Trip(Option<Box<EndedRequest>>),
    /// To [`Query::Driver`]; `None`: never seen.
    Driver(Option<DriverRecord>),
    /// To [`Query::Records`].
    Records(RecordsPage),
    /// To [`Query::Events`]; empty when the time is up.
    Events(EventsPage),
    /// To [`Query::AckEvents`]: the consumer's acknowledgement as it now stands.
    EventsAcked {
        /// Last event dealt with, after this and all earlier acknowledgements.
        cursor: u64,
    },
    /// To any of them.
    Failed(StoreError),
}

/// What the store knows of a driver.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(attr(allow(missing_docs)))]
pub struct DriverRecord {
    /// First time this node's data has the driver.
    pub first_seen_ms: UnixMs,
    /// Last time that was committed (shards commit first sights and shift changes, not heartbeats).
    pub last_seen_ms: UnixMs,
    /// Since when the driver is off shift on purpose; `None` when it is not.
    pub off_shift_since: Option<UnixMs>,
    /// When it last went off or on shift; 0 when never.
    pub shift_changed_ms: UnixMs,
}

/// Rows of a driver's day, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordsPage {
    /// In the order of `offer_sent_at_ms`, newest first.
    pub rows: Vec<RecordRow>,
    /// In a fleet the node of each row, in the same order. Empty: this node has them all.
    pub nodes: Vec<CompactString>,
    /// Give this as `before` for the next page; `None` when there are no more rows.
    pub next_before: Option<String>,
}

/// Events with their cursors, ascending without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsPage {
    /// Cursor and event.
    pub events: Vec<(u64, Published)>,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The query cannot be right (a `before` that is no `next_before`, too many consumers).
    Caller,
    /// The store cannot do it now, or is damaged.
    Store,
}

/// Why a query or an opening failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// Whose fault.
    pub fault: Fault,
    /// Whether the same may work later.
    pub retry: bool,
    /// For the log and the caller; names no file.
    pub message: String,
}

impl StoreError {
    /// The caller's fault; repeating it will not help.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self {
            fault: Fault::Caller,
            retry: false,
            message: message.into(),
        }
    }

    /// The store cannot do it now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            fault: Fault::Store,
            retry: true,
            message: message.into(),
        }
    }

    /// The store is damaged or of another format; repeating it will not help.
    pub fn broken(message: impl Into<String>) -> Self {
        Self {
            fault: Fault::Store,
            retry: false,
            message: message.into(),
        }
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}

/// What comes back to a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromStore {
    /// Every commit of `source` up to `through` is durable in the store.
    Stored {
        /// Whose.
        source: Source,
        /// The last `lsn` that is durable.
        through: u64,
    },
    /// The answer to the query with this token.
    Answer {
        /// As given to the query.
        token: u64,
        /// The answer.
        answer: Answer,
    },
}
