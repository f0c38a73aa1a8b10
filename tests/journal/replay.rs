//! Merging what several boots left.

use super::support::{driver, every_step, owner, request};
use dispatchd::aligned::AlignedBuffer;
use dispatchd::fsm::types::{LogEntry, Record, RequestLog, Step};
use dispatchd::journal::{OffShift, Owner, RecoveredShard, Replay, ReplayError, Scan, Tail, image_records};
use dispatchd::wire::record::{RECORD_OVERHEAD_MAX, encode, entry_len_max};

/// The first `len` steps of a log.
fn log(len: usize) -> RequestLog {
    let whole = every_step();
    RequestLog {
        log: whole.log[..len].to_vec(),
        ..whole
    }
}

/// Steps `first..=last` of the same log, by seq.
fn steps(first: usize, last: usize) -> Record {
    let whole = every_step();
    Record::Steps {
        request_id: whole.request_id,
        first_seq: first as u32,
        entries: whole.log[first - 1..last].to_vec(),
    }
}

/// What one journal left whose first record has this number.
fn left(owner: Owner, first_lsn: u64, records: Vec<Record>) -> RecoveredShard {
    let numbered = records
        .into_iter()
        .enumerate()
        .map(|(index, record)| (first_lsn + index as u64, record));
    let scan = Scan {
        records: numbered.collect(),
        first_lsn,
        ..Scan::default()
    };
    RecoveredShard {
        incarnation: owner.incarnation,
        shard: owner.shard,
        dir: "journal".into(),
        scan,
    }
}

/// The first steps of another life of that id, which ends with its last step when there are at least two.
fn next_life(len: usize, at_ms: u64) -> Record {
    let mut entries = log(2).log;
    entries[1].step = Step::Cancelled { reason: None };
    for entry in &mut entries {
        entry.at_ms += at_ms;
    }
    entries.truncate(len);
    Record::Steps {
        request_id: every_step().request_id,
        first_seq: 1,
        entries,
    }
}

/// A log so long that its image has several parts, and those.
fn parts() -> (RequestLog, Vec<Record>) {
    let whole = every_step();
    let records = image_records(&whole, 700);
    assert!(records.len() > 2, "{records:?}");
    (whole, records)
}

fn merge(journals: &[&[Record]]) -> Result<Replay, ReplayError> {
    let shards = journals
        .iter()
        .zip(1..)
        .map(|(records, incarnation)| left(owner(incarnation, 0), 1, records.to_vec()));
    Replay::merge(shards.collect())
}

#[test]
fn logs_grow_by_what_is_new() {
    let check = |journals: &[&[Record]], len: usize| {
        let replay = merge(journals).unwrap();
        assert_eq!(replay.requests.len(), 1);
        assert_eq!(replay.requests[&every_step().request_id], log(len), "{journals:?}");
        assert!(replay.tails.is_empty());
        assert_eq!(
            replay.feed.len(),
            journals.iter().map(|records| records.len()).sum::<usize>()
        );
    };
    check(&[&[steps(1, 2)]], 2);
    check(&[&[steps(1, 2), steps(3, 3), steps(4, 9)]], 9);
    check(&[&[steps(1, 4), steps(3, 6)]], 6);
    check(&[&[steps(1, 6), steps(2, 3)]], 6);
    check(&[&[Record::Image(log(5))]], 5);
    check(&[&[steps(1, 3)], &[Record::Image(log(3)), steps(4, 5)]], 5);
    check(&[&[steps(1, 5)], &[Record::Image(log(3))]], 5);
    check(
        &[&[steps(1, 3)], &[steps(4, 5)], &[Record::Image(log(5)), steps(6, 7)]],
        7,
    );
    check(&[&[steps(1, 3)], &[Record::Image(log(8))]], 8);
}

