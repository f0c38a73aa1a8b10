//! Scenes: seeds that put one promise to the test, which the usual mix of faults and clients does too rarely.

use crate::actors::{Habits, Temper};
use crate::plan::{Fault, Network};
use crate::rng::Rng;
use crate::swarm::{COMMIT_BYTES_MIN, Case, SECOND_US, SEGMENT_BYTES_MIN, draw_fault, end_by};
use dispatchd::config::Config;

impl Case {
    /// Some seeds are a scene: what promises are about that the usual mix puts to the test too rarely.
    pub(crate) fn stage(&mut self, rng: &mut Rng) {
        match rng.below(1_000) {
            0..80 => self.crowd(),
            80..180 => self.onlookers(rng),
            180..240 => self.arrears(rng),
            240..300 => self.newcomers(rng),
            300..350 => self.returners(rng),
            350..380 => self.elders(),
            380..420 => self.dozers(),
            420..450 => self.boors(),
            450..490 => self.leavers(rng),
            490..520 => self.sluggards(),
            520..560 => self.sleepers(),
            560..580 => self.chatterers(),
            580..620 => self.rivals(rng),
            620..660 => self.shifters(rng),
            660..690 => self.misers(rng),
            690..715 => self.rereaders(),
            _ => {}
        }
    }

    /// The same crowd where a class is worth little against having waited long: economy comes to its turn.
    fn elders(&mut self) {
        self.crowd();
        self.drivers = self.drivers.min(2);
        self.plan.config.ingress_age_step_ms = 300;
        self.habits.requests = 120;
        self.habits.pause_ms = 400;
        self.habits.deadline_ms = self.habits.deadline_ms.max(8_000);
        self.temper.accept = self.temper.accept.min(50);
        self.temper.trip_ms = 5;
    }

    /// Drivers that say nothing for a while, are lost by that or not, and lose their sockets: who is there, and until when.
    fn dozers(&mut self) {
        self.temper.silent = 150;
        self.temper.drop = self.temper.drop.max(100);
        self.temper.displace = self.temper.displace.max(50);
        self.temper.heartbeat_ms = 1_000;
        self.temper.mischief_ms = self.temper.mischief_ms.min(2_000);
        self.temper.off_shift = 0;
        self.plan.config.heartbeat_ms = 2_000;
        self.plan.config.driver_ttl_ms = 3_000;
        self.habits.views = self.habits.views.max(300);
        self.hours.close_us = self.hours.close_us.max(25 * SECOND_US);
    }

    /// A node that is told to drain and takes its time for it, while everybody goes on: no new work, and all are told when to
    /// come again.
    fn leavers(&mut self, rng: &mut Rng) {
        self.hours.close_us = self.hours.close_us.max(16 * SECOND_US);
        self.plan.config.drain_ms = 3_000;
        self.plan.network.delay_us = (20, 200);
        self.plan.pace.write_us = (80, 400);
        self.habits.requests = 120;
        self.habits.pause_ms = 150;
        self.habits.probes = 500;
        self.temper.reconnect_ms = self.temper.reconnect_ms.min(800);
        let close_us = self.hours.close_us;
        self.plan.faults = (0..rng.between(1, 3))
            .map(|_| {
                let at_us = rng.between(SECOND_US, close_us - close_us / 5);
                (
                    at_us,
                    Fault::Drain {
                        down_us: rng.between(1_000, 1_000_000),
                    },
                )
            })
            .collect();
        self.plan.faults.sort_by_key(|fault| fault.0);
    }

    /// Drivers that ask for much and read nothing for a while, on connections that hold little.
    fn sluggards(&mut self) {
        self.plan.network.window_bytes = 4 << 10;
        self.plan.network.delay_us = (20, 200);
        self.plan.config.output_stall_ms = 500;
        self.temper.clog = 200;
        self.temper.clog_ms = 4_000;
        self.temper.stall = 0;
        self.temper.heartbeat_ms = 1_000;
        self.plan.config.heartbeat_ms = 2_000;
        self.temper.mischief_ms = self.temper.mischief_ms.min(2_000);
        self.hours.close_us = self.hours.close_us.max(20 * SECOND_US);
    }

