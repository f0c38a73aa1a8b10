//! The fleet's registry on real Redis servers, real Sentinels and a real Redis Cluster, which `tests/services` installs
//! and starts: what stands in it, who has a driver, and what becomes of drivers while Redis is killed, paused or empty.

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod faults;
mod measure;
mod nodes;
mod redis;
mod registry;
