//! What all parts of a run share: simulated time, the queue of what is to happen, and the world's dice.

use super::disk::Disk;
use super::kernel::Kernel;
use crate::plan::Plan;
use crate::rng::Rng;
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::rc::Rc;

/// First stream of random numbers that is the world's.
pub(super) const STREAM: u64 = 1_000_000;

/// A thing that is to happen.
#[derive(Debug)]
pub(super) enum Event {
    /// An actor's timer.
    Timer { actor: u32, token: u64 },
    /// Something arrives at the node's end of a connection.
    Up { link: u32, piece: Piece },
    /// Something arrives at the client's end.
    Down { link: u32, piece: Piece },
    /// A shard turns, if that is still its time.
    Turn { shard: u16 },
    /// The write of a shard in this boot is over.
    Written { boot: u32, shard: u16 },
    /// The oldest job of the housekeeper is done.
    Kept { boot: u32 },
    /// The store's batch is durable.
    Stored { boot: u32 },
    /// The store looks whether somebody has waited long enough.
    StoreDue { boot: u32 },
    /// The answer to a lookup is there.
    LookedUp { boot: u32 },
    /// The node is started.
    Start,
    /// A fault begins, by its place in the plan.
    Fault { index: u32 },
    /// A shard gets CPU again, the disk has room again, and so on: conditions are looked at anew.
    Relief,
    /// The flipped bit is restored.
    Restore,
    /// No more faults.
    FaultsOver,
}

/// What travels over a connection.
#[derive(Debug)]
pub(super) enum Piece {
    /// The client wants in; or (down) it is in.
    Open,
    /// Nobody listens.
    Refused,
    /// Bytes.
    Bytes(Vec<u8>),
    /// No more bytes.
    Fin,
    /// The end, at once.
    Reset,
}

struct Entry {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.number) == (other.at_us, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest, so that a heap gives it first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.number).cmp(&(self.at_us, self.number))
    }
}

/// Time and what is to happen in it, in the order of time, then of being planned.
#[derive(Default)]
pub(super) struct Agenda {
    pub(super) now_us: u64,
    heap: BinaryHeap<Entry>,
    planned: u64,
}

impl Agenda {
    /// Plans `event`; not before now.
    pub(super) fn plan(&mut self, at_us: u64, event: Event) {
        self.planned += 1;
        self.heap.push(Entry {
            at_us: at_us.max(self.now_us),
            number: self.planned,
            event,
        });
    }

    /// The next event up to `until_us`; time goes on to it, or to `until_us` when there is none.
    pub(super) fn next(&mut self, until_us: u64) -> Option<Event> {
        if self.heap.peek().is_none_or(|entry| entry.at_us > until_us) {
            self.now_us = self.now_us.max(until_us);
            return None;
        }
        let entry = self.heap.pop()?;
        debug_assert!(entry.at_us >= self.now_us, "time does not fall");
        self.now_us = entry.at_us;
        Some(entry.event)
    }
}

/// Conditions that come and go: until when, simulated microseconds.
#[derive(Default)]
pub(super) struct Weather {
    pub(super) disk_full_until_us: u64,
    pub(super) slow_disk: (u64, u64),
    pub(super) slow_store: (u64, u64),
    pub(super) slow_network: (u64, u64),
    /// The next journal write fails.
    pub(super) write_error: bool,
}

impl Weather {
    /// What a condition `(until, added)` adds now.
    pub(super) fn added(condition: (u64, u64), now_us: u64) -> u64 {
        if now_us < condition.0 { condition.1 } else { 0 }
    }
}

/// See the module.
pub(super) struct Machine {
    pub(super) agenda: Agenda,
    pub(super) rng: Rng,
    pub(super) weather: Weather,
    pub(super) kernel: Kernel,
    pub(super) disk: Disk,
    /// Which boot of the node this is, counted from 1; what an earlier one planned means nothing.
    pub(super) boot: u32,
    /// Shards that something has happened for, a bit each.
    pub(super) woken: u32,
}

pub(super) type Shared = Rc<RefCell<Machine>>;

impl Machine {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            agenda: Agenda::default(),
            rng: Rng::stream(plan.seed, STREAM),
            weather: Weather::default(),
            kernel: Kernel::new(plan),
            disk: Disk::new(plan),
            boot: 0,
            woken: 0,
        }
    }

    pub(super) fn now_us(&self) -> u64 {
        self.agenda.now_us
    }

    /// A duration from the range.
    pub(super) fn draw(&mut self, range: (u64, u64)) -> u64 {
        if range.0 >= range.1 {
            range.0
        } else {
            self.rng.between(range.0, range.1)
        }
    }

    pub(super) fn wake(&mut self, shard: u16) {
        self.woken |= 1 << shard;
    }
}
