//! The start of the process: the node's own order of steps ([`dispatchd::node::bring_up`]) over the simulated machine.
//! While a step takes its time, everything else goes on, and the process may be killed in the middle.

use super::faults::STORE_FAILED;
use super::fleet::{Member, Who};
use super::machine::Event;
use super::node::{End, Node, Run, Stage};
use super::platform::{SimFiles, SimTime};
use super::ring::SimRing;
use super::{World, outside};
use crate::client::NodeEvent;
use dispatchd::cold::{Source, StoreHandle, Waker};
use dispatchd::fsm::ids::DriverId;
use dispatchd::fsm::types::UnixMs;
use dispatchd::journal::{Geometry, Incarnation, Owner, RecoveredShard, Writer};
use dispatchd::node::{Host, ServeError, bring_up};
use dispatchd::ops::health::{Health, Phase};
use dispatchd::ops::metrics::{Registry, StoreMetrics};
use dispatchd::shard::{self, Inheritance, Parts, Shard, Shared};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// How long a start waits for its store before it looks again.
const STORE_PROBE_US: u64 = 200_000;
/// How soon a node is started again whose killed start has not returned.
const AGAIN_US: u64 = 10_000;
/// How long a start may take in all before it counts as stuck; no start of seeds 1 to 400 takes so long, whatever is slow.
const STUCK_US: u64 = 300_000_000;

/// What the first word about the lease may take beyond two leases: see `cold/registry/redis/writer.rs`.
const LEASE_GRACE_US: u64 = 5_000_000;
/// How long a start waits for what the last boot had: see `node/process/boot.rs`.
const OWN_PATIENCE_US: u64 = 3_000_000;

struct SimHost<'w, 'a> {
    world: &'w mut World<'a>,
    node: u8,
    /// Which boot this is: another one means that this one was killed.
    boot: u32,
    offset_us: u64,
    incarnation: u64,
    began_us: u64,
}

impl World<'_> {
    /// The node is started, unless it runs.
    pub(super) fn start(&mut self, n: u8) {
        if self.sites[n].node.is_some() || self.is_starting(n) || self.bug.is_some() {
            return;
        }
        if self.sites[n].starting.is_some() {
            // A start of it that was killed waits for another node's to return, and does so any moment.
            let at_us = self.now_us() + AGAIN_US;
            return self.plan_event(n, at_us, Event::Start);
        }
        // A failure that nobody met went with the old store.
        self.sites[n].faults.store_failed = None;
        self.sites[n].store.open();
        let began_us = self.now_us();
        let boot = {
            let mut machine = self.sites[n].machine.borrow_mut();
            machine.boot += 1;
            machine.boot
        };
        self.sites[n].starting = Some(boot);
        let config = self.plan.config_of(n);
        let mut host = SimHost {
            world: self,
            node: n,
            boot,
            offset_us: 0,
            incarnation: 0,
            began_us,
        };
        let brought_up = outside::node_does(|| bring_up(&mut host, &config));
        self.sites[n].starting = None;
        if self.bug.is_some() {
            return;
        }
        match brought_up {
            Ok(Ok(())) => {
                if self.sites[n].faults.flip.is_some() {
                    self.bug = Some("a bit of confirmed data was flipped, and the node started".to_owned());
                }
            }
            // It was killed meanwhile, and its next start is planned.
            Ok(Err(_)) if self.sites[n].machine.borrow().boot != boot => {}
            Ok(Err(error)) => self.refused(n, &error.to_string()),
            Err(payload) => self.unwound(n, payload.as_ref()),
        }
    }

    /// Whether a start of the node is under way that nobody has killed.
    pub(super) fn is_starting(&self, n: u8) -> bool {
        let site = &self.sites[n];
        site.starting == Some(site.machine.borrow().boot)
    }

    fn refused(&mut self, n: u8, why: &str) {
        // A store that fails while the node starts is as good a reason to end as later.
        if let Some((took_place, down_us)) = self.provoked(n, why) {
            self.sites[n].faults.count(took_place);
            return self.end(n, End::Failed(why), down_us);
        }
        self.sites[n].node = None;
        self.observe(n, NodeEvent::RefusedToStart(why));
        if self.sites[n].faults.flip.is_none() {
            self.bug = Some(format!("the node refused to start: {why}"));
            return;
        }
        let at = self.now_us() + self.sites[n].faults.restored_us;
        self.plan_event(n, at, Event::Restore);
    }
}

impl SimHost<'_, '_> {
    fn killed() -> ServeError {
        ServeError::new("simulated", "killed")
    }

    fn is_killed(&self) -> bool {
        self.world.sites[self.node].machine.borrow().boot != self.boot || self.world.bug.is_some()
    }

    /// As [`World::process_next`], up to the end of the run; what panics in it is not the node's start.
    fn goes_by(&mut self, until_us: u64) -> bool {
        let until_us = until_us.min(self.world.plan.end_us);
        outside::others_do(|| self.world.process_next(until_us))
    }

