//! The request actor: decides, alone, which attempt stands.
//!
//! Events in, effects out. Every decision is a run of [`Step`]s that goes to the durability port with
//! [`RequestEffect::Persist`]; what others may hear of it (offers, answers, outcomes) leaves only on
//! [`Durability::Committed`]. While a decision is on its way to the disk, or a driver is being asked whether it is
//! free, later events wait in `deferred` in the order in which they came.
//!
//! Must never: answer before the commit, change an attempt that is over, or try a driver twice.

use super::fold::{self, Fold, Outcome, TripPhase};
use super::ids::{DriverId, RequestId, TripId};
use super::types::{
    Channel, LogEntry, OfferRequest, Priority, RefuseReason, RequestLog, RequestState, RevokeReason, Step, TripOutcome,
    UnixMs,
};
use std::collections::VecDeque;
use std::sync::Arc;

/// Where an API answer goes; made and understood by the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// Shard that holds the caller's connection.
    pub shard: u16,
    /// The call, as that shard numbers it.
    pub call: u64,
}

/// Who asked, and so who is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// An API call.
    Api(ReplyTo),
    /// The driver's socket.
    Driver,
}

/// A driver's answer to an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Takes it. Not known yet: whether the offer has reached the driver, or ever will.
    Accept,
    /// Takes it, and the driver's home says that the driver holds it.
    AcceptHeld,
    /// Does not.
    Decline,
}

/// What a driver says of its trip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TripMove {
    /// At the pickup.
    Arrived,
    /// On board.
    Pickup,
    /// Done.
    Complete,
    /// Given up.
    Cancel,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum RequestEvent {
    /// The same request again.
    Reposted { offer: Box<OfferRequest>, reply: ReplyTo },
    /// A driver answers; `attempt` is optional over HTTP.
    Answered {
        driver_id: DriverId,
        attempt: Option<u32>,
        answer: Answer,
        reason: Option<Box<str>>,
        asker: Asker,
    },
    /// The offer was written to the socket.
    Delivered { attempt: u32, driver_id: DriverId },
    /// The app has the offer.
    Acked { attempt: u32, driver_id: DriverId },
    /// The driver cannot take the offer of this attempt.
    Refused {
        attempt: u32,
        driver_id: DriverId,
        reason: RefuseReason,
    },
    /// Asked or waited for: the driver is now reserved for this request.
    Reserved { driver_id: DriverId },
    /// Asked: the driver holds an offer of another request.
    Busy { driver_id: DriverId },
    /// Asked or waited for: the driver cannot be had.
    Unavailable { driver_id: DriverId, reason: RefuseReason },
    /// The caller takes it back.
    Cancelled { reason: Option<Box<str>>, reply: ReplyTo },
    /// The driver reports.
    TripMoved {
        driver_id: DriverId,
        trip_id: TripId,
        what: TripMove,
    },
    /// The caller ends the trip.
    TripCancelled { reason: Option<Box<str>>, reply: ReplyTo },
    /// The time that was armed has come.
    Timer,
}

/// The durability port's answers to [`RequestEffect::Persist`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Stored.
    Committed,
    /// Another owner has the request: forget it.
    Fenced,
}

/// Whether an offer was this driver's before a restart of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It is new.
    No,
    /// It was sent, and was perhaps about to be refused.
    Sent,
    /// It had reached the driver's socket, so the driver held it.
    Delivered,
}

