//! `peers`: the same targeted push and acknowledgement on what one would use instead, beside the raw ring and dispatchd.
//!
//! A client's small message makes the server push 300 bytes to the connection that the message names: one message in, a look-up
//! by name, one message out. `bench/peers/README.md` says what each server does and what is counted. All servers run in turn on
//! the first core, with the same client on the second, round by round, so that what the machine does meanwhile meets all alike; the two
//! loads slice by slice (`by_turns.rs`).
#![forbid(unsafe_code)]

pub mod client;
pub mod dialect;
pub mod install;
pub mod tungstenite;

mod by_turns;
mod catalogue;
mod others;
mod table;
mod verdicts;

use std::io;
use std::time::Duration;

use dispatchd::ops::args::{real, whole};
use serde::Serialize;

use crate::measure::{UserMemory, kernel_slab_bytes};
use crate::report::{self, Run, ScenarioReport, Verdict};
use crate::scenarios::{Context, offers};
use crate::server::Target;
use catalogue::{Kind, Peer, Purpose, Started};
use client::{Client, Pace, Times};
use dialect::Dialect;
use others::Others;

/// Time for memory to settle before it is read: what a burst of handshakes took for a moment is no idle connection's.
const SETTLE: Duration = Duration::from_secs(4);
/// One in so many connections is open before memory is read for the first time.
const FIRST_PART: u32 = 2;
/// Pushes at a fixed rate that may be missing from the latencies, %.
const STALLED_PERCENT_MAX: f64 = 5.0;
/// Offers posted at once while drivers get the trips that they confirm again and again.
const OFFERS_AT_ONCE: u32 = 256;

/// The comparison.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Connections of each server
    #[arg(long, default_value_t = 18_000, value_parser = whole::<u32>(100..=19_000, 18_000))]
    pub connections: u32,
    /// Pushes under way at once at saturation, and connections at once in the handshakes
    #[arg(long, default_value_t = 64, value_parser = whole::<u32>(1..=10_000, 64))]
    pub in_flight: u32,
    /// Pushes per second of the open loop
    #[arg(long, default_value_t = 5_000, value_parser = whole::<u32>(1..=1_000_000, 5_000))]
    pub rate: u32,
    /// Measured time of each load, s
    #[arg(long, default_value_t = 2.0, value_parser = real(0.1..=86_400.0, 2.0))]
    pub secs: f64,
    /// Unmeasured time before each, s; by turns once for each server, and a tenth of a second before a slice
    #[arg(long, default_value_t = 0.5, value_parser = real(0.0..=3_600.0, 0.5))]
    pub warmup_secs: f64,
    /// Only these, comma-separated
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Kind>,
}

impl Options {
    fn times(&self) -> Times {
        Times {
            warmup_s: self.warmup_secs,
            measured_s: self.secs,
        }
    }

    /// The offers scenario in the comparison's measure.
    fn offers(&self) -> offers::Options {
        offers::Options {
            drivers: self.connections,
            rate: 500,
            secs: self.secs,
            warmup_secs: self.warmup_secs,
            decline_percent: 0,
            think_ms: 0,
            trip_leg_ms: 50,
            cycles: self.connections,
            in_flight: self.in_flight,
            http_connections: 8,
        }
    }
}

/// Compares all, round by round, and prints the table and what it says of dispatchd. What cannot be built or run is said and left out.
///
/// # Errors
/// Nothing could be measured at all.
pub fn run(context: &mut Context, options: &Options, rounds: u32) -> io::Result<(Vec<ScenarioReport>, Vec<Verdict>)> {
    let mut peers = Vec::new();
    for kind in Kind::all().filter(|kind| options.only.is_empty() || options.only.contains(kind)) {
        context.progress.phase(&format!("build {}", kind.name()), 1);
        match Peer::prepare(kind, context) {
            Ok(peer) => peers.push(peer),
            Err(error) => eprintln!("{} is left out: {error}", kind.name()),
        }
    }
    let mut reports: Vec<ScenarioReport> = peers.iter().map(|peer| peer.report(options)).collect();
    for round in 0..rounds as usize {
        // A round is a row for all of them, so that rounds are compared with each other.
        let mut runs: Vec<Run> = peers.iter().map(|_| Run::default()).collect();
        // Each round begins with another server, so that none is always measured on a warmer or cooler machine.
        for index in (0..peers.len()).map(|index| (index + round) % peers.len()) {
            let peer = &peers[index];
            context
                .progress
                .context(format!("{} {}/{rounds}", peer.kind.name(), round + 1));
            match measure(context, peer, options) {
                Ok(run) => runs[index] = run,
                Err(error) => {
                    eprintln!("{}, round {}: {error}", peer.kind.name(), round + 1);
                    runs[index].faults.add("round failed", || error.to_string());
                }
            }
        }
        context.progress.context(format!("all {}/{rounds}", round + 1));
        by_turns::measure(context, &peers, options, &mut runs);
        for (report, run) in reports.iter_mut().zip(runs) {
            report.runs.push(run);
        }
    }
    context.progress.finish();
    if reports
        .iter()
        .all(|report| report.runs.iter().all(|run| run.figures.is_empty()))
    {
        return Err(io::Error::other("no server could be measured"));
    }
    table::print(&peers, &reports);
    let verdicts = verdicts::all(&peers, &reports);
    report::print_verdicts(&verdicts);
    Ok((reports, verdicts))
}

