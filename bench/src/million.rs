//! `million`: real drivers on one node, up to a million and more, from one load process.
//!
//! Both processes hold their sockets in the fixed-file tables of their rings, which `RLIMIT_NOFILE` bounds for each ring and
//! not for the process: so a shard of the server has as many rings as its connections need, and the load a part with a ring and
//! local addresses of its own for every 16,000 drivers. At each level (`--series`): everybody connects; quiet, with heartbeats only; offers at a fixed rate,
//! taken, declined and left to end; SIGTERM with everybody connected; and on the same data a storm of reconnects.
//! What is held per driver and what a driver and an offer cost must not depend on how many there are. More drivers send more
//! heartbeats, though, and a busier core answers later: so a control level sends as many heartbeats from few drivers, and
//! what still differs is what the number of drivers does.
#![deny(unsafe_code)]

pub mod audits;
pub mod beats;
pub mod bell;
pub mod kernel;
pub mod level;
pub mod network;
pub mod people;
pub mod show;
pub mod timing;
pub mod verdict;
pub mod worker;

use std::fmt;
use std::io;
use std::process::ExitCode;

use dispatchd::ops::args::{real, whole};
use serde::Serialize;

use crate::files::Files;
use crate::scenarios::Context;
use crate::server::connections_for;
use level::Level;
use network::Network;

/// Drivers of a part of the load, whose ring may have 20,000 sockets under the usual hard limit of open files.
const DRIVERS_PER_PART: u32 = 16_000;
/// Drivers that a drain closes in a second: what one core closes without falling behind.
const DRAIN_PER_MS: u32 = 20;
/// Shortest time between two heartbeats of a driver in the control level, ns: far above what one message takes and
/// above what an answer takes, or one would be due before the last was answered.
const CONTROL_HEARTBEAT_NS_MIN: u64 = 200_000_000;
/// Shortest drain, ms.
const DRAIN_MS_MIN: u64 = 5_000;

/// How many drivers a level has, and how often they say that they are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scale {
    /// Connected drivers.
    pub drivers: u32,
    /// Time between two heartbeats of a driver, ns.
    pub heartbeat_ns: u64,
    /// The control level: the drivers whose heartbeats per second these send.
    pub heartbeats_of: Option<u32>,
}

impl fmt::Display for Scale {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.heartbeats_of {
            None => write!(out, "{}", self.drivers),
            Some(more) => write!(out, "{} with the heartbeats of {more}", self.drivers),
        }
    }
}

