//! The load generator of the comparison: one client for all servers, on one ring. What is said is the [`Dialect`]'s.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::dialect::{Dialect, Greeting};
use crate::measure::{Clock, Latencies, Usage, UsageMeter};
use crate::report::Faults;
use crate::ring::{Chunk, Event, Ring, SockAddr};
use crate::server::Target;

/// Connections being opened at once.
const CONNECTING_MAX: usize = 128;
/// How long nothing may move, ns.
const STALL_NS_MAX: u64 = 10_000_000_000;
/// Longest sleep of one turn, ns.
const SLEEP_NS_MAX: u64 = 50_000_000;
/// Longest time between two looks of a client that stays awake, ns. More is not its own: the kernel's timers, an interrupt, another thread.
const AWAKE_NS_MAX: u64 = 5_000;
/// Orders after which a fixed rate is at the same phase of its own interval again.
const PHASES: u64 = 500;
/// Pauses of the core after a look that found nothing, so that the other thread of the same core, which may be the server's, has it.
const SPINS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    Opening(u8),
    Open,
    Closing,
}

struct Connection {
    phase: Phase,
    partial: Vec<u8>,
    /// When the push under way was meant to be ordered; 0 when none is.
    ordered_ns: u64,
}

/// A connection's news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is open.
    Opened(u32),
    /// A push that was ordered for it has come.
    Pushed(u32),
    /// It has ended and its slot is free.
    Closed(u32),
}

/// What a stretch of load took.
#[derive(Default)]
pub struct Outcome {
    /// CPU and wall time.
    pub usage: Usage,
    /// Operations that ended in it.
    pub operations: u64,
    /// From when an operation was meant to begin to its end.
    pub latencies: Latencies,
    /// Operations that are not in `latencies`: the client, which was to stay awake, did not run for a moment when they were due or when
    /// they ended.
    pub stalled: u64,
}

impl Outcome {
    /// Adds another stretch.
    pub fn add(&mut self, other: &Self) {
        self.usage.add(other.usage);
        self.operations += other.operations;
        self.latencies.add_sparse(&other.latencies.sparse());
        self.stalled += other.stalled;
    }

    /// Part of the operations that is not in the latencies, %.
    pub fn stalled_percent(&self) -> f64 {
        self.stalled as f64 * 100.0 / self.operations.max(1) as f64
    }
}

/// How pushes are ordered.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// The next when one has come: so many under way.
    Closed {
        /// Under way at once.
        in_flight: u32,
    },
    /// At fixed times, whatever has come; latencies count from those times.
    Open {
        /// Orders per second.
        rate: u32,
        /// Whether the client sleeps until the next is due or something comes.
        sleeps: bool,
    },
}

/// Unmeasured and measured time.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Before, s.
    pub warmup_s: f64,
    /// Measured, s.
    pub measured_s: f64,
}

/// Time between two orders at a fixed rate, ns: a little less than the rate's own, so that orders meet the kernel's tick (every 1 to 10 ms)
/// at all of its phases, and each of them alike. 5,000/s is 20 orders for each tick of 250 Hz: whether one of the 20 always meets it, which
/// is a twentieth of all and so the 99th percentile, or none ever does, would be decided by when a stretch began.
fn interval_ns(rate: u32) -> u64 {
    1_000_000_000 / u64::from(rate) * (PHASES - 1) / PHASES
}

/// See the module.
pub struct Client<'a> {
    ring: Ring,
    address: SockAddr,
    target: Target,
    dialect: &'a dyn Dialect,
    connections: Vec<Connection>,
    clock: Clock,
    scratch: Vec<u8>,
    answer: Vec<u8>,
    news: Vec<News>,
    latencies: Latencies,
    faults: Faults,
    /// The connection that the next stretch of pushes begins with.
    next: u32,
    /// When the ring was last looked at by a client that stays awake; 0: it did not look, it worked or slept.
    looked_ns: u64,
    /// From when to when such a client did not run the last time.
    stalled_ns: std::ops::Range<u64>,
    /// Whether that ended with the turn under way.
    is_stalled: bool,
    /// See [`Outcome::stalled`].
    stalled: u64,
}

