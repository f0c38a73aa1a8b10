//! As in `src`.

#[path = "../../../../../src/shard/mailbox.rs"]
#[allow(dead_code, reason = "not all of it matters here")]
pub mod mailbox;
#[path = "../../../../../src/shard/spsc.rs"]
pub mod spsc;
