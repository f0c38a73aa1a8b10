//! A simulated disk and a writer on it.

use dispatchd::fsm::ids::{DriverId, RequestId, TripId};
use dispatchd::fsm::types::{
    Channel, LogEntry, Priority, Record, RefuseReason, RequestLog, RevokeReason, Step, TripOutcome,
};
use dispatchd::journal::{Damage, Geometry, Incarnation, Lsn, Owner, PAGE_BYTES, SECTOR_BYTES, Scan, Writer, scan};
use std::collections::BTreeMap;

pub const PAGE: u64 = PAGE_BYTES as u64;

pub fn owner(incarnation: u64, shard: u16) -> Owner {
    Owner {
        incarnation: Incarnation::new(incarnation).unwrap(),
        shard,
    }
}

pub fn request(id: &str) -> RequestId {
    RequestId::parse(id).unwrap()
}

pub fn driver(id: &str) -> DriverId {
    DriverId::parse(id).unwrap()
}

/// One write as the disk saw it.
#[derive(Clone, Debug)]
pub struct Write {
    pub segment: u64,
    pub offset: usize,
    pub bytes: Vec<u8>,
    /// Everything up to this record is durable once the write is.
    pub through: Lsn,
}

/// Segment files by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk(pub BTreeMap<u64, Vec<u8>>);

impl Disk {
    pub fn create(&mut self, writer: &Writer, id: u64) {
        let header = writer.segment_header(id);
        let mut bytes = vec![0; header.geometry.segment_bytes() as usize];
        bytes[..PAGE_BYTES].copy_from_slice(&header.encode());
        assert!(self.0.insert(id, bytes).is_none());
    }

    /// Stores the sectors of `write` for which `stored` says so.
    pub fn store(&mut self, write: &Write, stored: impl Fn(usize) -> bool) {
        let file = self.0.get_mut(&write.segment).unwrap();
        for (index, sector) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
            let at = write.offset + index * SECTOR_BYTES;
            if stored(index) {
                file[at..at + sector.len()].copy_from_slice(sector);
            }
        }
    }

    pub fn scan(&self, owner: Owner) -> Result<Scan, Damage> {
        scan(owner, self.0.iter().map(|(id, bytes)| (*id, bytes.as_slice())))
    }

    /// Does what the error message tells the operator to do.
    pub fn remedy(&mut self, damage: &Damage) {
        self.0
            .entry(damage.segment)
            .or_default()
            .truncate(damage.offset as usize);
        self.0.retain(|id, _| *id <= damage.segment);
    }
}

/// A journal and everything that happened to it.
pub struct Journal {
    pub writer: Writer,
    pub disk: Disk,
    /// All records taken; record `lsn` is at `lsn - 1`.
    pub records: Vec<Record>,
    /// Completed writes, in order.
    pub writes: Vec<Write>,
}

impl Journal {
    pub fn new(owner: Owner, segment_bytes: u64, commit_bytes_max: usize) -> Self {
        let geometry = Geometry::new(segment_bytes, commit_bytes_max).unwrap();
        let writer = Writer::new(owner, geometry);
        Self {
            writer,
            disk: Disk::default(),
            records: Vec::new(),
            writes: Vec::new(),
        }
    }

    pub fn append(&mut self, record: Record) -> Lsn {
        let lsn = self.writer.append(&record).unwrap();
        self.records.push(record);
        assert_eq!(lsn, self.records.len() as u64);
        lsn
    }

    pub fn add_segment(&mut self) {
        if let Some(id) = self.writer.needs_segment() {
            self.disk.create(&self.writer, id);
            self.writer.add_segment(id);
        }
    }

    /// Completes one write, if there is one to make.
    pub fn commit(&mut self) -> Option<&Write> {
        let op = self.writer.next_write()?;
        assert_eq!(op.len, op.buffer.len());
        assert!(op.offset.is_multiple_of(PAGE) && (op.len as u64).is_multiple_of(PAGE));
        assert_eq!(op.buffer.as_slice().as_ptr().addr() % PAGE_BYTES, 0);
        let (segment, offset, bytes) = (op.segment, op.offset as usize, op.buffer.as_slice().to_vec());
        let len = op.len;
        let committed = self.writer.completed(op.buffer, Ok(len)).unwrap();
        assert_eq!(self.writer.committed(), committed.through);
        let write = Write {
            segment,
            offset,
            bytes,
            through: committed.through,
        };
        self.disk.store(&write, |_| true);
        self.writes.push(write);
        self.writes.last()
    }

