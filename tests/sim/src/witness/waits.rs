//! Waits for busy drivers (`busy_wait_ms`): as long as asked for, and no longer.

use super::Witness;
use super::audits::Life;
use crate::checks::{About, Check};
use crate::ids::Request;

/// How often a node whose disk was full asks for a segment again (`shard/commit.rs`): nothing is decided before it has one.
const SEGMENT_RETRY_MS: u64 = 250;

impl Witness {
    /// At the end: requests waited for busy drivers, neither too long nor in vain.
    pub(super) fn check_waits(&mut self, lives: &[Option<Life>]) {
        for (request, life) in (0..).zip(lives) {
            let Some(life) = life else { continue };
            self.check_asked_first(request, life);
            self.check_wait_ends(request, life);
        }
    }

    /// Who was asked first and said to be free is not offered something in vain.
    fn check_asked_first(&mut self, request: Request, life: &Life) {
        for (sent_ms, refused_ms) in &life.asked_in_vain {
            let unclear = self.is_fleet()
                || self.node.may_be_of_a_start(*refused_ms)
                || !self.is_in_one_boot(*sent_ms, *refused_ms);
            if !self.holds(Check::Caused, unclear) {
                let text = format!("r{request} asks first, and a busy driver got its offer of {sent_ms}");
                return self.violate(Check::Caused, About::request(request), text);
            }
        }
    }

    /// Once faults are over, a busy driver is refused when the wait is over, and the search goes on.
    fn check_wait_ends(&mut self, request: Request, life: &Life) {
        let Some(over_us) = self.calm_since_us() else { return };
        let (over_ms, late_ms) = (self.latest_ms_at(over_us), self.late_ms());
        let rests = life
            .rests
            .iter()
            .map(|rest| (rest.until_ms.max(rest.from_ms), rest.to_ms));
        for (until_ms, at_ms) in life.waited.iter().copied().chain(rests) {
            let late = at_ms > until_ms.max(over_ms + SEGMENT_RETRY_MS) + late_ms;
            if !self.holds(Check::EndsInTime, !late) {
                let text = format!("r{request} waited for a busy driver until {at_ms}, and was to until {until_ms}");
                return self.violate(Check::EndsInTime, About::request(request), text);
            }
        }
    }
}
