//! The journal: what is written comes back after a crash at any instant, or the node refuses to start.
#![forbid(unsafe_code)]

mod cost;
mod crash;
mod damage;
mod errors;
mod files;
mod forged;
mod model;
mod record;
mod replay;
mod support;
mod torn;
mod undirect;
mod writer;
