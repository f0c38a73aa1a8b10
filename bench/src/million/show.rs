//! What the levels have shown, side by side: in the terminal, as JSON, and as one page with plots.
#![forbid(unsafe_code)]

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use dispatchd::say;
use serde_json::{Map, Value, json};

use super::level::Level;
use super::verdict::{Verdict, latency_growth, natural};
use super::{Options, Surroundings};
use crate::report::number;

/// Prints a column per level.
pub fn print(levels: &[Level], verdicts: &[Verdict]) {
    let Some(first) = levels.first() else { return };
    let mut table = Table::new();
    table.load_preset(presets::ASCII_BORDERS_ONLY_CONDENSED);
    let heads = levels
        .iter()
        .map(|level| format!("{} on {}", level.scale, shards(level.shards)));
    table.set_header(["figure".to_owned(), "unit".to_owned()].into_iter().chain(heads));
    for figure in &first.run.figures {
        let values = levels
            .iter()
            .map(|level| level.run.value(&figure.name).map_or("-".to_owned(), number));
        table.add_row(
            [figure.name.to_string(), figure.unit.to_owned()]
                .into_iter()
                .chain(values),
        );
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    say!("{table}");
    for level in levels {
        let caches: Vec<String> = level
            .caches
            .iter()
            .map(|(name, bytes)| format!("{name} {}", number(*bytes as f64 / f64::from(level.scale.drivers))))
            .collect();
        say!("slab per driver at {}, B: {}", level.scale, caches.join(", "));
        for line in level.run.faults.lines() {
            say!("INVALID {}: {line}", level.scale);
        }
    }
    if let Some(growth) = latency_growth(levels) {
        say!("{growth}");
    }
    for verdict in verdicts {
        say!("{} {}", if verdict.pass { "pass" } else { "MISS" }, verdict.what);
    }
}

/// Everything.
pub fn to_json(options: &Options, surroundings: &Surroundings, levels: &[Level], verdicts: &[Verdict]) -> Value {
    let each = levels.iter().map(|level| {
        let figures: Map<String, Value> = level
            .run
            .figures
            .iter()
            .map(|figure| {
                (
                    figure.name.to_string(),
                    json!({ "value": figure.value, "unit": figure.unit }),
                )
            })
            .collect();
        let latencies: Map<String, Value> = level
            .timings
            .all()
            .into_iter()
            .map(|(name, latency)| (name.to_owned(), latency.to_json()))
            .collect();
        json!({
            "drivers": level.scale.drivers,
            "heartbeats_of": level.scale.heartbeats_of,
            "shards": level.shards,
            "figures": figures,
            "latencies": latencies,
            "slab_growth_bytes": level.caches.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "faults": level.run.faults,
        })
    });
    json!({
        "scenario": "million",
        "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
        "cores": surroundings.cores,
        "network": surroundings.network,
        "options": options,
        "levels": each.collect::<Vec<_>>(),
        "latency_growth": latency_growth(levels),
        "verdicts": verdicts,
    })
}

/// A plot: lines over the number of drivers.
struct Plot {
    title: &'static str,
    unit: &'static str,
    /// Figure and its name in the legend.
    lines: &'static [(&'static str, &'static str)],
}

const PLOTS: [Plot; 6] = [
    Plot {
        title: "User memory of the server",
        unit: "B per driver",
        lines: &[
            ("user_allocated", "allocated, all included"),
            ("user_drivers", "drivers"),
            ("user_connections", "connections"),
            ("user_timers", "timers"),
        ],
    },
    Plot {
        title: "Memory of the machine",
        unit: "B per driver",
        lines: &[
            ("machine_in_all", "in all"),
            ("kernel_slab_both_ends", "kernel slab, both ends"),
            ("load_generator_anonymous", "load generator"),
            ("user_anonymous", "server"),
        ],
    },
    Plot {
        title: "Server CPU",
        unit: "µs each",
        lines: &[
            ("heartbeat_server_cpu_us", "heartbeat"),
            ("offer_server_cpu_us", "offer with its trip"),
            ("connect_server_cpu_us", "connect"),
            ("storm_server_cpu_us", "reconnect"),
        ],
    },
    Plot {
        title: "Offer latency (POST to OFFER)",
        unit: "ms",
        lines: &[("offer_p50", "p50"), ("offer_p99", "p99"), ("offer_p999", "p99.9")],
    },
    Plot {
        title: "Other latencies, p99",
        unit: "ms",
        lines: &[
            ("confirm_p99", "ACCEPT to CONFIRMED"),
            ("redispatch_p99", "DECLINE to next OFFER"),
            ("heartbeat_p99", "PING to PONG"),
            (
                "heartbeat_rush_p99",
                "the same in all other stages, connects and the storm among them",
            ),
        ],
    },
    Plot {
        title: "Connects",
        unit: "1/s",
        lines: &[("connects_per_s", "first"), ("storm_per_s", "storm")],
    },
];

const COLOURS: [&str; 4] = ["#1f6feb", "#d1495b", "#2a9d5c", "#a371f7"];
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 62.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 14.0;
const RIGHT: f64 = 18.0;

/// One page, self-contained.
pub fn to_html(options: &Options, surroundings: &Surroundings, levels: &[Level], verdicts: &[Verdict]) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>dispatchd: drivers on one node</title><style>\
         body{font:14px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1020px;padding:0 1em;color:#1b1f24;background:#fff}\
         table{border-collapse:collapse}td,th{padding:2px 12px 2px 0;text-align:right}td:first-child,th:first-child{text-align:left}\
         .plots{display:flex;flex-wrap:wrap;gap:18px}figure{margin:0;width:480px}figcaption{font-weight:600}svg text{font-size:11px;fill:#444}\
         .miss{color:#b00020;font-weight:600}.pass{color:#1a7f37}</style><h1>Drivers on one node</h1>",
    );
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let _ = write!(
        page,
        "<p>Linux {}, {} cores for both ends, in {}; {} offers/s for {} min at each level{}; heartbeats every {} s.</p><ul>",
        escape(kernel.trim()),
        surroundings.cores,
        escape(&surroundings.network.to_string()),
        options.offers_per_second,
        options.offer_seconds(levels.first().map_or(options.drivers, |level| level.scale.drivers)) / 60.0,
        options
            .series_minutes
            .filter(|_| levels.len() > 1)
            .map_or(String::new(), |_| format!(", {} min at the largest", options.minutes)),
        options.heartbeat_seconds,
    );
    for verdict in verdicts {
        let (class, word) = if verdict.pass {
            ("pass", "holds")
        } else {
            ("miss", "missed")
        };
        let _ = write!(
            page,
            "<li><span class=\"{class}\">{word}</span> {}</li>",
            escape(&verdict.what)
        );
    }
    page.push_str("</ul>");
    if let Some(growth) = latency_growth(levels) {
        let _ = write!(page, "<p>{}</p>", escape(&growth));
    }
    page.push_str("<div class=\"plots\">");
    let plotted: Vec<&Level> = natural(levels).collect();
    for plot in &PLOTS {
        let _ = write!(page, "<figure><figcaption>{} ({})</figcaption>", plot.title, plot.unit);
        draw(&mut page, plot, &plotted);
        page.push_str("</figure>");
    }
    page.push_str("</div><h2>All figures</h2><table><tr><th>figure</th><th>unit</th>");
    for level in levels {
        let _ = write!(page, "<th>{} on {}</th>", level.scale, shards(level.shards));
    }
    page.push_str("</tr>");
    for figure in levels.first().into_iter().flat_map(|level| &level.run.figures) {
        let _ = write!(page, "<tr><td>{}</td><td>{}</td>", figure.name, figure.unit);
        for level in levels {
            let value = level.run.value(&figure.name).map_or("-".to_owned(), number);
            let _ = write!(page, "<td>{value}</td>");
        }
        page.push_str("</tr>");
    }
    page.push_str("</table></html>\n");
    page
}

/// Lines over the logarithm of the number of drivers; values from zero.
fn draw(page: &mut String, plot: &Plot, levels: &[&Level]) {
    let frame = Frame::around(plot, levels);
    frame.draw(page, levels);
    for ((name, label), colour) in plot.lines.iter().zip(COLOURS) {
        let points = points(levels, name);
        let at = |(drivers, value): &(f64, f64)| (frame.x(*drivers), frame.y(*value));
        let path: Vec<String> = points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(
            page,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        );
        for point in &points {
            let (x, y) = at(point);
            let _ = write!(
                page,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"><title>{label}: {} {}</title></circle>",
                number(point.1),
                plot.unit
            );
        }
    }
    page.push_str("</svg><div>");
    for ((name, label), colour) in plot.lines.iter().zip(COLOURS) {
        let last = points(levels, name)
            .last()
            .map_or("-".to_owned(), |(_, value)| number(*value));
        let _ = write!(
            page,
            "<span style=\"color:{colour}\">&#9632;</span> {label} ({last}) &nbsp;"
        );
    }
    page.push_str("</div>");
}

/// What a figure was at each level that has it: the logarithm of its drivers, and the value.
fn points(levels: &[&Level], name: &str) -> Vec<(f64, f64)> {
    let point = |level: &&Level| Some((f64::from(level.scale.drivers).log10(), level.run.value(name)?));
    levels
        .iter()
        .filter_map(point)
        .filter(|(_, value)| value.is_finite())
        .collect()
}

/// Where a plot's values stand on the page.
struct Frame {
    low: f64,
    span: f64,
    top: f64,
}

impl Frame {
    fn around(plot: &Plot, levels: &[&Level]) -> Self {
        let values = plot.lines.iter().flat_map(|(name, _)| points(levels, name));
        let top = values.map(|(_, value)| value).fold(0.0, f64::max);
        let decades = levels.iter().map(|level| f64::from(level.scale.drivers).log10());
        let (low, high) = decades.fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
        Self {
            low,
            span: (high - low).max(0.1),
            top: nice(top),
        }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (at - self.low) / self.span * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.top * (HEIGHT - BOTTOM - TOP)
    }

    /// Opens the picture with lines across for values and the levels below.
    fn draw(&self, page: &mut String, levels: &[&Level]) {
        let _ = write!(
            page,
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\">"
        );
        for step in 0..=4 {
            let value = self.top * f64::from(step) / 4.0;
            let _ = write!(
                page,
                "<line x1=\"{LEFT}\" x2=\"{0}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>",
                WIDTH - RIGHT,
                self.y(value),
                LEFT - 6.0,
                self.y(value) + 4.0,
                number(value)
            );
        }
        for level in levels {
            let _ = write!(
                page,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                self.x(f64::from(level.scale.drivers).log10()),
                HEIGHT - 14.0,
                thousands(level.scale.drivers)
            );
        }
    }
}

/// The next of 1, 2, 5, 10, … that is not below `value`.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0];
    steps
        .into_iter()
        .map(|step| step * decade)
        .find(|top| *top >= value)
        .unwrap_or(10.0 * decade)
}

fn shards(count: u32) -> String {
    if count == 1 {
        "1 shard".into()
    } else {
        format!("{count} shards")
    }
}

fn thousands(drivers: u32) -> String {
    match drivers {
        0..1_000 => drivers.to_string(),
        1_000..1_000_000 => format!("{}k", f64::from(drivers) / 1e3),
        _ => format!("{}M", f64::from(drivers) / 1e6),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::Scale;
    use super::super::network::Network;
    use super::*;
    use crate::million::timing::Timings;
    use crate::report::Run;

    pub(crate) fn level(drivers: u32, cost: f64) -> Level {
        let mut run = Run::default();
        run.add("heartbeats_missed", "", 0.0);
        run.add("sockets_closed_for_heartbeat", "", 0.0);
        run.add("user_allocated", "B/driver", cost);
        Level {
            scale: Scale {
                drivers,
                heartbeat_ns: 30_000_000_000,
                heartbeats_of: None,
            },
            shards: 2,
            run,
            timings: Timings::default(),
            caches: Vec::new(),
        }
    }

    #[test]
    fn the_page_holds_every_plot_and_every_level() {
        let options = crate::million::tests::parse("");
        let surroundings = Surroundings {
            cores: 2,
            network: Network::host(),
        };
        let page = to_html(
            &options,
            &surroundings,
            &[level(1_000, 1.0), level(1_000_000, 2.0)],
            &[],
        );
        assert_eq!(page.matches("<svg").count(), PLOTS.len());
        assert!(page.contains(">1M<") && page.contains(">1k<") && !page.contains("NaN"));
        assert_eq!((nice(0.0), nice(3.1), nice(0.07), nice(10.0)), (1.0, 4.0, 0.08, 10.0));
    }
}
