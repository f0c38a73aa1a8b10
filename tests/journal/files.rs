//! The journal on a real file system, through glommio.

use super::support::{driver, every_record, owner, sized};
use dispatchd::fsm::types::Record;
use dispatchd::journal::segments::{self, SegmentFiles};
use dispatchd::journal::{
    DamageKind, Geometry, Incarnation, JournalError, Owner, RecoverError, Writer, create_shard_dir, incarnation_dir,
    inspect, recover_dir, segment_path, shard_dir,
};
use glommio::{LocalExecutorBuilder, Placement};
use rustix::fs::SeekFrom;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// With as little memory as a shard's executor has.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let builder = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(64 << 10)
        .ring_depth(128);
    builder.make().unwrap().run(work)
}

/// A shard's journal as the shard drives it, with blocking writes in place of its ring.
pub async fn write(root: &Path, owner: Owner, geometry: Geometry, records: &[Record]) -> Writer {
    let dir = create_shard_dir(root, owner).unwrap();
    let mut writer = Writer::new(owner, geometry);
    let mut files = SegmentFiles::new();
    for batch in records.chunks(5) {
        for record in batch {
            writer.append(record).unwrap();
        }
        while !writer.is_idle() {
            if let Some(id) = writer.needs_segment() {
                files.insert(id, segments::create(&dir, &writer.segment_header(id)).await.unwrap());
                writer.add_segment(id);
            }
            if let Some(op) = writer.next_write() {
                let written = files.get(op.segment).unwrap().write_at(op.buffer.as_slice(), op.offset);
                writer.completed(op.buffer, written).unwrap();
            }
        }
    }
    assert_eq!(files.len(), writer.segments().len());
    writer
}

pub fn geometry() -> Geometry {
    Geometry::new(64 << 10, 16 << 10).unwrap()
}

pub fn records(seed: u64) -> Vec<Record> {
    let sized = (0..60).map(|tag| sized(seed * 1000 + tag, 300 + (tag as usize * 97) % 3000));
    every_record().into_iter().chain(sized).collect()
}

#[test]
fn what_several_boots_wrote_is_read_back_in_order() {
    let root = tempfile::tempdir().unwrap();
    assert!(recover_dir(root.path()).unwrap().is_empty(), "no journal yet");
    let mut written = Vec::new();
    for boot in 1..=2 {
        let incarnation = Incarnation::next(root.path(), 0).unwrap();
        assert_eq!(incarnation.get(), boot);
        for shard in [0, 1] {
            let records = records(boot * 2 + u64::from(shard));
            run(write(root.path(), Owner { incarnation, shard }, geometry(), &records));
            written.push(((incarnation, shard), records));
        }
    }
    std::fs::write(root.path().join("journal/notes.txt"), "an operator's").unwrap();
    let recovered = recover_dir(root.path()).unwrap();
    assert_eq!(recovered.len(), 4);
    for (shard, (place, records)) in recovered.iter().zip(&written) {
        assert_eq!((shard.incarnation, shard.shard), *place);
        assert!(shard.scan.records.iter().map(|(_, record)| record).eq(records));
        assert!(shard.scan.segments >= 2 && shard.scan.torn_tail.is_none());
    }
    assert!(dispatchd::journal::Replay::merge(recovered).is_ok());
    Incarnation::new(1).unwrap().remove(root.path()).unwrap();
    assert_eq!(recover_dir(root.path()).unwrap().len(), 2);
}

/// Makes segments of several lengths in `dir`, checks what is in them, and returns their paths.
pub fn whole_segments(dir: &Path, owner: Owner) -> Vec<PathBuf> {
    let make = |(id, bytes): (u64, u64)| {
        let header = Writer::new(owner, Geometry::new(bytes, 4096).unwrap()).segment_header(id);
        let path = segment_path(dir, id);
        // Left over from a creation that was cut short.
        std::fs::write(&path, vec![0xff; 10_000]).unwrap();
        let file = run(segments::create(dir, &header)).unwrap();
        let flags = rustix::fs::fcntl_getfl(&file).unwrap().bits();
        assert_ne!(flags & libc::O_DSYNC as u32, 0, "a completed write is a durable one");
        assert_eq!(file.metadata().unwrap().len(), bytes);
        // Zeros that were written, not blocks that only count as zeros: a commit into those would change metadata. What
        // has been read into memory does not tell them apart, so this comes first.
        let hole = rustix::fs::seek(&file, SeekFrom::Hole(0)).unwrap();
        assert_eq!(hole, bytes, "no hole before the end");
        let content = std::fs::read(&path).unwrap();
        assert_eq!(content[..4096], header.encode());
        assert!(content[4096..].iter().all(|byte| *byte == 0));
        path
    };
    // Zeros are written in pieces of 256 KiB: less than one, whole ones alone, and some with a rest.
    let sizes = [8 << 10, 260 << 10, 300 << 10, 4 << 20];
    (1..).zip(sizes).map(make).collect()
}