/// One server, one round.
fn measure(context: &Context, peer: &Peer, options: &Options) -> io::Result<Run> {
    if peer.kind == Kind::DispatchdCycle {
        return measure_cycle(context, options);
    }
    let mut run = Run::default();
    let dialect = peer.dialect(Purpose::Push);
    let server = peer.start(context, options, Purpose::Push)?;
    pushes(context, peer, &server, dialect.as_ref(), options, &mut run)?;
    server.stop()?;
    context.progress.phase("handshakes", 1);
    let dialect = peer.dialect(Purpose::Handshakes);
    let server = peer.start(context, options, Purpose::Handshakes)?;
    let mut client = Client::open(server.target(), dialect.as_ref(), options.in_flight)?;
    let churn = client.churn(options.times()).map_err(|error| server.explain(&error))?;
    run.add("handshake_cpu_us", "µs", churn.usage.server_us_per(churn.operations));
    run.add("handshakes_per_s", "1/s", churn.usage.per_second(churn.operations));
    drop(client);
    server.stop()?;
    Ok(run)
}

/// Memory, and the fixed rate with what a server that was just busy still has to put away, over the same connections.
fn pushes(
    context: &Context,
    peer: &Peer,
    server: &Started,
    dialect: &dyn Dialect,
    options: &Options,
    run: &mut Run,
) -> io::Result<()> {
    let target = server.target();
    let explain = |error: io::Error| server.explain(&error);
    let mut client = Client::open(target, dialect, options.connections)?;
    context.progress.phase("connect", 1);
    // What a crowd that comes at once needs for a moment, and the first one leaves behind for the second, is no connection's.
    let first = options.connections / FIRST_PART;
    let mut memory_with = |slots| -> io::Result<_> {
        client.connect_all(slots).map_err(explain)?;
        std::thread::sleep(SETTLE);
        Ok((UserMemory::of(target.pid)?, kernel_slab_bytes()?))
    };
    let before = memory_with(0..first)?;
    let after = memory_with(first..options.connections)?;
    let per = |after: u64, before: u64| (after as f64 - before as f64) / f64::from(options.connections - first);
    run.add("user_per_idle", "B", per(after.0.anonymous, before.0.anonymous));
    run.add("kernel_per_idle_both_ends", "B", per(after.1, before.1));
    if peer.kind == Kind::DispatchdAnswer {
        context.progress.phase("offers", 1);
        accept_all(&mut client, target, options.connections).map_err(explain)?;
    }
    context.progress.phase("after saturation", 1);
    let (in_flight, rate) = (options.in_flight, options.rate);
    let mut load = |pace| client.push(pace, options.times()).map_err(explain);
    let own = [std::process::id(), target.pid];
    let quiet = others::quietest(
        others::TRIES,
        options.secs,
        &mut load,
        |_| Others::than(&own, context.cores()),
        |load| load(Pace::Closed { in_flight }).map(drop),
        |load| load(fixed(context, rate)),
    )?;
    run.add("after_busy_others_percent", "%", quiet.others_percent);
    run.add("after_busy_tries", "", quiet.tries as f64);
    let after = quiet.value;
    run.add("after_busy_cpu_us", "µs", after.usage.server_us_per(after.operations));
    run.add("after_busy_p99", "ms", after.latencies.quantile_ms(0.99));
    run.faults = client.take_faults();
    note_stalled(run, "after_busy_stalled_percent", after.stalled_percent());
    Ok(())
}

/// What part of the pushes at a fixed rate is not in the latencies, %: of so many that little would be left of the tail, a fault.
fn note_stalled(run: &mut Run, name: &'static str, percent: f64) {
    run.add(name, "%", percent);
    if percent > STALLED_PERCENT_MAX {
        run.faults
            .add("the load generator did not run", || format!("{percent:.1} % of {name}"));
    }
}

/// The fixed rate, for which the client needs a core of its own to stay awake on.
fn fixed(context: &Context, rate: u32) -> Pace {
    let sleeps = context.cores().client == context.cores().server;
    Pace::Open { rate, sleeps }
}

/// Offers every driver a trip, which it accepts: what it confirms again later is then settled and stored.
fn accept_all(client: &mut Client<'_>, target: Target, drivers: u32) -> io::Result<()> {
    let mut first = 0;
    while first < drivers {
        let end = drivers.min(first + OFFERS_AT_ONCE);
        catalogue::post_offers(target, first..end)?;
        client.wait_pushes(first..end)?;
        first = end;
    }
    Ok(())
}

/// The whole offer, durable: three pairs of messages, of which this gives the mean.
fn measure_cycle(context: &Context, options: &Options) -> io::Result<Run> {
    let server = crate::server::Server::start(&context.setup)?;
    let loaded = offers::load(server.target(), &options.offers(), &context.progress);
    let (cycles, _) = loaded.map_err(|error| server.explain(&error))?;
    server.stop()?;
    let value = |name: &str| cycles.value(name).unwrap_or(f64::NAN);
    let mut run = Run::default();
    run.add("busy_cpu_us", "µs", value("cycle_cpu_us") / 3.0);
    run.add("push_per_s", "1/s", value("cycles_per_s") * 3.0);
    run.add("busy_server_core", "% core", value("saturated_server_core"));
    run.add("busy_client_core", "% core", value("saturated_client_core"));
    run.faults = cycles.faults;
    Ok(run)
}
