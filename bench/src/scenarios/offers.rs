//! `offers`: the whole offer workflow, at a fixed rate and at saturation.
//!
//! A *full offer cycle* is three message pairs: POST and 202, OFFER and ACK, ACCEPT and CONFIRMED. Its `STATE` comes with it.
//! What brings the driver back (`pickup` and `complete`, each answered with a `STATE`) is the *trip*. At the fixed rate trips
//! run along. At saturation they are kept apart: a round sends every driver through one cycle, in a closed loop and measured;
//! then all trips are ended, measured by themselves; and so on. So both "cycle" and "cycle with trip" have their CPU.
#![forbid(unsafe_code)]

pub mod engine;

use std::io;
use std::time::Duration;

use dispatchd::ops::args::{real, whole};
use serde::Serialize;

use super::{Context, add_cores};
use crate::measure::{Usage, UsageMeter};
use crate::raw::Pair;
use crate::raw::client::Load as RawLoad;
use crate::raw::disk::write_latency;
use crate::report::{Goal, Limit, Progress, Run};
use crate::server::{Server, Target};
use crate::session::Session;
use crate::ws;
use engine::{Engine, Manners, Sizes, Timings};

/// What must be reached.
pub const GOALS: &[Goal] = &[
    Goal {
        what: "full offer cycle, CPU by three raw pairs",
        figure: "cycle_by_raw",
        limit: Limit::AtMost(3.0),
    },
    Goal {
        what: "full offer cycles on one core",
        figure: "cycles_per_s",
        limit: Limit::AtLeast(10_000.0),
    },
    Goal {
        what: "POST -> OFFER p99 at the fixed rate",
        figure: "post_to_offer_p99",
        limit: Limit::AtMost(10.0),
    },
    Goal {
        what: "DECLINE -> next OFFER p99",
        figure: "decline_to_offer_p99",
        limit: Limit::AtMost(10.0),
    },
];

/// How long nothing may come back, ns.
const STALL_NS_MAX: u64 = 10_000_000_000;
/// Unmeasured cycles before the rounds.
const WARMUP_CYCLES: u32 = 2_000;
/// How long the disk is measured by itself.
const DISK_SPAN: Duration = Duration::from_secs(3);
/// Time between two updates of the progress bar, ns.
const PROGRESS_NS: u64 = 100_000_000;

/// The load.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Connected drivers
    #[arg(long, default_value_t = 10_000, value_parser = whole::<u32>(10..=100_000, 10_000))]
    pub drivers: u32,
    /// Offers per second of the open loop
    #[arg(long, default_value_t = 2_000, value_parser = whole::<u32>(1..=1_000_000, 2_000))]
    pub rate: u32,
    /// Measured time of the open loop, s
    #[arg(long, default_value_t = 10.0, value_parser = real(0.1..=86_400.0, 10.0))]
    pub secs: f64,
    /// Unmeasured time before, s
    #[arg(long, default_value_t = 1.0, value_parser = real(0.0..=3_600.0, 1.0))]
    pub warmup_secs: f64,
    /// Of 100 offers of the open loop, how many the first driver declines
    #[arg(long, default_value_t = 10, value_parser = whole::<u32>(0..=100, 10))]
    pub decline_percent: u32,
    /// Time from OFFER to the driver's answer, ms; the ACK leaves at once
    #[arg(long, default_value_t = 5, value_parser = whole::<u32>(0..=600_000, 5))]
    pub think_ms: u32,
    /// Open loop: time from CONFIRMED to pickup, and from there to complete, ms
    #[arg(long, default_value_t = 200, value_parser = whole::<u32>(0..=600_000, 200))]
    pub trip_leg_ms: u32,
    /// Measured cycles at saturation, all rounds together
    #[arg(long, default_value_t = 60_000, value_parser = whole::<u32>(1..=10_000_000, 60_000))]
    pub cycles: u32,
    /// Cycles under way at once at saturation
    #[arg(long, default_value_t = 512, value_parser = whole::<u32>(1..=100_000, 512))]
    pub in_flight: u32,
    /// Keep-alive HTTP connections that the POSTs are pipelined over
    #[arg(long, default_value_t = 8, value_parser = whole::<u32>(1..=256, 8))]
    pub http_connections: u32,
}

