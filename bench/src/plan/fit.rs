//! What a driver, a heartbeat, a position and an offer cost, fitted to measured phases by least squares without negative costs.
#![forbid(unsafe_code)]

use serde_json::Value;

/// Rounds of the descent at most; a handful of unknowns settle long before.
const ROUNDS_MAX: usize = 20_000;
/// The descent ends with a round in which no cost changes by more than this part of itself.
const CHANGE_MIN: f64 = 1e-9;

/// Offers per second of a shard up to which hardly any share a commit: 4.1 commits for an offer at 60/s, 3.9 at 245/s, 2.6 at 1,050/s.
const OFFERS_ALONE: f64 = 250.0;

/// One measured phase: what was asked of the node, and what it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Connected drivers.
    pub drivers: f64,
    /// Shards.
    pub shards: f64,
    /// Heartbeats per second.
    pub heartbeats: f64,
    /// Positions per second.
    pub locations: f64,
    /// Offers per second.
    pub offers: f64,
}

impl Load {
    /// What a commit and a wake-up that several offers share grow with, for each shard: its offers as long as they are few, the root of them
    /// when they are many. The more offers wait, the more of them one commit holds.
    fn wakes(&self) -> f64 {
        let of_shard = self.offers / self.shards.max(1.0);
        self.offers / (of_shard + OFFERS_ALONE).sqrt()
    }
}

/// What can be predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// CPU of the node, cores.
    Cpu,
    /// Anonymous memory of the node, bytes.
    Memory,
    /// Kernel memory of both ends of the connections, bytes.
    Kernel,
    /// Bytes per second through the loopback device: one direction each, both counted.
    Network,
    /// Bytes per second to the disk.
    Disk,
    /// Journal commits per second.
    Commits,
}

impl Quantity {
    /// All.
    pub const ALL: [Self; 6] = [
        Self::Cpu,
        Self::Memory,
        Self::Kernel,
        Self::Network,
        Self::Disk,
        Self::Commits,
    ];

    /// Name and unit.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Cpu => ("CPU", "cores"),
            Self::Memory => ("memory of the node", "B"),
            Self::Kernel => ("kernel memory, both ends", "B"),
            Self::Network => ("network, both directions", "B/s"),
            Self::Disk => ("written to the disk", "B/s"),
            Self::Commits => ("journal commits", "1/s"),
        }
    }

    /// The figures of a phase that add up to it.
    fn figures(self) -> &'static [&'static str] {
        match self {
            Self::Cpu => &["cpu"],
            Self::Memory => &["anonymous"],
            Self::Kernel => &["slab_grown_both_ends", "tcp_grown_both_ends"],
            Self::Network => &["network_per_s"],
            Self::Disk => &["disk_per_s"],
            Self::Commits => &["commits_per_s"],
        }
    }

    /// What it may depend on.
    fn terms(self, load: &Load) -> Vec<f64> {
        match self {
            Self::Cpu => vec![load.shards, load.heartbeats, load.locations, load.offers, load.wakes()],
            Self::Network => vec![load.shards, load.heartbeats, load.locations, load.offers],
            Self::Memory => vec![1.0, load.shards, load.drivers, load.offers],
            Self::Kernel => vec![load.drivers],
            Self::Disk => vec![load.shards, load.offers, load.wakes()],
            Self::Commits => vec![load.offers, load.wakes()],
        }
    }

    /// Where among the terms heartbeats and positions stand, if it depends on them.
    fn messages(self) -> Option<[usize; 2]> {
        matches!(self, Self::Cpu | Self::Network).then_some([1, 2])
    }
}

/// A measured phase.
#[derive(Debug, Clone)]
pub struct Point {
    /// Scenario and phase.
    pub name: String,
    /// What was asked.
    pub load: Load,
    /// What it took, in the order of [`Quantity::ALL`]; not a number where it was not measured.
    pub took: [f64; Quantity::ALL.len()],
}

