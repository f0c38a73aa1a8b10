//! `dispatchd-sim`: runs seeds, repeats one, shrinks one.
#![forbid(unsafe_code)]

use clap::{Parser, Subcommand};
use dispatchd::ops::args::{whole, whole_of};
use dispatchd_sim::report;
use dispatchd_sim::shrink::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A run makes and drops millions of small things on a thread of its own, which glibc's `malloc` is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs whole dispatchd nodes in a simulated world and checks what their clients see.
///
/// A seed decides everything: 1 to 999,999 are one node each, those from 1,000,000 on are fleets of two to four (a thousand nodes take about
/// a minute of two cores, a hundred fleets half of that). Exit status 0: all held; 1: one did not; 2: what was asked for cannot be had.
#[derive(Debug, Parser)]
#[command(name = "dispatchd-sim", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs seeds, each twice, after those of the regression list.
    Run {
        /// Which, as `1..200`: both ends included.
        #[arg(long, default_value = "1..200", value_parser = report::parse_range)]
        seeds: (u64, u64),
        /// Threads.
        #[arg(long, default_value_t = 1, value_parser = whole::<usize>(1..=1024, 2))]
        jobs: usize,
        /// Goes on after a failure and lists them all.
        #[arg(long)]
        keep_going: bool,
        /// Runs each seed once only, which does not show whether it repeats itself.
        #[arg(long)]
        once: bool,
        /// Leaves the regression list out.
        #[arg(long)]
        no_regressions: bool,
        /// Seconds for shrinking a failure.
        #[arg(long, default_value_t = 30, value_parser = whole::<u64>(0..=86_400, 30))]
        shrink_s: u64,
    },
    /// Runs one seed and prints its timeline: what the failure is about, or everything.
    Repeat {
        /// Which.
        #[arg(value_parser = whole_of(7))]
        seed: u64,
        /// Shrunk by these steps, as a failure prints them behind `again:`.
        #[arg(long, value_name = "STEPS")]
        shrunk: Option<Path>,
        /// Everything.
        #[arg(long)]
        all: bool,
    },
    /// Shrinks a seed that fails, and prints the timeline.
    Shrink {
        /// Which.
        #[arg(value_parser = whole_of(7))]
        seed: u64,
        /// Seconds.
        #[arg(long, default_value_t = 120, value_parser = whole::<u64>(0..=86_400, 120))]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    end_with_the_reader();
    let good = match Args::parse().command {
        Command::Run {
            seeds,
            jobs,
            keep_going,
            once,
            no_regressions,
            shrink_s,
        } => report::run(&report::Run {
            seeds,
            jobs,
            keep_going,
            once,
            regressions: !no_regressions,
            shrink_s,
        }),
        Command::Repeat { seed, shrunk, all } => report::repeat(seed, &shrunk.unwrap_or_default(), all),
        Command::Shrink { seed, seconds } => report::shrink(seed, seconds),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A reader who has seen enough (`| head`) ends this program as it ends others, by SIGPIPE, which Rust ignores: printing panics then.
fn end_with_the_reader() {
    let always = Arc::new(AtomicBool::new(true));
    // Without it there is the panic, and nothing worse.
    let _ = signal_hook::flag::register_conditional_default(signal_hook::consts::SIGPIPE, always);
}
