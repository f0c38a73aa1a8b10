//! One atomic batch: the consequences of many commits, the cursors of their events, and the watermarks that make them
//! happen exactly once. Belongs to the writer thread.

use super::codec::{Decoder, Encoder, RowTail, push_event};
use super::config::StoreConfig;
use super::events::{Consumer, EventLog};
use super::keys::{self, RowPlace};
use super::tables::{Tables, broken};
use crate::cold::port::{Commit, DriverRecord, EndedRequest, Source, StoreError};
use crate::fsm::ids::DriverId;
use crate::fsm::types::{Published, RecordRow, UnixMs};
use fjall::{Keyspace, OwnedWriteBatch, PersistMode};
use std::collections::BTreeMap;

/// A block of events ends with the event that takes it over this many bytes.
const BLOCK_BYTES: usize = 32 << 10;

/// Buffers that outlive a round.
#[derive(Default)]
pub struct Tools {
    encoder: Encoder,
    decoder: Decoder,
    key: Vec<u8>,
    /// Events of the block that is being filled.
    block: Vec<u8>,
}

/// What a round wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Commits applied.
    pub commits: u64,
    /// Commits that were stored already.
    pub repeated: u64,
    /// Dispatch records.
    pub rows: u64,
    /// Events.
    pub events: u64,
    /// Ended requests.
    pub ended: u64,
    /// Batches written and synced: one, or none when everything was stored already.
    pub batches: u64,
}

/// A driver as it was before the round and as it will be.
struct DriverChange {
    before: Option<DriverRecord>,
    after: DriverRecord,
}

/// The partition of requests that ended on `day`, and the first day of its span.
struct EndedOpen {
    day: u64,
    span: u64,
    keyspace: Keyspace,
}

/// A batch in the making.
pub struct Round<'a> {
    tables: &'a Tables,
    tools: &'a mut Tools,
    watermarks: &'a mut BTreeMap<Source, u64>,
    events: &'a mut EventLog,
    now: UnixMs,
    ended_retention_days: u32,
    /// Rows and ended requests of earlier days are out of retention already.
    rows_day_min: u64,
    ended_day_min: u64,
    batch: OwnedWriteBatch,
    counts: Counts,
    drivers: BTreeMap<DriverId, DriverChange>,
    marks: BTreeMap<Source, u64>,
    /// The partitions used last: nearly always the ones that are needed next.
    rows_open: Option<(u64, Keyspace)>,
    ended_open: Option<EndedOpen>,
    events_open: Option<Keyspace>,
    /// Cursor of the first event in `tools.block`.
    block_first: u64,
}

impl<'a> Round<'a> {
    /// An empty batch.
    pub fn begin(
        tables: &'a Tables,
        config: &StoreConfig,
        tools: &'a mut Tools,
        watermarks: &'a mut BTreeMap<Source, u64>,
        events: &'a mut EventLog,
        now: UnixMs,
    ) -> Self {
        let today = keys::day_of(now);
        tools.block.clear();
        Self {
            tables,
            tools,
            watermarks,
            events,
            now,
            ended_retention_days: config.ended_retention_days(),
            rows_day_min: today.saturating_sub(config.records_retention_days.into()),
            ended_day_min: today.saturating_sub(config.ended_retention_days().into()),
            batch: tables.db.batch().durability(Some(PersistMode::SyncData)),
            counts: Counts::default(),
            drivers: BTreeMap::new(),
            marks: BTreeMap::new(),
            rows_open: None,
            ended_open: None,
            events_open: None,
            block_first: 0,
        }
    }

    /// Bookkeeping of events, with what this round added.
    pub fn events(&mut self) -> &mut EventLog {
        self.events
    }

