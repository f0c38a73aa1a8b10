//! A request's state as the fold of its log of steps, and what its steps mean to others: published events and
//! the drivers' dispatch records. The same code runs when a step is decided, replayed or read from the store.
#![allow(
    missing_docs,
    reason = "rkyv derives resolvers and leaves their fields without documents; our own types all have them"
)]

use super::ids::{DriverId, RequestId, TripId};
use super::types::{
    LogEntry, Priority, Published, PublishedKind, RecordRow, RefuseReason, RequestState, ResponseType, RevokeReason,
    Step, TripOutcome, UnixMs,
};
use rkyv::{Archive, Deserialize, Serialize};
use std::collections::VecDeque;

/// How an attempt stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Outcome {
    /// The driver holds the offer.
    Open,
    /// The driver has the trip.
    Accepted,
    /// The driver said no.
    Declined,
    /// Nobody answered in time.
    TimedOut,
    /// The driver could not be offered.
    Refused(RefuseReason),
    /// Taken back.
    Revoked(RevokeReason),
}

/// One attempt; its number is its place, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who.
    pub driver_id: DriverId,
    /// When the offer was sent, or refused without having been sent.
    pub sent_at_ms: UnixMs,
    /// When it times out.
    pub expires_at_ms: UnixMs,
    /// How it stands.
    pub outcome: Outcome,
    /// Written to the socket.
    pub delivered: bool,
    /// The app has it.
    pub acked: bool,
}

/// Where a trip stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum TripPhase {
    /// On the way to the pickup.
    EnRoute,
    /// Picked up.
    OnTrip,
    /// Over.
    Ended(TripOutcome),
}

/// The trip of an accepted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trip {
    /// Its id.
    pub trip_id: TripId,
    /// Its driver.
    pub driver_id: DriverId,
    /// Where it stands.
    pub phase: TripPhase,
}

/// A log that no gateway writes: damage, or another version's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldError {
    /// `seq` of the step that does not fit.
    pub seq: usize,
    /// Why not.
    pub why: &'static str,
}

impl std::fmt::Display for FoldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {} does not fit the log: {}", self.seq, self.why)
    }
}

impl std::error::Error for FoldError {}

/// Everything the log says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    /// When it was received.
    pub received_at_ms: UnixMs,
    /// Class.
    pub priority: Priority,
    /// End of the search.
    pub deadline_at_ms: UnixMs,
    /// Time a driver has.
    pub offer_timeout_ms: u32,
    /// Most attempts that count.
    pub max_attempts: Option<u32>,
    /// Offers open at once.
    pub parallel: u8,
    /// Longest wait for busy drivers.
    pub busy_wait_ms: u32,
    /// Not tried yet, best first.
    pub candidates: VecDeque<DriverId>,
    /// Tried, in order.
    pub attempts: Vec<Attempt>,
    /// The end of the search, if it is over.
    pub end: Option<RequestState>,
    /// The trip, once accepted.
    pub trip: Option<Trip>,
    /// Asked for new candidates and waiting for them.
    pub exhausted: bool,
    /// Since when there is a place to fill, when [`Self::busy_wait_ms`] is not 0: what a wait for busy drivers counts from.
    pub searching_since_ms: UnixMs,
}

impl Fold {
    /// Folds a whole log.
    ///
    /// # Errors
    /// When the log does not begin with [`Step::Received`] or a step does not fit the ones before it.
    pub fn of(log: &[LogEntry]) -> Result<Self, FoldError> {
        let first = log.first().ok_or(FoldError {
            seq: 1,
            why: "the log is empty",
        })?;
        let mut fold = Self::begin(first)?;
        for (index, entry) in log.iter().enumerate().skip(1) {
            fold.apply(entry).map_err(|why| FoldError { seq: index + 1, why })?;
        }
        Ok(fold)
    }

    /// The state after the first step.
    ///
    /// # Errors
    /// When that is not [`Step::Received`].
    pub fn begin(first: &LogEntry) -> Result<Self, FoldError> {
        let Step::Received {
            priority,
            deadline_at_ms,
            offer_timeout_ms,
            max_attempts,
            parallel,
            busy_wait_ms,
            candidates,
            trip: _,
        } = &first.step
        else {
            return Err(FoldError {
                seq: 1,
                why: "a log begins with REQUEST_RECEIVED",
            });
        };
        Ok(Self {
            received_at_ms: first.at_ms,
            priority: *priority,
            deadline_at_ms: *deadline_at_ms,
            offer_timeout_ms: *offer_timeout_ms,
            max_attempts: *max_attempts,
            parallel: *parallel,
            busy_wait_ms: *busy_wait_ms,
            candidates: candidates.iter().cloned().collect(),
            attempts: Vec::new(),
            end: None,
            trip: None,
            exhausted: false,
            searching_since_ms: first.at_ms,
        })
    }

