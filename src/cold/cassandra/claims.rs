//! What requests decide, stored on conditions: claims of new requests and steps of those that this node owns.
//!
//! `length`, the number of steps stored, makes every decision one that can be told from all others of its request. So one that timed
//! out is simply sent again: when it was applied meanwhile, the condition fails, and a serial read finds owner, incarnation and
//! `length` as this decision leaves them. One that arrives late, from a coordinator that hung, finds another `length`.
//!
//! Every decision is a task of its own; at most `fleet_cassandra_writes_max` are on their way, and fewer while Cassandra is slow
//! ([`super::pace`]). Nothing is given up but new requests that have not been sent yet when their callers have waited for long.

use super::bindings::Bound;
use super::claim_statements::{Ownership, StepsValues, change_values, claim_values, steps_values};
use super::index::{Index, bucket_of};
use super::pace::{Place, Turn};
use super::reads::unread;
use super::session::{CassandraError, Ready};
use super::statements::Found;
use super::takeover;
use super::{Core, PAUSE_MAX, PAUSE_MIN};
use crate::cold::claims::{Decision, FromClaims, Inbox, Inboxes, ToClaims};
use crate::cold::port::StoreError;
use crate::cold::registry::NodeList;
use crate::fsm::ids::RequestId;
use crate::ops::metrics::LwtKind;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlTimestamp, CqlValue, Row};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

/// Between two lines in the log about one thing that does not succeed.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(10);

/// Why something is not done, or not known to be done.
#[derive(Debug)]
pub(super) struct Failed(String);

impl Failed {
    /// It is to be tried again at once, in effect: somebody else was faster.
    pub(super) fn again(why: &str) -> Self {
        Self(why.to_owned())
    }

