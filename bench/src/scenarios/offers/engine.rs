//! Plays both sides of the offer workflow: the matching engine that posts, and the drivers that answer.
//!
//! Reacts to events and to time, sends through the session, counts, and calls everything a fault that the contract does not
//! allow in a run without failures: a second `OFFER` or `CONFIRMED`, a state out of order, a lost connection, an error.
//! All delays are constant, so each kind of due action is a queue in order of time.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, Write};

use crate::due::{Due, Turn};
use crate::measure::Latencies;
use crate::message::{self, DriverState, Message, TripId};
use crate::report::Faults;
use crate::session::{Event, EventKind, Session};

/// The trip of every request: what a city's matching engine knows of it.
const TRIP: &str = r#"{"pickup":{"zone":161,"lat":40.758028,"lon":-73.977698},"dropoff":{"zone":237,"lat":40.768615,"lon":-73.965635},"passengers":1,"fare_cents":1450,"distance_m":2253}"#;
/// Time a driver has; long, because no offer may end by itself in a valid run.
const OFFER_TIMEOUT_MS: u32 = 60_000;
/// No driver.
const NOBODY: u32 = u32::MAX;

/// Delays and shares of the people.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// From `OFFER` to the answer, ns; the `ACK` leaves at once.
    pub think_ns: u64,
    /// Of 100 requests, how many the first driver declines.
    pub decline_percent: u32,
    /// From `CONFIRMED` to `pickup` and from there to `complete`, ns; `None` keeps the trips for [`Engine::end_trips`].
    pub trip_leg_ns: Option<u64>,
}

/// Latencies from the intended time of what causes to the arrival of what it causes.
#[derive(Default)]
pub struct Timings {
    /// POST → 202.
    pub post_to_accepted: Latencies,
    /// POST → `OFFER` on the driver's socket.
    pub post_to_offer: Latencies,
    /// `ACCEPT` → `CONFIRMED`.
    pub accept_to_confirmed: Latencies,
    /// `DECLINE` → `OFFER` on the next driver's socket.
    pub decline_to_offer: Latencies,
}

/// Lengths on the wire of the messages last seen, bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// The POST.
    pub post: u32,
    /// The 202.
    pub accepted: u32,
    /// `OFFER`.
    pub offer: u32,
    /// `CONFIRMED`.
    pub confirmed: u32,
}

struct Request {
    /// When the POST was meant to leave; `None` once its `OFFER` has come.
    posted_ns: Option<u64>,
    /// When the last answer of a driver was meant to leave.
    answer_ns: u64,
    intended_ns: u64,
    first: u32,
    second: u32,
    accepted: bool,
    confirmed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Free,
    Reserved(u32),
    Thinking(u32),
    Declining(u32),
    Accepting(u32),
    Confirmed(u32),
    EnRoute,
    PickingUp,
    OnTrip,
    Completing,
}

struct Driver {
    work: Work,
    trip: TripId,
}

/// See the module.
pub struct Engine {
    manners: Manners,
    requests: Vec<Request>,
    drivers: Vec<Driver>,
    free: VecDeque<u32>,
    due: Due,
    held: VecDeque<u32>,
    cycles_open: u32,
    trips_open: u32,
    cycles_done: u64,
    trips_done: u64,
    declines: u64,
    timings: Timings,
    sizes: Sizes,
    faults: Faults,
    body: Vec<u8>,
}

impl Engine {
    /// All drivers of the session are connected and free.
    pub fn new(drivers: u32, manners: Manners) -> Self {
        let free = || Driver {
            work: Work::Free,
            trip: TripId::NONE,
        };
        Self {
            manners,
            requests: Vec::new(),
            drivers: std::iter::repeat_with(free).take(drivers as usize).collect(),
            free: (0..drivers).collect(),
            due: Due::default(),
            held: VecDeque::new(),
            cycles_open: 0,
            trips_open: 0,
            cycles_done: 0,
            trips_done: 0,
            declines: 0,
            timings: Timings::default(),
            sizes: Sizes::default(),
            faults: Faults::default(),
            body: Vec::new(),
        }
    }

    /// Changes delays and shares for what starts from now on.
    pub fn set_manners(&mut self, manners: Manners) {
        self.manners = manners;
    }

    /// Cycles posted and not yet over.
    pub fn cycles_open(&self) -> u32 {
        self.cycles_open
    }

    /// Cycles over: 202, `CONFIRMED` and the `STATE` behind it have come.
    pub fn cycles_done(&self) -> u64 {
        self.cycles_done
    }

    /// Trips between `pickup` and the `STATE` `available` that ends them, and those that wait to begin.
    pub fn trips_open(&self) -> u32 {
        self.trips_open + self.held.len() as u32
    }

    /// Trips over.
    pub fn trips_done(&self) -> u64 {
        self.trips_done
    }

    /// Declines answered with `DECLINED`.
    pub fn declines(&self) -> u64 {
        self.declines
    }

    /// Lengths of the messages seen.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Takes the latencies recorded since the last call.
    pub fn take_timings(&mut self) -> Timings {
        std::mem::take(&mut self.timings)
    }

