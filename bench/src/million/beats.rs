//! When each driver of a thread sends its heartbeat, and which of them was answered.
//!
//! Heartbeats are spread evenly over the interval, whenever a driver connected: so none is later than one interval after
//! the `WELCOME`, and no wave of connects becomes a wave of heartbeats.
#![forbid(unsafe_code)]

/// See the module.
pub struct Beats {
    interval_ns: u64,
    start_ns: u64,
    /// Heartbeats that were due so far, in the order of drivers, over and over.
    next: u64,
    /// Whether a driver waits for its `PONG`.
    waiting: Vec<bool>,
}

impl Beats {
    /// For `drivers` (at least one), each once in `interval_ns`, from `start_ns` on.
    pub fn new(drivers: u32, interval_ns: u64, start_ns: u64) -> Self {
        assert!(drivers > 0 && interval_ns > 0);
        Self {
            interval_ns,
            start_ns,
            next: 0,
            waiting: vec![false; drivers as usize],
        }
    }

    /// When the next heartbeat is due.
    pub fn next_ns(&self) -> u64 {
        self.due_ns(self.next)
    }

    /// The next driver whose heartbeat is due, and since when.
    pub fn pop_due(&mut self, now_ns: u64) -> Option<(u32, u64)> {
        let due_ns = self.next_ns();
        if due_ns > now_ns {
            return None;
        }
        let driver = (self.next % self.waiting.len() as u64) as u32;
        self.next += 1;
        Some((driver, due_ns))
    }

    /// A heartbeat leaves. False: the one before it was not answered.
    pub fn sent(&mut self, driver: u32) -> bool {
        !std::mem::replace(&mut self.waiting[driver as usize], true)
    }

    /// A `PONG` came: when its heartbeat was due; `None` when there was none.
    pub fn answered(&mut self, driver: u32) -> Option<u64> {
        if !std::mem::take(&mut self.waiting[driver as usize]) {
            return None;
        }
        let drivers = self.waiting.len() as u64;
        let last = self.next.checked_sub(1)?;
        let back = (last % drivers + drivers - u64::from(driver)) % drivers;
        last.checked_sub(back).map(|count| self.due_ns(count))
    }

    /// The driver's connection is new or gone: nothing is waited for.
    pub fn forget(&mut self, driver: u32) {
        self.waiting[driver as usize] = false;
    }

    fn due_ns(&self, count: u64) -> u64 {
        let drivers = self.waiting.len() as u64;
        let (rounds, rest) = (count / drivers, count % drivers);
        self.start_ns + rounds * self.interval_ns + rest * self.interval_ns / drivers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_beats_once_in_an_interval_and_its_pong_knows_when() {
        let mut beats = Beats::new(3, 300, 1_000);
        assert_eq!(beats.pop_due(999), None);
        for (driver, due_ns) in [(0, 1_000), (1, 1_100), (2, 1_200), (0, 1_300), (1, 1_400)] {
            assert_eq!(beats.next_ns(), due_ns);
            assert_eq!(beats.pop_due(due_ns), Some((driver, due_ns)));
            assert!(beats.sent(driver));
            assert_eq!(beats.answered(driver), Some(due_ns));
        }
        assert_eq!(beats.pop_due(1_500), Some((2, 1_500)));
        assert!(beats.sent(2));
        assert_eq!(beats.pop_due(1_600), Some((0, 1_600)));
        assert_eq!(beats.answered(2), Some(1_500), "others beat in between");
        assert_eq!(beats.answered(0), None, "it did not send this time");
    }

    #[test]
    fn a_heartbeat_without_its_pong_is_missed_once_and_a_new_connection_owes_none() {
        let mut beats = Beats::new(1, 10, 0);
        assert!(beats.sent(0));
        assert!(!beats.sent(0));
        beats.forget(0);
        assert!(beats.sent(0));
    }
}
