//! `kill -9` of one node after the other, each with open offers: how long until their drivers hear of them from a survivor, and
//! that every offer can still be taken, once.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dispatchd::demo::api::{Api, Post};
use dispatchd::demo::audit;
use dispatchd::demo::drivers::World;
use dispatchd::demo::messages::{Id, ToDriver};
use dispatchd::demo::observe::{Observer, Seen};
use dispatchd::demo::readback;
use dispatchd::demo::socket::Socket;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::play;
use super::town::Town;
use crate::measure::Latencies;
use crate::report::{Goal, Limit, Run};

/// Drivers connected to the node that is killed, and drivers of another node with an offer of it.
const NEAR: usize = 4;
const FAR: usize = 2;
/// For an offer to be heard before the kill.
const OFFER_MAX: Duration = Duration::from_secs(5);
/// For an offer to be heard again, and to be confirmed, after it: longer than what is promised, shorter than the offer.
const AGAIN_MAX: Duration = Duration::from_secs(20);
/// What one kill may take with all that follows.
pub const KILL_MAX: Duration = Duration::from_secs(120);
/// Time for an answer of the driver, ms, and for the search.
const OFFER_TIMEOUT_MS: u64 = 60_000;
const DEADLINE_MS: u64 = 90_000;
/// After so long without an outcome the driver answers once more.
const ANSWER_AGAIN: Duration = Duration::from_secs(1);
/// Pause between two tries to connect.
const RETRY: Duration = Duration::from_millis(50);

/// What the issue promises.
pub const GOALS: &[Goal] = &[
    Goal {
        what: "kill -9 → offer re-sent by a survivor, p99",
        figure: "kill_to_offer_again_p99",
        limit: Limit::AtMost(5000.0),
    },
    Goal {
        what: "requests lost by a kill",
        figure: "lost",
        limit: Limit::AtMost(0.0),
    },
    Goal {
        what: "requests won twice",
        figure: "doubles",
        limit: Limit::AtMost(0.0),
    },
];

/// A driver with an offer of the node that will be killed.
struct Held {
    driver: Id,
    request: Id,
    is_near: bool,
    socket: Socket,
}

/// What became of one.
struct Told {
    is_near: bool,
    /// From the kill to the offer on another socket; of a driver elsewhere, none is needed.
    again: Option<Duration>,
    /// From the kill to `CONFIRMED`.
    confirmed: Option<Duration>,
}

/// Kills so many times and audits the end.
///
/// # Errors
/// A node does not start again, or cannot be read at the end.
pub async fn run(town: &mut Town, kills: u32) -> io::Result<Run> {
    if town.size() < 2 {
        return Ok(super::table::missing("a takeover takes several nodes"));
    }
    let observer = Arc::new(Observer::default());
    let world = World {
        api: Api::of_fleet(town.http(), &town.addresses(), Arc::clone(&observer)),
        observer,
        tempo: play::TEMPO,
    };
    readback::enrol(&world.api).await.map_err(io::Error::other)?;
    let mut run = Run::default();
    let (mut again, mut confirmed) = (Latencies::new(), Latencies::new());
    let (mut offers, mut lost) = (0.0, 0.0);
    for kill in 0..kills {
        let victim = kill as usize % town.size();
        let held = offer_all(town, &world, victim, kill, &mut run).await;
        offers += held.len() as f64;
        for told in kill_and_hear(town, &world, victim, held).await {
            match told.again {
                Some(after) => again.record(after.as_nanos() as u64),
                None if told.is_near => run
                    .faults
                    .add("offers not heard again", || format!("kill {}", kill + 1)),
                None => {}
            }
            match told.confirmed {
                Some(after) => confirmed.record(after.as_nanos() as u64),
                None => lost += 1.0,
            }
        }
        town.start_again(victim).await?;
    }
    run.add("kills", "", f64::from(kills));
    run.add("open_offers", "", offers);
    for (name, latencies) in [("kill_to_offer_again", &again), ("kill_to_confirmed", &confirmed)] {
        run.add(format!("{name}_p50"), "ms", latencies.quantile_ms(0.5));
        run.add(format!("{name}_p99"), "ms", latencies.quantile_ms(0.99));
        run.add(format!("{name}_max"), "ms", latencies.max_ms());
    }
    run.add("lost", "", lost);
    if lost > 0.0 {
        run.faults.merge(
            "offers that could not be taken after the kill".to_owned(),
            lost as u64,
            String::new(),
        );
    }
    judge(town, &world, &mut run).await?;
    Ok(run)
}

