//! Runs a plan: the event queue, the node, and everything between the node and its clients.
//!
//! [`machine`] holds time and the queue, [`kernel`] the connections, [`ways`] what is on its way over them, [`disk`] the
//! journal's files, [`store`] what stands behind the store port, [`ring`] and [`platform`] what a shard stands on, [`node`]
//! the life of the process, [`faults`] what goes wrong, [`outside`] whose a panic is, [`fleet`] what the nodes of a fleet share.
//! Everything else is the code of the node itself.

mod disk;
mod faults;
mod fleet;
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
use fleet::{Fleet, Member};
use kernel::Told;
use machine::{Agenda, Event, Machine, NODES, Shared};
use node::Node;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Index, IndexMut};
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
    assert!((1..=NODES).contains(&usize::from(plan.nodes())), "1 to 4 nodes");
    let mut world = World::new(plan, actors, observer);
    world.begin();
    while world.bug.is_none() && world.process_next(plan.end_us) {}
    for n in 0..plan.nodes() {
        world.count_reached(n);
    }
    let mut faults = BTreeMap::new();
    for site in &world.sites.0 {
        for (name, count) in &site.faults.counts {
            *faults.entry(*name).or_insert(0) += count;
        }
    }
    let bytes = world.sites.0.iter().map(|site| site.machine.borrow().kernel.bytes);
    Summary {
        digest: world.digest,
        steps: world.steps + world.sites.0.iter().map(|site| site.store.steps).sum::<u64>(),
        bytes: bytes.sum(),
        faults: faults.into_iter().collect(),
        reached: world.reached.iter().map(|(name, count)| (*name, *count)).collect(),
        bug: world.bug.take(),
    }
}

/// A node's machine, and what lives on it.
struct Site {
    machine: Shared,
    store: SimStore,
    /// The process, while there is one.
    node: Option<Node>,
    faults: Faults,
    /// This boot's start is under way, or was killed and has not returned.
    starting: Option<u32>,
    /// The process's part in the fleet, while there is one.
    member: Option<Member>,
}

/// The machines, by node.
struct Sites(Vec<Site>);

impl Index<u8> for Sites {
    type Output = Site;

    fn index(&self, node: u8) -> &Site {
        &self.0[usize::from(node)]
    }
}

impl IndexMut<u8> for Sites {
    fn index_mut(&mut self, node: u8) -> &mut Site {
        &mut self.0[usize::from(node)]
    }
}

