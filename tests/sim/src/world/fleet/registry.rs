//! The registry: where each driver is, and which nodes are alive; and a node's connection to it. What the scripts in Redis do, and what the
//! node's thread makes of a connection that is lost, is told here again in few words.

mod data;

pub(super) use data::Data;

use super::Common;
use compact_str::CompactString;
use data::Written;
use dispatchd::cold::registry::port::{Batch, Inbox, LookupReply, Presence, Reply};
use dispatchd::cold::registry::{Claim, Found, FromRegistry, Line, Lookup, NodeList, NodeSeen};
use dispatchd::fsm::ids::{DriverId, home_shard};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use tokio::sync::mpsc::Receiver;

const PAUSE_MIN_US: u64 = 50_000;
const PAUSE_MAX_US: u64 = 1_000_000;
const NOTICE_EVERY_US: u64 = 50_000;
/// What waits for an answer; dropped, it is answered that the registry cannot say.
enum Pending {
    Claim(Reply, DriverId),
    Lookup(LookupReply),
    Lines(Arc<Inbox>, Vec<Line>),
    Sign,
    Tell,
}

/// What is known of the lease before the node serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseWord {
    Unsaid,
    Said,
}

struct State {
    /// The number of the connection; 0: there is none.
    connection: u64,
    connections: u64,
    failures: u32,
    generation: u64,
    pending: BTreeMap<u64, Pending>,
    next: u64,
    /// Commands of one connection arrive in their order, and so do answers.
    there_us: u64,
    back_us: u64,
    nodes: Arc<NodeList>,
    lapsed: BTreeSet<CompactString>,
    settles_us: u64,
    refills_us: u64,
    notices: BTreeMap<CompactString, Vec<(DriverId, u64)>>,
    word: LeaseWord,
}

/// What a node's end is made of.
pub(super) struct Ends {
    pub(super) claims: Receiver<(Reply, Claim)>,
    pub(super) batches: Receiver<Batch>,
    pub(super) lookups: Receiver<(LookupReply, Lookup)>,
    pub(super) presence: Arc<Presence>,
}

/// Hears who is alive.
type OnNodes = Box<dyn Fn(&Arc<NodeList>)>;

/// A node's connection, in one life of it.
pub(super) struct Client {
    common: Rc<Common>,
    data: Rc<RefCell<Data>>,
    node: u8,
    name: CompactString,
    boot: u64,
    alive: Rc<Cell<bool>>,
    ends: RefCell<Ends>,
    inboxes: RefCell<Vec<Arc<Inbox>>>,
    /// What the node says of itself.
    sign: Box<dyn Fn() -> NodeSeen>,
    on_nodes: OnNodes,
    state: RefCell<State>,
}

impl Client {
    pub(super) fn start(
        common: &Rc<Common>,
        data: &Rc<RefCell<Data>>,
        (node, name, boot): (u8, CompactString, u64),
        alive: &Rc<Cell<bool>>,
        ends: Ends,
        sign: Box<dyn Fn() -> NodeSeen>,
        on_nodes: OnNodes,
    ) -> Rc<Self> {
        let client = Rc::new(Self {
            common: Rc::clone(common),
            data: Rc::clone(data),
            node,
            name,
            boot,
            alive: Rc::clone(alive),
            ends: RefCell::new(ends),
            inboxes: RefCell::default(),
            sign,
            on_nodes,
            state: RefCell::new(State {
                connection: 0,
                connections: 0,
                failures: 0,
                generation: 0,
                pending: BTreeMap::new(),
                next: 0,
                there_us: 0,
                back_us: 0,
                nodes: Arc::default(),
                lapsed: BTreeSet::new(),
                settles_us: 0,
                refills_us: 0,
                notices: BTreeMap::new(),
                word: LeaseWord::Unsaid,
            }),
        });
        client.connect();
        client.keep_signing();
        client
    }

