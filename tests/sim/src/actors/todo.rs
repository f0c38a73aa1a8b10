//! Things that an actor means to do later.

use crate::client::Action;

/// A list of them; each has its token.
#[derive(Debug)]
pub(super) struct Todo<T> {
    next: u64,
    items: Vec<(u64, T)>,
}

impl<T> Todo<T> {
    pub(super) fn new() -> Self {
        Self {
            next: 1,
            items: Vec::new(),
        }
    }

    /// Asks to be woken for it.
    pub(super) fn at(&mut self, at_us: u64, what: T, out: &mut Vec<Action>) {
        let token = self.next;
        self.next += 1;
        self.items.push((token, what));
        out.push(Action::Wake { at_us, token });
    }

    /// What the token was for, unless it was dropped.
    pub(super) fn take(&mut self, token: u64) -> Option<T> {
        let index = self.items.iter().position(|item| item.0 == token)?;
        Some(self.items.swap_remove(index).1)
    }

    /// Drops some.
    pub(super) fn drop_if(&mut self, mut drop: impl FnMut(&T) -> bool) {
        self.items.retain(|item| !drop(&item.1));
    }
}
