//! Blocks whose checksums are right and whose content is not: what a bug of ours or a forger could write, and no disk.
//! Each is refused, by name.

use super::support::{Disk, Journal, PAGE, owner, sized};
use dispatchd::journal::{BLOCK_HEADER_BYTES, Damage, DamageKind, FRAME_BYTES};

/// Three commits of two records and one page each, in the first of two segments.
fn journal() -> Journal {
    let mut journal = Journal::new(owner(3, 1), 8 * PAGE, 8 << 10);
    for tag in 0..3 {
        journal.append(sized(2 * tag, 500));
        journal.append(sized(2 * tag + 1, 500));
        journal.flush();
    }
    assert_eq!(
        journal.writes.iter().map(|write| write.segment).collect::<Vec<_>>(),
        [1; 3]
    );
    journal
}

fn put(block: &mut [u8], at: usize, value: u32) {
    block[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(block[at..at + 4].try_into().unwrap())
}

/// Makes the checksums of a block right.
fn seal(block: &mut [u8]) {
    let content = BLOCK_HEADER_BYTES + get(block, 16) as usize;
    if let Some(payload) = block.get(BLOCK_HEADER_BYTES..content) {
        let crc = crc32c::crc32c(payload);
        put(block, 12, crc);
    }
    let crc = crc32c::crc32c(&block[12..BLOCK_HEADER_BYTES]);
    put(block, 8, crc);
}

/// The journal's disk, where `change` forged the block of write `index`; it gets all bytes from there on.
fn forged(journal: &Journal, index: usize, change: impl Fn(&mut [u8])) -> Disk {
    let mut disk = journal.disk.clone();
    let write = &journal.writes[index];
    let block = &mut disk.0.get_mut(&write.segment).unwrap()[write.offset..];
    change(block);
    seal(block);
    disk
}

fn refused(disk: &Disk) -> Damage {
    disk.scan(owner(3, 1)).expect_err("damage is refused")
}

#[test]
fn a_block_that_contradicts_itself_is_refused() {
    let journal = journal();
    let check = |change: &dyn Fn(&mut [u8]), expect: DamageKind| {
        let damage = refused(&forged(&journal, 1, change));
        assert_eq!((damage.segment, damage.offset), (1, 2 * PAGE), "{damage}");
        assert_eq!(damage.kind, expect);
    };
    let frame = BLOCK_HEADER_BYTES;
    let wrong_frame = || DamageKind::Record("record 3 has a wrong frame".to_owned());
    check(&|block| put(block, frame, 0), wrong_frame());
    check(&|block| put(block, frame, 4000), wrong_frame());
    check(&|block| put(block, frame, u32::MAX), wrong_frame());
    check(&|block| put(block, frame + 4, 1), wrong_frame());
    // What is left after the last record is too short for a frame.
    check(
        &|block| put(block, 16, get(block, 16) + 4),
        DamageKind::Record("record 5 has a wrong frame".to_owned()),
    );
    let count = |found: u32| DamageKind::Record(format!("expected {found} records, found 2"));
    check(&|block| put(block, 20, 3), count(3));
    check(&|block| put(block, 20, 1), count(1));
    check(&|block| put(block, 24, 9 | 1 << 16), DamageKind::Version(9));
    check(
        &|block| put(block, 48, 3),
        DamageKind::Sequence { expected: 2, found: 3 },
    );
    check(&|block| put(block, 56, 4), DamageKind::Lsn { expected: 3, found: 4 });
    check(&|block| put(block, 56, 2), DamageKind::Lsn { expected: 3, found: 2 });
    // Longer than the longest commit, and longer than the file.
    check(&|block| put(block, 16, 9000), DamageKind::BlockLength(3 * PAGE));
    check(&|block| put(block, 16, 50_000), DamageKind::BlockLength(13 * PAGE));
    check(&|block| block[0] ^= 1, DamageKind::NotABlock);
}

#[test]
fn a_record_that_cannot_be_read_is_named() {
    let journal = journal();
    let second = |block: &[u8]| {
        let first = BLOCK_HEADER_BYTES + FRAME_BYTES + get(block, BLOCK_HEADER_BYTES) as usize;
        first.next_multiple_of(8) + FRAME_BYTES
    };
    let disk = forged(&journal, 1, |block| {
        let (start, len) = (second(block), get(block, second(block) - FRAME_BYTES) as usize);
        block[start..start + len].fill(0xff);
    });
    let DamageKind::Record(cause) = refused(&disk).kind else {
        panic!("a record's bytes are wrong")
    };
    assert!(cause.starts_with("record 4: not a record: "), "{cause}");
}

/// Where a journal begins late, its first block says what the numbers are, and the rest follows them.
#[test]
fn numbers_follow_each_other_also_behind_dropped_segments() {
    let mut journal = journal();
    for tag in 6..14 {
        journal.append(sized(tag, 5000));
        journal.flush();
    }
    let second: Vec<usize> = (0..journal.writes.len())
        .filter(|index| journal.writes[*index].segment == 2)
        .collect();
    assert!(second.len() > 2);
    let without_first = |index: usize, change: &dyn Fn(&mut [u8])| {
        let mut disk = forged(&journal, index, change);
        disk.0.remove(&1);
        disk
    };
    let lsn = journal.writes[second[0] - 1].through as u32 + 1;
    journal.expect(
        &without_first(second[0], &|_| ()).scan(owner(3, 1)).unwrap(),
        journal.records.len() as u64,
    );
    let none = refused(&without_first(second[0], &|block| put(block, 56, 0)));
    assert_eq!(none.kind, DamageKind::Lsn { expected: 0, found: 0 });
    let gap = refused(&without_first(second[1], &|block| put(block, 56, lsn + 2)));
    let (expected, found) = (u64::from(lsn) + 1, u64::from(lsn) + 2);
    assert_eq!(gap.kind, DamageKind::Lsn { expected, found });
    assert_eq!((gap.segment, gap.offset), (2, journal.writes[second[1]].offset as u64));
}

/// A file that ends in the padding of its last block was cut: not by a crash, which leaves a segment its length.
#[test]
fn a_file_that_ends_inside_a_blocks_padding_is_refused() {
    let journal = journal();
    let mut disk = journal.disk.clone();
    disk.0.get_mut(&1).unwrap().truncate(4 * PAGE as usize - 1);
    disk.0.remove(&2);
    let damage = refused(&disk);
    assert_eq!((damage.offset, damage.kind), (3 * PAGE, DamageKind::BlockLength(PAGE)));
}
