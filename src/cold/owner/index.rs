//! Which requests of a node are open, for those who take over from it.
//!
//! A row is written before the request is claimed and deleted after its end is in the journal. So a row may speak of a request
//! that was never claimed, has ended or has another owner: the request itself says. Rows stand in partitions of one
//! minute, of which [`Index`] knows what this node has in each.
//!
//! Several tasks may need one row at once: a claim that is about to be lost since the id was there, and a takeover of that very
//! request. So each holds it, and only who lets go of it last takes it off.

use super::Owner;
use super::port::{Failed, Place, Tables};
use crate::fsm::ids::RequestId;
use crate::fsm::types::UnixMs;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A partition holds requests that were received within so long.
const BUCKET_MS: u64 = 60_000;
/// A partition that is empty leaves the list when its minute is over for so long: nobody claims in it any more.
const QUIET_BUCKETS: i64 = 5;
/// How often empty partitions are looked for.
const SWEEP_PERIOD: Duration = Duration::from_secs(60);

/// Open requests of this node by the minute in which they were received.
#[derive(Default)]
pub(super) struct Index(Mutex<BTreeMap<i64, Bucket>>);

#[derive(Default)]
struct Bucket {
    is_listed: bool,
    /// How many need the row of each.
    open: HashMap<RequestId, u32>,
}

/// The partition of a request that was received then.
pub(super) const fn bucket_of(received_at_ms: UnixMs) -> i64 {
    (received_at_ms / BUCKET_MS) as i64
}

/// Whether nobody adds to a partition any more.
pub(super) fn is_quiet(bucket: i64, place: &impl Place) -> bool {
    bucket + QUIET_BUCKETS < bucket_of(place.wall_us() / 1_000)
}

/// The time of a write, microseconds.
pub(super) fn write_time_us(place: &impl Place) -> i64 {
    place.wall_us() as i64
}

impl Index {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i64, Bucket>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The row of a request is needed from now on, until that is let go of.
    pub(super) fn hold(&self, bucket: i64, request_id: &RequestId) {
        let mut buckets = self.lock();
        let held = buckets.entry(bucket).or_default().open.entry(request_id.clone());
        *held.or_insert(0) += 1;
    }

    /// Lets go of a row; says whether nobody needs it any more.
    pub(super) fn let_go(&self, bucket: i64, request_id: &RequestId) -> bool {
        let mut buckets = self.lock();
        let Some(known) = buckets.get_mut(&bucket) else {
            return true;
        };
        let Some(held) = known.open.get_mut(request_id) else {
            return true;
        };
        *held -= 1;
        let is_last = *held == 0;
        if is_last {
            known.open.remove(request_id);
        }
        is_last
    }

    /// The partition is on the list.
    pub(super) fn know(&self, bucket: i64) {
        self.lock().entry(bucket).or_default().is_listed = true;
    }

    /// Partitions that are empty and stay so; they are to leave the list, with a write of the time that comes with them.
    fn take_empty(&self, place: &impl Place) -> (Vec<i64>, i64) {
        let mut buckets = self.lock();
        let empty: Vec<i64> = buckets
            .iter()
            .filter(|(bucket, known)| known.open.is_empty() && is_quiet(**bucket, place))
            .map(|(bucket, _)| *bucket)
            .collect();
        for bucket in &empty {
            buckets.remove(bucket);
        }
        // Whoever needs one of them from now on writes later.
        (empty, write_time_us(place))
    }
}

impl<T: Tables, P: Place> Owner<T, P> {
    /// Writes that a request is open here, whose row is held.
    ///
    /// # Errors
    /// Cassandra did not say that it is written.
    pub(super) async fn add_open(&self, tables: &T, bucket: i64, request_id: &RequestId) -> Result<(), Failed> {
        let is_listed = self.index.lock().entry(bucket).or_default().is_listed;
        let (node, at_us) = (self.node_id(), write_time_us(self.place()));
        let listed = async {
            if is_listed {
                return Ok(());
            }
            tables.add_bucket(node, bucket, at_us).await
        };
        let added = tables.add_open(node, bucket, request_id, at_us);
        let (listed, added) = futures_util::future::join(listed, added).await;
        listed?;
        if let Some(known) = self.index.lock().get_mut(&bucket) {
            known.is_listed = true;
        }
        added
    }

    /// Lets go of a request's row, and takes it off when nobody else needs it, until that is done.
    pub(super) async fn remove_open(&self, bucket: i64, request_id: &RequestId) {
        if !self.index.let_go(bucket, request_id) {
            return;
        }
        let at_us = write_time_us(self.place());
        self.until_done("take a request off the list of open ones", async |tables| {
            tables.remove_open(self.node_id(), bucket, request_id, at_us).await
        })
        .await;
    }

    /// Takes partitions off the list that have become empty, for ever.
    pub(super) async fn sweep_index(&self) {
        loop {
            self.place().sleep(SWEEP_PERIOD).await;
            let (empty, at_us) = self.index.take_empty(self.place());
            for bucket in empty {
                self.until_done("take a minute off the list", async |tables| {
                    tables.remove_bucket(self.node_id(), bucket, at_us).await
                })
                .await;
            }
        }
    }
}
