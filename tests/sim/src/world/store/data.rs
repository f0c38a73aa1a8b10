//! What the store keeps, and what it reads of it.

use super::Place;
use crate::world::fleet::Outbox;
use compact_str::CompactString;
use dispatchd::cold::{Commit, DriverRecord, EndedRequest, EventsPage, RecordsPage, Source, StoreError};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{Published, RecordRow, UnixMs};
use dispatchd::limits::store::{EVENTS_PAGE_BYTES_MAX, EVENTS_PAGE_EVENTS_MAX, RECORDS_PAGE_ROWS_MAX};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// What the store keeps.
#[derive(Default)]
pub(super) struct Data {
    pub(super) watermarks: BTreeMap<Source, u64>,
    /// The event with cursor `n` is at `n - 1`.
    pub(super) events: Vec<Published>,
    pub(super) consumers: BTreeMap<String, u64>,
    pub(super) rows: HashMap<DriverId, BTreeMap<Place, RecordRow>>,
    pub(super) ended: HashMap<RequestId, EndedRequest>,
    pub(super) trips: HashMap<TripId, RequestId>,
    pub(super) drivers: BTreeMap<DriverId, DriverRecord>,
    /// Of a fleet: rows on their way to the tables of all.
    pub(super) outbox: Option<Outbox>,
}

impl Data {
    pub(super) fn apply(&mut self, commit: &Commit) {
        let stored = self.watermarks.entry(commit.source).or_insert(0);
        if commit.lsn <= *stored {
            return;
        }
        *stored = commit.lsn;
        for row in &commit.rows {
            let place = (Reverse(row.offer_sent_at_ms), row.request_id.clone(), row.attempt);
            self.rows
                .entry(row.driver_id.clone())
                .or_default()
                .insert(place, row.clone());
            if let Some(outbox) = &self.outbox {
                outbox.borrow_mut().push_back(row.clone());
            }
        }
        self.events.extend(commit.published.iter().cloned());
        if let Some(ended) = &commit.ended {
            let id = &ended.log.request_id;
            if let Some(trip_id) = &ended.trip_id {
                self.trips.insert(trip_id.clone(), id.clone());
            }
            self.ended.insert(id.clone(), ended.clone());
        }
        if let Some((driver_id, at_ms)) = &commit.driver_seen {
            self.driver(driver_id, *at_ms);
        }
        if let Some((driver_id, at_ms, off)) = &commit.off_shift {
            let record = self.driver(driver_id, *at_ms);
            record.shift_changed_ms = *at_ms;
            record.off_shift_since = off.then_some(*at_ms);
        }
    }

    fn driver(&mut self, id: &DriverId, at_ms: UnixMs) -> &mut DriverRecord {
        let record = self.drivers.entry(id.clone()).or_insert(DriverRecord {
            first_seen_ms: at_ms,
            last_seen_ms: at_ms,
            off_shift_since: None,
            shift_changed_ms: 0,
        });
        record.first_seen_ms = record.first_seen_ms.min(at_ms);
        record.last_seen_ms = record.last_seen_ms.max(at_ms);
        record
    }

    pub(super) fn page(&self, from: u64, limit: u32) -> EventsPage {
        let limit = limit.clamp(1, EVENTS_PAGE_EVENTS_MAX) as usize;
        let mut bytes = 0;
        let mut page = EventsPage::default();
        for (cursor, event) in (from..).zip(&self.events[from as usize - 1..]).take(limit) {
            bytes += size_of_val(event);
            page.events.push((cursor, event.clone()));
            if bytes >= EVENTS_PAGE_BYTES_MAX {
                break;
            }
        }
        page
    }

    pub(super) fn records(
        &self,
        driver_id: &DriverId,
        date: jiff::civil::Date,
        limit: u32,
        before: Option<&str>,
    ) -> Result<RecordsPage, StoreError> {
        let rows = self.rows.get(driver_id).into_iter().flat_map(BTreeMap::values);
        let mut page = page_of(
            rows.map(|row| (row.clone(), CompactString::default())),
            date,
            limit,
            before,
        )?;
        page.nodes.clear();
        Ok(page)
    }
}

/// Rows of a day, newest first, and the node of each. The mark of the next page is the number of rows before it, which holds as
/// long as no row is added: good enough for who reads a day that is over or asks for whole days.
pub(super) fn page_of(
    rows: impl Iterator<Item = (RecordRow, CompactString)>,
    date: jiff::civil::Date,
    limit: u32,
    before: Option<&str>,
) -> Result<RecordsPage, StoreError> {
    let skip: usize = match before {
        Some(mark) => mark.parse().map_err(|_| StoreError::invalid("no mark of a page"))?,
        None => 0,
    };
    let limit = limit.clamp(1, RECORDS_PAGE_ROWS_MAX) as usize;
    let on_day = |(row, _): &(RecordRow, CompactString)| {
        jiff::Timestamp::from_millisecond(row.offer_sent_at_ms as i64)
            .is_ok_and(|at| at.to_zoned(jiff::tz::TimeZone::UTC).date() == date)
    };
    let mut found: Vec<_> = rows.filter(on_day).skip(skip).take(limit + 1).collect();
    let next_before = (found.len() > limit).then(|| (skip + limit).to_string());
    found.truncate(limit);
    let (rows, nodes) = found.into_iter().unzip();
    Ok(RecordsPage {
        rows,
        nodes,
        next_before,
    })
}
