//! Bounded lock-free single-producer single-consumer ring (Lamport 1983, with cached indexes as in FastForward/MCRingBuffer).
//!
//! One of these stands between every ordered pair of shards. Each side keeps a copy of the other side's index and
//! looks at the shared one only when the copy says "full" or "empty", so a steady stream costs one cache line
//! transfer per batch.
#![allow(unsafe_code)]

use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, UnsafeCell};
use std::mem::MaybeUninit;

/// Keeps the indexes of the two sides on cache lines of their own (two lines: the prefetcher takes pairs).
#[repr(align(128))]
struct Padded(AtomicUsize);

struct Shared<T> {
    /// Next place to read; written by the consumer.
    head: Padded,
    /// Next place to write; written by the producer.
    tail: Padded,
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: a slot is touched by the producer only while it lies in `[tail, head + capacity)` and by the consumer only
// while it lies in `[head, tail)`; the indexes are handed over with release/acquire, so no slot is shared.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: the slots own their values, which are `Send`.
unsafe impl<T: Send> Send for Shared<T> {}

/// The writing side.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    head_seen: usize,
}

/// The reading side.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    tail_seen: usize,
}

/// A ring of `capacity` places.
///
/// # Panics
/// When `capacity` is not a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity.is_power_of_two());
    let slots = (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        slots,
    });
    (
        Producer {
            shared: Arc::clone(&shared),
            tail: 0,
            head_seen: 0,
        },
        Consumer {
            shared,
            head: 0,
            tail_seen: 0,
        },
    )
}

impl<T: Send> Producer<T> {
    /// Appends `item`.
    ///
    /// # Errors
    /// Gives it back when the ring is full.
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let capacity = self.shared.slots.len();
        if self.tail.wrapping_sub(self.head_seen) == capacity {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.head_seen) == capacity {
                return Err(item);
            }
        }
        debug_assert!(self.tail.wrapping_sub(self.head_seen) < capacity);
        let slot = &self.shared.slots[self.tail & (capacity - 1)];
        // SAFETY: the slot lies in `[tail, head + capacity)`: the consumer is done with it, and this is the only producer.
        slot.with_mut(|slot| unsafe { (*slot).write(item) });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest item.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        let slot = &self.shared.slots[self.head & (self.shared.slots.len() - 1)];
        // SAFETY: the slot lies in `[head, tail)`: it was written before `tail` was released, and this is the only consumer.
        let item = slot.with(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(item)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // The last owner sees all that the other one did: dropping the `Arc` orders it.
        let (mut head, tail) = (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        while head != tail {
            let index = head & (self.slots.len() - 1);
            // SAFETY: both sides are gone, and `[head, tail)` holds values that nobody took.
            self.slots[index].with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_in_order() {
        let (mut producer, mut consumer) = ring(4);
        for item in 0..4 {
            producer.push(item).unwrap();
        }
        assert_eq!(producer.push(4), Err(4));
        assert_eq!(
            (0..5).map_while(|_| consumer.pop()).collect::<Vec<_>>(),
            vec![0, 1, 2, 3]
        );
        producer.push(5).unwrap();
        assert_eq!(consumer.pop(), Some(5));
        assert_eq!(consumer.pop(), None);
    }

    #[test]
    fn drops_what_nobody_took() {
        let item = Arc::new(());
        let (mut producer, mut consumer) = ring(8);
        for _ in 0..5 {
            producer.push(Arc::clone(&item)).unwrap();
        }
        drop(consumer.pop());
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&item), 1);
    }

    #[test]
    fn between_threads() {
        let (mut producer, mut consumer) = ring(64);
        let count = 200_000u64;
        let writer = std::thread::spawn(move || {
            for item in 0..count {
                let mut item = Box::new(item);
                while let Err(back) = producer.push(item) {
                    item = back;
                    std::thread::yield_now();
                }
            }
        });
        let mut expect = 0;
        while expect < count {
            match consumer.pop() {
                Some(item) => {
                    assert_eq!(*item, expect);
                    expect += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        writer.join().unwrap();
        assert!(consumer.pop().is_none());
    }
}
