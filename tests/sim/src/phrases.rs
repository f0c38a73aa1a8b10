//! What clients say in words of their own: where drivers are, and why callers cancel. There are few of each, named by their numbers,
//! so that whoever is shown one knows whether somebody said it.

use crate::rng::Rng;

/// A place, by its number.
pub type Place = u8;

/// A place that nobody says.
pub const PLACE_UNKNOWN: Place = Place::MAX;

/// Places as members of a `LOCATION`, and of the location in a view. Of some no more than the degrees is said, or as much in another
/// order of size, so that a member that stands for another one is a place that nobody says.
const PLACES: [&str; 8] = [
    "\"lat\":52.5,\"lon\":13.4,\"speed\":8.5",
    "\"lat\":52.5,\"lon\":13.75",
    "\"lat\":-33.875,\"lon\":151.25,\"heading\":90.5",
    "\"lat\":40.75,\"lon\":-73.5,\"heading\":270.5,\"speed\":13.5",
    "\"lat\":13.4,\"lon\":52.5,\"heading\":8.5",
    "\"lat\":-1.5,\"lon\":-1.25,\"heading\":1.5,\"speed\":0.25",
    "\"lat\":64.25,\"lon\":-21.75,\"speed\":31.5",
    "\"lat\":35.5,\"lon\":139.75,\"heading\":31.5,\"speed\":270.5",
];

/// Any place.
pub fn any_place(rng: &mut Rng) -> Place {
    rng.below(PLACES.len() as u64) as Place
}

/// The members that say it.
pub fn place(place: Place) -> &'static str {
    PLACES[usize::from(place) % PLACES.len()]
}

/// Which place an object says.
pub fn place_of(object: &str) -> Place {
    let members = object.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
    let place = PLACES.iter().position(|place| members == Some(place));
    place.map_or(PLACE_UNKNOWN, |place| place as Place)
}

/// A reason, by its number; [`NO_REASON`]: none is given.
pub type Reason = u8;

/// No reason is given.
pub const NO_REASON: Reason = 0;

/// Reasons as JSON has them, the first one for none. One begins as another one does.
const REASONS: [&str; 5] = ["", "changed", "changed my mind", "no \\\"need\\\"", "zu spät"];

/// What a driver hears whose trip was cancelled without a reason.
const CANCELLED: &str = "cancelled";

/// Any reason, or none.
pub fn any_reason(rng: &mut Rng) -> Reason {
    rng.below(REASONS.len() as u64) as Reason
}

/// Its text as JSON has it between quotes, if one is given.
pub fn reason(reason: Reason) -> Option<&'static str> {
    (reason != NO_REASON).then(|| REASONS[usize::from(reason) % REASONS.len()])
}

/// Which reason this is.
pub fn reason_of(text: &str) -> Option<Reason> {
    let number = REASONS.iter().position(|reason| *reason == text)? as Reason;
    (number != NO_REASON).then_some(number)
}

/// Which reason a driver is told.
pub fn reason_told(text: &str) -> Option<Reason> {
    if text == CANCELLED {
        Some(NO_REASON)
    } else {
        reason_of(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_again() {
        for number in 0..PLACES.len() as Place {
            assert_eq!(place_of(&format!("{{{}}}", place(number))), number);
        }
        assert_eq!(place_of("{\"lat\":52.5,\"lon\":13.4}"), PLACE_UNKNOWN);
        for number in 1..REASONS.len() as Reason {
            assert_eq!(reason(number).and_then(reason_of), Some(number));
            assert_eq!(reason(number).and_then(reason_told), Some(number));
        }
        assert_eq!((reason(NO_REASON), reason_told(CANCELLED)), (None, Some(NO_REASON)));
        assert_eq!(
            (reason_of(""), reason_told(""), reason_of(CANCELLED)),
            (None, None, None)
        );
    }
}
