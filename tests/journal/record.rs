//! Records as bytes: every value comes back, and no bytes make the decoder fall over.

use super::support::{every_record, every_step};
use dispatchd::aligned::AlignedBuffer;
use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{
    Channel, LogEntry, Priority, Record, RefuseReason, RequestLog, RevokeReason, Step, TripOutcome,
};
use dispatchd::wire::record::{RECORD_ALIGN, RECORD_OVERHEAD_MAX, decode, encode, entry_len_max};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

fn driver() -> impl Strategy<Value = DriverId> {
    "[A-Za-z0-9._:-]{1,64}".prop_map(|text| DriverId::parse(&text).unwrap())
}

fn request() -> impl Strategy<Value = RequestId> {
    "[A-Za-z0-9._:-]{1,64}".prop_map(|text| RequestId::parse(&text).unwrap())
}

fn text() -> impl Strategy<Value = Box<str>> {
    any::<String>().prop_map(String::into_boxed_str)
}

fn channel() -> impl Strategy<Value = Channel> {
    prop_oneof![Just(Channel::WebSocket), Just(Channel::Http)]
}

fn requested() -> impl Strategy<Value = Step> {
    let priority = prop_oneof![
        Just(Priority::Premium),
        Just(Priority::Standard),
        Just(Priority::Economy)
    ];
    let numbers = (any::<u64>(), any::<u32>(), of(any::<u32>()), any::<u8>(), any::<u32>());
    let received = (priority, numbers, vec(driver(), 0..5), text()).prop_map(
        |(priority, (deadline_at_ms, offer_timeout_ms, max_attempts, parallel, busy_wait_ms), candidates, trip)| {
            Step::Received {
                priority,
                deadline_at_ms,
                offer_timeout_ms,
                max_attempts,
                parallel,
                busy_wait_ms,
                candidates,
                trip,
            }
        },
    );
    let redispatched = (vec(driver(), 0..5), of(any::<u32>()), of(any::<u8>()), of(any::<u32>())).prop_map(
        |(candidates, offer_timeout_ms, parallel, busy_wait_ms)| Step::Redispatched {
            candidates,
            offer_timeout_ms,
            parallel,
            busy_wait_ms,
        },
    );
    prop_oneof![received, redispatched]
}

fn answered() -> impl Strategy<Value = Step> {
    let refuse = prop_oneof![
        Just(RefuseReason::Offline),
        Just(RefuseReason::Offered),
        Just(RefuseReason::EnRoute),
        Just(RefuseReason::OnTrip)
    ];
    let revoke = prop_oneof![
        Just(RevokeReason::Timeout),
        Just(RevokeReason::Cancelled),
        Just(RevokeReason::Taken),
        Just(RevokeReason::Superseded)
    ];
    prop_oneof![
        (any::<u32>(), driver(), any::<u64>()).prop_map(|(attempt, driver_id, expires_at_ms)| Step::OfferSent {
            attempt,
            driver_id,
            expires_at_ms
        }),
        any::<u32>().prop_map(|attempt| Step::Delivered { attempt }),
        any::<u32>().prop_map(|attempt| Step::Acked { attempt }),
        (any::<u32>(), channel()).prop_map(|(attempt, channel)| Step::Accepted { attempt, channel }),
        (any::<u32>(), channel(), of(text())).prop_map(|(attempt, channel, reason)| Step::Declined {
            attempt,
            channel,
            reason
        }),
        any::<u32>().prop_map(|attempt| Step::TimedOut { attempt }),
        (any::<u32>(), driver(), refuse).prop_map(|(attempt, driver_id, reason)| Step::Refused {
            attempt,
            driver_id,
            reason
        }),
        (any::<u32>(), revoke).prop_map(|(attempt, reason)| Step::Revoked { attempt, reason }),
    ]
}

fn ended() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        Just(TripOutcome::Completed),
        Just(TripOutcome::CancelledByDriver),
        Just(TripOutcome::Cancelled)
    ];
    prop_oneof![
        Just(Step::Exhausted),
        (request(), any::<u64>(), driver()).prop_map(|(request, at_ms, driver_id)| Step::TripCreated {
            trip_id: TripId::for_request(&request, at_ms),
            driver_id
        }),
        Just(Step::PickedUp),
        (outcome, of(text())).prop_map(|(outcome, reason)| Step::TripEnded { outcome, reason }),
        of(text()).prop_map(|reason| Step::Cancelled { reason }),
        any::<bool>().prop_map(|by_deadline| Step::Unfulfilled { by_deadline }),
    ]
}

