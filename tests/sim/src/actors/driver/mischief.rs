//! What a driver's app does beside its work: it speaks of what is not its own, goes silent, and loses its sockets.

use super::{Deed, Driver};
use crate::client::{Action, Conn};
use crate::codec::messages::{GARBAGE_KINDS, Say};
use crate::codec::ws;
use crate::ids::Offer;
use crate::phrases;
use crate::rng::Rng;
use crate::words::Move;

/// What a silence may last beyond some heartbeats: so long that it must have been noticed.
const SILENCE_US: u64 = 12_000_000;
/// Pings whose answers no connection of a scene with small windows holds: 40 bytes each at least.
const CLOG_PINGS: u32 = 200;
/// Receipts at once that are more than a driver may send.
const BABBLE: u32 = dispatchd::limits::DRIVER_COMMANDS_BURST + 300;

impl Driver {
    pub(super) fn mischief(&mut self, out: &mut Vec<Action>) {
        if self.now_us >= self.hours.close_us {
            return;
        }
        self.later(self.temper.mischief_ms, Deed::Mischief, out);
        let Some(conn) = self.socket() else { return };
        let temper = self.temper;
        if self.rng.chance(temper.stray) {
            self.stray(conn, out);
        }
        if self.rng.chance(temper.garbage) {
            let kind = self.rng.below(u64::from(GARBAGE_KINDS)) as u8;
            self.say(conn, Say::Garbage(kind), out);
        }
        if self.rng.chance(100) {
            let place = phrases::any_place(&mut self.words);
            self.say(conn, Say::Location(place), out);
        }
        if self.rng.chance(temper.off_shift) {
            self.say(conn, Say::Shift(false), out);
            self.later(temper.mischief_ms * 2, Deed::OnShift, out);
        }
        if self.rng.chance(temper.displace) {
            self.connect(out);
        }
        if self.rng.chance(temper.stall) {
            self.witness
                .borrow_mut()
                .at(self.now_us)
                .socket_stalled(self.me, conn.0);
            out.push(Action::Stall(conn, true));
            self.later(temper.mischief_ms, Deed::ReadAgain(conn), out);
        }
        if temper.violate > 0 && self.rng.chance(temper.violate) {
            return self.violate(conn, out);
        }
        if temper.clog > 0 && self.rng.chance(temper.clog) {
            return self.clog(conn, out);
        }
        if temper.babble > 0 && !self.babbled && self.rng.chance(temper.babble) {
            self.babble(conn, out);
        }
        if temper.silent > 0 && self.rng.chance(temper.silent) {
            self.silent = Some(conn);
            let heartbeat_us = temper.heartbeat_ms * 1_000;
            let speaks_us = self.now_us + heartbeat_us + self.rng.below(8 * heartbeat_us + SILENCE_US);
            return self.todo.at(speaks_us, Deed::Speak(conn), out);
        }
        if self.rng.chance(temper.drop) {
            match self.rng.below(3) {
                0 => {
                    self.quits(conn);
                    out.push(Action::HalfClose(conn));
                    if let Some(socket) = self.sockets.iter_mut().find(|socket| socket.conn == conn) {
                        socket.closing = true;
                    }
                }
                1 => {
                    self.quits(conn);
                    let mut bytes = Vec::new();
                    ws::close(&mut bytes, 1000, self.rng.next() as u32);
                    out.push(Action::Send(conn, bytes));
                    if let Some(socket) = self.sockets.iter_mut().find(|socket| socket.conn == conn) {
                        socket.closing = true;
                    }
                }
                _ => self.abort(conn, "drops the connection", out),
            }
        }
    }