    /// A shard comes.
    pub(super) fn attach(&self, inbox: Arc<Inbox>) {
        inbox.send(FromRegistry::Nodes(Arc::clone(&self.state.borrow().nodes)));
        self.inboxes.borrow_mut().push(inbox);
    }

    /// Whether it is known whether there is a registry.
    pub(super) fn has_said(&self) -> bool {
        self.state.borrow().word == LeaseWord::Said
    }

    /// Calls when so much time has gone by, if the process lives then; one that is paused, when it goes on.
    fn later(self: &Rc<Self>, after_us: u64, call: impl FnOnce(&Rc<Self>) + 'static) {
        let client = Rc::clone(self);
        self.common.later(after_us, move || {
            if !client.alive.get() {
                return;
            }
            match client.common.paused_us(client.node) {
                0 => call(&client),
                paused_us => client.later(paused_us, call),
            }
        });
    }

    fn is_reachable(&self) -> bool {
        self.common.reaches(&self.common.registry, self.node)
    }

    // ---- the connection ------------------------------------------------------------------------------------------

    fn connect(self: &Rc<Self>) {
        let pause_us = {
            let state = self.state.borrow();
            (PAUSE_MIN_US << state.failures.min(8)).min(PAUSE_MAX_US)
        };
        let pause_us = self.common.draw((pause_us / 2, pause_us));
        self.later(pause_us, |client| {
            if client.is_reachable() {
                {
                    let mut state = client.state.borrow_mut();
                    state.connections += 1;
                    state.connection = state.connections;
                    state.settles_us = client.common.now_us() + client.lease_us();
                    state.refills_us = 0;
                    (state.there_us, state.back_us) = (0, 0);
                }
                client.say_life();
            } else {
                client.lost();
            }
        });
    }

    /// The connection is of no use any more, or could not be made.
    fn lost(self: &Rc<Self>) {
        let dropped = {
            let mut state = self.state.borrow_mut();
            state.connection = 0;
            state.failures += 1;
            state.word = LeaseWord::Said;
            state.notices.clear();
            std::mem::take(&mut state.pending)
        };
        self.present(0);
        drop(dropped);
        self.connect();
    }

    fn present(&self, generation: u64) {
        self.ends.borrow().presence.set(generation);
        for inbox in self.inboxes.borrow().iter() {
            inbox.wake();
        }
    }

    fn is_present(&self) -> bool {
        self.ends.borrow().presence.generation() != 0
    }

