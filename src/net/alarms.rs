//! The timeouts that bound a ring's sleeps.
//!
//! A timer that is set for each sleep is the core's next one each time, so the core programs it twice for each sleep, which on a virtual
//! machine leaves the machine (`bench/EXPERIMENTS.md`). These stay armed over the sleeps that they do not end.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::limits::SLEEP_TOLERANCE;

/// An alarm that the kernel has or is about to get.
struct Alarm {
    number: u32,
    /// When it rings, as `CLOCK_MONOTONIC` tells the time.
    at: Duration,
}

/// The alarms that count on ringing, each earlier than those armed before. One that is missing here may ring, and wakes the ring for
/// nothing; one that is here and never rings does no harm beyond its own time.
#[derive(Default)]
pub(super) struct Alarms {
    armed: Vec<Alarm>,
    next: u32,
}

impl Alarms {
    /// It is `now`, and a sleep is to end within `wait`: the number of an alarm to arm for then, unless one that is armed already serves.
    pub(super) fn arm(&mut self, now: Duration, wait: Duration) -> Option<u32> {
        while self.armed.last().is_some_and(|alarm| alarm.at <= now) {
            self.armed.pop();
        }
        let at = now + wait;
        if self.armed.last().is_some_and(|alarm| alarm.at <= at + SLEEP_TOLERANCE) {
            return None;
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        self.armed.push(Alarm { number, at });
        Some(number)
    }

    /// This one rang, whenever that was, or could not be armed.
    pub(super) fn rang(&mut self, number: u32) {
        if let Some(index) = self.armed.iter().rposition(|alarm| alarm.number == number) {
            self.armed.remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tenths of the tolerance.
    fn t(tenths: u32) -> Duration {
        SLEEP_TOLERANCE * tenths / 10
    }

    #[test]
    fn one_that_is_early_enough_serves() {
        let mut alarms = Alarms::default();
        assert_eq!(alarms.arm(t(0), t(100)), Some(0));
        assert_eq!(alarms.arm(t(0), t(100)), None);
        assert_eq!(alarms.arm(t(50), t(40)), None, "about the same time");
        assert_eq!(alarms.arm(t(0), t(500)), None, "looked after when the first has rung");
        assert_eq!(alarms.arm(t(50), t(39)), Some(1));
    }

    #[test]
    fn those_armed_before_are_not_forgotten() {
        let mut alarms = Alarms::default();
        assert_eq!(
            [900, 500, 200].map(|wait| alarms.arm(t(0), t(wait))),
            [0, 1, 2].map(Some)
        );
        alarms.rang(2);
        assert_eq!(alarms.arm(t(200), t(500)), None, "the one of 500 is armed");
        alarms.rang(1);
        assert_eq!(alarms.arm(t(500), t(500)), None, "and that of 900");
        alarms.rang(0);
        assert_eq!(alarms.arm(t(900), t(100)), Some(3));
    }

    #[test]
    fn one_that_rings_too_early_or_never_bounds_nothing() {
        let mut alarms = Alarms::default();
        assert_eq!(alarms.arm(t(0), t(900)), Some(0));
        assert_eq!(alarms.arm(t(0), t(200)), Some(1));
        // Both rang with the second.
        alarms.rang(0);
        alarms.rang(1);
        assert_eq!(alarms.arm(t(200), t(700)), Some(2));
        // It never rings.
        assert_eq!(alarms.arm(t(900), t(50)), Some(3));
    }
}