    /// What is stored cannot be understood.
    pub(super) fn broken(why: &str) -> Self {
        Self(why.to_owned())
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self(error.message)
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ready {
    /// A write without a condition.
    ///
    /// # Errors
    /// Cassandra did not say that it is done.
    pub(super) async fn write(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<(), Failed> {
        let done = self.session.execute_unpaged(statement, values).await;
        done.map(drop)
            .map_err(|error| Failed(CassandraError::new("cannot write", error).to_string()))
    }
}

/// How a request stands with its owner.
pub(super) struct OwnerRow {
    pub(super) owner: Option<String>,
    pub(super) incarnation: u64,
    pub(super) epoch: u32,
    pub(super) length: u32,
}

/// What became of a condition.
pub(super) enum Change {
    /// It held; the request is as it was to be.
    Done,
    /// It did not. `None`: there is no such request.
    Refused(Option<OwnerRow>),
}

/// What this node does as an owner of requests.
pub(super) struct Owner {
    pub(super) core: Arc<Core>,
    ready: watch::Receiver<Option<Arc<Ready>>>,
    pub(super) inboxes: Arc<Inboxes>,
    pub(super) index: Index,
    /// This boot; 0 until the shards are there.
    incarnation: AtomicU64,
    pub(super) nodes: watch::Sender<Arc<NodeList>>,
    /// Work that nobody waits for: a part of all that may be on its way, so that decisions do not stand behind it.
    background: Semaphore,
    /// When it was logged last that something does not succeed.
    complained: Mutex<HashMap<&'static str, Instant>>,
    /// Tasks that are under way.
    busy: watch::Sender<usize>,
}

/// A task that the end of the thread waits for.
struct Busy(Arc<Owner>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.send_modify(|count| *count -= 1);
    }
}

/// Serves until the shards are gone.
pub(super) async fn serve(owner: Arc<Owner>, mut asked: UnboundedReceiver<ToClaims>) {
    let sweep = Arc::clone(&owner);
    tokio::task::spawn_local(async move { sweep.sweep_index().await });
    while let Some(ask) = asked.recv().await {
        owner.hear(ask);
    }
}

impl Owner {
    pub(super) fn new(
        core: &Arc<Core>,
        ready: watch::Receiver<Option<Arc<Ready>>>,
        inboxes: Arc<Inboxes>,
    ) -> Arc<Self> {
        Arc::new(Self {
            core: Arc::clone(core),
            ready,
            inboxes,
            index: Index::default(),
            incarnation: AtomicU64::new(0),
            nodes: watch::Sender::new(Arc::default()),
            background: Semaphore::new(core.config.background_max()),
            complained: Mutex::default(),
            busy: watch::Sender::new(0),
        })
    }

    fn hear(self: &Arc<Self>, ask: ToClaims) {
        match ask {
            ToClaims::Begin { incarnation, done } => {
                self.incarnation.store(incarnation, Ordering::Release);
                tokio::task::spawn_local(takeover::run(Arc::clone(self), done));
            }
            ToClaims::Decide(inbox, decision) => {
                self.core.metrics.decisions.inc();
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
            ToClaims::Nodes(nodes) => drop(self.nodes.send_replace(nodes)),
        }
    }

    fn spawn<F: Future<Output = ()> + 'static>(self: &Arc<Self>, work: impl FnOnce(Arc<Self>) -> F) {
        self.busy.send_modify(|count| *count += 1);
        let busy = Busy(Arc::clone(self));
        let work = work(Arc::clone(self));
        tokio::task::spawn_local(async move {
            work.await;
            drop(busy);
        });
    }

    /// Returns when nothing is under way.
    pub(super) async fn settled(&self) {
        drop(self.busy.subscribe().wait_for(|count| *count == 0).await);
    }

    pub(super) fn node_id(&self) -> &str {
        &self.core.config.node_id
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// The connection, once there is one.
    pub(super) async fn connected(&self) -> Arc<Ready> {
        let mut ready = self.ready.clone();
        match ready.wait_for(Option::is_some).await.map(|ready| ready.clone()) {
            Ok(Some(ready)) => ready,
            // Nobody connects any more: the thread ends.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Repeats `work` until it succeeds.
    pub(super) async fn until_done<T>(&self, what: &'static str, work: impl AsyncFn(&Ready) -> Result<T, Failed>) -> T {
        let mut pause = PAUSE_MIN / 4;
        loop {
            let ready = self.connected().await;
            let error = match work(&ready).await {
                Ok(done) => return done,
                Err(error) => error,
            };
            if self.may_complain(what) {
                tracing::warn!(%error, "cannot {what} in Cassandra yet");
            }
            self.core.wait_out(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Whether a line about this was not written for a while.
    fn may_complain(&self, what: &'static str) -> bool {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = complained.get(what).is_none_or(|at| at.elapsed() >= COMPLAINT_PERIOD);
        if is_due {
            complained.insert(what, Instant::now());
        }
        is_due
    }

    /// Leave for a new request; `None`: its callers have waited for too long, and it was not sent.
    async fn newcomer(&self, decision: &Decision) -> Option<Option<Place<'_>>> {
        if decision.stored > 0 {
            return Some(None);
        }
        let place = tokio::time::timeout(self.core.config.timeout, self.core.pace.newcomer()).await;
        place.ok().map(Some)
    }

    /// Stores a decision and says what became of it.
    async fn decide(&self, inbox: &Inbox, decision: &Decision) {
        let began = Instant::now();
        let Some(_slot) = self.newcomer(decision).await else {
            self.core.metrics.decisions.dec();
            return inbox.answer(FromClaims::Withdrawn(decision.token));
        };
        let settling = self.until_done("store a decision", async |ready| self.attempt(ready, decision).await);
        tokio::pin!(settling);
        let answer = tokio::select! {
            answer = &mut settling => answer,
            () = tokio::time::sleep(self.core.config.timeout) => {
                inbox.send(FromClaims::Delayed(decision.token));
                settling.await
            }
        };
        let metrics = &self.core.metrics;
        metrics.lwt_latency.record_us(began.elapsed().as_micros() as u64);
        metrics.decisions.dec();
        let stands = matches!(answer, FromClaims::Stored(_));
        match answer {
            FromClaims::Fenced(..) => metrics.fenced.inc(),
            // Its row was written before it was known whose the request is.
            FromClaims::Lost(..) => {
                inbox.answer(answer);
                let bucket = bucket_of(decision.received_at_ms);
                return self.remove_open(bucket, &decision.request_id).await;
            }
            _ => {}
        }
        inbox.answer(answer);
        if let Some(driver_id) = decision.release.as_ref().filter(|_| stands) {
            self.release(&decision.request_id, driver_id).await;
        }
    }

    /// Leave for one round of Paxos.
    pub(super) async fn permit(&self, kind: LwtKind) -> Turn<'_> {
        let turn = self.core.pace.turn().await;
        self.core.metrics.lwts.of(kind).inc();
        turn
    }

    /// Leave for work that nobody waits for.
    ///
    /// # Panics
    /// Never: the semaphore is not closed.
    pub(super) async fn background(&self) -> SemaphorePermit<'_> {
        self.background.acquire().await.expect("nobody closes it")
    }

    async fn attempt(&self, ready: &Ready, decision: &Decision) -> Result<FromClaims, Failed> {
        let Decision {
            token,
            request_id,
            epoch,
            stored,
            steps,
            head,
            received_at_ms,
            bind,
            ..
        } = decision;
        let own = Ownership {
            request_id: request_id.as_str(),
            incarnation: self.incarnation(),
            epoch: *epoch,
            length: stored + steps.len() as u32,
            received_at_ms: *received_at_ms,
            head,
        };
        let row = steps_values(
            &self.core.config,
            own.request_id,
            *epoch,
            (stored + 1, steps),
            *received_at_ms,
        )?;
        if *stored == 0 {
            self.add_open(ready, bucket_of(*received_at_ms), request_id).await?;
            return Ok(match self.claim(ready, &own, row).await? {
                Change::Done => FromClaims::Stored(*token),
                Change::Refused(_) => {
                    let found = self.find_decided(ready, request_id).await?;
                    let found = found.ok_or_else(|| Failed::again("a request that was there has expired"))?;
                    FromClaims::Lost(*token, Box::new(found.far))
                }
            });
        }
        if let Some((driver_id, trip_id)) = bind
            && self
                .bind(ready, (request_id, *received_at_ms), driver_id, trip_id)
                .await?
                == Bound::Elsewhere
        {
            return Ok(FromClaims::DriverBound(*token));
        }
        let before = (self.node_id(), self.incarnation(), *stored);
        Ok(
            match self.change(ready, LwtKind::Transition, &own, before, Some(row)).await? {
                Change::Done => FromClaims::Stored(*token),
                Change::Refused(_) => FromClaims::Fenced(*token, self.loss_of(ready, decision).await?),
            },
        )
    }

    /// Makes a request this node's that is nobody's.
    pub(super) async fn claim(&self, ready: &Ready, own: &Ownership<'_>, row: StepsValues) -> Result<Change, Failed> {
        let values = claim_values(&self.core.config, own);
        let statements = (&ready.claims.claim, &ready.claims.insert_steps);
        if self.lwt_batch(ready, LwtKind::Claim, statements, (values, row)).await? {
            return Ok(Change::Done);
        }
        self.look(ready, own).await
    }

    /// Changes a request whose owner, incarnation and length are as in `before`.
    pub(super) async fn change(
        &self,
        ready: &Ready,
        kind: LwtKind,
        own: &Ownership<'_>,
        before: (&str, u64, u32),
        row: Option<StepsValues>,
    ) -> Result<Change, Failed> {
        let values = change_values(&self.core.config, own, before);
        let statements = (&ready.claims.change, &ready.claims.insert_steps);
        let applied = match row {
            Some(row) => self.lwt_batch(ready, kind, statements, (values, row)).await?,
            None => self.lwt(ready, kind, &ready.claims.change, values).await?,
        };
        if applied {
            return Ok(Change::Done);
        }
        match self.look(ready, own).await? {
            Change::Refused(Some(row)) if row.is(before) => Err(Failed::again("a condition failed that holds")),
            looked => Ok(looked),
        }
    }

    /// After a condition that did not hold: perhaps since the same was done before, when nobody heard of it.
    async fn look(&self, ready: &Ready, own: &Ownership<'_>) -> Result<Change, Failed> {
        let row = self.read_owner(ready, own.request_id).await?;
        let is_own = |row: &OwnerRow| row.is((self.node_id(), own.incarnation, own.length)) && row.epoch == own.epoch;
        if row.as_ref().is_some_and(is_own) {
            return Ok(Change::Done);
        }
        Ok(Change::Refused(row))
    }

    /// How a request stands, as the last condition left it.
    pub(super) async fn read_owner(&self, ready: &Ready, request_id: &str) -> Result<Option<OwnerRow>, Failed> {
        type Columns = (
            Option<String>,
            Option<i64>,
            Option<i32>,
            Option<i32>,
            Option<CqlTimestamp>,
        );
        let _permit = self.permit(LwtKind::Read).await;
        let asked = ready.session.execute_unpaged(&ready.claims.select_owner, (request_id,));
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let found = rows.maybe_first_row::<Columns>().map_err(unread)?;
        Ok(found.map(|(owner, incarnation, epoch, length, _)| OwnerRow {
            owner,
            incarnation: incarnation.unwrap_or(0) as u64,
            epoch: epoch.unwrap_or(0) as u32,
            length: length.unwrap_or(0) as u32,
        }))
    }

    /// A whole request, as the last condition left it.
    pub(super) async fn find_decided(&self, ready: &Ready, request_id: &RequestId) -> Result<Option<Found>, Failed> {
        let _permit = self.permit(LwtKind::Read).await;
        Ok(ready.find_decided(request_id).await?)
    }

    /// A conditional write; says whether its condition held.
    ///
    /// # Errors
    /// Not known.
    pub(super) async fn lwt(
        &self,
        ready: &Ready,
        kind: LwtKind,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<bool, Failed> {
        let _permit = self.permit(kind).await;
        let done = ready.session.execute_unpaged(statement, values).await;
        self.applied(done.map_err(|error| Failed(format!("a conditional write failed: {error}"))))
    }

    async fn lwt_batch(
        &self,
        ready: &Ready,
        kind: LwtKind,
        (condition, steps): (&PreparedStatement, &PreparedStatement),
        values: (impl SerializeRow, impl SerializeRow),
    ) -> Result<bool, Failed> {
        let _permit = self.permit(kind).await;
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        batch.append_statement(condition.clone());
        batch.append_statement(steps.clone());
        let done = ready.session.batch(&batch, values).await;
        self.applied(done.map_err(|error| Failed(format!("a conditional write failed: {error}"))))
    }

    /// The first column of a conditional write's answer. The others differ: Cassandra shows the row only when the condition
    /// failed, Scylla always.
    fn applied(&self, answer: Result<QueryResult, Failed>) -> Result<bool, Failed> {
        let read = || -> Result<Option<bool>, StoreError> {
            let Ok(answer) = &answer else { return Ok(None) };
            let rows = answer.clone().into_rows_result().map_err(unread)?;
            let row = rows.first_row::<Row>().map_err(unread)?;
            Ok(row
                .columns
                .first()
                .cloned()
                .flatten()
                .as_ref()
                .and_then(CqlValue::as_boolean))
        };
        if let Some(applied) = read()? {
            return Ok(applied);
        }
        self.core.metrics.lwts_unknown.inc();
        Err(answer
            .err()
            .unwrap_or_else(|| Failed::broken("an answer without [applied]")))
    }
}

impl OwnerRow {
    fn is(&self, (owner, incarnation, length): (&str, u64, u32)) -> bool {
        self.owner.as_deref() == Some(owner) && self.incarnation == incarnation && self.length == length
    }
}
