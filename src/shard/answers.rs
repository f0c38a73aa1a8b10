//! Answers that are no step of a request in memory: from an ended request that the store has, to letters for ids that
//! nobody knows, refusals; and how what an actor answers becomes a reply.
#![forbid(unsafe_code)]

use super::Platform;
use super::{Letter, Shard, home_of_driver};
use crate::cold::port::EndedRequest;
use crate::fsm::fold::{Fold, Outcome};
use crate::fsm::ids::RequestId;
use crate::fsm::request::{ApiAnswer, Asker, ReplyTo, Request, RequestEffect, RequestEvent, ToDriver, Unfit};
use crate::fsm::types::{RequestLog, RevokeReason};
use crate::wire::api::{self, RequestView, ResponseOutcome};
use crate::wire::respond::{Problem, Reply};
use compact_str::CompactString;
use std::collections::VecDeque;

impl<P: Platform> Shard<P> {
    /// Answers from an ended request of this node that only the store has.
    pub(super) fn answer_stored(&mut self, ended: EndedRequest, letters: VecDeque<Letter>) {
        let nodes = [(0, self.config.node_id.clone())];
        self.answer_from_store(ended, letters, &nodes);
    }

    /// Answers from an ended request that only a store has: the same actor, for a moment. `nodes` as in [`api::audit`].
    pub(super) fn answer_from_store(
        &mut self,
        ended: EndedRequest,
        letters: VecDeque<Letter>,
        nodes: &[(usize, CompactString)],
    ) {
        let mut request = match Request::restored(ended.log) {
            Ok(request) => request,
            Err(error) => {
                tracing::error!(shard = self.index, %error, "the store holds a request that does not fold");
                return letters
                    .into_iter()
                    .for_each(|letter| self.refuse_letter(&letter, &Problem::not_durable()));
            }
        };
        for letter in letters {
            let event = match letter {
                Letter::Offer { offer, reply, .. } => RequestEvent::Reposted { offer, reply },
                Letter::Request { event, .. } => event,
                Letter::TripMoved {
                    trip_id,
                    driver_id,
                    what,
                } => RequestEvent::TripMoved {
                    driver_id,
                    trip_id,
                    what,
                },
                Letter::TripCancelled { reason, reply, .. } => RequestEvent::TripCancelled { reason, reply },
                Letter::View { audit, reply, .. } => {
                    let answer = view(&request, request.log().len(), audit, nodes);
                    self.answer(reply, answer);
                    continue;
                }
                other => unreachable!("not a request's letter: {other:?}"),
            };
            let mut effects = Vec::new();
            request.step(event, self.now_ms, &mut effects);
            for effect in effects {
                match effect {
                    RequestEffect::Reply { reply, answer } => self.answer_call(request.id(), reply, answer),
                    RequestEffect::Driver { driver_id, message } => {
                        self.post_to_driver(driver_id, request.id().clone(), message, None);
                    }
                    RequestEffect::Arm { .. } => {}
                    RequestEffect::Persist { .. } | RequestEffect::PassOn(_) | RequestEffect::Closed => {
                        unreachable!("an ended request does not change")
                    }
                }
            }
        }
    }

    /// Answers a call as the request's actor says.
    pub(super) fn answer_call(&mut self, request_id: &RequestId, reply: ReplyTo, answer: ApiAnswer) {
        if matches!(answer, ApiAnswer::Offer { duplicate: true, .. }) {
            self.metrics().requests_repeated.inc();
        }
        match encode(request_id, answer) {
            Ok(answer) => self.answer(reply, answer),
            Err(problem) => self.refuse_call(reply, problem),
        }
    }

    /// Answers a letter for a request or trip that nobody knows.
    pub(super) fn unknown(&mut self, letter: Letter) {
        if let Some(letter) = self.seek_offer(letter) {
            self.unknown_to_all(letter);
        }
    }

