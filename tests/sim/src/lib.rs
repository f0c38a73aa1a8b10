//! The simulator: a whole node of the real code (shards, actors, wire, journal, recovery) with a simulated clock,
//! network, disk and store, and clients that speak bytes. One thread, one seed, the same run every time.
//!
//! Modules in reading order. [`client`] is the line between the world and what talks to it: actors get inputs and give
//! actions. [`plan`] is everything that a seed decides, as data, so that a failing run can be shrunk. [`world`] runs a
//! plan.
#![forbid(unsafe_code)]

pub mod checks;
pub mod client;
pub mod codec;
pub mod ids;
pub mod plan;
pub mod rng;
pub mod trips;
pub mod witness;
pub mod words;
pub mod world;
