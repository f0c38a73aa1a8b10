//! What all parts of a run share: simulated time, the queue of what is to happen, and the world's dice.

use super::disk::Disk;
use super::kernel::Kernel;
use crate::plan::Plan;
use crate::rng::Rng;
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Deref;
use std::rc::Rc;

/// First stream of random numbers that is the world's.
pub(super) const STREAM: u64 = 1_000_000;
/// Most shards of a simulated node.
pub(super) const SHARDS: usize = 8;
/// Most nodes.
pub(super) const NODES: usize = 4;

/// A thing that is to happen.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// An actor's timer.
    Timer { actor: u32, token: u64 },
    /// The first of what is on its way arrives at the node's end of a connection.
    Up { link: u32 },
    /// The first of what is on its way arrives at the client's end.
    Down { link: u32 },
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
    /// What a fleet shares goes on: what waits under this number.
    Call { number: u32 },
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
    Bytes(Chunk),
    /// No more bytes.
    Fin,
    /// The end, at once.
    Reset,
}

/// Bytes that travel together; those that were cut out of a longer piece share its memory.
#[derive(Debug)]
pub(super) enum Chunk {
    /// All that was sent.
    Whole(Vec<u8>),
    /// From the first place to the second one, which is not part of it.
    Part(Rc<[u8]>, u32, u32),
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes,
            Self::Part(bytes, from, to) => &bytes[*from as usize..*to as usize],
        }
    }
}

/// A place in the queue, as one number so that the heap compares it at once: the time, the number of planning, and where
/// the event is.
type Entry = Reverse<u128>;

/// Bits of an entry that say where the event is, and of those above them that count what was planned.
const PLACE_BITS: u32 = 24;
const PLANNED_BITS: u32 = 64 - PLACE_BITS;

fn entry(at_us: u64, planned: u64, place: u32) -> Entry {
    debug_assert!(planned < 1 << PLANNED_BITS && place < 1 << PLACE_BITS);
    let low = planned << PLACE_BITS | u64::from(place);
    Reverse(u128::from(at_us) << 64 | u128::from(low))
}

/// A node's end of the queue that all share.
#[derive(Clone, Default)]
pub(super) struct Agenda {
    queue: Rc<RefCell<Queue>>,
    node: u8,
}

/// Time and what is to happen in it, in the order of time, then of being planned.
struct Queue {
    now_us: u64,
    heap: BinaryHeap<Entry>,
    /// What the heap's entries stand for, and at which node.
    events: Vec<Option<(u8, Event)>>,
    vacant: Vec<u32>,
    planned: u64,
    /// What comes before all that the heap has; it is due at once.
    at_once: Option<(u8, Event)>,
    /// When each shard of each node turns next, or `NEVER`: these move so often that a heap would be full of what is void.
    turns: [u64; NODES * SHARDS],
    /// The first of them.
    turn_us: u64,
}

const NEVER: u64 = u64::MAX;

impl Default for Queue {
    fn default() -> Self {
        Self {
            now_us: 0,
            heap: BinaryHeap::new(),
            events: Vec::new(),
            vacant: Vec::new(),
            planned: 0,
            at_once: None,
            turns: [NEVER; NODES * SHARDS],
            turn_us: NEVER,
        }
    }
}

impl Agenda {
    /// Another node's end.
    pub(super) fn of_node(&self, node: u8) -> Self {
        Self {
            queue: Rc::clone(&self.queue),
            node,
        }
    }

    /// Simulated microseconds.
    pub(super) fn now_us(&self) -> u64 {
        self.queue.borrow().now_us
    }

    /// Plans `event`; not before now.
    pub(super) fn plan(&mut self, at_us: u64, event: Event) {
        let mut queue = self.queue.borrow_mut();
        let planned = queue.number();
        queue.plan_numbered(at_us, planned, (self.node, event));
    }

    /// The number of what is planned now and queued by somebody else, who gives it to [`Self::plan_numbered`] or
    /// [`Self::go_on`] when its turn comes.
    pub(super) fn number(&mut self) -> u64 {
        self.queue.borrow_mut().number()
    }

    /// Plans what follows `after`, the number of what happens now.
    pub(super) fn go_on(&mut self, after: u64, at_us: u64, planned: u64, event: Event) {
        let mut queue = self.queue.borrow_mut();
        if at_us == queue.now_us && planned == after + 1 && queue.at_once.is_none() {
            // Nothing can come between the two.
            queue.at_once = Some((self.node, event));
        } else {
            queue.plan_numbered(at_us, planned, (self.node, event));
        }
    }

