//! Who is there: from when to when a driver can be offered for certain, and when it cannot. What callers are shown and
//! whom the node refuses is held against that.
//!
//! A driver is there from its welcome on, until its socket is lost and `driver_ttl_ms` have passed. A client hears of a
//! loss later than the node, by what anything may be under way; so much is left out at every end.

use super::audits::{Life, Tried};
use super::calls::{Ask, Call};
use super::last::END_MS_MAX;
use super::state::{Posted, Span, ways};
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::codec::answers::DriverView;
use crate::codec::audit::{Entry, Why};
use crate::ids::{Driver, Offer, Request};
use crate::words::{DriverState, Step};

impl Witness {
    /// How long after one end of a connection the other one may still be in use, milliseconds.
    pub(super) fn late_ms(&self) -> u64 {
        3 * self.expect.order_margin_ms
    }

    /// A driver is welcomed on this socket, by the boot that serves.
    pub(super) fn span_begins(&mut self, driver: Driver, conn: u32) {
        let from_ms = self.node_ms_at(self.now_us);
        self.drivers[driver as usize].spans.push(Span {
            conn,
            from_ms,
            lost_ms: u64::MAX,
            until_ms: u64::MAX,
        });
    }

    /// The socket is over, or about to be, or nobody knows any more how it fares.
    pub(super) fn span_ends(&mut self, driver: Driver, conn: u32) {
        let lost_ms = self.node_ms_at(self.now_us);
        let spans = &mut self.drivers[driver as usize].spans;
        if let Some(span) = spans.iter_mut().rev().find(|span| span.conn == conn) {
            span.lost_ms = span.lost_ms.min(lost_ms);
        }
    }

    /// The node is gone: nobody is there until it connects again.
    pub(super) fn spans_end(&mut self) {
        let until_ms = self.node_ms_at(self.now_us);
        for span in self.drivers.iter_mut().flat_map(|driver| driver.spans.iter_mut().rev()) {
            if span.until_ms == u64::MAX {
                span.until_ms = until_ms;
            }
        }
    }

    /// Whether the driver was there, on shift as far as it knows, all the time between these, node time.
    fn was_there(&self, driver: Driver, from_ms: u64, to_ms: u64) -> bool {
        let seen = &self.drivers[driver as usize];
        let ends_ms = |span: &Span| {
            let kept_ms = self.expect.driver_ttl_ms;
            let left_ms = span.lost_ms.saturating_sub(self.late_ms()).saturating_add(kept_ms);
            left_ms.min(span.until_ms)
        };
        // Times that came twice say nothing of who was there. Nor does the millisecond of the welcome: it may have come after what was asked.
        !self.node.came_twice(from_ms)
            && !self.node.came_twice(to_ms)
            && !seen.off_spans.iter().any(|off| off.0 <= to_ms && from_ms <= off.1)
            && seen
                .spans
                .iter()
                .any(|span| span.from_ms < from_ms && to_ms < ends_ms(span))
    }

    /// A driver is shown.
    pub(super) fn driver_view_answered(&mut self, call: &Call, view: DriverView) {
        let driver = view.driver;
        self.drivers[driver as usize].viewed = true;
        let ok = matches!(view.state, DriverState::EnRoute | DriverState::OnTrip) == view.trip.is_some()
            && (view.offer.is_none() || view.state == DriverState::Offered)
            && view.offer.is_none_or(|offer| {
                self.requests
                    .get(offer.request as usize)
                    .is_some_and(|seen| seen.posted & (1 << driver) != 0)
            });
        if !self.holds(Check::ViewsMatch, ok) {
            return self.violate(
                Check::ViewsMatch,
                About::driver(driver),
                format!("d{driver} is shown wrong: {view:?}"),
            );
        }
        if let (DriverState::EnRoute, Some(trip)) = (view.state, view.trip) {
            let told_us = self.trip_seen(trip).on_trip_us;
            let ok = self.is_fleet() || told_us.is_none_or(|told_us| told_us >= call.sent_us);
            if !self.holds(Check::ViewsMatch, ok) {
                let text =
                    format!("d{driver} was told that it is on trip {trip}, and is shown on its way to the pickup");
                return self.violate(Check::ViewsMatch, About::driver(driver), text);
            }
        }
        if let Some(trip) = view.trip {
            let ended = self.trip_seen(trip).cancelled;
            let whose = self.trip_seen(trip).driver;
            if !self.holds(Check::ViewsMatch, whose.is_none_or(|whose| whose == driver)) {
                let text = format!("d{driver} is shown with the trip of {whose:?}, ended {ended}");
                self.violate(Check::ViewsMatch, About::driver(driver), text);
            }
        }
        if let Some(offer) = view.offer.filter(|_| !self.is_fleet()) {
            self.learn_attempt(offer, driver);
        }
        self.view_shows(call, &view);
        self.view_tells(call, &view);
        self.view_of_shift(call, &view);
    }

