//! What a seed decides about a fleet: how many nodes, how fast what they share is, and what of it goes wrong.

use crate::plan::{Fault, FleetPlan, NODES_MAX, Plan, Shared};
use crate::rng::Rng;
use crate::swarm::{Case, SECOND_US, draw_fault};

/// Seeds from here on are of fleets.
pub const FIRST_SEED: u64 = 1_000_000;
/// Of its own, so that seeds of one node are as they were.
const STREAM: u64 = 900_002;

/// Draws the run of a fleet.
pub(crate) fn draw(seed: u64) -> Case {
    let mut case = Case::draw_alone(seed);
    let mut rng = Rng::stream(seed, STREAM);
    let nodes = rng.between(2, u64::from(NODES_MAX)) as u8;
    case.plan.fleet = Some(FleetPlan {
        nodes,
        tables_us: *rng.pick(&[(200, 1_500), (500, 8_000), (2_000, 60_000)]),
        tables_lost_permille: *rng.pick(&[0, 0, 3, 30]),
        registry_us: *rng.pick(&[(50, 400), (200, 5_000), (1_000, 40_000)]),
        links_us: *rng.pick(&[(50, 400), (200, 5_000), (1_000, 40_000)]),
    });
    let config = &mut case.plan.config;
    config.shards = rng.between(1, 3) as u16;
    config.fleet_redis_lease_ms = *rng.pick(&[600, 1_500, 3_000]);
    config.fleet_redis_timeout_ms = *rng.pick(&[200, 500]);
    config.fleet_cassandra_timeout_ms = *rng.pick(&[300, 1_000]);
    config.fleet_cassandra_writes_max = *rng.pick(&[4, 16, 64]);
    config.fleet_redis_driver_ttl_ms = (2 * config.heartbeat_ms).max(60_000);
    config.http_pipeline_max = config.http_pipeline_max.max(4);
    case.habits.pause_ms = case.habits.pause_ms.max(150);
    case.habits.requests = case.habits.requests.min(60);
    case.drivers = case.drivers.min(24);
    case.consumers_named = case.consumers_named.max(u32::from(nodes) - 1);
    let length_us = case.hours.close_us;
    let mut faults: Vec<(u64, Fault)> = case.plan.faults.drain(..).filter_map(of_a_node).collect();
    if rng.chance(850) {
        draw_faults(&mut rng, length_us, &mut faults);
    } else {
        // One that stays whole: nothing excuses it.
        faults.clear();
        if let Some(fleet) = &mut case.plan.fleet {
            fleet.tables_lost_permille = 0;
        }
    }
    faults.sort_by_key(|fault| fault.0);
    case.plan.faults = faults;
    case.settle();
    case
}

/// What can happen to a node alone happens to one of several as well. Their clocks agree: sessions and the order of writes
/// on lists rest on that (ARCHITECTURE.md, "A driver's connect"). And a bit that rots is found by the node that has it.
fn of_a_node((at_us, fault): (u64, Fault)) -> Option<(u64, Fault)> {
    let fault = match fault {
        Fault::BitRot { .. } => return None,
        Fault::Kill {
            after_steps, down_us, ..
        } => Fault::Kill {
            after_steps,
            down_us,
            clock_jump_us: 0,
        },
        Fault::PowerLoss {
            after_steps, down_us, ..
        } => Fault::PowerLoss {
            after_steps,
            down_us,
            clock_jump_us: 0,
        },
        other => other,
    };
    Some((at_us, fault))
}

/// Which kinds of faults of fleets a seed has, and when.
fn draw_faults(rng: &mut Rng, length_us: u64, faults: &mut Vec<(u64, Fault)>) {
    for kind in 0..KINDS {
        if !rng.chance(if kind < 3 { 400 } else { 180 }) {
            continue;
        }
        for _ in 0..rng.between(1, 3) {
            let at_us = rng.between(50_000, length_us - length_us / 5);
            faults.push((at_us, draw_kind(rng, kind)));
        }
    }
}

const KINDS: u64 = 14;

