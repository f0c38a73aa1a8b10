//! The node's time over its boots. It falls when a start finds the clock set back: then some of it comes twice, and says of what
//! happened in it neither what came first nor how long it took. All other times are as good as on a clock that never fell.

use super::{NodeSeen, Witness};

/// Longer than starts take but for those whose store or disk stands still, and what they resume is told.
const START_MS_MAX: u64 = 10_000;

impl NodeSeen {
    /// Whether this time of the node came twice, Unix milliseconds.
    pub(crate) fn came_twice(&self, at_ms: u64) -> bool {
        (1..self.boots.len()).any(|boot| {
            let (offset_us, begun_us) = self.boots[boot];
            let before_us = self.boots[..boot].iter().map(|earlier| earlier.0).max().unwrap_or(0);
            // Earlier boots may have come so far, the last of them to its end.
            let to_ms = (begun_us + before_us) / 1_000;
            offset_us < before_us && ((begun_us + offset_us) / 1_000..=to_ms).contains(&at_ms)
        })
    }

    /// Whether this time of the node may be one of a start that found the clock set back: it goes on at the newest time of its journal, at
    /// which the boot before lived, and what it resumes is over then, or soon.
    pub(crate) fn may_be_of_a_start(&self, at_ms: u64) -> bool {
        self.boots.windows(2).any(|pair| {
            let begun_ms = (pair[1].0 + pair[1].1) / 1_000;
            pair[1].0 < pair[0].0 && (begun_ms.saturating_sub(START_MS_MAX)..=begun_ms + START_MS_MAX).contains(&at_ms)
        })
    }

    /// Each end of the node, and when it was ready again after it, both Unix milliseconds of its own; `u64::MAX`: not since. By
    /// simulated time: the node's own may be set back.
    pub(crate) fn ends(&self) -> impl DoubleEndedIterator<Item = (u64, u64)> {
        self.ended_ms.iter().zip(&self.ended_us).map(|(ended_ms, ended_us)| {
            let again = self.boots.iter().find(|boot| boot.1 >= *ended_us);
            (*ended_ms, again.map_or(u64::MAX, |boot| (boot.0 + boot.1) / 1_000))
        })
    }

    /// Whether a start since then found the clock set back: how long ago something was, the node cannot know. Simulated time.
    pub(crate) fn has_fallen_since(&self, at_us: u64) -> bool {
        self.boots
            .windows(2)
            .any(|pair| pair[1].0 < pair[0].0 && pair[1].1 > at_us)
    }

    /// The node's time at a simulated time, by the boot that there was, Unix milliseconds.
    pub(crate) fn ms_then(&self, at_us: u64) -> u64 {
        let then = self.boots.iter().rev().find(|boot| boot.1 <= at_us);
        then.or(self.boots.first()).map_or(0, |boot| (at_us + boot.0) / 1_000)
    }
}

impl Witness {
    /// Whether one boot lasted from one of these times to the other, node time, and neither of them came twice.
    pub(super) fn is_in_one_boot(&self, from_ms: u64, to_ms: u64) -> bool {
        let boots = &self.node.boots;
        let begun_ms = |boot: &(u64, u64)| (boot.0 + boot.1) / 1_000;
        let own = boots.iter().rposition(|boot| begun_ms(boot) <= from_ms);
        let is_last = |boot: usize| boots.get(boot + 1).is_none_or(|next| to_ms < begun_ms(next));
        own.is_some_and(is_last)
            && !self.node.is_end_near(from_ms, to_ms)
            && !self.node.came_twice(from_ms)
            && !self.node.came_twice(to_ms)
    }
}
