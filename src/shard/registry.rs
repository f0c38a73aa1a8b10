//! This shard's drivers in the fleet's registry: their sessions, and what of them is yet to be written.
//!
//! A driver that changed waits here, once however often it changed, until there is room for a batch; its line is made
//! when the batch is, so it says the newest. What changed goes after [`FLUSH_MS`]; who was only heard goes when a quarter of
//! the entry's life is over. Without a fleet none of this exists, and a driver's step costs one look at an `Option`.
//!
//! **Sessions.** A driver's session must grow with every connect to whichever node, also when Redis is away or has lost
//! everything. So a fleet's sessions are times: [`SESSIONS_PER_US`] for each microsecond, or one more than the greatest
//! that this shard knows, whichever is greater. The registry makes it greater than any before it (a compare-and-set, for
//! which the connect waits `fleet_redis_timeout_ms` at most); without the registry the later of two connects has the
//! greater session as far as the nodes' clocks agree.
#![forbid(unsafe_code)]

use super::connections::Conn;
use super::drivers::Drivers;
use super::letter::Handshake;
use super::routing::Routing;
use super::{Platform, Ring, Shard};
use crate::cold::registry::port::LINES_MAX;
use crate::cold::registry::{
    AtHand, Claim, FromRegistry, Here, Line, Lookup, NodeList, Previous, RegistryHandle, What,
};
use crate::config::Config;
use crate::fsm::driver::DriverEvent;
use crate::fsm::ids::DriverId;
use crate::journal::Incarnation;
use crate::net::ConnId;
use crate::ops::log::LogKind;
use crate::ops::metrics::{CloseCause, ConnectionKind};
use crate::wire::ws::close_code;
use slab::Slab;
use std::collections::VecDeque;
use std::sync::Arc;

/// How long a change waits for others.
const FLUSH_MS: u64 = 20;
/// Time between two batches of one shard while there is more; the wheel makes a tick of it.
const PACE_MS: u64 = 1;
/// So fine that of two connects one after the other, to two nodes whose clocks agree, the later has the greater session; and
/// below 2^53, which every JSON reader keeps exactly, until the year 2112.
const SESSIONS_PER_US: u64 = 2;
/// Drivers looked at in one turn for those whose entry is to be written again.
const REBUILD_STEP: usize = 4_096;
/// Entries to be taken out that wait while the registry is away; what is beyond ends by itself.
const GONE_MAX: usize = 65_536;
/// Marks of a page.
const PAGE_LEN: usize = 512;

/// What is known of a driver's entry, beside the driver.
#[derive(Clone, Copy, Default)]
struct Mark {
    /// Under which this node has the driver; 0: it does not.
    session: u64,
    /// When its line was made last: the clock's lowest 32 bits.
    written_ms: u32,
    is_dirty: bool,
}

const _: () = assert!(size_of::<Mark>() == 16, "every driver of a fleet has one");

/// Sessions that are times.
#[derive(Default)]
pub(super) struct Sessions {
    /// The greatest that this shard knows.
    max: u64,
}

impl Sessions {
    fn next(&mut self, now_us: u64) -> u64 {
        self.max = (now_us * SESSIONS_PER_US).max(self.max + 1);
        self.max
    }
}

/// A handshake whose session is asked for.
pub(super) struct Claiming {
    pub(super) id: ConnId,
    pub(super) handshake: Handshake,
}

/// A shard of a fleet.
pub(super) struct Fleet {
    handle: RegistryHandle,
    marks: Vec<Box<[Mark]>>,
    /// Drivers whose line is due, and since when, oldest first.
    dirty: VecDeque<(u32, u64)>,
    /// Drivers that are gone, and the session of each.
    gone: VecDeque<(DriverId, u64)>,
    /// The registry to which everything was written, see [`RegistryHandle::generation`].
    generation: u64,
    /// Where the walk over all drivers is that a new registry needs.
    rebuild_from: Option<usize>,
    /// The next batch, if one is due.
    flush_at_ms: Option<u64>,
    /// An entry that was written so long ago is due again when its driver is heard.
    refresh_ms: u32,
    /// `driver_ttl_ms`.
    driver_ttl_ms: u64,
    /// `fleet_redis_lease_ms`.
    lease_ms: u64,
    /// When this shard began to serve, perhaps without the registry: others may have taken it for dead then.
    began_ms: Option<u64>,
    sessions: Sessions,
    claims: Slab<(ConnId, DriverId)>,
    nodes: Arc<NodeList>,
    /// The owners' thread was told last that this node holds its lease.
    lease_said: bool,
    heard: Vec<FromRegistry>,
}

