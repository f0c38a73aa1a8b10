//! How soon an offer is on a driver's socket when Cassandra has to decide first that it may be made: a fixed rate of requests to
//! any node for drivers of any node, each accepted and driven to its end at once. And how many decisions each request costs.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use dispatchd::demo::api::{Api, Post};
use dispatchd::demo::messages::{Id, ToDriver};
use dispatchd::demo::observe::{Observation, Observer, OnApi, OnSocket, Outcome, Seen};
use dispatchd::demo::socket::Socket;
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::metrics;
use super::town::Town;
use crate::measure::Latencies;
use crate::report::{Goal, Limit, Run};

/// Requests per second, drivers, and how long it lasts; what comes in the warm-up is not counted.
const RATE: f64 = 100.0;
const DRIVERS: usize = 240;
const WARM_UP: Duration = Duration::from_secs(4);
const LASTS: Duration = Duration::from_secs(14);
const REQUESTS: u32 = (RATE * LASTS.as_secs() as f64) as u32;
/// Until all drivers are connected, and until all that was posted is over.
const CONNECT_MAX: Duration = Duration::from_secs(30);
const REST_MAX: Duration = Duration::from_secs(20);
/// Between two heartbeats of a driver.
const PING_EVERY: Duration = Duration::from_secs(1);
/// The nodes' counter of decisions by Cassandra (lightweight transactions), by what was decided.
const DECISIONS: &str = "dispatchd_cassandra_lwt_total";

/// What issue and README promise.
pub const GOALS: &[Goal] = &[Goal {
    what: "POST → OFFER through the claim, 100/s, p99",
    figure: "post_to_offer_p99",
    limit: Limit::AtMost(50.0),
}];

/// Measures once.
///
/// # Errors
/// Drivers cannot connect.
pub async fn run(town: &mut Town, seed: u64) -> io::Result<Run> {
    let observer = Arc::new(Observer::default());
    let api = Api::of_fleet(town.http(), &town.addresses(), Arc::clone(&observer));
    let (freed, mut free) = unbounded_channel();
    let mut drivers = JoinSet::new();
    for number in 0..DRIVERS {
        let driver = Id::from(format!("driver-{seed}-{number}"));
        drivers.spawn(drive(api.clone(), Arc::clone(&observer), driver, freed.clone()));
    }
    let mut ready = VecDeque::new();
    let connecting = async {
        while ready.len() < DRIVERS
            && let Some(driver) = free.recv().await
        {
            ready.push_back(driver);
        }
    };
    let connected = timeout(CONNECT_MAX, connecting).await;
    connected.map_err(|_| io::Error::other("drivers are not connected in time"))?;
    let before = decisions(town).await;
    let due = load(&api, &observer, &mut free, ready, seed).await;
    let after = decisions(town).await;
    drivers.shutdown().await;
    Ok(figures(&observer.snapshot(), &due, &before, &after))
}