    /// Adds a commit's consequences, unless they are stored already. Returns through which `lsn` its source is stored
    /// once this round is.
    ///
    /// # Errors
    /// The disk, or a damaged value. The round is void then.
    pub fn add(&mut self, commit: Commit) -> Result<u64, StoreError> {
        let stored = self.watermarks.entry(commit.source).or_insert(0);
        if commit.lsn <= *stored {
            self.counts.repeated += 1;
            return Ok(*stored);
        }
        *stored = commit.lsn;
        self.marks.insert(commit.source, commit.lsn);
        self.counts.commits += 1;
        for row in &commit.rows {
            self.add_row(row)?;
        }
        for published in &commit.published {
            self.add_event(published)?;
        }
        if let Some(ended) = &commit.ended {
            self.add_ended(ended)?;
        }
        if let Some((driver_id, at_ms)) = commit.driver_seen {
            self.driver(driver_id, at_ms)?;
        }
        if let Some((driver_id, at_ms, off)) = commit.off_shift {
            let record = self.driver(driver_id, at_ms)?;
            record.shift_changed_ms = at_ms;
            record.off_shift_since = off.then_some(at_ms);
        }
        Ok(commit.lsn)
    }

    /// Stores how a consumer stands.
    pub fn put_consumer(&mut self, name: &str, consumer: Consumer) {
        self.batch
            .insert(&self.tables.meta, keys::consumer(name), consumer.encode());
    }

    /// Forgets the watermarks of boots before `incarnation`.
    pub fn forget_before(&mut self, incarnation: u64) {
        let first = Source { incarnation, shard: 0 };
        let kept = self.watermarks.split_off(&first);
        for source in std::mem::replace(self.watermarks, kept).into_keys() {
            self.batch.remove(&self.tables.meta, keys::watermark(source));
            self.marks.remove(&source);
        }
    }

    /// Writes everything, atomically, and returns when it is on the disk (`fdatasync`). `None`: there was nothing.
    ///
    /// # Errors
    /// The disk. What is stored then is unknown until the store is opened again.
    pub fn commit(mut self) -> Result<Option<Counts>, StoreError> {
        self.put_block()?;
        self.put_drivers()?;
        if self.counts.events > 0 {
            let last = self.events.last();
            self.batch
                .insert(&self.tables.meta, keys::chunk(last.first), last.encode());
        }
        for (source, lsn) in &self.marks {
            self.batch
                .insert(&self.tables.meta, keys::watermark(*source), lsn.to_be_bytes());
        }
        if self.batch.is_empty() {
            debug_assert_eq!(self.counts.commits, 0);
            return Ok((self.counts.repeated > 0).then_some(self.counts));
        }
        self.batch.commit().map_err(broken)?;
        self.counts.batches = 1;
        Ok(Some(self.counts))
    }

    fn add_row(&mut self, row: &RecordRow) -> Result<(), StoreError> {
        let day = keys::day_of(row.offer_sent_at_ms);
        if day < self.rows_day_min {
            return Ok(());
        }
        let keyspace = match &self.rows_open {
            Some((open, keyspace)) if *open == day => keyspace,
            _ => &self.rows_open.insert((day, self.tables.rows_of(day)?)).1,
        };
        let place = RowPlace {
            offer_sent_at_ms: row.offer_sent_at_ms,
            request_id: row.request_id.clone(),
            attempt: row.attempt,
        };
        let tail = RowTail {
            trip_id: row.trip_id.clone(),
            response_type: row.response_type,
            response_at_ms: row.response_at_ms,
        };
        keys::row(&mut self.tools.key, &row.driver_id, &place);
        let value = self.tools.encoder.encode(&tail)?;
        self.batch.insert(keyspace, self.tools.key.as_slice(), value);
        self.counts.rows += 1;
        Ok(())
    }

