//! A store in a temporary directory, its clock and disk in the test's hand, and shards that wait for their answers.

use crossbeam::channel::{Receiver, bounded};
use dispatchd::cold::{
    Answer, Commit, EndedRequest, FromStore, Query, Source, Store, StoreConfig, StoreError, StoreHandle, Surroundings,
};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{
    Channel, LogEntry, Priority, Published, PublishedKind, RecordRow, RequestLog, ResponseType, Step, TripOutcome,
    UnixMs,
};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// 2023-11-14, 22:13:20 UTC.
pub const START_MS: UnixMs = 1_700_000_000_000;
pub const DAY_MS: UnixMs = 86_400_000;
/// A store that does not answer in this time hangs; no test passes or fails by a shorter time.
const HANG: Duration = Duration::from_secs(60);

pub fn driver(text: &str) -> DriverId {
    DriverId::parse(text).unwrap()
}

pub fn request(text: &str) -> RequestId {
    RequestId::parse(text).unwrap()
}

pub const fn source(incarnation: u64, shard: u16) -> Source {
    Source { incarnation, shard }
}

/// A directory that stores come and go in, with a clock and a disk.
pub struct World {
    dir: tempfile::TempDir,
    pub clock: Arc<AtomicU64>,
    pub bytes_free: Arc<AtomicU64>,
    pub config: StoreConfig,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(AtomicU64::new(START_MS));
        let bytes_free = Arc::new(AtomicU64::new(u64::MAX));
        let (now, free) = (Arc::clone(&clock), Arc::clone(&bytes_free));
        let mut config = StoreConfig::new(dir.path());
        config.surroundings = Surroundings {
            now_ms: Arc::new(move || now.load(Ordering::SeqCst)),
            bytes_free: Arc::new(move || free.load(Ordering::SeqCst)),
        };
        Self {
            dir,
            clock,
            bytes_free,
            config,
        }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub fn open(&self) -> Store {
        self.try_open().unwrap()
    }

    pub fn try_open(&self) -> Result<Store, StoreError> {
        Store::open(&self.path(), self.config.clone())
    }

    pub fn advance(&self, by_ms: u64) {
        self.clock.fetch_add(by_ms, Ordering::SeqCst);
    }
}

/// A shard: feeds and asks, and waits on its waker.
pub struct Shard {
    pub handle: StoreHandle,
    woken: Receiver<()>,
    inbox: VecDeque<FromStore>,
    tokens: u64,
}

impl Shard {
    pub fn attach(store: &Store) -> Self {
        let (wake, woken) = bounded(1);
        let waker = Box::new(move || {
            // Full: a wake-up is on its way already.
            let _ = wake.try_send(());
        });
        Self {
            handle: store.attach(0, waker),
            woken,
            inbox: VecDeque::new(),
            tokens: 0,
        }
    }

    /// Sends `query` and returns its token.
    pub fn send(&mut self, query: Query) -> u64 {
        self.tokens += 1;
        self.handle.query(self.tokens, query).unwrap();
        self.tokens
    }

    pub fn ask(&mut self, query: Query) -> Answer {
        let token = self.send(query);
        self.answer(token)
    }

    /// Waits for the answer to `token`; other messages stay in the inbox.
    pub fn answer(&mut self, token: u64) -> Answer {
        let mine = |message: &FromStore| matches!(message, FromStore::Answer { token: of, .. } if *of == token);
        match self.wait_for(mine) {
            FromStore::Answer { answer, .. } => answer,
            FromStore::Stored { .. } => unreachable!(),
        }
    }

    /// Whether the answer to `token` is there already.
    pub fn has_answer(&mut self, token: u64) -> bool {
        self.poll();
        let mine = |message: &FromStore| matches!(message, FromStore::Answer { token: of, .. } if *of == token);
        self.inbox.iter().any(mine)
    }

    pub fn commit(&self, commits: Vec<Commit>) {
        self.handle.try_commit(commits).unwrap();
    }

    /// Commits and waits until all of it is stored.
    pub fn store(&mut self, commits: Vec<Commit>) {
        let last = commits.last().unwrap();
        let (source, lsn) = (last.source, last.lsn);
        self.commit(commits);
        self.wait_stored(source, lsn);
    }

    pub fn wait_stored(&mut self, source: Source, lsn: u64) {
        self.wait_for(
            |message| matches!(message, FromStore::Stored { source: of, through } if *of == source && *through >= lsn),
        );
    }

    /// The next message of the inbox, waiting for it.
    pub fn next(&mut self) -> FromStore {
        self.wait_for(|_| true)
    }

    /// The next message of the inbox, if one is there.
    pub fn try_next(&mut self) -> Option<FromStore> {
        self.poll();
        self.inbox.pop_front()
    }

    fn poll(&mut self) {
        let mut out = Vec::new();
        self.handle.poll(&mut out);
        self.inbox.extend(out);
    }

    fn wait_for(&mut self, wanted: impl Fn(&FromStore) -> bool) -> FromStore {
        loop {
            self.poll();
            if let Some(at) = self.inbox.iter().position(&wanted) {
                return self.inbox.remove(at).unwrap();
            }
            self.woken.recv_timeout(HANG).expect("the store hangs");
        }
    }
}