/// One driver: takes every offer, and drives the trip to its end at once.
async fn drive(api: Api, observer: Arc<Observer>, driver: Id, freed: UnboundedSender<Id>) {
    for tries in 0.. {
        let Some(address) = api.place_of(&driver, tries).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(mut socket) = Socket::connect(address, &driver, &observer).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut pings = tokio::time::interval(PING_EVERY);
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                _ = pings.tick() => {
                    socket.ping().await;
                    continue;
                }
            };
            match message {
                Ok(ToDriver::Welcome { state, .. }) if state == "available" => {
                    let _ = freed.send(Id::clone(&driver));
                }
                Ok(ToDriver::Offer {
                    request_id, attempt, ..
                }) => {
                    socket.answer(&request_id.into(), attempt, true).await;
                }
                Ok(ToDriver::State {
                    state,
                    trip_id: Some(trip),
                }) => {
                    let event = if state == "on_trip" { "complete" } else { "pickup" };
                    socket.trip(&trip.into(), event).await;
                }
                Ok(ToDriver::State { state, .. }) if state == "available" => {
                    let _ = freed.send(Id::clone(&driver));
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}

/// Posts at the rate, each to one free driver; gives when each was due. Returns when all is over, or should be.
async fn load(
    api: &Api,
    observer: &Arc<Observer>,
    free: &mut UnboundedReceiver<Id>,
    mut ready: VecDeque<Id>,
    seed: u64,
) -> BTreeMap<Id, Duration> {
    let (begin, epoch) = (Instant::now(), observer.elapsed());
    let mut due = BTreeMap::new();
    let mut posts = JoinSet::new();
    for number in 0..REQUESTS {
        let after = Duration::from_secs_f64(f64::from(number) / RATE);
        sleep_until(begin + after).await;
        while let Ok(driver) = free.try_recv() {
            ready.push_back(driver);
        }
        // None is free: the machine is slower than the rate, and the request comes late, which counts.
        let Some(driver) = (match ready.pop_front() {
            Some(driver) => Some(driver),
            None => timeout(REST_MAX, free.recv()).await.ok().flatten(),
        }) else {
            break;
        };
        let request = Id::from(format!("offer-{seed}-{number:05}"));
        due.insert(Id::clone(&request), epoch + after);
        let body = json!({
            "request_id": &*request, "driver_id": &*driver, "offer_timeout_ms": 10_000, "deadline_ms": 15_000, "trip": {"number": number},
        });
        let first = true;
        let (api, post) = (api.clone(), Post { request, first, body });
        posts.spawn(async move { api.offer(&post).await });
        while posts.try_join_next().is_some() {}
    }
    // All drivers are free again when everything is over.
    let over = async {
        while posts.join_next().await.is_some() {}
        while ready.len() < DRIVERS
            && let Some(driver) = free.recv().await
        {
            ready.push_back(driver);
        }
    };
    let _ = timeout(REST_MAX, over).await;
    due
}

/// Counters of decisions by Cassandra, summed over the nodes.
async fn decisions(town: &Town) -> BTreeMap<String, f64> {
    let mut found: BTreeMap<String, f64> = BTreeMap::new();
    for index in 0..town.size() {
        let text = town.metrics(index).await.unwrap_or_default();
        for (name, value) in metrics::samples(&text) {
            if name.split('{').next() == Some(DECISIONS) {
                *found.entry(name.to_owned()).or_default() += value;
            }
        }
    }
    found
}

fn figures(
    observations: &[Observation],
    due: &BTreeMap<Id, Duration>,
    before: &BTreeMap<String, f64>,
    after: &BTreeMap<String, f64>,
) -> Run {
    let (mut answered, mut offered, mut confirmed) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut posted = 0.0;
    let mut unserved = 0.0;
    for observation in observations {
        let at = observation.at;
        match &observation.seen {
            Seen::Api(OnApi::Answered { request, status, .. }) if (200..300).contains(status) => {
                posted += f64::from(u8::from(answered.insert(&**request, at).is_none()));
            }
            Seen::Socket(_, OnSocket::Offer { request, .. }) => {
                offered.entry(&**request).or_insert(at);
            }
            Seen::Socket(
                _,
                OnSocket::Outcome {
                    request,
                    outcome: Outcome::Confirmed(_),
                    ..
                },
            ) => {
                confirmed.entry(&**request).or_insert(at);
            }
            Seen::Unserved(_) => unserved += 1.0,
            _ => {}
        }
    }
    let mut run = Run::default();
    let missing = u64::from(REQUESTS) - due.len() as u64;
    if missing > 0 {
        let example = "no driver became free for them".to_owned();
        run.faults
            .merge("requests that could not be posted".to_owned(), missing, example);
    }
    let first = due.values().min().copied().unwrap_or_default();
    run.add("requests", "", due.len() as f64);
    run.add("unserved_calls", "", unserved);
    for (name, seen) in [
        ("post_to_202", &answered),
        ("post_to_offer", &offered),
        ("post_to_confirmed", &confirmed),
    ] {
        let mut latencies = Latencies::new();
        for (request, due) in due {
            match seen.get(&**request) {
                // What comes first warms all up.
                Some(_) if *due < first + WARM_UP => {}
                Some(at) => latencies.record(at.saturating_sub(*due).as_nanos() as u64),
                None => run
                    .faults
                    .add("not answered, offered or confirmed", || format!("{request}: no {name}")),
            }
        }
        run.add(format!("{name}_p50"), "ms", latencies.quantile_ms(0.5));
        run.add(format!("{name}_p99"), "ms", latencies.quantile_ms(0.99));
    }
    let mut all = 0.0;
    for (name, value) in after {
        let each = (value - before.get(name).copied().unwrap_or(0.0)) / posted;
        run.add(format!("per request: {name}"), "", each);
        all += each;
    }
    // From claim to the trip's end. Not a number: the nodes count none.
    run.add("lwt_per_request", "", if after.is_empty() { f64::NAN } else { all });
    run
}
