//! A load process of its own, against a server that behaves: it plays its part, counts, and reads back what was confirmed.

mod fake;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use fake::Manner;
use serde_json::{Value, json};

fn play(manner: Manner, rate: u32) -> (Vec<Value>, Value) {
    let target = fake::start(manner);
    let trips = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/nyc-taxi-trips-2019-03.csv");
    let orders = json!({
        "scenario": {
            "name": "test", "drivers": 40, "seed": 1,
            "geography": { "trips": trips, "candidates": 2 },
            "behaviour": { "accept": 0.8, "decline": 0.2, "ignore": 0, "vanish": 0, "think_ms": [1, 5], "trip_leg_ms": [5, 20] },
            "phase": [{ "name": "flat", "secs": 2.0, "rate": rate }],
        },
        "address": target.address, "process": 0, "round": 0,
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_dispatchd-bench"))
        .arg("load-process")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    writeln!(stdin, "{orders}").unwrap();
    assert!(line()["ready"]["connect_s"].as_f64().unwrap() > 0.0);
    writeln!(stdin, "go").unwrap();
    let mut ticks = Vec::new();
    let done = loop {
        let report = line();
        if report["done"].is_object() {
            break report["done"].clone();
        }
        ticks.push(report["tick"].clone());
    };
    assert!(child.wait().unwrap().success());
    (ticks, done)
}

#[test]
fn a_load_process_plays_its_part_and_audits_it() {
    let (ticks, done) = play(Manner::Good, 60);
    let counts = &ticks.last().unwrap()["counts"];
    let count = |name: &str| counts[name].as_u64().unwrap();
    assert!(ticks.len() >= 3, "{} ticks", ticks.len());
    assert!(
        count("posted") > 50 && count("confirmed") > 20 && count("declined") > 2,
        "{counts}"
    );
    assert!(
        ticks[1]["latencies"][1]
            .as_array()
            .is_some_and(|sparse| !sparse.is_empty())
    );
    // The server here keeps no state that could be read back, and the audit says so.
    let faults = done["faults"].as_object().unwrap();
    assert_eq!(
        faults.keys().collect::<Vec<_>>(),
        ["a confirmed trip is not what the node says"],
        "{faults:?}"
    );
    assert!(done["audited"].as_u64().unwrap() > 0);
}

#[test]
fn what_is_refused_is_posted_again() {
    let (ticks, done) = play(Manner::Overloaded, 30);
    let counts = &ticks.last().unwrap()["counts"];
    assert!(
        counts["refused"].as_u64().unwrap() > 0 && counts["repeated"].as_u64().unwrap() > 0,
        "{counts}"
    );
    assert!(done["faults"]["POST never taken"].is_null(), "{done}");
}
