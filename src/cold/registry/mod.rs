//! The fleet's registry in Redis: where each driver is, and which nodes are alive.
//!
//! One thread with a runtime of its own (`redis/writer.rs`) holds the connection. Shards give it what changed ([`port`]), in
//! lines of which each says all that the registry is to know of one driver; what a shard has not given yet waits in the
//! shard, once per driver. So nothing here grows with time, and what is lost with a connection is written again from
//! what the shards know.
//!
//! Keys, each behind the setting `fleet_redis_prefix`:
//! - `driver:{id}`, a hash: `node`, `session`, `state`, `current_trip_id`, `location` (JSON), `last_seen` (Unix
//!   milliseconds), and with an offer or a trip `request` and the node that has it, `owner`. It ends by itself
//!   `fleet_redis_driver_ttl_ms` after its last refresh; with an offer or a trip it is kept as long as that may last.
//! - `node:{node_id}`, a hash: a node's lease, see `redis/lease.rs`.
//! - `nodes`, a sorted set: every node that lived within a day, by its last sign of life.
//! - `moved:{node_id}`, a list: drivers that other nodes took from this one.
//!
//! A driver is where its socket is. Each connect is a compare-and-set: the session becomes greater than any before it and
//! the driver belongs to this node. Every later write carries that session and is refused when another node has taken
//! the driver since; the shard then closes its socket as displaced. Nothing that is promised to anybody rests on this:
//! while Redis is away, drivers are served all the same.
//!
//! Must never: make a shard wait, or hold more than the bounds in [`port`].
#![forbid(unsafe_code)]

pub mod assign;
pub mod port;
#[cfg(feature = "fleet")]
mod redis;

#[cfg(feature = "fleet")]
pub use self::redis::{DriverRegistry, Identity, LeaseAtStart, Surroundings, Target, status};
pub use assign::{NodeList, NodeSeen};
pub use port::{AtHand, Claim, Found, FromRegistry, Here, Line, Lookup, OnNodes, Previous, RegistryHandle, What};
