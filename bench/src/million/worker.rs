//! The parts of the load: each a session with a ring and local addresses of its own, its drivers and its share of the offers;
//! and a load thread, which has some of them.
//!
//! All parts go through the same stages, which the conductor sets; each says how far it is in counters that only it
//! writes. A thread ends with the stage `End`, or by itself with an error that the conductor finds.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use super::beats::Beats;
use super::bell::Bell;
use super::people::{Manners, People, Story, react};
use super::timing::{Counts, Timings};
use crate::measure::Clock;
use crate::message::{DriverState, Message};
use crate::report::Faults;
use crate::session::{EventKind, Gone, Place, Session};

/// Longest sleep of a thread: how soon it sees a new stage, ns.
const SLEEP_NS: u64 = 20_000_000;
/// A refused handshake is tried again after this time, ns.
const RETRY_NS: u64 = 50_000_000;
/// Stories that each part tells at the end.
const STORIES: usize = 16;

/// Local addresses of a part of the load: as many as the 20,000 connections that its ring can have need, and one more.
const ADDRESSES_PER_PART: u32 = 3;

/// What all parts do at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// Connect everybody, then only heartbeats.
    Connect,
    /// Offers as well.
    Offers,
    /// Nothing new; what is under way ends.
    Settle,
    /// The server closes everybody.
    Drain,
    /// Everybody comes back.
    Storm,
    /// Cut everything and end.
    End,
}

const STAGES: [Stage; 6] = [
    Stage::Connect,
    Stage::Offers,
    Stage::Settle,
    Stage::Drain,
    Stage::Storm,
    Stage::End,
];

/// What the conductor and all parts share.
pub struct Shared {
    stage: AtomicU8,
    /// What each part says of itself, in their order.
    pub says: Vec<Says>,
}

/// What a part says of itself; it alone writes.
#[derive(Default)]
#[repr(align(128))]
pub struct Says {
    /// Drivers whose `WELCOME` has come and whose socket is open.
    pub connected: AtomicU32,
    /// Drivers whose connection is over since the drain began.
    pub drained: AtomicU32,
    /// Requests and trips under way.
    pub open: AtomicU32,
    /// Heartbeats answered.
    pub pongs: AtomicU64,
    /// Requests posted.
    pub posted: AtomicU64,
    /// Handshakes refused with 429 or 503, to be tried again.
    pub refused: AtomicU64,
}

impl Shared {
    /// For this many parts, in the first stage.
    pub fn new(parts: u32) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Connect as u8),
            says: std::iter::repeat_with(Says::default).take(parts as usize).collect(),
        }
    }

    /// The stage now.
    pub fn stage(&self) -> Stage {
        STAGES[usize::from(self.stage.load(Ordering::Acquire))]
    }

    /// Sets the stage.
    pub fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    /// The sum of what all parts say.
    pub fn sum(&self, what: impl Fn(&Says) -> u64) -> u64 {
        self.says.iter().map(what).sum()
    }

    /// Drivers connected.
    pub fn connected(&self) -> u64 {
        self.sum(|says| u64::from(says.connected.load(Ordering::Relaxed)))
    }
}

/// What a part is to do.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    /// Which part this is, from 0.
    pub index: u32,
    /// Number of its first driver in the run.
    pub first_driver: u32,
    /// Its drivers.
    pub drivers: u32,
    /// Where its connections come from.
    pub local: Ipv4Addr,
    /// Where the server listens.
    pub address: SocketAddrV4,
    /// Handshakes under way at once.
    pub connecting_max: u32,
    /// Time between two offers of this part, ns.
    pub offer_interval_ns: u64,
    /// When this part's first offer leaves, ns after the stage began.
    pub offer_offset_ns: u64,
    /// Time between two heartbeats of a driver, ns.
    pub heartbeat_ns: u64,
    /// How drivers behave.
    pub manners: Manners,
}

/// What a part has seen.
pub struct Seen {
    /// What was counted.
    pub counts: Counts,
    /// All latencies.
    pub timings: Timings,
    /// What the contract does not allow.
    pub faults: Faults,
    /// Requests to be compared with their audits.
    pub stories: Vec<Story>,
    /// Heartbeats that were not answered before the driver's next one.
    pub missed: u64,
}

/// The first local address of a part of the load; the next few are its own too.
pub fn local_address(index: u32) -> Ipv4Addr {
    // 127.0.0.1 is the server's; 127.1.0.0 to 127.1.255.255 are nobody's.
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + ADDRESSES_PER_PART * index)
}

