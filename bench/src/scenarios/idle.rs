//! `idle`: what a connected driver that does nothing costs in memory.
//!
//! The server's anonymous memory and its own count of allocated bytes (`dispatchd_allocated_bytes`) are its alone. Kernel
//! memory on loopback holds both ends of a connection; there is no telling them apart, so the sum and its half are given.
//! Memory of the first tenth of the drivers is also taken apart, because it pays for what is touched once.
#![forbid(unsafe_code)]

use std::io;

use dispatchd::ops::args::whole;
use serde::Serialize;

use super::Context;
use super::raw::HANDSHAKE_PAIRS;
use crate::http;
use crate::measure::{UserMemory, kernel_slab_bytes, metric};
use crate::raw;
use crate::report::{Goal, Limit, Progress, Run};
use crate::server::{Server, Target};
use crate::session::Session;

/// What must be reached.
pub const GOALS: &[Goal] = &[Goal {
    what: "allocated bytes per idle driver",
    figure: "allocated_per_driver",
    limit: Limit::AtMost(256.0),
}];

/// Name of the server's counting allocator in its metrics.
const ALLOCATED_METRIC: &str = "dispatchd_allocated_bytes";
/// Time for memory to settle before it is read, ns.
const SETTLE_NS: u64 = 1_500_000_000;
/// The load.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Connected drivers; one shard holds what the limit of open files allows
    #[arg(long, default_value_t = 18_000, value_parser = whole::<u32>(10..=100_000, 18_000))]
    pub drivers: u32,
}

/// One run: a fresh server, the drivers, the raw ring with as many connections.
///
/// # Errors
/// The server's or the ring's.
pub fn run(context: &Context, options: &Options) -> io::Result<Run> {
    let server = Server::start(&context.setup)?;
    let mut run = load(server.target(), options, &context.progress).map_err(|error| server.explain(&error))?;
    server.stop()?;
    context.progress.phase("raw ring", 1);
    let raw_server = context.raw_server(options.drivers, &HANDSHAKE_PAIRS, false)?;
    let growth = raw::client::idle(raw_server.target(), &HANDSHAKE_PAIRS, options.drivers)?;
    let drivers = f64::from(options.drivers);
    run.add("raw_anonymous_per_connection", "B", growth.anonymous as f64 / drivers);
    run.add("raw_kernel_per_connection_both_ends", "B", growth.slab as f64 / drivers);
    Ok(run)
}

#[derive(Clone, Copy)]
struct Sample {
    user: UserMemory,
    kernel_slab: u64,
    allocated: Option<f64>,
    connected: u32,
}

/// Loads a server that runs already.
///
/// # Errors
/// The ring's, or drivers do not get connected.
pub fn load(target: Target, options: &Options, progress: &Progress) -> io::Result<Run> {
    let mut session = Session::open(target.address, options.drivers, 0)?;
    progress.phase("connect", u64::from(options.drivers));
    let mut samples = Vec::new();
    for count in [0, options.drivers / 10, options.drivers] {
        session.connect_drivers(count, |count| progress.at(u64::from(count)))?;
        samples.push(sample(&mut session, target)?);
    }
    let mut run = Run::default();
    if session.connected() != options.drivers {
        run.faults.add("drivers lost while idle", || {
            format!("{} are left", session.connected())
        });
    }
    let (empty, tenth, full) = (samples[0], samples[1], samples[2]);
    let per = |from: &Sample, bytes: fn(&Sample) -> f64| {
        (bytes(&full) - bytes(from)) / f64::from(full.connected - from.connected)
    };
    let allocated = |sample: &Sample| sample.allocated.unwrap_or(f64::NAN);
    run.add("allocated_per_driver", "B", per(&empty, allocated));
    run.add("allocated_per_driver_after_first_tenth", "B", per(&tenth, allocated));
    run.add("allocated_before", "B", allocated(&empty));
    run.add(
        "anonymous_per_driver",
        "B",
        per(&empty, |sample| sample.user.anonymous as f64),
    );
    run.add(
        "anonymous_per_driver_after_first_tenth",
        "B",
        per(&tenth, |sample| sample.user.anonymous as f64),
    );
    run.add("resident_before", "B", empty.user.resident as f64);
    run.add("resident_full", "B", full.user.resident as f64);
    let kernel = per(&empty, |sample| sample.kernel_slab as f64);
    run.add("kernel_per_driver_both_ends", "B", kernel);
    run.add("kernel_per_driver_half", "B", kernel / 2.0);
    session.disconnect()?;
    Ok(run)
}

fn sample(session: &mut Session, target: Target) -> io::Result<Sample> {
    let settled_ns = session.now_ns() + SETTLE_NS;
    while session.now_ns() < settled_ns {
        session.turn(settled_ns)?;
        let events = session.take_events();
        session.recycle(events);
    }
    let allocated = match http::get(target.address, "/metrics")? {
        (200, text) => metric(&text, ALLOCATED_METRIC),
        (status, _) => return Err(io::Error::other(format!("/metrics answers {status}"))),
    };
    Ok(Sample {
        user: UserMemory::of(target.pid)?,
        kernel_slab: kernel_slab_bytes()?,
        allocated,
        connected: session.connected(),
    })
}