/// What the request's driver is told; the shard carries it to the driver's home.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum ToDriver {
    /// Are you free? Be reserved, if so. Answered with `Reserved`, `Busy` or `Unavailable`.
    Ask { priority: Priority },
    /// Be reserved for me when your present offer ends without a trip. Answered with `Reserved` or `Unavailable`.
    Wait { priority: Priority },
    /// I wait no longer, and a reservation without an offer is void.
    Release,
    /// The offer. Answered with `Refused` when the driver is not free.
    Offer {
        attempt: u32,
        priority: Priority,
        expires_at_ms: UnixMs,
        trip: Arc<str>,
        resumed: Resumed,
    },
    /// Somebody says that the driver takes the offer. Answered with [`Answer::AcceptHeld`], after the `Refused` of an
    /// offer that the driver could not be given: so a driver who has another offer or a trip wins nothing.
    Accept { attempt: u32, asker: Asker },
    /// How the attempt stands now: `Accepted`, `Declined`, `TimedOut` or `Revoked`. `again`: only an answer.
    Outcome {
        attempt: u32,
        outcome: Outcome,
        trip_id: Option<TripId>,
        again: bool,
    },
    /// The driver asked about an offer that was never made to it.
    NoSuchOffer,
    /// The trip moved on (or the driver repeated itself, `again`).
    Trip {
        trip_id: TripId,
        phase: TripPhase,
        reason: Option<Box<str>>,
        again: bool,
    },
    /// The driver spoke of a trip that is not its own.
    NoSuchTrip { trip_id: TripId },
    /// After a restart: the driver has this trip.
    Bound { trip_id: TripId, phase: TripPhase },
}

/// What an API caller is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum ApiAnswer {
    /// 202 (`duplicate` false) or 200.
    Offer {
        state: RequestState,
        attempt: u32,
        driver_id: Option<DriverId>,
        duplicate: bool,
    },
    /// 409 `excluded`.
    Excluded {
        state: RequestState,
        excluded: Vec<DriverId>,
    },
    /// 409 `ended`.
    Ended {
        state: RequestState,
        trip_id: Option<TripId>,
    },
    /// 200 of `POST /v1/dispatch/response`.
    Outcome { outcome: Outcome, trip_id: Option<TripId> },
    /// 404 `no_such_offer`.
    NoSuchOffer,
    /// 200 of a cancel.
    Cancelled,
    /// 200 of a trip cancel.
    TripCancelled { trip_id: TripId },
    /// 404 `no_such_trip`.
    NoSuchTrip,
    /// 503 `not_durable`: another owner has the request; whoever asks again finds it.
    Fenced,
}

/// What the shard does for the actor, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are the contract's")]
pub enum RequestEffect {
    /// Store `log[from..to]`; answer with [`Durability`] when `wait`.
    Persist { from: usize, to: usize, wait: bool },
    /// Tell a driver.
    Driver { driver_id: DriverId, message: ToDriver },
    /// Answer a call.
    Reply { reply: ReplyTo, answer: ApiAnswer },
    /// Wake me with [`RequestEvent::Timer`] at this time instead of any earlier one; `None`: never.
    Arm { at_ms: Option<UnixMs> },
    /// Nothing can change any more and all of it is stored.
    Closed,
}

/// A driver who is asked or waited for (`busy_wait_ms`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waiting {
    driver_id: DriverId,
    /// In the driver's queue, rather than being asked.
    queued: bool,
}

/// A decision on its way to the disk.
#[derive(Clone, Debug, Default)]
struct Pending {
    from: usize,
    replies: Vec<(Asker, Question)>,
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
    wait_until_ms: Option<UnixMs>,
    closed: bool,
    /// Another owner has the request: nothing is decided here any more.
    fenced: bool,
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
            wait_until_ms: None,
            closed,
            fenced: false,
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

    /// After a restart, second: what time has ended meanwhile ends, and a search that stood still goes on. A driver
    /// on another shard may have been heard before.
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

