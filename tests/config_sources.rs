//! Settings come from the file, the environment and flags; the last wins, and every fault names itself.

use dispatchd::config::{Config, Kind, Loaded, LogFormat, Origin, SETTINGS, Setting, ShowFormat, Sources};

/// A file with this text in a directory of its own; gone when dropped.
fn file(text: &str) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    std::fs::write(&path, text).unwrap();
    let sources = Sources {
        file: Some(path),
        ..Sources::default()
    };
    (dir, sources)
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn value_and_origin(loaded: &Loaded, name: &str) -> (String, String) {
    let entry = loaded.entries.iter().find(|entry| entry.setting.name == name).unwrap();
    (entry.value.to_string(), entry.origin.to_string())
}

#[test]
fn without_sources_the_table_speaks() {
    let (_dir, sources) = file("");
    let loaded = sources.load().unwrap();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.entries.iter().all(|entry| entry.origin == Origin::Default));
    let config = loaded.config;
    assert_eq!((config.offer_timeout_ms, config.deadline_ms), (8_000, 120_000));
    assert_eq!(
        (config.heartbeat_ms, config.driver_ttl_ms, config.drain_ms),
        (30_000, 60_000, 10_000)
    );
    assert_eq!(config.off_shift_memory_ms, 12 * 3_600_000);
    assert_eq!(
        (config.records_retention_days, config.idempotency_retention_days),
        (30, 7)
    );
    assert_eq!(config.events_retention_ms, 7 * 86_400_000);
    assert_eq!(config.listen, std::net::SocketAddr::from(([127, 0, 0, 1], 8080)));
    assert!(config.pin_shards && config.shard_count() >= 1);
}

#[test]
fn the_later_source_wins() {
    let (dir, mut sources) = file("shards = 2\nheartbeat_ms = 1_000\ndrain_ms = 5\nlisten = \"127.0.0.1:1\"\n");
    sources.environment = variables(&[
        ("DISPATCHD_HEARTBEAT_MS", "2_000"),
        ("DISPATCHD_DRAIN_MS", "6"),
        ("HOME", "/"),
    ]);
    sources.sets = vec![
        "drain_ms=7".to_owned(),
        "drain_ms = 8".to_owned(),
        "log_format=json".to_owned(),
    ];
    sources.data = Some("/somewhere".to_owned());
    sources.listen = Some("[::1]:2".to_owned());
    let loaded = sources.load().unwrap();
    let check = |name: &str, value: &str, origin: &str| {
        let expect = (
            value.to_owned(),
            origin.replace("FILE", &dir.path().join("node.toml").display().to_string()),
        );
        assert_eq!(value_and_origin(&loaded, name), expect, "{name}");
    };
    check("shards", "2", "FILE:1");
    check("heartbeat_ms", "2000", "environment DISPATCHD_HEARTBEAT_MS");
    check("drain_ms", "8", "flag --set drain_ms = 8");
    check("data_dir", "/somewhere", "flag --data /somewhere");
    check("listen", "[::1]:2", "flag --listen [::1]:2");
    check("offer_timeout_ms", "8000", "default");
    assert_eq!(
        (
            loaded.config.shards,
            loaded.config.shard_count(),
            loaded.config.drain_ms
        ),
        (2, 2, 8)
    );
    assert_eq!(loaded.config.log_format, LogFormat::Json);
}

/// `FILE` in `expect` stands for the file's path.
fn check_file(text: &str, expect: &str) {
    let (dir, sources) = file(text);
    let path = dir.path().join("node.toml").display().to_string();
    assert_eq!(
        sources.load().unwrap_err().to_string(),
        expect.replace("FILE", &path),
        "{text}"
    );
}

#[test]
fn a_bad_value_names_key_value_place_and_rule() {
    let range = "allowed: a whole number from 1 to 600000";
    let bad = |value: &str| format!("offer_timeout_ms cannot be {value} (FILE:1); {range}");
    for value in [
        "0",
        "600_001",
        "-5",
        "99999999999999999999999",
        "8.5",
        "true",
        "\"700000\"",
        "\"8000 \"",
        "[1]",
        "{ a = 1 }",
    ] {
        check_file(&format!("offer_timeout_ms = {value}"), &bad(value));
    }
    for (text, allowed) in [
        ("shards = 1025", "a whole number from 0 to 1024"),
        ("idempotency_retention_days = 6", "a whole number from 7 to 3650"),
        ("pin_shards = 1", "true or false"),
        ("log_level = \"loud\"", "one of error, warn, info, debug, trace"),
        ("listen = \"localhost\"", "IP:port, such as 127.0.0.1:8080 or [::]:8080"),
        ("node_id = \"a b\"", "1 to 64 of A-Z a-z 0-9 . _ : -"),
        ("data_dir = \"\"", "a path in UTF-8"),
        ("recv_buffers = 1000", "a power of two from 16 to 32768"),
        (
            "journal_segment_bytes = 16777217",
            "a multiple of 4096 from 2097152 to 1073741824",
        ),
        // Only the quotes are wrong.
        ("shards = \"4\"", "a whole number from 0 to 1024, without quotes"),
        (
            "recv_buffers = \"64\"",
            "a power of two from 16 to 32768, without quotes",
        ),
        ("pin_shards = \"true\"", "true or false, without quotes"),
        ("pin_shards = \"yes\"", "true or false"),
        ("node_id = 7", "1 to 64 of A-Z a-z 0-9 . _ : -, in quotes"),
    ] {
        let (key, value) = text.split_once(" = ").unwrap();
        check_file(text, &format!("{key} cannot be {value} (FILE:1); allowed: {allowed}"));
    }
}