    /// Adds one step.
    ///
    /// # Errors
    /// Why the step cannot follow the ones before it; the state is then unspecified.
    pub fn apply(&mut self, entry: &LogEntry) -> Result<(), &'static str> {
        match &entry.step {
            Step::Received { .. } => return Err("a second REQUEST_RECEIVED"),
            Step::Redispatched {
                candidates,
                offer_timeout_ms,
                parallel,
                busy_wait_ms,
            } => {
                self.candidates.extend(candidates.iter().cloned());
                self.offer_timeout_ms = offer_timeout_ms.unwrap_or(self.offer_timeout_ms);
                self.parallel = parallel.unwrap_or(self.parallel);
                self.busy_wait_ms = busy_wait_ms.unwrap_or(self.busy_wait_ms);
                self.exhausted = false;
                self.searching_since_ms = entry.at_ms;
            }
            Step::OfferSent {
                attempt,
                driver_id,
                expires_at_ms,
            } => {
                self.try_driver(*attempt, driver_id, entry.at_ms, *expires_at_ms, Outcome::Open)?;
            }
            Step::Refused {
                attempt,
                driver_id,
                reason,
            } => {
                if *attempt as usize == self.attempts.len() + 1 {
                    self.try_driver(*attempt, driver_id, entry.at_ms, entry.at_ms, Outcome::Refused(*reason))?;
                } else {
                    self.close(*attempt, Outcome::Refused(*reason), entry.at_ms)?;
                }
            }
            Step::Delivered { attempt } => self.attempt_mut(*attempt)?.delivered = true,
            Step::Acked { attempt } => self.attempt_mut(*attempt)?.acked = true,
            Step::Accepted { attempt, .. } => {
                self.close(*attempt, Outcome::Accepted, entry.at_ms)?;
                self.finish(RequestState::Accepted)?;
            }
            Step::Declined { attempt, .. } => self.close(*attempt, Outcome::Declined, entry.at_ms)?,
            Step::TimedOut { attempt } => self.close(*attempt, Outcome::TimedOut, entry.at_ms)?,
            Step::Revoked { attempt, reason } => self.close(*attempt, Outcome::Revoked(*reason), entry.at_ms)?,
            Step::Exhausted => self.exhausted = true,
            Step::TripCreated { trip_id, driver_id } => {
                if self.end != Some(RequestState::Accepted) || self.trip.is_some() {
                    return Err("a trip without an acceptance, or a second one");
                }
                self.trip = Some(Trip {
                    trip_id: trip_id.clone(),
                    driver_id: driver_id.clone(),
                    phase: TripPhase::EnRoute,
                });
            }
            Step::PickedUp => self.move_trip(TripPhase::OnTrip)?,
            Step::TripEnded { outcome, .. } => self.move_trip(TripPhase::Ended(*outcome))?,
            Step::Cancelled { .. } => self.finish(RequestState::Cancelled)?,
            Step::Unfulfilled { .. } => self.finish(RequestState::Unfulfilled)?,
        }
        Ok(())
    }

    /// The contract's `state`.
    pub fn state(&self) -> RequestState {
        match self.end {
            Some(end) => end,
            None if self.open_count() > 0 => RequestState::OfferSent,
            None => RequestState::PendingMatch,
        }
    }

    /// Whether nothing can change the request any more.
    pub fn is_closed(&self) -> bool {
        match self.end {
            None => false,
            Some(RequestState::Accepted) => self
                .trip
                .as_ref()
                .is_some_and(|trip| matches!(trip.phase, TripPhase::Ended(_))),
            Some(_) => true,
        }
    }

    /// Numbers of the attempts whose driver holds the offer.
    pub fn open(&self) -> impl Iterator<Item = u32> + '_ {
        self.attempts
            .iter()
            .zip(1..)
            .filter(|(attempt, _)| attempt.outcome == Outcome::Open)
            .map(|(_, number)| number)
    }

    /// How many drivers hold the offer.
    pub fn open_count(&self) -> usize {
        self.open().count()
    }

    /// Attempts that `max_attempts` counts: all but the refused ones.
    pub fn counted(&self) -> usize {
        self.attempts
            .iter()
            .filter(|attempt| !matches!(attempt.outcome, Outcome::Refused(_)))
            .count()
    }

    /// Whether as many drivers hold the offer as may.
    pub fn is_full(&self) -> bool {
        self.open_count() >= usize::from(self.parallel)
    }

    /// Whether no further attempt may be made.
    pub fn is_used_up(&self) -> bool {
        self.max_attempts.is_some_and(|most| self.counted() >= most as usize)
    }

    /// The attempt with this number, from 1.
    pub fn attempt(&self, number: u32) -> Option<&Attempt> {
        self.attempts.get((number as usize).checked_sub(1)?)
    }

    /// The attempt of this driver; there is at most one.
    pub fn attempt_of(&self, driver_id: &DriverId) -> Option<(u32, &Attempt)> {
        let own = |attempt: &Attempt| attempt.driver_id == *driver_id;
        let index = self.attempts.iter().position(own)?;
        Some((index as u32 + 1, &self.attempts[index]))
    }

    /// What the contract's `attempt` and `driver_id` of a request are: the winner's, the first open one's, or
    /// the last number and nobody.
    pub fn current(&self) -> (u32, Option<&DriverId>) {
        let holds = |attempt: &Attempt| matches!(attempt.outcome, Outcome::Accepted | Outcome::Open);
        match self.attempts.iter().position(holds) {
            Some(index) => (index as u32 + 1, Some(&self.attempts[index].driver_id)),
            None => (self.attempts.len() as u32, None),
        }
    }

    /// Drivers whose attempt is over without a trip: declined, timed out, revoked or refused.
    pub fn excluded(&self) -> impl Iterator<Item = &DriverId> {
        let over = |attempt: &&Attempt| !matches!(attempt.outcome, Outcome::Open | Outcome::Accepted);
        self.attempts.iter().filter(over).map(|attempt| &attempt.driver_id)
    }

    fn try_driver(
        &mut self,
        number: u32,
        driver_id: &DriverId,
        at_ms: UnixMs,
        expires_at_ms: UnixMs,
        outcome: Outcome,
    ) -> Result<(), &'static str> {
        if self.end.is_some() {
            return Err("an attempt after the end");
        }
        if number as usize != self.attempts.len() + 1 {
            return Err("attempts count without gaps");
        }
        self.candidates.retain(|candidate| candidate != driver_id);
        self.attempts.push(Attempt {
            driver_id: driver_id.clone(),
            sent_at_ms: at_ms,
            expires_at_ms,
            outcome,
            delivered: false,
            acked: false,
        });
        Ok(())
    }

    fn attempt_mut(&mut self, number: u32) -> Result<&mut Attempt, &'static str> {
        let index = (number as usize).checked_sub(1).ok_or("attempts count from 1")?;
        self.attempts.get_mut(index).ok_or("no such attempt")
    }

    fn close(&mut self, number: u32, outcome: Outcome, at_ms: UnixMs) -> Result<(), &'static str> {
        // Counting takes time that only those who wait need.
        let stood_still = self.busy_wait_ms > 0 && (self.is_full() || self.is_used_up());
        let attempt = self.attempt_mut(number)?;
        if attempt.outcome != Outcome::Open {
            return Err("an attempt ends once");
        }
        attempt.outcome = outcome;
        if stood_still {
            self.searching_since_ms = at_ms;
        }
        Ok(())
    }

    fn finish(&mut self, end: RequestState) -> Result<(), &'static str> {
        if self.end.is_some() {
            return Err("a request ends once");
        }
        self.end = Some(end);
        self.candidates.clear();
        Ok(())
    }

    fn move_trip(&mut self, to: TripPhase) -> Result<(), &'static str> {
        let trip = self.trip.as_mut().ok_or("no trip")?;
        let allowed = matches!(
            (trip.phase, to),
            (TripPhase::EnRoute, TripPhase::OnTrip) | (TripPhase::EnRoute | TripPhase::OnTrip, TripPhase::Ended(_))
        );
        trip.phase = to;
        if allowed {
            Ok(())
        } else {
            Err("a trip goes forward only")
        }
    }
}

