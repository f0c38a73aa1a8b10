//! Offers of which a driver here has heard the end, whatever their request's node knows: one that hung says what it had to say before
//! others took over, and one that took over has not heard what was said to a node that died.

use crate::fsm::fold::Outcome;
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::request::{RequestEvent, ToDriver};
use crate::fsm::types::{RefuseReason, RevokeReason};
use crate::shard::{Platform, Shard};

/// An offer of which a driver has heard the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over {
    attempt: u32,
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
        if let Some(routing) = &mut self.routing {
            let driver_id = self.drivers.slab[key as usize].driver.id();
            let refused = Some(reason);
            let place = (driver_id.hash64(), request_id.hash64());
            routing.over.insert(place, Over { attempt, refused });
        }
    }

    /// Whether this is an offer of which the driver has heard the end, from a node that has not. It would hear two ends of it.
    pub(super) fn is_of_over(&mut self, driver_id: &DriverId, request_id: &RequestId, message: &ToDriver) -> bool {
        let Some(routing) = &mut self.routing else { return false };
        let place = (driver_id.hash64(), request_id.hash64());
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
                routing.over.insert(place, Over { attempt, refused: None });
                false
            }
            ToDriver::Offer { attempt, .. } => {
                let Some(over) = routing.over.get(&place).filter(|over| over.attempt == attempt) else {
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
