//! The command line as a person meets it: a reader who goes away.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

const SIGPIPE: i32 = 13;

#[test]
fn a_reader_who_goes_away_ends_it_in_silence() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_dispatchd-sim"))
        .args(["repeat", "7"])
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .expect("the program");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.signal(), &*said), (Some(SIGPIPE), ""));
}

#[test]
fn a_value_that_is_refused_is_named_with_what_is_allowed() {
    for (line, says) in [
        (&["run", "--seeds", "1.."][..], "such as 1..200"),
        (&["run", "--seeds", "x"], "such as 1..200"),
        (&["run", "--jobs", "0"], "a whole number from 1 to 1024"),
        (
            &["repeat", "7", "--shrunk", "no/such/file"],
            "such as 3.0.17; it is no file",
        ),
        (&["repeat", "x"], "a whole number from 0"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_dispatchd-sim")).args(line).output();
        let output = output.expect("the program");
        let said = String::from_utf8_lossy(&output.stderr);
        let value = format!("'{}'", line[line.len() - 1]);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {said}");
        assert!(said.contains(&value) && said.contains(says), "{line:?}: {said}");
    }
}
