//! Whether the node is alive and takes work, as every shard sees it.
//!
//! Two facts: the phase of the node's life, set by whoever starts and stops it, and which shards cannot make anything
//! durable. Written rarely, read by every request: one relaxed load decides.
#![forbid(unsafe_code)]

use crate::limits::SHARDS_MAX;
use crate::wire::respond::Reply;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What `GET /readyz` answers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// The process is setting itself up.
    Starting,
    /// Journals are read and requests resumed.
    Recovering,
    /// Takes work.
    Ready,
    /// Takes no more work: SIGTERM came.
    Draining,
    /// Lives, but cannot store: the disk is full, or Cassandra is away.
    NotDurable,
}

impl Readiness {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Recovering,
        Self::Ready,
        Self::Draining,
        Self::NotDurable,
    ];

    /// The name in `/readyz`, `/metrics` and problem codes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Recovering => "recovering",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::NotDurable => "not_durable",
        }
    }
}

/// The answer of `GET /healthz`, which only a process that is dead does not give.
pub fn alive() -> Reply {
    Reply::json(200, br#"{"status":"alive"}"#.to_vec())
}

/// The answer of `GET /readyz`.
pub fn ready(readiness: Readiness) -> Reply {
    match readiness {
        Readiness::Ready => Reply::json(200, br#"{"status":"ready"}"#.to_vec()),
        other => Reply::problem(503, other.as_str(), why_not(other).to_owned()),
    }
}

/// For people, who have to do something or to wait.
const fn why_not(readiness: Readiness) -> &'static str {
    match readiness {
        Readiness::Starting => "the node is starting",
        Readiness::Recovering => "the node reads its journal and takes work when it is done",
        Readiness::Ready => "the node takes work",
        Readiness::Draining => "the node is stopping and takes no new work",
        Readiness::NotDurable => {
            "nothing new can be stored: less than disk_reserve_bytes is free on the disk, or Cassandra does not answer or is far behind"
        }
    }
}

/// The phases of a node's life; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The process is setting itself up.
    Starting,
    /// Journals are read and requests resumed.
    Recovering,
    /// Takes work.
    Serving,
    /// Takes no more work.
    Draining,
}

const PHASES: [Phase; 4] = [Phase::Starting, Phase::Recovering, Phase::Serving, Phase::Draining];
const WORD_BITS: usize = u64::BITS as usize;

/// The node's health, shared by all its threads.
#[derive(Debug)]
pub struct Health {
    phase: AtomicU8,
    /// A bit per shard that cannot store.
    not_durable: Bits,
    /// A bit per shard whose disk does not answer.
    stalled: Bits,
}

/// A bit per shard.
#[derive(Debug)]
struct Bits([AtomicU64; SHARDS_MAX / WORD_BITS]);

impl Bits {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; _])
    }

    /// # Panics
    /// When `shard` is beyond [`SHARDS_MAX`].
    fn set(&self, shard: u16, value: bool) {
        let (word, bit) = (
            usize::from(shard) / WORD_BITS,
            1_u64 << (usize::from(shard) % WORD_BITS),
        );
        // All shards ask many times in a second, and it changes seldom.
        match (self.0[word].load(Ordering::Relaxed) & bit != 0, value) {
            (false, true) => drop(self.0[word].fetch_or(bit, Ordering::AcqRel)),
            (true, false) => drop(self.0[word].fetch_and(!bit, Ordering::AcqRel)),
            (true, true) | (false, false) => {}
        }
    }

    fn any(&self) -> bool {
        self.0.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Starting, every shard durable.
    pub const fn new() -> Self {
        Self {
            phase: AtomicU8::new(Phase::Starting as u8),
            not_durable: Bits::new(),
            stalled: Bits::new(),
        }
    }

    /// The node's phase.
    pub fn phase(&self) -> Phase {
        PHASES[usize::from(self.phase.load(Ordering::Acquire))]
    }

    /// Moves on to `phase`; a phase that is already past is ignored, so that a drain during recovery stays one.
    /// Returns whether this call moved it.
    pub fn advance(&self, phase: Phase) -> bool {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel) < phase as u8
    }

    /// Whether SIGTERM came.
    pub fn is_draining(&self) -> bool {
        self.phase() == Phase::Draining
    }

    /// A shard lost, or got back, the ability to store.
    ///
    /// # Panics
    /// When `shard` is beyond [`SHARDS_MAX`].
    pub fn set_durable(&self, shard: u16, durable: bool) {
        self.not_durable.set(shard, !durable);
    }

    /// A shard has waited for its disk longer than one that works takes, or no longer does.
    ///
    /// # Panics
    /// When `shard` is beyond [`SHARDS_MAX`].
    pub fn set_stalled(&self, shard: u16, stalled: bool) {
        self.stalled.set(shard, stalled);
    }

    /// Whether a shard's disk does not answer: what is open on this node stands still.
    pub fn is_stalled(&self) -> bool {
        self.stalled.any()
    }

    /// What the node would tell a load balancer: a drain before anything, then what startup lacks, then the disk.
    pub fn readiness(&self) -> Readiness {
        match self.phase() {
            Phase::Starting => Readiness::Starting,
            Phase::Recovering => Readiness::Recovering,
            Phase::Draining => Readiness::Draining,
            Phase::Serving if self.not_durable.any() || self.is_stalled() => Readiness::NotDurable,
            Phase::Serving => Readiness::Ready,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_only_advance_and_a_drain_wins() {
        let health = Health::new();
        assert_eq!(health.readiness(), Readiness::Starting);
        assert!(health.advance(Phase::Recovering));
        assert_eq!(health.readiness(), Readiness::Recovering);
        assert!(health.advance(Phase::Serving));
        health.set_durable(0, false);
        health.set_durable(1023, false);
        assert_eq!(health.readiness(), Readiness::NotDurable);
        health.set_durable(0, true);
        assert_eq!(health.readiness(), Readiness::NotDurable);
        health.set_durable(1023, true);
        assert_eq!(health.readiness(), Readiness::Ready);
        health.set_stalled(63, true);
        assert_eq!(health.readiness(), Readiness::NotDurable);
        health.set_stalled(63, false);
        assert_eq!(health.readiness(), Readiness::Ready);
        assert!(health.advance(Phase::Draining));
        assert!(!health.advance(Phase::Serving));
        health.set_durable(5, false);
        assert_eq!(health.readiness(), Readiness::Draining);
        assert!(health.is_draining());
    }
}
