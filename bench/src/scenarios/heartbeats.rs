//! `heartbeats`: JSON `PING` and `PONG` over all drivers, at a fixed rate and in a closed loop.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;

use dispatchd::ops::args::{real, whole};
use serde::Serialize;

use super::{Context, add_cores};
use crate::measure::{Latencies, Usage, UsageMeter};
use crate::message::{Message, PING};
use crate::raw::Pair;
use crate::report::{Goal, Limit, Progress, Run};
use crate::server::{Server, Target};
use crate::session::{EventKind, Session};
use crate::ws;

/// What must be reached.
pub const GOALS: &[Goal] = &[Goal {
    what: "heartbeat, CPU by raw echo",
    figure: "heartbeat_by_raw",
    limit: Limit::AtMost(1.5),
}];

/// How long nothing may come back, ns.
const STALL_NS_MAX: u64 = 10_000_000_000;

/// The load.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Connected drivers
    #[arg(long, default_value_t = 10_000, value_parser = whole::<u32>(1..=100_000, 10_000))]
    pub drivers: u32,
    /// Heartbeats per second of the open loop
    #[arg(long, default_value_t = 5_000, value_parser = whole::<u32>(1..=1_000_000, 5_000))]
    pub rate: u32,
    /// Heartbeats under way at once in the closed loop
    #[arg(long, default_value_t = 64, value_parser = whole::<u32>(1..=100_000, 64))]
    pub in_flight: u32,
    /// Measured time of each loop, s
    #[arg(long, default_value_t = 4.0, value_parser = real(0.1..=86_400.0, 4.0))]
    pub secs: f64,
    /// Unmeasured time before each loop, s
    #[arg(long, default_value_t = 0.5, value_parser = real(0.0..=3_600.0, 0.5))]
    pub warmup_secs: f64,
}

/// One run: a fresh server, the load, the raw ring.
///
/// # Errors
/// The server's or the ring's; what goes wrong within the load is a fault of the run.
pub fn run(context: &Context, options: &Options) -> io::Result<Run> {
    let server = Server::start(&context.setup)?;
    let mut run = load(server.target(), options, &context.progress).map_err(|error| server.explain(&error))?;
    server.stop()?;
    let response = run.value("pong_bytes").unwrap_or(1.0) as u32;
    let pair = Pair {
        request: ws::masked_len(PING.len()),
        response: response.max(1),
    };
    let raw = context.raw_echo(options.drivers, &[pair])?;
    let raw_us = raw.usage.server_us_per(raw.operations);
    run.add("raw_echo_cpu_us", "µs", raw_us);
    run.add(
        "heartbeat_by_raw",
        "x raw",
        run.value("heartbeat_cpu_us").unwrap_or(f64::NAN) / raw_us,
    );
    add_cores(&mut run, "raw_server_core", "raw_client_core", &raw.usage);
    Ok(run)
}

/// Loads a server that runs already.
///
/// # Errors
/// The ring's, or drivers do not get connected.
pub fn load(target: Target, options: &Options, progress: &Progress) -> io::Result<Run> {
    let mut session = Session::open(target.address, options.drivers, 0)?;
    progress.phase("connect", u64::from(options.drivers));
    session.connect_drivers(options.drivers, |count| progress.at(u64::from(count)))?;
    session.keep_alive(false);
    let mut load = Heart {
        sent_ns: vec![0; options.drivers as usize],
        idle: (0..options.drivers).collect(),
        session,
        latencies: Latencies::new(),
        done: 0,
        pong_bytes: 0,
        run: Run::default(),
    };
    progress.phase("open loop", 1);
    let open = Pace::Open {
        interval_ns: 1_000_000_000 / u64::from(options.rate),
    };
    let (usage, done) = load.paced(target, options, open)?;
    load.run.add("open_rate", "1/s", usage.per_second(done));
    load.run.add("open_p50", "ms", load.latencies.quantile_ms(0.5));
    load.run.add("open_p99", "ms", load.latencies.quantile_ms(0.99));
    load.run.add("open_max", "ms", load.latencies.max_ms());
    load.run.add("open_cpu_us", "µs", usage.server_us_per(done));
    add_cores(&mut load.run, "open_server_core", "open_client_core", &usage);
    progress.phase("closed loop", 1);
    let (usage, done) = load.paced(
        target,
        options,
        Pace::Closed {
            in_flight: options.in_flight,
        },
    )?;
    load.run.add("heartbeats_per_s", "1/s", usage.per_second(done));
    load.run.add("heartbeat_cpu_us", "µs", usage.server_us_per(done));
    load.run.add("closed_p99", "ms", load.latencies.quantile_ms(0.99));
    add_cores(&mut load.run, "closed_server_core", "closed_client_core", &usage);
    load.run.add("pong_bytes", "B", f64::from(load.pong_bytes));
    load.session.disconnect()?;
    Ok(load.run)
}

