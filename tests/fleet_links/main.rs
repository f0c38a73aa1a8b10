//! Nodes of a fleet and the links between them: real processes, a real Redis, and proxies on every link that stall, cut and
//! damage it. What is looked at is what drivers and callers see.

#[path = "../fleet_redis/redis.rs"]
#[allow(dead_code)]
mod redis;
#[path = "../support/mod.rs"]
mod support;

mod api;
mod authority;
mod cuts;
mod deaths;
mod ends;
mod fleet;
mod flow;
mod forgotten;
mod measure;
mod moves;
mod peers;
mod protected;
mod proxy;
mod unregistered;
