//! What is decided inside Redis: four small scripts of one key each, so that they run in a cluster as they do on one
//! server. A script is the only way to read, compare and write in one step.

use super::client::Link;
use crate::cold::registry::port::{Claim, Found, Here, Line, Previous, What};
use crate::fsm::ids::RequestId;
use crate::wire::api;
use compact_str::CompactString;
use redis::{Cmd, RedisResult, Value};

/// A connect. ARGV: node, proposed session, now, TTL. Gives the session, the node that had the driver and its session there, and the
/// request that bound it with the node that has that; what is not there is empty.
/// Numbers of Lua are doubles: sessions stay below 2^53 until the year 2112 (see `shard/registry.rs`).
const CLAIM: &str = r"
local was = redis.call('HMGET', KEYS[1], 'node', 'session', 'request', 'owner')
local session = tonumber(ARGV[2])
local had = tonumber(was[2] or '0') or 0
if had >= session then session = had + 1 end
local text = string.format('%.0f', session)
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'session', text, 'last_seen', ARGV[3])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
return {text, was[1] or '', was[2] or '', was[3] or '', was[4] or ''}
";

/// A line. ARGV: node, session, TTL, state, trip, location, last seen, request, its node. Gives 0 and the session of the other node that has
/// the driver, 1, or 2 and the node that had it under an older session.
const WRITE: &str = r"
local was = redis.call('HMGET', KEYS[1], 'node', 'session')
local mine, had = tonumber(ARGV[2]), tonumber(was[2] or '0') or 0
local is_other = was[1] and was[1] ~= ARGV[1]
if is_other and had >= mine then return {'0', was[2]} end
local session = ARGV[2]
if had > mine then session = was[2] end
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'session', session, 'state', ARGV[4],
  'current_trip_id', ARGV[5], 'location', ARGV[6], 'last_seen', ARGV[7], 'request', ARGV[8], 'owner', ARGV[9])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if is_other then return {'2', was[1]} end
return {'1', ''}
";

/// A driver of whom nothing is left to know. ARGV: node, session. A newer connect, here or elsewhere, keeps its entry.
const FORGET: &str = r"
local was = redis.call('HMGET', KEYS[1], 'node', 'session')
if was[1] == ARGV[1] and (tonumber(was[2] or '0') or 0) <= tonumber(ARGV[2]) then redis.call('DEL', KEYS[1]) end
return {'1', ''}
";

/// A node's lease. ARGV: TTL, then fields and values, of which the first are boot, data and incarnation. Gives 1, 2 when
/// there was none, or 0, the address, the incarnation and the time left of another process that holds it. A process that began later on the
/// same data directory takes it at once: the directory's lock says that its predecessor is dead.
const LEASE: &str = r"
local was = redis.call('HMGET', KEYS[1], 'boot', 'data', 'incarnation', 'address')
if was[1] and was[1] ~= ARGV[3] then
  local is_heir = was[2] == ARGV[5] and (tonumber(was[3] or '0') or 0) < tonumber(ARGV[7])
  if not is_heir then
    return {'0', was[4] or '', was[3] or '', tostring(redis.call('PTTL', KEYS[1]))}
  end
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return {was[1] and '1' or '2', '', '', ''}
";

/// Gives a lease back. ARGV: boot.
const RELEASE: &str = r"
if redis.call('HGET', KEYS[1], 'boot') == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// The scripts as Redis knows them, by the hash of their text.
#[derive(Clone, Debug)]
pub(super) struct Scripts {
    claim: String,
    write: String,
    forget: String,
    pub(super) lease: String,
    pub(super) release: String,
}

impl Scripts {
    /// Gives Redis (every master of a cluster) the scripts.
    pub(super) async fn load(link: &Link) -> RedisResult<Self> {
        let load = async |text: &str| link.query::<String>(redis::cmd("SCRIPT").arg("LOAD").arg(text)).await;
        Ok(Self {
            claim: load(CLAIM).await?,
            write: load(WRITE).await?,
            forget: load(FORGET).await?,
            lease: load(LEASE).await?,
            release: load(RELEASE).await?,
        })
    }

