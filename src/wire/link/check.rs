//! What a letter must be besides one of ours: `bytecheck` knows types, and neither the rule of ids nor what nodes say to each other.
//!
//! What is forbidden here is what no node sends and what the actors do not reckon with. That a `trip` is JSON is its sender's word, and so is
//! everything that is only wrong: one look at each value, nothing is parsed.

use super::{LinkError, LinkLetter};
use crate::fsm::fold::{Outcome, TripPhase};
use crate::fsm::ids::{DriverId, RequestId, TripId, check_id};
use crate::fsm::request::{Asker, ReplyTo, RequestEvent, ToDriver};
use crate::fsm::types::{OfferRequest, Priority, UnixMs};
use crate::wire::driver::offer_len_max;
use crate::wire::limits::{
    BODY_LEN_MAX, BUSY_WAIT_MS_MAX, CANDIDATES_MAX, DEADLINE_MS_MAX, MESSAGE_LEN_MAX, OFFER_TIMEOUT_MS_MAX,
    PARALLEL_MAX, REASON_CHARS_MAX,
};

/// Times are below this: so much may be added to them, also in microseconds.
const TIME_MS_MAX: UnixMs = 1 << 53;
/// Sessions are below this. They are times, too, in parts of a microsecond.
const SESSION_MAX: u64 = 1 << 62;
/// Every call that is answered over a link has such a number (`shard/routing/tables.rs`): others are those of a node's own connections.
const CALL_PASSED: u64 = 1 << 63;

/// What is wrong, in words.
type Checked = Result<(), &'static str>;

impl LinkLetter {
    /// Whether a sound node sends this. [`super::decode`] does not ask: who reads letters does, as it knows which letter it was.
    ///
    /// # Errors
    /// What no node sends. The peer's fault; it would say the same again.
    pub fn check(&self) -> Result<(), LinkError> {
        self.checked().map_err(LinkError::Letter)
    }

    fn checked(&self) -> Checked {
        self.names()?;
        match self {
            Self::ToDriver {
                session,
                request_id,
                message,
                ..
            }
            | Self::Bounced {
                session,
                request_id,
                message,
                ..
            } => {
                sessions([*session])?;
                to_driver(request_id, message)
            }
            Self::ToRequest { event, .. } => to_request(event),
            Self::DriverHere { session, .. } | Self::Moved { session, .. } => sessions([*session]),
            Self::Left {
                session,
                had_session,
                off_shift_since_ms,
                ..
            } => {
                sessions([*session, *had_session])?;
                time(*off_shift_since_ms)
            }
            Self::TripCancelled { reason, reply, .. } => {
                words(reason.as_deref())?;
                call(*reply)
            }
            Self::Offer { offer, reply } => {
                posted(offer)?;
                call(*reply)
            }
            // An answer that no node gives is none (`LinkReply::into_reply`).
            Self::View { reply, .. } | Self::DriverView { reply, .. } | Self::Reply { to: reply, .. } => call(*reply),
            Self::HandOver { received_at_ms, .. } => time(*received_at_ms),
            Self::TripMoved { .. } | Self::NoSuchTrip { .. } | Self::Leaving | Self::HandedOver { .. } => Ok(()),
        }
    }

    /// Its own ids, not those of what is in it.
    fn names(&self) -> Checked {
        match self {
            Self::ToDriver {
                driver_id, request_id, ..
            }
            | Self::DriverHere {
                driver_id, request_id, ..
            } => ids([driver_id.as_str(), request_id.as_str()]),
            Self::Bounced {
                driver_id,
                request_id,
                node,
                ..
            } => {
                ids(node.as_deref())?;
                ids([driver_id.as_str(), request_id.as_str()])
            }
            Self::Left { driver_id, bound, .. } => {
                ids(bound.iter().flat_map(|(id, node)| [id.as_str(), node.as_str()]))?;
                ids([driver_id.as_str()])
            }
            Self::Moved { driver_id, .. } | Self::NoSuchTrip { driver_id } | Self::DriverView { driver_id, .. } => {
                ids([driver_id.as_str()])
            }
            Self::ToRequest { request_id, .. }
            | Self::View { request_id, .. }
            | Self::HandOver { request_id, .. }
            | Self::HandedOver { request_id, .. } => ids([request_id.as_str()]),
            Self::TripMoved { trip_id, driver_id, .. } => ids([trip_id.as_str(), driver_id.as_str()]),
            Self::TripCancelled { trip_id, .. } => ids([trip_id.as_str()]),
            Self::Offer { .. } | Self::Reply { .. } | Self::Leaving => Ok(()),
        }
    }
}

