//! From a city and the fitted costs to nodes, cores, memory, network, and the stores beside them.
#![forbid(unsafe_code)]

use super::fit::{Fit, Fits, Load, Point, Quantity};
use super::lines::{self, Line};
use super::storm::Storm;
use dispatchd::ops::args::real;

/// Share of a node's cores that may be busy in the ordinary course; the rest is for bursts.
pub(super) const BUSY_MAX: f64 = 0.6;
/// Share of a node's memory that may be in use.
const MEMORY_MAX: f64 = 0.7;
/// Share of a NIC's rate that may be in use.
const NIC_MAX: f64 = 0.5;
/// Header, checksum, preamble and gap of an Ethernet frame are 38 bytes for each packet, which loopback does not count. A heartbeat's packets
/// have some 70 to 90 bytes there, acknowledgements among them.
pub(super) const WIRE_OVERHEAD: f64 = 1.5;
/// Bytes of an open request with its trip, of the node's own memory: 20,000 trips left open (`bench/EXPERIMENTS.md`, "The capacity plan").
const OPEN_RIDE_BYTES: f64 = 2_400.0;
/// Ended requests whose ids a node tells from new ones in memory, at most, and bytes of each (README, "Limits").
const ENDED_IDS_MAX: f64 = 130e6;
const ENDED_ID_BYTES: f64 = 2.0;
/// Bytes on disk of an offer: its request with trip and audit, and a record of each attempt, compressed; nobody has measured them in a year.
pub(super) const STORED_BYTES_PER_OFFER: f64 = 2_000.0;
/// More nodes than anybody plans for.
const NODES_MAX: f64 = 1e6;
/// Nodes for the storm alone are tried in steps of this much more.
const STORM_STEP: f64 = 1.02;

/// The city and the machines that are for sale.
#[derive(Debug, Clone, clap::Args)]
pub struct City {
    /// Connected drivers
    #[arg(long, value_parser = real(1.0..=1e10, 5_000_000.0))]
    pub drivers: Option<f64>,
    /// Offers per second
    #[arg(long, value_parser = real(0.0..=1e9, 5_000.0))]
    pub offers_per_second: Option<f64>,
    /// Interval of heartbeats, s
    #[arg(long, default_value_t = 30.0, value_parser = real(0.1..=86_400.0, 30.0))]
    pub heartbeat_s: f64,
    /// Interval of positions, s; 0 for none
    #[arg(long, default_value_t = 0.0, value_parser = real(0.0..=86_400.0, 0.0))]
    pub location_s: f64,
    /// Cores of a node
    #[arg(long, default_value_t = 16.0, value_parser = real(1.0..=4_096.0, 16.0))]
    pub node_cores: f64,
    /// Memory of a node, GB
    #[arg(long, default_value_t = 64.0, value_parser = real(1.0..=65_536.0, 64.0))]
    pub node_memory_gb: f64,
    /// Network of a node, Gbit/s
    #[arg(long, default_value_t = 10.0, value_parser = real(0.001..=10_000.0, 10.0))]
    pub node_gbit: f64,
    /// Connections that a node may hold
    #[arg(long, default_value_t = 1_000_000.0, value_parser = real(1.0..=1e9, 1_000_000.0))]
    pub node_connections: f64,
    /// How fast all drivers of a lost node are to be back, s
    #[arg(long, default_value_t = 30.0, value_parser = real(0.1..=86_400.0, 30.0))]
    pub storm_s: f64,
    /// How long a ride takes from its acceptance to its end, minutes
    #[arg(long, default_value_t = 15.0, value_parser = real(0.0..=100_000.0, 15.0))]
    pub ride_minutes: f64,
    /// How long audits and records are kept, days
    #[arg(long, default_value_t = 30.0, value_parser = real(1.0..=36_500.0, 30.0))]
    pub retention_days: f64,
}

/// How far a figure can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Nobody has measured it here.
    Assumed,
    /// Far beyond what was measured, or a bad fit.
    Low,
    /// Beyond what was measured.
    Medium,
    /// Within a few times of what was measured, and a good fit.
    High,
}

impl Confidence {
    /// In a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Assumed => "assumed",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }

