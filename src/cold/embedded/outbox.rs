//! The outbox: what the fleet's store is still to get, in the order of its commits, durably.
//!
//! An entry is written in the same atomic batch as the commit that it comes from, so whatever is reported stored reaches
//! the fleet's store some day, over any number of restarts. It holds copies, not places: retention of records and of
//! ended requests needs to know nothing of it. The mark says through which entry the fleet's store has everything; it is
//! written with the next batch, so that after a crash some entries are carried away twice, which changes nothing there.
//!
//! Entries stand in partitions of about [`PARTITION_BYTES`], which are dropped whole once they are behind the mark.
//! Above `bytes_max` the store counts as unhealthy: no new requests are taken in, while what is open goes on and is
//! written here all the same. So the outbox is bounded by the setting and by what open requests can add.

use super::codec::{Decoder, Encoder};
use super::keys;
use super::status::StoreHealth;
use super::tables::{Tables, broken};
use crate::cold::port::{Commit, EndedRequest, StoreError};
use crate::fsm::types::{RecordRow, UnixMs};
use fjall::{Keyspace, OwnedWriteBatch, PersistMode};
use rkyv::{Archive, Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// A partition takes no more entries beyond so many bytes of them.
const PARTITION_BYTES: u64 = 16 << 20;

/// What one commit means to the fleet's store.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
#[rkyv(attr(allow(missing_docs)))]
pub struct OutboxEntry {
    /// When it was committed.
    pub at_ms: UnixMs,
    /// Outcomes of attempts.
    pub rows: Vec<RecordRow>,
    /// A request that nothing can change any more.
    pub ended: Option<EndedRequest>,
}

/// How the outbox stands, shared by the writer and whoever carries it away.
#[derive(Debug)]
pub struct OutboxState {
    bytes_max: u64,
    /// Number of the newest durable entry.
    newest: AtomicU64,
    /// Number of the last entry that the fleet's store has.
    mark: AtomicU64,
    /// Bytes of all entries between the two.
    bytes: AtomicU64,
    /// Told when there is something new.
    grown: Notify,
    health: Arc<StoreHealth>,
}

impl OutboxState {
    /// Entries that wait.
    pub fn entries(&self) -> u64 {
        let mark = self.mark.load(Ordering::Acquire);
        self.newest.load(Ordering::Acquire).saturating_sub(mark)
    }

    /// Their bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    /// Returns when there may be more than before.
    pub async fn grown(&self) {
        self.grown.notified().await;
    }

    fn grow(&self, newest: u64, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.newest.store(newest, Ordering::Release);
        self.judge();
        self.grown.notify_one();
    }

    fn shrink(&self, mark: u64, bytes: u64) {
        self.mark.store(mark, Ordering::Release);
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        assert!(before >= bytes, "more carried away than there was");
        self.judge();
    }

    /// Says whether the outbox is full, until what was said last is true: the writer and whoever carries away judge at the same
    /// time, and the slower of the two may say what was so before. Nobody would correct that while no request is taken in.
    fn judge(&self) {
        let is_full = || self.bytes() >= self.bytes_max;
        loop {
            let full = is_full();
            if self.health.set_outbox_full(full) {
                self.log(full);
            }
            if is_full() == full {
                return;
            }
        }
    }

    fn log(&self, full: bool) {
        let (bytes, bytes_max) = (self.bytes(), self.bytes_max);
        if full {
            tracing::error!(
                bytes,
                bytes_max,
                "too much waits for Cassandra: no new requests are taken"
            );
        } else {
            tracing::info!(bytes, "new requests are taken again: less waits for Cassandra");
        }
    }
}

/// The writer's end. Belongs to the writer thread.
pub struct Outbox {
    state: Arc<OutboxState>,
    /// The partition that takes the next entry, and the bytes in it.
    open: Keyspace,
    open_bytes: u64,
    /// Number of the next entry.
    next: u64,
    /// Bytes of the batch that is being made.
    adding_bytes: u64,
    /// The mark as it is stored.
    mark_stored: u64,
}

impl Outbox {
    /// The outbox as it was stored; a new one when there is none.
    ///
    /// # Errors
    /// The disk, or damage.
    pub fn open(tables: &Tables, bytes_max: u64, health: &Arc<StoreHealth>) -> Result<Self, StoreError> {
        let damaged = || StoreError::broken("the outbox is damaged");
        let mark = match tables.meta.get(keys::OUTBOX_MARK).map_err(broken)? {
            Some(value) => keys::number(&value).ok_or_else(damaged)?,
            None => 0,
        };
        let (mut newest, mut bytes, mut open_bytes) = (mark, 0, 0);
        let partitions = tables.outbox.all();
        for partition in partitions.iter() {
            open_bytes = 0;
            for entry in partition.keyspace.range(mark.saturating_add(1).to_be_bytes()..) {
                let (key, value) = entry.into_inner().map_err(broken)?;
                newest = keys::number(&key).ok_or_else(damaged)?;
                open_bytes += value.len() as u64;
            }
            bytes += open_bytes;
        }
        let open = match partitions.last() {
            Some(last) => last.keyspace.clone(),
            None => tables.outbox.create(&tables.db, newest + 1, u64::MAX)?,
        };
        let state = OutboxState {
            bytes_max,
            newest: AtomicU64::new(newest),
            mark: AtomicU64::new(mark),
            bytes: AtomicU64::new(bytes),
            grown: Notify::new(),
            health: Arc::clone(health),
        };
        state.judge();
        Ok(Self {
            state: Arc::new(state),
            open,
            open_bytes,
            next: newest + 1,
            adding_bytes: 0,
            mark_stored: mark,
        })
    }

    /// How it stands.
    pub fn state(&self) -> Arc<OutboxState> {
        Arc::clone(&self.state)
    }

    /// Adds what the fleet's store is to hear of a commit, if anything.
    ///
    /// # Errors
    /// The disk.
    pub fn add(
        &mut self,
        tables: &Tables,
        batch: &mut OwnedWriteBatch,
        encoder: &mut Encoder,
        commit: &Commit,
        now: UnixMs,
    ) -> Result<(), StoreError> {
        if commit.rows.is_empty() && commit.ended.is_none() {
            return Ok(());
        }
        if self.open_bytes >= PARTITION_BYTES {
            self.open = tables.outbox.create(&tables.db, self.next, u64::MAX)?;
            self.open_bytes = 0;
        }
        let entry = OutboxEntry {
            at_ms: now,
            rows: commit.rows.clone(),
            ended: commit.ended.clone(),
        };
        let value = encoder.encode(&entry)?;
        batch.insert(&self.open, self.next.to_be_bytes(), value);
        self.next += 1;
        self.open_bytes += value.len() as u64;
        self.adding_bytes += value.len() as u64;
        Ok(())
    }

    /// Adds the mark to a batch that is written anyway.
    pub fn put_mark(&mut self, tables: &Tables, batch: &mut OwnedWriteBatch) {
        let mark = self.state.mark.load(Ordering::Acquire);
        if mark > self.mark_stored {
            batch.insert(&tables.meta, keys::OUTBOX_MARK, mark.to_be_bytes());
            self.mark_stored = mark;
        }
    }

    /// The batch with what was added is durable.
    pub fn durable(&mut self) {
        if self.adding_bytes > 0 {
            self.state.grow(self.next - 1, std::mem::take(&mut self.adding_bytes));
        }
    }

    /// Writes the mark alone, durably.
    ///
    /// # Errors
    /// The disk.
    pub fn store_mark(&mut self, tables: &Tables) -> Result<(), StoreError> {
        let mut batch = tables.db.batch().durability(Some(PersistMode::SyncData));
        self.put_mark(tables, &mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        batch.commit().map_err(broken)
    }

    /// Drops the oldest partition when the fleet's store has all of it. The last one stays: it takes the next entry.
    ///
    /// # Errors
    /// The disk.
    pub fn drop_oldest(&mut self, tables: &Tables) -> Result<Option<Keyspace>, StoreError> {
        let partitions = tables.outbox.all();
        let [oldest, next, ..] = partitions.as_slice() else {
            return Ok(None);
        };
        if next.first > self.state.mark.load(Ordering::Acquire).saturating_add(1) {
            return Ok(None);
        }
        // First the mark: numbers are never given twice.
        self.store_mark(tables)?;
        tables.outbox.remove(&tables.db, oldest.first)
    }
}

/// The end of whoever carries the outbox away.
pub struct OutboxReader {
    tables: Arc<Tables>,
    state: Arc<OutboxState>,
    decoder: Decoder,
    /// Number of the last entry that was read.
    read: u64,
}

/// Entries in order, read but not yet carried away.
#[derive(Default)]
pub struct OutboxPage {
    /// What they hold.
    pub entries: Vec<OutboxEntry>,
    /// Number of the last one.
    last: u64,
    bytes: u64,
}

impl OutboxReader {
    pub(super) fn new(tables: Arc<Tables>, state: Arc<OutboxState>) -> Self {
        let read = state.mark.load(Ordering::Acquire);
        Self {
            tables,
            state,
            decoder: Decoder::default(),
            read,
        }
    }

    /// How the outbox stands.
    pub fn state(&self) -> Arc<OutboxState> {
        Arc::clone(&self.state)
    }

    /// The next entries: at most `entries_max` of them, and none after the one that takes them over `bytes_max`. Empty
    /// when there are none.
    ///
    /// # Errors
    /// The disk, or damage.
    pub fn read(&mut self, entries_max: usize, bytes_max: u64) -> Result<OutboxPage, StoreError> {
        let newest = self.state.newest.load(Ordering::Acquire);
        let mut page = OutboxPage::default();
        let partitions = self.tables.outbox.all();
        let start = partitions.partition_point(|partition| partition.first <= self.read + 1);
        for partition in &partitions[start.saturating_sub(1)..] {
            for entry in partition
                .keyspace
                .range((self.read + 1).to_be_bytes()..=newest.to_be_bytes())
            {
                let (key, value) = entry.into_inner().map_err(broken)?;
                let number = keys::number(&key).ok_or_else(|| StoreError::broken("the outbox is damaged"))?;
                page.entries.push(self.decoder.outbox(&value)?);
                page.last = number;
                page.bytes += value.len() as u64;
                self.read = number;
                if page.entries.len() >= entries_max || page.bytes >= bytes_max {
                    return Ok(page);
                }
            }
        }
        Ok(page)
    }

    /// The fleet's store has these, and everything before them.
    pub fn carried(&self, page: &OutboxPage) {
        if !page.entries.is_empty() {
            self.state.shrink(page.last, page.bytes);
        }
    }
}
