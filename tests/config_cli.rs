//! The command line: exit status, one line per fault, and silence when the reader of its output goes away.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

/// The program with these arguments, in a directory of its own and without our variables.
fn dispatchd(arguments: &[&str]) -> (tempfile::TempDir, Command) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dispatchd"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DISPATCHD_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(dir.path()).stdin(Stdio::null());
    (dir, command)
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let (_dir, mut command) = dispatchd(arguments);
    let Output { status, stdout, stderr } = command.output().unwrap();
    (
        status.code(),
        String::from_utf8(stdout).unwrap(),
        String::from_utf8(stderr).unwrap(),
    )
}

#[test]
fn exit_status_and_errors() {
    let check = |arguments: &[&str], status: i32, stderr: &str| {
        let (code, out, err) = run(arguments);
        assert_eq!((code, err.as_str()), (Some(status), stderr), "{arguments:?}");
        assert!(status == 0 || out.is_empty(), "{arguments:?} {out}");
    };
    check(&["config", "check"], 0, "");
    check(
        &["config", "check", "--set", "drain_ms=x", "--set", "shard=1"],
        2,
        "dispatchd: drain_ms cannot be \"x\" (flag --set drain_ms=x); allowed: a whole number from 0 to 600000\n\
         dispatchd: unknown setting \"shard\" (flag --set shard=1); did you mean \"shards\"?\n",
    );
    check(
        &["serve", "--listen", "nowhere"],
        2,
        "dispatchd: listen cannot be \"nowhere\" (flag --listen nowhere); allowed: IP:port, such as 127.0.0.1:8080 or \
         [::]:8080\n",
    );
    for usage in [
        &["fly"][..],
        &["serve", "--shards", "2"],
        &["journal"],
        &["demo", "--drivers", "1"],
    ] {
        assert_eq!(run(usage).0, Some(2), "{usage:?}");
    }
    let (code, _, err) = run(&["journal", "check", "missing"]);
    assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
    let version = concat!("dispatchd ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run(&["version"]), (Some(0), version.to_owned(), String::new()));
}

#[test]
fn a_value_that_is_refused_is_named_with_what_is_allowed() {
    for (option, value, allowed) in [
        ("--trips", "7000", "a whole number from 1 to 6433, such as 1200"),
        ("--trips", "0", "a whole number from 1 to 6433, such as 1200"),
        ("--drivers", "x", "a whole number from 10 to 20000, such as 2000"),
        ("--rate", "nan", "a number from 0.1 to 2000, such as 100"),
    ] {
        let (code, _, err) = run(&["demo", option, value]);
        assert_eq!(code, Some(2), "{err}");
        for part in [option, &format!("'{value}'"), allowed] {
            assert!(err.contains(part), "{option} {value}: {err}");
        }
    }
}

/// Settings that are right each by itself, and of which no node can be made: the check says so, and so does a start.
#[test]
fn settings_of_a_fleet_that_cannot_be_are_refused_by_the_check_and_at_the_start() {
    const REDIS: &str = "fleet_redis_url=redis://127.0.0.1:1";
    for (sets, told) in [
        (
            &["fleet_redis_url=127.0.0.1:6379"][..],
            "fleet_redis_url: URL 1 of it is no URL of Redis; allowed: redis://",
        ),
        (
            &[
                "fleet_redis_url=redis://127.0.0.1:1,redis://u:secret@[",
                "fleet_redis_mode=cluster",
            ],
            "fleet_redis_url: URL 2 of it is no URL of Redis; allowed: redis://",
        ),
        (
            &["fleet_redis_url=rediss://u:secret@127.0.0.1:1"],
            "fleet_redis_url: URL 1 of it asks for TLS, which there is not yet",
        ),
        (
            &["fleet_redis_url=redis://127.0.0.1:1,redis://127.0.0.2:1"],
            "fleet_redis_url: has several URLs, and fleet_redis_mode is standalone",
        ),
        (
            &["fleet_link_listen=127.0.0.1:7400"],
            "fleet_link_listen is 127.0.0.1:7400 and fleet_redis_url is empty",
        ),
        (
            &[REDIS, "fleet_link_listen=here"],
            "fleet_link_listen is here: IP:port is needed",
        ),
        (
            &[REDIS, "fleet_link_advertise=gw-1:7400"],
            "fleet_link_advertise is gw-1:7400 and fleet_link_listen is empty",
        ),
        (
            &[
                REDIS,
                "fleet_link_tls_ca_file=ca.pem",
                "fleet_link_listen=127.0.0.1:7400",
            ],
            "fleet_link_tls_ca_file is given and fleet_link_tls_cert_file is not",
        ),
        (
            &[REDIS, "listen=0.0.0.0:8080"],
            "fleet_address is empty and listen is 0.0.0.0:8080",
        ),
    ] {
        for command in [&["config", "check"][..], &["serve"]] {
            let sets = sets.iter().flat_map(|set| ["--set", set]);
            let arguments: Vec<&str> = command.iter().copied().chain(sets).collect();
            let (code, _, err) = run(&arguments);
            assert_eq!((code, err.lines().count()), (Some(2), 1), "{arguments:?}: {err}");
            assert!(err.contains(told) && !err.contains("secret"), "{arguments:?}: {err}");
        }
    }
    let listens = "fleet_link_listen=127.0.0.1:7400";
    assert_eq!(run(&["config", "check", "--set", REDIS, "--set", listens]).0, Some(0));
}

#[test]
fn a_cassandra_that_is_not_there_is_named_with_what_to_do() {
    let (code, _, err) = run(&["schema", "apply"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains("--set fleet_cassandra_contact_points=HOST:PORT"), "{err}");
    // Nobody listens there.
    let points = "fleet_cassandra_contact_points=127.0.0.1:1,127.0.0.2:1";
    for command in ["apply", "check"] {
        let (code, _, err) = run(&["schema", command, "--set", points]);
        assert_eq!(code, Some(1), "{err}");
        for part in [
            "127.0.0.1:1, 127.0.0.2:1",
            "Connection refused",
            "fleet_cassandra_contact_points=HOST:PORT",
        ] {
            assert!(err.contains(part), "{err}");
        }
    }
}

/// Who listens speaks TLS, and takes what it hears for garbage.
#[test]
fn a_server_that_wants_tls_is_named_as_perhaps_one() {
    const ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 80];
    for answer in [ALERT, b""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut heard = [0; 512];
                // Whoever is gone already needs no answer.
                let _ = stream.read(&mut heard).and_then(|_| stream.write_all(answer));
            }
        });
        for (command, set, told) in [
            (
                ["schema", "check"],
                format!("fleet_cassandra_contact_points={address}"),
                "does that take connections without TLS? There is no TLS to Cassandra yet",
            ),
            (
                ["fleet", "status"],
                format!("fleet_redis_url=redis://{address}"),
                "does it take connections without TLS? There is no TLS to Redis yet",
            ),
        ] {
            let (code, _, err) = run(&[command[0], command[1], "--set", &set]);
            assert_eq!(code, Some(1), "{err}");
            assert!(err.contains(&address.to_string()) && err.contains(told), "{err}");
        }
    }
}

