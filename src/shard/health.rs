//! What the shard can promise now: whether its journal and the store take more, and whether the disk answers.

use super::Shard;
use super::platform::{Platform, Time};
use crate::limits;

impl<P: Platform> Shard<P> {
    /// Whether new work may be promised durability.
    pub(super) fn is_durable(&self) -> bool {
        // In-flight requests must still be able to end when no further segment can be made.
        self.durable.writer.room_bytes() > self.config.journal_segment_bytes / 4
            && self.durable.backlog() < limits::STORE_BACKLOG_MAX
            && self.store_health.is_healthy()
            // Of one node alone what is posted waits with all the rest; in a fleet others take it.
            && (self.claims.is_none() || !self.durable.hangs)
    }

    /// Whether the journal takes more at its present pace.
    pub(super) fn journal_keeps_up(&self) -> bool {
        self.durable.writer.backlog_bytes() < self.config.journal_backlog_bytes_max && self.claims_keep_up()
    }

    pub(super) fn keep_durable(&mut self) {
        self.durable.hangs = self.waits_long_for_disk();
        self.shared.health.set_durable(self.index, self.is_durable());
        self.shared.health.set_stalled(self.index, self.durable.hangs);
    }

    /// Has a write looked at when it should be over, at the latest a moment later.
    pub(super) fn watch_write(&mut self) {
        if self.durable.stall_look_ms <= self.now_ms {
            self.durable.stall_look_ms = self.now_ms + limits::JOURNAL_STALL_MS;
            self.wake_at(self.durable.stall_look_ms);
        }
    }

    /// Whether the disk has not answered for longer than one that works takes: to a write, or to the next segment without which nothing
    /// is written.
    fn waits_long_for_disk(&mut self) -> bool {
        let mut began_us = self.durable.write_started_us;
        if began_us == 0 && self.durable.writer.room_bytes() == 0 {
            began_us = self.durable.creating_since_us;
        }
        if began_us == 0 {
            return false;
        }
        self.watch_write();
        self.clock.now_us().saturating_sub(began_us) >= limits::JOURNAL_STALL_MS * 1_000
    }
}
