//! A journal that was written, torn by a crash and then harmed: what is read is exactly what was written, cut at the torn
//! end and nowhere else, or the journal is refused, and the advice in the refusal works. And blocks with right checksums
//! and any content: an error or records.
#![no_main]

#[path = "../../tests/journal/support.rs"]
#[allow(dead_code, reason = "the journal's tests use the rest")]
mod support;

use arbitrary::Arbitrary;
use dispatchd::fsm::types::Record;
use dispatchd::journal::{
    BLOCK_HEADER_BYTES, BlockHeader, DamageKind, Geometry, PAGE_BYTES, SECTOR_BYTES, SegmentHeader, scan,
};
use libfuzzer_sys::fuzz_target;
use support::{Disk, Journal, Write, driver, every_step, owner, sized};

/// Longest commit of these journals, in bytes.
const COMMIT_BYTES: usize = 2 * PAGE_BYTES;

#[derive(Arbitrary, Debug)]
enum Act {
    Append { kind: u8, bytes: u16 },
    Commit,
    AddSegment,
    Drop(u8),
}

#[derive(Arbitrary, Debug)]
enum Harm {
    Flip { segment: u8, at: u32, mask: u8 },
    Zero { segment: u8, sector: u16 },
    Copy { from: (u8, u8), to: (u8, u8) },
    Truncate { segment: u8, at: u32 },
    Remove { segment: u8 },
}

#[derive(Arbitrary, Debug)]
struct Block<'a> {
    sequence: u8,
    first_lsn: u8,
    record_count: u8,
    zero_sectors: u8,
    payload: &'a [u8],
}

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Journal {
        pages: u8,
        acts: Vec<Act>,
        /// Which sectors of the write under way reached the disk.
        torn: Option<u64>,
        harm: Vec<Harm>,
    },
    Block(Block<'a>),
}

fn record(kind: u8, bytes: u16, tag: u64) -> Record {
    match kind % 3 {
        0 => Record::DriverSeen {
            driver_id: driver("d-1"),
            at_ms: tag,
        },
        1 => Record::Image(every_step()),
        _ => sized(tag, usize::from(bytes) % (COMMIT_BYTES - 1000)),
    }
}

fn played(acts: &[Act], pages: u8) -> Journal {
    let segment_bytes = (u64::from(pages % 8) + 3) * PAGE_BYTES as u64;
    let mut journal = Journal::new(owner(5, 2), segment_bytes, COMMIT_BYTES);
    for act in acts {
        match act {
            Act::Append { kind, bytes } => {
                let tag = journal.records.len() as u64;
                journal.append(record(*kind, *bytes, tag));
            }
            Act::Commit => drop(journal.commit().map(|write| write.through)),
            Act::AddSegment => journal.add_segment(),
            Act::Drop(share) => {
                let lsn = journal.writer.committed() * u64::from(*share) / 255;
                for id in journal.writer.drop_through(lsn) {
                    let oldest = journal.disk.0.pop_first().map(|(first, _)| first);
                    assert_eq!(oldest, Some(id), "oldest first");
                }
            }
        }
    }
    journal
}

/// The last write reached the disk in part; returns the last record in it.
fn tear(journal: &mut Journal, stored: u64) -> Option<u64> {
    let acknowledged = journal.writer.committed();
    let op = journal.writer.next_write()?;
    let bytes = op.buffer.as_slice().to_vec();
    let through = acknowledged + u64::from(BlockHeader::decode(&bytes).expect("a block").record_count);
    let write = Write {
        segment: op.segment,
        offset: op.offset as usize,
        bytes,
        through,
    };
    journal.disk.store(&write, |sector| stored & (1 << (sector % 64)) != 0);
    Some(through)
}

fn harm(disk: &mut Disk, harm: &Harm) {
    let ids: Vec<u64> = disk.0.keys().copied().collect();
    if ids.is_empty() {
        return;
    }
    let id = |index: u8| ids[usize::from(index) % ids.len()];
    let page = |page: u8, len: usize| (usize::from(page) % (len / PAGE_BYTES).max(1)) * PAGE_BYTES;
    match harm {
        Harm::Flip { segment, at, mask } => {
            let file = disk.0.get_mut(&id(*segment)).expect("it is there");
            let len = file.len().max(1);
            if let Some(byte) = file.get_mut(*at as usize % len) {
                *byte ^= mask;
            }
        }
        Harm::Zero { segment, sector } => {
            let file = disk.0.get_mut(&id(*segment)).expect("it is there");
            let sectors = file.len() / SECTOR_BYTES;
            if let Some(sector) = file
                .chunks_exact_mut(SECTOR_BYTES)
                .nth(usize::from(*sector) % sectors.max(1))
            {
                sector.fill(0);
            }
        }
        Harm::Copy { from, to } => {
            let source = &disk.0[&id(from.0)];
            let at = page(from.1, source.len());
            let Some(bytes) = source.get(at..at + PAGE_BYTES).map(<[u8]>::to_vec) else {
                return;
            };
            let file = disk.0.get_mut(&id(to.0)).expect("it is there");
            let at = page(to.1, file.len());
            if let Some(place) = file.get_mut(at..at + PAGE_BYTES) {
                place.copy_from_slice(&bytes);
            }
        }
        Harm::Truncate { segment, at } => {
            let file = disk.0.get_mut(&id(*segment)).expect("it is there");
            file.truncate(*at as usize % (file.len() + 1));
        }
        Harm::Remove { segment } => drop(disk.0.remove(&id(*segment))),
    }
}

