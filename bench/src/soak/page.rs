//! The result as one page of HTML that needs nothing else: a table, and a plot of each series as inline SVG.
#![forbid(unsafe_code)]

use std::fmt::Write;

use super::Results;
use super::samples::{Expect, Judged};
use super::trend::{GROWTH_MAX, UNSEEN_MAX};

/// Size of a plot, in px, and the room for its labels.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 170.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 22.0;
const TOP: f64 = 8.0;

const STYLE: &str = "\
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1240px;padding:0 1em;color:#1b1f24;background:#fff}\
h1{font-size:1.4em}h2{font-size:1em;margin:0 0 .3em}table{border-collapse:collapse;margin:1em 0}\
td,th{padding:.2em .8em;border-bottom:1px solid #d5d9de;text-align:right}td:first-child,th:first-child{text-align:left}\
.plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(560px,1fr));gap:1.4em}\
.bad{color:#b3261e;font-weight:600}.good{color:#1a7f37}.dim{color:#6a737d}\
svg{width:100%;height:auto}.grid{stroke:#e4e7ea}.label{fill:#6a737d;font-size:11px}\
.line{fill:none;stroke:#2266bb;stroke-width:1.3}.fit{stroke:#d9730d;stroke-width:1.6;stroke-dasharray:5 4}\
@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#15181c}td,th{border-color:#343a41}.grid{stroke:#2b3036}\
.line{stroke:#6aa9f0}.bad{color:#ff8a80}.good{color:#6fdd8b}}";

/// The whole page.
pub fn render(results: &Results) -> String {
    let mut out = String::new();
    let verdict = if results.is_good() {
        "<span class=good>passed</span>"
    } else {
        "<span class=bad>FAILED</span>"
    };
    let minutes = results.seconds / 60.0;
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>dispatchd soak</title><style>{STYLE}</style><h1>Soak of {minutes:.0} minutes: {verdict}</h1>\
         <p>{}</p><p>A series is flat when a straight line through its second half, from minute {:.1} on, rises by no more than \
         {:.0} % of its level in an hour, or by no more than its grain, and the upper end of the slope's 95 % interval is no more \
         than {UNSEEN_MAX} times that; what is counted rises by no more than its grain.</p>",
        escape(&results.parameters.to_string()),
        minutes / 2.0,
        GROWTH_MAX * 100.0
    );
    if !results.prolonged_for.is_empty() {
        let _ = write!(
            out,
            "<p>The run went on for half its time again, since these seemed to grow: {}.</p>",
            results.prolonged_for.join(", ")
        );
    }
    faults(results, &mut out);
    table(&results.series, &mut out);
    out.push_str("<div class=plots>");
    for judged in &results.series {
        plot(judged, &mut out);
    }
    out.push_str("</div></html>\n");
    out
}

fn faults(results: &Results, out: &mut String) {
    if results.faults.is_empty() {
        return;
    }
    out.push_str("<ul class=bad>");
    for fault in &results.faults {
        let _ = write!(out, "<li>{}</li>", escape(fault));
    }
    out.push_str("</ul>");
}

fn table(series: &[Judged], out: &mut String) {
    out.push_str(
        "<table><tr><th>series<th>unit<th>level<th>slope per hour<th>at least<th>at most<th>of level<th>grain<th>",
    );
    for judged in series {
        let (name, unit) = (judged.series.name, judged.series.unit);
        let _ = write!(out, "<tr><td>{name}<td class=dim>{unit}");
        match judged.trend {
            Some(trend) => {
                let share = 100.0 * trend.slope_per_hour / trend.level;
                let share = if share.is_finite() {
                    format!("{share:+.2} %")
                } else {
                    "–".into()
                };
                let _ = write!(
                    out,
                    "<td>{:.2}<td>{:+.3}<td>{:+.3}<td>{:+.3}<td>{share}",
                    trend.level, trend.slope_per_hour, trend.slope_low_per_hour, trend.slope_high_per_hour
                );
            }
            None => out.push_str("<td>–<td>–<td>–<td>–<td>–"),
        }
        let grain = match judged.series.expect {
            Expect::Flat(grain) => grain.to_string(),
            Expect::Count(most) => format!("{most} in all"),
            Expect::Shown | Expect::Rate => String::new(),
        };
        let class = match (judged.series.expect, judged.is_good()) {
            (Expect::Flat(_) | Expect::Count(_), true) => "good",
            (Expect::Flat(_) | Expect::Count(_), false) => "bad",
            _ => "dim",
        };
        let _ = write!(out, "<td>{grain}<td class={class}>{}", judged.word());
    }
    out.push_str("</table>");
}

