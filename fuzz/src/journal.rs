//! The journal without its files: format, writer, scan and replay.

#[path = "../../src/journal/error.rs"]
mod error;
#[path = "../../src/journal/format.rs"]
mod format;
#[path = "../../src/journal/layout.rs"]
#[allow(dead_code, reason = "only its numbers matter here")]
mod layout;
#[path = "../../src/journal/replay.rs"]
mod replay;
#[path = "../../src/journal/scan.rs"]
mod scan;
#[path = "../../src/journal/writer.rs"]
mod writer;

pub use error::JournalError;
pub use format::*;
pub use layout::Incarnation;
pub use replay::{OffShift, RecoveredShard, Replay, ReplayError, Tail, image_records};
pub use scan::{Damage, DamageKind, Found, Scan, Scanner, TornTail, scan};
pub use writer::{Committed, SegmentInfo, WriteOp, Writer};

/// As in the journal itself.
pub type Lsn = u64;
