//! The drivers of one load thread and the matching engine that offers them trips: what they do, and the audit of all that
//! they hear.
//!
//! Reacts to events and to time, sends through the session, and calls everything a fault that the contract does not allow
//! while nothing fails: a second `OFFER` or `CONFIRMED`, an attempt out of order, a state out of order, an outcome that was not
//! caused, a lost connection. All delays are constant, so each kind of due action is a queue in order of time.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Write};

use super::timing::{Counts, Timings};
use crate::due::{Due, Turn};
use crate::message::{self, DriverState, Message, TripId};
use crate::report::Faults;
use crate::session::{Event, EventKind, Session};

/// The trip of every request: what a city's matching engine knows of it.
const TRIP: &str = r#"{"pickup":{"zone":161,"lat":40.758028,"lon":-73.977698},"dropoff":{"zone":237,"lat":40.768615,"lon":-73.965635},"passengers":1,"fare_cents":1450,"distance_m":2253}"#;
/// No driver.
const NOBODY: u32 = u32::MAX;
/// Numbers of requests that one thread may give out; thread `n` begins at `n` times this.
const REQUESTS_PER_THREAD: u32 = 1 << 24;

/// Delays and shares of the people.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// From `OFFER` to the answer, ns; the `ACK` leaves at once.
    pub think_ns: u64,
    /// From `CONFIRMED` to `pickup` and from there to `complete`, ns.
    pub leg_ns: u64,
    /// Of 100 requests, how many the first driver declines.
    pub decline_percent: u32,
    /// Of 100 requests, how many the first driver does not answer.
    pub ignore_percent: u32,
    /// `offer_timeout_ms` of every request: how long a driver that does not answer holds its offer.
    pub offer_timeout_ms: u32,
}

/// What the first driver of a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Accepts,
    Declines,
    Ignores,
}

/// A request that is over, as its audit must tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Story {
    /// Number of the request.
    pub request: u32,
    /// The driver that has the trip.
    pub winner: u32,
    /// Its attempt.
    pub attempt: u32,
    /// The first driver declined.
    pub declined: bool,
    /// The first driver let the offer end.
    pub timed_out: bool,
}

struct Request {
    intended_ns: u64,
    /// When the answer that causes the next message was meant to leave.
    answer_ns: u64,
    first: u32,
    second: u32,
    first_does: First,
    offers: u8,
    accepted: bool,
    confirmed: bool,
}

impl Request {
    fn winner(&self) -> u32 {
        if self.second == NOBODY { self.first } else { self.second }
    }
}

/// What a driver is at; the number is the request's place in this thread's list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Free,
    Reserved(u32),
    Thinking(u32),
    Ignoring(u32),
    Declining(u32),
    Accepting(u32),
    Confirmed(u32),
    EnRoute,
    PickingUp,
    OnTrip,
    Completing,
}

struct Person {
    work: Work,
    trip: Option<Box<TripId>>,
}

/// See the module.
pub struct People {
    manners: Manners,
    /// Number of this thread's first request.
    first_request: u32,
    /// Number of this thread's first driver.
    first_driver: u32,
    requests: Vec<Request>,
    people: Vec<Person>,
    free: VecDeque<u32>,
    due: Due,
    open: u32,
    trips_open: u32,
    counts: Counts,
    timings: Timings,
    faults: Faults,
    body: Vec<u8>,
}

impl People {
    /// `drivers` free drivers of the load thread `thread`, the first of which has number `first_driver` in the run.
    pub fn new(thread: u32, first_driver: u32, drivers: u32, manners: Manners) -> Self {
        let free = || Person {
            work: Work::Free,
            trip: None,
        };
        Self {
            manners,
            first_request: thread * REQUESTS_PER_THREAD,
            first_driver,
            requests: Vec::new(),
            people: std::iter::repeat_with(free).take(drivers as usize).collect(),
            free: (0..drivers).collect(),
            due: Due::default(),
            open: 0,
            trips_open: 0,
            counts: Counts::default(),
            timings: Timings::default(),
            faults: Faults::default(),
            body: Vec::new(),
        }
    }

