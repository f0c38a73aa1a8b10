//! Drivers at home on this shard: the table and the effects.
#![forbid(unsafe_code)]

use super::Platform;
use super::account::trim;
use super::commit::After;
use super::index::KeyIndex;
use super::latency::{Begun, Stopwatch};
use super::off_shift::OffShift;
use super::registry::Sessions;
use super::{Ask, Letter, Shard, Timer};
use crate::cold::port::{Commit, DriverRecord, Query, Source};
use crate::fsm::driver::{CloseCause, Driver, DriverEffect, DriverEvent, ToSocket};
use crate::fsm::ids::{DriverId, TripId, home_shard};
use crate::fsm::request::{ReplyTo, RequestEvent, ToDriver, TripMove};
use crate::fsm::types::{DriverState, Record};
use crate::fsm::wheel::TimerId;
use crate::journal::Lsn;
use crate::net::ConnId;
use crate::ops::log::LogKind;
use crate::pages::Pages;
use crate::wire::api::{self, DriverView, OfferView};
use crate::wire::driver as messages;
use crate::wire::respond::{Problem, Reply};
use crate::wire::ws::close_code;
use std::collections::{HashMap, VecDeque};

/// A driver in memory.
pub(super) struct Entry {
    pub(super) driver: Driver,
    pub(super) conn: Option<ConnId>,
    timer: Option<TimerId>,
    /// Until what was sent last is written.
    watch: Stopwatch,
}

const _: () = assert!(size_of::<Entry>() == 104, "every driver has one");

/// The table.
#[derive(Default)]
pub(super) struct Drivers {
    pub(super) slab: Pages<Entry>,
    by_id: KeyIndex,
    off_shift: OffShift,
    pub(super) connects: u64,
    /// Where there is no registry and sessions are times all the same.
    pub(super) sessions: Sessions,
    /// Drivers whose last change of shift is not durable yet, and its number. What they hear meanwhile waits for it, in order.
    pub(super) changing: HashMap<u32, Lsn>,
    /// The same of drivers that left memory meanwhile, for when they come back before it is durable.
    pub(super) left_changing: HashMap<DriverId, Lsn>,
    /// Drivers that connected and of whom the store has not said yet whether it knows them.
    pub(super) lookups: usize,
    /// First sights that the store does not have yet: the records' numbers, who, and when. What asks the store meanwhile for a
    /// driver who has left memory again must not hear that it was never seen.
    sights: VecDeque<(Lsn, DriverId, u64)>,
    /// Bytes that the actors keep on the heap.
    heap_bytes: usize,
}

impl Drivers {
    pub(super) fn find(&self, id: &DriverId) -> Option<u32> {
        self.by_id
            .find(id.hash64(), |key| self.slab[key as usize].driver.id() == id)
    }

    fn insert(&mut self, driver: Driver) -> u32 {
        let hash = driver.id().hash64();
        let entry = Entry {
            driver,
            conn: None,
            timer: None,
            watch: Stopwatch::default(),
        };
        let key = self.slab.insert(entry) as u32;
        let slab = &self.slab;
        self.by_id
            .insert(hash, key, |key| slab[key as usize].driver.id().hash64());
        key
    }

    /// Since when a driver is off shift who is not in memory, 0 for not.
    pub(super) fn off_shift_since_ms(&self, id: &DriverId) -> u64 {
        self.off_shift.get(id)
    }

    /// Bytes of the table, its index, and what the actors keep beside it.
    pub(super) fn bytes(&self) -> usize {
        self.slab.bytes() + self.by_id.bytes() + self.heap_bytes
    }

    /// Gives back what a storm of drivers took and nobody needs any more.
    pub(super) fn trim(&mut self) {
        trim(&mut self.sights);
    }

    /// The store has everything up to `through`.
    pub(super) fn stored(&mut self, through: Lsn) {
        while self.sights.front().is_some_and(|(lsn, ..)| *lsn <= through) {
            self.sights.pop_front();
        }
    }

