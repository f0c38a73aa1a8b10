//! The timeouts that bound a ring's sleeps.
//!
//! A timer that is set for each sleep is the core's next one each time, so the core programs it twice for each sleep, which on a virtual
//! machine leaves the machine (`bench/EXPERIMENTS.md`). These stay armed over the sleeps that they do not end.
#![forbid(unsafe_code)]

use std::time::Duration;

/// How much longer than asked for a sleep may be: an alarm for about the same time serves.
const TOLERANCE: Duration = Duration::from_micros(100);

/// When the alarms ring that the kernel has, as `CLOCK_MONOTONIC` tells the time. Each is earlier than those armed before.
#[derive(Default)]
pub(super) struct Alarms(Vec<Duration>);

impl Alarms {
    /// Something has to ring at `at`: when to arm one for, unless one that is armed already serves.
    pub(super) fn arm(&mut self, at: Duration) -> Option<Duration> {
        if self.0.last().is_some_and(|next| *next <= at + TOLERANCE) {
            return None;
        }
        self.0.push(at);
        Some(at)
    }

    /// One rang: those of before `now` have.
    pub(super) fn rang(&mut self, now: Duration) {
        while self.0.last().is_some_and(|at| *at <= now) {
            self.0.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn one_that_is_early_enough_serves() {
        let mut alarms = Alarms::default();
        assert_eq!(alarms.arm(us(1_000)), Some(us(1_000)));
        assert_eq!(alarms.arm(us(1_000)), None);
        assert_eq!(alarms.arm(us(900)), None, "about the same time");
        assert_eq!(alarms.arm(us(5_000)), None, "looked after when the first has rung");
        assert_eq!(alarms.arm(us(899)), Some(us(899)));
    }

    #[test]
    fn those_armed_before_are_not_forgotten() {
        let mut alarms = Alarms::default();
        for at in [9_000, 5_000, 2_000] {
            alarms.arm(us(at)).unwrap();
        }
        alarms.rang(us(1_999));
        assert_eq!(alarms.arm(us(2_000)), None, "it was another one");
        alarms.rang(us(2_000));
        assert_eq!(alarms.arm(us(7_000)), None, "the one of 5,000 is armed");
        alarms.rang(us(8_999));
        assert_eq!(alarms.arm(us(10_000)), None);
        alarms.rang(us(9_000));
        assert_eq!(alarms.arm(us(10_000)), Some(us(10_000)));
    }
}
