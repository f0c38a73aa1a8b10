//! The witness: what the clients saw, and whether it can be true.
//!
//! Actors tell it everything that they send and get; it keeps what follows from that for certain, and checks each new
//! thing against it. At the end it compares what an auditor read with all of it. It knows nothing of the node's insides.
//!
//! Knowledge only grows: a request exists, has this end, this driver; an attempt went to this driver and can only have
//! ended in one of these ways. What contradicts it is a violation. The first one is kept.

mod asked;
pub mod audits;
mod board;
mod boots;
mod calls;
mod channels;
mod closes;
mod deliveries;
mod drains;
mod effects;
mod events;
mod knowledge;
mod last;
mod looks;
mod order;
mod owed;
mod presence;
mod problems;
mod published;
mod reasons;
mod receipts;
mod resumed;
mod sayings;
mod shifts;
mod shown;
mod sockets;
mod state;
mod texts;
mod waits;
mod welcomes;

pub use board::Board;
pub use calls::{Ask, Loss, Next};
pub use state::{Request, Socket, TripSeen, Wish};

use crate::checks::{About, Check, Counts, Violation};
use crate::client::{NodeEvent, Observer};
use crate::ids::{self, Ids, Style};
use std::cell::RefCell;
use std::rc::Rc;

/// After this long, a driver who was welcomed is in the journal or the store, whatever is slow.
const WELCOME_STORED_US: u64 = 5_000_000;

/// Actors and observer share it; a run has one thread.
pub type Shared = Rc<RefCell<Witness>>;

/// Times the node may take beyond what the contract says, once faults are over, in simulated microseconds.
pub const SLACK_US: u64 = 5_000_000;

/// How a violation's line of the timeline begins.
pub const VIOLATION: &str = "VIOLATION";

/// A line of the timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, simulated microseconds.
    pub at_us: u64,
    /// About whom.
    pub about: About,
    /// What was seen.
    pub text: String,
    /// What happened to the node, or what is wrong.
    pub of_node: bool,
}

/// What the run says about itself before it begins.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
pub struct Expect {
    /// How ids are written.
    pub style: Style,
    /// Number of nodes; 1: it is no fleet.
    pub nodes: u8,
    /// Of a fleet that has all of its nodes, what these share and the links between them at all times: how long its nodes need
    /// to know each other after the last one's start, microseconds.
    pub whole_after_us: Option<u64>,
    /// Number of drivers, at most 64.
    pub drivers: u32,
    /// The node may refuse to start (bit rot).
    pub may_refuse: bool,
    /// The node may end itself (write errors).
    pub may_fail: bool,
    /// The node may be told to drain.
    pub may_drain: bool,
    /// `drain_ms`.
    pub drain_ms: u64,
    /// `shards`
    pub shards: u16,
    /// How long anything may be under way between a caller and a queue, milliseconds.
    pub order_margin_ms: u64,
    /// Rings between shards are as long as a node has them: one that is full holds up what is behind it, and nothing else.
    pub rings_have_room: bool,
    /// How long anything may be under way between a request and a driver inside the node, milliseconds.
    pub inside_margin_ms: u64,
    /// `ingress_age_step_ms`.
    pub age_step_ms: u64,
    /// `heartbeat_ms`.
    pub heartbeat_ms: u64,
    /// `off_shift_memory_ms`.
    pub off_shift_memory_ms: u64,
    /// `output_stall_ms`.
    pub output_stall_ms: u64,
    /// `driver_ttl_ms`.
    pub driver_ttl_ms: u64,
    /// `offer_timeout_ms`, of requests that do not say.
    pub offer_timeout_ms: u64,
    /// `deadline_ms`, of requests that do not say.
    pub deadline_ms: u64,
    /// So few requests may queue that 429 is no wonder.
    pub may_shed: bool,
    /// Segments hold so few commits that room runs out before the next one is made: 503 `not_durable` is no wonder.
    pub may_be_short: bool,
    /// The network may reset connections.
    pub may_reset: bool,
    /// Of a fleet: what one node says to another may be lost for ever.
    pub may_lose_letters: bool,
    /// Keep a timeline.
    pub trace: bool,
}

