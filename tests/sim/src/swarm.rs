//! What a seed decides: sizes, settings, behaviours, and its own mix of faults. Every seed leaves most of what could go
//! wrong out, so that each kind also meets the others' absence.

use crate::actors::{Habits, Hours, Temper};
use crate::fleets;
use crate::ids::Style;
use crate::plan::{Fault, Network, Pace, Plan};
use crate::rng::Rng;
use crate::witness::Expect;
use dispatchd::config::Config;

/// Streams of a seed's random numbers that are not an actor's.
const STREAM_SWARM: u64 = 0;
/// Of its own, so that a seed without a scene is the same whatever scenes there are.
const STREAM_SCENE: u64 = 900_000;
/// Of its own for the same reason: how long the rings between shards are.
const STREAM_RINGS: u64 = 900_001;
/// Of its own for the same reason: when the store's queues are full. The one before is the fleets'.
const STREAM_FULL: u64 = 900_004;
/// First stream of actors.
pub const STREAM_ACTORS: u64 = 1;

pub(crate) const SECOND_US: u64 = 1_000_000;

/// A run: the world's plan, and who takes part.
#[derive(Clone, Debug)]
pub struct Case {
    /// The seed it was drawn from.
    pub seed: u64,
    /// The world.
    pub plan: Plan,
    /// How ids are written.
    pub style: Style,
    /// Drivers, 1–64.
    pub drivers: u32,
    /// Callers.
    pub callers: u32,
    /// Consumers of events with a name.
    pub consumers_named: u32,
    /// Consumers of events without.
    pub consumers: u32,
    /// How drivers behave.
    pub temper: Temper,
    /// How callers behave.
    pub habits: Habits,
    /// When they do.
    pub hours: Hours,
}

impl Case {
    /// Draws the run of a seed: of one node, or from [`fleets::FIRST_SEED`] on of several.
    pub fn draw(seed: u64) -> Self {
        if seed >= fleets::FIRST_SEED {
            return fleets::draw(seed);
        }
        Self::draw_alone(seed)
    }

    /// Draws the run of a node that is alone.
    pub(crate) fn draw_alone(seed: u64) -> Self {
        let mut rng = Rng::stream(seed, STREAM_SWARM);
        let length_us = rng.between(3, 40) * SECOND_US;
        let habits = draw_habits(&mut rng);
        let temper = draw_temper(&mut rng);
        let drivers = rng.between(1, *rng.clone().pick(&[3, 8, 24, 48])) as u32;
        let faults = draw_faults(&mut rng, length_us);
        let config = draw_config(&mut rng, &habits, &temper);
        let shards = config.shards;
        let commit_bytes_max = *rng.pick(&[COMMIT_BYTES_MIN, 128 << 10, 256 << 10, 1 << 20]);
        let style = *rng.pick(&Style::ALL);
        let network = draw_network(&mut rng);
        let pace = draw_pace(&mut rng);
        let mut case = Self {
            seed,
            plan: Plan {
                seed,
                config,
                commit_bytes_max,
                mail_ring_len: draw_ring_len(&mut Rng::stream(seed, STREAM_RINGS), shards),
                // Near a midnight, now and then, so that days change.
                wall_us: 1_767_225_600 * SECOND_US + rng.below(20) * 86_400 * SECOND_US - rng.below(60) * SECOND_US,
                network,
                pace,
                faults,
                faults_over_us: 0,
                end_us: 0,
                fleet: None,
            },
            style,
            drivers,
            callers: rng.between(1, 4) as u32,
            consumers_named: rng.below(3) as u32,
            consumers: 1,
            temper,
            habits,
            hours: Hours {
                close_us: length_us,
                give_up_us: 0,
                rest_us: 0,
                audit_us: 0,
            },
        };
        case.plan.config.journal_segment_bytes = segment_bytes(&mut rng, commit_bytes_max);
        case.stage(&mut Rng::stream(seed, STREAM_SCENE));
        case.fill_store(&mut Rng::stream(seed, STREAM_FULL));
        case.settle();
        case
    }

    /// Now and then the store's queues are full for a while, where other things go wrong as well.
    fn fill_store(&mut self, rng: &mut Rng) {
        if self.plan.faults.is_empty() || !rng.chance(150) {
            return;
        }
        let close_us = self.hours.close_us;
        for _ in 0..rng.between(1, 3) {
            let at_us = rng.between(50_000, close_us - close_us / 5);
            let for_us = rng.between(5_000, *rng.clone().pick(&[100_000, 3_000_000]));
            self.plan.faults.push((at_us, Fault::StoreFull { for_us }));
        }
        self.plan.faults.sort_by_key(|fault| fault.0);
    }

