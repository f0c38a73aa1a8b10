//! The writer thread: gathers what the shards committed, stores it in one atomic batch with one `fdatasync`, and only
//! then tells anybody.
//!
//! A turn: **gather** (wait for a message, sleep until a round is due, take what is there) → **rounds** (disk check, batch,
//! `fdatasync`, `Stored`) until the queue is empty → **settle** the queries that came with them → hand long polls their
//! events → at most one piece of **retention**.
//! Under load rounds start apart ([`ROUND_SPACING_MIN`] at least, and [`SYNC_SHARE`] times what the last one took on the
//! disk), so that one `fdatasync` serves many commits and the disk is free for the shards' journals most of the time; a
//! commit that comes alone is stored at once.
//!
//! When the disk is full nothing is written and nothing taken is given up: commits stay in the queue, shards feel it
//! fill, and the disk is asked again. When the engine fails, it is never written to again: see
//! [`StoreHealth::fatal`](super::StoreHealth::fatal).

use super::config::StoreConfig;
use super::events::EventLog;
use super::outbox::Outbox;
use super::polls::{Poll, Polls};
use super::queries::{Due, first_wanted, read_or_wait, settle};
use super::readers::ToPages;
use super::retention::{Swept, sweep};
use super::round::{Counts, Round, Tools};
use super::status::StoreHealth;
use super::tables::Tables;
use crate::cold::handle::{Ask, Inbox, ToStore};
use crate::cold::port::{Answer, Commit, EventsPage, Query, Source, StoreError};
use crate::fsm::types::UnixMs;
use crate::ops::metrics::StoreMetrics;
use crate::ops::process;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Name of the writer's thread.
pub const THREAD: &str = "store-writer";
/// Name that the engine gives to its threads.
const THREAD_OF_ENGINE: &str = "fjall:worker";
/// Least time between the starts of two rounds.
pub const ROUND_SPACING_MIN: Duration = Duration::from_millis(4);
/// Most that rounds are held apart, whatever the disk takes: events and queries wait for a round.
pub const ROUND_SPACING_MAX: Duration = Duration::from_millis(40);
/// The store is on the disk one part in this many of the time at most, as far as [`ROUND_SPACING_MAX`] lets it: a journal's
/// write that comes meanwhile waits for it, and offers wait for the journal.
pub const SYNC_SHARE: u32 = 8;
/// Most commits in one round.
pub const ROUND_COMMITS_MAX: usize = 4_096;
/// Commits and questions that have room while there are none.
const QUEUE_KEPT: usize = 1_024;
/// A round ends with the commit that takes it over this many bytes of callers' JSON.
pub const ROUND_BYTES_MAX: usize = 16 << 20;
/// Time between two looks at a full disk.
pub const STALL_RETRY: Duration = Duration::from_millis(500);
/// Time between two looks for what is out of retention.
pub const SWEEP_PERIOD_MS: UnixMs = 60_000;

/// The watermarks as other threads may see them: only what is durable.
pub type SharedWatermarks = Arc<Mutex<BTreeMap<Source, u64>>>;

/// What the writer thread owns and whom it talks to.
pub struct Writer {
    /// The keyspaces.
    pub tables: Arc<Tables>,
    /// Settings, clock, disk.
    pub config: StoreConfig,
    /// From the shards.
    pub received: Receiver<ToStore>,
    /// To the pages thread.
    pub pages: Sender<ToPages>,
    /// How the store is.
    pub health: Arc<StoreHealth>,
    /// Counters.
    pub metrics: Arc<StoreMetrics>,
    /// Durable watermarks, for others.
    pub shared_watermarks: SharedWatermarks,
    /// Event bookkeeping.
    pub events: EventLog,
    /// What the fleet's store is to get; `None`: there is no fleet.
    pub outbox: Option<Outbox>,
}

/// A commit's receipt: who hears of it when it is stored.
struct Receipt {
    inbox: Arc<Inbox>,
    source: Source,
    through: u64,
    commits: usize,
}

struct State {
    writer: Writer,
    watermarks: BTreeMap<Source, u64>,
    tools: Tools,
    queue: VecDeque<(Arc<Inbox>, Commit)>,
    asks: Vec<Ask>,
    forget_before: Option<u64>,
    polls: Polls,
    round_started: Option<Instant>,
    spacing: Duration,
    is_behind: bool,
    sweep_at_ms: UnixMs,
    stalled: bool,
    failed: Option<StoreError>,
    shut_down: bool,
}

