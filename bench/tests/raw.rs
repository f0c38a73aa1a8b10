//! The raw ring, with its server in a process of its own, as the program runs it.

use std::process::Command;

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
