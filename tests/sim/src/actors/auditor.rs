//! The auditor: once everything has come to rest it reads every audit, view, record and event, until all of it was
//! answered.

use super::Hours;
use super::http::{Fate, Lines};
use crate::client::{Action, Actor, Conn, Input};
use crate::codec::http;
use crate::rng::Rng;
use crate::witness::{Ask, Next, Shared};
use std::collections::VecDeque;

/// Calls under way at once.
const FLYING_MAX: usize = 16;
/// Events of a page.
const PAGE_MAX: u64 = 500;

#[derive(Clone, Debug)]
enum Read {
    Audit(u32),
    View(u32),
    Driver(u32),
    /// A driver's records of the day with this place in the list of days, from where a page ended.
    Records(u32, usize, Option<String>),
    /// Of this node, after this cursor.
    Events(u8, u64),
    Ready,
    Alive,
}

/// See the module.
#[derive(Debug)]
pub struct Auditor {
    witness: Shared,
    rng: Rng,
    hours: Hours,
    drivers: u32,
    lines: Lines,
    /// Events are each node's own.
    of_node: Vec<Lines>,
    waiting: VecDeque<Read>,
    flying: Vec<(u32, Read)>,
    days: Vec<u64>,
    /// Records come after the audits, which say for which days.
    records_asked: bool,
    done: bool,
}

impl Auditor {
    /// The auditor of a run with so many drivers.
    pub fn new(drivers: u32, nodes: u8, witness: Shared, rng: Rng, hours: Hours) -> Self {
        Self {
            witness,
            rng,
            hours,
            drivers,
            lines: Lines::new(2),
            of_node: (0..nodes).map(|node| Lines::at(node, 1)).collect(),
            waiting: VecDeque::new(),
            flying: Vec::new(),
            days: Vec::new(),
            records_asked: false,
            done: false,
        }
    }

    /// Whose connection this is.
    fn of(&mut self, conn: Conn) -> &mut Lines {
        match self.of_node.iter_mut().find(|lines| lines.has(conn)) {
            Some(lines) => lines,
            None => &mut self.lines,
        }
    }

    fn begin(&mut self) {
        for request in 0..self.witness.borrow().requests_len() {
            self.waiting.push_back(Read::Audit(request));
            self.waiting.push_back(Read::View(request));
        }
        self.waiting.extend((0..self.drivers).map(Read::Driver));
        let nodes = self.of_node.len() as u8;
        self.waiting.extend((0..nodes).map(|node| Read::Events(node, 0)));
        self.waiting.extend([Read::Ready, Read::Alive]);
    }

    fn go_on(&mut self, now_us: u64, out: &mut Vec<Action>) {
        while self.flying.len() < FLYING_MAX
            && let Some(read) = self.waiting.pop_front()
        {
            let ask = match &read {
                Read::Audit(request) => Ask::Audit(*request),
                Read::View(request) => Ask::View(*request),
                Read::Driver(driver) => Ask::DriverView(*driver),
                Read::Records(driver, ..) => Ask::Records(*driver),
                Read::Ready => Ask::Ready,
                Read::Alive => Ask::Alive,
                Read::Events(node, after) => Ask::Events {
                    node: *node,
                    after: Some(*after),
                    consumer: None,
                    wait_ms: 0,
                    limit: PAGE_MAX,
                },
            };
            let target = self.target(&read);
            let mut bytes = Vec::new();
            http::request(&mut bytes, "GET", &target, None);
            let call = self.witness.borrow_mut().at(now_us).called("auditor", ask, 0);
            self.flying.push((call, read));
            let lines = match &self.flying.last() {
                Some((_, Read::Events(node, _))) => &mut self.of_node[usize::from(*node)],
                _ => &mut self.lines,
            };
            lines.send(call, bytes, &self.witness, &mut self.rng, out);
        }
        if self.flying.is_empty() && self.waiting.is_empty() && !self.done {
            if self.records_asked {
                self.done = true;
                self.witness.borrow_mut().at(now_us).audit_done();
            } else {
                self.records_asked = true;
                self.days = self.witness.borrow().days();
                if !self.days.is_empty() {
                    self.waiting
                        .extend((0..self.drivers).map(|driver| Read::Records(driver, 0, None)));
                }
                self.go_on(now_us, out);
            }
        }
    }

