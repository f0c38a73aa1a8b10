//! How the world reacts to what arrives.
#![forbid(unsafe_code)]

use std::io;

use super::people::Work;
use super::tally::Latency;
use super::world::{Due, World};
use crate::message::{self, DriverState, Message, TripId};
use crate::session::{Event, EventKind, Gone, Session};

/// A refused or draining node is asked again after this time at the earliest, ns.
const RECONNECT_NS_MIN: u64 = 20_000_000;

impl World<'_> {
    /// Reacts to one event.
    ///
    /// # Errors
    /// The ring's.
    pub fn react(&mut self, session: &mut Session, event: &Event) -> io::Result<()> {
        let at_ns = event.at_ns;
        match &event.kind {
            EventKind::Message { driver, message } => return self.message(session, *driver, message, at_ns),
            EventKind::Response { token, status, .. } => self.response(*token, *status, at_ns),
            EventKind::HttpClosed { connection, unanswered } => {
                self.reopen_later(*connection, at_ns);
                for request in unanswered {
                    self.repeat_later(*request, at_ns);
                }
            }
            EventKind::Gone { driver, why } => self.gone(*driver, why, at_ns),
            EventKind::Fault(what) => self.faults.add("protocol", || what.clone()),
        }
        Ok(())
    }

    fn response(&mut self, request: u32, status: u16, at_ns: u64) {
        let Some(index) = self.index(request) else { return };
        match status {
            200 | 202 => {
                if !std::mem::replace(&mut self.requests[index].taken, true) {
                    self.tally.counts.taken += 1;
                    let intended_ns = self.requests[index].intended_ns;
                    self.record(Latency::Accepted, intended_ns, at_ns);
                }
            }
            429 | 503 => {
                self.tally.counts.refused += 1;
                self.repeat_later(request, at_ns);
            }
            // A repeat that came after the end of its search: it was taken, its answer was lost.
            409 => self.requests[index].taken = true,
            other => self
                .faults
                .add("POST refused", || format!("request {request}: {other}")),
        }
    }

    fn gone(&mut self, driver: u32, why: &Gone, at_ns: u64) {
        let pause_ns = match why {
            Gone::Draining { retry_after_ms } => retry_after_ms * 1_000_000,
            Gone::Closed | Gone::Refused { .. } | Gone::Lost(_) => self.chance.between_ms(self.behaviour.reconnect_ms),
        };
        if matches!(why, Gone::Lost(what) if what.ends_with("4004")) {
            self.tally.counts.heartbeat_lost += 1;
        }
        let was_connected = self
            .people
            .change(driver, |person| std::mem::replace(&mut person.connected, false));
        self.tally.counts.lost += u64::from(was_connected);
        self.at(at_ns + pause_ns.max(RECONNECT_NS_MIN), Due::Connect { driver });
    }

    fn message(&mut self, session: &mut Session, driver: u32, message: &Message, at_ns: u64) -> io::Result<()> {
        match message {
            Message::Welcome { state, trip, .. } => self.welcomed(session, driver, *state, *trip, at_ns),
            Message::Offer { request, attempt } => self.offered(session, driver, *request, *attempt, at_ns),
            Message::Confirmed { request, trip } => {
                self.confirmed(driver, *request, *trip, at_ns);
                Ok(())
            }
            Message::Declined { request } => {
                self.tally.counts.declined += 1;
                self.offer_ended(driver, *request);
                Ok(())
            }
            Message::Revoked { request } => {
                self.tally.counts.revoked += 1;
                self.offer_ended(driver, *request);
                Ok(())
            }
            Message::State(state) => {
                self.moved(driver, *state, at_ns);
                Ok(())
            }
            Message::Pong => Ok(()),
            Message::Unexpected(text) => {
                // A trip event that was repeated after a reconnect may be about a trip that has just ended.
                if !text.contains("no_such_trip") {
                    self.faults
                        .add("unexpected message", || format!("driver {driver}: {text}"));
                }
                Ok(())
            }
        }
    }

    fn offered(
        &mut self,
        session: &mut Session,
        driver: u32,
        request: u32,
        attempt: u32,
        at_ns: u64,
    ) -> io::Result<()> {
        let person = self.people.get(driver);
        let (work, held) = (person.work, (person.request, person.attempt));
        session.say(driver, |payload| {
            message::write_answer(payload, "ACK", request, attempt);
        })?;
        // After a reconnect open offers are told again.
        if held == (request, attempt) && work != Work::Free {
            return Ok(());
        }
        if work != Work::Free {
            self.faults.add("an offer beside another offer or trip", || {
                format!("driver {driver} ({work:?} {held:?}) is offered {request}")
            });
        }
        self.tally.counts.offers += 1;
        if let Some(index) = self.index(request) {
            let state = &mut self.requests[index];
            let declined_ns = std::mem::take(&mut state.declined_ns);
            let intended_ns = state.intended_ns;
            if !std::mem::replace(&mut state.offered, true) {
                self.record(Latency::Offer, intended_ns, at_ns);
            } else if declined_ns > 0 {
                self.record(Latency::NextOffer, declined_ns, at_ns);
            }
        }
        let generation = self.people.change(driver, |person| {
            person.work = Work::Holding;
            (person.request, person.attempt) = (request, attempt);
            person.generation += 1;
            person.generation
        });
        let think_ns = self.chance.between_ms(self.behaviour.think_ms);
        self.at(at_ns + think_ns, Due::Answer { driver, generation });
        Ok(())
    }

    fn confirmed(&mut self, driver: u32, request: u32, trip: TripId, at_ns: u64) {
        let person = self.people.get(driver);
        let (is_repeat, answer_ns) = (person.work != Work::Accepting, person.answer_ns);
        let Some(index) = self.index(request) else {
            self.faults
                .add("CONFIRMED of an unknown request", || request.to_string());
            return;
        };
        let winner = self.requests[index].winner.replace(driver);
        if let Some(other) = winner.filter(|winner| *winner != driver) {
            self.faults
                .add("two winners", || format!("request {request}: {other} and {driver}"));
        }
        if is_repeat {
            return;
        }
        self.tally.counts.confirmed += 1;
        self.record(Latency::Confirmed, answer_ns, at_ns);
        let generation = self.people.change(driver, |person| {
            (person.work, person.trip) = (Work::EnRoute, trip);
            person.generation += 1;
            person.generation
        });
        let leg_ns = self.chance.between_ms(self.behaviour.trip_leg_ms);
        self.at(at_ns + leg_ns, Due::Trip { driver, generation });
        self.end(request);
    }

    /// A decline or a revocation was told.
    fn offer_ended(&mut self, driver: u32, request: u32) {
        let person = self.people.get(driver);
        if person.request == request && matches!(person.work, Work::Holding | Work::Accepting) {
            self.free(driver, None);
        }
    }

    fn moved(&mut self, driver: u32, state: DriverState, at_ns: u64) {
        let person = self.people.get(driver);
        match (state, person.work) {
            (DriverState::OnTrip, Work::EnRoute) => {
                let generation = person.generation;
                self.people.change(driver, |person| person.work = Work::OnTrip);
                let leg_ns = self.chance.between_ms(self.behaviour.trip_leg_ms);
                self.at(at_ns + leg_ns, Due::Trip { driver, generation });
            }
            (DriverState::Available, Work::OnTrip | Work::EnRoute) => {
                self.tally.counts.trips += 1;
                let zone = self.destination(person.request);
                self.free(driver, zone);
            }
            // The state follows a CONFIRMED or an outcome that has said it already.
            _ => {}
        }
    }

    /// A driver is back: what it knows and what the node says are brought together.
    fn welcomed(
        &mut self,
        session: &mut Session,
        driver: u32,
        state: DriverState,
        trip: Option<TripId>,
        at_ns: u64,
    ) -> io::Result<()> {
        let (work, request, attempt) = self.people.change(driver, |person| {
            person.connected = true;
            (person.work, person.request, person.attempt)
        });
        let connect_ns = self.people.get(driver).connect_ns;
        match (work, state) {
            (Work::Accepting, _) => {
                // The outcome may have been lost with the socket: the same message gets the same answer.
                session.say(driver, |payload| {
                    message::write_answer(payload, "ACCEPT", request, attempt);
                })?;
            }
            (Work::Holding, DriverState::Offered) => {}
            (Work::EnRoute | Work::OnTrip, DriverState::EnRoute | DriverState::OnTrip) => {
                let now = if state == DriverState::OnTrip {
                    Work::OnTrip
                } else {
                    Work::EnRoute
                };
                let generation = self.people.change(driver, |person| {
                    person.work = now;
                    person.trip = trip.unwrap_or(person.trip);
                    person.generation += 1;
                    person.generation
                });
                let leg_ns = self.chance.between_ms(self.behaviour.trip_leg_ms);
                self.at(at_ns + leg_ns, Due::Trip { driver, generation });
            }
            (Work::Holding | Work::EnRoute | Work::OnTrip, _) => {
                let zone = self.destination(request).filter(|_| work != Work::Holding);
                self.tally.counts.trips += u64::from(work != Work::Holding);
                self.free(driver, zone);
            }
            (Work::Free, DriverState::EnRoute | DriverState::OnTrip) => self.faults.add("a trip from nowhere", || {
                format!("driver {driver} is welcomed as {state:?}")
            }),
            (Work::Free, _) => {}
        }
        self.record(Latency::Welcome, connect_ns, at_ns);
        Ok(())
    }
}
