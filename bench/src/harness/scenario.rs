//! What a scenario file says, and what it may say. `bench/scenarios/` has examples; each key is described here.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dispatchd::wire::limits::{DEADLINE_MS_MAX, OFFER_TIMEOUT_MS_MAX};
use serde::{Deserialize, Serialize};

/// Drivers of one load process: what its ring's table may hold where open files are limited to 20,000.
pub const DRIVERS_PER_PROCESS_MAX: u32 = 19_000;
/// Load processes.
pub const PROCESSES_MAX: u32 = 64;
/// Phases shorter than this have too few samples to say anything, s.
const PHASE_SECS_MIN: f64 = 1.0;
/// The longest phase, s: a day.
const PHASE_SECS_MAX: f64 = 86_400.0;
/// The longest interval of positions, s.
const LOCATION_S_MAX: f64 = 86_400.0;

/// A scenario file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name in reports.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub about: String,
    /// Drivers in all.
    pub drivers: u32,
    /// Load processes that share the drivers and the cores that the node does not have, at most 64; each has its own addresses on the
    /// loopback network, so that ports suffice.
    #[serde(default = "one")]
    pub processes: u32,
    /// Shards of the node.
    #[serde(default = "one")]
    pub shards: u32,
    /// Further settings of the node.
    #[serde(default)]
    pub settings: BTreeMap<String, toml::Value>,
    /// Decides every choice of drivers and matching engine.
    #[serde(default)]
    pub seed: u64,
    /// Where trips begin and end.
    #[serde(default)]
    pub geography: Geography,
    /// What people do.
    #[serde(default)]
    pub behaviour: Behaviour,
    /// The load, one phase after the other.
    pub phase: Vec<Phase>,
    /// What goes wrong.
    #[serde(default)]
    pub fault: Vec<Fault>,
}

fn one() -> u32 {
    1
}

/// Where trips begin and end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Geography {
    /// Trip records with zones, relative to the working directory; without it those that came with this program.
    pub trips: Option<PathBuf>,
    /// Candidates of a request: the nearest free drivers, by zone.
    pub candidates: u32,
}

impl Default for Geography {
    fn default() -> Self {
        Self {
            trips: None,
            candidates: 3,
        }
    }
}

/// What people do. Shares of drivers' answers need not add up to 1: they are weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behaviour {
    /// Weight of accepting an offer.
    pub accept: f64,
    /// Weight of declining it.
    pub decline: f64,
    /// Weight of letting it time out.
    pub ignore: f64,
    /// Weight of losing the connection instead of answering.
    pub vanish: f64,
    /// Time from offer to answer, ms, from and to.
    pub think_ms: [u32; 2],
    /// Time from the confirmation to the pickup, and from there to the end, ms, from and to.
    pub trip_leg_ms: [u32; 2],
    /// Time from the loss of a connection to the next try, ms, from and to; a draining node's own wish comes first.
    pub reconnect_ms: [u32; 2],
    /// Interval of a driver's positions, s; 0 for none.
    pub location_s: f64,
    /// Time that a driver has for an offer, ms.
    pub offer_timeout_ms: u32,
    /// Time for a whole search, ms.
    pub deadline_ms: u32,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            accept: 0.85,
            decline: 0.1,
            ignore: 0.03,
            vanish: 0.02,
            think_ms: [20, 200],
            trip_leg_ms: [500, 1500],
            reconnect_ms: [100, 1000],
            location_s: 0.0,
            offer_timeout_ms: 3000,
            deadline_ms: 20_000,
        }
    }
}

/// Offers per second: a number, or two that it goes from and to in a straight line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "rate must be a number, or two such as [0, 500]")]
pub enum Rate {
    /// Always the same.
    Flat(f64),
    /// From the beginning of the phase to its end.
    Ramp([f64; 2]),
}

impl Rate {
    /// The rate at this share (0 to 1) of the phase.
    pub fn at(self, share: f64) -> f64 {
        match self {
            Self::Flat(rate) => rate,
            Self::Ramp([from, to]) => from + (to - from) * share.clamp(0.0, 1.0),
        }
    }

    fn highest(self) -> f64 {
        self.at(0.0).max(self.at(1.0))
    }
}

/// A stretch of load, all processes together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Name in reports: figures begin with it.
    pub name: String,
    /// How long, s.
    pub secs: f64,
    /// Offers per second.
    pub rate: Rate,
}

/// Kinds of what goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// `kill -9` of the node, and a start at once on the same data.
    Kill,
    /// SIGTERM, the drain, and a start: a deploy.
    Drain,
    /// A share of the drivers loses its connection at once and comes back at once.
    ReconnectStorm,
    /// The apps of a share of the drivers hang for a while: they read and say nothing.
    Stall,
}

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When, s from the beginning of the first phase.
    pub at_s: f64,
    /// What.
    pub kind: FaultKind,
    /// Share of the drivers (0 to 1), for those that have one.
    #[serde(default = "all")]
    pub share: f64,
    /// How long, s, for those that last.
    #[serde(default)]
    pub secs: f64,
}

