//! Merges what journals of all incarnations and shards left into the requests as they were. Pure.
//!
//! A request is its log, and a log only grows: records that come again (an image in a later incarnation, steps that a
//! crash made two incarnations write) add what is new and must agree with what is known. An image that is too long for
//! one record comes in parts, and a tail that was kept waits until they reach it.
//!
//! An id may be used again when its request is over and out of retention: its log begins anew, and what is merged is
//! the last life.

use super::scan::Scan;
use super::{Incarnation, Lsn};
use crate::fsm::fold::Fold;
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::types::{LogEntry, Record, RequestLog, Step, UnixMs};
use crate::wire::record::{RECORD_OVERHEAD_MAX, entry_len_max};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One shard's journal of one incarnation, read and found whole.
#[derive(Clone, Debug)]
pub struct RecoveredShard {
    /// Boot that wrote it.
    pub incarnation: Incarnation,
    /// Shard within that boot.
    pub shard: u16,
    /// Its directory.
    pub dir: PathBuf,
    /// What it holds.
    pub scan: Scan,
}

/// A record on its way to the store, which knows by the first three what it already has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fed {
    /// Boot that wrote it.
    pub incarnation: Incarnation,
    /// Shard within that boot.
    pub shard: u16,
    /// Its number in that journal.
    pub lsn: Lsn,
    /// The record.
    pub record: Record,
}

/// The end of a log whose beginning was dropped from the journal because the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail {
    /// `seq` of the first entry, above 1.
    pub first_seq: u32,
    /// In order, not empty.
    pub entries: Vec<LogEntry>,
}

/// A driver's last word about its shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffShift {
    /// When.
    pub at_ms: UnixMs,
    /// Off or on.
    pub off: bool,
}

/// Everything that was recovered, merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Requests whose whole log is known, ended ones among them; the last life of an id that was used again.
    pub requests: BTreeMap<RequestId, RequestLog>,
    /// Requests whose beginning only the store has. They had nothing more to do when it was dropped, or an image of
    /// them would be there.
    pub tails: BTreeMap<RequestId, Tail>,
    /// All records, by incarnation, shard and number.
    pub feed: Vec<Fed>,
    /// Drivers and when they were first seen.
    pub drivers_seen: BTreeMap<DriverId, UnixMs>,
    /// The last word of every driver that said one.
    pub off_shift: BTreeMap<DriverId, OffShift>,
}

/// The records contradict each other: our fault, or files of different nodes were mixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayError {
    /// Boot that wrote the record.
    pub incarnation: Incarnation,
    /// Shard within that boot.
    pub shard: u16,
    /// Number of the record.
    pub lsn: Lsn,
    /// Whose log.
    pub request_id: RequestId,
    /// What was expected and found.
    pub cause: String,
}

impl std::fmt::Display for ReplayError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            incarnation,
            shard,
            lsn,
            request_id,
            cause,
        } = self;
        write!(
            f,
            "the journal contradicts itself: {incarnation:08}/{shard:04}, record {lsn}, "
        )?;
        write!(f, "request {request_id}: {cause}")
    }
}

impl std::error::Error for ReplayError {}

impl Replay {
    /// Merges journals; they come by incarnation, then by shard, as [`super::recover_dir`] returns them.
    ///
    /// # Errors
    /// [`ReplayError`] when steps are missing in the middle of a log, or two records tell different stories.
    ///
    /// # Panics
    /// When the journals are not in that order.
    pub fn merge(shards: Vec<RecoveredShard>) -> Result<Self, ReplayError> {
        let order = |shard: &RecoveredShard| (shard.incarnation, shard.shard);
        assert!(
            shards.windows(2).all(|pair| order(&pair[0]) < order(&pair[1])),
            "journals come in order"
        );
        let mut replay = Self::default();
        for RecoveredShard {
            incarnation,
            shard,
            scan,
            ..
        } in shards
        {
            let dropped = scan.first_lsn > 1;
            for (lsn, record) in scan.records {
                replay
                    .apply(&record, dropped)
                    .map_err(|(request_id, cause)| ReplayError {
                        incarnation,
                        shard,
                        lsn,
                        request_id,
                        cause,
                    })?;
                replay.feed.push(Fed {
                    incarnation,
                    shard,
                    lsn,
                    record,
                });
            }
        }
        match replay.unreached() {
            Some(error) => Err(error),
            None => Ok(replay),
        }
    }

