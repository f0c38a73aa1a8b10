//! Bodies of the HTTP API's answers.

use super::Bad;
use super::json::{self, Value};
use crate::ids::{Driver, Ids, Offer, Request, Trip};
use crate::phrases::{self, NO_REASON, Place, Reason};
use crate::words::{Class, Code, DriverState, EventType, Outcome, Response, State, TripEnd};

/// 202 and 200 of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub struct OfferAnswer {
    pub request: Request,
    pub state: State,
    pub attempt: u32,
    pub driver: Option<Driver>,
    pub duplicate: bool,
}

/// 200 of a driver's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub struct ResponseAnswer {
    pub request: Request,
    pub outcome: Outcome,
    pub trip: Option<Trip>,
}

/// A request as `GET /v1/dispatch/request` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub struct View {
    pub request: Request,
    pub state: State,
    pub attempt: u32,
    pub driver: Option<Driver>,
    pub excluded: Vec<Driver>,
    pub trip: Option<Trip>,
    pub class: Class,
    pub deadline_at_ms: u64,
}

/// A driver as `GET /v1/drivers` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub struct DriverView {
    pub driver: Driver,
    pub state: DriverState,
    pub trip: Option<Trip>,
    pub offer: Option<Offer>,
    pub last_seen_ms: u64,
    /// Where the driver is.
    pub located: Option<Place>,
}

/// A dispatch record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub struct Record {
    pub sent_at_ms: u64,
    pub request: Request,
    pub attempt: u32,
    pub trip: Option<Trip>,
    pub response: Response,
    pub response_at_ms: u64,
    /// The gateway node.
    pub node: u8,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub struct Event {
    pub cursor: u64,
    pub kind: EventType,
    pub request: Request,
    pub at_ms: u64,
    pub excluded: Vec<Driver>,
    pub attempts: u32,
    pub trip: Option<Trip>,
    pub driver: Option<Driver>,
    pub outcome: Option<TripEnd>,
    /// Why a request was cancelled.
    pub reason: Reason,
    /// The trip object, where there is one, is the request's.
    pub trip_intact: bool,
}

/// A problem (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub struct Problem {
    pub code: Code,
    pub state: Option<State>,
    pub trip: Option<Trip>,
    pub excluded: Vec<Driver>,
}

/// Every member that any of the bodies has.
#[derive(Default)]
struct Members<'a> {
    request: Option<Request>,
    driver: Option<Driver>,
    trip_id: Option<Trip>,
    state: Option<&'a str>,
    attempt: u64,
    duplicate: Option<bool>,
    outcome: Option<&'a str>,
    excluded: Vec<Driver>,
    class: Option<Class>,
    deadline_at_ms: u64,
    code: Option<&'a str>,
    offer: Option<&'a str>,
    records: Option<&'a str>,
    next_before: Option<&'a str>,
    kind: &'a str,
    cursor: Option<u64>,
    at_ms: u64,
    attempts: u64,
    trip: Option<&'a str>,
    sent_at_ms: u64,
    response: &'a str,
    response_at_ms: u64,
    last_seen_ms: Option<u64>,
    location: Option<&'a str>,
    reason: Option<&'a str>,
    node: Option<u8>,
}

fn members<'a>(text: &'a str, ids: &mut Ids) -> Result<Members<'a>, Bad> {
    let mut all = Members::default();
    let mut reader = json::object(text)?;
    while let Some((key, value)) = reader.member()? {
        match (key, value) {
            (_, Value::Null) => {}
            ("request_id", _) => all.request = Some(ids.read_request(value.text()?)?),
            ("driver_id", _) => all.driver = Some(ids.read_driver(value.text()?)?),
            ("trip_id", _) => all.trip_id = Some(ids.read_trip(value.text()?)),
            ("state", _) => all.state = Some(value.text()?),
            ("attempt", _) => all.attempt = value.number()?,
            ("attempts", _) => all.attempts = value.number()?,
            ("duplicate", Value::Bool(duplicate)) => all.duplicate = Some(duplicate),
            ("outcome", _) => all.outcome = Some(value.text()?),
            ("excluded", Value::List(list)) => all.excluded = drivers(list, ids)?,
            ("priority", _) => all.class = Some(Class::parse(value.text()?)?),
            ("deadline_at_ms", _) => all.deadline_at_ms = value.number()?,
            ("code", _) => all.code = Some(value.text()?),
            ("offer", Value::Object(offer)) => all.offer = Some(offer),
            ("records", Value::List(list)) => all.records = Some(list),
            ("next_before", _) => all.next_before = Some(value.text()?),
            ("type", _) => all.kind = value.text()?,
            ("cursor", _) => all.cursor = Some(value.number()?),
            ("at_ms", _) => all.at_ms = value.number()?,
            ("trip", Value::Object(trip)) => all.trip = Some(trip),
            ("offer_sent_at_ms", _) => all.sent_at_ms = value.number()?,
            ("response_type", _) => all.response = value.text()?,
            ("last_seen_ms", _) => all.last_seen_ms = Some(value.number()?),
            ("location", Value::Object(place)) => all.location = Some(place),
            ("reason", _) => all.reason = Some(value.text()?),
            ("node" | "gateway_node_id", _) => all.node = Some(ids.read_node(value.text()?)?),
            ("response_at_ms", _) => all.response_at_ms = value.number()?,
            _ => {}
        }
    }
    Ok(all)
}

