//! What a driver is shown to be, beyond its state: when it was last heard, where it is, and at the end what its audits say of it;
//! and what its sockets owe it.

use super::audits::Life;
use super::calls::Call;
use super::state::{Posted, Socket};
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::codec::answers::DriverView;
use crate::codec::messages::{Heard, Say};
use crate::ids::Driver;
use crate::phrases::Place;
use crate::words::{DriverState, Move};

impl Witness {
    /// A driver is shown: what its newest socket said long before it was asked for is known, and nothing else is.
    pub(super) fn view_tells(&mut self, call: &Call, view: &DriverView) {
        let (driver, sent_us) = (view.driver, call.sent_us);
        let seen = &mut self.drivers[driver as usize];
        seen.last_look = Some((sent_us, *view));
        let about = About::driver(driver);
        let was_there = |place: Place| seen.places.iter().any(|said| said.2 == place);
        let ok = view.located.is_none_or(was_there) && view.last_seen_ms <= self.node_ms_max();
        if !self.holds(Check::ViewsMatch, ok) {
            return self.violate(Check::ViewsMatch, about, format!("d{driver} never said so: {view:?}"));
        }
        // Of a fleet the node that is asked may be another one than the driver's.
        if self.may_be_cut_off_at(sent_us) || !self.node.up {
            return;
        }
        // What anybody had heard when it was asked for is shown, unless it may be over since.
        let has_trip = matches!(view.state, DriverState::EnRoute | DriverState::OnTrip);
        let live = call
            .live
            .filter(|live| self.expect.rings_have_room && self.drivers[driver as usize].live == Some(*live))
            // Of a fleet, others hear of it from the request's node before the driver's does.
            .filter(|_| !self.is_fleet());
        if !self.holds(Check::ConfirmedKept, live.is_none() || has_trip) {
            let text = format!("d{driver} has the trip of {live:?}, and is shown without: {view:?}");
            return self.violate(Check::ConfirmedKept, about, text);
        }
        let (late_us, booted_us) = (self.late_ms() * 1_000, self.node.boots.last().map_or(0, |boot| boot.1));
        let seen = &self.drivers[driver as usize];
        let newest = seen.sockets.iter().find(|socket| socket.number == seen.opened);
        let Some(socket) = newest.filter(|socket| socket.is_well() && !socket.babbled) else {
            return;
        };
        // It reached this boot, and was read.
        let heard =
            |at_us: &u64| *at_us > socket.welcomed_us && socket.opened_us > booted_us && at_us + late_us < sent_us;
        let last_us = socket.said_us.iter().copied().find(heard);
        let heard_ms = last_us.map_or(0, |at_us| {
            self.node_ms_at(at_us).saturating_sub(self.expect.order_margin_ms)
        });
        // Where it is now, or has said since.
        let last_said = seen
            .places
            .iter()
            .rposition(|said| said.1 == socket.conn && heard(&said.0));
        let placed = last_said.is_none_or(|last| {
            let mut since = seen.places[last..].iter();
            since.any(|said| view.located == Some(said.2))
        });
        let last_said = last_said.map(|last| seen.places[last]);
        let shown = view.state != DriverState::Offered || view.offer.is_some() || self.may_be_reserved(driver, sent_us);
        if !self.holds(Check::ViewsMatch, shown) {
            let text = format!("d{driver} is shown as offered, and no offer: {view:?}");
            return self.violate(Check::ViewsMatch, about, text);
        }
        if !self.holds(Check::ViewsMatch, view.last_seen_ms >= heard_ms && placed) {
            let text = format!("d{driver} was heard at {heard_ms} and said where it is, {last_said:?}: {view:?}");
            self.violate(Check::ViewsMatch, about, text);
        }
    }

    /// The driver says where it is.
    pub(super) fn place_said(&mut self, driver: Driver, conn: u32, place: Place) {
        let now_us = self.now_us;
        self.drivers[driver as usize].places.push((now_us, conn, place));
    }

