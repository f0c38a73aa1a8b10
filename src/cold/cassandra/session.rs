//! A session with Cassandra, and what is prepared in it.

use super::CassandraConfig;
use super::beats::BeatStatements;
use super::claim_statements::ClaimStatements;
use super::schema;
use super::statements::Statements;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::statement::{Consistency, SerialConsistency};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

/// For a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a connection that says nothing is asked whether it lives, and how long it has to say so. The driver's defaults
/// (30 s each) leave a node that hangs in use for a minute.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// For whoever cannot connect. What the driver says of somebody who speaks TLS is that a frame ended early.
const LOOK_AT: &str = "is it running there, is that its port for CQL (9042 unless changed), and does that take connections without \
    TLS? There is no TLS to Cassandra yet; where it is says fleet_cassandra_contact_points=HOST:PORT[,HOST:PORT…]";

/// What no id of a request is, and Cassandra takes as a key.
const NO_ID: &str = "/";

/// Why something could not be done with Cassandra: what, and the driver's words.
#[derive(Clone, Debug)]
pub struct CassandraError(String);

impl CassandraError {
    /// `what` could not be done, because of `cause`.
    pub fn new(what: impl Display, cause: impl Display) -> Self {
        Self(format!("{what}: {cause}"))
    }

    /// What an operator has to do.
    pub fn plain(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl Display for CassandraError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CassandraError {}

/// Connects. Statements may take `timeout`.
///
/// # Errors
/// No contact point answers, or none lets this user in; or the cluster has no such datacenter. Says what to look at.
pub(super) async fn connect(config: &CassandraConfig, timeout: Duration) -> Result<Session, CassandraError> {
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = &config.datacenter {
        policy = policy.prefer_datacenter(datacenter.clone());
    }
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(timeout))
        .load_balancing_policy(policy.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&config.contact_points)
        .default_execution_profile_handle(profile.into_handle())
        .keyspaces_to_fetch([config.keyspace.clone()])
        .connection_timeout(CONNECT_TIMEOUT)
        .keepalive_interval(KEEPALIVE)
        .keepalive_timeout(KEEPALIVE);
    if let Some((user, password)) = &config.login {
        builder = builder.user(user, password);
    }
    let session = builder.build().await.map_err(|error| {
        let points = config.contact_points.join(", ");
        CassandraError::plain(format!("cannot connect to Cassandra at {points}: {error}\n{LOOK_AT}"))
    })?;
    check_datacenter(&session, config)?;
    Ok(session)
}

/// Of one that does not exist nobody would be asked.
fn check_datacenter(session: &Session, config: &CassandraConfig) -> Result<(), CassandraError> {
    let Some(wanted) = &config.datacenter else {
        return Ok(());
    };
    let found = datacenters(session);
    if found.contains_key(wanted) {
        return Ok(());
    }
    let known: Vec<&str> = found.keys().map(String::as_str).collect();
    Err(CassandraError::plain(format!(
        "fleet_cassandra_datacenter is {wanted}, and the cluster has no such datacenter; it has: {}",
        known.join(", ")
    )))
}

/// Names of the cluster's datacenters, and nodes of each.
pub(super) fn datacenters(session: &Session) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for node in session.get_cluster_state().get_nodes_info() {
        *found.entry(node.datacenter.clone().unwrap_or_default()).or_default() += 1;
    }
    found
}

/// A session whose tables are there.
pub(super) struct Ready {
    pub(super) config: CassandraConfig,
    pub(super) session: Session,
    pub(super) statements: Statements,
    pub(super) claims: ClaimStatements,
    pub(super) beats: BeatStatements,
}

impl Ready {
    /// Connects, checks the schema's version and prepares everything.
    ///
    /// # Errors
    /// Cassandra cannot be reached, or the schema is missing or too old.
    pub(super) async fn open(config: &CassandraConfig) -> Result<Self, CassandraError> {
        let session = connect(config, config.timeout).await?;
        schema::require(&session, config).await?;
        let statements = Statements::prepare(&session, &config.keyspace).await?;
        let claims = ClaimStatements::prepare(&session, &config.keyspace).await?;
        let beats = BeatStatements::prepare(&session, &config.keyspace).await?;
        Ok(Self {
            config: config.clone(),
            session,
            statements,
            claims,
            beats,
        })
    }

    /// Whether a quorum answers, of one partition: reads what is not there.
    ///
    /// # Errors
    /// It does not.
    pub(super) async fn probe(&self) -> Result<(), CassandraError> {
        let asked = self.session.execute_unpaged(&self.statements.select_request, (NO_ID,));
        asked
            .await
            .map(drop)
            .map_err(|error| CassandraError::new("cannot read", error))
    }
}
