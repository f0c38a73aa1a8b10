//! The raw ring, with its server in a process of its own, as the program runs it.

use std::path::Path;
use std::process::Command;

use dispatchd_bench::raw::client::{self, Load};
use dispatchd_bench::raw::{Pair, server};
use dispatchd_bench::server::{Cores, RawServer};

use serde_json::Value;

#[test]
fn raw_prints_and_writes_the_cpu_of_a_pair() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("raw.json");
    let output = Command::new(env!("CARGO_BIN_EXE_dispatchd-bench"))
        .args([
            "raw",
            "--connections",
            "50",
            "--pairs",
            "40:60,100:20",
            "--raw-secs",
            "0.3",
            "--runs",
            "1",
            "--json",
        ])
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("raw_pair_cpu_us"));
    let results: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let medians = &results["scenarios"][0]["medians"];
    assert!(medians["raw_pair_cpu_us"].as_f64().unwrap() > 0.0, "{results:#}");
    assert!(medians["raw_pairs_per_s"].as_f64().unwrap() > 0.0, "{results:#}");
}

#[test]
fn a_missing_server_is_an_error_that_says_what_to_do() {
    let output = Command::new(env!("CARGO_BIN_EXE_dispatchd-bench"))
        .args(["offers", "--server", "/nowhere/dispatchd"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("/nowhere/dispatchd") && message.contains("cargo build"),
        "{message}"
    );
}

const PAIRS: [Pair; 2] = [
    Pair {
        request: 230,
        response: 310,
    },
    Pair {
        request: 8,
        response: 4,
    },
];

fn start(close: bool) -> RawServer {
    let options = server::Options {
        slots: 40,
        pairs: PAIRS.to_vec(),
        close,
    };
    let program = Path::new(env!("CARGO_BIN_EXE_dispatchd-bench"));
    RawServer::start(program, Cores::choose().unwrap(), &options.to_arguments()).unwrap()
}

#[test]
fn connections_come_and_go() {
    let server = start(true);
    let load = Load {
        connections: 20,
        in_flight: 8,
        warmup_s: 0.1,
        measured_s: 0.3,
        pairs: PAIRS.to_vec(),
    };
    let outcome = client::churn(server.target(), &load).unwrap();
    assert!(
        outcome.operations > 8 && outcome.latencies.count() > 8,
        "{} operations",
        outcome.operations
    );
    assert!(outcome.usage.server_ns > 0);
}

#[test]
fn idle_connections_cost_kernel_memory() {
    let server = start(false);
    // Too few to tell a figure from noise: only that they connect and that memory can be read.
    client::idle(server.target(), &PAIRS, 20).unwrap();
}
