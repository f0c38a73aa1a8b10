//! Invariant 2: a driver has at most one open offer and one trip.
//!
//! Two witnesses. The driver's socket, where what the node says comes in its order: no second offer before the first one's
//! end. And the audits of all requests side by side: from `OFFER_DELIVERED` to its end an offer certainly was with its
//! driver, so no two such spans of one driver may overlap; the same for trips.

use super::Verdict;
use super::ledger::Ledger;
use crate::demo::messages::Id;
use crate::demo::observe::{OnSocket, Outcome};
use std::collections::{BTreeMap, BTreeSet};

/// Overlaps up to this long are not held against the node: each time is the one at which some shard took its turn, and a
/// preempted shard's turn can be this much older than the message that it reads. Offers and trips of the demo last longer.
const TURN_MS_MAX: u64 = 250;

/// Invariant 2, by both witnesses.
pub fn one_at_a_time(ledger: &Ledger<'_>, verdict: &mut Verdict) {
    for (driver, history) in &ledger.sockets {
        let mut hands = Hands::default();
        for (_, what) in history {
            hands.hear(driver, what, verdict);
        }
    }
    let (mut offers, mut trips) = (Spans::new(), Spans::new());
    let fleet = ledger.evidence.fleet;
    for (request, file) in &ledger.files {
        for (number, attempt) in file.attempts() {
            if let (Some(driver), Some(from), Some(end)) =
                (attempt.driver, attempt.delivered_at_ms, attempt.ends.first())
            {
                let expires = file.expires_at_ms(number).filter(|_| fleet.is_some());
                let until = expires.map_or(end.at_ms, |expires| end.at_ms.min(expires));
                offers.entry(driver).or_default().push((from, until, request));
            }
        }
        if let (Some(begin), Some(end)) = (file.steps("TRIP_CREATED").next(), file.steps("TRIP_ENDED").next())
            && let Some(driver) = begin.driver_id.as_deref()
        {
            trips.entry(driver).or_default().push((begin.at_ms, end.at_ms, request));
        }
    }
    let slack_ms = TURN_MS_MAX + fleet.map_or(0, |allowed| allowed.pause_ms);
    no_overlap("offers", offers, slack_ms, verdict);
    no_overlap("trips", trips, slack_ms, verdict);
}

/// By driver: from, to, request.
type Spans<'a> = BTreeMap<&'a str, Vec<(u64, u64, &'a str)>>;

fn no_overlap(what: &str, spans: Spans<'_>, slack_ms: u64, verdict: &mut Verdict) {
    for (driver, mut spans) in spans {
        spans.sort_unstable();
        let mut latest: Option<(u64, &str)> = None;
        for (from, to, request) in spans {
            if let Some((until, other)) = latest {
                verdict.check(from + slack_ms >= until, || {
                    format!(
                        "{driver}: {what} of {other} and {request} overlap by {} ms",
                        until - from
                    )
                });
            }
            if latest.is_none_or(|(until, _)| until < to) {
                latest = Some((to, request));
            }
        }
    }
}

/// What a driver holds, as far as its present session said.
#[derive(Default)]
struct Hands<'a> {
    offer: Option<(&'a Id, u32)>,
    trip: Option<&'a Id>,
    ended: BTreeSet<&'a Id>,
}

impl<'a> Hands<'a> {
    fn hear(&mut self, driver: &str, what: &'a OnSocket, verdict: &mut Verdict) {
        match what {
            OnSocket::Welcome { trip, .. } => {
                // What ended while nobody listened is not told again; what is still open follows.
                self.offer = None;
                self.trip = trip.as_ref();
            }
            OnSocket::Offer { request, attempt, .. } => {
                let other = self.offer.filter(|held| *held != (request, *attempt));
                verdict.check(other.is_none(), || {
                    format!("{driver}: offered {request} while holding {other:?}")
                });
                verdict.check(self.trip.is_none(), || {
                    format!("{driver}: offered {request} while on trip {:?}", self.trip)
                });
                self.offer = Some((request, *attempt));
            }
            OnSocket::Outcome {
                request,
                attempt,
                outcome,
            } => {
                if self.offer == Some((request, *attempt)) {
                    self.offer = None;
                }
                if let Outcome::Confirmed(trip) = outcome {
                    self.confirmed(driver, trip, verdict);
                }
            }
            OnSocket::State { state, trip } => match &**state {
                "available" | "offline" => self.ended.extend(self.trip.take()),
                _ => self.trip = trip.as_ref().or(self.trip),
            },
            OnSocket::TripCancelled { trip } => {
                self.ended.insert(trip);
                self.trip = self.trip.filter(|held| *held != trip);
            }
            OnSocket::Lost
            | OnSocket::Error { .. }
            | OnSocket::SentAck { .. }
            | OnSocket::SentAnswer { .. }
            | OnSocket::SentTrip { .. } => {}
        }
    }

    fn confirmed(&mut self, driver: &str, trip: &'a Id, verdict: &mut Verdict) {
        if self.ended.contains(trip) {
            return; // The late repetition of an old answer.
        }
        let other = self.trip.filter(|held| *held != trip);
        verdict.check(other.is_none(), || {
            format!("{driver}: confirmed for {trip} while on trip {other:?}")
        });
        self.trip = Some(trip);
    }
}
