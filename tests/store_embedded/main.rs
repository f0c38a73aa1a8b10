//! The embedded store against the real engine in temporary directories. One behaviour per file.
//!
//! No test waits for time to pass: each waits for the store's answer, and drives the clock that the store is given.

mod commits;
mod events;
mod failures;
mod kill;
mod measure;
mod outbox;
mod records;
mod retention;
mod support;
