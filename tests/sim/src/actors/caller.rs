//! A matching engine: it posts requests, repeats what got no answer, sends new candidates when asked, cancels, answers for
//! drivers, and looks at what it did.

use super::http::{Fate, Lines};
use super::todo::Todo;
use super::{Habits, Hours};
use crate::client::{Action, Actor, Input};
use crate::codec::http;
use crate::ids::{Driver, Request, Trip, write_number};
use crate::rng::Rng;
use crate::trips;
use crate::witness::{Ask, Next, Shared, Wish};
use crate::words::Class;
use std::fmt::Write as _;

/// A `POST` of an offer.
#[derive(Clone, Debug)]
struct Post {
    request: Request,
    candidates: Vec<Driver>,
    wish: Wish,
}

#[derive(Clone, Debug)]
enum Job {
    Post(Post),
    Other(Ask),
}

#[derive(Clone, Debug)]
enum Deed {
    Next,
    Again(Job, u32),
}

/// Times that a call without an answer is repeated; an offer is repeated as long as there is time.
const REPEATS_MAX: u32 = 8;
/// Times that a newcomer is looked at again.
const LOOKS: u32 = 20;

/// See the module.
#[derive(Debug)]
pub struct Caller {
    me: u32,
    drivers: u32,
    witness: Shared,
    rng: Rng,
    hours: Hours,
    habits: Habits,
    lines: Lines,
    todo: Todo<Deed>,
    flying: Vec<(u32, Job, u32)>,
    posted: Vec<Post>,
    now_us: u64,
}

impl Caller {
    /// A caller, who knows `drivers` drivers.
    pub fn new(me: u32, drivers: u32, witness: Shared, rng: Rng, hours: Hours, habits: Habits) -> Self {
        Self {
            me,
            drivers,
            witness,
            rng,
            hours,
            habits,
            lines: Lines::new(habits.connections),
            todo: Todo::new(),
            flying: Vec::new(),
            posted: Vec::new(),
            now_us: 0,
        }
    }

    fn wish(&mut self) -> Wish {
        let habits = self.habits;
        let rng = &mut self.rng;
        let class = *rng.pick(Class::ALL);
        let mut some = |permille: u32, low: u64, high: u64| {
            let value = rng.between(low, high.max(low));
            rng.chance(permille).then_some(value)
        };
        Wish {
            class,
            offer_timeout_ms: some(800, 1, habits.offer_timeout_ms),
            deadline_ms: some(950, 1, habits.deadline_ms),
            max_attempts: some(200, 1, 5),
            parallel: some(habits.parallel, 1, 4),
            busy_wait_ms: some(habits.busy_wait, 0, 6_000),
        }
    }

