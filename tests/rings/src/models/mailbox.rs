//! Post between shards that sleep when there is none.

use super::bell::Bell;
use super::check;
use crate::shard::mailbox::{Mailbox, mesh, ring_len};
use crate::shard::spsc::PLACES;
use loom::thread;
use std::collections::VecDeque;
use std::sync::Arc;

/// Wakes for what was posted, as a turn does at its end. A shard's descriptor is its index here.
fn wake(mailbox: &mut Mailbox<u32>, bells: &[Bell]) {
    for fd in mailbox.take_wakes() {
        bells[fd as usize].ring();
    }
}

/// Turns until `count` letters are there. Sleeps whenever it may, so a lost wake-up is a sleep without end.
fn serve(mailbox: &mut Mailbox<u32>, bells: &[Bell], count: usize) -> VecDeque<u32> {
    let mut letters = VecDeque::new();
    while letters.len() < count {
        if mailbox.may_sleep() {
            bells[usize::from(mailbox.index())].sleep();
            mailbox.awake();
        }
        mailbox.collect(&mut letters);
    }
    letters
}

/// Mailboxes and the bells of their shards.
fn open<const COUNT: usize>() -> ([Mailbox<u32>; COUNT], Arc<[Bell]>) {
    let boxes = mesh(COUNT as u16, ring_len(COUNT as u16));
    for (mailbox, fd) in boxes.iter().zip(0..) {
        mailbox.open(fd);
    }
    let boxes = boxes.try_into().ok().expect("as many as asked for");
    (boxes, (0..COUNT).map(|_| Bell::new()).collect())
}

/// Two letters, a turn each: both arrive, in order, and the sleeper wakes for each.
///
/// # Panics
/// When it does not hold.
pub fn wakes_for_each_letter() {
    check("two letters", Some(4), || {
        let ([mut from, mut to], bells) = open();
        let others = Arc::clone(&bells);
        let sender = thread::spawn(move || {
            for letter in 1..=2 {
                assert!(from.post(1, letter));
                wake(&mut from, &others);
            }
        });
        assert_eq!(serve(&mut to, &bells, 2), [1, 2]);
        sender.join().expect("it ends");
    });
}

/// More letters than places: the rest waits in the overflow and arrives in order, too.
///
/// # Panics
/// When it does not hold.
pub fn wakes_for_what_overflowed() {
    check("a full mailbox", Some(3), || {
        let count = PLACES as u32 + 1;
        let ([mut from, mut to], bells) = open();
        let others = Arc::clone(&bells);
        let sender = thread::spawn(move || {
            for letter in 1..=count {
                from.post(1, letter);
            }
            wake(&mut from, &others);
            while from.flush() > 0 {
                wake(&mut from, &others);
                thread::yield_now();
            }
            wake(&mut from, &others);
            assert!(!from.is_overflowing());
        });
        let letters = serve(&mut to, &bells, count as usize);
        assert!((1..=count).eq(letters));
        sender.join().expect("it ends");
    });
}

/// Two senders share the receiver's mask of mail.
///
/// # Panics
/// When it does not hold.
pub fn wakes_for_each_sender() {
    check("two senders", Some(3), || {
        let ([first, second, mut to], bells) = open();
        let senders = [first, second].map(|mut from| {
            let others = Arc::clone(&bells);
            thread::spawn(move || {
                let letter = from.index().into();
                assert!(from.post(2, letter));
                wake(&mut from, &others);
            })
        });
        let mut letters = serve(&mut to, &bells, 2);
        letters.make_contiguous().sort_unstable();
        assert_eq!(letters, [0, 1]);
        for sender in senders {
            sender.join().expect("it ends");
        }
    });
}

/// Two shards write to each other and then sleep: neither sleeps over the other's letter.
///
/// # Panics
/// When it does not hold.
pub fn wakes_on_both_sides() {
    check("two shards", Some(3), || {
        let ([mut here, mut there], bells) = open();
        let others = Arc::clone(&bells);
        let other = thread::spawn(move || {
            assert!(there.post(0, 7));
            wake(&mut there, &others);
            assert_eq!(serve(&mut there, &others, 1), [8]);
        });
        assert!(here.post(1, 8));
        wake(&mut here, &bells);
        assert_eq!(serve(&mut here, &bells, 1), [7]);
        other.join().expect("it ends");
    });
}