fn all() -> f64 {
    1.0
}

impl Scenario {
    /// Reads and checks a file; `changes` are `key=value` pairs that win, as if they stood in it: `behaviour.location_s=2` leaves the
    /// other keys of its table as they are.
    ///
    /// # Errors
    /// What is not as it must be, in words.
    pub fn load(path: &Path, changes: &[String]) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::parse(&text, changes).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str, changes: &[String]) -> Result<Self, String> {
        let mut table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
        for change in changes {
            let changed: toml::Table = change
                .parse()
                .map_err(|_| format!("{change:?} is not KEY=VALUE in TOML"))?;
            merge(&mut table, changed);
        }
        let scenario: Self = table.try_into().map_err(|error: toml::de::Error| error.to_string())?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let must = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
        must(!self.name.is_empty(), "name is empty")?;
        must(
            (1..=PROCESSES_MAX).contains(&self.processes),
            "processes must be from 1 to 64",
        )?;
        must(self.shards >= 1, "shards must be at least 1")?;
        must(
            self.drivers >= 10 * self.processes,
            "drivers must be at least ten for each process",
        )?;
        must(
            self.drivers.div_ceil(self.processes) <= DRIVERS_PER_PROCESS_MAX,
            "drivers must be at most 19000 for each process: raise processes",
        )?;
        must(!self.phase.is_empty(), "there is no [[phase]]")?;
        for (index, phase) in self.phase.iter().enumerate() {
            let name = &phase.name;
            must(
                self.phase[..index].iter().all(|other| other.name != *name),
                &format!("two phases have the name {name}"),
            )?;
            must(
                (PHASE_SECS_MIN..=PHASE_SECS_MAX).contains(&phase.secs),
                &format!("phase {name}: secs must be from 1 to 86400"),
            )?;
            let rates = [phase.rate.at(0.0), phase.rate.at(1.0)];
            must(
                rates.iter().all(|rate| (0.0..=1e6).contains(rate)),
                &format!("phase {name}: rate must be from 0 to 1000000"),
            )?;
        }
        for fault in &self.fault {
            must(
                (0.0..self.secs()).contains(&fault.at_s),
                "a fault's at_s is outside of the phases",
            )?;
            must(
                (0.0..=1.0).contains(&fault.share),
                "a fault's share must be from 0 to 1",
            )?;
            let lasts = fault.kind == FaultKind::Stall;
            must(!lasts || fault.secs >= 1.0, "a stall's secs must be at least 1")?;
        }
        self.behaviour.check()?;
        must(
            (1..=16).contains(&self.geography.candidates),
            "candidates must be from 1 to 16",
        )
    }

    /// Length of all phases, s.
    pub fn secs(&self) -> f64 {
        self.phase.iter().map(|phase| phase.secs).sum()
    }

    /// The highest rate of all phases, offers per second.
    pub fn highest_rate(&self) -> f64 {
        self.phase.iter().map(|phase| phase.rate.highest()).fold(0.0, f64::max)
    }

    /// The rate at a time from the beginning, offers per second; 0 when it is over.
    pub fn rate_at(&self, at_s: f64) -> f64 {
        self.phase_at(at_s)
            .map_or(0.0, |(phase, start_s)| phase.rate.at((at_s - start_s) / phase.secs))
    }

    /// The phase at a time from the beginning, and when it began.
    pub fn phase_at(&self, at_s: f64) -> Option<(&Phase, f64)> {
        let mut start_s = 0.0;
        for phase in &self.phase {
            if at_s < start_s + phase.secs {
                return Some((phase, start_s));
            }
            start_s += phase.secs;
        }
        None
    }

    /// Drivers of one load process: the first one's number and how many.
    pub fn part(&self, process: u32) -> (u32, u32) {
        let share = self.drivers / self.processes;
        let extra = self.drivers % self.processes;
        let first = share * process + extra.min(process);
        (first, share + u32::from(process < extra))
    }
}

/// Puts `changed` into `table`; tables that both have are merged, too.
fn merge(table: &mut toml::Table, changed: toml::Table) {
    for (key, value) in changed {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(changed)) => merge(inner, changed),
            (_, value) => drop(table.insert(key, value)),
        }
    }
}

