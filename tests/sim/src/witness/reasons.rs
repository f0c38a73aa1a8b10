//! Why callers cancelled is noted and told as they said it.

use super::Witness;
use super::audits::Life;
use crate::checks::{About, Check};
use crate::ids::Request;
use crate::phrases;
use crate::words::{State, TripEnd};

impl Witness {
    /// At the end: the reasons in the audit are those of callers, and what the driver was told.
    pub(super) fn check_reasons(&mut self, request: Request, life: &Life) {
        let seen = &self.requests[request as usize];
        let cancelled = life.end.is_some_and(|(end, _)| end == State::Cancelled);
        let said = seen.cancels_said;
        if !self.holds(Check::Caused, !cancelled || said & (1 << life.cancel_reason) != 0) {
            let reason = phrases::reason(life.cancel_reason);
            let text = format!("r{request} was cancelled for {reason:?}, which nobody said: {said:#b}");
            return self.violate(Check::Caused, About::request(request), text);
        }
        let Some(trip) = life.trip else { return };
        let cancelled = trip.ended.is_some_and(|(_, how)| how == TripEnd::Cancelled);
        let seen = self.trip_seen(trip.trip);
        let said = seen.api_cancels_said & (1 << trip.reason) != 0;
        let told = seen.told_reason.is_none_or(|told| told == trip.reason);
        if !self.holds(Check::Caused, !cancelled || (said && told)) {
            let reason = phrases::reason(trip.reason);
            let text = format!("the trip of r{request} was cancelled for {reason:?}, as the audit has it: {seen:?}");
            self.violate(Check::Caused, About::both(request, trip.driver), text);
        }
    }
}
