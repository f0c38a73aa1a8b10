//! dispatchd: a driver-dispatch gateway. Modules in reading order.
// Allowed where a module says so: in `net` and the rings, and for one call of the C library in `ops/heap.rs`.
#![deny(unsafe_code)]

pub mod aligned;
pub mod cold;
pub mod config;
pub mod demo;
pub mod fsm;
pub mod journal;
pub mod limits;
pub mod net;
pub mod node;
pub mod ops;
pub mod pages;
pub mod shard;
pub mod sync;
pub mod wake;
pub mod wire;
