//! The ring between two shards.

use super::check;
use crate::shard::whole_spsc::ring;
use loom::thread;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the ring took comes out once and in order, however full it is; what it did not take was given back.
///
/// # Panics
/// When it does not hold.
pub fn keeps_all_in_order() {
    check("a full ring", None, || {
        let (mut producer, mut consumer) = ring(2);
        let writer = thread::spawn(move || {
            let push = |item: &u32| match producer.push(Box::new(*item)) {
                Ok(()) => true,
                Err(back) => {
                    assert_eq!(*back, *item);
                    false
                }
            };
            (1..=4).filter(push).collect::<Vec<u32>>()
        });
        let mut got: Vec<u32> = (0..3).filter_map(|_| consumer.pop()).map(|item| *item).collect();
        let taken = writer.join().expect("it ends");
        got.extend(std::iter::from_fn(|| consumer.pop()).map(|item| *item));
        assert_eq!(got, taken);
    });
}

/// Counts how often it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whoever goes last drops what nobody took, and all of it once.
///
/// # Panics
/// When it does not hold.
pub fn drops_what_is_left() {
    check("a ring that is left", None, || {
        let drops = Arc::new(AtomicUsize::new(0));
        let (mut producer, mut consumer) = ring(2);
        let counter = Arc::clone(&drops);
        let writer = thread::spawn(move || {
            for _ in 0..3 {
                let _ = producer.push(Dropped(Arc::clone(&counter)));
            }
        });
        drop(consumer.pop());
        drop(consumer);
        writer.join().expect("it ends");
        assert_eq!(drops.load(Ordering::Relaxed), 3);
    });
}
