//! `lab`: one change of the bare ring at a time, beside the ring as it is: what receiving by `POLL_ADD`, bundles, a registered
//! wait, a window for batches and so on cost and save. The figures of `bench/EXPERIMENTS.md` come from here.
//!
//! Variants run in turn, round after round, so that what else the machine does meets all of them alike; of the rounds of each
//! the median counts. The client is the same for all.

mod pages;
pub mod server;
mod wait;

use std::io;

use comfy_table::{CellAlignment, Table, presets};
use dispatchd::ops::args::{real, whole};
use dispatchd::say;
use serde::Serialize;

use crate::raw::Pair;
use crate::raw::client::{self, Load};
use crate::raw::server::Options as RawServerOptions;
use crate::report::number;
use crate::scenarios::Context;
use crate::server::RawServer;
use server::Knobs;

/// An `ACK` and an `OFFER`, as the scenarios send them.
const PAIR: Pair = Pair {
    request: 70,
    response: 360,
};
/// Unmeasured time before each measurement, s.
const WARMUP_S: f64 = 0.2;
/// Time for the kernel to free what was closed.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(500);
/// Slots beside the connections'.
const SLOTS_SPARE: u32 = 64;

/// What is measured.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Connections, of which few talk at a time
    #[arg(long, default_value_t = 2_000, value_parser = whole::<u32>(64..=19_000, 2_000))]
    pub connections: u32,
    /// Idle connections whose memory is measured
    #[arg(long, default_value_t = 10_000, value_parser = whole::<u32>(64..=19_000, 10_000))]
    pub idle_connections: u32,
    /// Rounds over all variants
    #[arg(long, default_value_t = 3, value_parser = whole::<u32>(1..=100, 3))]
    pub rounds: u32,
    /// Measured time of each variant and load, s
    #[arg(long, default_value_t = 1.0, value_parser = real(0.1..=86_400.0, 1.0))]
    pub secs: f64,
    /// Only variants whose name contains this
    #[arg(long, default_value = "")]
    pub only: String,
}

/// What a variant has shown in one round.
#[derive(Default)]
struct Figures {
    slab: Vec<f64>,
    alone_cpu: Vec<f64>,
    alone_p50: Vec<f64>,
    some_cpu: Vec<f64>,
    some_p99: Vec<f64>,
    many_cpu: Vec<f64>,
}

/// Runs all variants and prints their medians.
///
/// # Errors
/// A server of the lab does not start or breaks its protocol.
pub fn run(context: &Context, options: &Options) -> io::Result<()> {
    let variants: Vec<&(&str, Knobs)> = server::VARIANTS
        .iter()
        .filter(|(name, _)| name.contains(&options.only))
        .collect();
    let mut all: Vec<Figures> = variants.iter().map(|_| Figures::default()).collect();
    for round in 1..=options.rounds {
        for ((name, _), figures) in variants.iter().zip(&mut all) {
            eprintln!("lab: round {round}, {name}");
            measure(context, options, name, figures)?;
        }
    }
    let mut table = Table::new();
    table.load_preset(presets::ASCII_BORDERS_ONLY_CONDENSED);
    table.set_header([
        "variant",
        "kernel objects per idle connection, both ends, B",
        "1 in flight: CPU, µs",
        "p50, ms",
        "8 in flight: CPU, µs",
        "p99, ms",
        "64 in flight: CPU, µs",
    ]);
    for ((name, _), figures) in variants.iter().zip(&mut all) {
        table.add_row([
            (*name).to_owned(),
            median(&mut figures.slab),
            median(&mut figures.alone_cpu),
            median(&mut figures.alone_p50),
            median(&mut figures.some_cpu),
            median(&mut figures.some_p99),
            median(&mut figures.many_cpu),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    say!("{table}");
    say!("{}", pages::compare());
    Ok(())
}

fn measure(context: &Context, options: &Options, name: &str, figures: &mut Figures) -> io::Result<()> {
    let server = RawServerOptions {
        slots: options.connections.max(options.idle_connections) + SLOTS_SPARE,
        pairs: vec![PAIR],
        close: false,
    };
    let mut arguments = server.to_arguments();
    arguments.extend(["--variant".to_owned(), name.to_owned()]);
    let start = || RawServer::start(&context.program, context.cores(), &arguments);
    let idle = start()?;
    // What the variant before has left to the kernel to free would hide what this one takes.
    std::thread::sleep(SETTLE);
    let growth = client::idle(idle.target(), &[PAIR], options.idle_connections)?;
    figures
        .slab
        .push(growth.objects as f64 / f64::from(options.idle_connections));
    drop(idle);
    let loads = [
        (1, &mut figures.alone_cpu, Some((&mut figures.alone_p50, 0.5))),
        (8, &mut figures.some_cpu, Some((&mut figures.some_p99, 0.99))),
        (64, &mut figures.many_cpu, None),
    ];
    for (in_flight, cpu, latency) in loads {
        let server = start()?;
        let load = Load {
            connections: options.connections,
            in_flight,
            warmup_s: WARMUP_S,
            measured_s: options.secs,
            pairs: vec![PAIR],
        };
        let outcome = client::echo(server.target(), &load)?;
        cpu.push(outcome.usage.server_us_per(outcome.operations));
        if let Some((into, quantile)) = latency {
            into.push(outcome.latencies.quantile_ms(quantile));
        }
    }
    Ok(())
}

fn median(values: &mut [f64]) -> String {
    values.sort_by(f64::total_cmp);
    match values {
        [] => "-".to_owned(),
        values => number(values[values.len() / 2]),
    }
}
