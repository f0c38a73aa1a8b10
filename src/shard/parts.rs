//! What a shard is made of, what it shares with the others, and what it takes over from an earlier incarnation.
#![forbid(unsafe_code)]

use super::Mail;
use super::platform::Platform;
use crate::cold::handle::StoreHandle;
use crate::cold::links::LinksHandle;
use crate::cold::registry::RegistryHandle;
use crate::cold::{ClaimsHandle, StoreHealth};
use crate::config::Config;
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::request::{Request, ToDriver};
use crate::journal::Writer;
use crate::ops::health::Health;
use crate::ops::metrics::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// What all shards of a node share: nothing that an offer waits for.
pub struct Shared {
    /// Whether the node takes work.
    pub health: Arc<Health>,
    /// What is measured.
    pub registry: Arc<Registry>,
    /// All shards are to end now.
    pub stop: AtomicBool,
    /// Shards that have sent their drivers away.
    pub(super) away: AtomicUsize,
    /// Shards that have nothing left to do of their own.
    pub(super) done: AtomicUsize,
}

impl Shared {
    /// Of a node that begins.
    pub const fn new(health: Arc<Health>, registry: Arc<Registry>) -> Self {
        Self {
            health,
            registry,
            stop: AtomicBool::new(false),
            away: AtomicUsize::new(0),
            done: AtomicUsize::new(0),
        }
    }
}

/// What a shard is made of; see [`Shard::new`](super::Shard::new).
pub struct Parts<P: Platform> {
    /// Which shard, from 0.
    pub index: u16,
    /// How many there are.
    pub shards: u16,
    /// Boot of the node.
    pub incarnation: u64,
    /// The node's settings.
    pub config: Arc<Config>,
    /// See [`Shared`].
    pub shared: Arc<Shared>,
    /// The node's clock.
    pub clock: P::Time,
    /// This shard's end of the post.
    pub mail: Mail,
    /// Its ring.
    pub ring: P::Ring,
    /// Its way to the store, which wakes the ring.
    pub store: StoreHandle,
    /// How the store is.
    pub store_health: Arc<StoreHealth>,
    /// Its new journal.
    pub writer: Writer,
    /// That journal's files.
    pub files: P::Files,
    /// Its way to the fleet's registry, which wakes the ring; none without a fleet.
    pub registry: Option<RegistryHandle>,
    /// Its way to the fleet's other nodes, which wakes the ring; none without links. Only with a registry.
    pub links: Option<LinksHandle>,
    /// Its way to who owns requests, which wakes the ring; none without a store that nodes share.
    pub claims: Option<ClaimsHandle>,
}

/// What recovery found for a shard.
#[derive(Default)]
pub struct Inheritance {
    /// Requests at home there that are not over.
    pub requests: Vec<Request>,
    /// What its drivers have to be told of requests, in this order, before anybody is served.
    pub bindings: Vec<(DriverId, RequestId, ToDriver)>,
    /// Drivers off shift on purpose, and since when.
    pub off_shift: Vec<(DriverId, u64)>,
}
