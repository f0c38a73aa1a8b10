//! What drivers hear on their sockets, and what becomes of these.

use super::state::{Awaited, Socket, Winner, ways};
use super::texts::heard_text;
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::codec::messages::Heard;
use crate::ids::{Driver, Offer, Request, Trip};
use crate::phrases::Reason;
use crate::words::{DriverState, ErrorCode, Revoke, State};

impl Witness {
    /// A driver opens a socket.
    pub fn socket_opened(&mut self, driver: Driver, conn: u32) {
        self.note(About::driver(driver), || format!("d{driver} opens socket {conn}"));
        let now_us = self.now_us;
        let seen = &mut self.drivers[driver as usize];
        seen.opened += 1;
        let socket = Socket {
            conn,
            number: seen.opened,
            opened_us: now_us,
            session_floor: seen.session_max,
            live_at_open: seen.live,
            ..Socket::default()
        };
        seen.sockets.push(socket);
        seen.stays.push((conn, now_us, u64::MAX));
    }

    /// A socket is over, whoever ended it.
    pub fn socket_over(&mut self, driver: Driver, conn: u32, why: &str) {
        self.note(About::driver(driver), || format!("d{driver} socket {conn} over: {why}"));
        self.span_ends(driver, conn);
        self.deliveries_noted(driver, conn);
        self.check_shift_told(driver, conn);
        let unheard = self.socket(driver, conn).is_some_and(|socket| socket.session.is_none());
        let untold = |socket: &mut Socket| socket.awaits_away && !socket.closing;
        if self.socket(driver, conn).is_some_and(untold) {
            self.node.sent_away.1 += 1;
        }
        let (now_us, seen) = (self.now_us, &mut self.drivers[driver as usize]);
        seen.sockets.retain(|socket| socket.conn != conn);
        if let Some(stay) = seen.stays.iter_mut().rfind(|stay| stay.0 == conn) {
            stay.2 = now_us;
        }
        seen.lost_us = now_us;
        if unheard {
            seen.unheard_us = now_us;
        }
    }

    /// The driver stops reading, or reads again; from then on nothing is owed to this socket in time.
    pub fn socket_stalled(&mut self, driver: Driver, conn: u32) {
        self.note(About::driver(driver), || {
            format!("d{driver} socket {conn} stalls or reads again")
        });
        self.span_ends(driver, conn);
        self.deliveries_noted(driver, conn);
        if let Some(socket) = self.socket(driver, conn) {
            socket.stalled = true;
        }
    }

    pub(super) fn socket(&mut self, driver: Driver, conn: u32) -> Option<&mut Socket> {
        self.drivers[driver as usize]
            .sockets
            .iter_mut()
            .find(|socket| socket.conn == conn)
    }

    /// A driver hears something.
    pub fn heard(&mut self, driver: Driver, conn: u32, heard: Heard) {
        self.note(about(driver, heard), || {
            format!("d{driver} socket {conn} hears {}", heard_text(heard))
        });
        let request = match heard {
            Heard::Offer { offer, .. }
            | Heard::Confirmed { offer, .. }
            | Heard::Declined { offer }
            | Heard::Revoked { offer, .. } => Some(offer.request),
            Heard::TripCancelled { request, .. } => Some(request),
            _ => None,
        };
        if request.is_some_and(|request| !self.is_request(request)) {
            return;
        }
        let welcomed = self.socket(driver, conn).is_some_and(|socket| socket.session.is_some());
        if !self.holds(Check::Protocol, welcomed != matches!(heard, Heard::Welcome { .. })) {
            let text = format!("d{driver} heard {heard:?} where WELCOME comes first, and once");
            return self.violate(Check::Protocol, About::driver(driver), text);
        }
        self.check_offer_follows(driver, conn, heard);
        match heard {
            Heard::Welcome { .. } => self.welcomed(driver, conn, heard),
            Heard::Offer { .. } => self.offered(driver, conn, heard),
            Heard::Confirmed { offer, trip } => self.confirmed(driver, conn, offer, trip),
            Heard::Declined { offer } => self.ended(driver, conn, offer, None),
            Heard::Revoked { offer, reason } => self.ended(driver, conn, offer, Some(reason)),
            Heard::State { state, trip } => self.told_state(driver, conn, state, trip),
            Heard::TripCancelled { trip, request, reason } => {
                self.trip_cancelled(driver, conn, trip, request, reason);
            }
            Heard::Pong { server_ms } => self.ponged(driver, conn, server_ms),
            Heard::Error { code, request } => self.told_error(driver, conn, code, request),
        }
    }

