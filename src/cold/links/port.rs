//! What shards and links say to each other, and a shard's end of them. Data and bounded queues only.

use crate::wake::WakeFlag;
use crate::wire::link::LinkLetter;
use compact_str::CompactString;
use crossbeam::channel::{Receiver, Sender, unbounded};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// Most letters that wait for one node, and most that it has not acknowledged.
pub const QUEUE_LETTERS_MAX: usize = 8_192;
/// Most bytes of letters that one node has not acknowledged.
pub const UNACKED_BYTES_MAX: usize = 16 << 20;
/// A connection that says nothing for so long is dead.
pub const SILENCE_MAX: Duration = Duration::from_millis(800);
/// How long letters are kept for a node that cannot be reached.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Most nodes that one process can number: its fleet, and those that it has seen leave.
pub const PEERS_MAX: usize = 512;
/// Letters that a shard has not taken, beyond which links stop reading.
pub const INBOX_LETTERS_MAX: usize = 16_384;

/// Called after something was put into the shard's inbox; must not block.
pub type Waker = Box<dyn Fn() + Send + Sync>;

/// What comes to a shard.
#[derive(Clone, Debug, PartialEq)]
pub enum FromLinks {
    /// A letter for something at home there.
    Letter {
        /// Who sent it, by its number.
        from: u16,
        /// The letter.
        letter: Box<LinkLetter>,
    },
    /// Letters to this node go out.
    Up {
        /// Its number.
        peer: u16,
        /// Its process is another than before, or letters were lost since: what it was told last it may not know.
        is_new: bool,
    },
    /// Letters to this node wait.
    Down {
        /// Its number.
        peer: u16,
    },
    /// Letters to this node were given up.
    Lost {
        /// Its number.
        peer: u16,
    },
}

/// A letter that was not taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused(pub Box<LinkLetter>);

/// A node that letters can go to.
#[derive(Debug)]
struct Peer {
    letters: mpsc::Sender<Box<LinkLetter>>,
    is_up: AtomicBool,
    is_leaving: AtomicBool,
    /// It is there: whoever rests before dialing it again need not.
    is_there: Notify,
}

/// Names of nodes and their numbers in this process, from 1. A number is for ever: shards keep it.
#[derive(Debug)]
pub struct Peers {
    own: CompactString,
    names: Mutex<Vec<CompactString>>,
    peers: Box<[OnceLock<Peer>]>,
    /// Tells the links' thread of a node that is new.
    added: mpsc::UnboundedSender<NewPeer>,
}

/// A node that was numbered just now.
pub struct NewPeer {
    /// From 1.
    pub number: u16,
    /// Its name.
    pub name: CompactString,
    /// What shards write to it.
    pub letters: mpsc::Receiver<Box<LinkLetter>>,
}

impl Peers {
    /// Of the node of this name, and where it is told of each node that is new.
    pub fn new(own: CompactString) -> (Self, mpsc::UnboundedReceiver<NewPeer>) {
        let (added, new) = mpsc::unbounded_channel();
        let peers = Self {
            own,
            names: Mutex::new(Vec::new()),
            peers: (0..PEERS_MAX).map(|_| OnceLock::new()).collect(),
            added,
        };
        (peers, new)
    }

