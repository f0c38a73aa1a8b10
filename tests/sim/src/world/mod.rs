//! Runs a plan: the event queue, the node, and everything between the node and its clients.

use crate::client::{Actor, Observer};
use crate::plan::Plan;

/// What a run was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Hash over everything that actors and observer were given, with times. Equal for equal plans and actors.
    pub digest: u64,
    /// Steps of the node: turns, store actions, start steps.
    pub steps: u64,
    /// Bytes that actors sent and got.
    pub bytes: u64,
    /// Faults that took place, by name, in the order of their names.
    pub faults: Vec<(&'static str, u64)>,
    /// A panic or a broken promise of the node's own code (assertions, overflow), which ends the run; what it said.
    pub bug: Option<String>,
}

/// Runs `plan` with `actors`; `observer` hears what happens to the node. Actors share what they saw with the checker by
/// means of their own.
///
/// # Panics
/// When the plan is no plan (no shards, ranges upside down).
pub fn run(plan: &Plan, actors: Vec<Box<dyn Actor>>, observer: &mut dyn Observer) -> Summary {
    let _ = (plan, actors, observer);
    unimplemented!("the world comes after the ports")
}
