//! How long offers and confirmations take, as `/metrics` shows it.
//!
//! Both ends are times of turns, from the clock that all shards share and each reads once in a turn:
//! - It **begins** with the turn that took from the socket what made the request decide: the caller's POST, or the
//!   driver's answer (one over HTTP: the turn of the driver's home that got it); for a timeout, with the turn that fired
//!   it. Looking the id up in the store, the class queue, the journal and all mailboxes are inside. What came while the
//!   request's last decision was on its way to the disk begins when that was there.
//! - It **ends** with the turn in which the kernel had taken every byte of the `OFFER` or `CONFIRMED` (or, when that
//!   showed first, in which the driver acknowledged the offer).
//!
//! A candidate that refused costs time of the offer that follows. Not measured is what waits for somebody else than
//! this node: offers that waited for a busy driver or for a driver's reconnect, and what was resumed after a restart.
#![forbid(unsafe_code)]

use crate::fsm::fold::Outcome;
use crate::fsm::request::{Resumed, ToDriver};
use crate::fsm::types::{LogEntry, Step};
use crate::ops::metrics::ShardMetrics;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Span {
    /// POST → `OFFER`.
    Offer = 1,
    /// Decline or timeout → the next `OFFER`.
    Redispatch = 2,
    /// `ACCEPT` → `CONFIRMED`.
    Confirm = 3,
}

/// A measurement that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) span: Span,
    /// Unix microseconds.
    pub(crate) at_us: u64,
}

/// The beginning of what a decision of a request causes. `before`: that of its last decision.
pub(super) fn begun(decided: &[LogEntry], posted_us: u64, event_us: u64, before: Option<Begun>) -> Option<Begun> {
    let begun = |span, at_us| Some(Begun { span, at_us });
    for entry in decided {
        match &entry.step {
            Step::Received { .. } | Step::Redispatched { .. } => return begun(Span::Offer, posted_us),
            Step::Accepted { .. } => return begun(Span::Confirm, event_us),
            Step::Declined { .. } | Step::TimedOut { .. } => return begun(Span::Redispatch, event_us),
            Step::Refused { .. } => return before,
            _ => {}
        }
    }
    None
}

/// Whether the message to a driver is what the measurement waits for.
pub(super) fn ends(message: &ToDriver, span: Span) -> bool {
    match message {
        ToDriver::Offer { resumed, .. } => *resumed == Resumed::No && span != Span::Confirm,
        ToDriver::Outcome { outcome, again, .. } => !again && *outcome == Outcome::Accepted && span == Span::Confirm,
        _ => false,
    }
}

/// A measurement on its last way, to a driver's socket. Packed, since every driver has room for one: the span in the
/// upper 2 bits, the time in units of 4 µs in the others, which begin anew after 71 minutes; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stopwatch(u32);

const TIME_BITS: u32 = 30;
const TIME_MASK: u32 = (1 << TIME_BITS) - 1;
const UNIT_SHIFT: u32 = 2;

impl Stopwatch {
    pub(super) fn start(begun: Option<Begun>) -> Self {
        match begun {
            Some(Begun { span, at_us }) => Self((span as u32) << TIME_BITS | units(at_us)),
            None => Self(0),
        }
    }

    /// Ends the measurement, if there is one.
    #[inline]
    pub(super) fn stop(&mut self, now_us: u64, metrics: &ShardMetrics) {
        if self.0 == 0 {
            return;
        }
        let Self(begun) = std::mem::take(self);
        let elapsed_us = u64::from(units(now_us).wrapping_sub(begun) & TIME_MASK) << UNIT_SHIFT;
        let histogram = match begun >> TIME_BITS {
            span if span == Span::Offer as u32 => &metrics.offer_latency,
            span if span == Span::Redispatch as u32 => &metrics.redispatch_latency,
            _ => &metrics.confirm_latency,
        };
        histogram.record_us(elapsed_us);
    }
}

fn units(at_us: u64) -> u32 {
    (at_us >> UNIT_SHIFT) as u32 & TIME_MASK
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::ids::DriverId;
    use crate::fsm::types::{Channel, RefuseReason};

    fn check(steps: Vec<Step>, before: Option<Begun>, expect: Option<Begun>) {
        let decided: Vec<LogEntry> = steps.into_iter().map(|step| LogEntry { at_ms: 1, step }).collect();
        assert_eq!(begun(&decided, 10, 20, before), expect);
    }

    #[test]
    fn a_decision_begins_what_its_cause_began() {
        let driver_id = DriverId::parse("d").unwrap();
        let at = |span, at_us| Some(Begun { span, at_us });
        let sent = Step::OfferSent {
            attempt: 2,
            driver_id: driver_id.clone(),
            expires_at_ms: 9,
        };
        let refused = Step::Refused {
            attempt: 1,
            driver_id,
            reason: RefuseReason::Offline,
        };
        let (attempt, channel) = (1, Channel::Http);
        check(vec![Step::Accepted { attempt, channel }], None, at(Span::Confirm, 20));
        check(
            vec![Step::TimedOut { attempt }, sent.clone()],
            None,
            at(Span::Redispatch, 20),
        );
        check(vec![refused, sent.clone()], at(Span::Offer, 7), at(Span::Offer, 7));
        // It waited for a busy driver.
        check(vec![sent], at(Span::Offer, 7), None);
    }

    #[test]
    fn a_stopwatch_measures_once_and_across_the_end_of_its_range() {
        let range_us = u64::from(TIME_MASK + 1) << UNIT_SHIFT;
        for begun_us in [0, 1_772_755_200_000_000, range_us - 4, 3 * range_us - 8] {
            let metrics = ShardMetrics::default();
            let begun = Begun {
                span: Span::Redispatch,
                at_us: begun_us,
            };
            let mut watch = Stopwatch::start(Some(begun));
            watch.stop(begun_us + 1_000, &metrics);
            watch.stop(begun_us + 2_000, &metrics);
            assert_eq!(metrics.redispatch_latency.count(), 1);
            assert_eq!(metrics.redispatch_latency.sum_us(), 1_000);
        }
        let metrics = ShardMetrics::default();
        Stopwatch::start(None).stop(5, &metrics);
        assert_eq!(metrics.offer_latency.count(), 0);
    }
}
