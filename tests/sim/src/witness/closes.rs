//! Sockets that the node closes: not without a cause, and not none when there is one.

use super::drains::is_retry_after;
use super::state::Socket;
use super::{SLACK_US, Witness};
use crate::checks::{About, Check};
use crate::ids::Driver;

/// Missed heartbeats, in intervals, that close a socket.
const MISSED: u64 = 2;
/// How late the registry may take a node's word for a connect, in microseconds.
const CLAIM_LATE_US: u64 = 1_000_000;

impl Socket {
    /// Something is said on it.
    pub(super) fn note_said(&mut self, now_us: u64) {
        self.said_us.rotate_right(1);
        self.said_us[0] = now_us;
    }

    /// Whether it lives as far as anybody knows: welcomed, read, and closed by nobody.
    pub(super) fn is_well(&self) -> bool {
        self.session.is_some() && !self.stalled && !self.closing
    }
}

impl Witness {
    /// The node closes a socket with this code and reason.
    pub fn socket_closing(&mut self, driver: Driver, conn: u32, code: u16, reason: &str) {
        self.note(About::driver(driver), || {
            format!("d{driver} socket {conn} closed by the node: {code} {reason}")
        });
        let ok = match code {
            4001 => self.may_be_displaced(driver, conn),
            4004 => self.may_be_silent(driver, conn),
            4008 => self.may_be_slow(driver, conn),
            1012 => self.may_be_sent_away(driver, conn) && is_retry_after(reason),
            // The answer to the driver's own close.
            1000 => self.socket(driver, conn).is_none_or(|socket| socket.closing),
            _ => self
                .socket(driver, conn)
                .is_none_or(|socket| socket.earned == Some(code)),
        };
        if !self.holds(Check::Caused, ok) {
            let text = format!("d{driver} was closed with {code} {reason:?} for no reason");
            self.violate(Check::Caused, About::driver(driver), text);
        }
        if code == 1012 {
            self.node.sent_away.0 += 1;
            self.check_leaving(driver, conn);
            self.check_retries(driver, reason);
        }
        self.socket_ends(driver, conn);
    }

    /// The node sends no more on this socket: it has said why before (RFC 6455, section 7.1.1), or ends.
    pub fn socket_left(&mut self, driver: Driver, conn: u32) {
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        let (is_well, opened_us) = (socket.is_well() && !socket.babbled, socket.opened_us);
        let is_wordless = is_well && self.has_lasted_since(opened_us);
        if !self.holds(Check::Caused, !is_wordless) {
            let text = format!("socket {conn} of d{driver} was closed without a word");
            self.violate(Check::Caused, About::driver(driver), text);
        }
    }

    /// The socket is reset: by the network, or like [`Self::socket_left`].
    pub fn socket_reset(&mut self, driver: Driver, conn: u32) {
        if !self.expect.may_reset {
            self.socket_left(driver, conn);
        }
    }

    /// The driver sends no more on this socket, or says that it closes it.
    pub fn socket_quits(&mut self, driver: Driver, conn: u32) {
        self.note(About::driver(driver), || format!("d{driver} leaves socket {conn}"));
        self.socket_ends(driver, conn);
    }

    /// The driver breaks the protocol on this socket, which is to be closed with this code for it.
    pub fn socket_violates(&mut self, driver: Driver, conn: u32, code: u16) {
        self.note(About::driver(driver), || {
            format!("d{driver} socket {conn} breaks the protocol: {code}")
        });
        self.socket_ends(driver, conn);
        let now_us = self.now_us;
        if let Some(socket) = self.socket(driver, conn) {
            (socket.earned, socket.earned_us) = (Some(code), now_us);
        }
    }

    /// At the end: who broke the protocol was closed for it.
    pub(super) fn check_violators(&mut self, driver: Driver) {
        let Some(over_us) = self.calm_since_us() else { return };
        let late_us = 3 * self.expect.order_margin_ms * 1_000 + SLACK_US;
        let now_us = self.now_us;
        let sockets = self.drivers[driver as usize].sockets.iter();
        let lives = |socket: &&Socket| {
            socket.earned.is_some() && !socket.stalled && socket.earned_us.max(over_us) + late_us < now_us
        };
        let alive = sockets.filter(lives).map(|socket| (socket.conn, socket.earned)).next();
        if !self.holds(Check::Caused, alive.is_none()) {
            let text = format!("d{driver} broke the protocol, and its socket is still open: {alive:?}");
            self.violate(Check::Caused, About::driver(driver), text);
        }
    }

    /// The driver says so much at once that what it is answered may be too much: slow is what it then is.
    pub fn socket_babbles(&mut self, driver: Driver, conn: u32) {
        if let Some(socket) = self.socket(driver, conn) {
            socket.babbled = true;
        }
    }

    /// The driver has asked for more than its connection holds, and reads nothing from now on.
    pub fn socket_clogged(&mut self, driver: Driver, conn: u32) {
        let now_us = self.now_us;
        if let Some(socket) = self.socket(driver, conn) {
            socket.clogged_us = now_us;
        }
    }

    /// It reads again: after so long the node has given it up.
    pub fn socket_reads_again(&mut self, driver: Driver, conn: u32) {
        // Four sweeps make a stall, and the first may come at once.
        let patience_ms = 2 * self.expect.output_stall_ms + 3 * self.expect.order_margin_ms;
        let (now_us, booted_us) = (self.now_us, self.node.boots.last().map_or(0, |boot| boot.1));
        if let Some(socket) = self.socket(driver, conn) {
            let clogged_us = std::mem::take(&mut socket.clogged_us);
            let long = clogged_us > booted_us && clogged_us + patience_ms * 1_000 < now_us;
            if long && !socket.closing {
                socket.given_up_us = now_us;
            }
        }
    }

