//! A store behind the store port ([`dispatchd::cold::port`]): its promises, simply kept. A batch at a time becomes
//! durable as a whole; a crash leaves the batch under way wholly there or not at all.

mod data;
mod full;

use super::fleet::{FarTables, Outbox, merge_rows};
use super::machine::{Event, Shared, Weather};
use crate::plan::Pace;
use data::{Data, page_of};
use dispatchd::cold::handle::{Ask, Inbox, ToLookup, ToStore};
use dispatchd::cold::owner::Found;
use dispatchd::cold::{
    Answer, Commit, DriverRecord, EndedIds, EndedRequest, EventsPage, Query, Source, StoreError, StoreHandle,
    StoreHealth,
};
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::types::UnixMs;
use full::Filler;
use std::cmp::Reverse;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Who hears what the tables of all have of a request.
type FarDone = Box<dyn FnOnce(Result<Option<Found>, StoreError>)>;

/// Where a row stands among its driver's: newest first.
pub(super) type Place = (Reverse<UnixMs>, RequestId, u32);

/// A long poll.
struct Poll {
    inbox: Arc<Inbox>,
    token: u64,
    from: u64,
    limit: u32,
    until_us: u64,
}

/// What is being made durable.
#[derive(Default)]
struct Batch {
    commits: Vec<(Arc<Inbox>, Commit)>,
    asks: Vec<Ask>,
    forget_before: u64,
}

/// The ends of the handles' channels.
struct Ends {
    writer: (
        crossbeam::channel::Sender<ToStore>,
        crossbeam::channel::Receiver<ToStore>,
    ),
    lookup: (
        crossbeam::channel::Sender<ToLookup>,
        crossbeam::channel::Receiver<ToLookup>,
    ),
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            writer: crossbeam::channel::unbounded(),
            lookup: crossbeam::channel::unbounded(),
        }
    }
}

/// See the module.
pub(super) struct SimStore {
    machine: Shared,
    pace: Pace,
    data: Data,
    ends: Ends,
    pub(super) health: Arc<StoreHealth>,
    ended_ids: Arc<EndedIds>,
    /// Bits of shards that the store has something for.
    pub(super) woken: Arc<AtomicU32>,
    queue: Batch,
    batch: Option<Batch>,
    lookups: VecDeque<Ask>,
    polls: Vec<Poll>,
    filler: Filler,
    /// Actions so far.
    pub(super) steps: u64,
    /// Of a fleet: the tables of all, and this node's name.
    far: Option<(FarTables, String)>,
    outbox: Outbox,
}

impl SimStore {
    pub(super) fn new(machine: Shared, pace: &Pace) -> Self {
        Self {
            machine,
            pace: pace.clone(),
            data: Data::default(),
            ends: Ends::default(),
            health: Arc::new(StoreHealth::default()),
            ended_ids: Arc::default(),
            woken: Arc::new(AtomicU32::new(0)),
            queue: Batch::default(),
            batch: None,
            lookups: VecDeque::new(),
            polls: Vec::new(),
            filler: Filler::default(),
            steps: 0,
            far: None,
            outbox: Outbox::default(),
        }
    }

    /// The store is opened again.
    pub(super) fn open(&mut self) {
        self.forget_process();
        self.health = Arc::new(StoreHealth::default());
        self.ended_ids = Arc::default();
        for id in self.data.ended.keys() {
            self.ended_ids.insert(0, id.hash64());
        }
        // Reading them takes a while: else it is through with the first batch that is stored.
        if self.machine.borrow_mut().rng.chance(500) {
            self.ended_ids.complete();
        }
    }

    /// Nobody asks anything, or waits for room.
    fn forget_process(&mut self) {
        self.ends = Ends::default();
        self.filler = Filler::default();
    }

    /// Rows that are on their way to the tables of a fleet, whose node this is from now on.
    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The process has joined its fleet.
    pub(super) fn joins(&mut self, far: FarTables, node: u8) {
        self.data.outbox = Some(Outbox::clone(&self.outbox));
        self.far = Some((far, crate::plan::node_name(node)));
    }

