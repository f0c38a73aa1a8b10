//! The port of the simulated ring: what a shard asks of it, see [`Ring`].

use super::{Leaving, SimRing};
use crate::world::platform::SimFile;
use dispatchd::aligned::AlignedBuffer;
use dispatchd::net::limits::OUTPUT_SWEEPS;
use dispatchd::net::{ConnId, NetBytes, NetCounts, NetEvent, RecvBuffer};
use dispatchd::shard::Ring;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

impl Ring for SimRing {
    type File = SimFile;
    type Listener = ();

    fn turn(&mut self, _wait: Option<Duration>, events: &mut Vec<NetEvent>) -> io::Result<()> {
        self.depart();
        self.submit();
        events.extend(self.pending.drain(..));
        self.take_new(events);
        self.serve_ready(events);
        events.extend(self.pending.drain(..));
        for event in &*events {
            if let NetEvent::Closed { conn, .. } = event {
                self.vacate(*conn);
            }
        }
        let shard = usize::from(self.shard);
        let free = self.free();
        let mut machine = self.machine.borrow_mut();
        // What is on its way here has its place already.
        machine.kernel.free[shard] = free.saturating_sub(machine.kernel.handed[shard].len() as u32);
        drop(machine);
        let rung = self.machine.borrow_mut().take_rung(self.shard);
        if rung {
            events.push(NetEvent::Woken);
        }
        Ok(())
    }

    fn listen(&mut self, (): ()) {
        self.listening = true;
        self.machine.borrow_mut().kernel.listening.push(self.shard);
    }

    fn start_recv(&mut self, conn: ConnId) {
        let machine = std::rc::Rc::clone(&self.machine);
        if let Some(socket) = self.socket(conn)
            && socket.leaving == Leaving::No
            && !socket.peer_closed
        {
            socket.recv_wanted = true;
            machine.borrow_mut().mark_ready(socket.link);
        }
    }

    fn join_crowd(&mut self, conn: ConnId) {
        if let Some(socket) = self.socket(conn) {
            socket.crowd = true;
        }
    }

    fn pause_recv(&mut self, conn: ConnId) {
        if let Some(socket) = self.socket(conn) {
            socket.recv_wanted = false;
        }
    }

    fn bytes_mut(&mut self, buffer: &RecvBuffer) -> &mut [u8] {
        &mut self.buffers[usize::from(buffer.id())]
    }

    fn recycle(&mut self, buffer: RecvBuffer) {
        self.buffers_free.push(buffer.id());
    }

    fn output(&mut self, conn: ConnId) -> Option<&mut Vec<u8>> {
        let socket = self.socket(conn)?;
        if socket.close_after || socket.shut_after || socket.leaving != Leaving::No {
            return None;
        }
        let newly = !std::mem::replace(&mut socket.waits, true);
        if newly {
            socket.still = 0;
        }
        let dirty = std::mem::replace(&mut socket.dirty, true);
        self.waiting += usize::from(newly);
        if !dirty {
            self.dirty.push(conn);
        }
        self.socket(conn).map(|socket| &mut socket.output)
    }

    fn output_len(&self, conn: ConnId) -> usize {
        let slot = self.slots.get(conn.slot() as usize);
        let socket = slot
            .filter(|slot| slot.generation == conn.generation())
            .and_then(|slot| slot.socket.as_ref());
        socket.map_or(0, |socket| socket.output.len())
    }

    fn tell_drained(&mut self, conn: ConnId) {
        if let Some(socket) = self.socket(conn) {
            socket.told = !socket.output.is_empty();
        }
    }

    fn has_output(&self) -> bool {
        self.waiting > 0
    }

    fn sweep_output(&mut self, stalled: &mut Vec<ConnId>) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(socket) = slot.socket.as_mut().filter(|socket| socket.waits && !socket.closing) else {
                continue;
            };
            socket.still += 1;
            if socket.still > OUTPUT_SWEEPS {
                socket.still = 0;
                stalled.push(ConnId::new(index as u32, slot.generation));
            }
        }
    }

    fn trim(&mut self) {}

    fn close_after_output(&mut self, conn: ConnId) {
        let Some(socket) = self.socket(conn) else { return };
        socket.close_after = true;
        socket.leaving = Leaving::No;
        if !socket.waits {
            self.close(conn, 0, false);
        }
    }

    fn shutdown_write_after_output(&mut self, conn: ConnId) {
        let Some(socket) = self.socket(conn) else { return };
        if socket.close_after || socket.shut_after || socket.leaving != Leaving::No {
            return;
        }
        socket.shut_after = true;
        if !socket.waits {
            self.after_output(conn);
        }
    }

    fn abort(&mut self, conn: ConnId) {
        self.close(conn, 0, true);
    }

    fn hand_over(&mut self, conn: ConnId, target_ring_fd: RawFd, token: u64) -> bool {
        assert!(
            target_ring_fd != self.ring_fd(),
            "a connection is not handed to its own ring"
        );
        let Some(socket) = self.socket(conn) else { return false };
        if socket.close_after || socket.shut_after || socket.leaving != Leaving::No {
            return false;
        }
        let (link, dice) = (socket.link, std::rc::Rc::clone(&self.machine));
        if dice.borrow_mut().rng.chance(500) {
            // What the kernel had taken from the socket already is delivered before it leaves.
            let mut taken = Vec::new();
            self.receive(conn, link, &mut taken);
            self.pending.extend(taken);
        }
        let Some(socket) = self.socket(conn) else { return false };
        socket.recv_wanted = false;
        socket.leaving = Leaving::Wanted(target_ring_fd as u16, token);
        if !socket.waits {
            self.after_output(conn);
        }
        true
    }

    fn wake_ring(&mut self, target_ring_fd: RawFd) {
        if !self.wakes.contains(&target_ring_fd) {
            self.wakes.push(target_ring_fd);
        }
    }

    fn write_file(&mut self, token: u64, file: &SimFile, offset: u64, buffer: AlignedBuffer, len: usize) {
        self.machine
            .borrow_mut()
            .write(self.shard, token, *file, offset, buffer, len);
    }

    fn ring_fd(&self) -> RawFd {
        RawFd::from(self.shard)
    }

    fn connections(&self) -> u32 {
        self.occupied()
    }

    fn take_counts(&mut self) -> NetCounts {
        std::mem::take(&mut self.counts)
    }

    fn bytes(&self) -> NetBytes {
        NetBytes::default()
    }
}
