//! From an id's hash to the key of its actor: a hash table in many small parts, so that the growth of one never holds
//! up the shard (a whole table of a million drivers takes about 100 ms to grow).
#![forbid(unsafe_code)]

use hashbrown::HashTable;

const PARTS: usize = 256;
const _: () = assert!(PARTS.is_power_of_two());

/// The table. It keeps keys of four bytes; the ids stand in the actors.
pub(super) struct KeyIndex {
    parts: Box<[HashTable<u32>]>,
}

impl Default for KeyIndex {
    fn default() -> Self {
        Self {
            parts: (0..PARTS).map(|_| HashTable::new()).collect(),
        }
    }
}

impl KeyIndex {
    /// The key whose id has this hash and is the one that `is_it` knows.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.parts[part(hash)].find(hash, |key| is_it(*key)).copied()
    }

    /// Adds a key that is not there.
    pub(super) fn insert(&mut self, hash: u64, key: u32, hash_of: impl Fn(u32) -> u64) {
        self.parts[part(hash)].insert_unique(hash, key, |key| hash_of(*key));
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, hash: u64, key: u32) {
        match self.parts[part(hash)].find_entry(hash, |other| *other == key) {
            Ok(found) => drop(found.remove()),
            Err(_) => debug_assert!(false, "a key that is removed is there"),
        }
    }

    /// Bytes of all parts.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(HashTable::allocation_size).sum::<usize>() + PARTS * size_of::<HashTable<u32>>()
    }
}

/// The shard of an id is in the high bits, hashbrown's tags are in the highest and its places in the lowest: the part
/// comes from between.
fn part(hash: u64) -> usize {
    (hash >> 40) as usize & (PARTS - 1)
}