/// The kernel bounds a ring's table by the limit of open files: many connections take many rings, which take descriptors.
#[test]
fn connections_that_the_limit_of_open_files_does_not_carry_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let serve = format!(
        "ulimit -n 600; exec {} serve --data {} --listen 127.0.0.1:0 --set shards=2 --set connections_max=20000",
        env!("CARGO_BIN_EXE_dispatchd"),
        dir.path().display()
    );
    let Output { status, stderr, .. } = Command::new("sh").args(["-c", &serve]).output().unwrap();
    assert_eq!(status.code(), Some(1));
    let stderr = String::from_utf8(stderr).unwrap();
    let told = "connections_max = 20000 takes 228 rings in each of 2 shards under a limit of 600 open files";
    assert!(stderr.contains(told) && stderr.contains("ulimit -n"), "{stderr}");
}

#[test]
fn the_file_beside_it_is_read() {
    let (dir, mut command) = dispatchd(&["config", "show"]);
    std::fs::write(dir.path().join("dispatchd.toml"), "# mine\nshards = 7\n").unwrap();
    let shown = command.env("DISPATCHD_DRAIN_MS", "5").output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let row = |name: &str| {
        let line = shown
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<String>>()
    };
    assert_eq!(row("shards"), ["shards", "7", "shards", "0", "dispatchd.toml:2"]);
    assert_eq!(
        row("drain_ms"),
        ["drain_ms", "5", "ms", "10000", "environment", "DISPATCHD_DRAIN_MS"]
    );
}

#[test]
fn a_reader_that_goes_away_ends_it_in_silence() {
    let (_dir, mut command) = dispatchd(&["config", "show", "--format", "markdown"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}
