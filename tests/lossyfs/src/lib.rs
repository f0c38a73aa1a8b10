//! A file system for tests that loses what was not synced when its power is cut.
//!
//! Everything is in memory, twice: as its users see it and as the platter has it. Data get to the platter by `fsync`, `fdatasync` and
//! writes to files opened `O_DSYNC` or `O_SYNC`; entries of directories by `fsync` of the directory, and by nothing else. A cut
//! keeps what is on the platter and, of the rest, what a seeded random number says: of a directory the first few of its unsynced changes; of a
//! file nothing, all, or each sector of 512 bytes for itself, writes and syncs in flight included. That is less than ext4,
//! XFS or btrfs keep, and all that POSIX promises.
//!
//! Mounted through `/dev/fuse`, which takes root. Must never: be used for anything but tests.
#![forbid(unsafe_code)]

mod file;
mod fs;
mod platter;
mod tree;

use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, Config, MountOption, Session};
use nix::errno::Errno;
use nix::mount::umount;

pub use file::{Losses, SECTOR_BYTES};
pub use platter::{Counts, Honesty};

use fs::LossyFs;
use platter::Disk;

/// Longest wait for the kernel to let go of the files of dead processes, and between two tries.
const RELEASE_MAX: Duration = Duration::from_secs(10);
const RELEASE_POLL: Duration = Duration::from_millis(2);
/// How long every other cut waits for a moment in which a write is under way.
const IN_FLIGHT_PATIENCE: Duration = Duration::from_millis(50);

/// A mounted file system. Unmounted, and forgotten with all that is in it, when dropped.
pub struct LossyDisk {
    disk: Disk,
    mount_point: PathBuf,
    session: Option<BackgroundSession>,
    platter: Option<JoinHandle<()>>,
    cuts: u32,
}

impl LossyDisk {
    /// Mounts an empty one on the directory `mount_point`. `seed` decides what survives cuts.
    ///
    /// # Errors
    /// No `/dev/fuse` ([`io::ErrorKind::NotFound`]), or not the right to mount.
    pub fn mount(mount_point: &Path, seed: u64, honesty: Honesty) -> io::Result<Self> {
        let disk = Disk::new(seed, honesty);
        let session = start(&disk, mount_point)?;
        let platter = disk.run()?;
        Ok(Self {
            disk,
            mount_point: mount_point.to_owned(),
            session: Some(session),
            platter: Some(platter),
            cuts: 0,
        })
    }

    /// Cuts the power: what is under way fails, and everything does from now on. Waits up to `patience` for a moment in which
    /// a durable write or a sync is under way.
    pub fn power_off(&self, patience: Duration) {
        self.disk.power_off(patience);
    }

    /// Cuts the power at whatever moment it is, and every other time in one in which a write is under way, if that comes soon.
    pub fn cut(&mut self) {
        self.cuts += 1;
        let waits = self.cuts.is_multiple_of(2);
        self.power_off(if waits { IN_FLIGHT_PATIENCE } else { Duration::ZERO });
    }

    /// Brings the power back, and what survived. Nobody may have a file open; all who had must be dead.
    ///
    /// # Errors
    /// The kernel's, when it does not let go of the old mount or mount again.
    ///
    /// # Panics
    /// When the power was not cut.
    pub fn power_on(&mut self) -> io::Result<Losses> {
        self.unmount()?;
        let losses = self.disk.power_on();
        self.session = Some(start(&self.disk, &self.mount_point)?);
        Ok(losses)
    }

    /// What the disk was asked so far.
    pub fn counts(&self) -> Counts {
        self.disk.lock().counts
    }

    fn unmount(&mut self) -> io::Result<()> {
        let Some(session) = self.session.take() else {
            return Ok(());
        };
        let begin = Instant::now();
        loop {
            match umount(&self.mount_point) {
                Ok(()) => return session.join(),
                // The kernel lets go of the files of a killed process's rings a moment after its end.
                Err(Errno::EBUSY) if begin.elapsed() < RELEASE_MAX => std::thread::sleep(RELEASE_POLL),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Drop for LossyDisk {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            eprintln!("cannot unmount {}: {error}", self.mount_point.display());
        }
        self.disk.end();
        if let Some(platter) = self.platter.take() {
            // A panic there was printed when it happened.
            let _ = platter.join();
        }
    }
}

fn start(disk: &Disk, mount_point: &Path) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("lossyfs".into()), MountOption::DefaultPermissions];
    Session::new(LossyFs(disk.clone()), mount_point, &config)?.spawn()
}