    /// When a driver was seen whose first sight is on its way to the store.
    fn sight_of(&self, id: &DriverId) -> Option<u64> {
        let own = self.sights.iter().rev().find(|(_, driver_id, _)| driver_id == id);
        own.map(|(.., at_ms)| *at_ms)
    }
}

impl<P: Platform> Shard<P> {
    /// What the store remembers of drivers who went off shift.
    pub(super) fn remember_off_shift(&mut self, drivers: Vec<(DriverId, u64)>) {
        self.drivers.off_shift.extend(drivers);
    }

    /// Another node says since when a driver is off shift who comes from there, 0 for not. It is stored, since the next start here
    /// has this node's store alone to ask.
    pub(super) fn learn_off_shift(&mut self, id: &DriverId, since_ms: u64) {
        // By the other node's clock, which may be ahead: a start continues from the newest time in its records.
        let since_ms = since_ms.min(self.now_ms);
        let known_ms = self.drivers.off_shift.take(id);
        if since_ms != 0 {
            let memory_ms = self.driver_limits.off_shift_memory_ms;
            let id = id.clone();
            self.drivers.off_shift.insert(id, since_ms, self.now_ms, memory_ms);
        }
        if since_ms != known_ms {
            let at_ms = if since_ms == 0 { self.now_ms } else { since_ms };
            let lsn = self.store_shift(id.clone(), since_ms != 0, at_ms);
            self.drivers.left_changing.insert(id.clone(), lsn);
        }
    }

    fn driver_key(&mut self, id: &DriverId) -> u32 {
        if let Some(key) = self.drivers.find(id) {
            return key;
        }
        let off_shift_since_ms = self.drivers.off_shift.take(id);
        let key = self.drivers.insert(Driver::new(id.clone(), off_shift_since_ms));
        if let Some(lsn) = self.drivers.left_changing.remove(id) {
            self.drivers.changing.insert(key, lsn);
        }
        self.metrics().drivers.of(DriverState::Offline).inc();
        key
    }

    /// A socket of this driver completed its handshake; returns the driver's key for the socket's table. `granted`: the
    /// session that the fleet's registry gave it. `None`: a later connect of the driver was faster, the socket is displaced.
    pub(super) fn driver_connected(&mut self, id: &DriverId, conn: ConnId, granted: Option<u64>) -> Option<u32> {
        let key = self.driver_key(id);
        // Unknown here, or bound by a restart before anybody heard of it: the store has to know.
        if self.drivers.slab[key as usize].driver.last_heard_ms() == 0 {
            self.drivers.lookups += 1;
            self.ask(Query::Driver(id.clone()), Ask::Known(id.clone()));
        }
        self.drivers.connects += 1;
        let session = self.session_for(key, granted)?;
        if let Some(routing) = &mut self.routing {
            routing.is_here(id);
        }
        let entry = &mut self.drivers.slab[key as usize];
        entry.watch = Stopwatch::default();
        let displaced = entry.conn.replace(conn);
        if let Some(old) = displaced {
            self.log(LogKind::Displaced, |suppressed| {
                tracing::info!(driver = %id, suppressed, "a driver connected again: 4001 to its older socket");
            });
            self.close_socket(old, close_code::DISPLACED, "displaced");
        }
        self.step_driver(key, DriverEvent::Connected { session });
        self.driver_has_come(id);
        Some(key)
    }

    /// The socket of a driver is gone, or about to go.
    pub(super) fn driver_disconnected(&mut self, key: u32, conn: ConnId) {
        let Some(entry) = self
            .drivers
            .slab
            .get_mut(key as usize)
            .filter(|entry| entry.conn == Some(conn))
        else {
            return;
        };
        entry.conn = None;
        entry.watch = Stopwatch::default();
        if let Some(session) = entry.driver.session() {
            self.touch_registry(key);
            self.step_driver(key, DriverEvent::Disconnected { session });
        }
    }

    /// A request speaks to a driver.
    pub(super) fn driver_letter(&mut self, driver_id: &DriverId, event: DriverEvent, begun: Option<Begun>) {
        // A driver that nobody ever saw is told nothing, but a request must hear that it is offline.
        let key = self.driver_key(driver_id);
        self.begun = begun;
        self.step_driver(key, event);
        self.begun = None;
        self.forget_if_idle(key);
    }

