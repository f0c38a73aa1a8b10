//! The end of a node, gently: no new work, drivers sent away over `drain_ms` so that their reconnects do not come as
//! one wave, what is under way answered, everything stored.
#![forbid(unsafe_code)]

use super::handover::HandOver;
use super::{Platform, Ring, Shard};
use crate::limits;
use crate::wire::ws::close_code;
use std::sync::atomic::Ordering;

/// How often a draining shard closes a few drivers.
const STEP_MS: u64 = 20;
/// Most of them at once: what else the shard has to do comes in between.
const STEP_DRIVERS_MAX: usize = 512;

/// A drain under way.
pub(super) struct Drain {
    started_ms: u64,
    /// Drivers that were connected at the start and are still to be closed.
    left: Vec<u32>,
    total: usize,
    next_ms: u64,
    /// This shard has sent its drivers away, and said so.
    is_away: bool,
    /// When all shards had.
    all_away_ms: Option<u64>,
    /// This shard has nothing left to do of its own, and said so.
    is_done: bool,
    /// What goes to other nodes.
    pub(super) hand_over: HandOver,
}

impl Drain {
    pub(super) fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// Whether there were drivers to send away.
    pub(super) fn has_sent_away(&self) -> bool {
        self.total > 0
    }
}

impl<P: Platform> Shard<P> {
    /// Begins or goes on with the drain, when the node is draining.
    pub(super) fn drain(&mut self) {
        if self.draining.is_none() {
            if !self.shared.health.is_draining() {
                return;
            }
            let connected = |(key, entry): (usize, &super::drivers::Entry)| entry.conn.map(|_| key as u32);
            let left: Vec<u32> = self.drivers.slab.iter().filter_map(connected).collect();
            let (started_ms, total) = (self.now_ms, left.len());
            self.end_all_waits();
            self.draining = Some(Drain {
                started_ms,
                left,
                total,
                next_ms: started_ms,
                is_away: false,
                all_away_ms: None,
                is_done: false,
                hand_over: HandOver::default(),
            });
            self.announce_leaving();
        }
        let drain_ms = self.config.drain_ms;
        let Some(drain) = &mut self.draining else { return };
        if self.now_ms < drain.next_ms {
            return;
        }
        let elapsed_ms = self.now_ms - drain.started_ms;
        if elapsed_ms >= drain_ms + limits::DRAIN_LATE_MS && !drain.left.is_empty() {
            let left = std::mem::take(&mut drain.left).len();
            tracing::warn!(
                shard = self.index,
                drivers = left,
                "more drivers than could be sent away in drain_ms: these are cut, and reconnect without a time of their own"
            );
        }
        let due = if elapsed_ms >= drain_ms {
            drain.total
        } else {
            (drain.total as u64 * elapsed_ms / drain_ms) as usize
        };
        let (total, left) = (drain.total, drain.left.len());
        let keep = (total - due).min(left);
        let closing = drain.left.split_off(keep.max(left.saturating_sub(STEP_DRIVERS_MAX)));
        let pause_ms = if drain.left.len() > keep { 0 } else { STEP_MS };
        drain.next_ms = self.now_ms + pause_ms;
        self.hand_over_requests();
        for key in closing {
            self.send_away(key, total);
        }
        self.wake_at(self.now_ms + pause_ms);
    }

    /// Seconds until this node has sent everybody away, at least 1: when it is worth to ask again.
    pub(super) fn drain_left_s(&self) -> u64 {
        let started_ms = self.draining.as_ref().map_or(self.now_ms, |drain| drain.started_ms);
        let left_ms = (started_ms + self.config.drain_ms).saturating_sub(self.now_ms);
        left_ms.div_ceil(1000).max(1)
    }

    fn send_away(&mut self, key: u32, total: usize) {
        let Some(conn) = self.drivers.slab.get(key as usize).and_then(|entry| entry.conn) else {
            return;
        };
        let hash = self.drivers.slab[key as usize].driver.id().hash64();
        let reason = format!("retry_after_ms={}", self.retry_after_ms(hash, total));
        self.close_socket(conn, close_code::SERVICE_RESTART, &reason);
    }

    /// Whether this shard has nothing left to do for the node that ends. Its requests and drivers are spoken to by the
    /// drivers and callers of all shards, so none ends before every one has sent its drivers away and is done.
    pub fn is_finished(&mut self) -> bool {
        if self.shared.stop.load(Ordering::Relaxed) {
            return true;
        }
        let (shards, now_ms) = (usize::from(self.shards), self.now_ms);
        let Some(drain) = &mut self.draining else { return false };
        if !drain.left.is_empty() {
            return false;
        }
        if !std::mem::replace(&mut drain.is_away, true) {
            self.shared.away.fetch_add(1, Ordering::AcqRel);
        }
        if self.shared.away.load(Ordering::Acquire) < shards {
            return false;
        }
        // Whoever is late with sending them away has that much less time for the rest.
        let planned_ms = drain.started_ms + self.config.drain_ms;
        let all_away_ms = *drain.all_away_ms.get_or_insert(now_ms);
        let after_ms = now_ms.saturating_sub(planned_ms.min(all_away_ms));
        let away_ms = now_ms - all_away_ms;
        let told = away_ms >= limits::DRAIN_LAST_MS || !self.net.has_output();
        let answered = told && (after_ms >= limits::DRAIN_ANSWERS_MS || !self.connections.is_talking());
        let is_settled = self.durable.is_settled() && self.claims_are_settled();
        let is_handed_over = after_ms >= limits::DRAIN_HAND_OVER_MS || self.has_handed_over(away_ms);
        let Some(drain) = &mut self.draining else { return false };
        let stored = is_settled
            || (after_ms >= limits::DRAIN_STORE_MS && self.durable.writer.is_idle())
            || after_ms >= limits::DRAIN_JOURNAL_MS;
        if !answered || !stored || !is_handed_over {
            return false;
        }
        if !std::mem::replace(&mut drain.is_done, true) {
            self.shared.done.fetch_add(1, Ordering::AcqRel);
            self.log_handed_over();
        }
        self.shared.done.load(Ordering::Acquire) == shards
    }
}
