//! The last check, when the auditor has read everything: audits, views, events and records against each other and
//! against all that was seen.

use super::audits::{Life, Tried};
use super::knowledge::describe;
use super::state::ways;
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::codec::answers::{Record, View};
use crate::ids::{Driver, Offer, Request};
use crate::words::{Response, State, Step, TripEnd};
use std::collections::BTreeMap;

/// What the auditor reads of drivers.
#[derive(Debug, Default)]
pub(super) struct LastRead {
    /// Records by driver, all pages.
    pub(super) records: BTreeMap<Driver, Vec<Record>>,
}

/// Longest time in which an end is decided and stored where nothing ails the node, milliseconds.
pub(super) const END_MS_MAX: u64 = 1_000;

impl Witness {
    /// A page of a driver's records.
    pub(super) fn records_answered(&mut self, driver: Driver, rows: &[Record]) {
        let all = self.last_read.records.entry(driver).or_default();
        let before = all.last().map_or(u64::MAX, |row| row.sent_at_ms);
        let mut newest_first = true;
        let mut last = if rows.first().is_some_and(|row| row.sent_at_ms > before) {
            // Another day's first page.
            u64::MAX
        } else {
            before
        };
        for row in rows {
            newest_first &= row.sent_at_ms <= last;
            last = row.sent_at_ms;
        }
        all.extend_from_slice(rows);
        if !self.holds(Check::RecordsMatch, newest_first) {
            self.violate(
                Check::RecordsMatch,
                About::driver(driver),
                format!("records of d{driver} are not newest first"),
            );
        }
    }

    /// The days (Unix days) on which the node may have sent offers, in its own time.
    pub fn days(&self) -> Vec<u64> {
        const DAY_MS: u64 = 86_400_000;
        let mut days: Vec<u64> = Vec::new();
        for audit in self.requests.iter().filter_map(|request| request.audit.as_ref()) {
            let sent = |step| matches!(step, Step::OfferSent | Step::Refused);
            for entry in audit.entries.iter().filter(|entry| sent(entry.step)) {
                let day = entry.at_ms / DAY_MS;
                if !days.contains(&day) {
                    days.push(day);
                }
            }
        }
        days.sort_unstable();
        days
    }

    /// The auditor has read everything: the last checks.
    pub fn audit_done(&mut self) {
        self.audited = true;
        self.note(About::default(), || "the auditor has read everything".to_owned());
        let lives: Vec<Option<Life>> = self
            .requests
            .iter()
            .map(|request| request.audit.as_ref().and_then(|audit| self.life_of(audit).ok()))
            .collect();
        for request in 0..lives.len() as Request {
            if self.violation.is_some() {
                return;
            }
            match &lives[request as usize] {
                None => self.check_absent(request),
                Some(life) => {
                    self.check_life(request, life);
                    self.check_seen(request, life);
                    self.check_channels(request, life);
                    self.check_reasons(request, life);
                    self.check_receipts(request, life);
                    self.check_receipts_of_fleet(request, life);
                    self.check_told(request, life);
                    self.check_view(request, life);
                }
            }
        }
        self.check_deliveries(&lives);
        self.check_intervals(&lives);
        self.check_resumed(&lives);
        self.check_presence(&lives);
        self.check_waits(&lives);
        self.check_effects(&lives);
        self.check_records(&lives);
        self.check_events(&lives);
        self.check_order(&lives);
        self.check_sent_away();
        self.check_last_looks(&lives);
        if self.node.draining {
            self.check_drained();
        }
        self.check_sockets_answered();
        self.check_calls_answered();
    }

    fn life_of(&self, audit: &crate::codec::audit::Audit) -> Result<Life, String> {
        if self.is_fleet() {
            Life::of_fleet(audit)
        } else {
            Life::of(audit)
        }
    }

    fn check_absent(&mut self, request: Request) {
        let exists = self.requests[request as usize].exists;
        if !self.holds(Check::AnswerKept, !exists) {
            let text = format!("r{request} was answered and has no audit");
            self.violate(Check::AnswerKept, About::request(request), text);
        }
    }

