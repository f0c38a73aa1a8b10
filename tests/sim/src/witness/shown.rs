//! What answers show of requests: nothing that was known when the call was sent is taken back.

use super::Witness;
use super::audits;
use super::calls::{Ask, Call};
use super::state::{Winner, ways};
use crate::checks::{About, Check};
use crate::codec::{Bad, answers, audit};
use crate::ids::{Driver, Offer, Request};
use crate::words::{Outcome, State};

impl Witness {
    pub(super) fn offer_answered(&mut self, call: &Call, read: &answers::OfferAnswer) {
        let request = read.request;
        let about = About::request(request);
        let ok = read.duplicate || call.end.is_none();
        if !self.holds(Check::OneDispatch, ok) {
            let text = format!("r{request} ended as {:?}, and a POST after that is 202", call.end);
            self.violate(Check::OneDispatch, about, text);
        }
        if read.duplicate {
            let posts = self.requests[request as usize].posts;
            if !self.holds(Check::OneDispatch, posts > 1) {
                self.violate(
                    Check::OneDispatch,
                    about,
                    format!("the only POST of r{request} is a duplicate"),
                );
            }
        } else {
            self.requests[request as usize].taken += 1;
            // It may be one of an earlier POST, who was waited for until now.
            let posted = self.requests[request as usize].posted;
            let named = read.driver.is_none_or(|driver| posted & (1 << driver) != 0);
            if !self.holds(Check::Protocol, named && (read.driver.is_none() || read.attempt > 0)) {
                self.violate(Check::Protocol, about, format!("202 names another driver: {read:?}"));
            }
        }
        self.driver_shown(request, read.state, read.driver);
        // Whom nobody has named before is a new candidate. Of a fleet: nodes that do not have it answer as it stands.
        let new = call.candidates & !self.requests[request as usize].posted_again;
        let is_for_nothing = read.duplicate && read.state == State::PendingMatch && new != 0 && !self.is_fleet();
        if !self.holds(Check::AsAsked, !is_for_nothing) {
            let text = format!("r{request} waits for candidates, and new ones are a duplicate");
            self.violate(Check::AsAsked, about, text);
        }
        // 200 of an ended search is `ACCEPTED`; other ends are 409.
        let ok = !matches!(read.state, State::Cancelled | State::Unfulfilled) || !read.duplicate;
        if !self.holds(Check::SameAnswer, ok) {
            self.violate(
                Check::SameAnswer,
                about,
                format!("r{request} is a duplicate in {}", read.state.as_str()),
            );
        }
        self.state_shown(call, request, read.state, read.attempt);
        if let (Some(driver), true) = (read.driver, read.attempt > 0) {
            let offer = Offer {
                request,
                attempt: read.attempt,
            };
            self.learn_attempt(offer, driver);
            if read.state == State::Accepted && read.duplicate {
                let attempt = Some(read.attempt);
                self.learn_winner(
                    request,
                    Winner {
                        driver,
                        attempt,
                        trip: None,
                    },
                );
            }
        }
    }

    /// A request that waits for candidates is at no driver, and one whose offer is out is.
    fn driver_shown(&mut self, request: Request, state: State, driver: Option<Driver>) {
        let ok = match state {
            State::PendingMatch => driver.is_none(),
            State::OfferSent => driver.is_some(),
            _ => true,
        };
        if !self.holds(Check::Protocol, ok) {
            let text = format!("r{request} is {} and at {driver:?}", state.as_str());
            self.violate(Check::Protocol, About::request(request), text);
        }
    }