    /// Breaks the protocol, one way or another, and says no more: this socket has to be closed.
    fn violate(&mut self, conn: Conn, out: &mut Vec<Action>) {
        let code = *self.rng.pick(&[1002, 1003, 1007, 1009]);
        let mut bytes = Vec::new();
        ws::violation(&mut bytes, code, self.rng.next() as u32);
        self.witness
            .borrow_mut()
            .at(self.now_us)
            .socket_violates(self.me, conn.0, code);
        out.push(Action::Send(conn, bytes));
        if let Some(socket) = self.sockets.iter_mut().find(|socket| socket.conn == conn) {
            socket.closing = true;
        }
    }

    /// Asks for more than the connection holds, and reads nothing of it until the node must have closed the socket.
    fn clog(&mut self, conn: Conn, out: &mut Vec<Action>) {
        {
            let mut witness = self.witness.borrow_mut();
            witness.at(self.now_us).socket_stalled(self.me, conn.0);
            witness.socket_clogged(self.me, conn.0);
        }
        out.push(Action::Stall(conn, true));
        for _ in 0..CLOG_PINGS {
            self.say(conn, Say::Ping, out);
        }
        let again_us = self.now_us + self.temper.clog_ms * 1_000;
        self.todo.at(again_us, Deed::ReadAgain(conn), out);
    }

    /// Says over and over that it has the offer, and then that it does not want it, which is to be answered.
    fn babble(&mut self, conn: Conn, out: &mut Vec<Action>) {
        let Some(offer) = self.last_offer else { return };
        self.babbled = true;
        self.witness.borrow_mut().socket_babbles(self.me, conn.0);
        for _ in 0..BABBLE {
            self.say(conn, Say::Ack(offer), out);
        }
        self.say(conn, Say::Decline(offer), out);
    }

    /// The driver leaves the socket by itself.
    fn quits(&self, conn: Conn) {
        self.witness.borrow_mut().at(self.now_us).socket_quits(self.me, conn.0);
    }

    /// Speaks of an old or foreign offer, or of a foreign trip.
    fn stray(&mut self, conn: Conn, out: &mut Vec<Action>) {
        let (offer, trip) = {
            let witness = self.witness.borrow();
            let pick = |length: usize, rng: &mut Rng| rng.below(length as u64) as usize;
            let offer = (!witness.board.shown.is_empty())
                .then(|| witness.board.shown[pick(witness.board.shown.len(), &mut self.rng)]);
            let trip = (!witness.board.trips.is_empty())
                .then(|| witness.board.trips[pick(witness.board.trips.len(), &mut self.rng)]);
            (offer, trip)
        };
        if let Some(mut offer) = offer {
            if self.rng.chance(200) {
                offer.attempt += 1;
            } else if self.rng.chance(400) {
                offer = self.guess(offer);
                if self.rng.chance(self.temper.off_shift) {
                    // It is not to be had, and takes the offer all the same.
                    self.say(conn, Say::Shift(false), out);
                    self.say(conn, Say::Accept(offer), out);
                    return self.later(self.temper.mischief_ms, Deed::OnShift, out);
                }
            }
            let say = match self.rng.below(3) {
                0 => Say::Ack(offer),
                1 => Say::Accept(offer),
                _ => Say::Decline(offer),
            };
            self.say(conn, say, out);
        }
        if let Some(trip) = trip.filter(|_| self.rng.chance(300)) {
            let event = *self.rng.pick(Move::ALL);
            self.say(conn, Say::Trip(trip, event), out);
        }
    }

    /// An offer that is perhaps being made just now, mostly to this driver.
    fn guess(&mut self, or: Offer) -> Offer {
        let witness = self.witness.borrow();
        let anyone = self.rng.chance(200);
        let skipped = self.rng.below(3) as usize;
        let may_be = |request: &u32| {
            let seen = witness.request(*request);
            seen.posts > 0 && seen.end.is_none() && (anyone || seen.posted & (1 << self.me) != 0)
        };
        let newest = (0..witness.requests_len()).rev().take(30).filter(may_be).nth(skipped);
        newest.map_or(or, |request| Offer {
            request,
            attempt: witness.request(request).attempts.len() as u32 + 1,
        })
    }
}
