//! The command line: which scenarios, how often, where results go.
#![forbid(unsafe_code)]

mod bench;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dispatchd::ops::args::whole;
use serde_json::{Value, json};

use crate::compare;
use crate::files::Files;
use crate::harness;
use crate::html;
use crate::lab;
use crate::million;
use crate::misuse::{is_misuse, misuse};
use crate::peers;
use crate::plan;
use crate::report::{Goal, Run};
use crate::scenarios::{Context, RawOptions, handshakes, heartbeats, idle, offers};
use crate::server::Install;
use crate::{crash, fleet, soak};
use bench::Bench;

/// Runs of a scenario that is measured, unless given.
const RUNS: u32 = 3;

const LONG_ABOUT: &str = "\
Load generator for dispatchd: real sockets from another process, on an io_uring of its own.

The server (`dispatchd serve --set shards=1`) is started pinned to the first allowed core, with a fresh data directory per run,
and ended with SIGTERM; the load generator is pinned to the second core. Build both first and run from the repository:

    cargo build --release --workspace
    target/release/dispatchd-bench all

Latencies are HDR histograms, counted from the time at which a message was meant to leave (open loop; a late load generator
counts against the server, never for it). Server CPU is the scheduler's count over all of the server's threads, kernel workers
included. Beside every scenario runs a raw ring: a server in a child process that does the same exchange of bytes on io_uring
and nothing else, on the same core, from the same client, in the same run. The report gives both and their ratio.

The exit status is 2 when what was asked for cannot be had. A run is invalid, and the exit status 1, when anything was lost, doubled, out of order or answered with an error. A goal that
is missed prints MISS; it is an error with --strict only. A `*_client_core` near 100 means that the load generator, not the
server, was the bottleneck: then rates are lower bounds, while CPU per operation still holds. Two cores that others use too
make every latency worse; run on a quiet machine. Cores are kept awake meanwhile, where this process may do so (`dispatchd tune
keep-awake` says why); the report's first line says whether they were.";

/// Load generator for dispatchd
#[derive(Debug, Parser)]
#[command(name = "dispatchd-bench", version, long_about = LONG_ABOUT)]
pub struct Cli {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Runs of each scenario, whose median the report gives; 3 unless given, and of `crash` 1
    #[arg(long, global = true, value_parser = whole::<u32>(1..=100, 5))]
    runs: Option<u32>,
    /// Write all results to this file
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with charts to this file: one page that fetches nothing
    #[arg(long, global = true, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Exit with status 1 when a goal is missed
    #[arg(long, global = true)]
    strict: bool,
    /// The dispatchd program; by default the one beside this program
    #[arg(long, global = true, value_name = "PATH")]
    server: Option<PathBuf>,
    /// A setting of the server, beyond `shards=1`
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Where data directories are made, on the disk whose commits count; by default beside this program
    #[arg(long, global = true, value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Leave the cores their sleep states. Otherwise they are kept awake where this process may do so, as `dispatchd tune
    /// keep-awake` does: how long a core takes to wake up is the machine's time, not the server's
    #[arg(long, global = true)]
    cores_may_sleep: bool,
    #[command(flatten)]
    raw: RawOptions,
}

