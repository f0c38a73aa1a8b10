//! The pool of output buffers: a connection holds an entry only while it has something to write.
//!
//! An entry has two halves: what the kernel is writing (never touched meanwhile) and what was appended since. Emptied
//! buffers wait for the next connection, bounded in bytes; giant ones go back to the allocator.
#![forbid(unsafe_code)]

use super::ConnId;
use super::limits::{OUTPUT_BYTES_INITIAL, OUTPUT_BYTES_KEPT, OUTPUT_POOL_BYTES_MAX, OUTPUT_SWEEPS, SEND_BYTES_MAX};

/// Entries that have room when nothing is written.
const ENTRIES_KEPT: usize = 256;

/// Output of one connection.
#[derive(Debug, Default)]
struct Output {
    /// Whose it is; none in a vacant entry.
    owner: Option<ConnId>,
    /// Sweeps since the kernel last took a byte.
    still: u8,
    /// The owner is to hear when all is written.
    told: bool,
    /// What the kernel is writing says nothing when it is written.
    quiet: bool,
    /// Appended by the owner, not yet given to the kernel.
    queued: Vec<u8>,
    /// Given to the kernel; stable until all of it is written.
    sending: Vec<u8>,
    /// Bytes of `sending` already written.
    sent: usize,
}

/// All output of a ring.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    entries: Vec<Output>,
    vacant: Vec<u32>,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
    /// Fewest spare buffers since the last [`Self::trim`]: as many were not needed.
    spare_least: usize,
}

