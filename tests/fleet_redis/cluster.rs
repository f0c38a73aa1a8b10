//! The same registry on a Redis Cluster, and behind Sentinels: drivers move between nodes, and a master that is killed is
//! replaced and filled again.

use crate::redis::run;
use crate::support::{Driver, Node, Setup, eventually, ports, within};
use redis::cluster::ClusterClient;
use tempfile::TempDir;

/// Servers that a script starts together. Ended when dropped.
struct Servers {
    script: &'static str,
    variables: Vec<(&'static str, String)>,
    ports: Vec<u16>,
    dir: TempDir,
}

impl Servers {
    fn start(script: &'static str, count: usize, ports_in: &'static str, more: &[(&'static str, &str)]) -> Self {
        let free = || -> Vec<u16> { (0..count).map(|_| ports::free_address().port()).collect() };
        let list = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<String>>().join(" ");
        let (ports, bus_ports) = (free(), free());
        let mut variables: Vec<(&str, String)> =
            more.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        variables.push((ports_in, list(&ports)));
        // The usual ones, far above, may be anybody's connection at the moment.
        variables.push(("REDIS_CLUSTER_BUS_PORTS", list(&bus_ports)));
        let dir = TempDir::with_prefix("dispatchd-redis-").expect("a temporary directory");
        let servers = Self {
            script,
            variables,
            ports,
            dir,
        };
        servers.run(&["start"]);
        servers
    }

    fn run(&self, arguments: &[&str]) {
        let variables: Vec<(&str, &str)> = self
            .variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        run(self.script, arguments, &variables, self.dir.path());
    }

    fn kill(&self, port: u16) {
        self.run(&["kill", &port.to_string()]);
    }
}

fn urls(ports: &[u16]) -> String {
    let urls = ports.iter().map(|port| format!("redis://127.0.0.1:{port}"));
    urls.collect::<Vec<String>>().join(",")
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.run(&["wipe"]);
    }
}

/// Two nodes, drivers on both; half of them move; everybody's entry says where it is.
async fn drivers_move(nodes: &[Node; 2], round: usize) -> Vec<(usize, Driver)> {
    let mut drivers = Vec::new();
    for number in 0..40 {
        let (from, id) = (number % 2, format!("d-{round}-{number}"));
        let mut driver = nodes[from].driver(&id).await;
        if number % 4 < 2 {
            drivers.push((from, driver));
            continue;
        }
        let moved = nodes[1 - from].driver(&id).await;
        assert!(moved.session() > driver.session());
        assert_eq!(within("4001", driver.closed()).await.0, 4001);
        drivers.push((1 - from, moved));
    }
    drivers
}

async fn start_nodes(setup: impl Fn(&str) -> Setup) -> [Node; 2] {
    [setup("gw-0").start().await, setup("gw-1").start().await]
}

#[tokio::test]
async fn on_a_cluster_whose_master_dies() {
    let count = 6;
    let servers = Servers::start(
        "redis-cluster.sh",
        count,
        "REDIS_CLUSTER_PORTS",
        &[("REDIS_CLUSTER_REPLICAS", "1")],
    );
    let urls = urls(&servers.ports);
    let setup = |node_id: &str| {
        let setup = Setup::shards(2)
            .set("node_id", node_id)
            .set("fleet_redis_mode", "cluster");
        setup.set("fleet_redis_url", &urls).set("fleet_redis_prefix", "one:")
    };
    let nodes = start_nodes(setup).await;
    let drivers = drivers_move(&nodes, 1).await;
    let client = ClusterClient::new(vec![format!("redis://127.0.0.1:{}", servers.ports[1])]).expect("a client");
    until_all_are_where_they_are(&client, &drivers).await;
    servers.kill(servers.ports[0]);
    let more = drivers_connect(&nodes).await;
    until_all_are_where_they_are(&client, &more).await;
    until_all_are_where_they_are(&client, &drivers).await;
    let last = drivers_move(&nodes, 3).await;
    until_all_are_where_they_are(&client, &last).await;
}

/// While the masters change nobody has to be told of moves; everybody is served.
async fn drivers_connect(nodes: &[Node; 2]) -> Vec<(usize, Driver)> {
    let mut drivers = Vec::new();
    for number in 0..40 {
        let at = number % 2;
        drivers.push((at, nodes[at].driver(&format!("d-2-{number}")).await));
    }
    drivers
}

async fn until_all_are_where_they_are(client: &ClusterClient, drivers: &[(usize, Driver)]) {
    let what = format!("{} drivers in the cluster", drivers.len());
    eventually(&what, || async {
        let mut connection = client.get_async_connection().await.ok()?;
        for (at, driver) in drivers {
            let key = format!("one:driver:{}", driver.id);
            let node: Option<String> = redis::cmd("HGET")
                .arg(key)
                .arg("node")
                .query_async(&mut connection)
                .await
                .ok()?;
            if node? != format!("gw-{at}") {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test]
async fn behind_sentinels_whose_master_dies() {
    let servers = Servers::start("redis-sentinel.sh", 3, "REDIS_SENTINEL_PORTS", &[]);
    let [master, replica, sentinel] = servers.ports[..] else {
        unreachable!("three ports")
    };
    // The first Sentinel of the list is away.
    let urls = urls(&[ports::free_address().port(), sentinel]);
    let setup = |node_id: &str| {
        let setup = Setup::shards(2)
            .set("node_id", node_id)
            .set("fleet_redis_mode", "sentinel");
        setup.set("fleet_redis_url", &urls)
    };
    let nodes = start_nodes(setup).await;
    let drivers = drivers_move(&nodes, 1).await;
    until_all_are_at(master, &drivers).await;
    servers.kill(master);
    until_all_are_at(replica, &drivers).await;
    let more = drivers_move(&nodes, 2).await;
    until_all_are_at(replica, &more).await;
}

async fn until_all_are_at(port: u16, drivers: &[(usize, Driver)]) {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a URL");
    let what = format!("{} drivers at {port}, which is the master", drivers.len());
    eventually(&what, || async {
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let role: (String, redis::Value, redis::Value) = redis::cmd("ROLE").query_async(&mut connection).await.ok()?;
        let mut pipe = redis::pipe();
        for (_, driver) in drivers {
            pipe.cmd("HGET").arg(format!("driver:{}", driver.id)).arg("node");
        }
        let nodes: Vec<Option<String>> = pipe.query_async(&mut connection).await.ok()?;
        let fits = nodes
            .iter()
            .zip(drivers)
            .all(|(node, (at, _))| node.as_deref() == Some(&format!("gw-{at}")));
        (role.0 == "master" && fits).then_some(())
    })
    .await;
}
