//! What a socket is owed: an answer for each thing said on it, in order. And what it is not: a `DECLINED` for an `ACCEPT`.

use super::state::Socket;
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::codec::messages::Say;
use crate::ids::{Driver, Offer};
use crate::words::{DriverState, Move};
use std::collections::VecDeque;

/// Things said on a socket that have no answer yet: when, simulated microseconds, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Owed {
    /// `PING`s, each answered with a `PONG`.
    pub pings: VecDeque<u64>,
    /// Things that are no messages, each answered with an `ERROR`.
    pub garbage: VecDeque<u64>,
    /// Words about trips of others, each answered with `no_such_trip`.
    foreign: VecDeque<u64>,
    /// Words that are each answered with a `STATE`, and whether they are about a trip.
    states: VecDeque<(u64, bool)>,
}

impl Owed {
    /// A `STATE` that nothing else caused: one word that it may answer has been. Who says that it is available is never answered
    /// that it is offline, so any other `STATE` is for such a word if there is one: a word about an old trip may have to be looked
    /// up and be answered behind it.
    fn state_told(&mut self, state: DriverState) {
        let of_shift = self.states.iter().position(|owed| !owed.1);
        let of_trip = self.states.iter().position(|owed| owed.1);
        let first = of_shift.filter(|_| state != DriverState::Offline);
        if let Some(index) = first.or(of_trip) {
            self.states.remove(index);
        }
    }

    /// The oldest of each, for people.
    fn oldest(&self) -> [(Option<u64>, &'static str); 4] {
        [
            (self.pings.front().copied(), "a PING"),
            (self.garbage.front().copied(), "what is no message"),
            (self.foreign.front().copied(), "what it said of a trip of another"),
            (
                self.states.front().map(|owed| owed.0),
                "what it said of its trip or shift",
            ),
        ]
    }
}

impl Socket {
    /// What it has waited for an answer to since before this time, for people.
    pub(super) fn waits_since(&self, before_us: u64) -> Option<(u64, &'static str)> {
        let waits = self.owed.oldest().into_iter();
        let mut late = waits.filter_map(|(at_us, what)| Some((at_us.filter(|at_us| *at_us < before_us)?, what)));
        late.next()
    }
}

impl Witness {
    /// The driver says something on a socket that is to be answered there.
    pub(super) fn answer_owed(&mut self, driver: Driver, conn: u32, say: Say) {
        let (now_us, may_be_cut_off) = (self.now_us, self.may_be_cut_off_at(self.now_us));
        let whose = match say {
            Say::Trip(trip, _) => self.trip_seen(trip).driver,
            _ => None,
        };
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        let owed = &mut socket.owed;
        match say {
            Say::Ping => owed.pings.push_back(now_us),
            Say::Garbage(_) => owed.garbage.push_back(now_us),
            // Of a fleet: another node, which may not answer, has the trip, or has heard of the shift.
            _ if may_be_cut_off => {}
            // It goes on or ends, or has: either is told. That it arrived changes nothing.
            Say::Trip(_, event) if whose == Some(driver) && event != Move::Arrived => {
                owed.states.push_back((now_us, true));
            }
            Say::Trip(..) if whose.is_some_and(|whose| whose != driver) => owed.foreign.push_back(now_us),
            // Who goes off shift while it has an offer hears of that first, and of its shift when that changes.
            Say::Shift(true) => owed.states.push_back((now_us, false)),
            _ => {}
        }
    }

    /// A `STATE` is heard, by itself after what was told just before, or as an answer.
    pub(super) fn state_answers(&mut self, driver: Driver, conn: u32, state: DriverState, by_itself: bool) {
        if let Some(socket) = self.socket(driver, conn).filter(|_| !by_itself) {
            socket.owed.state_told(state);
        }
    }

    /// `no_such_trip`: one word about a trip of another has been answered.
    pub(super) fn foreign_answered(&mut self, driver: Driver, conn: u32) {
        if let Some(socket) = self.socket(driver, conn) {
            socket.owed.foreign.pop_front();
        }
    }

    /// What a socket that lives waits for an answer to since long ago, for people.
    pub(super) fn owed_long(&self, driver: Driver, socket: &Socket, over_us: u64) -> Option<String> {
        if socket.closing || over_us + SLACK_US >= self.now_us {
            return None;
        }
        let (at_us, what) = socket.waits_since(self.now_us - SLACK_US)?;
        Some(format!("d{driver} was not answered {what}, at {at_us}"))
    }

    /// The driver says `DECLINE` on a socket, or that it has an offer which may be declined by then: one `DECLINED` answers it.
    pub(super) fn declined_owed(&mut self, driver: Driver, say: Say) {
        let offer = match say {
            Say::Decline(offer) => offer,
            Say::Ack(offer) if self.is_asked(offer) && self.was_said(driver, offer, false) => offer,
            _ => return,
        };
        *self.drivers[driver as usize].declines.entry(offer).or_default() += 1;
    }

    fn is_asked(&self, offer: Offer) -> bool {
        (offer.request as usize) < self.requests.len()
    }

    /// `DECLINED` is heard: by who said so. An `ACCEPT` after that is answered otherwise.
    pub(super) fn declined_answers(&mut self, driver: Driver, offer: Offer) {
        let elsewhere = self.is_fleet() || self.may_be_declined_elsewhere(driver, offer);
        let left = self.drivers[driver as usize].declines.entry(offer).or_default();
        let ok = *left > 0 || elsewhere;
        *left = left.saturating_sub(1);
        if !self.holds(Check::SameAnswer, ok) {
            let text = format!("d{driver} hears DECLINED of {offer} more often than it said so");
            self.violate(Check::SameAnswer, About::both(offer.request, driver), text);
        }
    }
}
