//! From journals back to requests, and what the store has to hear of them.

use super::ServeError;
use crate::cold::{Commit, EndedRequest, FromStore, Source, Store, Waker};
use crate::fsm::fold::{self, Fold};
use crate::fsm::ids::RequestId;
use crate::fsm::request::Request;
use crate::fsm::types::{LogEntry, Record, RequestLog, UnixMs};
use crate::journal::{Fed, Replay, recover_dir};
use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::channel;

/// What the old journals said.
pub(super) struct Recovered {
    /// For the store, in the order of the journals.
    pub(super) feed: Vec<Commit>,
    /// Requests that are not over.
    pub(super) live: Vec<Request>,
    /// The newest time in any of them.
    pub(super) newest_ms: UnixMs,
}

/// Reads every journal under `data_dir`.
pub(super) fn read(data_dir: &Path) -> Result<Recovered, ServeError> {
    let shards = recover_dir(data_dir).map_err(|error| ServeError::new("the journal cannot be recovered", error))?;
    let replay = Replay::merge(shards).map_err(|error| ServeError::new("the journal cannot be recovered", error))?;
    let feed = consequences(replay.feed)?;
    let mut live = Vec::new();
    let mut newest_ms = 0;
    for (request_id, log) in replay.requests {
        newest_ms = newest_ms.max(log.log.last().map_or(0, |entry| entry.at_ms));
        let request = Request::restored(log).map_err(|error| {
            ServeError::new(
                "the journal holds a request that does not fold",
                format!("{request_id}: {error}"),
            )
        })?;
        if !request.is_closed() {
            live.push(request);
        }
    }
    Ok(Recovered { feed, live, newest_ms })
}

/// What each record meant to the store when it was committed. Made again in the same order, so that the store, which
/// knows how far it came, takes exactly what it lacks.
fn consequences(feed: Vec<Fed>) -> Result<Vec<Commit>, ServeError> {
    let mut logs: HashMap<RequestId, Vec<LogEntry>> = HashMap::new();
    let mut commits = Vec::new();
    for Fed {
        incarnation,
        shard,
        lsn,
        record,
    } in feed
    {
        let mut commit = Commit::empty(
            Source {
                incarnation: incarnation.get(),
                shard,
            },
            lsn,
        );
        match record {
            Record::DriverSeen { driver_id, at_ms } => commit.driver_seen = Some((driver_id, at_ms)),
            Record::OffShift { driver_id, at_ms, off } => commit.off_shift = Some((driver_id, at_ms, off)),
            Record::Image(RequestLog { request_id, log }) => {
                let known = logs.entry(request_id).or_default();
                if log.len() > known.len() {
                    *known = log;
                }
                continue;
            }
            Record::Steps {
                request_id,
                first_seq,
                entries,
            } => {
                let log = logs.entry(request_id.clone()).or_default();
                let (first, known) = (first_seq as usize - 1, log.len());
                if first > known {
                    // The beginning was dropped: the store had the whole of it before that.
                    logs.remove(&request_id);
                    continue;
                }
                // What was told before (the rest of an image too long for one record) means nothing new.
                log.extend(entries.into_iter().skip(known - first));
                if log.len() == known {
                    continue;
                }
                derive(&request_id, log, known, &mut commit)?;
            }
        }
        commits.push(commit);
    }
    Ok(commits)
}

fn derive(request_id: &RequestId, log: &[LogEntry], from: usize, commit: &mut Commit) -> Result<(), ServeError> {
    let fold = Fold::of(log).map_err(|error| {
        ServeError::new(
            "the journal holds a request that does not fold",
            format!("{request_id}: {error}"),
        )
    })?;
    fold::published(request_id, log, from, &fold, &mut commit.published);
    fold::rows(request_id, log, from, &fold, &mut commit.rows);
    if fold.is_closed() {
        commit.ended = Some(EndedRequest {
            log: RequestLog {
                request_id: request_id.clone(),
                log: log.to_vec(),
            },
            trip_id: fold.trip.map(|trip| trip.trip_id),
            ended_at_ms: log.last().map_or(0, |entry| entry.at_ms),
        });
    }
    Ok(())
}

/// Commits handed over at once.
const FEED_BATCH: usize = 1_024;

/// Feeds the store and waits until it has everything, durably.
pub(super) fn feed_store(store: &Store, mut feed: Vec<Commit>) -> Result<(), ServeError> {
    feed.retain(|commit| commit.lsn > store.watermark(commit.source));
    let mut missing: HashMap<Source, u64> = HashMap::new();
    for commit in &feed {
        missing.insert(commit.source, commit.lsn);
    }
    let (wake, woken) = channel();
    let waker: Waker = Box::new(move || wake.send(()).unwrap_or_default());
    let handle = store.attach(u16::MAX, waker);
    let mut waiting = feed.into_iter();
    let mut batch: Vec<Commit> = waiting.by_ref().take(FEED_BATCH).collect();
    let mut heard = Vec::new();
    while !missing.is_empty() {
        match handle.try_commit(std::mem::take(&mut batch)) {
            Ok(()) => batch = waiting.by_ref().take(FEED_BATCH).collect(),
            Err(back) => batch = back,
        }
        if batch.is_empty() || handle.backlog() > FEED_BATCH * 8 {
            if store.health().fatal() {
                return Err(ServeError::new(
                    "the store failed",
                    store.health().last_error().unwrap_or_default(),
                ));
            }
            // Either way there may be something to do.
            let _ = woken.recv_timeout(super::STORE_PROBE);
        }
        handle.poll(&mut heard);
        for message in heard.drain(..) {
            if let FromStore::Stored { source, through } = message
                && missing.get(&source).is_some_and(|last| *last <= through)
            {
                missing.remove(&source);
            }
        }
    }
    Ok(())
}
