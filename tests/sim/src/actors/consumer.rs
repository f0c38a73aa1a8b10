//! A consumer of `GET /v1/events`, with a name and acknowledgements or without.

use super::Hours;
use super::http::{Fate, Lines};
use crate::client::{Action, Actor, Input};
use crate::codec::http;
use crate::rng::Rng;
use crate::witness::{Ask, Next, Shared};
use std::fmt::Write as _;

/// See the module.
#[derive(Debug)]
pub struct Consumer {
    number: u32,
    named: bool,
    /// Of a fleet: whose events it reads.
    node: u8,
    witness: Shared,
    rng: Rng,
    hours: Hours,
    lines: Lines,
    /// Where it has read to.
    read: u64,
    acked: u64,
    polling: Option<u32>,
    acking: Option<(u32, u64)>,
}

impl Consumer {
    /// A consumer with a number; without a name it keeps its cursor itself.
    pub fn new(number: u32, named: bool, node: u8, witness: Shared, rng: Rng, hours: Hours) -> Self {
        Self {
            number,
            named,
            node,
            witness,
            rng,
            hours,
            lines: Lines::at(node, 2),
            read: 0,
            acked: 0,
            polling: None,
            acking: None,
        }
    }

    fn poll(&mut self, now_us: u64, out: &mut Vec<Action>) {
        if self.polling.is_some() {
            return;
        }
        // A named consumer reads on where it stopped, or asks the node where that was.
        let after = (!self.named || self.rng.chance(700)).then_some(self.read);
        let consumer = self.named.then_some(self.number);
        let wait_ms = if now_us < self.hours.close_us && self.rng.chance(500) {
            let most_ms = *self.rng.pick(&[3_000, 25_000]);
            self.rng.between(1, most_ms)
        } else {
            0
        };
        let limit = self.rng.between(1, 60);
        let mut target = format!("/v1/events?wait_ms={wait_ms}&limit={limit}");
        if let Some(after) = after {
            let _ = write!(target, "&after={after}");
        }
        if let Some(consumer) = consumer {
            let _ = write!(target, "&consumer=consumer-{consumer}");
        }
        let mut bytes = Vec::new();
        http::request(&mut bytes, "GET", &target, None);
        let call = self.witness.borrow_mut().at(now_us).called(
            "consumer",
            Ask::Events {
                node: self.node,
                after,
                consumer,
                wait_ms,
                limit,
            },
            0,
        );
        self.polling = Some(call);
        self.lines.send(call, bytes, &self.witness, &mut self.rng, out);
    }

    fn acknowledge(&mut self, now_us: u64, out: &mut Vec<Action>) {
        if !self.named || self.acking.is_some() || self.read <= self.acked || self.rng.chance(600) {
            return;
        }
        // Now and then an older one, which changes nothing.
        let cursor = if self.acked > 0 && self.rng.chance(150) {
            self.rng.between(1, self.acked)
        } else {
            self.rng.between(self.acked + 1, self.read)
        };
        let consumer = self.number;
        let body = format!("{{\"consumer\":\"consumer-{consumer}\",\"cursor\":{cursor}}}");
        let mut bytes = Vec::new();
        http::request(&mut bytes, "POST", "/v1/events/ack", Some(body.as_bytes()));
        let call = self.witness.borrow_mut().at(now_us).called(
            "consumer",
            Ask::Acknowledge {
                node: self.node,
                consumer,
                cursor,
            },
            0,
        );
        self.acking = Some((call, cursor));
        self.lines.send(call, bytes, &self.witness, &mut self.rng, out);
    }

    fn fate(&mut self, fate: Fate, now_us: u64, out: &mut Vec<Action>) {
        let (call, next) = match fate {
            Fate::Answered(call, next) => (call, Some(next)),
            Fate::Lost(call, loss) => {
                self.witness.borrow_mut().at(now_us).lost(call, loss);
                (call, None)
            }
        };
        if self.polling == Some(call) {
            self.polling = None;
            if let Some(Next::Page(_, Some(last))) = next {
                self.read = self.read.max(last);
            }
            let soon = matches!(next, Some(Next::Page(1.., _)));
            let pause_ms = if soon { 20 } else { 500 };
            self.wake(now_us, pause_ms, out);
        } else if let Some((_, cursor)) = self.acking.filter(|acking| acking.0 == call) {
            self.acking = None;
            if next == Some(Next::Done) {
                self.acked = self.acked.max(cursor);
            }
        }
    }

    fn wake(&mut self, now_us: u64, most_ms: u64, out: &mut Vec<Action>) {
        if now_us < self.hours.audit_us {
            let at_us = now_us + self.rng.between(1_000, most_ms * 1_000);
            out.push(Action::Wake { at_us, token: 0 });
        }
    }
}

impl Actor for Consumer {
    fn on(&mut self, input: Input<'_>, now_us: u64, out: &mut Vec<Action>) {
        let mut fates = Vec::new();
        match input {
            Input::Start => self.wake(now_us, 1_000, out),
            Input::Timer(_) => {
                self.acknowledge(now_us, out);
                self.poll(now_us, out);
            }
            Input::Opened(_) => {}
            Input::Bytes(conn, bytes) => self.lines.bytes(conn, bytes, &self.witness, now_us, &mut fates, out),
            Input::HalfClosed(conn) => self.lines.half_closed(conn, &mut fates, out),
            Input::Closed(conn) => self.lines.closed(conn, &mut fates),
            Input::Refused(conn) | Input::Reset(conn) => self.lines.over(conn, &mut fates),
        }
        for fate in fates {
            self.fate(fate, now_us, out);
        }
    }
}
