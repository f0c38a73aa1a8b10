//! How soon an offer is on a driver's socket when Cassandra has to decide first that it may be made: requests to any node for
//! drivers of any node, each accepted. And how many decisions each request costs.
//!
//! Cassandra is warmed up first, once. Then the rate rises for a while and is fixed, which is measured.
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
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::metrics;
use super::town::Town;
use crate::measure::Latencies;
use crate::report::{Goal, Limit, Run};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Requests per second.
    rate: f64,
    /// Connected drivers.
    pub drivers: usize,
    /// Whether trips are driven to their ends, at once, and so each driver has many; else each has one offer at most.
    rides: bool,
}

/// Each offer is accepted. Trips last longer than the run.
pub const OFFERS: Work = Work {
    rate: 100.0,
    drivers: (100.0 * SECONDS_AT_RATE) as usize + 1,
    rides: false,
};

/// Whole rides: twice as many decisions for each.
pub const RIDES: Work = Work {
    rate: 40.0,
    drivers: 240,
    rides: true,
};

/// What Cassandra is warmed up by.
const WARMERS: Work = Work {
    rate: 0.0,
    drivers: 24,
    rides: true,
};
/// Rides are counted for so long. It is warm when so many stretches in a row brought no more than the best one before them, or after so
/// many in all.
const WARM_STRETCH: Duration = Duration::from_secs(15);
const WARM_STRETCHES_LEVEL: u32 = 3;
const WARM_STRETCHES_MAX: u32 = 24;

/// The rate rises for so long, which is not measured, and stays for so long.
const RAMP_S: f64 = 30.0;
const LASTS_S: f64 = 20.0;
/// All of it counted in seconds at the full rate.
const SECONDS_AT_RATE: f64 = RAMP_S / 2.0 + LASTS_S;
/// Until all drivers are connected, and until all that was posted is over.
const CONNECT_MAX: Duration = Duration::from_secs(30);
const REST_MAX: Duration = Duration::from_secs(20);
/// Between two heartbeats of a driver; a node asks for one in 30 s.
const PING_EVERY: Duration = Duration::from_secs(20);
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
pub async fn run(town: &mut Town, work: Work, seed: u64) -> io::Result<Run> {
    let observer = Arc::new(Observer::default());
    let api = Api::of_fleet(town.http(), &town.addresses(), Arc::clone(&observer));
    let (mut drivers, ready, hears) = connect(&api, &observer, work, seed).await?;
    let before = decisions(town).await;
    let due = load(&api, &observer, work, hears, ready, seed).await;
    let after = decisions(town).await;
    drivers.shutdown().await;
    Ok(figures(&observer.snapshot(), work, &due, &before, &after))
}

/// Drives rides, as many at once as there are drivers and no more, until Cassandra has become as fast as it will: a Java process
/// compiles what it does most while it does it, for minutes, and is several times as slow until then.
///
/// # Errors
/// Drivers cannot connect, or nothing comes about.
pub async fn warm(town: &mut Town, seed: u64) -> io::Result<()> {
    let observer = Arc::new(Observer::counting());
    let api = Api::of_fleet(town.http(), &town.addresses(), Arc::clone(&observer));
    let (mut drivers, ready, mut hears) = connect(&api, &observer, WARMERS, seed).await?;
    let mut posts = JoinSet::new();
    let mut number = 0_u32;
    let mut post = |driver: Id| {
        number += 1;
        let (api, post) = (api.clone(), post_of(&format!("warm-{seed}-{number:06}"), &driver));
        posts.spawn(async move { api.offer(&post).await });
        while posts.try_join_next().is_some() {}
    };
    ready.into_iter().for_each(&mut post);
    let (mut best, mut since_best) = (0, 0);
    for stretch in 0..WARM_STRETCHES_MAX {
        let (end, mut rides) = (Instant::now() + WARM_STRETCH, 0);
        while let Ok(Some(driver)) = timeout_at(end, hears.free.recv()).await {
            rides += 1;
            post(driver);
        }
        eprintln!(
            "warming up: {:.0} rides/s",
            f64::from(rides) / WARM_STRETCH.as_secs_f64()
        );
        if rides == 0 && stretch > 0 {
            return Err(io::Error::other("no ride has ended"));
        }
        // A little more is noise.
        if f64::from(rides) > 1.05 * f64::from(best) {
            (best, since_best) = (rides, 0);
        } else {
            since_best += 1;
        }
        if since_best == WARM_STRETCHES_LEVEL {
            break;
        }
    }
    drivers.shutdown().await;
    Ok(())
}

/// Connects all drivers; gives those who are free, and what is heard of them from then on.
async fn connect(
    api: &Api,
    observer: &Arc<Observer>,
    work: Work,
    seed: u64,
) -> io::Result<(JoinSet<()>, VecDeque<Id>, Hears)> {
    let (freed, mut free) = unbounded_channel();
    let (confirmed, settled) = unbounded_channel();
    let mut drivers = JoinSet::new();
    for number in 0..work.drivers {
        let driver = Id::from(format!("driver-{seed}-{number}"));
        let tell = Tell {
            freed: freed.clone(),
            confirmed: confirmed.clone(),
        };
        drivers.spawn(drive(api.clone(), Arc::clone(observer), driver, work.rides, tell));
    }
    let mut ready = VecDeque::new();
    let connecting = async {
        while ready.len() < work.drivers
            && let Some(driver) = free.recv().await
        {
            ready.push_back(driver);
        }
    };
    let connected = timeout(CONNECT_MAX, connecting).await;
    connected.map_err(|_| io::Error::other("drivers are not connected in time"))?;
    Ok((drivers, ready, Hears { free, settled }))
}

