//! `src/cold`, as far as threads meet in it.

#[path = "../../../../src/cold/handle.rs"]
#[allow(dead_code, reason = "the models use of the store's end what matters to them")]
pub mod handle;
pub mod port;
