//! One wake-up at a time: many threads have news for one that sleeps, and only the first of them has to wake it.
#![forbid(unsafe_code)]

use crate::sync::atomic::{AtomicBool, Ordering};

/// Whether a wake-up is on its way that the sleeper has not seen.
///
/// Both sides are read-modify-writes that acquire and release. So they have one order, and each sees what came before:
/// a thread that finds the flag raised knows that the sleeper has yet to lower it, and will then see its news; after a
/// mere store in [`Self::lower`] it would not.
#[derive(Debug)]
pub struct WakeFlag(AtomicBool);

impl WakeFlag {
    /// Nobody has news.
    #[allow(clippy::new_without_default, reason = "a flag that nobody shares says nothing")]
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// There is news, and it stands where the sleeper looks. True: the caller has to wake the sleeper.
    #[must_use = "nobody else wakes the sleeper"]
    pub fn raise(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The sleeper is awake and is about to look. What comes from now on raises the flag again.
    pub fn lower(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }
}
