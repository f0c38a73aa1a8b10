//! The driver messages of the contract that the load generator reads and writes, and the ids it gives out.
#![forbid(unsafe_code)]

use std::io::Write;

use crate::json::{Fields, parse_number};

/// Prefix of a request's id; its number follows in ten digits.
const REQUEST_PREFIX: &[u8] = b"bench-";
/// Longest id of the contract, bytes.
const ID_BYTES_MAX: usize = 64;

/// Where a driver is in its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverState {
    /// Not at work.
    Offline,
    /// Free for an offer.
    Available,
    /// Holds an offer; said by `WELCOME` only.
    Offered,
    /// On the way to the passenger.
    EnRoute,
    /// With the passenger.
    OnTrip,
}

/// A trip's id, kept in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TripId {
    bytes: [u8; ID_BYTES_MAX],
    len: u8,
}

impl TripId {
    /// The empty id: no trip.
    pub const NONE: Self = Self {
        bytes: [0; ID_BYTES_MAX],
        len: 0,
    };

    /// Copies an id of 1 to 64 bytes.
    pub fn new(id: &[u8]) -> Option<Self> {
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return None;
        }
        let mut bytes = [0; ID_BYTES_MAX];
        bytes[..id.len()].copy_from_slice(id);
        Some(Self {
            bytes,
            len: id.len() as u8,
        })
    }

    /// The id's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// What the server said on a driver's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The connection is live.
    Welcome {
        /// Time within which the server wants a heartbeat (half of what closes the socket), in ms.
        heartbeat_ms: u64,
        /// The state that the driver starts with.
        state: DriverState,
        /// The trip that it is bound to.
        trip: Option<TripId>,
    },
    /// A trip is offered.
    Offer {
        /// Number of our request.
        request: u32,
        /// Attempt, from 1.
        attempt: u32,
    },
    /// The trip is this driver's.
    Confirmed {
        /// Number of our request.
        request: u32,
        /// The trip.
        trip: TripId,
    },
    /// The decline was taken.
    Declined {
        /// Number of our request.
        request: u32,
    },
    /// The offer is no longer this driver's.
    Revoked {
        /// Number of our request.
        request: u32,
    },
    /// The driver's state changed.
    State(DriverState),
    /// Answer to a heartbeat.
    Pong,
    /// A message that has no place in a run without faults: `TRIP_CANCELLED`, `ERROR` or one that is not understood.
    Unexpected(Box<str>),
}

/// Reads one text frame. Stops scanning as soon as what the message needs is found.
pub fn parse(text: &[u8]) -> Message {
    read(text).unwrap_or_else(|| Message::Unexpected(String::from_utf8_lossy(text).into_owned().into_boxed_str()))
}

fn read(text: &[u8]) -> Option<Message> {
    let mut fields = Collected::default();
    for (key, value) in Fields::of(text) {
        match key {
            b"type" => fields.kind = value.text(),
            b"request_id" => fields.request = value.text().and_then(parse_request_id),
            b"attempt" => fields.attempt = value.number().map(|attempt| attempt as u32),
            b"trip_id" => fields.trip = value.text().and_then(TripId::new),
            b"state" => fields.state = value.text().and_then(parse_state),
            b"heartbeat_ms" => fields.heartbeat_ms = value.number(),
            _ => {}
        }
        if let Some(message) = fields.complete() {
            return Some(message);
        }
    }
    None
}

#[derive(Default)]
struct Collected<'a> {
    kind: Option<&'a [u8]>,
    request: Option<u32>,
    attempt: Option<u32>,
    trip: Option<TripId>,
    state: Option<DriverState>,
    heartbeat_ms: Option<u64>,
}

impl Collected<'_> {
    fn complete(&self) -> Option<Message> {
        match self.kind? {
            b"OFFER" => Some(Message::Offer {
                request: self.request?,
                attempt: self.attempt?,
            }),
            b"CONFIRMED" => Some(Message::Confirmed {
                request: self.request?,
                trip: self.trip?,
            }),
            b"DECLINED" => Some(Message::Declined { request: self.request? }),
            b"REVOKED" => Some(Message::Revoked { request: self.request? }),
            b"STATE" => Some(Message::State(self.state?)),
            b"PONG" => Some(Message::Pong),
            b"WELCOME" => Some(Message::Welcome {
                heartbeat_ms: self.heartbeat_ms?,
                state: self.state?,
                trip: self.trip,
            }),
            _ => None,
        }
    }
}

fn parse_state(text: &[u8]) -> Option<DriverState> {
    match text {
        b"offline" => Some(DriverState::Offline),
        b"available" => Some(DriverState::Available),
        b"offered" => Some(DriverState::Offered),
        b"en_route_to_pickup" => Some(DriverState::EnRoute),
        b"on_trip" => Some(DriverState::OnTrip),
        _ => None,
    }
}

/// The number in one of our request ids.
pub fn parse_request_id(id: &[u8]) -> Option<u32> {
    let number = parse_number(id.strip_prefix(REQUEST_PREFIX)?)?;
    u32::try_from(number).ok()
}

