//! Sockets that take nothing of what waits for them (`output_stall_ms`), and those that go on again.
//!
//! No timer for a connection: while any connection of the shard has output that did not go out with the turn that made
//! it, one timer of the shard sweeps over those, four times in `output_stall_ms`. An idle shard has none.
#![forbid(unsafe_code)]

use super::connections::{Conn, Linger};
use super::{Platform, Ring};
use super::{Shard, Timer};
use crate::net::{ConnId, limits};
use crate::ops::log::LogKind;
use crate::ops::metrics::ConnectionKind;
use crate::wire::ws::close_code;

impl<P: Platform> Shard<P> {
    /// After a reap: output that is still there did not go out at once.
    pub(super) fn watch_output(&mut self) {
        if !self.sweeping && self.net.has_output() {
            self.sweeping = true;
            self.arm_sweep();
        }
    }

    fn arm_sweep(&mut self) {
        let period_ms = (self.config.output_stall_ms / u64::from(limits::OUTPUT_SWEEPS)).max(1);
        self.wheel.arm(self.now_ms + period_ms, Timer::Sweep.owner());
    }

    /// The time of the sweep has come.
    pub(super) fn sweep_output(&mut self) {
        let mut stalled = Vec::new();
        self.net.sweep_output(&mut stalled);
        for conn in stalled {
            self.stalled(conn);
        }
        self.sweeping = self.net.has_output();
        if self.sweeping {
            self.arm_sweep();
        }
    }

    fn stalled(&mut self, conn: ConnId) {
        let kind = match self.connections.get(conn) {
            Some(Conn::Socket(_)) => {
                self.log(LogKind::SlowConsumer, |suppressed| {
                    tracing::warn!(suppressed, "a driver's socket takes nothing: 4008");
                });
                let (code, reason) = (close_code::SLOW_CONSUMER, "slow consumer");
                return self.close_driver_socket(conn, code, reason, Linger::SlowConsumer);
            }
            Some(Conn::Http(_) | Conn::Leaving(_)) => Some(ConnectionKind::Http),
            Some(Conn::Claiming(_)) => Some(ConnectionKind::Driver),
            Some(Conn::Lingering(_)) => None,
            // Its peer sends no more, and it was to close once its output was taken.
            Some(Conn::None) | None => return self.net.abort(conn),
        };
        self.log(LogKind::SlowConsumer, |suppressed| {
            tracing::info!(suppressed, "an HTTP connection takes nothing of its answers: cut");
        });
        if let Conn::Lingering(lingering) = self.connections.cut(conn, &mut self.wheel) {
            self.wheel.cancel(lingering.timer);
        }
        if let Some(kind) = kind {
            self.count_closed(kind, Linger::SlowConsumer);
        }
        self.net.abort(conn);
    }
}
