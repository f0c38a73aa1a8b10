//! Problems that callers are answered, and whether they can be true.

use super::Witness;
use super::calls::{Ask, Call, Next, same};
use super::texts::set_text;
use crate::checks::{About, Check};
use crate::codec::http::Answer;
use crate::codec::{Bad, answers};
use crate::ids::{Driver, Request, Trip};
use crate::words::{Code, State};

impl Witness {
    pub(super) fn answered_problem(&mut self, call: &Call, answer: &Answer<'_>) -> Result<Next, Bad> {
        let problem = answers::problem(answer.body, &mut self.ids)?;
        let expect = match problem.code {
            Code::Invalid => 400,
            Code::NoSuchOffer | Code::NoSuchRequest | Code::NoSuchTrip | Code::NoSuchDriver => 404,
            Code::Timeout => 408,
            Code::Excluded | Code::Ended => 409,
            Code::Overloaded => 429,
            Code::Draining | Code::Recovering | Code::NotDurable => 503,
        };
        same(answer.status, expect)?;
        if answer.status == 429 && !answer.retry_after {
            return Err(Bad::new("429 without Retry-After"));
        }
        // Of a claim that timed out nobody can say whether it was applied (design.md, section 5).
        let is_unknown = self.is_fleet() && problem.code == Code::NotDurable;
        if let (Ask::Offer(request), 408 | 429 | 503, false) = (call.ask, answer.status, is_unknown) {
            self.requests[request as usize].posts_refused += 1;
        }
        if call.ask == Ask::Alive {
            return Err(Bad::new(format!("a node that is alive says {}", answer.status)));
        }
        match problem.code {
            Code::Overloaded | Code::Draining | Code::Recovering | Code::NotDurable | Code::Timeout => {
                let ok = problem.code != Code::Draining || self.expect.may_drain;
                self.counts.add(Check::Caused);
                if !ok {
                    self.violate(
                        Check::Caused,
                        self.about(call.ask),
                        "the node drains, and nobody told it to",
                    );
                }
                let cause = match problem.code {
                    Code::Overloaded => self.expect.may_shed,
                    // A call on the tables now and then gets no answer, also when all is well.
                    Code::NotDurable => self.expect.may_be_short || self.is_fleet(),
                    Code::Draining | Code::Recovering => false,
                    _ => true,
                };
                self.check_turned_away(self.about(call.ask), call.sent_us, answer.status, cause);
                Ok(Next::Again)
            }
            Code::Invalid => Err(Bad::new(format!("a good call is invalid: {}", answer.body))),
            Code::Excluded => {
                self.told_excluded(call, &problem)?;
                Ok(Next::Done)
            }
            Code::Ended => {
                self.told_ended(call, &problem)?;
                Ok(Next::Done)
            }
            Code::NoSuchOffer => {
                self.told_no_such_offer(call)?;
                Ok(Next::Missing)
            }
            Code::NoSuchRequest | Code::NoSuchTrip | Code::NoSuchDriver => {
                let ok = !call.exists;
                if !self.holds(Check::AnswerKept, ok) {
                    let text = format!("{:?} is answered {}, and it exists", call.ask, problem.code.as_str());
                    self.violate(Check::AnswerKept, self.about(call.ask), text);
                }
                Ok(Next::Missing)
            }
        }
    }

    /// A handshake is answered with this status instead of 101.
    pub fn handshake_refused(&mut self, driver: Driver, conn: u32, status: u16) {
        let about = About::driver(driver);
        if !self.holds(Check::Protocol, matches!(status, 408 | 429 | 503)) {
            self.violate(Check::Protocol, about, format!("d{driver}: handshake refused {status}"));
        }
        if let Some(opened_us) = self.socket(driver, conn).map(|socket| socket.opened_us) {
            self.check_turned_away(about, opened_us, status, status == 408);
        }
    }