impl<'a> Client<'a> {
    /// A client with room for this many connections.
    ///
    /// # Errors
    /// The ring's.
    pub fn open(target: Target, dialect: &'a dyn Dialect, connections: u32) -> io::Result<Self> {
        let free = || Connection {
            phase: Phase::Free,
            partial: Vec::new(),
            ordered_ns: 0,
        };
        Ok(Self {
            ring: Ring::new(connections)?,
            address: SockAddr::new(target.address),
            target,
            dialect,
            connections: std::iter::repeat_with(free).take(connections as usize).collect(),
            clock: Clock::start(),
            scratch: Vec::new(),
            answer: Vec::new(),
            news: Vec::new(),
            latencies: Latencies::new(),
            faults: Faults::default(),
            next: 0,
            looked_ns: 0,
            stalled_ns: 0..0,
            is_stalled: false,
            stalled: 0,
        })
    }

    /// What went wrong so far.
    pub fn take_faults(&mut self) -> Faults {
        std::mem::take(&mut self.faults)
    }

    /// Opens these connections.
    ///
    /// # Errors
    /// The ring's, or a connection ends, or nothing moves for ten seconds.
    pub fn connect_all(&mut self, slots: std::ops::Range<u32>) -> io::Result<()> {
        let total = slots.len();
        let (mut started, mut open) = (0, 0);
        let mut moved_ns = self.clock.now_ns();
        while open < total {
            while started < total && started - open < CONNECTING_MAX {
                self.connect(slots.start + started as u32)?;
                started += 1;
            }
            self.turn(u64::MAX)?;
            let news = std::mem::take(&mut self.news);
            if let Some(News::Closed(slot)) = news.iter().find(|news| matches!(news, News::Closed(_))) {
                return Err(io::Error::other(format!("connection {slot} ended while it was opened")));
            }
            open += news.len();
            self.check_moving(&mut moved_ns, !news.is_empty())?;
            self.recycle(news);
        }
        Ok(())
    }

    /// Waits until every connection of `slots` has had a push that nobody ordered here.
    ///
    /// # Errors
    /// The ring's, or nothing moves for ten seconds.
    pub fn wait_pushes(&mut self, slots: std::ops::Range<u32>) -> io::Result<()> {
        let now_ns = self.clock.now_ns();
        for slot in slots.clone() {
            self.connections[slot as usize].ordered_ns = now_ns.max(1);
        }
        let mut missing = slots.len();
        let mut moved_ns = now_ns;
        while missing > 0 {
            self.turn(u64::MAX)?;
            let news = std::mem::take(&mut self.news);
            missing -= news.iter().filter(|news| matches!(news, News::Pushed(_))).count();
            self.check_moving(&mut moved_ns, !news.is_empty())?;
            self.recycle(news);
        }
        Ok(())
    }

    /// Pushes to all connections in turn.
    ///
    /// # Errors
    /// The ring's, or the server misbehaves.
    pub fn push(&mut self, pace: Pace, times: Times) -> io::Result<Outcome> {
        // From whose turn it was when the last stretch ended: stretches that are short come round, too. Nobody whose push was lost.
        let count = self.connections.len() as u32;
        let mut idle: VecDeque<u32> = (self.next..count)
            .chain(0..self.next)
            .filter(|&slot| {
                let connection = &self.connections[slot as usize];
                connection.phase == Phase::Open && connection.ordered_ns == 0
            })
            .collect();
        let total = idle.len();
        let mut due_ns = self.clock.now_ns();
        let mut outcome = self.measured(times, |client, outcome, news, end_ns| {
            for news in news {
                match news {
                    News::Pushed(slot) => {
                        outcome.operations += 1;
                        idle.push_back(*slot);
                    }
                    other => client.faults.add("unexpected event", || format!("{other:?}")),
                }
            }
            client.order_due(pace, &mut idle, &mut due_ns, end_ns)
        })?;
        self.next = idle.front().copied().unwrap_or(0);
        let deadline_ns = self.clock.now_ns() + STALL_NS_MAX;
        let mut missing = total - idle.len();
        while missing > 0 && self.clock.now_ns() < deadline_ns {
            self.turn(u64::MAX)?;
            let pushed = self.news.drain(..).filter(|news| matches!(news, News::Pushed(_)));
            missing -= pushed.count();
        }
        // They were due in the measured time.
        let late = std::mem::take(&mut self.latencies);
        outcome.latencies.add_sparse(&late.sparse());
        outcome.stalled += std::mem::take(&mut self.stalled);
        if missing > 0 {
            self.faults.add("pushes lost", || missing.to_string());
        }
        Ok(outcome)
    }

