//! What callers send.

use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::types::{OfferRequest, Priority};
use crate::wire::driver::offer_len_max;
use crate::wire::fields::{self, Raw, required};
use crate::wire::limits::{
    BUSY_WAIT_MS_MAX, CANDIDATES_MAX, DEADLINE_MS_MAX, MESSAGE_LEN_MAX, OFFER_TIMEOUT_MS_MAX, PARALLEL_MAX,
};
use crate::wire::respond::Problem;
use crate::wire::route::parse_consumer;
use compact_str::CompactString;
use serde::Deserialize;
use serde_json::value::RawValue;

/// `POST /v1/dispatch/response`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseRequest {
    /// Who answers.
    pub driver_id: DriverId,
    /// Which request.
    pub request_id: RequestId,
    /// True: `ACCEPT`; false: `DECLINE`.
    pub accept: bool,
    /// Which attempt, from 1; without it the driver's own.
    pub attempt: Option<u32>,
}

/// `POST /v1/dispatch/cancel`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelRequest {
    /// Which request.
    pub request_id: RequestId,
    /// The caller's words, at most 256 characters.
    pub reason: Option<Box<str>>,
}

/// `POST /v1/events/ack`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsAckRequest {
    /// Who; the rule of ids.
    pub consumer: CompactString,
    /// Last event dealt with.
    pub cursor: u64,
}

/// Reads the body of `POST /v1/dispatch/offer`. Unknown members are ignored, `null` counts as not given.
///
/// # Errors
/// `400 invalid` that names the member; `413 too_large` when the `OFFER` would not fit a frame.
pub fn parse_offer(body: &[u8]) -> Result<OfferRequest, Problem> {
    let offer = read_offer(body).map_err(Problem::invalid)?;
    let offer_len = offer_len_max(&offer.request_id, offer.priority, &offer.trip);
    if offer_len > MESSAGE_LEN_MAX {
        let room = MESSAGE_LEN_MAX - (offer_len - offer.trip.len());
        return Err(Problem::too_large(format!(
            "trip: must have at most {room} bytes, so that the offer fits a frame"
        )));
    }
    Ok(offer)
}

/// The `request_id` of a body that [`parse_offer`] does not take: of a request that is known, what else the body says
/// need not matter. None when it is no JSON object, or has no such id.
pub fn offer_id(body: &[u8]) -> Option<RequestId> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        request_id: Raw<'a>,
    }
    let members: Members<'_> = fields::object(body).ok()?;
    fields::id("request_id", members.request_id, RequestId::parse).ok()?
}

#[derive(Deserialize)]
struct OfferMembers<'a> {
    #[serde(borrow)]
    request_id: Raw<'a>,
    driver_id: Raw<'a>,
    candidates: Raw<'a>,
    priority: Raw<'a>,
    offer_timeout_ms: Raw<'a>,
    deadline_ms: Raw<'a>,
    max_attempts: Raw<'a>,
    parallel: Raw<'a>,
    busy_wait_ms: Raw<'a>,
    trip: Raw<'a>,
}

fn read_offer(body: &[u8]) -> Result<OfferRequest, String> {
    let members: OfferMembers<'_> = fields::object(body)?;
    let parallel = fields::integer_u32("parallel", members.parallel, 1, PARALLEL_MAX.into())?;
    debug_assert!(parallel.is_none_or(|parallel| parallel <= PARALLEL_MAX.into()));
    Ok(OfferRequest {
        request_id: required(
            "request_id",
            fields::id("request_id", members.request_id, RequestId::parse)?,
        )?,
        candidates: read_candidates(members.driver_id, members.candidates)?,
        priority: read_priority(members.priority)?,
        offer_timeout_ms: fields::integer_u32("offer_timeout_ms", members.offer_timeout_ms, 1, OFFER_TIMEOUT_MS_MAX)?,
        deadline_ms: fields::integer_u32("deadline_ms", members.deadline_ms, 1, DEADLINE_MS_MAX)?,
        max_attempts: fields::integer_u32("max_attempts", members.max_attempts, 1, u32::MAX)?,
        parallel: parallel.map(|parallel| parallel as u8),
        busy_wait_ms: fields::integer_u32("busy_wait_ms", members.busy_wait_ms, 0, BUSY_WAIT_MS_MAX)?,
        trip: read_trip(members.trip)?,
    })
}

