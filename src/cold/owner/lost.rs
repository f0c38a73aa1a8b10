//! Requests that this node has lost, or may have: who has them, and what it had noted of them for their audits.

use super::Owner;
use super::found::receipts_place;
use super::port::{Failed, OwnerRow, Place, Steps, Tables};
use crate::cold::claims::{Decision, FromClaims, Inbox, Loss, NotMine};
use crate::fsm::ids::RequestId;
use crate::fsm::types::LogEntry;
use futures_util::future::{Either, select};
use std::pin::pin;

impl<T: Tables, P: Place> Owner<T, P> {
    /// Who has a request that this node has lost, and whether its last decision was stored before that: one that timed out
    /// may have been, and then the new owner took the request over with it.
    pub(super) async fn loss_of(&self, tables: &T, decision: &Decision) -> Result<Loss, Failed> {
        let Some(found) = self.find_decided(tables, &decision.request_id).await? else {
            return Ok(Loss::default());
        };
        let from = decision.stored as usize;
        let there = found.decided.get(from..from + decision.steps.len());
        Ok(Loss {
            owner: found.far.owner,
            stood: there == Some(decision.steps.as_slice()),
        })
    }

    /// Keeps receipts of a request that another node has.
    pub(super) async fn keep_receipts(&self, request_id: &RequestId, epoch: u32, seq: u32, steps: Vec<LogEntry>) {
        let at_ms = steps.first().map_or(0, |first| first.at_ms);
        let receipts = Steps {
            seq: receipts_place(self.node_id(), seq, at_ms),
            entries: &steps,
        };
        self.until_done("keep receipts", async |tables| {
            tables.keep_receipts(request_id, epoch, receipts, at_ms).await
        })
        .await;
    }

    /// Says whether a request is this node's still.
    pub(super) async fn check(&self, inbox: &Inbox, request_id: &RequestId) {
        let row = async {
            let _slot = self.background().await;
            self.until_done("look for an owner", async |tables| {
                self.read_owner(tables, request_id).await
            })
            .await
        };
        let mine =
            |row: &OwnerRow| row.owner.as_deref() == Some(self.node_id()) && row.incarnation == self.incarnation();
        let request_id = request_id.clone();
        let row = match select(pin!(row), pin!(self.place().sleep(self.config.timeout))).await {
            Either::Left((row, _)) => row,
            Either::Right(((), row)) => {
                inbox.send(FromClaims::CheckDelayed(request_id.clone()));
                row.await
            }
        };
        inbox.send(if row.as_ref().is_some_and(mine) {
            FromClaims::Mine(request_id)
        } else {
            let row = row.filter(|row| row.owner.is_some());
            FromClaims::NotMine(NotMine {
                request_id,
                epoch: row.as_ref().map(|row| row.epoch),
                owner: row.and_then(|row| row.owner).unwrap_or_default().into(),
                is_reclaimed: false,
            })
        });
    }
}
