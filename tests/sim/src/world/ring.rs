//! A shard's net ring: the real one's promises ([`dispatchd::net`]) over the simulated kernel.

mod port;

use super::kernel::Owner;
use super::machine::Shared;
use crate::plan::Plan;
use dispatchd::aligned::AlignedBuffer;
use dispatchd::net::{CloseCause, ConnId, NetCounts, NetEvent, RecvBuffer};
use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

const ENFILE: i32 = 23;
const ECONNRESET: i32 = 104;

/// The way of a socket to another ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// Until its output is written.
    Wanted(u16, u64),
    /// Its owner was told: it leaves with the next turn.
    Announced(u16, u64),
}

/// A connection of this ring.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
struct Socket {
    link: u32,
    recv_wanted: bool,
    /// One of many; see [`Ring::join_crowd`](dispatchd::shard::Ring::join_crowd).
    crowd: bool,
    /// Its owner waits for the end of its output.
    told: bool,
    peer_closed: bool,
    output: Vec<u8>,
    dirty: bool,
    /// Counted among those that have output.
    waits: bool,
    still: u8,
    close_after: bool,
    shut_after: bool,
    leaving: Leaving,
    /// Closed; the owner has not been told yet.
    closing: bool,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    socket: Option<Socket>,
}

/// See the module.
pub(super) struct SimRing {
    shard: u16,
    machine: Shared,
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    slots_max: u32,
    listening: bool,
    dirty: Vec<ConnId>,
    announced: Vec<ConnId>,
    /// Heard of with the next turn.
    pending: VecDeque<NetEvent>,
    waiting: usize,
    buffers: Vec<Vec<u8>>,
    buffers_free: Vec<u16>,
    buffer_bytes: usize,
    wakes: Vec<RawFd>,
    counts: NetCounts,
    /// A connection could not be served for want of buffers.
    starved: bool,
}

impl SimRing {
    /// Slots with a connection.
    fn occupied(&self) -> u32 {
        let occupied = self.slots.iter().filter(|slot| slot.socket.is_some());
        occupied.count() as u32
    }

    pub(super) fn new(shard: u16, machine: Shared, plan: &Plan) -> Self {
        let config = &plan.config;
        Self {
            shard,
            machine,
            slots: Vec::new(),
            vacant: Vec::new(),
            slots_max: if config.connections_max == 0 {
                65_536
            } else {
                config.connections_max
            },
            listening: false,
            dirty: Vec::new(),
            announced: Vec::new(),
            pending: VecDeque::new(),
            waiting: 0,
            buffers: vec![Vec::new(); usize::from(config.recv_buffers)],
            buffers_free: (0..config.recv_buffers).rev().collect(),
            buffer_bytes: config.recv_buffer_bytes as usize,
            wakes: Vec::new(),
            counts: NetCounts::default(),
            starved: false,
        }
    }

    /// A write that ended, for the next turn.
    pub(super) fn written(&mut self, token: u64, buffer: AlignedBuffer, result: io::Result<usize>) {
        self.pending.push_back(NetEvent::FileWritten { token, buffer, result });
    }

    /// Whether there is something for the next turn, so that its owner must not sleep.
    pub(super) fn has_work(&self) -> bool {
        self.starved || !self.pending.is_empty() || !self.announced.is_empty()
    }

    fn free(&self) -> u32 {
        self.vacant.len() as u32 + self.slots_max - self.slots.len() as u32
    }

    fn socket(&mut self, conn: ConnId) -> Option<&mut Socket> {
        let slot = self.slots.get_mut(conn.slot() as usize)?;
        let socket = slot.socket.as_mut()?;
        (slot.generation == conn.generation() && !socket.closing).then_some(socket)
    }