    /// How long the auditor may read before it counts as not answered: pages of a slow store take it minutes.
    const AUDIT_US_MAX: u64 = 600 * SECOND_US;

    /// Derives what follows from the rest: when faults are over, when the auditor reads, when the run ends.
    pub fn settle(&mut self) {
        let close_us = self.hours.close_us;
        // Some work is left for the calm after the faults.
        self.plan.faults_over_us = close_us - close_us / 5;
        let deadline_ms = self.habits.deadline_ms.max(u64::from(self.plan.config.deadline_ms));
        self.hours.give_up_us = close_us + 3 * SECOND_US;
        self.hours.rest_us = self.hours.give_up_us + (deadline_ms + 5_500) * 1_000 + fleets::rest_us(&self.plan);
        self.hours.audit_us = self.hours.rest_us + 5 * SECOND_US;
        self.plan.end_us = self.hours.audit_us + Self::AUDIT_US_MAX;
    }

    /// What the witness has to know.
    pub fn expect(&self, trace: bool) -> Expect {
        let any = |is: fn(&Fault) -> bool| self.plan.faults.iter().any(|(_, fault)| is(fault));
        Expect {
            style: self.style,
            nodes: self.plan.nodes(),
            whole_after_us: fleets::whole_after_us(&self.plan),
            drivers: self.drivers,
            may_refuse: any(|fault| matches!(fault, Fault::BitRot { .. })),
            may_fail: any(|fault| {
                matches!(
                    fault,
                    Fault::WriteError { .. } | Fault::ShortWrite { .. } | Fault::StoreError { .. }
                )
            }),
            may_drain: any(|fault| matches!(fault, Fault::Drain { .. })),
            drain_ms: self.plan.config.drain_ms,
            shards: self.plan.config.shards,
            order_margin_ms: self.order_margin_ms(),
            rings_have_room: self.plan.mail_ring_len == dispatchd::shard::mail_ring_len(self.plan.config.shards),
            inside_margin_ms: self.inside_margin_ms(),
            age_step_ms: self.plan.config.ingress_age_step_ms,
            heartbeat_ms: self.plan.config.heartbeat_ms,
            off_shift_memory_ms: self.plan.config.off_shift_memory_ms,
            output_stall_ms: self.plan.config.output_stall_ms,
            driver_ttl_ms: self.plan.config.driver_ttl_ms,
            offer_timeout_ms: self.plan.config.offer_timeout_ms.into(),
            deadline_ms: self.plan.config.deadline_ms.into(),
            may_shed: self.plan.config.ingress_queue_max < Config::default().ingress_queue_max,
            may_be_short: self.plan.config.journal_segment_bytes < 4 * self.plan.commit_bytes_max as u64,
            may_reset: self.plan.network.reset_permille > 0 || any(|fault| matches!(fault, Fault::Resets { .. })),
            may_lose_letters: fleets::may_lose_letters(&self.plan),
            trace,
        }
    }

    /// How long anything may be under way between a caller and a queue.
    fn order_margin_ms(&self) -> u64 {
        let (network, pace) = (&self.plan.network, &self.plan.pace);
        let mut us = 4 * (network.delay_us.1 + network.hold_us.1)
            + 20 * (pace.turn_us.1 + pace.wake_us.1)
            + 4 * (pace.store_lookup_us.1 + pace.store_round_us.1)
            + 2 * pace.write_us.1;
        for (_, fault) in &self.plan.faults {
            us += match fault {
                Fault::ShardStall { for_us, .. } => 2 * for_us,
                Fault::SlowDisk { write_us, .. } => 4 * write_us,
                Fault::SlowStore { action_us, .. } => 4 * action_us,
                Fault::SlowNetwork { delay_us, .. } => 4 * delay_us,
                _ => 0,
            };
        }
        50 + us / 1_000 + fleets::margin_ms(&self.plan)
    }

    /// How long what a request has decided may be under way to a driver's shard, or back: turns, wake-ups and commits. No
    /// connection and no store is on that way.
    fn inside_margin_ms(&self) -> u64 {
        let pace = &self.plan.pace;
        let mut us = 40 * (pace.turn_us.1 + pace.wake_us.1) + 6 * pace.write_us.1 + 4 * pace.segment_us.1;
        for (_, fault) in &self.plan.faults {
            us += match fault {
                Fault::ShardStall { for_us, .. } | Fault::DiskFull { for_us } => 2 * for_us,
                Fault::SlowDisk { write_us, .. } => 6 * write_us,
                _ => 0,
            };
        }
        20 + us / 1_000 + fleets::margin_ms(&self.plan)
    }
}

