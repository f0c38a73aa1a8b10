//! The durability port on one node: records go to the shard's journal, effects wait for the group commit, and what
//! is committed is fed to the store, after which segments and ended requests may go.
#![forbid(unsafe_code)]

use super::Platform;
use super::Shard;
use super::platform::{Done, Files, Job, Ring, Time};
use crate::cold::port::{Commit, EndedRequest, Source};
use crate::fsm::driver::ToSocket;
use crate::fsm::fold;
use crate::fsm::request::Durability;
use crate::fsm::types::{Record, RequestLog};
use crate::journal::{Lsn, Writer, image_records};
use crate::limits;
use crate::net::ConnId;
use crate::ops::metrics::RequestEnd;
use std::collections::{HashMap, VecDeque};

/// Requests that are written again in one turn so that an old segment can go.
const IMAGES_PER_TURN: usize = 64;
/// Segments that may pile up before live requests in the oldest are written again; more when those are many or long.
const SEGMENTS_KEPT: usize = 3;
/// Retry of a segment that could not be created (disk full).
pub(super) const SEGMENT_RETRY_MS: u64 = 250;

/// What a committed record leads to.
pub(super) enum After {
    /// Steps `from..to` of the request with this key.
    Steps {
        key: u32,
        from: usize,
        to: usize,
        wait: bool,
    },
    /// Only what the store is told.
    Feed(Box<Commit>),
    /// The request with this key leaves memory: another node has it.
    Forget { key: u32 },
    /// Nothing.
    Nothing,
}

impl After {
    /// Nobody waits for the record: it may wait for one that somebody waits for.
    fn is_patient(&self) -> bool {
        matches!(
            self,
            Self::Steps { wait: false, .. } | Self::Feed(_) | Self::Forget { .. }
        )
    }
}

/// What the driver with this key is to hear on this connection.
struct HeldMessage {
    key: u32,
    conn: ConnId,
    message: ToSocket,
}

/// The journal of a shard and everything that waits for it.
pub(super) struct Durable<File> {
    pub(super) writer: Writer,
    files: HashMap<u64, File>,
    awaiting: VecDeque<(Lsn, After)>,
    /// Answers that show uncommitted state, held until that is durable.
    held: VecDeque<(Lsn, super::Letter, u16)>,
    /// Messages to drivers, held until the change of shift before them is durable.
    held_messages: VecDeque<(Lsn, HeldMessage)>,
    feed: Vec<Commit>,
    /// Numbers of records that the store has been (or will be) told of and has not confirmed.
    unstored: VecDeque<Lsn>,
    /// Ended requests that leave memory once the store has them.
    ended: VecDeque<(Lsn, u32)>,
    /// Since when a segment is being created; 0: none is.
    pub(super) creating_since_us: u64,
    /// When the write that is under way began; 0: there is none.
    pub(super) write_started_us: u64,
    /// When it is looked at whether it still is; 0: never.
    pub(super) stall_look_ms: u64,
    /// The disk has not answered for longer than one that works takes.
    pub(super) hangs: bool,
    /// The last record that somebody waits for.
    urgent: Lsn,
    /// When the first of the records that nobody waits for is written at the latest; 0: whenever there is something to write.
    patient_until_ms: u64,
    imaging: Option<usize>,
    /// What the requests took on disk that were written again last, in bytes.
    imaging_bytes: u64,
    /// How long the journal is, in bytes, when requests may be written again: that is done as much as anything else is
    /// written, and no more. Else what is alive and does not fit the segments that are kept would be written without end.
    imaging_from_bytes: u64,
    /// Last record of an image, 0 for none. Until it is durable the records that it repeats stay; and so they do until
    /// the store has everything before it, which recovery cannot tell it without the log's beginning.
    imaged: Lsn,
    source: Source,
}

