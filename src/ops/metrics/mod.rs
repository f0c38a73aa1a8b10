//! Metrics: a set per writing thread, summed when somebody asks.
//!
//! Owns the table of metrics ([`ShardMetrics`], [`StoreMetrics`], [`CassandraMetrics`]) and its text form. Must never carry an id in a label,
//! and costs a writer one load and one store on a line that no other thread writes.
#![forbid(unsafe_code)]

mod instruments;
mod labels;
mod table;
mod text;

pub use instruments::{BUCKET_BOUNDS_US, Counter, Family, Gauge, Histogram};
pub use labels::{
    BadInput, CloseCause, ConnectionKind, Label, LwtKind, MemoryKind, MessageIn, MessageOut, OfferEvent, RequestEnd,
    StatusClass,
};
pub use table::{CassandraMetrics, Counters, Gauges, LinksMetrics, RegistryMetrics, ShardMetrics, StoreMetrics};

use super::health::{Health, Readiness};
use super::process::ProcessStats;
use crossbeam::utils::CachePadded;
use std::sync::Arc;
use text::Encoder;

/// All metrics of a node. Padded, so that no two writers share a cache line.
#[derive(Debug)]
pub struct Registry {
    shards: Box<[CachePadded<ShardMetrics>]>,
    store: Arc<StoreMetrics>,
    registry: CachePadded<RegistryMetrics>,
    links: CachePadded<LinksMetrics>,
    cassandra: Arc<CassandraMetrics>,
}

/// What a node says of itself to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Drivers with a socket.
    pub drivers_connected: u64,
    /// Requests that have not ended.
    pub requests_open: u64,
    /// Drivers whose entry in the fleet's registry waits to be written.
    pub registry_backlog: u64,
}

impl Registry {
    /// Metrics of a node with `shards` shards, all 0, and of its store, which owns its own.
    ///
    /// # Panics
    /// When `shards` is 0.
    pub fn new(shards: u16, store: Arc<StoreMetrics>) -> Self {
        assert!(shards > 0);
        Self {
            shards: (0..shards).map(|_| CachePadded::default()).collect(),
            store,
            registry: CachePadded::default(),
            links: CachePadded::default(),
            cassandra: Arc::default(),
        }
    }

    /// The set of the fleet's registry; only its thread may write it.
    pub fn registry(&self) -> &RegistryMetrics {
        &self.registry
    }

    /// The set of the links between nodes; only their thread may write it.
    pub fn links(&self) -> &LinksMetrics {
        &self.links
    }

    /// Sums over all shards.
    pub fn totals(&self) -> Totals {
        let sum = |of: fn(&ShardMetrics) -> &Gauge| self.shards.iter().map(|shard| of(shard).get()).sum();
        Totals {
            drivers_connected: sum(|shard| shard.connections.of(ConnectionKind::Driver)),
            requests_open: sum(|shard| &shard.requests_open),
            registry_backlog: sum(|shard| &shard.registry_backlog),
        }
    }

    /// The set of one shard; only that shard's thread may write it.
    ///
    /// # Panics
    /// When there is no such shard.
    pub fn shard(&self, shard: u16) -> &ShardMetrics {
        &self.shards[usize::from(shard)]
    }

    /// The set of the thread that speaks with Cassandra.
    pub fn cassandra(&self) -> Arc<CassandraMetrics> {
        Arc::clone(&self.cassandra)
    }

