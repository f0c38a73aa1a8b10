//! What requests decide, stored on conditions: claims of new requests and steps of those that this node owns.
//!
//! `length`, the number of steps stored, makes every decision one that can be told from all others of its request. So one that timed
//! out is simply sent again: when it was applied meanwhile, the condition fails, and a serial read finds owner, incarnation and
//! `length` as this decision leaves them. One that arrives late, from a coordinator that hung, finds another `length`.
//!
//! Every decision is a task of its own; at most `fleet_cassandra_writes_max` are on their way, and fewer while Cassandra is slow
//! ([`super::pace`]). Nothing is given up but new requests that have not been sent yet when their callers have waited for long.

use super::Owner;
use super::bindings::Bound;
use super::index::bucket_of;
use super::pace::Seat;
use super::port::{Before, Binding, Failed, OwnerRow, Ownership, Place, Steps, Tables, within};
use crate::cold::claims::{Decision, FromClaims, Inbox};
use crate::fsm::ids::RequestId;
use crate::ops::metrics::LwtKind;
use futures_util::future::{Either, select};
use std::pin::pin;

/// What became of a condition.
pub(super) enum Change {
    /// It held; the request is as it was to be.
    Done,
    /// It did not. `None`: there is no such request.
    Refused(Option<OwnerRow>),
}

impl<T: Tables, P: Place> Owner<T, P> {
    /// Leave for a new request; `None`: its callers have waited for too long, and it was not sent.
    async fn newcomer(&self, decision: &Decision) -> Option<Option<Seat<'_>>> {
        if decision.stored > 0 {
            return Some(None);
        }
        let seat = within(self.place(), self.config.timeout, self.reach.pace().newcomer()).await;
        seat.map(Some)
    }

    /// Stores a decision and says what became of it.
    pub(super) async fn decide(&self, inbox: &Inbox, decision: &Decision) {
        let began = self.place().now();
        let Some(_seat) = self.newcomer(decision).await else {
            self.metrics().decisions.dec();
            return inbox.answer(FromClaims::Withdrawn(decision.token));
        };
        let bucket = bucket_of(decision.received_at_ms);
        if decision.stored == 0 {
            self.index.hold(bucket, &decision.request_id);
        }
        let settling = pin!(self.until_done("store a decision", async |tables| self.attempt(tables, decision).await));
        let answer = match select(settling, pin!(self.place().sleep(self.config.timeout))).await {
            Either::Left((answer, _)) => answer,
            Either::Right(((), settling)) => {
                inbox.send(FromClaims::Delayed(decision.token));
                settling.await
            }
        };
        let metrics = self.metrics();
        let took = self.place().now().saturating_sub(began);
        metrics.lwt_latency.record_us(took.as_micros() as u64);
        metrics.decisions.dec();
        let stands = matches!(answer, FromClaims::Stored(_));
        match answer {
            FromClaims::Fenced(..) => metrics.fenced.inc(),
            // Its row was written before it was known whose the request is.
            FromClaims::Lost(_, ref far) => {
                let is_own = far.owner == self.node_id();
                inbox.answer(answer);
                if is_own {
                    // Of an earlier boot, whose requests are about to be taken over: what is on the list stays.
                    self.index.let_go(bucket, &decision.request_id);
                    return;
                }
                return self.remove_open(bucket, &decision.request_id).await;
            }
            _ => {}
        }
        inbox.answer(answer);
        if let Some(driver_id) = decision.release.as_ref().filter(|_| stands) {
            self.release(&decision.request_id, driver_id).await;
        }
    }

    async fn attempt(&self, tables: &T, decision: &Decision) -> Result<FromClaims, Failed> {
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
            request_id,
            incarnation: self.incarnation(),
            epoch: *epoch,
            length: stored + steps.len() as u32,
            received_at_ms: *received_at_ms,
            head,
        };
        let steps = Steps {
            seq: stored + 1,
            entries: steps,
        };
        if *stored == 0 {
            self.add_open(tables, bucket_of(*received_at_ms), request_id).await?;
            return Ok(match self.claim(tables, &own, steps).await? {
                Change::Done => FromClaims::Stored(*token),
                Change::Refused(_) => {
                    let found = self.find_decided(tables, request_id).await?;
                    let found = found.ok_or_else(|| Failed::again("a request that was there has expired"))?;
                    FromClaims::Lost(*token, Box::new(found.far))
                }
            });
        }
        if let Some((driver_id, trip_id)) = bind {
            let binding = Binding {
                driver_id,
                request_id,
                trip_id,
                received_at_ms: *received_at_ms,
            };
            if self.bind(tables, &binding).await? == Bound::Elsewhere {
                return Ok(FromClaims::DriverBound(*token));
            }
        }
        let before = Before {
            owner: self.node_id(),
            incarnation: own.incarnation,
            epoch: own.epoch,
            length: *stored,
        };
        let changed = self.change(tables, LwtKind::Transition, &own, before, Some(steps));
        Ok(match changed.await? {
            Change::Done => FromClaims::Stored(*token),
            Change::Refused(_) => FromClaims::Fenced(*token, self.loss_of(tables, decision).await?),
        })
    }

    /// Makes a request this node's that is nobody's.
    pub(super) async fn claim(&self, tables: &T, own: &Ownership<'_>, steps: Steps<'_>) -> Result<Change, Failed> {
        if self.conditional(LwtKind::Claim, tables.claim(own, steps)).await? {
            return Ok(Change::Done);
        }
        self.look(tables, own).await
    }

    /// Changes a request that stands as in `before`.
    pub(super) async fn change(
        &self,
        tables: &T,
        kind: LwtKind,
        own: &Ownership<'_>,
        before: Before<'_>,
        steps: Option<Steps<'_>>,
    ) -> Result<Change, Failed> {
        if self.conditional(kind, tables.change(own, before, steps)).await? {
            return Ok(Change::Done);
        }
        match self.look(tables, own).await? {
            Change::Refused(Some(row)) if row.is(before) => Err(Failed::again("a condition failed that holds")),
            looked => Ok(looked),
        }
    }

    /// After a condition that did not hold: perhaps since the same was done before, when nobody heard of it.
    async fn look(&self, tables: &T, own: &Ownership<'_>) -> Result<Change, Failed> {
        let row = self.read_owner(tables, own.request_id).await?;
        let done = Before {
            owner: self.node_id(),
            incarnation: own.incarnation,
            epoch: own.epoch,
            length: own.length,
        };
        let is_own = |row: &OwnerRow| row.is(done);
        if row.as_ref().is_some_and(is_own) {
            return Ok(Change::Done);
        }
        Ok(Change::Refused(row))
    }

    /// How a request stands, as the last condition left it.
    pub(super) async fn read_owner(&self, tables: &T, request_id: &RequestId) -> Result<Option<OwnerRow>, Failed> {
        let _turn = self.permit(LwtKind::Read).await;
        tables.owner_of(request_id).await
    }
}
