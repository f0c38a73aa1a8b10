//! What must hold when the process is killed, or the disk is full: nothing acknowledged is lost or doubled.

#[path = "../support/mod.rs"]
mod support;

mod disk_full;
mod export;
mod kill;
mod play;
mod power;
