//! Scenarios that are ended by a signal: they say so, and no server, no mount and no directory is left.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use lossyfs::{Honesty, LossyDisk};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// A server that never becomes ready: it says its pid and where it should listen through a pipe, and stays.
fn server(home: &Path, pipe: &Path) -> std::path::PathBuf {
    let path = home.join("server");
    fs::write(
        &path,
        format!("#!/bin/sh\necho $$ $5 > '{}'\nexec sleep 600\n", pipe.display()),
    )
    .expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
    path
}

/// Answers every call at this address with 200, until it was asked for metrics so many times.
fn answer(address: &str, metrics: usize) {
    let listener = TcpListener::bind(address).expect("nobody else listens there");
    let (seen, heads) = mpsc::channel();
    std::thread::spawn(move || {
        // Ends with the test's process; who connects later is not answered.
        for stream in listener.incoming().map_while(Result::ok) {
            let seen = seen.clone();
            std::thread::spawn(move || {
                // Nobody may be there any more to be told or answered.
                let _ = one_answer(stream).map(|head| seen.send(head));
            });
        }
    });
    let asked = heads.iter().filter(|head| head.starts_with("GET /metrics "));
    assert_eq!(asked.take(metrics).count(), metrics);
}

fn one_answer(mut stream: TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}")?;
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Starts a scenario, sends it a signal once its server runs, or once it has been asked for metrics so many times, and looks at
/// what is left. Returns what it said.
fn check(scenario: &str, signal: Signal, options: &[&str], metrics: usize) -> String {
    let home = tempfile::tempdir().expect("a temporary directory");
    let (pipe, data_root) = (home.path().join("pipe"), home.path().join("data-root"));
    fs::create_dir(&data_root).expect("a directory");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    let bench = Command::new(env!("CARGO_BIN_EXE_dispatchd-bench"))
        .args([scenario, "--server"])
        .arg(server(home.path(), &pipe))
        .arg("--data-root")
        .arg(&data_root)
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the bench");
    let mut line = String::new();
    BufReader::new(fs::File::open(&pipe).expect("the pipe"))
        .read_line(&mut line)
        .expect("the server's pid");
    let (server, address) = line.trim().split_once(' ').expect("a pid and an address");
    let server = Pid::from_raw(server.parse().expect("a pid")).expect("not 0");
    if metrics > 0 {
        answer(address, metrics);
    }
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
    said.into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn nothing_is_left() {
    check("crash", Signal::INT, &[], 0);
    check("crash", Signal::TERM, &[], 0);
    check("soak", Signal::INT, &[], 0);
    check("soak", Signal::HUP, &[], 0);
    check("idle", Signal::INT, &[], 0);
    check("million", Signal::TERM, &[], 0);
    check("run", Signal::HUP, &["scenarios/evening.toml"], 0);
}

#[test]
fn a_soak_says_what_was_interrupted() {
    // Metrics are read once before the load, then for each sample.
    let said = check("soak", Signal::TERM, &["--drivers", "10"], 2);
    assert!(
        said.contains("soak ended by SIGTERM after 0.") && said.contains("of 60 min"),
        "{said}"
    );
    assert!(said.contains("FAULT: soak ended by SIGTERM"), "{said}");
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
    check("crash", Signal::TERM, &["--power"], 0);
    check("crash", Signal::HUP, &["--power"], 0);
}
