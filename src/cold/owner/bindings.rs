//! A driver has one trip in the whole fleet: the binding.
//!
//! The driver who wins is bound before the request is decided. So a binding may stand although its request never came to be
//! accepted, or its trip is over; then it is void, which its request says, and the next one takes its place, on the condition
//! that it is still the one that was found void.

use super::Owner;
use super::port::{Binding, Failed, Place, Tables};
use crate::fsm::fold::{Fold, Outcome, TripPhase};
use crate::fsm::ids::{DriverId, RequestId};
use crate::ops::metrics::LwtKind;

/// Whether a driver can have a trip.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    /// The driver is bound to this request.
    Here,
    /// The driver has another trip.
    Elsewhere,
}

/// What a binding means.
enum Standing {
    Void,
    HasTrip,
    /// Its request may be accepting at this moment.
    Open,
}

impl<T: Tables, P: Place> Owner<T, P> {
    /// Binds a driver to a request's trip.
    ///
    /// # Errors
    /// It is not known whether that was done: to be repeated.
    pub(super) async fn bind(&self, tables: &T, binding: &Binding<'_>) -> Result<Bound, Failed> {
        let told = tables.note_trip(binding);
        let bound = self.conditional(LwtKind::Bind, tables.bind(binding));
        let (told, bound) = futures_util::future::join(told, bound).await;
        told?;
        if bound? {
            return Ok(Bound::Here);
        }
        let Some(holder) = self.binding_of(tables, binding.driver_id).await? else {
            return Err(Failed::again("a binding was released just now"));
        };
        if holder == *binding.request_id {
            return Ok(Bound::Here);
        }
        match self.standing(tables, &holder, binding.driver_id).await? {
            Standing::HasTrip => Ok(Bound::Elsewhere),
            Standing::Open => Err(Failed::again("the driver may be accepting another request")),
            Standing::Void => {
                let rebound = tables.rebind(binding, &holder);
                if self.conditional(LwtKind::Bind, rebound).await? {
                    return Ok(Bound::Here);
                }
                Err(Failed::again("a binding was changed just now"))
            }
        }
    }

    async fn binding_of(&self, tables: &T, driver_id: &DriverId) -> Result<Option<RequestId>, Failed> {
        let _turn = self.permit(LwtKind::Read).await;
        tables.holder_of(driver_id).await
    }

    /// What the binding of this driver to that request means, as the request says.
    async fn standing(&self, tables: &T, holder: &RequestId, driver_id: &DriverId) -> Result<Standing, Failed> {
        let Some(found) = self.find_decided(tables, holder).await? else {
            return Ok(Standing::Void);
        };
        let fold = Fold::of(&found.decided).map_err(|_| Failed::broken("a request does not fold"))?;
        Ok(match fold.attempt_of(driver_id).map(|(_, attempt)| attempt.outcome) {
            Some(Outcome::Open) => Standing::Open,
            Some(Outcome::Accepted) => {
                let is_over = |trip: &crate::fsm::fold::Trip| matches!(trip.phase, TripPhase::Ended(_));
                if fold.trip.as_ref().is_some_and(is_over) {
                    Standing::Void
                } else {
                    Standing::HasTrip
                }
            }
            Some(Outcome::Declined | Outcome::TimedOut | Outcome::Refused(_) | Outcome::Revoked(_)) | None => {
                Standing::Void
            }
        })
    }

    /// Releases a driver from this request's trip, until that is done.
    pub(super) async fn release(&self, request_id: &RequestId, driver_id: &DriverId) {
        self.until_done("release a driver", async |tables| {
            let done = self
                .conditional(LwtKind::Release, tables.unbind(driver_id, request_id))
                .await;
            // Not bound to it any more is as good.
            done.map(drop)
        })
        .await;
    }
}
