//! The body of `GET /v1/dispatch/audit/{request_id}`.

use super::Bad;
use super::answers::drivers;
use super::json::{self, Value};
use crate::ids::{Driver, Ids, Request, Trip};
use crate::phrases::{self, NO_REASON, Reason};
use crate::words::{Class, Revoke, State, Step, TripEnd};

/// What a `REQUEST_RECEIVED` or a `REDISPATCHED` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub struct Asked {
    pub candidates: Vec<Driver>,
    pub class: Option<Class>,
    pub deadline_at_ms: u64,
    pub max_attempts: Option<u64>,
    pub offer_timeout_ms: Option<u64>,
    pub parallel: Option<u64>,
    pub busy_wait_ms: Option<u64>,
}

/// A word that an event's detail has for why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// None.
    Unsaid,
    /// Of `OFFER_REVOKED`.
    Revoked(Revoke),
    /// Of `REQUEST_UNFULFILLED`: the deadline.
    Deadline,
    /// Of `REQUEST_UNFULFILLED`: the attempts.
    Attempts,
    /// Of `OFFER_REFUSED`: the driver is not there, or off shift.
    Offline,
    /// Of `OFFER_REFUSED`: the driver holds another offer.
    Offered,
    /// Of `OFFER_REFUSED`: the driver has a trip.
    Trip,
    /// Of `OFFER_DECLINED`: the driver went off shift.
    OffShift,
    /// A caller's words.
    Words(Reason),
}

impl Why {
    /// The reason that a caller gave, if any.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Words(reason) => reason,
            _ => NO_REASON,
        }
    }
}

/// An event of an audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at_ms: u64,
    /// What.
    pub step: Step,
    /// Which attempt; 0: none.
    pub attempt: u32,
    /// Whose.
    pub driver: Option<Driver>,
    /// The answer came by the socket.
    pub by_socket: bool,
    /// Why.
    pub why: Why,
    /// When the offer ends, of `OFFER_SENT`.
    pub expires_at_ms: u64,
    /// The trip.
    pub trip: Option<Trip>,
    /// How the trip ended.
    pub outcome: Option<TripEnd>,
    /// Where it was noted.
    pub node: u8,
    /// What was asked for, of `REQUEST_RECEIVED` and `REDISPATCHED`.
    pub asked: Option<Box<Asked>>,
}

/// An audit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Whose.
    pub request: Request,
    /// Its state.
    pub state: State,
    /// Oldest first.
    pub entries: Vec<Entry>,
}

/// Reads an audit.
///
/// # Errors
/// When it is none, or its `seq` has gaps.
pub fn read(text: &str, ids: &mut Ids) -> Result<Audit, Bad> {
    let (mut request, mut state, mut entries) = (None, None, Vec::new());
    let mut reader = json::object(text)?;
    while let Some((key, value)) = reader.member()? {
        match (key, value) {
            ("request_id", _) => request = Some(ids.read_request(value.text()?)?),
            ("state", _) => state = Some(State::parse(value.text()?)?),
            ("events", Value::List(list)) => {
                let mut items = json::list(list)?;
                while let Some(item) = items.item()? {
                    let Value::Object(text) = item else {
                        return Err(Bad::new("an event that is no object"));
                    };
                    let (seq, entry) = read_entry(text, ids)?;
                    entries.push(entry);
                    if seq != entries.len() as u64 {
                        return Err(Bad::new(format!("seq {seq} where {} belongs", entries.len())));
                    }
                }
            }
            _ => {}
        }
    }
    match (request, state) {
        (Some(request), Some(state)) => Ok(Audit {
            request,
            state,
            entries,
        }),
        _ => Err(Bad::new(format!("an audit that lacks something: {text}"))),
    }
}

fn read_entry(text: &str, ids: &mut Ids) -> Result<(u64, Entry), Bad> {
    let mut entry = Entry {
        at_ms: 0,
        step: Step::Received,
        attempt: 0,
        driver: None,
        by_socket: false,
        why: Why::Unsaid,
        expires_at_ms: 0,
        trip: None,
        outcome: None,
        node: 0,
        asked: None,
    };
    let (mut seq, mut detail, mut has_node) = (0, None, false);
    let mut reader = json::object(text)?;
    while let Some((key, value)) = reader.member()? {
        match (key, value) {
            ("seq", _) => seq = value.number()?,
            ("at_ms", _) => entry.at_ms = value.number()?,
            ("event", _) => entry.step = Step::parse(value.text()?)?,
            ("attempt", _) => entry.attempt = value.number()? as u32,
            ("driver_id", _) => entry.driver = Some(ids.read_driver(value.text()?)?),
            ("channel", _) => entry.by_socket = is_socket(value.text()?)?,
            ("node", _) => (entry.node, has_node) = (ids.read_node(value.text()?)?, true),
            ("detail", Value::Object(text)) => detail = Some(text),
            _ => {}
        }
    }
    if !has_node || entry.at_ms == 0 {
        return Err(Bad::new(format!("an event that lacks something: {text}")));
    }
    if let Some(detail) = detail {
        read_detail(detail, ids, &mut entry)?;
    }
    Ok((seq, entry))
}

