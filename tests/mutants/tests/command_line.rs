//! The command line as a person meets it: a reader who goes away.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

const SIGPIPE: i32 = 13;

#[test]
fn a_reader_who_goes_away_ends_it_in_silence() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_dispatchd-mutants"))
        .args(["list", "journal"])
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .expect("the program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.signal(), &*said), (Some(SIGPIPE), ""));
}
