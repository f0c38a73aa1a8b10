//! The command line as a person meets it: a reader who goes away.

use std::process::{Command, Stdio};

#[test]
fn a_reader_who_goes_away_is_no_panic() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let program = env!("CARGO_BIN_EXE_dispatchd-bench");
    let home = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(program)
        // Any file will do for the server: none is started.
        .args(["fleet", "--list", "--server", program, "--data-root"])
        .arg(home.path())
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("the bench");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*said), (Some(0), ""));
}
