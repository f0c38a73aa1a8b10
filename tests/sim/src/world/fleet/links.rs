//! Links between nodes. A connection delivers in order or is cut; letters have numbers and are sent again on the next connection, so
//! that a life of a node gets each letter of a life of another at most once. What the node's own links do about that
//! (`cold/links/net`) is told here again in few words.

mod flight;

use super::Common;
use compact_str::CompactString;
use dispatchd::cold::links::port::{Inbox, NewPeer, PATIENCE, QUEUE_LETTERS_MAX, SILENCE_MAX};
use dispatchd::cold::links::{FromLinks, Peers};
use dispatchd::cold::registry::NodeList;
use dispatchd::wire::link::LinkLetter;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

const PAUSE_MIN_US: u64 = 20_000;
const PAUSE_MAX_US: u64 = 1_000_000;
const SILENCE_US: u64 = SILENCE_MAX.as_micros() as u64;
const WATCH_EVERY_US: u64 = SILENCE_US / 4;
/// How soon TCP sends again what got lost.
const RESEND_US: u64 = 50_000;

/// The processes that live, by node.
#[derive(Default)]
pub(super) struct Lives([Option<Rc<Life>>; crate::world::machine::NODES]);

/// What has come from a node.
#[derive(Clone, Copy, Default)]
struct Received {
    incarnation: u64,
    seq: u64,
    connection: u64,
}

/// A connection that one life has made to another.
struct Connection {
    open: Cell<bool>,
    /// Its number at the receiver, where a newer one ends the others.
    number: u64,
    to: Rc<Life>,
    /// When each letter arrives, and its number.
    flying: RefCell<VecDeque<(u64, u64, LinkLetter)>>,
    is_pumped: Cell<bool>,
    heard_us: Cell<u64>,
}

/// A node that letters go to.
struct Dial {
    node: u8,
    name: CompactString,
    letters: Receiver<Box<LinkLetter>>,
    unacked: VecDeque<LinkLetter>,
    /// The number of the first of them.
    first: u64,
    incarnation: u64,
    has_lost: bool,
    connection: Option<Rc<Connection>>,
    /// How many of the unacknowledged letters were sent on it.
    sent: usize,
    is_dialing: bool,
    failures: u32,
    down_us: u64,
}

/// A process's part in the links.
pub(super) struct Life {
    common: Rc<Common>,
    lives: Rc<RefCell<Lives>>,
    node: u8,
    name: CompactString,
    incarnation: u64,
    shards: u16,
    peers: Arc<Peers>,
    alive: Rc<Cell<bool>>,
    added: RefCell<UnboundedReceiver<NewPeer>>,
    inboxes: RefCell<Vec<Arc<Inbox>>>,
    nodes: RefCell<Arc<NodeList>>,
    received: RefCell<BTreeMap<CompactString, Received>>,
    dials: RefCell<BTreeMap<u16, Dial>>,
}

/// Connections of a node are cut, in both directions.
pub(super) fn cut(lives: &Rc<RefCell<Lives>>, node: u8) {
    let all: Vec<Rc<Life>> = lives.borrow().0.iter().flatten().map(Rc::clone).collect();
    for life in all {
        let peers: Vec<u16> = {
            let dials = life.dials.borrow();
            let touched = dials.iter().filter(|(_, dial)| life.node == node || dial.node == node);
            touched
                .filter(|(_, dial)| dial.connection.is_some())
                .map(|(peer, _)| *peer)
                .collect()
        };
        for peer in peers {
            life.lost(peer);
        }
    }
}

