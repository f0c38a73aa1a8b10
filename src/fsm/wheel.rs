//! Hashed timer wheel (Varghese & Lauck, SOSP 1987, scheme 6): arm, cancel and fire are O(1).
//!
//! One slot per tick, `SLOTS` ticks a turn; a timer further away than one turn stays in its slot until
//! its turn comes. Timers live in pages of 24-byte nodes, linked per slot; a bitmap of non-empty slots
//! answers "when must somebody look again". Time is the caller's, in milliseconds since an epoch of its own.

use std::num::NonZeroU32;

/// Milliseconds per tick: a timer fires at most this much late, never early.
pub const TICK_MS: u64 = 4;
/// Ticks per turn: 65.5 s, a little more than a heartbeat timer's 60 s, so that those go round once at most.
pub const SLOTS: usize = 16_384;

/// Words of the bitmap.
const WORDS: usize = SLOTS / 64;

const _: () = assert!(SLOTS.is_power_of_two() && SLOTS.is_multiple_of(64 * 64));
const NONE: u32 = u32::MAX;
/// Nodes of a page.
const PAGE_LEN: usize = 1_024;

/// An armed timer. Valid until it fires or is cancelled; the owner forgets it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId(NonZeroU32);

const _: () = assert!(size_of::<Option<TimerId>>() == 4, "every driver has room for one");

impl TimerId {
    /// The node's index plus one.
    fn new(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    fn index(self) -> u32 {
        self.0.get() - 1
    }
}

#[derive(Clone, Copy)]
struct Node {
    /// Tick of expiry. 64 bits: 32 would end after 198 days.
    tick: u64,
    /// The next one in the slot; in a free node, the next free one.
    next: u32,
    prev: u32,
    owner: u64,
}

const _: () = assert!(size_of::<Node>() == 24);

/// The wheel. `owner` is whatever the caller wants back when a timer fires.
pub struct Wheel {
    /// In pages: growth moves nothing and keeps no reserve.
    nodes: Vec<Box<[Node]>>,
    /// Nodes that were ever used.
    used: u32,
    free: u32,
    heads: Box<[u32]>,
    /// A bit for each slot that is not empty.
    occupied: Box<[u64; WORDS]>,
    /// A bit for each word of them that is not zero: a wheel with few timers is asked for the next one as often as a full one.
    summary: [u64; WORDS / 64],
    epoch_ms: u64,
    /// The last tick that was fired.
    now_tick: u64,
    armed: usize,
}

impl Wheel {
    /// An empty wheel whose time begins at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Self {
            nodes: Vec::new(),
            used: 0,
            free: NONE,
            heads: vec![NONE; SLOTS].into_boxed_slice(),
            occupied: Box::new([0; WORDS]),
            summary: [0; WORDS / 64],
            epoch_ms: now_ms,
            now_tick: 0,
            armed: 0,
        }
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Bytes that the wheel has allocated.
    pub fn bytes(&self) -> usize {
        self.nodes.len() * PAGE_LEN * size_of::<Node>() + SLOTS * 4 + SLOTS / 8
    }

    /// Arms a timer for `at_ms` (rounded up to a tick; the past means the next tick).
    ///
    /// # Panics
    /// When 2³²−1 timers are armed.
    pub fn arm(&mut self, at_ms: u64, owner: u64) -> TimerId {
        let ticks = at_ms.saturating_sub(self.epoch_ms).div_ceil(TICK_MS);
        let tick = ticks.max(self.now_tick + 1);
        let index = self.take_node(Node {
            tick,
            next: NONE,
            prev: NONE,
            owner,
        });
        self.link(index);
        self.armed += 1;
        TimerId::new(index)
    }

    /// Takes an armed timer back.
    ///
    /// # Panics
    /// When the timer is not armed, as far as that shows.
    pub fn cancel(&mut self, timer: TimerId) {
        assert!(self.armed > 0);
        self.unlink(timer.index());
        self.free_node(timer.index());
        self.armed -= 1;
    }