impl<File> Durable<File> {
    pub(super) fn new(writer: Writer, incarnation: u64, shard: u16) -> Self {
        Self {
            writer,
            files: HashMap::new(),
            awaiting: VecDeque::new(),
            held: VecDeque::new(),
            held_messages: VecDeque::new(),
            feed: Vec::new(),
            unstored: VecDeque::new(),
            ended: VecDeque::new(),
            creating_since_us: 0,
            write_started_us: 0,
            stall_look_ms: 0,
            hangs: false,
            urgent: 0,
            patient_until_ms: 0,
            imaging: None,
            imaging_bytes: 0,
            imaging_from_bytes: 0,
            imaged: 0,
            source: Source { incarnation, shard },
        }
    }

    /// Holds a message until `lsn`, the last change of that driver's shift, is durable. Raises `lsn` so that the messages of
    /// all drivers leave in the order in which they were held.
    pub(super) fn hold_message(&mut self, lsn: &mut Lsn, key: u32, conn: ConnId, message: ToSocket) {
        *lsn = self.held_messages.back().map_or(*lsn, |(last, _)| (*lsn).max(*last));
        // The driver waits now for what nobody waited for.
        self.urgent = self.urgent.max(*lsn);
        self.held_messages.push_back((*lsn, HeldMessage { key, conn, message }));
    }

    /// Somebody waits for a record after all.
    pub(super) fn hurry(&mut self, lsn: Lsn) {
        self.urgent = self.urgent.max(lsn);
    }

    /// Whether everything appended is durable.
    pub(super) fn is_settled(&self) -> bool {
        self.writer.is_idle() && self.awaiting.is_empty() && self.feed.is_empty() && self.unstored.is_empty()
    }

    /// Whether there is something to be done for it in each turn.
    pub(super) fn is_busy(&self) -> bool {
        !self.is_settled() || self.imaging.is_some()
    }

    /// Whether what waits is to be written now.
    fn is_due(&self, now_ms: u64) -> bool {
        self.urgent > self.writer.committed() || self.patient_until_ms <= now_ms
    }

    /// Whether live requests may be written again.
    fn may_image(&self) -> bool {
        self.imaging.is_none() && self.writer.bytes() >= self.imaging_from_bytes
    }

    /// Commits that the store has not confirmed.
    pub(super) fn backlog(&self) -> usize {
        self.unstored.len()
    }
}

impl<P: Platform> Shard<P> {
    /// Appends a record; `after` runs in a later turn, when it is durable.
    pub(super) fn append(&mut self, record: &Record, after: After) -> Lsn {
        let lsn = match self.durable.writer.append(record) {
            Ok(lsn) => lsn,
            // Bodies are bounded far below the longest record, and long logs are cut: this is our bug, and going on
            // would lie.
            Err(error) => self.fail("cannot encode a journal record", &error),
        };
        debug_assert!(self.durable.awaiting.back().is_none_or(|(last, _)| *last < lsn));
        if !after.is_patient() {
            self.durable.urgent = lsn;
        } else if self.durable.patient_until_ms == 0 {
            self.durable.patient_until_ms = self.now_ms + limits::JOURNAL_PATIENCE_MS;
            self.wake_at(self.durable.patient_until_ms);
        }
        self.durable.awaiting.push_back((lsn, after));
        lsn
    }

    /// Sends a letter once everything appended so far is durable.
    pub(super) fn post_durably(&mut self, to: u16, letter: super::Letter) {
        let last = self.durable.writer.next_lsn() - 1;
        if last <= self.durable.writer.committed() {
            self.post(to, letter);
        } else {
            self.durable.urgent = last;
            self.durable.held.push_back((last, letter, to));
        }
    }