    /// Of a fit that is asked for `reach` times the most that was measured.
    fn of(fit: &Fit, reach: f64) -> Self {
        match (fit.error, reach) {
            // Any costs would do.
            _ if fit.points <= fit.unknowns => Self::Low,
            (error, reach) if error <= 0.1 && reach <= 4.0 && fit.points >= 4 => Self::High,
            (error, reach) if error <= 0.25 && reach <= 30.0 => Self::Medium,
            _ => Self::Low,
        }
    }
}

/// A sized fleet.
pub struct Plan {
    /// Nodes, the spare one included.
    pub nodes: f64,
    /// What decided their number.
    pub bound_by: &'static str,
    /// To be printed.
    pub lines: Vec<Line>,
}

/// What a load takes in all, with how sure that is.
pub(super) struct Need {
    pub(super) value: f64,
    pub(super) confidence: Confidence,
    pub(super) because: String,
}

/// The costs that were fitted.
pub struct Costs {
    fits: Fits,
    /// The most that a shard had.
    largest: Load,
    /// The most shards that were measured together.
    shards: f64,
    /// CPU of a handshake, µs, where it was measured.
    pub(super) handshake_us: Option<f64>,
}

impl Costs {
    /// Fits everything that was measured.
    ///
    /// # Errors
    /// There are no points, or CPU or memory was not measured.
    pub fn new(points: &[Point], handshake_us: Option<f64>) -> Result<Self, String> {
        let fits = Fits::new(points);
        for needed in [Quantity::Cpu, Quantity::Memory] {
            if fits.of(needed).is_none() {
                return Err(format!(
                    "the results hold no {}: run bench/scenarios/scale.toml",
                    needed.words().0
                ));
            }
        }
        let most = |field: fn(&Load) -> f64| points.iter().map(|point| field(&point.load)).fold(0.0, f64::max);
        let largest = Load {
            nodes: 1.0,
            shards: 1.0,
            drivers: most(|load| load.drivers / load.shards),
            heartbeats: most(|load| load.heartbeats / load.shards),
            locations: most(|load| load.locations / load.shards),
            offers: most(|load| load.offers / load.shards),
        };
        Ok(Self {
            fits,
            largest,
            shards: most(|load| load.shards),
            handshake_us,
        })
    }

    /// What a load takes of a quantity.
    pub(super) fn need(&self, quantity: Quantity, load: &Load) -> Need {
        let (Some(fit), Some(value)) = (self.fits.of(quantity), self.fits.predict(quantity, load)) else {
            return Need {
                value: 0.0,
                confidence: Confidence::Assumed,
                because: "not measured".into(),
            };
        };
        let of_shard = |field: fn(&Load) -> f64| (field(load) / load.shards) / field(&self.largest).max(1.0);
        let reach = of_shard(|load| load.drivers)
            .max(of_shard(|load| load.offers))
            .max(of_shard(|load| load.heartbeats + load.locations));
        let mut confidence = Confidence::of(fit, reach);
        let mut because = format!(
            "fit of {} phases, error {:.0} %; a shard has {reach:.2} x the largest of them",
            fit.points,
            100.0 * fit.error
        );
        if load.shards > self.shards {
            confidence = confidence.min(Confidence::Medium);
        }
        if fit.locations_assumed && load.locations > 0.0 {
            confidence = Confidence::Assumed;
            because.push_str("; a position taken as a heartbeat, as none was measured");
        }
        Need {
            value,
            confidence,
            because,
        }
    }
}

/// What the whole city takes.
pub(super) struct Needs {
    pub(super) cpu: Need,
    pub(super) memory: Need,
    pub(super) kernel: Need,
    pub(super) network: Need,
    /// Of all nodes and their kernels, bytes.
    pub(super) memory_bytes: f64,
    /// One way, headers included, bits per second.
    pub(super) network_bits: f64,
    /// Trips that are open at once.
    pub(super) rides: f64,
}

