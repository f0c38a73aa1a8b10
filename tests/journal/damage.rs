//! Damage is refused, never taken for a torn write; the message names the place, and its advice works.

use super::support::{Disk, Journal, PAGE, every_record, owner, sized};
use dispatchd::journal::{Damage, DamageKind, Geometry, SECTOR_BYTES, SegmentHeader};

/// Four commits in two segments, and an unused third one.
fn small() -> Journal {
    let mut journal = Journal::new(owner(3, 1), 4 * 4096, 8 << 10);
    for tag in 0..4 {
        journal.append(every_record().swap_remove(tag as usize));
        journal.append(sized(tag, if tag == 1 { 5000 } else { 700 }));
        journal.flush();
    }
    assert_eq!(journal.disk.0.len(), 3);
    assert_eq!(
        journal.writes.iter().map(|write| write.segment).collect::<Vec<_>>(),
        [1, 1, 2, 2]
    );
    journal
}

fn refused(disk: &Disk) -> Damage {
    disk.scan(owner(3, 1)).expect_err("damage is refused")
}

/// Following the advice leads to a journal that reads, with what was before the damage.
fn advice_works(journal: &Journal, disk: &Disk, damage: &Damage) {
    let mut disk = disk.clone();
    disk.remedy(damage);
    let scan = disk
        .scan(owner(3, 1))
        .unwrap_or_else(|again| panic!("{damage} -- then: {again}"));
    journal.expect(&scan, scan.next_lsn - 1);
    let place = (damage.segment, damage.offset as usize);
    let before = journal
        .writes
        .iter()
        .filter(|write| (write.segment, write.offset) < place)
        .count();
    assert_eq!(
        scan.blocks, before as u64,
        "nothing before the damage is lost: {damage}"
    );
}

#[test]
fn a_flipped_bit_anywhere_loses_nothing_silently() {
    let journal = small();
    let through = journal.writes.last().unwrap().through;
    let mut refusals = 0;
    for (id, bytes) in &journal.disk.0 {
        let mut disk = journal.disk.clone();
        for at in 0..bytes.len() {
            // One bit, another bit, all bits: by turns, so that every byte gets each kind of harm in some test run.
            for mask in [1 << (at % 8), 0xff] {
                disk.0.get_mut(id).unwrap()[at] ^= mask;
                match disk.scan(owner(3, 1)) {
                    Ok(scan) => journal.expect(&scan, through),
                    Err(damage) => {
                        refusals += 1;
                        if at % 37 == 0 {
                            advice_works(&journal, &disk, &damage);
                        }
                    }
                }
                disk.0.get_mut(id).unwrap()[at] ^= mask;
            }
        }
    }
    assert!(
        refusals > 10_000,
        "only headers' spare bytes and padding are harmless: {refusals}"
    );
}

#[test]
fn a_flipped_bit_beside_a_torn_write_loses_nothing_silently() {
    let journal = small();
    let acknowledged = journal.writes[2].through;
    let before = journal.disk_before(3);
    let acknowledged_end = journal.writes[2].offset + journal.writes[2].bytes.len();
    for at in 4096..acknowledged_end {
        let mut disk = before.clone();
        disk.store(&journal.writes[3], |sector| sector == 1);
        disk.0.get_mut(&2).unwrap()[at] ^= 4;
        if let Ok(scan) = disk.scan(owner(3, 1)) {
            journal.expect(&scan, acknowledged);
        }
    }
}

#[test]
fn a_lost_sector_before_later_commits_is_refused() {
    let journal = small();
    for write in &journal.writes[..3] {
        for sector in 0..write.bytes.len() / SECTOR_BYTES {
            let place = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
            if write.bytes[place.clone()].iter().all(|byte| *byte == 0) {
                continue;
            }
            let mut disk = journal.disk.clone();
            disk.0.get_mut(&write.segment).unwrap()[write.offset..][place].fill(0);
            let damage = refused(&disk);
            assert_eq!((damage.segment, damage.offset), (write.segment, write.offset as u64));
            assert!(matches!(damage.kind, DamageKind::DataAfterEnd { .. }), "{damage}");
            advice_works(&journal, &disk, &damage);
        }
    }
}

#[test]
fn a_lost_commit_is_refused() {
    let journal = small();
    for write in &journal.writes[..3] {
        let mut disk = journal.disk.clone();
        disk.0.get_mut(&write.segment).unwrap()[write.offset..][..write.bytes.len()].fill(0);
        let damage = refused(&disk);
        let later = matches!(
            damage.kind,
            DamageKind::DataAfterEnd { .. } | DamageKind::Sequence { .. }
        );
        assert!(later, "{damage}");
    }
}

