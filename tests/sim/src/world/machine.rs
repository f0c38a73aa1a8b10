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
/// Most shards of a simulated node.
pub(super) const SHARDS: usize = 8;

/// A thing that is to happen.
#[derive(Debug)]
pub(super) enum Event {
    /// An actor's timer.
    Timer { actor: u32, token: u64 },
    /// Something arrives at the node's end of a connection.
    Up { link: u32, piece: Piece },
    /// Something arrives at the client's end.
    Down { link: u32, piece: Piece },
    /// A shard turns.
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

/// A place in the queue: time and number of planning, then where the event is.
#[derive(Clone, Copy)]
struct Entry {
    key: u128,
    place: u32,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
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
        other.key.cmp(&self.key)
    }
}

/// Time and what is to happen in it, in the order of time, then of being planned.
#[derive(Default)]
pub(super) struct Agenda {
    pub(super) now_us: u64,
    heap: BinaryHeap<Entry>,
    /// What the heap's entries stand for.
    events: Vec<Option<Event>>,
    vacant: Vec<u32>,
    planned: u64,
    /// When each shard turns next: these move so often that a heap would be full of what is void.
    turns: [Option<u64>; SHARDS],
}

impl Agenda {
    /// Plans `event`; not before now.
    pub(super) fn plan(&mut self, at_us: u64, event: Event) {
        self.planned += 1;
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() as u32 - 1
        });
        self.events[place as usize] = Some(event);
        let at_us = at_us.max(self.now_us);
        self.heap.push(Entry {
            key: u128::from(at_us) << 64 | u128::from(self.planned),
            place,
        });
    }

    /// When a shard turns next.
    pub(super) fn turn_at(&self, shard: u16) -> Option<u64> {
        self.turns[usize::from(shard)]
    }

    /// Plans a shard's next turn, in the place of any that was planned.
    pub(super) fn plan_turn(&mut self, shard: u16, at_us: u64) {
        self.turns[usize::from(shard)] = Some(at_us.max(self.now_us));
    }

    /// No shard turns any more.
    pub(super) fn no_turns(&mut self) {
        self.turns = [None; SHARDS];
    }

    /// The next event up to `until_us`; time goes on to it, or to `until_us` when there is none.
    pub(super) fn next(&mut self, until_us: u64) -> Option<Event> {
        let planned_us = self.heap.peek().map_or(u64::MAX, |entry| (entry.key >> 64) as u64);
        let turns = (0..).zip(&self.turns).filter_map(|(shard, at)| Some(((*at)?, shard)));
        let (turn_us, shard) = turns.min().unwrap_or((u64::MAX, 0));
        let at_us = planned_us.min(turn_us);
        if at_us > until_us {
            self.now_us = self.now_us.max(until_us);
            return None;
        }
        debug_assert!(at_us >= self.now_us, "time does not fall");
        self.now_us = at_us;
        if turn_us < planned_us {
            self.turns[usize::from(shard)] = None;
            return Some(Event::Turn { shard });
        }
        let place = self.heap.pop()?.place;
        self.vacant.push(place);
        self.events[place as usize].take()
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