    fn install(&mut self, link: u32) -> Option<ConnId> {
        let slot = match self.vacant.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.slots_max as usize => {
                self.slots.push(Slot::default());
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let entry = &mut self.slots[slot as usize];
        entry.generation += 1;
        entry.socket = Some(Socket {
            link,
            recv_wanted: false,
            crowd: false,
            told: false,
            peer_closed: false,
            output: Vec::new(),
            dirty: false,
            waits: false,
            still: 0,
            close_after: false,
            shut_after: false,
            leaving: Leaving::No,
            closing: false,
        });
        self.machine.borrow_mut().kernel.link(link).owner = Owner::Ring(self.shard, slot);
        Some(ConnId::new(slot, entry.generation))
    }

    /// Sends what there is, wakes whom it was told to; what the real ring does when its owner is about to sleep.
    pub(super) fn submit(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for conn in dirty.drain(..) {
            if let Some(socket) = self.socket(conn) {
                socket.dirty = false;
                self.send(conn);
            }
        }
        self.dirty = dirty;
        let mut machine = self.machine.borrow_mut();
        for fd in self.wakes.drain(..) {
            machine.kernel.rung |= 1 << fd;
            machine.wake(fd as u16);
        }
    }

    /// Gives the kernel as much of a connection's output as it takes.
    fn send(&mut self, conn: ConnId) {
        let machine = std::rc::Rc::clone(&self.machine);
        let Some(socket) = self.socket(conn) else { return };
        if !socket.output.is_empty() {
            let (link, mut machine) = (socket.link, machine.borrow_mut());
            if machine.kernel.link(link).received_reset {
                drop(machine);
                return self.close(conn, ECONNRESET, false);
            }
            let sent = machine.node_sends(link, &socket.output);
            if sent > 0 {
                socket.still = 0;
                socket.output.drain(..sent);
                self.counts.bytes_sent += sent as u64;
            }
            let Some(socket) = self.socket(conn) else { return };
            if !socket.output.is_empty() {
                return;
            }
            if std::mem::take(&mut socket.told) || !socket.crowd {
                self.pending.push_back(NetEvent::OutputDrained { conn });
            }
        }
        self.after_output(conn);
    }

    fn after_output(&mut self, conn: ConnId) {
        let machine = std::rc::Rc::clone(&self.machine);
        let Some(socket) = self.socket(conn) else { return };
        let waited = std::mem::take(&mut socket.waits);
        if socket.close_after {
            self.close(conn, 0, false);
        } else if socket.shut_after {
            machine.borrow_mut().node_ends(socket.link);
        } else if let Leaving::Wanted(target, token) = socket.leaving {
            socket.leaving = Leaving::Announced(target, token);
            self.announced.push(conn);
            self.pending.push_back(NetEvent::HandOverReady { conn, token });
        }
        self.waiting -= usize::from(waited);
    }

    /// Ends a connection; its owner hears of it with the next turn.
    fn close(&mut self, conn: ConnId, errno: i32, reset: bool) {
        let machine = std::rc::Rc::clone(&self.machine);
        let Some(socket) = self.socket(conn) else { return };
        socket.closing = true;
        socket.output = Vec::new();
        let waited = std::mem::take(&mut socket.waits);
        machine.borrow_mut().node_closes(socket.link, reset);
        self.waiting -= usize::from(waited);
        let cause = if errno == 0 {
            CloseCause::Local
        } else {
            CloseCause::Error(errno)
        };
        self.pending.push_back(NetEvent::Closed { conn, cause });
    }

    fn vacate(&mut self, conn: ConnId) {
        self.slots[conn.slot() as usize].socket = None;
        self.vacant.push(conn.slot());
    }

    /// Sends away the sockets that were announced with an earlier turn.
    fn depart(&mut self) {
        for conn in std::mem::take(&mut self.announced) {
            let Some(&mut Socket {
                link,
                leaving: Leaving::Announced(target, token),
                ..
            }) = self.socket(conn)
            else {
                continue;
            };
            let mut machine = self.machine.borrow_mut();
            let free = &mut machine.kernel.free[usize::from(target)];
            if *free == 0 {
                drop(machine);
                if let Some(socket) = self.socket(conn) {
                    socket.leaving = Leaving::No;
                }
                let errno = ENFILE;
                self.pending.push_back(NetEvent::HandOverFailed { token, conn, errno });
                continue;
            }
            *free -= 1;
            machine.kernel.link(link).owner = Owner::Kernel;
            machine.kernel.handed[usize::from(target)].push_back((token, link));
            machine.wake(target);
            drop(machine);
            self.vacate(conn);
        }
    }

    fn take_new(&mut self, events: &mut Vec<NetEvent>) {
        let machine = std::rc::Rc::clone(&self.machine);
        let shard = usize::from(self.shard);
        loop {
            let handed = machine.borrow_mut().kernel.handed[shard].pop_front();
            let Some((token, link)) = handed else { break };
            let conn = self.install(link).expect("a place was kept for what was handed over");
            events.push(NetEvent::HandedOver { token, conn });
        }
        // As the real ring, which keeps some slots from accept.
        while self.listening && self.free() > self.slots_max / 4 {
            let new = machine.borrow_mut().kernel.backlog[shard].pop_front();
            let Some(link) = new else { break };
            if let Some(conn) = self.install(link) {
                events.push(NetEvent::Accepted { conn });
            }
        }
    }

    /// Looks at the connections that something happened on.
    fn serve_ready(&mut self, events: &mut Vec<NetEvent>) {
        let shard = usize::from(self.shard);
        self.starved = false;
        let mut ready = std::mem::take(&mut self.machine.borrow_mut().kernel.ready[shard]);
        for link in ready.drain(..) {
            let mut machine = self.machine.borrow_mut();
            let entry = machine.kernel.link(link);
            entry.ready = false;
            let Owner::Ring(owner, slot) = entry.owner else {
                continue;
            };
            if usize::from(owner) != shard {
                // It was handed over meanwhile: its new ring looks.
                machine.mark_ready(link);
                continue;
            }
            drop(machine);
            let conn = ConnId::new(slot, self.slots[slot as usize].generation);
            self.receive(conn, link, events);
            if self.socket(conn).is_some_and(|socket| !socket.output.is_empty()) {
                self.send(conn);
            }
        }
        let mut machine = self.machine.borrow_mut();
        let list = &mut machine.kernel.ready[shard];
        if list.is_empty() {
            *list = ready;
        }
    }

    fn receive(&mut self, conn: ConnId, link: u32, events: &mut Vec<NetEvent>) {
        let machine = std::rc::Rc::clone(&self.machine);
        loop {
            let bytes_max = self.buffer_bytes;
            let free = self.buffers_free.last().copied();
            let Some(socket) = self.socket(conn).filter(|socket| socket.recv_wanted) else {
                return;
            };
            let mut machine = machine.borrow_mut();
            let entry = machine.kernel.link(link);
            if !entry.received.is_empty() {
                let Some(id) = free else {
                    self.counts.recv_buffers_exhausted += 1;
                    self.starved = true;
                    return machine.mark_ready(link);
                };
                self.buffers_free.pop();
                let len = entry.received.len().min(bytes_max);
                let buffer = &mut self.buffers[usize::from(id)];
                if len == entry.received.len() {
                    *buffer = std::mem::take(&mut entry.received);
                } else {
                    buffer.clear();
                    buffer.extend(entry.received.drain(..len));
                }
                let buffer = RecvBuffer::new(id, len as u32);
                events.push(NetEvent::Received { conn, buffer });
            } else if entry.received_reset {
                drop(machine);
                return self.close(conn, ECONNRESET, false);
            } else if entry.received_fin && !socket.peer_closed {
                socket.peer_closed = true;
                socket.recv_wanted = false;
                return events.push(NetEvent::PeerClosed { conn });
            } else {
                return;
            }
        }
    }
}
