//! What a shard stands on, as ports: its net ring, its clock, the files of its journal, and the end of its process.
//! [`Machine`] is the real one. Another one may stand here instead (a simulator's), and the shard is the same code.
//!
//! Everything is known at compile time: the real platform costs nothing.
#![forbid(unsafe_code)]

use super::clock::Clock;
use super::rings::Rings;
use super::runtime::Housekeeper;
use crate::aligned::AlignedBuffer;
use crate::journal::SegmentHeader;
use crate::net::{ConnId, NetBytes, NetCounts, NetEvent, RecvBuffer};
use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// All that a shard stands on.
pub trait Platform: 'static {
    /// Sockets, sleep and the journal's writes.
    type Ring: Ring;
    /// Time.
    type Time: Time;
    /// Segment files, which `Ring` writes to.
    type Files: Files<File = <Self::Ring as Ring>::File>;

    /// Ends the process: it cannot go on without lying about what is stored.
    fn fail(shard: u16, what: &str, error: &dyn Debug) -> !;
}

/// Time.
pub trait Time {
    /// Unix microseconds. Never falls while the process lives; all shards see the same time.
    fn now_us(&self) -> u64;

    /// A number for what happens now: of two things on any shards, one of which is done because of the other, or after it on the same
    /// shard, that one's is greater, or as great when no clock tells them apart.
    fn order(&self) -> u64;
}

/// Work on one shard's segment files, done by somebody who may block.
pub enum Job {
    /// Makes a segment, see [`segments::create`](crate::journal::segments::create).
    Create(SegmentHeader),
    /// Deletes segments, in this order, see [`segments::remove`](crate::journal::segments::remove).
    Remove(Vec<u64>),
}

/// The result of a [`Job`].
pub enum Done<File> {
    /// The segment of this number, durable, or why there is none.
    Created(u64, io::Result<File>),
    /// Whether what was to go has gone.
    Removed(io::Result<()>),
}

/// The files of one shard's journal.
pub trait Files {
    /// An open segment.
    type File;
    /// Orders work; its result comes to [`Self::take`], and the shard's ring is woken.
    fn send(&self, job: Job);
    /// What is done, in the order in which it was.
    fn take(&self) -> Option<Done<Self::File>>;
}

/// The net ring; every method is explained at the one of the same name of [`Net`](crate::net::Net).
#[expect(missing_docs, clippy::missing_errors_doc, reason = "explained there")]
pub trait Ring {
    /// A file that the journal writes to: a completed write is durable.
    type File;
    /// Where connections come from.
    type Listener;

    fn turn(&mut self, wait: Option<Duration>, events: &mut Vec<NetEvent>) -> io::Result<()>;
    fn listen(&mut self, listener: Self::Listener);
    fn start_recv(&mut self, conn: ConnId);
    fn join_crowd(&mut self, conn: ConnId);
    fn pause_recv(&mut self, conn: ConnId);
    fn bytes_mut(&mut self, buffer: &RecvBuffer) -> &mut [u8];
    fn recycle(&mut self, buffer: RecvBuffer);
    fn output(&mut self, conn: ConnId) -> Option<&mut Vec<u8>>;
    fn output_len(&self, conn: ConnId) -> usize;
    fn tell_drained(&mut self, conn: ConnId);
    fn has_output(&self) -> bool;
    fn sweep_output(&mut self, stalled: &mut Vec<ConnId>);
    fn trim(&mut self);
    fn close_after_output(&mut self, conn: ConnId);
    fn shutdown_write_after_output(&mut self, conn: ConnId);
    fn abort(&mut self, conn: ConnId);
    fn hand_over(&mut self, conn: ConnId, target_ring_fd: RawFd, token: u64) -> bool;
    fn wake_ring(&mut self, target_ring_fd: RawFd);
    fn write_file(&mut self, token: u64, file: &Self::File, offset: u64, buffer: AlignedBuffer, len: usize);
    fn ring_fd(&self) -> RawFd;
    fn connections(&self) -> u32;
    fn take_counts(&mut self) -> NetCounts;
    fn bytes(&self) -> NetBytes;
}

/// The machine: an `io_uring`, its clocks and its disk.
#[derive(Debug)]
pub enum Machine {}

impl Platform for Machine {
    type Ring = Rings;
    type Time = Clock;
    type Files = Housekeeper;

    fn fail(shard: u16, what: &str, error: &dyn Debug) -> ! {
        tracing::error!(
            shard,
            ?error,
            "{what}: ending the process; the journal is recovered at the next start"
        );
        crate::ops::log::end();
        std::process::exit(1)
    }
}

impl Time for Clock {
    #[inline]
    fn now_us(&self) -> u64 {
        Clock::now_us(self)
    }

    fn order(&self) -> u64 {
        self.elapsed_ns()
    }
}
