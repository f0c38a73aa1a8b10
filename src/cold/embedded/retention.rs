//! Retention: what is too old, dropped one partition at a time. Belongs to the writer thread.

use super::config::StoreConfig;
use super::events::EventLog;
use super::keys;
use super::tables::{Partitions, Tables, broken};
use crate::cold::port::StoreError;
use crate::fsm::types::UnixMs;
use fjall::{Keyspace, PersistMode};

/// What a sweep did.
pub enum Swept {
    /// Everything that is left is needed.
    Nothing,
    /// A partition was dropped; let go of it on a thread that may wait for the disk. There may be more.
    Partition(Keyspace),
    /// Something small was forgotten. There may be more.
    Entry,
}

/// Drops one thing that is out of retention.
///
/// # Errors
/// The disk.
pub fn sweep(tables: &Tables, config: &StoreConfig, events: &mut EventLog, now: UnixMs) -> Result<Swept, StoreError> {
    let today = keys::day_of(now);
    let dropped = match drop_day(tables, &tables.rows, today, config.records_retention_days)? {
        Some(keyspace) => Some(keyspace),
        None => drop_ended(tables, today, config.ended_retention_days())?,
    };
    if let Some(keyspace) = dropped {
        return Ok(Swept::Partition(keyspace));
    }
    if let Some(keyspace) = drop_chunk(tables, events, now)? {
        return Ok(Swept::Partition(keyspace));
    }
    let Some(name) = events.forget_consumer(now) else {
        return Ok(Swept::Nothing);
    };
    let mut batch = tables.db.batch().durability(Some(PersistMode::SyncData));
    batch.remove(&tables.meta, keys::consumer(&name));
    batch.commit().map_err(broken)?;
    tracing::info!(consumer = %name, "a consumer of events was silent for long and is forgotten");
    Ok(Swept::Entry)
}

/// The oldest partition whose last day ended more than `days` days ago.
fn drop_day(tables: &Tables, partitions: &Partitions, today: u64, days: u32) -> Result<Option<Keyspace>, StoreError> {
    match partitions.all().first() {
        Some(oldest) if oldest.last + u64::from(days) < today => partitions.remove(&tables.db, oldest.first),
        _ => Ok(None),
    }
}

/// The same of ended requests, whose ids go with them.
fn drop_ended(tables: &Tables, today: u64, days: u32) -> Result<Option<Keyspace>, StoreError> {
    let first = tables.ended.all().first().map(|oldest| oldest.first);
    let dropped = drop_day(tables, &tables.ended, today, days)?;
    if let (Some(first), Some(_)) = (first, &dropped) {
        tables.ended_ids.forget_span(first);
    }
    Ok(dropped)
}

fn drop_chunk(tables: &Tables, events: &mut EventLog, now: UnixMs) -> Result<Option<Keyspace>, StoreError> {
    let Some(chunk) = events.droppable(now) else {
        return Ok(None);
    };
    // First its entry, durably: a partition without an entry is cleaned up at opening, an entry without one is damage.
    let mut batch = tables.db.batch().durability(Some(PersistMode::SyncData));
    if chunk == events.last() {
        let next = events.roll(now);
        tables.events.create(&tables.db, next.first, u64::MAX)?;
        batch.insert(&tables.meta, keys::chunk(next.first), next.encode());
    }
    batch.remove(&tables.meta, keys::chunk(chunk.first));
    batch.commit().map_err(broken)?;
    events.drop_oldest();
    tables.events.remove(&tables.db, chunk.first)
}
