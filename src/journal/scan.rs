//! From the bytes of segments back to records: whole blocks are read, the torn end of the last write is cut, and
//! anything else is refused. Pure. The rules and why they are safe: [`super`], "Torn or damaged".

use super::Lsn;
use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, Geometry, Owner, PAGE_BYTES, SECTOR_BYTES, SegmentHeader, Unreadable,
    first_nonzero, is_zero, records, zero_sectors,
};
use crate::fsm::types::Record;
use crate::wire::record::decode;

/// A record and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which segment.
    pub segment: u64,
    /// Offset of the record's bytes in the segment's file.
    pub offset: u64,
    /// Its number.
    pub lsn: Lsn,
    /// The record.
    pub record: Record,
}

/// The end of a write that a crash cut short. Nothing in it was ever confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// In which segment.
    pub segment: u64,
    /// From where on the segment counts as empty.
    pub offset: u64,
}

/// What the segments of one shard's journal hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Records in order, without gaps.
    pub records: Vec<(Lsn, Record)>,
    /// The cut end, if the last write was torn.
    pub torn_tail: Option<TornTail>,
    /// Number of the first record still there; 0 when there is none. Above 1 when older segments were dropped.
    pub first_lsn: Lsn,
    /// One more than the last record's number; 1 when there is none.
    pub next_lsn: Lsn,
    /// Whole blocks read.
    pub blocks: u64,
    /// Bytes of those blocks on disk.
    pub bytes: u64,
    /// Segments looked at.
    pub segments: u64,
}

/// Why a journal is refused. Somebody has to look: going on could lose what was confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Whose journal.
    pub owner: Owner,
    /// In which segment.
    pub segment: u64,
    /// Where in its file.
    pub offset: u64,
    /// What is wrong there.
    pub kind: DamageKind,
}

/// What is wrong at a place, with what was expected there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The file of this segment is missing; later ones are there.
    SegmentMissing,
    /// The first page is no segment header, yet data follow.
    SegmentHeader,
    /// Another format version wrote it.
    Version(u16),
    /// It belongs to another journal or segment.
    Foreign {
        /// Whose it says it is.
        owner: Owner,
        /// Which segment it says it is.
        segment: u64,
    },
    /// Bytes are there, but no block begins with them.
    NotABlock,
    /// Every sector was written, but the checksum is wrong.
    Checksum,
    /// The block does not end inside the file or the longest commit.
    BlockLength(u64),
    /// Blocks are missing before this one.
    Sequence {
        /// Block number that should be here.
        expected: u64,
        /// Block number that is.
        found: u64,
    },
    /// The numbers of records do not follow each other.
    Lsn {
        /// Record number that should be here.
        expected: Lsn,
        /// Record number that is.
        found: Lsn,
    },
    /// The checksum is right, but a record cannot be read.
    Record(String),
    /// A write ends here unfinished, yet there are data after it.
    DataAfterEnd {
        /// In which segment.
        segment: u64,
        /// Where in its file.
        offset: u64,
        /// Whether a whole block of this journal begins there.
        block: bool,
    },
}

impl std::fmt::Display for DamageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SegmentMissing => write!(f, "the segment is missing, later ones are there"),
            Self::SegmentHeader => write!(f, "expected a segment header, found none, yet data follow"),
            Self::Version(version) => {
                let ours = super::FORMAT_VERSION;
                write!(f, "expected format version {ours}, found {version}")
            }
            Self::Foreign {
                owner: Owner { incarnation, shard },
                segment,
            } => {
                write!(
                    f,
                    "found a part of another journal: incarnation {incarnation}, shard {shard}, segment {segment}"
                )
            }
            Self::NotABlock => write!(f, "expected a commit block or zeros, found other bytes"),
            Self::Checksum => write!(f, "the block was written wholly, but its checksum is wrong"),
            Self::BlockLength(bytes) => write!(f, "the block of {bytes} bytes does not end inside its bounds"),
            Self::Sequence { expected, found } => write!(f, "expected block {expected}, found block {found}"),
            Self::Lsn { expected, found } => write!(f, "expected record {expected}, found record {found}"),
            Self::Record(cause) => write!(f, "{cause}"),
            Self::DataAfterEnd { segment, offset, block } => {
                let what = if *block {
                    "a whole later block is"
                } else {
                    "there are data"
                };
                write!(
                    f,
                    "a write was cut short here, yet {what} in segment {segment} at {offset}"
                )
            }
        }
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            owner: Owner { incarnation, shard },
            segment,
            offset,
            kind,
        } = self;
        write!(
            f,
            "damaged journal: {incarnation:08}/{shard:04}/{segment:08}.seg at byte {offset}: {kind}. "
        )?;
        write!(
            f,
            "Records from here on may have been confirmed to callers. Restore the journal from a copy; "
        )?;
        if matches!(kind, DamageKind::Version(_)) {
            return write!(f, "or start the program version that wrote it.");
        }
        write!(
            f,
            "or, to go on without them, keep a copy, cut this file with `truncate -s {offset}` "
        )?;
        write!(f, "and delete the later .seg files of its directory.")
    }
}

