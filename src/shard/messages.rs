//! What drivers say as events of their actor, and what the actor says as text frames.
#![forbid(unsafe_code)]

use super::Shard;
use super::{Platform, Ring};
use crate::fsm::driver::{DriverEvent, Location, ToSocket};
use crate::fsm::ids::DriverId;
use crate::fsm::request::{Answer, TripMove};
use crate::fsm::types::UnixMs;
use crate::net::ConnId;
use crate::ops::log::LogKind;
use crate::ops::metrics::{BadInput, MessageIn, MessageOut};
use crate::wire::driver::{
    self as messages, DriverMessage, ErrorCode, Offer, TripEvent, Welcome, parse_driver_message,
};
use crate::wire::ws;

impl<P: Platform> Shard<P> {
    /// One text message of a driver.
    pub(super) fn message(&mut self, conn: ConnId, key: u32, text: &str) {
        let message = match parse_driver_message(text) {
            Ok(message) => message,
            Err(error) => {
                self.metrics().bad_input.of(BadInput::Message).inc();
                self.metrics().messages_sent.of(MessageOut::Error).inc();
                self.log(LogKind::BadMessage, |suppressed| {
                    tracing::info!(
                        code = error.code.as_str(),
                        error = error.message,
                        suppressed,
                        "bad message"
                    );
                });
                return self.send_text(conn, |out| messages::message_error(out, &error));
            }
        };
        let (kind, event) = understand(message);
        self.metrics().messages_received.of(kind).inc();
        let Some(event) = event else {
            self.metrics().heartbeats.inc();
            self.metrics().messages_sent.of(MessageOut::Pong).inc();
            let now_ms = self.now_ms;
            return self.send_text(conn, |out| messages::pong(out, now_ms));
        };
        if !matches!(event, DriverEvent::At(_)) {
            self.charge_driver(conn);
        }
        self.step_driver(key, event);
    }

    /// Sends what the driver actor says.
    pub(super) fn send(&mut self, conn: ConnId, key: u32, message: &ToSocket) {
        let Some(out) = self.net.output(conn) else { return };
        let about = About {
            driver_id: self.drivers.slab[key as usize].driver.id(),
            heartbeat_ms: self.driver_limits.heartbeat_ms,
            now_ms: self.now_ms,
        };
        ws::write_text(out, |out| say(out, message, &about));
        if matches!(message, ToSocket::Offer { .. } | ToSocket::Confirmed { .. }) {
            // When it left is measured, and of an offer it is recorded.
            self.net.tell_drained(conn);
        }
        self.metrics().messages_sent.of(kind_of(message)).inc();
        self.check_room(conn);
    }
}

/// The event that a message is; none for a heartbeat, which only wants its answer.
fn understand(message: DriverMessage) -> (MessageIn, Option<DriverEvent>) {
    let (kind, event) = match message {
        DriverMessage::Ping => return (MessageIn::Ping, None),
        DriverMessage::Ack { request_id, attempt } => (MessageIn::Ack, DriverEvent::Ack { request_id, attempt }),
        DriverMessage::Accept {
            request_id,
            attempt,
            reason,
        } => {
            let answer = Answer::Accept;
            (
                MessageIn::Accept,
                DriverEvent::Answer {
                    request_id,
                    attempt,
                    answer,
                    reason,
                },
            )
        }
        DriverMessage::Decline {
            request_id,
            attempt,
            reason,
        } => {
            let answer = Answer::Decline;
            (
                MessageIn::Decline,
                DriverEvent::Answer {
                    request_id,
                    attempt,
                    answer,
                    reason,
                },
            )
        }
        DriverMessage::State { available } => (MessageIn::State, DriverEvent::SetState { available }),
        DriverMessage::Trip { trip_id, event } => {
            let what = match event {
                TripEvent::Arrived => TripMove::Arrived,
                TripEvent::Pickup => TripMove::Pickup,
                TripEvent::Complete => TripMove::Complete,
                TripEvent::Cancel => TripMove::Cancel,
            };
            (MessageIn::Trip, DriverEvent::Trip { trip_id, what })
        }
        DriverMessage::Location(at) => {
            let location = Location {
                lat: at.lat,
                lon: at.lon,
                heading: at.heading,
                speed: at.speed,
            };
            (MessageIn::Location, DriverEvent::At(location))
        }
    };
    (kind, Some(event))
}

/// What messages say besides what the actor says.
struct About<'a> {
    driver_id: &'a DriverId,
    heartbeat_ms: u32,
    now_ms: UnixMs,
}

/// Appends a message's JSON.
fn say(out: &mut Vec<u8>, message: &ToSocket, about: &About<'_>) {
    match message {
        ToSocket::Welcome {
            session,
            state,
            trip_id,
        } => {
            let welcome = Welcome {
                driver_id: about.driver_id,
                session: *session,
                state: *state,
                trip_id: trip_id.as_ref(),
                heartbeat_ms: about.heartbeat_ms,
                server_time_ms: about.now_ms,
            };
            messages::welcome(out, &welcome);
        }
        ToSocket::Offer {
            request_id,
            attempt,
            priority,
            expires_at_ms,
            trip,
        } => {
            let offer = Offer {
                request_id,
                attempt: *attempt,
                priority: *priority,
                expires_at_ms: *expires_at_ms,
                ttl_ms: expires_at_ms.saturating_sub(about.now_ms) as u32,
                trip,
            };
            messages::offer(out, &offer);
        }
        ToSocket::Confirmed {
            request_id,
            attempt,
            trip_id,
        } => messages::confirmed(out, request_id, *attempt, trip_id),
        ToSocket::Declined { request_id, attempt } => messages::declined(out, request_id, *attempt),
        ToSocket::Revoked {
            request_id,
            attempt,
            reason,
        } => messages::revoked(out, request_id, *attempt, *reason),
        ToSocket::State { state, trip_id } => messages::state(out, *state, trip_id.as_ref()),
        ToSocket::TripCancelled {
            trip_id,
            request_id,
            reason,
        } => messages::trip_cancelled(out, trip_id, request_id, reason.as_deref().unwrap_or("cancelled")),
        ToSocket::NoSuchOffer { request_id } => {
            let text = "no such offer was made to this driver";
            messages::error(out, ErrorCode::NoSuchOffer, text, Some(request_id));
        }
        ToSocket::NoSuchTrip => {
            messages::error(out, ErrorCode::NoSuchTrip, "this driver has no such trip", None);
        }
    }
}

fn kind_of(message: &ToSocket) -> MessageOut {
    match message {
        ToSocket::Welcome { .. } => MessageOut::Welcome,
        ToSocket::Offer { .. } => MessageOut::Offer,
        ToSocket::Confirmed { .. } => MessageOut::Confirmed,
        ToSocket::Declined { .. } => MessageOut::Declined,
        ToSocket::Revoked { .. } => MessageOut::Revoked,
        ToSocket::State { .. } => MessageOut::State,
        ToSocket::TripCancelled { .. } => MessageOut::TripCancelled,
        ToSocket::NoSuchOffer { .. } | ToSocket::NoSuchTrip => MessageOut::Error,
    }
}
