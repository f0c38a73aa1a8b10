//! What recovery makes of journals: the store hears what it heard, once, and requests are as they were.

use super::{Recovered, newest_of, understand};
use crate::cold::{Commit, EndedRequest, Source};
use crate::fsm::fold::{self, Fold};
use crate::fsm::ids::{DriverId, RequestId};
use crate::fsm::types::{LogEntry, Priority, Record, RefuseReason, RequestLog, Step, UnixMs};
use crate::journal::{Incarnation, RecoveredShard, Scan, image_records};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn request(number: u8) -> RequestId {
    RequestId::parse(&format!("r-{number}")).unwrap()
}

fn driver(number: usize) -> DriverId {
    DriverId::parse(&format!("d-{number}")).unwrap()
}

fn received() -> Step {
    Step::Received {
        priority: Priority::Standard,
        deadline_at_ms: 1 << 40,
        offer_timeout_ms: 1_000,
        max_attempts: None,
        parallel: 1,
        busy_wait_ms: 0,
        candidates: Vec::new(),
        trip: "{}".into(),
    }
}

/// A node's journals and what it told its store, written as a shard writes them.
struct World {
    /// Incarnation, number of the first record that is kept, records.
    journals: Vec<(u64, u64, Vec<Record>)>,
    /// What the store was told, by incarnation and number of the record.
    told: BTreeMap<(u64, u64), Commit>,
    /// What the store surely has of the last journal.
    stored: u64,
    /// Logs that the shard has in memory, with the first record of each that recovery needs.
    requests: BTreeMap<RequestId, (Vec<LogEntry>, u64)>,
    record_bytes_max: usize,
    now_ms: UnixMs,
}

impl World {
    fn new(record_bytes_max: usize) -> Self {
        Self {
            journals: vec![(1, 1, Vec::new())],
            told: BTreeMap::new(),
            stored: 0,
            requests: BTreeMap::new(),
            record_bytes_max,
            now_ms: 1_700_000_000_000,
        }
    }

    fn append(&mut self, record: Record) -> u64 {
        let (_, first, records) = self.journals.last_mut().unwrap();
        records.push(record);
        *first + records.len() as u64 - 1
    }

    fn next_lsn(&self) -> u64 {
        let (_, first, records) = self.journals.last().unwrap();
        first + records.len() as u64
    }

    /// One record of a request's steps: its first, or more of them, or (`end`) its last.
    fn decide(&mut self, id: &RequestId, steps: u8, end: bool) {
        let is_over = |log: &[LogEntry]| Fold::of(log).unwrap().is_closed();
        if self.requests.get(id).is_some_and(|(log, _)| is_over(log)) {
            // The id comes again: the store has had all of its first life for days.
            self.stored = self.next_lsn() - 1;
            self.requests.remove(id);
        }
        self.now_ms += 1;
        let (log, first_lsn) = self.requests.entry(id.clone()).or_insert((Vec::new(), u64::MAX));
        let from = log.len();
        for _ in 0..steps.max(1) {
            let attempt = log
                .iter()
                .filter(|entry| matches!(entry.step, Step::Refused { .. }))
                .count()
                + 1;
            let step = match log.len() {
                0 => received(),
                len if len % 3 == 0 => Step::Exhausted,
                _ => Step::Refused {
                    attempt: attempt as u32,
                    driver_id: driver(attempt),
                    reason: RefuseReason::Offline,
                },
            };
            let at_ms = self.now_ms;
            log.push(LogEntry { at_ms, step });
        }
        if end {
            let (at_ms, step) = (self.now_ms, Step::Cancelled { reason: None });
            log.push(LogEntry { at_ms, step });
        }
        let (log, first_lsn) = (log.clone(), *first_lsn);
        let lsn = self.append(Record::Steps {
            request_id: id.clone(),
            first_seq: from as u32 + 1,
            entries: log[from..].to_vec(),
        });
        self.tell(lsn, id, &log, from);
        self.requests.insert(id.clone(), (log, first_lsn.min(lsn)));
    }

    /// As a shard does when the record is committed.
    fn tell(&mut self, lsn: u64, id: &RequestId, log: &[LogEntry], from: usize) {
        let incarnation = self.journals.last().unwrap().0;
        let mut commit = Commit::empty(Source { incarnation, shard: 0 }, lsn);
        let fold = Fold::of(log).unwrap();
        fold::published(id, log, from, &fold, &mut commit.published);
        fold::rows(id, log, from, &fold, &mut commit.rows);
        commit.ended = fold.is_closed().then(|| EndedRequest {
            log: RequestLog {
                request_id: id.clone(),
                log: log.to_vec(),
            },
            trip_id: None,
            ended_at_ms: log.last().unwrap().at_ms,
        });
        if is_news(&commit) {
            self.told.insert((incarnation, lsn), commit);
        }
    }

