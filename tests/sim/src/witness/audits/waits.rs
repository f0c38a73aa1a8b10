//! Waits for busy drivers, as an audit tells them.

use super::Life;

/// A time in which nobody held the offer, and somebody was left who could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// From the step before it.
    pub from_ms: u64,
    /// To the step after it.
    pub to_ms: u64,
    /// The wait for busy drivers was to end then at the latest.
    pub until_ms: u64,
}

impl Life {
    /// A busy driver is refused without an offer: not before the wait for it is over (protocol.md, section 2: "is not refused at
    /// once").
    pub(super) fn has_waited(&mut self, at_ms: u64) -> Result<(), String> {
        let until_ms = self.waits_until_ms();
        self.waited.push((until_ms, at_ms));
        let least_ms = (self.waits_since_ms + self.busy_wait_ms).min(until_ms);
        // In a fleet, what the wait began with may be shown as later than it was.
        if at_ms < least_ms && !self.may_be_late {
            return Err(format!(
                "refused as busy at {at_ms}, and was to be waited for until {least_ms}"
            ));
        }
        Ok(())
    }

    /// Nothing was noted between these two times.
    pub(super) fn rested(&mut self, from_ms: u64, to_ms: u64) {
        let waits = self.asks_first && self.open() == 0 && !self.candidates.is_empty() && !self.is_used_up();
        if waits && self.end.is_none() && !self.may_be_late {
            self.rests.push(Rest {
                from_ms,
                to_ms,
                until_ms: self.waits_until_ms(),
            });
        }
    }

    /// When a wait for busy drivers has to be over, whenever it began.
    fn waits_until_ms(&self) -> u64 {
        (self.searching_since_ms + self.busy_wait_ms).min(self.deadline_at_ms)
    }
}