#[derive(Debug, Subcommand)]
enum Scenario {
    /// The whole offer workflow, at a fixed rate and at saturation
    Offers(offers::Options),
    /// Memory per connected driver that does nothing
    Idle(idle::Options),
    /// PING and PONG over all drivers, at a fixed rate and at saturation
    Heartbeats(heartbeats::Options),
    /// Connect, upgrade, WELCOME, close
    Handshakes(handshakes::Options),
    /// A million drivers on one server: connects, heartbeats, offers, drain, storm; memory by kind, CPU, latency
    Million(million::Options),
    /// The bare ring with one thing changed at a time
    Lab(lab::Options),
    /// The physical limit: an echo over a bare ring
    Raw(crate::scenarios::raw::Options),
    /// Every scenario with its defaults, and a table of the goals
    All,
    /// Push and acknowledgement beside other WebSocket servers, which are built from the package registries
    Peers(peers::Options),
    /// Scenarios from files: ramps, faults, several load processes (see bench/scenarios)
    Run(harness::Options),
    /// Say what became faster or slower between two files of results, and what is noise
    Compare(compare::Options),
    /// Make the page with charts again from a file of results
    Html(html::Options),
    /// What hardware a city needs, from measured costs
    Plan(plan::Options),
    /// A load process (what `run` starts as its children)
    #[command(hide = true)]
    LoadProcess,
    /// The peer on tokio-tungstenite (what `peers` starts as its child)
    #[command(hide = true)]
    TungsteniteServer(peers::tungstenite::Options),
    /// SIGKILL again and again under load, with or without a power cut; every promise is audited from the clients' side.
    ///
    /// About a second for each kill. Exit status 0: every promise held; 1: one was broken, or nobody can say. Data and logs are gone
    /// afterwards. Nothing is measured here: options about cores and goals change nothing.
    Crash(crash::Options),
    /// Mixed load for an hour: memory, descriptors, slots and timers must stay flat.
    ///
    /// Exit status 0: they did, and everybody was served; 1: not, or nobody can say. When something is not flat, half as long again;
    /// what is still open ends within three minutes more. Nothing is measured against a goal: options about cores change nothing.
    Soak(soak::Options),
    /// Three nodes with Redis and Cassandra, hurt in every way and audited; takeover, offers and records timed
    Fleet(fleet::Options),
    /// The raw ring's server (what the scenarios start as their child)
    #[command(hide = true)]
    RawServer(lab::server::Arguments),
}

/// Options of `all`: what each scenario has when nothing is given.
#[derive(Debug, Parser)]
struct Defaults<Options: clap::Args> {
    #[command(flatten)]
    options: Options,
}

fn defaults<Options: clap::Args>() -> Options {
    Defaults::<Options>::parse_from(["defaults"]).options
}

