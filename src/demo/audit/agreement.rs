//! Invariants 1 and 5: one winner, and everybody involved hears of the same end.

use super::Verdict;
use super::ledger::{Attempt, File, Ledger};
use crate::demo::messages::{AuditEvent, Id};
use crate::demo::observe::{OnSocket, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Invariant 1: at most one driver has a request, once.
pub fn one_winner(ledger: &Ledger<'_>, verdict: &mut Verdict) {
    let mut trips: BTreeMap<&str, &str> = BTreeMap::new();
    for (request, file) in &ledger.files {
        let accepted = file.steps("OFFER_ACCEPTED").count();
        verdict.check(accepted <= 1, || {
            format!("{request}: {accepted} OFFER_ACCEPTED in the audit")
        });
        let created = file.steps("TRIP_CREATED").count();
        verdict.check(created <= 1, || {
            format!("{request}: {created} TRIP_CREATED in the audit")
        });

        let (drivers, won) = winners(file);
        verdict.check(drivers.len() <= 1, || format!("{request}: won by {drivers:?}"));
        verdict.check(won.len() <= 1, || format!("{request}: has the trips {won:?}"));
        for trip in won {
            let other = trips.insert(trip, request);
            verdict.check(other.is_none(), || {
                format!("trip {trip} belongs to {request} and {other:?}")
            });
        }

        let fresh = |&&(first, status, answer): &&(bool, u16, &crate::demo::messages::OfferAnswer)| {
            first && status == 202 && !answer.duplicate
        };
        let started = file.answers.iter().filter(fresh).count();
        verdict.check(started <= 1, || {
            format!("{request}: the same POST began {started} dispatches")
        });
    }
}

/// Drivers and trips that anybody named as this request's: sockets, HTTP answers, events, the view and the audit.
fn winners<'a>(file: &File<'a>) -> (BTreeSet<&'a str>, BTreeSet<&'a str>) {
    let (mut drivers, mut trips) = (BTreeSet::new(), BTreeSet::new());
    for heard in &file.heard {
        if let Outcome::Confirmed(trip) = heard.outcome {
            drivers.insert(&**heard.driver);
            trips.insert(&**trip);
        }
    }
    for event in file.events.values() {
        if event.kind.starts_with("TRIP_") {
            drivers.extend(event.driver_id.as_deref());
            trips.extend(event.trip_id.as_deref());
        }
    }
    drivers.extend(
        file.steps("OFFER_ACCEPTED")
            .filter_map(|step| step.driver_id.as_deref()),
    );
    if let Some(view) = file.last.and_then(|last| last.view.as_ref()) {
        trips.extend(view.trip_id.as_deref());
        if view.state == "ACCEPTED" {
            drivers.extend(view.driver_id.as_deref());
        }
    }
    (drivers, trips)
}

/// Invariant 5: drivers, callers, downstream services and the audit tell of the same end.
pub fn same_outcome(ledger: &Ledger<'_>, verdict: &mut Verdict) {
    for (request, file) in &ledger.files {
        heard_is_recorded(request, file, verdict);
        parties_agree(request, file, verdict);
    }
    for (driver, history) in &ledger.sockets {
        every_offer_was_answered(driver, history.iter().map(|(_, what)| *what), verdict);
        welcomes_are_true(driver, history.iter().map(|(_, what)| *what), ledger, verdict);
    }
}

/// Whatever was heard of an attempt is how its audit says that it ended.
fn heard_is_recorded(request: &str, file: &File<'_>, verdict: &mut Verdict) {
    let attempts = file.attempts();
    for (number, attempt) in &attempts {
        let ends = attempt.ends.len();
        verdict.check(ends <= 1, || format!("{request}: attempt {number} ended {ends} times"));
    }
    for heard in &file.heard {
        let recorded = attempts.get(&heard.attempt);
        let agrees = recorded.is_some_and(|attempt| agrees(attempt, heard.driver, heard.outcome));
        verdict.check(agrees, || {
            format!(
                "{request}: {} heard {:?} of attempt {}, the audit has {:?}",
                heard.driver,
                heard.outcome,
                heard.attempt,
                recorded.map(|attempt| (attempt.driver, attempt.ends.first().map(|end| &end.event)))
            )
        });
    }
}

fn agrees(attempt: &Attempt<'_>, driver: &str, outcome: &Outcome) -> bool {
    let Some(end) = attempt.ends.first() else {
        return false;
    };
    attempt.driver == Some(driver)
        && match (outcome, end.event.as_str()) {
            (Outcome::Confirmed(_), "OFFER_ACCEPTED")
            | (Outcome::Declined, "OFFER_DECLINED")
            | (Outcome::TooLate, "OFFER_TIMED_OUT" | "OFFER_REVOKED") => true,
            (Outcome::Revoked(reason), "OFFER_TIMED_OUT") => &**reason == "timeout",
            (Outcome::Revoked(reason), "OFFER_REVOKED") => reason_of(end).is_none_or(|why| why == &**reason),
            _ => false,
        }
}