fn draw_kind(rng: &mut Rng, kind: u64) -> Fault {
    let for_us = rng.between(5_000, *rng.clone().pick(&[300_000, 2 * SECOND_US, 8 * SECOND_US]));
    let away = |what, by_all| Fault::Away { what, by_all, for_us };
    match kind {
        // Also longer than any lease.
        0 => Fault::Pause { for_us },
        1 => Fault::LostAnswers {
            for_us,
            permille: rng.between(20, 800) as u32,
        },
        2 => match draw_fault(rng, 0) {
            Fault::Kill {
                after_steps, down_us, ..
            } => Fault::Kill {
                after_steps,
                // Long enough to be taken for dead.
                down_us: down_us + rng.below(6) * SECOND_US,
                clock_jump_us: 0,
            },
            other => other,
        },
        3 => Fault::Drain {
            down_us: rng.between(1_000, 3 * SECOND_US),
        },
        4 => away(Shared::Tables, true),
        5 => away(Shared::Tables, false),
        6 => away(Shared::Registry, true),
        7 => away(Shared::Registry, false),
        8 => away(Shared::Links, true),
        9 => away(Shared::Links, false),
        10 => Fault::RegistryEmptied,
        11 => Fault::LinksCut,
        12 => slow(rng, for_us, Shared::Tables),
        _ => {
            let what = *rng.pick(&[Shared::Registry, Shared::Links]);
            slow(rng, for_us, what)
        }
    }
}

fn slow(rng: &mut Rng, for_us: u64, what: Shared) -> Fault {
    Fault::Slow {
        what,
        for_us,
        added_us: rng.between(1_000, 400_000),
    }
}

/// How much longer it takes until everything has come to rest: calls wait behind each other on their connections, each for tables
/// that are slow.
pub(crate) fn rest_us(plan: &Plan) -> u64 {
    if plan.fleet.is_some() { 60 * SECOND_US } else { 0 }
}

/// Whether a fleet has all of its nodes, what these share and the links between them at all times.
pub(crate) fn is_whole(plan: &Plan) -> bool {
    let loses = |fleet: &FleetPlan| fleet.tables_lost_permille > 0;
    plan.faults.is_empty() && plan.fleet.as_ref().is_some_and(|fleet| !loses(fleet))
}

/// Whether what one node says to another may be lost: with a node that ends, or a link that is cut. One that hangs hears it later.
pub(crate) fn may_lose_letters(plan: &Plan) -> bool {
    let keeps = |fault: &Fault| {
        matches!(
            fault,
            Fault::Pause { .. } | Fault::Slow { .. } | Fault::LostAnswers { .. }
        )
    };
    plan.faults.iter().any(|(_, fault)| !keeps(fault))
}

/// How long the nodes of a fleet that stays whole need to know each other: each reads the list now and then, and dials.
pub(crate) fn whole_after_us(plan: &Plan) -> Option<u64> {
    let lease_us = plan.config.fleet_redis_lease_ms * 1_000;
    is_whole(plan).then_some(2 * lease_us + SECOND_US)
}

/// How much longer anything may be under way in a fleet than in a node, milliseconds.
pub(crate) fn margin_ms(plan: &Plan) -> u64 {
    let Some(fleet) = &plan.fleet else { return 0 };
    let config = &plan.config;
    let ways_us = 12 * fleet.tables_us.1 + 6 * fleet.registry_us.1 + 12 * fleet.links_us.1;
    if is_whole(plan) {
        return ways_us / 1_000;
    }
    let mut ms = ways_us / 1_000 + 4 * config.fleet_cassandra_timeout_ms + 2 * config.fleet_redis_timeout_ms;
    ms += 2 * config.fleet_redis_lease_ms;
    for (_, fault) in &plan.faults {
        ms += match fault {
            Fault::Pause { for_us } | Fault::Away { for_us, .. } | Fault::LostAnswers { for_us, .. } => {
                2 * for_us / 1_000
            }
            Fault::Slow { added_us, .. } => 12 * added_us / 1_000,
            _ => 0,
        };
    }
    ms
}