impl Outputs {
    /// An empty entry, for a connection that has output again.
    pub(super) fn take(&mut self, owner: ConnId) -> u32 {
        let queued = self.buffer();
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(Output::default());
            self.entries.len() as u32 - 1
        });
        let entry = &mut self.entries[index as usize];
        debug_assert!(entry.queued.capacity() == 0 && entry.sending.capacity() == 0 && entry.sent == 0);
        entry.owner = Some(owner);
        entry.queued = queued;
        index
    }

    /// Gives an entry back, written or not. The kernel must not be writing from it.
    pub(super) fn release(&mut self, index: u32) {
        let entry = std::mem::take(&mut self.entries[index as usize]);
        self.keep(entry.queued);
        self.keep(entry.sending);
        self.vacant.push(index);
    }

    /// Where the owner appends.
    pub(super) fn queued_mut(&mut self, index: u32) -> &mut Vec<u8> {
        if self.entries[index as usize].queued.capacity() == 0 {
            self.entries[index as usize].queued = self.buffer();
        }
        &mut self.entries[index as usize].queued
    }

    /// The owner is to hear when all is written.
    pub(super) fn tell(&mut self, index: u32) {
        self.entries[index as usize].told = true;
    }

    /// Whether it is.
    pub(super) fn is_told(&self, index: u32) -> bool {
        self.entries[index as usize].told
    }

    /// What [`Self::next`] returned last is written in silence.
    pub(super) fn hush(&mut self, index: u32) {
        self.entries[index as usize].quiet = true;
    }

    /// Bytes that are being written in silence.
    pub(super) fn quiet_bytes(&self, index: u32) -> Option<usize> {
        let entry = &self.entries[index as usize];
        entry.quiet.then(|| entry.sending.len() - entry.sent)
    }

    /// Bytes not known to be written.
    pub(super) fn len(&self, index: u32) -> usize {
        let entry = &self.entries[index as usize];
        entry.queued.len() + entry.sending.len() - entry.sent
    }

    /// Notes that `bytes` more of what [`Self::next`] returned were written.
    pub(super) fn wrote(&mut self, index: u32, bytes: usize) {
        let entry = &mut self.entries[index as usize];
        entry.still = 0;
        entry.sent += bytes;
        assert!(
            entry.sent <= entry.sending.len(),
            "the kernel wrote no more than it was given"
        );
    }

    /// The bytes to write next, at most [`SEND_BYTES_MAX`]; they stay where they are until [`Self::wrote`] was told
    /// of all of them. `None` when all is written. No write may be in flight.
    pub(super) fn next(&mut self, index: u32) -> Option<&[u8]> {
        let entry = &mut self.entries[index as usize];
        entry.quiet = false;
        if entry.sent == entry.sending.len() {
            entry.sent = 0;
            entry.sending.clear();
            std::mem::swap(&mut entry.queued, &mut entry.sending);
            if entry.queued.capacity() > OUTPUT_BYTES_KEPT {
                entry.queued = Vec::new();
            }
        }
        let rest = &entry.sending[entry.sent..];
        (!rest.is_empty()).then(|| &rest[..rest.len().min(SEND_BYTES_MAX)])
    }

    /// Whether some connection has output that is not written.
    pub(super) fn is_waiting(&self) -> bool {
        self.vacant.len() < self.entries.len()
    }

    /// Names the connections of whose output the kernel took no byte since [`OUTPUT_SWEEPS`] sweeps before this one.
    /// Each is named again only after as many more.
    pub(super) fn sweep(&mut self, stalled: &mut Vec<ConnId>) {
        for entry in &mut self.entries {
            let Some(owner) = entry.owner else { continue };
            entry.still += 1;
            if entry.still > OUTPUT_SWEEPS {
                entry.still = 0;
                stalled.push(owner);
            }
        }
    }

    /// Bytes of the entries and of the buffers that wait for the next connection.
    pub(super) fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Output>() + self.spare_bytes
    }

    /// Gives back to the allocator the buffers that nobody needed since the last call: a burst's memory goes with the burst.
    pub(super) fn trim(&mut self) {
        // The oldest: those on top were used last and are warm.
        for buffer in self.spare.drain(..self.spare_least) {
            self.spare_bytes -= buffer.capacity();
        }
        self.spare_least = self.spare.len();
        let used = self.entries.iter().rposition(|entry| entry.owner.is_some());
        self.entries.truncate(used.map_or(0, |last| last + 1));
        self.vacant.retain(|index| (*index as usize) < self.entries.len());
        self.entries.shrink_to(ENTRIES_KEPT);
        self.vacant.shrink_to(ENTRIES_KEPT);
    }

    fn buffer(&mut self) -> Vec<u8> {
        match self.spare.pop() {
            Some(buffer) => {
                self.spare_bytes -= buffer.capacity();
                self.spare_least = self.spare_least.min(self.spare.len());
                buffer
            }
            None => Vec::with_capacity(OUTPUT_BYTES_INITIAL),
        }
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        let bytes = buffer.capacity();
        if bytes > 0 && bytes <= OUTPUT_BYTES_KEPT && self.spare_bytes + bytes <= OUTPUT_POOL_BYTES_MAX {
            buffer.clear();
            self.spare_bytes += bytes;
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: ConnId = ConnId::new(3, 1);

    #[test]
    fn only_what_stands_still_for_all_sweeps_is_stalled() {
        let mut outputs = Outputs::default();
        assert!(!outputs.is_waiting());
        let index = outputs.take(OWNER);
        outputs.queued_mut(index).extend_from_slice(b"abc");
        assert_eq!(outputs.next(index), Some(&b"abc"[..]));
        let sweep = |outputs: &mut Outputs| {
            let mut stalled = Vec::new();
            outputs.sweep(&mut stalled);
            stalled
        };
        for _ in 0..OUTPUT_SWEEPS {
            assert_eq!(sweep(&mut outputs), []);
        }
        outputs.wrote(index, 1);
        for _ in 0..OUTPUT_SWEEPS {
            assert_eq!(sweep(&mut outputs), [], "a byte is enough");
        }
        assert_eq!(sweep(&mut outputs), [OWNER]);
        assert_eq!(sweep(&mut outputs), [], "its time begins again");
        assert!(outputs.is_waiting());
        outputs.release(index);
        assert!(!outputs.is_waiting());
    }

    #[test]
    fn what_is_appended_during_a_write_goes_out_after_it() {
        let mut outputs = Outputs::default();
        let index = outputs.take(OWNER);
        outputs.queued_mut(index).extend_from_slice(b"abc");
        assert_eq!(outputs.next(index), Some(&b"abc"[..]));
        outputs.queued_mut(index).extend_from_slice(b"def");
        assert_eq!(outputs.len(index), 6);
        outputs.wrote(index, 1);
        assert_eq!(outputs.next(index), Some(&b"bc"[..]), "a short write is continued");
        outputs.wrote(index, 2);
        assert_eq!(outputs.next(index), Some(&b"def"[..]));
        outputs.wrote(index, 3);
        assert_eq!(outputs.len(index), 0);
        assert_eq!(outputs.next(index), None);
        outputs.release(index);
        assert_eq!(outputs.take(OWNER), index, "entries are reused");
    }

    #[test]
    fn one_write_is_bounded() {
        let mut outputs = Outputs::default();
        let index = outputs.take(OWNER);
        outputs.queued_mut(index).resize(SEND_BYTES_MAX + 1, 7);
        assert_eq!(outputs.next(index).map(<[u8]>::len), Some(SEND_BYTES_MAX));
        outputs.wrote(index, SEND_BYTES_MAX);
        assert_eq!(outputs.next(index), Some(&[7_u8][..]));
    }

    #[test]
    fn buffers_that_nobody_needs_between_two_trims_are_given_back() {
        let mut outputs = Outputs::default();
        let burst: Vec<u32> = (0..3).map(|_| outputs.take(OWNER)).collect();
        for index in burst {
            outputs.release(index);
        }
        outputs.trim();
        assert_eq!(outputs.spare.len(), 3, "all were needed since the beginning");
        let index = outputs.take(OWNER);
        outputs.release(index);
        outputs.trim();
        assert_eq!(outputs.spare.len(), 1, "two were not");
        assert_eq!(outputs.spare_bytes, outputs.spare[0].capacity());
        let index = outputs.take(OWNER);
        outputs.trim();
        outputs.release(index);
        outputs.trim();
        assert_eq!(outputs.spare.len(), 1, "in use while it was looked for");
        outputs.trim();
        assert_eq!((outputs.spare.len(), outputs.spare_bytes), (0, 0));
    }

    #[test]
    fn the_room_of_a_burst_goes_while_others_have_output() {
        let mut outputs = Outputs::default();
        let first = outputs.take(OWNER);
        let burst: Vec<u32> = (0..4 * ENTRIES_KEPT).map(|_| outputs.take(OWNER)).collect();
        let last = burst[ENTRIES_KEPT];
        burst
            .into_iter()
            .filter(|index| *index != last)
            .for_each(|index| outputs.release(index));
        outputs.trim();
        assert_eq!(outputs.entries.len(), last as usize + 1);
        assert_eq!(outputs.vacant.len(), last as usize - 1);
        outputs.release(last);
        outputs.trim();
        assert_eq!((outputs.entries.len(), outputs.vacant.len()), (1, 0));
        assert!(outputs.entries.capacity() <= ENTRIES_KEPT);
        assert!(outputs.is_waiting());
        outputs.release(first);
        assert!(!outputs.is_waiting());
    }

    #[test]
    fn the_pool_is_bounded_and_keeps_no_giants() {
        let mut outputs = Outputs::default();
        let giant = outputs.take(OWNER);
        outputs.queued_mut(giant).reserve_exact(OUTPUT_BYTES_KEPT + 1);
        outputs.release(giant);
        assert_eq!(outputs.spare_bytes, 0);
        let many: Vec<u32> = (0..2 * OUTPUT_POOL_BYTES_MAX / OUTPUT_BYTES_KEPT)
            .map(|_| outputs.take(OWNER))
            .collect();
        for &index in &many {
            let buffer = outputs.queued_mut(index);
            buffer.reserve_exact(OUTPUT_BYTES_KEPT);
        }
        for index in many {
            outputs.release(index);
        }
        assert!(outputs.spare_bytes <= OUTPUT_POOL_BYTES_MAX);
        assert_eq!(
            outputs.spare_bytes,
            outputs.spare.iter().map(Vec::capacity).sum::<usize>()
        );
    }
}
