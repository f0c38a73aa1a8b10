//! Requests change their owner: those of a node that died go to the others, and those of an earlier boot to this one.
//!
//! Whose lease has lapsed is what the registry says, and whether it lives all the same what [`super::beats`] say; only when to try rests on it: whether a request changes its owner is
//! decided by one condition on its row, which the old owner's next decision meets too. Survivors divide requests by their ids,
//! so that two seldom want the same one; what is still there after a few passes everybody takes.
//!
//! What a node claimed or took over may come to stand after others, or its next boot, have looked: it was on its way when the node
//! died. So what is on its list and is not its own is looked at again, for as long as that may be.

use super::beats::Watch;
use super::decisions::Change;
use super::index::{bucket_of, is_quiet, write_time_us};
use super::port::{Before, Failed, Ownership, Place, Steps, Tables, within};
use super::{Found, Owner};
use crate::cold::claims::{Adopted, FromClaims, Handed, Head, Inbox, NotMine};
use crate::cold::registry::NodeList;
use crate::fsm::fold::Fold;
use crate::fsm::ids::RequestId;
use crate::fsm::types::{LogEntry, RequestLog};
use crate::ops::metrics::LwtKind;
use futures_util::stream::{self, StreamExt};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

/// How often it is looked for requests of dead nodes when nothing is heard of nodes.
pub(super) const LOOK_PERIOD: Duration = Duration::from_secs(5);
/// The same while a dead node has some.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How long after a node's death, or its start, something that it had asked for may come to stand.
const LATE_MAX: Duration = Duration::from_secs(300);
/// Passes over a dead node's requests after which everybody takes what is left.
const PASSES_DIVIDED: u32 = 4;

/// What a pass over a node's list came to.
struct Pass {
    taken: usize,
    listed: usize,
    /// What nobody can read, on this list for as long as its rows last.
    damaged: usize,
    /// What is on the list and not the node's own: that is perhaps still on its way.
    unsettled: Vec<(i64, RequestId)>,
}

/// What became of a request that stands on a node's list.
enum Look {
    Taken,
    /// It is not to be taken.
    Left,
    /// It is not the node's, and may become so.
    Unsettled,
    /// It cannot be read.
    Damaged,
}

/// A request's rows are not what a node writes, which has been logged.
struct Damaged;

/// Takes over what an earlier boot had, then what nodes had that died, for ever.
pub(super) async fn run<T: Tables, P: Place>(owner: Rc<Owner<T, P>>, done: std_mpsc::Sender<()>) {
    let own = owner.until_done("take over this node's requests", async |_| {
        owner.take_from(owner.node_id(), false, |_| true).await
    });
    let Pass { taken, unsettled, .. } = own.await;
    if taken > 0 {
        tracing::info!(requests = taken, "requests of the last boot are taken over");
    }
    if !unsettled.is_empty() {
        owner.place().spawn(settle_own(Rc::clone(&owner), unsettled));
    }
    owner.inboxes.tell(&FromClaims::OwnDone);
    // Nobody may wait any more.
    let _ = done.send(());
    let mut nodes = owner.nodes.subscribe();
    let (mut passes, mut watch) = (Passes::new(), Watch::default());
    let mut looked = owner.place().now();
    loop {
        let pause = if passes.is_empty() { LOOK_PERIOD } else { LOOK_AGAIN };
        let changed = within(owner.place(), pause, nodes.changed()).await;
        if let Some(Err(_)) = changed {
            return;
        }
        let seen = Arc::clone(&nodes.borrow_and_update());
        let began = owner.place().now();
        if began.saturating_sub(looked) > 2 * LOOK_PERIOD {
            // This node hung, and others perhaps with it.
            watch.begin_again(began);
        }
        if let Err(error) = owner.look_for_dead(&seen, &mut passes, &mut watch).await {
            tracing::warn!(%error, "cannot look for requests of nodes that died");
            owner.reach.doubt();
            watch.begin_again(owner.place().now());
        }
        // A long pass is no hang.
        looked = owner.place().now();
    }
}

/// Nodes that are not alive: how often their lists were looked through, and since when.
type Passes = BTreeMap<String, (u32, Duration)>;

/// Takes over what an earlier boot had asked for and nobody had seen yet, until all of it is settled.
async fn settle_own<T: Tables, P: Place>(owner: Rc<Owner<T, P>>, mut unsettled: Vec<(i64, RequestId)>) {
    let (mut pause, began) = (LOOK_AGAIN, owner.place().now());
    while !unsettled.is_empty() {
        owner.place().sleep(pause).await;
        pause = (pause * 2).min(LOOK_PERIOD);
        let is_late = owner.place().now().saturating_sub(began) >= LATE_MAX;
        let pass = owner.take_listed(owner.node_id(), is_late, &unsettled).await;
        if pass.taken > 0 {
            tracing::info!(requests = pass.taken, "late requests of the last boot are taken over");
        }
        unsettled = pass.unsettled;
    }
}

