//! The lock-free parts of dispatchd, the very files of `src/`, on loom's types. [`models`] says what must hold.
//!
//! `cargo test -p dispatchd-rings` tries the models; `tests/rings/weaken` weakens the files in a copy, one line at a
//! time, and expects every weakening to be found; `tests/rings/miri` runs the same files on real types under Miri.

pub mod cold;
pub mod models;
pub mod shard;
pub mod sync;
#[path = "../../../src/wake.rs"]
pub mod wake;
