//! What clients were told while the node was killed again and again, and the comparison with what the node says.

use crate::support::{Value, api, audit, text};
use std::collections::{BTreeMap, BTreeSet};

/// A trip as its driver was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    pub driver_id: String,
    pub trip_id: String,
    /// Not known when the answer came over HTTP.
    pub attempt: Option<u64>,
}

/// Everything that clients were told. What contradicts itself is a violation at once.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Requests answered 2xx (or with a 409 that knows them).
    pub taken: BTreeSet<String>,
    pub confirmed: BTreeMap<String, Confirmed>,
    /// Requests whose cancel was answered 200.
    pub cancelled: BTreeSet<String>,
    /// The newest audit that was read of a request.
    pub audits: BTreeMap<String, Vec<Value>>,
    /// Events by cursor.
    pub events: BTreeMap<String, Value>,
    sessions: BTreeMap<String, u64>,
    /// How often a `CONFIRMED` was heard, repeats included.
    pub confirmations: usize,
    pub violations: Vec<String>,
}

impl Ledger {
    /// A `CONFIRMED`, or `outcome: CONFIRMED` over HTTP.
    pub fn confirm(&mut self, request_id: &str, confirmed: Confirmed) {
        self.confirmations += 1;
        let Some(before) = self.confirmed.get_mut(request_id) else {
            self.confirmed.insert(request_id.to_owned(), confirmed);
            return;
        };
        let same_driver = before.driver_id == confirmed.driver_id && before.trip_id == confirmed.trip_id;
        let same_attempt =
            before.attempt.is_none() || confirmed.attempt.is_none() || before.attempt == confirmed.attempt;
        before.attempt = before.attempt.or(confirmed.attempt);
        if !(same_driver && same_attempt) {
            let violation = format!("{request_id} was confirmed as {before:?} and as {confirmed:?}");
            self.violations.push(violation);
        }
    }

    /// The `session` of a `WELCOME`.
    pub fn connected(&mut self, driver_id: &str, session: u64) {
        let before = self.sessions.insert(driver_id.to_owned(), session).unwrap_or(0);
        if session <= before {
            self.violations
                .push(format!("session of {driver_id} went from {before} to {session}"));
        }
    }

    /// An audit as it was read: the one read before must be a prefix.
    pub fn audited(&mut self, request_id: &str, events: Vec<Value>) {
        let before = self.audits.entry(request_id.to_owned()).or_default();
        if !events.starts_with(before) {
            self.violations.push(format!("the audit of {request_id} was rewritten"));
        }
        *before = events;
    }

    /// A line of the event stream.
    pub fn published(&mut self, event: &Value) {
        let cursor = api::cursor_text(event);
        let before = self.events.insert(cursor.clone(), event.clone());
        if before.is_some_and(|before| before != *event) {
            self.violations.push(format!("the event at {cursor} changed"));
        }
    }

    /// Compares a request's final view and audit with what was told of it.
    pub fn check_request(&mut self, request_id: &str, view: &Value, events: Vec<Value>) {
        let mut wrong = Vec::new();
        let state = text(view, "state").to_owned();
        if !["ACCEPTED", "CANCELLED", "UNFULFILLED"].contains(&state.as_str()) {
            wrong.push(format!("no end state but {state}"));
        }
        if self.cancelled.contains(request_id) && state != "CANCELLED" {
            wrong.push(format!("its cancel was answered 200, and it is {state}"));
        }
        let accepted = audit::count(&events, "OFFER_ACCEPTED");
        if accepted != usize::from(state == "ACCEPTED") {
            wrong.push(format!("{accepted} OFFER_ACCEPTED in state {state}"));
        }
        if let Some(confirmed) = self.confirmed.get(request_id) {
            let holds = view["driver_id"] == confirmed.driver_id.as_str()
                && view["trip_id"] == confirmed.trip_id.as_str()
                && confirmed.attempt.is_none_or(|attempt| view["attempt"] == attempt);
            if state != "ACCEPTED" || !holds {
                wrong.push(format!("{confirmed:?}, and the view is {view}"));
            }
        }
        let wrong = wrong.into_iter().map(|what| format!("{request_id}: {what}"));
        self.violations.extend(wrong);
        self.audited(request_id, events);
        self.check_published(request_id, view);
    }

    /// What ended must have been published, and nothing else.
    fn check_published(&mut self, request_id: &str, view: &Value) {
        let mine = || self.events.values().filter(|event| event["request_id"] == request_id);
        let published = |kind: &str| mine().any(|event| event["type"] == kind);
        let ends = [
            ("TRIP_CREATED", "ACCEPTED"),
            ("REQUEST_CANCELLED", "CANCELLED"),
            ("REQUEST_UNFULFILLED", "UNFULFILLED"),
        ];
        let mut wrong = Vec::new();
        for (kind, state) in ends {
            let expected = view["state"] == state;
            if published(kind) != expected {
                wrong.push(format!(
                    "{request_id} is {}: {kind} published: {}",
                    view["state"], !expected
                ));
            }
        }
        for event in mine().filter(|event| event["type"] == "TRIP_CREATED") {
            if event["trip_id"] != view["trip_id"] || event["driver_id"] != view["driver_id"] {
                wrong.push(format!("{request_id}: {event} against {view}"));
            }
        }
        self.violations.extend(wrong);
    }
}
