//! `GET /v1/dispatch/audit/{request_id}`: a request's log of steps, as events.
//!
//! `detail` is always an object. A step that names only its attempt gets the driver that the attempt went to.

use super::answers::unfulfilled_reason;
use crate::fsm::ids::{DriverId, TripId};
use crate::fsm::types::{Channel, LogEntry, Priority, RequestLog, RequestState, Step, UnixMs};
use crate::wire::json;
use crate::wire::respond::Reply;
use compact_str::CompactString;

/// 200 with every step of `log`, oldest first. `nodes`: which node wrote them, from which step on, counted from 0; the first
/// begins at 0.
pub fn audit(log: &RequestLog, state: RequestState, nodes: &[(usize, CompactString)]) -> Reply {
    let mut body = Vec::with_capacity(256 + 192 * log.log.len());
    body.extend_from_slice(b"{\"request_id\":");
    json::plain(&mut body, log.request_id.as_str());
    json::member_plain(&mut body, "state", state.as_str());
    body.extend_from_slice(b",\"events\":[");
    let mut known = Known::default();
    for (index, entry) in log.log.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        known.learn(&entry.step);
        let node = nodes.partition_point(|(from, _)| *from <= index).checked_sub(1);
        let node = node.map_or("", |at| nodes[at].1.as_str());
        append_event(&mut body, index as u64 + 1, entry, &known, node);
    }
    body.extend_from_slice(b"]}");
    Reply::json(200, body)
}

/// What earlier steps say of later ones.
#[derive(Default)]
struct Known<'a> {
    /// Attempts and their drivers, in the order of the attempts.
    drivers: Vec<(u32, &'a DriverId)>,
    /// The attempt that was accepted.
    winner: Option<u32>,
    trip_id: Option<&'a TripId>,
}

impl<'a> Known<'a> {
    fn learn(&mut self, step: &'a Step) {
        match step {
            Step::OfferSent { attempt, driver_id, .. } | Step::Refused { attempt, driver_id, .. } => {
                self.drivers.push((*attempt, driver_id));
            }
            Step::Accepted { attempt, .. } => self.winner = Some(*attempt),
            Step::TripCreated { trip_id, .. } => self.trip_id = Some(trip_id),
            Step::Received { .. }
            | Step::Redispatched { .. }
            | Step::Delivered { .. }
            | Step::Acked { .. }
            | Step::Declined { .. }
            | Step::TimedOut { .. }
            | Step::Revoked { .. }
            | Step::Exhausted
            | Step::PickedUp
            | Step::TripEnded { .. }
            | Step::Cancelled { .. }
            | Step::Unfulfilled { .. } => {}
        }
    }

    /// Most steps are about a recent attempt.
    fn driver(&self, attempt: u32) -> Option<&'a DriverId> {
        self.drivers
            .iter()
            .rev()
            .find(|(known, _)| *known == attempt)
            .map(|(_, driver_id)| *driver_id)
    }
}

fn append_event(out: &mut Vec<u8>, seq: u64, entry: &LogEntry, known: &Known<'_>, node: &str) {
    out.extend_from_slice(b"{\"seq\":");
    json::number(out, seq);
    json::member_number(out, "at_ms", entry.at_ms);
    json::member_plain(out, "event", event_name(&entry.step));
    if let Some(attempt) = attempt(&entry.step, known) {
        json::member_number(out, "attempt", attempt.into());
        json::member_plain_if(out, "driver_id", known.driver(attempt).map(DriverId::as_str));
    }
    json::member_text(out, "node", node);
    json::member_plain_if(out, "channel", channel(&entry.step).map(Channel::as_str));
    append_detail(out, &entry.step, known);
    out.push(b'}');
}

/// The name in the contract.
const fn event_name(step: &Step) -> &'static str {
    match step {
        Step::Received { .. } => "REQUEST_RECEIVED",
        Step::Redispatched { .. } => "REDISPATCHED",
        Step::OfferSent { .. } => "OFFER_SENT",
        Step::Delivered { .. } => "OFFER_DELIVERED",
        Step::Acked { .. } => "OFFER_ACKED",
        Step::Accepted { .. } => "OFFER_ACCEPTED",
        Step::Declined { .. } => "OFFER_DECLINED",
        Step::TimedOut { .. } => "OFFER_TIMED_OUT",
        Step::Refused { .. } => "OFFER_REFUSED",
        Step::Revoked { .. } => "OFFER_REVOKED",
        Step::Exhausted => "CANDIDATES_EXHAUSTED",
        Step::TripCreated { .. } => "TRIP_CREATED",
        Step::PickedUp => "TRIP_PICKED_UP",
        Step::TripEnded { .. } => "TRIP_ENDED",
        Step::Cancelled { .. } => "REQUEST_CANCELLED",
        Step::Unfulfilled { .. } => "REQUEST_UNFULFILLED",
    }
}

