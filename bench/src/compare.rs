//! `compare`: two files of results, figure by figure: faster, slower, or noise.
//!
//! The ratio of the medians gets a confidence interval by resampling rounds (a percentile bootstrap). A difference counts when the
//! interval does not hold 1. With fewer than four rounds on a side even results that do not overlap come about by chance too
//! often (more than one time in twenty), so then nothing is called faster or slower.
//!
//! Of a hundred figures that did not change, five differ so by chance. What differs is therefore called faster or slower only when it would
//! among all figures that were compared (`rank_sum.rs`, corrected by Holm's method), and "perhaps" otherwise; `--fail-slower` goes by that.
#![forbid(unsafe_code)]

mod rank_sum;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::Table;
use dispatchd::ops::args::real;
use serde_json::{Map, Value};

use crate::chance::Chance;
use crate::files;
use crate::misuse::misuse;
use crate::plan::PHASES_PREPARING;
use crate::report::{align_numbers, median, number, table};

/// Rounds on each side below which there is no verdict.
const ROUNDS_MIN: usize = 4;
/// Resamplings of each figure.
const RESAMPLES: usize = 10_000;
/// Units in which more is better.
const UNITS_MORE_IS_BETTER: [&str; 1] = ["1/s"];
/// Figures of a phase of which neither more nor less is better: what was asked of the server, commits, which hold more when there are fewer, and
/// the load generator's own.
const FIGURES_WITHOUT_SIDE: [&str; 5] = [
    "heartbeats_per_s",
    "locations_per_s",
    "offers_per_s",
    "commits_per_s",
    "load_cpu",
];
/// Figures of a scenario that say what was asked of the server.
const FIGURES_OF_THE_LOAD: [&str; 2] = ["open_rate", "rate_per_s"];
/// Units in which less is better.
const UNITS_LESS_IS_BETTER: [&str; 8] = ["µs", "ms", "s", "B", "% core", "x raw", "cores", "B/s"];

/// Two files.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Results before
    #[arg(value_name = "A.json")]
    before: PathBuf,
    /// Results after
    #[arg(value_name = "B.json")]
    after: PathBuf,
    /// Confidence of the intervals, percent
    #[arg(long, default_value_t = 95.0, value_parser = real(50.0..=99.9, 95.0))]
    confidence: f64,
    /// Show noise, too
    #[arg(long)]
    all: bool,
    /// Only figures of these names, comma-separated, with the phase (`high.cpu`) or of all phases (`cpu`). The fewer, the fewer rounds a verdict needs
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    figures: Vec<String>,
    /// Exit with status 1 when anything is slower, and 2 when there are too few rounds to say so of the figures that are compared
    #[arg(long)]
    fail_slower: bool,
}

/// What became of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Faster,
    Slower,
    PerhapsFaster,
    PerhapsSlower,
    Noise,
    TooFewRounds,
}

impl Verdict {
    fn words(self) -> &'static str {
        match self {
            Self::Faster => "faster",
            Self::Slower => "SLOWER",
            Self::PerhapsFaster => "perhaps faster",
            Self::PerhapsSlower => "perhaps slower",
            Self::Noise => "noise",
            Self::TooFewRounds => "too few rounds",
        }
    }
}

/// A figure on both sides.
#[derive(Debug)]
struct Compared {
    scenario: String,
    figure: String,
    unit: String,
    before: f64,
    after: f64,
    /// Interval of after by before.
    interval: [f64; 2],
    /// Rounds of the side that has more.
    rounds_most: usize,
    /// How likely such ranks are when nothing has changed.
    chance: f64,
    /// The same of ranks that could not differ more.
    chance_min: f64,
    verdict: Verdict,
}

