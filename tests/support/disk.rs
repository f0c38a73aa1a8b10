//! A small file system of its own for a node that is to run out of disk.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A tmpfs of a given size; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    directory: TempDir,
}

impl SmallDisk {
    /// Mounts one. `None`, with a line that says so, where that is not allowed.
    ///
    /// # Panics
    /// When the temporary directory cannot be made.
    pub fn mount(bytes: u64) -> Option<Self> {
        let directory = TempDir::with_prefix("dispatchd-disk-").expect("a temporary directory");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={bytes},mode=0700"), "tmpfs"]);
        let mounted = command.arg(directory.path()).output();
        if mounted.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self { directory });
        }
        eprintln!("SKIPPED: a small file system cannot be mounted here (root can): {mounted:?}");
        None
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all space that is left.
    ///
    /// # Panics
    /// When writing fails for any other cause than a full disk.
    pub fn fill(&self) {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())
            .expect("a filler file");
        // Ever smaller pieces, so that not a page stays free.
        for size in [1 << 20, 4096, 1] {
            let piece = vec![0x5a; size];
            loop {
                match file.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
                    Err(error) => panic!("filling the disk: {error}"),
                }
            }
        }
    }

    /// Gives the space back.
    ///
    /// # Panics
    /// When it was not filled.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the filler file");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a process that still looks at it does not keep the mount.
        let unmounted = Command::new("umount").arg("-l").arg(self.directory.path()).status();
        if !unmounted.as_ref().is_ok_and(std::process::ExitStatus::success) {
            eprintln!("cannot unmount {}: {unmounted:?}", self.directory.path().display());
        }
    }
}
