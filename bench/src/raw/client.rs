//! The client of the raw-ring server: what scenarios measure beside themselves.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::{Pair, Progress};
use crate::measure::{Clock, Latencies, Usage, UsageMeter, UserMemory, kernel_slab_bytes, socket_objects_bytes};
use crate::ring::{Event, Ring, SockAddr};
use crate::server::Target;

/// Connections being opened at once.
const CONNECTING_MAX: usize = 256;
/// How long nothing may move, ns.
const STALL_NS_MAX: u64 = 10_000_000_000;
/// Longest sleep of one turn.
const SLEEP_MAX: Duration = Duration::from_millis(50);
/// Time for memory to settle before it is read.
const SETTLE: Duration = Duration::from_millis(500);

/// What to do to the raw server.
#[derive(Debug, Clone)]
pub struct Load {
    /// Connections.
    pub connections: u32,
    /// Pairs (or handshakes) under way at once.
    pub in_flight: u32,
    /// Unmeasured time before, s.
    pub warmup_s: f64,
    /// Measured time, s.
    pub measured_s: f64,
    /// Sizes.
    pub pairs: Vec<Pair>,
}

/// What it took.
pub struct Outcome {
    /// CPU and wall time of the measured stretch.
    pub usage: Usage,
    /// Pairs (or handshakes) that ended in it.
    pub operations: u64,
    /// From the first byte sent to the last byte received.
    pub latencies: Latencies,
}

/// Memory of a process and of the machine, before and after idle connections.
#[derive(Debug, Clone, Copy)]
pub struct MemoryGrowth {
    /// Server's anonymous memory, bytes.
    pub anonymous: i64,
    /// Machine's slab, bytes, both ends of the connections together.
    pub slab: i64,
    /// The objects in use among it that sockets and rings are made of, bytes; 0 for others than root.
    pub objects: i64,
}

struct Connection {
    progress: Progress,
    started_ns: u64,
}

struct Client {
    ring: Ring,
    address: SockAddr,
    pairs: Vec<Pair>,
    bytes: &'static [u8],
    connections: Vec<Connection>,
    clock: Clock,
}

/// A connection's news.
enum News {
    /// A pair is complete.
    Done(u32),
    /// The connection has ended and its slot is free.
    Closed(u32),
}

impl Client {
    fn open(target: Target, pairs: &[Pair], connections: u32) -> io::Result<Self> {
        let longest = pairs.iter().map(|pair| pair.request).max().unwrap_or(1);
        let idle = || Connection {
            progress: Progress::default(),
            started_ns: 0,
        };
        Ok(Self {
            ring: Ring::new(connections)?,
            address: SockAddr::new(target.address),
            pairs: pairs.to_vec(),
            bytes: Box::leak(vec![b'x'; longest as usize].into_boxed_slice()),
            connections: std::iter::repeat_with(idle).take(connections as usize).collect(),
            clock: Clock::start(),
        })
    }

    fn connect(&mut self, slot: u32) -> io::Result<()> {
        let Pair { request, response } = self.pairs[0];
        let progress = Progress {
            pair: 0,
            missing: response,
        };
        self.connections[slot as usize] = Connection {
            progress,
            started_ns: self.clock.now_ns(),
        };
        let bytes = &self.bytes[..request as usize];
        self.ring
            .connect(slot, &self.address, |block| block.extend_from_slice(bytes))
    }

    fn request(&mut self, slot: u32) -> io::Result<()> {
        let connection = &mut self.connections[slot as usize];
        assert_eq!(connection.progress.missing, 0, "one pair at a time");
        connection.started_ns = self.clock.now_ns();
        let pair = (usize::from(connection.progress.pair) + 1) % self.pairs.len();
        connection.progress = Progress {
            pair: pair as u8,
            missing: self.pairs[pair].response,
        };
        self.ring
            .send_static(slot, &self.bytes[..self.pairs[pair].request as usize])
    }

    /// Sleeps until something arrives and says what it completes.
    fn turn(&mut self, news: &mut Vec<News>) -> io::Result<()> {
        self.ring.wait(SLEEP_MAX)?;
        while let Some(event) = self.ring.next_event()? {
            match event {
                Event::Data { slot, chunk } => {
                    let progress = &mut self.connections[slot as usize].progress;
                    let missing = progress.missing.checked_sub(chunk.len());
                    progress.missing = missing.ok_or_else(|| io::Error::other("the raw server answered too much"))?;
                    self.ring.release(chunk);
                    if progress.missing == 0 {
                        news.push(News::Done(slot));
                    }
                }
                Event::Ended { slot, errno: 0 } => self.ring.close(slot)?,
                Event::Failed { errno, .. } | Event::Ended { errno, .. } => {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                Event::Closed { slot } => news.push(News::Closed(slot)),
                Event::Sent { .. } => {}
                Event::Accepted { .. } => unreachable!("a client listens nowhere"),
            }
        }
        Ok(())
    }

    /// Opens all connections, each with one pair.
    fn connect_all(&mut self) -> io::Result<()> {
        let total = self.connections.len();
        let (mut started, mut done) = (0, 0);
        let mut moved_ns = self.clock.now_ns();
        let mut news = Vec::new();
        while done < total {
            while started < total && started - done < CONNECTING_MAX {
                self.connect(started as u32)?;
                started += 1;
            }
            self.turn(&mut news)?;
            moved_ns = if news.is_empty() { moved_ns } else { self.clock.now_ns() };
            done += news.len();
            if news.drain(..).any(|news| matches!(news, News::Closed(_))) {
                return Err(io::Error::other("the raw server closed a connection"));
            }
            check_moving(&self.clock, moved_ns)?;
        }
        Ok(())
    }
}

fn check_moving(clock: &Clock, moved_ns: u64) -> io::Result<()> {
    if clock.now_ns() > moved_ns + STALL_NS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the raw server does not answer",
        ));
    }
    Ok(())
}