/// The phases of a file of results whose names `skip` does not hold.
pub fn points(document: &Value, skip: &[&str]) -> Vec<Point> {
    let mut points = Vec::new();
    for scenario in document["scenarios"].as_array().into_iter().flatten() {
        for phase in scenario["parameters"]["phase"].as_array().into_iter().flatten() {
            let Some(phase) = phase["name"].as_str().filter(|name| !skip.contains(name)) else {
                continue;
            };
            let figure = |name: &str| scenario["medians"][format!("{phase}.{name}")].as_f64();
            let Some(drivers) = figure("drivers") else { continue };
            let or_zero = |name: &str| figure(name).unwrap_or(0.0);
            let name = format!("{} drivers, {phase}", drivers.round());
            points.push(Point {
                name,
                load: Load {
                    drivers,
                    shards: figure("shards").unwrap_or(1.0),
                    heartbeats: or_zero("heartbeats_per_s"),
                    locations: or_zero("locations_per_s"),
                    offers: or_zero("offers_per_s"),
                },
                took: Quantity::ALL.map(|quantity| {
                    let parts = quantity.figures().iter().map(|name| figure(name));
                    parts.sum::<Option<f64>>().unwrap_or(f64::NAN)
                }),
            });
        }
    }
    points
}

/// A fitted quantity.
#[derive(Debug, Clone)]
pub struct Fit {
    quantity: Quantity,
    costs: Vec<f64>,
    /// No phase had positions: one costs what a heartbeat does, which is answered besides.
    pub locations_assumed: bool,
    /// Root of the mean square of the relative errors at the measured points.
    pub error: f64,
    /// Points that it rests on.
    pub points: usize,
}

impl Fit {
    /// Fits a quantity; nothing when it was never measured. Errors count in relation to what was measured, so that small
    /// runs say as much as large ones.
    pub fn new(quantity: Quantity, points: &[Point]) -> Option<Self> {
        let index = Quantity::ALL.iter().position(|other| *other == quantity)?;
        let rows: Vec<(Vec<f64>, f64)> = points
            .iter()
            .filter(|point| point.took[index].is_finite() && point.took[index] > 0.0)
            .map(|point| (quantity.terms(&point.load), point.took[index]))
            // What does not come from anything that was asked of the node, such as the commits of an idle one.
            .filter(|(terms, _)| terms.iter().any(|term| *term > 0.0))
            .collect();
        if rows.is_empty() {
            return None;
        }
        let mut costs = non_negative_least_squares(&rows);
        let unseen = |term: &usize| rows.iter().all(|(terms, _)| terms[*term] == 0.0);
        let messages = quantity.messages().filter(|[_, locations]| unseen(locations));
        if let Some([heartbeats, locations]) = messages {
            costs[locations] = costs[heartbeats];
        }
        let square = |(terms, took): &(Vec<f64>, f64)| (dot(terms, &costs) / took - 1.0).powi(2);
        let error = (rows.iter().map(square).sum::<f64>() / rows.len() as f64).sqrt();
        Some(Self {
            quantity,
            costs,
            locations_assumed: messages.is_some(),
            error,
            points: rows.len(),
        })
    }