impl Needs {
    /// What a city takes.
    fn new(city: &City, load: &Load, costs: &Costs) -> Self {
        let (memory, kernel) = (costs.need(Quantity::Memory, load), costs.need(Quantity::Kernel, load));
        let network = costs.need(Quantity::Network, load);
        let rides = load.offers * city.ride_minutes * 60.0;
        let ended = load.offers * 86_400.0 * city.retention_days;
        Self {
            cpu: costs.need(Quantity::Cpu, load),
            // Kernel memory was measured with both ends on one machine; a node has one of them.
            memory_bytes: memory.value
                + kernel.value / 2.0
                + rides * OPEN_RIDE_BYTES
                + ended.min(load.nodes * ENDED_IDS_MAX) * ENDED_ID_BYTES,
            // Every byte on loopback is one direction of one message; NICs are full duplex, so half of it counts.
            network_bits: network.value / 2.0 * 8.0 * WIRE_OVERHEAD,
            memory,
            kernel,
            network,
            rides,
        }
    }

    /// The nodes that carry it, and what decides their number.
    fn bound(&self, city: &City, drivers: f64) -> (&'static str, f64) {
        [
            ("CPU", self.cpu.value / (city.node_cores * BUSY_MAX)),
            ("memory", self.memory_bytes / (city.node_memory_gb * 1e9 * MEMORY_MAX)),
            ("connections", drivers / city.node_connections),
            ("network", self.network_bits / (city.node_gbit * 1e9 * NIC_MAX)),
        ]
        .into_iter()
        .fold(("CPU", 0.0), |most, need| if need.1 > most.1 { need } else { most })
    }
}

