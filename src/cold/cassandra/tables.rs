//! The tables of owners, as Cassandra has them.

use super::claim_statements::{change_values, claim_values, request_ttl_s, steps_values};
use super::reads::unread;
use super::session::{CassandraError, Ready};
use crate::cold::owner::{Before, Binding, Failed, Found, OwnerRow, Ownership, Steps, Tables};
use crate::cold::port::StoreError;
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::types::UnixMs;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use scylla::value::{CqlTimestamp, CqlValue, Row};

impl Tables for Ready {
    async fn claim(&self, own: &Ownership<'_>, steps: Steps<'_>) -> Result<bool, Failed> {
        let steps = steps_values(&self.config, own.request_id, own.epoch, steps, own.received_at_ms)?;
        let values = (claim_values(&self.config, own), steps);
        self.conditional_batch(&self.claims.claim, values).await
    }

    async fn change(&self, own: &Ownership<'_>, before: Before<'_>, steps: Option<Steps<'_>>) -> Result<bool, Failed> {
        let values = change_values(&self.config, own, before);
        let Some(steps) = steps else {
            return self.conditional(&self.claims.change, values).await;
        };
        let steps = steps_values(&self.config, own.request_id, own.epoch, steps, own.received_at_ms)?;
        self.conditional_batch(&self.claims.change, (values, steps)).await
    }

    async fn owner_of(&self, request_id: &RequestId) -> Result<Option<OwnerRow>, Failed> {
        type Columns = (
            Option<String>,
            Option<i64>,
            Option<i32>,
            Option<i32>,
            Option<CqlTimestamp>,
        );
        let statement = &self.claims.select_owner;
        let asked = self.session.execute_unpaged(statement, (request_id.as_str(),));
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let found = rows.maybe_first_row::<Columns>().map_err(unread)?;
        Ok(found.map(|(owner, incarnation, epoch, length, _)| OwnerRow {
            owner,
            incarnation: incarnation.unwrap_or(0) as u64,
            epoch: epoch.unwrap_or(0) as u32,
            length: length.unwrap_or(0) as u32,
        }))
    }

    async fn decided(&self, request_id: &RequestId) -> Result<Option<Found>, Failed> {
        Ok(self.find_decided(request_id).await?)
    }

    async fn request(&self, request_id: &RequestId) -> Result<Option<Found>, Failed> {
        Ok(self.find_request(request_id).await?)
    }

    async fn keep_receipts(
        &self,
        request_id: &RequestId,
        epoch: u32,
        receipts: Steps<'_>,
        at_ms: UnixMs,
    ) -> Result<(), Failed> {
        let values = steps_values(&self.config, request_id, epoch, receipts, at_ms)?;
        self.write(&self.claims.insert_receipts, values).await
    }

    async fn bind(&self, binding: &Binding<'_>) -> Result<bool, Failed> {
        let ttl_s = request_ttl_s(&self.config, binding.received_at_ms);
        let (driver, request, trip) = texts(binding);
        self.conditional(&self.claims.bind, (driver, request, trip, ttl_s))
            .await
    }

    async fn rebind(&self, binding: &Binding<'_>, holder: &RequestId) -> Result<bool, Failed> {
        let ttl_s = request_ttl_s(&self.config, binding.received_at_ms);
        let (driver, request, trip) = texts(binding);
        let values = (ttl_s, request, trip, driver, holder.as_str());
        self.conditional(&self.claims.rebind, values).await
    }

    async fn unbind(&self, driver_id: &DriverId, request_id: &RequestId) -> Result<bool, Failed> {
        let values = (driver_id.as_str(), request_id.as_str());
        self.conditional(&self.claims.unbind, values).await
    }

    async fn holder_of(&self, driver_id: &DriverId) -> Result<Option<RequestId>, Failed> {
        let statement = &self.claims.select_binding;
        let asked = self.session.execute_unpaged(statement, (driver_id.as_str(),));
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let found = rows.maybe_first_row::<(Option<String>,)>().map_err(unread)?;
        let Some((Some(text),)) = found else { return Ok(None) };
        RequestId::parse(&text)
            .map(Some)
            .map_err(|_| Failed::broken("a binding holds no id"))
    }

    async fn note_trip(&self, binding: &Binding<'_>) -> Result<(), Failed> {
        let ttl_s = request_ttl_s(&self.config, binding.received_at_ms);
        let (_, request, trip) = texts(binding);
        self.write(&self.claims.insert_trip, (trip, request, ttl_s)).await
    }

    async fn add_open(&self, owner: &str, bucket: i64, request_id: &RequestId, at_us: i64) -> Result<(), Failed> {
        let values = (owner, bucket, request_id.as_str(), at_us);
        self.write(&self.claims.insert_open, values).await
    }

