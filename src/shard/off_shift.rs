//! Drivers that are not in memory and went off shift on purpose, and when.
#![forbid(unsafe_code)]

use crate::fsm::ids::DriverId;
use crate::fsm::types::UnixMs;
use std::collections::HashMap;

/// Fewest for whom a sweep pays.
const SWEEP_MIN: usize = 1_024;

/// The most by which a start may find the wall clock set back, milliseconds: for so long the end of a shift is kept after it stopped to
/// count. Who comes back in that time is available and the store is told so; without that, the old end would count again
/// for a clock that fell.
const CLOCK_FALL_MS_MAX: u64 = 3_600_000;

/// Ends of shifts before this do not matter any more, unless the clock of a later start is set back by more than
/// [`CLOCK_FALL_MS_MAX`].
pub fn forgotten_before_ms(now_ms: UnixMs, memory_ms: u64) -> UnixMs {
    now_ms.saturating_sub(memory_ms.saturating_add(CLOCK_FALL_MS_MAX))
}

/// The table. What is too old in it goes now and then, when many have come.
#[derive(Default)]
pub(super) struct OffShift {
    since_ms: HashMap<DriverId, UnixMs>,
    /// Size at which the next sweep is due.
    sweep_at: usize,
}

impl OffShift {
    /// Adds what the store remembers.
    pub(super) fn extend(&mut self, drivers: Vec<(DriverId, UnixMs)>) {
        self.since_ms.extend(drivers);
    }

    /// Since when a driver is off shift who is not in memory, 0 for on shift.
    pub(super) fn get(&self, id: &DriverId) -> UnixMs {
        self.since_ms.get(id).copied().unwrap_or(0)
    }

    /// A driver comes into memory: since when it is off shift, 0 for on shift.
    pub(super) fn take(&mut self, id: &DriverId) -> UnixMs {
        self.since_ms.remove(id).unwrap_or(0)
    }

    /// A driver leaves memory off shift. Forgets shifts that ended before [`forgotten_before_ms`]: such a driver connects as
    /// available all the same.
    pub(super) fn insert(&mut self, id: DriverId, since_ms: UnixMs, now_ms: UnixMs, memory_ms: u64) {
        self.since_ms.insert(id, since_ms);
        if self.since_ms.len() >= self.sweep_at.max(SWEEP_MIN) {
            let forgotten_ms = forgotten_before_ms(now_ms, memory_ms);
            self.since_ms.retain(|_, since_ms| *since_ms > forgotten_ms);
            self.sweep_at = self.since_ms.len() * 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY_MS: u64 = 1_000;
    const FALLEN_MS: u64 = CLOCK_FALL_MS_MAX;

    fn id(number: usize) -> DriverId {
        DriverId::parse(&format!("d{number}")).unwrap()
    }

    #[test]
    fn what_is_too_old_goes_when_many_have_come() {
        let mut off_shift = OffShift::default();
        off_shift.extend((0..SWEEP_MIN - 2).map(|number| (id(number), 1)).collect());
        off_shift.insert(id(SWEEP_MIN), 3, FALLEN_MS + 1_002, MEMORY_MS);
        assert_eq!(off_shift.since_ms.len(), SWEEP_MIN - 1, "so few are not looked through");
        off_shift.insert(id(SWEEP_MIN + 1), 2, FALLEN_MS + 1_002, MEMORY_MS);
        assert_eq!(off_shift.since_ms.len(), 1);
        assert_eq!(off_shift.take(&id(0)), 0);
        assert_eq!(off_shift.take(&id(SWEEP_MIN + 1)), 0, "exactly that long ago");
        assert_eq!((off_shift.take(&id(SWEEP_MIN)), off_shift.take(&id(SWEEP_MIN))), (3, 0));
    }

    #[test]
    fn what_counts_again_for_a_clock_that_fell_is_kept() {
        let mut off_shift = OffShift::default();
        let now_ms = 1 + MEMORY_MS + FALLEN_MS;
        off_shift.extend((0..SWEEP_MIN).map(|number| (id(number), 1)).collect());
        off_shift.insert(id(SWEEP_MIN), 2, now_ms, MEMORY_MS);
        assert_eq!(
            off_shift.take(&id(SWEEP_MIN)),
            2,
            "who comes now is struck from the store"
        );
        assert_eq!(forgotten_before_ms(now_ms, MEMORY_MS), 1);
        assert_eq!(forgotten_before_ms(5, u64::MAX), 0);
    }

    #[test]
    fn what_counts_is_kept_and_looked_through_rarely() {
        let mut off_shift = OffShift::default();
        let mut looked_through = 0;
        for number in 0..10 * SWEEP_MIN {
            let before = off_shift.sweep_at;
            off_shift.insert(id(number), 5, 6, MEMORY_MS);
            looked_through += usize::from(off_shift.sweep_at != before);
        }
        assert_eq!(off_shift.since_ms.len(), 10 * SWEEP_MIN);
        assert_eq!(looked_through, 4, "at 1, 2, 4 and 8 times the least");
        // A clock that stands before the shift began forgets nothing.
        off_shift.sweep_at = 0;
        off_shift.insert(id(0), 5, 0, MEMORY_MS);
        assert_eq!(off_shift.since_ms.len(), 10 * SWEEP_MIN);
    }
}
