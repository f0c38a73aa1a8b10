//! What speaks with Redis: the registry's thread, and the command that shows the nodes. Not in a build without the feature
//! `fleet`, in which no node joins one.

mod client;
mod lease;
mod lines;
mod lookups;
mod scripts;
mod serve;
mod signs;
pub mod status;
mod writer;

pub use client::Target;
pub use writer::{DriverRegistry, Identity, LeaseAtStart, Surroundings};