    /// Drivers that go off shift, which is remembered for a moment only, and come back on other sockets.
    fn sleepers(&mut self) {
        self.plan.config.off_shift_memory_ms = 1_000;
        self.plan.network.delay_us = (20, 200);
        self.temper.off_shift = 300;
        self.temper.drop = self.temper.drop.max(300);
        self.temper.mischief_ms = 2_000;
        self.temper.reconnect_ms = self.temper.reconnect_ms.min(800);
        self.hours.close_us = self.hours.close_us.max(20 * SECOND_US);
    }

    /// Drivers that say more than a driver may, and wait for the answer.
    fn chatterers(&mut self) {
        self.plan.faults.clear();
        self.plan.network.reset_permille = 0;
        self.temper = Temper {
            babble: 200,
            vanish: 0,
            displace: 0,
            stall: 0,
            drop: 0,
            mischief_ms: 2_000,
            ..self.temper
        };
    }

    /// Few drivers to whom many send offers at once from several shards, and a slow disk, until the node is killed: it has sent
    /// two to one of them then, which holds one, and has not noted yet that it refused the other.
    fn rivals(&mut self, rng: &mut Rng) {
        self.drivers = self.drivers.min(4);
        self.callers = self.callers.max(3);
        let config = &mut self.plan.config;
        config.shards = config.shards.max(4);
        config.driver_ttl_ms = 60_000;
        config.ingress_queue_max = Config::default().ingress_queue_max;
        self.plan.network.delay_us = (20, 200);
        self.plan.network.reset_permille = 0;
        self.plan.pace.write_us = (10_000, 60_000);
        self.plan.pace.turn_us = (2, 20);
        self.habits = Habits {
            requests: 120,
            pause_ms: 150,
            burst: 8,
            busy_wait: 0,
            parallel: 0,
            single: 800,
            offer_timeout_ms: 2_000,
            deadline_ms: 8_000,
            ..self.habits
        };
        self.temper = Temper {
            accept: 50,
            decline: 600,
            vanish: 0,
            off_shift: 0,
            drop: 0,
            think_ms: 200,
            trip_ms: 5,
            first_ms: 20,
            reconnect_ms: 20,
            ..self.temper
        };
        self.plan.faults = kills(rng, self.hours.close_us, 8);
    }

    /// Drivers that go off shift and come back all the time, and a store that is behind with it, until the node is killed: a start
    /// has to tell the store of the last of it.
    fn shifters(&mut self, rng: &mut Rng) {
        let close_us = self.hours.close_us;
        self.drivers = self.drivers.max(12);
        self.plan.network.delay_us = (20, 200);
        self.plan.pace.write_us = (80, 400);
        self.habits.requests = self.habits.requests.min(40);
        self.temper = Temper {
            off_shift: 300,
            stall: 0,
            mischief_ms: 600,
            first_ms: 20,
            reconnect_ms: 20,
            ..self.temper
        };
        self.plan.faults = kills(rng, close_us, 6);
        let action_us = rng.between(300_000, 2_000_000);
        let for_us = close_us;
        self.plan.faults.push((0, Fault::SlowStore { for_us, action_us }));
    }

    /// Short segments, and so many requests that they fill.
    fn fills_segments(&mut self) {
        self.plan.config.shards = self.plan.config.shards.min(2);
        self.plan.config.journal_segment_bytes = SEGMENT_BYTES_MIN;
        self.plan.commit_bytes_max = COMMIT_BYTES_MIN;
        self.plan.network.delay_us = (20, 200);
        self.plan.pace.write_us = (80, 400);
        self.habits.requests = 120;
        self.habits.burst = 8;
        self.habits.pause_ms = 150;
    }

