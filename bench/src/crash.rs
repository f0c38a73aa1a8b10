//! `crash`: a node that gets SIGKILL again and again under load, and an audit of what its clients were told.
//!
//! Load, kills and auditor are the demo's (`dispatchd::demo::crash`). With `--power` the data directory stands on a file system
//! that loses what was not synced, and every kill is a power cut. Must never leave a server, a mount or a directory behind when
//! it is ended by a signal that can be caught.
#![forbid(unsafe_code)]

use std::io;
use std::process::ExitCode;

use dispatchd::demo::RATE;
use dispatchd::demo::crash::{self, CrashError, CrashOptions, CrashReport, Power};
use dispatchd::demo::node;
use dispatchd::ops::args::{real, whole, whole_of};
use dispatchd::say;
use lossyfs::{Counts, Honesty, LossyDisk};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::ends::Ends;
use crate::files::Files;
use crate::report::{self, Run, ScenarioReport};
use crate::server::Install;

/// Size of the journal's segments: small, so that they are made and dropped while the play lasts, and soon read.
const SEGMENT_BYTES: u32 = 2 << 20;

/// The load and the kills.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Kills at least; those during a recovery count, and one more comes when all is over
    #[arg(long, default_value_t = 200, value_parser = whole::<u32>(1..=10_000, 200))]
    pub kills: u32,
    /// Connected drivers
    #[arg(long, default_value_t = 60, value_parser = whole::<u32>(10..=5_000, 60))]
    pub drivers: u32,
    /// Requests per second
    #[arg(long, default_value_t = 60.0, value_parser = real(RATE, 60.0))]
    pub rate: f64,
    /// Decides the instants of the kills and every choice of the clients; with --runs each further run has the next one
    #[arg(long, default_value_t = 1, value_parser = whole_of(1))]
    pub seed: u64,
    /// Shards of the server
    #[arg(long, default_value_t = 2, value_parser = whole::<u16>(1..=64, 2))]
    pub shards: u16,
    /// Every kill is a power cut: the data stand on a file system that loses what was not synced (needs root and /dev/fuse;
    /// after a SIGKILL of this program it is still mounted: umount it)
    #[arg(long)]
    pub power: bool,
    /// The disk lies about what is durable: losses must be found, or what is left be refused, which shows that they can be
    #[arg(long, requires = "power")]
    pub lying: bool,
}

