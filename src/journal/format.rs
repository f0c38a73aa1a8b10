//! The bytes of a segment: its header, the header of a commit block, the frame of a record. See [`super`] for the
//! whole format. Pure: bytes in, values out.

use super::{Incarnation, Lsn};
use crc32c::crc32c;

/// Version of everything below and of the archived layout of `Record`. Another number is refused.
pub const FORMAT_VERSION: u16 = 1;
/// Unit of every write, in bytes; also the length of a segment's header.
pub const PAGE_BYTES: usize = 4096;
/// What a disk writes wholly or not at all, in bytes. The rule that tells a torn write from damage rests on it.
pub const SECTOR_BYTES: usize = 512;
/// Length of a block's header, in bytes.
pub const BLOCK_HEADER_BYTES: usize = 64;
/// Length of the frame before each record, in bytes.
pub const FRAME_BYTES: usize = 8;
/// Longest commit, in bytes: how much one write may take, and about what a crash may tear.
pub const COMMIT_BYTES_MAX: usize = 1 << 20;
/// Length of a segment when nothing else is asked for, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Longest segment, in bytes: recovery holds one in memory.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Longest body of a request of the HTTP API, in bytes (contract, section 2).
const BODY_BYTES_MAX: usize = 64 << 10;

// A record made from one body fits a commit many times over, whatever its archived form adds.
const _: () = assert!(COMMIT_BYTES_MAX >= 8 * BODY_BYTES_MAX);
const _: () = assert!(COMMIT_BYTES_MAX.is_multiple_of(PAGE_BYTES) && PAGE_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(SEGMENT_BYTES_DEFAULT >= 8 * COMMIT_BYTES_MAX as u64);
const _: () = assert!(BLOCK_HEADER_BYTES.is_multiple_of(crate::wire::record::RECORD_ALIGN));
const _: () = assert!(FRAME_BYTES.is_multiple_of(crate::wire::record::RECORD_ALIGN));
const _: () = assert!(crate::aligned::ALIGNMENT.is_multiple_of(PAGE_BYTES));

// Both hold bytes that no UTF-8 text contains: nothing that a caller sends can pass for a block.
const SEGMENT_MAGIC: [u8; 8] = *b"\xF7DDseg\xFE\n";
const BLOCK_MAGIC: [u8; 8] = *b"\xF7DDblk\xFE\n";
const CRC_START: usize = 12;

/// Lengths of segments and commits, checked against each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    segment_bytes: u64,
    commit_bytes_max: u32,
}

impl Geometry {
    /// `segment_bytes`: length of a segment file, up to [`SEGMENT_BYTES_MAX`]. `commit_bytes_max`: longest write, up
    /// to [`COMMIT_BYTES_MAX`]. Both multiples of 4096; a segment holds its header and at least one longest commit.
    ///
    /// # Errors
    /// Says which bound is broken.
    pub fn new(segment_bytes: u64, commit_bytes_max: usize) -> Result<Self, String> {
        let page = PAGE_BYTES as u64;
        if !segment_bytes.is_multiple_of(page) || segment_bytes > SEGMENT_BYTES_MAX {
            return Err(format!(
                "a segment has a multiple of {page} bytes, at most {SEGMENT_BYTES_MAX}, not {segment_bytes}"
            ));
        }
        if !commit_bytes_max.is_multiple_of(PAGE_BYTES) || !(PAGE_BYTES..=COMMIT_BYTES_MAX).contains(&commit_bytes_max)
        {
            return Err(format!(
                "a commit has a multiple of {page} bytes, {page} to {COMMIT_BYTES_MAX}, not {commit_bytes_max}"
            ));
        }
        if segment_bytes < page + commit_bytes_max as u64 {
            return Err(format!(
                "a segment of {segment_bytes} bytes has no room for a header and a commit of {commit_bytes_max}"
            ));
        }
        Ok(Self {
            segment_bytes,
            commit_bytes_max: commit_bytes_max as u32,
        })
    }

    /// Length of a segment file, in bytes.
    pub const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Longest commit block, header and padding included, in bytes.
    pub const fn commit_bytes_max(&self) -> usize {
        self.commit_bytes_max as usize
    }

    /// Bytes of a segment that hold commit blocks.
    pub const fn segment_room(&self) -> u64 {
        self.segment_bytes - PAGE_BYTES as u64
    }

    /// Longest record, in bytes as encoded.
    pub const fn record_bytes_max(&self) -> usize {
        self.commit_bytes_max as usize - BLOCK_HEADER_BYTES - FRAME_BYTES
    }
}

impl Default for Geometry {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            commit_bytes_max: COMMIT_BYTES_MAX as u32,
        }
    }
}

/// Whose journal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    /// Boot of the node.
    pub incarnation: Incarnation,
    /// Shard within that boot.
    pub shard: u16,
}

/// The first page of a segment, durable before the segment is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose segment.
    pub owner: Owner,
    /// Number of the segment, from 1 without gaps.
    pub segment: u64,
    /// Lengths that hold in this segment.
    pub geometry: Geometry,
}

