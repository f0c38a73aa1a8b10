//! `plan`: what hardware a city needs, from the costs that were measured, and how far each figure can be trusted.
//!
//! Costs are fitted to the phases of `bench/scenarios/scale.toml` (`dispatchd-bench run`), played with several numbers of drivers.
//! `plan --check` fits to small runs, predicts a larger one, and prints the error.
#![forbid(unsafe_code)]

mod fit;
mod lines;
mod size;
mod stores;
mod storm;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use comfy_table::ContentArrangement;
use dispatchd::ops::args::real;
use dispatchd::say;
use serde_json::{Value, json};

use crate::files;
use crate::misuse::misuse;
use crate::report::{align_numbers, number, table};
use fit::{Fits, Point, Quantity};
use size::{City, Costs};

/// Phases of scenarios that only prepare what is measured.
pub const PHASES_PREPARING: [&str; 2] = ["warm", "settle"];
/// Error of a prediction beyond which a check fails.
const ERROR_MAX: f64 = 0.15;
/// What `--check` judges; the others are shown.
const JUDGED: [Quantity; 5] = [
    Quantity::Cpu,
    Quantity::Memory,
    Quantity::Network,
    Quantity::Disk,
    Quantity::Commits,
];
/// Columns of a plan's table, in which longer texts take several lines.
const PLAN_WIDTH: u16 = 140;
/// Results of this repository's own runs, used when none are given.
const MEASURED: &str = include_str!("../../plan/measured.json");

/// A city, and where the costs come from.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    #[command(flatten)]
    city: City,
    /// Results of scale runs; without it those that came with this program
    #[arg(long, value_name = "RESULTS.json")]
    measured: Vec<PathBuf>,
    /// CPU of a handshake, µs (figure `handshake_cpu_us` of the scenario handshakes)
    #[arg(long, value_parser = real(0.0..=1e6, 60.0))]
    handshake_us: Option<f64>,
    /// Keep what the fits need of the measured results in one small file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Predict this larger run from the measured ones, and print the error
    #[arg(long, value_name = "LARGER.json")]
    check: Option<PathBuf>,
}

