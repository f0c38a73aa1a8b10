//! Audits: whether a request can have such a life.

mod taken;
mod waits;

pub(super) use taken::take;
use waits::Rest;

use super::state::ways;
use crate::codec::audit::{Audit, Entry, Why};
use crate::ids::{Driver, Trip};
use crate::phrases::{NO_REASON, Reason};
use crate::words::{Revoke, State, Step, TripEnd};

/// An attempt, as an audit tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Whose.
    pub driver: Driver,
    /// When the offer was sent, or refused without having been sent.
    pub sent_at_ms: u64,
    /// When it ends; 0: never sent.
    pub expires_at_ms: u64,
    /// When it reached the socket.
    pub delivered_at_ms: Option<u64>,
    /// The app said that it has it.
    pub acked: bool,
    /// How it ended (one of [`ways`]), `OPEN` if it has not.
    pub way: u8,
    /// When.
    pub ended_at_ms: u64,
    /// An answer came by the socket.
    pub by_socket: bool,
}

/// A request's life, as an audit tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Attempts, the first one first.
    pub tried: Vec<Tried>,
    /// Its end, and when.
    pub end: Option<(State, u64)>,
    /// The trip: its id, driver, begin, pickup, end and how.
    pub trip: Option<TripLife>,
    /// Why it was cancelled.
    pub cancel_reason: Reason,
    /// Waits for new candidates.
    pub exhausted: bool,
    /// Times that new candidates came.
    pub redispatched: u32,
    /// When it was received.
    pub received_at_ms: u64,
    /// End of the search.
    pub deadline_at_ms: u64,
    offer_timeout_ms: u64,
    max_attempts: Option<u64>,
    parallel: u64,
    /// Longest wait for busy drivers.
    pub busy_wait_ms: u64,
    /// It asked for such a wait at some time, so that it may have reserved a driver without offering anything to it.
    pub asks_first: bool,
    /// Refusals of drivers who were busy, without an offer: when each was to come at the latest, and when it came.
    pub waited: Vec<(u64, u64)>,
    /// Offers of one that asks its drivers first, which were refused since these were busy: when they were sent, and refused.
    pub asked_in_vain: Vec<(u64, u64)>,
    /// Times in which nobody held the offer of one that asks its drivers first, and somebody was left.
    pub rests: Vec<Rest>,
    /// Since when it looks for drivers, or waits for busy ones.
    searching_since_ms: u64,
    /// No wait of it began before this.
    waits_since_ms: u64,
    candidates: Vec<Driver>,
    /// What must follow at once: the rest of an acceptance or a cancellation.
    owed: Vec<Owed>,
    /// Steps may be shown with later times than they had.
    may_be_late: bool,
}

/// A trip, as an audit tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripLife {
    /// Which.
    pub trip: Trip,
    /// Whose.
    pub driver: Driver,
    /// When it began.
    pub created_at_ms: u64,
    /// When somebody was on board.
    pub picked_up_at_ms: Option<u64>,
    /// When and how it ended.
    pub ended: Option<(u64, TripEnd)>,
    /// Why it was cancelled.
    pub reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Owed {
    Revoked(u32, Revoke),
    TripCreated(u32),
}

