//! `raw`: the physical limit by itself: echo, connections that come and go, connections that stay.
#![forbid(unsafe_code)]

use std::io;

use dispatchd::ops::args::whole;
use serde::Serialize;

use super::{Context, add_cores};
use crate::raw::{Pair, client};
use crate::report::Run;

/// Message sizes and connections of the raw ring.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Connections that echo, and that are idle
    #[arg(long, default_value_t = 10_000, value_parser = whole::<u32>(1..=100_000, 10_000))]
    pub connections: u32,
    /// Message sizes, REQUEST:RESPONSE in bytes on the wire, comma-separated; the default is one offer cycle
    #[arg(long, value_delimiter = ',', default_value = "409:210,86:331,89:112")]
    pub pairs: Vec<Pair>,
}

/// An upgrade and a close, each with its answer, as long as the `handshakes` scenario's.
pub const HANDSHAKE_PAIRS: [Pair; 2] = [
    Pair {
        request: 226,
        response: 328,
    },
    Pair {
        request: 8,
        response: 4,
    },
];

/// One run.
///
/// # Errors
/// The raw server's.
pub fn run(context: &Context, options: &Options) -> io::Result<Run> {
    let mut run = Run::default();
    let echo = context.raw_echo(options.connections, &options.pairs)?;
    run.add("raw_pair_cpu_us", "µs", echo.usage.server_us_per(echo.operations));
    run.add("raw_pairs_per_s", "1/s", echo.usage.per_second(echo.operations));
    run.add("raw_pair_p50", "ms", echo.latencies.quantile_ms(0.5));
    run.add("raw_pair_p99", "ms", echo.latencies.quantile_ms(0.99));
    add_cores(&mut run, "raw_server_core", "raw_client_core", &echo.usage);

    context.progress.phase("raw connections", 1);
    let load = context.raw_load(context.raw.raw_in_flight, &HANDSHAKE_PAIRS);
    let server = context.raw_server(load.connections, &HANDSHAKE_PAIRS, true)?;
    let churn = client::churn(server.target(), &load)?;
    run.add(
        "raw_connection_cpu_us",
        "µs",
        churn.usage.server_us_per(churn.operations),
    );
    run.add("raw_connections_per_s", "1/s", churn.usage.per_second(churn.operations));

    context.progress.phase("raw idle connections", 1);
    let server = context.raw_server(options.connections, &HANDSHAKE_PAIRS, false)?;
    let growth = client::idle(server.target(), &HANDSHAKE_PAIRS, options.connections)?;
    let connections = f64::from(options.connections);
    run.add(
        "raw_anonymous_per_connection",
        "B",
        growth.anonymous as f64 / connections,
    );
    run.add(
        "raw_kernel_per_connection_both_ends",
        "B",
        growth.slab as f64 / connections,
    );
    Ok(run)
}
