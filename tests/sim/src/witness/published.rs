//! What was published, against the audits: each event once, in order, and nothing else.

use super::Witness;
use super::audits::Life;
use crate::checks::{About, Check};
use crate::codec::answers::Event;
use crate::codec::audit::Entry;
use crate::ids::{Driver, Request};
use crate::phrases::{NO_REASON, Reason};
use crate::words::{EventType, Step, TripEnd};

impl Witness {
    /// At the end: the events of each request are those of its audit, in their order.
    pub(super) fn check_events(&mut self, lives: &[Option<Life>]) {
        if self.is_fleet() {
            return self.check_events_of_fleet(lives);
        }
        let mut by_request: Vec<Vec<Event>> = vec![Vec::new(); lives.len()];
        let mut gap = None;
        for (cursor, event) in self.events[0].all() {
            match event {
                Some(event) => by_request[event.request as usize].push(event.clone()),
                None => gap = Some(cursor),
            }
        }
        if !self.holds(Check::EventsInOrder, gap.is_none()) {
            return self.violate(
                Check::EventsInOrder,
                About::default(),
                format!("nobody read event {gap:?}"),
            );
        }
        for (request, (life, events)) in (0..).zip(lives.iter().zip(by_request)) {
            let audit = self.requests[request as usize].audit.clone();
            let (Some(life), Some(audit)) = (life, audit) else {
                continue;
            };
            let expect = events_of(request, life, &audit.entries);
            let got: Vec<_> = events.iter().map(summary).collect();
            if !self.holds(Check::EventsInOrder, got == expect) {
                let text = format!("events of r{request} are {got:?}, and its audit says {expect:?}");
                return self.violate(Check::EventsInOrder, About::request(request), text);
            }
        }
    }

    /// Every event of a request is at one of the nodes that had it, at least once; and at each node in order, as far as what a node
    /// publishes again, of a request that it took over, is the same as before.
    fn check_events_of_fleet(&mut self, lives: &[Option<Life>]) {
        for (request, life) in (0..).zip(lives) {
            let audit = self.requests[request as usize].audit.clone();
            let (Some(life), Some(audit)) = (life, audit) else {
                continue;
            };
            // An audit shows times that never fall, whoever noted what; an event has its own.
            let untimed = |(kind, _, attempts, excluded, outcome, reason): Summary| {
                (kind, 0, attempts, excluded, outcome, reason)
            };
            let expect: Vec<_> = events_of(request, life, &audit.entries)
                .into_iter()
                .map(untimed)
                .collect();
            let mut seen = vec![false; expect.len()];
            for node in 0..self.events.len() {
                let own = self.events[node].all();
                let of_request = own.filter_map(|(_, event)| event.filter(|event| event.request == request));
                let got: Vec<_> = of_request.map(summary).map(untimed).collect();
                let (mut last, mut strange) = (0, None);
                for event in got {
                    match expect.iter().position(|expected| *expected == event) {
                        Some(place) if place >= last => (seen[place], last) = (true, place),
                        // Once more, after a takeover.
                        Some(place) if seen[place] => {}
                        _ => strange = Some(event),
                    }
                }
                if !self.holds(Check::EventsInOrder, strange.is_none()) {
                    let text = format!("r{request} at node {node}: {strange:?}, and its audit says {expect:?}");
                    return self.violate(Check::EventsInOrder, About::request(request), text);
                }
            }
            let missing = expect
                .iter()
                .zip(&seen)
                .find(|(_, seen)| !**seen)
                .map(|(event, _)| event);
            if !self.holds(Check::EventsInOrder, missing.is_none()) {
                let text = format!("r{request} was published nowhere as {missing:?}");
                return self.violate(Check::EventsInOrder, About::request(request), text);
            }
        }
    }
}

type Summary = (EventType, u64, u32, Vec<Driver>, Option<TripEnd>, Reason);

fn summary(event: &Event) -> Summary {
    (
        event.kind,
        event.at_ms,
        event.attempts,
        event.excluded.clone(),
        event.outcome,
        event.reason,
    )
}

/// The events that a life publishes.
fn events_of(request: Request, life: &Life, entries: &[Entry]) -> Vec<Summary> {
    let mut all = Vec::new();
    let mut tried: Vec<(Driver, bool)> = Vec::new();
    for entry in entries {
        let index = (entry.attempt as usize).wrapping_sub(1);
        match (entry.step, entry.driver) {
            (Step::OfferSent, Some(driver)) => tried.push((driver, false)),
            (Step::Refused, Some(driver)) if index == tried.len() => tried.push((driver, true)),
            (Step::Refused | Step::Declined | Step::TimedOut | Step::Revoked, _) => tried[index].1 = true,
            _ => {}
        }
        let (kind, outcome) = match entry.step {
            Step::Exhausted => (EventType::RedispatchRequested, None),
            Step::Unfulfilled => (EventType::RequestUnfulfilled, None),
            Step::Cancelled => (EventType::RequestCancelled, None),
            Step::TripCreated => (EventType::TripCreated, None),
            Step::PickedUp => (EventType::TripPickedUp, None),
            Step::TripEnded => (EventType::TripEnded, entry.outcome),
            _ => continue,
        };
        let tells = matches!(kind, EventType::RedispatchRequested | EventType::RequestUnfulfilled);
        let excluded = tried
            .iter()
            .filter(|tried| tells && tried.1)
            .map(|tried| tried.0)
            .collect();
        let attempts = if tells { tried.len() as u32 } else { 0 };
        let reason = if kind == EventType::RequestCancelled {
            entry.why.reason()
        } else {
            NO_REASON
        };
        all.push((kind, entry.at_ms, attempts, excluded, outcome, reason));
    }
    debug_assert!(life.tried.len() == tried.len(), "r{request}");
    all
}