impl Fleet {
    pub(super) fn new(handle: RegistryHandle, config: &Config) -> Self {
        Self {
            handle,
            marks: Vec::new(),
            dirty: VecDeque::new(),
            gone: VecDeque::new(),
            generation: 0,
            rebuild_from: None,
            flush_at_ms: None,
            refresh_ms: (config.fleet_redis_driver_ttl_ms / 4) as u32,
            driver_ttl_ms: config.driver_ttl_ms,
            lease_ms: config.fleet_redis_lease_ms,
            began_ms: None,
            sessions: Sessions::default(),
            claims: Slab::new(),
            nodes: Arc::default(),
            lease_said: false,
            heard: Vec::new(),
        }
    }

    /// The nodes that are alive, as this one last saw them.
    pub(super) fn nodes(&self) -> &NodeList {
        &self.nodes
    }

    /// Under which session this node has a driver; 0: it does not.
    pub(super) fn session_of(&mut self, key: u32) -> u64 {
        self.mark(key).session
    }

    /// Whether the registry can be asked.
    pub(super) fn is_present(&self) -> bool {
        self.handle.generation() != 0
    }

    /// See [`RegistryHandle::sign_now`].
    pub(super) fn sign_now(&self) {
        self.handle.sign_now();
    }

    /// Asks where a driver is.
    pub(super) fn look_up(&self, lookup: Lookup) {
        self.handle.look_up(lookup);
    }

    /// Greater than every session that this shard knows.
    pub(super) fn next_session(&mut self, now_us: u64) -> u64 {
        self.sessions.next(now_us)
    }

    fn mark(&mut self, key: u32) -> &mut Mark {
        let page = key as usize / PAGE_LEN;
        while self.marks.len() <= page {
            self.marks.push(vec![Mark::default(); PAGE_LEN].into());
        }
        &mut self.marks[page][key as usize % PAGE_LEN]
    }

    /// A connect has this session.
    fn begin(&mut self, key: u32, session: u64, now_ms: u64) {
        self.sessions.max = self.sessions.max.max(session);
        let mark = self.mark(key);
        debug_assert!(session > mark.session, "a session grows with every connect");
        mark.session = session;
        self.touch(key, now_ms);
    }

    /// A driver's line is due: it changed.
    pub(super) fn touch(&mut self, key: u32, now_ms: u64) {
        let mark = self.mark(key);
        if mark.session != 0 && !mark.is_dirty {
            mark.is_dirty = true;
            self.dirty.push_back((key, now_ms));
        }
    }

    /// A driver made a step.
    #[inline]
    pub(super) fn note(&mut self, key: u32, has_changed: bool, now_ms: u64) {
        let refresh_ms = self.refresh_ms;
        let mark = self.mark(key);
        if has_changed || (now_ms as u32).wrapping_sub(mark.written_ms) >= refresh_ms {
            self.touch(key, now_ms);
        }
    }

    /// A driver leaves memory.
    pub(super) fn forget(&mut self, key: u32, driver_id: &DriverId) {
        // A place in `dirty` stays, and means nobody.
        let mark = std::mem::take(self.mark(key));
        if mark.session != 0 && self.gone.len() < GONE_MAX {
            self.gone.push_back((driver_id.clone(), mark.session));
        }
    }

    /// Drivers whose entry waits.
    fn backlog(&self) -> usize {
        self.dirty.len() + self.gone.len()
    }

