//! The timer wheel at its real size. What it costs is printed (`cargo test --release --test fsm wheel -- --nocapture`)
//! and not asserted: a test does not know its machine.

use dispatchd::fsm::wheel::{SLOTS, TICK_MS, TimerId, Wheel};
use std::time::{Duration, Instant};

const TIMERS: u64 = 1_000_000;
/// Two heartbeats of 30 s, as the timers of a million drivers.
const SPREAD_MS: u64 = 60_000;

/// When timer `owner` of a million is due: spread over the whole time, in no order.
fn due_ms(owner: u64) -> u64 {
    owner.wrapping_mul(0x9e37_79b9_7f4a_7c15) % SPREAD_MS
}

fn print(what: &str, count: u64, took: Duration) {
    println!("{what:<32} {:>7.1} ns", took.as_nanos() as f64 / count as f64);
}

#[test]
fn a_million_timers_are_armed_cancelled_and_fired() {
    let mut wheel = Wheel::new(0);
    let begun = Instant::now();
    let mut timers: Vec<TimerId> = (0..TIMERS).map(|owner| wheel.arm(due_ms(owner), owner)).collect();
    print("arm", TIMERS, begun.elapsed());
    assert_eq!(wheel.len() as u64, TIMERS);
    let bytes = wheel.bytes() as u64;
    assert!(bytes < TIMERS * 25, "{bytes} bytes for a million timers");

    // What an `ACCEPT` in time does to the timer of its offer, and the next offer after it.
    let begun = Instant::now();
    for owner in (0..TIMERS).step_by(2) {
        wheel.cancel(timers[owner as usize]);
        timers[owner as usize] = wheel.arm(due_ms(owner) + 1_000, owner);
    }
    print("cancel and arm again", TIMERS / 2, begun.elapsed());
    for owner in (0..TIMERS).step_by(4) {
        wheel.cancel(timers[owner as usize]);
    }
    assert_eq!(wheel.len() as u64, TIMERS * 3 / 4);
    assert_eq!(wheel.bytes() as u64, bytes, "cancelled timers are used again");

    let (mut fired, mut count, mut turns) = (Vec::new(), 0, 0);
    let begun = Instant::now();
    while let Some(now_ms) = wheel.next_ms() {
        wheel.advance(now_ms, &mut fired);
        for owner in fired.drain(..) {
            let at_ms = due_ms(owner) + if owner % 4 == 2 { 1_000 } else { 0 };
            let at_ms = at_ms.max(TICK_MS);
            assert!(
                (at_ms..at_ms + TICK_MS).contains(&now_ms),
                "timer {owner} of {at_ms} fires at {now_ms}"
            );
            assert_ne!(owner % 4, 0, "timer {owner} was cancelled");
            count += 1;
        }
        turns += 1;
    }
    print("fire", count, begun.elapsed());
    assert_eq!(count, TIMERS * 3 / 4);
    assert!(turns <= SLOTS, "{turns} wakes for {SLOTS} slots");
    assert!(wheel.is_empty());
}

/// Heartbeats: every timer fires about when it is due and is armed again, for one more round.
#[test]
fn a_million_heartbeats_go_round() {
    let mut wheel = Wheel::new(0);
    for owner in 0..TIMERS {
        wheel.arm(due_ms(owner), owner);
    }
    let bytes = wheel.bytes();
    let (mut fired, mut count) = (Vec::new(), 0);
    let begun = Instant::now();
    for now_ms in (0..=SPREAD_MS + TICK_MS).step_by(100) {
        wheel.advance(now_ms, &mut fired);
        for owner in fired.drain(..) {
            wheel.arm(now_ms + SPREAD_MS, owner);
            count += 1;
        }
    }
    print("fire and arm again", count, begun.elapsed());
    assert!(count >= TIMERS, "each fires at least once");
    assert_eq!((wheel.len() as u64, wheel.bytes()), (TIMERS, bytes));
}

/// A node may run for years: 32 bits of ticks would end after 198 days.
#[test]
fn time_does_not_run_out() {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    let mut wheel = Wheel::new(1_700_000_000_000);
    let now_ms = 1_700_000_000_000 + 3 * YEAR_MS;
    let far = wheel.arm(now_ms + YEAR_MS, 1);
    let mut fired = Vec::new();
    wheel.advance(now_ms, &mut fired);
    wheel.arm(now_ms + 10, 2);
    wheel.advance(now_ms + 10 + TICK_MS, &mut fired);
    assert_eq!(fired, [2]);
    wheel.cancel(far);
    assert_eq!(wheel.next_ms(), None);
}

/// The next time to wake is exact within a turn: a slot that is empty again wakes nobody.
#[test]
fn nobody_wakes_for_nothing() {
    let mut wheel = Wheel::new(0);
    let soon = wheel.arm(100, 1);
    wheel.arm(200, 2);
    wheel.arm(4_000, 3);
    assert_eq!(wheel.next_ms(), Some(100));
    wheel.cancel(soon);
    assert_eq!(wheel.next_ms(), Some(200));
    let mut fired = Vec::new();
    wheel.advance(200, &mut fired);
    assert_eq!((fired.as_slice(), wheel.next_ms()), ([2].as_slice(), Some(4_000)));
}

/// The memory account: a slot's head and its bit, and pages of 1,024 nodes of 24 bytes as they are needed.
#[test]
fn bytes_are_those_of_slots_and_pages() {
    let mut wheel = Wheel::new(0);
    let slots_bytes = SLOTS * 4 + SLOTS / 8;
    assert!(wheel.is_empty());
    assert_eq!(wheel.bytes(), slots_bytes);
    let first = wheel.arm(TICK_MS, 1);
    assert!(!wheel.is_empty());
    assert_eq!((wheel.len(), wheel.bytes()), (1, slots_bytes + 1_024 * 24));
    for owner in 2..=1_025 {
        wheel.arm(owner * TICK_MS, owner);
    }
    assert_eq!((wheel.len(), wheel.bytes()), (1_025, slots_bytes + 2 * 1_024 * 24));
    wheel.cancel(first);
    assert_eq!(wheel.len(), 1_024);
}
