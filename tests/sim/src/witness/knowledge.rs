//! Facts that follow from what was seen, each checked against those before it.

use super::Witness;
use super::state::{Request, TripSeen, Winner, Wish, ways};
use crate::checks::{About, Check};
use crate::ids::{self, Driver, Offer, Trip};
use crate::words::{State, TripEnd};

impl Witness {
    /// A request that a caller is about to post.
    pub fn new_request(&mut self, caller: u32, wish: Wish) -> ids::Request {
        self.requests.push(Request::new(caller, wish));
        self.requests.len() as ids::Request - 1
    }

    /// Whether a request that the node names is one that somebody posted.
    pub(crate) fn is_request(&mut self, request: ids::Request) -> bool {
        let known = self
            .requests
            .get(request as usize)
            .is_some_and(|request| request.posts > 0);
        if !known {
            self.broken(
                Check::Protocol,
                About::default(),
                format!("the node speaks of r{request}, which nobody posted"),
            );
        }
        known
    }

    pub(crate) fn trip_mut(&mut self, trip: Trip) -> &mut TripSeen {
        if self.trips.len() <= trip as usize {
            self.trips.resize_with(trip as usize + 1, TripSeen::default);
        }
        &mut self.trips[trip as usize]
    }

    pub(crate) fn trip_seen(&self, trip: Trip) -> TripSeen {
        self.trips.get(trip as usize).copied().unwrap_or_default()
    }

    /// The node has the request.
    pub(crate) fn learn_exists(&mut self, request: ids::Request) {
        self.requests[request as usize].exists = true;
    }

    /// The request has this state; an end is for ever.
    pub(crate) fn learn_state(&mut self, request: ids::Request, state: State) {
        self.learn_exists(request);
        if !state.is_end() {
            return;
        }
        let end = self.requests[request as usize].end;
        if self.holds(Check::OneOutcome, end.is_none_or(|end| end == state)) {
            if end.is_none() {
                self.requests[request as usize].end = Some(state);
                self.requests[request as usize].end_known_us = self.now_us;
            }
            return;
        }
        let text = format!(
            "r{request} is {} and was {}",
            state.as_str(),
            end.map_or("", State::as_str)
        );
        self.violate(Check::OneOutcome, About::request(request), text);
    }

    /// The request is this driver's.
    pub(crate) fn learn_winner(&mut self, request: ids::Request, won: Winner) {
        self.learn_state(request, State::Accepted);
        let known = self.requests[request as usize].winner;
        let merged = match known {
            None => Some(won),
            Some(known) => merge(known, won),
        };
        let Some(merged) = merged else {
            self.counts.add(Check::OneWinner);
            let text = format!("r{request} was won by {known:?} and by {won:?}");
            return self.violate(Check::OneWinner, About::both(request, won.driver), text);
        };
        self.counts.add(Check::OneWinner);
        self.requests[request as usize].winner = Some(merged);
        if let Some(attempt) = merged.attempt {
            self.learn_way(Offer { request, attempt }, Some(merged.driver), ways::ACCEPTED);
        }
        if let Some(trip) = merged.trip {
            self.learn_trip(trip, request, merged.driver);
        }
        if known.is_none() {
            self.learn_live(request, merged.driver);
        }
    }

    fn learn_trip(&mut self, trip: Trip, request: ids::Request, driver: Driver) {
        let seen = *self.trip_mut(trip);
        let ok = seen.request.is_none_or(|known| known == request) && seen.driver.is_none_or(|known| known == driver);
        if !self.holds(Check::OneWinner, ok) {
            let text = format!("trip {trip} is d{driver}'s of r{request} and was {seen:?}");
            return self.violate(Check::OneWinner, About::both(request, driver), text);
        }
        let now_us = self.now_us;
        let seen = self.trip_mut(trip);
        seen.request = Some(request);
        seen.driver = Some(driver);
        seen.told_us.get_or_insert(now_us);
    }

    /// Whether the trip of this request, if it has one, may be over.
    pub(crate) fn trip_may_be_over(&self, request: ids::Request) -> bool {
        match self.requests[request as usize].winner.and_then(|winner| winner.trip) {
            // Its driver may have heard of it by a `WELCOME`, and ended it.
            None => true,
            Some(trip) => self.trip_seen(trip).may_have_ended(),
        }
    }

    /// The driver has this trip now, unless it may be over: then it has no other.
    fn learn_live(&mut self, request: ids::Request, driver: Driver) {
        let before = self.drivers[driver as usize].live.filter(|other| *other != request);
        if let Some(other) = before {
            let ok = self.trip_may_be_over(other) || self.trip_may_be_over(request);
            if !self.holds(Check::OneTrip, ok) {
                let about = About {
                    other: Some(other),
                    ..About::both(request, driver)
                };
                let text = format!("d{driver} has the trips of r{other} and of r{request}");
                return self.violate(Check::OneTrip, about, text);
            }
        }
        if !self.trip_may_be_over(request) {
            self.drivers[driver as usize].live = Some(request);
        }
    }

