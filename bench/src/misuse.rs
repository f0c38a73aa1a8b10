//! What a command line asks for and cannot be had. The exit status is 2 then, as for an option that is none, so that it is told apart
//! from a run that found something.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;

/// Says what is wrong, and what would be right.
#[derive(Debug)]
struct Misuse(String);

impl fmt::Display for Misuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misuse {}

/// An error that [`is_misuse`] knows.
pub(crate) fn misuse(what: impl fmt::Display) -> io::Error {
    io::Error::other(Misuse(what.to_string()))
}

/// Whether an error is one of the command line.
pub(crate) fn is_misuse(error: &io::Error) -> bool {
    error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Misuse>())
        .is_some()
}