    /// Places in `dirty` of drivers who left memory add up while nothing is written: then all drivers are walked instead.
    fn bound_dirty(&mut self) {
        if self.dirty.len() > 2 * self.marks.len() * PAGE_LEN {
            for (key, _) in std::mem::take(&mut self.dirty) {
                self.mark(key).is_dirty = false;
            }
            self.rebuild_from = Some(0);
        }
    }

    /// With a new registry everything is written again, a step of the walk in each turn.
    fn rebuild(&mut self, now_ms: u64) {
        let Some(from) = self.rebuild_from else { return };
        let until = (from + REBUILD_STEP).min(self.marks.len() * PAGE_LEN);
        (from..until).for_each(|key| self.touch(key as u32, now_ms));
        self.rebuild_from = (until < self.marks.len() * PAGE_LEN).then_some(until);
    }

    /// What a turn does for the registry: nothing before there is one.
    fn keep(&mut self, drivers: &Drivers, routing: Option<&Routing>, now_ms: u64) {
        self.bound_dirty();
        let generation = self.handle.generation();
        if generation == 0 {
            return;
        }
        if generation != self.generation {
            self.generation = generation;
            self.rebuild_from = Some(0);
        }
        self.rebuild(now_ms);
        if self.flush_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.flush_at_ms = self.flush(drivers, routing, now_ms);
        }
        if self.flush_at_ms.is_none() && self.has_more() {
            self.flush_at_ms = Some(now_ms + FLUSH_MS);
        }
    }

    /// Writes a batch. Answers when the next one is due, if there is more to write.
    fn flush(&mut self, drivers: &Drivers, routing: Option<&Routing>, now_ms: u64) -> Option<u64> {
        let (lines, since_ms) = self.lines(drivers, routing, now_ms);
        if !lines.is_empty()
            && let Err(lines) = self.handle.write(lines, since_ms)
        {
            self.take_back(lines, drivers, since_ms);
            return Some(now_ms + FLUSH_MS);
        }
        self.has_more().then_some(now_ms + PACE_MS)
    }

    /// Whether something waits to be written.
    pub(super) fn has_more(&self) -> bool {
        self.backlog() > 0 || self.rebuild_from.is_some()
    }

    /// The lines of a batch, and since when the oldest of them waits.
    fn lines(&mut self, drivers: &Drivers, routing: Option<&Routing>, now_ms: u64) -> (Vec<Line>, u64) {
        let mut lines = Vec::with_capacity(LINES_MAX.min(self.backlog()));
        let mut since_ms = now_ms;
        while lines.len() < LINES_MAX
            && let Some((driver_id, session)) = self.gone.pop_front()
        {
            let what = What::Gone;
            lines.push(Line {
                driver_id,
                session,
                what,
            });
        }
        while lines.len() < LINES_MAX
            && let Some((key, changed_ms)) = self.dirty.pop_front()
        {
            let mark = self.mark(key);
            if !mark.is_dirty {
                continue; // It left memory, or this node.
            }
            mark.is_dirty = false;
            mark.written_ms = now_ms as u32;
            let session = mark.session;
            let Some(entry) = drivers.slab.get(key as usize) else {
                debug_assert!(false, "a driver without an entry has no mark");
                continue;
            };
            since_ms = since_ms.min(changed_ms);
            let at_hand = routing.and_then(|routing| routing.at_hand(key, &entry.driver, now_ms));
            // Nobody refreshes the entry of a driver without a socket, who is kept all the same.
            let kept_ms = entry.driver.session().map_or(self.driver_ttl_ms, |_| 0);
            lines.push(line(&entry.driver, session, at_hand, kept_ms));
        }
        (lines, since_ms)
    }

    /// What the registry did not take waits again, as what is yet to be said of its driver.
    fn take_back(&mut self, lines: Vec<Line>, drivers: &Drivers, since_ms: u64) {
        for line in lines.into_iter().rev() {
            match line.what {
                What::Gone => self.gone.push_front((line.driver_id, line.session)),
                What::Here(_) => {
                    if let Some(key) = drivers.find(&line.driver_id) {
                        let mark = self.mark(key);
                        if !mark.is_dirty && mark.session != 0 {
                            mark.is_dirty = true;
                            self.dirty.push_front((key, since_ms));
                        }
                    }
                }
            }
        }
    }
}