impl Writer {
    /// Runs until shut down.
    ///
    /// # Errors
    /// The store failed, or what waited could not be stored.
    pub fn run(self) -> Result<(), StoreError> {
        let watermarks = self
            .shared_watermarks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut state = State {
            writer: self,
            watermarks,
            tools: Tools::default(),
            queue: VecDeque::new(),
            asks: Vec::new(),
            forget_before: None,
            polls: Polls::default(),
            round_started: None,
            spacing: ROUND_SPACING_MIN,
            is_behind: false,
            sweep_at_ms: 0,
            stalled: false,
            failed: None,
            shut_down: false,
        };
        while !state.shut_down {
            state.gather();
            state.write();
            state.answer_polls();
            state.sweep();
            state.publish_gauges();
        }
        state.finish()
    }
}

impl State {
    fn now(&self) -> UnixMs {
        (self.writer.config.surroundings.now_ms)()
    }

    /// Waits for something to do and takes what is there.
    fn gather(&mut self) {
        match self.receive_until(self.patience().map(|wait| Instant::now() + wait)) {
            Some(message) => self.take(message),
            None => return,
        }
        self.take_all();
        let Some(started) = self.round_started.filter(|_| !self.stalled && !self.queue.is_empty()) else {
            return;
        };
        if self.queue.len() < ROUND_COMMITS_MAX && !self.shut_down {
            // Asleep, and not at the channel: there every commit would wake this thread, on the core of a shard, and cost that shard a system
            // call. What comes meanwhile waits for the round anyway, but for the end of a wait, a shutdown, and the commit that makes a round
            // full: those are heard of up to [`ROUND_SPACING_MAX`] later.
            std::thread::sleep((started + self.spacing).saturating_duration_since(Instant::now()));
            self.take_all();
        }
    }

