//! Runs a plan: the event queue, the node, and everything between the node and its clients.
//!
//! [`machine`] holds time and the queue, [`kernel`] the connections, [`ways`] what is on its way over them, [`disk`] the
//! journal's files, [`store`] what stands behind the store port, [`ring`] and [`platform`] what a shard stands on, [`node`]
//! the life of the process, [`faults`] what goes wrong, [`outside`] whose a panic is. Everything else is the code of the
//! node itself.

mod disk;
mod faults;
mod kernel;
mod machine;
mod node;
pub mod outside;
mod platform;
mod ring;
mod start;
mod store;
mod ways;

use crate::client::{Action, Actor, Conn, Input, NodeEvent, Observer};
use crate::plan::Plan;
use faults::Faults;
use kernel::Told;
use machine::{Event, Machine, Shared};
use node::Node;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use store::SimStore;

/// What a run was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Hash over everything that actors and observer were given, with times. Equal for equal plans and actors.
    pub digest: u64,
    /// Steps of the node: turns, store actions, start steps.
    pub steps: u64,
    /// Bytes that actors sent and got.
    pub bytes: u64,
    /// Faults that took place, by name, in the order of their names: an end of the node counts when it ends, what lasts
    /// when it begins, resets when a connection was reset.
    pub faults: Vec<(&'static str, u64)>,
    /// What of the node's own limits was met, by name: full rings between shards, sockets that were paused, sockets that
    /// took nothing.
    pub reached: Vec<(&'static str, u64)>,
    /// A panic or a broken promise of the node's own code (assertions, overflow), which ends the run; what it said.
    pub bug: Option<String>,
}

/// Runs `plan` with `actors`; `observer` hears what happens to the node. Actors share what they saw with the checker by
/// means of their own.
///
/// # Panics
/// When the plan is no plan (no shards, ranges upside down).
pub fn run(plan: &Plan, actors: Vec<Box<dyn Actor>>, observer: &mut dyn Observer) -> Summary {
    assert!((1..=8).contains(&plan.config.shards), "1 to 8 shards");
    let mut world = World::new(plan, actors, observer);
    world.begin();
    while world.bug.is_none() && world.process_next(plan.end_us) {}
    world.count_reached();
    let machine = world.machine.borrow();
    Summary {
        digest: world.digest,
        steps: world.steps + world.store.steps,
        bytes: machine.kernel.bytes,
        faults: world
            .faults
            .counts
            .iter()
            .map(|(name, count)| (*name, *count))
            .collect(),
        reached: world.reached.iter().map(|(name, count)| (*name, *count)).collect(),
        bug: world.bug.take(),
    }
}

/// A run under way.
struct World<'a> {
    plan: &'a Plan,
    machine: Shared,
    store: SimStore,
    /// The process, while there is one.
    node: Option<Node>,
    faults: Faults,
    /// A start is under way.
    starting: bool,
    actors: Vec<Box<dyn Actor>>,
    observer: &'a mut dyn Observer,
    /// Connections of each actor.
    conns: Vec<BTreeMap<Conn, u32>>,
    /// What actors are still to be told.
    told: VecDeque<(u32, Conn, Told)>,
    actions: Vec<Action>,
    digest: u64,
    steps: u64,
    reached: BTreeMap<&'static str, u64>,
    bug: Option<String>,
}

impl<'a> World<'a> {
    fn new(plan: &'a Plan, actors: Vec<Box<dyn Actor>>, observer: &'a mut dyn Observer) -> Self {
        let machine = Rc::new(RefCell::new(Machine::new(plan)));
        Self {
            plan,
            store: SimStore::new(Rc::clone(&machine), &plan.pace),
            machine,
            node: None,
            faults: Faults::new(plan),
            starting: false,
            conns: actors.iter().map(|_| BTreeMap::new()).collect(),
            actors,
            observer,
            told: VecDeque::new(),
            actions: Vec::new(),
            digest: 0xCBF2_9CE4_8422_2325,
            steps: 0,
            reached: BTreeMap::new(),
            bug: None,
        }
    }

    fn now_us(&self) -> u64 {
        self.machine.borrow().now_us()
    }

    fn plan_event(&mut self, at_us: u64, event: Event) {
        self.machine.borrow_mut().agenda.plan(at_us, event);
    }

    fn begin(&mut self) {
        self.plan_event(0, Event::Start);
        for (index, (at_us, _)) in self.plan.faults.iter().enumerate() {
            if *at_us < self.plan.faults_over_us {
                self.plan_event(*at_us, Event::Fault { index: index as u32 });
            }
        }
        self.plan_event(self.plan.faults_over_us, Event::FaultsOver);
        for actor in 0..self.actors.len() as u32 {
            self.tell(actor, Input::Start);
        }
        self.settle();
    }

    /// Lets the next thing happen, up to `until_us`; false when there is none.
    fn process_next(&mut self, until_us: u64) -> bool {
        let next = self.machine.borrow_mut().agenda.next(until_us);
        let Some(event) = next else { return false };
        self.process(event);
        self.settle();
        true
    }

