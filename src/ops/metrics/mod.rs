//! Metrics: a set per writing thread, summed when somebody asks.
//!
//! Owns the table of metrics ([`ShardMetrics`], [`StoreMetrics`]) and its text form. Must never carry an id in a label,
//! and costs a writer one load and one store on a line that no other thread writes.

mod instruments;
mod labels;
mod table;
mod text;

pub use instruments::{BUCKET_BOUNDS_US, Counter, Family, Gauge, Histogram};
pub use labels::{
    BadInput, CloseCause, ConnectionKind, Label, MessageIn, MessageOut, OfferEvent, RequestEnd, StatusClass,
};
pub use table::{Counters, Gauges, ShardMetrics, StoreMetrics};

use super::health::{Health, Readiness};
use super::process::ProcessStats;
use crossbeam::utils::CachePadded;
use text::Encoder;

/// All metrics of a node. Padded, so that no two writers share a cache line.
#[derive(Debug)]
pub struct Registry {
    shards: Box<[CachePadded<ShardMetrics>]>,
    store: CachePadded<StoreMetrics>,
}

impl Registry {
    /// Metrics of a node with `shards` shards, all 0.
    ///
    /// # Panics
    /// When `shards` is 0.
    pub fn new(shards: u16) -> Self {
        assert!(shards > 0);
        Self {
            shards: (0..shards).map(|_| CachePadded::default()).collect(),
            store: CachePadded::default(),
        }
    }

    /// The set of one shard; only that shard's thread may write it.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn shard(&self, shard: u16) -> &ShardMetrics {
        &self.shards[usize::from(shard)]
    }

    /// The set of the store; only its thread may write it.
    pub fn store(&self) -> &StoreMetrics {
        &self.store
    }

    /// The body of `GET /metrics`; its type is [`PROMETHEUS_TEXT`](crate::wire::respond::PROMETHEUS_TEXT).
    pub fn render(&self, health: &Health, process: Option<&ProcessStats>) -> String {
        let mut out = Encoder::default();
        out.family("dispatchd_build_info", "gauge", "1, with the version of the program.");
        out.sample(
            "dispatchd_build_info",
            concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""),
            1,
        );
        out.family("dispatchd_shards", "gauge", "Shards of this node.");
        out.sample("dispatchd_shards", "", self.shards.len() as u64);
        let now = health.readiness();
        out.family("dispatchd_readiness", "gauge", "1 for the state that the node is in.");
        for state in Readiness::ALL {
            let label = format!("state=\"{}\"", state.as_str());
            out.sample("dispatchd_readiness", &label, u64::from(state == now));
        }
        let shards: Vec<&ShardMetrics> = self.shards.iter().map(|set| &**set).collect();
        ShardMetrics::encode(&shards, &mut out);
        StoreMetrics::encode(&[self.store()], &mut out);
        if let Some(process) = process {
            encode_process(process, &mut out);
        }
        out.finish()
    }
}

/// The names that every Prometheus client library uses for these.
fn encode_process(process: &ProcessStats, out: &mut Encoder) {
    let name = "process_cpu_seconds_total";
    out.family(name, "counter", "Processor time used, user and system.");
    out.sample_us_as_seconds(name, process.cpu_us);
    let mut gauge = |name: &str, help: &str, value: u64| {
        out.family(name, "gauge", help);
        out.sample(name, "", value);
    };
    gauge(
        "process_resident_memory_bytes",
        "Resident memory.",
        process.resident_bytes,
    );
    gauge("process_virtual_memory_bytes", "Virtual memory.", process.virtual_bytes);
    gauge("process_threads", "Threads.", process.threads);
    gauge(
        "process_open_fds",
        "Open file descriptors; sockets are direct descriptors and not among them.",
        process.open_fds,
    );
    gauge(
        "process_max_fds",
        "Soft limit of open file descriptors.",
        process.max_fds,
    );
    gauge(
        "process_start_time_seconds",
        "When the process started, in Unix time.",
        process.started_at_s,
    );
}