    /// Opens connections and closes them politely, `in_flight` at a time; an operation ends when its connection has.
    ///
    /// # Errors
    /// The ring's, or the server misbehaves.
    pub fn churn(&mut self, times: Times) -> io::Result<Outcome> {
        let mut free: Vec<u32> = (0..self.connections.len() as u32).collect();
        self.measured(times, |client, outcome, news, _| {
            for news in news {
                match news {
                    News::Opened(slot) => client.close(*slot)?,
                    News::Closed(slot) => {
                        outcome.operations += 1;
                        free.push(*slot);
                    }
                    News::Pushed(_) => {}
                }
            }
            while let Some(slot) = free.pop() {
                client.connect(slot)?;
            }
            Ok(u64::MAX)
        })
    }

    /// Orders what is due and says when to look again.
    fn order_due(&mut self, pace: Pace, idle: &mut VecDeque<u32>, due_ns: &mut u64, end_ns: u64) -> io::Result<u64> {
        let now_ns = self.clock.now_ns();
        match pace {
            Pace::Closed { in_flight } => {
                let busy = self.connections.len() - idle.len();
                for _ in busy..in_flight as usize {
                    let Some(slot) = idle.pop_front() else { break };
                    self.order(slot, now_ns)?;
                }
                Ok(end_ns)
            }
            Pace::Open { rate, sleeps } => {
                while *due_ns <= now_ns
                    && let Some(slot) = idle.pop_front()
                {
                    self.order(slot, *due_ns)?;
                    *due_ns += interval_ns(rate);
                }
                // A core that programs its timer, or that has to be woken, costs the one that sends to it as much as a push (with both on
                // this machine), and how often the two meet depends on how soon that one answers.
                Ok(if sleeps {
                    end_ns.min((*due_ns).max(now_ns))
                } else {
                    now_ns
                })
            }
        }
    }

    /// Runs `step` before every turn, first unmeasured and then measured; it answers until when the turn may sleep.
    fn measured(
        &mut self,
        times: Times,
        mut step: impl FnMut(&mut Self, &mut Outcome, &[News], u64) -> io::Result<u64>,
    ) -> io::Result<Outcome> {
        let mut meter = UsageMeter::start(self.target.pid)?;
        let mut outcome = Outcome::default();
        for seconds in [times.warmup_s, times.measured_s] {
            outcome = Outcome::default();
            self.latencies = Latencies::new();
            (self.stalled, self.looked_ns) = (0, 0);
            meter.lap()?;
            let end_ns = self.clock.now_ns() + (seconds * 1e9) as u64;
            let mut moved_ns = self.clock.now_ns();
            while self.clock.now_ns() < end_ns {
                let news = std::mem::take(&mut self.news);
                self.check_moving(&mut moved_ns, !news.is_empty())?;
                let until_ns = step(self, &mut outcome, &news, end_ns)?;
                self.recycle(news);
                self.turn(until_ns.min(end_ns))?;
                if self.news.is_empty() {
                    // A client that never sleeps holds up for a tick what the kernel does on this core, the packets of its own included.
                    std::thread::yield_now();
                }
            }
            outcome.usage = meter.lap()?;
        }
        outcome.latencies = std::mem::take(&mut self.latencies);
        outcome.stalled = std::mem::take(&mut self.stalled);
        Ok(outcome)
    }

