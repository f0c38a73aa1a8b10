//! How fast offers were, from the clients' notes. Pure.
//!
//! Both ends of every figure are in this process: no clock of the node is used but `expires_at_ms`, which is on the same
//! machine's wall clock. A figure that the kill, or a driver's own absence, lies in is kept apart from the others.

use super::audit::{Attempt, attempts_of};
use super::messages::{AuditView, Id};
use super::observe::{Evidence, OnApi, OnSocket, Seen};
use hdrhistogram::Histogram;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest latency that is told apart, in µs; a longer one counts as this.
const MICROS_MAX: u64 = 120_000_000;

/// What the table shows.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// POST sent → OFFER at the socket of a driver who was connected.
    pub offer: Histogram<u64>,
    /// DECLINE sent → OFFER at the next candidate's socket.
    pub after_decline: Histogram<u64>,
    /// Offer expired → OFFER at the next candidate's socket.
    pub after_timeout: Histogram<u64>,
    /// The last candidate's answer → event → the engine's new candidates → OFFER.
    pub through_engine: Histogram<u64>,
    /// Any of these to a driver who was away for a part of it.
    pub to_absent: Histogram<u64>,
    /// Any of these that the kill and the restart lie in.
    pub across_kill: Histogram<u64>,
    /// Attempts of each accepted request.
    pub attempts: Histogram<u64>,
}

