//! What the journal costs. Prints figures; run it on a release build:
//! `cargo test --release --test journal cost -- --ignored --nocapture`.

use super::support::{owner, sized};
use dispatchd::aligned::AlignedBuffer;
use dispatchd::journal::segments::{self, SegmentFiles};
use dispatchd::journal::{Geometry, Incarnation, Owner, Writer, create_shard_dir, recover_dir};
use dispatchd::wire::record::encode;
use glommio::{LocalExecutorBuilder, Placement};
use std::os::unix::fs::FileExt;
use std::time::Instant;

const RECORDS: u64 = 1_000_000;
const COMMIT: u64 = 64;

#[test]
#[ignore = "prints figures, checks nothing: ./test --long"]
fn cost_of_an_append() {
    let records: Vec<_> = (0..1000).map(|tag| sized(tag, 546)).collect();
    let bytes = encode(&records[0], &mut AlignedBuffer::new()).unwrap();
    for round in 0..3 {
        let mut writer = Writer::new(owner(1, 0), Geometry::default());
        let begin = Instant::now();
        for (index, record) in records.iter().cycle().take(RECORDS as usize).enumerate() {
            writer.append(record).unwrap();
            if index as u64 % COMMIT == COMMIT - 1 {
                if let Some(id) = writer.needs_segment() {
                    writer.add_segment(id);
                }
                let op = writer.next_write().unwrap();
                let len = op.len;
                writer.completed(op.buffer, Ok(len)).unwrap();
            }
        }
        let nanos = begin.elapsed().as_nanos() as u64 / RECORDS;
        println!(
            "round {round}: {nanos} ns per record of {bytes} bytes, encode, checksum and all, {COMMIT} per commit"
        );
    }
}

#[test]
#[ignore = "prints figures, checks nothing: ./test --long"]
fn cost_of_commits_and_of_recovery() {
    let root = tempfile::tempdir().unwrap();
    let owner = Owner {
        incarnation: Incarnation::next(root.path(), 0).unwrap(),
        shard: 0,
    };
    let dir = create_shard_dir(root.path(), owner).unwrap();
    let records: Vec<_> = (0..1000).map(|tag| sized(tag, 546)).collect();
    LocalExecutorBuilder::new(Placement::Unbound)
        .make()
        .unwrap()
        .run(async {
            let mut writer = Writer::new(owner, Geometry::default());
            let mut files = SegmentFiles::new();
            let mut busy = std::time::Duration::ZERO;
            let mut commits = 0;
            for batch in 0..3000 {
                if let Some(id) = writer.needs_segment() {
                    let begin = Instant::now();
                    files.insert(id, segments::create(&dir, &writer.segment_header(id)).await.unwrap());
                    let flags = rustix::fs::fcntl_getfl(files.get(id).unwrap()).unwrap();
                    println!("segment {id} made in {:?}, open with {flags:?}", begin.elapsed());
                    writer.add_segment(id);
                }
                for index in 0..200 {
                    writer.append(&records[(batch * 200 + index) % 1000]).unwrap();
                }
                let begin = Instant::now();
                while let Some(op) = writer.next_write() {
                    let written = files.get(op.segment).unwrap().write_at(op.buffer.as_slice(), op.offset);
                    writer.completed(op.buffer, written).unwrap();
                    commits += 1;
                }
                busy += begin.elapsed();
            }
            println!("{commits} commits of 200 records, {:?} each", busy / commits);
        });
    for round in 0..3 {
        let begin = Instant::now();
        let recovered = recover_dir(root.path()).unwrap();
        let seconds = begin.elapsed().as_secs_f64();
        let scan = &recovered[0].scan;
        let megabytes = scan.bytes as f64 / 1e6;
        println!(
            "round {round}: {} records, {megabytes:.0} MB in {} segments recovered in {seconds:.2} s: {:.0} MB/s",
            scan.records.len(),
            scan.segments,
            megabytes / seconds
        );
    }
}
