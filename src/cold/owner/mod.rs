//! Owners of requests: the logic of who decides about a request, over the tables that all nodes share.
//!
//! It stores what requests decide ([`decisions`]), binds drivers to their one trip ([`bindings`]), keeps the list of what is open where
//! ([`index`]), takes over from nodes that died and from this node's last boot ([`takeover`]), knows who has what was lost ([`lost`]), says
//! that this node lives and looks who else does ([`beats`]), and asks no faster than the tables answer ([`pace`]). What it stands on is in
//! [`port`]: Cassandra on its thread, or a simulator's tables and time.
//!
//! Every decision is a task of its own, all of them on one thread. Must never: be waited for by a shard, give a request to a shard
//! before this node is its owner, or take a condition that was not answered for one that failed.

mod beats;
mod bindings;
mod decisions;
mod found;
mod index;
mod lost;
mod pace;
pub mod port;
mod reach;
mod takeover;

pub use found::{Found, FoundHead, FoundRow, receipts_place};
pub use port::{Before, Binding, Failed, OwnerRow, Ownership, Place, Steps, Tables};
pub use reach::{PAUSE_MAX, PAUSE_MIN, Reach};

use super::claims::{Inboxes, ToClaims};
use super::registry::NodeList;
use crate::fsm::ids::RequestId;
use crate::ops::metrics::{CassandraMetrics, LwtKind};
use beats::Leases;
use index::{Index, bucket_of};
use pace::Turn;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Between two lines in the log about one thing that does not succeed.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(10);

/// What an owner has to know of its node.
#[derive(Clone, Debug)]
pub struct OwnerConfig {
    /// The node's name.
    pub node_id: String,
    /// For one call on the tables.
    pub timeout: Duration,
    /// Of what nobody waits for so much is under way at once.
    pub background_max: usize,
    /// Whether this node has a lease in a registry, or would have one.
    pub has_registry: bool,
}

/// What this node does as an owner of requests.
pub struct Owner<T, P> {
    config: OwnerConfig,
    reach: Arc<Reach<P>>,
    ready: watch::Receiver<Option<Arc<T>>>,
    inboxes: Arc<Inboxes>,
    index: Index,
    /// This boot; 0 until the shards are there.
    incarnation: AtomicU64,
    nodes: watch::Sender<Arc<NodeList>>,
    leases: Leases,
    /// Work that nobody waits for: a part of all that may be on its way, so that decisions do not stand behind it.
    background: Semaphore,
    /// When it was logged last that something does not succeed.
    complained: Mutex<HashMap<&'static str, Duration>>,
    /// Tasks that are under way.
    busy: watch::Sender<usize>,
}

/// A task that the end of the thread waits for.
struct Busy<T, P>(Rc<Owner<T, P>>);

impl<T, P> Drop for Busy<T, P> {
    fn drop(&mut self) {
        self.0.busy.send_modify(|count| *count -= 1);
    }
}

impl<T: Tables, P: Place> Owner<T, P> {
    /// Of this node. Nothing is asked before there are tables in `ready`; shards are answered in their `inboxes`.
    pub fn new(
        config: OwnerConfig,
        reach: &Arc<Reach<P>>,
        ready: watch::Receiver<Option<Arc<T>>>,
        inboxes: Arc<Inboxes>,
    ) -> Rc<Self> {
        Rc::new(Self {
            background: Semaphore::new(config.background_max),
            leases: Leases::new(!config.has_registry),
            config,
            reach: Arc::clone(reach),
            ready,
            inboxes,
            index: Index::default(),
            incarnation: AtomicU64::new(0),
            nodes: watch::Sender::new(Arc::default()),
            complained: Mutex::default(),
            busy: watch::Sender::new(0),
        })
    }

    /// Serves until the shards are gone.
    pub async fn serve(self: Rc<Self>, mut asked: UnboundedReceiver<ToClaims>) {
        let sweep = Rc::clone(&self);
        self.place().spawn(async move { sweep.sweep_index().await });
        while let Some(ask) = asked.recv().await {
            self.hear(ask);
        }
    }