/// `[fleet]` and so on: the setting's name is the table's, `_` and the key.
#[test]
fn settings_may_stand_in_tables() {
    let text =
        "shards = 2\n[fleet]\nredis_url = \"redis://h:1\"\n[fleet.redis]\nprefix = \"p:\"\n[log]\nlevel = \"warn\"\n";
    let (dir, sources) = file(text);
    let loaded = sources.load().unwrap();
    assert_eq!(loaded.config.fleet_redis_url, "redis://h:1");
    assert_eq!(loaded.config.fleet_redis_prefix, "p:");
    let place = format!("{}:5", dir.path().join("node.toml").display());
    assert_eq!(
        value_and_origin(&loaded, "fleet_redis_prefix"),
        ("p:".to_owned(), place)
    );
    check_file(
        "drain_ms = 1\n[drain]\nms = 2",
        "drain_ms stands twice (FILE:1 and FILE:3)",
    );
    check_file(
        "[shards]\nx = 1",
        "shards cannot be [shards] (FILE:1); allowed: a whole number from 0 to 1024",
    );
}

#[test]
fn an_unknown_key_names_its_place_and_the_nearest() {
    check_file(
        "\n# why\n\noffer_timout_ms = 8000",
        "unknown setting \"offer_timout_ms\" (FILE:4); did you mean \"offer_timeout_ms\"?",
    );
    check_file(
        "[node]\nidd = 1",
        "unknown setting \"node_idd\" (FILE:2); did you mean \"node_id\"?",
    );
    check_file(
        "[nodes]\nid = 1",
        "unknown setting \"nodes\" (FILE:1); `dispatchd config show` lists all",
    );
    check_file(
        "zzz = 1",
        "unknown setting \"zzz\" (FILE:1); `dispatchd config show` lists all",
    );
}

#[test]
fn a_broken_or_missing_file_is_named() {
    let check = |text: &str, place: &str| {
        let (dir, sources) = file(text);
        let expect = format!("{}:{place}: not TOML: ", dir.path().join("node.toml").display());
        let error = sources.load().unwrap_err().to_string();
        assert!(error.starts_with(&expect) && error.len() > expect.len(), "{error}");
        assert!(!error.contains('\n'), "{error}");
    };
    check("shards = 1\nshards = 2", "2");
    check("shards = 1\n\nshards", "3");
    check("shards = 1__0", "1");
    let missing = Sources {
        file: Some("/nonexistent/x.toml".into()),
        ..Sources::default()
    };
    let error = missing.load().unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nonexistent/x.toml: "), "{error}");
}

#[test]
fn environment_and_flags_are_checked_like_the_file() {
    let check = |environment: &[(&str, &str)], sets: &[&str], expect: &str| {
        let (_dir, mut sources) = file("");
        sources.environment = variables(environment);
        sources.sets = sets.iter().map(|set| (*set).to_owned()).collect();
        assert_eq!(sources.load().unwrap_err().to_string(), expect);
    };
    check(
        &[("DISPATCHD_SHARDS", "-1")],
        &[],
        "shards cannot be \"-1\" (environment DISPATCHD_SHARDS); allowed: a whole number from 0 to 1024",
    );
    check(
        &[("DISPATCHD_SHARDS", " 1")],
        &[],
        "shards cannot be \" 1\" (environment DISPATCHD_SHARDS); allowed: a whole number from 0 to 1024",
    );
    check(
        &[("DISPATCHD_SHARDS", "1_")],
        &[],
        "shards cannot be \"1_\" (environment DISPATCHD_SHARDS); allowed: a whole number from 0 to 1024",
    );
    check(
        &[("DISPATCHD_SHARD", "1")],
        &[],
        "unknown setting \"shard\" (environment DISPATCHD_SHARD); did you mean \"shards\"?",
    );
    check(
        &[("DISPATCHD_DATA_DIR", "a\u{fffd}")],
        &[],
        "data_dir cannot be \"a\u{fffd}\" (environment DISPATCHD_DATA_DIR); allowed: a path in UTF-8",
    );
    check(
        &[],
        &["shards=two"],
        "shards cannot be \"two\" (flag --set shards=two); allowed: a whole number from 0 to 1024",
    );
    check(&[], &["shards"], "--set \"shards\" is no key=value");
    check(
        &[],
        &["heartbeat=5"],
        "unknown setting \"heartbeat\" (flag --set heartbeat=5); did you mean \"heartbeat_ms\"?",
    );
    check(
        &[],
        &["Drain-ms=5"],
        "unknown setting \"Drain-ms\" (flag --set Drain-ms=5); did you mean \"drain_ms\"?",
    );
    check(
        &[],
        &["drain_ms=99999999999999999999"],
        "drain_ms cannot be \"99999999999999999999\" (flag --set drain_ms=99999999999999999999); allowed: a whole number from 0 to 600000",
    );
}