/// First hearing of an offer: when, by whom.
type Heard<'a> = BTreeMap<(&'a str, u32), (Duration, &'a Id, u64)>;

struct Index<'a> {
    posted: BTreeMap<&'a str, (Duration, bool)>,
    heard: Heard<'a>,
    declined: BTreeMap<(&'a str, u32), Duration>,
    /// Sessions of each driver: from, to.
    sessions: BTreeMap<&'a str, Vec<(Duration, Duration)>>,
    outage: Option<(Duration, Duration)>,
}

impl Latencies {
    /// Measures everything that the evidence shows.
    ///
    /// # Panics
    /// Never: the bounds of the histograms are constants that fit.
    pub fn of(evidence: &Evidence) -> Self {
        let empty = || Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("bounds of a histogram");
        let mut latencies = Self {
            offer: empty(),
            after_decline: empty(),
            after_timeout: empty(),
            through_engine: empty(),
            to_absent: empty(),
            across_kill: empty(),
            attempts: empty(),
        };
        let index = Index::of(evidence);
        for (request, last) in &evidence.finals {
            let Some(audit) = &last.audit else { continue };
            let attempts = attempts_of(audit);
            let patient = index.posted.get(&**request).is_none_or(|(_, patient)| *patient);
            if audit.state == "ACCEPTED" {
                latencies.attempts.saturating_record(attempts.len() as u64);
            }
            // Waiting for a busy driver is what a patient request asked for, not latency.
            if !patient {
                latencies.first_offer(request, &attempts, &index);
                latencies.next_offers(request, audit, &attempts, evidence.started_unix, &index);
            }
        }
        latencies
    }

    fn first_offer(&mut self, request: &str, attempts: &BTreeMap<u32, Attempt<'_>>, index: &Index<'_>) {
        let Some((posted, _)) = index.posted.get(request) else {
            return;
        };
        let reached = attempts.iter().find(|(_, attempt)| !was_refused(attempt));
        let Some((heard, driver, _)) = reached.and_then(|(number, _)| index.heard.get(&(request, *number))) else {
            return;
        };
        self.record(*posted, *heard, driver, index, |latencies| &mut latencies.offer);
    }

    fn next_offers(
        &mut self,
        request: &str,
        audit: &AuditView,
        attempts: &BTreeMap<u32, Attempt<'_>>,
        started_unix: Duration,
        index: &Index<'_>,
    ) {
        for (number, attempt) in attempts {
            let Some(end) = attempt.ends.first() else { continue };
            let begin = match end.event.as_str() {
                "OFFER_DECLINED" => index.declined.get(&(request, *number)).copied(),
                "OFFER_TIMED_OUT" => index
                    .heard
                    .get(&(request, *number))
                    .and_then(|(_, _, expires_at_ms)| Duration::from_millis(*expires_at_ms).checked_sub(started_unix)),
                _ => None,
            };
            let after = audit.events.iter().filter(|step| step.seq > end.seq);
            let mut sent = after.clone().filter(|step| step.event == "OFFER_SENT");
            let next = sent.find(|step| {
                let next = step.attempt.and_then(|number| attempts.get(&number));
                next.is_some_and(|next| !was_refused(next))
            });
            let (Some(begin), Some(next)) = (begin, next) else {
                continue;
            };
            let Some((heard, driver, _)) = next.attempt.and_then(|number| index.heard.get(&(request, number))) else {
                continue;
            };
            let asked = after
                .take_while(|step| step.seq < next.seq)
                .any(|step| step.event == "CANDIDATES_EXHAUSTED");
            let timed_out = end.event == "OFFER_TIMED_OUT";
            self.record(begin, *heard, driver, index, |latencies| match (asked, timed_out) {
                (true, _) => &mut latencies.through_engine,
                (false, true) => &mut latencies.after_timeout,
                (false, false) => &mut latencies.after_decline,
            });
        }
    }

    fn record(
        &mut self,
        from: Duration,
        to: Duration,
        driver: &str,
        index: &Index<'_>,
        of: impl FnOnce(&mut Self) -> &mut Histogram<u64>,
    ) {
        let across = index.outage.is_some_and(|(kill, ready)| from < ready && to > kill);
        let histogram = if across {
            &mut self.across_kill
        } else if index.is_connected(driver, from, to) {
            of(self)
        } else {
            &mut self.to_absent
        };
        histogram.saturating_record(to.saturating_sub(from).as_micros() as u64);
    }
}

fn was_refused(attempt: &Attempt<'_>) -> bool {
    attempt.ends.first().is_some_and(|end| end.event == "OFFER_REFUSED")
}

impl<'a> Index<'a> {
    fn of(evidence: &'a Evidence) -> Self {
        let mut index = Self {
            posted: BTreeMap::new(),
            heard: BTreeMap::new(),
            declined: BTreeMap::new(),
            sessions: BTreeMap::new(),
            outage: None,
        };
        let mut open: BTreeSet<&str> = BTreeSet::new();
        for observation in &evidence.observations {
            let at = observation.at;
            match &observation.seen {
                Seen::Socket(driver, what) => index.socket(at, driver, what, &mut open),
                Seen::Api(OnApi::Posted {
                    request,
                    first: true,
                    patient,
                }) => {
                    index.posted.entry(request).or_insert((at, *patient));
                }
                Seen::Api(_) | Seen::Unserved(_) => {}
                Seen::NodeKilled => index.outage = Some((at, Duration::MAX)),
                Seen::NodeReady => {
                    if let Some((_, ready)) = &mut index.outage {
                        *ready = at;
                    }
                }
            }
        }
        index
    }

    fn socket(&mut self, at: Duration, driver: &'a Id, what: &'a OnSocket, open: &mut BTreeSet<&'a str>) {
        match what {
            OnSocket::Welcome { .. } => {
                self.sessions.entry(driver).or_default().push((at, Duration::MAX));
                open.insert(driver);
            }
            OnSocket::Lost => {
                if open.remove(&**driver)
                    && let Some(last) = self
                        .sessions
                        .get_mut(&**driver)
                        .and_then(|sessions| sessions.last_mut())
                {
                    last.1 = at;
                }
            }
            OnSocket::Offer {
                request,
                attempt,
                expires_at_ms,
            } => {
                self.heard
                    .entry((request, *attempt))
                    .or_insert((at, driver, *expires_at_ms));
            }
            OnSocket::SentAnswer {
                request,
                attempt,
                accept: false,
            } => {
                self.declined.entry((request, *attempt)).or_insert(at);
            }
            _ => {}
        }
    }

    /// Whether one session of the driver holds the whole time from `begin` to `end`.
    fn is_connected(&self, driver: &str, begin: Duration, end: Duration) -> bool {
        let sessions = self.sessions.get(driver).map_or(&[][..], Vec::as_slice);
        sessions.iter().any(|(from, to)| *from <= begin && end <= *to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::messages::AuditEvent;
    use crate::demo::observe::{FinalView, Observation};

    fn step(seq: u64, event: &str, attempt: u32, driver: &str) -> AuditEvent {
        AuditEvent {
            seq,
            event: event.into(),
            attempt: Some(attempt),
            driver_id: Some(driver.into()),
            ..AuditEvent::default()
        }
    }

    fn evidence(seen: Vec<(u64, Seen)>, steps: Vec<AuditEvent>) -> Evidence {
        let observation = |(ms, seen)| Observation {
            at: Duration::from_millis(ms),
            seen,
        };
        let audit = AuditView {
            state: "ACCEPTED".into(),
            events: steps,
        };
        let last = FinalView {
            audit: Some(audit),
            ..FinalView::default()
        };
        Evidence {
            observations: seen.into_iter().map(observation).collect(),
            finals: [(Id::from("r"), last)].into(),
            ..Evidence::default()
        }
    }

    fn socket(driver: &str, what: OnSocket) -> Seen {
        Seen::Socket(driver.into(), what)
    }

    fn welcome(driver: &str) -> Seen {
        let what = OnSocket::Welcome {
            session: 1,
            state: "available".into(),
            trip: None,
        };
        socket(driver, what)
    }

    fn offer(driver: &str, attempt: u32) -> Seen {
        let what = OnSocket::Offer {
            request: "r".into(),
            attempt,
            expires_at_ms: 1500,
        };
        socket(driver, what)
    }

    fn posted() -> Seen {
        Seen::Api(OnApi::Posted {
            request: "r".into(),
            first: true,
            patient: false,
        })
    }

    fn declined_then_next() -> (Vec<(u64, Seen)>, Vec<AuditEvent>) {
        let declines = OnSocket::SentAnswer {
            request: "r".into(),
            attempt: 1,
            accept: false,
        };
        let seen = vec![
            (0, welcome("a")),
            (0, welcome("b")),
            (10, posted()),
            (13, offer("a", 1)),
            (100, socket("a", declines)),
            (107, offer("b", 2)),
        ];
        let steps = vec![
            step(1, "OFFER_SENT", 1, "a"),
            step(2, "OFFER_DECLINED", 1, "a"),
            step(3, "OFFER_SENT", 2, "b"),
        ];
        (seen, steps)
    }

    fn millis(histogram: &Histogram<u64>) -> Vec<u64> {
        histogram
            .iter_recorded()
            .map(|value| value.value_iterated_to() / 1000)
            .collect()
    }

    #[test]
    fn offers_and_redispatches_are_measured_from_the_clients() {
        let (seen, steps) = declined_then_next();
        let latencies = Latencies::of(&evidence(seen, steps));
        assert_eq!(millis(&latencies.offer), [3]);
        assert_eq!(millis(&latencies.after_decline), [7]);
        assert_eq!((latencies.to_absent.len(), latencies.across_kill.len()), (0, 0));
        assert_eq!(latencies.attempts.max(), 2);
    }

    #[test]
    fn a_kill_or_an_absent_driver_is_kept_apart() {
        let (mut seen, steps) = declined_then_next();
        seen.insert(5, (103, Seen::NodeKilled));
        seen.insert(6, (104, Seen::NodeReady));
        let latencies = Latencies::of(&evidence(seen, steps));
        assert_eq!((latencies.after_decline.len(), latencies.across_kill.len()), (0, 1));

        let (mut seen, steps) = declined_then_next();
        seen.remove(1);
        let latencies = Latencies::of(&evidence(seen, steps));
        assert_eq!((latencies.after_decline.len(), latencies.to_absent.len()), (0, 1));

        let (mut seen, steps) = declined_then_next();
        seen.insert(5, (105, socket("b", OnSocket::Lost)));
        seen.insert(6, (106, welcome("b")));
        let latencies = Latencies::of(&evidence(seen, steps));
        assert_eq!((latencies.after_decline.len(), latencies.to_absent.len()), (0, 1));
    }

    #[test]
    fn a_timeout_counts_from_the_expiry_and_new_candidates_from_the_engine_apart() {
        let (mut seen, mut steps) = declined_then_next();
        seen.remove(4);
        seen[4].0 = 1504;
        steps[1].event = "OFFER_TIMED_OUT".into();
        let latencies = Latencies::of(&evidence(seen.clone(), steps.clone()));
        assert_eq!(millis(&latencies.after_timeout), [4]);

        steps.insert(2, step(3, "CANDIDATES_EXHAUSTED", 1, "a"));
        steps[2].attempt = None;
        steps[3].seq = 4;
        let latencies = Latencies::of(&evidence(seen, steps));
        assert_eq!((latencies.after_timeout.len(), latencies.through_engine.len()), (0, 1));
    }
}
