//! What drivers say on a socket that lives to the end has its effect: nothing that was said on it is lost, and no crash
//! came after it.

use super::audits::{Life, Tried};
use super::state::{Moved, Receipt, Socket, ways};
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::ids::{Driver, Offer, Trip};
use crate::words::Move;

impl Socket {
    /// The driver says that it has the offer.
    pub(super) fn receipt_said(&mut self, offer: Offer) {
        self.receipts.push(Receipt {
            offer,
            // Of the pings said so far, and of the next one.
            pongs_left: self.pings + 1,
            taken_ms: None,
        });
    }

    /// A `PONG`: what was said before its ping was taken, by `server_ms` at the latest.
    pub(super) fn receipts_taken(&mut self, server_ms: u64) {
        for receipt in self.receipts.iter_mut().filter(|receipt| receipt.taken_ms.is_none()) {
            receipt.pongs_left -= 1;
            if receipt.pongs_left == 0 {
                receipt.taken_ms = Some(server_ms);
            }
        }
    }
}

impl Witness {
    /// The driver says this of its own trip.
    pub(super) fn moved(&mut self, driver: Driver, conn: u32, trip: Trip, event: Move) {
        let (at_us, own) = (self.now_us, self.trip_seen(trip).driver == Some(driver));
        if let Some(socket) = self.socket(driver, conn).filter(|_| own) {
            socket.moved.push(Moved { trip, event, at_us });
        }
    }

    /// At the end: trips have moved as their drivers said, and receipts are in the audits.
    pub(super) fn check_effects(&mut self, lives: &[Option<Life>]) {
        for driver in 0..self.drivers.len() as Driver {
            let sockets = self.drivers[driver as usize].sockets.clone();
            for socket in sockets
                .iter()
                .filter(|socket| socket.session.is_some() && !socket.stalled)
            {
                for moved in &socket.moved {
                    self.check_moved(driver, *moved, lives);
                }
                for receipt in &socket.receipts {
                    self.check_receipt(driver, *receipt, lives);
                }
            }
        }
    }

    fn check_moved(&mut self, driver: Driver, moved: Moved, lives: &[Option<Life>]) {
        let Some(request) = self.trip_seen(moved.trip).request else {
            return;
        };
        let life = lives[request as usize].as_ref();
        let Some(trip) = life.and_then(|life| life.trip).filter(|trip| trip.trip == moved.trip) else {
            return;
        };
        let done = match moved.event {
            Move::Arrived => true,
            Move::Pickup => trip.picked_up_at_ms.is_some() || trip.ended.is_some(),
            Move::Complete | Move::Cancel => trip.ended.is_some(),
        };
        let in_time = moved.at_us + SLACK_US > self.now_us;
        if !self.holds(Check::Answered, done || in_time) {
            let text = format!(
                "d{driver} said {} of trip {}, and the trip is {trip:?}",
                moved.event.as_str(),
                moved.trip
            );
            self.violate(Check::Answered, About::both(request, driver), text);
        }
    }

    fn check_receipt(&mut self, driver: Driver, receipt: Receipt, lives: &[Option<Life>]) {
        let (offer, margin_ms) = (receipt.offer, self.expect.order_margin_ms);
        let Some(taken_ms) = receipt.taken_ms else { return };
        let life = lives[offer.request as usize].as_ref();
        let Some(tried) = life.and_then(|life| life.tried.get(offer.attempt as usize - 1)) else {
            return;
        };
        // By a time that came twice an offer that was over before the clock was set back may seem to end after the receipt.
        let until_ms = taken_ms + margin_ms;
        if self.node.came_twice(taken_ms) || self.node.came_twice(until_ms) || self.is_fleet() {
            return;
        }
        // Long enough after it was taken, and before that nobody could have ended the offer.
        let held = |tried: &Tried| tried.way == ways::OPEN || tried.ended_at_ms > until_ms;
        let owed = tried.driver == driver && tried.way != ways::REFUSED && held(tried);
        if !self.holds(Check::AuditComplete, !owed || tried.acked) {
            let text = format!("d{driver} acknowledged {offer} before {taken_ms}, and the audit lacks it: {tried:?}");
            self.violate(Check::AuditComplete, About::both(offer.request, driver), text);
        }
    }
}