    fn check_life(&mut self, request: Request, life: &Life) {
        let about = About::request(request);
        let seen = &self.requests[request as usize];
        let nothing = seen.posts == seen.posts_refused;
        let (taken, posts) = (seen.taken, seen.posts);
        if !self.holds(Check::OneDispatch, !nothing) {
            self.violate(
                Check::OneDispatch,
                about,
                format!("r{request} lives, and every POST was turned away"),
            );
        }
        let rounds = 1 + life.redispatched;
        if !self.holds(Check::OneDispatch, taken <= rounds && rounds <= posts) {
            let text = format!("r{request} has {rounds} dispatches, {taken} of its {posts} POSTs are 202");
            self.violate(Check::OneDispatch, about, text);
        }
        let Some((end, _)) = life.end else {
            self.counts.add(Check::EndsInTime);
            let text = format!("r{request} has not ended; its deadline was {}", life.deadline_at_ms);
            return self.violate(Check::EndsInTime, about, text);
        };
        self.counts.add(Check::EndsInTime);
        let known = self.requests[request as usize].end;
        if !self.holds(Check::AuditComplete, known.is_none_or(|known| known == end)) {
            self.violate(
                Check::AuditComplete,
                about,
                format!("r{request} was {known:?} and is {}", end.as_str()),
            );
        }
        let cancelled = end != State::Cancelled || self.requests[request as usize].cancels_said != 0;
        if !self.holds(Check::Caused, cancelled) {
            self.violate(Check::Caused, about, format!("r{request} was cancelled by nobody"));
        }
        self.check_in_time(request, life);
        self.check_causes(request, life);
    }

    /// Once faults are over, offers end at their time, and the search at its deadline.
    fn check_in_time(&mut self, request: Request, life: &Life) {
        let Some(over_us) = self.calm_since_us() else { return };
        // Of a fleet: what had failed is tried again after up to 2 s (`PAUSE_MAX` in `cold/owner/reach.rs`), each of a few calls.
        let slack_us = if self.is_fleet() { 3 * SLACK_US } else { SLACK_US };
        let (over_ms, slack_ms) = (self.latest_ms_at(over_us), slack_us / 1_000);
        // What is to end when nothing has ailed the node for a while ends within what anything takes there.
        let soon_ms = self.late_ms() + self.expect.inside_margin_ms + END_MS_MAX;
        let is_fleet = self.is_fleet();
        let slack_of = |due_ms: u64| {
            if due_ms > over_ms + slack_ms && !is_fleet {
                soon_ms.min(slack_ms)
            } else {
                slack_ms
            }
        };
        let about = About::request(request);
        for (attempt, tried) in (1..).zip(&life.tried).filter(|(_, tried)| tried.expires_at_ms > 0) {
            let late = tried.ended_at_ms > tried.expires_at_ms.max(over_ms) + slack_of(tried.expires_at_ms);
            if !self.holds(Check::OfferInTime, !late) {
                let text = format!(
                    "r{request}#{attempt} ended at {} and expired at {}",
                    tried.ended_at_ms, tried.expires_at_ms
                );
                return self.violate(Check::OfferInTime, about, text);
            }
        }
        if let Some((_, at_ms)) = life.end {
            let late = at_ms > life.deadline_at_ms.max(over_ms) + slack_of(life.deadline_at_ms);
            if !self.holds(Check::EndsInTime, !late) {
                let text = format!("r{request} ended at {at_ms}, its deadline was {}", life.deadline_at_ms);
                self.violate(Check::EndsInTime, about, text);
            }
        }
    }

