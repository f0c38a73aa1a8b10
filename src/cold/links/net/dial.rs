//! A connection that this node makes: letters out, acknowledgements in.

use super::tls::{self, Stream};
use super::{Core, GREETING_MAX};
use crate::cold::links::port::{FromLinks, NewPeer, PATIENCE, QUEUE_LETTERS_MAX, SILENCE_MAX, UNACKED_BYTES_MAX};
use crate::wire::link::{LinkFrame, LinkLetter, decode, encode};
use compact_str::CompactString;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// First pause between two attempts to connect; each further one is twice as long, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// See [`PAUSE_MIN`]; also the pause before a node is dialed again that refused this one.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a link that stays down is logged.
const LOG_AGAIN: Duration = Duration::from_secs(30);
/// The same of a node that is not in the registry any more: it may have gone for good, and is listed for a day.
const GONE_LOG_AGAIN: Duration = Duration::from_secs(600);
/// Bytes that wait for the socket, beyond which no more letters are turned into any.
const OUT_BYTES_MAX: usize = 256 << 10;
/// Room for what is read at once.
const READ_BYTES: usize = 4 << 10;

/// A node and the letters to it.
pub(super) struct Dial {
    core: Arc<Core>,
    number: u16,
    name: CompactString,
    letters: mpsc::Receiver<Box<LinkLetter>>,
    /// Letters that were not acknowledged, as bytes, oldest first.
    unacked: VecDeque<Vec<u8>>,
    unacked_bytes: usize,
    /// The number of the first of them.
    first: u64,
    /// The life of the node that was reached last; 0: none yet.
    incarnation: u64,
    /// Letters were given up since.
    has_lost: bool,
    failures: u32,
    down_since: Instant,
    said: Said,
}

/// When it was logged last that a link is down, and that its node is gone.
#[derive(Default)]
struct Said {
    down: Option<Instant>,
    gone: Option<Instant>,
}

impl Said {
    /// Whether it is to be logged.
    fn is_due(&mut self, is_gone: bool, now: Instant) -> bool {
        let (said, again) = if is_gone {
            (&mut self.gone, GONE_LOG_AGAIN)
        } else {
            (&mut self.down, LOG_AGAIN)
        };
        let is_due = said.is_none_or(|at| now - at >= again);
        if is_due {
            *said = Some(now);
        }
        is_due
    }

    /// The link is up; says whether it was logged that it is not.
    fn take(&mut self) -> bool {
        let said = std::mem::take(self);
        said.down.is_some() || said.gone.is_some()
    }
}

/// A connection in use.
struct Connection {
    read: ReadHalf<Box<dyn Stream>>,
    write: WriteHalf<Box<dyn Stream>>,
    input: Vec<u8>,
    out: Vec<u8>,
    /// How much of `out` the socket has taken.
    taken: usize,
    /// What it has taken may still be in the TLS session.
    is_flushed: bool,
    /// How many of the unacknowledged letters were put into `out`.
    sent: usize,
    heard_at: Instant,
}

impl Dial {
    pub(super) fn new(core: Arc<Core>, peer: NewPeer) -> Self {
        Self {
            core,
            number: peer.number,
            name: peer.name,
            letters: peer.letters,
            unacked: VecDeque::new(),
            unacked_bytes: 0,
            first: 1,
            incarnation: 0,
            has_lost: false,
            failures: 0,
            down_since: Instant::now(),
            said: Said::default(),
        }
    }

    /// Connects, serves the connection until it is lost, and connects again; ends when the node does.
    pub(super) async fn run(mut self) {
        loop {
            let lost = match self.connect().await {
                Ok(connection) => self.serve(connection).await,
                Err(error) => Err(error),
            };
            match lost {
                Ok(()) => return,
                Err(error) => self.lost(&error),
            }
            let pause = self.pause();
            if self.rest(pause).await.is_none() {
                return;
            }
        }
    }

    fn room(&self) -> bool {
        self.unacked.len() < QUEUE_LETTERS_MAX && self.unacked_bytes < UNACKED_BYTES_MAX
    }

    /// Jittered, so that the nodes of a fleet do not come as one.
    fn pause(&self) -> Duration {
        let doubled = PAUSE_MIN * (1 << self.failures.saturating_sub(1).min(6));
        doubled.min(PAUSE_MAX).mul_f64(rand::random_range(0.5..1.0))
    }

