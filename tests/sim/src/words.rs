//! The contract's words as types: states, classes, reasons, events. Copied from the contract, not from the node's code.

use crate::codec::Bad;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $word:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$word_doc])* $word),+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$word),+];

            /// As the contract writes it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$word => $text),+ }
            }

            /// Reads it.
            ///
            /// # Errors
            /// When the contract has no such word.
            pub fn parse(text: &str) -> Result<Self, Bad> {
                match text {
                    $($text => Ok(Self::$word),)+
                    other => Err(Bad::new(format!(concat!(stringify!($name), " is none: {}"), other))),
                }
            }
        }
    };
}

words!(
    /// Priority class, in the order of service.
    Class {
        /// First.
        Premium = "premium",
        /// Second.
        Standard = "standard",
        /// Last.
        Economy = "economy",
    }
);

words!(
    /// State of a request.
    State {
        /// Nobody holds the offer.
        PendingMatch = "PENDING_MATCH",
        /// Somebody does.
        OfferSent = "OFFER_SENT",
        /// End: a driver has the trip.
        Accepted = "ACCEPTED",
        /// End: taken back.
        Cancelled = "CANCELLED",
        /// End: nobody was found.
        Unfulfilled = "UNFULFILLED",
    }
);

impl State {
    /// Whether the search is over.
    pub const fn is_end(self) -> bool {
        matches!(self, Self::Accepted | Self::Cancelled | Self::Unfulfilled)
    }
}

words!(
    /// State of a driver.
    DriverState {
        /// Gets no offers.
        Offline = "offline",
        /// May be offered.
        Available = "available",
        /// Holds an offer.
        Offered = "offered",
        /// Has a trip.
        EnRoute = "en_route_to_pickup",
        /// Has a trip and somebody on board.
        OnTrip = "on_trip",
    }
);

words!(
    /// Why an offer was taken back.
    Revoke {
        /// Nobody answered in time.
        Timeout = "timeout",
        /// The request was cancelled.
        Cancelled = "cancelled",
        /// Another driver won.
        Taken = "taken",
        /// Over for another cause.
        Superseded = "superseded",
    }
);

words!(
    /// What a driver says of its trip.
    Move {
        /// At the pickup.
        Arrived = "arrived",
        /// On board.
        Pickup = "pickup",
        /// Done.
        Complete = "complete",
        /// Given up.
        Cancel = "cancel",
    }
);

words!(
    /// How a trip ended.
    TripEnd {
        /// The driver completed it.
        Completed = "completed",
        /// The driver gave it up.
        CancelledByDriver = "cancelled_by_driver",
        /// Cancelled over the API.
        Cancelled = "cancelled",
    }
);

words!(
    /// `ERROR.code`.
    ErrorCode {
        /// No message.
        Invalid = "invalid",
        /// No such type.
        UnknownType = "unknown_type",
        /// Never offered.
        NoSuchOffer = "no_such_offer",
        /// Not this driver's.
        NoSuchTrip = "no_such_trip",
    }
);

words!(
    /// `outcome` of `POST /v1/dispatch/response`.
    Outcome {
        /// The driver has the trip.
        Confirmed = "CONFIRMED",
        /// The driver declined.
        Declined = "DECLINED",
        /// It ended otherwise.
        TooLate = "TOO_LATE",
    }
);

words!(
    /// Type of an event.
    EventType {
        /// Send new candidates.
        RedispatchRequested = "REDISPATCH_REQUESTED",
        /// End.
        RequestUnfulfilled = "REQUEST_UNFULFILLED",
        /// End.
        RequestCancelled = "REQUEST_CANCELLED",
        /// A driver has it.
        TripCreated = "TRIP_CREATED",
        /// On board.
        TripPickedUp = "TRIP_PICKED_UP",
        /// Over.
        TripEnded = "TRIP_ENDED",
    }
);

words!(
    /// `response_type` of a dispatch record.
    Response {
        /// Took it.
        Accepted = "ACCEPTED",
        /// Declined.
        Declined = "DECLINED",
        /// Did not answer.
        Timeout = "TIMEOUT",
        /// Could not be offered.
        Refused = "REFUSED",
        /// Taken back.
        Revoked = "REVOKED",
    }
);

words!(
    /// Event of an audit.
    Step {
        /// First.
        Received = "REQUEST_RECEIVED",
        /// An attempt begins.
        OfferSent = "OFFER_SENT",
        /// Written to the socket.
        Delivered = "OFFER_DELIVERED",
        /// The app has it.
        Acked = "OFFER_ACKED",
        /// The driver takes it.
        Accepted = "OFFER_ACCEPTED",
        /// The driver does not.
        Declined = "OFFER_DECLINED",
        /// No answer in time.
        TimedOut = "OFFER_TIMED_OUT",
        /// The driver cannot.
        Refused = "OFFER_REFUSED",
        /// Taken back.
        Revoked = "OFFER_REVOKED",
        /// New candidates came.
        Redispatched = "REDISPATCHED",
        /// No candidate is left.
        Exhausted = "CANDIDATES_EXHAUSTED",
        /// Begins with the acceptance.
        TripCreated = "TRIP_CREATED",
        /// On board.
        PickedUp = "TRIP_PICKED_UP",
        /// Over.
        TripEnded = "TRIP_ENDED",
        /// End.
        Cancelled = "REQUEST_CANCELLED",
        /// End.
        Unfulfilled = "REQUEST_UNFULFILLED",
    }
);

words!(
    /// `code` of a problem.
    Code {
        /// The caller's fault.
        Invalid = "invalid",
        /// Only drivers that were tried.
        Excluded = "excluded",
        /// Has its end.
        Ended = "ended",
        /// Too much is asked.
        Overloaded = "overloaded",
        /// The node stops.
        Draining = "draining",
        /// The node starts.
        Recovering = "recovering",
        /// The node cannot store.
        NotDurable = "not_durable",
        /// Never offered.
        NoSuchOffer = "no_such_offer",
        /// Never seen.
        NoSuchRequest = "no_such_request",
        /// Never seen.
        NoSuchTrip = "no_such_trip",
        /// Never seen.
        NoSuchDriver = "no_such_driver",
        /// Too slow.
        Timeout = "timeout",
    }
);