fn small(number: u64) -> Result<u32, Bad> {
    u32::try_from(number).map_err(|_| Bad::new(format!("{number} is too large")))
}

/// Reads a list of driver ids.
///
/// # Errors
/// When it is none.
pub fn drivers(list: &str, ids: &Ids) -> Result<Vec<Driver>, Bad> {
    let mut all = Vec::new();
    let mut reader = json::list(list)?;
    while let Some(item) = reader.item()? {
        all.push(ids.read_driver(item.text()?)?);
    }
    Ok(all)
}

fn need<T>(value: Option<T>, text: &str) -> Result<T, Bad> {
    value.ok_or_else(|| Bad::new(format!("a body that lacks something: {text}")))
}

/// Reads the 202 or 200 of an offer.
///
/// # Errors
/// When it is none.
pub fn offer(text: &str, ids: &mut Ids) -> Result<OfferAnswer, Bad> {
    let all = members(text, ids)?;
    Ok(OfferAnswer {
        request: need(all.request, text)?,
        state: State::parse(need(all.state, text)?)?,
        attempt: small(all.attempt)?,
        driver: all.driver,
        duplicate: need(all.duplicate, text)?,
    })
}

/// Reads the 200 of a driver's response.
///
/// # Errors
/// When it is none.
pub fn response(text: &str, ids: &mut Ids) -> Result<ResponseAnswer, Bad> {
    let all = members(text, ids)?;
    Ok(ResponseAnswer {
        request: need(all.request, text)?,
        outcome: Outcome::parse(need(all.outcome, text)?)?,
        trip: all.trip_id,
    })
}

/// Reads the 200 of a cancel: the request and its state.
///
/// # Errors
/// When it is none.
pub fn cancelled(text: &str, ids: &mut Ids) -> Result<(Request, State), Bad> {
    let all = members(text, ids)?;
    Ok((need(all.request, text)?, State::parse(need(all.state, text)?)?))
}

/// Reads the 200 of a trip's cancel: the trip.
///
/// # Errors
/// When it is none.
pub fn trip_cancelled(text: &str, ids: &mut Ids) -> Result<Trip, Bad> {
    need(members(text, ids)?.trip_id, text)
}

/// Reads a view of a request.
///
/// # Errors
/// When it is none.
pub fn view(text: &str, ids: &mut Ids) -> Result<View, Bad> {
    let all = members(text, ids)?;
    Ok(View {
        request: need(all.request, text)?,
        state: State::parse(need(all.state, text)?)?,
        attempt: small(all.attempt)?,
        driver: all.driver,
        excluded: all.excluded,
        trip: all.trip_id,
        class: need(all.class, text)?,
        deadline_at_ms: all.deadline_at_ms,
    })
}

/// Reads a view of a driver.
///
/// # Errors
/// When it is none.
pub fn driver_view(text: &str, ids: &mut Ids) -> Result<DriverView, Bad> {
    let all = members(text, ids)?;
    let offer = match all.offer {
        None => None,
        Some(text) => {
            let offer = members(text, ids)?;
            Some(Offer {
                request: need(offer.request, text)?,
                attempt: small(offer.attempt)?,
            })
        }
    };
    Ok(DriverView {
        driver: need(all.driver, text)?,
        state: DriverState::parse(need(all.state, text)?)?,
        trip: all.trip_id,
        offer,
        last_seen_ms: need(all.last_seen_ms, text)?,
        located: all.location.map(phrases::place_of),
    })
}

/// Reads a page of dispatch records and where the next one begins.
///
/// # Errors
/// When it is none.
pub fn records<'a>(text: &'a str, ids: &mut Ids) -> Result<(Vec<Record>, Option<&'a str>), Bad> {
    let page = members(text, ids)?;
    let mut rows = Vec::new();
    let mut reader = json::list(need(page.records, text)?)?;
    while let Some(item) = reader.item()? {
        let Value::Object(text) = item else {
            return Err(Bad::new("a record that is no object"));
        };
        let row = members(text, ids)?;
        rows.push(Record {
            sent_at_ms: row.sent_at_ms,
            request: need(row.request, text)?,
            attempt: small(row.attempt)?,
            trip: row.trip_id,
            response: Response::parse(row.response)?,
            response_at_ms: row.response_at_ms,
            node: need(row.node, text)?,
        });
    }
    Ok((rows, page.next_before))
}