/// The life of a load thread, with a part for each task.
///
/// # Errors
/// A ring's, or the server is not there.
pub fn run(tasks: &[Task], shared: &Arc<Shared>) -> io::Result<Vec<Seen>> {
    let (bell, clock) = (Bell::new()?, Clock::start());
    let mut workers = tasks
        .iter()
        .map(|task| open(*task, shared, clock, &bell))
        .collect::<io::Result<Vec<_>>>()?;
    let mut rang = true;
    loop {
        let (stage, now_ns) = (shared.stage(), clock.now_ns());
        let mut until_ns = now_ns + SLEEP_NS;
        for worker in &mut workers {
            until_ns = until_ns.min(worker.turn(stage, now_ns, rang)?);
        }
        if stage == Stage::End {
            return workers.into_iter().map(Worker::end).collect();
        }
        // The kernel signals for what this thread has just reaped, too: what came meanwhile is looked for once more.
        rang = bell.hush()?;
        let rest_ns = until_ns.saturating_sub(clock.now_ns());
        if rest_ns > 0 && !(rang && workers.iter_mut().any(|worker| worker.session.has_work())) {
            rang = bell.sleep(rest_ns)?;
        }
    }
}

fn open<'a>(task: Task, shared: &'a Arc<Shared>, clock: Clock, bell: &Bell) -> io::Result<Worker<'a>> {
    let place = Place {
        first_driver: task.first_driver,
        local: Some(task.local),
        own_heartbeats: true,
        clock: Some(clock),
    };
    let session = Session::open_as(place, task.address, task.drivers, 1)?;
    session.signal(bell.fd())?;
    let started_ns = session.now_ns();
    Ok(Worker {
        says: &shared.says[task.index as usize],
        people: People::new(task.index, task.first_driver, task.drivers, task.manners),
        beats: Beats::new(task.drivers, task.heartbeat_ns, started_ns),
        todo: (0..task.drivers).collect(),
        retry: VecDeque::new(),
        connecting: 0,
        offer_due_ns: u64::MAX,
        due_ns: 0,
        stage: Stage::Connect,
        timings: Timings::default(),
        missed: 0,
        session,
        task,
    })
}

struct Worker<'a> {
    task: Task,
    says: &'a Says,
    session: Session,
    people: People,
    beats: Beats,
    todo: VecDeque<u32>,
    retry: VecDeque<(u64, u32)>,
    connecting: u32,
    offer_due_ns: u64,
    /// When it next has something to do, unless something comes.
    due_ns: u64,
    stage: Stage,
    timings: Timings,
    missed: u64,
}