    /// Moves time to `now_ms` and hands the owners of the timers that expired to `fired`, earlier ticks first.
    pub fn advance(&mut self, now_ms: u64, fired: &mut Vec<u64>) {
        let target = now_ms.saturating_sub(self.epoch_ms) / TICK_MS;
        if target <= self.now_tick {
            return;
        }
        if self.armed == 0 {
            self.now_tick = target;
            return;
        }
        if target - self.now_tick >= SLOTS as u64 {
            // A stall longer than a turn: every slot once, in the order of the last turn's ticks.
            let mut late: Vec<(u64, u64)> = Vec::new();
            for slot in 0..SLOTS {
                self.fire_slot(slot, target, &mut late);
            }
            late.sort_by_key(|&(tick, _)| tick);
            fired.extend(late.into_iter().map(|(_, owner)| owner));
        } else {
            let mut due: Vec<(u64, u64)> = Vec::new();
            let mut tick = self.now_tick;
            while let Some(next) = self.next_occupied(tick, target) {
                due.clear();
                self.fire_slot(next as usize & (SLOTS - 1), target, &mut due);
                fired.extend(due.iter().map(|&(_, owner)| owner));
                tick = next;
            }
        }
        self.now_tick = target;
    }

    /// The latest time at which the caller should call [`Self::advance`] again; `None` when nothing is armed.
    /// Never later than the next expiry; for timers more than a turn away it may be earlier.
    pub fn next_ms(&self) -> Option<u64> {
        if self.armed == 0 {
            return None;
        }
        let last = self.now_tick + SLOTS as u64;
        let tick = self.next_occupied(self.now_tick, last).unwrap_or(last);
        Some(self.epoch_ms + tick * TICK_MS)
    }

    /// The first tick in `(after, through]` whose slot is not empty.
    fn next_occupied(&self, after: u64, through: u64) -> Option<u64> {
        let first = (after + 1) as usize & (SLOTS - 1);
        let rest = self.occupied[first / 64] >> (first % 64);
        let distance = if rest != 0 {
            rest.trailing_zeros() as usize
        } else {
            let word = self.next_word(first / 64 + 1)?;
            let slot = word * 64 + self.occupied[word].trailing_zeros() as usize;
            slot.wrapping_sub(first) & (SLOTS - 1)
        };
        let found = after + 1 + distance as u64;
        (found <= through).then_some(found)
    }

    /// The first word of the bitmap at or after this one, the turn round, that is not zero.
    fn next_word(&self, from: usize) -> Option<usize> {
        let (index, bit) = (from / 64 % self.summary.len(), from % 64);
        let rest = self.summary[index] & (u64::MAX << bit);
        if rest != 0 {
            return Some(index * 64 + rest.trailing_zeros() as usize);
        }
        // The last one is the first again: what of it stands before `from`.
        (1..=self.summary.len())
            .map(|step| (index + step) % self.summary.len())
            .find(|&index| self.summary[index] != 0)
            .map(|index| index * 64 + self.summary[index].trailing_zeros() as usize)
    }

    fn fire_slot(&mut self, slot: usize, through: u64, fired: &mut Vec<(u64, u64)>) {
        let mut index = self.heads[slot];
        while index != NONE {
            let node = *self.node(index);
            if node.tick <= through {
                self.unlink(index);
                self.free_node(index);
                self.armed -= 1;
                fired.push((node.tick, node.owner));
            }
            index = node.next;
        }
    }

