//! Records of several boots in any order and overlap: merged they give the beginning of each request's story and nothing
//! else, or an error where a part is missing or told differently. What is merged folds, or is refused, and its images
//! give the same again.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use dispatchd::fsm::fold::{Fold, published, rows};
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::types::{LogEntry, Record, RequestLog};
use dispatchd::given::records;
use dispatchd::journal::{Incarnation, RecoveredShard, Replay, Scan, image_records};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

/// Requests of these stories.
const REQUESTS: u8 = 3;

#[derive(Arbitrary, Debug)]
enum Part {
    Steps {
        request: u8,
        first: u8,
        len: u8,
    },
    Image {
        request: u8,
        len: u8,
    },
    /// Steps of which one is another's.
    Lie {
        request: u8,
        first: u8,
        len: u8,
    },
    Seen {
        driver: u8,
        at_ms: u8,
    },
    Shift {
        driver: u8,
        at_ms: u8,
        off: bool,
    },
}

#[derive(Arbitrary, Debug)]
struct Boot {
    /// The journal's first record is no longer its number 1.
    dropped: bool,
    parts: Vec<Part>,
}

fn request(number: u8) -> RequestId {
    RequestId::parse(&format!("r{}", number % REQUESTS)).expect("an id")
}

fn driver(number: u8) -> DriverId {
    DriverId::parse(&format!("d{}", number % 3)).expect("an id")
}

/// The story of a request: its first step and any others, no two of them alike.
fn story(u: &mut Unstructured<'_>) -> Result<Vec<LogEntry>> {
    let mut story = vec![LogEntry {
        at_ms: 0,
        step: records::received(u)?,
    }];
    for at_ms in 1..3 + u64::from(u.int_in_range(0..=7_u8)?) {
        let step = records::step(u)?;
        story.push(LogEntry { at_ms: 2 * at_ms, step });
    }
    Ok(story)
}

/// What is known of a request, by the numbers of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Whole(usize),
    Tail(usize, usize),
}

/// What the merge must come to, by the numbers of steps alone. `None`: an error.
fn grown(known: Option<Known>, first: usize, len: usize, dropped: bool) -> Option<Known> {
    if first == 0 || len == 0 {
        return None;
    }
    let last = first + len - 1;
    match known {
        Some(Known::Whole(end)) => (first <= end + 1).then_some(Known::Whole(end.max(last))),
        Some(Known::Tail(begin, end)) if first == 1 => (begin <= last + 1).then_some(Known::Whole(end.max(last))),
        Some(Known::Tail(begin, end)) => (first <= end + 1).then_some(Known::Tail(begin, end.max(last))),
        None if first == 1 => Some(Known::Whole(last)),
        None => dropped.then_some(Known::Tail(first, last)),
    }
}

fn part_of(story: &[LogEntry], first: u8, len: u8) -> (u32, Vec<LogEntry>) {
    let first = usize::from(first) % (story.len() + 2);
    let begin = first.saturating_sub(1).min(story.len());
    let end = (begin + usize::from(len) % (story.len() + 1)).min(story.len());
    (first as u32, story[begin..end].to_vec())
}

fn record(part: &Part, stories: &[Vec<LogEntry>]) -> Record {
    let story = |number: u8| &stories[usize::from(number % REQUESTS)];
    match part {
        Part::Steps {
            request: of,
            first,
            len,
        } => {
            let (first_seq, entries) = part_of(story(*of), *first, *len);
            let request_id = request(*of);
            Record::Steps {
                request_id,
                first_seq,
                entries,
            }
        }
        Part::Lie {
            request: of,
            first,
            len,
        } => {
            let (first_seq, mut entries) = part_of(story(*of), *first, *len);
            if let Some(last) = entries.last_mut() {
                last.at_ms ^= 1;
            }
            let request_id = request(*of);
            Record::Steps {
                request_id,
                first_seq,
                entries,
            }
        }
        Part::Image { request: of, len } => {
            let (_, log) = part_of(story(*of), 1, *len);
            let request_id = request(*of);
            Record::Image(RequestLog { request_id, log })
        }
        Part::Seen { driver: name, at_ms } => Record::DriverSeen {
            driver_id: driver(*name),
            at_ms: (*at_ms).into(),
        },
        Part::Shift {
            driver: name,
            at_ms,
            off,
        } => Record::OffShift {
            driver_id: driver(*name),
            at_ms: (*at_ms).into(),
            off: *off,
        },
    }
}