    /// Whether nothing can change any more and all of it is stored.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// One event.
    pub fn step(&mut self, event: RequestEvent, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        if self.fenced {
            return turn_away(event, effects);
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
            Durability::Fenced => return self.give_up(pending, effects),
        }
        if !self.closed && self.fold.is_closed() && self.persisted == self.log.len() {
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
                if event != RequestEvent::Timer {
                    self.deferred.push_front(event);
                }
                return self.advance(now_ms, effects);
            }
        }
        match event {
            RequestEvent::Reposted { offer, reply } => self.reposted(&offer, reply, now_ms, effects),
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
            RequestEvent::Acked { attempt, driver_id } => self.noted(attempt, &driver_id, true, now_ms, effects),
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
            RequestEvent::Reserved { driver_id } => self.reserved(driver_id, now_ms, effects),
            RequestEvent::Busy { driver_id } => self.busy(&driver_id, now_ms, effects),
            RequestEvent::Unavailable { driver_id, reason } => self.unavailable(driver_id, reason, now_ms),
            RequestEvent::Cancelled { reason, reply } => self.cancelled(reason, reply, now_ms, effects),
            RequestEvent::TripMoved {
                driver_id,
                trip_id,
                what,
            } => {
                self.trip_moved(driver_id, trip_id, what, now_ms, effects);
            }
            RequestEvent::TripCancelled { reason, reply } => self.trip_cancelled(reason, reply, now_ms, effects),
            RequestEvent::Timer => {}
        }
        self.advance(now_ms, effects);
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

    fn stop_waiting(&mut self, effects: &mut Vec<RequestEffect>) {
        self.wait_until_ms = None;
        for Waiting { driver_id, .. } in std::mem::take(&mut self.waiting) {
            effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::Release,
            });
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
            self.pending = Some(Box::new(Pending { from, replies }));
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

    /// Fills the free places with the next candidates, or says that there are none.
    fn search(&mut self, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        if now_ms >= self.fold.deadline_at_ms {
            return self.time_out(now_ms, effects);
        }
        loop {
            let held = self.fold.open_count() + self.waiting.iter().filter(|waiting| !waiting.queued).count();
            if held >= usize::from(self.fold.parallel) {
                return;
            }
            if self
                .fold
                .max_attempts
                .is_some_and(|most| self.fold.counted() >= most as usize)
            {
                if self.fold.open_count() == 0 {
                    self.push(now_ms, Step::Unfulfilled { by_deadline: false });
                }
                return;
            }
            let untried = |candidate: &&DriverId| !self.waiting.iter().any(|w| w.driver_id == **candidate);
            match self.fold.candidates.iter().find(untried).cloned() {
                Some(driver_id) if self.fold.busy_wait_ms == 0 => self.offer(driver_id, now_ms),
                Some(driver_id) => {
                    let message = ToDriver::Ask {
                        priority: self.fold.priority,
                    };
                    effects.push(RequestEffect::Driver {
                        driver_id: driver_id.clone(),
                        message,
                    });
                    self.waiting.push(Waiting {
                        driver_id,
                        queued: false,
                    });
                }
                None => {
                    if held == 0 && self.waiting.is_empty() && !self.fold.exhausted {
                        self.push(now_ms, Step::Exhausted);
                    }
                    return;
                }
            }
        }
    }

    fn offer(&mut self, driver_id: DriverId, now_ms: UnixMs) {
        let attempt = self.fold.attempts.len() as u32 + 1;
        let expires_at_ms = (now_ms + u64::from(self.fold.offer_timeout_ms)).min(self.fold.deadline_at_ms);
        self.push(
            now_ms,
            Step::OfferSent {
                attempt,
                driver_id,
                expires_at_ms,
            },
        );
    }