    /// Submits the next group commit, asks for segments, feeds the store, lets old segments go.
    pub(super) fn keep_journal(&mut self) {
        let due = self.draining.is_some() || self.durable.is_due(self.now_ms);
        if due && let Some(write) = self.durable.writer.next_write() {
            self.durable.patient_until_ms = 0;
            let Some(file) = self.durable.files.get(&write.segment) else {
                self.fail("a journal segment without a file", &write.segment);
            };
            self.durable.write_started_us = self.clock.now_us();
            self.metrics().journal_bytes.add(write.len as u64);
            self.net
                .write_file(write.segment, file, write.offset, write.buffer, write.len);
            self.watch_write();
        }
        if self.durable.creating_since_us == 0
            && self.now_ms >= self.segment_retry_at_ms
            && let Some(id) = self.durable.writer.needs_segment()
        {
            self.durable.creating_since_us = self.clock.now_us();
            self.housekeeper
                .send(Job::Create(self.durable.writer.segment_header(id)));
        }
        if !self.durable.feed.is_empty()
            && let Err(back) = self.store.try_commit(std::mem::take(&mut self.durable.feed))
        {
            self.durable.feed = back;
        }
        self.image_old_requests();
        let metrics = self.metrics();
        metrics.journal_backlog_bytes.set(self.durable.writer.backlog_bytes());
        metrics.store_backlog.set(self.durable.backlog() as u64);
    }

    /// The housekeeping task has done something.
    pub(super) fn housekept(&mut self, done: Done<<P::Ring as Ring>::File>) {
        match done {
            Done::Created(id, Ok(file)) => {
                self.durable.creating_since_us = 0;
                self.durable.files.insert(id, file);
                self.durable.writer.add_segment(id);
                self.metrics()
                    .journal_segments
                    .set(self.durable.writer.segments().len() as u64);
            }
            Done::Created(id, Err(error)) => {
                self.durable.creating_since_us = 0;
                self.segment_retry_at_ms = self.now_ms + SEGMENT_RETRY_MS;
                tracing::warn!(shard = self.index, segment = id, %error, "cannot create a journal segment; trying again");
                self.wake_at(self.segment_retry_at_ms);
            }
            Done::Removed(Ok(())) => {}
            Done::Removed(Err(error)) => {
                tracing::warn!(shard = self.index, %error, "cannot remove old journal segments; the next start does");
            }
        }
    }

    /// A write of the journal is over.
    pub(super) fn written(&mut self, buffer: crate::aligned::AlignedBuffer, result: std::io::Result<usize>) {
        let committed = match self.durable.writer.completed(buffer, result) {
            Ok(committed) => committed,
            Err(error) => self.fail("the journal cannot be written", &error),
        };
        let metrics = self.metrics();
        metrics.journal_commits.inc();
        metrics.journal_records.add(u64::from(committed.records));
        metrics
            .journal_commit_latency
            .record_us(self.clock.now_us().saturating_sub(self.durable.write_started_us));
        self.durable.write_started_us = 0;
        while self
            .durable
            .awaiting
            .front()
            .is_some_and(|(lsn, _)| *lsn <= committed.through)
        {
            let Some((lsn, after)) = self.durable.awaiting.pop_front() else {
                break;
            };
            match after {
                After::Steps { key, from, to, wait } => self.steps_committed(lsn, key, from, to, wait),
                After::Feed(commit) => self.feed(Commit { lsn, ..*commit }),
                After::Forget { key } => self.forget_request(key),
                After::Nothing => {}
            }
        }
        while self
            .durable
            .held
            .front()
            .is_some_and(|(lsn, ..)| *lsn <= committed.through)
        {
            let Some((_, letter, to)) = self.durable.held.pop_front() else {
                break;
            };
            self.post(to, letter);
        }
        self.send_held_messages(committed.through);
        if (1..=committed.through).contains(&self.durable.imaged) {
            self.drop_segments();
        }
    }

