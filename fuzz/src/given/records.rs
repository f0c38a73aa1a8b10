//! Steps and records of any content.

use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::{
    Channel, LogEntry, Priority, Record, RefuseReason, RequestLog, RevokeReason, Step, TripOutcome,
};
use arbitrary::{Arbitrary, Result, Unstructured};

/// Most entries of a log.
const ENTRIES_MAX: usize = 12;

fn id_text(u: &mut Unstructured<'_>) -> Result<String> {
    const CHARS: &[u8] = b"abz019AZ._:-";
    let number: u8 = u.arbitrary()?;
    // Up to 24 bytes lie inline, longer ones do not; 64 is the longest.
    let len = match number >> 5 {
        0 => usize::from(u.int_in_range(1..=64_u8)?),
        1 => 24,
        2 => 25,
        3 => 64,
        _ => 1,
    };
    let char = |index: usize| char::from(CHARS[(usize::from(number) + index) % CHARS.len()]);
    Ok((0..len).map(char).collect())
}

fn driver(u: &mut Unstructured<'_>) -> Result<DriverId> {
    Ok(DriverId::parse(&id_text(u)?).expect("an id"))
}

fn request(u: &mut Unstructured<'_>) -> Result<RequestId> {
    Ok(RequestId::parse(&id_text(u)?).expect("an id"))
}

fn drivers(u: &mut Unstructured<'_>) -> Result<Vec<DriverId>> {
    (0..u.int_in_range(0..=5_u8)?).map(|_| driver(u)).collect()
}

fn reason(u: &mut Unstructured<'_>) -> Result<Option<Box<str>>> {
    Option::<&str>::arbitrary(u).map(|words| words.map(Into::into))
}

fn channel(u: &mut Unstructured<'_>) -> Result<Channel> {
    u.choose(&[Channel::WebSocket, Channel::Http]).copied()
}

/// The first step of a log.
pub fn received(u: &mut Unstructured<'_>) -> Result<Step> {
    Ok(Step::Received {
        priority: *u.choose(&Priority::ALL)?,
        deadline_at_ms: u.arbitrary()?,
        offer_timeout_ms: u.arbitrary()?,
        max_attempts: u.arbitrary()?,
        parallel: u.arbitrary()?,
        busy_wait_ms: u.arbitrary()?,
        candidates: drivers(u)?,
        trip: u.arbitrary::<&str>()?.into(),
    })
}

/// Any step.
pub fn step(u: &mut Unstructured<'_>) -> Result<Step> {
    let attempt = u32::from(u.arbitrary::<u8>()? % 4);
    Ok(match u.int_in_range(0..=15_u8)? {
        0 => received(u)?,
        1 => Step::Redispatched {
            candidates: drivers(u)?,
            offer_timeout_ms: u.arbitrary()?,
            parallel: u.arbitrary()?,
            busy_wait_ms: u.arbitrary()?,
        },
        2 => Step::OfferSent {
            attempt,
            driver_id: driver(u)?,
            expires_at_ms: u.arbitrary()?,
        },
        3 => Step::Delivered { attempt },
        4 => Step::Acked { attempt },
        5 => Step::Accepted {
            attempt,
            channel: channel(u)?,
        },
        6 => Step::Declined {
            attempt,
            channel: channel(u)?,
            reason: reason(u)?,
        },
        7 => Step::TimedOut { attempt },
        8 => Step::Refused {
            attempt,
            driver_id: driver(u)?,
            reason: *u.choose(&[
                RefuseReason::Offline,
                RefuseReason::Offered,
                RefuseReason::EnRoute,
                RefuseReason::OnTrip,
            ])?,
        },
        9 => Step::Revoked {
            attempt,
            reason: *u.choose(&[
                RevokeReason::Timeout,
                RevokeReason::Cancelled,
                RevokeReason::Taken,
                RevokeReason::Superseded,
            ])?,
        },
        10 => Step::Exhausted,
        11 => Step::TripCreated {
            trip_id: TripId::for_request(&request(u)?, u.arbitrary()?),
            driver_id: driver(u)?,
        },
        12 => Step::PickedUp,
        13 => Step::TripEnded {
            outcome: *u.choose(&[
                TripOutcome::Completed,
                TripOutcome::CancelledByDriver,
                TripOutcome::Cancelled,
            ])?,
            reason: reason(u)?,
        },
        14 => Step::Cancelled { reason: reason(u)? },
        _ => Step::Unfulfilled {
            by_deadline: u.arbitrary()?,
        },
    })
}

/// Any entry.
pub fn entry(u: &mut Unstructured<'_>) -> Result<LogEntry> {
    Ok(LogEntry {
        at_ms: u.arbitrary()?,
        step: step(u)?,
    })
}

fn entries(u: &mut Unstructured<'_>) -> Result<Vec<LogEntry>> {
    (0..u.int_in_range(0..=ENTRIES_MAX)?).map(|_| entry(u)).collect()
}

/// Any record.
pub fn record(u: &mut Unstructured<'_>) -> Result<Record> {
    Ok(match u.int_in_range(0..=6_u8)? {
        0 => Record::Steps {
            request_id: request(u)?,
            first_seq: u.arbitrary()?,
            entries: entries(u)?,
        },
        1 => Record::Image(RequestLog {
            request_id: request(u)?,
            log: entries(u)?,
        }),
        2 => Record::DriverSeen {
            driver_id: driver(u)?,
            at_ms: u.arbitrary()?,
        },
        3 => Record::OffShift {
            driver_id: driver(u)?,
            at_ms: u.arbitrary()?,
            off: u.arbitrary()?,
        },
        4 => Record::GivenUp {
            request_id: request(u)?,
        },
        5 => Record::Shared {
            request_id: request(u)?,
        },
        _ => Record::ImageRest {
            request_id: request(u)?,
            first_seq: u.arbitrary()?,
            entries: entries(u)?,
        },
    })
}
