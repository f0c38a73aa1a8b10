//! The table of settings. A line here is a field of [`Config`], a key of the file, an environment variable,
//! a row of `config show` and a row of the README.

use super::value::{Field, Kind, Preset, Value};
use crate::limits::{self, net, wire};
use compact_str::CompactString;
use std::net::SocketAddr;
use std::path::PathBuf;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Key in the file and in `--set`; upper case after `DISPATCHD_` in the environment.
    pub name: &'static str,
    /// Unit of the value; empty for texts and switches.
    pub unit: &'static str,
    /// What is allowed.
    pub kind: Kind,
    /// The value when no source gives one.
    pub preset: Preset,
    /// What it does, in one or two sentences.
    pub doc: &'static str,
}

macro_rules! settings {
    ($($name:ident: $type:ty, $unit:literal, $kind:expr, $preset:expr, $doc:literal;)+) => {
        /// Every setting, in the order of the documents.
        pub static SETTINGS: &[Setting] = &[
            $(Setting { name: stringify!($name), unit: $unit, kind: $kind, preset: $preset, doc: $doc }),+
        ];

        /// The checked settings of one node. Every field is inside the range that [`SETTINGS`] gives for it.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $(#[doc = $doc] pub $name: $type,)+
        }

        impl Config {
            /// `values` are in the order of [`SETTINGS`] and were checked against it.
            pub(super) fn from_values(values: &[Value]) -> Self {
                assert_eq!(values.len(), SETTINGS.len());
                let mut values = values.iter();
                Self { $($name: <$type as Field>::from_value(values.next().expect("as many values as settings")),)+ }
            }
        }
    };
}

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 86_400_000;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const fn within(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max }
}

const SEGMENTS: Kind = Kind::Multiple {
    min: limits::JOURNAL_SEGMENT_BYTES_MIN as u64,
    max: limits::JOURNAL_SEGMENT_BYTES_MAX as u64,
    of: limits::JOURNAL_BLOCK_BYTES as u64,
};