    fn check_moving(&self, moved_ns: &mut u64, moved: bool) -> io::Result<()> {
        let now_ns = self.clock.now_ns();
        if moved {
            *moved_ns = now_ns;
        }
        if now_ns > *moved_ns + STALL_NS_MAX {
            let what = format!("nothing has moved for ten seconds ({:?})", self.faults);
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        Ok(())
    }

    fn recycle(&mut self, mut news: Vec<News>) {
        if self.news.is_empty() {
            news.clear();
            self.news = news;
        }
    }

    fn connect(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        assert_eq!(connection.phase, Phase::Free, "a slot holds one connection at a time");
        connection.phase = Phase::Opening(0);
        connection.partial.clear();
        connection.ordered_ns = 0;
        let dialect = self.dialect;
        self.ring
            .connect(slot, &self.address, |block| dialect.hello(slot, block))
    }

    fn close(&mut self, slot: u32) -> io::Result<()> {
        self.connections[slot as usize].phase = Phase::Closing;
        let dialect = self.dialect;
        self.ring.send(slot, |block| dialect.goodbye(block))
    }

    fn order(&mut self, to: u32, intended_ns: u64) -> io::Result<()> {
        let state = &mut self.connections[to as usize];
        assert_eq!(state.ordered_ns, 0, "one push at a time for a connection");
        state.ordered_ns = intended_ns.max(1);
        let dialect = self.dialect;
        self.ring.send(to, |block| dialect.order(to, block))
    }

    fn turn(&mut self, until_ns: u64) -> io::Result<()> {
        let now_ns = self.clock.now_ns();
        let sleep_ns = until_ns.saturating_sub(now_ns).min(SLEEP_NS_MAX);
        self.is_stalled = self.looked_ns != 0 && now_ns > self.looked_ns + AWAKE_NS_MAX;
        if self.is_stalled {
            self.stalled_ns = self.looked_ns..now_ns;
        }
        let has_work = self.ring.has_work();
        self.ring.wait(Duration::from_nanos(sleep_ns))?;
        let mut found = false;
        while let Some(event) = self.ring.next_event()? {
            found = true;
            match event {
                Event::Data { slot, chunk } => self.data(slot, chunk)?,
                Event::Ended { slot, errno } => {
                    if errno != 0 && self.connections[slot as usize].phase != Phase::Closing {
                        let error = io::Error::from_raw_os_error(errno);
                        self.faults.add("connection lost", || format!("{slot}: {error}"));
                    }
                    self.ring.close(slot)?;
                }
                Event::Closed { slot } => {
                    self.connections[slot as usize].phase = Phase::Free;
                    self.news.push(News::Closed(slot));
                }
                // The receive's end follows.
                Event::Failed { .. } | Event::Sent { .. } => {}
                Event::Accepted { .. } => unreachable!("a client listens nowhere"),
            }
        }
        let only_looked = sleep_ns == 0 && !found && !has_work;
        self.looked_ns = if only_looked { now_ns } else { 0 };
        if sleep_ns == 0 && !found {
            for _ in 0..SPINS {
                std::hint::spin_loop();
            }
        }
        Ok(())
    }

    fn data(&mut self, slot: u32, chunk: Chunk) -> io::Result<()> {
        let at_ns = self.clock.now_ns();
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        bytes.append(&mut self.connections[slot as usize].partial);
        self.ring.take_data(chunk, &mut bytes);
        let mut consumed = 0;
        self.answer.clear();
        loop {
            match self.understand(slot, &bytes[consumed..], at_ns) {
                Ok(0) => break,
                Ok(length) => consumed += length,
                Err(what) => return Err(io::Error::other(format!("connection {slot}: {what}"))),
            }
        }
        if !self.answer.is_empty() {
            let answer = &self.answer;
            self.ring.send(slot, |block| block.extend_from_slice(answer))?;
        }
        self.connections[slot as usize]
            .partial
            .extend_from_slice(&bytes[consumed..]);
        self.scratch = bytes;
        Ok(())
    }

    /// Understands what stands at the beginning of `bytes` and answers its length, 0 when it is not whole.
    fn understand(&mut self, slot: u32, bytes: &[u8], at_ns: u64) -> Result<usize, String> {
        let connection = &mut self.connections[slot as usize];
        match connection.phase {
            Phase::Opening(step) => match self.dialect.greet(slot, step, bytes, &mut self.answer)? {
                Greeting::Partial => Ok(0),
                Greeting::Step(consumed) => {
                    connection.phase = Phase::Opening(step + 1);
                    Ok(consumed)
                }
                Greeting::Open(consumed) => {
                    connection.phase = Phase::Open;
                    self.news.push(News::Opened(slot));
                    Ok(consumed)
                }
            },
            Phase::Open => {
                let Some(read) = self.dialect.read(bytes, &mut self.answer)? else {
                    return Ok(0);
                };
                for _ in 0..read.pushes {
                    let ordered_ns = std::mem::take(&mut connection.ordered_ns);
                    if ordered_ns == 0 {
                        return Err("a push that nobody ordered".into());
                    }
                    // What was under way all of that time and goes on after it was not longer for it, however long that is.
                    if self.stalled_ns.contains(&ordered_ns) || self.is_stalled {
                        self.stalled += 1;
                    } else {
                        self.latencies.record(at_ns.saturating_sub(ordered_ns));
                    }
                    self.news.push(News::Pushed(slot));
                }
                Ok(read.consumed)
            }
            // The server's close, and what crossed ours on its way.
            Phase::Closing | Phase::Free => Ok(bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_meet_a_tick_at_all_of_its_phases_alike() {
        let parts = 100;
        for hz in [100, 250, 300, 1_000] {
            let tick_ns = 1_000_000_000 / hz;
            let mut met = vec![0_u32; parts];
            for order in 0..5_000 {
                let phase_ns = order * interval_ns(5_000) % tick_ns;
                met[(phase_ns * parts as u64 / tick_ns) as usize] += 1;
            }
            let (least, most) = (met.iter().min().unwrap(), met.iter().max().unwrap());
            assert!(*most <= 2 * least, "{hz} Hz: {met:?}");
        }
    }
}
