//! The two reading threads. *Lookups* answer point queries past the write queue, so that the check of a new request id
//! waits for nothing. *Pages* answer what the writer lets through once everything before it is stored, and pay for
//! unlinking dropped partitions; a large page never delays a lookup.

use super::codec::{Decoder, events_of};
use super::keys::{self, RowPlace};
use super::polls::Poll;
use super::tables::{Tables, broken};
use crate::cold::handle::{Ask, Inbox, ToLookup};
use crate::cold::port::{
    Answer, DriverRecord, EVENTS_PAGE_BYTES_MAX, EVENTS_PAGE_EVENTS_MAX, EndedRequest, EventsPage, Query,
    RECORDS_PAGE_ROWS_MAX, RecordsPage, StoreError,
};
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::RecordRow;
use crate::ops::metrics::StoreMetrics;
use crossbeam::channel::Receiver;
use fjall::Keyspace;
use std::ops::Bound;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

/// What the writer hands to the pages thread.
pub enum ToPages {
    /// Events from `poll.from` to `newest`, which is durable; none before `oldest`.
    Events {
        /// Who asks for what.
        poll: Poll,
        /// Oldest cursor to show.
        oldest: u64,
        /// Newest cursor to show.
        newest: u64,
    },
    /// Dispatch records.
    Records(RecordsAsk),
    /// A dropped partition, to be let go here.
    Discard(Keyspace),
}

/// A query for dispatch records.
pub struct RecordsAsk {
    /// Where the answer goes.
    pub inbox: Arc<Inbox>,
    /// Whose answer it is.
    pub token: u64,
    /// Whose records.
    pub driver_id: DriverId,
    /// UTC day.
    pub date: jiff::civil::Date,
    /// Most rows.
    pub limit: u32,
    /// Page mark.
    pub before: Option<String>,
}

/// A question that this node alone cannot answer, on its way to the fleet's store, which gives the answer.
pub enum FarAsk {
    /// A request that this node does not know.
    Request {
        /// Where the answer goes.
        inbox: Arc<Inbox>,
        /// Whose answer it is.
        token: u64,
        /// Which request.
        request_id: RequestId,
    },
    /// A trip that this node does not know.
    Trip {
        /// Where the answer goes.
        inbox: Arc<Inbox>,
        /// Whose answer it is.
        token: u64,
        /// Which trip.
        trip_id: TripId,
    },
    /// Dispatch records, of which `own` are this node's.
    Records {
        /// The question.
        ask: RecordsAsk,
        /// This node's rows.
        own: RecordsPage,
    },
}

impl FarAsk {
    /// Answers that it cannot be answered.
    pub fn fail(self, error: StoreError) {
        match self {
            Self::Request { inbox, token, .. } | Self::Trip { inbox, token, .. } => {
                inbox.answer(token, Answer::Failed(error));
            }
            Self::Records { ask, .. } => ask.inbox.answer(ask.token, Answer::Failed(error)),
        }
    }
}

/// Hands a question over. The fleet's thread ends after the shards; an end before that was a panic, which ends the process.
fn ask_far(fleet: &UnboundedSender<FarAsk>, ask: FarAsk) {
    if let Err(refused) = fleet.send(ask) {
        refused.0.fail(StoreError::unavailable("the fleet's store is closed"));
    }
}

/// Answers point queries until told to stop. What `fleet` may know goes there.
pub fn run_lookups(
    tables: &Tables,
    metrics: &StoreMetrics,
    fleet: Option<&UnboundedSender<FarAsk>>,
    asked: &Receiver<ToLookup>,
) {
    let mut decoder = Decoder::default();
    let mut key = Vec::new();
    while let Ok(ToLookup::Ask(Ask { inbox, token, query })) = asked.recv() {
        let answer = match query {
            Query::Request(request_id) => {
                let found = find_request(tables, &mut decoder, &mut key, &request_id);
                if let (Ok(None), Some(fleet)) = (&found, fleet) {
                    metrics.lookups.inc();
                    ask_far(
                        fleet,
                        FarAsk::Request {
                            inbox,
                            token,
                            request_id,
                        },
                    );
                    continue;
                }
                found.map(|found| Answer::Request(found.map(Box::new)))
            }
            Query::Trip(trip_id) => {
                let found = find_trip(tables, &mut decoder, &trip_id);
                if let (Ok(None), Some(fleet)) = (&found, fleet) {
                    metrics.lookups.inc();
                    ask_far(fleet, FarAsk::Trip { inbox, token, trip_id });
                    continue;
                }
                found.map(|found| Answer::Trip(found.map(Box::new)))
            }
            Query::Driver(driver) => find_driver(tables, &mut decoder, &driver).map(Answer::Driver),
            Query::Records { .. } | Query::Events { .. } | Query::AckEvents { .. } => {
                unreachable!("ordered queries go to the writer")
            }
        };
        metrics.lookups.inc();
        inbox.answer(token, answer.unwrap_or_else(Answer::Failed));
    }
}

/// Answers pages until the writer is gone. Records of other nodes come from `fleet`.
pub fn run_pages(
    tables: &Tables,
    metrics: &StoreMetrics,
    fleet: Option<&UnboundedSender<FarAsk>>,
    asked: &Receiver<ToPages>,
) {
    let mut decoder = Decoder::default();
    while let Ok(message) = asked.recv() {
        match message {
            ToPages::Events { poll, oldest, newest } => {
                let page = read_events(tables, &mut decoder, poll.from.max(oldest), newest, poll.limit);
                metrics.pages.inc();
                poll.inbox
                    .answer(poll.token, page.map_or_else(Answer::Failed, Answer::Events));
            }
            ToPages::Records(ask) => {
                let page = read_records(tables, &mut decoder, &ask);
                metrics.pages.inc();
                match (page, fleet) {
                    (Ok(own), Some(fleet)) => ask_far(fleet, FarAsk::Records { ask, own }),
                    (Ok(page), None) => ask.inbox.answer(ask.token, Answer::Records(page)),
                    (Err(error), _) => ask.inbox.answer(ask.token, Answer::Failed(error)),
                }
            }
            ToPages::Discard(keyspace) => drop(keyspace),
        }
    }
}