/// A request for this driver.
fn post_of(request: &str, driver: &Id) -> Post {
    let request = Id::from(request.to_owned());
    let body = json!({
        "request_id": &*request, "driver_id": &**driver, "offer_timeout_ms": 10_000, "deadline_ms": 15_000, "trip": {"number": &*request},
    });
    Post {
        request,
        first: true,
        body,
    }
}

/// What drivers tell.
struct Tell {
    /// Who is free.
    freed: UnboundedSender<Id>,
    /// That a trip is one's own.
    confirmed: UnboundedSender<()>,
}

/// What is heard of drivers.
struct Hears {
    free: UnboundedReceiver<Id>,
    settled: UnboundedReceiver<()>,
}

/// One driver: takes every offer, and drives the trip to its end if it `rides`.
async fn drive(api: Api, observer: Arc<Observer>, driver: Id, rides: bool, tell: Tell) {
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
                    let _ = tell.freed.send(Id::clone(&driver));
                }
                Ok(ToDriver::Offer {
                    request_id, attempt, ..
                }) => {
                    socket.answer(&request_id.into(), attempt, true).await;
                }
                Ok(ToDriver::Confirmed { .. }) => {
                    let _ = tell.confirmed.send(());
                }
                Ok(ToDriver::State {
                    state,
                    trip_id: Some(trip),
                }) if rides => {
                    let event = if state == "on_trip" { "complete" } else { "pickup" };
                    socket.trip(&trip.into(), event).await;
                }
                Ok(ToDriver::State { state, .. }) if state == "available" => {
                    let _ = tell.freed.send(Id::clone(&driver));
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
}

/// When the request of this number is due, after the first: the rate rises from nothing, and is fixed then.
fn due_after(work: Work, number: u32) -> Duration {
    let at_rate_s = f64::from(number) / work.rate;
    let after_s = if at_rate_s < RAMP_S / 2.0 {
        (2.0 * RAMP_S * at_rate_s).sqrt()
    } else {
        at_rate_s + RAMP_S / 2.0
    };
    Duration::from_secs_f64(after_s)
}

/// How many there are.
fn requests(work: Work) -> u32 {
    (work.rate * SECONDS_AT_RATE) as u32
}

/// Posts, each to one free driver; gives when each was due. Returns when all is over, or should be.
async fn load(
    api: &Api,
    observer: &Arc<Observer>,
    work: Work,
    mut hears: Hears,
    mut ready: VecDeque<Id>,
    seed: u64,
) -> BTreeMap<Id, Duration> {
    let (begin, epoch) = (Instant::now(), observer.elapsed());
    let mut due = BTreeMap::new();
    let mut posts = JoinSet::new();
    for number in 0..requests(work) {
        let after = due_after(work, number);
        sleep_until(begin + after).await;
        while let Ok(driver) = hears.free.try_recv() {
            ready.push_back(driver);
        }
        // None is free: the machine is slower than the rate, and the request comes late, which counts.
        let Some(driver) = (match ready.pop_front() {
            Some(driver) => Some(driver),
            None => timeout(REST_MAX, hears.free.recv()).await.ok().flatten(),
        }) else {
            break;
        };
        let post = post_of(&format!("offer-{seed}-{number:05}"), &driver);
        due.insert(Id::clone(&post.request), epoch + after);
        let api = api.clone();
        posts.spawn(async move { api.offer(&post).await });
        while posts.try_join_next().is_some() {}
    }
    let posted = due.len();
    let over = async {
        while posts.join_next().await.is_some() {}
        for _ in 0..posted {
            hears.settled.recv().await;
        }
        // And the last trips.
        while work.rides
            && ready.len() < work.drivers
            && let Some(driver) = hears.free.recv().await
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
    work: Work,
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
    let missing = u64::from(requests(work)) - due.len() as u64;
    if missing > 0 {
        let example = "no driver became free for them".to_owned();
        run.faults
            .merge("requests that could not be posted".to_owned(), missing, example);
    }
    let first = due.values().min().copied().unwrap_or_default();
    let ramp = Duration::from_secs_f64(RAMP_S);
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
                Some(_) if *due < first + ramp => {}
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
    // Not a number: the nodes count none.
    run.add("lwt_per_request", "", if after.is_empty() { f64::NAN } else { all });
    run
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_stays() {
        let at = |number| due_after(OFFERS, number).as_secs_f64();
        let (middle, last) = ((OFFERS.rate * RAMP_S / 2.0) as u32, requests(OFFERS));
        assert!(at(0).abs() < 1e-6);
        assert!((at(middle) - RAMP_S).abs() < 1e-6 && (at(last) - RAMP_S - LASTS_S).abs() < 1e-6);
        let gap = |number| at(number + 1) - at(number);
        assert!((gap(middle) - 0.01).abs() < 1e-6 && gap(middle / 4) > 0.019 && gap(middle / 4) < 0.021);
        assert!((0..last).all(|number| gap(number) > 0.0));
        assert!(OFFERS.drivers >= last as usize);
    }
}