    /// Short segments that fill, on a disk that is full now and then: the next one is asked for again.
    fn misers(&mut self, rng: &mut Rng) {
        let close_us = self.hours.close_us;
        self.fills_segments();
        self.plan.faults = (0..rng.between(2, 6))
            .map(|_| {
                let at_us = rng.between(50_000, close_us - close_us / 5);
                let for_us = rng.between(100_000, 1_500_000);
                (at_us, Fault::DiskFull { for_us })
            })
            .collect();
        self.plan.faults.sort_by_key(|fault| fault.0);
    }

    /// Drivers who accept over HTTP, and callers who look at them right after, through any of many shards that turn slowly: what was
    /// answered is there.
    fn rereaders(&mut self) {
        self.drivers = self.drivers.max(12);
        let config = &mut self.plan.config;
        config.shards = config.shards.max(6);
        self.plan.mail_ring_len = dispatchd::shard::mail_ring_len(config.shards);
        config.driver_ttl_ms = 60_000;
        config.http_pipeline_max = Config::default().http_pipeline_max;
        self.plan.network = Network {
            delay_us: (20, 60),
            hold_permille: 0,
            reset_permille: 0,
            ..self.plan.network.clone()
        };
        self.plan.pace.turn_us = (10, 300);
        self.plan.pace.wake_us = (20, 500);
        self.plan.pace.write_us = (80, 400);
        self.plan.faults.clear();
        self.habits = Habits {
            requests: 120,
            pause_ms: 60,
            burst: 4,
            connections: 16,
            busy_wait: 0,
            rereads: 1_000,
            ..self.habits
        };
        self.temper = Temper {
            accept: 900,
            by_http: 1_000,
            vanish: 0,
            off_shift: 0,
            drop: 0,
            think_ms: 20,
            first_ms: 20,
            ..self.temper
        };
    }

    /// Drivers that break the protocol of their sockets, and are closed with the code for it.
    fn boors(&mut self) {
        self.temper.violate = 250;
        self.temper.mischief_ms = self.temper.mischief_ms.min(2_000);
        self.temper.reconnect_ms = self.temper.reconnect_ms.min(800);
    }

    /// Few drivers for whom many wait: what shows the order of a queue, where nothing else disturbs it.
    fn crowd(&mut self) {
        self.plan.faults.clear();
        self.drivers = self.drivers.min(4);
        self.habits.single = 900;
        self.habits.busy_wait = 1_000;
        self.habits.burst = 8;
        self.habits.offer_timeout_ms = self.habits.offer_timeout_ms.min(2_000);
        self.temper.accept = self.temper.accept.min(300);
        self.temper.think_ms = 200;
        self.plan.config.ingress_age_step_ms = 2_000;
        self.plan.network.delay_us = (20, 200);
    }

    /// A slow disk, and everybody looks at what is being written, or speaks of it, until the node is killed.
    fn onlookers(&mut self, rng: &mut Rng) {
        self.plan.network.delay_us = (20, 200);
        self.plan.pace.write_us = (10_000, 120_000);
        self.plan.pace.turn_us = (2, 20);
        self.habits.requests = self.habits.requests.max(60);
        self.habits.pause_ms = 150;
        self.habits.connections = 4;
        self.habits.views = 900;
        self.temper.stray = 800;
        self.temper.off_shift = 150;
        self.temper.mischief_ms = 300;
        (self.temper.first_ms, self.temper.reconnect_ms) = (20, 20);
        self.plan.faults = kills(rng, self.hours.close_us, 8);
    }