impl Life {
    pub(super) fn begin(
        common: &Rc<Common>,
        lives: &Rc<RefCell<Lives>>,
        (node, name, incarnation, shards): (u8, CompactString, u64, u16),
        alive: &Rc<Cell<bool>>,
    ) -> Rc<Self> {
        let (peers, added) = Peers::new(name.clone());
        let life = Rc::new(Self {
            common: Rc::clone(common),
            lives: Rc::clone(lives),
            node,
            name,
            incarnation,
            shards,
            peers: Arc::new(peers),
            alive: Rc::clone(alive),
            added: RefCell::new(added),
            inboxes: RefCell::default(),
            nodes: RefCell::default(),
            received: RefCell::default(),
            dials: RefCell::default(),
        });
        lives.borrow_mut().0[usize::from(node)] = Some(Rc::clone(&life));
        life
    }

    /// The process is gone.
    pub(super) fn ends(&self) {
        self.lives.borrow_mut().0[usize::from(self.node)] = None;
    }

    pub(super) fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// A shard comes.
    pub(super) fn attach(&self, inbox: Arc<Inbox>) {
        self.inboxes.borrow_mut().push(inbox);
    }

    /// Whether all shards are there; letters for them wait.
    fn is_attached(&self) -> bool {
        self.inboxes.borrow().len() == usize::from(self.shards)
    }

    /// The registry says who is alive.
    pub(super) fn nodes_seen(&self, nodes: &Arc<NodeList>) {
        for node in nodes.nodes().iter().filter(|node| !node.link_address.is_empty()) {
            self.peers.number_of(&node.node_id);
        }
        *self.nodes.borrow_mut() = Arc::clone(nodes);
    }

    fn later(self: &Rc<Self>, after_us: u64, call: impl FnOnce(&Rc<Self>) + 'static) {
        let life = Rc::clone(self);
        self.common.later(after_us, move || {
            if !life.alive.get() {
                return;
            }
            match life.common.paused_us(life.node) {
                0 => call(&life),
                paused_us => life.later(paused_us, call),
            }
        });
    }

    fn tell_all(&self, message: &FromLinks) {
        for inbox in self.inboxes.borrow().iter() {
            inbox.send(message.clone());
        }
    }

    /// Takes what shards have written.
    pub(super) fn go_on(self: &Rc<Self>) {
        if self.common.paused_us(self.node) > 0 {
            return;
        }
        loop {
            let added = self.added.borrow_mut().try_recv();
            let Ok(new) = added else { break };
            let number = new.number;
            self.dials.borrow_mut().insert(number, self.dial_of(new));
            self.dial(number, 0);
        }
        let peers: Vec<u16> = self.dials.borrow().keys().copied().collect();
        for peer in peers {
            {
                let mut dials = self.dials.borrow_mut();
                let Some(dial) = dials.get_mut(&peer) else { continue };
                while dial.unacked.len() < QUEUE_LETTERS_MAX
                    && let Ok(letter) = dial.letters.try_recv()
                {
                    dial.unacked.push_back(*letter);
                }
            }
            self.send(peer);
        }
    }

    fn dial_of(&self, new: NewPeer) -> Dial {
        Dial {
            node: node_of(&new.name),
            name: new.name,
            letters: new.letters,
            unacked: VecDeque::new(),
            first: 1,
            incarnation: 0,
            has_lost: false,
            connection: None,
            sent: 0,
            is_dialing: false,
            failures: 0,
            down_us: self.common.now_us(),
        }
    }

    // ---- the connection that this life makes ---------------------------------------------------------------------

    fn dial(self: &Rc<Self>, peer: u16, pause_us: u64) {
        {
            let mut dials = self.dials.borrow_mut();
            let Some(dial) = dials.get_mut(&peer).filter(|dial| !dial.is_dialing) else {
                return;
            };
            dial.is_dialing = true;
        }
        let way_us = self.common.way_us(&self.common.links, self.common.plan.links_us);
        self.later(pause_us + way_us, move |life| {
            if !life.greets(peer) {
                if let Some(dial) = life.dials.borrow_mut().get_mut(&peer) {
                    dial.is_dialing = false;
                }
                life.lost(peer);
            }
        });
    }

