//! What goes wrong, and when it is over.

use super::World;
use super::disk::Flip;
use super::machine::{Event, Machine};
use super::node::End;
use crate::client::NodeEvent;
use crate::plan::{Fault, Plan, Shared};
use std::collections::BTreeMap;

/// How often the node looks whether its store has failed.
const STORE_PROBE_US: u64 = 200_000;
/// What a process says that ends because its store has failed.
pub(super) const STORE_FAILED: &str = "the store failed";
/// What a process says that ends because a write of its journal has failed, or was short, within a longer text.
const WRITE_FAILED: &str = "the journal cannot be written: Write {";
const WRITE_SHORT: &str = "the journal cannot be written: ShortWrite {";

/// A kill that is to come.
#[derive(Clone, Copy, Debug)]
struct Kill {
    steps_left: u32,
    down_us: u64,
    clock_jump_us: i64,
    power: bool,
    /// A bit flips meanwhile; how long after the refusal it is restored.
    rot_us: Option<u64>,
}

/// Faults under way.
pub(super) struct Faults {
    kill: Option<Kill>,
    /// The store has failed: the node is to end itself; how long it stays down then.
    pub(super) store_failed: Option<u64>,
    pub(super) drained_down_us: u64,
    pub(super) flip: Option<Flip>,
    pub(super) restored_us: u64,
    /// All jumps of the machine's clock.
    pub(super) clock_jumps_us: i64,
    pub(super) stalled_until_us: Vec<u64>,
    /// Faults that took place: an end of the node when it ends, what lasts when it begins.
    pub(super) counts: BTreeMap<&'static str, u64>,
    over: bool,
}

impl Faults {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            kill: None,
            store_failed: None,
            drained_down_us: 0,
            flip: None,
            restored_us: 0,
            clock_jumps_us: 0,
            stalled_until_us: vec![0; usize::from(plan.config.shards)],
            counts: BTreeMap::new(),
            over: false,
        }
    }

    /// The process is gone: what was meant for it is void.
    pub(super) fn ended(&mut self, machine: &mut Machine) {
        self.kill = None;
        self.store_failed = None;
        machine.weather.write_error = None;
        machine.weather.write_failed = None;
    }

    pub(super) fn count(&mut self, name: &'static str) {
        *self.counts.entry(name).or_insert(0) += 1;
    }
}

