//! What makes a node one of a fleet: its settings, its place in the registry, its lease.

use super::{ServeError, identity};
use crate::cold::registry::{DriverRegistry, Identity, LeaseAtStart, Surroundings, Target};
use crate::config::Config;
use crate::journal::Incarnation;
use crate::limits::HEARTBEATS_MISSED_MAX;
use crate::ops::health::Health;
use crate::shard::{Clock, Shared};
use std::net::SocketAddr;
use std::sync::Arc;

/// A node that is to be one of a fleet.
pub(super) struct Membership {
    /// Where the registry is.
    target: Target,
    /// The name of this node's data directory in it.
    data: String,
}

impl Membership {
    /// What the settings say; `None`: the node is alone.
    ///
    /// # Errors
    /// They cannot be right, or the data directory cannot be given its name.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, ServeError> {
        let refused = |cause: String| ServeError::new("cannot join the fleet", cause);
        let Some(target) = Target::of(config).map_err(refused)? else {
            return Ok(None);
        };
        check(config).map_err(refused)?;
        let data = identity::data_name(&config.data_dir)?;
        Ok(Some(Self { target, data }))
    }

    /// Starts the registry's thread; `listens` is where this node does.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn start(
        self,
        config: &Config,
        listens: SocketAddr,
        incarnation: Incarnation,
        clock: Clock,
        health: &Arc<Health>,
        shared: &Shared,
    ) -> Result<DriverRegistry, ServeError> {
        let address = match config.fleet_address.as_str() {
            "" => listens.to_string().into(),
            _ => config.fleet_address.clone(),
        };
        let identity = Identity {
            node_id: config.node_id.clone(),
            incarnation: incarnation.get(),
            data: self.data,
            address,
        };
        let around = Surroundings {
            metrics: Arc::clone(&shared.registry),
            health: Arc::clone(health),
            now_ms: Box::new(move || clock.now_ms()),
        };
        DriverRegistry::start(self.target, config, &identity, around)
            .map_err(|error| ServeError::new("cannot start the registry's thread", error))
    }
}

/// What settings of a fleet must be to each other; says what they are not.
fn check(config: &Config) -> Result<(), String> {
    if config.fleet_address.is_empty() && config.listen.ip().is_unspecified() {
        return Err(format!(
            "fleet_address is empty and listen is {}: other nodes cannot reach that",
            config.listen
        ));
    }
    let silence_ms = HEARTBEATS_MISSED_MAX * config.heartbeat_ms;
    if config.fleet_redis_driver_ttl_ms < silence_ms {
        return Err(format!(
            "fleet_redis_driver_ttl_ms is {}: a driver may be silent for {silence_ms} ms ({HEARTBEATS_MISSED_MAX} × heartbeat_ms)",
            config.fleet_redis_driver_ttl_ms
        ));
    }
    Ok(())
}

/// Waits for this node's lease: nobody is served under a name that another process has.
///
/// # Errors
/// Another process has it.
pub(super) fn hold_lease(registry: &DriverRegistry, config: &Config) -> Result<(), ServeError> {
    match registry.await_lease() {
        LeaseAtStart::Held => Ok(()),
        LeaseAtStart::Unknown => {
            tracing::warn!("the registry in Redis does not answer: serving without it until it does");
            Ok(())
        }
        LeaseAtStart::Refused { address, incarnation } => Err(ServeError::new(
            format!("cannot join the fleet as node_id {}", config.node_id),
            format!(
                "another process is alive under this name (address {address}, incarnation {incarnation}); give this one another node_id and data directory"
            ),
        )),
    }
}