    /// At the end, when drivers rest: who has a trip by the audits is shown with it, and nobody else.
    pub(super) fn check_last_looks(&mut self, lives: &[Option<Life>]) {
        let Some(over_us) = self.calm_since_us() else { return };
        for driver in 0..self.drivers.len() as Driver {
            let Some((sent_us, view)) = self.drivers[driver as usize].last_look else {
                continue;
            };
            let trips = lives.iter().flatten().filter_map(|life| life.trip);
            let live = trips.filter(|trip| trip.driver == driver && trip.ended.is_none());
            let live: Vec<_> = live.map(|trip| trip.trip).collect();
            let lately_ms = self.node_ms_at(sent_us).saturating_sub(SLACK_US / 1_000);
            let was_busy = |life: &Life| {
                let ended_ms = life.trip.and_then(|trip| trip.ended).map_or(0, |ended| ended.0);
                ended_ms.max(life.end.map_or(u64::MAX, |end| end.1)) > lately_ms
            };
            // What moved when it was asked for may be seen either way.
            let has_driver = |request: usize| self.requests[request].posted & (1 << driver) != 0;
            let mut about = lives.iter().enumerate().filter(|(request, _)| has_driver(*request));
            let moved = about.any(|(_, life)| life.as_ref().is_some_and(was_busy));
            if over_us + SLACK_US > sent_us || moved {
                continue;
            }
            let is_free = view.trip.is_none() && view.offer.is_none() && view.state != DriverState::Offered;
            let ok = live.len() < 2 && view.trip == live.first().copied() && (is_free || !live.is_empty());
            if !self.holds(Check::ViewsMatch, ok) {
                let text =
                    format!("d{driver} is shown at the end as {view:?}, and by the audits it has the trips {live:?}");
                return self.violate(Check::ViewsMatch, About::driver(driver), text);
            }
        }
    }

    /// `WELCOME` with `offered` is followed by the offer, unless the driver is only reserved for a request that asks first.
    pub(super) fn check_offer_follows(&mut self, driver: Driver, conn: u32, heard: Heard) {
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        let owed_us = socket.owed_offer_us.take();
        let owed = owed_us.is_some_and(|owed_us| !self.may_be_reserved(driver, owed_us));
        if !self.holds(Check::ConfirmedKept, !owed || matches!(heard, Heard::Offer { .. })) {
            let text = format!("d{driver} is welcomed as offered, and hears {heard:?} instead of the offer");
            self.violate(Check::ConfirmedKept, About::driver(driver), text);
        }
    }

    /// Whether a request that first asks whether a driver is free may have done so since then. What ended meanwhile may have.
    fn may_be_reserved(&self, driver: Driver, since_us: u64) -> bool {
        let wants = self
            .requests
            .iter()
            .filter(|seen| seen.posted & (1 << driver) != 0 && (seen.end.is_none() || seen.end_known_us >= since_us));
        let mut asked = wants.flat_map(|seen| &seen.asked);
        self.is_fleet() || asked.any(Posted::asks_first)
    }

    /// The driver says something that may be answered with its state, whether it changes that or not.
    pub(super) fn state_asked(&mut self, driver: Driver, say: Say) {
        let asks = match say {
            Say::Shift(_) => true,
            Say::Trip(trip, event) => {
                event != Move::Arrived && self.trip_seen(trip).driver.is_none_or(|whose| whose == driver)
            }
            _ => false,
        };
        self.drivers[driver as usize].states_owed += u32::from(asks);
    }

    /// A `STATE` that changes nothing answers something that the driver said, once. One that changes something may: not if its cause
    /// was told just before.
    pub(super) fn check_state_asked(&mut self, driver: Driver, state: DriverState, is_change: bool, by_itself: bool) {
        // Of a fleet: a node may learn anew what another one has told.
        if self.is_fleet() {
            return;
        }
        let owed = &mut self.drivers[driver as usize].states_owed;
        let ok = is_change || *owed > 0;
        if !is_change || !by_itself {
            *owed = owed.saturating_sub(1);
        }
        if !self.holds(Check::Caused, ok) {
            let text = format!("d{driver} is told again that it is {}, and did not ask", state.as_str());
            self.violate(Check::Caused, About::driver(driver), text);
        }
    }

    /// What a socket that lives has waited for in vain, for people.
    pub(super) fn unanswered(&self, driver: Driver, socket: &Socket, over_us: u64) -> Option<String> {
        let late = |at_us: u64| at_us.max(over_us) + SLACK_US < self.now_us && !socket.closing;
        let owed_us = socket.owed_offer_us.filter(|owed_us| late(*owed_us));
        if owed_us.is_some_and(|owed_us| !self.may_be_reserved(driver, owed_us)) {
            return Some(format!("d{driver} was welcomed as offered, and shown no offer"));
        }
        let (pings, last_us) = socket.ping_frames;
        if pings > 0 && late(last_us) {
            return Some(format!("d{driver} was not answered {pings} ping frames"));
        }
        self.owed_long(driver, socket, over_us)
    }

    /// A pong frame.
    pub fn ponged_frame(&mut self, driver: Driver, conn: u32) {
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        let asked = socket.ping_frames.0 > 0;
        socket.ping_frames.0 = socket.ping_frames.0.saturating_sub(1);
        if !self.holds(Check::Protocol, asked) {
            let text = format!("d{driver} gets a pong frame for no ping");
            self.violate(Check::Protocol, About::driver(driver), text);
        }
    }
}
