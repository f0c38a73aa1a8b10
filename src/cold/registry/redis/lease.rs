//! Nodes: this one's lease, and who else is alive.
//!
//! `node:{node_id}` holds `boot` (a name of this process that no other has), `data` (of its data directory),
//! `incarnation`, `address`, `link_address`, `started_at_ms`, `is_serving`, `is_ready`, `is_draining`, `drivers`, `requests_open`, `backlog` (drivers whose entry
//! waits to be written) and `lag_ms` (how long the last of them had waited). It ends by itself `fleet_redis_lease_ms` after
//! it was renewed. Nothing that is promised rests on it: it says whom to count on, and keeps two processes from using
//! one name.

use super::client::Link;
use super::scripts::Scripts;
use crate::cold::registry::assign::{NodeList, NodeSeen};
use crate::fsm::types::UnixMs;
use crate::ops::health::Readiness;
use compact_str::CompactString;
use futures_util::future::try_join_all;
use redis::RedisResult;
use std::collections::HashMap;

/// How long a node that is gone is listed.
pub(super) const NODE_MEMORY_MS: u64 = 86_400_000;
/// Drivers taken from one node of which it is told at once, and how many may wait for it.
pub(super) const MOVED_MAX: usize = 100_000;
/// How many of them a node takes with one call.
const MOVED_PAGE: usize = 1_000;
/// How long they wait: whoever is away for longer has lost its lease and its sockets.
pub(super) const MOVED_TTL_MS: u64 = 60_000;

/// Names of keys.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: CompactString,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into() }
    }

    pub(super) fn driver(&self, id: &str) -> String {
        format!("{}driver:{id}", self.prefix)
    }

    pub(super) fn node(&self, id: &str) -> String {
        format!("{}node:{id}", self.prefix)
    }

    pub(super) fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    pub(super) fn moved(&self, id: &str) -> String {
        format!("{}moved:{id}", self.prefix)
    }
}

/// What a node says of itself.
#[derive(Clone, Debug)]
pub(super) struct Sign {
    pub(super) node_id: CompactString,
    pub(super) boot: String,
    pub(super) data: String,
    pub(super) incarnation: u64,
    pub(super) address: CompactString,
    pub(super) link_address: CompactString,
    pub(super) started_at_ms: UnixMs,
    pub(super) readiness: Readiness,
    pub(super) drivers: u64,
    pub(super) requests_open: u64,
    pub(super) backlog: u64,
    pub(super) lag_ms: u64,
}

/// Another process that goes by this node's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) address: String,
    pub(super) incarnation: String,
    /// When its lease ends, if it is not renewed.
    pub(super) left_ms: u64,
}

/// What became of a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Renewed {
    /// It stands.
    Yes,
    /// It stands, and stood no longer: this node was late, or Redis has lost what it had.
    Anew,
    /// It is another's.
    No(Holder),
}

/// Takes or renews this node's lease.
pub(super) async fn renew(
    link: &Link,
    scripts: &Scripts,
    keys: &Keys,
    sign: &Sign,
    lease_ms: u64,
) -> RedisResult<Renewed> {
    let mut cmd = Scripts::call(&scripts.lease, &keys.node(&sign.node_id));
    cmd.arg(lease_ms)
        .arg("boot")
        .arg(&sign.boot)
        .arg("data")
        .arg(&sign.data);
    cmd.arg("incarnation").arg(sign.incarnation);
    cmd.arg("address").arg(sign.address.as_str());
    cmd.arg("link_address").arg(sign.link_address.as_str());
    cmd.arg("started_at_ms").arg(sign.started_at_ms);
    let is_ready = sign.readiness == Readiness::Ready;
    let is_serving = is_ready || sign.readiness == Readiness::NotDurable;
    cmd.arg("is_serving").arg(u8::from(is_serving));
    cmd.arg("is_ready").arg(u8::from(is_ready));
    cmd.arg("is_draining")
        .arg(u8::from(sign.readiness == Readiness::Draining));
    cmd.arg("drivers").arg(sign.drivers);
    cmd.arg("requests_open").arg(sign.requests_open);
    cmd.arg("backlog").arg(sign.backlog);
    cmd.arg("lag_ms").arg(sign.lag_ms);
    let answer: Vec<String> = link.query(&cmd).await?;
    Ok(match answer.as_slice() {
        [code, address, incarnation, left_ms] if code == "0" => Renewed::No(Holder {
            address: address.clone(),
            incarnation: incarnation.clone(),
            left_ms: left_ms.parse().unwrap_or(0),
        }),
        [code, ..] if code == "2" => Renewed::Anew,
        _ => Renewed::Yes,
    })
}

/// Gives the lease back, so that nobody has to wait for its end.
pub(super) async fn release(link: &Link, scripts: &Scripts, keys: &Keys, sign: &Sign) -> RedisResult<()> {
    let mut cmd = Scripts::call(&scripts.release, &keys.node(&sign.node_id));
    cmd.arg(&sign.boot);
    link.query(&cmd).await
}

