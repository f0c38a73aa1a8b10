//! Post between shards: one SPSC ring for each ordered pair, a mask of rings that hold something, and a wake-up for
//! a shard that sleeps.
//!
//! Nothing is lost and nothing overtakes: what a full ring does not take waits in the sender's overflow, in order.
//! Overflow is bounded by what shards have in work, which admission bounds.
#![forbid(unsafe_code)]

use super::spsc::{self, Consumer, Producer};
use crate::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering, fence};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;

/// Places of one ring among `shards`: many shards have many rings, and each sees less.
pub fn ring_len(shards: u16) -> usize {
    (65_536 / usize::from(shards.max(1)))
        .next_power_of_two()
        .clamp(64, 1_024)
}

/// What the senders need to know of a receiving shard.
#[repr(align(128))]
struct Doorbell {
    /// One bit for each sender whose ring may hold something.
    mail: Box<[AtomicU64]>,
    /// The shard sleeps, or is about to, and wants to be woken.
    sleeping: AtomicBool,
    /// Its net ring; −1 until it runs.
    ring_fd: AtomicI32,
}

/// One shard's end of all rings.
pub struct Mailbox<T> {
    index: u16,
    doorbells: Arc<[Doorbell]>,
    to: Vec<Option<Producer<T>>>,
    from: Vec<Option<Consumer<T>>>,
    overflow: Vec<VecDeque<T>>,
    overflowing: usize,
    to_wake: Vec<RawFd>,
}