    /// Sends what waited for changes of shift that are durable now.
    fn send_held_messages(&mut self, through: Lsn) {
        while self
            .durable
            .held_messages
            .front()
            .is_some_and(|(lsn, _)| *lsn <= through)
        {
            let Some((_, HeldMessage { key, conn, message })) = self.durable.held_messages.pop_front() else {
                break;
            };
            let is_there = |entry: &super::drivers::Entry| entry.conn == Some(conn);
            if self.drivers.slab.get(key as usize).is_some_and(is_there) {
                self.send(conn, key, &message);
                // An offer before it may have left when that was not looked at.
                self.net.tell_drained(conn);
            }
        }
        self.drivers.changing.retain(|_, lsn| *lsn > through);
        self.drivers.left_changing.retain(|_, lsn| *lsn > through);
    }

    fn steps_committed(&mut self, lsn: Lsn, key: u32, from: usize, to: usize, wait: bool) {
        let entry = &self.requests.slab[key as usize];
        let request = &entry.request;
        let mut commit = Commit::empty(self.durable.source, lsn);
        let log = &request.log()[..to];
        fold::published(request.id(), log, from, request.fold(), &mut commit.published);
        fold::rows(request.id(), log, from, request.fold(), &mut commit.rows);
        if request.fold().is_closed() && to == request.log().len() {
            // Of one that other nodes had a part of, what all nodes' store has is the whole.
            commit.ended = entry.is_whole().then(|| EndedRequest {
                log: RequestLog {
                    request_id: request.id().clone(),
                    log: log.to_vec(),
                },
                trip_id: request.fold().trip.as_ref().map(|trip| trip.trip_id.clone()),
                ended_at_ms: log.last().map_or(0, |entry| entry.at_ms),
            });
            self.durable.ended.push_back((lsn, key));
            if let Some(claims) = &self.claims {
                claims.handle.over(request.id().clone(), request.fold().received_at_ms);
            }
        }
        self.count_steps(key, from, to);
        if !commit.published.is_empty() || !commit.rows.is_empty() || commit.ended.is_some() {
            self.feed(commit);
        }
        self.news_stand(key, lsn);
        if wait {
            let mut effects = std::mem::take(&mut self.request_effects);
            self.requests.slab[key as usize]
                .request
                .durable(Durability::Committed, self.now_ms, &mut effects);
            self.apply_request(key, effects, self.now_us);
        }
    }

    fn count_steps(&self, key: u32, from: usize, to: usize) {
        use crate::fsm::types::Step;
        use crate::ops::metrics::OfferEvent;
        let metrics = self.metrics();
        let request = &self.requests.slab[key as usize].request;
        for entry in &request.log()[from..to] {
            let event = match &entry.step {
                Step::Received { priority, .. } => {
                    metrics.requests_received.of(*priority).inc();
                    continue;
                }
                Step::OfferSent { .. } => OfferEvent::Sent,
                Step::Delivered { .. } => OfferEvent::Delivered,
                Step::Acked { .. } => OfferEvent::Acked,
                Step::Accepted { .. } => OfferEvent::Accepted,
                Step::Declined { .. } => OfferEvent::Declined,
                Step::TimedOut { .. } => OfferEvent::TimedOut,
                Step::Refused { .. } => OfferEvent::Refused,
                Step::Revoked { .. } => OfferEvent::Revoked,
                Step::Exhausted => {
                    metrics.redispatches_requested.inc();
                    continue;
                }
                Step::TripCreated { .. } => {
                    metrics.requests_ended.of(RequestEnd::Accepted).inc();
                    continue;
                }
                Step::Cancelled { .. } => {
                    metrics.requests_ended.of(RequestEnd::Cancelled).inc();
                    continue;
                }
                Step::Unfulfilled { .. } => {
                    metrics.requests_ended.of(RequestEnd::Unfulfilled).inc();
                    continue;
                }
                Step::Redispatched { .. } | Step::PickedUp | Step::TripEnded { .. } => continue,
            };
            metrics.offers.of(event).inc();
        }
    }

    fn feed(&mut self, commit: Commit) {
        debug_assert!(self.durable.unstored.back().is_none_or(|last| *last < commit.lsn));
        self.durable.unstored.push_back(commit.lsn);
        self.durable.feed.push(commit);
    }