/// Writes the id of request `number`.
pub fn write_request_id(into: &mut Vec<u8>, number: u32) {
    into.extend_from_slice(REQUEST_PREFIX);
    write_digits(into, number, 10);
}

/// Writes the id of driver `number`.
pub fn write_driver_id(into: &mut Vec<u8>, number: u32) {
    into.extend_from_slice(b"driver-");
    write_digits(into, number, 6);
}

/// Writes a number, filled up with zeros to `width` digits (10 at most).
fn write_digits(into: &mut Vec<u8>, number: u32, width: usize) {
    let mut digits = [b'0'; 10];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let kept = digits
        .iter()
        .take(10 - width)
        .take_while(|digit| **digit == b'0')
        .count();
    into.extend_from_slice(&digits[kept..]);
}

/// `{"type":"ACK"|"ACCEPT"|"DECLINE",…}` about an attempt.
pub fn write_answer(into: &mut Vec<u8>, kind: &str, request: u32, attempt: u32) {
    into.extend_from_slice(b"{\"type\":\"");
    into.extend_from_slice(kind.as_bytes());
    into.extend_from_slice(b"\",\"request_id\":\"");
    write_request_id(into, request);
    into.extend_from_slice(b"\",\"attempt\":");
    write!(into, "{attempt}}}").expect("writing to memory cannot fail");
}

/// `{"type":"TRIP",…}` with an event of the trip.
pub fn write_trip(into: &mut Vec<u8>, trip: &TripId, event: &str) {
    into.extend_from_slice(b"{\"type\":\"TRIP\",\"trip_id\":\"");
    into.extend_from_slice(trip.as_bytes());
    into.extend_from_slice(b"\",\"event\":\"");
    into.extend_from_slice(event.as_bytes());
    into.extend_from_slice(b"\"}");
}

/// The heartbeat.
pub const PING: &[u8] = b"{\"type\":\"PING\"}";

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &Message) {
        assert_eq!(&parse(text.as_bytes()), expect, "{text}");
    }

    #[test]
    fn the_servers_messages_are_read_in_any_order_of_fields() {
        let offer = Message::Offer { request: 7, attempt: 2 };
        check(
            r#"{"type":"OFFER","request_id":"bench-0000000007","attempt":2,"trip":{"#,
            &offer,
        );
        check(
            r#"{"trip":{"type":"PONG"},"attempt":2,"request_id":"bench-0000000007","type":"OFFER"}"#,
            &offer,
        );
        let trip = TripId::new(b"t:1").unwrap();
        check(
            r#"{"type":"CONFIRMED","request_id":"bench-0000000001","attempt":1,"trip_id":"t:1"}"#,
            &Message::Confirmed { request: 1, trip },
        );
        check(
            r#"{"type":"DECLINED","request_id":"bench-4294967295","attempt":1}"#,
            &Message::Declined { request: u32::MAX },
        );
        check(
            r#"{"type":"STATE","state":"on_trip","trip_id":"t:1"}"#,
            &Message::State(DriverState::OnTrip),
        );
        check(r#"{"type":"PONG","server_time_ms":1}"#, &Message::Pong);
        check(
            r#"{"type":"WELCOME","driver_id":"d","session":1,"state":"available","heartbeat_ms":30000,"server_time_ms":1}"#,
            &Message::Welcome {
                heartbeat_ms: 30_000,
                state: DriverState::Available,
                trip: None,
            },
        );
        check(
            r#"{"type":"WELCOME","driver_id":"d","session":1,"state":"on_trip","trip_id":"t:1","heartbeat_ms":10,"server_time_ms":1}"#,
            &Message::Welcome {
                heartbeat_ms: 10,
                state: DriverState::OnTrip,
                trip: TripId::new(b"t:1"),
            },
        );
        check(
            r#"{"type":"REVOKED","request_id":"bench-0000000001","attempt":1,"reason":"timeout"}"#,
            &Message::Revoked { request: 1 },
        );
    }

    #[test]
    fn anything_else_is_unexpected() {
        for text in [
            r#"{"type":"TRIP_CANCELLED","trip_id":"t","request_id":"bench-0000000001","reason":"x"}"#,
            r#"{"type":"OFFER","request_id":"other","attempt":1}"#,
            r#"{"type":"STATE","state":"asleep"}"#,
            r#"{"type":"ERROR","code":"invalid","message":"no"}"#,
            "",
            "PONG",
        ] {
            check(text, &Message::Unexpected(text.into()));
        }
    }

    #[test]
    fn ids_and_answers_are_written_as_the_contract_says() {
        let mut text = Vec::new();
        write_answer(&mut text, "ACCEPT", 42, 3);
        assert_eq!(
            text,
            br#"{"type":"ACCEPT","request_id":"bench-0000000042","attempt":3}"#
        );
        text.clear();
        write_driver_id(&mut text, 1_234_567);
        assert_eq!(text, b"driver-1234567");
        text.clear();
        write_trip(&mut text, &TripId::new(b"trip-1").unwrap(), "pickup");
        assert_eq!(text, br#"{"type":"TRIP","trip_id":"trip-1","event":"pickup"}"#);
        assert_eq!(TripId::new(&[b'x'; 65]), None);
    }
}
