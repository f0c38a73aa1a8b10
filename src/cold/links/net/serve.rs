//! A connection that another node made: letters in, acknowledgements out.

use super::tls::{self, Stream};
use super::{Core, GREETING_MAX};
use crate::cold::links::port::{FromLinks, INBOX_LETTERS_MAX, Inbox, SILENCE_MAX};
use crate::fsm::ids::check_id;
use crate::fsm::request::ReplyTo;
use crate::wire::link::{LINK_VERSION, LinkError, LinkFrame, LinkLetter, decode, encode};
use compact_str::CompactString;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A sender that says nothing for so long is dead: it asks more often.
const SENDER_SILENCE_MAX: Duration = Duration::from_millis(4 * SILENCE_MAX.as_millis() as u64);
/// Room for what is read at once.
const READ_BYTES: usize = 64 << 10;
/// How long to wait for a shard that does not take its letters.
const INBOX_PAUSE: Duration = Duration::from_millis(1);

/// What has come from a node, over all its connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    incarnation: u64,
    /// The last letter of that life.
    seq: u64,
    /// The connection that counts: a newer one ends the others.
    connection: u64,
}

/// A connection after its greeting.
struct Served {
    core: Arc<Core>,
    stream: Box<dyn Stream>,
    input: Vec<u8>,
    from: u16,
    name: CompactString,
    /// See [`Received::connection`].
    connection: u64,
}

/// Where a shard hears of it, as soon as that is there and has room: other nodes are welcome before all shards run.
async fn room_at(core: &Core, shard: u16) -> Arc<Inbox> {
    loop {
        let inbox = core.inbox_of(shard);
        if let Some(inbox) = inbox.filter(|inbox| inbox.len() <= INBOX_LETTERS_MAX) {
            return inbox;
        }
        tokio::time::sleep(INBOX_PAUSE).await;
    }
}

pub(super) async fn serve(core: Arc<Core>, stream: TcpStream, from: SocketAddr) {
    let mut input = Vec::with_capacity(READ_BYTES);
    let greeted = timeout(GREETING_MAX, greeted(&core, stream, &mut input)).await;
    let ended = match greeted {
        Ok(Ok((stream, from, name, connection))) => {
            let served = Served {
                core: Arc::clone(&core),
                stream,
                input,
                from,
                name,
                connection,
            };
            served.run().await
        }
        Ok(Err(error)) => Err(error),
        Err(_) => Err(io::Error::other("no greeting in time")),
    };
    if let Err(error) = ended {
        core.metrics().bad_connections.inc();
        tracing::debug!(%from, %error, "links: a connection ended");
    }
}

