//! The seven invariants of the contract (its section 4), judged from the outside: from what the clients saw and what the
//! API says at the end. Pure: evidence in, verdicts out.
//!
//! Each check must be sound: it may say "violated" only when the contract is broken, however the network, the crash and
//! the scheduler behaved. Where a client cannot know (what a lost socket would have said), nothing is checked.

mod agreement;
mod durability;
mod ledger;
mod order;
mod reservation;
mod story;
#[cfg(test)]
mod tests;

use super::observe::Evidence;
use ledger::Ledger;
pub use ledger::{Attempt, attempts_of};

/// Most violations that a verdict quotes.
const EXAMPLES_MAX: usize = 5;

/// How one invariant fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its number in the contract, 1–7.
    pub number: u8,
    /// What it says, in a few words.
    pub name: &'static str,
    /// Comparisons made.
    pub checks: u64,
    /// Comparisons that failed.
    pub violations: u64,
    /// The first few of them, in words.
    pub examples: Vec<String>,
}

impl Verdict {
    const fn of(number: u8, name: &'static str) -> Self {
        Self {
            number,
            name,
            checks: 0,
            violations: 0,
            examples: Vec::new(),
        }
    }

    /// One comparison; `describe` is asked only when it failed.
    fn check(&mut self, holds: bool, describe: impl FnOnce() -> String) {
        self.checks += 1;
        if !holds {
            self.violations += 1;
            if self.examples.len() < EXAMPLES_MAX {
                self.examples.push(describe());
            }
        }
    }
}

/// Judges all seven.
pub fn judge(evidence: &Evidence) -> [Verdict; 7] {
    let ledger = Ledger::of(evidence);
    let mut verdicts = [
        Verdict::of(1, "one winner"),
        Verdict::of(2, "one offer, one trip per driver"),
        Verdict::of(3, "what was answered survives the kill"),
        Verdict::of(4, "every request reaches an end"),
        Verdict::of(5, "everyone hears the same outcome"),
        Verdict::of(6, "premium, standard, economy; FCFS inside"),
        Verdict::of(7, "the audit holds every step, unchanged"),
    ];
    let [winner, reservation, durable, ended, agreed, order, story] = &mut verdicts;
    agreement::one_winner(&ledger, winner);
    reservation::one_at_a_time(&ledger, reservation);
    durability::still_there(&ledger, durable);
    durability::ended(&ledger, ended);
    agreement::same_outcome(&ledger, agreed);
    order::class_order(&evidence.class_rounds, order);
    story::complete(&ledger, story);
    verdicts
}
