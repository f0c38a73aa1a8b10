use super::*;
use crate::fsm::fold::{Outcome, TripPhase};
use crate::fsm::request::{Answer, Asker, Resumed};
use crate::fsm::types::{Priority, RefuseReason, RevokeReason, TripOutcome};
use crate::wire::respond::Problem;
use std::sync::Arc;

fn driver() -> DriverId {
    DriverId::parse("driver-1").unwrap()
}

fn request() -> RequestId {
    RequestId::parse("a-request-whose-name-needs-the-heap").unwrap()
}

fn reply() -> ReplyTo {
    ReplyTo {
        node: 3,
        shard: 1,
        call: 1 << 63 | 7,
    }
}

fn letters() -> Vec<LinkLetter> {
    let trip_id = TripId::for_request(&request(), 77);
    let to_driver = |message| LinkLetter::ToDriver {
        driver_id: driver(),
        session: 9,
        request_id: request(),
        message,
    };
    [
        to_driver(ToDriver::Offer {
            attempt: 2,
            priority: Priority::Premium,
            expires_at_ms: 5,
            trip: Arc::from(r#"{"from":"a"}"#),
            resumed: Resumed::Sent,
        }),
        to_driver(ToDriver::Accept {
            attempt: 1,
            asker: Asker::Api(reply()),
        }),
        to_driver(ToDriver::Bound {
            attempt: 1,
            trip_id: trip_id.clone(),
            phase: TripPhase::OnTrip,
        }),
        LinkLetter::Bounced {
            driver_id: driver(),
            request_id: request(),
            message: ToDriver::Outcome {
                attempt: 1,
                outcome: Outcome::Revoked(RevokeReason::Taken),
                trip_id: None,
                again: false,
            },
            session: 9,
            node: Some("gw-3".into()),
        },
        LinkLetter::ToRequest {
            request_id: request(),
            event: RequestEvent::Answered {
                driver_id: driver(),
                attempt: Some(1),
                answer: Answer::AcceptHeld,
                reason: Some("words".into()),
                asker: Asker::Driver,
            },
        },
        LinkLetter::TripMoved {
            trip_id,
            driver_id: driver(),
            what: TripMove::Pickup,
        },
        LinkLetter::Left {
            driver_id: driver(),
            session: 9,
            had_session: 8,
            bound: Some((request(), "gw-1".into())),
            off_shift_since_ms: 3,
        },
        LinkLetter::Reply {
            to: reply(),
            answer: Problem::overloaded(2).into_reply().into(),
        },
    ]
    .into_iter()
    .chain(of_a_drain())
    .collect()
}

fn of_a_drain() -> [LinkLetter; 3] {
    let asked = LinkLetter::HandOver {
        request_id: request(),
        received_at_ms: 7,
    };
    let answered = LinkLetter::HandedOver {
        request_id: request(),
        is_taken: true,
    };
    [LinkLetter::Leaving, asked, answered]
}

fn bytes_of(frame: &LinkFrame) -> Vec<u8> {
    let mut out = b"before".to_vec();
    let len = encode(frame, &mut out).unwrap();
    assert_eq!(out.len(), len + 6);
    out.split_off(6)
}

#[test]
fn every_letter_comes_back() {
    for (number, letter) in letters().into_iter().enumerate() {
        let seq = number as u64 + 1;
        let frame = LinkFrame::Letter { seq, letter };
        let mut bytes = bytes_of(&frame);
        let len = bytes.len();
        bytes.extend_from_slice(b"what follows");
        assert_eq!(decode(&bytes), Ok(Some((frame, len))));
    }
}

#[test]
fn a_frame_in_pieces_is_one_that_is_awaited() {
    let bytes = bytes_of(&LinkFrame::Hello {
        fleet: "dispatchd".into(),
        node_id: "gw-1".into(),
        incarnation: 4,
        to: "gw-2".into(),
        first: 1,
    });
    for end in 0..bytes.len() {
        assert_eq!(decode(&bytes[..end]), Ok(None), "{end} bytes");
    }
}

/// Each bit of a frame counts.
#[test]
fn harm_is_seen() {
    let frame = LinkFrame::Letter {
        seq: 1,
        letter: letters().remove(0),
    };
    let bytes = bytes_of(&frame);
    for bit in 0..bytes.len() * 8 {
        let mut harmed = bytes.clone();
        harmed[bit / 8] ^= 1 << (bit % 8);
        match decode(&harmed) {
            Err(_) => {}
            // A length that grew is one that is awaited.
            Ok(None) => assert!(bit < 32, "bit {bit}"),
            Ok(Some(found)) => panic!("bit {bit}: {found:?}"),
        }
    }
}

#[test]
fn what_is_no_frame_is_told_apart() {
    let check = |change: &dyn Fn(&mut Vec<u8>), expect: LinkError| {
        let mut bytes = bytes_of(&LinkFrame::Ping);
        change(&mut bytes);
        assert_eq!(decode(&bytes), Err(expect));
    };
    check(&|bytes| bytes[8] = 9, LinkError::Version(9));
    check(&|bytes| bytes[..4].fill(0), LinkError::Length(0));
    check(&|bytes| bytes[..4].fill(0xff), LinkError::Length(u32::MAX as usize));
    check(&|bytes| bytes[15] = 1, LinkError::Checksum);
    // A right checksum over something else than a frame.
    let mut bytes = vec![0; HEADER_LEN];
    bytes[0] = 8;
    bytes[8] = LINK_VERSION;
    bytes.extend_from_slice(&[0xa5; 8]);
    let checksum = crc32c::crc32c(&bytes[8..]);
    bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
    assert!(matches!(decode(&bytes), Err(LinkError::Payload(_))));
}

#[test]
fn a_frame_that_is_too_long_is_not_sent() {
    let answer = LinkReply {
        status: 200,
        content_type: JSON.into(),
        retry_after: None,
        body: vec![b'1'; PAYLOAD_LEN_MAX],
    };
    let frame = LinkFrame::Letter {
        seq: 1,
        letter: LinkLetter::Reply { to: reply(), answer },
    };
    let mut out = vec![7];
    assert!(matches!(encode(&frame, &mut out), Err(LinkError::Length(_))));
    assert_eq!(out, [7]);
}

#[test]
fn an_answer_arrives_as_it_was_given() {
    for answer in [
        Problem::overloaded(2).into_reply(),
        Reply::json(200, b"{}".to_vec()),
        Problem::no_such_offer().into_reply(),
    ] {
        assert_eq!(LinkReply::from(answer.clone()).into_reply(), Some(answer));
    }
    let mut other = LinkReply::from(Reply::json(200, Vec::new()));
    other.content_type = "text/html".into();
    assert_eq!(other.clone().into_reply(), None);
    other.content_type = JSON.into();
    other.status = 99;
    assert_eq!(other.into_reply(), None);
}

#[test]
fn addresses_of_callers_are_found() {
    for mut letter in letters() {
        if let Some(waits) = letter.reply() {
            assert_eq!(letter.replies_mut().map(|reply| *reply), Some(waits));
        }
    }
    let mut accept = letters().remove(1);
    accept.replies_mut().unwrap().node = 0;
    let LinkLetter::ToDriver {
        message: ToDriver::Accept {
            asker: Asker::Api(found),
            ..
        },
        ..
    } = accept
    else {
        panic!("{accept:?}")
    };
    assert_eq!(found.node, 0);
}

/// An id that was never parsed, as the bytes of a frame may have it.
fn forged<T>(id: &str) -> T
where
    T: rkyv::Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, Error>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<Error>>,
{
    let bytes = rkyv::to_bytes::<Error>(&CompactString::from(id)).unwrap();
    rkyv::from_bytes(&bytes).unwrap()
}

#[test]
fn what_nodes_say_is_taken() {
    for letter in letters() {
        assert_eq!(letter.check(), Ok(()), "{letter:?}");
    }
    for event in [
        RequestEvent::TripMoved {
            driver_id: driver(),
            trip_id: TripId::for_request(&request(), 1),
            what: TripMove::Complete,
        },
        RequestEvent::TripCancelled {
            reason: Some("é".repeat(256).into()),
            reply: reply(),
        },
    ] {
        let request_id = request();
        let letter = LinkLetter::ToRequest { request_id, event };
        assert_eq!(letter.check(), Ok(()), "{letter:?}");
    }
}

#[test]
fn what_no_node_says_to_a_driver_is_none() {
    let check = |message: ToDriver, expect: &str| {
        let to_driver = LinkLetter::ToDriver {
            driver_id: driver(),
            session: 1,
            request_id: request(),
            message: message.clone(),
        };
        let bounced = LinkLetter::Bounced {
            driver_id: driver(),
            request_id: request(),
            message,
            session: 1,
            node: None,
        };
        for letter in [to_driver, bounced] {
            match letter.check() {
                Err(LinkError::Letter(why)) => assert!(why.contains(expect), "{letter:?}: {why}"),
                other => panic!("{letter:?}: {other:?}"),
            }
        }
    };
    let outcome = |attempt, outcome, trip_id| ToDriver::Outcome {
        attempt,
        outcome,
        trip_id,
        again: true,
    };
    let trip_id = || TripId::for_request(&request(), 1);
    check(outcome(1, Outcome::Open, None), "no driver hears");
    check(
        outcome(1, Outcome::Refused(RefuseReason::Offline), None),
        "no driver hears",
    );
    check(outcome(1, Outcome::Accepted, None), "without an id");
    check(outcome(1, Outcome::Accepted, Some(forged("t 1"))), "an id");
    check(outcome(1, Outcome::TimedOut, Some(trip_id())), "who has none");
    check(outcome(0, Outcome::TimedOut, None), "attempt 0");
    let offer = |attempt, expires_at_ms, trip: &str| ToDriver::Offer {
        attempt,
        priority: Priority::Standard,
        expires_at_ms,
        trip: Arc::from(trip),
        resumed: Resumed::No,
    };
    check(offer(0, 1, "{}"), "attempt 0");
    check(offer(1, u64::MAX, "{}"), "no clock");
    check(offer(1, 1, "[]"), "no object");
    check(offer(1, 1, &format!("{{{}}}", " ".repeat(16 << 10))), "no frame");
    let (attempt, asker) = (1, Asker::Api(ReplyTo { call: 3, ..reply() }));
    check(ToDriver::Accept { attempt, asker }, "not passed on");
    let reason = Some("é".repeat(257).into());
    check(ToDriver::Decline { attempt, reason }, "words");
    let phase = TripPhase::Ended(TripOutcome::Completed);
    let trip_id = trip_id();
    check(
        ToDriver::Bound {
            attempt,
            trip_id,
            phase,
        },
        "is over",
    );
}

#[test]
fn what_no_node_says_of_a_request_is_none() {
    let check = |letter: LinkLetter, expect: &str| match letter.check() {
        Err(LinkError::Letter(why)) => assert!(why.contains(expect), "{letter:?}: {why}"),
        other => panic!("{letter:?}: {other:?}"),
    };
    let event = |event| LinkLetter::ToRequest {
        request_id: request(),
        event,
    };
    let offer = OfferRequest {
        request_id: request(),
        candidates: vec![driver()],
        priority: Priority::Standard,
        offer_timeout_ms: None,
        deadline_ms: None,
        max_attempts: None,
        parallel: Some(1),
        busy_wait_ms: None,
        trip: "{}".into(),
    };
    let posted = |change: &dyn Fn(&mut OfferRequest)| {
        let mut offer = Box::new(offer.clone());
        change(&mut offer);
        LinkLetter::Offer { offer, reply: reply() }
    };
    assert_eq!(posted(&|_| ()).check(), Ok(()));
    check(posted(&|offer| offer.candidates.clear()), "candidates");
    check(posted(&|offer| offer.candidates.push(driver())), "twice");
    check(posted(&|offer| offer.candidates.push(forged(""))), "an id");
    check(posted(&|offer| offer.parallel = Some(11)), "a number");
    check(posted(&|offer| offer.max_attempts = Some(0)), "a number");
    check(posted(&|offer| offer.trip = "1".into()), "no object");
    check(event(RequestEvent::Timer), "timer");
    let (again, reply) = (Box::new(offer.clone()), reply());
    check(event(RequestEvent::Reposted { offer: again, reply }), "no offer");
    let delivered = |attempt, driver_id| event(RequestEvent::Delivered { attempt, driver_id });
    check(delivered(0, driver()), "attempt 0");
    check(delivered(1, forged("driver/1")), "an id");
    check(
        LinkLetter::Moved {
            driver_id: forged(&"d".repeat(65)),
            session: 1,
        },
        "an id",
    );
    check(
        LinkLetter::Moved {
            driver_id: driver(),
            session: u64::MAX,
        },
        "session",
    );
    check(
        LinkLetter::HandOver {
            request_id: request(),
            received_at_ms: u64::MAX,
        },
        "no clock",
    );
    check(
        LinkLetter::Left {
            driver_id: driver(),
            session: 9,
            had_session: 8,
            bound: Some((request(), CompactString::default())),
            off_shift_since_ms: 0,
        },
        "an id",
    );
}
