//! What the clients of the demo saw, in the order in which they saw it. The auditor and the latency table read nothing else.
//!
//! One log for everybody: a few thousand entries a second need no cleverness. What is sent is noted before it is sent,
//! what is heard after it was read, so an answer never stands before its question.

use super::messages::{AuditView, EventLine, Id, OfferAnswer, RequestView};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How an attempt ended, as somebody heard it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The driver has this trip.
    Confirmed(Id),
    /// The driver's refusal was taken.
    Declined,
    /// Taken back, for this reason.
    Revoked(Id),
    /// HTTP's word for every other end.
    TooLate,
}

/// Something on a driver's socket.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum OnSocket {
    /// A session began.
    Welcome { session: u64, state: Id, trip: Option<Id> },
    /// The socket is gone, whoever ended it.
    Lost,
    /// An offer was heard.
    Offer {
        request: Id,
        attempt: u32,
        expires_at_ms: u64,
    },
    /// An attempt's end was heard.
    Outcome {
        request: Id,
        attempt: u32,
        outcome: Outcome,
    },
    /// The driver's state was heard.
    State { state: Id, trip: Option<Id> },
    /// A trip was cancelled over the API.
    TripCancelled { trip: Id },
    /// The node refused a message.
    Error { code: Id, request: Option<Id> },
    /// The app said that it has the offer.
    SentAck { request: Id, attempt: u32 },
    /// The driver answered on the socket.
    SentAnswer { request: Id, attempt: u32, accept: bool },
    /// The driver reported on the trip.
    SentTrip { trip: Id, event: &'static str },
}

/// Something between the matching engine and the API.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum OnApi {
    /// A POST of an offer is about to leave. `first`: the request's first candidates rather than a re-dispatch;
    /// `patient`: it may wait for busy drivers.
    Posted { request: Id, first: bool, patient: bool },
    /// It was answered.
    Answered {
        request: Id,
        first: bool,
        status: u16,
        answer: OfferAnswer,
    },
    /// A driver's answer over HTTP was answered.
    Responded {
        request: Id,
        driver: Id,
        attempt: u32,
        outcome: Outcome,
    },
    /// A request's cancelling was answered 200.
    Cancelled { request: Id },
    /// A trip's cancelling was answered 200.
    TripCancelled { trip: Id },
    /// A line of the event stream.
    Event(EventLine),
}

/// One thing seen.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// On this driver's socket.
    Socket(Id, OnSocket),
    /// On the API.
    Api(OnApi),
    /// The node is about to get SIGKILL.
    NodeKilled,
    /// The node is ready again.
    NodeReady,
    /// A client was not served, and tries again: why.
    Unserved(Id),
}

/// One thing seen, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// Since the log began.
    pub at: Duration,
    /// What.
    pub seen: Seen,
}

/// Running totals for the progress line and the table.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "each is a count of what its name says")]
pub struct Counters {
    pub connected: AtomicU64,
    pub reconnects: AtomicU64,
    pub vanished: AtomicU64,
    pub posted: AtomicU64,
    pub offers: AtomicU64,
    pub accepted: AtomicU64,
    pub unfulfilled: AtomicU64,
    pub cancelled: AtomicU64,
    pub trips_ended: AtomicU64,
    pub redispatched: AtomicU64,
    pub events: AtomicU64,
    pub repeats_on_purpose: AtomicU64,
    pub duplicates_absorbed: AtomicU64,
    pub duplicates_refused: AtomicU64,
    pub repeats_after_loss: AtomicU64,
    pub turned_away: AtomicU64,
    pub not_taken: AtomicU64,
}

/// Adds one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Reads a counter.
pub fn total(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The log that all clients write.
#[derive(Debug)]
pub struct Observer {
    started: Instant,
    started_unix: Duration,
    /// `None`: observations are counted and not kept.
    log: Option<Mutex<Vec<Observation>>>,
    /// Requests that were taken for dispatch, in the order of the answers that said so.
    taken: Mutex<Vec<Id>>,
    /// Running totals.
    pub counters: Counters,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            started_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            log: Some(Mutex::default()),
            taken: Mutex::default(),
            counters: Counters::default(),
        }
    }
}

