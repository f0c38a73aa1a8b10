//! What actors tell each other beside the node.

use crate::ids::{self, Driver as DriverNo, Offer, Trip};
use std::collections::VecDeque;

/// What actors tell each other beside the node: work for callers.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Requests that want new candidates.
    pub redispatch: VecDeque<ids::Request>,
    /// Offers that a driver answers over HTTP.
    pub by_http: VecDeque<(DriverNo, Offer, bool)>,
    /// Offers that were shown, newest last; for those who answer old or foreign ones.
    pub shown: VecDeque<Offer>,
    /// Trips, newest last.
    pub trips: VecDeque<Trip>,
    /// Drivers that were welcomed for the first time.
    pub arrivals: Vec<DriverNo>,
}

impl Board {
    /// Longest lists.
    const LEN_MAX: usize = 32;

    /// An offer was shown.
    pub fn push_shown(&mut self, offer: Offer) {
        if self.shown.len() == Self::LEN_MAX {
            self.shown.pop_front();
        }
        self.shown.push_back(offer);
    }

    /// A trip was heard of.
    pub fn push_trip(&mut self, trip: Trip) {
        if self.trips.len() == Self::LEN_MAX {
            self.trips.pop_front();
        }
        self.trips.push_back(trip);
    }
}