    /// A way to the store whose waker wakes this shard.
    pub(super) fn attach(&mut self, shard: u16) -> StoreHandle {
        let (writer, lookup) = (self.ends.writer.0.clone(), self.ends.lookup.0.clone());
        let woken = Arc::clone(&self.woken);
        let bit = 1 << shard;
        let wake = move || {
            woken.fetch_or(bit, Ordering::Relaxed);
        };
        let ended_ids = Arc::clone(&self.ended_ids);
        let handle = StoreHandle::new(writer, lookup, Box::new(wake))
            .with_surely_lacks(Arc::new(move |hash| ended_ids.surely_lacks(hash)));
        self.filler.attach(&handle);
        handle
    }

    /// As [`Self::attach`], with another waker.
    pub(super) fn attach_with(&self, waker: dispatchd::cold::Waker) -> StoreHandle {
        StoreHandle::new(self.ends.writer.0.clone(), self.ends.lookup.0.clone(), waker)
    }

    pub(super) fn watermarks(&self) -> Vec<(Source, u64)> {
        self.data
            .watermarks
            .iter()
            .map(|(source, lsn)| (*source, *lsn))
            .collect()
    }

    pub(super) fn forget_before(&mut self, incarnation: u64) {
        self.queue.forget_before = incarnation;
    }

    /// Drivers off shift since after `after_ms`, oldest first.
    pub(super) fn off_shift_since(&self, after_ms: UnixMs) -> Vec<(DriverId, UnixMs)> {
        let since = |(id, record): (&DriverId, &DriverRecord)| Some((record.off_shift_since?, id.clone()));
        let mut found: Vec<_> = self
            .data
            .drivers
            .iter()
            .filter_map(since)
            .filter(|(at, _)| *at > after_ms)
            .collect();
        found.sort();
        found.into_iter().map(|(at, id)| (id, at)).collect()
    }

    /// The store's disk has failed.
    pub(super) fn fail(&mut self) {
        self.health
            .fail(&StoreError::broken("simulated: the store's disk failed"));
    }

    /// The process is gone, and what it asked for and nobody took with it. The batch under way is there, or not.
    pub(super) fn crash(&mut self) {
        self.forget_process();
        if let Some(batch) = self.batch.take()
            && self.machine.borrow_mut().rng.chance(500)
        {
            self.apply(&batch);
        }
        self.queue = Batch::default();
        self.lookups.clear();
        self.polls.clear();
        self.far = None;
    }

    /// The end of a drain: what waits is stored.
    pub(super) fn shut_down(&mut self) {
        self.take_messages();
        for batch in [self.batch.take().unwrap_or_default(), std::mem::take(&mut self.queue)] {
            self.apply(&batch);
        }
        self.lookups.clear();
        self.polls.clear();
    }

    /// Fills the queues of all shards until then; says whether there are any.
    pub(super) fn fill(&mut self, until_us: u64) -> bool {
        self.take_messages();
        for shard in 0..self.filler.shards() {
            self.filler.fill(shard, until_us);
            self.take_messages();
        }
        self.listen();
        self.filler.shards() > 0
    }

    /// There is room again.
    pub(super) fn make_room(&mut self) {
        self.filler.make_room();
    }

    fn take_messages(&mut self) {
        while let Ok(message) = self.ends.writer.1.try_recv() {
            match message {
                ToStore::Commits(inbox, commits) if full::are_filler(&commits) => {
                    self.filler.taken(inbox, commits.len());
                }
                ToStore::Commits(inbox, commits) => {
                    let commits = commits.into_iter().map(|commit| (Arc::clone(&inbox), commit));
                    self.queue.commits.extend(commits);
                }
                ToStore::Query(ask) => self.queue.asks.push(ask),
                ToStore::EndWait(inbox, token) => self.end_wait(&inbox, token),
                ToStore::ForgetBefore(incarnation) => self.queue.forget_before = incarnation,
                ToStore::Shutdown => {}
            }
        }
    }

    /// A long poll whose caller went away: it waits no longer, wherever it stands.
    fn end_wait(&mut self, inbox: &Arc<Inbox>, token: u64) {
        let is_own = |one: &Arc<Inbox>, its: u64| its == token && Arc::ptr_eq(one, inbox);
        for poll in self.polls.iter_mut().filter(|poll| is_own(&poll.inbox, poll.token)) {
            poll.until_us = 0;
        }
        let asked = self.batch.iter_mut().flat_map(|batch| &mut batch.asks);
        for ask in asked
            .chain(&mut self.queue.asks)
            .filter(|ask| is_own(&ask.inbox, ask.token))
        {
            if let Query::Events { wait_ms, .. } = &mut ask.query {
                *wait_ms = 0;
            }
        }
        self.answer_polls();
    }