/// One run: a fresh server, the load, the raw ring with the sizes just seen.
///
/// # Errors
/// The server's or the ring's; what goes wrong within the load is a fault of the run.
pub fn run(context: &Context, options: &Options) -> io::Result<Run> {
    let server = Server::start(&context.setup)?;
    let loaded = load(server.target(), options, &context.progress);
    let (mut run, sizes) = loaded.map_err(|error| server.explain(&error))?;
    server.stop()?;
    // Right after the load, since a disk that others use is another one a minute later.
    let disk = write_latency(&context.setup.data_root, DISK_SPAN)?;
    let disk_p99_ms = disk.quantile_ms(0.99);
    run.add("disk_write_p50", "ms", disk.quantile_ms(0.5));
    run.add("disk_write_p99", "ms", disk_p99_ms);
    run.add("disk_write_p999", "ms", disk.quantile_ms(0.999));
    let offer_p99_ms = run.value("post_to_offer_p99").unwrap_or(f64::NAN);
    run.add("post_to_offer_p99_by_disk", "x disk", offer_p99_ms / disk_p99_ms);
    let light = context.raw_load(options.drivers, &pairs(sizes));
    let full = RawLoad {
        in_flight: options.in_flight.min(options.drivers),
        ..light.clone()
    };
    let cycle_us = run.value("cycle_cpu_us").unwrap_or(f64::NAN);
    let raw = context.raw_echo_of(&light)?;
    let pair_us = raw.usage.server_us_per(raw.operations);
    run.add("raw_pair_cpu_us", "µs", pair_us);
    run.add("raw_three_pairs_cpu_us", "µs", 3.0 * pair_us);
    run.add("cycle_by_raw", "x raw", cycle_us / (3.0 * pair_us));
    add_cores(&mut run, "raw_server_core", "raw_client_core", &raw.usage);
    // A ring with more in flight reaps more per system call: the harder comparison, for information.
    let raw = context.raw_echo_of(&full)?;
    let pair_us = raw.usage.server_us_per(raw.operations);
    run.add("raw_pair_cpu_us_with_as_many_in_flight", "µs", pair_us);
    run.add(
        "cycle_by_raw_with_as_many_in_flight",
        "x raw",
        cycle_us / (3.0 * pair_us),
    );
    Ok(run)
}

/// The three pairs of a cycle as the raw ring shall see them: request towards the server first.
fn pairs(sizes: Sizes) -> [Pair; 3] {
    let answer = |kind| {
        let mut payload = Vec::new();
        crate::message::write_answer(&mut payload, kind, 0, 1);
        ws::masked_len(payload.len())
    };
    let pair = |request: u32, response: u32| Pair {
        request: request.max(1),
        response: response.max(1),
    };
    [
        pair(sizes.post, sizes.accepted),
        pair(answer("ACK"), sizes.offer),
        pair(answer("ACCEPT"), sizes.confirmed),
    ]
}

/// Loads a server that runs already; answers the run and the sizes of the messages.
///
/// # Errors
/// The ring's, or drivers do not get connected.
pub fn load(target: Target, options: &Options, progress: &Progress) -> io::Result<(Run, Sizes)> {
    let mut session = Session::open(target.address, options.drivers, options.http_connections)?;
    progress.phase("connect", u64::from(options.drivers));
    let connected = session.connect_drivers(options.drivers, |count| progress.at(u64::from(count)))?;
    let mut load = Load {
        engine: Engine::new(options.drivers, options.manners(true)),
        session,
        meter: UsageMeter::start(target.pid)?,
        options,
        progress,
        stalled: false,
    };
    let mut run = Run::default();
    run.add("connect_s", "s", connected.took_ns as f64 / 1e9);
    run.add("connects_refused", "", connected.refusals as f64);
    load.open_loop(&mut run)?;
    load.rounds(&mut run)?;
    run.faults = load.engine.take_faults();
    load.session.disconnect()?;
    Ok((run, load.engine.sizes()))
}

