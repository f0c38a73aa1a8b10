//! Connections between clients and the node: the network between them and the kernel's socket at the node's end. A
//! connection's bytes arrive in order, cut anywhere, after a delay; a reset overtakes nothing, but what it finds unread
//! at the client is lost.

use super::machine::{Chunk, Event, Machine, Piece, Weather};
use super::ways::{Flights, Way};
use crate::client::Conn;
use crate::plan::{Network, Plan};
use std::collections::VecDeque;
use std::rc::Rc;

/// Who has the node's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody yet, or it is on its way between two rings.
    Kernel,
    /// The ring of this shard, in this slot.
    Ring(u16, u32),
    /// Closed.
    Nobody,
}

/// A connection.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Link {
    pub(super) actor: u32,
    pub(super) conn: Conn,
    /// The client knows it: it gets inputs.
    pub(super) client_open: bool,
    /// The client's FIN was sent.
    client_fin: bool,
    /// The node's FIN has arrived at the client.
    node_fin_seen: bool,
    pub(super) owner: Owner,
    /// Its first packet has arrived at the node.
    reached: bool,
    /// Arrived at the node, unread.
    pub(super) received: Vec<u8>,
    pub(super) received_fin: bool,
    /// A reset has arrived at the node.
    pub(super) received_reset: bool,
    /// In its ring's list of connections that something happened on.
    pub(super) ready: bool,
    /// The node's FIN was sent.
    node_fin: bool,
    /// Bytes of the node that the client has not read.
    unread: u64,
    stalled: bool,
    /// At the client, unread since it does not read.
    held: VecDeque<Piece>,
    up: Way,
    down: Way,
    /// Bytes until the network resets the connection.
    reset_after: u64,
}

/// See the module.
pub(super) struct Kernel {
    pub(super) links: Vec<Link>,
    /// What is on its way on any of them.
    flights: Flights,
    network: Network,
    /// Which shards accept; empty while nobody listens.
    pub(super) listening: Vec<u16>,
    /// Connections that wait to be accepted, by shard.
    pub(super) backlog: Vec<VecDeque<u32>>,
    /// Sockets handed over and not yet taken: token and connection, by target shard.
    pub(super) handed: Vec<VecDeque<(u64, u32)>>,
    /// Connections that something happened on, by shard.
    pub(super) ready: Vec<Vec<u32>>,
    /// Slots that each ring has free.
    pub(super) free: Vec<u32>,
    /// Rings that were woken by another one or by another thread, a bit each.
    pub(super) rung: u32,
    /// Bytes that clients sent and got.
    pub(super) bytes: u64,
}

impl Kernel {
    pub(super) fn new(plan: &Plan) -> Self {
        let shards = usize::from(plan.config.shards);
        Self {
            links: Vec::new(),
            flights: Flights::default(),
            network: plan.network.clone(),
            listening: Vec::new(),
            backlog: vec![VecDeque::new(); shards],
            handed: vec![VecDeque::new(); shards],
            ready: vec![Vec::new(); shards],
            free: vec![0; shards],
            rung: 0,
            bytes: 0,
        }
    }

    pub(super) fn link(&mut self, link: u32) -> &mut Link {
        &mut self.links[link as usize]
    }
}

/// What a client is to be told.
pub(super) enum Told {
    Opened,
    Refused,
    Bytes(Chunk),
    HalfClosed,
    Closed,
    Reset,
}

impl Machine {
    fn delay_us(&mut self) -> u64 {
        let (delay_us, hold_us) = (self.kernel.network.delay_us, self.kernel.network.hold_us);
        let mut delay = self.draw(delay_us);
        if self.rng.chance(self.kernel.network.hold_permille) {
            delay += self.draw(hold_us);
        }
        delay + Weather::added(self.weather.slow_network, self.now_us())
    }

