//! Everything that a seed decides about the world, as data: drawn once, run as often as wanted, and shrunk by taking
//! parts away. The clients are not in here; they are given to the world beside the plan.

use dispatchd::config::Config;

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of the world's own random numbers (delays, cuts, order of what happens at once). Streams from 1,000,000 on are the
    /// world's; others are free for actors.
    pub seed: u64,
    /// The node's settings; `shards` is 1–8. Paths, addresses and log settings mean nothing here.
    pub config: Config,
    /// Longest group commit in bytes: a multiple of 4096 up to `COMMIT_BYTES_MAX`. Segments may be as short as this and a page.
    pub commit_bytes_max: usize,
    /// Places of the rings between shards, a power of two.
    pub mail_ring_len: usize,
    /// The node's Unix time at its first start, microseconds.
    pub wall_us: u64,
    /// How connections behave.
    pub network: Network,
    /// How long things take that are no network.
    pub pace: Pace,
    /// Faults and when each begins, in simulated microseconds, in any order.
    pub faults: Vec<(u64, Fault)>,
    /// When faults are over: what lasts ends, and the node is brought up. Later entries of `faults` are ignored.
    pub faults_over_us: u64,
    /// When the run ends.
    pub end_us: u64,
    /// Several nodes and what they share; `None`: one node, alone.
    pub fleet: Option<FleetPlan>,
}

impl Plan {
    /// How many nodes there are.
    pub fn nodes(&self) -> u8 {
        self.fleet.as_ref().map_or(1, |fleet| fleet.nodes)
    }

    /// The settings of a node.
    pub fn config_of(&self, node: u8) -> Config {
        let mut config = self.config.clone();
        if self.fleet.is_some() {
            config.node_id = node_name(node).into();
        }
        config
    }
}

/// The largest fleet.
pub const NODES_MAX: u8 = 4;

/// The name of a node of a fleet.
pub fn node_name(node: u8) -> String {
    format!("gw-{node}")
}

/// Several nodes, and how fast what they share is. Ranges are from..=to, one way, microseconds.
#[derive(Clone, Debug)]
pub struct FleetPlan {
    /// 2 to 4.
    pub nodes: u8,
    /// To the tables that all share, and back.
    pub tables_us: (u64, u64),
    /// Of a thousand calls on them, how many get no answer in time, applied or not.
    pub tables_lost_permille: u32,
    /// To the registry, and back.
    pub registry_us: (u64, u64),
    /// From a node to another.
    pub links_us: (u64, u64),
}

/// How connections behave, always. Ranges are from..=to.
#[derive(Clone, Debug)]
pub struct Network {
    /// One-way delay of a piece of bytes, microseconds. Pieces of one direction of one connection never overtake.
    pub delay_us: (u64, u64),
    /// Longest piece of bytes: what is sent is cut into pieces of 1 to this many bytes.
    pub piece_bytes_max: u64,
    /// Of a thousand pieces, how many are held for `hold_us` (a lost packet sent again).
    pub hold_permille: u32,
    /// See `hold_permille`.
    pub hold_us: (u64, u64),
    /// Of a thousand connections, how many are reset after a number of bytes (both directions counted).
    pub reset_permille: u32,
    /// After how many bytes.
    pub reset_bytes: (u64, u64),
    /// Bytes of the node's output that a connection's buffers take before the client has read them.
    pub window_bytes: u64,
}

/// How long things take, microseconds, from..=to.
#[derive(Clone, Debug)]
pub struct Pace {
    /// A shard's turn.
    pub turn_us: (u64, u64),
    /// Waking a shard that sleeps.
    pub wake_us: (u64, u64),
    /// A journal write, from submission to durable.
    pub write_us: (u64, u64),
    /// Making or removing a segment.
    pub segment_us: (u64, u64),
    /// A round of the store, from taking commits to having them durable.
    pub store_round_us: (u64, u64),
    /// A lookup in the store.
    pub store_lookup_us: (u64, u64),
    /// A step of the node's start.
    pub start_step_us: (u64, u64),
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` after `after_steps` further steps of anything in the node (turns, store actions, start steps).
    Kill {
        /// Steps before it.
        after_steps: u32,
        /// How long until it is started again.
        down_us: u64,
        /// What the machine's clock does meanwhile beside going on, microseconds; may be negative.
        clock_jump_us: i64,
    },
    /// The machine loses power: as a kill, and writes that are not durable are lost, torn by sectors or kept.
    PowerLoss {
        /// Steps before it.
        after_steps: u32,
        /// How long until it is started again.
        down_us: u64,
        /// See [`Fault::Kill`].
        clock_jump_us: i64,
    },
    /// Power loss, and meanwhile a bit flips in a journal segment, where confirmed data are: the start must be refused,
    /// and once the bit is restored nothing may be missing.
    BitRot {
        /// How long until it is started again.
        down_us: u64,
        /// How long after the refusal the bit is restored and the start tried again.
        restored_us: u64,
    },
    /// The next journal write fails (`EIO`); it is stored, or not, or in part.
    WriteError {
        /// How long after the node's end it is started again.
        down_us: u64,
    },
    /// The next journal write stores a part of its bytes and says so; the node must end.
    ShortWrite {
        /// How long after the node's end it is started again.
        down_us: u64,
    },
    /// The store's disk fails for good; the node must end.
    StoreError {
        /// How long after the node's end it is started again.
        down_us: u64,
    },
    /// No segment can be made.
    DiskFull {
        /// How long.
        for_us: u64,
    },
    /// Writes take this much longer.
    SlowDisk {
        /// How long.
        for_us: u64,
        /// Added to each write, microseconds.
        write_us: u64,
    },
    /// The store takes this much longer for everything.
    SlowStore {
        /// How long.
        for_us: u64,
        /// Added to each action, microseconds.
        action_us: u64,
    },
    /// The store's queues are full: it takes no commits of any shard.
    StoreFull {
        /// How long.
        for_us: u64,
    },
    /// A shard gets no CPU.
    ShardStall {
        /// Which, modulo the number of shards.
        shard: u16,
        /// How long.
        for_us: u64,
    },
    /// Resets this many of a thousand connections at once.
    Resets {
        /// Of a thousand.
        permille: u32,
    },
    /// Pieces of bytes are delayed by this much more, in both directions.
    SlowNetwork {
        /// How long.
        for_us: u64,
        /// Added to each piece's delay, microseconds.
        delay_us: u64,
    },
    /// SIGTERM; started again after it ended.
    Drain {
        /// How long after its end it is started again.
        down_us: u64,
    },
    /// The whole process gets no CPU, and then goes on as if nothing had been.
    Pause {
        /// How long.
        for_us: u64,
    },
    /// What the nodes of a fleet share cannot be reached: see [`Shared`].
    Away {
        /// What.
        what: Shared,
        /// By all nodes, or by one.
        by_all: bool,
        /// How long.
        for_us: u64,
    },
    /// What the nodes of a fleet share is slow.
    Slow {
        /// What.
        what: Shared,
        /// How long.
        for_us: u64,
        /// Added to each way, microseconds.
        added_us: u64,
    },
    /// Many calls on the tables get no answer in time, applied or not.
    LostAnswers {
        /// How long.
        for_us: u64,
        /// Of a thousand.
        permille: u32,
    },
    /// The registry loses all that it has.
    RegistryEmptied,
    /// Connections of a node's links are cut; they are made again.
    LinksCut,
}

/// What the nodes of a fleet share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// The tables of Cassandra.
    Tables,
    /// The registry in Redis.
    Registry,
    /// The links between nodes. Only what this node sends, or (`by_all`) also what it is sent.
    Links,
}