/// What a request says to a driver.
fn to_driver(request_id: &RequestId, message: &ToDriver) -> Checked {
    match message {
        ToDriver::Ask { .. } | ToDriver::Wait { .. } | ToDriver::Release | ToDriver::NoSuchOffer => Ok(()),
        ToDriver::Offer {
            attempt,
            priority,
            expires_at_ms,
            trip: object,
            ..
        } => {
            attempts(Some(*attempt))?;
            time(*expires_at_ms)?;
            trip(request_id, *priority, object)
        }
        ToDriver::Accept { attempt, asker } => {
            attempts(Some(*attempt))?;
            asks(*asker)
        }
        ToDriver::Decline { attempt, reason } => {
            attempts(Some(*attempt))?;
            words(reason.as_deref())
        }
        ToDriver::Outcome {
            attempt,
            outcome,
            trip_id,
            ..
        } => {
            attempts(Some(*attempt))?;
            ids(trip_id.as_ref().map(TripId::as_str))?;
            match (outcome, trip_id) {
                (Outcome::Accepted, Some(_)) | (Outcome::Declined | Outcome::TimedOut | Outcome::Revoked(_), None) => {
                    Ok(())
                }
                (Outcome::Accepted, None) => Err("a driver who has a trip without an id"),
                (Outcome::Declined | Outcome::TimedOut | Outcome::Revoked(_), Some(_)) => {
                    Err("a trip of a driver who has none")
                }
                (Outcome::Open | Outcome::Refused(_), _) => Err("an outcome of which no driver hears"),
            }
        }
        ToDriver::Trip { trip_id, reason, .. } => {
            ids([trip_id.as_str()])?;
            words(reason.as_deref())
        }
        ToDriver::NoSuchTrip { trip_id } => ids([trip_id.as_str()]),
        ToDriver::Bound {
            attempt,
            trip_id,
            phase,
        } => {
            attempts(Some(*attempt))?;
            ids([trip_id.as_str()])?;
            match phase {
                TripPhase::EnRoute | TripPhase::OnTrip => Ok(()),
                TripPhase::Ended(_) => Err("a driver bound to a trip that is over"),
            }
        }
    }
}

/// What happens to a request.
fn to_request(event: &RequestEvent) -> Checked {
    match event {
        RequestEvent::Reposted { .. } => Err("a post that is no offer"),
        RequestEvent::Timer => Err("another node's timer"),
        RequestEvent::Misposted { unfit, reply } => {
            fits(&unfit.why)?;
            call(*reply)
        }
        RequestEvent::Answered {
            driver_id,
            attempt,
            reason,
            asker,
            ..
        } => {
            ids([driver_id.as_str()])?;
            attempts(*attempt)?;
            words(reason.as_deref())?;
            asks(*asker)
        }
        RequestEvent::Delivered { attempt, driver_id }
        | RequestEvent::Acked { attempt, driver_id, .. }
        | RequestEvent::Refused { attempt, driver_id, .. } => {
            ids([driver_id.as_str()])?;
            attempts(Some(*attempt))
        }
        RequestEvent::Reserved { driver_id, .. }
        | RequestEvent::Busy { driver_id, .. }
        | RequestEvent::Unavailable { driver_id, .. } => ids([driver_id.as_str()]),
        RequestEvent::Cancelled { reason, reply } | RequestEvent::TripCancelled { reason, reply } => {
            words(reason.as_deref())?;
            call(*reply)
        }
        RequestEvent::TripMoved { driver_id, trip_id, .. } => ids([driver_id.as_str(), trip_id.as_str()]),
        RequestEvent::DriverHere { driver_id, held, .. } => {
            ids([driver_id.as_str()])?;
            attempts(*held)
        }
    }
}

