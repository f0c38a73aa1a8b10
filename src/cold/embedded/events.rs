//! The event log's bookkeeping: cursors, chunks, consumers. Belongs to the writer thread; no I/O of its own.
//!
//! Invariants worth naming:
//! - Cursors are given from 1 without gaps; the next one is the last chunk's `next`, and that is stored in the same
//!   batch as the events.
//! - There is always a last chunk, perhaps an empty one, so that the next cursor is never forgotten.
//! - An event is kept until every consumer has acknowledged it, but no longer than the retention and not beyond the size
//!   bound. Without consumers the last two rule alone. Chunks are dropped whole: at most 1/[`CHUNKS`] too late.

use super::keys;
use crate::cold::port::StoreError;
use crate::fsm::types::UnixMs;
use compact_str::CompactString;
use std::collections::{BTreeMap, VecDeque};

/// Chunks per retention, and per size bound.
pub const CHUNKS: u64 = 16;
/// Most consumers that are remembered.
pub const CONSUMERS_MAX: usize = 256;
/// A consumer that acknowledged nothing for this many retentions is forgotten. Two, so that whatever it acknowledged
/// has long gone when it comes back and starts from the oldest kept.
pub const CONSUMER_RETENTIONS: u64 = 2;

/// A range of cursors that is dropped whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its first cursor; names its keyspace.
    pub first: u64,
    /// The cursor after its last event.
    pub next: u64,
    /// Encoded bytes of its events.
    pub bytes: u64,
    /// When it was begun.
    pub opened_ms: UnixMs,
    /// When its newest event came.
    pub touched_ms: UnixMs,
}

impl Chunk {
    const fn begin(first: u64, now: UnixMs) -> Self {
        Self {
            first,
            next: first,
            bytes: 0,
            opened_ms: now,
            touched_ms: now,
        }
    }

    const fn is_empty(&self) -> bool {
        self.next == self.first
    }

    /// As stored under its key.
    pub fn encode(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let parts = [self.next, self.bytes, self.opened_ms, self.touched_ms];
        for (to, from) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(parts) {
            *to = from.to_be_bytes();
        }
        bytes
    }

    /// From its key and value.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<Self> {
        let first = keys::number(key.strip_prefix(&[keys::CHUNK])?)?;
        let [next, bytes, opened_ms, touched_ms] = keys::numbers(value)?;
        (first <= next).then_some(Self {
            first,
            next,
            bytes,
            opened_ms,
            touched_ms,
        })
    }
}

/// Somebody who acknowledges events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// Last event dealt with.
    pub acked: u64,
    /// When it last acknowledged, or first read.
    pub touched_ms: UnixMs,
}

impl Consumer {
    /// As stored under its key.
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.acked.to_be_bytes());
        bytes[8..].copy_from_slice(&self.touched_ms.to_be_bytes());
        bytes
    }

    /// From its key and value.
    pub fn decode(key: &[u8], value: &[u8]) -> Option<(CompactString, Self)> {
        let name = std::str::from_utf8(key.strip_prefix(&[keys::CONSUMER])?).ok()?;
        let [acked, touched_ms] = keys::numbers(value)?;
        Some((CompactString::new(name), Self { acked, touched_ms }))
    }
}

/// Cursors, chunks and consumers.
pub struct EventLog {
    retention_ms: u64,
    bytes_max: u64,
    /// Oldest first; never empty.
    chunks: VecDeque<Chunk>,
    consumers: BTreeMap<CompactString, Consumer>,
    bytes: u64,
    dropped: u64,
}

impl EventLog {
    /// A log as it was stored; a new one when there are no chunks.
    pub fn new(
        retention_ms: u64,
        bytes_max: u64,
        chunks: Vec<Chunk>,
        consumers: BTreeMap<CompactString, Consumer>,
        now: UnixMs,
    ) -> Self {
        let mut chunks = VecDeque::from(chunks);
        if chunks.is_empty() {
            chunks.push_back(Chunk::begin(1, now));
        }
        debug_assert!(chunks.iter().is_sorted_by(|one, next| one.next <= next.first));
        Self {
            retention_ms,
            bytes_max,
            bytes: chunks.iter().map(|chunk| chunk.bytes).sum(),
            chunks,
            consumers,
            dropped: 0,
        }
    }

    /// The chunk that takes the next event.
    pub fn last(&self) -> Chunk {
        *self.chunks.back().expect("there is always a last chunk")
    }

    /// The newest cursor given; 0 when none was.
    pub fn newest(&self) -> u64 {
        self.last().next - 1
    }

