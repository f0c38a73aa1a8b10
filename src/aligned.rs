//! A growable byte buffer that begins on a page boundary: what `O_DIRECT` writes and ring buffers need.
//!
//! Owns memory only. Shared by the journal (fills and reads it) and the net ring (submits it). The address is stable
//! while nothing is added; whoever gives the buffer to the kernel owns it until the completion came back.
#![forbid(unsafe_code)]

use rkyv::ser::{Positional, Writer};
use rkyv::util::AlignedVec;

/// Alignment of the first byte, in bytes: a page, which is a multiple of every logical block size in use.
pub const ALIGNMENT: usize = 4096;

/// Bytes in memory whose first one is 4096-aligned (once anything was added).
#[derive(Debug, Default)]
pub struct AlignedBuffer(AlignedVec<ALIGNMENT>);

impl AlignedBuffer {
    /// An empty buffer; allocates nothing.
    pub fn new() -> Self {
        Self(AlignedVec::new())
    }

    /// An empty buffer that takes `bytes` bytes without allocating again.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(AlignedVec::with_capacity(bytes))
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no byte is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that fit before the buffer allocates again.
    pub fn capacity(&self) -> usize {
        self.0.capacity()
    }

    /// Forgets the bytes, keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a copy of `bytes` at the end.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Makes the length `len`: cuts, or adds bytes of `value`.
    pub fn resize(&mut self, len: usize, value: u8) {
        self.0.resize(len, value);
    }

    /// Cuts to `len` bytes; does nothing when there are fewer.
    pub fn truncate(&mut self, len: usize) {
        if len < self.0.len() {
            self.0.resize(len, 0);
        }
    }

    /// Adds zeros until the length is a multiple of `multiple`.
    ///
    /// # Panics
    /// When `multiple` is 0.
    pub fn pad_to(&mut self, multiple: usize) {
        assert!(multiple > 0, "a length is no multiple of nothing");
        self.0.resize(self.0.len().next_multiple_of(multiple), 0);
        debug_assert_eq!(self.0.len() % multiple, 0);
    }

    /// The bytes. Their pointer is 4096-aligned when there are any.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// The bytes, to be changed in place.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_mut_slice()
    }
}

impl Positional for AlignedBuffer {
    fn pos(&self) -> usize {
        self.0.len()
    }
}

/// rkyv writes straight into the buffer.
impl<E> Writer<E> for AlignedBuffer {
    fn write(&mut self, bytes: &[u8]) -> Result<(), E> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_aligned_while_it_grows() {
        let mut buffer = AlignedBuffer::new();
        assert!(buffer.is_empty());
        for round in 0..64_usize {
            buffer.extend_from_slice(&[round as u8; 1000]);
            assert_eq!(buffer.as_slice().as_ptr().addr() % ALIGNMENT, 0);
            assert_eq!(buffer.len(), (round + 1) * 1000);
        }
        assert_eq!(buffer.as_slice()[999], 0);
        assert_eq!(buffer.as_slice()[63_999], 63);
    }

    #[test]
    fn pads_and_truncates() {
        let mut buffer = AlignedBuffer::with_capacity(8192);
        buffer.pad_to(4096);
        assert_eq!(buffer.len(), 0);
        buffer.extend_from_slice(b"x");
        buffer.pad_to(4096);
        assert_eq!(buffer.len(), 4096);
        assert_eq!(buffer.as_slice()[1..], [0; 4095]);
        buffer.truncate(9999);
        assert_eq!(buffer.len(), 4096);
        buffer.truncate(1);
        assert_eq!(buffer.as_slice(), b"x");
        buffer.as_mut_slice()[0] = b'y';
        buffer.resize(3, b'z');
        assert_eq!(buffer.as_slice(), b"yzz");
        buffer.clear();
        assert!(buffer.is_empty());
        assert_eq!(buffer.capacity(), 8192);
    }
}
