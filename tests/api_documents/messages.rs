//! Messages of the driver's socket: what the codecs write fits the document, and what it shows they read.

use crate::document::Document;
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{DriverState, Priority, RevokeReason};
use dispatchd::wire::driver::{self, DriverMessage, ErrorCode, Offer, Welcome};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const AT_MS: u64 = 1_772_755_200_000;

/// `write` appends a message of this key.
fn check(document: &Document, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
    let mut text = Vec::new();
    write(&mut text);
    let message: Value = serde_json::from_slice(&text).unwrap();
    document.check_exactly(&format!("/components/messages/{key}/payload"), &message);
}

#[test]
fn what_is_sent_is_described() {
    let document = Document::asyncapi();
    let (by, to) = (RequestId::parse("req-1").unwrap(), DriverId::parse("driver-7").unwrap());
    let trip = TripId::for_request(&by, AT_MS);
    for (state, trip_id) in [(DriverState::Offered, None), (DriverState::OnTrip, Some(&trip))] {
        let welcome = Welcome {
            driver_id: &to,
            session: (1 << 53) - 1,
            state,
            trip_id,
            heartbeat_ms: 30_000,
            server_time_ms: AT_MS,
        };
        check(&document, "welcome", |out| driver::welcome(out, &welcome));
    }
    for priority in Priority::ALL {
        let (attempt, expires_at_ms, ttl_ms, trip) = (1, AT_MS, 8_000, "{ \"a\": 1 }");
        let offer = Offer {
            request_id: &by,
            attempt,
            priority,
            expires_at_ms,
            ttl_ms,
            trip,
        };
        check(&document, "offer", |out| driver::offer(out, &offer));
    }
    check(&document, "confirmed", |out| driver::confirmed(out, &by, 1, &trip));
    check(&document, "declined", |out| driver::declined(out, &by, u32::MAX));
    for reason in [
        RevokeReason::Timeout,
        RevokeReason::Cancelled,
        RevokeReason::Taken,
        RevokeReason::Superseded,
    ] {
        check(&document, "revoked", |out| driver::revoked(out, &by, 1, reason));
    }
    for state in [
        DriverState::Offline,
        DriverState::Available,
        DriverState::EnRoute,
        DriverState::OnTrip,
    ] {
        check(&document, "state", |out| driver::state(out, state, Some(&trip)));
        check(&document, "state", |out| driver::state(out, state, None));
    }
    check(&document, "tripCancelled", |out| {
        driver::trip_cancelled(out, &trip, &by, "no-show");
    });
    check(&document, "pong", |out| driver::pong(out, AT_MS));
    for code in [
        ErrorCode::Invalid,
        ErrorCode::UnknownType,
        ErrorCode::NoSuchOffer,
        ErrorCode::NoSuchTrip,
    ] {
        check(&document, "error", |out| driver::error(out, code, "why", Some(&by)));
        check(&document, "error", |out| driver::error(out, code, "why", None));
    }
}

/// The key under which the document has a message.
fn described_as(message: &DriverMessage) -> &'static str {
    match message {
        DriverMessage::Ack { .. } => "ack",
        DriverMessage::Accept { .. } => "accept",
        DriverMessage::Decline { .. } => "decline",
        DriverMessage::State { .. } => "shift",
        DriverMessage::Trip { .. } => "trip",
        DriverMessage::Location(_) => "location",
        DriverMessage::Ping => "ping",
    }
}

const RECEIVED: [&str; 7] = ["ack", "accept", "decline", "shift", "trip", "location", "ping"];

#[test]
fn what_is_described_is_read() {
    let document = Document::asyncapi();
    let mut read = BTreeSet::new();
    for key in RECEIVED {
        let payload = format!("/components/messages/{key}/payload");
        for example in document
            .root()
            .pointer(&format!("/components/messages/{key}/examples"))
            .unwrap()
            .as_array()
            .unwrap()
        {
            let example = &example["payload"];
            let message = driver::parse_driver_message(&example.to_string()).unwrap();
            assert_eq!(described_as(&message), key);
            read.insert(key);
            for member in example.as_object().unwrap().keys().filter(|member| *member != "type") {
                for other in [
                    None,
                    Some(json!(-1)),
                    Some(json!("")),
                    Some(json!([])),
                    Some(json!(1000)),
                ] {
                    let mut broken = example.clone();
                    match other {
                        None => drop(broken.as_object_mut().unwrap().remove(member)),
                        Some(other) => broken[member] = other,
                    }
                    let read = driver::parse_driver_message(&broken.to_string()).is_ok();
                    assert_eq!(document.validate(&payload, &broken).is_ok(), read, "{key} {broken}");
                }
            }
        }
    }
    assert_eq!(read.len(), RECEIVED.len());
    let sent_or_received: BTreeSet<&String> = document.object("/components/messages").keys().collect();
    assert_eq!(sent_or_received.len(), RECEIVED.len() + 9);
}