/// Scale from zero, so that the eye sees a growth as large as it is.
fn plot(judged: &Judged, out: &mut String) {
    let points: Vec<(f64, f64)> = judged
        .points
        .iter()
        .copied()
        .filter(|(_, value)| value.is_finite())
        .collect();
    let _ = write!(
        out,
        "<div><h2>{} <span class=dim>{}</span></h2><svg viewBox='0 0 {WIDTH} {HEIGHT}'>",
        judged.series.name, judged.series.unit
    );
    let end_s = points.last().map_or(1.0, |point| point.0).max(1.0);
    let top = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let top = if top > 0.0 { top * 1.08 } else { 1.0 };
    let x = |at: f64| LEFT + at / end_s * (WIDTH - LEFT - 8.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
    for share in [0.0, 0.5, 1.0] {
        let (value, line) = (top * share, y(top * share));
        let (text_x, text_y, right) = (LEFT - 6.0, line + 4.0, WIDTH - 8.0);
        let digits = if top < 10.0 { 2 } else { usize::from(top < 100.0) };
        let _ = write!(
            out,
            "<line class=grid x1={LEFT} x2={right} y1={line:.1} y2={line:.1} />\
             <text class=label text-anchor=end x={text_x} y={text_y:.1}>{value:.digits$}</text>"
        );
    }
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (text_x, text_y) = (x(end_s * share), HEIGHT - 6.0);
        let anchor = if share < 1.0 { "middle" } else { "end" };
        let minutes = end_s * share / 60.0;
        let _ = write!(
            out,
            "<text class=label text-anchor={anchor} x={text_x:.1} y={text_y}>{minutes:.0} min</text>"
        );
    }
    out.push_str("<polyline class=line points='");
    for (at, value) in &points {
        let _ = write!(out, "{:.1},{:.1} ", x(*at), y(*value));
    }
    out.push_str("' />");
    if let Some(trend) = judged.trend {
        let half = f64::midpoint(points.first().map_or(0.0, |point| point.0), end_s);
        let rise = trend.slope_per_hour * (end_s - half) / 3600.0 / 2.0;
        let (x1, x2) = (x(half), x(end_s));
        let (y1, y2) = (y(trend.level - rise), y(trend.level + rise));
        let _ = write!(out, "<line class=fit x1={x1:.1} x2={x2:.1} y1={y1:.1} y2={y2:.1} />");
    }
    out.push_str("</svg></div>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::samples::SERIES;
    use serde_json::json;

    #[test]
    fn a_page_holds_everything_and_asks_for_nothing() {
        let sample = |n: u32| (f64::from(n) * 5.0, vec![f64::from(n); SERIES.len()]);
        let samples: Vec<_> = (0..720).map(sample).collect();
        let results = Results {
            parameters: json!({"minutes": 60}),
            seconds: 3595.0,
            prolonged_for: vec!["tables"],
            faults: vec!["a < b".into()],
            counts: json!({}),
            series: Judged::all(&samples),
        };
        let page = render(&results);
        assert_eq!(page.matches("<svg").count(), SERIES.len());
        assert!(page.contains("GROWS") && page.contains("a &lt; b") && page.contains("FAILED"));
        assert!(!page.contains("http://") && !page.contains("https://"), "no address");
    }
}