    fn refuse(&mut self, driver_id: DriverId, reason: RefuseReason, now_ms: UnixMs) {
        let attempt = self.fold.attempts.len() as u32 + 1;
        self.push(
            now_ms,
            Step::Refused {
                attempt,
                driver_id,
                reason,
            },
        );
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

    fn trip_id(&self) -> Option<TripId> {
        self.fold.trip.as_ref().map(|trip| trip.trip_id.clone())
    }
}

/// Events, one function each.
impl Request {
    fn reposted(&mut self, offer: &OfferRequest, reply: ReplyTo, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        let state = self.fold.state();
        let answer = match state {
            RequestState::OfferSent | RequestState::Accepted => self.duplicate(),
            RequestState::Cancelled | RequestState::Unfulfilled => ApiAnswer::Ended { state, trip_id: None },
            RequestState::PendingMatch => {
                let known = |driver_id: &DriverId| self.fold.candidates.contains(driver_id);
                let candidates: Vec<_> = offer
                    .candidates
                    .iter()
                    .filter(|id| self.is_fresh(id))
                    .cloned()
                    .collect();
                if !candidates.is_empty() {
                    let OfferRequest {
                        offer_timeout_ms,
                        parallel,
                        busy_wait_ms,
                        ..
                    } = *offer;
                    self.push(
                        now_ms,
                        Step::Redispatched {
                            candidates,
                            offer_timeout_ms,
                            parallel,
                            busy_wait_ms,
                        },
                    );
                    self.wait_until_ms = None;
                    self.restart_wait(now_ms);
                    self.questions.push((Asker::Api(reply), Question::Posted));
                    return;
                }
                if offer.candidates.iter().any(known) {
                    self.duplicate()
                } else {
                    ApiAnswer::Excluded {
                        state,
                        excluded: self.fold.excluded().cloned().collect(),
                    }
                }
            }
        };
        effects.push(RequestEffect::Reply { reply, answer });
    }

    /// Neither tried nor a candidate.
    fn is_fresh(&self, driver_id: &DriverId) -> bool {
        !self.fold.candidates.contains(driver_id) && self.fold.attempt_of(driver_id).is_none()
    }

    fn duplicate(&self) -> ApiAnswer {
        let (attempt, driver_id) = self.fold.current();
        ApiAnswer::Offer {
            state: self.fold.state(),
            attempt,
            driver_id: driver_id.cloned(),
            duplicate: true,
        }
    }

