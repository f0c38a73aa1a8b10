//! Questions that this node alone cannot answer: a request that it does not know, a driver's records on all nodes.
//!
//! Every question is answered in the time that one read may take, and at once while Cassandra is known to be away.

use super::Core;
use super::session::{CassandraError, Ready};
use super::statements::{RecordFound, RequestFound, date, record_of, request_of, timestamp};
use crate::cold::embedded::{FarAsk, RecordsAsk, RowPlace};
use crate::cold::owner::Found;
use crate::cold::port::{Answer, RECORDS_PAGE_ROWS_MAX, RecordsPage, StoreError};
use crate::fsm::ids::{RequestId, TripId};
use crate::fsm::types::RecordRow;
use compact_str::CompactString;
use scylla::statement::prepared::PreparedStatement;
use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;

/// Rows read beyond a page: those at the same millisecond as its mark come again.
const TIES: u32 = 16;

/// Later than any record: the end of the year 9999.
const NEWEST_MS: u64 = 253_402_300_799_999;

/// A record and its node.
type FoundRecord = (RecordRow, CompactString);

/// Answers until the shards are gone.
pub(super) async fn serve(
    core: Arc<Core>,
    mut asks: UnboundedReceiver<FarAsk>,
    ready: watch::Receiver<Option<Arc<Ready>>>,
) {
    while let Some(ask) = asks.recv().await {
        let ready = ready.borrow().clone().filter(|_| core.reach.is_up());
        if let Some(ready) = ready {
            tokio::spawn(answer(Arc::clone(&core), ready, ask));
        } else {
            core.metrics.read_failures.inc();
            ask.fail(StoreError::unavailable("Cassandra does not answer"));
        }
    }
}

async fn answer(core: Arc<Core>, ready: Arc<Ready>, ask: FarAsk) {
    let began = Instant::now();
    let (inbox, token, answer) = match ask {
        FarAsk::Request {
            inbox,
            token,
            request_id,
        } => {
            let found = ready.find_request(&request_id).await;
            let answer = found.map(|found| match found {
                None => Answer::Request(None),
                Some(found) => Answer::RequestElsewhere(Box::new(found.far)),
            });
            (inbox, token, answer)
        }
        FarAsk::Trip { inbox, token, trip_id } => {
            let found = ready.find_trip(&trip_id).await;
            let answer = found.map(|found| match found {
                None => Answer::Trip(None),
                Some(found) => Answer::RequestElsewhere(Box::new(found.far)),
            });
            (inbox, token, answer)
        }
        FarAsk::Records { ask, own } => {
            let found = ready.find_records(&ask).await;
            let limit = page_limit(&ask);
            let answer = found.map(|found| Answer::Records(merge(own, found, limit, &core.config.node_id)));
            (ask.inbox, ask.token, answer)
        }
    };
    core.metrics.reads.inc();
    core.metrics.read_latency.record_us(began.elapsed().as_micros() as u64);
    let answer = answer.unwrap_or_else(|error| {
        core.metrics.read_failures.inc();
        if error.retry {
            core.reach.doubt();
        } else {
            tracing::error!(%error, "Cassandra gave an answer that cannot be used");
        }
        Answer::Failed(error)
    });
    inbox.answer(token, answer);
}

fn page_limit(ask: &RecordsAsk) -> usize {
    ask.limit.clamp(1, RECORDS_PAGE_ROWS_MAX) as usize
}

pub(super) fn unread(error: impl std::fmt::Display) -> StoreError {
    StoreError::unavailable(CassandraError::new("cannot read from Cassandra", error).to_string())
}

impl Ready {
    /// A request as a quorum has it.
    pub(super) async fn find_request(&self, request_id: &RequestId) -> Result<Option<Found>, StoreError> {
        self.find_by(&self.statements.select_request, request_id).await
    }

    /// A request as the last condition left it.
    pub(super) async fn find_decided(&self, request_id: &RequestId) -> Result<Option<Found>, StoreError> {
        self.find_by(&self.claims.select_whole, request_id).await
    }

    /// The request of a trip. One whose acceptance did not come about has another trip, or none.
    async fn find_trip(&self, trip_id: &TripId) -> Result<Option<Found>, StoreError> {
        let asked = self
            .session
            .execute_unpaged(&self.statements.select_trip, (trip_id.as_str(),));
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let Some((Some(text),)) = rows.maybe_first_row::<(Option<String>,)>().map_err(unread)? else {
            return Ok(None);
        };
        let request_id = RequestId::parse(&text).map_err(|_| StoreError::broken("a trip of no request"))?;
        let found = self.find_request(&request_id).await?;
        Ok(found.filter(|found| found.far.trip_id.as_ref() == Some(trip_id)))
    }

    async fn find_by(
        &self,
        statement: &PreparedStatement,
        request_id: &RequestId,
    ) -> Result<Option<Found>, StoreError> {
        let asked = self.session.execute_unpaged(statement, (request_id.as_str(),));
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let rows: Result<Vec<RequestFound>, _> = rows.rows().map_err(unread)?.collect();
        request_of(request_id, rows.map_err(unread)?)
    }