/// The load.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Connected drivers of the largest level
    #[arg(long, default_value_t = 1_000_000, value_parser = whole::<u32>(100..=4_000_000, 1_000_000))]
    pub drivers: u32,
    /// Levels below it to run first, each with a fresh server (those that are not smaller are left out). Of three levels and more,
    /// the largest among them, the second-smallest is run once more with as many heartbeats per second as the largest has, to
    /// compare the largest with; not where a driver would send more than five in a second
    #[arg(long, value_delimiter = ',', num_args = 0.., default_value = "")]
    pub series: Vec<String>,
    /// Minutes of offers at the largest level
    #[arg(long, default_value_t = 10.0, value_parser = real(0.1..=10_080.0, 10.0))]
    pub minutes: f64,
    /// Minutes of offers at the levels of the series [default: as many]
    #[arg(long, value_parser = real(0.1..=10_080.0, 2.0))]
    pub series_minutes: Option<f64>,
    /// Offers per second (open loop); 0 for none
    #[arg(long, default_value_t = 2_000, value_parser = whole::<u32>(0..=100_000, 2_000))]
    pub offers_per_second: u32,
    /// Shards of the server, which is pinned to one core
    #[arg(long, default_value_t = 1, value_parser = whole::<u32>(1..=1_000, 1))]
    pub shards: u32,
    /// Threads of the load, which is pinned to one core, too
    #[arg(long, default_value_t = 1, value_parser = whole::<u32>(1..=1_000, 1))]
    pub load_threads: u32,
    /// Handshakes under way at once, all threads together
    #[arg(long, default_value_t = 1_024, value_parser = whole::<u32>(1..=100_000, 1_024))]
    pub connecting: u32,
    /// Time between two heartbeats of a driver, s; a silence of twice as long closes its socket
    #[arg(long, default_value_t = 30, value_parser = whole::<u64>(1..=3_600, 30))]
    pub heartbeat_seconds: u64,
    /// Time with heartbeats only, s, whose CPU is what heartbeats cost
    #[arg(long, default_value_t = 30, value_parser = whole::<u64>(0..=86_400, 30))]
    pub quiet_seconds: u64,
    /// Of 100 offers, how many the first driver declines
    #[arg(long, default_value_t = 10, value_parser = whole::<u32>(0..=50, 10))]
    pub decline_percent: u32,
    /// Of 100 offers, how many the first driver does not answer
    #[arg(long, default_value_t = 5, value_parser = whole::<u32>(0..=50, 5))]
    pub ignore_percent: u32,
    /// How long a driver may leave an offer unanswered, ms; far above what an answer takes
    #[arg(long, default_value_t = 8_000, value_parser = whole::<u32>(100..=60_000, 8_000))]
    pub offer_timeout_ms: u32,
    /// Time from OFFER to the driver's answer, ms; the ACK leaves at once
    #[arg(long, default_value_t = 50, value_parser = whole::<u32>(0..=600_000, 50))]
    pub think_ms: u32,
    /// Time from CONFIRMED to pickup, and from there to complete, ms
    #[arg(long, default_value_t = 500, value_parser = whole::<u32>(0..=600_000, 500))]
    pub trip_leg_ms: u32,
    /// Stay in the host's network, with its table of connections. Otherwise a run has a network of its own where this process may
    /// make one (root may), with a bucket for each socket and no firewall; `nsenter -n -t PID` looks into it
    #[arg(long)]
    pub host_network: bool,
}

impl Options {
    /// The levels, smallest first, the largest last; just before it, where there are three, the control level.
    ///
    /// # Errors
    /// One of the series is not a number of drivers.
    pub fn levels(&self) -> io::Result<Vec<Scale>> {
        let mut levels = Vec::new();
        for text in self.series.iter().filter(|text| !text.is_empty()) {
            let drivers: u32 = text
                .parse()
                .map_err(|_| io::Error::other(format!("--series: {text:?} is not a number of drivers")))?;
            if drivers == 0 {
                return Err(io::Error::other("--series: a level has a driver at least"));
            }
            levels.push(drivers);
        }
        levels.retain(|drivers| *drivers < self.drivers);
        levels.push(self.drivers);
        levels.sort_unstable();
        levels.dedup();
        let heartbeat_ns = self.heartbeat_seconds * 1_000_000_000;
        let natural = |&drivers: &u32| Scale {
            drivers,
            heartbeat_ns,
            heartbeats_of: None,
        };
        let mut scales: Vec<Scale> = levels.iter().map(natural).collect();
        if let [_, base, .., last] = levels[..] {
            let control = Scale {
                drivers: base,
                heartbeat_ns: heartbeat_ns * u64::from(base) / u64::from(last),
                heartbeats_of: Some(last),
            };
            if control.heartbeat_ns >= CONTROL_HEARTBEAT_NS_MIN {
                scales.insert(scales.len() - 1, control);
            }
        }
        Ok(scales)
    }

    /// How long offers are made at a level, s.
    pub fn offer_seconds(&self, drivers: u32) -> f64 {
        let minutes = match self.series_minutes {
            Some(minutes) if drivers < self.drivers => minutes,
            _ => self.minutes,
        };
        minutes * 60.0
    }

    /// Parts of the load of a level.
    pub fn parts_for(&self, drivers: u32) -> u32 {
        drivers.div_ceil(DRIVERS_PER_PART).max(self.load_threads)
    }

    /// `connections_max` of a level.
    pub fn connections_for(&self, drivers: u32) -> u64 {
        connections_for(drivers, self.shards)
    }

    /// Moves this thread into the network of the run and says which one that is.
    fn enter_network(&self) -> io::Result<Network> {
        if self.host_network {
            return Ok(Network::host());
        }
        Network::enter(2 * u64::from(self.drivers))
    }

