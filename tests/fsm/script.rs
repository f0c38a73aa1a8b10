//! `check(scenario, expect)`: a small world and the transcript of what happens in it. Lines of the transcript that
//! begin with `>` are events, the lines after each are what the actors make of it, until nothing moves any more. After
//! `>>` that is left out: what leads to the situation, and is shown elsewhere.
//!
//! The API:      `POST r1 d1,d2 parallel=2 busy=5000 premium …`, `MISPOST r1` (again, with a body that is no offer),
//!               `ACCEPT r1 d1 [attempt]`, `DECLINE r1 d1 [attempt]`, `CANCEL r1 [reason]`, `END r1 [reason]` (its trip)
//! A driver:     `d1 connects`, `drops` (or `drops 1`: that session), `reads` (all was written to its socket), `speaks`, `ACK r1/1`, `ACCEPT r1/1`,
//!               `DECLINE r1/1 [reason]`, `STATE offline`, `TRIP r1 pickup`
//! Time:         `at 8000` (each timer at its time), `late 8000` (no timer fires), `timers` (those that are late do)
//! Durability:   `hold commits`, `commit` (one record), `free commits`, `fence r1`, `crash [records that survive]`,
//!               `crash early 50` (drivers are heard so long before their requests go on)
//! Channels:     `hold r1>d1`, `pass r1>d1` (one letter), `free r1>d1`, `stray d1>r1 busy` (a letter that nobody sent)

use crate::world::{BEGIN_MS, Node, Show, World};
use dispatchd::fsm::driver::{DriverEvent, DriverLimits};
use dispatchd::fsm::fold::{Outcome, TripPhase};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::request::{Answer, Asker, RequestEvent, ToDriver, TripMove, Unfit};
use dispatchd::fsm::types::{OfferRequest, Priority, RefuseReason, TripOutcome};
use std::collections::BTreeSet;

/// Timers that fire for one event, at most: more is an actor that wakes itself for ever.
const FIRED_MAX: usize = 1_000;

/// The limits of every scenario, the contract's.
pub const LIMITS: DriverLimits = DriverLimits {
    heartbeat_ms: 30_000,
    driver_ttl_ms: 60_000,
    off_shift_memory_ms: 12 * 3_600_000,
    age_step_ms: 2_000,
};

/// `scenario` names the drivers that are connected at the beginning.
pub fn check(scenario: &str, expect: &str) {
    let mut stage = Stage::new(scenario);
    for line in expect.lines().map(str::trim) {
        if let Some(event) = line.strip_prefix(">> ") {
            stage.play(event);
            stage.lines.truncate(stage.shown);
            stage.lines.push(line.to_owned());
            stage.shown += 1;
        } else if let Some(event) = line.strip_prefix("> ") {
            stage.lines.push(line.to_owned());
            stage.play(event);
            stage.shown = stage.lines.len();
        }
    }
    let expect: Vec<_> = expect.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if stage.lines != expect {
        let first = stage.lines.iter().zip(&expect).position(|(a, b)| a != b);
        let first = first.unwrap_or(stage.lines.len().min(expect.len()));
        let other = expect.get(first).unwrap_or(&"the end");
        let lines = stage.lines.join("\n");
        panic!(
            "line {} of the transcript is not \"{other}\"; it is:\n{lines}\n",
            first + 1
        );
    }
}

struct Stage {
    world: World,
    show: Show,
    lines: Vec<String>,
    /// How many of the lines stay.
    shown: usize,
    /// Channels (`from>to`) and `commits` that wait for the script.
    held: BTreeSet<String>,
}

impl Stage {
    fn new(scenario: &str) -> Self {
        let mut stage = Self {
            world: World::new(LIMITS),
            show: Show::default(),
            lines: Vec::new(),
            shown: 0,
            held: BTreeSet::new(),
        };
        for name in scenario.split_whitespace() {
            stage.world.connect(&driver(name));
        }
        stage.note();
        stage.lines.clear();
        stage
    }

    fn play(&mut self, event: &str) {
        let words: Vec<&str> = event.split_whitespace().collect();
        match words[..] {
            ["hold", what] => {
                self.held.insert(what.to_owned());
            }
            ["free", what] => assert!(self.held.remove(what), "{what} was not held"),
            ["pass", channel] => self.pass(channel),
            ["stray", channel, what] => self.stray(channel, what),
            ["commit"] => self.commit(),
            ["fence", request] => self.world.fence(&id(request)),
            ["crash"] => self.crash(0, None),
            ["crash", "early", ms] => self.crash(0, Some(number(ms))),
            ["crash", survivors] => self.crash(number(survivors) as usize, None),
            ["at", ms] => self.advance(BEGIN_MS + number(ms)),
            ["late", ms] => self.world.now_ms = BEGIN_MS + number(ms),
            ["timers"] => self.advance(self.world.now_ms),
            ["POST", request, candidates, ref rest @ ..] => {
                self.world.post(offer(request, candidates, rest));
            }
            ["MISPOST", request] => {
                let (too_large, why) = (false, "no offer".into());
                let (unfit, reply) = (Unfit { too_large, why }, self.world.call());
                self.world
                    .step_request(&id(request), RequestEvent::Misposted { unfit, reply });
            }
            ["ACCEPT", request, name, ref rest @ ..] => self.respond(request, name, Answer::Accept, rest),
            ["DECLINE", request, name, ref rest @ ..] => self.respond(request, name, Answer::Decline, rest),
            ["CANCEL", request, ref rest @ ..] => {
                let (reason, reply) = (reason(rest), self.world.call());
                self.world
                    .step_request(&id(request), RequestEvent::Cancelled { reason, reply });
            }
            ["END", request, ref rest @ ..] => {
                let (reason, reply) = (reason(rest), self.world.call());
                self.world
                    .step_request(&id(request), RequestEvent::TripCancelled { reason, reply });
            }
            [name, verb, ref rest @ ..] => self.driver(&driver(name), verb, rest),
            _ => panic!("not an event: {event}"),
        }
        self.settle();
    }