    /// Turns of all shards: while it grows, some shard lives.
    pub fn turns(&self) -> u64 {
        self.shards.iter().map(|shard| shard.turns.get()).sum()
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
        StoreMetrics::encode(&[&*self.store], &mut out);
        RegistryMetrics::encode(&[&*self.registry], &mut out);
        LinksMetrics::encode(&[&*self.links], &mut out);
        CassandraMetrics::encode(&[&*self.cassandra], &mut out);
        if let Some(bytes) = super::heap::allocated_bytes() {
            let name = "dispatchd_allocated_bytes";
            out.family(
                name,
                "gauge",
                "Memory that the allocator has handed out, its headers included.",
            );
            out.sample(name, "", bytes);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::types::{DriverState, Priority};
    use crate::ops::health::Phase;
    use prometheus_parse::{Sample, Scrape, Value};
    use std::collections::BTreeSet;

    const PROCESS: ProcessStats = ProcessStats {
        cpu_us: 1_500_000,
        resident_bytes: 4096,
        virtual_bytes: 8192,
        threads: 3,
        open_fds: 10,
        max_fds: 20_000,
        started_at_s: 1_772_755_200,
    };

    fn scrape(text: &str) -> Scrape {
        Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
    }

    /// The sample of `name` whose labels hold `label`, as a number.
    fn number(scrape: &Scrape, name: &str, label: Option<(&str, &str)>) -> f64 {
        let fits = |sample: &&Sample| {
            sample.metric == name && label.is_none_or(|(key, value)| sample.labels.get(key) == Some(value))
        };
        let samples: Vec<&Sample> = scrape.samples.iter().filter(fits).collect();
        assert_eq!(samples.len(), 1, "{name} {label:?}");
        match samples[0].value {
            Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
            Value::Histogram(_) | Value::Summary(_) => panic!("{name} is no number"),
        }
    }

    #[test]
    fn shards_are_summed_and_read_by_another_library() {
        let (store, health) = (Arc::<StoreMetrics>::default(), Health::new());
        let registry = Registry::new(3, Arc::clone(&store));
        health.advance(Phase::Recovering);
        for shard in 0..3 {
            let metrics = registry.shard(shard);
            metrics.offers.of(OfferEvent::Sent).add(10);
            metrics.drivers.of(DriverState::Available).set(u64::from(shard));
            metrics.ingress_shed.of(Priority::Economy).inc();
            metrics.offer_latency.record_us(100 * (u64::from(shard) + 1));
        }
        registry.shard(1).offer_latency.record_us(60_000_000);
        store.commits.inc();
        let scrape = scrape(&registry.render(&health, Some(&PROCESS)));
        let check = |name: &str, label: Option<(&str, &str)>, expect: f64| {
            assert!((number(&scrape, name, label) - expect).abs() < 1e-9, "{name} {label:?}");
        };
        check("dispatchd_offers_total", Some(("event", "sent")), 30.0);
        check("dispatchd_offers_total", Some(("event", "accepted")), 0.0);
        check("dispatchd_drivers", Some(("state", "available")), 3.0);
        check("dispatchd_ingress_shed_total", Some(("priority", "economy")), 3.0);
        check("dispatchd_store_commits_total", None, 1.0);
        check("dispatchd_readiness", Some(("state", "recovering")), 1.0);
        check("dispatchd_readiness", Some(("state", "ready")), 0.0);
        check("dispatchd_shards", None, 3.0);
        check("process_cpu_seconds_total", None, 1.5);
        check("process_resident_memory_bytes", None, 4096.0);
        check("dispatchd_offer_latency_seconds_count", None, 4.0);
        check("dispatchd_offer_latency_seconds_sum", None, 60.0006);
        let latency = scrape
            .samples
            .iter()
            .find(|sample| sample.metric == "dispatchd_offer_latency_seconds")
            .unwrap();
        let Value::Histogram(buckets) = &latency.value else {
            panic!("{latency:?}")
        };
        assert_eq!(buckets.len(), BUCKET_BOUNDS_US.len() + 1);
        let cumulated: Vec<f64> = buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!(cumulated[..4], [1.0, 2.0, 3.0, 3.0], "bounds are inclusive");
        assert!(cumulated.is_sorted() && cumulated.last() == Some(&4.0));
    }

    /// What promtool would say of the text.
    #[test]
    fn names_types_and_labels_follow_the_rules() {
        let text = Registry::new(1, Arc::default()).render(&Health::new(), Some(&PROCESS));
        assert!(text.ends_with('\n') && text.is_ascii());
        let mut families = BTreeSet::new();
        let mut lines = text.lines().peekable();
        while let Some(help) = lines.next() {
            let (name, help) = help
                .strip_prefix("# HELP ")
                .and_then(|rest| rest.split_once(' '))
                .unwrap();
            assert!(help.ends_with('.'), "{name}: {help}");
            let kind = lines
                .next()
                .and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")))
                .unwrap();
            assert!(families.insert(name), "{name} is there twice");
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            assert!(
                !name.contains("_ms") && !name.contains("_us"),
                "{name}: base units are seconds and bytes"
            );
            let mut samples = 0;
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                samples += 1;
                let (series, value) = sample.rsplit_once(' ').unwrap();
                assert!(series.starts_with(name) && value.parse::<f64>().is_ok(), "{sample}");
                assert!(!series.contains("_id="), "{sample}: no ids");
            }
            assert!(samples > 0, "{name}");
        }
        assert!(families.len() > 50);
        assert_eq!(scrape(&text).docs.len(), families.len());
    }

    #[test]
    fn a_gauge_goes_up_and_down() {
        let gauge = Gauge::default();
        gauge.inc();
        gauge.add(4);
        gauge.dec();
        gauge.sub(2);
        assert_eq!(gauge.get(), 2);
        gauge.set(9);
        assert_eq!(gauge.get(), 9);
    }
}
