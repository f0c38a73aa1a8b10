//! Drivers, callers and a matching engine that go on whatever happens to the node: each connects again, repeats what was
//! not answered, and notes what it was told.

use crate::ledger::{Confirmed, Ledger};
use crate::support::driver::{Received, answer};
use crate::support::{Driver, Value, api, json, text};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::watch;

/// Time for one answer: after a kill it never comes.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause before the next try at a node that is down, and between two requests of a caller.
const PACE: Duration = Duration::from_millis(12);

/// What all clients share.
#[derive(Clone)]
pub struct World {
    address: SocketAddr,
    seed: u64,
    drivers: Arc<Vec<String>>,
    ledger: Arc<Mutex<Ledger>>,
    /// Who may still run: see [`Phase`].
    phase: watch::Receiver<Phase>,
}

/// How far the test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everybody runs.
    Load,
    /// No new requests; what is open comes to its end.
    Ending,
    /// Everybody stops.
    Over,
}

impl World {
    pub fn new(address: SocketAddr, seed: u64, drivers: usize, phase: watch::Receiver<Phase>) -> Self {
        let drivers = (0..drivers).map(|number| format!("driver-{number}")).collect();
        Self {
            address,
            seed,
            drivers: Arc::new(drivers),
            ledger: Arc::default(),
            phase,
        }
    }

    pub fn driver_count(&self) -> usize {
        self.drivers.len()
    }

    /// What was told so far.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no client panics while it writes")
    }

    /// Each client has its own sequence of random numbers, given by the seed.
    fn rng(&self, client: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(client))
    }

    fn is(&self, phase: Phase) -> bool {
        *self.phase.borrow() >= phase
    }

    async fn until_over(&self) {
        let mut phase = self.phase.clone();
        // An error means that the test is gone, which is an end too.
        let _ = phase.wait_for(|phase| *phase == Phase::Over).await;
    }

    fn candidates(&self, rng: &mut StdRng, count: usize) -> Vec<&str> {
        self.drivers.choose_multiple(rng, count).map(String::as_str).collect()
    }
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().timeout(ANSWER_MAX);
    builder.build().expect("an HTTP client")
}

/// Status and JSON of a POST; `None` when there was no whole answer.
async fn post(world: &World, http: &reqwest::Client, path: &str, body: &Value) -> Option<(u16, Value)> {
    let url = format!("http://{}{path}", world.address);
    let response = http.post(url).json(body).send().await.ok()?;
    let status = response.status().as_u16();
    Some((status, response.json().await.ok()?))
}

async fn get_text(world: &World, http: &reqwest::Client, path: &str) -> Option<String> {
    let url = format!("http://{}{path}", world.address);
    let response = http.get(url).send().await.ok()?;
    if response.status() != 200 {
        return None;
    }
    response.text().await.ok()
}

