//! The drivers: one task and one socket each. They accept, decline, ignore, vanish and return; they run the trips they win
//! in scaled-down time, send heartbeats and positions, and come back after the node was killed.

use super::Tempo;
use super::api::Api;
use super::city::{City, Place};
use super::messages::{Id, ToDriver, TripPlan};
use super::observe::{Observer, Seen, count};
use super::socket::{Closed, Socket};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// Real seconds of a ride that pass in one second of the demo.
const RIDE_SPEED: f64 = 250.0;
/// Shortest and longest ride in the demo, in seconds.
const RIDE_S: (f64, f64) = (0.6, 6.0);
/// Pauses between tries to connect: the first, and the longest.
const BACKOFF_MS: (u64, u64) = (50, 1000);
/// How long after a reconnect the driver asks again about an answer whose outcome it did not hear.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Where the drivers connect to, and who watches.
#[derive(Clone, Debug)]
pub struct World {
    /// The node, or the nodes of a fleet.
    pub api: Api,
    /// Notes everything.
    pub observer: Arc<Observer>,
    /// How fast everybody plays.
    pub tempo: Tempo,
}

/// Places a fleet of so many where the demand is, each driver a few streets from its zone's place.
pub fn place(city: &City, drivers: u32, seed: u64) -> Vec<(Id, Place)> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut street = move || rng.random_range(-0.004..0.004);
    let place = |number: u32| {
        let zone = city.zone_by_demand(f64::from(number) / f64::from(drivers));
        let place = Place {
            lat: zone.place.lat + street(),
            lon: zone.place.lon + street(),
        };
        (Id::from(format!("driver-{number:05}")), place)
    };
    (0..drivers).map(place).collect()
}

/// Starts a task for each driver; they run until the set is dropped. Connects are spread over `ramp`.
pub fn start(world: &World, drivers: &[(Id, Place)], seed: u64, ramp: Duration) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for (number, (id, place)) in drivers.iter().enumerate() {
        let rng = SmallRng::seed_from_u64(seed.wrapping_add(1 + number as u64));
        let delay = ramp.mul_f64(number as f64 / drivers.len() as f64);
        let driver = Driver::new(world.clone(), Id::clone(id), *place, rng);
        tasks.spawn(async move {
            sleep(delay).await;
            driver.run().await;
        });
    }
    tasks
}

/// What a driver does about an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Says yes, on the socket.
    Accept,
    /// Says yes twice.
    AcceptTwice,
    /// Says yes over HTTP.
    AcceptOverHttp,
    /// Says no, on the socket.
    Decline,
    /// Says no over HTTP.
    DeclineOverHttp,
    /// Says nothing.
    Ignore,
    /// Loses the connection, and returns within seconds.
    Vanish,
}

impl Intent {
    /// The intent of a die with 100 faces.
    pub const fn of(die: u32) -> Self {
        match die {
            0..68 => Self::Accept,
            68..72 => Self::AcceptTwice,
            72..75 => Self::AcceptOverHttp,
            75..85 => Self::Decline,
            85..87 => Self::DeclineOverHttp,
            87..95 => Self::Ignore,
            _ => Self::Vanish,
        }
    }
}

/// How long a ride takes in the demo.
pub fn ride_time(plan: TripPlan) -> Duration {
    let seconds = f64::from(plan.duration_s) / RIDE_SPEED;
    Duration::from_secs_f64(seconds.clamp(RIDE_S.0, RIDE_S.1))
}

#[derive(Clone, Debug, PartialEq)]
enum Action {
    Answer(Intent),
    Trip(&'static str),
    Ping,
    Locate,
}

/// The offer that the driver last heard of.
#[derive(Debug)]
struct Held {
    request: Id,
    attempt: u32,
    plan: TripPlan,
    /// What was answered and not yet decided.
    answered: Option<bool>,
}

#[derive(Debug)]
struct Trip {
    id: Id,
    plan: TripPlan,
    /// The state whose end is planned.
    planned: Option<&'static str>,
}

struct Driver {
    world: World,
    id: Id,
    place: Place,
    rng: SmallRng,
    held: Option<Held>,
    trip: Option<Trip>,
    heartbeat: Duration,
    /// When something was last heard.
    heard: Instant,
    due: Vec<(Instant, Action)>,
}

impl Driver {
    fn new(world: World, id: Id, place: Place, rng: SmallRng) -> Self {
        Self {
            world,
            id,
            place,
            rng,
            held: None,
            trip: None,
            heartbeat: Duration::from_secs(30),
            heard: Instant::now(),
            due: Vec::new(),
        }
    }

    async fn run(mut self) {
        let (mut backoff, mut tries) = (BACKOFF_MS.0, 0);
        loop {
            let observer = Arc::clone(&self.world.observer);
            let connected = match self.world.api.place_of(&self.id, tries).await {
                Some(address) => Socket::connect(address, &self.id, &observer).await,
                None => Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into()),
            };
            match connected {
                Ok(socket) => {
                    let away = self.session(socket).await;
                    (backoff, tries) = (BACKOFF_MS.0, 0);
                    sleep(away).await;
                    count(&observer.counters.reconnects);
                }
                Err(error) => {
                    tracing::debug!(driver = %self.id, %error, "cannot connect");
                    observer.note(Seen::Unserved("no socket".into()));
                    sleep(self.hasty(backoff, backoff * 2)).await;
                    (backoff, tries) = ((backoff * 2).min(BACKOFF_MS.1), tries + 1);
                }
            }
        }
    }

