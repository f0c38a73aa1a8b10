//! What the node says on a driver's socket, and how a driver's messages are written.

use super::Bad;
use super::json::{self, Value};
use crate::ids::{Driver, Ids, Offer, Request, Trip, write_number};
use crate::phrases::{self, Place, Reason};
use crate::words::{Class, DriverState, ErrorCode, Move, Revoke};

/// A message of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum Heard {
    /// `WELCOME`
    Welcome {
        driver: Driver,
        session: u64,
        state: DriverState,
        trip: Option<Trip>,
        heartbeat_ms: u64,
        server_ms: u64,
    },
    /// `OFFER`
    Offer {
        offer: Offer,
        class: Class,
        expires_at_ms: u64,
        ttl_ms: u64,
        /// The trip object is the request's, byte for byte.
        trip_intact: bool,
    },
    /// `CONFIRMED`
    Confirmed { offer: Offer, trip: Trip },
    /// `DECLINED`
    Declined { offer: Offer },
    /// `REVOKED`
    Revoked { offer: Offer, reason: Revoke },
    /// `STATE`
    State { state: DriverState, trip: Option<Trip> },
    /// `TRIP_CANCELLED`
    TripCancelled {
        trip: Trip,
        request: Request,
        reason: Reason,
    },
    /// `PONG`
    Pong { server_ms: u64 },
    /// `ERROR`
    Error { code: ErrorCode, request: Option<Request> },
}

#[derive(Default)]
struct Fields<'a> {
    kind: &'a str,
    driver: Option<Driver>,
    session: Option<u64>,
    state: Option<DriverState>,
    trip_id: Option<Trip>,
    request: Option<Request>,
    attempt: Option<u64>,
    class: Option<Class>,
    expires_at_ms: Option<u64>,
    ttl_ms: Option<u64>,
    heartbeat_ms: Option<u64>,
    server_ms: Option<u64>,
    trip: &'a str,
    reason: &'a str,
    code: &'a str,
}

/// Reads a message. `trip_of` says whether a trip object is that of a request.
///
/// # Errors
/// When it is no message of the contract.
pub fn read(text: &str, ids: &mut Ids, trip_of: impl FnOnce(Request, &str) -> bool) -> Result<Heard, Bad> {
    let fields = read_fields(text, ids)?;
    let bad = || Bad::new(format!("a message that lacks something: {text}"));
    let offer = || {
        Some(Offer {
            request: fields.request?,
            attempt: u32::try_from(fields.attempt?).ok()?,
        })
    };
    let trip = fields.trip_id;
    let heard = match fields.kind {
        "WELCOME" => Heard::Welcome {
            driver: fields.driver.ok_or_else(bad)?,
            session: fields.session.ok_or_else(bad)?,
            state: fields.state.ok_or_else(bad)?,
            trip,
            heartbeat_ms: fields.heartbeat_ms.ok_or_else(bad)?,
            server_ms: fields.server_ms.ok_or_else(bad)?,
        },
        "OFFER" => {
            let offer = offer().ok_or_else(bad)?;
            Heard::Offer {
                offer,
                class: fields.class.ok_or_else(bad)?,
                expires_at_ms: fields.expires_at_ms.ok_or_else(bad)?,
                ttl_ms: fields.ttl_ms.ok_or_else(bad)?,
                trip_intact: trip_of(offer.request, fields.trip),
            }
        }
        "CONFIRMED" => Heard::Confirmed {
            offer: offer().ok_or_else(bad)?,
            trip: trip.ok_or_else(bad)?,
        },
        "DECLINED" => Heard::Declined {
            offer: offer().ok_or_else(bad)?,
        },
        "REVOKED" => Heard::Revoked {
            offer: offer().ok_or_else(bad)?,
            reason: Revoke::parse(fields.reason)?,
        },
        "STATE" => Heard::State {
            state: fields.state.ok_or_else(bad)?,
            trip,
        },
        "TRIP_CANCELLED" => Heard::TripCancelled {
            trip: trip.ok_or_else(bad)?,
            request: fields.request.ok_or_else(bad)?,
            reason: phrases::reason_told(fields.reason)
                .ok_or_else(|| Bad::new(format!("a reason that nobody gives: {text}")))?,
        },
        "PONG" => Heard::Pong {
            server_ms: fields.server_ms.ok_or_else(bad)?,
        },
        "ERROR" => Heard::Error {
            code: ErrorCode::parse(fields.code)?,
            request: fields.request,
        },
        _ => return Err(Bad::new(format!("a message of no known type: {text}"))),
    };
    Ok(heard)
}

