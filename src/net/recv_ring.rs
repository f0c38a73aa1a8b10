//! The provided-buffer ring: receive buffers shared by all connections, lent to the owner one event at a time.
//!
//! The kernel takes a buffer only when bytes arrive; the owner gives it back after reading. Two private mappings, zero
//! pages until used: the ring of descriptors, and the buffers.
//!
//! The kernel takes buffers in the order in which they were offered, so if it had all of them each would be the coldest one.
//! It has twice as many as it needed at once of late, the last ones used, and all of them when that did not suffice. From second to
//! second they become half as many at most, and their memory goes back to the machine.
#![allow(unsafe_code)]

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::RecvBuffer;
use super::limits::{RECV_BUFFER_BYTES_MAX, RECV_BUFFER_BYTES_MIN, RECV_BUFFERS_MAX, RECV_BUFFERS_OFFERED_MIN};
use super::ring::Ring;

/// Private anonymous memory, page-aligned, unmapped on drop.
struct Mapping {
    address: NonNull<libc::c_void>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        assert!(bytes > 0);
        // SAFETY: a new private mapping touches no memory of ours.
        let address = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                ptr::null_mut(),
                bytes,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address).expect("the kernel maps nothing at address 0 unasked");
        Ok(Self { address, bytes })
    }

    /// Gives the pages back to the machine; they are zeros when they are used next.
    fn forget(&mut self) {
        // SAFETY: exactly what `new` mapped, private and anonymous; `&mut self` keeps every reference out. The kernel may write
        // to it at any time, and finds a new page then.
        let advised = unsafe { libc::madvise(self.address.as_ptr(), self.bytes, libc::MADV_DONTNEED) };
        debug_assert_eq!(advised, 0);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and the last use of it.
        let unmapped = unsafe { libc::munmap(self.address.as_ptr(), self.bytes) };
        debug_assert_eq!(unmapped, 0);
    }
}

/// All receive buffers of a ring. Must outlive it.
pub(super) struct RecvRing {
    ring: Mapping,
    buffers: Mapping,
    count: u16,
    buffer_bytes: u32,
    /// Where the next returned buffer goes; the kernel reads a copy of it in the ring.
    tail: u16,
    /// Which buffers the owner holds.
    lent: Vec<bool>,
    lent_count: u16,
    /// Buffers that neither the owner nor the kernel has; the one that came back last is on top.
    kept: Vec<u16>,
    /// How many the kernel has at the beginning of a turn, if there are as many.
    goal: u16,
    /// How many it had after the last [`Self::refill`].
    shown: u16,
    /// Most that it needed at once since the last [`Self::trim`].
    most_used: u16,
    /// Memory is given back once the kernel has no more buffers than it is to have: the surplus would only be used once more.
    cools: bool,
}

impl RecvRing {
    /// Makes and registers `count` (rounded up to a power of two) buffers of `buffer_bytes`.
    pub(super) fn new(uring: &Ring, count: u16, buffer_bytes: u32) -> io::Result<Self> {
        let count = count.clamp(1, RECV_BUFFERS_MAX).next_power_of_two();
        let buffer_bytes = buffer_bytes.clamp(RECV_BUFFER_BYTES_MIN, RECV_BUFFER_BYTES_MAX);
        let ring = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let buffers = Mapping::new(usize::from(count) * buffer_bytes as usize)?;
        let lent = vec![false; usize::from(count)];
        let mut all = Self {
            ring,
            buffers,
            count,
            buffer_bytes,
            tail: 0,
            lent,
            lent_count: 0,
            kept: (0..count).rev().collect(),
            goal: RECV_BUFFERS_OFFERED_MIN.min(count),
            shown: 0,
            most_used: 0,
            cools: false,
        };
        // SAFETY: the mapping is page-aligned, holds `count` entries, and `Net` drops it after the ring.
        unsafe { uring.register_buffers(all.ring.address.as_ptr() as u64, count)? };
        all.refill();
        Ok(all)
    }

    /// Gives the kernel as many buffers as it is to have, or as there are.
    pub(super) fn refill(&mut self) {
        let used = self.shown - self.offered();
        self.most_used = self.most_used.max(used);
        let missing = self.goal.saturating_sub(self.offered()).min(self.kept.len() as u16);
        self.shown = self.offered() + missing;
        if missing == 0 {
            return;
        }
        for _ in 0..missing {
            let id = self.kept.pop().expect("as many are kept");
            self.offer(id);
        }
        self.publish();
    }

