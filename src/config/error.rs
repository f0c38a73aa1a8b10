//! What can be wrong with settings. Always the operator's side; repeating the start without a change will not help.

use super::value::Origin;
use std::fmt;
use std::path::PathBuf;

/// One fault of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// As it was given.
        path: PathBuf,
        /// The system's words.
        cause: String,
    },
    /// The file is no TOML.
    Syntax {
        /// As it was given.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// No setting has this name.
    UnknownKey {
        /// The name.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// The known name that is most like it.
        nearest: Option<&'static str>,
    },
    /// The value is not allowed.
    BadValue {
        /// The setting.
        key: &'static str,
        /// As it was given.
        value: String,
        /// Where it stands.
        origin: Origin,
        /// What is allowed.
        allowed: String,
    },
    /// A setting stands in the file twice, once in a table.
    Twice {
        /// The setting.
        key: String,
        /// Where it stands first.
        before: Origin,
        /// Where it stands again.
        origin: Origin,
    },
    /// A `--set` without `=`.
    NotAPair {
        /// As it was typed.
        text: String,
    },
}

/// Every fault that was found, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, cause } => write!(f, "cannot read {}: {cause}", path.display()),
            Self::Syntax { path, line, message } => write!(f, "{}:{line}: not TOML: {message}", path.display()),
            Self::UnknownKey { key, origin, nearest } => {
                write!(f, "unknown setting {key:?} ({origin})")?;
                match nearest {
                    Some(known) => write!(f, "; did you mean {known:?}?"),
                    None => write!(f, "; `dispatchd config show` lists all"),
                }
            }
            Self::BadValue {
                key,
                value,
                origin,
                allowed,
            } => {
                write!(f, "{key} cannot be {value} ({origin}); allowed: {allowed}")
            }
            Self::Twice { key, before, origin } => {
                write!(f, "{key} stands twice ({before} and {origin})")
            }
            Self::NotAPair { text } => write!(f, "--set {text:?} is no key=value"),
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
impl std::error::Error for ConfigErrors {}