    fn is_full(&self) -> bool {
        let machine = self.machine.borrow();
        machine.now_us() < machine.weather.disk_full_until_us
    }

    /// Looks what was asked for, and plans when it is done. Called after everything that may have asked.
    pub(super) fn listen(&mut self) {
        while let Ok(ToLookup::Ask(ask)) = self.ends.lookup.1.try_recv() {
            let took_us = self.took_us(self.pace.store_lookup_us);
            self.lookups.push_back(ask);
            let mut machine = self.machine.borrow_mut();
            let (at, boot) = (machine.now_us() + took_us, machine.boot);
            machine.agenda.plan(at, Event::LookedUp { boot });
        }
        if self.filler.is_over(self.machine.borrow().now_us()) {
            self.filler.make_room();
        }
        self.take_messages();
        let nothing = self.queue.commits.is_empty() && self.queue.asks.is_empty();
        if self.batch.is_some() || nothing && self.queue.forget_before == 0 {
            return;
        }
        if self.health.fatal() {
            let error = StoreError::broken("simulated: the store has failed");
            return self.refuse(&error);
        }
        if self.is_full() {
            let error = StoreError::unavailable("simulated: the disk is full");
            self.health.stall(&error);
            return self.refuse(&error);
        }
        self.health.recover();
        let took_us = self.took_us(self.pace.store_round_us);
        self.batch = Some(std::mem::take(&mut self.queue));
        let mut machine = self.machine.borrow_mut();
        let (at, boot) = (machine.now_us() + took_us, machine.boot);
        machine.agenda.plan(at, Event::Stored { boot });
    }

    fn took_us(&self, range: (u64, u64)) -> u64 {
        let mut machine = self.machine.borrow_mut();
        let now_us = machine.now_us();
        machine.draw(range) + Weather::added(machine.weather.slow_store, now_us)
    }

    /// What was asked cannot be answered; commits go on waiting.
    fn refuse(&mut self, error: &StoreError) {
        for ask in self.queue.asks.drain(..) {
            ask.inbox.answer(ask.token, Answer::Failed(error.clone()));
        }
    }

    /// The batch is durable: says so, and answers what was asked with it.
    pub(super) fn stored(&mut self) {
        self.steps += 1;
        let Some(batch) = self.batch.take() else { return };
        self.ended_ids.complete();
        self.apply(&batch);
        let mut receipts: Vec<(Arc<Inbox>, Source, u64, usize)> = Vec::new();
        for (inbox, commit) in batch.commits {
            let same = |(one, source, ..): &&mut (Arc<Inbox>, Source, u64, usize)| {
                Arc::ptr_eq(one, &inbox) && *source == commit.source
            };
            if let Some((_, _, through, count)) = receipts.iter_mut().find(same) {
                *through = commit.lsn.max(*through);
                *count += 1;
            } else {
                receipts.push((inbox, commit.source, commit.lsn, 1));
            }
        }
        for (inbox, source, through, count) in receipts {
            inbox.release(count);
            inbox.stored(source, through);
        }
        for ask in batch.asks {
            self.answer_ordered(ask);
        }
        self.answer_polls();
        self.listen();
    }

    fn apply(&mut self, batch: &Batch) {
        for (_, commit) in &batch.commits {
            if let Some(ended) = &commit.ended {
                self.ended_ids.insert(0, ended.log.request_id.hash64());
            }
            self.data.apply(commit);
        }
        if batch.forget_before > 0 {
            let first = Source {
                incarnation: batch.forget_before,
                shard: 0,
            };
            self.data.watermarks = self.data.watermarks.split_off(&first);
        }
    }

