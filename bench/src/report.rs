//! What is printed and written: figures per run, medians, goals, and live progress.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use dispatchd::say;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::chart::Chart;

/// A measured number.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// Stable name, also the key in the JSON file.
    pub name: Cow<'static, str>,
    /// Unit of the value.
    pub unit: &'static str,
    /// The value; not a number when there was nothing to measure.
    pub value: f64,
}

/// One run of a scenario.
#[derive(Debug, Clone, Default)]
pub struct Run {
    /// Figures in the order of the report.
    pub figures: Vec<Figure>,
    /// What makes the run invalid: kind, how often, and an example.
    pub faults: Faults,
    /// What the report draws of this run.
    pub charts: Vec<Chart>,
}

impl Run {
    /// Adds a figure.
    pub fn add(&mut self, name: impl Into<Cow<'static, str>>, unit: &'static str, value: f64) {
        let name = name.into();
        debug_assert!(self.value(&name).is_none(), "figure {name} is added once");
        self.figures.push(Figure { name, unit, value });
    }

    /// A figure's value.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.figures
            .iter()
            .find(|figure| figure.name == name)
            .map(|figure| figure.value)
    }
}

/// Faults by kind.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Faults(BTreeMap<Cow<'static, str>, (u64, String)>);

impl Faults {
    /// Counts a fault; the first of a kind is kept as its example.
    pub fn add(&mut self, kind: &'static str, example: impl FnOnce() -> String) {
        self.0.entry(kind.into()).or_insert_with(|| (0, example())).0 += 1;
    }

    /// Adds faults that another process has counted.
    pub fn merge(&mut self, kind: String, count: u64, example: String) {
        self.0.entry(kind.into()).or_insert((0, example)).0 += count;
    }

    /// Kind, how often, and an example.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, &str)> {
        self.0
            .iter()
            .map(|(kind, (count, example))| (kind.as_ref(), *count, example.as_str()))
    }

    /// Adds all faults of another part of the same run.
    pub fn add_all(&mut self, other: Self) {
        for (kind, (count, example)) in other.0 {
            self.0.entry(kind).or_insert((0, example)).0 += count;
        }
    }

    /// No faults.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How often this kind was counted.
    pub fn count(&self, kind: &str) -> u64 {
        self.0.get(kind).map_or(0, |(count, _)| *count)
    }

    /// A line for each kind.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .map(|(kind, (count, example))| format!("{kind}: {count} times, first: {example}"))
    }
}

/// What a figure must reach.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// Not more than.
    AtMost(f64),
    /// Not less than.
    AtLeast(f64),
}

/// A figure's goal.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// In words.
    pub what: &'static str,
    /// Name of the figure.
    pub figure: &'static str,
    /// What it must reach.
    pub limit: Limit,
}

/// A goal beside what was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Scenario of the figure.
    pub scenario: &'static str,
    /// The goal in words.
    pub what: &'static str,
    /// The bound, with its direction.
    pub goal: String,
    /// Median, with its unit.
    pub measured: String,
    /// Measured by goal.
    pub ratio: f64,
    /// Reached.
    pub pass: bool,
}

/// All runs of one scenario.
pub struct ScenarioReport {
    /// The scenario's name.
    pub name: &'static str,
    /// Its options.
    pub parameters: Value,
    /// Its runs.
    pub runs: Vec<Run>,
    /// Its goals.
    pub goals: &'static [Goal],
}

impl ScenarioReport {
    /// Every run was free of faults.
    pub fn is_valid(&self) -> bool {
        self.runs.iter().all(|run| run.faults.is_empty())
    }

    /// A figure's median over the runs.
    pub fn median(&self, name: &str) -> Option<f64> {
        median(self.runs.iter().filter_map(|run| run.value(name)))
    }

