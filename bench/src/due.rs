//! What drivers do later: answers to offers, pickups and completions, each kind in the order of its times.

use std::collections::VecDeque;

/// Times in nanoseconds of the session, and the drivers whose they are.
type Queue = VecDeque<(u64, u32)>;

/// A driver's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Answers the offer, due at this time in nanoseconds.
    Answer(u32, u64),
    /// Says that the passenger is on board.
    PickUp(u32),
    /// Says that the trip is over.
    Complete(u32),
}

/// Everything that is due at some time. What is added to a queue is due no earlier than what is in it.
#[derive(Debug, Default)]
pub struct Due {
    /// Drivers that think about an offer.
    pub answers: Queue,
    /// Drivers on the way to their passengers.
    pub pickups: Queue,
    /// Drivers on a trip.
    pub completions: Queue,
}

impl Due {
    /// The next turn that is due by `now_ns`: answers first, then pickups, then completions.
    pub fn pop(&mut self, now_ns: u64) -> Option<Turn> {
        if let Some((due_ns, driver)) = pop_due(&mut self.answers, now_ns) {
            return Some(Turn::Answer(driver, due_ns));
        }
        if let Some((_, driver)) = pop_due(&mut self.pickups, now_ns) {
            return Some(Turn::PickUp(driver));
        }
        let (_, driver) = pop_due(&mut self.completions, now_ns)?;
        Some(Turn::Complete(driver))
    }

    /// When [`Self::pop`] next has something; the greatest time for never.
    pub fn next_ns(&self) -> u64 {
        let queues = [&self.answers, &self.pickups, &self.completions];
        let due = queues
            .iter()
            .filter_map(|queue| queue.front().map(|(due_ns, _)| *due_ns));
        due.min().unwrap_or(u64::MAX)
    }
}

fn pop_due(queue: &mut Queue, now_ns: u64) -> Option<(u64, u32)> {
    queue.front().filter(|(due_ns, _)| *due_ns <= now_ns)?;
    queue.pop_front()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_when_they_are_due() {
        let mut due = Due::default();
        assert_eq!((due.next_ns(), due.pop(u64::MAX)), (u64::MAX, None));
        due.completions.push_back((5, 3));
        due.pickups.push_back((7, 2));
        due.answers.extend([(7, 1), (9, 4)]);
        assert_eq!((due.next_ns(), due.pop(4)), (5, None));
        let turns: Vec<Turn> = std::iter::from_fn(|| due.pop(8)).collect();
        assert_eq!(turns, [Turn::Answer(1, 7), Turn::PickUp(2), Turn::Complete(3)]);
        assert_eq!(due.next_ns(), 9);
    }
}