    fn send_up(&mut self, link: u32, piece: Piece) {
        let at_us = self.now_us() + self.delay_us();
        let Kernel { links, flights, .. } = &mut self.kernel;
        let way = &mut links[link as usize].up;
        flights.send(way, &mut self.agenda, at_us, piece, Event::Up { link });
    }

    fn send_down(&mut self, link: u32, piece: Piece) {
        let at_us = self.now_us() + self.delay_us();
        let Kernel { links, flights, .. } = &mut self.kernel;
        let way = &mut links[link as usize].down;
        flights.send(way, &mut self.agenda, at_us, piece, Event::Down { link });
    }

    /// The first piece on its way up is there, and those that come with it.
    pub(super) fn land_up(&mut self, link: u32) {
        let Kernel { links, flights, .. } = &mut self.kernel;
        let way = &mut links[link as usize].up;
        let mut piece = flights.land(way, &mut self.agenda, Event::Up { link });
        loop {
            self.arrive_up(link, piece);
            let Kernel { links, flights, .. } = &mut self.kernel;
            let way = &mut links[link as usize].up;
            match flights.land_next(way, &mut self.agenda, Event::Up { link }) {
                Some(next) => piece = next,
                None => return,
            }
        }
    }

    /// The first piece on its way down is there: what the client is told.
    pub(super) fn land_down(&mut self, link: u32) -> Option<Told> {
        let Kernel { links, flights, .. } = &mut self.kernel;
        let way = &mut links[link as usize].down;
        let piece = flights.land(way, &mut self.agenda, Event::Down { link });
        self.arrive_down(link, piece)
    }

    /// Something happened on a connection that a ring has.
    pub(super) fn mark_ready(&mut self, link: u32) {
        let entry = self.kernel.link(link);
        if let Owner::Ring(shard, _) = entry.owner
            && !entry.ready
        {
            entry.ready = true;
            self.kernel.ready[usize::from(shard)].push(link);
            self.wake(shard);
        }
    }

    /// Other threads wake these shards' rings, a bit each, which are returned.
    pub(super) fn rung_by_threads(&mut self, shards: u32) -> u32 {
        self.kernel.rung |= shards;
        shards
    }

    /// Whether another ring or another thread has woken this ring since the last look.
    pub(super) fn take_rung(&mut self, shard: u16) -> bool {
        let rung = self.kernel.rung & 1 << shard != 0;
        self.kernel.rung &= !(1 << shard);
        rung
    }

    // ---- the client's end ----------------------------------------------------------------------------------------

    /// A client connects; the link's number.
    pub(super) fn connect(&mut self, actor: u32, conn: Conn) -> u32 {
        let link = self.kernel.links.len() as u32;
        let resets = self.rng.chance(self.kernel.network.reset_permille);
        let reset_bytes = self.kernel.network.reset_bytes;
        let reset_after = if resets { self.draw(reset_bytes) } else { u64::MAX };
        let now = self.now_us();
        self.kernel.links.push(Link {
            actor,
            conn,
            client_open: true,
            client_fin: false,
            node_fin_seen: false,
            owner: Owner::Kernel,
            reached: false,
            received: Vec::new(),
            received_fin: false,
            received_reset: false,
            ready: false,
            node_fin: false,
            unread: 0,
            stalled: false,
            held: VecDeque::new(),
            up: Way::new(now),
            down: Way::new(now),
            reset_after,
        });
        self.send_up(link, Piece::Open);
        link
    }

    /// A client sends bytes.
    pub(super) fn client_sends(&mut self, link: u32, bytes: Vec<u8>) {
        let entry = self.kernel.link(link);
        if !entry.client_open || entry.client_fin || bytes.is_empty() {
            return;
        }
        let never_resets = entry.reset_after == u64::MAX;
        self.kernel.bytes += bytes.len() as u64;
        let first = self.piece_bytes();
        if never_resets && first >= bytes.len() {
            // Mostly it stays whole, and travels as it is.
            return self.send_up(link, Piece::Bytes(Chunk::Whole(bytes)));
        }
        self.cut(link, &bytes, first, true);
    }

