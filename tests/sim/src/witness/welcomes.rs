//! What a driver is told when it connects: its session, its state, its trip.

use super::Witness;
use crate::checks::{About, Check};
use crate::codec::messages::Heard;
use crate::ids::{Driver, Request, Trip};
use crate::words::DriverState;

impl Witness {
    /// A driver is welcomed on a socket.
    pub(super) fn welcomed(&mut self, driver: Driver, conn: u32, heard: Heard) {
        let Heard::Welcome {
            driver: named,
            session,
            state,
            trip,
            heartbeat_ms,
            server_ms,
        } = heard
        else {
            return;
        };
        let has_trip = matches!(state, DriverState::EnRoute | DriverState::OnTrip);
        let ok = named == driver
            && has_trip == trip.is_some()
            && heartbeat_ms == self.expect.heartbeat_ms
            && server_ms <= self.node_ms_max();
        if !self.holds(Check::Protocol, ok) {
            return self.violate(
                Check::Protocol,
                About::driver(driver),
                format!("d{driver} welcomed as {heard:?}"),
            );
        }
        let now_us = self.now_us;
        // One that was on its way when its node ended promises nothing.
        let (up, booted_us) = (self.node.up, self.node.boots.last().map_or(0, |boot| boot.1));
        let seen = &mut self.drivers[driver as usize];
        let is_own = up && (seen.sockets.iter()).any(|socket| socket.conn == conn && socket.opened_us >= booted_us);
        if is_own && !seen.known {
            (seen.known, seen.welcomed_us) = (true, now_us);
        }
        if is_own {
            self.span_begins(driver, conn);
        }
        let seen = &mut self.drivers[driver as usize];
        if seen.session_max == 0 {
            self.board.arrivals.push(driver);
        }
        let Some(socket) = seen.sockets.iter_mut().find(|socket| socket.conn == conn) else {
            return;
        };
        let (floor, live, opened_us) = (socket.session_floor, socket.live_at_open, socket.opened_us);
        socket.session = Some(session);
        socket.welcomed_us = now_us;
        socket.trip = trip;
        socket.state = Some(state);
        socket.server_ms = server_ms;
        socket.owed_offer_us = (state == DriverState::Offered).then_some(now_us);
        // Overtaken by one at another node, of which this one has yet to hear: it is closed in a moment.
        let live = live.filter(|_| session > seen.session_max);
        seen.session_max = seen.session_max.max(session);
        if !self.holds(Check::Protocol, server_ms >= self.earliest_ms_at(opened_us)) {
            let text = format!("d{driver} connected, and the WELCOME is of a time before: {server_ms}");
            return self.violate(Check::Protocol, About::driver(driver), text);
        }
        if !self.holds(Check::SessionGrows, session > floor) {
            let text = format!("d{driver} got session {session} after {floor}");
            self.violate(Check::SessionGrows, About::driver(driver), text);
        }
        let off = self.may_be_off_shift(driver, conn) || self.may_be_remembered_anew(driver);
        if !self.holds(Check::Caused, state != DriverState::Offline || off) {
            self.violate(
                Check::Caused,
                About::driver(driver),
                format!("d{driver} is offline, and never said so"),
            );
        }
        if state == DriverState::Offline {
            self.welcomed_off_shift(driver, opened_us);
        }
        self.shift_told(driver, conn, state, true);
        self.check_trip_kept(driver, live, trip, state, opened_us);
    }

    /// Who was told that it is on its trip still is.
    fn check_pickup_kept(&mut self, driver: Driver, trip: Option<Trip>, state: DriverState, opened_us: u64) {
        // Of a fleet: a node that comes back may not have heard of the pickup yet.
        if state != DriverState::EnRoute || self.may_be_cut_off_at(opened_us) {
            return;
        }
        let told_us = trip.and_then(|trip| self.trip_seen(trip).on_trip_us);
        if !self.holds(Check::ConfirmedKept, told_us.is_none_or(|told_us| told_us >= opened_us)) {
            let text =
                format!("d{driver} was told that it is on trip {trip:?}, and is welcomed on its way to the pickup");
            self.violate(Check::ConfirmedKept, About::driver(driver), text);
        }
    }

    /// A trip that the driver had for certain, and that nobody ended, is there; one that is over is not.
    fn check_trip_kept(
        &mut self,
        driver: Driver,
        live: Option<Request>,
        trip: Option<Trip>,
        state: DriverState,
        opened_us: u64,
    ) {
        self.check_pickup_kept(driver, trip, state, opened_us);
        if let Some(request) = live.filter(|request| !self.trip_may_be_over(*request)) {
            let expect = self.requests[request as usize].winner.and_then(|winner| winner.trip);
            // A node that cannot ask the one that has the trip says it later, in a `STATE`.
            let is_late = self.may_be_cut_off_at(opened_us) && trip.is_none();
            if !self.holds(Check::ConfirmedKept, trip == expect || is_late) {
                let text = format!("d{driver} has the trip of r{request}, and WELCOME says {trip:?}");
                return self.violate(Check::ConfirmedKept, About::both(request, driver), text);
            }
        }
        let Some(trip) = trip else { return };
        let seen = self.trip_seen(trip);
        // That it ended may still be on its way inside the node when the driver connects.
        let over = seen.ended && seen.ended_us + self.expect.order_margin_ms * 1_000 < opened_us;
        let ok = !over && seen.driver.is_none_or(|whose| whose == driver);
        if !self.holds(Check::ConfirmedKept, ok) {
            let text = format!("d{driver} is welcomed to trip {trip}: {seen:?}");
            self.violate(Check::ConfirmedKept, About::driver(driver), text);
        }
        if !self.holds(Check::Caused, state != DriverState::OnTrip || seen.pickup_said) {
            let text = format!("d{driver} is on trip {trip} without a pickup");
            self.violate(Check::Caused, About::driver(driver), text);
        }
    }
}
