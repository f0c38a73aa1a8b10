//! The scenarios. Each has `Options`, its goals, and a `run` that starts a fresh server, loads it, ends it, and runs the raw
//! ring with the message sizes just seen, so that both stand in the same report.
#![forbid(unsafe_code)]

pub mod handshakes;
pub mod heartbeats;
pub mod idle;
pub mod offers;
pub mod raw;

use std::io;
use std::path::PathBuf;

use crate::measure::Usage;
use crate::raw::client::{Load, Outcome};
use crate::raw::{self as raw_ring, Pair};
use crate::report::{Progress, Run};
use crate::server::{Cores, RawServer, Setup};
use dispatchd::ops::args::{real, whole};

/// Connections beside the drivers' that the raw server's table has room for.
const RAW_SLOTS_SPARE: u32 = 64;

/// What every scenario is given.
pub struct Context {
    /// How to start servers.
    pub setup: Setup,
    /// This program, which is also the raw server.
    pub program: PathBuf,
    /// How the raw ring is loaded.
    pub raw: RawOptions,
    /// Where progress is shown.
    pub progress: Progress,
}

/// How the raw ring is loaded.
#[derive(Debug, Clone, clap::Args, serde::Serialize)]
pub struct RawOptions {
    /// Pairs under way at once at the raw ring
    #[arg(long, global = true, default_value_t = 64, value_parser = whole::<u32>(1..=10_000, 64))]
    pub raw_in_flight: u32,
    /// Measured time of each raw run, s
    #[arg(long, global = true, default_value_t = 2.0, value_parser = real(0.1..=86_400.0, 2.0))]
    pub raw_secs: f64,
}

/// Unmeasured time before each raw run, s.
const RAW_WARMUP_S: f64 = 0.5;

impl Context {
    /// A raw server of our own with this many connections.
    ///
    /// # Errors
    /// It does not start.
    pub fn raw_server(&self, connections: u32, pairs: &[Pair], close: bool) -> io::Result<RawServer> {
        let slots = connections + RAW_SLOTS_SPARE;
        let options = raw_ring::server::Options {
            slots,
            pairs: pairs.to_vec(),
            close,
        };
        RawServer::start(&self.program, self.setup.cores, &options.to_arguments())
    }

    /// Echoes pairs of these sizes over a raw ring.
    ///
    /// # Errors
    /// The raw server's.
    pub fn raw_echo(&self, connections: u32, pairs: &[Pair]) -> io::Result<Outcome> {
        self.raw_echo_of(&self.raw_load(connections, pairs))
    }

    /// Echoes under a load of one's own.
    ///
    /// # Errors
    /// The raw server's.
    pub fn raw_echo_of(&self, load: &Load) -> io::Result<Outcome> {
        self.progress.phase("raw ring", 1);
        let server = self.raw_server(load.connections, &load.pairs, false)?;
        raw_ring::client::echo(server.target(), load)
    }

    /// The load for a raw server.
    pub fn raw_load(&self, connections: u32, pairs: &[Pair]) -> Load {
        Load {
            connections,
            in_flight: self.raw.raw_in_flight.min(connections),
            warmup_s: RAW_WARMUP_S,
            measured_s: self.raw.raw_secs,
            pairs: pairs.to_vec(),
        }
    }

    /// The cores in use.
    pub fn cores(&self) -> Cores {
        self.setup.cores
    }
}

/// Adds server CPU and load generator CPU of a stretch, as percentages of a core.
fn add_cores(run: &mut Run, server: &'static str, client: &'static str, usage: &Usage) {
    run.add(server, "% core", usage.server_percent());
    run.add(client, "% core", usage.client_percent());
}
