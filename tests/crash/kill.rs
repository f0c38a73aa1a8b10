//! `kill -9`, fifty times at random instants under load.

use crate::load::{self, Phase, World};
use crate::support::{Node, Setup, api, eventually};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

const KILLS: usize = 50;
const DRIVERS: usize = 24;
const CALLERS: usize = 3;
/// Longest time between two kills.
const UPTIME_MS_MAX: u64 = 700;
/// Longest wait before a node that is still recovering is killed again.
const RECOVERY_MS_MAX: u64 = 60;
/// Violations that a failure shows.
const SHOWN_MAX: usize = 20;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// V.1, V.3, V.4, V.7, H7.2, H9.8, W2.2: no 2xx is lost, no `CONFIRMED` lost or doubled, every audit grows only at its end,
/// events once published stay as they are, every request comes to an end, one winner each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_or_doubled() {
    let seed = setting("CRASH_SEED", 1);
    let kills = setting("CRASH_KILLS", KILLS as u64);
    println!("repeat with: CRASH_SEED={seed} CRASH_KILLS={kills} cargo test --test crash kill");
    let mut node = Setup::shards(2).start().await;
    let (phase, watching) = watch::channel(Phase::Load);
    let world = World::new(node.address, seed, DRIVERS, watching);
    let mut clients = JoinSet::new();
    for number in 0..world.driver_count() {
        clients.spawn(load::drive(world.clone(), number));
    }
    for number in 0..CALLERS {
        clients.spawn(load::call(world.clone(), number));
    }
    clients.spawn(load::engine(world.clone()));
    kill_again_and_again(&mut node, seed, kills).await;
    phase.send_replace(Phase::Ending);
    let taken: Vec<String> = world.ledger().taken.iter().cloned().collect();
    for request_id in &taken {
        until_ended(&node, request_id).await;
    }
    phase.send_replace(Phase::Over);
    while let Some(ended) = clients.join_next().await {
        ended.expect("a client that does not panic");
    }
    node.crash_and_restart().await;
    verdict(&node, &world, &taken).await;
}

async fn kill_again_and_again(node: &mut Node, seed: u64, kills: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut done = 0;
    while done < kills {
        // The instant is random on purpose; nothing below depends on what has happened until then.
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..UPTIME_MS_MAX))).await;
        assert!(node.is_running(), "the node ended by itself after {done} kills");
        node.kill_9();
        done += 1;
        node.spawn();
        if rng.random_bool(0.2) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..RECOVERY_MS_MAX))).await;
            node.kill_9();
            done += 1;
            node.spawn();
        }
        node.until_ready().await;
    }
}

async fn until_ended(node: &Node, request_id: &str) {
    let what = format!("an end of {request_id}");
    eventually(&what, || async {
        let answer = node.get(&format!("/v1/dispatch/request/{request_id}")).await;
        if answer.status != 200 {
            // Lost: the verdict says so.
            return Some(());
        }
        let state = answer.json();
        let state = state["state"].as_str().unwrap_or_default();
        ["ACCEPTED", "CANCELLED", "UNFULFILLED"].contains(&state).then_some(())
    })
    .await;
}

/// Reads everything back and compares it with what clients were told.
async fn verdict(node: &Node, world: &World, taken: &[String]) {
    let events = node.all_events().await;
    let mut lost: Vec<String> = Vec::new();
    {
        let mut ledger = world.ledger();
        let kept: std::collections::BTreeSet<String> = events.iter().map(api::cursor_text).collect();
        for cursor in ledger.events.keys().filter(|cursor| !kept.contains(*cursor)) {
            lost.push(format!("the event at {cursor} is gone"));
        }
        for event in &events {
            ledger.published(event);
        }
    }
    for request_id in taken {
        let answer = node.get(&format!("/v1/dispatch/request/{request_id}")).await;
        if answer.status != 200 {
            lost.push(format!("{request_id} was taken, and is answered {}", answer.status));
            continue;
        }
        let audit = node.audit(request_id).await;
        world.ledger().check_request(request_id, &answer.json(), audit);
    }
    let mut ledger = world.ledger();
    let unknown = ledger.confirmed.keys().filter(|id| !ledger.taken.contains(*id));
    // Posted, answered to nobody before the kill, and confirmed all the same: nothing is wrong with that.
    let unanswered = unknown.count();
    println!(
        "{} requests, {} trips ({} confirmations, {unanswered} of requests not answered), {} events, {} cancels",
        taken.len(),
        ledger.confirmed.len(),
        ledger.confirmations,
        ledger.events.len(),
        ledger.cancelled.len(),
    );
    lost.append(&mut ledger.violations);
    assert!(
        lost.is_empty(),
        "{} violations: {:#?}",
        lost.len(),
        &lost[..lost.len().min(SHOWN_MAX)]
    );
    assert!(!ledger.confirmed.is_empty(), "no trip at all: the load did not work");
}