/// The attempt that a step is about; for a trip, the one that won it.
const fn attempt(step: &Step, known: &Known<'_>) -> Option<u32> {
    match step {
        Step::OfferSent { attempt, .. }
        | Step::Delivered { attempt }
        | Step::Acked { attempt }
        | Step::Accepted { attempt, .. }
        | Step::Declined { attempt, .. }
        | Step::TimedOut { attempt }
        | Step::Refused { attempt, .. }
        | Step::Revoked { attempt, .. } => Some(*attempt),
        Step::TripCreated { .. } | Step::PickedUp | Step::TripEnded { .. } => known.winner,
        Step::Received { .. }
        | Step::Redispatched { .. }
        | Step::Exhausted
        | Step::Cancelled { .. }
        | Step::Unfulfilled { .. } => None,
    }
}

const fn channel(step: &Step) -> Option<Channel> {
    match step {
        Step::OfferSent { .. } | Step::Delivered { .. } | Step::Acked { .. } => Some(Channel::WebSocket),
        Step::Accepted { channel, .. } | Step::Declined { channel, .. } => Some(*channel),
        Step::Received { .. }
        | Step::Redispatched { .. }
        | Step::TimedOut { .. }
        | Step::Refused { .. }
        | Step::Revoked { .. }
        | Step::Exhausted
        | Step::TripCreated { .. }
        | Step::PickedUp
        | Step::TripEnded { .. }
        | Step::Cancelled { .. }
        | Step::Unfulfilled { .. } => None,
    }
}

fn append_detail(out: &mut Vec<u8>, step: &Step, known: &Known<'_>) {
    let mut detail = Detail { out, open: false };
    match step {
        Step::Received {
            priority,
            deadline_at_ms,
            offer_timeout_ms,
            max_attempts,
            parallel,
            busy_wait_ms,
            candidates,
            trip: _,
        } => {
            detail.received(*priority, *deadline_at_ms, *max_attempts, candidates);
            detail.asked(Some(*offer_timeout_ms), Some(*parallel), Some(*busy_wait_ms));
        }
        Step::Redispatched {
            candidates,
            offer_timeout_ms,
            parallel,
            busy_wait_ms,
        } => {
            detail.candidates(candidates);
            detail.asked(*offer_timeout_ms, *parallel, *busy_wait_ms);
        }
        Step::OfferSent { expires_at_ms, .. } => detail.number("expires_at_ms", *expires_at_ms),
        Step::Refused { reason, .. } => detail.text("reason", reason.as_str()),
        Step::Revoked { reason, .. } => detail.text("reason", reason.as_str()),
        Step::Declined { reason, .. } | Step::Cancelled { reason } => detail.words(reason.as_deref()),
        Step::TripCreated { trip_id, .. } => detail.text("trip_id", trip_id.as_str()),
        Step::PickedUp => detail.trip(known),
        Step::TripEnded { outcome, reason } => {
            detail.trip(known);
            detail.text("outcome", outcome.as_str());
            detail.words(reason.as_deref());
        }
        Step::Unfulfilled { by_deadline } => detail.text("reason", unfulfilled_reason(*by_deadline)),
        Step::Delivered { .. }
        | Step::Acked { .. }
        | Step::Accepted { .. }
        | Step::TimedOut { .. }
        | Step::Exhausted => {}
    }
    detail.close();
}

/// Writes `,"detail":{…}`, or nothing when it has no member.
struct Detail<'o> {
    out: &'o mut Vec<u8>,
    open: bool,
}

impl Detail<'_> {
    fn received(&mut self, priority: Priority, deadline: UnixMs, max_attempts: Option<u32>, candidates: &[DriverId]) {
        self.text("priority", priority.as_str());
        self.number("deadline_at_ms", deadline);
        if let Some(max_attempts) = max_attempts {
            self.number("max_attempts", max_attempts.into());
        }
        self.candidates(candidates);
    }

    fn asked(&mut self, offer_timeout_ms: Option<u32>, parallel: Option<u8>, busy_wait_ms: Option<u32>) {
        let parallel = parallel.map(u32::from);
        for (name, value) in [
            ("offer_timeout_ms", offer_timeout_ms),
            ("parallel", parallel),
            ("busy_wait_ms", busy_wait_ms),
        ] {
            if let Some(value) = value {
                self.number(name, value.into());
            }
        }
    }

    fn candidates(&mut self, candidates: &[DriverId]) {
        self.name("candidates");
        json::ids(self.out, candidates);
    }

    fn trip(&mut self, known: &Known<'_>) {
        if let Some(trip_id) = known.trip_id {
            self.text("trip_id", trip_id.as_str());
        }
    }

    /// What somebody said, if anything.
    fn words(&mut self, reason: Option<&str>) {
        if let Some(reason) = reason {
            self.text("reason", reason);
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        json::text(self.out, value);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        json::number(self.out, value);
    }

    fn name(&mut self, name: &str) {
        if self.open {
            return json::name(self.out, name);
        }
        self.open = true;
        self.out.extend_from_slice(b",\"detail\":{\"");
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn close(self) {
        if self.open {
            self.out.push(b'}');
        }
    }
}