    fn add_ended(&mut self, ended: &EndedRequest) -> Result<(), StoreError> {
        let day = keys::day_of(ended.ended_at_ms);
        if day < self.ended_day_min {
            return Ok(());
        }
        let open = match &self.ended_open {
            Some(open) if open.day == day => open,
            _ => {
                let keyspace = self.tables.ended_of(day, self.ended_retention_days)?;
                let span = self.tables.ended.first_of(day).expect("its partition was just opened");
                self.ended_open.insert(EndedOpen { day, span, keyspace })
            }
        };
        // Before anybody hears that it is stored, and forgets it. A write that fails has put in an id too many.
        self.tables.ended_ids.insert(open.span, ended.log.request_id.hash64());
        keys::ended(&mut self.tools.key, &ended.log.request_id);
        let value = self.tools.encoder.encode(ended)?;
        self.batch.insert(&open.keyspace, self.tools.key.as_slice(), value);
        self.counts.ended += 1;
        Ok(())
    }

    fn add_event(&mut self, published: &Published) -> Result<(), StoreError> {
        if self.events.is_last_full(self.now) {
            self.put_block()?;
            let full = self.events.last();
            self.batch
                .insert(&self.tables.meta, keys::chunk(full.first), full.encode());
            let next = self.events.roll(self.now);
            self.events_open = Some(self.tables.events.create(&self.tables.db, next.first, u64::MAX)?);
        }
        let value = self.tools.encoder.encode(published)?;
        let cursor = self.events.append(value.len(), self.now);
        if self.tools.block.is_empty() {
            self.block_first = cursor;
        }
        push_event(&mut self.tools.block, value);
        self.counts.events += 1;
        if self.tools.block.len() >= BLOCK_BYTES {
            self.put_block()?;
        }
        Ok(())
    }

    /// Adds the block that is being filled to the batch. A block never spans chunks.
    fn put_block(&mut self) -> Result<(), StoreError> {
        if self.tools.block.is_empty() {
            return Ok(());
        }
        let keyspace = if let Some(keyspace) = &self.events_open {
            keyspace
        } else {
            let found = self.tables.events.covering(self.block_first);
            let missing = || StoreError::broken("the newest events' partition is missing");
            self.events_open.insert(found.ok_or_else(missing)?)
        };
        let key = self.block_first.to_be_bytes();
        self.batch.insert(keyspace, key, self.tools.block.as_slice());
        self.tools.block.clear();
        Ok(())
    }

    /// The driver as this round leaves it, seen at `at_ms`.
    fn driver(&mut self, driver_id: DriverId, at_ms: UnixMs) -> Result<&mut DriverRecord, StoreError> {
        use std::collections::btree_map::Entry;
        let change = match self.drivers.entry(driver_id) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let stored = self.tables.drivers.get(entry.key().as_str()).map_err(broken)?;
                let before = match stored {
                    Some(bytes) => Some(self.tools.decoder.driver(&bytes)?),
                    None => None,
                };
                let new = DriverRecord {
                    first_seen_ms: at_ms,
                    last_seen_ms: at_ms,
                    off_shift_since: None,
                    shift_changed_ms: 0,
                };
                let after = before.clone().unwrap_or(new);
                entry.insert(DriverChange { before, after })
            }
        };
        let record = &mut change.after;
        record.first_seen_ms = record.first_seen_ms.min(at_ms);
        record.last_seen_ms = record.last_seen_ms.max(at_ms);
        Ok(record)
    }

    fn put_drivers(&mut self) -> Result<(), StoreError> {
        for (driver_id, DriverChange { before, after }) in std::mem::take(&mut self.drivers) {
            if before.as_ref() == Some(&after) {
                continue;
            }
            let since_before = before.and_then(|record| record.off_shift_since);
            if since_before != after.off_shift_since {
                if let Some(since) = since_before {
                    self.batch
                        .remove(&self.tables.off_shift, keys::off_shift(since, &driver_id));
                }
                if let Some(since) = after.off_shift_since {
                    self.batch
                        .insert(&self.tables.off_shift, keys::off_shift(since, &driver_id), []);
                }
            }
            let value = self.tools.encoder.encode(&after)?;
            self.batch.insert(&self.tables.drivers, driver_id.as_str(), value);
        }
        Ok(())
    }
}
