//! The files of segments: made, opened, read and removed through glommio, on the executor of the calling thread.
//!
//! Runs beside the shard's turns, so it never blocks the thread: file data go through glommio's ring, what has no ring
//! operation (syncing a directory) through its blocking thread. Must never touch a segment that the writer knows,
//! except to remove it after [`super::Writer::drop_through`].

use super::format::{PAGE_BYTES, SegmentHeader};
use super::layout::{segment_path, sync_dir};
use crate::aligned::AlignedBuffer;
use glommio::GlommioError;
use glommio::io::{BufferedFile, DmaBuffer, DmaFile};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Once;

/// Bytes zeroed by one write: small, so that a commit does not wait long behind it on the device.
const ZERO_BYTES: usize = 256 << 10;
/// Bytes asked for by one read of recovery.
const READ_BYTES: usize = 1 << 20;

const _: () = assert!(ZERO_BYTES.is_multiple_of(PAGE_BYTES) && READ_BYTES.is_multiple_of(PAGE_BYTES));

/// The open segments of a shard, for writing. The shard submits [`super::WriteOp`]s to these.
#[derive(Debug, Default)]
pub struct SegmentFiles(BTreeMap<u64, File>);

impl SegmentFiles {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the file of segment `id`.
    pub fn insert(&mut self, id: u64, file: File) {
        let before = self.0.insert(id, file);
        debug_assert!(before.is_none(), "a segment is opened once");
    }

    /// The file of segment `id`.
    pub fn get(&self, id: u64) -> Option<&File> {
        self.0.get(&id)
    }