/// Shortest group commit of a plan, and the shortest segment that holds it.
pub(crate) const COMMIT_BYTES_MIN: usize = 64 << 10;
pub(crate) const SEGMENT_BYTES_MIN: u64 = COMMIT_BYTES_MIN as u64 + 4_096;

/// As long as the node's own, or so short that they are full now and then.
fn draw_ring_len(rng: &mut Rng, shards: u16) -> usize {
    match rng.below(4) {
        0 => 1,
        1 => 4,
        _ => dispatchd::shard::mail_ring_len(shards),
    }
}

fn segment_bytes(rng: &mut Rng, commit_bytes_max: usize) -> u64 {
    let least = commit_bytes_max as u64 + 4_096;
    let factor = *rng.pick(&[1, 1, 2, 4, 16]);
    (least * factor).next_multiple_of(4_096)
}

#[expect(
    clippy::field_reassign_with_default,
    reason = "the order of the draws is the order of the lines"
)]
fn draw_config(rng: &mut Rng, habits: &Habits, temper: &Temper) -> Config {
    let mut config = Config::default();
    config.shards = rng.between(1, *rng.clone().pick(&[1, 3, 8])) as u16;
    config.offer_timeout_ms = rng.between(50, habits.offer_timeout_ms) as u32;
    config.deadline_ms = rng.between(500, habits.deadline_ms) as u32;
    config.heartbeat_ms = temper.heartbeat_ms * rng.between(1, 3);
    config.driver_ttl_ms = *rng.pick(&[0, 300, 3_000, 60_000]);
    config.drain_ms = rng.between(0, 3_000);
    config.ingress_age_step_ms = *rng.pick(&[50, 500, 2_000]);
    if rng.chance(200) {
        config.ingress_queue_max = rng.between(1, 20) as u32;
    }
    config.journal_backlog_bytes_max = 1 << 20;
    config.output_queue_bytes_max = 64 << 10;
    config.http_pipeline_max = *rng.pick(&[1, 4, 64]);
    config.recv_buffers = 64;
    config
}

fn draw_habits(rng: &mut Rng) -> Habits {
    let mut often = |permille: u32, most: u64| {
        if rng.chance(permille) {
            rng.between(1, most) as u32
        } else {
            0
        }
    };
    let (twins, repeats, cancels) = (often(600, 300), often(600, 300), often(600, 200));
    let (trip_cancels, responses, views) = (often(500, 200), often(500, 400), often(600, 400));
    let (busy_wait, parallel, rude) = (often(700, 1_000), often(600, 800), often(300, 60));
    let single = if rng.chance(400) {
        rng.between(300, 1_000) as u32
    } else {
        100
    };
    Habits {
        requests: rng.between(5, 120) as u32,
        pause_ms: *rng.pick(&[20, 150, 800]),
        burst: *rng.pick(&[1, 2, 8]),
        connections: rng.between(1, 4),
        twins,
        repeats,
        cancels,
        trip_cancels,
        responses,
        views,
        probes: 0,
        greets: 0,
        welcomes: 0,
        resyncs: 0,
        rereads: 0,
        busy_wait,
        parallel,
        single,
        rude,
        candidates: rng.between(1, 12),
        offer_timeout_ms: *rng.pick(&[200, 2_000, 8_000]),
        deadline_ms: *rng.pick(&[1_500, 8_000, 30_000]),
    }
}

fn draw_temper(rng: &mut Rng) -> Temper {
    let accept = rng.between(50, 950) as u32;
    let decline = rng.between(0, 1_000 - u64::from(accept)) as u32;
    let mut often = |permille: u32, most: u64| {
        if rng.chance(permille) {
            rng.between(1, most) as u32
        } else {
            0
        }
    };
    let (by_http, vanish, double) = (often(400, 500), often(400, 200), often(500, 300));
    let (stray, off_shift, displace) = (often(500, 400), often(400, 150), often(400, 200));
    let (stall, drop, garbage) = (often(150, 100), often(400, 300), often(200, 150));
    let give_up = often(500, 400);
    let think_ms = *rng.pick(&[3, 200, 3_000]);
    let trip_ms = *rng.pick(&[5, 400, 3_000]);
    let mischief_ms = *rng.pick(&[300, 2_000, 8_000]);
    let reconnect_ms = *rng.pick(&[20, 800, 5_000]);
    Temper {
        accept,
        decline,
        by_http,
        vanish,
        double,
        stray,
        off_shift,
        displace,
        stall,
        drop,
        garbage,
        silent: 0,
        violate: 0,
        clog: 0,
        clog_ms: 0,
        babble: 0,
        give_up,
        think_ms,
        trip_ms,
        mischief_ms,
        first_ms: reconnect_ms,
        reconnect_ms,
        heartbeat_ms: *rng.pick(&[1_000, 5_000, 20_000]),
    }
}

