//! The simulator: a whole node of the real code (shards, actors, wire, journal, recovery) with a simulated clock,
//! network, disk and store, and clients that speak bytes. One thread, one seed, the same run every time.
//!
//! Modules in reading order. [`client`] is the line between the world and what talks to it: actors get inputs and give
//! actions. [`plan`] is everything that a seed decides about the world, as data. [`world`] runs a plan. [`swarm`] draws a
//! case from a seed: a plan and who takes part (`scenes`: some are made for one promise); [`actors`] are those who do, and speak by [`codec`]. [`witness`] is told
//! what they see and checks it ([`checks`]). [`run`] runs a case, [`shrink`] makes a failing one smaller, [`report`]
//! prints.
#![forbid(unsafe_code)]

pub mod actors;
pub mod checks;
pub mod client;
pub mod codec;
pub mod fleets;
pub mod ids;
pub mod phrases;
pub mod plan;
pub mod report;
pub mod rng;
pub mod run;
mod scenes;
pub mod shrink;
pub mod swarm;
pub mod trips;
pub mod witness;
pub mod words;
pub mod world;