#[test]
fn contradictions_are_errors() {
    let check = |journals: &[&[Record]], lsn: u64, expect: &str| {
        let error = merge(journals).unwrap_err();
        assert_eq!((error.lsn, error.cause.as_str()), (lsn, expect));
        assert!(error.to_string().contains("request-with-every-kind-of-step"), "{error}");
    };
    check(&[&[steps(1, 2), steps(4, 4)]], 2, "expected seq 3, found 4");
    check(&[&[steps(4, 4)]], 1, "expected seq 1, found 4");
    check(
        &[&[Record::Image(log(2))], &[steps(5, 6)]],
        1,
        "expected seq 3, found 5",
    );
    let mut other = log(3);
    other.log[2].at_ms += 1;
    check(
        &[&[steps(1, 4)], &[Record::Image(other)]],
        1,
        "seq 3 was told differently before",
    );
    // Steps that overlap what is known in their middle, and differ there.
    let Record::Steps {
        request_id,
        first_seq,
        mut entries,
    } = steps(3, 6)
    else {
        unreachable!("steps are steps")
    };
    entries[2].at_ms += 1;
    check(
        &[&[
            steps(1, 5),
            Record::Steps {
                request_id,
                first_seq,
                entries,
            },
        ]],
        2,
        "seq 5 was told differently before",
    );
    let headless = RequestLog {
        log: every_step().log[1..].to_vec(),
        ..every_step()
    };
    check(
        &[&[Record::Image(headless)]],
        1,
        "a log that does not begin with its request",
    );
    let request_id = every_step().request_id;
    check(
        &[&[Record::Steps {
            request_id: request_id.clone(),
            first_seq: 1,
            entries: vec![],
        }]],
        1,
        "a record without steps",
    );
    check(
        &[&[Record::Image(RequestLog {
            request_id,
            log: vec![],
        })]],
        1,
        "a log that does not begin with its request",
    );
}

#[test]
fn a_beginning_that_was_dropped_is_the_stores() {
    let id = every_step().request_id;
    let dropped = |records: Vec<Record>| Replay::merge(vec![left(owner(1, 0), 40, records)]).unwrap();
    let replay = dropped(vec![steps(6, 8), steps(9, 9)]);
    assert!(replay.requests.is_empty());
    assert_eq!(
        replay.tails[&id],
        Tail {
            first_seq: 6,
            entries: every_step().log[5..9].to_vec()
        }
    );
    assert_eq!(replay.feed[1].lsn, 41);
    // The image that made dropping it right comes later and has it all.
    let replay = dropped(vec![steps(6, 8), Record::Image(log(8)), steps(9, 10)]);
    assert!(replay.tails.is_empty());
    assert_eq!(replay.requests[&id], log(10));
    // Also when a later part of it comes first.
    let replay = dropped(vec![steps(6, 9), Record::Image(log(7))]);
    assert_eq!(replay.requests[&id], log(9));
    let gap = Replay::merge(vec![left(owner(1, 0), 40, vec![steps(6, 8), steps(10, 10)])]).unwrap_err();
    assert_eq!(gap.cause, "expected seq 9, found 10");
}

#[test]
fn a_tail_waits_until_the_parts_of_an_image_reach_it() {
    let (whole, parts) = parts();
    let len = whole.log.len();
    let tail = steps(len - 1, len);
    let dropped = |records: Vec<Record>| Replay::merge(vec![left(owner(1, 0), 40, records)]);
    let check = |parts: &[Record]| {
        let replay = dropped([std::slice::from_ref(&tail), parts].concat()).unwrap();
        assert!(replay.tails.is_empty());
        assert_eq!(replay.requests[&whole.request_id], whole);
    };
    check(&parts);
    // As journals had it before `ImageRest`.
    let as_steps: Vec<Record> = parts.iter().cloned().map(with_steps).collect();
    check(&as_steps);
    // The image before: its beginning was dropped, the rest is a tail like any other.
    let replay = dropped(parts[1..].to_vec()).unwrap();
    assert_eq!(replay.tails[&whole.request_id].first_seq, first_seq(&parts[1]));
    let again = dropped([&parts[1..], &parts].concat()).unwrap();
    assert_eq!(again.requests[&whole.request_id], whole);
    // Parts that never reach it are a gap, and the last of them is named.
    let short = dropped(vec![tail, parts[0].clone()]).unwrap_err();
    assert_eq!(short.lsn, 41);
    let cause = format!("expected seq {}, found {}", first_seq(&parts[1]), len - 1);
    assert_eq!(short.cause, cause);
    let torn = merge(&[&[parts[0].clone(), parts[2].clone()]]).unwrap_err();
    assert_eq!(torn.lsn, 2);
    let request_id = whole.request_id.clone();
    let headless = Record::ImageRest {
        request_id,
        first_seq: 1,
        entries: whole.log.clone(),
    };
    let headless = merge(&[&[headless]]).unwrap_err();
    assert_eq!(headless.cause, "the rest of an image without its beginning");
}