#[derive(Clone, Copy)]
enum Pace {
    /// Heartbeats are due at fixed times, whatever has come back.
    Open { interval_ns: u64 },
    /// A heartbeat is due when another has come back.
    Closed { in_flight: u32 },
}

struct Heart {
    session: Session,
    /// When each driver's heartbeat was meant to leave.
    sent_ns: Vec<u64>,
    idle: VecDeque<u32>,
    latencies: Latencies,
    done: u64,
    pong_bytes: u32,
    run: Run,
}

impl Heart {
    /// Warms up, measures, and waits for what is still under way.
    fn paced(&mut self, target: Target, options: &Options, pace: Pace) -> io::Result<(Usage, u64)> {
        let mut meter = UsageMeter::start(target.pid)?;
        let mut due_ns = self.session.now_ns();
        let mut usage = Usage::default();
        for seconds in [options.warmup_secs, options.secs] {
            meter.lap()?;
            self.latencies = Latencies::new();
            self.done = 0;
            let end_ns = self.session.now_ns() + (seconds * 1e9) as u64;
            while self.session.now_ns() < end_ns {
                let until_ns = self.send_due(pace, &mut due_ns, end_ns)?;
                self.turn(until_ns)?;
            }
            usage = meter.lap()?;
        }
        let done = self.done;
        let deadline_ns = self.session.now_ns() + STALL_NS_MAX;
        while self.idle.len() < self.sent_ns.len() && self.session.now_ns() < deadline_ns {
            self.turn(deadline_ns)?;
        }
        let lost = self.sent_ns.len() - self.idle.len();
        if lost > 0 {
            self.run
                .faults
                .add("heartbeats without PONG", || format!("{lost} drivers"));
        }
        Ok((usage, done))
    }

    /// Sends what is due and says when to look again.
    fn send_due(&mut self, pace: Pace, due_ns: &mut u64, end_ns: u64) -> io::Result<u64> {
        let now_ns = self.session.now_ns();
        match pace {
            Pace::Open { interval_ns } => {
                while *due_ns <= now_ns
                    && let Some(driver) = self.idle.pop_front()
                {
                    self.beat(driver, *due_ns)?;
                    *due_ns += interval_ns;
                }
                Ok(end_ns.min((*due_ns).max(now_ns)))
            }
            Pace::Closed { in_flight } => {
                let busy = self.sent_ns.len() - self.idle.len();
                for _ in busy..in_flight as usize {
                    let Some(driver) = self.idle.pop_front() else { break };
                    self.beat(driver, now_ns)?;
                }
                Ok(end_ns)
            }
        }
    }

    fn beat(&mut self, driver: u32, intended_ns: u64) -> io::Result<()> {
        self.sent_ns[driver as usize] = intended_ns;
        self.session.say(driver, |payload| payload.extend_from_slice(PING))
    }

    fn turn(&mut self, until_ns: u64) -> io::Result<()> {
        self.session.turn(until_ns)?;
        let events = self.session.take_events();
        for event in &events {
            match &event.kind {
                EventKind::Message {
                    driver,
                    message: Message::Pong,
                } => {
                    let sent_ns = std::mem::take(&mut self.sent_ns[*driver as usize]);
                    if sent_ns == 0 {
                        self.run.faults.add("PONG without PING", || format!("driver {driver}"));
                        continue;
                    }
                    self.latencies.record(event.at_ns.saturating_sub(sent_ns));
                    self.pong_bytes = event.bytes;
                    self.done += 1;
                    self.idle.push_back(*driver);
                }
                other => self.run.faults.add("unexpected event", || format!("{other:?}")),
            }
        }
        self.session.recycle(events);
        Ok(())
    }
}