    async fn remove_open(&self, owner: &str, bucket: i64, request_id: &RequestId, at_us: i64) -> Result<(), Failed> {
        let values = (at_us, owner, bucket, request_id.as_str());
        self.write(&self.claims.delete_open, values).await
    }

    async fn open_in(&self, owner: &str, bucket: i64) -> Result<Vec<RequestId>, Failed> {
        let asked = self.session.execute_unpaged(&self.claims.select_open, (owner, bucket));
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let rows: Result<Vec<(String,)>, _> = rows.rows().map_err(unread)?.collect();
        let ids = rows.map_err(unread)?.into_iter();
        Ok(ids.filter_map(|(id,)| RequestId::parse(&id).ok()).collect())
    }

    async fn add_bucket(&self, owner: &str, bucket: i64, at_us: i64) -> Result<(), Failed> {
        self.write(&self.claims.insert_bucket, (owner, bucket, at_us)).await
    }

    async fn remove_bucket(&self, owner: &str, bucket: i64, at_us: i64) -> Result<(), Failed> {
        self.write(&self.claims.delete_bucket, (at_us, owner, bucket)).await
    }

    async fn buckets_of(&self, owner: &str) -> Result<Vec<i64>, Failed> {
        let asked = self.session.execute_unpaged(&self.claims.select_buckets, (owner,));
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let rows: Result<Vec<(i64,)>, _> = rows.rows().map_err(unread)?.collect();
        Ok(rows.map_err(unread)?.into_iter().map(|(bucket,)| bucket).collect())
    }

    async fn owners(&self) -> Result<Vec<String>, Failed> {
        let asked = self.session.execute_unpaged(&self.claims.select_owners, ());
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let rows: Result<Vec<(String,)>, _> = rows.rows().map_err(unread)?.collect();
        Ok(rows.map_err(unread)?.into_iter().map(|(name,)| name).collect())
    }

    async fn beat(&self, node: &str, beat: i64) -> Result<(), Failed> {
        self.write(&self.beats.insert, (node, beat)).await
    }

    async fn beat_of(&self, node: &str) -> Result<Option<i64>, Failed> {
        let asked = self.session.execute_unpaged(&self.beats.select, (node,));
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let found = rows.maybe_first_row::<(Option<i64>,)>().map_err(unread)?;
        Ok(found.and_then(|(beat,)| beat))
    }
}

fn texts<'a>(binding: &Binding<'a>) -> (&'a str, &'a str, &'a str) {
    (
        binding.driver_id.as_str(),
        binding.request_id.as_str(),
        binding.trip_id.as_str(),
    )
}

impl Ready {
    /// A write without a condition.
    ///
    /// # Errors
    /// Cassandra did not say that it is done.
    async fn write(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<(), Failed> {
        let done = self.session.execute_unpaged(statement, values).await;
        done.map(drop)
            .map_err(|error| Failed::unknown(CassandraError::new("cannot write", error)))
    }

    /// A conditional write; says whether its condition held.
    ///
    /// # Errors
    /// Not known.
    async fn conditional(&self, statement: &PreparedStatement, values: impl SerializeRow) -> Result<bool, Failed> {
        let done = self.session.execute_unpaged(statement, values).await;
        applied(done.map_err(not_known)?)
    }

    /// The same together with a row of steps, in one batch.
    async fn conditional_batch(
        &self,
        condition: &PreparedStatement,
        values: (impl SerializeRow, impl SerializeRow),
    ) -> Result<bool, Failed> {
        let mut batch = Batch::new(BatchType::Unlogged);
        batch.set_is_idempotent(true);
        batch.append_statement(condition.clone());
        batch.append_statement(self.claims.insert_steps.clone());
        let done = self.session.batch(&batch, values).await;
        applied(done.map_err(not_known)?)
    }
}

fn not_known(error: impl std::fmt::Display) -> Failed {
    Failed::unknown(format!("a conditional write failed: {error}"))
}

/// The first column of a conditional write's answer. The others differ: Cassandra shows the row only when the condition
/// failed, Scylla always.
fn applied(answer: QueryResult) -> Result<bool, Failed> {
    let read = || -> Result<Option<bool>, StoreError> {
        let rows = answer.into_rows_result().map_err(unread)?;
        let row = rows.first_row::<Row>().map_err(unread)?;
        let first = row.columns.into_iter().next().flatten();
        Ok(first.as_ref().and_then(CqlValue::as_boolean))
    };
    read()?.ok_or_else(|| Failed::broken("an answer without [applied]"))
}
