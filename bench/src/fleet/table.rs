//! The fault table and the rows of speed, as they are printed and kept.
#![forbid(unsafe_code)]

use std::io;

use dispatchd::demo::audit::Verdict;
use dispatchd::say;

use super::play::Played;
use super::rows::Row;
use super::seen::Figures;
use crate::report::{self, Run, ScenarioReport, align_numbers, number};

/// What the scenarios of the fault table begin with.
const ROW_PREFIX: &str = "fleet/";

/// A row that cannot be played.
pub fn missing(what: &str) -> Run {
    let mut run = Run::default();
    run.faults.add("missing", || what.to_owned());
    run
}

/// A row that has no verdict.
pub fn failed(error: &io::Error) -> Run {
    let mut run = Run::default();
    run.faults.add("no verdict", || error.to_string());
    run
}

/// What a row came to, in a word.
pub fn word(run: &Run) -> &'static str {
    if run.faults.is_empty() {
        "good"
    } else if run.faults.count("missing") > 0 {
        "missing"
    } else {
        "FAILED"
    }
}

/// Figures and faults of a row.
pub fn run_of(row: &Row, played: io::Result<Played>) -> Run {
    let played = match played {
        Ok(played) => played,
        Err(error) => return failed(&error),
    };
    let mut run = Run::default();
    let [posted, accepted, unfulfilled, cancelled, not_taken] = played.requests;
    for (name, value) in [
        ("posted", posted),
        ("accepted", accepted),
        ("unfulfilled", unfulfilled),
        ("cancelled", cancelled),
        ("not_taken", not_taken),
    ] {
        run.add(name, "", value as f64);
    }
    figures(&played.figures, &mut run);
    for verdict in &played.verdicts {
        let what = format!("{}. {}", verdict.number, verdict.name);
        run.add(format!("checks_{}", verdict.number), "", verdict.checks as f64);
        run.add(format!("violations_{}", verdict.number), "", verdict.violations as f64);
        let example = match verdict {
            Verdict {
                violations: 1..,
                examples,
                ..
            } => examples.join("; "),
            Verdict { checks: 0, .. } => "could not be checked".to_owned(),
            _ => continue,
        };
        run.faults.merge(what, verdict.violations.max(1), example);
    }
    run.add("checks_reach", "", played.reach.checks as f64);
    run.add("violations_reach", "", played.reach.violations as f64);
    if played.reach.violations > 0 {
        let (count, examples) = (played.reach.violations, played.reach.examples.join("; "));
        run.faults.merge(
            "any node answers for any driver and request".to_owned(),
            count,
            examples,
        );
    }
    if played.figures.well_after.is_none() {
        let example = || "errors or late offers until shortly before the end of the load".to_owned();
        run.faults.add("not well again", example);
    }
    if row.may_fail_nothing() && not_taken > 0 {
        run.faults
            .merge("requests that no node took".to_owned(), not_taken, String::new());
    }
    for end in played.ended {
        run.faults.add("a node ended by itself", || end);
    }
    run
}

fn figures(seen: &Figures, run: &mut Run) {
    let secs = |time: Option<std::time::Duration>| time.map_or(f64::NAN, |time| time.as_secs_f64());
    run.add("errors", "", seen.errors_in_all() as f64);
    for (kind, count) in &seen.errors {
        run.add(format!("error: {kind}"), "", *count as f64);
    }
    run.add("offers_over_1s", "", seen.late as f64);
    run.add("never_offered", "", seen.never as f64);
    run.add("requests_looked_at", "", seen.requests as f64);
    run.add("longest_without_offer", "s", seen.gap.as_secs_f64());
    run.add("well_despite_fault_after", "s", secs(seen.well_despite));
    run.add("well_after_mending", "s", secs(seen.well_after));
}

/// Prints everything and gives the goals beside what was measured.
pub fn print(reports: &[ScenarioReport]) -> Vec<report::Verdict> {
    let rows: Vec<&ScenarioReport> = reports
        .iter()
        .filter(|report| report.name.starts_with(ROW_PREFIX))
        .collect();
    if !rows.is_empty() {
        print_faults(&rows);
    }
    for report in reports.iter().filter(|report| !report.name.starts_with(ROW_PREFIX)) {
        report.print();
    }
    let verdicts: Vec<_> = reports.iter().flat_map(ScenarioReport::verdicts).collect();
    if !verdicts.is_empty() {
        report::print_verdicts(&verdicts);
    }
    verdicts
}

fn print_faults(rows: &[&ScenarioReport]) {
    let mut table = report::table();
    table.set_header([
        "fault",
        "posted",
        "accepted",
        "errors seen",
        "no offer, s",
        "over 1 s",
        "well in fault, s",
        "well after, s",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7",
        "any node",
        "",
    ]);
    for report in rows {
        for run in &report.runs {
            table.add_row(cells(report.name, run));
        }
    }
    align_numbers(&mut table, 1);
    say!("{table}");
    say!(
        "errors seen: what callers and apps got before they were served elsewhere or later. no offer: the longest time in which no driver\n\
         heard one. over 1 s: requests whose first offer came later than that. well: from the fault, or from its mending, to the\n\
         last error or late offer; – when there was no calm. 1 to 7: violations of the contract's invariants; any node: requests that\n\
         not all nodes show alike, and drivers who were refused as offline while connected."
    );
    for report in rows {
        for run in &report.runs {
            for line in run.faults.lines() {
                say!("{}: {line}", &report.name[ROW_PREFIX.len()..]);
            }
        }
    }
}

fn cells(name: &str, run: &Run) -> Vec<String> {
    let figure = |name: &str| match run.value(name) {
        Some(value) if !value.is_nan() => number(value),
        _ => "–".to_owned(),
    };
    let mut errors: Vec<String> = run
        .figures
        .iter()
        .filter_map(|figure| {
            let kind = figure.name.strip_prefix("error: ")?;
            Some(format!("{} {kind}", number(figure.value)))
        })
        .collect();
    if errors.is_empty() && run.value("errors").is_some() {
        errors.push("none".to_owned());
    }
    let mut cells = vec![
        name[ROW_PREFIX.len()..].to_owned(),
        figure("posted"),
        figure("accepted"),
        errors.join(", "),
        figure("longest_without_offer"),
        figure("offers_over_1s"),
        figure("well_despite_fault_after"),
        figure("well_after_mending"),
    ];
    for invariant in ["1", "2", "3", "4", "5", "6", "7", "reach"] {
        cells.push(match run.value(&format!("checks_{invariant}")) {
            Some(0.0) => "?".to_owned(),
            _ => figure(&format!("violations_{invariant}")),
        });
    }
    cells.push(word(run).to_owned());
    cells
}
