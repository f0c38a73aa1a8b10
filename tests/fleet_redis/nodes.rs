//! Leases, `dispatchd fleet status`, and which node a driver is sent to.

use crate::redis::Redis;
use crate::support::{Node, Setup, Value, eventually, json, number, text};
use std::collections::BTreeMap;
use std::process::{Command, Output};

fn status(redis: &Redis, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dispatchd"));
    command
        .args(["fleet", "status", "--set"])
        .arg(format!("fleet_redis_url={}", redis.url()));
    command.args(["--set", "fleet_redis_timeout_ms=20000"]);
    command.args(more).output().expect("the program")
}

fn nodes(redis: &Redis) -> BTreeMap<String, Value> {
    let shown = status(redis, &["--json"]);
    assert!(shown.status.success(), "{shown:?}");
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let rows = shown["nodes"].as_array().expect("nodes").iter();
    rows.map(|row| (text(row, "node_id").to_owned(), row.clone())).collect()
}

async fn until_nodes(
    redis: &Redis,
    what: &str,
    fits: impl Fn(&BTreeMap<String, Value>) -> bool,
) -> BTreeMap<String, Value> {
    eventually(what, || async {
        let nodes = nodes(redis);
        fits(&nodes).then_some(nodes)
    })
    .await
}

#[tokio::test]
async fn status_shows_who_lives_and_what_it_has() {
    let redis = Redis::start();
    let a = redis.setup("gw-a", 2).start().await;
    let mut b = redis
        .setup("gw-b", 1)
        .set("fleet_address", "gw-b.example:8080")
        .start()
        .await;
    let _drivers = [a.driver("d-1").await, a.driver("d-2").await, a.driver("d-3").await];
    a.offer("r-1", &["nobody"], &json!({})).await;
    let shown = until_nodes(&redis, "3 drivers and a request", |nodes| {
        nodes.len() == 2 && nodes["gw-a"]["drivers"] == 3 && nodes["gw-a"]["requests_open"] == 1
    })
    .await;
    assert_eq!(text(&shown["gw-a"], "state"), "serving");
    assert_eq!(text(&shown["gw-a"], "address"), a.address.to_string());
    assert_eq!(text(&shown["gw-b"], "address"), "gw-b.example:8080");
    assert_eq!(number(&shown["gw-b"], "backlog"), 0);
    // The time of its start: no later life of it has the same, whatever becomes of its directory.
    assert!(number(&shown["gw-b"], "incarnation") > 1_700_000_000_000);

    b.kill_9();
    until_nodes(&redis, "the lease of gw-b to lapse", |nodes| {
        nodes["gw-b"]["state"] == "lapsed"
    })
    .await;
    let table = String::from_utf8(status(&redis, &[]).stdout).expect("a table");
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(
        lines[0].contains("NODE") && lines[1].contains("gw-a") && lines[1].contains("serving"),
        "{table}"
    );
    assert!(lines[2].contains("gw-b") && lines[2].contains("lapsed"), "{table}");
}

/// A node that cannot store takes no work: the status says so, and drivers are sent to those that do, or to it when there is no other.
#[tokio::test]
async fn a_node_that_takes_no_work_is_shown_and_gets_no_drivers() {
    let redis = Redis::start();
    let mut a = redis.setup("gw-a", 1).start().await;
    // Nobody listens there.
    let away = ("fleet_cassandra_contact_points", "127.0.0.1:1");
    let mut b = redis.setup("gw-b", 1).set(away.0, away.1).prepare();
    b.spawn();
    let shown = until_nodes(&redis, "gw-b to be shown", |nodes| {
        nodes.get("gw-b").is_some_and(|node| node["state"] != "starting")
    })
    .await;
    assert_eq!(
        (text(&shown["gw-b"], "state"), text(&shown["gw-a"], "state")),
        ("not_ready", "serving")
    );
    assert_eq!(b.get("/readyz").await.status, 503);
    let homes = async |node: &Node| {
        let mut homes = Vec::new();
        for number in 0..16 {
            let path = format!("/v1/fleet/assign?driver_id=d-{number}");
            homes.push(text(&node.get(&path).await.ok(200), "node").to_owned());
        }
        homes
    };
    // It is known as a node, and gets nobody all the same: that is looked at when both have heard of each other.
    let both = async || {
        let known =
            a.metric("dispatchd_registry_nodes", "").await == 2 && b.metric("dispatchd_registry_nodes", "").await == 2;
        known.then_some(())
    };
    eventually("both nodes to be known", both).await;
    for node in [&a, &b] {
        assert!(homes(node).await.iter().all(|home| home == "gw-a"));
    }
    a.terminate();
    assert!(a.exit().await.success());
    let alone = async || homes(&b).await.iter().all(|home| home == "gw-b").then_some(());
    eventually("the node that is left to get the drivers", alone).await;
}

#[tokio::test]
async fn status_says_what_is_missing() {
    let redis = Redis::start();
    redis.kill();
    let failed = status(&redis, &[]);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(
        said.contains("Redis at 127.0.0.1:") && said.contains("connection refused"),
        "{said}"
    );
    let failed = status(&redis, &["--set", "fleet_redis_url="]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&failed.stderr).contains("fleet_redis_url is empty"));
}

