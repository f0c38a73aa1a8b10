//! What drivers say on their sockets, and callers for them.

use super::audits::Tried;
use super::state::{Awaited, ways};
use super::texts::said_text;
use super::{SLACK_US, Witness};
use crate::checks::About;
use crate::codec::messages::Say;
use crate::ids::{Driver, Offer, Request, Trip};
use crate::words::Move;
use dispatchd::limits::DRIVER_DEBT_MS_MAX;

impl Witness {
    /// A driver says something.
    pub fn said(&mut self, driver: Driver, conn: u32, say: Say) {
        self.messages += 1;
        let now_us = self.now_us;
        let about = match say {
            Say::Ack(offer) | Say::Accept(offer) | Say::Decline(offer) => About::both(offer.request, driver),
            _ => About::driver(driver),
        };
        self.note(about, || format!("d{driver} socket {conn} says {}", said_text(say)));
        self.check_silence(driver, conn);
        self.check_given_up(driver, conn);
        match say {
            Say::Accept(offer) | Say::Decline(offer) => {
                let accept = matches!(say, Say::Accept(_));
                self.answer_said(driver, offer.request, Some(offer.attempt), accept, Some(conn));
            }
            // The word of another driver is no cause.
            Say::Trip(trip, event) if self.trip_seen(trip).driver.is_none_or(|whose| whose == driver) => {
                self.trip_said(trip, event);
            }
            Say::Shift(false) => self.off_said(driver, conn),
            Say::Shift(true) => self.on_said(driver, conn),
            Say::Location(place) => self.place_said(driver, conn, place),
            Say::Trip(..) | Say::Ack(_) | Say::Ping | Say::PingFrame | Say::Garbage(_) => {}
        }
        let shown = match say {
            Say::Ack(offer) | Say::Accept(offer) | Say::Decline(offer) => self
                .requests
                .get(offer.request as usize)
                .is_some_and(|seen| seen.was_shown(offer.attempt, driver)),
            _ => false,
        };
        let guessed = !shown && self.may_be_offered(driver, say);
        let over = matches!(say, Say::Ack(offer) if shown && self.is_over(offer));
        if let Say::Ack(offer) = say
            && shown
        {
            self.receipt_said(driver, conn, offer);
        }
        if let Say::Trip(trip, event) = say {
            self.moved(driver, conn, trip, event);
        }
        self.state_asked(driver, say);
        self.answer_owed(driver, conn, say);
        self.declined_owed(driver, say);
        let seen = &mut self.drivers[driver as usize];
        if matches!(say, Say::Trip(..)) {
            seen.trip_said_us = Some(now_us);
        }
        match say {
            Say::Ack(offer) | Say::Accept(offer) | Say::Decline(offer) => spoken(&mut seen.spoken, offer, shown),
            Say::Trip(trip, _) if !seen.trips_spoken.contains(&trip) => seen.trips_spoken.push(trip),
            _ => {}
        }
        self.forget_lost_words(driver, conn, say);
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        socket.note_said(now_us);
        let awaited = |offer| Awaited {
            offer,
            at_us: now_us,
            shown,
        };
        match say {
            Say::Trip(_, event) if event != Move::Arrived => socket.offs_unanswered += 1,
            // Who speaks of an offer that is being made, and could not be held to it, hears nothing: it has not seen it.
            Say::Accept(_) | Say::Decline(_) if guessed => {}
            Say::Accept(offer) | Say::Decline(offer) => socket.awaited.push(awaited(offer)),
            // A receipt of what is over is answered with what came of it; one of an open offer is not, and may race its end.
            Say::Ack(offer) if over => socket.awaited.push(awaited(offer)),
            Say::PingFrame => socket.ping_frames = (socket.ping_frames.0 + 1, now_us),
            _ => {}
        }
    }

    /// Answers to what was said in a fleet's bad times may be lost, and are not waited for when the same offer is spoken of again.
    fn forget_lost_words(&mut self, driver: Driver, conn: u32, say: Say) {
        let (Say::Ack(offer) | Say::Accept(offer) | Say::Decline(offer)) = say else {
            return;
        };
        let (now_us, is_fleet) = (self.now_us, self.is_fleet());
        let lost_us = self.calm_since_us().map(|over_us| over_us + SLACK_US);
        if let Some(lost_us) = lost_us.filter(|lost_us| is_fleet && *lost_us < now_us)
            && let Some(socket) = self.socket(driver, conn)
        {
            socket
                .awaited
                .retain(|awaited| awaited.offer != offer || awaited.at_us > lost_us);
        }
    }

    fn trip_said(&mut self, trip: Trip, event: Move) {
        let seen = self.trip_mut(trip);
        match event {
            Move::Arrived => {}
            Move::Pickup => seen.pickup_said = true,
            Move::Complete => seen.complete_said = true,
            Move::Cancel => seen.cancel_said = true,
        }
        if matches!(event, Move::Complete | Move::Cancel) {
            self.trip_may_end(trip);
        }
    }

    /// Whether this attempt has ended for certain, however.
    fn is_over(&self, offer: Offer) -> bool {
        let attempts = &self.requests[offer.request as usize].attempts;
        let attempt = attempts.get((offer.attempt as usize).wrapping_sub(1));
        attempt.is_some_and(|attempt| attempt.ways & ways::OPEN == 0)
    }

