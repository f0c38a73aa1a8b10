//! Offers that a socket had are in the audits as delivered: the node wrote them before the driver read them.

use super::Witness;
use super::audits::{Life, Tried};
use super::state::{Delivery, ways};
use crate::checks::{About, Check};
use crate::ids::{Driver, Offer, Request};

impl Witness {
    /// How long after a driver has an offer its node may still be about to note that, milliseconds.
    pub(super) fn noting_ms(&self) -> u64 {
        3 * (self.expect.order_margin_ms + self.expect.inside_margin_ms)
    }

    /// A driver has an offer on this socket.
    pub(super) fn delivered(&mut self, driver: Driver, conn: u32, offer: Offer) {
        let (at_us, at_ms) = (self.now_us, self.node_ms_at(self.now_us));
        let (up, booted_us) = (self.node.up, self.node.boots.last().map_or(0, |boot| boot.1));
        if let Some(attempt) = self.requests[offer.request as usize].attempt_mut(offer.attempt)
            && attempt.heard_ms == 0
        {
            attempt.heard_ms = at_ms;
        }
        // One that was on its way when its node ended says nothing.
        if let Some(socket) = self.socket(driver, conn)
            && (up && socket.is_well() && socket.opened_us >= booted_us)
        {
            socket.deliveries.push(Delivery { offer, at_us, at_ms });
        }
    }

    /// The socket is not well any more, or the run ends: what it had long enough ago the node has noted.
    pub(super) fn deliveries_noted(&mut self, driver: Driver, conn: u32) {
        let (now_us, noting_ms) = (self.now_us, self.noting_ms());
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        for Delivery { offer, at_us, at_ms } in std::mem::take(&mut socket.deliveries) {
            if at_us + noting_ms * 1_000 <= now_us
                && let Some(attempt) = self.requests[offer.request as usize].attempt_mut(offer.attempt)
                && attempt.noted_by_ms == 0
            {
                (attempt.heard_ms, attempt.noted_by_ms) = (at_ms, at_ms + noting_ms);
            }
        }
    }

    /// At the end: who had an offer well before that was over has it in the audit.
    pub(super) fn check_deliveries(&mut self, lives: &[Option<Life>]) {
        for driver in 0..self.drivers.len() as Driver {
            let sockets = &self.drivers[driver as usize].sockets;
            let conns: Vec<u32> = sockets.iter().map(|socket| socket.conn).collect();
            for conn in conns {
                self.deliveries_noted(driver, conn);
            }
        }
        // A receipt that was on its way from one node to another is lost with either of them.
        if self.is_fleet() {
            return;
        }
        for (request, life) in (0..).zip(lives) {
            let Some(life) = life else { continue };
            for (attempt, tried) in (1..).zip(&life.tried) {
                let offer = Offer { request, attempt };
                self.check_had_socket(offer, tried);
                self.check_delivery(offer, tried);
            }
        }
    }

    /// What is noted as delivered was written to a socket: one of the driver was open since the offer was sent.
    fn check_had_socket(&mut self, offer: Offer, tried: &Tried) {
        let Some(at_ms) = tried.delivered_at_ms else {
            return;
        };
        let (late_ms, inside_ms) = (self.late_ms(), self.expect.inside_margin_ms);
        let (from_ms, to_ms) = (tried.sent_at_ms.saturating_sub(inside_ms), at_ms + inside_ms);
        // Of a clock that was moved, whichever time it may have been.
        let was_open = |stay: &(u32, u64, u64)| {
            let over_ms = self.latest_ms_at(stay.2.min(self.now_us)) + late_ms;
            self.earliest_ms_at(stay.1) <= to_ms && from_ms <= over_ms
        };
        let ok = self.drivers[tried.driver as usize].stays.iter().any(was_open);
        if !self.holds(Check::Caused, ok) {
            let text = format!(
                "d{} had no socket to which {offer} was written: {tried:?}",
                tried.driver
            );
            self.violate(Check::Caused, About::both(offer.request, tried.driver), text);
        }
    }

    fn check_delivery(&mut self, offer: Offer, tried: &Tried) {
        let known = &self.requests[offer.request as usize].attempts;
        let Some(known) = known.get(offer.attempt as usize - 1) else {
            return;
        };
        let (heard_ms, by_ms) = (known.heard_ms, known.noted_by_ms);
        let noted = tried.way != ways::REFUSED && self.is_in_one_boot(heard_ms, by_ms);
        if by_ms == 0 || !noted {
            return;
        }
        let lasted = tried.way == ways::OPEN || tried.ended_at_ms > by_ms;
        if !self.holds(Check::AuditComplete, !lasted || tried.delivered_at_ms.is_some()) {
            let text = format!(
                "d{} had {offer} at {heard_ms}, and the audit lacks it: {tried:?}",
                tried.driver
            );
            self.violate(Check::AuditComplete, About::both(offer.request, tried.driver), text);
        }
    }

    /// From when on a driver held an offer for certain, node time: as the audit says, or else as the driver saw it, by when the
    /// node has written down what it decided before; a node that ends until then may not have.
    pub(super) fn held_from_ms(&self, request: Request, attempt: u32, tried: &Tried) -> Option<u64> {
        let known = self.requests[request as usize].attempts.get(attempt as usize - 1);
        let heard_ms = known.map_or(0, |known| known.heard_ms);
        let from_ms = heard_ms + self.noting_ms();
        let noted = heard_ms > 0 && !self.node.is_end_near(heard_ms, from_ms);
        let seen = noted && (tried.way == ways::OPEN || from_ms < tried.ended_at_ms);
        tried.delivered_at_ms.or(seen.then_some(from_ms))
    }
}