/// Reads the greeting and answers it.
async fn greeted(
    core: &Core,
    stream: TcpStream,
    input: &mut Vec<u8>,
) -> io::Result<(Box<dyn Stream>, u16, CompactString, u64)> {
    let (mut stream, shown) = tls::accept(core.tls.as_deref(), stream).await?;
    let frame = loop {
        match next(input) {
            Ok(Some(frame)) => break frame,
            Ok(None) => {}
            Err(LinkError::Version(version)) => {
                let why = format!("this node speaks version {LINK_VERSION} of the links, not {version}");
                return refuse(&mut stream, why).await;
            }
            Err(error) => return Err(io::Error::other(error)),
        }
        if stream.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let LinkFrame::Hello {
        fleet,
        node_id,
        incarnation,
        to,
        first,
    } = frame
    else {
        return Err(io::Error::other("no greeting"));
    };
    let config = &core.config;
    if fleet != config.fleet {
        return refuse(
            &mut stream,
            format!("this node is of the fleet '{}', not '{fleet}'", config.fleet),
        )
        .await;
    }
    if to != config.node_id || node_id == config.node_id {
        return refuse(&mut stream, format!("this is {}", config.node_id)).await;
    }
    if !shown.may_be(&node_id) {
        let why = format!("the certificate is not that of {node_id}");
        return refuse(&mut stream, why).await;
    }
    if check_id(&node_id).is_err() {
        return refuse(&mut stream, "the name is none".to_owned()).await;
    }
    let Some(from) = core.peers.number_of(&node_id) else {
        return refuse(&mut stream, "there are too many nodes".to_owned()).await;
    };
    let Some(received) = begin(core, from, &node_id, incarnation, first) else {
        return refuse(&mut stream, format!("a later process is {node_id}")).await;
    };
    let welcome = LinkFrame::Welcome {
        incarnation: config.incarnation,
        received: received.seq,
    };
    say(&mut stream, &welcome).await?;
    Ok((stream, from, node_id, received.connection))
}

/// A new connection of a node counts from now; `None`: it is that of a process that has a successor.
fn begin(core: &Core, from: u16, node_id: &CompactString, incarnation: u64, first: u64) -> Option<Received> {
    let mut all = core.received.lock().unwrap_or_else(PoisonError::into_inner);
    let received = all.entry(node_id.clone()).or_default();
    if incarnation < received.incarnation {
        return None;
    }
    if incarnation > received.incarnation {
        received.incarnation = incarnation;
        received.seq = 0;
        core.peers.began(from);
    }
    received.connection += 1;
    // What it no longer has will not come.
    received.seq = received.seq.max(first.saturating_sub(1));
    Some(*received)
}

async fn refuse<T>(stream: &mut Box<dyn Stream>, why: String) -> io::Result<T> {
    let refused = LinkFrame::Refused {
        why: why.as_str().into(),
    };
    say(stream, &refused).await?;
    tracing::warn!(why, "links: a node was refused");
    Err(io::Error::other(why))
}

async fn say(stream: &mut Box<dyn Stream>, frame: &LinkFrame) -> io::Result<()> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// The next whole frame of what was read.
fn next(input: &mut Vec<u8>) -> Result<Option<LinkFrame>, LinkError> {
    let Some((frame, len)) = decode(input)? else {
        return Ok(None);
    };
    input.drain(..len);
    Ok(Some(frame))
}

impl Served {
    async fn run(mut self) -> io::Result<()> {
        loop {
            if self.take_frames().await? {
                let received = self.received();
                let acked = timeout(SENDER_SILENCE_MAX, say(&mut self.stream, &LinkFrame::Ack { received })).await;
                acked.map_err(io::Error::other)??;
            }
            let read = timeout(SENDER_SILENCE_MAX, self.stream.read_buf(&mut self.input)).await;
            let count = read.map_err(|_| io::Error::other("it says nothing"))??;
            if count == 0 {
                return Ok(());
            }
            self.core.metrics().bytes_received.add(count as u64);
        }
    }

    fn received(&self) -> u64 {
        let all = self.core.received.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&self.name).map_or(0, |received| received.seq)
    }

    /// Acts on every whole frame; says whether there was one.
    async fn take_frames(&mut self) -> io::Result<bool> {
        let mut has_any = false;
        let mut at = 0;
        loop {
            let decoded = decode(&self.input[at..]).inspect_err(|_| self.core.metrics().bad_frames.inc());
            let Some((frame, len)) = decoded.map_err(io::Error::other)? else {
                break;
            };
            at += len;
            has_any = true;
            match frame {
                LinkFrame::Ping => {}
                LinkFrame::Letter { seq, letter } => self.letter(seq, letter).await?,
                LinkFrame::Hello { .. }
                | LinkFrame::Welcome { .. }
                | LinkFrame::Refused { .. }
                | LinkFrame::Ack { .. } => return Err(io::Error::other("a frame that does not belong here")),
            }
        }
        self.input.drain(..at);
        Ok(has_any)
    }

    async fn letter(&mut self, seq: u64, letter: LinkLetter) -> io::Result<()> {
        if let Err(error) = letter.check() {
            self.core.metrics().bad_frames.inc();
            // It has been read: when its sender is back, it goes on with the next one, and not for ever with this.
            self.counts(seq)?;
            tracing::warn!(node = %self.name, seq, %error, "links: a node sends what no node sends; its connection is closed");
            return Err(io::Error::other(error));
        }
        let inbox = match letter.home(self.core.config.shards) {
            Some(home) => Some(room_at(&self.core, home).await),
            None => None,
        };
        if self.counts(seq)? {
            self.core.metrics().frames_received.inc();
            self.deliver(inbox.as_deref(), letter);
        }
        Ok(())
    }

    /// Whether a letter is new. From here to its delivery nothing is awaited: it is given once, in order.
    fn counts(&self, seq: u64) -> io::Result<bool> {
        let mut all = self.core.received.lock().unwrap_or_else(PoisonError::into_inner);
        let received = all.get_mut(&self.name).expect("it was greeted");
        if received.connection != self.connection {
            return Err(io::Error::other("a newer connection of that node is there"));
        }
        let next = received.seq.saturating_add(1);
        if seq > next {
            return Err(io::Error::other("letters are missing"));
        }
        let is_new = seq == next && seq > received.seq;
        received.seq = received.seq.max(seq);
        Ok(is_new)
    }

    fn deliver(&self, inbox: Option<&Inbox>, mut letter: LinkLetter) {
        if letter == LinkLetter::Leaving {
            return self.core.peers.set_leaving(self.from, true);
        }
        letter.arrives_from(self.from);
        let shards = self.core.config.shards;
        // A call of an earlier life of this node, which had more shards.
        let is_void = |reply: &mut ReplyTo| reply.node == 0 && reply.shard >= shards;
        let inbox = inbox.filter(|_| !letter.replies_mut().is_some_and(is_void));
        let Some(inbox) = inbox else {
            tracing::warn!(node = %self.name, ?letter, "links: a letter for nobody");
            return;
        };
        inbox.send(FromLinks::Letter {
            from: self.from,
            letter: Box::new(letter),
        });
    }
}
