//! One connection to Redis, from its first lease to its loss: connects, lines, leases and notices, side by side.

use super::client::{Link, describe, is_of_key};
use super::lease::{self, Holder, Keys, MOVED_MAX, MOVED_TTL_MS, NodeFields};
use super::lines::{write_piped, write_scattered};
use super::lookups::{LOOKUPS_WINDOW, LookupDone};
use super::scripts::{self, Claimed, Scripts, Written};
use super::signs::Heard;
use super::writer::{LeaseAtStart, Writer};
use crate::cold::registry::port::{Batch, Claim, FromRegistry, Previous, Reply};
use crate::fsm::ids::{DriverId, home_shard};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{RedisError, RedisResult};
use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// Connects whose answers are awaited at once.
const CLAIMS_WINDOW: usize = 512;
/// Batches under way at once on one server: while one is written, the next is on its way.
const BATCHES_WINDOW: usize = 4;
/// In a cluster lines of one batch take different ways: the next batch may speak of the same drivers, so it waits.
const BATCHES_WINDOW_CLUSTER: usize = 1;
/// How often other nodes are told of drivers that were taken from them.
const NOTICE_EVERY: Duration = Duration::from_millis(50);
/// How often a lease that another process has is logged, and a key that holds something else.
const LOG_AGAIN: Duration = Duration::from_secs(30);
/// How long a registry that was emptied counts as being filled again at most: a node may be behind for other reasons.
const REFILL_MAX: Duration = Duration::from_secs(60);

/// The connection is of no use any more; why.
pub(super) struct Lost(pub(super) String);

impl Lost {
    fn by(error: &RedisError) -> Self {
        Self(describe(error))
    }
}

/// What calls need, without borrowing from anybody.
pub(super) struct Context {
    pub(super) link: Link,
    pub(super) scripts: Scripts,
    pub(super) keys: Keys,
    pub(super) node_id: String,
    pub(super) ttl_ms: u64,
    pub(super) lease_ms: u64,
    pub(super) timeout: Duration,
    pub(super) is_cluster: bool,
}

/// A connect that was asked for.
struct ClaimDone {
    reply: Reply,
    driver_id: DriverId,
    result: Result<Claimed, Option<RedisError>>,
}

/// A batch that was written, or not.
struct BatchDone {
    batch: Batch,
    /// As many as lines, unless nothing of it was written.
    results: RedisResult<Vec<RedisResult<Option<Written>>>>,
}

type Calls<T> = FuturesUnordered<Pin<Box<dyn Future<Output = T>>>>;

/// A connection in use.
pub(super) struct Connection<'w> {
    pub(super) writer: &'w mut Writer,
    pub(super) cx: Arc<Context>,
    claims: Calls<ClaimDone>,
    pub(super) lookups: Calls<LookupDone>,
    batches: Calls<BatchDone>,
    pub(super) signs: Calls<RedisResult<Heard>>,
    notices_sent: Calls<(String, RedisResult<()>)>,
    tick: Interval,
    notice_tick: Interval,
    /// Drivers taken from other nodes, which are to be told.
    notices: HashMap<String, Vec<String>>,
    /// Nodes whose leases ended so long ago that nobody has to tell them anything.
    lapsed: HashSet<String>,
    /// Until when a node that is not listed may only not have said yet that it lives: Redis has lost what it had.
    settles_at: Instant,
    /// Until when a driver without an entry may only not have been written again: Redis has lost what it had. Not at a node's start.
    pub(super) refills_until: Option<Instant>,
    /// When the lease was renewed last.
    pub(super) renewed_at: Instant,
    /// It is not renewed, as the disk hangs.
    pub(super) lapses: bool,
    /// When it is taken for filled again, whatever nodes say.
    pub(super) refilled_by: Instant,
    claims_open: bool,
    batches_open: bool,
    /// Signs of life after which lines that were lost in a cluster are written again; 0: none was lost.
    lost_for: u8,
    /// Until when another holder of this node's lease may be dead.
    refused_until: Option<Instant>,
    refused_logged: Option<Instant>,
    unusable_logged: Option<Instant>,
}