fn line(driver: &crate::fsm::driver::Driver, session: u64, at_hand: Option<AtHand>, kept_ms: u64) -> Line {
    Line {
        driver_id: driver.id().clone(),
        session,
        what: What::Here(Here {
            state: driver.state(),
            trip_id: driver.trip_id().cloned(),
            location: driver.location(),
            last_seen_ms: driver.last_heard_ms(),
            at_hand,
            kept_ms,
        }),
    }
}

impl<P: Platform> Shard<P> {
    /// Asks the registry for a connect's session, or the other nodes about its driver; gives the handshake back when there is nobody
    /// to ask.
    pub(super) fn claim(&mut self, conn: ConnId, handshake: Handshake) -> Option<Handshake> {
        let (now_ms, now_us) = (self.now_ms, self.now_us);
        let is_present = self.fleet.as_ref().is_some_and(Fleet::is_present);
        let Some(fleet) = self.fleet.as_mut().filter(|_| is_present || self.routing.is_some()) else {
            return Some(handshake);
        };
        let driver_id = handshake.driver_id.clone();
        if is_present {
            let proposed = fleet.next_session(now_us);
            let token = fleet.claims.insert((conn, driver_id.clone())) as u64;
            fleet.handle.claim(Claim {
                token,
                driver_id: driver_id.clone(),
                proposed,
                at_ms: now_ms,
            });
        }
        // What the driver says meanwhile stays with the kernel, but for what is here already.
        self.net.pause_recv(conn);
        self.arrival_begins(&driver_id);
        let claiming = Claiming { id: conn, handshake };
        self.connections.set(conn, Conn::Claiming(Box::new(claiming)));
        if !is_present {
            self.claimed(conn, &driver_id, None, None);
        }
        None
    }

    /// A connect's answer: the driver's session, or none, and then this node gives one.
    fn claimed(&mut self, conn: ConnId, driver_id: &DriverId, session: Option<u64>, previous: Option<Box<Previous>>) {
        match self.connections.take(conn) {
            Conn::Claiming(claiming) if claiming.id == conn => {
                if self.draining.is_some() {
                    self.count_closed(ConnectionKind::Driver, CloseCause::Draining);
                    self.net.abort(conn);
                } else {
                    let waits = match session {
                        Some(session) => self.arrival_waits(conn, driver_id, session, previous),
                        None => self.arrival_asks_all(conn, driver_id),
                    };
                    if waits {
                        return self.connections.set(conn, Conn::Claiming(claiming));
                    }
                    self.seat(conn, claiming.handshake, session);
                }
            }
            // The socket is gone. Its entry is another's soon, or ends by itself.
            other => self.connections.set(conn, other),
        }
        self.arrival_ends(driver_id);
    }

    /// The session of a connect, and whether a later one of this driver was answered earlier.
    pub(super) fn session_for(&mut self, key: u32, granted: Option<u64>) -> Option<u64> {
        let now_ms = self.now_ms;
        let Some(fleet) = &mut self.fleet else {
            // An incarnation that is a time leaves no room for a count: of a node that only shares its requests, or was in a fleet.
            return Some(if self.incarnation <= Incarnation::COUNTED_MAX.get() {
                (self.incarnation << 32) | self.drivers.connects
            } else {
                self.drivers.sessions.next(self.now_us)
            });
        };
        let session = granted.unwrap_or_else(|| fleet.next_session(self.now_us));
        if session <= fleet.mark(key).session {
            return None;
        }
        fleet.begin(key, session, now_ms);
        Some(session)
    }

    /// A driver lost its socket: its entry lives on from now.
    pub(super) fn touch_registry(&mut self, key: u32) {
        let now_ms = self.now_ms;
        if let Some(fleet) = &mut self.fleet {
            fleet.touch(key, now_ms);
        }
    }