/// A post, by the rules of [`crate::wire::api::parse_offer`].
fn posted(offer: &OfferRequest) -> Checked {
    let OfferRequest {
        request_id,
        candidates,
        priority,
        offer_timeout_ms,
        deadline_ms,
        max_attempts,
        parallel,
        busy_wait_ms,
        trip: object,
    } = offer;
    ids([request_id.as_str()])?;
    if !(1..=CANDIDATES_MAX).contains(&candidates.len()) {
        return Err("no candidates, or too many");
    }
    ids(candidates.iter().map(DriverId::as_str))?;
    let is_repeated = |index: usize| candidates[..index].contains(&candidates[index]);
    if (1..candidates.len()).any(is_repeated) {
        return Err("a candidate twice");
    }
    let is_within = |value: Option<u32>, min, max| value.is_none_or(|value| (min..=max).contains(&value));
    let has_bounds = is_within(*offer_timeout_ms, 1, OFFER_TIMEOUT_MS_MAX)
        && is_within(*deadline_ms, 1, DEADLINE_MS_MAX)
        && is_within(*max_attempts, 1, u32::MAX)
        && is_within(parallel.map(u32::from), 1, PARALLEL_MAX.into())
        && is_within(*busy_wait_ms, 0, BUSY_WAIT_MS_MAX);
    if !has_bounds {
        return Err("a number that no offer has");
    }
    trip(request_id, *priority, object)
}

/// An object, and the offer of it fits a frame.
fn trip(request_id: &RequestId, priority: Priority, object: &str) -> Checked {
    if !object.starts_with('{') {
        return Err("a trip that is no object");
    }
    if offer_len_max(request_id, priority, object) > MESSAGE_LEN_MAX {
        return Err("a trip that fits no frame");
    }
    Ok(())
}

fn ids<'a>(ids: impl IntoIterator<Item = &'a str>) -> Checked {
    if ids.into_iter().all(|id| check_id(id).is_ok()) {
        Ok(())
    } else {
        Err("an id that is none")
    }
}

fn sessions<const N: usize>(sessions: [u64; N]) -> Checked {
    if sessions.iter().all(|session| *session < SESSION_MAX) {
        Ok(())
    } else {
        Err("a session that no driver has")
    }
}

fn time(at_ms: UnixMs) -> Checked {
    if at_ms < TIME_MS_MAX {
        Ok(())
    } else {
        Err("a time that no clock has")
    }
}

/// Attempts are counted from 1.
fn attempts(attempt: Option<u32>) -> Checked {
    if attempt == Some(0) { Err("attempt 0") } else { Ok(()) }
}

/// A driver's or caller's words.
fn words(words: Option<&str>) -> Checked {
    let is_long = |words: &str| words.len() > REASON_CHARS_MAX && words.chars().count() > REASON_CHARS_MAX;
    if words.is_some_and(is_long) {
        Err("too many words")
    } else {
        Ok(())
    }
}

/// Words of a node.
fn fits(words: &str) -> Checked {
    if words.len() > BODY_LEN_MAX {
        Err("too many words")
    } else {
        Ok(())
    }
}

fn asks(asker: Asker) -> Checked {
    match asker {
        Asker::Api(reply) => call(reply),
        Asker::Driver => Ok(()),
    }
}

fn call(reply: ReplyTo) -> Checked {
    if reply.call & CALL_PASSED != 0 {
        Ok(())
    } else {
        Err("a call that was not passed on")
    }
}
