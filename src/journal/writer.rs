//! The writing side of a journal, without I/O: records in, write operations out, completions in.
//!
//! Owns the numbers (records, blocks, segments) and the buffers; the shard owns the ring and the files. One write is
//! under way at a time, and each takes all that waits, up to the longest commit. What waits beyond that stands in
//! blocks of its own, in order. After a failed write nothing more is written: the process ends.

use super::Lsn;
use super::error::JournalError;
use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, FRAME_BYTES, Geometry, Owner, PAGE_BYTES, SegmentHeader, encode_frame,
    zero_sectors,
};
use crate::aligned::AlignedBuffer;
use crate::fsm::types::Record;
use crate::wire::record::{self, RECORD_ALIGN};
use std::collections::VecDeque;
use std::io;

/// Buffers kept for reuse: one is being written while the other fills.
const POOL_BUFFERS: usize = 2;
/// First capacity of a buffer, in bytes; it grows to the longest commit when needed.
const BUFFER_BYTES: usize = 64 << 10;

/// One write that the shard is to submit: all of `buffer` to `segment` at `offset`.
#[derive(Debug)]
#[must_use = "the records in it are durable only once it was written"]
pub struct WriteOp {
    /// Which file.
    pub segment: u64,
    /// Where, in bytes from the file's start; a multiple of 4096.
    pub offset: u64,
    /// What; comes back with [`Writer::completed`].
    pub buffer: AlignedBuffer,
    /// How many bytes: all of `buffer`, a multiple of 4096.
    pub len: usize,
}

/// What a completed write made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Every record up to this one is durable.
    pub through: Lsn,
    /// How many records this write added.
    pub records: u32,
}

/// A segment that the writer knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Number of the segment.
    pub id: u64,
    /// First record in it; 0 while there is none.
    pub first_lsn: Lsn,
    /// Last record in it that was given to a write; 0 while there is none.
    pub last_lsn: Lsn,
}

/// Records that will be one write: room for the header, then frames and records.
#[derive(Debug)]
struct Block {
    buffer: AlignedBuffer,
    first_lsn: Lsn,
    records: u32,
}

impl Block {
    fn bytes(&self) -> usize {
        self.buffer.len().next_multiple_of(PAGE_BYTES)
    }
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    segment: u64,
    offset: u64,
    len: usize,
    committed: Committed,
}

/// One shard's journal, writing side.
#[derive(Debug)]
pub struct Writer {
    owner: Owner,
    geometry: Geometry,
    /// Oldest first. The last one that holds a record is being written; at most one after it waits.
    segments: VecDeque<SegmentInfo>,
    /// Where the next block goes in the current segment, in bytes from its start; 0 before there is one.
    offset: u64,
    /// Index in `segments` of the one that is being written.
    current: usize,
    segment_next: u64,
    sequence_next: u64,
    /// Bytes of all blocks that were given to a write.
    given_bytes: u64,
    lsn_next: Lsn,
    committed: Lsn,
    /// What waits, oldest first; only the last one takes records.
    blocks: VecDeque<Block>,
    in_flight: Option<InFlight>,
    pool: Vec<AlignedBuffer>,
    failed: bool,
}

impl Writer {
    /// A journal without records or segments. The first to be added is number 1.
    pub fn new(owner: Owner, geometry: Geometry) -> Self {
        let buffer = || AlignedBuffer::with_capacity(BUFFER_BYTES.min(geometry.commit_bytes_max()));
        Self {
            owner,
            geometry,
            segments: VecDeque::with_capacity(8),
            offset: 0,
            current: 0,
            segment_next: 1,
            sequence_next: 1,
            given_bytes: 0,
            lsn_next: 1,
            committed: 0,
            blocks: VecDeque::with_capacity(8),
            in_flight: None,
            pool: (0..POOL_BUFFERS).map(|_| buffer()).collect(),
            failed: false,
        }
    }

    /// Takes a record; returns its number. It is durable once [`Self::completed`] returns that number or a later one.
    ///
    /// # Errors
    /// [`JournalError::RecordTooLarge`] and [`JournalError::Encode`] take nothing and change nothing;
    /// [`JournalError::Failed`] is fatal.
    pub fn append(&mut self, record: &Record) -> Result<Lsn, JournalError> {
        if self.failed {
            return Err(JournalError::Failed);
        }
        if self.blocks.is_empty() {
            self.begin_block();
        }
        let commit_bytes_max = self.geometry.commit_bytes_max();
        let record_bytes_max = self.geometry.record_bytes_max();
        let (start, len) = self.encode_in_last_block(record)?;
        let block = self.last_block();
        if len > record_bytes_max {
            block.buffer.truncate(start);
            self.drop_empty_block();
            return Err(JournalError::RecordTooLarge {
                len,
                max: record_bytes_max,
            });
        }
        if block.buffer.len() > commit_bytes_max {
            self.move_to_new_block(start);
        }
        let block = self.last_block();
        debug_assert!(block.buffer.len() <= commit_bytes_max);
        block.records += 1;
        let lsn = block.first_lsn + u64::from(block.records) - 1;
        debug_assert_eq!(lsn, self.lsn_next, "numbers have no gaps");
        self.lsn_next = lsn + 1;
        Ok(lsn)
    }