/// Runs what the command line asks for.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("dispatchd-bench: {error}");
            if is_misuse(&error) {
                ExitCode::from(2)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

impl Cli {
    fn run(self) -> io::Result<ExitCode> {
        self.common.files().check().map_err(misuse)?;
        match &self.scenario {
            Scenario::RawServer(options) => {
                lab::server::main(options)?;
                return Ok(ExitCode::SUCCESS);
            }
            Scenario::TungsteniteServer(options) => {
                peers::tungstenite::run(options)?;
                return Ok(ExitCode::SUCCESS);
            }
            Scenario::Peers(options) => {
                let mut bench = Bench::new(&self.common, true)?;
                let (reports, verdicts) = peers::run(&mut bench.context, options, bench.runs)?;
                bench.reports = reports;
                return bench.write(&self.common, &verdicts);
            }
            Scenario::Run(options) => {
                let mut bench = Bench::new(&self.common, true)?;
                bench.reports = harness::run(&mut bench.context, options, bench.runs)?;
                return bench.report(&self.common);
            }
            Scenario::LoadProcess => {
                harness::worker::run()?;
                return Ok(ExitCode::SUCCESS);
            }
            Scenario::Compare(options) => {
                self.common.refuse_files("compare")?;
                return compare::run(options);
            }
            Scenario::Html(options) => {
                html::run(options)?;
                return Ok(ExitCode::SUCCESS);
            }
            Scenario::Plan(options) => {
                self.common.refuse_files("plan")?;
                return plan::run(options);
            }
            _ => {}
        }
        if let Some(played) = self.play() {
            return played;
        }
        if matches!(self.scenario, Scenario::Million(_)) {
            self.common.refuse_runs("million")?;
        }
        let mut bench = Bench::new(
            &self.common,
            !matches!(self.scenario, Scenario::Raw(_) | Scenario::Lab(_)),
        )?;
        if let Scenario::Million(options) = &self.scenario {
            return million::run(&bench.context, options, self.common.files());
        }
        if let Scenario::Lab(options) = &self.scenario {
            return lab::run(&bench.context, options).map(|()| ExitCode::SUCCESS);
        }
        let mut result = Ok(());
        for step in self.scenario.steps() {
            result = bench.scenario(&step);
            if result.is_err() {
                break;
            }
        }
        bench.context.progress.finish();
        let code = bench.report(&self.common)?;
        result.map(|()| code)
    }
}

impl Cli {
    /// What audits rather than measures, and starts its servers by itself; `None`: it is something else.
    fn play(&self) -> Option<io::Result<ExitCode>> {
        let common = &self.common;
        let files = common.files();
        let played = match &self.scenario {
            Scenario::Soak(options) => common
                .refuse_runs("soak")
                .and_then(|()| soak::run(&common.install_of("soak")?, options, files)),
            Scenario::Crash(options) => {
                let install = common.install_of("crash");
                install.and_then(|install| crash::run(&install, options, common.runs.unwrap_or(1), files))
            }
            Scenario::Fleet(options) => {
                let (install, runs) = (common.install(), common.runs.unwrap_or(RUNS));
                install.and_then(|install| fleet::run(&install, options, runs, common.strict, files))
            }
            _ => return None,
        };
        Some(played)
    }
}

/// One scenario with its options.
enum Step {
    Offers(offers::Options),
    Idle(idle::Options),
    Heartbeats(heartbeats::Options),
    Handshakes(handshakes::Options),
    Raw(crate::scenarios::raw::Options),
}

impl Scenario {
    fn steps(self) -> Vec<Step> {
        match self {
            Self::Offers(options) => vec![Step::Offers(options)],
            Self::Idle(options) => vec![Step::Idle(options)],
            Self::Heartbeats(options) => vec![Step::Heartbeats(options)],
            Self::Handshakes(options) => vec![Step::Handshakes(options)],
            Self::Raw(options) => vec![Step::Raw(options)],
            Self::All => vec![
                Step::Offers(defaults()),
                Step::Idle(defaults()),
                Step::Heartbeats(defaults()),
                Step::Handshakes(defaults()),
                Step::Raw(defaults()),
            ],
            Self::Peers(_)
            | Self::Run(_)
            | Self::Compare(_)
            | Self::Html(_)
            | Self::Plan(_)
            | Self::LoadProcess
            | Self::TungsteniteServer(_)
            | Self::RawServer(_)
            | Self::Million(_)
            | Self::Lab(_)
            | Self::Crash(_)
            | Self::Fleet(_)
            | Self::Soak(_) => Vec::new(),
        }
    }
}

impl Step {
    fn describe(&self) -> (&'static str, Value, &'static [Goal]) {
        match self {
            Self::Offers(options) => ("offers", json!(options), offers::GOALS),
            Self::Idle(options) => ("idle", json!(options), idle::GOALS),
            Self::Heartbeats(options) => ("heartbeats", json!(options), heartbeats::GOALS),
            Self::Handshakes(options) => ("handshakes", json!(options), handshakes::GOALS),
            Self::Raw(options) => ("raw", json!(options), &[]),
        }
    }

    fn run(&self, context: &Context) -> io::Result<Run> {
        match self {
            Self::Offers(options) => offers::run(context, options),
            Self::Idle(options) => idle::run(context, options),
            Self::Heartbeats(options) => heartbeats::run(context, options),
            Self::Handshakes(options) => handshakes::run(context, options),
            Self::Raw(options) => crate::scenarios::raw::run(context, options),
        }
    }
}

impl Common {
    fn files(&self) -> Files<'_> {
        Files {
            json: self.json.as_deref(),
            html: self.html.as_deref(),
        }
    }

    /// Says that a command measures nothing, when its results are to be written to files.
    fn refuse_files(&self, command: &str) -> io::Result<()> {
        match (&self.json, &self.html) {
            (None, None) => Ok(()),
            _ => Err(misuse(format!(
                "{command} prints a table: --json and --html mean nothing"
            ))),
        }
    }

    /// Says that a scenario is played once, when it was asked for more.
    fn refuse_runs(&self, scenario: &str) -> io::Result<()> {
        match self.runs {
            None | Some(1) => Ok(()),
            Some(runs) => Err(misuse(format!(
                "{scenario} is one long run: --runs {runs} means nothing"
            ))),
        }
    }

    /// [`Self::install`] for a scenario with options of its own for what others take from `--set`.
    fn install_of(&self, scenario: &str) -> io::Result<Install> {
        match self.settings.iter().find(|setting| is_of(setting, "shards")) {
            None => self.install(),
            Some(setting) => Err(misuse(format!("--set {setting}: {scenario} has --shards for that"))),
        }
    }

    /// The server's program and where its data go, both absolute: servers run in directories of their own.
    fn install(&self) -> io::Result<Install> {
        let program = std::env::current_exe()?;
        let beside = |name: &str| program.with_file_name(name);
        let server = self.server.clone().unwrap_or_else(|| beside("dispatchd"));
        if !server.is_file() {
            let hint = "build it with `cargo build --release --workspace`, or say where it is with --server";
            return Err(misuse(format!("{} is missing: {hint}", server.display())));
        }
        let data_root = self.data_root.clone().unwrap_or_else(|| beside(""));
        // One is made as the run will make its own, and is gone at once.
        tempfile::tempdir_in(&data_root).map_err(|error| {
            let what = format!("no directory for data can be made in {}", data_root.display());
            misuse(format!("{what} (--data-root says where): {error}"))
        })?;
        Ok(Install {
            program: std::path::absolute(&server)?,
            data_root: std::path::absolute(&data_root)?,
            settings: self.settings.clone(),
        })
    }
}