settings! {
    data_dir: PathBuf, "", Kind::Path, Preset::Text("dispatchd-data"),
        "Directory of the journal and the embedded store; made when missing, used by one process at a time.";
    listen: SocketAddr, "", Kind::Address, Preset::Text("127.0.0.1:8080"),
        "Address of HTTP and WebSocket; port 0 takes a free one.";
    node_id: CompactString, "", Kind::Id, Preset::HostName,
        "Name of this node in audit events and records; a data directory keeps the one it was begun with.";
    shards: u16, "shards", within(0, limits::SHARDS_MAX as u64), Preset::Text("0"),
        "Threads that own drivers, requests and sockets; 0 is one per core.";
    pin_shards: bool, "", Kind::Switch, Preset::Text("true"),
        "Bind each shard's thread to a core (shards beyond the cores share them).";

    offer_timeout_ms: u32, "ms", within(1, wire::OFFER_TIMEOUT_MS_MAX as u64), Preset::Text("8000"),
        "Time a driver has to answer an offer, when the request gives none.";
    deadline_ms: u32, "ms", within(1, wire::DEADLINE_MS_MAX as u64), Preset::Text("120000"),
        "Time for the whole search, when the request gives none.";
    heartbeat_ms: u64, "ms", within(10, 60 * MINUTE_MS), Preset::Text("30000"),
        "Interval at which drivers send a heartbeat; none for twice as long closes the socket (4004).";
    driver_ttl_ms: u64, "ms", within(0, DAY_MS), Preset::Text("60000"),
        "How long a driver keeps its state after its socket is lost, and may be offered.";
    off_shift_memory_ms: u64, "ms", within(0, 7 * DAY_MS), Preset::Text("43200000"),
        "How long a driver who went off shift on purpose stays so across reconnects.";
    drain_ms: u64, "ms", within(0, 10 * MINUTE_MS), Preset::Text("10000"),
        "Time over which drivers are closed (1012) after SIGTERM.";

    records_retention_days: u32, "days", within(1, 3650), Preset::Text("30"),
        "How long dispatch records and audits of ended requests are kept.";
    idempotency_retention_days: u32, "days", within(7, 3650), Preset::Text("7"),
        "How long an ended request's id is remembered, so that a repeat starts nothing.";
    events_retention_ms: u64, "ms", within(1000, 366 * DAY_MS), Preset::Text("604800000"),
        "How long an event is kept for consumers that have not acknowledged it.";
    events_bytes_max: u64, "bytes", within(MIB, 1 << 50), Preset::Text("4294967296"),
        "Size of the kept events beyond which the oldest go, acknowledged or not.";
    disk_reserve_bytes: u64, "bytes", within(0, 1 << 50), Preset::Text("536870912"),
        "Free disk space below which the store writes nothing and the node takes no new requests.";
    store_cache_bytes: u64, "bytes", within(MIB, 1 << 40), Preset::Text("67108864"),
        "Memory that the store keeps of what it read; room for about 2 bytes per remembered id keeps new ids off the disk.";

    handshake_timeout_ms: u64, "ms", within(10, 10 * MINUTE_MS), Preset::Text("10000"),
        "Time from accept to a complete WebSocket handshake.";
    head_timeout_ms: u64, "ms", within(10, 10 * MINUTE_MS), Preset::Text("10000"),
        "Time for an HTTP head, from its first byte.";
    body_timeout_ms: u64, "ms", within(10, 10 * MINUTE_MS), Preset::Text("30000"),
        "Time for an HTTP body, from the end of its head.";
    http_idle_timeout_ms: u64, "ms", within(10, 60 * MINUTE_MS), Preset::Text("75000"),
        "How long an HTTP connection may stay open between requests.";
    http_pipeline_max: u32, "requests", within(1, limits::HTTP_PIPELINE_MAX as u64), Preset::Text("64"),
        "Unanswered requests on one HTTP connection beyond which reading pauses.";
    output_queue_bytes_max: u64, "bytes", within(limits::OUTPUT_QUEUE_BYTES_MIN as u64, 64 * MIB), Preset::Text("262144"),
        "Output waiting for one socket beyond which a driver is a slow consumer (4008) and an HTTP connection is not read.";
    output_stall_ms: u64, "ms", within(10, 10 * MINUTE_MS), Preset::Text("10000"),
        "How long a socket may take no byte of waiting output before it is closed.";
    handshakes_pending_max: u32, "connections", within(1, 1 << 20), Preset::Text("4096"),
        "Connections of a shard that have not finished their first head; beyond it the oldest is cut.";
    connections_max: u32, "connections", within(0, net::FIXED_FILES_MAX as u64), Preset::Text("0"),
        "Connections of a shard; 0 is what the open-files limit allows in one ring, 131072 at most. More of them take more rings.";

    ingress_queue_max: u32, "requests", within(1, 1 << 20), Preset::Text("8192"),
        "Dispatch requests that wait in a shard; beyond it the lowest class gets 429.";
    ingress_age_step_ms: u64, "ms", within(1, 10 * MINUTE_MS), Preset::Text("2000"),
        "Wait after which a queued request counts as one class higher.";
    journal_backlog_bytes_max: u64, "bytes", within(MIB, 16 * GIB), Preset::Text("67108864"),
        "Bytes of a shard's journal that wait for the disk, beyond which new requests get 429.";
    journal_segment_bytes: u64, "bytes", SEGMENTS,
        Preset::Text("16777216"),
        "Size of a journal segment, allocated at once.";
    recv_buffers: u16, "buffers", Kind::PowerOfTwo { min: 16, max: net::RECV_BUFFERS_MAX as u64 },
        Preset::Text("1024"),
        "Receive buffers that the sockets of a shard share.";
    recv_buffer_bytes: u32, "bytes", within(net::RECV_BUFFER_BYTES_MIN as u64, net::RECV_BUFFER_BYTES_MAX as u64), Preset::Text("4096"),
        "Size of one receive buffer.";

    fleet_address: CompactString, "", Kind::Words, Preset::Text(""),
        "Where other nodes and drivers' apps reach this node, as host:port; empty: the address that it listens on.";
    fleet_redis_url: CompactString, "", Kind::Words, Preset::Text(""),
        "Redis of the fleet's registry, redis://[user:password@]host:port[/db]; with commas between several of a cluster, or several Sentinels. Empty: no fleet.";
    fleet_redis_mode: RedisMode, "", Kind::OneOf(RedisMode::NAMES), Preset::Text("standalone"),
        "What kind of Redis the URLs are of.";
    fleet_redis_sentinel_master: CompactString, "", Kind::Id, Preset::Text("mymaster"),
        "The name under which the Sentinels know the master.";
    fleet_redis_prefix: CompactString, "", Kind::Words, Preset::Text(""),
        "What all keys begin with, so that several fleets can share one Redis; the same on every node of a fleet.";
    fleet_redis_timeout_ms: u64, "ms", within(10, MINUTE_MS), Preset::Text("500"),
        "Time for a connection to Redis and for each answer of it; a driver that connects waits no longer for its session.";
    fleet_redis_driver_ttl_ms: u64, "ms", within(1000, DAY_MS), Preset::Text("60000"),
        "How long a driver's entry outlives its last refresh; a driver that is heard is refreshed every quarter of it.";
    fleet_redis_lease_ms: u64, "ms", within(300, 10 * MINUTE_MS), Preset::Text("3000"),
        "How long a node counts as alive after its last sign of life; renewed every third of it.";
    fleet_link_listen: CompactString, "", Kind::Words, Preset::Text(""),
        "Address, as IP:port, on which this node listens for links of the fleet's other nodes; empty: no links, and a driver is offered only what is posted to its own node.";
    fleet_link_advertise: CompactString, "", Kind::Words, Preset::Text(""),
        "Where other nodes reach that, as host:port; empty: the address that it listens on.";
    fleet_link_tls_ca_file: CompactString, "", Kind::Line, Preset::Text(""),
        "Certificates (PEM) of the authorities that sign those of the fleet's nodes; nothing: links are plain TCP.";
    fleet_link_tls_cert_file: CompactString, "", Kind::Line, Preset::Text(""),
        "This node's certificate (PEM, with those between it and an authority), which names the node as DNS; read again when it has changed.";
    fleet_link_tls_key_file: CompactString, "", Kind::Line, Preset::Text(""),
        "Its private key (PEM).";
    fleet_cassandra_contact_points: CompactString, "", Kind::Endpoints, Preset::Text(""),
        "Nodes of Cassandra or Scylla from which the others are found; nothing: dispatch records stay in the embedded store alone.";
    fleet_cassandra_keyspace: CompactString, "", Kind::Keyspace, Preset::Text("dispatchd"),
        "Keyspace of the fleet's tables; made by `dispatchd schema apply`.";
    fleet_cassandra_datacenter: CompactString, "", Kind::Line, Preset::Text(""),
        "Datacenter whose nodes are asked; nothing: all, for a cluster with one.";
    fleet_cassandra_user: CompactString, "", Kind::Line, Preset::Text(""),
        "User name for Cassandra; nothing: no authentication.";
    fleet_cassandra_password_file: CompactString, "", Kind::Line, Preset::Text(""),
        "File whose first line is that user's password.";
    fleet_cassandra_timeout_ms: u64, "ms", within(10, MINUTE_MS), Preset::Text("1000"),
        "Time for one read or write of Cassandra, repeats by the driver included; a write is then tried again, a read is answered 503.";
    fleet_cassandra_writes_max: u32, "batches", within(1, 4096), Preset::Text("64"),
        "Batches that are on their way to Cassandra at once.";
    fleet_cassandra_backlog_bytes_max: u64, "bytes", within(MIB, 1 << 50), Preset::Text("1073741824"),
        "Size of what waits for Cassandra in the embedded store, beyond which no new requests are taken.";

    log_level: LogLevel, "", Kind::OneOf(LogLevel::NAMES), Preset::Text("info"),
        "Least severe lines that are logged.";
    log_format: LogFormat, "", Kind::OneOf(LogFormat::NAMES), Preset::Text("text"),
        "Shape of log lines on stderr.";
    log_repeat_per_s: u32, "lines/s", within(0, 1_000_000), Preset::Text("5"),
        "Lines that peers can cause, per shard and kind; the rest are counted and summed up in one line.";
}

