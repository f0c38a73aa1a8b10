//! Memory that the kernel reads or writes while a ring's requests run: provided receive buffers and send blocks.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Alignment that the kernel asks of a buffer ring (a page).
const PAGE_BYTES: usize = 4096;

/// Received bytes that still lie in a provided buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub(crate) buffer: u16,
    pub(crate) len: u32,
}

impl Chunk {
    /// Bytes received, at least 1.
    pub fn len(self) -> u32 {
        self.len
    }

    /// Never true: a chunk without bytes is an end of stream, not a chunk.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

/// A ring of provided receive buffers: the kernel takes from its head, we give back at its tail.
pub(crate) struct RecvBuffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    buffer_bytes: u32,
    tail: u16,
    leaked: bool,
}

impl RecvBuffers {
    /// Allocates `count` (a power of two) buffers of `buffer_bytes` and registers all of them as `group`.
    pub(crate) fn register(uring: &IoUring, group: u16, count: u16, buffer_bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two() && buffer_bytes > 0);
        let mut buffers = Self {
            entries: allocate(entries_layout(count)).cast(),
            memory: allocate(memory_layout(count, buffer_bytes)),
            count,
            buffer_bytes,
            tail: 0,
            leaked: false,
        };
        for buffer in 0..count {
            buffers.provide(buffer);
        }
        buffers.publish();
        let address = buffers.entries.as_ptr() as u64;
        // SAFETY: the entries are page-aligned, hold `count` of them and live until `Drop`; `Ring::drop` unregisters the
        // group first or has this struct leak its memory.
        unsafe {
            uring
                .submitter()
                .register_buf_ring_with_flags(address, count, group, 0)?;
        };
        Ok(buffers)
    }

    /// The bytes of a chunk that was received and not yet released.
    pub(crate) fn bytes(&self, chunk: Chunk) -> &[u8] {
        assert!(chunk.buffer < self.count && chunk.len <= self.buffer_bytes);
        let offset = usize::from(chunk.buffer) * self.buffer_bytes as usize;
        // SAFETY: the offset lies inside `memory` (asserted), which was zeroed at allocation; the kernel writes to a buffer
        // only between its release and the completion that names it, and this chunk is in neither's hands but ours.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(offset), chunk.len as usize) }
    }

    /// Gives the chunk's buffer back to the kernel.
    pub(crate) fn release(&mut self, chunk: Chunk) {
        assert!(chunk.buffer < self.count);
        self.provide(chunk.buffer);
        self.publish();
    }

    /// Keeps the memory for ever: the kernel may still use it.
    pub(crate) fn leak(&mut self) {
        self.leaked = true;
    }

    fn provide(&mut self, buffer: u16) {
        let index = usize::from(self.tail & (self.count - 1));
        let offset = usize::from(buffer) * self.buffer_bytes as usize;
        // SAFETY: `index` is below `count`, so the entry lies inside the allocation; the kernel does not read entries at or
        // beyond the published tail, and we hold `&mut self`. The buffer's address lies inside `memory`.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(self.memory.as_ptr().add(offset) as u64);
            entry.set_len(self.buffer_bytes);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the first entry's reserved field is the ring's tail (io_uring_register_buf_ring(2)); it is aligned to two
        // bytes, lies inside the allocation, and is only ever written here.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for RecvBuffers {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: both were allocated with these layouts, and the kernel no longer uses them (see `Ring::drop`).
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
            dealloc(self.memory.as_ptr(), memory_layout(self.count, self.buffer_bytes));
        }
    }
}

fn entries_layout(count: u16) -> Layout {
    let bytes = usize::from(count) * size_of::<BufRingEntry>();
    Layout::from_size_align(bytes, PAGE_BYTES).expect("a few kilobytes at page alignment")
}

fn memory_layout(count: u16, buffer_bytes: u32) -> Layout {
    let bytes = usize::from(count) * buffer_bytes as usize;
    Layout::from_size_align(bytes, PAGE_BYTES).expect("a few megabytes at page alignment")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0);
    // SAFETY: the layout is not empty (asserted).
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}

/// Recycled buffers of sends; a taken block's bytes stay where they are until it is freed.
#[derive(Default)]
pub(crate) struct SendBlocks {
    blocks: Vec<Vec<u8>>,
    free: Vec<u32>,
}

impl SendBlocks {
    /// An empty block and its key. It may be filled until its entry is built, and not be touched from then to its completion.
    pub(crate) fn take(&mut self) -> (u32, &mut Vec<u8>) {
        let key = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(Vec::with_capacity(512));
            self.blocks.len() as u32 - 1
        });
        let block = &mut self.blocks[key as usize];
        block.clear();
        (key, block)
    }

    /// Takes a completed send's block back.
    pub(crate) fn free(&mut self, key: u32) {
        assert!((key as usize) < self.blocks.len() && self.free.len() < self.blocks.len());
        self.free.push(key);
    }

    /// Called when the ring goes: blocks of sends that have not completed stay allocated for ever.
    pub(crate) fn leak_unfinished(&mut self) {
        if self.free.len() < self.blocks.len() {
            std::mem::forget(std::mem::take(&mut self.blocks));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn send_blocks_are_recycled_empty() {
        let mut blocks = SendBlocks::default();
        let (first, block) = blocks.take();
        block.extend_from_slice(b"abc");
        let (second, _) = blocks.take();
        assert_ne!(first, second);
        blocks.free(first);
        let (again, block) = blocks.take();
        assert_eq!(again, first);
        assert!(block.is_empty());
    }
}
