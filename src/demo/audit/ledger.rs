//! The evidence, sorted by request and by driver.

use crate::demo::messages::{AuditEvent, AuditView, EventLine, Id, OfferAnswer};
use crate::demo::observe::{Evidence, FinalView, OnApi, OnSocket, Outcome, Seen};
use std::collections::BTreeMap;
use std::time::Duration;

/// An attempt as the audit tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempt<'a> {
    /// Whose.
    pub driver: Option<&'a str>,
    /// Whether `OFFER_SENT` is there.
    pub sent: bool,
    /// When it was delivered.
    pub delivered_at_ms: Option<u64>,
    /// Whether it was acknowledged.
    pub acked: bool,
    /// The steps that end it; more than one is a violation.
    pub ends: Vec<&'a AuditEvent>,
}

/// An outcome that somebody heard.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Whose attempt.
    pub driver: &'a Id,
    /// Which.
    pub attempt: u32,
    /// What.
    pub outcome: &'a Outcome,
}

/// All about one request.
#[derive(Debug, Default)]
pub struct File<'a> {
    /// What was read at the end.
    pub last: Option<&'a FinalView>,
    /// Its audits of before the kill.
    pub before: Vec<&'a AuditView>,
    /// POSTs of it that were answered: first candidates or not, status, answer.
    pub answers: Vec<(bool, u16, &'a OfferAnswer)>,
    /// Re-POSTs that left.
    pub redispatches: u64,
    /// Whether cancelling it was answered 200.
    pub cancelled: bool,
    /// Outcomes heard on sockets and over HTTP.
    pub heard: Vec<Heard<'a>>,
    /// Offers heard on sockets: by whom, which attempt, and when its time is over, Unix ms.
    pub offered: Vec<(&'a Id, u32, u64)>,
    /// Its published events, each once, by stream and cursor.
    pub events: BTreeMap<(u16, u64), &'a EventLine>,
}

impl<'a> File<'a> {
    /// The audit at the end.
    pub fn audit(&self) -> Option<&'a AuditView> {
        self.last?.audit.as_ref()
    }

    /// Steps of this name in the audit at the end.
    pub fn steps(&self, name: &'a str) -> impl Iterator<Item = &'a AuditEvent> {
        let events = self.audit().map_or(&[][..], |audit| &audit.events);
        events.iter().filter(move |step| step.event == name)
    }

    /// Published events of this type.
    pub fn published(&self, kind: &str) -> impl Iterator<Item = &'a EventLine> {
        self.events.values().copied().filter(move |event| event.kind == kind)
    }

    /// Attempts of the audit at the end, by number.
    pub fn attempts(&self) -> BTreeMap<u32, Attempt<'a>> {
        self.audit().map(attempts_of).unwrap_or_default()
    }

    /// When an attempt's time is over, as its driver was told, Unix ms.
    pub fn expires_at_ms(&self, attempt: u32) -> Option<u64> {
        let told = self.offered.iter().filter(|(_, number, _)| *number == attempt);
        told.map(|(_, _, expires_at_ms)| *expires_at_ms).max()
    }

    /// Whether some POST of it was answered 2xx.
    pub fn is_accepted_for_dispatch(&self) -> bool {
        self.answers.iter().any(|(_, status, _)| (200..300).contains(status))
    }
}

/// The attempts that an audit tells of, by number.
pub fn attempts_of(audit: &AuditView) -> BTreeMap<u32, Attempt<'_>> {
    let mut attempts: BTreeMap<u32, Attempt<'_>> = BTreeMap::new();
    for step in &audit.events {
        let Some(number) = step.attempt else { continue };
        let attempt = attempts.entry(number).or_default();
        if step.driver_id.is_some() && attempt.driver.is_none() {
            attempt.driver = step.driver_id.as_deref();
        }
        match step.event.as_str() {
            "OFFER_SENT" => attempt.sent = true,
            "OFFER_DELIVERED" => attempt.delivered_at_ms = Some(step.at_ms),
            "OFFER_ACKED" => attempt.acked = true,
            "OFFER_ACCEPTED" | "OFFER_DECLINED" | "OFFER_TIMED_OUT" | "OFFER_REFUSED" | "OFFER_REVOKED" => {
                attempt.ends.push(step);
            }
            _ => {}
        }
    }
    attempts
}

