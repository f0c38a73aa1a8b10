//! A shard: one pinned thread that owns drivers, requests, sockets and a journal, and shares nothing.
//!
//! One turn: reap every completion, then take the letters, the timers and the store's answers, step the actors,
//! apply their effects, submit. Nothing calls back from a completion. The thread sleeps in its net ring until the
//! next timer, a completion, a letter or the store wakes it.
//!
//! Must never: block (what blocks is in `cold` or in the housekeeping task), touch another shard's data, or send
//! what is not durable yet.

mod account;
mod answers;
mod calls;
mod claims;
mod clock;
mod commit;
mod connections;
mod drain;
mod drivers;
mod handover;
mod health;
mod http;
mod index;
mod latency;
mod letter;
mod mailbox;
mod messages;
mod off_shift;
mod parts;
mod platform;
mod registry;
mod requests;
mod rings;
mod routing;
mod runtime;
mod sockets;
mod spsc;
mod stalls;
mod throttle;
mod timer;

pub(crate) use claims::is_over;
pub use clock::Clock;
use letter::Letter;
pub use letter::{Mail, mail};
use mailbox::Mailbox;
pub use mailbox::ring_len as mail_ring_len;
pub use off_shift::forgotten_before_ms;
pub use parts::{Inheritance, Parts, Shared};
pub use platform::{Done, Files, Job, Machine, Platform, Ring, Time};
pub use rings::Rings;
pub use runtime::Housekeeper;
pub(crate) use runtime::{Orders, spawn, start_housekeeping};

use crate::cold::StoreHealth;
use crate::cold::handle::StoreHandle;
use crate::cold::port::FromStore;
use crate::config::Config;
use crate::fsm::driver::{DriverEffect, DriverLimits};
use crate::fsm::ids::{DriverId, RequestId, TripId, home_shard};
use crate::fsm::request::{ReplyTo, RequestEffect, ToDriver};
use crate::fsm::wheel::Wheel;
use crate::net::{ConnId, NetEvent};
use crate::ops::log::{LogKind, LogLimiter};
use crate::ops::metrics::ShardMetrics;
use crate::wire::respond::HttpDate;
use commit::Durable;
use compact_str::CompactString;
use connections::Connections;
use drivers::Drivers;
use latency::Begun;
use requests::Requests;
use slab::Slab;
use sockets::Arrival;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use timer::Timer;

/// Longest sleep while letters wait for room in a mailbox, or the store's queue is full. Each of these two may be longer by the net ring's
/// `SLEEP_TOLERANCE`.
const RETRY_SLEEP: Duration = Duration::from_micros(200);
/// Longest sleep of all: a lost wake-up would be our bug, and is to cost a second at most.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// The home shard of a driver.
pub(crate) fn home_of_driver(id: &DriverId, shards: u16) -> u16 {
    home_shard(id.hash64(), shards)
}

/// The home shard of a request (and of its trip).
pub(crate) fn home_of_request(id: &RequestId, shards: u16) -> u16 {
    home_shard(id.hash64(), shards)
}

/// What a question to the store is for.
#[derive(Debug)]
pub(crate) enum Ask {
    Request(RequestId),
    /// The audit of a request of this node that another one had before.
    Audit(ReplyTo),
    /// A view of an id that is being claimed here: it may be another node's.
    Look(RequestId, Box<Letter>),
    Trip(TripId),
    /// Whether a driver that connected was ever seen.
    Known(DriverId),
    Driver(DriverId, ReplyTo),
    Records(DriverId, jiff::civil::Date, ReplyTo),
    Events(ReplyTo),
    Acked(CompactString, ReplyTo),
}

fn driver_limits(config: &Config) -> DriverLimits {
    DriverLimits {
        heartbeat_ms: config.heartbeat_ms as u32,
        driver_ttl_ms: config.driver_ttl_ms,
        off_shift_memory_ms: config.off_shift_memory_ms,
        age_step_ms: config.ingress_age_step_ms,
    }
}