    /// The greeting arrives at the other node; false: nobody hears it.
    fn greets(self: &Rc<Self>, peer: u16) -> bool {
        let (node, name, first) = {
            let dials = self.dials.borrow();
            let Some(dial) = dials.get(&peer) else { return false };
            (dial.node, dial.name.clone(), dial.first)
        };
        let is_listed = {
            let nodes = self.nodes.borrow();
            let listed = nodes.nodes().iter().find(|listed| listed.node_id == name);
            listed.is_some_and(|listed| !listed.link_address.is_empty())
        };
        let target = self.lives.borrow().0[usize::from(node)].clone();
        let Some(target) = target.filter(|_| is_listed) else {
            return false;
        };
        let common = &self.common;
        let hears = common.hears(self.node, node) && common.hears(node, self.node);
        if !hears || common.paused_us(node) > 0 {
            return false;
        }
        let Some(received) = target.greeted(&self.name, self.incarnation, first) else {
            return false;
        };
        let connection = Rc::new(Connection {
            open: Cell::new(true),
            number: received.connection,
            to: target,
            flying: RefCell::default(),
            is_pumped: Cell::new(false),
            heard_us: Cell::new(common.now_us()),
        });
        let way_us = common.way_us(&common.links, common.plan.links_us);
        self.later(way_us, move |life| life.welcomed(peer, connection, received.seq));
        true
    }

    /// A new connection of a node counts from now; `None`: it is that of a process that has a successor.
    fn greeted(self: &Rc<Self>, name: &CompactString, incarnation: u64, first: u64) -> Option<Received> {
        let from = self.peers.number_of(name)?;
        let (received, is_new) = {
            let mut all = self.received.borrow_mut();
            let received = all.entry(name.clone()).or_default();
            if incarnation < received.incarnation {
                return None;
            }
            let is_new = incarnation > received.incarnation;
            if is_new {
                (received.incarnation, received.seq) = (incarnation, 0);
            }
            received.connection += 1;
            received.seq = received.seq.max(first.saturating_sub(1));
            (*received, is_new)
        };
        if is_new {
            self.peers.set_leaving(from, false);
            // Who rests before dialing it again need not.
            let has_none = |dial: &Dial| dial.connection.is_none();
            if self.dials.borrow().get(&from).is_some_and(has_none) {
                self.dial(from, 0);
            }
        }
        Some(received)
    }

    fn welcomed(self: &Rc<Self>, peer: u16, connection: Rc<Connection>, received: u64) {
        let is_new = {
            let mut dials = self.dials.borrow_mut();
            let Some(dial) = dials.get_mut(&peer) else { return };
            dial.is_dialing = false;
            dial.acknowledged(received);
            let incarnation = connection.to.incarnation;
            let is_new = std::mem::take(&mut dial.has_lost) || dial.incarnation != incarnation;
            (dial.incarnation, dial.failures, dial.sent) = (incarnation, 0, 0);
            dial.connection = Some(Rc::clone(&connection));
            is_new
        };
        connection.heard_us.set(self.common.now_us());
        self.peers.set_up(peer, true);
        self.tell_all(&FromLinks::Up { peer, is_new });
        self.send(peer);
        self.watch(peer, connection);
    }

    /// Letters that were not sent on this connection go out.
    fn send(self: &Rc<Self>, peer: u16) {
        let common = &self.common;
        let connection = {
            let mut dials = self.dials.borrow_mut();
            let Some(dial) = dials.get_mut(&peer) else { return };
            let Some(connection) = dial.connection.clone() else {
                return;
            };
            while dial.sent < dial.unacked.len() {
                let seq = dial.first + dial.sent as u64;
                let way_us = common.way_us(&common.links, common.plan.links_us);
                let mut flying = connection.flying.borrow_mut();
                let last_us = flying.back().map_or(0, |(at_us, ..)| *at_us);
                let at_us = last_us.max(common.now_us() + way_us);
                flying.push_back((at_us, seq, dial.unacked[dial.sent].clone()));
                dial.sent += 1;
            }
            connection
        };
        flight::pump(self, peer, &connection);
    }

