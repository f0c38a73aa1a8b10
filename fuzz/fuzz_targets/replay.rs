//! Records of several boots in any order and overlap: merged they give the beginning of each request's story and nothing
//! else, or an error where a part is missing or told differently. An id may have a second story when the first is over.
//! What is merged folds, or is refused, and its images give the same again.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use dispatchd::fsm::fold::{Fold, published, rows};
use dispatchd::fsm::ids::{DriverId, RequestId};
use dispatchd::fsm::types::{LogEntry, Record, RefuseReason, RequestLog, Step};
use dispatchd::given::records;
use dispatchd::journal::{Incarnation, RecoveredShard, Replay, Scan, image_records};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

/// Requests of these stories.
const REQUESTS: u8 = 3;
/// Stories of each of them, one after the other.
const LIVES: usize = 2;
/// Between the beginnings of two stories, longer than any of them.
const LIFE_MS: u64 = 1_000;

/// By request and life.
type Stories = Vec<[Vec<LogEntry>; LIVES]>;

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
    Rest {
        request: u8,
        first: u8,
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

/// The story of a request: its first step and any others, no two of them alike; or one that folds and ends.
fn story(u: &mut Unstructured<'_>, life: usize) -> Result<Vec<LogEntry>> {
    let begin_ms = life as u64 * LIFE_MS;
    let mut story = vec![LogEntry {
        at_ms: begin_ms,
        step: records::received(u)?,
    }];
    let len = 3 + u32::from(u.int_in_range(0..=7_u8)?);
    let folds = u.arbitrary()?;
    for attempt in 1..len {
        let step = match folds {
            true if attempt + 1 == len => Step::Cancelled { reason: None },
            true => Step::Refused {
                attempt,
                driver_id: driver(attempt as u8),
                reason: RefuseReason::Offline,
            },
            false => records::step(u)?,
        };
        let at_ms = begin_ms + 2 * u64::from(attempt);
        story.push(LogEntry { at_ms, step });
    }
    Ok(story)
}

/// What is known of a request, by the numbers of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    life: usize,
    /// The last step from the first on.
    end: Option<usize>,
    /// The first and last step of a tail that these do not reach.
    tail: Option<(usize, usize)>,
}

/// A record, by the numbers of its steps.
#[derive(Clone, Copy, Debug)]
struct Told {
    life: usize,
    first: usize,
    len: usize,
    is_rest: bool,
}

/// What a merge must come to.
enum Grown {
    Known(Known),
    /// An error: something is missing.
    Missing,
    /// Two lives at once: what comes of it is not said.
    Mixed,
}

/// What the merge must come to, by the numbers of steps alone.
fn grown(known: Option<Known>, told: Told, dropped: bool, stories: &[Vec<LogEntry>; LIVES]) -> Grown {
    let Told {
        life,
        first,
        len,
        is_rest,
    } = told;
    if first == 0 || len == 0 || (is_rest && first == 1) {
        return Grown::Missing;
    }
    let last = first + len - 1;
    let begun = Grown::Known(Known {
        life,
        end: Some(last),
        tail: None,
    });
    let Some(Known {
        life: before,
        mut end,
        mut tail,
    }) = known
    else {
        return match (first, dropped) {
            (1, _) => begun,
            (_, false) => Grown::Missing,
            (_, true) => Grown::Known(Known {
                life,
                end: None,
                tail: Some((first, last)),
            }),
        };
    };
    if before != life {
        let is_over = |end: usize| Fold::of(&stories[before][..end]).is_ok_and(|fold| fold.is_closed());
        let is_anew = match (end, tail) {
            (Some(end), None) => is_over(end),
            (None, Some(_)) => life > before,
            _ => false,
        };
        return if first == 1 && is_anew { begun } else { Grown::Mixed };
    }
    match (&mut end, &mut tail) {
        (Some(end), _) if first > *end + 1 => return Grown::Missing,
        (Some(end), _) => *end = last.max(*end),
        (end, _) if first == 1 => *end = Some(last),
        (_, Some((_, end))) if first > *end + 1 => return Grown::Missing,
        (_, Some((_, end))) => *end = last.max(*end),
        (None, None) => unreachable!("something is known"),
    }
    if let (Some(end), Some((begin, tail_end))) = (&mut end, tail)
        && begin <= *end + 1
    {
        *end = tail_end.max(*end);
        tail = None;
    }
    Grown::Known(Known { life, end, tail })
}

fn part_of(story: &[LogEntry], first: u8, len: u8) -> (u32, Vec<LogEntry>) {
    let first = usize::from(first) % (story.len() + 2);
    let begin = first.saturating_sub(1).min(story.len());
    let end = (begin + usize::from(len) % (story.len() + 1)).min(story.len());
    (first as u32, story[begin..end].to_vec())
}

