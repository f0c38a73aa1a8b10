//! Reads the sources in order and checks them against the table.

use super::error::{ConfigError, ConfigErrors};
use super::settings::{Config, SETTINGS, Setting};
use super::value::{Entry, Kind, Origin, Value};
use std::path::{Path, PathBuf};
use toml::de::{DeTable, DeValue};

/// The file that is read when it exists and no other is named.
pub const FILE_DEFAULT: &str = "dispatchd.toml";
/// What the names of our environment variables begin with.
pub const ENVIRONMENT_PREFIX: &str = "DISPATCHD_";
/// Names the file; the flag `--config` reads it.
const ENVIRONMENT_FILE: &str = "DISPATCHD_CONFIG";

/// Where settings may come from, weakest first. Within the flags, `data` and `listen` win over `sets`.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`: a file that must exist. Without it [`FILE_DEFAULT`], if that exists.
    pub file: Option<PathBuf>,
    /// Name and value of environment variables; others than ours are skipped.
    pub environment: Vec<(String, String)>,
    /// Each `--set`, as `key=value`.
    pub sets: Vec<String>,
    /// `--data`.
    pub data: Option<String>,
    /// `--listen`.
    pub listen: Option<String>,
}

/// Checked settings, and for each where it came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the program runs on.
    pub config: Config,
    /// One per setting, in the order of [`SETTINGS`].
    pub entries: Vec<Entry>,
}

impl Sources {
    /// Adds this process's environment. A value that is not UTF-8 is passed on with replacement characters, which
    /// no setting takes.
    #[must_use]
    pub fn with_process_environment(mut self) -> Self {
        let text = |raw: std::ffi::OsString| raw.to_string_lossy().into_owned();
        self.environment
            .extend(std::env::vars_os().map(|(name, value)| (text(name), text(value))));
        self
    }

    /// Reads and checks all sources.
    ///
    /// # Errors
    /// Every fault found, in the order of the sources.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let mut reader = Reader::new();
        match &self.file {
            Some(path) => reader.read_file(path, true),
            None => reader.read_file(Path::new(FILE_DEFAULT), false),
        }
        self.environment
            .iter()
            .for_each(|(name, value)| reader.read_variable(name, value));
        self.sets.iter().for_each(|pair| reader.read_pair(pair));
        for (flag, key, value) in [("--data", "data_dir", &self.data), ("--listen", "listen", &self.listen)] {
            if let Some(value) = value {
                reader.set_text(key, value, Origin::Flag(format!("{flag} {value}")));
            }
        }
        reader.finish()
    }
}

/// The winners so far, and the faults.
struct Reader {
    entries: Vec<Entry>,
    errors: Vec<ConfigError>,
}

