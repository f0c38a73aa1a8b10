//! Offers of which a driver here has heard the end, whatever their request's node knows: one that hung says what it had to say before
//! others took over, and one that took over has not heard what was said to a node that died.

use crate::fsm::fold::Outcome;
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::request::{RequestEvent, ToDriver};
use crate::fsm::types::{RefuseReason, RevokeReason};
use crate::shard::{Platform, Shard};

/// How long that is remembered, in ms: longer than the longest offer lasts. Later its id may be a new request's.
const OVER_MAX_MS: u64 = 15 * 60_000;

/// An offer of which a driver has heard the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    attempt: u32,
    told_ms: u64,
    /// The driver was told before its request decided so: whoever makes the offer again has not heard why.
    refused: Option<RefuseReason>,
}

impl<P: Platform> Shard<P> {
    /// A driver here has been told that an offer is none any more. Its request's node may die before it hears so.
    pub(in crate::shard) fn note_taken_back(
        &mut self,
        key: u32,
        request_id: &RequestId,
        attempt: u32,
        reason: RefuseReason,
    ) {
        let driver_id = self.drivers.slab[key as usize].driver.id().clone();
        self.note_over(&driver_id, request_id, attempt, Some(reason));
    }

    /// Nodes that share no store may have two requests of one id: of those nobody knows which it was.
    fn note_over(&mut self, driver_id: &DriverId, request_id: &RequestId, attempt: u32, refused: Option<RefuseReason>) {
        if let Some(routing) = self.routing.as_mut().filter(|_| self.claims.is_some()) {
            let over = Over {
                attempt,
                told_ms: self.now_ms,
                refused,
            };
            routing.over.insert((driver_id.hash64(), request_id.hash64()), over);
        }
    }

    /// Whether this is an offer of which the driver has heard the end, from a node that has not. It would hear two ends of it.
    pub(super) fn is_of_over(&mut self, driver_id: &DriverId, request_id: &RequestId, message: &ToDriver) -> bool {
        match *message {
            // What is superseded here may be offered again by a new owner.
            ToDriver::Outcome {
                attempt,
                outcome:
                    Outcome::Accepted
                    | Outcome::Declined
                    | Outcome::TimedOut
                    | Outcome::Revoked(RevokeReason::Taken | RevokeReason::Cancelled),
                ..
            } => {
                self.note_over(driver_id, request_id, attempt, None);
                false
            }
            ToDriver::Offer { attempt, .. } => {
                let place = (driver_id.hash64(), request_id.hash64());
                let over = (self.routing.as_mut()).and_then(|routing| routing.over.get(&place));
                let is_it = |over: &Over| over.attempt == attempt && self.now_ms < over.told_ms + OVER_MAX_MS;
                let Some(over) = over.filter(is_it) else {
                    return false;
                };
                if let Some(reason) = over.refused {
                    let driver_id = driver_id.clone();
                    let refused = RequestEvent::Refused {
                        attempt,
                        driver_id,
                        reason,
                    };
                    self.post_to_request(request_id.clone(), refused);
                }
                true
            }
            _ => false,
        }
    }
}