    /// `drain_ms` of a level.
    pub fn drain_ms(&self, drivers: u32) -> u64 {
        u64::from(drivers / DRAIN_PER_MS).max(DRAIN_MS_MIN)
    }
}

/// What a run had around it.
#[derive(Debug)]
pub struct Surroundings {
    /// Cores of both ends together.
    pub cores: usize,
    /// The network that both ends are in.
    pub network: Network,
}

/// Runs all levels and reports: in the terminal, and as JSON and as a page with plots in the files that are named. A level
/// that cannot be run ends the series; what was measured before is reported.
///
/// # Errors
/// A level's, or a file of the report cannot be written.
pub fn run(context: &Context, options: &Options, files: Files<'_>) -> io::Result<ExitCode> {
    let surroundings = Surroundings {
        cores: context.cores().allowed,
        network: options.enter_network()?,
    };
    eprintln!("million: in {}", surroundings.network);
    let mut levels: Vec<Level> = Vec::new();
    let mut result = Ok(());
    for scale in options.levels()? {
        match level::run(context, options, scale) {
            Ok(level) => levels.push(level),
            Err(error) => {
                result = Err(io::Error::other(format!("{scale}: {error}")));
                break;
            }
        }
    }
    context.progress.finish();
    let verdicts = verdict::verdicts(&levels);
    show::print(&levels, &verdicts);
    files.write_with(&show::to_json(options, &surroundings, &levels, &verdicts), || {
        show::to_html(options, &surroundings, &levels, &verdicts)
    })?;
    result?;
    let good = verdicts.iter().all(|verdict| verdict.pass);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    pub(crate) fn parse(line: &str) -> Options {
        Line::parse_from(std::iter::once("million").chain(line.split_ascii_whitespace())).options
    }

    #[test]
    fn levels_are_in_order_and_end_with_the_largest() {
        let names = |line: &str| -> Vec<String> {
            let levels = parse(line).levels().unwrap();
            levels.iter().map(Scale::to_string).collect()
        };
        assert_eq!(names(""), ["1000000"]);
        assert_eq!(names("--series 10000"), ["10000", "1000000"]);
        // A heartbeat each 3 ms would be due before the last was answered.
        assert_eq!(names("--series 50,100"), ["50", "100", "1000000"]);
        assert_eq!(
            names("--drivers 300000 --series 30000,10000,300000,1000000"),
            ["10000", "30000", "30000 with the heartbeats of 300000", "300000"]
        );
        assert!(parse("--series many").levels().is_err());
        assert!(parse("--series 0").levels().is_err());
    }

    #[test]
    fn the_control_level_sends_as_many_heartbeats_as_the_largest() {
        let levels = parse("--series 10000,30000,100000").levels().unwrap();
        let per_second = |level: &Scale| u64::from(level.drivers) * 1_000_000_000 / level.heartbeat_ns;
        let [.., control, largest] = &levels[..] else {
            panic!("{levels:?}");
        };
        assert_eq!((control.drivers, control.heartbeats_of), (30_000, Some(1_000_000)));
        assert_eq!(per_second(control), per_second(largest));
        assert!(levels.iter().filter(|level| level.heartbeats_of.is_some()).count() == 1);
    }

    #[test]
    fn a_million_has_as_many_parts_as_the_limit_of_open_files_asks_for() {
        let options = parse("");
        assert_eq!((options.parts_for(100), options.parts_for(1_000_000)), (1, 63));
        assert_eq!(parse("--load-threads 7").parts_for(100), 7);
        assert_eq!(
            (options.connections_for(100), options.connections_for(1_000_000)),
            (2_154, 1 << 20)
        );
        assert_eq!(parse("--shards 2").connections_for(1_000_000), 532_048);
        assert_eq!((options.drain_ms(100), options.drain_ms(1_000_000)), (5_000, 50_000));
        let seconds = |line: &str| [10_000, 1_000_000].map(|drivers| parse(line).offer_seconds(drivers) as u32);
        assert_eq!(seconds("--minutes 3"), [180, 180]);
        assert_eq!(seconds("--series-minutes 2"), [120, 600]);
    }
}
