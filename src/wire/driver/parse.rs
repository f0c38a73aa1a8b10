//! Reading driver messages.

use super::{DriverMessage, ErrorCode, Location, MessageError, TripEvent};
use crate::fsm::ids::{RequestId, TripId};
use crate::wire::fields::{self, Raw, required};
use serde::Deserialize;

/// Reads one message. Unknown fields are ignored, `null` counts as not given.
///
/// # Errors
/// [`MessageError`] names the field.
pub fn parse_driver_message(text: &str) -> Result<DriverMessage, MessageError> {
    // Most of what a driver sends in a day; with and without the space that some encoders put.
    if matches!(text, r#"{"type":"PING"}"# | r#"{"type": "PING"}"#) {
        return Ok(DriverMessage::Ping);
    }
    let members: Members<'_> = fields::object(text.as_bytes()).map_err(|message| invalid(message, None))?;
    members.message().map_err(|(code, message)| {
        let request_id = fields::id("request_id", members.request_id, RequestId::parse)
            .ok()
            .flatten();
        MessageError {
            code,
            message,
            request_id,
        }
    })
}

/// Every field of every message. Each is judged only where the message has it.
#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, rename = "type")]
    kind: Raw<'a>,
    request_id: Raw<'a>,
    attempt: Raw<'a>,
    reason: Raw<'a>,
    state: Raw<'a>,
    trip_id: Raw<'a>,
    event: Raw<'a>,
    lat: Raw<'a>,
    lon: Raw<'a>,
    heading: Raw<'a>,
    speed: Raw<'a>,
}

fn invalid(message: String, request_id: Option<RequestId>) -> MessageError {
    MessageError {
        code: ErrorCode::Invalid,
        message,
        request_id,
    }
}

impl Members<'_> {
    fn message(&self) -> Result<DriverMessage, (ErrorCode, String)> {
        let kind = fields::text("type", self.kind).and_then(|kind| required("type", kind));
        let message = match &*kind.map_err(|message| (ErrorCode::Invalid, message))? {
            "PING" => Ok(DriverMessage::Ping),
            "LOCATION" => self.location().map(DriverMessage::Location),
            "ACK" => self.ack(),
            "ACCEPT" => self.answer(|request_id, attempt, reason| DriverMessage::Accept {
                request_id,
                attempt,
                reason,
            }),
            "DECLINE" => self.answer(|request_id, attempt, reason| DriverMessage::Decline {
                request_id,
                attempt,
                reason,
            }),
            "STATE" => self.state(),
            "TRIP" => self.trip(),
            _ => return Err((ErrorCode::UnknownType, "type: no message has this type".to_owned())),
        };
        message.map_err(|message| (ErrorCode::Invalid, message))
    }

    fn offer(&self) -> Result<(RequestId, u32), String> {
        let request_id = fields::id("request_id", self.request_id, RequestId::parse)?;
        let attempt = fields::integer_u32("attempt", self.attempt, 1, u32::MAX)?;
        Ok((required("request_id", request_id)?, required("attempt", attempt)?))
    }

    fn ack(&self) -> Result<DriverMessage, String> {
        self.offer()
            .map(|(request_id, attempt)| DriverMessage::Ack { request_id, attempt })
    }

    fn answer(
        &self,
        make: impl FnOnce(RequestId, u32, Option<Box<str>>) -> DriverMessage,
    ) -> Result<DriverMessage, String> {
        let (request_id, attempt) = self.offer()?;
        Ok(make(request_id, attempt, fields::reason(self.reason)?))
    }

    fn state(&self) -> Result<DriverMessage, String> {
        match &*required("state", fields::text("state", self.state)?)? {
            "available" => Ok(DriverMessage::State { available: true }),
            "offline" => Ok(DriverMessage::State { available: false }),
            _ => Err("state: must be available or offline".to_owned()),
        }
    }

    fn trip(&self) -> Result<DriverMessage, String> {
        let trip_id = required("trip_id", fields::id("trip_id", self.trip_id, TripId::parse)?)?;
        let event = match &*required("event", fields::text("event", self.event)?)? {
            "arrived" => TripEvent::Arrived,
            "pickup" => TripEvent::Pickup,
            "complete" => TripEvent::Complete,
            "cancel" => TripEvent::Cancel,
            _ => return Err("event: must be arrived, pickup, complete or cancel".to_owned()),
        };
        Ok(DriverMessage::Trip { trip_id, event })
    }

    fn location(&self) -> Result<Location, String> {
        let heading = fields::float("heading", self.heading, 0.0, 360.0)?;
        let speed = fields::float("speed", self.speed, 0.0, f32::MAX.into())?;
        Ok(Location {
            lat: required("lat", fields::float("lat", self.lat, -90.0, 90.0)?)?,
            lon: required("lon", fields::float("lon", self.lon, -180.0, 180.0)?)?,
            heading: heading.map(|heading| heading as f32),
            speed: speed.map(|speed| speed as f32),
        })
    }
}
