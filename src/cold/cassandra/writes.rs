//! The outbox on its way to Cassandra: a page at a time, a write per partition, many at once, each until it is done.
//!
//! A page's records of one driver and day are one unlogged batch: one partition, one mutation, one round trip. Nothing is
//! given up: what fails is tried again with growing pauses, and at once when Cassandra answers again. Only when all of a page
//! has arrived is it behind the outbox's mark.

use super::session::{CassandraError, Ready};
use super::statements::{RecordValues, RequestWrite, record_values, request_write};
use super::{CassandraConfig, Core};
use crate::cold::embedded::{Encoder, OutboxEntry, OutboxReader};
use crate::cold::owner::{PAUSE_MAX, PAUSE_MIN};
use crate::cold::port::StoreError;
use crate::ops::metrics::CassandraMetrics;
use futures_util::stream::{self, StreamExt};
use scylla::statement::batch::{Batch, BatchType};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Most entries of the outbox that are on their way at once.
pub const ENTRIES_MAX: usize = 4_096;
/// Most bytes of them, about.
const PAGE_BYTES_MAX: u64 = 4 << 20;
/// Most rows of one batch.
const BATCH_ROWS_MAX: usize = 128;
/// Between two lines in the log about writes that fail.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(10);

/// A write of one partition.
enum Write {
    Records(Vec<RecordValues>),
    Request(Box<RequestWrite>),
}

/// Carries the outbox away until the node ends and it is empty.
pub(super) async fn feed(core: Arc<Core>, mut outbox: OutboxReader, mut ready: watch::Receiver<Option<Arc<Ready>>>) {
    let mut ending = core.ending.subscribe();
    let mut sink = None;
    loop {
        let page = match outbox.read(ENTRIES_MAX, PAGE_BYTES_MAX) {
            Ok(page) => page,
            Err(error) => {
                core.health.fail(&error);
                return;
            }
        };
        let Some(oldest) = page.entries.first() else {
            core.oldest_ms.store(0, Ordering::Relaxed);
            if *ending.borrow() {
                return;
            }
            tokio::select! {
                () = core.outbox.grown() => {}
                _ = ending.changed() => {}
            }
            continue;
        };
        // Before there is a connection too: what waits since the last start is told.
        core.oldest_ms.store(oldest.at_ms, Ordering::Relaxed);
        let Some(sink) = connected(&mut sink, &mut ready, &core).await else {
            return;
        };
        if let Err(error) = sink.store(&page.entries, &core.config.node_id).await {
            core.health.fail(&error);
            return;
        }
        outbox.carried(&page);
    }
}

/// The sink, which is made when there is a connection. `None`: nobody will connect any more, the thread ends.
async fn connected<'s>(
    sink: &'s mut Option<Sink>,
    ready: &mut watch::Receiver<Option<Arc<Ready>>>,
    core: &Arc<Core>,
) -> Option<&'s Sink> {
    if sink.is_none() {
        let ready = ready.wait_for(Option::is_some).await.ok()?.clone()?;
        *sink = Some(Sink::over(ready, core));
    }
    sink.as_ref()
}

/// Where entries go. Repeats until they are there.
pub struct Sink {
    ready: Arc<Ready>,
    config: CassandraConfig,
    metrics: Arc<CassandraMetrics>,
    core: Option<Arc<Core>>,
}

impl Sink {
    fn over(ready: Arc<Ready>, core: &Arc<Core>) -> Self {
        Self {
            ready,
            config: core.config.clone(),
            metrics: Arc::clone(&core.metrics),
            core: Some(Arc::clone(core)),
        }
    }

    /// A sink of its own, for a command.
    ///
    /// # Errors
    /// Cassandra cannot be reached, or the schema is missing or too old.
    pub async fn open(config: &CassandraConfig) -> Result<Self, CassandraError> {
        Ok(Self {
            ready: Arc::new(Ready::open(config).await?),
            config: config.clone(),
            metrics: Arc::default(),
            core: None,
        })
    }

