//! The search for drivers: the next candidates get the offer, or with `busy_wait_ms` are asked first, and waited for.

use super::{Request, RequestEffect, ToDriver, Waiting};
use crate::fsm::ids::DriverId;
use crate::fsm::types::{RefuseReason, Step, UnixMs};

impl Request {
    /// Fills the free places with the next candidates, or says that there are none.
    pub(super) fn search(&mut self, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        if now_ms >= self.fold.deadline_at_ms {
            return self.time_out(now_ms, effects);
        }
        loop {
            let held = self.fold.open_count() + self.waiting.iter().filter(|waiting| !waiting.queued).count();
            if held >= usize::from(self.fold.parallel) {
                return;
            }
            if self.fold.is_used_up() {
                if self.fold.open_count() == 0 {
                    self.push(now_ms, Step::Unfulfilled { by_deadline: false });
                }
                return;
            }
            let untried = |candidate: &&DriverId| !self.waiting.iter().any(|w| w.driver_id == **candidate);
            match self.fold.candidates.iter().find(untried).cloned() {
                Some(driver_id) if self.fold.busy_wait_ms == 0 => self.offer(driver_id, now_ms),
                Some(driver_id) => {
                    self.asks += 1;
                    let ask = self.asks;
                    let message = ToDriver::Ask {
                        ask,
                        priority: self.fold.priority,
                    };
                    effects.push(RequestEffect::Driver {
                        driver_id: driver_id.clone(),
                        message,
                    });
                    self.waiting.push(Waiting {
                        driver_id,
                        ask,
                        queued: false,
                    });
                }
                None => {
                    if held == 0 && self.waiting.is_empty() && !self.fold.exhausted {
                        self.push(now_ms, Step::Exhausted);
                    }
                    return;
                }
            }
        }
    }

    pub(super) fn offer(&mut self, driver_id: DriverId, now_ms: UnixMs) {
        let attempt = self.fold.attempts.len() as u32 + 1;
        let expires_at_ms = (now_ms + u64::from(self.fold.offer_timeout_ms)).min(self.fold.deadline_at_ms);
        self.push(
            now_ms,
            Step::OfferSent {
                attempt,
                driver_id,
                expires_at_ms,
            },
        );
    }

    pub(super) fn refuse(&mut self, driver_id: DriverId, reason: RefuseReason, now_ms: UnixMs) {
        let attempt = self.fold.attempts.len() as u32 + 1;
        self.push(
            now_ms,
            Step::Refused {
                attempt,
                driver_id,
                reason,
            },
        );
    }

    pub(super) fn stop_waiting(&mut self, effects: &mut Vec<RequestEffect>) {
        self.wait_until_ms = None;
        for Waiting { driver_id, .. } in std::mem::take(&mut self.waiting) {
            effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::Release,
            });
        }
    }

    /// Drivers that are still waited for get the (possibly new) wait from the re-POST on.
    pub(super) fn restart_wait(&mut self) {
        if !self.waiting.is_empty() {
            self.wait_until_ms = Some(self.waits_until_ms());
        }
    }

    /// The end of a wait that begins now. It counts from the step that left a place to fill, which is in the log: so a
    /// wait that a restart interrupted has the time it has left.
    fn waits_until_ms(&self) -> UnixMs {
        self.fold.searching_since_ms + u64::from(self.fold.busy_wait_ms)
    }

    pub(super) fn reserved(&mut self, driver_id: DriverId, ask: u32, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        if self.is_stale(&driver_id, ask) {
            return; // Released before it was asked again.
        }
        if !self.wait_is_over(&driver_id, ask) {
            return effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::Release,
            });
        }
        let no_place = self.fold.is_full() || self.fold.is_used_up();
        if self.fold.end.is_some() || no_place || now_ms >= self.fold.deadline_at_ms {
            return effects.push(RequestEffect::Driver {
                driver_id,
                message: ToDriver::Release,
            });
        }
        self.offer(driver_id, now_ms);
        if self.fold.is_full() {
            // Those still waited for stay candidates, for the case that this offer comes to nothing.
            self.stop_waiting(effects);
        }
    }

    pub(super) fn busy(&mut self, driver_id: &DriverId, ask: u32, now_ms: UnixMs, effects: &mut Vec<RequestEffect>) {
        let Some(index) = self.asked(driver_id, ask) else {
            return;
        };
        let until_ms = self.wait_until_ms.unwrap_or_else(|| self.waits_until_ms());
        if until_ms <= now_ms {
            self.waiting.remove(index);
            return self.refuse(driver_id.clone(), RefuseReason::Offered, now_ms);
        }
        self.wait_until_ms = Some(until_ms);
        self.waiting[index].queued = true;
        let message = ToDriver::Wait {
            ask,
            priority: self.fold.priority,
        };
        effects.push(RequestEffect::Driver {
            driver_id: driver_id.clone(),
            message,
        });
    }

    pub(super) fn unavailable(&mut self, driver_id: DriverId, ask: u32, reason: RefuseReason, now_ms: UnixMs) {
        if self.wait_is_over(&driver_id, ask) {
            self.refuse(driver_id, reason, now_ms);
        }
    }

    /// Place of the driver who was asked with this number, among those who are asked or waited for.
    fn asked(&self, driver_id: &DriverId, ask: u32) -> Option<usize> {
        self.waiting
            .iter()
            .position(|waiting| waiting.ask == ask && waiting.driver_id == *driver_id)
    }

    /// Whether this answers an ask that was released, of a driver who has been asked again since.
    fn is_stale(&self, driver_id: &DriverId, ask: u32) -> bool {
        self.waiting
            .iter()
            .any(|waiting| waiting.driver_id == *driver_id && waiting.ask != ask)
    }

    /// The answer of a driver who is asked or waited for has come; says whether it is one. A later wait begins anew.
    fn wait_is_over(&mut self, driver_id: &DriverId, ask: u32) -> bool {
        let Some(index) = self.asked(driver_id, ask) else {
            return false;
        };
        self.waiting.remove(index);
        if !self.waiting.iter().any(|waiting| waiting.queued) {
            self.wait_until_ms = None;
        }
        true
    }
}