    /// Drivers that are still waited for get the (possibly new) wait from now on.
    fn restart_wait(&mut self, now_ms: UnixMs) {
        if !self.waiting.is_empty() {
            self.wait_until_ms = Some(now_ms + u64::from(self.fold.busy_wait_ms));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one event")]
    fn answered(
        &mut self,
        driver_id: &DriverId,
        attempt: Option<u32>,
        answer: Answer,
        reason: Option<Box<str>>,
        asker: Asker,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        let found = self
            .fold
            .attempt_of(driver_id)
            .filter(|(number, _)| attempt.is_none_or(|asked| asked == *number));
        let Some((number, outcome)) = found.map(|(number, attempt)| (number, attempt.outcome)) else {
            return no_such_offer(driver_id, asker, effects);
        };
        let channel = match asker {
            Asker::Api(_) => Channel::Http,
            Asker::Driver => Channel::WebSocket,
        };
        match (outcome, answer) {
            (Outcome::Open, Answer::Accept) => {
                let attempt = number;
                effects.push(RequestEffect::Driver {
                    driver_id: driver_id.clone(),
                    message: ToDriver::Accept { attempt, asker },
                });
            }
            (Outcome::Open, Answer::AcceptHeld) => {
                let rivals: Vec<_> = self.fold.open().filter(|rival| *rival != number).collect();
                self.push(
                    now_ms,
                    Step::Accepted {
                        attempt: number,
                        channel,
                    },
                );
                for attempt in rivals {
                    self.push(
                        now_ms,
                        Step::Revoked {
                            attempt,
                            reason: RevokeReason::Taken,
                        },
                    );
                }
                let trip_id = TripId::for_request(&self.id, self.fold.received_at_ms);
                self.push(
                    now_ms,
                    Step::TripCreated {
                        trip_id,
                        driver_id: driver_id.clone(),
                    },
                );
                self.questions.push((asker, Question::Answered { attempt: number }));
            }
            (Outcome::Open, Answer::Decline) => {
                self.push(
                    now_ms,
                    Step::Declined {
                        attempt: number,
                        channel,
                        reason,
                    },
                );
                self.questions.push((asker, Question::Answered { attempt: number }));
            }
            (Outcome::Refused(_), _) => no_such_offer(driver_id, asker, effects),
            (Outcome::Declined, Answer::Accept | Answer::AcceptHeld) => {
                self.outcome(
                    number,
                    driver_id,
                    Outcome::Revoked(RevokeReason::Superseded),
                    asker,
                    effects,
                );
            }
            (over, _) => self.outcome(number, driver_id, over, asker, effects),
        }
    }

    fn outcome(
        &self,
        attempt: u32,
        driver_id: &DriverId,
        outcome: Outcome,
        asker: Asker,
        effects: &mut Vec<RequestEffect>,
    ) {
        let trip_id = if outcome == Outcome::Accepted {
            self.trip_id()
        } else {
            None
        };
        effects.push(match asker {
            Asker::Api(reply) => RequestEffect::Reply {
                reply,
                answer: ApiAnswer::Outcome { outcome, trip_id },
            },
            Asker::Driver => RequestEffect::Driver {
                driver_id: driver_id.clone(),
                message: ToDriver::Outcome {
                    attempt,
                    outcome,
                    trip_id,
                    again: true,
                },
            },
        });
    }

    fn noted(
        &mut self,
        attempt: u32,
        driver_id: &DriverId,
        acked: bool,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        let Some(made) = self.fold.attempt(attempt).filter(|made| made.driver_id == *driver_id) else {
            // The app is told, since it believes in an offer that does not exist.
            if acked {
                no_such_offer(driver_id, Asker::Driver, effects);
            }
            return;
        };
        let outcome = made.outcome;
        if outcome != Outcome::Open {
            if acked {
                self.answered(
                    driver_id,
                    Some(attempt),
                    Answer::Decline,
                    None,
                    Asker::Driver,
                    now_ms,
                    effects,
                );
            }
            return;
        }
        if if acked { made.acked } else { made.delivered } {
            return;
        }
        self.push(
            now_ms,
            if acked {
                Step::Acked { attempt }
            } else {
                Step::Delivered { attempt }
            },
        );
        let from = self.persisted;
        self.persisted = self.log.len();
        effects.push(RequestEffect::Persist {
            from,
            to: self.log.len(),
            wait: false,
        });
    }

    fn reserved(&mut self, driver_id: DriverId, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        if !self.wait_is_over(&driver_id) {
            return effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::Release,
            });
        }
        let full = self.fold.open_count() >= usize::from(self.fold.parallel);
        let used_up = self
            .fold
            .max_attempts
            .is_some_and(|most| self.fold.counted() >= most as usize);
        if self.fold.end.is_some() || full || used_up || now_ms >= self.fold.deadline_at_ms {
            return effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::Release,
            });
        }
        self.offer(driver_id, now_ms);
        if self.fold.open_count() >= usize::from(self.fold.parallel) {
            // Those still waited for stay candidates, for the case that this offer comes to nothing.
            self.stop_waiting(effects);
        }
    }

    fn busy(&mut self, driver_id: &DriverId, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.driver_id == *driver_id) else {
            return;
        };
        let until_ms = *self
            .wait_until_ms
            .get_or_insert(now_ms + u64::from(self.fold.busy_wait_ms));
        if until_ms <= now_ms {
            self.waiting.remove(index);
            return self.refuse(driver_id.clone(), RefuseReason::Offered, now_ms);
        }
        self.waiting[index].queued = true;
        let message = ToDriver::Wait {
            priority: self.fold.priority,
        };
        effects.push(RequestEffect::Driver {
            driver_id: driver_id.clone(),
            message,
        });
    }

    fn unavailable(&mut self, driver_id: DriverId, reason: RefuseReason, now_ms: UnixMs) {
        if self.wait_is_over(&driver_id) {
            self.refuse(driver_id, reason, now_ms);
        }
    }

    /// The answer of a driver who is asked or waited for has come; says whether it is one. A later wait begins anew.
    fn wait_is_over(&mut self, driver_id: &DriverId) -> bool {
        let Some(index) = self.waiting.iter().position(|waiting| waiting.driver_id == *driver_id) else {
            return false;
        };
        self.waiting.remove(index);
        if !self.waiting.iter().any(|waiting| waiting.queued) {
            self.wait_until_ms = None;
        }
        true
    }

    fn cancelled(
        &mut self,
        reason: Option<Box<str>>,
        reply: ReplyTo,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        match self.fold.end {
            None => {
                for attempt in self.fold.open().collect::<Vec<_>>() {
                    self.push(
                        now_ms,
                        Step::Revoked {
                            attempt,
                            reason: RevokeReason::Cancelled,
                        },
                    );
                }
                self.push(now_ms, Step::Cancelled { reason });
                self.questions.push((Asker::Api(reply), Question::Cancelled));
            }
            Some(end) => effects.push(RequestEffect::Reply {
                reply,
                answer: self.cancel_answer(end),
            }),
        }
    }

    fn cancel_answer(&self, state: RequestState) -> ApiAnswer {
        match state {
            RequestState::Cancelled => ApiAnswer::Cancelled,
            _ => ApiAnswer::Ended {
                state,
                trip_id: self.trip_id(),
            },
        }
    }

    fn trip_moved(
        &mut self,
        driver_id: DriverId,
        trip_id: TripId,
        what: TripMove,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        let own = |trip: &&fold::Trip| trip.trip_id == trip_id && trip.driver_id == driver_id;
        let Some(phase) = self.fold.trip.as_ref().filter(own).map(|trip| trip.phase) else {
            return effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::NoSuchTrip { trip_id },
            });
        };
        let ended = |outcome| Some(Step::TripEnded { outcome, reason: None });
        let step = match (phase, what) {
            (TripPhase::EnRoute, TripMove::Pickup) => Some(Step::PickedUp),
            (TripPhase::EnRoute | TripPhase::OnTrip, TripMove::Complete) => ended(TripOutcome::Completed),
            (TripPhase::EnRoute | TripPhase::OnTrip, TripMove::Cancel) => ended(TripOutcome::CancelledByDriver),
            // Changes no state, so there is nothing to tell.
            (TripPhase::EnRoute | TripPhase::OnTrip | TripPhase::Ended(_), TripMove::Arrived) => return,
            (TripPhase::OnTrip | TripPhase::Ended(_), TripMove::Pickup)
            | (TripPhase::Ended(_), TripMove::Complete | TripMove::Cancel) => None,
        };
        match step {
            Some(step) => self.push(now_ms, step),
            None => effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::Trip {
                    trip_id,
                    phase,
                    reason: None,
                    again: true,
                },
            }),
        }
    }

    fn trip_cancelled(
        &mut self,
        reason: Option<Box<str>>,
        reply: ReplyTo,
        now_ms: UnixMs,
        effects: &mut Vec<RequestEffect>,
    ) {
        let answer = match self.fold.trip.as_ref().map(|trip| trip.phase) {
            None => ApiAnswer::NoSuchTrip,
            Some(TripPhase::Ended(_)) => ApiAnswer::Ended {
                state: self.fold.state(),
                trip_id: self.trip_id(),
            },
            Some(TripPhase::EnRoute | TripPhase::OnTrip) => {
                self.push(
                    now_ms,
                    Step::TripEnded {
                        outcome: TripOutcome::Cancelled,
                        reason,
                    },
                );
                return self.questions.push((Asker::Api(reply), Question::TripCancelled));
            }
        };
        effects.push(RequestEffect::Reply { reply, answer });
    }
}