    /// Bytes that waiting and running writes take on disk. What admission compares with its bound.
    pub fn backlog_bytes(&self) -> u64 {
        self.waiting_bytes() + self.in_flight.map_or(0, |write| write.len as u64)
    }

    /// Bytes that all records so far take on disk, those that still wait included.
    pub fn bytes(&self) -> u64 {
        self.given_bytes + self.waiting_bytes()
    }

    /// The next write, when there is one to submit: none is under way, records wait, and a segment has room.
    pub fn next_write(&mut self) -> Option<WriteOp> {
        if self.failed || self.in_flight.is_some() {
            return None;
        }
        let block_bytes = self.blocks.front()?.bytes() as u64;
        self.advance_segment(block_bytes)?;
        let mut block = self.blocks.pop_front()?;
        let info = &mut self.segments[self.current];
        seal(&mut block, self.owner, info.id, self.sequence_next);
        let committed = Committed {
            through: block.first_lsn + u64::from(block.records) - 1,
            records: block.records,
        };
        if info.first_lsn == 0 {
            info.first_lsn = block.first_lsn;
        }
        info.last_lsn = committed.through;
        let (segment, offset, len) = (info.id, self.offset, block.buffer.len());
        self.sequence_next += 1;
        self.offset += len as u64;
        self.given_bytes += len as u64;
        self.in_flight = Some(InFlight {
            segment,
            offset,
            len,
            committed,
        });
        Some(WriteOp {
            segment,
            offset,
            buffer: block.buffer,
            len,
        })
    }

    /// The write under way is over: gives back its buffer and says how many bytes were stored, durably.
    ///
    /// # Errors
    /// Every error is fatal: the records may be stored or not, and the process must end without answering for them.
    ///
    /// # Panics
    /// When no write is under way.
    pub fn completed(&mut self, buffer: AlignedBuffer, result: io::Result<usize>) -> Result<Committed, JournalError> {
        let write = self
            .in_flight
            .take()
            .expect("a completion belongs to the write under way");
        self.recycle(buffer);
        let InFlight {
            segment,
            offset,
            len: expected,
            committed,
        } = write;
        match result {
            Ok(written) if written == expected => {
                debug_assert!(self.committed < committed.through && committed.through < self.lsn_next);
                self.committed = committed.through;
                Ok(committed)
            }
            Ok(written) => {
                self.failed = true;
                Err(JournalError::ShortWrite {
                    segment,
                    offset,
                    expected,
                    written,
                })
            }
            Err(source) => {
                self.failed = true;
                Err(JournalError::Write {
                    segment,
                    offset,
                    source,
                })
            }
        }
    }

    /// The number of the segment to create next, when it is time: at the start, and while no other waits from a quarter
    /// of the current segment on, or when the next block does not fit what is left of it. Says so again until
    /// [`Self::add_segment`], also while one is being created.
    pub fn needs_segment(&self) -> Option<u64> {
        let spare = self.segments.len() > self.current + 1;
        let begun = self.offset * 4 >= self.geometry.segment_bytes();
        let rest = self.geometry.segment_bytes() - self.offset;
        let full = self.blocks.front().is_some_and(|block| block.bytes() as u64 > rest);
        (self.segments.is_empty() || (!spare && (begun || full))).then_some(self.segment_next)
    }

    /// What [`super::segments::create`] writes into the first page of segment `id`.
    pub fn segment_header(&self, id: u64) -> SegmentHeader {
        SegmentHeader {
            owner: self.owner,
            segment: id,
            geometry: self.geometry,
        }
    }

    /// The segment that [`Self::needs_segment`] asked for is there, durably.
    ///
    /// # Panics
    /// When it is not the next number.
    pub fn add_segment(&mut self, id: u64) {
        assert_eq!(id, self.segment_next, "segments have consecutive numbers");
        self.segment_next += 1;
        self.segments.push_back(SegmentInfo {
            id,
            first_lsn: 0,
            last_lsn: 0,
        });
        if self.segments.len() == 1 {
            self.offset = PAGE_BYTES as u64;
        }
    }

    /// Bytes that the segments at hand still take after all that waits. Admission refuses new work when it gets small,
    /// so that what is under way can still be finished. What is taken beyond it waits for the next segment.
    pub fn room_bytes(&self) -> u64 {
        if self.segments.is_empty() {
            return 0;
        }
        let spare = (self.segments.len() - self.current - 1) as u64;
        let rest = self.geometry.segment_bytes() - self.offset;
        // The end of a segment stays empty when the next block is longer: count on the longest one.
        let gap = if spare > 0 {
            rest.min(self.geometry.commit_bytes_max() as u64)
        } else {
            0
        };
        (rest + spare * self.geometry.segment_room()).saturating_sub(gap + self.waiting_bytes())
    }