impl World<'_> {
    /// A fault of the plan begins.
    pub(super) fn fault(&mut self, n: u8, index: usize) {
        if self.sites[n].faults.over || self.sites[n].faults.flip.is_some() {
            return;
        }
        let plan = self.plan;
        let (now_us, fault) = (self.now_us(), &plan.faults[index].1);
        self.observe(n, NodeEvent::Fault(name(fault)));
        match *fault {
            Fault::Kill {
                after_steps,
                down_us,
                clock_jump_us,
            } => self.kill_after(n, after_steps, down_us, clock_jump_us, false, None),
            Fault::PowerLoss {
                after_steps,
                down_us,
                clock_jump_us,
            } => self.kill_after(n, after_steps, down_us, clock_jump_us, true, None),
            Fault::BitRot { down_us, restored_us } => self.kill_after(n, 0, down_us, 0, true, Some(restored_us)),
            Fault::WriteError { down_us } | Fault::ShortWrite { down_us } => {
                let weather = &mut self.sites[n].machine.borrow_mut().weather;
                weather.write_error = Some(down_us);
                weather.write_short = matches!(fault, Fault::ShortWrite { .. });
            }
            Fault::StoreError { down_us } => {
                self.sites[n].faults.store_failed = Some(down_us);
                self.sites[n].store.fail();
                self.plan_event(n, now_us + STORE_PROBE_US, Event::Relief);
            }
            Fault::DiskFull { for_us } => {
                self.sites[n].faults.count(name(fault));
                self.sites[n].machine.borrow_mut().weather.disk_full_until_us = now_us + for_us;
                self.plan_event(n, now_us + for_us, Event::Relief);
            }
            Fault::SlowDisk { for_us, write_us } => {
                self.sites[n].faults.count(name(fault));
                self.sites[n].machine.borrow_mut().weather.slow_disk = (now_us + for_us, write_us);
            }
            Fault::SlowStore { for_us, action_us } => {
                self.sites[n].faults.count(name(fault));
                self.sites[n].machine.borrow_mut().weather.slow_store = (now_us + for_us, action_us);
            }
            Fault::StoreFull { for_us } => self.fill_store(n, now_us + for_us, name(fault)),
            Fault::ShardStall { shard, for_us } => {
                self.sites[n].faults.count(name(fault));
                let shard = usize::from(shard % self.plan.config.shards);
                self.sites[n].faults.stalled_until_us[shard] = now_us + for_us;
            }
            Fault::Resets { permille } => {
                if self.sites[n].machine.borrow_mut().break_some(permille) > 0 {
                    self.sites[n].faults.count(name(fault));
                }
            }
            Fault::SlowNetwork { for_us, delay_us } => {
                self.sites[n].faults.count(name(fault));
                self.sites[n].machine.borrow_mut().weather.slow_network = (now_us + for_us, delay_us);
            }
            Fault::Drain { down_us } => {
                if self.drain(n, down_us) {
                    self.sites[n].faults.count(name(fault));
                }
            }
            Fault::Pause { .. }
            | Fault::Away { .. }
            | Fault::Slow { .. }
            | Fault::LostAnswers { .. }
            | Fault::RegistryEmptied
            | Fault::LinksCut => self.fault_of_fleet(n, fault),
        }
    }

    /// The store's queues are full until then.
    fn fill_store(&mut self, n: u8, until_us: u64, name: &'static str) {
        if self.sites[n].store.fill(until_us) {
            self.sites[n].faults.count(name);
            self.plan_event(n, until_us, Event::Relief);
        }
    }

    /// A fault of what the nodes share begins.
    fn fault_of_fleet(&mut self, n: u8, fault: &Fault) {
        let Some(fleet) = &self.fleet else { return };
        match *fault {
            Fault::Pause { for_us } => {
                // It ends with the faults, as all others do.
                let until_us = (self.now_us() + for_us).min(self.plan.faults_over_us.max(self.now_us()));
                fleet.pauses(n, until_us - self.now_us());
                self.sites[n].faults.stalled_until_us.fill(until_us);
                self.plan_event(n, until_us, Event::Relief);
            }
            Fault::Away { what, by_all, for_us } => fleet.goes_away(n, what, by_all, for_us),
            Fault::Slow { what, for_us, added_us } => fleet.gets_slow(what, for_us, added_us),
            Fault::LostAnswers { for_us, permille } => fleet.loses_answers(for_us, permille),
            Fault::RegistryEmptied => fleet.empties_registry(),
            Fault::LinksCut => fleet.cuts_links(n),
            _ => return,
        }
        self.sites[n].faults.count(name(fault));
    }

    fn kill_after(
        &mut self,
        n: u8,
        steps_left: u32,
        down_us: u64,
        clock_jump_us: i64,
        power: bool,
        rot_us: Option<u64>,
    ) {
        if self.sites[n].node.is_none() && self.sites[n].starting.is_none() {
            return; // Nobody is there to be killed.
        }
        self.sites[n].faults.kill = Some(Kill {
            steps_left,
            down_us,
            clock_jump_us,
            power,
            rot_us,
        });
    }

    /// After a step of the node.
    pub(super) fn kill_if_due(&mut self, n: u8) {
        let Some(kill) = &mut self.sites[n].faults.kill else {
            return;
        };
        if kill.steps_left > 0 {
            kill.steps_left -= 1;
            return;
        }
        let kill = *kill;
        self.sites[n].faults.clock_jumps_us += kill.clock_jump_us;
        let (end, mut took_place) = if kill.power {
            (End::PowerLost, "power loss")
        } else {
            (End::Killed, "kill")
        };
        self.end(n, end, kill.down_us);
        if let Some(restored_us) = kill.rot_us {
            self.sites[n].faults.restored_us = restored_us;
            let flip = self.sites[n].machine.borrow_mut().flip_bit();
            self.sites[n].faults.flip = flip;
            if self.sites[n].faults.flip.is_some() {
                took_place = "bit rot";
            }
        }
        self.sites[n].faults.count(took_place);
    }

    /// The process ends itself and says `what`: the fault that was to make it say so, and how long it stays down.
    pub(super) fn provoked(&mut self, n: u8, what: &str) -> Option<(&'static str, u64)> {
        if what.contains(WRITE_SHORT) {
            let down_us = self.sites[n].machine.borrow_mut().weather.write_failed.take()?;
            Some(("short write", down_us))
        } else if what.contains(WRITE_FAILED) {
            let down_us = self.sites[n].machine.borrow_mut().weather.write_failed.take()?;
            Some(("write error", down_us))
        } else if what.starts_with(STORE_FAILED) && self.sites[n].store.health.fatal() {
            Some(("store error", self.sites[n].faults.store_failed.take()?))
        } else {
            None
        }
    }

    /// Conditions have changed.
    pub(super) fn relief(&mut self, n: u8) {
        if self.sites[n].store.health.fatal() && self.sites[n].node.is_some() {
            return self.failed(n, STORE_FAILED);
        }
        self.sites[n].store.listen();
    }

    /// The flipped bit is restored, and the node started again.
    pub(super) fn restore(&mut self, n: u8) {
        if let Some(flip) = self.sites[n].faults.flip.take() {
            self.sites[n].machine.borrow_mut().restore(flip);
            self.start(n);
        }
    }

    /// From here on nothing goes wrong any more.
    pub(super) fn faults_over(&mut self, n: u8) {
        self.sites[n].faults.over = true;
        if let Some(fleet) = &self.fleet {
            fleet.calms();
        }
        self.sites[n].faults.kill = None;
        self.sites[n].faults.stalled_until_us.fill(0);
        {
            let mut machine = self.sites[n].machine.borrow_mut();
            machine.weather.slow_disk = (0, 0);
            machine.weather.slow_store = (0, 0);
            machine.weather.slow_network = (0, 0);
            machine.weather.disk_full_until_us = 0;
            // One that has failed already ends the node all the same, as a store does.
            machine.weather.write_error = None;
        }
        self.sites[n].store.make_room();
        self.observe(n, NodeEvent::FaultsOver);
        self.restore(n);
        self.relief(n);
        let now_us = self.now_us();
        self.plan_event(n, now_us, Event::Start);
    }
}

