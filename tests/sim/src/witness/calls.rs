//! What callers ask over HTTP, and what they are answered.

use super::Witness;
use super::texts::set_text;
use crate::checks::{About, Check};
use crate::codec::http::Answer;
use crate::codec::{Bad, answers, audit};
use crate::ids::{Driver, Request, Trip};
use crate::phrases::Reason;
use crate::words::State;

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum Ask {
    /// `POST /v1/dispatch/offer`
    Offer(Request),
    /// `POST /v1/dispatch/response`
    Response {
        request: Request,
        driver: Driver,
        attempt: Option<u32>,
        accept: bool,
    },
    /// `POST /v1/dispatch/cancel`
    Cancel(Request, Reason),
    /// `POST /v1/trips/{trip_id}/cancel`
    TripCancel(Trip, Reason),
    /// `GET /v1/dispatch/request/{request_id}`
    View(Request),
    /// `GET /v1/dispatch/audit/{request_id}`
    Audit(Request),
    /// `GET /v1/drivers/{driver_id}`
    DriverView(Driver),
    /// `GET /v1/drivers/{driver_id}/records`
    Records(Driver),
    /// `GET /v1/events`
    Events {
        node: u8,
        after: Option<u64>,
        consumer: Option<u32>,
        wait_ms: u64,
        limit: u64,
    },
    /// `GET /readyz`
    Ready,
    /// `GET /healthz`
    Alive,
    /// `POST /v1/events/ack`
    Acknowledge { node: u8, consumer: u32, cursor: u64 },
}

/// What a call was, and what was known when it was sent.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) ask: Ask,
    pub(super) sent_us: u64,
    /// When every earlier call of its connection was answered; `u64::MAX`: not yet. Until then the node may leave it where
    /// it is: how many it takes of one connection at once is its own affair.
    pub(super) front_us: u64,
    pub(super) open: bool,
    pub(super) candidates: u64,
    pub(super) exists: bool,
    pub(super) end: Option<State>,
    pub(super) attempt_min: u32,
    /// Its driver had been shown the offer that it is about.
    pub(super) shown: bool,
    pub(super) audit_len: usize,
    /// Sockets that its driver had opened.
    pub(super) opened: u32,
    /// The request whose trip its driver had for certain.
    pub(super) live: Option<Request>,
    pub(super) cursor_max: u64,
    pub(super) acked: u64,
}

/// What the caller does about an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// That was it.
    Done,
    /// The node could not take it; the same again, later.
    Again,
    /// A page of events: how many, and the last cursor.
    Page(u32, Option<u64>),
    /// A page of records, and where the next one begins.
    Records(Option<String>),
    /// What was asked for does not exist.
    Missing,
}

/// So few requests that were posted when nothing ailed the nodes say nothing.
const CALM_POSTS_MIN: u32 = 20;

/// Of an answer's body, a line of the timeline shows so many characters.
const BODY_CHARS_MAX: usize = 600;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The client, the network or the node's end took the connection, as far as the client can tell.
    Excused,
    /// The client sent no more after whole requests, and the connection, of which this was the first call, was closed in order.
    HalfClosed(u32),
    /// The node sends no more, and has not answered this call.
    Closed(u32),
}

impl Witness {
    /// A caller sends a call; `candidates` of an offer, as a set. Returns the call's number.
    pub fn called(&mut self, who: &str, ask: Ask, candidates: u64) -> u32 {
        let number = self.calls.len() as u32;
        let about = self.about(ask);
        self.note(about, || match ask {
            Ask::Offer(_) => format!("{who} call {number}: {ask:?} to {}", set_text(candidates)),
            _ => format!("{who} call {number}: {ask:?}"),
        });
        let now_us = self.now_us;
        match ask {
            Ask::Offer(request) => {
                let seen = &mut self.requests[request as usize];
                if seen.posts == 0 {
                    (seen.first_post_us, seen.first_call) = (now_us, number);
                }
                if !seen.exists {
                    seen.last_first_post_us = now_us;
                }
                seen.posts += 1;
                seen.posted_again |= seen.posted & candidates;
                seen.posted |= candidates;
            }
            Ask::Response {
                request,
                driver,
                attempt,
                accept,
            } => self.answer_said(driver, request, attempt, accept, None),
            Ask::Cancel(request, reason) => self.requests[request as usize].cancels_said |= 1 << reason,
            Ask::TripCancel(trip, reason) => {
                self.trip_mut(trip).api_cancels_said |= 1 << reason;
                self.trip_may_end(trip);
            }
            Ask::Acknowledge { node, consumer, cursor } => {
                self.events[usize::from(node)].ack_said(consumer, cursor);
            }
            _ => {}
        }
        let call = self.remember(ask, candidates);
        self.calls.push(call);
        number
    }

