//! Makes a failing case smaller while the same check fails: fewer faults, fewer clients, fewer requests, less mischief, a
//! shorter run. Greedy, bounded in time.

use crate::checks::Check;
use crate::plan::Network;
use crate::run;
use crate::swarm::Case;
use std::time::{Duration, Instant};

/// Shrinks; returns the smallest case found and how many were tried.
pub fn shrink(case: &Case, check: Check, most: Duration) -> (Case, u32) {
    let begun = Instant::now();
    let mut best = case.clone();
    let mut tried = 0;
    loop {
        let mut better = false;
        for smaller in steps(&best) {
            if begun.elapsed() > most {
                return (best, tried);
            }
            tried += 1;
            let fails = run::once(&smaller, false)
                .violation
                .is_some_and(|found| found.check == check);
            if fails {
                best = smaller;
                better = true;
                break;
            }
        }
        if !better {
            return (best, tried);
        }
    }
}

/// Cases that are a little smaller, the biggest steps first.
fn steps(case: &Case) -> Vec<Case> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Case)| {
        let mut smaller = case.clone();
        change(&mut smaller);
        smaller.settle();
        all.push(smaller);
    };
    let count = case.plan.faults.len();
    if count > 1 {
        with(&|case| case.plan.faults.truncate(count / 2));
        with(&|case| {
            case.plan.faults.drain(..count / 2);
        });
    }
    for index in 0..count {
        with(&|case| {
            case.plan.faults.remove(index);
        });
    }
    if case.habits.requests > 1 {
        with(&|case| case.habits.requests /= 2);
        with(&|case| case.habits.requests -= 1);
    }
    if case.callers > 1 {
        with(&|case| case.callers = 1);
        with(&|case| case.callers -= 1);
    }
    if case.drivers > 1 {
        with(&|case| case.drivers = case.drivers.div_ceil(2));
        with(&|case| case.drivers -= 1);
    }
    if case.consumers_named > 0 {
        with(&|case| case.consumers_named = 0);
    }
    if case.plan.config.shards > 1 {
        with(&|case| case.plan.config.shards = 1);
        with(&|case| case.plan.config.shards -= 1);
    }
    if case.hours.close_us > 2_000_000 {
        with(&|case| case.hours.close_us /= 2);
    }
    calm_clients(case, &mut with);
    if case.plan.network.reset_permille + case.plan.network.hold_permille > 0 {
        with(&|case| {
            case.plan.network = Network {
                hold_permille: 0,
                reset_permille: 0,
                ..case.plan.network.clone()
            };
        });
    }
    if case.plan.network.piece_bytes_max < 65_536 {
        with(&|case| case.plan.network.piece_bytes_max = 65_536);
    }
    all
}

/// Takes a change to a case that may make it calmer.
type With<'a> = &'a mut dyn FnMut(&dyn Fn(&mut Case));

/// Without one kind of mischief each.
fn calm_clients(case: &Case, with: With<'_>) {
    type Knob = fn(&mut Case) -> &mut u32;
    let knobs: [Knob; 25] = [
        |case| &mut case.temper.by_http,
        |case| &mut case.temper.vanish,
        |case| &mut case.temper.double,
        |case| &mut case.temper.stray,
        |case| &mut case.temper.off_shift,
        |case| &mut case.temper.displace,
        |case| &mut case.temper.stall,
        |case| &mut case.temper.drop,
        |case| &mut case.temper.garbage,
        |case| &mut case.temper.silent,
        |case| &mut case.temper.violate,
        |case| &mut case.temper.give_up,
        |case| &mut case.habits.twins,
        |case| &mut case.habits.repeats,
        |case| &mut case.habits.cancels,
        |case| &mut case.habits.trip_cancels,
        |case| &mut case.habits.responses,
        |case| &mut case.habits.views,
        |case| &mut case.habits.probes,
        |case| &mut case.habits.welcomes,
        |case| &mut case.habits.resyncs,
        |case| &mut case.habits.busy_wait,
        |case| &mut case.habits.parallel,
        |case| &mut case.habits.single,
        |case| &mut case.habits.rude,
    ];
    for knob in knobs {
        if *knob(&mut case.clone()) > 0 {
            with(&|case| *knob(case) = 0);
        }
    }
}
