//! The keyspaces of the embedded store: which there are, how each is tuned, and how they come and go.
//!
//! Whatever grows with time is **partitioned by time and dropped whole**: dispatch records by UTC day, ended requests by
//! a span of days, events by cursor range. Retention then costs an `unlink`, never a scan, a tombstone or a compaction,
//! and gives the disk space back at once. What it costs instead is one filter probe per live span for an id that never
//! ended; spans are a quarter of the retention, so there are at most six (measured with a million ids, 64 lookups in
//! flight: 0.8 us of CPU for a missing id in one span, 3 us in five).
//!
//! Ended requests are key-value separated: their logs (about 1 KB each) are written once and never compacted; only keys
//! are.

use super::config::StoreConfig;
use super::keys;
use crate::cold::ended_ids::EndedIds;
use crate::cold::port::StoreError;
use fjall::compaction::Leveled;
use fjall::config::{BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// Version of keys and values; a change of either, or of a type that is encoded, needs a new one.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of all write-ahead journals, above which idle keyspaces are flushed; bounds the replay at opening.
const JOURNALS_BYTES_MAX: u64 = 192 << 20;
/// Bytes of a write buffer of the keyspaces that take every commit.
const BUFFER_BYTES: u64 = 16 << 20;
/// Bytes of a write buffer of the small ones, as the engine counts; the heap pays about half as much again, and twice that,
/// since the engine keeps the buffer that it flushed last until the next flush. A known driver is 110 of these bytes, and is to
/// stay in memory no longer than its record takes to fill one of these with others.
const BUFFER_SMALL_BYTES: u64 = 128 << 10;
/// Flushed buffers of the small ones that are merged with all that is there at once: as many bytes as the engine's own 4 are with buffers
/// twice as large, so that a million drivers who were never seen before have no more written again and again. A store that exists keeps what it was made with.
const BUFFERS_MERGED: u8 = 8;
/// Values of this many bytes and more are kept apart from their keys in `ended-*`.
const SEPARATION_BYTES: u32 = 256;
/// Threads of the engine for flushes and compactions. One: with more, the first hands compactions back to the queue and
/// takes them out again until another is free, which spins (measured: 12.7 us of CPU per commit with two, 8.9 with one).
const WORKERS: usize = 1;
/// Spans of ended requests per retention.
const ENDED_SPANS: u64 = 4;

const _: () = assert!(JOURNALS_BYTES_MAX >= 64 << 20, "the engine's least");
const _: () = assert!(
    4 * BUFFER_BYTES <= JOURNALS_BYTES_MAX,
    "a busy keyspace is flushed for its own sake first"
);

/// One keyspace of a partitioned table and what it covers.
#[derive(Clone)]
pub struct Partition {
    /// First day or cursor.
    pub first: u64,
    /// Last day; `u64::MAX` for events and the outbox, where the next partition says it.
    pub last: u64,
    /// Its data.
    pub keyspace: Keyspace,
}

/// A table that is partitioned by time, oldest first, without overlaps.
pub struct Partitions {
    kind: Kind,
    /// Replaced whole, so that readers hold a list and no lock.
    list: RwLock<Arc<Vec<Partition>>>,
}

/// The partitioned tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Dispatch records by day.
    Rows,
    /// Ended requests by a span of days.
    Ended,
    /// Events by cursor.
    Events,
    /// What waits for the fleet's store, by number.
    Outbox,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Rows => "rows-",
            Self::Ended => "ended-",
            Self::Events => "events-",
            Self::Outbox => "outbox-",
        }
    }

    fn name(self, first: u64, last: u64) -> String {
        match self {
            Self::Rows | Self::Events | Self::Outbox => format!("{}{first}", self.prefix()),
            Self::Ended => format!("{}{first}-{last}", self.prefix()),
        }
    }

    /// First and last of the keyspace called `name`, when it is one of this table.
    fn covers(self, name: &str) -> Option<(u64, u64)> {
        let rest = name.strip_prefix(self.prefix())?;
        match self {
            Self::Rows => rest.parse().ok().map(|day| (day, day)),
            Self::Events | Self::Outbox => rest.parse().ok().map(|first| (first, u64::MAX)),
            Self::Ended => {
                let (first, last) = rest.split_once('-')?;
                Some((first.parse().ok()?, last.parse().ok()?))
            }
        }
    }

    fn options(self) -> KeyspaceCreateOptions {
        let options = KeyspaceCreateOptions::default().max_memtable_size(BUFFER_BYTES);
        match self {
            // Read by range only: a filter would never be asked.
            Self::Rows | Self::Events | Self::Outbox => options.filter_policy(FilterPolicy::disabled()),
            // Most ids that are asked for are missing: the filter is the answer.
            Self::Ended => options
                .filter_policy(FilterPolicy::new([
                    FilterPolicyEntry::Bloom(BloomConstructionPolicy::FalsePositiveRate(0.0001)),
                    FilterPolicyEntry::Bloom(BloomConstructionPolicy::FalsePositiveRate(0.001)),
                ]))
                .with_kv_separation(Some(
                    KvSeparationOptions::default().separation_threshold(SEPARATION_BYTES),
                )),
        }
    }
}

