//! The writer: group commit, bounds, segments, failures.

use super::support::{Journal, PAGE, every_record, owner, sized};
use dispatchd::aligned::AlignedBuffer;
use dispatchd::fsm::types::{LogEntry, Record, Step};
use dispatchd::journal::{
    BLOCK_HEADER_BYTES, Committed, FRAME_BYTES, Geometry, JournalError, SEGMENT_BYTES_MAX, SegmentHeader, Unreadable,
    Writer,
};
use dispatchd::wire::record;
use std::io;

fn encoded(record: &Record) -> usize {
    record::encode(record, &mut AlignedBuffer::new()).unwrap()
}

/// A record whose encoded length is exactly `bytes`, a multiple of 8.
fn exactly(tag: u64, bytes: usize) -> Record {
    let base = encoded(&sized(tag, 200));
    let record = sized(tag, 200 + bytes - base);
    let off = bytes as i64 - encoded(&record) as i64;
    let record = sized(tag, (200 + bytes as i64 - base as i64 + off) as usize);
    assert_eq!(encoded(&record), bytes);
    record
}

#[test]
fn a_commit_takes_all_that_waits() {
    let mut journal = Journal::new(owner(1, 0), 1 << 20, 64 << 10);
    journal.add_segment();
    journal.append(sized(0, 500));
    let op = journal.writer.next_write().unwrap();
    for tag in 1..50 {
        journal.append(sized(tag, 500));
    }
    assert!(journal.writer.next_write().is_none(), "one write at a time");
    assert!(journal.writer.backlog_bytes() > 49 * 500);
    let waiting = journal.writer.backlog_bytes() - PAGE;
    assert_eq!(journal.writer.bytes(), PAGE + waiting, "what is written and what waits");
    let len = op.len;
    let first = journal.writer.completed(op.buffer, Ok(len)).unwrap();
    assert_eq!(first, Committed { through: 1, records: 1 });
    let op = journal.writer.next_write().unwrap();
    let len = op.len;
    assert!(!journal.writer.is_idle(), "a write is under way, and nothing else");
    assert_eq!(journal.writer.backlog_bytes(), len as u64);
    assert_eq!(journal.writer.bytes(), PAGE + len as u64, "of both writes");
    assert_eq!((journal.writer.committed(), journal.writer.next_lsn()), (1, 51));
    assert_eq!(
        journal.writer.completed(op.buffer, Ok(len)).unwrap(),
        Committed {
            through: 50,
            records: 49
        }
    );
    assert_eq!((journal.writer.backlog_bytes(), journal.writer.is_idle()), (0, true));
}

#[test]
fn commits_are_bounded_and_ordered() {
    let mut journal = Journal::new(owner(1, 0), 1 << 20, 16 << 10);
    for tag in 0..200 {
        journal.append(sized(tag, 400 + (tag as usize * 37) % 1500));
    }
    journal.flush();
    assert!(journal.writes.len() > 10);
    assert!(journal.writes.iter().all(|write| write.bytes.len() <= 16 << 10));
    assert!(
        journal
            .writes
            .iter()
            .all(|write| write.bytes.len() >= 12 << 10 || write.through == 200),
        "well filled"
    );
    journal.expect(&journal.disk.scan(owner(1, 0)).unwrap(), 200);
}

/// The shortest segment that a geometry allows: a block that does not fit the rest of it asks for the next one, however
/// little of it is used.
#[test]
fn a_block_that_does_not_fit_asks_for_a_segment() {
    let mut journal = Journal::new(owner(1, 0), (64 << 10) + PAGE, 64 << 10);
    journal.add_segment();
    journal.append(sized(0, 500));
    let op = journal.writer.next_write().unwrap();
    let len = op.len;
    journal.writer.completed(op.buffer, Ok(len)).unwrap();
    assert_eq!(journal.writer.needs_segment(), None);
    journal.append(exactly(1, 62 << 10));
    assert!(journal.writer.next_write().is_none(), "no room");
    assert_eq!(journal.writer.needs_segment(), Some(2));
    journal.add_segment();
    assert!(journal.writer.next_write().is_some());
}

#[test]
fn a_block_that_just_fits_asks_for_none() {
    let mut journal = Journal::new(owner(1, 0), 9 * PAGE, 32 << 10);
    journal.add_segment();
    let max = journal.writer.record_bytes_max();
    journal.append(exactly(0, max));
    assert_eq!(journal.writer.needs_segment(), None);
    assert_eq!(journal.commit().unwrap().bytes.len(), 32 << 10);
    assert_eq!(journal.writer.needs_segment(), Some(2), "now the segment is full");
}