/// Compares and prints.
///
/// # Errors
/// A file cannot be read, or holds no results, or they have nothing in common.
pub fn run(options: &Options) -> io::Result<ExitCode> {
    let (before, after) = (read(&options.before)?, read(&options.after)?);
    let confidence = options.confidence / 100.0;
    let compared = compare(&before, &after, confidence, &options.figures);
    let nobodys = |name: &&String| !compared.iter().any(|one| is_called(&one.figure, name));
    if let Some(name) = options.figures.iter().find(nobodys) {
        return Err(misuse(format!(
            "--figures: the two files have no {name:?} in common that could be faster or slower"
        )));
    }
    if compared.is_empty() {
        return Err(misuse("the two files have no such figure in common"));
    }
    let mut text = String::new();
    for (name, side) in [("A", &before), ("B", &after)] {
        let _ = writeln!(text, "{name}: {}", side["environment"]);
    }
    for difference in parameters_that_differ(&before, &after) {
        let _ = writeln!(text, "not the same in both: {difference}");
    }
    let _ = writeln!(text, "{}", rows(&compared, options.all));
    let count = |verdict| compared.iter().filter(|one| one.verdict == verdict).count();
    let slower = count(Verdict::Slower);
    let _ = writeln!(
        text,
        "{} faster, {slower} slower, {} perhaps ({:.0} of {} figures would be by chance), {} noise, {} with too few rounds ({} rounds or more on \
         both sides are needed)",
        count(Verdict::Faster),
        count(Verdict::PerhapsFaster) + count(Verdict::PerhapsSlower),
        (1.0 - confidence) * compared.len() as f64,
        compared.len(),
        count(Verdict::Noise),
        count(Verdict::TooFewRounds),
        ROUNDS_MIN,
    );
    let alpha = (1.0 - confidence) / compared.len() as f64;
    let can_tell = compared
        .iter()
        .any(|one| one.verdict != Verdict::TooFewRounds && one.chance_min <= alpha);
    if !can_tell {
        let rounds = rank_sum::rounds_needed(alpha).max(ROUNDS_MIN);
        let _ = writeln!(
            text,
            "among {} figures nothing can be called faster or slower with so few rounds: {rounds} on both sides can, or fewer --figures",
            compared.len()
        );
    }
    match io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
        _ => {}
    }
    Ok(match (options.fail_slower, slower) {
        (true, 1..) => ExitCode::FAILURE,
        (true, 0) if !can_tell => ExitCode::from(2),
        _ => ExitCode::SUCCESS,
    })
}

fn read(path: &Path) -> io::Result<Value> {
    let document = files::read_json(path)?;
    if document["scenarios"].is_array() {
        Ok(document)
    } else {
        let what = if document["levels"].is_array() {
            "is of `million`, whose levels are compared in its own page"
        } else {
            "holds no results"
        };
        Err(misuse(format!("{}: {what}", path.display())))
    }
}

fn compare(before: &Value, after: &Value, confidence: f64, wanted: &[String]) -> Vec<Compared> {
    let is_wanted = |figure: &str| wanted.is_empty() || wanted.iter().any(|name| is_called(figure, name));
    let scenarios = |document: &Value| document["scenarios"].as_array().cloned().unwrap_or_default();
    let mut compared = Vec::new();
    for old in scenarios(before) {
        let same = |new: &&Value| new["scenario"] == old["scenario"];
        let Some(new) = scenarios(after).iter().find(same).cloned() else {
            continue;
        };
        let units = old["units"].as_object().into_iter().flatten();
        for (figure, unit) in units.filter(|(figure, _)| has_side(figure) && is_wanted(figure)) {
            let unit = unit.as_str().unwrap_or("");
            let (old_values, new_values) = (values(&old, figure), values(&new, figure));
            if let Some(one) = compare_figure(unit, &old_values, &new_values, confidence) {
                compared.push(Compared {
                    scenario: old["scenario"].as_str().unwrap_or("?").to_owned(),
                    figure: figure.clone(),
                    ..one
                });
            }
        }
    }
    let chances: Vec<f64> = compared.iter().map(|one| one.chance).collect();
    for (one, holds) in compared.iter_mut().zip(rank_sum::holm(&chances, 1.0 - confidence)) {
        one.verdict = match one.verdict {
            Verdict::PerhapsFaster if holds => Verdict::Faster,
            Verdict::PerhapsSlower if holds => Verdict::Slower,
            verdict => verdict,
        };
    }
    compared
}

/// The table of what was compared.
fn rows(compared: &[Compared], all: bool) -> Table {
    let mut table = table();
    table.set_header(["scenario", "figure", "unit", "A", "B", "B by A", "interval", ""]);
    let shown = |compared: &&Compared| all || compared.verdict != Verdict::Noise;
    for one in compared.iter().filter(shown) {
        let [low, high] = one.interval;
        table.add_row([
            one.scenario.clone(),
            one.figure.clone(),
            one.unit.clone(),
            number(one.before),
            number(one.after),
            number(one.after / one.before),
            // One round on each side has no spread to tell.
            if one.rounds_most > 1 {
                format!("{} to {}", number(low), number(high))
            } else {
                "-".into()
            },
            one.verdict.words().to_owned(),
        ]);
    }
    align_numbers(&mut table, 3);
    table
}