    /// What a load takes.
    pub fn predict(&self, load: &Load) -> f64 {
        dot(&self.quantity.terms(load), &self.costs)
    }
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// Coordinate descent over rows scaled to a result of one each. A term that no row has keeps the cost zero.
fn non_negative_least_squares(rows: &[(Vec<f64>, f64)]) -> Vec<f64> {
    let terms = rows[0].0.len();
    let scaled: Vec<Vec<f64>> = rows
        .iter()
        .map(|(row, took)| row.iter().map(|term| term / took).collect())
        .collect();
    let mut costs = vec![0.0; terms];
    for _ in 0..ROUNDS_MAX {
        let mut settled = true;
        for term in 0..terms {
            let weight: f64 = scaled.iter().map(|row| row[term] * row[term]).sum();
            if weight > 0.0 {
                let slope: f64 = scaled.iter().map(|row| row[term] * (1.0 - dot(row, &costs))).sum();
                let cost = f64::max(0.0, costs[term] + slope / weight);
                settled &= (cost - costs[term]).abs() <= CHANGE_MIN * cost;
                costs[term] = cost;
            }
        }
        if settled {
            break;
        }
    }
    costs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(drivers: f64, heartbeats: f64, offers: f64, cpu: f64, memory: f64) -> Point {
        let load = Load {
            drivers,
            shards: 1.0,
            heartbeats,
            locations: 0.0,
            offers,
        };
        Point {
            name: String::new(),
            load,
            took: [cpu, memory, f64::NAN, f64::NAN, f64::NAN, f64::NAN],
        }
    }

    #[test]
    fn costs_that_made_the_points_are_found_again() {
        let cpu = |heartbeats: f64, offers: f64| 0.01 + heartbeats * 10e-6 + offers * 60e-6;
        let points: Vec<Point> = [(1e4, 1e3, 0.0), (1e4, 1e3, 500.0), (5e4, 5e3, 0.0), (5e4, 5e3, 1000.0)]
            .into_iter()
            .map(|(drivers, heartbeats, offers)| {
                point(
                    drivers,
                    heartbeats,
                    offers,
                    cpu(heartbeats, offers),
                    5e6 + drivers * 300.0,
                )
            })
            .collect();
        let fit = Fit::new(Quantity::Cpu, &points).unwrap();
        assert!(fit.error < 0.01, "{fit:?}");
        let large = point(1e6, 1e5, 1e4, 0.0, 0.0).load;
        assert!(
            (fit.predict(&large) / cpu(1e5, 1e4) - 1.0).abs() < 0.02,
            "{}",
            fit.predict(&large)
        );
        let memory = Fit::new(Quantity::Memory, &points).unwrap();
        assert!((memory.predict(&large) / (5e6 + 1e6 * 300.0) - 1.0).abs() < 0.02);
        assert!(Fit::new(Quantity::Disk, &points).is_none());
    }

    #[test]
    fn a_position_that_was_never_measured_costs_what_a_heartbeat_does() {
        let mut points = vec![point(1e4, 1e3, 0.0, 0.01, 1.0), point(1e4, 2e3, 0.0, 0.02, 1.0)];
        let with = |locations: f64| Load {
            locations,
            ..point(1e4, 1e3, 0.0, 0.0, 0.0).load
        };
        let fit = Fit::new(Quantity::Cpu, &points).unwrap();
        assert!(fit.locations_assumed);
        assert!((fit.predict(&with(1e3)) / fit.predict(&with(0.0)) - 2.0).abs() < 1e-3);
        points.push(Point {
            load: with(1e3),
            took: [0.011, 1.0, f64::NAN, f64::NAN, f64::NAN, f64::NAN],
            ..points[0].clone()
        });
        let fit = Fit::new(Quantity::Cpu, &points).unwrap();
        assert!(!fit.locations_assumed);
        assert!((fit.predict(&with(1e3)) / fit.predict(&with(0.0)) - 1.1).abs() < 1e-3);
    }

    #[test]
    fn offers_of_several_shards_share_less() {
        let commits = |offers: f64, shards: f64| Load {
            shards,
            offers,
            ..point(0.0, 0.0, 0.0, 0.0, 0.0).load
        };
        let points: Vec<Point> = [100.0, 400.0, 900.0]
            .into_iter()
            .map(|offers: f64| Point {
                name: String::new(),
                load: commits(offers, 1.0),
                took: [
                    f64::NAN,
                    f64::NAN,
                    f64::NAN,
                    f64::NAN,
                    f64::NAN,
                    commits(offers, 1.0).wakes() * 10.0,
                ],
            })
            .collect();
        let fit = Fit::new(Quantity::Commits, &points).unwrap();
        assert!(
            (fit.predict(&commits(400.0, 4.0)) / fit.predict(&commits(100.0, 1.0)) - 4.0).abs() < 0.01,
            "four shards of 100 each"
        );
    }

    #[test]
    fn phases_of_a_file_are_read_and_the_warming_ones_left_out() {
        let document = serde_json::json!({ "scenarios": [{
            "parameters": { "phase": [{ "name": "warm" }, { "name": "low" }] },
            "medians": { "warm.drivers": 5, "low.drivers": 10, "low.cpu": 0.5, "low.slab_grown_both_ends": 3.0 },
        }] });
        let points = points(&document, &["warm"]);
        assert_eq!(points.len(), 1);
        assert!((points[0].took[0] - 0.5).abs() < 1e-9);
        assert!(points[0].took[2].is_nan(), "half of a sum is no sum");
    }
}
