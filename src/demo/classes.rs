//! The mini-scenario about priority classes: drivers apart from the fleet, each of whom holds an offer while six requests,
//! two of each class, begin to wait for it. Then the driver declines one offer after the other, and the order in which they
//! come is the order of service.

use super::api::{Api, Post};
use super::drivers::World;
use super::messages::{Id, ToDriver};
use super::observe::ClassRound;
use super::socket::Socket;
use serde_json::json;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// Drivers of one run of the scenario.
const DRIVERS: usize = 8;
/// Classes of the requests in the order in which they are posted: the last first, so that the queue has to turn them round.
const POSTED: [(u8, &str); 6] = [
    (2, "economy"),
    (1, "standard"),
    (0, "premium"),
    (2, "economy"),
    (1, "standard"),
    (0, "premium"),
];
/// How far apart a round's requests may come, at nodes with the default settings: a class that has waited longer than another
/// by the ageing step (`ingress_age_step_ms`, 2 s) is allowed to go before it.
pub const SPREAD_MAX: Duration = Duration::from_millis(1500);
/// Longest wait for anything in a round.
const STEP_MAX: Duration = Duration::from_secs(5);
/// After a request was seen waiting: time for its place in the driver's queue to be taken.
const SETTLE: Duration = Duration::from_millis(40);

/// Runs the scenario once with drivers of its own; rounds that a lost connection made void, or whose requests came further apart than
/// `spread_max` (below the nodes' ageing step), are left out.
pub async fn run(world: &World, name: &str, spread_max: Duration) -> Vec<ClassRound> {
    let mut rounds = JoinSet::new();
    for number in 0..DRIVERS {
        let world = world.clone();
        let driver = Id::from(format!("class-{name}-{number}"));
        rounds.spawn(async move { round(&world, &driver, spread_max).await });
    }
    let rounds = rounds.join_all().await;
    rounds.into_iter().flatten().collect()
}

async fn round(world: &World, driver: &Id, spread_max: Duration) -> Option<ClassRound> {
    let address = world.api.place_of(driver, 0).await?;
    let mut socket = Socket::connect(address, driver, &world.observer).await.ok()?;
    let blocker = Id::from(format!("{driver}-first"));
    let played = serve(world, (driver, &blocker), &mut socket, spread_max).await;
    for request in (0..POSTED.len()).map(|place| name_of(driver, place)).chain([blocker]) {
        world.api.cancel(&request).await;
    }
    drain(&mut socket).await;
    // A lost connection makes the round void; what its requests came to is judged all the same.
    let alive = world
        .api
        .driver_state(driver)
        .await
        .is_some_and(|state| state == "available");
    socket.vanish();
    let (waited, served) = played.filter(|_| alive)?;
    Some(ClassRound {
        driver: Id::clone(driver),
        waited,
        served,
    })
}

/// Who waited, by class, and who was served, each in order; `None`: the round says nothing.
async fn serve(
    world: &World,
    (driver, blocker): (&Id, &Id),
    socket: &mut Socket,
    spread_max: Duration,
) -> Option<(Vec<(u8, Id)>, Vec<Id>)> {
    post(&world.api, driver, blocker, "standard").await?;
    let (held, attempt) = next_offer(socket).await?;
    let waited = queue_up(world, driver, socket, spread_max).await?;
    let mut served = Vec::new();
    socket.answer(&held, attempt, false).await;
    for _ in POSTED {
        // Nobody next within the time: the queue forgot somebody, and the round shows it.
        let Some((request, attempt)) = next_offer(socket).await else {
            break;
        };
        served.push(Id::clone(&request));
        socket.answer(&request, attempt, false).await;
    }
    Some((waited, served))
}

fn name_of(driver: &str, place: usize) -> Id {
    format!("{driver}-{place}").into()
}

/// Posts the six one after the other; `None` when they came too far apart, or one could not be posted.
async fn queue_up(world: &World, driver: &Id, socket: &mut Socket, spread_max: Duration) -> Option<Vec<(u8, Id)>> {
    let begin = Instant::now();
    let mut waited = Vec::new();
    for (place, (class, class_name)) in POSTED.into_iter().enumerate() {
        let request = name_of(driver, place);
        post(&world.api, driver, &request, class_name).await?;
        until_waiting(world, &request, driver).await?;
        waited.push((class, request));
    }
    let spread = begin.elapsed();
    // Anything heard now would be an offer that did not wait; it stays in the log for the auditor.
    let early = timeout(SETTLE, socket.next()).await;
    (spread < spread_max && early.is_err()).then_some(waited)
}

async fn until_waiting(world: &World, request: &Id, driver: &Id) -> Option<()> {
    let begin = Instant::now();
    while begin.elapsed() < STEP_MAX {
        if world.api.request(request).await?.state == "PENDING_MATCH" {
            // The way to the driver's home and back: what was sent there before has arrived.
            world.api.driver_state(driver).await?;
            sleep(SETTLE).await;
            return Some(());
        }
    }
    None
}

async fn post(api: &Api, driver: &Id, request: &Id, class: &str) -> Option<()> {
    let body = json!({
        "request_id": &**request, "driver_id": &**driver, "priority": class, "offer_timeout_ms": 30_000,
        "deadline_ms": 60_000, "busy_wait_ms": 20_000, "trip": {"scenario": "classes"},
    });
    let post = Post {
        request: Id::clone(request),
        first: true,
        body,
    };
    let (status, _) = api.offer(&post).await?;
    (status == 202).then_some(())
}

async fn next_offer(socket: &mut Socket) -> Option<(Id, u32)> {
    let hear = async {
        loop {
            match socket.next().await {
                Ok(ToDriver::Offer {
                    request_id, attempt, ..
                }) => return Some((Id::from(request_id), attempt)),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    let offer = timeout(STEP_MAX, hear).await.ok().flatten()?;
    socket.ack(&offer.0, offer.1).await;
    Some(offer)
}

/// Hears what is still to come.
async fn drain(socket: &mut Socket) {
    while let Ok(Ok(_)) = timeout(Duration::from_millis(300), socket.next()).await {}
}
