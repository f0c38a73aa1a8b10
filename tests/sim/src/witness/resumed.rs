//! Offers that were open when the node ended. A driver to whom two had been sent held one, and the other was about to be refused;
//! after the start it is the same one.

use super::Witness;
use super::audits::{Life, Tried};
use super::state::ways;
use crate::checks::{About, Check};
use crate::ids::Request;

impl Witness {
    /// An offer that its driver was shown before the node ended is not refused for one that was sent later.
    pub(super) fn check_resumed(&mut self, lives: &[Option<Life>]) {
        // Of a fleet, requests and drivers are not bound by one start.
        if self.is_fleet() || self.node.ended_ms.is_empty() {
            return;
        }
        let all: Vec<(Request, u32, &Tried)> = (0..)
            .zip(lives)
            .filter_map(|(request, life)| Some((request, life.as_ref()?)))
            .flat_map(|(request, life)| {
                (1..)
                    .zip(&life.tried)
                    .map(move |(attempt, tried)| (request, attempt, tried))
            })
            .collect();
        for (request, attempt, tried) in &all {
            let heard_ms = self.heard_ms(*request, *attempt);
            if tried.way != ways::REFUSED || heard_ms == 0 {
                continue;
            }
            let mut rivals = all
                .iter()
                .filter(|(other, _, rival)| other != request && rival.driver == tried.driver);
            // One that was sent before it had the place at the start. It had come to the driver's home after this one and was about
            // to be refused; no journal said yet which of both was shown.
            if rivals.clone().any(|(_, _, rival)| self.came_first(rival, tried)) {
                continue;
            }
            let later = rivals.find(|(other, number, rival)| {
                self.took_the_place(rival, self.heard_ms(*other, *number), tried, heard_ms)
            });
            if !self.holds(Check::ConfirmedKept, later.is_none()) {
                let text = format!("r{request}#{attempt} was shown, and refused for a later one: {tried:?}, {later:?}");
                return self.violate(Check::ConfirmedKept, About::both(*request, tried.driver), text);
            }
        }
    }

    /// When the driver was first shown this attempt; 0: never.
    fn heard_ms(&self, request: Request, attempt: u32) -> u64 {
        let known = self.requests[request as usize].attempts.get(attempt as usize - 1);
        known.filter(|known| known.shown).map_or(0, |known| known.heard_ms)
    }

    /// Whether the node ended when both were open, and `rival` had been sent first.
    fn came_first(&self, rival: &Tried, tried: &Tried) -> bool {
        rival.sent_at_ms <= tried.sent_at_ms
            && rival.way != ways::REFUSED
            && self
                .node
                .is_end_near(tried.sent_at_ms, tried.ended_at_ms.min(rival.ended_at_ms))
    }

    /// Whether the node ended when both were open, and its driver was shown the one that was sent later then.
    fn took_the_place(&self, rival: &Tried, shown_ms: u64, first: &Tried, heard_ms: u64) -> bool {
        let times = [first.sent_at_ms, first.ended_at_ms, rival.sent_at_ms];
        let (from_ms, to_ms) = (heard_ms.max(rival.sent_at_ms), first.ended_at_ms.min(shown_ms));
        rival.sent_at_ms > first.sent_at_ms
            && self.node.is_end_near(from_ms, to_ms)
            && !times.iter().any(|at_ms| self.node.came_twice(*at_ms))
    }
}