impl std::error::Error for Damage {}

/// Reads the segments of one shard's journal, one after the other.
#[derive(Debug)]
pub struct Scanner {
    owner: Owner,
    segment_last: Option<u64>,
    sequence_next: Option<u64>,
    scan: Scan,
    /// Where the journal ended unfinished; nothing may follow.
    end: Option<TornTail>,
}

/// What stands at a block's place.
enum Place {
    /// Zeros to the end of the file.
    Empty,
    /// A whole block.
    Block(BlockHeader),
    /// A write that was cut short; nothing after this many bytes can come from it.
    Torn(usize),
}

impl Scanner {
    /// For the journal of `owner`.
    pub fn new(owner: Owner) -> Self {
        let scan = Scan {
            next_lsn: 1,
            ..Scan::default()
        };
        Self {
            owner,
            segment_last: None,
            sequence_next: None,
            scan,
            end: None,
        }
    }

    /// Reads the next segment: all bytes of its file. Segments come in ascending order, and `sink` gets the records.
    ///
    /// # Errors
    /// [`Damage`]: the journal must not be used, nor what `sink` got.
    pub fn feed(&mut self, segment: u64, bytes: &[u8], sink: &mut dyn FnMut(Found)) -> Result<(), Damage> {
        let expected = self.segment_last.map_or(segment, |last| last + 1);
        if segment != expected {
            return Err(self.damage(expected, 0, DamageKind::SegmentMissing));
        }
        self.segment_last = Some(segment);
        self.scan.segments += 1;
        let Some(geometry) = self.header(segment, bytes)? else {
            return Ok(());
        };
        if self.end.is_some() {
            return self.nothing_follows(segment, PAGE_BYTES, bytes);
        }
        let mut at = PAGE_BYTES;
        while at < bytes.len() {
            match self.place(segment, &bytes[at..], at, geometry)? {
                Place::Empty => break,
                Place::Block(header) => {
                    self.block(&header, at, &bytes[at..], sink)?;
                    at += header.block_bytes();
                }
                Place::Torn(extent) => {
                    self.end = Some(TornTail {
                        segment,
                        offset: at as u64,
                    });
                    self.scan.torn_tail = self.end;
                    self.no_block_follows(segment, at + PAGE_BYTES, bytes)?;
                    return self.nothing_follows(segment, at + extent, bytes);
                }
            }
        }
        if at == PAGE_BYTES {
            self.end = Some(TornTail {
                segment,
                offset: at as u64,
            });
        }
        Ok(())
    }

    /// What all segments held, without the records, which went to the sink.
    pub fn finish(self) -> Scan {
        self.scan
    }

    /// Checks the first page. `None` when there is no header and nothing else: the segment was never used.
    fn header(&mut self, segment: u64, bytes: &[u8]) -> Result<Option<Geometry>, Damage> {
        match SegmentHeader::decode(bytes) {
            Ok(SegmentHeader {
                owner,
                segment: number,
                geometry,
            }) => {
                if owner != self.owner || number != segment {
                    return Err(self.damage(segment, 0, DamageKind::Foreign { owner, segment: number }));
                }
                if bytes.len() as u64 > geometry.segment_bytes() {
                    let kind = DamageKind::BlockLength(bytes.len() as u64);
                    return Err(self.damage(segment, geometry.segment_bytes(), kind));
                }
                Ok(Some(geometry))
            }
            Err(Unreadable::Version(version)) => Err(self.damage(segment, 0, DamageKind::Version(version))),
            Err(Unreadable::NotWhole) => {
                self.nothing_follows(segment, PAGE_BYTES, bytes)?;
                if !is_zero(&bytes[PAGE_BYTES.min(bytes.len())..]) {
                    return Err(self.damage(segment, 0, DamageKind::SegmentHeader));
                }
                self.end.get_or_insert(TornTail { segment, offset: 0 });
                Ok(None)
            }
        }
    }

    /// What stands at `at`; `rest` is the file from there on.
    fn place(&self, segment: u64, rest: &[u8], at: usize, geometry: Geometry) -> Result<Place, Damage> {
        let at = at as u64;
        let header = match BlockHeader::decode(rest) {
            Ok(header) => header,
            Err(Unreadable::Version(version)) => return Err(self.damage(segment, at, DamageKind::Version(version))),
            Err(Unreadable::NotWhole) if !is_zero(&rest[..SECTOR_BYTES.min(rest.len())]) => {
                return Err(self.damage(segment, at, DamageKind::NotABlock));
            }
            Err(Unreadable::NotWhole) if is_zero(rest) => return Ok(Place::Empty),
            Err(Unreadable::NotWhole) => return Ok(Place::Torn(geometry.commit_bytes_max())),
        };
        if header.owner != self.owner || header.segment != segment {
            let kind = DamageKind::Foreign {
                owner: header.owner,
                segment: header.segment,
            };
            return Err(self.damage(segment, at, kind));
        }
        let Some(content) = rest.get(..header.content_bytes()) else {
            return Err(self.damage(segment, at, DamageKind::BlockLength(header.block_bytes() as u64)));
        };
        if header.block_bytes() > geometry.commit_bytes_max() || header.block_bytes() > rest.len() {
            return Err(self.damage(segment, at, DamageKind::BlockLength(header.block_bytes() as u64)));
        }
        let expected = self
            .sequence_next
            .unwrap_or(if segment == 1 { 1 } else { header.sequence });
        if header.sequence != expected {
            let kind = DamageKind::Sequence {
                expected,
                found: header.sequence,
            };
            return Err(self.damage(segment, at, kind));
        }
        if crc32c::crc32c(&content[BLOCK_HEADER_BYTES..]) == header.payload_crc {
            return Ok(Place::Block(header));
        }
        if zero_sectors(content) > header.zero_sectors {
            return Ok(Place::Torn(header.block_bytes()));
        }
        Err(self.damage(segment, at, DamageKind::Checksum))
    }

