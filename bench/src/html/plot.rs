//! One chart as inline SVG, with the places and words that the page's script shows under the pointer.
#![forbid(unsafe_code)]

use std::fmt::Write as _;

use serde_json::json;

use super::escape;
use super::scale::{Kind, Scale, words};
use crate::chart::{Chart, Mark, Series, Shape};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = 44.0;
/// Colours of the style sheet; series beyond them begin again.
const COLOURS: usize = 8;

/// Draws a chart with its title and legend.
pub(super) fn figure(chart: &Chart) -> String {
    let mut html = String::from("<figure>");
    let _ = write!(html, "<figcaption>{}</figcaption>", escape(&chart.title));
    let hover = match chart.shape {
        Shape::Bars => {
            html.push_str(&bars(chart));
            None
        }
        Shape::Lines | Shape::Percentiles => {
            let (svg, hover) = lines(chart);
            html.push_str(&svg);
            Some(hover)
        }
        Shape::Stack => {
            let (svg, hover) = stack(chart);
            html.push_str(&svg);
            Some(hover)
        }
    };
    if let Some(hover) = hover {
        html.push_str(&legend(&chart.series));
        // A "</" inside a script would end it.
        let data = hover.to_string().replace("</", "<\\/");
        let _ = write!(html, "<script type=\"application/json\">{data}</script>");
    }
    html.push_str("</figure>\n");
    html
}

fn legend(series: &[Series]) -> String {
    let mut html = String::from("<ul class=\"legend\">");
    for (index, series) in series.iter().enumerate() {
        let name = escape(&series.name);
        let _ = write!(html, "<li><i class=\"c{}\"></i>{name}</li>", index % COLOURS);
    }
    html.push_str("</ul>");
    html
}

fn axes(chart: &Chart, x: &Scale, y: &Scale) -> String {
    let mut svg = String::new();
    for (value, words) in y.ticks() {
        let at = y.place(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{words}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
        );
    }
    for (value, words) in x.ticks() {
        let at = x.place(value);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{words}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - BOTTOM + 16.0,
        );
    }
    let _ = write!(
        svg,
        "<text class=\"axis\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text class=\"axis\" x=\"4\" y=\"11\">{}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 8.0,
        escape(&chart.x_label),
        escape(&chart.y_label),
    );
    for (index, Mark { x: at, label }) in chart.marks.iter().enumerate() {
        let place = x.place(*at);
        // Neighbouring words stand in two rows, and on the left of their line near the right edge.
        let row = TOP + 11.0 + 13.0 * (index % 2) as f64;
        let (anchor, shift) = if place > WIDTH - 120.0 {
            ("end", -4.0)
        } else {
            ("start", 4.0)
        };
        let _ = write!(
            svg,
            "<line class=\"mark\" x1=\"{place:.1}\" x2=\"{place:.1}\" y1=\"{TOP}\" y2=\"{}\"/>\
             <text class=\"mark\" x=\"{:.1}\" y=\"{row}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - BOTTOM,
            place + shift,
            escape(label),
        );
    }
    svg
}

fn open() -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">")
}

fn x_scale(chart: &Chart) -> Scale {
    let kind = match (chart.shape, chart.log_x) {
        (Shape::Percentiles, _) => Kind::Nines,
        (_, true) => Kind::Log,
        (_, false) => Kind::Linear,
    };
    let points = chart.series.iter().flat_map(|series| &series.points);
    let marks = chart.marks.iter().map(|mark| mark.x);
    Scale::new(kind, points.map(|point| point[0]).chain(marks), LEFT, WIDTH - RIGHT)
}

fn y_scale(chart: &Chart, values: impl Iterator<Item = f64>) -> Scale {
    if chart.log_y {
        Scale::new(Kind::Log, values, HEIGHT - BOTTOM, TOP)
    } else {
        Scale::from_zero(values, HEIGHT - BOTTOM, TOP)
    }
}

/// What the pointer shows: for each series its name and, for each point, a place and words.
fn hover<'a>(chart: &Chart, x: &Scale, rows: impl Iterator<Item = (&'a Series, usize)>) -> serde_json::Value {
    let series = rows.map(|(series, index)| {
        let points = series.points.iter().map(|[at, value]| {
            let at_words = match chart.shape {
                Shape::Percentiles => format!("p{:.5}", at * 100.0)
                    .trim_end_matches('0')
                    .trim_end_matches('.')
                    .to_owned(),
                _ => format!("{} {}", words(*at), chart.x_label),
            };
            let place = (x.place(*at) * 10.0).round() / 10.0;
            json!([place, at_words, words(*value)])
        });
        json!({ "name": series.name, "colour": index % COLOURS, "points": points.collect::<Vec<_>>() })
    });
    json!({ "unit": chart.y_label, "series": series.collect::<Vec<_>>(), "top": TOP, "bottom": HEIGHT - BOTTOM })
}

