//! A bench for scenarios that are measured: cores for the server and the load, several runs of each, one report.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::process::ExitCode;

use dispatchd::ops::tune::{awake, host::Host};
use dispatchd::say;
use serde_json::{Value, json};

use super::{Common, RUNS, Step};
use crate::ends;
use crate::report::{self, Progress, ScenarioReport};
use crate::scenarios::Context;
use crate::server::{Cores, Setup};

/// What measures, its cores, and what came of it.
pub(super) struct Bench {
    pub(super) context: Context,
    /// The request that the cores stay awake, which holds as long as it is open.
    awake: Option<File>,
    pub(super) runs: u32,
    pub(super) reports: Vec<ScenarioReport>,
}

impl Bench {
    pub(super) fn new(common: &Common, needs_server: bool) -> io::Result<Self> {
        ends::end_at_once()?;
        let program = std::env::current_exe()?;
        let install = if needs_server { Some(common.install()?) } else { None };
        let (server, data_root) = install.map_or_else(Default::default, |install| (install.program, install.data_root));
        let cores = Cores::choose()?;
        cores.pin_client()?;
        let awake = if common.cores_may_sleep { None } else { keep_awake() };
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        let setup = Setup {
            program: server,
            settings: common.settings.clone(),
            data_root,
            cores,
            any_address: false,
        };
        let context = Context {
            setup,
            program,
            raw: common.raw.clone(),
            progress: Progress::new(),
        };
        Ok(Self {
            context,
            awake,
            runs: common.runs.unwrap_or(RUNS),
            reports: Vec::new(),
        })
    }

    /// Runs a scenario. What was measured before an error stays in the report.
    pub(super) fn scenario(&mut self, step: &Step) -> io::Result<()> {
        let (name, parameters, goals) = step.describe();
        let mut report = ScenarioReport {
            name,
            parameters,
            runs: Vec::new(),
            goals,
        };
        let mut result = Ok(());
        for run in 1..=self.runs {
            self.context.progress.context(format!("{name} {run}/{}", self.runs));
            match step.run(&self.context) {
                Ok(figures) => report.runs.push(figures),
                Err(error) => {
                    result = Err(io::Error::other(format!("{name}, run {run}: {error}")));
                    break;
                }
            }
        }
        self.reports.push(report);
        result
    }

    pub(super) fn report(&self, common: &Common) -> io::Result<ExitCode> {
        say!("{}", self.environment());
        // A scenario that broke in its first run has nothing to show; its error is printed at the end.
        let reports: Vec<&ScenarioReport> = self.reports.iter().filter(|report| !report.runs.is_empty()).collect();
        for report in &reports {
            report.print();
        }
        let verdicts: Vec<_> = reports.iter().flat_map(|report| report.verdicts()).collect();
        if !verdicts.is_empty() {
            report::print_verdicts(&verdicts);
        }
        self.write(common, &verdicts)
    }

    /// Writes the results where they were asked for; the exit status says whether they are valid and good.
    pub(super) fn write(&self, common: &Common, verdicts: &[report::Verdict]) -> io::Result<ExitCode> {
        let document = report::document(&self.environment(), &self.reports, verdicts);
        common.files().write(&document)?;
        let valid = self.reports.iter().all(ScenarioReport::is_valid);
        let reached = verdicts.iter().all(|verdict| verdict.pass);
        Ok(if valid && (reached || !common.strict) {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn environment(&self) -> Value {
        let cores = self.context.cores();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        json!({
            "kernel": read("/proc/sys/kernel/osrelease"),
            "cores": cores.allowed,
            "server_core": cores.server,
            "client_core": cores.client,
            "cores_awake": self.awake.is_some(),
            "load_average": read("/proc/loadavg"),
            "raw": self.context.raw,
        })
    }
}

/// Asks the kernel to keep the cores awake. Where it may not, runs are as the machine is, and the report says so.
fn keep_awake() -> Option<File> {
    let request = awake::keep_awake(&Host::this(), 0);
    request
        .inspect_err(|error| eprintln!("dispatchd-bench: the cores may sleep, which adds to every latency: {error}"))
        .ok()
}