impl Observer {
    /// An observer that only counts: for runs too long to keep all that was seen.
    pub fn counting() -> Self {
        Self {
            log: None,
            ..Self::default()
        }
    }

    /// Appends one observation, now.
    pub fn note(&self, seen: Seen) {
        let Some(mut log) = self.lock() else { return };
        // Read under the lock, so that times rise with places.
        let at = self.started.elapsed();
        log.push(Observation { at, seen });
    }

    /// Notes something on a driver's socket.
    pub fn socket(&self, driver: &Id, what: OnSocket) {
        self.note(Seen::Socket(Id::clone(driver), what));
    }

    /// Notes something on the API.
    pub fn api(&self, what: OnApi) {
        self.note(Seen::Api(what));
    }

    /// Notes that a POST was answered, and the request taken for dispatch.
    pub fn taken(&self, request: &Id) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.push(Id::clone(request));
    }

    /// One of the requests taken so far, oldest answer first: `choose` gets how many there are, at least 1, and says which. `None`:
    /// there is none yet.
    pub fn one_taken(&self, choose: impl FnOnce(usize) -> usize) -> Option<Id> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.is_empty() {
            return None;
        }
        taken.get(choose(taken.len())).cloned()
    }

    /// How long the log has been written.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// When the log began, Unix time.
    pub fn started_unix(&self) -> Duration {
        self.started_unix
    }

    /// A copy of everything so far; empty when nothing is kept.
    pub fn snapshot(&self) -> Vec<Observation> {
        self.lock().map(|log| log.clone()).unwrap_or_default()
    }

    fn lock(&self) -> Option<MutexGuard<'_, Vec<Observation>>> {
        let log = self.log.as_ref()?;
        Some(log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What was read of one request when everything was over.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FinalView {
    /// `GET /v1/dispatch/audit/…`; `None`: not 200.
    pub audit: Option<AuditView>,
    /// The same, read a second time.
    pub audit_again: Option<AuditView>,
    /// `GET /v1/dispatch/request/…`; `None`: not 200.
    pub view: Option<RequestView>,
}

/// One round of the mini-scenario about priority classes: what waited for one busy driver, and who was served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRound {
    /// The driver.
    pub driver: Id,
    /// `(class, request)` in the order in which they began to wait; class 0 is premium, 2 is economy.
    pub waited: Vec<(u8, Id)>,
    /// Requests in the order in which their offers came.
    pub served: Vec<Id>,
}

/// Everything the auditor judges.
#[derive(Debug, Default)]
pub struct Evidence {
    /// All that was seen, oldest first.
    pub observations: Vec<Observation>,
    /// When the observations began, Unix time.
    pub started_unix: Duration,
    /// Audits read before the kill.
    pub before_kill: Vec<(Id, AuditView)>,
    /// What was read at the end, for every request that was posted.
    pub finals: BTreeMap<Id, FinalView>,
    /// The event stream, read once more from its beginning by a consumer that acknowledged nothing.
    pub events_again: Vec<EventLine>,
    /// The mini-scenario.
    pub class_rounds: Vec<ClassRound>,
    /// What several nodes are allowed; `None`: there is one.
    pub fleet: Option<Allowance>,
}

/// What a fleet may do and one node may not.
///
/// Who takes a request over publishes its last events again, and what a node that was away had written of receipts comes into
/// the audit when it is back. So events count once however often they are published, and an audit that was read before is
/// found in the later one without `seq`, and not always as its beginning. An offer whose time is over may be decided late:
/// from then on it is no offer any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// The longest time for which a node was stopped, in ms: what it was about to write then has an old time.
    pub pause_ms: u64,
}
