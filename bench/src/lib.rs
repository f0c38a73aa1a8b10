//! Load generator for dispatchd. `dispatchd-bench --help` says how to run it; the modules, in reading order:

// Panics are assertions on our own bugs; what a peer does is an error.
#![allow(clippy::missing_panics_doc)]
// `dispatchd::say!` goes on when the reader has gone.
#![deny(clippy::print_stdout)]

pub mod cli;
pub mod crash;
pub mod fleet;
pub mod harness;
pub mod lab;
pub mod million;
mod misuse;
pub mod peers;
pub mod scenarios;
pub mod soak;

pub mod session;

pub mod http;
pub mod json;
pub mod message;
pub mod ring;
pub mod ws;

pub mod chance;
pub mod chart;
pub mod compare;
pub mod due;
mod ends;
pub mod files;
pub mod html;
pub mod measure;
pub mod plan;
pub mod raw;
pub mod report;
pub mod server;