    /// The oldest cursor that is kept; one more than the newest when there is none. Acknowledged events stay readable
    /// until their chunk goes, so that a consumer that comes later or starts over finds what there still is.
    pub fn oldest(&self) -> u64 {
        self.chunks.front().map_or(1, |chunk| chunk.first)
    }

    /// The oldest cursor that some consumer still wants.
    fn wanted(&self) -> u64 {
        let wanted = self.consumers.values().map(|consumer| consumer.acked + 1).min();
        wanted.map_or(self.oldest(), |wanted| self.oldest().max(wanted))
    }

    /// Encoded bytes of all kept chunks.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the next event should begin a new chunk.
    pub fn is_last_full(&self, now: UnixMs) -> bool {
        let last = self.last();
        let is_old = now.saturating_sub(last.opened_ms) > self.retention_ms / CHUNKS;
        !last.is_empty() && (last.bytes >= self.bytes_max / CHUNKS || is_old)
    }

    /// Begins a new chunk.
    pub fn roll(&mut self, now: UnixMs) -> Chunk {
        let next = Chunk::begin(self.last().next, now);
        self.chunks.push_back(next);
        next
    }

    /// Gives a cursor to an event of `bytes` encoded bytes.
    pub fn append(&mut self, bytes: usize, now: UnixMs) -> u64 {
        let last = self.chunks.back_mut().expect("there is always a last chunk");
        let cursor = last.next;
        last.next += 1;
        last.bytes += bytes as u64;
        last.touched_ms = now;
        self.bytes += bytes as u64;
        cursor
    }

    /// What a reader named `name` has acknowledged; `None` when it is unknown.
    pub fn acked(&self, name: &str) -> Option<u64> {
        self.consumers.get(name).map(|consumer| consumer.acked)
    }

    /// Remembers `name`, as one that has seen nothing of what is kept.
    ///
    /// # Errors
    /// There are [`CONSUMERS_MAX`] already.
    pub fn register(&mut self, name: &str, now: UnixMs) -> Result<Consumer, StoreError> {
        debug_assert!(!self.consumers.contains_key(name));
        if self.consumers.len() >= CONSUMERS_MAX {
            return Err(StoreError::invalid(format!(
                "there are {CONSUMERS_MAX} consumers already"
            )));
        }
        let consumer = Consumer {
            acked: self.oldest() - 1,
            touched_ms: now,
        };
        self.consumers.insert(CompactString::new(name), consumer);
        Ok(consumer)
    }

    /// Takes an acknowledgement of a known consumer; an older one changes nothing, one beyond the newest event counts as
    /// the newest. Returns how the consumer stands now.
    pub fn ack(&mut self, name: &str, cursor: u64, now: UnixMs) -> Option<Consumer> {
        let newest = self.newest();
        let consumer = self.consumers.get_mut(name)?;
        consumer.acked = consumer.acked.max(cursor.min(newest));
        consumer.touched_ms = consumer.touched_ms.max(now);
        Some(*consumer)
    }

    /// The oldest chunk, when nobody needs it any more. The last chunk is needed while it is not empty and in
    /// retention; the caller begins a new one before it drops the last.
    pub fn droppable(&self, now: UnixMs) -> Option<Chunk> {
        let first = *self.chunks.front()?;
        let is_last = self.chunks.len() == 1;
        let is_old = !first.is_empty() && now.saturating_sub(first.touched_ms) > self.retention_ms;
        if is_last {
            return is_old.then_some(first);
        }
        let is_acked = first.next <= self.wanted();
        (is_old || is_acked || first.is_empty() || self.bytes > self.bytes_max).then_some(first)
    }

    /// Forgets the oldest chunk.
    pub fn drop_oldest(&mut self) {
        assert!(self.chunks.len() > 1, "the last chunk carries the next cursor");
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.bytes;
            let acked = self.consumers.values().map(|consumer| consumer.acked).min();
            // Without consumers nobody misses anything.
            let wanted = acked.map_or(chunk.next, |acked| chunk.first.max(acked + 1));
            self.dropped += chunk.next.saturating_sub(wanted);
        }
    }

    /// Events that have gone, since the log was opened, before every consumer had acknowledged them.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets a consumer that nobody has heard of for long, and returns its name.
    pub fn forget_consumer(&mut self, now: UnixMs) -> Option<CompactString> {
        let silence_max = self.retention_ms.saturating_mul(CONSUMER_RETENTIONS);
        let is_silent = |consumer: &Consumer| now.saturating_sub(consumer.touched_ms) > silence_max;
        let name = self
            .consumers
            .iter()
            .find(|(_, consumer)| is_silent(consumer))?
            .0
            .clone();
        self.consumers.remove(&name);
        Some(name)
    }
}