impl Behaviour {
    fn check(&self) -> Result<(), String> {
        let weights = [self.accept, self.decline, self.ignore, self.vanish];
        let is_weight = |weight: &f64| weight.is_finite() && *weight >= 0.0;
        if !weights.iter().all(is_weight) || weights.iter().sum::<f64>() <= 0.0 {
            return Err("behaviour: weights must be numbers, not negative, nor all zero".into());
        }
        if !(0.0..=LOCATION_S_MAX).contains(&self.location_s) {
            return Err("behaviour: location_s must be from 0 to 86400".into());
        }
        for (name, [from, to]) in [
            ("think_ms", self.think_ms),
            ("trip_leg_ms", self.trip_leg_ms),
            ("reconnect_ms", self.reconnect_ms),
        ] {
            if from > to {
                return Err(format!("behaviour: {name} goes from more to less"));
            }
        }
        if !(1..=OFFER_TIMEOUT_MS_MAX).contains(&self.offer_timeout_ms) {
            return Err("behaviour: offer_timeout_ms must be from 1 to 600000".into());
        }
        if !(self.offer_timeout_ms..=DEADLINE_MS_MAX).contains(&self.deadline_ms) {
            return Err("behaviour: deadline_ms must be from offer_timeout_ms to 86400000".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "name = 'a'\ndrivers = 105\nprocesses = 2\n[[phase]]\nname = 'up'\nsecs = 10\nrate = [0, 100]\n\
                         [[phase]]\nname = 'flat'\nsecs = 5.0\nrate = 50\n";

    #[test]
    fn a_change_leaves_the_rest_of_its_table_alone() {
        let text = format!("{SMALL}[behaviour]\noffer_timeout_ms = 100\ndeadline_ms = 200\n");
        let changes = ["behaviour.deadline_ms=1000".to_owned(), "drivers = 40".to_owned()];
        let scenario = Scenario::parse(&text, &changes).unwrap();
        let behaviour = &scenario.behaviour;
        assert_eq!((behaviour.offer_timeout_ms, behaviour.deadline_ms), (100, 1_000));
        assert_eq!(scenario.drivers, 40);
    }

    #[test]
    fn what_cannot_be_played_is_refused_in_words() {
        for (change, why) in [
            ("behaviour.accept=nan", "weights must be numbers"),
            ("behaviour.location_s=-1.0", "location_s must be from 0"),
            (
                "behaviour.offer_timeout_ms=4000000000",
                "offer_timeout_ms must be from 1",
            ),
            ("behaviour.deadline_ms=5", "deadline_ms must be from offer_timeout_ms"),
            ("phase=[{name='a',secs=inf,rate=1}]", "secs must be from 1"),
            ("phase=[{name='a',secs=1,rate='fast'}]", "rate must be a number"),
            (
                "phase=[{name='a',secs=1,rate=1},{name='a',secs=2,rate=1}]",
                "two phases have the name a",
            ),
        ] {
            let error = Scenario::parse(SMALL, &[change.to_owned()]).unwrap_err();
            assert!(error.contains(why), "{change}: {error}");
        }
    }

    #[test]
    fn rates_ramp_and_drivers_are_shared_out() {
        let scenario = Scenario::parse(SMALL, &[]).unwrap();
        for (at_s, rate) in [(0.0, 0.0), (5.0, 50.0), (10.0, 50.0), (14.9, 50.0), (15.0, 0.0)] {
            assert!((scenario.rate_at(at_s) - rate).abs() < 1e-9, "at {at_s}");
        }
        assert_eq!((scenario.part(0), scenario.part(1)), ((0, 53), (53, 52)));
        assert!((scenario.secs() - 15.0).abs() < 1e-9 && (scenario.highest_rate() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_change_of_the_command_line_wins() {
        let scenario = Scenario::parse(SMALL, &["drivers=400".into(), "shards=3".into()]).unwrap();
        assert_eq!((scenario.drivers, scenario.shards), (400, 3));
        assert!(Scenario::parse(SMALL, &["nonsense".into()]).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        let with = |more: &str| Scenario::parse(&format!("{SMALL}{more}"), &[]).unwrap_err();
        assert!(with("[[fault]]\nat_s = 99\nkind = 'kill'").contains("at_s"));
        assert!(with("[[fault]]\nat_s = 1\nkind = 'stall'").contains("secs"));
        assert!(with("[[fault]]\nat_s = 1\nkind = 'flood'").contains("flood"));
        assert!(with("[behaviour]\nacept = 1").contains("acept"));
        assert!(with("[behaviour]\nthink_ms = [5, 1]").contains("think_ms"));
        assert!(
            Scenario::parse(SMALL, &["drivers=5".into()])
                .unwrap_err()
                .contains("drivers")
        );
        assert!(
            Scenario::parse(SMALL, &["processes=65".into()])
                .unwrap_err()
                .contains("processes")
        );
    }

    #[test]
    fn every_scenario_of_the_repository_is_valid() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let mut found = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            Scenario::load(&entry.unwrap().path(), &[]).unwrap();
            found += 1;
        }
        assert!(found >= 4, "{found} scenarios");
    }
}
