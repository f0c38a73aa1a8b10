//! What ends the sleep of a shard: a completion on its ring, by a message from another ring or from the eventfd.

use loom::sync::{Condvar, Mutex};

/// A shard's ring, as far as sleep goes.
#[derive(Debug)]
pub struct Bell {
    completed: Mutex<bool>,
    sleeper: Condvar,
}

impl Bell {
    /// Nothing has completed.
    #[allow(clippy::new_without_default, reason = "loom's types have no defaults")]
    pub fn new() -> Self {
        Self {
            completed: Mutex::new(false),
            sleeper: Condvar::new(),
        }
    }

    /// A completion: it ends the present sleep, or else the next one at once.
    ///
    /// # Panics
    /// When another thread of the model has.
    pub fn ring(&self) {
        *self.completed.lock().expect("nobody panics") = true;
        self.sleeper.notify_one();
    }

    /// Until something has completed.
    ///
    /// # Panics
    /// When another thread of the model has.
    pub fn sleep(&self) {
        let mut completed = self.completed.lock().expect("nobody panics");
        while !*completed {
            completed = self.sleeper.wait(completed).expect("nobody panics");
        }
        *completed = false;
    }
}
