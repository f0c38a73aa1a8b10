//! A slab in pages: constant time for everything, and growth that moves nothing.
//!
//! A `Vec` that doubles holds up to half of its memory in reserve and copies all of it at once when it grows, which
//! with a million drivers is a stall of tens of milliseconds and a hundred megabytes of nothing.
#![forbid(unsafe_code)]

use std::ops::{Index, IndexMut};

/// Entries of a page.
const PAGE_LEN: usize = 512;
const _: () = assert!(PAGE_LEN.is_power_of_two());
/// No next vacant entry.
const NONE: u32 = u32::MAX;

enum Entry<T> {
    /// With the next vacant one.
    Vacant(u32),
    Occupied(T),
}

/// The slab. Keys are reused after `remove`.
pub struct Pages<T> {
    pages: Vec<Box<[Entry<T>]>>,
    vacant: u32,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Pages<T> {
    /// An empty slab, without memory.
    pub const fn new() -> Self {
        Self {
            pages: Vec::new(),
            vacant: NONE,
            len: 0,
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Keys that exist, used or not: all keys are smaller.
    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE_LEN
    }

    /// Bytes that the pages take.
    pub fn bytes(&self) -> usize {
        self.capacity() * size_of::<Entry<T>>() + self.pages.capacity() * size_of::<Box<[Entry<T>]>>()
    }

    /// Keeps `value` and returns its key.
    ///
    /// # Panics
    /// When there are 2³² − 512 values.
    pub fn insert(&mut self, value: T) -> usize {
        if self.vacant == NONE {
            self.add_page();
        }
        let key = self.vacant as usize;
        let entry = self.entry_mut(key).expect("a vacant key lies in a page");
        let Entry::Vacant(next) = *entry else {
            unreachable!("the list of vacant entries holds only those")
        };
        *entry = Entry::Occupied(value);
        self.vacant = next;
        self.len += 1;
        key
    }

    /// Takes the value back.
    ///
    /// # Panics
    /// When there is none with this key.
    pub fn remove(&mut self, key: usize) -> T {
        let vacant = self.vacant;
        let entry = self.entry_mut(key).expect("the key of a value");
        let Entry::Occupied(value) = std::mem::replace(entry, Entry::Vacant(vacant)) else {
            panic!("the value of a key is removed once")
        };
        self.vacant = key as u32;
        self.len -= 1;
        value
    }

    /// The value of a key.
    pub fn get(&self, key: usize) -> Option<&T> {
        match self.pages.get(key / PAGE_LEN)?.get(key % PAGE_LEN)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    /// The value of a key.
    pub fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        match self.entry_mut(key)? {
            Entry::Occupied(value) => Some(value),
            Entry::Vacant(_) => None,
        }
    }

    /// Whether there is a value with this key.
    pub fn contains(&self, key: usize) -> bool {
        self.get(key).is_some()
    }

    /// All values with their keys, in the order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let entries = self.pages.iter().flat_map(|page| page.iter());
        entries.enumerate().filter_map(|(key, entry)| match entry {
            Entry::Occupied(value) => Some((key, value)),
            Entry::Vacant(_) => None,
        })
    }

    fn entry_mut(&mut self, key: usize) -> Option<&mut Entry<T>> {
        self.pages.get_mut(key / PAGE_LEN)?.get_mut(key % PAGE_LEN)
    }

    fn add_page(&mut self) {
        let first = u32::try_from(self.capacity()).expect("fewer than 2^32 values");
        let last = first + PAGE_LEN as u32 - 1;
        let next = |key: u32| if key == last { NONE } else { key + 1 };
        let page = (first..=last).map(|key| Entry::Vacant(next(key))).collect();
        self.pages.push(page);
        self.vacant = first;
    }
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;

    fn index(&self, key: usize) -> &T {
        self.get(key).expect("the key of a value")
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    fn index_mut(&mut self, key: usize) -> &mut T {
        self.get_mut(key).expect("the key of a value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn like_a_map(steps in proptest::collection::vec((any::<bool>(), 0usize..2_000), 1..3_000)) {
            let mut pages = Pages::new();
            let mut model = BTreeMap::new();
            for (insert, number) in steps {
                if insert || model.is_empty() {
                    let key = pages.insert(number);
                    prop_assert_eq!(model.insert(key, number), None);
                } else {
                    let key = *model.keys().nth(number % model.len()).unwrap();
                    prop_assert_eq!(Some(pages.remove(key)), model.remove(&key));
                    prop_assert!(!pages.contains(key));
                }
                prop_assert_eq!(pages.len(), model.len());
            }
            prop_assert!(pages.iter().map(|(key, value)| (key, *value)).eq(model.into_iter()));
        }
    }

    #[test]
    fn keys_are_reused_before_a_page_is_added() {
        let mut pages = Pages::new();
        let keys: Vec<_> = (0..PAGE_LEN).map(|value| pages.insert(value)).collect();
        assert_eq!(pages.capacity(), PAGE_LEN);
        pages.remove(keys[7]);
        assert_eq!(pages.insert(0), keys[7]);
        assert_eq!(pages.capacity(), PAGE_LEN);
    }
}