/// The caller's trip object, from the first step of a log.
pub fn trip_json(log: &[LogEntry]) -> &str {
    match log.first().map(|entry| &entry.step) {
        Some(Step::Received { trip, .. }) => trip,
        _ => "{}",
    }
}

/// What the steps `log[from..]` publish; `fold` is the state after the whole log, or after more steps than those.
///
/// It is the same whenever it is asked: what is taken from `fold` (the trip, whom an ended request tried) stays as it
/// is from the step on that needs it, and `REDISPATCH_REQUESTED`, whose drivers and attempts do grow with later
/// steps, is made from the log up to its own step. So what the store is told at a commit is what recovery tells it.
///
/// # Panics
/// When the log does not fold.
pub fn published(request_id: &RequestId, log: &[LogEntry], from: usize, fold: &Fold, out: &mut Vec<Published>) {
    for (index, entry) in log.iter().enumerate().skip(from) {
        let trip_ids = || {
            fold.trip
                .as_ref()
                .map(|trip| (trip.trip_id.clone(), trip.driver_id.clone()))
        };
        let kind = match &entry.step {
            Step::Exhausted => {
                let tried = Fold::of(&log[..=index]).expect("a prefix of a good log is good");
                let excluded = tried.excluded().cloned().collect();
                let (attempts, trip) = (tried.attempts.len() as u32, trip_json(log).into());
                Some(PublishedKind::RedispatchRequested {
                    excluded,
                    attempts,
                    trip,
                })
            }
            Step::Unfulfilled { by_deadline } => Some(PublishedKind::RequestUnfulfilled {
                excluded: fold.excluded().cloned().collect(),
                attempts: fold.attempts.len() as u32,
                by_deadline: *by_deadline,
            }),
            Step::Cancelled { reason } => Some(PublishedKind::RequestCancelled { reason: reason.clone() }),
            Step::TripCreated { trip_id, driver_id } => Some(PublishedKind::TripCreated {
                trip_id: trip_id.clone(),
                driver_id: driver_id.clone(),
                trip: trip_json(log).into(),
            }),
            Step::PickedUp => trip_ids().map(|(trip_id, driver_id)| PublishedKind::TripPickedUp { trip_id, driver_id }),
            Step::TripEnded { outcome, .. } => trip_ids().map(|(trip_id, driver_id)| PublishedKind::TripEnded {
                trip_id,
                driver_id,
                outcome: *outcome,
            }),
            Step::Received { .. }
            | Step::Redispatched { .. }
            | Step::OfferSent { .. }
            | Step::Delivered { .. }
            | Step::Acked { .. }
            | Step::Accepted { .. }
            | Step::Declined { .. }
            | Step::TimedOut { .. }
            | Step::Refused { .. }
            | Step::Revoked { .. } => None,
        };
        out.extend(kind.map(|kind| Published {
            request_id: request_id.clone(),
            at_ms: entry.at_ms,
            kind,
        }));
    }
}

