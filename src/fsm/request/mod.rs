//! The request actor: decides, alone, which attempt stands.
//!
//! Events in, effects out. Every decision is a run of [`Step`]s that goes to the durability port with
//! [`RequestEffect::Persist`]; what others may hear of it (offers, answers, outcomes) leaves only on
//! [`Durability::Committed`]. While a decision is on its way to the disk, or a driver is being asked whether it is
//! free, later events wait in `deferred` in the order in which they came.
//!
//! Must never: answer before the commit, change an attempt that is over, or try a driver twice.

mod announce;
mod events;
mod fence;
mod messages;
mod owners;
mod search;

pub use messages::{
    Answer, ApiAnswer, Asker, Durability, Fence, ReplyTo, RequestEffect, RequestEvent, Resumed, ToDriver, TripMove,
    Unfit,
};

use super::fold::{self, Fold, Outcome, TripPhase};
use super::ids::{DriverId, RequestId, TripId};
use super::types::{LogEntry, OfferRequest, RefuseReason, RequestLog, Step, UnixMs};
use std::collections::VecDeque;

/// A driver who is asked or waited for (`busy_wait_ms`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    driver_id: DriverId,
    /// Number of the ask that its answer carries.
    ask: u32,
    /// In the driver's queue, rather than being asked.
    queued: bool,
}

/// A decision on its way to the disk.
#[derive(Clone, Debug, Default)]
struct Pending {
    from: usize,
    replies: Vec<(Asker, Question)>,
    /// It takes long: callers do not wait for it.
    is_slow: bool,
}

/// What the asker of a pending decision wants to hear once it is durable.
#[derive(Clone, Debug)]
enum Question {
    Posted,
    Answered { attempt: u32 },
    Cancelled,
    TripCancelled,
}

/// The actor.
#[derive(Clone, Debug)]
pub struct Request {
    id: RequestId,
    log: Vec<LogEntry>,
    fold: Fold,
    /// Steps `..persisted` were handed to the durability port.
    persisted: usize,
    pending: Option<Box<Pending>>,
    questions: Vec<(Asker, Question)>,
    deferred: VecDeque<RequestEvent>,
    waiting: Vec<Waiting>,
    /// How many asks were sent.
    asks: u32,
    wait_until_ms: Option<UnixMs>,
    closed: bool,
    /// Another owner has the request: nothing is decided here any more.
    fenced: Option<Fence>,
}

/// Defaults that the node's configuration gives to a request.
#[derive(Clone, Copy, Debug)]
pub struct Defaults {
    /// `offer_timeout_ms`
    pub offer_timeout_ms: u32,
    /// `deadline_ms`
    pub deadline_ms: u32,
}

impl Request {
    /// A request that was never seen before. The reply leaves once it is durable.
    ///
    /// # Panics
    /// Never: a log of one `REQUEST_RECEIVED` always folds.
    pub fn received(
        offer: OfferRequest,
        reply: ReplyTo,
        defaults: Defaults,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) -> Self {
        let step = Step::Received {
            priority: offer.priority,
            deadline_at_ms: now_ms + u64::from(offer.deadline_ms.unwrap_or(defaults.deadline_ms)),
            offer_timeout_ms: offer.offer_timeout_ms.unwrap_or(defaults.offer_timeout_ms),
            max_attempts: offer.max_attempts,
            parallel: offer.parallel.unwrap_or(1),
            busy_wait_ms: offer.busy_wait_ms.unwrap_or(0),
            candidates: offer.candidates,
            trip: offer.trip,
        };
        let log = vec![LogEntry { at_ms: now_ms, step }];
        let mut request = Self::with(offer.request_id, log).expect("a log of one REQUEST_RECEIVED");
        request.persisted = 0;
        request.questions.push((Asker::Api(reply), Question::Posted));
        request.advance(now_ms, effects);
        request
    }

    /// A request read back from the journal or the store.
    ///
    /// # Errors
    /// When the log is not one that a gateway writes.
    pub fn restored(log: RequestLog) -> Result<Self, fold::FoldError> {
        Self::with(log.request_id, log.log)
    }

