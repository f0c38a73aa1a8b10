//! What the disk takes for a write as the journal makes them, by itself: the floor under every latency that waits for a commit.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use dispatchd::aligned::AlignedBuffer;

use crate::ends::Owned;
use crate::measure::Latencies;

/// Bytes of a write: the least that the journal commits.
const WRITE_BYTES: usize = 4096;
/// Bytes of the file, written before: as in the journal, no write makes it longer.
const FILE_BYTES: u64 = 16 << 20;

/// Writes to a file in `dir` for `span`, one after the other, each durable (`O_DIRECT` and `O_DSYNC`).
///
/// # Errors
/// The file system's, for example `EINVAL` where it knows no `O_DIRECT`.
pub fn write_latency(dir: &Path, span: Duration) -> io::Result<Latencies> {
    let scratch = tempfile::Builder::new().prefix("dispatchd-disk-").tempdir_in(dir)?;
    let _owned = Owned::directory(scratch.path().to_owned());
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC)
        .open(scratch.path().join("writes"))?;
    let mut zeros = AlignedBuffer::new();
    zeros.resize(1 << 20, 0);
    for at in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(zeros.as_slice(), at)?;
    }
    let mut latencies = Latencies::new();
    let (began, mut at) = (Instant::now(), 0);
    while began.elapsed() < span {
        let write = Instant::now();
        file.write_all_at(&zeros.as_slice()[..WRITE_BYTES], at)?;
        latencies.record(write.elapsed().as_nanos() as u64);
        at = (at + WRITE_BYTES as u64) % FILE_BYTES;
    }
    Ok(latencies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_write_is_counted_and_nothing_is_left() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let latencies = write_latency(dir.path(), Duration::from_millis(50)).unwrap();
        assert!(latencies.count() > 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