#[test]
fn buffers_are_recycled() {
    let mut journal = Journal::new(owner(1, 0), 1 << 20, 16 << 10);
    let mut addresses = std::collections::BTreeSet::new();
    for round in 0..40 {
        journal.add_segment();
        for tag in 0..10 {
            journal.append(sized(round * 10 + tag, 500));
        }
        let op = journal.writer.next_write().unwrap();
        journal.append(sized(round, 500));
        addresses.insert(op.buffer.as_slice().as_ptr().addr());
        let len = op.len;
        journal.writer.completed(op.buffer, Ok(len)).unwrap();
    }
    assert_eq!(addresses.len(), 2, "two buffers take turns");
}

/// A buffer that grew beyond the longest commit, for a record that did not fit and moved on, is kept: nothing is allocated
/// in steady state. One that a refused record made longer is not worth its memory.
#[test]
fn grown_buffers_are_recycled_unless_a_refused_record_made_them_grow() {
    const COMMIT: usize = 16 << 10;
    let mut journal = Journal::new(owner(1, 0), 1 << 20, COMMIT);
    journal.add_segment();
    for tag in [0, 2] {
        journal.append(sized(tag, COMMIT - 2000));
        journal.append(sized(tag + 1, COMMIT - 2000));
        journal.flush();
    }
    let capacity = |journal: &mut Journal| {
        journal.append(sized(9, 100));
        let op = journal.writer.next_write().unwrap();
        let (len, capacity) = (op.len, op.buffer.capacity());
        journal.writer.completed(op.buffer, Ok(len)).unwrap();
        capacity
    };
    assert_eq!(capacity(&mut journal), 2 * COMMIT);
    let too_long = journal.writer.append(&sized(10, 3 * COMMIT));
    assert!(matches!(too_long, Err(JournalError::RecordTooLarge { .. })));
    assert_eq!(capacity(&mut journal), 2 * COMMIT, "the other buffer");
}

#[test]
fn the_memory_of_a_burst_is_given_back() {
    const COMMIT: usize = 16 << 10;
    let mut journal = Journal::new(owner(1, 0), 1 << 20, COMMIT);
    journal.add_segment();
    let mut capacities = |burst: u64| {
        for tag in 0..burst {
            journal.append(sized(tag, COMMIT - 2000));
        }
        let mut capacities = Vec::new();
        while let Some(op) = journal.writer.next_write() {
            let len = op.len;
            capacities.push(op.buffer.capacity());
            journal.writer.completed(op.buffer, Ok(len)).unwrap();
        }
        capacities
    };
    // Each but the last held the next one's record for a moment.
    let (long, ordinary) = (2 * COMMIT, COMMIT);
    assert_eq!(capacities(5), [long, long, long, long, ordinary]);
    assert_eq!(capacities(3), [long, long, ordinary], "two are kept, the third is new");
}

#[test]
fn blocks_that_fill_a_segment_exactly() {
    // Room for four pages per segment; commits of exactly one page and of exactly two.
    let page = 4096 - BLOCK_HEADER_BYTES - FRAME_BYTES;
    let check = |sizes: &[usize], expect: &[(u64, u64)]| {
        let mut journal = Journal::new(owner(1, 0), 5 * PAGE, 8 << 10);
        for (tag, bytes) in sizes.iter().enumerate() {
            journal.append(exactly(tag as u64, *bytes));
            journal.flush();
        }
        let places: Vec<_> = journal
            .writes
            .iter()
            .map(|write| (write.segment, write.offset as u64 / PAGE))
            .collect();
        assert_eq!(places, expect);
        journal.expect(&journal.disk.scan(owner(1, 0)).unwrap(), sizes.len() as u64);
    };
    check(
        &[page; 9],
        &[(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2), (2, 3), (2, 4), (3, 1)],
    );
    check(&[page + 4096; 4], &[(1, 1), (1, 3), (2, 1), (2, 3)]);
    // Three pages used: a block of two leaves the last page empty.
    check(
        &[page, page, page, page + 4096, page],
        &[(1, 1), (1, 2), (1, 3), (2, 1), (2, 3)],
    );
    // Eight bytes more than a page are two pages.
    check(&[page + 8, page, page, page], &[(1, 1), (1, 3), (1, 4), (2, 1)]);
}

#[test]
fn records_larger_than_a_page_and_up_to_the_bound() {
    let mut journal = Journal::new(owner(1, 0), 1 << 20, 64 << 10);
    let max = journal.writer.record_bytes_max();
    journal.append(sized(0, 30_000));
    journal.append(exactly(1, max));
    journal.append(sized(2, 100));
    let refused = |writer: &mut Writer, record: &Record| match writer.append(record) {
        Err(JournalError::RecordTooLarge { len, max: bound }) => assert!(len > bound && bound == max),
        other => panic!("{other:?}"),
    };
    refused(&mut journal.writer, &exactly(3, max + 8));
    refused(&mut journal.writer, &sized(3, 1 << 20));
    journal.append(sized(4, 100));
    journal.flush();
    assert_eq!(
        journal.writes.iter().map(|write| write.through).collect::<Vec<_>>(),
        [1, 2, 4]
    );
    refused(&mut journal.writer, &exactly(3, max + 8));
    assert!(journal.writer.is_idle(), "what was refused left nothing behind");
    journal.append(sized(5, 100));
    journal.flush();
    journal.expect(&journal.disk.scan(owner(1, 0)).unwrap(), 5);
}

