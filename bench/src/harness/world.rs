//! One load process's world: its drivers, and the matching engine that serves them.
//!
//! Unlike the engine of `scenarios/offers`, it expects that things go wrong: connections end, POSTs are not answered, offers time
//! out. Callers and apps behave then as real ones: they try again, with the same ids. What may never happen is a fault all the
//! same: two winners, two offers at once, a POST that is never taken, an `ACCEPT` without an outcome, a wrong reading afterwards.
#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};

use super::geography::City;
use super::people::{NO_REQUEST, People, Work};
use super::scenario::{Behaviour, Scenario};
use super::tally::{Latency, Tally};
use crate::chance::Chance;
use crate::message;
use crate::report::Faults;
use crate::session::Session;

/// Request numbers of a load process begin at a multiple of this.
const REQUESTS_PER_PROCESS: u32 = 50_000_000;
/// A POST that was refused or not answered is repeated after this time, ns.
const REPEAT_NS: u64 = 300_000_000;
/// An HTTP connection that ended is opened again after this time, ns.
const REOPEN_NS: u64 = 100_000_000;

/// Something that is due at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The driver answers its offer.
    Answer { driver: u32, generation: u32 },
    /// The driver's trip moves on.
    Trip { driver: u32, generation: u32 },
    /// The driver connects again.
    Connect { driver: u32 },
    /// The hanging app goes on.
    Resume { driver: u32 },
    /// The POST is repeated.
    Repeat { request: u32 },
    /// The search is over, whatever came of it.
    Over { request: u32 },
    /// The HTTP connection is opened again.
    Reopen { connection: u32 },
}

/// One search.
pub(super) struct Request {
    /// When its POST was meant to leave.
    pub(super) intended_ns: u64,
    pub(super) candidates: Vec<u32>,
    ride: u32,
    /// Answered with 2xx.
    pub(super) taken: bool,
    pub(super) offered: bool,
    /// When the last driver declined; 0 when none did since the last offer.
    pub(super) declined_ns: u64,
    pub(super) winner: Option<u32>,
    /// Its candidates are free again.
    pub(super) over: bool,
}

/// See the module. Reactions to what arrives are in `react.rs`.
pub struct World<'a> {
    pub(super) city: &'a City,
    pub(super) behaviour: &'a Behaviour,
    pub(super) people: People,
    pub(super) requests: Vec<Request>,
    pub(super) first_request: u32,
    first_driver: u32,
    candidates: usize,
    next_ride: u32,
    due: BinaryHeap<Reverse<(u64, Due)>>,
    pub(super) chance: Chance,
    /// Counts and latencies.
    pub tally: Tally,
    /// What makes the run invalid.
    pub faults: Faults,
    body: Vec<u8>,
    next_location: u32,
}

impl<'a> World<'a> {
    /// The part of a scenario that process `process` plays.
    pub fn new(city: &'a City, scenario: &'a Scenario, process: u32, round: u32) -> Self {
        let (first_driver, drivers) = scenario.part(process);
        let mut chance = Chance::new(scenario.seed ^ u64::from(round) << 32 ^ u64::from(process) << 48);
        let mut zone = || {
            let ride = chance.below(city.rides.len());
            city.rides[ride].from
        };
        let people = People::new(drivers, city.near.len(), &mut zone);
        let next_ride = chance.below(city.rides.len()) as u32;
        Self {
            city,
            behaviour: &scenario.behaviour,
            people,
            requests: Vec::new(),
            first_request: process * REQUESTS_PER_PROCESS,
            first_driver,
            candidates: scenario.geography.candidates as usize,
            next_ride,
            due: BinaryHeap::new(),
            chance,
            tally: Tally::default(),
            faults: Faults::default(),
            body: Vec::new(),
            next_location: 0,
        }
    }

    /// All drivers have just been welcomed.
    pub fn all_connected(&mut self) {
        for driver in 0..self.people.count() {
            self.people.change(driver, |person| person.connected = true);
        }
    }

    pub(super) fn at(&mut self, due_ns: u64, what: Due) {
        self.due.push(Reverse((due_ns, what)));
    }

