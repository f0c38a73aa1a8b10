//! What the nodes of a fleet share, and their ways to it: tables that are linearizable ([`tables`]), a registry ([`registry`]) and links
//! ([`links`]), each of which takes its time, is away, and loses answers. [`place`] is where a node's owners run, [`member`] all
//! that a process has of the fleet.
//!
//! Everything that happens later is a call that waits in [`Later`]; the world's queue says when its time has come.

mod links;
mod member;
mod place;
mod registry;
mod tables;

pub(super) use member::{Member, Outbox, Who};
pub(super) use tables::{FarTables, merge_rows};

use super::machine::{Agenda, Event, NODES};
use crate::plan::{self, FleetPlan, Plan};
use crate::rng::Rng;
use dispatchd::config::Config;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Of its own, so that nodes that are alone are as they were.
const STREAM: u64 = 1_100_000;
/// Of beats, so that fleets are as they were without them.
const BEATS_STREAM: u64 = 1_100_001;

/// Calls that are to be made later.
#[derive(Default)]
struct Waiting {
    next: u32,
    calls: BTreeMap<u32, Box<dyn FnOnce()>>,
}

/// Until when something is so, simulated microseconds.
type Until = Cell<u64>;

/// A service that nodes share: how it fares at this time.
#[derive(Default)]
struct Weather {
    /// Nobody reaches it.
    away: Until,
    /// A node does not reach it.
    cut: [Until; NODES],
    slow: Until,
    slow_us: Cell<u64>,
}

/// Whose dice are thrown.
#[derive(Clone, Copy)]
enum Dice {
    All,
    Beats,
}

/// Time, dice and the state of all services, shared by everything here.
pub(super) struct Common {
    agenda: RefCell<Agenda>,
    rng: RefCell<Rng>,
    beats_rng: RefCell<Rng>,
    waiting: RefCell<Waiting>,
    plan: FleetPlan,
    config: Config,
    tables: Weather,
    registry: Weather,
    links: Weather,
    /// Also what a node is sent over its links is cut.
    deaf: [Until; NODES],
    lost: Until,
    lost_permille: Cell<u32>,
    /// Until when each node has no CPU.
    paused: [Until; NODES],
}

impl Common {
    fn now_us(&self) -> u64 {
        self.agenda.borrow().now_us()
    }

    fn is_until(&self, until: &Until) -> bool {
        self.now_us() < until.get()
    }

    fn draw(&self, range: (u64, u64)) -> u64 {
        self.draw_of(Dice::All, range)
    }

    fn draw_of(&self, dice: Dice, range: (u64, u64)) -> u64 {
        self.dice(dice).borrow_mut().between(range.0, range.1.max(range.0))
    }

    fn chance(&self, dice: Dice, permille: u32) -> bool {
        self.dice(dice).borrow_mut().chance(permille)
    }

    fn dice(&self, dice: Dice) -> &RefCell<Rng> {
        match dice {
            Dice::All => &self.rng,
            Dice::Beats => &self.beats_rng,
        }
    }

    /// Makes a call when so much time has gone by.
    fn later(&self, after_us: u64, call: impl FnOnce() + 'static) {
        let number = {
            let mut waiting = self.waiting.borrow_mut();
            waiting.next += 1;
            let number = waiting.next;
            waiting.calls.insert(number, Box::new(call));
            number
        };
        let mut agenda = self.agenda.borrow_mut();
        let at_us = agenda.now_us() + after_us;
        agenda.plan(at_us, Event::Call { number });
    }

    /// How long a node has no CPU yet; 0: it has.
    fn paused_us(&self, node: u8) -> u64 {
        self.paused[usize::from(node)].get().saturating_sub(self.now_us())
    }

    /// One way of a node to a service.
    fn way_us(&self, weather: &Weather, range: (u64, u64)) -> u64 {
        self.way_us_of(Dice::All, weather, range)
    }

    fn way_us_of(&self, dice: Dice, weather: &Weather, range: (u64, u64)) -> u64 {
        let slow_us = if self.is_until(&weather.slow) {
            weather.slow_us.get()
        } else {
            0
        };
        self.draw_of(dice, range) + slow_us
    }

    /// Whether a node reaches a service.
    fn reaches(&self, weather: &Weather, node: u8) -> bool {
        !self.is_until(&weather.away) && !self.is_until(&weather.cut[usize::from(node)])
    }

