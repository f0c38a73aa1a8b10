//! What threads share without locks, under one name: atomics, cells, `Arc` and channels.
//!
//! `shard/spsc.rs`, `shard/mailbox.rs`, `cold/handle.rs` and `wake.rs` take these from here and from nowhere else, so
//! that `tests/rings` can compile the same files on types that try every order of threads and of memory.
#![forbid(unsafe_code)]

pub use std::sync::Arc;
pub use std::sync::atomic;

/// Channels to and from the store's threads.
pub mod channel {
    pub use crossbeam::channel::{Receiver, Sender, unbounded};
}

/// A value that one thread at a time may touch; who does is for its owner to arrange.
#[repr(transparent)]
pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// Holds `value`.
    pub const fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    /// Lends the value to be read. The pointer is good inside `f`, while nobody writes.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
        f(self.0.get())
    }

    /// Lends the value to be written. The pointer is good inside `f`, while nobody else has it.
    #[inline]
    pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
        f(self.0.get())
    }
}
