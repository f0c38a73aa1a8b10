//! A small file system of its own for a node that is to run out of disk.

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// An ext4 in a file, or a tmpfs where loop devices are not to be had; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    scratch: TempDir,
}

impl SmallDisk {
    /// Mounts one. `None`, with a line that says so, where that is not allowed.
    ///
    /// # Panics
    /// When the temporary directory cannot be made.
    pub fn mount(bytes: u64) -> Option<Self> {
        let scratch = TempDir::with_prefix("dispatchd-disk-").expect("a temporary directory");
        let disk = Self { scratch };
        std::fs::create_dir(disk.path()).expect("a mount point");
        match disk.mount_image(bytes).or_else(|_| disk.mount_memory(bytes)) {
            Ok(()) => Some(disk),
            Err(why) => {
                skipped(&format!("a small file system cannot be mounted here (root can): {why}"));
                None
            }
        }
    }

    fn mount_image(&self, bytes: u64) -> Result<(), String> {
        let image = self.scratch.path().join("image");
        let file = File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(bytes).map_err(|error| error.to_string())?;
        // No blocks in reserve: root is to run out of disk too.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(self.path()))
    }

    fn mount_memory(&self, bytes: u64) -> Result<(), String> {
        let options = format!("size={bytes},mode=0700");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(self.path()))
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.scratch.path().join("mount")
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Takes all space that is left.
    ///
    /// # Panics
    /// When writing fails for any other cause than a full disk.
    pub fn fill(&self) {
        let mut options = OpenOptions::new();
        let options = options.create(true).append(true);
        let file = options.open(self.filler()).expect("a filler file");
        // Ever smaller pieces, so that not a block stays free. Allocated, not written: it takes the space all the same.
        for size in [64 << 20, 1 << 20, 64 << 10, 4096] {
            loop {
                let end = file.metadata().expect("the filler's size").len();
                match fallocate(&file, FallocateFlags::empty(), end, size) {
                    Ok(()) => {}
                    Err(Errno::NOSPC) => break,
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

impl SmallDisk {
    /// Freezes the file system: every write waits until what is given back is dropped. `None`, with a line that says so,
    /// where that cannot be (a tmpfs). Drop it before the node: a process that waits for its disk cannot be killed.
    pub fn freeze(&self) -> Option<Frozen> {
        let path = self.path();
        match run(Command::new("fsfreeze").arg("--freeze").arg(&path)) {
            Ok(()) => Some(Frozen { path }),
            Err(why) => {
                skipped(&format!("a file system cannot be frozen here: {why}"));
                None
            }
        }
    }
}

/// Says so past the harness, which keeps what a passed test prints to itself.
fn skipped(why: &str) {
    // Nobody may be listening; then nobody is told.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// A frozen file system, until it is dropped.
#[derive(Debug)]
pub struct Frozen {
    path: PathBuf,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(why) = run(Command::new("fsfreeze").arg("--unfreeze").arg(&self.path)) {
            eprintln!("cannot thaw {}: {why}", self.path.display());
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if !is_mounted(&self.path()) {
            return;
        }
        // Lazily, so that a process that still looks at it does not keep the mount.
        if let Err(why) = run(Command::new("umount").arg("-l").arg(self.path())) {
            eprintln!("cannot unmount {}: {why}", self.path().display());
        }
    }
}

fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let path = path.to_string_lossy();
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(&path))
}

fn run(command: &mut Command) -> Result<(), String> {
    let Output { status, stderr, .. } = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {status}: {}",
        String::from_utf8_lossy(&stderr).trim()
    ))
}