/// The shard.
pub struct Shard<P: Platform> {
    index: u16,
    shards: u16,
    incarnation: u64,
    config: Arc<Config>,
    driver_limits: DriverLimits,
    shared: Arc<Shared>,
    clock: P::Time,
    now_ms: u64,
    /// The time of this turn; `now_ms` is its milliseconds.
    now_us: u64,
    net: P::Ring,
    mail: Mailbox<letter::Posted>,
    wheel: Wheel,
    store: StoreHandle,
    store_health: Arc<StoreHealth>,
    housekeeper: P::Files,
    durable: Durable<<P::Ring as Ring>::File>,
    /// Requests of an earlier incarnation, to be gone on with when the node serves.
    adopted: Vec<u32>,
    /// What this shard's drivers have to know before any letter is read; it waits until the images are durable.
    bindings: Option<Vec<(DriverId, RequestId, ToDriver)>>,
    segment_retry_at_ms: u64,
    connections: Connections,
    drivers: Drivers,
    /// What there is of the fleet's registry, when there is a fleet.
    fleet: Option<registry::Fleet>,
    /// What there is of its links.
    routing: Option<routing::Routing>,
    /// How requests are owned, when nodes share their store.
    claims: Option<claims::Claims>,
    requests: Requests,
    /// API calls of this shard's connections that have no answer yet.
    calls: Slab<ConnId>,
    http_again: Vec<ConnId>,
    /// The `Date` of answers that are written now.
    http_date: HttpDate,
    /// The timer of the sweep is armed.
    sweeping: bool,
    paused: throttle::Paused,
    /// When the account of memory is due.
    account_at_ms: u64,
    asks: Slab<Ask>,
    /// Those of them that are for `GET /v1/events`.
    polls: usize,
    unasked: VecDeque<(u64, crate::cold::port::Query)>,
    arrivals: HashMap<u64, Arrival>,
    handovers: u64,
    /// Letters of this shard to itself.
    local: VecDeque<Letter>,
    limiter: LogLimiter,
    draining: Option<drain::Drain>,
    events: Vec<NetEvent>,
    inbox: letter::Inbox,
    fired: Vec<u64>,
    from_store: Vec<FromStore>,
    request_effects: Vec<RequestEffect>,
    driver_effects: Vec<DriverEffect>,
    /// What is measured of the letter that a driver is reading.
    begun: Option<Begun>,
    scratch: Vec<u8>,
}

impl<P: Platform> Shard<P> {
    /// Puts a shard together, on the thread that it is to run on. Then: [`Self::inherit`], turns until
    /// [`Self::is_heir`], [`Self::open`], turns until [`Self::is_finished`].
    pub fn new(parts: Parts<P>) -> Self {
        let Parts {
            index,
            shards,
            incarnation,
            config,
            shared,
            clock,
            mail,
            ring,
            store,
            store_health,
            writer,
            files,
            registry,
            links,
            claims,
        } = parts;
        let mail = mail.into_mailbox();
        let now_us = clock.now_us();
        let now_ms = now_us / 1_000;
        mail.open(ring.ring_fd());
        Self {
            index,
            shards,
            incarnation,
            driver_limits: driver_limits(&config),
            limiter: LogLimiter::new(config.log_repeat_per_s),
            requests: Requests::new(config.ingress_age_step_ms),
            fleet: registry.map(|handle| registry::Fleet::new(handle, &config)),
            routing: links.map(|links| routing::Routing::new(links, incarnation)),
            claims: claims.map(claims::Claims::new),
            config,
            shared,
            clock,
            now_ms,
            now_us,
            net: ring,
            mail,
            wheel: Wheel::new(now_ms),
            store,
            store_health,
            housekeeper: files,
            durable: Durable::new(writer, incarnation, index),
            adopted: Vec::new(),
            bindings: None,
            segment_retry_at_ms: 0,
            connections: Connections::default(),
            drivers: Drivers::default(),
            calls: Slab::new(),
            http_again: Vec::new(),
            http_date: HttpDate::at(now_ms),
            sweeping: false,
            paused: VecDeque::new(),
            account_at_ms: 0,
            asks: Slab::new(),
            polls: 0,
            unasked: VecDeque::new(),
            arrivals: HashMap::new(),
            handovers: 0,
            local: VecDeque::new(),
            draining: None,
            events: Vec::new(),
            inbox: letter::Inbox::default(),
            fired: Vec::new(),
            from_store: Vec::new(),
            request_effects: Vec::new(),
            driver_effects: Vec::new(),
            begun: None,
            scratch: Vec::new(),
        }
    }