macro_rules! choice {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$variant_doc])* $variant),+
        }

        impl $type {
            /// The names that a setting takes.
            pub const NAMES: &[&str] = &[$($name),+];

            /// The name of this choice.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl Field for $type {
            fn from_value(value: &Value) -> Self {
                match value.text() {
                    $($name => Self::$variant,)+
                    other => unreachable!("checked against the names: {other}"),
                }
            }
        }
    };
}

choice!(
    /// How much is logged.
    LogLevel {
        /// What needs a person.
        Error = "error",
        /// What may need one.
        Warn = "warn",
        /// The life of the node.
        Info = "info",
        /// The life of connections.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }
);

choice!(
    /// What a Redis is made of.
    RedisMode {
        /// One server.
        Standalone = "standalone",
        /// A master and replicas that Sentinels watch.
        Sentinel = "sentinel",
        /// Redis Cluster.
        Cluster = "cluster",
    }
);

choice!(
    /// Shape of a log line.
    LogFormat {
        /// For people.
        Text = "text",
        /// One object a line.
        Json = "json",
    }
);

impl Default for Config {
    /// The defaults of the table.
    fn default() -> Self {
        let values: Vec<Value> = SETTINGS.iter().map(Setting::default_value).collect();
        Self::from_values(&values)
    }
}

impl Config {
    /// Whether this node shares something with others: a registry of drivers and nodes, or who owns requests.
    pub fn is_in_fleet(&self) -> bool {
        !self.fleet_redis_url.is_empty() || !self.fleet_cassandra_contact_points.is_empty()
    }

    /// Number of shards to start, 1–1024: the setting, or one per core that this process may run on.
    pub fn shard_count(&self) -> u16 {
        if self.shards > 0 {
            return self.shards;
        }
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        cores.clamp(1, limits::SHARDS_MAX) as u16
    }

    /// Connections that one shard may hold, at least 1: the setting, or as many as one ring may.
    pub fn connections_per_shard(&self, open_files: u64) -> u32 {
        match self.connections_max {
            0 => slots_of_a_ring(open_files),
            connections => connections,
        }
    }

    /// Connections in each of a shard's rings, which are as many as it needs.
    pub fn connections_per_ring(&self, open_files: u64) -> u32 {
        self.connections_per_shard(open_files).min(slots_of_a_ring(open_files))
    }
}

/// What `open_files` (the soft `RLIMIT_NOFILE`) leaves for a ring's table of direct descriptors. The kernel bounds that
/// table per ring, not per process. [`limits::RING_CONNECTIONS_MAX`] at most.
fn slots_of_a_ring(open_files: u64) -> u32 {
    let allowed = open_files.saturating_sub(limits::DESCRIPTORS_RESERVED);
    allowed.clamp(1, u64::from(limits::RING_CONNECTIONS_MAX)) as u32
}