/// What the scenarios of both were told that is not the same, a line each, once for all scenarios.
fn parameters_that_differ(before: &Value, after: &Value) -> Vec<String> {
    let scenarios = |document: &Value| document["scenarios"].as_array().cloned().unwrap_or_default();
    let mut differences = BTreeSet::new();
    for old in scenarios(before) {
        let new = scenarios(after)
            .into_iter()
            .find(|new| new["scenario"] == old["scenario"]);
        if let Some(new) = new {
            differ("", &old["parameters"], &new["parameters"], &mut differences);
        }
    }
    differences.into_iter().collect()
}

fn differ(name: &str, old: &Value, new: &Value, differences: &mut BTreeSet<String>) {
    match (old.as_object(), new.as_object()) {
        (Some(old), Some(new)) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let of = |object: &Map<String, Value>, key: &str| object.get(key).cloned().unwrap_or(Value::Null);
            for key in keys {
                differ(&format!("{name}{key} "), &of(old, key), &of(new, key), differences);
            }
        }
        _ if old != new => {
            differences.insert(format!("{}: A {old}, B {new}", name.trim_end()));
        }
        _ => {}
    }
}

/// Whether a figure is one that can become better. `heartbeats_per_s` alone is a speed; behind the name of a phase it is what was asked for.
/// What is the load generator's own, or of a phase that only prepares, is no figure of the server.
fn has_side(figure: &str) -> bool {
    let Some((phase, figure)) = figure.split_once('.') else {
        return !FIGURES_OF_THE_LOAD.contains(&figure)
            && !figure.ends_with("client_core")
            && !figure.starts_with("raw_");
    };
    !PHASES_PREPARING.contains(&phase) && !FIGURES_WITHOUT_SIDE.contains(&figure)
}

/// Whether this is a figure's name, with its phase or without.
fn is_called(figure: &str, name: &str) -> bool {
    figure == name || figure.split_once('.').is_some_and(|(_, figure)| figure == name)
}

fn values(scenario: &Value, figure: &str) -> Vec<f64> {
    let runs = scenario["runs"].as_array().into_iter().flatten();
    runs.filter_map(|run| run["figures"][figure].as_f64()).collect()
}

/// A figure by itself. Nothing when the unit has no better side, or a side has no values above zero.
fn compare_figure(unit: &str, before: &[f64], after: &[f64], confidence: f64) -> Option<Compared> {
    let more_is_better = UNITS_MORE_IS_BETTER.contains(&unit);
    if !more_is_better && !UNITS_LESS_IS_BETTER.contains(&unit) {
        return None;
    }
    let old = median(before.iter().copied())?;
    let new = median(after.iter().copied())?;
    if old <= 0.0 || new <= 0.0 {
        return None;
    }
    let interval = ratio_interval(before, after, confidence);
    let verdict = if before.len().min(after.len()) < ROUNDS_MIN {
        Verdict::TooFewRounds
    } else if (interval[0] > 1.0) == (interval[1] < 1.0) {
        Verdict::Noise
    } else if (interval[0] > 1.0) == more_is_better {
        Verdict::PerhapsFaster
    } else {
        Verdict::PerhapsSlower
    };
    Some(Compared {
        scenario: String::new(),
        figure: String::new(),
        unit: unit.to_owned(),
        before: old,
        after: new,
        interval,
        rounds_most: before.len().max(after.len()),
        chance: rank_sum::chance(before, after),
        chance_min: rank_sum::chance_min(before.len(), after.len()),
        verdict,
    })
}