/// Connects the drivers, and posts to the victim. Those who hear an offer are given.
async fn offer_all(town: &Town, world: &World, victim: usize, kill: u32, run: &mut Run) -> Vec<Held> {
    let addresses = town.addresses();
    let mut offering = JoinSet::new();
    for number in 0..NEAR + FAR {
        let is_near = number < NEAR;
        let at = if is_near {
            victim
        } else {
            (victim + 1) % addresses.len()
        };
        let (world, address) = (world.clone(), addresses[at]);
        let api = world.api.each().nth(victim);
        offering.spawn(async move {
            let driver = Id::from(format!("held-{kill}-{number}"));
            let request = Id::from(format!("taken-{kill}-{number}"));
            let mut socket = Socket::connect(address, &driver, &world.observer).await.ok()?;
            let body = json!({
                "request_id": &*request, "driver_id": &*driver, "offer_timeout_ms": OFFER_TIMEOUT_MS,
                "deadline_ms": DEADLINE_MS, "trip": {"kill": kill},
            });
            let first = true;
            let post = Post {
                request: Id::clone(&request),
                first,
                body,
            };
            let offering = async {
                api?.offer(&post).await?;
                offer_of(&mut socket, &request).await
            };
            if timeout(OFFER_MAX, offering).await.ok().flatten().is_none() {
                socket.vanish();
                world.api.cancel(&request).await;
                return None;
            }
            Some(Held {
                driver,
                request,
                is_near,
                socket,
            })
        });
    }
    let mut held = Vec::new();
    for offered in offering.join_all().await {
        match offered {
            Some(offered) => held.push(offered),
            None => run.faults.add("no offer before the kill", || {
                format!("kill {}: a driver of this or another node was not reached", kill + 1)
            }),
        }
    }
    held
}

/// Kills the node and lets every driver take its offer, wherever it hears of it.
async fn kill_and_hear(town: &mut Town, world: &World, victim: usize, held: Vec<Held>) -> Vec<Told> {
    let mut hearing = JoinSet::new();
    let mut starts = Vec::new();
    for held in held {
        let (start, started) = oneshot::channel();
        starts.push(start);
        let world = world.clone();
        hearing.spawn(async move {
            // Dropped only with the stage.
            let killed = started.await.unwrap_or_else(|_| Instant::now());
            take(&world, held, killed).await
        });
    }
    world.observer.note(Seen::NodeKilled);
    town.kill(victim);
    let killed = Instant::now();
    for start in starts {
        let _ = start.send(killed);
    }
    hearing.join_all().await
}

/// What a driver does when its node, or the node of its offer, is gone.
async fn take(world: &World, held: Held, killed: Instant) -> Told {
    let Held {
        driver,
        request,
        is_near,
        socket,
    } = held;
    let mut told = Told {
        is_near,
        again: None,
        confirmed: None,
    };
    let mut socket = Some(socket);
    if is_near && let Some(lost) = socket.take() {
        lost.vanish();
    }
    let taking = async {
        for tries in 0.. {
            let session = match socket.take() {
                Some(session) => Some(session),
                None => connect(world, &driver, tries).await,
            };
            let Some(mut session) = session else {
                sleep(RETRY).await;
                continue;
            };
            if is_near || tries > 0 {
                let Some(_) = offer_of(&mut session, &request).await else {
                    continue;
                };
                told.again.get_or_insert(killed.elapsed());
            }
            if let Some(trip) = accept(&mut session, &request).await {
                told.confirmed = Some(killed.elapsed());
                session.trip(&trip, "cancel").await;
                until_free(&mut session).await;
                session.vanish();
                return;
            }
        }
    };
    // What is not heard by then is lost, as the caller counts it.
    if timeout(AGAIN_MAX, taking).await.is_err() {
        world.api.cancel(&request).await;
    }
    told
}

async fn connect(world: &World, driver: &Id, tries: u32) -> Option<Socket> {
    let address = world.api.place_of(driver, tries).await?;
    Socket::connect(address, driver, &world.observer).await.ok()
}

/// The attempt under which the request is offered; `None`: the session is over.
async fn offer_of(socket: &mut Socket, request: &Id) -> Option<u32> {
    loop {
        if let ToDriver::Offer {
            request_id, attempt, ..
        } = socket.next().await.ok()?
            && *request_id == **request
        {
            return Some(attempt);
        }
    }
}

/// Accepts until the driver has the trip; `None`: the session is over.
async fn accept(socket: &mut Socket, request: &Id) -> Option<Id> {
    loop {
        socket.answer(request, 1, true).await;
        if let Ok(heard) = timeout(ANSWER_AGAIN, confirmed(socket, request)).await {
            return heard;
        }
    }
}

async fn confirmed(socket: &mut Socket, request: &Id) -> Option<Id> {
    loop {
        if let ToDriver::Confirmed {
            request_id, trip_id, ..
        } = socket.next().await.ok()?
            && *request_id == **request
        {
            return Some(trip_id.into());
        }
    }
}

async fn until_free(socket: &mut Socket) {
    while let Ok(message) = socket.next().await {
        if matches!(&message, ToDriver::State { state, .. } if state == "available") {
            return;
        }
    }
}

/// The seven invariants over all kills but that of queues, in which nobody stood.
async fn judge(town: &Town, world: &World, run: &mut Run) -> io::Result<()> {
    play::until_carried(town).await;
    let (evidence, _) = play::evidence(world, Vec::new(), Vec::new(), 0).await?;
    let verdicts = audit::judge(&evidence);
    run.add("doubles", "", verdicts[0].violations as f64);
    for verdict in verdicts.iter().filter(|verdict| verdict.violations > 0) {
        let what = format!("{}. {}", verdict.number, verdict.name);
        run.faults.merge(what, verdict.violations, verdict.examples.join("; "));
    }
    Ok(())
}