    /// A step of the start takes its time.
    fn step(&mut self) -> Result<(), ServeError> {
        let took_us = self.world.sites[self.node]
            .machine
            .borrow_mut()
            .draw(self.world.plan.pace.start_step_us);
        let until_us = self.world.now_us() + took_us;
        while !self.is_killed() && self.goes_by(until_us) {}
        self.world.stepped(self.node);
        if self.is_killed() {
            return Err(Self::killed());
        }
        self.sees_its_end()
    }

    /// A start that is not over when it counts as stuck, or when the run ends, is a node that never gets ready.
    fn sees_its_end(&mut self) -> Result<(), ServeError> {
        let now_us = self.world.now_us();
        if now_us < (self.began_us + STUCK_US).min(self.world.plan.end_us) {
            return Ok(());
        }
        let began_us = self.began_us;
        self.world
            .bug
            .get_or_insert_with(|| format!("a start is stuck: begun at {began_us}, and not ready at {now_us}"));
        Err(Self::killed())
    }

    /// Lets things happen until `done`, or until a time at which the start goes on without.
    fn wait(&mut self, until_us: u64, mut done: impl FnMut(&mut World<'_>) -> bool) -> Result<(), ServeError> {
        while !done(self.world) {
            if !self.goes_by(until_us) {
                break;
            }
            if self.is_killed() {
                return Err(Self::killed());
            }
        }
        self.sees_its_end()
    }
}

impl Host for SimHost<'_, '_> {
    fn journals(&mut self) -> Result<Vec<RecoveredShard>, ServeError> {
        self.step()?;
        let read = self.world.sites[self.node].machine.borrow().disk.read();
        read.map_err(|error| ServeError::new("the journal cannot be recovered", error))
    }

    fn open_store(&mut self, newest_ms: UnixMs) -> Result<(), ServeError> {
        self.step()?;
        let now_us = self.world.now_us();
        let wall_us =
            (self.world.plan.wall_us + now_us).saturating_add_signed(self.world.sites[self.node].faults.clock_jumps_us);
        self.offset_us = wall_us.max(newest_ms * 1_000) - now_us;
        Ok(())
    }

    fn now_ms(&self) -> UnixMs {
        (self.world.now_us() + self.offset_us) / 1_000
    }

    fn watermarks(&mut self) -> Vec<(Source, u64)> {
        self.world.sites[self.node].store.watermarks()
    }

    fn begin_incarnation(&mut self, above: u64) -> Result<Incarnation, ServeError> {
        self.step()?;
        let begun = self.world.sites[self.node].machine.borrow_mut().disk.begin(above);
        let incarnation = begun.ok_or_else(|| ServeError::new("simulated", "no more incarnations"))?;
        self.incarnation = incarnation.get();
        Ok(incarnation)
    }

    fn attach(&mut self, waker: Waker) -> StoreHandle {
        self.world.sites[self.node].store.attach_with(waker)
    }

    fn await_store(&mut self, woken: &Receiver<()>) -> Result<(), ServeError> {
        self.step()?;
        self.world.sites[self.node].store.listen();
        let until_us = self.world.now_us() + STORE_PROBE_US;
        self.wait(until_us, |_| woken.try_recv().is_ok())?;
        if self.world.sites[self.node].store.health.fatal() {
            return Err(ServeError::new(STORE_FAILED, "simulated"));
        }
        Ok(())
    }

    fn off_shift_since(&mut self, after_ms: UnixMs) -> Result<Vec<(DriverId, UnixMs)>, ServeError> {
        Ok(self.world.sites[self.node].store.off_shift_since(after_ms))
    }

    fn start_shards(&mut self, incarnation: Incarnation, heirs: Vec<Inheritance>) -> Result<(), ServeError> {
        let plan = self.world.plan;
        let config = Arc::new(plan.config_of(self.node));
        let geometry = Geometry::new(config.journal_segment_bytes, plan.commit_bytes_max)
            .map_err(|error| ServeError::new("simulated: the plan's geometry", error))?;
        let registry = Arc::new(Registry::new(config.shards, Arc::new(StoreMetrics::default())));
        let health = Arc::new(Health::new());
        health.advance(Phase::Recovering);
        let shared = Arc::new(Shared::new(health, registry));
        self.join(&shared);
        let mut runs = Vec::new();
        for (mail, inheritance) in shard::mail(config.shards, plan.mail_ring_len).into_iter().zip(heirs) {
            self.step()?;
            let index = mail.index();
            let owner = Owner {
                incarnation,
                shard: index,
            };
            let machine = Rc::clone(&self.world.sites[self.node].machine);
            machine.borrow_mut().disk.make_shard_dir(owner);
            let member = self.world.sites[self.node].member.as_ref();
            let (registry, links, claims) = match member.map(|member| member.attach(index)) {
                Some((registry, links, claims)) => (Some(registry), Some(links), Some(claims)),
                None => (None, None, None),
            };
            let mut shard = Shard::new(Parts {
                index,
                shards: config.shards,
                incarnation: incarnation.get(),
                config: Arc::clone(&config),
                shared: Arc::clone(&shared),
                clock: SimTime {
                    machine: Rc::clone(&machine),
                    offset_us: self.offset_us,
                },
                mail,
                ring: SimRing::new(index, Rc::clone(&machine), plan),
                store: self.world.sites[self.node].store.attach(index),
                store_health: Arc::clone(&self.world.sites[self.node].store.health),
                writer: Writer::new(owner, geometry),
                files: SimFiles {
                    machine,
                    shard: index,
                    incarnation,
                },
                registry,
                links,
                claims,
            });
            shard.inherit(inheritance);
            runs.push(Run::new(shard));
        }
        let shards = runs.len() as u16;
        self.world.sites[self.node].node = Some(Node { runs, shared });
        for shard in 0..shards {
            self.world.settle_run(self.node, shard);
        }
        Ok(())
    }

