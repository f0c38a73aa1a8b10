//! The port between shards and what a fleet decides with: who owns a request, and which steps of it stand. Data and queues only.
//!
//! In a fleet a decision of a request is first stored with all nodes' store, on the condition that its owner is still this
//! node in this boot and that nobody added steps meanwhile; only then it goes to the shard's journal. So no journal holds a
//! decision that was not made.
//!
//! Invariants worth naming:
//! - Every [`Decision`] gets exactly one of [`FromClaims::Stored`], [`FromClaims::Fenced`], [`FromClaims::DriverBound`],
//!   [`FromClaims::Withdrawn`] and [`FromClaims::Lost`], however long that takes. A request has one decision under way at most, so the queue needs no bound of
//!   its own: what a shard takes in is bounded by [`ClaimsHandle::waiting`].
//! - A request is given to a shard by [`FromClaims::Adopted`] only after this node is its owner.

use super::port::FarRequest;
use super::registry::NodeList;
use crate::fsm::fold::Fold;
use crate::fsm::ids::{DriverId, RequestId, TripId, home_shard};
use crate::fsm::types::{LogEntry, RequestLog, RequestState, UnixMs};
use crate::wake::WakeFlag;
use compact_str::CompactString;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// Decisions of one shard under way beyond which it takes in no new requests.
pub const CLAIMS_WAITING_MAX: usize = 1_024;

/// Called after something was put into the shard's inbox; must not block.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// Steps that a request decided, to be stored while it is as its owner thinks.
#[derive(Clone, Debug)]
pub struct Decision {
    /// Comes back with the answer.
    pub token: u64,
    /// Whose.
    pub request_id: RequestId,
    /// How often the request changed its owner before.
    pub epoch: u32,
    /// Steps that are stored already; 0: the request is new, and is claimed.
    pub stored: u32,
    /// What follows them.
    pub steps: Vec<LogEntry>,
    /// How the request is after them.
    pub head: Head,
    /// When it was received.
    pub received_at_ms: UnixMs,
    /// The driver who wins, and the trip: bound first.
    pub bind: Option<(DriverId, TripId)>,
    /// The driver whose trip is over: released afterwards.
    pub release: Option<DriverId>,
}

/// What stands once per request beside its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The contract's `state`.
    pub state: RequestState,
    /// The contract's `attempt`.
    pub attempt: u32,
    /// The contract's `driver_id`.
    pub driver_id: Option<DriverId>,
    /// The trip.
    pub trip_id: Option<TripId>,
    /// Since when nothing can change any more.
    pub ended_at_ms: Option<UnixMs>,
}

impl Head {
    /// Of a request with this log and what it folds to.
    pub fn of(fold: &Fold, log: &[LogEntry]) -> Self {
        let (attempt, driver_id) = fold.current();
        Self {
            state: fold.state(),
            attempt,
            driver_id: driver_id.cloned(),
            trip_id: fold.trip.as_ref().map(|trip| trip.trip_id.clone()),
            ended_at_ms: fold.is_closed().then(|| log.last().map_or(0, |last| last.at_ms)),
        }
    }
}

/// A request that is this node's from now on.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// All steps that were decided.
    pub log: RequestLog,
    /// Where the last decision begins in it: its owner may not have come to publish that.
    pub last_from: usize,
    /// How often the request changed its owner, this time included.
    pub epoch: u32,
    /// Whether another node had it, as far as its rows say: its audit is then what all nodes' store has.
    pub is_foreign: bool,
    /// Whose it was.
    pub from: CompactString,
}

/// A request that a node hands over to this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Which.
    pub request_id: RequestId,
    /// When it was received.
    pub received_at_ms: UnixMs,
    /// The node that has it.
    pub from: CompactString,
}

