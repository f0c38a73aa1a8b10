//! Redis killed, paused, and back with nothing: drivers are served all the same, and the registry is whole again.

use crate::redis::Redis;
use crate::support::{Driver, Node, eventually, json, within};

const DRIVERS: usize = 60;

struct Fleet {
    redis: Redis,
    nodes: [Node; 2],
    drivers: Vec<(usize, Driver)>,
}

impl Fleet {
    async fn start() -> Self {
        let redis = Redis::start();
        let nodes = [
            redis.setup_of_silent("gw-0", 2).start().await,
            redis.setup_of_silent("gw-1", 2).start().await,
        ];
        let mut drivers = Vec::new();
        for number in 0..DRIVERS {
            let at = number % 2;
            drivers.push((at, nodes[at].driver(&format!("d-{number}")).await));
        }
        let fleet = Self { redis, nodes, drivers };
        fleet.until_whole().await;
        fleet
    }

    /// Every driver's entry says where it is.
    async fn until_whole(&self) {
        let client = self.redis.client().await;
        for at in 0..2 {
            let ids: Vec<String> = self
                .drivers
                .iter()
                .filter(|driver| driver.0 == at)
                .map(|driver| driver.1.id.clone())
                .collect();
            let node_id = format!("gw-{at}");
            let what = format!("{} drivers at {node_id}", ids.len());
            eventually(&what, || async {
                (client.drivers_of(&node_id, &ids).await == ids.len()).then_some(())
            })
            .await;
        }
    }

    /// Offers, answers, trips: nothing of it needs Redis.
    async fn serve(&mut self, round: usize) {
        for (at, driver) in self.drivers.iter_mut().step_by(7) {
            let request_id = format!("r-{round}-{}", driver.id);
            self.nodes[*at].offer(&request_id, &[&driver.id], &json!({})).await;
            let offer = driver.expect("OFFER").await;
            let trip_id = driver.accept(&offer).await;
            driver.trip(&trip_id, "pickup").await;
            driver.expect_state("on_trip").await;
            driver.trip(&trip_id, "complete").await;
            driver.expect_state("available").await;
        }
    }

    /// A driver connects again where it is, another moves to the other node; sessions grow.
    async fn reconnect(&mut self) {
        for (number, moves) in [(1, false), (2, true)] {
            let (at, mut old) = self.drivers.remove(number);
            let to = if moves { 1 - at } else { at };
            let new = self.nodes[to].driver(&old.id).await;
            assert!(new.session() > old.session(), "{} {}", new.session(), old.session());
            if moves {
                old.vanish();
            } else {
                assert_eq!(within("4001", old.closed()).await.0, 4001);
            }
            self.drivers.insert(number, (to, new));
        }
    }

    async fn until_connected(&self, connected: u64) {
        for node in &self.nodes {
            eventually("the registry's state", || async {
                (node.metric("dispatchd_registry_connected", "").await == connected).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn a_redis_that_is_killed_comes_back_empty_and_is_filled_again() {
    let mut fleet = Fleet::start().await;
    for round in 0..2 {
        fleet.redis.kill();
        fleet.serve(10 * round).await;
        fleet.until_connected(0).await;
        fleet.reconnect().await;
        fleet.serve(10 * round + 1).await;
        fleet.redis.start_again();
        fleet.until_connected(1).await;
        fleet.until_whole().await;
        fleet.reconnect().await;
        fleet.serve(10 * round + 2).await;
        fleet.until_whole().await;
    }
}

#[tokio::test]
async fn a_redis_that_hangs_makes_nobody_wait_for_long() {
    let mut fleet = Fleet::start().await;
    fleet.redis.pause();
    fleet.serve(0).await;
    fleet.reconnect().await;
    fleet.until_connected(0).await;
    fleet.reconnect().await;
    fleet.serve(1).await;
    fleet.redis.go_on();
    fleet.until_connected(1).await;
    fleet.until_whole().await;
    fleet.serve(2).await;
}

/// Everything but the connection is lost: scripts and entries.
#[tokio::test]
async fn a_redis_that_forgot_its_scripts_gets_them_again() {
    let mut fleet = Fleet::start().await;
    let mut client = fleet.redis.client().await;
    let forgotten = redis::cmd("SCRIPT").arg("FLUSH").query_async::<()>(&mut client.0).await;
    forgotten.expect("SCRIPT FLUSH");
    redis::cmd("FLUSHALL")
        .query_async::<()>(&mut client.0)
        .await
        .expect("FLUSHALL");
    fleet.until_whole().await;
    fleet.reconnect().await;
    fleet.until_whole().await;
}

/// Nobody's connection notices.
#[tokio::test]
async fn a_redis_that_is_emptied_is_filled_again() {
    let fleet = Fleet::start().await;
    let mut client = fleet.redis.client().await;
    redis::cmd("FLUSHALL")
        .query_async::<()>(&mut client.0)
        .await
        .expect("FLUSHALL");
    fleet.until_whole().await;
}

/// A node starts while Redis is away, and joins the fleet when it is there.
#[tokio::test]
async fn a_node_starts_without_redis() {
    let redis = Redis::start();
    redis.kill();
    let node = redis.setup("gw-0", 1).start().await;
    let _driver = node.driver("d-1").await;
    redis.start_again();
    let client = redis.client().await;
    client
        .until("driver:d-1", "there", |entry| entry.contains_key("state"))
        .await;
    client.until("node:gw-0", "there", |lease| !lease.is_empty()).await;
}
