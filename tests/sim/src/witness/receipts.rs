//! `ACK`s that the node has read are in the audits: it answered what was said after them on the same socket.

use super::Witness;
use super::audits::{Life, Tried};
use super::state::{Attempt, Receipt, Socket, ways};
use crate::checks::{About, Check};
use crate::ids::{Driver, Offer, Request};

impl Socket {
    /// A `PONG`: what was said before its ping has been read. Returns of which offers that says so first.
    fn receipts_read(&mut self) -> Vec<Offer> {
        for receipt in &mut self.receipts {
            receipt.pongs_left -= 1;
        }
        let read = self.receipts.extract_if(.., |receipt| receipt.pongs_left == 0);
        read.map(|receipt| receipt.offer).collect()
    }
}

impl Witness {
    /// The driver says on this socket that it has the offer, which it was shown.
    pub(super) fn receipt_said(&mut self, driver: Driver, conn: u32, offer: Offer) {
        let Some(attempt) = self.requests[offer.request as usize].attempt_mut(offer.attempt) else {
            return;
        };
        let answered = (attempt.accept_said.any() | attempt.decline_said.any()) & (1 << driver) != 0;
        if attempt.acked_on.is_none() && !answered {
            attempt.acked_on = Some(conn);
        }
        if let Some(socket) = self.socket(driver, conn) {
            // Of the pings said so far, and of the next one.
            let pongs_left = socket.owed.pings.len() as u32 + 1;
            socket.receipts.push(Receipt { offer, pongs_left });
        }
    }

    /// A `PONG` of this time, the node's, is heard.
    pub(super) fn receipts_read(&mut self, driver: Driver, conn: u32, server_ms: u64) {
        let read = self.socket(driver, conn).map(Socket::receipts_read);
        for offer in read.unwrap_or_default() {
            if let Some(attempt) = self.requests[offer.request as usize].attempt_mut(offer.attempt) {
                attempt.acked_by_ms.push(server_ms);
            }
        }
    }

    /// At the end: receipts that were read while the offer was open are in the audits.
    pub(super) fn check_receipts(&mut self, request: Request, life: &Life) {
        // A receipt that was on its way from one node to another is lost with either of them.
        if self.is_fleet() {
            return;
        }
        for (number, tried) in (1..).zip(&life.tried) {
            let seen = &self.requests[request as usize];
            let Some(attempt) = seen.attempts.get(number as usize - 1) else {
                return;
            };
            let offer = Offer {
                request,
                attempt: number,
            };
            let owed = self.was_read_first(offer, attempt, tried) || self.was_read_in_time(attempt, tried);
            if !self.holds(Check::AuditComplete, !owed || tried.acked) {
                let text = format!(
                    "d{} acknowledged {offer}, and the audit lacks it: {tried:?}",
                    tried.driver
                );
                return self.violate(Check::AuditComplete, About::both(request, tried.driver), text);
            }
        }
    }

    /// Whether its driver's answer, which ended it, came behind a receipt on the same socket, and nobody answered elsewhere: the two
    /// are read, decided and written down in their order.
    fn was_read_first(&self, offer: Offer, attempt: &Attempt, tried: &Tried) -> bool {
        let seen = &self.requests[offer.request as usize];
        let bit = 1u64 << tried.driver;
        let answered = match tried.way {
            ways::ACCEPTED => attempt.accept_said.by_socket & bit != 0,
            ways::DECLINED => attempt.decline_said.by_socket & bit != 0 && !self.went_off_with(tried),
            _ => false,
        };
        let elsewhere = attempt.answered_elsewhere || (seen.http_accept_said | seen.http_decline_said) & bit != 0;
        attempt.driver == Some(tried.driver) && attempt.acked_on.is_some() && answered && !elsewhere
    }

    /// Whether a receipt was read long enough before the offer ended, or the node did: it has been noted then.
    fn was_read_in_time(&self, attempt: &Attempt, tried: &Tried) -> bool {
        let noting_ms = self.noting_ms();
        let lasted = |read_ms: u64| {
            let ended = tried.way != ways::OPEN && tried.ended_at_ms <= read_ms + noting_ms;
            !ended && self.is_in_one_boot(read_ms, read_ms + noting_ms)
        };
        let own = attempt.driver == Some(tried.driver) && tried.way != ways::REFUSED;
        own && attempt.acked_by_ms.iter().any(|read_ms| lasted(*read_ms))
    }
}