    /// A request was shown in this state: nothing that was known when the call was sent is taken back.
    fn state_shown(&mut self, call: &Call, request: Request, state: State, attempt: u32) {
        let about = About::request(request);
        // A node that was cut off, or slept, finds itself fenced at its next write (design.md, section 5): until then it shows what it
        // knew. One that nothing ails does not.
        let may_be_old = self.is_fleet() && !self.is_calm_at(call.sent_us);
        if may_be_old {
            self.learn_state(request, if state.is_end() { state } else { State::PendingMatch });
            return self.learn_attempt_min(request, attempt);
        }
        let ok = call.end.is_none_or(|end| end == state);
        if !self.holds(Check::AnswerKept, ok) {
            let text = format!("r{request} was {:?} and is {}", call.end, state.as_str());
            self.violate(Check::AnswerKept, about, text);
        }
        if !self.holds(Check::AnswerKept, attempt >= call.attempt_min) {
            let text = format!("r{request} was at attempt {} and is at {attempt}", call.attempt_min);
            self.violate(Check::AnswerKept, about, text);
        }
        self.learn_state(request, state);
        self.learn_attempt_min(request, attempt);
    }

    pub(super) fn response_answered(&mut self, ask: Ask, read: &answers::ResponseAnswer) -> Result<(), Bad> {
        let Ask::Response {
            request,
            driver,
            attempt,
            accept,
        } = ask
        else {
            return Ok(());
        };
        if (read.outcome == Outcome::Confirmed) != read.trip.is_some() {
            return Err(Bad::new(format!(
                "a trip without a confirmation, or none with one: {read:?}"
            )));
        }
        self.learn_exists(request);
        match read.outcome {
            Outcome::Confirmed => {
                let trip = read.trip;
                self.learn_winner(request, Winner { driver, attempt, trip });
                if let Some(trip) = trip {
                    self.board.push_trip(trip);
                }
            }
            Outcome::Declined => {
                self.learn_told(request, driver, attempt, ways::DECLINED);
            }
            Outcome::TooLate => {
                let late = ways::TIMED_OUT | ways::CANCELLED | ways::TAKEN | ways::SUPERSEDED;
                let mut ways = if accept { late | ways::DECLINED } else { late };
                if self.is_fleet() && self.is_about_shown(ask) {
                    // An offer that was shown and is refused since, as its driver turns out to have another trip or to have been refused
                    // by the node that it left: its driver hears `REVOKED` `superseded`, and here the same is too late.
                    ways |= ways::REFUSED;
                }
                self.learn_told(request, driver, attempt, ways);
            }
        }
        Ok(())
    }

    /// Somebody is told how an attempt ended. Without its number it is the driver's one of this request, which its audit will tell.
    fn learn_told(&mut self, request: Request, driver: Driver, attempt: Option<u32>, ways: u8) {
        match attempt {
            Some(attempt) => self.learn_way(Offer { request, attempt }, Some(driver), ways),
            None => self.requests[request as usize].told.push((driver, ways)),
        }
    }

    pub(super) fn view_answered(&mut self, call: &Call, view: answers::View) {
        let request = view.request;
        let about = About::request(request);
        self.driver_shown(request, view.state, view.driver);
        self.state_shown(call, request, view.state, view.attempt);
        let seen = &self.requests[request as usize];
        let ok = view.class == seen.wish.class
            && seen
                .deadline_at_ms
                .is_none_or(|deadline| deadline == view.deadline_at_ms)
            && (view.trip.is_some() == (view.state == State::Accepted))
            && view.excluded.iter().all(|driver| seen.posted & (1 << driver) != 0);
        if !self.holds(Check::SameAnswer, ok) {
            self.violate(
                Check::SameAnswer,
                about,
                format!(
                    "r{request} is shown wrong: {view:?}, {seen:?}",
                    seen = self.requests[request as usize]
                ),
            );
        }
        self.requests[request as usize].deadline_at_ms = Some(view.deadline_at_ms);
        if let (Some(driver), true) = (view.driver, view.attempt > 0) {
            let attempt = view.attempt;
            self.learn_attempt(Offer { request, attempt }, driver);
            if view.state == State::Accepted {
                let (attempt, trip) = (Some(attempt), view.trip);
                self.learn_winner(request, Winner { driver, attempt, trip });
            }
        }
        self.requests[request as usize].last_view = Some(view);
    }

    pub(super) fn audit_answered(&mut self, call: &Call, read: audit::Audit) {
        let request = read.request;
        self.state_shown(call, request, read.state, call.attempt_min);
        audits::take(self, call.audit_len, read);
    }
}
