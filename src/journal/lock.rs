//! One process per data directory: an advisory lock on `DIR/LOCK`, held until the process ends, however it ends.

use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The right to use a data directory. Dropping it gives it back.
#[derive(Debug)]
pub struct DataDirLock {
    /// The lock lives as long as this is open.
    _file: File,
}

/// Why a data directory cannot be used.
#[derive(Debug)]
pub enum LockError {
    /// Another process uses it.
    Taken {
        /// The lock file.
        path: PathBuf,
        /// What the other process wrote into it: its process id, unless it has not come to that.
        holder: String,
    },
    /// The lock file cannot be made, opened or locked.
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl std::fmt::Display for LockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken { path, holder } => {
                let holder = if holder.is_empty() { "unknown" } else { holder };
                write!(
                    f,
                    "{} is locked: process {holder} uses this data directory",
                    path.display()
                )
            }
            Self::Io { path, source } => write!(f, "cannot lock {}: {source}", path.display()),
        }
    }
}

impl std::error::Error for LockError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Taken { .. } => None,
            Self::Io { source, .. } => Some(source),
        }
    }
}

impl DataDirLock {
    /// Locks the data directory `root`, which must exist. Does not wait.
    ///
    /// # Errors
    /// [`LockError::Taken`] when another process (or another lock of this one) holds it.
    pub fn acquire(root: &Path) -> Result<Self, LockError> {
        let path = root.join("LOCK");
        let io = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only for the message: a holder that cannot be read is still a holder.
                let _ = file.take(32).read_to_string(&mut holder);
                return Err(LockError::Taken {
                    path,
                    holder: holder.trim().to_owned(),
                });
            }
            Err(errno) => return Err(io(errno.into())),
        }
        file.set_len(0).map_err(io)?;
        file.rewind().map_err(io)?;
        writeln!(file, "{}", std::process::id()).map_err(io)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDirLock::acquire(root.path()).unwrap();
        let refused = DataDirLock::acquire(root.path()).unwrap_err();
        assert!(matches!(refused, LockError::Taken { .. }));
        assert!(
            refused
                .to_string()
                .contains(&format!("process {} uses", std::process::id())),
            "{refused}"
        );
        drop(first);
        DataDirLock::acquire(root.path()).unwrap();
        let missing = DataDirLock::acquire(&root.path().join("no")).unwrap_err();
        assert!(matches!(missing, LockError::Io { .. }));
    }
}