    /// A node that nothing ails turns nobody away, unless its settings are a cause.
    fn check_turned_away(&mut self, about: About, asked_us: u64, status: u16, cause: bool) {
        if !self.holds(Check::Caused, cause || !self.is_calm_at(asked_us)) {
            let text = format!("{status} from a node that nothing ails");
            self.violate(Check::Caused, about, text);
        }
    }

    fn told_excluded(&mut self, call: &Call, problem: &answers::Problem) -> Result<(), Bad> {
        let Ask::Offer(request) = call.ask else {
            return Err(Bad::new("excluded, and no offer"));
        };
        same(problem.state, Some(State::PendingMatch))?;
        let excluded: u64 = problem.excluded.iter().fold(0, |set, driver| set | (1 << driver));
        // As with what is shown: a node that was cut off knows no better.
        let may_be_old = self.is_fleet() && !self.is_calm_at(call.sent_us);
        let lives = call.end.is_none() || may_be_old;
        let ok = call.candidates & !excluded == 0 && self.requests[request as usize].posts > 1 && lives;
        if !self.holds(Check::SameAnswer, ok) {
            let (excluded, offered) = (set_text(excluded), set_text(call.candidates));
            let text = format!("r{request} excludes {excluded}, and was offered to {offered}");
            self.violate(Check::SameAnswer, About::request(request), text);
        }
        self.learn_exists(request);
        Ok(())
    }

    fn told_ended(&mut self, call: &Call, problem: &answers::Problem) -> Result<(), Bad> {
        match call.ask {
            Ask::Offer(request) | Ask::Cancel(request, _) => {
                let state = problem.state.ok_or_else(|| Bad::new("ended, and no state"))?;
                let wrong = if matches!(call.ask, Ask::Offer(_)) {
                    State::Accepted
                } else {
                    State::Cancelled
                };
                let ok = state.is_end() && state != wrong;
                if !self.holds(Check::SameAnswer, ok) {
                    let text = format!("409 ended for {:?} with {}", call.ask, state.as_str());
                    self.violate(Check::SameAnswer, About::request(request), text);
                }
                self.learn_state(request, state);
                if state == State::Accepted {
                    self.told_whose_trip(request, problem.trip);
                }
                Ok(())
            }
            Ask::TripCancel(trip, _) => {
                let seen = self.trip_seen(trip);
                let ok = seen.may_have_ended();
                if !self.holds(Check::Caused, ok) {
                    self.violate(
                        Check::Caused,
                        self.about(call.ask),
                        format!("trip {trip} ended by nobody: {seen:?}"),
                    );
                }
                self.note_trip_over(trip);
                Ok(())
            }
            _ => Err(Bad::new("409 ended for what cannot end")),
        }
    }

    /// What cannot be cancelled any more, since it was accepted, names the trip that can.
    fn told_whose_trip(&mut self, request: Request, trip: Option<Trip>) {
        let known = self.requests[request as usize].winner.and_then(|winner| winner.trip);
        let whose = trip.and_then(|trip| self.trip_seen(trip).request);
        let ok = trip.is_some()
            && known.is_none_or(|known| trip == Some(known))
            && whose.is_none_or(|whose| whose == request);
        if !self.holds(Check::SameAnswer, ok) {
            let text =
                format!("r{request} was accepted, and 409 ended names trip {trip:?} of {whose:?}, not {known:?}");
            self.violate(Check::SameAnswer, About::request(request), text);
        }
        if let Some(trip) = trip {
            self.trip_mut(trip).request = Some(request);
        }
    }

    fn told_no_such_offer(&mut self, call: &Call) -> Result<(), Bad> {
        let Ask::Response { request, driver, .. } = call.ask else {
            return Err(Bad::new("no_such_offer, and no response"));
        };
        if let Some(seen) = self.requests.get_mut(request as usize)
            && call.shown
        {
            seen.denied |= 1 << driver;
        }
        Ok(())
    }
}
