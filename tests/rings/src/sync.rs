//! What `src/sync.rs` gives, made of loom's types.
//!
//! loom 0.7 takes a `SeqCst` access for an acquiring and releasing one and knows only `SeqCst` fences. So an access
//! that asks for `SeqCst` has such a fence before it here: that is how machines without such accesses make them. And
//! a `SeqCst` store is a swap, since such writes to one place have one order, which loom leaves open for stores. This is
//! stronger than the language in one point: the fence also orders weaker accesses before it. What relies on that alone
//! would not be found.

pub use loom::cell::UnsafeCell;
pub use loom::sync::Arc;

/// Atomics.
pub mod atomic {
    pub use loom::sync::atomic::{Ordering, fence};

    fn fence_if_sequential(order: Ordering) {
        if order == Ordering::SeqCst {
            fence(Ordering::SeqCst);
        }
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            /// The atomic of this name, as far as it is used.
            #[derive(Debug)]
            pub struct $name(loom::sync::atomic::$name);

            impl $name {
                /// Holds `value`.
                pub fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                /// As in `std`.
                pub fn load(&self, order: Ordering) -> $value {
                    fence_if_sequential(order);
                    self.0.load(order)
                }

                /// As in `std`.
                pub fn store(&self, value: $value, order: Ordering) {
                    if order == Ordering::SeqCst {
                        fence(Ordering::SeqCst);
                        self.0.swap(value, Ordering::Release);
                    } else {
                        self.0.store(value, order);
                    }
                }

                /// As in `std`.
                pub fn swap(&self, value: $value, order: Ordering) -> $value {
                    fence_if_sequential(order);
                    self.0.swap(value, order)
                }

                /// As in `std`.
                pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                    fence_if_sequential(order);
                    self.0.fetch_or(value, order)
                }
            }
        };
    }
    atomic!(AtomicBool, bool);
    atomic!(AtomicI32, i32);
    atomic!(AtomicU64, u64);

    // No access to it is sequential.
    pub use loom::sync::atomic::AtomicUsize;
}

/// A channel that promises what crossbeam's does and nothing more: what was sent is received once, in order per sender,
/// and happened before it is received. Whoever finds it empty has learned nothing of what others do.
pub mod channel {
    use super::atomic::{AtomicBool, AtomicUsize, Ordering};
    use super::{Arc, UnsafeCell};
    use std::sync::atomic::AtomicUsize as Untracked;

    /// Most messages that a model sends.
    const MESSAGES_MAX: usize = 4;

    struct Slot<T> {
        written: AtomicBool,
        message: UnsafeCell<Option<T>>,
    }

    struct Shared<T> {
        claimed: AtomicUsize,
        taken: Untracked,
        slots: Vec<Slot<T>>,
    }

    // SAFETY: a slot is its sender's until it is `written`, and the one receiver's from then on; loom checks it.
    unsafe impl<T: Send> Sync for Shared<T> {}
    // SAFETY: it owns its messages, which are `Send`.
    unsafe impl<T: Send> Send for Shared<T> {}

    /// The way in.
    pub struct Sender<T>(Arc<Shared<T>>);

    /// The way out; only one of the clones receives.
    pub struct Receiver<T>(Arc<Shared<T>>);

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self(Arc::clone(&self.0))
        }
    }

    /// The receiver is gone. It never is in a model.
    #[derive(Debug)]
    pub struct SendError<T>(T);

    impl<T> SendError<T> {
        /// The message.
        pub fn into_inner(self) -> T {
            self.0
        }
    }

    /// A channel.
    pub fn unbounded<T: Send>() -> (Sender<T>, Receiver<T>) {
        let slot = |_| Slot {
            written: AtomicBool::new(false),
            message: UnsafeCell::new(None),
        };
        let shared = Arc::new(Shared {
            claimed: AtomicUsize::new(0),
            taken: Untracked::new(0),
            slots: (0..MESSAGES_MAX).map(slot).collect(),
        });
        (Sender(Arc::clone(&shared)), Receiver(shared))
    }

    impl<T: Send> Sender<T> {
        /// Sends.
        ///
        /// # Errors
        /// Never here.
        pub fn send(&self, message: T) -> Result<(), SendError<T>> {
            let slot = &self.0.slots[self.0.claimed.fetch_add(1, Ordering::Relaxed)];
            // SAFETY: nobody else claimed this slot, and nobody reads it before it is written.
            slot.message.with_mut(|place| unsafe { *place = Some(message) });
            slot.written.store(true, Ordering::Release);
            Ok(())
        }
    }

    impl<T: Send> Receiver<T> {
        /// Takes what is there.
        pub fn try_iter(&self) -> impl Iterator<Item = T> + '_ {
            std::iter::from_fn(|| {
                let slot = self.0.slots.get(self.0.taken.load(Ordering::Relaxed))?;
                if !slot.written.load(Ordering::Acquire) {
                    return None;
                }
                self.0.taken.fetch_add(1, Ordering::Relaxed);
                // SAFETY: it was written, and only this receiver takes.
                slot.message.with_mut(|place| unsafe { (*place).take() })
            })
        }
    }
}