    fn check_causes(&mut self, request: Request, life: &Life) {
        for (attempt, tried) in (1..).zip(&life.tried) {
            let offer = Offer { request, attempt };
            let ok = match tried.way {
                ways::ACCEPTED => self.was_said(tried.driver, offer, true),
                ways::DECLINED => self.was_declined(offer, tried),
                _ => true,
            };
            if !self.holds(Check::Caused, ok) {
                let text = format!(
                    "{offer} is {}, and d{} did not say so",
                    describe(tried.way),
                    tried.driver
                );
                return self.violate(Check::Caused, About::both(request, tried.driver), text);
            }
            // A socket that says ACCEPT has had the offer, unless it guessed.
            // Of a fleet: the receipt was lost on its way between two nodes, of which one is gone.
            let is_lost = self.is_fleet() && self.expect.may_lose_letters;
            let guessed = is_lost || self.drivers[tried.driver as usize].spoken.contains(&(offer, false));
            let unseen = tried.way == ways::ACCEPTED && tried.by_socket && tried.delivered_at_ms.is_none();
            let delivered = !unseen || guessed;
            if !self.holds(Check::AuditComplete, delivered) {
                let text = format!("{offer} was accepted by socket and never delivered");
                return self.violate(Check::AuditComplete, About::both(request, tried.driver), text);
            }
        }
        let Some(trip) = life.trip else { return };
        let seen = self.trip_seen(trip.trip);
        let ended = match trip.ended {
            None => !seen.ended,
            Some((_, TripEnd::Completed)) => seen.complete_said,
            Some((_, TripEnd::CancelledByDriver)) => seen.cancel_said,
            Some((_, TripEnd::Cancelled)) => seen.api_cancels_said != 0,
        };
        let picked = trip.picked_up_at_ms.is_none() || seen.pickup_said;
        let about = About::both(request, trip.driver);
        if !self.holds(Check::Caused, ended && picked) {
            let text = format!("r{request}: {trip:?}, and what was seen is {seen:?}");
            return self.violate(Check::Caused, about, text);
        }
        let kept = !seen.cancelled || trip.ended.is_some_and(|ended| ended.1 == TripEnd::Cancelled);
        if !self.holds(Check::AnswerKept, kept) {
            self.violate(
                Check::AnswerKept,
                about,
                format!("the cancelled trip of r{request} is {trip:?}"),
            );
        }
    }

    /// Everything that anybody saw of the attempts is in the audit.
    fn check_seen(&mut self, request: Request, life: &Life) {
        let seen = self.requests[request as usize].clone();
        for (attempt, known) in (1..).zip(&seen.attempts) {
            let Some(tried) = life.tried.get(attempt as usize - 1) else {
                // Somebody spoke of it, nobody saw it.
                let unseen = known.driver.is_none() && known.ways == ways::ANY;
                if !self.holds(Check::AuditComplete, unseen) {
                    let text = format!("r{request}#{attempt} was seen and is not in the audit: {known:?}");
                    return self.violate(Check::AuditComplete, About::request(request), text);
                }
                continue;
            };
            let driver = known.driver.is_none_or(|driver| driver == tried.driver);
            let expires = known.expires_at_ms == 0 || known.expires_at_ms == tried.expires_at_ms;
            let ok = driver && expires && known.ways & tried.way != 0;
            if !self.holds(Check::AuditComplete, ok) {
                let text = format!("r{request}#{attempt} is {tried:?}, and was seen as {known:?}");
                return self.violate(Check::AuditComplete, About::both(request, tried.driver), text);
            }
        }
        for driver in (0..64).filter(|driver| seen.denied & (1 << driver) != 0) {
            let made = |tried: &&Tried| tried.driver == driver && tried.way != ways::REFUSED;
            let ok = !life.tried.iter().any(|tried| made(&tried));
            if !self.holds(Check::SameAnswer, ok) {
                let text = format!("d{driver} was told no_such_offer about its offer of r{request}");
                return self.violate(Check::SameAnswer, About::both(request, driver), text);
            }
        }
    }