    fn forget_if_idle(&mut self, key: u32) {
        let Some(entry) = self.drivers.slab.get(key as usize) else {
            return;
        };
        if entry.timer.is_none() && entry.driver.is_unknown() {
            self.forget_driver(key);
        }
    }

    /// A driver's timer is not to fire.
    pub(super) fn disarm_driver(&mut self, key: u32) {
        if let Some(timer) = self.drivers.slab[key as usize].timer.take() {
            self.wheel.cancel(timer);
        }
    }

    pub(super) fn driver_timer(&mut self, key: u32) {
        self.drivers.slab[key as usize].timer = None;
        self.step_driver(key, DriverEvent::Timer);
    }

    pub(super) fn step_driver(&mut self, key: u32, event: DriverEvent) {
        let mut effects = std::mem::take(&mut self.driver_effects);
        let driver = &mut self.drivers.slab[key as usize].driver;
        let (before, heap_before) = (driver.state(), driver.heap_bytes());
        driver.step(event, self.now_ms, &self.driver_limits, &mut effects);
        let (after, heap_after) = (driver.state(), driver.heap_bytes());
        self.drivers.heap_bytes = self.drivers.heap_bytes + heap_after - heap_before;
        if before != after {
            let metrics = self.metrics();
            metrics.drivers.of(before).dec();
            metrics.drivers.of(after).inc();
        }
        if let Some(fleet) = &mut self.fleet {
            fleet.note(key, before != after, self.now_ms);
        }
        for effect in effects.drain(..) {
            self.apply_driver(key, effect);
        }
        self.driver_effects = effects;
    }

    fn apply_driver(&mut self, key: u32, effect: DriverEffect) {
        match effect {
            DriverEffect::Send(message) => {
                let entry = &mut self.drivers.slab[key as usize];
                if matches!(message, ToSocket::Offer { .. } | ToSocket::Confirmed { .. }) {
                    entry.watch = Stopwatch::start(self.begun);
                }
                match (entry.conn, self.drivers.changing.get_mut(&key)) {
                    (None, _) => {}
                    (Some(conn), None) => self.send(conn, key, &message),
                    (Some(conn), Some(lsn)) => self.durable.hold_message(lsn, key, conn, message),
                }
            }
            DriverEffect::Close {
                cause: CloseCause::Displaced,
                ..
            } => {} // Closed by `driver_connected`.
            DriverEffect::Close {
                cause: CloseCause::HeartbeatLost,
                ..
            } => {
                if let Some(conn) = self.drivers.slab[key as usize].conn.take() {
                    self.log(LogKind::HeartbeatLost, |suppressed| {
                        tracing::info!(suppressed, "a driver's heartbeat was lost: 4004");
                    });
                    self.close_socket(conn, close_code::HEARTBEAT_LOST, "heartbeat lost");
                }
            }
            DriverEffect::Request { request_id, event } => {
                if matches!(event, RequestEvent::Delivered { .. }) {
                    self.stop_watch(key);
                }
                self.post_to_request(request_id, event);
            }
            DriverEffect::TakenBack {
                request_id,
                attempt,
                reason,
            } => self.note_taken_back(key, &request_id, attempt, reason),
            DriverEffect::Asked {
                node,
                request_id,
                event,
            } => self.answer_ask(key, node, request_id, event),
            DriverEffect::TripMoved { trip_id, what } => self.move_trip(key, trip_id, what),
            DriverEffect::Arm { at_ms } => {
                self.disarm_driver(key);
                let entry = &mut self.drivers.slab[key as usize];
                entry.timer = at_ms.map(|at_ms| self.wheel.arm(at_ms, Timer::Driver(key).owner()));
            }
            DriverEffect::Seen { at_ms } => {
                let driver_id = self.drivers.slab[key as usize].driver.id().clone();
                self.remember_driver(driver_id, at_ms);
            }
            DriverEffect::OffShift { off, at_ms } => self.change_shift(key, off, at_ms),
            DriverEffect::Gone => self.forget_driver(key),
        }
    }

