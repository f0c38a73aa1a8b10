//! The net rings of a shard: one, or several where the kernel allows a ring fewer sockets (`RLIMIT_NOFILE`) than the shard
//! may have connections. The shard sees one ring with as many slots as all of them together.
//!
//! The first ring is the shard's own: it sleeps, is woken, writes the journal and receives what is handed over. The others
//! have sockets only and signal an eventfd that the first one polls (`IORING_REGISTER_EVENTFD`); a poll of a ring would not do, it does
//! not report what a ring with `IORING_SETUP_DEFER_TASKRUN` has yet to run (seen on Linux 6.18). The kernel signals for what
//! the shard itself reaps, too, so in each turn the signals are taken, and where there were some, every ring is looked at once more before a sleep.
//!
//! With a million connections there are fifty rings and more, and most have nothing to do in most turns. A turn is for those
//! that were asked for something or have something left, and for those where the kernel says that something is there.
#![forbid(unsafe_code)]

use super::platform::Ring;
use crate::aligned::AlignedBuffer;
use crate::net::limits::CQ_ENTRIES_MIN;
use crate::net::{ConnId, Net, NetBytes, NetConfig, NetCounts, NetEvent, RecvBuffer, Waker};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// Entries of a further ring's submission queue.
const MEMBER_SQ_ENTRIES: u32 = 1_024;
/// What a ring without work lets its owner sleep of.
const LONG: Option<Duration> = Some(Duration::MAX);
/// Fewest receive buffers of a further ring.
const MEMBER_RECV_BUFFERS_MIN: u16 = 64;

/// The rings of one shard. Belongs to the thread that made it.
pub struct Rings {
    /// The shard's own, then the others. Never empty.
    nets: Vec<Net>,
    /// Slots of each; the connection in slot `s` of ring `r` is the shard's `r * slots_each + s`.
    slots_each: u32,
    /// Events of one ring, before the shard's names are given to its connections.
    own: Vec<NetEvent>,
    /// The ring that accepts. One at a time: the kernel wakes one accept for a connection, and if that one ends, no other.
    accepting: usize,
    /// Sockets that came to the first ring and are on their way to another one, by token.
    relays: HashMap<u64, Relay>,
    /// How many are on their way to each ring.
    awaited: Vec<u32>,
    /// Which rings were asked for something since their last turn, or have something left to do or to send.
    busy: Vec<bool>,
    /// What was counted since it was last taken.
    counts: NetCounts,
}

/// A socket on its way from the first ring to another one.
struct Relay {
    /// Its name in the first ring.
    conn: ConnId,
    ring: usize,
}

impl Rings {
    /// Makes rings for `connections` on this thread, of as many slots each as `config` says and the kernel allows.
    ///
    /// # Errors
    /// As [`Net::new`].
    pub fn new(config: &NetConfig, connections: u32) -> io::Result<Self> {
        let slots_each = config.slots();
        let count = connections.max(1).div_ceil(slots_each);
        let mut nets = vec![Net::new(config)?];
        let member = NetConfig {
            sq_entries: MEMBER_SQ_ENTRIES,
            cq_entries: CQ_ENTRIES_MIN,
            fixed_files: slots_each,
            recv_buffers: (u32::from(config.recv_buffers) / count).max(u32::from(MEMBER_RECV_BUFFERS_MIN)) as u16,
            ..config.clone()
        };
        for _ in 1..count {
            let net = Net::new(&member)?;
            net.signal(&mut nets[0])?;
            nets.push(net);
        }
        Ok(Self {
            accepting: nets.len() - 1,
            awaited: vec![0; nets.len()],
            busy: vec![true; nets.len()],
            counts: NetCounts::default(),
            nets,
            slots_each,
            own: Vec::new(),
            relays: HashMap::new(),
        })
    }

    /// A handle that wakes the shard, for threads that have no ring.
    pub fn waker(&self) -> Waker {
        self.nets[0].waker()
    }

    /// Which ring has a connection, and its name there.
    fn split(&self, conn: ConnId) -> (usize, ConnId) {
        if self.nets.len() == 1 {
            return (0, conn);
        }
        let (ring, slot) = (conn.slot() / self.slots_each, conn.slot() % self.slots_each);
        (ring as usize, ConnId::new(slot, conn.generation()))
    }

    fn net(&mut self, conn: ConnId) -> (&mut Net, ConnId) {
        let (ring, conn) = self.split(conn);
        (self.busy_net(ring), conn)
    }

    /// A ring that is asked for something.
    fn busy_net(&mut self, ring: usize) -> &mut Net {
        self.busy[ring] = true;
        &mut self.nets[ring]
    }

    /// The shard's name of a connection.
    fn join(&self, ring: usize, conn: ConnId) -> ConnId {
        ConnId::new(ring as u32 * self.slots_each + conn.slot(), conn.generation())
    }