impl Expect {
    /// Whether several nodes serve.
    pub(crate) fn is_fleet(&self) -> bool {
        self.nodes > 1
    }
}

/// What is known of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeSeen {
    /// Node time less simulated time of each boot, microseconds, and when that boot began.
    pub boots: Vec<(u64, u64)>,
    /// When each boot but the last ended, node time in milliseconds.
    pub ended_ms: Vec<u64>,
    /// The same, simulated microseconds.
    pub ended_us: Vec<u64>,
    /// When faults were over.
    pub faults_over_us: Option<u64>,
    /// Whether it takes connections.
    pub up: bool,
    /// Whether it was told to drain.
    pub draining: bool,
    /// When it was last told so.
    pub drained_us: u64,
    /// How often it was.
    pub drains: u32,
    /// Drivers who were told to go elsewhere by a node that drained, and those who were not.
    pub sent_away: (u32, u32),
    /// Of the drivers who may have been there when it was last told to drain, how many it has sent away, and how many there were.
    pub leaving: (u32, u32),
    /// When the drivers whom it has sent away since then are to come again, milliseconds.
    pub retries: Vec<(ids::Driver, u64)>,
    /// Of a fleet: which nodes take connections, and which were told to drain.
    pub each: Vec<(bool, bool)>,
}

impl NodeSeen {
    /// Whether a start found the clock set back: then the node's time says nothing about what came before that and what after.
    pub(crate) fn has_time_fallen(&self) -> bool {
        self.boots.windows(2).any(|pair| pair[1].0 < pair[0].0)
    }

