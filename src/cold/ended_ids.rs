//! Which request ids have surely not ended: Bloom filters (Bloom, "Space/time trade-offs in hash coding with allowable
//! errors", 1970) over those that the store keeps, so that nearly every new request is known to be new without a way
//! through the store's lookup thread and back.
//!
//! The store puts an id in before it says that the id's end is stored, and a shard forgets a request only after that: so an
//! id is in a shard's memory, in here, or new. Until what an earlier process stored is in here, too, nothing is sure.
//!
//! Ids leave with the span of days that they ended in. A span has filters of doubling size, each filled before the next one
//! is made: room for a million ids costs 2 MiB, and there are few to ask. Beyond [`BYTES_MAX`] nothing is sure any more.

use fastbloom::AtomicBloomFilter;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

/// Bits for each id: with [`PROBES`], one new id in 400 is taken for one that may have ended.
const BITS_PER_ID: usize = 16;
/// Bits that an id sets.
const PROBES: u32 = 4;
/// Ids that the first filter of a span has room for.
const FIRST_ROOM: usize = 1 << 14;
/// Memory of all filters together, above which they are given up: room for about 130 million ids.
pub const BYTES_MAX: usize = 256 << 20;

/// See the module. Shared by the store's threads, which put ids in, and the shards, which ask.
#[derive(Debug, Default)]
pub struct EndedIds {
    /// Whether every id that the store keeps is in here.
    complete: AtomicBool,
    spans: RwLock<Spans>,
}

#[derive(Debug, Default)]
struct Spans {
    list: Vec<Span>,
    bytes: usize,
    given_up: bool,
}

#[derive(Debug)]
struct Span {
    first: u64,
    /// Never empty; only the last one has room.
    filters: Vec<Filter>,
}

#[derive(Debug)]
struct Filter {
    bits: AtomicBloomFilter,
    room: usize,
    taken: AtomicUsize,
}

impl Filter {
    fn new(room: usize) -> Self {
        Self {
            // Ids come as hashes, so the filter's own hash, and its seed, are never used.
            bits: AtomicBloomFilter::with_num_bits(room * BITS_PER_ID)
                .seed(&0)
                .hashes(PROBES),
            room,
            taken: AtomicUsize::new(0),
        }
    }

    /// False: it is full.
    fn insert(&self, hash: u64) -> bool {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.room {
            return false;
        }
        self.bits.insert_hash(hash);
        true
    }
}

impl EndedIds {
    /// Puts an id in, by [`RequestId::hash64`](crate::fsm::ids::RequestId::hash64). `span` names the span of days, as in
    /// [`Self::forget_span`].
    pub fn insert(&self, span: u64, hash: u64) {
        let inserted = |spans: &Spans| {
            let last = spans.list.iter().find(|one| one.first == span)?.filters.last()?;
            last.insert(hash).then_some(())
        };
        while inserted(&self.read()).is_none() {
            let mut spans = self.spans.write().unwrap_or_else(PoisonError::into_inner);
            if spans.given_up {
                return;
            }
            spans.grow(span);
            if spans.bytes > BYTES_MAX {
                tracing::info!(
                    bytes = spans.bytes,
                    "too many ended ids for their filters: each new one is looked up"
                );
                *spans = Spans {
                    given_up: true,
                    ..Spans::default()
                };
            }
        }
    }

    /// From now on everything that the store keeps is in here.
    pub fn complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// The ids of this span are no longer kept.
    pub fn forget_span(&self, span: u64) {
        let mut spans = self.spans.write().unwrap_or_else(PoisonError::into_inner);
        spans.list.retain(|one| one.first != span);
        spans.bytes = spans.list.iter().map(Span::bytes).sum();
    }

    /// Memory of all filters.
    pub fn bytes(&self) -> usize {
        self.read().bytes
    }

    /// Whether the store surely keeps no request of this hash. False says nothing.
    pub fn surely_lacks(&self, hash: u64) -> bool {
        if !self.complete.load(Ordering::Acquire) {
            return false;
        }
        let spans = self.read();
        let mut filters = spans.list.iter().flat_map(|span| &span.filters);
        !spans.given_up && !filters.any(|filter| filter.bits.contains_hash(hash))
    }

    fn read(&self) -> RwLockReadGuard<'_, Spans> {
        self.spans.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spans {
    /// Gives the span a filter with room, unless it got one meanwhile.
    fn grow(&mut self, first: u64) {
        let at = self.list.iter().position(|one| one.first == first).unwrap_or_else(|| {
            let filters = Vec::new();
            self.list.push(Span { first, filters });
            self.list.len() - 1
        });
        let filters = &mut self.list[at].filters;
        let room = match filters.last() {
            Some(last) if last.taken.load(Ordering::Relaxed) < last.room => return,
            Some(last) => last.room * 2,
            None => FIRST_ROOM,
        };
        filters.push(Filter::new(room));
        self.bytes += room * BITS_PER_ID / 8;
    }
}

impl Span {
    fn bytes(&self) -> usize {
        self.filters.iter().map(|filter| filter.room * BITS_PER_ID / 8).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::ids::RequestId;

    fn hash(number: usize) -> u64 {
        RequestId::parse(&format!("request-{number}")).unwrap().hash64()
    }

    #[test]
    fn what_was_put_in_is_never_lacking_and_what_was_not_nearly_always() {
        let ids = EndedIds::default();
        let many = FIRST_ROOM * 5;
        for number in 0..many {
            ids.insert((number % 2) as u64, hash(number));
        }
        assert!(!ids.surely_lacks(hash(many)), "not yet complete");
        ids.complete();
        assert!((0..many).all(|number| !ids.surely_lacks(hash(number))));
        let taken_for_known = (many..2 * many)
            .filter(|number| !ids.surely_lacks(hash(*number)))
            .count();
        assert!(taken_for_known < many / 50, "{taken_for_known} of {many}");
    }

    #[test]
    fn ids_leave_with_their_span() {
        let ids = EndedIds::default();
        ids.complete();
        ids.insert(1, hash(1));
        ids.insert(9, hash(2));
        ids.forget_span(1);
        assert!(ids.surely_lacks(hash(1)) && !ids.surely_lacks(hash(2)));
        ids.insert(1, hash(1));
        assert!(!ids.surely_lacks(hash(1)));
    }

    #[test]
    fn too_many_ids_are_not_guessed_about() {
        let ids = EndedIds::default();
        ids.complete();
        // A span begins with a filter: spans without end are the cheapest way to the bound.
        for span in 0..=(BYTES_MAX / (FIRST_ROOM * BITS_PER_ID / 8)) as u64 {
            ids.insert(span, hash(1));
        }
        assert!(!ids.surely_lacks(hash(2)));
        ids.insert(0, hash(3));
        assert!(!ids.surely_lacks(hash(3)) && !ids.surely_lacks(hash(2)));
    }
}