    fn target(&self, read: &Read) -> String {
        let witness = self.witness.borrow();
        match read {
            Read::Audit(request) => format!("/v1/dispatch/audit/{}", witness.ids.request(*request)),
            Read::View(request) => format!("/v1/dispatch/request/{}", witness.ids.request(*request)),
            Read::Driver(driver) => format!("/v1/drivers/{}", witness.ids.driver(*driver)),
            Read::Records(driver, day, before) => {
                let mut target = format!(
                    "/v1/drivers/{}/records?date={}&limit={}",
                    witness.ids.driver(*driver),
                    date(self.days[*day]),
                    // Short pages, so that they are turned.
                    1 + (driver + 7) % 40,
                );
                if let Some(before) = before {
                    target.push_str("&before=");
                    target.push_str(before);
                }
                target
            }
            Read::Ready => "/readyz".to_owned(),
            Read::Alive => "/healthz".to_owned(),
            Read::Events(_, after) => format!("/v1/events?after={after}&limit={PAGE_MAX}"),
        }
    }

    fn fate(&mut self, fate: Fate, now_us: u64, out: &mut Vec<Action>) {
        let (call, next) = match fate {
            Fate::Answered(call, next) => (call, next),
            Fate::Lost(call, loss) => {
                self.witness.borrow_mut().at(now_us).lost(call, loss);
                (call, Next::Again)
            }
        };
        let Some(index) = self.flying.iter().position(|flying| flying.0 == call) else {
            return;
        };
        let (_, read) = self.flying.swap_remove(index);
        match (next, read) {
            (Next::Again, read) => {
                self.waiting.push_back(read);
                let at_us = now_us + self.rng.between(10_000, 400_000);
                return out.push(Action::Wake { at_us, token: 1 });
            }
            (Next::Records(next_before), Read::Records(driver, day, _)) => {
                if next_before.is_some() {
                    self.waiting.push_back(Read::Records(driver, day, next_before));
                } else if day + 1 < self.days.len() {
                    self.waiting.push_back(Read::Records(driver, day + 1, None));
                }
            }
            (Next::Page(1.., Some(last)), Read::Events(node, _)) => self.waiting.push_back(Read::Events(node, last)),
            _ => {}
        }
        self.go_on(now_us, out);
    }
}

impl Actor for Auditor {
    fn on(&mut self, input: Input<'_>, now_us: u64, out: &mut Vec<Action>) {
        let mut fates = Vec::new();
        match input {
            Input::Start => {
                let at_us = self.hours.audit_us;
                out.push(Action::Wake { at_us, token: 0 });
            }
            Input::Timer(0) => {
                self.begin();
                self.go_on(now_us, out);
            }
            Input::Timer(_) => self.go_on(now_us, out),
            Input::Opened(_) => {}
            Input::Bytes(conn, bytes) => {
                let witness = self.witness.clone();
                self.of(conn).bytes(conn, bytes, &witness, now_us, &mut fates, out);
            }
            Input::HalfClosed(conn) => self.of(conn).half_closed(conn, &mut fates, out),
            Input::Closed(conn) => self.of(conn).closed(conn, &mut fates),
            Input::Refused(conn) | Input::Reset(conn) => self.of(conn).over(conn, &mut fates),
        }
        for fate in fates {
            self.fate(fate, now_us, out);
        }
    }
}

/// A Unix day as `YYYY-MM-DD` (Hinnant's `civil_from_days`).
fn date(day: u64) -> String {
    let days = day as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates() {
        for (day, expect) in [
            (0, "1970-01-01"),
            (11_016, "2000-02-29"),
            (20_453, "2025-12-31"),
            (20_454, "2026-01-01"),
        ] {
            assert_eq!(date(day), expect);
        }
    }
}
