//! Effects as text, one line each. Times are milliseconds since the world began, trips are named by their request.

use super::{BEGIN_MS, Seen, World};
use dispatchd::fsm::driver::{CloseCause, DriverEffect, ToSocket};
use dispatchd::fsm::fold::{Outcome, TripPhase};
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::request::{Answer, ApiAnswer, RequestEffect, RequestEvent, Resumed, ToDriver, TripMove};
use dispatchd::fsm::types::{DriverState, LogEntry, RequestState, Step, UnixMs};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Writes what was seen. Remembers what was armed, to say it only when it changes.
#[derive(Default)]
pub struct Show {
    armed: BTreeMap<String, Option<UnixMs>>,
}

impl Show {
    /// The lines of one event, `None` for what changes nothing.
    pub fn line(&mut self, world: &World, seen: &Seen) -> Option<String> {
        match seen {
            Seen::Request(id, effect) => self.request(world, id, effect),
            Seen::Driver(id, effect) => self.driver(id, effect),
            Seen::Unknown(id, reply) => Some(format!("call {}: 404, {id} is unknown", reply.call)),
        }
    }

    fn request(&mut self, world: &World, id: &RequestId, effect: &RequestEffect) -> Option<String> {
        Some(match effect {
            RequestEffect::Persist { from, to, wait } => {
                let log = world.requests[id].actor.log();
                let steps: Vec<_> = log[*from..*to].iter().map(step).collect();
                let note = if *wait { "" } else { " (a note)" };
                format!("{id} writes {}{note}", steps.join(", "))
            }
            RequestEffect::Driver { driver_id, message } => format!("{id} -> {driver_id}: {}", to_driver(message)),
            RequestEffect::Reply { reply, answer } => format!("call {}: {}", reply.call, api(answer)),
            RequestEffect::Arm { at_ms } => return self.arm(id.as_str(), *at_ms),
            RequestEffect::PassOn(event) => format!("{id} passes on {event:?}"),
            RequestEffect::Closed => format!("{id} closes"),
        })
    }

    fn driver(&mut self, id: &DriverId, effect: &DriverEffect) -> Option<String> {
        Some(match effect {
            DriverEffect::Send(message) => format!("{id} hears {}", to_socket(message)),
            DriverEffect::Close { session, cause } => {
                let cause = match cause {
                    CloseCause::Displaced => "displaced",
                    CloseCause::HeartbeatLost => "heartbeat lost",
                };
                format!("{id} closes session {session}: {cause}")
            }
            DriverEffect::Request { request_id, event } | DriverEffect::Asked { request_id, event, .. } => {
                format!("{id} -> {request_id}: {}", to_request(event))
            }
            // What it leads to is shown.
            DriverEffect::TakenBack { .. } => return None,
            DriverEffect::TripMoved { what, .. } => format!("{id} -> trip: {}", trip_move(*what)),
            DriverEffect::Arm { at_ms } => return self.arm(id.as_str(), *at_ms),
            DriverEffect::Seen { at_ms } => format!("{id} was seen at {}", time(*at_ms)),
            DriverEffect::OffShift { off: true, .. } => format!("{id} is off shift"),
            DriverEffect::OffShift { off: false, .. } => format!("{id} is on shift"),
            DriverEffect::Gone => format!("{id} is forgotten"),
        })
    }

    fn arm(&mut self, name: &str, at_ms: Option<UnixMs>) -> Option<String> {
        if self.armed.insert(name.to_owned(), at_ms).flatten() == at_ms {
            return None;
        }
        Some(match at_ms {
            Some(at_ms) => format!("{name} wakes at {}", time(at_ms)),
            None => format!("{name} sleeps"),
        })
    }

    /// A timer fired: the same time armed again is news.
    pub fn fired(&mut self, name: &str) {
        self.armed.remove(name);
    }
}

fn time(at_ms: UnixMs) -> String {
    match at_ms.checked_sub(BEGIN_MS) {
        Some(since) => format!("{since}"),
        None => "never".to_owned(),
    }
}