fn lines(chart: &Chart) -> (String, serde_json::Value) {
    let x = x_scale(chart);
    let values = chart.series.iter().flat_map(|series| &series.points);
    let y = y_scale(chart, values.map(|point| point[1]));
    let mut svg = open() + &axes(chart, &x, &y);
    for (index, series) in chart.series.iter().enumerate() {
        let places: Vec<(f64, f64)> = series
            .points
            .iter()
            .map(|[at, value]| (x.place(*at), y.place(*value)))
            .collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(
            svg,
            "<polyline class=\"line c{}\" points=\"{}\"/>",
            index % COLOURS,
            path.join(" ")
        );
        // Few points are measurements of their own, so they are shown.
        if places.len() <= 20 {
            for (x, y) in places {
                let _ = write!(
                    svg,
                    "<circle class=\"dot c{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>",
                    index % COLOURS
                );
            }
        }
    }
    svg.push_str("</svg>");
    let data = hover(chart, &x, chart.series.iter().zip(0..));
    (svg, data)
}

/// Areas on top of each other; all series must have the points of the first.
fn stack(chart: &Chart) -> (String, serde_json::Value) {
    let count = chart.series.iter().map(|series| series.points.len()).min().unwrap_or(0);
    let mut below = vec![0.0; count];
    let mut tops = Vec::new();
    for series in &chart.series {
        let bottom = below.clone();
        for (sum, [_, value]) in below.iter_mut().zip(&series.points) {
            *sum += value.max(0.0);
        }
        tops.push((bottom, below.clone()));
    }
    let x = x_scale(chart);
    let y = y_scale(chart, below.iter().copied());
    let mut svg = open();
    for (index, (series, (bottom, top))) in chart.series.iter().zip(&tops).enumerate() {
        let at = |values: &[f64], point: usize| {
            format!("{:.1},{:.1}", x.place(series.points[point][0]), y.place(values[point]))
        };
        let upper = (0..count).map(|point| at(top, point));
        let lower = (0..count).rev().map(|point| at(bottom, point));
        let outline: Vec<String> = upper.chain(lower).collect();
        let _ = write!(
            svg,
            "<polygon class=\"area c{}\" points=\"{}\"/>",
            index % COLOURS,
            outline.join(" ")
        );
    }
    // The grid is drawn over the areas, thin enough to be seen through.
    svg.push_str(&axes(chart, &x, &y));
    svg.push_str("</svg>");
    let data = hover(chart, &x, chart.series.iter().zip(0..));
    (svg, data)
}

fn bars(chart: &Chart) -> String {
    const ROW: f64 = 26.0;
    const NAMES: f64 = 210.0;
    const VALUES: f64 = 90.0;
    let height = ROW * chart.series.len() as f64 + 8.0;
    let values = chart
        .series
        .iter()
        .map(|series| series.points.first().map_or(0.0, |point| point[1]));
    let kind = if chart.log_y { Kind::Log } else { Kind::Linear };
    let scale = match kind {
        Kind::Log => Scale::new(kind, values.clone(), 0.0, WIDTH - NAMES - VALUES),
        _ => Scale::from_zero(values.clone(), 0.0, WIDTH - NAMES - VALUES),
    };
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for (index, (series, value)) in chart.series.iter().zip(values).enumerate() {
        let top = ROW * index as f64 + 4.0;
        let length = scale.place(value).max(1.0);
        let _ = write!(
            svg,
            "<text class=\"name\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect class=\"bar c{}\" x=\"{NAMES}\" y=\"{top}\" width=\"{length:.1}\" height=\"{}\" rx=\"2\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{}\">{} {}</text>",
            NAMES - 8.0,
            top + 14.0,
            escape(&series.name),
            index % COLOURS,
            ROW - 7.0,
            NAMES + length + 6.0,
            top + 14.0,
            words(value),
            escape(&chart.y_label),
        );
    }
    svg.push_str("</svg>");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_drawn_and_what_is_said_is_escaped() {
        for shape in [Shape::Lines, Shape::Stack, Shape::Percentiles, Shape::Bars] {
            let chart = Chart::new("a<b", shape, "s", "ms")
                .mark(0.5, "kill & start")
                .with("one", [[0.0, 1.0], [0.9, 2.0]])
                .with("</script>", [[0.0, 3.0], [0.9, 4.0]]);
            let html = figure(&chart);
            assert!(html.starts_with("<figure>") && html.ends_with("</figure>\n"));
            assert!(html.contains("a&lt;b") && !html.contains("NaN"), "{html}");
            let scripts = html.matches("</script>").count();
            assert_eq!(scripts, usize::from(shape != Shape::Bars), "{html}");
        }
    }

    #[test]
    fn a_stack_ends_at_the_sum() {
        let chart = Chart::new("t", Shape::Stack, "s", "MB")
            .with("a", [[0.0, 1.0], [1.0, 1.0]])
            .with("b", [[0.0, 2.0], [1.0, 3.0]]);
        let (svg, _) = stack(&chart);
        let y = y_scale(&chart, [4.0].into_iter());
        assert!(
            svg.contains(&format!("{:.1},{:.1}", WIDTH - RIGHT, y.place(4.0))),
            "{svg}"
        );
    }

    #[test]
    fn a_chart_without_points_is_drawn_empty() {
        let html = figure(&Chart::new("t", Shape::Lines, "s", "ms").log_y().with("a", []));
        assert!(html.contains("<svg") && !html.contains("NaN") && !html.contains("inf"));
    }
}