    /// Closes the file of segment `id`, which no write may be using.
    pub fn remove(&mut self, id: u64) -> Option<File> {
        self.0.remove(&id)
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Makes the segment that `header` describes in the shard's directory `dir`, and opens it so that a completed write is
/// a durable one (`O_DIRECT | O_DSYNC`). Its blocks are allocated and zeroed before, so that a commit changes no
/// metadata. What an earlier call left unfinished is overwritten.
///
/// # Errors
/// What the file system says. [`io::ErrorKind::StorageFull`] is an ordinary answer: nothing is left behind, and the
/// caller tries again later.
pub async fn create(dir: &Path, header: &SegmentHeader) -> io::Result<File> {
    let path = segment_path(dir, header.segment);
    match fill(&path, header).await {
        Ok(()) => {}
        Err(error) => {
            // Give the space back; the first error is the one that counts.
            let _ = glommio::io::remove(&path).await;
            return Err(error);
        }
    }
    sync_directory(dir).await?;
    open_for_commits(&path)
}

/// Removes segments from the shard's directory `dir`, durably, in the order given (oldest first, so that a crash leaves
/// no hole). One that is not there is no error.
///
/// # Errors
/// What the file system says; earlier ones of `ids` may be gone.
pub async fn remove(dir: &Path, ids: &[u64]) -> io::Result<()> {
    for id in ids {
        match glommio::io::remove(segment_path(dir, *id)).await.map_err(plain) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_directory(dir).await
}

/// Reads the whole file at `path` into `out`, which is cleared first.
pub(super) async fn read(path: &Path, out: &mut AlignedBuffer) -> io::Result<()> {
    out.clear();
    let file = Storage::open(path).await?;
    loop {
        let chunk = match &file {
            Storage::Direct(file) => file.read_at_aligned(out.len() as u64, READ_BYTES).await,
            Storage::Buffered(file) => file.read_at(out.len() as u64, READ_BYTES).await,
        };
        let chunk = chunk.map_err(plain)?;
        out.extend_from_slice(&chunk);
        if !chunk.len().is_multiple_of(PAGE_BYTES) || chunk.is_empty() {
            return file.close().await;
        }
    }
}

/// A file, with direct I/O where the file system has it.
enum Storage {
    Direct(DmaFile),
    Buffered(BufferedFile),
}

impl Storage {
    async fn create(path: &Path) -> io::Result<Self> {
        match DmaFile::create(path).await.map_err(plain) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                BufferedFile::create(path).await.map(Self::Buffered).map_err(plain)
            }
            other => other.map(Self::Direct),
        }
    }

    async fn open(path: &Path) -> io::Result<Self> {
        match DmaFile::open(path).await.map_err(plain) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                BufferedFile::open(path).await.map(Self::Buffered).map_err(plain)
            }
            other => other.map(Self::Direct),
        }
    }

    async fn allocate(&self, bytes: u64) -> io::Result<()> {
        let result = match self {
            Self::Direct(file) => file.pre_allocate(bytes, false).await,
            Self::Buffered(file) => file.pre_allocate(bytes, false).await,
        };
        match result.map_err(plain) {
            // Not every file system can allocate ahead; the zeros written next do it as well.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }

    async fn close(self) -> io::Result<()> {
        match self {
            Self::Direct(file) => file.close().await.map_err(plain),
            Self::Buffered(file) => file.close().await.map_err(plain),
        }
    }
}

/// Writes header and zeros; durable when it returns.
async fn fill(path: &Path, header: &SegmentHeader) -> io::Result<()> {
    let file = Storage::create(path).await?;
    let filled = fill_open(&file, header).await;
    let closed = file.close().await;
    filled.and(closed)
}

async fn fill_open(file: &Storage, header: &SegmentHeader) -> io::Result<()> {
    let bytes = header.geometry.segment_bytes();
    file.allocate(bytes).await?;
    let page = header.encode();
    match file {
        Storage::Direct(file) => {
            let mut first = zeros(file, PAGE_BYTES);
            first.as_bytes_mut().copy_from_slice(&page);
            whole(PAGE_BYTES, file.write_at(first, 0).await)?;
            let rest = Rc::new(zeros(file, ZERO_BYTES));
            let mut at = PAGE_BYTES as u64;
            while bytes - at >= ZERO_BYTES as u64 {
                whole(ZERO_BYTES, file.write_rc_at(Rc::clone(&rest), at).await)?;
                at += ZERO_BYTES as u64;
            }
            let last = (bytes - at) as usize;
            if last > 0 {
                whole(last, file.write_at(zeros(file, last), at).await)?;
            }
            file.fdatasync().await.map_err(plain)
        }
        Storage::Buffered(file) => {
            whole(PAGE_BYTES, file.write_at(page.to_vec(), 0).await)?;
            let mut at = PAGE_BYTES as u64;
            while at < bytes {
                let len = (bytes - at).min(ZERO_BYTES as u64) as usize;
                whole(len, file.write_at(vec![0; len], at).await)?;
                at += len as u64;
            }
            file.fdatasync().await.map_err(plain)
        }
    }
}

fn zeros(file: &DmaFile, bytes: usize) -> DmaBuffer {
    let mut buffer = file.alloc_dma_buffer(bytes);
    buffer.as_bytes_mut().fill(0);
    buffer
}

fn whole(expected: usize, written: glommio::Result<usize, ()>) -> io::Result<()> {
    match written.map_err(plain)? {
        written if written == expected => Ok(()),
        // What a file system does when the last free block is inside the write.
        _ => Err(io::ErrorKind::StorageFull.into()),
    }
}

async fn sync_directory(dir: &Path) -> io::Result<()> {
    let dir = dir.to_owned();
    glommio::executor().spawn_blocking(move || sync_dir(&dir)).await
}

fn open_for_commits(path: &Path) -> io::Result<File> {
    static REFUSED: Once = Once::new();
    let open = |flags| OpenOptions::new().write(true).custom_flags(flags).open(path);
    match open(libc::O_DIRECT | libc::O_DSYNC) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            REFUSED.call_once(|| tracing::warn!(path = %path.display(), "no direct I/O here, commits are buffered"));
            open(libc::O_DSYNC)
        }
        other => other,
    }
}

/// glommio's error as the system's, with its kind and number.
fn plain(error: GlommioError<()>) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => error.into(),
    }
}