    fn candidates(&mut self) -> Vec<Driver> {
        let most = if self.rng.chance(self.habits.single) {
            1
        } else {
            self.habits.candidates
        };
        let count = self.rng.between(1, most);
        let mut all: Vec<Driver> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let driver = self.rng.below(u64::from(self.drivers)) as Driver;
            if !all.contains(&driver) {
                all.push(driver);
            }
        }
        all
    }

    fn new_request(&mut self, out: &mut Vec<Action>) {
        let wish = self.wish();
        let request = self.witness.borrow_mut().new_request(self.me, wish);
        let post = Post {
            request,
            candidates: self.candidates(),
            wish,
        };
        self.posted.push(post.clone());
        if self.rng.chance(self.habits.twins) {
            let mut twin = post.clone();
            if self.rng.chance(500) {
                twin.candidates = self.candidates();
            }
            self.start(Job::Post(twin), 0, out);
        }
        self.start(Job::Post(post), 0, out);
        // Whoever looks at once sees what is about to be stored, and must not see what then never was.
        if self.rng.chance(self.habits.views) {
            let ask = if self.rng.chance(500) {
                Ask::Audit(request)
            } else {
                Ask::View(request)
            };
            self.start(Job::Other(ask), REPEATS_MAX, out);
        }
    }

    fn start(&mut self, job: Job, repeats: u32, out: &mut Vec<Action>) {
        let mut bytes = Vec::with_capacity(512);
        let who = "caller";
        let call = match &job {
            Job::Post(post) => {
                let body = self.offer_body(post);
                http::request(&mut bytes, "POST", "/v1/dispatch/offer", Some(&body));
                let set = post.candidates.iter().fold(0, |set, driver| set | (1 << driver));
                let mut witness = self.witness.borrow_mut();
                witness.at(self.now_us).posted(who, post.request, post.wish, set)
            }
            Job::Other(ask) => {
                self.write_other(*ask, &mut bytes);
                self.witness.borrow_mut().at(self.now_us).called(who, *ask, 0)
            }
        };
        self.flying.push((call, job, repeats));
        self.lines.send(call, bytes, &mut self.rng, out);
    }

    fn offer_body(&mut self, post: &Post) -> Vec<u8> {
        let mut body = Vec::with_capacity(512);
        let witness = self.witness.borrow();
        body.extend_from_slice(b"{\"request_id\":\"");
        witness.ids.write_request(&mut body, post.request);
        if let ([only], true) = (post.candidates.as_slice(), self.rng.chance(500)) {
            body.extend_from_slice(b"\",\"driver_id\":\"");
            witness.ids.write_driver(&mut body, *only);
            body.push(b'"');
        } else {
            body.extend_from_slice(b"\",\"candidates\":[");
            for (index, driver) in post.candidates.iter().enumerate() {
                body.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
                witness.ids.write_driver(&mut body, *driver);
                body.push(b'"');
            }
            body.push(b']');
        }
        body.extend_from_slice(b",\"priority\":\"");
        body.extend_from_slice(post.wish.class.as_str().as_bytes());
        body.push(b'"');
        for (name, value) in [
            ("offer_timeout_ms", post.wish.offer_timeout_ms),
            ("deadline_ms", post.wish.deadline_ms),
            ("max_attempts", post.wish.max_attempts),
            ("parallel", post.wish.parallel),
            ("busy_wait_ms", post.wish.busy_wait_ms),
        ] {
            if let Some(value) = value {
                body.extend_from_slice(b",\"");
                body.extend_from_slice(name.as_bytes());
                body.extend_from_slice(b"\":");
                write_number(&mut body, value);
            }
        }
        body.extend_from_slice(b",\"trip\":");
        trips::write(&mut body, post.request);
        body.push(b'}');
        body
    }

    fn write_other(&self, ask: Ask, bytes: &mut Vec<u8>) {
        let witness = self.witness.borrow();
        let ids = &witness.ids;
        match ask {
            Ask::Response {
                request,
                driver,
                attempt,
                accept,
            } => {
                let kind = if accept { "ACCEPT" } else { "DECLINE" };
                let mut body = format!(
                    "{{\"driver_id\":\"{}\",\"request_id\":\"{}\",\"response_type\":\"{kind}\"",
                    ids.driver(driver),
                    ids.request(request)
                );
                if let Some(attempt) = attempt {
                    let _ = write!(body, ",\"attempt\":{attempt}");
                }
                body.push('}');
                http::request(bytes, "POST", "/v1/dispatch/response", Some(body.as_bytes()));
            }
            Ask::Cancel(request) => {
                let body = format!(
                    "{{\"request_id\":\"{}\",\"reason\":\"no \\\"need\\\"\"}}",
                    ids.request(request)
                );
                http::request(bytes, "POST", "/v1/dispatch/cancel", Some(body.as_bytes()));
            }
            Ask::TripCancel(trip) => {
                let target = format!("/v1/trips/{}/cancel", ids.trip(trip));
                http::request(bytes, "POST", &target, Some(b"{\"reason\":\"changed\"}"));
            }
            Ask::View(request) => {
                let target = format!("/v1/dispatch/request/{}", ids.request(request));
                http::request(bytes, "GET", &target, None);
            }
            Ask::Audit(request) => {
                let target = format!("/v1/dispatch/audit/{}", ids.request(request));
                http::request(bytes, "GET", &target, None);
            }
            Ask::DriverView(driver) => {
                let target = format!("/v1/drivers/{}", ids.driver(driver));
                http::request(bytes, "GET", &target, None);
            }
            Ask::Offer(_) | Ask::Records(_) | Ask::Events { .. } | Ask::Acknowledge { .. } => {
                unreachable!("asked by others")
            }
        }
    }

    /// One of the things that a caller does.
    fn deed(&mut self, out: &mut Vec<Action>) {
        self.errands(out);
        self.greet(out);
        if self.now_us >= self.hours.close_us {
            if self.now_us < self.hours.give_up_us {
                let at_us = self.now_us + self.rng.between(50_000, 400_000);
                self.todo.at(at_us, Deed::Next, out);
            }
            return;
        }
        let pause_us = self.rng.between(200, self.habits.pause_ms.max(1) * 1_000);
        self.todo.at(self.now_us + pause_us, Deed::Next, out);
        let habits = self.habits;
        for _ in 0..self.rng.between(1, habits.burst) {
            if (self.posted.len() as u32) < habits.requests {
                self.new_request(out);
            }
        }
        if self.rng.chance(habits.repeats)
            && let Some(mut post) = self.any_post()
        {
            if self.rng.chance(300) {
                post.candidates = self.candidates();
            }
            self.start(Job::Post(post), REPEATS_MAX, out);
        }
        if self.rng.chance(habits.cancels)
            && let Some(post) = self.any_post()
        {
            self.start(Job::Other(Ask::Cancel(post.request)), 0, out);
        }
        if self.rng.chance(habits.trip_cancels)
            && let Some(trip) = self.any_trip()
        {
            self.start(Job::Other(Ask::TripCancel(trip)), 0, out);
        }
        if self.rng.chance(habits.responses) {
            self.respond(out);
        }
        if self.rng.chance(habits.views) {
            self.look(out);
        }
        if self.rng.chance(habits.rude) {
            let mut fates = Vec::new();
            self.lines.be_rude(&mut self.rng, &mut fates, out);
            self.fates(fates, out);
        }
    }

    /// Looks at drivers that have come for the first time, at once and over and over: whatever is shown of them stays,
    /// even if the node ends meanwhile.
    fn greet(&mut self, out: &mut Vec<Action>) {
        if self.habits.greets == 0 {
            return;
        }
        let arrivals = std::mem::take(&mut self.witness.borrow_mut().board.arrivals);
        for driver in arrivals {
            if !self.rng.chance(self.habits.greets) {
                continue;
            }
            let look = Job::Other(Ask::DriverView(driver));
            self.start(look.clone(), REPEATS_MAX, out);
            for _ in 0..LOOKS {
                let at_us = self.now_us + self.rng.between(1_000, 3_000_000);
                self.todo.at(at_us, Deed::Again(look.clone(), REPEATS_MAX), out);
            }
        }
    }

    /// What the board asks for: new candidates, and answers that drivers give over HTTP.
    fn errands(&mut self, out: &mut Vec<Action>) {
        loop {
            let request = {
                let mut witness = self.witness.borrow_mut();
                let mine = |request: &Request| witness.request(*request).caller == self.me;
                let Some(index) = witness.board.redispatch.iter().position(mine) else {
                    break;
                };
                witness.board.redispatch.remove(index)
            };
            let post = self.posted.iter().find(|post| Some(post.request) == request).cloned();
            if let Some(mut post) = post
                && self.now_us < self.hours.close_us
                && self.rng.chance(700)
            {
                post.candidates = self.candidates();
                if self.rng.chance(400) {
                    let wish = self.wish();
                    post.wish.offer_timeout_ms = wish.offer_timeout_ms;
                    post.wish.parallel = wish.parallel;
                    post.wish.busy_wait_ms = wish.busy_wait_ms;
                }
                self.start(Job::Post(post), 0, out);
            }
        }
        let by_http = self.witness.borrow_mut().board.by_http.pop_front();
        if let Some((driver, offer, accept)) = by_http {
            let attempt = self.rng.chance(700).then_some(offer.attempt);
            let request = offer.request;
            let ask = Ask::Response {
                request,
                driver,
                attempt,
                accept,
            };
            self.start(Job::Other(ask), 0, out);
        }
    }

    fn any_post(&mut self) -> Option<Post> {
        if self.posted.is_empty() {
            return None;
        }
        // Mostly a recent one.
        let from = if self.rng.chance(700) {
            self.posted.len().saturating_sub(6)
        } else {
            0
        };
        let index = self.rng.between(from as u64, self.posted.len() as u64 - 1) as usize;
        Some(self.posted[index].clone())
    }

    fn any_trip(&mut self) -> Option<Trip> {
        let witness = self.witness.borrow();
        let trips = &witness.board.trips;
        (!trips.is_empty()).then(|| trips[self.rng.below(trips.len() as u64) as usize])
    }

    /// Answers for a driver, right or wrong.
    fn respond(&mut self, out: &mut Vec<Action>) {
        let offer = {
            let witness = self.witness.borrow();
            let shown = &witness.board.shown;
            (!shown.is_empty()).then(|| shown[self.rng.below(shown.len() as u64) as usize])
        };
        let Some(offer) = offer else { return };
        let whose = self
            .witness
            .borrow()
            .request(offer.request)
            .attempts
            .get((offer.attempt as usize).wrapping_sub(1))
            .and_then(|attempt| attempt.driver);
        let stranger = self.rng.below(u64::from(self.drivers)) as Driver;
        let driver = whose.filter(|_| self.rng.chance(700)).unwrap_or(stranger);
        let ask = Ask::Response {
            request: offer.request,
            driver,
            attempt: self.rng.chance(600).then_some(offer.attempt),
            accept: self.rng.chance(500),
        };
        self.start(Job::Other(ask), 0, out);
    }

    fn look(&mut self, out: &mut Vec<Action>) {
        let Some(post) = self.any_post() else { return };
        let ask = match self.rng.below(4) {
            0 => Ask::View(post.request),
            1 => Ask::DriverView(self.rng.below(u64::from(self.drivers)) as Driver),
            _ => Ask::Audit(post.request),
        };
        self.start(Job::Other(ask), REPEATS_MAX, out);
    }

    fn fates(&mut self, fates: Vec<Fate>, out: &mut Vec<Action>) {
        for fate in fates {
            let (call, again) = match fate {
                Fate::Answered(call, next) => (call, next == Next::Again),
                Fate::Lost(call) => {
                    self.witness.borrow_mut().at(self.now_us).lost(call);
                    (call, true)
                }
            };
            let Some(index) = self.flying.iter().position(|flying| flying.0 == call) else {
                continue;
            };
            let (_, job, repeats) = self.flying.swap_remove(index);
            let at_us = self.now_us + self.rng.between(5_000, 600_000);
            if again && at_us < self.hours.give_up_us && repeats < REPEATS_MAX {
                // An offer is repeated until it is answered: its caller has to know.
                let repeats = if matches!(job, Job::Post(_)) {
                    repeats
                } else {
                    repeats + 1
                };
                self.todo.at(at_us, Deed::Again(job, repeats), out);
            }
        }
    }
}

impl Actor for Caller {
    fn on(&mut self, input: Input<'_>, now_us: u64, out: &mut Vec<Action>) {
        self.now_us = now_us;
        let mut fates = Vec::new();
        match input {
            Input::Start => {
                let at_us = self.rng.between(1_000, 300_000);
                self.todo.at(at_us, Deed::Next, out);
            }
            Input::Timer(token) => match self.todo.take(token) {
                Some(Deed::Next) => self.deed(out),
                Some(Deed::Again(job, repeats)) => self.start(job, repeats, out),
                None => {}
            },
            Input::Opened(_) => {}
            Input::Bytes(conn, bytes) => self.lines.bytes(conn, bytes, &self.witness, now_us, &mut fates, out),
            Input::HalfClosed(conn) => self.lines.half_closed(conn, &mut fates, out),
            Input::Refused(conn) | Input::Closed(conn) => self.lines.over(conn, &mut fates),
        }
        self.fates(fates, out);
    }
}
