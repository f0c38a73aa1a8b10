//! Nodes with a real Cassandra (`tests/services/cassandra.sh`), from the outside: the API of two nodes, and what stands in
//! the tables. Without Java every test says so and passes.
//!
//! Tests share one Cassandra and one keyspace and use ids of their own. One that stops Cassandra has it alone
//! (`Cluster::alone`).

#[path = "../support/mod.rs"]
mod support;

mod archive;
mod bench;
mod cluster;
mod drain;
mod faults;
mod linked;
mod owners;
#[path = "../fleet_links/proxy.rs"]
#[allow(dead_code, reason = "no byte is harmed here")]
mod proxy;
mod records;
#[path = "../fleet_redis/redis.rs"]
#[allow(dead_code, reason = "these tests need a server, and look at no keys")]
mod redis;
mod schema;
mod takeover;
