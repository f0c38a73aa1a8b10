//! Values: what a setting takes, how a text becomes it, and where it came from.

use super::settings::{SETTINGS, Setting};
use compact_str::CompactString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number inside a range.
    Integer {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A whole number inside a range that is a multiple of another.
    Multiple {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
        /// The divisor.
        of: u64,
    },
    /// A power of two inside a range.
    PowerOfTwo {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A path, not empty.
    Path,
    /// An IP address and a port.
    Address,
    /// A text that follows the contract's id rule.
    Id,
    /// Visible ASCII characters, or none at all.
    Words,
}

/// The value of a setting that no source gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Parsed like a value from the command line.
    Text(&'static str),
    /// The host's name when it follows the id rule, else `node-1`.
    HostName,
}

/// A value that its [`Kind`] allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of `Integer`, `Multiple`, `PowerOfTwo`.
    Integer(u64),
    /// Of `Switch`.
    Switch(bool),
    /// Of `OneOf`, `Path`, `Address`, `Id`, `Words`.
    Text(String),
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The table.
    Default,
    /// A line of the file.
    File {
        /// The path as it was given.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// A flag, as it was typed.
    Flag(String),
}

/// A setting with its value and where that came from.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The row of the table.
    pub setting: &'static Setting,
    /// Its value.
    pub value: Value,
    /// The source that won.
    pub origin: Origin,
}

/// A type that a field of [`super::Config`] can have.
pub(super) trait Field {
    /// `value` was checked against the setting's kind.
    fn from_value(value: &Value) -> Self;
}

impl Kind {
    /// What is allowed, in words.
    pub fn allowed(&self) -> String {
        match self {
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Multiple { min, max, of } => format!("a multiple of {of} from {min} to {max}"),
            Self::PowerOfTwo { min, max } => format!("a power of two from {min} to {max}"),
            Self::Switch => "true or false".to_owned(),
            Self::OneOf(names) => format!("one of {}", names.join(", ")),
            Self::Path => "a path in UTF-8".to_owned(),
            Self::Address => "IP:port, such as 127.0.0.1:8080 or [::]:8080".to_owned(),
            Self::Id => format!("1 to {} of A-Z a-z 0-9 . _ : -", crate::limits::ID_LEN_MAX),
            Self::Words => "visible ASCII characters without spaces, or nothing".to_owned(),
        }
    }

    /// The value that `text` stands for; `None` when it is not allowed. Numbers may have `_` between digits.
    pub fn parse(&self, text: &str) -> Option<Value> {
        match self {
            Self::Integer { .. } | Self::Multiple { .. } | Self::PowerOfTwo { .. } => {
                self.check_integer(parse_digits(text)?)
            }
            Self::Switch => text.parse().ok().map(Value::Switch),
            Self::OneOf(names) => names.contains(&text).then(|| Value::Text(text.to_owned())),
            // U+FFFD is what a name in another encoding turns into: it would name another directory.
            Self::Path => {
                (!text.is_empty() && !text.contains(['\0', '\u{fffd}'])).then(|| Value::Text(text.to_owned()))
            }
            Self::Address => text
                .parse::<SocketAddr>()
                .ok()
                .map(|address| Value::Text(address.to_string())),
            Self::Id => is_id(text).then(|| Value::Text(text.to_owned())),
            Self::Words => text
                .bytes()
                .all(|byte| byte.is_ascii_graphic())
                .then(|| Value::Text(text.to_owned())),
        }
    }

    fn check_integer(self, number: u64) -> Option<Value> {
        let fits = match self {
            Self::Integer { min, max } => (min..=max).contains(&number),
            Self::Multiple { min, max, of } => (min..=max).contains(&number) && number.is_multiple_of(of),
            Self::PowerOfTwo { min, max } => (min..=max).contains(&number) && number.is_power_of_two(),
            Self::Switch | Self::OneOf(_) | Self::Path | Self::Address | Self::Id | Self::Words => false,
        };
        fits.then_some(Value::Integer(number))
    }

    /// Whether the file writes this kind as a TOML integer.
    pub const fn is_integer(&self) -> bool {
        matches!(
            self,
            Self::Integer { .. } | Self::Multiple { .. } | Self::PowerOfTwo { .. }
        )
    }
}

/// Digits with single `_` between them; no sign, no blank.
fn parse_digits(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let well_placed = bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'0'..=b'9' => true,
        b'_' => at > 0 && bytes[at - 1].is_ascii_digit() && bytes.get(at + 1).is_some_and(u8::is_ascii_digit),
        _ => false,
    });
    if !well_placed {
        return None;
    }
    text.replace('_', "").parse().ok()
}

fn is_id(text: &str) -> bool {
    crate::fsm::ids::DriverId::parse(text).is_ok()
}

impl Setting {
    /// The row of `name`.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The value when no source gives one.
    ///
    /// # Panics
    /// Never: a test parses every preset.
    pub fn default_value(&self) -> Value {
        match self.preset {
            Preset::Text(text) => self.kind.parse(text).expect("a preset is allowed"),
            Preset::HostName => Value::Text(host_name().unwrap_or_else(|| "node-1".to_owned())),
        }
    }

    /// The default as documents show it.
    pub fn default_text(&self) -> &'static str {
        match self.preset {
            Preset::Text(text) => text,
            Preset::HostName => "the host's name, or node-1",
        }
    }
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.to_owned();
    is_id(&name).then_some(name)
}

impl Value {
    /// The text of a text value.
    ///
    /// # Panics
    /// On a number or a switch: the table gives a field another type than its kind.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Integer(_) | Self::Switch(_) => panic!("a text setting holds {self:?}"),
        }
    }

    fn integer(&self) -> u64 {
        match self {
            Self::Integer(number) => *number,
            Self::Text(_) | Self::Switch(_) => panic!("an integer setting holds {self:?}"),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(number) => write!(f, "{number}"),
            Self::Switch(on) => write!(f, "{on}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

macro_rules! integer_fields {
    ($($type:ty),+) => {$(
        impl Field for $type {
            fn from_value(value: &Value) -> Self {
                Self::try_from(value.integer()).expect("the table's range fits the field")
            }
        }
    )+};
}

integer_fields!(u16, u32, u64);

impl Field for bool {
    fn from_value(value: &Value) -> Self {
        match value {
            Value::Switch(on) => *on,
            Value::Integer(_) | Value::Text(_) => panic!("a switch holds {value:?}"),
        }
    }
}

impl Field for PathBuf {
    fn from_value(value: &Value) -> Self {
        Self::from(value.text())
    }
}

impl Field for CompactString {
    fn from_value(value: &Value) -> Self {
        Self::new(value.text())
    }
}

impl Field for SocketAddr {
    fn from_value(value: &Value) -> Self {
        value.text().parse().expect("checked against the kind")
    }
}
