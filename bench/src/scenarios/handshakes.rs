//! `handshakes`: drivers that connect, upgrade, hear `WELCOME` and close, in a closed loop.
//!
//! The raw ring beside it accepts, answers one message of the upgrade's and one of the close's size, and ends the connection.
#![forbid(unsafe_code)]

use std::io;

use dispatchd::ops::args::{real, whole};
use serde::Serialize;

use super::{Context, add_cores};
use crate::measure::{Latencies, Usage, UsageMeter};
use crate::message::Message;
use crate::raw::{self, Pair};
use crate::report::{Goal, Progress, Run};
use crate::server::{Server, Target};
use crate::session::{EventKind, Gone, Session};
use crate::ws;

/// What must be reached: nothing is asked of handshakes yet.
pub const GOALS: &[Goal] = &[];

/// A close frame of ours and of the server's (code only), bytes on the wire.
const CLOSE_PAIR: Pair = Pair {
    request: 8,
    response: 4,
};
/// A refused driver tries again after this time, ns.
const RETRY_NS: u64 = 20_000_000;
/// How long nothing may come back, ns.
const STALL_NS_MAX: u64 = 10_000_000_000;

/// The load.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Handshakes under way at once
    #[arg(long, default_value_t = 64, value_parser = whole::<u32>(1..=10_000, 64))]
    pub in_flight: u32,
    /// Different drivers
    #[arg(long, default_value_t = 2_000, value_parser = whole::<u32>(1..=100_000, 2_000))]
    pub drivers: u32,
    /// Measured time, s
    #[arg(long, default_value_t = 3.0, value_parser = real(0.1..=86_400.0, 3.0))]
    pub secs: f64,
    /// Unmeasured time before, s
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
    let mut upgrade = Vec::new();
    ws::write_upgrade(&mut upgrade, "127.0.0.1:65535", 0);
    let response = run.value("answer_bytes").unwrap_or(1.0) as u32;
    let pairs = [
        Pair {
            request: upgrade.len() as u32,
            response: response.max(1),
        },
        CLOSE_PAIR,
    ];
    context.progress.phase("raw ring", 1);
    let raw_server = context.raw_server(context.raw.raw_in_flight, &pairs, true)?;
    let raw = raw::client::churn(
        raw_server.target(),
        &context.raw_load(context.raw.raw_in_flight, &pairs),
    )?;
    let raw_us = raw.usage.server_us_per(raw.operations);
    run.add("raw_connection_cpu_us", "µs", raw_us);
    run.add("raw_connections_per_s", "1/s", raw.usage.per_second(raw.operations));
    run.add(
        "handshake_by_raw",
        "x raw",
        run.value("handshake_cpu_us").unwrap_or(f64::NAN) / raw_us,
    );
    add_cores(&mut run, "raw_server_core", "raw_client_core", &raw.usage);
    Ok(run)
}

/// Loads a server that runs already.
///
/// # Errors
/// The ring's.
pub fn load(target: Target, options: &Options, progress: &Progress) -> io::Result<Run> {
    let drivers = options.drivers.max(options.in_flight);
    let mut storm = Storm {
        session: Session::open(target.address, drivers, 0)?,
        idle: (0..drivers).collect(),
        started_ns: vec![0; drivers as usize],
        retry_from_ns: 0,
        latencies: Latencies::new(),
        done: 0,
        refused: 0,
        answer_bytes: 0,
        run: Run::default(),
    };
    progress.phase("handshakes", 1);
    let (usage, done) = storm.measured(target, options)?;
    let mut run = storm.run;
    run.add("handshakes_per_s", "1/s", usage.per_second(done));
    run.add("handshake_cpu_us", "µs", usage.server_us_per(done));
    run.add("connect_to_welcome_p50", "ms", storm.latencies.quantile_ms(0.5));
    run.add("connect_to_welcome_p99", "ms", storm.latencies.quantile_ms(0.99));
    run.add("refused", "", storm.refused as f64);
    run.add("answer_bytes", "B", f64::from(storm.answer_bytes));
    add_cores(&mut run, "server_core", "client_core", &usage);
    storm.session.disconnect()?;
    Ok(run)
}

struct Storm {
    session: Session,
    idle: std::collections::VecDeque<u32>,
    started_ns: Vec<u64>,
    retry_from_ns: u64,
    latencies: Latencies,
    done: u64,
    refused: u64,
    answer_bytes: u32,
    run: Run,
}

impl Storm {
    fn measured(&mut self, target: Target, options: &Options) -> io::Result<(Usage, u64)> {
        let mut meter = UsageMeter::start(target.pid)?;
        let mut usage = Usage::default();
        for seconds in [options.warmup_secs, options.secs] {
            meter.lap()?;
            (self.latencies, self.done, self.refused) = (Latencies::new(), 0, 0);
            let end_ns = self.session.now_ns() + (seconds * 1e9) as u64;
            while self.session.now_ns() < end_ns {
                self.connect_due(options.in_flight)?;
                self.turn(end_ns)?;
            }
            usage = meter.lap()?;
        }
        let done = self.done;
        let deadline_ns = self.session.now_ns() + STALL_NS_MAX;
        while self.under_way() > 0 && self.session.now_ns() < deadline_ns {
            self.turn(deadline_ns)?;
        }
        let lost = self.under_way();
        if lost > 0 {
            self.run.faults.add("handshakes that never ended", || lost.to_string());
        }
        Ok((usage, done))
    }

    fn under_way(&self) -> usize {
        self.started_ns.len() - self.idle.len()
    }

    fn connect_due(&mut self, in_flight: u32) -> io::Result<()> {
        let now_ns = self.session.now_ns();
        if now_ns < self.retry_from_ns {
            return Ok(());
        }
        for _ in self.under_way()..in_flight as usize {
            let Some(driver) = self.idle.pop_front() else { break };
            self.started_ns[driver as usize] = now_ns;
            self.session.connect(driver)?;
        }
        Ok(())
    }

    fn turn(&mut self, until_ns: u64) -> io::Result<()> {
        let retry_ns = if self.retry_from_ns > self.session.now_ns() {
            self.retry_from_ns
        } else {
            u64::MAX
        };
        self.session.turn(until_ns.min(retry_ns))?;
        let events = self.session.take_events();
        for event in &events {
            match &event.kind {
                EventKind::Message {
                    driver,
                    message: Message::Welcome { .. },
                } => {
                    self.latencies.record(event.at_ns - self.started_ns[*driver as usize]);
                    self.answer_bytes = event.bytes + self.session.upgrade_bytes();
                    self.session.close(*driver)?;
                }
                EventKind::Gone {
                    driver,
                    why: Gone::Closed,
                } => {
                    self.done += 1;
                    self.idle.push_back(*driver);
                }
                EventKind::Gone {
                    driver,
                    why: Gone::Refused { status: 429 | 503 },
                } => {
                    self.refused += 1;
                    self.retry_from_ns = event.at_ns + RETRY_NS;
                    self.idle.push_back(*driver);
                }
                EventKind::Gone { driver, why } => {
                    self.run
                        .faults
                        .add("handshakes that failed", || format!("driver {driver}: {why:?}"));
                    self.idle.push_back(*driver);
                }
                other => self.run.faults.add("unexpected event", || format!("{other:?}")),
            }
        }
        self.session.recycle(events);
        Ok(())
    }
}
