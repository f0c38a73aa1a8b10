//! The file system through the kernel: what a program's calls make durable. Skipped, and said so, where it cannot be mounted.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lossyfs::{Honesty, LossyDisk};
use tempfile::TempDir;

const BLOCK: usize = 4096;

struct Mounted {
    disk: LossyDisk,
    home: TempDir,
}

impl Mounted {
    fn new(seed: u64, honesty: Honesty) -> Option<Self> {
        let home = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(home.path().join("disk")).expect("a mount point");
        match LossyDisk::mount(&home.path().join("disk"), seed, honesty) {
            Ok(disk) => Some(Self { disk, home }),
            Err(error) => {
                println!("SKIPPED: a lossy file system cannot be mounted here (root with /dev/fuse can): {error}");
                None
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("disk").join(name)
    }

    /// A durable, empty directory entry and its file of zeros.
    fn make(&self, name: &str, bytes: usize) -> PathBuf {
        let path = self.path(name);
        let mut file = File::create(&path).expect("a file");
        file.write_all(&vec![0; bytes]).expect("zeros");
        file.sync_data().expect("fdatasync");
        sync_dir(path.parent().expect("a directory"));
        path
    }

    fn cut(&mut self) {
        self.disk.power_off(Duration::ZERO);
        self.disk.power_on().expect("the disk to come back");
    }
}

fn sync_dir(path: &Path) {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .expect("fsync of a directory");
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.read_to_end(&mut bytes).expect("a file's bytes");
    Some(bytes)
}

/// What direct I/O wants: an address that is a multiple of the block's size.
#[repr(align(4096))]
struct Block([u8; BLOCK]);

#[test]
fn writes_of_each_kind_are_as_durable_as_they_say() {
    let (mut plain_lost, mut kept) = (0, 0);
    for seed in 0..12 {
        let Some(mut mounted) = Mounted::new(seed, Honesty::Honest) else {
            return;
        };
        let open = |path: &Path, flags| OpenOptions::new().write(true).custom_flags(flags).open(path);
        let files: Vec<PathBuf> = ["plain", "dsync", "synced"]
            .into_iter()
            .map(|name| mounted.make(name, 2 * BLOCK))
            .collect();
        open(&files[0], 0)
            .and_then(|file| file.write_all_at(&[1; BLOCK], 0))
            .expect("a write");
        open(&files[1], libc::O_DSYNC)
            .and_then(|file| file.write_all_at(&[1; BLOCK], 0))
            .expect("a write");
        open(&files[2], 0)
            .and_then(|file| {
                file.write_all_at(&[1; BLOCK], 0)?;
                file.sync_data()
            })
            .expect("a write");
        mounted.cut();
        let first = |path: &Path| read(path).expect("a file whose entry was synced")[..BLOCK].to_vec();
        assert_eq!(first(&files[1]), [1; BLOCK], "O_DSYNC, seed {seed}");
        assert_eq!(first(&files[2]), [1; BLOCK], "fdatasync, seed {seed}");
        let survived = first(&files[0])
            .iter()
            .map(|byte| usize::from(*byte == 1))
            .sum::<usize>();
        plain_lost += usize::from(survived < BLOCK);
        kept += usize::from(survived > 0);
    }
    assert!(plain_lost > 0 && kept > 0, "lost {plain_lost}, kept {kept}");
}

#[test]
fn direct_writes_arrive_and_are_durable() {
    let Some(mut mounted) = Mounted::new(1, Honesty::Honest) else {
        return;
    };
    let path = mounted.make("direct", 4 * BLOCK);
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(&path)
        .expect("direct I/O");
    file.write_all_at(&Box::new(Block([7; BLOCK])).0, BLOCK as u64)
        .expect("a direct write");
    drop(file);
    let counts = mounted.disk.counts();
    assert_eq!((counts.writes_durable, counts.writes_direct), (1, 1));
    mounted.cut();
    let bytes = read(&path).expect("the file");
    assert!(bytes[BLOCK..2 * BLOCK].iter().all(|byte| *byte == 7));
}

#[test]
fn a_lying_disk_loses_what_it_called_durable() {
    let Some(mut mounted) = Mounted::new(1, Honesty::Lying) else {
        return;
    };
    let path = mounted.make("f", BLOCK);
    let mut file = OpenOptions::new();
    let file = file.write(true).custom_flags(libc::O_DSYNC).open(&path);
    file.and_then(|file| file.write_all_at(&[1; BLOCK], 0))
        .expect("a write");
    assert_eq!(read(&path).expect("the file"), [1; BLOCK]);
    mounted.cut();
    assert_eq!(read(&path).expect("its entry was synced"), [0; BLOCK]);
}

#[test]
fn nothing_works_without_power() {
    let Some(mut mounted) = Mounted::new(1, Honesty::Honest) else {
        return;
    };
    let path = mounted.make("f", BLOCK);
    let file = OpenOptions::new().write(true).open(&path).expect("a file");
    mounted.disk.power_off(Duration::ZERO);
    let error = file.write_all_at(&[1; BLOCK], 0).expect_err("no power");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    drop(file);
    mounted.disk.power_on().expect("the disk to come back");
    assert_eq!(read(&path).expect("its entry was synced"), [0; BLOCK]);
}
