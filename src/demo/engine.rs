//! A small matching engine: replays the rides as dispatch requests to the nearest free drivers, follows `/v1/events` as a
//! named consumer, and sends new candidates when it is asked to.

use super::Tempo;
use super::api::{Api, Post};
use super::board::Board;
use super::city::{City, Place};
use super::drivers::World;
use super::messages::{EventLine, Id, Saying};
use super::observe::{Observer, OnApi, count};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The engine's name at `/v1/events`.
pub const CONSUMER: &str = "demo-engine";
/// Candidates of a POST that offers to one at a time.
const CANDIDATES: usize = 3;
/// Attempts that a request may use up.
const ATTEMPTS_MAX: u32 = 10;
/// How long one poll of the event stream may wait.
const POLL: Duration = Duration::from_secs(2);
/// Pause after a poll that failed.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// How a request stands, as the event stream told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    OnTrip,
    Over,
}

#[derive(Clone, Debug)]
struct Wanted {
    ride: usize,
    standing: Standing,
    /// The first POST, for repetitions: with other candidates it would be a re-dispatch.
    first: Arc<Post>,
}

/// The engine. Its tasks share it.
#[derive(Debug)]
pub struct Engine {
    api: Api,
    observer: Arc<Observer>,
    city: Arc<City>,
    seed: u64,
    tempo: Tempo,
    epoch: Instant,
    stopped: AtomicBool,
    board: Mutex<Board>,
    wanted: Mutex<BTreeMap<Id, Wanted>>,
    handled: Mutex<HashSet<Saying>>,
}

/// How a request treats its candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    OneByOne,
    TwoAtOnce,
    WaitsForBusy,
}

/// Whether the same POST is sent a second time on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    Never,
    AtOnce,
    Later,
}

/// What the caller takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TakeBack {
    Nothing,
    Request,
    Trip,
}

/// What is special about a request; follows from the seed and its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Traits {
    priority: &'static str,
    manner: Manner,
    repeat: Repeat,
    take_back: TakeBack,
    /// Before whatever comes later.
    pause: Duration,
}

impl Traits {
    fn of(seed: u64, request: &str) -> Self {
        let hash = xxh3_64_with_seed(request.as_bytes(), seed);
        // Independent dice with 100 faces from one hash.
        let die = |shift: u32| (hash >> shift & 0xffff) % 100;
        Self {
            priority: match die(0) {
                0..10 => "premium",
                10..30 => "economy",
                _ => "standard",
            },
            manner: match die(16) {
                0..6 => Manner::TwoAtOnce,
                6..18 => Manner::WaitsForBusy,
                _ => Manner::OneByOne,
            },
            repeat: match die(32) {
                0..3 => Repeat::AtOnce,
                3..6 => Repeat::Later,
                _ => Repeat::Never,
            },
            take_back: match die(48) {
                0 => TakeBack::Request,
                1..3 => TakeBack::Trip,
                _ => TakeBack::Nothing,
            },
            pause: Duration::from_millis(50 + hash % 600),
        }
    }
}

impl Engine {
    /// An engine that knows where its drivers start.
    pub fn new(world: &World, city: Arc<City>, drivers: &[(Id, Place)], seed: u64) -> Arc<Self> {
        Arc::new(Self {
            api: world.api.clone(),
            observer: Arc::clone(&world.observer),
            city,
            seed,
            tempo: world.tempo,
            epoch: Instant::now(),
            stopped: AtomicBool::new(false),
            board: Mutex::new(Board::new(drivers)),
            wanted: Mutex::default(),
            handled: Mutex::default(),
        })
    }

    /// Replays `rides` at `rate` a second, open loop: a slow answer delays nobody else. Ends when every POST has its answer;
    /// after [`Self::stop`] no more are posted.
    pub async fn replay(self: Arc<Self>, rides: Vec<usize>, rate: f64) {
        self.replay_while(rides, rate, usize::MAX).await;
    }

    /// The same, but a ride is left out when `waiting_max` wait for their answers.
    pub async fn replay_while(self: Arc<Self>, rides: Vec<usize>, rate: f64, waiting_max: usize) {
        let begin = Instant::now();
        let mut posts = JoinSet::new();
        for (number, ride) in rides.into_iter().enumerate() {
            sleep_until(begin + Duration::from_secs_f64(number as f64 / rate)).await;
            if self.stopped.load(Ordering::Relaxed) {
                break;
            }
            while posts.try_join_next().is_some() {}
            if posts.len() >= waiting_max {
                continue;
            }
            let request = Id::from(format!("ride-{number:05}"));
            let engine = Arc::clone(&self);
            posts.spawn(async move { engine.dispatch(request, ride).await });
        }
        while posts.join_next().await.is_some() {}
    }

