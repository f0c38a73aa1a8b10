//! The limits of the installed unit: what the service runs with, whoever asks and from wherever.

use super::host::{self, Host};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Its name.
const UNIT: &str = "dispatchd.service";
/// Where units are looked for, the first one found wins (systemd.unit(5)).
const DIRECTORIES: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What a unit says of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum UnitLimit {
    /// No unit is installed.
    NoUnit,
    /// The unit leaves it to systemd, whose own is too low.
    NotSet,
    /// The hard limit, as `/proc/PID/limits` words it.
    Set(String),
}

/// The hard limit that the unit and its drop-ins give with `setting`, such as `LimitNOFILE`.
pub(super) fn limit(host: &Host, setting: &str) -> Result<UnitLimit, String> {
    let mut sources = Vec::new();
    for directory in DIRECTORIES {
        if let Some(text) = host::text(&host.path(directory).join(UNIT))? {
            sources.push(text);
            break;
        }
    }
    if sources.is_empty() {
        return Ok(UnitLimit::NoUnit);
    }
    for path in drop_ins(host) {
        sources.extend(host::text(&path)?);
    }
    let mut found = UnitLimit::NotSet;
    for value in sources.iter().flat_map(|text| assignments(text, setting)) {
        found = match value {
            "" => UnitLimit::NotSet,
            value => UnitLimit::Set(hard(value)),
        };
    }
    Ok(found)
}

/// In the order in which they count. Of those with one name the one in the first directory counts.
fn drop_ins(host: &Host) -> Vec<PathBuf> {
    let mut by_name = BTreeMap::new();
    for directory in DIRECTORIES {
        for path in host::entries(&host.path(directory).join(format!("{UNIT}.d"))) {
            if path.extension().is_some_and(|extension| extension == "conf") {
                by_name.entry(path.file_name().map(ToOwned::to_owned)).or_insert(path);
            }
        }
    }
    by_name.into_values().collect()
}

/// The values that a unit file assigns to `setting` in `[Service]`, in order.
fn assignments<'a>(text: &'a str, setting: &'a str) -> impl Iterator<Item = &'a str> {
    let mut in_service = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with('[') {
            in_service = line == "[Service]";
        }
        let (key, value) = line.split_once('=')?;
        (in_service && key.trim_end() == setting).then_some(value.trim_start())
    })
}

/// `HARD` or `SOFT:HARD`, with a suffix in powers of 1024 or `infinity` (systemd.exec(5)).
fn hard(value: &str) -> String {
    let value = value.rsplit_once(':').map_or(value, |(_, hard)| hard);
    if value == "infinity" {
        return "unlimited".to_owned();
    }
    let digits = value.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let power = match &value[digits.len()..] {
        "" | "B" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        _ => return value.to_owned(),
    };
    let bytes = digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(1 << (10 * power)));
    bytes.map_or_else(|| value.to_owned(), |bytes| bytes.to_string())
}