/// The interval of the ratio of medians, by resampling both sides.
fn ratio_interval(before: &[f64], after: &[f64], confidence: f64) -> [f64; 2] {
    // The same data give the same interval.
    let mut chance = Chance::new(1);
    let mut resampled = |values: &[f64]| {
        let drawn = (0..values.len()).map(|_| values[chance.below(values.len())]);
        median(drawn).unwrap_or(f64::NAN)
    };
    let mut ratios: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let old = resampled(before);
            resampled(after) / old
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let tail = ((1.0 - confidence.clamp(0.5, 0.999)) / 2.0 * RESAMPLES as f64) as usize;
    [ratios[tail], ratios[RESAMPLES - 1 - tail]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(unit: &str, before: &[f64], after: &[f64], expect: Option<Verdict>) {
        let found = compare_figure(unit, before, after, 0.95).map(|one| one.verdict);
        assert_eq!(found, expect, "{unit}: {before:?} {after:?}");
    }

    #[test]
    fn what_was_asked_for_otherwise_is_named() {
        let result = |drivers: u32, only: &[&str]| json!({"scenarios": [{"scenario": "offers", "parameters": {"options": {"drivers": drivers, "only": only}, "version": "1"}}]});
        let (a, b) = (result(200, &[]), result(100, &["raw"]));
        assert_eq!(
            parameters_that_differ(&a, &b),
            ["options drivers: A 200, B 100", "options only: A [], B [\"raw\"]"]
        );
        assert!(parameters_that_differ(&a, &a).is_empty());
        assert!(parameters_that_differ(&a, &json!({"scenarios": []})).is_empty());
    }

    #[test]
    fn differences_count_in_the_direction_of_their_unit() {
        let (low, high) = ([10.0, 11.0, 10.5, 10.2, 10.8], [15.0, 16.0, 15.5, 15.2, 15.8]);
        check("µs", &low, &high, Some(Verdict::PerhapsSlower));
        check("µs", &high, &low, Some(Verdict::PerhapsFaster));
        check("1/s", &low, &high, Some(Verdict::PerhapsFaster));
        check("1/s", &high, &low, Some(Verdict::PerhapsSlower));
        check("", &low, &high, None);
    }

    #[test]
    fn what_overlaps_is_noise_and_three_rounds_say_nothing() {
        check(
            "ms",
            &[10.0, 12.0, 11.0, 13.0],
            &[11.0, 12.5, 10.5, 13.0],
            Some(Verdict::Noise),
        );
        check(
            "ms",
            &[1.0, 1.0, 1.0],
            &[9.0, 9.0, 9.0, 9.0],
            Some(Verdict::TooFewRounds),
        );
        check("ms", &[], &[9.0], None);
        check("ms", &[0.0; 4], &[9.0; 4], None);
    }

    #[test]
    fn only_what_both_files_have_is_compared() {
        let document = |value: f64| {
            serde_json::json!({ "scenarios": [{
                "scenario": "s", "units": { "x": "ms", "y": "" },
                "runs": vec![serde_json::json!({ "figures": { "x": value, "y": 1.0 } }); 4],
            }] })
        };
        let compared = compare(&document(2.0), &document(1.0), 0.95, &[]);
        assert_eq!(compared.len(), 1);
        assert_eq!(
            (compared[0].figure.as_str(), compared[0].verdict),
            ("x", Verdict::Faster)
        );
        assert!((compared[0].interval[0] - 0.5).abs() < 1e-9);
        assert!(compare(&document(1.0), &serde_json::json!({ "scenarios": [] }), 0.95, &[]).is_empty());
        assert!(compare(&document(2.0), &document(1.0), 0.95, &["y".to_owned()]).is_empty());
    }

    #[test]
    fn one_of_many_figures_that_differs_needs_more_rounds() {
        let document = |slow: f64, figures: usize, rounds: usize| {
            let names: Vec<String> = (0..figures).map(|index| format!("f{index}")).collect();
            let units: serde_json::Map<_, _> = names.iter().map(|name| (name.clone(), "ms".into())).collect();
            let runs = (0..rounds).map(|round| {
                // The same noise on both sides, and one figure that is slower.
                let value = |name: &String| 10.0 + round as f64 + if name == "f0" { slow } else { 0.0 };
                let values: serde_json::Map<_, _> =
                    names.iter().map(|name| (name.clone(), value(name).into())).collect();
                serde_json::json!({ "figures": values })
            });
            serde_json::json!({ "scenarios": [{ "scenario": "s", "units": units, "runs": runs.collect::<Vec<_>>() }] })
        };
        let verdict = |figures: usize, rounds: usize| {
            let compared = compare(
                &document(0.0, figures, rounds),
                &document(100.0, figures, rounds),
                0.95,
                &[],
            );
            assert!(compared[1..].iter().all(|one| one.verdict == Verdict::Noise));
            compared[0].verdict
        };
        assert_eq!(verdict(1, 4), Verdict::Slower);
        assert_eq!(verdict(100, 4), Verdict::PerhapsSlower);
        assert_eq!(verdict(100, 8), Verdict::Slower);
    }
}
