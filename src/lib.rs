//! dispatchd: a driver-dispatch gateway. Modules in reading order.

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