    fn offered(&mut self, driver: Driver, conn: u32, heard: Heard) {
        let Heard::Offer {
            offer,
            class,
            expires_at_ms,
            ttl_ms,
            trip_intact,
        } = heard
        else {
            return;
        };
        let about = About::both(offer.request, driver);
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        let (held, trip, heard_ms) = (socket.offer, socket.trip, socket.server_ms);
        socket.offer = Some((offer, expires_at_ms));
        let off_shift = self.is_off_shift(driver, conn);
        if !self.holds(Check::Caused, !off_shift) {
            let text = format!("d{driver} was told that it is offline, said nothing since, and gets {offer}");
            return self.violate(Check::Caused, about, text);
        }
        if !self.holds(Check::OneOffer, held.is_none()) {
            let text = format!("d{driver} holds {held:?} and gets {offer}");
            return self.violate(Check::OneOffer, about, text);
        }
        if !self.holds(Check::OneTrip, trip.is_none()) {
            let text = format!("d{driver} has trip {trip:?} and gets {offer}");
            return self.violate(Check::OneTrip, about, text);
        }
        let seen = &self.requests[offer.request as usize];
        let ok = trip_intact
            && class == seen.wish.class
            && seen.posted & (1 << driver) != 0
            && seen.deadline_at_ms.is_none_or(|deadline| expires_at_ms <= deadline)
            && ttl_ms <= 600_000
            && expires_at_ms - ttl_ms.min(expires_at_ms) <= self.node_ms_max()
            // What was said on a socket before is older: not more time is left than there was then.
            && (ttl_ms == 0 || expires_at_ms >= heard_ms + ttl_ms);
        if !self.holds(Check::Protocol, ok) {
            return self.violate(
                Check::Protocol,
                about,
                format!("d{driver} got a wrong offer: {heard:?}"),
            );
        }
        self.learn_exists(offer.request);
        self.learn_attempt(offer, driver);
        let Some(attempt) = self.requests[offer.request as usize].attempt_mut(offer.attempt) else {
            return;
        };
        let before = attempt.expires_at_ms;
        attempt.expires_at_ms = expires_at_ms;
        attempt.shown = true;
        if !self.holds(Check::OfferInTime, before == 0 || before == expires_at_ms) {
            let text = format!("{offer} expires at {expires_at_ms} and before at {before}");
            self.violate(Check::OfferInTime, about, text);
        }
        self.delivered(driver, conn, offer);
        self.board.push_shown(offer);
    }

    fn confirmed(&mut self, driver: Driver, conn: u32, offer: Offer, trip: Trip) {
        let about = About::both(offer.request, driver);
        self.learn_winner(
            offer.request,
            Winner {
                driver,
                attempt: Some(offer.attempt),
                trip: Some(trip),
            },
        );
        if !self.holds(Check::Caused, self.was_said(driver, offer, true)) {
            return self.violate(
                Check::Caused,
                about,
                format!("{offer} CONFIRMED without an ACCEPT of d{driver}"),
            );
        }
        let now_us = self.now_us;
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        // It takes effect at the trip's end.
        socket.off_said_us = None;
        if socket.offer.is_some_and(|(held, _)| held == offer) {
            socket.offer = None;
            if socket.trip != Some(trip) {
                socket.owed_state = Some((trip, now_us));
            }
            socket.trip = Some(trip);
        }
        socket.heard_about(offer);
        self.board.push_trip(trip);
    }