/// Whether `after` has zeros, or nothing, where `before` has not: it may look like a write that was cut short.
fn looks_torn(before: &Disk, after: &Disk) -> bool {
    before.0.iter().any(|(id, old)| {
        let new = after.0.get(id).map_or(&[][..], Vec::as_slice);
        let is_zero = |sector: Option<&[u8]>| sector.is_none_or(|sector| sector.iter().all(|byte| *byte == 0));
        let mut sectors = old.chunks(SECTOR_BYTES).enumerate();
        sectors.any(|(index, sector)| {
            let at = index * SECTOR_BYTES;
            !is_zero(Some(sector)) && is_zero(new.get(at..(at + SECTOR_BYTES).min(new.len())))
        })
    })
}

fn check_journal(pages: u8, acts: &[Act], torn: Option<u64>, harms: &[Harm]) {
    let mut journal = played(acts, pages);
    let acknowledged = journal.writer.committed();
    let through = torn
        .and_then(|stored| tear(&mut journal, stored))
        .unwrap_or(acknowledged);
    let before = journal.disk.clone();
    let scanned = before.scan(owner(5, 2)).expect("a crash is no damage");
    if scanned.first_lsn > 0 {
        assert!(
            [acknowledged, through].contains(&(scanned.next_lsn - 1)),
            "not what was acknowledged"
        );
        journal.expect(&scanned, scanned.next_lsn - 1);
    }
    let mut disk = before.clone();
    harms.iter().for_each(|one| harm(&mut disk, one));
    match disk.scan(owner(5, 2)) {
        Ok(found) => {
            if found.first_lsn > 0 {
                journal.expect(&found, found.next_lsn - 1);
            }
            if !looks_torn(&before, &disk) && disk.0.len() == before.0.len() {
                assert_eq!(
                    found.next_lsn, scanned.next_lsn,
                    "what was confirmed is lost in silence"
                );
            }
        }
        Err(damage) => {
            assert_ne!(disk, before, "refused without harm: {damage}");
            assert!(!matches!(damage.kind, DamageKind::Version(_)), "{damage}");
            disk.remedy(&damage);
            let found = disk
                .scan(owner(5, 2))
                .unwrap_or_else(|again| panic!("{damage} -- then: {again}"));
            if found.first_lsn > 0 {
                journal.expect(&found, found.next_lsn - 1);
            }
        }
    }
}

fn check_block(block: &Block<'_>) {
    let geometry = Geometry::new(16 * PAGE_BYTES as u64, COMMIT_BYTES).expect("good lengths");
    let header = SegmentHeader {
        owner: owner(5, 2),
        segment: 1,
        geometry,
    };
    let block_header = BlockHeader {
        payload_crc: crc32c::crc32c(block.payload),
        payload_len: block.payload.len() as u32,
        record_count: block.record_count.into(),
        zero_sectors: block.zero_sectors.into(),
        owner: owner(5, 2),
        segment: 1,
        sequence: block.sequence.into(),
        first_lsn: block.first_lsn.into(),
    };
    let mut file = header.encode().to_vec();
    file.extend_from_slice(&block_header.encode());
    file.extend_from_slice(block.payload);
    file.resize(file.len().next_multiple_of(PAGE_BYTES), 0);
    if let Ok(found) = scan(owner(5, 2), [(1, &file[..])]) {
        let (count, next) = (found.records.len() as u64, found.next_lsn);
        assert_eq!((count, next), (u64::from(block.record_count), count + 1));
        assert!(BLOCK_HEADER_BYTES + block.payload.len() <= COMMIT_BYTES);
    }
}

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Journal {
            pages,
            acts,
            torn,
            harm,
        } => check_journal(pages, &acts, torn, &harm),
        Input::Block(block) => check_block(&block),
    }
});
