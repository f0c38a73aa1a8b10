//! Bodies of the API: what we take is what `serde_json` reads, field by field, and what follows the contract is taken.
//! The first byte says which body it is.
#![no_main]

use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::types::{OfferRequest, Priority};
use dispatchd::given::json::{self, Members, Second};
use dispatchd::wire::api::{
    CancelRequest, EventsAckRequest, ResponseRequest, parse_cancel, parse_events_ack, parse_offer, parse_response,
    parse_trip_cancel,
};
use dispatchd::wire::driver::{Offer, offer};
use dispatchd::wire::limits::MESSAGE_LEN_MAX;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::fmt::Debug;

fn expected_offer(members: &Members) -> Option<OfferRequest> {
    let known = [
        "request_id",
        "driver_id",
        "candidates",
        "priority",
        "offer_timeout_ms",
        "deadline_ms",
        "max_attempts",
        "parallel",
        "busy_wait_ms",
        "trip",
    ];
    if members.repeats(&known) {
        return None;
    }
    let number = |name, min, max| json::number(members, name, min, max).ok();
    let trip = members.get("trip").filter(|trip| trip.is_object())?;
    Some(OfferRequest {
        request_id: json::id(members, "request_id", RequestId::parse).ok()??,
        candidates: expected_candidates(members)?,
        priority: match json::text(members, "priority").ok()? {
            None | Some("standard") => Priority::Standard,
            Some("premium") => Priority::Premium,
            Some("economy") => Priority::Economy,
            Some(_) => return None,
        },
        offer_timeout_ms: number("offer_timeout_ms", 1, 600_000)?,
        deadline_ms: number("deadline_ms", 1, 86_400_000)?,
        max_attempts: number("max_attempts", 1, u32::MAX.into())?,
        parallel: number("parallel", 1, 10)?.map(|parallel| parallel as u8),
        busy_wait_ms: number("busy_wait_ms", 0, 60_000)?,
        trip: trip.to_string().into(),
    })
}

fn expected_candidates(members: &Members) -> Option<Vec<DriverId>> {
    let driver = json::id(members, "driver_id", DriverId::parse).ok()?;
    match (driver, members.get("candidates")) {
        (Some(driver), None) => Some(vec![driver]),
        (None, Some(Value::Array(list))) => {
            let mut drivers = Vec::new();
            for value in list {
                let driver = DriverId::parse(value.as_str()?).ok()?;
                if !drivers.contains(&driver) {
                    drivers.push(driver);
                }
            }
            (1..=64).contains(&drivers.len()).then_some(drivers)
        }
        _ => None,
    }
}

/// The `OFFER` that this leads to, with every number at its longest.
fn longest_offer(request: &OfferRequest) -> Vec<u8> {
    let mut out = Vec::new();
    offer(
        &mut out,
        &Offer {
            request_id: &request.request_id,
            attempt: u32::MAX,
            priority: request.priority,
            expires_at_ms: u64::MAX,
            ttl_ms: u32::MAX,
            trip: &request.trip,
        },
    );
    out
}

fn check_offer(body: &[u8], members: Option<&Members>) {
    let ours = parse_offer(body);
    let Ok(ours) = ours else {
        let expected = members.and_then(expected_offer);
        // The trip is as it was sent there, so a longer one may be refused that is short here.
        let long = |offer: &OfferRequest| body.len() + longest_offer(offer).len() > MESSAGE_LEN_MAX;
        assert!(expected.as_ref().is_none_or(long), "{ours:?}, expected {expected:?}");
        return;
    };
    assert!(longest_offer(&ours).len() <= MESSAGE_LEN_MAX, "an OFFER fits a frame");
    let text = std::str::from_utf8(body).expect("it was taken");
    assert!(text.contains(&*ours.trip), "byte for byte");
    let Some(members) = members else { return };
    let expected = expected_offer(members);
    let trip = serde_json::from_str::<Value>(&ours.trip)
        .expect("a part of JSON")
        .to_string();
    let ours = OfferRequest {
        trip: trip.into(),
        ..ours
    };
    assert_eq!(expected, Some(ours));
}

fn expected_response(members: &Members) -> Option<ResponseRequest> {
    if members.repeats(&["driver_id", "request_id", "response_type", "attempt"]) {
        return None;
    }
    Some(ResponseRequest {
        driver_id: json::id(members, "driver_id", DriverId::parse).ok()??,
        request_id: json::id(members, "request_id", RequestId::parse).ok()??,
        accept: match json::text(members, "response_type").ok()?? {
            "ACCEPT" => true,
            "DECLINE" => false,
            _ => return None,
        },
        attempt: json::number(members, "attempt", 1, u32::MAX.into()).ok()?,
    })
}

fn expected_cancel(members: &Members) -> Option<CancelRequest> {
    if members.repeats(&["request_id", "reason"]) {
        return None;
    }
    Some(CancelRequest {
        request_id: json::id(members, "request_id", RequestId::parse).ok()??,
        reason: json::reason(members).ok()?,
    })
}

fn expected_trip_cancel(members: &Members) -> Option<Option<Box<str>>> {
    let once = !members.repeats(&["reason"]);
    once.then(|| json::reason(members).ok()).flatten()
}

fn expected_events_ack(members: &Members) -> Option<EventsAckRequest> {
    if members.repeats(&["consumer", "cursor"]) {
        return None;
    }
    let digits = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    Some(EventsAckRequest {
        consumer: json::id(members, "consumer", RequestId::parse).ok()??.as_str().into(),
        cursor: match members.get("cursor")? {
            Value::String(text) => Some(text.as_str()).filter(digits)?.parse().ok()?,
            cursor => cursor.as_u64()?,
        },
    })
}

/// `members`: as the second reader reads the body, `None` when that is not clear.
fn check<T: Debug + PartialEq, E: Debug>(
    ours: Result<T, E>,
    members: Option<&Members>,
    expected: fn(&Members) -> Option<T>,
) {
    if let Some(members) = members {
        let expected = expected(members);
        assert_eq!(ours.as_ref().ok(), expected.as_ref(), "{ours:?}");
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (which, body) = (input.0 % 5, input.1);
    let members = match json::second(body) {
        Second::Object(members) => Some(members),
        Second::Unclear => None,
        Second::No => {
            assert!(parse_offer(body).is_err());
            assert!(parse_response(body).is_err());
            assert!(parse_cancel(body).is_err());
            assert!(parse_trip_cancel(body).is_err() || body.trim_ascii().is_empty());
            assert!(parse_events_ack(body).is_err());
            return;
        }
    };
    let members = members.as_ref();
    match which {
        0 => check_offer(body, members),
        1 => check(parse_response(body), members, expected_response),
        2 => check(parse_cancel(body), members, expected_cancel),
        3 => check(parse_trip_cancel(body), members, expected_trip_cancel),
        // A cursor's digits are not looked for behind escapes.
        _ if body.contains(&b'\\') => drop(parse_events_ack(body)),
        _ => check(parse_events_ack(body), members, expected_events_ack),
    }
});