    fn check_view(&mut self, request: Request, life: &Life) {
        let Some(view) = self.requests[request as usize].last_view.clone() else {
            return;
        };
        let expect = view_of(request, life, &view);
        if !self.holds(Check::ViewsMatch, view == expect) {
            let text = format!("r{request} is shown as {view:?}, and its audit says {expect:?}");
            self.violate(Check::ViewsMatch, About::request(request), text);
        }
    }

    /// Offers and trips of a driver do not overlap. Judged by the node's time, so not by times that came twice: no promise is
    /// made of them from one request to another.
    fn check_intervals(&mut self, lives: &[Option<Life>]) {
        if self.is_fleet() && self.node.has_time_fallen() {
            return;
        }
        let mut of_driver: BTreeMap<Driver, Vec<(u64, u64, Request, bool)>> = BTreeMap::new();
        for (request, life) in (0..).zip(lives) {
            let Some(life) = life else { continue };
            for (attempt, tried) in (1..).zip(&life.tried) {
                let mut end_ms = if tried.way == ways::OPEN {
                    u64::MAX
                } else {
                    tried.ended_at_ms
                };
                if let Some(from_ms) = self.held_from_ms(request, attempt, tried) {
                    // Whose time was over when the node started again holds no driver any more, and is told to be over
                    // when its request comes to it: later, after a start that was cut short.
                    // Of a fleet, any node that cannot ask the request's one says so.
                    if self.is_fleet() || self.node.is_end_near(from_ms, end_ms) {
                        end_ms = end_ms.min(tried.expires_at_ms);
                    }
                    of_driver
                        .entry(tried.driver)
                        .or_default()
                        .push((from_ms, end_ms, request, false));
                }
            }
            if let Some(trip) = life.trip {
                let end_ms = trip.ended.map_or(u64::MAX, |ended| ended.0);
                // Of a fleet, one that was accepted may wait for the end of another: its driver is bound first.
                let told_us = self.trip_seen(trip.trip).told_us.filter(|_| self.is_fleet());
                let told_ms = told_us.map_or(0, |told_us| self.latest_ms_at(told_us));
                of_driver.entry(trip.driver).or_default().push((
                    trip.created_at_ms.max(told_ms.min(end_ms)),
                    end_ms,
                    request,
                    true,
                ));
            }
        }
        for (driver, mut intervals) in of_driver {
            intervals.sort_unstable();
            for pair in intervals.windows(2) {
                let ((_, end_ms, first, trip), (from_ms, _, second, next_trip)) = (pair[0], pair[1]);
                let check = if trip || next_trip {
                    Check::OneTrip
                } else {
                    Check::OneOffer
                };
                let unclear = self.node.came_twice(from_ms) || self.node.came_twice(end_ms);
                let ok =
                    from_ms >= end_ms || first == second || unclear || self.may_be_unseen(trip && next_trip, from_ms);
                if !self.holds(check, ok) {
                    let about = About {
                        other: Some(second),
                        ..About::both(first, driver)
                    };
                    let text = format!("d{driver} has r{first} until {end_ms} and r{second} from {from_ms}");
                    return self.violate(check, about, text);
                }
            }
        }
    }

    /// What was answered without an attempt's number is how the driver's attempt ended.
    fn check_told(&mut self, request: Request, life: &Life) {
        for (driver, ways) in std::mem::take(&mut self.requests[request as usize].told) {
            let tried = life.tried.iter().find(|tried| tried.driver == driver);
            let ok = tried.is_some_and(|tried| tried.way & ways != 0);
            if !self.holds(Check::OneOutcome, ok) {
                let text = format!("d{driver} was answered {} of r{request}: {tried:?}", describe(ways));
                return self.violate(Check::OneOutcome, About::both(request, driver), text);
            }
        }
    }