/// One step as the audit names it.
pub fn step(entry: &LogEntry) -> String {
    match &entry.step {
        Step::Received { .. } => "REQUEST_RECEIVED".to_owned(),
        Step::Redispatched { candidates, .. } => format!("REDISPATCHED {}", names(candidates)),
        Step::OfferSent {
            attempt,
            driver_id,
            expires_at_ms,
        } => format!("OFFER_SENT {attempt} {driver_id} until {}", time(*expires_at_ms)),
        Step::Delivered { attempt } => format!("OFFER_DELIVERED {attempt}"),
        Step::Acked { attempt } => format!("OFFER_ACKED {attempt}"),
        Step::Accepted { attempt, channel } => format!("OFFER_ACCEPTED {attempt} {}", channel.as_str()),
        Step::Declined {
            attempt,
            channel,
            reason,
        } => {
            format!(
                "OFFER_DECLINED {attempt} {}{}",
                channel.as_str(),
                because(reason.as_deref())
            )
        }
        Step::TimedOut { attempt } => format!("OFFER_TIMED_OUT {attempt}"),
        Step::Refused {
            attempt,
            driver_id,
            reason,
        } => format!("OFFER_REFUSED {attempt} {driver_id} {}", reason.as_str()),
        Step::Revoked { attempt, reason } => format!("OFFER_REVOKED {attempt} {}", reason.as_str()),
        Step::Exhausted => "CANDIDATES_EXHAUSTED".to_owned(),
        Step::TripCreated { driver_id, .. } => format!("TRIP_CREATED {driver_id}"),
        Step::PickedUp => "TRIP_PICKED_UP".to_owned(),
        Step::TripEnded { outcome, reason } => format!("TRIP_ENDED {}{}", outcome.as_str(), because(reason.as_deref())),
        Step::Cancelled { reason } => format!("REQUEST_CANCELLED{}", because(reason.as_deref())),
        Step::Unfulfilled { by_deadline: true } => "REQUEST_UNFULFILLED by deadline".to_owned(),
        Step::Unfulfilled { by_deadline: false } => "REQUEST_UNFULFILLED by attempts".to_owned(),
    }
}

fn to_driver(message: &ToDriver) -> String {
    match message {
        ToDriver::Ask { priority, .. } => format!("are you free ({})", priority.as_str()),
        ToDriver::Wait { priority, .. } => format!("I wait ({})", priority.as_str()),
        ToDriver::Release => "release".to_owned(),
        ToDriver::Offer { attempt, resumed, .. } => {
            let again = match resumed {
                Resumed::No => "",
                Resumed::Sent => " again",
                Resumed::Delivered => " again, it was delivered",
            };
            format!("offer {attempt}{again}")
        }
        ToDriver::Accept { attempt, .. } => format!("do you accept {attempt}"),
        ToDriver::Decline { attempt, .. } => format!("do you decline {attempt}"),
        ToDriver::Outcome {
            attempt,
            outcome,
            again,
            trip_id,
        } => {
            assert_eq!(
                *outcome == Outcome::Accepted,
                trip_id.is_some(),
                "a trip comes with an acceptance"
            );
            let again = if *again { " (an answer)" } else { "" };
            format!("{attempt} is {}{again}", outcome_name(*outcome))
        }
        ToDriver::NoSuchOffer => "no such offer".to_owned(),
        ToDriver::Trip {
            phase, reason, again, ..
        } => {
            let again = if *again { " (an answer)" } else { "" };
            format!("trip is {}{}{again}", phase_name(*phase), because(reason.as_deref()))
        }
        ToDriver::NoSuchTrip { .. } => "no such trip".to_owned(),
        ToDriver::Bound { phase, .. } => format!("bound, trip is {}", phase_name(*phase)),
    }
}

fn to_request(event: &RequestEvent) -> String {
    match event {
        RequestEvent::Reposted { .. }
        | RequestEvent::Misposted { .. }
        | RequestEvent::Cancelled { .. }
        | RequestEvent::TripCancelled { .. } => unreachable!("the API's"),
        RequestEvent::Answered {
            attempt,
            answer,
            reason,
            ..
        } => {
            let attempt = attempt.map_or(String::new(), |attempt| format!(" {attempt}"));
            let answer = match answer {
                Answer::Accept => "accept",
                Answer::AcceptHeld => "accept of what is held,",
                Answer::Decline | Answer::DeclineHeld => "decline",
                Answer::OffShift => unreachable!("no driver says so"),
            };
            format!("{answer}{attempt}{}", because(reason.as_deref()))
        }
        RequestEvent::Delivered { attempt, .. } => format!("delivered {attempt}"),
        RequestEvent::Acked { attempt, .. } => format!("acked {attempt}"),
        RequestEvent::Refused { attempt, reason, .. } => format!("refused {attempt}: {}", reason.as_str()),
        RequestEvent::Reserved { .. } => "reserved".to_owned(),
        RequestEvent::Busy { .. } => "busy".to_owned(),
        RequestEvent::Unavailable { reason, .. } => format!("unavailable: {}", reason.as_str()),
        RequestEvent::TripMoved { what, .. } => format!("trip: {}", trip_move(*what)),
        RequestEvent::DriverHere {
            held: Some(held),
            answer: Some(Answer::OffShift),
            ..
        } => format!("off shift, holds {held}"),
        RequestEvent::DriverHere { held, answer, .. } => format!("driver here, holds {held:?}, said {answer:?}"),
        RequestEvent::Timer => "timer".to_owned(),
    }
}