/// Reads an event. `trip_of` says whether a trip object is that of a request.
///
/// # Errors
/// When it is none.
pub fn event(line: &str, ids: &mut Ids, trip_of: impl FnOnce(Request, &str) -> bool) -> Result<Event, Bad> {
    let all = members(line, ids)?;
    let request = need(all.request, line)?;
    let kind = EventType::parse(all.kind)?;
    let has_trip = matches!(kind, EventType::RedispatchRequested | EventType::TripCreated);
    if has_trip != all.trip.is_some() {
        return Err(Bad::new(format!("an event with too much or too little: {line}")));
    }
    Ok(Event {
        cursor: need(all.cursor, line)?,
        kind,
        request,
        at_ms: all.at_ms,
        excluded: all.excluded,
        attempts: small(all.attempts)?,
        trip: all.trip_id,
        driver: all.driver,
        outcome: all.outcome.map(TripEnd::parse).transpose()?,
        reason: match all.reason {
            Some(text) if kind == EventType::RequestCancelled => {
                phrases::reason_of(text).ok_or_else(|| Bad::new(format!("a reason that nobody gives: {line}")))?
            }
            _ => NO_REASON,
        },
        trip_intact: all.trip.is_none_or(|trip| trip_of(request, trip)),
    })
}

/// Reads the 200 of an acknowledgement: the cursor.
///
/// # Errors
/// When it is none.
pub fn acknowledged(text: &str, ids: &mut Ids) -> Result<u64, Bad> {
    need(members(text, ids)?.cursor, text)
}

/// Reads a problem.
///
/// # Errors
/// When it is none, or one that no client of the simulator asked for.
pub fn problem(text: &str, ids: &mut Ids) -> Result<Problem, Bad> {
    let all = members(text, ids)?;
    Ok(Problem {
        code: Code::parse(need(all.code, text)?).map_err(|Bad(why)| Bad(format!("{why} in {text}")))?,
        state: all.state.map(State::parse).transpose()?,
        trip: all.trip_id,
        excluded: all.excluded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Style;

    fn ids() -> Ids {
        Ids::new(Style::ALL[0])
    }

    #[test]
    fn offers_and_problems() {
        let text = r#"{"request_id":"r4","state":"OFFER_SENT","attempt":1,"driver_id":"d2","duplicate":false}"#;
        let expect = OfferAnswer {
            request: 4,
            state: State::OfferSent,
            attempt: 1,
            driver: Some(2),
            duplicate: false,
        };
        assert_eq!(offer(text, &mut ids()), Ok(expect));
        let text = r#"{"type":"about:blank","title":"Conflict","status":409,"code":"excluded","detail":"x","state":"PENDING_MATCH","excluded":["d1","d3"]}"#;
        let read = problem(text, &mut ids()).unwrap();
        assert_eq!((read.code, read.excluded), (Code::Excluded, vec![1, 3]));
        assert!(problem(r#"{"code":"teapot"}"#, &mut ids()).is_err());
        assert!(offer(r#"{"request_id":"r4","state":"OFFER_SENT"}"#, &mut ids()).is_err());
    }

    #[test]
    fn views_and_records() {
        let text = r#"{"driver_id":"d1","state":"offered","offer":{"request_id":"r1","attempt":3,"expires_at_ms":5},"last_seen_ms":4,"node":"gw-1"}"#;
        let read = driver_view(text, &mut ids()).unwrap();
        let expect = Offer { request: 1, attempt: 3 };
        assert_eq!((read.state, read.offer), (DriverState::Offered, Some(expect)));
        let text = r#"{"driver_id":"d1","date":"2026-01-01","records":[{"request_id":"r1","trip_id":null,"attempt":1,"offer_sent_at_ms":5,"response_type":"TIMEOUT","response_at_ms":9,"gateway_node_id":"gw-1"}],"next_before":"5:x"}"#;
        let (rows, next) = records(text, &mut ids()).unwrap();
        assert_eq!(
            (rows.len(), rows[0].response, next),
            (1, Response::Timeout, Some("5:x"))
        );
    }

    #[test]
    fn events() {
        let line = r#"{"cursor":3,"type":"TRIP_CREATED","request_id":"r1","at_ms":9,"trip_id":"t-1","driver_id":"d1","trip":{"a":1}}"#;
        let read = event(line, &mut ids(), |request, trip| request == 1 && trip == r#"{"a":1}"#).unwrap();
        assert!(read.trip_intact && read.trip == Some(0) && read.driver == Some(1));
        let line = r#"{"cursor":3,"type":"TRIP_ENDED","request_id":"r1","at_ms":9,"trip_id":"t-1","driver_id":"d1","outcome":"completed"}"#;
        assert_eq!(
            event(line, &mut ids(), |_, _| false).unwrap().outcome,
            Some(TripEnd::Completed)
        );
        assert!(
            event(
                r#"{"cursor":3,"type":"TRIP_CREATED","request_id":"r1"}"#,
                &mut ids(),
                |_, _| true
            )
            .is_err()
        );
    }
}