    /// A driver is shown: not as available when it has long been gone, nor as gone when it is there.
    fn view_shows(&mut self, call: &Call, view: &DriverView) {
        let (now_us, late_us) = (self.now_us, self.late_ms() * 1_000);
        let booted_us = self.node.boots.last().map_or(0, |boot| boot.1);
        let (sent_ms, now_ms) = (self.node_ms_at(call.sent_us), self.node_ms_at(now_us));
        let ttl_us = self.expect.driver_ttl_ms * 1_000;
        let is_fleet = self.is_fleet();
        let seen = &mut self.drivers[view.driver as usize];
        // Nothing of it was under way when the call was sent, and it has opened no socket until now.
        let quiet = seen.sockets.is_empty() && call.opened == seen.opened && seen.lost_us + late_us < call.sent_us;
        match view.state {
            DriverState::Offline => {
                if quiet {
                    seen.shown_gone = Some((seen.opened, now_us));
                }
                seen.gone_views.push((sent_ms, now_ms));
            }
            DriverState::Available if quiet && !is_fleet => {
                let gone = seen.shown_gone;
                let again = gone.is_some_and(|(opened, at_us)| opened == call.opened && at_us < call.sent_us);
                let over = seen.lost_us + ttl_us + late_us < call.sent_us;
                let restarted = seen.lost_us < booted_us;
                let why = match (seen.opened, again, over, restarted) {
                    (0, ..) => "never came",
                    (_, true, ..) => "was shown as offline",
                    (_, _, true, _) => "lost its last socket long ago",
                    (.., true) => "has not come since the node started",
                    _ => "",
                };
                if !self.holds(Check::ViewsMatch, why.is_empty()) {
                    let text = format!("d{} is available, and {why}", view.driver);
                    self.violate(Check::ViewsMatch, About::driver(view.driver), text);
                }
            }
            _ => {}
        }
    }

    /// At the end: nobody was refused, or shown as offline, who could have been offered.
    pub(super) fn check_presence(&mut self, lives: &[Option<Life>]) {
        // Which node a driver is at, others know as far as the registry and the links reach (design.md, section 5).
        let whole_ms = match self.whole_since_us().map(|since_us| self.latest_ms_at(since_us)) {
            _ if !self.is_fleet() => 0,
            None => return,
            Some(whole_ms) => whole_ms,
        };
        for driver in 0..self.drivers.len() as Driver {
            let views = std::mem::take(&mut self.drivers[driver as usize].gone_views);
            for (sent_ms, now_ms) in views.into_iter().filter(|(sent_ms, _)| *sent_ms >= whole_ms) {
                let there = self.was_there(driver, sent_ms, now_ms);
                if !self.holds(Check::ViewsMatch, !there) {
                    let text = format!("d{driver} is shown as offline at {now_ms}, and is there");
                    return self.violate(Check::ViewsMatch, About::driver(driver), text);
                }
            }
        }
        for request in 0..lives.len() as Request {
            let Some(audit) = self.requests[request as usize].audit.clone() else {
                continue;
            };
            let refused = |entry: &&Entry| entry.step == Step::Refused && entry.at_ms >= whole_ms;
            for entry in audit.entries.iter().filter(refused) {
                self.check_refusal(request, entry, lives);
            }
            let tried = lives[request as usize].iter().flat_map(|life| &life.tried);
            for (attempt, tried) in (1..).zip(tried).filter(|(_, tried)| tried.sent_at_ms >= whole_ms) {
                self.check_was_there(Offer { request, attempt }, tried);
            }
        }
    }

    /// Whether another request had an offer out to the driver, or may have reserved it without anybody seeing. Only one that
    /// waits for busy drivers reserves them before it offers, and lets go of one only over what its audit tells: another
    /// driver's offer, its own end, new candidates. In a fleet a node that takes a repeat for a new request does so too, and lets go when
    /// it finds whose that is.
    fn may_be_held(
        &self,
        request: Request,
        bit: u64,
        lives: &[Option<Life>],
        is_then: &impl Fn(u64, u64) -> bool,
    ) -> bool {
        let is_repeated_then = |call: &Call| {
            let Ask::Offer(other) = call.ask else { return false };
            let mut asked = self.requests[other as usize].asked.iter();
            other != request
                && call.candidates & bit != 0
                && asked.any(Posted::asks_first)
                && is_then(
                    self.earliest_ms_at(call.sent_us),
                    self.latest_ms_at(call.sent_us + SLACK_US),
                )
        };
        if self.is_fleet() && self.calls.iter().any(is_repeated_then) {
            return true;
        }
        (0..).zip(lives).any(|(other, life): (Request, _)| {
            let Some(life) = life.as_ref().filter(|_| other != request) else {
                return false;
            };
            let end_ms = life.end.map_or(u64::MAX, |end| end.1);
            if self.requests[other as usize].posted & bit == 0 || !is_then(life.received_at_ms, end_ms) {
                return false;
            }
            let acts_then = || {
                let audit = self.requests[other as usize].audit.as_ref();
                audit.is_some_and(|audit| audit.entries.iter().any(|entry| is_then(entry.at_ms, entry.at_ms)))
            };
            let unseen = life.asks_first && acts_then();
            // An offer holds its driver until its end is written down.
            let holds = |tried: &Tried| {
                let ended_ms = if tried.way == ways::OPEN {
                    u64::MAX
                } else {
                    tried.ended_at_ms + self.noting_ms()
                };
                1 << tried.driver == bit && tried.expires_at_ms > 0 && is_then(tried.sent_at_ms, ended_ms)
            };
            unseen || life.tried.iter().any(holds)
        })
    }

