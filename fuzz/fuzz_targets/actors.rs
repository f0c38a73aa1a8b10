//! Histories of a small world, as `tests/fsm/random` plays and judges them: the same world, the same invariants, but what
//! happens is chosen by what reached code that nothing reached before.
#![no_main]

mod random;
#[path = "../../tests/fsm/world/mod.rs"]
#[allow(dead_code, unused_imports, reason = "transcripts are shown elsewhere")]
mod world;

use arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use random::act::{Act, DRIVERS, Post, REQUESTS};
use random::rest::Run;

/// Steps of a history, at most.
const ACTS_MAX: usize = 160;

fn post(u: &mut Unstructured<'_>) -> Result<Post> {
    Ok(Post {
        request: u.int_in_range(0..=REQUESTS - 1)?,
        candidates: u.int_in_range(1..=63)?,
        priority: u.int_in_range(0..=2)?,
        parallel: u.int_in_range(1..=3)?,
        busy_wait_ms: if u.arbitrary()? { u.int_in_range(1..=1_999)? } else { 0 },
        max_attempts: if u.ratio(1, 4)? {
            Some(u.int_in_range(1..=3)?)
        } else {
            None
        },
        deadline_ms: if u.ratio(1, 4)? {
            u.int_in_range(1..=1_499)?
        } else {
            u.int_in_range(5_000..=19_999)?
        },
    })
}

fn act(u: &mut Unstructured<'_>, ends: bool) -> Result<Act> {
    let what = u.int_in_range(0..=31_u8)?;
    let driver = |u: &mut Unstructured<'_>| u.int_in_range(0..=DRIVERS - 1);
    let request = |u: &mut Unstructured<'_>| u.int_in_range(0..=REQUESTS - 1);
    Ok(match what {
        0 => Act::Cancel(request(u)?),
        1 => Act::EndTrip(request(u)?),
        2 => Act::Disconnect(driver(u)?),
        3 => Act::Written(driver(u)?),
        4 => Act::Heard(driver(u)?),
        5 => Act::Ack(driver(u)?),
        6 => Act::Guess {
            driver: driver(u)?,
            request: request(u)?,
            attempt: u.int_in_range(1..=3)?,
            what: u.int_in_range(0..=2)?,
        },
        7 => Act::Shift {
            driver: driver(u)?,
            available: u.arbitrary()?,
        },
        8 | 9 => Act::Trip {
            driver: driver(u)?,
            request: request(u)?,
            what: u.int_in_range(0..=3)?,
        },
        10 if ends => Act::Fence(request(u)?),
        11 if ends => Act::Crash {
            survivors: u.arbitrary()?,
            order: u.arbitrary()?,
        },
        10..=12 => Act::Settle,
        13 => Act::Respond {
            request: request(u)?,
            driver: driver(u)?,
            attempt: if u.arbitrary()? {
                Some(u.int_in_range(1..=3)?)
            } else {
                None
            },
            accept: u.arbitrary()?,
        },
        14 => Act::Pass(u.int_in_range(0..=7_999)?),
        15 => Act::Pass(u.int_in_range(0..=2)?),
        16 | 17 => Act::Answer {
            driver: driver(u)?,
            accept: u.arbitrary()?,
        },
        18 | 19 => Act::Connect(driver(u)?),
        20..=22 => Act::Post(post(u)?),
        23 => Act::Fire(u.arbitrary()?),
        24..=26 => Act::Commit(u.arbitrary()?),
        _ => Act::Deliver(u.arbitrary()?),
    })
}

fn history(u: &mut Unstructured<'_>, ends: bool) -> Result<Vec<Act>> {
    let mut acts = Vec::new();
    while !u.is_empty() && acts.len() < ACTS_MAX {
        acts.push(act(u, ends)?);
    }
    Ok(acts)
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    // Without crashes and fences every call is answered.
    let ends = first % 2 == 0;
    let Ok(acts) = history(&mut Unstructured::new(rest), ends) else {
        return;
    };
    let mut run = Run::new();
    acts.iter().for_each(|act| run.play(act));
    run.come_to_rest();
    assert!(ends || run.unanswered() == 0, "a call without an answer");
});