    /// Whether what was planned by [`Self::go_on`] comes before everything else; who asks does it.
    pub(super) fn take_at_once(&mut self) -> bool {
        self.queue.borrow_mut().at_once.take().is_some()
    }

    /// As [`Self::plan`], with a number that was drawn before.
    pub(super) fn plan_numbered(&mut self, at_us: u64, planned: u64, event: Event) {
        let event = (self.node, event);
        self.queue.borrow_mut().plan_numbered(at_us, planned, event);
    }

    fn place_of(&self, shard: u16) -> usize {
        usize::from(self.node) * SHARDS + usize::from(shard)
    }

    /// When a shard turns next.
    pub(super) fn turn_at(&self, shard: u16) -> Option<u64> {
        let at_us = self.queue.borrow().turns[self.place_of(shard)];
        (at_us != NEVER).then_some(at_us)
    }

    /// Plans a shard's next turn, in the place of any that was planned.
    pub(super) fn plan_turn(&mut self, shard: u16, at_us: u64) {
        let place = self.place_of(shard);
        let mut queue = self.queue.borrow_mut();
        let at_us = at_us.max(queue.now_us);
        queue.set_turn(place, at_us);
    }

    /// No shard of this node turns any more.
    pub(super) fn no_turns(&mut self) {
        let mut queue = self.queue.borrow_mut();
        for shard in 0..SHARDS {
            queue.set_turn(usize::from(self.node) * SHARDS + shard, NEVER);
        }
    }

    /// The next event up to `until_us` and its node; time goes on to it, or to `until_us` when there is none.
    pub(super) fn next(&mut self, until_us: u64) -> Option<(u8, Event)> {
        self.queue.borrow_mut().next(until_us)
    }
}

impl Queue {
    fn number(&mut self) -> u64 {
        self.planned += 1;
        self.planned
    }

    fn plan_numbered(&mut self, at_us: u64, planned: u64, event: (u8, Event)) {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() as u32 - 1
        });
        self.events[place as usize] = Some(event);
        self.heap.push(entry(at_us.max(self.now_us), planned, place));
    }

    fn set_turn(&mut self, place: usize, at_us: u64) {
        self.turns[place] = at_us;
        self.turn_us = self.turns.iter().fold(NEVER, |first, at_us| first.min(*at_us));
    }

    fn next(&mut self, until_us: u64) -> Option<(u8, Event)> {
        if self.at_once.is_some() && self.now_us <= until_us {
            return self.at_once.take();
        }
        let planned_us = self.heap.peek().map_or(NEVER, |entry| (entry.0 >> 64) as u64);
        let turn_us = self.turn_us;
        let at_us = planned_us.min(turn_us);
        if at_us > until_us {
            self.now_us = self.now_us.max(until_us);
            return None;
        }
        debug_assert!(at_us >= self.now_us, "time does not fall");
        self.now_us = at_us;
        if turn_us < planned_us {
            let place = self.turns.iter().position(|at_us| *at_us == turn_us)?;
            self.set_turn(place, NEVER);
            let (node, shard) = ((place / SHARDS) as u8, (place % SHARDS) as u16);
            return Some((node, Event::Turn { shard }));
        }
        let place = self.heap.pop()?.0 as u32 & ((1 << PLACE_BITS) - 1);
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
    /// The next journal write fails; how long the node stays down after the end that it then makes.
    pub(super) write_error: Option<u64>,
    /// It stores a part and says so, instead of an error.
    pub(super) write_short: bool,
    /// It has failed; the same.
    pub(super) write_failed: Option<u64>,
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
    /// How many things its shards have done whose order counts.
    orders: u64,
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
    /// The machine of a node.
    pub(super) fn new(plan: &Plan, agenda: &Agenda, node: u8) -> Self {
        Self {
            agenda: agenda.of_node(node),
            rng: Rng::stream(plan.seed, STREAM + u64::from(node)),
            orders: 0,
            weather: Weather::default(),
            kernel: Kernel::new(plan),
            disk: Disk::new(plan),
            boot: 0,
            woken: 0,
        }
    }

    pub(super) fn now_us(&self) -> u64 {
        self.agenda.now_us()
    }

    /// A number for the next thing that a shard does.
    pub(super) fn next_order(&mut self) -> u64 {
        self.orders += 1;
        self.orders
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