    /// Takes the faults found so far.
    pub fn take_faults(&mut self) -> Faults {
        std::mem::take(&mut self.faults)
    }

    /// Counts a fault that the scenario has found.
    pub fn fault(&mut self, kind: &'static str, example: impl FnOnce() -> String) {
        self.faults.add(kind, example);
    }

    /// Posts the next request, meant to leave at `intended_ns`; false when too few drivers are free.
    pub fn post(&mut self, session: &mut Session, intended_ns: u64) -> bool {
        let number = self.requests.len() as u32;
        // 37 is coprime to 100: declines are spread, not bunched.
        let declines = number.wrapping_mul(37) % 100 < self.manners.decline_percent;
        if self.free.len() < 1 + usize::from(declines) {
            return false;
        }
        let mut reserve = || {
            let driver = self.free.pop_front().expect("counted above");
            self.drivers[driver as usize].work = Work::Reserved(number);
            driver
        };
        let first = reserve();
        let second = if declines { reserve() } else { NOBODY };
        self.write_body(number, first, second);
        let posted_ns = Some(intended_ns);
        let (answer_ns, accepted, confirmed) = (0, false, false);
        self.requests.push(Request {
            posted_ns,
            answer_ns,
            intended_ns,
            first,
            second,
            accepted,
            confirmed,
        });
        self.cycles_open += 1;
        self.sizes.post = session.post(number, "/v1/dispatch/offer", &self.body);
        true
    }