    /// Whose offer times out was there, or a moment ago: who is not refuses it in a moment (protocol.md, section 2: "may be offered; the
    /// offer waits for the reconnect; then it is `offline`").
    fn check_was_there(&mut self, offer: Offer, tried: &Tried) {
        let (driver, at_ms) = (tried.driver, tried.sent_at_ms);
        let early_ms = self.late_ms() + self.expect.inside_margin_ms;
        let calm_ms = self
            .calm_since_us()
            .map(|over_us| self.latest_ms_at(over_us + SLACK_US));
        let is_calm = calm_ms.is_some_and(|calm_ms| calm_ms < at_ms);
        let refuses_ms = at_ms + early_ms + if is_calm { END_MS_MAX } else { SLACK_US / 1_000 };
        if tried.way != ways::TIMED_OUT || tried.ended_at_ms < refuses_ms || self.node.is_end_near(at_ms, refuses_ms) {
            return;
        }
        let late_ms = early_ms + self.expect.driver_ttl_ms;
        // Of a clock that was moved, whichever time it may have been.
        let may_be_there = |stay: &(u32, u64, u64)| {
            let over_ms = self.latest_ms_at(stay.2.min(self.now_us)) + late_ms;
            self.earliest_ms_at(stay.1) <= at_ms + early_ms && at_ms <= over_ms
        };
        let ok = self.drivers[driver as usize].stays.iter().any(may_be_there);
        if !self.holds(Check::Caused, ok) {
            let text = format!("{offer} is made at {at_ms} to d{driver}, which was not there");
            self.violate(Check::Caused, About::both(offer.request, driver), text);
        }
    }

    fn check_refusal(&mut self, request: Request, entry: &Entry, lives: &[Option<Life>]) {
        let Some(driver) = entry.driver else { return };
        let (bit, inside_ms) = (1 << driver, self.expect.inside_margin_ms);
        // What a start resumes is refused in a start that takes its time, and what holds the driver may end meanwhile; but not when the
        // node has long been ready again.
        let sent_ms = lives[request as usize]
            .as_ref()
            .and_then(|life| life.tried.get((entry.attempt as usize).checked_sub(1)?))
            .map_or(entry.at_ms, |tried| tried.sent_at_ms);
        let resumed = |&(ended_ms, again_ms): &(u64, u64)| {
            (sent_ms..=entry.at_ms).contains(&ended_ms) && entry.at_ms <= again_ms.saturating_add(self.noting_ms())
        };
        let since_ms = self.node.ends().rfind(resumed).map(|(ended_ms, _)| ended_ms);
        let from_ms = since_ms
            .unwrap_or(entry.at_ms)
            .min(entry.at_ms.saturating_sub(inside_ms));
        let to_ms = entry.at_ms + inside_ms;
        if self.node.may_be_of_a_start(entry.at_ms) || self.node.came_twice(from_ms) || self.node.came_twice(to_ms) {
            return;
        }
        let is_then = |begun_ms: u64, end_ms: u64| begun_ms <= to_ms && from_ms <= end_ms;
        let cause = match entry.why {
            Why::Offline => !self.was_there(driver, entry.at_ms.saturating_sub(self.late_ms()), entry.at_ms),
            Why::Offered => self.node.is_end_near(from_ms, to_ms) || self.may_be_held(request, bit, lives, &is_then),
            // A trip binds its driver until its end is written down.
            Why::Trip => lives.iter().flatten().filter_map(|life| life.trip).any(|trip| {
                let end_ms = trip.ended.map_or(u64::MAX, |ended| ended.0 + self.noting_ms());
                trip.driver == driver && is_then(trip.created_at_ms, end_ms)
            }),
            _ => true,
        };
        if !self.holds(Check::Caused, cause) {
            let text = format!(
                "r{request}#{} was refused at {} by d{driver}, which was free: {:?}",
                entry.attempt, entry.at_ms, entry.why
            );
            self.violate(Check::Caused, About::both(request, driver), text);
        }
    }
}