/// Plans, or checks.
///
/// # Errors
/// A file cannot be read or holds no phases, or the city is not given.
pub fn run(options: &Options) -> io::Result<ExitCode> {
    let mut documents = Vec::new();
    for path in &options.measured {
        documents.push(files::read_json(path)?);
    }
    if documents.is_empty() {
        documents.push(serde_json::from_str(MEASURED)?);
    }
    let points: Vec<Point> = documents
        .iter()
        .flat_map(|document| fit::points(document, &PHASES_PREPARING))
        .collect();
    if let Some(path) = &options.save {
        files::write(path, &format!("{:#}\n", condensed(&documents)))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = &options.check {
        let larger = fit::points(&files::read_json(path)?, &PHASES_PREPARING);
        return check(&points, &larger);
    }
    let (Some(drivers), Some(offers)) = (options.city.drivers, options.city.offers_per_second) else {
        return Err(misuse("say --drivers and --offers-per-second, or --check"));
    };
    let rides = offers * options.city.ride_minutes * 60.0;
    if rides > drivers {
        return Err(misuse(format!(
            "{rides:.0} rides at once are more than {drivers:.0} drivers: fewer --offers-per-second, or shorter --ride-minutes"
        )));
    }
    let handshake_us = options.handshake_us.or_else(|| documents.iter().find_map(handshake_us));
    let costs = Costs::new(&points, handshake_us).map_err(io::Error::other)?;
    let plan = size::Plan::of(&options.city, drivers, offers, &costs).map_err(misuse)?;
    say!(
        "{drivers:.0} drivers, {} offers/s, a heartbeat every {} s: {:.0} nodes, bound by {}\n",
        number(offers),
        number(options.city.heartbeat_s),
        plan.nodes,
        plan.bound_by
    );
    let mut table = table();
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(PLAN_WIDTH);
    table.set_header(["", "needs", "confidence", "because"]);
    for line in &plan.lines {
        table.add_row([&line.what, &line.figure, line.confidence.word(), &line.because]);
    }
    say!("{table}");
    say!(
        "\nmeasured in {} phases, with {:.0} of a node's shards at most; TLS, letters between shards and nodes, and what a node spends on Redis and \
         Scylla are not in it",
        points.len(),
        points.iter().map(|point| point.load.shards).fold(0.0, f64::max)
    );
    Ok(ExitCode::SUCCESS)
}

/// All scenarios of all files with their phases and medians, without what only reports show.
fn condensed(documents: &[Value]) -> Value {
    let scenarios = documents
        .iter()
        .flat_map(|document| document["scenarios"].as_array().into_iter().flatten());
    let kept = scenarios.map(|scenario| {
        json!({
            "scenario": scenario["scenario"],
            "parameters": { "phase": scenario["parameters"]["phase"] },
            "medians": scenario["medians"],
        })
    });
    json!({
        "environment": documents.first().map(|document| &document["environment"]),
        "scenarios": kept.collect::<Vec<_>>(),
    })
}

/// The figure of a scenario `handshakes`, or of dispatchd among the peers.
fn handshake_us(document: &Value) -> Option<f64> {
    let scenarios = document["scenarios"].as_array()?;
    let ours = |scenario: &&Value| matches!(scenario["scenario"].as_str(), Some("handshakes" | "peer/dispatchd"));
    scenarios.iter().find(ours)?["medians"]["handshake_cpu_us"].as_f64()
}

/// Whether an error of this prediction counts, of what was measured.
fn is_judged(quantity: Quantity, measured: f64) -> bool {
    JUDGED.contains(&quantity) && measured > quantity.counts_from()
}

/// Predicts each phase of a larger run.
fn check(points: &[Point], larger: &[Point]) -> io::Result<ExitCode> {
    if points.is_empty() || larger.is_empty() {
        return Err(misuse("there are no measured phases on one of the sides"));
    }
    let mut table = table();
    table.set_header(["phase", "", "unit", "predicted", "measured", "error %", ""]);
    let (mut good, mut passed) = (true, 0);
    let fits = Fits::new(points);
    for (index, quantity) in Quantity::ALL.into_iter().enumerate() {
        let (name, unit) = quantity.words();
        for point in larger.iter().filter(|point| point.took[index] > 0.0) {
            let Some(predicted) = fits.predict(quantity, &point.load) else {
                break;
            };
            let measured = point.took[index];
            let error = predicted / measured - 1.0;
            let judged = is_judged(quantity, measured);
            let fails = judged && error.abs() > ERROR_MAX;
            good &= !fails;
            passed += usize::from(judged && !fails);
            let verdict = match (judged, fails) {
                (false, _) => "",
                (true, false) => "pass",
                (true, true) => "MISS",
            };
            table.add_row([
                point.name.clone(),
                name.to_owned(),
                unit.to_owned(),
                number(predicted),
                number(measured),
                format!("{:+.1}", 100.0 * error),
                verdict.to_owned(),
            ]);
        }
    }
    if good && passed == 0 {
        return Err(misuse("the larger run holds none of the figures that are judged"));
    }
    align_numbers(&mut table, 3);
    say!(
        "from {} phases, within {:.0} %:\n{table}",
        points.len(),
        100.0 * ERROR_MAX
    );
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_costs_that_come_along_suffice_for_a_plan() {
        let document: Value = serde_json::from_str(MEASURED).unwrap();
        let points = fit::points(&document, &PHASES_PREPARING);
        assert!(points.len() >= 6, "{} phases", points.len());
        assert!(Costs::new(&points, None).is_ok());
    }

    #[test]
    fn a_check_fails_when_the_larger_run_is_something_else() {
        let document: Value = serde_json::from_str(MEASURED).unwrap();
        let points = fit::points(&document, &PHASES_PREPARING);
        let verdict = |points: &[Point], larger: &[Point]| format!("{:?}", check(points, larger).unwrap());
        let mut dearer = points.clone();
        for point in &mut dearer {
            point.took[0] *= 2.0;
        }
        assert_eq!(verdict(&points, &dearer), format!("{:?}", ExitCode::FAILURE));
        assert!(check(&[], &points).is_err());
        let mut empty = points.clone();
        for point in &mut empty {
            point.took = [f64::NAN; Quantity::ALL.len()];
        }
        assert!(check(&points, &empty).is_err(), "nothing that could fail");
    }
}