/// All events after `after`, page by page.
pub fn all_events(shard: &mut Shard, after: u64) -> Vec<(u64, Published)> {
    let mut events: Vec<(u64, Published)> = Vec::new();
    loop {
        let after = events.last().map_or(after, |(cursor, _)| *cursor);
        let page = page_of(shard.ask(events_query(Some(after), 0, 1_000, None)));
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

pub fn events_query(after: Option<u64>, wait_ms: u32, limit: u32, consumer: Option<&str>) -> Query {
    Query::Events {
        after,
        wait_ms,
        limit,
        consumer: consumer.map(Into::into),
    }
}

pub fn ack_query(consumer: &str, cursor: u64) -> Query {
    Query::AckEvents {
        consumer: consumer.into(),
        cursor,
    }
}

pub fn records_query(driver_id: &DriverId, at_ms: UnixMs, limit: u32, before: Option<String>) -> Query {
    let date = jiff::Timestamp::from_millisecond(at_ms as i64)
        .unwrap()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .date();
    Query::Records {
        driver_id: driver_id.clone(),
        date,
        limit,
        before,
    }
}

pub fn page_of(answer: Answer) -> Vec<(u64, Published)> {
    match answer {
        Answer::Events(page) => page.events,
        other => panic!("no page of events: {other:?}"),
    }
}

pub fn cursors_of(answer: Answer) -> Vec<u64> {
    page_of(answer).into_iter().map(|(cursor, _)| cursor).collect()
}

pub fn rows_of(answer: Answer) -> (Vec<RecordRow>, Option<String>) {
    match answer {
        Answer::Records(page) => (page.rows, page.next_before),
        other => panic!("no page of records: {other:?}"),
    }
}

pub fn error_of(answer: Answer) -> StoreError {
    match answer {
        Answer::Failed(error) => error,
        other => panic!("not refused: {other:?}"),
    }
}

/// A cancelled request's event.
pub fn event(request_id: &str, at_ms: UnixMs) -> Published {
    Published {
        request_id: request(request_id),
        at_ms,
        kind: PublishedKind::RequestCancelled { reason: None },
    }
}

/// A commit with `count` events of the request `r-{incarnation}-{shard}-{lsn}`.
pub fn event_commit(source: Source, lsn: u64, count: usize, at_ms: UnixMs) -> Commit {
    let id = format!("r-{}-{}-{lsn}", source.incarnation, source.shard);
    Commit {
        published: (0..count).map(|_| event(&id, at_ms)).collect(),
        ..Commit::empty(source, lsn)
    }
}

pub fn row(driver_id: &DriverId, request_id: &str, attempt: u32, offer_sent_at_ms: UnixMs) -> RecordRow {
    RecordRow {
        driver_id: driver_id.clone(),
        offer_sent_at_ms,
        request_id: request(request_id),
        attempt,
        trip_id: None,
        response_type: ResponseType::Declined,
        response_at_ms: offer_sent_at_ms + 2_000,
    }
}

pub const TRIP_JSON: &str = r#"{"pickup":{"lat":40.7506,"lon":-73.9935,"zone":"Penn Station"},"dropoff":{"lat":40.6446,"lon":-73.7797,"zone":"JFK"},"passengers":2,"fare_estimate":52.0}"#;

/// The typical cycle: a request that was offered, accepted, driven: one row, three events, one ended request.
pub fn cycle(source: Source, lsn: u64, request_id: &str, driver_id: &DriverId, at_ms: UnixMs) -> Commit {
    let request_id = request(request_id);
    let trip_id = TripId::for_request(&request_id, at_ms);
    let published = |kind| Published {
        request_id: request_id.clone(),
        at_ms,
        kind,
    };
    Commit {
        rows: vec![RecordRow {
            trip_id: Some(trip_id.clone()),
            response_type: ResponseType::Accepted,
            ..row(driver_id, request_id.as_str(), 1, at_ms)
        }],
        published: vec![
            published(PublishedKind::TripCreated {
                trip_id: trip_id.clone(),
                driver_id: driver_id.clone(),
                trip: TRIP_JSON.into(),
            }),
            published(PublishedKind::TripPickedUp {
                trip_id: trip_id.clone(),
                driver_id: driver_id.clone(),
            }),
            published(PublishedKind::TripEnded {
                trip_id: trip_id.clone(),
                driver_id: driver_id.clone(),
                outcome: TripOutcome::Completed,
            }),
        ],
        ended: Some(EndedRequest {
            log: RequestLog {
                request_id: request_id.clone(),
                log: steps(driver_id, &trip_id, at_ms),
            },
            trip_id: Some(trip_id),
            ended_at_ms: at_ms,
        }),
        ..Commit::empty(source, lsn)
    }
}

/// An offer that was accepted at once, and its trip.
fn steps(driver_id: &DriverId, trip_id: &TripId, at_ms: UnixMs) -> Vec<LogEntry> {
    let steps = [
        Step::Received {
            priority: Priority::Standard,
            deadline_at_ms: at_ms + 120_000,
            offer_timeout_ms: 8_000,
            max_attempts: None,
            parallel: 1,
            busy_wait_ms: 0,
            candidates: vec![driver_id.clone()],
            trip: TRIP_JSON.into(),
        },
        Step::OfferSent {
            attempt: 1,
            driver_id: driver_id.clone(),
            expires_at_ms: at_ms + 8_000,
        },
        Step::Delivered { attempt: 1 },
        Step::Acked { attempt: 1 },
        Step::Accepted {
            attempt: 1,
            channel: Channel::WebSocket,
        },
        Step::TripCreated {
            trip_id: trip_id.clone(),
            driver_id: driver_id.clone(),
        },
        Step::PickedUp,
        Step::TripEnded {
            outcome: TripOutcome::Completed,
            reason: None,
        },
    ];
    steps.into_iter().map(|step| LogEntry { at_ms, step }).collect()
}
