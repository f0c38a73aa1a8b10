//! A driver's sockets and its state: connects, losses, silence, shifts.

use super::{CloseCause, Driver, DriverEffect, DriverLimits, ToSocket, without_offer};
use crate::fsm::request::Answer;
use crate::fsm::types::{RefuseReason, UnixMs};

impl Driver {
    pub(super) fn connected(
        &mut self,
        session: u64,
        now_ms: UnixMs,
        limits: &DriverLimits,
        effects: &mut Vec<DriverEffect>,
    ) {
        assert!(session > self.session, "a session grows with every connect");
        if self.session != 0 {
            effects.push(DriverEffect::Close {
                session: self.session,
                cause: CloseCause::Displaced,
            });
        }
        self.session = session;
        self.present = true;
        self.last_heard_ms = now_ms;
        self.forget_old_shift(now_ms, limits, effects);
        let state = self.state();
        effects.push(DriverEffect::Send(ToSocket::Welcome {
            session,
            state,
            trip_id: self.trip_id().cloned(),
        }));
        self.told = without_offer(state);
        self.send_offer(effects);
        effects.push(DriverEffect::Arm {
            at_ms: Some(now_ms + limits.silence_ms_max()),
        });
    }

    /// Of a driver that was away: an end of a shift that is too old does not count, and never will again, whatever the clock of
    /// a later start says.
    pub(super) fn forget_old_shift(&mut self, now_ms: UnixMs, limits: &DriverLimits, effects: &mut Vec<DriverEffect>) {
        if self.off_shift_since_ms != 0 && now_ms.saturating_sub(self.off_shift_since_ms) >= limits.off_shift_memory_ms
        {
            self.off_shift_since_ms = 0;
            effects.push(DriverEffect::OffShift {
                off: false,
                at_ms: now_ms,
            });
        }
    }

    pub(super) fn disconnected(
        &mut self,
        session: u64,
        now_ms: UnixMs,
        limits: &DriverLimits,
        effects: &mut Vec<DriverEffect>,
    ) {
        if session != self.session {
            return; // A displaced socket; the driver has a newer one.
        }
        self.session = 0;
        if let Some(held) = &mut self.held {
            held.delivered = false;
        }
        effects.push(DriverEffect::Arm {
            at_ms: Some(now_ms + limits.driver_ttl_ms),
        });
    }

    pub(super) fn timer(&mut self, now_ms: UnixMs, limits: &DriverLimits, effects: &mut Vec<DriverEffect>) {
        if self.session != 0 {
            let due_ms = self.last_heard_ms + limits.silence_ms_max();
            if now_ms < due_ms {
                return effects.push(DriverEffect::Arm { at_ms: Some(due_ms) });
            }
            let cause = CloseCause::HeartbeatLost;
            effects.push(DriverEffect::Close {
                session: self.session,
                cause,
            });
            return self.disconnected(self.session, now_ms, limits, effects);
        }
        self.present = false;
        self.told = without_offer(self.state());
        self.refuse_queue(RefuseReason::Offline, effects);
        effects.push(DriverEffect::Arm { at_ms: None });
        self.go(effects);
    }

    /// Forgets a driver of whom nothing is left to know.
    pub(super) fn go(&self, effects: &mut Vec<DriverEffect>) {
        if !self.present && self.held.is_none() && self.bound.is_none() && self.queue.is_none() {
            if self.last_heard_ms != 0 {
                effects.push(DriverEffect::Seen {
                    at_ms: self.last_heard_ms,
                });
            }
            effects.push(DriverEffect::Gone);
        }
    }

    pub(super) fn set_state(&mut self, available: bool, now_ms: UnixMs, effects: &mut Vec<DriverEffect>) {
        if available != (self.off_shift_since_ms == 0) {
            self.off_shift_since_ms = if available { 0 } else { now_ms.max(1) };
            effects.push(DriverEffect::OffShift {
                off: !available,
                at_ms: now_ms,
            });
        }
        if self.decline_off_shift(effects) {
            return;
        }
        if self.held.is_some() && !available {
            // Reserved, not offered yet: the state follows in a moment, when the offer is refused.
            return;
        }
        self.tell_state(true, effects);
    }

    /// Who goes off shift does not take the offer; says whether there is one.
    pub(super) fn decline_off_shift(&mut self, effects: &mut Vec<DriverEffect>) -> bool {
        let Some((request_id, attempt, _)) = self.offer().filter(|_| self.off_shift_since_ms != 0) else {
            return false;
        };
        let request_id = request_id.clone();
        if let Some(held) = &mut self.held {
            held.answer = held.answer.or(Some(Answer::OffShift));
        }
        // Asked rather than answered, since this is no message about the attempt: of one that is over it hears the end, once.
        self.ask_request(&request_id, Some(attempt), Some(Answer::OffShift), effects);
        true
    }
}