    fn crash(&mut self, survivors: usize, early: Option<u64>) {
        self.show = Show::default();
        self.world.crash(|_| survivors, |_| {}, early);
    }

    fn driver(&mut self, name: &DriverId, verb: &str, rest: &[&str]) {
        let event = match (verb, rest) {
            ("connects", []) => return self.world.connect(name),
            ("drops", []) => return self.world.disconnect(name),
            ("drops", [session]) => DriverEvent::Disconnected {
                session: number(session),
            },
            ("reads", []) => DriverEvent::Written,
            ("speaks", []) => DriverEvent::Heard,
            ("ACK", [offer]) => {
                let (request_id, attempt) = attempt(offer);
                DriverEvent::Ack { request_id, attempt }
            }
            ("ACCEPT" | "DECLINE", [offer, rest @ ..]) => {
                let (request_id, attempt) = attempt(offer);
                let answer = if verb == "ACCEPT" {
                    Answer::Accept
                } else {
                    Answer::Decline
                };
                let reason = reason(rest);
                DriverEvent::Answer {
                    request_id,
                    attempt,
                    answer,
                    reason,
                }
            }
            ("STATE", [state]) => DriverEvent::SetState {
                available: *state == "available",
            },
            ("TRIP", [request, what]) => {
                let what = match *what {
                    "arrived" => TripMove::Arrived,
                    "pickup" => TripMove::Pickup,
                    "complete" => TripMove::Complete,
                    "cancel" => TripMove::Cancel,
                    other => panic!("not a trip event: {other}"),
                };
                let trip_id = TripId::for_request(&id(request), BEGIN_MS);
                DriverEvent::Trip { trip_id, what }
            }
            _ => panic!("a driver does not {verb} {rest:?}"),
        };
        self.world.step_driver(name, event);
    }

    fn respond(&mut self, request: &str, name: &str, answer: Answer, rest: &[&str]) {
        let event = RequestEvent::Answered {
            driver_id: driver(name),
            attempt: rest.first().map(|attempt| number(attempt) as u32),
            answer,
            reason: None,
            asker: Asker::Api(self.world.call()),
        };
        self.world.step_request(&id(request), event);
    }

    /// Until nothing moves: letters in the order in which they were posted, then commits.
    fn settle(&mut self) {
        self.note();
        while self.deliver() || (!self.held.contains("commits") && self.commits()) {
            self.note();
        }
    }

    fn deliver(&mut self) -> bool {
        let is_free = |from: &str, to: &str| !self.held.contains(&format!("{from}>{to}"));
        let to_drivers = self
            .world
            .to_drivers
            .iter()
            .filter(|((from, to), _)| is_free(from.as_str(), to.as_str()));
        let to_requests = self
            .world
            .to_requests
            .iter()
            .filter(|((from, to), _)| is_free(from.as_str(), to.as_str()));
        let next_driver = to_drivers.map(|(key, mail)| (mail[0].number, key.clone())).min();
        let next_request = to_requests.map(|(key, mail)| (mail[0].number, key.clone())).min();
        match (next_driver, next_request) {
            (None, None) => return false,
            (Some((first, (from, to))), second) if second.as_ref().is_none_or(|second| first < second.0) => {
                self.world.deliver_to_driver(&from, &to);
            }
            (_, Some((_, (from, to)))) => self.world.deliver_to_request(&from, &to),
            (Some(_), None) => unreachable!("the guard took it"),
        }
        true
    }

    fn commits(&mut self) -> bool {
        let waits = self
            .world
            .requests
            .iter()
            .find(|(_, slot)| slot.port.written() > 0)
            .map(|(id, _)| id.clone());
        let Some(id) = waits else { return false };
        self.world.commit(&id);
        true
    }

    fn commit(&mut self) {
        assert!(self.commits(), "nothing waits for a commit");
    }

    fn pass(&mut self, channel: &str) {
        let (from, to) = channel.split_once('>').expect("from>to");
        if from.starts_with('r') {
            self.world.deliver_to_driver(&id(from), &driver(to));
        } else {
            self.world.deliver_to_request(&driver(from), &id(to));
        }
    }