    /// When [`World::act`] next has something to do.
    pub fn next_due_ns(&self) -> u64 {
        self.due.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns)
    }

    /// The index of one of our requests.
    pub(super) fn index(&self, request: u32) -> Option<usize> {
        let index = request.checked_sub(self.first_request)? as usize;
        (index < self.requests.len()).then_some(index)
    }

    /// Posts the next request, meant to leave at `intended_ns`.
    pub fn post(&mut self, session: &mut Session, intended_ns: u64) {
        let ride = self.next_ride;
        self.next_ride = (ride + 1) % self.city.rides.len() as u32;
        let from = self.city.rides[ride as usize].from;
        let candidates = self.people.reserve(&self.city.near[usize::from(from)], self.candidates);
        if candidates.is_empty() {
            self.tally.counts.nobody_free += 1;
            return;
        }
        let number = self.first_request + self.requests.len() as u32;
        self.requests.push(Request {
            intended_ns,
            candidates,
            ride,
            taken: false,
            offered: false,
            declined_ns: 0,
            winner: None,
            over: false,
        });
        self.tally.counts.posted += 1;
        let deadline_ns = u64::from(self.behaviour.deadline_ms) * 1_000_000;
        self.at(intended_ns + deadline_ns, Due::Over { request: number });
        self.send_post(session, number);
    }

    /// Sends a POST; false when no HTTP connection is open, and it is tried again in a moment.
    fn send_post(&mut self, session: &mut Session, number: u32) -> bool {
        let request = &self.requests[(number - self.first_request) as usize];
        let body = &mut self.body;
        body.clear();
        body.extend_from_slice(b"{\"request_id\":\"");
        message::write_request_id(body, number);
        body.extend_from_slice(b"\",\"candidates\":[");
        for (index, driver) in request.candidates.iter().enumerate() {
            body.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
            message::write_driver_id(body, self.first_driver + driver);
            body.push(b'"');
        }
        let Behaviour {
            offer_timeout_ms,
            deadline_ms,
            ..
        } = self.behaviour;
        let trip = &self.city.rides[request.ride as usize].trip;
        write!(
            body,
            "],\"offer_timeout_ms\":{offer_timeout_ms},\"deadline_ms\":{deadline_ms},\"trip\":{trip}}}"
        )
        .expect("memory takes all");
        let sent = session.post(number, "/v1/dispatch/offer", &self.body) > 0;
        if !sent {
            self.repeat_later(number, session.now_ns());
        }
        sent
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The ring's.
    pub fn act(&mut self, session: &mut Session) -> io::Result<()> {
        let now_ns = session.now_ns();
        while let Some(Reverse((due_ns, what))) = self
            .due
            .peek()
            .copied()
            .filter(|Reverse((due_ns, _))| *due_ns <= now_ns)
        {
            self.due.pop();
            match what {
                Due::Answer { driver, generation } if self.people.get(driver).generation == generation => {
                    self.answer(session, driver, due_ns)?;
                }
                Due::Trip { driver, generation } if self.people.get(driver).generation == generation => {
                    self.move_trip(session, driver)?;
                }
                // What the timer was for has ended in another way.
                Due::Answer { .. } | Due::Trip { .. } => {}
                Due::Connect { driver } => {
                    self.people.change(driver, |person| person.connect_ns = now_ns);
                    session.connect(driver)?;
                }
                Due::Resume { driver } => session.resume(driver)?,
                Due::Repeat { request } => self.repeat(session, request),
                Due::Over { request } => self.end(request),
                Due::Reopen { connection } => session.reopen_http(connection)?,
            }
        }
        Ok(())
    }

    /// Posts again what was refused or not answered, until the search's own deadline: then its caller gives up.
    fn repeat(&mut self, session: &mut Session, request: u32) {
        let state = &self.requests[(request - self.first_request) as usize];
        if state.taken {
            return;
        }
        if state.over {
            self.tally.counts.given_up += 1;
        } else if self.send_post(session, request) {
            self.tally.counts.repeated += 1;
        }
    }

    /// The POST shall be repeated in a moment.
    pub(super) fn repeat_later(&mut self, request: u32, now_ns: u64) {
        self.at(now_ns + REPEAT_NS, Due::Repeat { request });
    }

    /// The HTTP connection shall be opened again in a moment.
    pub(super) fn reopen_later(&mut self, connection: u32, now_ns: u64) {
        self.at(now_ns + REOPEN_NS, Due::Reopen { connection });
    }

    /// The driver answers its offer, as chance wants it.
    fn answer(&mut self, session: &mut Session, driver: u32, due_ns: u64) -> io::Result<()> {
        let (request, attempt) = (self.people.get(driver).request, self.people.get(driver).attempt);
        let Behaviour {
            accept,
            decline,
            ignore,
            vanish,
            ..
        } = *self.behaviour;
        let drawn = self.chance.share() * (accept + decline + ignore + vanish);
        let answer = if drawn < accept {
            self.people.change(driver, |person| {
                (person.work, person.answer_ns) = (Work::Accepting, due_ns);
            });
            "ACCEPT"
        } else if drawn < accept + decline {
            if let Some(index) = self.index(request) {
                self.requests[index].declined_ns = due_ns;
            }
            "DECLINE"
        } else if drawn < accept + decline + ignore {
            return Ok(());
        } else {
            return session.cut(driver);
        };
        session.say(driver, |payload| {
            message::write_answer(payload, answer, request, attempt);
        })
    }

    /// The next event of the driver's trip. What cannot be said now is said after the reconnect.
    pub(super) fn move_trip(&mut self, session: &mut Session, driver: u32) -> io::Result<()> {
        let person = self.people.get(driver);
        let event = match person.work {
            Work::EnRoute => "pickup",
            Work::OnTrip => "complete",
            Work::Free | Work::Holding | Work::Accepting => return Ok(()),
        };
        let trip = person.trip;
        session.say(driver, |payload| message::write_trip(payload, &trip, event))
    }

    /// Frees the candidates of a search.
    pub(super) fn end(&mut self, request: u32) {
        let index = (request - self.first_request) as usize;
        if std::mem::replace(&mut self.requests[index].over, true) {
            return;
        }
        for candidate in std::mem::take(&mut self.requests[index].candidates) {
            self.people.change(candidate, |person| person.reserved = false);
        }
    }

    /// Sends the positions that are due until `now_ns`, one driver after the other; `sent` counts them from the beginning.
    ///
    /// # Errors
    /// The ring's.
    pub fn send_locations(&mut self, session: &mut Session, wanted: u64) -> io::Result<()> {
        while self.tally.counts.locations < wanted {
            let driver = self.next_location;
            self.next_location = (driver + 1) % self.people.count();
            self.tally.counts.locations += 1;
            let jitter = self.chance.share() / 100.0;
            session.say(driver, |payload| {
                write!(
                    payload,
                    "{{\"type\":\"LOCATION\",\"lat\":{:.6},\"lon\":{:.6},\"heading\":90,\"speed\":8.5}}",
                    40.75 + jitter,
                    -73.98 - jitter
                )
                .expect("memory takes all");
            })?;
        }
        Ok(())
    }

    /// Lets an app hang for a while.
    ///
    /// # Errors
    /// The ring's.
    pub fn stall(&mut self, session: &mut Session, driver: u32, secs: f64) -> io::Result<()> {
        session.stall(driver)?;
        self.at(session.now_ns() + (secs * 1e9) as u64, Due::Resume { driver });
        Ok(())
    }

    /// `ACCEPT`s without an outcome, and POSTs that were not taken although their deadline has not come.
    pub fn unsettled(&self) -> (u32, u32) {
        let accepting = (0..self.people.count())
            .filter(|driver| self.people.get(*driver).work == Work::Accepting)
            .count();
        let untaken = self
            .requests
            .iter()
            .filter(|request| !request.taken && !request.over)
            .count();
        (accepting as u32, untaken as u32)
    }

    /// Requests with their winners, as numbers of the whole scenario.
    pub fn winners(&self) -> impl Iterator<Item = (u32, u32)> {
        let first = self.first_driver;
        self.requests
            .iter()
            .zip(self.first_request..)
            .filter_map(move |(request, number)| Some((number, first + request.winner?)))
    }

    pub(super) fn record(&mut self, latency: Latency, from_ns: u64, to_ns: u64) {
        self.tally.record(latency, to_ns.saturating_sub(from_ns));
    }

    /// The driver has no offer and no trip any more.
    pub(super) fn free(&mut self, driver: u32, zone: Option<u16>) {
        self.people.change(driver, |person| {
            person.work = Work::Free;
            person.request = NO_REQUEST;
            person.generation += 1;
            person.zone = zone.unwrap_or(person.zone);
        });
    }

    /// Where a request's ride ends.
    pub(super) fn destination(&self, request: u32) -> Option<u16> {
        let index = self.index(request)?;
        Some(self.city.rides[self.requests[index].ride as usize].to)
    }
}