/// Newest span first: whoever asks for something that is there mostly asks soon.
fn find_request(
    tables: &Tables,
    decoder: &mut Decoder,
    key: &mut Vec<u8>,
    request: &RequestId,
) -> Result<Option<EndedRequest>, StoreError> {
    keys::ended(key, request);
    for span in tables.ended.all().iter().rev() {
        if let Some(bytes) = span.keyspace.get(&*key).map_err(broken)? {
            return decoder.ended(&bytes).map(Some);
        }
    }
    Ok(None)
}

/// A trip id carries the hash of its request's id, which is what ended requests are sorted by.
fn find_trip(tables: &Tables, decoder: &mut Decoder, trip: &TripId) -> Result<Option<EndedRequest>, StoreError> {
    let Some(hash) = trip.request_hash() else {
        return Ok(None);
    };
    for span in tables.ended.all().iter().rev() {
        for entry in span.keyspace.prefix(hash.to_be_bytes()) {
            let ended = decoder.ended(&entry.value().map_err(broken)?)?;
            if ended.trip_id.as_ref() == Some(trip) {
                return Ok(Some(ended));
            }
        }
    }
    Ok(None)
}

fn find_driver(tables: &Tables, decoder: &mut Decoder, driver: &DriverId) -> Result<Option<DriverRecord>, StoreError> {
    let found = tables.drivers.get(driver.as_str()).map_err(broken)?;
    found.map(|bytes| decoder.driver(&bytes)).transpose()
}

fn read_events(
    tables: &Tables,
    decoder: &mut Decoder,
    from: u64,
    newest: u64,
    limit: u32,
) -> Result<EventsPage, StoreError> {
    let limit = limit.clamp(1, EVENTS_PAGE_EVENTS_MAX) as usize;
    let mut page = EventsPage::default();
    let mut bytes_read = 0;
    let chunks = tables.events.all();
    // The chunk that holds `from`, or the oldest that is left.
    let start = chunks.partition_point(|chunk| chunk.first <= from).saturating_sub(1);
    for chunk in &chunks[start..] {
        for entry in blocks_from(&chunk.keyspace, from, newest)? {
            let (key, block) = entry.into_inner().map_err(broken)?;
            let first = keys::number(&key).ok_or_else(|| StoreError::broken("an event's key is damaged"))?;
            if page.events.last().is_some_and(|(last, _)| last + 1 != first) {
                return Err(StoreError::broken(format!(
                    "the event before cursor {first} is missing"
                )));
            }
            for (cursor, event) in (first..).zip(events_of(&block)) {
                let event = event?;
                if (from..=newest).contains(&cursor) {
                    bytes_read += event.len();
                    page.events.push((cursor, decoder.published(event)?));
                    if page.events.len() >= limit || bytes_read >= EVENTS_PAGE_BYTES_MAX {
                        return Ok(page);
                    }
                }
            }
        }
    }
    Ok(page)
}

/// The blocks that hold events from `from` to `newest`: the first may begin before, the last may end after.
fn blocks_from(keyspace: &Keyspace, from: u64, newest: u64) -> Result<fjall::Iter, StoreError> {
    let first = match keyspace.range(..=from.to_be_bytes()).next_back() {
        Some(entry) => entry.key().map_err(broken)?.to_vec(),
        None => from.to_be_bytes().to_vec(),
    };
    Ok(keyspace.range(first..=newest.to_be_bytes().to_vec()))
}

fn read_records(tables: &Tables, decoder: &mut Decoder, ask: &RecordsAsk) -> Result<RecordsPage, StoreError> {
    let mut page = RecordsPage::default();
    let before = ask.before.as_deref().map(RowPlace::from_token).transpose()?;
    let Some(keyspace) = keys::day_of_date(ask.date).and_then(|day| tables.rows.covering(day)) else {
        return Ok(page);
    };
    let limit = ask.limit.clamp(1, RECORDS_PAGE_ROWS_MAX) as usize;
    let (mut prefix, mut key) = (Vec::new(), Vec::new());
    keys::row_prefix(&mut prefix, &ask.driver_id);
    let start = match &before {
        Some(place) => {
            keys::row(&mut key, &ask.driver_id, place);
            Bound::Excluded(key.as_slice())
        }
        None => Bound::Included(prefix.as_slice()),
    };
    // Ids do not contain the byte 0 that ends the prefix, so 1 in its place is past all of the driver's keys.
    let mut end = prefix.clone();
    *end.last_mut().expect("a prefix ends with 0") = 1;
    for entry in keyspace.range::<&[u8], _>((start, Bound::Excluded(end.as_slice()))) {
        if page.rows.len() == limit {
            page.next_before = page.rows.last().map(|row| place_of(row).to_token());
            break;
        }
        let (key, value) = entry.into_inner().map_err(broken)?;
        let place = key.strip_prefix(prefix.as_slice()).and_then(keys::row_place);
        let place = place.ok_or_else(|| StoreError::broken("a dispatch record's key is damaged"))?;
        let tail = decoder.row(&value)?;
        page.rows.push(place.record(ask.driver_id.clone(), tail));
    }
    Ok(page)
}

fn place_of(row: &RecordRow) -> RowPlace {
    RowPlace {
        offer_sent_at_ms: row.offer_sent_at_ms,
        request_id: row.request_id.clone(),
        attempt: row.attempt,
    }
}