#[test]
fn the_largest_request_fits_a_commit() {
    let mut writer = Writer::new(owner(1, 0), Geometry::default());
    let candidates: Vec<String> = (0..64).map(|index| format!("{index:064}")).collect();
    let candidates: Vec<&str> = candidates.iter().map(String::as_str).collect();
    let trip = "x".repeat(64 << 10);
    let step = super::support::received(&candidates, &trip);
    let entries = vec![
        LogEntry { at_ms: 1, step },
        LogEntry {
            at_ms: 1,
            step: Step::Exhausted,
        },
    ];
    let request_id = super::support::request(&"r".repeat(64));
    assert_eq!(
        writer
            .append(&Record::Steps {
                request_id,
                first_seq: 1,
                entries
            })
            .unwrap(),
        1
    );
    assert!(writer.backlog_bytes() < writer.record_bytes_max() as u64 / 8);
}

#[test]
fn segments_are_asked_for_early() {
    let mut journal = Journal::new(owner(1, 0), 17 * PAGE, 8 << 10);
    assert_eq!(
        (journal.writer.needs_segment(), journal.writer.room_bytes()),
        (Some(1), 0)
    );
    journal.append(sized(0, 100));
    assert!(
        journal.writer.next_write().is_none(),
        "no segment, no write, and nothing is lost"
    );
    journal.add_segment();
    assert_eq!(
        journal.writer.room_bytes(),
        15 * PAGE,
        "one page of sixteen is spoken for"
    );
    journal.commit().unwrap();
    let mut pages = 1;
    while journal.writer.needs_segment().is_none() {
        journal.append(sized(pages, 100));
        journal.commit().unwrap();
        pages += 1;
        assert_eq!(journal.writer.room_bytes(), (16 - pages) * PAGE);
    }
    assert!(pages < 8, "before half of the segment is used: {pages}");
    assert_eq!(journal.writer.needs_segment(), Some(2));
    let room = journal.writer.room_bytes();
    journal.add_segment();
    assert_eq!(journal.writer.needs_segment(), None);
    assert_eq!(
        journal.writer.room_bytes(),
        room + 16 * PAGE - 2 * PAGE,
        "the gap at a segment's end is counted on"
    );
}

/// What was filled before has no room, whether it was dropped or not.
#[test]
fn room_is_what_is_left_from_the_current_segment_on() {
    let mut journal = Journal::new(owner(1, 0), 5 * PAGE, 4096);
    for tag in 0..5 {
        journal.append(sized(tag, 1000));
        journal.flush();
    }
    assert_eq!(journal.writes.last().map(|write| write.segment), Some(2));
    assert_eq!(journal.writer.segments().count(), 3, "one waits");
    let room = 3 * PAGE + 4 * PAGE - PAGE;
    assert_eq!(journal.writer.room_bytes(), room);
    assert_eq!(journal.writer.drop_through(4), [1]);
    assert_eq!(journal.writer.room_bytes(), room);
}

#[test]
fn a_full_disk_stops_writes_and_loses_nothing() {
    // A maker of segments without space: the first works, then it is full until somebody makes room.
    let mut made = 0;
    let mut make = |space: bool| -> io::Result<()> {
        if made > 0 && !space {
            return Err(io::ErrorKind::StorageFull.into());
        }
        made += 1;
        Ok(())
    };
    let mut journal = Journal::new(owner(1, 0), 5 * PAGE, 4096);
    make(false).unwrap();
    journal.add_segment();
    let mut admitted = 0;
    while journal.writer.room_bytes() > PAGE {
        journal.append(sized(admitted, 1000));
        journal.commit().unwrap();
        admitted += 1;
        if journal.writer.needs_segment().is_some() {
            assert_eq!(make(false).unwrap_err().kind(), io::ErrorKind::StorageFull);
        }
    }
    assert_eq!((admitted, journal.writer.room_bytes()), (3, PAGE));
    // New work is refused from here on; what is under way still gets its commit.
    journal.append(sized(90, 1000));
    assert_eq!(journal.writer.room_bytes(), 0);
    journal.commit().unwrap();
    // More than that waits, is not acknowledged, and is not lost.
    journal.append(sized(91, 1000));
    assert!(journal.commit().is_none());
    assert_eq!((journal.writer.committed(), journal.writer.backlog_bytes()), (4, PAGE));
    make(true).unwrap();
    journal.flush();
    journal.expect(&journal.disk.scan(owner(1, 0)).unwrap(), 5);
}