impl<T: Tables, P: Place> Owner<T, P> {
    /// A pass over the requests of all nodes that are not alive.
    async fn look_for_dead(&self, nodes: &NodeList, passes: &mut Passes, watch: &mut Watch) -> Result<(), Failed> {
        let is_alive = |name: &str| nodes.nodes().iter().any(|node| node.node_id == name);
        let is_serving = |name: &str| nodes.nodes().iter().any(|node| node.node_id == name && node.is_serving);
        // Without a lease of its own this node may be the one that is cut off; and one that ends takes nothing any more.
        if !is_serving(self.node_id()) || !self.leases.is_held() || !self.reach.is_up() {
            watch.begin_again(self.place().now());
            return Ok(());
        }
        self.leases.see(nodes);
        let tables = self.connected().await;
        let owners = tables.owners().await?;
        passes.retain(|name, _| owners.contains(name) && !is_alive(name));
        self.forget_leases(watch, &owners, is_alive);
        for name in owners {
            if is_alive(&name) {
                continue;
            }
            let began = self.place().now();
            match self.is_dead(&tables, &name, watch).await {
                Ok(true) => {}
                Ok(false) => {
                    passes.remove(&name);
                    continue;
                }
                // The others do not wait for this one's.
                Err(error) => {
                    if self.may_complain("look for a beat") {
                        tracing::warn!(node = name, %error, "cannot read whether a node lives");
                    }
                    continue;
                }
            }
            let (pass, since) = passes.get(&name).copied().unwrap_or((0, began));
            let is_late = began.saturating_sub(since) >= LATE_MAX;
            let is_mine = |id: &RequestId| pass >= PASSES_DIVIDED || chosen(nodes, id) == Some(self.node_id());
            let Pass {
                taken, damaged, listed, ..
            } = self.take_from(&name, is_late, is_mine).await?;
            if taken > 0 {
                let took_ms = self.place().now().saturating_sub(began).as_millis() as u64;
                tracing::info!(
                    node = name,
                    requests = taken,
                    took_ms,
                    "took over requests of a node that died"
                );
            }
            if listed == taken + damaged {
                passes.remove(&name);
            } else {
                passes.insert(name, (pass + 1, since));
            }
        }
        Ok(())
    }

    /// Takes over those requests of a node that `wanted` says. `is_late`: nothing of it comes to stand any more.
    async fn take_from(&self, from: &str, is_late: bool, wanted: impl Fn(&RequestId) -> bool) -> Result<Pass, Failed> {
        let tables = self.connected().await;
        let mut wants = self.list_open(&tables, from).await?;
        let listed = wants.len();
        wants.retain(|(_, id)| wanted(id));
        if from == self.node_id() {
            for (bucket, id) in &wants {
                self.index.hold(*bucket, id);
            }
        }
        let pass = self.take_listed(from, is_late, &wants).await;
        Ok(Pass { listed, ..pass })
    }

    /// Takes over requests that stand on a node's list. Rows of this node's own are held, and let go once they are settled.
    async fn take_listed(&self, from: &str, is_late: bool, listed: &[(i64, RequestId)]) -> Pass {
        // One that a repeated claim has put on the list again, in a later minute, is taken over once: two takeovers at once could not tell
        // which of them stands.
        let mut seen = HashSet::new();
        let (firsts, again): (Vec<_>, Vec<_>) = listed.iter().partition(|(_, id)| seen.insert(id));
        let takes = firsts.into_iter().map(|(bucket, id)| async move {
            let look = self.take_one(from, is_late, *bucket, id).await;
            (look, *bucket, id)
        });
        let mut looks = stream::iter(takes).buffer_unordered(self.config.background_max);
        let (mut taken, mut damaged) = (0, 0);
        let mut unsettled = again.into_iter().cloned().collect::<Vec<_>>();
        while let Some((look, bucket, id)) = looks.next().await {
            match look {
                Look::Taken => taken += 1,
                Look::Damaged => damaged += 1,
                Look::Left => {}
                Look::Unsettled => unsettled.push((bucket, id.clone())),
            }
        }
        Pass {
            taken,
            damaged,
            listed: listed.len(),
            unsettled,
        }
    }

