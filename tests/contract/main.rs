//! The public contract, clause by clause, through client libraries that we did not write. `tests/CLAUSES.md` lists the
//! clauses and the tests that show each.

#[path = "../support/mod.rs"]
mod support;

mod smoke;
mod answers;
mod bounds;
mod busy_wait;
mod cancels;
mod driver_states;
mod offer_bodies;
mod offer_flow;
mod parallel;
mod reposts;
mod responses;
mod trips;
mod ws_closes;
mod ws_frames;
mod ws_handshake;
mod ws_messages;