    /// Submits and reaps what there is in the busy rings but the first, without sleeping. `looks`: in those as well where the
    /// kernel has something.
    fn turn_others(&mut self, looks: bool, events: &mut Vec<NetEvent>) -> io::Result<()> {
        let mut own = std::mem::take(&mut self.own);
        for ring in 1..self.nets.len() {
            let net = &mut self.nets[ring];
            let has_work = self.busy[ring] || (looks && net.has_work());
            if !has_work {
                continue;
            }
            net.turn(None, &mut own)?;
            // The one that accepts looks after its slots in every turn.
            self.busy[ring] = ring == self.accepting || net.has_output() || net.may_sleep(LONG) != LONG;
            self.counts = self.counts + net.take_counts();
            for event in own.drain(..) {
                if let NetEvent::HandedOver { token, .. } = event {
                    self.relay_ended(token);
                }
                events.push(self.rename(ring, event));
            }
        }
        self.own = own;
        Ok(())
    }

    /// How much of `wait` the shard may sleep; `None`: not at all.
    fn may_sleep(&mut self, wait: Option<Duration>) -> Option<Duration> {
        let mut busy = self.nets.iter_mut().zip(&self.busy).filter(|(_, busy)| **busy);
        busy.try_fold(wait?, |wait, (net, _)| net.may_sleep(Some(wait)))
    }

    /// A turn of the first ring. Sockets that come to it go on to the ring that has most room.
    fn turn_first(&mut self, wait: Option<Duration>, events: &mut Vec<NetEvent>) -> io::Result<()> {
        let from = events.len();
        self.nets[0].turn(wait, events)?;
        self.counts = self.counts + self.nets[0].take_counts();
        if self.nets.len() > 1 {
            for event in events.split_off(from) {
                self.relay(event, events);
            }
        }
        Ok(())
    }

    /// Passes an event of the first ring on, unless it is about a socket that only passes through.
    fn relay(&mut self, event: NetEvent, events: &mut Vec<NetEvent>) {
        match event {
            NetEvent::HandedOver { token, conn } => {
                // The first ring's own slots are for what passes through it.
                let room = |ring: &usize| self.nets[*ring].slots_free().saturating_sub(self.awaited[*ring]);
                let roomiest = (1..self.nets.len()).max_by_key(room).filter(|ring| room(ring) > 0);
                let target = roomiest.map(|ring| (ring, self.nets[ring].ring_fd()));
                match target {
                    Some((ring, fd)) if self.nets[0].hand_over(conn, fd, token) => {
                        self.relays.insert(token, Relay { conn, ring });
                        self.awaited[ring] += 1;
                    }
                    _ => events.push(event),
                }
            }
            // It leaves with the next turn, and arrives in the other ring.
            NetEvent::HandOverReady { token, .. } if self.relays.contains_key(&token) => {}
            // No room there after all: it stays here.
            NetEvent::HandOverFailed { token, conn, .. } if self.relay_ended(token) => {
                events.push(NetEvent::HandedOver { token, conn });
            }
            NetEvent::Closed { conn, .. } => {
                // Broken on the way: whoever waits for it hears that it came, and that it went.
                let passed = self.relays.iter().find(|(_, relay)| relay.conn == conn);
                if let Some(token) = passed.map(|(token, _)| *token) {
                    self.relay_ended(token);
                    events.push(NetEvent::HandedOver { token, conn });
                }
                events.push(event);
            }
            event => events.push(event),
        }
    }

    /// A relay is over. False: there was none of this token.
    fn relay_ended(&mut self, token: u64) -> bool {
        let relay = self.relays.remove(&token);
        if let Some(relay) = &relay {
            self.awaited[relay.ring] -= 1;
        }
        relay.is_some()
    }

    /// Gives the listener to a ring with room when the one that accepts has none left.
    fn pass_listener(&mut self) {
        if self.nets[self.accepting].has_room() {
            return;
        }
        let rooms = (0..self.nets.len()).filter(|ring| self.nets[*ring].has_room());
        // The first ring last: what passes through it needs its slots.
        let Some(next) = rooms.max_by_key(|ring| (*ring > 0, self.nets[*ring].slots_free())) else {
            return;
        };
        if let Some(listener) = self.nets[self.accepting].release_listener() {
            self.busy_net(next).listen(listener);
            self.accepting = next;
        }
    }

    /// The same event with the shard's name of its connection.
    fn rename(&self, ring: usize, event: NetEvent) -> NetEvent {
        let name = |conn| self.join(ring, conn);
        match event {
            NetEvent::Accepted { conn } => NetEvent::Accepted { conn: name(conn) },
            NetEvent::HandedOver { token, conn } => NetEvent::HandedOver {
                token,
                conn: name(conn),
            },
            NetEvent::HandOverReady { conn, token } => NetEvent::HandOverReady {
                conn: name(conn),
                token,
            },
            NetEvent::HandOverFailed { token, conn, errno } => NetEvent::HandOverFailed {
                token,
                conn: name(conn),
                errno,
            },
            NetEvent::Received { conn, buffer } => NetEvent::Received {
                conn: name(conn),
                buffer: buffer.of_ring(ring as u16),
            },
            NetEvent::PeerClosed { conn } => NetEvent::PeerClosed { conn: name(conn) },
            NetEvent::OutputDrained { conn } => NetEvent::OutputDrained { conn: name(conn) },
            NetEvent::Closed { conn, cause } => NetEvent::Closed {
                conn: name(conn),
                cause,
            },
            NetEvent::Woken | NetEvent::FileWritten { .. } => event,
        }
    }
}