fn read_fields<'a>(text: &'a str, ids: &mut Ids) -> Result<Fields<'a>, Bad> {
    let mut fields = Fields::default();
    let mut reader = json::object(text)?;
    while let Some((key, value)) = reader.member()? {
        match key {
            "type" => fields.kind = value.text()?,
            "driver_id" => fields.driver = Some(ids.read_driver(value.text()?)?),
            "session" => fields.session = Some(value.number()?),
            "state" => fields.state = Some(DriverState::parse(value.text()?)?),
            "trip_id" => fields.trip_id = Some(ids.read_trip(value.text()?)),
            "request_id" => fields.request = Some(ids.read_request(value.text()?)?),
            "attempt" => fields.attempt = Some(value.number()?),
            "priority" => fields.class = Some(Class::parse(value.text()?)?),
            "expires_at_ms" => fields.expires_at_ms = Some(value.number()?),
            "ttl_ms" => fields.ttl_ms = Some(value.number()?),
            "heartbeat_ms" => fields.heartbeat_ms = Some(value.number()?),
            "server_time_ms" => fields.server_ms = Some(value.number()?),
            "reason" => fields.reason = value.text()?,
            "code" => fields.code = value.text()?,
            "trip" => match value {
                Value::Object(trip) => fields.trip = trip,
                _ => return Err(Bad::new("a trip that is no object")),
            },
            _ => {}
        }
    }
    Ok(fields)
}

/// What a driver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Say {
    /// `ACK`
    Ack(Offer),
    /// `ACCEPT`
    Accept(Offer),
    /// `DECLINE`
    Decline(Offer),
    /// `STATE`: `available` or `offline`.
    Shift(bool),
    /// `TRIP`
    Trip(Trip, Move),
    /// `PING`
    Ping,
    /// A ping frame of WebSocket, which counts as a heartbeat too.
    PingFrame,
    /// `LOCATION`
    Location(Place),
    /// Something that is no message; answered with `ERROR` `invalid` or `unknown_type`.
    Garbage(u8),
}

const GARBAGE: [&str; 6] = [
    "{\"type\":\"NONSENSE\"}",
    "{\"type\":\"ACCEPT\",\"request_id\":\"r!\",\"attempt\":1}",
    "{\"type\":\"ACCEPT\",\"attempt\":1}",
    "[1,2,3]",
    "{\"type\":",
    "{\"type\":\"LOCATION\",\"lat\":91,\"lon\":0}",
];

/// Kinds of garbage.
pub const GARBAGE_KINDS: u8 = GARBAGE.len() as u8;