impl Partitions {
    fn open(db: &Database, kind: Kind) -> Result<Self, StoreError> {
        let mut list = Vec::new();
        for name in db.list_keyspace_names() {
            if let Some((first, last)) = kind.covers(&name) {
                let keyspace = db.keyspace(&name, || kind.options()).map_err(broken)?;
                list.push(Partition { first, last, keyspace });
            }
        }
        list.sort_by_key(|partition| partition.first);
        Ok(Self {
            kind,
            list: RwLock::new(Arc::new(list)),
        })
    }

    /// All of them, oldest first, as they are now.
    pub fn all(&self) -> Arc<Vec<Partition>> {
        Arc::clone(&self.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The one that covers `at`.
    pub fn covering(&self, at: u64) -> Option<Keyspace> {
        let list = self.all();
        let after = list.partition_point(|partition| partition.first <= at);
        let partition = list.get(after.checked_sub(1)?)?;
        (at <= partition.last).then(|| partition.keyspace.clone())
    }

    /// First day or cursor of the one that covers `at`.
    pub fn first_of(&self, at: u64) -> Option<u64> {
        let list = self.all();
        let covers = |partition: &&Partition| partition.first <= at && at <= partition.last;
        list.iter().rfind(covers).map(|partition| partition.first)
    }

    /// Adds one.
    ///
    /// # Errors
    /// The disk.
    pub fn create(&self, db: &Database, first: u64, last: u64) -> Result<Keyspace, StoreError> {
        assert!(first <= last);
        let keyspace = db
            .keyspace(&self.kind.name(first, last), || self.kind.options())
            .map_err(broken)?;
        // The engine syncs what is inside the new directory, not the entry that names it.
        if let Some(parent) = keyspace.path().parent() {
            std::fs::File::open(parent)
                .and_then(|directory| directory.sync_all())
                .map_err(|error| StoreError::broken(format!("a new partition cannot be synced: {error}")))?;
        }
        let mut list = self.all().to_vec();
        let at = list.partition_point(|partition| partition.first < first);
        let apart = |partition: Option<&Partition>| partition.is_none_or(|next| last < next.first || last == u64::MAX);
        assert!(apart(list.get(at)), "partitions overlap");
        let partition = Partition {
            first,
            last,
            keyspace: keyspace.clone(),
        };
        list.insert(at, partition);
        self.put(list);
        Ok(keyspace)
    }

    /// Takes the one that begins with `first` out of the store. Its files go when the last reader lets go of it, so the
    /// caller chooses the thread that pays for that by where it drops the result.
    ///
    /// # Errors
    /// The disk.
    pub fn remove(&self, db: &Database, first: u64) -> Result<Option<Keyspace>, StoreError> {
        let mut list = self.all().to_vec();
        let Some(at) = list.iter().position(|partition| partition.first == first) else {
            return Ok(None);
        };
        let removed = list.remove(at);
        db.delete_keyspace(removed.keyspace.clone()).map_err(broken)?;
        self.put(list);
        Ok(Some(removed.keyspace))
    }

    fn put(&self, list: Vec<Partition>) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(list);
    }
}

/// All keyspaces. Shared by the store's threads; only the writer changes them.
pub struct Tables {
    /// The engine.
    pub db: Database,
    /// Format, watermarks, consumers, event chunks.
    pub meta: Keyspace,
    /// Known drivers.
    pub drivers: Keyspace,
    /// Drivers off shift, by since when.
    pub off_shift: Keyspace,
    /// Dispatch records by day.
    pub rows: Partitions,
    /// Ended requests by span of days.
    pub ended: Partitions,
    /// Which ids are in none of them.
    pub ended_ids: Arc<EndedIds>,
    /// Events by cursor.
    pub events: Partitions,
    /// What waits for the fleet's store.
    pub outbox: Partitions,
}

impl Tables {
    /// Opens or creates them in `dir`.
    ///
    /// # Errors
    /// Locked by another process, of a newer format, damaged, not writable.
    pub fn open(dir: &Path, config: &StoreConfig) -> Result<Self, StoreError> {
        super::mend::mend(dir)?;
        let db = Database::builder(dir)
            .cache_size(config.cache_bytes)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .worker_threads(WORKERS)
            // The journal lives for minutes: its bytes are cheaper than the time to compress them.
            .journal_compression(fjall::CompressionType::None)
            // Every batch says itself how durable it must be.
            .manual_journal_persist(true)
            .open()
            .map_err(cannot_open)?;
        let is_new = db.keyspace_count() == 0;
        let small = || {
            let merges = Arc::new(Leveled::default().with_l0_threshold(BUFFERS_MERGED));
            let options = KeyspaceCreateOptions::default().max_memtable_size(BUFFER_SMALL_BYTES);
            options.compaction_strategy(merges)
        };
        let meta = db.keyspace("meta", small).map_err(broken)?;
        check_format(&db, &meta, is_new)?;
        Ok(Self {
            drivers: db.keyspace("drivers", small).map_err(broken)?,
            off_shift: db.keyspace("off_shift", small).map_err(broken)?,
            rows: Partitions::open(&db, Kind::Rows)?,
            ended: Partitions::open(&db, Kind::Ended)?,
            ended_ids: Arc::default(),
            events: Partitions::open(&db, Kind::Events)?,
            outbox: Partitions::open(&db, Kind::Outbox)?,
            meta,
            db,
        })
    }

