//! From journals back to requests, and what the store has to hear of them.

use super::ServeError;
use super::host::Host;
use crate::cold::{Commit, EndedRequest, FromStore, Source, Waker};
use crate::fsm::fold::{self, Fold};
use crate::fsm::ids::RequestId;
use crate::fsm::request::Request;
use crate::fsm::types::{LogEntry, Record, RequestLog, UnixMs};
use crate::journal::{Fed, RecoveredShard, Replay};
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::channel;

/// What the old journals said.
pub(super) struct Recovered {
    /// For the store, in the order of the journals.
    pub(super) feed: Vec<Commit>,
    /// Requests that are not over.
    pub(super) live: Vec<Request>,
    /// The newest time in any record.
    pub(super) newest_ms: UnixMs,
}

/// What all journals say together.
pub(super) fn understand(shards: Vec<RecoveredShard>) -> Result<Recovered, ServeError> {
    let replay = Replay::merge(shards).map_err(|error| ServeError::new("the journal cannot be recovered", error))?;
    let newest_ms = replay.feed.iter().map(|fed| newest_of(&fed.record)).max().unwrap_or(0);
    let feed = consequences(replay.feed)?;
    let mut live = Vec::new();
    for (request_id, log) in replay.requests {
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

/// The newest time in a record: times in a log never fall.
fn newest_of(record: &Record) -> UnixMs {
    match record {
        Record::Steps { entries, .. }
        | Record::Image(RequestLog { log: entries, .. })
        | Record::ImageRest { entries, .. } => entries.last().map_or(0, |entry| entry.at_ms),
        Record::DriverSeen { at_ms, .. } | Record::OffShift { at_ms, .. } => *at_ms,
        Record::GivenUp { .. } | Record::Shared { .. } => 0,
    }
}

/// What each record meant to the store when it was committed. Made again in the same order, so that the store, which
/// knows how far it came, takes exactly what it lacks.
fn consequences(feed: Vec<Fed>) -> Result<Vec<Commit>, ServeError> {
    let mut known: HashMap<RequestId, Known> = HashMap::new();
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
            Record::GivenUp { request_id } => {
                known.remove(&request_id);
                continue;
            }
            Record::Shared { request_id } => {
                known.entry(request_id).or_default().is_shared = true;
                continue;
            }
            // An image says again what the store was told before it was written.
            Record::Image(RequestLog { request_id, log }) => {
                tell(&mut known, &request_id, 1, log)?;
                continue;
            }
            Record::ImageRest {
                request_id,
                first_seq,
                entries,
            } => {
                tell(&mut known, &request_id, first_seq, entries)?;
                continue;
            }
            Record::Steps {
                request_id,
                first_seq,
                entries,
            } => match tell(&mut known, &request_id, first_seq, entries)? {
                Some((request, from)) if request.log.len() > from => request.derive(&request_id, from, &mut commit),
                _ => continue,
            },
        }
        if !commit.is_empty() {
            commits.push(commit);
        }
    }
    Ok(commits)
}

/// Adds what a record tells of a request. Returns it, and how many of its steps were known before; nothing when the
/// beginning was dropped from the journal: the store had the whole of it before that.
fn tell<'a>(
    known: &'a mut HashMap<RequestId, Known>,
    request_id: &RequestId,
    first_seq: u32,
    entries: Vec<LogEntry>,
) -> Result<Option<(&'a Known, usize)>, ServeError> {
    let request = known.entry(request_id.clone()).or_default();
    if first_seq == 1 && request.log.first() != entries.first() {
        // The id was used again, or is new: everything is news.
        let is_shared = request.is_shared && request.log.is_empty();
        *request = Known {
            is_shared,
            ..Known::default()
        };
    }
    let (first, from) = (first_seq as usize - 1, request.log.len());
    if first > from {
        return Ok(None);
    }
    request.extend(request_id, entries.into_iter().skip(from - first).collect())?;
    Ok(Some((request, from)))
}

/// A request as far as the records have told.
#[derive(Default)]
struct Known {
    log: Vec<LogEntry>,
    fold: Option<Fold>,
    /// See [`Record::Shared`].
    is_shared: bool,
}

impl Known {
    fn extend(&mut self, request_id: &RequestId, news: Vec<LogEntry>) -> Result<(), ServeError> {
        for entry in news {
            let folded = match &mut self.fold {
                Some(fold) => fold.apply(&entry),
                None => Fold::begin(&entry)
                    .map(|fold| self.fold = Some(fold))
                    .map_err(|error| error.why),
            };
            folded.map_err(|why| {
                let at = format!("{request_id}, step {}: {why}", self.log.len() + 1);
                ServeError::new("the journal holds a request that does not fold", at)
            })?;
            self.log.push(entry);
        }
        Ok(())
    }

    fn derive(&self, request_id: &RequestId, from: usize, commit: &mut Commit) {
        let Some(fold) = &self.fold else { return };
        fold::published(request_id, &self.log, from, fold, &mut commit.published);
        fold::rows(request_id, &self.log, from, fold, &mut commit.rows);
        if fold.is_closed() && !self.is_shared {
            commit.ended = Some(EndedRequest {
                log: RequestLog {
                    request_id: request_id.clone(),
                    log: self.log.clone(),
                },
                trip_id: fold.trip.as_ref().map(|trip| trip.trip_id.clone()),
                ended_at_ms: self.log.last().map_or(0, |entry| entry.at_ms),
            });
        }
    }
}

/// Commits handed over at once.
const FEED_BATCH: usize = 1_024;

/// Feeds the store, which is at `watermarks`, and waits until it has everything, durably.
pub(super) fn feed_store(
    host: &mut impl Host,
    mut feed: Vec<Commit>,
    watermarks: Vec<(Source, u64)>,
) -> Result<(), ServeError> {
    let watermarks: BTreeMap<Source, u64> = watermarks.into_iter().collect();
    feed.retain(|commit| commit.lsn > watermarks.get(&commit.source).copied().unwrap_or(0));
    let mut missing: HashMap<Source, u64> = HashMap::new();
    for commit in &feed {
        missing.insert(commit.source, commit.lsn);
    }
    let (wake, woken) = channel();
    let waker: Waker = Box::new(move || wake.send(()).unwrap_or_default());
    let handle = host.attach(waker);
    let mut waiting = feed.into_iter();
    let mut batch: Vec<Commit> = waiting.by_ref().take(FEED_BATCH).collect();
    let mut heard = Vec::new();
    while !missing.is_empty() {
        host.goes_on("feeding the store");
        match handle.try_commit(std::mem::take(&mut batch)) {
            Ok(()) => batch = waiting.by_ref().take(FEED_BATCH).collect(),
            Err(back) => batch = back,
        }
        if batch.is_empty() || handle.backlog() > FEED_BATCH * 8 {
            host.await_store(&woken)?;
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

#[cfg(test)]
mod tests;