fn is_socket(channel: &str) -> Result<bool, Bad> {
    match channel {
        "websocket" => Ok(true),
        "http" => Ok(false),
        _ => Err(Bad::new(format!("no such channel: {channel}"))),
    }
}

fn read_detail(text: &str, ids: &mut Ids, entry: &mut Entry) -> Result<(), Bad> {
    let mut asked = Asked::default();
    let mut reader = json::object(text)?;
    while let Some((key, value)) = reader.member()? {
        match (key, value) {
            ("reason", _) => entry.why = why(entry.step, value.text()?)?,
            ("expires_at_ms", _) => entry.expires_at_ms = value.number()?,
            ("trip_id", _) => entry.trip = Some(ids.read_trip(value.text()?)),
            ("outcome", _) => entry.outcome = Some(TripEnd::parse(value.text()?)?),
            ("candidates", Value::List(list)) => asked.candidates = drivers(list, ids)?,
            ("priority", _) => asked.class = Some(Class::parse(value.text()?)?),
            ("deadline_at_ms", _) => asked.deadline_at_ms = value.number()?,
            ("max_attempts", _) => asked.max_attempts = Some(value.number()?),
            ("offer_timeout_ms", _) => asked.offer_timeout_ms = Some(value.number()?),
            ("parallel", _) => asked.parallel = Some(value.number()?),
            ("busy_wait_ms", _) => asked.busy_wait_ms = Some(value.number()?),
            _ => {}
        }
    }
    if matches!(entry.step, Step::Received | Step::Redispatched) {
        entry.asked = Some(Box::new(asked));
    }
    Ok(())
}

fn why(step: Step, reason: &str) -> Result<Why, Bad> {
    Ok(match (step, reason) {
        (Step::Revoked, _) => Why::Revoked(Revoke::parse(reason)?),
        (Step::Unfulfilled, "deadline") => Why::Deadline,
        (Step::Unfulfilled, "attempts") => Why::Attempts,
        (Step::Unfulfilled, _) => return Err(Bad::new(format!("unfulfilled for {reason}"))),
        (Step::Refused, "offline") => Why::Offline,
        (Step::Refused, "offered") => Why::Offered,
        (Step::Refused, "en_route_to_pickup" | "on_trip") => Why::Trip,
        (Step::Refused, _) => return Err(Bad::new(format!("refused for {reason}"))),
        (Step::Declined, "off shift") => Why::OffShift,
        (Step::Cancelled | Step::TripEnded, _) => match phrases::reason_of(reason) {
            Some(reason) => Why::Words(reason),
            None => return Err(Bad::new(format!("{} for {reason}, which nobody says", step.as_str()))),
        },
        _ => return Err(Bad::new(format!("{} for {reason}", step.as_str()))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Style;

    const TEXT: &str = r#"{"request_id":"r1","state":"OFFER_SENT","events":[
        {"seq":1,"at_ms":5,"event":"REQUEST_RECEIVED","node":"gw-1","detail":{"priority":"premium","deadline_at_ms":9,"candidates":["d1","d2"],"offer_timeout_ms":3,"parallel":1,"busy_wait_ms":0}},
        {"seq":2,"at_ms":5,"event":"OFFER_SENT","attempt":1,"driver_id":"d1","node":"gw-1","channel":"websocket","detail":{"expires_at_ms":8}}]}"#;

    #[test]
    fn an_audit() {
        let audit = read(TEXT, &mut Ids::new(Style::ALL[0])).unwrap();
        assert_eq!(
            (audit.request, audit.state, audit.entries.len()),
            (1, State::OfferSent, 2)
        );
        let asked = audit.entries[0].asked.as_ref().unwrap();
        assert_eq!(
            (asked.candidates.as_slice(), asked.class),
            (&[1, 2][..], Some(Class::Premium))
        );
        assert_eq!((audit.entries[1].expires_at_ms, audit.entries[1].driver), (8, Some(1)));
    }

    #[test]
    fn a_gap_is_refused() {
        let text = TEXT.replace("\"seq\":2", "\"seq\":3");
        assert!(read(&text, &mut Ids::new(Style::ALL[0])).is_err());
    }
}