    fn live(&self) -> BTreeMap<RequestId, Vec<LogEntry>> {
        let open = |log: &Vec<LogEntry>| !Fold::of(log).unwrap().is_closed();
        let live = self.requests.iter().filter(|(_, (log, _))| open(log));
        live.map(|(id, (log, _))| (id.clone(), log.clone())).collect()
    }

    fn images(&self, id: &RequestId, log: Vec<LogEntry>) -> Vec<Record> {
        let request_id = id.clone();
        image_records(&RequestLog { request_id, log }, self.record_bytes_max)
    }

    fn image(&mut self, id: &RequestId) {
        if let Some(log) = self.live().remove(id) {
            let first_lsn = self.next_lsn();
            for record in self.images(id, log.clone()) {
                self.append(record);
            }
            self.requests.insert(id.clone(), (log, first_lsn));
        }
    }

    /// Lets the oldest records of the last journal go; open requests that need one of them are written again.
    fn drop_records(&mut self, share: u8) {
        let (_, first, records) = self.journals.last().unwrap();
        let through = first - 1 + records.len() as u64 * u64::from(share) / 255;
        for id in self.live().into_keys() {
            if self.requests[&id].1 <= through {
                self.image(&id);
            }
        }
        // Only when the store has everything; what is over has left memory by then.
        self.stored = self.next_lsn() - 1;
        let live = self.live();
        self.requests.retain(|id, _| live.contains_key(id));
        let (_, first, records) = self.journals.last_mut().unwrap();
        records.drain(..(through + 1 - *first) as usize);
        *first = through + 1;
    }

    /// A start that a crash ends when so many of its images (of 255) are written, and the one after it.
    fn restart(&mut self, written: u8) {
        let live = self.live();
        let images: Vec<Record> = live.iter().flat_map(|(id, log)| self.images(id, log.clone())).collect();
        let incarnation = self.journals.last().unwrap().0 + 1;
        let before = self.stored;
        let some = images.len() * usize::from(written) / 255;
        self.journals.push((incarnation, 1, images[..some].to_vec()));
        self.check(incarnation - 1, before);
        self.journals.push((incarnation + 1, 1, Vec::new()));
        self.requests = live.into_iter().map(|(id, log)| (id, (log, 0))).collect();
        for id in self.live().into_keys() {
            self.image(&id);
        }
        self.check(incarnation - 1, before);
        self.journals.drain(..self.journals.len() - 1);
        self.told.clear();
        self.stored = 0;
    }

    fn recovered(&self) -> Recovered {
        let shards = self
            .journals
            .iter()
            .map(|(incarnation, first_lsn, records)| RecoveredShard {
                incarnation: Incarnation::new(*incarnation).unwrap(),
                shard: 0,
                dir: "journal".into(),
                scan: Scan {
                    records: (*first_lsn..).zip(records.iter().cloned()).collect(),
                    first_lsn: *first_lsn,
                    ..Scan::default()
                },
            });
        understand(shards.collect()).unwrap()
    }

    /// What recovery says is what happened; the store has `stored` of this incarnation and nothing of later ones.
    fn check(&self, incarnation: u64, stored: u64) {
        let Recovered { feed, live, newest_ms } = self.recovered();
        let live: BTreeMap<_, _> = live.iter().map(|one| (one.id().clone(), one.log().to_vec())).collect();
        assert_eq!(live, self.live());
        let place = |commit: &Commit| (commit.source.incarnation, commit.lsn);
        let feed: BTreeMap<_, _> = feed.into_iter().filter(is_news).map(|one| (place(&one), one)).collect();
        for (place, commit) in &feed {
            assert_eq!(self.told.get(place), Some(commit), "{place:?} is no news");
        }
        for place in self.told.keys().filter(|place| **place > (incarnation, stored)) {
            assert!(feed.contains_key(place), "{place:?} is lost");
        }
        let records = self.journals.iter().flat_map(|(_, _, records)| records);
        assert_eq!(newest_ms, records.map(newest_of).max().unwrap_or(0));
    }

    fn check_now(&self) {
        self.check(self.journals.last().unwrap().0, self.stored);
    }
}

fn is_news(commit: &Commit) -> bool {
    *commit != Commit::empty(commit.source, commit.lsn)
}