    /// Somebody says what may end this trip.
    pub(crate) fn trip_may_end(&mut self, trip: Trip) {
        let seen = self.trip_seen(trip);
        if let (Some(driver), Some(request)) = (seen.driver, seen.request) {
            let live = &mut self.drivers[driver as usize].live;
            if *live == Some(request) {
                *live = None;
            }
        }
    }

    /// The trip is over.
    pub(crate) fn learn_trip_ended(&mut self, trip: Trip, outcome: Option<TripEnd>) {
        let seen = self.trip_seen(trip);
        let ok = match outcome {
            None => seen.may_have_ended(),
            Some(TripEnd::Completed) => seen.complete_said,
            Some(TripEnd::CancelledByDriver) => seen.cancel_said,
            Some(TripEnd::Cancelled) => seen.api_cancels_said != 0,
        };
        let about = About {
            request: seen.request,
            other: None,
            driver: seen.driver,
        };
        if !self.holds(Check::Caused, ok) {
            let text = format!("trip {trip} ended ({outcome:?}), which nobody asked for: {seen:?}");
            return self.violate(Check::Caused, about, text);
        }
        let ok = !seen.cancelled || outcome.is_none_or(|outcome| outcome == TripEnd::Cancelled);
        if !self.holds(Check::AnswerKept, ok) {
            let text = format!("trip {trip} ended as {outcome:?}, and its cancellation was answered 200");
            return self.violate(Check::AnswerKept, about, text);
        }
        self.note_trip_over(trip);
        self.trip_may_end(trip);
    }

    /// The trip is over from now on at the latest.
    pub(crate) fn note_trip_over(&mut self, trip: Trip) {
        let now_us = self.now_us;
        let seen = self.trip_mut(trip);
        if !seen.ended {
            seen.ended = true;
            seen.ended_us = now_us;
        }
    }

    /// The attempt went to this driver.
    pub(crate) fn learn_attempt(&mut self, offer: Offer, driver: Driver) {
        self.learn_way(offer, Some(driver), ways::ANY);
    }

    /// The attempt can only have ended in one of `ways`.
    pub(crate) fn learn_way(&mut self, offer: Offer, driver: Option<Driver>, ways: u8) {
        let Some(attempt) = self.requests[offer.request as usize].attempt_mut(offer.attempt) else {
            return;
        };
        let (whose, left) = (attempt.driver, attempt.ways & ways);
        let about = About {
            request: Some(offer.request),
            other: None,
            driver: driver.or(whose),
        };
        let same = whose.is_none() || driver.is_none() || whose == driver;
        if !self.holds(Check::OneOutcome, same && left != 0) {
            let text = if same {
                format!("{offer} ended in two ways: {}", describe(ways))
            } else {
                format!(
                    "{offer} went to d{} and to d{}",
                    whose.unwrap_or(0),
                    driver.unwrap_or(0)
                )
            };
            return self.violate(Check::OneOutcome, about, text);
        }
        if let Some(attempt) = self.requests[offer.request as usize].attempt_mut(offer.attempt) {
            attempt.driver = driver.or(whose);
            attempt.ways = left;
        }
    }

    /// The current attempt of a request is at least this.
    pub(crate) fn learn_attempt_min(&mut self, request: ids::Request, attempt: u32) {
        let min = &mut self.requests[request as usize].attempt_min;
        *min = (*min).max(attempt);
    }
}

fn merge(known: Winner, won: Winner) -> Option<Winner> {
    #[expect(clippy::option_option, reason = "the outer one says whether they agree")]
    fn both(known: Option<u32>, won: Option<u32>) -> Option<Option<u32>> {
        match (known, won) {
            (Some(known), Some(won)) if known != won => None,
            (known, won) => Some(known.or(won)),
        }
    }
    (known.driver == won.driver).then_some(())?;
    Some(Winner {
        driver: known.driver,
        attempt: both(known.attempt, won.attempt)?,
        trip: both(known.trip, won.trip)?,
    })
}

/// A set of ways, for people.
pub(crate) fn describe(ways: u8) -> String {
    let names = [
        "accepted",
        "declined",
        "timed out",
        "cancelled",
        "taken",
        "superseded",
        "refused",
        "open",
    ];
    let mut text = String::new();
    for (bit, name) in names.iter().enumerate().filter(|(bit, _)| ways & (1 << bit) != 0) {
        if !text.is_empty() {
            text.push_str(" or ");
        }
        text.push_str(name);
        debug_assert!(bit < 8);
    }
    text
}