/// Exactly one of the two; repeats are dropped, the first stays.
fn read_candidates(driver_id: Raw<'_>, candidates: Raw<'_>) -> Result<Vec<DriverId>, String> {
    let list = match (fields::id("driver_id", driver_id, DriverId::parse)?, candidates) {
        (Some(driver_id), None) => return Ok(vec![driver_id]),
        (Some(_), Some(_)) => return Err("driver_id, candidates: exactly one must be given, not both".to_owned()),
        (None, None) => return Err("driver_id, candidates: exactly one must be given".to_owned()),
        (None, Some(list)) => list,
    };
    let range = || format!("candidates: must be a list of 1 to {CANDIDATES_MAX} driver ids");
    let list: Vec<&RawValue> = serde_json::from_str(list.get()).map_err(|_| range())?;
    let mut drivers: Vec<DriverId> = Vec::with_capacity(list.len().min(CANDIDATES_MAX));
    for (index, raw) in list.into_iter().enumerate() {
        let driver = fields::id("candidates", Some(raw), DriverId::parse)
            .map_err(|error| error.replacen("candidates", &format!("candidates[{index}]"), 1))?;
        let Some(driver) = driver.filter(|driver| !drivers.contains(driver)) else {
            continue;
        };
        if drivers.len() == CANDIDATES_MAX {
            return Err(range());
        }
        drivers.push(driver);
    }
    if drivers.is_empty() { Err(range()) } else { Ok(drivers) }
}

fn read_priority(raw: Raw<'_>) -> Result<Priority, String> {
    let Some(name) = fields::text("priority", raw)? else {
        return Ok(Priority::Standard);
    };
    let class = Priority::ALL.into_iter().find(|class| class.as_str() == name);
    class.ok_or_else(|| "priority: must be premium, standard or economy".to_owned())
}

/// An object, byte for byte. Its text was checked when the body was read.
fn read_trip(raw: Raw<'_>) -> Result<Box<str>, String> {
    let trip = required("trip", raw)?.get();
    if !trip.starts_with('{') {
        return Err("trip: must be an object".to_owned());
    }
    Ok(trip.into())
}

/// Reads the body of `POST /v1/dispatch/response`.
///
/// # Errors
/// `400 invalid` that names the member.
pub fn parse_response(body: &[u8]) -> Result<ResponseRequest, Problem> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        driver_id: Raw<'a>,
        request_id: Raw<'a>,
        response_type: Raw<'a>,
        attempt: Raw<'a>,
    }
    let read = || {
        let members: Members<'_> = fields::object(body)?;
        let response_type = required("response_type", fields::text("response_type", members.response_type)?)?;
        Ok(ResponseRequest {
            driver_id: required(
                "driver_id",
                fields::id("driver_id", members.driver_id, DriverId::parse)?,
            )?,
            request_id: required(
                "request_id",
                fields::id("request_id", members.request_id, RequestId::parse)?,
            )?,
            accept: match &*response_type {
                "ACCEPT" => true,
                "DECLINE" => false,
                _ => return Err("response_type: must be ACCEPT or DECLINE".to_owned()),
            },
            attempt: fields::integer_u32("attempt", members.attempt, 1, u32::MAX)?,
        })
    };
    read().map_err(Problem::invalid)
}

/// Reads the body of `POST /v1/dispatch/cancel`.
///
/// # Errors
/// `400 invalid` that names the member.
pub fn parse_cancel(body: &[u8]) -> Result<CancelRequest, Problem> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        request_id: Raw<'a>,
        reason: Raw<'a>,
    }
    let read = || -> Result<CancelRequest, String> {
        let members: Members<'_> = fields::object(body)?;
        Ok(CancelRequest {
            request_id: required(
                "request_id",
                fields::id("request_id", members.request_id, RequestId::parse)?,
            )?,
            reason: fields::reason(members.reason)?,
        })
    };
    read().map_err(Problem::invalid)
}

/// Reads the body of `POST /v1/trips/{trip_id}/cancel`, which may be empty: the caller's words, at most 256 characters.
///
/// # Errors
/// `400 invalid` that names the member.
pub fn parse_trip_cancel(body: &[u8]) -> Result<Option<Box<str>>, Problem> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        reason: Raw<'a>,
    }
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let read = || fields::reason(fields::object::<Members<'_>>(body)?.reason);
    read().map_err(Problem::invalid)
}

/// Reads the body of `POST /v1/events/ack`; `cursor` is a number or a string of digits.
///
/// # Errors
/// `400 invalid` that names the member.
pub fn parse_events_ack(body: &[u8]) -> Result<EventsAckRequest, Problem> {
    #[derive(Deserialize)]
    struct Members<'a> {
        #[serde(borrow)]
        consumer: Raw<'a>,
        cursor: Raw<'a>,
    }
    let members: Members<'_> = fields::object(body).map_err(Problem::invalid)?;
    let read_consumer = || required("consumer", fields::text("consumer", members.consumer)?);
    let read_cursor = || {
        let json = required("cursor", members.cursor)?.get();
        let digits = json
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'))
            .unwrap_or(json);
        fields::parse_digits(digits).ok_or_else(|| "cursor: must be a whole number, or a string of digits".to_owned())
    };
    Ok(EventsAckRequest {
        consumer: parse_consumer(&read_consumer().map_err(Problem::invalid)?)?,
        cursor: read_cursor().map_err(Problem::invalid)?,
    })
}