/// Whether a `key=value` is of this key.
fn is_of(setting: &str, key: &str) -> bool {
    setting.split_once('=').is_some_and(|(left, _)| left.trim() == key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_default_is_valid() {
        Cli::command().debug_assert();
        assert_eq!(defaults::<offers::Options>().drivers, 10_000);
        assert_eq!(defaults::<idle::Options>().drivers, 18_000);
        assert_eq!(defaults::<heartbeats::Options>().in_flight, 64);
        assert_eq!(defaults::<handshakes::Options>().in_flight, 64);
        assert_eq!(defaults::<crate::scenarios::raw::Options>().pairs.len(), 3);
    }

    /// A parser that reads another type than its option has panics only when the option is looked at.
    #[test]
    fn every_option_has_the_type_that_its_parser_reads() {
        for line in [
            "--runs 2 offers",
            "idle",
            "heartbeats",
            "handshakes",
            "million",
            "lab",
            "raw",
            "peers",
            "plan --drivers 5000000 --offers-per-second 5000 --handshake-us 60",
            "compare a b",
            "crash",
            "soak",
            "fleet",
        ] {
            Cli::parse_from(std::iter::once("bench").chain(line.split(' ')));
        }
    }

    #[test]
    fn common_options_stand_before_or_behind_the_scenario() {
        for line in [["bench", "--runs", "1", "offers"], ["bench", "offers", "--runs", "1"]] {
            assert_eq!(Cli::parse_from(line).common.runs, Some(1));
        }
    }

    #[test]
    fn what_a_scenario_does_not_heed_is_refused() {
        let run = |line: &[&str]| Cli::parse_from([&["bench"], line].concat()).run();
        for (line, names) in [
            (&["soak", "--runs", "2"][..], "--runs 2"),
            (&["million", "--runs", "2"], "--runs 2"),
            (&["soak", "--set", "shards=4"], "--shards"),
            (&["crash", "--set", "shards=4"], "--shards"),
        ] {
            let error = run(line).expect_err("it is refused").to_string();
            assert!(error.contains(names), "{line:?}: {error}");
        }
    }

    #[test]
    fn a_value_that_is_refused_is_named_with_what_is_allowed() {
        for (line, option, value) in [
            (&["crash", "--kills", "x"][..], "--kills", "'x'"),
            (&["crash", "--rate", "nan"], "--rate", "'nan'"),
            (&["soak", "--minutes", "1"], "--minutes", "'1'"),
            (&["fleet", "--cassandra-nodes", "2"], "--cassandra-nodes", "'2'"),
            (&["offers", "--secs=-1"], "--secs", "'-1'"),
            (&["raw", "--pairs", "86"], "--pairs", "'86'"),
            (&["plan", "--drivers", "many"], "--drivers", "'many'"),
            (&["--runs", "0", "offers"], "--runs", "'0'"),
        ] {
            let error = Cli::try_parse_from([&["bench"], line].concat()).expect_err("it is refused");
            let error = error.to_string();
            assert!(error.contains(option) && error.contains(value), "{line:?}: {error}");
            assert!(
                error.contains("allowed: ") && error.contains("such as "),
                "{line:?}: {error}"
            );
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named_before_the_run() {
        let program = std::env::current_exe().unwrap();
        let server = program.to_str().unwrap();
        for scenario in ["crash", "soak", "fleet", "offers", "million"] {
            for (option, place) in [
                ("--json", "/missing/results.json"),
                ("--html", "/missing/page.html"),
                ("--data-root", "/missing"),
            ] {
                let line = ["bench", scenario, "--server", server, option, place];
                let error = Cli::parse_from(line).run().expect_err("it is refused").to_string();
                assert!(
                    error.contains(option) && error.contains(place) && error.contains("No such file"),
                    "{line:?}: {error}"
                );
            }
        }
    }
}
