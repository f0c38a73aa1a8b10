//! Why the journal did not take a record, or is over.

use crate::wire::record::RecordError;
use std::io;

/// Why the journal did not take a record or is over.
#[derive(Debug)]
pub enum JournalError {
    /// The record does not fit a commit. The caller's fault; nothing was taken. [`super::image_records`] splits logs.
    RecordTooLarge {
        /// Bytes as encoded.
        len: usize,
        /// Most that there may be.
        max: usize,
    },
    /// The record could not be encoded. Nothing was taken.
    Encode(RecordError),
    /// Fatal: a write failed. Whether its bytes are stored is unknown; the process must end.
    Write {
        /// Which file.
        segment: u64,
        /// Where.
        offset: u64,
        /// What the kernel said.
        source: io::Error,
    },
    /// Fatal: a write stored only a part. The process must end.
    ShortWrite {
        /// Which file.
        segment: u64,
        /// Where.
        offset: u64,
        /// Bytes that were to be written.
        expected: usize,
        /// Bytes that were.
        written: usize,
    },
    /// Fatal: an earlier write failed.
    Failed,
}

impl JournalError {
    /// Whether the journal is over, and with it the process.
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::ShortWrite { .. } | Self::Failed)
    }
}

impl std::fmt::Display for JournalError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RecordTooLarge { len, max } => write!(f, "a record of {len} bytes; the journal takes {max}"),
            Self::Encode(source) => source.fmt(f),
            Self::Write {
                segment,
                offset,
                source,
            } => {
                write!(f, "write to segment {segment} at {offset} failed: {source}")
            }
            Self::ShortWrite {
                segment,
                offset,
                expected,
                written,
            } => {
                write!(
                    f,
                    "write to segment {segment} at {offset} stored {written} of {expected} bytes"
                )
            }
            Self::Failed => write!(f, "the journal failed before"),
        }
    }
}

impl std::error::Error for JournalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Encode(source) => Some(source),
            Self::Write { source, .. } => Some(source),
            Self::RecordTooLarge { .. } | Self::ShortWrite { .. } | Self::Failed => None,
        }
    }
}