    /// Memory that finds what is kept, bytes: indexes and filters of tables, as far as the block cache does not hold them, and the
    /// filters of ended ids. It grows with what is kept.
    pub fn index_bytes(&self) -> usize {
        // The engine's documentation leaves `tree` out, and there is no other way to ask.
        let pinned = |keyspace: &Keyspace| keyspace.tree.pinned_filter_size() + keyspace.tree.pinned_block_index_size();
        let alone: usize = [&self.meta, &self.drivers, &self.off_shift]
            .into_iter()
            .map(pinned)
            .sum();
        let parted = [&self.rows, &self.ended, &self.events, &self.outbox];
        let of = |partitions: &Partitions| -> usize { partitions.all().iter().map(|one| pinned(&one.keyspace)).sum() };
        alone + parted.map(of).into_iter().sum::<usize>() + self.ended_ids.bytes()
    }

    /// The keyspace for rows of `day`, made when it is the first.
    ///
    /// # Errors
    /// The disk.
    pub fn rows_of(&self, day: u64) -> Result<Keyspace, StoreError> {
        match self.rows.covering(day) {
            Some(keyspace) => Ok(keyspace),
            None => self.rows.create(&self.db, day, day),
        }
    }

    /// The keyspace for requests that ended on `day`, made when it is the first of its span.
    ///
    /// # Errors
    /// The disk.
    pub fn ended_of(&self, day: u64, retention_days: u32) -> Result<Keyspace, StoreError> {
        if let Some(keyspace) = self.ended.covering(day) {
            return Ok(keyspace);
        }
        let (first, last) = span_of(day, retention_days, &self.ended.all());
        assert!(first <= day && day <= last);
        self.ended.create(&self.db, first, last)
    }
}

/// The span that `day`, which no partition covers, belongs to: on a grid of a quarter of the retention, cut where a
/// neighbour made under another retention is in the way.
fn span_of(day: u64, retention_days: u32, partitions: &[Partition]) -> (u64, u64) {
    let days = u64::from(retention_days).div_ceil(ENDED_SPANS).max(1);
    let grid = day - day % days;
    let before = partitions.iter().rfind(|partition| partition.last < day);
    let after = partitions.iter().find(|partition| partition.first > day);
    let first = before.map_or(grid, |partition| grid.max(partition.last + 1));
    let last = after.map_or(grid + days - 1, |partition| (grid + days - 1).min(partition.first - 1));
    (first, last)
}

fn check_format(db: &Database, meta: &Keyspace, is_new: bool) -> Result<(), StoreError> {
    let found = meta.get(keys::FORMAT).map_err(broken)?;
    // A process that died between the first keyspace and the version left a `meta` without anything in it.
    if found.is_none() && (is_new || meta.is_empty().map_err(broken)?) {
        let mut batch = db.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(meta, keys::FORMAT, FORMAT_VERSION.to_be_bytes());
        return batch.commit().map_err(broken);
    }
    let version = found
        .and_then(|bytes| <[u8; 4]>::try_from(&*bytes).ok())
        .map(u32::from_be_bytes)
        .ok_or_else(|| StoreError::broken("the store's directory has no format version"))?;
    match version {
        FORMAT_VERSION => Ok(()),
        newer if newer > FORMAT_VERSION => Err(StoreError::broken(format!(
            "the store has format {newer}, this program knows formats up to {FORMAT_VERSION}: use a newer program"
        ))),
        older => Err(StoreError::broken(format!(
            "the store has format {older}, which this program no longer reads"
        ))),
    }
}

fn cannot_open(error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Locked => StoreError::unavailable("the store is open in another process"),
        fjall::Error::InvalidVersion(_) => StoreError::broken("the store's files are of another engine version"),
        fjall::Error::Io(error) => StoreError::unavailable(format!("the store cannot be opened: {error}")),
        other => StoreError::broken(format!("the store is damaged: {other}")),
    }
}

/// An error of the engine that nothing can be done about here.
#[expect(clippy::needless_pass_by_value, reason = "used as map_err(broken)")]
pub fn broken(error: fjall::Error) -> StoreError {
    StoreError::broken(format!("the store's engine failed: {error}"))
}
