//! `dispatchd demo`: real trips, live drivers, a crash in the middle, an audited end.
#![forbid(unsafe_code)]

pub mod audit;
pub mod city;
pub mod messages;
pub mod observe;

use std::process::ExitCode;

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
    /// How many trips to replay; `None` is all that fit into the demo's time.
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

/// Runs the demo to its end and prints the table. Success: everything ended and no invariant was violated;
/// exit status 1 otherwise.
pub fn run(options: DemoOptions) -> ExitCode {
    drop(options);
    ExitCode::FAILURE
}