/// Puts this node on the list of nodes, and takes off it who is gone for long.
pub(super) async fn enlist(link: &Link, keys: &Keys, node_id: &str, now_ms: UnixMs) -> RedisResult<()> {
    let nodes = keys.nodes();
    let mut pipe = redis::pipe();
    pipe.cmd("ZADD").arg(&nodes).arg(now_ms).arg(node_id).ignore();
    let oldest = now_ms.saturating_sub(NODE_MEMORY_MS);
    pipe.cmd("ZREMRANGEBYSCORE")
        .arg(&nodes)
        .arg("-inf")
        .arg(oldest)
        .ignore();
    link.pipe(&pipe).await
}

/// A node as the registry has it.
#[derive(Clone, Debug)]
pub(super) struct NodeFields {
    pub(super) node_id: String,
    /// Its last sign of life by its own clock, Unix milliseconds.
    pub(super) seen_ms: UnixMs,
    /// Empty when its lease has ended.
    pub(super) fields: HashMap<String, String>,
}

impl NodeFields {
    pub(super) fn text(&self, field: &str) -> &str {
        self.fields.get(field).map_or("", String::as_str)
    }

    pub(super) fn number(&self, field: &str) -> u64 {
        self.text(field).parse().unwrap_or(0)
    }

    pub(super) fn is_serving(&self) -> bool {
        self.text("is_serving") == "1"
    }

    /// A node of a version that does not say it takes work while it serves.
    pub(super) fn is_ready(&self) -> bool {
        self.is_serving() && self.text("is_ready") != "0"
    }
}

/// Every node that lived within a day.
pub(super) async fn list(link: &Link, keys: &Keys) -> RedisResult<Vec<NodeFields>> {
    let mut cmd = redis::cmd("ZRANGE");
    cmd.arg(keys.nodes()).arg(0).arg(-1).arg("WITHSCORES");
    let listed: Vec<(String, f64)> = link.query(&cmd).await?;
    let read = |(node_id, seen): (String, f64)| async move {
        let fields = link.query(redis::cmd("HGETALL").arg(keys.node(&node_id))).await?;
        Ok::<_, redis::RedisError>(NodeFields {
            node_id,
            seen_ms: seen.max(0.0) as UnixMs,
            fields,
        })
    };
    try_join_all(listed.into_iter().map(read)).await
}

/// Drivers whose entries wait to be written at any time.
const BACKLOG_USUAL: u64 = 1_000;

/// Whether a node has yet to write more than a tenth of its drivers: the registry had lost them.
pub(super) fn are_behind(nodes: &[NodeFields]) -> bool {
    let most = |node: &NodeFields| node.number("drivers") / 10 + BACKLOG_USUAL;
    nodes.iter().any(|node| node.number("backlog") > most(node))
}

/// Those whose leases stand.
pub(super) fn alive(nodes: &[NodeFields]) -> NodeList {
    let standing = nodes.iter().filter(|node| !node.fields.is_empty());
    NodeList::new(
        standing
            .map(|node| NodeSeen {
                node_id: node.node_id.as_str().into(),
                address: node.text("address").into(),
                link_address: node.text("link_address").into(),
                drivers: node.number("drivers"),
                is_serving: node.is_serving(),
                is_ready: node.is_ready(),
            })
            .collect(),
    )
}

/// Tells a node of drivers that this one has taken from it: `session id`, one text each.
pub(super) async fn tell_moved(link: &Link, keys: &Keys, node_id: &str, moved: &[String]) -> RedisResult<()> {
    let key = keys.moved(node_id);
    let mut pipe = redis::pipe();
    pipe.cmd("RPUSH").arg(&key).arg(moved).ignore();
    pipe.cmd("LTRIM").arg(&key).arg(-(MOVED_MAX as i64)).arg(-1).ignore();
    pipe.cmd("PEXPIRE").arg(&key).arg(MOVED_TTL_MS).ignore();
    link.pipe(&pipe).await
}

/// Takes what other nodes told this one; `true`: there may be more.
pub(super) async fn take_moved(link: &Link, keys: &Keys, node_id: &str) -> RedisResult<(Vec<String>, bool)> {
    let mut cmd = redis::cmd("LPOP");
    cmd.arg(keys.moved(node_id)).arg(MOVED_PAGE);
    let taken: Option<Vec<String>> = link.query(&cmd).await?;
    let taken = taken.unwrap_or_default();
    let is_full = taken.len() == MOVED_PAGE;
    Ok((taken, is_full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_behind_with_a_tenth_of_their_drivers() {
        let node = |drivers: u64, backlog: u64| NodeFields {
            node_id: "n".to_owned(),
            seen_ms: 0,
            fields: HashMap::from([
                ("drivers".to_owned(), drivers.to_string()),
                ("backlog".to_owned(), backlog.to_string()),
            ]),
        };
        assert!(!are_behind(&[node(0, 0), node(50_000, 6_000)]));
        assert!(are_behind(&[node(0, 0), node(50_000, 6_001)]));
        let lapsed = NodeFields {
            fields: HashMap::new(),
            ..node(0, 0)
        };
        assert!(!are_behind(&[lapsed]));
    }
}
