//! What shards and the registry say to each other, and a shard's end of it. Data and bounded queues only.
//!
//! Bounds: at most [`CLAIMS_MAX`] connects wait for their session, [`LOOKUPS_MAX`] look-ups for their answer and
//! [`BATCHES_MAX`] batches of [`LINES_MAX`] lines to be written, of all shards together. The inbox needs no bound of its own:
//! it holds at most one answer per connect and look-up, one message per line that was refused, and what is said once a second.

use super::assign::NodeList;
use crate::fsm::driver::Location;
use crate::fsm::ids::{DriverId, RequestId, TripId};
use crate::fsm::types::{DriverState, UnixMs};
use crate::wake::WakeFlag;
use compact_str::CompactString;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, mpsc};

/// Most lines of one batch: a pipeline.
pub const LINES_MAX: usize = 256;
/// Most batches that wait, of all shards.
pub const BATCHES_MAX: usize = 64;
/// Most connects that wait for their session, of all shards; what is beyond goes on without the registry.
pub const CLAIMS_MAX: usize = 8_192;

/// Most look-ups of drivers that wait, of all shards; what is beyond is answered at once that nobody knows.
pub const LOOKUPS_MAX: usize = 8_192;

/// Called after something was put into the shard's inbox; must not block.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// Hears which nodes are alive, when that has changed.
pub type OnNodes = Box<dyn Fn(&Arc<NodeList>) + Send>;

/// A driver connects to this node.
#[derive(Debug)]
pub struct Claim {
    /// Comes back with the answer.
    pub token: u64,
    /// Who.
    pub driver_id: DriverId,
    /// The session that this node would give: greater than any that it gave.
    pub proposed: u64,
    /// When, Unix milliseconds.
    pub at_ms: UnixMs,
}

/// All that the registry is to know of one driver of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Who.
    pub driver_id: DriverId,
    /// The session under which this node has the driver.
    pub session: u64,
    /// What.
    pub what: What,
}

/// Whether a driver is here.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// Yes, and how it is.
    Here(Here),
    /// Nothing is left to know of it: the entry goes.
    Gone,
}

/// How a driver is.
#[derive(Clone, Debug, PartialEq)]
pub struct Here {
    /// As the contract has it, `offered` included.
    pub state: DriverState,
    /// Its trip.
    pub trip_id: Option<TripId>,
    /// Where it said it is.
    pub location: Option<Location>,
    /// When it was last heard.
    pub last_seen_ms: UnixMs,
    /// Whose offer it holds, or whose trip it has.
    pub at_hand: Option<AtHand>,
    /// How long the node keeps the driver at least, milliseconds: its entry lasts as long, if that is longer than usual.
    pub kept_ms: u64,
}

/// The request that binds a driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtHand {
    /// Which.
    pub request_id: RequestId,
    /// The node that has it.
    pub node_id: CompactString,
    /// How long that may last at least, in milliseconds from now.
    pub lasts_ms: u64,
}

/// Where a driver is, is asked.
#[derive(Debug)]
pub struct Lookup {
    /// Comes back with the answer.
    pub token: u64,
    /// Who.
    pub driver_id: DriverId,
}

/// Where a driver is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its node's name.
    pub node_id: CompactString,
    /// Its session there.
    pub session: u64,
    /// The request that binds it, and the node that has that.
    pub at_hand: Option<(RequestId, CompactString)>,
}

/// What was known of a driver before it connected to this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The node that had it; may be this one.
    pub node_id: CompactString,
    /// Its session there; 0: not known.
    pub session: u64,
    /// The request that bound it, and the node that has that.
    pub at_hand: Option<(RequestId, CompactString)>,
}

/// Lines of one shard.
pub struct Batch {
    /// Where it is said what of them was refused.
    pub inbox: Arc<Inbox>,
    /// At most [`LINES_MAX`].
    pub lines: Vec<Line>,
    /// Since when the oldest of them waits, Unix milliseconds.
    pub since_ms: UnixMs,
}

/// What comes back to a shard.
#[derive(Clone, Debug)]
pub enum FromRegistry {
    /// To a [`Claim`]: the driver's session. `None`: the registry cannot say, and the node gives one of its own.
    Claimed {
        /// As given to the claim.
        token: u64,
        /// Greater than every session before it.
        session: Option<u64>,
        /// What the registry knew of the driver.
        previous: Option<Box<Previous>>,
    },
    /// To a [`Lookup`].
    Found {
        /// As given to the look-up.
        token: u64,
        /// `Err`: the registry cannot say. `None`: it knows of no such driver.
        at: Result<Option<Found>, ()>,
    },
    /// Another node has the driver, if this one has it under this session or an older one.
    Moved {
        /// Who.
        driver_id: DriverId,
        /// A connect to this node since then has a greater one.
        session: u64,
    },
    /// The nodes that are alive have changed.
    Nodes(Arc<NodeList>),
}

/// The registry's end of a shard's inbox.
pub struct Inbox {
    sender: Sender<FromRegistry>,
    waker: Waker,
    woken: WakeFlag,
}