#[test]
fn segments_go_oldest_first_and_never_the_current() {
    let mut journal = Journal::new(owner(1, 0), 3 * PAGE, 4096);
    for tag in 0..7 {
        journal.append(sized(tag, 1000));
        journal.flush();
    }
    let infos: Vec<_> = journal
        .writer
        .segments()
        .map(|info| (info.id, info.first_lsn, info.last_lsn))
        .collect();
    assert_eq!(infos, [(1, 1, 2), (2, 3, 4), (3, 5, 6), (4, 7, 7), (5, 0, 0)]);
    let mut check = |lsn: u64, expect: &[u64]| assert_eq!(journal.writer.drop_through(lsn), expect, "{lsn}");
    check(1, &[]);
    check(2, &[1]);
    check(2, &[]);
    check(5, &[2]);
    check(u64::MAX, &[3]);
    journal.append(sized(8, 1000));
    journal.flush();
    let infos: Vec<_> = journal
        .writer
        .segments()
        .map(|info| (info.id, info.first_lsn, info.last_lsn))
        .collect();
    assert_eq!(infos[0], (4, 7, 8));
    journal.disk.0.retain(|id, _| *id >= 4);
    journal.expect(&journal.disk.scan(owner(1, 0)).unwrap(), 8);
}

#[test]
fn a_failed_write_is_the_end() {
    let check = |result: io::Result<usize>, expect: &str| {
        let mut journal = Journal::new(owner(1, 0), 1 << 20, 16 << 10);
        journal.add_segment();
        for record in every_record() {
            journal.append(record);
        }
        let op = journal.writer.next_write().unwrap();
        journal.append(sized(1, 100));
        let error = journal.writer.completed(op.buffer, result).unwrap_err();
        assert!(error.is_fatal());
        assert_eq!(error.to_string(), expect);
        assert!(journal.writer.next_write().is_none(), "never retried");
        assert!(matches!(
            journal.writer.append(&sized(2, 100)),
            Err(JournalError::Failed)
        ));
        assert_eq!(journal.writer.committed(), 0);
    };
    check(Ok(512), "write to segment 1 at 4096 stored 512 of 4096 bytes");
    check(Ok(0), "write to segment 1 at 4096 stored 0 of 4096 bytes");
    check(
        Err(io::Error::other("the disk is gone")),
        "write to segment 1 at 4096 failed: the disk is gone",
    );
}

#[test]
fn geometry_is_checked() {
    let check = |segment: u64, commit: usize, ok: bool| assert_eq!(Geometry::new(segment, commit).is_ok(), ok);
    check(2 * PAGE, 4096, true);
    check(PAGE, 4096, false);
    check(2 * PAGE, 8192, false);
    check(2 * PAGE + 1, 4096, false);
    check(1 << 20, 4097, false);
    check(1 << 20, 0, false);
    check(64 << 20, 2 << 20, false);
    check(SEGMENT_BYTES_MAX, 4096, true);
    check(SEGMENT_BYTES_MAX + PAGE, 4096, false);
}

/// What was not written ends the process; what cannot be written is the caller's fault, and ends nothing.
#[test]
fn errors_say_whether_the_journal_is_over() {
    use std::error::Error as _;
    let too_large = JournalError::RecordTooLarge { len: 2, max: 1 };
    assert!(!too_large.is_fatal() && too_large.source().is_none());
    let failed = JournalError::Write {
        segment: 1,
        offset: 4096,
        source: io::Error::other("no disk"),
    };
    assert!(failed.is_fatal() && JournalError::Failed.is_fatal());
    assert_eq!(failed.source().map(ToString::to_string), Some("no disk".to_owned()));
    assert_eq!(failed.to_string(), "write to segment 1 at 4096 failed: no disk");
}

/// Neither the magic, which the checksum leaves out, nor anything after it may be another.
#[test]
fn a_segment_header_is_whole_or_none() {
    let header = SegmentHeader {
        owner: owner(1, 3),
        segment: 7,
        geometry: Geometry::new(2 * PAGE, 4096).unwrap(),
    };
    let page = header.encode();
    assert_eq!(SegmentHeader::decode(&page), Ok(header));
    for at in [0, 7, 8, 14, 24, 40, 4095] {
        let mut harmed = page;
        harmed[at] ^= 1;
        assert_eq!(SegmentHeader::decode(&harmed), Err(Unreadable::NotWhole), "byte {at}");
    }
    assert_eq!(SegmentHeader::decode(&page[..4095]), Err(Unreadable::NotWhole));
}