    /// Takes over one request that stands on a node's list.
    async fn take_one(&self, from: &str, is_late: bool, bucket: i64, id: &RequestId) -> Look {
        let is_own = from == self.node_id();
        let read_us = write_time_us(self.place());
        // Before the read: a minute that turns quiet during it has had no serial one.
        let is_quiet = is_quiet(bucket, self.place());
        let Ok(found) = self.find_listed(is_own || is_quiet, id).await else {
            return Look::Damaged;
        };
        let is_theirs = |found: &&Found| found.far.owner == from && found.length.is_some();
        let look = match found.as_ref().filter(is_theirs) {
            // On the list for a claim, or a takeover, that is perhaps only about to be made.
            None if !is_late || (found.is_none() && !is_quiet) => Look::Unsettled,
            None if is_own => {
                self.remove_open(bucket, id).await;
                return Look::Left;
            }
            None => {
                self.strike(from, bucket, id, read_us).await;
                Look::Left
            }
            Some(found) if is_own && found.incarnation == self.incarnation() => Look::Left,
            // A pass may take long, and the node be back: it goes on with what it has.
            Some(_) if !is_own && self.is_alive(from) => Look::Left,
            Some(found) if self.take(found, bucket, id).await => {
                if !is_own {
                    self.strike(from, bucket, id, write_time_us(self.place())).await;
                }
                Look::Taken
            }
            Some(_) => Look::Left,
        };
        if is_own && !matches!(look, Look::Unsettled) {
            self.index.let_go(bucket, id);
        }
        look
    }

    /// A request that stands on a list. `for_good`: of one that is to be settled it is waited for what was on its way, as a serial read
    /// leaves no condition behind that may hold after it. Fails as [`Self::read_whole`].
    async fn find_listed(&self, for_good: bool, id: &RequestId) -> Result<Option<Found>, Damaged> {
        self.read_whole("read a request that is to be taken over", async |tables| {
            match tables.request(id).await? {
                None if for_good => self.find_decided(tables, id).await,
                found => Ok(found),
            }
        })
        .await
    }

    /// Repeats a read until it succeeds, but for what is damaged, which would be so the next time too.
    async fn read_whole<R>(
        &self,
        what: &'static str,
        read: impl AsyncFn(&T) -> Result<R, Failed>,
    ) -> Result<R, Damaged> {
        let done = self.until_done(what, async |tables| match read(tables).await {
            Err(error) if !error.is_broken() => Err(error),
            done => Ok(done),
        });
        done.await.map_err(|error| {
            if self.may_complain("take over what cannot be read") {
                tracing::error!(%error, "a damaged request is not taken over");
            }
            Damaged
        })
    }

    /// Whether a node is alive, as was heard last.
    fn is_alive(&self, name: &str) -> bool {
        self.nodes.borrow().nodes().iter().any(|node| node.node_id == name)
    }

    /// Takes over a request that a node hands over, which takes it off its own list, and says whether it did.
    pub(super) async fn take_handed(&self, inbox: &Inbox, handed: Handed) {
        let is_taken = {
            let _slot = self.background().await;
            self.leases.is_held() && self.reach.is_up() && self.take_from_giver(&handed).await
        };
        inbox.send(FromClaims::HandOver(handed, is_taken));
    }

    async fn take_from_giver(&self, handed: &Handed) -> bool {
        let Handed { request_id, from, .. } = handed;
        let found = self
            .until_done("read a request that is handed over", async |tables| {
                tables.request(request_id).await
            })
            .await;
        let is_theirs = |found: &&Found| found.far.owner == *from && found.length.is_some();
        match found.as_ref().filter(is_theirs) {
            Some(found) => self.take(found, bucket_of(handed.received_at_ms), request_id).await,
            None => false,
        }
    }

    /// Takes a request off a dead node's list. What is written there later stays.
    async fn strike(&self, from: &str, bucket: i64, id: &RequestId, at_us: i64) {
        self.until_done("take a request off a list", async |tables| {
            tables.remove_open(from, bucket, id, at_us).await
        })
        .await;
    }

    /// Makes a request this node's, if it is still as it was found, and gives it to its home.
    async fn take(&self, found: &Found, bucket: i64, id: &RequestId) -> bool {
        let Ok(fold) = Fold::of(&found.decided) else {
            tracing::error!(request = %id, "a request in Cassandra does not fold and is left alone");
            return false;
        };
        let head = Head::of(&fold, &found.decided);
        let own = Ownership {
            request_id: id,
            incarnation: self.incarnation(),
            epoch: found.epoch + 1,
            length: found.length.unwrap_or(0),
            received_at_ms: fold.received_at_ms,
            head: &head,
        };
        let before = Before {
            owner: &found.far.owner,
            incarnation: found.incarnation,
            epoch: found.epoch,
            length: own.length,
        };
        self.index.hold(bucket, id);
        let change = self
            .until_done("take over a request", async |tables| {
                if before.owner == self.node_id() {
                    self.index.know(bucket);
                } else {
                    self.add_open(tables, bucket, id).await?;
                }
                self.change(tables, LwtKind::Takeover, &own, before, None).await
            })
            .await;
        if let Change::Refused(_) = change {
            if before.owner == self.node_id() {
                self.index.let_go(bucket, id);
            } else {
                self.remove_open(bucket, id).await;
            }
            return false;
        }
        self.metrics().adopted.inc();
        let adopted = Adopted {
            log: RequestLog {
                request_id: id.clone(),
                log: found.decided.clone(),
            },
            last_from: found.last_from,
            epoch: own.epoch,
            is_foreign: found.is_foreign_to(self.node_id()),
            from: found.far.owner.clone(),
        };
        self.inboxes.home_of(id).send(FromClaims::Adopted(Box::new(adopted)));
        true
    }

