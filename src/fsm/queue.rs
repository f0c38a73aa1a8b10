//! Three priority classes in one queue: premium, standard, economy; first come, first served inside a class;
//! ageing so that no class waits for ever.
//!
//! A class is served before the next one unless the next one's oldest has waited `age_step_ms` longer
//! (economy against premium: twice that).

use super::types::{Priority, UnixMs};
use std::collections::VecDeque;

/// The queue. The caller bounds it (see [`ClassQueue::len_of`]) and gives the time.
#[derive(Debug)]
pub struct ClassQueue<T> {
    classes: [VecDeque<(UnixMs, T)>; 3],
    age_step_ms: u64,
}

impl<T> ClassQueue<T> {
    /// An empty queue; `age_step_ms` is how much longer a lower class waits before it goes first.
    pub const fn new(age_step_ms: u64) -> Self {
        Self {
            classes: [VecDeque::new(), VecDeque::new(), VecDeque::new()],
            age_step_ms,
        }
    }

    /// All that wait.
    pub fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.classes.iter().all(VecDeque::is_empty)
    }

    /// Those of one class.
    pub fn len_of(&self, class: Priority) -> usize {
        self.classes[class as usize].len()
    }

    /// Appends to its class. `at_ms` is when it began to wait, which never falls inside a class.
    pub fn push(&mut self, class: Priority, at_ms: UnixMs, item: T) {
        debug_assert!(self.classes[class as usize].back().is_none_or(|last| last.0 <= at_ms));
        self.classes[class as usize].push_back((at_ms, item));
    }

    /// Takes the one whose turn it is.
    pub fn pop(&mut self) -> Option<(Priority, T)> {
        let mut best: Option<(u64, Priority)> = None;
        for class in Priority::ALL {
            if let Some(&(since_ms, _)) = self.classes[class as usize].front() {
                // Equal ages of different classes are a step apart, so a smaller key is an earlier turn.
                let key = since_ms.saturating_add(class as u64 * self.age_step_ms);
                if best.is_none_or(|(best_key, _)| key < best_key) {
                    best = Some((key, class));
                }
            }
        }
        let (_, class) = best?;
        self.classes[class as usize].pop_front().map(|(_, item)| (class, item))
    }

    /// Takes the first one that `is_it` recognises, wherever it stands.
    pub fn remove(&mut self, mut is_it: impl FnMut(&T) -> bool) -> Option<T> {
        for class in &mut self.classes {
            if let Some(index) = class.iter().position(|(_, item)| is_it(item)) {
                return class.remove(index).map(|(_, item)| item);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Priority::{Economy, Premium, Standard};

    /// Pushes `(class, at, name)` and expects the order of names.
    fn check(pushes: &[(Priority, u64, &'static str)], expect: &[&'static str]) {
        let mut queue = ClassQueue::new(2_000);
        for &(class, at, name) in pushes {
            queue.push(class, at, name);
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, expect);
    }

    #[test]
    fn classes_in_order_and_fifo_inside() {
        check(
            &[
                (Economy, 0, "e1"),
                (Standard, 1, "s1"),
                (Premium, 2, "p1"),
                (Premium, 3, "p2"),
                (Economy, 3, "e2"),
            ],
            &["p1", "p2", "s1", "e1", "e2"],
        );
    }

    #[test]
    fn a_lower_class_that_waited_a_step_longer_goes_first() {
        check(&[(Economy, 0, "e"), (Premium, 4_001, "p")], &["e", "p"]);
        check(&[(Economy, 0, "e"), (Premium, 3_999, "p")], &["p", "e"]);
        check(&[(Standard, 0, "s"), (Premium, 2_001, "p")], &["s", "p"]);
    }

    #[test]
    fn economy_is_served_under_an_endless_stream_of_premium() {
        let mut queue = ClassQueue::new(2_000);
        queue.push(Economy, 0, "economy");
        let served = (0..10_000u64).find(|ms| {
            queue.push(Premium, *ms, "premium");
            queue.pop().is_some_and(|(class, _)| class == Economy)
        });
        assert_eq!(served, Some(4_001));
    }

    #[test]
    fn remove_takes_one_from_the_middle() {
        let mut queue = ClassQueue::new(2_000);
        for (at, name) in [(0, "a"), (1, "b"), (2, "c")] {
            queue.push(Standard, at, name);
        }
        assert_eq!(queue.remove(|name| *name == "b"), Some("b"));
        assert_eq!(queue.remove(|name| *name == "b"), None);
        assert_eq!(queue.len_of(Standard), 2);
    }
}