/// Two processes of one name are an operator's mistake: the second does not start. A restart is none, however soon.
#[tokio::test]
async fn a_name_has_one_process() {
    let redis = Redis::start();
    let mut first = redis.setup("gw-a", 1).start().await;
    let mut second = redis.setup("gw-a", 1).prepare();
    second.spawn();
    assert_eq!(second.exit().await.code(), Some(1));
    let before = number(&nodes(&redis)["gw-a"], "incarnation");
    first.crash_and_restart().await;
    let shown = until_nodes(&redis, "the second incarnation", |nodes| {
        number(&nodes["gw-a"], "incarnation") > before && nodes["gw-a"]["state"] == "serving"
    })
    .await;
    assert_eq!(text(&shown["gw-a"], "node_id"), "gw-a");
    first.terminate();
    assert!(first.exit().await.success());
    assert_eq!(nodes(&redis)["gw-a"]["state"], "lapsed", "a lease is given back");
    let _other = redis.setup("gw-a", 1).start().await;
}

/// Settings that cannot be right are refused before anything begins.
#[tokio::test]
async fn a_fleet_is_checked_at_the_start() {
    let redis = Redis::start();
    for (key, value) in [
        ("fleet_redis_driver_ttl_ms", "59999"),
        ("fleet_redis_url", "http://127.0.0.1:1"),
        ("fleet_redis_url", "rediss://127.0.0.1:1"),
        ("fleet_redis_url", "redis://127.0.0.1:1,redis://127.0.0.1:2"),
        ("fleet_link_tls_key_file", "gw-a.key"),
    ] {
        let mut node = redis.setup("gw-a", 1).set(key, value).prepare();
        node.spawn();
        assert_eq!(node.exit().await.code(), Some(2), "{key} {value}");
    }
}

async fn assigned(node: &Node, driver_id: &str) -> Value {
    node.get(&format!("/v1/fleet/assign?driver_id={driver_id}"))
        .await
        .ok(200)
}

/// Both nodes say the same, and only of nodes that live; a driver that follows is served there.
#[tokio::test]
async fn every_node_assigns_alike() {
    let redis = Redis::start();
    let a = redis.setup("gw-a", 1).start().await;
    let mut b = redis.setup("gw-b", 1).start().await;
    // Some driver of many is at home on each, once both nodes are known.
    for (node, other) in [(&a, "gw-b"), (&b, "gw-a")] {
        let numbers = || (0..20).map(|number| format!("d-{number}"));
        eventually("the other node to be known", || async {
            let homes =
                futures_util::future::join_all(numbers().map(|id| async move { assigned(node, &id).await })).await;
            homes.iter().any(|home| home["node"] == other).then_some(())
        })
        .await;
    }
    let mut counts = BTreeMap::<String, u32>::new();
    for number in 0..100 {
        let id = format!("d-{number}");
        let home = assigned(&a, &id).await;
        assert_eq!(home, assigned(&b, &id).await);
        *counts.entry(text(&home, "node").to_owned()).or_default() += 1;
        let node = if home["node"] == "gw-a" { &a } else { &b };
        assert_eq!(text(&home, "address"), node.address.to_string());
        assert_eq!(text(&home, "url"), format!("ws://{}/ws/driver/{id}", node.address));
    }
    assert!(
        counts.len() == 2 && counts.values().all(|count| *count > 25),
        "{counts:?}"
    );
    b.kill_9();
    eventually("everybody to be sent to gw-a", || async {
        for number in 0..20 {
            if assigned(&a, &format!("d-{number}")).await["node"] != "gw-a" {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_alone_assigns_itself() {
    let node = crate::support::Setup::shards(1).set("node_id", "alone").start().await;
    let home = assigned(&node, "d-1").await;
    assert_eq!(
        (text(&home, "node"), text(&home, "address")),
        ("alone", node.address.to_string().as_str())
    );
    for query in ["", "?driver_id=", "?driver_id=a%20b", "?driver_id=a&driver_id=b"] {
        let refused = node.get(&format!("/v1/fleet/assign{query}")).await;
        assert_eq!(refused.status, 400, "{query}");
    }
}

/// A node that leaves its fleet for good keeps its data directory, whose incarnations are times by now: sessions grow on all the same, and every
/// JSON reader keeps them exactly.
#[tokio::test]
async fn sessions_grow_when_a_node_leaves_its_fleet() {
    let redis = Redis::start();
    let directory = tempfile::tempdir().expect("a directory");
    let mut node = redis.setup("gw-a", 1).data(directory.path()).start().await;
    let in_fleet = node.driver("d-1").await.session();
    node.terminate();
    assert!(node.exit().await.success());
    let alone = Setup::shards(1).set("node_id", "gw-a").data(directory.path());
    let mut node = alone.start().await;
    let (first, second) = (node.driver("d-1").await.session(), node.driver("d-1").await.session());
    node.crash_and_restart().await;
    let third = node.driver("d-1").await.session();
    let all = [in_fleet, first, second, third];
    assert!(all.is_sorted_by(|one, next| one < next) && third < 1 << 53, "{all:?}");
}