/// The evidence by request and by driver.
#[derive(Debug)]
pub struct Ledger<'a> {
    /// The evidence itself.
    pub evidence: &'a Evidence,
    /// By request.
    pub files: BTreeMap<&'a str, File<'a>>,
    /// What each driver's socket saw, in order.
    pub sockets: BTreeMap<&'a str, Vec<(Duration, &'a OnSocket)>>,
    /// By trip, from the audits at the end: request and driver.
    pub trips: BTreeMap<&'a str, (&'a str, Option<&'a str>)>,
    /// Trips whose cancelling was answered 200.
    pub trips_cancelled: Vec<&'a str>,
    /// Events read before the last kill.
    pub events_before_kill: Vec<&'a EventLine>,
    /// Events read since.
    events_since: Vec<&'a EventLine>,
}

impl<'a> Ledger<'a> {
    /// Sorts the evidence.
    pub fn of(evidence: &'a Evidence) -> Self {
        let mut ledger = Self {
            evidence,
            files: BTreeMap::new(),
            sockets: BTreeMap::new(),
            trips: BTreeMap::new(),
            trips_cancelled: Vec::new(),
            events_before_kill: Vec::new(),
            events_since: Vec::new(),
        };
        for observation in &evidence.observations {
            match &observation.seen {
                Seen::Socket(driver, what) => ledger.add_socket(observation.at, driver, what),
                Seen::Api(what) => ledger.add_api(what),
                Seen::NodeKilled => ledger.events_before_kill.append(&mut ledger.events_since),
                Seen::NodeReady | Seen::Unserved(_) => {}
            }
        }
        for event in &evidence.events_again {
            ledger.add_event(event);
        }
        for (request, audit) in &evidence.before_kill {
            ledger.files.entry(request).or_default().before.push(audit);
        }
        for (request, last) in &evidence.finals {
            ledger.files.entry(request).or_default().last = Some(last);
            for step in last.audit.iter().flat_map(|audit| &audit.events) {
                if let (Some(trip), "TRIP_CREATED") = (trip_of_step(step), step.event.as_str()) {
                    ledger.trips.insert(trip, (request, step.driver_id.as_deref()));
                }
            }
        }
        ledger
    }

    fn add_socket(&mut self, at: Duration, driver: &'a Id, what: &'a OnSocket) {
        self.sockets.entry(driver).or_default().push((at, what));
        match what {
            OnSocket::Offer {
                request,
                attempt,
                expires_at_ms,
            } => {
                let offer = (driver, *attempt, *expires_at_ms);
                self.files.entry(request).or_default().offered.push(offer);
            }
            OnSocket::Outcome {
                request,
                attempt,
                outcome,
            } => {
                let heard = Heard {
                    driver,
                    attempt: *attempt,
                    outcome,
                };
                self.files.entry(request).or_default().heard.push(heard);
            }
            _ => {}
        }
    }

    fn add_api(&mut self, what: &'a OnApi) {
        match what {
            OnApi::Posted { request, first, .. } => {
                let file = self.files.entry(request).or_default();
                file.redispatches += u64::from(!first);
            }
            OnApi::Answered {
                request,
                first,
                status,
                answer,
            } => {
                let file = self.files.entry(request).or_default();
                file.answers.push((*first, *status, answer));
            }
            OnApi::Responded {
                request,
                driver,
                attempt,
                outcome,
            } => {
                let heard = Heard {
                    driver,
                    attempt: *attempt,
                    outcome,
                };
                self.files.entry(request).or_default().heard.push(heard);
            }
            OnApi::Cancelled { request } => self.files.entry(request).or_default().cancelled = true,
            OnApi::TripCancelled { trip } => self.trips_cancelled.push(trip),
            OnApi::Event(event) => {
                self.add_event(event);
                self.events_since.push(event);
            }
        }
    }

    fn add_event(&mut self, event: &'a EventLine) {
        let file = self.files.entry(&event.request_id).or_default();
        let is_known = |known: &&EventLine| known.saying() == event.saying();
        if self.evidence.fleet.is_none() || !file.events.values().any(is_known) {
            file.events.insert((event.stream, event.cursor), event);
        }
    }
}

/// The trip that a step names in its detail, wherever that stands in it.
pub fn trip_of_step(step: &AuditEvent) -> Option<&str> {
    step.detail.as_ref()?.get("trip_id")?.as_str()
}
