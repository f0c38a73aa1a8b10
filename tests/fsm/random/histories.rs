//! Histories of any kind, as proptest draws them.

use super::act::{Act, DRIVERS, History, Post, REQUESTS};
use proptest::collection::vec;
use proptest::prelude::*;

/// Steps of a history, at most.
const ACTS_MAX: usize = 160;

fn post() -> impl Strategy<Value = Post> {
    (
        0..REQUESTS,
        1u8..64,
        0u8..3,
        1u8..4,
        prop_oneof![Just(0u16), Just(0u16), 1u16..2_000],
        prop_oneof![3 => Just(None), 1 => (1u8..4).prop_map(Some)],
        prop_oneof![1 => 1u16..1_500, 3 => 5_000u16..20_000],
    )
        .prop_map(
            |(request, candidates, priority, parallel, busy_wait_ms, max_attempts, deadline_ms)| Post {
                request,
                candidates,
                priority,
                parallel,
                busy_wait_ms,
                max_attempts,
                deadline_ms,
            },
        )
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        30 => any::<u8>().prop_map(Act::Deliver),
        12 => any::<u8>().prop_map(Act::Commit),
        4 => Just(Act::Settle),
        4 => prop_oneof![0u16..3, 0u16..1_200, Just(1_000u16), 1_000u16..8_000].prop_map(Act::Pass),
        8 => any::<u8>().prop_map(Act::Fire),
        10 => post().prop_map(Act::Post),
        4 => (0..REQUESTS, 0..DRIVERS, prop_oneof![Just(None), (1u8..4).prop_map(Some)], any::<bool>())
            .prop_map(|(request, driver, attempt, accept)| Act::Respond { request, driver, attempt, accept }),
        2 => (0..REQUESTS).prop_map(Act::Cancel),
        1 => (0..REQUESTS).prop_map(Act::EndTrip),
        6 => (0..DRIVERS).prop_map(Act::Connect),
        2 => (0..DRIVERS).prop_map(Act::Disconnect),
        3 => (0..DRIVERS).prop_map(Act::Written),
        3 => (0..DRIVERS).prop_map(Act::Heard),
        8 => (0..DRIVERS, any::<bool>()).prop_map(|(driver, accept)| Act::Answer { driver, accept }),
        2 => (0..DRIVERS).prop_map(Act::Ack),
        3 => (0..DRIVERS, 0..REQUESTS, 1u8..4, 0u8..3)
            .prop_map(|(driver, request, attempt, what)| Act::Guess { driver, request, attempt, what }),
        3 => (0..DRIVERS, any::<bool>()).prop_map(|(driver, available)| Act::Shift { driver, available }),
        4 => (0..DRIVERS, 0..REQUESTS, 0u8..4)
            .prop_map(|(driver, request, what)| Act::Trip { driver, request, what }),
        1 => (0..REQUESTS).prop_map(Act::Fence),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(survivors, order)| Act::Crash { survivors, order }),
    ]
}

/// Requests of a crowd.
const CROWD: u8 = 8;

/// Many requests for two drivers who decline one after the other: the queues of drivers.
pub fn crowds() -> impl Strategy<Value = History> {
    let post = (0..CROWD, 1u8..4, 0u8..3, 500u16..4_000).prop_map(|(request, candidates, priority, busy_wait_ms)| {
        Act::Post(Post {
            request,
            candidates,
            priority,
            parallel: 1,
            busy_wait_ms,
            max_attempts: None,
            deadline_ms: 20_000,
        })
    });
    let act = prop_oneof![
        6 => post,
        4 => (0u8..2).prop_map(|driver| Act::Answer { driver, accept: false }),
        1 => (0..CROWD).prop_map(Act::Cancel),
        4 => (0u16..600).prop_map(Act::Pass),
        8 => Just(Act::Settle),
        4 => any::<u8>().prop_map(Act::Deliver),
    ];
    let begin = [Act::Connect(0), Act::Connect(1)];
    vec(act, 1..ACTS_MAX).prop_map(move |acts| History([&begin[..], &acts].concat()))
}

/// A history; `with_ends`: with crashes and fences.
pub fn histories(with_ends: bool) -> impl Strategy<Value = History> {
    let ends = |act: &Act| matches!(act, Act::Fence(_) | Act::Crash { .. });
    let keep = move |act: Act| if with_ends || !ends(&act) { act } else { Act::Settle };
    vec(act().prop_map(keep), 1..ACTS_MAX).prop_map(History)
}