    /// Hands on the records of a whole block at `at`; `rest` is the file from there on.
    fn block(
        &mut self,
        header: &BlockHeader,
        at: usize,
        rest: &[u8],
        sink: &mut dyn FnMut(Found),
    ) -> Result<(), Damage> {
        let segment = header.segment;
        let first = self.sequence_next.is_none() && segment != 1;
        let expected = if first { header.first_lsn } else { self.scan.next_lsn };
        if header.first_lsn != expected || expected == 0 {
            let kind = DamageKind::Lsn {
                expected,
                found: header.first_lsn,
            };
            return Err(self.damage(segment, at as u64, kind));
        }
        let mut lsn = header.first_lsn;
        for bytes in records(&rest[BLOCK_HEADER_BYTES..header.content_bytes()]) {
            let damage = |cause: String| self.damage(segment, at as u64, DamageKind::Record(cause));
            let (offset, bytes) = bytes.ok_or_else(|| damage(format!("record {lsn} has a wrong frame")))?;
            let record = decode(bytes).map_err(|error| damage(format!("record {lsn}: {error}")))?;
            sink(Found {
                segment,
                offset: (at + BLOCK_HEADER_BYTES + offset) as u64,
                lsn,
                record,
            });
            lsn += 1;
        }
        let count = lsn - header.first_lsn;
        if count != u64::from(header.record_count) {
            let cause = format!("expected {} records, found {count}", header.record_count);
            return Err(self.damage(segment, at as u64, DamageKind::Record(cause)));
        }
        if self.scan.first_lsn == 0 {
            self.scan.first_lsn = header.first_lsn;
        }
        self.scan.next_lsn = lsn;
        self.scan.blocks += 1;
        self.scan.bytes += header.block_bytes() as u64;
        self.sequence_next = Some(header.sequence + 1);
        Ok(())
    }

    /// After an unfinished end there is no whole block, at any page from `from` on.
    fn no_block_follows(&self, segment: u64, from: usize, bytes: &[u8]) -> Result<(), Damage> {
        let whole = |at: &usize| {
            let rest = &bytes[*at..];
            BlockHeader::decode(rest).is_ok_and(|header| {
                let payload = rest.get(BLOCK_HEADER_BYTES..header.content_bytes());
                header.owner == self.owner
                    && header.segment == segment
                    && payload.is_some_and(|payload| crc32c::crc32c(payload) == header.payload_crc)
            })
        };
        match (from..bytes.len()).step_by(PAGE_BYTES).find(whole) {
            Some(at) => Err(self.data_after_end(segment, at, true)),
            None => Ok(()),
        }
    }

    /// After an unfinished end there is nothing, from `from` on.
    fn nothing_follows(&self, segment: u64, from: usize, bytes: &[u8]) -> Result<(), Damage> {
        if self.end.is_none() {
            return Ok(());
        }
        match bytes.get(from..).and_then(first_nonzero) {
            Some(inside) => Err(self.data_after_end(segment, from + inside, false)),
            None => Ok(()),
        }
    }

    fn data_after_end(&self, segment: u64, offset: usize, block: bool) -> Damage {
        let end = self.end.expect("the caller checked");
        self.damage(
            end.segment,
            end.offset,
            DamageKind::DataAfterEnd {
                segment,
                offset: offset as u64,
                block,
            },
        )
    }

    fn damage(&self, segment: u64, offset: u64, kind: DamageKind) -> Damage {
        Damage {
            owner: self.owner,
            segment,
            offset,
            kind,
        }
    }
}

/// Reads all segments of the journal of `owner`, in ascending order, each with all bytes of its file.
///
/// # Errors
/// [`Damage`]: the journal must not be used.
pub fn scan<'a>(owner: Owner, segments: impl IntoIterator<Item = (u64, &'a [u8])>) -> Result<Scan, Damage> {
    let mut scanner = Scanner::new(owner);
    let mut records = Vec::new();
    for (segment, bytes) in segments {
        scanner.feed(segment, bytes, &mut |found| records.push((found.lsn, found.record)))?;
    }
    Ok(Scan {
        records,
        ..scanner.finish()
    })
}
