//! `raw`: the physical limit by itself.

use std::io;

use serde::Serialize;

use super::{Context, add_cores};
use crate::raw::Pair;
use crate::report::Run;

/// Message sizes and connections of the raw ring.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Connections
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// Message sizes, REQUEST:RESPONSE in bytes on the wire, comma-separated; the default is one offer cycle
    #[arg(long, value_delimiter = ',', default_value = "409:210,86:331,89:112")]
    pub pairs: Vec<Pair>,
}

/// One run.
///
/// # Errors
/// The raw server's.
pub fn run(context: &Context, options: &Options) -> io::Result<Run> {
    let mut run = Run::default();
    let outcome = context.raw_echo(options.connections, &options.pairs)?;
    run.add("raw_pair_cpu_us", "µs", outcome.usage.server_us_per(outcome.operations));
    run.add("raw_pairs_per_s", "1/s", outcome.usage.per_second(outcome.operations));
    run.add("raw_pair_p50_ms", "ms", outcome.latencies.quantile_ms(0.5));
    run.add("raw_pair_p99_ms", "ms", outcome.latencies.quantile_ms(0.99));
    add_cores(&mut run, "raw_server_core", "raw_client_core", &outcome.usage);
    Ok(run)
}