    /// Looks whether the other end says something; it is asked often.
    fn watch(self: &Rc<Self>, peer: u16, connection: Rc<Connection>) {
        self.later(WATCH_EVERY_US, move |life| {
            if !connection.open.get() {
                return;
            }
            let (common, to) = (&life.common, &connection.to);
            let answers = to.alive.get()
                && common.paused_us(to.node) == 0
                && common.hears(life.node, to.node)
                && common.hears(to.node, life.node);
            if answers {
                connection.heard_us.set(common.now_us());
            }
            if !to.alive.get() || common.now_us() > connection.heard_us.get() + SILENCE_US {
                return life.lost(peer);
            }
            life.watch(peer, connection);
        });
    }

    /// The connection is lost, or was not made.
    fn lost(self: &Rc<Self>, peer: u16) {
        let now_us = self.common.now_us();
        let (was_up, gives_up, pause_us) = {
            let mut dials = self.dials.borrow_mut();
            let Some(dial) = dials.get_mut(&peer) else { return };
            let connection = dial.connection.take();
            if let Some(connection) = &connection {
                connection.open.set(false);
                dial.down_us = now_us;
            }
            dial.failures += 1;
            let is_long = now_us >= dial.down_us + PATIENCE.as_micros() as u64;
            let mut gives_up = is_long && !dial.unacked.is_empty();
            if gives_up {
                dial.first += dial.unacked.len() as u64;
                dial.unacked.clear();
                dial.has_lost = true;
            }
            while is_long && dial.letters.try_recv().is_ok() {
                (gives_up, dial.has_lost) = (true, true);
            }
            let pause_us = (PAUSE_MIN_US << (dial.failures - 1).min(6)).min(PAUSE_MAX_US);
            (connection.is_some(), gives_up, pause_us)
        };
        if was_up {
            self.peers.set_up(peer, false);
            self.tell_all(&FromLinks::Down { peer });
        }
        if gives_up {
            self.tell_all(&FromLinks::Lost { peer });
        }
        let pause_us = self.common.draw((pause_us / 2, pause_us));
        self.dial(peer, pause_us);
    }

    fn acknowledged(&self, peer: u16, received: u64) {
        if let Some(dial) = self.dials.borrow_mut().get_mut(&peer) {
            let gone = dial.acknowledged(received);
            dial.sent = dial.sent.saturating_sub(gone);
        }
    }

    // ---- what arrives --------------------------------------------------------------------------------------------

    /// Whether a letter of a node is new, over this connection; `None`: a newer one is there.
    fn counts(&self, name: &CompactString, connection: u64, seq: u64) -> Option<bool> {
        let mut all = self.received.borrow_mut();
        let received = all.get_mut(name)?;
        if received.connection != connection || seq > received.seq + 1 {
            return None;
        }
        let is_new = seq == received.seq + 1;
        received.seq = received.seq.max(seq);
        Some(is_new)
    }

    fn deliver(&self, from: &str, mut letter: LinkLetter) {
        let Some(from) = self.peers.known(from) else { return };
        assert_eq!(letter.check(), Ok(()), "a node sends what no node takes: {letter:?}");
        if letter == LinkLetter::Leaving {
            return self.peers.set_leaving(from, true);
        }
        letter.arrives_from(from);
        let home = letter.home(self.shards);
        let inboxes = self.inboxes.borrow();
        if let Some(inbox) = home.and_then(|home| inboxes.get(usize::from(home))) {
            let letter = Box::new(letter);
            inbox.send(FromLinks::Letter { from, letter });
        }
    }
}

impl Dial {
    fn acknowledged(&mut self, received: u64) -> usize {
        let mut count = 0;
        while self.first <= received && self.unacked.pop_front().is_some() {
            self.first += 1;
            count += 1;
        }
        count
    }
}

/// The number of the node of this name.
fn node_of(name: &str) -> u8 {
    name.rsplit('-')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}
