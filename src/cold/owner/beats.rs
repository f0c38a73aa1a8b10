//! Who lives, as the tables have it: for a node that looks into another registry and sees no leases there.
//!
//! A node that holds its lease writes a *beat* of itself into the tables about once a second: a number, of which others only see that
//! it is another one than before. From a node whose lease was seen, and lapsed, requests are taken over at once. From one whose lease
//! this process has never seen they are taken over only after its beat was watched and did not change for [`SILENCE`]: it may live and
//! look into another Redis, or under another prefix, and so may one that was started again with other settings, whose beat goes on
//! after its lease has lapsed.
//!
//! Must never: delay a takeover from a node whose lease was seen, or compare the clocks of two nodes.

use super::index::write_time_us;
use super::port::{Failed, Place, Tables, within};
use super::takeover::LOOK_PERIOD;
use super::{Owner, PAUSE_MAX};
use crate::cold::registry::NodeList;
use compact_str::CompactString;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How often a node says that it lives. Each try takes [`PAUSE_MAX`] at most, whatever one call may take.
const BEAT_PERIOD: Duration = Duration::from_secs(1);
/// A node whose lease was never seen counts as dead when its beat was the same for so long. At least three tries of a node that lives fit
/// into it when each of them takes as long as it may, and ten as a rule: one that misses them all is as little able to decide about its
/// requests. Of two beats Cassandra keeps the later one by the clocks of its own nodes, which may differ by seconds.
const SILENCE: Duration = Duration::from_secs(10);
/// So long a node may beat without a lease here before that is said: it may have begun a moment ago.
const UNLISTED_MAX: Duration = Duration::from_secs(10);
/// How often it is said of one node.
const SAY_AGAIN: Duration = Duration::from_secs(300);

const _: () = assert!(SILENCE.as_secs() >= 3 * (BEAT_PERIOD.as_secs() + PAUSE_MAX.as_secs()));
const _: () = assert!(
    SILENCE.as_secs() >= 2 * LOOK_PERIOD.as_secs(),
    "a beat is read between two that are compared"
);

/// What is known of leases: this node's, and those of others.
pub(super) struct Leases {
    is_held: watch::Sender<bool>,
    /// Nodes whose lease this process has seen, and that have not been heard of without one since.
    seen: Mutex<BTreeSet<CompactString>>,
}

impl Leases {
    pub(super) fn new(is_held: bool) -> Self {
        Self {
            is_held: watch::Sender::new(is_held),
            seen: Mutex::default(),
        }
    }

    /// This node holds its lease, or does not.
    pub(super) fn hold(&self, is_held: bool) {
        self.is_held.send_replace(is_held);
    }

    /// Whether this node holds its lease.
    pub(super) fn is_held(&self) -> bool {
        *self.is_held.borrow()
    }

    /// These leases stand.
    pub(super) fn see(&self, nodes: &NodeList) {
        let names = nodes.nodes().iter().map(|node| node.node_id.clone());
        self.lock().extend(names);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<CompactString>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Beats of nodes that have requests and no lease.
#[derive(Default)]
pub(super) struct Watch(BTreeMap<String, Watched>);

struct Watched {
    beat: Option<i64>,
    /// Since when it is watched.
    began: Duration,
    /// Since when it is the same.
    since: Duration,
    said: Option<Duration>,
}

impl Watch {
    /// The tables were away, or this node was: who is silent had perhaps no way to say anything.
    pub(super) fn begin_again(&mut self, now: Duration) {
        for watched in self.0.values_mut() {
            watched.since = now;
        }
    }
}

impl<T: Tables, P: Place> Owner<T, P> {
    /// Says that this node lives, as long as it holds its lease, for ever.
    pub(super) async fn keep_beating(&self) {
        let (mut is_held, mut beat) = (self.leases.is_held.subscribe(), 0);
        loop {
            let holds = *is_held.borrow_and_update();
            if holds && self.reach.is_up() {
                let tables = self.connected().await;
                // Another one than that of an earlier boot as well.
                beat = write_time_us(self.place()).max(beat + 1);
                match within(self.place(), PAUSE_MAX, tables.beat(self.node_id(), beat)).await {
                    None | Some(Ok(())) => {}
                    Some(Err(error)) => {
                        if self.may_complain("beat") {
                            tracing::warn!(%error, "cannot say in Cassandra that this node lives");
                        }
                        self.reach.doubt();
                    }
                }
            }
            let changed = within(self.place(), BEAT_PERIOD, is_held.changed()).await;
            debug_assert!(!matches!(changed, Some(Err(_))), "the sender is this owner's");
        }
    }

    /// Forgets who has nothing that could be taken over, or lives.
    pub(super) fn forget_leases(&self, watch: &mut Watch, owners: &[String], is_alive: impl Fn(&str) -> bool) {
        let has_any = |name: &str| owners.iter().any(|owner| owner == name);
        watch.0.retain(|name, _| has_any(name) && !is_alive(name));
        self.leases.lock().retain(|name| has_any(name) || is_alive(name));
    }

    /// Whether a node without a lease is to be taken for dead.
    pub(super) async fn is_dead(&self, tables: &T, name: &str, watch: &mut Watch) -> Result<bool, Failed> {
        let read = tables.beat_of(name).await;
        let now = self.place().now();
        let beat = match read {
            Ok(beat) => beat,
            Err(_) if self.leases.lock().contains(name) => return Ok(true),
            Err(error) => {
                // It may have beaten meanwhile.
                watch.begin_again(now);
                return Err(error);
            }
        };
        let Some(watched) = watch.0.get_mut(name) else {
            let watched = Watched {
                beat,
                began: now,
                since: now,
                said: None,
            };
            watch.0.insert(name.to_owned(), watched);
            return Ok(self.leases.lock().contains(name));
        };
        // One that is there no more has expired.
        if beat.is_none() || beat == watched.beat {
            return Ok(self.leases.lock().contains(name) || now.saturating_sub(watched.since) >= SILENCE);
        }
        (watched.beat, watched.since) = (beat, now);
        self.leases.lock().remove(name);
        let is_due = watched.said.is_none_or(|said| now.saturating_sub(said) >= SAY_AGAIN);
        // Who has no lease itself sees nobody else's either.
        if is_due && now.saturating_sub(watched.began) >= UNLISTED_MAX && self.leases.is_held() {
            watched.said = Some(now);
            tracing::warn!(
                node = name,
                "a node of this keyspace lives and has no lease in this node's registry: nothing is taken over from it; it has \
                 another fleet_redis_url or fleet_redis_prefix than this node, or none, or loses its lease again and again"
            );
        }
        Ok(false)
    }
}