    /// The goals beside the medians. A figure that was not measured misses its goal.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let verdict = |goal: &Goal| {
            let measured = self.median(goal.figure).unwrap_or(f64::NAN);
            let (bound, text, pass) = match goal.limit {
                Limit::AtMost(bound) => (bound, "<=", measured <= bound),
                Limit::AtLeast(bound) => (bound, ">=", measured >= bound),
            };
            let unit = self
                .figures()
                .find(|figure| figure.name == goal.figure)
                .map_or("", |figure| figure.unit);
            Verdict {
                scenario: self.name,
                what: goal.what,
                goal: format!("{text} {} {unit}", number(bound)),
                measured: format!("{} {unit}", number(measured)),
                ratio: measured / bound,
                pass,
            }
        };
        self.goals.iter().map(verdict).collect()
    }

    /// Prints all figures: each run's and the median.
    pub fn print(&self) {
        say!("\n{} {}", self.name, self.parameters);
        let mut table = table();
        let runs = (1..=self.runs.len()).map(|run| format!("run {run}"));
        table.set_header(
            ["figure".to_owned(), "unit".to_owned()]
                .into_iter()
                .chain(runs)
                .chain(["median".to_owned()]),
        );
        for figure in self.figures() {
            let values = self
                .runs
                .iter()
                .map(|run| run.value(&figure.name).map_or("-".to_owned(), number));
            let median = self.median(&figure.name).map_or("-".to_owned(), number);
            table.add_row(
                [figure.name.to_string(), figure.unit.to_owned()]
                    .into_iter()
                    .chain(values)
                    .chain([median]),
            );
        }
        align_numbers(&mut table, 2);
        say!("{table}");
        for line in self.fault_lines() {
            say!("INVALID {line}");
        }
    }

    /// What makes runs invalid, a line each.
    pub fn fault_lines(&self) -> Vec<String> {
        let runs = self.runs.iter().zip(1..);
        let lines = |(run, number): (&Run, usize)| -> Vec<String> {
            run.faults.lines().map(|line| format!("run {number}: {line}")).collect()
        };
        runs.flat_map(lines).collect()
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let runs = self.runs.iter().map(|run| {
            let figures: Map<String, Value> = run
                .figures
                .iter()
                .map(|figure| (figure.name.to_string(), json!(figure.value)))
                .collect();
            json!({ "figures": figures, "faults": run.faults, "charts": run.charts })
        });
        let units: Map<String, Value> = self
            .figures()
            .map(|figure| (figure.name.to_string(), json!(figure.unit)))
            .collect();
        let medians: Map<String, Value> = self
            .figures()
            .map(|figure| (figure.name.to_string(), json!(self.median(&figure.name))))
            .collect();
        json!({
            "scenario": self.name,
            "parameters": self.parameters,
            "units": units,
            "medians": medians,
            "runs": runs.collect::<Vec<_>>(),
        })
    }

    /// The figures' names and units, in the order of the first run that has them.
    fn figures(&self) -> impl Iterator<Item = &Figure> {
        let longest = self.runs.iter().max_by_key(|run| run.figures.len());
        longest.into_iter().flat_map(|run| run.figures.iter())
    }
}

/// The middle one, or the mean of the two in the middle; values that are not numbers do not count.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// Three significant digits, or all digits of large numbers.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        value if value.is_nan() => "-".to_owned(),
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Prints the goals of all scenarios beside what was measured.
pub fn print_verdicts(verdicts: &[Verdict]) {
    let mut table = table();
    table.set_header(["scenario", "figure", "goal", "measured", "ratio", ""]);
    for verdict in verdicts {
        let outcome = if verdict.pass { "pass" } else { "MISS" };
        let ratio = number(verdict.ratio);
        table.add_row([
            verdict.scenario,
            verdict.what,
            &verdict.goal,
            &verdict.measured,
            &ratio,
            outcome,
        ]);
    }
    align_numbers(&mut table, 2);
    say!("\n{table}");
}

/// Everything that was measured, as it is kept.
pub fn document(environment: &Value, scenarios: &[ScenarioReport], verdicts: &[Verdict]) -> Value {
    let scenarios: Vec<Value> = scenarios.iter().map(ScenarioReport::to_json).collect();
    json!({ "environment": environment, "scenarios": scenarios, "goals": verdicts })
}