    /// What was written so far.
    pub fn metrics(&self) -> &CassandraMetrics {
        &self.metrics
    }

    /// Writes what `node` committed and returns when all of it is there. What has outlived its retention is left out.
    ///
    /// # Errors
    /// Something cannot be encoded.
    pub async fn store(&self, entries: &[OutboxEntry], node: &str) -> Result<(), StoreError> {
        let writes = self.writes(entries, node)?;
        let done = stream::iter(writes).map(|write| self.persist(write));
        done.buffer_unordered(self.config.writes_max.max(1))
            .collect::<()>()
            .await;
        Ok(())
    }

    /// One write per partition, in pieces.
    fn writes(&self, entries: &[OutboxEntry], node: &str) -> Result<Vec<Write>, StoreError> {
        let mut encoder = Encoder::default();
        let mut writes = Vec::new();
        let mut records: HashMap<_, Vec<RecordValues>> = HashMap::new();
        for entry in entries {
            for row in &entry.rows {
                if let Some(values) = record_values(&self.config, row, node) {
                    let rows = records.entry((row.driver_id.clone(), values.1.0)).or_default();
                    rows.push(values);
                    if rows.len() >= BATCH_ROWS_MAX {
                        writes.push(Write::Records(std::mem::take(rows)));
                    }
                }
            }
            // A node of the fleet has stored every decision of the request itself.
            if let Some(ended) = &entry.ended
                && self.core.is_none()
                && let Some(write) = request_write(&self.config, &mut encoder, ended, node)?
            {
                writes.push(Write::Request(Box::new(write)));
            }
        }
        let rest = records.into_values().filter(|rows| !rows.is_empty());
        writes.extend(rest.map(Write::Records));
        Ok(writes)
    }

    /// Repeats a write until it is done.
    async fn persist(&self, write: Write) {
        let mut pause = PAUSE_MIN;
        let mut complained: Option<Instant> = None;
        loop {
            let began = Instant::now();
            let Err(error) = self.try_once(&write).await else {
                self.metrics.write_latency.record_us(began.elapsed().as_micros() as u64);
                self.metrics.batches.inc();
                return self.count(&write);
            };
            self.metrics.retries.inc();
            if complained.is_none_or(|at| at.elapsed() >= COMPLAINT_PERIOD) {
                complained = Some(Instant::now());
                tracing::warn!(%error, "a write of Cassandra failed and is repeated");
            }
            self.wait(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits `pause`, or until Cassandra answers again.
    async fn wait(&self, pause: Duration) {
        match &self.core {
            Some(core) => core.reach.wait_out(pause).await,
            None => tokio::time::sleep(pause).await,
        }
    }

    async fn try_once(&self, write: &Write) -> Result<(), CassandraError> {
        let Ready {
            session, statements, ..
        } = &*self.ready;
        let failed = |error| CassandraError::new("cannot write", error);
        match write {
            Write::Records(rows) => match rows.as_slice() {
                [row] => session.execute_unpaged(&statements.insert_record, row).await.map(drop),
                rows => {
                    let mut batch = Batch::new(BatchType::Unlogged);
                    batch.set_is_idempotent(true);
                    for _ in rows {
                        batch.append_statement(statements.insert_record.clone());
                    }
                    session.batch(&batch, rows).await.map(drop)
                }
            }
            .map_err(failed),
            Write::Request(request) => {
                for steps in &request.rest {
                    let done = session.execute_unpaged(&statements.insert_steps, steps).await;
                    done.map_err(failed)?;
                }
                let done = session
                    .execute_unpaged(&statements.insert_request, &request.first)
                    .await;
                done.map(drop).map_err(failed)
            }
        }
    }

    fn count(&self, write: &Write) {
        match write {
            Write::Records(rows) => self.metrics.records.add(rows.len() as u64),
            Write::Request(_) => self.metrics.requests.inc(),
        }
    }
}
