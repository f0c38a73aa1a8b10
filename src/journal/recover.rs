//! Reads back what all earlier incarnations left on disk. Holds one segment at a time beside the records.

use super::format::Owner;
use super::layout::{self, Incarnation, segment_path, shard_dir};
use super::replay::RecoveredShard;
use super::scan::{Damage, Found, Scan, Scanner};
use super::segments;
use crate::aligned::AlignedBuffer;
use glommio::{LocalExecutorBuilder, Placement};
use std::io;
use std::path::{Path, PathBuf};

/// Why a journal could not be read back.
#[derive(Debug)]
pub enum RecoverError {
    /// The system refused something.
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal is damaged; the node must not start.
    Damage {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        damage: Damage,
    },
    /// What was read could not be printed.
    Output(io::Error),
}

impl RecoverError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

impl std::fmt::Display for RecoverError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "cannot read the journal at {}: {source}", path.display()),
            Self::Damage { path, damage } => write!(f, "{}: {damage}", path.display()),
            Self::Output(source) => write!(f, "cannot print the journal: {source}"),
        }
    }
}

impl std::error::Error for RecoverError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::Output(source) => Some(source),
            Self::Damage { damage, .. } => Some(damage),
        }
    }
}

/// Reads all journals under the data directory `root`, by incarnation, then by shard. Call it before the new
/// incarnation writes anything, on a thread that runs no glommio executor: it runs one itself until it is done.
///
/// # Errors
/// [`RecoverError`]; the node must not start.
pub fn recover_dir(root: &Path) -> Result<Vec<RecoveredShard>, RecoverError> {
    on_executor(root, async {
        let mut recovered = Vec::new();
        let mut buffer = AlignedBuffer::new();
        for owner in owners(root)? {
            let mut records = Vec::new();
            let mut keep = |found: Found| records.push((found.lsn, found.record));
            let scan = scan_shard(root, owner, &mut buffer, &mut keep).await?;
            let scan = Scan { records, ..scan };
            let Owner { incarnation, shard } = owner;
            recovered.push(RecoveredShard {
                incarnation,
                shard,
                dir: shard_dir(root, owner),
                scan,
            });
        }
        Ok(recovered)
    })
}

/// Runs `work` on an executor of its own, on this thread.
pub(super) fn on_executor<T>(
    root: &Path,
    work: impl Future<Output = Result<T, RecoverError>>,
) -> Result<T, RecoverError> {
    // glommio 0.9.0 may park with a runnable task when its preempt timer expires (see shard/runtime.rs).
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(std::time::Duration::from_secs(3_600))
        .name("journal-recovery")
        .make()
        .map_err(|error| RecoverError::io(root)(error.into()))?;
    executor.run(work)
}

/// All journals under the data directory `root`, by incarnation, then by shard.
pub(super) fn owners(root: &Path) -> Result<Vec<Owner>, RecoverError> {
    let mut owners = Vec::new();
    for incarnation in Incarnation::list(root).map_err(RecoverError::io(root))? {
        let dir = layout::incarnation_dir(root, incarnation);
        let shards = layout::shards(root, incarnation).map_err(RecoverError::io(&dir))?;
        owners.extend(shards.into_iter().map(|shard| Owner { incarnation, shard }));
    }
    Ok(owners)
}

/// Reads one journal segment by segment. `buffer` is room to read into; `sink` gets the records.
pub(super) async fn scan_shard(
    root: &Path,
    owner: Owner,
    buffer: &mut AlignedBuffer,
    sink: &mut dyn FnMut(Found),
) -> Result<Scan, RecoverError> {
    let dir = shard_dir(root, owner);
    let mut scanner = Scanner::new(owner);
    for segment in layout::segments(&dir).map_err(RecoverError::io(&dir))? {
        let path = segment_path(&dir, segment);
        segments::read(&path, buffer).await.map_err(RecoverError::io(&path))?;
        scanner
            .feed(segment, buffer.as_slice(), sink)
            .map_err(|damage| RecoverError::Damage {
                path: segment_path(&dir, damage.segment),
                damage,
            })?;
    }
    Ok(scanner.finish())
}