/// Which life of its request a part tells of.
fn life_of(request: u8) -> usize {
    usize::from(request / REQUESTS) % LIVES
}

fn steps(of: u8, first_seq: u32, entries: Vec<LogEntry>) -> Record {
    Record::Steps {
        request_id: request(of),
        first_seq,
        entries,
    }
}

fn record(part: &Part, stories: &Stories) -> (Record, usize) {
    let story = |number: u8| &stories[usize::from(number % REQUESTS)][life_of(number)];
    let record = match part {
        Part::Steps {
            request: of,
            first,
            len,
        } => {
            let (first_seq, entries) = part_of(story(*of), *first, *len);
            steps(*of, first_seq, entries)
        }
        Part::Rest {
            request: of,
            first,
            len,
        } => {
            let (first_seq, entries) = part_of(story(*of), *first, *len);
            Record::ImageRest {
                request_id: request(*of),
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
            steps(*of, first_seq, entries)
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
    };
    let life = match part {
        Part::Steps { request: of, .. }
        | Part::Image { request: of, .. }
        | Part::Rest { request: of, .. }
        | Part::Lie { request: of, .. } => life_of(*of),
        Part::Seen { .. } | Part::Shift { .. } => 0,
    };
    (record, life)
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

/// What the merge must know of each request.
enum Expected {
    Known(BTreeMap<RequestId, Known>),
    Missing,
    Mixed,
}

fn expected(boots: &[(bool, Vec<(Record, usize)>)], stories: &Stories) -> Expected {
    let mut known: BTreeMap<RequestId, Known> = BTreeMap::new();
    for (dropped, records) in boots {
        for (record, life) in records {
            let (id, first, len) = match record {
                Record::Steps {
                    request_id,
                    first_seq,
                    entries,
                }
                | Record::ImageRest {
                    request_id,
                    first_seq,
                    entries,
                } => (request_id, *first_seq as usize, entries.len()),
                Record::Image(image) => (&image.request_id, 1, image.log.len()),
                // No story here has a request that another node takes over.
                Record::DriverSeen { .. }
                | Record::OffShift { .. }
                | Record::GivenUp { .. }
                | Record::Shared { .. } => continue,
            };
            let told = Told {
                life: *life,
                first,
                len,
                is_rest: matches!(record, Record::ImageRest { .. }),
            };
            let number = (0..REQUESTS)
                .find(|number| request(*number) == *id)
                .expect("one of ours");
            match grown(known.get(id).copied(), told, *dropped, &stories[usize::from(number)]) {
                Grown::Known(now) => known.insert(id.clone(), now),
                Grown::Missing => return Expected::Missing,
                Grown::Mixed => return Expected::Mixed,
            };
        }
    }
    if known.values().any(|known| known.end.is_some() && known.tail.is_some()) {
        return Expected::Missing;
    }
    Expected::Known(known)
}

/// The steps that are known are the story's.
fn check_truth(replay: &Replay, known: &BTreeMap<RequestId, Known>, stories: &Stories) {
    for number in 0..REQUESTS {
        let id = request(number);
        let tail = replay.tails.get(&id);
        let Some(known) = known.get(&id) else {
            assert!(!replay.requests.contains_key(&id) && tail.is_none());
            continue;
        };
        let story = &stories[usize::from(number)][known.life];
        let whole = replay.requests.get(&id).map(|request| &request.log[..]);
        assert_eq!(whole, known.end.map(|end| &story[..end]), "{id}");
        let tail = tail.map(|tail| (tail.first_seq as usize, &tail.entries[..]));
        assert_eq!(tail, known.tail.map(|(begin, end)| (begin, &story[begin - 1..end])));
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
    let mut stories = Stories::new();
    for _ in 0..REQUESTS {
        stories.push([story(u, 0)?, story(u, 1)?]);
    }
    let lies = boots
        .iter()
        .any(|boot| boot.parts.iter().any(|part| matches!(part, Part::Lie { .. })));
    let boots: Vec<(bool, Vec<(Record, usize)>)> = boots
        .iter()
        .map(|boot| {
            let records = boot.parts.iter().map(|part| record(part, &stories));
            (boot.dropped, records.collect())
        })
        .collect();
    let shards = boots.iter().zip(1..).map(|((dropped, records), boot)| {
        let records = records.iter().map(|(record, _)| record.clone());
        left(boot, *dropped, records.collect())
    });
    let merged = Replay::merge(shards.collect());
    match (&merged, expected(&boots, &stories)) {
        (Ok(replay), Expected::Known(known)) if !lies => check_truth(replay, &known, &stories),
        (Ok(_), Expected::Missing) if !lies => panic!("a part is missing and nobody says so"),
        (Err(error), Expected::Known(_)) => assert!(lies, "{error}"),
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