    /// Whether this is about an attempt of which it is not known that it is another driver's.
    fn may_be_offered(&self, driver: Driver, say: Say) -> bool {
        let (Say::Ack(offer) | Say::Accept(offer) | Say::Decline(offer)) = say else {
            return false;
        };
        let seen = self.requests.get(offer.request as usize);
        let posted = seen.is_some_and(|seen| seen.posted & (1 << driver) != 0);
        let attempt = seen.and_then(|seen| seen.attempts.get((offer.attempt as usize).wrapping_sub(1)));
        posted
            && attempt
                .and_then(|attempt| attempt.driver)
                .is_none_or(|whose| whose == driver)
    }

    /// Somebody answers for a driver, on this socket of it or over HTTP.
    pub(crate) fn answer_said(
        &mut self,
        driver: Driver,
        request: Request,
        attempt: Option<u32>,
        accept: bool,
        on: Option<u32>,
    ) {
        let Some(seen) = self.requests.get_mut(request as usize) else {
            return;
        };
        let bit = 1u64 << driver;
        let Some(attempt) = attempt else {
            let said = if accept {
                &mut seen.http_accept_said
            } else {
                &mut seen.http_decline_said
            };
            *said |= bit;
            return;
        };
        let Some(attempt) = seen.attempt_mut(attempt) else {
            return;
        };
        attempt.answered_elsewhere |= on.is_none() || on != attempt.acked_on;
        let said = if accept {
            &mut attempt.accept_said
        } else {
            &mut attempt.decline_said
        };
        match on {
            Some(_) => said.by_socket |= bit,
            None => said.by_http |= bit,
        }
    }

    /// Whether somebody said `ACCEPT` (or `DECLINE`) for this driver.
    pub(crate) fn was_said(&self, driver: Driver, offer: Offer, accept: bool) -> bool {
        let bit = 1u64 << driver;
        let seen = &self.requests[offer.request as usize];
        let attempt = seen.attempts.get((offer.attempt as usize).wrapping_sub(1));
        let (by_number, by_http) = if accept {
            (
                attempt.map_or(0, |attempt| attempt.accept_said.any()),
                seen.http_accept_said,
            )
        } else {
            (
                attempt.map_or(0, |attempt| attempt.decline_said.any()),
                seen.http_decline_said,
            )
        };
        (by_number | by_http) & bit != 0 || (!accept && self.went_off_since_posted(driver, offer))
    }

    /// Whether this offer may have been declined for this driver otherwise than on a socket of it: over HTTP, or by going off shift.
    pub(super) fn may_be_declined_elsewhere(&self, driver: Driver, offer: Offer) -> bool {
        let seen = &self.requests[offer.request as usize];
        let attempt = seen.attempts.get((offer.attempt as usize).wrapping_sub(1));
        let by_http = seen.http_decline_said | attempt.map_or(0, |attempt| attempt.decline_said.by_http);
        by_http & (1 << driver) != 0 || self.went_off_since_posted(driver, offer)
    }

    /// How long what a driver says may take until it counts. The node pauses before it reads on from one who says too much.
    fn heard_ms_max(&self, driver: Driver) -> u64 {
        let babbles = self.drivers[driver as usize]
            .sockets
            .iter()
            .any(|socket| socket.babbled);
        self.late_ms() + if babbles { u64::from(DRIVER_DEBT_MS_MAX) } else { 0 }
    }

    /// Whether the driver went off shift when it may have had this offer, which declines it.
    fn went_off_since_posted(&self, driver: Driver, offer: Offer) -> bool {
        let seen = &self.drivers[driver as usize];
        let posted_us = self.requests[offer.request as usize].first_post_us;
        let last_us = seen.offs_us.last().copied();
        // Of a fleet: a node that was cut off, or slow, hears of it later.
        last_us.is_some_and(|last_us| self.is_fleet() || last_us + self.heard_ms_max(driver) * 1_000 >= posted_us)
    }

    /// Whether this attempt, which the audit calls declined, was: its driver said so, or went off shift while it had the offer.
    pub(super) fn was_declined(&self, offer: Offer, tried: &Tried) -> bool {
        let bit = 1u64 << tried.driver;
        let request = &self.requests[offer.request as usize];
        let attempt = request.attempts.get((offer.attempt as usize).wrapping_sub(1));
        let said = attempt.map_or(0, |attempt| attempt.decline_said.any()) | request.http_decline_said;
        if said & bit != 0 || self.is_fleet() {
            return self.was_said(tried.driver, offer, false);
        }
        self.went_off_with(tried)
    }

    /// Whether the driver went off shift while it had this offer.
    pub(super) fn went_off_with(&self, tried: &Tried) -> bool {
        let unclear = self.node.came_twice(tried.sent_at_ms) || self.node.came_twice(tried.ended_at_ms);
        let went_off = |at_us: &u64| {
            let at_ms = self.node.ms_then(*at_us);
            at_ms + self.heard_ms_max(tried.driver) >= tried.sent_at_ms && at_ms <= tried.ended_at_ms
        };
        unclear || self.drivers[tried.driver as usize].offs_us.iter().any(went_off)
    }
}

fn spoken(all: &mut Vec<(Offer, bool)>, offer: Offer, shown: bool) {
    match all.iter_mut().find(|spoken| spoken.0 == offer) {
        Some(spoken) => spoken.1 &= shown,
        None => all.push((offer, shown)),
    }
}
