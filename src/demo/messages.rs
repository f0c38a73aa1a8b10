//! The contract's JSON as a client reads it: what drivers hear, what the API answers, what is published.
//!
//! Written from the contract alone, on purpose apart from the node's own codecs: a mistake there must not be
//! repeated here. Unknown members are ignored, as the contract asks of every reader.

use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// A driver's, request's or trip's id, shared by all that was observed about it.
pub type Id = Arc<str>;

/// Server to driver.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum ToDriver {
    /// First message of a session.
    Welcome {
        session: u64,
        state: String,
        trip_id: Option<String>,
        heartbeat_ms: u64,
    },
    /// An offer, new or still open after a reconnect.
    Offer {
        request_id: String,
        attempt: u32,
        expires_at_ms: u64,
        trip: TripPlan,
    },
    /// The driver has the trip.
    Confirmed {
        request_id: String,
        attempt: u32,
        trip_id: String,
    },
    /// The answer to a `DECLINE`.
    Declined { request_id: String, attempt: u32 },
    /// The offer was taken back.
    Revoked {
        request_id: String,
        attempt: u32,
        reason: String,
    },
    /// The driver's state changed.
    State { state: String, trip_id: Option<String> },
    /// The trip was cancelled over the API.
    TripCancelled { trip_id: String, request_id: String },
    /// The answer to a `PING`.
    Pong,
    /// A message of the driver was refused.
    Error {
        code: String,
        message: Option<String>,
        request_id: Option<String>,
    },
    /// A later version's message.
    #[serde(other)]
    Unknown,
}

/// What the driver's app takes from the caller's `trip`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
pub struct TripPlan {
    /// How long the real ride took, in seconds.
    #[serde(default)]
    pub duration_s: u32,
    /// Where it ended.
    #[serde(default)]
    pub dropoff: Option<TripEnd>,
}

/// One end of a trip.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct TripEnd {
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
}

/// 202, 200 or an error of `POST /v1/dispatch/offer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct OfferAnswer {
    /// State of the request.
    #[serde(default)]
    pub state: String,
    /// Whether the same request was known.
    #[serde(default)]
    pub duplicate: bool,
    /// First attempt of this POST.
    #[serde(default)]
    pub attempt: u32,
    /// Its driver.
    #[serde(default)]
    pub driver_id: Option<String>,
    /// Code of a problem.
    #[serde(default)]
    pub code: Option<String>,
}

/// 200 of `POST /v1/dispatch/response`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ResponseAnswer {
    /// `CONFIRMED`, `DECLINED` or `TOO_LATE`.
    pub outcome: String,
    /// The trip, when confirmed.
    pub trip_id: Option<String>,
}

/// 200 of `GET /v1/dispatch/request/{request_id}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct RequestView {
    /// State of the request.
    pub state: String,
    /// Latest or winning attempt.
    pub attempt: u32,
    /// Its driver.
    pub driver_id: Option<String>,
    /// Every driver tried.
    pub excluded: Vec<String>,
    /// The trip, once there is one.
    pub trip_id: Option<String>,
}

/// 200 of `GET /v1/dispatch/audit/{request_id}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AuditView {
    /// State of the request.
    pub state: String,
    /// Oldest first.
    pub events: Vec<AuditEvent>,
}

/// One step in an audit.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct AuditEvent {
    /// From 1.
    pub seq: u64,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// The step's name.
    pub event: String,
    /// Of which attempt.
    pub attempt: Option<u32>,
    /// Of which driver.
    pub driver_id: Option<String>,
    /// Which node wrote it.
    pub node: Option<String>,
    /// The way a message went or came.
    pub channel: Option<String>,
    /// More, as the step has it.
    pub detail: Option<Value>,
}

/// One line of `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct EventLine {
    /// Place in the stream.
    pub cursor: u64,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// To which request.
    pub request_id: String,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// The trip.
    pub trip_id: Option<String>,
    /// Its driver.
    pub driver_id: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// Drivers tried.
    #[serde(default)]
    pub excluded: Vec<String>,
    /// Which node's stream it came in, counted from 0: cursors are of one stream.
    #[serde(skip)]
    pub stream: u16,
}

/// What an event says, wherever and however often it is published.
pub type Saying = (String, String, Option<String>, Option<String>, Vec<String>);

impl EventLine {
    /// What it says, by which a consumer tells a repetition from news.
    pub fn saying(&self) -> Saying {
        let (kind, request) = (self.kind.clone(), self.request_id.clone());
        (
            kind,
            request,
            self.trip_id.clone(),
            self.outcome.clone(),
            self.excluded.clone(),
        )
    }
}

/// Whether a request in this state is over.
pub fn is_end(state: &str) -> bool {
    matches!(state, "ACCEPTED" | "CANCELLED" | "UNFULFILLED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_the_contract_are_read() {
        let check = |text: &str, expect: &ToDriver| {
            assert_eq!(&serde_json::from_str::<ToDriver>(text).unwrap(), expect, "{text}");
        };
        check(r#"{"type":"PONG","server_time_ms":1}"#, &ToDriver::Pong);
        check(r#"{"type":"SOMETHING_NEW","a":[1]}"#, &ToDriver::Unknown);
        let offer = ToDriver::Offer {
            request_id: "r".into(),
            attempt: 2,
            expires_at_ms: 7,
            trip: TripPlan {
                duration_s: 60,
                dropoff: None,
            },
        };
        check(
            r#"{"type":"OFFER","request_id":"r","attempt":2,"priority":"premium","expires_at_ms":7,"ttl_ms":3,"trip":{"duration_s":60,"x":1}}"#,
            &offer,
        );
        let state = ToDriver::State {
            state: "on_trip".into(),
            trip_id: Some("t".into()),
        };
        check(r#"{"type":"STATE","state":"on_trip","trip_id":"t"}"#, &state);
    }

    #[test]
    fn an_event_line_is_read() {
        let line: EventLine = serde_json::from_str(
            r#"{"cursor":3,"type":"REDISPATCH_REQUESTED","request_id":"r","at_ms":9,"excluded":["d"],"attempts":1,"trip":{}}"#,
        )
        .unwrap();
        assert_eq!((line.cursor, line.kind.as_str()), (3, "REDISPATCH_REQUESTED"));
        assert_eq!(line.excluded, ["d"]);
    }
}