    /// One key and what the script takes after it.
    pub(super) fn call(sha: &str, key: &str) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(sha).arg(1).arg(key);
        cmd
    }

    pub(super) fn claim(&self, key: &str, node_id: &str, claim: &Claim, ttl_ms: u64) -> Cmd {
        let mut cmd = Self::call(&self.claim, key);
        cmd.arg(node_id).arg(claim.proposed).arg(claim.at_ms).arg(ttl_ms);
        cmd
    }

    pub(super) fn line(&self, key: &str, node_id: &str, line: &Line, ttl_ms: u64) -> Cmd {
        match &line.what {
            What::Here(here) => {
                let mut cmd = Self::call(&self.write, key);
                let lasts_ms = here.at_hand.as_ref().map_or(0, |at_hand| at_hand.lasts_ms);
                cmd.arg(node_id)
                    .arg(line.session)
                    .arg(ttl_ms.max(here.kept_ms) + lasts_ms);
                here_args(&mut cmd, here);
                cmd
            }
            What::Gone => {
                let mut cmd = Self::call(&self.forget, key);
                cmd.arg(node_id).arg(line.session);
                cmd
            }
        }
    }
}

fn here_args(cmd: &mut Cmd, here: &Here) {
    let mut location = Vec::new();
    if let Some(at) = &here.location {
        api::append_location(
            &mut location,
            &crate::wire::driver::Location {
                lat: at.lat,
                lon: at.lon,
                heading: at.heading,
                speed: at.speed,
            },
        );
    }
    let trip = here.trip_id.as_ref().map_or("", |trip_id| trip_id.as_str());
    cmd.arg(here.state.as_str())
        .arg(trip)
        .arg(location)
        .arg(here.last_seen_ms);
    match &here.at_hand {
        Some(at_hand) => cmd.arg(at_hand.request_id.as_str()).arg(at_hand.node_id.as_str()),
        None => cmd.arg("").arg(""),
    };
}

/// What became of a connect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) session: u64,
    /// What was known of the driver, when anything was.
    pub(super) previous: Option<Previous>,
}

/// The answer to a connect; `None` when it is none.
pub(super) fn claimed(answer: &[String]) -> Option<Claimed> {
    let [session, from, had, request, owner] = answer else {
        return None;
    };
    Some(Claimed {
        session: session.parse().ok()?,
        previous: (!from.is_empty()).then(|| Previous {
            node_id: from.as_str().into(),
            session: had.parse().unwrap_or(0),
            at_hand: at_hand(request, owner),
        }),
    })
}

/// The question where a driver is.
pub(super) fn whereabouts(key: &str) -> Cmd {
    let mut cmd = redis::cmd("HMGET");
    cmd.arg(key).arg("node").arg("session").arg("request").arg("owner");
    cmd
}

/// The answer to it; what cannot be read is not there.
pub(super) fn found(answer: [Option<String>; 4]) -> Option<Found> {
    let [node_id, session, request, owner] = answer;
    Some(Found {
        node_id: node_id?.into(),
        session: session?.parse().ok()?,
        at_hand: at_hand(&request.unwrap_or_default(), &owner.unwrap_or_default()),
    })
}

/// A request and the node that has it, if there is one.
fn at_hand(request: &str, owner: &str) -> Option<(RequestId, CompactString)> {
    let request_id = RequestId::parse(request).ok()?;
    (!owner.is_empty()).then(|| (request_id, owner.into()))
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// Done.
    Yes,
    /// Done, and another node had the driver under an older session.
    From(String),
    /// Not done: another node has the driver.
    Refused,
}

/// The answer to a line; `None` when it is none.
pub(super) fn written(answer: &Value) -> Option<Written> {
    let (code, text): (String, String) = redis::from_redis_value_ref(answer).ok()?;
    match code.as_str() {
        "0" => Some(Written::Refused),
        "1" => Some(Written::Yes),
        "2" => Some(Written::From(text)),
        _ => None,
    }
}