    /// The oldest lookup is answered.
    pub(super) fn looked_up(&mut self) {
        self.steps += 1;
        let Some(Ask { inbox, token, query }) = self.lookups.pop_front() else {
            return;
        };
        let ended = |id: &RequestId| self.data.ended.get(id).cloned().map(Box::new);
        if let Some((far, _)) = &self.far {
            match &query {
                Query::Request(id) if ended(id).is_none() => {
                    return self.ask_far(far, inbox, token, |far, done| far.request(id, done), Answer::Request);
                }
                Query::Trip(id) if self.data.trips.get(id).and_then(ended).is_none() => {
                    return self.ask_far(far, inbox, token, |far, done| far.trip(id, done), Answer::Trip);
                }
                _ => {}
            }
        }
        let answer = match query {
            Query::Request(id) => Answer::Request(ended(&id)),
            Query::Trip(id) => Answer::Trip(self.data.trips.get(&id).and_then(ended)),
            Query::Driver(id) => Answer::Driver(self.data.drivers.get(&id).cloned()),
            Query::Records { .. } | Query::Events { .. } | Query::AckEvents { .. } => {
                unreachable!("ordered queries go to the writer")
            }
        };
        inbox.answer(token, answer);
    }

    /// Asks the tables of all for what this node does not know.
    fn ask_far(
        &self,
        far: &FarTables,
        inbox: Arc<Inbox>,
        token: u64,
        ask: impl FnOnce(&FarTables, FarDone),
        nothing: fn(Option<Box<EndedRequest>>) -> Answer,
    ) {
        if !self.health.is_reached() {
            let error = StoreError::unavailable("simulated: the tables do not answer");
            return inbox.answer(token, Answer::Failed(error));
        }
        ask(
            far,
            Box::new(move |found| {
                let answer = found.map(|found| match found {
                    None => nothing(None),
                    Some(found) => Answer::RequestElsewhere(Box::new(found.far)),
                });
                inbox.answer(token, answer.unwrap_or_else(Answer::Failed));
            }),
        );
    }

    fn answer_ordered(&mut self, ask: Ask) {
        let Ask { inbox, token, query } = ask;
        match query {
            Query::Records {
                driver_id,
                date,
                limit,
                before,
            } if self.far.is_some() => {
                let Some((far, node)) = &self.far else { return };
                let own = self.data.rows.get(&driver_id).cloned().unwrap_or_default();
                let node = node.clone();
                far.records(&driver_id, move |found| {
                    let page = found.and_then(|found| {
                        let all = merge_rows(own.iter(), &node, found);
                        page_of(all.into_values(), date, limit, before.as_deref())
                    });
                    inbox.answer(token, page.map_or_else(Answer::Failed, Answer::Records));
                });
            }
            Query::Records {
                driver_id,
                date,
                limit,
                before,
            } => {
                let answer = self.data.records(&driver_id, date, limit, before.as_deref());
                inbox.answer(token, answer.map_or_else(Answer::Failed, Answer::Records));
            }
            Query::AckEvents { consumer, cursor } => {
                let newest = self.data.events.len() as u64;
                let acked = self.data.consumers.entry(consumer.to_string()).or_insert(0);
                *acked = (*acked).max(cursor.min(newest));
                inbox.answer(token, Answer::EventsAcked { cursor: *acked });
            }
            Query::Events {
                after,
                wait_ms,
                limit,
                consumer,
            } => {
                let acked = consumer.map(|name| *self.data.consumers.entry(name.to_string()).or_insert(0));
                let from = after.or(acked).map_or(1, |seen| seen.saturating_add(1));
                let until_us = self.machine.borrow().now_us() + u64::from(wait_ms) * 1_000;
                if wait_ms > 0 {
                    let mut machine = self.machine.borrow_mut();
                    let boot = machine.boot;
                    machine.agenda.plan(until_us, Event::StoreDue { boot });
                }
                self.polls.push(Poll {
                    inbox,
                    token,
                    from,
                    limit,
                    until_us,
                });
            }
            Query::Request(_) | Query::Trip(_) | Query::Driver(_) => unreachable!("point queries go to the lookups"),
        }
    }

    /// Answers the polls for which there is something, and those whose time is up.
    pub(super) fn answer_polls(&mut self) {
        let now_us = self.machine.borrow().now_us();
        let newest = self.data.events.len() as u64;
        let data = &self.data;
        self.polls.retain(|poll| {
            if poll.from <= newest {
                poll.inbox
                    .answer(poll.token, Answer::Events(data.page(poll.from, poll.limit)));
                return false;
            }
            if poll.until_us <= now_us {
                poll.inbox.answer(poll.token, Answer::Events(EventsPage::default()));
                return false;
            }
            true
        });
    }
}