/// The name of a fault.
fn name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Kill { .. } => "kill",
        Fault::PowerLoss { .. } => "power loss",
        Fault::BitRot { .. } => "bit rot",
        Fault::WriteError { .. } => "write error",
        Fault::ShortWrite { .. } => "short write",
        Fault::StoreError { .. } => "store error",
        Fault::DiskFull { .. } => "disk full",
        Fault::SlowDisk { .. } => "slow disk",
        Fault::SlowStore { .. } => "slow store",
        Fault::StoreFull { .. } => "store full",
        Fault::ShardStall { .. } => "shard stall",
        Fault::Resets { .. } => "resets",
        Fault::SlowNetwork { .. } => "slow network",
        Fault::Drain { .. } => "drain",
        Fault::Pause { .. } => "pause",
        Fault::Away { what, by_all, .. } => match (what, by_all) {
            (Shared::Tables, true) => "tables away",
            (Shared::Tables, false) => "tables cut off",
            (Shared::Registry, true) => "registry away",
            (Shared::Registry, false) => "registry cut off",
            (Shared::Links, true) => "links cut off",
            (Shared::Links, false) => "links one-way",
        },
        Fault::Slow { what, .. } => match what {
            Shared::Tables => "tables slow",
            Shared::Registry => "registry slow",
            Shared::Links => "links slow",
        },
        Fault::LostAnswers { .. } => "lost answers",
        Fault::RegistryEmptied => "registry emptied",
        Fault::LinksCut => "links cut",
    }
}