/// What is asked of the fleet's store.
#[derive(Debug)]
pub enum ToClaims {
    /// The shards are there: what an earlier boot of this node owned is taken over. Answered when that is done.
    Begin {
        /// This boot.
        incarnation: u64,
        /// Where the answer goes.
        done: std_mpsc::Sender<()>,
    },
    /// Store this.
    Decide(Arc<Inbox>, Box<Decision>),
    /// Steps that nobody waits for, of a request that has another owner now: they are kept for its audit.
    Receipts {
        /// Whose.
        request_id: RequestId,
        /// Under which they were made.
        epoch: u32,
        /// Number of the first of them, from 1.
        seq: u32,
        /// Not empty.
        steps: Vec<LogEntry>,
    },
    /// A request of an earlier boot that was not taken over with the others: whose is it? It is claimed when it is nobody's.
    Reclaim(Arc<Inbox>, Box<RequestLog>),
    /// Whether this request is still this node's.
    Check(Arc<Inbox>, RequestId),
    /// A node that ends has stopped deciding about this request: it is to be this node's.
    HandOver(Arc<Inbox>, Handed),
    /// The end of a request, received then, is in the journal: nobody has to take it over any more.
    Over(RequestId, UnixMs),
    /// The nodes that are alive.
    Nodes(Arc<NodeList>),
    /// Whether this node holds its lease.
    Lease(bool),
}

/// What is known of a decision that was refused, since another owner has its request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// The node that has the request; empty: none, it has expired.
    pub owner: CompactString,
    /// The decision was stored before the owner changed, when nobody heard of that: the new owner goes on from it.
    pub stood: bool,
}

/// Whose a request is that was asked about, and is not this node's. It may have become this node's since that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotMine {
    /// Which.
    pub request_id: RequestId,
    /// The node that has it; empty: none, it has expired.
    pub owner: CompactString,
    /// How often it had changed its owner; `None`: it has expired.
    pub epoch: Option<u32>,
    /// It is the answer to [`ToClaims::Reclaim`], which keeps the request on the list of open ones until the request is over here.
    pub is_reclaimed: bool,
}

/// What comes back to a shard.
#[derive(Clone, Debug)]
pub enum FromClaims {
    /// The decision of this token stands.
    Stored(u64),
    /// Another owner has the request of this token.
    Fenced(u64, Loss),
    /// The driver who was to win has another trip.
    DriverBound(u64),
    /// The decision of this token takes long; an answer to it follows all the same.
    Delayed(u64),
    /// The new request of this token was not sent, since so much waits before it: it never was.
    Withdrawn(u64),
    /// The new request of this token was there already: as it was found.
    Lost(u64, Box<FarRequest>),
    /// A request to go on with.
    Adopted(Box<Adopted>),
    /// Whether this request is this node's takes long to be known; an answer to that follows all the same.
    CheckDelayed(RequestId),
    /// This request is this node's still.
    Mine(RequestId),
    /// This request is another node's, as it was read.
    NotMine(NotMine),
    /// The answer to [`ToClaims::HandOver`]: the request was taken over, which [`Self::Adopted`] has said before, or is left as it
    /// was.
    HandOver(Handed, bool),
    /// What an earlier boot owned was taken over; what is not among it is not this node's, or was never stored.
    OwnDone,
}

/// The store's end of a shard's inbox.
pub struct Inbox {
    sender: Sender<FromClaims>,
    waker: Waker,
    woken: WakeFlag,
    waiting: AtomicUsize,
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inbox")
    }
}

impl Inbox {
    /// Puts `message` in and wakes the shard, once between two polls.
    pub fn send(&self, message: FromClaims) {
        // A shard that is gone needs no answers.
        if self.sender.send(message).is_ok() && self.woken.raise() {
            (self.waker)();
        }
    }

    /// Answers a decision of this shard.
    ///
    /// # Panics
    /// When the shard waits for no answer: the store's bug.
    pub fn answer(&self, message: FromClaims) {
        let before = self.waiting.fetch_sub(1, Ordering::AcqRel);
        assert!(before > 0, "an answer without a decision");
        self.send(message);
    }
}

/// The inboxes of all shards, by shard.
#[derive(Debug, Default)]
pub struct Inboxes(Mutex<Vec<Option<Arc<Inbox>>>>);

impl Inboxes {
    /// The inbox of the shard at which this request is at home.
    ///
    /// # Panics
    /// When that shard is not attached: requests are adopted after the shards are there.
    pub fn home_of(&self, request_id: &RequestId) -> Arc<Inbox> {
        let inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let home = home_shard(request_id.hash64(), inboxes.len() as u16);
        Arc::clone(inboxes[usize::from(home)].as_ref().expect("every shard is attached"))
    }

    /// Says something to every shard.
    pub fn tell(&self, message: &FromClaims) {
        let inboxes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for inbox in inboxes.iter().flatten() {
            inbox.send(message.clone());
        }
    }
}