#[derive(Clone, Debug)]
enum Act {
    Decide { request: u8, steps: u8, end: bool },
    Image(u8),
    Drop(u8),
    Restart(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        12 => (0u8..2, 1u8..4, prop::bool::weighted(0.2))
            .prop_map(|(request, steps, end)| Act::Decide { request, steps, end }),
        2 => (0u8..2).prop_map(Act::Image),
        2 => any::<u8>().prop_map(Act::Drop),
        1 => any::<u8>().prop_map(Act::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    /// Ids that are used again, images of several records, and journals whose beginning was dropped.
    #[test]
    fn the_store_hears_again_what_it_heard_and_requests_are_as_they_were(
        acts in vec(act(), 1..40),
        record_bytes_max in 300_usize..1_500,
    ) {
        let mut world = World::new(record_bytes_max);
        for act in acts {
            match act {
                Act::Decide { request: of, steps, end } => world.decide(&request(of), steps, end),
                Act::Image(of) => world.image(&request(of)),
                Act::Drop(share) => world.drop_records(share),
                Act::Restart(written) => world.restart(written),
            }
            world.check_now();
        }
    }
}

#[test]
fn an_image_of_several_records_is_no_news_at_any_start() {
    let mut world = World::new(400);
    let id = request(0);
    for _ in 0..8 {
        world.decide(&id, 3, false);
    }
    for _ in 0..3 {
        world.restart(255);
        let Recovered { feed, live, .. } = world.recovered();
        assert!(world.journals.last().unwrap().2.len() > 2, "the image has parts");
        assert_eq!(feed, []);
        assert_eq!(live.len(), 1);
    }
    // What is decided after it is.
    world.decide(&id, 3, false);
    world.check_now();
    assert_eq!(world.told.len(), 1);
}

#[test]
fn a_tail_waits_for_an_image_of_several_records() {
    let mut world = World::new(400);
    for _ in 0..8 {
        world.decide(&request(0), 3, false);
    }
    // All but the last record of steps, and the image after it.
    world.drop_records(240);
    let (_, first, records) = world.journals.last().unwrap();
    assert!(*first > 1 && matches!(records[0], Record::Steps { first_seq, .. } if first_seq > 1));
    assert!(records.len() > 3);
    world.check_now();
}

#[test]
fn the_second_life_of_an_id_is_news_from_its_first_step() {
    let mut world = World::new(1_000);
    let id = request(0);
    world.decide(&id, 3, true);
    world.decide(&id, 2, true);
    world.decide(&id, 1, false);
    world.check_now();
    assert_eq!(world.told.len(), 2);
    let Recovered { feed, live, .. } = world.recovered();
    let ended: Vec<usize> = feed
        .iter()
        .filter_map(|one| Some(one.ended.as_ref()?.log.log.len()))
        .collect();
    assert_eq!(ended, [4, 3]);
    assert_eq!(live[0].log().len(), 1);
}

#[test]
fn the_store_is_not_told_of_the_end_of_what_other_nodes_have_had() {
    let id = request(0);
    let entry = |step| LogEntry { at_ms: 1, step };
    let log = vec![entry(received())];
    let request_id = || id.clone();
    let shared = || Record::Shared {
        request_id: request_id(),
    };
    let image = || {
        Record::Image(RequestLog {
            request_id: request_id(),
            log: log.clone(),
        })
    };
    let end = || Record::Steps {
        request_id: request_id(),
        first_seq: 2,
        entries: vec![entry(Step::Cancelled { reason: None })],
    };
    let check = |records: Vec<Record>, is_told: bool| {
        let mut world = World::new(1_000);
        world.journals[0].2.extend(records.clone());
        let Recovered { feed, live, .. } = world.recovered();
        let (events, ended): (Vec<_>, Vec<_>) = (feed.iter())
            .map(|one| (one.published.len(), one.ended.is_some()))
            .unzip();
        assert_eq!((events, ended), (vec![1], vec![is_told]), "{records:?}");
        assert!(live.is_empty());
    };
    check(vec![image(), end()], true);
    check(vec![shared(), image(), end()], false);
    check(vec![image(), shared(), end()], false);
    check(vec![shared(), image(), shared(), image(), end()], false);
    let gone = || Record::GivenUp {
        request_id: request_id(),
    };
    check(vec![shared(), image(), gone(), image(), end()], true);
}

#[test]
fn the_newest_time_is_that_of_any_record() {
    let check = |records: Vec<Record>, expect: UnixMs| {
        let mut world = World::new(1_000);
        world.decide(&request(0), 1, true);
        for record in records {
            world.append(record);
        }
        assert_eq!(world.recovered().newest_ms, expect);
    };
    let (driver_id, at_ms) = (driver(0), 1_800_000_000_000);
    check(vec![], 1_700_000_000_001);
    let seen = Record::DriverSeen {
        driver_id: driver_id.clone(),
        at_ms,
    };
    check(vec![seen], at_ms);
    check(
        vec![Record::OffShift {
            driver_id,
            at_ms,
            off: true,
        }],
        at_ms,
    );
}