/// The reason in a step's detail.
fn reason_of(step: &AuditEvent) -> Option<&str> {
    step.detail.as_ref()?.get("reason")?.as_str()
}

/// The view, the audit and the event stream tell of the same end.
fn parties_agree(request: &str, file: &File<'_>, verdict: &mut Verdict) {
    let Some(last) = file.last else { return };
    let (Some(view), Some(audit)) = (&last.view, &last.audit) else {
        return;
    };
    verdict.check(view.state == audit.state, || {
        format!(
            "{request}: is {} for one reader and {} for another",
            view.state, audit.state
        )
    });
    let steps = [
        ("ACCEPTED", "TRIP_CREATED", "TRIP_CREATED"),
        ("CANCELLED", "REQUEST_CANCELLED", "REQUEST_CANCELLED"),
        ("UNFULFILLED", "REQUEST_UNFULFILLED", "REQUEST_UNFULFILLED"),
    ];
    for (state, step, event) in steps {
        let expected = usize::from(view.state == state);
        let recorded = file.steps(step).count();
        verdict.check(recorded == expected, || {
            format!("{request}: is {} with {recorded} {step} in the audit", view.state)
        });
        let published = file.published(event).count();
        verdict.check(published == expected, || {
            format!("{request}: is {} with {published} {event} published", view.state)
        });
    }
    let others = [
        ("CANDIDATES_EXHAUSTED", "REDISPATCH_REQUESTED"),
        ("TRIP_PICKED_UP", "TRIP_PICKED_UP"),
        ("TRIP_ENDED", "TRIP_ENDED"),
    ];
    for (step, event) in others {
        let (recorded, published) = (file.steps(step).count(), file.published(event).count());
        verdict.check(recorded == published, || {
            format!("{request}: {recorded} {step} in the audit, {published} {event} published")
        });
    }
    let outcomes = |step: &AuditEvent| step.detail.as_ref().and_then(|detail| detail.get("outcome")).cloned();
    for (step, event) in file.steps("TRIP_ENDED").zip(file.published("TRIP_ENDED")) {
        let recorded = outcomes(step);
        let agrees = recorded
            .as_ref()
            .is_none_or(|outcome| outcome.as_str() == event.outcome.as_deref());
        verdict.check(agrees, || {
            format!("{request}: the trip ended as {recorded:?} and as {:?}", event.outcome)
        });
    }
}

/// On a session that is still there at the end, every offer's end was heard. (A session that was lost says nothing: its
/// last words may have been under way.) And nothing that was offered to a driver is ever called unknown.
fn every_offer_was_answered<'a>(driver: &str, history: impl Iterator<Item = &'a OnSocket>, verdict: &mut Verdict) {
    let mut open: BTreeSet<(&Id, u32)> = BTreeSet::new();
    let mut known: BTreeSet<&Id> = BTreeSet::new();
    for what in history {
        match what {
            OnSocket::Welcome { .. } | OnSocket::Lost => open.clear(),
            OnSocket::Offer { request, attempt, .. } => {
                open.insert((request, *attempt));
                known.insert(request);
            }
            OnSocket::Outcome { request, attempt, .. } => {
                open.remove(&(request, *attempt));
            }
            OnSocket::Error { code, request } => {
                let offered = request.as_ref().is_some_and(|request| known.contains(request));
                verdict.check(!offered, || {
                    format!("{driver}: {code} for an offer that it got: {request:?}")
                });
            }
            OnSocket::State { .. }
            | OnSocket::TripCancelled { .. }
            | OnSocket::SentAck { .. }
            | OnSocket::SentAnswer { .. }
            | OnSocket::SentTrip { .. } => {}
        }
    }
    verdict.check(open.is_empty(), || format!("{driver}: never heard the end of {open:?}"));
}

/// A trip that a `WELCOME` names is one that this driver won.
fn welcomes_are_true<'a>(
    driver: &str,
    history: impl Iterator<Item = &'a OnSocket>,
    ledger: &Ledger<'_>,
    verdict: &mut Verdict,
) {
    for what in history {
        if let OnSocket::Welcome { trip: Some(trip), .. } = what {
            let owner = ledger.trips.get(&**trip).and_then(|(_, driver)| *driver);
            verdict.check(owner == Some(driver), || {
                format!("{driver}: welcomed with trip {trip} of {owner:?}")
            });
        }
    }
}
