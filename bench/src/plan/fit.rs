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
    /// Nodes, each with a store of its own.
    pub nodes: f64,
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
    /// What commits and wake-ups that several offers share would grow with if the shards had nothing else to do: for each shard its offers as
    /// long as they are few, the root of them when they are many. The more offers wait, the more of them one commit holds.
    fn wakes(&self) -> f64 {
        let of_shard = self.offers / self.shards.max(1.0);
        self.offers / (of_shard + OFFERS_ALONE).sqrt()
    }

    /// The share of their time that the shards sleep when the node has `cpu` cores of work.
    fn idle(&self, cpu: f64) -> f64 {
        (1.0 - cpu / self.shards.max(1.0)).max(0.0)
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
            Self::Kernel => &["socket_objects_both_ends", "tcp_grown_both_ends"],
            Self::Network => &["network_per_s"],
            Self::Disk => &["disk_per_s"],
            Self::Commits => &["commits_per_s"],
        }
    }

    /// What of it nothing hangs on.
    pub fn counts_from(self) -> f64 {
        match self {
            Self::Disk => 1e6,
            Self::Commits => 100.0,
            _ => 0.0,
        }
    }

    /// What it may depend on, with shards that sleep for this share of their time. Whatever comes while a shard works costs no wake-up, and
    /// waits for the same commit as what is worked on; where the wake-ups are among the terms they are the last.
    fn terms(self, load: &Load, idle: f64) -> Vec<f64> {
        let wakes = idle * load.wakes();
        match self {
            Self::Cpu => vec![load.shards, load.heartbeats, load.locations, load.offers, wakes],
            // Once for a run: the load generator reads the metrics.
            Self::Network => vec![1.0, load.heartbeats, load.locations, load.offers],
            Self::Memory => vec![load.nodes, load.shards, load.drivers, load.offers],
            Self::Kernel => vec![load.drivers],
            // The store writes in rounds, whose number hardly grows with what there is to store.
            Self::Disk => vec![
                if load.offers > 0.0 { load.nodes } else { 0.0 },
                idle * load.offers,
                wakes,
            ],
            Self::Commits => vec![idle * load.offers, wakes],
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

impl Point {
    /// The share of their time that the shards slept; all of it when their CPU was not measured.
    fn idle(&self) -> f64 {
        let cpu = self.took[0];
        self.load.idle(if cpu.is_finite() { cpu } else { 0.0 })
    }
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
                    nodes: 1.0,
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

/// Everything that was measured, fitted.
#[derive(Debug, Clone)]
pub struct Fits(Vec<Fit>);

impl Fits {
    /// Fits what the points hold.
    pub fn new(points: &[Point]) -> Self {
        let fits = Quantity::ALL
            .into_iter()
            .filter_map(|quantity| Fit::new(quantity, points));
        Self(fits.collect())
    }

    /// The fit of a quantity; nothing when it was never measured.
    pub fn of(&self, quantity: Quantity) -> Option<&Fit> {
        self.0.iter().find(|fit| fit.quantity == quantity)
    }

    /// What a load takes of a quantity; nothing when it was never measured.
    pub fn predict(&self, quantity: Quantity, load: &Load) -> Option<f64> {
        let cpu = self.of(Quantity::Cpu).map_or(0.0, |cpu| cpu.cores(load));
        self.of(quantity).map(|fit| match quantity {
            Quantity::Cpu => cpu,
            _ => fit.at(load, load.idle(cpu)),
        })
    }
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
    /// Costs that the points leave room for: as many as these, and they say what they like.
    pub unknowns: usize,
}

impl Fit {
    /// Fits a quantity; nothing when it was never measured. Errors count in relation to what was measured, so that small
    /// runs say as much as large ones.
    fn new(quantity: Quantity, points: &[Point]) -> Option<Self> {
        let index = Quantity::ALL.iter().position(|other| *other == quantity)?;
        let rows: Vec<(Vec<f64>, f64)> = points
            .iter()
            // Below what counts is what comes not from anything that was asked of the node, such as the commits of an idle one.
            .filter(|point| point.took[index].is_finite() && point.took[index] > quantity.counts_from())
            .map(|point| (quantity.terms(&point.load, point.idle()), point.took[index]))
            .collect();
        if rows.is_empty() {
            return None;
        }
        let mut costs = non_negative_least_squares(&rows);
        let unknowns = (0..costs.len())
            .filter(|term| rows.iter().any(|(terms, _)| terms[*term] != 0.0))
            .count();
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
            unknowns,
        })
    }

    /// What a load takes of shards that sleep for this share of their time.
    fn at(&self, load: &Load, idle: f64) -> f64 {
        dot(&self.quantity.terms(load, idle), &self.costs)
    }

    /// The CPU of a load, cores. It decides how long the shards sleep, and so how often they wake up, which is a part of it: with `work` for
    /// everything but wake-ups, `wakes` for these if the shards had nothing else to do, and `idle = 1 - cpu / shards`, cpu is
    /// `work + wakes * idle`.
    fn cores(&self, load: &Load) -> f64 {
        let work = self.at(load, 0.0);
        let wakes = self.at(load, 1.0) - work;
        let shards = load.shards.max(1.0);
        let idle = ((shards - work) / (shards + wakes)).max(0.0);
        work + wakes * idle
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
            nodes: 1.0,
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
        let fits = Fits::new(&points);
        assert!(fits.of(Quantity::Cpu).unwrap().error < 0.01, "{fits:?}");
        let large = Load {
            shards: 8.0,
            ..point(1e6, 1e5, 1e4, 0.0, 0.0).load
        };
        let predicted = fits.predict(Quantity::Cpu, &large).unwrap();
        assert!((predicted / (cpu(1e5, 1e4) + 0.07) - 1.0).abs() < 0.02, "{predicted}");
        let memory = fits.predict(Quantity::Memory, &large).unwrap();
        assert!((memory / (5e6 + 1e6 * 300.0) - 1.0).abs() < 0.02);
        assert!(fits.of(Quantity::Disk).is_none() && fits.predict(Quantity::Disk, &large).is_none());
    }

    #[test]
    fn a_position_that_was_never_measured_costs_what_a_heartbeat_does() {
        let mut points = vec![point(1e4, 1e3, 0.0, 0.01, 1.0), point(1e4, 2e3, 0.0, 0.02, 1.0)];
        let with = |locations: f64| Load {
            locations,
            ..point(1e4, 1e3, 0.0, 0.0, 0.0).load
        };
        let twice = |points: &[Point]| {
            let fits = Fits::new(points);
            let [with, without] = [1e3, 0.0].map(|locations| fits.predict(Quantity::Cpu, &with(locations)).unwrap());
            (fits.of(Quantity::Cpu).unwrap().locations_assumed, with / without)
        };
        let (assumed, ratio) = twice(&points);
        assert!(assumed && (ratio - 2.0).abs() < 1e-3, "{ratio}");
        points.push(Point {
            load: with(1e3),
            took: [0.011, 1.0, f64::NAN, f64::NAN, f64::NAN, f64::NAN],
            ..points[0].clone()
        });
        let (assumed, ratio) = twice(&points);
        assert!(!assumed && (ratio - 1.1).abs() < 1e-3, "{ratio}");
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
        let fits = Fits::new(&points);
        let [four, one] = [(400.0, 4.0), (100.0, 1.0)]
            .map(|(offers, shards)| fits.predict(Quantity::Commits, &commits(offers, shards)));
        assert!(
            (four.unwrap() / one.unwrap() - 4.0).abs() < 0.01,
            "four shards of 100 each"
        );
    }

    #[test]
    fn a_shard_that_works_wakes_up_less_and_commits_more_at_once() {
        // Work of 10 µs for a heartbeat; an offer's wake-ups are 10 ms of a root and fifty commits of it, both for the time that is slept.
        let measured = |heartbeats: f64, offers: f64| {
            let mut point = point(1e4, heartbeats, offers, 0.0, 1.0);
            let (work, wakes) = (heartbeats * 10e-6, 0.01 * point.load.wakes());
            let cpu = (work + wakes) / (1.0 + wakes);
            point.took = [
                cpu,
                1.0,
                f64::NAN,
                f64::NAN,
                f64::NAN,
                50.0 * point.load.wakes() * (1.0 - cpu),
            ];
            point
        };
        let points: Vec<Point> = [(1e3, 250.0), (1e3, 1e3), (1e4, 250.0), (1e4, 1e3), (1e4, 0.0)]
            .map(|(heartbeats, offers)| measured(heartbeats, offers))
            .to_vec();
        let fits = Fits::new(&points);
        let busy = measured(3e4, 1e3);
        for (quantity, index) in [(Quantity::Cpu, 0), (Quantity::Commits, 5)] {
            let predicted = fits.predict(quantity, &busy.load).unwrap();
            assert!(
                (predicted / busy.took[index] - 1.0).abs() < 0.02,
                "{quantity:?} {predicted}"
            );
        }
        let full = Load {
            heartbeats: 3e5,
            ..busy.load
        };
        assert!(
            fits.predict(Quantity::Cpu, &full).unwrap() > 2.9,
            "more than a shard has is said"
        );
        assert!(fits.predict(Quantity::Commits, &full).unwrap() >= 0.0);
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
