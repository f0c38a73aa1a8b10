//! A fleet under test: nodes `gw-0`, `gw-1`, …, and a proxy before the links of each.

use crate::proxy::{Mode, Proxy};
use crate::redis::Redis;
use crate::support::{Driver, Node, Setup, Value, eventually, json, ports};
use futures_util::future::join_all;

pub struct Fleet {
    pub redis: Redis,
    pub nodes: Vec<Node>,
    /// What the others' letters to a node go through.
    pub proxies: Vec<Proxy>,
}

impl Fleet {
    pub async fn start(count: usize) -> Self {
        Self::start_with(count, |setup| setup).await
    }

    pub async fn start_with(count: usize, with: impl Fn(Setup) -> Setup) -> Self {
        Self::start_numbered(count, |_, setup| with(setup)).await
    }

    /// `with` hears which node's setup it is.
    pub async fn start_numbered(count: usize, with: impl Fn(usize, Setup) -> Setup) -> Self {
        let redis = Redis::start();
        let mut proxies = Vec::new();
        let mut nodes = Vec::new();
        for number in 0..count {
            let listen = ports::free_address();
            let proxy = Proxy::start(listen);
            let setup = redis
                .setup(&name(number), 2)
                .set("fleet_link_listen", listen)
                .set("fleet_link_advertise", proxy.address);
            nodes.push(with(number, setup).start().await);
            proxies.push(proxy);
        }
        let fleet = Self { redis, nodes, proxies };
        fleet.until_linked().await;
        fleet
    }

    /// Until every node that runs has links to all others that run.
    pub async fn until_linked(&self) {
        let others = self.nodes.len() as u64 - 1;
        for node in &self.nodes {
            until_metric(node, "dispatchd_links_up", |up| up == others).await;
        }
    }

    /// All links to and from a node.
    pub fn set_links_of(&self, number: usize, mode: Mode) {
        // With two nodes these are the links to both. With more the others' links among each other are set too.
        for (at, proxy) in self.proxies.iter().enumerate() {
            if at == number || self.nodes.len() == 2 {
                proxy.set(mode);
            }
        }
    }

    pub async fn driver(&self, number: usize, id: &str) -> Driver {
        let driver = self.nodes[number].driver(id).await;
        self.until_registered(number, id).await;
        driver
    }

    /// Until the registry says that the driver is there.
    pub async fn until_registered(&self, number: usize, id: &str) {
        let client = self.redis.client().await;
        client
            .until(&format!("driver:{id}"), "at its node", |entry| {
                entry.get("node").is_some_and(|node| *node == name(number)) && entry.contains_key("state")
            })
            .await;
    }

    /// Until the registry knows which request binds the driver.
    pub async fn until_bound(&self, id: &str, request_id: &str) {
        let client = self.redis.client().await;
        client
            .until(&format!("driver:{id}"), "bound", |entry| {
                entry.get("request").is_some_and(|request| *request == request_id)
            })
            .await;
    }

    /// Takes away what the registry knows of what binds a driver, as if that had not been written yet.
    pub async fn forget_bound(&self, id: &str) {
        let mut client = self.redis.client().await;
        let mut forget = redis::cmd("HDEL");
        forget.arg(format!("driver:{id}")).arg("request").arg("owner");
        forget.query_async::<i64>(&mut client.0).await.expect("HDEL");
    }

    /// Takes away what the registry is to tell a node of drivers who left it, as if the node had been away for longer than that is kept.
    pub async fn forget_moves(&self, number: usize) {
        let mut client = self.redis.client().await;
        let mut forget = redis::cmd("DEL");
        forget.arg(format!("moved:{}", name(number)));
        forget.query_async::<i64>(&mut client.0).await.expect("DEL");
    }

    pub async fn offer(&self, number: usize, request_id: &str, drivers: &[&str], more: &Value) {
        self.nodes[number].offer(request_id, drivers, more).await;
    }

    /// The request's state at a node.
    pub async fn state(&self, number: usize, request_id: &str) -> String {
        let view = self.nodes[number]
            .get(&format!("/v1/dispatch/request/{request_id}"))
            .await;
        view.ok(200)["state"].as_str().expect("a state").to_owned()
    }

    pub async fn until_state(&self, number: usize, request_id: &str, state: &str) {
        eventually(&format!("{request_id} to be {state}"), || async {
            (self.state(number, request_id).await == state).then_some(())
        })
        .await;
    }

    /// The events of a request's audit at a node.
    pub async fn audit(&self, number: usize, request_id: &str) -> Vec<String> {
        let audit = self.nodes[number]
            .get(&format!("/v1/dispatch/audit/{request_id}"))
            .await;
        let audit = audit.ok(200);
        let events = audit["events"].as_array().expect("events").iter();
        events
            .map(|event| event["event"].as_str().expect("a name").to_owned())
            .collect()
    }

    pub async fn until_audited(&self, number: usize, request_id: &str, event: &str) {
        eventually(&format!("{event} of {request_id}"), || async {
            let audit = self.audit(number, request_id).await;
            audit.iter().any(|found| found == event).then_some(())
        })
        .await;
    }

    /// What a node says of a driver.
    pub async fn view(&self, number: usize, id: &str) -> Value {
        self.nodes[number].get(&format!("/v1/drivers/{id}")).await.ok(200)
    }

    /// What all nodes say of a driver, once they say the same.
    pub async fn until_all_say(&self, id: &str, state: &str, at: usize) {
        let what = format!("{id} to be {state} at {}", name(at));
        eventually(&what, || async {
            let views = join_all((0..self.nodes.len()).map(|number| self.view(number, id))).await;
            let fits = |view: &Value| view["state"] == state && view["node"] == name(at);
            views.iter().all(fits).then_some(())
        })
        .await;
    }
}

pub fn name(number: usize) -> String {
    format!("gw-{number}")
}

/// A metric's value, summed over its labels.
pub async fn metric(node: &Node, name: &str) -> u64 {
    let Ok(answer) = node.http.get(node.url("/metrics")).send().await else {
        return 0;
    };
    let text = answer.text().await.unwrap_or_default();
    let of = |line: &&str| line.starts_with(name) && line[name.len()..].starts_with([' ', '{']);
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
    text.lines().filter(of).filter_map(value).sum::<f64>() as u64
}

pub async fn until_metric(node: &Node, name: &str, fits: impl Fn(u64) -> bool) -> u64 {
    eventually(&format!("{name} to fit"), || async {
        Some(metric(node, name).await).filter(|value| fits(*value))
    })
    .await
}

/// An answer of a driver over HTTP.
pub fn response(driver: &str, request_id: &str, kind: &str) -> Value {
    json!({"driver_id": driver, "request_id": request_id, "response_type": kind})
}