    /// Hears what the registry says.
    pub(super) fn hear_registry(&mut self) {
        let Some(fleet) = &mut self.fleet else { return };
        let mut heard = std::mem::take(&mut fleet.heard);
        fleet.handle.poll(&mut heard);
        for message in heard.drain(..) {
            match message {
                FromRegistry::Claimed {
                    token,
                    session,
                    previous,
                } => {
                    let asked = self.fleet.as_mut().map(|fleet| fleet.claims.remove(token as usize));
                    if let Some((conn, driver_id)) = asked {
                        self.claimed(conn, &driver_id, session, previous);
                    }
                }
                FromRegistry::Found { token, at } => self.driver_found(token, at),
                FromRegistry::Moved { driver_id, session } => self.driver_left(&driver_id, session + 1, None),
                FromRegistry::Nodes(nodes) => {
                    if let Some(claims) = self.claims.as_ref().filter(|_| self.index == 0) {
                        claims.handle.nodes_seen(Arc::clone(&nodes));
                    }
                    if let Some(fleet) = &mut self.fleet {
                        fleet.nodes = nodes;
                    }
                }
            }
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.heard = heard;
        }
        self.tell_lease();
    }

    /// The owners' thread hears from one shard whether this node holds its lease.
    fn tell_lease(&mut self) {
        if let Some(fleet) = self.fleet.as_mut().filter(|_| self.index == 0)
            && let Some(claims) = &self.claims
            && fleet.lease_said != (fleet.is_present() && self.draining.is_none())
        {
            fleet.lease_said = !fleet.lease_said;
            claims.handle.lease_seen(fleet.lease_said);
        }
    }

    /// Another node has the driver, unless it connected here since: its socket here is displaced, and it is not to be
    /// offered here.
    pub(super) fn driver_moved(&mut self, driver_id: &DriverId, session: u64) {
        let Some(key) = self.drivers.find(driver_id) else {
            return;
        };
        let Some(fleet) = &mut self.fleet else { return };
        let mark = fleet.mark(key);
        let has_links = self.routing.is_some();
        // With links also what a restart has bound here.
        if mark.session > session || (mark.session == 0 && !has_links) {
            return;
        }
        *mark = Mark::default();
        if let Some(conn) = self.drivers.slab[key as usize].conn {
            self.log(LogKind::Displaced, |suppressed| {
                tracing::info!(driver = %driver_id, suppressed, "a driver connected to another node: 4001 to its socket here");
            });
            self.close_socket(conn, close_code::DISPLACED, "displaced");
        }
        // Without a socket, and not expected back: its time is over now.
        if self
            .drivers
            .slab
            .get(key as usize)
            .is_some_and(|entry| entry.conn.is_none())
        {
            self.disarm_driver(key);
            self.note_left(key);
            let over = if has_links {
                DriverEvent::Moved
            } else {
                DriverEvent::Timer
            };
            self.step_driver(key, over);
        }
    }

    /// Gives the registry what it is to know, when it is time.
    pub(super) fn keep_registry(&mut self) {
        let now_ms = self.now_ms;
        let Some(fleet) = &mut self.fleet else { return };
        let planned = fleet.flush_at_ms;
        let known = fleet.generation;
        fleet.keep(&self.drivers, self.routing.as_ref(), now_ms);
        let began_ms = *fleet.began_ms.get_or_insert(now_ms);
        let is_back = fleet.generation != known && (known != 0 || now_ms >= began_ms + fleet.lease_ms);
        let (flush_at_ms, backlog) = (fleet.flush_at_ms, fleet.backlog());
        if flush_at_ms != planned
            && let Some(at_ms) = flush_at_ms
        {
            self.wake_at(at_ms);
        }
        self.metrics().registry_backlog.set(backlog as u64);
        if is_back {
            // The lease may have lapsed meanwhile, and others have taken over from this node.
            self.check_ownership();
        }
    }
}
