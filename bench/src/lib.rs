//! Load generator for dispatchd. `dispatchd-bench --help` says how to run it; the modules, in reading order:

// Panics are assertions on our own bugs; what a peer does is an error.
#![allow(clippy::missing_panics_doc)]

pub mod cli;
pub mod lab;
pub mod million;
pub mod scenarios;

pub mod session;

pub mod http;
pub mod json;
pub mod message;
pub mod ring;
pub mod ws;

pub mod measure;
pub mod raw;
pub mod report;
pub mod server;