    /// At most one more row than the page has, after its mark.
    async fn find_records(&self, ask: &RecordsAsk) -> Result<Vec<FoundRecord>, StoreError> {
        let before = ask.before.as_deref().map(RowPlace::from_token).transpose()?;
        let Some(day) = date(ask.date) else {
            return Ok(Vec::new());
        };
        let newest = before
            .as_ref()
            .map_or(timestamp(NEWEST_MS), |place| timestamp(place.offer_sent_at_ms));
        let wanted = page_limit(ask) + 1;
        let mut asked = wanted as u32 + TIES;
        loop {
            let values = (ask.driver_id.as_str(), day, newest, asked as i32);
            let answer = self.session.execute_unpaged(&self.statements.select_records, values);
            let rows = answer.await.map_err(unread)?.into_rows_result().map_err(unread)?;
            let is_all = rows.rows_num() < asked as usize;
            let mut found = Vec::with_capacity(wanted);
            for row in rows.rows::<RecordFound>().map_err(unread)? {
                let row = record_of(&ask.driver_id, row.map_err(unread)?)?;
                let is_after = before.as_ref().is_none_or(|place| order_of(&row.0) > order(place));
                if is_after && found.len() < wanted {
                    found.push(row);
                }
            }
            if is_all || found.len() == wanted {
                return Ok(found);
            }
            asked = asked.saturating_mul(2).min(i32::MAX as u32);
        }
    }
}

/// Newest first, as the tables have it.
fn order_of(row: &RecordRow) -> (Reverse<u64>, &str, Reverse<u32>) {
    (
        Reverse(row.offer_sent_at_ms),
        row.request_id.as_str(),
        Reverse(row.attempt),
    )
}

fn order(place: &RowPlace) -> (Reverse<u64>, &str, Reverse<u32>) {
    (
        Reverse(place.offer_sent_at_ms),
        place.request_id.as_str(),
        Reverse(place.attempt),
    )
}

/// This node's page and what Cassandra has, each in order and each beginning at the same place, as one page. What is in both
/// is this node's.
fn merge(own: RecordsPage, found: Vec<FoundRecord>, limit: usize, node: &str) -> RecordsPage {
    let has_more = own.next_before.is_some();
    let own = own.rows.into_iter().map(|row| (row, CompactString::from(node)));
    let mut all: Vec<FoundRecord> = own.chain(found).collect();
    // Stable: this node's come first.
    all.sort_by(|one, two| order_of(&one.0).cmp(&order_of(&two.0)));
    all.dedup_by(|two, one| order_of(&two.0) == order_of(&one.0));
    let has_more = has_more || all.len() > limit;
    all.truncate(limit);
    let next_before = all.last().filter(|_| has_more).map(|(row, _)| {
        let place = RowPlace {
            offer_sent_at_ms: row.offer_sent_at_ms,
            request_id: row.request_id.clone(),
            attempt: row.attempt,
        };
        place.to_token()
    });
    let (rows, nodes) = all.into_iter().unzip();
    RecordsPage {
        rows,
        nodes,
        next_before,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::ids::DriverId;
    use crate::fsm::types::ResponseType;

    fn row(at: u64, request: &str, attempt: u32) -> RecordRow {
        RecordRow {
            driver_id: DriverId::parse("d").unwrap(),
            offer_sent_at_ms: at,
            request_id: RequestId::parse(request).unwrap(),
            attempt,
            trip_id: None,
            response_type: ResponseType::Declined,
            response_at_ms: at + 1,
        }
    }

    fn shape(page: &RecordsPage) -> Vec<String> {
        let rows = page.rows.iter().zip(&page.nodes);
        rows.map(|(row, node)| format!("{}/{}/{} {node}", row.offer_sent_at_ms, row.request_id, row.attempt))
            .collect()
    }

    #[test]
    fn pages_of_both_become_one_in_order_and_without_doubles() {
        let own = |rows: Vec<RecordRow>, next: Option<&str>| RecordsPage {
            rows,
            nodes: Vec::new(),
            next_before: next.map(str::to_owned),
        };
        let far = |rows: Vec<RecordRow>| rows.into_iter().map(|row| (row, CompactString::from("b"))).collect();
        let page = merge(
            own(vec![row(9, "r", 2), row(7, "a", 1)], None),
            far(vec![row(9, "r", 2), row(9, "r", 1), row(8, "q", 1)]),
            10,
            "a",
        );
        assert_eq!(shape(&page), ["9/r/2 a", "9/r/1 b", "8/q/1 b", "7/a/1 a"]);
        assert_eq!(page.next_before, None);
        let page = merge(own(vec![row(9, "r", 1)], Some("x")), far(vec![row(8, "q", 1)]), 2, "a");
        assert_eq!(page.next_before.as_deref(), Some("8.1.q"));
        let page = merge(own(vec![], None), far(vec![row(9, "r", 1), row(8, "q", 1)]), 1, "a");
        assert_eq!(
            (shape(&page), page.next_before.as_deref()),
            (vec!["9/r/1 b".to_owned()], Some("9.1.r"))
        );
    }
}