fn left(incarnation: u64, dropped: bool, records: Vec<Record>) -> RecoveredShard {
    let first_lsn = if dropped { 40 } else { 1 };
    let next_lsn = first_lsn + records.len() as u64;
    let scan = Scan {
        records: (first_lsn..).zip(records).collect(),
        first_lsn,
        next_lsn,
        ..Scan::default()
    };
    RecoveredShard {
        incarnation: Incarnation::new(incarnation).expect("a small number"),
        shard: 0,
        dir: "journal".into(),
        scan,
    }
}

/// What the merge must know of each request; `None`: it must fail.
fn expected(boots: &[(bool, Vec<Record>)]) -> Option<BTreeMap<RequestId, Known>> {
    let mut known: BTreeMap<RequestId, Known> = BTreeMap::new();
    for (dropped, records) in boots {
        for record in records {
            let (id, first, len) = match record {
                Record::Steps {
                    request_id,
                    first_seq,
                    entries,
                } => (request_id, *first_seq as usize, entries.len()),
                Record::Image(image) => (&image.request_id, 1, image.log.len()),
                Record::DriverSeen { .. } | Record::OffShift { .. } => continue,
            };
            let now = grown(known.get(id).copied(), first, len, *dropped)?;
            known.insert(id.clone(), now);
        }
    }
    Some(known)
}

/// The steps that are known are the story's.
fn check_truth(replay: &Replay, known: &BTreeMap<RequestId, Known>, stories: &[Vec<LogEntry>]) {
    for number in 0..REQUESTS {
        let (id, story) = (request(number), &stories[usize::from(number)]);
        let tail = replay.tails.get(&id);
        match known.get(&id) {
            Some(Known::Whole(end)) => {
                assert_eq!(replay.requests[&id].log, story[..*end], "{id}");
                assert!(tail.is_none(), "{id}");
            }
            Some(Known::Tail(begin, end)) => {
                let tail = tail.expect("a tail");
                assert_eq!(
                    (tail.first_seq as usize, &tail.entries[..]),
                    (*begin, &story[begin - 1..*end])
                );
            }
            None => assert!(!replay.requests.contains_key(&id) && tail.is_none()),
        }
    }
}

/// What was merged means something or is refused, and comes back from images of any length.
fn check_meaning(replay: &Replay, record_bytes_max: usize) {
    for (id, whole) in &replay.requests {
        if let Ok(fold) = Fold::of(&whole.log) {
            for from in 0..=whole.log.len() {
                published(id, &whole.log, from, &fold, &mut Vec::new());
                rows(id, &whole.log, from, &fold, &mut Vec::new());
            }
        }
        let images = image_records(whole, record_bytes_max);
        let again = Replay::merge(vec![left(1, false, images)]).expect("images merge");
        assert_eq!(again.requests.get(id), Some(whole));
    }
}

fn check(u: &mut Unstructured<'_>) -> Result<()> {
    let boots: Vec<Boot> = u.arbitrary()?;
    let record_bytes_max = 500 + usize::from(u.arbitrary::<u16>()?) % 4000;
    let stories = [story(u)?, story(u)?, story(u)?];
    let lies = boots
        .iter()
        .any(|boot| boot.parts.iter().any(|part| matches!(part, Part::Lie { .. })));
    let boots: Vec<(bool, Vec<Record>)> = boots
        .iter()
        .map(|boot| {
            (
                boot.dropped,
                boot.parts.iter().map(|part| record(part, &stories)).collect(),
            )
        })
        .collect();
    let shards = boots.iter().zip(1..);
    let shards = shards.map(|((dropped, records), boot)| left(boot, *dropped, records.clone()));
    let merged = Replay::merge(shards.collect());
    match (&merged, expected(&boots)) {
        (Ok(replay), Some(known)) if !lies => check_truth(replay, &known, &stories),
        (Ok(_), None) => panic!("a part is missing and nobody says so"),
        (Err(error), Some(_)) => assert!(lies, "{error}"),
        _ => {}
    }
    if let Ok(replay) = merged {
        let count: usize = boots.iter().map(|(_, records)| records.len()).sum();
        assert_eq!(replay.feed.len(), count, "the store is fed all");
        check_meaning(&replay, record_bytes_max);
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = check(&mut Unstructured::new(data));
});