    /// What an audit showed of receipts is in it when all nodes are back, whoever had the request meanwhile.
    fn check_receipts_of_fleet(&mut self, request: Request, life: &Life) {
        for (acked, attempt) in self.requests[request as usize].receipts.clone() {
            let tried = life.tried.get(attempt as usize - 1);
            let ok = tried.is_some_and(|tried| {
                if acked {
                    tried.acked
                } else {
                    tried.delivered_at_ms.is_some()
                }
            });
            if !self.holds(Check::AuditComplete, ok) {
                let text = format!("a receipt of r{request}#{attempt} was shown and is gone: {tried:?}");
                return self.violate(Check::AuditComplete, About::request(request), text);
            }
        }
    }

    /// Whether a node may have offered something to a driver who was taken elsewhere, and could not know: whom a request binds, the registry
    /// says, and it is a moment old, or away. Only trips are bound for certain (design.md, section 5: "on accept the driver is bound
    /// first"), and where nothing has ailed a fleet for a while, all of it is known.
    fn may_be_unseen(&self, are_trips: bool, from_ms: u64) -> bool {
        let calm_ms = self
            .calm_since_us()
            .map(|since_us| self.latest_ms_at(since_us + SLACK_US));
        self.is_fleet() && !are_trips && calm_ms.is_none_or(|calm_ms| from_ms <= calm_ms)
    }

    fn check_records(&mut self, lives: &[Option<Life>]) {
        let mut expect: BTreeMap<Driver, Vec<Record>> = BTreeMap::new();
        for (request, life) in (0..).zip(lives) {
            let Some(life) = life else { continue };
            for (attempt, tried) in (1..).zip(&life.tried) {
                let accepted = tried.way == ways::ACCEPTED;
                expect.entry(tried.driver).or_default().push(Record {
                    sent_at_ms: tried.sent_at_ms,
                    request,
                    attempt,
                    trip: life.trip.filter(|_| accepted).map(|trip| trip.trip),
                    response: response_of(tried.way),
                    response_at_ms: tried.ended_at_ms,
                    node: 0,
                });
            }
        }
        for driver in 0..self.drivers.len() as Driver {
            let mut rows = self.last_read.records.remove(&driver).unwrap_or_default();
            let mut expect = expect.remove(&driver).unwrap_or_default();
            if self.is_fleet() {
                // An audit shows times that never fall, whoever noted what; a record has its own, and the node that wrote it.
                for row in rows.iter_mut().chain(&mut expect) {
                    (row.sent_at_ms, row.response_at_ms, row.node) = (0, 0, 0);
                }
            }
            rows.sort_unstable();
            expect.sort_unstable();
            if !self.holds(Check::RecordsMatch, rows == expect) {
                let missing = expect.iter().find(|row| !rows.contains(row));
                let strange = rows.iter().find(|row| !expect.contains(row));
                let request = missing.or(strange).map(|row| row.request);
                let about = About {
                    request,
                    ..About::driver(driver)
                };
                let text = format!(
                    "records of d{driver}: {} and not {}; missing {missing:?}, strange {strange:?}",
                    rows.len(),
                    expect.len()
                );
                return self.violate(Check::RecordsMatch, about, text);
            }
        }
    }
}

fn response_of(way: u8) -> Response {
    match way {
        ways::ACCEPTED => Response::Accepted,
        ways::DECLINED => Response::Declined,
        ways::TIMED_OUT => Response::Timeout,
        ways::REFUSED => Response::Refused,
        _ => Response::Revoked,
    }
}

/// The view that a life has; class and deadline as they are.
fn view_of(request: Request, life: &Life, view: &View) -> View {
    let holds = |tried: &Tried| matches!(tried.way, ways::ACCEPTED | ways::OPEN);
    let current = life.tried.iter().position(holds);
    View {
        request,
        state: life.state(),
        attempt: current.map_or(life.tried.len(), |index| index + 1) as u32,
        driver: current.map(|index| life.tried[index].driver),
        excluded: life
            .tried
            .iter()
            .filter(|tried| !holds(tried))
            .map(|tried| tried.driver)
            .collect(),
        trip: life.trip.map(|trip| trip.trip),
        class: view.class,
        deadline_at_ms: life.deadline_at_ms,
    }
}