    /// Takes what is there. What is stalled stays here, bounded by the handles; what is not ends up in the next round.
    fn take_all(&mut self) {
        while self.stalled || self.queue.len() < ROUND_COMMITS_MAX {
            match self.writer.received.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => break,
            }
        }
    }

    /// How long nothing needs doing; `None`: for ever.
    fn patience(&self) -> Option<Duration> {
        let now = self.now();
        let sweep_at_ms = self.failed.is_none().then_some(self.sweep_at_ms);
        let due = [self.polls.next_deadline(), sweep_at_ms].into_iter().flatten().min();
        let wait = due.map(|due| Duration::from_millis(due.saturating_sub(now)));
        if self.stalled {
            return Some(wait.map_or(STALL_RETRY, |wait| wait.min(STALL_RETRY)));
        }
        wait
    }

    fn receive_until(&mut self, deadline: Option<Instant>) -> Option<ToStore> {
        let received = match deadline {
            Some(deadline) => self.writer.received.recv_deadline(deadline),
            None => self.writer.received.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                self.shut_down = true;
                None
            }
        }
    }

    fn take(&mut self, message: ToStore) {
        match message {
            ToStore::Commits(inbox, commits) => {
                let commits = commits.into_iter().map(|commit| (Arc::clone(&inbox), commit));
                self.queue.extend(commits);
            }
            ToStore::Query(ask) => self.asks.push(ask),
            ToStore::EndWait(inbox, token) => self.end_wait(&inbox, token),
            ToStore::ForgetBefore(incarnation) => {
                self.forget_before = self.forget_before.max(Some(incarnation));
                self.go_behind();
            }
            ToStore::Shutdown => self.shut_down = true,
        }
    }

    /// Lets what can wait go behind the shards, once. Not before the start is over, which waits for all of it. Lookups keep
    /// their priority: offers wait for them.
    fn go_behind(&mut self) {
        if std::mem::replace(&mut self.is_behind, true) {
            return;
        }
        if let Err(error) = process::lower_priority_of(&[THREAD, THREAD_OF_ENGINE]) {
            tracing::debug!(%error, "the store's threads keep their priority");
        }
    }

    /// Parked or about to be: the poll of this token waits no longer.
    fn end_wait(&mut self, inbox: &Arc<Inbox>, token: u64) {
        if let Some(poll) = self.polls.take(inbox, token) {
            return poll.inbox.answer(poll.token, Answer::Events(EventsPage::default()));
        }
        let own = |ask: &&mut Ask| ask.token == token && Arc::ptr_eq(&ask.inbox, inbox);
        if let Some(Query::Events { wait_ms, .. }) = self.asks.iter_mut().find(own).map(|ask| &mut ask.query) {
            *wait_ms = 0;
        }
    }

    /// Rounds until the queue is empty, then the queries; or refusals.
    fn write(&mut self) {
        let waited = self.queue.len().max(self.asks.len());
        loop {
            if let Some(error) = self.failed.clone() {
                return self.refuse_all(&error);
            }
            if self.stalled || self.needs_disk() {
                if let Err(error) = self.check_disk() {
                    self.stalled = true;
                    self.writer.metrics.failures.inc();
                    self.writer.health.stall(&error);
                    return self.answer_stalled(&error);
                }
                self.stalled = false;
                self.writer.health.recover();
            }
            if let Err(error) = self.round() {
                self.writer.metrics.failures.inc();
                self.writer.health.fail(&error);
                self.failed = Some(error);
            } else if self.queue.is_empty() {
                if waited < QUEUE_KEPT / 4 {
                    // The storm that needed more is over.
                    self.queue.shrink_to(QUEUE_KEPT);
                    self.asks.shrink_to(QUEUE_KEPT);
                }
                return;
            }
        }
    }

    fn needs_disk(&self) -> bool {
        let may_write = |ask: &Ask| match &ask.query {
            Query::AckEvents { .. } => true,
            Query::Events { consumer, .. } => consumer.is_some(),
            _ => false,
        };
        !self.queue.is_empty() || self.forget_before.is_some() || self.asks.iter().any(may_write)
    }

    fn check_disk(&self) -> Result<(), StoreError> {
        let free = (self.writer.config.surroundings.bytes_free)();
        let reserve = self.writer.config.disk_reserve_bytes;
        if free >= reserve {
            return Ok(());
        }
        Err(StoreError::unavailable(format!(
            "the disk is full: {free} bytes are free, {reserve} are kept in reserve"
        )))
    }

    /// One batch. Queries are settled with the last of the queue, so that each sees what was committed before it.
    fn round(&mut self) -> Result<(), StoreError> {
        let (now, round_began) = (self.now(), Instant::now());
        self.round_started = (!self.queue.is_empty()).then_some(round_began).or(self.round_started);
        let (it, tools) = (&mut self.writer, &mut self.tools);
        let (events, outbox) = (&mut it.events, it.outbox.as_mut());
        let mut round = Round::begin(&it.tables, &it.config, tools, &mut self.watermarks, events, outbox, now);
        let mut receipts: Vec<Receipt> = Vec::new();
        let (mut commits, mut bytes) = (0, 0);
        while commits < ROUND_COMMITS_MAX && bytes < ROUND_BYTES_MAX {
            let Some((inbox, commit)) = self.queue.pop_front() else {
                break;
            };
            commits += 1;
            bytes += commit.bulk_bytes();
            let source = commit.source;
            let through = round.add(commit)?;
            note(&mut receipts, inbox, source, through);
        }
        let mut due = Vec::new();
        if self.queue.is_empty() {
            for ask in self.asks.drain(..) {
                due.push(settle(&mut round, ask, now));
            }
            if let Some(incarnation) = self.forget_before.take() {
                round.forget_before(incarnation);
            }
        }
        let commit_began = Instant::now();
        let written = round.commit();
        self.spacing = (commit_began.elapsed() * SYNC_SHARE).clamp(ROUND_SPACING_MIN, ROUND_SPACING_MAX);
        if matches!(&written, Ok(Some(counts)) if counts.batches > 0) {
            let took = round_began.elapsed();
            self.writer.metrics.commit_latency.record_us(took.as_micros() as u64);
        }
        if let Err(error) = &written {
            // The queries are out of the list already: they get their refusal here.
            for due in due.drain(..) {
                due.refuse(error);
            }
        }
        if let Some(counts) = written? {
            self.report(counts, receipts);
        }
        self.carry_out(due);
        Ok(())
    }

    /// Everything in `receipts` is durable: says so.
    fn report(&mut self, counts: Counts, receipts: Vec<Receipt>) {
        let metrics = &self.writer.metrics;
        metrics.batches.add(counts.batches);
        metrics.commits.add(counts.commits);
        metrics.commits_repeated.add(counts.repeated);
        metrics.rows.add(counts.rows);
        metrics.events.add(counts.events);
        metrics.ended.add(counts.ended);
        let db = &self.writer.tables.db;
        metrics.write_buffers_bytes.set(db.write_buffer_size());
        metrics.cache_bytes.set(db.cache_size());
        self.writer
            .shared_watermarks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(&self.watermarks);
        for receipt in receipts {
            receipt.inbox.release(receipt.commits);
            receipt.inbox.stored(receipt.source, receipt.through);
        }
    }

    fn carry_out(&mut self, due: Vec<Due>) {
        for due in due {
            match due {
                Due::Reply(inbox, token, answer) => inbox.answer(token, answer),
                Due::Page(page) => self.send_page(page),
                Due::Park(deadline, poll) => {
                    if let Err(poll) = self.polls.park(deadline, poll) {
                        poll.inbox.answer(poll.token, Answer::Events(EventsPage::default()));
                    }
                }
            }
        }
    }

    /// Nothing can be written now. What needs writing, or what was committed before, is refused; events that are durable
    /// are still read.
    fn answer_stalled(&mut self, error: &StoreError) {
        let (now, oldest, newest) = (self.now(), self.writer.events.oldest(), self.writer.events.newest());
        let mut due = Vec::new();
        for Ask { inbox, token, query } in self.asks.drain(..) {
            due.push(match query {
                Query::Events {
                    after,
                    wait_ms,
                    limit,
                    consumer,
                } => {
                    let acked = consumer.and_then(|name| self.writer.events.acked(&name));
                    let from = first_wanted(after, acked, oldest);
                    let poll = Poll {
                        inbox,
                        token,
                        from,
                        limit,
                    };
                    read_or_wait(poll, oldest, newest, now, wait_ms)
                }
                _ => Due::Reply(inbox, token, Answer::Failed(error.clone())),
            });
        }
        self.carry_out(due);
    }

    /// The store has failed: nobody waits for anything any more.
    fn refuse_all(&mut self, error: &StoreError) {
        for ask in self.asks.drain(..) {
            ask.inbox.answer(ask.token, Answer::Failed(error.clone()));
        }
        for poll in self.polls.take_due(UnixMs::MAX) {
            poll.inbox.answer(poll.token, Answer::Failed(error.clone()));
        }
    }

    fn answer_polls(&mut self) {
        let (oldest, newest) = (self.writer.events.oldest(), self.writer.events.newest());
        if self.failed.is_none() {
            for poll in self.polls.take_ready(newest) {
                self.send_page(ToPages::Events { poll, oldest, newest });
            }
        }
        for poll in self.polls.take_due(self.now()) {
            poll.inbox.answer(poll.token, Answer::Events(EventsPage::default()));
        }
    }

    fn send_page(&self, page: ToPages) {
        // The pages thread outlives this one; were it gone, its panic has marked the store as failed.
        let _ = self.writer.pages.send(page);
    }

    fn sweep(&mut self) {
        let now = self.now();
        if now < self.sweep_at_ms || self.failed.is_some() {
            return;
        }
        let it = &mut self.writer;
        match sweep(&it.tables, &it.config, &mut it.events, it.outbox.as_mut(), now) {
            Ok(Swept::Nothing) => {
                self.sweep_at_ms = now + SWEEP_PERIOD_MS;
                it.metrics.index_bytes.set(it.tables.index_bytes() as u64);
                // Files that are being replaced at this moment make it fail; the next sweep asks again.
                if let Ok(bytes) = it.tables.db.disk_space() {
                    it.metrics.disk_bytes.set(bytes);
                }
            }
            Ok(Swept::Partition(keyspace)) => {
                tracing::info!(partition = %keyspace.name(), "a partition is needed no more and dropped");
                self.writer.metrics.partitions_dropped.inc();
                self.send_page(ToPages::Discard(keyspace));
            }
            Ok(Swept::Entry) => {}
            Err(error) => {
                self.writer.health.fail(&error);
                self.refuse_all(&error);
                self.failed = Some(error);
            }
        }
    }

    fn publish_gauges(&self) {
        let (metrics, events) = (&self.writer.metrics, &self.writer.events);
        metrics.queue.set(self.queue.len() as u64);
        metrics.polls_parked.set(self.polls.len() as u64);
        metrics.events_newest.set(events.newest());
        metrics.events_kept.set(events.newest() + 1 - events.oldest());
        metrics.events_kept_bytes.set(events.bytes());
        // The log counts from the opening on.
        metrics
            .events_dropped
            .add(events.dropped() - metrics.events_dropped.get());
    }

    fn finish(mut self) -> Result<(), StoreError> {
        for poll in self.polls.take_due(UnixMs::MAX) {
            poll.inbox.answer(poll.token, Answer::Events(EventsPage::default()));
        }
        if let (Some(outbox), None) = (&mut self.writer.outbox, &self.failed) {
            outbox.store_mark(&self.writer.tables)?;
        }
        match self.failed {
            Some(error) => Err(error),
            None if self.queue.is_empty() => Ok(()),
            None => Err(StoreError::unavailable(format!(
                "{} commits are not stored: the disk is full; the journal still has them",
                self.queue.len()
            ))),
        }
    }
}

/// Adds a commit to its shard's and source's receipt. Few of both, and nearly always the last one again.
fn note(receipts: &mut Vec<Receipt>, inbox: Arc<Inbox>, source: Source, through: u64) {
    let same = |receipt: &&mut Receipt| receipt.source == source && Arc::ptr_eq(&receipt.inbox, &inbox);
    if let Some(receipt) = receipts.iter_mut().rev().find(same) {
        receipt.through = receipt.through.max(through);
        receipt.commits += 1;
        return;
    }
    receipts.push(Receipt {
        inbox,
        source,
        through,
        commits: 1,
    });
}
