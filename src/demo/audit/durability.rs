//! Invariants 3 and 4: what was answered, confirmed or published survives the kill, and every request ends.

use super::Verdict;
use super::ledger::{File, Ledger};
use crate::demo::messages::{AuditEvent, AuditView, EventLine, is_end};
use crate::demo::observe::{OnSocket, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Invariant 3.
pub fn still_there(ledger: &Ledger<'_>, verdict: &mut Verdict) {
    for (request, file) in &ledger.files {
        answers_are_kept(request, file, verdict);
        confirmations_are_kept(request, file, verdict);
        events_are_kept(request, file, verdict);
        for before in &file.before {
            let is_kept = match ledger.evidence.fleet {
                Some(_) => is_part,
                None => is_prefix,
            };
            let kept = file.audit().is_some_and(|after| is_kept(before, after));
            verdict.check(kept, || {
                let steps = before.events.len();
                format!("{request}: the {steps} steps audited before the kill are not how the audit has them now")
            });
        }
    }
    sessions_grow(ledger, verdict);
    let ended: BTreeSet<&str> = ledger
        .files
        .values()
        .filter_map(|file| {
            file.steps("TRIP_ENDED").next()?;
            file.last?.view.as_ref()?.trip_id.as_deref()
        })
        .collect();
    for trip in &ledger.trips_cancelled {
        verdict.check(ended.contains(trip), || {
            format!("trip {trip} was cancelled and did not end")
        });
    }
    stream_is_kept(ledger, verdict);
}

/// A session's number is never used again, whatever the crash took.
fn sessions_grow(ledger: &Ledger<'_>, verdict: &mut Verdict) {
    for (driver, history) in &ledger.sockets {
        let mut newest = 0;
        for (_, what) in history {
            if let OnSocket::Welcome { session, .. } = what {
                verdict.check(*session > newest, || {
                    format!("{driver}: session {session} after session {newest}")
                });
                newest = newest.max(*session);
            }
        }
    }
}

fn is_prefix(before: &AuditView, after: &AuditView) -> bool {
    after.events.starts_with(&before.events)
}

/// Whether every step stands in the later audit, in this order and unchanged but for its number.
fn is_part(before: &AuditView, after: &AuditView) -> bool {
    let mut rest = after.events.iter();
    let is_same = |step: &AuditEvent, other: &AuditEvent| {
        let seq = step.seq;
        *step == AuditEvent { seq, ..other.clone() }
    };
    before.events.iter().all(|step| rest.any(|other| is_same(step, other)))
}

fn answers_are_kept(request: &str, file: &File<'_>, verdict: &mut Verdict) {
    if file.is_accepted_for_dispatch() {
        let kept = file.steps("REQUEST_RECEIVED").next().is_some();
        verdict.check(kept, || format!("{request}: was answered 2xx and is unknown now"));
    }
    for (first, status, answer) in &file.answers {
        if *status == 202 && answer.attempt > 0 {
            let kept = file.attempts().contains_key(&answer.attempt);
            verdict.check(kept, || {
                format!("{request}: attempt {} of a 202 is gone", answer.attempt)
            });
        }
        if *status == 202 && !first && !answer.duplicate {
            let kept = file.steps("REDISPATCHED").next().is_some();
            verdict.check(kept, || format!("{request}: the re-dispatch of a 202 is gone"));
        }
        if *status == 200 && answer.state == "ACCEPTED" {
            let kept = file.steps("OFFER_ACCEPTED").next().is_some();
            verdict.check(kept, || format!("{request}: was answered ACCEPTED and is not"));
        }
    }
    if file.cancelled {
        let kept = file.steps("REQUEST_CANCELLED").next().is_some();
        verdict.check(kept, || {
            format!("{request}: its cancelling was answered 200 and is gone")
        });
    }
}

fn confirmations_are_kept(request: &str, file: &File<'_>, verdict: &mut Verdict) {
    for heard in &file.heard {
        let Outcome::Confirmed(trip) = heard.outcome else {
            continue;
        };
        let recorded = file.steps("OFFER_ACCEPTED").any(|step| {
            step.attempt == Some(heard.attempt)
                && step.driver_id.as_deref().is_none_or(|driver| driver == &**heard.driver)
        });
        let shown = file
            .last
            .and_then(|last| last.view.as_ref())
            .is_some_and(|view| view.state == "ACCEPTED" && view.trip_id.as_deref() == Some(&**trip));
        verdict.check(recorded && shown, || {
            format!("{request}: {} was CONFIRMED for {trip}, which is gone", heard.driver)
        });
    }
}

/// Every published event has its step.
fn events_are_kept(request: &str, file: &File<'_>, verdict: &mut Verdict) {
    let mut published: BTreeMap<&str, usize> = BTreeMap::new();
    for event in file.events.values() {
        *published.entry(&event.kind).or_default() += 1;
    }
    for (kind, count) in published {
        let step = if kind == "REDISPATCH_REQUESTED" {
            "CANDIDATES_EXHAUSTED"
        } else {
            kind
        };
        let recorded = file.audit().map_or(0, |audit| {
            audit.events.iter().filter(|recorded| recorded.event == step).count()
        });
        verdict.check(recorded >= count, || {
            format!("{request}: {count} {kind} published, {recorded} {step} in the audit")
        });
    }
}

/// The stream read again from its beginning holds, under the same cursors, all that was read of it before the kill.
fn stream_is_kept(ledger: &Ledger<'_>, verdict: &mut Verdict) {
    let place = |event: &EventLine| (event.stream, event.cursor);
    let read_again = ledger.evidence.events_again.iter();
    let again: BTreeMap<(u16, u64), &EventLine> = read_again.map(|event| (place(event), event)).collect();
    for event in &ledger.events_before_kill {
        let kept = again.get(&place(event)).is_some_and(|found| found == event);
        verdict.check(kept, || {
            format!(
                "event {} ({} of {}) is gone or changed",
                event.cursor, event.kind, event.request_id
            )
        });
    }
}

/// Invariant 4: whatever was taken for dispatch has an end.
pub fn ended(ledger: &Ledger<'_>, verdict: &mut Verdict) {
    for (request, file) in &ledger.files {
        if !file.is_accepted_for_dispatch() {
            continue;
        }
        let state = file
            .last
            .and_then(|last| last.view.as_ref())
            .map(|view| view.state.as_str());
        verdict.check(state.is_some_and(is_end), || {
            format!("{request}: has not ended, it is {state:?}")
        });
    }
}