    fn with(id: RequestId, log: Vec<LogEntry>) -> Result<Self, fold::FoldError> {
        let fold = Fold::of(&log)?;
        let closed = fold.is_closed();
        Ok(Self {
            id,
            persisted: log.len(),
            log,
            fold,
            pending: None,
            questions: Vec::new(),
            deferred: VecDeque::new(),
            waiting: Vec::new(),
            asks: 0,
            wait_until_ms: None,
            closed,
            fenced: None,
        })
    }

    /// After a restart, first: what the drivers have to know before anybody is served. Offers that were open go out
    /// again with the time they have left, and a trip is bound to its driver.
    ///
    /// # Panics
    /// When the request has lived on since it was restored.
    pub fn rebind(&self, effects: &mut Vec<RequestEffect>) {
        assert!(self.pending.is_none() && self.persisted == self.log.len());
        if let Some(trip) = &self.fold.trip
            && !matches!(trip.phase, TripPhase::Ended(_))
        {
            let message = ToDriver::Bound {
                attempt: self.attempt_number(&trip.driver_id),
                trip_id: trip.trip_id.clone(),
                phase: trip.phase,
            };
            effects.push(RequestEffect::Driver {
                driver_id: trip.driver_id.clone(),
                message,
            });
        }
        for number in self.fold.open() {
            let delivered = self.fold.attempt(number).is_some_and(|made| made.delivered);
            let resumed = if delivered { Resumed::Delivered } else { Resumed::Sent };
            self.send_offer(number, resumed, effects);
        }
    }

    /// After another owner, besides [`Self::rebind`]: how attempts ended, and the trip, that the log's steps from `from` on have ended.
    /// That owner may not have come to say so.
    pub fn tell_ends(&self, from: usize, effects: &mut Vec<RequestEffect>) {
        for (index, entry) in self.log.iter().enumerate().skip(from) {
            if matches!(
                entry.step,
                Step::Accepted { .. }
                    | Step::Declined { .. }
                    | Step::TimedOut { .. }
                    | Step::Revoked { .. }
                    | Step::Refused { .. }
                    | Step::TripEnded { .. }
            ) {
                self.announce_step(index, effects);
            }
        }
    }

    /// After a restart, second: what time has ended meanwhile ends, and a search that stood still goes on. Drivers may
    /// have been heard before, if only after all of them were told what they are bound to.
    pub fn resume(&mut self, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        if self.pending.is_some() || self.is_asking() {
            return self.step(RequestEvent::Timer, now_ms, effects);
        }
        self.time_out(now_ms, effects);
        self.advance(now_ms, effects);
    }

    /// The id.
    pub fn id(&self) -> &RequestId {
        &self.id
    }

    /// All steps; those after the last commit are included.
    pub fn log(&self) -> &[LogEntry] {
        &self.log
    }

    /// The steps that were handed to the durability port.
    pub fn persisted_log(&self) -> &[LogEntry] {
        &self.log[..self.persisted]
    }

    /// The state that the log folds to.
    pub fn fold(&self) -> &Fold {
        &self.fold
    }