    fn remember(&self, ask: Ask, candidates: u64) -> Call {
        let request = match ask {
            Ask::Offer(request)
            | Ask::Cancel(request, _)
            | Ask::View(request)
            | Ask::Audit(request)
            | Ask::Response { request, .. } => self.requests.get(request as usize),
            _ => None,
        };
        let (node, consumer) = match ask {
            Ask::Events { node, consumer, .. } => (node, consumer),
            Ask::Acknowledge { node, consumer, .. } => (node, Some(consumer)),
            _ => (0, None),
        };
        let events = &self.events[usize::from(node)];
        Call {
            ask,
            sent_us: self.now_us,
            front_us: self.now_us,
            open: true,
            candidates,
            exists: match ask {
                // What a node remembers of a driver who is nowhere is its own (ARCHITECTURE.md, "Records in a fleet").
                Ask::DriverView(driver) => !self.is_fleet() && self.is_known(driver),
                Ask::TripCancel(..) => true,
                _ => request.is_some_and(|request| request.exists),
            },
            end: request.and_then(|request| request.end),
            attempt_min: request.map_or(0, |request| request.attempt_min),
            shown: self.is_about_shown(ask),
            audit_len: request
                .and_then(|request| request.audit.as_ref())
                .map_or(0, |audit| audit.entries.len()),
            opened: match ask {
                Ask::DriverView(driver) => self.drivers[driver as usize].opened,
                _ => 0,
            },
            live: match ask {
                Ask::DriverView(driver) => self.drivers[driver as usize].live,
                _ => None,
            },
            cursor_max: events.last_cursor(),
            acked: consumer.map_or(0, |consumer| events.acked(consumer)),
        }
    }

    pub(super) fn is_about_shown(&self, ask: Ask) -> bool {
        let Ask::Response {
            request,
            driver,
            attempt,
            ..
        } = ask
        else {
            return false;
        };
        self.requests.get(request as usize).is_some_and(|seen| match attempt {
            Some(attempt) => seen.was_shown(attempt, driver),
            None => (1..=seen.attempts.len() as u32).any(|attempt| seen.was_shown(attempt, driver)),
        })
    }

    pub(super) fn about(&self, ask: Ask) -> About {
        match ask {
            Ask::Offer(request) | Ask::Cancel(request, _) | Ask::View(request) | Ask::Audit(request) => {
                About::request(request)
            }
            Ask::Response { request, driver, .. } => About::both(request, driver),
            Ask::TripCancel(trip, _) => About {
                request: self.trip_seen(trip).request,
                other: None,
                driver: self.trip_seen(trip).driver,
            },
            Ask::DriverView(driver) | Ask::Records(driver) => About::driver(driver),
            Ask::Events { .. } | Ask::Acknowledge { .. } | Ask::Ready | Ask::Alive => About::default(),
        }
    }

    /// The call was sent behind others that are not answered yet, on the same connection.
    pub fn sent_behind(&mut self, call: u32) {
        self.calls[call as usize].front_us = u64::MAX;
    }

    /// All calls before this one on its connection are answered.
    pub fn came_to_front(&mut self, call: u32) {
        self.calls[call as usize].front_us = self.now_us;
    }

    /// The connection of a call is over: nobody knows what became of it.
    pub fn lost(&mut self, call: u32, loss: Loss) {
        let ask = self.calls[call as usize].ask;
        let about = self.about(ask);
        self.note(about, || format!("call {call} lost: {loss:?}"));
        self.calls[call as usize].open = false;
        let excused = match loss {
            Loss::Excused => true,
            Loss::HalfClosed(first) => !self.has_lasted_since(self.calls[first as usize].sent_us),
            Loss::Closed(front) => {
                let sent_us = self.calls[front as usize].sent_us;
                // It may have been on its way when the node closed a connection on which it waited for nothing.
                let is_unheard = sent_us + 3 * self.expect.order_margin_ms * 1_000 > self.now_us;
                is_unheard || !self.has_lasted_since(sent_us)
            }
        };
        if !self.holds(Check::Answered, excused) {
            let text = format!("{ask:?} was not answered: {loss:?}");
            self.violate(Check::Answered, about, text);
        }
    }

    /// Whether the nodes have lived since then, and have not been told to end.
    pub(super) fn has_lasted_since(&self, since_us: u64) -> bool {
        let up = self.node.each.iter().all(|(up, draining)| *up && !draining);
        let begun_us = self.node.boots.iter().map(|boot| boot.1).max();
        up && begun_us.is_some_and(|begun_us| begun_us < since_us)
    }