/// A table as all reports print it.
pub(crate) fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_BORDERS_ONLY_CONDENSED);
    table
}

/// Aligns the columns from this one on to the right.
pub(crate) fn align_numbers(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

/// Live progress on a terminal, a line per phase elsewhere.
pub struct Progress {
    bar: ProgressBar,
    context: String,
}

impl Progress {
    /// A bar that appears with its first phase.
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{msg:40!} [{bar:30}] {pos}/{len} {elapsed} {prefix}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
        bar.set_style(style);
        Self {
            bar,
            context: String::new(),
        }
    }

    /// A progress that shows nothing.
    pub fn hidden() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            context: String::new(),
        }
    }

    /// Names the scenario and run that phases belong to.
    pub fn context(&mut self, context: String) {
        self.context = context;
    }

    /// Begins a phase of `length` steps.
    pub fn phase(&self, name: &str, length: u64) {
        self.bar.reset();
        self.bar.set_length(length);
        self.bar.set_message(format!("{}: {name}", self.context));
        self.bar.set_prefix("");
        self.bar.tick();
    }

    /// Says how far the phase is. Draws a few times per second, however often it is called.
    pub fn at(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Shows figures of the moment beside the bar.
    pub fn live(&self, figures: String) {
        self.bar.set_prefix(figures);
    }

    /// Clears the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Time between two calls of [`Progress::at`] that a busy loop should leave.
pub const PROGRESS_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    fn report(values: &[f64]) -> ScenarioReport {
        const GOALS: &[Goal] = &[
            Goal {
                what: "low",
                figure: "x",
                limit: Limit::AtMost(10.0),
            },
            Goal {
                what: "high",
                figure: "x",
                limit: Limit::AtLeast(10.0),
            },
            Goal {
                what: "none",
                figure: "y",
                limit: Limit::AtMost(1.0),
            },
        ];
        let runs = values.iter().map(|value| {
            let mut run = Run::default();
            run.add("x", "ms", *value);
            run
        });
        ScenarioReport {
            name: "s",
            parameters: json!({}),
            runs: runs.collect(),
            goals: GOALS,
        }
    }

    #[test]
    fn medians_ignore_what_was_not_measured() {
        assert_eq!(report(&[3.0, 1.0, 2.0]).median("x"), Some(2.0));
        assert_eq!(report(&[4.0, 2.0]).median("x"), Some(3.0));
        assert_eq!(report(&[f64::NAN, 2.0]).median("x"), Some(2.0));
        assert_eq!(report(&[1.0]).median("y"), None);
    }

    #[test]
    fn verdicts_compare_medians_with_goals() {
        let passes = |values: &[f64]| report(values).verdicts().iter().map(|v| v.pass).collect::<Vec<_>>();
        assert_eq!(passes(&[5.0, 6.0, 100.0]), [true, false, false]);
        assert_eq!(passes(&[10.0]), [true, true, false]);
        assert_eq!(passes(&[f64::NAN]), [false, false, false]);
        let verdict = &report(&[5.0]).verdicts()[0];
        assert_eq!(
            (verdict.goal.as_str(), verdict.measured.as_str()),
            ("<= 10.0 ms", "5.00 ms")
        );
        assert!((verdict.ratio - 0.5).abs() < 1e-9);
    }

    #[test]
    fn faults_make_a_run_invalid_and_keep_the_first_example() {
        let mut report = report(&[1.0]);
        assert!(report.is_valid());
        report.runs[0].faults.add("lost", || "first".into());
        report.runs[0].faults.add("lost", || "second".into());
        assert!(!report.is_valid());
        assert_eq!(report.runs[0].faults.count("lost"), 2);
        assert_eq!(
            report.runs[0].faults.lines().collect::<Vec<_>>(),
            ["lost: 2 times, first: first"]
        );
    }

    #[test]
    fn numbers_keep_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (12345.6, "12346"),
        ] {
            assert_eq!(number(value), text);
        }
    }
}