impl Reader {
    fn new() -> Self {
        let entry = |setting: &'static Setting| Entry {
            setting,
            value: setting.default_value(),
            origin: Origin::Default,
        };
        Self {
            entries: SETTINGS.iter().map(entry).collect(),
            errors: Vec::new(),
        }
    }

    fn finish(self) -> Result<Loaded, ConfigErrors> {
        if !self.errors.is_empty() {
            return Err(ConfigErrors(self.errors));
        }
        let values: Vec<Value> = self.entries.iter().map(|entry| entry.value.clone()).collect();
        Ok(Loaded {
            config: Config::from_values(&values),
            entries: self.entries,
        })
    }

    fn read_file(&mut self, path: &Path, must_exist: bool) {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return,
            Err(error) => {
                self.errors.push(ConfigError::Unreadable {
                    path: path.to_owned(),
                    cause: error.to_string(),
                });
                return;
            }
        };
        match DeTable::parse(&text) {
            Ok(table) => self.read_table(path, &text, "", table.get_ref()),
            Err(error) => {
                let line = line_of(&text, error.span().map_or(0, |span| span.start));
                let message = error.message().replace('\n', ", ");
                self.errors.push(ConfigError::Syntax {
                    path: path.to_owned(),
                    line,
                    message,
                });
            }
        }
    }

    /// A key in a table `[fleet]` is the setting with `fleet_` before it.
    fn read_table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        // The table is sorted by key; people read errors from the top of the file.
        let mut rows: Vec<_> = table.iter().collect();
        rows.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in rows {
            let origin = Origin::File {
                path: path.to_owned(),
                line: line_of(text, key.span().start),
            };
            let name = format!("{prefix}{}", key.get_ref());
            if let DeValue::Table(table) = value.get_ref() {
                let prefix = format!("{name}_");
                if SETTINGS.iter().any(|setting| setting.name.starts_with(&prefix)) {
                    self.read_table(path, text, &prefix, table);
                    continue;
                }
            }
            if let Some(before) = self.place_in_file(&name) {
                self.errors.push(ConfigError::Twice {
                    key: name,
                    before,
                    origin,
                });
                continue;
            }
            let shown = text.get(value.span()).unwrap_or_default();
            self.set(&name, shown, origin, |kind| {
                value_in_file(kind, value.get_ref()).ok_or_else(|| allowed_in_file(kind, value.get_ref()))
            });
        }
    }

    /// Where in the file a setting stands already. TOML itself refuses only the same spelling.
    fn place_in_file(&self, name: &str) -> Option<Origin> {
        let entry = self.entries.iter().find(|entry| entry.setting.name == name)?;
        matches!(entry.origin, Origin::File { .. }).then(|| entry.origin.clone())
    }

    fn read_variable(&mut self, name: &str, value: &str) {
        let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else {
            return;
        };
        if name == ENVIRONMENT_FILE || is_service_link(key) {
            return;
        }
        self.set_text(&key.to_ascii_lowercase(), value, Origin::Environment(name.to_owned()));
    }

    fn read_pair(&mut self, pair: &str) {
        match pair.split_once('=') {
            Some((key, value)) => self.set_text(key.trim(), value.trim(), Origin::Flag(format!("--set {pair}"))),
            None => self.errors.push(ConfigError::NotAPair { text: pair.to_owned() }),
        }
    }

    fn set_text(&mut self, key: &str, text: &str, origin: Origin) {
        self.set(key, &format!("{text:?}"), origin, |kind| {
            kind.parse(text).ok_or_else(|| kind.allowed())
        });
    }

    /// `shown` is how an error cites the value; `parse` gives the value, or what is allowed.
    fn set(&mut self, key: &str, shown: &str, origin: Origin, parse: impl FnOnce(&Kind) -> Result<Value, String>) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.setting.name == key) else {
            let nearest = nearest_name(key);
            self.errors.push(ConfigError::UnknownKey {
                key: key.to_owned(),
                origin,
                nearest,
            });
            return;
        };
        let setting = entry.setting;
        match parse(&setting.kind) {
            Ok(value) => *entry = Entry { setting, value, origin },
            Err(allowed) => self.errors.push(ConfigError::BadValue {
                key: setting.name,
                value: shown.to_owned(),
                origin,
                allowed,
            }),
        }
    }
}

/// A file has types: a number in quotes is no number.
fn value_in_file(kind: &Kind, value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::Integer(integer) if kind.is_integer() => {
            let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok()?;
            kind.parse(&number.to_string())
        }
        DeValue::Boolean(on) if *kind == Kind::Switch => Some(Value::Switch(*on)),
        DeValue::String(text) if !kind.is_integer() && *kind != Kind::Switch => kind.parse(text),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
}

/// What is allowed in a file, for a value that is not: where only the quotes are wrong, that is said.
fn allowed_in_file(kind: &Kind, value: &DeValue<'_>) -> String {
    let allowed = kind.allowed();
    let is_bare = kind.is_integer() || *kind == Kind::Switch;
    match value {
        DeValue::String(text) if is_bare && kind.parse(text).is_some() => format!("{allowed}, without quotes"),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) if !is_bare => {
            format!("{allowed}, in quotes")
        }
        _ => allowed,
    }
}

/// Kubernetes gives every pod variables about its services; for one named `dispatchd` they begin like ours.
fn is_service_link(key: &str) -> bool {
    key == "PORT" || key.starts_with("PORT_") || key.starts_with("SERVICE_")
}

/// Line, from 1, of the byte at `offset`.
fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
}

/// The known name that `key` most likely meant: one that it begins, or the one with the fewest edits, if few.
fn nearest_name(key: &str) -> Option<&'static str> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let names = || SETTINGS.iter().map(|setting| setting.name);
    if key.len() >= 4
        && let Some(name) = names().find(|name| name.starts_with(&key))
    {
        return Some(name);
    }
    let (distance, name) = names().map(|name| (edits(&key, name), name)).min()?;
    (distance <= key.len() / 3).then_some(name)
}

/// Levenshtein distance in bytes.
fn edits(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, from_byte) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (left, to_byte) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(from_byte != to_byte);
            diagonal = row[left + 1];
            row[left + 1] = replaced.min(diagonal + 1).min(row[left] + 1);
        }
    }
    row[to.len()]
}
