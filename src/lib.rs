//! dispatchd: a driver-dispatch gateway. Modules in reading order.
// Allowed where a module says so: in `net` and the rings, and for one call of the C library in `ops/heap.rs`.
#![deny(unsafe_code)]
// Without the feature a part of what the process and its clients stand on is here for nobody; the ordinary build looks.
#![cfg_attr(not(feature = "fleet"), allow(dead_code, unused_imports))]

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
