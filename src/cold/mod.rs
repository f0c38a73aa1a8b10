//! Everything that blocks, on threads of its own behind bounded queues.
//!
//! A shard hands over what its journal has committed and asks what it no longer holds in memory. It sees only the
//! messages of [`port`] and a [`StoreHandle`]; which store is behind them is no concern of the shard. [`embedded`] is
//! the default: fjall, in the node's own data directory. In a fleet `cassandra` gets what the embedded store has and answers
//! what this node does not know, [`registry`] says in Redis where each driver is, and [`links`] carry what nodes say to each other.
//!
//! Must never: know of sockets or of the journal's files, or make a shard wait.
#![forbid(unsafe_code)]

pub mod archive;
#[cfg(feature = "fleet")]
pub mod cassandra;
pub mod claims;
pub mod embedded;
pub mod ended_ids;
pub mod handle;
pub mod links;
pub mod owner;
pub mod port;
pub mod registry;

#[cfg(feature = "fleet")]
pub use cassandra::{Cassandra, CassandraConfig};
pub use claims::{Claims, ClaimsHandle};
pub use embedded::{FleetLink, Store, StoreConfig, StoreHealth, Surroundings};
pub use ended_ids::EndedIds;
pub use handle::{Full, StoreHandle, Waker};
pub use port::{
    Answer, Commit, DriverRecord, EndedRequest, EventsPage, FarRequest, Fault, FromStore, Query, RecordsPage, Source,
    StoreError,
};
