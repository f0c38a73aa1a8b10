//! File writes with owned buffers, for the journal.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use super::ring::Ring;
use super::tag::Op;
use crate::aligned::AlignedBuffer;

/// Bytes that one write asks for; the kernel writes no more than about 2 GiB at once.
const WRITE_BYTES_MAX: usize = 1 << 30;

/// A write in flight.
struct FileWrite {
    token: u64,
    file: RawFd,
    offset: u64,
    buffer: AlignedBuffer,
    len: usize,
    written: usize,
}

/// A write that ended: what [`NetEvent::FileWritten`](super::NetEvent::FileWritten) says.
pub(super) struct Written {
    pub(super) token: u64,
    pub(super) buffer: AlignedBuffer,
    pub(super) result: io::Result<usize>,
}

/// All writes in flight, by index.
#[derive(Default)]
pub(super) struct FileWrites {
    writes: Vec<Option<FileWrite>>,
    vacant: Vec<u32>,
}

impl FileWrites {
    /// Whether nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.writes.len() == self.vacant.len()
    }

    /// Starts a write.
    pub(super) fn start(
        &mut self,
        ring: &mut Ring,
        token: u64,
        file: RawFd,
        offset: u64,
        buffer: AlignedBuffer,
        len: usize,
    ) {
        assert!(
            len > 0 && len <= buffer.len(),
            "a write of {len} of {} bytes",
            buffer.len()
        );
        let write = FileWrite {
            token,
            file,
            offset,
            buffer,
            len,
            written: 0,
        };
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.writes.push(None);
            self.writes.len() as u32 - 1
        });
        submit(ring, index, &write);
        self.writes[index as usize] = Some(write);
    }

    /// Takes a completion: continues a short write, else returns the buffer.
    pub(super) fn complete(&mut self, ring: &mut Ring, index: u32, result: i32) -> Option<Written> {
        let mut write = self.writes[index as usize]
            .take()
            .expect("a completion belongs to a write");
        let outcome = match result {
            0 => Some(Err(io::ErrorKind::WriteZero.into())),
            1.. => {
                write.written += result as usize;
                assert!(write.written <= write.len, "the kernel wrote no more than it was given");
                (write.written == write.len).then_some(Ok(write.len))
            }
            _ if matches!(-result, libc::EINTR | libc::EAGAIN) => None,
            _ => Some(Err(io::Error::from_raw_os_error(-result))),
        };
        if let Some(result) = outcome {
            self.vacant.push(index);
            return Some(Written {
                token: write.token,
                buffer: write.buffer,
                result,
            });
        }
        submit(ring, index, &write);
        self.writes[index as usize] = Some(write);
        None
    }

    /// Gives up the memory of all writes without freeing it: the kernel may still read it.
    pub(super) fn forget(&mut self) {
        std::mem::take(&mut self.writes)
            .into_iter()
            .flatten()
            .for_each(std::mem::forget);
    }
}

fn submit(ring: &mut Ring, index: u32, write: &FileWrite) {
    let end = write.len.min(write.written + WRITE_BYTES_MAX);
    let rest = &write.buffer.as_slice()[write.written..end];
    let offset = write.offset + write.written as u64;
    // SAFETY: the buffer is ours and untouched until `complete` or `forget`; moving it does not move its bytes.
    unsafe { ring.write_file(write.file, rest, offset, Op::FileWrite(index)) };
}
