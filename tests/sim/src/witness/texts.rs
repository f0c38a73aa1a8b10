//! What is said and heard, as lines of the timeline.

use crate::codec::messages::{Heard, Say};
use crate::phrases;

/// A set of drivers, whose bits are their numbers.
pub(super) fn set_text(drivers: u64) -> String {
    let all: Vec<String> = (0..u64::BITS)
        .filter(|driver| drivers & (1 << driver) != 0)
        .map(|driver| format!("d{driver}"))
        .collect();
    if all.is_empty() {
        "nobody".to_owned()
    } else {
        all.join(" ")
    }
}

/// What a driver says.
pub(super) fn said_text(say: Say) -> String {
    match say {
        Say::Ack(offer) => format!("ACK {offer}"),
        Say::Accept(offer) => format!("ACCEPT {offer}"),
        Say::Decline(offer) => format!("DECLINE {offer}"),
        Say::Shift(true) => "STATE available".to_owned(),
        Say::Shift(false) => "STATE offline".to_owned(),
        Say::Trip(trip, event) => format!("TRIP trip{trip} {}", event.as_str()),
        Say::Ping => "PING".to_owned(),
        Say::PingFrame => "a ping frame".to_owned(),
        Say::Location(place) => format!("LOCATION {}", phrases::place(place)),
        Say::Garbage(kind) => format!("garbage {kind}"),
    }
}

/// What a driver hears.
pub(super) fn heard_text(heard: Heard) -> String {
    match heard {
        Heard::Welcome {
            session, state, trip, ..
        } => {
            format!("WELCOME {} trip {trip:?} session {session:#x}", state.as_str())
        }
        Heard::Offer {
            offer,
            class,
            expires_at_ms,
            ttl_ms,
            ..
        } => {
            format!(
                "OFFER {offer} {} ttl {ttl_ms} ms, until {expires_at_ms}",
                class.as_str()
            )
        }
        Heard::Confirmed { offer, trip } => format!("CONFIRMED {offer} trip{trip}"),
        Heard::Declined { offer } => format!("DECLINED {offer}"),
        Heard::Revoked { offer, reason } => format!("REVOKED {offer} {}", reason.as_str()),
        Heard::State { state, trip } => format!("STATE {} trip {trip:?}", state.as_str()),
        Heard::TripCancelled { trip, request, reason } => {
            format!("TRIP_CANCELLED trip{trip} of r{request} {:?}", phrases::reason(reason))
        }
        Heard::Pong { .. } => "PONG".to_owned(),
        Heard::Error { code, request } => format!("ERROR {} {request:?}", code.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::set_text;

    #[test]
    fn sets_of_drivers_are_named() {
        assert_eq!(set_text(0), "nobody");
        assert_eq!(set_text(1 | 1 << 5 | 1 << 63), "d0 d5 d63");
    }
}
