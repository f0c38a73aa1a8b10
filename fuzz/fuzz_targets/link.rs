//! Frames between nodes: every frame comes back, no bytes make the decoder fall over, and no harm goes unseen.
#![no_main]

use dispatchd::fsm::fold::{Outcome, TripPhase};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::request::{Answer, Asker, ReplyTo, RequestEvent, Resumed, ToDriver, TripMove};
use dispatchd::fsm::types::{Priority, RevokeReason};
use dispatchd::wire::link::{HEADER_LEN, LinkFrame, LinkLetter, LinkReply, PAYLOAD_LEN_MAX, decode, encode};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;

fn text(u: &mut Unstructured<'_>) -> Result<String> {
    Ok(u.arbitrary::<String>()?.chars().take(200).collect())
}

fn id(u: &mut Unstructured<'_>) -> Result<String> {
    let len = u.int_in_range(1..=64)?;
    (0..len)
        .map(|_| Ok(*u.choose(b"abcXYZ019._:-")? as char))
        .collect()
}

fn driver_id(u: &mut Unstructured<'_>) -> Result<DriverId> {
    Ok(DriverId::parse(&id(u)?).expect("an id"))
}

fn request_id(u: &mut Unstructured<'_>) -> Result<RequestId> {
    Ok(RequestId::parse(&id(u)?).expect("an id"))
}

fn reply(u: &mut Unstructured<'_>) -> Result<ReplyTo> {
    Ok(ReplyTo {
        node: u.arbitrary()?,
        shard: u.arbitrary()?,
        call: u.arbitrary()?,
    })
}

fn asker(u: &mut Unstructured<'_>) -> Result<Asker> {
    Ok(if u.arbitrary()? { Asker::Driver } else { Asker::Api(reply(u)?) })
}

fn message(u: &mut Unstructured<'_>) -> Result<ToDriver> {
    let attempt = u.arbitrary()?;
    Ok(match u.int_in_range(0..=6)? {
        0 => ToDriver::Offer {
            attempt,
            priority: *u.choose(&Priority::ALL)?,
            expires_at_ms: u.arbitrary()?,
            trip: text(u)?.into(),
            resumed: *u.choose(&[Resumed::No, Resumed::Sent, Resumed::Delivered])?,
        },
        1 => ToDriver::Accept { attempt, asker: asker(u)? },
        2 => ToDriver::Decline { attempt, reason: Some(text(u)?.into()) },
        3 => ToDriver::Outcome {
            attempt,
            outcome: *u.choose(&[Outcome::Accepted, Outcome::TimedOut, Outcome::Revoked(RevokeReason::Taken)])?,
            trip_id: Some(TripId::for_request(&request_id(u)?, u.arbitrary()?)),
            again: u.arbitrary()?,
        },
        4 => ToDriver::Bound {
            attempt,
            trip_id: TripId::for_request(&request_id(u)?, u.arbitrary()?),
            phase: *u.choose(&[TripPhase::EnRoute, TripPhase::OnTrip])?,
        },
        5 => ToDriver::Ask { ask: attempt, priority: *u.choose(&Priority::ALL)? },
        _ => ToDriver::Release,
    })
}

fn letter(u: &mut Unstructured<'_>) -> Result<LinkLetter> {
    Ok(match u.int_in_range(0..=8)? {
        0 => LinkLetter::ToDriver {
            driver_id: driver_id(u)?,
            session: u.arbitrary()?,
            request_id: request_id(u)?,
            message: message(u)?,
        },
        1 => LinkLetter::Bounced {
            driver_id: driver_id(u)?,
            request_id: request_id(u)?,
            message: message(u)?,
            session: u.arbitrary()?,
            node: Some(text(u)?.as_str().into()),
        },
        2 => LinkLetter::ToRequest {
            request_id: request_id(u)?,
            event: RequestEvent::Answered {
                driver_id: driver_id(u)?,
                attempt: u.arbitrary()?,
                answer: *u.choose(&[Answer::Accept, Answer::AcceptHeld, Answer::DeclineHeld, Answer::OffShift])?,
                reason: Some(text(u)?.into()),
                asker: asker(u)?,
            },
        },
        3 => LinkLetter::TripMoved {
            trip_id: TripId::for_request(&request_id(u)?, u.arbitrary()?),
            driver_id: driver_id(u)?,
            what: *u.choose(&[TripMove::Pickup, TripMove::Complete])?,
        },
        4 => LinkLetter::Reply {
            to: reply(u)?,
            answer: LinkReply {
                status: u.arbitrary()?,
                content_type: text(u)?.as_str().into(),
                retry_after: Some(text(u)?.as_str().into()),
                body: u.arbitrary()?,
            },
        },
        5 => LinkLetter::DriverHere {
            driver_id: driver_id(u)?,
            session: u.arbitrary()?,
            request_id: request_id(u)?,
        },
        6 => LinkLetter::HandOver { request_id: request_id(u)?, received_at_ms: u.arbitrary()? },
        7 => LinkLetter::HandedOver { request_id: request_id(u)?, is_taken: u.arbitrary()? },
        _ => LinkLetter::NoSuchTrip { driver_id: driver_id(u)? },
    })
}

fn frame(u: &mut Unstructured<'_>) -> Result<LinkFrame> {
    Ok(match u.int_in_range(0..=5)? {
        0 => LinkFrame::Hello {
            fleet: text(u)?.as_str().into(),
            node_id: text(u)?.as_str().into(),
            incarnation: u.arbitrary()?,
            to: text(u)?.as_str().into(),
            first: u.arbitrary()?,
        },
        1 => LinkFrame::Ack { received: u.arbitrary()? },
        _ => LinkFrame::Letter { seq: u.arbitrary()?, letter: letter(u)? },
    })
}

fn comes_back(frame: &LinkFrame) -> Vec<u8> {
    let mut bytes = Vec::new();
    let len = encode(frame, &mut bytes).expect("it is short");
    if let LinkFrame::Letter { letter, .. } = frame {
        let _ = letter.check();
    }
    assert!(len == bytes.len() && len <= HEADER_LEN + PAYLOAD_LEN_MAX);
    assert_eq!(decode(&bytes).expect("it was encoded").as_ref(), Some(&(frame.clone(), len)));
    bytes
}

/// A frame, cut anywhere and harmed anywhere.
fn harmed(u: &mut Unstructured<'_>) -> Result<()> {
    let frame = frame(u)?;
    let mut bytes = comes_back(&frame);
    let end = u.choose_index(bytes.len())?;
    assert_eq!(decode(&bytes[..end]), Ok(None), "a part of a frame is awaited");
    while !u.is_empty() {
        let at = u.choose_index(bytes.len())?;
        bytes[at] ^= u.arbitrary::<u8>()?;
        let _ = decode(&bytes);
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    match data {
        [0, bytes @ ..] => {
            if let Ok(Some((frame, _))) = decode(bytes) {
                comes_back(&frame);
            }
        }
        // With a right checksum, so that what is behind it is reached.
        [1, payload @ ..] => {
            let mut bytes = comes_back(&LinkFrame::Ping);
            bytes.truncate(HEADER_LEN);
            bytes.extend_from_slice(payload);
            bytes[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
            let checksum = crc32c::crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
            if let Ok(Some((frame, _))) = decode(&bytes) {
                comes_back(&frame);
            }
        }
        [_, rest @ ..] => drop(harmed(&mut Unstructured::new(rest))),
        [] => {}
    }
});