/// The mailboxes of `shards` shards, in their order; every ring between two has `ring_len` places.
///
/// # Panics
/// When `ring_len` is no power of two.
pub fn mesh<T: Send>(shards: u16, ring_len: usize) -> Vec<Mailbox<T>> {
    let count = usize::from(shards);
    let doorbells: Arc<[Doorbell]> = (0..count)
        .map(|_| Doorbell {
            mail: (0..count.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            sleeping: AtomicBool::new(false),
            ring_fd: AtomicI32::new(-1),
        })
        .collect();
    let mut boxes: Vec<_> = (0..shards)
        .map(|index| Mailbox {
            index,
            doorbells: Arc::clone(&doorbells),
            to: (0..count).map(|_| None).collect(),
            from: (0..count).map(|_| None).collect(),
            overflow: (0..count).map(|_| VecDeque::new()).collect(),
            overflowing: 0,
            to_wake: Vec::new(),
        })
        .collect();
    for sender in 0..count {
        for receiver in (0..count).filter(|receiver| *receiver != sender) {
            let (producer, consumer) = spsc::ring(ring_len);
            boxes[sender].to[receiver] = Some(producer);
            boxes[receiver].from[sender] = Some(consumer);
        }
    }
    boxes
}

impl<T: Send> Mailbox<T> {
    /// This shard.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Says where this shard can be woken.
    pub fn open(&self, ring_fd: RawFd) {
        self.doorbells[usize::from(self.index)]
            .ring_fd
            .store(ring_fd, Ordering::Release);
    }

    /// The net ring of another shard; `None` while that does not run.
    pub fn ring_fd(&self, shard: u16) -> Option<RawFd> {
        let fd = self.doorbells[usize::from(shard)].ring_fd.load(Ordering::Acquire);
        (fd >= 0).then_some(fd)
    }

    /// Posts a letter to another shard; it is taken there in its next turn. False: the ring is full, and the letter
    /// waits here for room.
    pub fn post(&mut self, to: u16, letter: T) -> bool {
        assert_ne!(to, self.index, "a shard keeps its own letters");
        let receiver = usize::from(to);
        if !self.overflow[receiver].is_empty() {
            self.overflow[receiver].push_back(letter);
            return false;
        }
        match self.to[receiver]
            .as_mut()
            .expect("a ring to every other shard")
            .push(letter)
        {
            Ok(()) => {
                self.ring_bell(receiver);
                true
            }
            Err(letter) => {
                self.overflow[receiver].push_back(letter);
                self.overflowing += 1;
                self.ring_bell(receiver);
                false
            }
        }
    }

    /// Retries what full rings did not take; returns how many letters still wait.
    pub fn flush(&mut self) -> usize {
        if self.overflowing == 0 {
            return 0;
        }
        let mut waiting = 0;
        for receiver in 0..self.overflow.len() {
            let before = self.overflow[receiver].len();
            while let Some(letter) = self.overflow[receiver].pop_front() {
                if let Err(letter) = self.to[receiver]
                    .as_mut()
                    .expect("a ring to every other shard")
                    .push(letter)
                {
                    self.overflow[receiver].push_front(letter);
                    break;
                }
            }
            let left = self.overflow[receiver].len();
            waiting += left;
            if before > 0 {
                self.ring_bell(receiver);
                self.overflowing -= usize::from(left == 0);
            }
        }
        waiting
    }

    /// Whether something has arrived that [`Self::collect`] has not taken.
    pub fn has_letters(&self) -> bool {
        let bell = &self.doorbells[usize::from(self.index)];
        bell.mail.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Takes everything that has arrived.
    pub fn collect(&mut self, letters: &mut VecDeque<T>) {
        let bell = &self.doorbells[usize::from(self.index)];
        for (word_index, word) in bell.mail.iter().enumerate() {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut bits = word.swap(0, Ordering::SeqCst);
            while bits != 0 {
                let sender = word_index * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if let Some(ring) = &mut self.from[sender] {
                    letters.extend(std::iter::from_fn(|| ring.pop()));
                }
            }
        }
    }

    /// Before going to sleep. False: something has arrived, do not sleep. True: any sender from now on wakes.
    pub fn may_sleep(&self) -> bool {
        let bell = &self.doorbells[usize::from(self.index)];
        bell.sleeping.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if bell.mail.iter().all(|word| word.load(Ordering::SeqCst) == 0) {
            return true;
        }
        bell.sleeping.store(false, Ordering::SeqCst);
        false
    }

    /// After sleeping.
    pub fn awake(&self) {
        self.doorbells[usize::from(self.index)]
            .sleeping
            .store(false, Ordering::SeqCst);
    }

    /// Whether letters wait for room in a full ring.
    pub fn is_overflowing(&self) -> bool {
        self.overflowing > 0
    }

    /// The rings to be woken for what was posted since the last call.
    pub fn take_wakes(&mut self) -> std::vec::Drain<'_, RawFd> {
        self.to_wake.drain(..)
    }

    /// The letter is in the ring before the bit is set, and the bit before `sleeping` is read; the receiver does the
    /// same in the other order (Dekker), so one of both sees the other.
    fn ring_bell(&mut self, receiver: usize) {
        let bell = &self.doorbells[receiver];
        let (word, bit) = (usize::from(self.index) / 64, 1u64 << (self.index % 64));
        bell.mail[word].fetch_or(bit, Ordering::SeqCst);
        if bell.sleeping.load(Ordering::SeqCst) && bell.sleeping.swap(false, Ordering::SeqCst) {
            let fd = bell.ring_fd.load(Ordering::Acquire);
            if fd >= 0 {
                self.to_wake.push(fd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_arrive_in_order_also_over_a_full_ring() {
        let mut boxes = mesh::<u32>(3, 64);
        let count = 64 * 3;
        for letter in 0..count {
            boxes[0].post(2, letter);
        }
        boxes[1].post(2, u32::MAX);
        let mut got = VecDeque::new();
        loop {
            boxes[2].collect(&mut got);
            if boxes[0].flush() == 0 {
                break;
            }
        }
        boxes[2].collect(&mut got);
        assert!(got.contains(&u32::MAX));
        got.retain(|letter| *letter != u32::MAX);
        assert_eq!(got, (0..count).collect::<VecDeque<_>>());
    }

    #[test]
    fn a_sleeper_is_woken_once_and_does_not_sleep_over_mail() {
        let mut boxes = mesh::<u32>(2, ring_len(2));
        boxes[1].open(77);
        assert!(boxes[1].may_sleep());
        boxes[0].post(1, 1);
        boxes[0].post(1, 2);
        assert_eq!(boxes[0].take_wakes().collect::<Vec<_>>(), vec![77]);
        boxes[1].awake();
        assert!(!boxes[1].may_sleep());
        let mut got = VecDeque::new();
        boxes[1].collect(&mut got);
        assert_eq!(got, [1, 2]);
        assert!(boxes[1].may_sleep());
    }
}
