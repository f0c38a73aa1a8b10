//! Waits for busy drivers (`busy_wait_ms`): as long as asked for, and only while nobody else is free.

use super::Witness;
use super::audits::{Life, Rest, Tried};
use super::state::{Span, ways};
use crate::checks::{About, Check};
use crate::ids::{Driver, Request};

impl Witness {
    /// At the end: requests waited for busy drivers, neither too long nor in vain.
    pub(super) fn check_waits(&mut self, lives: &[Option<Life>]) {
        for (request, life) in (0..).zip(lives) {
            let Some(life) = life else { continue };
            self.check_asked_first(request, life);
            self.check_wait_ends(request, life);
            for rest in &life.rests {
                self.check_nobody_free(request, rest, lives);
            }
        }
    }

    /// Who was asked first and said to be free is not offered something in vain.
    fn check_asked_first(&mut self, request: Request, life: &Life) {
        for (sent_ms, refused_ms) in &life.asked_in_vain {
            let unclear = self.is_fleet() || !self.is_in_one_boot(*sent_ms, *refused_ms);
            if !self.holds(Check::Caused, unclear) {
                let text = format!("r{request} asks first, and a busy driver got its offer of {sent_ms}");
                return self.violate(Check::Caused, About::request(request), text);
            }
        }
    }

    /// Once faults are over, a busy driver is refused when the wait is over, and the search goes on.
    fn check_wait_ends(&mut self, request: Request, life: &Life) {
        let Some(over_us) = self.calm_since_us() else { return };
        let (over_ms, late_ms) = (self.latest_ms_at(over_us), self.late_ms());
        let rests = life
            .rests
            .iter()
            .map(|rest| (rest.until_ms.max(rest.from_ms), rest.to_ms));
        for (until_ms, at_ms) in life.waited.iter().copied().chain(rests) {
            let late = at_ms > until_ms.max(over_ms) + late_ms;
            if !self.holds(Check::EndsInTime, !late) {
                let text = format!("r{request} waited for a busy driver until {at_ms}, and was to until {until_ms}");
                return self.violate(Check::EndsInTime, About::request(request), text);
            }
        }
    }

    /// Nobody who was left was free all the time that the request waited (protocol.md, section 2: "when no other candidate is free").
    fn check_nobody_free(&mut self, request: Request, rest: &Rest, lives: &[Option<Life>]) {
        let Some(over_us) = self.calm_since_us() else { return };
        let (over_ms, late_ms) = (self.latest_ms_at(over_us), self.late_ms());
        let (from_ms, to_ms) = (rest.from_ms.max(over_ms).saturating_sub(late_ms), rest.to_ms);
        // Long enough that whoever was free was asked, and the answer noted.
        if to_ms <= from_ms + 2 * late_ms || self.expect.may_drain || !self.is_in_one_boot(from_ms, to_ms) {
            return;
        }
        let free = |driver: &&Driver| self.was_free(**driver, from_ms, to_ms, lives);
        let free = rest.candidates.iter().find(free).copied();
        if !self.holds(Check::Caused, free.is_none()) {
            let driver = free.unwrap_or_default();
            let text = format!("r{request} waits from {from_ms} to {to_ms} for a busy driver, and d{driver} is free");
            self.violate(Check::Caused, About::both(request, driver), text);
        }
    }

    /// Whether the driver was connected, on shift and nobody's, for certain, all the time between these, node time.
    fn was_free(&self, driver: Driver, from_ms: u64, to_ms: u64, lives: &[Option<Life>]) -> bool {
        let seen = &self.drivers[driver as usize];
        let connected = |span: &Span| span.from_ms <= from_ms && to_ms < span.lost_ms.min(span.until_ms);
        let is_then = |begun_ms: u64, end_ms: u64| begun_ms <= to_ms && from_ms <= end_ms;
        seen.spans.iter().any(connected)
            && !seen.off_spans.iter().any(|off| is_then(off.0, off.1))
            && !(0..).zip(lives).any(|(other, life): (Request, _)| match life {
                Some(life) => self.may_have(other, life, driver, &is_then),
                None => self.requests[other as usize].posted & (1 << driver) != 0,
            })
    }

    /// Whether this request may have had the driver then: by an offer, by a trip, or reserved without anybody seeing it, by one that
    /// asks its drivers first.
    fn may_have(&self, request: Request, life: &Life, driver: Driver, is_then: &impl Fn(u64, u64) -> bool) -> bool {
        let noted_ms = |way: u8, at_ms: u64| {
            if way == ways::OPEN {
                u64::MAX
            } else {
                at_ms + self.late_ms()
            }
        };
        let offered =
            |tried: &Tried| tried.driver == driver && is_then(tried.sent_at_ms, noted_ms(tried.way, tried.ended_at_ms));
        let bound = life.trip.is_some_and(|trip| {
            let end_ms = trip.ended.map_or(u64::MAX, |ended| ended.0 + self.late_ms());
            trip.driver == driver && is_then(trip.created_at_ms, end_ms)
        });
        let seen = &self.requests[request as usize];
        let wants = life.asks_first && seen.posted & (1 << driver) != 0;
        let acts = |audit: &crate::codec::audit::Audit| {
            let late_ms = self.late_ms();
            let near = |at_ms: u64| is_then(at_ms.saturating_sub(late_ms), at_ms + late_ms);
            audit.entries.iter().any(|entry| near(entry.at_ms))
        };
        let reserves = wants && seen.audit.as_deref().is_some_and(acts);
        bound || reserves || life.tried.iter().any(offered)
    }
}