/// After the commit: everybody hears.
impl Request {
    fn announce(&mut self, pending: &Pending, effects: &mut Vec<RequestEffect>) {
        for (asker, question) in &pending.replies {
            // The driver needs no answer of its own: it hears the step.
            if let (Asker::Api(reply), Some(answer)) = (asker, self.reply_to(question, pending.from)) {
                effects.push(RequestEffect::Reply { reply: *reply, answer });
            }
        }
        for index in pending.from..self.log.len() {
            self.announce_step(index, effects);
        }
    }

    /// Of several `POST`s at once one is 202: those that came while it was decided and bring nobody new are repeats
    /// of it, also when all its drivers have refused meanwhile.
    fn answer_twins(&mut self, effects: &mut Vec<RequestEffect>) {
        if self.fold.state() != RequestState::PendingMatch {
            return;
        }
        for event in std::mem::take(&mut self.deferred) {
            match event {
                RequestEvent::Reposted { offer, reply } if !offer.candidates.iter().any(|id| self.is_fresh(id)) => {
                    let answer = self.duplicate();
                    effects.push(RequestEffect::Reply { reply, answer });
                }
                other => self.deferred.push_back(other),
            }
        }
    }

    fn reply_to(&self, question: &Question, from: usize) -> Option<ApiAnswer> {
        match question {
            Question::Posted => {
                // The first attempt of this POST, also when that attempt was refused meanwhile.
                let sent = self.log[from..].iter().find_map(|entry| match &entry.step {
                    Step::OfferSent { attempt, driver_id, .. } => Some((*attempt, Some(driver_id.clone()))),
                    _ => None,
                });
                let (attempt, driver_id) = sent.unwrap_or((self.fold.attempts.len() as u32, None));
                Some(ApiAnswer::Offer {
                    state: self.fold.state(),
                    attempt,
                    driver_id,
                    duplicate: false,
                })
            }
            Question::Answered { attempt } => {
                let outcome = self.fold.attempt(*attempt)?.outcome;
                let trip_id = if outcome == Outcome::Accepted {
                    self.trip_id()
                } else {
                    None
                };
                Some(ApiAnswer::Outcome { outcome, trip_id })
            }
            Question::Cancelled => Some(self.cancel_answer(self.fold.state())),
            Question::TripCancelled => Some(ApiAnswer::TripCancelled {
                trip_id: self.trip_id()?,
            }),
        }
    }

