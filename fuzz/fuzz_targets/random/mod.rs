//! The judge of `tests/fsm/random`.

#[path = "../../../tests/fsm/random/act.rs"]
#[allow(dead_code, reason = "histories are made here")]
pub mod act;
#[path = "../../../tests/fsm/random/client.rs"]
mod client;
#[path = "../../../tests/fsm/random/invariants.rs"]
mod invariants;
#[path = "../../../tests/fsm/random/rest.rs"]
#[allow(dead_code, reason = "other tests ask a run for more")]
pub mod rest;
#[path = "../../../tests/fsm/random/witness.rs"]
mod witness;
