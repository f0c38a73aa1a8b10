//! Shifts: a driver that was told that it is off shift stays so until it says otherwise.
//!
//! Judged on the socket that a driver opened last alone, and only where nothing that it said may still be on its way: what
//! it says on an older one is no longer heard once the newer one is welcomed. Which of two is the newer one, the sessions
//! say: of sockets that were opened at once, the first may come last. Off shift
//! is remembered for `off_shift_memory_ms`: who connects later is available.

use super::calls::Call;
use super::state::Socket;
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::codec::answers::DriverView;
use crate::ids::Driver;
use crate::words::DriverState;

/// Longest time until a change of shift is stored and told, where nothing ails the node, simulated microseconds.
const ON_SHIFT_US_MAX: u64 = 1_000_000;

impl Witness {
    /// The driver says that it goes off shift.
    pub(super) fn off_said(&mut self, driver: Driver, conn: u32) {
        self.check_shift_told(driver, conn);
        let off_us = self.now_us;
        if let Some(socket) = self.socket(driver, conn) {
            socket.on_said_us = None;
            socket.offs_unanswered += 1;
            if socket.state != Some(DriverState::Offline) && socket.trip.is_none() {
                socket.off_said_us.get_or_insert(off_us);
            }
        }
        let (now_us, now_ms) = (self.now_us, self.node_ms_at(self.now_us));
        let session = self.socket(driver, conn).and_then(|socket| socket.session);
        let on_trip = self.socket(driver, conn).is_some_and(|socket| socket.trip.is_some());
        let seen = &mut self.drivers[driver as usize];
        seen.off_on_trip = on_trip.then_some(conn);
        seen.off_said = true;
        seen.offs_us.push(now_us);
        seen.off_said_on = seen.off_said_on.max(session.unwrap_or(u64::MAX));
        if !seen.may_be_off() {
            seen.off_spans.push((now_ms, u64::MAX));
        }
        seen.off_said_ms = Some((seen.off_said_ms.map_or(now_ms, |said| said.0), now_ms));
    }

    /// The driver says that it is available: from here on nothing is known of its shift until a socket that came later is told.
    pub(super) fn on_said(&mut self, driver: Driver, conn: u32) {
        self.check_shift_told(driver, conn);
        if let Some(socket) = self.socket(driver, conn) {
            socket.off_said_us = None;
        }
        let session = self.socket(driver, conn).and_then(|socket| socket.session);
        let now_ms = self.node_ms_at(self.now_us);
        let now_us = self.now_us;
        if let Some(socket) = self.socket(driver, conn)
            && socket.state == Some(DriverState::Offline)
        {
            socket.on_said_us.get_or_insert(now_us);
        }
        let seen = &mut self.drivers[driver as usize];
        (seen.off_told, seen.off_on_trip) = (false, None);
        seen.on_said_ms.get_or_insert(now_ms);
        seen.on_session = seen.on_session.max(session.unwrap_or(0));
    }

    /// The driver says the opposite, or its socket ends: what it said of its shift long ago has been heard by now. Who goes off shift has
    /// its offer declined first.
    pub(super) fn check_shift_told(&mut self, driver: Driver, conn: u32) {
        let Some(over_us) = self.calm_since_us() else { return };
        let late_us = 3 * self.expect.order_margin_ms * 1_000 + ON_SHIFT_US_MAX;
        let (now_us, is_fleet) = (self.now_us, self.is_fleet());
        let Some(socket) = self.socket(driver, conn).filter(|socket| socket.is_well()) else {
            return;
        };
        let is_late = |at_us: &u64, most_us: u64| (*at_us).max(over_us) + most_us < now_us;
        let on = socket.on_said_us.filter(|at_us| is_late(at_us, late_us));
        // Of a fleet: another node, which may not answer, has the offer.
        let off = socket
            .off_said_us
            .filter(|at_us| !is_fleet && is_late(at_us, late_us + SLACK_US));
        let late = on
            .map(|at_us| (at_us, "is available"))
            .or(off.map(|at_us| (at_us, "goes off shift")));
        if !self.holds(Check::Answered, late.is_none()) {
            let text = format!("d{driver} said long ago what it has not heard yet: {late:?}");
            self.violate(Check::Answered, About::driver(driver), text);
        }
    }

