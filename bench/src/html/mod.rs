//! One self-contained page from a file of results: tables, charts as inline SVG, and a small script. Nothing is fetched.
//!
//! Reads the JSON that [`crate::files::Files`] writes, so a page can be made again from a kept file at any time.
//! Scenarios whose names begin alike up to a slash (`peer/…`) stand side by side in one section.
#![forbid(unsafe_code)]

mod plot;
mod scale;

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::chart::{Chart, Shape};
use crate::files;
use crate::misuse::misuse;
use crate::report::number;

/// Units in which less is better and a comparison by bars says something.
const UNITS_WITH_BARS: [&str; 4] = ["B", "µs", "ms", "1/s"];
/// Charts of a run are kept open up to this many runs; further ones are folded.
const RUNS_OPEN: usize = 1;

/// A page from a kept file.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// File of results, as --json writes it
    #[arg(value_name = "RESULTS.json")]
    results: PathBuf,
    /// Where the page goes
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Makes the page.
///
/// # Errors
/// A file's, or the results are not JSON.
pub fn run(options: &Options) -> io::Result<()> {
    let document = files::read_json(&options.results)?;
    if !document["scenarios"].is_array() {
        let name = options.results.display();
        return Err(misuse(format!(
            "{name}: holds no results (`million` writes its page itself: --html)"
        )));
    }
    files::write(&options.output, &page(&document))
}

/// The page for a document of results.
pub fn page(document: &Value) -> String {
    let scenarios = items(&document["scenarios"]);
    let names: Vec<&str> = scenarios
        .iter()
        .filter_map(|scenario| scenario["scenario"].as_str())
        .collect();
    let title = match names.as_slice() {
        [only] => format!("dispatchd-bench: {only}"),
        _ => "dispatchd-bench".to_owned(),
    };
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>{}</title>\n<style>\n{}</style></head><body>\n<h1>{}</h1>\n",
        escape(&title),
        include_str!("style.css"),
        escape(&title),
    );
    html.push_str(&environment(&document["environment"]));
    html.push_str(&goals(items(&document["goals"])));
    let mut rest = scenarios;
    while let Some(first) = rest.first() {
        let group = group_of(first);
        let length = match group {
            Some(_) => rest.iter().take_while(|scenario| group_of(scenario) == group).count(),
            None => 1,
        };
        let (these, others) = rest.split_at(length);
        match group {
            Some(group) if length > 1 => html.push_str(&side_by_side(group, these)),
            _ => html.push_str(&scenario(first)),
        }
        rest = others;
    }
    let _ = write!(
        html,
        "<script>\n{}</script>\n</body></html>\n",
        include_str!("script.js")
    );
    html
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn name_of(scenario: &Value) -> &str {
    scenario["scenario"].as_str().unwrap_or("?")
}

fn group_of(scenario: &Value) -> Option<&str> {
    name_of(scenario).split_once('/').map(|(group, _)| group)
}

fn figure_text(value: &Value) -> String {
    value.as_f64().map_or("-".to_owned(), number)
}

fn environment(environment: &Value) -> String {
    let Some(fields) = environment.as_object() else {
        return String::new();
    };
    let words: Vec<String> = fields
        .iter()
        .map(|(name, value)| match value {
            Value::String(text) => format!("{}: {}", escape(name), escape(text)),
            other => format!("{}: {}", escape(name), escape(&other.to_string())),
        })
        .collect();
    format!("<p class=\"about\">{}</p>\n", words.join(" · "))
}

fn goals(goals: &[Value]) -> String {
    if goals.is_empty() {
        return String::new();
    }
    let mut html = String::from(
        "<h2>Goals</h2><div class=\"scroll\"><table><tr><th>goal</th><th>scenario</th><th>bound</th><th>measured</th><th></th></tr>",
    );
    for goal in goals {
        let pass = goal["pass"] == true;
        let text = |name: &str| escape(goal[name].as_str().unwrap_or("-"));
        let (class, word) = if pass { ("good", "pass") } else { ("bad", "MISS") };
        let _ = write!(
            html,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"{class}\">{word}</td></tr>",
            text("what"),
            text("scenario"),
            text("goal"),
            text("measured"),
        );
    }
    html.push_str("</table></div>\n");
    html
}