    /// Sends a command; `done` hears its answer, if it comes while the connection lasts.
    fn command<R: 'static>(
        self: &Rc<Self>,
        pending: Pending,
        act: impl FnOnce(&mut Data, u64) -> R + 'static,
        done: impl FnOnce(&Rc<Self>, Pending, R) + 'static,
    ) {
        let common = &self.common;
        let now_us = common.now_us();
        let (connection, number, there_us) = {
            let mut state = self.state.borrow_mut();
            state.next += 1;
            let number = state.next;
            state.pending.insert(number, pending);
            let way_us = common.way_us(&common.registry, common.plan.registry_us);
            state.there_us = state.there_us.max(now_us + way_us);
            (state.connection, number, state.there_us)
        };
        self.later(common.config.fleet_redis_timeout_ms * 1_000, move |client| {
            let is_waiting = {
                let state = client.state.borrow();
                state.connection == connection && state.pending.contains_key(&number)
            };
            if is_waiting {
                client.lost();
            }
        });
        let client = Rc::clone(self);
        // It arrives whatever becomes of the process.
        common.later(there_us - now_us, move || {
            if !client.is_reachable() {
                return;
            }
            let common = &client.common;
            let now_us = common.now_us();
            let result = act(&mut client.data.borrow_mut(), now_us);
            let way_us = common.way_us(&common.registry, common.plan.registry_us);
            let back_us = {
                let mut state = client.state.borrow_mut();
                state.back_us = state.back_us.max(now_us + way_us);
                state.back_us
            };
            client.later(back_us - now_us, move |client| {
                let pending = {
                    let mut state = client.state.borrow_mut();
                    if state.connection != connection {
                        return;
                    }
                    state.pending.remove(&number)
                };
                if let Some(pending) = pending.filter(|_| client.is_reachable()) {
                    done(client, pending, result);
                }
            });
        });
    }

    // ---- what the node wants -------------------------------------------------------------------------------------

    /// Takes what shards have asked.
    pub(super) fn go_on(self: &Rc<Self>) {
        if self.common.paused_us(self.node) > 0 {
            return;
        }
        loop {
            let asked = self.ends.borrow_mut().claims.try_recv();
            let Ok((reply, claim)) = asked else { break };
            // Dropped: that is the answer.
            if self.is_present() {
                self.claim(reply, claim);
            }
        }
        loop {
            let asked = self.ends.borrow_mut().batches.try_recv();
            let Ok(batch) = asked else { break };
            if self.is_present() {
                self.write(batch);
            }
        }
        loop {
            let asked = self.ends.borrow_mut().lookups.try_recv();
            let Ok((reply, lookup)) = asked else { break };
            if self.is_present() {
                self.look_up(reply, lookup);
            }
        }
        let presence = Arc::clone(&self.ends.borrow().presence);
        let is_hurried = pin!(presence.hurried())
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready();
        if is_hurried {
            self.say_life();
        }
    }

    fn ttl_us(&self) -> u64 {
        self.common.config.fleet_redis_driver_ttl_ms * 1_000
    }

    fn lease_us(&self) -> u64 {
        self.common.config.fleet_redis_lease_ms * 1_000
    }

    fn claim(self: &Rc<Self>, reply: Reply, claim: Claim) {
        let (name, ttl_us) = (self.name.clone(), self.ttl_us());
        let pending = Pending::Claim(reply, claim.driver_id.clone());
        self.command(
            pending,
            move |data, now_us| data.claim(&name, &claim, ttl_us, now_us),
            |client, pending, (session, previous)| {
                let Pending::Claim(reply, driver_id) = pending else {
                    return;
                };
                let from = previous.as_ref().map(|previous| previous.node_id.clone());
                reply.give(session, previous);
                if let Some(from) = from.filter(|from| *from != client.name) {
                    client.notice(from, driver_id, session);
                }
            },
        );
    }

    fn look_up(self: &Rc<Self>, reply: LookupReply, lookup: Lookup) {
        let driver_id = lookup.driver_id;
        self.command(
            Pending::Lookup(reply),
            move |data, now_us| {
                data.entry(&driver_id, now_us).map(|entry| Found {
                    node_id: entry.node.clone(),
                    session: entry.session,
                    at_hand: entry.at_hand.clone(),
                })
            },
            |client, pending, found| {
                let Pending::Lookup(reply) = pending else { return };
                let refills = client.common.now_us() < client.state.borrow().refills_us;
                // Its node may not have come to write it again. Dropped: that is the answer.
                if found.is_some() || !refills {
                    reply.give(found);
                }
            },
        );
    }

    fn write(self: &Rc<Self>, batch: Batch) {
        let (name, ttl_us) = (self.name.clone(), self.ttl_us());
        let lines = batch.lines.clone();
        self.command(
            Pending::Lines(batch.inbox, batch.lines),
            move |data, now_us| {
                let write = |line| data.write(&name, line, ttl_us, now_us);
                lines.iter().map(write).collect::<Vec<_>>()
            },
            |client, pending, written| {
                let Pending::Lines(inbox, lines) = pending else { return };
                for (line, written) in lines.into_iter().zip(written) {
                    match written {
                        Written::Yes => {}
                        Written::From(from) => client.notice(from, line.driver_id, line.session),
                        Written::Refused => inbox.send(FromRegistry::Moved {
                            driver_id: line.driver_id,
                            session: line.session,
                        }),
                    }
                }
            },
        );
    }

    /// Another node had the driver: it is told soon.
    fn notice(self: &Rc<Self>, from: CompactString, driver_id: DriverId, session: u64) {
        let is_first = {
            let mut state = self.state.borrow_mut();
            if state.lapsed.contains(&from) {
                return;
            }
            let is_first = state.notices.is_empty();
            state.notices.entry(from).or_default().push((driver_id, session));
            is_first
        };
        if is_first {
            self.later(NOTICE_EVERY_US, |client| {
                let notices = std::mem::take(&mut client.state.borrow_mut().notices);
                if !notices.is_empty() {
                    client.command(
                        Pending::Tell,
                        |data, _| {
                            for (name, moved) in notices {
                                data.moved.entry(name).or_default().extend(moved);
                            }
                        },
                        |_, _, ()| {},
                    );
                }
            });
        }
    }

    // ---- leases --------------------------------------------------------------------------------------------------

    fn keep_signing(self: &Rc<Self>) {
        self.later(self.lease_us() / 3, |client| {
            client.say_life();
            client.keep_signing();
        });
    }

    /// Renews the lease, and asks what there is to know.
    fn say_life(self: &Rc<Self>) {
        {
            let state = self.state.borrow();
            let is_under_way = state.pending.values().any(|pending| matches!(pending, Pending::Sign));
            if state.connection == 0 || is_under_way {
                return;
            }
        }
        let (seen, boot, lease_us) = ((self.sign)(), self.boot, self.lease_us());
        self.command(
            Pending::Sign,
            move |data, now_us| {
                let name = seen.node_id.clone();
                let is_new = data.sign(boot, seen, lease_us, now_us);
                let moved = data.moved.remove(&name).unwrap_or_default();
                (is_new, data.alive(now_us), moved, data.lapsed(now_us))
            },
            |client, _, (is_new, nodes, moved, lapsed)| {
                client.lives(is_new);
                client.show(nodes);
                client.state.borrow_mut().lapsed = lapsed;
                for (driver_id, session) in moved {
                    let inboxes = client.inboxes.borrow();
                    let home = usize::from(home_shard(driver_id.hash64(), inboxes.len().max(1) as u16));
                    if let Some(inbox) = inboxes.get(home) {
                        let session = session.saturating_sub(1);
                        inbox.send(FromRegistry::Moved { driver_id, session });
                    }
                }
            },
        );
    }

    /// The lease is this node's. When what was written may be lost, the shards hear of a new registry.
    fn lives(&self, is_new: bool) {
        let now_us = self.common.now_us();
        let is_present = self.is_present();
        let generation = {
            let mut state = self.state.borrow_mut();
            state.failures = 0;
            state.word = LeaseWord::Said;
            if is_new {
                state.settles_us = now_us + self.lease_us();
                state.refills_us = if state.generation > 0 { state.settles_us } else { 0 };
            }
            if is_present && !is_new {
                return;
            }
            state.generation += 1;
            state.generation
        };
        self.present(generation);
    }

    fn show(&self, nodes: NodeList) {
        let nodes = {
            let mut state = self.state.borrow_mut();
            let nodes = if self.common.now_us() < state.settles_us {
                nodes.with_unlisted(&state.nodes)
            } else {
                nodes
            };
            if nodes == *state.nodes {
                return;
            }
            state.nodes = Arc::new(nodes);
            Arc::clone(&state.nodes)
        };
        for inbox in self.inboxes.borrow().iter() {
            inbox.send(FromRegistry::Nodes(Arc::clone(&nodes)));
        }
        (self.on_nodes)(&nodes);
    }

    /// The node has ended in an orderly way: the lease is given back.
    pub(super) fn give_back(&self) {
        if self.is_reachable() {
            let mut data = self.data.borrow_mut();
            let is_own = data.leases.get(&self.name).is_some_and(|lease| lease.boot == self.boot);
            if is_own {
                data.leases.remove(&self.name);
            }
        }
    }
}
