//! File systems without direct I/O, in a mount namespace of the test's own: the journal works there too, and a commit
//! is still durable when it is done. Where no namespace is to be had these tests say so and check nothing.

use super::files::{geometry, records, run, whole_segments, write};
use super::support::owner;
use dispatchd::journal::segments;
use dispatchd::journal::{Geometry, Incarnation, Writer, create_shard_dir, recover_dir, segment_path, shard_dir};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the file system is mounted, for the test that runs inside the namespace.
const MOUNTED: &str = "JOURNAL_TEST_MOUNTED";
/// ramfs knows neither direct I/O nor preallocation, and needs no device.
const MOUNT: &str = "mount -t ramfs ramfs \"$1\"";

/// In the namespace: the directory where ramfs is mounted. Else runs this test there, by its `name`, after `limit` (shell),
/// and returns nothing once it has passed.
fn inside(name: &str, limit: &str) -> Option<PathBuf> {
    if let Some(mounted) = std::env::var_os(MOUNTED) {
        return Some(mounted.into());
    }
    let root = tempfile::tempdir().unwrap();
    let namespace = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]);
        command.arg(root.path()).arg(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--nocapture"]).env(MOUNTED, root.path());
        command.output()
    };
    if !namespace(MOUNT).is_ok_and(|output| output.status.success()) {
        // Past the harness, which keeps what a passed test prints to itself.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: ramfs cannot be mounted in a namespace of one's own here"
        );
        return None;
    }
    let output = namespace(&format!("{MOUNT} && {limit} && shift && exec \"$@\"")).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    assert!(said.contains("1 passed"), "{said}");
    None
}

fn flags(path: &Path, header_of: &Writer) -> u32 {
    let id = 9;
    let file = run(segments::create(path, &header_of.segment_header(id))).unwrap();
    run(segments::remove(path, &[id])).unwrap();
    rustix::fs::fcntl_getfl(&file).unwrap().bits()
}

#[test]
fn without_direct_io_the_journal_works_and_commits_are_durable() {
    let Some(root) = inside(
        "undirect::without_direct_io_the_journal_works_and_commits_are_durable",
        "true",
    ) else {
        return;
    };
    let incarnation = Incarnation::next(&root, 0).unwrap();
    let dir = create_shard_dir(&root, owner(1, 0)).unwrap();
    let flags = flags(&dir, &Writer::new(owner(1, 0), geometry()));
    assert_eq!(flags & libc::O_DIRECT as u32, 0, "a file system without direct I/O");
    assert_eq!(flags & libc::O_DSYNC as u32, libc::O_DSYNC as u32);
    whole_segments(&dir, owner(1, 0));
    run(segments::remove(&dir, &[1, 2, 3, 4])).unwrap();
    let records = records(1);
    run(write(&root, owner(1, 0), geometry(), &records));
    let recovered = recover_dir(&root).unwrap();
    assert_eq!((recovered.len(), recovered[0].incarnation), (1, incarnation));
    assert!(recovered[0].scan.records.iter().map(|(_, record)| record).eq(&records));
    assert!(recovered[0].scan.segments >= 2);
}

/// A file system takes a part of a write when its last free block is inside it. Here the longest file that the process
/// may write ends there.
#[test]
fn a_segment_that_is_not_stored_wholly_is_no_segment() {
    let limit = "trap '' XFSZ && ulimit -f 400";
    let Some(root) = inside("undirect::a_segment_that_is_not_stored_wholly_is_no_segment", limit) else {
        return;
    };
    Incarnation::next(&root, 0).unwrap();
    let dir = create_shard_dir(&root, owner(1, 0)).unwrap();
    let make = |bytes: u64| {
        let writer = Writer::new(owner(1, 0), Geometry::new(bytes, 4096).unwrap());
        run(segments::create(&dir, &writer.segment_header(1))).map(drop)
    };
    assert_eq!(make(256 << 10).unwrap_err().kind(), io::ErrorKind::StorageFull);
    let path = segment_path(&shard_dir(&root, owner(1, 0)), 1);
    assert!(!path.exists(), "nothing is left behind");
    make(128 << 10).unwrap();
    assert_eq!(path.file_name(), Some(OsStr::new("00000001.seg")));
    assert_eq!(path.metadata().unwrap().len(), 128 << 10);
}