/// Scenarios of one group: a table with a row each, and bars for each figure that all of them have.
fn side_by_side(group: &str, scenarios: &[Value]) -> String {
    let mut figures: Vec<&String> = Vec::new();
    for scenario in scenarios {
        let medians = scenario["medians"].as_object().into_iter().flat_map(Map::keys);
        figures.extend(medians.filter(|figure| !figures.contains(figure)).collect::<Vec<_>>());
    }
    let unit_of = |figure: &str| {
        let units = scenarios
            .iter()
            .filter_map(|scenario| scenario["units"][figure].as_str());
        units.into_iter().next().unwrap_or("").to_owned()
    };
    let short = |scenario: &Value| name_of(scenario)[group.len() + 1..].to_owned();
    let mut html = format!("<h2>{}</h2><div class=\"scroll\"><table><tr><th></th>", escape(group));
    for figure in &figures {
        let _ = write!(html, "<th>{}<br>{}</th>", escape(figure), escape(&unit_of(figure)));
    }
    html.push_str("</tr>");
    for scenario in scenarios {
        let _ = write!(html, "<tr><td>{}</td>", escape(&short(scenario)));
        for figure in &figures {
            let _ = write!(html, "<td>{}</td>", figure_text(&scenario["medians"][figure.as_str()]));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table></div>\n<div class=\"grid-of-charts\">");
    for figure in figures {
        let unit = unit_of(figure);
        if !UNITS_WITH_BARS.contains(&unit.as_str()) {
            continue;
        }
        let mut chart = Chart::new(figure, Shape::Bars, "", &unit);
        for scenario in scenarios {
            if let Some(value) = scenario["medians"][figure.as_str()].as_f64() {
                chart = chart.with(&short(scenario), [[0.0, value]]);
            }
        }
        html.push_str(&plot::figure(&chart));
    }
    html.push_str("</div>\n");
    for scenario in scenarios {
        let version = scenario["parameters"]["version"].as_str().unwrap_or("");
        let _ = write!(
            html,
            "<p class=\"about\">{}: {}</p>",
            escape(&short(scenario)),
            escape(version)
        );
        html.push_str(&faults(scenario));
    }
    html
}

fn scenario(scenario: &Value) -> String {
    let mut html = format!("<h2>{}</h2>\n", escape(name_of(scenario)));
    if let Some(about) = scenario["parameters"]["about"].as_str() {
        let _ = write!(html, "<p class=\"about\">{}</p>", escape(about));
    }
    html.push_str(&faults(scenario));
    let runs = items(&scenario["runs"]);
    for (index, run) in runs.iter().enumerate() {
        let charts: Vec<Chart> = serde_json::from_value(run["charts"].clone()).unwrap_or_default();
        if charts.is_empty() {
            continue;
        }
        let folded = index >= RUNS_OPEN;
        let open = if folded { "" } else { " open" };
        let _ = write!(
            html,
            "<details{open}><summary>run {} of {}</summary><div class=\"grid-of-charts\">",
            index + 1,
            runs.len()
        );
        for chart in &charts {
            html.push_str(&plot::figure(chart));
        }
        html.push_str("</div></details>\n");
    }
    html.push_str(&figures(scenario, runs));
    let parameters = serde_json::to_string_pretty(&scenario["parameters"]).unwrap_or_default();
    let _ = writeln!(
        html,
        "<details><summary>parameters</summary><pre>{}</pre></details>",
        escape(&parameters)
    );
    html
}

fn faults(scenario: &Value) -> String {
    let mut html = String::new();
    for (run, number) in items(&scenario["runs"]).iter().zip(1..) {
        for (kind, fault) in run["faults"].as_object().into_iter().flatten() {
            let example = fault[1].as_str().unwrap_or("");
            let _ = write!(
                html,
                "<p class=\"invalid\">INVALID run {number}: {}: {} times, first: {}</p>",
                escape(kind),
                fault[0],
                escape(example)
            );
        }
    }
    html
}

/// Every figure of every run, and the medians.
fn figures(scenario: &Value, runs: &[Value]) -> String {
    let mut html = String::from(
        "<details><summary>all figures</summary><div class=\"scroll\"><table><tr><th>figure</th><th>unit</th>",
    );
    for number in 1..=runs.len() {
        let _ = write!(html, "<th>run {number}</th>");
    }
    html.push_str("<th>median</th></tr>");
    for (figure, median) in scenario["medians"].as_object().into_iter().flatten() {
        let unit = scenario["units"][figure.as_str()].as_str().unwrap_or("");
        let _ = write!(html, "<tr><td>{}</td><td>{}</td>", escape(figure), escape(unit));
        for run in runs {
            let _ = write!(html, "<td>{}</td>", figure_text(&run["figures"][figure.as_str()]));
        }
        let _ = write!(html, "<td>{}</td></tr>", figure_text(median));
    }
    html.push_str("</table></div></details>\n");
    html
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_holds_all_that_was_measured_and_fetches_nothing() {
        let chart = Chart::new("latency", Shape::Lines, "s", "ms").with("p99", [[0.0, 1.0], [1.0, 2.0]]);
        let document = json!({
            "environment": { "kernel": "6.18 <x>" },
            "goals": [{ "what": "low", "scenario": "one", "goal": "<= 1 ms", "measured": "2 ms", "pass": false }],
            "scenarios": [
                { "scenario": "one", "parameters": {}, "units": { "x": "ms" }, "medians": { "x": 2.5 },
                  "runs": [{ "figures": { "x": 2.5 }, "faults": { "lost": [1, "a<b"] }, "charts": [chart] }] },
                { "scenario": "peer/a", "units": { "cpu": "µs" }, "medians": { "cpu": 7.5 }, "runs": [] },
                { "scenario": "peer/b", "units": { "cpu": "µs" }, "medians": { "cpu": null, "odd": 3 }, "runs": [] },
            ],
        });
        let html = page(&document);
        for part in [
            "6.18 &lt;x&gt;",
            "MISS",
            "<svg",
            "INVALID run 1",
            "a&lt;b",
            "2.50",
            "<h2>peer</h2>",
            "7.50",
            "odd",
        ] {
            assert!(html.contains(part), "{part} is missing in {html}");
        }
        assert!(
            !html.contains("src=") && !html.contains("@import"),
            "nothing may be fetched"
        );
        assert_eq!(html.matches("<table>").count(), html.matches("</table>").count());
    }

    #[test]
    fn an_empty_document_is_an_empty_page() {
        assert!(page(&json!({})).ends_with("</body></html>\n"));
    }
}
