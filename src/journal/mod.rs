//! The journal of a shard: segments, group commit, recovery.
//!
//! Owns the files under `DIR/journal/{incarnation:08}/{shard:04}/{segment:08}.seg`. Every boot of the node is an
//! *incarnation* and writes into a directory of its own; what an earlier one wrote is read, never continued. A record
//! gets a number at once ([`Lsn`]) and is durable when [`Writer::completed`] has said so, never before.
//!
//! Walk: [`Writer`] (pure) turns records into write operations that the shard submits on its ring; [`segments`] makes
//! and removes files; [`Scanner`] (pure) turns a segment's bytes back into records or refuses; [`recover_dir`] feeds it
//! from disk; [`Replay`] (pure) merges what all incarnations left; [`inspect`] prints it for operators.
//!
//! Must never: write the same bytes twice, reuse a segment or a block's place, retry a failed write, or take what it
//! cannot prove whole for anything but the torn end of the last write.
//!
//! # Format, version 1
//!
//! Numbers are little endian. CRC32C is Castagnoli's. A *page* is 4096 bytes, a *sector* 512.
//!
//! **Segment**: a file of `segment_bytes`, filled with zeros and durable before its first use.
//!
//! | page 0 | offset | bytes |
//! |---|---|---|
//! | magic `F7 "DDseg" FE 0A` | 0 | 8 |
//! | CRC32C of bytes 12..4096 | 8 | 4 |
//! | format version | 12 | 2 |
//! | shard | 14 | 2 |
//! | incarnation | 16 | 8 |
//! | segment number, from 1 without gaps | 24 | 8 |
//! | `segment_bytes` | 32 | 8 |
//! | `commit_bytes_max` | 40 | 4 |
//! | zeros | 44 | 4052 |
//!
//! The segment is made long before its first record is known, so that record's number is in the first block.
//! From page 1 on there are **commit blocks**, each one write, one after the other, each padded with zeros to whole
//! pages, at most `commit_bytes_max` long; a block that does not fit goes to the next segment. After the last: zeros.
//!
//! | block header | offset | bytes |
//! |---|---|---|
//! | magic `F7 "DDblk" FE 0A` | 0 | 8 |
//! | CRC32C of bytes 12..64 | 8 | 4 |
//! | CRC32C of the payload | 12 | 4 |
//! | payload length | 16 | 4 |
//! | records in it, at least 1 | 20 | 4 |
//! | format version | 24 | 2 |
//! | shard | 26 | 2 |
//! | sectors of header and payload that are zero by content | 28 | 4 |
//! | incarnation | 32 | 8 |
//! | segment number | 40 | 8 |
//! | block number, from 1 without gaps, across segments | 48 | 8 |
//! | LSN of the first record | 56 | 8 |
//!
//! The payload is a row of records: length (4), zeros (4), the record as rkyv made it, zeros up to a multiple of 8.
//! Owner, segment and block number are under the checksum: what another place or time wrote never passes.
//! Neither magic can occur in UTF-8 text, so no caller's JSON can look like a block.
//!
//! A record is a variant of [`Record`](crate::fsm::types::Record), by its place in that enumeration. A request's log is
//! told by `Steps`, once each, and told again by an `Image`, which an `ImageRest` or more of them follow at once when it is
//! too long for one record. A log that begins anew (`Steps` from 1, another `Received`) is the next life of an id whose
//! request was over and out of retention.
//!
//! **Version**: a kind of record that is added at the end does not change it, since what was written before reads as it did
//! (journals from before `ImageRest` have `Steps` in its place); an older program refuses a record that it does not know. Any
//! other change of records or blocks needs a new number.
//!
//! # Torn or damaged
//!
//! One write is under way at a time, onto zeros, and a disk writes a sector wholly or not at all. So a crash leaves a
//! prefix of whole blocks and at most one block of which some sectors are still zero, and zeros after it. Exactly that
//! is *cut*: its commit was never confirmed. Anything else is damage, and recovery *refuses*, since it could be data
//! that was confirmed: a block with a wrong checksum whose sectors are all there (also when it is the last one),
//! anything after a torn block, a missing segment or block number, a foreign block, a file that ends inside a block.
//!
//! # Numbers
//!
//! Commits up to 1 MiB, segments 64 MiB. Two commit buffers are recycled: no allocation per commit in steady state.
//! Recovery holds one segment and the records in memory.
#![forbid(unsafe_code)]

mod error;
mod format;
pub mod inspect;
mod layout;
mod lock;
mod recover;
mod replay;
mod scan;
pub mod segments;
mod writer;

pub use error::JournalError;
pub use format::{
    BLOCK_HEADER_BYTES, COMMIT_BYTES_MAX, FORMAT_VERSION, FRAME_BYTES, Geometry, Owner, PAGE_BYTES, SECTOR_BYTES,
    SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SegmentHeader, Unreadable,
};
pub use layout::{Incarnation, create_shard_dir, incarnation_dir, segment_path, shard_dir};
pub use lock::{DataDirLock, LockError};
pub use recover::{RecoverError, recover_dir};
pub use replay::{Fed, OffShift, RecoveredShard, Replay, ReplayError, Tail, image_records};
pub use scan::{Damage, DamageKind, Found, Scan, Scanner, TornTail, scan};
pub use writer::{Committed, SegmentInfo, WriteOp, Writer};

/// Number of a record in one shard's journal of one incarnation, from 1 without gaps. 0 stands for "none yet".
pub type Lsn = u64;