    /// The store has everything up to `through`.
    pub(super) fn stored(&mut self, through: Lsn) {
        while self.durable.unstored.front().is_some_and(|lsn| *lsn <= through) {
            self.durable.unstored.pop_front();
        }
        while self.durable.ended.front().is_some_and(|(lsn, _)| *lsn <= through) {
            let Some((_, key)) = self.durable.ended.pop_front() else {
                break;
            };
            self.forget_request(key);
        }
        self.drivers.stored(through);
        self.drop_segments();
    }

    /// Lets segments go in which nothing is open, unread by the store, or uncommitted.
    fn drop_segments(&mut self) {
        let committed = self.durable.writer.committed();
        let needed = self.durable.unstored.front().map_or(committed, |lsn| lsn - 1);
        if self.durable.writer.segments().len() < 2 || self.durable.imaged > needed {
            return;
        }
        self.durable.imaged = 0;
        let Some(oldest) = self
            .durable
            .writer
            .segments()
            .next()
            .filter(|oldest| oldest.last_lsn <= needed)
        else {
            return;
        };
        let pinned = |entry: &super::requests::Entry| entry.first_lsn <= oldest.last_lsn;
        if self.requests.slab.iter().any(|(_, entry)| pinned(entry)) {
            if self.durable.writer.segments().len() > SEGMENTS_KEPT && self.durable.may_image() {
                self.durable.imaging = Some(0);
                self.durable.imaging_bytes = 0;
            }
            return;
        }
        let dropped = self.durable.writer.drop_through(oldest.last_lsn);
        for id in &dropped {
            self.durable.files.remove(id);
        }
        self.metrics()
            .journal_segments
            .set(self.durable.writer.segments().len() as u64);
        if !dropped.is_empty() {
            self.housekeeper.send(Job::Remove(dropped));
        }
    }

    /// Writes live requests whose first record is in the oldest segment again, a few in each turn.
    fn image_old_requests(&mut self) {
        let Some(mut next) = self.durable.imaging else { return };
        let Some(last_lsn) = self.durable.writer.segments().next().map(|oldest| oldest.last_lsn) else {
            return;
        };
        let mut left = IMAGES_PER_TURN;
        while left > 0 {
            let Some(key) = (next..self.requests.slab.capacity()).find(|key| self.requests.slab.contains(*key)) else {
                self.durable.imaging = None;
                self.durable.imaging_from_bytes = self.durable.writer.bytes() + self.durable.imaging_bytes;
                return self.drop_segments();
            };
            next = key + 1;
            left -= 1;
            let entry = &self.requests.slab[key];
            if entry.first_lsn <= last_lsn && !entry.request.is_closed() {
                let before = self.durable.writer.bytes();
                self.image(key as u32);
                self.durable.imaging_bytes += self.durable.writer.bytes() - before;
            }
        }
        self.durable.imaging = Some(next);
    }

    /// Writes a request's whole log again: one record, or a few when it is too long for one.
    pub(super) fn image(&mut self, key: u32) {
        let entry = &self.requests.slab[key as usize];
        let (request_id, log) = (
            entry.request.id().clone(),
            entry.request.log()[..entry.journaled].to_vec(),
        );
        let shared = (!entry.is_whole()).then(|| Record::Shared {
            request_id: request_id.clone(),
        });
        let records = image_records(&RequestLog { request_id, log }, self.durable.writer.record_bytes_max());
        let mut first_lsn = Lsn::MAX;
        for record in shared.into_iter().chain(records) {
            // Nothing new, and recovery says the same of images and their rests.
            self.durable.imaged = self.append(&record, After::Nothing);
            first_lsn = first_lsn.min(self.durable.imaged);
        }
        self.requests.slab[key as usize].first_lsn = first_lsn;
    }

    /// The process cannot go on without lying about what is stored.
    pub(super) fn fail(&self, what: &str, error: &dyn std::fmt::Debug) -> ! {
        P::fail(self.index, what, error)
    }
}