    /// Takes over what recovery found for this shard, and begins to write it into the new journal.
    pub fn inherit(&mut self, inheritance: Inheritance) {
        let Inheritance {
            requests,
            bindings,
            off_shift,
        } = inheritance;
        self.remember_off_shift(off_shift);
        self.adopted = requests.into_iter().map(|request| self.adopt(request)).collect();
        for index in 0..self.adopted.len() {
            self.image(self.adopted[index]);
        }
        // In a fleet it is not known yet whose these requests are: drivers are told when they are this node's again.
        self.bindings = Some(if self.claims.is_some() { Vec::new() } else { bindings });
        for key in &self.adopted {
            self.requests.slab[*key as usize].is_dormant = self.claims.is_some();
        }
        // The first segment is asked for before the first sleep.
        self.step();
    }

    /// Whether what was inherited is durable in the new journal. Once it is, this shard's drivers have been told what
    /// they are bound to, before anybody is served.
    pub fn is_heir(&mut self) -> bool {
        if self.durable.writer.segments().len() == 0 || !self.durable.writer.is_idle() {
            return false;
        }
        for (driver_id, request_id, message) in self.bindings.take().unwrap_or_default() {
            self.rebind(&driver_id, request_id, message);
        }
        true
    }

    /// Goes on with what was inherited, and serves from now on.
    pub fn open(&mut self, listener: <P::Ring as Ring>::Listener) {
        let adopted = std::mem::take(&mut self.adopted);
        match &mut self.claims {
            Some(claims) => claims.dormant = adopted,
            None => adopted.into_iter().for_each(|key| self.resume(key)),
        }
        self.hear_claims();
        self.net.listen(listener);
        // Links were not heard while there were bindings.
        self.inbox.news = true;
        // What was resumed is submitted, and its receivers are woken, before the first sleep.
        self.step();
    }

    /// The last thing: what the log limiter holds back.
    pub fn flush_log(&mut self) {
        self.limiter.flush();
    }

    /// Sleeps if there is nothing to do, then does all that there is.
    pub fn turn(&mut self) {
        let rest = self.rest();
        self.go_on(rest);
    }

    /// The first half of a turn: how long the shard may sleep now; `None`: not at all, there is work. From here to
    /// [`Self::go_on`] whoever has something for it wakes its ring.
    pub fn rest(&mut self) -> Option<Duration> {
        self.sleep_time().filter(|_| self.mail.may_sleep())
    }

    /// The second half of a turn: sleeps for `rest`, as [`Self::rest`] said, unless something happens; reaps and steps.
    pub fn go_on(&mut self, rest: Option<Duration>) {
        self.reap(rest);
        self.step();
    }

    /// The ring, for whoever drives the shard.
    pub fn ring_mut(&mut self) -> &mut P::Ring {
        &mut self.net
    }

    /// Submits, sleeps, reaps.
    fn reap(&mut self, rest: Option<Duration>) {
        let mut events = std::mem::take(&mut self.events);
        if let Err(error) = self.net.turn(rest, &mut events) {
            self.fail("the net ring failed", &error);
        }
        if rest.is_some() {
            self.mail.awake();
            self.metrics().ring_sleeps.inc();
        }
        let counts = self.net.take_counts();
        let metrics = self.metrics();
        metrics.turns.inc();
        metrics.ring_completions.add(events.len() as u64);
        metrics.bytes_sent.add(counts.bytes_sent);
        metrics.recv_buffers_exhausted.add(counts.recv_buffers_exhausted);
        self.collect_letters();
        // After everything that this turn acts on has arrived: no effect on one shard is dated before its cause on another.
        self.now_us = self.clock.now_us();
        self.now_ms = self.now_us / 1_000;
        self.watch_output();
        // Before what comes from outside: whoever comes because of an answer finds what it says.
        self.read_letters();
        self.read_own_letters();
        for event in events.drain(..) {
            self.net_event(event);
        }
        self.events = events;
    }

    fn sleep_time(&mut self) -> Option<Duration> {
        let may_take_in = !self.requests.ingress.is_empty() && self.journal_keeps_up();
        let has_letters = !self.inbox.is_empty() && self.bindings.is_none();
        if !self.local.is_empty() || has_letters || may_take_in || !self.http_again.is_empty() {
            self.inbox.due_ms = self.now_ms + 1;
            return None;
        }
        let now_us = self.clock.now_us();
        let due_ms = self.wheel.next_ms();
        self.inbox.due_ms = due_ms.unwrap_or(u64::MAX);
        let until_timer = due_ms.map(|ms| Duration::from_micros((ms * 1_000).saturating_sub(now_us)));
        let mut sleep = until_timer.unwrap_or(SLEEP_MAX).min(SLEEP_MAX);
        if self.mail.is_overflowing() || !self.unasked.is_empty() {
            sleep = sleep.min(RETRY_SLEEP);
        }
        (!sleep.is_zero()).then_some(sleep)
    }

