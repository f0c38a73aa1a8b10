//! The journal: what is written comes back after a crash at any instant, or the node refuses to start.
#![forbid(unsafe_code)]

mod cost;
mod crash;
mod damage;
mod files;
mod model;
mod record;
mod replay;
mod saturation;
mod support;
mod writer;