/// A run under way.
struct World<'a> {
    plan: &'a Plan,
    agenda: Agenda,
    sites: Sites,
    /// What the nodes share, if they are a fleet.
    fleet: Option<Fleet>,
    actors: Vec<Box<dyn Actor>>,
    observer: &'a mut dyn Observer,
    /// Connections of each actor: at which node, and the number there.
    conns: Vec<BTreeMap<Conn, (u8, u32)>>,
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
        let agenda = Agenda::default();
        let fleet = plan.fleet.as_ref().map(|shared| Fleet::new(plan, shared, &agenda));
        let sites = (0..plan.nodes()).map(|n| {
            let machine = Rc::new(RefCell::new(Machine::new(plan, &agenda, n)));
            Site {
                store: SimStore::new(Rc::clone(&machine), &plan.pace),
                machine,
                node: None,
                faults: Faults::new(plan),
                starting: None,
                member: None,
            }
        });
        Self {
            plan,
            sites: Sites(sites.collect()),
            agenda,
            fleet,
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
        self.agenda.now_us()
    }

    fn plan_event(&mut self, n: u8, at_us: u64, event: Event) {
        self.sites[n].machine.borrow_mut().agenda.plan(at_us, event);
    }

    fn begin(&mut self) {
        let nodes = self.plan.nodes();
        for n in 0..nodes {
            self.plan_event(n, 0, Event::Start);
        }
        for (index, (at_us, _)) in self.plan.faults.iter().enumerate() {
            if *at_us < self.plan.faults_over_us {
                // The time says which node it is for, so that a shrunk run has the same faults at the same nodes.
                let n = (*at_us % u64::from(nodes)) as u8;
                self.plan_event(n, *at_us, Event::Fault { index: index as u32 });
            }
        }
        for n in 0..nodes {
            self.plan_event(n, self.plan.faults_over_us, Event::FaultsOver);
        }
        for actor in 0..self.actors.len() as u32 {
            self.tell(actor, Input::Start);
        }
        self.settle();
    }

    /// Lets the next thing happen, up to `until_us`; false when there is none.
    fn process_next(&mut self, until_us: u64) -> bool {
        let Some((n, event)) = self.agenda.next(until_us) else {
            return false;
        };
        self.process(n, event);
        self.settle();
        true
    }

    fn process(&mut self, n: u8, event: Event) {
        let boot = self.sites[n].machine.borrow().boot;
        match event {
            Event::Timer { actor, token } => self.tell(actor, Input::Timer(token)),
            Event::Up { link } => self.sites[n].machine.borrow_mut().land_up(link),
            Event::Down { link } => self.land_down(n, link),
            Event::Turn { shard } => self.turn(n, shard),
            Event::Written { boot: of, shard } if of == boot => self.written(n, shard),
            Event::Kept { boot: of } if of == boot => {
                self.sites[n].machine.borrow_mut().kept();
                self.stepped(n);
            }
            Event::Stored { boot: of } if of == boot => {
                self.sites[n].store.stored();
                self.stepped(n);
            }
            Event::StoreDue { boot: of } if of == boot => self.sites[n].store.answer_polls(),
            Event::LookedUp { boot: of } if of == boot => {
                self.sites[n].store.looked_up();
                self.stepped(n);
            }
            // Of a process that is gone.
            Event::Written { .. }
            | Event::Kept { .. }
            | Event::Stored { .. }
            | Event::StoreDue { .. }
            | Event::LookedUp { .. } => {}
            Event::Start => self.start(n),
            Event::Fault { index } => self.fault(n, index as usize),
            Event::Relief => self.relief(n),
            Event::Restore => self.restore(n),
            Event::FaultsOver => self.faults_over(n),
            Event::Call { number } => {
                if let Some(fleet) = &self.fleet {
                    fleet.call(number);
                }
            }
        }
    }

    /// After everything that happens: shards for which something happened wake, clients hear what there is.
    fn settle(&mut self) {
        while let Some((actor, conn, told)) = self.told.pop_front() {
            self.tell_of(actor, conn, told);
        }
        for n in 0..self.plan.nodes() {
            self.go_on_in_fleet(n);
            self.wake_shards(n);
        }
    }

    /// What of a node speaks with the others does what there is to do.
    fn go_on_in_fleet(&mut self, n: u8) {
        let Some(mut member) = self.sites[n].member.take() else {
            return;
        };
        match outside::node_does(|| member.go_on()) {
            Ok(()) => self.sites[n].member = Some(member),
            Err(payload) => self.unwound(n, payload.as_ref()),
        }
    }

    fn land_down(&mut self, n: u8, link: u32) {
        let mut machine = self.sites[n].machine.borrow_mut();
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
            Told::Reset => {
                self.conns[actor as usize].remove(&conn);
                self.tell(actor, Input::Reset(conn));
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
            Input::Closed(conn) | Input::Reset(conn) => (6, conn.0.into(), &[]),
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
                // A balancer in front of a fleet gives it to anybody.
                let n = self.fleet.as_ref().map_or(0, Fleet::any_node);
                self.connect(actor, conn, n);
            }
            Action::OpenAt(conn, node) => self.connect(actor, conn, node % self.plan.nodes()),
            Action::Send(conn, bytes) => {
                if let Some((n, link)) = link(self, conn) {
                    self.sites[n].machine.borrow_mut().client_sends(link, bytes);
                }
            }
            Action::HalfClose(conn) => {
                if let Some((n, link)) = link(self, conn)
                    && let Some(told) = self.sites[n].machine.borrow_mut().client_ends(link)
                {
                    self.told.push_back((actor, conn, told));
                }
            }
            Action::Abort(conn) => {
                if let Some((n, link)) = self.conns[actor as usize].remove(&conn) {
                    self.sites[n].machine.borrow_mut().client_aborts(link);
                }
            }
            Action::Stall(conn, stalled) => {
                if let Some((n, link)) = link(self, conn) {
                    let pieces = self.sites[n].machine.borrow_mut().client_stalls(link, stalled);
                    for piece in pieces {
                        if let Some(told) = self.sites[n].machine.borrow_mut().arrive_down(link, piece) {
                            self.told.push_back((actor, conn, told));
                        }
                    }
                }
            }
            Action::Wake { at_us, token } => self.plan_event(0, at_us, Event::Timer { actor, token }),
        }
    }

    fn connect(&mut self, actor: u32, conn: Conn, n: u8) {
        let new = self.sites[n].machine.borrow_mut().connect(actor, conn);
        let old = self.conns[actor as usize].insert(conn, (n, new));
        assert!(old.is_none(), "actor {actor} opens {conn:?} twice");
    }

    /// Tells the observer.
    fn observe(&mut self, n: u8, event: NodeEvent<'_>) {
        let now_us = self.now_us();
        self.note(now_us, 8 << 32, n.into(), format!("{event:?}").as_bytes());
        outside::others_do(|| self.observer.node(n, event, now_us));
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
