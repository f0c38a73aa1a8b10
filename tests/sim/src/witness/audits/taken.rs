//! Audits that are read: they grow, make sense, and agree with what is known.

use super::super::Witness;
use super::super::state::{Winner, ways};
use super::Life;
use crate::checks::{About, Check};
use crate::codec::audit::{Audit, Entry};
use crate::ids::Offer;
use crate::words::Step;
use std::rc::Rc;

/// An audit was read: it grows, makes sense, and agrees with what is known. `len_min` is how long it was known to be when
/// it was asked for.
pub(in crate::witness) fn take(witness: &mut Witness, len_min: usize, audit: Audit) {
    let request = audit.request;
    let about = About::request(request);
    let known = witness.requests[request as usize].audit.clone();
    if witness.is_fleet() {
        return take_in_fleet(witness, audit, known.as_deref());
    }
    let (known_len, len) = (
        known.as_ref().map_or(0, |known| known.entries.len()),
        audit.entries.len(),
    );
    let common = known_len.min(len);
    let grows = len >= len_min
        && known
            .as_ref()
            .is_none_or(|known| known.entries[..common] == audit.entries[..common]);
    if !witness.holds(Check::AuditGrows, grows) {
        let differs = known
            .as_ref()
            .and_then(|known| (0..common).find(|index| known.entries[*index] != audit.entries[*index]));
        let text = format!("the audit of r{request} had {known_len} events and has {len}; they differ at {differs:?}");
        return witness.violate(Check::AuditGrows, about, text);
    }
    if len <= known_len {
        return;
    }
    witness.counts.add(Check::AuditTrue);
    match Life::of(&audit) {
        Err(why) => witness.violate(Check::AuditTrue, about, format!("the audit of r{request}: {why}")),
        Ok(life) => {
            let is_fit = life.tried.iter().all(|tried| tried.way != ways::SUPERSEDED);
            if !witness.holds(Check::AuditTrue, is_fit) {
                let text = format!("r{request} was taken back from a driver who is bound to nothing else");
                return witness.violate(Check::AuditTrue, about, text);
            }
            witness.check_asked(request, &audit.entries[known_len..]);
            learn(witness, &audit, &life);
        }
    }
    witness.requests[request as usize].audit = Some(Rc::new(audit));
}

/// As [`take`], of a request that several nodes may have had. What was decided is never rewritten. A receipt that the owner noted and that
/// was stored with no decision comes to the audit when its node does (design.md, section 5: "a node that comes back flushes what its
/// journal still holds"), and times of what follows it never fall.
fn take_in_fleet(witness: &mut Witness, audit: Audit, known: Option<&Audit>) {
    let request = audit.request;
    let about = About::request(request);
    let old: Vec<&Entry> = known.iter().flat_map(|known| decided(known)).collect();
    let new: Vec<&Entry> = decided(&audit).collect();
    let common = old.len().min(new.len());
    let differs = (0..common).find(|index| !same_decision(old[*index], new[*index]));
    if !witness.holds(Check::AuditGrows, differs.is_none()) {
        let at = differs.map(|index| (old[index], new[index]));
        let text = format!("the audit of r{request} was rewritten: {at:?}");
        return witness.violate(Check::AuditGrows, about, text);
    }
    let receipts = audit.entries.iter().filter(|entry| is_receipt(entry.step));
    for receipt in receipts.map(|entry| (entry.step == Step::Acked, entry.attempt)) {
        let seen = &mut witness.requests[request as usize].receipts;
        if !seen.contains(&receipt) {
            seen.push(receipt);
        }
    }
    witness.counts.add(Check::AuditTrue);
    match Life::of_fleet(&audit) {
        Err(why) => return witness.violate(Check::AuditTrue, about, format!("the audit of r{request}: {why}")),
        Ok(life) => {
            let known_len = known.map_or(0, |known| known.entries.len()).min(audit.entries.len());
            witness.check_asked(request, &audit.entries[known_len..]);
            learn(witness, &audit, &life);
        }
    }
    // One that a node which was cut off shows is older.
    if new.len() >= old.len() {
        witness.requests[request as usize].audit = Some(Rc::new(audit));
    }
}

fn decided(audit: &Audit) -> impl Iterator<Item = &Entry> {
    audit.entries.iter().filter(|entry| !is_receipt(entry.step))
}

fn is_receipt(step: Step) -> bool {
    matches!(step, Step::Delivered | Step::Acked)
}

fn same_decision(one: &Entry, other: &Entry) -> bool {
    let mut other = other.clone();
    other.at_ms = one.at_ms;
    *one == other
}

fn learn(witness: &mut Witness, audit: &Audit, life: &Life) {
    let request = audit.request;
    for (attempt, tried) in (1..).zip(&life.tried) {
        let way = if tried.way == ways::OPEN { ways::ANY } else { tried.way };
        witness.learn_way(Offer { request, attempt }, Some(tried.driver), way);
    }
    if let Some(trip) = life.trip {
        let attempt = life
            .tried
            .iter()
            .position(|tried| tried.way == ways::ACCEPTED)
            .map(|index| index as u32 + 1);
        let won = Winner {
            driver: trip.driver,
            attempt,
            trip: Some(trip.trip),
        };
        witness.learn_winner(request, won);
        if let Some((_, outcome)) = trip.ended {
            witness.learn_trip_ended(trip.trip, Some(outcome));
        }
    }
    let deadline = witness.requests[request as usize].deadline_at_ms;
    let same = deadline.is_none_or(|deadline| deadline == life.deadline_at_ms);
    if !witness.holds(Check::AuditComplete, same) {
        let text = format!(
            "the deadline of r{request} was {deadline:?} and is {}",
            life.deadline_at_ms
        );
        witness.violate(Check::AuditComplete, About::request(request), text);
    }
    witness.requests[request as usize].deadline_at_ms = Some(life.deadline_at_ms);
}
