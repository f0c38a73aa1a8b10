//! A matching engine: it posts requests, repeats what got no answer, sends new candidates when asked, cancels, answers for
//! drivers, and looks at what it did.

use super::bodies;
use super::http::{Fate, Lines};
use super::todo::Todo;
use super::{Habits, Hours};
use crate::client::{Action, Actor, Input};
use crate::codec::http;
use crate::ids::{Driver, Request, Trip};
use crate::phrases;
use crate::rng::Rng;
use crate::witness::{Ask, Next, Shared, Wish};
use crate::words::Class;

/// A `POST` of an offer.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) request: Request,
    pub(super) candidates: Vec<Driver>,
    pub(super) wish: Wish,
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
/// Least time from one look at everybody to the next.
const RESYNC_US: u64 = 1_000_000;
/// Times that a newcomer is looked at again.
const LOOKS: u32 = 20;

/// See the module.
#[derive(Debug)]
pub struct Caller {
    me: u32,
    drivers: u32,
    witness: Shared,
    rng: Rng,
    /// Of its words.
    words: Rng,
    hours: Hours,
    habits: Habits,
    lines: Lines,
    todo: Todo<Deed>,
    flying: Vec<(u32, Job, u32)>,
    posted: Vec<Post>,
    /// When it last began to look at everybody.
    resynced_us: u64,
    now_us: u64,
}

impl Caller {
    /// A caller, who knows `drivers` drivers.
    pub fn new(me: u32, drivers: u32, witness: Shared, rng: Rng, hours: Hours, habits: Habits) -> Self {
        Self {
            me,
            drivers,
            witness,
            words: rng.aside(),
            rng,
            hours,
            habits,
            lines: Lines::new(habits.connections),
            todo: Todo::new(),
            flying: Vec::new(),
            posted: Vec::new(),
            resynced_us: 0,
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
                let as_one = self.rng.chance(500);
                let body = bodies::offer(&self.witness.borrow().ids, post, as_one);
                http::request(&mut bytes, "POST", "/v1/dispatch/offer", Some(&body));
                let mut witness = self.witness.borrow_mut();
                witness
                    .at(self.now_us)
                    .posted(who, post.request, post.wish, &post.candidates)
            }
            Job::Other(ask) => {
                bodies::other(&self.witness.borrow().ids, *ask, &mut bytes);
                self.witness.borrow_mut().at(self.now_us).called(who, *ask, 0)
            }
        };
        self.flying.push((call, job, repeats));
        self.lines.send(call, bytes, &self.witness, &mut self.rng, out);
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
            let reason = phrases::any_reason(&mut self.words);
            self.start(Job::Other(Ask::Cancel(post.request, reason)), 0, out);
        }
        if self.rng.chance(habits.trip_cancels)
            && let Some(trip) = self.any_trip()
        {
            let reason = phrases::any_reason(&mut self.words);
            self.start(Job::Other(Ask::TripCancel(trip, reason)), 0, out);
        }
        if self.rng.chance(habits.responses) {
            self.respond(out);
        }
        if self.rng.chance(habits.views) {
            self.look(out);
        }
        if habits.probes > 0 && self.rng.chance(habits.probes) {
            for ask in [Ask::Alive, Ask::Ready] {
                self.start(Job::Other(ask), REPEATS_MAX, out);
            }
        }
        if self.rng.chance(habits.rude) {
            let mut fates = Vec::new();
            self.lines.be_rude(&mut self.rng, &mut fates, out);
            self.fates(fates, out);
        }
    }

    /// Drivers that have come for the first time are offered something, and looked at, at once and over and over:
    /// whatever is shown of them stays, even if the node ends meanwhile.
    fn greet(&mut self, out: &mut Vec<Action>) {
        if self.habits.greets + self.habits.welcomes == 0 {
            return;
        }
        let arrivals = std::mem::take(&mut self.witness.borrow_mut().board.arrivals);
        for driver in arrivals {
            if self.habits.welcomes > 0 && self.rng.chance(self.habits.welcomes) {
                self.welcome(driver, out);
            }
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

    /// Offers something to a newcomer.
    fn welcome(&mut self, driver: Driver, out: &mut Vec<Action>) {
        let timeout_ms = self.habits.offer_timeout_ms;
        let wish = Wish {
            offer_timeout_ms: Some(self.rng.between(timeout_ms / 3, timeout_ms)),
            deadline_ms: Some(self.habits.deadline_ms),
            parallel: None,
            busy_wait_ms: None,
            ..self.wish()
        };
        let request = self.witness.borrow_mut().new_request(self.me, wish);
        let post = Post {
            request,
            candidates: vec![driver],
            wish,
        };
        self.posted.push(post.clone());
        self.start(Job::Post(post), 0, out);
    }

    /// Who lost a call looks at everybody whom the node must know: whoever was forgotten is missed before it comes back.
    fn resync(&mut self, out: &mut Vec<Action>) {
        if self.habits.resyncs == 0 || self.now_us < self.resynced_us + RESYNC_US {
            return;
        }
        self.resynced_us = self.now_us;
        for driver in 0..self.drivers {
            if self.witness.borrow().is_known(driver) && self.rng.chance(self.habits.resyncs) {
                let at_us = self.now_us + self.rng.between(5_000, 400_000);
                let look = Job::Other(Ask::DriverView(driver));
                self.todo.at(at_us, Deed::Again(look, 0), out);
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
                Fate::Lost(call, loss) => {
                    self.witness.borrow_mut().at(self.now_us).lost(call, loss);
                    self.resync(out);
                    (call, true)
                }
            };
            let Some(index) = self.flying.iter().position(|flying| flying.0 == call) else {
                continue;
            };
            let (_, job, repeats) = self.flying.swap_remove(index);
            if let Job::Other(Ask::Response {
                driver, accept: true, ..
            }) = job
                && !again
                && self.habits.rereads > 0
                && self.rng.chance(self.habits.rereads)
            {
                self.start(Job::Other(Ask::DriverView(driver)), 0, out);
            }
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
            Input::Closed(conn) => self.lines.closed(conn, &mut fates),
            Input::Refused(conn) | Input::Reset(conn) => self.lines.over(conn, &mut fates),
        }
        self.fates(fates, out);
    }
}
