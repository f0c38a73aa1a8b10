//! `dispatchd demo`: real trips, live drivers, a crash in the middle, an audited end.
//!
//! One process plays everybody but the node: the drivers ([`drivers`], one socket each), the matching engine ([`engine`]),
//! and the auditor ([`audit`]), who judges the contract's seven invariants from what the others saw ([`observe`]). The node
//! is a child process ([`node`]) with a data directory of its own, killed with SIGKILL half-way and started again.
//! Must never: use the node's own codecs or types, or outlast its bounds; the child never outlives the demo.
#![forbid(unsafe_code)]
// `say!` goes on when the reader has gone.
#![deny(clippy::print_stdout)]

pub mod api;
pub mod audit;
pub mod board;
pub mod city;
pub mod classes;
pub mod crash;
pub mod drivers;
pub mod engine;
pub mod latency;
pub mod messages;
pub mod node;
pub mod observe;
pub mod progress;
pub mod readback;
pub mod report;
pub mod socket;
mod stage;

use std::ops::RangeInclusive;
use std::process::ExitCode;

/// How fast everybody plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tempo {
    /// What a driver has for an answer, in ms: shorter than the node's default, so that ignored offers do not outlast the play.
    pub offer_timeout_ms: u64,
    /// What a search has, in ms.
    pub deadline_ms: u64,
    /// Longest wait for a busy driver, in ms, of the requests that wait.
    pub busy_wait_ms: u64,
    /// How many times faster than in the demo drivers think, drive and come back; at least 1.
    pub haste: u32,
    /// A driver who has heard nothing for so long, in ms, gives its socket up; it sends heartbeats twice as often, and no
    /// less often than the node asks for.
    pub silence_ms_max: u64,
}

impl Tempo {
    /// The demo's.
    pub const DEMO: Self = Self {
        offer_timeout_ms: 1500,
        deadline_ms: 20_000,
        busy_wait_ms: 2000,
        haste: 1,
        silence_ms_max: 30_000,
    };
    /// For a node that lives a second: whole trips happen between two crashes.
    pub const CRASH: Self = Self {
        offer_timeout_ms: 400,
        deadline_ms: 8000,
        busy_wait_ms: 400,
        haste: 10,
        silence_ms_max: 30_000,
    };
}

/// What `dispatchd demo` was asked for.
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// Drivers that connect, 10–20,000 (as far as the open-files limit reaches).
    pub drivers: u32,
    /// Trips replayed per second, 0.1–2,000.
    pub rate: f64,
    /// Shards of the node; 0 is the node's own default, one per core.
    pub shards: u16,
    /// Leave the node and its drivers running at the end, until Ctrl-C.
    pub keep: bool,
    /// Decides every choice of the drivers and of the matching engine (not the timing of the machine).
    pub seed: u64,
    /// How many trips to replay, 1–6,433; `None` is all that fit into the demo's time.
    pub trips: Option<u32>,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            drivers: 2000,
            rate: 100.0,
            shards: 0,
            keep: false,
            seed: 20_190_301,
            trips: None,
        }
    }
}

/// Longest replay, in seconds, when the number of trips is not given.
const REPLAY_S: f64 = 66.0;
/// Fewest and most trips a second.
pub const RATE: RangeInclusive<f64> = 0.1..=2000.0;
/// Fewest and most drivers.
pub const DRIVERS: RangeInclusive<u32> = 10..=20_000;
/// Fewest and most trips: so many are recorded.
pub const TRIPS: RangeInclusive<u32> = 1..=6433;

impl DemoOptions {
    /// # Errors
    /// What is out of range, and the range.
    fn check(&self) -> Result<(), String> {
        if !DRIVERS.contains(&self.drivers) {
            let (least, most) = (DRIVERS.start(), DRIVERS.end());
            return Err(format!("--drivers is {}, allowed is {least} to {most}", self.drivers));
        }
        if !RATE.contains(&self.rate) {
            let (least, most) = (RATE.start(), RATE.end());
            return Err(format!("--rate is {}, allowed is {least} to {most}", self.rate));
        }
        if let Some(trips) = self.trips.filter(|trips| !TRIPS.contains(trips)) {
            let (least, most) = (TRIPS.start(), TRIPS.end());
            return Err(format!(
                "--trips is {trips}, allowed is {least} to {most}: so many are recorded"
            ));
        }
        Ok(())
    }

    /// How many of `recorded` rides are replayed.
    fn ride_count(&self, recorded: usize) -> usize {
        let fits = (self.rate * REPLAY_S).max(1.0) as usize;
        self.trips.map_or(fits, |trips| trips as usize).min(recorded)
    }
}

/// Every how many-th ride is taken, so that `count` of `recorded` cover the whole record.
fn sample(recorded: usize, count: usize) -> Vec<usize> {
    debug_assert!(count <= recorded);
    (0..count).map(|place| place * recorded / count).collect()
}

/// Runs the demo to its end and prints the table. Success: everything ended and no invariant was violated;
/// exit status 1 otherwise, 2 for options out of range, 128 and the signal's number when it was interrupted.
pub fn run(options: DemoOptions) -> ExitCode {
    if let Err(error) = options.check() {
        eprintln!("{error}");
        return ExitCode::from(2);
    }
    node::kill_child_on_panic();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(stage::play(options)),
        Err(error) => {
            eprintln!("cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rides_are_sampled_over_the_whole_record() {
        assert_eq!(sample(10, 5), [0, 2, 4, 6, 8]);
        assert_eq!(sample(3, 3), [0, 1, 2]);
        let options = DemoOptions::default();
        assert_eq!(options.ride_count(6433), 6433);
        let slow = DemoOptions { rate: 10.0, ..options };
        assert_eq!(slow.ride_count(6433), 660);
        assert_eq!(city::City::load().unwrap().rides.len(), *TRIPS.end() as usize);
        let few = DemoOptions { trips: Some(7), ..slow };
        assert_eq!(few.ride_count(6433), 7);
    }

    #[test]
    fn options_out_of_range_are_named() {
        let check = |options: DemoOptions, expect: Option<&str>| {
            let error = options.check().err();
            assert_eq!(
                error.as_ref().and_then(|text| text.split(' ').next()),
                expect,
                "{error:?}"
            );
        };
        let fine = DemoOptions::default;
        check(fine(), None);
        check(DemoOptions { drivers: 9, ..fine() }, Some("--drivers"));
        check(
            DemoOptions {
                rate: f64::NAN,
                ..fine()
            },
            Some("--rate"),
        );
        for (trips, expect) in [(0, Some("--trips")), (1, None), (6433, None), (6434, Some("--trips"))] {
            let trips = Some(trips);
            check(DemoOptions { trips, ..fine() }, expect);
        }
    }
}
