//! The offer workflow as pure state machines: events in, effects out, time as an argument.
//!
//! Must never: do I/O, read a clock, spawn threads, use `unsafe`, or depend on hash order.
#![forbid(unsafe_code)]
// No clock, no threads, no sleep: the list is in `clippy.toml`.
#![deny(clippy::disallowed_methods)]

pub mod driver;
pub mod fold;
pub mod ids;
mod outbox;
pub mod queue;
pub mod request;
pub mod types;
pub mod wheel;
