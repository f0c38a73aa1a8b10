//! The public contract, clause by clause, through client libraries that we did not write. `tests/CLAUSES.md` lists the
//! clauses and the tests that show each.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod audits;
mod bounds;
mod busy_wait;
mod cancels;
mod clauses;
mod drain;
mod driver_states;
mod events;
mod floods;
mod frozen;
mod http_connections;
mod http_malformed;
mod http_slow;
mod journal_growth;
mod log_lines;
mod metrics;
mod offer_bodies;
mod offer_flow;
mod ops;
mod overload;
mod parallel;
mod priorities;
mod races;
mod records;
mod reposts;
mod responses;
mod restart_conflicts;
mod restarts;
mod smoke;
mod stalls;
mod trips;
mod ws_closes;
mod ws_frames;
mod ws_handshake;
mod ws_messages;