#[test]
fn segments_are_whole_before_they_are_used() {
    let root = tempfile::tempdir().unwrap();
    let incarnation = Incarnation::next(root.path(), 0).unwrap();
    let owner = Owner { incarnation, shard: 0 };
    let dir = create_shard_dir(root.path(), owner).unwrap();
    for path in whole_segments(&dir, owner) {
        let meta = path.metadata().unwrap();
        assert!(meta.blocks() * 512 >= meta.len(), "allocated, not sparse");
    }
    run(segments::remove(&dir, &[1, 2, 3, 9])).unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    let missing = run(segments::create(
        &dir.join("none"),
        &Writer::new(owner, geometry()).segment_header(1),
    ));
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// Recovery reads a file in pieces of 1 MiB.
#[test]
fn a_long_segment_is_read_to_its_end() {
    let root = tempfile::tempdir().unwrap();
    let incarnation = Incarnation::next(root.path(), 0).unwrap();
    let owner = Owner { incarnation, shard: 0 };
    let geometry = Geometry::new((3 << 20) + 4096, 256 << 10).unwrap();
    let records: Vec<Record> = (0..25).map(|tag| sized(tag, 100_000)).collect();
    run(write(root.path(), owner, geometry, &records));
    let recovered = recover_dir(root.path()).unwrap();
    assert!(recovered[0].scan.records.iter().map(|(_, record)| record).eq(&records));
    assert!(recovered[0].scan.bytes > 2 << 20);
}

/// Numbers begin at 1. Other names are left alone, and the operator is told; but for what is on its way out.
#[test]
fn what_is_not_named_like_a_part_of_the_journal_is_none() {
    let root = tempfile::tempdir().unwrap();
    let incarnation = Incarnation::next(root.path(), 0).unwrap();
    let owner = Owner { incarnation, shard: 0 };
    run(write(root.path(), owner, geometry(), &records(0)));
    let dir = shard_dir(root.path(), owner);
    let names = ["00000000.seg", "2.seg", "00000001.seg.copy", "notes.txt"];
    for name in names {
        std::fs::write(dir.join(name), "an operator's").unwrap();
    }
    std::fs::create_dir(root.path().join("journal/00000007.deleted")).unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let lines = tracing_subscriber::fmt().with_writer(Mutex::new(log.reopen().unwrap()));
    let recovered = tracing::subscriber::with_default(lines.finish(), || recover_dir(root.path()).unwrap());
    assert_eq!((recovered[0].scan.first_lsn, recovered[0].scan.next_lsn), (1, 65));
    let log = std::fs::read_to_string(log.path()).unwrap();
    assert_eq!(log.lines().count(), names.len(), "{log}");
    assert!(names.iter().all(|name| log.contains(name)), "{log}");
}

#[test]
fn open_segments_are_known_by_number() {
    let mut files = SegmentFiles::new();
    assert!(files.is_empty() && files.get(1).is_none());
    let path = tempfile::NamedTempFile::new().unwrap();
    for id in 1..=3 {
        files.insert(id, std::fs::File::open(path.path()).unwrap());
    }
    assert!(files.remove(2).is_some() && files.remove(2).is_none());
    assert!(files.get(1).is_some() && files.get(2).is_none());
    assert_eq!((files.len(), files.is_empty()), (2, false));
}

#[test]
fn dropped_segments_stay_gone() {
    let root = tempfile::tempdir().unwrap();
    let incarnation = Incarnation::next(root.path(), 0).unwrap();
    let owner = Owner { incarnation, shard: 7 };
    let records = records(0);
    run(async {
        let mut writer = write(root.path(), owner, geometry(), &records).await;
        let oldest = writer.segments().next().unwrap();
        let ids = writer.drop_through(oldest.last_lsn);
        assert_eq!(ids, [1]);
        segments::remove(&shard_dir(root.path(), owner), &ids).await.unwrap();
        assert!(matches!(writer.append(&records[0]), Ok(65)));
    });
    let recovered = recover_dir(root.path()).unwrap();
    let scan = &recovered[0].scan;
    assert!(scan.first_lsn > 1 && scan.next_lsn == 65);
    assert_eq!(scan.records[0].1, records[scan.first_lsn as usize - 1]);
}

#[test]
fn damage_is_refused_by_name_and_reported_by_check() {
    let root = tempfile::tempdir().unwrap();
    let incarnation = Incarnation::next(root.path(), 0).unwrap();
    for shard in [0, 1] {
        run(write(
            root.path(),
            Owner { incarnation, shard },
            geometry(),
            &records(0),
        ));
    }
    let path = segment_path(&shard_dir(root.path(), owner(1, 1)), 1);
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4096 + 200).unwrap();
    file.write_all_at(&[!byte[0]], 4096 + 200).unwrap();

    let error = recover_dir(root.path()).unwrap_err();
    assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    let RecoverError::Damage { damage, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(
        (damage.segment, damage.offset, damage.kind),
        (1, 4096, DamageKind::Checksum)
    );

    let mut out = Vec::new();
    assert_eq!(inspect::check_command(root.path(), &mut out).unwrap(), 1);
    let out = String::from_utf8(out).unwrap();
    let scan = &inspect::check(root.path()).unwrap().journals[0].result;
    let scan = scan.as_ref().unwrap();
    let whole = format!(
        "in {} blocks, {} bytes, {} segments\n",
        scan.blocks, scan.bytes, scan.segments
    );
    assert!(scan.blocks >= 13 && scan.bytes >= 64 * 300 && scan.segments >= 2);
    assert!(out.contains(&format!("00000001/0000: 64 records {whole}")), "{out}");
    assert!(out.contains("00000001/0001: 0 records before: "), "{out}");
    assert!(out.ends_with("2 journals, 64 records, 1 damaged\n"), "{out}");

    // What the message advises, done with the tool it names.
    let size = damage.offset;
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(size)
        .unwrap();
    for id in 2..9 {
        let _ = std::fs::remove_file(segment_path(&shard_dir(root.path(), owner(1, 1)), id));
    }
    assert_eq!(inspect::check(root.path()).unwrap().exit_status(), 0);
}

#[test]
fn dump_prints_a_line_per_record_and_the_tear() {
    let root = tempfile::tempdir().unwrap();
    let incarnation = Incarnation::next(root.path(), 0).unwrap();
    let owner = Owner { incarnation, shard: 3 };
    let records = every_record();
    run(write(root.path(), owner, geometry(), &records));
    let path = segment_path(&shard_dir(root.path(), owner), 1);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"the middle of a block", 4 * 4096 + 512).unwrap();
    let mut out = Vec::new();
    inspect::dump(root.path(), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), records.len() + 1, "{out}");
    assert!(
        lines[0].starts_with("00000001/0003/00000001 @4168 1 Steps { request_id: "),
        "{out}"
    );
    assert!(
        lines[3].contains(" 4 OffShift { driver_id: d-3, at_ms: 1700000000001, off: true }"),
        "{out}"
    );
    assert_eq!(lines[4], "# 00000001/0003/00000001 @8192 torn write, cut");
    let report = inspect::check(root.path()).unwrap();
    assert_eq!(report.exit_status(), 0);
    assert!(
        report.to_string().contains("torn write in segment 1 at 8192, cut"),
        "{report}"
    );
    assert!(inspect::check(&root.path().join("nowhere")).is_err());
    let empty = tempfile::tempdir().unwrap();
    std::fs::create_dir(empty.path().join("journal")).unwrap();
    let error = inspect::check(empty.path()).unwrap_err().to_string();
    assert!(error.contains("there is no journal in it"), "{error}");
}

#[test]
fn a_write_that_fails_for_real_is_fatal() {
    let root = tempfile::tempdir().unwrap();
    let incarnation = Incarnation::next(root.path(), 0).unwrap();
    let owner = Owner { incarnation, shard: 0 };
    let dir = create_shard_dir(root.path(), owner).unwrap();
    let mut writer = Writer::new(owner, geometry());
    drop(run(segments::create(&dir, &writer.segment_header(1))).unwrap());
    writer.add_segment(1);
    writer
        .append(&Record::DriverSeen {
            driver_id: driver("d"),
            at_ms: 1,
        })
        .unwrap();
    let op = writer.next_write().unwrap();
    let read_only = std::fs::File::open(segment_path(&dir, 1)).unwrap();
    let failed = read_only.write_at(op.buffer.as_slice(), op.offset);
    let error = writer.completed(op.buffer, failed).unwrap_err();
    assert!(
        matches!(
            error,
            JournalError::Write {
                segment: 1,
                offset: 4096,
                ..
            }
        ),
        "{error}"
    );
    assert!(incarnation_dir(root.path(), incarnation).exists());
}