fn to_socket(message: &ToSocket) -> String {
    match message {
        ToSocket::Welcome {
            session,
            state,
            trip_id,
        } => {
            format!("WELCOME {session} {}", state_of(*state, trip_id.as_ref()))
        }
        ToSocket::Offer {
            request_id,
            attempt,
            expires_at_ms,
            ..
        } => format!("OFFER {request_id}/{attempt} until {}", time(*expires_at_ms)),
        ToSocket::Confirmed {
            request_id, attempt, ..
        } => format!("CONFIRMED {request_id}/{attempt}"),
        ToSocket::Declined { request_id, attempt } => format!("DECLINED {request_id}/{attempt}"),
        ToSocket::Revoked {
            request_id,
            attempt,
            reason,
        } => format!("REVOKED {request_id}/{attempt} {}", reason.as_str()),
        ToSocket::State { state, trip_id } => format!("STATE {}", state_of(*state, trip_id.as_ref())),
        ToSocket::TripCancelled { request_id, reason, .. } => {
            format!("TRIP_CANCELLED {request_id}{}", because(reason.as_deref()))
        }
        ToSocket::NoSuchOffer { request_id } => format!("ERROR no_such_offer {request_id}"),
        ToSocket::NoSuchTrip => "ERROR no_such_trip".to_owned(),
    }
}

fn api(answer: &ApiAnswer) -> String {
    match answer {
        ApiAnswer::Offer {
            state,
            attempt,
            driver_id,
            duplicate,
        } => {
            let status = if *duplicate { 200 } else { 202 };
            let mut text = format!("{status} {} {attempt}", state.as_str());
            if let Some(driver_id) = driver_id {
                write!(text, " {driver_id}").expect("a String takes it");
            }
            text
        }
        ApiAnswer::Excluded { state, excluded } => format!("409 excluded {} {}", state.as_str(), names(excluded)),
        ApiAnswer::Ended { state, trip_id } => {
            assert_eq!(
                *state == RequestState::Accepted,
                trip_id.is_some(),
                "accepted with its trip"
            );
            format!("409 ended {}", state.as_str())
        }
        ApiAnswer::Outcome { outcome, trip_id } => {
            assert_eq!(
                *outcome == Outcome::Accepted,
                trip_id.is_some(),
                "a trip comes with an acceptance"
            );
            format!("200 {}", outcome_name(*outcome))
        }
        ApiAnswer::Unfit { unfit } => format!("400 {}", unfit.why),
        ApiAnswer::NoSuchOffer => "404 no_such_offer".to_owned(),
        ApiAnswer::Cancelled => "200 CANCELLED".to_owned(),
        ApiAnswer::TripEnded { outcome, .. } => format!("409 ended {}", outcome.as_str()),
        ApiAnswer::TripCancelled { .. } => "200 trip cancelled".to_owned(),
        ApiAnswer::NoSuchTrip => "404 no_such_trip".to_owned(),
        ApiAnswer::Fenced => "503 not_durable".to_owned(),
    }
}

fn outcome_name(outcome: Outcome) -> String {
    match outcome {
        Outcome::Open => "open".to_owned(),
        Outcome::Accepted => "accepted".to_owned(),
        Outcome::Declined => "declined".to_owned(),
        Outcome::TimedOut => "timed out".to_owned(),
        Outcome::Refused(reason) => format!("refused: {}", reason.as_str()),
        Outcome::Revoked(reason) => format!("revoked: {}", reason.as_str()),
    }
}

fn phase_name(phase: TripPhase) -> &'static str {
    match phase {
        TripPhase::EnRoute => "en route",
        TripPhase::OnTrip => "on trip",
        TripPhase::Ended(outcome) => outcome.as_str(),
    }
}

fn trip_move(what: TripMove) -> &'static str {
    match what {
        TripMove::Arrived => "arrived",
        TripMove::Pickup => "pickup",
        TripMove::Complete => "complete",
        TripMove::Cancel => "cancel",
    }
}

fn state_of(state: DriverState, trip_id: Option<&TripId>) -> String {
    let trip = if trip_id.is_some() { " with its trip" } else { "" };
    format!("{}{trip}", state.as_str())
}

fn names(ids: &[DriverId]) -> String {
    let names: Vec<_> = ids.iter().map(DriverId::as_str).collect();
    names.join(" ")
}

fn because(reason: Option<&str>) -> String {
    reason.map_or(String::new(), |reason| format!(" ({reason})"))
}