    fn announce_step(&self, index: usize, effects: &mut Vec<RequestEffect>) {
        match &self.log[index].step {
            Step::OfferSent { attempt, driver_id, .. } => {
                if self.is_open(*attempt, driver_id) {
                    self.send_offer(*attempt, Resumed::No, effects);
                } else {
                    // Its time ended while others were still asked: the driver was reserved and never offered.
                    let (driver_id, message) = (driver_id.clone(), ToDriver::Release);
                    effects.push(RequestEffect::Driver { driver_id, message });
                }
            }
            Step::Accepted { attempt, .. }
            | Step::Declined { attempt, .. }
            | Step::TimedOut { attempt }
            | Step::Revoked { attempt, .. } => {
                let made = &self.fold.attempts[*attempt as usize - 1];
                let trip_id = if made.outcome == Outcome::Accepted {
                    Some(TripId::for_request(&self.id, self.fold.received_at_ms))
                } else {
                    None
                };
                effects.push(RequestEffect::Driver {
                    driver_id: made.driver_id.clone(),
                    message: ToDriver::Outcome {
                        attempt: *attempt,
                        outcome: made.outcome,
                        trip_id,
                        again: false,
                    },
                });
            }
            Step::Refused { attempt, driver_id, .. } => {
                debug_assert!(
                    self.fold
                        .attempt(*attempt)
                        .is_some_and(|made| made.driver_id == *driver_id)
                );
            }
            Step::PickedUp => self.announce_trip(None, effects),
            Step::TripEnded { reason, .. } => self.announce_trip(reason.clone(), effects),
            Step::Received { .. }
            | Step::Redispatched { .. }
            | Step::Delivered { .. }
            | Step::Acked { .. }
            | Step::Exhausted
            | Step::TripCreated { .. }
            | Step::Cancelled { .. }
            | Step::Unfulfilled { .. } => {}
        }
    }