    /// The driver speaks of a trip to the request that made it.
    fn move_trip(&mut self, key: u32, trip_id: TripId, what: TripMove) {
        let driver_id = self.drivers.slab[key as usize].driver.id().clone();
        let Some(hash) = trip_id.request_hash() else {
            return self.no_such_trip(&driver_id);
        };
        let home = home_shard(hash, self.shards);
        self.say_owner(home, key, &trip_id);
        let letter = Letter::TripMoved {
            trip_id,
            driver_id,
            what,
        };
        self.post(home, letter);
    }

    /// What was sent last has arrived.
    pub(super) fn stop_watch(&mut self, key: u32) {
        if let Some(entry) = self.drivers.slab.get_mut(key as usize) {
            entry.watch.stop(self.now_us, self.shared.registry.shard(self.index));
        }
    }

    /// Stores that a driver went off shift or came back; what it hears from now on waits for that.
    fn change_shift(&mut self, key: u32, off: bool, at_ms: u64) {
        let driver_id = self.drivers.slab[key as usize].driver.id().clone();
        let lsn = self.store_shift(driver_id, off, at_ms);
        self.drivers.changing.insert(key, lsn);
    }

    fn store_shift(&mut self, driver_id: DriverId, off: bool, at_ms: u64) -> Lsn {
        let mut commit = Commit::empty(self.source(), 0);
        commit.off_shift = Some((driver_id.clone(), at_ms, off));
        let record = Record::OffShift { driver_id, at_ms, off };
        self.append(&record, After::Feed(Box::new(commit)))
    }

    fn remember_driver(&mut self, driver_id: DriverId, at_ms: u64) {
        let mut commit = Commit::empty(self.source(), 0);
        commit.driver_seen = Some((driver_id.clone(), at_ms));
        let record = Record::DriverSeen {
            driver_id: driver_id.clone(),
            at_ms,
        };
        let lsn = self.append(&record, After::Feed(Box::new(commit)));
        self.drivers.sights.push_back((lsn, driver_id, at_ms));
    }

    /// The store's word on a driver that connected: one it never saw, or could not say, is remembered.
    pub(super) fn driver_known(&mut self, driver_id: &DriverId, record: Option<&DriverRecord>) {
        self.drivers.lookups -= 1;
        if record.is_none() {
            self.remember_driver(driver_id.clone(), self.now_ms);
        }
    }

    fn forget_driver(&mut self, key: u32) {
        let entry = self.drivers.slab.remove(key as usize);
        if let Some(lsn) = self.drivers.changing.remove(&key) {
            self.drivers.left_changing.insert(entry.driver.id().clone(), lsn);
        }
        debug_assert!(entry.conn.is_none());
        self.drivers.heap_bytes -= entry.driver.heap_bytes();
        if let Some(timer) = entry.timer {
            self.wheel.cancel(timer);
        }
        self.metrics().drivers.of(entry.driver.state()).dec();
        let id = entry.driver.id();
        if let Some(fleet) = &mut self.fleet {
            fleet.forget(key, id);
        }
        if let Some(routing) = &mut self.routing {
            routing.forget(key);
        }
        self.drivers.by_id.remove(id.hash64(), key);
        let since_ms = entry.driver.off_shift_since_ms();
        if since_ms != 0 {
            let memory_ms = self.driver_limits.off_shift_memory_ms;
            self.drivers
                .off_shift
                .insert(id.clone(), since_ms, self.now_ms, memory_ms);
        }
    }

    /// The driver spoke of a trip that nobody knows.
    pub(super) fn no_such_trip(&mut self, driver_id: &DriverId) {
        if let Some(key) = self.drivers.find(driver_id) {
            self.step_driver(key, DriverEvent::NoSuchTrip);
        }
    }