    /// A client sends no more.
    pub(super) fn client_ends(&mut self, link: u32) -> Option<Told> {
        let entry = self.kernel.link(link);
        if !entry.client_open || std::mem::replace(&mut entry.client_fin, true) {
            return None;
        }
        let over = entry.node_fin_seen;
        self.send_up(link, Piece::Fin);
        over.then(|| {
            self.kernel.link(link).client_open = false;
            Told::Closed
        })
    }

    /// A client resets the connection.
    pub(super) fn client_aborts(&mut self, link: u32) {
        let entry = self.kernel.link(link);
        if std::mem::replace(&mut entry.client_open, false) {
            self.send_up(link, Piece::Reset);
        }
    }

    /// A client stops or goes on reading; what it gets then.
    pub(super) fn client_stalls(&mut self, link: u32, stalled: bool) -> Vec<Piece> {
        let entry = self.kernel.link(link);
        entry.stalled = stalled;
        if stalled || !entry.client_open {
            return Vec::new();
        }
        std::mem::take(&mut entry.held).into()
    }

    /// Something arrives at a client: what it is told.
    pub(super) fn arrive_down(&mut self, link: u32, piece: Piece) -> Option<Told> {
        let entry = self.kernel.link(link);
        if !entry.client_open {
            return None;
        }
        if entry.stalled && matches!(piece, Piece::Bytes(_) | Piece::Fin) {
            entry.held.push_back(piece);
            return None;
        }
        match piece {
            Piece::Open => Some(Told::Opened),
            Piece::Bytes(bytes) => {
                entry.unread -= bytes.len() as u64;
                self.kernel.bytes += bytes.len() as u64;
                self.mark_ready(link);
                Some(Told::Bytes(bytes))
            }
            Piece::Fin => {
                entry.node_fin_seen = true;
                if entry.client_fin {
                    entry.client_open = false;
                    return Some(Told::Closed);
                }
                Some(Told::HalfClosed)
            }
            Piece::Refused => {
                entry.client_open = false;
                Some(Told::Refused)
            }
            Piece::Reset => {
                entry.client_open = false;
                entry.held.clear();
                Some(Told::Reset)
            }
        }
    }

    /// Draws the length of a piece.
    fn piece_bytes(&mut self) -> usize {
        self.rng.between(1, self.kernel.network.piece_bytes_max) as usize
    }

    /// Sends bytes in pieces, the first of `first` bytes; the network may reset the connection in the middle.
    fn cut(&mut self, link: u32, bytes: &[u8], first: usize, up: bool) {
        let shared: Option<Rc<[u8]>> = (first < bytes.len()).then(|| bytes.into());
        let mut from = 0;
        let mut next = first;
        while from < bytes.len() {
            let len = next.min(bytes.len() - from);
            let left = self.kernel.link(link).reset_after;
            let sent = len.min(usize::try_from(left).unwrap_or(usize::MAX));
            if left != u64::MAX {
                self.kernel.link(link).reset_after -= sent as u64;
            }
            if sent > 0 {
                let chunk = match &shared {
                    Some(all) => Chunk::Part(Rc::clone(all), from as u32, (from + sent) as u32),
                    None => Chunk::Whole(bytes[..sent].to_vec()),
                };
                let piece = Piece::Bytes(chunk);
                if up {
                    self.send_up(link, piece);
                } else {
                    self.kernel.link(link).unread += sent as u64;
                    self.send_down(link, piece);
                }
            }
            if sent < len {
                return self.break_link(link);
            }
            from += len;
            if from < bytes.len() {
                next = self.piece_bytes();
            }
        }
    }

    /// The network resets a connection, towards both ends.
    pub(super) fn break_link(&mut self, link: u32) {
        self.send_up(link, Piece::Reset);
        self.send_down(link, Piece::Reset);
    }