/// A crash cut an image short, and the journal before still has the rest as a tail: nothing may lie between the two.
#[test]
fn a_tail_right_after_an_image_belongs_to_it() {
    let mut whole = log(4);
    // All in one millisecond, as a driver's home that refuses at once makes it.
    let at_ms = whole.log[0].at_ms;
    for entry in &mut whole.log {
        entry.at_ms = at_ms;
    }
    let request_id = whole.request_id.clone();
    let image = |len: usize| {
        Record::Image(RequestLog {
            request_id: request_id.clone(),
            log: whole.log[..len].to_vec(),
        })
    };
    let check = |image_len: usize, tail_from: usize| {
        let tail = Record::Steps {
            request_id: request_id.clone(),
            first_seq: tail_from as u32 + 1,
            entries: whole.log[tail_from..].to_vec(),
        };
        let journals = vec![
            left(owner(1, 0), 40, vec![tail]),
            left(owner(2, 0), 1, vec![image(image_len)]),
        ];
        let replay = Replay::merge(journals).unwrap();
        assert!(replay.tails.is_empty());
        assert_eq!(
            replay.requests[&request_id], whole,
            "image of {image_len}, tail from {tail_from}"
        );
    };
    check(2, 2);
    check(3, 2);
    check(1, 1);
}

fn first_seq(record: &Record) -> u32 {
    match record {
        Record::ImageRest { first_seq, .. } => *first_seq,
        other => panic!("no rest of an image: {other:?}"),
    }
}

fn with_steps(record: Record) -> Record {
    match record {
        Record::ImageRest {
            request_id,
            first_seq,
            entries,
        } => Record::Steps {
            request_id,
            first_seq,
            entries,
        },
        other => other,
    }
}

#[test]
fn an_id_that_is_used_again_begins_anew() {
    let id = every_step().request_id;
    let lives = |replay: Replay, len: usize, at_ms: u64| {
        assert!(replay.tails.is_empty());
        let known = &replay.requests[&id].log;
        assert_eq!(
            (known.len(), known[0].at_ms),
            (len, every_step().log[0].at_ms + at_ms),
            "the last life"
        );
    };
    let (first, second, third) = (next_life(2, 0), next_life(2, 1_000), next_life(1, 2_000));
    lives(merge(&[&[first.clone(), second.clone()]]).unwrap(), 2, 1_000);
    lives(
        merge(&[&[first.clone(), second.clone(), third.clone()]]).unwrap(),
        1,
        2_000,
    );
    // In a later boot's journal, as an image.
    let Record::Steps {
        request_id, entries, ..
    } = third.clone()
    else {
        unreachable!()
    };
    let image = Record::Image(RequestLog {
        request_id,
        log: entries,
    });
    lives(merge(&[&[first.clone(), third.clone()], &[image]]).unwrap(), 1, 2_000);
    // Of the first life only the end is left.
    let tail = Record::Steps {
        request_id: id.clone(),
        first_seq: 7,
        entries: every_step().log[13..15].to_vec(),
    };
    let dropped = |records: Vec<Record>| Replay::merge(vec![left(owner(1, 0), 40, records)]);
    lives(dropped(vec![tail, second.clone()]).unwrap(), 2, 1_000);
    // Nobody takes the id of a request that is not over, and the same life does not end and go on.
    let check = |records: &[Record], expect: &str| assert_eq!(merge(&[records]).unwrap_err().cause, expect);
    check(
        &[next_life(1, 0), next_life(1, 1_000)],
        "seq 1 was told differently before",
    );
    check(&[first, third, second], "seq 1 was told differently before");
}