    fn process(&mut self, event: Event) {
        let boot = self.machine.borrow().boot;
        match event {
            Event::Timer { actor, token } => self.tell(actor, Input::Timer(token)),
            Event::Up { link } => self.machine.borrow_mut().land_up(link),
            Event::Down { link } => self.land_down(link),
            Event::Turn { shard } => self.turn(shard),
            Event::Written { boot: of, shard } if of == boot => self.written(shard),
            Event::Kept { boot: of } if of == boot => {
                self.machine.borrow_mut().kept();
                self.stepped();
            }
            Event::Stored { boot: of } if of == boot => {
                self.store.stored();
                self.stepped();
            }
            Event::StoreDue { boot: of } if of == boot => self.store.answer_polls(),
            Event::LookedUp { boot: of } if of == boot => {
                self.store.looked_up();
                self.stepped();
            }
            // Of a process that is gone.
            Event::Written { .. }
            | Event::Kept { .. }
            | Event::Stored { .. }
            | Event::StoreDue { .. }
            | Event::LookedUp { .. } => {}
            Event::Start => self.start(),
            Event::Fault { index } => self.fault(index as usize),
            Event::Relief => self.relief(),
            Event::Restore => self.restore(),
            Event::FaultsOver => self.faults_over(),
        }
    }

    /// After everything that happens: shards for which something happened wake, clients hear what there is.
    fn settle(&mut self) {
        while let Some((actor, conn, told)) = self.told.pop_front() {
            self.tell_of(actor, conn, told);
        }
        self.wake_shards();
    }

    fn land_down(&mut self, link: u32) {
        let mut machine = self.machine.borrow_mut();
        let told = machine.land_down(link);
        let entry = machine.kernel.link(link);
        let (actor, conn) = (entry.actor, entry.conn);
        drop(machine);
        if let Some(told) = told {
            self.tell_of(actor, conn, told);
        }
    }

    fn tell_of(&mut self, actor: u32, conn: Conn, told: Told) {
        match told {
            Told::Opened => self.tell(actor, Input::Opened(conn)),
            Told::Bytes(bytes) => self.tell(actor, Input::Bytes(conn, &bytes)),
            Told::HalfClosed => self.tell(actor, Input::HalfClosed(conn)),
            Told::Refused => {
                self.conns[actor as usize].remove(&conn);
                self.tell(actor, Input::Refused(conn));
            }
            Told::Closed => {
                self.conns[actor as usize].remove(&conn);
                self.tell(actor, Input::Closed(conn));
            }
        }
    }

    fn tell(&mut self, actor: u32, input: Input<'_>) {
        let now_us = self.now_us();
        let (kind, number, bytes): (u64, u64, &[u8]) = match input {
            Input::Start => (1, 0, &[]),
            Input::Opened(conn) => (2, conn.0.into(), &[]),
            Input::Refused(conn) => (3, conn.0.into(), &[]),
            Input::Bytes(conn, bytes) => (4, conn.0.into(), bytes),
            Input::HalfClosed(conn) => (5, conn.0.into(), &[]),
            Input::Closed(conn) => (6, conn.0.into(), &[]),
            Input::Timer(token) => (7, token, &[]),
        };
        self.note(now_us, kind << 32 | u64::from(actor), number, bytes);
        let mut actions = std::mem::take(&mut self.actions);
        self.actors[actor as usize].on(input, now_us, &mut actions);
        for action in actions.drain(..) {
            self.act(actor, action);
        }
        self.actions = actions;
    }

    fn act(&mut self, actor: u32, action: Action) {
        let link = |world: &Self, conn: Conn| world.conns[actor as usize].get(&conn).copied();
        match action {
            Action::Open(conn) => {
                let new = self.machine.borrow_mut().connect(actor, conn);
                let old = self.conns[actor as usize].insert(conn, new);
                assert!(old.is_none(), "actor {actor} opens {conn:?} twice");
            }
            Action::Send(conn, bytes) => {
                if let Some(link) = link(self, conn) {
                    self.machine.borrow_mut().client_sends(link, bytes);
                }
            }
            Action::HalfClose(conn) => {
                if let Some(link) = link(self, conn)
                    && let Some(told) = self.machine.borrow_mut().client_ends(link)
                {
                    self.told.push_back((actor, conn, told));
                }
            }
            Action::Abort(conn) => {
                if let Some(link) = self.conns[actor as usize].remove(&conn) {
                    self.machine.borrow_mut().client_aborts(link);
                }
            }
            Action::Stall(conn, stalled) => {
                if let Some(link) = link(self, conn) {
                    let pieces = self.machine.borrow_mut().client_stalls(link, stalled);
                    for piece in pieces {
                        if let Some(told) = self.machine.borrow_mut().arrive_down(link, piece) {
                            self.told.push_back((actor, conn, told));
                        }
                    }
                }
            }
            Action::Wake { at_us, token } => self.plan_event(at_us, Event::Timer { actor, token }),
        }
    }

    /// Tells the observer.
    fn observe(&mut self, event: NodeEvent<'_>) {
        let now_us = self.now_us();
        self.note(now_us, 8 << 32, 0, format!("{event:?}").as_bytes());
        outside::others_do(|| self.observer.node(event, now_us));
    }

    /// Adds to the hash of the run.
    fn note(&mut self, now_us: u64, kind: u64, number: u64, bytes: &[u8]) {
        let mut digest = self.digest;
        let mut mix = |word: u64| digest = (digest ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        mix(now_us);
        mix(kind);
        mix(number);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            mix(u64::from_le_bytes(*word));
        }
        for byte in rest {
            mix(u64::from(*byte));
        }
        mix(bytes.len() as u64);
        self.digest = digest;
    }
}