    /// Whether the request stands in the queue of a driver who is offered to another.
    pub fn is_waiting(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.queued)
    }

    /// Whether another owner has it, as was found out.
    pub fn is_fenced(&self) -> bool {
        self.fenced.is_some()
    }

    /// Whether another owner has it, to whom nothing can be passed on from here.
    pub fn is_out_of_reach(&self) -> bool {
        self.fenced.is_some_and(|fence| !fence.has_heir)
    }

    /// Whether nothing can change any more and all of it is stored.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// One event.
    pub fn step(&mut self, event: RequestEvent, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        if let Some(fence) = self.fenced {
            return fence::turn_away(event, fence, effects);
        }
        if event.reply().is_some() && self.pending.as_ref().is_some_and(|pending| pending.is_slow) {
            return fence::turn_away(event, Fence::default(), effects);
        }
        let asked = matches!(
            event,
            RequestEvent::Reserved { .. } | RequestEvent::Busy { .. } | RequestEvent::Unavailable { .. }
        );
        if self.pending.is_some() || (self.is_asking() && !asked) {
            self.deferred.push_back(event);
            return;
        }
        self.decide(event, now_ms, effects);
        self.drain(now_ms, effects);
    }

    /// The durability port's answer.
    ///
    /// # Panics
    /// When nothing was asked of the port.
    pub fn durable(&mut self, outcome: Durability, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        let pending = *self.pending.take().expect("an answer to a Persist that waits");
        match outcome {
            Durability::Committed => {
                self.announce(&pending, effects);
                if pending
                    .replies
                    .iter()
                    .any(|(_, question)| matches!(question, Question::Posted))
                {
                    self.answer_twins(effects);
                }
            }
            Durability::Fenced(fence) => return self.give_up(pending, fence, effects),
            Durability::DriverBound => self.unaccept(pending, now_ms, effects),
        }
        let is_stored = self.pending.is_none() && self.persisted == self.log.len();
        if !self.closed && self.fold.is_closed() && is_stored {
            self.closed = true;
            effects.push(RequestEffect::Arm { at_ms: None });
            effects.push(RequestEffect::Closed);
        }
        self.drain(now_ms, effects);
    }

    fn drain(&mut self, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        while self.pending.is_none() && !self.is_asking() {
            let Some(event) = self.deferred.pop_front() else { break };
            self.decide(event, now_ms, effects);
        }
    }

    fn is_asking(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.queued)
    }

    fn decide(&mut self, event: RequestEvent, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        debug_assert!(self.pending.is_none());
        if !self.is_asking() {
            // Time first: whatever it ended is stored before the event is looked at, so that everybody is
            // answered from what is durable.
            debug_assert_eq!(self.persisted, self.log.len());
            self.time_out(now_ms, effects);
            if self.persisted < self.log.len() {
                if event != RequestEvent::Timer && !self.hears_the_end(&event) {
                    self.deferred.push_front(event);
                }
                return self.advance(now_ms, effects);
            }
        }
        match event {
            RequestEvent::Reposted { offer, reply } => self.reposted(&offer, reply, now_ms, effects),
            RequestEvent::Misposted { unfit, reply } => {
                let answer = self.repeated().unwrap_or(ApiAnswer::Unfit { unfit });
                effects.push(RequestEffect::Reply { reply, answer });
            }
            RequestEvent::Answered {
                driver_id,
                attempt,
                answer,
                reason,
                asker,
            } => {
                self.answered(&driver_id, attempt, answer, reason, asker, now_ms, effects);
            }
            RequestEvent::Delivered { attempt, driver_id } => self.noted(attempt, &driver_id, false, now_ms, effects),
            RequestEvent::Acked {
                attempt,
                driver_id,
                held: _,
            } => self.noted(attempt, &driver_id, true, now_ms, effects),
            RequestEvent::Refused {
                attempt,
                driver_id,
                reason,
            } => {
                if self.is_open(attempt, &driver_id) {
                    self.push(
                        now_ms,
                        Step::Refused {
                            attempt,
                            driver_id,
                            reason,
                        },
                    );
                }
            }
            RequestEvent::Reserved { driver_id, ask } => self.reserved(driver_id, ask, now_ms, effects),
            RequestEvent::Busy { driver_id, ask } => self.busy(&driver_id, ask, now_ms, effects),
            RequestEvent::Unavailable { driver_id, ask, reason } => self.unavailable(driver_id, ask, reason, now_ms),
            RequestEvent::Cancelled { reason, reply } => self.cancelled(reason, reply, now_ms, effects),
            RequestEvent::TripMoved {
                driver_id,
                trip_id,
                what,
            } => {
                self.trip_moved(driver_id, trip_id, what, now_ms, effects);
            }
            RequestEvent::TripCancelled { reason, reply } => self.trip_cancelled(reason, reply, now_ms, effects),
            RequestEvent::DriverHere {
                driver_id,
                held,
                answer,
            } => self.driver_is_here(driver_id, held, answer, now_ms, effects),
            RequestEvent::Timer => {}
        }
        self.advance(now_ms, effects);
    }

    /// Whether a driver speaks of an offer, held by that driver, that the decision under way ends: it hears the end,
    /// which is the answer.
    fn hears_the_end(&self, event: &RequestEvent) -> bool {
        let (RequestEvent::Answered {
            driver_id,
            attempt: Some(asked),
            answer: Answer::AcceptHeld | Answer::DeclineHeld,
            asker: Asker::Driver,
            ..
        }
        | RequestEvent::Acked {
            driver_id,
            attempt: asked,
            held: true,
        }) = event
        else {
            return false;
        };
        let own = self
            .fold
            .attempt(*asked)
            .is_some_and(|made| made.driver_id == *driver_id);
        let ends = |entry: &LogEntry| matches!(entry.step, Step::TimedOut { attempt } if attempt == *asked);
        own && self.log[self.persisted..].iter().any(ends)
    }

    /// Ends what time has ended: offers, the search, the wait for busy drivers.
    fn time_out(&mut self, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        if self.fold.end.is_some() {
            return;
        }
        let due = |number: &u32| self.fold.attempts[*number as usize - 1].expires_at_ms <= now_ms;
        for attempt in self.fold.open().filter(due).collect::<Vec<_>>() {
            self.push(now_ms, Step::TimedOut { attempt });
        }
        if self.wait_until_ms.is_some_and(|until| until <= now_ms) {
            self.wait_until_ms = None;
            // Not those who are still being asked: they may be free.
            let waited_for = self
                .waiting
                .extract_if(.., |waiting| waiting.queued)
                .collect::<Vec<_>>();
            for Waiting { driver_id, .. } in waited_for {
                effects.push(RequestEffect::Driver {
                    driver_id: driver_id.clone(),
                    message: ToDriver::Release,
                });
                self.refuse(driver_id, RefuseReason::Offered, now_ms);
            }
        }
        if now_ms >= self.fold.deadline_at_ms {
            debug_assert_eq!(self.fold.open_count(), 0, "no offer outlives the deadline");
            self.push(now_ms, Step::Unfulfilled { by_deadline: true });
        }
    }

    /// Goes on with the search as far as it can, persists what was decided, and arms the timer.
    fn advance(&mut self, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        if self.fold.end.is_none() {
            self.search(now_ms, effects);
        }
        if self.fold.end.is_some() {
            self.stop_waiting(effects);
        }
        if self.is_asking() {
            return;
        }
        if self.persisted < self.log.len() {
            let from = self.persisted;
            self.persisted = self.log.len();
            let replies = std::mem::take(&mut self.questions);
            let is_slow = false;
            self.pending = Some(Box::new(Pending { from, replies, is_slow }));
            effects.push(RequestEffect::Persist {
                from,
                to: self.log.len(),
                wait: true,
            });
        }
        if !self.closed {
            effects.push(RequestEffect::Arm {
                at_ms: self.next_time(),
            });
        }
    }

    fn next_time(&self) -> Option<UnixMs> {
        if self.fold.end.is_some() {
            return None;
        }
        let offers = self
            .fold
            .open()
            .map(|number| self.fold.attempts[number as usize - 1].expires_at_ms)
            .min();
        [offers, self.wait_until_ms, Some(self.fold.deadline_at_ms)]
            .into_iter()
            .flatten()
            .min()
    }

    fn push(&mut self, now_ms: UnixMs, step: Step) {
        let at_ms = self.log.last().map_or(now_ms, |last| last.at_ms.max(now_ms));
        let entry = LogEntry { at_ms, step };
        self.fold
            .apply(&entry)
            .expect("a step that the actor decided fits its log");
        self.log.push(entry);
    }

    fn is_open(&self, number: u32, driver_id: &DriverId) -> bool {
        let attempt = self.fold.attempt(number);
        attempt.is_some_and(|attempt| attempt.outcome == Outcome::Open && attempt.driver_id == *driver_id)
    }

    /// The number of this driver's attempt, 0 for none.
    fn attempt_number(&self, driver_id: &DriverId) -> u32 {
        self.fold.attempt_of(driver_id).map_or(0, |(number, _)| number)
    }

    fn trip_id(&self) -> Option<TripId> {
        self.fold.trip.as_ref().map(|trip| trip.trip_id.clone())
    }
}
