//! Random histories of a small world: 3 requests, 4 drivers, letters, commits and timers in any order that the
//! channels allow, crashes at any instant. After every step the invariants are checked, and at the end that all
//! comes to rest.
//!
//! `PROPTEST_CASES=20000 cargo test --test fsm random` looks longer. A failure prints the shortest history that
//! proptest finds; a history is its own seed.

mod act;
mod client;
mod histories;
mod invariants;
mod rest;
mod witness;

pub use act::{Act, History, Post};
pub use histories::{crowds, histories};
pub use rest::{Run, TRIP};

use proptest::prelude::*;

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn invariants_hold_in_every_history(history in histories(true)) {
        let _ = played(&history);
    }

    #[test]
    fn queues_are_served_in_order(history in crowds()) {
        let _ = played(&history);
    }

    /// Without crashes every caller is answered exactly once.
    #[test]
    fn every_call_is_answered_once(history in histories(false)) {
        prop_assert_eq!(played(&history).unanswered(), 0);
    }
}

/// A history played to its end.
pub fn played(history: &History) -> Run {
    let mut run = Run::new();
    for act in &history.0 {
        run.play(act);
    }
    run.come_to_rest();
    run
}

/// So many cases, or as many as the environment asks for; a failure is made as short as it gets, or as the environment
/// allows.
pub fn config(cases: u32) -> ProptestConfig {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: asked("PROPTEST_CASES").unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: asked("PROPTEST_MAX_SHRINK_ITERS").unwrap_or(100_000),
        ..ProptestConfig::default()
    }
}