impl SegmentHeader {
    /// The page as it is on disk.
    pub fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut page = [0; PAGE_BYTES];
        page[0..8].copy_from_slice(&SEGMENT_MAGIC);
        page[12..14].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        page[14..16].copy_from_slice(&self.owner.shard.to_le_bytes());
        page[16..24].copy_from_slice(&self.owner.incarnation.get().to_le_bytes());
        page[24..32].copy_from_slice(&self.segment.to_le_bytes());
        page[32..40].copy_from_slice(&self.geometry.segment_bytes.to_le_bytes());
        page[40..44].copy_from_slice(&self.geometry.commit_bytes_max.to_le_bytes());
        let crc = crc32c(&page[CRC_START..]);
        page[8..12].copy_from_slice(&crc.to_le_bytes());
        page
    }

    /// What the page at the start of `bytes` says.
    ///
    /// # Errors
    /// [`Unreadable`] when it is no whole header of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let page = bytes.get(..PAGE_BYTES).ok_or(Unreadable::NotWhole)?;
        if page[0..8] != SEGMENT_MAGIC || u32_at(page, 8) != crc32c(&page[CRC_START..]) {
            return Err(Unreadable::NotWhole);
        }
        check_version(u16_at(page, 12))?;
        let geometry = Geometry::new(u64_at(page, 32), u32_at(page, 40) as usize).map_err(|_| Unreadable::NotWhole)?;
        let incarnation = Incarnation::new(u64_at(page, 16)).ok_or(Unreadable::NotWhole)?;
        let owner = Owner {
            incarnation,
            shard: u16_at(page, 14),
        };
        Ok(Self {
            owner,
            segment: u64_at(page, 24),
            geometry,
        })
    }
}

/// The first bytes of a commit block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHeader {
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// Bytes of frames and records after this header, padding of the block excluded.
    pub payload_len: u32,
    /// Records in the payload, at least 1.
    pub record_count: u32,
    /// How many of the block's sectors are zero because their content is: a torn write leaves more.
    pub zero_sectors: u32,
    /// Whose block.
    pub owner: Owner,
    /// The segment it was written to.
    pub segment: u64,
    /// Number of the block in this journal, from 1 without gaps, across segments.
    pub sequence: u64,
    /// Number of its first record.
    pub first_lsn: Lsn,
}

impl BlockHeader {
    /// The bytes as they are on disk.
    pub fn encode(&self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&BLOCK_MAGIC);
        bytes[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.record_count.to_le_bytes());
        bytes[24..26].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[26..28].copy_from_slice(&self.owner.shard.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.zero_sectors.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.owner.incarnation.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.segment.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.first_lsn.to_le_bytes());
        let crc = crc32c(&bytes[CRC_START..]);
        bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What the bytes at the start of `bytes` say. The payload is not looked at.
    ///
    /// # Errors
    /// [`Unreadable`] when they are no whole header of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes = bytes.get(..BLOCK_HEADER_BYTES).ok_or(Unreadable::NotWhole)?;
        if bytes[0..8] != BLOCK_MAGIC || u32_at(bytes, 8) != crc32c(&bytes[CRC_START..]) {
            return Err(Unreadable::NotWhole);
        }
        check_version(u16_at(bytes, 24))?;
        let incarnation = Incarnation::new(u64_at(bytes, 32)).ok_or(Unreadable::NotWhole)?;
        Ok(Self {
            payload_crc: u32_at(bytes, 12),
            payload_len: u32_at(bytes, 16),
            record_count: u32_at(bytes, 20),
            zero_sectors: u32_at(bytes, 28),
            owner: Owner {
                incarnation,
                shard: u16_at(bytes, 26),
            },
            segment: u64_at(bytes, 40),
            sequence: u64_at(bytes, 48),
            first_lsn: u64_at(bytes, 56),
        })
    }

    /// Bytes from the header's first to the payload's last.
    pub const fn content_bytes(&self) -> usize {
        BLOCK_HEADER_BYTES + self.payload_len as usize
    }

    /// Bytes that the block takes in its segment.
    pub const fn block_bytes(&self) -> usize {
        self.content_bytes().next_multiple_of(PAGE_BYTES)
    }
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Too short, no magic, a wrong checksum or an impossible value.
    NotWhole,
    /// Written by a program of another format version.
    Version(u16),
}

fn check_version(version: u16) -> Result<(), Unreadable> {
    if version == FORMAT_VERSION {
        Ok(())
    } else {
        Err(Unreadable::Version(version))
    }
}

/// The frame of a record: its length as encoded, and zeros.
pub fn encode_frame(record_len: u32) -> [u8; FRAME_BYTES] {
    let mut frame = [0; FRAME_BYTES];
    frame[0..4].copy_from_slice(&record_len.to_le_bytes());
    frame
}

/// The records of a payload, one slice each. Ends with `None` in place of a slice when a frame is wrong.
pub fn records(payload: &[u8]) -> impl Iterator<Item = Option<(usize, &[u8])>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if at >= payload.len() {
            return None;
        }
        let start = at + FRAME_BYTES;
        let record = payload.get(at..start).and_then(|frame| {
            let len = u32_at(frame, 0) as usize;
            (u32_at(frame, 4) == 0 && len > 0).then_some(())?;
            payload.get(start..start.checked_add(len)?)
        });
        at = record.map_or(payload.len(), |record| {
            (start + record.len()).next_multiple_of(FRAME_BYTES)
        });
        Some(record.map(|record| (start, record)))
    })
}

/// How many of the sectors that `content` begins hold nothing but zeros.
pub fn zero_sectors(content: &[u8]) -> u32 {
    content.chunks(SECTOR_BYTES).filter(|sector| is_zero(sector)).count() as u32
}

/// Whether there is nothing but zeros.
pub fn is_zero(bytes: &[u8]) -> bool {
    first_nonzero(bytes).is_none()
}

/// Where the first byte that is not zero is.
pub fn first_nonzero(bytes: &[u8]) -> Option<usize> {
    const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    let mut at = 0;
    for chunk in bytes.chunks(PAGE_BYTES) {
        // The first bytes of written data are seldom zero: this answers most questions at once.
        if chunk[0] != 0 || chunk != &ZEROS[..chunk.len()] {
            return chunk.iter().position(|byte| *byte != 0).map(|inside| at + inside);
        }
        at += chunk.len();
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
