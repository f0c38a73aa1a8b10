//! Latencies and counts that many threads keep and one adds up.
#![forbid(unsafe_code)]

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest latency that is told apart, µs (two minutes); longer ones count as this.
const LATENCY_US_MAX: u64 = 120_000_000;
/// Significant digits: 1% is far below what differs between runs, and every thread has its own histograms.
const DIGITS: u8 = 2;

/// A histogram of latencies in µs.
#[derive(Clone)]
pub struct Latency(Histogram<u32>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("constant bounds are valid"))
    }
}

impl Latency {
    /// Adds a latency in ns.
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record((ns / 1_000).max(1));
    }

    /// Adds everything that another histogram holds.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency in ms that this share (0.0–1.0) does not exceed; not a number when nothing was recorded.
    pub fn quantile_ms(&self, quantile: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }

    /// Count and percentiles.
    pub fn to_json(&self) -> Value {
        json!({
            "count": self.count(),
            "p50_ms": self.quantile_ms(0.5),
            "p90_ms": self.quantile_ms(0.9),
            "p99_ms": self.quantile_ms(0.99),
            "p999_ms": self.quantile_ms(0.999),
            "max_ms": self.quantile_ms(1.0),
        })
    }
}

/// What is measured, each from the intended time of its cause to the arrival of its effect.
#[derive(Clone, Default)]
pub struct Timings {
    /// POST → 202.
    pub accepted: Latency,
    /// POST → `OFFER` on the first driver's socket.
    pub offered: Latency,
    /// `DECLINE` → `OFFER` on the next driver's socket.
    pub reoffered: Latency,
    /// `ACCEPT` → `CONFIRMED`.
    pub confirmed: Latency,
    /// POST → both sides have heard everything, the drivers' own time included.
    pub whole: Latency,
    /// `PING` → `PONG` while offers are made.
    pub heartbeat: Latency,
    /// `PING` → `PONG` in all other stages: connects, quiet, the drain, the storm and after it.
    pub heartbeat_rush: Latency,
    /// By how much the load generator itself was late with heartbeats.
    pub late: Latency,
}

impl Timings {
    /// Every kind by its name.
    pub fn all(&self) -> [(&'static str, &Latency); 8] {
        [
            ("post_to_202", &self.accepted),
            ("post_to_offer", &self.offered),
            ("decline_to_offer", &self.reoffered),
            ("accept_to_confirmed", &self.confirmed),
            ("post_to_end", &self.whole),
            ("ping_to_pong", &self.heartbeat),
            ("ping_to_pong_rush", &self.heartbeat_rush),
            ("load_generator_late", &self.late),
        ]
    }

    /// Adds everything that another thread has recorded.
    pub fn add(&mut self, other: &Self) {
        self.accepted.add(&other.accepted);
        self.offered.add(&other.offered);
        self.reoffered.add(&other.reoffered);
        self.confirmed.add(&other.confirmed);
        self.whole.add(&other.whole);
        self.heartbeat.add(&other.heartbeat);
        self.heartbeat_rush.add(&other.heartbeat_rush);
        self.late.add(&other.late);
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Requests posted.
    pub posted: u64,
    /// Requests whose trip was confirmed to its driver.
    pub confirmed: u64,
    /// Declines that were answered.
    pub declined: u64,
    /// Offers that ended by time.
    pub timed_out: u64,
    /// Trips that were completed.
    pub trips: u64,
    /// Requests not posted in time because no driver was free.
    pub starved: u64,
}

impl Counts {
    /// Adds what another thread has counted.
    pub fn add(&mut self, other: &Self) {
        self.posted += other.posted;
        self.confirmed += other.confirmed;
        self.declined += other.declined;
        self.timed_out += other.timed_out;
        self.trips += other.trips;
        self.starved += other.starved;
    }
}