impl Worker<'_> {
    /// Does what is due, submits, and reacts to what came, if anything came (`looks`: perhaps). Returns when it is to be called
    /// again, whatever comes.
    fn turn(&mut self, stage: Stage, now_ns: u64, looks: bool) -> io::Result<u64> {
        if stage == self.stage && now_ns < self.due_ns && !(looks && self.session.has_work()) {
            return Ok(self.due_ns);
        }
        // Read anew: how late a heartbeat is, is counted to where it leaves, after those of the parts before.
        let now_ns = self.session.now_ns();
        self.act(stage, now_ns)?;
        self.session.turn(now_ns)?;
        self.react()?;
        self.say();
        // What it just said, or what came meanwhile, is not to wait.
        self.due_ns = if self.session.has_work() {
            now_ns
        } else {
            self.next_ns(now_ns)
        };
        Ok(self.due_ns)
    }

    /// Does what is due.
    fn act(&mut self, stage: Stage, now_ns: u64) -> io::Result<()> {
        if stage != self.stage {
            self.enter(stage);
        }
        if matches!(stage, Stage::Connect | Stage::Storm) {
            self.connect(now_ns)?;
        }
        if stage == Stage::Offers {
            while self.offer_due_ns <= now_ns {
                self.people.post(&mut self.session, self.offer_due_ns);
                self.offer_due_ns += self.task.offer_interval_ns;
            }
        }
        if stage < Stage::Drain {
            self.people.send_due(&mut self.session)?;
        }
        self.beat(now_ns)
    }

    /// When there is something to do next.
    fn next_ns(&self, now_ns: u64) -> u64 {
        let mut next_ns = self.beats.next_ns();
        if matches!(self.stage, Stage::Connect | Stage::Storm) {
            let may_connect = self.connecting < self.task.connecting_max && !self.todo.is_empty();
            let retry_ns = self.retry.front().map_or(u64::MAX, |(due_ns, _)| *due_ns);
            next_ns = next_ns.min(if may_connect { now_ns } else { retry_ns });
        }
        if self.stage == Stage::Offers {
            next_ns = next_ns.min(self.offer_due_ns);
        }
        if self.stage < Stage::Drain {
            next_ns = next_ns.min(self.people.next_due_ns());
        }
        next_ns
    }

    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        match stage {
            Stage::Offers => self.offer_due_ns = self.session.now_ns() + self.task.offer_offset_ns,
            Stage::Storm => {
                // Everybody's connection is over (the conductor waited for that), whatever was under way before.
                self.todo = (0..self.task.drivers).collect();
                self.retry.clear();
                self.connecting = 0;
            }
            Stage::Connect | Stage::Settle | Stage::Drain | Stage::End => {}
        }
    }

    fn connect(&mut self, now_ns: u64) -> io::Result<()> {
        while self.retry.front().is_some_and(|(due_ns, _)| *due_ns <= now_ns) {
            self.todo.extend(self.retry.pop_front().map(|(_, driver)| driver));
        }
        while self.connecting < self.task.connecting_max
            && let Some(driver) = self.todo.pop_front()
        {
            self.session.connect(driver)?;
            self.connecting += 1;
        }
        Ok(())
    }

    fn beat(&mut self, now_ns: u64) -> io::Result<()> {
        while let Some((driver, due_ns)) = self.beats.pop_due(now_ns) {
            if !self.session.is_open(driver) {
                continue;
            }
            if !self.beats.sent(driver) {
                self.missed += 1;
                self.people
                    .fault("heartbeats missed", || format!("driver {driver} had no PONG in time"));
            }
            self.timings.late.record(now_ns.saturating_sub(due_ns));
            self.session
                .say(driver, |payload| payload.extend_from_slice(crate::message::PING))?;
        }
        Ok(())
    }

    fn react(&mut self) -> io::Result<()> {
        let events = self.session.take_events();
        let mut result = Ok(());
        for event in &events {
            match react(&mut self.people, &mut self.session, event) {
                Ok(Some(kind)) => self.other(kind, event.at_ns),
                Ok(None) => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        self.session.recycle(events);
        result
    }

    /// What is not part of the workflow.
    fn other(&mut self, kind: &EventKind, at_ns: u64) {
        let draining = self.stage == Stage::Drain;
        match kind {
            EventKind::Message {
                driver,
                message: Message::Pong,
            } => match self.beats.answered(*driver) {
                Some(sent_ns) => {
                    let kind = if self.stage == Stage::Offers {
                        &mut self.timings.heartbeat
                    } else {
                        &mut self.timings.heartbeat_rush
                    };
                    kind.record(at_ns.saturating_sub(sent_ns));
                    self.says.pongs.fetch_add(1, Ordering::Relaxed);
                }
                None => self.people.fault("PONG without PING", || format!("driver {driver}")),
            },
            EventKind::Message {
                driver,
                message: Message::Welcome { state, .. },
            } => {
                self.connecting = self.connecting.saturating_sub(1);
                self.beats.forget(*driver);
                if *state != DriverState::Available {
                    self.people
                        .fault("not available", || format!("driver {driver} is welcomed as {state:?}"));
                }
            }
            EventKind::Gone {
                driver,
                why: Gone::Refused { status: 429 | 503 },
            } => {
                self.connecting = self.connecting.saturating_sub(1);
                self.says.refused.fetch_add(1, Ordering::Relaxed);
                self.retry.push_back((at_ns + RETRY_NS, *driver));
            }
            EventKind::Gone { driver, why } => {
                self.beats.forget(*driver);
                let expected = matches!(why, Gone::Draining { .. });
                if !(draining && expected) {
                    self.people.fault("drivers lost", || {
                        format!("driver {driver} in {:?}: {why:?}", self.stage)
                    });
                }
                if draining {
                    self.says.drained.fetch_add(1, Ordering::Relaxed);
                } else if self.stage != Stage::End {
                    // Counted as a fault; it comes back, so that the run can go on.
                    self.connecting = self.connecting.saturating_sub(1);
                    self.retry.push_back((at_ns + RETRY_NS, *driver));
                }
            }
            EventKind::Fault(what) if self.stage < Stage::Drain => self.people.fault("protocol", || what.clone()),
            // The server ends the matching engine's connections with its own end; a fault says so when it does that earlier.
            EventKind::Fault(_) | EventKind::HttpClosed { .. } => {}
            EventKind::Message { .. } | EventKind::Response { .. } => unreachable!("handled by the workflow"),
        }
    }

    fn say(&self) {
        let says = self.says;
        says.connected.store(self.session.connected(), Ordering::Relaxed);
        says.open.store(self.people.open(), Ordering::Relaxed);
        says.posted.store(self.people.counts().posted, Ordering::Relaxed);
    }

    fn end(mut self) -> io::Result<Seen> {
        let unanswered = self.people.open();
        if unanswered > 0 {
            self.people
                .fault("requests without an end", || format!("{unanswered} requests and trips"));
        }
        self.session.disconnect()?;
        let mut timings = self.people.take_timings();
        timings.add(&self.timings);
        Ok(Seen {
            counts: self.people.counts(),
            timings,
            faults: self.people.take_faults(),
            stories: self.people.stories(STORIES),
            missed: self.missed,
        })
    }
}