    /// The same, when no other node is to be asked.
    pub(super) fn unknown_to_all(&mut self, letter: Letter) {
        match letter {
            Letter::Request { request_id, event, .. } => match event {
                RequestEvent::Answered {
                    asker: Asker::Api(reply),
                    ..
                } => {
                    self.answer(reply, Problem::no_such_offer().into_reply());
                }
                RequestEvent::Answered { driver_id, .. } | RequestEvent::Acked { driver_id, .. } => {
                    self.post_to_driver(driver_id, request_id, ToDriver::NoSuchOffer, None);
                }
                RequestEvent::Reserved { driver_id, .. } => {
                    self.post_to_driver(driver_id, request_id, ToDriver::Release, None);
                }
                RequestEvent::Cancelled { reply, .. } => self.answer(reply, Problem::no_such_request().into_reply()),
                RequestEvent::Misposted { unfit, reply } => self.refuse_call(reply, unfit_problem(unfit)),
                // Whatever the driver holds, there is nothing of it.
                RequestEvent::DriverHere { driver_id, held, .. } => {
                    let message = held.map_or(ToDriver::Release, |attempt| ToDriver::Outcome {
                        attempt,
                        outcome: Outcome::Revoked(RevokeReason::Superseded),
                        trip_id: None,
                        again: false,
                    });
                    self.post_to_driver(driver_id, request_id, message, None);
                }
                // Late echoes of a request that is over.
                RequestEvent::Delivered { .. }
                | RequestEvent::Refused { .. }
                | RequestEvent::Busy { .. }
                | RequestEvent::Unavailable { .. } => {}
                // What waited in a request that went to another node meanwhile.
                RequestEvent::TripMoved { driver_id, .. } => {
                    let home = home_of_driver(&driver_id, self.shards);
                    self.post(home, Letter::NoSuchTrip { driver_id });
                }
                RequestEvent::TripCancelled { reply, .. } => self.answer(reply, Problem::no_such_trip().into_reply()),
                // `Letter::of_event` makes an offer of the one, the other is a request's own; over a link comes neither, see
                // `LinkLetter::check`.
                RequestEvent::Reposted { .. } | RequestEvent::Timer => unreachable!("never sent by letter"),
            },
            Letter::TripMoved { driver_id, .. } => {
                let home = home_of_driver(&driver_id, self.shards);
                self.post(home, Letter::NoSuchTrip { driver_id });
            }
            Letter::TripCancelled { reply, .. } => self.answer(reply, Problem::no_such_trip().into_reply()),
            Letter::View { reply, .. } => self.answer(reply, Problem::no_such_request().into_reply()),
            other => unreachable!("not a request's letter: {other:?}"),
        }
    }

    pub(super) fn refuse_letter(&mut self, letter: &Letter, problem: &Problem) {
        let reply = match letter {
            Letter::Offer { reply, .. } | Letter::TripCancelled { reply, .. } | Letter::View { reply, .. } => {
                Some(*reply)
            }
            Letter::Request { event, .. } => event.reply(),
            // A driver asks again when it hears nothing.
            _ => None,
        };
        if let Some(reply) = reply {
            self.answer(reply, problem.clone().into_reply());
        }
    }
}

fn unfit_problem(unfit: Unfit) -> Problem {
    if unfit.too_large {
        Problem::too_large(unfit.why)
    } else {
        Problem::invalid(unfit.why)
    }
}

/// The answer, or what is wrong with the call.
fn encode(request_id: &RequestId, answer: ApiAnswer) -> Result<Reply, Problem> {
    Ok(match answer {
        ApiAnswer::Offer {
            state,
            attempt,
            driver_id,
            duplicate,
        } => api::offer(request_id, state, attempt, driver_id.as_ref(), duplicate),
        ApiAnswer::Excluded { state, excluded } => Problem::excluded(state, &excluded).into_reply(),
        ApiAnswer::Unfit { unfit } => return Err(unfit_problem(unfit)),
        ApiAnswer::Ended { state, trip_id } => Problem::ended(state, trip_id.as_ref()).into_reply(),
        ApiAnswer::Outcome { outcome, trip_id } => {
            let outcome = match outcome {
                Outcome::Accepted => ResponseOutcome::Confirmed,
                Outcome::Declined => ResponseOutcome::Declined,
                Outcome::Open | Outcome::TimedOut | Outcome::Refused(_) | Outcome::Revoked(_) => {
                    ResponseOutcome::TooLate
                }
            };
            api::response(request_id, outcome, trip_id.as_ref())
        }
        ApiAnswer::NoSuchOffer => Problem::no_such_offer().into_reply(),
        ApiAnswer::Cancelled => api::cancelled(request_id),
        ApiAnswer::TripCancelled { trip_id } => api::trip_cancelled(&trip_id, request_id),
        ApiAnswer::TripEnded { trip_id, outcome } => Problem::trip_ended(&trip_id, outcome).into_reply(),
        ApiAnswer::NoSuchTrip => Problem::no_such_trip().into_reply(),
        ApiAnswer::Fenced => Problem::not_durable().into_reply(),
    })
}

/// The request as its first `shown` steps leave it: what comes after them is not decided yet, or not durable. `nodes` as in
/// [`api::audit`].
pub(super) fn view(request: &Request, shown: usize, audit: bool, nodes: &[(usize, CompactString)]) -> Reply {
    let steps = &request.log()[..shown];
    let before;
    let fold = if shown == request.log().len() {
        request.fold()
    } else if let Ok(fold) = Fold::of(steps) {
        before = fold;
        &before
    } else {
        return Problem::no_such_request().into_reply();
    };
    let state = fold.state();
    if audit {
        let log = RequestLog {
            request_id: request.id().clone(),
            log: steps.to_vec(),
        };
        return api::audit(&log, state, nodes);
    }
    let (attempt, driver_id) = fold.current();
    api::request_view(&RequestView {
        request_id: request.id(),
        state,
        attempt,
        driver_id,
        excluded: fold.excluded().collect(),
        trip_id: fold.trip.as_ref().map(|trip| &trip.trip_id),
        priority: fold.priority,
        deadline_at_ms: fold.deadline_at_ms,
    })
}
