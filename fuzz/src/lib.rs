//! The pure modules of dispatchd, the very files of `src/`, and what the fuzz targets share ([`given`]).

#[path = "../../src/aligned.rs"]
pub mod aligned;
#[path = "../../src/fsm/mod.rs"]
pub mod fsm;
pub mod given;
pub mod journal;
#[path = "../../src/wire/mod.rs"]
pub mod wire;