/// What another node took over is nobody's here, whatever was recorded of it, until an image begins it anew; that may tell
/// another story from where the other node went on.
#[test]
fn what_was_given_up_is_void() {
    let id = every_step().request_id;
    let given_up = || Record::GivenUp { request_id: id.clone() };
    let other = RequestLog {
        request_id: id.clone(),
        log: [&log(2).log[..], &every_step().log[6..8]].concat(),
    };
    assert!(other.log[2] != log(3).log[2]);
    let image = || Record::Image(other.clone());
    assert_eq!(merge(&[&[steps(1, 4), given_up()]]).unwrap().requests.len(), 0);
    for journals in [
        &[&[steps(1, 4), given_up(), image()][..]][..],
        &[&[steps(1, 4)], &[given_up(), image()]],
    ] {
        let replay = merge(journals).unwrap();
        assert_eq!(replay.requests[&id], other);
    }
    assert!(merge(&[&[steps(1, 4), image()]]).is_err(), "a contradiction");
    // Its beginning may be gone from the journal.
    let dropped = Replay::merge(vec![left(owner(1, 0), 40, vec![steps(3, 4), given_up()])]).unwrap();
    assert!(dropped.requests.is_empty() && dropped.tails.is_empty());
}

#[test]
fn drivers_and_order() {
    let seen = |at_ms| Record::DriverSeen {
        driver_id: driver("d"),
        at_ms,
    };
    let shift = |at_ms, off| Record::OffShift {
        driver_id: driver("d"),
        at_ms,
        off,
    };
    let replay = Replay::merge(vec![
        left(owner(1, 0), 1, vec![seen(10), shift(20, true)]),
        left(owner(1, 1), 1, vec![steps(1, 1)]),
        left(owner(2, 0), 5, vec![seen(5), shift(30, false)]),
    ])
    .unwrap();
    assert_eq!(replay.drivers_seen[&driver("d")], 5);
    assert_eq!(replay.off_shift[&driver("d")], OffShift { at_ms: 30, off: false });
    let order: Vec<_> = replay
        .feed
        .iter()
        .map(|fed| (fed.incarnation.get(), fed.shard, fed.lsn))
        .collect();
    assert_eq!(order, [(1, 0, 1), (1, 0, 2), (1, 1, 1), (2, 0, 5), (2, 0, 6)]);
}

#[test]
fn long_logs_are_split_and_come_back_whole() {
    let mut long = every_step();
    for index in 0..5000_u32 {
        let step = Step::Refused {
            attempt: index,
            driver_id: driver(&format!("driver-with-a-rather-long-name-{index}")),
            reason: dispatchd::fsm::types::RefuseReason::Offline,
        };
        long.log.push(LogEntry {
            at_ms: 1_700_000_100_000 + u64::from(index),
            step,
        });
    }
    for max in [2000, 64 << 10, 1 << 20] {
        let records = image_records(&long, max);
        assert!(matches!(records[0], Record::Image(_)));
        assert_eq!(records.len() == 1, max == 1 << 20);
        for record in &records {
            assert!(encode(record, &mut AlignedBuffer::new()).unwrap() <= max);
        }
        let again = image_records(&long, max);
        let replay = merge(&[&records, &again]).unwrap();
        assert_eq!(replay.requests[&long.request_id], long);
    }
    let short = RequestLog {
        request_id: request("r"),
        log: vec![every_step().log[0].clone()],
    };
    assert_eq!(image_records(&short, 1 << 20), [Record::Image(short.clone())]);
}

/// A part is as long as it may be, and a step that is longer than all that stands alone: the writer refuses it by name.
#[test]
fn parts_are_as_long_as_they_may_be() {
    let whole = log(8);
    let bytes = |entries: &[LogEntry]| RECORD_OVERHEAD_MAX + entries.iter().map(entry_len_max).sum::<usize>();
    let seqs = |max: usize| -> Vec<(u32, usize)> {
        let place = |record| match record {
            Record::Image(image) => (1, image.log.len()),
            Record::ImageRest { first_seq, entries, .. } => (first_seq, entries.len()),
            other => panic!("{other:?}"),
        };
        image_records(&whole, max).into_iter().map(place).collect()
    };
    let all = bytes(&whole.log);
    assert_eq!(seqs(all), [(1, 8)]);
    assert_eq!(seqs(all - 1), [(1, 7), (8, 1)]);
    assert_eq!(seqs(bytes(&whole.log[..3])), [(1, 3), (4, 5)]);
    let one_each: Vec<_> = (1..=8).map(|seq| (seq, 1)).collect();
    assert_eq!(seqs(1), one_each);
}