    /// Whether a boot ended between these, node time.
    pub(crate) fn is_end_near(&self, from_ms: u64, to_ms: u64) -> bool {
        self.ended_ms
            .iter()
            .any(|ended_ms| (from_ms..=to_ms).contains(ended_ms))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Witness {
    /// The ids of the run.
    pub ids: Ids,
    /// What actors tell each other.
    pub board: Board,
    /// What is known of the node.
    pub node: NodeSeen,
    pub(crate) expect: Expect,
    pub(crate) requests: Vec<Request>,
    pub(crate) drivers: Vec<state::Driver>,
    pub(crate) trips: Vec<TripSeen>,
    calls: Vec<calls::Call>,
    /// Of the requests that were posted when nothing ailed the nodes, how many were answered 503, and how many were answered.
    calm_posts: (u32, u32),
    /// Of each node: cursors are its own.
    events: Vec<events::EventLog>,
    last_read: last::LastRead,
    counts: Counts,
    violation: Option<Violation>,
    lines: Vec<Line>,
    now_us: u64,
    messages: u64,
    shifts_over: u64,
    audited: bool,
}

impl Witness {
    /// Knows nothing yet.
    ///
    /// # Panics
    /// When there are more than 64 drivers.
    pub fn new(expect: Expect) -> Self {
        assert!(expect.drivers <= 64, "sets of drivers are words");
        Self {
            ids: Ids::new(expect.style),
            board: Board::default(),
            node: NodeSeen {
                each: vec![(false, false); usize::from(expect.nodes)],
                ..NodeSeen::default()
            },
            requests: Vec::new(),
            drivers: (0..expect.drivers).map(|_| state::Driver::default()).collect(),
            trips: Vec::new(),
            calls: Vec::new(),
            calm_posts: (0, 0),
            events: vec![events::EventLog::default(); usize::from(expect.nodes)],
            last_read: last::LastRead::default(),
            counts: Counts::default(),
            violation: None,
            lines: Vec::new(),
            now_us: 0,
            messages: 0,
            shifts_over: 0,
            audited: false,
            expect,
        }
    }

    /// One to share.
    pub fn shared(expect: Expect) -> Shared {
        Rc::new(RefCell::new(Self::new(expect)))
    }

    /// The time of what comes next.
    pub fn at(&mut self, now_us: u64) -> &mut Self {
        debug_assert!(now_us >= self.now_us, "time never falls");
        self.now_us = now_us;
        self
    }

    /// The first violation.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// How often each check was made.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The timeline, if it was kept.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// How many requests were posted.
    pub fn requests_posted(&self) -> u64 {
        self.requests.iter().filter(|request| request.posts > 0).count() as u64
    }

    /// How many calls were made.
    pub fn calls_made(&self) -> u64 {
        self.calls.len() as u64
    }

    /// How many messages drivers sent.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// How many drivers came back available, since they had been off shift for longer than that is remembered.
    pub fn shifts_over(&self) -> u64 {
        self.shifts_over
    }

    /// At the end, when the auditor has not come through: who was not answered.
    pub fn check_open_calls(&mut self) {
        self.check_calls_answered();
    }

    /// Numbers of requests known so far are below this.
    pub fn requests_len(&self) -> u32 {
        self.requests.len() as u32
    }

    /// Whether the node must know this driver.
    pub fn is_known(&self, driver: ids::Driver) -> bool {
        let seen = &self.drivers[driver as usize];
        seen.known || seen.viewed
    }

    /// Whether the auditor has read everything.
    pub fn is_audited(&self) -> bool {
        self.audited
    }

    /// What is known of a request.
    pub fn request(&self, request: ids::Request) -> &Request {
        &self.requests[request as usize]
    }

    /// Something that violates a check, seen by an actor.
    pub fn broken(&mut self, check: Check, about: About, text: impl Into<String>) {
        self.counts.add(check);
        self.violate(check, about, text);
    }

    /// Counts a check; says whether it holds.
    pub(crate) fn holds(&mut self, check: Check, ok: bool) -> bool {
        self.counts.add(check);
        ok
    }

    pub(crate) fn violate(&mut self, check: Check, about: About, text: impl Into<String>) {
        let text = text.into();
        self.note_of(about, true, || format!("{VIOLATION} {}: {text}", check.as_str()));
        if self.violation.is_none() {
            self.violation = Some(Violation {
                check,
                at_us: self.now_us,
                about,
                text,
            });
        }
    }

    pub(crate) fn note(&mut self, about: About, text: impl FnOnce() -> String) {
        self.note_of(about, false, text);
    }

    fn note_of(&mut self, about: About, of_node: bool, text: impl FnOnce() -> String) {
        if self.expect.trace {
            let at_us = self.now_us;
            self.lines.push(Line {
                at_us,
                about,
                text: text(),
                of_node,
            });
        }
    }

    /// The node's time is at most this, whichever boot a message comes from, Unix milliseconds.
    pub(crate) fn node_ms_max(&self) -> u64 {
        if !self.node.up {
            // A boot that serves before it has been reported.
            return u64::MAX;
        }
        let offset_us = self.node.boots.iter().map(|boot| boot.0).max().unwrap_or(0);
        (self.now_us + offset_us) / 1_000
    }

    /// The least that the node's time may have been at a simulated time, over all boots, Unix milliseconds.
    pub(crate) fn earliest_ms_at(&self, at_us: u64) -> u64 {
        if !self.node.up {
            return 0;
        }
        let offset_us = self.node.boots.iter().map(|boot| boot.0).min().unwrap_or(0);
        (at_us + offset_us) / 1_000
    }

    /// The node's time at a simulated time, for its last boot, Unix milliseconds.
    pub(crate) fn node_ms_at(&self, at_us: u64) -> u64 {
        self.node.boots.last().map_or(0, |boot| (at_us + boot.0) / 1_000)
    }

    /// The greatest that the node's time may have been at a simulated time, over all boots, Unix milliseconds.
    pub(crate) fn latest_ms_at(&self, at_us: u64) -> u64 {
        let offset_us = self.node.boots.iter().map(|boot| boot.0).max().unwrap_or(0);
        (at_us + offset_us) / 1_000
    }

    /// Since when faults are over and the node runs, simulated microseconds.
    pub(crate) fn calm_since_us(&self) -> Option<u64> {
        let begun_us = self.node.boots.last().map_or(0, |boot| boot.1);
        self.node.faults_over_us.map(|over_us| over_us.max(begun_us))
    }

    /// Whether what is asked at this time meets a node that has long recovered from all faults.
    pub(crate) fn is_calm_at(&self, at_us: u64) -> bool {
        let calm = self.calm_since_us().is_some_and(|since_us| since_us + SLACK_US < at_us);
        calm && self.node.each.iter().all(|(up, _)| *up) && !self.node.draining
    }

    /// What happens to the node.
    pub fn node_event(&mut self, node: u8, event: NodeEvent<'_>) {
        let several = self.is_fleet();
        self.note_of(About::default(), true, || {
            let name = if several {
                format!("node {node}")
            } else {
                "node".to_owned()
            };
            format!("{name}: {event:?}")
        });
        match event {
            NodeEvent::Started { wall_offset_us, .. } => {
                self.node.boots.push((wall_offset_us, self.now_us));
                self.node_is(node, (true, false));
            }
            NodeEvent::RefusedToStart(why) => {
                if !self.holds(Check::NodeLives, self.expect.may_refuse) {
                    self.violate(
                        Check::NodeLives,
                        About::default(),
                        format!("it refuses to start: {why}"),
                    );
                }
            }
            NodeEvent::Failed(what) => {
                self.node_ended(node);
                if !self.holds(Check::NodeLives, self.expect.may_fail) {
                    self.violate(Check::NodeLives, About::default(), format!("it ended itself: {what}"));
                }
            }
            NodeEvent::Drained => {
                // A process that does not serve yet ends at once, and is not told to drain.
                if self.node.draining {
                    self.check_drained();
                }
                self.await_closes();
                self.node_ended(node);
            }
            NodeEvent::Killed | NodeEvent::PowerLost => self.node_ended(node),
            NodeEvent::Draining => {
                self.node_is(node, (true, true));
                self.node.drained_us = self.now_us;
                self.node.drains += 1;
                self.begin_leaving();
            }
            NodeEvent::Fault(_) => {}
            NodeEvent::FaultsOver => {
                self.node.faults_over_us.get_or_insert(self.now_us);
            }
        }
    }
}

impl Witness {
    /// Whether several nodes serve.
    pub(crate) fn is_fleet(&self) -> bool {
        self.expect.is_fleet()
    }

    /// Whether at this time a node may be without the others, or without what they share.
    pub(crate) fn may_be_cut_off_at(&self, at_us: u64) -> bool {
        self.is_fleet() && self.whole_since_us().is_none_or(|since_us| at_us < since_us)
    }

    /// Since when a fleet that stays whole is.
    pub(crate) fn whole_since_us(&self) -> Option<u64> {
        let is_up = self.node.boots.len() >= usize::from(self.expect.nodes);
        let begun_us = self.node.boots.last().filter(|_| is_up)?.1;
        Some(begun_us + self.expect.whole_after_us?)
    }

    /// A node takes connections, or not, and drains, or not.
    fn node_is(&mut self, node: u8, now: (bool, bool)) {
        self.node.each[usize::from(node)] = now;
        self.node.up = self.node.each.iter().any(|(up, _)| *up);
        self.node.draining = self.node.each.iter().any(|(_, draining)| *draining);
    }

    /// The node is gone. A welcome promises nothing: a driver seen for the first time shortly before may be forgotten.
    fn node_ended(&mut self, node: u8) {
        self.node_is(node, (false, false));
        self.spans_end();
        self.node.ended_ms.push(self.node_ms_at(self.now_us));
        self.node.ended_us.push(self.now_us);
        let now_us = self.now_us;
        for driver in &mut self.drivers {
            driver.known &= driver.welcomed_us + WELCOME_STORED_US < now_us;
        }
    }
}

/// Tells the witness what happens to the node.
#[derive(Debug)]
pub struct Reporter(pub Shared);

impl Observer for Reporter {
    fn node(&mut self, node: u8, event: NodeEvent<'_>, now_us: u64) {
        self.0.borrow_mut().at(now_us).node_event(node, event);
    }
}
