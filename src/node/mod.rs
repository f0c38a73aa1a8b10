//! One node: recovery, the shards, and the end.
//!
//! The order of a start ([`bring_up`]) is what keeps promises across crashes. (1) Every older journal is read. (2) What
//! the store does not have of it yet is fed to it. (3) Requests that are not over are written into the new journals,
//! durably. (4) Drivers are bound to their offers and trips. (5) Only then the old journals go. (6) Only then anybody is
//! served. A crash anywhere in between repeats the same steps. Must never: serve anybody before that.
#![forbid(unsafe_code)]

mod heirs;
mod host;
#[cfg(feature = "fleet")]
mod process;
mod recovery;

pub use host::{Host, bring_up};
#[cfg(feature = "fleet")]
pub use process::{check_fleet, records, serve};

/// Why a node did not start or did not end well.
#[derive(Debug)]
pub struct ServeError {
    what: String,
    cause: String,
}

impl ServeError {
    /// `what` could not be done, because of `cause`.
    pub fn new(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self {
            what: what.into(),
            cause: cause.to_string(),
        }
    }
}

impl std::fmt::Display for ServeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what, self.cause)
    }
}

impl std::error::Error for ServeError {}