    /// A tail whose beginning came too short.
    fn unreached(&self) -> Option<ReplayError> {
        let (id, tail) = self.tails.iter().find(|(id, _)| self.requests.contains_key(*id))?;
        let next = self.requests[id].log.len() + 1;
        let last = self.feed.iter().rfind(|fed| request_of(&fed.record) == Some(id))?;
        Some(ReplayError {
            incarnation: last.incarnation,
            shard: last.shard,
            lsn: last.lsn,
            request_id: id.clone(),
            cause: format!("expected seq {next}, found {}", tail.first_seq),
        })
    }

    /// `dropped`: the record's journal no longer begins at its first record.
    fn apply(&mut self, record: &Record, dropped: bool) -> Result<(), (RequestId, String)> {
        match record {
            Record::Steps {
                request_id,
                first_seq,
                entries,
            } => {
                self.steps(request_id, *first_seq, entries, dropped)
                    .map_err(|cause| (request_id.clone(), cause))?;
            }
            Record::ImageRest {
                request_id,
                first_seq,
                entries,
            } => {
                let told = match first_seq {
                    0 | 1 => Err("the rest of an image without its beginning".to_owned()),
                    _ => self.steps(request_id, *first_seq, entries, dropped),
                };
                told.map_err(|cause| (request_id.clone(), cause))?;
            }
            Record::Image(RequestLog { request_id, log }) => {
                self.beginning(request_id, log)
                    .map_err(|cause| (request_id.clone(), cause))?;
            }
            Record::GivenUp { request_id } => {
                self.requests.remove(request_id);
                self.tails.remove(request_id);
            }
            // Says nothing of its steps.
            Record::Shared { .. } => {}
            Record::DriverSeen { driver_id, at_ms } => {
                let seen = self.drivers_seen.entry(driver_id.clone()).or_insert(*at_ms);
                *seen = (*seen).min(*at_ms);
            }
            Record::OffShift { driver_id, at_ms, off } => {
                self.off_shift.insert(
                    driver_id.clone(),
                    OffShift {
                        at_ms: *at_ms,
                        off: *off,
                    },
                );
            }
        }
        Ok(())
    }

    fn steps(&mut self, id: &RequestId, first_seq: u32, entries: &[LogEntry], dropped: bool) -> Result<(), String> {
        if first_seq == 0 || entries.is_empty() {
            return Err("a record without steps".to_owned());
        }
        if first_seq == 1 {
            return self.beginning(id, entries);
        }
        if let Some(known) = self.requests.get_mut(id) {
            extend(&mut known.log, 1, first_seq, entries)?;
            return self.join(id);
        }
        if let Some(tail) = self.tails.get_mut(id) {
            return extend(&mut tail.entries, tail.first_seq, first_seq, entries);
        }
        if !dropped {
            return Err(format!("expected seq 1, found {first_seq}"));
        }
        self.tails.insert(
            id.clone(),
            Tail {
                first_seq,
                entries: entries.to_vec(),
            },
        );
        Ok(())
    }

    /// `log` begins at seq 1.
    fn beginning(&mut self, id: &RequestId, log: &[LogEntry]) -> Result<(), String> {
        let Some(first) = log.first().filter(|first| matches!(first.step, Step::Received { .. })) else {
            return Err("a log that does not begin with its request".to_owned());
        };
        if self.begins_anew(id, first) {
            self.requests.remove(id);
            self.tails.remove(id);
        }
        if let Some(known) = self.requests.get_mut(id) {
            extend(&mut known.log, 1, 1, log)?;
        } else {
            let whole = RequestLog {
                request_id: id.clone(),
                log: log.to_vec(),
            };
            self.requests.insert(id.clone(), whole);
        }
        self.join(id)
    }