fn draw_network(rng: &mut Rng) -> Network {
    let delay_us = *rng.pick(&[(20, 200), (100, 3_000), (1_000, 60_000)]);
    let resets = rng.chance(250);
    let holds = rng.chance(250);
    Network {
        delay_us,
        piece_bytes_max: *rng.pick(&[16, 200, 1_460, 65_536, 65_536, 65_536]),
        hold_permille: if holds { rng.between(1, 30) as u32 } else { 0 },
        hold_us: if holds { (10_000, 400_000) } else { (0, 0) },
        reset_permille: if resets { rng.between(5, 300) as u32 } else { 0 },
        reset_bytes: (1, *rng.pick(&[300, 3_000, 30_000])),
        window_bytes: *rng.pick(&[4 << 10, 64 << 10, 256 << 10]),
    }
}

fn draw_pace(rng: &mut Rng) -> Pace {
    Pace {
        turn_us: *rng.pick(&[(2, 20), (10, 300)]),
        wake_us: *rng.pick(&[(1, 10), (20, 500)]),
        write_us: *rng.pick(&[(80, 400), (300, 5_000), (2_000, 40_000)]),
        segment_us: *rng.pick(&[(500, 3_000), (5_000, 60_000)]),
        store_round_us: *rng.pick(&[(300, 2_000), (2_000, 50_000)]),
        store_lookup_us: *rng.pick(&[(20, 200), (200, 8_000)]),
        start_step_us: *rng.pick(&[(50, 500), (1_000, 20_000)]),
    }
}

/// Which kinds of faults a seed has, and when.
fn draw_faults(rng: &mut Rng, length_us: u64) -> Vec<(u64, Fault)> {
    const KINDS: u64 = 13;
    let mut faults = Vec::new();
    if rng.chance(200) {
        return faults;
    }
    // Kills and power losses are what the promises are about: most seeds have them.
    for kind in 0..KINDS {
        let permille = match kind {
            0 | 1 => 550,
            2 | 4 => 80,
            3 => 120,
            _ => 200,
        };
        if !rng.chance(permille) {
            continue;
        }
        let times = match kind {
            2 | 4 => 1,
            0 | 1 => rng.between(1, 6),
            _ => rng.between(1, 3),
        };
        for _ in 0..times {
            let at_us = rng.between(50_000, length_us - length_us / 5);
            faults.push((at_us, draw_fault(rng, kind)));
        }
    }
    faults.sort_by_key(|fault| fault.0);
    faults
}

/// A kill, or a loss of power.
pub(crate) fn end_by(power: bool, after_steps: u32, down_us: u64, clock_jump_us: i64) -> Fault {
    if power {
        Fault::PowerLoss {
            after_steps,
            down_us,
            clock_jump_us,
        }
    } else {
        Fault::Kill {
            after_steps,
            down_us,
            clock_jump_us,
        }
    }
}

pub(crate) fn draw_fault(rng: &mut Rng, kind: u64) -> Fault {
    let down_us = rng.between(1_000, *rng.clone().pick(&[20_000, 1_000_000, 6_000_000]));
    let for_us = rng.between(5_000, *rng.clone().pick(&[100_000, 3_000_000]));
    let after_steps = rng.below(400) as u32;
    let clock_jump_us = match rng.below(4) {
        0 => -(rng.between(1, 7_200) as i64) * 1_000_000,
        1 => rng.between(1, 20) as i64 * 1_000_000,
        _ => 0,
    };
    match kind {
        0 => end_by(false, after_steps, down_us, clock_jump_us),
        1 => end_by(true, after_steps, down_us, clock_jump_us),
        2 => Fault::BitRot {
            down_us,
            restored_us: for_us,
        },
        3 if rng.chance(400) => Fault::ShortWrite { down_us },
        3 => Fault::WriteError { down_us },
        4 => Fault::StoreError { down_us },
        5 => Fault::DiskFull { for_us },
        6 => Fault::SlowDisk {
            for_us,
            write_us: rng.between(1_000, 300_000),
        },
        7 => Fault::SlowStore {
            for_us,
            action_us: rng.between(1_000, 300_000),
        },
        8 => Fault::ShardStall {
            shard: rng.below(8) as u16,
            for_us,
        },
        9 => Fault::Resets {
            permille: rng.between(50, 1_000) as u32,
        },
        10 => Fault::SlowNetwork {
            for_us,
            delay_us: rng.between(1_000, 500_000),
        },
        11 => Fault::Drain { down_us },
        _ => Fault::Kill {
            after_steps: rng.below(30) as u32,
            down_us: 1_000,
            clock_jump_us: 0,
        },
    }
}