    /// Whether words of a node arrive at another one.
    fn hears(&self, from: u8, to: u8) -> bool {
        self.reaches(&self.links, from) && !self.is_until(&self.deaf[usize::from(to)])
    }
}

/// See the module.
pub(super) struct Fleet {
    common: Rc<Common>,
    tables: Rc<RefCell<tables::Data>>,
    registry: Rc<RefCell<registry::Data>>,
    lives: Rc<RefCell<links::Lives>>,
}

impl Fleet {
    pub(super) fn new(plan: &Plan, shared: &FleetPlan, agenda: &Agenda) -> Self {
        let common = Common {
            agenda: RefCell::new(agenda.of_node(0)),
            rng: RefCell::new(Rng::stream(plan.seed, STREAM)),
            beats_rng: RefCell::new(Rng::stream(plan.seed, BEATS_STREAM)),
            waiting: RefCell::default(),
            plan: shared.clone(),
            config: plan.config.clone(),
            tables: Weather::default(),
            registry: Weather::default(),
            links: Weather::default(),
            deaf: Default::default(),
            lost: Cell::default(),
            lost_permille: Cell::default(),
            paused: Default::default(),
        };
        Self {
            common: Rc::new(common),
            tables: Rc::default(),
            registry: Rc::default(),
            lives: Rc::default(),
        }
    }

    /// Where a balancer sends somebody.
    pub(super) fn any_node(&self) -> u8 {
        let nodes = u64::from(self.common.plan.nodes);
        self.common.rng.borrow_mut().below(nodes) as u8
    }

    /// The time of a call has come.
    pub(super) fn call(&self, number: u32) {
        let call = self.common.waiting.borrow_mut().calls.remove(&number);
        if let Some(call) = call {
            call();
        }
    }

    /// What is shared cannot be reached by a node, or by all, for a while.
    pub(super) fn goes_away(&self, node: u8, what: plan::Shared, by_all: bool, for_us: u64) {
        let common = &self.common;
        let (until_us, place) = (common.now_us() + for_us, usize::from(node));
        match what {
            plan::Shared::Links => {
                common.links.cut[place].set(until_us);
                if by_all {
                    common.deaf[place].set(until_us);
                }
            }
            plan::Shared::Tables if by_all => common.tables.away.set(until_us),
            plan::Shared::Tables => common.tables.cut[place].set(until_us),
            plan::Shared::Registry if by_all => common.registry.away.set(until_us),
            plan::Shared::Registry => common.registry.cut[place].set(until_us),
        }
    }

    /// What is shared is slow for a while.
    pub(super) fn gets_slow(&self, what: plan::Shared, for_us: u64, added_us: u64) {
        let weather = match what {
            plan::Shared::Tables => &self.common.tables,
            plan::Shared::Registry => &self.common.registry,
            plan::Shared::Links => &self.common.links,
        };
        weather.slow.set(self.common.now_us() + for_us);
        weather.slow_us.set(added_us);
    }

    /// Answers of the tables get lost for a while.
    pub(super) fn loses_answers(&self, for_us: u64, permille: u32) {
        self.common.lost.set(self.common.now_us() + for_us);
        self.common.lost_permille.set(permille);
    }

    /// The registry has lost what it had.
    pub(super) fn empties_registry(&self) {
        *self.registry.borrow_mut() = registry::Data::default();
    }

    /// Connections of a node's links are cut.
    pub(super) fn cuts_links(&self, node: u8) {
        links::cut(&self.lives, node);
    }

    /// A node has no CPU for a while.
    pub(super) fn pauses(&self, node: u8, for_us: u64) {
        let until = &self.common.paused[usize::from(node)];
        until.set(until.get().max(self.common.now_us() + for_us));
    }

    /// Nothing goes wrong any more.
    pub(super) fn calms(&self) {
        let common = &self.common;
        for weather in [&common.tables, &common.registry, &common.links] {
            weather.away.set(0);
            weather.slow.set(0);
            weather.cut.iter().for_each(|cut| cut.set(0));
        }
        common.deaf.iter().for_each(|deaf| deaf.set(0));
        common.lost.set(0);
        common.paused.iter().for_each(|paused| paused.set(0));
    }
}