    fn write_body(&mut self, number: u32, first: u32, second: u32) {
        let body = &mut self.body;
        body.clear();
        body.extend_from_slice(b"{\"request_id\":\"");
        message::write_request_id(body, number);
        body.extend_from_slice(b"\",\"candidates\":[\"");
        message::write_driver_id(body, first);
        if second != NOBODY {
            body.extend_from_slice(b"\",\"");
            message::write_driver_id(body, second);
        }
        write!(body, "\"],\"offer_timeout_ms\":{OFFER_TIMEOUT_MS},\"trip\":{TRIP}}}").expect("memory takes all");
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

    /// When [`Engine::send_due`] next has something to do.
    pub fn next_due_ns(&self) -> u64 {
        self.due.next_ns()
    }

    /// Begins to end held trips, so that at most `open_max` are under way.
    ///
    /// # Errors
    /// The ring's.
    pub fn end_trips(&mut self, session: &mut Session, open_max: u32) -> io::Result<()> {
        while self.trips_open < open_max
            && let Some(driver) = self.held.pop_front()
        {
            self.trips_open += 1;
            self.trip_event(session, driver, Work::PickingUp, "pickup")?;
        }
        Ok(())
    }

    /// Reacts to an event.
    ///
    /// # Errors
    /// The ring's.
    pub fn react(&mut self, session: &mut Session, event: &Event) -> io::Result<()> {
        match &event.kind {
            EventKind::Message { driver, message } => return self.message(session, *driver, message, event),
            EventKind::Response {
                token,
                status: 202,
                first: true,
            } => self.accepted(*token, event),
            EventKind::Response { token, status, first } => {
                self.faults.add("POST not accepted", || {
                    format!("request {token}: {status}, first: {first}")
                });
                if *status >= 400 {
                    self.refused(*token);
                }
            }
            EventKind::Gone { driver, why } => {
                self.faults.add("drivers lost", || format!("driver {driver}: {why:?}"));
            }
            EventKind::Fault(what) => self.faults.add("protocol", || what.clone()),
            // Its cause has come as a fault.
            EventKind::HttpClosed { .. } => {}
        }
        Ok(())
    }

    fn message(&mut self, session: &mut Session, driver: u32, message: &Message, event: &Event) -> io::Result<()> {
        let work = self.drivers[driver as usize].work;
        match (message, work) {
            (Message::Offer { request, attempt }, Work::Reserved(reserved)) if *request == reserved => {
                self.offered(session, driver, *request, *attempt, event)?;
            }
            (Message::Confirmed { request, trip }, Work::Accepting(accepting)) if *request == accepting => {
                self.confirmed(driver, *request, *trip, event);
            }
            (Message::Declined { request }, Work::Declining(declining)) if *request == declining => {
                self.declines += 1;
                self.release(driver);
            }
            (Message::State(DriverState::EnRoute), Work::Confirmed(request)) => {
                self.drivers[driver as usize].work = Work::EnRoute;
                self.requests[request as usize].confirmed = true;
                self.end_cycle(request, driver, event.at_ns);
            }
            (Message::State(DriverState::OnTrip), Work::PickingUp) => {
                self.drivers[driver as usize].work = Work::OnTrip;
                let due_ns = event.at_ns + self.manners.trip_leg_ns.unwrap_or(0);
                self.due.completions.push_back((due_ns, driver));
            }
            (Message::State(DriverState::Available), Work::Completing) => {
                self.trips_open -= 1;
                self.trips_done += 1;
                self.release(driver);
            }
            // The heartbeats that the session sends.
            (Message::Pong, _) => {}
            (Message::Offer { .. }, _) => self.stray("stray or second OFFER", driver, message, work),
            (Message::Confirmed { .. }, _) => self.stray("stray or second CONFIRMED", driver, message, work),
            (Message::Declined { .. }, _) => self.stray("stray or second DECLINED", driver, message, work),
            (Message::State(_), _) => self.stray("STATE out of order", driver, message, work),
            (Message::Welcome { .. } | Message::Revoked { .. } | Message::Unexpected(_), _) => {
                self.stray("unexpected message", driver, message, work);
            }
        }
        Ok(())
    }

    fn stray(&mut self, kind: &'static str, driver: u32, message: &Message, work: Work) {
        self.faults
            .add(kind, || format!("driver {driver} ({work:?}): {message:?}"));
    }

    fn release(&mut self, driver: u32) {
        self.drivers[driver as usize].work = Work::Free;
        self.free.push_back(driver);
    }

    fn accepted(&mut self, number: u32, event: &Event) {
        let request = &mut self.requests[number as usize];
        assert!(!request.accepted, "one POST has one answer");
        request.accepted = true;
        let (intended_ns, driver) = (request.intended_ns, request.winner());
        self.timings
            .post_to_accepted
            .record(event.at_ns.saturating_sub(intended_ns));
        self.sizes.accepted = event.bytes;
        self.end_cycle(number, driver, event.at_ns);
    }

    /// A request that was not taken: its drivers are free again, unless an offer has come nevertheless.
    fn refused(&mut self, number: u32) {
        let request = &self.requests[number as usize];
        let drivers = [request.first, request.second];
        self.cycles_open -= 1;
        for driver in drivers {
            let reserved = self.drivers.get(driver as usize).map(|state| state.work);
            if reserved == Some(Work::Reserved(number)) {
                self.release(driver);
            }
        }
    }

    fn offered(
        &mut self,
        session: &mut Session,
        driver: u32,
        number: u32,
        attempt: u32,
        event: &Event,
    ) -> io::Result<()> {
        let request = &mut self.requests[number as usize];
        match request.posted_ns.take() {
            Some(posted_ns) => self.timings.post_to_offer.record(event.at_ns.saturating_sub(posted_ns)),
            None => self
                .timings
                .decline_to_offer
                .record(event.at_ns.saturating_sub(request.answer_ns)),
        }
        let expected = if driver == request.first { 1 } else { 2 };
        if attempt != expected {
            self.faults.add("wrong attempt", || {
                format!("request {number}: {attempt} instead of {expected}")
            });
        }
        self.sizes.offer = event.bytes;
        self.drivers[driver as usize].work = Work::Thinking(number);
        self.due
            .answers
            .push_back((event.at_ns + self.manners.think_ns, driver));
        session.say(driver, |payload| message::write_answer(payload, "ACK", number, attempt))
    }

    fn answer(&mut self, session: &mut Session, driver: u32, due_ns: u64) -> io::Result<()> {
        let Work::Thinking(number) = self.drivers[driver as usize].work else {
            unreachable!("only a thinking driver is in the queue of answers");
        };
        let request = &mut self.requests[number as usize];
        // Latency counts from when the answer was due, so that a late load generator does not flatter the server.
        request.answer_ns = due_ns;
        let is_first = driver == request.first;
        let (work, answer) = if is_first && request.second != NOBODY {
            (Work::Declining(number), "DECLINE")
        } else {
            (Work::Accepting(number), "ACCEPT")
        };
        self.drivers[driver as usize].work = work;
        let attempt = if is_first { 1 } else { 2 };
        session.say(driver, |payload| {
            message::write_answer(payload, answer, number, attempt);
        })
    }

    fn confirmed(&mut self, driver: u32, number: u32, trip: TripId, event: &Event) {
        let request = &self.requests[number as usize];
        self.timings
            .accept_to_confirmed
            .record(event.at_ns.saturating_sub(request.answer_ns));
        self.sizes.confirmed = event.bytes;
        self.drivers[driver as usize] = Driver {
            work: Work::Confirmed(number),
            trip,
        };
    }

    /// Ends the cycle once both the caller and the driver have heard everything.
    fn end_cycle(&mut self, number: u32, driver: u32, at_ns: u64) {
        let request = &self.requests[number as usize];
        if !(request.accepted && request.confirmed) {
            return;
        }
        self.cycles_open -= 1;
        self.cycles_done += 1;
        match self.manners.trip_leg_ns {
            Some(leg_ns) => {
                self.trips_open += 1;
                self.due.pickups.push_back((at_ns + leg_ns, driver));
            }
            None => self.held.push_back(driver),
        }
    }

    fn trip_event(&mut self, session: &mut Session, driver: u32, work: Work, event: &str) -> io::Result<()> {
        let state = &mut self.drivers[driver as usize];
        state.work = work;
        let trip = state.trip;
        session.say(driver, |payload| message::write_trip(payload, &trip, event))
    }
}

impl Request {
    /// The driver that will have the trip.
    fn winner(&self) -> u32 {
        if self.second == NOBODY { self.first } else { self.second }
    }
}