    fn net_event(&mut self, event: NetEvent) {
        match event {
            NetEvent::Accepted { conn } => self.accepted(conn),
            NetEvent::HandedOver { token, conn } => self.arrived(token, Arrival::Socket(conn)),
            NetEvent::HandOverReady { conn, token } => self.leave(conn, token),
            NetEvent::HandOverFailed { token, conn, errno } => self.stayed(conn, token, errno),
            NetEvent::Received { conn, buffer } => self.received(conn, buffer),
            NetEvent::PeerClosed { conn } => self.peer_closed(conn),
            NetEvent::OutputDrained { conn } => self.drained(conn),
            NetEvent::Closed { conn, cause } => self.closed(conn, cause),
            NetEvent::Woken => self.inbox.news = true,
            NetEvent::FileWritten { buffer, result, .. } => {
                self.inbox.news = true;
                self.written(buffer, result);
            }
        }
    }

    /// Everything between reaping and submitting.
    fn step(&mut self) {
        let looks = self.inbox.is_due(self.now_ms);
        if looks {
            self.fire_timers();
            self.hear();
        }
        self.ask_again();
        self.read_own_letters();
        self.look_up_again();
        self.take_in();
        self.read_own_letters();
        self.http_go_on();
        self.read_own_letters();
        self.drain();
        self.keep_routing();
        self.read_own_letters();
        self.keep_registry();
        if looks || self.draining.is_some() || self.durable.is_busy() {
            self.keep_durable();
            self.keep_journal();
        }
        self.mail.flush();
        for fd in self.mail.take_wakes() {
            self.net.wake_ring(fd);
        }
        self.metrics().timers_armed.set(self.wheel.len() as u64);
        self.account_memory();
    }

    fn fire_timers(&mut self) {
        let mut fired = std::mem::take(&mut self.fired);
        self.wheel.advance(self.now_ms, &mut fired);
        self.metrics().timers_fired.add(fired.len() as u64);
        let mut sweep = false;
        for owner in fired.drain(..) {
            match Timer::of(owner) {
                Timer::Request(key) => self.request_timer(key),
                Timer::Driver(key) => self.driver_timer(key),
                Timer::Conn(slot) => self.conn_timer(slot),
                Timer::Sweep => sweep = true,
                Timer::Turn => {}
            }
        }
        self.fired = fired;
        if sweep {
            // After all that fired: it cancels timers of others, and one that fired already must not be cancelled.
            self.sweep_output();
        }
        self.resume_drivers();
    }

    /// Takes what other threads have for this shard.
    fn hear(&mut self) {
        while let Some(done) = self.housekeeper.take() {
            self.housekept(done);
        }
        self.hear_store();
        self.hear_registry();
        self.hear_links();
        if self.bindings.is_none() {
            self.hear_claims();
        }
    }

    fn hear_store(&mut self) {
        let mut heard = std::mem::take(&mut self.from_store);
        self.store.poll(&mut heard);
        for message in heard.drain(..) {
            match message {
                FromStore::Stored { source, through } => {
                    if source == self.source() {
                        self.stored(through);
                    }
                }
                FromStore::Answer { token, answer } => self.store_answered(token, answer),
            }
        }
        self.from_store = heard;
    }

    /// Makes the shard turn at this time at the latest.
    fn wake_at(&mut self, at_ms: u64) {
        self.wheel.arm(at_ms, Timer::Turn.owner());
    }

    fn metrics(&self) -> &ShardMetrics {
        self.shared.registry.shard(self.index)
    }

    fn log(&mut self, kind: LogKind, write: impl FnOnce(Option<u64>)) {
        match self.limiter.admit(kind, self.now_ms) {
            // None of it is no field of the line.
            Some(suppressed) => write((suppressed > 0).then_some(suppressed)),
            None => self.metrics().log_lines_suppressed.inc(),
        }
    }
}