    /// Resets some of the connections that there are.
    pub(super) fn break_some(&mut self, permille: u32) -> u32 {
        let mut broken = 0;
        for link in 0..self.kernel.links.len() as u32 {
            let entry = &self.kernel.links[link as usize];
            if entry.client_open && entry.owner != Owner::Nobody && self.rng.chance(permille) {
                self.break_link(link);
                broken += 1;
            }
        }
        broken
    }

    // ---- the node's end ------------------------------------------------------------------------------------------

    /// Something arrives at the node.
    fn arrive_up(&mut self, link: u32, piece: Piece) {
        if matches!(piece, Piece::Open) {
            return self.arrive_new(link);
        }
        let entry = self.kernel.link(link);
        if entry.owner == Owner::Nobody {
            // Nobody is there: the kernel answers bytes with a reset.
            if matches!(piece, Piece::Bytes(_)) {
                self.send_down(link, Piece::Reset);
            }
            return;
        }
        if entry.received_reset || entry.received_fin && !matches!(piece, Piece::Reset) {
            return;
        }
        match piece {
            Piece::Bytes(Chunk::Whole(bytes)) if entry.received.is_empty() => entry.received = bytes,
            Piece::Bytes(bytes) => entry.received.extend_from_slice(&bytes),
            Piece::Fin => entry.received_fin = true,
            Piece::Reset => entry.received_reset = true,
            Piece::Open | Piece::Refused => {}
        }
        self.mark_ready(link);
    }

    fn arrive_new(&mut self, link: u32) {
        self.kernel.link(link).reached = true;
        let count = self.kernel.listening.len() as u64;
        if count == 0 {
            self.kernel.link(link).owner = Owner::Nobody;
            return self.send_down(link, Piece::Refused);
        }
        let shard = self.kernel.listening[self.rng.below(count) as usize];
        self.kernel.backlog[usize::from(shard)].push_back(link);
        self.wake(shard);
        self.send_down(link, Piece::Open);
    }

    /// The node sends: how many of the bytes the socket takes.
    pub(super) fn node_sends(&mut self, link: u32, bytes: &[u8]) -> usize {
        let window = self.kernel.network.window_bytes;
        let room = window.saturating_sub(self.kernel.link(link).unread);
        let taken = bytes.len().min(room as usize);
        if taken > 0 {
            let first = self.piece_bytes();
            self.cut(link, &bytes[..taken], first, false);
        }
        taken
    }

    /// The node sends no more.
    pub(super) fn node_ends(&mut self, link: u32) {
        if !std::mem::replace(&mut self.kernel.link(link).node_fin, true) {
            self.send_down(link, Piece::Fin);
        }
    }

    /// The node closes its end. With bytes unread, or when it wants so, that is a reset.
    pub(super) fn node_closes(&mut self, link: u32, reset: bool) {
        let entry = self.kernel.link(link);
        let reset = reset || !entry.received.is_empty();
        entry.owner = Owner::Nobody;
        entry.received = Vec::new();
        if entry.received_reset {
            return;
        }
        if reset {
            self.send_down(link, Piece::Reset);
        } else {
            self.node_ends(link);
        }
    }

    /// The process is gone: nobody listens, and every connection ends. `power`: without a word, so that clients hear
    /// of it only when somebody answers again, or give up.
    pub(super) fn node_gone(&mut self, power: bool) {
        self.kernel.listening.clear();
        for shard in 0..self.kernel.ready.len() {
            self.kernel.backlog[shard].clear();
            self.kernel.handed[shard].clear();
            self.kernel.ready[shard].clear();
        }
        for link in 0..self.kernel.links.len() as u32 {
            let entry = self.kernel.link(link);
            // One whose first packet is still on its way finds out for itself.
            if entry.owner == Owner::Nobody || !entry.reached {
                continue;
            }
            entry.ready = false;
            self.node_closes(link, power);
        }
    }
}