    fn link(&mut self, index: u32) {
        let slot = self.node(index).tick as usize & (SLOTS - 1);
        let head = self.heads[slot];
        if head != NONE {
            self.node_mut(head).prev = index;
        }
        self.node_mut(index).next = head;
        self.heads[slot] = index;
        let word = slot / 64;
        self.occupied[word] |= 1 << (slot % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    fn unlink(&mut self, index: u32) {
        let Node { tick, next, prev, .. } = *self.node(index);
        if next != NONE {
            self.node_mut(next).prev = prev;
        }
        if prev == NONE {
            let slot = tick as usize & (SLOTS - 1);
            assert_eq!(self.heads[slot], index, "a cancelled timer is an armed one");
            self.heads[slot] = next;
            if next == NONE {
                let word = slot / 64;
                self.occupied[word] &= !(1 << (slot % 64));
                if self.occupied[word] == 0 {
                    self.summary[word / 64] &= !(1 << (word % 64));
                }
            }
        } else {
            self.node_mut(prev).next = next;
        }
    }

    fn take_node(&mut self, node: Node) -> u32 {
        if self.free == NONE {
            let index = self.used;
            assert!(index != NONE, "fewer than 2^32 timers");
            if index as usize == self.nodes.len() * PAGE_LEN {
                self.nodes.push(vec![node; PAGE_LEN].into_boxed_slice());
            }
            self.used += 1;
            *self.node_mut(index) = node;
            return index;
        }
        let index = self.free;
        self.free = self.node(index).next;
        *self.node_mut(index) = node;
        index
    }

    fn free_node(&mut self, index: u32) {
        let next_free = self.free;
        *self.node_mut(index) = Node {
            tick: u64::MAX,
            next: next_free,
            prev: NONE,
            owner: u64::MAX,
        };
        self.free = index;
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize / PAGE_LEN][index as usize % PAGE_LEN]
    }

    fn node_mut(&mut self, index: u32) -> &mut Node {
        &mut self.nodes[index as usize / PAGE_LEN][index as usize % PAGE_LEN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fired_at(wheel: &mut Wheel, now_ms: u64) -> Vec<u64> {
        let mut fired = Vec::new();
        wheel.advance(now_ms, &mut fired);
        fired
    }

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        let mut wheel = Wheel::new(1_000);
        wheel.arm(1_010, 7);
        assert_eq!(wheel.next_ms(), Some(1_012));
        assert_eq!(fired_at(&mut wheel, 1_011), Vec::<u64>::new());
        assert_eq!(fired_at(&mut wheel, 1_012), vec![7]);
        assert_eq!(wheel.next_ms(), None);
    }

    #[test]
    fn more_than_a_turn_away() {
        let mut wheel = Wheel::new(0);
        let turn = SLOTS as u64 * TICK_MS;
        wheel.arm(turn * 3 + 8, 1);
        for now in (0..turn * 3).step_by(9_999) {
            assert!(fired_at(&mut wheel, now).is_empty());
        }
        assert_eq!(fired_at(&mut wheel, turn * 3 + 8), vec![1]);
    }

    #[test]
    fn a_stall_fires_all_in_order() {
        let mut wheel = Wheel::new(0);
        for at in (0..200_000).rev().step_by(1_000) {
            wheel.arm(at, at / TICK_MS);
        }
        let fired = fired_at(&mut wheel, 400_000);
        assert_eq!(fired.len(), 200);
        assert!(fired.is_sorted());
        assert!(wheel.is_empty());
    }

    proptest! {
        /// Against a sorted list: what fires, and when somebody must look again.
        #[test]
        fn like_a_sorted_list(steps in proptest::collection::vec((0u8..4, 0u64..200_000), 1..200)) {
            let mut wheel = Wheel::new(0);
            let mut model: Vec<(u64, u64, TimerId)> = Vec::new();
            let (mut now, mut owner) = (0u64, 0u64);
            for (kind, amount) in steps {
                match kind {
                    0 | 1 => {
                        // Half of them within a turn, where the next one is known exactly.
                        let at = now + if kind == 0 { amount / 8 } else { amount };
                        let due = at.div_ceil(TICK_MS).max(now / TICK_MS + 1);
                        model.push((due, owner, wheel.arm(at, owner)));
                        owner += 1;
                    }
                    2 if !model.is_empty() => {
                        let (_, _, timer) = model.swap_remove(amount as usize % model.len());
                        wheel.cancel(timer);
                    }
                    _ => {
                        now += amount;
                        let mut fired = fired_at(&mut wheel, now);
                        fired.sort_unstable();
                        let mut expect: Vec<u64> = model.iter().filter(|m| m.0 <= now / TICK_MS).map(|m| m.1).collect();
                        expect.sort_unstable();
                        prop_assert_eq!(fired, expect);
                        model.retain(|m| m.0 > now / TICK_MS);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let next = model.iter().map(|m| m.0 * TICK_MS).min();
                prop_assert_eq!(wheel.next_ms().is_some(), next.is_some());
                prop_assert!(wheel.next_ms() <= next);
                if model.iter().all(|m| m.0 <= now / TICK_MS + SLOTS as u64) {
                    prop_assert_eq!(wheel.next_ms(), next);
                }
            }
        }
    }
}