    /// Waits; letters come meanwhile. `None`: the node ends.
    async fn rest(&mut self, pause: Duration) -> Option<()> {
        let until = Instant::now() + pause;
        let core = Arc::clone(&self.core);
        loop {
            let room = self.room();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Some(()),
                () = core.peers.beginning(self.number) => return Some(()),
                letter = self.letters.recv(), if room => self.keep(*letter?),
            }
        }
    }

    /// A letter under its number, as bytes.
    fn keep(&mut self, letter: LinkLetter) {
        debug_assert_eq!(letter.check(), Ok(()), "{letter:?}");
        let seq = self.first + self.unacked.len() as u64;
        let frame = LinkFrame::Letter { seq, letter };
        let mut bytes = Vec::new();
        if let Err(error) = encode(&frame, &mut bytes) {
            // An answer that is too long for a link. Whoever asked hears so when its time is over.
            tracing::warn!(node = %self.name, %error, "links: a letter cannot be sent");
            return;
        }
        self.unacked_bytes += bytes.len();
        self.unacked.push_back(bytes);
    }

    /// Where the registry says that it is.
    fn address(&self) -> Option<CompactString> {
        let nodes = self.core.nodes.borrow();
        let node = nodes.nodes().iter().find(|node| node.node_id == self.name)?;
        Some(node.link_address.clone()).filter(|address| !address.is_empty())
    }

    async fn connect(&mut self) -> io::Result<Connection> {
        let Some(address) = self.address() else {
            return Err(io::Error::other("its lease has lapsed, or it has no links"));
        };
        let deadline = |_| io::Error::other("no greeting in time");
        let greeting = timeout(GREETING_MAX, self.greet(&address)).await;
        greeting.map_err(deadline)?
    }

    async fn greet(&mut self, address: &str) -> io::Result<Connection> {
        let stream = tls::connect(self.core.tls.as_deref(), address, &self.name).await?;
        let (read, write) = tokio::io::split(stream);
        let mut connection = Connection {
            read,
            write,
            input: Vec::with_capacity(READ_BYTES),
            out: Vec::new(),
            taken: 0,
            is_flushed: true,
            sent: 0,
            heard_at: Instant::now(),
        };
        let config = &self.core.config;
        let hello = LinkFrame::Hello {
            fleet: config.fleet.clone(),
            node_id: config.node_id.clone(),
            incarnation: config.incarnation,
            to: self.name.clone(),
            first: self.first,
        };
        encode(&hello, &mut connection.out).map_err(io::Error::other)?;
        connection.write.write_all(&connection.out).await?;
        connection.write.flush().await?;
        connection.out.clear();
        // One with TLS takes the greeting for garbage.
        let is_plain = self.core.tls.is_none();
        let unanswered = |error: io::Error| {
            if is_plain {
                io::Error::new(error.kind(), format!("no greeting from it: {error}; {}", tls::ALIKE))
            } else {
                error
            }
        };
        loop {
            match connection.next().map_err(unanswered)? {
                Some(LinkFrame::Welcome { incarnation, received }) => {
                    self.welcomed(incarnation, received);
                    return Ok(connection);
                }
                Some(LinkFrame::Refused { why }) => {
                    self.failures = self.failures.max(8);
                    return Err(io::Error::other(format!("refused: {why}")));
                }
                Some(_) => return Err(io::Error::other("no greeting")),
                None => connection.fill().await.map_err(unanswered)?,
            }
        }
    }

    /// The node is there: what it has had need not be sent again.
    fn welcomed(&mut self, incarnation: u64, received: u64) {
        self.acknowledged(received);
        let is_new = std::mem::take(&mut self.has_lost) || self.incarnation != incarnation;
        self.incarnation = incarnation;
        self.failures = 0;
        let metrics = self.core.metrics();
        metrics.connects.inc();
        metrics.up.inc();
        if self.said.take() {
            tracing::info!(node = %self.name, "a link is up again");
        }
        let peer = self.number;
        self.core.peers.set_up(peer, true);
        self.core.tell_all(&FromLinks::Up { peer, is_new });
    }

    fn acknowledged(&mut self, received: u64) -> usize {
        let mut count = 0;
        while self.first <= received
            && let Some(bytes) = self.unacked.pop_front()
        {
            self.unacked_bytes -= bytes.len();
            self.first += 1;
            count += 1;
        }
        count
    }

    /// The connection is lost, or was not made.
    fn lost(&mut self, error: &io::Error) {
        let (peer, now) = (self.number, Instant::now());
        if self.core.peers.is_up(peer) {
            self.core.peers.set_up(peer, false);
            self.core.metrics().up.dec();
            self.core.tell_all(&FromLinks::Down { peer });
            self.down_since = now;
        }
        self.failures += 1;
        let is_gone = self.address().is_none();
        if self.failures > 1 && self.said.is_due(is_gone, now) {
            tracing::warn!(node = %self.name, %error, "a link is down: what is for that node waits");
        }
        if now - self.down_since >= PATIENCE && !(self.unacked.is_empty() && self.letters.is_empty()) {
            self.give_up();
        }
    }

    /// What waits for a node that is away for long is old.
    fn give_up(&mut self) {
        let mut count = self.unacked.len() as u64;
        self.first += count;
        self.unacked.clear();
        self.unacked_bytes = 0;
        while self.letters.try_recv().is_ok() {
            count += 1;
        }
        self.has_lost = true;
        self.core.metrics().lost.add(count);
        tracing::warn!(node = %self.name, letters = count, "a link is down for long: what waited for that node is given up");
        self.core.tell_all(&FromLinks::Lost { peer: self.number });
    }

    /// Serves a connection until it is lost; `Ok`: the node ends.
    async fn serve(&mut self, mut connection: Connection) -> io::Result<()> {
        let mut tick = tokio::time::interval(SILENCE_MAX / 4);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            self.fill_output(&mut connection);
            let room = self.room() && connection.waiting() < OUT_BYTES_MAX;
            let is_unsent = connection.waiting() > 0 || !connection.is_flushed;
            tokio::select! {
                letter = self.letters.recv(), if room => match letter {
                    Some(letter) => self.keep(*letter),
                    None => return Ok(()),
                },
                pushed = push(&mut connection.write, &connection.out[connection.taken..]), if is_unsent => {
                    let count = pushed?;
                    connection.taken += count;
                    connection.is_flushed = count == 0;
                    self.core.metrics().bytes_sent.add(count as u64);
                }
                read = connection.read.read_buf(&mut connection.input) => {
                    if read? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    self.hear(&mut connection)?;
                }
                _ = tick.tick() => {
                    if connection.heard_at.elapsed() > SILENCE_MAX {
                        return Err(io::Error::other("it says nothing"));
                    }
                    if connection.waiting() < OUT_BYTES_MAX {
                        encode(&LinkFrame::Ping, &mut connection.out).map_err(io::Error::other)?;
                    }
                }
            }
        }
    }

    /// Letters that were not sent on this connection go into its output.
    fn fill_output(&mut self, connection: &mut Connection) {
        if connection.taken == connection.out.len() {
            connection.out.clear();
            connection.taken = 0;
        }
        while connection.sent < self.unacked.len() && connection.waiting() < OUT_BYTES_MAX {
            connection.out.extend_from_slice(&self.unacked[connection.sent]);
            connection.sent += 1;
            self.core.metrics().frames_sent.inc();
        }
    }

    fn hear(&mut self, connection: &mut Connection) -> io::Result<()> {
        while let Some(frame) = connection.next()? {
            let LinkFrame::Ack { received } = frame else {
                return Err(io::Error::other("a frame that does not belong here"));
            };
            connection.heard_at = Instant::now();
            let gone = self.acknowledged(received);
            if gone > connection.sent {
                return Err(io::Error::other("letters acknowledged that were not sent"));
            }
            connection.sent -= gone;
        }
        Ok(())
    }
}

/// Gives the socket some of `bytes`, or, when there are none, what TLS still keeps of those before. Cancelled, it has taken none.
async fn push(write: &mut WriteHalf<Box<dyn Stream>>, bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        write.flush().await?;
        return Ok(0);
    }
    match write.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        count => Ok(count),
    }
}

impl Connection {
    fn waiting(&self) -> usize {
        self.out.len() - self.taken
    }

    /// The next whole frame of what was read.
    fn next(&mut self) -> io::Result<Option<LinkFrame>> {
        let Some((frame, len)) = decode(&self.input).map_err(io::Error::other)? else {
            return Ok(None);
        };
        self.input.drain(..len);
        Ok(Some(frame))
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.read.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_gone_is_spoken_of_once_and_then_seldom() {
        let (mut said, began) = (Said::default(), Instant::now());
        let mut logged = Vec::new();
        for second in 0..1_300 {
            // It hangs first, then its lease lapses.
            if said.is_due(second >= 40, began + Duration::from_secs(second)) {
                logged.push(second);
            }
        }
        assert_eq!(logged, [0, 30, 40, 640, 1_240]);
        assert!(said.take() && !said.take());
        assert!(said.is_due(true, began) && said.is_due(false, began));
    }
}