    /// `DECLINED`, or `REVOKED` with a reason.
    fn ended(&mut self, driver: Driver, conn: u32, offer: Offer, reason: Option<Revoke>) {
        let about = About::both(offer.request, driver);
        let seen = &self.requests[offer.request as usize];
        let expires_at_ms = seen
            .attempts
            .get((offer.attempt as usize).wrapping_sub(1))
            .map_or(0, |attempt| attempt.expires_at_ms);
        let cancelled = seen.cancels_said != 0;
        let declined = self.was_said(driver, offer, false);
        let (ways, ok) = match reason {
            None => (ways::DECLINED, declined),
            Some(Revoke::Timeout) => (ways::TIMED_OUT, expires_at_ms <= self.node_ms_max()),
            Some(Revoke::Cancelled) => (ways::CANCELLED, cancelled),
            Some(Revoke::Taken) => (ways::TAKEN, true),
            // Of a fleet: the driver has another trip of which this node had not heard, or another owner has the request and cannot
            // be reached (design.md, section 2: "forget it, revoke its offer `superseded`"); that one ends the attempt as it will.
            Some(Revoke::Superseded) if self.is_fleet() => (ways::ANY & !ways::ACCEPTED, true),
            Some(Revoke::Superseded) => (ways::DECLINED, declined && self.was_said(driver, offer, true)),
        };
        if !self.holds(Check::Caused, ok) {
            let text = format!("{offer} of d{driver} ended without a cause: {reason:?}");
            return self.violate(Check::Caused, about, text);
        }
        if reason.is_none() {
            self.declined_answers(driver, offer);
        }
        self.learn_exists(offer.request);
        self.learn_way(offer, Some(driver), ways);
        match reason {
            Some(Revoke::Cancelled) => self.learn_state(offer.request, State::Cancelled),
            Some(Revoke::Taken) => self.learn_state(offer.request, State::Accepted),
            _ => {}
        }
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        if socket.offer.is_some_and(|(held, _)| held == offer) {
            socket.offer = None;
        }
        socket.heard_about(offer);
    }

    fn told_state(&mut self, driver: Driver, conn: u32, state: DriverState, trip: Option<Trip>) {
        let has_trip = matches!(state, DriverState::EnRoute | DriverState::OnTrip);
        // Of a fleet: the node that has the trip could not be asked before the `WELCOME`.
        let is_own = |trip: Trip| self.trip_seen(trip).driver.is_none_or(|whose| whose == driver);
        let may_be_late = self.is_fleet() && trip.is_some_and(is_own);
        let off_said = self.may_be_off_shift(driver, conn) || self.may_be_remembered_anew(driver);
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        let before = socket.trip;
        let is_late = may_be_late && before.is_none();
        let owed = socket.owed_state.take();
        let by_itself = std::mem::take(&mut socket.state_follows) || owed.is_some();
        let known = socket.state.map(|known| {
            if known == DriverState::Offered {
                DriverState::Available
            } else {
                known
            }
        });
        let is_change = known != Some(state) || trip != before;
        if state != DriverState::Offline {
            socket.on_said_us = None;
        }
        if state != DriverState::Available {
            socket.off_said_us = None;
        }
        socket.trip = trip;
        socket.state = Some(state);
        let ok = has_trip == trip.is_some()
            && state != DriverState::Offered
            && (state != DriverState::Offline || off_said)
            && (trip.is_none() || trip == before || is_late);
        if !self.holds(Check::Caused, ok) {
            let text = format!(
                "d{driver} is told {} with trip {trip:?}, before {before:?}",
                state.as_str()
            );
            return self.violate(Check::Caused, About::driver(driver), text);
        }
        let is_next = owed.is_none_or(|(won, _)| trip == Some(won) && state == DriverState::EnRoute);
        if !self.holds(Check::Caused, is_next) {
            let text = format!(
                "d{driver} won {owed:?}, and is told {} with trip {trip:?}",
                state.as_str()
            );
            return self.violate(Check::Caused, About::driver(driver), text);
        }
        self.check_state_asked(driver, state, is_change, by_itself);
        self.state_answers(driver, conn, state, by_itself);
        self.shift_told(driver, conn, state, false);
        if let (Some(over), None) = (before, trip) {
            self.learn_trip_ended(over, None);
        }
        if let (DriverState::OnTrip, Some(trip)) = (state, trip) {
            let now_us = self.now_us;
            self.trip_mut(trip).on_trip_us.get_or_insert(now_us);
        }
        if state == DriverState::OnTrip {
            let said = trip.is_some_and(|trip| self.trip_seen(trip).pickup_said);
            if !self.holds(Check::Caused, said) {
                self.violate(
                    Check::Caused,
                    About::driver(driver),
                    format!("d{driver} is on trip {trip:?} without a pickup"),
                );
            }
        }
    }

