//! How far a torn write may reach: what lies in its extent is cut with it, and one byte more is refused.

use super::support::{Disk, Journal, PAGE, owner, sized};
use dispatchd::journal::{DamageKind, SECTOR_BYTES, TornTail};

/// The longest commit, in bytes: how far a write reaches whose header was not stored.
const COMMIT: usize = 8 << 10;
/// Where the torn write begins: behind one whole block.
const AT: usize = 2 * PAGE as usize;

/// A whole block of one page, then one whose records fill several sectors.
fn journal() -> Journal {
    let mut journal = Journal::new(owner(3, 1), 8 * PAGE, COMMIT);
    journal.append(sized(0, 500));
    journal.flush();
    journal.append(sized(1, 2000));
    journal.flush();
    assert_eq!(
        (journal.writes[1].offset, journal.writes[1].bytes.len()),
        (AT, PAGE as usize)
    );
    journal
}

/// The disk after only these sectors of the second write were stored.
fn torn(journal: &Journal, stored: impl Fn(usize) -> bool) -> Disk {
    let mut disk = journal.disk_before(1);
    disk.store(&journal.writes[1], stored);
    disk
}

fn cut(journal: &Journal, disk: &Disk) {
    let scan = disk.scan(owner(3, 1)).unwrap_or_else(|damage| panic!("{damage}"));
    journal.expect(&scan, 1);
    let (segment, offset) = (1, AT as u64);
    assert_eq!(scan.torn_tail, Some(TornTail { segment, offset }));
    assert_eq!((scan.blocks, scan.bytes), (1, PAGE), "what was read is counted");
}

fn refused(disk: &Disk, offset: usize, block: bool) {
    let damage = disk.scan(owner(3, 1)).expect_err("damage is refused");
    assert_eq!((damage.segment, damage.offset), (1, AT as u64), "where the writes end");
    let (segment, offset) = (1, offset as u64);
    assert_eq!(damage.kind, DamageKind::DataAfterEnd { segment, offset, block });
}

#[test]
fn a_byte_behind_the_extent_is_refused() {
    let journal = journal();
    let without_header = torn(&journal, |sector| sector != 0);
    let with_header = torn(&journal, |sector| sector != 1);
    cut(&journal, &without_header);
    cut(&journal, &with_header);
    for (disk, extent) in [(without_header, COMMIT), (with_header, PAGE as usize)] {
        let with_byte = |at: usize| {
            let mut disk = disk.clone();
            disk.0.get_mut(&1).unwrap()[at] = 1;
            disk
        };
        cut(&journal, &with_byte(AT + extent - 1));
        // The message names the very byte, be it the first one of a page or not.
        for behind in [0, 1, SECTOR_BYTES, PAGE as usize, PAGE as usize + 77] {
            refused(&with_byte(AT + extent + behind), AT + extent + behind, false);
        }
    }
}

#[test]
fn a_whole_block_inside_the_extent_is_refused_if_it_is_this_journals() {
    let journal = journal();
    let disk = torn(&journal, |sector| sector != 0);
    let with_block = |bytes: &[u8]| {
        let mut disk = disk.clone();
        disk.0.get_mut(&1).unwrap()[AT + PAGE as usize..][..bytes.len()].copy_from_slice(bytes);
        disk
    };
    let later = &journal.writes[1].bytes;
    refused(&with_block(later), AT + PAGE as usize, true);
    // What only looks like one is a part of the torn write: a block that is not whole, or of another time or place.
    let mut harmed = later.clone();
    harmed[100] ^= 1;
    cut(&journal, &with_block(&harmed));
    let mut other = Journal::new(owner(2, 1), 8 * PAGE, COMMIT);
    other.append(sized(0, 500));
    other.flush();
    cut(&journal, &with_block(&other.writes[0].bytes));
    let mut elsewhere = self::journal();
    for tag in 2..9 {
        elsewhere.append(sized(tag, 2000));
        elsewhere.flush();
    }
    let of_second_segment = elsewhere.writes.iter().find(|write| write.segment == 2).unwrap();
    cut(&journal, &with_block(&of_second_segment.bytes));
}
