//! What a simulated shard stands on.

use super::machine::Shared;
use super::ring::SimRing;
use dispatchd::journal::{Incarnation, Owner};
use dispatchd::shard::{Done, Files, Job, Platform, Time};
use std::fmt::Debug;

/// The simulator.
pub(super) enum Sim {}

/// How a shard ends the process: what it said, on its way up to the world.
pub(super) struct Failure(pub(super) String);

impl Platform for Sim {
    type Ring = SimRing;
    type Time = SimTime;
    type Files = SimFiles;

    fn fail(shard: u16, what: &str, error: &dyn Debug) -> ! {
        let failure = Failure(format!("shard {shard}: {what}: {error:?}"));
        std::panic::resume_unwind(Box::new(failure))
    }
}

/// The node's clock in one boot.
pub(super) struct SimTime {
    pub(super) machine: Shared,
    /// Unix time minus simulated time.
    pub(super) offset_us: u64,
}

impl Time for SimTime {
    fn now_us(&self) -> u64 {
        self.machine.borrow().now_us() + self.offset_us
    }

    fn order(&self) -> u64 {
        self.machine.borrow_mut().next_order()
    }
}

/// A segment file.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimFile {
    pub(super) owner: Owner,
    pub(super) segment: u64,
}

/// One shard's segment files.
pub(super) struct SimFiles {
    pub(super) machine: Shared,
    pub(super) shard: u16,
    pub(super) incarnation: Incarnation,
}

impl Files for SimFiles {
    type File = SimFile;

    fn send(&self, job: Job) {
        self.machine.borrow_mut().order(self.shard, self.incarnation, job);
    }

    fn take(&self) -> Option<Done<SimFile>> {
        self.machine.borrow_mut().disk.take_done(self.shard)
    }
}