    fn trip_cancelled(&mut self, driver: Driver, conn: u32, trip: Trip, request: Request, reason: Reason) {
        let seen = self.trip_seen(trip);
        let ok = seen.api_cancels_said & (1 << reason) != 0
            && seen.request.is_none_or(|known| known == request)
            && seen.driver.is_none_or(|known| known == driver);
        if !self.holds(Check::Caused, ok) {
            let text = format!("d{driver} hears TRIP_CANCELLED of trip {trip}, r{request}, for {reason}: {seen:?}");
            return self.violate(Check::Caused, About::both(request, driver), text);
        }
        self.trip_mut(trip).told_reason = Some(reason);
        self.learn_trip_ended(trip, Some(crate::words::TripEnd::Cancelled));
        let socket = self.socket(driver, conn);
        let held = socket.and_then(|socket| {
            socket.state_follows = true;
            socket.trip
        });
        if !self.holds(Check::Caused, held == Some(trip)) {
            let text = format!("d{driver} hears TRIP_CANCELLED of trip {trip} and has {held:?}");
            self.violate(Check::Caused, About::both(request, driver), text);
        }
    }

    fn ponged(&mut self, driver: Driver, conn: u32, server_ms: u64) {
        let most = self.node_ms_max();
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        let asked = socket.owed.pings.pop_front().is_some();
        let ok = asked && server_ms >= socket.server_ms && server_ms <= most;
        socket.server_ms = server_ms;
        self.receipts_read(driver, conn, server_ms);
        if !self.holds(Check::Protocol, ok) {
            let text = format!("d{driver} got PONG {server_ms} too often, or from a wrong time");
            self.violate(Check::Protocol, About::driver(driver), text);
        }
    }

    fn told_error(&mut self, driver: Driver, conn: u32, code: ErrorCode, request: Option<Request>) {
        let ok = match code {
            ErrorCode::Invalid | ErrorCode::UnknownType => {
                let Some(socket) = self.socket(driver, conn) else {
                    return;
                };
                socket.owed.garbage.pop_front().is_some()
            }
            ErrorCode::NoSuchOffer => match request {
                None => false,
                Some(request) => return self.denied(driver, conn, request),
            },
            ErrorCode::NoSuchTrip => {
                self.foreign_answered(driver, conn);
                // An own trip is never denied, whether it is over or not.
                let foreign = |trip: &Trip| self.trip_seen(*trip).driver != Some(driver);
                self.drivers[driver as usize].trips_spoken.iter().any(foreign)
            }
        };
        if !self.holds(Check::SameAnswer, ok) {
            let text = format!("d{driver} hears ERROR {} for no reason", code.as_str());
            self.violate(Check::SameAnswer, About::driver(driver), text);
        }
    }