    /// `GET /v1/drivers/{driver_id}` of a driver that is here, or nowhere.
    pub(super) fn driver_view_here(&mut self, driver_id: DriverId, reply: ReplyTo) {
        match self.drivers.find(&driver_id) {
            // Perhaps the store never saw the driver, and is to be told so before anybody hears of it.
            Some(key) if self.drivers.slab[key as usize].driver.last_heard_ms() != 0 && self.drivers.lookups == 0 => {
                let answer = self.driver_view_in_memory(key, 0);
                self.answer_durably(reply, answer);
            }
            // Unknown here, or bound by a restart and not heard since: the store knows when it was.
            Some(_) | None => self.ask(Query::Driver(driver_id.clone()), Ask::Driver(driver_id, reply)),
        }
    }

    /// `stored_seen_ms`: when the store last heard of the driver, 0 for never.
    fn driver_view_in_memory(&self, key: u32, stored_seen_ms: u64) -> Reply {
        let driver = &self.drivers.slab[key as usize].driver;
        let location = driver.location().map(|at| messages::Location {
            lat: at.lat,
            lon: at.lon,
            heading: at.heading,
            speed: at.speed,
        });
        let offer = driver.offer();
        api::driver_view(&DriverView {
            driver_id: driver.id(),
            state: driver.state(),
            trip_id: driver.trip_id(),
            offer: offer.map(|(request_id, attempt, expires_at_ms)| OfferView {
                request_id,
                attempt,
                expires_at_ms,
            }),
            location,
            last_seen_ms: driver.last_heard_ms().max(stored_seen_ms),
            node: &self.config.node_id,
        })
    }

    /// The view of a driver that only the store knows, or has heard.
    pub(super) fn driver_view_from_store(&mut self, driver_id: &DriverId, record: Option<&DriverRecord>) -> Reply {
        if let Some(key) = self.drivers.find(driver_id) {
            let seen_ms = record.map_or_else(|| self.remember_shown(key), |record| record.last_seen_ms);
            return self.driver_view_in_memory(key, seen_ms);
        }
        let stored_ms = record.map(|record| record.last_seen_ms);
        let Some(last_seen_ms) = stored_ms.or_else(|| self.drivers.sight_of(driver_id)) else {
            return Problem::no_such_driver().into_reply();
        };
        api::driver_view(&DriverView {
            driver_id,
            state: DriverState::Offline,
            trip_id: None,
            offer: None,
            location: None,
            last_seen_ms,
            node: &self.config.node_id,
        })
    }

    /// A driver that the store never saw is about to be shown: one that a restart bound to an offer whose journal was ahead
    /// of the one that says that the driver was seen, or that connected just now. Whoever was told of it is not told later
    /// that it was never seen. Returns when it was seen; of one not heard since the start nobody knows better than now.
    fn remember_shown(&mut self, key: u32) -> u64 {
        let driver = &self.drivers.slab[key as usize].driver;
        let (driver_id, heard_ms) = (driver.id().clone(), driver.last_heard_ms());
        let seen_ms = if heard_ms == 0 { self.now_ms } else { heard_ms };
        self.remember_driver(driver_id, seen_ms);
        seen_ms
    }

    /// Hands a request's message to the driver before anybody is served (start of the node).
    pub(super) fn rebind(&mut self, driver_id: &DriverId, request_id: crate::fsm::ids::RequestId, message: ToDriver) {
        if let ToDriver::Bound { trip_id, .. } = &message
            && let Some(key) = self.drivers.find(driver_id)
            && let Some(other) = self.drivers.slab[key as usize].driver.trip_id()
        {
            tracing::error!(
                %driver_id,
                %trip_id,
                other_trip_id = %other,
                "the journal has two trips of one driver: one binds the driver, the other has to be cancelled over the API"
            );
        }
        let bound_by = request_id.clone();
        let event = DriverEvent::Request {
            node: 0,
            request_id,
            message,
        };
        self.driver_letter(driver_id, event, None);
        if let Some(routing) = &mut self.routing {
            routing.is_unsure(driver_id.clone(), bound_by);
        }
    }

    pub(super) fn source(&self) -> Source {
        Source {
            incarnation: self.incarnation,
            shard: self.index,
        }
    }
}