impl Ring for Rings {
    type File = File;
    type Listener = TcpListener;

    #[inline]
    fn turn(&mut self, wait: Option<Duration>, events: &mut Vec<NetEvent>) -> io::Result<()> {
        if self.nets.len() == 1 {
            return self.turn_first(wait, events);
        }
        self.pass_listener();
        self.turn_others(false, events)?;
        // Takes the signals of what has been reaped so far; what comes from here on signals anew.
        self.turn_first(None, events)?;
        if self.nets[0].take_signalled() {
            self.turn_others(true, events)?;
        }
        let wait = wait.filter(|_| events.is_empty());
        let wait = self.may_sleep(wait);
        if wait.is_some() {
            self.turn_first(wait, events)?;
            // Without a signal as well: a lost one would be our bug, and is to cost one sleep at most.
            self.nets[0].take_signalled();
            self.turn_others(true, events)?;
        }
        Ok(())
    }

    fn listen(&mut self, listener: TcpListener) {
        self.busy_net(self.accepting).listen(listener);
    }

    #[inline]
    fn start_recv(&mut self, conn: ConnId) {
        let (net, conn) = self.net(conn);
        net.start_recv(conn);
    }

    #[inline]
    fn join_crowd(&mut self, conn: ConnId) {
        let (net, conn) = self.net(conn);
        net.join_crowd(conn);
    }

    #[inline]
    fn pause_recv(&mut self, conn: ConnId) {
        let (net, conn) = self.net(conn);
        net.pause_recv(conn);
    }

    #[inline]
    fn bytes_mut(&mut self, buffer: &RecvBuffer) -> &mut [u8] {
        self.nets[usize::from(buffer.ring())].bytes_mut(buffer)
    }

    #[inline]
    fn recycle(&mut self, buffer: RecvBuffer) {
        self.busy_net(usize::from(buffer.ring())).recycle(buffer);
    }

    #[inline]
    fn output(&mut self, conn: ConnId) -> Option<&mut Vec<u8>> {
        let (net, conn) = self.net(conn);
        net.output(conn)
    }

    #[inline]
    fn output_len(&self, conn: ConnId) -> usize {
        let (ring, conn) = self.split(conn);
        self.nets[ring].output_len(conn)
    }

    #[inline]
    fn tell_drained(&mut self, conn: ConnId) {
        let (net, conn) = self.net(conn);
        net.tell_drained(conn);
    }

    #[inline]
    fn has_output(&self) -> bool {
        let mut nets = self.nets.iter().zip(&self.busy);
        nets.any(|(net, busy)| *busy && net.has_output())
    }

    fn sweep_output(&mut self, stalled: &mut Vec<ConnId>) {
        let mut own = Vec::new();
        for ring in 0..self.nets.len() {
            self.nets[ring].sweep_output(&mut own);
            stalled.extend(own.drain(..).map(|conn| self.join(ring, conn)));
        }
    }

    fn trim(&mut self) {
        self.nets.iter_mut().for_each(Net::trim);
    }

    #[inline]
    fn close_after_output(&mut self, conn: ConnId) {
        let (net, conn) = self.net(conn);
        net.close_after_output(conn);
    }

    #[inline]
    fn shutdown_write_after_output(&mut self, conn: ConnId) {
        let (net, conn) = self.net(conn);
        net.shutdown_write_after_output(conn);
    }

    fn abort(&mut self, conn: ConnId) {
        let (net, conn) = self.net(conn);
        net.abort(conn);
    }

    fn hand_over(&mut self, conn: ConnId, target_ring_fd: RawFd, token: u64) -> bool {
        let (net, conn) = self.net(conn);
        net.hand_over(conn, target_ring_fd, token)
    }

    #[inline]
    fn wake_ring(&mut self, target_ring_fd: RawFd) {
        self.nets[0].wake_ring(target_ring_fd);
    }

    fn write_file(&mut self, token: u64, file: &File, offset: u64, buffer: AlignedBuffer, len: usize) {
        self.nets[0].write_file(token, file.as_raw_fd(), offset, buffer, len);
    }

    fn ring_fd(&self) -> RawFd {
        self.nets[0].ring_fd()
    }

    fn connections(&self) -> u32 {
        self.nets.iter().map(Net::connections).sum()
    }

    fn take_counts(&mut self) -> NetCounts {
        std::mem::take(&mut self.counts)
    }

    fn bytes(&self) -> NetBytes {
        self.nets.iter().map(Net::bytes).sum()
    }
}
