//! A node that drains: it takes nothing new, says that it is not ready, and tells drivers when to come again.

use super::Witness;
use super::calls::{Call, same};
use super::state::Socket;
use crate::checks::{About, Check};
use crate::codec::Bad;
use crate::ids::Driver;

/// What a drain may take beyond `drain_ms` (protocol.md, section 2: "exits 0 within `drain_ms` + 10 s").
const GRACE_MS: u64 = 10_000;

/// So many closes the network may lose without anybody wondering.
const UNTOLD_MAX: u32 = 3;

/// So many drivers are not told the same moment by chance.
const RETRIES_MIN: usize = 5;

impl Witness {
    /// Whether what is asked at this time meets a node that was told to drain, and knows it.
    fn is_draining_at(&self, at_us: u64) -> bool {
        // Of a fleet it is not seen here which node was asked.
        !self.is_fleet() && self.node.draining && self.node.drained_us + self.expect.order_margin_ms * 1_000 < at_us
    }

    /// `readyz` says that the node takes work.
    pub(super) fn ready_answered(&mut self, call: &Call, body: &str) -> Result<(), Bad> {
        self.check_not_draining(call);
        same(body, "{\"status\":\"ready\"}")
    }

    /// The node that drains has ended, or is asked at the end of the run whether it has.
    pub(super) fn check_drained(&mut self) {
        // Of a fleet it is not kept which node was told when.
        if self.is_fleet() {
            return;
        }
        let took_ms = (self.now_us - self.node.drained_us) / 1_000;
        let most_ms = self.expect.drain_ms + GRACE_MS + self.expect.order_margin_ms;
        if !self.holds(Check::Drains, took_ms <= most_ms) {
            let text = format!(
                "it was told to drain at {}, and took {took_ms} ms so far",
                self.node.drained_us
            );
            self.violate(Check::Drains, About::default(), text);
        }
    }

    /// The node is told to drain: so many drivers may be there, as far as their ends of it say.
    pub(super) fn begin_leaving(&mut self) {
        let (now_us, late_us) = (self.now_us, self.late_ms() * 1_000);
        let drivers = self.drivers.iter();
        let there = drivers.filter(|driver| !driver.sockets.is_empty() || driver.lost_us + late_us >= now_us);
        self.node.leaving = (0, there.count() as u32);
        self.node.retries.clear();
    }

    /// A driver who was there is sent away by a node that drains: not before its turn comes (protocol.md, section 2: "drivers are
    /// closed over `drain_ms`").
    pub(super) fn check_leaving(&mut self, driver: Driver, conn: u32) {
        let since_us = self.node.drained_us;
        // Not by an earlier boot, which a client that reads nothing hears of late.
        let booted_us = self.node.boots.last().map_or(0, |boot| boot.1);
        let was_there = |socket: &mut Socket| socket.welcomed_us > booted_us && socket.welcomed_us < since_us;
        // Of a fleet it is not kept which node was told when.
        if self.is_fleet() || !self.socket(driver, conn).is_some_and(was_there) {
            return;
        }
        self.node.leaving.0 += 1;
        let (left, all) = self.node.leaving;
        let elapsed_ms = (self.now_us - since_us) / 1_000 + 1;
        let in_turn = u64::from(left) * self.expect.drain_ms <= u64::from(all) * elapsed_ms;
        if !self.holds(Check::Drains, in_turn || elapsed_ms > self.expect.drain_ms) {
            let text = format!(
                "{left} of {all} drivers are sent away within {elapsed_ms} ms of {}",
                self.expect.drain_ms
            );
            self.violate(Check::Drains, About::driver(driver), text);
        }
    }

    /// A driver is sent away by a node that drains: all of them do not come again at the same moment (protocol.md, section 1:
    /// "jittered").
    pub(super) fn check_retries(&mut self, driver: Driver, reason: &str) {
        let Some(after_ms) = retry_after_ms(reason) else { return };
        let told = &mut self.node.retries;
        told.retain(|(other, _)| *other != driver);
        told.push((driver, after_ms));
        let count = told.len();
        let differ = told.iter().any(|(_, other_ms)| *other_ms != after_ms);
        if !self.holds(Check::Drains, differ || count < RETRIES_MIN) {
            let text = format!("{count} drivers are sent away, and all are to come again after {after_ms} ms");
            self.violate(Check::Drains, About::driver(driver), text);
        }
    }

    /// The node that drained has ended: drivers who were there hear a close, unless the network loses it.
    pub(super) fn await_closes(&mut self) {
        if self.is_fleet() {
            return; // Not known is whose sockets these are.
        }
        let since_us = self.node.drained_us;
        let margin_us = 3 * self.expect.order_margin_ms * 1_000;
        for socket in self.drivers.iter_mut().flat_map(|driver| &mut driver.sockets) {
            socket.awaits_away = socket.is_well() && socket.welcomed_us + margin_us < since_us;
        }
    }

    /// At the end: a node that drained has told drivers so before it ended.
    pub(super) fn check_sent_away(&mut self) {
        let (told, untold) = self.node.sent_away;
        if !self.holds(Check::Drains, told > 0 || untold < UNTOLD_MAX) {
            let text = format!("{untold} drivers lost their sockets to nodes that drained, and nobody was told");
            self.violate(Check::Drains, About::default(), text);
        }
    }

    /// A call is answered as if the node took work: not by one that drains.
    pub(super) fn check_not_draining(&mut self, call: &Call) {
        if !self.holds(Check::Drains, !self.is_draining_at(call.sent_us)) {
            let text = format!(
                "{:?}, sent at {}, is answered well by a node that drains",
                call.ask, call.sent_us
            );
            self.violate(Check::Drains, self.about(call.ask), text);
        }
    }
}

/// Whether this is the reason of a close by a node that drains: when to come again, within the contract's seconds.
pub(super) fn is_retry_after(reason: &str) -> bool {
    retry_after_ms(reason).is_some_and(|after_ms| (1..=60_000).contains(&after_ms))
}

fn retry_after_ms(reason: &str) -> Option<u64> {
    reason.strip_prefix("retry_after_ms=")?.parse().ok()
}
