//! What operators see: logging, metrics, health, signals, the service manager, the API documents.
//!
//! Must never: decide about offers; a node without it would work the same, unseen.

pub mod args;
pub mod health;
pub mod heap;
pub mod log;
pub mod metrics;
pub mod notify;
pub mod out;
pub mod panics;
pub mod process;
pub mod signals;
pub mod spec;
pub mod tune;