/// The dispatch records that the steps `log[from..]` complete; `fold` is the state after the whole log, or after more
/// steps than those: an attempt's driver and time stay, and the trip's id follows from the request.
pub fn rows(request_id: &RequestId, log: &[LogEntry], from: usize, fold: &Fold, out: &mut Vec<RecordRow>) {
    for entry in &log[from..] {
        let (number, response_type) = match &entry.step {
            Step::Accepted { attempt, .. } => (*attempt, ResponseType::Accepted),
            Step::Declined { attempt, .. } => (*attempt, ResponseType::Declined),
            Step::TimedOut { attempt } => (*attempt, ResponseType::Timeout),
            Step::Refused { attempt, .. } => (*attempt, ResponseType::Refused),
            Step::Revoked { attempt, .. } => (*attempt, ResponseType::Revoked),
            Step::Received { .. }
            | Step::Redispatched { .. }
            | Step::OfferSent { .. }
            | Step::Delivered { .. }
            | Step::Acked { .. }
            | Step::Exhausted
            | Step::TripCreated { .. }
            | Step::PickedUp
            | Step::TripEnded { .. }
            | Step::Cancelled { .. }
            | Step::Unfulfilled { .. } => continue,
        };
        let Some(attempt) = fold.attempt(number) else { continue };
        let accepted = response_type == ResponseType::Accepted;
        out.push(RecordRow {
            driver_id: attempt.driver_id.clone(),
            offer_sent_at_ms: attempt.sent_at_ms,
            request_id: request_id.clone(),
            attempt: number,
            trip_id: accepted.then(|| TripId::for_request(request_id, fold.received_at_ms)),
            response_type,
            response_at_ms: entry.at_ms,
        });
    }
}
