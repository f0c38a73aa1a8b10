//! The connection: one server, the master that Sentinels name, or a cluster. Says nothing of a URL in an error: it may hold
//! a password.

use crate::config::{Config, RedisMode};
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo,
    Pipeline, RedisError, RedisResult,
};
use std::time::Duration;

/// How often a cluster's client tries a call before it gives up.
const CLUSTER_RETRIES: u32 = 3;

/// What is expected of a URL.
const URL_ALLOWED: &str = "redis://[user:password@]host:port[/db], such as redis://10.0.0.9:6379";

/// Where Redis is, from settings that were looked at.
#[derive(Clone, Debug)]
pub struct Target {
    mode: RedisMode,
    urls: Vec<ConnectionInfo>,
    sentinel_master: String,
    timeout: Duration,
}

impl Target {
    /// From the settings; `None` when there is no fleet.
    ///
    /// # Errors
    /// What is wrong with `fleet_redis_url`, without citing it. The operator's side.
    pub fn of(config: &Config) -> Result<Option<Self>, String> {
        if config.fleet_redis_url.is_empty() {
            return Ok(None);
        }
        let mut urls = Vec::new();
        for (index, url) in config.fleet_redis_url.split(',').enumerate() {
            let refused = |why: &str| format!("fleet_redis_url: URL {} of it {why}; allowed: {URL_ALLOWED}", index + 1);
            if url.starts_with("rediss:") {
                return Err(refused("asks for TLS, which there is not yet"));
            }
            let info = url.into_connection_info().map_err(|_| refused("is no URL of Redis"))?;
            if !matches!(info.addr(), ConnectionAddr::Tcp(..)) {
                return Err(refused("is not redis://"));
            }
            urls.push(info);
        }
        if config.fleet_redis_mode == RedisMode::Standalone && urls.len() > 1 {
            return Err("fleet_redis_url: has several URLs, and fleet_redis_mode is standalone".to_owned());
        }
        Ok(Some(Self {
            mode: config.fleet_redis_mode,
            urls,
            sentinel_master: config.fleet_redis_sentinel_master.to_string(),
            timeout: Duration::from_millis(config.fleet_redis_timeout_ms),
        }))
    }

    /// The addresses of the settings, without names and passwords.
    pub(super) fn addresses(&self) -> String {
        let addresses: Vec<String> = self.urls.iter().map(|url| url.addr().to_string()).collect();
        addresses.join(", ")
    }

    /// Whether keys of different slots cannot share a pipeline.
    pub(super) fn is_cluster(&self) -> bool {
        self.mode == RedisMode::Cluster
    }

    /// Time for a connection and for each answer.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects.
    pub(super) async fn connect(&self) -> RedisResult<Link> {
        match self.mode {
            RedisMode::Standalone => self.connect_to(self.urls[0].clone()).await,
            RedisMode::Sentinel => {
                let master = self.find_master().await?;
                self.connect_to(master).await
            }
            RedisMode::Cluster => {
                let client = ClusterClientBuilder::new(self.urls.clone())
                    .connection_timeout(self.timeout)
                    .response_timeout(self.timeout)
                    .retries(CLUSTER_RETRIES)
                    .build()?;
                client.get_async_connection().await.map(Link::Cluster)
            }
        }
    }

    async fn connect_to(&self, info: ConnectionInfo) -> RedisResult<Link> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let client = Client::open(info)?;
        let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(Link::One(connection))
    }

    /// Asks the Sentinels, in their order, who the master is, and makes sure that it believes so too. It is reached with
    /// the user, password and database of the first URL.
    async fn find_master(&self) -> RedisResult<ConnectionInfo> {
        let mut last = RedisError::from((ErrorKind::Client, "no Sentinel is configured"));
        for sentinel in &self.urls {
            match self.ask_sentinel(sentinel.clone()).await {
                Ok(master) => return Ok(master),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask_sentinel(&self, sentinel: ConnectionInfo) -> RedisResult<ConnectionInfo> {
        // A Sentinel has no databases and, as a rule, no users: those of the URL are the master's.
        let plain = sentinel
            .clone()
            .set_redis_settings(redis::RedisConnectionInfo::default());
        let link = self.connect_to(plain).await?;
        let named = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(&self.sentinel_master)
            .to_owned();
        let Some((host, port)) = link.query::<Option<(String, u16)>>(&named).await? else {
            return Err(RedisError::from((
                ErrorKind::Client,
                "the Sentinel knows no master of that name",
            )));
        };
        let master = self.urls[0].clone().set_addr(ConnectionAddr::Tcp(host, port));
        let link = self.connect_to(master.clone()).await?;
        let role: Vec<redis::Value> = link.query(&redis::cmd("ROLE")).await?;
        let role: String = role.first().map_or(Ok(String::new()), redis::from_redis_value_ref)?;
        if role != "master" {
            return Err(RedisError::from((
                ErrorKind::Client,
                "the Sentinel's master is none: a failover is under way",
            )));
        }
        Ok(master)
    }
}

/// A connection, shared by whoever has a clone.
#[derive(Clone)]
pub(super) enum Link {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    pub(super) async fn query<T: FromRedisValue>(&self, cmd: &Cmd) -> RedisResult<T> {
        match self {
            Self::One(connection) => cmd.query_async(&mut connection.clone()).await,
            Self::Cluster(connection) => cmd.query_async(&mut connection.clone()).await,
        }
    }

    /// All commands are of one slot.
    pub(super) async fn pipe<T: FromRedisValue>(&self, pipe: &Pipeline) -> RedisResult<T> {
        match self {
            Self::One(connection) => pipe.query_async(&mut connection.clone()).await,
            Self::Cluster(connection) => pipe.query_async(&mut connection.clone()).await,
        }
    }
}

/// An error without what Redis or the library cite.
pub(super) fn describe(error: &RedisError) -> String {
    let code = error.code().unwrap_or_default();
    match (error.is_timeout(), code) {
        (true, _) => "no answer in time".to_owned(),
        (false, "") if error.is_connection_refusal() => "connection refused".to_owned(),
        (false, "") if is_of_another(error) => format!(
            "{}: is that a Redis, and does it take connections without TLS? There is no TLS to Redis yet",
            error.category()
        ),
        (false, "") => error.category().to_owned(),
        (false, code) => format!("{} ({code})", error.category()),
    }
}

/// Whether somebody answered who may speak something else, such as TLS: with what is no answer, or by ending the connection.
fn is_of_another(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Parse || error.is_connection_dropped()
}

/// Whether Redis refused a call for what stands under its key, and is well otherwise. Before version 7 an error inside a script is
/// told in the text of another one.
pub(super) fn is_of_key(error: &RedisError) -> bool {
    const WRONG_TYPE: &str = "WRONGTYPE";
    let errors = error.clone().into_server_errors().unwrap_or_default();
    let is_wrong_type = |error: &redis::ServerError| {
        error.code() == WRONG_TYPE || error.details().is_some_and(|details| details.contains(WRONG_TYPE))
    };
    !errors.is_empty() && errors.iter().all(|(_, error)| is_wrong_type(error))
}