impl Plan {
    /// Sizes a fleet for a city: the fewest nodes that carry it with one of them missing, and take that one's drivers back in time.
    ///
    /// # Errors
    /// No number of nodes carries it: by the costs each shard that is added takes more than it may.
    pub fn of(city: &City, drivers: f64, offers: f64, costs: &Costs) -> Result<Self, String> {
        let per_s = |interval_s: f64| if interval_s > 0.0 { drivers / interval_s } else { 0.0 };
        let mut carrying = 1.0_f64;
        let mut bound_by = "CPU";
        let (needs, load, storm) = loop {
            let load = Load {
                nodes: carrying,
                drivers,
                shards: carrying * city.node_cores,
                heartbeats: per_s(city.heartbeat_s),
                locations: per_s(city.location_s),
                offers,
            };
            let needs = Needs::new(city, &load, costs);
            let (most_of, most) = needs.bound(city, drivers);
            let storm = Storm::new(city, drivers, needs.cpu.value, carrying, costs);
            if !most.is_finite() || most > NODES_MAX || carrying > NODES_MAX {
                return Err(format!(
                    "more than {NODES_MAX:.0} nodes would be needed, bound by {most_of}: either the city is wrong, or the measured phases do not tell \
                     what a driver costs and what an offer does"
                ));
            }
            if most > carrying {
                (bound_by, carrying) = (most_of, most.ceil());
            } else if storm.secs > city.storm_s {
                (bound_by, carrying) = ("the storm", (carrying * STORM_STEP).ceil().max(carrying + 1.0));
            } else {
                if carrying <= 1.0 {
                    bound_by = most_of;
                }
                break (needs, load, storm);
            }
        };
        // With one node missing the others carry everything; a single node has nobody beside it.
        let mut plan = Self {
            nodes: carrying + 1.0,
            bound_by,
            lines: Vec::new(),
        };
        lines::node_lines(&mut plan, city, drivers, &needs);
        plan.lines.push(storm.line(city));
        lines::disk_lines(&mut plan, city, &load, carrying, costs);
        super::stores::store_lines(&mut plan, city, drivers, offers, carrying + 1.0);
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct Only {
        #[command(flatten)]
        city: City,
    }

    fn costs() -> Costs {
        let points: Vec<Point> = [(1e4, 0.0), (1e4, 1e3), (5e4, 0.0), (5e4, 500.0), (5e4, 1e3)]
            .into_iter()
            .map(|(drivers, offers)| {
                let heartbeats = drivers / 30.0;
                Point {
                    name: String::new(),
                    load: Load {
                        nodes: 1.0,
                        drivers,
                        shards: 1.0,
                        heartbeats,
                        locations: 0.0,
                        offers,
                    },
                    took: [
                        heartbeats * 10e-6 + offers * 100e-6,
                        1e7 + drivers * 300.0,
                        drivers * 8000.0,
                        heartbeats * 300.0 + offers * 4000.0,
                        offers * 2000.0,
                        offers * 2.0,
                    ],
                }
            })
            .collect();
        Costs::new(&points, Some(50.0)).unwrap()
    }

    /// A later option wins.
    fn plan(arguments: &[&str], drivers: f64, offers: f64) -> Plan {
        let city = Only::parse_from(["plan"].iter().chain(arguments)).city;
        Plan::of(&city, drivers, offers, &costs()).unwrap()
    }

    #[test]
    fn a_small_city_has_two_nodes_and_a_large_one_is_bound_by_what_it_lacks() {
        assert!((plan(&[], 1e4, 100.0).nodes - 2.0).abs() < 0.1);
        let large = plan(&[], 5e6, 1000.0);
        assert_eq!((large.bound_by, large.nodes), ("connections", 6.0));
        assert_eq!(plan(&["--node-memory-gb", "2"], 5e6, 1000.0).bound_by, "memory");
        assert_eq!(plan(&["--node-cores", "1"], 1e5, 50_000.0).bound_by, "CPU");
        assert_eq!(plan(&["--node-gbit", "0.01"], 1e6, 1000.0).bound_by, "network");
    }

    #[test]
    fn what_is_far_from_the_measurements_is_trusted_less() {
        let sure = |drivers: f64, more: &[&str]| {
            let large = [
                "--node-cores",
                "1",
                "--node-connections",
                "1e9",
                "--node-memory-gb",
                "65536",
            ];
            let arguments: Vec<&str> = large.iter().chain(more).copied().collect();
            let plan = plan(&arguments, drivers, 1000.0);
            let line = plan.lines.iter().find(|line| line.what == "CPU in all");
            line.unwrap().confidence
        };
        assert_eq!(sure(1e5, &[]), Confidence::High);
        assert_eq!(
            sure(1e5, &["--node-cores", "2"]),
            Confidence::Medium,
            "shards were measured alone"
        );
        assert_eq!(
            sure(1e5, &["--location-s", "5"]),
            Confidence::Assumed,
            "no positions were measured"
        );
        let idle = ["--heartbeat-s", "3000", "--storm-s", "10000"];
        assert_eq!(sure(3e5, &idle), Confidence::Medium);
        assert_eq!(sure(3e6, &idle), Confidence::Low);
    }

    #[test]
    fn costs_that_nobody_can_pay_are_an_error_and_few_phases_are_little_trusted() {
        let point = |heartbeats: f64, cpu: f64| Point {
            name: String::new(),
            load: Load {
                nodes: 1.0,
                drivers: 1e5,
                shards: 1.0,
                heartbeats,
                locations: 0.0,
                offers: 0.0,
            },
            took: [cpu, 1e8, f64::NAN, f64::NAN, f64::NAN, f64::NAN],
        };
        let city = Only::parse_from(["plan"]).city;
        let dear = Costs::new(&[point(0.0, 0.9)], None).unwrap();
        assert!(Plan::of(&city, 1e5, 0.0, &dear).is_err());
        let two = Costs::new(&[point(1e4, 0.1), point(2e4, 0.2)], None).unwrap();
        let plan = Plan::of(&city, 1e5, 0.0, &two).unwrap();
        let line = plan.lines.iter().find(|line| line.what == "CPU in all");
        assert_eq!(line.unwrap().confidence, Confidence::Low);
    }

    #[test]
    fn there_are_nodes_enough_for_the_storm_and_for_rides() {
        let easy = plan(&[], 2e6, 1000.0);
        let hard = plan(&["--storm-s", "0.5"], 2e6, 1000.0);
        assert!(hard.nodes > easy.nodes, "{} and {}", hard.nodes, easy.nodes);
        assert_eq!(hard.bound_by, "the storm");
        let memory = |arguments: &[&str]| {
            let plan = plan(arguments, 1e5, 5000.0);
            let line = plan.lines.into_iter().find(|line| line.what == "memory of a node");
            line.unwrap().figure
        };
        assert_ne!(memory(&[]), memory(&["--ride-minutes", "60"]));
    }
}