    /// A socket that took nothing for too long is not there any more.
    pub(super) fn check_given_up(&mut self, driver: Driver, conn: u32) {
        let late_us = 3 * self.expect.order_margin_ms * 1_000 + SLACK_US;
        let now_us = self.now_us;
        let Some(socket) = self.socket(driver, conn) else {
            return;
        };
        let since_us = socket.given_up_us;
        let alive = since_us > 0 && !socket.closing && since_us + late_us < now_us;
        if !self.holds(Check::Caused, !alive) {
            let text = format!("d{driver} read nothing for too long until {since_us}, and its socket {conn} is open");
            self.violate(Check::Caused, About::driver(driver), text);
        }
    }

    /// Slow is who does not read, who asks for more than may wait, or whose network is slower than the node's patience.
    fn may_be_slow(&mut self, driver: Driver, conn: u32) -> bool {
        let impatient = self.expect.output_stall_ms <= 2 * self.expect.order_margin_ms;
        impatient
            || self
                .socket(driver, conn)
                .is_none_or(|socket| socket.stalled || socket.babbled)
    }

    fn socket_ends(&mut self, driver: Driver, conn: u32) {
        self.span_ends(driver, conn);
        self.deliveries_noted(driver, conn);
        if let Some(socket) = self.socket(driver, conn) {
            socket.closing = true;
        }
    }

    /// Sent away is who came before a drain ended; the close may be heard after it.
    fn may_be_sent_away(&mut self, driver: Driver, conn: u32) -> bool {
        let node = &self.node;
        let (drains, is_draining) = (node.drains > 0, node.draining || !node.up || self.is_fleet());
        let booted_us = node.boots.last().map_or(0, |boot| boot.1);
        let came_before = |socket: &Socket| socket.opened_us < booted_us;
        drains && (is_draining || self.socket(driver, conn).is_none_or(|socket| came_before(socket)))
    }

    /// Displaced is a socket by another one of its driver that reached the node later: opened later, or welcomed with a
    /// higher session (it may be gone by now), or not heard of yet.
    fn may_be_displaced(&mut self, driver: Driver, conn: u32) -> bool {
        let late_us = 3 * self.expect.order_margin_ms * 1_000;
        let now_us = self.now_us;
        let Some(own) = self.socket(driver, conn) else {
            return true;
        };
        // The session of one that was closed before its welcome is above what there was when it was opened.
        let (number, session) = (own.number, own.session.unwrap_or(own.session_floor));
        let seen = &self.drivers[driver as usize];
        let unheard = |socket: &Socket| socket.conn != conn && socket.session.is_none();
        let lately = seen.unheard_us > 0 && now_us < seen.unheard_us + late_us;
        // The node of one that was welcomed without the registry may have asked that for it; which says so late, and after this one's node.
        let lately = lately || (self.is_fleet() && seen.lost_us > 0 && now_us < seen.lost_us + CLAIM_LATE_US);
        seen.opened > number || seen.session_max > session || seen.sockets.iter().any(unheard) || lately
    }

    /// Silent is a socket on which nothing was said for two heartbeats.
    fn may_be_silent(&mut self, driver: Driver, conn: u32) -> bool {
        let silence_us = MISSED * self.expect.heartbeat_ms * 1_000;
        // A shard's clock stands still during a turn.
        let margin_us = self.expect.order_margin_ms * 1_000;
        let now_us = self.now_us;
        let Some(socket) = self.socket(driver, conn).filter(|socket| !socket.stalled) else {
            return true;
        };
        let lasts = |said_us: u64| now_us + margin_us < said_us + silence_us;
        let spoke = |said_us: &u64| *said_us > 0 && said_us + 3 * margin_us <= now_us && lasts(*said_us);
        !lasts(socket.opened_us) && !socket.said_us.iter().any(spoke)
    }

    /// Something is said on a socket after a silence: it would have been closed if that had been too long.
    pub(super) fn check_silence(&mut self, driver: Driver, conn: u32) {
        let most_us = (MISSED * self.expect.heartbeat_ms + 3 * self.expect.order_margin_ms) * 1_000 + SLACK_US;
        let (now_us, booted_us) = (self.now_us, self.node.boots.last().map_or(0, |boot| boot.1));
        let up = self.node.up;
        let Some(socket) = self.socket(driver, conn).filter(|socket| socket.is_well()) else {
            return;
        };
        let since_us = socket.said_us[0].max(socket.welcomed_us);
        if booted_us > since_us || !up {
            return;
        }
        if !self.holds(Check::Caused, now_us < since_us + most_us) {
            let text = format!("d{driver} said nothing since {since_us}, and its socket {conn} is still open");
            self.violate(Check::Caused, About::driver(driver), text);
        }
    }

    /// At the end: a driver has one socket; older ones were closed when it connected again.
    pub(super) fn check_displaced(&mut self, driver: Driver) {
        let sockets = self.drivers[driver as usize].sockets.iter();
        let late_us = 3 * self.expect.order_margin_ms * 1_000 + SLACK_US;
        let now_us = self.now_us;
        let well = sockets.filter(|socket| socket.is_well() && socket.welcomed_us + late_us < now_us);
        let count = well.count();
        if !self.holds(Check::Caused, count < 2) {
            let text = format!("d{driver} has {count} sockets, and none was displaced");
            self.violate(Check::Caused, About::driver(driver), text);
        }
    }
}