    /// `no_such_offer`: the driver spoke of an offer that was not made to it, or of one that was refused.
    fn denied(&mut self, driver: Driver, conn: u32, request: Request) {
        let is_fleet = self.is_fleet();
        let of_request = |spoken: &&(Offer, bool)| spoken.0.request == request;
        let spoken = &self.drivers[driver as usize].spoken;
        let any = spoken.iter().find(of_request).copied();
        let unshown = spoken.iter().find(|spoken| of_request(spoken) && !spoken.1).copied();
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        // It answers what the driver said of an offer that it had not been shown, if there is such a thing.
        let of_request = |awaited: &Awaited| awaited.offer.request == request;
        let guess = |awaited: &Awaited| of_request(awaited) && !awaited.shown;
        let mut awaited = socket.awaited.iter();
        let index = awaited
            .position(guess)
            .or_else(|| socket.awaited.iter().position(of_request));
        if let Some(index) = index {
            socket.awaited.remove(index);
        }
        // Of a fleet: refused while its driver was looked for, and then found (`OFFER_REFUSED` "may follow an `OFFER_SENT` of the same
        // attempt").
        if is_fleet && socket.offer.is_some_and(|(held, _)| held.request == request) {
            socket.offer = None;
        }
        if !self.holds(Check::SameAnswer, any.is_some()) {
            let text = format!("d{driver} hears no_such_offer for r{request}, of which it did not speak");
            return self.violate(Check::SameAnswer, About::both(request, driver), text);
        }
        if unshown.is_none()
            && let Some(seen) = self.requests.get_mut(request as usize)
        {
            seen.denied |= 1 << driver;
        }
    }

    /// After faults: sockets that live have been answered, and hold no offer beyond its time.
    pub fn check_sockets_answered(&mut self) {
        let Some(over_us) = self.calm_since_us() else { return };
        let (now_us, now_ms) = (self.now_us, self.node_ms_at(self.now_us));
        let is_fleet = self.is_fleet();
        for driver in 0..self.drivers.len() {
            let sockets = std::mem::take(&mut self.drivers[driver].sockets);
            for socket in sockets
                .iter()
                .filter(|socket| socket.session.is_some() && !socket.stalled)
            {
                let driver = driver as Driver;
                // Of a fleet: a node that knows nothing of a request any more asks the tables, which may not answer; nobody waits for an offer
                // that is over, or was never made. One that is held beyond its end is found below.
                let is_owed = |awaited: &Awaited| !is_fleet || (awaited.shown && awaited.at_us > over_us + SLACK_US);
                let late = |awaited: &&Awaited| is_owed(awaited) && awaited.at_us.max(over_us) + SLACK_US < now_us;
                if let Some(awaited) = socket.awaited.iter().find(late) {
                    let text = format!("d{driver} was not answered about {}", awaited.offer);
                    self.broken(Check::Answered, About::both(awaited.offer.request, driver), text);
                }
                if let Some(text) = self.unanswered(driver, socket, over_us) {
                    self.broken(Check::Answered, About::driver(driver), text);
                }
                let since_us = socket.owed_state.map(|owed| owed.1).or(socket.on_said_us);
                if since_us.is_some_and(|at_us| at_us.max(over_us) + SLACK_US < now_us) && !socket.closing {
                    let (won, says) = (socket.owed_state, socket.on_said_us);
                    let text = format!("d{driver} was not told its state: won {won:?}, says available {says:?}");
                    self.broken(Check::Answered, About::driver(driver), text);
                }
                self.counts.add(Check::Answered);
                if let Some((offer, expires_at_ms)) = socket.offer
                    && expires_at_ms + SLACK_US / 1_000 < now_ms
                {
                    let text = format!("d{driver} holds {offer} beyond its end at {expires_at_ms}");
                    self.broken(Check::OfferInTime, About::both(offer.request, driver), text);
                }
            }
            self.drivers[driver].sockets = sockets;
            self.check_displaced(driver as Driver);
            self.check_violators(driver as Driver);
        }
    }
}

fn about(driver: Driver, heard: Heard) -> About {
    match heard {
        Heard::Offer { offer, .. }
        | Heard::Confirmed { offer, .. }
        | Heard::Declined { offer }
        | Heard::Revoked { offer, .. } => About::both(offer.request, driver),
        Heard::TripCancelled { request, .. } => About::both(request, driver),
        _ => About::driver(driver),
    }
}