    fn announce_trip(&self, reason: Option<Box<str>>, effects: &mut Vec<RequestEffect>) {
        let Some(trip) = &self.fold.trip else { return };
        let message = ToDriver::Trip {
            trip_id: trip.trip_id.clone(),
            phase: trip.phase,
            reason,
            again: false,
        };
        effects.push(RequestEffect::Driver {
            driver_id: trip.driver_id.clone(),
            message,
        });
    }

    fn send_offer(&self, number: u32, resumed: Resumed, effects: &mut Vec<RequestEffect>) {
        let made = &self.fold.attempts[number as usize - 1];
        let message = ToDriver::Offer {
            attempt: number,
            priority: self.fold.priority,
            expires_at_ms: made.expires_at_ms,
            trip: fold::trip_json(&self.log).into(),
            resumed,
        };
        effects.push(RequestEffect::Driver {
            driver_id: made.driver_id.clone(),
            message,
        });
    }

    /// Another owner has the request: what this one still holds out is void, and what it decided last never was.
    fn give_up(&mut self, pending: Pending, effects: &mut Vec<RequestEffect>) {
        debug_assert!(!self.fenced && self.pending.is_none());
        for (asker, _) in pending.replies {
            answer_fenced(asker, effects);
        }
        for entry in &self.log[pending.from..] {
            // Reserved perhaps, but never offered.
            if let Step::OfferSent { driver_id, .. } = &entry.step {
                let (driver_id, message) = (driver_id.clone(), ToDriver::Release);
                effects.push(RequestEffect::Driver { driver_id, message });
            }
        }
        if pending.from > 0 {
            self.log.truncate(pending.from);
            self.persisted = pending.from;
            self.fold = Fold::of(&self.log).expect("a prefix of a good log is good");
            for number in self.fold.open() {
                let driver_id = self.fold.attempts[number as usize - 1].driver_id.clone();
                let message = ToDriver::Outcome {
                    attempt: number,
                    outcome: Outcome::Revoked(RevokeReason::Superseded),
                    trip_id: None,
                    again: false,
                };
                effects.push(RequestEffect::Driver { driver_id, message });
            }
        }
        self.stop_waiting(effects);
        for event in std::mem::take(&mut self.deferred) {
            turn_away(event, effects);
        }
        self.fenced = true;
        self.closed = true;
        effects.push(RequestEffect::Arm { at_ms: None });
        effects.push(RequestEffect::Closed);
    }
}

/// An event of a request that another owner has.
fn turn_away(event: RequestEvent, effects: &mut Vec<RequestEffect>) {
    match event {
        RequestEvent::Reposted { reply, .. }
        | RequestEvent::Cancelled { reply, .. }
        | RequestEvent::TripCancelled { reply, .. } => answer_fenced(Asker::Api(reply), effects),
        RequestEvent::Answered { asker, .. } => answer_fenced(asker, effects),
        RequestEvent::Reserved { driver_id } => {
            let message = ToDriver::Release;
            effects.push(RequestEffect::Driver { driver_id, message });
        }
        RequestEvent::Delivered { .. }
        | RequestEvent::Acked { .. }
        | RequestEvent::Refused { .. }
        | RequestEvent::Busy { .. }
        | RequestEvent::Unavailable { .. }
        | RequestEvent::TripMoved { .. }
        | RequestEvent::Timer => {}
    }
}

/// A driver asks again when it hears nothing, and asks the owner then.
fn answer_fenced(asker: Asker, effects: &mut Vec<RequestEffect>) {
    if let Asker::Api(reply) = asker {
        let answer = ApiAnswer::Fenced;
        effects.push(RequestEffect::Reply { reply, answer });
    }
}

fn no_such_offer(driver_id: &DriverId, asker: Asker, effects: &mut Vec<RequestEffect>) {
    effects.push(match asker {
        Asker::Api(reply) => RequestEffect::Reply {
            reply,
            answer: ApiAnswer::NoSuchOffer,
        },
        Asker::Driver => RequestEffect::Driver {
            driver_id: driver_id.clone(),
            message: ToDriver::NoSuchOffer,
        },
    });
}