    /// One session, to its end; returns how long the driver stays away.
    async fn session(&mut self, mut socket: Socket) -> Duration {
        let observer = Arc::clone(&self.world.observer);
        let connected = &observer.counters.connected;
        connected.fetch_add(1, Ordering::Relaxed);
        self.heard = Instant::now();
        let away = loop {
            let next = self.due.iter().map(|(at, _)| *at).min();
            let next = next.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                message = socket.next() => match message {
                    Ok(message) => {
                        self.heard = Instant::now();
                        self.hear(message, &mut socket).await;
                    }
                    Err(Closed { retry_after }) => {
                        let pause = self.hasty(0, 200);
                        break retry_after.unwrap_or(pause);
                    }
                },
                () = sleep_until(next) => {
                    if let Some(action) = self.take_due() {
                        if action == Action::Answer(Intent::Vanish) {
                            socket.vanish();
                            count(&observer.counters.vanished);
                            break self.hasty(800, 3000);
                        }
                        if action == Action::Ping && self.heard.elapsed() > self.heartbeat {
                            // No PONG: whatever is at the other end is of no use.
                            socket.vanish();
                            break Duration::ZERO;
                        }
                        self.act(action, &mut socket).await;
                    }
                }
            }
        };
        connected.fetch_sub(1, Ordering::Relaxed);
        self.due.clear();
        away
    }

    fn take_due(&mut self) -> Option<Action> {
        let now = Instant::now();
        let first = (0..self.due.len()).min_by_key(|index| self.due[*index].0)?;
        (self.due[first].0 <= now).then(|| self.due.swap_remove(first).1)
    }

    fn plan(&mut self, after: Duration, action: Action) {
        self.due.push((Instant::now() + after, action));
    }

    fn jitter(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(self.rng.random_range(from_ms..to_ms))
    }

    /// A time of a person, in the demo's tempo.
    fn hasty(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        self.jitter(from_ms, to_ms) / self.world.tempo.haste
    }

    async fn hear(&mut self, message: ToDriver, socket: &mut Socket) {
        match message {
            ToDriver::Welcome {
                state,
                trip_id,
                heartbeat_ms,
                ..
            } => self.welcomed(&state, trip_id, heartbeat_ms),
            ToDriver::Offer {
                request_id,
                attempt,
                trip,
                ..
            } => self.offered(request_id.into(), attempt, trip, socket).await,
            ToDriver::Confirmed {
                request_id,
                attempt,
                trip_id,
            } => {
                let plan = self.outcome(&request_id, attempt);
                if self.trip.as_ref().is_none_or(|trip| *trip.id != *trip_id) {
                    self.trip = Some(Trip {
                        id: trip_id.into(),
                        plan: plan.unwrap_or_default(),
                        planned: None,
                    });
                }
            }
            ToDriver::Declined { request_id, attempt }
            | ToDriver::Revoked {
                request_id, attempt, ..
            } => {
                self.outcome(&request_id, attempt);
            }
            ToDriver::State { state, trip_id } => self.state(&state, trip_id),
            ToDriver::TripCancelled { .. } => self.state("available", None),
            ToDriver::Pong | ToDriver::Error { .. } | ToDriver::Unknown => {}
        }
    }

    fn welcomed(&mut self, state: &str, trip_id: Option<String>, heartbeat_ms: u64) {
        self.due.clear();
        let heartbeat_ms = heartbeat_ms.min(self.world.tempo.silence_ms_max);
        self.heartbeat = Duration::from_millis(heartbeat_ms);
        let half_ms = (heartbeat_ms / 2).max(2);
        let first = self.jitter(half_ms / 2, half_ms);
        self.plan(first, Action::Ping);
        let first = self.jitter(1000, 15_000);
        self.plan(first, Action::Locate);
        if let Some(trip) = &mut self.trip {
            trip.planned = None;
        }
        self.state(state, trip_id);
        if let Some(accept) = self.held.as_ref().and_then(|held| held.answered) {
            let intent = if accept { Intent::Accept } else { Intent::Decline };
            self.plan(ASK_AGAIN, Action::Answer(intent));
        }
    }

    async fn offered(&mut self, request: Id, attempt: u32, plan: TripPlan, socket: &mut Socket) {
        socket.ack(&request, attempt).await;
        let again = self
            .held
            .as_ref()
            .is_some_and(|held| held.request == request && held.attempt == attempt);
        if again && self.held.as_ref().is_some_and(|held| held.answered.is_some()) {
            return; // The answer is repeated anyway.
        }
        self.held = Some(Held {
            request,
            attempt,
            plan,
            answered: None,
        });
        self.due.retain(|(_, action)| !matches!(action, Action::Answer(_)));
        // A driver who is back after losing an offer half-way takes it.
        let intent = if again {
            Intent::Accept
        } else {
            Intent::of(self.rng.random_range(0..100))
        };
        let think = self.hasty(40, 400);
        self.plan(think, Action::Answer(intent));
    }

    /// The attempt is over; returns its plan if it was the one held.
    fn outcome(&mut self, request: &str, attempt: u32) -> Option<TripPlan> {
        let own = |held: &mut Held| *held.request == *request && held.attempt == attempt;
        let held = self.held.take_if(own)?;
        self.due.retain(|(_, action)| !matches!(action, Action::Answer(_)));
        Some(held.plan)
    }

    /// The node's word on the driver's state decides what comes next on the trip.
    fn state(&mut self, state: &str, trip_id: Option<String>) {
        let state = match state {
            "en_route_to_pickup" => "en_route_to_pickup",
            "on_trip" => "on_trip",
            _ => {
                self.due.retain(|(_, action)| !matches!(action, Action::Trip(_)));
                self.trip = None;
                return;
            }
        };
        if let Some(id) = trip_id
            && self.trip.as_ref().is_none_or(|trip| *trip.id != *id)
        {
            // Won while nobody listened.
            let plan = self.held.take().map(|held| held.plan).unwrap_or_default();
            self.trip = Some(Trip {
                id: id.into(),
                plan,
                planned: None,
            });
        }
        let Some(trip) = self.trip.as_mut().filter(|trip| trip.planned != Some(state)) else {
            return;
        };
        trip.planned = Some(state);
        let ride = ride_time(trip.plan) / self.world.tempo.haste;
        if state == "on_trip" {
            let gives_up = self.rng.random_range(0..100) < 2;
            self.plan(ride, Action::Trip(if gives_up { "cancel" } else { "complete" }));
        } else {
            let arrival = self.hasty(300, 900);
            self.plan(arrival, Action::Trip("arrived"));
            let boarding = self.hasty(100, 400);
            self.plan(arrival + boarding, Action::Trip("pickup"));
        }
    }

    async fn act(&mut self, action: Action, socket: &mut Socket) {
        match action {
            Action::Answer(intent) => self.answer(intent, socket).await,
            Action::Trip(event) => {
                let Some(trip) = &self.trip else { return };
                socket.trip(&trip.id, event).await;
                if let Some(end) = trip.plan.dropoff.filter(|_| event == "complete") {
                    self.place = Place {
                        lat: end.lat,
                        lon: end.lon,
                    };
                }
            }
            Action::Ping => {
                socket.ping().await;
                self.plan(self.heartbeat / 2, Action::Ping);
            }
            Action::Locate => {
                let mut step = || self.rng.random_range(-0.001..0.001);
                let (north, east) = (step(), step());
                self.place.lat += north;
                self.place.lon += east;
                socket.location(self.place.lat, self.place.lon).await;
                let pause = self.jitter(10_000, 20_000);
                self.plan(pause, Action::Locate);
            }
        }
    }

    async fn answer(&mut self, intent: Intent, socket: &mut Socket) {
        let Some(held) = &mut self.held else { return };
        let accept = match intent {
            Intent::Accept | Intent::AcceptTwice | Intent::AcceptOverHttp => true,
            Intent::Decline | Intent::DeclineOverHttp => false,
            Intent::Ignore | Intent::Vanish => return,
        };
        held.answered = Some(accept);
        if matches!(intent, Intent::AcceptOverHttp | Intent::DeclineOverHttp) {
            let (api, driver) = (self.world.api.clone(), Id::clone(&self.id));
            let (request, attempt) = (Id::clone(&held.request), held.attempt);
            // The outcome comes by the socket as well; without any, the driver asks again after its reconnect.
            tokio::spawn(async move { api.respond(&driver, &request, attempt, accept).await });
            return;
        }
        socket.answer(&held.request, held.attempt, accept).await;
        if intent == Intent::AcceptTwice {
            socket.answer(&held.request, held.attempt, accept).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_behaviour_occurs_and_most_accept() {
        let share = |intent| (0..100).filter(|die| Intent::of(*die) == intent).count();
        let all = [
            Intent::Accept,
            Intent::AcceptTwice,
            Intent::AcceptOverHttp,
            Intent::Decline,
            Intent::DeclineOverHttp,
            Intent::Ignore,
            Intent::Vanish,
        ];
        assert!(all.iter().all(|intent| share(*intent) > 0));
        assert_eq!(all.iter().map(|intent| share(*intent)).sum::<usize>(), 100);
        assert_eq!(
            share(Intent::Accept) + share(Intent::AcceptTwice) + share(Intent::AcceptOverHttp),
            75
        );
    }

    #[test]
    fn rides_are_short_but_keep_their_order() {
        let time = |duration_s| {
            ride_time(TripPlan {
                duration_s,
                dropoff: None,
            })
        };
        assert_eq!(time(0), Duration::from_millis(600));
        assert!(time(400) < time(900));
        assert_eq!(time(100_000), Duration::from_secs(6));
    }
}
