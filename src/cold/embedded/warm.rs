//! The thread that begins with the store, reads the keys of all ended requests once, and puts them into
//! [`EndedIds`](crate::cold::EndedIds). Until it is through, every new id is looked up.

use super::keys;
use super::tables::{Tables, broken};
use crate::cold::port::StoreError;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reads until it is through, or `stop` is set. What the writer stores meanwhile, it puts in itself.
pub fn run(tables: &Tables, stop: &AtomicBool) {
    match load(tables, stop) {
        Ok(Some(ids)) => tracing::debug!(ids, "the ids of ended requests are in memory"),
        Ok(None) => {}
        Err(error) => tracing::warn!(%error, "the ids of ended requests cannot be read: each new one is looked up"),
    }
}

/// How many there were; `None` when it was stopped.
fn load(tables: &Tables, stop: &AtomicBool) -> Result<Option<u64>, StoreError> {
    let mut ids = 0;
    for span in tables.ended.all().iter() {
        for entry in span.keyspace.iter() {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let key = entry.key().map_err(broken)?;
            let hash =
                keys::ended_hash(&key).ok_or_else(|| StoreError::broken("the key of an ended request is damaged"))?;
            tables.ended_ids.insert(span.first, hash);
            ids += 1;
        }
    }
    tables.ended_ids.complete();
    Ok(Some(ids))
}
