//! The channel of an answer, as the audit has it, is one by which the driver's answer came.

use super::Witness;
use super::audits::{Life, Tried};
use super::state::ways;
use crate::checks::{About, Check};
use crate::ids::{Offer, Request};

impl Witness {
    /// At the end: whatever was answered by one way only is noted as that.
    pub(super) fn check_channels(&mut self, request: Request, life: &Life) {
        // Of a fleet: a node that takes a request over hears from the driver's node what the driver said, and not how.
        if self.is_fleet() {
            return;
        }
        for (attempt, tried) in (1..).zip(&life.tried) {
            let offer = Offer { request, attempt };
            let (by_socket, by_http) = match tried.way {
                ways::ACCEPTED => self.ways_said(offer, tried, true),
                ways::DECLINED => self.ways_said(offer, tried, false),
                _ => continue,
            };
            let came = if tried.by_socket { by_socket } else { by_http };
            if !self.holds(Check::Caused, came) {
                let (noted, said) = if tried.by_socket {
                    ("by socket", "over HTTP")
                } else {
                    ("over HTTP", "by socket")
                };
                let text = format!(
                    "{offer} is answered {noted}, and d{} did that only {said}",
                    tried.driver
                );
                return self.violate(Check::Caused, About::both(request, tried.driver), text);
            }
        }
    }

    /// Whether the driver answered so by socket, and over HTTP. Who goes off shift declines on its socket.
    fn ways_said(&self, offer: Offer, tried: &Tried, accept: bool) -> (bool, bool) {
        let bit = 1u64 << tried.driver;
        let seen = &self.requests[offer.request as usize];
        let attempt = seen.attempts.get((offer.attempt as usize).wrapping_sub(1));
        let said = attempt.map_or_else(Default::default, |attempt| {
            if accept {
                attempt.accept_said
            } else {
                attempt.decline_said
            }
        });
        let unnumbered = if accept {
            seen.http_accept_said
        } else {
            seen.http_decline_said
        };
        let went_off = !accept && self.went_off_with(tried);
        (
            said.by_socket & bit != 0 || went_off,
            (said.by_http | unnumbered) & bit != 0,
        )
    }
}
