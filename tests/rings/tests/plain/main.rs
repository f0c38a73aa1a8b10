//! The same files on the types that the product runs with, for Miri (`tests/rings/miri`): threads that run as they happen
//! to, with less to do than in the product's own tests so that an interpreter gets through. The unit tests of these files
//! run here, too.

mod shard;
#[path = "../../../../src/sync.rs"]
#[allow(dead_code, unused_imports, reason = "not all of it matters here")]
mod sync;
#[path = "../../../../src/wake.rs"]
mod wake;

use shard::mailbox::mesh;
use shard::spsc::ring;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use wake::WakeFlag;

/// Letters of each test, and of each of two senders.
const LETTERS: u32 = 100;
const LETTERS_EACH: u32 = 10;

#[test]
fn a_small_ring_between_threads() {
    let (mut producer, mut consumer) = ring(4);
    let writer = thread::spawn(move || {
        for letter in 0..LETTERS {
            let mut letter = Box::new(letter);
            while let Err(back) = producer.push(letter) {
                letter = back;
                thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    while expected < LETTERS {
        match consumer.pop() {
            Some(letter) => {
                assert_eq!(*letter, expected);
                expected += 1;
            }
            None => thread::yield_now(),
        }
    }
    writer.join().unwrap();
}

#[test]
fn either_side_may_go_first() {
    for consumer_first in [false, true] {
        let item = Arc::new(());
        let (mut producer, mut consumer) = ring(8);
        for _ in 0..5 {
            producer.push(Arc::clone(&item)).unwrap();
        }
        drop(consumer.pop());
        if consumer_first {
            thread::spawn(move || drop(consumer)).join().unwrap();
            drop(producer);
        } else {
            thread::spawn(move || drop(producer)).join().unwrap();
            drop(consumer);
        }
        assert_eq!(Arc::strong_count(&item), 1);
    }
}

#[test]
fn mailboxes_between_threads_that_sleep() {
    let mut boxes = mesh::<Box<u32>>(2, 64);
    let (mut there, mut here) = (boxes.pop().unwrap(), boxes.pop().unwrap());
    there.open(1);
    let receiver = thread::spawn(move || {
        let (mut letters, mut expected) = (VecDeque::new(), 0);
        while expected < LETTERS {
            if there.may_sleep() {
                thread::park();
                there.awake();
            }
            there.collect(&mut letters);
            for letter in letters.drain(..) {
                assert_eq!(*letter, expected);
                expected += 1;
            }
        }
    });
    for letter in 0..LETTERS {
        here.post(1, Box::new(letter));
        while here.flush() > 0 {
            thread::yield_now();
        }
        here.take_wakes().for_each(|_| receiver.thread().unpark());
    }
    receiver.join().unwrap();
}

#[test]
fn a_flag_wakes_once_for_many() {
    let flag = Arc::new(WakeFlag::new());
    let (sender, receiver) = sync::channel::unbounded::<u32>();
    let sleeper = thread::current();
    let senders: Vec<_> = (0..2)
        .map(|_| {
            let (flag, sender, sleeper) = (Arc::clone(&flag), sender.clone(), sleeper.clone());
            thread::spawn(move || {
                for letter in 0..LETTERS_EACH {
                    sender.send(letter).unwrap();
                    if flag.raise() {
                        sleeper.unpark();
                    }
                }
            })
        })
        .collect();
    let mut heard = 0;
    while heard < 2 * LETTERS_EACH {
        flag.lower();
        let more = receiver.try_iter().count();
        heard += more as u32;
        if more == 0 {
            thread::park();
        }
    }
    for sender in senders {
        sender.join().unwrap();
    }
}