impl<'w> Connection<'w> {
    pub(super) fn new(writer: &'w mut Writer, link: Link, scripts: Scripts) -> Self {
        let shared = &writer.shared;
        let lease_ms = shared.lease_ms;
        let cx = Arc::new(Context {
            link,
            scripts,
            keys: shared.keys.clone(),
            node_id: shared.sign.node_id.to_string(),
            ttl_ms: shared.ttl_ms,
            lease_ms,
            timeout: shared.target.timeout(),
            is_cluster: shared.target.is_cluster(),
        });
        let mut tick = interval(Duration::from_millis(lease_ms / 3));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut notice_tick = interval(NOTICE_EVERY);
        notice_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            writer,
            cx,
            claims: Calls::new(),
            lookups: Calls::new(),
            batches: Calls::new(),
            signs: Calls::new(),
            notices_sent: Calls::new(),
            tick,
            notice_tick,
            notices: HashMap::new(),
            lapsed: HashSet::new(),
            settles_at: Instant::now() + Duration::from_millis(lease_ms),
            refills_until: None,
            renewed_at: Instant::now(),
            lapses: false,
            refilled_by: Instant::now(),
            claims_open: true,
            batches_open: true,
            lost_for: 0,
            refused_until: None,
            refused_logged: None,
            unusable_logged: None,
        }
    }

    /// Serves until the node ends (`Ok`) or the connection is lost.
    pub(super) async fn serve(mut self) -> Result<(), Lost> {
        let window = if self.cx.is_cluster {
            BATCHES_WINDOW_CLUSTER
        } else {
            BATCHES_WINDOW
        };
        let presence = Arc::clone(&self.writer.shared.presence);
        while self.claims_open || self.batches_open || !self.batches.is_empty() {
            tokio::select! {
                Some(done) = self.claims.next() => self.claimed(done)?,
                Some(done) = self.lookups.next() => self.looked_up(done)?,
                Some(done) = self.batches.next() => self.wrote(done)?,
                Some(heard) = self.signs.next() => self.heard(heard)?,
                Some((node_id, sent)) = self.notices_sent.next() => self.told(&node_id, sent)?,
                claim = self.writer.claims.recv(), if self.claims_open && self.claims.len() < CLAIMS_WINDOW => {
                    match claim {
                        Some((reply, claim)) => self.claim(reply, claim),
                        None => self.claims_open = false,
                    }
                }
                batch = self.writer.batches.recv(), if self.batches_open && self.batches.len() < window => {
                    match batch {
                        Some(batch) => self.write(batch),
                        None => self.batches_open = false,
                    }
                }
                Some((reply, lookup)) = self.writer.lookups.recv(), if self.lookups.len() < LOOKUPS_WINDOW => {
                    self.look_up(reply, lookup);
                }
                _ = self.tick.tick(), if self.signs.is_empty() => self.sign(),
                () = presence.hurried(), if self.signs.is_empty() => self.sign(),
                _ = self.notice_tick.tick(), if !self.notices.is_empty() => self.tell(),
            }
        }
        let released = lease::release(&self.cx.link, &self.cx.scripts, &self.cx.keys, &self.writer.shared.sign);
        // It ends by itself soon.
        drop(tokio::time::timeout(self.cx.timeout, released).await);
        Ok(())
    }

    pub(super) fn is_present(&self) -> bool {
        self.writer.shared.presence.generation() != 0
    }

    /// An error costs the connection, unless it is that of one key, or a cluster's, of which a part may well answer.
    pub(super) fn failed(&mut self, error: &RedisError, key: &str) -> Result<(), Lost> {
        if is_of_key(error) {
            self.unusable(key);
            return Ok(());
        }
        if self.cx.is_cluster && error.code() != Some("NOSCRIPT") {
            self.writer.shared.metrics().errors.inc();
            // After a sign of life in a time without losses.
            self.lost_for = 2;
            return Ok(());
        }
        Err(Lost::by(error))
    }

    /// Something that no node writes stands under a key. To write everything again would change nothing.
    fn unusable(&mut self, key: &str) {
        self.writer.shared.metrics().unusable.inc();
        let now = Instant::now();
        if self.unusable_logged.is_none_or(|at| now - at >= LOG_AGAIN) {
            self.unusable_logged = Some(now);
            tracing::error!(key, "registry: a key holds what no node writes, and is passed over");
        }
    }

    // ---- connects ------------------------------------------------------------------------------------------------

    fn claim(&mut self, reply: Reply, claim: Claim) {
        if !self.is_present() {
            return; // Dropped: that is the answer.
        }
        let cx = Arc::clone(&self.cx);
        self.claims.push(Box::pin(async move {
            let key = cx.keys.driver(claim.driver_id.as_str());
            let cmd = cx.scripts.claim(&key, &cx.node_id, &claim, cx.ttl_ms);
            let asked = tokio::time::timeout(cx.timeout, cx.link.query::<Vec<String>>(&cmd)).await;
            let result = match asked {
                Ok(Ok(answer)) => scripts::claimed(&answer).ok_or(None),
                Ok(Err(error)) => Err(Some(error)),
                Err(_) => Err(None),
            };
            ClaimDone {
                reply,
                driver_id: claim.driver_id,
                result,
            }
        }));
    }

    fn claimed(&mut self, done: ClaimDone) -> Result<(), Lost> {
        let metrics = self.writer.shared.metrics();
        match done.result {
            Ok(Claimed { session, previous }) => {
                metrics.claims.inc();
                let from = previous
                    .as_ref()
                    .map(|previous: &Previous| previous.node_id.to_string());
                done.reply.give(session, previous);
                if let Some(from) = from.filter(|from| *from != self.cx.node_id) {
                    self.notice(from, session, &done.driver_id);
                }
                Ok(())
            }
            Err(why) => {
                metrics.claims_unanswered.inc();
                drop(done.reply);
                match why {
                    Some(error) => {
                        let key = self.cx.keys.driver(done.driver_id.as_str());
                        self.failed(&error, &key)
                    }
                    None if self.cx.is_cluster => Ok(()),
                    None => Err(Lost("no answer in time".to_owned())),
                }
            }
        }
    }

    /// Another node had the driver: it is told, unless it is known to be dead.
    fn notice(&mut self, from: String, session: u64, driver_id: &DriverId) {
        self.writer.shared.metrics().taken.inc();
        // One that is not listed yet may have begun just now, one whose lease has ended may only be late.
        if self.lapsed.contains(&from) {
            return;
        }
        let waiting = self.notices.entry(from).or_default();
        if waiting.len() < MOVED_MAX {
            waiting.push(format!("{session} {driver_id}"));
        }
    }

    fn tell(&mut self) {
        for (node_id, moved) in self.notices.drain() {
            let cx = Arc::clone(&self.cx);
            self.notices_sent.push(Box::pin(async move {
                let sent = lease::tell_moved(&cx.link, &cx.keys, &node_id, &moved).await;
                (node_id, sent)
            }));
        }
    }

    fn told(&mut self, node_id: &str, sent: RedisResult<()>) -> Result<(), Lost> {
        let key = self.cx.keys.moved(node_id);
        sent.or_else(|error| self.failed(&error, &key))
    }

    // ---- lines ---------------------------------------------------------------------------------------------------

    fn write(&mut self, batch: Batch) {
        if !self.is_present() {
            return; // Written again when there is a registry.
        }
        let cx = Arc::clone(&self.cx);
        self.batches.push(Box::pin(async move {
            let results = if cx.is_cluster {
                write_scattered(&cx, &batch.lines).await
            } else {
                write_piped(&cx, &batch.lines).await
            };
            BatchDone { batch, results }
        }));
    }

    fn wrote(&mut self, done: BatchDone) -> Result<(), Lost> {
        let BatchDone { batch, results } = done;
        let results = results.map_err(|error| Lost::by(&error))?;
        let mut written = 0;
        for (line, result) in batch.lines.into_iter().zip(results) {
            match result {
                Ok(Some(Written::Yes)) => written += 1,
                Ok(Some(Written::From(node_id))) => {
                    written += 1;
                    self.notice(node_id, line.session, &line.driver_id);
                }
                Ok(Some(Written::Refused)) => {
                    self.writer.shared.metrics().refused.inc();
                    batch.inbox.send(FromRegistry::Moved {
                        driver_id: line.driver_id,
                        session: line.session,
                    });
                }
                Ok(None) => return Err(Lost("Redis answers something else than its script".to_owned())),
                Err(error) => {
                    let key = self.cx.keys.driver(line.driver_id.as_str());
                    self.failed(&error, &key)?;
                }
            }
        }
        let shared = &mut self.writer.shared;
        let lag_ms = (shared.around.now_ms)().saturating_sub(batch.since_ms);
        shared.sign.lag_ms = lag_ms;
        shared.metrics().refreshes.add(written);
        shared.metrics().batches.inc();
        shared.metrics().lag.record_us(lag_ms * 1_000);
        Ok(())
    }

    // ---- leases --------------------------------------------------------------------------------------------------

    fn heard(&mut self, heard: RedisResult<Heard>) -> Result<(), Lost> {
        match heard {
            // Of a cluster too: whoever cannot renew its lease has no registry.
            Err(error) => Err(Lost::by(&error)),
            Ok(Heard::Anothers(holder)) => {
                self.refused(&holder);
                Ok(())
            }
            Ok(Heard::Alive {
                is_new,
                nodes,
                moved,
                is_more,
            }) => {
                self.alive(is_new);
                self.refill(&nodes);
                self.show(&nodes);
                let now_ms = (self.writer.shared.around.now_ms)();
                let is_dead = |node: &NodeFields| node.fields.is_empty() && node.seen_ms + MOVED_TTL_MS < now_ms;
                let lapsed = nodes.into_iter().filter(is_dead);
                self.lapsed = lapsed.map(|node| node.node_id).collect();
                for text in &moved {
                    self.moved(text);
                }
                if is_more {
                    self.tick.reset_immediately();
                }
                Ok(())
            }
        }
    }

    /// The lease is this node's. When what was written may be lost, the shards hear of a new registry.
    fn alive(&mut self, is_new: bool) {
        self.renewed_at = Instant::now();
        self.refused_until = None;
        self.refused_logged = None;
        self.writer.lease_is(LeaseAtStart::Held);
        self.writer.losses.over();
        let heals = self.lost_for == 1;
        self.lost_for = self.lost_for.saturating_sub(1);
        if is_new {
            self.settles_at = Instant::now() + Duration::from_millis(self.cx.lease_ms);
            self.refills_until = (self.writer.generation > 0).then_some(self.settles_at);
            self.refilled_by = self.settles_at + REFILL_MAX;
        }
        if !self.is_present() || heals || is_new {
            self.writer.generation += 1;
            let generation = self.writer.generation;
            self.writer.shared.present(generation);
        }
    }

    /// Another process goes by this node's name: this one is fenced, it writes nothing.
    fn refused(&mut self, holder: &Holder) {
        if self.is_present() {
            self.writer.shared.present(0);
        }
        let now = Instant::now();
        // A process that was killed seems to live for the rest of its lease.
        let patience = Duration::from_millis(holder.left_ms + self.cx.lease_ms / 2);
        if now < *self.refused_until.get_or_insert(now + patience) {
            return;
        }
        self.writer.lease_is_anothers(holder);
        if self.refused_logged.is_none_or(|at| now - at >= LOG_AGAIN) {
            self.refused_logged = Some(now);
            tracing::error!(
                node_id = %self.cx.node_id,
                address = holder.address,
                incarnation = holder.incarnation,
                "another process goes by this node_id: this one writes nothing into the registry; give it another node_id"
            );
        }
    }

    /// Lets the shards know who is alive, when that has changed.
    fn show(&mut self, nodes: &[NodeFields]) {
        let known = &self.writer.nodes;
        let mut nodes = lease::alive(nodes);
        if Instant::now() < self.settles_at {
            nodes = nodes.with_unlisted(known);
        }
        if nodes == **known {
            return;
        }
        self.writer.shared.metrics().nodes.set(nodes.nodes().len() as u64);
        self.writer.nodes = Arc::new(nodes);
        self.writer.shared.inboxes.show(&self.writer.nodes);
        if let Some(on_nodes) = &self.writer.shared.around.on_nodes {
            on_nodes(&self.writer.nodes);
        }
    }

    /// Another node says that it has taken a driver: `session id`.
    fn moved(&self, text: &str) {
        let Some((session, id)) = text.split_once(' ') else {
            return;
        };
        let (Ok(session), Ok(driver_id)) = (session.parse::<u64>(), DriverId::parse(id)) else {
            return;
        };
        let home = home_shard(driver_id.hash64(), self.writer.shared.shards);
        let session = session.saturating_sub(1);
        let moved = FromRegistry::Moved { driver_id, session };
        self.writer.shared.inboxes.send(home, moved);
    }
}