    /// The name of this node.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// The number of a node: 0 for this one, `None` when there is none left.
    pub fn number_of(&self, name: &str) -> Option<u16> {
        if name == self.own {
            return Some(0);
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = names.iter().position(|known| known == name) {
            return Some(index as u16 + 1);
        }
        let place = self.peers.get(names.len())?;
        let (sender, letters) = mpsc::channel(QUEUE_LETTERS_MAX);
        let peer = Peer {
            letters: sender,
            is_up: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            is_there: Notify::new(),
        };
        if place.set(peer).is_err() {
            return None; // A place is filled once, under the lock.
        }
        names.push(name.into());
        let (number, name) = (names.len() as u16, CompactString::from(name));
        // The thread may have ended with the node.
        let _ = self.added.send(NewPeer { number, name, letters });
        Some(number)
    }

    /// The name of a number.
    pub fn name_of(&self, number: u16) -> Option<CompactString> {
        match usize::from(number).checked_sub(1) {
            None => Some(self.own.clone()),
            Some(index) => {
                let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                names.get(index).cloned()
            }
        }
    }

    fn peer(&self, number: u16) -> Option<&Peer> {
        self.peers.get(usize::from(number).checked_sub(1)?)?.get()
    }

    /// Whether letters to this node go out now.
    pub fn is_up(&self, number: u16) -> bool {
        self.peer(number).is_some_and(|peer| peer.is_up.load(Ordering::Acquire))
    }

    /// Letters to this node go out, or wait.
    pub fn set_up(&self, number: u16, is_up: bool) {
        if let Some(peer) = self.peer(number) {
            peer.is_up.store(is_up, Ordering::Release);
        }
    }

    /// Whether this node has said that it ends; its next life has not.
    pub fn is_leaving(&self, number: u16) -> bool {
        (self.peer(number)).is_some_and(|peer| peer.is_leaving.load(Ordering::Acquire))
    }

    /// This node has said that it ends, or its next life is there.
    pub fn set_leaving(&self, number: u16, is_leaving: bool) {
        if let Some(peer) = self.peer(number) {
            peer.is_leaving.store(is_leaving, Ordering::Release);
        }
    }

    /// A new process of this node has come.
    pub fn began(&self, number: u16) {
        self.set_leaving(number, false);
        if let Some(peer) = self.peer(number) {
            peer.is_there.notify_one();
        }
    }

    /// Returns when a new process of this node has come since the last call.
    pub async fn beginning(&self, number: u16) {
        match self.peer(number) {
            Some(peer) => peer.is_there.notified().await,
            None => std::future::pending().await,
        }
    }

    /// The number of a node that has one: 0 for this one.
    pub fn known(&self, name: &str) -> Option<u16> {
        if name == self.own {
            return Some(0);
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let index = names.iter().position(|known| known == name)?;
        Some(index as u16 + 1)
    }

    /// The numbers of all nodes that have one.
    pub fn numbers(&self) -> std::ops::RangeInclusive<u16> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        1..=names.len() as u16
    }

    /// Letters that wait for all nodes and that the thread has not taken.
    pub fn waiting(&self) -> usize {
        let taken = self.peers.iter().map_while(OnceLock::get);
        taken
            .map(|peer| peer.letters.max_capacity() - peer.letters.capacity())
            .sum()
    }
}

/// The links' end of a shard's inbox.
pub struct Inbox {
    sender: Sender<FromLinks>,
    waker: Waker,
    woken: WakeFlag,
}

impl Inbox {
    /// Puts `message` in and wakes the shard, once between two polls.
    pub fn send(&self, message: FromLinks) {
        if self.sender.send(message).is_ok() && self.woken.raise() {
            (self.waker)();
        }
    }

    /// How much the shard has not taken.
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.sender.len()
    }
}

/// One shard's end of the links.
pub struct LinksHandle {
    inbox: Arc<Inbox>,
    received: Receiver<FromLinks>,
    peers: Arc<Peers>,
}

impl LinksHandle {
    /// An end whose inbox calls `waker`.
    pub fn new(waker: Waker, peers: Arc<Peers>) -> Self {
        let (sender, received) = unbounded();
        let woken = WakeFlag::new();
        Self {
            inbox: Arc::new(Inbox { sender, waker, woken }),
            received,
            peers,
        }
    }

    /// For whoever delivers.
    pub fn inbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    /// Who is who.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Gives a letter for another node. It is kept while that node cannot be reached; who does not want that asks
    /// [`Peers::is_up`] first.
    ///
    /// # Errors
    /// Gives it back when there is no such node or too much waits for it.
    pub fn send(&self, peer: u16, letter: Box<LinkLetter>) -> Result<(), Refused> {
        let Some(peer) = self.peers.peer(peer) else {
            return Err(Refused(letter));
        };
        peer.letters.try_send(letter).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(letter) | mpsc::error::TrySendError::Closed(letter) => Refused(letter),
        })
    }

    /// Takes everything out of the inbox, without waiting, and appends it to `out`.
    pub fn poll(&self, out: &mut Vec<FromLinks>) {
        // First: whoever sends after this line wakes the shard again, and what was sent before it is seen below.
        self.inbox.woken.lower();
        out.extend(self.received.try_iter());
    }
}