/// Kills, prints what was found and writes it to the files that are named; status 1 when a promise was broken, or on a lying
/// disk none was.
///
/// # Errors
/// A run has no verdict; says why. The runs before it are printed and written all the same.
pub fn run(install: &Install, options: &Options, runs: u32, files: Files<'_>) -> io::Result<ExitCode> {
    node::kill_child_on_panic();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    // From here on a signal ends the run and not the process, which has a server, a mount and a directory to take away.
    let mut ends = {
        let _context = runtime.enter();
        Ends::new()?
    };
    let mut parameters = json!(options);
    parameters["settings"] = json!(install.settings);
    let mut report = ScenarioReport {
        name: "crash",
        parameters,
        runs: Vec::new(),
        goals: &[],
    };
    let mut result = Ok(());
    for number in 0..runs {
        let seed = options.seed.wrapping_add(u64::from(number));
        let Options {
            kills, drivers, rate, ..
        } = options;
        say!(
            "run {} of {runs}: {kills} kills, {drivers} drivers, {rate} requests/s, seed {seed}; about a second for each kill",
            number + 1
        );
        match one(install, options, seed, &runtime, &mut ends) {
            Ok(run) => report.runs.push(run),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    let document = report::document(&environment(), std::slice::from_ref(&report), &[]);
    files.write(&document)?;
    result?;
    Ok(if report.is_valid() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(crate) fn environment() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    json!({ "kernel": read("/proc/sys/kernel/osrelease"), "load_average": read("/proc/loadavg") })
}

/// One play. Whatever it ends with, nothing of it is left.
fn one(install: &Install, options: &Options, seed: u64, runtime: &Runtime, ends: &mut Ends) -> io::Result<Run> {
    let home = tempfile::Builder::new()
        .prefix("dispatchd-crash-")
        .tempdir_in(&install.data_root)?;
    let mut disk = None;
    if options.power {
        let honesty = if options.lying { Honesty::Lying } else { Honesty::Honest };
        let data = home.path().join("data");
        std::fs::create_dir(&data)?;
        let mounted = LossyDisk::mount(&data, seed, honesty);
        let mounted = mounted.map_err(|error| io::Error::other(format!("no lossy file system: {error}")))?;
        disk = Some(Cuts(mounted));
    }
    let mut settings = vec![
        format!("shards={}", options.shards),
        format!("journal_segment_bytes={SEGMENT_BYTES}"),
    ];
    settings.extend_from_slice(&install.settings);
    let crash_options = CrashOptions {
        kills: options.kills,
        drivers: options.drivers,
        rate: options.rate,
        seed,
        settings,
    };
    let power = disk.as_mut().map(|disk| disk as &mut dyn Power);
    let play = crash::run(&install.program, home.path(), &crash_options, power);
    let played = runtime.block_on(ends.or(play))?;
    let counts = disk.as_ref().map(|Cuts(disk)| disk.counts());
    if let Some(counts) = &counts {
        say!("disk: {counts:?}");
    }
    let Options {
        kills,
        drivers,
        rate,
        shards,
        ..
    } = options;
    let power = if options.power { " --power" } else { "" };
    let again = format!(
        "promises were broken; the same kills and choices again: dispatchd-bench crash --seed {seed} --kills {kills} \
         --drivers {drivers} --rate {rate} --shards {shards}{power}"
    );
    judge(played, counts, options.lying, &again)
}

/// Prints what a play came to, and makes a run of it.
fn judge(played: Result<CrashReport, CrashError>, disk: Option<Counts>, lying: bool, again: &str) -> io::Result<Run> {
    if let Ok(report) = &played {
        report.print();
    }
    let mut run = Run::default();
    if lying {
        let found = crash::is_lie_found(&played).map_err(|error| io::Error::other(error.to_string()))?;
        let said = match (&played, found) {
            (Err(refusal), _) => format!("the node refused what was left: {refusal}"),
            (Ok(_), true) => "they did".to_owned(),
            (Ok(_), false) => "none did".to_owned(),
        };
        say!("on a lying disk promises must break: {said}");
        if !found {
            run.faults.add("a lie that was not found", || said);
        }
    }
    match played {
        Ok(report) => {
            figures(&report, &mut run);
            if !lying {
                faults(&report, &mut run);
                say!("{}", if report.is_bad() { again } else { "every promise held" });
            }
        }
        Err(_) if lying => run.add("refused", "", 1.0),
        Err(error) => return Err(io::Error::other(error.to_string())),
    }
    if let Some(counts) = disk {
        disk_figures(&counts, &mut run);
    }
    Ok(run)
}

fn figures(report: &CrashReport, run: &mut Run) {
    let mut count = |name, value: u64| run.add(name, "", value as f64);
    count("kills", report.kills.0.into());
    count("kills_in_recovery", report.kills.1.into());
    let [posted, accepted, unfulfilled, cancelled] = report.requests;
    count("posted", posted);
    count("accepted", accepted);
    count("unfulfilled", unfulfilled);
    count("cancelled", cancelled);
    count("audits_read", report.audits as u64);
    count("checks", report.verdicts.iter().map(|verdict| verdict.checks).sum());
    count("violations", report.violations());
    for (name, quantile) in [
        ("start_to_ready_p50", 0.5),
        ("start_to_ready_p90", 0.9),
        ("start_to_ready_p99", 0.99),
        ("start_to_ready_max", 1.0),
    ] {
        run.add(name, "ms", report.recovery_ms.value_at_quantile(quantile) as f64);
    }
    run.add("took", "s", report.took.as_secs_f64());
}

/// What makes the run a bad one: invariants that did not hold, or could not be checked.
fn faults(report: &CrashReport, run: &mut Run) {
    for verdict in &report.verdicts {
        let what = format!("{}. {}", verdict.number, verdict.name);
        if verdict.violations > 0 {
            let example = verdict.examples.first().cloned().unwrap_or_default();
            run.faults.merge(what, verdict.violations, example);
        } else if verdict.checks == 0 {
            run.faults.merge(what, 1, "could not be checked".to_owned());
        }
    }
}

fn disk_figures(counts: &Counts, run: &mut Run) {
    for (name, value) in [
        ("power_cuts", counts.cuts),
        ("cut_in_flight", counts.cut_in_flight),
        ("writes_durable", counts.writes_durable),
        ("sectors_lost", counts.losses.sectors_lost),
        ("sectors_kept", counts.losses.sectors_kept),
        ("writes_torn", counts.losses.writes_torn),
        ("entries_lost", counts.losses.entries_lost),
    ] {
        run.add(name, "", value as f64);
    }
}

/// The power of a lossy disk.
struct Cuts(LossyDisk);

impl Power for Cuts {
    fn off(&mut self) {
        self.0.cut();
    }

    fn on(&mut self) -> io::Result<()> {
        self.0.power_on().map(drop)
    }
}