    /// Ends the replay early.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// The newest requests, at most so many.
    pub fn newest(&self, most: usize) -> BTreeSet<Id> {
        lock(&self.wanted).keys().rev().take(most).cloned().collect()
    }

    /// Requests and trips that are not over yet.
    pub fn unfinished(&self) -> usize {
        let wanted = lock(&self.wanted);
        wanted
            .values()
            .filter(|wanted| wanted.standing != Standing::Over)
            .count()
    }

    /// Sends first POSTs once more, byte for byte, as an engine does that does not remember whether it did.
    pub async fn repeat(&self, requests: &[Id]) {
        for request in requests {
            let Some(post) = lock(&self.wanted).get(request).map(|wanted| Arc::clone(&wanted.first)) else {
                continue;
            };
            count(&self.observer.counters.repeats_on_purpose);
            self.api.offer(&post).await;
        }
    }

    async fn dispatch(&self, request: Id, ride: usize) {
        let traits = Traits::of(self.seed, &request);
        let post = Arc::new(self.post(&request, ride, &traits, true, &BTreeSet::new()));
        let wanted = Wanted {
            ride,
            standing: Standing::Open,
            first: Arc::clone(&post),
        };
        // Before the POST: its events may be faster than its answer.
        lock(&self.wanted).insert(Id::clone(&request), wanted);
        count(&self.observer.counters.posted);
        let answer = if traits.repeat == Repeat::AtOnce {
            count(&self.observer.counters.repeats_on_purpose);
            let (answer, other) = tokio::join!(self.api.offer(&post), self.api.offer(&post));
            answer.or(other)
        } else {
            self.api.offer(&post).await
        };
        match answer {
            // 409 is for a repetition whose first answer was lost: the node has the request, and its events tell the rest.
            Some((200..300 | 409, answer)) => {
                self.observer.taken(&request);
                if let Some(driver) = &answer.driver_id {
                    self.hold(driver);
                }
            }
            other => {
                tracing::warn!(%request, ?other, "not taken for dispatch");
                count(&self.observer.counters.not_taken);
                lock(&self.wanted).remove(&request);
                return;
            }
        }
        if traits.repeat == Repeat::Later {
            sleep(traits.pause).await;
            count(&self.observer.counters.repeats_on_purpose);
            self.api.offer(&post).await;
        }
        if traits.take_back == TakeBack::Request {
            sleep(traits.pause).await;
            self.api.cancel(&request).await;
        }
    }

    fn post(&self, request: &Id, ride: usize, traits: &Traits, first: bool, excluded: &BTreeSet<Id>) -> Post {
        let ride = &self.city.rides[ride];
        let pickup = self.city.zones[ride.from].place;
        let now = self.epoch.elapsed();
        let offered = if traits.manner == Manner::TwoAtOnce { 2 } else { 1 };
        let candidates = {
            let mut board = lock(&self.board);
            let candidates = board.nearest(pickup, CANDIDATES - 1 + offered, excluded, now);
            for driver in candidates.iter().take(offered) {
                board.hold(driver, now + Duration::from_millis(self.tempo.offer_timeout_ms));
            }
            candidates
        };
        let candidates: Vec<&str> = candidates.iter().map(|id| &**id).collect();
        let mut body = json!({
            "request_id": &**request,
            "candidates": candidates,
            "priority": traits.priority,
            "offer_timeout_ms": self.tempo.offer_timeout_ms,
            "deadline_ms": self.tempo.deadline_ms,
            "max_attempts": ATTEMPTS_MAX,
            "trip": self.city.trip_json(ride),
        });
        match traits.manner {
            Manner::OneByOne => {}
            Manner::TwoAtOnce => body["parallel"] = Value::from(2),
            Manner::WaitsForBusy => body["busy_wait_ms"] = Value::from(self.tempo.busy_wait_ms),
        }
        Post {
            request: Id::clone(request),
            first,
            body,
        }
    }

    fn hold(&self, driver: &str) {
        let until = self.epoch.elapsed() + Duration::from_millis(self.tempo.offer_timeout_ms);
        lock(&self.board).hold(driver, until);
    }

    /// Follows the event streams of all nodes for ever: handles each event once, acknowledges what it handled, and after a
    /// lost connection goes on from its acknowledgement.
    pub async fn follow_events(self: Arc<Self>) {
        let streams = self.api.each().map(|api| self.follow(api));
        futures_util::future::join_all(streams).await;
    }