    fn stray(&mut self, channel: &str, what: &str) {
        let (from, to) = channel.split_once('>').expect("from>to");
        if from.starts_with('r') {
            let (request_id, message) = (id(from), to_driver(from, what));
            self.world.step_driver(
                &driver(to),
                DriverEvent::Request {
                    node: 0,
                    request_id,
                    message,
                },
            );
        } else {
            self.world.step_request(&id(to), to_request(driver(from), what));
        }
    }

    fn advance(&mut self, until_ms: u64) {
        for _ in 0..FIRED_MAX {
            self.settle();
            let armed = |at: Option<u64>, node: Node| at.map(|at| (at, node));
            let requests = self
                .world
                .requests
                .iter()
                .filter_map(|(id, slot)| armed(slot.armed, Node::Request(id.clone())));
            let drivers = self
                .world
                .drivers
                .iter()
                .filter_map(|(id, slot)| armed(slot.armed, Node::Driver(id.clone())));
            let Some((at, node)) = requests.chain(drivers).min().filter(|(at, _)| *at <= until_ms) else {
                self.world.now_ms = until_ms;
                return;
            };
            self.world.now_ms = self.world.now_ms.max(at);
            match &node {
                Node::Request(id) => self.show.fired(id.as_str()),
                Node::Driver(id) => self.show.fired(id.as_str()),
            }
            self.world.fire(&node);
        }
        panic!("an actor wakes itself for ever");
    }

    /// Writes down what was seen.
    fn note(&mut self) {
        for seen in std::mem::take(&mut self.world.seen) {
            self.lines.extend(self.show.line(&self.world, &seen));
        }
    }
}

fn id(text: &str) -> RequestId {
    RequestId::parse(text).expect("a request's id")
}

fn driver(text: &str) -> DriverId {
    DriverId::parse(text).expect("a driver's id")
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

fn reason(words: &[&str]) -> Option<Box<str>> {
    (!words.is_empty()).then(|| words.join(" ").into())
}

fn attempt(text: &str) -> (RequestId, u32) {
    let (request, attempt) = text.split_once('/').expect("request/attempt");
    (id(request), number(attempt) as u32)
}

/// A letter of a driver, of attempt 1 or the first ask.
fn to_request(driver_id: DriverId, what: &str) -> RequestEvent {
    let (attempt, ask, reason) = (1, 1, RefuseReason::Offered);
    match what {
        "reserved" => RequestEvent::Reserved { driver_id, ask },
        "busy" => RequestEvent::Busy { driver_id, ask },
        "unavailable" => RequestEvent::Unavailable { driver_id, ask, reason },
        "refused" => RequestEvent::Refused {
            attempt,
            driver_id,
            reason,
        },
        "delivered" => RequestEvent::Delivered { attempt, driver_id },
        "timer" => RequestEvent::Timer,
        other => panic!("not a driver's letter: {other}"),
    }
}

/// A letter of a request, of attempt 1.
fn to_driver(from: &str, what: &str) -> ToDriver {
    match what {
        "release" => ToDriver::Release,
        "timed-out" => ToDriver::Outcome {
            attempt: 1,
            outcome: Outcome::TimedOut,
            trip_id: None,
            again: false,
        },
        "bound" | "bound-on-trip" => ToDriver::Bound {
            attempt: 1,
            trip_id: TripId::for_request(&id(from), BEGIN_MS),
            phase: if what == "bound" {
                TripPhase::EnRoute
            } else {
                TripPhase::OnTrip
            },
        },
        "trip-ended" | "own-trip-ended" => ToDriver::Trip {
            trip_id: TripId::for_request(&id(if what == "trip-ended" { "r9" } else { from }), BEGIN_MS),
            phase: TripPhase::Ended(TripOutcome::Cancelled),
            reason: None,
            again: false,
        },
        other => panic!("not a request's letter: {other}"),
    }
}

fn offer(request: &str, candidates: &str, rest: &[&str]) -> OfferRequest {
    let mut offer = OfferRequest {
        request_id: id(request),
        candidates: candidates.split(',').map(driver).collect(),
        priority: Priority::Standard,
        offer_timeout_ms: None,
        deadline_ms: None,
        max_attempts: None,
        parallel: None,
        busy_wait_ms: None,
        trip: "{}".into(),
    };
    for setting in rest {
        let (key, value) = setting.split_once('=').unwrap_or((setting, "0"));
        let value = number(value) as u32;
        match key {
            "premium" => offer.priority = Priority::Premium,
            "economy" => offer.priority = Priority::Economy,
            "timeout" => offer.offer_timeout_ms = Some(value),
            "deadline" => offer.deadline_ms = Some(value),
            "attempts" => offer.max_attempts = Some(value),
            "parallel" => offer.parallel = Some(value as u8),
            "busy" => offer.busy_wait_ms = Some(value),
            _ => panic!("not a setting: {setting}"),
        }
    }
    offer
}
