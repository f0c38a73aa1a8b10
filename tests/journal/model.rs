//! Random histories with a crash at the end, against a model: a list of records and how far it was acknowledged.

use super::record::record;
use super::support::{Journal, owner};
use dispatchd::fsm::types::Record;
use dispatchd::journal::JournalError;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    Append(Record),
    Commit,
    AddSegment,
    DropThrough(u8),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => record().prop_map(Act::Append),
        4 => Just(Act::Commit),
        2 => Just(Act::AddSegment),
        1 => any::<u8>().prop_map(Act::DropThrough),
    ]
}

fn run(acts: Vec<Act>, segment_pages: u64) -> Journal {
    let mut journal = Journal::new(owner(5, 2), segment_pages * 4096, 8 << 10);
    for act in acts {
        match act {
            Act::Append(record) => match journal.writer.append(&record) {
                Ok(lsn) => {
                    journal.records.push(record);
                    assert_eq!(lsn, journal.records.len() as u64);
                }
                Err(error) => assert!(matches!(error, JournalError::RecordTooLarge { .. })),
            },
            Act::Commit => {
                let _ = journal.commit();
            }
            Act::AddSegment => journal.add_segment(),
            Act::DropThrough(share) => {
                let lsn = journal.writer.committed() * u64::from(share) / 255;
                for id in journal.writer.drop_through(lsn) {
                    assert_eq!(
                        journal.disk.0.pop_first().map(|(first, _)| first),
                        Some(id),
                        "oldest first"
                    );
                }
            }
        }
    }
    journal
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn a_crash_at_any_time_keeps_what_was_acknowledged(
        acts in vec(act(), 0..60),
        segment_pages in 3_u64..12,
        stored in any::<u64>(),
    ) {
        let mut journal = run(acts, segment_pages);
        let acknowledged = journal.writer.committed();
        let mut through = acknowledged;
        if let Some(op) = journal.writer.next_write() {
            let bytes = op.buffer.as_slice().to_vec();
            let records = u64::from(u32::from_le_bytes(bytes[20..24].try_into().unwrap()));
            through = acknowledged + records;
            let write = super::support::Write { segment: op.segment, offset: op.offset as usize, bytes, through };
            journal.disk.store(&write, |sector| stored & (1 << (sector % 64)) != 0);
        }
        let scan = journal.disk.scan(owner(5, 2)).unwrap();
        let found = scan.next_lsn - 1;
        // When every segment that held a record is gone there is nothing to count from.
        if scan.first_lsn > 0 {
            prop_assert!(found == acknowledged || found == through);
            journal.expect(&scan, found);
        } else {
            prop_assert_eq!(acknowledged, 0, "the current segment is never dropped");
        }
    }
}