/// Appends the message's text.
pub fn write(out: &mut Vec<u8>, say: Say, ids: &Ids) {
    match say {
        Say::Ack(offer) => write_about(out, "ACK", offer, ids),
        Say::Accept(offer) => write_about(out, "ACCEPT", offer, ids),
        Say::Decline(offer) => write_about(out, "DECLINE", offer, ids),
        Say::Shift(true) => out.extend_from_slice(b"{\"type\":\"STATE\",\"state\":\"available\"}"),
        Say::Shift(false) => out.extend_from_slice(b"{\"type\":\"STATE\",\"state\":\"offline\"}"),
        Say::Trip(trip, event) => {
            out.extend_from_slice(b"{\"type\":\"TRIP\",\"trip_id\":\"");
            out.extend_from_slice(ids.trip(trip).as_bytes());
            out.extend_from_slice(b"\",\"event\":\"");
            out.extend_from_slice(event.as_str().as_bytes());
            out.extend_from_slice(b"\"}");
        }
        Say::Ping => out.extend_from_slice(b"{\"type\":\"PING\"}"),
        Say::PingFrame => {}
        Say::Location(place) => {
            out.extend_from_slice(b"{\"type\":\"LOCATION\",");
            out.extend_from_slice(phrases::place(place).as_bytes());
            out.push(b'}');
        }
        Say::Garbage(kind) => out.extend_from_slice(GARBAGE[usize::from(kind) % GARBAGE.len()].as_bytes()),
    }
}

fn write_about(out: &mut Vec<u8>, kind: &str, offer: Offer, ids: &Ids) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"request_id\":\"");
    ids.write_request(out, offer.request);
    out.extend_from_slice(b"\",\"attempt\":");
    write_number(out, u64::from(offer.attempt));
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Style;

    #[test]
    fn messages_of_every_type() {
        let mut ids = Ids::new(Style::ALL[0]);
        let offer = Offer { request: 7, attempt: 2 };
        let cases = [
            (
                r#"{"type":"WELCOME","driver_id":"d3","session":9,"state":"on_trip","trip_id":"t-1","heartbeat_ms":5,"server_time_ms":6}"#,
                Heard::Welcome {
                    driver: 3,
                    session: 9,
                    state: DriverState::OnTrip,
                    trip: Some(0),
                    heartbeat_ms: 5,
                    server_ms: 6,
                },
            ),
            (
                r#"{"type":"OFFER","request_id":"r7","attempt":2,"priority":"economy","expires_at_ms":10,"ttl_ms":4,"trip":{"n":7}}"#,
                Heard::Offer {
                    offer,
                    class: Class::Economy,
                    expires_at_ms: 10,
                    ttl_ms: 4,
                    trip_intact: true,
                },
            ),
            (
                r#"{"type":"CONFIRMED","request_id":"r7","attempt":2,"trip_id":"t-1"}"#,
                Heard::Confirmed { offer, trip: 0 },
            ),
            (
                r#"{"type":"REVOKED","request_id":"r7","attempt":2,"reason":"taken"}"#,
                Heard::Revoked {
                    offer,
                    reason: Revoke::Taken,
                },
            ),
            (
                r#"{"type":"ERROR","code":"no_such_offer","message":"x","request_id":"r7"}"#,
                Heard::Error {
                    code: ErrorCode::NoSuchOffer,
                    request: Some(7),
                },
            ),
        ];
        for (text, expect) in cases {
            let read = read(text, &mut ids, |request, trip| request == 7 && trip == r#"{"n":7}"#);
            assert_eq!(read, Ok(expect), "{text}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut ids = Ids::new(Style::ALL[0]);
        for text in [
            r#"{"type":"OFFER","request_id":"r7","attempt":2}"#,
            r#"{"type":"STATE","state":"asleep"}"#,
            r#"{"type":"CONFIRMED","request_id":"x7","attempt":2,"trip_id":"t-1"}"#,
            r#"{"type":"HELLO"}"#,
            r#"{"request_id":"r7"}"#,
        ] {
            assert!(read(text, &mut ids, |_, _| true).is_err(), "{text}");
        }
    }

    #[test]
    fn a_driver_speaks() {
        let mut ids = Ids::new(Style::ALL[0]);
        let trip = ids.read_trip("t-9");
        let mut out = Vec::new();
        write(&mut out, Say::Accept(Offer { request: 1, attempt: 2 }), &ids);
        write(&mut out, Say::Trip(trip, Move::Pickup), &ids);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"type":"ACCEPT","request_id":"r1","attempt":2}{"type":"TRIP","trip_id":"t-9","event":"pickup"}"#
        );
    }
}