#[test]
fn all_faults_are_told_at_once() {
    let (_dir, mut sources) = file("nonsense_key = 1\nshards = -1\n");
    sources.environment = variables(&[("DISPATCHD_DRAIN_MS", "soon")]);
    sources.sets = vec!["x".to_owned()];
    sources.listen = Some("here".to_owned());
    let error = sources.load().unwrap_err();
    assert_eq!(error.0.len(), 5);
    assert_eq!(error.to_string().lines().count(), 5);
}

#[test]
fn variables_that_orchestrators_set_are_not_ours() {
    let (_dir, mut sources) = file("");
    sources.environment = variables(&[
        ("DISPATCHD_CONFIG", "elsewhere.toml"),
        ("DISPATCHD_PORT", "tcp://10.0.0.1:8080"),
        ("DISPATCHD_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("DISPATCHD_SERVICE_HOST", "10.0.0.1"),
    ]);
    assert_eq!(sources.load().unwrap().config, Config::default());
}

#[test]
fn the_bounds_themselves_are_allowed_and_fit_their_fields() {
    for setting in SETTINGS {
        let (Kind::Integer { min, max } | Kind::Multiple { min, max, .. } | Kind::PowerOfTwo { min, max }) =
            setting.kind
        else {
            continue;
        };
        for bound in [min, max] {
            let (_dir, mut sources) = file("");
            sources.sets = vec![format!("{}={bound}", setting.name)];
            let loaded = sources.load().unwrap();
            assert_eq!(value_and_origin(&loaded, setting.name).0, bound.to_string());
        }
        assert!(setting.kind.parse(&(max + 1).to_string()).is_none(), "{}", setting.name);
    }
}

#[test]
fn the_table_is_in_order() {
    for setting in SETTINGS {
        assert!(
            setting.doc.ends_with('.') && !setting.doc.contains('|'),
            "{}",
            setting.name
        );
        let has_unit = setting.kind.is_integer();
        assert_eq!(has_unit, !setting.unit.is_empty(), "{}", setting.name);
        if matches!(setting.unit, "ms" | "days") {
            assert!(
                setting.name.ends_with(setting.unit),
                "{} ends in its unit",
                setting.name
            );
        }
        assert!(
            std::ptr::eq(Setting::by_name(setting.name).unwrap(), setting),
            "{} is there twice",
            setting.name
        );
    }
}

#[test]
fn what_is_shown_as_a_file_is_a_file() {
    let (_dir, mut sources) = file("shards = 3\nlog_format = \"json\"\n");
    sources.data = Some("/a \"quoted\" place".to_owned());
    let loaded = sources.load().unwrap();
    let (_second_dir, again) = file(&loaded.show(ShowFormat::Toml));
    assert_eq!(again.load().unwrap().config, loaded.config);
    let text = loaded.show(ShowFormat::Text);
    assert_eq!(text.lines().count(), SETTINGS.len() + 1);
    assert!(
        text.lines()
            .any(|line| line.starts_with("shards ") && line.ends_with("node.toml:1")),
        "{text}"
    );
}

#[test]
fn connections_follow_the_limit_of_open_files() {
    let check = |connections_max: u32, open_files: u64, per_shard: u32, per_ring: u32| {
        let config = Config {
            connections_max,
            ..Config::default()
        };
        assert_eq!(config.connections_per_shard(open_files), per_shard);
        assert_eq!(config.connections_per_ring(open_files), per_ring);
    };
    check(0, 20_000, 19_488, 19_488);
    check(1_000, 20_000, 1_000, 1_000);
    check(30_000, 20_000, 30_000, 19_488);
    check(0, 1 << 20, 131_072, 131_072);
    check(1_000_000, 1 << 20, 1_000_000, 131_072);
    check(0, 100, 1, 1);
    check(0, u64::MAX, 131_072, 131_072);
    check(1 << 20, u64::MAX, 1 << 20, 131_072);
}

/// The README's table is the generated one: `dispatchd config show --format markdown`.
#[test]
fn the_readme_shows_the_table() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let Ok(readme) = std::fs::read_to_string(readme) else {
        return;
    };
    let (begin, end) = ("<!-- settings:begin -->\n", "<!-- settings:end -->");
    let shown = readme
        .split_once(begin)
        .and_then(|(_, rest)| rest.split_once(end))
        .map(|(table, _)| table.trim());
    let generated = dispatchd::config::settings_table_markdown();
    assert_eq!(
        shown,
        Some(generated.trim()),
        "put the output of `config show --format markdown` between the markers"
    );
}