/// A driver that accepts, declines, ignores, vanishes and comes back.
pub async fn drive(world: World, number: usize) {
    let mut rng = world.rng(1000 + number as u64);
    let http = client();
    let id = world.drivers[number].clone();
    while !world.is(Phase::Over) {
        let connecting = tokio::time::timeout(ANSWER_MAX, Driver::try_connect(world.address, &id));
        if let Ok(Ok(mut driver)) = connecting.await {
            world.ledger().connected(&id, driver.session());
            tokio::select! {
                () = world.until_over() => {}
                () = shift(&world, &http, &mut driver, &mut rng) => {}
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

/// One connection, until it ends or the driver vanishes.
async fn shift(world: &World, http: &reqwest::Client, driver: &mut Driver, rng: &mut StdRng) {
    if let Some(trip_id) = driver.welcome["trip_id"].as_str().map(str::to_owned) {
        let event = if driver.welcome["state"] == "on_trip" {
            "complete"
        } else {
            "pickup"
        };
        if say_trip(driver, &trip_id, event).await.is_err() {
            return;
        }
    }
    loop {
        let Received::Text(message) = driver.receive().await else {
            return;
        };
        let message: Value = serde_json::from_str(&message).expect("JSON from the node");
        let on = match message["type"].as_str() {
            Some("OFFER") => offered(world, http, driver, &message, rng).await,
            Some("CONFIRMED") => {
                confirmed(world, &driver.id, &message);
                let trip_id = text(&message, "trip_id");
                say_trip(driver, trip_id, "pickup").await.is_ok()
            }
            Some("STATE") if message["state"] == "on_trip" => {
                let trip_id = text(&message, "trip_id");
                say_trip(driver, trip_id, "complete").await.is_ok()
            }
            Some("ERROR") if message["code"] != "no_such_trip" => {
                let violation = format!("driver {} was told {message}", driver.id);
                world.ledger().violations.push(violation);
                true
            }
            _ => true,
        };
        if !on {
            return;
        }
    }
}

async fn say_trip(driver: &mut Driver, trip_id: &str, event: &str) -> Result<(), ()> {
    let message = json!({"type": "TRIP", "trip_id": trip_id, "event": event});
    driver.try_send(&message).await.map_err(|_| ())
}

/// Whether the driver goes on with this connection.
async fn offered(world: &World, http: &reqwest::Client, driver: &mut Driver, offer: &Value, rng: &mut StdRng) -> bool {
    if rng.random_bool(0.3) && driver.try_send(&answer("ACK", offer)).await.is_err() {
        return false;
    }
    match rng.random_range(0..100) {
        0..35 => driver.try_send(&answer("ACCEPT", offer)).await.is_ok(),
        35..43 => {
            let body = json!({
                "driver_id": driver.id, "request_id": offer["request_id"], "attempt": offer["attempt"],
                "response_type": "ACCEPT",
            });
            if let Some((200, said)) = post(world, http, "/v1/dispatch/response", &body).await
                && said["outcome"] == "CONFIRMED"
            {
                confirmed(world, &driver.id, &said);
            }
            true
        }
        43..70 => driver.try_send(&answer("DECLINE", offer)).await.is_ok(),
        70..90 => true,
        _ => false,
    }
}

fn confirmed(world: &World, driver_id: &str, said: &Value) {
    let confirmed = Confirmed {
        driver_id: driver_id.to_owned(),
        trip_id: text(said, "trip_id").to_owned(),
        attempt: said["attempt"].as_u64(),
    };
    world.ledger().confirm(text(said, "request_id"), confirmed);
}

/// A caller that posts requests one after the other, each until it is answered; cancels some, and reads audits.
pub async fn call(world: World, number: usize) {
    let mut rng = world.rng(2000 + number as u64);
    let http = client();
    let mut mine: Vec<String> = Vec::new();
    while !world.is(Phase::Ending) {
        let request_id = format!("request-{number}-{}", mine.len());
        let priority = ["premium", "standard", "economy"][rng.random_range(0..3)];
        let more = json!({
            "priority": priority,
            "offer_timeout_ms": rng.random_range(100..600),
            "deadline_ms": rng.random_range(1_000..12_000),
            "parallel": rng.random_range(1..=3),
            "busy_wait_ms": if rng.random_bool(0.5) { 400 } else { 0 },
        });
        let candidates = world.candidates(&mut rng, 4);
        let body = api::offer(&request_id, &candidates, &more);
        while !world.is(Phase::Ending) {
            if post_once(&world, &http, &body).await {
                mine.push(request_id.clone());
                break;
            }
            tokio::time::sleep(PACE).await;
        }
        // The newest is likely to be open still.
        if let Some(newest) = mine.last().filter(|_| rng.random_bool(0.1)) {
            cancel(&world, &http, newest).await;
        }
        if let Some(any) = mine.choose(&mut rng).cloned().filter(|_| rng.random_bool(0.3)) {
            read_audit(&world, &http, &any).await;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// Whether the node says that it has the request.
async fn post_once(world: &World, http: &reqwest::Client, body: &Value) -> bool {
    let Some((status, said)) = post(world, http, "/v1/dispatch/offer", body).await else {
        return false;
    };
    let request_id = text(body, "request_id");
    let mut ledger = world.ledger();
    match status {
        200 | 202 | 409 => {
            ledger.taken.insert(request_id.to_owned());
            true
        }
        429 | 503 => false,
        _ => {
            ledger
                .violations
                .push(format!("{request_id} was answered {status}: {said}"));
            true
        }
    }
}

async fn cancel(world: &World, http: &reqwest::Client, request_id: &str) {
    let body = json!({"request_id": request_id});
    if let Some((200, _)) = post(world, http, "/v1/dispatch/cancel", &body).await {
        world.ledger().cancelled.insert(request_id.to_owned());
    }
}

async fn read_audit(world: &World, http: &reqwest::Client, request_id: &str) {
    let path = format!("/v1/dispatch/audit/{request_id}");
    let Some(body) = get_text(world, http, &path).await else {
        return;
    };
    let body: Value = serde_json::from_str(&body).expect("JSON from the node");
    let events = body["events"].as_array().expect("events").clone();
    world.ledger().audited(request_id, events);
}

/// The matching engine: follows the events, notes them, and posts new candidates for some of those who need them.
pub async fn engine(world: World) {
    let mut rng = world.rng(3000);
    let http = client();
    let mut after = String::new();
    while !world.is(Phase::Over) {
        let path = format!("/v1/events?wait_ms=300&limit=500{after}");
        let Some(lines) = get_text(&world, &http, &path).await else {
            tokio::time::sleep(PACE).await;
            continue;
        };
        for event in lines.lines().map(api::event_line) {
            world.ledger().published(&event);
            after = format!("&{}", api::after(&event));
            if event["type"] == "REDISPATCH_REQUESTED" && rng.random_bool(0.5) {
                let excluded = event["excluded"].as_array().expect("excluded");
                let mut candidates = world.candidates(&mut rng, 6);
                candidates.retain(|candidate| !excluded.iter().any(|driver| driver == candidate));
                if !candidates.is_empty() {
                    let body = api::offer(text(&event, "request_id"), &candidates, &json!({}));
                    post_once(&world, &http, &body).await;
                }
            }
        }
    }
}