    /// Whether the driver was told that it is off shift, and has not said otherwise since; as far as the socket that it
    /// opened last can say. The memory of it ends for who comes again, not for who stays.
    pub(super) fn is_off_shift(&mut self, driver: Driver, conn: u32) -> bool {
        if self.is_fleet() {
            return false; // A node knows who went off shift at another one as far as that one can be asked.
        }
        let over = self.is_shift_over(driver);
        let Some(session) = self.last_opened(driver, conn).map(|socket| socket.session) else {
            return false;
        };
        let seen = &self.drivers[driver as usize];
        seen.off_told && !(over && session.is_none_or(|session| session > seen.off_session))
    }

    /// A driver is shown: not as available when it had been told that it is off shift.
    pub(super) fn view_of_shift(&mut self, call: &Call, view: &DriverView) {
        let seen = &self.drivers[view.driver as usize];
        let told_before = seen.off_told && seen.off_told_us <= call.sent_us;
        let last = seen.sockets.iter().find(|socket| socket.number == seen.opened);
        let Some(conn) = last.filter(|socket| socket.is_well()).map(|socket| socket.conn) else {
            return;
        };
        let off = told_before && self.is_off_shift(view.driver, conn);
        if !self.holds(Check::ViewsMatch, !off || view.state != DriverState::Available) {
            let text = format!("d{} was told that it is offline, and is shown as {view:?}", view.driver);
            self.violate(Check::ViewsMatch, About::driver(view.driver), text);
        }
    }

    /// Whether the driver may be off shift, as far as the socket that it opened last can say: it said so since it was last
    /// available.
    pub(super) fn may_be_off_shift(&mut self, driver: Driver, conn: u32) -> bool {
        let is_last = !self.is_fleet() && self.last_opened(driver, conn).is_some();
        let seen = &self.drivers[driver as usize];
        if is_last { seen.may_be_off() } else { seen.off_said }
    }

    /// Whether a memory of the driver's shift that had ended may have begun anew: by a clock that was set back since.
    pub(super) fn may_be_remembered_anew(&self, driver: Driver) -> bool {
        let last_us = self.drivers[driver as usize].offs_us.last();
        last_us.is_some_and(|last_us| self.node.has_fallen_since(*last_us))
    }

