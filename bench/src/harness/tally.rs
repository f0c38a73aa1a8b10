//! What a load process counts, and how it tells it: a line of JSON per tick.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::scenario::Scenario;
use crate::measure::Latencies;

/// Names of the latencies, as they appear in figures and charts.
pub const LATENCIES: [&str; 5] = [
    "post_to_202",
    "post_to_offer",
    "decline_to_offer",
    "accept_to_confirmed",
    "connect_to_welcome",
];

/// Index of a latency in [`LATENCIES`].
#[derive(Debug, Clone, Copy)]
pub enum Latency {
    /// POST → 202.
    Accepted,
    /// POST → first `OFFER`.
    Offer,
    /// `DECLINE` → `OFFER` at the next driver.
    NextOffer,
    /// `ACCEPT` → `CONFIRMED`.
    Confirmed,
    /// Connect → `WELCOME`, of reconnects.
    Welcome,
}

/// Things counted since the beginning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests posted, repeats not counted.
    pub posted: u64,
    /// Requests for which nobody was free, so that none was posted.
    pub nobody_free: u64,
    /// POSTs answered with 2xx.
    pub taken: u64,
    /// POSTs answered with 429 or 503.
    pub refused: u64,
    /// POSTs repeated, because they were refused or never answered.
    pub repeated: u64,
    /// Requests that were never taken before their deadline, so that their callers gave up.
    pub given_up: u64,
    /// `OFFER`s that came.
    pub offers: u64,
    /// `CONFIRMED`s that came.
    pub confirmed: u64,
    /// `DECLINED`s that came.
    pub declined: u64,
    /// `REVOKED`s that came.
    pub revoked: u64,
    /// Heartbeats sent.
    pub heartbeats: u64,
    /// Positions sent.
    pub locations: u64,
    /// Connections lost, on purpose and not.
    pub lost: u64,
    /// Connections closed by the server because it missed heartbeats; without faults there are none.
    pub heartbeat_lost: u64,
    /// Trips that ended.
    pub trips: u64,
}

impl Counts {
    /// The sum of two processes' counts.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            posted: self.posted + other.posted,
            nobody_free: self.nobody_free + other.nobody_free,
            taken: self.taken + other.taken,
            refused: self.refused + other.refused,
            repeated: self.repeated + other.repeated,
            given_up: self.given_up + other.given_up,
            offers: self.offers + other.offers,
            confirmed: self.confirmed + other.confirmed,
            declined: self.declined + other.declined,
            revoked: self.revoked + other.revoked,
            heartbeats: self.heartbeats + other.heartbeats,
            locations: self.locations + other.locations,
            lost: self.lost + other.lost,
            heartbeat_lost: self.heartbeat_lost + other.heartbeat_lost,
            trips: self.trips + other.trips,
        }
    }
}

/// Counts and latencies of a load process.
#[derive(Default)]
pub struct Tally {
    /// Counts.
    pub counts: Counts,
    latencies: [Latencies; LATENCIES.len()],
}

impl Tally {
    /// Records a latency.
    pub fn record(&mut self, latency: Latency, ns: u64) {
        self.latencies[latency as usize].record(ns);
    }

    /// Takes the latencies recorded since the last call, in the order of [`LATENCIES`].
    pub fn take_sparse(&mut self) -> Vec<Vec<(u64, u64)>> {
        std::mem::take(&mut self.latencies)
            .iter()
            .map(Latencies::sparse)
            .collect()
    }
}

/// What a load process is told on its standard input, as one line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// The scenario.
    pub scenario: Scenario,
    /// Where the node listens.
    pub address: std::net::SocketAddrV4,
    /// Which of the scenario's processes this is.
    pub process: u32,
    /// Added to the scenario's seed.
    pub round: u32,
}

/// What a load process says on its standard output, a line each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Report {
    /// All its drivers are connected; it waits for a line to begin.
    Ready {
        /// Time that connecting took, s.
        connect_s: f64,
    },
    /// A moment of the run.
    Tick {
        /// Since the beginning, s.
        at_s: f64,
        /// Drivers connected.
        connected: u32,
        /// Since the beginning.
        counts: Counts,
        /// Since the last tick: value in ns and how often, for each of [`LATENCIES`].
        latencies: Vec<Vec<(u64, u64)>>,
    },
    /// It is over.
    Done {
        /// What makes the run invalid: kind, how often, an example.
        faults: BTreeMap<String, (u64, String)>,
        /// Requests that were read back from the node after the run.
        audited: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_survive_the_way_between_processes() {
        let mut tally = Tally::default();
        for ms in 1..=50 {
            tally.record(Latency::Offer, ms * 1_000_000);
        }
        let sparse = tally.take_sparse();
        let mut merged = Latencies::new();
        merged.add_sparse(&sparse[Latency::Offer as usize]);
        assert_eq!(merged.count(), 50);
        assert!((merged.quantile_ms(0.5) - 25.0).abs() < 0.1);
        assert!(tally.take_sparse().iter().all(Vec::is_empty));
        assert!(sparse[Latency::Accepted as usize].is_empty());
    }
}
