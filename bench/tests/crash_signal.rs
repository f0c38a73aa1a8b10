//! `crash` that is ended by a signal: no server, no mount and no directory is left.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use lossyfs::{Honesty, LossyDisk};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A server that never becomes ready: it says its pid through a pipe, and stays.
fn server(home: &Path, pipe: &Path) -> std::path::PathBuf {
    let path = home.join("server");
    fs::write(
        &path,
        format!("#!/bin/sh\necho $$ > '{}'\nexec sleep 600\n", pipe.display()),
    )
    .expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    path
}

/// Starts `crash`, sends it a signal once its server runs, and looks at what is left.
fn check(signal: Signal, options: &[&str]) {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (pipe, data_root) = (home.path().join("pipe"), home.path().join("data-root"));
    fs::create_dir(&data_root).expect("a directory");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let bench = Command::new(env!("CARGO_BIN_EXE_dispatchd-bench"))
        .args(["crash", "--server"])
        .arg(server(home.path(), &pipe))
        .arg("--data-root")
        .arg(&data_root)
        .args(options)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the bench");
    let mut line = String::new();
    BufReader::new(fs::File::open(&pipe).expect("the pipe"))
        .read_line(&mut line)
        .expect("the server's pid");
    let server = Pid::from_raw(line.trim().parse().expect("a pid")).expect("not 0");
    let pid = Pid::from_raw(bench.id().cast_signed()).expect("not 0");
    kill_process(pid, signal).expect("the bench runs");
    let output = bench.wait_with_output().expect("its end");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("ended by SIG"), "{said}");
    assert!(test_kill_process(server).is_err(), "the server is gone");
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
    assert!(!mounts.contains(&*data_root.to_string_lossy()), "{mounts}");
    let left: Vec<_> = fs::read_dir(&data_root).expect("the directory").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nothing_is_left() {
    check(Signal::INT, &[]);
    check(Signal::TERM, &[]);
}

#[test]
fn no_mount_is_left() {
    let probe = tempfile::tempdir().expect("a temporary directory");
    match LossyDisk::mount(probe.path(), 1, Honesty::Honest) {
        Ok(disk) => drop(disk),
        Err(error) => {
            println!("SKIPPED: a lossy file system cannot be mounted here (root with /dev/fuse can): {error}");
            return;
        }
    }
    check(Signal::TERM, &["--power"]);
    check(Signal::HUP, &["--power"]);
}
