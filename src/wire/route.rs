//! Which endpoint a request is for, with its ids and query checked.

use super::http::{Method, Target};
use super::limits::{
    EVENTS_LIMIT_DEFAULT, EVENTS_LIMIT_MAX, EVENTS_WAIT_MS_MAX, RECORDS_BEFORE_LEN_MAX, RECORDS_LIMIT_DEFAULT,
    RECORDS_LIMIT_MAX,
};
use super::respond::Problem;
use crate::fsm::ids::{DriverId, IdError, RequestId, TripId};
use compact_str::CompactString;
use jiff::civil::Date;
use std::borrow::Cow;

/// An endpoint and what its path and query say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `GET /ws/driver/{driver_id}`
    DriverSocket(DriverId),
    /// `POST /v1/dispatch/offer`
    Offer,
    /// `POST /v1/dispatch/response`
    Response,
    /// `POST /v1/dispatch/cancel`
    Cancel,
    /// `POST /v1/trips/{trip_id}/cancel`
    TripCancel(TripId),
    /// `GET /v1/dispatch/request/{request_id}`
    RequestView(RequestId),
    /// `GET /v1/dispatch/audit/{request_id}`
    Audit(RequestId),
    /// `GET /v1/drivers/{driver_id}`
    DriverView(DriverId),
    /// `GET /v1/drivers/{driver_id}/records`
    Records(RecordsQuery),
    /// `GET /v1/events`
    Events(EventsQuery),
    /// `POST /v1/events/ack`
    EventsAck,
    /// `GET /v1/fleet/assign`
    FleetAssign(DriverId),
    /// `GET /healthz`
    Healthz,
    /// `GET /readyz`
    Readyz,
    /// `GET /metrics`
    Metrics,
    /// `GET /openapi.json`
    OpenApi,
    /// `GET /asyncapi.json`
    AsyncApi,
}

/// One page of a driver's dispatch records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordsQuery {
    /// Whose.
    pub driver_id: DriverId,
    /// UTC day; required.
    pub date: Date,
    /// Most rows, 1–1,000; 100 when not given.
    pub limit: u32,
    /// The `next_before` of an earlier page: 1–256 visible ASCII characters; the store knows what they mean.
    pub before: Option<String>,
}

/// One page of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsQuery {
    /// Only events after this cursor.
    pub after: Option<u64>,
    /// How long to wait when there is none, 0–60,000; 0 when not given.
    pub wait_ms: u32,
    /// Most events, 1–1,000; 100 when not given.
    pub limit: u32,
    /// Who reads; the rule of ids.
    pub consumer: Option<CompactString>,
}

/// Finds the endpoint.
///
/// # Errors
/// `404 not_found`, `405 method_not_allowed` with `Allow`, or `400 invalid` that names the id or parameter, in this
/// order.
pub fn route(method: Method, target: &Target) -> Result<Route, Problem> {
    // RFC 9112 §3.2.4: the asterisk is the server as a whole, which has these methods.
    if target.path == "*" {
        return Err(Problem::method_not_allowed("GET, HEAD, POST"));
    }
    let path = without_needless_encoding(&target.path);
    let endpoint = Endpoint::find(&path).ok_or_else(Problem::not_found)?;
    let (allowed, allow) = match endpoint {
        // A handshake is a GET (RFC 6455 §4.2.1).
        Endpoint::DriverSocket(_) => (method == Method::Get, "GET"),
        _ if endpoint.is_post() => (method == Method::Post, "POST"),
        // RFC 9110 §9.1: HEAD goes where GET does.
        _ => (matches!(method, Method::Get | Method::Head), "GET, HEAD"),
    };
    if !allowed {
        return Err(Problem::method_not_allowed(allow));
    }
    endpoint.into_route(target.query.as_deref())
}

