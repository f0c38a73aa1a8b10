//! What stands in the registry of a driver, and who has it.

use crate::redis::Redis;
use crate::support::{Driver, PATIENCE, eventually, json, within};
use std::collections::HashMap;

/// The entry says what the driver is, and follows it.
async fn the_entry_follows_the_driver_on(shards: u16) {
    let redis = Redis::start();
    let node = redis.setup("gw-a", shards).start().await;
    let client = redis.client().await;
    let mut driver = node.driver("d-1").await;
    let session = driver.session();
    let entry = client
        .until("driver:d-1", "available", |entry| entry.get("state").is_some())
        .await;
    assert_eq!(entry["node"], "gw-a");
    assert_eq!(entry["session"], session.to_string());
    assert_eq!(entry["state"], "available");
    assert_eq!(
        (entry["current_trip_id"].as_str(), entry["location"].as_str()),
        ("", "")
    );
    assert!(entry["last_seen"].parse::<u64>().unwrap() > 1_577_836_800_000);
    let ttl_ms = client.clone().ttl_ms("driver:d-1").await;
    assert!((1..=60_000).contains(&ttl_ms), "{ttl_ms}");

    driver
        .send(&json!({"type": "LOCATION", "lat": 40.7, "lon": -73.9, "heading": 90}))
        .await;
    driver.fence().await;
    node.offer("r-1", &["d-1"], &json!({})).await;
    let offer = driver.expect("OFFER").await;
    client
        .until("driver:d-1", "offered", |entry| entry["state"] == "offered")
        .await;
    let trip_id = driver.accept(&offer).await;
    let entry = client
        .until("driver:d-1", "en route", |entry| entry["state"] == "en_route_to_pickup")
        .await;
    assert_eq!(entry["current_trip_id"], trip_id);
    assert_eq!(entry["location"], r#"{"lat":40.7,"lon":-73.9,"heading":90.0}"#);

    driver.trip(&trip_id, "pickup").await;
    driver.expect_state("on_trip").await;
    driver.trip(&trip_id, "complete").await;
    driver.expect_state("available").await;
    let entry = client
        .until("driver:d-1", "available", |entry| entry["state"] == "available")
        .await;
    assert_eq!(entry["current_trip_id"], "");
    driver.go("offline").await;
    client
        .until("driver:d-1", "off shift", |entry| entry["state"] == "offline")
        .await;
}

#[tokio::test]
async fn the_entry_follows_the_driver_on_1_shard() {
    the_entry_follows_the_driver_on(1).await;
}

#[tokio::test]
async fn the_entry_follows_the_driver_on_4_shards() {
    the_entry_follows_the_driver_on(4).await;
}

/// Whoever is heard stays, whoever is gone goes: by the node's word, or by itself when the node is dead.
#[tokio::test]
async fn heartbeats_keep_the_entry_and_its_end_takes_it() {
    let redis = Redis::start();
    let setup = redis
        .setup("gw-a", 1)
        .set("heartbeat_ms", 1_000)
        .set("fleet_redis_driver_ttl_ms", 2_000);
    let mut node = setup.set("driver_ttl_ms", 0).start().await;
    let client = redis.client().await;
    let mut heard = node.driver("heard").await;
    let first = client
        .until("driver:heard", "there", |entry| entry.contains_key("state"))
        .await;
    // Some times the life of an entry that nobody refreshes.
    let mut last_seen = first["last_seen"].clone();
    for _ in 0..6 {
        let now = &last_seen;
        let beat = async {
            loop {
                heard.fence().await;
                let entry = client.clone().hash("driver:heard").await;
                assert_eq!(
                    entry.get("node").map(String::as_str),
                    Some("gw-a"),
                    "the entry ended: {entry:?}"
                );
                if entry["last_seen"] > *now {
                    return entry["last_seen"].clone();
                }
                tokio::task::yield_now().await;
            }
        };
        last_seen = within("a refresh", beat).await;
    }
    assert!(last_seen.parse::<u64>().unwrap() - first["last_seen"].parse::<u64>().unwrap() > 2_000);

    heard.vanish();
    client.until("driver:heard", "gone", HashMap::is_empty).await;
    let _silent = node.driver("silent").await;
    client
        .until("driver:silent", "there", |entry| entry.contains_key("state"))
        .await;
    node.kill_9();
    client
        .until("driver:silent", "ended by itself", HashMap::is_empty)
        .await;
}

/// A driver is where it connected last; where it was before, its socket is displaced and it is offered no more.
async fn another_node_takes_the_driver_on(shards: u16) {
    let redis = Redis::start();
    let a = redis.setup("gw-a", shards).start().await;
    let b = redis.setup("gw-b", shards).start().await;
    let client = redis.client().await;
    let mut sessions = Vec::new();
    let mut at_a = a.driver("d-1").await;
    sessions.push(at_a.session());
    for _ in 0..3 {
        let mut at_b = b.driver("d-1").await;
        sessions.push(at_b.session());
        let closed = within("4001 from the first node", at_a.closed()).await;
        assert_eq!(closed, (4001, "displaced".to_owned()));
        eventually("the driver to be offline where it was", || async {
            // Until the store of a node that had it for a moment only has it, nobody there knows it.
            let seen = a.get("/v1/drivers/d-1").await;
            (seen.status == 200 && seen.json()["state"] == "offline").then_some(())
        })
        .await;
        client
            .until("driver:d-1", "at gw-b", |entry| entry["node"] == "gw-b")
            .await;
        b.offer(&format!("r-{}", sessions.len()), &["d-1"], &json!({})).await;
        let offer = at_b.expect("OFFER").await;
        at_b.decline(&offer).await;
        // And back.
        at_a = a.driver("d-1").await;
        sessions.push(at_a.session());
        let closed = within("4001 from the second node", at_b.closed()).await;
        assert_eq!(closed.0, 4001);
    }
    assert!(sessions.is_sorted_by(|before, after| before < after), "{sessions:?}");
    assert!(sessions.iter().all(|session| *session < 1 << 53), "{sessions:?}");
    assert_eq!(a.metric("dispatchd_registry_taken_total", "").await, 3);
}

#[tokio::test]
async fn another_node_takes_the_driver_on_1_shard() {
    another_node_takes_the_driver_on(1).await;
}

#[tokio::test]
async fn another_node_takes_the_driver_on_4_shards() {
    another_node_takes_the_driver_on(4).await;
}

/// A node that nobody told learns it from the refusal of its next write; the newer entry stays.
#[tokio::test]
async fn an_older_session_overwrites_nothing() {
    let redis = Redis::start();
    let node = redis.setup("gw-a", 1).start().await;
    let mut client = redis.client().await;
    let mut driver = node.driver("d-1").await;
    client
        .until("driver:d-1", "there", |entry| entry.contains_key("state"))
        .await;
    // A node whose clock is years ahead.
    let newer = driver.session() + (1 << 40);
    let mut take = redis::cmd("HSET");
    take.arg("driver:d-1")
        .arg(&["node", "gw-z", "state", "on_trip", "session"])
        .arg(newer);
    take.query_async::<i64>(&mut client.0).await.expect("HSET");
    driver.send(&json!({"type": "STATE", "state": "offline"})).await;
    let closed = within("4001", driver.closed()).await;
    assert_eq!(closed.0, 4001);
    assert_eq!(node.metric("dispatchd_registry_refused_total", "").await, 1);
    let entry = client.hash("driver:d-1").await;
    assert_eq!((entry["node"].as_str(), entry["state"].as_str()), ("gw-z", "on_trip"));
    // The next connect is newer than both, and so is one that Redis is not asked for.
    let next = node.driver("d-1").await.session();
    assert!(next > newer);
    redis.kill();
    eventually("the registry to be away", || async {
        (node.metric("dispatchd_registry_connected", "").await == 0).then_some(())
    })
    .await;
    assert!(node.driver("d-1").await.session() > next);
}

/// Connects of one driver that race for both nodes: one of them keeps it, the others hear 4001, and no session comes twice.
#[tokio::test]
async fn connects_that_race_leave_one_socket() {
    let redis = Redis::start();
    let a = redis.setup("gw-a", 2).start().await;
    let b = redis.setup("gw-b", 2).start().await;
    let connects =
        (0..20).map(|number| Driver::try_connect(if number % 2 == 0 { a.address } else { b.address }, "d-1"));
    let connected = within("the connects", futures_util::future::join_all(connects)).await;
    let mut drivers: Vec<Driver> = connected.into_iter().filter_map(Result::ok).collect();
    drivers.sort_by_key(Driver::session);
    let sessions: Vec<u64> = drivers.iter().map(Driver::session).collect();
    assert!(sessions.is_sorted_by(|one, other| one < other), "{sessions:?}");
    let mut last = drivers.pop().expect("one that connected");
    for mut older in drivers {
        let session = older.session();
        let closed = tokio::time::timeout(PATIENCE, older.closed()).await;
        assert_eq!(closed.unwrap_or_else(|_| panic!("session {session} is open")).0, 4001);
    }
    last.fence().await;
    let client = redis.client().await;
    let newest = last.session().to_string();
    client
        .until("driver:d-1", "the newest", |entry| entry["session"] == newest)
        .await;
}

/// What somebody else has put under a driver's key costs that driver its entry, and nobody else anything.
#[tokio::test]
async fn a_key_of_something_else_costs_its_driver_alone() {
    let redis = Redis::start();
    let mut client = redis.client().await;
    let mut put = redis::cmd("SET");
    put.arg("driver:d-bad").arg("what no node writes");
    put.query_async::<()>(&mut client.0).await.expect("SET");
    let node = redis.setup("gw-a", 1).start().await;
    let mut bad = node.driver("d-bad").await;
    let mut good = node.driver("d-good").await;
    client
        .until("driver:d-good", "there", |entry| entry.contains_key("state"))
        .await;
    // The connect and the first line of that driver at least.
    eventually("its key to be counted", || async {
        (node.metric("dispatchd_registry_unusable_total", "").await >= 2).then_some(())
    })
    .await;
    // Both change, side by side.
    for (number, state) in ["offered", "available", "offered"].into_iter().enumerate() {
        let request_id = format!("r-{number}");
        for driver in [&mut bad, &mut good] {
            let request_id = format!("{request_id}-{}", driver.id);
            if state == "offered" {
                node.offer(&request_id, &[&driver.id], &json!({"offer_timeout_ms": 600_000}))
                    .await;
                driver.expect("OFFER").await;
            } else {
                node.cancel(&format!("r-{}-{}", number - 1, driver.id)).await.ok(200);
                driver.expect("REVOKED").await;
            }
        }
        client
            .until("driver:d-good", state, |entry| entry["state"] == state)
            .await;
    }
    assert_eq!(node.metric("dispatchd_registry_errors_total", "").await, 0);
    assert_eq!(node.metric("dispatchd_registry_connected", "").await, 1);
    // Once the key is free, the driver's next change is written.
    let removed = redis::cmd("DEL")
        .arg("driver:d-bad")
        .query_async::<i64>(&mut client.0)
        .await;
    assert_eq!(removed.expect("DEL"), 1);
    bad.send(&json!({"type": "LOCATION", "lat": 40.7, "lon": -73.9})).await;
    bad.fence().await;
    let request_id = format!("r-2-{}", bad.id);
    node.cancel(&request_id).await.ok(200);
    client
        .until("driver:d-bad", "there", |entry| {
            entry.get("state").map(String::as_str) == Some("available")
        })
        .await;
}
