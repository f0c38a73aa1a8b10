//! Invariant 7: the audit holds every step, in order, and is never rewritten.

use super::Verdict;
use super::ledger::{Attempt, File, Ledger, attempts_of};
use crate::demo::messages::{AuditView, Id};
use crate::demo::observe::{OnSocket, Outcome};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Invariant 7.
pub fn complete(ledger: &Ledger<'_>, verdict: &mut Verdict) {
    for (request, file) in &ledger.files {
        for audit in file.before.iter().copied().chain(file.audit()) {
            is_well_formed(request, audit, verdict);
        }
        if let Some(last) = file.last {
            verdict.check(last.audit == last.audit_again, || {
                format!("{request}: its audit changed between two readings")
            });
        }
        holds_what_was_offered(request, file, verdict);
    }
    for (driver, history) in &ledger.sockets {
        holds_what_sockets_saw(driver, history, ledger, verdict);
    }
}

/// `seq` from 1 without gaps, time that never falls, attempts from 1 without gaps, nothing of an attempt before it began
/// or after it ended, the first step first.
fn is_well_formed(request: &str, audit: &AuditView, verdict: &mut Verdict) {
    let gapless = audit.events.iter().zip(1..).all(|(step, seq)| step.seq == seq);
    verdict.check(gapless, || format!("{request}: seq has gaps"));
    verdict.check(audit.events.is_sorted_by_key(|step| step.at_ms), || {
        format!("{request}: at_ms falls")
    });
    let first = audit.events.first().map(|step| step.event.as_str());
    verdict.check(first == Some("REQUEST_RECEIVED"), || {
        format!("{request}: begins with {first:?}")
    });

    let (mut newest, mut over) = (0, BTreeSet::new());
    for step in &audit.events {
        let Some(attempt) = step.attempt.filter(|_| step.event.starts_with("OFFER_")) else {
            continue;
        };
        let begins = step.event == "OFFER_SENT" || (step.event == "OFFER_REFUSED" && attempt == newest + 1);
        let in_order = if begins {
            attempt == newest + 1
        } else {
            attempt <= newest
        };
        verdict.check(in_order && !over.contains(&attempt), || {
            format!(
                "{request}: {} of attempt {attempt} after {newest} attempts, over: {over:?}",
                step.event
            )
        });
        newest = newest.max(attempt);
        if !matches!(step.event.as_str(), "OFFER_SENT" | "OFFER_DELIVERED" | "OFFER_ACKED") {
            over.insert(attempt);
        }
    }
    let numbers: Vec<u32> = attempts_of(audit).into_keys().collect();
    verdict.check(numbers.iter().copied().eq(1..=numbers.len() as u32), || {
        format!("{request}: attempts are {numbers:?}")
    });
}

/// Each offer that a driver heard was sent to that driver; re-dispatches are as many as were answered 202.
fn holds_what_was_offered(request: &str, file: &File<'_>, verdict: &mut Verdict) {
    let attempts = file.attempts();
    for (driver, number, _) in &file.offered {
        let recorded = attempts.get(number);
        let sent = recorded.is_some_and(|attempt| attempt.sent && attempt.driver == Some(driver));
        verdict.check(sent, || {
            format!("{request}: no OFFER_SENT of attempt {number} to {driver}")
        });
    }
    let begun = |&&(first, status, answer): &&(bool, u16, &crate::demo::messages::OfferAnswer)| {
        !first && status == 202 && !answer.duplicate
    };
    let answered = file.answers.iter().filter(begun).count();
    let recorded = file.steps("REDISPATCHED").count();
    verdict.check(answered <= recorded && recorded as u64 <= file.redispatches, || {
        let sent = file.redispatches;
        format!("{request}: {recorded} REDISPATCHED of {answered} answered 202 and {sent} sent")
    });
}

/// What a session did with an offer.
#[derive(Default)]
struct Handling {
    acked_first: bool,
    answered: bool,
}

/// What one session saw in order must be in the audits: an offer whose answer was taken on the socket had been delivered,
/// and acknowledged if the app did so before; a trip that moved on, moved on.
fn holds_what_sockets_saw(driver: &str, history: &[(Duration, &OnSocket)], ledger: &Ledger<'_>, verdict: &mut Verdict) {
    let mut handled: BTreeMap<(&Id, u32), Handling> = BTreeMap::new();
    let mut finishing: Option<&Id> = None;
    for (_, what) in history {
        match what {
            OnSocket::Welcome { .. } | OnSocket::Lost => {
                handled.clear();
                finishing = None;
            }
            OnSocket::Offer { request, attempt, .. } => {
                handled.entry((request, *attempt)).or_default();
            }
            OnSocket::SentAck { request, attempt } => {
                if let Some(handling) = handled.get_mut(&(request, *attempt)) {
                    handling.acked_first |= !handling.answered;
                }
            }
            OnSocket::SentAnswer { request, attempt, .. } => {
                if let Some(handling) = handled.get_mut(&(request, *attempt)) {
                    handling.answered = true;
                }
            }
            OnSocket::Outcome {
                request,
                attempt,
                outcome: Outcome::Confirmed(_) | Outcome::Declined,
            } => {
                if let Some(handling) = handled
                    .remove(&(request, *attempt))
                    .filter(|handling| handling.answered)
                {
                    let attempts = ledger.files.get(&**request).map(File::attempts).unwrap_or_default();
                    receipts(driver, request, &handling, attempts.get(attempt), verdict);
                }
            }
            OnSocket::SentTrip { trip, event } => {
                if matches!(*event, "complete" | "cancel") {
                    finishing = Some(trip);
                }
            }
            OnSocket::State { state, trip } => match (&**state, trip, finishing.take()) {
                ("on_trip", Some(trip), _) => trip_step(driver, trip, "TRIP_PICKED_UP", ledger, verdict),
                ("available", _, Some(trip)) => trip_step(driver, trip, "TRIP_ENDED", ledger, verdict),
                _ => {}
            },
            OnSocket::TripCancelled { trip } => trip_step(driver, trip, "TRIP_ENDED", ledger, verdict),
            OnSocket::Outcome { .. } | OnSocket::Error { .. } => {}
        }
    }
}

fn receipts(driver: &str, request: &str, handling: &Handling, attempt: Option<&Attempt<'_>>, verdict: &mut Verdict) {
    let delivered = attempt.is_some_and(|attempt| attempt.delivered_at_ms.is_some());
    verdict.check(delivered, || {
        format!("{request}: no OFFER_DELIVERED to {driver}, who answered")
    });
    if handling.acked_first {
        let acked = attempt.is_some_and(|attempt| attempt.acked);
        verdict.check(acked, || {
            format!("{request}: no OFFER_ACKED of {driver}, who did before answering")
        });
    }
}

fn trip_step(driver: &str, trip: &str, name: &str, ledger: &Ledger<'_>, verdict: &mut Verdict) {
    let file = ledger
        .trips
        .get(trip)
        .and_then(|(request, _)| ledger.files.get(request));
    let audit = file.and_then(File::audit);
    let recorded = audit.is_some_and(|audit| audit.events.iter().any(|step| step.event == name));
    verdict.check(recorded, || format!("trip {trip} of {driver}: no {name}"));
}