    /// Requests and trips that are under way.
    pub fn open(&self) -> u32 {
        self.open + self.trips_open
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes the latencies recorded since the last call.
    pub fn take_timings(&mut self) -> Timings {
        std::mem::take(&mut self.timings)
    }

    /// Takes the faults found since the last call.
    pub fn take_faults(&mut self) -> Faults {
        std::mem::take(&mut self.faults)
    }

    /// Counts a fault that somebody else has found.
    pub fn fault(&mut self, kind: &'static str, example: impl FnOnce() -> String) {
        self.faults.add(kind, example);
    }

    /// Requests that are over, at most `count` of them, spread over the run.
    pub fn stories(&self, count: usize) -> Vec<Story> {
        let step = (self.requests.len() / count.max(1)).max(1);
        let told = (0..self.requests.len()).step_by(step).take(count);
        told.filter(|place| self.requests[*place].confirmed)
            .map(|place| {
                let request = &self.requests[place];
                Story {
                    request: self.first_request + place as u32,
                    winner: self.first_driver + request.winner(),
                    attempt: if request.second == NOBODY { 1 } else { 2 },
                    declined: request.first_does == First::Declines,
                    timed_out: request.first_does == First::Ignores,
                }
            })
            .collect()
    }

    /// Posts the next request, meant to leave at `intended_ns`. When too few drivers are free it is counted and not posted.
    pub fn post(&mut self, session: &mut Session, intended_ns: u64) {
        let place = self.requests.len() as u32;
        assert!(place < REQUESTS_PER_THREAD, "a run is bounded far below this");
        // 37 is coprime to 100: shares are spread, not bunched.
        let (decline, ignore) = (self.manners.decline_percent, self.manners.ignore_percent);
        let first_does = match place.wrapping_mul(37) % 100 {
            share if share < decline => First::Declines,
            share if share < decline + ignore => First::Ignores,
            _ => First::Accepts,
        };
        if self.free.len() < 2 {
            self.counts.starved += 1;
            return;
        }
        let mut reserve = || {
            let driver = self.free.pop_front().expect("counted above");
            self.people[driver as usize].work = Work::Reserved(place);
            driver
        };
        let first = reserve();
        let second = if first_does == First::Accepts {
            NOBODY
        } else {
            reserve()
        };
        self.write_body(place, first, second);
        self.requests.push(Request {
            intended_ns,
            answer_ns: 0,
            first,
            second,
            first_does,
            offers: 0,
            accepted: false,
            confirmed: false,
        });
        self.open += 1;
        self.counts.posted += 1;
        session.post(place, "/v1/dispatch/offer", &self.body);
    }

    fn write_body(&mut self, place: u32, first: u32, second: u32) {
        let body = &mut self.body;
        body.clear();
        body.extend_from_slice(b"{\"request_id\":\"");
        message::write_request_id(body, self.first_request + place);
        body.extend_from_slice(b"\",\"candidates\":[\"");
        message::write_driver_id(body, self.first_driver + first);
        if second != NOBODY {
            body.extend_from_slice(b"\",\"");
            message::write_driver_id(body, self.first_driver + second);
        }
        let timeout_ms = self.manners.offer_timeout_ms;
        write!(body, "\"],\"offer_timeout_ms\":{timeout_ms},\"trip\":{TRIP}}}").expect("memory takes all");
    }

    /// Sends the answers and trip events that are due.
    ///
    /// # Errors
    /// The ring's.
    pub fn send_due(&mut self, session: &mut Session) -> io::Result<()> {
        let now_ns = session.now_ns();
        while let Some(turn) = self.due.pop(now_ns) {
            match turn {
                Turn::Answer(driver, due_ns) => self.answer(session, driver, due_ns)?,
                Turn::PickUp(driver) => self.trip_event(session, driver, Work::PickingUp, "pickup")?,
                Turn::Complete(driver) => self.trip_event(session, driver, Work::Completing, "complete")?,
            }
        }
        Ok(())
    }

    /// When [`Self::send_due`] next has something to do.
    pub fn next_due_ns(&self) -> u64 {
        self.due.next_ns()
    }

    /// Reacts to the answer to a POST.
    pub fn answered(&mut self, place: u32, status: u16, first: bool, at_ns: u64) {
        let request = &mut self.requests[place as usize];
        if status != 202 || !first || request.accepted {
            let number = self.first_request + place;
            self.faults.add("POST not accepted", || {
                format!("request {number}: {status}, first: {first}")
            });
            // What becomes of it is not known: its drivers stay out of the game, and the run is invalid.
            self.open -= u32::from(!request.accepted);
            return;
        }
        request.accepted = true;
        self.timings.accepted.record(at_ns.saturating_sub(request.intended_ns));
        self.end_if_over(place, at_ns);
    }

    /// Reacts to a driver's message other than `WELCOME` and `PONG`.
    ///
    /// # Errors
    /// The ring's.
    pub fn heard(&mut self, session: &mut Session, driver: u32, message: &Message, at_ns: u64) -> io::Result<()> {
        let work = self.people[driver as usize].work;
        let place = |number: u32| number.wrapping_sub(self.first_request);
        match (message, work) {
            (Message::Offer { request, attempt }, Work::Reserved(reserved)) if place(*request) == reserved => {
                return self.offered(session, driver, reserved, *attempt, at_ns);
            }
            (Message::Confirmed { request, trip }, Work::Accepting(mine)) if place(*request) == mine => {
                let answer_ns = self.requests[mine as usize].answer_ns;
                self.timings.confirmed.record(at_ns.saturating_sub(answer_ns));
                self.people[driver as usize] = Person {
                    work: Work::Confirmed(mine),
                    trip: Some(Box::new(*trip)),
                };
            }
            (Message::Declined { request }, Work::Declining(mine)) if place(*request) == mine => {
                self.counts.declined += 1;
                self.release(driver);
            }
            // The offer ended by its time: nobody else takes or cancels what these drivers are offered.
            (Message::Revoked { request }, Work::Ignoring(mine)) if place(*request) == mine => {
                self.counts.timed_out += 1;
                self.release(driver);
            }
            (Message::State(DriverState::EnRoute), Work::Confirmed(mine)) => {
                self.people[driver as usize].work = Work::EnRoute;
                self.trips_open += 1;
                self.due.pickups.push_back((at_ns + self.manners.leg_ns, driver));
                self.counts.confirmed += 1;
                self.requests[mine as usize].confirmed = true;
                self.end_if_over(mine, at_ns);
            }
            (Message::State(DriverState::OnTrip), Work::PickingUp) => {
                self.people[driver as usize].work = Work::OnTrip;
                self.due.completions.push_back((at_ns + self.manners.leg_ns, driver));
            }
            (Message::State(DriverState::Available), Work::Completing) => {
                self.trips_open -= 1;
                self.counts.trips += 1;
                self.release(driver);
            }
            _ => {
                let kind = match message {
                    Message::Offer { .. } => "stray or second OFFER",
                    Message::Confirmed { .. } => "stray or second CONFIRMED",
                    Message::Declined { .. } => "stray or second DECLINED",
                    Message::State(_) => "STATE out of order",
                    _ => "unexpected message",
                };
                self.faults
                    .add(kind, || format!("driver {driver} ({work:?}): {message:?}"));
            }
        }
        Ok(())
    }

    fn offered(&mut self, session: &mut Session, driver: u32, place: u32, attempt: u32, at_ns: u64) -> io::Result<()> {
        let request = &mut self.requests[place as usize];
        request.offers += 1;
        let is_first = driver == request.first;
        let expected = if is_first { 1 } else { 2 };
        if attempt != expected || u32::from(request.offers) != expected {
            let offers = request.offers;
            self.faults.add("attempts out of order", || {
                format!("driver {driver}: attempt {attempt} with offer {offers} of the request")
            });
        }
        match (is_first, request.first_does) {
            (true, _) => self.timings.offered.record(at_ns.saturating_sub(request.intended_ns)),
            (false, First::Declines) => self.timings.reoffered.record(at_ns.saturating_sub(request.answer_ns)),
            // After a timeout: the offer before it ended by the server's clock, which is not known here.
            (false, _) => {}
        }
        self.people[driver as usize].work = if is_first && request.first_does == First::Ignores {
            Work::Ignoring(place)
        } else {
            self.due.answers.push_back((at_ns + self.manners.think_ns, driver));
            Work::Thinking(place)
        };
        let number = self.first_request + place;
        session.say(driver, |payload| message::write_answer(payload, "ACK", number, attempt))
    }

    fn answer(&mut self, session: &mut Session, driver: u32, due_ns: u64) -> io::Result<()> {
        let Work::Thinking(place) = self.people[driver as usize].work else {
            unreachable!("only a thinking driver is in the queue of answers");
        };
        let request = &mut self.requests[place as usize];
        // Latency counts from when the answer was due, so that a late load generator does not flatter the server.
        request.answer_ns = due_ns;
        let (work, answer, attempt) = match driver == request.first {
            true if request.first_does == First::Declines => (Work::Declining(place), "DECLINE", 1),
            is_first => (Work::Accepting(place), "ACCEPT", if is_first { 1 } else { 2 }),
        };
        self.people[driver as usize].work = work;
        let number = self.first_request + place;
        session.say(driver, |payload| {
            message::write_answer(payload, answer, number, attempt);
        })
    }

    fn release(&mut self, driver: u32) {
        self.people[driver as usize] = Person {
            work: Work::Free,
            trip: None,
        };
        self.free.push_back(driver);
    }

    /// A request is over once both its caller and its driver have heard everything.
    fn end_if_over(&mut self, place: u32, at_ns: u64) {
        let request = &self.requests[place as usize];
        if request.accepted && request.confirmed {
            self.open -= 1;
            self.timings.whole.record(at_ns.saturating_sub(request.intended_ns));
        }
    }

    fn trip_event(&mut self, session: &mut Session, driver: u32, work: Work, event: &str) -> io::Result<()> {
        let person = &mut self.people[driver as usize];
        person.work = work;
        let trip = person.trip.as_deref().expect("a driver on its way has a trip");
        session.say(driver, |payload| message::write_trip(payload, trip, event))
    }
}

/// Passes an event of the workflow on; `Some` for everything else.
///
/// # Errors
/// The ring's.
pub fn react<'a>(people: &mut People, session: &mut Session, event: &'a Event) -> io::Result<Option<&'a EventKind>> {
    match &event.kind {
        EventKind::Message {
            message: Message::Pong | Message::Welcome { .. },
            ..
        }
        | EventKind::Gone { .. }
        | EventKind::HttpClosed { .. }
        | EventKind::Fault(_) => return Ok(Some(&event.kind)),
        EventKind::Message { driver, message } => people.heard(session, *driver, message, event.at_ns)?,
        EventKind::Response { token, status, first } => people.answered(*token, *status, *first, event.at_ns),
    }
    Ok(None)
}