    /// Whether `first` begins another life of an id: nothing can change what is known of it, and it begins differently.
    /// Of a tail the end is not surely there, but a log's first step is never later than its others, and a shard takes
    /// an id again only days after its end.
    fn begins_anew(&self, id: &RequestId, first: &LogEntry) -> bool {
        match (self.requests.get(id), self.tails.get(id)) {
            (Some(known), None) => {
                known.log.first() != Some(first) && Fold::of(&known.log).is_ok_and(|fold| fold.is_closed())
            }
            (None, Some(tail)) => tail.entries.iter().all(|entry| entry.at_ms < first.at_ms),
            (Some(_), Some(_)) | (None, None) => false,
        }
    }

    /// Adds the tail to the beginning that now reaches it.
    fn join(&mut self, id: &RequestId) -> Result<(), String> {
        let Some(known) = self.requests.get_mut(id) else {
            return Ok(());
        };
        let reached = |tail: &Tail| tail.first_seq as usize <= known.log.len() + 1;
        if !self.tails.get(id).is_some_and(reached) {
            return Ok(());
        }
        match self.tails.remove(id) {
            Some(tail) => extend(&mut known.log, 1, tail.first_seq, &tail.entries),
            None => Ok(()),
        }
    }
}

/// Whose steps a record holds.
fn request_of(record: &Record) -> Option<&RequestId> {
    match record {
        Record::Steps { request_id, .. }
        | Record::Image(RequestLog { request_id, .. })
        | Record::ImageRest { request_id, .. }
        | Record::GivenUp { request_id }
        | Record::Shared { request_id } => Some(request_id),
        Record::DriverSeen { .. } | Record::OffShift { .. } => None,
    }
}

/// Adds to `log`, which begins at seq `begin`, what it does not have yet of `entries`, which begin at `first_seq`.
fn extend(log: &mut Vec<LogEntry>, begin: u32, first_seq: u32, entries: &[LogEntry]) -> Result<(), String> {
    let next = u64::from(begin) + log.len() as u64;
    if u64::from(first_seq) > next {
        return Err(format!("expected seq {next}, found {first_seq}"));
    }
    // What lies before a log that begins late is in the store.
    let entries = entries
        .get(begin.saturating_sub(first_seq) as usize..)
        .unwrap_or_default();
    let at = first_seq.saturating_sub(begin) as usize;
    let both = entries.len().min(log.len() - at);
    if let Some(differ) = (0..both).find(|index| log[at + index] != entries[*index]) {
        return Err(format!(
            "seq {} was told differently before",
            begin as usize + at + differ
        ));
    }
    log.extend_from_slice(&entries[both..]);
    Ok(())
}

/// The records that carry the whole of `log` into another segment or incarnation, none longer than `record_bytes_max`
/// ([`super::Writer::record_bytes_max`]): one [`Record::Image`], and [`Record::ImageRest`] for what does not fit in it.
///
/// # Panics
/// When the log is empty.
pub fn image_records(log: &RequestLog, record_bytes_max: usize) -> Vec<Record> {
    assert!(!log.log.is_empty(), "a log begins with its request");
    let mut records = Vec::with_capacity(1);
    let mut begin = 0;
    let mut bytes = RECORD_OVERHEAD_MAX;
    for (index, entry) in log.log.iter().enumerate() {
        let more = entry_len_max(entry);
        if bytes + more > record_bytes_max && index > begin {
            records.push(part(log, begin, index));
            begin = index;
            bytes = RECORD_OVERHEAD_MAX;
        }
        bytes += more;
    }
    records.push(part(log, begin, log.log.len()));
    records
}

fn part(log: &RequestLog, begin: usize, end: usize) -> Record {
    let request_id = log.request_id.clone();
    let entries = log.log[begin..end].to_vec();
    if begin == 0 {
        return Record::Image(RequestLog {
            request_id,
            log: entries,
        });
    }
    Record::ImageRest {
        request_id,
        first_seq: begin as u32 + 1,
        entries,
    }
}