#[test]
fn stale_and_foreign_blocks_never_pass() {
    let journal = small();
    let check = |disk: &Disk, segment: u64, offset: u64, expect: &dyn Fn(&DamageKind) -> bool| {
        let damage = refused(disk);
        assert_eq!((damage.segment, damage.offset), (segment, offset), "{damage}");
        assert!(expect(&damage.kind), "{damage}");
        advice_works(&journal, disk, &damage);
    };
    let copy = |from: &Journal, write: usize, segment: u64, offset: u64| {
        let mut disk = journal.disk.clone();
        let bytes = &from.writes[write].bytes;
        disk.0.get_mut(&segment).unwrap()[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        disk
    };
    let foreign = |kind: &DamageKind| matches!(kind, DamageKind::Foreign { .. });
    let sequence = |kind: &DamageKind| matches!(kind, DamageKind::Sequence { .. });
    // An earlier block of the same segment, behind the last one.
    check(&copy(&journal, 2, 2, 3 * PAGE), 2, 3 * PAGE, &sequence);
    // A block of another segment of the same journal.
    check(&copy(&journal, 0, 2, 3 * PAGE), 2, 3 * PAGE, &foreign);
    // The block that would be next, were it not another boot's or another shard's.
    for (incarnation, shard) in [(2, 1), (4, 1), (3, 0)] {
        let mut other = Journal::new(owner(incarnation, shard), 4 * 4096, 8 << 10);
        for tag in 0..5 {
            other.append(sized(tag, if tag == 1 { 5000 } else { 700 }));
            other.flush();
        }
        assert_eq!((other.writes[4].segment, other.writes[4].offset as u64), (2, 3 * PAGE));
        check(&copy(&other, 4, 2, 3 * PAGE), 2, 3 * PAGE, &foreign);
        // Its segment of the same number, and of another one.
        for number in [3, 1] {
            let mut disk = journal.disk.clone();
            disk.0.insert(3, other.disk.0[&number].clone());
            check(&disk, 3, 0, &foreign);
        }
    }
    // An unused segment of this journal under another number.
    let mut disk = journal.disk.clone();
    disk.0.insert(4, journal.disk.0[&3].clone());
    check(&disk, 4, 0, &foreign);
}

#[test]
fn missing_segments_are_refused_unless_they_are_the_oldest() {
    let journal = small();
    let mut disk = journal.disk.clone();
    disk.0.remove(&2);
    let damage = refused(&disk);
    assert_eq!((damage.segment, damage.kind.clone()), (2, DamageKind::SegmentMissing));
    advice_works(&journal, &disk, &damage);

    let mut disk = journal.disk.clone();
    disk.0.remove(&1);
    let scan = disk.scan(owner(3, 1)).unwrap();
    assert_eq!(scan.first_lsn, journal.writes[1].through + 1);
    journal.expect(&scan, journal.writes[3].through);

    let mut disk = journal.disk.clone();
    *disk.0.get_mut(&1).unwrap() = vec![0; 4 * 4096];
    assert!(matches!(
        refused(&disk).kind,
        DamageKind::DataAfterEnd {
            segment: 2,
            offset: 4096,
            ..
        }
    ));

    let mut disk = journal.disk;
    disk.0.get_mut(&2).unwrap()[..4096].fill(0);
    assert_eq!(refused(&disk).kind, DamageKind::SegmentHeader);
}

#[test]
fn an_emptied_oldest_segment_is_refused() {
    let mut journal = small();
    for tag in 4..6 {
        journal.append(sized(tag, 5000));
        journal.flush();
    }
    assert!(journal.writes.last().unwrap().segment > 2);
    // Segment 1 was dropped, so nothing but segment 2 itself tells that its blocks should be there.
    journal.disk.0.remove(&1);
    for from in [0, 4096] {
        let mut disk = journal.disk.clone();
        disk.0.get_mut(&2).unwrap()[from..].fill(0);
        let damage = refused(&disk);
        assert!(
            matches!(damage.kind, DamageKind::DataAfterEnd { segment: 3, .. }),
            "{damage}"
        );
        assert_eq!((damage.segment, damage.offset), (2, from as u64));
    }
}

#[test]
fn a_shortened_or_lengthened_file_is_refused() {
    let journal = small();
    let mut disk = journal.disk.clone();
    let inside = journal.writes[3].offset + 512;
    disk.0.get_mut(&2).unwrap().truncate(inside);
    assert!(matches!(refused(&disk).kind, DamageKind::BlockLength(_)));
    let mut disk = journal.disk.clone();
    disk.0.get_mut(&2).unwrap().push(0);
    assert!(matches!(refused(&disk).kind, DamageKind::BlockLength(_)));
    // Cut between blocks, as an operator does it.
    let mut disk = journal.disk.clone();
    disk.0.get_mut(&2).unwrap().truncate(journal.writes[3].offset);
    disk.0.remove(&3);
    journal.expect(&disk.scan(owner(3, 1)).unwrap(), journal.writes[2].through);
}

#[test]
fn another_format_version_is_named() {
    let journal = small();
    let geometry = Geometry::new(4 * 4096, 8 << 10).unwrap();
    let mut page = SegmentHeader {
        owner: owner(3, 1),
        segment: 1,
        geometry,
    }
    .encode();
    page[12] = 9;
    let crc = crc32c::crc32c(&page[12..]).to_le_bytes();
    page[8..12].copy_from_slice(&crc);
    let mut disk = journal.disk;
    disk.0.get_mut(&1).unwrap()[..4096].copy_from_slice(&page);
    let damage = refused(&disk);
    assert_eq!(damage.kind, DamageKind::Version(9));
    assert!(
        damage.to_string().contains("expected format version 1, found 9"),
        "{damage}"
    );
}

#[test]
fn the_message_says_where_what_and_what_to_do() {
    let journal = small();
    let mut disk = journal.disk;
    disk.0.get_mut(&1).unwrap()[4096 + 100] ^= 1;
    let message = refused(&disk).to_string();
    for part in [
        "00000003/0001/00000001.seg at byte 4096",
        "checksum is wrong",
        "`truncate -s 4096`",
        "copy",
    ] {
        assert!(message.contains(part), "{part:?} in {message:?}");
    }
}