    /// A call is answered.
    pub fn answered(&mut self, call: u32, answer: &Answer<'_>) -> Next {
        let seen = &mut self.calls[call as usize];
        seen.open = false;
        let seen = seen.clone();
        if matches!(seen.ask, Ask::Offer(_)) && self.is_calm_at(seen.sent_us) {
            self.calm_posts.0 += u32::from(answer.status == 503);
            self.calm_posts.1 += 1;
        }
        let about = self.about(seen.ask);
        self.note(about, || {
            let body: String = answer.body.chars().take(BODY_CHARS_MAX).collect();
            let cut = if body.len() < answer.body.len() { " …" } else { "" };
            format!("call {call} answered {}: {}{cut}", answer.status, body.trim_end())
        });
        let next = match answer.status {
            200 | 202 => self.answered_well(&seen, answer),
            _ => self.answered_problem(&seen, answer),
        };
        match next {
            Ok(next) => {
                self.counts.add(Check::Protocol);
                next
            }
            Err(Bad(why)) => {
                self.broken(Check::Protocol, about, format!("call {call} {:?}: {why}", seen.ask));
                Next::Done
            }
        }
    }

    fn answered_well(&mut self, call: &Call, answer: &Answer<'_>) -> Result<Next, Bad> {
        let body = answer.body;
        if (answer.status == 202) != matches!(call.ask, Ask::Offer(_)) && answer.status == 202 {
            return Err(Bad::new("202 for what is no offer"));
        }
        match call.ask {
            Ask::Offer(request) => {
                let read = answers::offer(body, &mut self.ids)?;
                same(read.request, request)?;
                if read.duplicate == (answer.status == 202) {
                    return Err(Bad::new(format!("{} with duplicate {}", answer.status, read.duplicate)));
                }
                self.check_not_draining(call);
                self.offer_answered(call, &read);
            }
            Ask::Response { request, .. } => {
                let read = answers::response(body, &mut self.ids)?;
                same(read.request, request)?;
                self.response_answered(call.ask, &read)?;
            }
            Ask::Cancel(request, _) => {
                let (named, state) = answers::cancelled(body, &mut self.ids)?;
                same(named, request)?;
                same(state, State::Cancelled)?;
                self.learn_state(request, State::Cancelled);
            }
            Ask::TripCancel(trip, _) => {
                same(answers::trip_cancelled(body, &mut self.ids)?, trip)?;
                let again = self.trip_seen(trip).cancelled;
                if !self.holds(Check::SameAnswer, !again) {
                    self.violate(
                        Check::SameAnswer,
                        self.about(call.ask),
                        format!("trip {trip} cancelled twice"),
                    );
                }
                self.learn_trip_ended(trip, Some(crate::words::TripEnd::Cancelled));
                self.trip_mut(trip).cancelled = true;
            }
            Ask::View(request) => {
                let view = answers::view(body, &mut self.ids)?;
                same(view.request, request)?;
                self.view_answered(call, view);
            }
            Ask::Audit(request) => {
                let read = audit::read(body, &mut self.ids)?;
                same(read.request, request)?;
                self.audit_answered(call, read);
            }
            Ask::DriverView(driver) => {
                let view = answers::driver_view(body, &mut self.ids)?;
                same(view.driver, driver)?;
                self.driver_view_answered(call, view);
            }
            Ask::Records(driver) => {
                let (rows, next) = answers::records(body, &mut self.ids)?;
                let next = next.map(str::to_owned);
                self.records_answered(driver, &rows);
                return Ok(Next::Records(next));
            }
            Ask::Ready => self.ready_answered(call, body)?,
            Ask::Alive => same(body, "{\"status\":\"alive\"}")?,
            Ask::Events { .. } => return self.events_answered(call, body),
            Ask::Acknowledge { node, consumer, .. } => {
                let cursor = answers::acknowledged(body, &mut self.ids)?;
                self.ack_answered(call, node, consumer, cursor);
            }
        }
        Ok(Next::Done)
    }

    /// After faults: calls are answered in time.
    pub fn check_calls_answered(&mut self) {
        let Some(over_us) = self.calm_since_us() else { return };
        let late = |call: &Call| {
            let waits_us = self.poll_ms(call) * 1_000;
            // Not since it was sent: a client may send more than slow tables let a connection have answered.
            let asked_us = call.front_us;
            call.open && asked_us != u64::MAX && asked_us.max(over_us) + waits_us + 6 * super::SLACK_US < self.now_us
        };
        let found = self.calls.iter().find(|call| late(call)).map(|call| call.ask);
        self.counts.add(Check::Answered);
        if let Some(ask) = found {
            self.violate(Check::Answered, self.about(ask), format!("{ask:?} was never answered"));
        }
        // Tables that are slow for good refuse many, and not all.
        let (refused, all) = self.calm_posts;
        if !self.holds(Check::Answered, all < CALM_POSTS_MIN || refused < all) {
            let text =
                format!("of {all} requests that were posted when nothing ailed the nodes, {refused} were not taken");
            self.violate(Check::Answered, About::default(), text);
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "what is compared is made for it")]
pub(super) fn same<T: PartialEq + std::fmt::Debug>(got: T, expect: T) -> Result<(), Bad> {
    if got == expect {
        return Ok(());
    }
    Err(Bad::new(format!("{got:?} where {expect:?} belongs")))
}
