//! `run`: scenarios from files, played by several load processes against a node that may be killed, drained and started again.
//!
//! `scenario.rs` says what a file may hold; `stage.rs` conducts a run from above; `worker.rs` is a load process, whose `world.rs` and
//! `react.rs` play drivers and matching engine; `sample.rs` looks at the node; `result.rs` makes figures and charts of it all.
#![forbid(unsafe_code)]

mod geography;
mod people;
mod react;
mod result;
mod sample;
pub mod scenario;
mod stage;
mod tally;
pub mod worker;
mod world;

use std::io;
use std::path::PathBuf;

use serde_json::json;

use crate::misuse::misuse;
use crate::report::ScenarioReport;
use crate::scenarios::Context;
use scenario::Scenario;

/// What to play.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Scenario files
    #[arg(required = true, value_name = "SCENARIO.toml")]
    scenarios: Vec<PathBuf>,
    /// A top-level key of the scenarios, such as drivers=30000
    #[arg(long = "change", value_name = "KEY=VALUE")]
    changes: Vec<String>,
}

/// Plays all scenarios, each `runs` times.
///
/// # Errors
/// A file makes no sense, or a run breaks off.
pub fn run(context: &mut Context, options: &Options, runs: u32) -> io::Result<Vec<ScenarioReport>> {
    let scenarios = options
        .scenarios
        .iter()
        .map(|path| Scenario::load(path, &options.changes))
        .collect::<Result<Vec<_>, _>>()
        .map_err(misuse)?;
    let mut reports = Vec::new();
    for scenario in scenarios {
        // A report names its scenario for as long as the program runs.
        let name: &'static str = Box::leak(scenario.name.clone().into_boxed_str());
        let mut report = ScenarioReport {
            name,
            parameters: json!(scenario),
            runs: Vec::new(),
            goals: &[],
        };
        for round in 0..runs {
            context.progress.context(format!("{name} {}/{runs}", round + 1));
            let story = stage::play(context, &scenario, round)
                .map_err(|error| io::Error::other(format!("{name}, run {}: {error}", round + 1)))?;
            report.runs.push(result::run(&scenario, story));
        }
        reports.push(report);
    }
    context.progress.finish();
    Ok(reports)
}