impl Life {
    /// Reads a whole audit.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn of(audit: &Audit) -> Result<Self, String> {
        Self::default().lived(audit)
    }

    /// Reads a whole audit of a fleet.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn of_fleet(audit: &Audit) -> Result<Self, String> {
        let life = Self {
            may_be_late: true,
            ..Self::default()
        };
        life.lived(audit)
    }

    fn lived(self, audit: &Audit) -> Result<Self, String> {
        let mut life = self;
        let mut last_ms = 0;
        for (index, entry) in audit.entries.iter().enumerate() {
            if entry.at_ms < last_ms {
                return Err(format!("at_ms falls at seq {}", index + 1));
            }
            if index > 0 && entry.at_ms > last_ms {
                life.rests(last_ms)
                    .map_err(|why| format!("before seq {}: {why}", index + 1))?;
                life.rested(last_ms, entry.at_ms);
            }
            last_ms = entry.at_ms;
            if (index == 0) != (entry.step == Step::Received) {
                return Err("REQUEST_RECEIVED is the first, and only the first".to_owned());
            }
            life.apply(entry)
                .map_err(|why| format!("seq {} {}: {why}", index + 1, entry.step.as_str()))?;
        }
        if !life.owed.is_empty() {
            return Err(format!("the last events lack {:?}", life.owed));
        }
        life.rests(last_ms).map_err(|why| format!("at the end: {why}"))?;
        if audit.state != life.state() {
            return Err(format!(
                "it says {} and is {}",
                audit.state.as_str(),
                life.state().as_str()
            ));
        }
        Ok(life)
    }

    /// The state that the events lead to.
    pub fn state(&self) -> State {
        match self.end {
            Some((end, _)) => end,
            None if self.open() > 0 => State::OfferSent,
            None => State::PendingMatch,
        }
    }

    fn open(&self) -> u64 {
        self.tried.iter().filter(|tried| tried.way == ways::OPEN).count() as u64
    }

    /// Attempts that `max_attempts` counts.
    fn counted(&self) -> u64 {
        self.tried.iter().filter(|tried| tried.way != ways::REFUSED).count() as u64
    }

    fn is_tried(&self, driver: Driver) -> bool {
        self.tried.iter().any(|tried| tried.driver == driver)
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), String> {
        self.pay(entry)?;
        if self.end.is_some()
            && !matches!(
                entry.step,
                Step::TripCreated | Step::PickedUp | Step::TripEnded | Step::Revoked
            )
        {
            return Err("after the end".to_owned());
        }
        match entry.step {
            Step::Received | Step::Redispatched => self.asked(entry),
            Step::OfferSent => self.sent(entry),
            Step::Delivered => {
                let at_ms = entry.at_ms;
                let tried = self.held(entry)?;
                match tried.delivered_at_ms.replace(at_ms) {
                    None => Ok(()),
                    Some(_) => Err("delivered twice".to_owned()),
                }
            }
            Step::Acked => {
                let tried = self.held(entry)?;
                if std::mem::replace(&mut tried.acked, true) {
                    Err("acknowledged twice".to_owned())
                } else {
                    Ok(())
                }
            }
            Step::Accepted => self.accepted(entry),
            Step::Declined => self.over(entry, ways::DECLINED),
            Step::TimedOut => {
                if self.held(entry)?.expires_at_ms > entry.at_ms {
                    return Err("before its time".to_owned());
                }
                self.over(entry, ways::TIMED_OUT)
            }
            Step::Refused => self.refused(entry),
            Step::Revoked => self.revoked(entry),
            Step::Exhausted => self.exhaust(),
            Step::TripCreated => self.trip_created(entry),
            Step::PickedUp => match &mut self.trip {
                Some(trip) if trip.picked_up_at_ms.is_none() && trip.ended.is_none() => {
                    trip.picked_up_at_ms = Some(entry.at_ms);
                    Ok(())
                }
                _ => Err("no trip that could be picked up".to_owned()),
            },
            Step::TripEnded => match (&mut self.trip, entry.outcome) {
                (Some(trip), Some(outcome)) if trip.ended.is_none() => {
                    trip.ended = Some((entry.at_ms, outcome));
                    trip.reason = entry.why.reason();
                    Ok(())
                }
                _ => Err("no trip that could end".to_owned()),
            },
            Step::Cancelled => {
                self.cancel_reason = entry.why.reason();
                self.finish(entry, State::Cancelled)
            }
            Step::Unfulfilled => self.unfulfilled(entry),
        }
    }

    /// Between two decisions nothing is left undone: what follows from a step is decided with it (protocol.md, section 3: "go on to the
    /// next candidate at once"). Not known of one that asks its drivers first.
    fn rests(&self, at_ms: u64) -> Result<(), String> {
        if self.end.is_some() || self.asks_first || at_ms >= self.deadline_at_ms {
            return Ok(());
        }
        match self.open() {
            0 if self.is_used_up() => Err("attempts are used up, and it has not ended".to_owned()),
            0 if self.candidates.is_empty() && !self.exhausted => {
                Err("nobody is left, and it does not say so".to_owned())
            }
            open if open < self.parallel && !self.candidates.is_empty() && !self.is_used_up() => {
                Err(format!("{open} of {} hold the offer, and more could", self.parallel))
            }
            _ => Ok(()),
        }
    }

    fn is_used_up(&self) -> bool {
        self.max_attempts.is_some_and(|most| self.counted() >= most)
    }

    /// What an acceptance owes comes right after it.
    fn pay(&mut self, entry: &Entry) -> Result<(), String> {
        let Some(owed) = self.owed.pop() else { return Ok(()) };
        let paid = match &owed {
            Owed::Revoked(attempt, reason) => {
                entry.step == Step::Revoked && entry.attempt == *attempt && entry.why == Why::Revoked(*reason)
            }
            Owed::TripCreated(attempt) => entry.step == Step::TripCreated && entry.attempt == *attempt,
        };
        if paid {
            Ok(())
        } else {
            Err(format!("{owed:?} belongs here"))
        }
    }

    fn held(&mut self, entry: &Entry) -> Result<&mut Tried, String> {
        let index = (entry.attempt as usize).wrapping_sub(1);
        let tried = self.tried.get_mut(index).ok_or("no such attempt")?;
        if tried.way != ways::OPEN {
            return Err(format!("attempt {} is over", entry.attempt));
        }
        if entry.driver != Some(tried.driver) {
            return Err(format!("attempt {} is d{}'s", entry.attempt, tried.driver));
        }
        Ok(tried)
    }

    fn over(&mut self, entry: &Entry, way: u8) -> Result<(), String> {
        let (at_ms, by_socket) = (entry.at_ms, entry.by_socket);
        if self.open() >= self.parallel {
            self.waits_since_ms = at_ms; // Nobody is waited for while as many hold the offer as may.
        }
        let tried = self.held(entry)?;
        tried.way = way;
        tried.ended_at_ms = at_ms;
        tried.by_socket = by_socket;
        self.searching_since_ms = at_ms;
        Ok(())
    }

    fn asked(&mut self, entry: &Entry) -> Result<(), String> {
        let asked = entry.asked.as_deref().ok_or("no detail")?;
        if entry.step == Step::Received {
            let (Some(timeout), Some(parallel), Some(wait)) =
                (asked.offer_timeout_ms, asked.parallel, asked.busy_wait_ms)
            else {
                return Err("a detail that lacks something".to_owned());
            };
            self.received_at_ms = entry.at_ms;
            self.deadline_at_ms = asked.deadline_at_ms;
            self.max_attempts = asked.max_attempts;
            (self.offer_timeout_ms, self.parallel, self.busy_wait_ms) = (timeout, parallel, wait);
        } else {
            if self.open() > 0 {
                return Err("while somebody holds the offer".to_owned());
            }
            self.redispatched += 1;
            self.offer_timeout_ms = asked.offer_timeout_ms.unwrap_or(self.offer_timeout_ms);
            self.parallel = asked.parallel.unwrap_or(self.parallel);
            self.busy_wait_ms = asked.busy_wait_ms.unwrap_or(self.busy_wait_ms);
        }
        self.asks_first |= self.busy_wait_ms > 0;
        (self.searching_since_ms, self.waits_since_ms) = (entry.at_ms, entry.at_ms);
        for driver in &asked.candidates {
            if self.is_tried(*driver) || self.candidates.contains(driver) {
                return Err(format!("d{driver} is no new candidate"));
            }
        }
        self.candidates.extend(&asked.candidates);
        self.exhausted = false;
        Ok(())
    }

    /// A driver is tried: the next number, a candidate, the best one unless some are, or may have been, waited for.
    fn try_next(&mut self, entry: &Entry, way: u8) -> Result<(), String> {
        let driver = entry.driver.ok_or("no driver")?;
        if entry.attempt as usize != self.tried.len() + 1 {
            return Err(format!("attempt {} after {}", entry.attempt, self.tried.len()));
        }
        let place = self.candidates.iter().position(|candidate| *candidate == driver);
        match place {
            None => return Err(format!("d{driver} is no candidate")),
            Some(place) if place > 0 && !self.asks_first => {
                return Err(format!("d{driver} before d{}", self.candidates[0]));
            }
            Some(place) => {
                self.candidates.remove(place);
            }
        }
        self.tried.push(Tried {
            driver,
            sent_at_ms: entry.at_ms,
            expires_at_ms: entry.expires_at_ms,
            delivered_at_ms: None,
            acked: false,
            way,
            ended_at_ms: entry.at_ms,
            by_socket: false,
        });
        Ok(())
    }

    fn sent(&mut self, entry: &Entry) -> Result<(), String> {
        let expires_at_ms = (entry.at_ms + self.offer_timeout_ms).min(self.deadline_at_ms);
        // In a fleet it may be shown as sent later than it was: times never fall, whoever noted what comes before it.
        let fits = entry.expires_at_ms == expires_at_ms || (self.may_be_late && entry.expires_at_ms < expires_at_ms);
        if !fits || (entry.at_ms >= self.deadline_at_ms && !self.may_be_late) {
            return Err(format!("expires at {} and not at {expires_at_ms}", entry.expires_at_ms));
        }
        if self.open() >= self.parallel {
            return Err("more offers at once than asked for".to_owned());
        }
        if self.is_used_up() {
            return Err("more attempts than asked for".to_owned());
        }
        self.try_next(entry, ways::OPEN)
    }

    fn refused(&mut self, entry: &Entry) -> Result<(), String> {
        if entry.attempt as usize == self.tried.len() + 1 {
            if entry.why == Why::Offered && self.busy_wait_ms > 0 {
                self.has_waited(entry.at_ms)?;
            }
            return self.try_next(entry, ways::REFUSED);
        }
        if entry.why == Why::Offered && self.busy_wait_ms > 0 {
            let sent_at_ms = self.held(entry)?.sent_at_ms;
            self.asked_in_vain.push((sent_at_ms, entry.at_ms));
        }
        self.over(entry, ways::REFUSED)
    }

    fn accepted(&mut self, entry: &Entry) -> Result<(), String> {
        if self.held(entry)?.expires_at_ms <= entry.at_ms {
            return Err("after its time was over".to_owned());
        }
        self.over(entry, ways::ACCEPTED)?;
        self.owed.push(Owed::TripCreated(entry.attempt));
        for (index, tried) in self.tried.iter().enumerate().rev() {
            if tried.way == ways::OPEN {
                self.owed.push(Owed::Revoked(index as u32 + 1, Revoke::Taken));
            }
        }
        self.end = Some((State::Accepted, entry.at_ms));
        Ok(())
    }

    fn revoked(&mut self, entry: &Entry) -> Result<(), String> {
        let way = match entry.why {
            Why::Revoked(Revoke::Taken) if self.end.is_some() => ways::TAKEN,
            Why::Revoked(Revoke::Cancelled) if self.end.is_none() => ways::CANCELLED,
            // Its driver had another trip, as a fleet finds when it binds the driver.
            Why::Revoked(Revoke::Superseded) if self.end.is_none() => ways::SUPERSEDED,
            _ => return Err("for no reason".to_owned()),
        };
        self.over(entry, way)
    }

    fn exhaust(&mut self) -> Result<(), String> {
        if self.open() > 0 || !self.candidates.is_empty() || self.exhausted {
            return Err("somebody is left".to_owned());
        }
        if self.is_used_up() {
            return Err("attempts are used up, which wins".to_owned());
        }
        self.exhausted = true;
        Ok(())
    }

    fn finish(&mut self, entry: &Entry, end: State) -> Result<(), String> {
        if self.open() > 0 {
            return Err("while somebody holds the offer".to_owned());
        }
        self.end = Some((end, entry.at_ms));
        Ok(())
    }

    fn unfulfilled(&mut self, entry: &Entry) -> Result<(), String> {
        let ok = match entry.why {
            Why::Deadline => entry.at_ms >= self.deadline_at_ms,
            Why::Attempts => self.is_used_up(),
            _ => false,
        };
        if !ok {
            return Err("for no reason".to_owned());
        }
        self.finish(entry, State::Unfulfilled)
    }

    fn trip_created(&mut self, entry: &Entry) -> Result<(), String> {
        let (Some(trip), Some(driver), None) = (entry.trip, entry.driver, self.trip) else {
            return Err("no trip that could begin".to_owned());
        };
        let won = self
            .tried
            .iter()
            .any(|tried| tried.driver == driver && tried.way == ways::ACCEPTED);
        if !won {
            return Err(format!("d{driver} did not accept"));
        }
        self.trip = Some(TripLife {
            trip,
            driver,
            created_at_ms: entry.at_ms,
            picked_up_at_ms: None,
            ended: None,
            reason: NO_REASON,
        });
        Ok(())
    }
}