    /// A slow disk, a store that takes its time to say whom it knows, drivers that come one by one and are looked at, and that come and go off shift, until the node is
    /// killed; those that were there are long in coming back.
    fn newcomers(&mut self, rng: &mut Rng) {
        let close_us = self.hours.close_us;
        self.drivers = self.drivers.max(24);
        self.plan.network.delay_us = (20, 200);
        self.plan.pace.write_us = (10_000, 120_000);
        self.plan.pace.store_lookup_us = (10_000, 50_000);
        self.plan.pace.turn_us = (2, 20);
        self.habits.requests = self.habits.requests.min(20);
        self.habits.pause_ms = 10;
        self.habits.greets = 1_000;
        self.temper.off_shift = 300;
        self.temper.mischief_ms = 600;
        self.temper.first_ms = close_us / 2_000;
        self.temper.reconnect_ms = 5_000;
        self.plan.faults = kills(rng, close_us, 8);
    }

    /// A store that is slow to say whom it knows, drivers that come all at once and are offered something at once, and a
    /// kill before it is stored that they came. They come back to the offers that they were bound to, say nothing, and
    /// are looked at after the next kill, when these are long over.
    fn returners(&mut self, rng: &mut Rng) {
        self.hours.close_us = 16 * SECOND_US;
        self.drivers = self.drivers.max(24);
        let config = &mut self.plan.config;
        config.shards = config.shards.max(2);
        config.driver_ttl_ms = 60_000;
        // Nobody is to wait behind all that asks the store.
        config.ingress_queue_max = Config::default().ingress_queue_max;
        config.http_pipeline_max = Config::default().http_pipeline_max;
        self.plan.network = Network {
            delay_us: (20, 200),
            hold_permille: 0,
            reset_permille: 0,
            ..self.plan.network.clone()
        };
        let pace = &mut self.plan.pace;
        (pace.write_us, pace.segment_us, pace.start_step_us) = ((80, 400), (500, 3_000), (50, 500));
        pace.store_lookup_us = (100_000, 400_000);
        self.habits = Habits {
            requests: 5,
            pause_ms: 10,
            welcomes: 1_000,
            resyncs: 300,
            connections: 4,
            repeats: 100,
            cancels: 0,
            responses: 0,
            views: 0,
            rude: 0,
            offer_timeout_ms: 6_500,
            deadline_ms: 20_000,
            ..self.habits
        };
        self.temper = Temper {
            accept: 20,
            decline: 20,
            by_http: 0,
            vanish: 0,
            displace: 0,
            drop: 0,
            first_ms: 1_000,
            reconnect_ms: 3_000,
            ..self.temper
        };
        let first_us = rng.between(300_000, 1_100_000);
        let second_us = first_us + rng.between(7_500_000, 9_000_000);
        self.plan.faults = [first_us, second_us]
            .map(|at_us| {
                let (after_steps, down_us) = (rng.below(400) as u32, rng.between(60_000, 150_000));
                (at_us, end_by(rng.chance(500), after_steps, down_us, 0))
            })
            .into();
    }

    /// A store that is far behind, short segments that fill, searches that last, until the node is killed.
    fn arrears(&mut self, rng: &mut Rng) {
        let close_us = self.hours.close_us;
        self.fills_segments();
        self.habits.candidates = self.habits.candidates.max(6);
        // What has ended holds its segment until it is stored: little ends.
        self.habits.deadline_ms = 90_000;
        self.habits.cancels = 0;
        self.habits.responses = 0;
        self.temper.by_http = 0;
        self.temper.accept = self.temper.accept.min(30);
        self.temper.decline = 800;
        self.temper.think_ms = 200;
        self.plan.faults = kills(rng, close_us, 5);
        self.plan.faults.push((
            0,
            Fault::SlowStore {
                for_us: close_us,
                action_us: rng.between(300_000, 3_000_000),
            },
        ));
    }
}

/// Kills and power losses at any time, up to so many, and nothing else.
fn kills(rng: &mut Rng, close_us: u64, most: u64) -> Vec<(u64, Fault)> {
    let times = rng.between(1, most);
    (0..times)
        .map(|_| {
            let at_us = rng.between(50_000, close_us - close_us / 5);
            let kind = rng.below(2);
            (at_us, draw_fault(rng, kind))
        })
        .collect()
}
