//! A driver has one trip in the whole fleet: the binding.
//!
//! The driver who wins is bound before the request is decided. So a binding may stand although its request never came to be
//! accepted, or its trip is over; then it is void, which its request says, and the next one takes its place, on the condition
//! that it is still the one that was found void.

use super::claim_statements::request_ttl_s;
use super::claims::{Failed, Owner};
use super::reads::unread;
use super::session::Ready;
use crate::fsm::fold::{Fold, Outcome, TripPhase};
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::UnixMs;
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

impl Owner {
    /// Binds a driver to a request's trip.
    ///
    /// # Errors
    /// It is not known whether that was done: to be repeated.
    pub(super) async fn bind(
        &self,
        ready: &Ready,
        (request_id, received_at_ms): (&RequestId, UnixMs),
        driver_id: &DriverId,
        trip_id: &TripId,
    ) -> Result<Bound, Failed> {
        let (request, driver, trip) = (request_id.as_str(), driver_id.as_str(), trip_id.as_str());
        let ttl_s = request_ttl_s(&self.core.config, received_at_ms);
        let told = ready.write(&ready.claims.insert_trip, (trip, request, ttl_s));
        let bound = self.lwt(ready, LwtKind::Bind, &ready.claims.bind, (driver, request, trip, ttl_s));
        let (told, bound) = tokio::join!(told, bound);
        told?;
        if bound? {
            return Ok(Bound::Here);
        }
        let Some(holder) = self.binding_of(ready, driver).await? else {
            return Err(Failed::again("a binding was released just now"));
        };
        if holder == *request_id {
            return Ok(Bound::Here);
        }
        match self.standing(ready, &holder, driver_id).await? {
            Standing::HasTrip => Ok(Bound::Elsewhere),
            Standing::Open => Err(Failed::again("the driver may be accepting another request")),
            Standing::Void => {
                let values = (ttl_s, request, trip, driver, holder.as_str());
                if self.lwt(ready, LwtKind::Bind, &ready.claims.rebind, values).await? {
                    return Ok(Bound::Here);
                }
                Err(Failed::again("a binding was changed just now"))
            }
        }
    }

    async fn binding_of(&self, ready: &Ready, driver: &str) -> Result<Option<RequestId>, Failed> {
        let _permit = self.permit(LwtKind::Read).await;
        let asked = ready.session.execute_unpaged(&ready.claims.select_binding, (driver,));
        let rows = asked.await.map_err(unread)?.into_rows_result().map_err(unread)?;
        let found = rows.maybe_first_row::<(Option<String>,)>().map_err(unread)?;
        let Some((Some(text),)) = found else { return Ok(None) };
        RequestId::parse(&text)
            .map(Some)
            .map_err(|_| Failed::broken("a binding holds no id"))
    }

    /// What the binding of this driver to that request means, as the request says.
    async fn standing(&self, ready: &Ready, holder: &RequestId, driver_id: &DriverId) -> Result<Standing, Failed> {
        let Some(found) = self.find_decided(ready, holder).await? else {
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
        self.until_done("release a driver", async |ready| {
            let values = (driver_id.as_str(), request_id.as_str());
            let done = self.lwt(ready, LwtKind::Release, &ready.claims.unbind, values).await;
            // Not bound to it any more is as good.
            done.map(drop)
        })
        .await;
    }
}