    /// The kernel ran out of buffers: it gets all there are from the next [`Self::refill`] on. False if there are no more.
    pub(super) fn offer_all(&mut self) -> bool {
        self.goal = self.count;
        !self.kept.is_empty()
    }

    /// As many buffers for the kernel from now on as it turned out to need since the last call. When they become half as many, the memory
    /// of all goes back to the machine, once nothing lies in them: `all_reaped` says so of what the kernel has filled.
    pub(super) fn trim(&mut self, all_reaped: bool) {
        let needed = std::mem::take(&mut self.most_used).saturating_mul(2);
        let least = RECV_BUFFERS_OFFERED_MIN.min(self.count);
        if needed <= self.goal / 2 && self.goal > least {
            self.goal = (self.goal / 2).max(least);
            self.cools = true;
        }
        if self.cools && all_reaped && self.lent_count == 0 {
            self.buffers.forget();
            self.cools = self.offered() > self.goal;
        }
    }

    /// Buffers that the kernel has.
    fn offered(&self) -> u16 {
        self.count - self.lent_count - self.kept.len() as u16
    }

    /// Buffers that the owner does not hold (the kernel may have used some of them already).
    pub(super) fn available(&self) -> u16 {
        self.count - self.lent_count
    }

    /// Bytes of the buffers and of their ring.
    pub(super) fn bytes(&self) -> usize {
        self.ring.bytes + self.buffers.bytes
    }

    /// Takes note that the kernel filled `len` bytes of buffer `id` and passes it to the owner.
    ///
    /// # Panics
    /// When the kernel names a buffer that it was not given.
    pub(super) fn lend(&mut self, id: u16, len: u32) -> RecvBuffer {
        assert!(
            len <= self.buffer_bytes,
            "the kernel filled {len} of {} bytes",
            self.buffer_bytes
        );
        let lent = &mut self.lent[usize::from(id)];
        assert!(!*lent, "buffer {id} is held by the owner");
        *lent = true;
        self.lent_count += 1;
        RecvBuffer::new(id, len)
    }

    /// The bytes of a lent buffer.
    ///
    /// # Panics
    /// When the buffer is another ring's.
    pub(super) fn bytes_mut(&mut self, buffer: &RecvBuffer) -> &mut [u8] {
        assert!(
            self.lent[usize::from(buffer.id)] && buffer.len <= self.buffer_bytes,
            "a buffer of this ring"
        );
        let start = usize::from(buffer.id) * self.buffer_bytes as usize;
        // SAFETY: inside the mapping (`lend` checked both); initialised (zero pages, then the kernel's bytes); the kernel
        // does not write a buffer that it gave away, and `&mut self` keeps every other reference out.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.buffers.address.cast::<u8>().as_ptr().add(start),
                buffer.len as usize,
            )
        }
    }

    /// Takes a buffer back; [`Self::refill`] offers it to the kernel.
    ///
    /// # Panics
    /// When the buffer is another ring's.
    #[expect(clippy::needless_pass_by_value, reason = "the owner must not use it any more")]
    pub(super) fn recycle(&mut self, buffer: RecvBuffer) {
        let lent = &mut self.lent[usize::from(buffer.id)];
        assert!(*lent, "a buffer of this ring comes back once");
        *lent = false;
        self.lent_count -= 1;
        self.kept.push(buffer.id);
    }

    /// Writes the descriptor of buffer `id` at the tail, unseen by the kernel until `publish`.
    fn offer(&mut self, id: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        let start = usize::from(id) * self.buffer_bytes as usize;
        // SAFETY: `index` and `start` are inside their mappings. The kernel does not read entries from the tail on. The
        // setters leave the field alone that is the ring's tail in entry 0.
        unsafe {
            let entry = &mut *self.ring.address.as_ptr().cast::<BufRingEntry>().add(index);
            entry.set_addr(self.buffers.address.as_ptr() as u64 + start as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel all descriptors up to the tail.
    fn publish(&mut self) {
        let base = self.ring.address.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `base` is entry 0 of the registered ring, so this is the tail's place, aligned for u16, which the kernel
        // only reads.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}
