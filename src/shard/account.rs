//! The account of a shard's memory and slots: what its tables take, by kind. Looked at once a second, since sums over
//! tables are no work for every turn.
#![forbid(unsafe_code)]

use super::Shard;
use super::http::Http;
use super::{Platform, Ring};
use crate::ops::metrics::{ConnectionKind, MemoryKind};
use std::collections::VecDeque;

/// Time between two looks; an idle shard wakes as often for other reasons.
const EVERY_MS: u64 = 1_000;

/// Entries that a queue may have room for without a reason.
const QUEUE_KEPT: usize = 256;

/// Gives back the room of a queue that has become far shorter than it was.
pub(super) fn trim<T>(queue: &mut VecDeque<T>) {
    if queue.capacity() > QUEUE_KEPT.max(4 * queue.len()) {
        queue.shrink_to(QUEUE_KEPT.max(2 * queue.len()));
    }
}

impl<P: Platform> Shard<P> {
    /// Writes the account, when it is time.
    pub(super) fn account_memory(&mut self) {
        if self.now_ms < self.account_at_ms {
            return;
        }
        self.account_at_ms = self.now_ms + EVERY_MS;
        self.net.trim();
        self.drivers.trim();
        trim(&mut self.connections.pending);
        if self.asks.is_empty() && self.asks.capacity() > QUEUE_KEPT {
            self.asks.shrink_to_fit();
        }
        let (metrics, net) = (self.metrics(), self.net.bytes());
        metrics.ring_slots.set(u64::from(self.net.connections()));
        let https = metrics.connections.of(ConnectionKind::Http).get() as usize;
        let connections = self.connections.bytes() + net.slots + https * size_of::<Http>();
        for (kind, bytes) in [
            (MemoryKind::Drivers, self.drivers.bytes()),
            (MemoryKind::Requests, self.requests.bytes()),
            (MemoryKind::Connections, connections),
            (MemoryKind::Timers, self.wheel.bytes()),
            (MemoryKind::OutputBuffers, net.output),
            (MemoryKind::ReceiveBuffers, net.recv),
        ] {
            metrics.memory.of(kind).set(bytes as u64);
        }
    }
}