    async fn follow(self: &Arc<Self>, api: Api) {
        let mut last = 0;
        loop {
            match api.events(CONSUMER, None, POLL).await {
                Ok(lines) => {
                    let Some(newest) = lines.last().map(|line| line.cursor) else {
                        continue;
                    };
                    for line in lines {
                        if line.cursor > last {
                            last = line.cursor;
                            self.handle(line);
                        }
                    }
                    api.acknowledge(CONSUMER, newest).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "no events");
                    sleep(POLL_PAUSE).await;
                }
            }
        }
    }

    fn handle(self: &Arc<Self>, event: EventLine) {
        let counters = &self.observer.counters;
        count(&counters.events);
        self.observer.api(OnApi::Event(event.clone()));
        if !lock(&self.handled).insert(event.saying()) {
            return; // Published again.
        }
        let request = Id::from(event.request_id.as_str());
        let Some(ride) = lock(&self.wanted).get(&request).map(|wanted| wanted.ride) else {
            return; // Not a ride: the mini-scenario's, or somebody else's.
        };
        match event.kind.as_str() {
            "REDISPATCH_REQUESTED" => {
                count(&counters.redispatched);
                let engine = Arc::clone(self);
                tokio::spawn(async move { engine.redispatch(request, ride, &event.excluded).await });
            }
            "TRIP_CREATED" => {
                count(&counters.accepted);
                self.stand(&request, Standing::OnTrip);
                self.trip_created(&request, &event);
            }
            "TRIP_ENDED" => {
                count(&counters.trips_ended);
                self.stand(&request, Standing::Over);
                let ride = &self.city.rides[ride];
                let completed = event.outcome.as_deref() == Some("completed");
                let place = completed.then(|| self.city.zones[ride.to].place);
                if let Some(driver) = &event.driver_id {
                    lock(&self.board).ended_trip(driver, place);
                }
            }
            "REQUEST_UNFULFILLED" => {
                count(&counters.unfulfilled);
                self.stand(&request, Standing::Over);
            }
            "REQUEST_CANCELLED" => {
                count(&counters.cancelled);
                self.stand(&request, Standing::Over);
            }
            _ => {}
        }
    }

    fn stand(&self, request: &Id, standing: Standing) {
        if let Some(wanted) = lock(&self.wanted).get_mut(request) {
            wanted.standing = standing;
        }
    }

    fn trip_created(self: &Arc<Self>, request: &Id, event: &EventLine) {
        if let Some(driver) = &event.driver_id {
            lock(&self.board).began_trip(driver);
        }
        let traits = Traits::of(self.seed, request);
        let cancels = traits.take_back == TakeBack::Trip;
        if let Some(trip) = event.trip_id.as_deref().filter(|_| cancels) {
            let (engine, trip) = (Arc::clone(self), Id::from(trip));
            tokio::spawn(async move {
                sleep(traits.pause).await;
                engine.api.cancel_trip(&trip).await;
            });
        }
    }

    /// Sends new candidates, as soon as there are any.
    async fn redispatch(&self, request: Id, ride: usize, tried: &[String]) {
        let excluded: BTreeSet<Id> = tried.iter().map(|id| Id::from(id.as_str())).collect();
        let traits = Traits::of(self.seed, &request);
        let since = Instant::now();
        while since.elapsed() < Duration::from_millis(self.tempo.deadline_ms) {
            let post = self.post(&request, ride, &traits, false, &excluded);
            if post.body["candidates"].as_array().is_some_and(|list| !list.is_empty()) {
                self.api.offer(&post).await;
                return;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_mixed_as_promised() {
        let all: Vec<Traits> = (0..6433).map(|n| Traits::of(7, &format!("ride-{n:05}"))).collect();
        let share = |is: fn(&Traits) -> bool| all.iter().filter(|traits| is(traits)).count() * 100 / all.len();
        let check = |found: usize, expect: usize| assert!(found.abs_diff(expect) <= 1, "{found} {expect}");
        check(share(|traits| traits.priority == "premium"), 10);
        check(share(|traits| traits.priority == "economy"), 20);
        check(share(|traits| traits.repeat != Repeat::Never), 6);
        check(share(|traits| traits.manner == Manner::TwoAtOnce), 6);
        check(share(|traits| traits.manner == Manner::WaitsForBusy), 12);
        check(share(|traits| traits.take_back != TakeBack::Nothing), 3);
        assert_eq!(Traits::of(7, "ride-00001"), Traits::of(7, "ride-00001"));
    }
}