    fn hear(self: &Rc<Self>, ask: ToClaims) {
        match ask {
            ToClaims::Begin { incarnation, done } => {
                self.incarnation.store(incarnation, Ordering::Release);
                let beats = Rc::clone(self);
                self.place().spawn(async move { beats.keep_beating().await });
                self.place().spawn(takeover::run(Rc::clone(self), done));
            }
            ToClaims::Decide(inbox, decision) => {
                self.metrics().decisions.inc();
                self.spawn(async move |owner| owner.decide(&inbox, &decision).await);
            }
            ToClaims::Receipts {
                request_id,
                epoch,
                seq,
                steps,
            } => self.spawn(async move |owner| owner.keep_receipts(&request_id, epoch, seq, steps).await),
            ToClaims::Reclaim(inbox, log) => self.spawn(async move |owner| owner.reclaim(&inbox, *log).await),
            ToClaims::Check(inbox, request_id) => {
                self.spawn(async move |owner| owner.check(&inbox, &request_id).await);
            }
            ToClaims::HandOver(inbox, handed) => {
                self.spawn(async move |owner| owner.take_handed(&inbox, handed).await);
            }
            ToClaims::Over(request_id, received_at_ms) => {
                let bucket = bucket_of(received_at_ms);
                self.spawn(async move |owner| owner.remove_open(bucket, &request_id).await);
            }
            ToClaims::Nodes(nodes) => {
                self.leases.see(&nodes);
                self.nodes.send_replace(nodes);
            }
            ToClaims::Lease(is_held) => self.leases.hold(is_held),
        }
    }

    fn spawn<F: Future<Output = ()> + 'static>(self: &Rc<Self>, work: impl FnOnce(Rc<Self>) -> F) {
        self.busy.send_modify(|count| *count += 1);
        let busy = Busy(Rc::clone(self));
        let work = work(Rc::clone(self));
        self.place().spawn(async move {
            work.await;
            drop(busy);
        });
    }

    /// Returns when nothing is under way.
    pub async fn settled(&self) {
        drop(self.busy.subscribe().wait_for(|count| *count == 0).await);
    }

    fn place(&self) -> &P {
        self.reach.place()
    }

    fn metrics(&self) -> &CassandraMetrics {
        self.reach.metrics()
    }

    fn node_id(&self) -> &str {
        &self.config.node_id
    }

    fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// The tables, once there are any.
    async fn connected(&self) -> Arc<T> {
        let mut ready = self.ready.clone();
        match ready.wait_for(Option::is_some).await.map(|ready| ready.clone()) {
            Ok(Some(ready)) => ready,
            // Nobody connects any more: the thread ends.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Repeats `work` until it succeeds.
    async fn until_done<R>(&self, what: &'static str, work: impl AsyncFn(&T) -> Result<R, Failed>) -> R {
        let mut pause = PAUSE_MIN / 4;
        loop {
            let tables = self.connected().await;
            let error = match work(&tables).await {
                Ok(done) => return done,
                Err(error) => error,
            };
            if self.may_complain(what) {
                tracing::warn!(%error, "cannot {what} in Cassandra yet");
            }
            self.reach.wait_out(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Whether a line about this was not written for a while.
    fn may_complain(&self, what: &'static str) -> bool {
        let now = self.place().now();
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = complained
            .get(what)
            .is_none_or(|at| now.saturating_sub(*at) >= COMPLAINT_PERIOD);
        if is_due {
            complained.insert(what, now);
        }
        is_due
    }

    /// Leave for one round of Paxos.
    async fn permit(&self, kind: LwtKind) -> Turn<'_, P> {
        let turn = self.reach.pace().turn().await;
        self.metrics().lwts.of(kind).inc();
        turn
    }

    /// A conditional write of this kind, in its turn; whether its condition held.
    async fn conditional(
        &self,
        kind: LwtKind,
        write: impl Future<Output = Result<bool, Failed>>,
    ) -> Result<bool, Failed> {
        let _turn = self.permit(kind).await;
        let applied = write.await;
        if applied.is_err() {
            self.metrics().lwts_unknown.inc();
        }
        applied
    }

    /// A whole request, as the last condition left it.
    async fn find_decided(&self, tables: &T, request_id: &RequestId) -> Result<Option<Found>, Failed> {
        let _turn = self.permit(LwtKind::Read).await;
        tables.decided(request_id).await
    }

    /// Leave for work that nobody waits for.
    ///
    /// # Panics
    /// Never: the semaphore is not closed.
    async fn background(&self) -> SemaphorePermit<'_> {
        self.background.acquire().await.expect("nobody closes it")
    }
}