    fn await_heirs(&mut self) -> Result<(), ServeError> {
        let (until_us, n) = (self.began_us + STUCK_US, self.node);
        self.wait(until_us, |world| {
            let node = world.sites[n].node.as_ref();
            node.is_some_and(|node| node.runs.iter().all(|run| run.stage == Stage::Waits))
        })
    }

    fn forget_journals_before(&mut self, incarnation: Incarnation) -> Result<(), ServeError> {
        let old = self.world.sites[self.node].machine.borrow().disk.before(incarnation);
        for old in old {
            self.step()?;
            self.world.sites[self.node].machine.borrow_mut().disk.remove(old);
        }
        Ok(())
    }

    fn forget_sources_before(&mut self, incarnation: Incarnation) {
        self.world.sites[self.node].store.forget_before(incarnation.get());
        self.world.sites[self.node].store.listen();
    }

    fn open_doors(&mut self) -> Result<(), ServeError> {
        self.step()?;
        self.await_fleet()?;
        // Told before anybody can be served.
        self.world.observe(
            self.node,
            NodeEvent::Started {
                incarnation: self.incarnation,
                wall_offset_us: self.offset_us,
            },
        );
        let mut closed: Vec<u16> = (0..self.world.plan.config.shards).collect();
        while !closed.is_empty() {
            let next = self.world.sites[self.node]
                .machine
                .borrow_mut()
                .rng
                .below(closed.len() as u64) as usize;
            let shard = closed.swap_remove(next);
            let Some(node) = self.world.sites[self.node].node.as_mut() else {
                return Err(Self::killed());
            };
            let run = &mut node.runs[usize::from(shard)];
            run.stage = Stage::Serves;
            run.shard.open(());
            self.world.settle_run(self.node, shard);
            self.step()?;
        }
        if let Some(node) = &self.world.sites[self.node].node {
            node.shared.health.advance(Phase::Serving);
        }
        if let Some(member) = &self.world.sites[self.node].member {
            member.sign_now();
        }
        Ok(())
    }

    fn enters(&mut self, _stage: &str) {}

    fn goes_on(&mut self, _stage: &str) {}
}

impl SimHost<'_, '_> {
    /// The process joins its fleet, if there is one.
    fn join(&mut self, shared: &Arc<Shared>) {
        let Some(fleet) = &self.world.fleet else { return };
        let who = Who {
            node: self.node,
            boot: self.boot,
            incarnation: self.incarnation,
            offset_us: self.offset_us,
        };
        let site = &self.world.sites[self.node];
        let store = &site.store;
        let member = fleet.join(&who, shared, &store.health, store.outbox(), &store.woken);
        self.world.sites[self.node].store.joins(member.far(), self.node);
        self.world.sites[self.node].member = Some(member);
    }

    /// Waits for the lease, and until what the last boot had is taken over, as long as a node does.
    fn await_fleet(&mut self) -> Result<(), ServeError> {
        let n = self.node;
        if self.world.sites[n].member.is_none() {
            return Ok(());
        }
        let patience_us = 2 * self.world.plan.config.fleet_redis_lease_ms * 1_000 + LEASE_GRACE_US;
        let until_us = self.world.now_us() + patience_us;
        self.wait(until_us, |world| {
            (world.sites[n].member.as_ref()).is_none_or(Member::has_lease_word)
        })?;
        let begun = self.world.sites[n].member.as_ref().map(Member::begin);
        let Some(done) = begun else { return Err(Self::killed()) };
        let until_us = self.world.now_us() + OWN_PATIENCE_US;
        self.wait(until_us, |_| done.try_recv().is_ok())
    }
}

impl World<'_> {
    /// After what was done to a shard between two turns.
    fn settle_run(&mut self, n: u8, shard: u16) {
        if let Some(node) = &mut self.sites[n].node {
            node.runs[usize::from(shard)].settle();
        }
        self.schedule(n, shard);
        self.sites[n].store.listen();
    }
}