    /// The driver is told this state, by a `WELCOME` (`is_new`) or a `STATE`.
    pub(super) fn shift_told(&mut self, driver: Driver, conn: u32, state: DriverState, is_new: bool) {
        if self.is_fleet() {
            return; // As above.
        }
        if let Some(socket) = self
            .socket(driver, conn)
            .filter(|_| !is_new && state == DriverState::Offline)
        {
            socket.offs_unanswered = socket.offs_unanswered.saturating_sub(1);
        }
        // The offer that it has now is being declined, perhaps, since it went off shift on an earlier socket, and this one hears of that.
        let may_be_declined = is_new && state == DriverState::Offered && self.drivers[driver as usize].may_be_off();
        if let Some(socket) = self.socket(driver, conn).filter(|_| may_be_declined) {
            socket.offs_unanswered += 1;
        }
        let last = self.last_opened(driver, conn);
        let Some((session, unanswered)) = last.and_then(|socket| Some((socket.session?, socket.offs_unanswered)))
        else {
            return;
        };
        let over = self.is_shift_over(driver);
        let (now_us, now_ms) = (self.now_us, self.node_ms_at(self.now_us));
        let heard_us = 2 * self.late_ms() * 1_000 + SLACK_US;
        let seen = &mut self.drivers[driver as usize];
        match state {
            // Told before it said the opposite, if that was on this socket or on one that came later.
            DriverState::Offline if session > seen.on_session => {
                (seen.off_told, seen.off_told_us) = (true, now_us);
                (seen.off_session, seen.off_on_trip) = (session, None);
            }
            // It has heard its state for each of its words, so for this one as well: "on a trip it takes effect at its end".
            DriverState::EnRoute | DriverState::OnTrip
                if !is_new && seen.off_on_trip == Some(conn) && seen.states_owed == 0 && session >= seen.on_session =>
            {
                (seen.off_told, seen.off_told_us) = (true, now_us);
                seen.off_session = session;
            }
            DriverState::Available => {
                let off = seen.off_told && !over;
                self.shifts_over += u64::from(seen.off_told && over);
                (seen.off_told, seen.off_on_trip) = (false, None);
                // An `offline` that it said after the words that this answers may still be on its way; if this answers none,
                // as after a trip, any may.
                if let Some(answers_ms) = seen.on_said_ms.take() {
                    let later = seen.off_said_ms.filter(|&(_, last_ms)| last_ms >= answers_ms);
                    seen.off_said_ms = later.map(|(first_ms, last_ms)| (first_ms.max(answers_ms), last_ms));
                }
                // What it said on an older socket is not heard any more: it was before, and is over, or never arrived. And what
                // it said long ago has been heard, or what it said on this one, if it was told so.
                let is_long_ago = |said_us: u64| said_us + heard_us < now_us;
                let heard = seen.offs_us.last().copied().is_some_and(is_long_ago);
                // Words about trips are answered by its state as well, also those of an older socket.
                let of_shift = seen.trip_said_us.is_none_or(is_long_ago);
                let told = !is_new && session == seen.off_said_on && unanswered == 0 && of_shift;
                if heard || told || (is_new && session > seen.off_said_on) {
                    seen.off_said_on = 0;
                    if let Some(span) = seen.off_spans.last_mut() {
                        span.1 = span.1.min(now_ms);
                    }
                }
                if !self.holds(Check::ConfirmedKept, !off) {
                    let text = format!(
                        "d{driver} was told that it is offline, or will be, said nothing since, and is available"
                    );
                    self.violate(Check::ConfirmedKept, About::driver(driver), text);
                }
            }
            _ => {}
        }
    }

    /// Whether it may be forgotten by now that the driver is off shift.
    fn is_shift_over(&self, driver: Driver) -> bool {
        let now_ms = self.node_ms_max();
        let said_ms = self.drivers[driver as usize].off_said_ms;
        said_ms.is_some_and(|(first_ms, _)| first_ms + self.expect.off_shift_memory_ms <= now_ms)
    }

    /// A driver is welcomed as offline: it must not have been that for longer than it is remembered.
    pub(super) fn welcomed_off_shift(&mut self, driver: Driver, opened_us: u64) {
        let booted_us = self.node.boots.last().map_or(0, |boot| boot.1);
        let last_us = self.drivers[driver as usize].offs_us.last().copied().unwrap_or(0);
        // How long ago that was, a clock that was set back since then does not say.
        let unclear = self.node.has_fallen_since(last_us);
        if self.is_fleet() || unclear || !self.node.up || opened_us < booted_us {
            return;
        }
        let Some((_, last_ms)) = self.drivers[driver as usize].off_said_ms else {
            return;
        };
        let until_ms = last_ms + self.expect.off_shift_memory_ms + 3 * self.expect.order_margin_ms;
        let opened_ms = self.node_ms_at(opened_us);
        if !self.holds(Check::Caused, opened_ms <= until_ms) {
            let text = format!("d{driver} comes at {opened_ms}, went off shift before {last_ms}, and is still offline");
            self.violate(Check::Caused, About::driver(driver), text);
        }
    }

    /// This socket, if it is the one that its driver opened last.
    fn last_opened(&mut self, driver: Driver, conn: u32) -> Option<&Socket> {
        let opened = self.drivers[driver as usize].opened;
        let socket = self.socket(driver, conn)?;
        (socket.number == opened).then_some(&*socket)
    }
}
