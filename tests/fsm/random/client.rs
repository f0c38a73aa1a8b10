//! What a driver's app makes of what it hears, and what it must never hear.

use dispatchd::fsm::driver::ToSocket;
use dispatchd::fsm::ids::{RequestId, TripId};
use dispatchd::fsm::types::{DriverState, RevokeReason};
use std::collections::{BTreeMap, BTreeSet};

/// An attempt as an app names it.
pub type Offered = (RequestId, u32);

/// The answer that an attempt got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    Confirmed(TripId),
    Declined,
    Revoked(RevokeReason),
}

/// One driver's app, over all its sockets.
#[derive(Default)]
pub struct Client {
    /// The offer on the screen.
    pub open: Option<Offered>,
    /// As `WELCOME` and `STATE` said.
    pub state: Option<(DriverState, Option<TripId>)>,
    offered: BTreeSet<Offered>,
    asked: BTreeSet<Offered>,
    outcomes: BTreeMap<Offered, Heard>,
}

impl Client {
    /// The app says something of this attempt.
    pub fn asks(&mut self, offer: Offered) {
        self.asked.insert(offer);
    }

    /// The socket is gone: the screen shows nothing that holds.
    pub fn loses_socket(&mut self) {
        self.open = None;
        self.state = None;
    }

    pub fn hears(&mut self, message: &ToSocket) {
        match message {
            ToSocket::Welcome { state, trip_id, .. } => {
                self.open = None;
                self.state = Some((without_offer(*state), trip_id.clone()));
            }
            ToSocket::Offer {
                request_id, attempt, ..
            } => {
                let offer = (request_id.clone(), *attempt);
                assert!(self.open.is_none(), "{offer:?} while {:?} is open", self.open);
                assert!(!self.outcomes.contains_key(&offer), "{offer:?} is over and offered");
                assert!(
                    self.state.as_ref().is_some_and(|(_, trip)| trip.is_none()),
                    "{offer:?} on a trip"
                );
                self.offered.insert(offer.clone());
                self.open = Some(offer);
            }
            ToSocket::Confirmed {
                request_id,
                attempt,
                trip_id,
            } => {
                self.outcome((request_id.clone(), *attempt), Heard::Confirmed(trip_id.clone()));
            }
            ToSocket::Declined { request_id, attempt } => self.outcome((request_id.clone(), *attempt), Heard::Declined),
            ToSocket::Revoked {
                request_id,
                attempt,
                reason,
            } => {
                self.outcome((request_id.clone(), *attempt), Heard::Revoked(*reason));
            }
            ToSocket::State { state, trip_id } => self.state = Some((*state, trip_id.clone())),
            ToSocket::TripCancelled { trip_id, .. } => {
                let (_, bound) = self.state.as_ref().expect("a WELCOME comes first");
                assert_eq!(
                    bound.as_ref(),
                    Some(trip_id),
                    "a trip that the app does not have is cancelled"
                );
            }
            ToSocket::NoSuchOffer { .. } | ToSocket::NoSuchTrip => {}
        }
    }

    fn outcome(&mut self, offer: Offered, heard: Heard) {
        let known = self.offered.contains(&offer) || self.asked.contains(&offer);
        assert!(
            known,
            "an outcome of {offer:?}, never offered and never asked about: {heard:?}"
        );
        if self.open.as_ref() == Some(&offer) {
            self.open = None;
        }
        let superseded = Heard::Revoked(RevokeReason::Superseded);
        match self.outcomes.get(&offer) {
            None => {
                self.outcomes.insert(offer, heard);
            }
            Some(first) if *first == heard => {}
            // An ACCEPT after one's own DECLINE, or the other order when another owner took the request.
            Some(Heard::Declined) => assert_eq!(heard, superseded, "{offer:?}"),
            Some(first) => assert!(
                *first == superseded && heard == Heard::Declined,
                "{offer:?}: {first:?}, then {heard:?}"
            ),
        }
    }

    /// The trips that the app believes to have made.
    pub fn confirmed(&self) -> impl Iterator<Item = (&Offered, &TripId)> {
        self.outcomes.iter().filter_map(|(offer, heard)| match heard {
            Heard::Confirmed(trip_id) => Some((offer, trip_id)),
            Heard::Declined | Heard::Revoked(_) => None,
        })
    }
}

/// The state as the socket hears it.
pub fn without_offer(state: DriverState) -> DriverState {
    if state == DriverState::Offered {
        DriverState::Available
    } else {
        state
    }
}
