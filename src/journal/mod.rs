//! The journal of a shard: segments, group commit, recovery.
#![forbid(unsafe_code)]