/// A path's shape, its ids not yet checked.
#[derive(Clone, Copy)]
enum Endpoint<'a> {
    DriverSocket(&'a str),
    Offer,
    Response,
    Cancel,
    TripCancel(&'a str),
    RequestView(&'a str),
    Audit(&'a str),
    DriverView(&'a str),
    Records(&'a str),
    Events,
    EventsAck,
    FleetAssign,
    Healthz,
    Readyz,
    Metrics,
    OpenApi,
    AsyncApi,
}

impl<'a> Endpoint<'a> {
    fn find(path: &'a str) -> Option<Self> {
        let mut segments = path.strip_prefix('/')?.split('/');
        let mut next = || segments.next();
        let shape = (next(), next(), next(), next(), next());
        Some(match shape {
            (Some("v1"), Some("dispatch"), Some("offer"), None, _) => Self::Offer,
            (Some("v1"), Some("dispatch"), Some("response"), None, _) => Self::Response,
            (Some("v1"), Some("dispatch"), Some("cancel"), None, _) => Self::Cancel,
            (Some("v1"), Some("dispatch"), Some("request"), Some(id), None) => Self::RequestView(id),
            (Some("v1"), Some("dispatch"), Some("audit"), Some(id), None) => Self::Audit(id),
            (Some("v1"), Some("trips"), Some(id), Some("cancel"), None) => Self::TripCancel(id),
            (Some("v1"), Some("drivers"), Some(id), None, _) => Self::DriverView(id),
            (Some("v1"), Some("drivers"), Some(id), Some("records"), None) => Self::Records(id),
            (Some("v1"), Some("events"), None, _, _) => Self::Events,
            (Some("v1"), Some("events"), Some("ack"), None, _) => Self::EventsAck,
            (Some("v1"), Some("fleet"), Some("assign"), None, _) => Self::FleetAssign,
            (Some("ws"), Some("driver"), Some(id), None, _) => Self::DriverSocket(id),
            (Some("healthz"), None, ..) => Self::Healthz,
            (Some("readyz"), None, ..) => Self::Readyz,
            (Some("metrics"), None, ..) => Self::Metrics,
            (Some("openapi.json"), None, ..) => Self::OpenApi,
            (Some("asyncapi.json"), None, ..) => Self::AsyncApi,
            _ => return None,
        })
    }

    const fn is_post(self) -> bool {
        matches!(
            self,
            Self::Offer | Self::Response | Self::Cancel | Self::TripCancel(_) | Self::EventsAck
        )
    }

    fn into_route(self, query: Option<&str>) -> Result<Route, Problem> {
        Ok(match self {
            Self::DriverSocket(id) => Route::DriverSocket(path_id("driver_id", id, DriverId::parse)?),
            Self::Offer => Route::Offer,
            Self::Response => Route::Response,
            Self::Cancel => Route::Cancel,
            Self::TripCancel(id) => Route::TripCancel(path_id("trip_id", id, TripId::parse)?),
            Self::RequestView(id) => Route::RequestView(path_id("request_id", id, RequestId::parse)?),
            Self::Audit(id) => Route::Audit(path_id("request_id", id, RequestId::parse)?),
            Self::DriverView(id) => Route::DriverView(path_id("driver_id", id, DriverId::parse)?),
            Self::Records(id) => Route::Records(records_query(
                path_id("driver_id", id, DriverId::parse)?,
                query.unwrap_or_default(),
            )?),
            Self::Events => Route::Events(events_query(query.unwrap_or_default())?),
            Self::EventsAck => Route::EventsAck,
            Self::FleetAssign => Route::FleetAssign(assign_query(query.unwrap_or_default())?),
            Self::Healthz => Route::Healthz,
            Self::Readyz => Route::Readyz,
            Self::Metrics => Route::Metrics,
            Self::OpenApi => Route::OpenApi,
            Self::AsyncApi => Route::AsyncApi,
        })
    }
}

/// RFC 3986 §6.2.2.2: a percent-encoded unreserved character is that character. What is reserved stays encoded: an encoded
/// slash separates nothing.
fn without_needless_encoding(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut normal = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        normal.push_str(&rest[..at]);
        // The target was checked: two hex digits follow. An odd one would be left as it is.
        let encoded = rest.get(at..at + 3).unwrap_or(&rest[at..]);
        match encoded.get(1..).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => normal.push(byte as char),
            _ => normal.push_str(encoded),
        }
        rest = &rest[at + encoded.len()..];
    }
    normal.push_str(rest);
    Cow::Owned(normal)
}

/// Decodes and checks an id of the path. A percent-encoded byte that the rule of ids does not allow stays forbidden.
fn path_id<T>(name: &str, segment: &str, parse: fn(&str) -> Result<T, IdError>) -> Result<T, Problem> {
    let bad = |why: &dyn std::fmt::Display| Problem::invalid(format!("{name} in the path: {why}"));
    let text = decode(segment).ok_or_else(|| bad(&"bad percent-encoding"))?;
    parse(&text).map_err(|why| bad(&why))
}

/// RFC 3986 §2.1. `None` for a `%` without two hex digits, and for bytes that are not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || bytes.next().and_then(|digit| (digit as char).to_digit(16));
            let (high, low) = (digit()?, digit()?);
            (high << 4 | low) as u8
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn records_query(driver_id: DriverId, query: &str) -> Result<RecordsQuery, Problem> {
    let [date, limit, before] = parameters(query, ["date", "limit", "before"])?;
    let date = date.ok_or_else(|| Problem::invalid("date: is required, as YYYY-MM-DD"))?;
    Ok(RecordsQuery {
        driver_id,
        date: parse_date(&date).ok_or_else(|| Problem::invalid("date: must be a day as YYYY-MM-DD"))?,
        limit: number("limit", limit.as_deref(), 1, RECORDS_LIMIT_MAX.into())?.map_or(RECORDS_LIMIT_DEFAULT, cut),
        before: before.map(parse_before).transpose()?,
    })
}

fn events_query(query: &str) -> Result<EventsQuery, Problem> {
    let [after, wait_ms, limit, consumer] = parameters(query, ["after", "wait_ms", "limit", "consumer"])?;
    Ok(EventsQuery {
        after: number("after", after.as_deref(), 0, u64::MAX)?,
        wait_ms: number("wait_ms", wait_ms.as_deref(), 0, EVENTS_WAIT_MS_MAX.into())?.map_or(0, cut),
        limit: number("limit", limit.as_deref(), 1, EVENTS_LIMIT_MAX.into())?.map_or(EVENTS_LIMIT_DEFAULT, cut),
        consumer: consumer.map(|name| parse_consumer(&name)).transpose()?,
    })
}

fn assign_query(query: &str) -> Result<DriverId, Problem> {
    let [driver_id] = parameters(query, ["driver_id"])?;
    let driver_id = driver_id.ok_or_else(|| Problem::invalid("driver_id: is required"))?;
    DriverId::parse(&driver_id).map_err(|why| Problem::invalid(format!("driver_id: {why}")))
}

/// A consumer's name follows the rule of ids.
pub(super) fn parse_consumer(name: &str) -> Result<CompactString, Problem> {
    match RequestId::parse(name) {
        Ok(_) => Ok(CompactString::new(name)),
        Err(why) => Err(Problem::invalid(format!("consumer: {why}"))),
    }
}

/// The values of these parameters, decoded; others are ignored.
fn parameters<'a, const N: usize>(query: &'a str, names: [&str; N]) -> Result<[Option<Cow<'a, str>>; N], Problem> {
    let mut values = [const { None }; N];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(index) = decode(name).and_then(|name| names.iter().position(|known| *known == name)) else {
            continue;
        };
        let name = names[index];
        let value = decode(value).ok_or_else(|| Problem::invalid(format!("{name}: bad percent-encoding")))?;
        if values[index].replace(value).is_some() {
            return Err(Problem::invalid(format!("{name}: is given twice")));
        }
    }
    Ok(values)
}

/// Digits only: no sign, no space, no fraction.
fn number(name: &str, text: Option<&str>, min: u64, max: u64) -> Result<Option<u64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(value) if digits && (min..=max).contains(&value) => Ok(Some(value)),
        _ => Err(Problem::invalid(format!(
            "{name}: must be a whole number from {min} to {max}"
        ))),
    }
}

/// A number that [`number`] has checked against a bound of 32 bits.
fn cut(value: u64) -> u32 {
    debug_assert!(u32::try_from(value).is_ok());
    value as u32
}

/// Exactly `YYYY-MM-DD`, and a day that exists.
fn parse_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let shape = |(index, byte): (usize, &u8)| {
        if matches!(index, 4 | 7) {
            *byte == b'-'
        } else {
            byte.is_ascii_digit()
        }
    };
    if bytes.len() != 10 || !bytes.iter().enumerate().all(shape) {
        return None;
    }
    Date::new(
        text[..4].parse().ok()?,
        text[5..7].parse().ok()?,
        text[8..].parse().ok()?,
    )
    .ok()
}

fn parse_before(text: Cow<'_, str>) -> Result<String, Problem> {
    if text.is_empty() || text.len() > RECORDS_BEFORE_LEN_MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::invalid("before: must be the next_before of another page"));
    }
    Ok(text.into_owned())
}