    /// Whose is a request that the last boot left open and that was not on its list? Takes it over when it is that boot's,
    /// claims it when it is nobody's: from before this node was in a fleet.
    pub(super) async fn reclaim(&self, inbox: &Inbox, log: RequestLog) {
        let id = log.request_id.clone();
        let Some(received_at_ms) = log.log.first().map(|first| first.at_ms) else {
            return;
        };
        let bucket = bucket_of(received_at_ms);
        self.index.hold(bucket, &id);
        let _slot = self.background().await;
        loop {
            let read = self.read_whole("read a request of the last boot", async |tables| {
                self.find_decided(tables, &id).await
            });
            let Ok(found) = read.await else { return };
            let Some(found) = found else {
                if self.claim_whole(bucket, &log).await {
                    return;
                }
                continue;
            };
            if found.far.owner != self.node_id() {
                self.keep_rest(&found, &log).await;
                return inbox.send(FromClaims::NotMine(NotMine {
                    request_id: id,
                    owner: found.far.owner,
                    epoch: Some(found.epoch),
                    is_reclaimed: true,
                }));
            }
            if found.incarnation == self.incarnation() || self.take(&found, bucket, &id).await {
                // Who took it holds it.
                self.index.let_go(bucket, &id);
                return;
            }
        }
    }

    /// Claims a request that only this node knows, with all its steps.
    async fn claim_whole(&self, bucket: i64, log: &RequestLog) -> bool {
        let id = &log.request_id;
        let Ok(fold) = Fold::of(&log.log) else { return true };
        let head = Head::of(&fold, &log.log);
        let own = Ownership {
            request_id: id,
            incarnation: self.incarnation(),
            epoch: 0,
            length: log.log.len() as u32,
            received_at_ms: fold.received_at_ms,
            head: &head,
        };
        let change = self
            .until_done("claim a request of the last boot", async |tables| {
                self.add_open(tables, bucket, id).await?;
                let steps = Steps {
                    seq: 1,
                    entries: &log.log,
                };
                self.claim(tables, &own, steps).await
            })
            .await;
        if let Change::Refused(_) = change {
            return false;
        }
        let adopted = Adopted {
            log: log.clone(),
            last_from: log.log.len(),
            epoch: 0,
            is_foreign: false,
            from: self.node_id().into(),
        };
        self.inboxes.home_of(id).send(FromClaims::Adopted(Box::new(adopted)));
        true
    }

    /// What the last boot journaled of a request that another node has now, and nobody stored: for its audit.
    async fn keep_rest(&self, found: &Found, log: &RequestLog) {
        let pairs = log.log.iter().zip(&found.decided);
        let common = pairs.take_while(|(own, stored)| own == stored).count();
        let rest: Vec<LogEntry> = log.log[common..].to_vec();
        if rest.is_empty() || common == 0 {
            return;
        }
        let epoch = found.epochs.iter().rev().find(|(from, _)| *from < common);
        let epoch = epoch.map_or(0, |(_, epoch)| *epoch);
        self.keep_receipts(&log.request_id, epoch, common as u32 + 1, rest)
            .await;
    }
}

/// The survivor who is to take over this request: of the greatest weight for it.
fn chosen<'a>(nodes: &'a NodeList, id: &RequestId) -> Option<&'a str> {
    nodes.heir(id.hash64())
}

impl<T: Tables, P: Place> Owner<T, P> {
    /// Everything on a node's list of open requests. Minutes in which there is nothing any more leave it.
    async fn list_open(&self, tables: &T, from: &str) -> Result<Vec<(i64, RequestId)>, Failed> {
        let minutes = tables.buckets_of(from).await?.into_iter();
        let reads = minutes.map(|bucket| async move {
            let ids = tables.open_in(from, bucket).await?;
            if ids.is_empty() && is_quiet(bucket, self.place()) {
                tables.remove_bucket(from, bucket, write_time_us(self.place())).await?;
            }
            Ok::<_, Failed>(ids.into_iter().map(move |id| (bucket, id)).collect::<Vec<_>>())
        });
        let mut reads = stream::iter(reads).buffered(self.config.background_max);
        let mut listed = Vec::new();
        while let Some(ids) = reads.next().await {
            listed.extend(ids?);
        }
        Ok(listed)
    }
}
