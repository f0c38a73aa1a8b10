//! The comparison's client against two of its servers: every push comes, and connections end as they should.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use dispatchd_bench::peers::client::{Client, Pace, Times};
use dispatchd_bench::peers::dialect::{Dialect, Named, Raw};
use dispatchd_bench::server::Target;

const TIMES: Times = Times {
    warmup_s: 0.05,
    measured_s: 0.3,
};

/// Killed and reaped when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(arguments: &[&str]) -> (Server, Target) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dispatchd-bench"))
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let target = Target {
        address: line.trim().parse().unwrap(),
        pid: child.id(),
    };
    (Server(child), target)
}

fn pushes(target: Target, dialect: &dyn Dialect) {
    let mut client = Client::open(target, dialect, 20).unwrap();
    client.connect_all(0..20).unwrap();
    let busy = client.push(Pace::Closed { in_flight: 8 }, TIMES).unwrap();
    assert!(busy.operations > 0 && busy.latencies.count() > 0);
    let open = client
        .push(
            Pace::Open {
                rate: 200,
                sleeps: true,
            },
            TIMES,
        )
        .unwrap();
    assert!(open.operations > 0 && open.usage.server_us_per(open.operations) > 0.0);
    let faults = client.take_faults();
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn the_peer_on_tungstenite_pushes_to_whom_it_is_told_and_closes() {
    for arguments in [&["tungstenite-server"][..], &["tungstenite-server", "--small-buffers"]] {
        let (_server, target) = start(arguments);
        pushes(target, &Named);
        let mut client = Client::open(target, &Named, 4).unwrap();
        let churn = client.churn(TIMES).unwrap();
        assert!(churn.operations > 0);
        assert!(client.take_faults().is_empty());
    }
}

#[test]
fn the_raw_ring_pushes_as_many_bytes() {
    let like = Raw::like_named();
    let pair = like.push.to_string();
    let (_server, target) = start(&["raw-server", "--slots", "32", "--pairs", &pair]);
    let opening = like.push;
    pushes(target, &Raw { opening, ..like });
}
