//! What a shard needs of its ring besides sockets: wake-ups that are never lost, and file writes.

mod net_support;

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use dispatchd::aligned::AlignedBuffer;
use dispatchd::net::NetEvent;
use net_support::{LOST, Shard, pattern, small};

const ROUNDS: u32 = 10_000;

#[test]
fn a_sleeping_ring_sees_every_wake_up_of_a_thread() {
    let mut shard = Shard::new(&small());
    let waker = shard.net.waker();
    let (acknowledge, acknowledged) = mpsc::channel();
    let thread = thread::spawn(move || {
        for _ in 0..ROUNDS {
            waker.wake();
            acknowledged.recv().unwrap();
        }
    });
    for _ in 0..ROUNDS {
        shard.woken();
        acknowledge.send(()).unwrap();
    }
    thread.join().unwrap();
}

#[test]
fn a_sleep_ends_at_its_own_time_after_a_longer_one() {
    let mut shard = Shard::new(&small());
    let waker = shard.net.waker();
    for _ in 0..20 {
        // Longer than the test runs: only a wake-up ends it.
        waker.wake();
        let mut events = Vec::new();
        while events.is_empty() {
            shard.net.turn(Some(Duration::from_secs(3600)), &mut events).unwrap();
        }
        for millis in [2, 1, 3] {
            let (ended, waits) = mpsc::channel::<()>();
            let waker = shard.net.waker();
            let rescue = thread::spawn(move || {
                if waits.recv_timeout(LOST) == Err(RecvTimeoutError::Timeout) {
                    waker.wake();
                }
            });
            let begun = Instant::now();
            let mut turns = 0;
            while begun.elapsed() < Duration::from_millis(millis) {
                let mut events = Vec::new();
                shard
                    .net
                    .turn(Some(Duration::from_millis(millis)), &mut events)
                    .unwrap();
                assert!(events.is_empty(), "the sleep did not end by itself: {events:?}");
                turns += 1;
            }
            assert!(turns < 1_000, "it did not sleep");
            drop(ended);
            rescue.join().unwrap();
        }
    }
}

#[test]
fn what_was_queued_before_a_wake_up_is_seen_after_it() {
    let mut shard = Shard::new(&small());
    let (queue, queued) = mpsc::channel();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (waker, queue) = (shard.net.waker(), queue.clone());
            thread::spawn(move || {
                for number in 0..ROUNDS {
                    queue.send(number).unwrap();
                    waker.wake();
                }
            })
        })
        .collect();
    let mut seen = 0;
    while seen < 4 * ROUNDS {
        shard.woken();
        seen += queued.try_iter().count() as u32;
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn two_rings_wake_each_other() {
    let (first_sender, first_ring) = mpsc::channel();
    let (second_sender, second_ring) = mpsc::channel();
    let play = |own: mpsc::Sender<i32>, other: mpsc::Receiver<i32>, serves: bool| {
        thread::spawn(move || {
            let mut shard = Shard::new(&small());
            own.send(shard.net.ring_fd()).unwrap();
            let other_ring = other.recv().unwrap();
            for _ in 0..ROUNDS {
                if serves {
                    shard.net.wake_ring(other_ring);
                    shard.net.wake_ring(other_ring);
                }
                shard.woken();
                if !serves {
                    shard.net.wake_ring(other_ring);
                }
            }
            shard.poll();
            // Neither ring goes before the other has played its last round.
            own.send(0).unwrap();
            other.recv().unwrap();
        })
    };
    let first = play(first_sender, second_ring, true);
    let second = play(second_sender, first_ring, false);
    first.join().unwrap();
    second.join().unwrap();
}

fn direct_file(name: &str) -> (tempfile::TempDir, File) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut options = OpenOptions::new();
    options
        .create_new(true)
        .write(true)
        .read(true)
        .custom_flags(libc::O_DIRECT | libc::O_DSYNC);
    let file = options.open(dir.path().join(name)).unwrap();
    (dir, file)
}

fn buffer(seed: u64, bytes: usize) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::with_capacity(bytes);
    buffer.extend_from_slice(&pattern(seed, bytes));
    buffer
}

#[test]
fn direct_writes_reach_the_file_and_their_buffers_come_back() {
    const BYTES: usize = 16 << 10;
    let mut shard = Shard::new(&small());
    let (dir, file) = direct_file("segment");
    // More than the submission queue holds.
    for number in 0..200_u64 {
        let len = if number == 199 { 4096 } else { BYTES };
        shard.net.write_file(
            number,
            file.as_raw_fd(),
            number * BYTES as u64,
            buffer(number, BYTES),
            len,
        );
    }
    let mut tokens = Vec::new();
    while tokens.len() < 200 {
        match shard.next() {
            NetEvent::FileWritten { token, buffer, result } => {
                assert_eq!(result.unwrap(), if token == 199 { 4096 } else { BYTES });
                assert!(buffer.as_slice() == pattern(token, BYTES));
                tokens.push(token);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
    tokens.sort_unstable();
    assert_eq!(tokens, (0..200).collect::<Vec<_>>());
    let mut content = Vec::new();
    File::open(dir.path().join("segment"))
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    let expected: Vec<u8> = (0..200).flat_map(|number| pattern(number, BYTES)).collect();
    assert!(content == expected[..199 * BYTES + 4096]);
}

#[test]
fn a_failed_write_says_why_and_returns_the_buffer() {
    let mut shard = Shard::new(&small());
    let (dir, _file) = direct_file("segment");
    let read_only = File::open(dir.path().join("segment")).unwrap();
    shard.net.write_file(7, read_only.as_raw_fd(), 0, buffer(7, 4096), 4096);
    let NetEvent::FileWritten {
        token: 7,
        buffer,
        result,
    } = shard.next()
    else {
        panic!("expected the write")
    };
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(buffer.len(), 4096);
}

#[test]
fn a_dropped_ring_finishes_its_writes() {
    let (dir, file) = direct_file("segment");
    let mut shard = Shard::new(&small());
    for number in 0..8 {
        shard.net.write_file(
            number,
            file.as_raw_fd(),
            number * 65_536,
            buffer(number, 65_536),
            65_536,
        );
    }
    drop(shard);
    let mut content = Vec::new();
    File::open(dir.path().join("segment"))
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    assert!(content == (0..8).flat_map(|number| pattern(number, 65_536)).collect::<Vec<_>>());
}

#[test]
fn more_completions_than_the_queue_holds_are_all_reaped() {
    // The completion queue holds 8192; these complete while they are submitted, and nothing is reaped meanwhile.
    const WRITES: u64 = 20_000;
    let mut shard = Shard::new(&small());
    let null = OpenOptions::new().write(true).open("/dev/null").unwrap();
    for number in 0..WRITES {
        shard.net.write_file(number, null.as_raw_fd(), 0, buffer(number, 8), 8);
    }
    let mut tokens = std::collections::HashSet::new();
    while tokens.len() < WRITES as usize {
        match shard.next() {
            NetEvent::FileWritten { token, result, .. } => {
                assert_eq!(result.unwrap(), 8);
                assert!(tokens.insert(token), "write {token} is reported once");
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}
