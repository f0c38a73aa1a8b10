//! The demo itself, small: a kill in the middle, every invariant checked and none violated, nothing left behind.

use std::path::Path;
use std::process::{Command, Output};

/// Runs `dispatchd demo` with its temporary directory under `home`. The demo bounds its own time.
fn demo(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dispatchd"))
        .arg("demo")
        .args(arguments)
        .env("TMPDIR", home)
        .output()
        .expect("the program runs")
}

#[test]
fn a_small_demo_survives_its_kill_and_violates_nothing() {
    let home = tempfile::tempdir().unwrap();
    let output = demo(home.path(), &["--drivers", "60", "--rate", "20", "--trips", "60"]);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stderr.contains("SIGKILL to the node"), "{stderr}");
    for number in 1..=7 {
        let row = stdout.lines().find(|line| line.starts_with(&format!("│ {number}. ")));
        let row = row.unwrap_or_else(|| panic!("invariant {number} is not in the table:\n{stdout}"));
        let mut figures = row.split('┆').skip(1).map(|cell| cell.trim_matches([' ', '│']));
        let checks: u64 = figures.next().and_then(|text| text.parse().ok()).unwrap();
        assert!(checks > 0, "{row}");
        assert_eq!(figures.next(), Some("0"), "{row}");
    }
    assert_eq!(
        std::fs::read_dir(home.path()).unwrap().count(),
        0,
        "the temporary directory is gone"
    );
}
