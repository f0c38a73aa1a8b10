//! What makes a node one of a fleet: its settings, its place in the registry, its lease.

use super::{ServeError, identity};
use crate::cold::links::{LinkConfig, LinkTls, Links, TlsFiles};
use crate::cold::registry::{DriverRegistry, Identity, LeaseAtStart, Surroundings, Target};
use crate::config::Config;
use crate::journal::Incarnation;
use crate::limits::HEARTBEATS_MISSED_MAX;
use crate::ops::health::Health;
use crate::shard::{Clock, Shared};
use compact_str::{CompactString, format_compact};
use std::net::SocketAddr;
use std::sync::Arc;

/// A node that is to be one of a fleet.
pub(super) struct Membership {
    /// Where the registry is.
    target: Target,
    /// The name of this node's data directory in it.
    data: String,
    /// Where links of other nodes are listened for, if they are.
    link_listen: Option<SocketAddr>,
    /// What links are protected by, if they are.
    link_tls: Option<LinkTls>,
}

impl Membership {
    /// What the settings say; `None`: the node is alone.
    ///
    /// # Errors
    /// They cannot be right, or the data directory cannot be given its name.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, ServeError> {
        let refused = |cause: String| ServeError::new("cannot join the fleet", cause);
        check(config).map_err(refused)?;
        let Some(target) = Target::of(config).map_err(refused)? else {
            return Ok(None);
        };
        let link_listen = link_listen(config).map_err(refused)?;
        let link_tls = link_tls(config).map_err(refused)?;
        let data = identity::data_name(&config.data_dir)?;
        Ok(Some(Self {
            target,
            data,
            link_listen,
            link_tls,
        }))
    }

    /// Starts the links' thread, if there are links.
    ///
    /// # Errors
    /// Their address cannot be listened on, or the system has no thread for it.
    pub(super) fn start_links(
        &mut self,
        config: &Config,
        incarnation: Incarnation,
        shared: &Shared,
    ) -> Result<Option<Links>, ServeError> {
        let Some(listen) = self.link_listen else {
            return Ok(None);
        };
        let link_config = LinkConfig {
            listen,
            fleet: fleet_name(config),
            node_id: config.node_id.clone(),
            incarnation: incarnation.get(),
            shards: config.shard_count(),
        };
        let tls = self.link_tls.take();
        let has_tls = tls.is_some();
        let links = Links::start(link_config, tls.map(Arc::new), Arc::clone(&shared.registry));
        let links = links.map_err(|error| ServeError::new("cannot listen for links", format!("{listen}: {error}")))?;
        tracing::info!(address = %links.address(), tls = has_tls, "listening for links of other nodes");
        Ok(Some(links))
    }

    /// Starts the registry's thread; `listens` is where this node does.
    ///
    /// # Errors
    /// The system has no thread for it.
    #[expect(clippy::too_many_arguments, reason = "what the registry's thread sees of its node")]
    pub(super) fn start(
        self,
        config: &Config,
        links: Option<&Links>,
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
            link_address: links.map_or_else(Default::default, |links| link_address(config, links)),
        };
        let around = Surroundings {
            metrics: Arc::clone(&shared.registry),
            health: Arc::clone(health),
            now_ms: Box::new(move || clock.now_ms()),
            on_nodes: links.map(Links::watcher),
        };
        DriverRegistry::start(self.target, config, &identity, around)
            .map_err(|error| ServeError::new("cannot start the registry's thread", error))
    }
}

/// What settings of a fleet must be, alone and to each other: what `dispatchd config check` and every start look at.
///
/// # Errors
/// What they are not, without what is secret. The operator's side.
pub fn check(config: &Config) -> Result<(), String> {
    let has_registry = Target::of(config)?.is_some();
    let listens = link_listen(config)?;
    link_tls_files(config)?;
    if !has_registry {
        return match listens {
            None => Ok(()),
            Some(listen) => Err(format!(
                "fleet_link_listen is {listen} and fleet_redis_url is empty: nodes find each other's links in the registry, and \
                 without it there are none"
            )),
        };
    }
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

/// What nodes of one fleet have in common: the names under which they keep their data.
fn fleet_name(config: &Config) -> CompactString {
    let keyspace = match config.fleet_cassandra_contact_points.as_str() {
        "" => "",
        _ => config.fleet_cassandra_keyspace.as_str(),
    };
    format_compact!("{}|{keyspace}", config.fleet_redis_prefix)
}

/// Where links are listened for; says what is wrong with the settings.
fn link_listen(config: &Config) -> Result<Option<SocketAddr>, String> {
    let (text, told) = (&config.fleet_link_listen, &config.fleet_link_advertise);
    if text.is_empty() {
        return match told.as_str() {
            "" => Ok(None),
            told => Err(format!(
                "fleet_link_advertise is {told} and fleet_link_listen is empty: there are no links"
            )),
        };
    }
    let listen: SocketAddr = text
        .parse()
        .map_err(|_| format!("fleet_link_listen is {text}: IP:port is needed, such as 10.0.0.1:7400"))?;
    if told.is_empty() && listen.ip().is_unspecified() {
        return Err(format!(
            "fleet_link_advertise is empty and fleet_link_listen is {listen}: other nodes cannot reach that"
        ));
    }
    let is_endpoint = |told: &str| {
        (told.rsplit_once(':')).is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
    };
    if !told.is_empty() && !is_endpoint(told) {
        return Err(format!("fleet_link_advertise is {told}: host:port is needed"));
    }
    Ok(Some(listen))
}

/// What links are protected by; says what is wrong with the settings or the files.
fn link_tls(config: &Config) -> Result<Option<LinkTls>, String> {
    let Some(files) = link_tls_files(config)? else {
        return Ok(None);
    };
    let tls = LinkTls::load(files, &config.node_id);
    tls.map(Some).map_err(|error| format!("fleet_link_tls: {error}"))
}

/// The files that are to protect links; says what is wrong with the settings.
fn link_tls_files(config: &Config) -> Result<Option<TlsFiles>, String> {
    let settings = [
        ("fleet_link_tls_ca_file", &config.fleet_link_tls_ca_file),
        ("fleet_link_tls_cert_file", &config.fleet_link_tls_cert_file),
        ("fleet_link_tls_key_file", &config.fleet_link_tls_key_file),
    ];
    let is_empty = |(_, file): &&(&str, &CompactString)| file.is_empty();
    match (
        settings.iter().find(is_empty),
        settings.iter().find(|setting| !is_empty(setting)),
    ) {
        (_, None) => return Ok(None),
        (Some((missing, _)), Some((given, _))) => {
            return Err(format!("{given} is given and {missing} is not: TLS needs all three"));
        }
        (None, Some((given, _))) if config.fleet_link_listen.is_empty() => {
            return Err(format!(
                "{given} is given and fleet_link_listen is empty: there are no links"
            ));
        }
        (None, Some(_)) => {}
    }
    let [authorities, certificate, key] = settings.map(|(_, file)| file.as_str().into());
    Ok(Some(TlsFiles {
        authorities,
        certificate,
        key,
    }))
}

/// Where other nodes reach these links.
fn link_address(config: &Config, links: &Links) -> CompactString {
    match config.fleet_link_advertise.as_str() {
        "" => links.address().to_string().into(),
        told => told.into(),
    }
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
