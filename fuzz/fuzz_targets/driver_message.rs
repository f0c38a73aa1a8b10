//! A driver's text: what we take is what `serde_json` reads, field by field, and what follows the contract is taken.
#![no_main]

use dispatchd::fsm::ids::{RequestId, TripId};
use dispatchd::given::json::{self, Given, Members, Second};
use dispatchd::wire::driver::{DriverMessage, Location, TripEvent, message_error, parse_driver_message};
use dispatchd::wire::limits::MESSAGE_LEN_MAX;
use libfuzzer_sys::fuzz_target;

const KNOWN: [&str; 11] = [
    "type",
    "request_id",
    "attempt",
    "reason",
    "state",
    "trip_id",
    "event",
    "lat",
    "lon",
    "heading",
    "speed",
];

/// What the members say, by the contract.
fn expected(members: &Members) -> Option<DriverMessage> {
    if members.repeats(&KNOWN) {
        return None;
    }
    let offer = || -> Option<(RequestId, u32)> {
        let request_id = json::id(members, "request_id", RequestId::parse).ok()??;
        let attempt = json::number(members, "attempt", 1, u32::MAX.into()).ok()??;
        Some((request_id, attempt))
    };
    let word = |name| json::text(members, name).ok().flatten();
    Some(match word("type")? {
        "PING" => DriverMessage::Ping,
        "ACK" => {
            let (request_id, attempt) = offer()?;
            DriverMessage::Ack { request_id, attempt }
        }
        "ACCEPT" => {
            let (request_id, attempt) = offer()?;
            let reason = json::reason(members).ok()?;
            DriverMessage::Accept {
                request_id,
                attempt,
                reason,
            }
        }
        "DECLINE" => {
            let (request_id, attempt) = offer()?;
            let reason = json::reason(members).ok()?;
            DriverMessage::Decline {
                request_id,
                attempt,
                reason,
            }
        }
        "STATE" => DriverMessage::State {
            available: match word("state")? {
                "available" => true,
                "offline" => false,
                _ => return None,
            },
        },
        "TRIP" => DriverMessage::Trip {
            trip_id: json::id(members, "trip_id", TripId::parse).ok()??,
            event: match word("event")? {
                "arrived" => TripEvent::Arrived,
                "pickup" => TripEvent::Pickup,
                "complete" => TripEvent::Complete,
                "cancel" => TripEvent::Cancel,
                _ => return None,
            },
        },
        "LOCATION" => DriverMessage::Location(location(members)?),
        _ => return None,
    })
}

fn location(members: &Members) -> Option<Location> {
    let float = |name: &str, min: f64, max: f64| -> Given<f64> {
        let Some(value) = members.get(name) else {
            return Ok(None);
        };
        let value = value.as_f64().filter(|value| (min..=max).contains(value)).ok_or(())?;
        Ok(Some(value))
    };
    Some(Location {
        lat: float("lat", -90.0, 90.0).ok()??,
        lon: float("lon", -180.0, 180.0).ok()??,
        heading: float("heading", 0.0, 360.0).ok()?.map(|heading| heading as f32),
        speed: float("speed", 0.0, f32::MAX.into()).ok()?.map(|speed| speed as f32),
    })
}

/// `serde_json` rounds the last digit its own way, so a number right beside a bound may fall on either side.
fn is_beside_a_bound(members: &Members) -> bool {
    let bounds = [-180.0, -90.0, 0.0, 90.0, 180.0, 360.0, f64::from(f32::MAX)];
    let beside = |value: f64| bounds.iter().any(|bound| *bound != value && near(*bound, value));
    ["lat", "lon", "heading", "speed"]
        .iter()
        .filter_map(|name| members.get(name)?.as_f64())
        .any(beside)
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 1e-12 * one.abs().max(other.abs()).max(1e-300)
}

fn near_single(one: Option<f32>, other: Option<f32>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() <= f32::EPSILON * one.abs().max(f32::MIN_POSITIVE),
        (one, other) => one == other,
    }
}

fn same(one: &DriverMessage, other: &DriverMessage) -> bool {
    match (one, other) {
        (DriverMessage::Location(one), DriverMessage::Location(other)) => {
            near(one.lat, other.lat)
                && near(one.lon, other.lon)
                && near_single(one.heading, other.heading)
                && near_single(one.speed, other.speed)
        }
        _ => one == other,
    }
}

fuzz_target!(|text: &str| {
    let ours = parse_driver_message(text);
    if let Err(error) = &ours {
        let mut out = Vec::new();
        message_error(&mut out, error);
        assert!(
            serde_json::from_slice::<serde_json::Value>(&out).is_ok(),
            "an ERROR is JSON"
        );
        assert!(out.len() <= MESSAGE_LEN_MAX, "an ERROR fits a frame");
    }
    match json::second(text.as_bytes()) {
        Second::No => assert!(ours.is_err(), "{ours:?} is no JSON object"),
        Second::Unclear => {}
        Second::Object(members) if is_beside_a_bound(&members) => {}
        Second::Object(members) => match (expected(&members), ours) {
            (Some(expected), Ok(ours)) => assert!(same(&expected, &ours), "{ours:?}, expected {expected:?}"),
            (expected, ours) => assert_eq!(expected.is_some(), ours.is_ok(), "{ours:?}, expected {expected:?}"),
        },
    }
});