    /// The segments, oldest first, with the records in each.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = SegmentInfo> + '_ {
        self.segments.iter().copied()
    }

    /// Forgets the oldest segments whose records are all numbered `lsn` or less, and returns their numbers, oldest
    /// first, for deletion in that order. Never the current one.
    pub fn drop_through(&mut self, lsn: Lsn) -> Vec<u64> {
        let mut dropped = Vec::new();
        while self.current > 0 && self.segments[0].last_lsn <= lsn {
            debug_assert!(
                self.segments[0].last_lsn <= self.committed,
                "only the current segment is being written"
            );
            dropped.extend(self.segments.pop_front().map(|info| info.id));
            self.current -= 1;
        }
        dropped
    }

    /// The last durable record; 0 before the first.
    pub const fn committed(&self) -> Lsn {
        self.committed
    }

    /// The number that the next record will get.
    pub const fn next_lsn(&self) -> Lsn {
        self.lsn_next
    }

    /// Whose journal this is.
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// Longest record that [`Self::append`] takes, in bytes as encoded.
    pub const fn record_bytes_max(&self) -> usize {
        self.geometry.record_bytes_max()
    }

    /// Whether nothing waits and no write is under way.
    pub fn is_idle(&self) -> bool {
        self.blocks.is_empty() && self.in_flight.is_none()
    }

    fn waiting_bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.bytes() as u64).sum()
    }

    fn last_block(&mut self) -> &mut Block {
        self.blocks.back_mut().expect("append begins a block first")
    }

    fn begin_block(&mut self) {
        let mut buffer = self.pool.pop().unwrap_or_default();
        debug_assert!(buffer.is_empty());
        buffer.resize(BLOCK_HEADER_BYTES, 0);
        self.blocks.push_back(Block {
            buffer,
            first_lsn: self.lsn_next,
            records: 0,
        });
    }

    fn encode_in_last_block(&mut self, record: &Record) -> Result<(usize, usize), JournalError> {
        let block = self.last_block();
        let start = block.buffer.len();
        block.buffer.extend_from_slice(&encode_frame(0));
        match record::encode(record, &mut block.buffer) {
            Ok(len) => {
                let frame = encode_frame(u32::try_from(len).unwrap_or(u32::MAX));
                block.buffer.as_mut_slice()[start..start + FRAME_BYTES].copy_from_slice(&frame);
                block.buffer.pad_to(RECORD_ALIGN);
                Ok((start, len))
            }
            Err(error) => {
                block.buffer.truncate(start);
                self.drop_empty_block();
                Err(JournalError::Encode(error))
            }
        }
    }

    /// The record that begins at `start` made the last block too long: it begins the next one.
    fn move_to_new_block(&mut self, start: usize) {
        self.begin_block();
        let (last, full) = (self.blocks.len() - 1, self.blocks.len() - 2);
        let (head, tail) = self.blocks.make_contiguous().split_at_mut(last);
        tail[0].buffer.extend_from_slice(&head[full].buffer.as_slice()[start..]);
        head[full].buffer.truncate(start);
        debug_assert!(head[full].records > 0, "a single record always fits");
    }

    fn drop_empty_block(&mut self) {
        if self.blocks.back().is_some_and(|block| block.records == 0)
            && let Some(block) = self.blocks.pop_back()
        {
            self.recycle(block.buffer);
        }
    }

    fn recycle(&mut self, mut buffer: AlignedBuffer) {
        // Capacities are powers of two; one above this served a record that was refused, and is not worth keeping.
        let ordinary = buffer.capacity() <= 2 * self.geometry.commit_bytes_max();
        if ordinary && self.pool.len() < POOL_BUFFERS {
            buffer.clear();
            self.pool.push(buffer);
        }
    }

    /// Makes sure that the current segment has room for `bytes`; `None` when that takes a segment that is not there.
    fn advance_segment(&mut self, bytes: u64) -> Option<()> {
        assert!(bytes <= self.geometry.segment_room(), "a block fits an empty segment");
        if self.segments.is_empty() {
            return None;
        }
        if self.offset + bytes <= self.geometry.segment_bytes() {
            return Some(());
        }
        if self.current + 1 >= self.segments.len() {
            return None;
        }
        self.current += 1;
        self.offset = PAGE_BYTES as u64;
        Some(())
    }
}

/// Completes a block for its place: header and padding.
fn seal(block: &mut Block, owner: Owner, segment: u64, sequence: u64) {
    debug_assert!(block.records > 0);
    let mut header = BlockHeader {
        payload_crc: crc32c::crc32c(&block.buffer.as_slice()[BLOCK_HEADER_BYTES..]),
        payload_len: (block.buffer.len() - BLOCK_HEADER_BYTES) as u32,
        record_count: block.records,
        zero_sectors: 0,
        owner,
        segment,
        sequence,
        first_lsn: block.first_lsn,
    };
    let place = ..BLOCK_HEADER_BYTES;
    // The first sector holds the header, so it counts as written whatever the records in it are.
    block.buffer.as_mut_slice()[place].copy_from_slice(&header.encode());
    header.zero_sectors = zero_sectors(block.buffer.as_slice());
    block.buffer.as_mut_slice()[place].copy_from_slice(&header.encode());
    block.buffer.pad_to(PAGE_BYTES);
}