    /// Commits all that waits, with a segment whenever one is asked for.
    pub fn flush(&mut self) {
        self.add_segment();
        while self.commit().is_some() {
            self.add_segment();
        }
        assert!(self.writer.is_idle());
    }

    /// The disk as it was before the write of this index.
    pub fn disk_before(&self, write: usize) -> Disk {
        let mut disk = self.disk.clone();
        for write in &self.writes[write..] {
            disk.0.get_mut(&write.segment).unwrap()[write.offset..][..write.bytes.len()].fill(0);
        }
        disk
    }

    /// What a scan must return when exactly the records up to `through` are there.
    pub fn expect(&self, scan: &Scan, through: Lsn) {
        assert_eq!(scan.next_lsn, through + 1);
        let first = scan.first_lsn.max(1);
        let expected = (first..=through).map(|lsn| (lsn, &self.records[lsn as usize - 1]));
        assert!(
            scan.records.iter().map(|(lsn, record)| (*lsn, record)).eq(expected),
            "records up to {through}"
        );
    }
}

/// A record of about `bytes` bytes; `tag` makes it different from others.
pub fn sized(tag: u64, bytes: usize) -> Record {
    let trip = format!(
        "{{\"tag\":{tag},\"fill\":\"{}\"}}",
        "x".repeat(bytes.saturating_sub(200))
    );
    let step = received(&["d-1"], &trip);
    Record::Steps {
        request_id: request(&format!("request-{tag:016}")),
        first_seq: 1,
        entries: vec![LogEntry {
            at_ms: 1_700_000_000_000 + tag,
            step,
        }],
    }
}

pub fn received(candidates: &[&str], trip: &str) -> Step {
    Step::Received {
        priority: Priority::Premium,
        deadline_at_ms: 1_700_000_120_000,
        offer_timeout_ms: 8000,
        max_attempts: Some(3),
        parallel: 1,
        busy_wait_ms: 0,
        candidates: candidates.iter().map(|id| driver(id)).collect(),
        trip: trip.into(),
    }
}

/// A log that holds every kind of step.
pub fn every_step() -> RequestLog {
    let request_id = request("request-with-every-kind-of-step");
    let trip_id = TripId::for_request(&request_id, 1_700_000_000_000);
    let attempt = 7;
    let steps = vec![
        received(
            &["driver-1", "a-driver-with-a-longer-name-than-fits-inline"],
            "{\"to\":\"JFK\"}",
        ),
        Step::Redispatched {
            candidates: vec![driver("d-3")],
            offer_timeout_ms: Some(5000),
            parallel: None,
            busy_wait_ms: Some(1),
        },
        Step::OfferSent {
            attempt,
            driver_id: driver("d-3"),
            expires_at_ms: 1_700_000_008_000,
        },
        Step::Delivered { attempt },
        Step::Acked { attempt },
        Step::Accepted {
            attempt,
            channel: Channel::WebSocket,
        },
        Step::Declined {
            attempt,
            channel: Channel::Http,
            reason: Some("too far".into()),
        },
        Step::TimedOut { attempt },
        Step::Refused {
            attempt,
            driver_id: driver("d-4"),
            reason: RefuseReason::OnTrip,
        },
        Step::Revoked {
            attempt,
            reason: RevokeReason::Taken,
        },
        Step::Exhausted,
        Step::TripCreated {
            trip_id,
            driver_id: driver("d-3"),
        },
        Step::PickedUp,
        Step::TripEnded {
            outcome: TripOutcome::CancelledByDriver,
            reason: None,
        },
        Step::Cancelled {
            reason: Some("rain".into()),
        },
        Step::Unfulfilled { by_deadline: true },
    ];
    let entry = |(index, step)| LogEntry {
        at_ms: 1_700_000_000_000 + index as u64,
        step,
    };
    RequestLog {
        request_id,
        log: steps.into_iter().enumerate().map(entry).collect(),
    }
}

/// One record of every kind.
pub fn every_record() -> Vec<Record> {
    let image = every_step();
    vec![
        Record::Steps {
            request_id: image.request_id.clone(),
            first_seq: 1,
            entries: image.log[..2].to_vec(),
        },
        Record::Image(image),
        Record::DriverSeen {
            driver_id: driver("d-3"),
            at_ms: 1_700_000_000_000,
        },
        Record::OffShift {
            driver_id: driver("d-3"),
            at_ms: 1_700_000_000_001,
            off: true,
        },
    ]
}