/// The node's end: hands every shard its own.
pub struct Claims {
    sender: UnboundedSender<ToClaims>,
    inboxes: Arc<Inboxes>,
}

impl Claims {
    /// Of a node with so many shards, whose questions go to `sender`.
    pub fn new(sender: UnboundedSender<ToClaims>, shards: u16) -> Self {
        let inboxes = Inboxes(Mutex::new((0..shards).map(|_| None).collect()));
        Self {
            sender,
            inboxes: Arc::new(inboxes),
        }
    }

    /// For whoever answers.
    pub fn inboxes(&self) -> Arc<Inboxes> {
        Arc::clone(&self.inboxes)
    }

    /// One shard's end, which calls `waker`.
    pub fn attach(&self, shard: u16, waker: Waker) -> ClaimsHandle {
        let (sender, received) = unbounded();
        let inbox = Arc::new(Inbox {
            sender,
            waker,
            woken: WakeFlag::new(),
            waiting: AtomicUsize::new(0),
        });
        let mut inboxes = self.inboxes.0.lock().unwrap_or_else(PoisonError::into_inner);
        inboxes[usize::from(shard)] = Some(Arc::clone(&inbox));
        ClaimsHandle {
            inbox,
            received,
            sender: self.sender.clone(),
        }
    }

    /// All shards are attached: what an earlier boot of this node owned is taken over. Says when that is done.
    pub fn begin(&self, incarnation: u64) -> std_mpsc::Receiver<()> {
        let (done, is_done) = std_mpsc::channel();
        // Refused only by a thread that has panicked, which ends the process.
        let _ = self.sender.send(ToClaims::Begin { incarnation, done });
        is_done
    }
}

/// One shard's end.
pub struct ClaimsHandle {
    inbox: Arc<Inbox>,
    received: Receiver<FromClaims>,
    sender: UnboundedSender<ToClaims>,
}

impl ClaimsHandle {
    /// Asks for a decision to be stored.
    pub fn decide(&self, decision: Box<Decision>) {
        self.inbox.waiting.fetch_add(1, Ordering::AcqRel);
        self.send(ToClaims::Decide(Arc::clone(&self.inbox), decision));
    }

    /// See [`ToClaims::Receipts`].
    pub fn keep_receipts(&self, request_id: RequestId, epoch: u32, seq: u32, steps: Vec<LogEntry>) {
        debug_assert!(!steps.is_empty());
        self.send(ToClaims::Receipts {
            request_id,
            epoch,
            seq,
            steps,
        });
    }

    /// See [`ToClaims::Reclaim`].
    pub fn reclaim(&self, log: RequestLog) {
        self.send(ToClaims::Reclaim(Arc::clone(&self.inbox), Box::new(log)));
    }

    /// See [`ToClaims::Check`].
    pub fn check(&self, request_id: RequestId) {
        self.send(ToClaims::Check(Arc::clone(&self.inbox), request_id));
    }

    /// See [`ToClaims::HandOver`].
    pub fn take_over(&self, handed: Handed) {
        self.send(ToClaims::HandOver(Arc::clone(&self.inbox), handed));
    }

    /// See [`ToClaims::Over`].
    pub fn over(&self, request_id: RequestId, received_at_ms: UnixMs) {
        self.send(ToClaims::Over(request_id, received_at_ms));
    }

    /// Says who is alive.
    pub fn nodes_seen(&self, nodes: Arc<NodeList>) {
        self.send(ToClaims::Nodes(nodes));
    }

    /// Says whether this node holds its lease.
    pub fn lease_seen(&self, is_held: bool) {
        self.send(ToClaims::Lease(is_held));
    }

    fn send(&self, ask: ToClaims) {
        // The thread ends after the shards; an end before that was a panic, which ends the process.
        let _ = self.sender.send(ask);
    }

    /// Decisions of this shard that are not answered yet.
    pub fn waiting(&self) -> usize {
        self.inbox.waiting.load(Ordering::Acquire)
    }

    /// Takes everything out of the inbox, without waiting, and appends it to `out`.
    pub fn poll(&self, out: &mut Vec<FromClaims>) {
        // First: whoever sends after this line wakes the shard again, and what was sent before it is seen below.
        self.inbox.woken.lower();
        out.extend(self.received.try_iter());
    }
}