impl Options {
    fn manners(&self, open_loop: bool) -> Manners {
        Manners {
            think_ns: u64::from(self.think_ms) * 1_000_000,
            decline_percent: if open_loop { self.decline_percent } else { 0 },
            trip_leg_ns: open_loop.then_some(u64::from(self.trip_leg_ms) * 1_000_000),
        }
    }
}

struct Load<'a> {
    engine: Engine,
    session: Session,
    meter: UsageMeter,
    options: &'a Options,
    progress: &'a Progress,
    /// Something never came back; nothing more is started.
    stalled: bool,
}

impl Load<'_> {
    /// Offers at fixed times, whatever has come back; latencies count from those times.
    fn open_loop(&mut self, run: &mut Run) -> io::Result<()> {
        let interval_ns = 1_000_000_000 / u64::from(self.options.rate);
        let mut due_ns = self.session.now_ns();
        let mut usage = Usage::default();
        let mut before = (0, 0);
        let mut late_ns_max = 0;
        for (name, seconds) in [
            ("open loop, warm-up", self.options.warmup_secs),
            ("open loop", self.options.secs),
        ] {
            self.progress.phase(name, seconds as u64);
            self.meter.lap()?;
            self.engine.take_timings();
            before = (self.engine.cycles_done(), self.engine.declines());
            late_ns_max = 0;
            let start_ns = self.session.now_ns();
            let end_ns = start_ns + (seconds * 1e9) as u64;
            let mut shown_ns = start_ns;
            while due_ns < end_ns && !self.stalled {
                let now_ns = self.session.now_ns();
                while due_ns <= now_ns && self.engine.post(&mut self.session, due_ns) {
                    late_ns_max = late_ns_max.max(now_ns - due_ns);
                    due_ns += interval_ns;
                }
                self.turn(due_ns)?;
                if now_ns > shown_ns + PROGRESS_NS {
                    shown_ns = now_ns;
                    self.progress.at((now_ns - start_ns) / 1_000_000_000);
                }
                self.stalled = now_ns > due_ns + STALL_NS_MAX;
            }
            usage = self.meter.lap()?;
        }
        let done = self.engine.cycles_done() - before.0;
        let declines = self.engine.declines() - before.1;
        self.drain(|engine| engine.cycles_open() + engine.trips_open())?;
        run.add("open_rate", "1/s", usage.per_second(done));
        run.add("open_declines", "", declines as f64);
        run.add("open_post_late_max", "ms", late_ns_max as f64 / 1e6);
        add_timings(run, &self.engine.take_timings());
        run.add("open_cycle_with_trip_cpu_us", "µs", usage.server_us_per(done));
        add_cores(run, "open_server_core", "open_client_core", &usage);
        Ok(())
    }

    /// Rounds of one cycle per driver, then of ending all trips.
    fn rounds(&mut self, run: &mut Run) -> io::Result<()> {
        self.engine.set_manners(self.options.manners(false));
        self.round(WARMUP_CYCLES.min(self.options.drivers))?;
        let (mut cycle_usage, mut trip_usage) = (Usage::default(), Usage::default());
        let before = (self.engine.cycles_done(), self.engine.trips_done());
        self.engine.take_timings();
        self.progress.phase("saturation", u64::from(self.options.cycles));
        let mut missing = self.options.cycles;
        while missing > 0 && !self.stalled {
            let (cycles, trips) = self.round(missing.min(self.options.drivers))?;
            cycle_usage.add(cycles);
            trip_usage.add(trips);
            missing -= missing.min(self.options.drivers);
            self.progress.at(u64::from(self.options.cycles - missing));
        }
        let cycles = self.engine.cycles_done() - before.0;
        let trips = self.engine.trips_done() - before.1;
        let timings = self.engine.take_timings();
        let mut both = cycle_usage;
        both.add(trip_usage);
        run.add("cycles_per_s", "1/s", cycle_usage.per_second(cycles));
        run.add("cycles_with_trips_per_s", "1/s", both.per_second(cycles));
        run.add("cycle_cpu_us", "µs", cycle_usage.server_us_per(cycles));
        run.add("trip_cpu_us", "µs", trip_usage.server_us_per(trips));
        run.add("cycle_with_trip_cpu_us", "µs", both.server_us_per(cycles));
        run.add(
            "saturated_post_to_offer_p99",
            "ms",
            timings.post_to_offer.quantile_ms(0.99),
        );
        run.add(
            "saturated_accept_to_confirmed_p99",
            "ms",
            timings.accept_to_confirmed.quantile_ms(0.99),
        );
        add_cores(run, "saturated_server_core", "saturated_client_core", &cycle_usage);
        Ok(())
    }

    /// One round of `quota` cycles and their trips; answers what each of the two cost.
    fn round(&mut self, quota: u32) -> io::Result<(Usage, Usage)> {
        let in_flight = self.options.in_flight;
        let mut posted = 0;
        self.meter.lap()?;
        self.drain_with(|load| {
            while posted < quota && load.engine.cycles_open() < in_flight {
                let now_ns = load.session.now_ns();
                if !load.engine.post(&mut load.session, now_ns) {
                    break;
                }
                posted += 1;
            }
            Ok(load.engine.cycles_open() + (quota - posted))
        })?;
        let cycles = self.meter.lap()?;
        self.drain_with(|load| {
            load.engine.end_trips(&mut load.session, in_flight)?;
            Ok(load.engine.trips_open())
        })?;
        Ok((cycles, self.meter.lap()?))
    }

    /// Turns until nothing is open.
    fn drain(&mut self, open: impl Fn(&Engine) -> u32) -> io::Result<()> {
        self.drain_with(|load| Ok(open(&load.engine)))
    }

    /// Turns until `step` says that nothing is open, or nothing has changed for too long.
    fn drain_with(&mut self, mut step: impl FnMut(&mut Self) -> io::Result<u32>) -> io::Result<()> {
        let mut last_open = u32::MAX;
        let mut moved_ns = self.session.now_ns();
        while !self.stalled {
            let open = step(self)?;
            if open == 0 {
                break;
            }
            if open != last_open {
                (last_open, moved_ns) = (open, self.session.now_ns());
            } else if self.session.now_ns() > moved_ns + STALL_NS_MAX {
                self.stalled = true;
                self.engine
                    .fault("offers or trips lost", || format!("{open} never ended"));
            }
            self.turn(u64::MAX)?;
        }
        Ok(())
    }

    fn turn(&mut self, until_ns: u64) -> io::Result<()> {
        self.engine.send_due(&mut self.session)?;
        self.session.turn(until_ns.min(self.engine.next_due_ns()))?;
        let events = self.session.take_events();
        for event in &events {
            self.engine.react(&mut self.session, event)?;
        }
        self.session.recycle(events);
        Ok(())
    }
}

fn add_timings(run: &mut Run, timings: &Timings) {
    let mut add = |names: [&'static str; 3], latencies: &crate::measure::Latencies| {
        run.add(names[0], "ms", latencies.quantile_ms(0.5));
        run.add(names[1], "ms", latencies.quantile_ms(0.99));
        run.add(names[2], "ms", latencies.max_ms());
    };
    add(
        ["post_to_202_p50", "post_to_202_p99", "post_to_202_max"],
        &timings.post_to_accepted,
    );
    add(
        ["post_to_offer_p50", "post_to_offer_p99", "post_to_offer_max"],
        &timings.post_to_offer,
    );
    add(
        ["decline_to_offer_p50", "decline_to_offer_p99", "decline_to_offer_max"],
        &timings.decline_to_offer,
    );
    add(
        [
            "accept_to_confirmed_p50",
            "accept_to_confirmed_p99",
            "accept_to_confirmed_max",
        ],
        &timings.accept_to_confirmed,
    );
}
