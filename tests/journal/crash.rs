//! Power loss during a write: what was acknowledged is all there, the torn write is cut or whole.

use super::support::{Disk, Journal, every_record, owner, sized};
use dispatchd::journal::SECTOR_BYTES;

/// Commits of 1, 2 and 4 pages over two segments, the last one at the end of its segment.
fn journal() -> Journal {
    let mut journal = Journal::new(owner(3, 1), 9 * 4096, 16 << 10);
    for round in 0..5 {
        for record in every_record() {
            journal.append(record);
        }
        journal.flush();
        journal.append(sized(round, 6000));
        journal.append(sized(round + 100, 300));
        journal.flush();
        journal.append(sized(round + 200, 15_000));
        journal.flush();
    }
    assert!(journal.disk.0.len() > 3, "several segments");
    journal
}

/// After a crash during write `index` of which only some sectors were stored, exactly what was acknowledged is there,
/// with or without the write.
fn check(journal: &Journal, before: &Disk, index: usize, stored: impl Fn(usize) -> bool) -> bool {
    let write = &journal.writes[index];
    let acknowledged = index.checked_sub(1).map_or(0, |last| journal.writes[last].through);
    let mut disk = before.clone();
    disk.store(write, stored);
    let scan = disk
        .scan(owner(3, 1))
        .unwrap_or_else(|damage| panic!("write {index}: {damage}"));
    let whole = scan.next_lsn > acknowledged + 1;
    journal.expect(&scan, if whole { write.through } else { acknowledged });
    if !whole {
        let empty = disk == *before;
        assert_eq!(
            scan.torn_tail.is_none(),
            empty,
            "a tear is reported, and nothing else is"
        );
    }
    whole
}

#[test]
fn cut_at_every_sector_of_every_write() {
    let journal = journal();
    for index in 0..journal.writes.len() {
        let before = journal.disk_before(index);
        let sectors = journal.writes[index].bytes.len() / SECTOR_BYTES;
        for cut in 0..=sectors {
            let whole = check(&journal, &before, index, |sector| sector < cut);
            assert!(whole || cut < sectors, "a write that was stored wholly is there");
            assert!(!whole || cut > 0);
        }
    }
}

#[test]
fn every_subset_of_the_sectors_of_a_page() {
    let journal = journal();
    let single: Vec<usize> = (0..journal.writes.len())
        .filter(|index| journal.writes[*index].bytes.len() == 4096)
        .collect();
    assert!(single.len() >= 5);
    for index in single {
        let before = journal.disk_before(index);
        for stored in 0..256_u32 {
            check(&journal, &before, index, |sector| stored & (1 << sector) != 0);
        }
    }
}

#[test]
fn sectors_stored_in_any_order() {
    use proptest::prelude::*;
    let journal = journal();
    let befores: Vec<Disk> = (0..journal.writes.len())
        .map(|index| journal.disk_before(index))
        .collect();
    proptest!(ProptestConfig::with_cases(2000), |(index in 0..befores.len(), stored in any::<u64>())| {
        check(&journal, &befores[index], index, |sector| stored & (1 << sector) != 0);
    });
}

#[test]
fn a_crash_while_a_segment_is_made_loses_nothing() {
    let journal = journal();
    let through = journal.writes.last().unwrap().through;
    let last = *journal.disk.0.keys().last().unwrap();
    let whole = journal.disk.0[&last].clone();
    let unused = whole[4096..].iter().all(|byte| *byte == 0);
    let (id, made) = if unused {
        (last, whole)
    } else {
        let header = journal.writer.segment_header(last + 1);
        (last + 1, [header.encode().as_slice(), &vec![0; 8 * 4096]].concat())
    };
    let check = |bytes: Vec<u8>| {
        let mut disk = journal.disk.clone();
        disk.0.insert(id, bytes);
        let scan = disk.scan(owner(3, 1)).unwrap();
        journal.expect(&scan, through);
        assert_eq!(scan.torn_tail, None);
    };
    for len in [0, 1, 511, 512, 4095, 4096, 4097, 8192, made.len()] {
        check(made[..len].to_vec());
        check(vec![0; len]);
        let mut torn = made[..len].to_vec();
        let cut = torn.len().min(512);
        torn[..cut].fill(0);
        check(torn);
    }
}

#[test]
fn an_empty_journal_is_empty() {
    let scan = Disk::default().scan(owner(3, 1)).unwrap();
    assert_eq!((scan.first_lsn, scan.next_lsn, scan.records.len()), (0, 1, 0));
    let mut journal = Journal::new(owner(3, 1), 9 * 4096, 16 << 10);
    journal.add_segment();
    let scan = journal.disk.scan(owner(3, 1)).unwrap();
    assert_eq!((scan.next_lsn, scan.torn_tail, scan.segments), (1, None, 1));
}