fn entries() -> impl Strategy<Value = Vec<LogEntry>> {
    let step = prop_oneof![requested(), answered(), ended()];
    vec(
        (any::<u64>(), step).prop_map(|(at_ms, step)| LogEntry { at_ms, step }),
        0..12,
    )
}

pub fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        (request(), any::<u32>(), entries()).prop_map(|(request_id, first_seq, entries)| Record::Steps {
            request_id,
            first_seq,
            entries
        }),
        (request(), entries()).prop_map(|(request_id, log)| Record::Image(RequestLog { request_id, log })),
        (driver(), any::<u64>()).prop_map(|(driver_id, at_ms)| Record::DriverSeen { driver_id, at_ms }),
        (driver(), any::<u64>(), any::<bool>()).prop_map(|(driver_id, at_ms, off)| Record::OffShift {
            driver_id,
            at_ms,
            off
        }),
        (request(), any::<u32>(), entries()).prop_map(|(request_id, first_seq, entries)| Record::ImageRest {
            request_id,
            first_seq,
            entries
        }),
        request().prop_map(|request_id| Record::GivenUp { request_id }),
        request().prop_map(|request_id| Record::Shared { request_id }),
    ]
}

proptest! {
    #[test]
    fn every_record_comes_back(record in record(), before in 0_usize..4) {
        let mut out = AlignedBuffer::new();
        out.resize(before * RECORD_ALIGN, 0xee);
        let len = encode(&record, &mut out).unwrap();
        prop_assert_eq!(out.len(), before * RECORD_ALIGN + len);
        let bytes = &out.as_slice()[before * RECORD_ALIGN..];
        prop_assert_eq!(&decode(bytes).unwrap(), &record);
        // Wherever the bytes lie.
        let shifted = [&[0], bytes].concat();
        prop_assert_eq!(&decode(&shifted[1..]).unwrap(), &record);
        if let Record::Steps { entries, .. }
        | Record::ImageRest { entries, .. }
        | Record::Image(RequestLog { log: entries, .. }) = &record
        {
            let bound = RECORD_OVERHEAD_MAX + entries.iter().map(entry_len_max).sum::<usize>();
            prop_assert!(len <= bound, "{} bytes, bound {}", len, bound);
        }
    }

    #[test]
    fn harmed_bytes_are_an_error_or_another_record(record in record(), at in any::<prop::sample::Index>(), mask in 1_u8..) {
        let mut out = AlignedBuffer::new();
        encode(&record, &mut out).unwrap();
        let at = at.index(out.len());
        out.as_mut_slice()[at] ^= mask;
        let _ = decode(out.as_slice());
        let _ = decode(&out.as_slice()[..at]);
    }

    #[test]
    fn any_bytes_are_an_error_or_a_record(bytes in vec(any::<u8>(), 0..400)) {
        let _ = decode(&bytes);
    }
}

/// The layout on disk: when this fails, a change to the types or to rkyv needs a new format version.
#[test]
fn the_archived_layout_is_that_of_version_1() {
    let mut out = AlignedBuffer::new();
    for record in every_record() {
        encode(&record, &mut out).unwrap();
        out.pad_to(RECORD_ALIGN);
    }
    assert_eq!(dispatchd::journal::FORMAT_VERSION, 1);
    assert_eq!((out.len(), crc32c::crc32c(out.as_slice())), (1552, 3_340_608_080));
    // A kind that came later; the ones before it lie as they did.
    let RequestLog { request_id, log } = every_step();
    out.resize(0, 0);
    let rest = Record::ImageRest {
        request_id,
        first_seq: 3,
        entries: log[2..5].to_vec(),
    };
    encode(&rest, &mut out).unwrap();
    assert_eq!((out.len(), crc32c::crc32c(out.as_slice())), (256, 3_238_959_859));
}
