//! Starts of a node whose shards are ready at very different times, with offers that end meanwhile.

use dispatchd_sim::actors::{Habits, Temper};
use dispatchd_sim::plan::{Fault, Network};
use dispatchd_sim::run;
use dispatchd_sim::swarm::Case;

/// A kill under many parallel offers that are short, and shards whose first segment takes very different times: a request hears
/// that one driver is gone or busy, and finds another one's time over, while that one's home is still writing what it inherits.
fn stragglers(seed: u64) -> Case {
    let mut case = Case::draw(seed);
    (case.drivers, case.callers, case.consumers_named) = (24, 3, 0);
    let plan = &mut case.plan;
    plan.config.shards = 8;
    plan.config.driver_ttl_ms = 60_000;
    plan.network = Network {
        delay_us: (20, 200),
        hold_permille: 0,
        reset_permille: 0,
        ..plan.network.clone()
    };
    plan.pace.turn_us = (2, 20);
    plan.pace.write_us = (10_000, 60_000);
    plan.pace.segment_us = (1_000, 800_000);
    plan.pace.start_step_us = (50, 500);
    let fault = Fault::Kill {
        after_steps: 0,
        down_us: 20_000,
        clock_jump_us: 0,
    };
    plan.faults = vec![(2_000_000 + seed * 10_000, fault)];
    case.habits = Habits {
        requests: 100,
        pause_ms: 20,
        burst: 2,
        parallel: 1_000,
        busy_wait: 0,
        single: 0,
        candidates: 12,
        offer_timeout_ms: 800,
        deadline_ms: 8_000,
        ..case.habits
    };
    case.temper = Temper {
        accept: 500,
        decline: 100,
        by_http: 0,
        vanish: 0,
        off_shift: 50,
        think_ms: 200,
        trip_ms: 400,
        first_ms: 20,
        reconnect_ms: 20,
        ..case.temper
    };
    case.hours.close_us = 4_000_000;
    case.settle();
    case
}

#[test]
fn nobody_is_bound_to_an_offer_that_ended_while_the_node_started() {
    for seed in 1..=12 {
        let outcome = run::once(&stragglers(seed), false);
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}