/// Echoes in a closed loop: `in_flight` connections at a time, in turn over all of them.
///
/// # Errors
/// The ring's, or the raw server misbehaves.
pub fn echo(target: Target, load: &Load) -> io::Result<Outcome> {
    let mut client = Client::open(target, &load.pairs, load.connections)?;
    client.connect_all()?;
    let mut idle: VecDeque<u32> = (0..load.connections).collect();
    measured(target, load, &mut client, |client, outcome, news, in_flight| {
        for News::Done(slot) | News::Closed(slot) in news.drain(..) {
            let latency_ns = client.clock.now_ns() - client.connections[slot as usize].started_ns;
            outcome.operations += 1;
            outcome.latencies.record(latency_ns);
            *in_flight -= 1;
            idle.push_back(slot);
        }
        while *in_flight < load.in_flight
            && let Some(slot) = idle.pop_front()
        {
            client.request(slot)?;
            *in_flight += 1;
        }
        Ok(())
    })
}

/// Opens connections in a closed loop, exchanges all pairs on each, and lets the raw server end it.
///
/// # Errors
/// The ring's, or the raw server misbehaves.
pub fn churn(target: Target, load: &Load) -> io::Result<Outcome> {
    let mut client = Client::open(target, &load.pairs, load.in_flight)?;
    let mut free: Vec<u32> = (0..load.in_flight).collect();
    measured(target, load, &mut client, |client, outcome, news, in_flight| {
        for news in news.drain(..) {
            match news {
                News::Done(slot) => {
                    let next = usize::from(client.connections[slot as usize].progress.pair) + 1;
                    if next < client.pairs.len() {
                        client.request(slot)?;
                    } else {
                        let latency_ns = client.clock.now_ns() - client.connections[slot as usize].started_ns;
                        outcome.latencies.record(latency_ns);
                    }
                }
                News::Closed(slot) => {
                    outcome.operations += 1;
                    *in_flight -= 1;
                    free.push(slot);
                }
            }
        }
        while let Some(slot) = free.pop() {
            client.connect(slot)?;
            *in_flight += 1;
        }
        Ok(())
    })
}

/// Runs `step` after every turn, first unmeasured and then measured.
fn measured(
    target: Target,
    load: &Load,
    client: &mut Client,
    mut step: impl FnMut(&mut Client, &mut Outcome, &mut Vec<News>, &mut u32) -> io::Result<()>,
) -> io::Result<Outcome> {
    let mut in_flight = 0;
    let mut news = Vec::new();
    let mut meter = UsageMeter::start(target.pid)?;
    let empty = || Outcome {
        usage: Usage::default(),
        operations: 0,
        latencies: Latencies::new(),
    };
    let mut outcome = empty();
    for seconds in [load.warmup_s, load.measured_s] {
        outcome = empty();
        meter.lap()?;
        let end_ns = client.clock.now_ns() + (seconds * 1e9) as u64;
        let mut moved_ns = client.clock.now_ns();
        while client.clock.now_ns() < end_ns {
            step(client, &mut outcome, &mut news, &mut in_flight)?;
            client.turn(&mut news)?;
            moved_ns = if news.is_empty() {
                moved_ns
            } else {
                client.clock.now_ns()
            };
            check_moving(&client.clock, moved_ns)?;
        }
        outcome.usage = meter.lap()?;
    }
    Ok(outcome)
}

/// Opens connections that do nothing and says what memory they take.
///
/// # Errors
/// The ring's, or the raw server misbehaves.
pub fn idle(target: Target, pairs: &[Pair], connections: u32) -> io::Result<MemoryGrowth> {
    let mut client = Client::open(target, pairs, connections)?;
    let before = (
        UserMemory::of(target.pid)?,
        kernel_slab_bytes()?,
        socket_objects_bytes(),
    );
    client.connect_all()?;
    std::thread::sleep(SETTLE);
    let after = (
        UserMemory::of(target.pid)?,
        kernel_slab_bytes()?,
        socket_objects_bytes(),
    );
    Ok(MemoryGrowth {
        anonymous: after.0.anonymous as i64 - before.0.anonymous as i64,
        slab: after.1 as i64 - before.1 as i64,
        objects: after.2 as i64 - before.2 as i64,
    })
}