impl Inbox {
    /// Puts `message` in and wakes the shard, once between two polls.
    pub fn send(&self, message: FromRegistry) {
        // A shard that is gone needs no answers.
        if self.sender.send(message).is_ok() {
            self.wake();
        }
    }

    /// Wakes the shard: something that it looks at has changed.
    pub fn wake(&self) {
        if self.woken.raise() {
            (self.waker)();
        }
    }
}

/// Where a connect's answer goes. Given or not, there is one: without a session when it is dropped.
pub struct Reply {
    inbox: Arc<Inbox>,
    token: u64,
    session: Option<u64>,
    previous: Option<Box<Previous>>,
}

impl Reply {
    /// The driver has this session.
    pub fn give(mut self, session: u64, previous: Option<Previous>) {
        self.session = Some(session);
        self.previous = previous.map(Box::new);
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.inbox.send(FromRegistry::Claimed {
            token: self.token,
            session: self.session,
            previous: self.previous.take(),
        });
    }
}

/// Where a look-up's answer goes. Given or not, there is one: that nobody can say, when it is dropped.
pub struct LookupReply {
    inbox: Arc<Inbox>,
    token: u64,
    at: Result<Option<Found>, ()>,
}

impl LookupReply {
    /// This is what the registry says.
    pub fn give(mut self, at: Option<Found>) {
        self.at = Ok(at);
    }
}

impl Drop for LookupReply {
    fn drop(&mut self) {
        let at = std::mem::replace(&mut self.at, Err(()));
        self.inbox.send(FromRegistry::Found { token: self.token, at });
    }
}

/// Whether the registry can be written to.
#[derive(Debug, Default)]
pub struct Presence {
    generation: AtomicU64,
    hurry: Notify,
}

impl Presence {
    /// The number of the present connection, from 1; 0 when there is none, or this node is not to write.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Says it: see [`Self::generation`].
    pub fn set(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
    }

    /// What the lease says is to be said again now.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Returns when it is.
    pub async fn hurried(&self) {
        self.hurry.notified().await;
    }
}

/// One shard's end of the registry.
pub struct RegistryHandle {
    inbox: Arc<Inbox>,
    received: Receiver<FromRegistry>,
    claims: mpsc::Sender<(Reply, Claim)>,
    batches: mpsc::Sender<Batch>,
    lookups: mpsc::Sender<(LookupReply, Lookup)>,
    presence: Arc<Presence>,
}

impl RegistryHandle {
    /// An end whose inbox calls `waker` and whose questions go to these channels.
    pub fn new(
        waker: Waker,
        claims: mpsc::Sender<(Reply, Claim)>,
        batches: mpsc::Sender<Batch>,
        lookups: mpsc::Sender<(LookupReply, Lookup)>,
        presence: Arc<Presence>,
    ) -> Self {
        let (sender, received) = unbounded();
        let woken = WakeFlag::new();
        Self {
            inbox: Arc::new(Inbox { sender, waker, woken }),
            received,
            claims,
            batches,
            lookups,
            presence,
        }
    }

    /// Which registry this is: 0 while there is none to write to. With another number than before, what was written
    /// under the old one may be lost, and everything is to be written again.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.presence.generation()
    }

    /// The node begins to serve or to end: its lease says so at once rather than with its next renewal.
    pub fn sign_now(&self) {
        self.presence.hurry();
    }

    /// Asks for a driver's session; the answer comes by [`Self::poll`], at once and without a session when nobody can be
    /// asked.
    pub fn claim(&self, claim: Claim) {
        let reply = Reply {
            inbox: Arc::clone(&self.inbox),
            token: claim.token,
            session: None,
            previous: None,
        };
        // What is not taken is dropped, and so answered.
        drop(self.claims.try_send((reply, claim)));
    }

    /// Asks where a driver is; the answer comes by [`Self::poll`], at once when nobody can be asked.
    pub fn look_up(&self, lookup: Lookup) {
        let reply = LookupReply {
            inbox: Arc::clone(&self.inbox),
            token: lookup.token,
            at: Err(()),
        };
        // What is not taken is dropped, and so answered.
        drop(self.lookups.try_send((reply, lookup)));
    }

    /// For whoever answers.
    pub fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Gives at most [`LINES_MAX`] lines; the oldest of them waits since `since_ms`.
    ///
    /// # Errors
    /// Gives them back when the registry has enough to do.
    pub fn write(&self, lines: Vec<Line>, since_ms: UnixMs) -> Result<(), Vec<Line>> {
        debug_assert!(!lines.is_empty() && lines.len() <= LINES_MAX);
        let inbox = Arc::clone(&self.inbox);
        let batch = Batch { inbox, lines, since_ms };
        self.batches.try_send(batch).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(batch) | mpsc::error::TrySendError::Closed(batch) => batch.lines,
        })
    }

    /// Takes everything out of the inbox, without waiting, and appends it to `out`.
    pub fn poll(&self, out: &mut Vec<FromRegistry>) {
        // First: whoever sends after this line wakes the shard again, and what was sent before it is seen below.
        self.inbox.woken.lower();
        out.extend(self.received.try_iter());
    }
}
