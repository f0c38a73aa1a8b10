//! What a report draws: data only, so that results can be kept as JSON and drawn later. See [`crate::html`] for the drawing.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::measure::Latencies;

/// How a chart is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// A line per series.
    Lines,
    /// Areas on top of each other, in the order of the series.
    Stack,
    /// x is a share of all (0 to 1), drawn so that each further nine takes as much room as the one before.
    Percentiles,
    /// A bar per series; each has one point.
    Bars,
}

/// One line, area or bar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// x and y, x rising.
    pub points: Vec<[f64; 2]>,
}

/// A moment that explains what the lines do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Where.
    pub x: f64,
    /// What happened.
    pub label: String,
}

/// One chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    /// In words, with what is shown and over what.
    pub title: String,
    /// How it is drawn.
    pub shape: Shape,
    /// Of the x axis, with its unit.
    pub x_label: String,
    /// Of the y axis, with its unit.
    pub y_label: String,
    /// The x axis is logarithmic.
    #[serde(default)]
    pub log_x: bool,
    /// The y axis is logarithmic.
    #[serde(default)]
    pub log_y: bool,
    /// What is drawn.
    pub series: Vec<Series>,
    /// Vertical lines with words.
    #[serde(default)]
    pub marks: Vec<Mark>,
}

impl Chart {
    /// An empty chart with linear axes.
    pub fn new(title: &str, shape: Shape, x_label: &str, y_label: &str) -> Self {
        Self {
            title: title.to_owned(),
            shape,
            x_label: x_label.to_owned(),
            y_label: y_label.to_owned(),
            log_x: false,
            log_y: false,
            series: Vec::new(),
            marks: Vec::new(),
        }
    }

    /// Makes the y axis logarithmic.
    #[must_use]
    pub fn log_y(mut self) -> Self {
        self.log_y = true;
        self
    }

    /// Makes the x axis logarithmic.
    #[must_use]
    pub fn log_x(mut self) -> Self {
        self.log_x = true;
        self
    }

    /// Adds a series. Points that are not finite are left out.
    #[must_use]
    pub fn with(mut self, name: &str, points: impl IntoIterator<Item = [f64; 2]>) -> Self {
        let finite = |[x, y]: &[f64; 2]| x.is_finite() && y.is_finite();
        self.series.push(Series {
            name: name.to_owned(),
            points: points.into_iter().filter(finite).collect(),
        });
        self
    }

    /// Adds a mark.
    #[must_use]
    pub fn mark(mut self, x: f64, label: &str) -> Self {
        self.marks.push(Mark {
            x,
            label: label.to_owned(),
        });
        self
    }
}

/// Shares at which a percentile curve has points: up to the fifth nine, twelve for each.
fn shares() -> impl Iterator<Item = f64> {
    const POINTS_PER_NINE: i32 = 12;
    const NINES: i32 = 5;
    (0..=NINES * POINTS_PER_NINE).map(|point| 1.0 - 10f64.powf(-f64::from(point) / f64::from(POINTS_PER_NINE)))
}

/// The percentile curve of latencies, in ms; it ends where no further latency was recorded.
pub fn percentiles(latencies: &Latencies) -> Vec<[f64; 2]> {
    let count = latencies.count() as f64;
    shares()
        .take_while(|share| count * (1.0 - share) >= 1.0)
        .map(|share| [share, latencies.quantile_ms(share)])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_curve_rises_and_ends_with_what_was_recorded() {
        let mut latencies = Latencies::new();
        assert!(percentiles(&latencies).is_empty());
        for ms in 1..=1000 {
            latencies.record(ms * 1_000_000);
        }
        let curve = percentiles(&latencies);
        assert!(
            curve
                .windows(2)
                .all(|two| two[0][0] < two[1][0] && two[0][1] <= two[1][1])
        );
        let last = curve.last().unwrap();
        assert!(
            (last[0] - 0.999).abs() < 1e-9 && (last[1] - 999.0).abs() < 2.0,
            "{last:?}"
        );
    }

    #[test]
    fn charts_survive_json_and_leave_out_what_is_no_number() {
        let chart = Chart::new("t", Shape::Stack, "s", "MB")
            .log_y()
            .mark(1.0, "kill")
            .with("a", [[0.0, 1.0], [1.0, f64::NAN]]);
        assert_eq!(chart.series[0].points, [[0.0, 1.0]]);
        let text = serde_json::to_string(&chart).unwrap();
        assert_eq!(serde_json::from_str::<Chart>(&text).unwrap(), chart);
    }
}
